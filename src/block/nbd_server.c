/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server: clients, and the bytes to and from them.
 *
 * Fixed newstyle handshake with one export (nbd_options.c), then requests (nbd_requests.c). Every
 * byte of a client is hostile. What it can make us hold is bounded: NBD_IN_MAX bytes of input,
 * NBD_TASKS_MAX requests with NBD_BYTES_MAX of data, counted until their answer has left, one
 * option's answers; when a bound is reached nothing more is read from it, so that TCP slows it
 * down. A handshake has NBD_HANDSHAKE_S. Who is over the limit of clients waits in the queue of the
 * listening socket. Nobody waits for a client: sockets do not block.
 *
 * All clients use one node, and a flush of the node covers the writes of all of them: that is what
 * CAN_MULTI_CONN promises.
 *
 * Left out: TLS, resizing, CACHE, extended headers. A client that asks is told that it is not
 * known.
 *
 * Threads: the node's IoThread; main makes and frees.
 * Invariants: (1) a connection is freed when it is hung up and none of its requests is in the block
 * layer. (2) what is queued to be sent is freed with its connection, or when it is sent.
 *
 * Spec: NBD project, doc/proto.md.
 */
#include "nbd_server_int.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/num.h"

#define SEND_IOVS 16u
#define ACCEPTS 16u /* in a round of the loop */
#define RETRY_NS (NS_PER_SEC / 5)

static void listen_again(void *opaque);

/* ---- the end of a client ---- */

static void out_free(NbdOut *o)
{
    if (o->task)
        nbd_task_free(o->task);
    g_free(o);
}

static void conn_free(NbdConn *c)
{
    NbdServer *s = c->server;

    while (c->out_head) {
        NbdOut *o = c->out_head;
        c->out_head = o->next;
        out_free(o);
    }
    if (c->payload)
        nbd_task_free(c->payload);
    g_queue_unlink(&s->conns, &c->link);
    timer_free(c->timer);
    g_free(c->in);
    g_free(c);
    listen_again(s);
    g_mutex_lock(&s->mutex);
    s->n_conns--;
    g_cond_signal(&s->cond);
    g_mutex_unlock(&s->mutex);
}

static void conn_unref(NbdConn *c)
{
    if (c->fd < 0 && !c->running && !c->busy) /* keeps (1) */
        conn_free(c);
}

void nbd_conn_hang_up(NbdConn *c, bool after)
{
    NbdServer *s = c->server;

    c->closing = true;
    if (c->fd < 0 || (after && (c->out_head || c->tasks)))
        return;
    io_watch_free(g_steal_pointer(&c->watch));
    close(c->fd);
    c->fd = -1;
    timer_cancel(c->timer);
    if (c->phase == NBD_PHASE_REQUESTS && --s->users == 0 && s->config.left)
        s->config.left(s->config.opaque);
}

bool nbd_conn_back(NbdConn *c)
{
    c->running--;
    if (c->fd >= 0)
        return false;
    conn_unref(c);
    return true;
}

/* ---- out ---- */

bool nbd_conn_send(NbdConn *c, const void *head, size_t head_len, NbdTask *task,
                   const uint8_t *data, size_t data_len)
{
    NbdOut *o = c->fd >= 0 ? g_try_malloc0(sizeof *o + head_len) : NULL;

    if (!o) {
        if (task)
            nbd_task_free(task);
        nbd_conn_hang_up(c, false);
        return false;
    }
    memcpy(o->head, head, head_len);
    o->head_len = head_len;
    o->task = task;
    o->data = data;
    o->data_len = data_len;
    *c->out_tail = o;
    c->out_tail = &o->next;
    return true;
}

static unsigned gather(const NbdConn *c, struct iovec *iov)
{
    unsigned n = 0;

    for (const NbdOut *o = c->out_head; o && n + 2 <= SEND_IOVS; o = o->next) {
        size_t skip = MIN(o->sent, o->head_len), data_skip = o->sent - skip;
        if (skip < o->head_len)
            iov[n++] = (struct iovec){(void *)(o->head + skip), o->head_len - skip};
        if (data_skip < o->data_len)
            iov[n++] = (struct iovec){(void *)(o->data + data_skip), o->data_len - data_skip};
    }
    return n;
}

/* True: an answer is sent whole. */
static bool sent(NbdConn *c, size_t bytes)
{
    bool whole = false;

    while (c->out_head) {
        NbdOut *o = c->out_head;
        size_t part = MIN(bytes, o->head_len + o->data_len - o->sent);
        o->sent += part;
        bytes -= part;
        if (o->sent < o->head_len + o->data_len)
            break;
        c->out_head = o->next;
        if (!c->out_head)
            c->out_tail = &c->out_head;
        out_free(o);
        whole = true;
    }
    return whole;
}

/* Send what the socket takes. True: an answer has left, so there is room for more. */
static bool flush_out(NbdConn *c)
{
    bool left = false;

    while (c->out_head && c->fd >= 0) {
        struct iovec iov[SEND_IOVS];
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = gather(c, iov)};
        ssize_t r = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 && errno == EAGAIN)
            break;
        if (r < 0) {
            nbd_conn_hang_up(c, false);
            return left;
        }
        left = sent(c, (size_t)r) || left;
    }
    if (c->closing)
        nbd_conn_hang_up(c, true);
    return left;
}

/* ---- in ---- */

/* Take what is whole in the buffer. True: something was taken. */
static bool parse(NbdConn *c)
{
    size_t pos = 0;

    while (c->fd >= 0 && !c->closing && pos < c->in_len) {
        const uint8_t *p = c->in + pos;
        size_t len = c->in_len - pos;
        ssize_t r;
        if (c->payload) {
            size_t want;
            uint8_t *to = nbd_task_data(c->payload, &want);
            r = (ssize_t)MIN(len, want - c->payload_got);
            memcpy(to + c->payload_got, p, (size_t)r);
            c->payload_got += (size_t)r;
            if (c->payload_got == want)
                nbd_task_go(g_steal_pointer(&c->payload));
        } else if (c->phase == NBD_PHASE_REQUESTS) {
            r = nbd_request(c, p, len);
        } else {
            /* One option's answers at a time are held for who does not read them. */
            r = c->out_head ? 0 : nbd_option(c, p, len);
        }
        if (r < 0)
            nbd_conn_hang_up(c, false);
        if (r <= 0)
            break;
        pos += (size_t)r;
    }
    memmove(c->in, c->in + pos, c->in_len - pos);
    c->in_len -= pos;
    return pos != 0;
}

/* Read once. True: something came. */
static bool fill_in(NbdConn *c)
{
    uint8_t *to = c->in + c->in_len;
    size_t room = NBD_IN_MAX - c->in_len;
    bool direct = c->payload && !c->in_len;
    ssize_t r;

    if (direct) {
        to = nbd_task_data(c->payload, &room) + c->payload_got;
        room -= c->payload_got;
    }
    if (!room)
        return false;
    do
        r = recv(c->fd, to, room, MSG_DONTWAIT);
    while (r < 0 && errno == EINTR);
    if (r < 0 && errno == EAGAIN)
        return false;
    if (r <= 0) {
        nbd_conn_hang_up(c, false);
        return false;
    }
    if (!direct) {
        c->in_len += (size_t)r;
        return true;
    }
    c->payload_got += (size_t)r;
    if ((size_t)r == room)
        nbd_task_go(g_steal_pointer(&c->payload));
    return true;
}

/* Whether more input would be taken now. */
static bool wants_in(const NbdConn *c)
{
    if (c->closing)
        return false;
    if (c->payload)
        return true;
    return c->phase == NBD_PHASE_REQUESTS
               ? c->tasks < NBD_TASKS_MAX && (!c->tasks || c->bytes < NBD_BYTES_MAX) &&
                     c->in_len < NBD_REQUEST_BYTES
               : !c->out_head;
}

void nbd_conn_run(NbdConn *c)
{
    if (c->busy)
        return;
    c->busy = true;
    (void)flush_out(c);
    /* One read for each event: other clients come between. */
    for (unsigned reads = 1; c->fd >= 0;) {
        bool went = parse(c);
        if (flush_out(c) || c->fd < 0 || went)
            continue;
        if (!reads-- || !wants_in(c) || !fill_in(c))
            break;
    }
    if (c->fd >= 0) {
        uint32_t events = (wants_in(c) ? EPOLLIN : 0) | (c->out_head ? EPOLLOUT : 0);
        if (events != c->events)
            io_watch_set(c->watch, events);
        c->events = events;
    }
    c->busy = false;
    conn_unref(c);
}

static void on_client(void *opaque, uint32_t events)
{
    NbdConn *c = opaque;

    if (events & (EPOLLHUP | EPOLLERR))
        nbd_conn_hang_up(c, false);
    nbd_conn_run(c);
}

/* ---- clients come ---- */

static void on_time(void *opaque)
{
    NbdConn *c = opaque;

    /* A timer is not freed from its own callback: on_client() sees the end. */
    if (c->phase != NBD_PHASE_REQUESTS && c->fd >= 0)
        (void)shutdown(c->fd, SHUT_RDWR);
}


void nbd_conn_enter(NbdConn *c)
{
    c->phase = NBD_PHASE_REQUESTS;
    c->server->users++;
    timer_cancel(c->timer);
}

static int64_t now_ns(const NbdServer *s)
{
    return clock_now_ns(timer_queue_clock(io_thread_timers(s->io)));
}

/* Context: the loop. */
static bool conn_new(NbdServer *s, int fd, GError **error)
{
    NbdConn *c = g_new0(NbdConn, 1);
    int on = 1;

    /* Only TCP has it. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    c->server = s;
    c->fd = fd;
    c->out_tail = &c->out_head;
    c->link.data = c;
    c->events = EPOLLIN;
    c->watch = io_watch_new(s->io, fd, c->events, on_client, c, error);
    if (!c->watch) {
        close(fd);
        g_free(c);
        return false;
    }
    c->in = g_malloc(NBD_IN_MAX);
    c->timer = timer_new(io_thread_timers(s->io), on_time, c);
    timer_arm(c->timer, now_ns(s) + NBD_HANDSHAKE_S * NS_PER_SEC);
    g_queue_push_tail_link(&s->conns, &c->link);
    g_mutex_lock(&s->mutex);
    s->n_conns++;
    g_mutex_unlock(&s->mutex);
    nbd_greet(c);
    nbd_conn_run(c);
    return true;
}

static bool full(const NbdServer *s)
{
    return s->conns.length >= s->config.clients;
}

static void listen_again(void *opaque)
{
    NbdServer *s = opaque;

    if (s->muted && s->listen && !full(s)) {
        s->muted = false;
        io_watch_set(s->listen, EPOLLIN);
    }
}

static void on_listen(void *opaque, uint32_t events)
{
    NbdServer *s = opaque;

    for (unsigned i = 0; i < ACCEPTS && !full(s); i++) {
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            (void)conn_new(s, fd, NULL); /* a client that we have no room for sees the end */
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            timer_arm(s->retry, now_ns(s) + RETRY_NS); /* it would wake us at once */
            s->muted = true;
            io_watch_set(s->listen, 0);
            return;
        } else {
            return;
        }
    }
    if (full(s)) {
        s->muted = true;
        io_watch_set(s->listen, 0);
    }
}

/* ---- main ---- */

NbdServer *nbd_server_new(const NbdServerConfig *config)
{
    NbdServer *s = g_new0(NbdServer, 1);

    s->config = *config;
    s->name = g_strdup(config->name);
    s->config.name = s->name;
    s->config.writable = config->writable && !config->node->limits.read_only;
    s->io = blk_io_thread(config->node);
    s->listen_fd = -1;
    s->retry = timer_new(io_thread_timers(s->io), listen_again, s);
    g_mutex_init(&s->mutex);
    g_cond_init(&s->cond);
    return s;
}

bool nbd_server_listen(NbdServer *s, int fd, GError **error)
{
    s->listen_fd = fd; /* before a client can come */
    s->listen = io_watch_new(s->io, fd, EPOLLIN, on_listen, s, error);
    return s->listen != NULL;
}

typedef struct Entry {
    NbdServer *s;
    int fd;
    GError **error;
    bool ok;
} Entry;

static void add_here(void *opaque)
{
    Entry *e = opaque;

    e->ok = conn_new(e->s, e->fd, e->error);
}

bool nbd_server_add(NbdServer *s, int fd, GError **error)
{
    Entry e = {.s = s, .fd = fd, .error = error};

    io_thread_call(s->io, add_here, &e);
    return e.ok;
}

static void stop_here(void *opaque)
{
    NbdServer *s = opaque;

    io_watch_free(g_steal_pointer(&s->listen));
    s->config.left = NULL;
    for (GList *l = s->conns.head, *next; l; l = next) {
        next = l->next;
        nbd_conn_hang_up(l->data, false);
        conn_unref(l->data);
    }
}

void nbd_server_free(NbdServer *s)
{
    if (!s)
        return;
    io_thread_call(s->io, stop_here, s);
    g_mutex_lock(&s->mutex);
    while (s->n_conns)
        g_cond_wait(&s->cond, &s->mutex);
    g_mutex_unlock(&s->mutex);
    io_thread_call(s->io, stop_here, s); /* the last one is out of the server's code */
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    timer_free(s->retry);
    g_mutex_clear(&s->mutex);
    g_cond_clear(&s->cond);
    g_free(s->name);
    g_free(s);
}

unsigned nbd_server_clients(NbdServer *s)
{
    g_mutex_lock(&s->mutex);
    unsigned n = s->n_conns;
    g_mutex_unlock(&s->mutex);
    return n;
}
