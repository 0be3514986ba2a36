/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pvpanic: the guest's kernel tells that it died.
 *
 * Specification: QEMU's docs/specs/pvpanic, "ISA Interface". A read of port 0x505 gives the events
 * that the host understands; a write names those that happened. Unknown bits are a guest fault.
 *
 * Threads: vCPU threads; the device has no registers.
 */
#include "lodge/device.h"

#include "pc_map.h"

#define PVPANIC_PANICKED 0x01u
#define PVPANIC_CRASH_LOADED 0x02u
#define PVPANIC_EVENTS (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

typedef struct Pvpanic {
    Device dev;
    BusRegion io;
} Pvpanic;

static uint64_t pvpanic_read(void *owner, uint64_t off, unsigned size)
{
    return PVPANIC_EVENTS;
}

static void pvpanic_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Pvpanic *p = owner;
    Board *board = p->dev.board;
    if (val & ~(uint64_t)PVPANIC_EVENTS)
        guest_fault(&p->dev, "unknown event 0x%02x", (unsigned)val);
    if (val & PVPANIC_PANICKED)
        board->request(board, BOARD_PANIC, 0);
    if (val & PVPANIC_CRASH_LOADED)
        board->request(board, BOARD_CRASH_LOAD, 0);
}

static const BusRegionOps pvpanic_ops = {pvpanic_read, pvpanic_write, 1};

static void pvpanic_unrealize(Device *dev)
{
    Pvpanic *p = (Pvpanic *)dev;
    if (p->io.mapped)
        bus_unmap(dev->board->pio, &p->io);
}

static bool pvpanic_realize(Device *dev, GError **error)
{
    Pvpanic *p = (Pvpanic *)dev;
    p->io = (BusRegion){.name = "pvpanic", .len = 1, .ops = &pvpanic_ops, .owner = p,
                        .lock = &dev->lock};
    return bus_map(dev->board->pio, &p->io, PC_PORT_PVPANIC, error);
}

const DeviceClass pvpanic_class = {
    .name = "pvpanic",
    .bus = "isa",
    .help = "port by which the guest's kernel reports a panic",
    .instance_size = sizeof(Pvpanic),
    .state = &state_none,
    .realize = pvpanic_realize,
    .unrealize = pvpanic_unrealize,
};
