/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The options of "lodge run" from any words, one a line: there is a description or an error; a
 * description can be printed, and its flat form read, and so what is to be kept as a definition. */
#include <string.h>

#include "definition.h"
#include "replay.h"
#include "verb_run.h"

#define WORDS_MAX 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup(size ? (const char *)data : "", size);
    g_auto(GStrv) words = g_strsplit(text, "\n", WORDS_MAX);
    RunOptions o = {0};
    g_autoptr(GError) error = NULL;

    if (strstr(text, "password-file")) /* the one file that is read: not one of this host's */
        return 0;
    g_autoptr(Tree) t = run_compile((int)g_strv_length(words), words, &o, &error);
    g_assert_true(!t == !!error);
    if (!t)
        return 0;
    size_t len;
    const void *blob = tree_blob(t, &len);
    g_assert_nonnull(blob);
    g_autoptr(Tree) again = tree_from_blob(blob, len, NULL);
    g_assert_nonnull(again);
    g_autofree char *source = tree_source(t);
    g_assert_nonnull(source);
    if (o.define) {
        g_autofree char *written = definition_format(o.define);
        g_autoptr(Definition) kept = definition_parse(written, NULL);
        g_assert_nonnull(kept);
    }
    run_options_clear(&o);
    return 0;
}
