/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge view": the screen of a running machine in browsers. Each viewer is a pair of sockets, one
 * end of which the machine is handed over its control socket and serves with VNC; this process
 * carries the other end's bytes. The control socket stays open, to see the machine end.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib-unix.h>

#include "lodge/device.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/json_out.h"

#include "cli.h"
#include "client.h"
#include "view.h"

#define ANSWER_SECONDS 10
#define PORT_MAX 65535u
#define FD_NAME "lodge-view"

const OptSpec view_options_table[] = {
    {"port", 0, "N", "Listen on TCP port N, 1 to 65535; unless said, on one that is free."},
    {"address", 0, "ADDR",
     "Listen on ADDR, a number, instead of 127.0.0.1. Nothing is encrypted."},
    {"novnc", 0, "DIR", "The folder of noVNC, with vnc.html in it (/usr/share/novnc)."},
    OPT_JSON,
    {NULL},
};

typedef struct Viewing {
    const char *name;
    bool json;
    Client *client;
    View *view;
    GMainLoop *loop;
} Viewing;

static int64_t soon(void)
{
    return g_get_monotonic_time() + ANSWER_SECONDS * G_TIME_SPAN_SECOND;
}

/* Have the machine serve @fd. */
static bool hand_over(Client *c, int fd, GError **error)
{
    JsonOut *call = client_begin("getfd");
    json_string(call, "fdname", FD_NAME);
    if (!client_call_fd(c, call, fd, soon(), error).node)
        return false;
    call = client_begin("add_client");
    json_string(call, "protocol", "vnc");
    json_string(call, "fdname", FD_NAME);
    json_bool(call, "skipauth", true);
    return client_call(c, call, soon(), error).node != NULL;
}

/* A connection to the machine's screen, -1 with the error. */
static int dial_screen(Client *c, GError **error)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        lodge_fail_errno(error, errno, "a pair of sockets");
        return -1;
    }
    bool ok = hand_over(c, pair[1], error);
    close(pair[1]);
    if (ok)
        return pair[0];
    close(pair[0]);
    return -1;
}

static int on_dial(void *opaque)
{
    Viewing *v = opaque;
    g_autoptr(GError) error = NULL;
    int fd = dial_screen(v->client, &error);
    if (fd < 0)
        lodge_warn("view: %s", error->message);
    return fd;
}

static void print_address(void *opaque)
{
    Viewing *v = opaque;
    if (v->json) {
        g_autoptr(JsonOut) out = json_out_new();
        json_object(out, NULL);
        json_number(out, "schema", 1);
        json_string(out, "name", v->name);
        json_string(out, "address", view_address(v->view));
        fputs(json_text(out), stdout);
    } else {
        puts(view_address(v->view));
    }
    (void)fflush(stdout); /* cli_finish() looks at what came of it */
}

static gboolean on_machine(int fd, GIOCondition condition, gpointer opaque)
{
    Viewing *v = opaque;
    if (client_discard(v->client))
        return G_SOURCE_CONTINUE;
    lodge_note("%s: the machine has ended", v->name);
    g_main_loop_quit(v->loop);
    return G_SOURCE_REMOVE;
}

static gboolean on_signal(gpointer opaque)
{
    g_main_loop_quit(((Viewing *)opaque)->loop);
    return G_SOURCE_CONTINUE;
}

static void serve(Viewing *v)
{
    v->loop = g_main_loop_new(NULL, FALSE);
    g_unix_signal_add(SIGINT, on_signal, v);
    g_unix_signal_add(SIGTERM, on_signal, v);
    g_unix_fd_add(client_fd(v->client), G_IO_IN | G_IO_HUP | G_IO_ERR, on_machine, v);
    print_address(v);
    g_main_loop_run(v->loop);
    g_main_loop_unref(v->loop);
}

static bool read_line(const Options *o, unsigned *ret_port, GError **error)
{
    const char *port = options_text(o, "port");
    uint64_t n = 0;
    if (!o->args->len)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "no machine; give its NAME");
    if (port && (!parse_u64(port, &n) || n < 1 || n > PORT_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--port %s: must be 1 to %u", port, PORT_MAX);
    *ret_port = (unsigned)n;
    return true;
}

static bool set_up(Viewing *v, const Options *o, GError **error)
{
    const char *folder = options_text(o, "novnc");
    ViewConfig config = {.folder = folder ? folder : "/usr/share/novnc", .dial = on_dial,
                         .renewed = print_address, .opaque = v};
    unsigned port = 0;
    if (!read_line(o, &port, error))
        return false;
    v->name = g_ptr_array_index(o->args, 0);
    v->client = client_connect(v->name, soon(), error);
    if (!v->client)
        return false;
    int fd = dial_screen(v->client, error); /* what is wrong is told now, not in the browser */
    if (fd < 0)
        return false;
    close(fd);
    v->view = view_new(&config, error);
    return v->view && view_listen(v->view, options_text(o, "address"), port, error);
}

int verb_view(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    if (!o)
        return cli_fail(self->name, error, false);
    Viewing v = {.json = options_has(o, "json")};
    signal(SIGPIPE, SIG_IGN);
    int status = STATUS_OK;
    if (set_up(&v, o, &error))
        serve(&v);
    else
        status = cli_fail(self->name, error, false);
    view_free(v.view);
    client_free(v.client);
    return cli_finish(status);
}
