/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The hot-plug registers, as firmware/hotplug.asl drives them. */
#include <string.h>

#include "testboard.h"

#include "acpi_hotplug.h"
#include "acpi_pm.h"
#include "lodge/error.h"
#include "lodge/num.h"
#include "pc_map.h"

#define UP ACPI_HOTPLUG_PORT
#define DOWN (ACPI_HOTPLUG_PORT + 4)
#define EJECT (ACPI_HOTPLUG_PORT + 8)
#define REMOVABLE (ACPI_HOTPLUG_PORT + 12)
#define GPE0_STATUS (PC_PORT_ACPI_PM + ACPI_GPE0)

static Device *set_up(TestBoard *tb)
{
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "piix3", NULL);
    Device *pm = test_board_add(tb, "piix4-pm", NULL);
    Device *d = test_board_add(tb, "acpi-hotplug", NULL);
    acpi_hotplug_attach(d, pm);
    return d;
}

static void test_add(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    Device *d = set_up(tb);
    g_assert_cmphex(test_in(tb, UP, 4), ==, 0);
    g_assert_cmphex(test_in(tb, REMOVABLE, 4), ==, 0xfffffff8);
    acpi_hotplug_added(d, 3);
    acpi_hotplug_added(d, 31);
    g_assert_cmphex(test_in(tb, GPE0_STATUS, 2), ==, 1u << 1);
    g_assert_cmphex(test_in(tb, DOWN, 4), ==, 0);
    g_assert_cmphex(test_in(tb, UP, 2), ==, 0xffff); /* not whole: tells and changes nothing */
    g_assert_cmphex(test_in(tb, UP, 4), ==, 0x80000008);
    g_assert_cmphex(test_in(tb, UP, 4), ==, 0); /* told once */
    test_out(tb, GPE0_STATUS, 2, 0xffff);
    acpi_hotplug_added(d, 2); /* soldered, and beyond the bus */
    acpi_hotplug_added(d, 32);
    acpi_hotplug_request_eject(d, 0);
    g_assert_cmphex(test_in(tb, UP, 4), ==, 0);
    g_assert_cmphex(test_in(tb, DOWN, 4), ==, 0);
    g_assert_cmphex(test_in(tb, GPE0_STATUS, 2), ==, 0);
}

static void test_eject(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    Device *d = set_up(tb);
    acpi_hotplug_request_eject(d, 4);
    g_assert_cmphex(test_in(tb, GPE0_STATUS, 2), ==, 1u << 1);
    g_assert_cmphex(test_in(tb, DOWN, 4), ==, 0x10);
    g_assert_cmphex(test_in(tb, DOWN, 4), ==, 0x10); /* stays until it is done */
    g_assert_cmpuint(tb->requests[BOARD_EJECT], ==, 0);
    test_out(tb, EJECT, 2, 0x10); /* narrow: dropped */
    g_assert_cmpuint(tb->requests[BOARD_EJECT], ==, 0);
    test_out(tb, EJECT, 4, 0x10);
    g_assert_cmpuint(tb->requests[BOARD_EJECT], ==, 1);
    g_assert_cmpint(tb->last_arg, ==, 4);
    g_assert_cmphex(test_in(tb, DOWN, 4), ==, 0);
    g_assert_cmphex(test_in(tb, EJECT, 4), ==, 0);
    /* A guest that writes for ever is heard once a slot; soldered slots never. */
    for (unsigned i = 0; i < 1000; i++)
        test_out(tb, EJECT, 4, UINT32_MAX);
    g_assert_cmpuint(tb->requests[BOARD_EJECT], ==, 29);
    g_assert_cmpint(tb->last_arg, ==, 31);
    acpi_hotplug_request_eject(d, 4); /* it is on its way out already */
    g_assert_cmphex(test_in(tb, DOWN, 4), ==, 0);
    acpi_hotplug_removed(d, 4);
    acpi_hotplug_added(d, 4);
    test_out(tb, EJECT, 4, 0x10);
    g_assert_cmpuint(tb->requests[BOARD_EJECT], ==, 30);
}

/* A restart: what was asked for goes, what was new is found by the firmware. */
static void test_reset(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    Device *d = set_up(tb);
    acpi_hotplug_added(d, 5);
    acpi_hotplug_request_eject(d, 6);
    device_reset(d, RESET_WARM);
    g_assert_cmphex(test_in(tb, UP, 4), ==, 0);
    g_assert_cmphex(test_in(tb, DOWN, 4), ==, 0);
    g_assert_cmpuint(tb->requests[BOARD_EJECT], ==, 1);
    g_assert_cmpint(tb->last_arg, ==, 6);
    device_reset(d, RESET_WARM);
    g_assert_cmpuint(tb->requests[BOARD_EJECT], ==, 1);
}

static void test_state(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    Device *d = set_up(tb);
    g_autoptr(GByteArray) saved = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    size_t used;
    acpi_hotplug_added(d, 5);
    acpi_hotplug_request_eject(d, 6);
    test_out(tb, EJECT, 4, 1u << 7);
    state_save(d->cls->state, d, saved);
    acpi_hotplug_removed(d, 5);
    acpi_hotplug_removed(d, 6);
    acpi_hotplug_removed(d, 7);
    unsigned before = tb->requests[BOARD_EJECT];
    state_load(d->cls->state, d, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    g_assert_cmphex(test_in(tb, UP, 4), ==, 1u << 5);
    g_assert_cmphex(test_in(tb, DOWN, 4), ==, 1u << 6);
    g_assert_cmpuint(tb->requests[BOARD_EJECT], ==, before + 1); /* nobody had answered it */
    g_assert_cmpint(tb->last_arg, ==, 7);
    static const uint8_t bad[] = {1 << 2, 1 << 7}; /* soldered; pending and on its way out */
    uint8_t *up = memmem(saved->data, saved->len, "up", 2);
    g_assert_nonnull(up);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        uint8_t *value = memchr(up, 1 << 5, 16);
        g_assert_nonnull(value);
        *value = bad[i];
        g_assert_false(state_load(d->cls->state, d, saved->data, saved->len, &used, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
        g_clear_error(&error);
        *value = 1 << 5;
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/acpi-hotplug/add", test_add);
    g_test_add_func("/acpi-hotplug/eject", test_eject);
    g_test_add_func("/acpi-hotplug/reset", test_reset);
    g_test_add_func("/acpi-hotplug/state", test_state);
    return g_test_run();
}
