/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How fast an image is: requests of one size kept under way from its IoThread, as a disk's queue
 * would. What is written is zeros: the contents are lost.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/clock.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

#include "image_ops.h"

typedef struct Bench Bench;

typedef struct Lane {
    Bench *bench;
    BlkReq req;
    struct iovec iov;
    uint8_t *buf; /* owned */
} Lane;

struct Bench {
    BlkNode *n;
    const BenchArgs *args;
    Lane *lanes;
    /* IoThread only, until finished */
    uint64_t started, done, since_flush, seed;
    unsigned busy;
    int err;
    GMutex mutex;
    GCond cond;
    bool finished; /* guarded by mutex */
};

static void lane_done(BlkReq *req, int err);

/* xorshift64: the same order each time. */
static uint64_t next_random(Bench *b)
{
    b->seed ^= b->seed << 13;
    b->seed ^= b->seed >> 7;
    b->seed ^= b->seed << 17;
    return b->seed;
}

/* Start the next request on @l, unless all are. */
static bool lane_start(Bench *b, Lane *l)
{
    const BenchArgs *a = b->args;
    uint64_t blocks = b->n->limits.size / a->bytes;

    if (b->err || b->started >= a->count)
        return false;
    l->req = (BlkReq){.op = a->op, .len = a->bytes, .iov = &l->iov, .niov = 1, .done = lane_done,
                      .opaque = l};
    if (a->flush_every && b->since_flush >= a->flush_every) {
        b->since_flush = 0;
        l->req = (BlkReq){.op = BLK_FLUSH, .done = lane_done, .opaque = l};
    } else {
        l->req.offset = (a->random ? next_random(b) % blocks : b->started % blocks) * a->bytes;
        b->started++;
        b->since_flush++;
    }
    b->busy++;
    blk_submit(b->n, &l->req);
    return true;
}

static void finish_if_idle(Bench *b)
{
    if (b->busy)
        return;
    g_mutex_lock(&b->mutex);
    b->finished = true;
    g_cond_signal(&b->cond);
    g_mutex_unlock(&b->mutex);
}

static void lane_done(BlkReq *req, int err)
{
    Lane *l = req->opaque;
    Bench *b = l->bench;

    b->busy--;
    if (err && !b->err)
        b->err = err;
    if (!err && req->op != BLK_FLUSH)
        b->done++;
    if (!lane_start(b, l))
        finish_if_idle(b);
}

static void bench_start(void *opaque)
{
    Bench *b = opaque;

    for (unsigned i = 0; i < b->args->depth; i++)
        lane_start(b, &b->lanes[i]);
    finish_if_idle(b);
}

bool image_bench(BlkNode *n, const BenchArgs *a, BenchResult *ret_result, GError **error)
{
    Bench b = {.n = n, .args = a, .seed = 0x9e3779b97f4a7c15u};

    if (!a->bytes || a->bytes % n->limits.align || a->bytes > n->limits.size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "requests of %u bytes: must be a multiple of %u, at most the disk's size",
                          a->bytes, n->limits.align);
    if (!a->depth || a->depth > BENCH_DEPTH_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "a depth of %u: is not in 1..%u", a->depth,
                          BENCH_DEPTH_MAX);
    g_mutex_init(&b.mutex);
    g_cond_init(&b.cond);
    b.lanes = g_new0(Lane, a->depth);
    for (unsigned i = 0; i < a->depth && !b.err; i++) {
        void *mem = NULL;
        if (posix_memalign(&mem, 4096, a->bytes) != 0)
            b.err = ENOMEM;
        else
            memset(mem, 0, a->bytes);
        b.lanes[i] = (Lane){.bench = &b, .buf = mem, .iov = {mem, a->bytes}};
    }
    int64_t from = clock_host_ns();
    if (!b.err) {
        io_thread_post(n->io, bench_start, &b);
        g_mutex_lock(&b.mutex);
        while (!b.finished)
            g_cond_wait(&b.cond, &b.mutex);
        g_mutex_unlock(&b.mutex);
    }
    *ret_result = (BenchResult){b.done, b.done * a->bytes, clock_host_ns() - from};
    for (unsigned i = 0; i < a->depth; i++)
        free(b.lanes[i].buf);
    g_free(b.lanes);
    g_mutex_clear(&b.mutex);
    g_cond_clear(&b.cond);
    return !b.err || lodge_fail_errno(error, b.err, "'%s': cannot %s", blk_file_under(n)->path,
                                      a->op == BLK_READ ? "read" : "write");
}
