/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fuzz_virtio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#define FOUND (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)

enum {
    AVAIL_AT = 16 * FUZZ_RING_ENTRIES, /* behind the descriptors */
    USED_AT = 0x100,
};

void fuzz_virtio_bring_up(TestBoard *tb, uint64_t common, unsigned queues, uint64_t without)
{
    test_poke(tb, common + VIRTIO_PCI_COMMON_STATUS, 1, 0);
    test_poke(tb, common + VIRTIO_PCI_COMMON_STATUS, 1, FOUND);
    for (unsigned i = 0; i < 2; i++) {
        test_poke(tb, common + VIRTIO_PCI_COMMON_DFSELECT, 4, i);
        test_poke(tb, common + VIRTIO_PCI_COMMON_GFSELECT, 4, i);
        test_poke(tb, common + VIRTIO_PCI_COMMON_GF, 4,
                  test_peek(tb, common + VIRTIO_PCI_COMMON_DF, 4) &
                      (uint32_t)~(without >> (32 * i)));
    }
    test_poke(tb, common + VIRTIO_PCI_COMMON_STATUS, 1, FOUND | VIRTIO_CONFIG_S_FEATURES_OK);
    for (unsigned q = 0; q < queues; q++) {
        uint32_t at = FUZZ_RINGS_GPA + q * FUZZ_RING_BYTES;

        test_poke(tb, common + VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
        test_poke(tb, common + VIRTIO_PCI_COMMON_Q_SIZE, 2, FUZZ_RING_ENTRIES);
        test_poke(tb, common + VIRTIO_PCI_COMMON_Q_DESCLO, 4, at);
        test_poke(tb, common + VIRTIO_PCI_COMMON_Q_AVAILLO, 4, at + AVAIL_AT);
        test_poke(tb, common + VIRTIO_PCI_COMMON_Q_USEDLO, 4, at + USED_AT);
        test_poke(tb, common + VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    }
    test_poke(tb, common + VIRTIO_PCI_COMMON_STATUS, 1,
              FOUND | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}
