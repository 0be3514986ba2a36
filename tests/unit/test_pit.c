/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 8254 through its ports on a clock that the test moves: six modes, BCD, latches, port 0x61,
 * and which ticks reach the controllers. */
#include "testboard.h"

#define PIT_HZ 1193182
#define CONTROL 0x43
#define PIC 0x20
#define IOAPIC 0xfec00000

typedef struct Fixture {
    TestBoard *tb;
    uint64_t tick;
} Fixture;

static void set_up(Fixture *f, gconstpointer unused)
{
    f->tb = test_board_new(0);
    f->tick = 0;
    test_board_add(f->tb, "i8259", NULL);
    test_board_add(f->tb, "ioapic", NULL);
    test_board_add(f->tb, "i8254", NULL);
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    test_board_free(f->tb);
}

/* Move by whole ticks; lands just after the tick. */
static void ticks(Fixture *f, uint64_t n)
{
    f->tick += n;
    int64_t at = f->tick * 1000000000 / PIT_HZ + 1;
    test_advance(f->tb, at - clock_now_ns(f->tb->board.clock));
}

static void program(Fixture *f, unsigned ch, unsigned mode, uint16_t count)
{
    test_out(f->tb, CONTROL, 1, ch << 6 | 0x30 | mode << 1);
    test_out(f->tb, 0x40 + ch, 1, count & 0xff);
    test_out(f->tb, 0x40 + ch, 1, count >> 8);
}

static uint8_t status(Fixture *f, unsigned ch)
{
    test_out(f->tb, CONTROL, 1, 0xe0 | 2 << ch);
    return test_in(f->tb, 0x40 + ch, 1);
}

static bool out(Fixture *f, unsigned ch)
{
    return status(f, ch) & 0x80;
}

static uint16_t count(Fixture *f, unsigned ch)
{
    test_out(f->tb, CONTROL, 1, ch << 6);
    uint16_t low = test_in(f->tb, 0x40 + ch, 1);
    return low | test_in(f->tb, 0x40 + ch, 1) << 8;
}

static void test_mode0(Fixture *f, gconstpointer unused)
{
    program(f, 1, 0, 10);
    g_assert_false(out(f, 1));
    ticks(f, 1); /* loads */
    g_assert_cmpuint(count(f, 1), ==, 10);
    ticks(f, 9);
    g_assert_cmpuint(count(f, 1), ==, 1);
    g_assert_false(out(f, 1));
    ticks(f, 1);
    g_assert_true(out(f, 1));
    g_assert_cmpuint(count(f, 1), ==, 0);
    ticks(f, 2);
    g_assert_true(out(f, 1));
    g_assert_cmpuint(count(f, 1), ==, 0xfffe);
    test_out(f->tb, 0x41, 1, 5); /* the first byte stops it */
    g_assert_false(out(f, 1));
    ticks(f, 100);
    g_assert_false(out(f, 1));
    test_out(f->tb, 0x41, 1, 0);
    ticks(f, 5);
    g_assert_false(out(f, 1));
    ticks(f, 1);
    g_assert_true(out(f, 1));
}

static void test_mode1(Fixture *f, gconstpointer unused)
{
    program(f, 2, 1, 8);
    ticks(f, 20);
    g_assert_true(out(f, 2));
    test_out(f->tb, 0x61, 1, 1); /* trigger */
    ticks(f, 1);
    g_assert_false(out(f, 2));
    ticks(f, 7);
    g_assert_false(out(f, 2));
    ticks(f, 1);
    g_assert_true(out(f, 2));
    test_out(f->tb, 0x61, 1, 0);
    test_out(f->tb, 0x61, 1, 1);
    ticks(f, 6);
    test_out(f->tb, 0x61, 1, 0);
    test_out(f->tb, 0x61, 1, 1); /* retrigger */
    ticks(f, 7);
    g_assert_false(out(f, 2));
    ticks(f, 2);
    g_assert_true(out(f, 2));
}

static void test_mode2(Fixture *f, gconstpointer unused)
{
    program(f, 1, 2, 5);
    g_assert_cmphex(status(f, 1), ==, 0x80 | 0x40 | 0x34); /* null count until loaded */
    ticks(f, 1);
    g_assert_cmphex(status(f, 1), ==, 0x80 | 0x34);
    static const uint16_t want[] = {5, 4, 3, 2, 1, 5, 4};
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++) {
        g_assert_cmpuint(count(f, 1), ==, want[i]);
        g_assert_true(out(f, 1) == (want[i] != 1));
        ticks(f, 1);
    }
    /* At 3 now: a new count waits for the end of the period. */
    test_out(f->tb, 0x41, 1, 3);
    test_out(f->tb, 0x41, 1, 0);
    g_assert_cmphex(status(f, 1) & 0x40, ==, 0x40);
    static const uint16_t then[] = {3, 2, 1, 3, 2, 1, 3};
    for (unsigned i = 0; i < G_N_ELEMENTS(then); i++) {
        g_assert_cmpuint(count(f, 1), ==, then[i]);
        ticks(f, 1);
    }
}

static void test_mode2_gate(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, 0x61, 1, 1);
    program(f, 2, 2, 10);
    ticks(f, 5);
    test_out(f->tb, 0x61, 1, 0);
    uint16_t before = count(f, 2);
    ticks(f, 50);
    g_assert_cmpuint(count(f, 2), ==, before);
    g_assert_true(out(f, 2));
    test_out(f->tb, 0x61, 1, 1); /* reloads */
    ticks(f, 1);
    g_assert_cmpuint(count(f, 2), ==, 10);
}

static void test_mode3(Fixture *f, gconstpointer unused)
{
    program(f, 1, 3, 6);
    ticks(f, 1);
    static const uint16_t even[] = {6, 4, 2, 6, 4, 2, 6};
    static const bool even_out[] = {1, 1, 1, 0, 0, 0, 1};
    for (unsigned i = 0; i < G_N_ELEMENTS(even); i++) {
        g_assert_cmpuint(count(f, 1), ==, even[i]);
        g_assert_true(out(f, 1) == even_out[i]);
        ticks(f, 1);
    }
    program(f, 1, 3, 5);
    ticks(f, 1);
    static const uint16_t odd[] = {4, 2, 0, 4, 2, 4};
    static const bool odd_out[] = {1, 1, 1, 0, 0, 1};
    for (unsigned i = 0; i < G_N_ELEMENTS(odd); i++) {
        g_assert_cmpuint(count(f, 1), ==, odd[i]);
        g_assert_true(out(f, 1) == odd_out[i]);
        ticks(f, 1);
    }
}

static void test_mode3_new_count(Fixture *f, gconstpointer unused)
{
    program(f, 1, 3, 10);
    ticks(f, 3);
    test_out(f->tb, 0x41, 1, 4); /* from the end of this half */
    test_out(f->tb, 0x41, 1, 0);
    ticks(f, 2);
    g_assert_true(out(f, 1));
    static const bool want[] = {0, 0, 1, 1, 0, 0, 1};
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++) {
        ticks(f, 1);
        g_assert_true(out(f, 1) == want[i]);
    }
}

static void test_mode4(Fixture *f, gconstpointer unused)
{
    program(f, 1, 4, 3);
    static const bool want[] = {1, 1, 1, 1, 0, 1, 1};
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++) {
        g_assert_true(out(f, 1) == want[i]);
        ticks(f, 1);
    }
}

static void test_mode4_gate(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, 0x61, 1, 1);
    program(f, 2, 4, 10);
    ticks(f, 4);
    test_out(f->tb, 0x61, 1, 0);
    ticks(f, 100);
    g_assert_cmpuint(count(f, 2), ==, 7);
    test_out(f->tb, 0x61, 1, 1);
    ticks(f, 7);
    g_assert_false(out(f, 2));
}

static void test_mode5(Fixture *f, gconstpointer unused)
{
    program(f, 2, 5, 3);
    ticks(f, 10);
    g_assert_true(out(f, 2));
    test_out(f->tb, 0x61, 1, 1);
    static const bool want[] = {1, 1, 1, 0, 1, 1};
    for (unsigned i = 0; i < G_N_ELEMENTS(want); i++) {
        ticks(f, 1);
        g_assert_true(out(f, 2) == want[i]);
    }
}

static void test_bcd(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, CONTROL, 1, 0x40 | 0x30 | 2 << 1 | 1);
    test_out(f->tb, 0x41, 1, 0x00);
    test_out(f->tb, 0x41, 1, 0x10);
    ticks(f, 2);
    g_assert_cmphex(count(f, 1), ==, 0x0999);
    ticks(f, 999);
    g_assert_cmphex(count(f, 1), ==, 0x1000);
    test_out(f->tb, CONTROL, 1, 0x40 | 0x30 | 0 << 1 | 1);
    test_out(f->tb, 0x41, 1, 0);
    test_out(f->tb, 0x41, 1, 0); /* 10000 */
    ticks(f, 2);
    g_assert_cmphex(count(f, 1), ==, 0x9999);
    ticks(f, 9998);
    g_assert_false(out(f, 1));
    ticks(f, 1);
    g_assert_true(out(f, 1));
}

static void test_orders(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, CONTROL, 1, 0x40 | 0x10 | 4); /* low byte only */
    test_out(f->tb, 0x41, 1, 0x80);
    ticks(f, 1);
    g_assert_cmphex(test_in(f->tb, 0x41, 1), ==, 0x80);
    g_assert_cmphex(test_in(f->tb, 0x41, 1), ==, 0x80);
    test_out(f->tb, CONTROL, 1, 0x40 | 0x20 | 4); /* high byte only */
    test_out(f->tb, 0x41, 1, 0x12);
    ticks(f, 1);
    g_assert_cmphex(test_in(f->tb, 0x41, 1), ==, 0x12);
    ticks(f, 1);
    g_assert_cmphex(test_in(f->tb, 0x41, 1), ==, 0x11);
    g_assert_cmphex(test_in(f->tb, CONTROL, 1), ==, 0xff);
}

static void test_latch_and_read_back(Fixture *f, gconstpointer unused)
{
    program(f, 1, 2, 1000);
    program(f, 2, 2, 2000);
    ticks(f, 1);
    test_out(f->tb, 0x61, 1, 1);
    ticks(f, 1);
    test_out(f->tb, CONTROL, 1, 0xc0 | 0x0c); /* count and status of 1 and 2 */
    ticks(f, 50);
    test_out(f->tb, CONTROL, 1, 0x40); /* a second latch is ignored */
    g_assert_cmphex(test_in(f->tb, 0x41, 1), ==, 0x80 | 0x34);
    g_assert_cmpuint(test_in(f->tb, 0x41, 1) | test_in(f->tb, 0x41, 1) << 8, ==, 999);
    g_assert_cmphex(test_in(f->tb, 0x42, 1), ==, 0x80 | 0x34);
    g_assert_cmpuint(test_in(f->tb, 0x42, 1) | test_in(f->tb, 0x42, 1) << 8, ==, 2000);
    g_assert_cmpuint(test_in(f->tb, 0x41, 1) | test_in(f->tb, 0x41, 1) << 8, ==, 949);
}

static void test_port61(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, 0x61, 1, 0xff);
    g_assert_cmphex(test_in(f->tb, 0x61, 1) & 0xcf, ==, 0x0f);
    program(f, 2, 0, 100);
    g_assert_cmphex(test_in(f->tb, 0x61, 1) & 0x20, ==, 0);
    ticks(f, 101);
    g_assert_cmphex(test_in(f->tb, 0x61, 1) & 0x20, ==, 0x20);
    unsigned toggles = 0;
    uint8_t before = test_in(f->tb, 0x61, 1) & 0x10;
    for (unsigned us = 0; us < 1000; us++) {
        test_advance(f->tb, 1000);
        uint8_t now = test_in(f->tb, 0x61, 1) & 0x10;
        toggles += now != before;
        before = now;
    }
    g_assert_cmpuint(toggles, >=, 65);
    g_assert_cmpuint(toggles, <=, 67);
}

static void init_pic(Fixture *f, uint8_t mask)
{
    test_out(f->tb, PIC, 1, 0x11);
    test_out(f->tb, PIC + 1, 1, 0x20);
    test_out(f->tb, PIC + 1, 1, 0x04);
    test_out(f->tb, PIC + 1, 1, 0x01);
    test_out(f->tb, PIC + 1, 1, mask);
}

static void test_periodic_through_pic(Fixture *f, gconstpointer unused)
{
    init_pic(f, 0xfe);
    program(f, 0, 2, 11932); /* 100 Hz */
    for (unsigned i = 0; i < 50; i++) {
        g_assert_cmpint(irq_ack(f->tb->board.irq), ==, -1);
        ticks(f, 11932 + (i == 0));
        g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x20);
        test_out(f->tb, PIC, 1, 0x20);
    }
}

static void test_one_shot(Fixture *f, gconstpointer unused)
{
    init_pic(f, 0xfe);
    program(f, 0, 0, 1000);
    ticks(f, 1000);
    g_assert_false(f->tb->extint);
    ticks(f, 1);
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x20);
    test_out(f->tb, PIC, 1, 0x20);
    ticks(f, 200000);
    g_assert_false(f->tb->extint);
    g_assert_cmpint(timer_queue_next(f->tb->board.timers), ==, TIMER_NEVER);
}

/* Ticks that the guest was too late for come after its EOIs, a second's worth at most. */
static void test_lost_ticks(Fixture *f, gconstpointer unused)
{
    init_pic(f, 0xfe);
    program(f, 0, 2, 11932);
    ticks(f, 10 * 11932 + 1);
    for (unsigned i = 0; i < 10; i++) {
        g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x20);
        test_out(f->tb, PIC, 1, 0x20);
    }
    g_assert_false(f->tb->extint);
    ticks(f, 1000 * 11932);
    unsigned n = 0;
    while (irq_ack(f->tb->board.irq) == 0x20) {
        test_out(f->tb, PIC, 1, 0x20);
        n++;
    }
    g_assert_cmpuint(n, >=, 99);
    g_assert_cmpuint(n, <=, 101);
    ticks(f, 11932);
    g_assert_true(f->tb->extint);
}

/* Mask and end, handle, open: the order of Linux's level-style handler loses nothing. */
static void test_mask_ack_unmask(Fixture *f, gconstpointer unused)
{
    init_pic(f, 0xfe);
    program(f, 0, 2, 11932);
    ticks(f, 5 * 11932 + 1);
    for (unsigned i = 0; i < 5; i++) {
        g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x20);
        test_out(f->tb, PIC + 1, 1, 0xff);
        test_out(f->tb, PIC, 1, 0x60);
        test_out(f->tb, PIC + 1, 1, 0xfe);
    }
    g_assert_false(f->tb->extint);
}

static void test_initialized_pic_goes_on(Fixture *f, gconstpointer unused)
{
    init_pic(f, 0xfe);
    program(f, 0, 2, 11932);
    ticks(f, 3 * 11932);
    irq_ack(f->tb->board.irq);
    init_pic(f, 0xfe); /* the tick in service is forgotten without an EOI */
    g_assert_true(f->tb->extint);
}

static void test_rests_while_masked(Fixture *f, gconstpointer unused)
{
    init_pic(f, 0xff);
    program(f, 0, 2, 11932);
    ticks(f, 11932 + 1);
    g_assert_cmpint(timer_queue_next(f->tb->board.timers), ==, TIMER_NEVER);
    ticks(f, 1000 * 11932);
    test_out(f->tb, PIC + 1, 1, 0xfe);
    g_assert_cmpint(timer_queue_next(f->tb->board.timers), !=, TIMER_NEVER);
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x20); /* the latched one, not a thousand */
    test_out(f->tb, PIC, 1, 0x20);
    g_assert_false(f->tb->extint);
    ticks(f, 11932);
    g_assert_true(f->tb->extint);
}

static void test_through_ioapic(Fixture *f, gconstpointer unused)
{
    init_pic(f, 0xff);
    program(f, 0, 2, 11932);
    ticks(f, 5 * 11932 + 1);
    g_assert_cmpuint(f->tb->msis->len, ==, 0);
    test_poke(f->tb, IOAPIC, 4, 0x14);
    test_poke(f->tb, IOAPIC + 0x10, 4, 0x31);
    ticks(f, 10 * 11932);
    g_assert_cmpuint(f->tb->msis->len, ==, 10);
    test_poke(f->tb, IOAPIC, 4, 0x14);
    test_poke(f->tb, IOAPIC + 0x10, 4, 0x10031);
    ticks(f, 2 * 11932);
    g_assert_cmpuint(f->tb->msis->len, ==, 10);
    g_assert_cmpint(timer_queue_next(f->tb->board.timers), ==, TIMER_NEVER);
}

static void test_shortest_period(Fixture *f, gconstpointer unused)
{
    init_pic(f, 0xfe);
    program(f, 0, 2, 1);
    test_advance(f->tb, 49000);
    g_assert_cmpint(timer_queue_next(f->tb->board.timers), >=, 50000);
    test_advance(f->tb, 1000000);
    g_assert_true(f->tb->extint);
}

/* A state loaded where the guest clock stands elsewhere goes on counting from where it was. */
static void test_restore(Fixture *f, gconstpointer unused)
{
    Device *from = g_ptr_array_index(f->tb->devices, 2);
    program(f, 1, 2, 1000);
    ticks(f, 301);
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    state_save(from->cls->state, from, bytes);
    Fixture g = {.tb = test_board_new(0)};
    Device *to = test_board_add(g.tb, "i8254", NULL);
    ticks(&g, 77777);
    g_autoptr(GError) error = NULL;
    size_t used;
    g_assert_true(state_load(to->cls->state, to, bytes->data, bytes->len, &used, &error));
    g_assert_cmpuint(used, ==, bytes->len);
    g_assert_cmpuint(count(&g, 1), ==, count(f, 1));
    ticks(&g, 100);
    ticks(f, 100);
    g_assert_cmpuint(count(&g, 1), ==, count(f, 1));
    test_board_free(g.tb);
}

#define PIT_TEST(name) g_test_add("/pit/" #name, Fixture, NULL, set_up, test_##name, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    PIT_TEST(mode0);
    PIT_TEST(mode1);
    PIT_TEST(mode2);
    PIT_TEST(mode2_gate);
    PIT_TEST(mode3);
    PIT_TEST(mode3_new_count);
    PIT_TEST(mode4);
    PIT_TEST(mode4_gate);
    PIT_TEST(mode5);
    PIT_TEST(bcd);
    PIT_TEST(orders);
    PIT_TEST(latch_and_read_back);
    PIT_TEST(port61);
    PIT_TEST(periodic_through_pic);
    PIT_TEST(one_shot);
    PIT_TEST(lost_ticks);
    PIT_TEST(mask_ack_unmask);
    PIT_TEST(initialized_pic_goes_on);
    PIT_TEST(rests_while_masked);
    PIT_TEST(through_ioapic);
    PIT_TEST(shortest_period);
    PIT_TEST(restore);
    return g_test_run();
}
