/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every row of device_table[] must keep: a help line, sound properties, a complete state. */
#include <string.h>

#include "testboard.h"

static void test_rows(void)
{
    for (const DeviceClass *const *c = device_table; *c; c++) {
        g_test_message("%s", (*c)->name);
        g_assert_nonnull((*c)->help);
        g_assert_true(device_class_find((*c)->name) == *c);
        g_assert_cmpuint((*c)->instance_size, >=, sizeof(Device));
        g_assert_true(!(*c)->quiesce == !(*c)->resume);
        for (const PropSpec *p = (*c)->props; p && p->name; p++) {
            g_assert_nonnull(p->help);
            g_assert_cmpuint(p->offset, <, (*c)->instance_size);
        }
    }
}

static void test_state_covers_every_byte(void)
{
    for (const DeviceClass *const *c = device_table; *c; c++) {
        GError *error = NULL;
        g_assert_nonnull((*c)->state);
        state_check((*c)->state, &error);
        g_assert_no_error(error);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/device-table/rows", test_rows);
    g_test_add_func("/device-table/state", test_state_covers_every_byte);
    return g_test_run();
}
