/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qmpfix.h"

#include <errno.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/error.h"

#define DEADLINE_S 30

static void key(void *opaque, unsigned code, bool down)
{
    QmpFix *f = opaque;
    g_string_append_printf(f->keys, "%c%u ", down ? '+' : '-', code);
}

static void rel(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
    QmpFix *f = opaque;
    g_string_append_printf(f->keys, "rel %d,%d,%d,%u ", dx, dy, dz, buttons);
}

static void abs_at(void *opaque, unsigned x, unsigned y, int dz, unsigned buttons)
{
    QmpFix *f = opaque;
    g_string_append_printf(f->keys, "abs %u,%u,%d,%u ", x, y, dz, buttons);
}

static const InputOps keyboard = {.key = key, .rel = rel};
const InputOps qmp_fix_tablet = {.abs = abs_at};

static DisplayNews refresh(void *opaque, Display *d, bool all)
{
    DisplaySurface s = display_begin(d, 3, 2);
    for (unsigned i = 0; i < 6; i++)
        s.pixels[i / 3 * s.stride + i % 3] = 0x010203 * (i + 1);
    display_damage(d, (DisplayRect){0, 0, 3, 2});
    display_end(d);
    return (DisplayNews){.stirred = true, .next_ns = INT64_MAX};
}

static char *text(void *opaque)
{
    return ((QmpFix *)opaque)->graphics ? NULL : g_strdup("C:\\>dir\n\n");
}

static const DisplaySource screen = {.refresh = refresh, .text = text};

/* Who is shown the screen hears a byte, 'p' where a password is asked for. */
static bool add_viewer(void *opaque, int fd, bool skip_auth, GError **error)
{
    bool ok = write(fd, skip_auth ? "v" : "p", 1) == 1;
    close(fd);
    return ok || lodge_fail(error, LODGE_ERROR_HOST, "no");
}

static bool describe_screen(void *opaque, ControlScreen *ret)
{
    QmpFix *f = opaque;
    if (f->serves)
        *ret = f->served;
    return f->serves;
}

void qmp_fix_setup(QmpFix *f, gconstpointer unused)
{
    g_autoptr(GError) error = NULL;
    f->dir = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    g_setenv("XDG_RUNTIME_DIR", f->dir, TRUE);
    g_setenv("XDG_STATE_HOME", f->dir, TRUE);
    f->registry = registry_claim("vm", REGISTRY_LASTING, &error);
    g_assert_no_error(error);
    f->socket = g_build_filename(registry_run_dir(f->registry), CONTROL_SOCKET, NULL);
    f->display = display_new(NULL);
    display_set_source(f->display, &screen, f);
    f->input = input_new();
    input_attach(f->input, &keyboard, f);
    f->keys = g_string_new(NULL);
    ControlConfig c = {.name = "vm", .registry = f->registry, .display = f->display,
                       .input = f->input, .add_viewer = add_viewer,
                       .describe_screen = describe_screen, .opaque = f};
    f->control = control_open(&c, &error);
    g_assert_no_error(error);
}

void qmp_fix_teardown(QmpFix *f, gconstpointer unused)
{
    const char *argv[] = {"rm", "-r", f->dir, NULL};
    control_close(f->control);
    g_assert_false(g_file_test(f->socket, G_FILE_TEST_EXISTS));
    input_detach(f->input, &keyboard, f);
    input_free(f->input);
    display_set_source(f->display, NULL, NULL);
    display_free(f->display);
    registry_release(f->registry);
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL,
                               NULL, NULL, NULL));
    g_string_free(f->keys, TRUE);
    g_free(f->socket);
    g_free(f->dir);
}

int qmp_dial(QmpFix *f)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    g_strlcpy(a.sun_path, f->socket, sizeof a.sun_path);
    while (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        g_assert_true(errno == EAGAIN); /* the queue of connections is full */
        g_main_context_iteration(NULL, FALSE);
    }
    return fd;
}

/* What comes until @lines lines or the end are there. */
char *qmp_hear(int fd, unsigned lines)
{
    GString *got = g_string_new(NULL);
    gint64 deadline = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (lines) {
        char byte;
        ssize_t n = read(fd, &byte, 1);
        if (n == 1) {
            g_string_append_c(got, byte);
            lines -= byte == '\n';
        } else if (n == 0 || errno == ECONNRESET) {
            g_string_append(got, "<end>");
            break;
        } else if (!g_main_context_iteration(NULL, FALSE)) {
            g_usleep(200);
            g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        }
    }
    return g_string_free(got, FALSE);
}

void qmp_say(int fd, const char *what)
{
    size_t len = strlen(what);
    while (len) {
        ssize_t n = send(fd, what, len, MSG_NOSIGNAL);
        g_assert_true(n > 0 || errno == EAGAIN);
        if (n > 0) {
            what += n;
            len -= (size_t)n;
        } else {
            g_main_context_iteration(NULL, FALSE);
        }
    }
}

/* A client that has negotiated. */
int qmp_talk(QmpFix *f)
{
    int fd = qmp_dial(f);
    qmp_say(fd, "{\"execute\": \"qmp_capabilities\"}");
    g_autofree char *got = qmp_hear(fd, 2);
    g_assert_true(g_str_has_suffix(got, "\r\n{\"return\": {}}\r\n"));
    return fd;
}

void qmp_ask(int fd, const char *what, const char *answer)
{
    qmp_say(fd, what);
    g_autofree char *got = qmp_hear(fd, 1);
    if (!g_str_has_suffix(got, "\r\n"))
        g_error("%s: %s", what, got);
    got[strlen(got) - 2] = '\0';
    g_assert_cmpstr(got, ==, answer);
}
