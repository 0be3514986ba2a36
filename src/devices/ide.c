/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * IDE function of the PIIX3 (8086:7010, function 1 of its slot): two channels at the ports and
 * interrupts of the PC/AT, the task file of the drives on them, resets and the interrupt line.
 *
 * Spec: Intel 290550, "82371SB (PIIX3)": PCI registers of function 1 (3.3), bus master registers
 * (3.4, in ide_dma.c); ATA/ATAPI-6 (T13 1410D): 7 (registers), 9.2 and 9.3 (resets), 9.16.1 (one
 * drive alone on a cable).
 *
 * A channel answers while its IDETIM enables decoding and I/O space is on. IDETIM comes up enabled,
 * as firmware leaves it, for kernels that are entered without one; timing bits are kept and do
 * nothing. Of the control block only 3F6 is decoded. A channel without drives floats: DD7 is
 * pulled down (ATA 6.3), so BSY reads 0 and software sees at once that nobody is there. Device 0
 * alone answers for device 1: a disk with its own registers and status 0, a packet device with 0
 * everywhere, so that it is not taken for two; nobody answers for a missing device 0.
 *
 * Threads: vCPU threads at the ports, the loops of the drives' block nodes in completions; all
 * under IdeBus.lock, which ranks behind the lock of a device, so that a reset of the controller or
 * of a drive, and a configuration write, can take it.
 *
 * Invariants:
 * (1) irq is asserted exactly while the selected drive has INTRQ up and nIEN is clear.
 * (2) a command register write reaches a drive that has BSY or DRQ set only as DEVICE RESET.
 */
#include "ide.h"

#include "lodge/error.h"
#include "lodge/num.h"

#include "pc_map.h"
#include "pci_internal.h"

enum {
    IDE_VENDOR = 0x8086,
    IDE_DEVICE_ID = 0x7010,
    IDE_CLASS = 0x010180, /* legacy ports on both channels, bus master */
    IDE_STATUS_RESET = 0x0280, /* fast back-to-back, DEVSEL# medium */
    IDE_BM_BAR = 4,
    IDE_BM_LEN = 16,
    IDETIM = 0x40, /* one word a channel */
    IDETIM_DECODE = 0x8000,
    IDETIM_MASK = 0xf3ff,
    SIDETIM = 0x44,
    COMMAND_BLOCK_LEN = 8,
    CMD_EXECUTE_DIAGNOSTIC = 0x90,
    CMD_DEVICE_RESET = 0x08,
    FLOATING = 0x7f, /* a byte of an empty channel */
    BM_STATUS_KEPT = 0x67,
};

static const struct {
    uint16_t command, control;
    unsigned irq;
    const char *name, *control_name;
} ide_ports[IDE_CHANNELS] = {
    {0x1f0, 0x3f6, 14, "ide0", "ide0-control"},
    {0x170, 0x376, 15, "ide1", "ide1-control"},
};

_Static_assert(offsetof(IdeBus, regs) == offsetof(IdeBus, pci.regs) + sizeof(PciRegs),
               "one range of state");

#define BM_INTERRUPT 0x04

/* Keeps (1). A rise is what the bus master latches (PIIX 3.4.2, bit 2). */
void ide_update_irq(IdeChannel *c)
{
    IdeDrive *d = ide_selected(c);
    bool level = d && d->regs.irq && !(c->regs->control & IDE_NIEN);

    if (level == c->level)
        return;
    if (level)
        c->regs->bm_status |= BM_INTERRUPT;
    c->level = level;
    irq_line_set(c->irq, level);
}

void ide_raise(IdeDrive *d)
{
    d->regs.irq = 1;
    ide_update_irq(d->chan);
}

/* ---- ports ---- */

/* Who answers reads: device 0 alone on the cable does for device 1 as well (ATA 9.16.1). */
static IdeDrive *responder(const IdeChannel *c)
{
    IdeDrive *d = ide_selected(c);

    return d ? d : c->regs->device & IDE_DEV ? c->drive[0] : NULL;
}

static uint8_t read_status(const IdeChannel *c)
{
    const IdeDrive *d = ide_selected(c);

    return d ? d->regs.status : responder(c) ? 0 : FLOATING;
}

static uint8_t read_register(IdeChannel *c, unsigned reg)
{
    IdeDrive *d = responder(c);
    bool previous = c->regs->control & IDE_HOB;

    if (!d)
        return FLOATING;
    if (d->cd && !ide_selected(c))
        return 0;
    switch (reg) {
    case IDE_REG_FEATURE:
        return d->regs.error;
    case IDE_REG_DEVICE:
        return c->regs->device;
    case IDE_REG_COMMAND:
        if (ide_selected(c)) { /* ATA 7.15.5: reading status acknowledges the interrupt */
            d->regs.irq = 0;
            ide_update_irq(c);
        }
        return read_status(c);
    default:
        return d->regs.reg[reg - IDE_REG_FEATURE][previous];
    }
}

/* The registers of a drive as EXECUTE DEVICE DIAGNOSTIC leaves them; both drives do it (8.9). */
static void execute_diagnostic(IdeChannel *c)
{
    c->regs->device = 0;
    for (unsigned i = 0; i < IDE_UNITS; i++) {
        if (!c->drive[i])
            continue;
        ide_abandon(c->drive[i]);
        if (c->drive[i]->inflight)
            c->drive[i]->reset_wait = true;
        else
            ide_signature(c->drive[i]);
        c->drive[i]->regs.irq = i == 0;
    }
    ide_update_irq(c);
}

/* Keeps (2). */
static void write_command(IdeChannel *c, uint8_t val)
{
    IdeDrive *d = ide_selected(c);

    if (c->regs->control & IDE_SRST)
        return;
    if (d && (d->regs.status & (IDE_BSY | IDE_DRQ)) && !(d->cd && val == CMD_DEVICE_RESET)) {
        guest_fault(&d->dev, "command %02x while busy", val);
        return;
    }
    if (val == CMD_EXECUTE_DIAGNOSTIC) {
        execute_diagnostic(c);
        return;
    }
    if (!d || (d->regs.asleep && !(d->cd && val == CMD_DEVICE_RESET)))
        return;
    d->regs.irq = 0;
    ide_update_irq(c);
    ide_command(d, val);
}

static void write_register(IdeChannel *c, unsigned reg, uint8_t val)
{
    IdeDrive *selected = ide_selected(c);

    if (reg == IDE_REG_COMMAND) {
        write_command(c, val);
        return;
    }
    if (selected && (selected->regs.status & (IDE_BSY | IDE_DRQ)))
        return;
    c->regs->control &= (uint8_t)~IDE_HOB;
    if (reg == IDE_REG_DEVICE) {
        c->regs->device = val;
        ide_update_irq(c);
        return;
    }
    for (unsigned i = 0; i < IDE_UNITS; i++) {
        IdeDrive *d = c->drive[i];

        if (!d || (d->regs.status & (IDE_BSY | IDE_DRQ)))
            continue;
        d->regs.reg[reg - IDE_REG_FEATURE][1] = d->regs.reg[reg - IDE_REG_FEATURE][0];
        d->regs.reg[reg - IDE_REG_FEATURE][0] = val;
    }
}

/* Only the data register is wider than a byte; a wide access to another is bytes in a row. */
static uint64_t command_read(void *owner, uint64_t off, unsigned size)
{
    IdeChannel *c = owner;
    uint64_t v = 0;

    if (off == IDE_REG_DATA) {
        IdeDrive *d = ide_selected(c);

        return d ? ide_port_read(d, size) : responder(c) ? 0 : 0xff7fff7fu;
    }
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)read_register(c, (unsigned)off + i) << (8 * i);
    return v;
}

static void command_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    IdeChannel *c = owner;

    if (off == IDE_REG_DATA) {
        IdeDrive *d = ide_selected(c);

        if (d)
            ide_port_write(d, size, (uint32_t)val);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        write_register(c, (unsigned)off + i, (uint8_t)(val >> (8 * i)));
}

/* What a command takes as its parameters; the device register is not among them, since what it
 * selects drives the interrupt line. */
static const BusSpan parameters[] = {{IDE_REG_FEATURE, IDE_REG_HIGH - IDE_REG_FEATURE + 1}, {0}};
static const BusRegionOps command_ops = {command_read, command_write, 1 | 2 | 4, parameters};

/* ATA 7.3: alternate status, which acknowledges nothing. */
static uint64_t control_read(void *owner, uint64_t off, unsigned size)
{
    return read_status(owner);
}

/* ATA 7.8: device control. */
static void control_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    IdeChannel *c = owner;
    uint8_t before = c->regs->control;

    c->regs->control = (uint8_t)val & (IDE_NIEN | IDE_SRST | IDE_HOB);
    if ((before ^ val) & IDE_SRST) {
        if (val & IDE_SRST)
            c->regs->device = 0;
        for (unsigned i = 0; i < IDE_UNITS; i++) {
            if (c->drive[i])
                ide_soft_reset(c->drive[i], val & IDE_SRST);
        }
    }
    ide_update_irq(c);
}

static const BusRegionOps control_ops = {control_read, control_write, 1};

/* ---- PCI function ---- */

static void place(Bus *pio, BusRegion *r, bool on, uint64_t base)
{
    if (on && !r->mapped)
        bus_place(pio, r, base);
    else if (!on && r->mapped)
        bus_unmap(pio, r);
}

static void decode(IdeBus *b)
{
    bool io = load_le16(b->pci.regs.cfg + PCI_COMMAND) & PCI_COMMAND_IO;

    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        IdeChannel *c = &b->chan[i];
        bool on = io && (load_le16(b->pci.regs.cfg + IDETIM + 2 * i) & IDETIM_DECODE);

        place(b->pci.dev.board->pio, &c->command, on, c->command_port);
        place(b->pci.dev.board->pio, &c->control, on, c->control_port);
    }
}

static void step_drives(IdeBus *b)
{
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        for (unsigned u = 0; u < IDE_UNITS; u++) {
            if (b->chan[i].drive[u])
                ide_step(b->chan[i].drive[u]);
        }
    }
}

static void ide_cfg_written(PciDev *d, unsigned off, unsigned len)
{
    IdeBus *b = (IdeBus *)d;

    decode(b);
    if (!ranges_overlap(off, len, PCI_COMMAND, 2))
        return;
    lodge_lock(&b->lock);
    b->master = pci_bus_master(d);
    step_drives(b); /* a transfer may have waited for bus mastering */
    lodge_unlock(&b->lock);
}

static void unmap_all(IdeBus *b)
{
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        place(b->pci.dev.board->pio, &b->chan[i].command, false, 0);
        place(b->pci.dev.board->pio, &b->chan[i].control, false, 0);
        g_clear_pointer(&b->chan[i].irq, irq_line_free);
    }
}

static void ide_unrealize(Device *dev)
{
    IdeBus *b = (IdeBus *)dev;

    if (dev->board->ide == b)
        dev->board->ide = NULL;
    if (b->ready)
        unmap_all(b);
    pci_unrealize(&b->pci);
    if (b->ready)
        lodge_lock_clear(&b->lock);
    b->ready = false;
}

/* Descriptor table pointers, which a start looks at. */
static const BusSpan prd_pointers[] = {{4, 4}, {12, 4}, {0}};
static const BusRegionOps bm_ops = {ide_bm_read, ide_bm_write, 1 | 2 | 4, prd_pointers};

static void make_channel(IdeBus *b, unsigned i)
{
    IdeChannel *c = &b->chan[i];
    LodgeLock *lock = &b->lock;

    c->bus = b;
    c->regs = &b->regs[i];
    c->command_port = ide_ports[i].command;
    c->control_port = ide_ports[i].control;
    c->command = (BusRegion){.name = ide_ports[i].name, .len = COMMAND_BLOCK_LEN,
                             .ops = &command_ops, .owner = c, .lock = lock};
    c->control = (BusRegion){.name = ide_ports[i].control_name, .len = 1, .ops = &control_ops,
                             .owner = c, .lock = lock};
    c->irq = irq_line_new(b->pci.dev.board->irq, ide_ports[i].irq, ide_ports[i].name);
}

static bool ide_realize(Device *dev, GError **error)
{
    IdeBus *b = (IdeBus *)dev;
    PciDev *d = &b->pci;

    if (!pci_realize(d, PC_SLOT_PIIX, PC_FN_IDE, IDE_VENDOR, IDE_DEVICE_ID, IDE_CLASS, 0, 0, error))
        return false;
    lodge_lock_init(&b->lock, LOCK_RANK_DMA, "ide");
    b->ready = true;
    store_le16(d->cfg_reset + PCI_STATUS, IDE_STATUS_RESET);
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        store_le16(d->cfg_reset + IDETIM + 2 * i, IDETIM_DECODE);
        store_le16(d->cfg_mask + IDETIM + 2 * i, IDETIM_MASK);
        make_channel(b, i);
    }
    d->cfg_mask[SIDETIM] = 0xff;
    pci_add_bar(d, IDE_BM_BAR, PCI_BAR_IO, IDE_BM_LEN, "ide-bus-master", &bm_ops, b, &b->lock);
    d->cfg_written = ide_cfg_written;
    dev->board->ide = b;
    return true;
}

static void ide_reset(Device *dev, ResetKind kind)
{
    IdeBus *b = (IdeBus *)dev;

    pci_reset(&b->pci);
    decode(b);
    lodge_lock(&b->lock);
    b->master = false;
    for (unsigned i = 0; i < IDE_CHANNELS; i++) {
        IdeChannel *c = &b->chan[i];

        c->regs->device = c->regs->control = c->regs->pad = 0;
        ide_bm_reset(c);
        for (unsigned u = 0; u < IDE_UNITS; u++) {
            if (c->drive[u])
                ide_power_on(c->drive[u]);
        }
        ide_update_irq(c);
    }
    lodge_unlock(&b->lock);
}

static bool ide_post_load(void *obj, unsigned version, GError **error)
{
    IdeBus *b = obj;
    bool ok;

    lodge_lock(&b->pci.dev.lock);
    ok = pci_post_load(&b->pci, error);
    if (ok) {
        decode(b);
        lodge_lock(&b->lock);
        b->master = pci_bus_master(&b->pci);
        for (unsigned i = 0; i < IDE_CHANNELS; i++) {
            uint8_t latched = b->regs[i].bm_status;

            b->chan[i].prd_cache_len = 0;
            ide_update_irq(&b->chan[i]);
            b->regs[i].bm_status = latched; /* it saw this rise before */
        }
        lodge_unlock(&b->lock);
    }
    lodge_unlock(&b->pci.dev.lock);
    return ok;
}

static const StateField channel_fields[] = {
    ST_U(IdeChannelRegs, prd_table, UINT32_MAX),
    ST_U(IdeChannelRegs, prd_next, UINT32_MAX),
    ST_U(IdeChannelRegs, prd_addr, UINT32_MAX),
    ST_U(IdeChannelRegs, prd_left, 65536),
    ST_U(IdeChannelRegs, prd_count, IDE_PRDS_MAX),
    ST_U(IdeChannelRegs, prd_last, 1),
    ST_U(IdeChannelRegs, bm_command, 0x09),
    ST_U(IdeChannelRegs, bm_status, BM_STATUS_KEPT),
    ST_U(IdeChannelRegs, device, UINT8_MAX),
    ST_U(IdeChannelRegs, control, IDE_NIEN | IDE_SRST | IDE_HOB),
    ST_SKIPPED(IdeChannelRegs, pad, "fills the struct; always 0"),
    ST_END,
};
static const StateDesc channel_state = {.name = "ide-channel", .version = 1, .oldest = 1,
                                        .regs_size = sizeof(IdeChannelRegs),
                                        .fields = channel_fields};

static const StateField ide_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    {"channel", ST_SUB, 1, sizeof(PciRegs), sizeof(IdeChannelRegs), IDE_CHANNELS, 0, &channel_state,
     NULL},
    ST_END,
};
static const StateDesc ide_state = {
    .name = "piix3-ide", .version = 1, .oldest = 1, .regs_offset = offsetof(IdeBus, pci.regs),
    .regs_size = sizeof(PciRegs) + IDE_CHANNELS * sizeof(IdeChannelRegs), .fields = ide_fields,
    .pre_save = pci_pre_save, .post_load = ide_post_load};

const DeviceClass piix3_ide_class = {
    .name = "piix3-ide",
    .help = "Intel PIIX3 IDE controller: two channels with bus mastering",
    .instance_size = sizeof(IdeBus),
    .state = &ide_state,
    .realize = ide_realize,
    .reset = ide_reset,
    .unrealize = ide_unrealize,
};
