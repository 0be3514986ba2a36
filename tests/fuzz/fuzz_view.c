/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What may come to the port of lodge view: requests, and frames of who has the token, to a machine
 * that says everything twice. The first byte says whether a good request goes before, and in what
 * pieces the rest arrives.
 */
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "replay.h"
#include "view.h"

#define BYTES_MAX 32768u
#define HEARD_MAX 4096u /* of which the machine answers so much */

static char *folder;
static int machine;

static int dial(void *opaque)
{
    int pair[2];

    if (machine >= 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair))
        return -1;
    machine = pair[0];
    return pair[1];
}

static void clean_up(void)
{
    static const char *const files[] = {"vnc.html", "a.js"};

    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *path = g_build_filename(folder, files[i], NULL);
        (void)g_unlink(path);
    }
    (void)g_rmdir(folder);
}

static void start(void)
{
    g_autofree char *page = NULL, *file = NULL;

    signal(SIGPIPE, SIG_IGN);
    folder = g_dir_make_tmp("lodge-fuzz-XXXXXX", NULL);
    page = g_build_filename(folder, "vnc.html", NULL);
    file = g_build_filename(folder, "a.js", NULL);
    g_assert_true(g_file_set_contents(page, "page", -1, NULL) &&
                  g_file_set_contents(file, "", -1, NULL));
    atexit(clean_up);
}

static void turn(int browser, unsigned *budget)
{
    char room[4096];

    while (g_main_context_iteration(NULL, FALSE)) {
        while (recv(browser, room, sizeof room, MSG_DONTWAIT) > 0) {
        }
        ssize_t n = machine >= 0 ? recv(machine, room, sizeof room, MSG_DONTWAIT) : 0;
        for (unsigned i = 0; i < 2 && n > 0 && *budget >= (size_t)n; i++) {
            *budget -= (unsigned)n;
            (void)!send(machine, room, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT); /* or it is full */
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ViewConfig config = {.dial = dial};
    g_autoptr(GString) all = g_string_new(NULL);
    int ends[2];
    unsigned budget = HEARD_MAX;

    if (!size)
        return 0;
    if (!folder)
        start();
    machine = -1;
    config.folder = folder;
    View *v = view_new(&config, NULL);
    g_assert_true(v && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends));
    view_add_connection(v, ends[0]);
    if (data[0] & 1)
        g_string_printf(all, "GET /websockify?token=%s HTTP/1.1\r\nHost: [::1]\r\nOrigin: "
                             "http://[::1]\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
                             "Sec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                        view_token(v));
    g_string_append_len(all, (const char *)data + 1, (gssize)MIN(size - 1, BYTES_MAX));
    size_t step = data[0] & 2 ? 1 + data[0] / 4 : all->len;
    for (size_t at = 0; at < all->len;) {
        ssize_t n = send(ends[1], all->str + at, MIN(step, all->len - at),
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        turn(ends[1], &budget);
        if (n < 0)
            break;
        at += (size_t)n;
    }
    if (machine >= 0 && !(data[0] & 4)) {
        close(machine);
        machine = -1;
        turn(ends[1], &budget);
    }
    close(ends[1]);
    turn(ends[1], &budget);
    view_free(v);
    if (machine >= 0)
        close(machine);
    return 0;
}
