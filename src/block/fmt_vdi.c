/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VirtualBox's disk images, version 1.1: dynamic, fixed, differencing.
 *
 *   header     at 0, of 72 + 384 bytes or more
 *   table      a block's number in the file for each block of the disk, or: free, or: zeros
 *   blocks     without gaps, 1 MiB as a rule
 *
 * The data path is block_map.c. The header counts the blocks in the file, and others take the next
 * one by that count, so it is on the disk before the table speaks of a block.
 *
 * An image that was written gets a new modification id. A differencing image names its parent by
 * two ids, its own and that of its state, and by nothing else: VirtualBox knows where it is. Here a
 * path is kept in the comment, and without one the folder of the image and the one above (where
 * VirtualBox has its Snapshots folder) are looked through for an image of that id.
 *
 * While the parent is being written below an overlay (base_changes) its modification id is blank
 * there, which stands for any; the first change since the overlay was opened records it again.
 *
 * Left out: version 1.0 and before; undo images; growing beyond the space before the first block.
 *
 * Threads: vdi_settle() and vdi_touched() on the worker or at rest, all else on main, the probe is
 * pure.
 *
 * Spec: VirtualBox, VDI header of version 1.1 (VDIPREHEADER, VDIHEADER1, VDIHEADER1PLUS).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/num.h"

#include "block_map.h"

#define VDI_MAGIC 0xbeda107fu
#define VDI_VERSION 0x00010001u
#define VDI_HEAD BLK_SECTOR
#define VDI_BLOCK ((uint32_t)1 << 20)
#define VDI_BLOCK_MIN 4096u
#define VDI_EXTRA_MAX ((uint32_t)1 << 20)
#define VDI_TABLE_AT 4096u
#define VDI_FREE 0xffffffffu
#define VDI_ZERO 0xfffffffeu
#define VDI_SIZE_MAX (BLOCK_MAP_ENTRIES_MAX * VDI_BLOCK)
#define SCAN_MAX 4096u /* files of a folder that are looked at for a parent */
#define COPY_CHUNK ((size_t)64 << 10)
#define PARENT_MARK "parent: "

enum { VDI_DYNAMIC = 1, VDI_FIXED = 2, VDI_DIFFERENCING = 4 };

/* Offsets in the header. */
enum {
    AT_TEXT = 0, AT_MAGIC = 0x40, AT_VERSION = 0x44, AT_HEADER_SIZE = 0x48, AT_TYPE = 0x4c,
    AT_COMMENT = 0x54, AT_TABLE = 0x154, AT_DATA = 0x158, AT_SECTOR = 0x168, AT_SIZE = 0x170,
    AT_BLOCK = 0x178, AT_EXTRA = 0x17c, AT_BLOCKS = 0x180, AT_ALLOCATED = 0x184, AT_ID = 0x188,
    AT_MODIFY_ID = 0x198, AT_PARENT_ID = 0x1a8, AT_PARENT_MODIFY_ID = 0x1b8,
};
#define COMMENT_BYTES 256u
#define HEADER_BYTES 0x190u /* of VDIHEADER1PLUS, in AT_HEADER_SIZE */
#define ID_BYTES 16u

typedef struct BlkVdi {
    BlockMap map;
    uint8_t head[VDI_HEAD]; /* as in the file, but for the count */
    bool base_changes;      /* the parent is being written, so its modification id is blank */
    bool has_parent;        /* one is open: */
    uint8_t parent_state[ID_BYTES]; /* its modification id when it was opened */
} BlkVdi;

static const uint8_t no_id[ID_BYTES];

static const BlkCreateOpt create_opts[] = {
    {"subformat", "dynamic|fixed", "whether the file grows with what is written"},
    {NULL, NULL, NULL},
};

static BlkFile *file_of(const BlkVdi *v)
{
    return (BlkFile *)v->map.node.file;
}

static bool fail(const BlkVdi *v, int err, const char *what, GError **error)
{
    return !err || lodge_fail_errno(error, err, "'%s': cannot %s", file_of(v)->path, what);
}

static bool vdi_probe(const BlkProbe *p)
{
    return load_le32(p->head + AT_MAGIC) == VDI_MAGIC;
}

static uint32_t type_of(const BlkVdi *v)
{
    return load_le32(v->head + AT_TYPE);
}

/* ---- hooks ---- */

static int vdi_settle(BlockMap *m)
{
    BlkVdi *v = (BlkVdi *)m;
    uint8_t count[4];

    store_le32(count, (uint32_t)((m->end - m->origin) / m->unit));
    return blk_file_write_at(file_of(v), count, sizeof count, AT_ALLOCATED);
}

static int vdi_touched(BlockMap *m)
{
    BlkVdi *v = (BlkVdi *)m;

    unsigned end = AT_MODIFY_ID + ID_BYTES;

    block_uuid_new(v->head + AT_MODIFY_ID);
    if (v->has_parent && !v->base_changes && type_of(v) == VDI_DIFFERENCING &&
        memcmp(v->head + AT_PARENT_MODIFY_ID, no_id, ID_BYTES) == 0) {
        memcpy(v->head + AT_PARENT_MODIFY_ID, v->parent_state, ID_BYTES);
        end = AT_PARENT_MODIFY_ID + ID_BYTES;
    }
    return blk_file_write_at(file_of(v), v->head + AT_MODIFY_ID, end - AT_MODIFY_ID,
                             AT_MODIFY_ID);
}

static bool vdi_base_changes(BlkNode *n, int64_t until_s, GError **error)
{
    BlkVdi *v = (BlkVdi *)n;

    if (v->base_changes)
        return true;
    int err = blk_file_write_at(file_of(v), no_id, ID_BYTES, AT_PARENT_MODIFY_ID);
    if (!err)
        err = blk_file_sync(file_of(v));
    if (!err)
        memset(v->head + AT_PARENT_MODIFY_ID, 0, ID_BYTES);
    v->base_changes = !err;
    return fail(v, err, "record that its base is being written", error);
}

/* ---- parents ---- */

static bool has_id(const char *path, const uint8_t *id)
{
    uint8_t head[VDI_HEAD];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    bool has = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
               pread(fd, head, sizeof head, 0) == sizeof head;

    if (fd >= 0)
        close(fd);
    return has && load_le32(head + AT_MAGIC) == VDI_MAGIC &&
           memcmp(head + AT_ID, id, ID_BYTES) == 0;
}

/* The image with @id in the folder @dir; its name, transfer full, or NULL. */
static char *find_in(const char *dir, const uint8_t *id)
{
    GDir *d = g_dir_open(dir, 0, NULL);
    const char *name;
    char *found = NULL;

    for (unsigned i = 0; d && !found && i < SCAN_MAX && (name = g_dir_read_name(d)); i++) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        if (g_str_has_suffix(name, ".vdi") && has_id(path, id))
            found = g_strdup(name);
    }
    if (d)
        g_dir_close(d);
    return found;
}

/* VirtualBox's text of an id, whose first three numbers are little-endian in the file. */
static char *id_text(const uint8_t *id)
{
    uint8_t text[ID_BYTES];

    memcpy(text, id, ID_BYTES);
    store_be32(text, load_le32(id));
    store_be16(text + 4, load_le16(id + 4));
    store_be16(text + 6, load_le16(id + 6));
    return block_uuid_text(text);
}

static void find_parent(const BlkVdi *v, BlkBaseRef *ref)
{
    const char *image = file_of(v)->path;
    const uint8_t *id = v->head + AT_PARENT_ID;
    g_autofree char *comment = g_strndup((const char *)v->head + AT_COMMENT, COMMENT_BYTES);
    g_autofree char *dir = g_path_get_dirname(image);
    g_autofree char *above = g_build_filename(dir, "..", NULL);
    g_autofree char *name = NULL;

    ref->format = g_strdup("vdi");
    ref->field = "parent id";
    ref->offset = AT_PARENT_ID;
    if (g_str_has_prefix(comment, PARENT_MARK)) {
        ref->path = g_strdup(comment + strlen(PARENT_MARK));
        ref->field = "comment";
        ref->offset = AT_COMMENT;
    } else if ((ref->path = find_in(dir, id))) {
        return;
    } else if ((name = find_in(above, id))) {
        ref->path = g_build_filename("..", name, NULL);
    } else { /* as VirtualBox names them; the message says that it is not there */
        g_autofree char *text = id_text(id);
        ref->path = g_strdup_printf("{%s}.vdi", text);
    }
}

static bool check_parent(const char *path, const BlkBaseInfo *base, GError **error)
{
    if (base->node && base->node->drv == &blk_driver_vdi)
        return true;
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "'%s': the parent of a vdi image must be one that is there, whose id is "
                      "recorded; '%s' is %s",
                      path, base->full, base->node ? base->format : "not");
}

static bool vdi_attach(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    BlkVdi *v = (BlkVdi *)n;
    const char *path = file_of(v)->path;

    if (!check_parent(path, base, error))
        return false;
    const BlkVdi *p = (const BlkVdi *)base->node;
    const uint8_t *want = v->head + AT_PARENT_MODIFY_ID;
    if (memcmp(v->head + AT_PARENT_ID, p->head + AT_ID, ID_BYTES) != 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': parent id at offset %u: is not that of '%s'; give the parent it "
                          "was made with",
                          path, AT_PARENT_ID, base->full);
    if (memcmp(want, no_id, ID_BYTES) != 0 &&
        memcmp(want, p->head + AT_MODIFY_ID, ID_BYTES) != 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': parent modification id at offset %u: is not that of '%s', which "
                          "was changed since: restore it, or start a new overlay (after a commit "
                          "that was cut off: lodge image rebase --unsafe, and commit again)",
                          path, AT_PARENT_MODIFY_ID, base->full);
    if (base->size > v->map.size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': disk size %" G_GUINT64_FORMAT " at offset %u: less than the %"
                          G_GUINT64_FORMAT " of its parent '%s'",
                          path, v->map.size, AT_SIZE, base->size, base->full);
    v->has_parent = true;
    memcpy(v->parent_state, p->head + AT_MODIFY_ID, ID_BYTES);
    return true;
}

/* Fill in what a header says of @base, or of none. */
static bool set_parent(uint8_t *head, const char *path, const BlkBaseInfo *base, GError **error)
{
    if (base && !check_parent(path, base, error))
        return false;
    if (base && strlen(base->path) + strlen(PARENT_MARK) >= COMMENT_BYTES)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "base '%.40s...': its path is too long",
                          base->path);
    const BlkVdi *p = base ? (const BlkVdi *)base->node : NULL;
    memcpy(head + AT_PARENT_ID, p ? p->head + AT_ID : no_id, ID_BYTES);
    memcpy(head + AT_PARENT_MODIFY_ID, p ? p->head + AT_MODIFY_ID : no_id, ID_BYTES);
    if (p || g_str_has_prefix((const char *)head + AT_COMMENT, PARENT_MARK))
        memset(head + AT_COMMENT, 0, COMMENT_BYTES);
    if (p)
        (void)g_snprintf((char *)head + AT_COMMENT, COMMENT_BYTES, PARENT_MARK "%s", base->path);
    store_le32(head + AT_TYPE, p ? VDI_DIFFERENCING : VDI_DYNAMIC);
    return true;
}

/* ---- opening ---- */

static bool bad(const BlkVdi *v, unsigned at, const char *what, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_IMAGE, "'%s': header: %s %u at offset %u",
                      file_of(v)->path, what, load_le32(v->head + at), at);
}

static bool check_head(BlkVdi *v, GError **error)
{
    const uint8_t *h = v->head;
    uint32_t block = load_le32(h + AT_BLOCK), extra = load_le32(h + AT_EXTRA);
    uint64_t table = load_le32(h + AT_TABLE), data = load_le32(h + AT_DATA);
    uint64_t table_end = table + (uint64_t)load_le32(h + AT_BLOCKS) * 4;

    if (load_le32(h + AT_MAGIC) != VDI_MAGIC)
        return bad(v, AT_MAGIC, "magic", error);
    if (load_le32(h + AT_VERSION) != VDI_VERSION)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': header: version 0x%x at offset %u is not known",
                          file_of(v)->path, load_le32(h + AT_VERSION), AT_VERSION);
    if (type_of(v) != VDI_DYNAMIC && type_of(v) != VDI_FIXED && type_of(v) != VDI_DIFFERENCING)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': header: image type %u at offset %u is not known",
                          file_of(v)->path, type_of(v), AT_TYPE);
    if (load_le32(h + AT_SECTOR) != BLK_SECTOR && load_le32(h + AT_SECTOR) != 0)
        return bad(v, AT_SECTOR, "sector size", error);
    if (!is_power_of_two(block) || block < VDI_BLOCK_MIN || block > BLOCK_MAP_BLOCK_MAX)
        return bad(v, AT_BLOCK, "block size", error);
    if (extra % BLK_SECTOR || extra > VDI_EXTRA_MAX)
        return bad(v, AT_EXTRA, "extra bytes of a block", error);
    if (table < VDI_HEAD)
        return bad(v, AT_TABLE, "table offset", error);
    if (data % BLK_SECTOR || data < table_end)
        return bad(v, AT_DATA, "data offset", error);
    uint64_t size = load_le64(h + AT_SIZE);
    if (size == 0 || size > BLK_MAX_SIZE)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': header: a disk of %" G_GUINT64_FORMAT " bytes at offset %u",
                          file_of(v)->path, size, AT_SIZE);
    return true;
}

static bool vdi_open(BlkNode *n, const BlkOpenHow *how, BlkBaseRef *ret_base, GError **error)
{
    BlkVdi *v = (BlkVdi *)n;
    BlockMap *m = &v->map;

    if (!blk_file_pread(file_of(v), v->head, VDI_HEAD, 0, error) || !check_head(v, error))
        return false;
    m->size = align_up(load_le64(v->head + AT_SIZE), BLK_SECTOR);
    m->block = load_le32(v->head + AT_BLOCK);
    m->lead = load_le32(v->head + AT_EXTRA);
    m->entries = load_le32(v->head + AT_BLOCKS);
    m->table = load_le32(v->head + AT_TABLE);
    m->origin = m->lowest = m->floor = load_le32(v->head + AT_DATA);
    m->unit = m->block + m->lead;
    m->none = VDI_FREE;
    m->zero = VDI_ZERO;
    m->has_zero = true;
    m->field = "block table";
    m->settle = vdi_settle;
    m->touched = vdi_touched;
    if (!block_map_init(m, how, error))
        return false;
    if (type_of(v) == VDI_DIFFERENCING)
        find_parent(v, ret_base);
    return true;
}

/* ---- whole images ---- */

static bool write_table(const BlkCreate *c, uint64_t entries, bool fixed, GError **error)
{
    uint64_t bytes = align_up(entries * 4, BLK_SECTOR);
    g_autofree uint8_t *table = g_try_malloc(bytes);

    if (!table)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': no memory for its table", c->path);
    memset(table, 0xff, bytes);
    for (uint64_t i = 0; fixed && i < entries; i++)
        store_le32(table + 4 * i, (uint32_t)i);
    return blk_new_file_write(c->file, table, bytes, VDI_TABLE_AT, error);
}

static bool vdi_create(const BlkCreate *c, GError **error)
{
    bool fixed;
    uint64_t size = align_up(c->size, BLK_SECTOR), blocks = (size + VDI_BLOCK - 1) / VDI_BLOCK;
    uint8_t head[VDI_HEAD] = "<<< Lodge virtual disk image >>>\n";

    if (!blk_create_fixed(c, &fixed, error))
        return false;
    if (size > VDI_SIZE_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': a vdi image has at most 32 TiB here",
                          c->path);
    if (!set_parent(head, c->path, c->base, error))
        return false;
    /* Blocks begin at a multiple of their size, with space for the table of a disk that grows. */
    uint64_t data = MAX(align_up(VDI_TABLE_AT + blocks * 4, VDI_BLOCK), 2 * VDI_BLOCK);
    store_le32(head + AT_MAGIC, VDI_MAGIC);
    store_le32(head + AT_VERSION, VDI_VERSION);
    store_le32(head + AT_HEADER_SIZE, HEADER_BYTES);
    if (fixed)
        store_le32(head + AT_TYPE, VDI_FIXED);
    store_le32(head + AT_TABLE, VDI_TABLE_AT);
    store_le32(head + AT_DATA, (uint32_t)data);
    store_le32(head + AT_SECTOR, BLK_SECTOR);
    store_le64(head + AT_SIZE, size);
    store_le32(head + AT_BLOCK, VDI_BLOCK);
    store_le32(head + AT_BLOCKS, (uint32_t)blocks);
    store_le32(head + AT_ALLOCATED, fixed ? (uint32_t)blocks : 0);
    block_uuid_new(head + AT_ID);
    block_uuid_new(head + AT_MODIFY_ID);
    return blk_new_file_write(c->file, head, sizeof head, 0, error) &&
           write_table(c, blocks, fixed, error) &&
           blk_new_file_size(c->file, data + (fixed ? blocks * VDI_BLOCK : 0), error);
}

static int write_head(BlkVdi *v)
{
    store_le32(v->head + AT_ALLOCATED,
               (uint32_t)((v->map.end - v->map.origin) / v->map.unit));
    int err = blk_file_write_at(file_of(v), v->head, VDI_HEAD, 0);
    return err ? err : blk_file_sync(file_of(v));
}

static bool vdi_check(BlkNode *n, bool repair, BlkReport *r, GError **error)
{
    BlkVdi *v = (BlkVdi *)n;
    BlockMap *m = &v->map;
    uint8_t bytes[4];

    if (!block_map_check(m, repair, r, error) ||
        !blk_file_pread(file_of(v), bytes, sizeof bytes, AT_ALLOCATED, error))
        return false;
    uint32_t have = load_le32(bytes), used = (uint32_t)((m->end - m->origin) / m->unit);
    if (have == used)
        return true;
    /* Who takes the next block by too low a count writes over one that is in use. */
    blk_report_add(r, have < used ? BLK_FIND_ERROR : BLK_FIND_LEAK, repair,
                   "header at offset %u: counts %u blocks, the table %u", AT_ALLOCATED, have, used);
    return !repair || fail(v, write_head(v), "mend its header", error);
}

/* Entries for [@from, @to) of a disk that has become longer. */
static int extend_table(BlkVdi *v, uint64_t from, uint64_t to)
{
    BlockMap *m = &v->map;
    uint64_t next = (m->end - m->origin) / m->unit;
    bool fixed = type_of(v) == VDI_FIXED;
    int err = fixed ? blk_file_zero_at(file_of(v), m->end, (to - from) * m->unit) : 0;

    m->entries = to;
    for (uint64_t i = from; !err && i < to; i++)
        err = block_map_set_entry(m, i, fixed ? (uint32_t)next++ : VDI_FREE);
    return err ? err : block_map_flush(m);
}

static int copy_block(BlkVdi *v, uint64_t from, uint64_t to)
{
    g_autofree uint8_t *buf = g_malloc(COPY_CHUNK);
    uint64_t span = block_map_span(&v->map);
    int err = 0;

    for (uint64_t at = 0; !err && at < span; at += COPY_CHUNK) {
        size_t part = MIN(COPY_CHUNK, span - at);
        err = blk_file_read_at(file_of(v), buf, part, from + at);
        if (!err)
            err = blk_file_write_at(file_of(v), buf, part, to + at);
    }
    return err;
}

/* Move blocks from the end of the file to numbers that nobody has: others take no gaps. */
static int close_gaps(BlkVdi *v)
{
    BlockMap *m = &v->map;
    uint64_t in_use = 0, free_one = 0, place;
    g_autofree uint8_t *used = g_try_malloc0(m->entries);
    uint32_t raw;
    int err = used ? 0 : ENOMEM;

    for (uint64_t i = 0; !err && i < m->entries; i++) {
        err = block_map_entry(m, i, &raw);
        if (err || block_map_decode(m, raw, &place) != BLOCK_DATA)
            continue;
        in_use++;
        if (raw < m->entries)
            used[raw] = 1;
    }
    for (uint64_t i = 0; !err && i < m->entries; i++) {
        err = block_map_entry(m, i, &raw);
        if (err || block_map_decode(m, raw, &place) != BLOCK_DATA || raw < in_use)
            continue;
        while (free_one < in_use && used[free_one])
            free_one++;
        if (free_one == in_use)
            break; /* blocks overlap; a check tells of that */
        used[free_one] = 1;
        err = copy_block(v, place, m->origin + free_one * m->unit);
        if (!err)
            err = block_map_set_entry(m, i, (uint32_t)free_one);
    }
    if (!err)
        err = block_map_flush(m);
    return err ? err : block_map_give_back(m);
}

static bool vdi_resize(BlkNode *n, uint64_t size, bool shrink, GError **error)
{
    BlkVdi *v = (BlkVdi *)n;
    BlockMap *m = &v->map;
    const char *path = file_of(v)->path;

    size = align_up(size, BLK_SECTOR);
    uint64_t blocks = (size + m->block - 1) / m->block, old = m->entries;
    uint64_t room = MIN((m->origin - m->table) / 4, BLOCK_MAP_ENTRIES_MAX);
    if (size < m->size && !shrink)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': would get smaller; say --shrink", path);
    if (size < m->size && n->ref.path) /* its base would show again when it grows */
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': a vdi overlay cannot get smaller; convert it", path);
    if (size == 0 || blocks > room)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': its table has space for %" G_GUINT64_FORMAT
                          " bytes of disk; convert it to a larger image",
                          path, room * m->block);
    int err = block_map_flush(m);
    if (!err)
        err = block_map_rescan(m);
    if (!err && size < m->size && !block_map_cut(m, size, error))
        return false;
    if (!err && blocks > old)
        err = extend_table(v, old, blocks);
    m->entries = err ? old : blocks;
    if (!err && blocks < old)
        err = close_gaps(v);
    if (err)
        return fail(v, err, "change its size", error);
    m->size = size;
    store_le64(v->head + AT_SIZE, size);
    store_le32(v->head + AT_BLOCKS, (uint32_t)blocks);
    err = block_map_rescan(m);
    return fail(v, err ? err : write_head(v), "change its size", error);
}

static bool vdi_set_base(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    BlkVdi *v = (BlkVdi *)n;
    uint8_t head[VDI_HEAD];
    int err = block_map_ready(&v->map);

    if (type_of(v) == VDI_FIXED)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': is a fixed vdi image and can have no base; convert it",
                          file_of(v)->path);
    if (base && base->size > v->map.size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': is smaller than '%s'; resize it first", file_of(v)->path,
                          base->full);
    memcpy(head, v->head, sizeof head);
    if (!set_parent(head, file_of(v)->path, base, error))
        return false;
    memcpy(v->head, head, sizeof head);
    if (!err)
        err = write_head(v);
    v->base_changes = v->base_changes && err;
    return fail(v, err, "record its base", error);
}

static bool vdi_make_empty(BlkNode *n, GError **error)
{
    BlkVdi *v = (BlkVdi *)n;
    BlockMap *m = &v->map;

    if (type_of(v) == VDI_FIXED)
        return fail(v, blk_file_zero_at(file_of(v), m->origin, m->entries * m->unit), "empty it",
                    error);
    return block_map_make_empty(n, error);
}

static void vdi_describe(BlkNode *n, GPtrArray *facts)
{
    static const struct {
        const char *key;
        unsigned at;
    } ids[] = {{"id", AT_ID}, {"modification-id", AT_MODIFY_ID}, {"parent-id", AT_PARENT_ID},
               {"parent-modification-id", AT_PARENT_MODIFY_ID}};
    BlkVdi *v = (BlkVdi *)n;

    blk_fact_text(facts, "subformat", type_of(v) == VDI_FIXED     ? "fixed"
                                      : type_of(v) == VDI_DYNAMIC ? "dynamic"
                                                                  : "differencing");
    block_map_describe(&v->map, facts);
    for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++) {
        g_autofree char *text = id_text(v->head + ids[i].at);
        if (memcmp(v->head + ids[i].at, no_id, ID_BYTES) != 0)
            blk_fact_text(facts, ids[i].key, text);
    }
}

const BlkDriver blk_driver_vdi = {
    .name = "vdi",
    .flags = BLK_DRV_CHECKS_BASE,
    .instance_size = sizeof(BlkVdi),
    .probe = vdi_probe,
    .open = vdi_open,
    .attach = vdi_attach,
    .limits = block_map_limits,
    .submit = block_map_submit,
    .close = block_map_close,
    .create = vdi_create,
    .create_opts = create_opts,
    .check = vdi_check,
    .resize = vdi_resize,
    .set_base = vdi_set_base,
    .make_empty = vdi_make_empty,
    .describe = vdi_describe,
    .settle = block_map_settle,
    .base_changes = vdi_base_changes,
};
