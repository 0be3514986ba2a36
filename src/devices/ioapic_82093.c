/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I/O APIC at 0xFEC00000 with 24 inputs.
 *
 * Spec: Intel 82093AA data sheet, order number 290566 ("82093AA"); the EOI register and version
 * 0x20: Intel ICH data sheets, section "I/O APIC". Messages go out in the format of the local
 * APICs' message address space: Intel SDM volume 3, 11.11 ("Message Signalled Interrupts").
 *
 * Modelled: ID, version and arbitration registers, the redirection table with edge and level
 * trigger, remote IRR, the EOI register, fixed, lowest priority, SMI, NMI and INIT delivery.
 * Left out: polarity (the router carries logical levels, so the bit is kept and ignored), delivery
 * status (a message is delivered at once: reads 0), ExtINT entries (the PIC's INTR is wired to the
 * CPU's LINT0, so such an entry delivers nothing).
 *
 * An edge at a masked pin is ignored and not remembered, as 82093AA 3.2.4 says of the mask bit.
 * Linux's timer check works with that: it opens the pin first, then waits for ticks.
 *
 * A level pin that stays high after its EOI is delivered again, once for each EOI; a guest that
 * never quiets its device loops in its own handler, not here.
 *
 * Threads: any thread changes pins; vCPU threads access registers and report EOIs. All under the
 * irq lock.
 *
 * Invariants:
 * (1) remote IRR is set only in entries that are level-triggered with fixed or lowest priority.
 * (2) the router's mirror of an entry equals the table whenever the irq lock is free; there, one
 *     that waits for its EOI counts as open: a guest may mask a pin before it ends the interrupt.
 */

#include "lodge/device.h"

#define IOAPIC_BASE 0xfec00000
#define IOAPIC_LEN 0x1000
/* 82093AA 3.1, Table 1: memory mapped registers */
#define IOAPIC_IOREGSEL 0x00
#define IOAPIC_IOWIN 0x10
#define IOAPIC_EOI 0x40
/* 82093AA 3.2: indirect registers */
#define IOAPIC_REG_ID 0x00
#define IOAPIC_REG_VER 0x01
#define IOAPIC_REG_ARB 0x02
#define IOAPIC_REG_TABLE 0x10
#define IOAPIC_ID_SHIFT 24
#define IOAPIC_ID_MAX 15
#define IOAPIC_VERSION 0x20
#define IOAPIC_VER_MAX_SHIFT 16
/* 82093AA 3.2.4: redirection entry */
#define REDIR_VECTOR 0xffu
#define REDIR_DELIVERY_SHIFT 8
#define REDIR_DELIVERY_MASK 7
#define REDIR_LOGICAL (UINT64_C(1) << 11)
#define REDIR_REMOTE_IRR (UINT64_C(1) << 14)
#define REDIR_LEVEL (UINT64_C(1) << 15)
#define REDIR_MASKED (UINT64_C(1) << 16)
#define REDIR_DEST_SHIFT 56
#define REDIR_WRITABLE UINT64_C(0xff0000000001afff)

enum {
    DELIVERY_FIXED = 0,
    DELIVERY_LOWEST = 1,
    DELIVERY_SMI = 2,
    DELIVERY_NMI = 4,
    DELIVERY_INIT = 5,
    DELIVERY_EXTINT = 7,
};

/* SDM 3, 11.11.1 and 11.11.2 */
#define MSI_ADDRESS 0xfee00000u
#define MSI_DEST_SHIFT 12
#define MSI_LOGICAL 0x4u
#define MSI_LEVEL (1u << 15)
#define MSI_ASSERT (1u << 14)

#define IOAPIC_PIT_PIN 2 /* ISA IRQ 0 arrives here */

typedef struct IoapicRegs {
    uint64_t redir[IRQ_GSIS];
    uint32_t pins; /* input levels */
    uint8_t id, arb, select, pad;
} IoapicRegs;

typedef struct Ioapic {
    Device dev;
    /* Constant after realize: */
    uint32_t apic_id;
    BusRegion region;
    /* Guarded by the irq lock: */
    IoapicRegs regs;
} Ioapic;

/* Let the sources behind @pin look at their lines; nothing is wired to pin 0 but the PIC. */
static void ioapic_notify_locked(Ioapic *s, unsigned pin)
{
    if (pin)
        irq_eoi_locked(s->dev.board->irq, pin == IOAPIC_PIT_PIN ? 0 : pin);
}

static unsigned ioapic_delivery(uint64_t e)
{
    return (e >> REDIR_DELIVERY_SHIFT) & REDIR_DELIVERY_MASK;
}

/* Only these modes are ended by an EOI, so only they can be level-triggered: 82093AA 3.2.4. */
static bool ioapic_is_level(uint64_t e)
{
    unsigned mode = ioapic_delivery(e);

    return (e & REDIR_LEVEL) && (mode == DELIVERY_FIXED || mode == DELIVERY_LOWEST);
}

static uint64_t ioapic_message_addr(uint64_t e)
{
    return MSI_ADDRESS | (uint32_t)(e >> REDIR_DEST_SHIFT) << MSI_DEST_SHIFT |
           (e & REDIR_LOGICAL ? MSI_LOGICAL : 0);
}

static uint32_t ioapic_message_data(uint64_t e)
{
    uint32_t data = (e & REDIR_VECTOR) | ioapic_delivery(e) << REDIR_DELIVERY_SHIFT;

    return ioapic_is_level(e) ? data | MSI_LEVEL | MSI_ASSERT : data;
}

/* Send the message of @pin, which is neither masked nor waits for an EOI. */
static void ioapic_deliver_locked(Ioapic *s, unsigned pin)
{
    uint64_t e = s->regs.redir[pin];

    if (ioapic_delivery(e) == DELIVERY_EXTINT)
        return;
    if (ioapic_is_level(e))
        s->regs.redir[pin] |= REDIR_REMOTE_IRR;
    irq_msi_deliver_locked(s->dev.board->irq, ioapic_message_addr(e), ioapic_message_data(e));
}

static void ioapic_level_check_locked(Ioapic *s, unsigned pin)
{
    uint64_t e = s->regs.redir[pin];

    if (ioapic_is_level(e) && !(e & (REDIR_MASKED | REDIR_REMOTE_IRR)) &&
        (s->regs.pins & (1u << pin)))
        ioapic_deliver_locked(s, pin);
}

static void ioapic_set_pin(void *opaque, unsigned pin, bool level)
{
    Ioapic *s = opaque;

    if (pin >= IRQ_GSIS)
        return;
    uint32_t bit = 1u << pin;
    bool rose = level && !(s->regs.pins & bit);
    uint64_t e = s->regs.redir[pin];
    s->regs.pins = level ? s->regs.pins | bit : s->regs.pins & ~bit;
    if (ioapic_is_level(e))
        ioapic_level_check_locked(s, pin);
    else if (rose && !(e & REDIR_MASKED))
        ioapic_deliver_locked(s, pin);
}

static unsigned ioapic_pin_state(void *opaque, unsigned pin)
{
    Ioapic *s = opaque;

    if (pin >= IRQ_GSIS)
        return 0;
    uint64_t e = s->regs.redir[pin];
    return (e & REDIR_MASKED || ioapic_delivery(e) == DELIVERY_EXTINT ? 0 : IRQ_PIN_OPEN) |
           (e & REDIR_REMOTE_IRR ? IRQ_PIN_BUSY : 0);
}

static void ioapic_mirror_locked(Ioapic *s, unsigned pin)
{
    uint64_t e = s->regs.redir[pin];

    irq_ioapic_route_locked(s->dev.board->irq, pin, ioapic_message_addr(e),
                            ioapic_message_data(e), ioapic_is_level(e),
                            (e & REDIR_MASKED) && !(e & REDIR_REMOTE_IRR));
}

/* The CPU ended @vector. Spec: 82093AA 3.2.4, bit 14. */
static void ioapic_eoi_vector(void *opaque, uint8_t vector)
{
    Ioapic *s = opaque;

    for (unsigned pin = 0; pin < IRQ_GSIS; pin++) {
        uint64_t e = s->regs.redir[pin];
        if ((e & REDIR_VECTOR) != vector || !(e & REDIR_REMOTE_IRR))
            continue;
        s->regs.redir[pin] = e & ~REDIR_REMOTE_IRR;
        if (e & REDIR_MASKED)
            ioapic_mirror_locked(s, pin); /* keeps (2) */
        ioapic_notify_locked(s, pin);
        ioapic_level_check_locked(s, pin);
    }
}

/* 82093AA 3.2.4. A change to edge drops remote IRR, which old drivers use as an EOI: keeps (1). */
static void ioapic_redir_write(Ioapic *s, unsigned pin, uint64_t val)
{
    uint64_t old = s->regs.redir[pin];
    uint64_t e = (val & REDIR_WRITABLE) | (old & REDIR_REMOTE_IRR);

    if (!ioapic_is_level(e))
        e &= ~REDIR_REMOTE_IRR;
    s->regs.redir[pin] = e;
    if (e != old)
        ioapic_mirror_locked(s, pin);
    /* Opened: a source that rests while nobody looks may go on. */
    if ((old & REDIR_MASKED) && !(e & REDIR_MASKED))
        ioapic_notify_locked(s, pin);
    ioapic_level_check_locked(s, pin);
}

static uint32_t ioapic_reg_read(const Ioapic *s, unsigned reg)
{
    switch (reg) {
    case IOAPIC_REG_ID: /* 82093AA 3.2.1 */
        return (uint32_t)s->regs.id << IOAPIC_ID_SHIFT;
    case IOAPIC_REG_VER: /* 82093AA 3.2.2 */
        return (IRQ_GSIS - 1) << IOAPIC_VER_MAX_SHIFT | IOAPIC_VERSION;
    case IOAPIC_REG_ARB: /* 82093AA 3.2.3 */
        return (uint32_t)s->regs.arb << IOAPIC_ID_SHIFT;
    default:
        if (reg < IOAPIC_REG_TABLE || reg >= IOAPIC_REG_TABLE + 2 * IRQ_GSIS)
            return 0;
        return s->regs.redir[(reg - IOAPIC_REG_TABLE) / 2] >> (reg & 1 ? 32 : 0);
    }
}

static void ioapic_reg_write(Ioapic *s, unsigned reg, uint32_t val)
{
    if (reg == IOAPIC_REG_ID) { /* 82093AA 3.2.1; writing it loads the arbitration register */
        s->regs.id = s->regs.arb = (val >> IOAPIC_ID_SHIFT) & IOAPIC_ID_MAX;
        return;
    }
    if (reg < IOAPIC_REG_TABLE || reg >= IOAPIC_REG_TABLE + 2 * IRQ_GSIS)
        return;
    unsigned pin = (reg - IOAPIC_REG_TABLE) / 2;
    uint64_t e = s->regs.redir[pin];
    if (reg & 1)
        e = (e & UINT32_MAX) | (uint64_t)val << 32;
    else
        e = (e & ~(uint64_t)UINT32_MAX) | val;
    ioapic_redir_write(s, pin, e);
}

static uint64_t ioapic_read(void *owner, uint64_t off, unsigned size)
{
    Ioapic *s = owner;
    uint32_t val = 0;

    irq_lock_take(s->dev.board->irq);
    if (off == IOAPIC_IOREGSEL) /* 82093AA 3.1.1 */
        val = s->regs.select;
    else if (off == IOAPIC_IOWIN) /* 82093AA 3.1.2 */
        val = ioapic_reg_read(s, s->regs.select);
    irq_lock_drop(s->dev.board->irq);
    return val;
}

static void ioapic_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Ioapic *s = owner;

    irq_lock_take(s->dev.board->irq);
    if (off == IOAPIC_IOREGSEL)
        s->regs.select = val;
    else if (off == IOAPIC_IOWIN)
        ioapic_reg_write(s, s->regs.select, val);
    else if (off == IOAPIC_EOI)
        ioapic_eoi_vector(s, val);
    irq_lock_drop(s->dev.board->irq);
}

static const BusSpan index_register[] = {{IOAPIC_IOREGSEL, 4}, {0}};
static const BusRegionOps ioapic_ops = {.read = ioapic_read, .write = ioapic_write, .sizes = 4,
                                        .coalesce = index_register};

static void ioapic_reset(Device *d, ResetKind kind)
{
    Ioapic *s = (Ioapic *)d;
    uint32_t pins = s->regs.pins;

    irq_lock_take(d->board->irq);
    s->regs = (IoapicRegs){.pins = pins, .id = s->apic_id, .arb = s->apic_id};
    for (unsigned pin = 0; pin < IRQ_GSIS; pin++) {
        s->regs.redir[pin] = REDIR_MASKED;
        ioapic_mirror_locked(s, pin);
    }
    irq_lock_drop(d->board->irq);
}

static void ioapic_unrealize(Device *d)
{
    Ioapic *s = (Ioapic *)d;

    if (s->region.mapped) { /* realized: the router's sink is ours */
        irq_set_ioapic(d->board->irq, NULL);
        irq_set_eoi_vector(d->board->irq, NULL, NULL);
    }
    bus_unmap(d->board->mmio, &s->region);
}

static bool ioapic_realize(Device *d, GError **error)
{
    Ioapic *s = (Ioapic *)d;

    s->region =
        (BusRegion){.name = "ioapic", .len = IOAPIC_LEN, .ops = &ioapic_ops, .owner = s};
    if (!bus_map(d->board->mmio, &s->region, IOAPIC_BASE, error))
        return false;
    irq_set_ioapic(d->board->irq, &(IrqSink){.set_pin = ioapic_set_pin,
                                             .opaque = s,
                                             .pin_state = ioapic_pin_state});
    irq_set_eoi_vector(d->board->irq, ioapic_eoi_vector, s);
    return true;
}

static bool ioapic_post_load(void *obj, unsigned version, GError **error)
{
    Ioapic *s = obj;

    irq_lock_take(s->dev.board->irq);
    for (unsigned pin = 0; pin < IRQ_GSIS; pin++) {
        uint64_t e = s->regs.redir[pin] & (REDIR_WRITABLE | REDIR_REMOTE_IRR);
        s->regs.redir[pin] = ioapic_is_level(e) ? e : e & ~REDIR_REMOTE_IRR;
        ioapic_mirror_locked(s, pin);
    }
    irq_lock_drop(s->dev.board->irq);
    return true;
}

static const PropSpec ioapic_props[] = {
    {.name = "apic-id", .help = "identification after reset", .kind = PROP_U32,
     .offset = offsetof(Ioapic, apic_id), .max = IOAPIC_ID_MAX, .preset = "0"},
    {NULL},
};
static const StateField ioapic_fields[] = {
    ST_U_ARRAY(IoapicRegs, redir, UINT64_MAX),
    ST_U(IoapicRegs, pins, (1u << IRQ_GSIS) - 1),
    ST_U(IoapicRegs, id, IOAPIC_ID_MAX),
    ST_U(IoapicRegs, arb, IOAPIC_ID_MAX),
    ST_U(IoapicRegs, select, 0xff),
    ST_SKIPPED(IoapicRegs, pad, "always 0: rounds the structure up"),
    ST_END,
};
static const StateDesc ioapic_state = {
    .name = "ioapic", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Ioapic, regs), .regs_size = sizeof(IoapicRegs),
    .fields = ioapic_fields, .post_load = ioapic_post_load,
};

const DeviceClass ioapic_82093_class = {
    .name = "ioapic",
    .help = "Intel 82093AA: I/O interrupt controller of multiprocessor PCs",
    .instance_size = sizeof(Ioapic),
    .props = ioapic_props,
    .state = &ioapic_state,
    .realize = ioapic_realize,
    .reset = ioapic_reset,
    .unrealize = ioapic_unrealize,
};
