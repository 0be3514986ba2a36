/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The wire between two ports. Each direction has one bounded ring of bytes that holds whole frames
 * in line, so that a frame costs one copy and no allocation. Where both ports live on one
 * IoThread a frame that needs no change goes straight into the peer and the ring serves only
 * frames that have to be rewritten, answers from inside a callback, and short ones that did not
 * fit: long ones their sender keeps. A port takes frames through its send slot (arrays) if it has
 * one, else through deliver (one at a time).
 *
 * Frames that the peer cannot take as they are (checksum to be completed, TCP segments to be
 * cut) are finished while they are copied into the ring. So a port may always send both.
 *
 * Threads: the producer is the IoThread of dir->from, the consumer that of dir->to; the lock
 * guards the ring's counters only and is never held across a copy or a callback.
 *
 * Invariants:
 * (1) Bytes between tail and head belong to the consumer, the rest to the producer; the producer
 *     alone moves head (and rewinds an empty ring), the consumer alone moves tail.
 * (2) Frames of one direction keep their order: while the ring holds one nothing passes it.
 * (3) A sender that was refused is told by writable once the ring is half empty.
 * (4) No callback of a port runs inside a net_send() of that port: an answer that arrives
 *     meanwhile waits in the ring.
 * (5) After net_part() no callback starts: it visits both IoThreads before it frees. The last one
 *     is changed(), where the port has no peer any more.
 */
#include "wire.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/lock.h"
#include "lodge/num.h"
#include "filter.h"
#include "pkt.h"
#include "watch.h"

enum {
    RING_BYTES = 1 << 20, /* 16 of the longest frames, or 680 of 1500 bytes */
    RECORD_ALIGN = 16,
    BATCH = 64,         /* frames that one call of a port gets */
    COPY_MAX = 4096,    /* to copy a frame no longer costs less than to wake its sender */
    DRAIN_BATCHES = 16, /* then the loop serves others */
    DEFAULT_MTU = 1500,
};

/* A frame in the ring, its bytes behind it. */
typedef struct WireRecord {
    uint32_t size; /* from this record to the next; 0: the next is at the ring's start */
    uint32_t len, gso_size;
    uint16_t csum_start, csum_off, hdr_len;
    uint8_t flags, gso;
} WireRecord;

typedef struct WireDir {
    /* constant */
    struct NetWire *wire;
    NetPort *from, *to; /* borrowed: parted before they go */
    bool direct;        /* one IoThread */
    uint8_t *ring;      /* owned; pages are touched at first use */

    LodgeLock lock;
    /* guarded by lock */
    uint32_t head, tail; /* offsets into ring, multiples of RECORD_ALIGN */
    uint32_t used;       /* bytes from tail to head */
    bool posted;         /* a drain is on its way to the consumer */
    bool stalled;        /* the consumer is full and will say net_rx_ready() */
    bool refused;        /* the producer waits for writable */

    /* consumer's IoThread only */
    bool draining;

    /* producer's IoThread only */
    bool sending;

    /* atomic, relaxed: counters for people */
    uint64_t tx_frames, tx_bytes, rx_frames, rx_bytes, lost[NET_LOSSES];
} WireDir;

struct NetWire {
    WireDir dir[2]; /* [0] from a to b, [1] from b to a */
    NetWatch *watch; /* constant, borrowed; NULL: nobody looks */
    NetGate *gate;   /* likewise; NULL: everything passes */
    /* atomic */
    bool dead;
    uint8_t down[2]; /* LINK_* of the port that dir[i] starts at; 0: its link is up */
};

enum {
    LINK_DOWN = 1 << 0, /* the port itself says so */
    LINK_CUT = 1 << 1,  /* the operator has cut it */
};

static void wire_drain(void *opaque);

static void count(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static bool wire_dead(const struct NetWire *w)
{
    return __atomic_load_n(&w->dead, __ATOMIC_ACQUIRE);
}

/* Both ends up; pairs with the store in net_set_link(). */
static bool wire_carries(struct NetWire *w)
{
    return !__atomic_load_n(&w->down[0], __ATOMIC_RELAXED) &&
           !__atomic_load_n(&w->down[1], __ATOMIC_RELAXED);
}

/* The direction that starts at @p, or NULL. */
static WireDir *dir_from(NetPort *p)
{
    struct NetWire *w = p ? __atomic_load_n(&p->wire, __ATOMIC_ACQUIRE) : NULL;

    return w ? &w->dir[w->dir[0].from == p ? 0 : 1] : NULL;
}

static WireDir *dir_back(WireDir *d)
{
    return &d->wire->dir[d == &d->wire->dir[0] ? 1 : 0];
}

/* ---- the ring ---- */

/* The producer's place: what it has written and not yet published. */
typedef struct RingWriter {
    WireDir *dir;
    uint32_t head, tail, used; /* as of ring_begin(); head and used move on */
    uint32_t seen_used;
} RingWriter;

static void ring_begin(WireDir *d, RingWriter *w)
{
    lodge_lock(&d->lock);
    if (!d->used)
        d->head = d->tail = 0;
    *w = (RingWriter){d, d->head, d->tail, d->used, d->used};
    lodge_unlock(&d->lock);
}

/* Room for a record of @len bytes of frame, or NULL. */
static WireRecord *ring_reserve(RingWriter *w, uint32_t len)
{
    uint32_t size = (uint32_t)align_up(sizeof(WireRecord) + len, RECORD_ALIGN);

    if (w->head >= w->tail && size > RING_BYTES - w->head) {
        /* The tail must stay ahead of a wrapped head, or full would look like empty. */
        if (size >= w->tail)
            return NULL;
        if (w->head < RING_BYTES)
            ((WireRecord *)(w->dir->ring + w->head))->size = 0;
        w->used += RING_BYTES - w->head;
        w->head = 0;
    }
    if (w->head < w->tail && size >= w->tail - w->head)
        return NULL;
    WireRecord *r = (WireRecord *)(w->dir->ring + w->head);
    r->size = size;
    r->len = len;
    w->head += size;
    w->used += size;
    return r;
}

/* Hand what was written to the consumer. Return: whether it has to be woken. */
static bool ring_publish(RingWriter *w)
{
    WireDir *d = w->dir;
    bool wake = false;

    lodge_lock(&d->lock);
    d->head = w->head;
    d->used += w->used - w->seen_used;
    if (d->used && !d->posted && !d->stalled)
        wake = d->posted = true;
    lodge_unlock(&d->lock);
    return wake;
}

/* After a failed reserve. Return: true if the sender now waits, false if room came meanwhile. */
static bool ring_refuse(RingWriter *w)
{
    WireDir *d = w->dir;

    lodge_lock(&d->lock);
    bool same = d->used == w->seen_used;
    if (same)
        d->refused = true;
    lodge_unlock(&d->lock);
    return same;
}

/* ---- sending ---- */

/* What has to be done to @f before @to takes it. */
static bool needs_segments(const NetFrame *f, uint32_t offloads)
{
    uint32_t need = f->gso == NET_GSO_TCPV6 ? NET_OFF_TSO6
                    : f->gso == NET_GSO_UDP ? NET_OFF_USO : NET_OFF_TSO4;

    return f->gso != NET_GSO_NONE && (offloads & (need | NET_OFF_CSUM)) != (need | NET_OFF_CSUM);
}

static bool needs_csum(const NetFrame *f, uint32_t offloads)
{
    return (f->flags & NET_FRAME_NEEDS_CSUM) && !(offloads & NET_OFF_CSUM);
}

typedef enum { PUT_OK, PUT_FULL, PUT_BAD } PutResult;

static PutResult put_segments(RingWriter *w, const NetFrame *f)
{
    PktSegmenter seg;
    RingWriter at = *w; /* all segments or none */

    if (!pkt_seg_begin(&seg, f))
        return PUT_BAD;
    for (uint32_t i = 0; i < seg.count; i++) {
        WireRecord *r = ring_reserve(&at, pkt_seg_len(&seg, i));
        if (!r)
            return w->used ? PUT_FULL : PUT_BAD; /* too many even for an empty ring */
        r->gso_size = 0;
        r->csum_start = r->csum_off = r->hdr_len = 0;
        r->flags = f->flags & (uint8_t)~NET_FRAME_NEEDS_CSUM;
        r->gso = NET_GSO_NONE;
        pkt_seg_write(&seg, i, (uint8_t *)(r + 1));
    }
    *w = at;
    return PUT_OK;
}

/* Copy @f into the ring, made fit for the peer. */
static PutResult put_frame(RingWriter *w, const NetFrame *f)
{
    uint32_t offloads = __atomic_load_n(&w->dir->to->offloads, __ATOMIC_RELAXED);
    RingWriter at = *w;

    if (!f->len || f->len > NET_FRAME_MAX)
        return PUT_BAD;
    if (needs_segments(f, offloads))
        return put_segments(w, f);
    WireRecord *r = ring_reserve(&at, f->len);
    if (!r)
        return PUT_FULL;
    uint8_t *data = (uint8_t *)(r + 1);
    if (!pkt_gather(f, 0, data, f->len))
        return PUT_BAD;
    r->gso_size = f->gso_size;
    r->csum_start = f->csum_start;
    r->csum_off = f->csum_off;
    r->hdr_len = f->hdr_len;
    r->flags = f->flags;
    r->gso = f->gso;
    if (needs_csum(f, offloads)) {
        if (!pkt_finish_csum(data, f->len, f->csum_start, f->csum_off))
            return PUT_BAD;
        r->flags &= (uint8_t)~NET_FRAME_NEEDS_CSUM;
    }
    *w = at;
    return PUT_OK;
}

/* Offer frames to @to in its own context. Return: taken. */
static unsigned port_take(NetPort *to, const NetFrame *v, unsigned n)
{
    unsigned taken = 0;

    if (to->ops->send)
        return to->ops->send(to, v, n);
    while (taken < n && to->ops->deliver && to->ops->deliver(to, &v[taken]))
        taken++;
    return to->ops->deliver ? taken : n; /* a port that takes nothing is a sink */
}

static void count_taken(WireDir *d, const NetFrame *v, unsigned n)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < n; i++)
        bytes += v[i].len;
    count(&d->rx_frames, n);
    count(&d->rx_bytes, bytes);
}

static void wire_tell_writable(void *opaque)
{
    WireDir *d = opaque;

    if (!wire_dead(d->wire) && d->from->ops->writable)
        d->from->ops->writable(d->from);
}

static void call_or_post(IoThread *io, IoCallFn fn, void *opaque)
{
    if (io)
        io_thread_post(io, fn, opaque);
    else
        fn(opaque);
}

/* Up to BATCH frames from the tail as they lie. Return: how many; *ret_bytes what they occupy. */
static unsigned ring_peek(WireDir *d, NetFrame *frames, struct iovec *iov, uint32_t *sizes)
{
    unsigned n = 0;

    lodge_lock(&d->lock);
    uint32_t left = d->used, at = d->tail;
    lodge_unlock(&d->lock);
    while (left && n < BATCH) {
        uint32_t skip = 0;
        if (at == RING_BYTES || !((WireRecord *)(d->ring + at))->size) {
            skip = RING_BYTES - at;
            at = 0;
        }
        WireRecord *r = (WireRecord *)(d->ring + at);
        iov[n] = (struct iovec){r + 1, r->len};
        frames[n] = (NetFrame){.iov = &iov[n], .niov = 1, .len = r->len, .gso_size = r->gso_size,
                               .csum_start = r->csum_start, .csum_off = r->csum_off,
                               .hdr_len = r->hdr_len, .flags = r->flags, .gso = r->gso};
        sizes[n] = skip + r->size;
        at += r->size;
        left -= sizes[n++];
    }
    return n;
}

/* Give back the first @n frames of a peek. Return: whether the sender is to be told. */
static bool ring_drop(WireDir *d, const uint32_t *sizes, unsigned n)
{
    uint32_t bytes = 0;

    for (unsigned i = 0; i < n; i++)
        bytes += sizes[i];
    lodge_lock(&d->lock);
    d->tail += bytes;
    if (d->tail > RING_BYTES)
        d->tail -= RING_BYTES;
    d->used -= bytes;
    bool tell = d->refused && d->used <= RING_BYTES / 2;
    if (tell)
        d->refused = false;
    lodge_unlock(&d->lock);
    return tell;
}

/* Consumer: carry frames from the ring into the port until it is full or the ring empty. */
static void wire_drain(void *opaque)
{
    WireDir *d = opaque;
    NetFrame frames[BATCH];
    struct iovec iov[BATCH];
    uint32_t sizes[BATCH];
    bool again = false;

    lodge_lock(&d->lock);
    d->posted = false;
    lodge_unlock(&d->lock);
    if (d->draining)
        return; /* the port called back from inside; the outer loop goes on */
    d->draining = true;
    for (int round = 0;; round++) {
        if (wire_dead(d->wire))
            break;
        unsigned n = ring_peek(d, frames, iov, sizes);
        if (!n)
            break;
        if (round == DRAIN_BATCHES && d->to->io) {
            again = true;
            break;
        }
        /* Cleared first: a net_rx_ready() from inside the call must not be lost. */
        lodge_lock(&d->lock);
        d->stalled = true;
        lodge_unlock(&d->lock);
        unsigned taken = port_take(d->to, frames, n);
        if (taken > n)
            taken = n;
        count_taken(d, frames, taken);
        bool tell = ring_drop(d, sizes, taken);
        lodge_lock(&d->lock);
        if (taken == n)
            d->stalled = false;
        bool stop = d->stalled;
        lodge_unlock(&d->lock);
        if (tell)
            call_or_post(d->from->io, wire_tell_writable, d);
        if (stop)
            break;
    }
    d->draining = false;
    if (again) {
        lodge_lock(&d->lock);
        bool post = !d->posted;
        d->posted = true;
        lodge_unlock(&d->lock);
        if (post)
            io_thread_post(d->to->io, wire_drain, d);
    }
}

/* Whether @d's consumer may be called by its producer: one loop, and no callback of theirs runs. */
static bool may_call(WireDir *d)
{
    return d->direct && !d->draining && !dir_back(d)->sending && !dir_back(d)->draining;
}

/* Have @d's frames carried on: at once where that keeps (4), else by its loop. Ports without a
 * loop of their own (driven by hand) are served by run_waiting(). */
static void wake_consumer(WireDir *d)
{
    if (may_call(d))
        wire_drain(d);
    else if (d->to->io)
        io_thread_post(d->to->io, wire_drain, d);
}

static void run_waiting(struct NetWire *w)
{
    for (int i = 0; i < 2; i++) {
        WireDir *d = &w->dir[i];
        if (d->to->io || d->draining || dir_back(d)->sending || dir_back(d)->draining)
            continue;
        lodge_lock(&d->lock);
        bool posted = d->posted;
        lodge_unlock(&d->lock);
        if (posted)
            wire_drain(d);
    }
}

/* Whether a frame may go from @d's producer straight into its consumer. */
static bool may_go_direct(WireDir *d)
{
    if (!may_call(d))
        return false;
    lodge_lock(&d->lock);
    bool idle = !d->used && !d->stalled;
    lodge_unlock(&d->lock);
    return idle;
}

/* A long frame for a full consumer on the producer's own loop: the producer keeps it, as it would
 * only be copied once more. Return: true if the sender now waits. */
static bool refuse_direct(WireDir *d, const NetFrame *f)
{
    if (f->len <= COPY_MAX || !may_call(d))
        return false;
    lodge_lock(&d->lock);
    bool full = d->stalled;
    d->refused |= full;
    lodge_unlock(&d->lock);
    return full;
}

/* Same IoThread, nothing queued, nothing to change: straight into the peer. */
static unsigned send_direct(WireDir *d, const NetFrame *v, unsigned n)
{
    uint32_t offloads = __atomic_load_n(&d->to->offloads, __ATOMIC_RELAXED);
    unsigned fit = 0;

    if (!may_go_direct(d))
        return 0;
    while (fit < n && v[fit].len && v[fit].len <= NET_FRAME_MAX &&
           !needs_segments(&v[fit], offloads) && !needs_csum(&v[fit], offloads))
        fit++;
    if (!fit)
        return 0;
    d->draining = true;
    lodge_lock(&d->lock);
    d->stalled = true; /* as in wire_drain() */
    lodge_unlock(&d->lock);
    unsigned taken = port_take(d->to, v, fit);
    if (taken > fit)
        taken = fit;
    count_taken(d, v, taken);
    lodge_lock(&d->lock);
    if (taken == fit)
        d->stalled = false;
    lodge_unlock(&d->lock);
    d->draining = false;
    return taken;
}

/* What the gate lets pass; @opaque is the direction. */
static unsigned send_allowed(void *opaque, const NetFrame *v, unsigned n)
{
    WireDir *d = opaque;
    unsigned done = 0;
    uint64_t bytes = 0, bad = 0;

    d->sending = true;
    done = send_direct(d, v, n);
    for (unsigned i = 0; i < done; i++)
        bytes += v[i].len;
    while (done < n && !refuse_direct(d, &v[done])) {
        RingWriter w;
        PutResult got = PUT_OK;
        ring_begin(d, &w);
        for (; done < n; done++) {
            got = put_frame(&w, &v[done]);
            if (got == PUT_FULL)
                break;
            if (got == PUT_BAD)
                bad++;
            else
                bytes += v[done].len;
        }
        if (w.used != w.seen_used && ring_publish(&w))
            wake_consumer(d);
        if (got == PUT_FULL) {
            ring_begin(d, &w);
            RingWriter probe = w;
            if (put_frame(&probe, &v[done]) == PUT_FULL && ring_refuse(&w))
                break;
        }
    }
    d->sending = false;
    if (d->wire->watch && done)
        net_watch_frames(d->wire->watch, !d->from->watch, v, done);
    count(&d->tx_frames, done - bad);
    count(&d->tx_bytes, bytes);
    count(&d->lost[NET_LOSS_HEADER], bad);
    if (!d->from->io)
        run_waiting(d->wire);
    return done;
}

unsigned net_send(NetPort *from, const NetFrame *v, unsigned n)
{
    WireDir *d = dir_from(from);

    if (!d || wire_dead(d->wire))
        return n; /* nobody to count it for */
    if (!wire_carries(d->wire)) {
        count(&d->lost[NET_LOSS_DOWN], n);
        return n;
    }
    NetGate *gate = d->wire->gate;
    if (!gate || net_gate_open(gate))
        return send_allowed(d, v, n);
    bool out = !from->gate; /* it is the back end's */
    return net_gate_send(gate, out ? d->to->stream : from->stream, out,
                         out ? from->mac : d->to->mac, v, n, send_allowed, d);
}

unsigned net_rx_borrow(NetPort *from, struct iovec *ret_iov, unsigned max)
{
    WireDir *d = dir_from(from);

    if (!d || !d->to->ops->rx_borrow || wire_dead(d->wire) || !wire_carries(d->wire) ||
        (d->wire->gate && !net_gate_open(d->wire->gate)) || !may_go_direct(d))
        return 0;
    return d->to->ops->rx_borrow(d->to, ret_iov, max);
}

bool net_rx_commit(NetPort *from, const NetFrame *f)
{
    static const NetFrame none = {.len = 0};
    WireDir *d = dir_from(from);
    uint32_t offloads = __atomic_load_n(&d->to->offloads, __ATOMIC_RELAXED);
    bool as_it_is = f->len && !needs_segments(f, offloads) && !needs_csum(f, offloads);

    d->sending = d->draining = true; /* keeps (4) */
    bool done = d->to->ops->rx_commit(d->to, as_it_is ? f : &none) && as_it_is;
    d->sending = d->draining = false;
    if (!done)
        return !f->len;
    if (d->wire->watch)
        net_watch_frames(d->wire->watch, !from->watch, f, 1);
    count_taken(d, f, 1);
    count(&d->tx_frames, 1);
    count(&d->tx_bytes, f->len);
    return true;
}

void net_rx_ready(NetPort *p)
{
    WireDir *out = dir_from(p);

    if (!out || wire_dead(out->wire))
        return;
    WireDir *d = dir_back(out);
    lodge_lock(&d->lock);
    bool was = d->stalled;
    d->stalled = false;
    bool tell = d->refused && !d->used;
    if (tell)
        d->refused = false;
    lodge_unlock(&d->lock);
    if (tell)
        call_or_post(d->from->io, wire_tell_writable, d);
    if (was)
        wire_drain(d);
}

void net_count_loss(NetPort *p, NetLoss why, unsigned frames)
{
    WireDir *d = dir_from(p);

    if (d)
        count(&d->lost[why], frames);
}

void net_losses(NetPort *p, uint64_t ret_frames[NET_LOSSES])
{
    WireDir *d = dir_from(p);

    for (unsigned i = 0; i < NET_LOSSES; i++)
        ret_frames[i] = d ? __atomic_load_n(&d->lost[i], __ATOMIC_RELAXED) +
                                __atomic_load_n(&dir_back(d)->lost[i], __ATOMIC_RELAXED)
                          : 0;
}

uint32_t net_peer_offloads(NetPort *p)
{
    /* The peer's own abilities and the wire's cover everything that a frame can ask for. */
    return NET_OFF_ALL;
}

uint32_t net_peer_takes(NetPort *p)
{
    WireDir *d = dir_from(p);

    return d ? __atomic_load_n(&d->to->offloads, __ATOMIC_RELAXED) : 0;
}

bool net_peer_idle(NetPort *p)
{
    WireDir *d = dir_from(p);

    return !d || __atomic_load_n(&d->to->idle, __ATOMIC_RELAXED);
}

/* On the IoThread of the port whose peer changed; @opaque is the peer's outgoing direction. */
static void tell_changed(void *opaque)
{
    WireDir *d = opaque;

    if (!wire_dead(d->wire))
        d->to->ops->changed(d->to);
}

void net_changed(NetPort *p)
{
    WireDir *d = dir_from(p);

    if (d && d->to->ops->changed)
        call_or_post(d->to->io, tell_changed, d);
}

bool net_peer_link(NetPort *p)
{
    WireDir *d = dir_from(p);

    return !d || !__atomic_load_n(&d->wire->down[d == &d->wire->dir[0] ? 1 : 0], __ATOMIC_ACQUIRE);
}

uint16_t net_peer_mtu(NetPort *p)
{
    WireDir *d = dir_from(p);

    return d && d->to->mtu ? d->to->mtu : DEFAULT_MTU;
}

void net_stats(NetPort *p, NetStats *ret_stats)
{
    WireDir *d = dir_from(p);
    NetStats s = {0};

    if (d) {
        WireDir *in = dir_back(d);
        s.tx_frames = __atomic_load_n(&d->tx_frames, __ATOMIC_RELAXED);
        s.tx_bytes = __atomic_load_n(&d->tx_bytes, __ATOMIC_RELAXED);
        s.rx_frames = __atomic_load_n(&in->rx_frames, __ATOMIC_RELAXED);
        s.rx_bytes = __atomic_load_n(&in->rx_bytes, __ATOMIC_RELAXED);
        for (unsigned i = 0; i < NET_LOSSES; i++) {
            s.tx_dropped += __atomic_load_n(&d->lost[i], __ATOMIC_RELAXED);
            s.rx_dropped += __atomic_load_n(&in->lost[i], __ATOMIC_RELAXED);
        }
    }
    *ret_stats = s;
}

/* ---- life ---- */

typedef struct SetWire {
    NetPort *port;
    struct NetWire *wire;
} SetWire;

static void set_wire(void *opaque)
{
    SetWire *s = opaque;

    /* Here and not in net_join(): an owner with a loop changes it there. */
    if (s->wire)
        __atomic_store_n(&s->wire->down[s->port == s->wire->dir[0].from ? 0 : 1],
                         (s->port->down ? LINK_DOWN : 0) | (s->port->cut ? LINK_CUT : 0),
                         __ATOMIC_RELEASE);
    __atomic_store_n(&s->port->wire, s->wire, __ATOMIC_RELEASE);
    if (!s->wire && s->port->ops->changed)
        s->port->ops->changed(s->port);
}

static void visit(void *opaque)
{
}

static void call_on(IoThread *io, IoCallFn fn, void *opaque)
{
    if (io)
        io_thread_call(io, fn, opaque);
    else
        fn(opaque);
}

static void dir_init(struct NetWire *w, WireDir *d, NetPort *from, NetPort *to)
{
    d->wire = w;
    d->from = from;
    d->to = to;
    d->direct = from->io == to->io;
    d->ring = g_malloc(RING_BYTES);
    lodge_lock_init(&d->lock, LOCK_RANK_QUEUE, "net wire");
}

bool net_join(NetPort *a, NetPort *b, GError **error)
{
    NetPort *ports[2] = {a, b};

    if (a == b)
        return lodge_fail(error, LODGE_ERROR_STATE, "net port '%s' cannot be joined to itself",
                          a->name);
    for (int i = 0; i < 2; i++) {
        if (ports[i]->wire)
            return lodge_fail(error, LODGE_ERROR_STATE, "net port '%s' is joined already",
                              ports[i]->name);
    }
    struct NetWire *w = g_new0(struct NetWire, 1);
    w->watch = a->watch ? a->watch : b->watch;
    w->gate = a->gate ? a->gate : b->gate;
    dir_init(w, &w->dir[0], a, b);
    dir_init(w, &w->dir[1], b, a);
    for (int i = 0; i < 2; i++) {
        SetWire s = {ports[i], w};
        call_on(ports[i]->io, set_wire, &s);
    }
    return true;
}

void net_part(NetPort *p)
{
    struct NetWire *w = p ? p->wire : NULL;

    if (!w)
        return;
    __atomic_store_n(&w->dead, true, __ATOMIC_RELEASE);
    NetPort *ports[2] = {w->dir[0].from, w->dir[1].from};
    for (int i = 0; i < 2; i++) {
        SetWire s = {ports[i], NULL};
        call_on(ports[i]->io, set_wire, &s);
    }
    /* Nobody produces any more; let what was posted before run and find the wire dead. */
    for (int i = 0; i < 2; i++)
        call_on(ports[i]->io, visit, NULL);
    for (int i = 0; i < 2; i++) {
        lodge_lock_clear(&w->dir[i].lock);
        g_free(w->dir[i].ring);
    }
    g_free(w);
}

void net_settle(NetPort *p)
{
    struct NetWire *w = p->wire;

    for (int i = 0; w && i < 2; i++)
        call_on(w->dir[i].from->io, visit, NULL);
}

/* On the IoThread of the port whose peer changed; @opaque is the peer's outgoing direction. */
static void tell_link(void *opaque)
{
    WireDir *d = opaque;
    struct NetWire *w = d->wire;
    bool up = !__atomic_load_n(&w->down[d == &w->dir[0] ? 0 : 1], __ATOMIC_ACQUIRE);

    if (!wire_dead(w) && d->to->ops->link)
        d->to->ops->link(d->to, up);
}

/* Set or clear @bit of @p's reasons, and tell the peer if its link then is another. */
static void change_link(NetPort *p, uint8_t bit, bool set)
{
    WireDir *d = dir_from(p);

    if (!d)
        return;
    struct NetWire *w = d->wire;
    uint8_t *down = &w->down[d == &w->dir[0] ? 0 : 1];
    uint8_t before = set ? __atomic_fetch_or(down, bit, __ATOMIC_ACQ_REL)
                         : __atomic_fetch_and(down, (uint8_t)~bit, __ATOMIC_ACQ_REL);
    uint8_t after = set ? before | bit : before & (uint8_t)~bit;
    if (!before != !after)
        call_or_post(d->to->io, tell_link, d);
}

void net_set_link(NetPort *p, bool up)
{
    change_link(p, LINK_DOWN, !up);
}

void net_cut(NetPort *p, bool cut)
{
    p->cut = cut;
    change_link(p, LINK_CUT, cut);
}
