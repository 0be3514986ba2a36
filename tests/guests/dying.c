/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest that dies (how=panic), hangs (how=hang: the 6300ESB's watchdog is started and left
 * alone) or halts (how=halt; with how=idle an interrupt could still wake it). A CMOS byte outlives a reset: the second boot passes. After how=panic with go=1 it goes on.
 */
#include "lib.h"

enum { MARK = 0x51, MARKED = 0xa5, PVPANIC = 0x505, PANICKED = 1 };
enum { CFG_BAR0 = 0x10, CFG_CONFIG = 0x60, CFG_LOCK = 0x68, ENABLE = 2, FAST = 4 };

static void start_watchdog(void)
{
    unsigned dev = 0;

    while (pci_read(dev, 0, 0) != 0x25ab8086)
        CHECK(++dev < 32, "no watchdog");
    ulong bar = pci_read(dev, 0, CFG_BAR0) & ~15u;
    pci_write(dev, 0, CFG_CONFIG, FAST);
    for (unsigned reg = 0; reg < 8; reg += 4) {
        mmio_write16(bar + 0xc, 0x80);
        mmio_write16(bar + 0xc, 0x86);
        mmio_write32(bar + reg, 20000); /* 19 ms */
    }
    pci_write(dev, 0, CFG_LOCK, ENABLE);
}

void guest_main(void)
{
    char how[16] = "panic";

    arg_str("how", how, sizeof how);
    if (cmos_read(MARK) == MARKED) {
        cmos_write(MARK, 0);
        say("second boot\n");
        return;
    }
    if (how[0] == 'i') {
        say("idles\n");
        for (;;)
            __asm__ volatile("sti; hlt");
    }
    if (how[0] == 'h' && how[2] == 'l') {
        say("halts\n");
        for (;;)
            __asm__ volatile("cli; hlt");
    }
    cmos_write(MARK, MARKED);
    if (how[0] == 'h') {
        say("hangs\n");
        start_watchdog();
    } else {
        CHECK(inb(PVPANIC) & PANICKED, "no pvpanic");
        say("dies\n");
        outb(PVPANIC, PANICKED);
    }
    if (arg_num("go", 0)) {
        cmos_write(MARK, 0);
        say("lives on\n");
        return;
    }
    for (;;)
        __asm__ volatile("cli; hlt");
}
