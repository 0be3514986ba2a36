/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BLOCK_CHILD_H
#define LODGE_BLOCK_CHILD_H

/* Requests to the nodes below a format, each for a part of one of its own. */

#include "block_int.h"

#define BLK_CHILD_IOVS 8u

/* What became of a child. */
typedef struct BlkChildAnswer {
    int err;
    BlkOp op;
    int status; /* these of BLK_STATUS, as in BlkReq */
    uint64_t status_len, status_offset;
    const BlkNode *below;
} BlkChildAnswer;

typedef void (*BlkChildDone)(BlkReq *parent, const BlkChildAnswer *answer);

typedef struct BlkChild {
    BlkReq req;
    BlkReq *parent;
    BlkChildDone done;
    struct BlkChildren *pool;
    struct iovec few[BLK_CHILD_IOVS];
    struct iovec *iov; /* few, or owned */
    bool own_iov;
    struct BlkChild *next_free;
} BlkChild;

typedef struct BlkChildren {
    BlkChild *free; /* owned */
    unsigned n_free;
} BlkChildren;

/* [@pos, @pos + @len) of the parent's disk lies at @offset of @below. */
typedef struct BlkChildPart {
    BlkOp op;
    BlkNode *below;
    uint64_t pos, len, offset;
    bool may_unmap; /* even where the parent does not say so */
} BlkChildPart;

/**
 * blk_child_start() - Send a part of @parent to a node below
 * @done: may be called before this returns only where no submit of that node is on the stack
 * Context: the node's IoThread.
 * Return: false: no memory, and done() will not be called.
 */
bool blk_child_start(BlkChildren *pool, BlkReq *parent, const BlkChildPart *part,
                     BlkChildDone done);
void blk_children_free(BlkChildren *pool);

#endif
