/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PC_H
#define LODGE_PC_H

#include "lodge/device.h"

#include "boot.h"
#include "tree.h"

typedef struct PcBoard {
    Board *board;       /* borrowed */
    GPtrArray *devices; /* borrowed from the machine: realized devices in order */
    Device *pm;         /* PIIX4 power management, for the power button */
} PcBoard;

/* Sizes of the two ranges of memory for @bytes in all. */
void pc_split_ram(uint64_t bytes, uint64_t *ret_below_4g, uint64_t *ret_above_4g);
/* Allocate memory and map it round the holes of a PC. @flags: MEM_*. */
bool pc_map_ram(Board *b, unsigned flags, GError **error);
/* Make every chip that is soldered to the board. */
bool pc_build(PcBoard *pc, const Tree *t, GError **error);
/* What a boot without firmware finds in memory: ACPI and MP tables. Needs the board's memory and
 * numbers only, so it may run before and beside pc_build(). @ret_layout: what a kernel is told. */
bool pc_write_tables(Board *b, BootLayout *ret_layout, GError **error);
/* What firmware would have set in the chips: BARs, interrupt triggers. After all devices, and again
 * at each reset. */
void pc_init_chips(PcBoard *pc);
/* The chips as nodes under /board. */
bool pc_describe(Tree *t);

#endif
