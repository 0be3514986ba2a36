/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NE2000 cards: frames from and to a real wire, whose other end is the test's. */
#include <string.h>

#include "lodge/clock.h"
#include "lodge/iothread.h"
#include "lodge/num.h"
#include "ne2000_card.h"

/* ---- sending ---- */

static void test_send(Fix *f, gconstpointer unused)
{
    static const uint16_t sizes[] = {14, 59, 60, 256, 257, 1514, 1518};
    uint8_t frame[FRAME_TOP];

    frame_fill(frame, mac_other, sizeof frame);
    card_put(f, TX_PAGE * 256, frame, 1518);
    card_out(f, 0x0f, ISR_PTX);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        card_out(f, 7, 0xff);
        card_send(f, TX_PAGE, sizes[i]);
        g_assert_cmphex(card_in(f, 0), ==, CR_START);
        g_assert_cmphex(card_in(f, 7), ==, ISR_PTX);
        g_assert_cmphex(card_in(f, 4), ==, 1);
        g_assert_cmphex(card_in(f, 5), ==, 0);
        g_assert_true(card_irq(f));
        card_check_got(f, i, frame, sizes[i]);
    }
    g_assert_cmpuint(f->dev->faults, ==, 0);
}

/* Lengths that no Ethernet carries, and memory's end: nothing leaves the card. */
static void test_send_hostile(Fix *f, gconstpointer unused)
{
    static const uint16_t sizes[] = {0, 1, 13, 1519, 0x7fff, 0x8000, 0xffff};
    uint64_t lost[NET_LOSSES];
    size_t len;

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        card_out(f, 7, 0xff);
        card_send(f, 0xff, sizes[i]);
        g_assert_cmphex(card_in(f, 7), ==, ISR_PTX);
    }
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmpuint(f->dev->faults, ==, G_N_ELEMENTS(sizes));
    net_losses(&f->peer, lost);
    g_assert_cmpuint(lost[NET_LOSS_HEADER], ==, G_N_ELEMENTS(sizes));
    card_send(f, 0xff, 1514); /* wraps to the PROM */
    card_check_got(f, 0, g_bytes_get_data(g_ptr_array_index(f->got, 0), NULL), 1514);
    const uint8_t *b = g_bytes_get_data(g_ptr_array_index(f->got, 0), &len);
    g_assert_cmphex(b[256], ==, 0x52);
    g_assert_cmphex(b[258], ==, 0x54);
    card_out(f, 0, CR_STOP);
    card_out(f, 0, CR_STOP | 4); /* a stopped part sends nothing */
    g_assert_cmphex(card_in(f, 0), ==, CR_STOP);
    g_assert_cmpuint(f->got->len, ==, 1);
}

/* A full wire: 64 frames wait, then TXP stays; nothing is lost or out of order. */
static void test_backpressure(Fix *f, gconstpointer unused)
{
    uint8_t frame[1500];
    uint32_t n = 0;

    frame_fill(frame, mac_other, sizeof frame);
    card_put(f, TX_PAGE * 256, frame, sizeof frame);
    f->room = 0;
    for (; n < 100000 && !(card_in(f, 0) & 4); n++) {
        card_put(f, TX_PAGE * 256 + 20, (uint8_t *)&n, sizeof n);
        card_out(f, 7, 0xff);
        card_send(f, TX_PAGE, sizeof frame);
    }
    g_assert_cmpuint(n, >, 64);
    g_assert_cmpuint(n, <, 2000);
    g_assert_cmphex(card_in(f, 7), ==, 0);
    card_out(f, 0, CR_START | 4); /* no second transmission */
    f->room = UINT32_MAX;
    net_rx_ready(&f->peer);
    g_assert_cmphex(card_in(f, 0), ==, CR_START);
    g_assert_cmphex(card_in(f, 7), ==, ISR_PTX);
    g_assert_cmpuint(f->got->len, ==, n);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *b = g_bytes_get_data(g_ptr_array_index(f->got, i), NULL);
        g_assert_cmpuint(load_le32(b + 20), ==, i);
    }
}

/* ---- receiving ---- */

static void test_receive(Fix *f, gconstpointer unused)
{
    static const unsigned sizes[] = {14, 59, 60, 248, 249, 1514, 1518};
    uint8_t frame[FRAME_TOP], back[FRAME_TOP], want[FRAME_TOP];

    card_out(f, 0x0f, ISR_PRX);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes) * 8; i++) {
        unsigned len = sizes[i % G_N_ELEMENTS(sizes)], padded = MAX(len, 60);
        uint8_t curr = card_get_curr(f);
        uint8_t next = (uint8_t)(curr + (padded + 8 + 255) / 256);

        if (next >= RX_STOP)
            next -= RX_RING;
        frame_fill(frame, i & 1 ? mac_broadcast : mac_own, sizeof frame);
        g_assert_true(card_arrive(f, frame, len));
        g_assert_cmphex(card_in(f, 7) & ~ISR_RDC, ==, ISR_PRX);
        g_assert_true(card_irq(f));
        g_assert_cmphex(card_in(f, 0x0c), ==, i & 1 ? 0x21 : 0x01);
        g_assert_cmphex(card_get_curr(f), ==, next);
        card_get(f, (uint16_t)(curr * 256), back, (uint16_t)(padded + 4));
        g_assert_cmphex(back[0], ==, i & 1 ? 0x21 : 0x01);
        g_assert_cmphex(back[1], ==, next);
        g_assert_cmpuint(load_le16(back + 2), ==, padded + 4);
        memset(want, 0, sizeof want);
        memcpy(want, frame, len);
        g_assert_cmpmem(back + 4, padded, want, padded);
        card_out(f, 3, next == RX_FIRST ? RX_STOP - 1 : next - 1);
        card_out(f, 7, 0xff);
    }
}

/* Sizes that are no frames: the counters and the ring stay as they are. */
static void test_receive_sizes(Fix *f, gconstpointer unused)
{
    static const unsigned sizes[] = {0, 1, 5, 6, 13, 1519, 4096, 32768, 65535, 65562};
    g_autofree uint8_t *frame = g_malloc0(65562);

    memcpy(frame, mac_own, sizeof mac_own);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_assert_true(card_arrive(f, frame, sizes[i]));
        g_assert_cmphex(card_in(f, 7), ==, 0);
        g_assert_cmphex(card_get_curr(f), ==, RX_FIRST + 1);
    }
    /* Pieces that do not add up to the length. */
    struct iovec iov[2] = {{frame, 1000}, {frame, 1000}};
    NetFrame v = {.iov = iov, .niov = 2, .len = 60};
    net_send(&f->peer, &v, 1);
    v.len = 1518;
    iov[1].iov_len = 10;
    net_send(&f->peer, &v, 1);
    g_assert_cmphex(card_get_curr(f), ==, RX_FIRST + 1);
    g_assert_true(card_hears(f, mac_own));
}

static void test_filter(Fix *f, gconstpointer unused)
{
    g_assert_true(card_hears(f, mac_own));
    g_assert_false(card_hears(f, mac_other));
    g_assert_true(card_hears(f, mac_broadcast));
    g_assert_false(card_hears(f, mac_group));
    card_out(f, 0x0c, 0x00);
    g_assert_false(card_hears(f, mac_broadcast));
    card_out(f, 0x0c, 0x10); /* promiscuous: physical addresses */
    g_assert_true(card_hears(f, mac_other));
    g_assert_false(card_hears(f, mac_group));
    g_assert_false(card_hears(f, mac_broadcast));
    card_out(f, 0x0c, 0x08);
    g_assert_false(card_hears(f, mac_group));
    /* 01:00:5e:00:00:01 has hash index 0x1f, the six high bits of its CRC 0x7fa32d9b. */
    card_out(f, 0, CR_PAGE1);
    card_out(f, 8 + 3, 0x80);
    card_out(f, 0, CR_START);
    g_assert_true(card_hears(f, mac_group));
    card_out(f, 0, CR_PAGE1);
    card_out(f, 8 + 3, 0x7f);
    card_out(f, 0, CR_START);
    g_assert_false(card_hears(f, mac_group));
    for (unsigned i = 0; i < 8; i++) {
        card_out(f, 0, CR_PAGE1);
        card_out(f, 8 + i, 0xff);
        g_assert_cmphex(card_in(f, 8 + i), ==, 0xff);
        card_out(f, 0, CR_START);
    }
    g_assert_true(card_hears(f, mac_group));
    g_assert_true(card_hears(f, mac_broadcast)); /* by its hash */
    card_out(f, 0x0d, 0x02);
    g_assert_false(card_hears(f, mac_own));
    card_out(f, 0x0d, 0x00);
    card_out(f, 0, CR_STOP);
    uint8_t frame[60];
    frame_fill(frame, mac_own, sizeof frame);
    g_assert_true(card_arrive(f, frame, sizeof frame));
    g_assert_cmphex(card_in(f, 7), ==, ISR_RST);
}

static void test_monitor(Fix *f, gconstpointer unused)
{
    uint8_t curr = card_get_curr(f);

    card_out(f, 0x0c, 0x24);
    g_assert_cmphex(card_in(f, 0x0c) & 0x40, ==, 0x40);
    card_out(f, 0x0f, ISR_CNT);
    for (unsigned i = 0; i < 127; i++)
        g_assert_false(card_hears(f, i & 1 ? mac_broadcast : mac_own));
    g_assert_cmphex(card_in(f, 7), ==, 0);
    g_assert_false(card_irq(f));
    g_assert_false(card_hears(f, mac_broadcast));
    g_assert_cmphex(card_in(f, 0x0c), ==, 0x70);
    g_assert_cmphex(card_in(f, 7), ==, ISR_CNT);
    g_assert_true(card_irq(f));
    for (unsigned i = 0; i < 300; i++)
        g_assert_false(card_hears(f, mac_own));
    g_assert_cmphex(card_in(f, 0x0c), ==, 0x50);
    g_assert_cmpuint(card_in(f, 0x0f), ==, 192); /* and stops there */
    g_assert_cmpuint(card_in(f, 0x0f), ==, 0);
    g_assert_cmpuint(card_in(f, 0x0d), ==, 0);
    g_assert_cmpuint(card_in(f, 0x0e), ==, 0);
    g_assert_cmphex(card_get_curr(f), ==, curr);
    card_out(f, 0x0c, 0x04);
    g_assert_cmphex(card_in(f, 0x0c) & 0x40, ==, 0);
    g_assert_true(card_hears(f, mac_own));
}

/* A slow guest: frames wait in the wire, and come in order as the boundary moves. @before: drivers
 * (Linux's lib8390) set it to one page before the next frame, even where that is before the ring. */
static void read_slowly(Fix *f, unsigned frames, size_t len, bool before)
{
    uint8_t frame[1514], back[1600];
    unsigned seen = 0;
    uint8_t next = card_get_curr(f);

    frame_fill(frame, mac_own, sizeof frame);
    for (uint32_t i = 0; i < frames; i++) {
        store_le32(frame + 20, i);
        g_assert_true(card_arrive(f, frame, len));
    }
    g_assert_cmphex(card_in(f, 7), ==, ISR_PRX);
    g_assert_cmpuint(card_in(f, 0x0f), ==, 0);
    for (; next != card_get_curr(f); seen++) {
        g_assert_cmpuint(seen, <, frames);
        card_get(f, (uint16_t)(next * 256), back, 28);
        g_assert_cmpuint(load_le32(back + 24), ==, seen);
        next = back[1];
        card_out(f, 3, next == RX_FIRST && !before ? RX_STOP - 1 : next - 1);
    }
    g_assert_cmpuint(seen, ==, frames);
    card_out(f, 7, 0xff);
}

static void test_full_ring(Fix *f, gconstpointer unused)
{
    uint8_t frame[1514];

    read_slowly(f, 20, 1514, false);
    read_slowly(f, 200, 1200, true); /* 5 pages: one ends where the ring does */
    frame_fill(frame, mac_own, sizeof frame);
    /* A card that is stopped meanwhile lets the rest go. */
    for (uint32_t i = 0; i < 20; i++)
        g_assert_true(card_arrive(f, frame, sizeof frame));
    uint8_t curr = card_get_curr(f);
    card_out(f, 0, CR_STOP);
    card_out(f, 3, curr - 1);
    card_out(f, 0, CR_START);
    g_assert_cmphex(card_get_curr(f), ==, curr);
    g_assert_true(card_hears(f, mac_own));
}

/* A driver that takes a few frames and waits for the interrupt that says there are more. */
static void test_few_at_a_time(Fix *f, gconstpointer unused)
{
    enum { FRAMES = 40, ATONCE = 3 };
    uint8_t frame[1514], back[4], next = card_get_curr(f);
    unsigned seen = 0, rounds = 0;

    frame_fill(frame, mac_own, sizeof frame);
    card_out(f, 0x0f, ISR_PRX);
    for (unsigned i = 0; i < FRAMES; i++) {
        g_assert_true(card_arrive(f, frame, sizeof frame));
        if (i < 2)
            card_out(f, 7, ISR_PRX); /* acknowledged and not read */
    }
    for (; card_irq(f); rounds++) {
        g_assert_cmpuint(rounds, <, FRAMES);
        for (unsigned i = 0; i < ATONCE && next != card_get_curr(f); i++, seen++) {
            card_get(f, (uint16_t)(next * 256), back, sizeof back);
            next = back[1];
            card_out(f, 3, next - 1);
        }
        card_out(f, 7, ISR_PRX);
    }
    g_assert_cmpuint(seen, >, FRAMES - 9); /* what is left is in the ring, and told by the next */
    g_assert_cmphex(card_in(f, 7) & ISR_PRX, ==, 0);
}

/* ISA: the 8259 sees edges, so PRX that stays is raised anew by its acknowledgement. */
static void test_stays_with_an_edge(void)
{
    Fix f = {0};
    uint8_t frame[1514];
    unsigned told = 0;

    card_start(&f, true);
    test_board_add(f.tb, "i8259", NULL);
    test_pic_auto_eoi(f.tb);
    card_out(&f, 0x0f, ISR_PRX);
    frame_fill(frame, mac_own, sizeof frame);
    for (unsigned i = 0; i < 40; i++)
        g_assert_true(card_arrive(&f, frame, sizeof frame));
    for (; told < 5; told++) {
        g_assert_cmpint(irq_ack(f.tb->board.irq), ==, 0x25);
        g_assert_cmpint(irq_ack(f.tb->board.irq), !=, 0x25);
        card_out(&f, 7, ISR_PRX);
    }
    card_down(&f, NULL);
}

/* A frame that the ring could never take. */
static void test_overflow(Fix *f, gconstpointer unused)
{
    uint8_t frame[1514];

    card_set_ring(f, RX_FIRST, RX_FIRST + 7, RX_FIRST, RX_FIRST + 1);
    frame_fill(frame, mac_own, sizeof frame);
    card_out(f, 0x0f, ISR_OVW);
    g_assert_true(card_arrive(f, frame, sizeof frame));
    g_assert_cmphex(card_in(f, 7), ==, ISR_OVW | ISR_RST);
    g_assert_true(card_irq(f));
    g_assert_cmphex(card_in(f, 0x0c), ==, 0x10);
    g_assert_cmpuint(card_in(f, 0x0f), ==, 1);
    g_assert_cmphex(card_get_curr(f), ==, RX_FIRST + 1);
    card_out(f, 7, 0xff);
    g_assert_cmphex(card_in(f, 7), ==, ISR_RST);
    g_assert_false(card_irq(f));
    card_out(f, 3, RX_FIRST);
    g_assert_cmphex(card_in(f, 7), ==, 0);
    card_set_ring(f, RX_FIRST, RX_FIRST + 8, RX_FIRST, RX_FIRST + 1);
    g_assert_true(card_arrive(f, frame, sizeof frame));
    g_assert_cmphex(card_in(f, 7), ==, ISR_PRX);
    g_assert_cmphex(card_get_curr(f), ==, RX_FIRST + 7);
}

/* CVE-2015-5278, CVE-2015-5279, CVE-2016-2841, CVE-2007-1321: rings that make no sense. Frames end
 * in the card's memory or nowhere, and each register access returns. */
static void test_bad_rings(Fix *f, gconstpointer unused)
{
    static const uint8_t pages[] = {0x00, 0x01, 0x3f, 0x40, 0x41, 0x7f, 0x80, 0x81, 0xbf,
                                    0xc0, 0xfe, 0xff};
    const unsigned n = G_N_ELEMENTS(pages);
    uint8_t frame[1518], back[16];

    frame_fill(frame, mac_own, sizeof frame);
    for (unsigned i = 0; i < n * n * n * n; i++) {
        card_set_ring(f, pages[i % n], pages[i / n % n], pages[i / n / n % n],
                      pages[i / n / n / n]);
        card_arrive(f, frame, i % 3 ? sizeof frame : 60);
        card_get(f, (uint16_t)(pages[i % n] * 256 + 250), back, sizeof back);
    }
    card_init(f);
    g_assert_true(card_hears(f, mac_own));
    card_get(f, 0, back, 2); /* the PROM holds */
    g_assert_cmphex(back[0], ==, 0x52);
}

/* ---- with a loop ---- */

enum { THREAD_FRAMES = 500 };

typedef struct Sender {
    Fix *f;
    uint32_t sent;
} Sender;

static void send_all(void *opaque)
{
    Sender *s = opaque;
    uint8_t frame[1000];

    frame_fill(frame, mac_own, sizeof frame);
    for (; s->sent < THREAD_FRAMES; s->sent++) {
        store_le32(frame + 20, s->sent);
        g_assert_true(card_arrive(s->f, frame, sizeof frame));
    }
}

static void nothing(void *opaque)
{
}

static void note_quiet(Device *d, void *opaque)
{
    *(bool *)opaque = true;
}

/* The guest on this thread, the wire on the loop: both ways at once, nothing lost. */
static void test_thread(void)
{
    Fix f = {0};
    Sender s = {.f = &f};
    LodgeClock *clock = lodge_clock_new_manual(0);
    GError *error = NULL;
    uint8_t frame[1500], back[28], next = RX_FIRST + 1;
    uint32_t seen = 0, sent = 0;
    bool is_quiet = false;

    f.loop = io_thread_new("ne2000", clock, &error);
    g_assert_no_error(error);
    card_start(&f, false);
    frame_fill(frame, mac_other, sizeof frame);
    card_put(&f, TX_PAGE * 256, frame, sizeof frame);
    io_thread_post(f.loop, send_all, &s);
    gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
    while (seen < THREAD_FRAMES || sent < THREAD_FRAMES) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        if (sent < THREAD_FRAMES && !(card_in(&f, 0) & 4)) {
            card_put(&f, TX_PAGE * 256 + 20, (uint8_t *)&sent, sizeof sent);
            card_send(&f, TX_PAGE, sizeof frame);
            sent++;
        }
        if (next == card_get_curr(&f))
            continue;
        card_get(&f, (uint16_t)(next * 256), back, 28);
        g_assert_cmpuint(load_le32(back + 24), ==, seen);
        seen++;
        next = back[1];
        card_out(&f, 3, next == RX_FIRST ? RX_STOP - 1 : next - 1);
    }
    while (card_in(&f, 0) & 4)
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    io_thread_call(f.loop, nothing, NULL);
    io_thread_call(f.loop, nothing, NULL); /* what the first drain posted */
    g_assert_cmpuint(f.got->len, ==, THREAD_FRAMES);
    for (uint32_t i = 0; i < THREAD_FRAMES; i++) {
        const uint8_t *b = g_bytes_get_data(g_ptr_array_index(f.got, i), NULL);
        g_assert_cmpuint(load_le32(b + 20), ==, i);
    }
    device_quiesce(f.dev, note_quiet, &is_quiet);
    io_thread_call(f.loop, nothing, NULL);
    g_assert_true(is_quiet);
    device_resume(f.dev);
    card_send(&f, TX_PAGE, sizeof frame); /* on its way while the card goes */
    card_down(&f, NULL);
    io_thread_free(f.loop);
    lodge_clock_free(clock);
}

#define ADD(name, fn)                                                                              \
    g_test_add("/ne2000-net/isa/" name, Fix, "isa", card_up, fn, card_down);                       \
    g_test_add("/ne2000-net/pci/" name, Fix, NULL, card_up, fn, card_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("send", test_send);
    ADD("send-hostile", test_send_hostile);
    ADD("backpressure", test_backpressure);
    ADD("receive", test_receive);
    ADD("receive-sizes", test_receive_sizes);
    ADD("filter", test_filter);
    ADD("monitor", test_monitor);
    ADD("full-ring", test_full_ring);
    ADD("few-at-a-time", test_few_at_a_time);
    ADD("overflow", test_overflow);
    ADD("bad-rings", test_bad_rings);
    g_test_add_func("/ne2000-net/isa/stays-with-an-edge", test_stays_with_an_edge);
    g_test_add_func("/ne2000-net/thread", test_thread);
    return g_test_run();
}
