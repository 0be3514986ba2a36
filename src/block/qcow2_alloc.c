/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes of qcow2 images to clusters that are not there yet, or that somebody else uses too:
 *
 *   prepare  take clusters, read what surrounds the data in the first and the last  worker
 *   write    data and surroundings in one request to the file                       IoThread
 *   link     the L2 entries point to the clusters; what was there is let go of      worker
 *
 * Each has its range of clusters of the disk for itself until it is over; writes and discards that
 * meet it wait. An entry is thus linked after its data is written, and a flush, which syncs data
 * before it writes tables, never brings an entry to the disk whose data is not there.
 *
 * Where the tables are in memory and the worker is idle both steps run on the IoThread at once, so
 * that a first write costs what a rewrite does. Zeros around the data are not written where the
 * file has never been written to.
 *
 * Invariants: (1) ranges under way do not overlap. (2) Clusters taken are linked or given back.
 */
#include <errno.h>
#include <string.h>

#include "lodge/num.h"

#include "qcow2.h"

/* ---- ranges ---- */

QcowTask *qcow_alloc_meets(BlkQcow *q, uint64_t pos, uint64_t len)
{
    uint64_t first = pos >> q->h.cluster_bits;
    uint64_t n = ((pos + MAX(len, 1) - 1) >> q->h.cluster_bits) - first + 1;
    QcowTask *found = NULL;

    for (QcowTask *t = q->allocs; t; t = t->next)
        if (ranges_overlap(t->first, t->n, first, n) && (!found || t->first < found->first))
            found = t;
    return found;
}

void qcow_alloc_reserve(BlkQcow *q, QcowTask *t)
{
    t->first = t->pos >> q->h.cluster_bits;
    t->n = ((t->pos + t->len - 1) >> q->h.cluster_bits) - t->first + 1;
    t->prev = NULL;
    t->next = q->allocs;
    if (t->next)
        t->next->prev = t;
    q->allocs = t;
}

void qcow_wake(BlkQcow *q, BlkReq *waiters)
{
    while (waiters) {
        BlkReq *req = waiters;
        waiters = req->next;
        qcow_state(req)->waiting = false;
        qcow_step(q, req);
    }
}

BlkReq *qcow_alloc_release(BlkQcow *q, QcowTask *t)
{
    if (t->prev)
        t->prev->next = t->next;
    else
        q->allocs = t->next;
    if (t->next)
        t->next->prev = t->prev;
    return t->waiters;
}

/* ---- prepare ---- */

int qcow_read_plain(BlkQcow *q, uint64_t pos, uint8_t *buf, uint64_t len)
{
    int err = 0;

    while (len && !err) {
        const uint8_t *plain;
        QcowMap map;
        err = qcow_map(q, pos, len, &map);
        if (err)
            break;
        switch (map.kind) {
        case QCOW_DATA:
            err = blk_file_read_at(qcow_file(q), buf, map.len, map.host);
            break;
        case QCOW_PACKED:
            err = qcow_unpack(q, map.host, &plain);
            if (!err)
                memcpy(buf, plain + (pos & (q->cs - 1)), map.len);
            break;
        case QCOW_BELOW: {
            if (q->node.ref.path && !q->node.base)
                return EIO; /* opened without its base */
            uint64_t part = blk_base_part(&q->node, pos, map.len);
            memset(buf + part, 0, map.len - part);
            if (part)
                err = blk_pread(q->node.base, buf, pos, part);
            break;
        }
        case QCOW_ZEROS:
            memset(buf, 0, map.len);
            break;
        default:
            err = EIO;
        }
        buf += map.len;
        pos += map.len;
        len -= map.len;
    }
    return err;
}

/* Whether the run of @map from @pos on, whole clusters, reads as zeros. */
static bool reads_zero(const BlkQcow *q, const QcowMap *map, uint64_t pos, uint64_t len)
{
    uint64_t from = align_down(pos, q->cs);

    return map->kind == QCOW_ZEROS ||
           (map->kind == QCOW_BELOW && !qcow_shown(q, from, pos - from + len + q->cs));
}

/* What goes before and behind the data in its clusters. */
static int fill_edges(BlkQcow *q, QcowTask *t, const QcowMap *map, bool fresh)
{
    uint64_t start = t->first << q->h.cluster_bits, end = t->pos + t->got_len;
    bool zero = reads_zero(q, map, t->pos, t->got_len);
    int err = 0;

    t->head = t->pos - start;
    t->tail = qcow_round(q, end) - end;
    if (zero && fresh)
        t->head = t->tail = 0; /* a hole reads as zeros */
    uint64_t body = t->zeros ? t->got_len : 0, size = t->head + t->tail + body;
    if (!size)
        return 0;
    t->edges = g_try_malloc0(size);
    if (!t->edges)
        return ENOMEM;
    if (!zero && t->head)
        err = qcow_read_plain(q, start, t->edges, t->head);
    uint64_t disk = q->node.limits.size; /* its last cluster may be cut off */
    if (!zero && t->tail && end < disk && !err)
        err = qcow_read_plain(q, end, t->edges + t->head + body, MIN(t->tail, disk - end));
    return err;
}

/* The reservation is the IoThread's to change: what came of it goes into got_n and got_len. */
static int prepare(BlkQcow *q, QcowTask *t)
{
    uint64_t got;
    bool fresh;
    QcowMap map;

    int err = qcow_map(q, t->pos, t->len, &map);
    if (err)
        return err;
    if (map.kind == QCOW_BAD)
        return EIO;
    t->linking = !(map.kind == QCOW_DATA && map.copied);
    t->got_len = map.len;
    t->got_n = ((t->pos + map.len - 1) >> q->h.cluster_bits) - t->first + 1;
    if (!t->linking) {
        t->host = map.host - (t->pos & (q->cs - 1));
        return fill_edges(q, t, &(QcowMap){.kind = QCOW_ZEROS}, true);
    }
    err = qcow_l2_own(q, t->pos);
    if (!err)
        err = qcow_take(q, t->got_n, &t->host, &got, &fresh);
    if (err)
        return err;
    t->taken = true;
    if (got < t->got_n) {
        t->got_n = got;
        t->got_len = ((t->first + got) << q->h.cluster_bits) - t->pos;
    }
    return fill_edges(q, t, &map, fresh);
}

/* Whether prepare() would find all in memory. Never while the worker is at work. */
static bool prepare_inline(BlkQcow *q, const QcowTask *t)
{
    uint64_t end = t->pos + t->len;
    QcowMap map;

    if (!blk_work_idle(&q->node) || !qcow_l2_ready(q, t->pos) || !qcow_take_ready(q) ||
        qcow_freed_full(q))
        return false;
    if (!((t->pos | end) & (q->cs - 1)))
        return true;
    qcow_map_peek(q, t->pos, t->len, &map);
    return reads_zero(q, &map, t->pos, t->len);
}

/* ---- link ---- */

static int give_back(BlkQcow *q, QcowTask *t, int why)
{
    if (t->taken)
        (void)qcow_ref_add(q, t->host >> q->h.cluster_bits, t->got_n, -1); /* else it leaks */
    t->taken = false;
    return why;
}

static int link_clusters(BlkQcow *q, QcowTask *t)
{
    uint64_t pos = t->first << q->h.cluster_bits;
    uint64_t old[QCOW_BLOCK / 8], new[QCOW_BLOCK / 8];
    int err = t->n <= G_N_ELEMENTS(old) ? 0 : EINVAL;

    for (uint64_t i = 0; i < t->n && !err; i++) {
        err = qcow_l2_get(q, pos + (i << q->h.cluster_bits), &old[i]);
        new[i] = (t->host + (i << q->h.cluster_bits)) | QCOW_COPIED;
    }
    if (!err)
        err = qcow_l2_put(q, pos, new, t->n);
    if (err)
        return give_back(q, t, err);
    t->taken = false; /* keeps (2) */
    for (uint64_t i = 0; i < t->n; i++)
        qcow_l2_drop(q, old[i]);
    return 0;
}

/* ---- the steps ---- */

static void alloc_over(BlkQcow *q, QcowTask *t, int err)
{
    BlkReq *req = t->parent;
    QcowState *s = qcow_state(req);

    if (err && !s->err)
        s->err = err; /* before those who wait go on */
    BlkReq *waiters = qcow_alloc_release(q, t);
    qcow_task_free(q, t);
    qcow_wake(q, waiters);
    qcow_piece_done(q, req, err);
}

static int run_link(BlkNode *n, BlkWork *w)
{
    QcowTask *t = (QcowTask *)w;

    qcow_freed_trim(t->q);
    return link_clusters(t->q, t);
}

static int run_give_back(BlkNode *n, BlkWork *w)
{
    QcowTask *t = (QcowTask *)w;

    return give_back(t->q, t, t->work.err);
}

static void link_done(BlkNode *n, BlkWork *w, int err)
{
    QcowTask *t = (QcowTask *)w;

    alloc_over(t->q, t, err);
}

static void written(BlkReq *io, int err)
{
    QcowTask *t = io->opaque;
    BlkQcow *q = t->q;

    if (!err && !t->linking) {
        alloc_over(q, t, 0);
        return;
    }
    if (!err && blk_work_idle(&q->node) && qcow_l2_ready(q, t->pos) && !qcow_freed_full(q)) {
        alloc_over(q, t, link_clusters(q, t));
        return;
    }
    t->work.run = err ? run_give_back : run_link;
    t->work.done = link_done;
    t->work.err = err;
    blk_work(&q->node, &t->work);
}

/* The clusters are there: write. */
static void write_data(BlkQcow *q, QcowTask *t)
{
    const BlkReq *req = t->parent;
    uint64_t start = t->first << q->h.cluster_bits;
    unsigned n = 0;

    t->iov = g_try_new(struct iovec, req->niov + 3);
    t->io = (BlkReq){.op = BLK_WRITE, .done = written, .opaque = t};
    if (!t->iov) {
        written(&t->io, ENOMEM);
        return;
    }
    if (t->head)
        t->iov[n++] = (struct iovec){t->edges, t->head};
    if (t->zeros)
        t->iov[n++] = (struct iovec){t->edges + t->head, t->len};
    else
        n += iov_slice(req->iov, req->niov, t->pos - req->offset, t->len, t->iov + n);
    if (t->tail)
        t->iov[n++] = (struct iovec){t->edges + t->head + (t->zeros ? t->len : 0), t->tail};
    t->io.offset = t->host + (t->pos - start) - t->head;
    t->io.len = t->head + t->len + t->tail;
    t->io.iov = t->iov;
    t->io.niov = n;
    blk_start(q->node.file, &t->io);
}

static void prepared(QcowTask *t, int err)
{
    BlkQcow *q = t->q;
    BlkReq *req = t->parent;
    QcowState *s = qcow_state(req);
    uint64_t asked = t->len;
    bool zeros = t->zeros;

    if (err && !t->taken) {
        alloc_over(q, t, err);
        return;
    }
    t->n = t->got_n;
    t->len = t->got_len;
    if (err) {
        t->io = (BlkReq){.opaque = t};
        written(&t->io, err);
        return;
    }
    uint64_t pos = t->pos + t->len, rest = asked - t->len;
    write_data(q, t); /* completes from the loop at the earliest */
    /* The clusters in a row were fewer than asked for; nobody came between. */
    if (rest && !qcow_alloc_start(q, req, pos, rest, zeros) && !s->err)
        s->err = ENOMEM;
}

static int run_prepare(BlkNode *n, BlkWork *w)
{
    QcowTask *t = (QcowTask *)w;

    return prepare(t->q, t);
}

static void prepare_done(BlkNode *n, BlkWork *w, int err)
{
    QcowTask *t = (QcowTask *)w;

    prepared(t, err);
}

bool qcow_alloc_start(BlkQcow *q, BlkReq *req, uint64_t pos, uint64_t len, bool zeros)
{
    QcowTask *t = qcow_task_new(q, req, QCOW_TASK_ALLOC);

    if (!t)
        return false;
    t->pos = pos;
    t->len = len;
    t->zeros = zeros;
    qcow_state(req)->outstanding++;
    qcow_alloc_reserve(q, t); /* keeps (1) */
    if (prepare_inline(q, t)) {
        prepared(t, prepare(q, t));
        return true;
    }
    t->work.run = run_prepare;
    t->work.done = prepare_done;
    blk_work(&q->node, &t->work);
    return true;
}
