/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2 images as wholes: making, resizing, another base, emptying.
 *
 * A new image is: header, refcount table, blocks of counts, L1 table; nothing behind it. A disk that
 * grows past its L1 table gets a longer one elsewhere, switched to by one write of the header; the
 * version-2 rule that snapshots record no size forbids nothing here, since a snapshot has its own
 * table.
 *
 * Spec: the specification, "Header", "Host cluster management".
 *
 * Threads: main, at rest.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/num.h"

#include "qcow2.h"

const BlkCreateOpt qcow_create_opts[] = {
    {"cluster_size", "SIZE", "bytes of a cluster, 512 to 2M (64K)"},
    {"compat", "0.10|1.1", "version 2 or 3 of the format (1.1)"},
    {"refcount_bits", "1|2|4|8|16|32|64", "width of reference counts (16)"},
    {"lazy_refcounts", "on|off", "other programs may put off reference counts (off)"},
    {"compression_type", "zlib|zstd", "of compressed clusters (zlib)"},
    {NULL, NULL, NULL},
};

/* ---- making ---- */

static const char *opt(const BlkCreate *c, const char *key)
{
    return g_hash_table_lookup(c->options, key);
}

static bool bad_opt(const BlkCreate *c, const char *key, const char *may_be, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': %s=%s: it can be %s", c->path, key,
                      opt(c, key), may_be);
}

/* A number with an optional suffix K or M; 0: none. */
static uint64_t parse_size(const char *text)
{
    char *end;
    uint64_t v = g_ascii_strtoull(text, &end, 10);
    unsigned shift = *end == 'K' || *end == 'k' ? 10 : *end == 'M' || *end == 'm' ? 20 : 0;

    if (end == text || v > (uint64_t)1 << 32 || end[shift ? 1 : 0])
        return 0;
    return v << shift;
}

static int choice(const char *text, const char *const *names)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], text) == 0)
            return i;
    return -1;
}

static bool read_options(const BlkCreate *c, QcowHeader *h, GError **error)
{
    static const char *const versions[] = {"0.10", "1.1", "v2", "v3", NULL};
    static const char *const widths[] = {"1", "2", "4", "8", "16", "32", "64", NULL};
    static const char *const onoff[] = {"off", "on", NULL};
    static const char *const types[] = {"zlib", "zstd", NULL};
    const char *v;
    int i;

    *h = (QcowHeader){.version = 3, .cluster_bits = 16, .refcount_order = 4, .size = c->size};
    if ((v = opt(c, "cluster_size"))) {
        uint64_t cs = parse_size(v);
        if (!is_power_of_two(cs) || cs < 512 || cs > 2 * MIB)
            return bad_opt(c, "cluster_size", "a power of two from 512 to 2M", error);
        h->cluster_bits = __builtin_ctzll(cs);
    }
    if ((v = opt(c, "compat"))) {
        if ((i = choice(v, versions)) < 0)
            return bad_opt(c, "compat", "0.10 or 1.1", error);
        h->version = i % 2 ? 3 : 2;
    }
    h->length = h->version == 2 ? QCOW_V2_HEADER : QCOW_V3_HEADER + 8;
    if ((v = opt(c, "refcount_bits"))) {
        if ((i = choice(v, widths)) < 0 || (h->version == 2 && i != 4))
            return bad_opt(c, "refcount_bits",
                           "1, 2, 4, 8, 16, 32 or 64, and 16 only with compat=0.10", error);
        h->refcount_order = i;
    }
    if ((v = opt(c, "lazy_refcounts"))) {
        if ((i = choice(v, onoff)) < 0 || (i && h->version == 2))
            return bad_opt(c, "lazy_refcounts", "off, or on with compat=1.1", error);
        h->compatible = i ? QCOW_COMPAT_LAZY : 0;
    }
    if ((v = opt(c, "compression_type"))) {
        if ((i = choice(v, types)) < 0 || (i && h->version == 2))
            return bad_opt(c, "compression_type", "zlib, or zstd with compat=1.1", error);
        h->compression = i;
        h->incompatible = i ? QCOW_INC_COMPRESSION : 0;
    }
    return true;
}

bool qcow_create(const BlkCreate *c, GError **error)
{
    QcowHeader h;

    if (!read_options(c, &h, error))
        return false;
    uint64_t cs = (uint64_t)1 << h.cluster_bits, l1 = qcow_l1_need(h.size, h.cluster_bits, false);
    uint64_t per = (cs * 8) >> h.refcount_order, rt = 1, blocks = 1, all = 0;
    if (l1 > QCOW_L1_MAX / 8)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "'%s': with clusters of %" G_GUINT64_FORMAT
                          " bytes a qcow2 image has at most %" G_GUINT64_FORMAT
                          " bytes; give a larger cluster_size",
                          c->path, cs, (QCOW_L1_MAX / 8 * cs / 8) << h.cluster_bits);
    uint64_t l1_clusters = MAX(1, (l1 * 8 + cs - 1) / cs);
    while (all != 1 + rt + blocks + l1_clusters) {
        all = 1 + rt + blocks + l1_clusters;
        blocks = (all + per - 1) / per;
        rt = (blocks * 8 + cs - 1) / cs;
    }
    h.rt_offset = cs;
    h.rt_clusters = rt;
    h.l1_offset = (1 + rt + blocks) * cs;
    h.l1_size = l1;
    g_autofree uint8_t *head = g_malloc(cs);
    g_autofree uint8_t *table = g_malloc0(rt * cs);
    g_autofree uint8_t *counts = g_malloc0(blocks * cs);
    for (uint64_t i = 0; i < blocks; i++)
        store_be64(table + i * 8, (1 + rt + i) * cs);
    for (uint64_t i = 0; i < all; i++)
        qcow_ref_put(counts, i, h.refcount_order, 1);
    return qcow_header_build(&h, c->base ? c->base->path : NULL, c->base ? c->base->format : NULL,
                             NULL, head, c->path, error) &&
           blk_new_file_write(c->file, head, cs, 0, error) &&
           blk_new_file_write(c->file, table, rt * cs, h.rt_offset, error) &&
           blk_new_file_write(c->file, counts, blocks * cs, (1 + rt) * cs, error) &&
           blk_new_file_size(c->file, all * cs, error);
}

/* ---- changing ---- */

static bool failed(BlkQcow *q, int err, const char *what, GError **error)
{
    return lodge_fail_errno(error, err, "'%s': cannot %s", qcow_file(q)->path, what);
}

/* A longer L1 table of @n entries elsewhere; the header is switched to it. */
static int grow_l1(BlkQcow *q, uint64_t n)
{
    uint64_t clusters = (n * 8 + q->cs - 1) >> q->h.cluster_bits, at;
    g_autofree uint64_t *table = g_try_new0(uint64_t, n + 1);
    g_autofree uint8_t *raw = g_try_malloc0(clusters * q->cs);
    uint8_t fields[12];

    if (!table || !raw)
        return ENOMEM;
    int err = qcow_take_run(q, clusters, &at);
    if (err)
        return err;
    memcpy(table, q->l1, q->h.l1_size * sizeof *table);
    for (uint64_t i = 0; i < n; i++)
        store_be64(raw + i * 8, table[i]);
    blk_meta_forget(q->meta, at, clusters * q->cs);
    err = blk_file_write_at(qcow_file(q), raw, clusters * q->cs, at);
    if (!err)
        err = qcow_flush(q); /* counts, and the tables that the new one lists */
    store_be32(fields, n);
    store_be64(fields + 4, at);
    if (!err)
        err = qcow_header_put(q, QCOW_AT_L1_SIZE, fields, sizeof fields);
    if (err)
        return err;
    uint64_t old_at = q->h.l1_offset, old_n = q->h.l1_size;
    blk_meta_lock(q->meta);
    g_free(q->l1);
    q->l1 = g_steal_pointer(&table);
    q->h.l1_offset = at;
    q->h.l1_size = n;
    blk_meta_unlock(q->meta);
    qcow_areas_set(q);
    if (old_n)
        qcow_free_later(q, old_at >> q->h.cluster_bits,
                        (old_n * 8 + q->cs - 1) >> q->h.cluster_bits, true);
    return 0;
}

/* Zeros over [@from, @to), which may end past the disk's end in the last cluster. */
static int zero_range(BlkQcow *q, uint64_t from, uint64_t to)
{
    while (from < to) {
        BlkReq req = {.op = BLK_ZERO, .may_unmap = true, .offset = from,
                      .len = MIN(to - from, BLK_DISCARD_MAX)};
        int err = blk_wait(&q->node, &req);
        if (err)
            return err;
        from += req.len;
    }
    return 0;
}

static int put_size(BlkQcow *q, uint64_t size)
{
    uint8_t b[8];

    store_be64(b, size);
    int err = qcow_header_put(q, QCOW_AT_SIZE, b, sizeof b);
    if (!err)
        q->h.size = size;
    return err;
}

/* What lies behind the old end was never shown: zeros, not the base's bytes. */
static int clear_behind(BlkQcow *q, uint64_t old, uint64_t size)
{
    BlkLimits l = q->node.limits;
    uint64_t from = align_down(old, BLK_SECTOR), end = align_up(size, BLK_SECTOR);
    int err = 0;

    if (old % BLK_SECTOR) { /* bytes of the last sector that the disk did not have */
        uint8_t sector[BLK_SECTOR];
        err = blk_pread(&q->node, sector, from, sizeof sector);
        memset(sector + old % BLK_SECTOR, 0, sizeof sector - old % BLK_SECTOR);
        if (!err)
            err = blk_pwrite(&q->node, sector, from, sizeof sector);
        from += BLK_SECTOR;
    }
    /* Whole clusters behind the end hold nothing unless somebody shrank it carelessly; where a base
     * is longer, its bytes must not come up. */
    q->node.limits.size = end;
    if (!err && from < end)
        err = zero_range(q, from, q->node.ref.path ? end : MIN(end, qcow_round(q, from)));
    if (!err && from < end && !q->node.ref.path)
        err = zero_range(q, MIN(end, qcow_round(q, from)), end);
    if (err)
        q->node.limits = l;
    return err;
}

bool qcow_resize(BlkNode *n, uint64_t size, bool shrink, GError **error)
{
    BlkQcow *q = (BlkQcow *)n;
    uint64_t old = q->h.size, l1 = qcow_l1_need(size, q->h.cluster_bits, q->extended);
    int err = 0;

    if (size < old && !shrink)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': would lose what lies behind its new end; say --shrink if that is "
                          "meant",
                          qcow_file(q)->path);
    if (l1 > QCOW_L1_MAX / 8)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "'%s': with its clusters of %u bytes it can have at most %" G_GUINT64_FORMAT
                          " bytes", qcow_file(q)->path, q->cs,
                          (QCOW_L1_MAX / 8 * q->cs / 8) << q->h.cluster_bits);
    if (size < old) { /* what lies behind is let go of, so that it does not come back */
        err = zero_range(q, align_up(size, BLK_SECTOR), n->limits.size);
        if (!err)
            err = qcow_settle(q);
    } else {
        if (l1 > q->h.l1_size)
            err = grow_l1(q, l1);
        if (!err)
            err = clear_behind(q, old, size);
        if (!err)
            err = qcow_settle(q);
    }
    if (!err)
        err = put_size(q, size);
    return !err || failed(q, err, "change its size", error);
}

bool qcow_set_base(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    BlkQcow *q = (BlkQcow *)n;
    BlkFile *f = qcow_file(q);
    g_autofree uint8_t *old = g_malloc(q->cs), *new = g_malloc(q->cs);
    QcowHeader h = q->h;

    int err = qcow_settle(q);
    if (err)
        return failed(q, err, "write its tables", error);
    if (!blk_file_pread(f, old, q->cs, 0, error) ||
        !qcow_header_build(&h, base ? base->path : NULL, base ? base->format : NULL, old, new,
                           f->path, error) ||
        !blk_file_pwrite(f, new, q->cs, 0, error))
        return false;
    q->h = h;
    err = blk_file_sync(f);
    return !err || failed(q, err, "sync it", error);
}

bool qcow_make_empty(BlkNode *n, GError **error)
{
    BlkQcow *q = (BlkQcow *)n;
    int err = 0;

    for (uint32_t i = 0; i < q->h.l1_size && !err; i++) {
        uint64_t table = q->l1[i] & QCOW_OFFSET_MASK, per = (uint64_t)1 << q->l2_bits;
        if (!table)
            continue;
        if (table & (q->cs - 1) || qcow_area_at(q, table, q->cs)) {
            err = EIO;
            break;
        }
        g_autofree uint8_t *t = g_try_malloc(q->cs);
        err = t ? blk_meta_read(q->meta, table, t, q->cs) : ENOMEM;
        if (!err)
            err = qcow_l1_put(q, i, 0);
        for (uint64_t k = 0; k < per && !err; k++)
            qcow_l2_drop(q, load_be64(t + k * 8));
        if (!err)
            qcow_free_later(q, table >> q->h.cluster_bits, 1, true);
        qcow_freed_trim(q);
    }
    if (!err)
        err = qcow_settle(q);
    return !err || failed(q, err, "empty it", error);
}
