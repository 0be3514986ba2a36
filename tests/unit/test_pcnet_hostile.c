/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The Am79C970A: loopback, hostile rings, state and threads. */
#include "pcnetfix.h"

#include "lodge/iothread.h"

/* ---- loopback ---- */

static void test_loopback(Fix *f, gconstpointer unused)
{
    uint8_t b[104];

    f->mode = LOOP | INTL;
    start(f);
    offer(f, 0, own, 100);
    offer(f, 1, other, 100); /* not for us */
    offer(f, 2, own, 20);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
    g_assert_cmpuint(mcnt(f, 1), ==, 24);
    g_assert_true(status_of(f, RX_AT, 2) & OWN);
    get(f, RX_BUF(0), b, sizeof b);
    g_assert_cmpuint(b[99], ==, (uint8_t)(99 * 7));
    g_assert_true(load_le32(b + 100) != 0);
    uint32_t fcs = load_le32(b + 100);
    receive(f, own, 60); /* nothing comes in from the wire */
    g_assert_true(status_of(f, RX_AT, 2) & OWN);
    /* The driver's own FCS: right, then wrong. */
    f->mode |= DXMTFCS;
    start(f);
    for (unsigned i = 0; i < 2; i++) {
        offer(f, i, own, 104);
        put32(f, TX_BUF(i) + 100, fcs + i);
    }
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmphex(status_of(f, RX_AT, 0), ==, D_STP | D_ENP | PAM);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
    g_assert_cmphex(status_of(f, RX_AT, 1), ==, D_ERR | D_CRC | D_STP | D_ENP | PAM);
    /* External: on the wire as well. */
    f->mode = LOOP;
    start(f);
    offer(f, 0, own, 100);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, 1);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
    /* No descriptor: missed. */
    for (unsigned i = 1; i < 4; i++)
        put_desc(f, RX_AT, i, 0, 0, 0);
    offer(f, 1, own, 100);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(csr(f, 0) & MISS);
    /* Receiver off. */
    f->mode = LOOP | INTL | 1;
    start(f);
    offer(f, 0, own, 100);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
}

/* CVE-2021-3416: what is sent comes in over both rings and gives them back to the card, for ever.
 * The stack stays flat, each round is bounded and the caller comes back. */
static void test_loop_storm(Fix *f, gconstpointer unused)
{
    uint32_t image = TX_BUF(0), rings = TX_AT;

    f->mode = LOOP | INTL | PROM;
    f->tx_len = f->rx_len = 1;
    f->rx_at = rings + 2 * 16;
    start(f);
    for (unsigned i = 0; i < 2; i++) {
        put_desc(f, image, i, image, 64, OWN | D_STP | D_ENP);
        put_desc(f, image, 2 + i, rings, 68, OWN);
        put_desc(f, f->rx_at, i, rings, 68, OWN);
    }
    put_desc(f, rings, 0, image, 64, OWN | D_STP | D_ENP);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(csr(f, 0) & RINT);
    for (unsigned i = 0; i < 10; i++) {
        set_csr(f, 0, RINT | TINT | IENA);
        test_advance(f->tb, MS);
        g_assert_true(csr(f, 0) & RINT); /* it goes on */
    }
    set_csr(f, 0, STOP);
    test_advance(f->tb, MS);
    g_assert_cmphex(csr(f, 0), ==, STOP);
}

/* ---- escapes of other implementations, played ---- */

/* CVE-2015-3209: descriptors below 4096 bytes each, together above what a frame buffer holds. */
static void test_long_chain(Fix *f, gconstpointer loop)
{
    uint64_t lost[NET_LOSSES];

    f->mode = loop ? LOOP | INTL | PROM : 0;
    f->tx_len = 9;
    start(f);
    for (unsigned i = 0; i < 512; i++)
        put_desc(f, TX_AT, i, TX_BUF(0), 4095,
                 OWN | (i == 0 ? D_STP : 0) | (i == 511 ? D_ENP : 0));
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_true(csr(f, 0) & BABL);
    net_losses(&f->peer, lost);
    g_assert_cmpuint(lost[NET_LOSS_HEADER], ==, 1);
    for (unsigned i = 0; i < 512; i++)
        g_assert_false(status_of(f, TX_AT, i) & OWN);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
    /* Chained over more descriptors than a batch has. */
    set_csr(f, 0, STOP);
    set_csr(f, 78, (uint16_t)-1024);
    set_csr(f, 74, (uint16_t)-1024);
    for (unsigned i = 0; i < 1024; i++)
        put_desc(f, TX_AT + 0x80000, i, TX_BUF(0), 1, OWN | (i == 0 ? D_STP : 0));
    set_csr(f, 31, 8);
    set_csr(f, 0, STRT | IENA);
    g_assert_cmpuint(f->got->len, ==, 0);
}

/* CVE-2015-7504: a looped-back frame that fills the buffer, and the FCS behind it. */
static void test_loop_full(Fix *f, gconstpointer unused)
{
    for (unsigned own_fcs = 0; own_fcs < 2; own_fcs++) {
        f->mode = (uint16_t)(LOOP | INTL | PROM | (own_fcs ? DXMTFCS : 0));
        start(f);
        for (unsigned len = 4088; len < 4096; len++) {
            for (unsigned i = 0; i < 4; i++)
                put_desc(f, RX_AT, i, RX_BUF(i), 1400, OWN);
            set_csr(f, 0, STOP);
            set_csr(f, 72, csr(f, 76));
            set_csr(f, 74, csr(f, 78));
            set_csr(f, 0, STRT | IENA);
            offer(f, 0, own, len);
            set_csr(f, 0, TDMD | IENA);
            g_assert_false(status_of(f, TX_AT, 0) & OWN);
            if (len <= 4091) {
                g_assert_cmphex(status_of(f, RX_AT, 2) & D_ENP, ==, D_ENP);
                g_assert_cmpuint(mcnt(f, 2), ==, own_fcs ? len : len + 4);
            } else {
                g_assert_true(status_of(f, RX_AT, 0) & OWN);
            }
        }
    }
}

/* CVE-2015-7512, CVE-2018-17963: frames of the network longer than any buffer. */
static void test_huge_receive(Fix *f, gconstpointer unused)
{
    static const uint32_t lens[] = {4092, 4096, 4097, 32767, 32768, 65535, 65536, NET_FRAME_MAX};

    f->mode = PROM;
    start(f);
    for (unsigned i = 0; i < G_N_ELEMENTS(lens); i++)
        g_assert_cmpuint(receive(f, own, lens[i]), ==, 1);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
    receive(f, own, 4091); /* the longest that MCNT can say */
    g_assert_cmphex(status_of(f, RX_AT, 2) & 0xff00, ==, D_ENP);
    g_assert_cmpuint(mcnt(f, 2), ==, 4095);
}

/* CVE-2016-7909: ring lengths of 0 stand for 65536 entries, and a pass ends. */
static void test_ring_zero(Fix *f, gconstpointer unused)
{
    set_csr(f, 0, STOP);
    for (unsigned i = 72; i <= 78; i += 2)
        set_csr(f, i, 0);
    /* All of memory is an owned descriptor: every entry is OWN without STP. */
    for (uint32_t at = 0; at < RAM_BYTES; at += 2)
        put16(f, at, OWN);
    set_csr(f, 24, 0);
    set_csr(f, 30, 0);
    set_csr(f, 0, STRT | IENA);
    test_advance(f->tb, 50 * MS);
    g_assert_cmpuint(f->got->len, ==, 0);
    receive(f, own, 100);
    g_assert_true(csr(f, 0) & STRT);
    /* A counter outside its ring stands at the last entry. */
    set_csr(f, 0, STOP);
    set_csr(f, 76, (uint16_t)-4);
    set_csr(f, 72, 1000);
    set_csr(f, 25, 1);
    g_assert_cmphex(csr(f, 28), ==, 3 * 16);
    g_assert_cmphex(csr(f, 29), ==, 1);
    g_assert_cmphex(csr(f, 26), ==, 0);
}

/* Rings and buffers that are not memory: the chip stops, with the error that the part has. */
static void test_wild(Fix *f, gconstpointer unused)
{
    for (unsigned k = 0; k < 6; k++) {
        f->tx_at = k == 0 ? NOWHERE : TX_AT;
        f->rx_at = k == 1 ? NOWHERE : k == 5 ? RAM_BYTES - 8 : RX_AT;
        f->rx_len = k == 5 ? 0 : 2;
        set_csr(f, 5, SINT);
        start(f);
        if (k == 2)
            put_desc(f, TX_AT, 0, MMIO_BASE, 60, OWN | D_STP | D_ENP);
        if (k == 3)
            put_desc(f, TX_AT, 0, RAM_BYTES - 10, 60, OWN | D_STP | D_ENP);
        if (k == 4)
            put_desc(f, RX_AT, 0, RAM_BYTES - 10, 1500, OWN);
        if (k == 5)
            put16(f, RAM_BYTES - 16 + 6, OWN);
        set_csr(f, 0, TDMD | IENA);
        receive(f, own, 100);
        if (k == 5) /* the base is aligned down: the ring is memory */
            g_assert_false(csr(f, 0) & STOP);
        else
            g_assert_cmphex(csr(f, 0) & (0xff7f & ~IENA), ==, STOP);
        g_assert_cmphex(csr(f, 5) & SINT, ==, k == 5 ? 0 : SINT);
    }
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmpuint(f->dev->faults, ==, 5);
}

/* Receive buffers over their own ring, and over the transmit ring. */
static void test_self(Fix *f, gconstpointer unused)
{
    for (unsigned k = 0; k < 2; k++) {
        start(f);
        for (unsigned i = 0; i < 4; i++)
            put_desc(f, RX_AT, i, k ? TX_AT : RX_AT, BUF_LEN, OWN);
        for (unsigned i = 0; i < 20; i++) {
            receive(f, own, 1000);
            set_csr(f, 0, TDMD | IENA);
        }
        test_advance(f->tb, 20 * MS);
    }
    start(f);
    receive(f, own, 100);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
}

/* The peer writes registers from inside the wire: a stop then voids the batch. */
static unsigned stopping_send(NetPort *p, const NetFrame *v, unsigned n)
{
    Fix *f = p->opaque;

    g_assert_cmphex(csr(f, 5) & SPND, ==, 0);
    set_csr(f, 5, SPND);
    g_assert_cmphex(csr(f, 5) & SPND, ==, 0); /* not yet: a frame is under way */
    set_csr(f, 5, 0);
    set_csr(f, 0, TDMD | IENA); /* only a flag */
    set_csr(f, 0, STOP);
    return n;
}

static void test_stop_inside(Fix *f, gconstpointer unused)
{
    static const NetPortOps ops = {.send = stopping_send};

    f->peer.ops = &ops;
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(status_of(f, TX_AT, 0) & OWN);
    g_assert_cmphex(csr(f, 0), ==, STOP);
    f->peer.ops = &peer_ops;
    start(f);
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_false(status_of(f, TX_AT, 0) & OWN);
}

/* ---- state, realize ---- */

static bool load(Fix *f, GByteArray *saved, GError **error)
{
    size_t used;

    device_reset(f->dev, RESET_COLD);
    return state_load(f->dev->cls->state, f->dev, saved->data, saved->len, &used, error);
}

static void test_state(Fix *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;

    g_assert_true(state_check(f->dev->cls->state, &error));
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(intx(f));
    state_save(f->dev->cls->state, f->dev, saved);
    g_assert_true(load(f, saved, &error));
    g_assert_no_error(error);
    device_resume(f->dev);
    g_assert_true(intx(f));
    set_csr(f, 0, TINT | IENA);
    g_assert_false(intx(f));
    offer(f, 1, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, 2);
    receive(f, own, 100);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
}

static void test_bad_state(Fix *f, gconstpointer unused)
{
    uint16_t *regs = (uint16_t *)(void *)((uint8_t *)&f->pci->regs + sizeof(PciRegs));
    const struct {
        unsigned at;
        uint16_t val;
    } rows[] = {{0, 0x8000}, {0, STOP | TXON}, {128 + 20, 0x0002}};

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GByteArray) saved = g_byte_array_new();
        GError *error = NULL;
        uint16_t old = regs[rows[i].at];

        regs[rows[i].at] = rows[i].val;
        state_save(f->dev->cls->state, f->dev, saved);
        regs[rows[i].at] = old;
        g_assert_false(load(f, saved, &error));
        g_assert_nonnull(error);
        g_clear_error(&error);
    }
    device_reset(f->dev, RESET_COLD);
}

static void test_realize(Fix *f, gconstpointer unused)
{
    static const char *const bad[][2] = {
        {NULL, NULL}, {"wire2", "53:00:00:00:00:01"}, {"wire", NULL}};
    NetPort free_port = {.ops = &peer_ops, .name = "peer2", .opaque = f};

    test_board_backend(f->tb, "wire2", &free_port);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) { /* no wire, a group, one that is taken */
        Device *d = device_new(device_class_find("pcnet"), "second", &f->tb->board);
        GError *error = NULL;

        if (bad[i][0])
            g_assert_true(device_set(d, "netdev", bad[i][0], &error));
        if (bad[i][1])
            g_assert_true(device_set(d, "mac", bad[i][1], &error));
        g_assert_false(device_realize(d, &error));
        g_assert_nonnull(error);
        g_clear_error(&error);
        device_free(d);
    }
}

/* ---- a loop of its own ---- */

#define THREAD_FRAMES 2000
#define DEADLINE_NS (60 * NS_PER_SEC)

typedef struct Threads {
    Fix f;
    IoThread *io;
    unsigned got; /* atomic */
} Threads;

static unsigned count_send(NetPort *p, const NetFrame *v, unsigned n)
{
    Threads *t = p->opaque;

    for (unsigned k = 0; k < n; k++)
        g_assert_cmpuint(load_le32((const uint8_t *)v[k].iov[0].iov_base + 14), ==,
                         __atomic_load_n(&t->got, __ATOMIC_RELAXED) + k);
    __atomic_fetch_add(&t->got, n, __ATOMIC_RELEASE);
    return n;
}

static void receive_on_loop(void *opaque)
{
    Fix *f = opaque;

    receive(f, own, 100);
}

static void wait_until(bool done, int64_t since)
{
    g_assert_cmpint(clock_host_ns() - since, <, done ? INT64_MAX : DEADLINE_NS);
    if (!done)
        g_thread_yield();
}

/* Doorbells from one thread, the rings on another: every frame once and in order, both ways. */
static void test_threads(void)
{
    static const NetPortOps ops = {.send = count_send};
    Threads t = {0};
    Fix *f = &t.f;
    LodgeClock *clock = lodge_clock_new();
    GError *error = NULL;
    Board manual;
    int64_t since = clock_host_ns();

    t.io = io_thread_new("pcnet", clock, &error);
    g_assert_no_error(error);
    pcnet_board(f);
    manual = f->tb->board;
    f->tb->board.clock = clock;
    f->tb->board.io = t.io;
    f->tb->board.timers = io_thread_timers(t.io);
    f->peer.ops = &ops;
    f->peer.opaque = &t;
    f->peer.io = t.io;
    pcnet_card(f);
    start(f);
    for (uint32_t i = 0; i < THREAD_FRAMES; i++) {
        while (status_of(f, TX_AT, i % 4) & OWN)
            wait_until(false, since);
        fill(f, TX_BUF(i % 4), other, 60);
        put32(f, TX_BUF(i % 4) + 14, i);
        put_desc(f, TX_AT, i % 4, TX_BUF(i % 4), 60, OWN | D_STP | D_ENP);
        set_csr(f, 0, TDMD | IENA);
    }
    while (__atomic_load_n(&t.got, __ATOMIC_ACQUIRE) < THREAD_FRAMES)
        wait_until(false, since);
    /* More frames than descriptors; what is held comes by the poll. */
    for (unsigned i = 0; i < 40; i++)
        io_thread_post(t.io, receive_on_loop, f);
    for (unsigned i = 0; i < 40; i++) {
        while (status_of(f, RX_AT, i % 4) & OWN)
            wait_until(false, since);
        g_assert_cmpuint(mcnt(f, i % 4), ==, 104);
        put_desc(f, RX_AT, i % 4, RX_BUF(i % 4), BUF_LEN, OWN);
    }
    /* Stops and resets while frames go out. */
    for (unsigned i = 0; i < 200; i++) {
        __atomic_store_n(&t.got, 0, __ATOMIC_RELAXED);
        set_csr(f, 0, STOP);
        io_thread_post(t.io, receive_on_loop, f);
        start(f);
    }
    device_free(f->dev);
    g_ptr_array_set_size(f->tb->devices, (gint)f->tb->devices->len - 1);
    io_thread_free(t.io);
    f->tb->board.clock = manual.clock;
    f->tb->board.timers = manual.timers;
    f->tb->board.io = NULL;
    fix_down(f, NULL);
    lodge_clock_free(clock);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("loopback", test_loopback);
    ADD("loop-storm", test_loop_storm);
    ADD_STYLE("cve-2015-3209", test_long_chain, 2);
    ADD("cve-2015-7504", test_loop_full);
    ADD("cve-2015-7512", test_huge_receive);
    ADD("cve-2016-7909", test_ring_zero);
    ADD("wild", test_wild);
    ADD("self", test_self);
    ADD("stop-inside", test_stop_inside);
    ADD("state", test_state);
    ADD("bad-state", test_bad_state);
    ADD("realize", test_realize);
    g_test_add_func("/pcnet/threads", test_threads);
    return g_test_run();
}
