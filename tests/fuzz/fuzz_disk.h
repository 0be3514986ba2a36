/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FUZZ_DISK_H
#define LODGE_FUZZ_DISK_H

/*
 * Stands for the block layer in a fuzz entry of a disk controller: a BlkNode whose contents are
 * its offsets, whose completions come when the entry says, and that keeps the contract's checks.
 */

#include "lodge/block.h"

/* @size: bytes, a multiple of 512; what is written is forgotten. Transfer full. */
BlkNode *fuzz_disk_new(const char *name, uint64_t size, bool read_only);
void fuzz_disk_free(BlkNode *n); /* nothing in flight */
/* Complete the oldest request with @err (0 or an errno); false: there is none. */
bool fuzz_disk_complete(BlkNode *n, int err);
/* Complete all, and what those start. */
void fuzz_disk_settle(BlkNode *n);

#endif
