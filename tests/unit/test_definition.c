/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The definition of a machine: its text both ways, and how it is replaced. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/error.h"

#include "definition.h"
#include "registry.h"

static void test_round(void)
{
    static const char expect[] = "lodge machine 1\nfolder /a\\\\b\\nc\n--kernel=k\n"
                                 "--append=x\\ny\\\\\n--firmware\n--append=\n";
    g_autoptr(GError) error = NULL;
    g_autoptr(Definition) d = definition_new("/a\\b\nc");
    definition_add(d, "kernel", "k");
    definition_add(d, "append", "x\ny\\");
    definition_add(d, "firmware", NULL);
    definition_add(d, "append", "");
    g_autofree char *text = definition_format(d);
    g_assert_cmpstr(text, ==, expect);
    g_autoptr(Definition) again = definition_parse(text, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(again->folder, ==, d->folder);
    g_assert_cmpuint(again->words->len, ==, 4);
    for (unsigned i = 0; i < 4; i++)
        g_assert_cmpstr(g_ptr_array_index(again->words, i), ==, g_ptr_array_index(d->words, i));
    g_assert_false(definition_remove(again, "app"));
    g_assert_true(definition_remove(again, "append"));
    g_assert_true(definition_remove(again, "firmware"));
    g_assert_false(definition_remove(again, "firmware"));
    g_assert_cmpuint(again->words->len, ==, 1);
    definition_free(NULL);
}

static void test_wrong(void)
{
    static const struct {
        const char *text;
        LodgeError code;
        const char *says;
    } rows[] = {
        {"", LODGE_ERROR_IMAGE, "line 1"},
        {"lodge machine\nfolder /\n", LODGE_ERROR_IMAGE, "line 1"},
        {"lodge machine 2\nfolder /\n", LODGE_ERROR_UNSUPPORTED, "another version"},
        {"lodge machine 1\n", LODGE_ERROR_IMAGE, "no folder"},
        {"lodge machine 1\nfolder relative\n", LODGE_ERROR_IMAGE, "line 2: the folder is no abs"},
        {"lodge machine 1\nfolder /\nfolder /\n", LODGE_ERROR_IMAGE, "line 3: the folder is given"},
        {"lodge machine 1\nfolder /\n-x\n", LODGE_ERROR_IMAGE, "line 3: is no option"},
        {"lodge machine 1\nfolder /\n--\n", LODGE_ERROR_IMAGE, "line 3: is no option"},
        {"lodge machine 1\nfolder /\n--=\n", LODGE_ERROR_IMAGE, "line 3: is no option"},
        {"lodge machine 1\n#\n\nfolder /\n--a=\\\n", LODGE_ERROR_IMAGE, "line 5: a backslash"},
        {"lodge machine 1\nfolder /\n--a=\\t\n", LODGE_ERROR_IMAGE, "line 3: a backslash"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(definition_parse(rows[i].text, &error));
        g_assert_error(error, LODGE_ERROR, (int)rows[i].code);
        g_assert_nonnull(strstr(error->message, rows[i].says));
    }
    g_autoptr(GString) many = g_string_new("lodge machine 1\nfolder /\n");
    for (unsigned i = 0; i < 1025; i++)
        g_string_append(many, "--a\n");
    g_autoptr(GError) error = NULL;
    g_assert_null(definition_parse(many->str, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
}

static unsigned entries(const char *path)
{
    g_autoptr(GDir) d = g_dir_open(path, 0, NULL);
    unsigned n = 0;
    while (d && g_dir_read_name(d))
        n++;
    return n;
}

static void test_file(void)
{
    g_autofree char *top = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    g_autofree char *dir = g_build_filename(top, "lodge", "vm", NULL);
    g_autofree char *path = g_build_filename(dir, DEFINITION_FILE, NULL);
    g_autoptr(GError) error = NULL;
    struct stat st;
    g_setenv("XDG_STATE_HOME", top, TRUE);
    g_assert_null(definition_load("vm", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND);
    g_clear_error(&error);
    g_assert_null(definition_load("v/m", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    g_autoptr(Definition) d = definition_new("/");
    definition_add(d, "memory", "1G");
    g_assert_false(definition_save(d, dir, &error)); /* no folder */
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_clear_error(&error);
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_true(definition_save(d, dir, &error));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmphex(st.st_mode & 0777, ==, 0600);
    g_autoptr(Definition) loaded = definition_load("vm", &error);
    g_assert_no_error(error);
    g_assert_cmpstr(g_ptr_array_index(loaded->words, 0), ==, "--memory=1G");
    /* One that is too large leaves the old one there, and nothing beside it. */
    g_autofree char *long_text = g_strnfill(DEFINITION_BYTES_MAX, 'x');
    definition_add(d, "append", long_text);
    g_assert_false(definition_save(d, dir, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    g_assert_cmpuint(entries(dir), ==, 1);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, <, 100);
    /* Nothing but a plain file of some length is read. */
    g_assert_true(g_file_set_contents(path, long_text, -1, NULL));
    g_assert_null(definition_load("vm", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
    g_clear_error(&error);
    g_autofree char *longer = g_strnfill(DEFINITION_BYTES_MAX + 1, 'x');
    g_assert_true(g_file_set_contents(path, longer, -1, NULL));
    g_assert_null(definition_load("vm", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_clear_error(&error);
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    g_assert_null(definition_load("vm", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_clear_error(&error);
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_cmpint(symlink("/etc/passwd", path), ==, 0);
    g_assert_null(definition_load("vm", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_assert_cmpint(unlink(path), ==, 0);
    g_autofree char *middle = g_path_get_dirname(dir);
    g_assert_cmpint(rmdir(dir) | rmdir(middle) | rmdir(top), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/definition/round", test_round);
    g_test_add_func("/definition/wrong", test_wrong);
    g_test_add_func("/definition/file", test_file);
    return g_test_run();
}
