/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stands before the JSON parser: where a value ends, and whether it is one. Spec: RFC 8259,
 * sections 2 to 8; QEMU docs/interop/qmp-spec.rst, section 2.
 *
 * json-glib recurses with the nesting, trusts surrogate pairs and takes more than JSON; so depth,
 * size, escapes, numbers, keywords, UTF-8 and the order of words are settled here, and it makes a
 * tree of what is known to be right. Left out of what QEMU takes: strings in single quotes.
 * Integers beyond 64 bits with a sign are refused; of a member that is there twice, the last one
 * counts.
 *
 * After a byte that cannot stand where it does, everything up to the next bracket, comma, colon or
 * control character is skipped, so that a line of noise is one error; 0xFF, which is in no UTF-8
 * text, is how clients bring us back to a known state (qmp-spec, 2.2).
 *
 * Invariants: (1) text never holds more than JSON_SCAN_BYTES. (2) A value that was found bad is
 * followed to its end, then told as the error it met first.
 */
#include "json_scan.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

typedef enum State {
    STATE_START,   /* between words */
    STATE_STRING,
    STATE_ESCAPE,  /* behind a backslash */
    STATE_HEX,     /* in the four digits of \u */
    STATE_WORD,
    STATE_NUMBER,
    STATE_RECOVER, /* skipping */
} State;

/* What may come next in the innermost object or array. */
typedef enum Expect {
    EXPECT_VALUE,        /* behind a colon, or a comma of an array; or the outermost value */
    EXPECT_VALUE_OR_END, /* behind [ */
    EXPECT_KEY,          /* behind a comma of an object */
    EXPECT_KEY_OR_END,   /* behind { */
    EXPECT_COLON,
    EXPECT_COMMA_OR_END,
} Expect;

struct JsonScan {
    GString *text;   /* of the value so far; or, after an error, what it was */
    char *bad;       /* owned; what is wrong with the value; NULL: nothing yet */
    State state;
    unsigned depth;
    Expect expect;
    char open[JSON_SCAN_DEPTH]; /* { or [, the innermost at depth - 1 */
    size_t word;     /* where the word that is being read starts in text */
    unsigned digits; /* of \u, so far */
    uint32_t unit;   /* their value */
    uint32_t high;   /* the high surrogate that the next escape must follow up; 0: none */
    bool told;       /* text is what was answered last: start afresh */
};

JsonScan *json_scan_new(void)
{
    JsonScan *s = g_new0(JsonScan, 1);
    s->text = g_string_new(NULL);
    return s;
}

void json_scan_free(JsonScan *s)
{
    if (!s)
        return;
    g_string_free(s->text, TRUE);
    g_free(s->bad);
    g_free(s);
}

const char *json_scan_text(const JsonScan *s)
{
    return s->text->str;
}

size_t json_scan_held(const JsonScan *s)
{
    return s->told ? 0 : s->text->len;
}

/* Remember the first thing that is wrong. */
G_GNUC_PRINTF(2, 3) static void note_bad(JsonScan *s, const char *fmt, ...)
{
    va_list ap;
    if (s->bad)
        return;
    va_start(ap, fmt);
    s->bad = g_strdup_vprintf(fmt, ap);
    va_end(ap);
}

/* Forget the value; the error's text is what is left. */
static JsonScanResult fail(JsonScan *s, JsonScanResult how, const char *why)
{
    g_autofree char *text = g_strdup(why);
    g_string_assign(s->text, text);
    g_clear_pointer(&s->bad, g_free);
    s->depth = 0;
    s->expect = EXPECT_VALUE;
    s->high = 0;
    s->told = true;
    return how;
}

static JsonScanResult stray(JsonScan *s, uint8_t c)
{
    size_t word = s->state == STATE_START ? s->text->len : s->word;
    g_string_append_c(s->text, (char)c);
    g_autofree char *near = g_utf8_make_valid(s->text->str + word, -1);
    /* As much of a long string as says where it is. */
    g_autofree char *tail = g_utf8_strlen(near, -1) > 64
                                ? g_utf8_substring(near, 0, 64) : g_strdup(near);
    g_autofree char *why = g_strdup_printf("JSON parse error, stray '%s'", tail);
    s->state = STATE_RECOVER;
    return fail(s, JSON_SCAN_ERROR, why);
}

/* The outermost value has ended. */
static JsonScanResult whole(JsonScan *s)
{
    s->state = STATE_START;
    s->depth = 0;
    s->expect = EXPECT_VALUE;
    if (!s->bad && !g_utf8_validate_len(s->text->str, s->text->len, NULL))
        note_bad(s, "invalid UTF-8 sequence in string");
    if (s->bad) {
        g_autofree char *why = g_strconcat("JSON parse error, ", s->bad, NULL);
        return fail(s, JSON_SCAN_ERROR, why);
    }
    s->told = true;
    return JSON_SCAN_VALUE;
}

static bool in_object(const JsonScan *s)
{
    return s->depth && s->open[s->depth - 1] == '{';
}

/* A word of the grammar: a bracket, colon or comma; s for a string, v for a number or keyword. In
 * QEMU's words where it does not fit (json-parser.c). */
static void check_order(JsonScan *s, char token)
{
    bool end = token == '}' || token == ']', opens = token == '{' || token == '[';
    bool fits_end = end && (token == '}') == in_object(s);
    switch (s->expect) {
    case EXPECT_VALUE_OR_END:
        if (fits_end)
            return;
        G_GNUC_FALLTHROUGH;
    case EXPECT_VALUE:
        if (!opens && token != 's' && token != 'v')
            note_bad(s, "expecting value");
        s->expect = EXPECT_COMMA_OR_END;
        return;
    case EXPECT_KEY_OR_END:
        if (fits_end)
            return;
        G_GNUC_FALLTHROUGH;
    case EXPECT_KEY:
        if (end || token == ':' || token == ',')
            note_bad(s, "expecting value");
        else if (token != 's')
            note_bad(s, "key is not a string in object");
        s->expect = EXPECT_COLON;
        return;
    case EXPECT_COLON:
        if (token != ':')
            note_bad(s, "missing : in object pair");
        s->expect = EXPECT_VALUE;
        return;
    case EXPECT_COMMA_OR_END:
        if (token == ',')
            s->expect = in_object(s) ? EXPECT_KEY : EXPECT_VALUE;
        else if (!fits_end)
            note_bad(s, in_object(s) ? "expected separator in dict"
                                     : "expected separator in list");
        return;
    }
}

/* RFC 8259, section 6. */
static void check_number(JsonScan *s, const char *word)
{
    const char *p = word + (*word == '-');
    bool integer = true;
    const char *digits = p;
    while (g_ascii_isdigit(*p))
        p++;
    bool ok = p > digits && (*digits != '0' || p == digits + 1);
    if (ok && *p == '.') {
        const char *fraction = ++p;
        while (g_ascii_isdigit(*p))
            p++;
        ok = p > fraction;
        integer = false;
    }
    if (ok && (*p == 'e' || *p == 'E')) {
        p++;
        p += *p == '+' || *p == '-';
        const char *exponent = p;
        while (g_ascii_isdigit(*p))
            p++;
        ok = p > exponent;
        integer = false;
    }
    if (!ok || *p) {
        note_bad(s, "invalid number '%.32s'", word);
    } else if (integer) {
        errno = 0;
        (void)g_ascii_strtoll(word, NULL, 10);
        if (errno)
            note_bad(s, "number '%.32s' is out of range", word);
    }
}

static void end_word(JsonScan *s)
{
    const char *word = s->text->str + s->word;
    check_order(s, 'v');
    if (s->state == STATE_NUMBER)
        check_number(s, word);
    else if (strcmp(word, "true") && strcmp(word, "false") && strcmp(word, "null"))
        note_bad(s, "invalid keyword '%.32s'", word);
    s->state = STATE_START;
}

/* A whole \uXXXX: no NUL, which ends strings, and surrogates in pairs only. Spec: RFC 8259, section
 * 7. */
static void end_escape(JsonScan *s)
{
    bool high = (s->unit & 0xfc00) == 0xd800, low = (s->unit & 0xfc00) == 0xdc00;
    s->state = STATE_STRING;
    if (!s->unit || low != (s->high != 0))
        note_bad(s, "\\u%04x is not a valid Unicode character", s->high ? s->high : s->unit);
    s->high = high ? s->unit : 0;
}

static void in_string(JsonScan *s, uint8_t c)
{
    /* What follows a high surrogate must be an escape. */
    if (s->high && c != '\\') {
        note_bad(s, "\\u%04x is not a valid Unicode character", s->high);
        s->high = 0;
    }
    if (c == '\\')
        s->state = STATE_ESCAPE;
    else if (c == '"')
        s->state = STATE_START;
}

static void in_escape(JsonScan *s, uint8_t c)
{
    if (c == 'u') {
        s->state = STATE_HEX;
        s->digits = 0;
        s->unit = 0;
        return;
    }
    if (!c || !strchr("\"\\/bfnrt", c))
        note_bad(s, "invalid escape sequence '\\%c'", g_ascii_isprint(c) ? c : '?');
    if (s->high)
        note_bad(s, "\\u%04x is not a valid Unicode character", s->high);
    s->high = 0;
    s->state = STATE_STRING;
}

static void in_hex(JsonScan *s, uint8_t c)
{
    if (!g_ascii_isxdigit(c)) {
        note_bad(s, "invalid hex escape in string");
        s->high = 0;
        s->state = c == '"' ? STATE_START : STATE_STRING;
        return;
    }
    s->unit = s->unit << 4 | (uint32_t)g_ascii_xdigit_value((char)c);
    if (++s->digits == 4)
        end_escape(s);
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* A byte between words. */
static JsonScanResult in_start(JsonScan *s, uint8_t c)
{
    if (is_space(c)) {
        if (s->depth)
            g_string_append_c(s->text, (char)c);
        return JSON_SCAN_MORE;
    }
    s->word = s->text->len;
    if (!c || (!strchr("{}[]:,\"-", c) && !g_ascii_isalnum(c)))
        return stray(s, c);
    g_string_append_c(s->text, (char)c);
    if (g_ascii_isalpha(c)) {
        s->state = STATE_WORD;
        return JSON_SCAN_MORE;
    }
    if (c == '-' || g_ascii_isdigit(c)) {
        s->state = STATE_NUMBER;
        return JSON_SCAN_MORE;
    }
    check_order(s, c == '"' ? 's' : (char)c);
    if (c == '"') {
        s->state = STATE_STRING;
    } else if (c == '{' || c == '[') {
        if (s->depth == JSON_SCAN_DEPTH)
            return fail(s, JSON_SCAN_ERROR, "JSON nesting depth limit exceeded");
        s->open[s->depth++] = (char)c;
        s->expect = c == '{' ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END;
    } else if (!s->depth) { /* : , ] } with nothing open */
        return whole(s);
    } else if (c == '}' || c == ']') {
        s->expect = EXPECT_COMMA_OR_END;
        if (!--s->depth)
            return whole(s);
    }
    return JSON_SCAN_MORE;
}

static bool in_word(const JsonScan *s, uint8_t c)
{
    if (s->state == STATE_NUMBER)
        return g_ascii_isalnum(c) || c == '.' || c == '+' || c == '-';
    return g_ascii_isalnum(c);
}

/* One byte; *@ret_taken false: hand it in again. */
static JsonScanResult step(JsonScan *s, uint8_t c, bool *ret_taken)
{
    *ret_taken = true;
    if (s->state == STATE_RECOVER) {
        if (c >= 0x20 && c < 0xfe && !strchr("{}[]:,", c))
            return JSON_SCAN_MORE;
        s->state = STATE_START;
    }
    switch (s->state) {
    case STATE_WORD:
    case STATE_NUMBER:
        if (in_word(s, c)) {
            g_string_append_c(s->text, (char)c);
            return JSON_SCAN_MORE;
        }
        end_word(s);
        *ret_taken = false;
        return s->depth ? JSON_SCAN_MORE : whole(s);
    case STATE_STRING:
    case STATE_ESCAPE:
    case STATE_HEX:
        if (c < 0x20 || c >= 0xfe)
            return stray(s, c);
        g_string_append_c(s->text, (char)c);
        if (s->state == STATE_STRING)
            in_string(s, c);
        else if (s->state == STATE_ESCAPE)
            in_escape(s, c);
        else
            in_hex(s, c);
        return s->state == STATE_START && !s->depth ? whole(s) : JSON_SCAN_MORE;
    case STATE_START:
    case STATE_RECOVER:
        break;
    }
    return in_start(s, c);
}

JsonScanResult json_scan_feed(JsonScan *s, const uint8_t *data, size_t len, size_t *ret_used)
{
    JsonScanResult result = JSON_SCAN_MORE;
    size_t used = 0;
    if (s->told) {
        g_string_truncate(s->text, 0);
        s->told = false;
    }
    while (result == JSON_SCAN_MORE && used < len) {
        bool taken;
        if (s->text->len >= JSON_SCAN_BYTES) {
            s->state = STATE_START;
            result = fail(s, JSON_SCAN_LIMIT, "JSON token size limit exceeded");
            break;
        }
        result = step(s, data[used], &taken);
        used += taken;
    }
    *ret_used = used;
    return result;
}
