/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a stream of the control socket is cut into JSON values (the texts are those of QEMU 7.2), and
 * what is printed of them. */
#include <string.h>

#include "json_in.h"
#include "json_scan.h"

/* All that a stream is cut into, one a line, ! before errors; fed @step bytes at a time. */
static char *cut(const char *data, size_t len, size_t step)
{
    g_autoptr(JsonScan) s = json_scan_new();
    GString *out = g_string_new(NULL);
    size_t at = 0;
    while (at < len) {
        size_t used;
        JsonScanResult r =
            json_scan_feed(s, (const uint8_t *)data + at, MIN(step, len - at), &used);
        g_assert_cmpuint(used, <=, MIN(step, len - at));
        at += used;
        if (r == JSON_SCAN_VALUE)
            g_string_append_printf(out, "%s\n", json_scan_text(s));
        else if (r != JSON_SCAN_MORE)
            g_string_append_printf(out, "!%s\n", json_scan_text(s));
        if (r == JSON_SCAN_LIMIT)
            break;
    }
    return g_string_free(out, FALSE);
}

#define PARSE "!JSON parse error, "

static void test_cut(void)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"", ""},
        {" \r\n\t", ""},
        {"{}", "{}\n"},
        {"{}{}", "{}\n{}\n"},
        {" { \"a\" : [ 1 , -2.5e+3 , true, false, null ] } ", 
         "{ \"a\" : [ 1 , -2.5e+3 , true, false, null ] }\n"},
        {"{\"a\": \"}{][\\\"\"}{\"b\":{}}", "{\"a\": \"}{][\\\"\"}\n{\"b\":{}}\n"},
        {"{\"a\":", ""},
        {"1 2 \"s\"", "1\n2\n\"s\"\n"},
        {"[]", "[]\n"},
        {"]", PARSE "expecting value\n"},
        {"{]", PARSE "expecting value\n"},
        {"{\"a\" \"b\"}", PARSE "missing : in object pair\n"},
        {"{\"a\":}", PARSE "expecting value\n"},
        {"{\"a\":1,}", PARSE "expecting value\n"},
        {"{\"a\":1 \"b\":2}", PARSE "expected separator in dict\n"},
        {"[1 2]", PARSE "expected separator in list\n"},
        {"[1,]", PARSE "expecting value\n"},
        {"{1:2}", PARSE "key is not a string in object\n"},
        {"garbage garbage\n",
         PARSE "invalid keyword 'garbage'\n" PARSE "invalid keyword 'garbage'\n"},
        {"{\"a\":tru}{}", PARSE "invalid keyword 'tru'\n{}\n"},
        {"\xff", PARSE "stray '\xef\xbf\xbd'\n"},
        {"{\"a\":\xff{}", PARSE "stray '\xef\xbf\xbd'\n{}\n"},
        {"$$$$ $$\n$", PARSE "stray '$'\n" PARSE "stray '$'\n"},
        {"$ noise {}", PARSE "stray '$'\n{}\n"},
        {"\"a\x01", PARSE "stray '\"a\x01'\n"},
        {"[01]", PARSE "invalid number '01'\n"},
        {"[-]", PARSE "invalid number '-'\n"},
        {"[1.]", PARSE "invalid number '1.'\n"},
        {"[1e]", PARSE "invalid number '1e'\n"},
        {"[0x10]", PARSE "invalid number '0x10'\n"},
        {"[9223372036854775807,-9223372036854775808]",
         "[9223372036854775807,-9223372036854775808]\n"},
        {"[9223372036854775808]", PARSE "number '9223372036854775808' is out of range\n"},
        {"[\"\\ud83d\\ude00\"]", "[\"\\ud83d\\ude00\"]\n"},
        {"[\"\\ud800\"]", PARSE "\\ud800 is not a valid Unicode character\n"},
        {"[\"\\ud800x\"]", PARSE "\\ud800 is not a valid Unicode character\n"},
        {"[\"\\ud800\\n\"]", PARSE "\\ud800 is not a valid Unicode character\n"},
        {"[\"\\ud800\\ud800\"]", PARSE "\\ud800 is not a valid Unicode character\n"},
        {"[\"\\ud800\\u0041\"]", PARSE "\\ud800 is not a valid Unicode character\n"},
        {"[\"\\udc00\\udc00\"]", PARSE "\\udc00 is not a valid Unicode character\n"},
        {"[\"\\u0000\"]", PARSE "\\u0000 is not a valid Unicode character\n"},
        {"[\"\\x\"]", PARSE "invalid escape sequence '\\x'\n"},
        {"[\"\\u12\"]{}", PARSE "invalid hex escape in string\n{}\n"},
        {"[\"\xc3(\"]", PARSE "invalid UTF-8 sequence in string\n"},
        {"[\"\xc3\xa9\"]", "[\"\xc3\xa9\"]\n"},
        {"'a'", PARSE "stray '''\n"},
        {"/* */{}", PARSE "stray '/'\n{}\n"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (size_t step = 1; step < 9; step += 7) {
            g_autofree char *got = cut(cases[i].in, strlen(cases[i].in), step);
            g_autofree char *got_all = cut(cases[i].in, strlen(cases[i].in), SIZE_MAX);
            g_assert_cmpstr(got, ==, cases[i].out);
            g_assert_cmpstr(got_all, ==, cases[i].out);
        }
    }
    g_autofree char *nul = cut("\0{}", 3, SIZE_MAX);
    g_assert_cmpstr(nul, ==, PARSE "stray ''\n{}\n");
}

static void test_limits(void)
{
    g_autofree char *deep = g_strnfill(JSON_SCAN_DEPTH, '[');
    g_autofree char *end = g_strnfill(JSON_SCAN_DEPTH, ']');
    g_autofree char *fits = g_strconcat(deep, end, NULL), *line = g_strconcat(fits, "\n", NULL);
    g_autofree char *over = g_strconcat(deep, "[", NULL);
    g_autofree char *endless = g_strnfill(JSON_SCAN_BYTES, 'x');
    g_autofree char *got = cut(fits, strlen(fits), SIZE_MAX);
    g_assert_cmpstr(got, ==, line);
    g_autofree char *refused = cut(over, strlen(over), SIZE_MAX);
    g_assert_cmpstr(refused, ==, "!JSON nesting depth limit exceeded\n");
    g_autofree char *huge = g_strconcat("[\"", endless, NULL);
    g_autofree char *too_long = cut(huge, strlen(huge), 4096);
    g_assert_cmpstr(too_long, ==, "!JSON token size limit exceeded\n");
    /* What passes can be read and printed, whatever its depth. */
    g_autoptr(GError) error = NULL;
    g_autoptr(Json) json = json_load(&error);
    g_assert_no_error(error);
    g_auto(Jv) v = jv_parse(json, fits, &error);
    g_assert_no_error(error);
    g_autoptr(JsonOut) out = json_out_new_line();
    jv_print(v, out, NULL);
    g_assert_true(g_str_has_prefix(json_text(out), deep));
}

static void test_print(void)
{
    static const char in[] = "{\"a\": [1, -2, 2.5, 1000000.0, null, true, false, {}, []], "
                             "\"\\u00e9\": \"q\\\"\\\\ "
                             "/\\n\\t\\r\\u0001\\u007f\xe2\x82\xac\xf0\x9f\x98\x80<>\"}";
    static const char out[] = "{\"a\": [1, -2, 2.5, 1000000, null, true, false, {}, []], "
                              "\"\\u00E9\": \"q\\\"\\\\ "
                              "/\\n\\t\\r\\u0001\\u007F\\u20AC\\uD83D\\uDE00<>\"}\r\n";
    g_autoptr(GError) error = NULL;
    g_autoptr(Json) json = json_load(&error);
    g_auto(Jv) v = jv_parse(json, in, &error);
    g_autoptr(JsonOut) j = json_out_new_line();
    g_assert_no_error(error);
    jv_print(v, j, NULL);
    g_assert_false(json_is_lossy(j));
    g_assert_cmpstr(json_text(j), ==, out);
    g_assert_cmpint(jv_kind(jv_get(v, "b")), ==, JV_ABSENT);
    g_assert_cmpint(jv_int(jv_at(jv_get(v, "a"), 1)), ==, -2);
    g_assert_cmpint(jv_int(jv_at(jv_get(v, "a"), 3)), ==, 1000000);
    g_assert_cmpint(jv_kind(jv_at(jv_get(v, "a"), 9)), ==, JV_ABSENT);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json/cut", test_cut);
    g_test_add_func("/json/limits", test_limits);
    g_test_add_func("/json/print", test_print);
    return g_test_run();
}
