/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sides: a raw disk as seen from another loop than its own.
 *
 * A host file takes requests from any number of threads. So a raw disk that nobody limits or
 * watches can have, for each further loop, a node of its own over a second descriptor of the same
 * open file, with that loop's engine: requests from there need neither the disk's loop nor a lock.
 * Formats keep tables, and policies count, so they have no sides: what comes from other loops goes
 * through the node's inbox (graph.c).
 *
 * The disk owns its sides. It drains and closes them with itself, adds up their statistics, and
 * takes over what a side cannot do: writes to the first and the last sector, which fmt_raw.c may
 * guard, and after blk_sides_detach() everything. A flush on any of them covers what completed on
 * all, as they share the file.
 *
 * Invariants: (1) limits of a side are those of the disk whenever it is not drained. (2) Once
 * detached, a side starts nothing: what reaches it goes to the disk's inbox, also what was parked.
 *
 * Threads: making, draining and freeing on the main thread; the rest as any node.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "lodge/iothread.h"

#include "block_int.h"

bool blk_side_passes_on(const BlkNode *side, const BlkReq *req)
{
    if (side->detached)
        return true;
    return req->op == BLK_WRITE &&
           (req->offset == 0 || req->offset + req->len == side->limits.size);
}

/* The image of the disk @n whose requests change nothing but its file, while nobody wants to know
 * of them; NULL: its requests do more. */
static const BlkNode *plain_image(const BlkNode *n)
{
    const BlkNode *image = n->top ? n->top : n;
    bool plain = image->drv == &blk_driver_raw && !n->policy && !n->side_of && !n->dirty &&
                 !((const BlkFile *)image->file)->tap && !((const BlkFile *)image->file)->remote;

    return plain ? image : NULL;
}

BlkNode *blk_side(BlkNode *n, IoThread *io, GError **error)
{
    const BlkNode *image = plain_image(n);

    if (io == n->io || !image)
        return n;
    for (unsigned i = 0; n->sides && i < n->sides->len; i++) {
        BlkNode *s = g_ptr_array_index(n->sides, i);
        if (s->io == io)
            return s;
    }
    static const BlkAio same[] = {BLK_AIO_THREADS, BLK_AIO_URING, BLK_AIO_LIBAIO};
    BlkEngine *e = n->engine;
    g_autoptr(BlkEngine) engine = blk_engine_new(io, same[e->uring ? 1 : e->aio ? 2 : 0], error);
    if (engine)
        engine->instant_max = e->instant_max;
    BlkFile *file = engine ? blk_file_again((const BlkFile *)image->file, io, engine, error) : NULL;
    if (!file)
        return NULL;
    BlkNode *s = blk_node_new(&blk_driver_raw, n->name, io, engine);
    s->file = &file->node;
    s->side_of = n;
    s->read_only = n->read_only;
    blk_node_ready(s);
    s->limits = n->limits;
    if (!n->sides)
        n->sides = g_ptr_array_new();
    g_ptr_array_add(n->sides, s);
    return s;
}

static void detach_here(void *opaque)
{
    BlkNode *s = opaque;

    s->detached = true;
}

void blk_sides_detach(BlkNode *n)
{
    for (unsigned i = 0; n->sides && i < n->sides->len; i++) {
        BlkNode *s = g_ptr_array_index(n->sides, i);
        io_thread_call(s->io, detach_here, s);
    }
}

static void take_limits(void *opaque)
{
    BlkNode *s = opaque;

    s->limits = s->side_of->limits;
}

void blk_sides_drain(BlkNode *n, bool on)
{
    for (unsigned i = 0; n->sides && i < n->sides->len; i++) {
        BlkNode *s = g_ptr_array_index(n->sides, i);
        if (on) {
            blk_drain_begin(s);
        } else {
            io_thread_call(s->io, take_limits, s);
            blk_drain_end(s);
        }
    }
}

void blk_sides_free(BlkNode *n)
{
    for (unsigned i = 0; n->sides && i < n->sides->len; i++) {
        BlkNode *s = g_ptr_array_index(n->sides, i);
        blk_close(s);
    }
    g_clear_pointer(&n->sides, g_ptr_array_unref);
}
