/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The least of a driver for the virtio balloon (1af4:1045): it looks how many pages are wanted and
 * says that it has put as many there, without a queue, until the machine ends.
 */
#include "lib.h"

enum { CFG_BAR0 = 0x10, FEATURE_SELECT = 8, FEATURE = 12, STATUS = 20, CONFIG = 0x2000 };
enum { DRIVER = 3, FEATURES_OK = 8, DRIVER_OK = 4 };

void guest_main(void)
{
    unsigned dev = 0;

    while (pci_read(dev, 0, 0) != 0x10451af4)
        CHECK(++dev < 32, "no balloon");
    ulong bar = pci_read(dev, 0, CFG_BAR0) & ~15u;
    mmio_write8(bar + STATUS, DRIVER);
    mmio_write32(bar + FEATURE_SELECT, 1);
    mmio_write32(bar + FEATURE, 1); /* version 1 */
    mmio_write8(bar + STATUS, DRIVER | FEATURES_OK);
    CHECK(mmio_read8(bar + STATUS) == (DRIVER | FEATURES_OK), "features were refused");
    mmio_write8(bar + STATUS, DRIVER | FEATURES_OK | DRIVER_OK);
    say("READY\n");
    for (u32 was = 0;;) {
        u32 wanted = mmio_read32(bar + CONFIG);

        if (wanted != was)
            mmio_write32(bar + CONFIG + 4, wanted);
        was = wanted;
        for (unsigned i = 0; i < 1000; i++)
            cpu_relax();
    }
}
