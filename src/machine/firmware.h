/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FIRMWARE_H
#define LODGE_FIRMWARE_H

#include "lodge/device.h"

#include "acpi.h"
#include "tree.h"

/* How firmware reaches what it boots from. */
typedef enum FirmwareBus {
    FIRMWARE_FDC, /* a floppy drive at the board's controller */
    FIRMWARE_IDE, /* a drive of the IDE function at slot, fn */
    FIRMWARE_PCI, /* a PCI function: virtio disk, network card */
} FirmwareBus;

/* Something that firmware may boot from. */
typedef struct FirmwareDevice {
    char letter;       /* 'a' floppy, 'c' disk, 'd' CD-ROM, 'n' network card */
    FirmwareBus bus;
    unsigned slot, fn; /* IDE and PCI */
    unsigned unit;     /* floppy drive 0 or 1; IDE drive 0 to 3, 2 being the secondary master */
    /* IDE disks, as IDENTIFY has them; 0: not told. */
    uint32_t cylinders, heads, sectors;
    uint8_t floppy_type; /* as CMOS has it: 1 360K, 2 1.2M, 3 720K, 4 1.44M, 5 2.88M */
} FirmwareDevice;

/**
 * firmware_prepare() - Fill the fw_cfg device with all that firmware asks for
 * @b:    its fw_cfg is realized, its numbers of CPUs and bytes are set
 * @t:    /boot, /smbios and the uuid are read
 * @devs: what exists, within a kind in the order in which firmware shall try it
 * @acpi: for the tables
 * Context: main thread, once, before the machine runs.
 * Return:  false: LODGE_ERROR_CONFIG (order with an unknown letter, a wrong SMBIOS key or text, or
 *          as acpi_build_loader()), LODGE_ERROR_LIMIT.
 */
bool firmware_prepare(Board *b, const Tree *t, const FirmwareDevice *devs, unsigned n,
                      const AcpiConfig *acpi, GError **error);

/**
 * firmware_cmos() - Set battery-backed memory as a set-up program would have
 * @rtc: a realized "mc146818"
 * Context: main thread, before the machine runs. Memory sizes serve kernels that are entered
 *          directly, too.
 */
void firmware_cmos(Device *rtc, const Board *b, const Tree *t, const FirmwareDevice *devs,
                   unsigned n);

#endif
