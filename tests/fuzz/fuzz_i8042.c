/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keyboard controller from hostile programs, with devices on both of its ports. */
#include "bus_fuzz.h"

#include "kbd_i8042.h"
static const BusFuzzRegion ports[] = {{0x60, 1}, {0x64, 1}, {0}};
static Device *kbc;
static int waiting; /* bytes that each device would send */

static int ps2_read(void *opaque)
{
    return waiting > 0 ? waiting-- : -1;
}

static void ps2_write(void *opaque, uint8_t byte)
{
    waiting = byte & 7;
}

static void set_up(TestBoard *tb)
{
    static const Ps2Ops ops = {.read = ps2_read, .write = ps2_write};

    waiting = 0;
    kbc = test_board_add(tb, "i8042", NULL);
    i8042_attach(kbc, PS2_KEYBOARD, &ops, NULL);
    i8042_attach(kbc, PS2_AUX, &ops, NULL);
}

static void event(TestBoard *tb, uint8_t what)
{
    lodge_lock(&kbc->lock);
    waiting = what;
    i8042_data_ready_locked(kbc);
    lodge_unlock(&kbc->lock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
