/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Intel 82371SB (PIIX3): the ISA bridge at 00:01.0, PIRQ routing and the reset control register.
 *
 * Specification: Intel 82371FB/82371SB data sheet (290550), sections 2.2.8 (PIRQRC) and 2.5.4.7
 * (RC, port 0xCF9). A bus interrupt routing register with bit 7 set, or with an IRQ that is not one
 * of 3-7, 9-12, 14, 15, routes nowhere.
 * Where the data sheet resets routing to off, ours resets to IRQ 10, 10, 11, 11 as firmware sets it
 * up: a kernel that is entered directly finds routes that agree with the ACPI and MP tables.
 * The other registers (decode enables, chip selects, power) read as 0 and take no writes.
 * Both kinds of reset that port 0xCF9 offers restart the whole board.
 *
 * Threads: vCPU threads with the device's lock held.
 */
#include "pci.h"

#include "pc_map.h"
#include "pci_internal.h"

enum {
    PIIX_VENDOR = 0x8086,
    PIIX_DEVICE = 0x7000,
    PIIX_CLASS = 0x060100,
};

#define PIIX_PIRQRC 0x60
#define PIIX_PIRQS 4
#define PIRQRC_OFF 0x80
#define PIRQRC_IRQ 0x0f
#define PIRQRC_MASK (PIRQRC_OFF | PIRQRC_IRQ)
#define PIRQRC_VALID 0xdef8u /* IRQs that a PIRQ may drive */
#define PIIX_COMMAND_RESET (PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)
#define PIIX_STATUS_RESET_HIGH 0x02 /* DEVSEL# medium */
/* Port 0xCF9. */
#define RC_HARD 0x02  /* SRST: the reset that RST_CPU starts is a hard one */
#define RC_RESET 0x04 /* RST_CPU: starts it on its rise */

typedef struct PiixRegs {
    uint64_t rc; /* reset control, bits 1 and 2 */
} PiixRegs;

typedef struct Piix {
    PciDev pci;
    PiixRegs regs; /* behind pci.regs: one range for the StateDesc */
    BusRegion reset_port;
} Piix;

_Static_assert(offsetof(Piix, regs) == offsetof(Piix, pci.regs) + sizeof(PciRegs),
               "one range of state");

static void piix_route(Piix *p)
{
    for (unsigned i = 0; i < PIIX_PIRQS; i++) {
        uint8_t v = p->pci.regs.cfg[PIIX_PIRQRC + i];
        bool on = !(v & PIRQRC_OFF) && (PIRQRC_VALID >> (v & PIRQRC_IRQ) & 1);
        pci_set_pirq(p->pci.bus, i, on ? v & PIRQRC_IRQ : -1);
    }
}

static void piix_cfg_written(PciDev *d, unsigned off, unsigned len)
{
    if (off < PIIX_PIRQRC + PIIX_PIRQS && off + len > PIIX_PIRQRC)
        piix_route((Piix *)d);
}

static uint64_t piix_rc_read(void *owner, uint64_t off, unsigned size)
{
    Piix *p = owner;
    return p->regs.rc;
}

static void piix_rc_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Piix *p = owner;
    bool rises = (val & RC_RESET) && !(p->regs.rc & RC_RESET);
    p->regs.rc = val & (RC_HARD | RC_RESET);
    if (rises)
        p->pci.dev.board->request(p->pci.dev.board, BOARD_RESET, 0);
}

static const BusRegionOps piix_rc_ops = {piix_rc_read, piix_rc_write, 1};

static void piix_unrealize(Device *dev)
{
    Piix *p = (Piix *)dev;
    if (p->pci.bus)
        pci_set_reset_port(p->pci.bus, NULL);
    pci_unrealize(&p->pci);
}

static bool piix_realize(Device *dev, GError **error)
{
    Piix *p = (Piix *)dev;
    PciDev *d = &p->pci;
    if (!pci_realize(d, PC_SLOT_PIIX, PC_FN_ISA, PIIX_VENDOR, PIIX_DEVICE, PIIX_CLASS, 0, 0,
                     error))
        return false;
    static const uint8_t routes[PIIX_PIRQS] = {PC_IRQ_PIRQ_A, PC_IRQ_PIRQ_A, PC_IRQ_PIRQ_C,
                                               PC_IRQ_PIRQ_C};
    for (unsigned i = 0; i < PIIX_PIRQS; i++) {
        d->cfg_reset[PIIX_PIRQRC + i] = routes[i];
        d->cfg_mask[PIIX_PIRQRC + i] = PIRQRC_MASK;
    }
    d->cfg_reset[PCI_COMMAND] = PIIX_COMMAND_RESET;
    d->cfg_reset[PCI_STATUS + 1] = PIIX_STATUS_RESET_HIGH;
    d->cfg_written = piix_cfg_written;
    p->reset_port = (BusRegion){.name = "reset-control", .len = 1, .ops = &piix_rc_ops,
                                .owner = p, .lock = &dev->lock};
    pci_set_reset_port(d->bus, &p->reset_port);
    return true;
}

static void piix_reset(Device *dev, ResetKind kind)
{
    Piix *p = (Piix *)dev;
    pci_reset(&p->pci);
    p->regs.rc = 0;
    piix_route(p);
}

static bool piix_post_load(void *obj, unsigned version, GError **error)
{
    Piix *p = obj;
    lodge_lock(&p->pci.dev.lock);
    bool ok = pci_post_load(&p->pci, error);
    if (ok)
        piix_route(p);
    lodge_unlock(&p->pci.dev.lock);
    return ok;
}

static const StateField piix_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    {"rc", ST_UINT, 1, sizeof(PciRegs), sizeof(uint64_t), 1, RC_HARD | RC_RESET, NULL, NULL},
    ST_END,
};
static const StateDesc piix_state = {
    .name = "piix3", .version = 1, .oldest = 1, .regs_offset = offsetof(Piix, pci.regs),
    .regs_size = sizeof(PciRegs) + sizeof(PiixRegs), .fields = piix_fields,
    .pre_save = pci_pre_save, .post_load = piix_post_load};

const DeviceClass piix3_class = {
    .name = "piix3",
    .help = "Intel PIIX3 ISA bridge: PIRQ routing, reset control",
    .instance_size = sizeof(Piix),
    .state = &piix_state,
    .realize = piix_realize,
    .reset = piix_reset,
    .unrealize = piix_unrealize,
};
