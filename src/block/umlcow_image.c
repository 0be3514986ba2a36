/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * UML COW files as wholes: opening and the check against the base, making, checking, another base.
 *
 * As in User-Mode Linux an overlay whose base differs in size or time of modification is refused:
 * its sectors would be mixed with others than those they replaced. What a check can find: a file
 * that is cut off, and bits behind the last sector. Every bit below says "ours", so nothing can
 * point astray, and nothing leaks.
 *
 * While an overlay is merged into its base as the machine runs (live_commit.c), the base's time
 * moves. A note in the sector before the bitmap, which belongs to nobody, says which base that is
 * and until when: a base whose time is not past that is the right one, should the machine be
 * killed. It is opened then, and the header is mended. The note's bytes: "LodgeMrg", inode and
 * seconds since 1970, both 64 bits little endian.
 *
 * Spec: Linux 6.1 arch/um/drivers/cow_user.c, ubd_kern.c (open_ubd_file(), ubd_open_dev()).
 *
 * Threads: main thread only, but for the probe, which is pure.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "umlcow.h"

#define CHUNK ((size_t)64 << 10) /* of the bitmap, looked through at once */
#define NOTE_MAGIC "LodgeMrg"
#define NOTE_BYTES 24u /* inode at 8, time at 16 */

bool cow_probe(const BlkProbe *p)
{
    return cow_is_magic(p->head);
}

static BlkFile *file_of(const BlkCow *c)
{
    return (BlkFile *)c->node.file;
}

static bool check_file(const BlkCow *c, const BlkOpenHow *how, GError **error)
{
    const CowLayout *l = &c->layout;
    const BlkFile *f = file_of(c);
    uint64_t least = l->data_offset + l->size;

    if (f->size < least && !how->for_check)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': is cut off at offset %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
                          "; restore it from a full copy",
                          f->path, f->size, least);
    if (!how->read_only && (l->kind == COW_V1 || l->kind == COW_V2))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': is a version %d COW file, for reading only; add ,ro or merge it "
                          "(uml_moo)",
                          f->path, l->kind == COW_V1 ? 1 : 2);
    if (how->cache == BLK_CACHE_NONE && l->data_offset % COW_ALIGNMENT)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': its data is not aligned to %u bytes; leave cache=none out",
                          f->path, COW_ALIGNMENT);
    return true;
}

/* Where the note goes; 0: there is no room. */
static uint64_t note_at(const BlkCow *c)
{
    uint64_t end = c->layout.bitmap_offset;

    return end >= COW_HEADER_MAX + COW_SECTOR ? end - COW_SECTOR : 0;
}

static bool read_note(BlkCow *c, GError **error)
{
    uint8_t note[NOTE_BYTES];
    uint64_t at = note_at(c);

    if (!at)
        return true;
    if (!blk_file_pread(file_of(c), note, sizeof note, at, error))
        return false;
    c->base_changes = memcmp(note, NOTE_MAGIC, strlen(NOTE_MAGIC)) == 0;
    c->change_ino = load_le64(note + 8);
    c->change_until = (int64_t)load_le64(note + 16);
    return true;
}

bool cow_base_changes(BlkNode *n, int64_t until_s, GError **error)
{
    BlkCow *c = (BlkCow *)n;
    uint8_t note[NOTE_BYTES] = NOTE_MAGIC;
    uint64_t at = note_at(c);

    if (!at)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': its bitmap follows the header at once, so a merge cannot be noted "
                          "there; stop the machine, then use lodge image commit",
                          file_of(c)->path);
    store_le64(note + 8, blk_file_under(n->base)->ino);
    store_le64(note + 16, (uint64_t)until_s);
    if (!blk_file_pwrite(file_of(c), note, sizeof note, at, error))
        return false;
    c->base_changes = true;
    int err = blk_file_sync(file_of(c));
    return !err || lodge_fail_errno(error, err, "'%s': cannot write", file_of(c)->path);
}

/* The base's time is another one than recorded because a merge into it was cut short. */
static bool is_noted(const BlkCow *c, const BlkBaseInfo *base)
{
    return c->base_changes && base->node &&
           blk_file_under(base->node)->ino == c->change_ino &&
           (int32_t)(base->mtime - c->layout.mtime) >= 0 &&
           (int32_t)((uint32_t)c->change_until - base->mtime) >= 0;
}

bool cow_open(BlkNode *n, const BlkOpenHow *how, BlkBaseRef *ret_base, GError **error)
{
    BlkCow *c = (BlkCow *)n;
    BlkFile *f = file_of(c);
    uint8_t head[COW_HEADER_MAX];

    if (!blk_file_pread(f, head, sizeof head, 0, error) ||
        !cow_header_parse(head, MIN(sizeof head, f->size), f->path, &c->layout, error) ||
        !check_file(c, how, error))
        return false;
    ret_base->path = g_strdup(c->layout.backing);
    ret_base->field = "backing file name";
    ret_base->offset = cow_path_offset(c->layout.kind);
    ret_base->size = c->layout.size;
    cow_pieces_init(c, how->meta_bytes);
    return read_note(c, error);
}

bool cow_attach(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    BlkCow *c = (BlkCow *)n;
    const CowLayout *l = &c->layout;
    const char *overlay = file_of(c)->path;

    if (base->size != l->size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': Size mismatch (%" G_GUINT64_FORMAT " vs %" G_GUINT64_FORMAT
                          ") of COW header vs backing file '%s'; give the base it was made with, "
                          "or start a new overlay",
                          overlay, l->size, base->size, base->full);
    if (base->mtime != l->mtime && is_noted(c, base)) {
        lodge_note("disk %s: '%s': was being merged into '%s' when that was cut short; nothing is "
                   "lost, and the base's time is noted anew", n->name, overlay, base->full);
        return n->read_only || cow_set_base(n, base, error);
    }
    if (base->mtime != l->mtime)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': mtime mismatch (%u vs %u) of COW header vs backing file '%s'; "
                          "the base was changed since: restore it, or start a new overlay "
                          "(if only its time changed: touch -d @%u; after a commit that was cut "
                          "off: lodge image rebase --unsafe, and commit again)",
                          overlay, l->mtime, base->mtime, base->full, l->mtime);
    return true;
}

bool cow_create(const BlkCreate *create, GError **error)
{
    g_autofree CowLayout *l = g_new0(CowLayout, 1);
    uint8_t head[COW_HEADER_MAX];

    if (create->size != create->base->size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': a UML COW overlay has the size of its base, %" G_GUINT64_FORMAT
                          " bytes; leave the size out",
                          create->path, create->base->size);
    if (!cow_layout_init(create->base->path, create->size, create->base->mtime, l, error))
        return false;
    return blk_new_file_write(create->file, head, cow_header_build(l, head), 0, error) &&
           blk_new_file_size(create->file, l->data_offset + l->size, error);
}

static bool end_note(BlkCow *c, GError **error)
{
    static const uint8_t none[NOTE_BYTES];

    if (!c->base_changes)
        return true;
    c->base_changes = false;
    return blk_file_pwrite(file_of(c), none, sizeof none, note_at(c), error);
}

bool cow_set_base(BlkNode *n, const BlkBaseInfo *base, GError **error)
{
    BlkCow *c = (BlkCow *)n;
    BlkFile *f = file_of(c);
    CowLayout *l = &c->layout;
    uint8_t head[COW_HEADER_MAX];

    if (!base || !base->node)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': a UML COW overlay records its base's size and time, so there must "
                          "be a base and it must be there; convert the image to have none",
                          f->path);
    if (base->size != l->size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': Size mismatch (%" G_GUINT64_FORMAT " vs %" G_GUINT64_FORMAT
                          ") of COW header vs backing file '%s'; a base must have the same size",
                          f->path, l->size, base->size, base->full);
    if (strlen(base->path) >= cow_path_max(l->kind))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "base '%.40s...': its path is too long",
                          base->path);
    g_strlcpy(l->backing, base->path, sizeof l->backing);
    l->mtime = base->mtime;
    return blk_file_pwrite(f, head, cow_header_build(l, head), 0, error) && end_note(c, error);
}

bool cow_make_empty(BlkNode *n, GError **error)
{
    BlkCow *c = (BlkCow *)n;
    BlkFile *f = file_of(c);
    const CowLayout *l = &c->layout;

    /* The bits first: what they spoke of may go only when they are gone. */
    int err = blk_file_zero_at(f, l->bitmap_offset, c->bitmap_bytes);
    if (!err)
        err = blk_file_sync(f);
    cow_pieces_drop(c);
    if (!err)
        err = blk_file_zero_at(f, l->data_offset, l->size);
    return !err || lodge_fail_errno(error, err, "'%s': cannot empty it", f->path);
}

/* ---- check ---- */

static unsigned count_bits(const uint8_t *p, size_t len)
{
    unsigned n = 0;

    for (size_t i = 0; i < len; i++)
        n += (unsigned)__builtin_popcount(p[i]);
    return n;
}

/* Bits from @from of the byte @at of the bitmap on belong to no sector. */
static bool check_stray(BlkCow *c, uint64_t sectors, bool repair, BlkReport *r, GError **error)
{
    BlkFile *f = file_of(c);
    uint64_t at = sectors / 8;
    uint8_t byte, mask = (uint8_t)(0xffu << (sectors % 8));

    if (at >= c->bitmap_bytes)
        return true;
    if (!blk_file_pread(f, &byte, 1, c->layout.bitmap_offset + at, error))
        return false;
    if (!(byte & mask))
        return true;
    blk_report_add(r, BLK_FIND_LEAK, repair,
                   "bitmap at %" G_GUINT64_FORMAT ": bits set behind the last sector",
                   c->layout.bitmap_offset + at);
    r->allocated -= (unsigned)__builtin_popcount(byte & mask);
    byte &= (uint8_t)~mask;
    return !repair || blk_file_pwrite(f, &byte, 1, c->layout.bitmap_offset + at, error);
}

bool cow_check(BlkNode *n, bool repair, BlkReport *r, GError **error)
{
    BlkCow *c = (BlkCow *)n;
    BlkFile *f = file_of(c);
    const CowLayout *l = &c->layout;
    uint64_t least = l->data_offset + l->size;
    g_autofree uint8_t *buf = g_malloc(CHUNK);

    r->total = align_up(l->size, COW_SECTOR) / COW_SECTOR;
    /* What lies behind the file's end is zeros. */
    uint64_t there = f->size > l->bitmap_offset ? f->size - l->bitmap_offset : 0;
    uint64_t used = MIN((r->total + 7) / 8, MIN(c->bitmap_bytes, there));
    r->end = least;
    for (uint64_t at = 0; at < used; at += CHUNK) {
        size_t len = MIN(CHUNK, used - at);
        /* A bitmap is mostly a hole; do not read terabytes of it. */
        uint64_t from = align_down(l->bitmap_offset + at, BLK_SECTOR);
        BlkReq st = {.op = BLK_STATUS, .offset = from, .len = n->file->limits.size - from};
        if (blk_wait(n->file, &st) == 0 && st.status == BLK_ST_BELOW &&
            st.status_len > CHUNK + BLK_SECTOR) {
            at += align_down(st.status_len - BLK_SECTOR - CHUNK, CHUNK);
            continue;
        }
        if (!blk_file_pread(f, buf, len, l->bitmap_offset + at, error))
            return false;
        r->allocated += count_bits(buf, len);
    }
    if (!check_stray(c, r->total, repair, r, error))
        return false;
    if (f->size < least) {
        blk_report_add(r, BLK_FIND_ERROR, repair,
                       "file: is cut off at offset %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
                       "; what lay behind is lost and reads as zeros",
                       f->size, least);
        int err = repair ? blk_file_truncate(f, least) : 0;
        if (err)
            return lodge_fail_errno(error, err, "'%s': cannot give it its size", f->path);
    }
    cow_pieces_drop(c);
    return true;
}

void cow_describe(BlkNode *n, GPtrArray *facts)
{
    static const char *const versions[] = {[COW_V1] = "1", [COW_V2] = "2", [COW_V3] = "3",
                                           [COW_V3_BROKEN] = "3 (64-bit kernels before 2006)"};
    const BlkCow *c = (BlkCow *)n;

    blk_fact_text(facts, "version", versions[c->layout.kind]);
    blk_fact_number(facts, "sector-size", c->layout.sector_size);
    blk_fact_number(facts, "alignment", c->layout.alignment);
    blk_fact_number(facts, "data-offset", c->layout.data_offset);
    blk_fact_number(facts, "base-size", c->layout.size);
    blk_fact_number(facts, "base-mtime", c->layout.mtime);
}
