// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtio network device.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, section 5.1 "Network Device", queue pairs and a
 * control queue: mergeable receive buffers, offloads of checksums and segmentation (TCP; UDP, as
 * virtio 1.3 has it) both ways as far as the wire's other end has them, MAC, link status, MTU,
 * receive filter by MAC and VLAN, announcements when the link is back or the state was loaded,
 * several pairs where the back end has as many streams. Left out: steering by hash (RSS) and hash
 * reports, UFO, offloads changed at run time.
 *
 * Which pair a flow is received on is the host's choice (for a tap: the one that it was last sent
 * on).
 *
 * Threads: each pair has a loop thread, see virtio_net_pair.c, and its lane. The control queue is
 * the last one and on the first pair's loop, or the third where the driver has not accepted several
 * pairs; then it is on the second pair's, which is not used for frames and lends its memory.
 *
 * Invariants:
 * (1) More than one pair is in use only after the driver said so by the control queue.
 * (2) regs changes under the lock; what pairs read of it they are told by port.idle, port.offloads
 *     and filter_changes, each stored after it.
 */
#include "virtio_net.h"

#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>

#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"

enum {
    CTRL_LEN_MAX = 2 + 2 * 4 + 2 * NET_FILTER_MACS * NET_MAC_LEN, /* longest command looked at */
    CTRL_BATCH = 64,
    CTRL_ALONE = 2, /* the control queue where there is but one pair */
    MTU_MIN = 68,
    MTU_MAX = 65535,
    CLASS_ETHERNET = 0x020000,
    CONFIG_LEN = offsetof(struct virtio_net_config, speed),
};

_Static_assert((int)NET_STREAMS_MAX <= (int)VIRTIO_LANES_MAX, "a lane for each pair");
_Static_assert(2 * NET_STREAMS_MAX + 1 <= VIRTIO_QUEUES_MAX, "queues for all pairs");

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
    {VIRTIO_NET_F_CTRL_VLAN, "ctrl_vlan", VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ)},
    {VIRTIO_NET_F_GUEST_ANNOUNCE, "guest_announce", VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ)},
    {VIRTIO_NET_F_MQ, "mq", VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ)},
    {VIRTIO_NET_F_CTRL_MAC_ADDR, "ctrl_mac_addr", VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ)},
    {0, NULL, 0},
};

/* ---- what pairs are told ---- */

static void tell_stream(void *opaque)
{
    net_changed(&((NetPair *)opaque)->port);
}

/* Put in force how many pairs are in use, and what the driver takes. Keeps (2). */
static void apply(VirtioNet *n, unsigned pairs, uint32_t offloads)
{
    for (unsigned i = 0; i < n->pairs; i++) {
        NetPair *p = &n->pair[i];

        __atomic_store_n(&p->port.offloads, offloads, __ATOMIC_RELAXED);
        __atomic_store_n(&p->port.idle, i >= pairs, __ATOMIC_RELAXED);
        if (p->port.io)
            io_thread_post(p->port.io, tell_stream, p);
        else
            tell_stream(p);
    }
}

static uint32_t driver_offloads(const VirtioDev *vd)
{
    uint32_t off = 0;

    if (virtio_has(vd, VIRTIO_NET_F_GUEST_CSUM))
        off |= NET_OFF_CSUM;
    if (virtio_has(vd, VIRTIO_NET_F_GUEST_TSO4))
        off |= NET_OFF_TSO4;
    if (virtio_has(vd, VIRTIO_NET_F_GUEST_TSO6))
        off |= NET_OFF_TSO6;
    if (virtio_has(vd, F_GUEST_USO4) && virtio_has(vd, F_GUEST_USO6))
        off |= NET_OFF_USO;
    return off;
}

static void filter_changed(VirtioNet *n)
{
    /* Pairs with the load in wants() of virtio_net_pair.c. */
    __atomic_fetch_add(&n->filter_changes, 1, __ATOMIC_RELEASE);
}

/* ---- the link, 5.1.4 ---- */

static uint16_t status_of(const VirtioNet *n)
{
    if (__atomic_load_n(&n->links_down, __ATOMIC_ACQUIRE))
        return 0;
    return __atomic_load_n(&n->announce, __ATOMIC_ACQUIRE)
               ? VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE : VIRTIO_NET_S_LINK_UP;
}

/* @tell: the driver, which takes the device's lock. */
static void put_status(VirtioNet *n, bool tell)
{
    const unsigned at = offsetof(struct virtio_net_config, status);
    uint16_t status;

    /* Others do so at the same time: the last one to write has seen what all say. */
    do {
        uint8_t bytes[sizeof status];

        status = status_of(n);
        store_le16(bytes, status);
        if (tell)
            virtio_config_set(&n->v, at, bytes, sizeof bytes);
        else
            memcpy(n->v.config + at, bytes, sizeof bytes);
    } while (status != status_of(n));
}

bool virtio_net_may_ask(const VirtioNet *n)
{
    return __atomic_load_n(&n->v.live, __ATOMIC_RELAXED) &&
           virtio_has(&n->v, VIRTIO_NET_F_GUEST_ANNOUNCE);
}

void virtio_net_status(VirtioNet *n)
{
    put_status(n, true);
}

/* ---- control queue, 5.1.6.5 ---- */

static bool ctrl_announce(VirtioNet *n, uint8_t cmd, size_t len)
{
    if (cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK || len ||
        !virtio_has(&n->v, VIRTIO_NET_F_GUEST_ANNOUNCE))
        return false;
    __atomic_store_n(&n->announce, false, __ATOMIC_RELEASE);
    virtio_net_status(n);
    return true;
}

static bool ctrl_pairs(VirtioNet *n, const uint8_t *data, size_t len)
{
    uint16_t pairs;

    if (len != sizeof pairs || !virtio_has(&n->v, VIRTIO_NET_F_MQ))
        return false;
    pairs = load_le16(data);
    if (pairs < VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN || pairs > n->pairs)
        return false;
    lodge_lock(&n->lock);
    n->regs.pairs = pairs;
    lodge_unlock(&n->lock);
    apply(n, pairs, driver_offloads(&n->v));
    return true;
}

/* @data: @len bytes after the command's header. Whether it was carried out. */
static bool filter_command(VirtioNet *n, uint8_t class, uint8_t cmd, const uint8_t *data,
                           size_t len)
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
    if (class == VIRTIO_NET_CTRL_VLAN && virtio_has(&n->v, VIRTIO_NET_F_CTRL_VLAN) &&
        (cmd == VIRTIO_NET_CTRL_VLAN_ADD || cmd == VIRTIO_NET_CTRL_VLAN_DEL))
        return net_filter_set_vlan(filter, data, len, cmd == VIRTIO_NET_CTRL_VLAN_ADD);
    if (class != VIRTIO_NET_CTRL_MAC)
        return false;
    if (cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET && virtio_has(&n->v, VIRTIO_NET_F_CTRL_RX))
        return net_filter_set_tables(filter, data, len);
    if (cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET && virtio_has(&n->v, VIRTIO_NET_F_CTRL_MAC_ADDR) &&
        len == NET_MAC_LEN) {
        memcpy(filter->mac, data, NET_MAC_LEN);
        return true;
    }
    return false;
}

static bool ctrl_command(VirtioNet *n, uint8_t class, uint8_t cmd, const uint8_t *data, size_t len)
{
    bool done;

    if (class == VIRTIO_NET_CTRL_MQ)
        return cmd == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET && ctrl_pairs(n, data, len);
    if (class == VIRTIO_NET_CTRL_ANNOUNCE)
        return ctrl_announce(n, cmd, len);
    lodge_lock(&n->lock);
    done = filter_command(n, class, cmd, data, len);
    lodge_unlock(&n->lock);
    if (!done)
        return false;
    filter_changed(n);
    if (class == VIRTIO_NET_CTRL_MAC && cmd == VIRTIO_NET_CTRL_MAC_ADDR_SET)
        virtio_config_set(&n->v, offsetof(struct virtio_net_config, mac), data, NET_MAC_LEN);
    return true;
}

/* The control queue among those that the driver sees, 5.1.2. */
static unsigned ctrl_queue(const VirtioNet *n)
{
    return virtio_has(&n->v, VIRTIO_NET_F_MQ) ? 2 * n->pairs : CTRL_ALONE;
}

static void ctrl_run(VirtioNet *n, unsigned q)
{
    VirtQueue *vq = &n->v.q[q].vq;
    NetPair *p = &n->pair[virtio_lane(&n->v, q)->index]; /* of the same loop */
    VirtChain c = {.iov = p->rx_iov, .pins = p->rx_pins, .max = NET_RX_ROOM};
    unsigned count = 0;

    do {
        for (; count < CTRL_BATCH && virtio_pop(&n->v, q, &c); count++) {
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
    virtio_publish(&n->v, q);
    if (count == CTRL_BATCH)
        virtio_kick_again(&n->v, q);
}

/* ---- virtio ---- */

/* The pair that queue @q is of; NULL: of none, the driver has not accepted so many. */
static NetPair *pair_of(VirtioNet *n, unsigned q)
{
    return q < (virtio_has(&n->v, VIRTIO_NET_F_MQ) ? 2 * n->pairs : CTRL_ALONE) ? &n->pair[q / 2]
                                                                                 : NULL;
}

static void net_kick(VirtioDev *vd, unsigned q)
{
    VirtioNet *n = (VirtioNet *)vd;
    NetPair *p = pair_of(n, q);

    if (p && q == p->rxq)
        net_pair_rx(p);
    else if (p && !p->tx_waiting)
        net_pair_tx(p);
    else if (!p && q == ctrl_queue(n))
        ctrl_run(n, q);
}

/* A kick and the loop's wake-up cost more than a frame; buffers for receiving are no work. */
static bool net_polls(VirtioDev *vd, unsigned q)
{
    const NetPair *p = pair_of((VirtioNet *)vd, q);

    return p && q == p->txq && !p->tx_waiting;
}

/* The wire finishes what the driver did not say it can take. */
static void net_started(VirtioDev *vd)
{
    VirtioNet *n = (VirtioNet *)vd;

    lodge_lock(&n->lock);
    unsigned pairs = n->regs.pairs;
    lodge_unlock(&n->lock);
    apply(n, pairs, driver_offloads(vd));
}

static void net_lane_stopped(VirtioLane *l)
{
    VirtioNet *n = (VirtioNet *)l->vd;

    for (unsigned i = 0; i < n->pairs; i++) {
        if (virtio_lane(l->vd, n->pair[i].rxq) == l)
            net_pair_stopped(&n->pair[i]);
    }
}

static void net_stopped(VirtioDev *vd)
{
    VirtioNet *n = (VirtioNet *)vd;

    lodge_lock(&n->lock);
    net_filter_reset(&n->regs.filter, n->mac);
    n->regs.pairs = 1;
    lodge_unlock(&n->lock);
    filter_changed(n);
    __atomic_store_n(&n->announce, false, __ATOMIC_RELEASE);
    put_status(n, false);
    apply(n, 1, 0);
    memcpy(vd->config + offsetof(struct virtio_net_config, mac), n->mac, NET_MAC_LEN);
}

static void net_quieted(VirtioDev *vd)
{
    VirtioNet *n = (VirtioNet *)vd;

    for (unsigned i = 0; i < n->pairs; i++) {
        if (virtio_here(vd, n->pair[i].txq))
            net_pair_quieted(&n->pair[i]);
    }
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
    .lane_stopped = net_lane_stopped,
    .quieted = net_quieted,
};

/* ---- device ---- */

static uint64_t net_configure(VirtioNet *n)
{
    uint32_t peer = net_peer_offloads(&n->pair[0].port);
    struct virtio_net_config c = {.status = VIRTIO_NET_S_LINK_UP,
                                  .mtu = net_card_mtu(n->netdev, n->mtu)};
    uint64_t f = VIRTIO_BIT(VIRTIO_NET_F_MAC) | VIRTIO_BIT(VIRTIO_NET_F_STATUS) |
                 VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VQ) |
                 VIRTIO_BIT(VIRTIO_NET_F_CTRL_RX) | VIRTIO_BIT(VIRTIO_NET_F_CTRL_VLAN) |
                 VIRTIO_BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE) |
                 VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) |
                 VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6) | VIRTIO_BIT(F_GUEST_USO4) |
                 VIRTIO_BIT(F_GUEST_USO6);

    if (peer & NET_OFF_CSUM)
        f |= VIRTIO_BIT(VIRTIO_NET_F_CSUM) |
             (peer & NET_OFF_TSO4 ? VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO4) : 0) |
             (peer & NET_OFF_TSO6 ? VIRTIO_BIT(VIRTIO_NET_F_HOST_TSO6) : 0) |
             (peer & NET_OFF_USO ? VIRTIO_BIT(F_HOST_USO) : 0);
    if (n->pairs > 1) {
        f |= VIRTIO_BIT(VIRTIO_NET_F_MQ);
        c.max_virtqueue_pairs = (uint16_t)n->pairs;
    }
    if (c.mtu)
        f |= VIRTIO_BIT(VIRTIO_NET_F_MTU);
    memcpy(c.mac, n->mac, NET_MAC_LEN);
    memcpy(n->v.config, &c, CONFIG_LEN);
    return f;
}

static void net_free(VirtioNet *n)
{
    for (unsigned i = 0; i < n->pairs; i++)
        net_pair_free(&n->pair[i]);
    if (n->pair)
        lodge_lock_clear(&n->lock);
    g_clear_pointer(&n->pair, g_free);
    n->pairs = 0;
}

/* A pair for each stream of the back end, joined to it; false: net_free() is still to be called. */
static bool make_pairs(VirtioNet *n, GError **error)
{
    IoThread *loops[NET_STREAMS_MAX];
    unsigned i = 0;

    for (const NetPort *s = n->netdev; s; s = s->next)
        n->pairs++;
    n->pair = g_new0(NetPair, n->pairs);
    lodge_lock_init(&n->lock, LOCK_RANK_QUEUE, "virtio-net");
    n->regs.pairs = 1;
    net_filter_reset(&n->regs.filter, n->mac);
    filter_changed(n);
    for (NetPort *s = n->netdev; s; s = s->next, i++) {
        net_pair_init(&n->pair[i], n, i, s);
        loops[i] = n->pair[i].port.io;
        n->pair[i].joined = net_join(&n->pair[i].port, s, error);
        if (!n->pair[i].joined)
            return false;
    }
    virtio_set_lanes(&n->v, loops, loops[0] ? n->pairs : 1, 2);
    return true;
}

static bool net_realize(Device *d, GError **error)
{
    VirtioNet *n = (VirtioNet *)d;

    if (!n->netdev)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: needs netdev=NAME", d->id);
    if (n->mtu && n->mtu < MTU_MIN)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: mtu=%u: must be %u to %u", d->id, n->mtu,
                          MTU_MIN, MTU_MAX);
    if (!net_mac_check(n->mac, d->id, error))
        return false;
    if (make_pairs(n, error) &&
        virtio_realize(&n->v, &net_virtio, n->pair[0].port.io, net_configure(n), 2 * n->pairs + 1,
                       VIRTIO_QUEUE_SIZE, CONFIG_LEN, error)) {
        if (!n->netboot || pci_add_rom(&n->v.pci, n->romfile, error)) {
            for (unsigned i = 0; i < n->pairs; i++) {
                if (n->pair[i].port.io)
                    io_thread_call(n->pair[i].port.io, net_pair_link_now, &n->pair[i]);
                else
                    net_pair_link_now(&n->pair[i]);
            }
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
    for (unsigned i = 0; i < n->pairs; i++) {
        if (n->pair[i].joined)
            net_part(&n->pair[i].port);
        n->pair[i].joined = false;
    }
    virtio_unrealize(&n->v);
    net_free(n);
}

static void net_pre_save(void *obj)
{
    VirtioNet *n = obj;

    virtio_pre_save(&n->v, &n->saved.transport);
    lodge_lock(&n->lock);
    n->saved.regs = n->regs;
    lodge_unlock(&n->lock);
}

/* Keeps (1). */
static bool pairs_valid(const VirtioNet *n, const NetSaved *s)
{
    bool many = s->transport.virtio.driver_features & VIRTIO_BIT(VIRTIO_NET_F_MQ);

    return s->regs.pairs >= 1 && s->regs.pairs <= (many ? n->pairs : 1);
}

static bool net_post_load(void *obj, unsigned version, GError **error)
{
    VirtioNet *n = obj;

    if (!net_filter_valid(&n->saved.regs.filter))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: receive filter is malformed",
                          n->v.pci.dev.id);
    if (!pairs_valid(n, &n->saved))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: %u pairs of queues are in use, of %u",
                          n->v.pci.dev.id, n->saved.regs.pairs, n->pairs);
    if (!virtio_post_load(&n->v, &n->saved.transport, error))
        return false;
    lodge_lock(&n->lock);
    n->regs = n->saved.regs;
    lodge_unlock(&n->lock);
    filter_changed(n);
    memcpy(n->v.config + offsetof(struct virtio_net_config, mac), n->saved.regs.filter.mac,
           NET_MAC_LEN);
    /* The network may be another one, or has forgotten where we are (5.1.6.5.4). */
    __atomic_store_n(&n->announce, virtio_net_may_ask(n), __ATOMIC_RELEASE);
    return true;
}

static void net_resume(Device *d)
{
    virtio_net_status((VirtioNet *)d); /* that of a state that was loaded is not told yet */
    virtio_resume(d);
}

static const StateField regs_fields[] = {
    ST_SUBS(NetRegs, filter, 1, &net_filter_state),
    ST_U(NetRegs, pairs, NET_STREAMS_MAX),
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
    {"mtu", "greatest frame without its header, 68 to 65535; 0: the network's if not 1500",
     PROP_U32, offsetof(VirtioNet, mtu), 0, MTU_MAX, "0"},
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
    .resume = net_resume,
    .unrealize = net_unrealize,
};
