/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON text, indented by two or on one line. Spec: RFC 8259, sections 4 to 7.
 *
 * Numbers are 64-bit integers; readers that keep them as doubles lose digits above 2^53, which
 * RFC 8259 section 6 warns of, so nothing larger is printed as a number here.
 */
#include "lodge/json_out.h"

#include <inttypes.h>
#include <math.h>

struct JsonOut {
    GString *text;
    GString *open; /* closing brackets of what is open, innermost last */
    bool first;    /* nothing stands in the innermost yet */
    bool line;     /* all on one line, in ASCII */
    bool lossy;    /* see json_is_lossy() */
};

static JsonOut *out_new(bool line)
{
    JsonOut *j = g_new0(JsonOut, 1);

    j->line = line;
    j->text = g_string_new(NULL);
    j->open = g_string_new(NULL);
    j->first = true;
    return j;
}

JsonOut *json_out_new(void)
{
    return out_new(false);
}

JsonOut *json_out_new_line(void)
{
    return out_new(true);
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

/* RFC 8259, section 7: beyond the basic plane a character is two surrogates. */
static void append_escape(JsonOut *j, gunichar c)
{
    if (c > 0xffff)
        g_string_append_printf(j->text, "\\u%04X\\u%04X", 0xd800 + ((c - 0x10000) >> 10),
                               0xdc00 + ((c - 0x10000) & 0x3ff));
    else
        g_string_append_printf(j->text, "\\u%04X", c);
}

static void quoted(JsonOut *j, const char *value)
{
    bool valid = g_utf8_validate(value, -1, NULL);
    g_autofree char *mended = valid ? NULL : g_utf8_make_valid(value, -1);

    j->lossy |= !valid;
    g_string_append_c(j->text, '"');
    for (const char *s = valid ? value : mended; *s; s = g_utf8_next_char(s)) {
        gunichar c = g_utf8_get_char(s);

        if (c == '"' || c == '\\')
            g_string_append_printf(j->text, "\\%c", (char)c);
        else if (c == '\n')
            g_string_append(j->text, "\\n");
        else if (c == '\t')
            g_string_append(j->text, "\\t");
        else if (j->line && c == '\r')
            g_string_append(j->text, "\\r");
        else if (c < 0x20 || (j->line && c > 0x7e))
            append_escape(j, c);
        else
            g_string_append_unichar(j->text, c);
    }
    g_string_append_c(j->text, '"');
}

static void value_start(JsonOut *j, const char *key)
{
    if (!j->first)
        g_string_append(j->text, j->line ? ", " : ",");
    if (j->open->len && !j->line)
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
    if (!j->first && !j->line)
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

void json_double(JsonOut *j, const char *key, double value)
{
    char text[G_ASCII_DTOSTR_BUF_SIZE];

    value_start(j, key);
    /* 17 digits bring any double back (IEEE 754). */
    g_string_append(j->text, isfinite(value)
                                 ? g_ascii_formatd(text, sizeof text, "%.17g", value)
                                 : "null");
}

void json_null(JsonOut *j, const char *key)
{
    value_start(j, key);
    g_string_append(j->text, "null");
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
        g_string_append(j->text, j->line ? "\r\n" : "\n");
    return j->text->str;
}

bool json_is_lossy(const JsonOut *j)
{
    return j->lossy;
}
