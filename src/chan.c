/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Channels: bytes between a serial-like device and the host, both ways, where neither waits for
 * the other. What is opened and how it is read and written is chan_host.c's business.
 *
 * Output: chan_write() copies into `fresh` under the lock and posts one call to the IoThread,
 * which shows the bytes to the tap, writes what the host takes at once, and keeps the rest in
 * `pending`. Both are rings with a ceiling that lose their oldest bytes. There is no delay.
 * Input: read on the IoThread into `in` and offered to the device; when it takes fewer, nothing
 * is read until chan_want(), so a pipe is not drained into nowhere. A terminal is the exception:
 * it is always read, since its escape key must work while the guest hangs; what then does not
 * fit into `in` is dropped.
 *
 * Invariants:
 * (1) `posted` is true exactly while a chan_service() is on its way, so posts do not pile up.
 * (2) Host descriptors, watches and callbacks belong to the IoThread until chan_close().
 * (3) No callback runs with the lock held.
 */
#include "lodge/chan.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/lock.h"
#include "lodge/num.h"
#include "chan_host.h"

enum {
    RING_FIRST = 4096,
    RING_MAX = 1 << 20,
    RING_KEEP = 65536, /* an empty ring that grew beyond this shrinks again */
    CHUNK = 4096,
    IN_MAX = 16384,
    ROUNDS = 64,             /* chunks that one call handles before others have their turn */
    CLOSE_PATIENCE_MS = 1000 /* for a reader that takes nothing while we close */
};

/* Bytes in order; put never fails, the oldest make room. */
typedef struct ByteRing {
    uint8_t *buf; /* owned */
    size_t cap, start, len;
} ByteRing;

struct Chan {
    /* constant */
    char *name;   /* owned */
    IoThread *io; /* borrowed, outlives us */
    char *describe; /* owned; the host's own text may not change under a reader */
    bool terminal, pair;

    LodgeLock lock;
    /* guarded by lock */
    ByteRing fresh, injected;
    bool posted, wanted;

    /* atomic */
    uint64_t dropped;

    /* IoThread only */
    ChanHost host;
    const ChanOps *ops;
    void *ops_opaque;
    ChanTapFn tap;
    void *tap_opaque;
    ChanFilterFn filter;
    void *filter_opaque;
    ByteRing pending;
    IoWatch *in_watch, *out_watch, *listen_watch;
    uint8_t in[IN_MAX];
    size_t in_len;
    bool in_stalled; /* the device took fewer and has not called chan_want() */
    bool closed;
};

static void chan_service(void *opaque);
static void update_watches(Chan *c);

/* ---- rings ---- */

static void ring_resize(ByteRing *r, size_t cap)
{
    uint8_t *buf = g_malloc(cap);
    size_t first = MIN(r->len, r->cap - r->start);

    if (r->len) {
        memcpy(buf, r->buf + r->start, first);
        memcpy(buf + first, r->buf, r->len - first);
    }
    g_free(r->buf);
    *r = (ByteRing){buf, cap, 0, r->len};
}

/* Return: bytes that were lost. */
static size_t ring_put(ByteRing *r, const uint8_t *data, size_t len)
{
    size_t lost = 0;

    if (len > RING_MAX) {
        lost = len - RING_MAX;
        data += lost;
        len = RING_MAX;
    }
    if (r->len + len > r->cap && r->cap < RING_MAX) {
        size_t cap = r->cap ? r->cap : RING_FIRST;
        while (cap < r->len + len && cap < RING_MAX)
            cap *= 2;
        ring_resize(r, cap);
    }
    if (r->len + len > r->cap) {
        size_t over = r->len + len - r->cap;
        r->start = (r->start + over) % r->cap;
        r->len -= over;
        lost += over;
    }
    if (!len)
        return lost;
    size_t at = (r->start + r->len) % r->cap, first = MIN(len, r->cap - at);
    memcpy(r->buf + at, data, first);
    memcpy(r->buf, data + first, len - first);
    r->len += len;
    return lost;
}

static void ring_skip(ByteRing *r, size_t n)
{
    r->len -= n;
    r->start = r->len ? (r->start + n) % r->cap : 0;
    if (!r->len && r->cap > RING_KEEP) {
        g_free(r->buf);
        *r = (ByteRing){0};
    }
}

static size_t ring_take(ByteRing *r, uint8_t *to, size_t max)
{
    size_t n = MIN(r->len, max), first = MIN(n, r->cap - r->start);

    if (!n)
        return 0;
    memcpy(to, r->buf + r->start, first);
    memcpy(to + first, r->buf, n - first);
    ring_skip(r, n);
    return n;
}

static size_t ring_span(const ByteRing *r, const uint8_t **ret_data)
{
    *ret_data = r->buf + r->start;
    return MIN(r->len, r->cap - r->start);
}

/* ---- the host's end, on the IoThread ---- */

static void drop_watch(IoWatch **w)
{
    io_watch_free(*w);
    *w = NULL;
}

static void host_gone(Chan *c)
{
    bool was = c->host.in_fd >= 0 || c->host.out_fd >= 0;

    drop_watch(&c->in_watch);
    drop_watch(&c->out_watch);
    chan_host_hang_up(&c->host);
    if (was && c->ops && c->ops->connected)
        c->ops->connected(c->ops_opaque, false);
}

/* End of input. A socket's peer has left; other kinds go on writing. */
static void input_ended(Chan *c)
{
    if (c->host.socket) {
        host_gone(c);
        return;
    }
    drop_watch(&c->in_watch);
    chan_host_close_input(&c->host);
}

static void output_failed(Chan *c)
{
    if (c->host.socket) {
        host_gone(c);
        return;
    }
    drop_watch(&c->out_watch);
    chan_host_close_output(&c->host);
}

/* Write what the host takes. */
static void flush_pending(Chan *c)
{
    while (c->pending.len && c->host.out_fd >= 0) {
        const uint8_t *data;
        size_t len = ring_span(&c->pending, &data);
        ssize_t n = chan_host_write(&c->host, data, len);
        if (n < 0 && errno != EAGAIN)
            output_failed(c);
        if (n <= 0)
            break;
        ring_skip(&c->pending, (size_t)n);
    }
    /* Nobody there: a server's next client gets the last of it, other kinds have no next. */
    if (c->host.out_fd < 0 && c->host.listen_fd < 0)
        ring_skip(&c->pending, c->pending.len);
}

/* Move fresh output on. Return: whether some is left for another turn. */
static bool pump_output(Chan *c, int rounds)
{
    uint8_t chunk[CHUNK];

    for (int i = 0; i < rounds; i++) {
        lodge_lock(&c->lock);
        size_t n = ring_take(&c->fresh, chunk, sizeof chunk);
        lodge_unlock(&c->lock);
        if (!n)
            return false;
        if (c->tap)
            c->tap(c->tap_opaque, chunk, n);
        size_t lost = ring_put(&c->pending, chunk, n);
        __atomic_fetch_add(&c->dropped, lost, __ATOMIC_RELAXED);
        flush_pending(c);
    }
    return true;
}

/* One read into `in`. Return: whether it may be tried again. */
static bool read_input(Chan *c)
{
    uint8_t chunk[CHUNK];
    size_t room = c->terminal ? sizeof chunk : MIN(sizeof chunk, sizeof c->in - c->in_len);

    if (!room || c->host.in_fd < 0)
        return false;
    ssize_t n = chan_host_read(&c->host, chunk, room);
    if (n < 0 && errno == EAGAIN)
        return false;
    if (n <= 0) {
        input_ended(c);
        return false;
    }
    size_t len = (size_t)n;
    if (c->terminal && c->filter)
        len = c->filter(c->filter_opaque, chunk, len);
    len = MIN(len, sizeof c->in - c->in_len);
    memcpy(c->in + c->in_len, chunk, len);
    c->in_len += len;
    return true;
}

/* Offer what is there to the device. Return: whether some is left for another turn. */
static bool deliver_input(Chan *c)
{
    for (int i = 0; i < ROUNDS; i++) {
        if (!c->ops || !c->ops->input || c->in_stalled)
            return false;
        if (!c->in_len) {
            lodge_lock(&c->lock);
            c->in_len = ring_take(&c->injected, c->in, sizeof c->in);
            lodge_unlock(&c->lock);
        }
        if (!c->in_len && !c->host.in_polled)
            (void)read_input(c); /* whatever it answers, in_len tells */
        if (!c->in_len)
            return false;
        size_t n = c->ops->input(c->ops_opaque, c->in, c->in_len);
        n = MIN(n, c->in_len);
        c->in_stalled = n < c->in_len;
        c->in_len -= n;
        memmove(c->in, c->in + n, c->in_len);
    }
    return true;
}

static void in_ready(void *opaque, uint32_t events)
{
    Chan *c = opaque;

    (void)read_input(c); /* level-triggered: more comes by itself */
    bool more = deliver_input(c);
    update_watches(c);
    if (more)
        chan_want(c);
}

static void out_ready(void *opaque, uint32_t events)
{
    Chan *c = opaque;

    flush_pending(c);
    update_watches(c);
}

static void client_ready(void *opaque, uint32_t events)
{
    Chan *c = opaque;

    if (!chan_host_accept(&c->host))
        return;
    if (c->ops && c->ops->connected)
        c->ops->connected(c->ops_opaque, true);
    flush_pending(c);
    update_watches(c);
}

/* A watch that nobody serves would spin on a hang-up, so they exist only while wanted. */
static void want_watch(Chan *c, IoWatch **w, bool want, int fd, uint32_t events, IoWatchFn fn)
{
    g_autoptr(GError) error = NULL;

    if (want && !*w) {
        *w = io_watch_new(c->io, fd, events, fn, c, &error);
        if (!*w && fd == c->host.out_fd)
            output_failed(c); /* cannot be waited for: the same as gone */
    } else if (!want && *w) {
        drop_watch(w);
    }
}

static void update_watches(Chan *c)
{
    ChanHost *h = &c->host;
    bool device_waits = c->ops && c->ops->input && !c->in_stalled && !c->in_len;
    bool read_on = !c->closed && h->in_fd >= 0 && h->in_polled && (c->terminal || device_waits);
    bool write_on = !c->closed && h->out_fd >= 0 && c->pending.len;
    bool accept_on = !c->closed && h->listen_fd >= 0 && h->in_fd < 0;

    want_watch(c, &c->in_watch, read_on, h->in_fd, EPOLLIN, in_ready);
    want_watch(c, &c->out_watch, write_on, h->out_fd, EPOLLOUT, out_ready);
    want_watch(c, &c->listen_watch, accept_on, h->listen_fd, EPOLLIN, client_ready);
}

/* Ask for a chan_service(); no lock held by us. */
static void ask_service(Chan *c, bool want)
{
    lodge_lock(&c->lock);
    bool post = !c->posted;
    c->posted = true;
    c->wanted |= want;
    lodge_unlock(&c->lock);
    if (post)
        io_thread_post(c->io, chan_service, c);
}

static void chan_service(void *opaque)
{
    Chan *c = opaque;

    lodge_lock(&c->lock);
    c->posted = false;
    if (c->wanted)
        c->in_stalled = false;
    c->wanted = false;
    lodge_unlock(&c->lock);
    if (c->closed)
        return;
    bool more = pump_output(c, ROUNDS);
    more |= deliver_input(c);
    update_watches(c);
    if (more)
        ask_service(c, false);
}

/* ---- the device's side ---- */

Chan *chan_open(const char *spec, const char *name, IoThread *io, GError **error)
{
    ChanHost host;

    if (!chan_host_open(spec, name, &host, error))
        return NULL;
    Chan *c = g_new0(Chan, 1);
    c->name = g_strdup(name);
    c->io = io;
    c->describe = g_strdup(host.describe);
    c->terminal = host.terminal;
    c->pair = !strcmp(spec, "pair");
    c->host = host;
    lodge_lock_init(&c->lock, LOCK_RANK_QUEUE, "channel");
    ask_service(c, false); /* sets the first watches */
    return c;
}

static void stop_on_loop(void *opaque)
{
    Chan *c = opaque;

    c->ops = NULL;
    while (pump_output(c, ROUNDS))
        ;
    c->closed = true;
    c->tap = NULL;
    update_watches(c);
}

static void visit(void *opaque)
{
}

/* On the way out the host may have a moment, as long as it keeps taking something. */
static void flush_patiently(Chan *c)
{
    for (;;) {
        size_t before = c->pending.len;
        flush_pending(c);
        if (!c->pending.len || c->host.out_fd < 0)
            return;
        if (c->pending.len < before)
            continue;
        struct pollfd p = {.fd = c->host.out_fd, .events = POLLOUT};
        if (c->host.keep_fd >= 0 || poll(&p, 1, CLOSE_PATIENCE_MS) <= 0)
            return; /* a pty that nobody reads is kept open by ourselves only */
    }
}

void chan_close(Chan *c)
{
    if (!c)
        return;
    io_thread_call(c->io, stop_on_loop, c);
    io_thread_call(c->io, visit, NULL); /* a service that was posted meanwhile finds it closed */
    flush_patiently(c);
    chan_host_close(&c->host);
    lodge_lock_clear(&c->lock);
    g_free(c->fresh.buf);
    g_free(c->injected.buf);
    g_free(c->pending.buf);
    g_free(c->describe);
    g_free(c->name);
    g_free(c);
}

int chan_take_peer(Chan *c)
{
    int fd = c->pair ? c->host.keep_fd : -1;

    if (c->pair)
        c->host.keep_fd = -1; /* only chan_close() looks at it beside us */
    return fd;
}

const char *chan_describe(const Chan *c)
{
    return c->describe;
}

bool chan_is_terminal(const Chan *c)
{
    return c->terminal;
}

uint64_t chan_dropped(const Chan *c)
{
    return __atomic_load_n(&c->dropped, __ATOMIC_RELAXED);
}

typedef struct Attach {
    Chan *c;
    const ChanOps *ops;
    ChanTapFn tap;
    ChanFilterFn filter;
    void *opaque;
} Attach;

/* Somebody is there: at the host's end, or who looks at what passes where there is none. */
static void say_connected(Chan *c)
{
    bool tapped = c->tap && !strcmp(c->describe, "none");

    if (c->ops && c->ops->connected && (c->host.in_fd >= 0 || c->host.out_fd >= 0 || tapped))
        c->ops->connected(c->ops_opaque, true);
}

static void attach_on_loop(void *opaque)
{
    Attach *a = opaque;
    Chan *c = a->c;

    c->ops = a->ops;
    c->ops_opaque = a->opaque;
    c->in_stalled = false;
    say_connected(c);
    ask_service(c, false);
}

void chan_attach(Chan *c, const ChanOps *ops, void *opaque)
{
    Attach a = {.c = c, .ops = ops, .opaque = opaque};

    io_thread_call(c->io, attach_on_loop, &a);
}

void chan_write(Chan *c, const void *data, size_t len)
{
    if (!len)
        return;
    lodge_lock(&c->lock);
    size_t lost = ring_put(&c->fresh, data, len);
    bool post = !c->posted;
    c->posted = true;
    lodge_unlock(&c->lock);
    __atomic_fetch_add(&c->dropped, lost, __ATOMIC_RELAXED);
    if (post)
        io_thread_post(c->io, chan_service, c);
}

void chan_want(Chan *c)
{
    ask_service(c, true);
}

void chan_inject(Chan *c, const void *data, size_t len)
{
    lodge_lock(&c->lock);
    (void)ring_put(&c->injected, data, len); /* a megabyte typed ahead: the oldest goes */
    lodge_unlock(&c->lock);
    ask_service(c, false);
}

static void tap_on_loop(void *opaque)
{
    Attach *a = opaque;

    a->c->tap = a->tap;
    a->c->tap_opaque = a->opaque;
    say_connected(a->c);
}

void chan_set_tap(Chan *c, ChanTapFn fn, void *opaque)
{
    Attach a = {.c = c, .tap = fn, .opaque = opaque};

    io_thread_call(c->io, tap_on_loop, &a);
}

static void filter_on_loop(void *opaque)
{
    Attach *a = opaque;

    a->c->filter = a->filter;
    a->c->filter_opaque = a->opaque;
}

void chan_set_input_filter(Chan *c, ChanFilterFn fn, void *opaque)
{
    Attach a = {.c = c, .filter = fn, .opaque = opaque};

    io_thread_call(c->io, filter_on_loop, &a);
}
