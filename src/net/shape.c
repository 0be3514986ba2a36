/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A slower, longer or worse cable: rate, delay and loss between a card and its back end, the same
 * each way. A frame takes its length at the rate, one behind the other, then the delay; what is
 * lost is drawn from a generator (xorshift64*) with a seed, so that a run can be had again.
 * What waits is bounded: a direction that is BACKLOG_NS behind, or holds BYTES_MAX, takes no more,
 * and the sender waits as on a cable that is busy.
 *
 * The streams of one back end have a cable each, and one rate together.
 *
 * Threads: both ports and the timer are on the back end's loop; how far the rate is used up, where
 * several loops share it, is guarded by a lock. Time is the guest's.
 * Invariants: held frames of a direction are in order of `due`; the timer is armed for the earlier
 * of both heads unless the receiver there is full, who then says when there is room.
 */
#include "shape.h"

#include <string.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/lock.h"
#include "lodge/num.h"
#include "pkt.h"

#define BACKLOG_NS (100 * INT64_C(1000000))

enum { BYTES_MAX = 8 << 20 };

typedef struct Held {
    struct Held *next;
    int64_t due;
    bool lost; /* at the far end: it takes its time on the cable */
    NetFrame frame; /* of iov */
    struct iovec iov;
    uint8_t data[];
} Held;

typedef struct ShapeDir {
    NetShape *shape;
    NetPort port;      /* where frames of this direction come in */
    NetPort *out;      /* where they leave: the port of the other direction */
    Held *head, **end; /* owned */
    uint64_t bytes;
    bool full;       /* the receiver will say when it has room */
    bool refused;    /* the sender waits */
} ShapeDir;

struct NetShape {
    /* constant */
    ShapeOptions o;
    LodgeClock *clock; /* borrowed */
    IoThread *io;      /* borrowed: the back end's */
    char *name;        /* owned */
    LodgeTimer *timer;
    /* loop */
    ShapeDir dir[2]; /* [0] from the card, [1] from the back end */
    uint64_t random;
    uint64_t lost; /* atomic */
    /* Of the first one, for all: */
    NetShape *first; /* constant, borrowed: whose that is */
    LodgeLock lock;
    int64_t free_ns[2]; /* guarded by lock: when the cable has sent what it was given, each way */
};

static uint32_t draw(NetShape *s)
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return (uint32_t)(s->random * UINT64_C(0x2545f4914f6cdd1d) >> 32);
}

/* Whether this frame is lost; it is counted then. */
static bool lose(NetShape *s)
{
    if (!s->o.loss || draw(s) >= s->o.loss)
        return false;
    __atomic_fetch_add(&s->lost, 1, __ATOMIC_RELAXED);
    return true;
}

static void arm(NetShape *s)
{
    int64_t due = TIMER_NEVER;

    for (int i = 0; i < 2; i++) {
        ShapeDir *d = &s->dir[i];
        if (d->head && !d->full)
            due = MIN(due, d->head->due);
    }
    if (due != TIMER_NEVER)
        timer_arm(s->timer, due);
}

/* How long the cable is busy with what it was given, by any stream. */
static int64_t backlog_ns(ShapeDir *d, int64_t now)
{
    NetShape *first = d->shape->first;

    lodge_lock(&first->lock);
    int64_t free_ns = first->free_ns[d - d->shape->dir];
    lodge_unlock(&first->lock);
    return free_ns - now;
}

/* When the cable has sent @len bytes more. */
static int64_t occupy(ShapeDir *d, uint32_t len, int64_t now)
{
    NetShape *first = d->shape->first;
    int64_t *at = &first->free_ns[d - d->shape->dir];

    lodge_lock(&first->lock);
    *at = MAX(*at, now);
    if (first->o.rate)
        *at += (int64_t)muldiv64((uint64_t)len * 8, (uint64_t)NS_PER_SEC, first->o.rate);
    int64_t free_ns = *at;
    lodge_unlock(&first->lock);
    return free_ns;
}

static bool hold(ShapeDir *d, const NetFrame *f, int64_t now)
{
    NetShape *s = d->shape;

    if (d->head && (d->bytes + f->len > BYTES_MAX || backlog_ns(d, now) > BACKLOG_NS))
        return false;
    Held *h = g_malloc(sizeof *h + f->len);
    h->next = NULL;
    h->lost = lose(s);
    h->frame = *f;
    h->iov = (struct iovec){h->data, f->len};
    h->frame.iov = &h->iov;
    h->frame.niov = 1;
    if (!pkt_gather(f, 0, h->data, f->len)) {
        g_free(h);
        return true;
    }
    h->due = occupy(d, f->len, now) + s->o.delay_ns;
    *d->end = h;
    d->end = &h->next;
    d->bytes += f->len;
    return true;
}

static unsigned shape_send(NetPort *port, const NetFrame *v, unsigned n)
{
    ShapeDir *d = port->opaque;
    NetShape *s = d->shape;
    unsigned i = 0;

    if (s->o.rate || s->o.delay_ns) {
        int64_t now = clock_now_ns(s->clock);
        while (i < n && hold(d, &v[i], now))
            i++;
        d->refused = i < n;
        arm(s);
    } else {
        while (i < n && (lose(s) || net_send(d->out, &v[i], 1)))
            i++;
        d->full = d->refused = i < n;
    }
    return i;
}

/* Let go what has arrived, as far as the receiver takes it. */
static void release(ShapeDir *d, int64_t now)
{
    while (d->head && d->head->due <= now && !d->full) {
        Held *h = d->head;
        if (!h->lost && !net_send(d->out, &h->frame, 1)) {
            d->full = true;
            break;
        }
        d->head = h->next;
        if (!d->head)
            d->end = &d->head;
        d->bytes -= h->frame.len;
        g_free(h);
    }
    if (d->refused && !d->full &&
        (!d->head || (d->bytes <= BYTES_MAX / 2 && backlog_ns(d, now) <= BACKLOG_NS / 2))) {
        d->refused = false;
        net_rx_ready(&d->port);
    }
}

static void on_timer(void *opaque)
{
    NetShape *s = opaque;
    int64_t now = clock_now_ns(s->clock);

    for (int i = 0; i < 2; i++)
        release(&s->dir[i], now);
    arm(s);
}

/* @port has room again, for the frames that come in at the other one. */
static void shape_writable(NetPort *port)
{
    ShapeDir *d = port->opaque;
    NetShape *s = d->shape;
    ShapeDir *into = &s->dir[d == &s->dir[0] ? 1 : 0];

    into->full = false;
    release(into, clock_now_ns(s->clock));
    arm(s);
}

/* The link of the peer at @port is told to the other one's. */
static void shape_link(NetPort *port, bool up)
{
    ShapeDir *d = port->opaque;
    NetPort *other = d->out;

    other->down = !up;
    net_set_link(other, up);
}

/* What the card says of its stream is told to the back end. */
static void shape_changed(NetPort *port)
{
    ShapeDir *d = port->opaque;
    NetPort *other = d->out;

    if (d != &d->shape->dir[0])
        return;
    __atomic_store_n(&other->idle, other->stream && net_peer_idle(port), __ATOMIC_RELAXED);
    net_changed(other);
}

static const NetPortOps shape_ops = {
    .send = shape_send,
    .writable = shape_writable,
    .link = shape_link,
    .changed = shape_changed,
};

static void shape_start(void *opaque)
{
    NetShape *s = opaque;

    s->dir[0].port.down = !net_peer_link(&s->dir[1].port);
}

/**
 * net_shape_new() - Put a cable of these qualities in front of a back end's port
 * @host: not joined; it is now, and must stay until net_shape_free()
 * Context: main thread. Return: transfer full, or NULL with the error of net_join().
 */
NetShape *net_shape_new(NetPort *host, NetShape *first, LodgeClock *clock, const ShapeOptions *o,
                        GError **error)
{
    NetShape *s = g_new0(NetShape, 1);

    s->o = *o;
    s->o.seed += host->stream;
    s->first = first ? first : s;
    lodge_lock_init(&s->lock, LOCK_RANK_QUEUE, "net rate");
    s->clock = clock;
    s->io = host->io;
    s->name = g_strdup(host->name);
    s->random = s->o.seed ? s->o.seed : 1; /* 0 is the one state that it never leaves */
    s->timer = timer_new(io_thread_timers(s->io), on_timer, s);
    for (int i = 0; i < 2; i++) {
        ShapeDir *d = &s->dir[i];
        d->shape = s;
        d->end = &d->head;
        d->out = &s->dir[1 - i].port;
        d->port = (NetPort){.ops = &shape_ops, .name = s->name, .opaque = d, .io = s->io,
                            .mtu = host->mtu, .stream = host->stream, .idle = host->stream > 0,
                            .offloads = NET_OFF_ALL};
    }
    if (net_join(&s->dir[1].port, host, error)) {
        io_thread_call(s->io, shape_start, s);
        return s;
    }
    net_shape_free(s);
    return NULL;
}

NetPort *net_shape_port(NetShape *s)
{
    return &s->dir[0].port;
}

uint64_t net_shape_lost(NetShape *s)
{
    return __atomic_load_n(&s->lost, __ATOMIC_RELAXED);
}

void net_shape_free(NetShape *s)
{
    if (!s)
        return;
    net_part(&s->dir[0].port);
    net_part(&s->dir[1].port);
    timer_free(s->timer);
    for (int i = 0; i < 2; i++) {
        for (Held *h = s->dir[i].head; h;) {
            Held *next = h->next;
            g_free(h);
            h = next;
        }
    }
    lodge_lock_clear(&s->lock);
    g_free(s->name);
    g_free(s);
}
