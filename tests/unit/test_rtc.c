/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The MC146818 through its ports. The test clock starts at 2000-01-02 03:04:05 UTC, a Sunday. */
#include <string.h>

#include "rtc_mc146818.h"
#include "testboard.h"

#define SEC INT64_C(1000000000)
#define MSEC INT64_C(1000000)

typedef struct Fixture {
    TestBoard *tb;
    Device *rtc;
} Fixture;

static uint8_t get(Fixture *f, uint8_t index)
{
    test_out(f->tb, 0x70, 1, index);
    return test_in(f->tb, 0x71, 1);
}

static void set(Fixture *f, uint8_t index, uint8_t val)
{
    test_out(f->tb, 0x70, 1, index);
    test_out(f->tb, 0x71, 1, val);
}

static void set_up(Fixture *f, gconstpointer unused)
{
    f->tb = test_board_new(0);
    test_board_add(f->tb, "i8259", NULL);
    f->rtc = test_board_add(f->tb, "mc146818", NULL);
    test_pic_auto_eoi(f->tb);
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    test_board_free(f->tb);
}

static int ack(Fixture *f)
{
    return irq_ack(f->tb->board.irq);
}

static void assert_time(Fixture *f, const uint8_t want[8])
{
    static const uint8_t index[8] = {0x32, 9, 8, 7, 6, 4, 2, 0};
    for (unsigned i = 0; i < 8; i++)
        g_assert_cmphex(get(f, index[i]), ==, want[i]);
}

static void test_formats(Fixture *f, gconstpointer unused)
{
    g_assert_cmphex(get(f, 0x0b), ==, 0x02);
    g_assert_cmphex(get(f, 0x0d), ==, 0x80);
    assert_time(f, (uint8_t[]){0x20, 0x00, 0x01, 0x02, 1, 0x03, 0x04, 0x05});
    test_advance(f->tb, (16 * 3600 + 54 * 60 + 54) * SEC); /* 19:58:59 */
    assert_time(f, (uint8_t[]){0x20, 0x00, 0x01, 0x02, 1, 0x19, 0x58, 0x59});
    set(f, 0x0b, 0x06);
    assert_time(f, (uint8_t[]){20, 0, 1, 2, 1, 19, 58, 59});
    set(f, 0x0b, 0x04);
    g_assert_cmphex(get(f, 4), ==, 0x80 | 7);
    set(f, 0x0b, 0x00);
    g_assert_cmphex(get(f, 4), ==, 0x87);
    test_advance(f->tb, (4 * 3600 + 61) * SEC); /* midnight is 12 AM */
    assert_time(f, (uint8_t[]){0x20, 0x00, 0x01, 0x03, 2, 0x12, 0x00, 0x00});
    test_advance(f->tb, 12 * 3600 * SEC);
    g_assert_cmphex(get(f, 4), ==, 0x92);
    g_assert_cmphex(test_in(f->tb, 0x70, 1), ==, 0xff);
}

static void test_set_and_century(Fixture *f, gconstpointer unused)
{
    test_advance(f->tb, 400 * MSEC);
    set(f, 0x0b, 0x82);
    set(f, 0x32, 0x19);
    set(f, 9, 0x99);
    set(f, 8, 0x12);
    set(f, 7, 0x31);
    set(f, 6, 6); /* a Friday indeed */
    set(f, 4, 0x23);
    set(f, 2, 0x59);
    set(f, 0, 0x58);
    test_advance(f->tb, 5 * SEC);
    assert_time(f, (uint8_t[]){0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58});
    set(f, 0x0b, 0x02);
    assert_time(f, (uint8_t[]){0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x58});
    test_advance(f->tb, 1700 * MSEC);
    assert_time(f, (uint8_t[]){0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00});
    set(f, 2, 0x30); /* without SET */
    g_assert_cmphex(get(f, 2), ==, 0x30);
    g_assert_cmphex(get(f, 0), ==, 0x00);
    set(f, 6, 3); /* the guest's own idea of the day */
    g_assert_cmphex(get(f, 6), ==, 3);
    g_assert_cmphex(get(f, 7), ==, 0x01);
    test_advance(f->tb, 86400 * SEC);
    g_assert_cmphex(get(f, 6), ==, 4);
}

static void test_nonsense(Fixture *f, gconstpointer unused)
{
    set(f, 0x0b, 0x86);
    static const uint8_t index[] = {0x32, 9, 8, 7, 6, 4, 2, 0, 1, 3, 5};
    for (unsigned i = 0; i < G_N_ELEMENTS(index); i++)
        set(f, index[i], 0xff);
    set(f, 0x0b, 0x36);
    test_advance(f->tb, 3 * SEC);
    set(f, 0x0b, 0x86);
    for (unsigned i = 0; i < G_N_ELEMENTS(index); i++)
        set(f, index[i], 0);
    set(f, 0x0b, 0x36);
    test_advance(f->tb, 3 * SEC);
    get(f, 0x0c);
}

static void test_uip(Fixture *f, gconstpointer unused)
{
    g_assert_cmphex(get(f, 0x0a), ==, 0x26);
    test_advance(f->tb, SEC - 245000);
    g_assert_cmphex(get(f, 0x0a), ==, 0x26);
    test_advance(f->tb, 2000);
    g_assert_cmphex(get(f, 0x0a), ==, 0xa6);
    g_assert_cmphex(get(f, 0), ==, 0x05);
    set(f, 0x0b, 0x82);
    g_assert_cmphex(get(f, 0x0a), ==, 0x26);
    set(f, 0x0b, 0x02);
    test_advance(f->tb, 243000);
    g_assert_cmphex(get(f, 0x0a), ==, 0x26);
    g_assert_cmphex(get(f, 0), ==, 0x06);
}

static void test_divider(Fixture *f, gconstpointer unused)
{
    set(f, 0x0a, 0x76);
    test_advance(f->tb, 10 * SEC);
    g_assert_cmphex(get(f, 0), ==, 0x05);
    set(f, 0x0a, 0x26); /* the first update comes half a second later */
    test_advance(f->tb, 499 * MSEC);
    g_assert_cmphex(get(f, 0), ==, 0x05);
    test_advance(f->tb, 2 * MSEC);
    g_assert_cmphex(get(f, 0), ==, 0x06);
}

static void test_update_interrupt(Fixture *f, gconstpointer unused)
{
    g_assert_cmpint(timer_queue_next(f->tb->board.timers), ==, TIMER_NEVER);
    set(f, 0x0b, 0x12);
    test_advance(f->tb, 999 * MSEC);
    g_assert_cmpint(ack(f), ==, -1);
    test_advance(f->tb, 2 * MSEC);
    g_assert_cmpint(ack(f), ==, 0x28);
    g_assert_cmpint(timer_queue_next(f->tb->board.timers), ==, TIMER_NEVER);
    g_assert_cmphex(get(f, 0x0c) & 0x90, ==, 0x90);
    g_assert_cmphex(get(f, 0x0c), ==, 0);
    test_advance(f->tb, SEC);
    g_assert_cmpint(ack(f), ==, 0x28);
    set(f, 0x0b, 0x92); /* SET takes UIE away */
    g_assert_cmphex(get(f, 0x0b), ==, 0x82);
}

static void test_periodic(Fixture *f, gconstpointer unused)
{
    set(f, 0x0b, 0x42); /* 1024 Hz after power-on */
    unsigned n = 0;
    for (unsigned ms = 0; ms < 1000; ms++) {
        test_advance(f->tb, MSEC);
        if (ack(f) == 0x28) {
            g_assert_cmphex(get(f, 0x0c) & 0xc0, ==, 0xc0);
            n++;
        }
    }
    g_assert_cmpuint(n, >=, 999);
    set(f, 0x0a, 0x2f); /* 2 Hz */
    get(f, 0x0c);
    test_advance(f->tb, 50 * MSEC); /* look between the ticks */
    n = 0;
    for (unsigned i = 0; i < 40; i++) {
        test_advance(f->tb, 100 * MSEC);
        if (ack(f) == 0x28) {
            get(f, 0x0c);
            n++;
        }
    }
    g_assert_cmpuint(n, ==, 8);
    set(f, 0x0a, 0x20);
    get(f, 0x0c);
    test_advance(f->tb, 3 * SEC);
    g_assert_cmphex(get(f, 0x0c) & 0x40, ==, 0);
}

/* Flags come without their interrupts too: a guest may poll them. */
static void test_flags_polled(Fixture *f, gconstpointer unused)
{
    get(f, 0x0c);
    test_advance(f->tb, 1100 * MSEC);
    g_assert_cmphex(get(f, 0x0c), ==, 0x50);
    g_assert_cmpint(timer_queue_next(f->tb->board.timers), ==, TIMER_NEVER);
}

static void test_alarm(Fixture *f, gconstpointer unused)
{
    set(f, 5, 0x03);
    set(f, 3, 0x05);
    set(f, 1, 0x00);
    set(f, 0x0b, 0x22);
    test_advance(f->tb, 54900 * MSEC);
    g_assert_cmpint(ack(f), ==, -1);
    test_advance(f->tb, 200 * MSEC);
    g_assert_cmpint(ack(f), ==, 0x28);
    g_assert_cmphex(get(f, 0x0c) & 0xa0, ==, 0xa0);
    test_advance(f->tb, 86399 * SEC);
    g_assert_cmpint(ack(f), ==, -1);
    test_advance(f->tb, SEC);
    g_assert_cmpint(ack(f), ==, 0x28);
    get(f, 0x0c);
    set(f, 5, 0xff); /* each minute at second 30 */
    set(f, 3, 0xc0);
    set(f, 1, 0x30);
    for (unsigned i = 0; i < 3; i++) {
        test_advance(f->tb, (i ? 60 : 31) * SEC);
        g_assert_cmpint(ack(f), ==, 0x28);
        get(f, 0x0c);
        g_assert_cmpint(ack(f), ==, -1);
    }
    set(f, 1, 0x77); /* never */
    test_advance(f->tb, 86400 * SEC);
    g_assert_cmpint(ack(f), ==, -1);
}

static void test_memory(Fixture *f, gconstpointer unused)
{
    rtc_set_cmos(f->rtc, 0x15, 0x80);
    rtc_set_cmos(f->rtc, 0x85, 0x77);
    g_assert_cmphex(get(f, 0x15), ==, 0x80);
    g_assert_cmphex(get(f, 0x95), ==, 0x80); /* bit 7 is the NMI mask */
    test_out(f->tb, 0x72, 1, 0x05);
    g_assert_cmphex(test_in(f->tb, 0x73, 1), ==, 0x77);
    test_out(f->tb, 0x73, 1, 0x78);
    set(f, 0x5a, 0xa5);
    set(f, 0x0b, 0x72);
    set(f, 2, 0x44);
    test_out(f->tb, 0x70, 2, 0x6b7f); /* index and data in one word */
    device_reset(f->rtc, RESET_WARM);
    g_assert_cmphex(get(f, 0x5a), ==, 0xa5);
    g_assert_cmphex(get(f, 0x7f), ==, 0x6b);
    g_assert_cmphex(get(f, 0x0b), ==, 0x02);
    g_assert_cmphex(get(f, 2), ==, 0x44);
    set(f, 0x0c, 0xff);
    set(f, 0x0d, 0x00);
    g_assert_cmphex(get(f, 0x0d), ==, 0x80);
}

static void test_localtime(void)
{
    g_setenv("TZ", "XXX-02:30", TRUE);
    Fixture f = {.tb = test_board_new(0)};
    f.rtc = test_board_add(f.tb, "mc146818", "base=localtime");
    g_assert_cmphex(get(&f, 4), ==, 0x05);
    g_assert_cmphex(get(&f, 2), ==, 0x34);
    test_board_free(f.tb);
    g_unsetenv("TZ");
    g_autoptr(TestBoard) tb = test_board_new(0);
    g_autoptr(Device) d = device_new(device_class_find("mc146818"), NULL, &tb->board);
    g_assert_true(device_set(d, "base", "mars", NULL));
    g_autoptr(GError) error = NULL;
    g_assert_false(device_realize(d, &error));
    g_assert_nonnull(strstr(error->message, "mars"));
}

#define RTC_TEST(name) g_test_add("/rtc/" #name, Fixture, NULL, set_up, test_##name, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    RTC_TEST(formats);
    RTC_TEST(set_and_century);
    RTC_TEST(nonsense);
    RTC_TEST(uip);
    RTC_TEST(divider);
    RTC_TEST(update_interrupt);
    RTC_TEST(periodic);
    RTC_TEST(flags_polled);
    RTC_TEST(alarm);
    RTC_TEST(memory);
    g_test_add_func("/rtc/localtime", test_localtime);
    return g_test_run();
}
