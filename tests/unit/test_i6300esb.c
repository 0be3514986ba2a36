/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 6300ESB's watchdog, as a driver sees it: through configuration space and its BAR. */
#include "testboard.h"

#include "pci.h"

#define CFG_CONFIG 0x60
#define CFG_LOCK 0x68
#define ENABLE 2u
#define LOCK 1u
#define FREE 4u
#define FAST 4u
#define NO_OUTPUT 0x20u
#define RELOAD 0x0c
#define TIMEOUT 0x200u
#define SECOND INT64_C(1000000000)

typedef struct Wdt {
    TestBoard *tb;
    Device *dev;
    uint8_t devfn;
    uint64_t bar;
} Wdt;

static Wdt wdt_up(TestBoard *tb)
{
    Wdt w = {.tb = tb};

    test_board_add(tb, "i440fx", NULL);
    w.dev = test_board_add(tb, "i6300esb", NULL);
    w.devfn = ((PciDev *)w.dev)->devfn;
    pci_assign(tb->board.pci, 0xfe000000u, 0xfec00000u);
    w.bar = test_cfg_read(tb, w.devfn, 0x10, 4) & ~0xfu;
    return w;
}

static void unlocked(Wdt *w, unsigned reg, uint32_t val)
{
    test_poke(w->tb, w->bar + RELOAD, 2, 0x80);
    test_poke(w->tb, w->bar + RELOAD, 2, 0x86);
    test_poke(w->tb, w->bar + reg, 4, val);
}

static void times(Wdt *w, uint32_t first, uint32_t second)
{
    unlocked(w, 0, first);
    unlocked(w, 4, second);
}

static void lock_reg(Wdt *w, uint8_t val)
{
    test_cfg_write(w->tb, w->devfn, CFG_LOCK, 1, val);
}

static unsigned bites(Wdt *w)
{
    return w->tb->requests[BOARD_WATCHDOG];
}

static bool timed_out(Wdt *w)
{
    return test_peek(w->tb, w->bar + RELOAD, 2) & TIMEOUT;
}

/* Left alone, it bites after both stages: 1000 and 500 of 2^15 clocks are 0.99 s and 0.50 s. */
static void test_bites(void)
{
    g_autoptr(TestBoard) tb = test_board_new(1 << 20);
    Wdt w = wdt_up(tb);

    g_assert_cmphex(test_cfg_read(tb, w.devfn, 0, 4), ==, 0x25ab8086);
    times(&w, 1000, 500);
    g_assert_cmpuint(test_peek(tb, w.bar, 4), ==, 1000);
    test_advance(tb, 10 * SECOND); /* not enabled */
    g_assert_cmpuint(bites(&w), ==, 0);
    lock_reg(&w, ENABLE);
    test_advance(tb, SECOND - SECOND / 50);
    g_assert_cmpuint(test_peek(tb, w.bar + 8, 4), ==, 0);
    test_advance(tb, SECOND / 50);
    g_assert_cmpuint(test_peek(tb, w.bar + 8, 4), ==, 1);
    g_assert_cmpuint(bites(&w), ==, 0);
    test_advance(tb, SECOND / 2 - SECOND / 25);
    g_assert_cmpuint(bites(&w), ==, 0);
    g_assert_false(timed_out(&w));
    test_advance(tb, SECOND / 25);
    g_assert_cmpuint(bites(&w), ==, 1);
    g_assert_true(timed_out(&w));
    test_advance(tb, 100 * SECOND); /* once */
    g_assert_cmpuint(bites(&w), ==, 1);
    test_poke(tb, w.bar + 8, 4, 1);
    g_assert_cmpuint(test_peek(tb, w.bar + 8, 4), ==, 0);
}

static void test_kept_alive(void)
{
    g_autoptr(TestBoard) tb = test_board_new(1 << 20);
    Wdt w = wdt_up(tb);

    times(&w, 1000, 1000);
    lock_reg(&w, ENABLE);
    for (unsigned i = 0; i < 20; i++) {
        test_advance(tb, SECOND + SECOND / 2);
        unlocked(&w, RELOAD, 0x100);
    }
    g_assert_cmpuint(bites(&w), ==, 0);
    test_poke(tb, w.bar + RELOAD, 2, 0x100); /* without unlocking: nothing */
    test_advance(tb, SECOND + SECOND / 2);
    test_poke(tb, w.bar + RELOAD, 2, 0x100);
    test_advance(tb, SECOND);
    g_assert_cmpuint(bites(&w), ==, 1);
    unlocked(&w, RELOAD, 0x100); /* the driver is back */
    test_advance(tb, 3 * SECOND);
    g_assert_cmpuint(bites(&w), ==, 2);
}

/* Each write needs an unlocking of its own, in the right order. */
static void test_unlock(void)
{
    static const uint8_t wrong[][3] = {{0x80, 0x80, 0}, {0x86, 0x80, 0}, {0x86, 0x86, 0},
                                       {0x80, 0x00, 0x86}};
    g_autoptr(TestBoard) tb = test_board_new(1 << 20);
    Wdt w = wdt_up(tb);

    unlocked(&w, 0, 77);
    test_poke(tb, w.bar, 4, 78);
    g_assert_cmpuint(test_peek(tb, w.bar, 4), ==, 77);
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        for (unsigned k = 0; k < 3 && (k < 2 || wrong[i][k]); k++)
            test_poke(tb, w.bar + RELOAD, 2, wrong[i][k]);
        test_poke(tb, w.bar, 4, 79);
        g_assert_cmpuint(test_peek(tb, w.bar, 4), ==, 77);
    }
    unlocked(&w, 4, 0xffffffff); /* 20 bits */
    g_assert_cmphex(test_peek(tb, w.bar + 4, 4), ==, 0xfffff);
    g_assert_cmphex(test_peek(tb, w.bar + 5, 1), ==, 0xff);
}

static void test_prescaler_and_output(void)
{
    g_autoptr(TestBoard) tb = test_board_new(1 << 20);
    Wdt w = wdt_up(tb);

    test_cfg_write(tb, w.devfn, CFG_CONFIG, 2, FAST);
    times(&w, 100, 100); /* 97 us each */
    lock_reg(&w, ENABLE);
    test_advance(tb, SECOND / 1000);
    g_assert_cmpuint(bites(&w), ==, 1);
    test_cfg_write(tb, w.devfn, CFG_CONFIG, 2, FAST | NO_OUTPUT);
    unlocked(&w, RELOAD, TIMEOUT);
    g_assert_false(timed_out(&w));
    unlocked(&w, RELOAD, 0x100);
    test_advance(tb, SECOND);
    g_assert_cmpuint(bites(&w), ==, 1);
    g_assert_false(timed_out(&w));
}

/* Free running takes the second value alone; zeros are no storm of requests. */
static void test_free_running(void)
{
    g_autoptr(TestBoard) tb = test_board_new(1 << 20);
    Wdt w = wdt_up(tb);

    times(&w, 0xfffff, 500);
    lock_reg(&w, ENABLE | FREE);
    test_advance(tb, SECOND);
    g_assert_cmpuint(bites(&w), ==, 1);
    lock_reg(&w, 0);
    times(&w, 0, 0);
    test_cfg_write(tb, w.devfn, CFG_CONFIG, 2, FAST);
    lock_reg(&w, ENABLE | FREE);
    test_advance(tb, SECOND);
    g_assert_cmpuint(bites(&w), ==, 2);
}

static void test_disable_and_lock(void)
{
    g_autoptr(TestBoard) tb = test_board_new(1 << 20);
    Wdt w = wdt_up(tb);

    times(&w, 1000, 1000);
    lock_reg(&w, ENABLE);
    test_advance(tb, SECOND);
    lock_reg(&w, 0);
    test_advance(tb, 10 * SECOND);
    g_assert_cmpuint(bites(&w), ==, 0);
    lock_reg(&w, ENABLE | LOCK);
    lock_reg(&w, 0); /* too late */
    g_assert_cmphex(test_cfg_read(tb, w.devfn, CFG_LOCK, 1), ==, ENABLE | LOCK);
    test_advance(tb, 10 * SECOND);
    g_assert_cmpuint(bites(&w), ==, 1);
    device_reset(w.dev, RESET_WARM);
    g_assert_cmphex(test_cfg_read(tb, w.devfn, CFG_LOCK, 1), ==, 0);
    lock_reg(&w, ENABLE);
    g_assert_cmphex(test_cfg_read(tb, w.devfn, CFG_LOCK, 1), ==, ENABLE);
}

/* That it bit outlasts the reset; that it counted does not. */
static void test_reset(void)
{
    g_autoptr(TestBoard) tb = test_board_new(1 << 20);
    Wdt w = wdt_up(tb);

    times(&w, 10, 10);
    lock_reg(&w, ENABLE);
    test_advance(tb, SECOND);
    unlocked(&w, RELOAD, 0x100);
    device_reset(w.dev, RESET_WARM);
    pci_assign(tb->board.pci, 0xfe000000u, 0xfec00000u);
    g_assert_true(timed_out(&w));
    g_assert_cmphex(test_peek(tb, w.bar, 4), ==, 0xfffff);
    test_advance(tb, 10 * SECOND);
    g_assert_cmpuint(bites(&w), ==, 1);
    device_reset(w.dev, RESET_COLD);
    pci_assign(tb->board.pci, 0xfe000000u, 0xfec00000u);
    g_assert_false(timed_out(&w));
}

/* A watchdog that counts goes on where it was. */
static void test_state(void)
{
    g_autoptr(TestBoard) tb = test_board_new(1 << 20);
    Wdt w = wdt_up(tb);
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    size_t used;

    times(&w, 1000, 1000);
    lock_reg(&w, ENABLE | LOCK);
    test_advance(tb, SECOND + SECOND / 2);
    state_save(w.dev->cls->state, w.dev, saved);
    device_reset(w.dev, RESET_COLD);
    state_load(w.dev->cls->state, w.dev, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    lock_reg(&w, 0); /* still locked */
    test_advance(tb, SECOND / 4);
    g_assert_cmpuint(bites(&w), ==, 0);
    test_advance(tb, SECOND / 2);
    g_assert_cmpuint(bites(&w), ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/i6300esb/bites", test_bites);
    g_test_add_func("/i6300esb/kept-alive", test_kept_alive);
    g_test_add_func("/i6300esb/unlock", test_unlock);
    g_test_add_func("/i6300esb/prescaler-and-output", test_prescaler_and_output);
    g_test_add_func("/i6300esb/free-running", test_free_running);
    g_test_add_func("/i6300esb/disable-and-lock", test_disable_and_lock);
    g_test_add_func("/i6300esb/reset", test_reset);
    g_test_add_func("/i6300esb/state", test_state);
    return g_test_run();
}
