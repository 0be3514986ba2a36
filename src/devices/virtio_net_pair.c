// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A pair of queues of the virtio network card.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, 5.1.6 "Device Operation", but for the control queue:
 * frames from the transmit queue to the wire and from the wire to the receive queue.
 *
 * Threads: both queues and the port belong to one loop thread, the back end's own where it has one,
 * so that a frame goes from the ring to the host in one call. What the device's pairs share is read
 * here by way of atomics, or copied under the device's lock when it has changed.
 *
 * Invariants:
 * (1) Frames popped for sending and not taken by the wire are tx[first..last), in ring order, the
 *     last ones popped; a pause gives them back to the ring.
 * (2) A received frame is pushed whole or not at all: its chains are given back to the ring when
 *     there are too few.
 * (3) Buffers that are lent to the wire are the last ones popped, and none are outside of a
 *     callback.
 * (4) rx_blocked says that the wire holds a frame for us; the next receive kick asks for it.
 * (5) A pair that is not in use receives nothing: its receive queue may be another's.
 */
#include "virtio_net.h"

#include <string.h>

#include <linux/virtio_net.h>

#include "lodge/num.h"

enum {
    HDR_LEN = sizeof(struct virtio_net_hdr_v1),
    TX_ROUNDS = 8, /* batches a kick sends before others get a turn */
    RX_TRIES = 4,  /* looks at the ring for one frame */
    LOAN_MIN = 1514,
    FRAME_MIN = 14, /* an Ethernet header */
};

/* ---- sending ---- */

/* Fill @f from the header that the driver wrote; NULL, or what is wrong with it. */
static const char *frame_of(const VirtioNet *n, const struct virtio_net_hdr_v1 *h, uint32_t len,
                            NetFrame *f)
{
    uint8_t gso = h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;

    if (len < FRAME_MIN || len > NET_FRAME_MAX)
        return "frame of a wrong length";
    f->len = len;
    if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        if (!virtio_has(&n->v, VIRTIO_NET_F_CSUM))
            return "checksum asked for without the feature";
        if ((uint32_t)h->csum_start + h->csum_offset + sizeof(uint16_t) > len)
            return "checksum outside the frame";
        f->flags = NET_FRAME_NEEDS_CSUM;
        f->csum_start = h->csum_start;
        f->csum_off = h->csum_offset;
    }
    if (gso == VIRTIO_NET_HDR_GSO_NONE)
        return NULL;
    if (gso == VIRTIO_NET_HDR_GSO_TCPV4 && virtio_has(&n->v, VIRTIO_NET_F_HOST_TSO4))
        f->gso = NET_GSO_TCPV4;
    else if (gso == VIRTIO_NET_HDR_GSO_TCPV6 && virtio_has(&n->v, VIRTIO_NET_F_HOST_TSO6))
        f->gso = NET_GSO_TCPV6;
    else if (gso == GSO_UDP_L4 && virtio_has(&n->v, F_HOST_USO))
        f->gso = NET_GSO_UDP;
    else
        return "segmentation asked for without the feature";
    if (!h->gso_size || !(f->flags & NET_FRAME_NEEDS_CSUM))
        return "segmentation without size or checksum";
    f->gso_size = h->gso_size;
    f->hdr_len = h->hdr_len;
    return NULL;
}

/* Pop one frame into the batch; false: none left, no room left, or broken. Bad ones are dropped. */
static bool tx_take(NetPair *p)
{
    VirtChain c = {.iov = p->tx_iov + p->tx_iovs,
                   .pins = p->tx_pins,
                   .max = MIN(NET_TX_ROOM - p->tx_iovs, VIRTQ_SEGMENTS_MAX)};
    struct virtio_net_hdr_v1 h;
    NetFrame f = {0};
    struct iovec *iov = c.iov;
    const char *why;

    if (p->tx_last == NET_TX_BATCH || c.max < VIRTQ_SEGMENTS_MAX ||
        !virtio_pop(&p->n->v, p->txq, &c))
        return false;
    f.niov = c.readable;
    if (virtq_from_iov(c.iov, c.readable, 0, &h, HDR_LEN) == HDR_LEN)
        why = frame_of(p->n, &h, c.readable_len - HDR_LEN, &f);
    else
        why = "frame without a header";
    if (why) {
        guest_fault(&p->n->v.pci.dev, "%s", why);
        net_count_loss(&p->port, NET_LOSS_HEADER, 1);
        virtqueue_push_chain(&p->n->v.q[p->txq].vq, &c, 0);
        return true;
    }
    virtq_trim_front(&iov, &f.niov, HDR_LEN);
    f.iov = iov;
    p->tx_iovs += c.readable;
    p->tx[p->tx_last] = f;
    p->tx_head[p->tx_last] = c.head;
    p->tx_last++;
    return true;
}

/* Give the wire what the batch holds; false: it wants no more now. Keeps (1). */
static bool tx_send(NetPair *p)
{
    unsigned count = p->tx_last - p->tx_first;
    unsigned took = count ? net_send(&p->port, p->tx + p->tx_first, count) : 0;

    for (unsigned i = 0; i < took && i < count; i++)
        virtqueue_push(&p->n->v.q[p->txq].vq, p->tx_head[p->tx_first + i], 0);
    p->tx_first += MIN(took, count);
    if (p->tx_first < p->tx_last)
        return false;
    p->tx_first = p->tx_last = p->tx_iovs = 0;
    return true;
}

/**
 * net_pair_tx() - Send what the driver offers
 * Context: the loop; the device is live. Does nothing while the wire has no room: net_writable()
 * goes on.
 */
void net_pair_tx(NetPair *p)
{
    unsigned rounds = 0;

    p->tx_waiting = false;
    do {
        virtio_notify_off(&p->n->v, p->txq);
        for (bool more = true; more && rounds < TX_ROUNDS; rounds++) {
            unsigned taken = 0;

            while (taken < NET_TX_BATCH && tx_take(p))
                taken++;
            more = taken > 0;
            p->tx_waiting = !tx_send(p);
            if (p->tx_waiting)
                break;
        }
    } while (!p->tx_waiting && rounds < TX_ROUNDS && !p->n->v.broken &&
             virtio_notify_on(&p->n->v, p->txq));
    virtio_publish(&p->n->v, p->txq);
    if (!p->tx_waiting && rounds >= TX_ROUNDS)
        virtio_kick_again(&p->n->v, p->txq);
}

static void net_writable(NetPort *port)
{
    NetPair *p = port->opaque;

    if (p->tx_waiting && virtio_queue_may_run(&p->n->v, p->txq))
        net_pair_tx(p);
}

/* ---- receiving ---- */

static struct virtio_net_hdr_v1 header_of(const VirtioNet *n, const NetFrame *f)
{
    struct virtio_net_hdr_v1 h = {.num_buffers = 1};

    if (virtio_has(&n->v, VIRTIO_NET_F_GUEST_CSUM)) {
        if (f->flags & NET_FRAME_NEEDS_CSUM) {
            h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
            h.csum_start = f->csum_start;
            h.csum_offset = f->csum_off;
        } else if (f->flags & NET_FRAME_CSUM_VALID) {
            h.flags = VIRTIO_NET_HDR_F_DATA_VALID;
        }
    }
    if (f->gso != NET_GSO_NONE) {
        h.gso_type = f->gso == NET_GSO_TCPV4 ? VIRTIO_NET_HDR_GSO_TCPV4
                     : f->gso == NET_GSO_UDP ? GSO_UDP_L4 : VIRTIO_NET_HDR_GSO_TCPV6;
        h.gso_size = (uint16_t)f->gso_size;
        h.hdr_len = f->hdr_len;
    }
    return h;
}

/* A place in the frame that is being copied out. */
typedef struct FrameCursor {
    const NetFrame *f;
    unsigned i;
    size_t off;
} FrameCursor;

/* Copy from @cur to the writable part of @c from byte @skip on; how many bytes were put. */
static size_t copy_frame(FrameCursor *cur, const VirtChain *c, size_t skip)
{
    size_t done = 0;

    for (unsigned i = c->readable; i < c->readable + c->writable; i++) {
        const struct iovec *to = &c->iov[i];
        size_t at = MIN(skip, to->iov_len);

        skip -= at;
        while (at < to->iov_len && cur->i < cur->f->niov) {
            const struct iovec *from = &cur->f->iov[cur->i];
            size_t len = MIN(to->iov_len - at, from->iov_len - cur->off);

            memcpy((uint8_t *)to->iov_base + at, (const uint8_t *)from->iov_base + cur->off, len);
            at += len;
            done += len;
            cur->off += len;
            if (cur->off == from->iov_len) {
                cur->i++;
                cur->off = 0;
            }
        }
    }
    return done;
}

typedef enum RxResult { RX_DONE, RX_FULL, RX_DROP } RxResult;

/* Put @f in the driver's buffers. Keeps (2): on anything but RX_DONE nothing was pushed.
 * @ret_had: how many buffers there were, for RX_FULL. */
static RxResult rx_put(NetPair *p, const NetFrame *f, uint16_t *ret_had)
{
    VirtQueue *vq = &p->n->v.q[p->rxq].vq;
    VirtChain first = {.iov = p->rx_iov, .pins = p->rx_pins, .max = NET_RX_ROOM};
    VirtChain next = {.iov = p->rx_iov + NET_RX_ROOM, .pins = p->rx_pins + NET_RX_ROOM,
                      .max = NET_RX_ROOM};
    struct virtio_net_hdr_v1 h = header_of(p->n, f);
    FrameCursor cur = {.f = f};
    uint16_t heads[VIRTIO_QUEUE_SIZE], count = 0, size = vq->size;
    uint32_t lens[VIRTIO_QUEUE_SIZE];
    size_t left = f->len;

    do {
        VirtChain *c = count ? &next : &first;
        size_t skip = count ? 0 : HDR_LEN, put;

        if (count == size || (count && !virtio_has(&p->n->v, VIRTIO_NET_F_MRG_RXBUF))) {
            virtqueue_rewind(vq, count);
            return RX_DROP; /* it will never fit */
        }
        if (!virtio_pop(&p->n->v, p->rxq, c)) {
            virtqueue_rewind(vq, count);
            *ret_had = count;
            return p->n->v.broken ? RX_DROP : RX_FULL;
        }
        if (c->writable_len < (count ? 1 : HDR_LEN)) {
            virtqueue_rewind(vq, count + 1u);
            virtio_break(&p->n->v, "receive buffer without room");
            return RX_DROP;
        }
        put = copy_frame(&cur, c, skip);
        heads[count] = c->head;
        lens[count++] = (uint32_t)(skip + put);
        if (c == &next)
            virtqueue_mark_dirty(c);
        left -= put;
    } while (left && cur.i < f->niov);
    h.num_buffers = count;
    virtq_to_iov(first.iov + first.readable, first.writable, 0, &h, HDR_LEN);
    virtqueue_mark_dirty(&first);
    for (unsigned i = 0; i < count; i++)
        virtqueue_push(vq, heads[i], lens[i]);
    virtio_publish(&p->n->v, p->rxq);
    return RX_DONE;
}

/* Whether there is a driver that uses this pair. Keeps (5). */
static bool in_use(const NetPair *p)
{
    return __atomic_load_n(&p->n->v.live, __ATOMIC_RELAXED) && !p->n->v.broken &&
           !__atomic_load_n(&p->port.idle, __ATOMIC_RELAXED) &&
           virtqueue_running(&p->n->v.q[p->rxq].vq);
}

/* Whether the driver wants @f, by its first bytes. */
static bool wants(NetPair *p, const NetFrame *f)
{
    VirtioNet *n = p->n;
    uint8_t head[NET_FILTER_HEAD] = {0};

    if (virtq_from_iov(f->iov, f->niov, 0, head, sizeof head) < NET_MAC_LEN)
        return false;
    /* Pairs with the store in filter_changed(). */
    uint32_t changes = __atomic_load_n(&n->filter_changes, __ATOMIC_ACQUIRE);
    if (changes != p->filter_seen) {
        lodge_lock(&n->lock);
        p->filter = n->regs.filter;
        lodge_unlock(&n->lock);
        p->filter_seen = changes;
    }
    return net_filter_wants(&p->filter, head, virtio_has(&n->v, VIRTIO_NET_F_CTRL_VLAN));
}

static bool net_deliver(NetPort *port, const NetFrame *f)
{
    NetPair *p = port->opaque;
    VirtQueue *vq = &p->n->v.q[p->rxq].vq;
    uint16_t had;

    if (!in_use(p))
        return true; /* no driver: lost, as on a wire to a machine that is off */
    if (!virtio_queue_may_run(&p->n->v, p->rxq)) {
        p->rx_blocked = true;
        return false;
    }
    if (!wants(p, f))
        return true;
    virtqueue_notify_off(vq);
    for (unsigned i = 0; i < RX_TRIES; i++) {
        if (rx_put(p, f, &had) != RX_FULL) {
            p->rx_latest = f->len;
            return true;
        }
        if (!virtqueue_notify_after(vq, had)) {
            p->rx_blocked = true;
            return false;
        }
    }
    /* Buffers trickle in as fast as we look: let others have a turn. */
    p->rx_blocked = true;
    virtio_kick_again(&p->n->v, p->rxq);
    return false;
}

/* The part of the writable pieces of @c from byte @skip on; how many pieces, at most @max. */
static unsigned room_of(const VirtChain *c, size_t skip, struct iovec *ret_iov, unsigned max)
{
    unsigned n = 0;

    for (unsigned i = c->readable; i < c->readable + c->writable && n < max; i++) {
        size_t cut = MIN(skip, c->iov[i].iov_len);
        skip -= cut;
        if (c->iov[i].iov_len > cut)
            ret_iov[n++] = (struct iovec){(uint8_t *)c->iov[i].iov_base + cut,
                                          c->iov[i].iov_len - cut};
    }
    return n;
}

static void loans_back(NetPair *p)
{
    virtqueue_rewind(&p->n->v.q[p->rxq].vq, p->loans);
    p->loans = 0;
}

/* Lend buffers for a frame like the latest; the header's place stays ours. Nothing where the driver
 * has too few: deliver() waits for more, and puts in what is shorter. */
static unsigned net_rx_lend(NetPort *port, struct iovec *ret_iov, unsigned max)
{
    NetPair *p = port->opaque;
    size_t want = HDR_LEN + MAX(p->rx_latest, (uint32_t)LOAN_MIN), have = 0;
    bool mergeable = virtio_has(&p->n->v, VIRTIO_NET_F_MRG_RXBUF), dry = false;
    unsigned pieces = 0, at = 0;

    if (!in_use(p) || !virtio_queue_may_run(&p->n->v, p->rxq))
        return 0;
    virtqueue_notify_off(&p->n->v.q[p->rxq].vq);
    while (have < want && p->loans < NET_LOAN_MAX && at <= NET_RX_ROOM &&
           (mergeable || !p->loans)) {
        VirtChain *c = &p->loan[p->loans];
        *c = (VirtChain){.iov = p->rx_iov + at, .pins = p->rx_pins + at, .max = NET_RX_ROOM};
        if (!virtio_pop(&p->n->v, p->rxq, c)) {
            dry = true;
            break;
        }
        if (c->writable_len <= HDR_LEN || c->writable > max - pieces) {
            virtqueue_rewind(&p->n->v.q[p->rxq].vq, 1);
            break; /* deliver() has the words for the first, and room for the second */
        }
        p->loans++;
        at += c->readable + c->writable;
        pieces += room_of(c, p->loans > 1 ? 0 : HDR_LEN, ret_iov + pieces, max - pieces);
        have += c->writable_len;
    }
    if (!p->n->v.broken && have >= (dry ? want : MIN(want, HDR_LEN + LOAN_MIN)))
        return pieces;
    loans_back(p);
    return 0;
}

/* What did not fit in what was lent goes to more buffers. Keeps (2). */
static bool net_rx_take(NetPort *port, const NetFrame *f)
{
    NetPair *p = port->opaque;
    VirtQueue *vq = &p->n->v.q[p->rxq].vq;
    struct virtio_net_hdr_v1 h = header_of(p->n, f);
    size_t left = HDR_LEN + f->len;
    unsigned used = 0;

    if (!f->len || !wants(p, f)) {
        loans_back(p);
        return true;
    }
    p->rx_latest = f->len;
    for (; used < p->loans && left; used++)
        left -= MIN(left, p->loan[used].writable_len);
    if (left) { /* longer than the latest: the next will find room */
        loans_back(p);
        return false;
    }
    virtqueue_rewind(vq, p->loans - used);
    p->loans = 0;
    h.num_buffers = (uint16_t)used;
    left = HDR_LEN + f->len;
    virtq_to_iov(p->loan[0].iov + p->loan[0].readable, p->loan[0].writable, 0, &h, HDR_LEN);
    for (unsigned i = 0; i < used; i++) {
        VirtChain *c = &p->loan[i];
        uint32_t len = (uint32_t)MIN(left, c->writable_len);
        virtqueue_mark_dirty(c);
        virtqueue_push(vq, c->head, len);
        left -= len;
    }
    virtio_publish(&p->n->v, p->rxq);
    return true;
}

/**
 * net_pair_rx() - The driver has given buffers: take the frame that the wire holds
 * Context: the loop; the device is live.
 */
void net_pair_rx(NetPair *p)
{
    if (!p->rx_blocked)
        return;
    p->rx_blocked = false;
    net_rx_ready(&p->port);
}

/* ---- the link ---- */

/* The card has one link: up where those of all its streams are. */
static void net_link(NetPort *port, bool up)
{
    NetPair *p = port->opaque;
    VirtioNet *n = p->n;
    uint32_t bit = 1u << p->index;

    if (!p->ready)
        return;
    if (!up)
        __atomic_fetch_or(&n->links_down, bit, __ATOMIC_ACQ_REL);
    else if (__atomic_fetch_and(&n->links_down, ~bit, __ATOMIC_ACQ_REL) == bit &&
             virtio_net_may_ask(n))
        __atomic_store_n(&n->announce, true, __ATOMIC_RELEASE);
    virtio_net_status(n);
}

void net_pair_link_now(void *opaque)
{
    NetPair *p = opaque;

    p->ready = true;
    if (!net_peer_link(&p->port))
        net_link(&p->port, false);
}

const NetPortOps net_pair_ops = {
    .deliver = net_deliver,
    .rx_borrow = net_rx_lend,
    .rx_commit = net_rx_take,
    .writable = net_writable,
    .link = net_link,
    .offloads = NET_OFF_ALL,
};

/* ---- life ---- */

void net_pair_stopped(NetPair *p)
{
    p->tx_first = p->tx_last = p->tx_iovs = 0;
    p->tx_waiting = false; /* rx_blocked stays: the wire still holds a frame */
}

/* Keeps (1): frames that the wire did not take are popped again after the pause. */
void net_pair_quieted(NetPair *p)
{
    virtqueue_rewind(&p->n->v.q[p->txq].vq, p->tx_last - p->tx_first);
    net_pair_stopped(p);
}

/**
 * net_pair_init() - Make the pair's port and its memory
 * @index: of the pair; @stream: of the back end, for its loop; borrowed for the call
 * Context: main thread.
 */
void net_pair_init(NetPair *p, VirtioNet *n, unsigned index, NetPort *stream)
{
    p->n = n;
    p->index = index;
    p->rxq = 2 * index;
    p->txq = 2 * index + 1;
    p->port = (NetPort){.ops = &net_pair_ops,
                        .name = n->v.pci.dev.id,
                        .opaque = p,
                        .io = net_card_loop(stream, n->v.pci.dev.board->io),
                        .mtu = (uint16_t)n->mtu,
                        .idle = index > 0};
    memcpy(p->port.mac, n->mac, NET_MAC_LEN);
    p->tx_iov = g_new(struct iovec, NET_TX_ROOM);
    p->tx_pins = g_new(MemPin, VIRTQ_SEGMENTS_MAX);
    p->rx_iov = g_new(struct iovec, 2 * NET_RX_ROOM);
    p->rx_pins = g_new(MemPin, 2 * NET_RX_ROOM);
}

void net_pair_free(NetPair *p)
{
    if (p->joined)
        net_part(&p->port);
    p->joined = p->ready = false;
    g_clear_pointer(&p->tx_iov, g_free);
    g_clear_pointer(&p->tx_pins, g_free);
    g_clear_pointer(&p->rx_iov, g_free);
    g_clear_pointer(&p->rx_pins, g_free);
}
