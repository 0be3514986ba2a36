/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PCI_INTERNAL_H
#define LODGE_PCI_INTERNAL_H

/* Between pci.c and pci_msi.c, and the names of configuration registers that both and the chips
 * on the board use. PCI Local Bus 3.0, 6.1 (header type 0) and 6.8.2 (MSI-X). */

#include "pci.h"

enum {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_ROM = 0x30,
    PCI_CAP_POINTER = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
    PCI_HEADER_END = 0x40,
};

enum {
    PCI_COMMAND_IO = 1 << 0,
    PCI_COMMAND_MEMORY = 1 << 1,
    PCI_COMMAND_MASTER = 1 << 2,
    PCI_COMMAND_PARITY = 1 << 6,
    PCI_COMMAND_SERR = 1 << 8,
    PCI_COMMAND_INTX_OFF = 1 << 10,
};

enum {
    PCI_STATUS_INTX = 1 << 3,
    PCI_STATUS_CAPS = 1 << 4,
};

#define PCI_HEADER_MULTI 0x80 /* header type: more than one function */
#define PCI_BAR_IS_IO 0x1u    /* BAR bit 0 */
#define PCI_BAR_PREFETCH 0x8u /* BAR bit 3: memory without side effects */
#define PCI_ROM_ENABLE 0x1u   /* expansion ROM base address, bit 0 */
#define PCI_CAP_ID_MSIX 0x11

/* Show a BAR of memory at @target, or nowhere (UINT64_MAX). Device lock held. Whether it moved. */
bool pci_ram_bar_place(PciDev *d, PciBar *bar, uint64_t target);
/* Take the memory behind BARs and ROM away. Main thread, vCPUs parked. */
void pci_ram_bars_free(PciDev *d);
/* Where the expansion ROM should decode; UINT64_MAX: nowhere. */
uint64_t pci_rom_target(const PciDev *d);

/* A configuration write happened; @old_cfg: the 256 bytes before it. */
void pci_msix_cfg_written(PciDev *d, const uint8_t *old_cfg);
/* Set mask and message of each vector. */
void pci_msix_update(PciDev *d);
void pci_msix_reset(PciDev *d);
void pci_msix_free(PciDev *d);
/* Raise again, masked, what regs.msix_pba holds. */
void pci_msix_restore(PciDev *d);

#endif
