/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PC_H
#define LODGE_PC_H

#include "lodge/device.h"

#include "acpi.h"
#include "boot.h"
#include "tree.h"

typedef struct PcBoard {
    Board *board;       /* borrowed */
    GPtrArray *devices; /* borrowed from the machine: realized devices in order */
    Device *pm;         /* PIIX4 power management, for the power button */
    Device *hotplug;    /* slots that take devices later; NULL: none */
    bool firmware;      /* the guest starts from firmware, which sets the chips up */
} PcBoard;

/* Parts of a PC that a machine has or has not. */
enum {
    PC_FIRMWARE = 1 << 0, /* starts from firmware */
    PC_IDE = 1 << 1,      /* has IDE drives */
    PC_FLOPPY = 1 << 2,   /* has floppy drives */
    PC_SCREEN = 1 << 3,   /* has a screen, and so keyboard and mouse */
};
/* PC_* of what @t describes. */
unsigned pc_parts(const Tree *t);

/* Sizes of the two ranges of memory for @bytes in all. */
void pc_split_ram(uint64_t bytes, uint64_t *ret_below_4g, uint64_t *ret_above_4g);
/* Allocate memory and map it round the holes of a PC. @flags: MEM_*; @shadow: leave the area of
 * expansion and firmware ROMs below 1 MiB to the host bridge. */
bool pc_map_ram(Board *b, unsigned flags, bool shadow, GError **error);
/* Put firmware file @name where the CPU starts, below 4 GiB. LODGE_ERROR_CONFIG. */
bool pc_map_firmware(Board *b, const char *name, GError **error);
/* Make every chip that is soldered to the board. */
bool pc_build(PcBoard *pc, const Tree *t, GError **error);
/* What a boot without firmware finds in memory: ACPI and MP tables. Needs the board's memory and
 * numbers only, so it may run before and beside pc_build(). @ret_layout: what a kernel is told. */
bool pc_write_tables(Board *b, unsigned parts, BootLayout *ret_layout, GError **error);
/* A chip by its class; NULL: not on this board. */
Device *pc_find_chip(const PcBoard *pc, const char *cls);
/* What the tables tell of a board with @parts, PC_*. */
void pc_acpi_config(const Board *b, unsigned parts, AcpiConfig *ret_config);
/* Tell CMOS and, where there is firmware, that what the board has. After all devices. */
bool pc_prepare_firmware(PcBoard *pc, const Tree *t, GError **error);
/* What firmware would have set in the chips: BARs, interrupt triggers. Where there is firmware,
 * nothing. After all devices, and again at each reset. */
void pc_init_chips(PcBoard *pc);
/* The chips as nodes under /board. */
bool pc_describe(Tree *t);

#endif
