/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a machine tells of itself in files, and a service manager by a socket. */
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "machine_status.h"
#include "notify.h"
#include "vm_log.h"

static void test_status(void)
{
    char *forwards[] = {(char *)"127.0.0.1:8080->80/tcp", (char *)":53->53/udp", NULL};
    MachineStatus s = {MACHINE_STATUS_IO_ERROR, 42, 2, UINT64_MAX, 1700000000,
                       (char *)"/a b/log", forwards};
    g_autofree char *text = machine_status_format(&s);
    g_assert_cmpstr(text, ==,
                    "lodge status 1\nstate io-error\npid 42\ncpus 2\nmemory 18446744073709551615\n"
                    "since 1700000000\nlog /a b/log\nforward 127.0.0.1:8080->80/tcp\n"
                    "forward :53->53/udp\n");
    g_autoptr(MachineStatus) t = machine_status_parse(text);
    g_assert_nonnull(t);
    g_autofree char *again = machine_status_format(t);
    g_assert_cmpstr(text, ==, again);
    g_autoptr(MachineStatus) least =
        machine_status_parse("lodge status 1\nfuture x\n\nodd\npid 1\n");
    g_assert_nonnull(least);
    g_assert_cmpint(least->state, ==, MACHINE_STATUS_STARTING);
    g_assert_null(least->log);
    s.log = (char *)"/a\nforward x"; /* no line of ours */
    g_autofree char *odd = machine_status_format(&s);
    g_assert_null(strstr(odd, "log "));
}

static void test_status_wrong(void)
{
    static const char *const texts[] = {
        "", "lodge status 2\npid 1\n", "lodge status 1\n", "lodge status 1\npid 0\n",
        "lodge status 1\npid -1\n", "lodge status 1\npid 99999999999\n",
        "lodge status 1\npid 1\nstate asleep\n", "lodge status 1\npid 1\ncpus x\n",
        "lodge status 1\npid 1\nmemory 18446744073709551616\n",
        "lodge status 1\npid 1\nsince 9223372036854775808\n",
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++)
        g_assert_null(machine_status_parse(texts[i]));
    g_autoptr(GString) many = g_string_new("lodge status 1\npid 1\n");
    for (unsigned i = 0; i < 100; i++)
        g_string_append(many, "forward x\n");
    g_autoptr(MachineStatus) s = machine_status_parse(many->str);
    g_assert_cmpuint(g_strv_length(s->forwards), ==, 64);
}

static void test_log(void)
{
    g_autofree char *dir = g_dir_make_tmp("lodge-test-XXXXXX", NULL), *text = NULL;
    g_autofree char *path = g_build_filename(dir, VM_LOG_FILE, NULL);
    g_autofree char *old = g_strconcat(path, ".1", NULL);
    g_autofree char *line = g_strnfill(1000, 'x');
    g_autoptr(VmLog) log = vm_log_new(dir);
    GStatBuf st;
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    vm_log_append(log, "one");
    vm_log_append(log, "two\nlines\n");
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_true(g_regex_match_simple("^\\d{4}(-\\d\\d){2}T\\d\\d(:\\d\\d){2}Z one\n"
                                       "\\S+Z two\nlines\n$", text, 0, 0));
    g_assert_cmpint(g_stat(path, &st), ==, 0);
    g_assert_cmphex(st.st_mode & 0777, ==, 0600);
    for (unsigned i = 0; i < 3 * VM_LOG_BYTES / 1000; i++) {
        vm_log_append(log, line);
        g_assert_cmpint(g_stat(path, &st), ==, 0);
        g_assert_cmpint(st.st_size, <=, VM_LOG_BYTES);
    }
    g_assert_cmpint(g_stat(old, &st), ==, 0);
    g_assert_cmpint(st.st_size, >, VM_LOG_BYTES - 2000);
    g_autofree char *huge = g_strnfill(4 * VM_LOG_BYTES, 'y'); /* is cut */
    vm_log_append(log, huge);
    g_assert_cmpint(g_stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, <=, VM_LOG_BYTES);
    g_assert_cmpint(g_unlink(path) | g_unlink(old), ==, 0);
    /* A link in its place is not followed; a folder that is gone is no matter. */
    g_assert_cmpint(symlink("elsewhere", path), ==, 0);
    vm_log_append(log, "x");
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    vm_log_append(log, "x");
    g_autoptr(VmLog) none = vm_log_new(NULL);
    vm_log_append(none, "x");
    vm_log_free(NULL);
}

/* ---- the service manager ---- */

static int listen_at(const char *name)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(sa.sun_path, name, len);
    if (name[0] == '@')
        sa.sun_path[0] = '\0';
    g_assert_cmpint(bind(fd, (struct sockaddr *)&sa,
                         (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len +
                                     (name[0] == '/'))), ==, 0);
    g_setenv("NOTIFY_SOCKET", name, TRUE);
    return fd;
}

static char *hear(int fd)
{
    char data[256];
    ssize_t n = recv(fd, data, sizeof data, MSG_DONTWAIT);
    return n < 0 ? NULL : g_strndup(data, (gsize)n);
}

static gboolean give_up(gpointer opaque)
{
    *(bool *)opaque = true;
    return G_SOURCE_CONTINUE;
}

static void play(const char *name, bool watched)
{
    int fd = listen_at(name);
    g_autofree char *expect =
        g_strdup_printf("READY=1\nSTATUS=The guest runs\nMAINPID=%d", (int)getpid());
    g_autoptr(Notify) n = notify_new();
    g_assert_nonnull(n);
    g_assert_null(hear(fd));
    notify_ready(n);
    g_autofree char *ready = hear(fd), *beat = NULL;
    g_assert_cmpstr(ready, ==, expect);
    bool late = false;
    guint timer = g_timeout_add(watched ? 20000 : 50, give_up, &late);
    while (!(beat = hear(fd)) && !late)
        g_main_context_iteration(NULL, TRUE);
    g_source_remove(timer);
    g_assert_cmpstr(beat, ==, watched ? "WATCHDOG=1" : NULL);
    notify_stopping(n);
    g_autofree char *stopping = NULL;
    do {
        g_free(stopping);
        stopping = hear(fd);
    } while (stopping && g_str_has_prefix(stopping, "WATCHDOG"));
    g_assert_true(g_str_has_prefix(stopping, "STOPPING=1\n"));
    close(fd);
    notify_stopping(n); /* nobody listens any more */
}

static void test_notify(void)
{
    g_autofree char *dir = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "notify", NULL);
    g_autofree char *abstract = g_strdup_printf("@lodge-test-%d", (int)getpid());
    g_autofree char *pid = g_strdup_printf("%d", (int)getpid());
    play(path, false);
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_setenv("WATCHDOG_USEC", "20000", TRUE);
    play(abstract, true);
    g_setenv("WATCHDOG_PID", pid, TRUE);
    play(abstract, true);
    g_setenv("WATCHDOG_PID", "1", TRUE); /* of another process */
    play(abstract, false);
    g_unsetenv("WATCHDOG_PID");
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

static void test_notify_nobody(void)
{
    g_autofree char *much = g_strnfill(200, '/');
    const char *const names[] = {NULL, "", "relative", "/", "@", "vsock:2:3", much};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (names[i])
            g_setenv("NOTIFY_SOCKET", names[i], TRUE);
        else
            g_unsetenv("NOTIFY_SOCKET");
        g_assert_null(notify_new());
    }
    notify_ready(NULL);
    notify_stopping(NULL);
    notify_free(NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/status/round", test_status);
    g_test_add_func("/status/wrong", test_status_wrong);
    g_test_add_func("/vm_log", test_log);
    g_test_add_func("/notify/told", test_notify);
    g_test_add_func("/notify/nobody", test_notify_nobody);
    return g_test_run();
}
