/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qcow2 images as wholes: making, resizing, another base, emptying.
 *
 * A new image is: header, refcount table, blocks of counts, L1 table; with preallocation also the
 * L2 tables and a place for each cluster, as a hole. A disk that grows past its L1 table gets a
 * longer one elsewhere, switched to by one write of the header. A disk with snapshots may change
 * its size: each snapshot has a table of its own and records the size that it had.
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
    {"cluster-size", "SIZE", "bytes of a cluster, 512 to 2M (64K)"},
    {"compat", "0.10|1.1", "version 2 or 3 of the format (1.1)"},
    {"refcount-bits", "1|2|4|8|16|32|64", "width of reference counts (16)"},
    {"lazy-refcounts", "on|off", "other programs may put off reference counts (off)"},
    {"compression-type", "zlib|zstd", "of compressed clusters (zlib)"},
    {"preallocation", "off|metadata", "tables and places for the whole disk at once (off)"},
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
    if ((v = opt(c, "cluster-size"))) {
        uint64_t cs = parse_size(v);
        if (!is_power_of_two(cs) || cs < 512 || cs > 2 * MIB)
            return bad_opt(c, "cluster-size", "a power of two from 512 to 2M", error);
        h->cluster_bits = __builtin_ctzll(cs);
    }
    if ((v = opt(c, "compat"))) {
        if ((i = choice(v, versions)) < 0)
            return bad_opt(c, "compat", "0.10 or 1.1", error);
        h->version = i % 2 ? 3 : 2;
    }
    h->length = h->version == 2 ? QCOW_V2_HEADER : QCOW_V3_HEADER + 8;
    if ((v = opt(c, "refcount-bits"))) {
        if ((i = choice(v, widths)) < 0 || (h->version == 2 && i != 4))
            return bad_opt(c, "refcount-bits",
                           "1, 2, 4, 8, 16, 32 or 64, and 16 only with compat=0.10", error);
        h->refcount_order = i;
    }
    if ((v = opt(c, "lazy-refcounts"))) {
        if ((i = choice(v, onoff)) < 0 || (i && h->version == 2))
            return bad_opt(c, "lazy-refcounts", "off, or on with compat=1.1", error);
        h->compatible = i ? QCOW_COMPAT_LAZY : 0;
    }
    if ((v = opt(c, "compression-type"))) {
        if ((i = choice(v, types)) < 0 || (i && h->version == 2))
            return bad_opt(c, "compression-type", "zlib, or zstd with compat=1.1", error);
        h->compression = i;
        h->incompatible = i ? QCOW_INC_COMPRESSION : 0;
    }
    return true;
}

/* How a new image is laid out, in clusters: header, refcount table, blocks of counts, L1 table, and
 * preallocated L2 tables and data. */
typedef struct Layout {
    uint64_t cs, rt, blocks, l1, l2, data, all;
} Layout;

static bool make_layout(const BlkCreate *c, const QcowHeader *h, Layout *l, GError **error)
{
    static const char *const kinds[] = {"off", "metadata", NULL};
    const char *v = opt(c, "preallocation");
    int kind = v ? choice(v, kinds) : 0;
    uint64_t entries = qcow_l1_need(h->size, h->cluster_bits, false);

    *l = (Layout){.cs = (uint64_t)1 << h->cluster_bits, .rt = 1, .blocks = 1};
    if (kind < 0)
        return bad_opt(c, "preallocation", "off or metadata", error);
    if (kind && c->base)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': preallocation=metadata: would hide the base; leave one out",
                          c->path);
    if (entries > QCOW_L1_MAX / 8)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "'%s': with clusters of %" G_GUINT64_FORMAT
                          " bytes a qcow2 image has at most %" G_GUINT64_FORMAT
                          " bytes; give a larger cluster-size",
                          c->path, l->cs, (QCOW_L1_MAX / 8 * l->cs / 8) << h->cluster_bits);
    l->l1 = MAX(1, (entries * 8 + l->cs - 1) / l->cs);
    l->l2 = kind ? entries : 0;
    l->data = kind ? (h->size + l->cs - 1) >> h->cluster_bits : 0;
    uint64_t per = (l->cs * 8) >> h->refcount_order;
    while (l->all != 1 + l->rt + l->blocks + l->l1 + l->l2 + l->data) {
        l->all = 1 + l->rt + l->blocks + l->l1 + l->l2 + l->data;
        l->blocks = (l->all + per - 1) / per;
        l->rt = (l->blocks * 8 + l->cs - 1) / l->cs;
    }
    if (l->rt * l->cs > QCOW_RT_MAX || l->all > QCOW_HOST_MAX >> h->cluster_bits)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "'%s': is too large to be preallocated; give a larger cluster-size or "
                          "leave preallocation out",
                          c->path);
    return true;
}

/* The blocks of counts: all clusters are used once. @buf: a cluster. */
static bool write_counts(const BlkCreate *c, const QcowHeader *h, const Layout *l, uint8_t *buf,
                         GError **error)
{
    uint64_t per = (l->cs * 8) >> h->refcount_order;

    for (uint64_t b = 0; b < l->blocks; b++) {
        memset(buf, 0, l->cs);
        for (uint64_t k = 0; k < per && b * per + k < l->all; k++)
            qcow_ref_put(buf, k, h->refcount_order, 1);
        if (!blk_new_file_write(c->file, buf, l->cs, (1 + l->rt + b) * l->cs, error))
            return false;
    }
    return true;
}

/* Tables that give each cluster of the disk its place. */
static bool write_places(const BlkCreate *c, const QcowHeader *h, const Layout *l, uint8_t *buf,
                         GError **error)
{
    uint64_t first = 1 + l->rt + l->blocks + l->l1, data = first + l->l2, per = l->cs / 8;

    for (uint64_t i = 0; i < l->l2; i++) {
        uint8_t e[8];
        memset(buf, 0, l->cs);
        for (uint64_t k = 0; k < per && i * per + k < l->data; k++)
            store_be64(buf + k * 8, QCOW_COPIED | (data + i * per + k) << h->cluster_bits);
        store_be64(e, QCOW_COPIED | (first + i) << h->cluster_bits);
        if (!blk_new_file_write(c->file, buf, l->cs, (first + i) * l->cs, error) ||
            !blk_new_file_write(c->file, e, sizeof e, h->l1_offset + i * 8, error))
            return false;
    }
    return true;
}

bool qcow_create(const BlkCreate *c, GError **error)
{
    QcowHeader h;
    Layout l;

    if (!read_options(c, &h, error) || !make_layout(c, &h, &l, error))
        return false;
    h.rt_offset = l.cs;
    h.rt_clusters = l.rt;
    h.l1_offset = (1 + l.rt + l.blocks) * l.cs;
    h.l1_size = qcow_l1_need(h.size, h.cluster_bits, false);
    g_autofree uint8_t *buf = g_malloc(l.cs);
    g_autofree uint8_t *table = g_malloc0(l.rt * l.cs);
    for (uint64_t i = 0; i < l.blocks; i++)
        store_be64(table + i * 8, (1 + l.rt + i) * l.cs);
    return qcow_header_build(&h, c->base ? c->base->path : NULL, c->base ? c->base->format : NULL,
                             NULL, buf, c->path, error) &&
           blk_new_file_write(c->file, buf, l.cs, 0, error) &&
           blk_new_file_write(c->file, table, l.rt * l.cs, h.rt_offset, error) &&
           write_counts(c, &h, &l, buf, error) && write_places(c, &h, &l, buf, error) &&
           blk_new_file_size(c->file, l.all * l.cs, error);
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

    if (!qcow_may_change(q, error))
        return false;
    if (size < old && !shrink)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': would lose what lies behind its new end; say --shrink if that is "
                          "meant",
                          qcow_file(q)->path);
    if (l1 > QCOW_L1_MAX / 8)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "'%s': with its clusters of %u bytes it can have at most %"
                          G_GUINT64_FORMAT " bytes", qcow_file(q)->path, q->cs,
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

    if (!qcow_may_change(q, error))
        return false;
    int err = qcow_settle(q);
    if (err)
        return failed(q, err, "write its tables", error);
    if (!blk_file_pread(f, old, q->cs, 0, error))
        return false;
    memcpy(new, old, q->cs);
    if (q->cs > BLK_SECTOR && qcow_header_patch(q, &h, base ? base->path : NULL,
                                                base ? base->format : NULL, new, &err)) {
        if (!err)
            q->h = h;
        return !err || failed(q, err, "record its base", error);
    }
    h = q->h;
    if (!qcow_header_build(&h, base ? base->path : NULL, base ? base->format : NULL, old, new,
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

    if (!qcow_may_change(q, error))
        return false;
    for (uint32_t i = 0; i < q->h.l1_size && !err; i++) {
        uint64_t table = q->l1[i] & QCOW_OFFSET_MASK, per = (uint64_t)1 << q->l2_bits;
        if (!table)
            continue;
        if (!qcow_table_ok(q, table)) {
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
