/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest may say on its console while a shell behind it is asked: answers whole and spoilt, and
 * prompts. Each answer that is taken makes what is left shorter, and no more comes out than went in. */
#include <string.h>

#include "console_shell.h"
#include "replay.h"

#define HEAD "T<7<"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    GString *in = g_string_new(NULL);
    ConsoleFrame what;

    g_assert_cmpint(console_shell_look((const char *)data, size), <=, CONSOLE_PROMPT);
    for (size_t i = 0; i < size; i++) {
        if (data[i])
            g_string_append_c(in, (char)data[i]);
    }
    do {
        g_autoptr(GByteArray) out = g_byte_array_new();
        size_t before = in->len;
        int status = 0;
        what = console_shell_take(in, HEAD, &status, out);
        g_assert_cmpuint(out->len, <=, before);
        g_assert_cmpint(status & ~0xff, ==, 0);
        g_assert_true(what == CONSOLE_FRAME_NONE ? in->len == before : in->len < before);
        g_assert_true(what == CONSOLE_FRAME_GOOD || !out->len);
    } while (what != CONSOLE_FRAME_NONE);
    g_string_free(in, TRUE);
    return 0;
}
