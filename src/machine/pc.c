/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The board of a PC with the i440FX and PIIX chips: every chip, address and pin on one page. What
 * may be there or not comes from the description; what stands here is soldered.
 *
 * Memory: RAM from 0 to 640 KiB and from 768 KiB to the PCI hole at 3 GiB, the rest from 4 GiB on.
 * 0xE0000-0xFFFFF holds the tables of a guest that is entered without firmware. With firmware, the
 * host bridge steers 0xC0000-0xFFFFF, and the firmware's file ends at 4 GiB.
 */
#include <string.h>

#include "lodge/error.h"
#include "lodge/firmware_path.h"
#include "lodge/num.h"

#include "acpi.h"
#include "acpi_hotplug.h"
#include "acpi_pm.h"
#include "fw_cfg.h"
#include "i440fx.h"
#include "mptable.h"
#include "pc.h"
#include "pc_map.h"
#include "pci.h"

#define PC_HIGH_RAM_GPA (4 * GIB)
#define PC_TABLES_END_GPA 0xf0000u
#define PC_FIRMWARE_UNIT (64 * KIB) /* a file is a multiple of this */
#define PC_RAM "ram"
#define PC_BIOS "bios"

/* In the order of making; the controllers come before what raises interrupts. */
static const struct {
    const char *cls;
    const char *at;    /* for people: ports, addresses, pins */
    unsigned with;     /* made where the machine has one of these PC_*; 0: always */
} chips[] = {
    {"i8259", "ports 20-21, a0-a1, 4d0-4d1", 0},
    {"ioapic", "memory fec00000", 0},
    {"i8254", "ports 40-43, 61; irq 0", 0},
    {"mc146818", "ports 70-71; irq 8", 0},
    {"i8042", "ports 60, 64; irq 1, 12", 0},
    {"ps2-kbd", "at the i8042", PC_SCREEN | PC_FIRMWARE},
    {"ps2-mouse", "at the i8042", PC_SCREEN | PC_FIRMWARE},
    {"vmmouse", "port 5658", PC_SCREEN},
    {"port92", "port 92", 0},
    {"i8237", "ports 0-f, 81-8f, c0-df", PC_FLOPPY},
    {"fdc-82077", "ports 3f0-3f5, 3f7; irq 6; dma 2", PC_FLOPPY},
    {"i440fx", "pci 00:00.0; ports cf8-cff", 0},
    {"piix3", "pci 00:01.0; port cf9", 0},
    {"piix3-ide", "pci 00:01.1; ports 1f0-1f7, 3f6, 170-177, 376; irq 14, 15", PC_IDE},
    {"piix4-pm", "pci 00:01.3; ports 600-63f; irq 9", 0},
    {"acpi-hotplug", "ports ae00-ae0f", 0},
    {"fw-cfg", "ports 510-51b", 0},
    {"pvpanic", "port 505", 0},
};

unsigned pc_parts(const Tree *t)
{
    unsigned parts = tree_has(t, "/boot", "firmware")
                         ? PC_FIRMWARE | PC_IDE | PC_FLOPPY : 0;
    g_autoptr(GPtrArray) ids = tree_children(t, "/devices");
    for (unsigned i = 0; i < ids->len; i++) {
        g_autofree char *path = g_strdup_printf("/devices/%s", (char *)g_ptr_array_index(ids, i));
        const char *name = tree_str(t, path, "compatible");
        const DeviceClass *cls = name ? device_class_find(name) : NULL;
        if (!cls)
            continue;
        parts |= !g_strcmp0(cls->bus, "ide") ? PC_IDE : 0;
        parts |= !g_strcmp0(cls->bus, "fdc") ? PC_FLOPPY : 0;
        parts |= !strcmp(name, "vga") ? PC_SCREEN : 0;
    }
    return parts;
}

void pc_split_ram(uint64_t bytes, uint64_t *ret_below_4g, uint64_t *ret_above_4g)
{
    *ret_below_4g = MIN(bytes, (uint64_t)PC_PCI_HOLE_GPA);
    *ret_above_4g = bytes - *ret_below_4g;
}

bool pc_map_ram(Board *b, unsigned flags, bool shadow, GError **error)
{
    uint64_t vga_end = shadow ? MIB : PC_VGA_GPA + PC_VGA_LEN;
    MemBlock *low = mem_block_new(PC_RAM, b->ram_below_4g, flags, error);
    if (!low)
        return false;
    if (!mem_map_add(b->mem, low, 0, 0, MIN(b->ram_below_4g, PC_VGA_GPA), error)) {
        mem_block_free(low);
        return false;
    }
    if (b->ram_below_4g > vga_end &&
        !mem_map_add(b->mem, low, vga_end, vga_end, b->ram_below_4g - vga_end, error))
        return false;
    if (!b->ram_above_4g)
        return true;
    MemBlock *high = mem_block_new("ram-high", b->ram_above_4g, flags, error);
    if (!high)
        return false;
    if (!mem_map_add(b->mem, high, PC_HIGH_RAM_GPA, 0, b->ram_above_4g, error)) {
        mem_block_free(high);
        return false;
    }
    return true;
}

bool pc_map_firmware(Board *b, const char *name, GError **error)
{
    g_autoptr(GBytes) bytes = firmware_read(name, PC_FIRMWARE_UNIT, error);
    if (!bytes)
        return false;
    size_t len;
    const void *data = g_bytes_get_data(bytes, &len);
    MemBlock *rom = mem_block_new(PC_BIOS, len, MEM_READ_ONLY, error);
    if (!rom)
        return false;
    memcpy(mem_block_host(rom), data, len);
    if (!mem_map_add(b->mem, rom, PC_HIGH_RAM_GPA - len, 0, len, error)) {
        mem_block_free(rom);
        return false;
    }
    return true;
}

Device *pc_find_chip(const PcBoard *pc, const char *cls)
{
    for (unsigned i = 0; i < pc->devices->len; i++) {
        Device *d = g_ptr_array_index(pc->devices, i);
        if (!strcmp(d->cls->name, cls))
            return d;
    }
    return NULL;
}

static bool add_chip(PcBoard *pc, const Tree *t, const char *name, GError **error)
{
    const DeviceClass *cls = device_class_find(name);
    g_assert(cls);
    g_autoptr(Device) d = device_new(cls, NULL, pc->board);
    const char *rtc_base = tree_str(t, "/rtc", "base");
    if (!strcmp(name, "mc146818") && rtc_base && !device_set(d, "base", rtc_base, error))
        return false;
    if (!device_realize(d, error))
        return false;
    g_ptr_array_add(pc->devices, g_steal_pointer(&d));
    return true;
}

bool pc_build(PcBoard *pc, const Tree *t, GError **error)
{
    unsigned parts = pc_parts(t);
    MemMap *m = pc->board->mem;
    for (unsigned i = 0; i < G_N_ELEMENTS(chips); i++) {
        if ((!chips[i].with || (chips[i].with & parts)) &&
            !add_chip(pc, t, chips[i].cls, error))
            return false;
    }
    pc->firmware = parts & PC_FIRMWARE;
    if (pc->firmware && !i440fx_set_shadow(pc_find_chip(pc, "i440fx"), mem_map_block(m, PC_RAM),
                                           mem_map_block(m, PC_BIOS), error))
        return false;
    pc->pm = pc_find_chip(pc, "piix4-pm");
    pc->hotplug = pc_find_chip(pc, "acpi-hotplug");
    if (pc->hotplug)
        acpi_hotplug_attach(pc->hotplug, pc->pm);
    if (!tree_has(t, "/options", "debug-exit"))
        return true;
    return add_chip(pc, t, "debug-exit", error);
}

/* What firmware does: the SCI and the PIRQs are shared, level-triggered interrupts. */
static void set_elcr(Board *b)
{
    BusReader *port = bus_reader_new(b->pio);
    bus_write(port, PC_PORT_ELCR, 1, PC_ELCR_LEVEL & 0xff);
    bus_write(port, PC_PORT_ELCR + 1, 1, PC_ELCR_LEVEL >> 8);
    bus_reader_free(port);
}

void pc_init_chips(PcBoard *pc)
{
    if (pc->firmware)
        return;
    pci_assign(pc->board->pci, PC_PCI_HOLE_GPA, PC_PCI_HOLE_LIMIT_GPA);
    set_elcr(pc->board);
}

bool pc_write_tables(Board *b, unsigned parts, BootLayout *ret_layout, GError **error)
{
    g_autoptr(GByteArray) acpi = g_byte_array_new(), mp = g_byte_array_new();
    gpa_t rsdp = 0;
    AcpiConfig config;
    pc_acpi_config(b, parts, &config);
    *ret_layout = (BootLayout){
        .ram_below_4g = b->ram_below_4g, .ram_above_4g = b->ram_above_4g, .cpus = b->cpus};
    if (b->ram_below_4g < MIB)
        return true; /* no room for tables: a guest this small looks for none */
    if (!acpi_build(&config, PC_BIOS_AREA_GPA, acpi, &rsdp, error))
        return false;
    /* More CPUs than such a table can tell: a kernel with ACPI does not miss it. */
    (void)mptable_build(b->cpus, PC_MPTABLE_GPA, mp);
    if (PC_BIOS_AREA_GPA + acpi->len > PC_TABLES_END_GPA || mp->len > 64 * KIB)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "%u vCPUs: their tables need more than 64 KiB",
                          b->cpus);
    if (!mem_zero(b->mem, PC_BIOS_AREA_GPA, PC_BIOS_AREA_LEN) ||
        !mem_load(b->mem, PC_BIOS_AREA_GPA, acpi->data, acpi->len) ||
        !mem_load(b->mem, PC_MPTABLE_GPA, mp->data, mp->len))
        return lodge_fail(error, LODGE_ERROR_STATE, "the BIOS area is no memory");
    ret_layout->rsdp_gpa = rsdp;
    return true;
}

bool pc_describe(Tree *t)
{
    bool ok = true;
    unsigned parts = pc_parts(t);
    for (unsigned i = 0; i < G_N_ELEMENTS(chips); i++) {
        if (chips[i].with && !(chips[i].with & parts))
            continue;
        g_autofree char *path = g_strdup_printf("/board/%s", chips[i].cls);
        ok = ok && tree_set_str(t, path, "compatible", chips[i].cls) &&
             tree_set_str(t, path, "at", chips[i].at);
    }
    return ok;
}
