/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge image serve": a disk for other programs, over NBD. The main thread waits for a signal or
 * the last client's end; the node's loop does the rest (nbd_server.c).
 */
#include "verb_image.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <glib-unix.h>

#include "lodge/device.h"
#include "lodge/error.h"

#include "nbd_listen.h"
#include "nbd_proto.h"
#include "nbd_server.h"

#define CLIENTS_DEFAULT 8u

typedef struct Serving {
    NbdServerConfig config;
    NbdListen listen;
    GMainLoop *loop; /* owned */
    bool json, once;
} Serving;

static gboolean quit(gpointer opaque)
{
    g_main_loop_quit(opaque);
    return G_SOURCE_REMOVE;
}

/* Context: the node's loop. */
static void left(void *opaque)
{
    Serving *v = opaque;

    if (v->once)
        g_idle_add(quit, v->loop);
}

static bool read_options(Serving *v, const Options *o, GError **error)
{
    const char *listen = options_text(o, "listen"), *socket = options_text(o, "socket");
    const char *name = options_text(o, "export"), *shared = options_text(o, "shared");
    uint64_t clients = CLIENTS_DEFAULT;

    v->json = options_has(o, "json");
    v->once = options_has(o, "once");
    v->config.writable = options_has(o, "writable");
    v->config.name = name ? name : "";
    if (v->config.writable && options_has(o, "read-only"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--read-only and --writable: one excludes the other; leave one out");
    if (strlen(v->config.name) > NBD_STRING_MAX || !g_utf8_validate(v->config.name, -1, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--export: a name is UTF-8 of at most %u bytes", NBD_STRING_MAX);
    if (shared && (!parse_u64(shared, &clients) || !clients || clients > NBD_CLIENTS_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--shared: \"%s\": not in 1..%u", shared,
                          NBD_CLIENTS_MAX);
    v->config.clients = (unsigned)clients;
    return !listen || !socket ||
           lodge_fail(error, LODGE_ERROR_CONFIG,
                      "--listen and --socket: one excludes the other; leave one out");
}

static bool open_socket(Serving *v, const Options *o, GError **error)
{
    const char *listen = options_text(o, "listen"), *socket = options_text(o, "socket");
    g_autoptr(GError) why = NULL;

    if (!listen && !socket) {
        if (nbd_listen_passed(&v->listen, &why))
            return true;
        if (why) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        listen = "127.0.0.1";
    }
    return socket ? nbd_listen_unix(socket, v->config.name, &v->listen, error)
                  : nbd_listen_tcp(listen, v->config.name, &v->listen, error);
}

/* Where clients find it, now that they do. */
static void tell(const Serving *v)
{
    if (!v->listen.uri)
        return;
    if (v->json) {
        g_autoptr(JsonOut) j = image_json();
        json_string(j, "uri", v->listen.uri);
        json_string(j, "export", v->config.name);
        json_string(j, "format", blk_format(v->config.node));
        json_number(j, "size", (int64_t)v->config.node->limits.size);
        json_bool(j, "read-only", !v->config.writable);
        fputs(json_text(j), stdout);
    } else {
        printf("%s\n", v->listen.uri);
    }
    fflush(stdout); /* whoever started us waits for it; a full disk is told of at the end */
}

static bool serve(Serving *v, GError **error)
{
    g_autoptr(NbdServer) server = nbd_server_new(&v->config);
    guint sources[2];

    sources[0] = g_unix_signal_add(SIGINT, quit, v->loop);
    sources[1] = g_unix_signal_add(SIGTERM, quit, v->loop);
    bool ok = nbd_server_listen(server, v->listen.fd, error);
    v->listen.fd = -1; /* the server's */
    if (ok) {
        tell(v);
        g_main_loop_run(v->loop);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(sources); i++) {
        GSource *s = g_main_context_find_source_by_id(NULL, sources[i]);
        if (s) /* the one that came is gone */
            g_source_destroy(s);
    }
    nbd_server_free(g_steal_pointer(&server));
    int err = ok && v->config.writable ? blk_flush(v->config.node) : 0;
    return ok && (!err || lodge_fail_errno(error, err, "'%s': cannot write",
                                           blk_file_under(v->config.node)->path));
}

int verb_image_serve(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;
    g_autoptr(Options) o = image_options(self, argc, argv, 1, 1, &status);
    Serving v = {.listen = {.fd = -1}};

    if (!o)
        return status;
    if (!read_options(&v, o, &error))
        return cli_fail(self->name, error, false);
    g_autoptr(ImageTool) t = image_tool_new(1, &error);
    g_autoptr(BlkNode) n = t ? image_open(o, image_arg(o, 0), !v.config.writable, 0, BLK_AIO_AUTO,
                                          t->io, &error)
                             : NULL;
    if (n && v.config.writable && n->limits.read_only) {
        lodge_fail(&error, LODGE_ERROR_UNSUPPORTED, "format %s: can be read, not written",
                   blk_format(n));
        return cli_fail(self->name, error, false);
    }
    v.config.node = n;
    v.config.left = left;
    v.config.opaque = &v;
    v.loop = g_main_loop_new(NULL, FALSE);
    if (!n || !open_socket(&v, o, &error) || !serve(&v, &error))
        status = cli_fail(self->name, error, false);
    nbd_listen_clear(&v.listen);
    g_main_loop_unref(v.loop);
    return cli_finish(status);
}
