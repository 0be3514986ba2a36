/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying disks: the main thread walks the map and hands pieces to a few slots; each slot reads its
 * piece, leaves out what need not be written, and writes the rest run by run. Reads and writes of
 * different slots overlap, on two IoThreads where source and target have one each.
 *
 * Pieces begin and end at multiples of the target's preferred size, so that clusters are written
 * whole: what does not need to be copied at a border is copied all the same.
 *
 * Threads: a slot belongs to main while it is free, else to the IoThread of its request.
 * Lock: c->mutex (a GMutex because it has a GCond) is a leaf.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/num.h"

#include "image_ops.h"

#define PIECE ((uint64_t)2 << 20) /* bytes; a multiple of every cluster size */
#define SLOTS 8u
#define MEMORY_ALIGN 4096u

typedef struct Copy Copy;

typedef enum SlotStep { SLOT_READ, SLOT_READ_UNLIKE, SLOT_WRITE, SLOT_ZERO } SlotStep;

typedef struct Slot {
    Copy *copy; /* borrowed */
    BlkReq req;
    struct iovec iov;
    uint8_t *buf, *other; /* owned; PIECE bytes; other with unlike only */
    uint64_t offset, len; /* the piece */
    uint64_t pos;         /* of it, the next byte to look at */
    SlotStep step;
    struct Slot *next;
} Slot;

struct Copy {
    const CopyPlan *plan;
    uint64_t size, grain; /* bytes */
    Slot slots[SLOTS];
    GMutex mutex;
    GCond cond;
    /* guarded by mutex */
    Slot *free;
    unsigned n_free;
    int err;
    uint64_t err_offset;
    SlotStep err_step;
    CopyResult result;
};

static void slot_done(BlkReq *req, int err);

static void slot_submit(Slot *s, BlkNode *n, SlotStep step, BlkOp op, void *buf, uint64_t len)
{
    s->step = step;
    s->iov = (struct iovec){buf, len};
    s->req = (BlkReq){.op = op, .offset = s->offset + s->pos, .len = len,
                      .iov = buf ? &s->iov : NULL, .niov = buf ? 1 : 0, .done = slot_done,
                      .opaque = s, .may_unmap = true,
                      .ordered = op == BLK_WRITE && s->copy->plan->ordered,
                      .compress = op == BLK_WRITE && s->copy->plan->compress};
    blk_submit(n, &s->req);
}

static void slot_release(Slot *s, int err)
{
    Copy *c = s->copy;

    g_mutex_lock(&c->mutex);
    if (err && (!c->err || s->offset < c->err_offset)) {
        c->err = err;
        c->err_offset = s->offset + s->pos;
        c->err_step = s->step;
    }
    s->next = c->free;
    c->free = s;
    c->n_free++;
    g_cond_signal(&c->cond);
    g_mutex_unlock(&c->mutex);
}

/* Whether the grain at @pos of the piece is to be written. */
static bool wanted(const Slot *s, uint64_t pos, uint64_t len)
{
    const CopyPlan *p = s->copy->plan;

    if (p->diff && p->unlike)
        return memcmp(s->buf + pos, s->other + pos, len) != 0;
    return !(p->skip_zero || p->diff) || !buffer_is_zero(s->buf + pos, len);
}

/* Write the next run of the piece, or give the slot back. */
static void write_next(Slot *s)
{
    Copy *c = s->copy;
    uint64_t grain = c->grain, from = s->pos, to;

    while (from < s->len && !wanted(s, from, MIN(grain, s->len - from)))
        from += grain;
    if (from >= s->len) {
        slot_release(s, 0);
        return;
    }
    to = from;
    do
        to += MIN(grain, s->len - to);
    while (to < s->len && wanted(s, to, MIN(grain, s->len - to)));
    s->pos = from;
    slot_submit(s, c->plan->to, SLOT_WRITE, BLK_WRITE, s->buf + from, to - from);
}

/* The other side's bytes, as far as it has them. */
static void read_unlike(Slot *s)
{
    BlkNode *n = s->copy->plan->unlike;
    uint64_t size = n->limits.size;
    uint64_t there = s->offset >= size ? 0 : MIN(s->len, size - s->offset);

    memset(s->other + there, 0, s->len - there);
    if (there)
        slot_submit(s, n, SLOT_READ_UNLIKE, BLK_READ, s->other, there);
    else
        write_next(s);
}

static void slot_done(BlkReq *req, int err)
{
    Slot *s = req->opaque;
    Copy *c = s->copy;

    if (err) {
        slot_release(s, err);
        return;
    }
    switch (s->step) {
    case SLOT_READ:
        if (c->plan->diff && c->plan->unlike)
            read_unlike(s);
        else
            write_next(s);
        break;
    case SLOT_READ_UNLIKE:
        write_next(s);
        break;
    case SLOT_WRITE:
        g_mutex_lock(&c->mutex);
        c->result.written += req->len;
        g_mutex_unlock(&c->mutex);
        s->pos += req->len;
        write_next(s);
        break;
    case SLOT_ZERO:
        g_mutex_lock(&c->mutex);
        c->result.zeroed += req->len;
        g_mutex_unlock(&c->mutex);
        slot_release(s, 0);
        break;
    }
}

static Slot *slot_take(Copy *c)
{
    g_mutex_lock(&c->mutex);
    while (!c->free)
        g_cond_wait(&c->cond, &c->mutex);
    Slot *s = c->err ? NULL : c->free;
    if (s) {
        c->free = s->next;
        c->n_free--;
    }
    g_mutex_unlock(&c->mutex);
    return s;
}

/* False: a piece failed. */
static bool start_piece(Copy *c, uint64_t offset, uint64_t len, bool zero)
{
    Slot *s = slot_take(c);

    if (!s)
        return false;
    s->offset = offset;
    s->len = len;
    s->pos = 0;
    if (zero)
        slot_submit(s, c->plan->to, SLOT_ZERO, BLK_ZERO, NULL, len);
    else
        slot_submit(s, c->plan->from, SLOT_READ, BLK_READ, s->buf, len);
    return true;
}

static bool copy_stretch(Copy *c, uint64_t from, uint64_t end, bool zero)
{
    uint64_t most = zero ? c->plan->to->limits.discard_max : PIECE;

    while (from < end) {
        uint64_t len = zero ? MIN(most, end - from)
                            : MIN(end - from, align_down(from, most) + most - from);
        if (!start_piece(c, from, len, zero))
            return false;
        from += len;
    }
    return true;
}

/* What is to be done with a stretch of the map. */
static bool is_asked(const CopyPlan *p, const MapEntry *e)
{
    return !(p->top_only && e->depth > 0) && !(p->below_only && e->depth == 0);
}

static int walk(Copy *c)
{
    const CopyPlan *p = c->plan;
    uint64_t at = 0, copied = 0; /* copied: up to here pieces have been given out */

    while (at < c->size) {
        MapEntry e;
        int err = image_map(p->from, at, c->size - at, &e);
        if (err) {
            c->err_offset = at;
            return err;
        }
        uint64_t end = at + e.len;
        bool zero = e.zero && !p->diff;
        if (is_asked(p, &e) && !(zero && p->skip_zero)) {
            bool by_zero = zero && p->to->limits.discard_max;
            uint64_t from = MAX(copied, by_zero ? at : align_down(at, c->grain));
            uint64_t to = by_zero ? end : MIN(align_up(end, c->grain), c->size);
            if (from < to && !copy_stretch(c, from, to, by_zero))
                return 0;
            copied = MAX(copied, to);
        }
        at = end;
        if (p->progress)
            p->progress->tell(p->progress->opaque, at, c->size);
    }
    return 0;
}

static bool copy_init(Copy *c, const CopyPlan *p)
{
    c->plan = p;
    c->size = MIN(p->from->limits.size, p->to->limits.size);
    c->grain = MAX(BLK_SECTOR, MIN(p->to->limits.block, PIECE));
    if (!is_power_of_two(c->grain))
        c->grain = BLK_SECTOR;
    g_mutex_init(&c->mutex);
    g_cond_init(&c->cond);
    for (unsigned i = 0; i < SLOTS; i++) {
        Slot *s = &c->slots[i];
        void *mem = NULL;
        bool two = p->diff && p->unlike;
        if (posix_memalign(&mem, MEMORY_ALIGN, PIECE * (two ? 2 : 1)) != 0)
            return false;
        s->copy = c;
        s->buf = mem;
        s->other = two ? s->buf + PIECE : NULL;
        s->next = c->free;
        c->free = s;
        c->n_free++;
    }
    return true;
}

static void copy_end(Copy *c)
{
    for (unsigned i = 0; i < SLOTS; i++)
        free(c->slots[i].buf);
    g_mutex_clear(&c->mutex);
    g_cond_clear(&c->cond);
}

bool image_copy(const CopyPlan *p, CopyResult *ret_result, GError **error)
{
    Copy c = {0};
    int err = copy_init(&c, p) ? 0 : ENOMEM;
    SlotStep step = SLOT_READ;

    if (!err) {
        err = walk(&c);
        g_mutex_lock(&c.mutex);
        while (c.n_free < SLOTS)
            g_cond_wait(&c.cond, &c.mutex);
        g_mutex_unlock(&c.mutex);
        if (!err && c.err) {
            err = c.err;
            step = c.err_step;
        }
    }
    copy_end(&c);
    if (err) {
        bool reading = step == SLOT_READ || step == SLOT_READ_UNLIKE;
        BlkNode *n = !reading                  ? p->to
                     : step == SLOT_READ ? p->from
                                               : p->unlike;
        return lodge_fail_errno(error, err, "'%s': cannot %s at %" G_GUINT64_FORMAT,
                                blk_file_under(n)->path, reading ? "read" : "write",
                                c.err_offset);
    }
    *ret_result = c.result;
    return true;
}
