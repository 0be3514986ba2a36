/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ports by which a guest tells its end: debug exit and pvpanic. */
#include "testboard.h"

#include "lodge/error.h"
#include "pc_map.h"

static void test_exit_values(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    static const struct {
        unsigned size;
        uint32_t v;
        int status;
    } cases[] = {
        {1, 0, 1},      {1, 1, 3},         {1, 0x10, 0x21},       {1, 0xff, 0xff},
        {2, 0x0101, 3}, {2, 0x80, 0x01},   {4, 0x12345678, 0xf1}, {4, 0xffffffff, 0xff},
    };
    test_board_add(tb, "debug-exit", NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        tb->last_arg = -1;
        test_out(tb, 0xf4, cases[i].size, cases[i].v);
        g_assert_cmpuint(tb->requests[BOARD_EXIT], ==, i + 1);
        g_assert_cmpint(tb->last_arg, ==, cases[i].status);
    }
    test_out(tb, 0xf5, 1, 7); /* behind the port: only for wide accesses */
    g_assert_cmphex(test_in(tb, 0xf6, 1), ==, 0);
    g_assert_cmpuint(tb->requests[BOARD_EXIT], ==, G_N_ELEMENTS(cases));
    g_assert_cmphex(test_in(tb, 0xf4, 2), ==, 0);
    g_assert_cmpuint(tb->requests[BOARD_EXIT], ==, G_N_ELEMENTS(cases) + 1);
    g_assert_cmpint(tb->last_arg, ==, 1);
}

static void test_exit_iobase(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    GError *error = NULL;
    test_board_add(tb, "debug-exit", "iobase=0x501");
    test_out(tb, 0xf4, 1, 1);
    g_assert_cmpuint(tb->requests[BOARD_EXIT], ==, 0);
    test_out(tb, 0x501, 1, 1);
    g_assert_cmpuint(tb->requests[BOARD_EXIT], ==, 1);
    /* A second one at the same place. */
    g_autoptr(Device) d = device_new(device_class_find("debug-exit"), "second", &tb->board);
    g_assert_true(device_set(d, "iobase", "0x500", &error));
    g_assert_false(device_realize(d, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    g_assert_false(device_set(d, "iobase", "0xfffd", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
}

static void test_pvpanic(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    Device *d = test_board_add(tb, "pvpanic", NULL);
    g_assert_cmphex(test_in(tb, PC_PORT_PVPANIC, 1), ==, 0x03);
    g_assert_cmphex(test_in(tb, PC_PORT_PVPANIC, 2), ==, 0xff03);
    test_out(tb, PC_PORT_PVPANIC, 1, 0x01);
    g_assert_cmpuint(tb->requests[BOARD_PANIC], ==, 1);
    g_assert_cmpuint(tb->requests[BOARD_CRASH_LOAD], ==, 0);
    test_out(tb, PC_PORT_PVPANIC, 1, 0x02);
    g_assert_cmpuint(tb->requests[BOARD_PANIC], ==, 1);
    g_assert_cmpuint(tb->requests[BOARD_CRASH_LOAD], ==, 1);
    g_assert_cmpuint(d->faults, ==, 0);
    test_out(tb, PC_PORT_PVPANIC, 1, 0x80);
    g_assert_cmpuint(d->faults, ==, 1);
    g_assert_cmpuint(tb->requests[BOARD_PANIC], ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/debug-exit/values", test_exit_values);
    g_test_add_func("/debug-exit/iobase", test_exit_iobase);
    g_test_add_func("/pvpanic/events", test_pvpanic);
    return g_test_run();
}
