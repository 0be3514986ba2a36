/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The data path of images with one table of blocks: VHD, VDI, VMDK.
 *
 * A request is split into runs that have one source: the file, the base, zeros. Runs whose table
 * entry is in memory go down at once from the IoThread, at most BLK_CHILDREN under way. What needs
 * a table from the disk or a new block goes to the node's worker, one piece at a time:
 *
 *   new block   takes the end of the file; gets what the base has around the write (without sector
 *               bits) and the data; then its entry is set in memory
 *   sector bits set after the data is in the file (VHD, where a block may be part ours, part below)
 *   flush       settle(): what lies at the file's end or counts blocks; then meta_cache.c: a sync
 *               of the data, bitmaps, a sync, tables, a sync
 *
 * A block's place is never changed nor used again while the image is open, so a request that goes
 * to the file needs no lock against the worker. A process that is killed leaves at worst blocks
 * that no entry speaks of; the next new block takes their place, cleared.
 *
 * DISCARD is as ZERO: sectors that are here become a hole, those of the base are hidden.
 *
 * Threads: submit and completions on the IoThread, the rest on the worker, or on main at
 * rest: block_map_store.c, block_map_table.c.
 *
 * Invariants: (1) data of a block is in the file before its entry or bit is set in memory, and on
 * the disk before it is set there. (2) An entry counts only if its block lies wholly between
 * lowest and limit. (3) end, limit and eof change under the lock of meta. (4) A request is either
 * with the worker or stepped by the IoThread, never both.
 */
#include <errno.h>
#include <string.h>

#include "lodge/num.h"

#include "block_map_int.h"

static void step(BlockMap *m, BlkReq *req);
static void work_done(BlkNode *n, BlkWork *w, int err)
{
    BlockMap *m = (BlockMap *)n;
    BlkReq *req = req_of(w);
    MapState *s = state_of(req);

    s->working = false;
    if (is_write(req) && !s->flushing && !err && s->answer == ANSWER_NONE)
        m->was_touched = true;
    if (err && !s->err)
        s->err = (int16_t)err;
    if ((req->op == BLK_FLUSH || s->flushing) && !s->outstanding) {
        blk_complete(req, s->err);
        return;
    }
    step(m, req);
}

static void to_worker(BlockMap *m, BlkReq *req)
{
    MapState *s = state_of(req);

    s->working = true; /* keeps (4) */
    s->answer = ANSWER_NONE;
    s->work.run = block_map_work;
    s->work.done = work_done;
    blk_work(&m->node, &s->work);
}

static void flush_step(BlockMap *m, BlkReq *req);

static void child_done(BlkReq *parent, const BlkChildAnswer *a)
{
    BlockMap *m = (BlockMap *)parent->node;
    MapState *s = state_of(parent);

    s->outstanding--;
    if (a->err && !s->err)
        s->err = (int16_t)a->err;
    if (a->op == BLK_STATUS && !a->err) {
        /* The file knows of holes in what is ours; where it lies is told for the file itself. */
        parent->status = a->status == BLK_ST_DATA ? BLK_ST_DATA : BLK_ST_ZERO;
        parent->status_len = MIN(a->status_len, s->run_len);
        parent->status_offset = a->below == m->node.file ? a->status_offset : BLK_NO_OFFSET;
    }
    if (s->working)
        return;
    if (parent->op == BLK_FLUSH || s->flushing)
        flush_step(m, parent);
    else
        step(m, parent);
}

static void send(BlockMap *m, BlkReq *req, BlkOp op, BlkNode *below, uint64_t offset, uint64_t len)
{
    MapState *s = state_of(req);
    BlkChildPart part = {.op = op, .below = below, .pos = s->pos, .len = len, .offset = offset};

    s->outstanding++;
    if (!blk_child_start(&m->children, req, &part, child_done)) {
        s->outstanding--;
        s->err = ENOMEM;
    }
}

/* Files of the image, one by one; those of a fixed one may be many. */
static void flush_step(BlockMap *m, BlkReq *req)
{
    MapState *s = state_of(req);

    if (!s->flushing)
        s->pos = 0;
    s->flushing = true;
    if (m->node.read_only) {
        blk_complete(req, s->err);
        return;
    }
    if (m->meta && (atomic_load(&m->moved) || blk_meta_dirty(m->meta))) {
        to_worker(m, req);
        return;
    }
    /* pos 0 is the image's own file, then come the extents in others. */
    while (!s->err && s->outstanding < BLK_CHILDREN && s->pos <= m->n_plain) {
        BlkFile *f = s->pos ? m->plain[s->pos - 1].file : block_map_file(m);
        if (f && (s->pos == 0 || f != block_map_file(m)))
            send(m, req, BLK_FLUSH, &f->node, 0, 0);
        s->pos++;
    }
    if (!s->outstanding)
        blk_complete(req, s->err);
}

/* Send on, or do, what @run says of s->pos. */
static void take_run(BlockMap *m, BlkReq *req, const Run *run)
{
    MapState *s = state_of(req);
    uint64_t part = 0;

    if (run->kind == BLOCK_DATA) {
        send(m, req, req->op, &run->file->node, run->offset, run->len);
    } else if (req->op == BLK_WRITE || (run->kind == BLOCK_BELOW && base_missing(m))) {
        s->err = EIO; /* an extent that is zeros for ever */
    } else if (req->op == BLK_READ) {
        if (run->kind == BLOCK_BELOW)
            part = blk_base_part(&m->node, s->pos, run->len);
        if (part)
            send(m, req, BLK_READ, m->node.base, s->pos, part);
        iov_zero(req->iov, req->niov, s->pos - req->offset + part, run->len - part);
    }
    s->pos += run->len;
}

/* What holds s->pos, from the worker's answer or from memory. False: the worker has to look. */
static bool next_run(BlockMap *m, BlkReq *req, Run *run)
{
    MapState *s = state_of(req);
    bool answered = s->answer == ANSWER_RUN;

    if (answered)
        *run = (Run){.kind = s->run_kind, .file = block_map_file(m), .offset = s->run_offset,
                     .len = s->run_len};
    else
        block_map_find(m, s->pos, req->offset + req->len - s->pos, run);
    s->answer = ANSWER_NONE;
    if (run->kind == BLOCK_DATA)
        return req->op != BLK_READ || !m->unpack;
    if (run->kind == BLOCK_MISS || run->kind == BLOCK_BAD)
        return false;
    return !is_write(req) || m->plain ||
           (req->op != BLK_WRITE && is_zero_already(m, run, s->pos));
}

static void status_step(BlockMap *m, BlkReq *req)
{
    MapState *s = state_of(req);
    Run run;

    if (s->err || s->pos != req->offset) {
        blk_complete(req, s->err);
        return;
    }
    if (!next_run(m, req, &run)) {
        to_worker(m, req);
        return;
    }
    s->pos = req->offset + req->len; /* once is enough */
    s->run_len = MIN(run.len, RUN_MAX);
    if (run.kind == BLOCK_DATA && m->plain) {
        BlkChildPart part = {.op = BLK_STATUS, .below = &run.file->node, .pos = req->offset,
                             .len = s->run_len, .offset = run.offset};
        s->outstanding++;
        if (blk_child_start(&m->children, req, &part, child_done))
            return;
        s->outstanding--;
        s->err = ENOMEM;
    }
    req->status_len = s->run_len;
    req->status = run.kind == BLOCK_DATA   ? BLK_ST_DATA
                  : run.kind == BLOCK_ZERO ? BLK_ST_ZERO
                                           : BLK_ST_BELOW;
    req->status_offset = run.kind == BLOCK_DATA && !m->unpack ? run.offset : BLK_NO_OFFSET;
    blk_complete(req, s->err);
}

static void step(BlockMap *m, BlkReq *req)
{
    MapState *s = state_of(req);
    uint64_t end = req->offset + req->len;

    if (req->op == BLK_STATUS) {
        status_step(m, req);
        return;
    }
    if (s->answer == ANSWER_STORED && !s->err)
        s->pos += s->run_len;
    if (s->answer == ANSWER_STORED)
        s->answer = ANSWER_NONE;
    while (!s->err && s->pos < end && s->outstanding < BLK_CHILDREN) {
        Run run;
        if ((is_write(req) && !m->was_touched) || !next_run(m, req, &run)) {
            to_worker(m, req);
            return;
        }
        take_run(m, req, &run);
    }
    if (s->outstanding)
        return;
    if (!s->err && is_write(req) && req->fua)
        flush_step(m, req);
    else
        blk_complete(req, s->err);
}

/* The common case: all of @req is in one block of our file, which may be used as it is. It goes
 * there; false: it takes more. */
static bool pass(BlockMap *m, BlkReq *req)
{
    bool write = req->op == BLK_WRITE;
    Run run;

    if ((!write && req->op != BLK_READ) || !req->len || req->fua ||
        (write ? !m->was_touched : m->unpack != NULL))
        return false;
    block_map_find(m, req->offset, req->len, &run);
    if (run.kind != BLOCK_DATA || run.len != req->len || run.file != block_map_file(m))
        return false;
    blk_pass(&m->node, req, run.offset);
    return true;
}

void block_map_submit(BlkNode *n, BlkReq *req)
{
    BlockMap *m = (BlockMap *)n;
    MapState *s = state_of(req);

    if (pass(m, req))
        return;
    memset(req->scratch, 0, sizeof req->scratch);
    s->pos = req->offset;
    if (req->op == BLK_FLUSH)
        flush_step(m, req);
    else
        step(m, req);
}

void block_map_limits(BlkNode *n, BlkLimits *l)
{
    BlockMap *m = (BlockMap *)n;

    l->size = align_up(m->size, BLK_SECTOR);
    l->discard_max = n->read_only ? 0 : BLK_DISCARD_MAX;
    l->align = BLK_SECTOR;
    l->block = 4096;
    l->max_iov = BLK_MAX_IOV;
    l->read_only = n->read_only;
}
