/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FUZZ_VIRTIO_H
#define LODGE_FUZZ_VIRTIO_H

/*
 * A driver that brings up a virtio device before a program starts: rings of FUZZ_RING_ENTRIES, ring
 * q at FUZZ_RINGS_GPA + q * FUZZ_RING_BYTES, so that writes to memory and to the notification
 * registers are requests.
 */

#include "testboard.h"

enum {
    FUZZ_RINGS_GPA = 0x1000,
    FUZZ_RING_BYTES = 0x200,
    FUZZ_RING_ENTRIES = 8,
};

/* The device whose common configuration lies at @common, from its reset on: @queues of its queues,
 * all features that it offers but @without. */
void fuzz_virtio_bring_up(TestBoard *tb, uint64_t common, unsigned queues, uint64_t without);

#endif
