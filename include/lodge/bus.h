/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BUS_H
#define LODGE_BUS_H

/*
 * Dispatch of port and MMIO accesses; one Bus for each space. Each vCPU looks up through a
 * BusReader, which keeps its own reference on an immutable sorted view and takes a new one when
 * an atomic generation has moved: the look-up takes no lock. The layout lock is for writers and
 * is never held across a handler. Unclaimed reads give all-ones of the access width, unclaimed
 * writes vanish; both are counted.
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/lock.h"

typedef struct Bus Bus;
typedef struct BusReader BusReader;
typedef struct Device Device;

/* Part of a region; clipped to it. */
typedef struct BusSpan {
    uint32_t at, len; /* bytes */
} BusSpan;
#define BUS_SPAN_ALL {0, UINT32_MAX}

typedef struct BusRegionOps {
    /* @off + @size <= region length; @size is one of the accepted widths. A result is taken
     * modulo the width. NULL read gives all-ones, NULL write is dropped. Context: vCPU thread,
     * the region's lock held. */
    uint64_t (*read)(void *owner, uint64_t off, unsigned size);
    void (*write)(void *owner, uint64_t off, unsigned size, uint64_t val);
    uint8_t sizes; /* accepted widths, OR of 1|2|4|8; others are split to the largest accepted that
                    * fits, low part first; narrower than any accepted: all-ones, dropped */
    /* Where writes may come late: in order among all of these, and before any other access that
     * comes to the bus; bus_settle() brings them now. Saves an exit for each. For what shows its
     * effect only through a later access or a later look: index and address registers, frame
     * buffers. On whatever thread settles. Ends with length 0; NULL: nowhere. */
    const BusSpan *coalesce;
} BusRegionOps;

typedef struct BusRegion {
    const char *name; /* borrowed, lives as long as the region */
    uint64_t len;     /* bytes, > 0 */
    const BusRegionOps *ops;
    void *owner;     /* passed to ops */
    LodgeLock *lock; /* taken by the bus around ops: &dev->lock; NULL: ops lock for themselves */
    /* Set by the bus: */
    uint64_t base; /* where it is mapped */
    uint64_t hits; /* accesses that reached it; atomic */
    bool mapped;
} BusRegion;

/* @name: "port" or "mmio"; @limit: number of addresses (65536, or 1 << 52). */
Bus *bus_new(const char *name, uint64_t limit);
void bus_free(Bus *b);
const char *bus_name(const Bus *b);

/* Board code: an overlap is LODGE_ERROR_CONFIG and names both. Context: main thread. @r is
 * borrowed; after bus_unmap() it and its owner must live until every vCPU was parked once: a
 * reader looks at the generation before it touches a region, so it cannot meet it later. */
bool bus_map(Bus *b, BusRegion *r, uint64_t base, GError **error);
/* The guest moved a BAR: overlap is legal and the region mapped first wins. Already mapped: moves.
 * A base that does not fit leaves it unmapped. Context: any thread, device locks may be held. */
void bus_place(Bus *b, BusRegion *r, uint64_t base);
/* Context: as bus_place. A call begun on another vCPU may still finish after it returns. */
void bus_unmap(Bus *b, BusRegion *r);

/* Give @r other @ops, which differ in @ops->coalesce alone. Context: as bus_place. Writes that wait
 * stay in their order. */
void bus_set_ops(Bus *b, BusRegion *r, const BusRegionOps *ops);

/* One reader a thread. */
BusReader *bus_reader_new(Bus *b);
void bus_reader_free(BusReader *rd);
/* @size 1, 2, 4 or 8. Context: the reader's thread; LOCK_RANK_DEVICE and above not held. */
uint64_t bus_read(BusReader *rd, uint64_t addr, unsigned size);
void bus_write(BusReader *rd, uint64_t addr, unsigned size, uint64_t val);
/* @count accesses to the same address, as a string instruction makes them; @data holds them side by
 * side, @size bytes each, in the guest's order. As that many bus_read() or bus_write(), but the
 * region's lock is taken once. @size 1, 2 or 4. */
void bus_read_string(BusReader *rd, uint64_t addr, unsigned size, void *data, uint32_t count);
void bus_write_string(BusReader *rd, uint64_t addr, unsigned size, const void *data,
                      uint32_t count);

/* Whether something is mapped at @addr, and its name. For diagnostics. */
const char *bus_region_at(Bus *b, uint64_t addr);
/* Counts of accesses that nobody claimed. */
void bus_unclaimed(Bus *b, uint64_t *ret_reads, uint64_t *ret_writes);
/* Accesses so far to the region at @addr; for tests and tracing. */
uint64_t bus_region_hits(Bus *b, uint64_t addr);
/* Call @fn for each mapped region, in order of their claims, with how often it was reached. The
 * layout lock is held: @fn may print and nothing else. */
typedef void (*BusRegionFn)(void *opaque, const BusRegion *r, uint64_t hits);
void bus_each_region(Bus *b, BusRegionFn fn, void *opaque);

/* Lets a write of exactly @len bytes at @addr signal @fd without leaving the kernel. The region
 * mapped there must do the same when its write handler is called, so a bus without KVM behaves
 * alike. @len 0 takes any width. */
typedef struct BusEventHooks {
    bool (*add)(void *opaque, Bus *b, uint64_t addr, unsigned len, int fd);
    void (*remove)(void *opaque, Bus *b, uint64_t addr, unsigned len, int fd);
    /* Begin and end to gather writes; NULL: none are. Layout lock held. */
    void (*coalesce)(void *opaque, Bus *b, uint64_t addr, uint64_t len, bool on);
    void (*settle)(void *opaque); /* NULL with coalesce NULL */
    void *opaque;
} BusEventHooks;
void bus_set_event_hooks(Bus *b, const BusEventHooks *hooks); /* copied; before devices */
/* Hand gathered writes to their regions. Any thread, no lock held. */
void bus_settle(Bus *b);
/* False where the host cannot: then the write handler does the work. */
bool bus_eventfd_add(Bus *b, uint64_t addr, unsigned len, int fd);
void bus_eventfd_remove(Bus *b, uint64_t addr, unsigned len, int fd);

#endif
