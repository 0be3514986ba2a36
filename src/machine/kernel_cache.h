/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_KERNEL_CACHE_H
#define LODGE_KERNEL_CACHE_H

/* Unpacked kernels kept in a folder of the user's. A cache: every failure is a miss. */

#include <stdbool.h>
#include <stdint.h>

#include "kernel_image.h"

#define KERNEL_CACHE_MAX_BYTES ((uint64_t)512 << 20) /* of all entries together */
enum { KERNEL_KEY_HEX = 64 };

typedef struct KernelKey {
    char hex[KERNEL_KEY_HEX + 1]; /* name of the entry */
    bool settled; /* the file has not just been written: an entry made now cannot be stale */
} KernelKey;

/* Identify the bzImage open at @fd without reading all of it; false: it cannot be examined. */
bool kernel_cache_key(int fd, KernelKey *ret_key);
/**
 * kernel_cache_open() - Look for an entry
 * @ret: caller clears; its bytes stay in the file, whose checksum kernel_image_load() verifies
 * Return: false: no usable entry. A damaged one is removed.
 */
bool kernel_cache_open(const char *dir, const KernelKey *key, KernelImage *ret);
/* Write an entry from an image whose bytes are in memory; drops the least recently used ones over
 * @max_bytes. Leaves nothing behind when it fails. Context: any thread. Return: whether stored. */
bool kernel_cache_store(const char *dir, const KernelKey *key, const KernelImage *k,
                        uint64_t max_bytes);
/* Remove an entry that proved damaged. */
void kernel_cache_forget(const char *dir, const KernelKey *key);

#endif
