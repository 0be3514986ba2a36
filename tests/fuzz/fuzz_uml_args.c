/* SPDX-License-Identifier: GPL-2.0-or-later */
/* User-Mode Linux's command line from any words, one a line: there is a description or an error,
 * and a description can be printed. */
#include <string.h>

#include "replay.h"
#include "uml_args.h"

#define WORDS_MAX 200

/* By the name's last letter, so that the fuzzer chooses. */
static UmlFile look(const char *path)
{
    size_t n = strlen(path);

    return n ? (UmlFile)((unsigned char)path[n - 1] % 3) : UML_FILE_NONE;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup(size > 1 ? (const char *)data + 1 : "", size ? size - 1 : 0);
    g_auto(GStrv) words = g_strsplit(text, "\n", WORDS_MAX);
    UmlHost host = {size && (data[0] & 1), look, size && (data[0] & 2) ? "seed" : NULL};
    UmlOptions o = {0};
    g_autoptr(GError) error = NULL;
    g_autoptr(Tree) t = uml_compile((int)g_strv_length(words), words, &host, &o, &error);

    g_assert_true(!t == !!error);
    if (t) {
        g_autofree char *source = tree_source(t);
        g_assert_nonnull(source);
        uml_options_clear(&o);
    }
    return 0;
}
