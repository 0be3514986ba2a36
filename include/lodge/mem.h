/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MEM_H
#define LODGE_MEM_H

/*
 * Guest memory: the only way from a guest address to bytes. No call takes an address without a
 * length. Readers take no lock.
 *
 * Blocks live until the map is freed, or until a block is removed with every device quiesced and
 * every vCPU parked, so a pin needs no reference of its own.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

typedef uint64_t gpa_t; /* guest physical address */

typedef struct MemMap MemMap;
typedef struct MemBlock MemBlock;

enum {
    MEM_READ_ONLY = 1 << 0, /* ROM: the guest's writes and mem_write() are refused */
    MEM_SHARED = 1 << 1,    /* a memfd that other processes can map */
    MEM_HUGE = 1 << 2,      /* explicit huge pages (hugetlb) */
    MEM_THP = 1 << 3,       /* advise transparent huge pages */
    MEM_PREFAULT = 1 << 4,  /* populate at once */
    MEM_DIRTY_LOG = 1 << 5, /* writes are noted for mem_dirty_fetch(): frame buffers */
};

/**
 * mem_block_new() - Allocate a block of guest memory, zeroed
 * @name:  copied; for messages and snapshots
 * @len:   bytes, a multiple of 4096, > 0
 * @flags: MEM_*
 * Return: transfer full, or NULL: LODGE_ERROR_HOST (the host has not that much memory or huge
 *         pages), LODGE_ERROR_LIMIT (does not fit an address space).
 */
MemBlock *mem_block_new(const char *name, uint64_t len, unsigned flags, GError **error);
void mem_block_free(MemBlock *b); /* must not be in a map; NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MemBlock, mem_block_free)
void *mem_block_host(MemBlock *b); /* start of the block in this process */
uint64_t mem_block_len(const MemBlock *b);
const char *mem_block_name(const MemBlock *b);
bool mem_block_logs_dirty(const MemBlock *b);

/* Told of each change of the layout, the layout lock held: the KVM glue. */
typedef struct MemListener {
    bool (*add)(void *opaque, MemBlock *b, gpa_t at, uint64_t offset, uint64_t len, bool read_only,
                GError **error);
    void (*remove)(void *opaque, MemBlock *b, gpa_t at, uint64_t len);
    /* Add to @bitmap (laid out as mem_dirty_fetch() has it) the pages of @b, shown at @at from
     * @offset on, that the guest wrote; NULL: nobody else writes. */
    void (*dirty)(void *opaque, MemBlock *b, gpa_t at, uint64_t offset, uint64_t len,
                  uint8_t *bitmap);
    void *opaque;
} MemListener;

MemMap *mem_map_new(void);
void mem_map_free(MemMap *m); /* frees the blocks too; NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MemMap, mem_map_free)
/* @l is copied; it hears of what is already there at once. One listener. */
bool mem_map_set_listener(MemMap *m, const MemListener *l, GError **error);
/**
 * mem_map_add() - Show [@offset, @offset + @len) of @b to the guest at @at
 * @b: the map takes ownership at its first add (also on a second mapping of the same block)
 * Return: false with LODGE_ERROR_CONFIG on overlap or misalignment, or the listener's error;
 *         ownership then stays with the caller if it was not the map's before.
 */
bool mem_map_add(MemMap *m, MemBlock *b, gpa_t at, uint64_t offset, uint64_t len, GError **error);

/**
 * mem_map_place() - Show [@offset, @offset + @len) of @b at @at in place of what is there
 *
 * For what the guest moves while it runs: frame buffers and ROMs behind BARs, shadowed ROM. What is
 * there must be exactly one earlier range of that address and length, or nothing.
 * @b:         already owned by the map (see mem_map_own()); NULL: show nothing
 * @read_only: the guest's writes go to the MMIO bus instead
 * Context: any thread, device locks may be held.
 * Return:  false, and nothing changed, where it overlaps something else, is misaligned or wraps,
 *          the map is full, or the host refused.
 */
bool mem_map_place(MemMap *m, MemBlock *b, gpa_t at, uint64_t offset, uint64_t len, bool read_only);
/* The map takes ownership of @b, not shown yet. Main thread. */
void mem_map_own(MemMap *m, MemBlock *b);
/* Take @b, which is shown nowhere, out of the map and free it. Main thread, vCPUs parked. */
void mem_map_disown(MemMap *m, MemBlock *b);
/* The block of that name; NULL: none. Main thread. */
MemBlock *mem_map_block(MemMap *m, const char *name);
/**
 * mem_dirty_fetch() - Which 4 KiB pages of @b were written since the last call
 * @b:          has MEM_DIRTY_LOG
 * @ret_bitmap: (len / 4096 + 7) / 8 bytes rounded up to 8; bit n % 8 of byte n / 8 is page n
 * Context: any thread, one at a time for a block; device locks may be held.
 * Return:  whether any bit is set.
 */
bool mem_dirty_fetch(MemMap *m, MemBlock *b, uint8_t *ret_bitmap);

/* Walk the guest-visible ranges in address order; false when @i is past the last. */
bool mem_map_range(MemMap *m, unsigned i, gpa_t *ret_at, uint64_t *ret_len, bool *ret_read_only);

/**
 * mem_read() - Copy @len bytes of guest memory at @from to @to
 * Context: any thread. Return: false if the range is not wholly memory; *to is then zeroed.
 */
bool mem_read(MemMap *m, gpa_t from, void *to, size_t len);
/* All or nothing; false if the range is not wholly writable memory. Marks pages dirty. */
bool mem_write(MemMap *m, gpa_t to, const void *from, size_t len);
/* For loaders: as mem_write(), and ROM may be written. */
bool mem_load(MemMap *m, gpa_t to, const void *from, size_t len);
/* Fill with zeros; as mem_write(). */
bool mem_zero(MemMap *m, gpa_t to, uint64_t len);

/**
 * mem_discard() - Give the host back what lies behind [@at, @at + @len), as the guest asked
 *
 * Only whole pages of the host (mem_host_page()) in writable memory that no device shows; up to the
 * first hole. The guest finds zeros there, and takes a page anew by touching it.
 * Context: any thread; device locks may be held. May take a microsecond a page.
 * Return:  bytes that went back; less than @len also where the host cannot.
 */
uint64_t mem_discard(MemMap *m, gpa_t at, uint64_t len);
/* Size of the host's pages behind @at, as mem_discard() counts them; 0: none of its business. */
uint32_t mem_host_page(MemMap *m, gpa_t at);

/* A window onto guest memory: bytes that the guest changes under our eyes. Copy, then check. */
typedef struct MemPin {
    void *host; /* NULL: empty */
    size_t len; /* bytes */
    gpa_t gpa;
    MemBlock *block; /* borrowed from the map */
    bool write;
} MemPin;

/**
 * mem_pin() - Find @len bytes at @at in one block
 * @len: > 0
 * Context: any thread; no lock, no atomic read-modify-write.
 * Return:  false (and an empty pin) unless the whole range lies in one block and, for @write, is
 *          writable.
 */
bool mem_pin(MemMap *m, gpa_t at, size_t len, bool write, MemPin *ret_pin);
/* Marks dirty what was pinned for writing. An empty pin is fine. */
void mem_unpin(MemPin *pin);
/* Like mem_pin(), but takes what is contiguous from @at, at most @len: returns 0 for none. */
size_t mem_pin_some(MemMap *m, gpa_t at, size_t len, bool write, MemPin *ret_pin);

#endif
