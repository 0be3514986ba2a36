/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System control port A at 0x92: fast A20 and fast reset.
 *
 * Spec: IBM PS/2 Hardware Interface Technical Reference, "System Control Port A"; Intel 82371AB
 * data sheet 290562, section 4.2.5.3.
 *
 * A20 is always open: its bit reads back as written and does nothing else. Left out: the lock of
 * the password area and the two disk lights, whose bits read 0.
 *
 * Threads: vCPU threads, under the device's lock.
 */

#include "lodge/device.h"

#define PORT92_BASE 0x92
#define PORT92_FAST_RESET 0x01
#define PORT92_A20 0x02

typedef struct Port92Regs {
    uint8_t control;
} Port92Regs;

typedef struct Port92 {
    Device dev;
    /* Constant after realize: */
    BusRegion region;
    /* Guarded by dev.lock: */
    Port92Regs regs;
} Port92;

static uint64_t port92_read(void *owner, uint64_t off, unsigned size)
{
    Port92 *p = owner;

    return p->regs.control;
}

/* 82371AB 4.2.5.3: bit 0 resets the CPU when it goes from 0 to 1. */
static void port92_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Port92 *p = owner;
    bool rose = (val & PORT92_FAST_RESET) && !(p->regs.control & PORT92_FAST_RESET);

    p->regs.control = val & (PORT92_FAST_RESET | PORT92_A20);
    if (rose)
        p->dev.board->request(p->dev.board, BOARD_RESET, 0);
}

static const BusRegionOps port92_ops = {.read = port92_read, .write = port92_write, .sizes = 1};

static void port92_reset(Device *d, ResetKind kind)
{
    ((Port92 *)d)->regs.control = PORT92_A20;
}

static void port92_unrealize(Device *d)
{
    bus_unmap(d->board->pio, &((Port92 *)d)->region);
}

static bool port92_realize(Device *d, GError **error)
{
    Port92 *p = (Port92 *)d;

    p->region = (BusRegion){
        .name = "port92", .len = 1, .ops = &port92_ops, .owner = p, .lock = &d->lock};
    return bus_map(d->board->pio, &p->region, PORT92_BASE, error);
}

static const StateField port92_fields[] = {
    ST_U(Port92Regs, control, PORT92_FAST_RESET | PORT92_A20),
    ST_END,
};
static const StateDesc port92_state = {
    .name = "port92", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Port92, regs), .regs_size = sizeof(Port92Regs),
    .fields = port92_fields,
};

const DeviceClass port92_class = {
    .name = "port92",
    .help = "system control port A: fast A20 and reset",
    .instance_size = sizeof(Port92),
    .state = &port92_state,
    .realize = port92_realize,
    .reset = port92_reset,
    .unrealize = port92_unrealize,
};
