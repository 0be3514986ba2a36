/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_KBD_I8042_H
#define LODGE_KBD_I8042_H

#include "lodge/device.h"

enum { PS2_KEYBOARD, PS2_AUX, PS2_PORTS };

/* A device at the end of a PS/2 cable. The controller's lock is held around these calls: a device
 * that others enter too has a lock of a higher rank for its state. */
typedef struct Ps2Ops {
    /* A byte from the host; answers are queued and then fetched by read(). */
    void (*write)(void *opaque, uint8_t byte);
    /* The next byte for the host, or -1: none. Only called while the controller can take one; the
     * keyboard has the key ready where it gives SCAN_BREAK. */
    int (*read)(void *opaque);
} Ps2Ops;

/**
 * i8042_attach() - Plug a device into @port, or pull it out with NULL @ops
 * @d:    a realized "i8042"
 * @port: PS2_KEYBOARD or PS2_AUX
 * @ops:  borrowed, static
 * Context: main thread; takes the controller's lock.
 */
void i8042_attach(Device *d, unsigned port, const Ps2Ops *ops, void *opaque);

/**
 * i8042_data_ready_locked() - A device has a byte: fetch it if there is room
 * Context: any thread, the controller's lock held.
 */
void i8042_data_ready_locked(Device *d);

#endif
