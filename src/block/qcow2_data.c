/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of a qcow2 image. A request is taken apart into runs of one kind, at most BLK_CHILDREN
 * under way: what is stored plainly goes to the file, what is below to the base, zeros are filled
 * in at once. What needs a table that is not in memory, a compressed cluster or a change of tables
 * is a task for the worker; writes to clusters that are not there yet are in qcow2_alloc.c.
 *
 * DISCARD reads as zeros afterwards, as in the other formats: whole clusters are let go of, pieces
 * of clusters are zeroed in place. Where the base would show through, clusters of version 3 are
 * marked as zeros; version 2 has no such mark and gets zeros written.
 *
 * A flush with nothing changed in the tables is one fdatasync of the file.
 *
 * Threads: the IoThread, but for the run() of tasks, which is the worker's.
 *
 * Invariants: (1) no child or task of a request starts while it waits. (2) A request waits for at
 * most one thing. (3) It counts itself as a user of clusters before it looks anything up.
 */
#include <errno.h>
#include <string.h>

#include "lodge/num.h"

#include "qcow2.h"

#define TASKS_KEPT 64u /* for the next request */

/* ---- children ---- */

void qcow_piece_done(BlkQcow *q, BlkReq *req, int err)
{
    QcowState *s = qcow_state(req);

    s->outstanding--;
    if (err && !s->err)
        s->err = err;
    if (!s->waiting)
        qcow_step(q, req);
}

static void child_done(BlkReq *parent, const BlkChildAnswer *answer)
{
    qcow_piece_done((BlkQcow *)parent->node, parent, answer->err);
}

/* Start @op on @below at @at for the @len bytes of @parent from @pos. */
static void child_start(BlkQcow *q, BlkReq *parent, BlkOp op, BlkNode *below, uint64_t at,
                        uint64_t pos, uint64_t len)
{
    QcowState *s = qcow_state(parent);
    BlkChildPart part = {.op = op, .below = below, .pos = pos, .len = len, .offset = at,
                         .may_unmap = parent->op == BLK_DISCARD};

    s->outstanding++;
    if (!blk_child_start(&q->children, parent, &part, child_done)) {
        s->outstanding--;
        s->err = ENOMEM;
    }
}

/* ---- tasks ---- */

QcowTask *qcow_task_new(BlkQcow *q, BlkReq *req, QcowTaskKind kind)
{
    QcowTask *t = q->free_tasks;

    if (t) {
        q->free_tasks = t->next;
        q->n_free_tasks--;
    } else if (!(t = g_try_new(QcowTask, 1))) {
        return NULL;
    }
    memset(t, 0, sizeof *t);
    t->kind = kind;
    t->q = q;
    t->parent = req;
    return t;
}

void qcow_task_free(BlkQcow *q, QcowTask *t)
{
    g_free(t->edges);
    g_free(t->iov);
    if (q->n_free_tasks >= TASKS_KEPT) {
        g_free(t);
        return;
    }
    t->next = q->free_tasks;
    q->free_tasks = t;
    q->n_free_tasks++;
}

void qcow_tasks_drop(BlkQcow *q)
{
    while (q->free_tasks) {
        QcowTask *t = q->free_tasks;
        q->free_tasks = t->next;
        g_free(t);
    }
    blk_children_free(&q->children);
}

static int run_unpack(BlkQcow *q, QcowTask *t)
{
    const BlkReq *r = t->parent;
    const uint8_t *plain;

    /* The descriptor is of before; what it led to is not reused while we are under way. */
    int err = qcow_unpack(q, t->map.host, &plain);
    if (!err)
        iov_scatter(r->iov, r->niov, t->pos - r->offset, plain + (t->pos & (q->cs - 1)), t->len);
    return err;
}

static int run_pack(BlkQcow *q, QcowTask *t)
{
    const BlkReq *r = t->parent;
    g_autofree uint8_t *plain = g_try_malloc0(q->cs);

    if (!plain)
        return ENOMEM;
    iov_gather(r->iov, r->niov, t->pos - r->offset, plain, t->len);
    return qcow_pack(q, t->pos, plain);
}

/* Make the whole clusters of the task, all in one block of an L2 table, read as zeros. */
static int run_zero(BlkQcow *q, QcowTask *t)
{
    unsigned n = (t->len + q->cs - 1) >> q->h.cluster_bits;
    uint64_t zero = qcow_shown(q, t->pos, t->len) ? QCOW_ZERO : 0;
    g_autofree uint64_t *old = g_try_new(uint64_t, n), *new = g_try_new(uint64_t, n);
    bool change = false;
    int err = old && new ? 0 : ENOMEM;

    for (unsigned i = 0; i < n && !err; i++) {
        err = qcow_l2_get(q, t->pos + (uint64_t)i * q->cs, &old[i]);
        new[i] = zero;
        change = change || old[i] != zero;
    }
    if (err || !change)
        return err;
    err = qcow_l2_own(q, t->pos);
    if (!err)
        err = qcow_l2_put(q, t->pos, new, n);
    for (unsigned i = 0; i < n && !err; i++)
        qcow_l2_drop(q, old[i]);
    return err;
}

static int task_run(BlkNode *n, BlkWork *w)
{
    QcowTask *t = (QcowTask *)w;
    BlkQcow *q = (BlkQcow *)n;

    qcow_freed_trim(q);
    switch (t->kind) {
    case QCOW_TASK_MAP:
        return qcow_map(q, t->pos, t->len, &t->map);
    case QCOW_TASK_UNPACK:
        return run_unpack(q, t);
    case QCOW_TASK_PACK:
        return run_pack(q, t);
    case QCOW_TASK_ZERO:
        return run_zero(q, t);
    case QCOW_TASK_FLUSH:
        return qcow_flush(q);
    case QCOW_TASK_MARK:
        (void)qcow_write_mark(q); /* else at the next flush */
        return EIO;
    case QCOW_TASK_ALLOC:
        break; /* has a run of its own */
    }
    return EINVAL;
}

static void use_map(BlkQcow *q, BlkReq *req, const QcowMap *map);

static bool changes(const BlkReq *req)
{
    return req->op == BLK_WRITE || req->op == BLK_DISCARD || req->op == BLK_ZERO;
}

static void task_done(BlkNode *n, BlkWork *w, int err)
{
    QcowTask *t = (QcowTask *)w;
    BlkQcow *q = (BlkQcow *)n;
    BlkReq *req = t->parent;
    QcowState *s = qcow_state(req);

    if (t->kind == QCOW_TASK_MAP) {
        QcowMap map = t->map;
        qcow_task_free(q, t);
        s->waiting = false;
        if (!err && !s->err && !(changes(req) && qcow_alloc_meets(q, s->pos, map.len)))
            use_map(q, req, &map);
        qcow_piece_done(q, req, err);
        return;
    }
    BlkReq *waiters = t->kind == QCOW_TASK_PACK ? qcow_alloc_release(q, t) : NULL;
    uint64_t pos = t->pos, len = t->len;
    bool plain = t->kind == QCOW_TASK_PACK && err == ENOTSUP;
    qcow_task_free(q, t);
    if (plain) /* it does not get smaller; reserved again before anybody goes on */
        err = qcow_alloc_start(q, req, pos, len, false) ? 0 : ENOMEM;
    qcow_wake(q, waiters);
    qcow_piece_done(q, req, err);
}

/* @len bytes of @req from @pos are the worker's. */
static QcowTask *task_start(BlkQcow *q, BlkReq *req, QcowTaskKind kind, uint64_t pos, uint64_t len,
                            const QcowMap *map)
{
    QcowTask *t = qcow_task_new(q, req, kind);

    if (!t) {
        qcow_state(req)->err = ENOMEM;
        return NULL;
    }
    t->work.run = task_run;
    t->work.done = task_done;
    t->pos = pos;
    t->len = len;
    if (map)
        t->map = *map;
    qcow_state(req)->outstanding++;
    if (kind == QCOW_TASK_PACK)
        qcow_alloc_reserve(q, t);
    blk_work(&q->node, &t->work);
    return t;
}

/* ---- the kinds of requests; each starts what @map says of s->pos, and moves s->pos on ---- */

static void use_read(BlkQcow *q, BlkReq *req, const QcowMap *map)
{
    QcowState *s = qcow_state(req);
    uint64_t pos = s->pos, part;

    s->pos += map->len;
    switch (map->kind) {
    case QCOW_DATA:
        child_start(q, req, BLK_READ, q->node.file, map->host, pos, map->len);
        break;
    case QCOW_BELOW:
        if (q->node.ref.path && !q->node.base) { /* only looked at, without its base */
            s->err = EIO;
            break;
        }
        part = blk_base_part(&q->node, pos, map->len);
        iov_zero(req->iov, req->niov, pos + part - req->offset, map->len - part);
        if (part)
            child_start(q, req, BLK_READ, q->node.base, pos, pos, part);
        break;
    case QCOW_ZEROS:
        iov_zero(req->iov, req->niov, pos - req->offset, map->len);
        break;
    case QCOW_PACKED:
        task_start(q, req, QCOW_TASK_UNPACK, pos, map->len, map);
        break;
    default:
        s->err = EIO;
    }
}

/* @req was to change what a table that is wrong points to. */
static void change_bad(BlkQcow *q, BlkReq *req)
{
    QcowState *s = qcow_state(req);

    s->err = EIO;
    qcow_mark_corrupt(q);
    task_start(q, req, QCOW_TASK_MARK, s->pos, 0, NULL);
}

static void use_write(BlkQcow *q, BlkReq *req, const QcowMap *map)
{
    QcowState *s = qcow_state(req);
    uint64_t pos = s->pos;

    if (map->kind == QCOW_BAD) {
        change_bad(q, req);
        return;
    }
    if (map->kind == QCOW_DATA && map->copied) {
        s->pos += map->len;
        child_start(q, req, BLK_WRITE, q->node.file, map->host, pos, map->len);
        return;
    }
    uint64_t len = MIN(map->len, qcow_block_span(q, pos));
    s->pos += len;
    if (!qcow_alloc_start(q, req, pos, len, false))
        s->err = ENOMEM;
}

/* DISCARD and ZERO; the run ends at the end of the disk at most. */
static void use_zero(BlkQcow *q, BlkReq *req, const QcowMap *map)
{
    QcowState *s = qcow_state(req);
    uint64_t pos = s->pos, in = pos & (q->cs - 1), len = map->len;
    bool plain = map->kind == QCOW_DATA && map->copied;
    bool shown = qcow_shown(q, align_down(pos, q->cs), in + len) != 0;
    bool to_end = pos + len == q->node.limits.size;

    if (map->kind == QCOW_BAD) {
        change_bad(q, req);
        return;
    }
    /* Up to the next border of a cluster, or whole clusters. */
    if (in)
        len = MIN(len, q->cs - in);
    else if (len >= q->cs && !to_end)
        len = align_down(len, q->cs);
    bool whole = !in && (len >= q->cs || to_end);
    bool keep = req->op == BLK_ZERO && !req->may_unmap;

    if (map->kind == QCOW_ZEROS || (map->kind == QCOW_BELOW && !shown)) {
        s->pos += len; /* are zeros */
    } else if (whole && !(plain && keep) && (!shown || q->h.version >= 3)) {
        len = MIN(len, qcow_block_span(q, pos));
        s->pos += len;
        task_start(q, req, QCOW_TASK_ZERO, pos, len, NULL);
    } else if (plain) {
        s->pos += len;
        child_start(q, req, BLK_ZERO, q->node.file, map->host, pos, len);
    } else {
        len = MIN(len, q->cs - in);
        s->pos += len;
        if (!qcow_alloc_start(q, req, pos, len, true))
            s->err = ENOMEM;
    }
}

static void use_status(BlkQcow *q, BlkReq *req, const QcowMap *map)
{
    static const BlkStatus answers[] = {[QCOW_BELOW] = BLK_ST_BELOW, [QCOW_ZEROS] = BLK_ST_ZERO,
                                        [QCOW_DATA] = BLK_ST_DATA, [QCOW_PACKED] = BLK_ST_DATA};
    QcowState *s = qcow_state(req);

    if (map->kind == QCOW_BAD) {
        s->err = EIO;
        return;
    }
    s->pos = req->offset + req->len;
    req->status = answers[map->kind];
    req->status_len = map->len;
    req->status_offset = map->kind == QCOW_DATA ? map->host : BLK_NO_OFFSET;
}

static void use_map(BlkQcow *q, BlkReq *req, const QcowMap *map)
{
    switch (req->op) {
    case BLK_READ:
        use_read(q, req, map);
        break;
    case BLK_WRITE:
        use_write(q, req, map);
        break;
    case BLK_STATUS:
        use_status(q, req, map);
        break;
    default:
        use_zero(q, req, map);
    }
}

/* Whether what is at @pos is to be written as a compressed cluster. */
static bool packs(const BlkQcow *q, const BlkReq *req, uint64_t pos)
{
    uint64_t left = req->offset + req->len - pos;

    return req->op == BLK_WRITE && req->compress && !(pos & (q->cs - 1)) &&
           (left >= q->cs || pos + left == q->node.limits.size);
}

/* Wait until @t is over. */
static void wait_for(QcowTask *t, BlkReq *req)
{
    qcow_state(req)->waiting = true; /* keeps (2) */
    req->next = t->waiters;
    t->waiters = req;
}

static void start_pieces(BlkQcow *q, BlkReq *req)
{
    QcowState *s = qcow_state(req);
    uint64_t end = req->offset + req->len;

    if (changes(req) && atomic_load_explicit(&q->corrupt, memory_order_relaxed))
        s->err = EIO;
    while (!s->err && !s->waiting && s->pos < end && s->outstanding < BLK_CHILDREN) {
        uint64_t len = end - s->pos;
        QcowTask *t = changes(req) ? qcow_alloc_meets(q, s->pos, 1) : NULL;
        if (t) {
            wait_for(t, req);
            break;
        }
        if (packs(q, req, s->pos)) {
            len = MIN(len, q->cs);
            if (task_start(q, req, QCOW_TASK_PACK, s->pos, len, NULL))
                s->pos += len;
            continue;
        }
        QcowMap map;
        if (changes(req)) { /* up to what somebody else is at */
            t = qcow_alloc_meets(q, s->pos, len);
            len = t ? (t->first << q->h.cluster_bits) - s->pos : len;
        }
        qcow_map_peek(q, s->pos, len, &map);
        if (map.kind == QCOW_MISS) {
            s->waiting = task_start(q, req, QCOW_TASK_MAP, s->pos, len, NULL) != NULL;
            break;
        }
        use_map(q, req, &map);
    }
}

static void flush_start(BlkQcow *q, BlkReq *req)
{
    qcow_state(req)->synced = true;
    if (blk_work_idle(&q->node) && !blk_meta_dirty(q->meta) && !q->freed->len)
        child_start(q, req, BLK_FLUSH, q->node.file, 0, 0, 0);
    else
        task_start(q, req, QCOW_TASK_FLUSH, 0, 0, NULL);
}

void qcow_step(BlkQcow *q, BlkReq *req)
{
    QcowState *s = qcow_state(req);

    if (req->op != BLK_FLUSH)
        start_pieces(q, req);
    if (s->outstanding || s->waiting)
        return;
    if (!s->err && !s->synced && (req->op == BLK_FLUSH || (req->fua && changes(req)))) {
        flush_start(q, req);
        if (s->outstanding)
            return;
    }
    if (s->counted)
        atomic_fetch_sub(&q->using[s->parity], 1);
    blk_complete(req, s->err);
}

/* The common case: all of @req is stored in one piece, and may be changed there. It goes to the
 * file as it is; false: it takes more. */
static bool pass(BlkQcow *q, BlkReq *req, unsigned parity)
{
    bool write = req->op == BLK_WRITE;
    QcowMap map;

    if ((!write && req->op != BLK_READ) || !req->len || req->fua || req->compress ||
        (write && (atomic_load_explicit(&q->corrupt, memory_order_relaxed) ||
                   qcow_alloc_meets(q, req->offset, req->len))))
        return false;
    qcow_map_peek(q, req->offset, req->len, &map);
    if (map.kind != QCOW_DATA || map.len != req->len || (write && !map.copied))
        return false;
    req->flags |= parity ? BLK_REQ_MARK : 0;
    blk_pass(&q->node, req, map.host);
    return true;
}

void qcow_passed(BlkNode *n, BlkReq *req)
{
    atomic_fetch_sub(&((BlkQcow *)n)->using[req->flags & BLK_REQ_MARK ? 1 : 0], 1);
}

void qcow_submit(BlkNode *n, BlkReq *req)
{
    BlkQcow *q = (BlkQcow *)n;
    QcowState *s = qcow_state(req);
    bool counted = req->op != BLK_FLUSH;
    unsigned parity = atomic_load(&q->epoch) & 1;

    if (!counted && !q->writable) {
        blk_complete(req, 0);
        return;
    }
    if (counted) {
        atomic_fetch_add(&q->using[parity], 1); /* keeps (3) */
        if (pass(q, req, parity))
            return;
    }
    memset(req->scratch, 0, sizeof req->scratch);
    s->pos = req->offset;
    s->parity = (uint8_t)parity;
    s->counted = counted;
    qcow_step(q, req);
}
