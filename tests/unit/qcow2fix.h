/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_QCOW2FIX_H
#define LODGE_QCOW2FIX_H

/* A qcow2 disk beside a plain buffer of the same bytes, scribbled on together. */

#include "lodge/block.h"

#include "blockfix.h"

typedef struct Twin {
    BlockFix *f; /* owned */
    char *path;  /* owned */
    BlkNode *n;  /* owned */
    uint8_t *want; /* owned; what the disk reads */
    uint8_t *buf;  /* owned; of the same size */
    uint64_t size;
    GRand *rand;
} Twin;

/* g_test_init(), in a folder that is quick. */
void twin_init(int *argc, char ***argv);
/* @options: "key=value,..." of creation, or NULL; @base: an image of block_fix_image(), or NULL. */
Twin *twin_new(uint64_t size, const char *options, const char *base, unsigned base_seed);
/* "key=value,..." as a table; transfer full. */
GHashTable *twin_options(const char *options);
void twin_free(Twin *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Twin, twin_free)
void twin_reopen(Twin *t);
/* @steps random writes, discards, zeroes, flushes and reads, most of them at most @most bytes. */
void twin_scribble(Twin *t, unsigned steps, uint32_t most);
void twin_write(Twin *t, uint64_t offset, uint64_t len, uint8_t v);
/* The same disk by us, and by qemu-img; its check must find nothing. */
void twin_compare(Twin *t);
void twin_qemu_check(Twin *t);
/* What our own check finds; @repair: mends. */
void twin_own_check(Twin *t, bool repair, uint64_t errors, uint64_t leaks);
/* Run a program in the folder, with ' ' between arguments; its status. */
int twin_run(BlockFix *f, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

#endif
