/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NE2000: Novell's ISA card in a 16-bit slot, and the Realtek RTL8029AS on PCI, which is one chip.
 *
 * Specification: NE2000 as its drivers know it (ports: 0x00 the DP8390's registers, 0x10 to 0x17
 * the data port, 0x18 to 0x1F the reset port); Realtek RTL8029AS data sheet, sections 4
 * (configuration space) and 5. The reset port resets when it is read; a write ends the pulse, which
 * here is over already. Registers are bytes; a wider access is as many byte accesses, but for the
 * data port.
 * Left out: jumpers and plug-and-play of the ISA card (its resources are properties), its boot
 * ROM, the RTL8029AS's serial EEPROM.
 *
 * Threads: vCPU threads under the device's lock; frames as nic_dp8390.c says.
 *
 * Invariants: the state of the PCI card is one range, its PciRegs and the controller's registers.
 */
#include "nic_dp8390.h"
#include "pci.h"

enum {
    NE2000_PORTS = 32,
    NE2000_DATA = 0x10,
    NE2000_RESET = 0x18,
    RTL_VENDOR = 0x10ec,
    RTL_DEVICE = 0x8029,
    RTL_CLASS = 0x020000, /* Ethernet controller */
};

typedef struct Ne2kIsa {
    Device dev;
    /* Constant after realize: */
    uint32_t iobase, irq_pin;
    BusRegion region;
    IrqLine *irq; /* owned */
    /* Says for itself: */
    Dp8390 nic;
} Ne2kIsa;

typedef struct Ne2kPci {
    PciDev pci;
    Dp8390 nic;
    bool netboot;  /* has its expansion ROM */
    char *romfile; /* owned */
} Ne2kPci;
_Static_assert(offsetof(Ne2kPci, nic.regs) == offsetof(Ne2kPci, pci.regs) + sizeof(PciRegs),
               "one range of state");

/* ---- ports ---- */

static uint8_t read_byte(Dp8390 *n, uint64_t off)
{
    if (off < NE2000_DATA)
        return dp8390_read(n, (unsigned)off);
    if (off < NE2000_RESET)
        return (uint8_t)dp8390_data_read(n, 1);
    dp8390_chip_reset(n);
    return 0;
}

static uint64_t ne2000_read(void *owner, uint64_t off, unsigned size)
{
    uint64_t val = 0;

    if (off >= NE2000_DATA && off + size <= NE2000_RESET)
        return dp8390_data_read(owner, size);
    for (unsigned i = 0; i < size; i++)
        val |= (uint64_t)read_byte(owner, off + i) << (8 * i);
    return val;
}

static void write_byte(Dp8390 *n, uint64_t off, uint8_t val)
{
    if (off < NE2000_DATA)
        dp8390_write(n, (unsigned)off, val);
    else if (off < NE2000_RESET)
        dp8390_data_write(n, 1, val);
}

static void ne2000_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    if (off >= NE2000_DATA && off + size <= NE2000_RESET) {
        dp8390_data_write(owner, size, (uint32_t)val);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        write_byte(owner, off + i, (uint8_t)(val >> (8 * i)));
}

/* RSAR and RBCR on page 0, part of the multicast filter on page 1; and the data port, as long as
 * the last word of a remote write is no cause of an interrupt: who polls for it makes the words
 * come. */
static const BusSpan address[] = {{8, 4}, {0}};
static const BusSpan address_data[] = {{8, 4}, {NE2000_DATA, NE2000_RESET - NE2000_DATA}, {0}};
static const BusRegionOps prompt_ops = {ne2000_read, ne2000_write, 1 | 2 | 4, address};
static const BusRegionOps ne2000_ops = {ne2000_read, ne2000_write, 1 | 2 | 4, address_data};

/* IMR may have changed. Card's lock held. */
static void choose_ops(const Dp8390 *n, BusRegion *r)
{
    const BusRegionOps *ops = dp8390_remote_irq(n) ? &prompt_ops : &ne2000_ops;

    if (r->ops != ops)
        bus_set_ops(n->dev->board->pio, r, ops);
}

/* ---- ISA ---- */

static void isa_set_irq(Device *d, bool asserted)
{
    Ne2kIsa *c = (Ne2kIsa *)d;

    choose_ops(&c->nic, &c->region);
    irq_line_set(c->irq, asserted);
}

static void isa_unrealize(Device *d)
{
    Ne2kIsa *c = (Ne2kIsa *)d;

    if (c->region.mapped)
        bus_unmap(d->board->pio, &c->region);
    dp8390_unrealize(&c->nic);
    g_clear_pointer(&c->irq, irq_line_free);
}

static bool isa_realize(Device *d, GError **error)
{
    Ne2kIsa *c = (Ne2kIsa *)d;

    c->region = (BusRegion){.name = "ne2k_isa", .len = NE2000_PORTS, .ops = &ne2000_ops,
                            .owner = &c->nic, .lock = &d->lock};
    c->irq = irq_line_new(d->board->irq, c->irq_pin, d->id);
    if (dp8390_realize(&c->nic, d, isa_set_irq, false, error) &&
        bus_map(d->board->pio, &c->region, c->iobase, error))
        return true;
    isa_unrealize(d);
    return false;
}

static void isa_reset(Device *d, ResetKind kind)
{
    Ne2kIsa *c = (Ne2kIsa *)d;

    if (kind == RESET_COLD)
        dp8390_power_on(&c->nic);
    else
        dp8390_chip_reset(&c->nic);
}

static void isa_quiesce(Device *d)
{
    dp8390_quiesce(&((Ne2kIsa *)d)->nic);
}

static void isa_resume(Device *d)
{
    dp8390_resume(&((Ne2kIsa *)d)->nic);
}

static bool isa_post_load(void *obj, unsigned version, GError **error)
{
    Ne2kIsa *c = obj;

    lodge_lock(&c->dev.lock);
    dp8390_update_irq(&c->nic);
    lodge_unlock(&c->dev.lock);
    return true;
}

static const PropSpec isa_props[] = {
    {"netdev", "network that it is on", PROP_NET, offsetof(Ne2kIsa, nic.netdev), 0, 0, NULL},
    {"mac", "hardware address", PROP_MAC, offsetof(Ne2kIsa, nic.mac), 0, 0, "52:54:00:12:34:56"},
    {"iobase", "first of 32 ports", PROP_U32, offsetof(Ne2kIsa, iobase), 0,
     0x10000 - NE2000_PORTS, "0x300"},
    {"irq", "ISA interrupt", PROP_U32, offsetof(Ne2kIsa, irq_pin), 3, 15, "5"},
    {0},
};

static const StateField isa_fields[] = {
    {"nic", ST_SUB, 1, 0, sizeof(Dp8390Regs), 1, 0, &dp8390_state, NULL},
    ST_END,
};
static const StateDesc isa_state = {
    .name = "ne2k_isa", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Ne2kIsa, nic.regs), .regs_size = sizeof(Dp8390Regs),
    .fields = isa_fields, .post_load = isa_post_load,
};

const DeviceClass ne2k_isa_class = {
    .name = "ne2k_isa",
    .bus = "isa",
    .help = "Novell NE2000: ISA network card with a DP8390",
    .instance_size = sizeof(Ne2kIsa),
    .props = isa_props,
    .state = &isa_state,
    .realize = isa_realize,
    .reset = isa_reset,
    .quiesce = isa_quiesce,
    .resume = isa_resume,
    .unrealize = isa_unrealize,
};

/* ---- PCI ---- */

static void pci_card_set_irq(Device *d, bool asserted)
{
    Ne2kPci *c = (Ne2kPci *)d;

    choose_ops(&c->nic, &c->pci.bar[0].region);
    pci_set_intx(&c->pci, asserted);
}

static void pci_card_unrealize(Device *d)
{
    Ne2kPci *c = (Ne2kPci *)d;

    dp8390_unrealize(&c->nic); /* first: a frame may drive the pin */
    pci_unrealize(&c->pci);
}

static bool pci_card_realize(Device *d, GError **error)
{
    Ne2kPci *c = (Ne2kPci *)d;

    if (!pci_realize(&c->pci, -1, 0, RTL_VENDOR, RTL_DEVICE, RTL_CLASS, 0, 1, error))
        return false;
    pci_set_subsystem(&c->pci, RTL_VENDOR, RTL_DEVICE);
    pci_add_bar(&c->pci, 0, PCI_BAR_IO, NE2000_PORTS, "ne2k_pci", &ne2000_ops, &c->nic, &d->lock);
    if ((!c->netboot || pci_add_rom(&c->pci, c->romfile, error)) &&
        dp8390_realize(&c->nic, d, pci_card_set_irq, true, error))
        return true;
    pci_card_unrealize(d);
    return false;
}

static void pci_card_reset(Device *d, ResetKind kind)
{
    Ne2kPci *c = (Ne2kPci *)d;

    pci_reset(&c->pci);
    if (kind == RESET_COLD)
        dp8390_power_on(&c->nic);
    else
        dp8390_chip_reset(&c->nic);
}

static void pci_card_quiesce(Device *d)
{
    dp8390_quiesce(&((Ne2kPci *)d)->nic);
}

static void pci_card_resume(Device *d)
{
    dp8390_resume(&((Ne2kPci *)d)->nic);
}

static bool pci_card_post_load(void *obj, unsigned version, GError **error)
{
    Ne2kPci *c = obj;

    lodge_lock(&c->pci.dev.lock);
    bool ok = pci_post_load(&c->pci, error);
    if (ok)
        dp8390_update_irq(&c->nic);
    lodge_unlock(&c->pci.dev.lock);
    return ok;
}

static const PropSpec pci_props[] = {
    {"netdev", "network that it is on", PROP_NET, offsetof(Ne2kPci, nic.netdev), 0, 0, NULL},
    {"mac", "hardware address", PROP_MAC, offsetof(Ne2kPci, nic.mac), 0, 0, "52:54:00:12:34:56"},
    PCI_NETBOOT_PROPS(Ne2kPci, "pxe-ne2k_pci.rom"),
    {0},
};

static const StateField pci_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    {"nic", ST_SUB, 1, sizeof(PciRegs), sizeof(Dp8390Regs), 1, 0, &dp8390_state, NULL},
    ST_END,
};
static const StateDesc pci_card_state = {
    .name = "ne2k_pci", .version = 1, .oldest = 1, .regs_offset = offsetof(Ne2kPci, pci.regs),
    .regs_size = sizeof(PciRegs) + sizeof(Dp8390Regs), .fields = pci_fields,
    .pre_save = pci_pre_save, .post_load = pci_card_post_load,
};

const DeviceClass ne2k_pci_class = {
    .name = "ne2k_pci",
    .bus = "pci",
    .help = "Realtek RTL8029AS: NE2000 on PCI",
    .boot = 'n',
    .instance_size = sizeof(Ne2kPci),
    .props = pci_props,
    .state = &pci_card_state,
    .realize = pci_card_realize,
    .reset = pci_card_reset,
    .quiesce = pci_card_quiesce,
    .resume = pci_card_resume,
    .unrealize = pci_card_unrealize,
};
