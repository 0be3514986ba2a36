/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The files of machines, definition and status, from any bytes: what is taken is written in a form
 * that reads back as the same. */
#include <string.h>

#include "definition.h"
#include "machine_status.h"
#include "replay.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup(size ? (const char *)data : "", size);
    g_autoptr(GError) error = NULL;
    g_autoptr(Definition) d = definition_parse(text, &error);
    g_autoptr(MachineStatus) s = machine_status_parse(text);
    g_assert_true(!d == !!error);
    if (d) {
        g_autofree char *written = definition_format(d);
        g_autoptr(Definition) again = definition_parse(written, NULL);
        g_assert_nonnull(again);
        g_autofree char *same = definition_format(again);
        g_assert_cmpstr(written, ==, same);
        (void)definition_remove(d, "memory");
    }
    if (s) {
        g_autofree char *written = machine_status_format(s);
        g_autoptr(MachineStatus) again = machine_status_parse(written);
        g_assert_nonnull(again);
        g_autofree char *same = machine_status_format(again);
        g_assert_cmpstr(written, ==, same);
    }
    return 0;
}
