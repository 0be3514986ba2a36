/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reset in each of a PC's ways: how=cf9 (reset control register), 92 (fast A20 port), kbd (8042
 * pulse), acpi (the FADT's reset register), triple. A CMOS byte outlives it: the first boot finds
 * it clear, sets it and resets, the second one passes. RAM is loaded anew: .data is as built.
 */
#include "lib.h"

enum { MARK = 0x50, MARKED = 0xa5 };
static volatile u32 fresh = 1;

static void acpi_reset(void)
{
    for (ulong a = 0xe0000; a < 0x100000; a += 16) {
        if (memcmp((void *)a, "RSD PTR ", 8))
            continue;
        u32 rsdt = *(u32 *)(a + 16), n = (*(u32 *)(ulong)(rsdt + 4) - 36) / 4;
        for (u32 i = 0; i < n; i++) {
            u8 *t = (u8 *)(ulong)((u32 *)(ulong)(rsdt + 36))[i];
            if (memcmp(t, "FACP", 4))
                continue;
            CHECK(*(u32 *)(t + 4) >= 129 && (*(u32 *)(t + 112) >> 10 & 1),
                  "the FADT has no reset register");
            CHECK(t[116] == 1, "the reset register is not a port");
            outb((u16)(*(u32 *)(t + 120)), t[128]);
            return;
        }
    }
    fail("no FADT");
}

void guest_main(void)
{
    char how[16] = "cf9";

    arg_str("how", how, sizeof how);
    CHECK(fresh == 1, "data is not as built");
    fresh = 2;
    if (cmos_read(MARK) == MARKED) {
        cmos_write(MARK, 0);
        say("second boot\n");
        return;
    }
    cmos_write(MARK, MARKED);
    say("%s\nfirst boot, reset by %s\n", cmdline(), how);
    if (how[0] == 'c') {
        outb(0xcf9, 2);
        outb(0xcf9, 6);
    } else if (how[0] == '9')
        outb(0x92, inb(0x92) | 1);
    else if (how[0] == 'k') {
        while (inb(0x64) & 2)
            cpu_relax();
        outb(0x64, 0xfe);
    } else if (how[0] == 'a')
        acpi_reset();
    else {
        struct __attribute__((packed)) {
            u16 limit;
            ulong base;
        } none = {0, 0};
        __asm__ volatile("lidt %0; ud2" : : "m"(none));
    }
    for (u64 t = rdtsc(); rdtsc() - t < 5 * TSC_SECOND;)
        cpu_relax(); /* a reset from another thread takes its time */
    cmos_write(MARK, 0);
    fail("no reset by %s", how);
}
