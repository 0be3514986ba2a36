/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Consoles of a machine beside the one that it was started on.
 *
 * The guest's output comes on the channel's IoThread, through its tap. There it goes to the log,
 * and is put aside for each client; the main thread sends it. A client that takes nothing is no
 * reason to wait: what it has not taken is bounded, and thrown away as a whole beyond that.
 *
 * Invariants:
 * (1) The log and what is put aside change together under the lock, so that a client that comes
 *     gets each byte once, from the one or the other.
 * (2) `told` is true exactly while a send_all() is on its way.
 */
#include "consoles.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib-unix.h>

#include "lodge/chan.h"
#include "lodge/console_log.h"
#include "lodge/error.h"
#include "lodge/lock.h"

#define CLIENTS_MAX 16u
#define ASIDE_MAX (1024u * 1024u) /* bytes for one client */
#define READ_BYTES 4096u
#define LAST_MS 200 /* for a client to take the rest at the end */

typedef struct Client {
    Consoles *owner;
    int fd;
    unsigned id;
    guint in, out;   /* sources; 0: none */
    GString *unsent; /* taken from aside, on its way */
    /* guarded by the owner's lock */
    GString *aside;
    size_t lost;
} Client;

struct Consoles {
    /* main thread */
    Chan *chan;       /* borrowed; NULL: none, or closed */
    ConsoleLog *log;  /* borrowed */
    unsigned last_id, writer; /* writer: an id; 0: nobody */
    LodgeLock lock;
    /* guarded by lock; clients change on the main thread only */
    GPtrArray *clients; /* Client, owned */
    bool told;
};

static void send_to(Client *cl);

/* ---- output ---- */

static gboolean send_all(gpointer opaque)
{
    Consoles *cs = opaque;
    lodge_lock(&cs->lock);
    cs->told = false;
    lodge_unlock(&cs->lock);
    for (unsigned i = cs->clients->len; i-- > 0;)
        send_to(g_ptr_array_index(cs->clients, i)); /* may take it off the list */
    return G_SOURCE_REMOVE;
}

static void put_aside_locked(Client *cl, const uint8_t *data, size_t len)
{
    if (cl->aside->len + len > ASIDE_MAX) {
        cl->lost += cl->aside->len;
        g_string_truncate(cl->aside, 0);
    }
    g_string_append_len(cl->aside, (const char *)data, (gssize)len);
}

/* A ChanTapFn; keeps (1) and (2). */
static void on_output(void *opaque, const uint8_t *data, size_t len)
{
    Consoles *cs = opaque;
    lodge_lock(&cs->lock);
    console_log_append(cs->log, data, len);
    for (unsigned i = 0; i < cs->clients->len; i++)
        put_aside_locked(g_ptr_array_index(cs->clients, i), data, len);
    bool tell = cs->clients->len && !cs->told;
    cs->told |= tell;
    lodge_unlock(&cs->lock);
    if (tell)
        g_idle_add_full(G_PRIORITY_DEFAULT, send_all, cs, NULL);
}

static void client_free(gpointer opaque)
{
    Client *cl = opaque;
    g_clear_handle_id(&cl->in, g_source_remove);
    g_clear_handle_id(&cl->out, g_source_remove);
    close(cl->fd);
    g_string_free(cl->unsent, TRUE);
    g_string_free(cl->aside, TRUE);
    g_free(cl);
}

static void drop(Client *cl)
{
    Consoles *cs = cl->owner;
    if (cs->writer == cl->id)
        cs->writer = 0;
    lodge_lock(&cs->lock);
    (void)g_ptr_array_remove(cs->clients, cl); /* frees it: it is there */
    lodge_unlock(&cs->lock);
}

static gboolean on_room(int fd, GIOCondition condition, gpointer opaque)
{
    Client *cl = opaque;
    cl->out = 0;
    send_to(cl);
    return G_SOURCE_REMOVE;
}

static void take_aside(Client *cl)
{
    lodge_lock(&cl->owner->lock);
    if (cl->lost)
        g_string_append_printf(cl->unsent, "\r\n[%" G_GSIZE_FORMAT " bytes were lost here]\r\n",
                               cl->lost);
    g_string_append_len(cl->unsent, cl->aside->str, (gssize)cl->aside->len);
    g_string_truncate(cl->aside, 0);
    cl->lost = 0;
    lodge_unlock(&cl->owner->lock);
}

/* Send what the client takes now. Return: false: it is gone. */
static bool flush(Client *cl)
{
    for (;;) {
        if (!cl->unsent->len)
            take_aside(cl);
        if (!cl->unsent->len)
            return true;
        ssize_t n = send(cl->fd, cl->unsent->str, cl->unsent->len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            g_string_erase(cl->unsent, 0, n);
        else if (n < 0 && errno != EINTR)
            return errno == EAGAIN || errno == EWOULDBLOCK;
    }
}

static void send_to(Client *cl)
{
    if (!flush(cl))
        drop(cl);
    else if (cl->unsent->len && !cl->out)
        cl->out = g_unix_fd_add(cl->fd, G_IO_OUT, on_room, cl);
}

/* ---- input ---- */

static gboolean on_input(int fd, GIOCondition condition, gpointer opaque)
{
    Client *cl = opaque;
    Consoles *cs = cl->owner;
    uint8_t data[READ_BYTES];
    ssize_t n = recv(fd, data, sizeof data, MSG_DONTWAIT);
    if (n > 0) {
        if (cs->writer == cl->id && cs->chan)
            chan_inject(cs->chan, data, (size_t)n);
        return G_SOURCE_CONTINUE;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    cl->in = 0;
    drop(cl);
    return G_SOURCE_REMOVE;
}

/* ---- clients ---- */

bool consoles_add(Consoles *cs, int fd, bool write, unsigned *ret_id, bool *ret_writes,
                  GError **error)
{
    bool ok = cs && cs->chan
                  ? cs->clients->len < CLIENTS_MAX ||
                        lodge_fail(error, LODGE_ERROR_LIMIT,
                                   "%u consoles look already; close one of them", CLIENTS_MAX)
                  : lodge_fail(error, LODGE_ERROR_STATE, "there is no serial port");
    if (!ok) {
        close(fd);
        return false;
    }
    Client *cl = g_new0(Client, 1);
    cl->owner = cs;
    cl->fd = fd;
    cl->id = ++cs->last_id;
    cl->aside = g_string_new(NULL);
    if (write && !cs->writer)
        cs->writer = cl->id;
    lodge_lock(&cs->lock);
    cl->unsent = console_log_recent(cs->log);
    g_ptr_array_add(cs->clients, cl);
    lodge_unlock(&cs->lock);
    cl->in = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP | G_IO_ERR, on_input, cl);
    cl->out = g_unix_fd_add(fd, G_IO_OUT, on_room, cl); /* not before the caller has answered */
    *ret_id = cl->id;
    *ret_writes = cs->writer == cl->id;
    return true;
}

bool consoles_take(Consoles *cs, unsigned id, GError **error)
{
    for (unsigned i = 0; cs && i < cs->clients->len; i++) {
        if (((Client *)g_ptr_array_index(cs->clients, i))->id == id) {
            cs->writer = id;
            return true;
        }
    }
    return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Console '%u' not found", id);
}

Consoles *consoles_new(Chan *c, ConsoleLog *log)
{
    Consoles *cs = g_new0(Consoles, 1);
    cs->chan = c;
    cs->log = log;
    cs->clients = g_ptr_array_new_with_free_func(client_free);
    lodge_lock_init(&cs->lock, LOCK_RANK_QUEUE, "consoles");
    if (c)
        chan_set_tap(c, on_output, cs);
    return cs;
}

void consoles_stop(Consoles *cs)
{
    if (cs)
        cs->chan = NULL;
}

/* Let a client have the rest, if it takes it soon. */
static void send_last(Client *cl)
{
    while (flush(cl) && cl->unsent->len) {
        struct pollfd p = {.fd = cl->fd, .events = POLLOUT};
        if (poll(&p, 1, LAST_MS) <= 0)
            return;
    }
}

void consoles_free(Consoles *cs)
{
    if (!cs)
        return;
    while (g_source_remove_by_user_data(cs)) {
        /* a send_all() that is queued */
    }
    for (unsigned i = 0; i < cs->clients->len; i++)
        send_last(g_ptr_array_index(cs->clients, i));
    g_ptr_array_free(cs->clients, TRUE);
    lodge_lock_clear(&cs->lock);
    g_free(cs);
}
