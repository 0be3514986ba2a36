/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Back ends over one descriptor: see host_end.h. Frames are received in batches into one buffer
 * and given to the wire at once; what the card has no room for stays there, and the descriptor is
 * not read meanwhile, so that the host's own queue fills and nothing here grows. Frames to be sent
 * that the host has no room for are refused, which the card takes as a cable that is busy; a peer
 * that does not read for so long that its host must be sick (FULL_TICKS) loses them instead.
 *
 * A connection that is lost takes the link down and is said once; with `again` it is sought with
 * pauses from RETRY_MIN_NS to RETRY_MAX_NS, and its return is said too.
 *
 * Threads: everything after host_end_start() is on the loop, but counters. Timers are the guest's:
 * a paused machine seeks nothing.
 */
#include "host_end.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"

#define RETRY_MIN_NS (100 * INT64_C(1000000))
#define RETRY_MAX_NS (5 * NS_PER_SEC)
#define SAY_NS (60 * NS_PER_SEC)
#define ROOM_NS INT64_C(1000000)        /* where nothing tells that there is room */
#define ROOM_POLLED_NS (20 * ROOM_NS)   /* where the descriptor does */

enum {
    FULL_TICKS = 50, /* of the room timer: then frames are dropped */
    ROUNDS = 8,      /* batches before others get a turn */
    SAY_MAX = 20,    /* lines in SAY_NS */
};

static const char *const drop_reasons[HOST_DROPS] = {
    [HOST_DROP_DOWN] = "nobody at the other end",
    [HOST_DROP_SLOW] = "the other end does not read",
    [HOST_DROP_TOO_LONG] = "too long for the other end",
    [HOST_DROP_HOST] = "refused by the host",
    [HOST_DROP_MALFORMED] = "received malformed",
};

void host_end_drop(HostEnd *h, HostDrop why, unsigned frames)
{
    __atomic_fetch_add(&h->drops[why], frames, __ATOMIC_RELAXED);
}

static bool rx_held(const HostEnd *h)
{
    return h->rx_first < h->rx_count;
}

static void set_events(HostEnd *h)
{
    if (h->watch)
        io_watch_set(h->watch, (rx_held(h) ? 0 : EPOLLIN) |
                                   (h->want_out || (h->tx_full && h->polls_room) ? EPOLLOUT
                                                                                      : 0));
}

void host_end_want_out(HostEnd *h, bool want)
{
    h->want_out = want;
    set_events(h);
}

/* ---- receiving ---- */

NetFrame *host_end_rx(HostEnd *h, void *data, size_t len)
{
    static const uint8_t pad[HOST_FRAME_PAD];

    if (len < HOST_FRAME_MIN || len > NET_FRAME_MAX || h->rx_count == HOST_RX_BATCH) {
        host_end_drop(h, HOST_DROP_MALFORMED, 1);
        return NULL;
    }
    struct iovec *iov = h->iov[h->rx_count];
    NetFrame *f = &h->frame[h->rx_count++];
    iov[0] = (struct iovec){data, len};
    *f = (NetFrame){.iov = iov, .niov = 1, .len = (uint32_t)len};
    if (len < HOST_FRAME_PAD) {
        iov[1] = (struct iovec){(void *)pad, HOST_FRAME_PAD - len};
        f->niov = 2;
        f->len = HOST_FRAME_PAD;
    }
    return f;
}

/* Give the card what was received; false: it holds some back. */
static bool rx_flush(HostEnd *h)
{
    if (rx_held(h)) {
        unsigned n = h->rx_count - h->rx_first;
        unsigned took = net_send(&h->port, h->frame + h->rx_first, n);
        h->rx_first += MIN(took, n);
    }
    if (rx_held(h))
        return false;
    h->rx_first = h->rx_count = 0;
    return true;
}

static void receive(HostEnd *h);

static void receive_more(void *opaque)
{
    HostEnd *h = opaque;

    h->more_posted = false;
    if (h->fd >= 0)
        receive(h);
}

/* Until nothing is left, the card is full, or it is the turn of others. Then we come again by
 * ourselves: what a driver has read and not yet looked at no descriptor tells of. */
static void receive(HostEnd *h)
{
    unsigned round = 0;

    for (; rx_flush(h) && round < ROUNDS; round++) {
        int n = h->ops->fill(h);
        if (n == HOST_FILL_DRY)
            break;
        if (n == HOST_FILL_LOST) {
            (void)rx_flush(h); /* what came before the end, as far as there is room */
            host_end_lost(h, h->why);
            return;
        }
    }
    if (round == ROUNDS && !rx_held(h) && !h->more_posted) {
        h->more_posted = true;
        io_thread_post(h->io, receive_more, h);
    }
    set_events(h);
}

static void end_writable(NetPort *port)
{
    HostEnd *h = port->opaque;

    if (h->fd >= 0)
        receive(h);
}

/* ---- sending ---- */

static void room_again(HostEnd *h)
{
    h->tx_full = false;
    set_events(h);
    net_rx_ready(&h->port);
}

static void on_room_timer(void *opaque)
{
    HostEnd *h = opaque;

    if (!h->tx_full)
        return;
    h->full_ticks++;
    if (!h->polls_room || h->full_ticks >= FULL_TICKS)
        room_again(h);
    else
        timer_arm(h->room, clock_now_ns(h->clock) + ROOM_POLLED_NS);
}

static unsigned end_send(NetPort *port, const NetFrame *v, unsigned n)
{
    HostEnd *h = port->opaque;

    if (h->fd < 0) {
        host_end_drop(h, HOST_DROP_DOWN, n);
        return n;
    }
    unsigned took = h->ops->send(h, v, n);
    if (h->fd < 0) { /* it was lost on the way */
        host_end_drop(h, HOST_DROP_DOWN, n - MIN(took, n));
        return n;
    }
    if (took >= n) {
        h->full_ticks = 0;
        return n;
    }
    if (took)
        h->full_ticks = 0;
    if (h->full_ticks >= FULL_TICKS) {
        host_end_drop(h, HOST_DROP_SLOW, n - took);
        return n;
    }
    if (!h->tx_full) {
        h->tx_full = true;
        timer_arm(h->room, clock_now_ns(h->clock) +
                               (h->polls_room ? ROOM_POLLED_NS : ROOM_NS));
        set_events(h);
    }
    return took;
}

static void end_changed(NetPort *port)
{
    HostEnd *h = port->opaque;

    if (h->fd >= 0 && h->ops->changed)
        h->ops->changed(h);
}

static const NetPortOps end_port_ops = {
    .send = end_send,
    .writable = end_writable,
    .changed = end_changed,
};

/* ---- the connection ---- */

static void on_event(void *opaque, uint32_t events)
{
    HostEnd *h = opaque;

    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        if (h->want_out && h->ops->ready)
            h->ops->ready(h);
        if (h->fd >= 0 && h->tx_full && h->polls_room) {
            h->full_ticks = 0;
            room_again(h);
        }
    }
    if (h->fd < 0)
        return;
    if (rx_held(h) && (events & (EPOLLERR | EPOLLHUP)))
        host_end_lost(h, "the other end has gone"); /* such events cannot be muted */
    else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        receive(h);
}

static void on_ctl(void *opaque, uint32_t events)
{
    HostEnd *h = opaque;

    if (h->ctl >= 0 && (!h->ops->ctl || !h->ops->ctl(h)))
        host_end_lost(h, "the other end has closed the connection");
}

static void set_link(HostEnd *h, bool up)
{
    h->port.down = !up;
    net_set_link(&h->port, up);
}

static void disconnect(HostEnd *h)
{
    io_watch_free(g_steal_pointer(&h->watch));
    io_watch_free(g_steal_pointer(&h->ctl_watch));
    if (h->ops->lost)
        h->ops->lost(h);
    if (h->fd >= 0)
        close(h->fd);
    if (h->ctl >= 0)
        close(h->ctl);
    h->fd = h->ctl = -1;
    h->rx_first = h->rx_count = 0;
    h->want_out = false;
    h->full_ticks = 0;
}

bool host_end_up(HostEnd *h, GError **error)
{
    h->watch = io_watch_new(h->io, h->fd, EPOLLIN, on_event, h, error);
    if (h->watch && h->ctl >= 0)
        h->ctl_watch = io_watch_new(h->io, h->ctl, EPOLLIN | EPOLLRDHUP, on_ctl, h, error);
    if (!h->watch || (h->ctl >= 0 && !h->ctl_watch)) {
        disconnect(h);
        return false;
    }
    h->backoff_ns = RETRY_MIN_NS;
    set_events(h);
    end_changed(&h->port);
    set_link(h, true);
    return true;
}

static void seek(HostEnd *h)
{
    timer_arm(h->retry, clock_now_ns(h->clock) + h->backoff_ns);
    h->backoff_ns = MIN(2 * h->backoff_ns, RETRY_MAX_NS);
}

bool host_end_may_say(HostEnd *h)
{
    int64_t now = clock_now_ns(h->clock);

    if (h->silent)
        return false;
    if (!h->said || now - h->said_since > SAY_NS) {
        h->said_since = now;
        h->said = 0;
    }
    return h->said < SAY_MAX && ++h->said;
}

void host_end_lost(HostEnd *h, const char *why)
{
    if (h->fd < 0)
        return;
    disconnect(h);
    set_link(h, false);
    if (host_end_may_say(h))
        lodge_warn("%s: %s: %s%s", h->id, h->detail, why,
                   h->again ? "; trying again" : "; the link is down");
    if (h->tx_full)
        room_again(h); /* to be dropped, and counted */
    if (h->again)
        seek(h);
}

static void on_retry(void *opaque)
{
    HostEnd *h = opaque;
    g_autoptr(GError) error = NULL;

    if (h->fd >= 0)
        return;
    if (h->ops->connect(h, false, &error) && h->fd >= 0 && host_end_up(h, &error)) {
        if (host_end_may_say(h))
            lodge_note("%s: %s: connected again", h->id, h->detail);
        return;
    }
    lodge_trace("net", "%s: %s", h->id, error ? error->message : "not yet");
    if (h->again)
        seek(h);
}

/* ---- life ---- */

typedef struct StartCall {
    HostEnd *h;
    GError **error;
    bool ok;
} StartCall;

static void start_on_loop(void *opaque)
{
    StartCall *s = opaque;
    HostEnd *h = s->h;

    h->port.down = true;
    s->ok = h->ops->connect(h, true, s->error) && (h->fd < 0 || host_end_up(h, s->error));
}

/**
 * host_end_open() - Make what is needed before a connection
 * @h: zeroed, in a struct of the driver's
 * @offloads: NET_OFF_* that the driver can send
 * Context: main thread. Return: false: host_end_free() is still to be called.
 */
bool host_end_open(HostEnd *h, const NetDriver *driver, const HostEndOps *ops, const char *id,
                   LodgeClock *clock, uint32_t offloads, GError **error)
{
    g_autofree char *thread = g_strndup(id, 15);

    h->be.driver = driver;
    h->be.port = &h->port;
    h->be.info = host_end_info;
    h->ops = ops;
    h->id = g_strdup(id);
    h->clock = clock;
    h->fd = h->ctl = -1;
    h->backoff_ns = RETRY_MIN_NS;
    h->rx = g_malloc(HOST_RX_BYTES);
    h->io = io_thread_new(thread, clock, error);
    if (!h->io)
        return false;
    h->retry = timer_new(io_thread_timers(h->io), on_retry, h);
    h->room = timer_new(io_thread_timers(h->io), on_room_timer, h);
    h->port = (NetPort){.ops = &end_port_ops, .name = h->id, .opaque = h, .io = h->io,
                        .offloads = offloads};
    return true;
}

/**
 * host_end_start() - Connect for the first time
 * Context: main thread. Return: false with the driver's error.
 */
bool host_end_start(HostEnd *h, GError **error)
{
    StartCall s = {.h = h, .error = error};

    io_thread_call(h->io, start_on_loop, &s);
    return s.ok;
}

static void stop_on_loop(void *opaque)
{
    HostEnd *h = opaque;

    h->again = false;
    timer_cancel(h->retry);
    timer_cancel(h->room);
    disconnect(h);
}

/**
 * host_end_stop() - Part from the card, and end the connection; nothing runs on the loop then
 * Context: main thread.
 */
void host_end_stop(HostEnd *h)
{
    net_part(&h->port);
    if (h->retry)
        io_thread_call(h->io, stop_on_loop, h);
}

void host_end_free(HostEnd *h)
{
    timer_free(h->retry);
    timer_free(h->room);
    io_thread_free(h->io);
    if (h->fd >= 0)
        close(h->fd);
    g_free(h->rx);
    g_free(h->id);
}

typedef struct InfoCall {
    HostEnd *h;
    NetInfo *info;
} InfoCall;

static void info_on_loop(void *opaque)
{
    InfoCall *c = opaque;

    c->info->link = c->h->fd >= 0;
    g_strlcpy(c->info->detail, c->h->detail, sizeof c->info->detail);
}

/* @more: dropped by others that belong to it. */
void host_end_tell(NetBackend *be, const uint64_t more[HOST_DROPS], NetInfo *ret_info)
{
    HostEnd *h = (HostEnd *)be;
    InfoCall c = {h, ret_info};
    unsigned n = 0;

    io_thread_call(h->io, info_on_loop, &c);
    for (unsigned i = 0; i < HOST_DROPS; i++) {
        uint64_t frames = __atomic_load_n(&h->drops[i], __ATOMIC_RELAXED) + more[i];
        if (frames) {
            ret_info->drop[n].reason = drop_reasons[i];
            ret_info->drop[n++].frames = frames;
        }
    }
}

void host_end_info(NetBackend *be, NetInfo *ret_info)
{
    static const uint64_t none[HOST_DROPS];

    host_end_tell(be, none, ret_info);
}
