/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BLOCKFIX_H
#define LODGE_BLOCKFIX_H

/* A folder of its own, a loop and images, for the tests of the block path. */

#include "lodge/block.h"
#include "lodge/iothread.h"

typedef struct BlockFix {
    char *dir; /* owned; removed with all that is in it */
    LodgeClock *clock;
    IoThread *io;
} BlockFix;

BlockFix *block_fix_new(void);
void block_fix_free(BlockFix *f);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlockFix, block_fix_free)
/* Path of @name in the folder; transfer full. */
char *block_fix_path(BlockFix *f, const char *name);
/* Make a file of @size bytes whose sector i holds block_fix_byte(i, seed); seed 0: zeros. */
char *block_fix_image(BlockFix *f, const char *name, uint64_t size, unsigned seed);
uint8_t block_fix_byte(uint64_t offset, unsigned seed);
/* blk_open(), the image itself without the front of a disk, that must work, or must fail with @code and @text in its message. */
BlkNode *block_fix_open(BlockFix *f, const BlkOptions *o);
void block_fix_refused(BlockFix *f, const BlkOptions *o, int code, const char *text);
/* How many entries the folder has. */
unsigned block_fix_count(BlockFix *f);
/* Whether @program can be run; else the test is skipped with its name. */
bool block_fix_need(const char *program, const char *package);

#endif
