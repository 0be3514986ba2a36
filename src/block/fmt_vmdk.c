/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMware's disk images: a descriptor in text, and
 *
 *   monolithicFlat     files that hold the disk as it is (also twoGbMaxExtentFlat, vmfs)
 *   monolithicSparse   header, descriptor, two copies of a directory of tables of grains, grains
 *   streamOptimized    the same, grains packed by zlib, for reading only
 *
 * The data path is block_map.c. A sparse image whose directory has gaps is for reading only;
 * those who make images write all tables at once. A descriptor has an id of its contents, which an
 * overlay records of its parent; the first write since an image was opened changes it.
 *
 * While the parent is being written below an overlay (base_changes) a comment in the descriptor
 * says so, and any CID is taken; the first change since the overlay was opened records the CID
 * again.
 *
 * Left out: sparse images of several files, images of ESX's redo logs (COWD), raw devices as
 * extents, packed images written.
 *
 * Threads: vmdk_unpack() and vmdk_touched() on the worker, all else on main, the probe is pure.
 *
 * Spec: VMware, Virtual Disk Format 5.0: "The Descriptor File", "Hosted Sparse Extents",
 * "Stream-Optimized Compressed Sparse Extents".
 */
#include <errno.h>
#include <string.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "vmdk.h"

#define SECTOR ((uint64_t)BLK_SECTOR)
#define GRAIN_MIN 4096u
#define GRAIN_MAX ((uint64_t)16 << 20)
#define FOOTER_FROM_END 1024u /* a copy of the header, then the end-of-stream marker */
#define GD_AT_END UINT64_MAX
#define MARKER_BYTES 12u      /* of a packed grain: sector, size */

enum { FLAG_RGD = 1 << 1, FLAG_ZERO = 1 << 2, FLAG_PACKED = 1 << 16, FLAG_MARKERS = 1 << 17 };

static BlkFile *file_of(const BlkVmdk *v)
{
    return (BlkFile *)v->map.node.file;
}

static bool vmdk_probe(const BlkProbe *p)
{
    return memcmp(p->head, "KDMV", 4) == 0 ||
           memcmp(p->head, VMDK_TEXT_MAGIC, strlen(VMDK_TEXT_MAGIC)) == 0;
}

/* ---- the descriptor ---- */

static bool read_text(BlkVmdk *v, uint64_t at, uint64_t len, GError **error)
{
    BlkFile *f = file_of(v);

    if (len == 0 || len > VMDK_TEXT_MAX || !range_within(at, len, f->size))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': descriptor of %" G_GUINT64_FORMAT " bytes at offset %"
                          G_GUINT64_FORMAT ": lies outside of the file or is too long",
                          f->path, len, at);
    g_autofree char *text = g_malloc(len + 1);
    if (!blk_file_pread(f, text, len, at, error))
        return false;
    text[len] = 0; /* and wherever the first zero is */
    v->text_at = at;
    return vmdk_text_parse(text, f->path, at, &v->text, error);
}

static bool set_parent(BlkVmdk *v, BlkBaseRef *ref, GError **error)
{
    if (v->text.parent_cid == VMDK_NO_PARENT)
        return true;
    if (!v->text.parent || !*v->text.parent)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': descriptor at offset %" G_GUINT64_FORMAT
                          ": has a parentCID, but no parentFileNameHint",
                          file_of(v)->path, v->text_at);
    ref->path = g_strdup(v->text.parent);
    ref->format = g_strdup("vmdk");
    ref->field = "parentFileNameHint";
    ref->offset = v->text_at + v->text.parent_at;
    return true;
}

static bool vmdk_attach(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    BlkVmdk *v = (BlkVmdk *)n;

    if (!base->node || base->node->drv != &blk_driver_vmdk)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': its parent must be a vmdk image, not %s as '%s' is",
                          file_of(v)->path, base->format, base->full);
    const BlkVmdk *p = (const BlkVmdk *)base->node;
    v->has_parent = true;
    v->parent_cid = p->text.cid;
    if (p->text.cid == v->text.parent_cid || v->text.noted)
        return true;
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "'%s': parentCID %08x at offset %" G_GUINT64_FORMAT
                      ": is not the CID %08x of '%s'; it is another image or was changed since: "
                      "restore it, or start a new overlay (after a commit that was cut off: "
                      "lodge image rebase --unsafe, and commit again)",
                      file_of(v)->path, v->text.parent_cid, v->text_at, p->text.cid, base->full);
}

/* ---- flat ---- */

static bool bad_extent(const BlkVmdk *v, const VmdkExtent *e, const char *why, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_IMAGE,
                      "'%s': descriptor, extent '%s' at offset %" G_GUINT64_FORMAT ": %s",
                      file_of(v)->path, e->name ? e->name : e->type, v->text_at + e->at, why);
}

static BlkFile *open_extent(BlkVmdk *v, const BlkOpenHow *how, const VmdkExtent *e, GError **error)
{
    BlkFile *own = file_of(v);

    if (!e->name || !vmdk_name_ok(e->name)) {
        bad_extent(v, e, "must name a file beside the image", error);
        return NULL;
    }
    BlkFile *f = blk_open_beside(&v->map.node, how, e->name, error);
    if (!f) {
        g_prefix_error(error, "'%s': descriptor, extent at offset %" G_GUINT64_FORMAT ": ",
                       own->path, v->text_at + e->at);
        return NULL;
    }
    g_ptr_array_add(v->files, f);
    bool twice = f->dev == own->dev && f->ino == own->ino;
    for (guint i = 0; i + 1 < v->files->len; i++) {
        const BlkFile *other = v->files->pdata[i];
        twice = twice || (f->dev == other->dev && f->ino == other->ino);
    }
    if (twice || !range_within(e->offset * SECTOR, e->sectors * SECTOR, f->size)) {
        bad_extent(v, e, twice ? "is the image itself or named twice" : "is cut off", error);
        return NULL;
    }
    return f;
}

static bool open_flat(BlkVmdk *v, const BlkOpenHow *how, GError **error)
{
    BlockMap *m = &v->map;
    GArray *list = v->text.extents;

    m->plain = g_new0(BlockExtent, MAX(list->len, 1));
    for (guint i = 0; i < list->len; i++) {
        const VmdkExtent *e = &g_array_index(list, VmdkExtent, i);
        bool zero = strcmp(e->type, "ZERO") == 0;
        BlkFile *f = NULL;
        if (!zero && strcmp(e->type, "FLAT") != 0 && strcmp(e->type, "VMFS") != 0)
            return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                              "'%s': descriptor, extent at offset %" G_GUINT64_FORMAT
                              ": type %.20s is not supported; convert the image",
                              file_of(v)->path, v->text_at + e->at, e->type);
        if (e->access == VMDK_NOACCESS || (e->access == VMDK_RDONLY && !how->read_only))
            return bad_extent(v, e, "may not be written; add ,ro", error);
        if (!zero && !(f = open_extent(v, how, e, error)))
            return false;
        m->plain[m->n_plain++] = (BlockExtent){.start = m->size, .len = e->sectors * SECTOR,
                                               .file = f, .offset = e->offset * SECTOR};
        if (!u64_add_ok(m->size, e->sectors * SECTOR, &m->size) || m->size > BLK_MAX_SIZE)
            return bad_extent(v, e, "makes the disk too large", error);
    }
    if (!m->size)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': descriptor at offset %" G_GUINT64_FORMAT ": names no extent",
                          file_of(v)->path, v->text_at);
    return block_map_init(m, how, error);
}

static bool open_text(BlkVmdk *v, const BlkOpenHow *how, GError **error)
{
    static const char *const flat[] = {"monolithicFlat", "twoGbMaxExtentFlat", "vmfs"};

    if (!read_text(v, 0, file_of(v)->size, error))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(flat); i++)
        if (strcmp(v->text.type, flat[i]) == 0)
            return open_flat(v, how, error);
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "'%s': createType %.40s is not supported; convert it (qemu-img convert -O "
                      "qcow2)",
                      file_of(v)->path, v->text.type);
}

/* ---- sparse ---- */

static bool bad(const BlkVmdk *v, const uint8_t *h, unsigned at, const char *what, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_IMAGE,
                      "'%s': header: %s %" G_GUINT64_FORMAT " at offset %u", file_of(v)->path,
                      what, load_le64(h + at), at);
}

static bool read_directory(BlkVmdk *v, const uint8_t *h, unsigned at, unsigned copy,
                           GError **error)
{
    BlockMap *m = &v->map;
    uint64_t n = (m->entries + m->per_table - 1) / m->per_table, sector = load_le64(h + at);

    if (sector == 0 || sector > BLK_MAX_SIZE / SECTOR ||
        !range_within(sector * SECTOR, n * 4, file_of(v)->size))
        return bad(v, h, at, "grain directory outside of the file, at sector", error);
    m->dir[copy] = g_new0(uint32_t, n);
    if (!blk_file_pread(file_of(v), m->dir[copy], n * 4, sector * SECTOR, error))
        return false;
    m->floor = MAX(m->floor, sector * SECTOR + n * 4);
    for (uint64_t i = 0; i < n; i++) {
        m->dir[copy][i] = load_le32((uint8_t *)&m->dir[copy][i]);
        m->floor = MAX(m->floor, m->dir[copy][i] * SECTOR + (uint64_t)m->per_table * 4);
        if (!m->dir[copy][i] && !m->node.read_only)
            return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                              "'%s': grain directory at offset %" G_GUINT64_FORMAT
                              " has no table for entry %" G_GUINT64_FORMAT
                              "; such an image is for reading only: add ,ro or convert it",
                              file_of(v)->path, sector * SECTOR, i);
    }
    return true;
}

typedef struct Place {
    uint64_t start, end; /* sectors */
} Place;

static int by_start(const void *a, const void *b)
{
    const Place *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

/* Who changes a table must change nothing else: header, descriptor, directories and tables each lie
 * in a place of their own. */
static bool check_places(BlkVmdk *v, const uint8_t *h, GError **error)
{
    static const unsigned dirs[] = {SP_GD, SP_RGD};
    BlockMap *m = &v->map;
    uint64_t n = (m->entries + m->per_table - 1) / m->per_table;
    g_autoptr(GArray) all = g_array_new(FALSE, FALSE, sizeof(Place));
    Place p = {0, 1};

    g_array_append_val(all, p);
    p = (Place){v->text_at / SECTOR, (v->text_at + v->text_max) / SECTOR};
    g_array_append_val(all, p);
    for (unsigned copy = 0; copy < 2 && m->dir[copy]; copy++) {
        p.start = load_le64(h + dirs[copy]);
        p.end = p.start + (n * 4 + SECTOR - 1) / SECTOR;
        g_array_append_val(all, p);
        for (uint64_t i = 0; i < n; i++) {
            p = (Place){m->dir[copy][i], m->dir[copy][i] + (uint64_t)m->per_table * 4 / SECTOR};
            if (p.start)
                g_array_append_val(all, p);
        }
    }
    g_array_sort(all, by_start);
    for (guint i = 1; i < all->len; i++) {
        const Place *a = &g_array_index(all, Place, i - 1), *b = a + 1;
        if (b->start < a->end)
            return lodge_fail(error, LODGE_ERROR_IMAGE,
                              "'%s': header, descriptor, grain directories or tables overlap at "
                              "offset %" G_GUINT64_FORMAT "; the image can be read only: add ,ro",
                              file_of(v)->path, b->start * SECTOR);
    }
    return true;
}

static int vmdk_unpack(BlockMap *m, uint64_t index, uint64_t offset, uint8_t *buf)
{
    BlkVmdk *v = (BlkVmdk *)m;
    uint8_t marker[MARKER_BYTES];
    uint64_t most = 2 * (uint64_t)m->block, left = m->size - index * m->block;
    unsigned long len = m->block;
    int err = blk_file_read_at(file_of(v), marker, sizeof marker, offset);

    if (err)
        return err;
    uint64_t sector = load_le64(marker), size = load_le32(marker + 8);
    bool ok = sector == index * (m->block / SECTOR) && size && size <= most &&
              range_within(offset + MARKER_BYTES, size, m->eof);
    if (ok && !v->packed && !(v->packed = g_try_malloc(most)))
        return ENOMEM;
    if (ok)
        err = blk_file_read_at(file_of(v), v->packed, size, offset + MARKER_BYTES);
    if (err)
        return err;
    /* The last one may hold no more than the disk has. */
    if (ok && v->uncompress(buf, &len, v->packed, size) == 0 && len >= MIN(left, m->block))
        return 0;
    if (!atomic_exchange(&m->warned, true))
        lodge_warn("disk %s: '%s': packed grain at offset %" G_GUINT64_FORMAT
                   ": cannot be unpacked; its sectors cannot be used",
                   m->node.name, file_of(v)->path, offset);
    return EIO;
}

static bool set_packed(BlkVmdk *v, const uint8_t *h, GError **error)
{
    uint32_t flags = load_le32(h + SP_FLAGS);

    if (!(flags & FLAG_MARKERS) || load_le16(h + SP_COMPRESS) != 1)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': header: compression %u at offset %u, flags 0x%x, is not known",
                          file_of(v)->path, load_le16(h + SP_COMPRESS), SP_COMPRESS, flags);
    if (!v->map.node.read_only)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': a streamOptimized image is for reading only; add ,ro or convert "
                          "it",
                          file_of(v)->path);
    v->zlib = dynlib_open("libz.so.1", "zlib1g", error);
    void *f = v->zlib ? dynlib_sym(v->zlib, "uncompress", error) : NULL;
    memcpy(&v->uncompress, &f, sizeof f);
    v->map.unpack = vmdk_unpack;
    return f;
}

static bool check_header(BlkVmdk *v, const uint8_t *h, GError **error)
{
    uint64_t grain = load_le64(h + SP_GRAIN), capacity = load_le64(h + SP_CAPACITY);
    uint32_t gtes = load_le32(h + SP_GTES);

    if (memcmp(h, "KDMV", 4) != 0)
        return bad(v, h, SP_MAGIC, "magic", error);
    if (load_le32(h + SP_VERSION) == 0 || load_le32(h + SP_VERSION) > 3)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': header: version %u at offset %u is not known", file_of(v)->path,
                          load_le32(h + SP_VERSION), SP_VERSION);
    if (!is_power_of_two(grain) || grain > GRAIN_MAX / SECTOR || grain * SECTOR < GRAIN_MIN)
        return bad(v, h, SP_GRAIN, "grain size", error);
    if (capacity == 0 || capacity > BLK_MAX_SIZE / SECTOR)
        return bad(v, h, SP_CAPACITY, "capacity", error);
    if (gtes != VMDK_GTES)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': header: grain tables of %u entries at offset %u", file_of(v)->path,
                          gtes, SP_GTES);
    if (load_le64(h + SP_TEXT) == 0)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': header: no descriptor at offset %u; it is a part of an image of "
                          "several files, which is not supported; convert that",
                          file_of(v)->path, SP_TEXT);
    return true;
}

static bool open_sparse(BlkVmdk *v, const BlkOpenHow *how, uint8_t *h, GError **error)
{
    BlockMap *m = &v->map;
    BlkFile *f = file_of(v);
    uint32_t flags;

    if (!check_header(v, h, error))
        return false;
    uint64_t text = load_le64(h + SP_TEXT), text_size = load_le64(h + SP_TEXT_SIZE);
    if (text > BLK_MAX_SIZE / SECTOR || text_size > VMDK_TEXT_MAX / SECTOR)
        return bad(v, h, SP_TEXT, "descriptor outside of the file, at sector", error);
    v->text_max = text_size * SECTOR;
    if (!read_text(v, text * SECTOR, v->text_max, error))
        return false;
    if (load_le64(h + SP_GD) == GD_AT_END) {
        if (f->size < FOOTER_FROM_END)
            return bad(v, h, SP_GD, "a footer is promised by", error);
        if (!blk_file_pread(f, h, BLK_SECTOR, f->size - FOOTER_FROM_END, error) ||
            !check_header(v, h, error))
            return false;
    }
    flags = load_le32(h + SP_FLAGS);
    m->size = load_le64(h + SP_CAPACITY) * SECTOR;
    m->block = (uint32_t)(load_le64(h + SP_GRAIN) * SECTOR);
    m->entries = (m->size + m->block - 1) / m->block;
    m->per_table = VMDK_GTES;
    m->unit = BLK_SECTOR;
    m->align = m->block;
    m->none = 0;
    m->zero = 1;
    m->has_zero = flags & FLAG_ZERO;
    m->field = "grain table";
    m->touched = vmdk_touched;
    uint64_t overhead = load_le64(h + SP_OVERHEAD);
    if (overhead > f->size / SECTOR)
        return bad(v, h, SP_OVERHEAD, "overhead past the end of the file, to sector", error);
    m->lowest = MAX(overhead * SECTOR, v->text_at + v->text_max);
    m->floor = m->lowest;
    if (m->entries > BLOCK_MAP_ENTRIES_MAX)
        return bad(v, h, SP_CAPACITY, "capacity", error);
    if (flags & FLAG_PACKED && !set_packed(v, h, error))
        return false;
    return read_directory(v, h, SP_GD, 0, error) &&
           ((m->node.read_only && !how->for_check) || !(flags & FLAG_RGD) ||
            read_directory(v, h, SP_RGD, 1, error)) &&
           (m->node.read_only || check_places(v, h, error)) && block_map_init(m, how, error);
}

static bool vmdk_open(BlkNode *n, const BlkOpenHow *how, BlkBaseRef *ret_base, GError **error)
{
    BlkVmdk *v = (BlkVmdk *)n;
    uint8_t head[BLK_SECTOR];

    v->files = g_ptr_array_new();
    v->map.touched = vmdk_touched;
    if (!blk_file_pread(file_of(v), head, sizeof head, 0, error))
        return false;
    bool text = memcmp(head, VMDK_TEXT_MAGIC, strlen(VMDK_TEXT_MAGIC)) == 0;
    return (text ? open_text(v, how, error) : open_sparse(v, how, head, error)) &&
           set_parent(v, ret_base, error);
}

static void vmdk_close(BlkNode *n)
{
    BlkVmdk *v = (BlkVmdk *)n;

    block_map_close(n);
    vmdk_text_clear(&v->text);
    for (guint i = 0; v->files && i < v->files->len; i++)
        blk_node_free(v->files->pdata[i]);
    if (v->files)
        g_ptr_array_unref(v->files);
    dynlib_close(v->zlib);
    g_free(v->packed);
}

const BlkDriver blk_driver_vmdk = {
    .name = "vmdk",
    .flags = BLK_DRV_CHECKS_BASE,
    .instance_size = sizeof(BlkVmdk),
    .probe = vmdk_probe,
    .open = vmdk_open,
    .attach = vmdk_attach,
    .limits = block_map_limits,
    .submit = block_map_submit,
    .close = vmdk_close,
    .create = vmdk_create,
    .create_opts = vmdk_create_opts,
    .check = vmdk_check,
    .resize = vmdk_resize,
    .set_base = vmdk_set_base,
    .make_empty = vmdk_make_empty,
    .describe = vmdk_describe,
    .settle = block_map_settle,
    .base_changes = vmdk_base_changes,
};
