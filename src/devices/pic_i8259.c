/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pair of interrupt controllers of a PC: master at 0x20, slave at 0xA0 behind the master's
 * IR2, edge/level control registers at 0x4D0/0x4D1.
 *
 * Spec: Intel 8259A data sheet, order number 231468 ("8259A"); ELCR: Intel 82371AB (PIIX4) data
 * sheet, order number 290562, section 4.2.4.
 *
 * Modelled: ICW1..ICW4, OCW1..OCW3, fully nested, special fully nested and special mask modes,
 * all EOI and rotation commands, automatic EOI, poll, spurious IRQ 7 and 15.
 * Left out: MCS-80/85 mode (the vector is always the 8086 one), buffered mode (no pin to drive),
 * LTIM of ICW1 (chipsets replaced it by ELCR, so it has no effect), ICW3 (the wiring is fixed).
 *
 * Two things differ from the silicon on purpose. An edge is latched until it is acknowledged, even
 * if the pin falls before: sources here raise and lower in one step. And INTR is withdrawn as soon
 * as no request stands; an acknowledge that finds it withdrawn after it had been up gives IRQ 7,
 * as a CPU that had sampled it would get.
 *
 * Threads: any thread changes pins; vCPU threads access ports; vCPU 0's thread acknowledges. All
 * under the irq lock, which the port handlers take themselves.
 *
 * Invariants:
 * (1) master pin 2 equals the slave's INT output whenever the irq lock is free.
 * (2) what the router was told of INTR equals the master's INT output whenever the lock is free.
 * (3) every in-service bit that is cleared is reported by irq_eoi_locked(), as are requests that
 *     an initialization drops and pins that are opened: a source may wait on any of these.
 */

#include "lodge/device.h"

#define PIC_MASTER_PORT 0x20
#define PIC_SLAVE_PORT 0xa0
#define PIC_ELCR_PORT 0x4d0
#define PIC_CASCADE 2 /* master input that the slave drives */
#define PIC_PINS 8
#define PIC_SPURIOUS 7
/* IRQ 0, 1, 2, 8 and 13 are edge-triggered for ever: 82371AB 4.2.4.1, 4.2.4.2. */
#define PIC_ELCR_MASK_MASTER 0xf8
#define PIC_ELCR_MASK_SLAVE 0xde

/* 8259A, "Initialization Command Words" */
#define ICW1_SELECT 0x10
#define ICW1_IC4 0x01
#define ICW1_SNGL 0x02
#define ICW2_BASE_MASK 0xf8
#define ICW4_AEOI 0x02
#define ICW4_SFNM 0x10
/* 8259A, "Operation Command Words" */
#define OCW3_SELECT 0x08
#define OCW3_RIS 0x01
#define OCW3_RR 0x02
#define OCW3_POLL 0x04
#define OCW3_SMM 0x20
#define OCW3_ESMM 0x40
#define OCW_LEVEL_MASK 0x07
#define OCW2_COMMAND_SHIFT 5
#define POLL_REQUEST 0x80

/* OCW2's R, SL and EOI bits */
enum {
    OCW2_ROTATE_AEOI_CLEAR = 0,
    OCW2_EOI = 1,
    OCW2_NOP = 2,
    OCW2_EOI_SPECIFIC = 3,
    OCW2_ROTATE_AEOI_SET = 4,
    OCW2_ROTATE_EOI = 5,
    OCW2_SET_PRIORITY = 6,
    OCW2_ROTATE_EOI_SPECIFIC = 7,
};

/* Where the next write to the odd port goes */
enum { PIC_READY, PIC_WANT_ICW2, PIC_WANT_ICW3, PIC_WANT_ICW4 };

typedef struct PicChip {
    uint8_t irr, isr, imr;
    uint8_t pins;   /* input levels */
    uint8_t elcr;   /* set: level-triggered */
    uint8_t icw1, icw2, icw4;
    uint8_t lowest; /* the input with the lowest priority; 7 unless rotated */
    uint8_t step;   /* PIC_READY... */
    bool special_mask, read_isr, poll, rotate_aeoi;
} PicChip;

typedef struct PicRegs {
    PicChip chip[2]; /* master, slave */
    bool intr;       /* as last told to the router */
    bool sampled;    /* INTR rose since the last acknowledge */
} PicRegs;

typedef struct Pic {
    Device dev;
    /* Constant after realize: */
    BusRegion region[2], elcr_region;
    /* Guarded by the irq lock: */
    PicRegs regs;
} Pic;

/* Distance of the most urgent set bit from the top priority, 0..7; PIC_PINS: none is set. */
static unsigned pic_rank(const PicChip *c, uint8_t bits)
{
    for (unsigned rank = 0; rank < PIC_PINS; rank++) {
        if (bits & (1u << ((c->lowest + 1 + rank) % PIC_PINS)))
            return rank;
    }
    return PIC_PINS;
}

static unsigned pic_pin_of_rank(const PicChip *c, unsigned rank)
{
    return (c->lowest + 1 + rank) % PIC_PINS;
}

/* The input that the chip asks to have served, or -1: 8259A, "Fully Nested Mode", "Special Mask
 * Mode", "The Special Fully Nested Mode". */
static int pic_request(const Pic *p, unsigned n)
{
    const PicChip *c = &p->regs.chip[n];
    unsigned rank = pic_rank(c, c->irr & ~c->imr);
    uint8_t blocking = c->isr;

    if (rank == PIC_PINS || c->step != PIC_READY)
        return -1;
    if (c->special_mask)
        blocking &= ~c->imr;
    if (n == 0 && (c->icw4 & ICW4_SFNM))
        blocking &= ~(1u << PIC_CASCADE);
    return rank < pic_rank(c, blocking) ? (int)pic_pin_of_rank(c, rank) : -1;
}

static void pic_pin(PicChip *c, unsigned pin, bool level)
{
    uint8_t bit = 1u << pin;

    if (c->elcr & bit)
        c->irr = level ? c->irr | bit : c->irr & ~bit;
    else if (level && !(c->pins & bit))
        c->irr |= bit;
    c->pins = level ? c->pins | bit : c->pins & ~bit;
}

/* Restore (1) and (2) after any change. */
static void pic_update_locked(Pic *p)
{
    pic_pin(&p->regs.chip[0], PIC_CASCADE, pic_request(p, 1) >= 0);
    bool intr = pic_request(p, 0) >= 0;
    if (intr == p->regs.intr)
        return;
    p->regs.intr = intr;
    p->regs.sampled |= intr;
    irq_extint_locked(p->dev.board->irq, intr);
}

static void pic_notify_locked(Pic *p, unsigned n, uint8_t pins)
{
    for (unsigned pin = 0; pin < PIC_PINS; pin++) {
        if ((pins & (1u << pin)) && !(n == 0 && pin == PIC_CASCADE))
            irq_eoi_locked(p->dev.board->irq, n * PIC_PINS + pin);
    }
}

static void pic_end_locked(Pic *p, unsigned n, unsigned pin)
{
    PicChip *c = &p->regs.chip[n];
    uint8_t bit = c->isr & (1u << pin);

    c->isr &= ~bit;
    pic_notify_locked(p, n, bit);
}

/* The acknowledge sequence on one chip. Spec: 8259A, "Interrupt Sequence", "Automatic End of
 * Interrupt (AEOI) Mode", "Automatic Rotation". Return: the input, or -1: none (spurious). */
static int pic_take_locked(Pic *p, unsigned n)
{
    PicChip *c = &p->regs.chip[n];
    int pin = pic_request(p, n);

    if (pin < 0)
        return -1;
    uint8_t bit = 1u << pin;
    if (!(c->elcr & bit))
        c->irr &= ~bit;
    if (c->icw4 & ICW4_AEOI) {
        if (c->rotate_aeoi)
            c->lowest = pin;
        pic_notify_locked(p, n, bit);
    } else {
        c->isr |= bit;
    }
    /* INT falls during the sequence: what still stands makes a new edge at the master. */
    if (n == 1)
        pic_pin(&p->regs.chip[0], PIC_CASCADE, false);
    return pin;
}

/* Context: vCPU 0's thread, irq lock held. Return: vector, or -1 when INTR has not been up. */
static int pic_acknowledge(void *opaque)
{
    Pic *p = opaque;
    const PicChip *c = p->regs.chip;

    if (!p->regs.intr && !p->regs.sampled)
        return -1;
    p->regs.sampled = false;
    int pin = pic_take_locked(p, 0);
    unsigned n = 0;
    if (pin < 0) {
        pin = PIC_SPURIOUS;
    } else if (pin == PIC_CASCADE && !(c[0].icw1 & ICW1_SNGL)) {
        n = 1;
        pin = pic_take_locked(p, 1);
        /* The slave's request went away: the master's in-service bit stays set for the guest to
         * end, the slave's does not (8259A, "Edge and Level Triggered Modes"). */
        if (pin < 0)
            pin = PIC_SPURIOUS;
    }
    int vector = (c[n].icw2 & ICW2_BASE_MASK) + pin;
    pic_update_locked(p);
    return vector;
}

static void pic_set_pin(void *opaque, unsigned gsi, bool level)
{
    Pic *p = opaque;

    if (gsi >= 2 * PIC_PINS || gsi == PIC_CASCADE)
        return;
    pic_pin(&p->regs.chip[gsi / PIC_PINS], gsi % PIC_PINS, level);
    pic_update_locked(p);
}

static unsigned pic_pin_state(void *opaque, unsigned gsi)
{
    Pic *p = opaque;
    unsigned state = 0;

    if (gsi >= 2 * PIC_PINS || gsi == PIC_CASCADE)
        return 0;
    unsigned n = gsi / PIC_PINS;
    const PicChip *c = &p->regs.chip[n];
    uint8_t bit = 1u << gsi % PIC_PINS;
    bool path = n == 0 || !(p->regs.chip[0].imr & (1u << PIC_CASCADE));
    if (!(c->imr & bit) && c->step == PIC_READY && path)
        state |= IRQ_PIN_OPEN;
    if ((c->irr | c->isr) & bit)
        state |= IRQ_PIN_BUSY;
    return state;
}

/* 8259A, "ICW1": edge sense, mask, priorities, special mask and read select start afresh. */
static void pic_icw1(Pic *p, unsigned n, uint8_t val)
{
    PicChip *c = &p->regs.chip[n];
    uint8_t dropped = c->irr | c->isr | c->imr;

    c->irr = c->pins & c->elcr;
    c->isr = 0;
    c->imr = 0;
    c->lowest = PIC_PINS - 1;
    c->special_mask = c->read_isr = c->poll = c->rotate_aeoi = false;
    c->icw1 = val;
    if (!(val & ICW1_IC4))
        c->icw4 = 0;
    c->step = PIC_WANT_ICW2;
    pic_notify_locked(p, n, dropped);
}

/* 8259A, "Operation Control Word 2 (OCW2)", "End of Interrupt", "Automatic Rotation" */
static void pic_ocw2(Pic *p, unsigned n, uint8_t val)
{
    PicChip *c = &p->regs.chip[n];
    unsigned level = val & OCW_LEVEL_MASK;
    /* In special mask mode a masked in-service bit is out of the non-specific EOI's reach. */
    uint8_t ending = c->special_mask ? c->isr & ~c->imr : c->isr;
    unsigned rank = pic_rank(c, ending);

    switch (val >> OCW2_COMMAND_SHIFT) {
    case OCW2_ROTATE_AEOI_CLEAR:
        c->rotate_aeoi = false;
        break;
    case OCW2_ROTATE_AEOI_SET:
        c->rotate_aeoi = true;
        break;
    case OCW2_EOI:
    case OCW2_ROTATE_EOI:
        if (rank == PIC_PINS)
            break;
        level = pic_pin_of_rank(c, rank);
        pic_end_locked(p, n, level);
        if (val >> OCW2_COMMAND_SHIFT == OCW2_ROTATE_EOI)
            c->lowest = level;
        break;
    case OCW2_EOI_SPECIFIC:
        pic_end_locked(p, n, level);
        break;
    case OCW2_ROTATE_EOI_SPECIFIC:
        pic_end_locked(p, n, level);
        c->lowest = level;
        break;
    case OCW2_SET_PRIORITY:
        c->lowest = level;
        break;
    default: /* OCW2_NOP */
        break;
    }
}

/* 8259A, "Operation Control Word 3 (OCW3)" */
static void pic_ocw3(PicChip *c, uint8_t val)
{
    if (val & OCW3_ESMM)
        c->special_mask = val & OCW3_SMM;
    if (val & OCW3_RR)
        c->read_isr = val & OCW3_RIS;
    c->poll = val & OCW3_POLL;
}

static void pic_write_odd(Pic *p, unsigned n, uint8_t val)
{
    PicChip *c = &p->regs.chip[n];
    uint8_t opened;

    switch (c->step) {
    case PIC_WANT_ICW2:
        c->icw2 = val;
        c->step = !(c->icw1 & ICW1_SNGL) ? PIC_WANT_ICW3
                  : c->icw1 & ICW1_IC4   ? PIC_WANT_ICW4
                                         : PIC_READY;
        break;
    case PIC_WANT_ICW3: /* the board's wiring is fixed, so the value has no effect */
        c->step = c->icw1 & ICW1_IC4 ? PIC_WANT_ICW4 : PIC_READY;
        break;
    case PIC_WANT_ICW4:
        c->icw4 = val;
        c->step = PIC_READY;
        break;
    default: /* OCW1 */
        opened = c->imr & ~val;
        c->imr = val;
        pic_notify_locked(p, n, opened);
        break;
    }
}

static unsigned pic_chip_of(uint64_t off)
{
    return off < 2 ? 0 : 1;
}

/* Offsets 0, 1: master; 2, 3: slave. Context: vCPU thread; takes the irq lock. */
static void pic_port_write(Pic *p, uint64_t off, uint8_t val)
{
    Irq *q = p->dev.board->irq;
    unsigned n = pic_chip_of(off);

    irq_lock_take(q);
    if (off & 1)
        pic_write_odd(p, n, val);
    else if (val & ICW1_SELECT)
        pic_icw1(p, n, val);
    else if (val & OCW3_SELECT)
        pic_ocw3(&p->regs.chip[n], val);
    else
        pic_ocw2(p, n, val);
    pic_update_locked(p);
    irq_lock_drop(q);
}

static uint64_t pic_port_read(Pic *p, uint64_t off)
{
    Irq *q = p->dev.board->irq;
    unsigned n = pic_chip_of(off);
    PicChip *c = &p->regs.chip[n];
    uint8_t val;

    irq_lock_take(q);
    if (c->poll) { /* 8259A, "Poll Command": the read is the acknowledge */
        c->poll = false;
        int pin = pic_take_locked(p, n);
        val = pin < 0 ? 0 : POLL_REQUEST | pin;
        pic_update_locked(p);
    } else if (off & 1) {
        val = c->imr;
    } else {
        val = c->read_isr ? c->isr : c->irr;
    }
    irq_lock_drop(q);
    return val;
}

static uint64_t pic_master_read(void *owner, uint64_t off, unsigned size)
{
    return pic_port_read(owner, off);
}

static void pic_master_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    pic_port_write(owner, off, val);
}

static uint64_t pic_slave_read(void *owner, uint64_t off, unsigned size)
{
    return pic_port_read(owner, off + 2);
}

static void pic_slave_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    pic_port_write(owner, off + 2, val);
}

static uint64_t pic_elcr_read(void *owner, uint64_t off, unsigned size)
{
    Pic *p = owner;

    irq_lock_take(p->dev.board->irq);
    uint8_t val = p->regs.chip[off & 1].elcr;
    irq_lock_drop(p->dev.board->irq);
    return val;
}

/* 82371AB 4.2.4: a pin that becomes level-triggered requests by its level from now on. */
static void pic_elcr_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Pic *p = owner;
    PicChip *c = &p->regs.chip[off & 1];

    irq_lock_take(p->dev.board->irq);
    c->elcr = val & (off & 1 ? PIC_ELCR_MASK_SLAVE : PIC_ELCR_MASK_MASTER);
    c->irr = (c->irr & ~c->elcr) | (c->pins & c->elcr);
    pic_update_locked(p);
    irq_lock_drop(p->dev.board->irq);
}

static const BusRegionOps pic_ops[2] = {
    {.read = pic_master_read, .write = pic_master_write, .sizes = 1},
    {.read = pic_slave_read, .write = pic_slave_write, .sizes = 1},
};
static const BusRegionOps pic_elcr_ops = {
    .read = pic_elcr_read, .write = pic_elcr_write, .sizes = 1};

/* Power-on contents are undefined (8259A); as firmware finds it: masked, until ICW1. */
static void pic_reset(Device *d, ResetKind kind)
{
    Pic *p = (Pic *)d;

    irq_lock_take(d->board->irq);
    for (unsigned n = 0; n < 2; n++) {
        PicChip *c = &p->regs.chip[n];
        uint8_t pins = c->pins;
        *c = (PicChip){.pins = pins, .imr = 0xff, .lowest = PIC_PINS - 1};
    }
    p->regs.sampled = false;
    pic_update_locked(p);
    p->regs.sampled = false;
    irq_lock_drop(d->board->irq);
}

static void pic_unrealize(Device *d)
{
    Pic *p = (Pic *)d;

    if (p->elcr_region.mapped) { /* realized: the router's sink is ours */
        irq_set_pic(d->board->irq, NULL);
        irq_set_ack(d->board->irq, NULL, NULL);
    }
    bus_unmap(d->board->pio, &p->region[0]);
    bus_unmap(d->board->pio, &p->region[1]);
    bus_unmap(d->board->pio, &p->elcr_region);
}

static bool pic_realize(Device *d, GError **error)
{
    Pic *p = (Pic *)d;
    Bus *pio = d->board->pio;

    p->region[0] = (BusRegion){.name = "pic-master", .len = 2, .ops = &pic_ops[0], .owner = p};
    p->region[1] = (BusRegion){.name = "pic-slave", .len = 2, .ops = &pic_ops[1], .owner = p};
    p->elcr_region = (BusRegion){.name = "elcr", .len = 2, .ops = &pic_elcr_ops, .owner = p};
    if (!bus_map(pio, &p->region[0], PIC_MASTER_PORT, error) ||
        !bus_map(pio, &p->region[1], PIC_SLAVE_PORT, error) ||
        !bus_map(pio, &p->elcr_region, PIC_ELCR_PORT, error)) {
        pic_unrealize(d);
        return false;
    }
    irq_set_pic(d->board->irq,
                &(IrqSink){.set_pin = pic_set_pin, .opaque = p, .pin_state = pic_pin_state});
    irq_set_ack(d->board->irq, pic_acknowledge, p);
    return true;
}

static bool pic_post_load(void *obj, unsigned version, GError **error)
{
    Pic *p = obj;

    irq_lock_take(p->dev.board->irq);
    irq_extint_locked(p->dev.board->irq, p->regs.intr);
    irq_lock_drop(p->dev.board->irq);
    return true;
}

static const StateField pic_chip_fields[] = {
    ST_U(PicChip, irr, 0xff),
    ST_U(PicChip, isr, 0xff),
    ST_U(PicChip, imr, 0xff),
    ST_U(PicChip, pins, 0xff),
    ST_U(PicChip, elcr, 0xff),
    ST_U(PicChip, icw1, 0xff),
    ST_U(PicChip, icw2, 0xff),
    ST_U(PicChip, icw4, 0xff),
    ST_U(PicChip, lowest, PIC_PINS - 1),
    ST_U(PicChip, step, PIC_WANT_ICW4),
    ST_B(PicChip, special_mask),
    ST_B(PicChip, read_isr),
    ST_B(PicChip, poll),
    ST_B(PicChip, rotate_aeoi),
    ST_END,
};
static const StateDesc pic_chip_state = {
    .name = "i8259-chip", .version = 1, .oldest = 1,
    .regs_size = sizeof(PicChip), .fields = pic_chip_fields,
};
static const StateField pic_fields[] = {
    ST_SUBS(PicRegs, chip, 2, &pic_chip_state),
    ST_B(PicRegs, intr),
    ST_B(PicRegs, sampled),
    ST_END,
};
static const StateDesc pic_state = {
    .name = "i8259", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Pic, regs), .regs_size = sizeof(PicRegs),
    .fields = pic_fields, .post_load = pic_post_load,
};

const DeviceClass pic_i8259_class = {
    .name = "i8259",
    .help = "Intel 8259A pair: interrupt controllers of a PC, with ELCR",
    .instance_size = sizeof(Pic),
    .state = &pic_state,
    .realize = pic_realize,
    .reset = pic_reset,
    .unrealize = pic_unrealize,
};
