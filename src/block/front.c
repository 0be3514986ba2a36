/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The front of a disk: what a device holds from its start to its end, while images are put on top
 * and taken away below it (live.c, live_commit.c). Limits of requests, what becomes of errors,
 * statistics and drain are the front's; it passes each request to the image on top as it is, so it
 * costs a call and nothing else.
 *
 * Its limits are those that the device was told: of number of pieces and of alignment it promises
 * what every image format keeps.
 *
 * Threads: as every node; the image on top is changed on main, with the front drained.
 */
#include "lodge/iothread.h"

#include "live.h"

static void front_limits(BlkNode *n, BlkLimits *l)
{
    *l = n->top->limits;
    l->max_iov = MIN(l->max_iov, BLK_MAX_IOV - 2);
}

static void front_submit(BlkNode *n, BlkReq *req)
{
    req->front = n;
    blk_start(n->top, req);
}

static void front_close(BlkNode *n)
{
    g_free(((BlkFront *)n)->holder);
}

static const BlkDriver blk_driver_front = {
    .name = "front",
    .flags = BLK_DRV_PROTOCOL,
    .instance_size = sizeof(BlkFront),
    .limits = front_limits,
    .submit = front_submit,
    .close = front_close,
};

BlkNode *blk_front_new(BlkNode *top, const BlkOptions *o)
{
    BlkNode *n = blk_node_new(&blk_driver_front, top->name, top->io, top->engine);
    BlkFront *f = (BlkFront *)n;

    n->top = top;
    n->read_only = top->read_only;
    f->cache = o->cache;
    f->meta_bytes = o->metadata_cache;
    f->nameless = o->snapshot;
    f->detect_zeroes = o->detect_zeroes;
    f->discard_ignore = o->discard_ignore;
    f->holder = g_strdup(o->holder);
    f->tap = o->tap;
    blk_engine_for_guest(n->engine);
    blk_node_ready(n);
    return n;
}

BlkFront *blk_front(BlkNode *n)
{
    return n->drv == &blk_driver_front ? (BlkFront *)n : NULL;
}

static void change_top(void *opaque)
{
    BlkNode **pair = opaque;

    pair[0]->top = pair[1];
    /* What other threads compare requests with: no field gets a value that is worse in between. */
    if (pair[0]->limits.size != pair[1]->limits.size)
        pair[0]->limits.size = pair[1]->limits.size;
}

void blk_front_set_top(BlkFront *f, BlkNode *top)
{
    BlkNode *pair[] = {&f->node, top};

    io_thread_call(f->node.io, change_top, pair);
}

static void change_dirty(void *opaque)
{
    void **pair = opaque;

    ((BlkNode *)pair[0])->dirty = pair[1];
}

void blk_front_set_dirty(BlkFront *f, BlkDirty *d)
{
    void *pair[] = {&f->node, d};

    io_thread_call(f->node.io, change_dirty, pair);
}

void blk_front_end(BlkNode *n)
{
    BlkFront *f = blk_front(n);

    if (f && f->job)
        blk_job_abandon(f->job);
}
