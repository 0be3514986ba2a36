/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_ACPI_H
#define LODGE_ACPI_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/mem.h"

/* What of the machine the tables tell. */
typedef struct AcpiConfig {
    unsigned cpus;                        /* APIC IDs 0 to cpus - 1, all enabled */
    uint64_t ram_below_4g, ram_above_4g;  /* bytes; the hole begins at or past ram_below_4g */
    uint32_t pci_hole_base;               /* ends at PC_PCI_HOLE_LIMIT_GPA */
    bool pvpanic;
    bool hpet;
    bool i8042; /* offer the keyboard controller: without a keyboard a kernel need not probe it */
    bool no_vga;       /* say that no VGA answers: a kernel need not look for one */
    bool dma;          /* 8237 pair */
    bool fdc;          /* floppy controller */
    uint8_t floppies;  /* bits 0 and 1: drives A and B */
    uint8_t com_ports; /* bits 1 to 3: COM2 to COM4; COM1 is always there */
    bool pci_hotplug;  /* slots 3 to 31 take devices while the machine runs: "acpi-hotplug" */
} AcpiConfig;

#define ACPI_CPUS_MAX 1024

/**
 * acpi_build() - Make all ACPI tables for a kernel that is entered without firmware
 * @base:     where the blob will lie; a multiple of 64, below 4 GiB
 * @ret_blob: appended to (empty on entry): the bytes to load at @base
 * @ret_rsdp: address of the root pointer, inside the blob
 * Context: any thread; touches nothing else.
 * Return:  false with LODGE_ERROR_CONFIG (no CPU, a hole that lies over memory, bad @base) or
 *          LODGE_ERROR_LIMIT (over ACPI_CPUS_MAX CPUs, or past 4 GiB).
 */
bool acpi_build(const AcpiConfig *c, gpa_t base, GByteArray *ret_blob, gpa_t *ret_rsdp,
                GError **error);

/* The names under which firmware finds the parts of AcpiLoader. */
#define ACPI_FILE_TABLES "etc/acpi/tables"
#define ACPI_FILE_RSDP "etc/acpi/rsdp"
#define ACPI_FILE_SCRIPT "etc/table-loader"

/* The same tables for firmware that places them. */
typedef struct AcpiLoader {
    GByteArray *tables, *rsdp; /* owned; addresses in them are offsets into tables */
    GByteArray *script;        /* owned; entries of 128 bytes, to be followed in order */
} AcpiLoader;
void acpi_loader_clear(AcpiLoader *l); /* empty is fine */
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(AcpiLoader, acpi_loader_clear)

/**
 * acpi_build_loader() - Make all ACPI tables, and instructions how to place them
 * @ret_loader: overwritten; acpi_loader_clear() frees it
 * Context: any thread; touches nothing else.
 * Return:  false as acpi_build(), but for addresses.
 */
bool acpi_build_loader(const AcpiConfig *c, AcpiLoader *ret_loader, GError **error);

#endif
