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
    g_assert_false(link_tx_want_room(&x.tx));
    (void)link_tx_publish(&x.tx);
    for (uint32_t i = 0; i < n; i++) {
        g_assert_true(get(&x, 1500, i));
        bool woken = link_rx_release(&x.rx);
        uint32_t left = (n - 1 - i) * 1520;
        g_assert_cmpint(woken, ==,
                        left <= LINK_RING_BYTES / 2 && left + 1520 > LINK_RING_BYTES / 2);
    }
    g_assert_true(link_tx_want_room(&x.tx));
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

/* What a burst touched goes back once all is read, and not before; frames go on as if nothing was. */
static void test_trim(void)
{
    int fd = memfd_create("ring", MFD_CLOEXEC);
    uint32_t in = 0, out = 0;
    struct stat st;
    Fix x;

    g_assert_cmpint(ftruncate(fd, LINK_BYTES), ==, 0);
    x.memory = mmap(NULL, LINK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    g_assert_true(x.memory != MAP_FAILED);
    link_tx_init(&x.tx, x.memory, 0);
    link_rx_init(&x.rx, x.memory, 0);
    for (unsigned round = 0; round < 3; round++) {
        while (put(&x, 1500, in))
            in++;
        link_tx_trim(&x.tx); /* not published */
        (void)link_tx_publish(&x.tx);
        link_tx_trim(&x.tx); /* not read */
        link_rx_trim(&x.rx);
        g_assert_cmpint(fstat(fd, &st), ==, 0);
        g_assert_cmpint(st.st_blocks * 512, >, LINK_RING_BYTES / 2);
        for (; out < in; out++)
            g_assert_true(get(&x, 1500, out));
        link_tx_trim(&x.tx); /* not given back */
        g_assert_cmpint(fstat(fd, &st), ==, 0);
        g_assert_cmpint(st.st_blocks * 512, >, LINK_RING_BYTES / 2);
        (void)link_rx_release(&x.rx);
        link_rx_trim(&x.rx);
        link_tx_trim(&x.tx);
        g_assert_cmpint(fstat(fd, &st), ==, 0);
        g_assert_cmpint(st.st_blocks * 512, <=, 64 << 10);
    }
    g_assert_false(x.rx.broken);
    munmap(x.memory, LINK_BYTES);
    close(fd);
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
        g_assert_false(link_tx_want_room(&x.tx));
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
    g_test_add_func("/link-ring/trim", test_trim);
    g_test_add_func("/link-ring/meta", test_meta);
    g_test_add_func("/link-ring/hostile-record", test_hostile_record);
    g_test_add_func("/link-ring/hostile-end", test_hostile_end);
    g_test_add_func("/link-ring/hostile-tail", test_hostile_tail);
    return g_test_run();
}
