/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hot-plug of PCI slots by ACPI: which slots gained a device, which shall lose theirs.
 *
 * Specification: QEMU's docs/specs/acpi_pci_hotplug, the four registers of one bus at port 0xAE00;
 * ACPI 6.4, 5.6.6 (device notification) and 6.3 (_EJ0). The event is bit 1 of the PIIX4's GPE0
 * block, whose registers are that chip's. firmware/hotplug.asl has the guest's side.
 * Left out: bus numbers (bridges have no slots of their own here), and the feature bits that read
 * at the eject register: 0, none.
 * Registers are 32 bits wide and answer to nothing narrower. "Added" is cleared by being read, so
 * that an event is told once; "to be removed" stays until the guest ejects or restarts.
 *
 * A restart of the machine ejects what the guest was asked for: it holds nothing any more.
 *
 * Threads: vCPU threads with the device's lock held; the functions of acpi_hotplug.h on main.
 *
 * Invariants:
 * (1) regs.ejecting has a bit for each BOARD_EJECT that main has not answered; a slot whose bit is
 *     set posts no further one, so the guest cannot fill a queue.
 */
#include "acpi_hotplug.h"

#include "lodge/error.h"

#include "acpi_pm.h"

enum { HP_UP = 0x0, HP_DOWN = 0x4, HP_EJECT = 0x8, HP_REMOVABLE = 0xc };

typedef struct AcpiHotplugRegs {
    uint32_t up, down, ejecting; /* a bit a slot */
} AcpiHotplugRegs;

typedef struct AcpiHotplug {
    Device dev;
    AcpiHotplugRegs regs;
    BusRegion io;
    Device *pm; /* borrowed, outlives us; NULL: nobody is told */
} AcpiHotplug;

/* Keeps (1). */
static void hp_eject_locked(AcpiHotplug *h, uint32_t slots)
{
    Board *board = h->dev.board;
    lock_assert_held(&h->dev.lock);
    slots &= ACPI_HOTPLUG_SLOTS & ~h->regs.ejecting;
    h->regs.ejecting |= slots;
    h->regs.up &= ~slots;
    h->regs.down &= ~slots;
    for (unsigned slot = ACPI_HOTPLUG_FIRST_SLOT; slot < 32; slot++) {
        if (slots >> slot & 1)
            board->request(board, BOARD_EJECT, (int)slot);
    }
}

static uint64_t hp_read(void *owner, uint64_t off, unsigned size)
{
    AcpiHotplug *h = owner;
    uint32_t v = 0;
    switch (off) {
    case HP_UP:
        v = h->regs.up;
        h->regs.up = 0;
        return v;
    case HP_DOWN:
        return h->regs.down;
    case HP_REMOVABLE:
        return ACPI_HOTPLUG_SLOTS;
    default:
        return 0;
    }
}

static void hp_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    if (off == HP_EJECT)
        hp_eject_locked(owner, (uint32_t)val);
}

static const BusRegionOps hp_ops = {hp_read, hp_write, 4};

void acpi_hotplug_attach(Device *d, Device *pm)
{
    ((AcpiHotplug *)d)->pm = pm;
}

static uint32_t slot_bit(unsigned slot)
{
    return slot < 32 ? (UINT32_C(1) << slot) & ACPI_HOTPLUG_SLOTS : 0;
}

/* The event is raised with no lock held: two devices' locks are never held together. */
static void hp_tell(AcpiHotplug *h)
{
    if (h->pm)
        acpi_pm_gpe_raise(h->pm, ACPI_HOTPLUG_GPE);
}

void acpi_hotplug_added(Device *d, unsigned slot)
{
    AcpiHotplug *h = (AcpiHotplug *)d;
    uint32_t bit = slot_bit(slot);
    lodge_lock(&d->lock);
    h->regs.up |= bit;
    h->regs.down &= ~bit;
    h->regs.ejecting &= ~bit;
    lodge_unlock(&d->lock);
    if (bit)
        hp_tell(h);
}

void acpi_hotplug_request_eject(Device *d, unsigned slot)
{
    AcpiHotplug *h = (AcpiHotplug *)d;
    uint32_t bit = slot_bit(slot);
    lodge_lock(&d->lock);
    bit &= ~h->regs.ejecting;
    h->regs.down |= bit;
    lodge_unlock(&d->lock);
    if (bit)
        hp_tell(h);
}

void acpi_hotplug_removed(Device *d, unsigned slot)
{
    AcpiHotplug *h = (AcpiHotplug *)d;
    uint32_t bit = slot_bit(slot);
    lodge_lock(&d->lock);
    h->regs.up &= ~bit;
    h->regs.down &= ~bit;
    h->regs.ejecting &= ~bit;
    lodge_unlock(&d->lock);
}

static void hp_unrealize(Device *dev)
{
    AcpiHotplug *h = (AcpiHotplug *)dev;
    if (h->io.mapped)
        bus_unmap(dev->board->pio, &h->io);
}

static bool hp_realize(Device *dev, GError **error)
{
    AcpiHotplug *h = (AcpiHotplug *)dev;
    h->io = (BusRegion){.name = "acpi-hotplug", .len = ACPI_HOTPLUG_PORTS, .ops = &hp_ops,
                        .owner = h, .lock = &dev->lock};
    return bus_map(dev->board->pio, &h->io, ACPI_HOTPLUG_PORT, error);
}

static void hp_reset(Device *dev, ResetKind kind)
{
    AcpiHotplug *h = (AcpiHotplug *)dev;
    hp_eject_locked(h, h->regs.down);
    h->regs.up = 0;
    h->regs.down = 0;
}

/* What the machine that was saved had not answered is asked of this one. */
static bool hp_post_load(void *obj, unsigned version, GError **error)
{
    AcpiHotplug *h = obj;
    const AcpiHotplugRegs *r = &h->regs;
    uint32_t pending = r->up | r->down;
    if (((pending | r->ejecting) & ~ACPI_HOTPLUG_SLOTS) || (pending & r->ejecting))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: slots 0x%x, 0x%x, 0x%x", h->dev.id, r->up,
                          r->down, r->ejecting);
    lodge_lock(&h->dev.lock);
    uint32_t again = h->regs.ejecting;
    h->regs.ejecting = 0;
    hp_eject_locked(h, again);
    lodge_unlock(&h->dev.lock);
    return true;
}

static const StateField hp_fields[] = {
    ST_U(AcpiHotplugRegs, up, UINT32_MAX),
    ST_U(AcpiHotplugRegs, down, UINT32_MAX),
    ST_U(AcpiHotplugRegs, ejecting, UINT32_MAX),
    ST_END,
};
static const StateDesc hp_state = {
    .name = "acpi-hotplug", .version = 1, .oldest = 1, .regs_offset = offsetof(AcpiHotplug, regs),
    .regs_size = sizeof(AcpiHotplugRegs), .fields = hp_fields, .post_load = hp_post_load};

const DeviceClass acpi_hotplug_class = {
    .name = "acpi-hotplug",
    .help = "ACPI hot-plug of PCI slots: added, to be removed, ejected",
    .instance_size = sizeof(AcpiHotplug),
    .state = &hp_state,
    .realize = hp_realize,
    .reset = hp_reset,
    .unrealize = hp_unrealize,
};
