/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A reader of a console log follows it through its rotations, and loses nothing. */
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/console_log.h"
#include "lodge/error.h"

#include "log_reader.h"
#include "machines.h"

static void append(ConsoleLog *log, const char *text)
{
    console_log_append(log, (const uint8_t *)text, strlen(text));
}

static void take_all(LogReader *r, GString *out)
{
    g_string_truncate(out, 0);
    while (log_reader_take(r, out))
        continue;
}

static void test_rotation(void)
{
    g_autofree char *top = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    g_setenv("XDG_STATE_HOME", top, TRUE);
    g_autofree char *path = registry_log_path("vm", true), *dir = g_path_get_dirname(path);
    g_autofree char *old = g_strconcat(path, ".1", NULL), *much = g_strnfill(4000, 'x');
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) got = g_string_new(NULL);
    MachineStatus status = {.log = path};
    MachineLook look = {.name = (char *)"vm", .running = true, .status = &status};
    g_assert_null(log_reader_open(&look, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND);
    g_clear_error(&error);
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_autoptr(ConsoleLog) log = console_log_open(path, 4096, &error);
    append(log, "one\n");
    g_autoptr(LogReader) r = log_reader_open(&look, &error);
    g_assert_no_error(error);
    take_all(r, got);
    g_assert_cmpstr(got->str, ==, "one\n");
    g_assert_false(log_reader_take(r, got));
    append(log, much); /* fills the file but for 92 bytes */
    append(log, much); /* the rest goes into a new one */
    append(log, "two\n");
    take_all(r, got);
    g_assert_cmpuint(got->len, ==, 8004);
    g_assert_true(g_str_has_suffix(got->str, "xtwo\n"));
    append(log, "three\n");
    take_all(r, got);
    g_assert_cmpstr(got->str, ==, "three\n");
    /* The log of one that does not run is found by its name. */
    look.running = false;
    g_autoptr(LogReader) later = log_reader_open(&look, &error);
    g_assert_no_error(error);
    take_all(later, got);
    g_assert_true(g_str_has_suffix(got->str, "two\nthree\n"));
    /* One that keeps none. */
    look.running = true;
    status.log = NULL;
    g_assert_null(log_reader_open(&look, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND);
    g_autofree char *middle = g_path_get_dirname(dir);
    g_assert_cmpint(g_unlink(path) | g_unlink(old), ==, 0);
    g_assert_cmpint(rmdir(dir) | rmdir(middle) | rmdir(top), ==, 0);
}

static void test_texts(void)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } sizes[] = {
        {0, "0K"},          {1024, "1K"},          {1536, "1.5K"},     {10 * 1024 + 512, "10K"},
        {1 << 20, "1M"},    {UINT64_C(5) << 29, "2.5G"}, {UINT64_C(3) << 40, "3T"},
        {UINT64_C(1) << 60, "1048576T"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree char *text = machines_size(sizes[i].bytes);
        g_assert_cmpstr(text, ==, sizes[i].text);
    }
    g_autofree char *time = machines_time(0, true);
    g_assert_cmpstr(time, ==, "1970-01-01T00:00:00Z");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/log_reader/rotation", test_rotation);
    g_test_add_func("/machines/texts", test_texts);
    return g_test_run();
}
