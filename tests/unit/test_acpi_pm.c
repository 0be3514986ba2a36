/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ACPI's fixed hardware through its ports. */
#include "testboard.h"

#include "acpi_pm.h"
#include "lodge/num.h"
#include "pc_map.h"

#define PM PC_PORT_ACPI_PM
#define STATUS (PM + 0)
#define ENABLE (PM + 2)
#define CONTROL (PM + 4)
#define TIMER (PM + 8)
#define GPE_STATUS (PM + 12)
#define GPE_ENABLE (PM + 14)
#define DEVFN (1u << 3 | 3)
#define TMR 0x0001
#define PWRBTN 0x0100
#define HALF_NS (INT64_C(8388608) * NS_PER_SEC / ACPI_PM_TIMER_HZ) /* 2^23 ticks, floor */

static TestBoard *board(Device **ret_pm)
{
    TestBoard *tb = test_board_new(0);
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "piix3", NULL);
    *ret_pm = test_board_add(tb, "piix4-pm", NULL);
    return tb;
}

static bool sci(TestBoard *tb)
{
    irq_lock_take(tb->board.irq);
    bool level = irq_level_locked(tb->board.irq, PC_IRQ_SCI);
    irq_lock_drop(tb->board.irq);
    return level;
}

static void test_config(void)
{
    Device *pm;
    g_autoptr(TestBoard) tb = board(&pm);
    g_assert_cmphex(test_cfg_read(tb, DEVFN, 0, 4), ==, 0x71138086);
    g_assert_cmphex(test_cfg_read(tb, DEVFN, 8, 4), ==, 0x06800003);
    g_assert_cmphex(test_cfg_read(tb, DEVFN, 0x40, 4), ==, PM | 1);
    g_assert_cmphex(test_cfg_read(tb, DEVFN, 0x80, 1), ==, 1);
    g_assert_cmphex(test_cfg_read(tb, DEVFN, 0x5b, 1), ==, 2);
    g_assert_cmphex(test_cfg_read(tb, DEVFN, 0x3c, 1), ==, 9);
    test_cfg_write(tb, DEVFN, 0x40, 4, 0xb001); /* the block stays */
    test_cfg_write(tb, DEVFN, 0x5b, 1, 0);
    g_assert_cmphex(test_cfg_read(tb, DEVFN, 0x40, 4), ==, PM | 1);
    g_assert_cmphex(test_cfg_read(tb, DEVFN, 0x5b, 1), ==, 2);
    g_assert_cmphex(test_in(tb, CONTROL, 2), ==, 1);
}

static void test_timer(void)
{
    Device *pm;
    g_autoptr(TestBoard) tb = board(&pm);
    g_assert_cmphex(test_in(tb, TIMER, 4), ==, 0);
    test_advance(tb, NS_PER_SEC);
    g_assert_cmphex(test_in(tb, TIMER, 4), ==, ACPI_PM_TIMER_HZ);
    g_assert_cmphex(test_in(tb, TIMER, 2), ==, ACPI_PM_TIMER_HZ & 0xffff);
    g_assert_cmphex(test_in(tb, TIMER + 2, 1), ==, ACPI_PM_TIMER_HZ >> 16);
    test_advance(tb, 9 * NS_PER_SEC);
    g_assert_cmphex(test_in(tb, TIMER, 4), ==, 10 * ACPI_PM_TIMER_HZ & 0xffffff);
    test_out(tb, TIMER, 4, 0);
    g_assert_cmphex(test_in(tb, TIMER, 4), ==, 10 * ACPI_PM_TIMER_HZ & 0xffffff);
}

static void test_overflow(void)
{
    Device *pm;
    g_autoptr(TestBoard) tb = board(&pm);
    g_assert_cmpint(timer_queue_next(tb->board.timers), ==, TIMER_NEVER);
    /* Polled: the bit comes without a timer. */
    test_advance(tb, HALF_NS);
    g_assert_cmphex(test_in(tb, STATUS, 2), ==, 0);
    test_advance(tb, 2);
    g_assert_cmphex(test_in(tb, TIMER, 4), ==, 0x800000);
    g_assert_cmphex(test_in(tb, STATUS, 2), ==, TMR);
    g_assert_false(sci(tb));
    test_out(tb, STATUS, 2, TMR);
    g_assert_cmphex(test_in(tb, STATUS, 2), ==, 0);
    /* By interrupt. */
    test_out(tb, ENABLE, 2, TMR);
    g_assert_cmpint(timer_queue_next(tb->board.timers), !=, TIMER_NEVER);
    test_advance(tb, HALF_NS - NS_PER_SEC / 1000);
    g_assert_false(sci(tb));
    test_advance(tb, NS_PER_SEC / 1000);
    g_assert_true(sci(tb));
    g_assert_cmpint(timer_queue_next(tb->board.timers), ==, TIMER_NEVER);
    g_assert_cmphex(test_in(tb, STATUS, 2), ==, TMR);
    test_out(tb, STATUS, 2, TMR);
    g_assert_false(sci(tb));
    g_assert_cmpint(timer_queue_next(tb->board.timers), !=, TIMER_NEVER);
    test_advance(tb, HALF_NS);
    g_assert_true(sci(tb));
    /* Disabled again: nothing runs. */
    test_out(tb, STATUS, 2, TMR);
    test_advance(tb, HALF_NS / 2); /* a clearing on the way does not put the next one off */
    test_out(tb, STATUS, 2, TMR);
    test_advance(tb, HALF_NS / 2 + NS_PER_SEC / 1000);
    g_assert_true(sci(tb));
    test_out(tb, STATUS, 2, TMR);
    test_out(tb, ENABLE, 2, 0);
    g_assert_cmpint(timer_queue_next(tb->board.timers), ==, TIMER_NEVER);
    g_assert_false(sci(tb));
}

static void test_power_button(void)
{
    Device *pm;
    g_autoptr(TestBoard) tb = board(&pm);
    acpi_pm_power_button(pm);
    g_assert_false(sci(tb));
    g_assert_cmphex(test_in(tb, STATUS, 2), ==, PWRBTN);
    test_out(tb, ENABLE, 2, 0xffff);
    g_assert_cmphex(test_in(tb, ENABLE, 2), ==, 0x0521);
    g_assert_true(sci(tb));
    test_out(tb, STATUS, 1, 0xff); /* the low byte is not its */
    g_assert_true(sci(tb));
    test_out(tb, STATUS + 1, 1, 0x01);
    g_assert_false(sci(tb));
    acpi_pm_power_button(pm);
    g_assert_true(sci(tb));
    g_assert_cmphex(test_in(tb, STATUS, 4), ==, 0x05210000 | PWRBTN);
    device_reset(pm, RESET_WARM);
    g_assert_false(sci(tb));
    g_assert_cmphex(test_in(tb, STATUS, 4), ==, 0);
    test_out(tb, ENABLE + 1, 1, 0x01); /* a byte of the enables leaves the other */
    test_out(tb, ENABLE, 1, 0x20);
    g_assert_cmphex(test_in(tb, ENABLE, 2), ==, 0x0120);
}

static void test_sleep(void)
{
    Device *pm;
    g_autoptr(TestBoard) tb = board(&pm);
    test_out(tb, CONTROL, 2, 0x1c00);
    g_assert_cmphex(test_in(tb, CONTROL, 2), ==, 0x1c01);
    g_assert_cmpuint(tb->requests[BOARD_POWER_OFF], ==, 0);
    test_out(tb, CONTROL, 2, 0x2000 | 1 << 10); /* suspend to RAM */
    g_assert_cmpuint(tb->requests[BOARD_POWER_OFF], ==, 0);
    g_assert_cmpuint(tb->requests[BOARD_SUSPEND], ==, 0);
    g_assert_cmpuint(pm->faults, ==, 1);
    test_out(tb, CONTROL, 2, 0);
    test_out(tb, CONTROL, 2, 0x2000);
    g_assert_cmpuint(tb->requests[BOARD_POWER_OFF], ==, 1);
    g_assert_cmphex(test_in(tb, CONTROL, 2), ==, 1); /* SLP_EN reads as 0, SCI_EN as 1 */
    test_out(tb, CONTROL + 1, 1, 0x20);
    g_assert_cmpuint(tb->requests[BOARD_POWER_OFF], ==, 2);
}

static void test_gpe(void)
{
    Device *pm;
    g_autoptr(TestBoard) tb = board(&pm);
    acpi_pm_gpe_raise(pm, 3);
    acpi_pm_gpe_raise(pm, 16); /* none such */
    g_assert_cmphex(test_in(tb, GPE_STATUS, 4), ==, 8);
    g_assert_false(sci(tb));
    test_out(tb, GPE_ENABLE, 1, 8);
    g_assert_true(sci(tb));
    test_out(tb, GPE_STATUS, 1, 8);
    g_assert_false(sci(tb));
    test_out(tb, GPE_ENABLE + 1, 1, 0x80);
    g_assert_cmphex(test_in(tb, GPE_ENABLE, 2), ==, 0x8008);
    g_assert_cmphex(test_in(tb, PM + 0x30, 4), ==, 0);
}

static void test_state(void)
{
    Device *pm;
    g_autoptr(TestBoard) tb = board(&pm);
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    size_t used;
    test_out(tb, ENABLE, 2, TMR | PWRBTN);
    acpi_pm_power_button(pm);
    state_save(pm->cls->state, pm, saved);
    device_reset(pm, RESET_COLD);
    g_assert_false(sci(tb));
    g_assert_cmpint(timer_queue_next(tb->board.timers), ==, TIMER_NEVER);
    state_load(pm->cls->state, pm, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    g_assert_true(sci(tb));
    g_assert_cmpint(timer_queue_next(tb->board.timers), !=, TIMER_NEVER);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/acpi-pm/config", test_config);
    g_test_add_func("/acpi-pm/timer", test_timer);
    g_test_add_func("/acpi-pm/overflow", test_overflow);
    g_test_add_func("/acpi-pm/power-button", test_power_button);
    g_test_add_func("/acpi-pm/sleep", test_sleep);
    g_test_add_func("/acpi-pm/gpe", test_gpe);
    g_test_add_func("/acpi-pm/state", test_state);
    return g_test_run();
}
