/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Debug exit: a port by which a test kernel ends the VM with a status of its choice.
 *
 * A write of 1, 2 or 4 bytes with value v to the port ends the VM with process status
 * ((v << 1) | 1) & 0xff. A read gives 0 and counts as an access with that value. The three ports
 * behind it belong to wide accesses; one that begins there does nothing and reads as 0.
 *
 * Threads: vCPU threads; the device has no registers.
 */
#include "lodge/device.h"

#include "pc_map.h"

#define DEBUG_EXIT_PORTS 4
#define STRINGIFY_(x) #x
#define STRINGIFY(x) STRINGIFY_(x)

typedef struct DebugExit {
    Device dev;
    uint32_t iobase;
    BusRegion io;
} DebugExit;

static void debug_exit_access(DebugExit *x, uint64_t off, uint32_t v)
{
    Board *board = x->dev.board;
    if (off == 0)
        board->request(board, BOARD_EXIT, (int)((v << 1 | 1u) & 0xff));
}

static uint64_t debug_exit_read(void *owner, uint64_t off, unsigned size)
{
    debug_exit_access(owner, off, 0);
    return 0;
}

static void debug_exit_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    debug_exit_access(owner, off, (uint32_t)val);
}

static const BusRegionOps debug_exit_ops = {debug_exit_read, debug_exit_write, 1 | 2 | 4};

static void debug_exit_unrealize(Device *dev)
{
    DebugExit *x = (DebugExit *)dev;
    if (x->io.mapped)
        bus_unmap(dev->board->pio, &x->io);
}

static bool debug_exit_realize(Device *dev, GError **error)
{
    DebugExit *x = (DebugExit *)dev;
    x->io = (BusRegion){.name = "debug-exit", .len = DEBUG_EXIT_PORTS, .ops = &debug_exit_ops,
                        .owner = x, .lock = &dev->lock};
    return bus_map(dev->board->pio, &x->io, x->iobase, error);
}

static const PropSpec debug_exit_props[] = {
    {"iobase", "first port", PROP_U32, offsetof(DebugExit, iobase), 0,
     UINT16_MAX + 1 - DEBUG_EXIT_PORTS, STRINGIFY(PC_PORT_DEBUG_EXIT)},
    {NULL},
};

const DeviceClass debug_exit_class = {
    .name = "debug-exit",
    .bus = "isa",
    .help = "port by which the guest ends the VM with a status",
    .instance_size = sizeof(DebugExit),
    .props = debug_exit_props,
    .state = &state_none,
    .realize = debug_exit_realize,
    .unrealize = debug_exit_unrealize,
};
