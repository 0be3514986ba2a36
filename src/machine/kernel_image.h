/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_KERNEL_IMAGE_H
#define LODGE_KERNEL_IMAGE_H

/* An unpacked Linux kernel: what goes where in memory, and the words to change when it moves. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/mem.h"

#include "unpack.h"

enum {
    KERNEL_MAX_EXTENTS = 512,
    KERNEL_RELOC_LISTS = 3, /* 32-bit words, 32-bit inverse, 64-bit */
};

/* A run of bytes that are not all zero. */
typedef struct KernelExtent {
    uint64_t to;   /* offset from the kernel's base in guest memory */
    uint64_t from; /* offset into the store */
    uint64_t len;
} KernelExtent;

typedef struct KernelImage {
    UnpackBuf store; /* the bytes; empty when they are in @fd */
    int fd;          /* owned; -1: bytes are in @store */
    uint64_t fd_sum; /* of the bytes in @fd, see kernel_sum() */
    uint64_t span;   /* bytes of memory from the base to the end of the last segment */
    uint64_t link_base; /* physical address that it was linked for */
    uint64_t entry;     /* offset of startup_64 from the base */
    bool has_relocs;
    unsigned n_extents;
    KernelExtent extent[KERNEL_MAX_EXTENTS]; /* ascending, not overlapping, inside @span */
    /* Lists in the store: 32-bit words, each the low half of a kernel address. */
    struct {
        uint64_t from;
        uint64_t count;
    } reloc[KERNEL_RELOC_LISTS];
} KernelImage;

enum { KERNEL_RELOC_32, KERNEL_RELOC_INVERSE_32, KERNEL_RELOC_64 };

void kernel_image_clear(KernelImage *k);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(KernelImage, kernel_image_clear)

/**
 * kernel_image_parse() - Understand an unpacked payload
 * @buf:       ELF file and, behind it, relocation lists; ownership goes to @ret on success
 * @link_base: address that the setup header says it was linked for (pref_address)
 * @ret:       caller clears
 * Context: any thread.
 * Return:  false with LODGE_ERROR_UNSUPPORTED (another shape than we know: use the bzImage's own
 *          entry) or LODGE_ERROR_IMAGE (values outside the file).
 */
bool kernel_image_parse(UnpackBuf *buf, uint64_t link_base, KernelImage *ret, GError **error);

/**
 * kernel_image_load() - Put a kernel at @base and move its addresses
 * @base:       guest address of its first byte; [@base, @base + span) is memory in one block
 * @virt_delta: bytes that its virtual addresses move by, below 1 GiB; 0 unless has_relocs
 * @clean:      the memory holds zeros; else gaps between extents are zeroed
 * Context: any thread that may write guest memory.
 * Return:  false with LODGE_ERROR_IMAGE (a relocation outside the kernel, or a damaged cache file),
 *          LODGE_ERROR_HOST (cannot be read).
 */
bool kernel_image_load(const KernelImage *k, MemMap *mem, gpa_t base, uint64_t virt_delta,
                       bool clean, GError **error);

/* A fast checksum against damage, not against malice. The result depends on how the bytes are cut
 * into pieces: writer and reader cut alike. */
typedef struct KernelSum {
    uint64_t a[4], b[4];
} KernelSum;
#define KERNEL_SUM_INIT ((KernelSum){{1, 2, 3, 4}, {0}})
void kernel_sum(KernelSum *s, const void *data, size_t len);
uint64_t kernel_sum_end(const KernelSum *s);

#endif
