/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_OPEN_INT_H
#define LODGE_OPEN_INT_H

/* What opening (open.c) and making (make.c) of images share. All of it on the main thread. */

#include "block_int.h"

typedef struct BlkSeen {
    uint64_t dev, ino;
} BlkSeen;

/* One blk_open() under way. */
typedef struct BlkOpener {
    const char *name; /* of the nodes */
    const BlkOptions *o;
    unsigned flags; /* BLK_OPEN_* */
    IoThread *io;
    BlkEngine *engine;
    GPtrArray *making;           /* borrowed; BlkNewFile that have no name yet, or NULL */
    bool blamed;                 /* the error says which image named the file at fault */
    unsigned depth;              /* of the image that is being opened; 0: the top */
    BlkSeen seen[BLK_CHAIN_MAX]; /* files of the chain down to depth */
} BlkOpener;

typedef struct OpenImage {
    const BlkDriver *drv;
    bool read_only, guessed;
    BlkCache cache;
    BlkNode *base; /* taken over in every case: the base to use; NULL: the recorded one */
    bool keep_base; /* on failure the base stays the caller's */
} OpenImage;

enum { ROLE_READ = 1 << 0, ROLE_BASE = 1 << 1, ROLE_EMPTY_OK = 1 << 2 };

/* @fd: taken over, or -1. */
BlkFile *opener_file(BlkOpener *op, const char *path, unsigned role, int fd, GError **error);
/* @f is taken over in every case. */
BlkNode *opener_image(BlkOpener *op, BlkFile *f, const OpenImage *im, GError **error);
/* The image below the present depth, in the format @said, or NULL: raw. */
BlkNode *opener_base(BlkOpener *op, const char *path, const char *said, GError **error);
BlkNode *opener_existing(BlkOpener *op, bool read_only, GError **error);

/* make.c */

/* The overlay that @op's file and base ask for. NULL with *ret_exists: it has come to be meanwhile,
 * and no error is set. */
BlkNode *opener_new_overlay(BlkOpener *op, bool *ret_exists, GError **error);
/* The overlay @op->o->file in the format given there, over the open @base, which it takes over only
 * if all goes well; it gets its name by blk_make_finish(). */
BlkNode *opener_live_overlay(BlkOpener *op, BlkNode *base, GPtrArray **ret_files, GError **error);
/* A disk whose writes are forgotten: an overlay without a name. @lower is taken over. */
BlkNode *opener_snapshot(BlkOpener *op, BlkNode *lower, GError **error);

#endif
