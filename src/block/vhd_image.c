/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VHD images as wholes: making, checking, another size, another parent.
 *
 * New images have the exact size that was asked for. The creator field says "win ", as Hyper-V's
 * do: it is how programs tell that the size counts and not the geometry, which cannot express all.
 * A table that has to be longer is written anew behind the last block, before the header is made to
 * point to it.
 *
 * Threads: main, the node drained; vhd_touched() on the worker.
 *
 * Spec: as fmt_vhd.c; "CHS Calculation".
 */
#include <string.h>

#include "lodge/num.h"

#include "vhd.h"

#define TABLE_CHUNK ((size_t)64 << 10)
#define LOCATOR_SPACE 8192u /* of each locator, so that a path can be replaced */

const BlkCreateOpt vhd_create_opts[] = {
    {"subformat", "dynamic|fixed", "whether the file grows with what is written"},
    {NULL, NULL, NULL},
};

static BlkFile *file_of(const BlkVhd *v)
{
    return (BlkFile *)v->map.node.file;
}

static uint32_t now(void)
{
    return (uint32_t)(g_get_real_time() / G_USEC_PER_SEC - VHD_EPOCH);
}

/* ---- the footer ---- */

static void store_geometry(uint8_t *p, uint64_t size)
{
    uint64_t total = MIN(size / BLK_SECTOR, VHD_GEOMETRY_MAX);
    uint32_t sectors = 17, heads, tracks;

    if (total >= UINT64_C(65535) * 16 * 63) {
        sectors = 255;
        heads = 16;
    } else {
        tracks = total / sectors;
        heads = MAX(4, (tracks + 1023) / 1024);
        if (tracks >= heads * 1024 || heads > 16) {
            sectors = 31;
            heads = 16;
        }
        if (total / sectors >= heads * 1024)
            sectors = 63;
        heads = sectors == 63 ? 16 : heads;
    }
    store_be16(p, (uint16_t)(total / sectors / heads));
    p[2] = (uint8_t)heads;
    p[3] = (uint8_t)sectors;
}

static void seal_footer(uint8_t *f)
{
    store_be32(f + FT_CHECKSUM, vhd_checksum(f, VHD_FOOTER, FT_CHECKSUM));
}

static void seal_header(uint8_t *h)
{
    store_be32(h + HD_CHECKSUM, vhd_checksum(h, VHD_HEADER, HD_CHECKSUM));
}

static void set_footer_size(uint8_t *f, uint64_t size)
{
    memcpy(f + FT_CREATOR, "win ", 4);
    store_be64(f + FT_SIZE, size);
    store_geometry(f + FT_GEOMETRY, size);
    seal_footer(f);
}

static void new_footer(uint8_t *f, uint64_t size, unsigned type)
{
    memset(f, 0, VHD_FOOTER);
    memcpy(f, VHD_COOKIE, 8);
    store_be32(f + FT_FEATURES, 2); /* reserved, always set */
    store_be32(f + FT_VERSION, 0x00010000);
    store_be64(f + FT_DATA, type == VHD_FIXED ? UINT64_MAX : VHD_HEADER_AT);
    store_be32(f + FT_TIME, now());
    store_be32(f + FT_CREATOR_VERSION, 0x000a0000);
    memcpy(f + FT_HOST, "Wi2k", 4);
    store_be64(f + FT_ORIGINAL, size);
    store_be32(f + FT_TYPE, type);
    block_uuid_new(f + FT_ID);
    set_footer_size(f, size);
}

/* ---- the parent ---- */

/* UTF-16 of @path as Windows writes it; @len: bytes; transfer full, or NULL. */
static uint8_t *windows_text(const char *path, bool big_endian, size_t *ret_len)
{
    bool relative = !g_path_is_absolute(path);
    g_autofree char *dotted =
        relative && !g_str_has_prefix(path, "../") ? g_strconcat("./", path, NULL)
                                                   : g_strdup(path);
    glong n = 0;

    if (strchr(path, '\\'))
        return NULL; /* not to be said there */
    g_strdelimit(dotted, "/", '\\');
    g_autofree gunichar2 *u = g_utf8_to_utf16(dotted, -1, NULL, &n, NULL);
    if (!u)
        return NULL;
    uint8_t *text = g_malloc(n * 2 + 1);
    for (glong i = 0; i < n; i++) {
        if (big_endian)
            store_be16(text + 2 * i, u[i]);
        else
            store_le16(text + 2 * i, u[i]);
    }
    *ret_len = n * 2;
    return text;
}

static uint8_t *url_text(const char *path, size_t *ret_len)
{
    g_autofree char *escaped = g_uri_escape_string(path, "/", FALSE);
    char *url = g_strconcat("file://", g_path_is_absolute(path) ? "" : "./", escaped, NULL);

    *ret_len = strlen(url);
    return (uint8_t *)url;
}

typedef struct Locator {
    uint32_t code;
    uint8_t *text; /* owned, or NULL: cannot say it */
    size_t len;
} Locator;

/* Both forms of @path. They lie one behind the other from @at on, in LOCATOR_SPACE each. */
static bool fill_parent(uint8_t *h, const BlkBaseInfo *base, uint64_t at, const char *image,
                        Locator loc[2], GError **error)
{
    const BlkVhd *p = (const BlkVhd *)base->node;
    g_autofree char *name = g_path_get_basename(base->path);
    size_t name_len = 0;

    if (!base->node || base->node->drv != &blk_driver_vhd)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': the parent of a vhd image must be one that is there, whose id is "
                          "recorded; '%s' is %s",
                          image, base->full, base->node ? base->format : "not");
    memcpy(h + HD_PARENT_ID, p->footer + FT_ID, 16);
    store_be32(h + HD_PARENT_TIME, base->mtime - VHD_EPOCH);
    memset(h + HD_PARENT_NAME, 0, HD_PARENT_NAME_BYTES);
    g_autofree uint8_t *wide = windows_text(name, true, &name_len);
    if (wide && name_len > 4) /* without its ".\" */
        memcpy(h + HD_PARENT_NAME, wide + 4, MIN(name_len - 4, HD_PARENT_NAME_BYTES - 2));
    loc[0].code = g_path_is_absolute(base->path) ? VHD_W2KU : VHD_W2RU;
    loc[0].text = windows_text(base->path, false, &loc[0].len);
    loc[1].code = VHD_MACX;
    loc[1].text = url_text(base->path, &loc[1].len);
    memset(h + HD_LOCATORS, 0, VHD_LOCATORS * LOC_BYTES);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *l = h + HD_LOCATORS + i * LOC_BYTES;
        if (loc[i].len > LOCATOR_SPACE)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "base '%.40s...': its path is too long",
                              base->path);
        if (!loc[i].text)
            continue;
        store_be32(l + LOC_CODE, loc[i].code);
        store_be32(l + LOC_SPACE, LOCATOR_SPACE / BLK_SECTOR);
        store_be32(l + LOC_LENGTH, (uint32_t)loc[i].len);
        store_be64(l + LOC_OFFSET, at + i * LOCATOR_SPACE);
    }
    return true;
}

static void free_locators(Locator loc[2])
{
    g_free(loc[0].text);
    g_free(loc[1].text);
}

/* ---- create ---- */

static bool create_fixed(const BlkCreate *c, uint64_t size, GError **error)
{
    uint8_t footer[VHD_FOOTER];

    new_footer(footer, size, VHD_FIXED);
    return blk_new_file_size(c->file, size + VHD_FOOTER, error) &&
           blk_new_file_write(c->file, footer, sizeof footer, size, error);
}

static bool write_empty_table(BlkNewFile *file, uint64_t at, uint64_t bytes, GError **error)
{
    g_autofree uint8_t *none = g_malloc(TABLE_CHUNK);

    memset(none, 0xff, TABLE_CHUNK);
    for (uint64_t done = 0; done < bytes; done += TABLE_CHUNK)
        if (!blk_new_file_write(file, none, MIN(TABLE_CHUNK, bytes - done), at + done, error))
            return false;
    return true;
}

static bool create_dynamic(const BlkCreate *c, uint64_t size, Locator loc[2], GError **error)
{
    uint8_t footer[VHD_FOOTER], header[VHD_HEADER] = {0};
    uint64_t at = VHD_HEADER_AT + VHD_HEADER, entries = (size + VHD_BLOCK - 1) / VHD_BLOCK;
    uint64_t table = at + (c->base ? 2 * LOCATOR_SPACE : 0);
    uint64_t end = table + align_up(entries * 4, BLK_SECTOR);

    new_footer(footer, size, c->base ? VHD_DIFFERENCING : VHD_DYNAMIC);
    memcpy(header, VHD_HEADER_COOKIE, 8);
    store_be64(header + HD_DATA, UINT64_MAX);
    store_be64(header + HD_TABLE, table);
    store_be32(header + HD_VERSION, 0x00010000);
    store_be32(header + HD_ENTRIES, (uint32_t)entries);
    store_be32(header + HD_BLOCK, VHD_BLOCK);
    if (c->base && !fill_parent(header, c->base, at, c->path, loc, error))
        return false;
    seal_header(header);
    for (unsigned i = 0; i < 2; i++)
        if (loc[i].text && !blk_new_file_write(c->file, loc[i].text, loc[i].len,
                                               at + i * LOCATOR_SPACE, error))
            return false;
    return blk_new_file_write(c->file, footer, sizeof footer, 0, error) &&
           blk_new_file_write(c->file, header, sizeof header, VHD_HEADER_AT, error) &&
           write_empty_table(c->file, table, end - table, error) &&
           blk_new_file_write(c->file, footer, sizeof footer, end, error);
}

bool vhd_create(const BlkCreate *c, GError **error)
{
    bool fixed;
    uint64_t size = align_up(c->size, BLK_SECTOR);
    Locator loc[2] = {{0}};

    if (!blk_create_fixed(c, &fixed, error))
        return false;
    if (size > VHD_SIZE_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': a vhd image has at most 2040 GiB",
                          c->path);
    if (c->base && size != c->base->size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': a vhd overlay has the size of its base, %" G_GUINT64_FORMAT
                          " bytes; leave the size out",
                          c->path, c->base->size);
    bool ok = fixed ? create_fixed(c, size, error) : create_dynamic(c, size, loc, error);
    free_locators(loc);
    return ok;
}

/* ---- changes ---- */

static bool fail(const BlkVhd *v, int err, const char *what, GError **error)
{
    return !err || lodge_fail_errno(error, err, "'%s': cannot %s", file_of(v)->path, what);
}

/* Write the footer at both ends, all else being on the disk. */
static int write_footers(BlkVhd *v)
{
    int err = blk_file_write_at(file_of(v), v->footer, VHD_FOOTER, 0);

    atomic_store(&v->map.moved, true);
    if (!err)
        err = block_map_flush(&v->map);
    v->bad_copy = err;
    v->old_copy = v->old_copy && err;
    return err;
}

static int write_header(BlkVhd *v)
{
    seal_header(v->header);
    int err = blk_file_write_at(file_of(v), v->header, VHD_HEADER, VHD_HEADER_AT);
    return err ? err : blk_file_sync(file_of(v));
}

/* Record @time of the parent whose id is @id. Both and the checksum lie in the header's first
 * sector, so no cut leaves a header whose checksum is wrong. */
static int record_parent(BlkVhd *v, const uint8_t *id, uint32_t time)
{
    uint8_t old[BLK_SECTOR];

    memcpy(old, v->header, sizeof old);
    memmove(v->header + HD_PARENT_ID, id, 16);
    store_be32(v->header + HD_PARENT_TIME, time);
    seal_header(v->header);
    int err = blk_file_write_at(file_of(v), v->header, BLK_SECTOR, VHD_HEADER_AT);
    if (!err)
        err = blk_file_sync(file_of(v));
    if (err)
        memcpy(v->header, old, sizeof old);
    return err;
}

bool vhd_base_changes(BlkNode *n, int64_t until_s, GError **error)
{
    BlkVhd *v = (BlkVhd *)n;

    if (v->base_changes)
        return true;
    int err = load_be32(v->header + HD_PARENT_TIME)
                  ? record_parent(v, v->header + HD_PARENT_ID, 0) : 0;
    v->base_changes = !err;
    return fail(v, err, "record that its base is being written", error);
}

int vhd_touched(BlockMap *m)
{
    BlkVhd *v = (BlkVhd *)m;

    if (v->base_changes || !v->parent_time || load_be32(v->header + HD_PARENT_TIME) ||
        load_be32(v->footer + FT_TYPE) != VHD_DIFFERENCING)
        return 0;
    return record_parent(v, v->header + HD_PARENT_ID, v->parent_time);
}

/* The parent is the same file in another state. */
static int follow_parent(BlkVhd *v, const BlkBaseInfo *base)
{
    const BlkVhd *p = (const BlkVhd *)base->node;
    bool empty = false;
    /* After a merge the parent goes on changing, and what is empty fits whatever it becomes. */
    int err = v->base_changes ? block_map_is_empty(&v->map, &empty) : 0;

    if (!err)
        err = record_parent(v, p->footer + FT_ID, empty ? 0 : vhd_time_of(base->mtime));
    v->base_changes = v->base_changes && err;
    return err;
}

static bool resize_fixed(BlkVhd *v, uint64_t size, GError **error)
{
    BlkFile *f = file_of(v);
    uint64_t old = v->map.size;

    set_footer_size(v->footer, size);
    /* A footer is at the end of the file at every instant but one. */
    int err = blk_file_write_at(f, v->footer, VHD_FOOTER, size);
    if (!err && size > old)
        err = blk_file_sync(f);
    if (!err && size > old) /* the old one has become a part of the disk */
        err = blk_file_zero_at(f, old, MIN(VHD_FOOTER, size - old));
    if (!err)
        err = blk_file_truncate(f, size + VHD_FOOTER);
    if (!err)
        err = blk_file_sync(f);
    v->map.size = size;
    v->tail_len = VHD_FOOTER;
    return fail(v, err, "change its size", error) && vhd_set_fixed(v, error);
}

/* Write a table of @entries behind the last block, with the present one at its start. */
static int move_table(BlkVhd *v, uint64_t entries)
{
    BlockMap *m = &v->map;
    BlkFile *f = file_of(v);
    g_autofree uint8_t *buf = g_malloc(TABLE_CHUNK);
    uint64_t old = m->entries * 4, bytes = align_up(entries * 4, BLK_SECTOR);
    uint64_t at = m->end;
    int err = 0;

    for (uint64_t done = 0; !err && done < bytes; done += TABLE_CHUNK) {
        size_t have = done < old ? MIN(TABLE_CHUNK, old - done) : 0;
        memset(buf, 0xff, TABLE_CHUNK);
        err = blk_file_read_at(f, buf, have, m->table + done);
        if (!err)
            err = blk_file_write_at(f, buf, MIN(TABLE_CHUNK, bytes - done), at + done);
    }
    if (!err)
        err = blk_file_sync(f);
    if (err)
        return err;
    store_be64(v->header + HD_TABLE, at);
    store_be32(v->header + HD_ENTRIES, (uint32_t)entries);
    err = write_header(v);
    if (err)
        return err;
    m->floor = MAX(m->floor, at + bytes);
    vhd_table_changed(v);
    return 0;
}

bool vhd_resize(BlkNode *n, uint64_t size, bool shrink, GError **error)
{
    BlkVhd *v = (BlkVhd *)n;
    BlockMap *m = &v->map;
    uint64_t entries;

    size = align_up(size, BLK_SECTOR);
    if (n->ref.path)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': a vhd overlay has the size of its base; resize that, or convert",
                          file_of(v)->path);
    if (size < m->size && !shrink)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': would get smaller; say --shrink",
                          file_of(v)->path);
    if (size == 0 || size > VHD_SIZE_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': a vhd image has at most 2040 GiB",
                          file_of(v)->path);
    if (vhd_is_fixed(v))
        return resize_fixed(v, size, error);
    entries = (size + m->block - 1) / m->block;
    int err = block_map_flush(m);
    if (!err)
        err = block_map_rescan(m);
    if (!err && size < m->size && !block_map_cut(m, size, error))
        return false;
    if (!err && entries > m->entries)
        err = move_table(v, entries);
    if (!err)
        err = block_map_rescan(m);
    if (!err) {
        m->size = size;
        set_footer_size(v->footer, size);
        err = write_footers(v);
    }
    return fail(v, err, "change its size", error);
}

bool vhd_set_base(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    BlkVhd *v = (BlkVhd *)n;
    BlockMap *m = &v->map;
    Locator loc[2] = {{0}};
    uint8_t header[VHD_HEADER];
    int err = vhd_is_fixed(v) ? 0 : block_map_ready(m);

    if (err)
        return fail(v, err, "read its tables", error);
    if (vhd_is_fixed(v))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': is a fixed vhd image and can have no base; convert it",
                          file_of(v)->path);
    memcpy(header, v->header, sizeof header);
    memset(header + HD_PARENT_ID, 0, HD_LOCATORS + VHD_LOCATORS * LOC_BYTES - HD_PARENT_ID);
    if (base && base->node && base->size != m->size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': has %" G_GUINT64_FORMAT " bytes and '%s' %" G_GUINT64_FORMAT
                          "; the base of a vhd overlay must have its size",
                          file_of(v)->path, m->size, base->full, base->size);
    if (base && base->node && base->node->drv == &blk_driver_vhd &&
        load_be32(v->footer + FT_TYPE) == VHD_DIFFERENCING &&
        g_strcmp0(base->path, n->ref.path) == 0)
        return fail(v, follow_parent(v, base), "record its base", error);
    uint64_t at = m->end; /* new ones: what the old ones say stays true until the header does */
    bool ok = !base || fill_parent(header, base, at, file_of(v)->path, loc, error);
    for (unsigned i = 0; ok && !err && i < 2; i++) {
        uint64_t to = at + i * LOCATOR_SPACE;
        if (!loc[i].text)
            continue;
        err = blk_file_write_at(file_of(v), loc[i].text, loc[i].len, to);
        m->floor = MAX(m->floor, to + loc[i].len);
    }
    free_locators(loc);
    if (!ok)
        return false;
    m->end = align_up(MAX(m->end, m->floor), BLK_SECTOR);
    if (!err)
        err = blk_file_sync(file_of(v));
    /* A parent is named in the header as long as the footer says that there is one. */
    store_be32(v->footer + FT_TYPE, base ? VHD_DIFFERENCING : VHD_DYNAMIC);
    seal_footer(v->footer);
    if (!err && !base)
        err = write_footers(v);
    if (!err) {
        memcpy(v->header, header, sizeof header);
        err = write_header(v);
    }
    if (!err && base)
        err = write_footers(v);
    v->base_changes = v->base_changes && err;
    return fail(v, err, "record its base", error);
}

bool vhd_make_empty(BlkNode *n, GError **error)
{
    BlkVhd *v = (BlkVhd *)n;

    if (vhd_is_fixed(v))
        return fail(v, blk_file_zero_at(file_of(v), 0, v->map.size), "empty it", error);
    return block_map_make_empty(n, error);
}

bool vhd_check(BlkNode *n, bool repair, BlkReport *r, GError **error)
{
    BlkVhd *v = (BlkVhd *)n;

    if (!block_map_check(&v->map, repair, r, error))
        return false;
    if (vhd_is_fixed(v))
        return true;
    if (v->no_tail)
        blk_report_add(r, BLK_FIND_LEAK, repair,
                       "footer at %" G_GUINT64_FORMAT ": is missing; its copy at 0 serves",
                       v->map.end);
    else if (v->old_copy) /* a change of size was cut off between the two */
        blk_report_add(r, BLK_FIND_LEAK, repair,
                       "footer at 0: is older than that at %" G_GUINT64_FORMAT ", which counts",
                       v->map.eof - v->tail_len);
    else if (v->bad_copy)
        blk_report_add(r, BLK_FIND_ERROR, repair,
                       "footer at 0: is not the same as that at %" G_GUINT64_FORMAT,
                       v->map.eof - v->tail_len);
    else
        return true;
    return !repair || fail(v, write_footers(v), "write its footer", error);
}

void vhd_describe(BlkNode *n, GPtrArray *facts)
{
    static const char *const types[] = {[VHD_FIXED] = "fixed", [VHD_DYNAMIC] = "dynamic",
                                        [VHD_DIFFERENCING] = "differencing"};
    BlkVhd *v = (BlkVhd *)n;
    g_autofree char *id = block_uuid_text(v->footer + FT_ID);
    char creator[5] = {0};

    memcpy(creator, v->footer + FT_CREATOR, 4);
    for (char *p = creator; *p; p++)
        if (!g_ascii_isprint(*p))
            *p = '?';
    blk_fact_text(facts, "subformat", types[load_be32(v->footer + FT_TYPE)]);
    block_map_describe(&v->map, facts);
    blk_fact_text(facts, "creator", g_strchomp(creator));
    blk_fact_number(facts, "geometry-size", vhd_chs_bytes(v->footer));
    blk_fact_text(facts, "id", id);
    if (n->ref.path) {
        g_autofree char *parent = block_uuid_text(v->header + HD_PARENT_ID);
        blk_fact_text(facts, "parent-id", parent);
        blk_fact_number(facts, "parent-time",
                        (uint64_t)load_be32(v->header + HD_PARENT_TIME) + VHD_EPOCH);
    }
}
