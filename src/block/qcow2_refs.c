/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reference counts of a qcow2 image: a table of blocks of counts, and which clusters are free.
 *
 * A pool of clusters that are known to be free, found by one look through a block of counts, makes
 * taking one a matter of memory. Where a region has no block of counts yet, its block goes into the
 * region's own first cluster, which no count can claim; where the table itself is full, a larger
 * one is written whole, synced, and switched to by one write of the header.
 *
 * What tables let go of is not free yet: on the disk they may still refer to it, and requests that
 * were looked up before may still use it. It waits in a list until a flush has brought the tables
 * to the disk and those requests are through (epochs, below). A power cut before that leaks it.
 *
 * Epochs: a request counts itself in using[] under the parity of the epoch in which it began. The
 * epoch goes from E to E+1 only when nothing of E-1 is left. So what was let go of in epoch E is
 * unused when the epoch is E+2, or E+1 with nothing left of E.
 *
 * Spec: the specification, "Host cluster management".
 *
 * Threads: the worker; see qcow2.h. Invariants: (1) a cluster is handed out with a count of 0 that
 * becomes 1, and lies in no table that we know of. (2) A count is lowered only when no table on the
 * disk needs it. (3) The pool holds only clusters with a count of 0.
 */
#include <errno.h>
#include <string.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "qcow2.h"

#define POOL_MAX 256u    /* clusters looked for at a time */
#define FREED_FULL 8192u /* entries of the list that make the worker flush */

uint64_t qcow_ref_at(const uint8_t *t, uint64_t i, unsigned order)
{
    switch (order) {
    case 3:
        return t[i];
    case 4:
        return load_be16(t + i * 2);
    case 5:
        return load_be32(t + i * 4);
    case 6:
        return load_be64(t + i * 8);
    default: {
        unsigned bits = 1u << order, per_byte = 8 / bits;
        return t[i / per_byte] >> (i % per_byte * bits) & ((1u << bits) - 1);
    }
    }
}

void qcow_ref_put(uint8_t *t, uint64_t i, unsigned order, uint64_t v)
{
    switch (order) {
    case 3:
        t[i] = (uint8_t)v;
        break;
    case 4:
        store_be16(t + i * 2, (uint16_t)v);
        break;
    case 5:
        store_be32(t + i * 4, (uint32_t)v);
        break;
    case 6:
        store_be64(t + i * 8, v);
        break;
    default: {
        unsigned bits = 1u << order, per_byte = 8 / bits, shift = i % per_byte * bits;
        unsigned mask = ((1u << bits) - 1) << shift;
        t[i / per_byte] = (uint8_t)((t[i / per_byte] & ~mask) | (v << shift & mask));
    }
    }
}

/* Offset of the block of counts of @cluster, 0: there is none. Return: 0, or EIO: astray. */
static int ref_block(BlkQcow *q, uint64_t cluster, uint64_t *ret)
{
    uint64_t i = cluster >> q->refs_bits;
    uint64_t at = i < q->rt_n ? q->rt[i] & QCOW_REF_OFFSET_MASK : 0;

    *ret = at;
    if (at && (at & (q->cs - 1) || at >= QCOW_HOST_MAX || qcow_area_at(q, at, q->cs) ||
               qcow_guard_at(q, at) & QCOW_GUARD_L2)) {
        qcow_mark_corrupt(q);
        if (!atomic_exchange(&q->warned, true))
            lodge_warn("disk %s: '%s': refcount table entry %" G_GUINT64_FORMAT " (0x%" PRIx64
                       ") points astray; run lodge image check",
                       q->node.name, qcow_file(q)->path, i, at);
        return EIO;
    }
    return 0;
}

/* Where in the file the count of @cluster lies: the bytes at *ret_at hold it as number *ret_i. */
static void ref_place(const BlkQcow *q, uint64_t block, uint64_t cluster, uint64_t *ret_at,
                      uint64_t *ret_i, unsigned *ret_len)
{
    uint64_t i = cluster & (((uint64_t)1 << q->refs_bits) - 1);
    uint64_t bit = i << q->h.refcount_order;

    *ret_len = q->h.refcount_order > 3 ? 1u << (q->h.refcount_order - 3) : 1;
    *ret_at = block + bit / 8;
    *ret_i = q->h.refcount_order < 3 ? i % (8u >> q->h.refcount_order) : 0;
}

int qcow_ref_get(BlkQcow *q, uint64_t cluster, uint64_t *ret)
{
    uint64_t block, at, i;
    unsigned len;
    uint8_t b[8];

    *ret = 0;
    int err = ref_block(q, cluster, &block);
    if (err || !block)
        return err;
    ref_place(q, block, cluster, &at, &i, &len);
    err = blk_meta_read(q->meta, at, b, len);
    if (!err)
        *ret = qcow_ref_at(b, i, q->h.refcount_order);
    return err;
}

/* The block of counts is there. */
static int put_count(BlkQcow *q, uint64_t cluster, uint64_t v)
{
    uint64_t block, at, i;
    unsigned len;
    uint8_t b[8];

    int err = ref_block(q, cluster, &block);
    if (err || !block)
        return err ? err : EIO;
    ref_place(q, block, cluster, &at, &i, &len);
    err = blk_meta_read(q->meta, at, b, len);
    if (err)
        return err;
    qcow_ref_put(b, i, q->h.refcount_order, v);
    return blk_meta_write(q->meta, at, b, len, QCOW_RANK_REFS);
}

/* ---- the tables themselves ---- */

static int fresh_cluster(BlkQcow *q, uint64_t at, unsigned rank)
{
    int err = 0;

    for (uint32_t i = 0; i < q->cs && !err; i += q->block)
        err = blk_meta_fresh(q->meta, at + i, rank);
    return err;
}

static int set_rt(BlkQcow *q, uint64_t i, uint64_t at)
{
    uint8_t b[8];

    if (!qcow_guard_room(q))
        return ENOMEM;
    store_be64(b, at);
    int err = blk_meta_write(q->meta, q->h.rt_offset + i * 8, b, sizeof b, QCOW_RANK_REF_TABLE);
    if (err)
        return err;
    blk_meta_lock(q->meta);
    q->rt[i] = at;
    qcow_guard_add_locked(q, at, QCOW_GUARD_REFS);
    blk_meta_unlock(q->meta);
    return 0;
}

/* Whether the host can have @n clusters from @first on. */
static int check_room(const BlkQcow *q, uint64_t first, uint64_t n)
{
    uint64_t end = first + n;

    if (end > QCOW_HOST_MAX >> q->h.cluster_bits)
        return ENOSPC;
    if (qcow_file(q)->block_device && end << q->h.cluster_bits > qcow_file(q)->size)
        return ENOSPC;
    return 0;
}

/* A table that the active ones refer to? Counts may be wrong, and then it looks free. */
static bool in_tables(const BlkQcow *q, uint64_t at, uint64_t len)
{
    if (qcow_area_at(q, at, len))
        return true;
    for (uint32_t i = 0; i < q->h.l1_size; i++)
        if (q->l1[i] && ranges_overlap(q->l1[i] & QCOW_OFFSET_MASK, q->cs, at, len))
            return true;
    for (uint32_t i = 0; i < q->rt_n; i++)
        if (q->rt[i] && q->rt[i] < QCOW_HOST_MAX && ranges_overlap(q->rt[i], q->cs, at, len))
            return true;
    return false;
}

static int corrupt(BlkQcow *q, uint64_t at)
{
    qcow_mark_corrupt(q);
    if (!atomic_exchange(&q->warned, true))
        lodge_warn("disk %s: '%s': reference counts say that offset 0x%" PRIx64
                   " is free, but a table lies there; run lodge image check",
                   q->node.name, qcow_file(q)->path, at);
    return EIO;
}

/* Blocks of counts that count themselves and @n clusters behind them. */
static uint64_t own_blocks(const BlkQcow *q, uint64_t n)
{
    uint64_t per = (uint64_t)1 << q->refs_bits, blocks = 0, need = 1;

    for (; need != blocks; need = (n + blocks + per - 1) / per)
        blocks = need;
    return blocks;
}

/* Write a refcount table of twice the size, with the blocks of counts that itself needs, behind all
 * that the present one can count, and switch to it. */
static int grow_rt(BlkQcow *q)
{
    uint64_t first = (uint64_t)q->rt_n << q->refs_bits;
    uint64_t rt_clusters = MIN((uint64_t)q->h.rt_clusters * 2, QCOW_RT_MAX / q->cs);
    uint64_t blocks = own_blocks(q, rt_clusters);
    BlkFile *f = qcow_file(q);
    uint8_t fields[12];

    uint64_t entries = rt_clusters * q->cs / 8, old_n = q->rt_n;
    if (rt_clusters <= q->h.rt_clusters || old_n + blocks > entries)
        return ENOSPC;
    int err = check_room(q, first, blocks + rt_clusters);
    if (err)
        return err;
    g_autofree uint8_t *counts = g_try_malloc0(blocks * q->cs);
    g_autofree uint64_t *table = g_try_new0(uint64_t, entries);
    g_autofree uint64_t *raw = g_try_new0(uint64_t, entries);
    if (!counts || !table || !raw)
        return ENOMEM;
    for (uint64_t i = 0; i < blocks + rt_clusters; i++)
        qcow_ref_put(counts, i, q->h.refcount_order, 1);
    memcpy(table, q->rt, old_n * sizeof *table);
    for (uint64_t i = 0; i < blocks; i++)
        table[old_n + i] = (first + i) << q->h.cluster_bits;
    for (uint64_t i = 0; i < entries; i++)
        store_be64(&raw[i], table[i]);
    uint64_t at = first << q->h.cluster_bits, rt_at = (first + blocks) << q->h.cluster_bits;
    err = blk_meta_flush(q->meta); /* the new table lists blocks of counts that are new, too */
    if (!err)
        err = blk_file_write_at(f, counts, blocks * q->cs, at);
    if (!err)
        err = blk_file_write_at(f, raw, entries * 8, rt_at);
    if (!err)
        err = blk_file_sync(f);
    store_be64(fields, rt_at);
    store_be32(fields + 8, (uint32_t)rt_clusters);
    if (!err)
        err = qcow_header_put(q, QCOW_AT_RT, fields, sizeof fields);
    if (err)
        return err;
    uint64_t old_at = q->h.rt_offset, old_clusters = q->h.rt_clusters;
    blk_meta_lock(q->meta);
    g_free(q->rt);
    q->rt = g_steal_pointer(&table);
    q->rt_n = entries;
    q->h.rt_offset = rt_at;
    q->h.rt_clusters = rt_clusters;
    blk_meta_unlock(q->meta);
    qcow_areas_set(q);
    q->fresh_from = MAX(q->fresh_from, rt_at + rt_clusters * q->cs);
    qcow_free_later(q, old_at >> q->h.cluster_bits, old_clusters, true);
    return 0;
}

/* Give the region of @cluster a block of counts, in the region's first cluster. */
static int new_ref_block(BlkQcow *q, uint64_t cluster)
{
    uint64_t i = cluster >> q->refs_bits, first = i << q->refs_bits;
    uint64_t at = first << q->h.cluster_bits;
    int err = 0;

    while (!err && i >= q->rt_n)
        err = grow_rt(q);
    if (err || q->rt[i])
        return err;
    err = check_room(q, first, 1);
    if (err)
        return err;
    if (in_tables(q, at, q->cs))
        return corrupt(q, at);
    err = fresh_cluster(q, at, QCOW_RANK_REFS);
    if (!err)
        err = set_rt(q, i, at);
    q->fresh_from = MAX(q->fresh_from, at + q->cs);
    return err ? err : put_count(q, first, 1);
}

int qcow_ref_set(BlkQcow *q, uint64_t cluster, uint64_t v)
{
    uint64_t block;
    int err = ref_block(q, cluster, &block);

    if (!err && !block)
        err = v ? new_ref_block(q, cluster) : 0;
    if (err || (!block && !v))
        return err;
    return put_count(q, cluster, v);
}

int qcow_ref_add(BlkQcow *q, uint64_t first, uint64_t n, int delta)
{
    int err = 0;

    for (uint64_t c = first; c < first + n && !err; c++) {
        uint64_t v;
        err = qcow_ref_get(q, c, &v);
        if (!err && (delta > 0 ? v >= q->ref_max : v == 0))
            err = ERANGE;
        if (!err)
            err = qcow_ref_set(q, c, delta > 0 ? v + 1 : v - 1);
        if (!err && delta < 0 && v == 1)
            q->scan = MIN(q->scan, c);
    }
    return err;
}

/* ---- free clusters ---- */

void qcow_pool_reset(BlkQcow *q, uint64_t scan)
{
    q->pool = q->pool_end = 0;
    q->scan = scan;
}

/* Look for free clusters from @c on, up to the end of the block of metadata that holds its count.
 * *ret_first == *ret_end: there are none. */
static int look(BlkQcow *q, uint64_t c, uint64_t *ret_first, uint64_t *ret_end)
{
    uint64_t per = ((uint64_t)q->block * 8) >> q->h.refcount_order;
    uint64_t end = align_down(c, per) + per, block, at, i;
    unsigned len;

    *ret_first = *ret_end = end;
    int err = ref_block(q, c, &block);
    if (!err && !block) {
        err = new_ref_block(q, c);
        if (!err)
            err = ref_block(q, c, &block);
    }
    if (err || !block)
        return err ? err : EIO;
    ref_place(q, block, align_down(c, per), &at, &i, &len);
    err = blk_meta_load(q->meta, at);
    if (err)
        return err;
    blk_meta_lock(q->meta);
    const uint8_t *t = blk_meta_peek(q->meta, at);
    while (c < end && qcow_ref_at(t, c % per, q->h.refcount_order))
        c++;
    *ret_first = c;
    while (c < end && c - *ret_first < POOL_MAX && !qcow_ref_at(t, c % per, q->h.refcount_order))
        c++;
    *ret_end = c;
    blk_meta_unlock(q->meta);
    return 0;
}

static int fill_pool(BlkQcow *q)
{
    uint64_t first, end;

    do {
        int err = check_room(q, q->scan, 1);
        if (!err)
            err = look(q, q->scan, &first, &end);
        if (err)
            return err;
        q->scan = first;
    } while (first == end);
    if (qcow_file(q)->block_device)
        end = MIN(end, qcow_file(q)->size >> q->h.cluster_bits);
    if (end <= first)
        return ENOSPC;
    if (in_tables(q, first << q->h.cluster_bits, (end - first) << q->h.cluster_bits))
        return corrupt(q, first << q->h.cluster_bits); /* keeps (1) */
    q->pool = first;
    q->pool_end = end;
    q->scan = end;
    return 0;
}

bool qcow_take_ready(BlkQcow *q)
{
    uint64_t block, at, i;
    unsigned len;

    if (q->pool == q->pool_end || ref_block(q, q->pool, &block) || !block)
        return false;
    ref_place(q, block, q->pool, &at, &i, &len);
    blk_meta_lock(q->meta);
    bool ready = blk_meta_peek(q->meta, align_down(at, q->block));
    blk_meta_unlock(q->meta);
    return ready;
}

/* Set @n counts from @first on, all in one block of metadata, to 1. */
static int count_run(BlkQcow *q, uint64_t first, uint64_t n)
{
    uint8_t ones[512];
    uint64_t block, at, i, most = sizeof ones >> (q->h.refcount_order > 3
                                                      ? q->h.refcount_order - 3 : 0);
    unsigned len;
    int err = 0;

    if (q->h.refcount_order < 3) {
        for (uint64_t c = first; c < first + n && !err; c++)
            err = put_count(q, c, 1);
        return err;
    }
    for (uint64_t k = 0; k < MIN(n, most); k++)
        qcow_ref_put(ones, k, q->h.refcount_order, 1);
    err = ref_block(q, first, &block);
    while (n && !err) {
        uint64_t part = MIN(n, most);
        ref_place(q, block, first, &at, &i, &len);
        err = blk_meta_write(q->meta, at, ones, part * len, QCOW_RANK_REFS);
        first += part;
        n -= part;
    }
    return err;
}

int qcow_take(BlkQcow *q, uint64_t want, uint64_t *ret_host, uint64_t *ret_n, bool *ret_fresh)
{
    int err = q->pool == q->pool_end ? fill_pool(q) : 0;

    if (err)
        return err;
    uint64_t n = MIN(want, q->pool_end - q->pool), at = q->pool << q->h.cluster_bits;
    uint64_t end = at + (n << q->h.cluster_bits);
    if (at < q->fresh_from && end > q->fresh_from) { /* all of one kind */
        n = (q->fresh_from - at) >> q->h.cluster_bits;
        end = q->fresh_from;
    }
    err = count_run(q, q->pool, n);
    if (err)
        return err;
    *ret_host = at;
    *ret_n = n;
    *ret_fresh = at >= q->fresh_from && !qcow_file(q)->block_device;
    q->fresh_from = MAX(q->fresh_from, end);
    q->pool += n;
    return 0;
}

/* More clusters in a row than one block counts: behind all that is counted, with their blocks in
 * front of them and not between. */
static int take_long_run(BlkQcow *q, uint64_t n, uint64_t *ret_host)
{
    uint64_t blocks = own_blocks(q, n), region;
    int err = 0;

    do {
        for (region = q->rt_n; region && !q->rt[region - 1];)
            region--;
        if (region + blocks > q->rt_n)
            err = grow_rt(q); /* which takes a region for itself */
    } while (!err && region + blocks > q->rt_n);
    uint64_t first = region << q->refs_bits, at = first << q->h.cluster_bits;
    if (!err)
        err = check_room(q, first, blocks + n);
    if (!err && in_tables(q, at, (blocks + n) << q->h.cluster_bits))
        err = corrupt(q, at);
    for (uint64_t i = 0; i < blocks && !err; i++) {
        uint64_t block = at + (i << q->h.cluster_bits);
        err = fresh_cluster(q, block, QCOW_RANK_REFS);
        if (!err)
            err = set_rt(q, region + i, block);
    }
    for (uint64_t i = 0; i < blocks + n && !err; i++)
        err = put_count(q, first + i, 1);
    *ret_host = at + (blocks << q->h.cluster_bits);
    q->fresh_from = MAX(q->fresh_from, at + ((blocks + n) << q->h.cluster_bits));
    return err;
}

int qcow_take_run(BlkQcow *q, uint64_t n, uint64_t *ret_host)
{
    qcow_pool_reset(q, q->pool != q->pool_end ? MIN(q->scan, q->pool) : q->scan);
    uint64_t c = q->scan, from = c, have = 0;

    if (n >= (uint64_t)1 << q->refs_bits)
        return take_long_run(q, n, ret_host);
    while (have < n) {
        uint64_t first, end;
        int err = check_room(q, from, n);
        if (!err)
            err = look(q, c, &first, &end);
        if (err)
            return err;
        if (first != c || !have) {
            from = first;
            have = 0;
        }
        have += end - first;
        c = end;
    }
    uint64_t at = from << q->h.cluster_bits;
    if (in_tables(q, at, n << q->h.cluster_bits))
        return corrupt(q, at);
    int err = 0;
    for (uint64_t i = 0; i < n && !err; i++)
        err = put_count(q, from + i, 1);
    if (err)
        return err;
    q->fresh_from = MAX(q->fresh_from, at + (n << q->h.cluster_bits));
    *ret_host = at;
    return 0;
}

/* ---- letting go ---- */

void qcow_free_later(BlkQcow *q, uint64_t first, uint64_t n, bool table)
{
    uint64_t epoch = atomic_load(&q->epoch);

    if (q->freed->len) {
        QcowFreed *last = &g_array_index(q->freed, QcowFreed, q->freed->len - 1);
        if (last->first + last->n == first && last->table == table && last->epoch == epoch) {
            last->n += n;
            return;
        }
    }
    QcowFreed f = {.first = first, .n = n, .epoch = epoch, .table = table};
    g_array_append_val(q->freed, f);
}

bool qcow_freed_full(const BlkQcow *q)
{
    return q->freed->len >= FREED_FULL;
}

void qcow_freed_trim(BlkQcow *q)
{
    if (qcow_freed_full(q))
        (void)qcow_flush(q); /* whoever flushes next is told of the error */
}

static void advance(BlkQcow *q)
{
    uint64_t e = atomic_load(&q->epoch);

    if (!atomic_load(&q->using[(e + 1) & 1]))
        atomic_store(&q->epoch, e + 1);
}

/* Whether no request of epoch @e or before is left. */
static bool over(BlkQcow *q, uint64_t e)
{
    uint64_t now = atomic_load(&q->epoch);

    return e + 2 <= now || (e + 1 == now && !atomic_load(&q->using[e & 1]));
}

/* Give the host what @first.. had. Failures are of no consequence: it is only space. */
static void punch(BlkQcow *q, uint64_t first, uint64_t n)
{
    BlkFile *f = qcow_file(q);
    uint64_t at = first << q->h.cluster_bits, len = n << q->h.cluster_bits, end;

    if (f->block_device || !n || f->no_punch || blk_file_length(f, &end) || at >= end)
        return;
    (void)blk_file_zero_at(f, at, MIN(len, end - at));
}

static void free_range(BlkQcow *q, const QcowFreed *f)
{
    uint64_t start = f->first, n = 0; /* a run that became free */

    for (uint64_t c = f->first; c < f->first + f->n; c++) {
        uint64_t v;
        if (qcow_ref_get(q, c, &v) || qcow_ref_add(q, c, 1, -1)) {
            if (!atomic_exchange(&q->warned, true))
                lodge_warn("disk %s: '%s': cluster at 0x%" PRIx64
                           " was in use, but is counted as free; run lodge image check",
                           q->node.name, qcow_file(q)->path, c << q->h.cluster_bits);
            v = 0;
        }
        if (v == 1) {
            start = n ? start : c;
            n++;
            continue;
        }
        punch(q, start, n);
        n = 0;
    }
    if (f->table)
        blk_meta_forget(q->meta, f->first << q->h.cluster_bits, f->n << q->h.cluster_bits);
    else
        punch(q, start, n);
}

int qcow_flush(BlkQcow *q)
{
    int err = qcow_header_redo(q);
    guint kept = 0;

    if (!err)
        err = blk_meta_flush(q->meta);
    if (!err)
        err = qcow_write_mark(q);
    if (err || !q->freed->len)
        return err;
    if (q->guard_old && !qcow_guard_build(q))
        return ENOMEM; /* before anybody gets what it still holds */
    /* Lowering counts brings blocks in, which may flush, but adds nothing to the list. */
    advance(q);
    advance(q);
    for (guint i = 0; i < q->freed->len; i++) {
        QcowFreed f = g_array_index(q->freed, QcowFreed, i);
        if (over(q, f.epoch)) /* keeps (2) */
            free_range(q, &f);
        else
            g_array_index(q->freed, QcowFreed, kept++) = f;
    }
    g_array_set_size(q->freed, kept);
    qcow_packer_forget(q);
    return 0;
}

int qcow_settle(BlkQcow *q)
{
    int err;

    do
        err = qcow_flush(q);
    while (!err && (q->freed->len || blk_meta_dirty(q->meta)));
    return err;
}
