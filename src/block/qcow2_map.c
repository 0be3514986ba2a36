/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a piece of a qcow2 disk is: the active L1 table, whole in memory, and the L2 tables, in the
 * node's cache of metadata in blocks of 4 KiB (512 clusters each).
 *
 * An entry that points into the header, the active tables (qcow2_guard.c) or past 2^56, or is not
 * aligned, is BAD: the request gets EIO and the log one line, since following it could destroy the
 * image; where it was to change something, the image takes no changes any more.
 *
 * Lookups run on any thread with the cache's lock held and never block; changes are the worker's.
 *
 * Spec: the specification, "Cluster mapping", "Extended L2 Entries".
 */
#include <errno.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "qcow2.h"

#define SUBCLUSTERS 32u

static void warn_once(BlkQcow *q, const char *what, uint64_t e)
{
    if (atomic_exchange(&q->warned, true))
        return;
    lodge_warn("disk %s: '%s': %s 0x%" PRIx64 " points astray; run lodge image check", q->node.name,
               qcow_file(q)->path, what, e);
}

const QcowArea *qcow_area_at(const BlkQcow *q, uint64_t at, uint64_t len)
{
    if (at >= q->areas_end) /* as good as always */
        return NULL;
    for (unsigned i = 0; i < q->n_areas; i++)
        if (ranges_overlap(at, len, q->areas[i].at, q->areas[i].len))
            return &q->areas[i];
    return NULL;
}

static bool place_ok(const BlkQcow *q, uint64_t at)
{
    return !(at & (q->cs - 1)) && at < QCOW_HOST_MAX && !qcow_area_at(q, at, q->cs);
}

bool qcow_data_ok(const BlkQcow *q, uint64_t at)
{
    return place_ok(q, at) && !qcow_guard_at(q, at);
}

bool qcow_table_ok(const BlkQcow *q, uint64_t at)
{
    return place_ok(q, at) && !(qcow_guard_at(q, at) & QCOW_GUARD_REFS);
}

bool qcow_packed_range(const BlkQcow *q, uint64_t e, uint64_t *ret_at, uint32_t *ret_len)
{
    unsigned x = 62 - (q->h.cluster_bits - 8);
    uint64_t at = e & (((uint64_t)1 << x) - 1);
    uint64_t sectors = (e & (QCOW_COMPRESSED - 1)) >> x;
    uint64_t len = (sectors + 1) * BLK_SECTOR - at % BLK_SECTOR;

    *ret_at = at;
    *ret_len = len;
    if (at + len > QCOW_HOST_MAX || qcow_area_at(q, at, len))
        return false;
    for (uint64_t c = align_down(at, q->cs); c < at + len; c += q->cs)
        if (qcow_guard_at(q, c))
            return false;
    return true;
}

/* The L2 table of @pos by the L1 table: 0 none, 1 astray. */
static uint64_t l2_table(const BlkQcow *q, uint64_t pos)
{
    uint64_t i = pos >> (q->h.cluster_bits + q->l2_bits);
    uint64_t at = i < q->h.l1_size ? q->l1[i] & QCOW_OFFSET_MASK : 0;

    if (at && !qcow_table_ok(q, at))
        return 1;
    return at;
}

static uint64_t entry_offset(const BlkQcow *q, uint64_t pos)
{
    uint64_t i = pos >> q->h.cluster_bits & (((uint64_t)1 << q->l2_bits) - 1);

    return i * q->entry;
}

uint64_t qcow_block_span(const BlkQcow *q, uint64_t pos)
{
    uint64_t span = (uint64_t)(q->block / q->entry) << q->h.cluster_bits;

    return span - (pos & (span - 1)); /* a power of two; this is on every request's way */
}

/* What entry @p says; @map->host is that of the cluster's start. */
static void decode(const BlkQcow *q, const uint8_t *p, QcowMap *map)
{
    uint64_t e = load_be64(p), at = e & QCOW_OFFSET_MASK;

    map->copied = e & QCOW_COPIED;
    map->host = at;
    if (e & QCOW_COMPRESSED) {
        uint64_t from;
        uint32_t len;
        map->kind = qcow_packed_range(q, e, &from, &len) ? QCOW_PACKED : QCOW_BAD;
        map->host = e;
    } else if (q->h.version >= 3 && !q->extended && e & QCOW_ZERO) {
        map->kind = QCOW_ZEROS;
    } else if (!at) {
        map->kind = QCOW_BELOW;
    } else {
        map->kind = qcow_data_ok(q, at) ? QCOW_DATA : QCOW_BAD;
    }
    if (map->kind == QCOW_BAD)
        map->host = e;
}

static QcowKind sub_kind(uint64_t bits, unsigned i)
{
    return bits >> (32 + i) & 1 ? QCOW_ZEROS : bits >> i & 1 ? QCOW_DATA : QCOW_BELOW;
}

/* The run of subclusters at @pos, inside its cluster. */
static void decode_sub(const BlkQcow *q, const uint8_t *p, uint64_t pos, QcowMap *map)
{
    uint32_t sub = q->cs / SUBCLUSTERS, in = pos & (q->cs - 1);
    uint64_t bits = load_be64(p + 8);
    unsigned i = in / sub, end = i + 1;
    bool stored = map->kind == QCOW_DATA;

    if (map->kind == QCOW_PACKED || map->kind == QCOW_BAD)
        return;
    map->kind = sub_kind(bits, i);
    while (end < SUBCLUSTERS && sub_kind(bits, end) == map->kind)
        end++;
    map->len = MIN(map->len, (uint64_t)end * sub - in);
    if (map->kind == QCOW_DATA && !stored)
        map->kind = QCOW_BAD; /* allocated, but nowhere */
}

static bool goes_on(const BlkQcow *q, const QcowMap *run, const QcowMap *next, uint64_t n)
{
    if (run->kind != next->kind || run->kind == QCOW_PACKED || run->kind == QCOW_BAD)
        return false;
    return run->kind != QCOW_DATA ||
           (run->copied == next->copied && next->host == run->host + n * q->cs);
}

/* Context: meta locked. @len at least 1. */
static void map_locked(BlkQcow *q, uint64_t pos, uint64_t len, QcowMap *map)
{
    uint64_t table = l2_table(q, pos), in = pos & (q->cs - 1);
    uint64_t l2_span = (uint64_t)q->cs << q->l2_bits;

    *map = (QcowMap){.kind = QCOW_BELOW};
    if (table <= 1) {
        map->kind = table ? QCOW_BAD : QCOW_BELOW;
        map->len = MIN(len, l2_span - pos % l2_span);
        if (table)
            warn_once(q, "L1 entry", q->l1[pos / l2_span]);
        return;
    }
    uint64_t at = entry_offset(q, pos);
    map->table = table + align_down(at, q->block);
    const uint8_t *b = blk_meta_peek(q->meta, map->table);
    if (!b) {
        map->kind = QCOW_MISS;
        return;
    }
    b += at % q->block;
    decode(q, b, map);
    map->len = MIN(len, q->cs - in);
    if (q->extended) {
        decode_sub(q, b, pos, map);
    } else {
        uint64_t most = MIN(len, qcow_block_span(q, pos)), n = 1;
        for (; map->len < most; n++) {
            QcowMap next;
            decode(q, b + n * q->entry, &next);
            if (!goes_on(q, map, &next, n))
                break;
            map->len = MIN(most, map->len + q->cs);
        }
    }
    if (map->kind == QCOW_DATA)
        map->host += in;
    else if (map->kind == QCOW_BAD)
        warn_once(q, "L2 entry", map->host);
}

void qcow_map_peek(BlkQcow *q, uint64_t pos, uint64_t len, QcowMap *ret)
{
    blk_meta_lock(q->meta);
    map_locked(q, pos, len, ret);
    blk_meta_unlock(q->meta);
}

int qcow_map(BlkQcow *q, uint64_t pos, uint64_t len, QcowMap *ret)
{
    while (true) {
        qcow_map_peek(q, pos, len, ret);
        if (ret->kind != QCOW_MISS)
            return 0;
        int err = blk_meta_load(q->meta, ret->table);
        if (err)
            return err;
    }
}

/* ---- changes ---- */

int qcow_l1_put(BlkQcow *q, uint32_t i, uint64_t e)
{
    uint8_t b[8];

    if (!qcow_guard_room(q))
        return ENOMEM;
    store_be64(b, e);
    int err = blk_meta_write(q->meta, q->h.l1_offset + (uint64_t)i * 8, b, sizeof b, QCOW_RANK_L1);
    if (err)
        return err;
    blk_meta_lock(q->meta);
    q->guard_old = q->guard_old || ((q->l1[i] ^ e) & q->l1[i] & QCOW_OFFSET_MASK);
    q->l1[i] = e;
    qcow_guard_add_locked(q, e & QCOW_OFFSET_MASK, QCOW_GUARD_L2);
    blk_meta_unlock(q->meta);
    return 0;
}

bool qcow_l2_ready(BlkQcow *q, uint64_t pos)
{
    uint64_t i = pos >> (q->h.cluster_bits + q->l2_bits), table;

    blk_meta_lock(q->meta);
    table = l2_table(q, pos);
    bool ready = table > 1 && q->l1[i] & QCOW_COPIED &&
                 blk_meta_peek(q->meta, table + align_down(entry_offset(q, pos), q->block));
    blk_meta_unlock(q->meta);
    return ready;
}

/* Copy the table at @from, or zeros with 0, to the cluster at @to. */
static int fill_table(BlkQcow *q, uint64_t from, uint64_t to)
{
    uint8_t buf[QCOW_BLOCK];
    int err = 0;

    for (uint32_t at = 0; at < q->cs && !err; at += q->block) {
        if (from)
            err = blk_meta_read(q->meta, from + at, buf, q->block);
        if (!err)
            err = blk_meta_fresh(q->meta, to + at, QCOW_RANK_L2);
        if (!err && from)
            err = blk_meta_write(q->meta, to + at, buf, q->block, QCOW_RANK_L2);
    }
    return err;
}

int qcow_l2_own(BlkQcow *q, uint64_t pos)
{
    uint64_t i = pos >> (q->h.cluster_bits + q->l2_bits), table = l2_table(q, pos), to, n;
    bool fresh;

    if (table == 1 || i >= q->h.l1_size)
        return EIO;
    if (table && q->l1[i] & QCOW_COPIED)
        return 0;
    int err = qcow_take(q, 1, &to, &n, &fresh);
    if (!err)
        err = fill_table(q, table, to);
    if (!err)
        err = qcow_l1_put(q, i, to | QCOW_COPIED);
    if (!err && table)
        qcow_free_later(q, table >> q->h.cluster_bits, 1, true);
    return err;
}

int qcow_l2_get(BlkQcow *q, uint64_t pos, uint64_t *ret)
{
    uint64_t table = l2_table(q, pos);
    uint8_t b[8];

    *ret = 0;
    if (table <= 1)
        return table ? EIO : 0;
    int err = blk_meta_read(q->meta, table + entry_offset(q, pos), b, sizeof b);
    if (!err)
        *ret = load_be64(b);
    return err;
}

int qcow_l2_put(BlkQcow *q, uint64_t pos, const uint64_t *entries, unsigned n)
{
    uint64_t table = l2_table(q, pos), b[QCOW_BLOCK / 8];

    if (table <= 1 || n > G_N_ELEMENTS(b) || q->extended)
        return EIO;
    for (unsigned i = 0; i < n; i++)
        store_be64(&b[i], entries[i]);
    return blk_meta_write(q->meta, table + entry_offset(q, pos), b, (size_t)n * 8, QCOW_RANK_L2);
}

void qcow_l2_drop(BlkQcow *q, uint64_t e)
{
    uint64_t at = e & QCOW_OFFSET_MASK;
    uint32_t len;

    if (e & QCOW_COMPRESSED) {
        if (!qcow_packed_range(q, e, &at, &len))
            return; /* astray: what it means is for check to find out */
        uint64_t first = at >> q->h.cluster_bits, last = (at + len - 1) >> q->h.cluster_bits;
        qcow_free_later(q, first, last - first + 1, false);
    } else if (at && qcow_data_ok(q, at)) {
        qcow_free_later(q, at >> q->h.cluster_bits, 1, false);
    }
}
