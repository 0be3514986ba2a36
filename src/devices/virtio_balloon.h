/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VIRTIO_BALLOON_H
#define LODGE_VIRTIO_BALLOON_H

/* What the machine asks of its memory balloon; @d is of class virtio-balloon-pci. */

#include "lodge/device.h"

#define BALLOON_STATS 10u /* kinds of statistics that are known, VIRTIO_BALLOON_S_* */

typedef struct BalloonInfo {
    bool driver;       /* a guest's driver is at work */
    uint64_t ram;      /* bytes: what the machine was started with */
    uint64_t lent;     /* bytes that the guest says it has put into the balloon, at most ram */
    uint64_t wanted;   /* bytes that it is asked to put there */
    uint64_t inflated; /* bytes that went back to the host from the balloon so far, and */
    uint64_t reported; /* because the guest told that it does not use them */
    uint32_t have;     /* bits of stats that the guest has sent */
    uint64_t stats[BALLOON_STATS];
    int64_t stats_at_s; /* when, seconds since 1970; 0: never */
    unsigned stats_seq; /* changes with each set of them */
} BalloonInfo;

/* QEMU's names of the statistics, in their order: stat-swap-in ... */
extern const char *const balloon_stat_names[BALLOON_STATS];

extern const DeviceClass virtio_balloon_pci_class;
bool is_virtio_balloon(const Device *d);
/* Any thread, no lock held. */
void virtio_balloon_info(Device *d, BalloonInfo *ret);
/**
 * virtio_balloon_set() - Have the guest keep @bytes of its memory and lend the rest
 * @bytes: more than there is: all
 * Context: main thread. The guest does it when it can and tells by BOARD_BALLOON; one without a
 *          driver never does.
 */
void virtio_balloon_set(Device *d, uint64_t bytes);
/* Ask the guest for its statistics; stats_seq tells when they are there. Main thread. Return:
 * false: there is no driver that could. */
bool virtio_balloon_ask(Device *d);
/* The same each @seconds by itself; 0: not. Main thread. */
void virtio_balloon_poll(Device *d, uint32_t seconds);
uint32_t virtio_balloon_polled(Device *d);

#endif
