/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line's grammar, exit statuses, and the JSON writer. */
#include <string.h>

#include "cli.h"
#include "lodge/json_out.h"
#include "lodge/error.h"
#include "options.h"

static const SubSpec disk_subs[] = {
    {"file", "FILE", ""},      {"ro", NULL, ""}, {"cache", "none|unsafe", ""},
    {"tag", "TEXT", "", true}, {NULL},
};

static const OptSpec table[] = {
    {"disk", 0, "FILE", "", disk_subs, OPT_REPEAT},
    {"open", 0, "FILE", "", disk_subs, OPT_OPEN},
    {"memory", 'm', "SIZE", ""},
    {"publish", 'p', "RULE", "", NULL, OPT_REPEAT},
    {"detach", 'd', NULL, ""},
    {"share", 0, "DIR", "", NULL, OPT_REFUSED},
    {NULL},
};

static Options *parse(GError **error, const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", -1);
    /* The result borrows the words: keep them for the life of the test program. */
    char **kept = g_new0(char *, g_strv_length(words) + 1);
    int n = 0;

    for (; words[n]; n++)
        kept[n] = (char *)g_intern_string(words[n]);
    Options *o = options_parse(table, n, kept, 1, error);
    if (!o || !o->command)
        g_free(kept);
    return o;
}

static void test_good(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o =
        parse(&error, "name --disk a.img,ro,cache=none --disk=b,,c.img,tag=1,tag=2 -m 1G "
                      "-p80:80 --detach --disk /x=y/z");
    const OptValue *v;

    g_assert_no_error(error);
    g_assert_cmpuint(o->args->len, ==, 1);
    v = options_next(o, "disk", NULL);
    g_assert_cmpstr(opt_sub(v, "file"), ==, "a.img");
    g_assert_true(opt_sub_on(v, "ro"));
    g_assert_cmpstr(opt_sub(v, "cache"), ==, "none");
    v = options_next(o, "disk", v);
    g_assert_cmpstr(opt_sub(v, "file"), ==, "b,c.img");
    g_assert_false(opt_sub_on(v, "ro"));
    v = options_next(o, "disk", v);
    g_assert_cmpstr(opt_sub(v, "file"), ==, "/x=y/z");
    g_assert_null(options_next(o, "disk", v));
    g_assert_cmpstr(options_text(o, "memory"), ==, "1G");
    g_assert_cmpstr(options_text(o, "publish"), ==, "80:80");
    g_assert_true(options_has(o, "detach"));
    g_assert_null(o->command);
}

static void test_command(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = parse(&error, "--detach -- ls --help -m");

    g_assert_no_error(error);
    g_assert_cmpint(o->command_len, ==, 3);
    g_assert_cmpstr(o->command[1], ==, "--help");
    g_free(o->command - 2);
}

static const struct {
    const char *line, *says;
} wrong[] = {
    {"--dsik a", "did you mean --disk?"},
    {"--detahc", "did you mean --detach?"},
    {"--xyzzy", "see --help"},
    {"--sharee x", "see --help"}, /* what is refused is not suggested */
    {"-x", "-x: unknown option"},
    {"--memory", "needs a value"},
    {"--detach=1", "takes no value"},
    {"--memory 1G -m 2G", "given twice"},
    {"--share dir", "not supported by this version"},
    {"--disk a,cashe=none", "valid ones are file, ro, cache, tag"},
    {"--disk a,cache=some", "not one of none|unsafe"},
    {"--disk a,cache", "write cache=none|unsafe"},
    {"--disk a,ro=perhaps", "neither on nor off"},
    {"--disk a,ro,ro", "given twice"},
    {"--disk=", "--disk: is empty; write --disk FILE"},
    {"--disk a,", "empty part"},
    {"--disk ,", "empty part"},
    {"one two", "one word too many"},
};

static void test_wrong(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(Options) o = parse(&error, wrong[i].line);

        if (o || !strstr(error->message, wrong[i].says))
            g_error("\"%s\": \"%s\" lacks \"%s\"", wrong[i].line, o ? "(taken)" : error->message,
                    wrong[i].says);
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    }
}

static void test_open(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = parse(&error, "--open a,other=x,flag");

    g_assert_no_error(error);
    g_assert_cmpstr(opt_sub(options_next(o, "open", NULL), "other"), ==, "x");
    g_assert_cmpstr(opt_sub(options_next(o, "open", NULL), "flag"), ==, "on");
}

static void test_help_wanted(void)
{
    const char *asks[] = {"--memory", "1G", "--help"}, *value[] = {"--memory", "--help"};
    const char *command[] = {"--", "--help"}, *letter[] = {"--bad", "-h"};

    g_assert_true(options_want_help(table, 3, (char **)asks));
    g_assert_false(options_want_help(table, 2, (char **)value));
    g_assert_false(options_want_help(table, 2, (char **)command));
    g_assert_true(options_want_help(table, 2, (char **)letter));
}

static void test_status(void)
{
    static const struct {
        LodgeError code;
        int status;
    } want[] = {{LODGE_ERROR_CONFIG, 2}, {LODGE_ERROR_NOT_FOUND, 3}, {LODGE_ERROR_EXISTS, 5},
                {LODGE_ERROR_NO_KVM, 6}, {LODGE_ERROR_HOST, 1},      {LODGE_ERROR_IMAGE, 1}};

    for (size_t i = 0; i < G_N_ELEMENTS(want); i++) {
        g_autoptr(GError) error = g_error_new_literal(LODGE_ERROR, want[i].code, "x");

        g_assert_cmpint(cli_status(error, false), ==, want[i].status);
        g_assert_cmpint(cli_status(error, true), ==, 125);
    }
}

static void test_json(void)
{
    g_autoptr(JsonOut) j = json_out_new();

    json_object(j, NULL);
    json_number(j, "schema", 1);
    json_array(j, "a");
    json_string(j, NULL, "q\"\\\n\x01");
    json_string(j, NULL, NULL);
    json_end(j);
    json_array(j, "empty");
    json_end(j);
    json_bool(j, "b", true);
    g_assert_cmpstr(
        json_text(j), ==,
        "{\n  \"schema\": 1,\n  \"a\": [\n    \"q\\\"\\\\\\n\\u0001\",\n    null\n  ],\n"
        "  \"empty\": [],\n  \"b\": true\n}\n");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options/good", test_good);
    g_test_add_func("/options/command", test_command);
    g_test_add_func("/options/wrong", test_wrong);
    g_test_add_func("/options/open", test_open);
    g_test_add_func("/options/help", test_help_wanted);
    g_test_add_func("/cli/status", test_status);
    g_test_add_func("/cli/json", test_json);
    return g_test_run();
}
