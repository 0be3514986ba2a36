/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON text, indented by two. Spec: RFC 8259, sections 4 to 7.
 *
 * Numbers are 64-bit integers; readers that keep them as doubles lose digits above 2^53, which
 * RFC 8259 section 6 warns of, so nothing larger is printed as a number here.
 */
#include "json_out.h"

#include <inttypes.h>

struct JsonOut {
    GString *text;
    GString *open; /* closing brackets of what is open, innermost last */
    bool first;    /* nothing stands in the innermost yet */
};

JsonOut *json_out_new(void)
{
    JsonOut *j = g_new0(JsonOut, 1);

    j->text = g_string_new(NULL);
    j->open = g_string_new(NULL);
    j->first = true;
    return j;
}

void json_out_free(JsonOut *j)
{
    if (!j)
        return;
    g_string_free(j->text, TRUE);
    g_string_free(j->open, TRUE);
    g_free(j);
}

static void line_start(JsonOut *j)
{
    g_string_append_c(j->text, '\n');
    for (gsize i = 0; i < j->open->len; i++)
        g_string_append(j->text, "  ");
}

static void quoted(JsonOut *j, const char *value)
{
    g_autofree char *utf8 = g_utf8_make_valid(value, -1);

    g_string_append_c(j->text, '"');
    for (const char *s = utf8; *s; s++) {
        unsigned char c = (unsigned char)*s;

        if (c == '"' || c == '\\')
            g_string_append_printf(j->text, "\\%c", c);
        else if (c == '\n')
            g_string_append(j->text, "\\n");
        else if (c == '\t')
            g_string_append(j->text, "\\t");
        else if (c < 0x20)
            g_string_append_printf(j->text, "\\u%04x", c);
        else
            g_string_append_c(j->text, (char)c);
    }
    g_string_append_c(j->text, '"');
}

static void value_start(JsonOut *j, const char *key)
{
    if (!j->first)
        g_string_append_c(j->text, ',');
    if (j->open->len)
        line_start(j);
    j->first = false;
    if (key) {
        quoted(j, key);
        g_string_append(j->text, ": ");
    }
}

void json_object(JsonOut *j, const char *key)
{
    value_start(j, key);
    g_string_append_c(j->text, '{');
    g_string_append_c(j->open, '}');
    j->first = true;
}

void json_array(JsonOut *j, const char *key)
{
    value_start(j, key);
    g_string_append_c(j->text, '[');
    g_string_append_c(j->open, ']');
    j->first = true;
}

void json_end(JsonOut *j)
{
    char closing;

    g_assert(j->open->len);
    closing = j->open->str[j->open->len - 1];
    g_string_truncate(j->open, j->open->len - 1);
    if (!j->first)
        line_start(j);
    g_string_append_c(j->text, closing);
    j->first = false;
}

void json_string(JsonOut *j, const char *key, const char *value)
{
    value_start(j, key);
    if (value)
        quoted(j, value);
    else
        g_string_append(j->text, "null");
}

void json_number(JsonOut *j, const char *key, int64_t value)
{
    value_start(j, key);
    g_string_append_printf(j->text, "%" PRId64, value);
}

void json_bool(JsonOut *j, const char *key, bool value)
{
    value_start(j, key);
    g_string_append(j->text, value ? "true" : "false");
}

const char *json_text(JsonOut *j)
{
    while (j->open->len)
        json_end(j);
    if (!j->text->len || j->text->str[j->text->len - 1] != '\n')
        g_string_append_c(j->text, '\n');
    return j->text->str;
}
