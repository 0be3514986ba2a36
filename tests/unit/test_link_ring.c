/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rings between processes: order, full and empty, sleeping, a peer that writes what it likes. */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/num.h"
#include "link_ring.h"

typedef struct Fix {
    uint8_t *memory;
    LinkTx tx;
    LinkRx rx;
} Fix;

static void fix_open(Fix *x)
{
    x->memory = g_aligned_alloc0(1, LINK_BYTES, 4096);
    link_tx_init(&x->tx, x->memory, 0);
    link_rx_init(&x->rx, x->memory, 0);
}

static void fix_close(Fix *x)
{
    g_aligned_free(x->memory);
}

static uint8_t pattern[NET_FRAME_MAX];

/* A frame of @len bytes that starts with @seq, in two pieces. */
static bool put(Fix *x, uint32_t len, uint32_t seq)
{
    uint8_t head[4];
    struct iovec iov[2] = {{head, MIN(len, 4u)}, {pattern, len > 4 ? len - 4 : 0}};
    NetFrame f = {.iov = iov, .niov = 2, .len = len};

    store_be32(head, seq);
    return link_tx_put(&x->tx, &f);
}

static bool get(Fix *x, uint32_t len, uint32_t seq)
{
    struct iovec at;
    NetFrame f;

    if (!link_rx_next(&x->rx, &f, &at))
        return false;
    g_assert_cmpuint(f.len, ==, len);
    g_assert_cmpuint(at.iov_len, ==, len);
    g_assert_cmpuint(load_be32(at.iov_base), ==, seq);
    g_assert_cmpmem((uint8_t *)at.iov_base + 4, len - 4, pattern, len - 4);
    return true;
}

static void test_order(void)
{
    uint32_t in = 0, out = 0, rand = 1;
    Fix x;

    fix_open(&x);
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i * 7);
    /* Lengths and pauses that put the ring's end everywhere. */
    uint32_t lens[4096];
    for (unsigned round = 0; round < 3000; round++) {
        rand = rand * 1664525u + 1013904223u;
        unsigned puts = rand >> 28, gets = rand >> 24 & 15;
        for (unsigned i = 0; i < puts; i++) {
            rand = rand * 1664525u + 1013904223u;
            uint32_t some = rand >> 8, len = rand >> 30 ? 60 + some % 1500
                                                        : 4 + some % (NET_FRAME_MAX - 3);
            lens[in % 4096] = len;
            if (in - out == 4095 || !put(&x, len, in))
                break;
            in++;
        }
        (void)link_tx_publish(&x.tx);
        for (unsigned i = 0; i < gets && out < in; i++, out++)
            g_assert_true(get(&x, lens[out % 4096], out));
        (void)link_rx_release(&x.rx);
    }
    for (; out < in; out++)
        g_assert_true(get(&x, lens[out % 4096], out));
    g_assert_false(get(&x, 0, 0));
    g_assert_false(x.tx.broken || x.rx.broken);
    g_assert_cmpuint(in, >, 5000);
    fix_close(&x);
}

static void test_unpublished(void)
{
    Fix x;

    fix_open(&x);
    g_assert_true(put(&x, 60, 1));
    g_assert_false(get(&x, 60, 1));
    (void)link_tx_publish(&x.tx);
    uint32_t mark = link_rx_mark(&x.rx);
    g_assert_true(get(&x, 60, 1));
    link_rx_back(&x.rx, mark);
    g_assert_true(get(&x, 60, 1));
    fix_close(&x);
}

static void test_full(void)
{
    uint32_t n = 0;
    Fix x;

    fix_open(&x);
    while (put(&x, 1500, n))
        n++;
    g_assert_cmpuint(n, >, LINK_RING_BYTES / 1600);
    g_assert_false(link_tx_want_room(&x.tx, 1500));
    (void)link_tx_publish(&x.tx);
    for (uint32_t i = 0; i < n; i++) {
        g_assert_true(get(&x, 1500, i));
        bool woken = link_rx_release(&x.rx);
        uint32_t left = (n - 1 - i) * 1520;
        g_assert_cmpint(woken, ==,
                        left <= LINK_RING_BYTES / 2 && left + 1520 > LINK_RING_BYTES / 2);
    }
    g_assert_true(link_tx_want_room(&x.tx, 1500));
    g_assert_true(put(&x, 1500, n));
    fix_close(&x);
}

static void test_sleep(void)
{
    Fix x;

    fix_open(&x);
    g_assert_true(put(&x, 60, 1));
    g_assert_false(link_tx_publish(&x.tx)); /* nobody sleeps yet */
    g_assert_false(link_rx_sleep(&x.rx));   /* something is there */
    g_assert_true(get(&x, 60, 1));
    (void)link_rx_release(&x.rx);
    g_assert_true(link_rx_sleep(&x.rx));
    g_assert_true(put(&x, 60, 2));
    g_assert_true(link_tx_publish(&x.tx));
    g_assert_true(put(&x, 60, 3));
    g_assert_false(link_tx_publish(&x.tx)); /* woken once */
    fix_close(&x);
}

/* With little under way, the ring stays in its first pages. */
static void test_rewind(void)
{
    uint32_t top = 0;
    Fix x;

    fix_open(&x);
    for (uint32_t i = 0; i < 5000; i++) {
        g_assert_true(put(&x, 1500, i));
        (void)link_tx_publish(&x.tx);
        g_assert_true(get(&x, 1500, i));
        (void)link_rx_release(&x.rx);
        top = MAX(top, x.tx.head & (LINK_RING_BYTES - 1));
    }
    g_assert_cmpuint(top, <, 32 << 10);
    fix_close(&x);
}

static void drain(Fix *x, uint32_t *out, uint32_t in)
{
    for (; *out < in; (*out)++)
        g_assert_true(get(x, 1500, *out));
    (void)link_rx_release(&x->rx);
}

/* One that is full time and again has the whole ring for what comes next, wherever it stands; after a
 * while without that it stays in its first pages again. */
static void test_crowded(void)
{
    enum { LEARNT = 6, SOME = 300, MOST = LINK_RING_BYTES / 1520 - 2, QUIET = (16 << 20) / 1520 };
    uint32_t in = 0, out = 0, top = 0;
    Fix x;

    fix_open(&x);
    while (put(&x, 1500, in))
        in++;
    for (unsigned round = 0; round < LEARNT + 10; round++) {
        (void)link_tx_publish(&x.tx);
        drain(&x, &out, in);
        for (unsigned i = 0; i < SOME; i++)
            g_assert_true(put(&x, 1500, in++));
        (void)link_tx_publish(&x.tx);
        drain(&x, &out, in);
        while (put(&x, 1500, in))
            in++;
        if (round > LEARNT)
            g_assert_cmpuint(in - out, >=, MOST);
    }
    for (unsigned i = 0; i < 2 * QUIET; i++) {
        (void)link_tx_publish(&x.tx);
        drain(&x, &out, in);
        g_assert_true(put(&x, 1500, in++));
        if (i > QUIET)
            top = MAX(top, x.tx.head & (LINK_RING_BYTES - 1));
    }
    g_assert_cmpuint(top, <, 32 << 10);
    fix_close(&x);
}

typedef struct Ring {
    Fix x;
    int fd;
} Ring;

static void ring_open(Ring *r)
{
    r->fd = memfd_create("ring", MFD_CLOEXEC);
    g_assert_cmpint(ftruncate(r->fd, LINK_BYTES), ==, 0);
    r->x.memory = mmap(NULL, LINK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
    g_assert_true(r->x.memory != MAP_FAILED);
    link_tx_init(&r->x.tx, r->x.memory, 0);
    link_rx_init(&r->x.rx, r->x.memory, 0);
}

static void ring_close(Ring *r)
{
    munmap(r->x.memory, LINK_BYTES);
    close(r->fd);
}

/* Bytes of the ring that take memory; the counters' page and what a tail needs beside. */
static gint64 ring_takes(const Ring *r)
{
    struct stat st;

    g_assert_cmpint(fstat(r->fd, &st), ==, 0);
    return st.st_blocks * 512 - LINK_HEAD_BYTES;
}

/* What a burst touched goes back once all is read, and not before; frames go on as if nothing was. */
static void test_trim(void)
{
    uint32_t in = 0, out = 0;
    Ring r;

    ring_open(&r);
    for (unsigned round = 0; round < 3; round++) {
        while (put(&r.x, 1500, in))
            in++;
        link_tx_trim(&r.x.tx); /* not published */
        (void)link_tx_publish(&r.x.tx);
        link_tx_trim(&r.x.tx); /* not read */
        link_rx_trim(&r.x.rx);
        g_assert_cmpint(ring_takes(&r), >, LINK_RING_BYTES / 2);
        for (; out < in; out++)
            g_assert_true(get(&r.x, 1500, out));
        link_tx_trim(&r.x.tx); /* not given back */
        g_assert_cmpint(ring_takes(&r), >, LINK_RING_BYTES / 2);
        (void)link_rx_release(&r.x.rx);
        link_rx_trim(&r.x.rx);
        link_tx_trim(&r.x.tx);
        g_assert_cmpint(ring_takes(&r), <=, 64 << 10);
    }
    g_assert_false(r.x.rx.broken);
    ring_close(&r);
}

/* Fill it, empty it. Return: how many frames went in. What leads to the start is read before, since
 * it takes room. */
static uint32_t fill(Fix *x, uint32_t len, uint32_t *seq)
{
    uint32_t n = 0;

    g_assert_true(put(x, len, *seq));
    (void)link_tx_publish(&x->tx);
    g_assert_true(get(x, len, (*seq)++));
    (void)link_rx_release(&x->rx);
    while (put(x, len, *seq + n))
        n++;
    (void)link_tx_publish(&x->tx);
    for (uint32_t i = 0; i < n; i++)
        g_assert_true(get(x, len, *seq + i));
    (void)link_rx_release(&x->rx);
    *seq += n;
    return n;
}

/* Both sides' limits hold from then on, what was used beyond goes back by itself, and comes again. */
static void test_limit(void)
{
    uint32_t seq = 0;
    Ring r;

    ring_open(&r);
    (void)fill(&r.x, 1500, &seq);
    g_assert_cmpint(ring_takes(&r), >, LINK_RING_BYTES / 2);
    link_rx_set_limit(&r.x.rx, 64 << 10);
    for (unsigned i = 0; i < 20; i++)
        g_assert_cmpuint(fill(&r.x, 1500, &seq), <=, (64 << 10) / 1520);
    g_assert_cmpint(ring_takes(&r), <=, 64 << 10);
    link_tx_set_limit(&r.x.tx, 1); /* the least there is */
    for (unsigned i = 0; i < 20; i++)
        g_assert_cmpuint(fill(&r.x, 1500, &seq), >=, LINK_LIMIT_MIN / 1520 / 2);
    g_assert_cmpint(ring_takes(&r), <=, LINK_LIMIT_MIN);
    link_tx_set_limit(&r.x.tx, LINK_RING_BYTES);
    link_rx_set_limit(&r.x.rx, UINT32_MAX); /* nonsense is no more than all */
    g_assert_cmpuint(fill(&r.x, 1500, &seq), >, LINK_RING_BYTES / 1520 - 20);
    g_assert_cmpint(ring_takes(&r), >, LINK_RING_BYTES / 2);
    g_assert_false(r.x.tx.broken || r.x.rx.broken);
    ring_close(&r);
}

/* Whatever the limit, frames of all lengths get through: who was told that there is room has it,
 * and who sleeps for it is woken, at the latest when nothing is left. */
static void test_limited_progress(void)
{
    enum { KEPT = LINK_RING_BYTES / 2 / LINK_ALIGN }; /* more than there is room for */
    g_autofree uint32_t *lens = g_new(uint32_t, KEPT);
    uint32_t rand = 7, in = 0, out = 0, sleeps = 0, early = 0;
    Ring r;

    ring_open(&r);
    while (in < 40000) {
        rand = rand * 1664525u + 1013904223u;
        if (rand >> 24 == 0)
            link_rx_set_limit(&r.x.rx, rand >> 4 & 0x1fffff);
        if (rand >> 24 == 1)
            link_tx_set_limit(&r.x.tx, rand >> 4 & 0x1fffff);
        rand = rand * 1664525u + 1013904223u;
        uint32_t some = rand >> 8, len = rand >> 29 ? 60 + some % 1500
                                                    : 4 + some % (NET_FRAME_MAX - 3);
        lens[in % KEPT] = len;
        if (put(&r.x, len, in)) {
            in++;
            continue;
        }
        (void)link_tx_publish(&r.x.tx);
        if (link_tx_want_room(&r.x.tx, len)) {
            g_assert_true(put(&r.x, len, in));
            in++;
            continue;
        }
        bool woken = false;
        sleeps++;
        while (!woken) {
            g_assert_cmpuint(out, <, in);
            g_assert_true(get(&r.x, lens[out % KEPT], out));
            out++;
            woken = link_rx_release(&r.x.rx);
        }
        early += out < in;
    }
    g_assert_cmpuint(sleeps, >, 500);
    g_assert_cmpuint(early, >, sleeps / 4); /* not only when nothing is left */
    g_assert_false(r.x.tx.broken || r.x.rx.broken);
    ring_close(&r);
}

static void test_meta(void)
{
    struct iovec iov = {pattern, 2000}, at;
    NetFrame in = {.iov = &iov, .niov = 1, .len = 2000, .gso_size = 1448, .csum_start = 34,
                   .csum_off = 16, .hdr_len = 66, .flags = NET_FRAME_NEEDS_CSUM,
                   .gso = NET_GSO_TCPV4}, out;
    Fix x;

    fix_open(&x);
    g_assert_true(link_tx_put(&x.tx, &in));
    (void)link_tx_publish(&x.tx);
    g_assert_true(link_rx_next(&x.rx, &out, &at));
    g_assert_cmpuint(out.gso_size, ==, 1448);
    g_assert_cmpuint(out.csum_start, ==, 34);
    g_assert_cmpuint(out.csum_off, ==, 16);
    g_assert_cmpuint(out.hdr_len, ==, 66);
    g_assert_cmpuint(out.flags, ==, NET_FRAME_NEEDS_CSUM);
    g_assert_cmpuint(out.gso, ==, NET_GSO_TCPV4);
    fix_close(&x);
}

/* What a producer can write that makes no sense: each breaks the reader, and nothing else. */
static void test_hostile_record(void)
{
    static const struct {
        const char *what;
        uint32_t head, at; /* the counter, and where the record stands */
        uint64_t a, b;
    } cases[] = {
        {"head off its step", 17, 0, 1, 0},
        {"head a ring and more away", LINK_RING_BYTES + 16, 0, 1, 0},
        {"head before tail", UINT32_MAX - 15, 0, 1, 0},
        {"no length", 16, 0, 0, 0},
        {"longer than frames are", LINK_RING_BYTES, 0, NET_FRAME_MAX + 1, 0},
        {"longer than what was written", 32, 0, 17, 0},
        {"a pad at the start", LINK_RING_BYTES, 0, UINT32_MAX, 0},
        {"unknown flags", 32, 0, 16 | (uint64_t)0x80 << 32, 0},
        {"checksum outside", 32, 0, 16 | (uint64_t)1 << 32, 15},
        {"checksum far outside", 32, 0, 16 | (uint64_t)1 << 32, 0xffffffff},
        {"segments without a size", 32, 0, 16 | (uint64_t)0x101 << 32, 0},
        {"segments without a checksum", 32, 0, 16 | (uint64_t)0x100 << 32, (uint64_t)1 << 32},
        {"unknown segments", 32, 0, 16 | (uint64_t)0x301 << 32, (uint64_t)1 << 32},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct iovec at;
        NetFrame f;
        Fix x;

        g_test_message("%s", cases[i].what);
        fix_open(&x);
        store_le64(x.memory + LINK_HEAD_BYTES + cases[i].at, cases[i].a);
        store_le64(x.memory + LINK_HEAD_BYTES + cases[i].at + 8, cases[i].b);
        x.rx.shared->head = cases[i].head;
        g_assert_false(link_rx_next(&x.rx, &f, &at));
        g_assert_true(x.rx.broken);
        x.rx.shared->head = 0; /* for good */
        g_assert_false(link_rx_next(&x.rx, &f, &at));
        fix_close(&x);
    }
}

/* A frame in the ring's last bytes must not run out of it, and a pad is not alone. */
static void test_hostile_end(void)
{
    struct iovec at;
    NetFrame f;
    Fix x;

    fix_open(&x);
    x.rx.tail = x.rx.head = x.rx.released = LINK_RING_BYTES - 32;
    x.rx.shared->head = LINK_RING_BYTES + 4096;
    store_le64(x.memory + LINK_HEAD_BYTES + LINK_RING_BYTES - 32, 100);
    g_assert_false(link_rx_next(&x.rx, &f, &at));
    g_assert_true(x.rx.broken);
    fix_close(&x);

    fix_open(&x);
    x.rx.tail = x.rx.head = x.rx.released = LINK_RING_BYTES - 32;
    x.rx.shared->head = LINK_RING_BYTES;
    store_le64(x.memory + LINK_HEAD_BYTES + LINK_RING_BYTES - 32, UINT32_MAX);
    g_assert_false(link_rx_next(&x.rx, &f, &at));
    g_assert_true(x.rx.broken);
    fix_close(&x);

    /* A pad that is longer than what was written, before a record that looks good. */
    fix_open(&x);
    x.rx.tail = x.rx.head = x.rx.released = LINK_RING_BYTES - 32;
    x.rx.shared->head = LINK_RING_BYTES - 16;
    store_le64(x.memory + LINK_HEAD_BYTES + LINK_RING_BYTES - 32, UINT32_MAX);
    store_le64(x.memory + LINK_HEAD_BYTES, 60);
    g_assert_false(link_rx_next(&x.rx, &f, &at));
    g_assert_true(x.rx.broken);
    fix_close(&x);
}

static void test_hostile_tail(void)
{
    static const uint32_t tails[] = {1, 16, 0x80000000u, UINT32_MAX, UINT32_MAX - 15};

    for (unsigned i = 0; i < G_N_ELEMENTS(tails); i++) {
        Fix x;
        unsigned n = 0;

        fix_open(&x);
        while (put(&x, 1500, n))
            n++;
        x.tx.shared->tail = tails[i]; /* nothing was published */
        g_assert_false(put(&x, 1500, n));
        g_assert_true(x.tx.broken);
        x.tx.shared->tail = 0;
        g_assert_false(put(&x, 1500, n));
        g_assert_false(link_tx_want_room(&x.tx, 1500));
        fix_close(&x);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/link-ring/order", test_order);
    g_test_add_func("/link-ring/unpublished", test_unpublished);
    g_test_add_func("/link-ring/full", test_full);
    g_test_add_func("/link-ring/sleep", test_sleep);
    g_test_add_func("/link-ring/rewind", test_rewind);
    g_test_add_func("/link-ring/crowded", test_crowded);
    g_test_add_func("/link-ring/trim", test_trim);
    g_test_add_func("/link-ring/limit", test_limit);
    g_test_add_func("/link-ring/limited-progress", test_limited_progress);
    g_test_add_func("/link-ring/meta", test_meta);
    g_test_add_func("/link-ring/hostile-record", test_hostile_record);
    g_test_add_func("/link-ring/hostile-end", test_hostile_end);
    g_test_add_func("/link-ring/hostile-tail", test_hostile_tail);
    return g_test_run();
}
