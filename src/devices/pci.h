/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PCI_H
#define LODGE_PCI_H

/*
 * PCI: configuration space of functions, BAR placement, INTx routing, MSI-X. A PCI device embeds
 * PciDev as its first member (whose first member is Device).
 *
 * The configuration window (0xCF8/0xCFC) has lock = NULL on the bus; the core takes the *target*
 * function's lock, so bridge and function are never locked together.
 */

#include "lodge/device.h"

#define PCI_BARS 6
#define PCI_CFG_SIZE 256
#define PCI_MSIX_MAX 64

typedef struct PciDev PciDev;

typedef enum PciBarKind { PCI_BAR_NONE, PCI_BAR_MMIO, PCI_BAR_IO, PCI_BAR_RAM } PciBarKind;

typedef struct PciBar {
    PciBarKind kind;
    uint64_t len;      /* power of two, >= 4 (I/O) or 16 (MMIO; mapped in units of 4096) */
    BusRegion region;  /* whole BAR; its lock and ops are the device's choice. PCI_BAR_RAM: only
                        * base and mapped are used */
    MemBlock *block;   /* PCI_BAR_RAM: borrowed from the map, which owns it; else NULL */
} PciBar;

/* What the guest sees and what travels in a snapshot. */
typedef struct PciRegs {
    uint8_t cfg[PCI_CFG_SIZE];
    uint8_t msix_table[PCI_MSIX_MAX * 16];
    uint64_t msix_pba; /* one bit a vector; filled by pci_pre_save(); else ask msix[] */
} PciRegs;
extern const StateDesc pci_state; /* of PciRegs, regs_offset 0: a sub-table for devices */

struct PciDev {
    Device dev;
    /* Constant after realize: */
    PciBus *bus;
    uint8_t devfn;                     /* slot << 3 | function */
    uint8_t cfg_mask[PCI_CFG_SIZE];    /* bits that the guest may write */
    uint8_t cfg_w1c[PCI_CFG_SIZE];     /* bits that a written 1 clears */
    uint8_t cfg_reset[PCI_CFG_SIZE];   /* values after reset */
    PciBar bar[PCI_BARS];
    PciBar rom;                        /* expansion ROM: PCI_BAR_RAM or none */
    unsigned msix_vectors;             /* 0: no MSI-X */
    uint8_t msix_cap;                  /* offset of the capability */
    uint8_t cap_end;                   /* first free byte for capabilities */
    uint8_t intx_pin;                  /* 1..4: INTA..INTD; 0: none */
    IrqMsi *msix[PCI_MSIX_MAX];        /* owned */
    /* Called after each configuration write that changed something, device lock held. */
    void (*cfg_written)(PciDev *d, unsigned off, unsigned len);
    /* Configuration bytes [cfg_window_at, + cfg_window_len) stand for something else: called before
     * a read that touches them is answered, to fill them in, and after a write stored them, even of
     * the same value. Device lock held; it may drop and retake it. NULL: none. */
    void (*cfg_window)(PciDev *d, bool write, unsigned off, unsigned len);
    uint8_t cfg_window_at, cfg_window_len;
    /* BARs were placed or removed (ioeventfds move along); device lock held. */
    void (*bars_moved)(PciDev *d);
    /* Guarded by dev.lock: */
    bool intx_driven; /* adds to its PIRQ's count now; derived from regs */
    PciRegs regs;     /* last: a device's own Regs come right behind, one range for its StateDesc */
};

/* Create the bus of a host bridge; @board->pci is set. The 0xCF8 window is mapped by the bridge. */
PciBus *pci_bus_new(Board *board);
void pci_bus_free(PciBus *bus);

/**
 * pci_realize() - Put @d on @board->pci; the first call in a PCI device's realize
 * @slot:  0..31, or -1 for the first free one from 3 on
 * @class_code: 24 bits: base class, subclass, interface
 * @pin:   0 for none, 1..4 for INTA..INTD
 * Return: false with LODGE_ERROR_LIMIT when the bus is full, LODGE_ERROR_CONFIG if @slot is taken.
 */
bool pci_realize(PciDev *d, int slot, unsigned fn, uint16_t vendor, uint16_t device,
                 uint32_t class_code, uint8_t revision, unsigned pin, GError **error);
void pci_unrealize(PciDev *d);
/* Lock held: configuration space, BARs, MSI-X back to their reset values. */
void pci_reset(PciDev *d);
/* The pre_save of a PCI device's StateDesc (or called first by it); @dev: the PciDev. */
void pci_pre_save(void *dev);
/* After regs were loaded from a snapshot: place BARs, set MSI-X messages. LODGE_ERROR_IMAGE where
 * a bit differs that the guest cannot change. Lock held. */
bool pci_post_load(PciDev *d, GError **error);

void pci_set_subsystem(PciDev *d, uint16_t vendor, uint16_t device);
/* Declare BAR @i before the device is reset; @ops run under @lock. */
void pci_add_bar(PciDev *d, unsigned i, PciBarKind kind, uint64_t len, const char *name,
                 const BusRegionOps *ops, void *owner, LodgeLock *lock);
/* Declare BAR @i to be memory that the guest reaches without an exit: a frame buffer. @b's length
 * is a power of two; it becomes the map's. Main thread, before the device is reset. */
void pci_add_ram_bar(PciDev *d, unsigned i, MemBlock *b);
/**
 * pci_add_rom() - Give @d, whose IDs are set, an expansion ROM from a file; it names @d's IDs then
 * @file: a path, or a name that is looked up where distributions install firmware; "" or NULL: none
 * Return: false with LODGE_ERROR_CONFIG: not there, a directory, empty, over 16 MiB, or no ROM
 *         image (PCI Firmware 3.0, 5.1.1: starts with 55 AA).
 */
bool pci_add_rom(PciDev *d, const char *file, GError **error);
/* Properties of a card that can start a machine from the network, for pci_add_rom(). Not every
 * machine that has one wants to: firmware runs each ROM that it finds. */
#define PCI_NETBOOT_PROPS(type, rom)                                                               \
    {"netboot", "offer firmware to start from the network through this card", PROP_BOOL,           \
     offsetof(type, netboot), 0, 1, "off"},                                                        \
    {"romfile", "expansion ROM that does it", PROP_STRING, offsetof(type, romfile), 0, 4096, rom}
/* Append a capability of @len bytes; its offset. Room is the caller's promise (g_assert). */
uint8_t pci_add_cap(PciDev *d, uint8_t id, uint8_t len);
/* MSI-X with @vectors (<= PCI_MSIX_MAX), table and PBA in BAR @bar_i of its own (4 KiB). */
bool pci_add_msix(PciDev *d, unsigned bar_i, unsigned vectors, GError **error);
bool pci_msix_enabled(const PciDev *d);
/* Any thread: raise vector @v (masked: pending bit). Out of range is ignored. */
void pci_msix_raise(PciDev *d, unsigned v);
/* Level of the INTx pin; honours the command register's interrupt disable. Device lock held. */
void pci_set_intx(PciDev *d, bool asserted);
/* Bus-master enable of the command register: DMA is allowed. */
bool pci_bus_master(const PciDev *d);
/* Where BAR @i lies now; UINT64_MAX: not mapped. Device lock held. */
uint64_t pci_bar_base(const PciDev *d, unsigned i);

/* INTx routing: the bridge says which GSI a PIRQ (0..3) drives; -1 none. */
void pci_set_pirq(PciBus *bus, unsigned pirq, int gsi);
/* Walk the functions in devfn order. NULL at the end. */
PciDev *pci_bus_next(PciBus *bus, const PciDev *after);
PciDev *pci_bus_find(PciBus *bus, uint8_t devfn);
/* Assign BARs as firmware would, for kernels entered without one: MMIO from 0xFEBF0000 down or
 * from @mmio_base up, ports from 0xC000 up; sets I/O, memory (not bus master), interrupt line. */
void pci_assign(PciBus *bus, uint32_t mmio_base, uint32_t mmio_limit);
/* The PIRQ that @pin (0..3 for INTA..INTD) of @slot is wired to on this board. */
static inline unsigned pci_pirq(unsigned slot, unsigned pin)
{
    return (slot + pin + 3) & 3; /* (slot + pin - 1) mod 4 */
}
/* Byte accesses to port 0xCF9, which lies inside the window, go to @r (one byte long, borrowed,
 * its lock honoured). NULL takes it away. Main thread, vCPUs parked. */
void pci_set_reset_port(PciBus *bus, const BusRegion *r);
/* The address register at 0xCF8, which travels in the host bridge's state. Any thread. */
uint32_t pci_bus_address(PciBus *bus);
void pci_bus_set_address(PciBus *bus, uint32_t address);
/* The window, for the host bridge: mechanism 1. */
extern const BusRegionOps pci_cfg_window_ops; /* owner: PciBus; 8 ports from 0xCF8; lock NULL */

#endif
