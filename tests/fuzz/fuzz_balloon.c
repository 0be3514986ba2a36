/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory balloon and the watchdog from hostile programs. The balloon's driver has come up when a
 * program starts (fuzz_virtio.h), so that writes to memory and to the notification registers are
 * lists of pages.
 */
#include "bus_fuzz.h"
#include "fuzz_virtio.h"

#include "pci.h"
#include "virtio_balloon.h"

enum {
    WATCHDOG_SLOT = 3,
    BALLOON_SLOT,
    BARS_GPA = 0xe0000000,
    BARS_LIMIT_GPA = 0xf0000000,
    QUEUES = 5,
    CFG_BAR0 = 0x10,
};

/* Where pci_assign() puts them; set_up() checks. */
#define WATCHDOG_GPA BARS_GPA
#define BALLOON_GPA (BARS_GPA + 0x4000)
#define MSIX_GPA (BARS_GPA + 0x8000)

static const BusFuzzRegion mmio[] = {
    {WATCHDOG_GPA, 16},           {BALLOON_GPA, 0x40},
    {BALLOON_GPA + 0x1000, 1},    {BALLOON_GPA + 0x2000, 16},
    {BALLOON_GPA + 0x3000, 4 * QUEUES}, {MSIX_GPA, 0x60}, {0}};
static const uint8_t devfns[] = {WATCHDOG_SLOT << 3, BALLOON_SLOT << 3, 0xff};
static Device *balloon;

static void set_up(TestBoard *tb)
{
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "i6300esb", NULL);
    balloon = test_board_add(tb, "virtio-balloon-pci", NULL);
    tb->board.ram_below_4g = BUS_FUZZ_RAM;
    pci_assign(tb->board.pci, BARS_GPA, BARS_LIMIT_GPA);
    g_assert_cmphex(test_cfg_read(tb, BALLOON_SLOT << 3, CFG_BAR0, 4), ==, BALLOON_GPA);
    g_assert_cmphex(test_cfg_read(tb, BALLOON_SLOT << 3, CFG_BAR0 + 4, 4), ==, MSIX_GPA);
    g_assert_cmphex(test_cfg_read(tb, WATCHDOG_SLOT << 3, CFG_BAR0, 4), ==, WATCHDOG_GPA);
    fuzz_virtio_bring_up(tb, BALLOON_GPA, QUEUES, 0);
}

static void event(TestBoard *tb, uint8_t what)
{
    BalloonInfo info;

    switch (what >> 6) {
    case 0:
        virtio_balloon_set(balloon, (uint64_t)what << 12);
        break;
    case 1:
        (void)virtio_balloon_ask(balloon);
        break;
    case 2:
        virtio_balloon_poll(balloon, what & 3);
        break;
    default:
        fuzz_virtio_bring_up(tb, BALLOON_GPA, QUEUES, 0);
        break;
    }
    virtio_balloon_info(balloon, &info);
    g_assert_cmpuint(info.lent, <=, info.ram);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.mmio = mmio, .devfns = devfns, .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
