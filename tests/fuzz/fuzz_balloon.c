/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory balloon and the watchdog from hostile programs. The balloon's driver has come up when a
 * program starts, with rings of RING_ENTRIES at RINGS_GPA, so that writes to memory and to the
 * notification registers are lists of pages.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "bus_fuzz.h"

#include "pci.h"
#include "virtio_balloon.h"

enum {
    WATCHDOG_SLOT = 3,
    BALLOON_SLOT,
    BARS_GPA = 0xe0000000,
    BARS_LIMIT_GPA = 0xf0000000,
    RINGS_GPA = 0x1000,
    RING_BYTES = 0x200,
    RING_ENTRIES = 8,
    QUEUES = 5,
    DESC_BYTES = 16 * RING_ENTRIES,
    USED_AT = 0x100,
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

static void common(TestBoard *tb, unsigned reg, unsigned size, uint64_t val)
{
    test_poke(tb, BALLOON_GPA + reg, size, val);
}

static void bring_up(TestBoard *tb)
{
    common(tb, VIRTIO_PCI_COMMON_STATUS, 1, 3);
    for (unsigned i = 0; i < 2; i++) { /* all that is offered */
        common(tb, VIRTIO_PCI_COMMON_DFSELECT, 4, i);
        common(tb, VIRTIO_PCI_COMMON_GFSELECT, 4, i);
        common(tb, VIRTIO_PCI_COMMON_GF, 4, test_peek(tb, BALLOON_GPA + VIRTIO_PCI_COMMON_DF, 4));
    }
    common(tb, VIRTIO_PCI_COMMON_STATUS, 1, 3 | VIRTIO_CONFIG_S_FEATURES_OK);
    for (unsigned q = 0; q < QUEUES; q++) {
        uint32_t at = RINGS_GPA + q * RING_BYTES;
        common(tb, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
        common(tb, VIRTIO_PCI_COMMON_Q_SIZE, 2, RING_ENTRIES);
        common(tb, VIRTIO_PCI_COMMON_Q_DESCLO, 4, at);
        common(tb, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, at + DESC_BYTES);
        common(tb, VIRTIO_PCI_COMMON_Q_USEDLO, 4, at + USED_AT);
        common(tb, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    }
    common(tb, VIRTIO_PCI_COMMON_STATUS, 1,
           3 | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

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
    bring_up(tb);
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
        bring_up(tb);
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
