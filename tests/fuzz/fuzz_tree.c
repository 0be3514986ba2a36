/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machine descriptions from hostile bytes: what is taken can be printed, and its own flat form reads
 * back as the same. */
#include <string.h>

#include "replay.h"
#include "tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(Tree) t = tree_from_blob(data, size, NULL);
    size_t len;

    if (!t)
        return 0;
    g_autofree char *source = tree_source(t);
    const void *blob = tree_blob(t, &len);
    g_assert_nonnull(blob);
    g_autoptr(GError) error = NULL;
    g_autoptr(Tree) again = tree_from_blob(blob, len, &error);
    g_assert_no_error(error);
    g_autofree char *same = tree_source(again);
    g_assert_cmpstr(source, ==, same);
    return 0;
}
