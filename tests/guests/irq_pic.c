/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts through the two 8259s with the I/O APIC masked: PIT on IRQ 0 and RTC on IRQ 8 wake a
 * halted CPU; of two that wait the higher priority comes first, and rotation changes which that
 * is; in service, the lower waits for the EOI and the higher nests; the poll command acknowledges.
 */
#include "lib.h"

enum { BASE = 0x20, COM_IER = 0x3f9, COM_MCR = 0x3fc, COM_IIR = 0x3fa };
static volatile u32 count[16], order[8], n_order, mode;

static u8 in_service(u16 port)
{
    outb(port, 0x0b);
    return inb(port);
}
static void on_irq(Frame *f)
{
    u32 irq = (u32)f->vector - BASE;

    count[irq]++;
    if (n_order < 8)
        order[n_order++] = irq;
    if (irq >= 8) {
        outb(0x70, 0x0c);
        (void)inb(0x71); /* the RTC holds its line until register C is read */
        CHECK(in_service(0xa0) & 1 << (irq - 8), "IRQ %u is not in service on the slave", irq);
        CHECK(in_service(0x20) & 4, "the cascade is not in service on the master");
    } else
        CHECK(in_service(0x20) & 1 << irq, "IRQ %u is not in service", irq);
    if (irq == 4) {
        outb(COM_IER, 0);
        if (mode == 1) { /* nested: IRQ 0 may come in here */
            u32 before = count[0];
            irq_enable();
            for (u64 t = rdtsc(); count[0] == before;)
                CHECK(rdtsc() - t < 5 * TSC_SECOND, "IRQ 0 does not nest into IRQ 4");
            irq_disable();
        }
    }
    if (irq == 0 && mode == 2) { /* IRQ 4 may not come in here */
        outb(COM_IER, 2);
        irq_enable();
        for (u64 t = rdtsc(); rdtsc() - t < TSC_SECOND / 200;)
            cpu_relax();
        irq_disable();
        CHECK(!count[4], "IRQ 4 came while IRQ 0 was in service");
        mode = 0;
    }
    pic_eoi(irq);
}

static void wait_pending(u8 bits)
{
    for (u64 t = rdtsc();;) {
        outb(0x20, 0x0a);
        if ((inb(0x20) & bits) == bits)
            return;
        CHECK(rdtsc() - t < 5 * TSC_SECOND, "requests %x never come: %x", bits, inb(0x20));
    }
}
static void clear(void)
{
    outb(COM_IER, 0);
    for (int i = 0; i < 16; i++)
        count[i] = 0;
    n_order = 0;
}

void guest_main(void)
{
    for (unsigned i = 0; i < 16; i++)
        on_vector((u8)(BASE + i), on_irq);
    pic_init(BASE);
    CHECK(inb(0x21) == 0xff && inb(0xa1) == 0xff, "masks read %x %x", inb(0x21), inb(0xa1));
    outb(COM_MCR, 8); /* OUT2 lets the UART's interrupt out */

    pit0_start(2, PIT_HZ / 500);
    pic_mask(0xfffe);
    while (count[0] < 10)
        irq_wait();
    say("ok IRQ 0\n");

    pic_mask(0xfffb & 0xfeff); /* cascade and RTC */
    cmos_write(0x0a, 0x26);    /* 1024 Hz */
    cmos_write(0x0b, (u8)(cmos_read(0x0b) | 0x40));
    (void)cmos_read(0x0c);
    while (count[8] < 10)
        irq_wait();
    cmos_write(0x0b, (u8)(cmos_read(0x0b) & ~0x40));
    (void)cmos_read(0x0c);
    say("ok IRQ 8\n");

    pit0_start(2,
               PIT_HZ / 20); /* on a slow host a quick PIT's next tick comes before IRQ 4's turn */

    /* Both wait: 0 goes before 4. */
    clear();
    pic_mask(0xffee);
    outb(COM_IER, 2); /* transmitter empty: at once */
    wait_pending(0x11);
    while (n_order < 2)
        irq_wait();
    CHECK(order[0] == 0 && order[1] == 4, "order is %u, %u", order[0], order[1]);
    CHECK(count[4] == 1, "IRQ 4 came %u times", count[4]);

    /* Lowest priority given to 3: now 4 goes before 0. */
    clear();
    pic_mask(0xffff);
    outb(0x20, 0xc3);
    pic_mask(0xffee);
    outb(COM_IER, 2);
    wait_pending(0x11);
    while (n_order < 2)
        irq_wait();
    CHECK(order[0] == 4 && order[1] == 0, "order after rotation is %u, %u", order[0], order[1]);
    outb(0x20, 0xc7);
    say("ok priorities\n");

    clear();
    mode = 1;
    outb(COM_IER, 2);
    while (!count[4])
        irq_wait();
    clear();
    mode = 2;
    while (mode)
        irq_wait();
    while (!count[4])
        irq_wait();
    say("ok nesting\n");

    /* Poll: reads the number with bit 7 and acknowledges, without an interrupt. */
    clear();
    pic_mask(0xfffe);
    wait_pending(1);
    outb(0x20, 0x0c);
    u8 polled = inb(0x20);
    CHECK(polled == 0x80, "poll gives %x", polled);
    CHECK(in_service(0x20) & 1, "poll does not acknowledge");
    pic_eoi(0);
    pic_mask(0xffff);
    outb(0x20, 0x0c);
    CHECK(!(inb(0x20) & 0x80), "poll finds a masked request");
    say("ok poll\n");
}
