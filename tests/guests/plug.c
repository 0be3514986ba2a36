/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices that come and go, without ACPI's interpreter: says "up N" for each slot that gained a
 * device, lets go at once of each that it is asked for and says "down N". A byte on the serial line
 * is answered by a '.'; a break and the letter behind it by "sysrq N". Ends on the byte 'q'.
 */
#include "lib.h"

enum { HP_UP = 0xae00, HP_DOWN = 0xae04, HP_EJECT = 0xae08 };
enum { COM1 = 0x3f8, LSR = COM1 + 5, LSR_DR = 1, LSR_BI = 0x10 };

static void each(u32 bits, const char *what, bool eject)
{
    for (u32 slot = 0; slot < 32; slot++) {
        if (!(bits >> slot & 1))
            continue;
        if (eject)
            outl(HP_EJECT, 1u << slot);
        say("%s %u\n", what, slot);
    }
}

void guest_main(void)
{
    bool broken = false;
    u8 c = 0;

    say("READY\n");
    while (c != 'q') {
        u8 lsr = inb(LSR);

        each(inl(HP_UP), "up", false);
        each(inl(HP_DOWN), "down", true);
        if (!(lsr & LSR_DR))
            continue;
        c = inb(COM1);
        if (lsr & LSR_BI) {
            broken = true;
        } else if (broken) {
            say("sysrq %u\n", (u32)c);
            broken = false;
        } else {
            say(".");
        }
    }
}
