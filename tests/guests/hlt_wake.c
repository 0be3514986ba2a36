/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A halted CPU woken n times (1000) by a line that another thread of the VMM raises: bytes arrive
 * at the UART, IRQ 4 wakes the guest from HLT, and it answers each with a '.', so that the host
 * sends the next one only then: one lost wake-up stops everything. "ioapic" takes that path instead
 * of the 8259. "quiet" answers only every 256th byte.
 */
#include "lib.h"

static volatile u32 got, wakes;
static bool by_ioapic;

static void on_uart(Frame *f)
{
    wakes++;
    while (inb(0x3fd) & 1) {
        (void)inb(0x3f8);
        got++;
    }
    if (by_ioapic)
        lapic_write(LAPIC_EOI, 0);
    else
        pic_eoi(4);
}

void guest_main(void)
{
    u32 n = arg_num("n", 1000), answered = 0, step = arg_has("quiet") ? 256 : 1;

    by_ioapic = arg_has("ioapic");
    pic_init(0x20);
    on_vector(0x24, on_uart);
    if (by_ioapic) {
        lapic_enable();
        ioapic_route(4, 0x24);
    } else
        pic_mask(0xffef);
    outb(0x3fa, 0); /* no FIFO: an interrupt a byte */
    outb(0x3fc, 8);
    outb(0x3f9, 1);
    say("READY\n");
    while (got < n) {
        irq_wait();
        for (; answered + step <= got; answered += step)
            say(".");
    }
    say("\nhlt_wake: %u bytes, %u interrupts\n", got, wakes);
    CHECK(got == n, "%u bytes came, not %u", got, n);
}
