/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checking and mending qcow2 images: every reference is followed and counted, and the counts of the
 * file are held against that.
 *
 * Mending: entries that point astray are cleared (what they meant cannot be known, and reading
 * them gave errors), counts are set to what was counted, COPIED flags to what the counts say.
 * Where blocks of counts are missing or lie astray, all of them are written anew behind the end of
 * the file, and one write of the header switches to them. Then the dirty and corrupt marks are
 * taken away.
 *
 * The file bounds the work: at most CHECK_CLUSTERS clusters, one count in memory for each; a table
 * that one L1 table lists twice is walked once. Where the image has bitmaps, whose tables are not
 * read here, clusters that are counted too often are left alone.
 *
 * Spec: the specification, all of it.
 *
 * Threads: main, at rest, or opening.
 */
#include <errno.h>
#include <string.h>

#include "lodge/num.h"

#include "qcow2.h"

#define CHECK_CLUSTERS ((uint64_t)1 << 28) /* counts of 4 bytes: 1 GiB */
#define MEND_ROUNDS 4u
#define SUBCLUSTERS_ALL UINT64_C(0xffffffff)

typedef struct Check {
    BlkQcow *q;
    BlkReport *r;
    bool repair, rebuild;
    uint64_t n;      /* clusters of the file */
    uint32_t *refs;  /* owned; n of them */
    GHashTable *tables; /* owned; offsets of L2 tables that this L1 table has listed */
    uint64_t expect; /* host offset that would go on where the last cluster ended */
    int err;
} Check;

/* Count @len bytes at @at; false: they are not in the file. */
static bool count(Check *c, uint64_t at, uint64_t len)
{
    uint64_t first = at >> c->q->h.cluster_bits;
    uint64_t last = (at + MAX(len, 1) - 1) >> c->q->h.cluster_bits;

    if (last >= c->n)
        return false;
    for (uint64_t i = first; i <= last; i++)
        if (c->refs[i] < UINT32_MAX)
            c->refs[i]++;
    return true;
}

static void astray(Check *c, const char *what, uint64_t at, uint64_t e)
{
    blk_report_add(c->r, BLK_FIND_ERROR, c->repair, "%s at %" G_GUINT64_FORMAT ": 0x%" PRIx64
                   " points astray", what, at, e);
}

static int clear_entry(Check *c, uint64_t at, unsigned rank)
{
    uint8_t zero[8] = {0};

    return c->repair ? blk_meta_write(c->q->meta, at, zero, sizeof zero, rank) : 0;
}

/* One entry of an L2 table, at @at of the file; @active: of the disk as it is. */
static int check_entry(Check *c, const uint8_t *p, uint64_t at, bool active)
{
    BlkQcow *q = c->q;
    uint64_t e = load_be64(p), host = e & QCOW_OFFSET_MASK;
    uint32_t len = q->cs;
    bool ok;

    if (e & QCOW_COMPRESSED) {
        ok = qcow_packed_range(q, e, &host, &len) && count(c, host, len);
        c->r->compressed += ok && active;
    } else if (!host) {
        if (!q->extended || !(load_be64(p + 8) & SUBCLUSTERS_ALL))
            return 0;
        ok = false;
    } else {
        ok = !(host & (q->cs - 1)) && !qcow_area_at(q, host, q->cs) &&
             !(active && qcow_guard_at(q, host)) && count(c, host, len);
        if (ok && active && c->expect && host != c->expect)
            c->r->fragmented++;
        c->expect = host + q->cs;
    }
    if (ok) {
        c->r->allocated += active;
        return 0;
    }
    astray(c, "L2 entry", at, e);
    return clear_entry(c, at, QCOW_RANK_L2);
}

static int check_l2(Check *c, uint64_t table, bool active)
{
    BlkQcow *q = c->q;
    g_autofree uint8_t *t = g_try_malloc(q->cs);
    int err = t ? blk_meta_read(q->meta, table, t, q->cs) : ENOMEM;

    for (uint32_t i = 0; i < q->cs && !err; i += q->entry)
        err = check_entry(c, t + i, table + i, active);
    return err;
}

/* The L1 table of @n entries @l1, which lies at @at of the file. */
static int check_l1(Check *c, const uint64_t *l1, uint32_t n, uint64_t at, bool active)
{
    BlkQcow *q = c->q;
    int err = 0;

    g_hash_table_remove_all(c->tables);
    if (n && !count(c, at, (uint64_t)n * 8))
        blk_report_add(c->r, BLK_FIND_ERROR, false, "L1 table at %" G_GUINT64_FORMAT
                       ": is past the end of the file", at);
    for (uint32_t i = 0; i < n && !err; i++) {
        uint64_t table = l1[i] & QCOW_OFFSET_MASK, entry_at = at + (uint64_t)i * 8;
        if (!table)
            continue;
        bool twice = g_hash_table_contains(c->tables, &table);
        if (twice || table & (q->cs - 1) || qcow_area_at(q, table, q->cs) ||
            (active && qcow_guard_at(q, table) & QCOW_GUARD_REFS) || !count(c, table, q->cs)) {
            astray(c, "L1 entry", entry_at, l1[i]);
            if (c->repair && active)
                err = qcow_l1_put(q, i, 0);
            else
                err = clear_entry(c, entry_at, QCOW_RANK_L1);
            continue;
        }
        g_hash_table_add(c->tables, g_memdup2(&table, sizeof table));
        err = check_l2(c, table, active);
    }
    return err;
}

static int check_snapshots(Check *c)
{
    BlkQcow *q = c->q;
    int err = 0;

    if (q->h.n_snapshots)
        (void)count(c, q->h.snapshots_offset, q->snap_bytes); /* was read, so it is there */
    for (guint i = 0; i < q->snaps->len && !err; i++) {
        const QcowSnap *s = g_ptr_array_index(q->snaps, i);
        uint64_t len = (uint64_t)s->l1_size * 8;
        g_autofree uint64_t *l1 = g_try_malloc0(len + 8);
        err = l1 ? blk_file_read_at(qcow_file(q), l1, len, s->l1_offset) : ENOMEM;
        for (uint32_t k = 0; k < s->l1_size && !err; k++)
            l1[k] = load_be64(&l1[k]);
        if (!err)
            err = check_l1(c, l1, s->l1_size, s->l1_offset, false);
    }
    return err;
}

/* ---- counts ---- */

static bool block_ok(const Check *c, uint64_t at)
{
    return !(at & (c->q->cs - 1)) && at >> c->q->h.cluster_bits < c->n &&
           !qcow_area_at(c->q, at, c->q->cs);
}

/* Whether a block of counts can lie at @at. */
static bool refs_ok(const Check *c, uint64_t at)
{
    return block_ok(c, at) && !(qcow_guard_at(c->q, at) & QCOW_GUARD_L2);
}

/* The refcount table and what it lists. */
static void check_ref_blocks(Check *c)
{
    BlkQcow *q = c->q;

    (void)count(c, q->h.rt_offset, (uint64_t)q->h.rt_clusters * q->cs);
    for (uint32_t i = 0; i < q->rt_n; i++) {
        uint64_t at = q->rt[i];
        if (!at)
            continue;
        if (refs_ok(c, at) && count(c, at, q->cs) && c->refs[at >> q->h.cluster_bits] == 1)
            continue;
        astray(c, "refcount table entry", q->h.rt_offset + (uint64_t)i * 8, at);
        c->rebuild = true;
    }
}

/* The file's count of cluster @i, 0 where it has none that can be believed. */
static int file_count(Check *c, uint64_t i, uint64_t *ret)
{
    uint64_t b = i >> c->q->refs_bits;

    *ret = 0;
    if (b >= c->q->rt_n || !c->q->rt[b] || !refs_ok(c, c->q->rt[b]))
        return 0;
    return qcow_ref_get(c->q, i, ret);
}

static int compare(Check *c, uint64_t i, uint64_t used)
{
    BlkQcow *q = c->q;
    uint64_t have, block = i >> q->refs_bits;

    int err = file_count(c, i, &have);
    if (err || have == used)
        return err;
    if (have > used && q->h.bitmaps)
        return 0;
    bool there = block < q->rt_n && q->rt[block] && refs_ok(c, q->rt[block]);
    blk_report_add(c->r, have > used ? BLK_FIND_LEAK : BLK_FIND_ERROR, c->repair,
                   "cluster at %" G_GUINT64_FORMAT ": is counted %" G_GUINT64_FORMAT
                   " times, used %" G_GUINT64_FORMAT,
                   i << q->h.cluster_bits, have, used);
    if (!there || used > q->ref_max)
        c->rebuild = true;
    return c->repair && !c->rebuild ? qcow_ref_set(q, i, used) : 0;
}

/* Clusters from @i on whose counts lie in one block of metadata; most agree. */
static int compare_piece(Check *c, uint64_t i, uint64_t *ret_end)
{
    BlkQcow *q = c->q;
    uint64_t per = ((uint64_t)q->block * 8) >> q->h.refcount_order, b = i >> q->refs_bits;
    uint64_t start = align_down(i, per), in = start & (((uint64_t)1 << q->refs_bits) - 1);
    uint8_t counts[QCOW_BLOCK] = {0};
    int err = 0;

    *ret_end = MIN(c->n, start + per);
    if (b < q->rt_n && q->rt[b] && refs_ok(c, q->rt[b]))
        err = blk_meta_read(q->meta, q->rt[b] + ((in << q->h.refcount_order) / 8), counts,
                            q->block);
    for (; i < *ret_end && !err; i++) {
        if (c->refs[i] != qcow_ref_at(counts, i - start, q->h.refcount_order))
            err = compare(c, i, c->refs[i]);
        if (c->refs[i])
            c->r->end = (i + 1) << q->h.cluster_bits;
    }
    return err;
}

static int compare_counts(Check *c)
{
    BlkQcow *q = c->q;
    int err = 0;

    for (uint64_t i = 0, end; i < c->n && !err; i = end)
        err = compare_piece(c, i, &end);
    /* Counts of what the file does not have. */
    for (uint64_t b = c->n >> q->refs_bits; b < q->rt_n && !err; b++) {
        uint64_t from = MAX(b << q->refs_bits, c->n), to = (b + 1) << q->refs_bits;
        if (q->rt[b] && refs_ok(c, q->rt[b]))
            for (uint64_t i = from; i < to && !err; i++)
                err = compare(c, i, 0);
    }
    return err;
}

/* ---- counts written anew ---- */

/* Where the new blocks and the new table go: behind the last cluster in use. */
typedef struct Plan {
    uint64_t first, blocks, rt_clusters, total;
} Plan;

static int make_plan(Check *c, Plan *p)
{
    BlkQcow *q = c->q;
    uint64_t per = (uint64_t)1 << q->refs_bits, last = 0;

    *p = (Plan){.first = c->n, .blocks = 1, .rt_clusters = 1};
    while (p->total != last || !last) {
        last = p->total;
        p->total = p->first + p->blocks + p->rt_clusters;
        p->blocks = (p->total + per - 1) >> q->refs_bits;
        p->rt_clusters = (p->blocks * 8 + q->cs - 1) >> q->h.cluster_bits;
    }
    return p->rt_clusters * q->cs > QCOW_RT_MAX || p->total > QCOW_HOST_MAX >> q->h.cluster_bits
               ? EFBIG : 0;
}

static int write_plan(Check *c, const Plan *p)
{
    BlkQcow *q = c->q;
    uint64_t per = (uint64_t)1 << q->refs_bits, at = p->first << q->h.cluster_bits;
    g_autofree uint8_t *block = g_try_malloc(q->cs);
    g_autofree uint8_t *rt = g_try_malloc0(p->rt_clusters * q->cs);
    int err = block && rt ? 0 : ENOMEM;

    for (uint64_t b = 0; b < p->blocks && !err; b++) {
        memset(block, 0, q->cs);
        for (uint64_t k = 0, i = b * per; k < per && i < p->total; k++, i++) {
            uint64_t v = i < c->n ? c->refs[i] : 1;
            if (v > q->ref_max)
                return ERANGE;
            qcow_ref_put(block, k, q->h.refcount_order, v);
        }
        store_be64(rt + b * 8, at + b * q->cs);
        err = blk_file_write_at(qcow_file(q), block, q->cs, at + b * q->cs);
    }
    if (!err)
        err = blk_file_write_at(qcow_file(q), rt, p->rt_clusters * q->cs, at + p->blocks * q->cs);
    return err ? err : blk_file_sync(qcow_file(q));
}

/* What the old blocks and table have, nobody has any more. */
static void uncount_old(Check *c)
{
    BlkQcow *q = c->q;

    for (uint32_t i = 0; i < q->h.rt_clusters; i++)
        c->refs[(q->h.rt_offset >> q->h.cluster_bits) + i]--;
    for (uint32_t i = 0; i < q->rt_n; i++)
        if (q->rt[i] && refs_ok(c, q->rt[i]) && c->refs[q->rt[i] >> q->h.cluster_bits])
            c->refs[q->rt[i] >> q->h.cluster_bits]--;
}

static int rebuild(Check *c)
{
    BlkQcow *q = c->q;
    uint8_t fields[12];
    Plan p;

    int err = make_plan(c, &p);
    if (!err)
        err = blk_meta_flush(q->meta);
    if (err)
        return err;
    uncount_old(c);
    err = write_plan(c, &p);
    store_be64(fields, (p.first + p.blocks) << q->h.cluster_bits);
    store_be32(fields + 8, p.rt_clusters);
    if (!err)
        err = qcow_header_put(q, QCOW_AT_RT, fields, sizeof fields);
    if (err)
        return err;
    q->h.rt_offset = load_be64(fields);
    q->h.rt_clusters = p.rt_clusters;
    blk_meta_forget(q->meta, 0, BLK_MAX_SIZE);
    qcow_areas_set(q);
    c->r->end = p.total << q->h.cluster_bits;
    return qcow_rt_load(q, NULL) ? 0 : EIO;
}

/* ---- flags ---- */

static int check_flag(Check *c, const char *what, uint64_t at, uint64_t e)
{
    uint64_t host = e & QCOW_OFFSET_MASK, i = host >> c->q->h.cluster_bits, refs = 1;
    bool set = e & QCOW_COPIED;

    if (e & QCOW_COMPRESSED ? !set : !host)
        return 0;
    int err = e & QCOW_COMPRESSED ? 0 : file_count(c, i, &refs);
    if (err || (!(e & QCOW_COMPRESSED) && (refs == 1) == set))
        return err;
    /* A flag that is missing costs a copy. One that is there beside a count that is too high does
     * no harm either: what is used once may be written in place. */
    bool harmless = !(e & QCOW_COMPRESSED) && i < c->n && c->refs[i] == 1;
    blk_report_add(c->r, harmless ? BLK_FIND_LEAK : BLK_FIND_ERROR, c->repair,
                   "%s at %" G_GUINT64_FORMAT ": 0x%" PRIx64 " has the wrong COPIED flag", what, at,
                   e);
    return 0;
}

static int check_flags(Check *c)
{
    BlkQcow *q = c->q;
    g_autofree uint8_t *t = g_try_malloc(q->cs);
    int err = t ? 0 : ENOMEM;

    g_hash_table_remove_all(c->tables);
    for (uint32_t i = 0; i < q->h.l1_size && !err; i++) {
        uint64_t table = q->l1[i] & QCOW_OFFSET_MASK;
        if (!table || !block_ok(c, table) || g_hash_table_contains(c->tables, &table))
            continue;
        g_hash_table_add(c->tables, g_memdup2(&table, sizeof table));
        err = check_flag(c, "L1 entry", q->h.l1_offset + (uint64_t)i * 8, q->l1[i]);
        if (!err)
            err = blk_meta_read(q->meta, table, t, q->cs);
        for (uint32_t k = 0; k < q->cs && !err; k += q->entry)
            err = check_flag(c, "L2 entry", table + k, load_be64(t + k));
    }
    return err;
}

static int mend(Check *c)
{
    BlkQcow *q = c->q;
    int err = c->rebuild ? rebuild(c) : 0;

    qcow_pool_reset(q, 0);
    if (!err)
        err = check_flags(c);
    if (!err)
        err = qcow_fix_copied(q);
    if (!err)
        err = qcow_settle(q);
    if (!err && c->r->errors == c->r->errors_fixed) {
        err = qcow_set_incompatible(q, q->h.incompatible &
                                           ~(uint64_t)(QCOW_INC_DIRTY | QCOW_INC_CORRUPT));
        atomic_store(&q->corrupt, err != 0);
    }
    return err;
}

static bool check_once(BlkNode *n, bool repair, BlkReport *r, GError **error)
{
    BlkQcow *q = (BlkQcow *)n;
    BlkFile *f = qcow_file(q);
    Check c = {.q = q, .r = r, .repair = repair};
    uint64_t len;

    int err = repair ? qcow_settle(q) : 0;
    if (!err)
        err = blk_file_length(f, &len);
    if (err)
        return lodge_fail_errno(error, err, "'%s': cannot check it", f->path);
    c.n = qcow_round(q, len) >> q->h.cluster_bits;
    if (c.n > CHECK_CLUSTERS)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "'%s': has over 2^28 clusters, which are too many to check", f->path);
    c.refs = g_try_new0(uint32_t, c.n);
    if (!c.refs)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': no memory to check it", f->path);
    c.tables = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    r->total = (q->h.size + q->cs - 1) >> q->h.cluster_bits;
    (void)count(&c, 0, q->cs);
    err = check_l1(&c, q->l1, q->h.l1_size, q->h.l1_offset, true);
    if (!err)
        err = check_snapshots(&c);
    if (!err) {
        check_ref_blocks(&c);
        err = compare_counts(&c);
    }
    if (!err)
        err = repair ? mend(&c) : check_flags(&c);
    g_hash_table_unref(c.tables);
    g_free(c.refs);
    if (err == ERANGE)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': some cluster is used more often than its reference counts of %u "
                          "bits can say; convert it", f->path, 1u << q->h.refcount_order);
    return !err || lodge_fail_errno(error, err, "'%s': cannot check it", f->path);
}

/* Where tables lie in one another, mending one changes the other: look again until nothing is left.
 * What is left after that is told as an error that is not mended. */
bool qcow_check(BlkNode *n, bool repair, BlkReport *r, GError **error)
{
    bool ok = check_once(n, repair, r, error);

    for (unsigned i = 0; ok && repair && r->errors && i < MEND_ROUNDS; i++) {
        g_autoptr(BlkReport) again = blk_report_new();
        ok = check_once(n, i + 1 < MEND_ROUNDS, again, error);
        if (!again->errors)
            break;
        if (i + 1 == MEND_ROUNDS)
            blk_report_add(r, BLK_FIND_ERROR, false, "tables: lie in one another beyond mending");
    }
    return ok;
}
