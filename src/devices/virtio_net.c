// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtio network device.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, section 5.1 "Network Device", one queue pair and a
 * control queue: mergeable receive buffers, offloads of checksums and segmentation (TCP; UDP, as virtio
 * 1.3 has it) both ways as far as the wire's other end has them, MAC, link status, MTU, receive filter by MAC. Left out: more
 * pairs, VLAN filter, guest announcements, UFO, hash reports, offloads changed at run time.
 *
 * Threads: the queues and the port belong to one loop thread, the back end's own where that is
 * quick, so that a frame goes from the ring to the host in one call. The link callback takes the
 * device's lock for the status field.
 *
 * Invariants:
 * (1) Frames popped for sending and not taken by the wire are tx[first..last), in ring order, the
 *     last ones popped; a pause gives them back to the ring.
 * (2) A received frame is pushed whole or not at all: its chains are given back to the ring when
 *     there are too few.
 * (3) Buffers that are lent to the wire are the last ones popped, and none are outside of a callback.
 * (4) rx_blocked says that the wire holds a frame for us; the next receive kick asks for it.
 */
#include "virtio.h"
#include "virtio_net_filter.h"

#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>

#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"

enum {
    QUEUE_RX = 0,
    QUEUE_TX = 1,
    QUEUE_CTRL = 2,
    QUEUES = 3,
    HDR_LEN = sizeof(struct virtio_net_hdr_v1),
    HDR_NUM_BUFFERS = offsetof(struct virtio_net_hdr_v1, num_buffers),
    TX_BATCH = 64,                     /* frames handed to the wire at once */
    TX_ROOM = 2 * VIRTQ_SEGMENTS_MAX,  /* pieces of a batch; a chain may need half */
    TX_ROUNDS = 8,                     /* batches a kick sends before others get a turn */
    RX_TRIES = 4,                      /* looks at the ring for one frame */
    LOAN_MAX = 48,                     /* chains for a frame of 64 KiB, of 1,500 bytes each */
    LOAN_MIN = 1514,
    FRAME_MIN = 14,                    /* an Ethernet header */
    CTRL_LEN_MAX = 2 + 2 * 4 + 2 * NET_FILTER_MACS * NET_MAC_LEN, /* longest command looked at */
    CTRL_ROOM = VIRTIO_QUEUE_SIZE,
    CTRL_BATCH = 64,
    MTU_MIN = 68,
    MTU_MAX = 65535,
    CLASS_ETHERNET = 0x020000,
    CONFIG_LEN = offsetof(struct virtio_net_config, speed),
    /* Of Linux 6.2, which the headers of an older one lack. */
    F_GUEST_USO4 = 54,
    F_GUEST_USO6 = 55,
    F_HOST_USO = 56,
    GSO_UDP_L4 = 5,
};

typedef struct NetRegs {
    NetFilter filter;
    uint8_t unused[4]; /* whole 8-byte units, so that NetSaved has no hole */
} NetRegs;
_Static_assert(sizeof(NetRegs) % sizeof(uint64_t) == 0, "no hole in NetSaved");

typedef struct NetSaved {
    VirtioSaved transport;
    NetRegs regs;
} NetSaved;

typedef struct VirtioNet {
    VirtioDev v;
    /* Properties: */
    NetPort *netdev; /* borrowed from the board: the back end's port */
    bool netboot;    /* has its expansion ROM */
    char *romfile;   /* owned */
    uint8_t mac[NET_MAC_LEN];
    uint32_t mtu;
    /* Constant after realize: */
    NetPort port; /* ours, joined to netdev */
    bool joined;
    bool ready; /* loop thread: the transport is there, link changes can be told */
    /* Loop thread only: */
    NetRegs regs;
    bool rx_blocked, tx_waiting;
    unsigned tx_first, tx_last, tx_iovs;
    NetFrame tx[TX_BATCH];
    uint16_t tx_head[TX_BATCH];
    struct iovec *tx_iov; /* owned: TX_ROOM */
    MemPin *tx_pins;      /* owned: VIRTQ_SEGMENTS_MAX, for what a driver should not offer */
    struct iovec *rx_iov; /* owned: two chains of VIRTIO_QUEUE_SIZE + 8 */
    MemPin *rx_pins;      /* owned, likewise */
    VirtChain loan[LOAN_MAX]; /* lent between borrow and commit; in rx_iov and rx_pins */
    unsigned loans;
    uint32_t rx_latest; /* bytes of the latest frame: the next will be like it */
    /* Main thread, quiesced: */
    NetSaved saved;
} VirtioNet;

enum { RX_ROOM = VIRTIO_QUEUE_SIZE + 8 };

static const VirtioFeature net_features[] = {
    {VIRTIO_NET_F_CSUM, "csum", 0},
    {VIRTIO_NET_F_GUEST_CSUM, "guest_csum", 0},
    {VIRTIO_NET_F_MTU, "mtu", 0},
    {VIRTIO_NET_F_MAC, "mac", 0},
    {VIRTIO_NET_F_GUEST_TSO4, "guest_tso4", VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM)},
    {VIRTIO_NET_F_GUEST_TSO6, "guest_tso6", VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM)},
    {VIRTIO_NET_F_HOST_TSO4, "host_tso4", VIRTIO_BIT(VIRTIO_NET_F_CSUM)},
    {VIRTIO_NET_F_HOST_TSO6, "host_tso6", VIRTIO_BIT(VIRTIO_NET_F_CSUM)},
    {F_GUEST_USO4, "guest_uso4", VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM)},
    {F_GUEST_USO6, "guest_uso6", VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM)},
    {F_HOST_USO, "host_uso", VIRTIO_BIT(VIRTIO_NET_F_CSUM)},
    {VIRTIO_NET_F_MRG_RXBUF, "mrg_rxbuf", 0},
    {VIRTIO_NET_F_STATUS, "status", 0},
    {VIRTIO_NET_F_CTRL_VQ, "ctrl_vq", 0},
    {VIRTIO_NET_F_CTRL_RX, "ctrl_rx", VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ)},
    {VIRTIO_NET_F_CTRL_MAC_ADDR, "ctrl_mac_addr", VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ)},
    {0, NULL, 0},
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
static bool tx_take(VirtioNet *n)
{
    VirtChain c = {.iov = n->tx_iov + n->tx_iovs,
                   .pins = n->tx_pins,
                   .max = MIN(TX_ROOM - n->tx_iovs, VIRTQ_SEGMENTS_MAX)};
    struct virtio_net_hdr_v1 h;
    NetFrame f = {0};
    struct iovec *iov = c.iov;
    const char *why;

    if (n->tx_last == TX_BATCH || c.max < VIRTQ_SEGMENTS_MAX || !virtio_pop(&n->v, QUEUE_TX, &c))
        return false;
    f.niov = c.readable;
    if (virtq_from_iov(c.iov, c.readable, 0, &h, HDR_LEN) == HDR_LEN)
        why = frame_of(n, &h, c.readable_len - HDR_LEN, &f);
    else
        why = "frame without a header";
    if (why) {
        guest_fault(&n->v.pci.dev, "%s", why);
        virtqueue_push_chain(&n->v.q[QUEUE_TX].vq, &c, 0);
        return true;
    }
    virtq_trim_front(&iov, &f.niov, HDR_LEN);
    f.iov = iov;
    n->tx_iovs += c.readable;
    n->tx[n->tx_last] = f;
    n->tx_head[n->tx_last] = c.head;
    n->tx_last++;
    return true;
}

/* Give the wire what the batch holds; false: it wants no more now. Keeps (1). */
static bool tx_send(VirtioNet *n)
{
    unsigned count = n->tx_last - n->tx_first;
    unsigned took = count ? net_send(&n->port, n->tx + n->tx_first, count) : 0;

    for (unsigned i = 0; i < took && i < count; i++)
        virtqueue_push(&n->v.q[QUEUE_TX].vq, n->tx_head[n->tx_first + i], 0);
    n->tx_first += MIN(took, count);
    if (n->tx_first < n->tx_last)
        return false;
    n->tx_first = n->tx_last = n->tx_iovs = 0;
    return true;
}

static void tx_run(VirtioNet *n)
{
    unsigned rounds = 0;

    n->tx_waiting = false;
    do {
        virtio_notify_off(&n->v, QUEUE_TX);
        for (bool more = true; more && rounds < TX_ROUNDS; rounds++) {
            unsigned taken = 0;

            while (taken < TX_BATCH && tx_take(n))
                taken++;
            more = taken > 0;
            n->tx_waiting = !tx_send(n);
            if (n->tx_waiting)
                break;
        }
    } while (!n->tx_waiting && rounds < TX_ROUNDS && !n->v.broken &&
             virtio_notify_on(&n->v, QUEUE_TX));
    virtio_publish(&n->v, QUEUE_TX);
    if (!n->tx_waiting && rounds >= TX_ROUNDS)
        virtio_kick_again(&n->v, QUEUE_TX);
}

static bool queue_usable(VirtioNet *n, unsigned q)
{
    return virtio_may_run(&n->v) && virtqueue_running(&n->v.q[q].vq);
}

static void net_writable(NetPort *port)
{
    VirtioNet *n = port->opaque;

    if (n->tx_waiting && queue_usable(n, QUEUE_TX))
        tx_run(n);
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
static RxResult rx_put(VirtioNet *n, const NetFrame *f, uint16_t *ret_had)
{
    VirtQueue *vq = &n->v.q[QUEUE_RX].vq;
    VirtChain first = {.iov = n->rx_iov, .pins = n->rx_pins, .max = RX_ROOM};
    VirtChain next = {.iov = n->rx_iov + RX_ROOM, .pins = n->rx_pins + RX_ROOM, .max = RX_ROOM};
    struct virtio_net_hdr_v1 h = header_of(n, f);
    FrameCursor cur = {.f = f};
    uint16_t heads[VIRTIO_QUEUE_SIZE], count = 0, size = vq->size;
    uint32_t lens[VIRTIO_QUEUE_SIZE];
    size_t left = f->len;

    do {
        VirtChain *c = count ? &next : &first;
        size_t skip = count ? 0 : HDR_LEN, put;

        if (count == size || (count && !virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF))) {
            virtqueue_rewind(vq, count);
            return RX_DROP; /* it will never fit */
        }
        if (!virtio_pop(&n->v, QUEUE_RX, c)) {
            virtqueue_rewind(vq, count);
            *ret_had = count;
            return n->v.broken ? RX_DROP : RX_FULL;
        }
        if (c->writable_len < (count ? 1 : HDR_LEN)) {
            virtqueue_rewind(vq, count + 1u);
            virtio_break(&n->v, "receive buffer without room");
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
    virtio_publish(&n->v, QUEUE_RX);
    return RX_DONE;
}

static bool net_deliver(NetPort *port, const NetFrame *f)
{
    VirtioNet *n = port->opaque;
    uint8_t dest[NET_MAC_LEN];
    VirtQueue *vq;
    uint16_t had;

    if (!__atomic_load_n(&n->v.live, __ATOMIC_RELAXED) || n->v.broken)
        return true; /* no driver: lost, as on a wire to a machine that is off */
    vq = &n->v.q[QUEUE_RX].vq;
    if (!virtqueue_running(vq))
        return true;
    if (!virtio_may_run(&n->v)) {
        n->rx_blocked = true;
        return false;
    }
    if (virtq_from_iov(f->iov, f->niov, 0, dest, sizeof dest) != sizeof dest ||
        !net_filter_wants(&n->regs.filter, dest))
        return true;
    virtqueue_notify_off(vq);
    for (unsigned i = 0; i < RX_TRIES; i++) {
        if (rx_put(n, f, &had) != RX_FULL)
            return true;
        if (!virtqueue_notify_after(vq, had)) {
            n->rx_blocked = true;
            return false;
        }
    }
    /* Buffers trickle in as fast as we look: let others have a turn. */
    n->rx_blocked = true;
    virtio_kick_again(&n->v, QUEUE_RX);
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

static void loans_back(VirtioNet *n)
{
    virtqueue_rewind(&n->v.q[QUEUE_RX].vq, n->loans);
    n->loans = 0;
}

/* Lend buffers for a frame like the latest; the header's place stays ours. */
static unsigned net_rx_lend(NetPort *port, struct iovec *ret_iov, unsigned max)
{
    VirtioNet *n = port->opaque;
    size_t want = HDR_LEN + MAX(n->rx_latest, (uint32_t)LOAN_MIN), have = 0;
    bool mergeable = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF);
    unsigned pieces = 0, at = 0;

    if (!__atomic_load_n(&n->v.live, __ATOMIC_RELAXED) || n->v.broken ||
        !virtqueue_running(&n->v.q[QUEUE_RX].vq) || !virtio_may_run(&n->v))
        return 0;
    virtqueue_notify_off(&n->v.q[QUEUE_RX].vq);
    while (have < want && n->loans < LOAN_MAX && at <= RX_ROOM && (mergeable || !n->loans)) {
        VirtChain *c = &n->loan[n->loans];
        *c = (VirtChain){.iov = n->rx_iov + at, .pins = n->rx_pins + at, .max = RX_ROOM};
        if (!virtio_pop(&n->v, QUEUE_RX, c))
            break;
        if (c->writable_len <= HDR_LEN || c->writable > max - pieces) {
            virtqueue_rewind(&n->v.q[QUEUE_RX].vq, 1);
            break; /* deliver() has the words for the first, and room for the second */
        }
        n->loans++;
        at += c->readable + c->writable;
        pieces += room_of(c, n->loans > 1 ? 0 : HDR_LEN, ret_iov + pieces, max - pieces);
        have += c->writable_len;
    }
    if (!n->v.broken && have >= MIN(want, HDR_LEN + LOAN_MIN))
        return pieces;
    loans_back(n);
    return 0;
}

/* What did not fit in what was lent goes to more buffers. Keeps (2). */
static bool net_rx_take(NetPort *port, const NetFrame *f)
{
    VirtioNet *n = port->opaque;
    VirtQueue *vq = &n->v.q[QUEUE_RX].vq;
    struct virtio_net_hdr_v1 h = header_of(n, f);
    size_t left = HDR_LEN + f->len;
    uint8_t dest[NET_MAC_LEN];
    unsigned used = 0;

    if (!f->len || virtq_from_iov(f->iov, f->niov, 0, dest, sizeof dest) != sizeof dest ||
        !net_filter_wants(&n->regs.filter, dest)) {
        loans_back(n);
        return true;
    }
    n->rx_latest = f->len;
    for (; used < n->loans && left; used++)
        left -= MIN(left, n->loan[used].writable_len);
    if (left) { /* longer than the latest: the next will find room */
        loans_back(n);
        return false;
    }
    virtqueue_rewind(vq, n->loans - used);
    n->loans = 0;
    h.num_buffers = (uint16_t)used;
    left = HDR_LEN + f->len;
    virtq_to_iov(n->loan[0].iov + n->loan[0].readable, n->loan[0].writable, 0, &h, HDR_LEN);
    for (unsigned i = 0; i < used; i++) {
        VirtChain *c = &n->loan[i];
        uint32_t len = (uint32_t)MIN(left, c->writable_len);
        virtqueue_mark_dirty(c);
        virtqueue_push(vq, c->head, len);
        left -= len;
    }
    virtio_publish(&n->v, QUEUE_RX);
    return true;
}

static void rx_kick(VirtioNet *n)
{
    if (!n->rx_blocked)
        return;
    n->rx_blocked = false;
    net_rx_ready(&n->port);
}

static void net_link(NetPort *port, bool up)
{
    VirtioNet *n = port->opaque;
    uint8_t status[sizeof(uint16_t)];

    if (!n->ready)
        return;
    store_le16(status, up ? VIRTIO_NET_S_LINK_UP : 0);
    virtio_config_set(&n->v, offsetof(struct virtio_net_config, status), status, sizeof status);
}

/* The link may have changed between joining and now; what changes from here on is told. */
static void net_link_now(void *opaque)
{
    VirtioNet *n = opaque;

    n->ready = true;
    if (!net_peer_link(&n->port))
        net_link(&n->port, false);
}

static const NetPortOps net_port_ops = {
    .deliver = net_deliver,
    .rx_borrow = net_rx_lend,
    .rx_commit = net_rx_take,
    .writable = net_writable,
    .link = net_link,
    .offloads = NET_OFF_ALL,
};

/* ---- control queue, 5.1.6.5 ---- */

/* @data: @len bytes after the command's header. Whether it was carried out. */
static bool ctrl_command(VirtioNet *n, uint8_t class, uint8_t cmd, const uint8_t *data, size_t len)
{
    NetFilter *filter = &n->regs.filter;

    if (class == VIRTIO_NET_CTRL_RX && virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX) && len == 1) {
        if (cmd == VIRTIO_NET_CTRL_RX_PROMISC)
            filter->promisc = data[0];
        else if (cmd == VIRTIO_NET_CTRL_RX_ALLMULTI)
            filter->allmulti = data[0];
        else
            return false;
        return true;
    }
    if (class != VIRTIO_NET_CTRL_MAC)
        return false;
    if (cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET && virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX))
        return net_filter_set_tables(filter, data, len);
    if (cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET && virtio_has(&n->v, VIRTIO_NET_F_CTRL_MAC_ADDR) &&
        len == NET_MAC_LEN) {
        memcpy(filter->mac, data, NET_MAC_LEN);
        virtio_config_set(&n->v, offsetof(struct virtio_net_config, mac), data, NET_MAC_LEN);
        return true;
    }
    return false;
}

static void ctrl_run(VirtioNet *n)
{
    VirtQueue *vq = &n->v.q[QUEUE_CTRL].vq;
    VirtChain c = {.iov = n->rx_iov, .pins = n->rx_pins, .max = RX_ROOM};
    unsigned count = 0;

    do {
        for (; count < CTRL_BATCH && virtio_pop(&n->v, QUEUE_CTRL, &c); count++) {
            uint8_t buf[CTRL_LEN_MAX];
            const size_t hdr = sizeof(struct virtio_net_ctrl_hdr);
            size_t len = virtq_from_iov(c.iov, c.readable, 0, buf, sizeof buf);
            uint8_t ack = VIRTIO_NET_ERR;

            /* Longer than anything known: the buffer holds a part, and that is an error too,
             * but for filter tables, which then say themselves that they are too long. */
            if (len >= hdr && ctrl_command(n, buf[0], buf[1], buf + hdr, len - hdr))
                ack = VIRTIO_NET_OK;
            len = virtq_to_iov(c.iov + c.readable, c.writable, 0, &ack, sizeof ack);
            virtqueue_push_chain(vq, &c, (uint32_t)len);
            if (!len) {
                virtio_break(&n->v, "control command without room for its answer");
                break;
            }
        }
    } while (count < CTRL_BATCH && !n->v.broken && virtqueue_notify_on(vq));
    virtio_publish(&n->v, QUEUE_CTRL);
    if (count == CTRL_BATCH)
        virtio_kick_again(&n->v, QUEUE_CTRL);
}

/* ---- virtio ---- */

static void net_kick(VirtioDev *vd, unsigned q)
{
    VirtioNet *n = (VirtioNet *)vd;

    if (q == QUEUE_RX)
        rx_kick(n);
    else if (q == QUEUE_TX && !n->tx_waiting)
        tx_run(n);
    else if (q == QUEUE_CTRL)
        ctrl_run(n);
}

/* A kick and the loop's wake-up cost more than a frame; buffers for receiving are no work. */
static bool net_polls(VirtioDev *vd, unsigned q)
{
    return q == QUEUE_TX && !((VirtioNet *)vd)->tx_waiting;
}

/* The wire finishes what the driver did not say it can take. */
static void net_started(VirtioDev *vd)
{
    VirtioNet *n = (VirtioNet *)vd;
    uint32_t off = 0;

    if (virtio_has(vd, VIRTIO_NET_F_GUEST_CSUM))
        off |= NET_OFF_CSUM;
    if (virtio_has(vd, VIRTIO_NET_F_GUEST_TSO4))
        off |= NET_OFF_TSO4;
    if (virtio_has(vd, VIRTIO_NET_F_GUEST_TSO6))
        off |= NET_OFF_TSO6;
    if (virtio_has(vd, F_GUEST_USO4) && virtio_has(vd, F_GUEST_USO6))
        off |= NET_OFF_USO;
    __atomic_store_n(&n->port.offloads, off, __ATOMIC_RELAXED);
}

static void net_stopped(VirtioDev *vd)
{
    VirtioNet *n = (VirtioNet *)vd;

    n->tx_first = n->tx_last = n->tx_iovs = 0;
    n->tx_waiting = false; /* rx_blocked stays: the wire still holds a frame */
    net_filter_reset(&n->regs.filter, n->mac);
    __atomic_store_n(&n->port.offloads, 0, __ATOMIC_RELAXED);
    memcpy(vd->config + offsetof(struct virtio_net_config, mac), n->mac, NET_MAC_LEN);
}

/* Keeps (1): frames that the wire did not take are popped again after the pause. */
static void net_quieted(VirtioDev *vd)
{
    VirtioNet *n = (VirtioNet *)vd;

    virtqueue_rewind(&vd->q[QUEUE_TX].vq, n->tx_last - n->tx_first);
    n->tx_first = n->tx_last = n->tx_iovs = 0;
    n->tx_waiting = false;
}

static const VirtioClass net_virtio = {
    .name = "virtio-net",
    .type = VIRTIO_ID_NET,
    .class_code = CLASS_ETHERNET,
    .features = net_features,
    .kick = net_kick,
    .polled = true,
    .polls = net_polls,
    .started = net_started,
    .stopped = net_stopped,
    .quieted = net_quieted,
};

/* ---- device ---- */

static uint64_t net_configure(VirtioNet *n)
{
    uint32_t peer = net_peer_offloads(&n->port);
    struct virtio_net_config c = {.status = VIRTIO_NET_S_LINK_UP, .mtu = net_card_mtu(n->netdev, n->mtu)};
    uint64_t f = VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_STATUS) |
                 VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) |
                 VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) |
                 VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) |
                 VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6) | VIRTIO_BIT(F_GUEST_USO4) |
                 VIRTIO_BIT(F_GUEST_USO6);

    if (peer & NET_OFF_CSUM)
        f |= VIRTIO_BIT(VIRTIO_NET_F_CSUM) |
             (peer & NET_OFF_TSO4 ? VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) : 0) |
             (peer & NET_OFF_TSO6 ? VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6) : 0) |
             (peer & NET_OFF_USO ? VIRTIO_BIT(F_HOST_USO) : 0);
    if (c.mtu)
        f |= VIRTIO_BIT(VIRTIO_NET_F_MTU);
    memcpy(c.mac, n->mac, NET_MAC_LEN);
    memcpy(n->v.config, &c, CONFIG_LEN);
    return f;
}

static void net_free(VirtioNet *n)
{
    if (n->joined)
        net_part(&n->port);
    n->joined = n->ready = false;
    g_clear_pointer(&n->tx_iov, g_free);
    g_clear_pointer(&n->tx_pins, g_free);
    g_clear_pointer(&n->rx_iov, g_free);
    g_clear_pointer(&n->rx_pins, g_free);
}

static bool net_realize(Device *d, GError **error)
{
    VirtioNet *n = (VirtioNet *)d;

    if (!n->netdev)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: needs netdev=NAME", d->id);
    if (n->mtu && n->mtu < MTU_MIN)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: mtu=%u: must be %u to %u", d->id, n->mtu,
                          MTU_MIN, MTU_MAX);
    if (n->mac[0] & 1)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: mac: is a group address", d->id);
    n->port = (NetPort){.ops = &net_port_ops,
                        .name = d->id,
                        .opaque = n,
                        .io = net_queue_loop(n->netdev, d->board->io),
                        .mtu = (uint16_t)n->mtu};
    memcpy(n->port.mac, n->mac, NET_MAC_LEN);
    n->tx_iov = g_new(struct iovec, TX_ROOM);
    n->tx_pins = g_new(MemPin, VIRTQ_SEGMENTS_MAX);
    n->rx_iov = g_new(struct iovec, 2 * RX_ROOM);
    n->rx_pins = g_new(MemPin, 2 * RX_ROOM);
    n->joined = net_join(&n->port, n->netdev, error);
    if (n->joined && virtio_realize(&n->v, &net_virtio, n->port.io, net_configure(n), QUEUES,
                                    VIRTIO_QUEUE_SIZE, CONFIG_LEN, error)) {
        if (!n->netboot || pci_add_rom(&n->v.pci, n->romfile, error)) {
            if (n->port.io)
                io_thread_call(n->port.io, net_link_now, n);
            else
                net_link_now(n);
            return true;
        }
        virtio_unrealize(&n->v);
    }
    net_free(n);
    return false;
}

static void net_unrealize(Device *d)
{
    VirtioNet *n = (VirtioNet *)d;

    /* What a frame or a kick uses goes when neither can come any more. */
    if (n->joined)
        net_part(&n->port);
    n->joined = false;
    virtio_unrealize(&n->v);
    net_free(n);
}

static void net_pre_save(void *obj)
{
    VirtioNet *n = obj;

    virtio_pre_save(&n->v, &n->saved.transport);
    n->saved.regs = n->regs;
}

static bool net_post_load(void *obj, unsigned version, GError **error)
{
    VirtioNet *n = obj;

    if (!net_filter_valid(&n->saved.regs.filter))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: receive filter is malformed",
                          n->v.pci.dev.id);
    if (!virtio_post_load(&n->v, &n->saved.transport, error))
        return false;
    n->regs = n->saved.regs;
    memcpy(n->v.config + offsetof(struct virtio_net_config, mac), n->regs.filter.mac, NET_MAC_LEN);
    return true;
}

static const StateField regs_fields[] = {
    ST_SUBS(NetRegs, filter, 1, &net_filter_state),
    ST_SKIPPED(NetRegs, unused, "only fills up the struct"),
    ST_END,
};
static const StateDesc regs_state = {.name = "net", .version = 1, .oldest = 1,
                                     .regs_size = sizeof(NetRegs), .fields = regs_fields};
static const StateField net_fields[] = {
    ST_SUBS(NetSaved, transport, 1, &virtio_saved_state),
    ST_SUBS(NetSaved, regs, 1, &regs_state),
    ST_END,
};
static const StateDesc net_state = {
    .name = "virtio-net-pci",
    .version = 1,
    .oldest = 1,
    .regs_offset = offsetof(VirtioNet, saved),
    .regs_size = sizeof(NetSaved),
    .fields = net_fields,
    .pre_save = net_pre_save,
    .post_load = net_post_load,
};

static const PropSpec net_props[] = {
    {"netdev", "network that it is on", PROP_NET, offsetof(VirtioNet, netdev), 0, 0, NULL},
    {"mac", "hardware address", PROP_MAC, offsetof(VirtioNet, mac), 0, 0, "52:54:00:12:34:56"},
    {"mtu", "greatest frame without its header, 68 to 65535; 0: the network's if not 1500", PROP_U32,
     offsetof(VirtioNet, mtu), 0, MTU_MAX, "0"},
    PCI_NETBOOT_PROPS(VirtioNet, "pxe-virtio.rom"),
    {0},
};

const DeviceClass virtio_net_pci_class = {
    .name = "virtio-net-pci",
    .bus = "pci",
    .help = "virtio 1.0 network card",
    .boot = 'n',
    .instance_size = sizeof(VirtioNet),
    .props = net_props,
    .state = &net_state,
    .realize = net_realize,
    .reset = virtio_reset,
    .quiesce = virtio_quiesce,
    .resume = virtio_resume,
    .unrealize = net_unrealize,
};
