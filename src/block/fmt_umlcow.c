/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Overlays in User-Mode Linux's COW format: a bitmap with one bit for each 512-byte sector says
 * whether the sector is in this file or in the base below. cow_header.c has the file's head.
 *
 * The bitmap is kept in pieces of 64 KiB (256 MiB of disk), read when first needed, at most
 * as many in memory as the metadata cache allows unless more are busy. All of this is driven by
 * completions on the IoThread; nothing blocks. umlcow_image.c makes, checks and changes images.
 *
 *   read   is split into runs of sectors with one source, at most BLK_CHILDREN under way
 *   write  one write to the data area, whatever the bits are; then, where bits were clear, they are
 *          set in memory and the words that changed are written to the bitmap
 *   discard, zero   the same with a hole or zeros in our data area; the base is never touched
 *   flush  one fdatasync of this file: data and bitmap are both in it
 *
 * Safety: a write completes after its bits have reached the page cache, so that a killed VM loses
 * nothing that it was told is done, as with UML; data comes first, so that no bit speaks of data
 * that was not written. When the host loses power, what was written since the last flush may be
 * lost, and such a sector may read as the old data, the new, or zeros; a rebase, which writes what
 * no guest wrote, asks for data on the disk before its bits (BlkReq.ordered). A bitmap write that
 * fails is an error of the request, and is tried again at each flush, which fails until then.
 *
 * Spec: Linux 6.1 arch/um/drivers/ubd_kern.c, cowify_bitmap(); bit i is byte i/8, mask 1 << i%8.
 *
 * Invariants: (1) a piece has at most one bitmap write under way, so that no older word overtakes a
 * newer one. (2) A bit is set in memory after the data write of its sector and never cleared.
 * (3) A write completes after every bitmap word of its range is clean. (4) A piece that is loading,
 * writing, dirty or waited for is not thrown out. (5) A request is in at most one waiting list.
 */
#include <errno.h>
#include <string.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "block_int.h"
#include "umlcow.h"

#define PIECE_BYTES ((uint64_t)64 << 10)
#define PIECE_SECTORS (PIECE_BYTES * 8)
#define PIECE_SPAN (PIECE_SECTORS * COW_SECTOR) /* bytes of disk */
#define WORD_BYTES 8u /* bitmap writes are whole words, as UML's */

typedef struct Range {
    uint32_t lo, hi; /* bytes of a piece; empty: lo == hi */
} Range;

typedef struct CowPiece {
    uint64_t index;
    uint8_t *bits; /* owned, PIECE_BYTES */
    uint64_t used; /* tick of last use */
    bool loading, writing, failed;
    Range dirty, in_write;
    BlkReq *load_waiters, *write_waiters, *next_waiters;
    struct BlkCow *cow; /* borrowed */
    BlkReq io;
    struct iovec iov;
} Piece;

/* In BlkReq.scratch of a request that this layer has. */
typedef struct CowState {
    uint64_t pos;         /* READ: next to start; others: next whose bits to set */
    uint32_t outstanding; /* children */
    int err;
    bool waiting;         /* in a list of a piece */
    bool data_synced;     /* ordered: the flush between data and bits is under way or done */
    bool synced;          /* FUA: the last flush is under way or done */
} CowState;

_Static_assert(sizeof(CowState) <= sizeof(((BlkReq *)0)->scratch), "fits");

static CowState *state_of(BlkReq *req)
{
    return (CowState *)req->scratch;
}

static void step(BlkCow *c, BlkReq *req);

/* ---- bits ---- */

static bool bit_get(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> (i % 8) & 1;
}

/* Sectors from @i, below @end, that have the same bit as @i. */
static uint32_t bit_run(const uint8_t *bits, uint32_t i, uint32_t end)
{
    bool set = bit_get(bits, i);
    uint64_t same = set ? UINT64_MAX : 0;
    uint32_t at = i;

    while (at < end) {
        if (at % 64 == 0 && end - at >= 64 && load_le64(bits + at / 8) == same) {
            at += 64;
            continue;
        }
        if (at % 8 == 0 && end - at >= 8 && bits[at / 8] == (uint8_t)same) {
            at += 8;
            continue;
        }
        if (bit_get(bits, at) != set)
            break;
        at++;
    }
    return at - i;
}

static void bit_set(uint8_t *bits, uint32_t i, uint32_t end)
{
    while (i < end) {
        if (i % 8 == 0 && end - i >= 8) {
            memset(bits + i / 8, 0xff, (end - i) / 8);
            i += (end - i) / 8 * 8;
            continue;
        }
        bits[i / 8] |= 1u << (i % 8);
        i++;
    }
}

/* ---- ranges and lists ---- */

static bool range_meets(Range r, uint32_t lo, uint32_t hi)
{
    return r.lo < hi && lo < r.hi;
}

static void range_add(Range *r, uint32_t lo, uint32_t hi)
{
    if (r->lo == r->hi) {
        r->lo = lo;
        r->hi = hi;
    } else {
        r->lo = MIN(r->lo, lo);
        r->hi = MAX(r->hi, hi);
    }
}

static void wait_in(BlkReq **list, BlkReq *req)
{
    state_of(req)->waiting = true; /* keeps (5) */
    req->next = *list;
    *list = req;
}

static void wake_all(BlkCow *c, BlkReq *list, int err)
{
    while (list) {
        BlkReq *req = list;
        CowState *s = state_of(req);
        list = req->next;
        s->waiting = false;
        if (err && !s->err)
            s->err = err;
        step(c, req);
    }
}

/* ---- pieces ---- */

static void piece_free(void *opaque)
{
    Piece *p = opaque;

    g_free(p->bits);
    g_free(p);
}

static bool piece_busy(const Piece *p)
{
    return p->loading || p->writing || p->dirty.lo != p->dirty.hi || p->load_waiters ||
           p->write_waiters || p->next_waiters;
}

static void piece_forget(BlkCow *c, Piece *p)
{
    if (c->last == p)
        c->last = NULL;
    g_hash_table_remove(c->pieces, &p->index);
}

static void make_room(BlkCow *c)
{
    GHashTableIter it;
    void *v;
    Piece *oldest = NULL;

    if (g_hash_table_size(c->pieces) < c->pieces_max)
        return;
    g_hash_table_iter_init(&it, c->pieces);
    while (g_hash_table_iter_next(&it, NULL, &v)) {
        Piece *p = v;
        if (!piece_busy(p) && (!oldest || p->used < oldest->used)) /* keeps (4) */
            oldest = p;
    }
    if (oldest)
        piece_forget(c, oldest);
}

static void piece_loaded(BlkReq *io, int err)
{
    Piece *p = io->opaque;
    BlkCow *c = p->cow;
    BlkReq *waiters = p->load_waiters;

    p->loading = false;
    p->load_waiters = NULL;
    if (err)
        piece_forget(c, p);
    wake_all(c, waiters, err);
}

static Piece *piece_load(BlkCow *c, uint64_t index)
{
    make_room(c);
    Piece *p = g_try_new0(Piece, 1);
    uint8_t *bits = g_try_malloc0(PIECE_BYTES);

    if (!p || !bits) {
        g_free(p);
        g_free(bits);
        return NULL;
    }
    uint64_t at = index * PIECE_BYTES;
    p->index = index;
    p->bits = bits;
    p->cow = c;
    g_hash_table_insert(c->pieces, &p->index, p);
    if (at >= c->bitmap_bytes)
        return p; /* versions 1 and 2: no bits there, so nothing is set */
    p->loading = true;
    p->iov = (struct iovec){bits, MIN(PIECE_BYTES, c->bitmap_bytes - at)};
    p->io = (BlkReq){.op = BLK_READ, .offset = c->layout.bitmap_offset + at,
                     .len = p->iov.iov_len, .iov = &p->iov, .niov = 1, .done = piece_loaded,
                     .opaque = p, .flags = BLK_REQ_META};
    blk_start(c->node.file, &p->io);
    return p;
}

/* The piece of disk offset @pos, which is being used now; NULL: it is not in memory. */
static Piece *piece_find(BlkCow *c, uint64_t pos)
{
    uint64_t index = pos / PIECE_SPAN;
    Piece *p = c->last;

    if (!p || p->index != index)
        p = g_hash_table_lookup(c->pieces, &index);
    if (!p)
        return NULL;
    p->used = ++c->tick;
    c->last = p;
    return p;
}

/* The same, loading it; NULL: @req waits for it, or has got an error in its state. */
static Piece *piece_get(BlkCow *c, uint64_t pos, BlkReq *req)
{
    Piece *p = piece_find(c, pos);

    if (!p && piece_load(c, pos / PIECE_SPAN))
        p = piece_find(c, pos);
    if (!p) {
        state_of(req)->err = ENOMEM;
        return NULL;
    }
    if (p->loading) {
        wait_in(&p->load_waiters, req);
        return NULL;
    }
    return p;
}

static void piece_write(BlkCow *c, Piece *p);

static void piece_written(BlkReq *io, int err)
{
    Piece *p = io->opaque;
    BlkCow *c = p->cow;
    BlkReq *waiters = p->write_waiters;

    p->writing = false;
    p->write_waiters = NULL;
    if (err) {
        range_add(&p->dirty, p->in_write.lo, p->in_write.hi);
        p->failed = true;
        c->n_failed++;
    }
    p->in_write = (Range){0, 0};
    if (p->next_waiters)
        piece_write(c, p);
    wake_all(c, waiters, err); /* p may be thrown out in there */
}

/* Write what is dirty, unless a write is under way, whose end will do it. */
static void piece_write(BlkCow *c, Piece *p)
{
    if (p->writing) /* keeps (1) */
        return;
    if (p->failed) {
        p->failed = false;
        c->n_failed--;
    }
    p->writing = true;
    p->in_write = p->dirty;
    p->dirty = (Range){0, 0};
    p->write_waiters = p->next_waiters;
    p->next_waiters = NULL;
    p->iov = (struct iovec){p->bits + p->in_write.lo, p->in_write.hi - p->in_write.lo};
    p->io = (BlkReq){.op = BLK_WRITE,
                     .offset = c->layout.bitmap_offset + p->index * PIECE_BYTES + p->in_write.lo,
                     .len = p->iov.iov_len, .iov = &p->iov, .niov = 1, .done = piece_written,
                     .opaque = p, .flags = BLK_REQ_META};
    blk_start(c->node.file, &p->io);
}

/* ---- children ---- */

static void child_done(BlkReq *parent, const BlkChildAnswer *answer)
{
    CowState *s = state_of(parent);

    s->outstanding--;
    if (answer->err && !s->err)
        s->err = answer->err;
    if (!s->waiting)
        step((BlkCow *)parent->node, parent);
}

/* Start @op on @below for @len bytes of @parent from @pos; false: no memory. */
static bool child_start(BlkCow *c, BlkReq *parent, BlkOp op, BlkNode *below, uint64_t pos,
                        uint64_t len)
{
    uint64_t shift = below == c->node.file && op != BLK_FLUSH ? c->layout.data_offset : 0;
    BlkChildPart part = {.op = op, .below = below, .pos = pos, .len = len, .offset = pos + shift};

    state_of(parent)->outstanding++;
    if (blk_child_start(&c->children, parent, &part, child_done))
        return true;
    state_of(parent)->outstanding--;
    return false;
}

/* ---- requests ---- */

/* The run of sectors at @pos with one source: its length in bytes, at most @max. */
static uint64_t run_at(const Piece *p, uint64_t pos, uint64_t max, bool *ret_ours)
{
    uint32_t first = pos % PIECE_SPAN / COW_SECTOR;
    uint32_t end = MIN(PIECE_SECTORS, first + max / COW_SECTOR);

    *ret_ours = bit_get(p->bits, first);
    return (uint64_t)bit_run(p->bits, first, end) * COW_SECTOR;
}

static void read_step(BlkCow *c, BlkReq *req)
{
    CowState *s = state_of(req);
    uint64_t end = req->offset + req->len;

    while (!s->err && s->pos < end && s->outstanding < BLK_CHILDREN) {
        Piece *p = piece_get(c, s->pos, req);
        if (!p)
            break;
        bool ours;
        uint64_t len = run_at(p, s->pos, end - s->pos, &ours);
        if (!ours && !c->node.base) { /* only looked at, without its base */
            s->err = EIO;
            break;
        }
        if (!child_start(c, req, BLK_READ, ours ? c->node.file : c->node.base, s->pos, len)) {
            s->err = ENOMEM;
            break;
        }
        s->pos += len;
    }
    if (!s->outstanding && !s->waiting)
        blk_complete(req, s->err);
}

/* The part of the disk at @pos in @p is written: set its bits. True: they are on their way to the
 * file or were there; false: @req waits. */
static bool commit_piece(BlkCow *c, Piece *p, BlkReq *req, uint64_t part)
{
    CowState *s = state_of(req);
    uint32_t first = s->pos % PIECE_SPAN / COW_SECTOR;
    uint32_t end = first + part / COW_SECTOR;
    uint32_t lo = align_down(first / 8, WORD_BYTES);
    uint32_t hi = align_up((end + 7) / 8, WORD_BYTES);

    s->pos += part;
    if (!bit_get(p->bits, first) || bit_run(p->bits, first, end) < end - first) {
        bit_set(p->bits, first, end);
        range_add(&p->dirty, lo, hi);
    } else if (range_meets(p->in_write, lo, hi) && !range_meets(p->dirty, lo, hi)) {
        wait_in(&p->write_waiters, req); /* somebody else's bits, not there yet; keeps (3) */
        return false;
    } else if (!range_meets(p->dirty, lo, hi)) {
        return true;
    }
    wait_in(&p->next_waiters, req);
    piece_write(c, p);
    return false;
}

/* After the data of a WRITE, DISCARD or ZERO. */
static void commit_step(BlkCow *c, BlkReq *req)
{
    CowState *s = state_of(req);
    uint64_t end = req->offset + req->len;

    if (!s->err && req->ordered && !s->data_synced) {
        s->data_synced = true;
        if (child_start(c, req, BLK_FLUSH, c->node.file, 0, 0))
            return;
        s->err = ENOMEM;
    }
    while (!s->err && s->pos < end) {
        Piece *p = piece_get(c, s->pos, req);
        if (!p)
            break;
        uint64_t in_piece = PIECE_SPAN - s->pos % PIECE_SPAN;
        if (!commit_piece(c, p, req, MIN(in_piece, end - s->pos)))
            break;
    }
    if (s->waiting)
        return;
    if (!s->err && req->fua && !s->synced) {
        s->synced = true;
        if (child_start(c, req, BLK_FLUSH, c->node.file, 0, 0))
            return;
        s->err = ENOMEM;
    }
    blk_complete(req, s->err);
}

static Piece *find_failed(BlkCow *c)
{
    GHashTableIter it;
    void *v;

    g_hash_table_iter_init(&it, c->pieces);
    while (g_hash_table_iter_next(&it, NULL, &v))
        if (((Piece *)v)->failed)
            return v;
    return NULL;
}

static void flush_step(BlkCow *c, BlkReq *req)
{
    CowState *s = state_of(req);

    if (!s->err && !s->synced) {
        Piece *p = c->n_failed ? find_failed(c) : NULL;
        if (p) {
            wait_in(&p->next_waiters, req);
            piece_write(c, p);
            return;
        }
        s->synced = true;
        if (child_start(c, req, BLK_FLUSH, c->node.file, 0, 0))
            return;
        s->err = ENOMEM;
    }
    blk_complete(req, s->err);
}

static void status_step(BlkCow *c, BlkReq *req)
{
    CowState *s = state_of(req);
    Piece *p = s->err ? NULL : piece_get(c, req->offset, req);

    if (s->waiting)
        return;
    if (p) {
        bool ours;
        req->status_len = run_at(p, req->offset, req->len, &ours);
        req->status = ours ? BLK_ST_DATA : BLK_ST_BELOW;
        req->status_offset = ours ? c->layout.data_offset + req->offset : BLK_NO_OFFSET;
    }
    blk_complete(req, s->err);
}

static void step(BlkCow *c, BlkReq *req)
{
    switch (req->op) {
    case BLK_READ:
        read_step(c, req);
        break;
    case BLK_FLUSH:
        flush_step(c, req);
        break;
    case BLK_STATUS:
        status_step(c, req);
        break;
    default:
        commit_step(c, req);
    }
}

/* The common case: all of @req is in our data area, by bits that are in the file too. It goes there
 * as it is; false: it takes more. */
static bool pass(BlkCow *c, BlkReq *req)
{
    uint64_t in = req->offset % PIECE_SPAN;
    uint32_t first = in / COW_SECTOR;

    if ((req->op != BLK_READ && req->op != BLK_WRITE) || !req->len || req->fua || req->ordered ||
        req->len > PIECE_SPAN - in)
        return false;
    const Piece *p = piece_find(c, req->offset);
    if (!p || p->loading)
        return false;
    uint32_t end = first + (uint32_t)(req->len / COW_SECTOR);
    uint32_t lo = first / 8, hi = (end + 7) / 8;
    if (!bit_get(p->bits, first) || bit_run(p->bits, first, end) < end - first ||
        (req->op == BLK_WRITE &&
         (range_meets(p->in_write, lo, hi) || range_meets(p->dirty, lo, hi)))) /* keeps (3) */
        return false;
    blk_pass(&c->node, req, c->layout.data_offset + req->offset);
    return true;
}

static void cow_submit(BlkNode *n, BlkReq *req)
{
    BlkCow *c = (BlkCow *)n;
    CowState *s = state_of(req);

    if (pass(c, req))
        return;
    memset(req->scratch, 0, sizeof req->scratch);
    s->pos = req->offset;
    if (req->op == BLK_FLUSH && c->node.read_only) {
        blk_complete(req, 0);
    } else if (req->op == BLK_WRITE || req->op == BLK_DISCARD || req->op == BLK_ZERO) {
        if (!req->len)
            blk_complete(req, 0);
        else if (!child_start(c, req, req->op, n->file, req->offset, req->len))
            blk_complete(req, ENOMEM);
    } else {
        step(c, req);
    }
}

static void cow_limits(BlkNode *n, BlkLimits *l)
{
    BlkCow *c = (BlkCow *)n;

    l->size = align_up(c->layout.size, COW_SECTOR);
    l->discard_max = c->node.read_only ? 0 : BLK_DISCARD_MAX;
    l->align = COW_SECTOR;
    l->block = 4096;
    l->max_iov = BLK_MAX_IOV;
    l->read_only = c->node.read_only;
}

/* A last try for bits that could not be written. */
static void save_failed(BlkCow *c)
{
    GHashTableIter it;
    void *v;

    g_hash_table_iter_init(&it, c->pieces);
    while (g_hash_table_iter_next(&it, NULL, &v)) {
        Piece *p = v;
        g_autoptr(GError) error = NULL;
        if (p->failed &&
            !blk_file_pwrite((BlkFile *)c->node.file, p->bits + p->dirty.lo,
                             p->dirty.hi - p->dirty.lo,
                             c->layout.bitmap_offset + p->index * PIECE_BYTES + p->dirty.lo,
                             &error))
            lodge_warn("disk %s: %s; some of its last writes are lost", c->node.name,
                       error->message);
    }
}

void cow_pieces_init(BlkCow *c, uint64_t meta_bytes)
{
    uint64_t sectors = align_up(c->layout.size, COW_SECTOR) / COW_SECTOR;

    c->bitmap_bytes = MIN(align_up((sectors + 7) / 8, WORD_BYTES),
                          c->layout.data_offset - c->layout.bitmap_offset);
    c->pieces_max = MAX(1, MIN(meta_bytes, BLK_META_MAX) / PIECE_BYTES);
    c->pieces = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, piece_free);
}

void cow_pieces_drop(BlkCow *c)
{
    c->last = NULL;
    c->n_failed = 0;
    if (c->pieces)
        g_hash_table_remove_all(c->pieces);
}

static void cow_close(BlkNode *n)
{
    BlkCow *c = (BlkCow *)n;

    if (c->n_failed)
        save_failed(c);
    if (c->pieces)
        g_hash_table_destroy(c->pieces);
    blk_children_free(&c->children);
}

const BlkDriver blk_driver_umlcow = {
    .name = "umlcow",
    .flags = BLK_DRV_ABSOLUTE_BASE | BLK_DRV_CHECKS_BASE | BLK_DRV_NEEDS_BASE,
    .instance_size = sizeof(BlkCow),
    .probe = cow_probe,
    .open = cow_open,
    .attach = cow_attach,
    .limits = cow_limits,
    .submit = cow_submit,
    .close = cow_close,
    .create = cow_create,
    .check = cow_check,
    .set_base = cow_set_base,
    .make_empty = cow_make_empty,
    .describe = cow_describe,
    .base_changes = cow_base_changes,
};
