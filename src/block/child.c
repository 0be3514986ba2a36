/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of a format to the nodes below it on behalf of one of its own: a part of the parent's
 * memory, sent to a file or to the base. Those that are done are kept for the next ones, so that
 * a busy disk allocates nothing.
 *
 * Threads: the node's IoThread; blk_children_free() on main, when nothing is in flight.
 */
#include <string.h>

#include "child.h"

#define CHILDREN_KEPT 64u

static void put(BlkChildren *pool, BlkChild *c)
{
    if (c->own_iov)
        g_free(c->iov);
    if (pool->n_free >= CHILDREN_KEPT) {
        g_free(c);
        return;
    }
    c->next_free = pool->free;
    pool->free = c;
    pool->n_free++;
}

static BlkChild *take(BlkChildren *pool)
{
    BlkChild *c = pool->free;

    if (c) {
        pool->free = c->next_free;
        pool->n_free--;
    } else {
        c = g_try_new(BlkChild, 1);
    }
    if (c) {
        memset(&c->req, 0, sizeof c->req);
        c->own_iov = false;
        c->iov = NULL;
    }
    return c;
}

static void child_done(BlkReq *req, int err)
{
    BlkChild *c = req->opaque;
    BlkReq *parent = c->parent;
    BlkChildDone done = c->done;
    BlkChildAnswer a = {.err = err, .op = req->op, .status = req->status,
                        .status_len = req->status_len, .status_offset = req->status_offset,
                        .below = req->node};

    put(c->pool, c);
    done(parent, &a);
}

/* The memory of @parent for [@part->pos, + @part->len). False: no memory. */
static bool slice(BlkChild *c, const BlkReq *parent, const BlkChildPart *part)
{
    if (part->len == parent->len) {
        c->req.iov = parent->iov;
        c->req.niov = parent->niov;
        return true;
    }
    c->own_iov = parent->niov > BLK_CHILD_IOVS;
    c->iov = c->own_iov ? g_try_new(struct iovec, parent->niov) : c->few;
    if (!c->iov) {
        c->own_iov = false;
        return false;
    }
    c->req.iov = c->iov;
    c->req.niov =
        iov_slice(parent->iov, parent->niov, part->pos - parent->offset, part->len, c->iov);
    return true;
}

bool blk_child_start(BlkChildren *pool, BlkReq *parent, const BlkChildPart *part,
                     BlkChildDone done)
{
    BlkChild *c = take(pool);

    if (!c)
        return false;
    c->pool = pool;
    c->parent = parent;
    c->done = done;
    c->req.op = part->op;
    c->req.may_unmap = parent->may_unmap || part->may_unmap;
    c->req.offset = part->offset;
    c->req.len = part->len;
    c->req.done = child_done;
    c->req.opaque = c;
    if ((part->op == BLK_READ || part->op == BLK_WRITE) && !slice(c, parent, part)) {
        put(pool, c);
        return false;
    }
    blk_start(part->below, &c->req);
    return true;
}

void blk_children_free(BlkChildren *pool)
{
    while (pool->free) {
        BlkChild *c = pool->free;
        pool->free = c->next_free;
        g_free(c);
    }
    pool->n_free = 0;
}
