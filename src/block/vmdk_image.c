/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMDK images as wholes: making, checking, another size, another parent, another id.
 *
 * New sparse images have all their grain tables, in two copies, and a descriptor of 20 sectors, as
 * those of VMware have. The ids of contents are random.
 *
 * A sparse image's size is not changed: its directory lies between descriptor and grains.
 *
 * Threads: main, the node drained; vmdk_touched() on the worker.
 *
 * Spec: as fmt_vmdk.c.
 */
#include <errno.h>
#include <string.h>

#include "lodge/num.h"

#include "vmdk.h"

#define SECTOR ((uint64_t)BLK_SECTOR)
#define TEXT_AT 1u       /* sectors */
#define TEXT_SECTORS 20u
#define TABLE_SECTORS (VMDK_GTES * 4u / BLK_SECTOR)
#define HEADS 16u        /* of an IDE disk's geometry */
#define TRACK_SECTORS 63u
#define CYLINDERS_MAX 16383u

const BlkCreateOpt vmdk_create_opts[] = {
    {"subformat", "monolithicSparse|monolithicFlat", "one file that grows, or a file of the size"},
    {NULL, NULL, NULL},
};

static BlkFile *file_of(const BlkVmdk *v)
{
    return (BlkFile *)v->map.node.file;
}

static bool fail(const BlkVmdk *v, int err, const char *what, GError **error)
{
    return !err || lodge_fail_errno(error, err, "'%s': cannot %s", file_of(v)->path, what);
}

/* ---- the descriptor ---- */

static uint32_t new_cid(void)
{
    uint32_t cid = g_random_int();

    return cid == VMDK_NO_PARENT ? 1 : cid;
}

/* Put @text in the place of the descriptor. 0 or errno. */
static int write_text(BlkVmdk *v, const char *text)
{
    size_t len = strlen(text), old = strlen(v->text.text), same = 0;
    size_t room = v->text_max ? v->text_max : MAX(len, old);
    g_autofree char *buf = g_malloc0(MAX(len, old) + 1);
    VmdkText parsed = {0};
    int err = 0;

    if (len > room)
        return EFBIG;
    memcpy(buf, text, len);
    while (same < len && same < old && text[same] == v->text.text[same])
        same++;
    size_t end = MAX(len, old); /* what is the same at the end too needs no write */
    while (len == old && end > same && text[end - 1] == v->text.text[end - 1])
        end--;
    if (end > same)
        err = blk_file_write_at(file_of(v), buf + same, end - same, v->text_at + same);
    /* What lay behind a zero byte was none of it, and would be now. */
    uint64_t have = 0;
    if (!err && !v->text_max)
        err = blk_file_length(file_of(v), &have);
    if (!err && have > len)
        err = blk_file_truncate(file_of(v), len);
    if (err)
        return err;
    if (!vmdk_text_parse(text, file_of(v)->path, v->text_at, &parsed, NULL)) {
        vmdk_text_clear(&parsed);
        return EINVAL;
    }
    vmdk_text_clear(&v->text);
    v->text = parsed;
    return 0;
}

/* The note is the last line, and it comes or goes alone: where only a part of it reaches the disk
 * that part is a comment like any. 0 or errno. */
static int write_note(BlkVmdk *v, bool noted)
{
    g_autofree char *text = vmdk_text_note(v->text.text, noted);
    int err = v->text.noted == noted ? 0 : write_text(v, text);

    return err ? err : blk_file_sync(file_of(v));
}

bool vmdk_base_changes(BlkNode *n, int64_t until_s, GError **error)
{
    BlkVmdk *v = (BlkVmdk *)n;

    if (v->base_changes)
        return true;
    int err = write_note(v, true);
    v->base_changes = !err;
    return fail(v, err, "record that its base is being written", error);
}

int vmdk_touched(BlockMap *m)
{
    BlkVmdk *v = (BlkVmdk *)m;
    bool record = v->text.noted && v->has_parent && !v->base_changes;
    g_autofree char *cid = g_strdup_printf("%08x", new_cid());
    g_autofree char *parent = g_strdup_printf("%08x", v->parent_cid);
    g_autofree char *one = vmdk_text_replace(v->text.text, "CID", cid);
    g_autofree char *two = vmdk_text_replace(one, "parentCID", parent);
    int err = write_text(v, record ? two : one);

    if (!err && record)
        err = blk_file_sync(file_of(v));
    return err || !record ? err : write_note(v, false);
}

static bool quotable(const char *name)
{
    return !strpbrk(name, "\"\r\n");
}

/* The parent's lines of a descriptor; *ret_hint: transfer full, NULL without a base. */
static bool parent_of(const char *image, const BlkBaseInfo *base, uint32_t *ret_cid,
                      char **ret_hint, GError **error)
{
    *ret_cid = VMDK_NO_PARENT;
    if (!base)
        return true;
    if (!base->node || base->node->drv != &blk_driver_vmdk)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': the parent of a vmdk image must be one that is there, whose id is "
                          "recorded; '%s' is %s",
                          image, base->full, base->node ? base->format : "not");
    if (!quotable(base->path))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "base '%.60s': a vmdk image cannot record a name with quotes or line "
                          "ends",
                          base->path);
    *ret_cid = ((const BlkVmdk *)base->node)->text.cid;
    *ret_hint = g_strdup(base->path);
    return true;
}

/* The text of a new image; transfer full. */
static char *new_text(const BlkCreate *c, const char *type, const char *extent, uint64_t sectors,
                      GError **error)
{
    g_autofree char *hint = NULL;
    uint64_t cylinders = MIN(sectors / (HEADS * TRACK_SECTORS), CYLINDERS_MAX);
    uint32_t parent;

    if (!parent_of(c->path, c->base, &parent, &hint, error))
        return NULL;
    GString *s = g_string_new(VMDK_TEXT_MAGIC "\n");
    g_string_append_printf(s, "version=1\nCID=%08x\nparentCID=%08x\ncreateType=\"%s\"\n", new_cid(),
                           parent, type);
    if (hint)
        g_string_append_printf(s, "parentFileNameHint=\"%s\"\n", hint);
    g_string_append_printf(s, "\n# Extent description\nRW %" G_GUINT64_FORMAT " %s\n", sectors,
                           extent);
    g_string_append_printf(s,
                           "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\n"
                           "ddb.geometry.cylinders = \"%" G_GUINT64_FORMAT "\"\n"
                           "ddb.geometry.heads = \"%u\"\nddb.geometry.sectors = \"%u\"\n"
                           "ddb.adapterType = \"ide\"\n",
                           cylinders, HEADS, TRACK_SECTORS);
    return g_string_free(s, FALSE);
}

/* ---- create ---- */

static bool create_flat(const BlkCreate *c, uint64_t sectors, GError **error)
{
    g_autofree char *base = g_path_get_basename(c->path);
    char *dot = strrchr(base, '.');

    if (dot && strcmp(dot, ".vmdk") == 0)
        *dot = 0;
    g_autofree char *name = g_strconcat(base, "-flat.vmdk", NULL);
    g_autofree char *extent = g_strdup_printf("FLAT \"%s\" 0", name);
    g_autofree char *path = blk_base_path(c->path, name);
    if (c->base)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': an overlay cannot be flat; leave subformat out", c->path);
    if (!quotable(name))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': a vmdk image cannot record a name with quotes or line ends",
                          c->path);
    g_autofree char *text = new_text(c, "monolithicFlat", extent, sectors, error);
    BlkNewFile *flat = text ? blk_new_file_extra(c, path, error) : NULL;
    return flat && blk_new_file_size(flat, sectors * SECTOR, error) &&
           blk_new_file_write(c->file, text, strlen(text), 0, error);
}

/* A directory of @n tables that lie behind it, from sector @at on. */
static bool write_directory(const BlkCreate *c, uint64_t at, uint64_t dir_sectors, uint64_t n,
                            GError **error)
{
    g_autofree uint8_t *dir = g_malloc0(dir_sectors * SECTOR);

    for (uint64_t i = 0; i < n; i++)
        store_le32(dir + 4 * i, (uint32_t)(at + dir_sectors + i * TABLE_SECTORS));
    return blk_new_file_write(c->file, dir, dir_sectors * SECTOR, at * SECTOR, error);
}

static bool create_sparse(const BlkCreate *c, uint64_t sectors, GError **error)
{
    uint64_t per_table = (uint64_t)VMDK_GTES * VMDK_GRAIN_SECTORS;
    uint64_t tables = (sectors + per_table - 1) / per_table;
    uint64_t dir_sectors = (tables * 4 + BLK_SECTOR - 1) / BLK_SECTOR;
    uint64_t rgd = TEXT_AT + TEXT_SECTORS, gd = rgd + dir_sectors + tables * TABLE_SECTORS;
    uint64_t overhead = align_up(gd + dir_sectors + tables * TABLE_SECTORS, VMDK_GRAIN_SECTORS);
    g_autofree char *name = g_strdelimit(g_path_get_basename(c->path), "\"\r\n", '_');
    g_autofree char *extent = g_strdup_printf("SPARSE \"%s\"", name);
    g_autofree char *text = new_text(c, "monolithicSparse", extent, sectors, error);
    uint8_t head[BLK_SECTOR] = "KDMV";

    if (!text)
        return false;
    if (strlen(text) > TEXT_SECTORS * SECTOR)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': the path of its base is too long",
                          c->path);
    store_le32(head + SP_VERSION, 1);
    store_le32(head + SP_FLAGS, 3); /* line ends can be tested, tables have a copy */
    store_le64(head + SP_CAPACITY, sectors);
    store_le64(head + SP_GRAIN, VMDK_GRAIN_SECTORS);
    store_le64(head + SP_TEXT, TEXT_AT);
    store_le64(head + SP_TEXT_SIZE, TEXT_SECTORS);
    store_le32(head + SP_GTES, VMDK_GTES);
    store_le64(head + SP_RGD, rgd);
    store_le64(head + SP_GD, gd);
    store_le64(head + SP_OVERHEAD, overhead);
    memcpy(head + SP_NEWLINES, "\n \r\n", 4);
    return blk_new_file_write(c->file, head, sizeof head, 0, error) &&
           blk_new_file_write(c->file, text, strlen(text), TEXT_AT * SECTOR, error) &&
           write_directory(c, rgd, dir_sectors, tables, error) &&
           write_directory(c, gd, dir_sectors, tables, error) &&
           blk_new_file_size(c->file, overhead * SECTOR, error);
}

bool vmdk_create(const BlkCreate *c, GError **error)
{
    const char *sub = g_hash_table_lookup(c->options, "subformat");
    uint64_t size = align_up(c->size, BLK_SECTOR);
    uint64_t most = BLOCK_MAP_ENTRIES_MAX * VMDK_GRAIN_SECTORS * SECTOR;

    if (sub && strcmp(sub, "monolithicFlat") == 0)
        return create_flat(c, size / SECTOR, error);
    if (sub && strcmp(sub, "monolithicSparse") != 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "option subformat=%s: can be monolithicSparse or monolithicFlat", sub);
    if (size > most)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "'%s': a monolithicSparse image has at most 2 TiB", c->path);
    if (c->base && size < c->base->size)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': would be smaller than its base",
                          c->path);
    return create_sparse(c, size / SECTOR, error);
}

/* ---- changes ---- */

bool vmdk_check(BlkNode *n, bool repair, BlkReport *r, GError **error)
{
    return block_map_check(&((BlkVmdk *)n)->map, repair, r, error);
}

bool vmdk_resize(BlkNode *n, uint64_t size, bool shrink, GError **error)
{
    BlkVmdk *v = (BlkVmdk *)n;
    BlockMap *m = &v->map;

    size = align_up(size, BLK_SECTOR);
    if (size < m->size && !shrink)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': would get smaller; say --shrink",
                          file_of(v)->path);
    if (!m->plain || m->n_plain != 1 || !m->plain->file || m->plain->offset || size == 0)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': only a vmdk image of one flat extent can change its size; convert "
                          "it to a larger one",
                          file_of(v)->path);
    const VmdkExtent *e = &g_array_index(v->text.extents, VmdkExtent, 0);
    const char *rest = v->text.text + e->at + strcspn(v->text.text + e->at, "\n");
    g_autofree char *head = g_strndup(v->text.text, e->at);
    g_autofree char *text = g_strdup_printf("%sRW %" G_GUINT64_FORMAT " %s \"%s\" 0%s", head,
                                            size / SECTOR, e->type, e->name, rest);
    /* The file is never shorter than the descriptor says. */
    int err = size > m->size ? blk_file_truncate(m->plain->file, size) : 0;
    if (!err && size > m->size)
        err = blk_file_sync(m->plain->file);
    if (!err)
        err = write_text(v, text);
    if (!err)
        err = blk_file_sync(file_of(v));
    if (!err && size < m->size)
        err = blk_file_truncate(m->plain->file, size);
    if (err)
        return fail(v, err, "change its size", error);
    m->size = m->plain->len = size;
    return true;
}

bool vmdk_set_base(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    BlkVmdk *v = (BlkVmdk *)n;
    g_autofree char *hint = NULL;
    uint32_t cid;

    if (v->map.plain || v->map.unpack)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': only a monolithicSparse vmdk image can have a base; convert it",
                          file_of(v)->path);
    if (!parent_of(file_of(v)->path, base, &cid, &hint, error))
        return false;
    g_autofree char *id = g_strdup_printf("%08x", cid);
    g_autofree char *quoted = hint ? g_strdup_printf("\"%s\"", hint) : g_strdup("");
    g_autofree char *one = vmdk_text_replace(v->text.text, "parentCID", id);
    g_autofree char *two = vmdk_text_replace(one, "parentFileNameHint", quoted);
    int err = write_text(v, two);
    if (!err)
        err = blk_file_sync(file_of(v));
    if (!err)
        err = write_note(v, false);
    v->base_changes = v->base_changes && err;
    return fail(v, err, "record its base", error);
}

bool vmdk_make_empty(BlkNode *n, GError **error)
{
    BlkVmdk *v = (BlkVmdk *)n;
    int err = 0;

    if (!v->map.plain)
        return block_map_make_empty(n, error);
    for (unsigned i = 0; !err && i < v->map.n_plain; i++) {
        const BlockExtent *e = &v->map.plain[i];
        err = e->file ? blk_file_zero_at(e->file, e->offset, e->len) : 0;
    }
    return fail(v, err, "empty it", error);
}

void vmdk_describe(BlkNode *n, GPtrArray *facts)
{
    BlkVmdk *v = (BlkVmdk *)n;
    g_autofree char *cid = g_strdup_printf("%08x", v->text.cid);
    g_autofree char *parent = g_strdup_printf("%08x", v->text.parent_cid);
    g_autofree char *type = g_utf8_make_valid(v->text.type, -1);

    blk_fact_text(facts, "subformat", type);
    block_map_describe(&v->map, facts);
    blk_fact_text(facts, "cid", cid);
    if (v->text.parent_cid != VMDK_NO_PARENT)
        blk_fact_text(facts, "parent-cid", parent);
    if (v->map.plain)
        blk_fact_number(facts, "extents", v->map.n_plain);
}
