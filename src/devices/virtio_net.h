/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VIRTIO_NET_H
#define LODGE_VIRTIO_NET_H

/*
 * The two halves of the virtio network card: virtio_net_pair.c carries frames over one pair of
 * queues and the stream of the back end that it is joined to, virtio_net.c is the device around the
 * pairs.
 */

#include <stdbool.h>
#include <stdint.h>

#include <linux/virtio_net.h>

#include "lodge/lock.h"
#include "lodge/net.h"
#include "virtio.h"
#include "virtio_net_filter.h"

enum {
    NET_TX_BATCH = 64,                     /* frames handed to the wire at once */
    NET_TX_ROOM = 2 * VIRTQ_SEGMENTS_MAX,  /* pieces of a batch; a chain may need half */
    NET_RX_ROOM = VIRTIO_QUEUE_SIZE + 8,   /* pieces of a chain */
    NET_LOAN_MAX = 48, /* chains for a frame of 64 KiB, of 1,500 bytes each */
    /* Of Linux 6.2, which the headers of an older one lack. */
    F_GUEST_USO4 = 54,
    F_GUEST_USO6 = 55,
    F_HOST_USO = 56,
    GSO_UDP_L4 = 5,
};

typedef struct VirtioNet VirtioNet;

/* A receive and a transmit queue, on one loop. */
typedef struct NetPair {
    /* Constant after realize: */
    VirtioNet *n; /* borrowed: contains us */
    unsigned index, rxq, txq;
    NetPort port; /* ours, joined to a stream of the back end; idle: not in use */
    bool joined;
    struct iovec *tx_iov; /* owned: NET_TX_ROOM */
    MemPin *tx_pins;      /* owned: VIRTQ_SEGMENTS_MAX, for what a driver should not offer */
    struct iovec *rx_iov; /* owned: two chains of NET_RX_ROOM */
    MemPin *rx_pins;      /* owned, likewise */
    /* Loop thread only: */
    bool ready; /* the transport is there, link changes can be told */
    bool rx_blocked, tx_waiting;
    unsigned tx_first, tx_last, tx_iovs;
    NetFrame tx[NET_TX_BATCH];
    uint16_t tx_head[NET_TX_BATCH];
    VirtChain loan[NET_LOAN_MAX]; /* lent between borrow and commit; in rx_iov and rx_pins */
    unsigned loans;
    uint32_t rx_latest; /* bytes of the latest frame: the next will be like it */
    NetFilter filter;   /* copy of the device's as of filter_seen */
    uint32_t filter_seen;
} NetPair;

typedef struct NetRegs {
    NetFilter filter;
    uint16_t pairs;    /* in use; 5.1.6.5.5 */
    uint8_t unused[2]; /* whole 8-byte units, so that NetSaved has no hole */
} NetRegs;
_Static_assert(sizeof(NetRegs) % sizeof(uint64_t) == 0, "no hole in NetSaved");

typedef struct NetSaved {
    VirtioSaved transport;
    NetRegs regs;
} NetSaved;

struct VirtioNet {
    VirtioDev v;
    /* Properties: */
    NetPort *netdev; /* borrowed from the board: the back end's first stream */
    bool netboot;    /* has its expansion ROM */
    char *romfile;   /* owned */
    uint8_t mac[NET_MAC_LEN];
    uint32_t mtu;
    /* Constant after realize: */
    NetPair *pair; /* owned array */
    unsigned pairs;
    /* Guarded by lock, which is the innermost one: */
    LodgeLock lock;
    NetRegs regs;
    /* Atomic: */
    uint32_t filter_changes; /* of regs.filter; 0: never */
    uint32_t links_down;     /* a bit for each pair whose stream's link is down */
    bool announce;           /* the driver has been asked to make itself known */
    /* Main thread, quiesced: */
    NetSaved saved;
};

extern const NetPortOps net_pair_ops;

void net_pair_init(NetPair *p, VirtioNet *n, unsigned index, NetPort *stream);
void net_pair_free(NetPair *p);
/* Kicks of its queues. Context: the loop. */
void net_pair_rx(NetPair *p);
void net_pair_tx(NetPair *p);
/* Its rings are gone; or it is to rest, and gives back what the wire did not take. Context
 * likewise. */
void net_pair_stopped(NetPair *p);
void net_pair_quieted(NetPair *p);
/* Whether the driver can be asked to make itself known: what is at the other end may have forgotten
 * where it is, or be another one. Any loop. */
bool virtio_net_may_ask(const VirtioNet *n);
/* Tell the driver of links_down and announce. Any loop. */
void virtio_net_status(VirtioNet *n);
/* The stream's link may have changed since it was joined; from here on it is told. @opaque is the
 * pair. Context: the loop. */
void net_pair_link_now(void *opaque);

#endif
