/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BARs that are memory: frame buffers, and expansion ROMs. The guest reaches them without an exit,
 * through a range of the memory map that follows the BAR.
 *
 * Specification: PCI Local Bus 3.0, 6.2.5.1 (prefetchable memory), 6.2.5.2 (expansion ROM base
 * address: bit 0 enables it, beside the command register's memory bit), 6.3 (ROM contents).
 *
 * Firmware starts a ROM only if its data structure names the card, and a file may serve several
 * cards (iPXE's for NE2000 names none, its one for virtio the older device): the card's IDs are
 * written into the guest's copy, as on a board whose maker programmed the ROM.
 *
 * A guest may place such a BAR over other memory, where a real board would fight about the bus:
 * ours then shows the other memory and notes a fault.
 */
#include <string.h>

#include "lodge/error.h"
#include "lodge/firmware_path.h"
#include "lodge/num.h"

#include "pci_internal.h"

#define ROM_PAGE 4096u
#define ROM_MAX (16 * MIB)
#define ROM_SIGNATURE_0 0x55
#define ROM_SIGNATURE_1 0xaa
#define ROM_UNIT 512u
#define ADDRESS_SPACE_32 (UINT64_C(1) << 32)

enum { /* 6.3.1.1, "PCI Expansion ROM Header Format", and 6.3.1.2, "PCI Data Structure Format" */
    ROM_LENGTH = 0x02,   /* of the image in 512 bytes: PC-compatible ROMs, 6.3.3 */
    ROM_CHECKSUM = 0x06, /* the application's own: here a byte makes up for what changed */
    ROM_PCIR = 0x18,
    ROM_HEADER_END = 0x1a,
    PCIR_VENDOR_ID = 0x04,
    PCIR_IDS_END = 0x08,
};

bool pci_ram_bar_place(PciDev *d, PciBar *bar, uint64_t target)
{
    MemMap *m = d->dev.board->mem;
    if (bar->region.mapped ? bar->region.base == target : target == UINT64_MAX)
        return false;
    if (bar->region.mapped)
        mem_map_place(m, NULL, bar->region.base, 0, bar->len, false);
    bar->region.mapped = target != UINT64_MAX &&
                         mem_map_place(m, bar->block, target, 0, bar->len, false);
    bar->region.base = target;
    if (target != UINT64_MAX && !bar->region.mapped)
        guest_fault(&d->dev, "%s placed over other memory at 0x%" PRIx64, bar->region.name, target);
    return true;
}

static void ram_bar_free(PciDev *d, PciBar *bar)
{
    if (bar->kind != PCI_BAR_RAM)
        return;
    pci_ram_bar_place(d, bar, UINT64_MAX);
    mem_map_disown(d->dev.board->mem, bar->block);
    *bar = (PciBar){.kind = PCI_BAR_NONE};
}

void pci_ram_bars_free(PciDev *d)
{
    for (unsigned i = 0; i < PCI_BARS; i++)
        ram_bar_free(d, &d->bar[i]);
    ram_bar_free(d, &d->rom);
}

static void ram_bar_init(PciDev *d, PciBar *bar, MemBlock *b)
{
    bar->kind = PCI_BAR_RAM;
    bar->len = mem_block_len(b);
    bar->block = b;
    bar->region = (BusRegion){.name = mem_block_name(b)};
    mem_map_own(d->dev.board->mem, b);
}

void pci_add_ram_bar(PciDev *d, unsigned i, MemBlock *b)
{
    g_assert(i < PCI_BARS && d->bar[i].kind == PCI_BAR_NONE);
    g_assert(is_power_of_two(mem_block_len(b)) && mem_block_len(b) < ADDRESS_SPACE_32 / 2);
    ram_bar_init(d, &d->bar[i], b);
    store_le32(d->cfg_mask + PCI_BAR0 + 4 * i, ~(uint32_t)(mem_block_len(b) - 1));
    store_le32(d->cfg_reset + PCI_BAR0 + 4 * i, PCI_BAR_PREFETCH);
}

uint64_t pci_rom_target(const PciDev *d)
{
    uint32_t v = load_le32(d->regs.cfg + PCI_ROM);
    uint16_t command = load_le16(d->regs.cfg + PCI_COMMAND);
    uint64_t base = v & ~(uint32_t)(d->rom.len - 1);
    bool on = (v & PCI_ROM_ENABLE) && (command & PCI_COMMAND_MEMORY);
    return on && base && base + d->rom.len < ADDRESS_SPACE_32 ? base : UINT64_MAX;
}

/* Make the data structure in @rom's first image name @d; its sum of bytes stays as it is. */
static void rom_name_card(const PciDev *d, uint8_t *rom, size_t len)
{
    static const uint8_t signature[] = {'P', 'C', 'I', 'R'};
    const uint8_t *ids = d->cfg_reset + PCI_VENDOR_ID;

    if (len < ROM_HEADER_END)
        return;
    len = MIN(len, rom[ROM_LENGTH] * ROM_UNIT);
    size_t at = load_le16(rom + ROM_PCIR);
    if (at < ROM_HEADER_END || at + PCIR_IDS_END > len ||
        memcmp(rom + at, signature, sizeof signature))
        return;
    for (unsigned i = 0; i < PCIR_IDS_END - PCIR_VENDOR_ID; i++) {
        rom[ROM_CHECKSUM] += rom[at + PCIR_VENDOR_ID + i] - ids[i];
        rom[at + PCIR_VENDOR_ID + i] = ids[i];
    }
}

bool pci_add_rom(PciDev *d, const char *file, GError **error)
{
    if (!file || !*file)
        return true;
    g_autoptr(GBytes) bytes = firmware_read(file, 1, error);
    if (!bytes)
        return false;
    size_t len;
    const uint8_t *data = g_bytes_get_data(bytes, &len);
    if (len > ROM_MAX || len < 2 || data[0] != ROM_SIGNATURE_0 || data[1] != ROM_SIGNATURE_1)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: %s: is no expansion ROM; one begins with the bytes 55 AA",
                          d->dev.id, file);
    uint64_t span = ROM_PAGE;
    while (span < len)
        span *= 2;
    g_autofree char *name = g_strdup_printf("%s.rom", d->dev.id);
    MemBlock *b = mem_block_new(name, span, MEM_READ_ONLY, error);
    if (!b)
        return false;
    memcpy(mem_block_host(b), data, len);
    rom_name_card(d, mem_block_host(b), len);
    ram_bar_init(d, &d->rom, b);
    store_le32(d->cfg_mask + PCI_ROM, ~(uint32_t)(span - 1) | PCI_ROM_ENABLE);
    return true;
}
