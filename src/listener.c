/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A listening socket on the main loop. */
#include "lodge/listener.h"

#include <errno.h>
#include <glib-unix.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define RETRY_MS 200u

struct Listener {
    int fd; /* owned */
    guint source;
    ListenerFn fn;
    void *opaque;
};

static gboolean on_connect(int fd, GIOCondition condition, gpointer opaque);

static gboolean accept_again(gpointer opaque)
{
    Listener *l = opaque;

    l->source = g_unix_fd_add(l->fd, G_IO_IN, on_connect, l);
    return G_SOURCE_REMOVE;
}

static gboolean on_connect(int fd, GIOCondition condition, gpointer opaque)
{
    Listener *l = opaque;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (client >= 0) {
        l->fn(client, l->opaque);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        /* The connection stays in the queue and would wake us at once. */
        l->source = g_timeout_add(RETRY_MS, accept_again, l);
        return G_SOURCE_REMOVE;
    }
    return G_SOURCE_CONTINUE;
}

Listener *listener_new(int fd, ListenerFn fn, void *opaque)
{
    Listener *l = g_new(Listener, 1);

    *l = (Listener){.fd = fd, .fn = fn, .opaque = opaque};
    l->source = g_unix_fd_add(fd, G_IO_IN, on_connect, l);
    return l;
}

void listener_free(Listener *l)
{
    if (!l)
        return;
    g_source_remove(l->source);
    close(l->fd);
    g_free(l);
}

bool listener_is_stale(const struct sockaddr_un *un)
{
    struct stat st;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return false;
    bool stale = lstat(un->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
                 st.st_uid == geteuid() &&
                 connect(fd, (const struct sockaddr *)un, sizeof *un) < 0 && errno == ECONNREFUSED;
    close(fd);
    return stale;
}
