/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Intel 82441FX (440FX PMC): the host bridge at 00:00.0, owner of PCI bus 0.
 *
 * Specification: Intel 440FX PCIset data sheet (290549), section 3.2. Subsystem 1af4:1100 tells
 * firmware which kind of board this is. The PAM registers (0x59 to 0x5F) steer where reads and
 * writes of 0xC0000 to 0xFFFFF go, DRAM or the ROM behind the bus, on a board that starts from
 * firmware; on one that does not the area is plain memory. Where reads come from ROM and writes go
 * to DRAM, each write is an exit. SMRAM (0x72) is kept as written, but steers nothing: there is no
 * system management mode. DRAM timing registers read as 0 and take no writes.
 *
 * Threads: configuration writes on vCPU threads with the device's lock held.
 *
 * Invariants:
 * (1) Once D_LCK was written, SMRAM equals regs.smram_locked until a reset.
 * (2) The memory map shows each segment as its PAM bits say, except inside a configuration write.
 */
#include "i440fx.h"

#include "pci.h"

#include <inttypes.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "pc_map.h"
#include "pci_internal.h"

enum {
    I440FX_VENDOR = 0x8086,
    I440FX_DEVICE = 0x1237,
    I440FX_CLASS = 0x060000,
    I440FX_REVISION = 0x02,
    I440FX_SUBSYSTEM_VENDOR = 0x1af4,
    I440FX_SUBSYSTEM = 0x1100,
};

/* Section 3.2.18: PAM0's low half is reserved. */
#define I440FX_PAM0 0x59
#define I440FX_PAMS 7
#define I440FX_PAM0_MASK 0x30
#define I440FX_PAM_MASK 0x33
#define PAM_READ 0x1u  /* reads go to DRAM */
#define PAM_WRITE 0x2u /* writes go to DRAM */
#define PAM_SEGMENTS 13
#define PAM_SMALL (16 * KIB) /* the segments below 0xF0000 */
#define PAM_BIG (64 * KIB)   /* the one at 0xF0000 */
/* Section 3.2.20. */
#define I440FX_SMRAM 0x72
#define I440FX_SMRAM_RESET 0x02 /* C_BASE_SEG: 0xA0000 */
#define SMRAM_OPEN 0x40
#define SMRAM_LOCK 0x10
#define I440FX_SMRAM_MASK 0x78
#define I440FX_COMMAND_RESET (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)
#define I440FX_STATUS_RESET_HIGH 0x02 /* DEVSEL# medium */
#define I440FX_WINDOW_LEN 8

typedef struct I440fxRegs {
    uint32_t address;      /* 0xCF8, from the bus at save */
    uint32_t smram_locked; /* SMRAM when D_LCK was set; 0: not locked */
} I440fxRegs;

typedef struct I440fx {
    PciDev pci;
    I440fxRegs regs; /* behind pci.regs: one range for the StateDesc */
    BusRegion window;
    /* Constant after i440fx_set_shadow(): */
    MemBlock *ram, *rom; /* borrowed from the map; NULL: the PAM registers steer nothing */
    BusRegion shadow;    /* sees what the memory map does not take */
} I440fx;

_Static_assert(offsetof(I440fx, regs) == offsetof(I440fx, pci.regs) + sizeof(PciRegs),
               "one range of state");

/* Segment 12 is PAM0's high half at 0xF0000; 0 to 11 are the halves of PAM1 to PAM6, low first. */
static unsigned pam_bits(const I440fx *h, unsigned seg)
{
    const uint8_t *pam = &h->pci.regs.cfg[I440FX_PAM0];
    return seg == PAM_SEGMENTS - 1 ? pam[0] >> 4 & 3 : pam[1 + seg / 2] >> (seg % 2 * 4) & 3;
}

/* Keeps (2). */
static void pam_update(I440fx *h)
{
    MemMap *m = h->pci.dev.board->mem;
    uint64_t rom_len = h->rom ? mem_block_len(h->rom) : 0;
    for (unsigned seg = 0; h->ram && seg < PAM_SEGMENTS; seg++) {
        gpa_t at = I440FX_SHADOW_GPA + seg * PAM_SMALL;
        uint64_t len = seg == PAM_SEGMENTS - 1 ? PAM_BIG : PAM_SMALL;
        uint64_t below_top = I440FX_SHADOW_GPA + I440FX_SHADOW_LEN - at;
        unsigned bits = pam_bits(h, seg);
        bool ok;
        if (bits & PAM_READ)
            ok = mem_map_place(m, h->ram, at, at, len, !(bits & PAM_WRITE));
        else if (at >= PC_BIOS_AREA_GPA && below_top <= rom_len)
            ok = mem_map_place(m, h->rom, at, rom_len - below_top, len, true);
        else
            ok = mem_map_place(m, NULL, at, 0, len, false);
        if (!ok)
            guest_fault(&h->pci.dev, "segment 0x%" PRIx64 " cannot be switched", at);
    }
}

static uint64_t shadow_read(void *owner, uint64_t off, unsigned size)
{
    return UINT64_MAX;
}

static void shadow_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    I440fx *h = owner;
    unsigned seg = MIN((unsigned)(off / PAM_SMALL), PAM_SEGMENTS - 1u);
    uint8_t bytes[8];
    if (!(pam_bits(h, seg) & PAM_WRITE))
        return;
    store_le64(bytes, val);
    memcpy((uint8_t *)mem_block_host(h->ram) + I440FX_SHADOW_GPA + off, bytes, size);
}

static const BusRegionOps shadow_ops = {shadow_read, shadow_write, 1 | 2 | 4 | 8};

bool i440fx_set_shadow(Device *d, MemBlock *ram, MemBlock *rom, GError **error)
{
    I440fx *h = (I440fx *)d;
    gpa_t at;
    uint64_t len;
    bool read_only;
    for (unsigned i = 0; mem_map_range(d->board->mem, i, &at, &len, &read_only); i++) {
        if (ranges_overlap(at, len, I440FX_SHADOW_GPA, I440FX_SHADOW_LEN))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: memory lies at 0x%" PRIx64, d->id,
                              at);
    }
    g_assert(mem_block_len(ram) >= MIB);
    h->shadow = (BusRegion){.name = "shadow", .len = I440FX_SHADOW_LEN, .ops = &shadow_ops,
                            .owner = h, .lock = &d->lock};
    if (!bus_map(d->board->mmio, &h->shadow, I440FX_SHADOW_GPA, error))
        return false;
    lodge_lock(&d->lock);
    h->ram = ram;
    h->rom = rom;
    pam_update(h);
    lodge_unlock(&d->lock);
    return true;
}

static void i440fx_cfg_written(PciDev *d, unsigned off, unsigned len)
{
    I440fx *h = (I440fx *)d;
    if (ranges_overlap(off, len, I440FX_PAM0, I440FX_PAMS))
        pam_update(h);
    if (off > I440FX_SMRAM || off + len <= I440FX_SMRAM)
        return;
    uint8_t *smram = &d->regs.cfg[I440FX_SMRAM];
    if (h->regs.smram_locked) {
        *smram = (uint8_t)h->regs.smram_locked;
    } else if (*smram & SMRAM_LOCK) {
        *smram &= (uint8_t)~SMRAM_OPEN;
        h->regs.smram_locked = *smram;
    }
}

static void i440fx_unrealize(Device *dev)
{
    I440fx *h = (I440fx *)dev;
    if (h->window.mapped)
        bus_unmap(dev->board->pio, &h->window);
    if (h->shadow.mapped)
        bus_unmap(dev->board->mmio, &h->shadow);
    PciBus *bus = h->pci.bus;
    pci_unrealize(&h->pci);
    pci_bus_free(bus);
}

static bool i440fx_realize(Device *dev, GError **error)
{
    I440fx *h = (I440fx *)dev;
    PciDev *d = &h->pci;
    if (dev->board->pci)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: the board has a PCI bus already",
                          dev->id);
    PciBus *bus = pci_bus_new(dev->board);
    if (!pci_realize(d, PC_SLOT_HOST, 0, I440FX_VENDOR, I440FX_DEVICE, I440FX_CLASS,
                     I440FX_REVISION, 0, error)) {
        pci_bus_free(bus);
        return false;
    }
    pci_set_subsystem(d, I440FX_SUBSYSTEM_VENDOR, I440FX_SUBSYSTEM);
    d->cfg_reset[PCI_COMMAND] = I440FX_COMMAND_RESET;
    d->cfg_reset[PCI_STATUS + 1] = I440FX_STATUS_RESET_HIGH;
    for (unsigned i = 0; i < I440FX_PAMS; i++)
        d->cfg_mask[I440FX_PAM0 + i] = i ? I440FX_PAM_MASK : I440FX_PAM0_MASK;
    d->cfg_reset[I440FX_SMRAM] = I440FX_SMRAM_RESET;
    d->cfg_mask[I440FX_SMRAM] = I440FX_SMRAM_MASK;
    d->cfg_written = i440fx_cfg_written;
    h->window = (BusRegion){.name = "pci-config", .len = I440FX_WINDOW_LEN,
                            .ops = &pci_cfg_window_ops, .owner = bus};
    if (!bus_map(dev->board->pio, &h->window, PC_PORT_PCI_WINDOW, error)) {
        i440fx_unrealize(dev);
        return false;
    }
    return true;
}

static void i440fx_reset(Device *dev, ResetKind kind)
{
    I440fx *h = (I440fx *)dev;
    pci_reset(&h->pci);
    pam_update(h);
    pci_bus_set_address(h->pci.bus, 0);
    h->regs.address = 0;
    h->regs.smram_locked = 0;
}

static void i440fx_pre_save(void *obj)
{
    I440fx *h = obj;
    pci_pre_save(obj);
    h->regs.address = pci_bus_address(h->pci.bus);
}

static bool i440fx_post_load(void *obj, unsigned version, GError **error)
{
    I440fx *h = obj;
    lodge_lock(&h->pci.dev.lock);
    bool ok = pci_post_load(&h->pci, error);
    if (ok)
        pam_update(h);
    lodge_unlock(&h->pci.dev.lock);
    if (!ok)
        return false;
    if (h->regs.smram_locked && h->regs.smram_locked != h->pci.regs.cfg[I440FX_SMRAM])
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: SMRAM differs from its locked value",
                          h->pci.dev.id);
    pci_bus_set_address(h->pci.bus, h->regs.address);
    return true;
}

#define AT(field) (offsetof(I440fxRegs, field) + sizeof(PciRegs))
static const StateField i440fx_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    {"address", ST_UINT, 1, AT(address), sizeof(uint32_t), 1, UINT32_MAX, NULL, NULL},
    {"smram_locked", ST_UINT, 1, AT(smram_locked), sizeof(uint32_t), 1, UINT8_MAX, NULL, NULL},
    ST_END,
};
static const StateDesc i440fx_state = {
    .name = "i440fx", .version = 1, .oldest = 1, .regs_offset = offsetof(I440fx, pci.regs),
    .regs_size = sizeof(PciRegs) + sizeof(I440fxRegs), .fields = i440fx_fields,
    .pre_save = i440fx_pre_save, .post_load = i440fx_post_load};

const DeviceClass i440fx_class = {
    .name = "i440fx",
    .help = "Intel 440FX host bridge, PCI bus 0",
    .instance_size = sizeof(I440fx),
    .state = &i440fx_state,
    .realize = i440fx_realize,
    .reset = i440fx_reset,
    .unrealize = i440fx_unrealize,
};
