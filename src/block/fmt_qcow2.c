/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's qcow2 images, versions 2 and 3, clusters of 512 bytes to 2 MiB: opening, closing, facts.
 * qcow2.h says where the rest is.
 *
 * Read and written: bases, zero clusters, compressed clusters (zlib, zstd), all widths of
 * reference counts, internal snapshots, lazy reference counts (kept exact always; an image that
 * was left dirty is mended when it is opened for writing). Extended L2 entries (subclusters) are
 * read; such an image, and one that is marked corrupt, is refused for writing. Refused: external
 * data files, encryption, features that are not known. Bitmaps are not kept up, and marked so
 * (autoclear_features) when the image is opened for writing.
 *
 * Tables that point into tables: see qcow2_guard.c.
 *
 * Safety: data is in the file before an entry refers to it, and tables go to the disk rank by rank
 * (counts, table of counts, L2, L1), each behind a sync, when the guest flushes. So at every
 * instant the tables on the disk refer to what is there, and a flushed write is found again; what
 * a power cut can leave are clusters that are counted and not used. A killed VM loses at most what
 * it did since its last flush.
 *
 * Spec: the specification; see qcow2.h.
 */
#include <errno.h>
#include <string.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "qcow2.h"

/* Tables are read in blocks of the cache; how the file is cut is the header's. */
static void derive(BlkQcow *q)
{
    const QcowHeader *h = &q->h;

    q->extended = h->incompatible & QCOW_INC_EXTENDED_L2;
    q->cs = 1u << h->cluster_bits;
    q->block = MIN(q->cs, QCOW_BLOCK);
    q->entry = q->extended ? 16 : 8;
    q->l2_bits = h->cluster_bits - (q->extended ? 4 : 3);
    q->refs_bits = h->cluster_bits + 3 - h->refcount_order;
    q->ref_max = h->refcount_order == 6 ? INT64_MAX
                                        : ((uint64_t)1 << (1u << h->refcount_order)) - 1;
}

void qcow_areas_set(BlkQcow *q)
{
    const QcowHeader *h = &q->h;
    const QcowArea all[QCOW_AREAS] = {
        {"header", 0, q->cs},
        {"L1 table", h->l1_offset, (uint64_t)h->l1_size * 8},
        {"refcount table", h->rt_offset, (uint64_t)h->rt_clusters * q->cs},
        {"snapshot table", h->snapshots_offset, h->n_snapshots ? q->snap_bytes : 0},
    };

    blk_meta_lock(q->meta);
    memcpy(q->areas, all, sizeof all);
    q->n_areas = QCOW_AREAS;
    q->areas_end = 0;
    for (unsigned i = 0; i < QCOW_AREAS; i++)
        q->areas_end = MAX(q->areas_end, all[i].at + all[i].len);
    blk_meta_unlock(q->meta);
    (void)qcow_guard_build(q); /* without memory the one before serves */
}

static bool check_overlaps(const BlkQcow *q, GError **error)
{
    for (unsigned i = 0; i < q->n_areas; i++)
        for (unsigned j = 0; j < i; j++)
            if (ranges_overlap(q->areas[i].at, q->areas[i].len, q->areas[j].at, q->areas[j].len))
                return lodge_fail(error, LODGE_ERROR_IMAGE,
                                  "'%s': %s at offset %" G_GUINT64_FORMAT
                                  " overlaps the %s at offset %" G_GUINT64_FORMAT,
                                  ((BlkFile *)q->node.file)->path, q->areas[i].what,
                                  q->areas[i].at, q->areas[j].what, q->areas[j].at);
    return true;
}

static bool no_memory(const BlkQcow *q, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': no memory for its tables",
                      ((BlkFile *)q->node.file)->path);
}

/* A table of @n entries of the file in host byte order; transfer full. */
static uint64_t *load_table(BlkQcow *q, uint64_t at, uint64_t n, GError **error)
{
    uint64_t *t = g_try_new0(uint64_t, n + 1);

    if (!t) {
        no_memory(q, error);
        return NULL;
    }
    if (!blk_file_pread(qcow_file(q), t, n * 8, at, error)) {
        g_free(t);
        return NULL;
    }
    for (uint64_t i = 0; i < n; i++)
        t[i] = load_be64(&t[i]);
    return t;
}

bool qcow_l1_load(BlkQcow *q, GError **error)
{
    uint64_t *t = load_table(q, q->h.l1_offset, q->h.l1_size, error);

    if (!t)
        return false;
    blk_meta_lock(q->meta);
    g_free(q->l1);
    q->l1 = t;
    blk_meta_unlock(q->meta);
    return qcow_guard_build(q) || no_memory(q, error);
}

bool qcow_rt_load(BlkQcow *q, GError **error)
{
    uint64_t n = (uint64_t)q->h.rt_clusters * q->cs / 8;
    uint64_t *t = load_table(q, q->h.rt_offset, n, error);

    if (!t)
        return false;
    blk_meta_lock(q->meta);
    g_free(q->rt);
    q->rt = t;
    q->rt_n = n;
    blk_meta_unlock(q->meta);
    return qcow_guard_build(q) || no_memory(q, error);
}

/* May the image be opened as asked for? */
static bool check_use(const BlkQcow *q, const BlkOpenHow *how, GError **error)
{
    const char *path = ((BlkFile *)q->node.file)->path;

    if (!how->read_only && q->h.incompatible & QCOW_INC_CORRUPT && !how->for_check)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': incompatible_features at offset %d marks it as corrupt; mend it "
                          "(lodge image check --repair), or add ,ro",
                          path, QCOW_AT_INCOMPATIBLE);
    if (!how->read_only && q->extended)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': has extended L2 entries, which can be read only; add ,ro or "
                          "convert it",
                          path);
    if (how->cache == BLK_CACHE_NONE && q->cs < QCOW_BLOCK)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': has clusters of %u bytes, so its data is not aligned to 4096; "
                          "leave cache=none out",
                          path, q->cs);
    return true;
}

/* Reference counts may be wrong in an image that was not closed: count anew. */
static bool mend_dirty(BlkQcow *q, GError **error)
{
    g_autoptr(BlkReport) r = blk_report_new();

    lodge_note("disk %s: '%s': was not closed; its reference counts are being rebuilt",
               q->node.name, qcow_file(q)->path);
    if (!qcow_check(&q->node, true, r, error))
        return false;
    if (r->errors > r->errors_fixed)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': was not closed, and has errors: %s; mend it (lodge image check "
                          "--repair), or add ,ro",
                          qcow_file(q)->path,
                          r->lines->len ? (char *)g_ptr_array_index(r->lines, 0) : "too many");
    return true;
}

static bool start_writing(BlkQcow *q, const BlkOpenHow *how, GError **error)
{
    uint8_t zero[8] = {0};

    if (q->h.autoclear) { /* what we do not keep up */
        int err = qcow_header_put(q, QCOW_AT_AUTOCLEAR, zero, sizeof zero);
        if (err)
            return lodge_fail_errno(error, err, "'%s': cannot write its header",
                                    qcow_file(q)->path);
        q->h.autoclear = 0;
    }
    return how->for_check || !(q->h.incompatible & QCOW_INC_DIRTY) || mend_dirty(q, error);
}

static bool qcow_open(BlkNode *n, const BlkOpenHow *how, BlkBaseRef *ref, GError **error)
{
    BlkQcow *q = (BlkQcow *)n;
    BlkFile *f = qcow_file(q);

    if (!qcow_header_read(f, how, &q->h, ref, error))
        return false;
    derive(q);
    if (!check_use(q, how, error))
        return false;
    q->writable = !how->read_only;
    q->meta = blk_meta_new(f, q->block, how->meta_bytes, QCOW_RANKS);
    q->freed = g_array_new(FALSE, FALSE, sizeof(QcowFreed));
    q->fresh_from = qcow_round(q, f->size);
    if (!qcow_snaps_read(q, error))
        return false;
    qcow_areas_set(q);
    return check_overlaps(q, error) && qcow_l1_load(q, error) && qcow_rt_load(q, error) &&
           (how->read_only || start_writing(q, how, error));
}

/* The format stores no more of its base than the name: any will do. */
static bool qcow_attach(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    return true;
}

/* And whatever becomes of it, as far as this image hides it. */
static bool qcow_base_changes(BlkNode *n, int64_t until_s, GError **error)
{
    return true;
}

static int qcow_settle_slot(BlkNode *n)
{
    return qcow_settle((BlkQcow *)n);
}

static void qcow_limits(BlkNode *n, BlkLimits *l)
{
    BlkQcow *q = (BlkQcow *)n;

    l->size = align_up(q->h.size, BLK_SECTOR);
    l->discard_max = n->read_only ? 0 : BLK_DISCARD_MAX;
    l->align = BLK_SECTOR;
    l->block = MAX(q->cs, QCOW_BLOCK);
    l->max_iov = BLK_MAX_IOV - 2; /* what surrounds a first write goes along */
    l->read_only = n->read_only;
}

static void qcow_close(BlkNode *n)
{
    BlkQcow *q = (BlkQcow *)n;

    if (q->writable && q->l1 && q->rt) {
        int err = qcow_settle(q);
        if (err)
            lodge_warn("disk %s: '%s': its tables cannot be written: %s; what was written since "
                       "the last flush is lost",
                       n->name, qcow_file(q)->path, g_strerror(err));
    }
    qcow_tasks_drop(q);
    qcow_packer_free(q->packer);
    blk_meta_free(q->meta);
    if (q->freed)
        g_array_unref(q->freed);
    if (q->snaps)
        g_ptr_array_unref(q->snaps);
    g_free(q->l1);
    g_free(q->rt);
    g_free(q->guard);
}

static void qcow_describe(BlkNode *n, GPtrArray *facts)
{
    const BlkQcow *q = (BlkQcow *)n;

    blk_fact_text(facts, "compat", q->h.version == 2 ? "0.10" : "1.1");
    blk_fact_number(facts, "cluster-size", q->cs);
    blk_fact_number(facts, "refcount-bits", 1u << q->h.refcount_order);
    blk_fact_text(facts, "compression-type", q->h.compression == QCOW_ZSTD ? "zstd" : "zlib");
    blk_fact_text(facts, "lazy-refcounts", q->h.compatible & QCOW_COMPAT_LAZY ? "true" : "false");
    blk_fact_text(facts, "extended-l2", q->extended ? "true" : "false");
    blk_fact_text(facts, "corrupt", q->h.incompatible & QCOW_INC_CORRUPT ? "true" : "false");
    blk_fact_text(facts, "dirty", q->h.incompatible & QCOW_INC_DIRTY ? "true" : "false");
}

const BlkDriver blk_driver_qcow2 = {
    .name = "qcow2",
    .flags = BLK_DRV_COMPRESS,
    .instance_size = sizeof(BlkQcow),
    .probe = qcow_probe,
    .open = qcow_open,
    .attach = qcow_attach,
    .limits = qcow_limits,
    .submit = qcow_submit,
    .passed = qcow_passed,
    .close = qcow_close,
    .create = qcow_create,
    .create_opts = qcow_create_opts,
    .check = qcow_check,
    .resize = qcow_resize,
    .set_base = qcow_set_base,
    .make_empty = qcow_make_empty,
    .describe = qcow_describe,
    .settle = qcow_settle_slot,
    .base_changes = qcow_base_changes,
    .snap = &qcow_snap_ops,
};
