/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the board tells its firmware: the drives and cards that can boot, CMOS, ACPI tables. */
#include <string.h>

#include "fdc_82077.h"
#include "ide.h"
#include "pci.h"

#include "firmware.h"
#include "pc.h"
#include "pc_map.h"

#define CMOS_TYPE_BITS 4

static unsigned unit_of(const Device *d)
{
    for (const PropSpec *p = d->cls->props; p && p->name; p++) {
        if (p->kind == PROP_U32 && !strcmp(p->name, "unit"))
            return *(const uint32_t *)((const uint8_t *)d + p->offset);
    }
    return 0;
}

/* A card without its ROM cannot boot, and firmware does not know of it. */
static bool can_boot(const Device *d)
{
    return d->cls->boot &&
           (d->cls->boot != 'n' || ((const PciDev *)d)->rom.kind != PCI_BAR_NONE);
}

/**
 * pc_boot_devices() - What firmware may boot from, in order of making
 * Return: FirmwareDevice; transfer full.
 */
static GArray *pc_boot_devices(const PcBoard *pc)
{
    GArray *out = g_array_new(FALSE, TRUE, sizeof(FirmwareDevice));
    uint8_t floppies = pc->board->fdc ? fdc_cmos_drives(pc->board->fdc) : 0;
    for (unsigned i = 0; i < pc->devices->len; i++) {
        const Device *d = g_ptr_array_index(pc->devices, i);
        FirmwareDevice f = {.letter = d->cls->boot, .unit = unit_of(d)};
        if (!can_boot(d))
            continue;
        if (!g_strcmp0(d->cls->bus, "fdc")) {
            f.bus = FIRMWARE_FDC;
            f.floppy_type = f.unit ? floppies & 0xf : floppies >> CMOS_TYPE_BITS;
        } else if (!g_strcmp0(d->cls->bus, "ide")) {
            const IdeDrive *drive = (const IdeDrive *)d;
            f.bus = FIRMWARE_IDE;
            f.slot = PC_SLOT_PIIX;
            f.fn = PC_FN_IDE;
            f.cylinders = drive->cylinders;
            f.heads = drive->heads;
            f.sectors = drive->sectors;
        } else {
            f.bus = FIRMWARE_PCI;
            f.slot = ((const PciDev *)d)->devfn >> 3;
            f.fn = ((const PciDev *)d)->devfn & 7;
        }
        g_array_append_val(out, f);
    }
    return out;
}

static unsigned com_ports(const PcBoard *pc)
{
    static const uint16_t ports[] = {PC_PORT_COM1, PC_PORT_COM2, PC_PORT_COM3, PC_PORT_COM4};
    unsigned there = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(ports); i++)
        there |= bus_region_at(pc->board->pio, ports[i]) ? 1u << i : 0;
    return there;
}

void pc_acpi_config(const Board *b, unsigned parts, AcpiConfig *ret_config)
{
    *ret_config = (AcpiConfig){
        .cpus = b->cpus,
        .ram_below_4g = b->ram_below_4g,
        .ram_above_4g = b->ram_above_4g,
        .pci_hole_base = PC_PCI_HOLE_GPA,
        .pvpanic = true,
        .i8042 = parts & (PC_SCREEN | PC_FIRMWARE),
        .no_vga = !(parts & PC_SCREEN),
        .dma = parts & PC_FLOPPY,
        .fdc = parts & PC_FLOPPY,
        .pci_hotplug = true,
    };
}

bool pc_prepare_firmware(PcBoard *pc, const Tree *t, GError **error)
{
    g_autoptr(GArray) devs = pc_boot_devices(pc);
    FirmwareDevice *first = (FirmwareDevice *)devs->data;
    AcpiConfig acpi;
    pc_acpi_config(pc->board, pc_parts(t), &acpi);
    uint8_t floppies = pc->board->fdc ? fdc_cmos_drives(pc->board->fdc) : 0;
    acpi.floppies = (uint8_t)((floppies >> CMOS_TYPE_BITS ? 1 : 0) | (floppies & 0xf ? 2 : 0));
    acpi.com_ports = (uint8_t)(com_ports(pc) & ~1u);
    firmware_cmos(pc_find_chip(pc, "mc146818"), pc->board, t, first, devs->len);
    return !pc->firmware || firmware_prepare(pc->board, t, first, devs->len, &acpi, error);
}
