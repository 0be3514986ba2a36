/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI bus 0: configuration mechanism 1, header type 0, BAR decoding, INTx to PIRQ to GSI.
 *
 * Specification: PCI Local Bus 3.0 (3.2.2.3.2 mechanism 1, 6.1 header, 6.2.5 base addresses);
 * Intel 82371AB (PIIX4) data sheet for the PIRQ pins. One bus, no bridges behind it: type 1 cycles
 * for other buses and absent functions answer all-ones. BARs are 32 bits wide. A memory BAR takes
 * at least a page, so that functions never share one. A BAR that holds 0, or ends at the top of the
 * address space (the all-ones probe), decodes nothing. Parity and SERR# bits of the command
 * register are kept and do nothing.
 *
 * Threads: the window runs on vCPU threads without a lock of its own; it takes the target's. The
 * table of functions changes only while vCPUs are parked. INTx levels come under the device's lock
 * and count under the bus's lock (LOCK_RANK_LAYOUT), since PIRQ routing is the bridge's.
 *
 * Invariants:
 * (1) Only bits of cfg_mask and cfg_w1c change by a guest's write, so whatever else regs.cfg holds
 *     equals cfg_reset, but for the interrupt status bit; a load is checked against that.
 * (2) A BAR's region is mapped exactly where bar_target() says.
 * (3) PciBus.pirq[].asserted is the number of functions with intx_driven on that PIRQ.
 */
#include <inttypes.h>
#include <string.h>

#include "pci.h"

#include "lodge/error.h"
#include "lodge/num.h"

#include "pc_map.h"
#include "pci_internal.h"

#define PCI_FUNCTIONS 256
#define PCI_SLOTS 32
#define PCI_FIRST_FREE_SLOT 3
#define PCI_PIRQS 4
#define PCI_PIRQ_GSIS 16 /* a PIRQ drives an ISA IRQ */
#define PCI_PIRQ_FIRST_GSI 3 /* 0 to 2: timer, keyboard, cascade; never a PIRQ's */
#define MMIO_BAR_MIN 4096u
#define ADDRESS_SPACE_32 (UINT64_C(1) << 32)
#define PORT_SPACE 65536u
#define WINDOW_DATA 4u /* offset of 0xCFC */
#define WINDOW_RESET (PC_PORT_RESET - PC_PORT_PCI_WINDOW)
#define ADDRESS_ENABLE 0x80000000u
#define ADDRESS_WRITABLE 0x80fffffcu

typedef struct Pirq {
    int gsi;                        /* -1: routed nowhere */
    unsigned asserted;              /* functions that drive it */
    IrqLine *line[PCI_PIRQ_GSIS];   /* owned; NULL where a PIRQ cannot go */
} Pirq;

struct PciBus {
    Board *board; /* borrowed, outlives us */
    /* Changed on the main thread with vCPUs parked: */
    PciDev *dev[PCI_FUNCTIONS]; /* borrowed; a device leaves in pci_unrealize() */
    const BusRegion *reset_port; /* borrowed */
    /* Atomic: */
    uint32_t address; /* the register at 0xCF8 */
    /* Guarded by lock: */
    LodgeLock lock; /* LOCK_RANK_LAYOUT */
    Pirq pirq[PCI_PIRQS];
};

/**
 * pci_bus_new() - Make bus 0
 * @board: borrowed; its pci is set
 * Context: main thread, from the host bridge's realize. Return: transfer full.
 */
PciBus *pci_bus_new(Board *board)
{
    PciBus *bus = g_new0(PciBus, 1);
    bus->board = board;
    lodge_lock_init(&bus->lock, LOCK_RANK_LAYOUT, "pci pirq");
    for (unsigned p = 0; p < PCI_PIRQS; p++) {
        bus->pirq[p].gsi = -1;
        for (unsigned gsi = PCI_PIRQ_FIRST_GSI; gsi < PCI_PIRQ_GSIS; gsi++) {
            char who[] = "PIRQA";
            who[4] = (char)('A' + p);
            bus->pirq[p].line[gsi] = irq_line_new(board->irq, gsi, who);
        }
    }
    board->pci = bus;
    return bus;
}

/* No function may be on the bus any more. NULL is fine. Main thread. */
void pci_bus_free(PciBus *bus)
{
    if (!bus)
        return;
    for (unsigned p = 0; p < PCI_PIRQS; p++) {
        for (unsigned gsi = 0; gsi < PCI_PIRQ_GSIS; gsi++)
            irq_line_free(bus->pirq[p].line[gsi]);
    }
    if (bus->board->pci == bus)
        bus->board->pci = NULL;
    lodge_lock_clear(&bus->lock);
    g_free(bus);
}

/* ---- INTx ---- */

static void pirq_drive_locked(PciBus *bus, Pirq *p, bool level)
{
    lock_assert_held(&bus->lock);
    if (p->gsi >= 0)
        irq_line_set(p->line[p->gsi], level);
}

/**
 * pci_set_pirq() - Route PIRQ @pirq (0..3)
 * @gsi: 3..15, or anything else for nowhere
 * Context: any thread; the bridge's lock may be held. A level that stands moves along.
 */
void pci_set_pirq(PciBus *bus, unsigned pirq, int gsi)
{
    if (pirq >= PCI_PIRQS)
        return;
    Pirq *p = &bus->pirq[pirq];
    lodge_lock(&bus->lock);
    if (gsi < PCI_PIRQ_FIRST_GSI || gsi >= PCI_PIRQ_GSIS)
        gsi = -1;
    if (gsi != p->gsi) {
        pirq_drive_locked(bus, p, false);
        p->gsi = gsi;
        pirq_drive_locked(bus, p, p->asserted > 0);
    }
    lodge_unlock(&bus->lock);
}

/* Bring the PIRQ's count in line with the status and command registers. Keeps (3). */
static void intx_update(PciDev *d)
{
    bool drive = d->intx_pin && (load_le16(d->regs.cfg + PCI_STATUS) & PCI_STATUS_INTX) &&
                 !(load_le16(d->regs.cfg + PCI_COMMAND) & PCI_COMMAND_INTX_OFF);
    if (drive == d->intx_driven)
        return;
    Pirq *p = &d->bus->pirq[pci_pirq(d->devfn >> 3, d->intx_pin - 1u)];
    d->intx_driven = drive;
    lodge_lock(&d->bus->lock);
    unsigned before = p->asserted;
    p->asserted = drive ? before + 1 : before - 1;
    if (!before != !p->asserted)
        pirq_drive_locked(d->bus, p, p->asserted > 0);
    lodge_unlock(&d->bus->lock);
}

void pci_set_intx(PciDev *d, bool asserted)
{
    lock_assert_held(&d->dev.lock);
    if (!d->intx_pin)
        return;
    if (asserted)
        d->regs.cfg[PCI_STATUS] |= PCI_STATUS_INTX;
    else
        d->regs.cfg[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
    intx_update(d);
}

/* ---- BARs ---- */

static Bus *bar_space(const PciDev *d, const PciBar *bar)
{
    return bar->kind == PCI_BAR_IO ? d->dev.board->pio : d->dev.board->mmio;
}

/* What a BAR claims of its address space. */
static uint64_t bar_span(const PciBar *bar)
{
    return bar->kind == PCI_BAR_IO ? bar->len : MAX(bar->len, MMIO_BAR_MIN);
}

/* Where BAR @i should decode by the registers; UINT64_MAX: nowhere. */
static uint64_t bar_target(const PciDev *d, unsigned i)
{
    const PciBar *bar = &d->bar[i];
    uint16_t command = load_le16(d->regs.cfg + PCI_COMMAND);
    uint64_t span = bar_span(bar);
    uint64_t base = load_le32(d->regs.cfg + PCI_BAR0 + 4 * i) & ~(uint32_t)(span - 1);
    if (bar->kind == PCI_BAR_NONE || !base)
        return UINT64_MAX;
    if (bar->kind == PCI_BAR_IO)
        return (command & PCI_COMMAND_IO) && range_within(base, span, PORT_SPACE) ? base
                                                                                 : UINT64_MAX;
    return (command & PCI_COMMAND_MEMORY) && base + span < ADDRESS_SPACE_32 ? base : UINT64_MAX;
}

/* Keeps (2). */
static void bars_update(PciDev *d)
{
    bool moved = false;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        PciBar *bar = &d->bar[i];
        if (bar->kind == PCI_BAR_NONE)
            continue;
        uint64_t target = bar_target(d, i);
        if (bar->kind == PCI_BAR_RAM) {
            moved |= pci_ram_bar_place(d, bar, target);
        } else if (target == UINT64_MAX && bar->region.mapped) {
            bus_unmap(bar_space(d, bar), &bar->region);
            moved = true;
        } else if (target != UINT64_MAX && (!bar->region.mapped || bar->region.base != target)) {
            bus_place(bar_space(d, bar), &bar->region, target);
            moved = true;
        }
    }
    if (d->rom.kind != PCI_BAR_NONE)
        moved |= pci_ram_bar_place(d, &d->rom, pci_rom_target(d));
    if (moved && d->bars_moved)
        d->bars_moved(d);
}

uint64_t pci_bar_base(const PciDev *d, unsigned i)
{
    if (i >= PCI_BARS || d->bar[i].kind == PCI_BAR_NONE || !d->bar[i].region.mapped)
        return UINT64_MAX;
    return d->bar[i].region.base;
}

void pci_add_bar(PciDev *d, unsigned i, PciBarKind kind, uint64_t len, const char *name,
                 const BusRegionOps *ops, void *owner, LodgeLock *lock)
{
    g_assert(i < PCI_BARS && kind != PCI_BAR_NONE && d->bar[i].kind == PCI_BAR_NONE);
    g_assert(is_power_of_two(len) && len >= (kind == PCI_BAR_IO ? 4 : 16) &&
             len < ADDRESS_SPACE_32 / 2);
    PciBar *bar = &d->bar[i];
    bar->kind = kind;
    bar->len = len;
    bar->region = (BusRegion){
        .name = name, .len = len, .ops = ops, .owner = owner, .lock = lock};
    store_le32(d->cfg_mask + PCI_BAR0 + 4 * i, ~(uint32_t)(bar_span(bar) - 1));
    store_le32(d->cfg_reset + PCI_BAR0 + 4 * i, kind == PCI_BAR_IO ? PCI_BAR_IS_IO : 0);
}

/* ---- the function ---- */

bool pci_bus_master(const PciDev *d)
{
    return load_le16(d->regs.cfg + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

/* Function 0 of @slot says whether it has siblings. */
static void slot_update_header(PciBus *bus, unsigned slot)
{
    bool multi = false;
    for (unsigned fn = 1; fn < 8; fn++)
        multi |= bus->dev[slot << 3 | fn] != NULL;
    PciDev *first = bus->dev[slot << 3];
    if (!first)
        return;
    first->cfg_reset[PCI_HEADER_TYPE] = multi ? PCI_HEADER_MULTI : 0;
    first->regs.cfg[PCI_HEADER_TYPE] = first->cfg_reset[PCI_HEADER_TYPE];
}

static bool slot_is_free(const PciBus *bus, unsigned slot)
{
    for (unsigned fn = 0; fn < 8; fn++) {
        if (bus->dev[slot << 3 | fn])
            return false;
    }
    return true;
}

bool pci_realize(PciDev *d, int slot, unsigned fn, uint16_t vendor, uint16_t device,
                 uint32_t class_code, uint8_t revision, unsigned pin, GError **error)
{
    PciBus *bus = d->dev.board->pci;
    g_assert(fn < 8 && pin <= 4 && slot < PCI_SLOTS);
    if (!bus)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: the board has no PCI bus", d->dev.id);
    if (slot < 0) {
        for (slot = PCI_FIRST_FREE_SLOT; slot < PCI_SLOTS && !slot_is_free(bus, slot); slot++)
            continue;
        if (slot == PCI_SLOTS)
            return lodge_fail(error, LODGE_ERROR_LIMIT, "%s: no PCI slot is free", d->dev.id);
    }
    uint8_t devfn = (uint8_t)((unsigned)slot << 3 | fn);
    if (bus->dev[devfn])
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: PCI slot %d.%u is taken by %s",
                          d->dev.id, slot, fn, bus->dev[devfn]->dev.id);
    d->bus = bus;
    d->devfn = devfn;
    d->intx_pin = (uint8_t)pin;
    d->cap_end = PCI_HEADER_END;
    store_le16(d->cfg_reset + PCI_VENDOR_ID, vendor);
    store_le16(d->cfg_reset + PCI_DEVICE_ID, device);
    d->cfg_reset[PCI_REVISION] = revision;
    store_le16(d->cfg_reset + PCI_CLASS, (uint16_t)class_code);
    d->cfg_reset[PCI_CLASS + 2] = (uint8_t)(class_code >> 16);
    d->cfg_reset[PCI_INTERRUPT_PIN] = (uint8_t)pin;
    store_le16(d->cfg_mask + PCI_COMMAND,
               PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
                   PCI_COMMAND_SERR | PCI_COMMAND_INTX_OFF);
    d->cfg_mask[PCI_INTERRUPT_LINE] = 0xff;
    bus->dev[devfn] = d;
    slot_update_header(bus, (unsigned)slot);
    return true;
}

/* Take @d off the bus; a device that never got on it is fine. Main thread, vCPUs parked. */
void pci_unrealize(PciDev *d)
{
    if (!d->bus)
        return;
    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (d->bar[i].kind != PCI_BAR_NONE && d->bar[i].kind != PCI_BAR_RAM &&
            d->bar[i].region.mapped)
            bus_unmap(bar_space(d, &d->bar[i]), &d->bar[i].region);
    }
    d->regs.cfg[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTX;
    intx_update(d);
    pci_msix_free(d);
    pci_ram_bars_free(d);
    d->bus->dev[d->devfn] = NULL;
    slot_update_header(d->bus, d->devfn >> 3);
    d->bus = NULL;
}

void pci_reset(PciDev *d)
{
    lock_assert_held(&d->dev.lock);
    memcpy(d->regs.cfg, d->cfg_reset, sizeof d->regs.cfg);
    pci_msix_reset(d);
    intx_update(d);
    bars_update(d);
}

bool pci_post_load(PciDev *d, GError **error)
{
    lock_assert_held(&d->dev.lock);
    for (unsigned i = 0; i < PCI_CFG_SIZE; i++) {
        uint8_t may = d->cfg_mask[i] | d->cfg_w1c[i];
        if (i == PCI_STATUS && d->intx_pin)
            may |= PCI_STATUS_INTX;
        if ((d->regs.cfg[i] ^ d->cfg_reset[i]) & ~may)
            return lodge_fail(error, LODGE_ERROR_IMAGE,
                              "%s: configuration byte 0x%02x is 0x%02x, this device has 0x%02x",
                              d->dev.id, i, d->regs.cfg[i], d->cfg_reset[i]);
    }
    pci_msix_restore(d);
    intx_update(d);
    bars_update(d);
    return true;
}

static const StateField pci_fields[] = {
    ST_RAW(PciRegs, cfg),
    ST_RAW(PciRegs, msix_table),
    ST_U(PciRegs, msix_pba, UINT64_MAX),
    ST_END,
};
const StateDesc pci_state = {.name = "pci", .version = 1, .oldest = 1, .regs_offset = 0,
                             .regs_size = sizeof(PciRegs), .fields = pci_fields};

void pci_set_subsystem(PciDev *d, uint16_t vendor, uint16_t device)
{
    store_le16(d->cfg_reset + PCI_SUBSYSTEM_VENDOR, vendor);
    store_le16(d->cfg_reset + PCI_SUBSYSTEM_ID, device);
}

uint8_t pci_add_cap(PciDev *d, uint8_t id, uint8_t len)
{
    uint8_t at = d->cap_end;
    unsigned end = at + (unsigned)align_up(len, 4);
    g_assert(len >= 2 && end < PCI_CFG_SIZE);
    /* Appended: the last link, which may be the header's, points here. */
    uint8_t *link = &d->cfg_reset[PCI_CAP_POINTER];
    for (unsigned hops = 0; *link && hops < PCI_CFG_SIZE / 4; hops++)
        link = &d->cfg_reset[*link + 1];
    *link = at;
    d->cfg_reset[at] = id;
    d->cfg_reset[at + 1] = 0;
    d->cfg_reset[PCI_STATUS] |= PCI_STATUS_CAPS;
    d->cap_end = (uint8_t)end;
    return at;
}

/* ---- configuration accesses ---- */

/* Context: @d's lock held, @off + @size <= 256. Keeps (1). */
static void window_touch(PciDev *d, bool write, unsigned off, unsigned size)
{
    if (d->cfg_window && ranges_overlap(off, size, d->cfg_window_at, d->cfg_window_len))
        d->cfg_window(d, write, off, size);
}

static uint32_t cfg_read(PciDev *d, unsigned off, unsigned size)
{
    uint8_t b[4] = {0};
    window_touch(d, false, off, size);
    memcpy(b, d->regs.cfg + off, size);
    return load_le32(b);
}

static void cfg_write(PciDev *d, unsigned off, unsigned size, uint32_t val)
{
    uint8_t old[PCI_CFG_SIZE];
    memcpy(old, d->regs.cfg, sizeof old);
    for (unsigned i = 0; i < size; i++) {
        uint8_t *reg = &d->regs.cfg[off + i], mask = d->cfg_mask[off + i];
        uint8_t v = (uint8_t)(val >> (8 * i));
        *reg = (uint8_t)((*reg & ~mask) | (v & mask));
        *reg &= (uint8_t)~(v & d->cfg_w1c[off + i]);
    }
    window_touch(d, true, off, size);
    if (!memcmp(old + off, d->regs.cfg + off, size))
        return;
    if (ranges_overlap(off, size, PCI_COMMAND, 2)) {
        intx_update(d);
        bars_update(d);
    } else if (ranges_overlap(off, size, PCI_BAR0, 4 * PCI_BARS) ||
               ranges_overlap(off, size, PCI_ROM, 4)) {
        bars_update(d);
    }
    pci_msix_cfg_written(d, old);
    if (d->cfg_written)
        d->cfg_written(d, off, size);
}

/* The function that the address register selects, or NULL. */
static PciDev *window_target(PciBus *bus, uint64_t off, unsigned size, unsigned *ret_reg)
{
    uint32_t address = pci_bus_address(bus);
    if (!(address & ADDRESS_ENABLE) || (address >> 16 & 0xff))
        return NULL;
    unsigned reg = (address & 0xfc) + (unsigned)(off - WINDOW_DATA);
    if (!range_within(reg, size, PCI_CFG_SIZE))
        return NULL;
    *ret_reg = reg;
    return bus->dev[address >> 8 & 0xff];
}

static uint64_t window_read(void *owner, uint64_t off, unsigned size)
{
    PciBus *bus = owner;
    if (off == 0 && size == 4)
        return pci_bus_address(bus);
    const BusRegion *rst = bus->reset_port;
    if (off == WINDOW_RESET && size == 1 && rst) {
        lodge_lock(rst->lock);
        uint64_t v = rst->ops->read(rst->owner, 0, 1);
        lodge_unlock(rst->lock);
        return v;
    }
    unsigned reg;
    PciDev *d = off < WINDOW_DATA ? NULL : window_target(bus, off, size, &reg);
    if (!d)
        return UINT64_MAX;
    lodge_lock(&d->dev.lock);
    uint32_t v = cfg_read(d, reg, size);
    lodge_unlock(&d->dev.lock);
    return v;
}

static void window_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    PciBus *bus = owner;
    if (off == 0 && size == 4) {
        pci_bus_set_address(bus, (uint32_t)val);
        return;
    }
    const BusRegion *rst = bus->reset_port;
    if (off == WINDOW_RESET && size == 1 && rst) {
        lodge_lock(rst->lock);
        rst->ops->write(rst->owner, 0, 1, val);
        lodge_unlock(rst->lock);
        return;
    }
    unsigned reg;
    PciDev *d = off < WINDOW_DATA ? NULL : window_target(bus, off, size, &reg);
    if (!d)
        return;
    lodge_lock(&d->dev.lock);
    cfg_write(d, reg, size, (uint32_t)val);
    lodge_unlock(&d->dev.lock);
}

/* 2-byte accesses at 0xCF9 and the like must not become two single bytes, one of them the reset
 * register: the window takes 1, 2 and 4 and ignores what is not its own. */
const BusRegionOps pci_cfg_window_ops = {window_read, window_write, 1 | 2 | 4};

void pci_set_reset_port(PciBus *bus, const BusRegion *r)
{
    g_assert(!r || (r->lock && r->ops->read && r->ops->write));
    bus->reset_port = r;
}

uint32_t pci_bus_address(PciBus *bus)
{
    return __atomic_load_n(&bus->address, __ATOMIC_RELAXED);
}

void pci_bus_set_address(PciBus *bus, uint32_t address)
{
    __atomic_store_n(&bus->address, address & ADDRESS_WRITABLE, __ATOMIC_RELAXED);
}

/* ---- the bus as seen by the board ---- */

PciDev *pci_bus_next(PciBus *bus, const PciDev *after)
{
    for (unsigned i = after ? after->devfn + 1u : 0; i < PCI_FUNCTIONS; i++) {
        if (bus->dev[i])
            return bus->dev[i];
    }
    return NULL;
}

PciDev *pci_bus_find(PciBus *bus, uint8_t devfn)
{
    return bus->dev[devfn];
}

/* Give each BAR of @d its place from *@mmio and *@port on; one that does not fit stays at 0. */
static void assign_locked(PciDev *d, uint64_t *mmio, uint64_t mmio_limit, uint64_t *port)
{
    uint16_t command = load_le16(d->regs.cfg + PCI_COMMAND);
    lock_assert_held(&d->dev.lock);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        const PciBar *bar = &d->bar[i];
        if (bar->kind == PCI_BAR_NONE)
            continue;
        bool io = bar->kind == PCI_BAR_IO;
        uint64_t *next = io ? port : mmio, limit = io ? PORT_SPACE : mmio_limit;
        uint64_t at = align_up(*next, bar_span(bar));
        if (!range_within(at, bar_span(bar), limit)) {
            guest_fault(&d->dev, "no room for BAR %u", i);
            continue;
        }
        cfg_write(d, PCI_BAR0 + 4 * i, 4, (uint32_t)at);
        *next = at + bar_span(bar);
        command |= io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
    }
    cfg_write(d, PCI_COMMAND, 2, command);
}

void pci_assign(PciBus *bus, uint32_t mmio_base, uint32_t mmio_limit)
{
    uint64_t mmio = mmio_base, port = PC_PCI_PORTS;
    for (PciDev *d = pci_bus_next(bus, NULL); d; d = pci_bus_next(bus, d)) {
        int gsi = -1;
        if (d->intx_pin) {
            lodge_lock(&bus->lock);
            gsi = bus->pirq[pci_pirq(d->devfn >> 3, d->intx_pin - 1u)].gsi;
            lodge_unlock(&bus->lock);
        }
        lodge_lock(&d->dev.lock);
        assign_locked(d, &mmio, mmio_limit, &port);
        if (gsi >= 0)
            cfg_write(d, PCI_INTERRUPT_LINE, 1, (uint32_t)gsi);
        lodge_unlock(&d->dev.lock);
    }
}
