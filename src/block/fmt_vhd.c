/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Virtual Hard Disks of Virtual PC and Hyper-V (not VHDX): fixed, dynamic, differencing.
 *
 *   fixed          the disk, then a footer
 *   dynamic        copy of the footer; header; table with a sector number for each block; blocks,
 *                  each behind a bitmap of its sectors; footer
 *   differencing   the same, the parent named in the header by its id, its time and by locators;
 *                  a sector whose bit is clear comes from the parent
 *
 * The data path is block_map.c, vhd_image.c makes and changes images.
 *
 * Size: programs of Virtual PC's time and early versions of QEMU meant what the geometry says, all
 * others the current size; who made the image tells which. A geometry at its largest means the
 * current size too.
 *
 * A parent's time of 0 is one that is not known, and any is taken: so stands the header of an
 * overlay while its parent is being written below it (base_changes), and of one that was emptied by
 * that. The first change since the overlay was opened records the time again.
 *
 * The footer at the end gives way to each new block and is written again at a flush; a process that
 * dies in between leaves the copy at the start, which serves as well; the next writer puts the
 * other one back. Before Virtual PC 2004 a footer at the end had 511 bytes; it is read, and written
 * with 512. Left out: splitting over several files, saved states.
 *
 * Threads: vhd_settle() and vhd_touched() on the worker or at rest, all else on main, the probe is
 * pure.
 *
 * Spec: Microsoft, Virtual Hard Disk Image Format Specification, version 1.0 (2006): "Hard Disk
 * Footer Format", "Dynamic Disk Header Format", "Block Allocation Table and Data Blocks",
 * "Implementing a Differencing Hard Disk".
 */
#include <string.h>

#include "lodge/num.h"

#include "vhd.h"

static BlkFile *file_of(const BlkVhd *v)
{
    return (BlkFile *)v->map.node.file;
}

static bool vhd_probe(const BlkProbe *p)
{
    return memcmp(p->head, VHD_COOKIE, 8) == 0 || memcmp(p->tail, VHD_COOKIE, 8) == 0;
}

uint32_t vhd_checksum(const uint8_t *p, size_t len, size_t at)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < len; i++)
        if (i < at || i >= at + 4)
            sum += p[i];
    return ~sum;
}

static bool sum_ok(const uint8_t *p, size_t len, size_t at)
{
    return vhd_checksum(p, len, at) == load_be32(p + at);
}

static bool footer_ok(const uint8_t *p)
{
    return memcmp(p, VHD_COOKIE, 8) == 0 && sum_ok(p, VHD_FOOTER, FT_CHECKSUM);
}

uint64_t vhd_chs_bytes(const uint8_t *footer)
{
    const uint8_t *g = footer + FT_GEOMETRY;

    return (uint64_t)load_be16(g) * g[2] * g[3] * BLK_SECTOR;
}

/* The disk's size as the program that made the image meant it. */
static uint64_t visible_size(const uint8_t *footer)
{
    static const char *const by_geometry[] = {"vpc ", "vs  ", "qemu"};
    uint64_t chs = vhd_chs_bytes(footer);

    for (unsigned i = 0; i < G_N_ELEMENTS(by_geometry); i++)
        if (memcmp(footer + FT_CREATOR, by_geometry[i], 4) == 0 && chs &&
            chs < VHD_GEOMETRY_MAX * BLK_SECTOR)
            return chs;
    return load_be64(footer + FT_SIZE);
}

/* ---- parents ---- */

/* A path as Windows writes it, in UTF-16 of @len bytes; transfer full, NULL: not usable here. */
static char *windows_path(const uint8_t *p, size_t len, bool big_endian)
{
    g_autofree gunichar2 *u = g_new0(gunichar2, len / 2 + 1);

    for (size_t i = 0; i < len / 2; i++)
        u[i] = big_endian ? load_be16(p + 2 * i) : load_le16(p + 2 * i);
    char *path = g_utf16_to_utf8(u, (glong)(len / 2), NULL, NULL, NULL);
    if (path && (!*path || (g_ascii_isalpha(path[0]) && path[1] == ':')))
        g_clear_pointer(&path, g_free); /* of a drive that is not here */
    if (!path)
        return NULL;
    g_strdelimit(path, "\\", '/');
    if (g_str_has_prefix(path, "./"))
        memmove(path, path + 2, strlen(path + 2) + 1);
    return path;
}

/* A path as a file URL, which may be relative ("file://./NAME"); transfer full, or NULL. */
static char *url_path(const uint8_t *p, size_t len)
{
    g_autofree char *text = g_strndup((const char *)p, len);

    if (!g_str_has_prefix(text, "file://"))
        return NULL;
    const char *rest = text + strlen("file://");
    if (g_str_has_prefix(rest, "localhost/"))
        rest += strlen("localhost");
    if (g_str_has_prefix(rest, "./"))
        rest += 2;
    return *rest ? g_uri_unescape_string(rest, NULL) : NULL;
}

static char *locator_path(uint32_t code, const uint8_t *p, size_t len)
{
    switch (code) {
    case VHD_W2RU:
    case VHD_W2KU:
        return windows_path(p, len, false);
    case VHD_MACX:
        return url_path(p, len);
    default:
        return NULL;
    }
}

/* Relative names first: chains are moved. */
static unsigned locator_order(uint32_t code)
{
    return code == VHD_W2RU ? 0 : code == VHD_MACX ? 1 : code == VHD_W2KU ? 2 : 3;
}

static bool read_locators(BlkVhd *v, BlkBaseRef *ref, GError **error)
{
    BlkFile *f = file_of(v);
    g_autofree uint8_t *text = g_malloc(VHD_LOCATOR_MAX);
    unsigned best = 3;

    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const uint8_t *l = v->header + HD_LOCATORS + i * LOC_BYTES;
        uint32_t code = load_be32(l), len = load_be32(l + LOC_LENGTH);
        uint64_t at = load_be64(l + LOC_OFFSET);
        if (code == 0)
            continue;
        if (len > VHD_LOCATOR_MAX || !range_within(at, len, f->size))
            return lodge_fail(error, LODGE_ERROR_IMAGE,
                              "'%s': parent locator at offset %u: %u bytes at %" G_GUINT64_FORMAT
                              " lie outside of the file or are too many",
                              f->path, VHD_HEADER_AT + HD_LOCATORS + i * LOC_BYTES, len, at);
        v->map.floor = MAX(v->map.floor, at + len);
        if (locator_order(code) >= best)
            continue;
        if (!blk_file_pread(f, text, len, at, error))
            return false;
        char *path = locator_path(code, text, len);
        if (!path)
            continue;
        g_free(ref->path);
        ref->path = path;
        ref->offset = at;
        best = locator_order(code);
    }
    if (!ref->path) {
        ref->path = windows_path(v->header + HD_PARENT_NAME, HD_PARENT_NAME_BYTES, true);
        ref->offset = VHD_HEADER_AT + HD_PARENT_NAME;
    }
    if (!ref->path)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': header at offset %u: names no parent that can be opened here",
                          f->path, VHD_HEADER_AT + HD_PARENT_NAME);
    ref->format = g_strdup("vhd");
    ref->field = "parent locator";
    return true;
}

uint32_t vhd_time_of(uint32_t mtime)
{
    return mtime - VHD_EPOCH;
}

static bool vhd_attach(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    BlkVhd *v = (BlkVhd *)n;
    const char *path = file_of(v)->path;

    if (!base->node || base->node->drv != &blk_driver_vhd)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': its parent must be a vhd image, not %s as '%s' is", path,
                          base->format, base->full);
    const BlkVhd *p = (const BlkVhd *)base->node;
    uint32_t want = load_be32(v->header + HD_PARENT_TIME);
    uint64_t size = load_be64(v->footer + FT_SIZE), have = load_be64(p->footer + FT_SIZE);
    if (memcmp(v->header + HD_PARENT_ID, p->footer + FT_ID, 16) != 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': parent id at offset %u: is not that of '%s'; give the parent it "
                          "was made with",
                          path, VHD_HEADER_AT + HD_PARENT_ID, base->full);
    if (size != have)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': current size at offset %u: %" G_GUINT64_FORMAT
                          " is not that of its parent '%s', %" G_GUINT64_FORMAT,
                          path, FT_SIZE, size, base->full, have);
    if (want && want != vhd_time_of(base->mtime))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': parent time at offset %u: %u is not that of '%s', %u; the parent "
                          "was changed since: restore it, or start a new overlay (if only its "
                          "time changed: touch -d @%u; after a commit that was cut off: lodge "
                          "image rebase --unsafe, and commit again)",
                          path, VHD_HEADER_AT + HD_PARENT_TIME, want, base->full,
                          vhd_time_of(base->mtime), want + VHD_EPOCH);
    v->parent_time = vhd_time_of(base->mtime);
    return true;
}

/* ---- opening ---- */

static bool read_footer(BlkVhd *v, GError **error)
{
    BlkFile *f = file_of(v);
    uint8_t copy[VHD_FOOTER];

    v->tail_len = f->size % BLK_SECTOR == VHD_FOOTER_OLD ? VHD_FOOTER_OLD : VHD_FOOTER;
    if (f->size < VHD_FOOTER)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "'%s': is too short for a footer", f->path);
    if (!blk_file_pread(f, copy, sizeof copy, 0, error) ||
        !blk_file_pread(f, v->footer, v->tail_len, f->size - v->tail_len, error))
        return false;
    v->no_tail = !footer_ok(v->footer);
    if (v->no_tail) /* a fixed disk has no copy, and shows what its guest wrote */
        memcpy(v->footer, copy, VHD_FOOTER);
    uint32_t type = load_be32(v->footer + FT_TYPE);
    if (!footer_ok(v->footer) || (v->no_tail && type == VHD_FIXED))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': neither a footer at offset %" G_GUINT64_FORMAT
                          " nor a copy of it at 0 has cookie and checksum right",
                          f->path, f->size - v->tail_len);
    bool differs = type != VHD_FIXED && memcmp(copy, v->footer, VHD_FOOTER) != 0;
    v->old_copy = differs && footer_ok(copy);
    v->bad_copy = differs && !v->old_copy;
    if (load_be32(v->footer + FT_VERSION) >> 16 != 1)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': footer: version 0x%x at offset %u is not known", f->path,
                          load_be32(v->footer + FT_VERSION), FT_VERSION);
    if (type != VHD_FIXED && type != VHD_DYNAMIC && type != VHD_DIFFERENCING)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': footer: disk type %u at offset %u is not known", f->path, type,
                          FT_TYPE);
    v->map.size = visible_size(v->footer);
    if (v->map.size == 0 || v->map.size > VHD_SIZE_MAX || v->map.size % BLK_SECTOR)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': footer: a disk of %" G_GUINT64_FORMAT " bytes at offset %u",
                          f->path, v->map.size, FT_SIZE);
    return true;
}

bool vhd_is_fixed(const BlkVhd *v)
{
    return load_be32(v->footer + FT_TYPE) == VHD_FIXED;
}

bool vhd_set_fixed(BlkVhd *v, GError **error)
{
    BlockMap *m = &v->map;
    BlkFile *f = file_of(v);

    if (!range_within(m->size, v->tail_len, f->size))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': footer: a disk of %" G_GUINT64_FORMAT
                          " bytes at offset %u, but the file has %" G_GUINT64_FORMAT,
                          f->path, m->size, FT_SIZE, f->size);
    g_free(m->plain);
    m->plain = g_new0(BlockExtent, 1);
    m->n_plain = 1;
    *m->plain = (BlockExtent){.len = m->size, .file = f};
    return true;
}

static bool read_header(BlkVhd *v, GError **error)
{
    BlkFile *f = file_of(v);
    uint64_t at = load_be64(v->footer + FT_DATA);
    const uint8_t *h = v->header;

    if (at != VHD_HEADER_AT)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': footer: data offset %" G_GUINT64_FORMAT
                          " at offset %u; the header is read at %u only",
                          f->path, at, FT_DATA, VHD_HEADER_AT);
    if (!blk_file_pread(f, v->header, VHD_HEADER, at, error))
        return false;
    if (memcmp(h, VHD_HEADER_COOKIE, 8) != 0 || !sum_ok(h, VHD_HEADER, HD_CHECKSUM))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': header at offset %u: its cookie or its checksum is wrong", f->path,
                          VHD_HEADER_AT);
    if (load_be32(h + HD_VERSION) >> 16 != 1)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': header: version 0x%x at offset %u is not known", f->path,
                          load_be32(h + HD_VERSION), VHD_HEADER_AT + HD_VERSION);
    return true;
}

void vhd_table_changed(BlkVhd *v)
{
    BlockMap *m = &v->map;

    m->entries = load_be32(v->header + HD_ENTRIES);
    m->table = load_be64(v->header + HD_TABLE);
}

static bool set_dynamic(BlkVhd *v, GError **error)
{
    BlockMap *m = &v->map;
    uint32_t block = load_be32(v->header + HD_BLOCK);

    if (!is_power_of_two(block) || block < VHD_BLOCK_MIN || block > BLOCK_MAP_BLOCK_MAX)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': header: block size %u at offset %u", file_of(v)->path, block,
                          VHD_HEADER_AT + HD_BLOCK);
    vhd_table_changed(v);
    if (m->table < VHD_HEADER_AT + VHD_HEADER)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': header: table at %" G_GUINT64_FORMAT
                          " at offset %u lies in the header",
                          file_of(v)->path, m->table, VHD_HEADER_AT + HD_TABLE);
    m->block = block;
    m->lead = align_up(block / BLK_SECTOR / 8, BLK_SECTOR);
    m->sector_bits = true;
    m->big_endian = true;
    m->unit = BLK_SECTOR;
    m->none = VHD_NONE;
    m->lowest = VHD_HEADER_AT + VHD_HEADER;
    m->tail = VHD_FOOTER;
    m->field = "block allocation table";
    m->settle = vhd_settle;
    return true;
}

static bool vhd_open(BlkNode *n, const BlkOpenHow *how, BlkBaseRef *ret_base, GError **error)
{
    BlkVhd *v = (BlkVhd *)n;
    BlockMap *m = &v->map;

    if (!read_footer(v, error))
        return false;
    if (vhd_is_fixed(v))
        return vhd_set_fixed(v, error) && block_map_init(m, how, error);
    if (!read_header(v, error) || !set_dynamic(v, error) || !block_map_init(m, how, error))
        return false;
    m->floor = MAX(m->lowest, align_up(m->table + m->entries * 4, BLK_SECTOR));
    /* XenServer's tools keep a map of full blocks behind the table. */
    if (memcmp(v->footer + FT_CREATOR, "tap", 4) == 0)
        m->floor = MAX(m->floor, align_down(file_of(v)->size - VHD_FOOTER, BLK_SECTOR));
    if ((v->no_tail || v->old_copy) && !n->read_only && !how->for_check)
        atomic_store(&m->moved, true); /* so that the next flush writes one */
    if (load_be32(v->footer + FT_TYPE) != VHD_DIFFERENCING)
        return true;
    m->touched = vhd_touched;
    return read_locators(v, ret_base, error);
}

int vhd_settle(BlockMap *m)
{
    BlkVhd *v = (BlkVhd *)m;
    int err = blk_file_write_at(file_of(v), v->footer, VHD_FOOTER, m->end);

    v->no_tail = v->no_tail && err;
    if (!err && v->old_copy)
        err = blk_file_write_at(file_of(v), v->footer, VHD_FOOTER, 0);
    v->old_copy = v->old_copy && err;
    return err;
}

const BlkDriver blk_driver_vhd = {
    .name = "vhd",
    .flags = BLK_DRV_CHECKS_BASE,
    .instance_size = sizeof(BlkVhd),
    .probe = vhd_probe,
    .open = vhd_open,
    .attach = vhd_attach,
    .limits = block_map_limits,
    .submit = block_map_submit,
    .close = block_map_close,
    .create = vhd_create,
    .create_opts = vhd_create_opts,
    .check = vhd_check,
    .resize = vhd_resize,
    .set_base = vhd_set_base,
    .make_empty = vhd_make_empty,
    .describe = vhd_describe,
    .settle = block_map_settle,
    .base_changes = vhd_base_changes,
};
