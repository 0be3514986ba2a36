/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts through the I/O APIC, the 8259s masked: PIT on pin 2 (edge), RTC on pin 8 (edge), and
 * the UART on pin 4 programmed as level-triggered, whose line stays up until the cause goes: after
 * each EOI it must come again, with remote IRR set while it is in service, and a masked pin keeps
 * still.
 *
 * A KVM without hardware assist ends a vector as it delivers it: the local APIC's in-service bit is
 * clear in the handler, and the EOI is reported before the guest writes it. There remote IRR says
 * nothing, and the line is sampled once more before the handler has removed the cause.
 */
#include "lib.h"

enum {
    V_PIT = 0x41,
    V_RTC = 0x52,
    V_UART = 0x63,
    LEVEL = 1 << 15,
    MASKED = 1 << 16,
    REMOTE_IRR = 1 << 14
};
static volatile u32 pit, rtc, uart, uart_max = 5;
static volatile bool ends_early;

static void on_pit(Frame *f)
{
    pit++;
    lapic_write(LAPIC_EOI, 0);
}
static void on_rtc(Frame *f)
{
    rtc++;
    outb(0x70, 0x0c);
    (void)inb(0x71);
    lapic_write(LAPIC_EOI, 0);
}
static bool in_service(u8 vector)
{
    return lapic_read(LAPIC_ISR + (vector >> 5) * 0x10) >> (vector & 31) & 1;
}
static void on_uart(Frame *f)
{
    if (!in_service(V_UART)) {
        ends_early = true;
        uart_max = 6;
    }
    bool remote_irr =
        ioapic_read(0x10 + 2 * 4) & REMOTE_IRR; /* also lets an early EOI out before the next HLT */
    CHECK(ends_early || remote_irr, "remote IRR is clear while level %x is in service", V_UART);
    if (++uart == 5)
        outb(0x3f9, 0); /* the cause goes */
    CHECK(uart <= uart_max, "a level-triggered line comes again after its cause went");
    lapic_write(LAPIC_EOI, 0);
}

void guest_main(void)
{
    u32 version = ioapic_read(1), now;

    pic_init(0x20);
    lapic_enable();
    CHECK((version >> 16 & 0xff) == 23, "the I/O APIC has %u pins", (version >> 16 & 0xff) + 1);
    for (unsigned i = 0; i < 24; i++)
        ioapic_route(i, MASKED);
    on_vector(V_PIT, on_pit);
    on_vector(V_RTC, on_rtc);
    on_vector(V_UART, on_uart);

    pit0_start(2, PIT_HZ / 500);
    ioapic_route(2, V_PIT);
    while (pit < 10)
        irq_wait();
    ioapic_route(2, V_PIT | MASKED);
    irq_enable();
    for (u64 t = rdtsc(); rdtsc() - t < TSC_SECOND / 100;)
        cpu_relax();
    now = pit;
    for (u64 t = rdtsc(); rdtsc() - t < TSC_SECOND / 50;)
        cpu_relax();
    irq_disable();
    CHECK(pit == now, "a masked pin goes on");
    say("ok edge, pin 2\n");

    cmos_write(0x0a, 0x26);
    cmos_write(0x0b, (u8)(cmos_read(0x0b) | 0x40));
    ioapic_route(8, V_RTC);
    (void)cmos_read(0x0c); /* now: an edge that came while the pin was masked is lost, and none
                            * follows until the cause is taken away */
    while (rtc < 10)
        irq_wait();
    cmos_write(0x0b, (u8)(cmos_read(0x0b) & ~0x40));
    ioapic_route(8, MASKED);
    say("ok edge, pin 8\n");

    outb(0x3fc, 8);
    ioapic_route(4, V_UART | LEVEL);
    outb(0x3f9, 2);
    while (uart < 5)
        irq_wait();
    irq_enable();
    for (u64 t = rdtsc(); rdtsc() - t < TSC_SECOND / 100;)
        cpu_relax();
    irq_disable();
    CHECK(uart >= 5 && uart <= uart_max, "the level-triggered interrupt came %u times, not 5",
          uart);
    if (ends_early)
        say("note: this host ends interrupts as it delivers them\n");
    CHECK(!(ioapic_read(0x10 + 2 * 4) & REMOTE_IRR), "remote IRR stays set after the EOI");
    ioapic_route(4, MASKED);
    say("ok level, pin 4\n");
}
