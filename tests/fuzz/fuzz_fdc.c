/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The floppy controller with its DMA from hostile programs, with disks that answer late, fail, and
 * are changed. */
#include <errno.h>

#include "bus_fuzz.h"
#include "fuzz_disk.h"
#include "lodge/num.h"

enum { DISKS = 4 };
static const BusFuzzRegion ports[] = {
    {0x3f2, 4}, {0x3f7, 1}, {0x00, 16}, {0x81, 1}, {0x3f0, 2}, {0}};
static BlkNode *disks[DISKS]; /* two of each drive */
static BlkNode *odd;          /* fits none */
static Device *drives[2];

static void set_up(TestBoard *tb)
{
    static const struct {
        const char *name;
        uint64_t kib;
        bool read_only;
    } t[DISKS] = {{"a", 1440, false}, {"b", 360, false}, {"a2", 711, true}, {"b2", 160, false}};

    for (unsigned i = 0; i < DISKS; i++) {
        disks[i] = fuzz_disk_new(t[i].name, t[i].kib * KIB, t[i].read_only);
        test_board_backend(tb, t[i].name, disks[i]);
    }
    odd = fuzz_disk_new("odd", 1441 * KIB, false);
    test_board_add(tb, "i8237", NULL);
    test_board_add(tb, "fdc-82077", NULL);
    drives[0] = test_board_add(tb, "floppy", "drive=a");
    drives[1] = test_board_add(tb, "floppy", "unit=1,drive=b");
}

static void settle(TestBoard *tb)
{
    for (unsigned i = 0; i < DISKS; i++)
        fuzz_disk_settle(disks[i]);
}

static void note_quiet(Device *d, void *opaque)
{
    *(bool *)opaque = true;
}

static void change(TestBoard *tb, unsigned unit, BlkNode *medium)
{
    bool quiet = false;

    device_quiesce(drives[unit], note_quiet, &quiet);
    if (!quiet)
        settle(tb);
    g_assert_true(quiet);
    (void)drives[unit]->cls->change_medium(drives[unit], medium, NULL); /* may not fit */
    device_resume(drives[unit]);
}

/* Bits 0 to 1: which disk; then whether it ends a request, one with an error, or is changed; bit 7:
 * the quick way, in which time passes and every request ends. */
static void event(TestBoard *tb, uint8_t what)
{
    unsigned i = what % DISKS;

    if (what & 0x80) {
        for (unsigned n = 0; n < 8; n++) {
            test_advance(tb, NS_PER_SEC / 1000);
            settle(tb);
        }
        return;
    }
    switch (what >> 2 & 3) {
    case 0:
        (void)fuzz_disk_complete(disks[i], 0);
        break;
    case 1:
        (void)fuzz_disk_complete(disks[i], what & 0x10 ? EROFS : EIO);
        break;
    case 2:
        change(tb, what & 0x10 ? 1 - i % 2 : i % 2, disks[i]);
        break;
    default:
        change(tb, i % 2, what & 0x10 ? odd : NULL);
        break;
    }
}

static void tear_down(TestBoard *tb)
{
    for (unsigned i = 0; i < DISKS; i++)
        fuzz_disk_free(disks[i]);
    fuzz_disk_free(odd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .set_up = set_up, .event = event, .settle = settle,
                              .tear_down = tear_down};

    return bus_fuzz_run(&f, data, len);
}
