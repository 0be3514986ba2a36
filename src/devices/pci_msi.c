/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MSI-X: the capability, its table and pending bits in a 4 KiB BAR of their own.
 *
 * Specification: PCI Local Bus 3.0, section 6.8.2. Table at offset 0 of the BAR (16 bytes a
 * vector), pending bits at 0x800, read-only; the rest reads as 0. Accesses of 4 and 8 bytes; others
 * give all-ones and are dropped, as 6.8.2 leaves them undefined.
 *
 * Threads: table and configuration writes come on vCPU threads with the device's lock held; a raise
 * comes from any thread and takes only the irq lock, inside IrqMsi.
 *
 * Invariants:
 * (1) The IrqMsi of vector v is masked exactly when MSI-X is off, the function mask is set, or the
 *     vector's own mask bit is.
 * (2) A message is set before its source is unmasked, so that none leaves with an old address.
 * (3) Pending bits exist only while MSI-X is on: switching it on starts with none.
 */
#include <string.h>

#include "pci.h"

#include "lodge/error.h"
#include "lodge/num.h"

#include "pci_internal.h"

#define MSIX_BAR_LEN 4096
#define MSIX_PBA_OFFSET 0x800u
#define MSIX_ENTRY 16u       /* bytes */
#define MSIX_ENTRY_DATA 8u   /* message data */
#define MSIX_ENTRY_CTRL 12u  /* vector control */
#define MSIX_CTRL_MASK 0x1u
#define MSIX_CAP_LEN 12
#define MSIX_CAP_CONTROL 2
#define MSIX_CAP_TABLE 4
#define MSIX_CAP_PBA 8
#define MSIX_CONTROL_ENABLE 0x8000u
#define MSIX_CONTROL_MASK 0x4000u

_Static_assert(PCI_MSIX_MAX * MSIX_ENTRY <= MSIX_PBA_OFFSET, "table ends before the PBA");
_Static_assert(PCI_MSIX_MAX <= 64, "pending bits are one 64-bit word");

static uint16_t msix_control(const PciDev *d)
{
    return load_le16(d->regs.cfg + d->msix_cap + MSIX_CAP_CONTROL);
}

bool pci_msix_enabled(const PciDev *d)
{
    return d->msix_vectors && (msix_control(d) & MSIX_CONTROL_ENABLE);
}

/* Keeps (1) and (2) for vector @v. */
static void vector_update(PciDev *d, unsigned v)
{
    const uint8_t *entry = d->regs.msix_table + v * MSIX_ENTRY;
    bool off = !pci_msix_enabled(d) || (msix_control(d) & MSIX_CONTROL_MASK) ||
               (load_le32(entry + MSIX_ENTRY_CTRL) & MSIX_CTRL_MASK);
    if (!off)
        irq_msi_set(d->msix[v], load_le64(entry), load_le32(entry + MSIX_ENTRY_DATA));
    irq_msi_mask(d->msix[v], off);
}

void pci_msix_update(PciDev *d)
{
    for (unsigned v = 0; v < d->msix_vectors; v++)
        vector_update(d, v);
}

/* The control word was written over @old: keeps (3). */
static void control_written(PciDev *d, uint16_t old)
{
    if (!((old ^ msix_control(d)) & (MSIX_CONTROL_ENABLE | MSIX_CONTROL_MASK)))
        return;
    if (!(old & MSIX_CONTROL_ENABLE) && pci_msix_enabled(d)) {
        for (unsigned v = 0; v < d->msix_vectors; v++)
            irq_msi_clear_pending(d->msix[v]);
    }
    pci_msix_update(d);
}

void pci_msix_cfg_written(PciDev *d, const uint8_t *old_cfg)
{
    if (d->msix_vectors)
        control_written(d, load_le16(old_cfg + d->msix_cap + MSIX_CAP_CONTROL));
}

static uint64_t pending_bits(const PciDev *d)
{
    uint64_t bits = 0;
    if (!pci_msix_enabled(d))
        return 0;
    for (unsigned v = 0; v < d->msix_vectors; v++)
        bits |= (uint64_t)irq_msi_pending(d->msix[v]) << v;
    return bits;
}

static uint64_t msix_read(void *owner, uint64_t off, unsigned size)
{
    PciDev *d = owner;
    uint8_t pba[8], *from = NULL;
    lock_assert_held(&d->dev.lock);
    if (range_within(off, size, d->msix_vectors * MSIX_ENTRY)) {
        from = d->regs.msix_table + off;
    } else if (off >= MSIX_PBA_OFFSET && range_within(off - MSIX_PBA_OFFSET, size, sizeof pba)) {
        store_le64(pba, pending_bits(d));
        from = pba + (off - MSIX_PBA_OFFSET);
    }
    if (!from)
        return 0;
    return size == 8 ? load_le64(from) : load_le32(from);
}

static void msix_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    PciDev *d = owner;
    lock_assert_held(&d->dev.lock);
    if ((off & 3) || !range_within(off, size, d->msix_vectors * MSIX_ENTRY))
        return;
    uint8_t *table = d->regs.msix_table;
    unsigned first = off / MSIX_ENTRY, last = (off + size - 1) / MSIX_ENTRY;
    if (size == 8)
        store_le64(table + off, val);
    else
        store_le32(table + off, (uint32_t)val);
    for (unsigned v = first; v <= last; v++) {
        uint8_t *entry = table + v * MSIX_ENTRY;
        /* The address's low two bits and vector control's reserved bits read as 0. */
        entry[0] &= (uint8_t)~3u;
        store_le32(entry + MSIX_ENTRY_CTRL, load_le32(entry + MSIX_ENTRY_CTRL) & MSIX_CTRL_MASK);
        vector_update(d, v);
    }
}

static const BusRegionOps msix_ops = {msix_read, msix_write, 4 | 8};

bool pci_add_msix(PciDev *d, unsigned bar_i, unsigned vectors, GError **error)
{
    g_assert(!d->msix_vectors && bar_i < PCI_BARS);
    if (!vectors || vectors > PCI_MSIX_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "%s: %u MSI-X vectors, 1 to %u are possible",
                          d->dev.id, vectors, PCI_MSIX_MAX);
    pci_add_bar(d, bar_i, PCI_BAR_MMIO, MSIX_BAR_LEN, "msix", &msix_ops, d, &d->dev.lock);
    uint8_t cap = pci_add_cap(d, PCI_CAP_ID_MSIX, MSIX_CAP_LEN);
    store_le16(d->cfg_reset + cap + MSIX_CAP_CONTROL, (uint16_t)(vectors - 1));
    store_le32(d->cfg_reset + cap + MSIX_CAP_TABLE, bar_i);
    store_le32(d->cfg_reset + cap + MSIX_CAP_PBA, MSIX_PBA_OFFSET | bar_i);
    store_le16(d->cfg_mask + cap + MSIX_CAP_CONTROL, MSIX_CONTROL_ENABLE | MSIX_CONTROL_MASK);
    for (unsigned v = 0; v < vectors; v++) {
        g_autofree char *who = g_strdup_printf("%s vector %u", d->dev.id, v);
        d->msix[v] = irq_msi_new(d->dev.board->irq, who);
        irq_msi_mask(d->msix[v], true);
    }
    d->msix_cap = cap;
    d->msix_vectors = vectors;
    return true;
}

void pci_msix_raise(PciDev *d, unsigned v)
{
    if (v < d->msix_vectors)
        irq_msi_raise(d->msix[v]);
}

void pci_msix_reset(PciDev *d)
{
    memset(d->regs.msix_table, 0, sizeof d->regs.msix_table);
    d->regs.msix_pba = 0;
    for (unsigned v = 0; v < d->msix_vectors; v++) {
        d->regs.msix_table[v * MSIX_ENTRY + MSIX_ENTRY_CTRL] = MSIX_CTRL_MASK;
        irq_msi_mask(d->msix[v], true);
        irq_msi_clear_pending(d->msix[v]);
    }
}

void pci_pre_save(void *dev)
{
    PciDev *d = dev;
    d->regs.msix_pba = pending_bits(d);
}

void pci_msix_restore(PciDev *d)
{
    for (unsigned v = 0; v < d->msix_vectors; v++) {
        irq_msi_mask(d->msix[v], true);
        irq_msi_clear_pending(d->msix[v]);
        if (d->regs.msix_pba >> v & 1)
            irq_msi_raise(d->msix[v]);
    }
    pci_msix_update(d);
}

void pci_msix_free(PciDev *d)
{
    for (unsigned v = 0; v < d->msix_vectors; v++)
        g_clear_pointer(&d->msix[v], irq_msi_free);
    d->msix_vectors = 0;
}
