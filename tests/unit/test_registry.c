/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of machines: what is a name, who has it, what is left behind, where the folders are. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/error.h"
#include "registry.h"

typedef struct Fixture {
    char *dir, *run; /* of this test; XDG_RUNTIME_DIR */
} Fixture;

static void setup(Fixture *f, gconstpointer unused)
{
    f->dir = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    f->run = g_build_filename(f->dir, "run", NULL);
    g_assert_cmpint(g_mkdir(f->run, 0700), ==, 0);
    g_setenv("XDG_RUNTIME_DIR", f->run, TRUE);
    g_autofree char *state = g_build_filename(f->dir, "state", NULL);
    g_setenv("XDG_STATE_HOME", state, TRUE);
}

static unsigned entries(const char *path)
{
    g_autoptr(GDir) d = g_dir_open(path, 0, NULL);
    unsigned n = 0;
    while (d && g_dir_read_name(d))
        n++;
    return n;
}

static void teardown(Fixture *f, gconstpointer unused)
{
    const char *argv[] = {"rm", "-r", f->dir, NULL};
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL,
                               NULL, NULL, NULL));
    g_free(f->dir);
    g_free(f->run);
}

static void test_names(Fixture *f, gconstpointer unused)
{
    static const char *const good[] = {"a", "0", "web-1.lab_2", "Z..", "a-"};
    static const char *const bad[] = {"", ".", "..", "-a", "_a", "a/b", "a b", "a\n", "caf\xc3\xa9",
                                      "../a", "a:b"};
    g_autofree char *max = g_strnfill(63, 'x'), *over = g_strnfill(64, 'x');
    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++)
        g_assert_true(registry_name_ok(good[i]));
    g_assert_true(registry_name_ok(max));
    g_assert_false(registry_name_ok(over));
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(registry_name_ok(bad[i]));
        g_assert_null(registry_claim(bad[i], REGISTRY_LASTING, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    }
    g_assert_cmpuint(entries(f->run), ==, 0);
}

static void test_claim(Fixture *f, gconstpointer unused)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *where = g_build_filename(f->run, "lodge", "vm1", NULL);
    g_autofree char *pid = g_strdup_printf("pid %d", (int)getpid());
    struct stat st;
    Registry *r = registry_claim("vm1", REGISTRY_LASTING, &error), *other;
    g_assert_no_error(error);
    g_assert_cmpstr(registry_run_dir(r), ==, where);
    g_assert_cmpint(stat(where, &st), ==, 0);
    g_assert_cmphex(st.st_mode & 0777, ==, 0700);
    g_assert_null(registry_claim("vm1", REGISTRY_LASTING, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_assert_nonnull(strstr(error->message, "vm1"));
    g_assert_nonnull(strstr(error->message, pid));
    /* Another name is free meanwhile, and the refusal has taken nothing away. */
    other = registry_claim("vm2", REGISTRY_LASTING, NULL);
    g_assert_nonnull(other);
    g_assert_cmpint(stat(where, &st), ==, 0);
    registry_release(r);
    g_assert_cmpint(stat(where, &st), <, 0);
    r = registry_claim("vm1", REGISTRY_LASTING, NULL);
    g_assert_nonnull(r);
    registry_release(r);
    registry_release(other);
    registry_release(NULL);
    g_assert_cmpuint(entries(f->run), ==, 0);
}

/* Where a machine of that name runs; and whether there ever was one. */
static void test_locate(Fixture *f, gconstpointer unused)
{
    g_autoptr(GError) error = NULL;
    g_assert_null(registry_locate("vm1", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND);
    g_clear_error(&error);
    Registry *r = registry_claim("vm1", REGISTRY_LASTING, NULL);
    g_autofree char *dir = registry_locate("vm1", &error);
    g_assert_no_error(error);
    g_assert_cmpstr(dir, ==, registry_run_dir(r));
    registry_release(r);
    g_assert_null(registry_locate("vm1", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_STATE);
    g_clear_error(&error);
    g_assert_null(registry_locate("../vm1", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
}

/* A machine that was killed hinders nobody. */
static void test_killed(Fixture *f, gconstpointer unused)
{
    int ready[2], status;
    char byte;
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(pipe(ready), ==, 0);
    pid_t child = fork();
    if (!child) {
        char c = registry_claim("vm1", REGISTRY_LASTING, NULL) ? '+' : '-';
        if (write(ready[1], &c, 1) == 1)
            pause();
        _exit(1);
    }
    g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
    g_assert_cmpint(byte, ==, '+');
    g_assert_null(registry_claim("vm1", REGISTRY_LASTING, &error));
    g_autofree char *pid = g_strdup_printf("pid %d)", (int)child);
    g_assert_nonnull(strstr(error->message, pid));
    kill(child, SIGKILL);
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_cmpuint(entries(f->run), ==, 1); /* what it left */
    g_autofree char *half = g_build_filename(f->run, "lodge", "vm1", "status.new", NULL);
    g_autofree char *half_pid = g_build_filename(f->run, "lodge", "vm1", "pid.new", NULL);
    g_assert_true(g_file_set_contents(half, "x", 1, NULL));
    g_assert_true(g_file_set_contents(half_pid, "x", 1, NULL));
    Registry *r = registry_claim("vm1", REGISTRY_LASTING, NULL);
    g_assert_nonnull(r);
    registry_release(r);
    g_assert_cmpuint(entries(f->run), ==, 0);
    close(ready[0]);
    close(ready[1]);
}

/* A folder that others can write, or a link in its place, is not trusted. */
static void test_untrusted(Fixture *f, gconstpointer unused)
{
    g_autofree char *root = g_build_filename(f->run, "lodge", NULL);
    g_autoptr(GError) error = NULL, second = NULL;
    g_assert_cmpint(g_mkdir(root, 0700), ==, 0);
    g_assert_cmpint(chmod(root, 0777), ==, 0);
    g_assert_null(registry_claim("vm1", REGISTRY_LASTING, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_assert_cmpint(rmdir(root), ==, 0);
    g_assert_cmpint(symlink(f->dir, root), ==, 0);
    g_assert_null(registry_claim("vm1", REGISTRY_LASTING, &second));
    g_assert_error(second, LODGE_ERROR, LODGE_ERROR_HOST);
    g_assert_nonnull(strstr(second->message, root));
    g_assert_cmpint(unlink(root), ==, 0);
}

/* A lock that cannot be taken is an error that names it. */
static void test_failed(Fixture *f, gconstpointer unused)
{
    g_autofree char *dir = g_build_filename(f->run, "lodge", "vm1", NULL);
    g_autofree char *lock = g_build_filename(dir, "lock", NULL);
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_cmpint(symlink("/nonexistent", lock), ==, 0);
    g_assert_null(registry_claim("vm1", REGISTRY_LASTING, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_assert_nonnull(strstr(error->message, lock));
}

static void test_fallbacks(Fixture *f, gconstpointer unused)
{
    g_autofree char *tmp = g_strdup_printf("/tmp/lodge-%u", (unsigned)geteuid());
    const char *expect = geteuid() ? tmp : "/run/lodge";
    g_autofree char *name = g_strdup_printf("test-%d", (int)getpid());
    static const char *const values[] = {NULL, "relative", ""};
    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        g_autoptr(GError) error = NULL;
        if (values[i])
            g_setenv("XDG_RUNTIME_DIR", values[i], TRUE);
        else
            g_unsetenv("XDG_RUNTIME_DIR");
        bool there = g_file_test(expect, G_FILE_TEST_EXISTS);
        Registry *r = registry_claim(name, REGISTRY_LASTING, &error);
        if (!r && !geteuid() && error->code == LODGE_ERROR_HOST) {
            g_test_skip("/run cannot be written");
            return;
        }
        g_assert_no_error(error);
        g_assert_true(g_str_has_prefix(registry_run_dir(r), expect));
        registry_release(r);
        g_assert_true(there || !g_file_test(expect, G_FILE_TEST_EXISTS));
    }
}

static void test_logs(Fixture *f, gconstpointer unused)
{
    g_autofree char *named = g_build_filename(f->dir, "state", "lodge", "vm1", "console.log", NULL);
    g_autofree char *shared = g_build_filename(f->dir, "state", "lodge", ".unnamed", NULL);
    g_autofree char *nowhere = g_build_filename(f->dir, "file", NULL);
    Registry *r = registry_claim("vm1", REGISTRY_LASTING, NULL);
    g_assert_cmpstr(registry_console_log(r), ==, named);
    registry_release(r);
    for (unsigned i = 0; i < 14; i++) {
        g_autofree char *name = g_strdup_printf("vm-%u", i);
        r = registry_claim(name, REGISTRY_SHARED, NULL);
        g_assert_true(g_str_has_prefix(registry_console_log(r), shared));
        g_assert_true(g_file_set_contents(registry_console_log(r), "x", 1, NULL));
        registry_release(r);
    }
    g_assert_cmpuint(entries(shared), <=, 11); /* ten, and the newest */
    /* No place for logs: the machine runs all the same. */
    g_assert_true(g_file_set_contents(nowhere, "", 0, NULL));
    g_setenv("XDG_STATE_HOME", nowhere, TRUE);
    r = registry_claim("vm1", REGISTRY_LASTING, NULL);
    g_assert_nonnull(r);
    g_assert_null(registry_console_log(r));
    registry_release(r);
}

/* Who looks sees machines that run, of whatever process, and those that are defined; and takes no
 * lock away from anybody. */
static void test_list(Fixture *f, gconstpointer unused)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *dir = g_build_filename(f->dir, "state", "lodge", "asleep", NULL);
    g_autofree char *file = g_build_filename(dir, DEFINITION_FILE, NULL);
    char *forwards[] = {(char *)":1->2/tcp", NULL};
    MachineStatus s = {MACHINE_STATUS_PAUSED, 7, 2, 4096, 5, (char *)"/log", forwards};
    g_autoptr(GPtrArray) none = registry_list(&error);
    g_assert_no_error(error);
    g_assert_cmpuint(none->len, ==, 0);
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(file, "", 0, NULL));
    Registry *r = registry_claim("up", REGISTRY_NOTHING, &error);
    g_assert_null(registry_lasting_dir(r));
    g_autoptr(GPtrArray) list = registry_list(&error);
    g_assert_cmpuint(list->len, ==, 2);
    const MachineLook *asleep = g_ptr_array_index(list, 0), *up = g_ptr_array_index(list, 1);
    g_assert_cmpstr(asleep->name, ==, "asleep");
    g_assert_true(asleep->defined && !asleep->running && !asleep->status);
    g_assert_cmpstr(up->name, ==, "up");
    g_assert_true(!up->defined && up->running);
    g_assert_cmpint(up->status->state, ==, MACHINE_STATUS_STARTING);
    g_assert_cmpint(up->status->pid, ==, getpid());
    g_assert_true(registry_set_status(r, &s, &error));
    g_autoptr(MachineLook) l = registry_look("up", &error);
    g_assert_no_error(error);
    g_assert_cmpint(l->status->state, ==, MACHINE_STATUS_PAUSED);
    g_assert_cmpint(l->status->pid, ==, 7);
    g_assert_cmpstr(l->status->forwards[0], ==, ":1->2/tcp");
    g_assert_null(registry_look("nobody", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND);
    g_clear_error(&error);
    g_assert_null(registry_look("../up", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    registry_release(r);
    g_assert_cmpuint(entries(f->run), ==, 0);
    g_autoptr(GPtrArray) after = registry_list(NULL);
    g_assert_cmpuint(after->len, ==, 1);
}

/* Nobody believes a folder that others can write. */
static void test_list_untrusted(Fixture *f, gconstpointer unused)
{
    g_autofree char *root = g_build_filename(f->run, "lodge", NULL);
    g_autofree char *dir = g_build_filename(root, "vm1", NULL);
    const char *const paths[] = {root, dir};
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(GError) look = NULL, locate = NULL;
        g_assert_cmpint(chmod(paths[i], 0777), ==, 0);
        g_assert_null(registry_look("vm1", &look));
        g_assert_error(look, LODGE_ERROR, LODGE_ERROR_HOST);
        g_assert_null(registry_locate("vm1", &locate));
        g_assert_error(locate, LODGE_ERROR, LODGE_ERROR_HOST);
        g_assert_true(i || !registry_list(NULL));
        g_assert_cmpint(chmod(paths[i], 0700), ==, 0);
    }
}

static void test_holder(Fixture *f, gconstpointer unused)
{
    g_autofree char *image = g_build_filename(f->dir, "image", NULL);
    int ready[2], status;
    char byte;
    struct stat st;
    g_assert_true(g_file_set_contents(image, "x", 1, NULL));
    g_assert_cmpint(stat(image, &st), ==, 0);
    g_assert_null(registry_find_holder(st.st_dev, st.st_ino));
    g_assert_cmpint(pipe(ready), ==, 0);
    pid_t child = fork();
    if (!child) {
        FILE *held = fopen(image, "r");
        Registry *r = registry_claim("vm1", REGISTRY_LASTING, NULL);
        if (held && r && write(ready[1], "+", 1) == 1)
            pause();
        _exit(1);
    }
    g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
    g_autofree char *who = registry_find_holder(st.st_dev, st.st_ino);
    g_assert_cmpstr(who, ==, "vm1");
    g_assert_null(registry_find_holder(st.st_dev, st.st_ino + 1));
    kill(child, SIGKILL);
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_null(registry_find_holder(st.st_dev, st.st_ino));
    close(ready[0]);
    close(ready[1]);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*fn)(Fixture *f, gconstpointer data);
    } tests[] = {
        {"/registry/names", test_names},         {"/registry/claim", test_claim},
        {"/registry/locate", test_locate},
        {"/registry/killed", test_killed},       {"/registry/untrusted", test_untrusted},
        {"/registry/failed", test_failed},       {"/registry/fallbacks", test_fallbacks},
        {"/registry/logs", test_logs},           {"/registry/holder", test_holder},
        {"/registry/list", test_list},           {"/registry/list/untrusted", test_list_untrusted},
    };
    g_test_init(&argc, &argv, NULL);
    for (gsize i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, Fixture, NULL, setup, tests[i].fn, teardown);
    return g_test_run();
}
