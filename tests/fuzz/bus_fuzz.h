/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BUS_FUZZ_H
#define LODGE_BUS_FUZZ_H

/*
 * Fuzzing of devices over the bus: an input is a program that drives ports, MMIO, PCI
 * configuration, guest memory, time and the device's own events in any order. An entry describes
 * its board by a BusFuzz and hands the input to bus_fuzz_run(); each run has a board of its own.
 *
 * The program: an operation byte (kind in the low nibble, access width in the two bits above it,
 * in the top two a variation), then its arguments; what is missing at the end reads as 0. Places
 * are an index into the entry's regions, laid end to end; memory places are in units of 16 bytes.
 */

#include "replay.h"
#include "testboard.h"

#define BUS_FUZZ_RAM (1u << 20) /* bytes at 0 where the entry does not say */

typedef struct BusFuzzRegion {
    uint64_t base;
    uint32_t len; /* addresses; 0 ends a table */
} BusFuzzRegion;

typedef struct BusFuzz {
    uint64_t ram;               /* bytes, 0: BUS_FUZZ_RAM */
    const BusFuzzRegion *ports; /* NULL: none */
    const BusFuzzRegion *mmio;  /* NULL: none */
    const uint8_t *devfns;      /* PCI functions, ended by 0xFF; NULL: none */
    int64_t max_ns;             /* guest time a program may let pass, 0: 4 s */
    /* Make back ends and devices. */
    void (*set_up)(TestBoard *tb);
    /* Something that the outside does: a frame, a key, a completion, a change of medium. */
    void (*event)(TestBoard *tb, uint8_t what); /* NULL: nothing ever happens */
    /* Let back ends finish all that is in flight, for the quiet before a state is saved. */
    void (*settle)(TestBoard *tb); /* NULL: nothing is ever in flight */
    /* The devices are gone, the board is still there: free the back ends. */
    void (*tear_down)(TestBoard *tb); /* NULL: none */
} BusFuzz;

/* Return: 0, what a fuzz entry returns. */
int bus_fuzz_run(const BusFuzz *f, const uint8_t *data, size_t len);

#endif
