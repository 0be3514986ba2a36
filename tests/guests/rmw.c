/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions that read and write a device register in one go, n=20000 times: a machine that is
 * paused between the two accesses must make the second one all the same. The register is the upper
 * half of I/O APIC entries, which keeps bits 31:24.
 */
#include "lib.h"

enum { WINDOW = IOAPIC + 0x10, ENTRY = 5, STEP = 1 << 24 };

void guest_main(void)
{
    u32 n = arg_num("n", 20000), expect = 0;

    ioapic_write(0x10 + 2 * ENTRY + 1, 0); /* leaves the index there */
    for (u32 i = 0; i < n; i++) {
        __asm__ volatile("addl %1, (%0)" : : "r"((ulong)WINDOW), "r"((u32)STEP) : "memory", "cc");
        expect += STEP;
        if (mmio_read32(WINDOW) != expect)
            fail("the register is %x, not %x, after %u additions", mmio_read32(WINDOW), expect,
                 i + 1);
    }
    say("%u additions\n", n);
}
