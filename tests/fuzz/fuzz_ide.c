/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The IDE controller with two disks and a CD-ROM from hostile programs: every port, configuration
 * space, tables in guest memory; completions with and without errors, and changes of medium, are
 * events. Firmware's part is done: the bus master BAR is placed.
 */
#include <errno.h>

#include "bus_fuzz.h"
#include "fuzz_disk.h"
#include "pc_map.h"

#define BM_PORT 0xc000
#define DISK_BYTES (40u << 20) /* more than the 32 MiB of a command */
#define SMALL_BYTES (100u * 512)
#define CD_BYTES (64u * 2048 + 512)
#define TINY_BYTES 512 /* no whole block: refused */
#define EVENT_SETTLE 0x40

static const BusFuzzRegion ports[] = {
    {0x1f0, 8}, {0x3f6, 1}, {0x170, 8}, {0x376, 1}, {BM_PORT, 16}, {0}};
static const uint8_t devfns[] = {PC_SLOT_PIIX << 3 | PC_FN_IDE, 0xff};
static BlkNode *nodes[5];
static Device *cd;

static void set_up(TestBoard *tb)
{
    static const uint32_t bytes[] = {DISK_BYTES, SMALL_BYTES, CD_BYTES, CD_BYTES / 2, TINY_BYTES};
    static const char *const names[] = {"a", "b", "c", "d", "e"};

    for (unsigned i = 0; i < G_N_ELEMENTS(nodes); i++) {
        nodes[i] = fuzz_disk_new(names[i], bytes[i] & ~511u, i >= 2);
        test_board_backend(tb, names[i], nodes[i]);
    }
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "i8259", NULL);
    test_board_add(tb, "piix3-ide", NULL);
    test_board_add(tb, "ide-hd", "unit=0,drive=a");
    test_board_add(tb, "ide-hd", "unit=1,drive=b");
    cd = test_board_add(tb, "ide-cd", "unit=2,drive=c");
    test_cfg_write(tb, devfns[0], 0x20, 4, BM_PORT);
    test_cfg_write(tb, devfns[0], 0x04, 2, 0x05);
}

static void settle(TestBoard *tb)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(nodes); i++)
        fuzz_disk_settle(nodes[i]);
}

/* The low bits say which node, or which medium; bit 7: a medium; bit 6: all; else one, perhaps with
 * an error. */
static void event(TestBoard *tb, uint8_t what)
{
    if (what & 0x80) {
        settle(tb); /* the frame quiesces the device before */
        if (what & 0x10 && cd->cls->medium_locked(cd))
            return;
        (void)cd->cls->change_medium(cd, what & 1 ? nodes[2 + (what >> 1 & 3) % 3] : NULL, what & 8,
                                     NULL);
    } else if (what & EVENT_SETTLE) {
        settle(tb);
    } else {
        (void)fuzz_disk_complete(nodes[what & 3], what & 4 ? EIO : 0);
    }
}

static void tear_down(TestBoard *tb)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(nodes); i++)
        fuzz_disk_free(nodes[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .devfns = devfns, .set_up = set_up, .event = event,
                              .settle = settle, .tear_down = tear_down};

    return bus_fuzz_run(&f, data, len);
}
