/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Internal snapshots of qcow2 images. A snapshot is an L1 table of its own; what both reach is
 * counted twice, and copied by who writes it first.
 *
 * Tables are never changed in place where a power cut would show: the new one is written beside the
 * old, and one write of the header switches. Version 3 is marked dirty meanwhile, so that counts
 * and COPIED flags that disagree are mended at the next opening; with version 2 a power cut in here
 * can leave what check reports, but nothing that loses data: every count is high enough at every
 * instant.
 *
 * Spec: the specification, "Snapshots".
 *
 * Threads: main, at rest (and opening).
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "lodge/num.h"

#include "qcow2.h"

#define ENTRY 40u      /* fixed part of a snapshot in their table */
#define EXTRA 16u      /* of its extra data, what we know */

static void snap_free(void *opaque)
{
    QcowSnap *s = opaque;

    g_free(s->id);
    g_free(s->name);
    g_free(s->extra);
    g_free(s);
}

/* ---- their table ---- */

static bool bad(BlkQcow *q, uint64_t at, const char *field, const char *why, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_IMAGE,
                      "'%s': snapshot table at offset %" G_GUINT64_FORMAT ": %s %s",
                      qcow_file(q)->path, at, field, why);
}

/* @len bytes of the file at @at, with a zero behind; transfer full. */
static char *read_bytes(BlkQcow *q, uint64_t at, uint32_t len, GError **error)
{
    g_autofree char *b = g_malloc0(len + 1);

    return blk_file_pread(qcow_file(q), b, len, at, error) ? g_steal_pointer(&b) : NULL;
}

static void parse_extra(QcowSnap *s, const uint8_t *extra, uint32_t len)
{
    if (len >= 8)
        s->vm_bytes = load_be64(extra);
    if (len >= EXTRA)
        s->size = load_be64(extra + 8);
    if (len > EXTRA) {
        s->extra_len = len - EXTRA;
        s->extra = g_memdup2(extra + EXTRA, s->extra_len);
    }
}

static bool check_snap(BlkQcow *q, const QcowSnap *s, uint64_t at, GError **error)
{
    uint64_t len = (uint64_t)s->l1_size * 8;

    if (len > QCOW_L1_MAX)
        return bad(q, at, "l1_size", "is over 32 MiB of table", error);
    if (s->size > BLK_MAX_SIZE)
        return bad(q, at, "disk size", "is over 2^62", error);
    if (s->l1_size < qcow_l1_need(s->size, q->h.cluster_bits, q->extended))
        return bad(q, at, "l1_size", "is too small for its disk's size", error);
    if (len && (s->l1_offset & (q->cs - 1) || !s->l1_offset ||
                !range_within(s->l1_offset, len, qcow_round(q, qcow_file(q)->size))))
        return bad(q, at, "l1_table_offset", "is not aligned, or past the end of the file", error);
    return true;
}

bool qcow_snaps_read(BlkQcow *q, GError **error)
{
    uint64_t start = q->h.snapshots_offset, at = start, end = qcow_file(q)->size;

    q->snaps = g_ptr_array_new_with_free_func(snap_free);
    for (uint32_t i = 0; i < q->h.n_snapshots; i++) {
        uint8_t b[ENTRY];
        if (!range_within(at, ENTRY, end) || at - start > QCOW_SNAP_TABLE_MAX)
            return bad(q, at, "entry", "is past the end of the file, or over 16 MiB", error);
        if (!blk_file_pread(qcow_file(q), b, ENTRY, at, error))
            return false;
        uint32_t id = load_be16(b + 12), name = load_be16(b + 14), extra = load_be32(b + 36);
        if (extra > QCOW_SNAP_EXTRA_MAX)
            return bad(q, at, "extra data", "is over 1024 bytes", error);
        uint32_t var = extra + id + name;
        if (!range_within(at, ENTRY + (uint64_t)var, end))
            return bad(q, at, "entry", "runs past the end of the file", error);
        g_autofree char *rest = read_bytes(q, at + ENTRY, var, error);
        if (!rest)
            return false;
        QcowSnap *s = g_new0(QcowSnap, 1);
        g_ptr_array_add(q->snaps, s);
        s->l1_offset = load_be64(b);
        s->l1_size = load_be32(b + 8);
        s->date_s = load_be32(b + 16);
        s->date_ns = load_be32(b + 20);
        s->clock_ns = load_be64(b + 24);
        s->vm_bytes = load_be32(b + 32);
        parse_extra(s, (uint8_t *)rest, extra);
        s->id = g_strndup(rest + extra, id);
        s->name = g_strndup(rest + extra + id, name);
        if (!check_snap(q, s, at, error))
            return false;
        at = align_up(at + ENTRY + var, 8);
    }
    q->snap_bytes = at - start;
    return true;
}

/* The bytes of their table. */
static GByteArray *build_table(const GPtrArray *snaps)
{
    GByteArray *out = g_byte_array_new();

    for (guint i = 0; i < snaps->len; i++) {
        const QcowSnap *s = g_ptr_array_index(snaps, i);
        uint8_t b[ENTRY + EXTRA] = {0}, pad[8] = {0};
        store_be64(b, s->l1_offset);
        store_be32(b + 8, s->l1_size);
        store_be16(b + 12, strlen(s->id));
        store_be16(b + 14, strlen(s->name));
        store_be32(b + 16, s->date_s);
        store_be32(b + 20, s->date_ns);
        store_be64(b + 24, s->clock_ns);
        store_be32(b + 32, s->vm_bytes > UINT32_MAX ? 0 : s->vm_bytes);
        store_be32(b + 36, EXTRA + s->extra_len);
        store_be64(b + 40, s->vm_bytes);
        store_be64(b + 48, s->size);
        g_byte_array_append(out, b, sizeof b);
        if (s->extra_len)
            g_byte_array_append(out, s->extra, s->extra_len);
        g_byte_array_append(out, (const uint8_t *)s->id, strlen(s->id));
        g_byte_array_append(out, (const uint8_t *)s->name, strlen(s->name));
        g_byte_array_append(out, pad, align_up(out->len, 8) - out->len);
    }
    return out;
}

/* @len bytes into clusters of their own. */
static int write_new(BlkQcow *q, const void *bytes, uint64_t len, uint64_t *ret_at)
{
    uint64_t clusters = MAX(1, (len + q->cs - 1) >> q->h.cluster_bits);
    g_autofree uint8_t *buf = g_try_malloc0(clusters << q->h.cluster_bits);

    if (!buf)
        return ENOMEM;
    memcpy(buf, bytes, len);
    int err = qcow_take_run(q, clusters, ret_at);
    if (err)
        return err;
    blk_meta_forget(q->meta, *ret_at, clusters << q->h.cluster_bits);
    return blk_file_write_at(qcow_file(q), buf, clusters << q->h.cluster_bits, *ret_at);
}

/* Make @snaps the image's, on the disk and in memory. Takes @snaps over. */
static int switch_table(BlkQcow *q, GPtrArray *snaps)
{
    g_autoptr(GByteArray) bytes = build_table(snaps);
    uint64_t at = 0, old_at = q->h.snapshots_offset, old_bytes = q->snap_bytes;
    uint8_t fields[12];
    int err = bytes->len > QCOW_SNAP_TABLE_MAX ? ENOSPC : 0;

    if (!err && snaps->len)
        err = write_new(q, bytes->data, bytes->len, &at);
    if (!err)
        err = qcow_flush(q);
    store_be32(fields, snaps->len);
    store_be64(fields + 4, at);
    if (!err)
        err = qcow_header_put(q, QCOW_AT_SNAPSHOTS, fields, sizeof fields);
    if (err) {
        g_ptr_array_unref(snaps);
        return err;
    }
    g_ptr_array_unref(q->snaps);
    q->snaps = snaps;
    if (q->h.n_snapshots && old_bytes)
        qcow_free_later(q, old_at >> q->h.cluster_bits,
                        (old_bytes + q->cs - 1) >> q->h.cluster_bits, true);
    q->h.n_snapshots = snaps->len;
    q->h.snapshots_offset = at;
    q->snap_bytes = bytes->len;
    qcow_areas_set(q);
    return 0;
}

static QcowSnap *snap_copy(const QcowSnap *s)
{
    QcowSnap *c = g_memdup2(s, sizeof *s);

    c->id = g_strdup(s->id);
    c->name = g_strdup(s->name);
    c->extra = s->extra_len ? g_memdup2(s->extra, s->extra_len) : NULL;
    return c;
}

/* ---- what an L1 table reaches ---- */

/* A step of a walk: @n clusters from @first on; @table: an L2 table. @left: of the whole walk. */
typedef int (*StepFn)(BlkQcow *q, uint64_t first, uint64_t n, bool table, uint64_t *left);

static int step_add(BlkQcow *q, uint64_t first, uint64_t n, bool table, uint64_t *left)
{
    int err = 0;

    for (uint64_t c = first; c < first + n && !err; c++) {
        err = qcow_ref_add(q, c, 1, 1);
        *left += !err;
    }
    return err;
}

/* Undo the first *left additions. */
static int step_undo(BlkQcow *q, uint64_t first, uint64_t n, bool table, uint64_t *left)
{
    int err = 0;

    for (uint64_t c = first; c < first + n && !err && *left; c++, (*left)--)
        err = qcow_ref_add(q, c, 1, -1);
    return err;
}

static int step_drop(BlkQcow *q, uint64_t first, uint64_t n, bool table, uint64_t *left)
{
    qcow_free_later(q, first, n, table);
    return 0;
}

static int walk_table(BlkQcow *q, uint64_t table, StepFn fn, uint64_t *left)
{
    g_autofree uint8_t *t = g_try_malloc(q->cs);
    int err = t ? blk_meta_read(q->meta, table, t, q->cs) : ENOMEM;

    for (uint32_t i = 0; i < q->cs && !err; i += 8) {
        uint64_t e = load_be64(t + i), at = e & QCOW_OFFSET_MASK;
        uint32_t len = q->cs;
        if (e & QCOW_COMPRESSED) {
            if (!qcow_packed_range(q, e, &at, &len))
                return EIO;
        } else if (!at) {
            continue;
        } else if (!qcow_data_ok(q, at)) {
            return EIO;
        }
        uint64_t first = at >> q->h.cluster_bits, last = (at + len - 1) >> q->h.cluster_bits;
        err = fn(q, first, last - first + 1, false, left);
    }
    return err;
}

static int walk(BlkQcow *q, const uint64_t *l1, uint32_t n, StepFn fn, uint64_t *left)
{
    int err = 0;

    for (uint32_t i = 0; i < n && !err; i++) {
        uint64_t table = l1[i] & QCOW_OFFSET_MASK;
        if (!table)
            continue;
        if (!qcow_table_ok(q, table))
            return EIO;
        /* The entries first: a table that is let go of may be gone after that. */
        err = walk_table(q, table, fn, left);
        if (!err)
            err = fn(q, table >> q->h.cluster_bits, 1, true, left);
        qcow_freed_trim(q);
    }
    return err;
}

/* One reference more to all that @l1 reaches, or to nothing. */
static int add_all(BlkQcow *q, const uint64_t *l1, uint32_t n)
{
    uint64_t done = 0;
    int err = walk(q, l1, n, step_add, &done);

    if (err)
        (void)walk(q, l1, n, step_undo, &done); /* what fails is counted too often, no worse */
    return err;
}

static int drop_all(BlkQcow *q, const uint64_t *l1, uint32_t n)
{
    uint64_t unused = 0;

    return walk(q, l1, n, step_drop, &unused);
}

static uint64_t *read_l1(BlkQcow *q, const QcowSnap *s, int *ret_err)
{
    g_autofree uint64_t *t = g_try_new0(uint64_t, (size_t)s->l1_size + 1);

    *ret_err = t ? blk_file_read_at(qcow_file(q), t, (size_t)s->l1_size * 8, s->l1_offset) : ENOMEM;
    if (*ret_err)
        return NULL;
    for (uint32_t i = 0; i < s->l1_size; i++)
        t[i] = load_be64(&t[i]);
    return g_steal_pointer(&t);
}

static int copied_flag(BlkQcow *q, uint64_t at, uint64_t *e)
{
    uint64_t refs;
    int err = qcow_ref_get(q, at >> q->h.cluster_bits, &refs);

    if (!err)
        *e = refs == 1 ? *e | QCOW_COPIED : *e & ~QCOW_COPIED;
    return err;
}

static int fix_table(BlkQcow *q, uint64_t table)
{
    uint8_t b[QCOW_BLOCK];
    int err = 0;

    for (uint32_t at = 0; at < q->cs && !err; at += q->block) {
        bool change = false;
        err = blk_meta_read(q->meta, table + at, b, q->block);
        for (uint32_t i = 0; i < q->block && !err; i += q->entry) {
            uint64_t old = load_be64(b + i), e = old;
            if (e & QCOW_COMPRESSED)
                e &= ~QCOW_COPIED;
            else if (e & QCOW_OFFSET_MASK)
                err = copied_flag(q, e & QCOW_OFFSET_MASK, &e);
            else
                e &= ~QCOW_COPIED;
            change = change || e != old;
            store_be64(b + i, e);
        }
        if (!err && change)
            err = blk_meta_write(q->meta, table + at, b, q->block, QCOW_RANK_L2);
    }
    return err;
}

int qcow_fix_copied(BlkQcow *q)
{
    int err = 0;

    for (uint32_t i = 0; i < q->h.l1_size && !err; i++) {
        uint64_t e = q->l1[i], table = e & QCOW_OFFSET_MASK;
        if (!table || !qcow_table_ok(q, table))
            continue;
        err = fix_table(q, table);
        if (!err)
            err = copied_flag(q, table, &e);
        if (!err && e != q->l1[i])
            err = qcow_l1_put(q, i, e);
    }
    return err;
}

/* ---- the operations ---- */

static bool failed(BlkQcow *q, int err, const char *what, GError **error)
{
    if (err == ERANGE)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "'%s': cannot %s: its reference counts have %u bits and are full",
                          qcow_file(q)->path, what, 1u << q->h.refcount_order);
    return lodge_fail_errno(error, err, "'%s': cannot %s", qcow_file(q)->path, what);
}

static QcowSnap *find(BlkQcow *q, const char *which)
{
    for (unsigned by_name = 0; by_name < 2; by_name++)
        for (guint i = 0; i < q->snaps->len; i++) {
            QcowSnap *s = g_ptr_array_index(q->snaps, i);
            if (strcmp(by_name ? s->name : s->id, which) == 0)
                return s;
        }
    return NULL;
}

static bool none(BlkQcow *q, const char *which, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "'%s': has no snapshot '%s'",
                      qcow_file(q)->path, which);
}

static int begin(BlkQcow *q)
{
    int err = qcow_settle(q);

    if (!err && atomic_load(&q->corrupt))
        err = EIO;
    return err ? err : qcow_set_incompatible(q, q->h.incompatible | QCOW_INC_DIRTY);
}

static int end(BlkQcow *q, int err)
{
    if (!err)
        err = qcow_settle(q);
    if (!err)
        err = qcow_fix_copied(q);
    if (!err)
        err = qcow_settle(q);
    return err ? err : qcow_set_incompatible(q, q->h.incompatible & ~(uint64_t)QCOW_INC_DIRTY);
}

static GPtrArray *snap_list(BlkNode *n, GError **error)
{
    BlkQcow *q = (BlkQcow *)n;
    GPtrArray *out = blk_snapshots_new();

    for (guint i = 0; i < q->snaps->len; i++) {
        const QcowSnap *s = g_ptr_array_index(q->snaps, i);
        BlkSnapshot *b = g_new0(BlkSnapshot, 1);
        b->id = g_strdup(s->id);
        b->name = g_strdup(s->name);
        b->size = s->size;
        b->vm_bytes = s->vm_bytes;
        b->date_s = s->date_s;
        b->clock_ns = s->clock_ns;
        g_ptr_array_add(out, b);
    }
    return out;
}

static char *new_id(const BlkQcow *q)
{
    uint64_t most = 0;

    for (guint i = 0; i < q->snaps->len; i++) {
        const QcowSnap *s = g_ptr_array_index(q->snaps, i);
        uint64_t id = g_ascii_strtoull(s->id, NULL, 10);
        most = id < UINT32_MAX ? MAX(most, id) : most;
    }
    return g_strdup_printf("%" G_GUINT64_FORMAT, most + 1);
}

/* The table of @l1 as a snapshot has it: without flags, which would go stale. */
static int write_l1(BlkQcow *q, const uint64_t *l1, uint32_t n, uint64_t *ret_at)
{
    g_autofree uint64_t *raw = g_try_new0(uint64_t, (size_t)n + 1);

    if (!raw)
        return ENOMEM;
    for (uint32_t i = 0; i < n; i++)
        store_be64(&raw[i], l1[i] & ~QCOW_COPIED);
    return write_new(q, raw, (uint64_t)n * 8, ret_at);
}

static bool snap_create(BlkNode *n, const char *name, GError **error)
{
    BlkQcow *q = (BlkQcow *)n;
    struct timespec now;

    if (!*name || strlen(name) > QCOW_NAME_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "snapshot '%.40s': has no name that fits",
                          name);
    if (find(q, name))
        return lodge_fail(error, LODGE_ERROR_EXISTS, "'%s': has a snapshot '%s' already",
                          qcow_file(q)->path, name);
    if (q->snaps->len >= QCOW_SNAPSHOTS_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': has %u snapshots, which is the limit",
                          qcow_file(q)->path, QCOW_SNAPSHOTS_MAX);
    int err = begin(q);
    if (err)
        return failed(q, err, "make the snapshot", error);
    GPtrArray *snaps = g_ptr_array_new_with_free_func(snap_free);
    for (guint i = 0; i < q->snaps->len; i++)
        g_ptr_array_add(snaps, snap_copy(g_ptr_array_index(q->snaps, i)));
    QcowSnap *s = g_new0(QcowSnap, 1);
    g_ptr_array_add(snaps, s);
    clock_gettime(CLOCK_REALTIME, &now);
    s->id = new_id(q);
    s->name = g_strdup(name);
    s->size = q->h.size;
    s->date_s = now.tv_sec;
    s->date_ns = now.tv_nsec;
    s->l1_size = q->h.l1_size;
    err = add_all(q, q->l1, q->h.l1_size);
    bool added = !err;
    /* Before the snapshot is there: nothing that it has is written in place from then on. */
    if (!err)
        err = qcow_fix_copied(q);
    if (!err)
        err = write_l1(q, q->l1, q->h.l1_size, &s->l1_offset);
    if (!err)
        err = switch_table(q, snaps);
    else
        g_ptr_array_unref(snaps);
    if (err && added)
        (void)drop_all(q, q->l1, q->h.l1_size); /* what fails leaks */
    int ended = end(q, 0);
    err = err ? err : ended;
    return !err || failed(q, err, "make the snapshot", error);
}

static bool snap_remove(BlkNode *n, const char *which, GError **error)
{
    BlkQcow *q = (BlkQcow *)n;
    QcowSnap *s = find(q, which);
    int err;

    if (!s)
        return none(q, which, error);
    uint64_t at = s->l1_offset, size = s->l1_size;
    g_autofree uint64_t *l1 = read_l1(q, s, &err);
    if (!err)
        err = begin(q);
    if (!err) {
        GPtrArray *snaps = g_ptr_array_new_with_free_func(snap_free);
        for (guint i = 0; i < q->snaps->len; i++)
            if (g_ptr_array_index(q->snaps, i) != s)
                g_ptr_array_add(snaps, snap_copy(g_ptr_array_index(q->snaps, i)));
        err = switch_table(q, snaps);
        if (!err)
            err = drop_all(q, l1, size);
        if (!err && size)
            qcow_free_later(q, at >> q->h.cluster_bits,
                            (size * 8 + q->cs - 1) >> q->h.cluster_bits, true);
        err = end(q, err);
    }
    return !err || failed(q, err, "remove the snapshot", error);
}

/* Switch to a copy of @s's table, with @n entries. */
static int switch_l1(BlkQcow *q, const uint64_t *l1, uint32_t n, uint64_t size)
{
    uint8_t fields[24];
    uint64_t at;

    int err = write_l1(q, l1, n, &at);
    if (!err)
        err = qcow_flush(q);
    store_be64(fields, size);
    store_be32(fields + 8, q->h.crypt);
    store_be32(fields + 12, n);
    store_be64(fields + 16, at);
    if (!err)
        err = qcow_header_put(q, QCOW_AT_SIZE, fields, sizeof fields);
    if (err)
        return err;
    g_autofree uint64_t *old = NULL;
    uint64_t old_at = q->h.l1_offset;
    uint32_t old_n = q->h.l1_size;
    blk_meta_lock(q->meta);
    old = q->l1;
    q->l1 = g_new0(uint64_t, (size_t)n + 1);
    memcpy(q->l1, l1, (size_t)n * 8);
    q->h.l1_offset = at;
    q->h.l1_size = n;
    q->h.size = size;
    blk_meta_unlock(q->meta);
    qcow_areas_set(q);
    err = drop_all(q, old, old_n);
    if (!err && old_n)
        qcow_free_later(q, old_at >> q->h.cluster_bits,
                        ((uint64_t)old_n * 8 + q->cs - 1) >> q->h.cluster_bits, true);
    return err;
}

static bool snap_apply(BlkNode *n, const char *which, GError **error)
{
    BlkQcow *q = (BlkQcow *)n;
    QcowSnap *s = find(q, which);
    int err;

    if (!s)
        return none(q, which, error);
    uint64_t size = s->size ? s->size : q->h.size;
    uint64_t need = qcow_l1_need(size, q->h.cluster_bits, q->extended);
    g_autofree uint64_t *l1 = read_l1(q, s, &err);
    uint32_t entries = MAX(need, s->l1_size);
    if (!err) {
        l1 = g_realloc_n(g_steal_pointer(&l1), (size_t)entries + 1, sizeof *l1);
        memset(l1 + s->l1_size, 0, (size_t)(entries - s->l1_size) * sizeof *l1);
        for (uint32_t i = 0; i < entries; i++)
            l1[i] &= ~QCOW_COPIED; /* right again at the end */
        err = begin(q);
    }
    if (!err) {
        err = add_all(q, l1, entries);
        if (!err)
            err = switch_l1(q, l1, entries, size);
        int ended = end(q, 0);
        err = err ? err : ended;
    }
    return !err || failed(q, err, "apply the snapshot", error);
}

const BlkSnapOps qcow_snap_ops = {
    .list = snap_list,
    .create = snap_create,
    .apply = snap_apply,
    .remove = snap_remove,
};
