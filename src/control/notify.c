/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The protocol of sd_notify(3) and sd_watchdog_enabled(3): datagrams of NAME=VALUE lines to the
 * socket that NOTIFY_SOCKET names, in the file system or, with @ in front, in the abstract space.
 * WATCHDOG_USEC is how long the manager waits for a sign of life, WATCHDOG_PID of whom; it is sent
 * twice in that time. Not here: sockets of the VSOCK family, and passing descriptors.
 *
 * A manager that does not listen is no reason not to run: what cannot be sent is lost.
 */
#include "notify.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lodge/diag.h"

struct Notify {
    struct sockaddr_un address;
    socklen_t address_len;
    int fd;
    guint64 watchdog_ms; /* 0: none */
    guint timer;         /* source; 0: none */
};

static void say(const Notify *n, const char *text)
{
    ssize_t sent = sendto(n->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
                          (const struct sockaddr *)&n->address, n->address_len);
    (void)sent; /* nobody listens */
}

static guint64 number_of(const char *name)
{
    const char *text = g_getenv(name);
    guint64 n = 0;
    (void)(text && g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT64, &n, NULL));
    return n;
}

Notify *notify_new(void)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    size_t len = path ? strlen(path) : 0;
    if (!len)
        return NULL;
    Notify *n = g_new0(Notify, 1);
    n->address.sun_family = AF_UNIX;
    n->fd = (path[0] == '/' || path[0] == '@') && len > 1 && len < sizeof n->address.sun_path
                ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    if (n->fd < 0) {
        lodge_warn("NOTIFY_SOCKET: '%s': is no socket that can be reached; the service manager is "
                   "told nothing", path);
        g_free(n);
        return NULL;
    }
    memcpy(n->address.sun_path, path, len);
    if (path[0] == '@')
        n->address.sun_path[0] = '\0';
    /* A name in the abstract space has no end but its length. */
    n->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (path[0] == '/'));
    guint64 pid = number_of("WATCHDOG_PID");
    if (!pid || pid == (guint64)getpid())
        n->watchdog_ms = number_of("WATCHDOG_USEC") / 2000;
    return n;
}

static gboolean on_timer(gpointer opaque)
{
    say(opaque, "WATCHDOG=1");
    return G_SOURCE_CONTINUE;
}

void notify_ready(Notify *n)
{
    if (!n)
        return;
    g_autofree char *text =
        g_strdup_printf("READY=1\nSTATUS=The guest runs\nMAINPID=%d", (int)getpid());
    say(n, text);
    if (n->watchdog_ms && !n->timer)
        n->timer = g_timeout_add((guint)MIN(n->watchdog_ms, G_MAXUINT), on_timer, n);
}

void notify_stopping(Notify *n)
{
    if (n)
        say(n, "STOPPING=1\nSTATUS=The guest is to power off");
}

void notify_free(Notify *n)
{
    if (!n)
        return;
    g_clear_handle_id(&n->timer, g_source_remove);
    close(n->fd);
    g_free(n);
}
