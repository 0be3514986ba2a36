/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The header of User-Mode Linux's copy-on-write files: versions 1 (host-endian), 2, 3 (big-endian)
 * and the "broken" version 3 that 64-bit kernels wrote before the end of 2005, whose mtime field
 * took 8 bytes. New headers are version 3, sector 512, alignment 4096.
 *
 * Spec: Linux 6.1, arch/um/drivers/cow_user.c and cow.h (layouts, sizes, rounding).
 *
 * Refused: sectors of another size than 512 and versions above 3. The bitmap of versions 1 and 2 is
 * rounded down by definition, so its last bits may lie outside; such files are for reading only.
 *
 * Invariants of a layout that is accepted: size in 1..COW_SIZE_MAX; header <= bitmap_offset,
 * bitmap_offset + bitmap_len <= data_offset; no sum overflows; backing is terminated and not empty.
 */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "cow_header.h"

#define COW_MAGIC 0x4f4f4f4du

/* Where each version keeps its fields; 0: it has none. */
typedef struct CowFields {
    uint16_t header, backing, backing_len, mtime, size, sector, alignment, format;
    bool big_endian;
} CowFields;

static const CowFields fields_of[] = {
    [COW_V1] = {280, 8, 256, 264, 268, 276, 0, 0, false},
    [COW_V2] = {4120, 8, 4096, 4104, 4108, 4116, 0, 0, true},
    [COW_V3] = {4128, 32, 4096, 8, 12, 20, 24, 28, true},
    [COW_V3_BROKEN] = {4136, 36, 4096, 8, 16, 24, 28, 32, true},
};

#define OFF_MAGIC 0u
#define OFF_VERSION 4u
#define OFF_V3_PATH 32u /* four zeros here mean the broken layout */
#define ALIGNMENT_MAX ((uint32_t)1 << 20)

bool cow_is_magic(const uint8_t *head)
{
    return load_le32(head) == COW_MAGIC || load_be32(head) == COW_MAGIC;
}

static bool find_kind(const uint8_t *head, size_t len, const char *path, CowKind *ret_kind,
                      GError **error)
{
    if (len < OFF_VERSION + 4 || !cow_is_magic(head))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "'%s': no COW header at offset 0", path);
    bool big = load_be32(head) == COW_MAGIC;
    uint32_t version = big ? load_be32(head + OFF_VERSION) : load_le32(head + OFF_VERSION);
    if (!big && version == 1) {
        *ret_kind = COW_V1;
    } else if (big && version == 2) {
        *ret_kind = COW_V2;
    } else if (big && version == 3) {
        bool broken = len >= OFF_V3_PATH + 4 && load_le32(head + OFF_V3_PATH) == 0;
        *ret_kind = broken ? COW_V3_BROKEN : COW_V3;
    } else {
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': COW version %u at offset %u is not known; 1 to 3 are", path,
                          version, OFF_VERSION);
    }
    return true;
}

/* Place bitmap and data; sizes are bounded, so sums are safe. */
static bool place(CowLayout *l, const char *path, GError **error)
{
    const CowFields *f = &fields_of[l->kind];
    uint64_t sectors = l->size / COW_SECTOR + (l->size % COW_SECTOR != 0);

    if (f->alignment) {
        if (!is_power_of_two(l->alignment) || l->alignment > ALIGNMENT_MAX)
            return lodge_fail(error, LODGE_ERROR_IMAGE,
                              "'%s': alignment %u at offset %u is no power of two up to %u", path,
                              l->alignment, f->alignment, ALIGNMENT_MAX);
        l->bitmap_offset = align_up(f->header, l->alignment);
        l->bitmap_len = (sectors + 7) / 8;
        l->data_offset = align_up(l->bitmap_offset + l->bitmap_len, l->alignment);
    } else {
        l->alignment = COW_SECTOR;
        l->bitmap_offset = f->header;
        l->bitmap_len = (l->size + COW_SECTOR - 1) / (8 * COW_SECTOR);
        l->data_offset = align_up(l->bitmap_offset + l->bitmap_len, COW_SECTOR);
    }
    if (l->data_offset % COW_SECTOR)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': alignment %u at offset %u is below a sector", path, l->alignment,
                          f->alignment);
    return true;
}

bool cow_header_parse(const uint8_t *head, size_t len, const char *path, CowLayout *ret_layout,
                      GError **error)
{
    g_autofree CowLayout *l = g_new0(CowLayout, 1);

    if (!find_kind(head, len, path, &l->kind, error))
        return false;
    const CowFields *f = &fields_of[l->kind];
    if (len < f->header)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': the COW header ends at offset %zu of %u", path, len, f->header);
    const uint8_t *name = head + f->backing;
    if (!name[0] || !memchr(name, 0, f->backing_len))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': the backing file's name at offset %u is %s", path, f->backing,
                          name[0] ? "not terminated" : "empty");
    g_strlcpy(l->backing, (const char *)name, sizeof l->backing);
    if (f->big_endian) {
        l->mtime = load_be32(head + f->mtime);
        l->size = load_be64(head + f->size);
        l->sector_size = load_be32(head + f->sector);
        l->alignment = f->alignment ? load_be32(head + f->alignment) : 0;
    } else {
        l->mtime = load_le32(head + f->mtime);
        l->size = load_le64(head + f->size);
        l->sector_size = load_le32(head + f->sector);
    }
    if (f->format && load_be32(head + f->format) != 0)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': COW data format %u at offset %u is not known; only 0 is", path,
                          load_be32(head + f->format), f->format);
    if (l->sector_size != COW_SECTOR)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': sectors of %u bytes at offset %u; only 512 are supported", path,
                          l->sector_size, f->sector);
    if (l->size == 0 || l->size > COW_SIZE_MAX)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': disk size %" G_GUINT64_FORMAT " at offset %u is not in 1..2^50",
                          path, l->size, f->size);
    if (!place(l, path, error))
        return false;
    *ret_layout = *l;
    return true;
}

bool cow_layout_init(const char *backing, uint64_t size, uint32_t mtime, CowLayout *ret_layout,
                     GError **error)
{
    g_autofree CowLayout *l = g_new0(CowLayout, 1);

    if (strlen(backing) >= sizeof l->backing)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "base '%.40s...': its path is over %u bytes; use a shorter one", backing,
                          COW_PATH_MAX - 1);
    if (size > COW_SIZE_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "base '%s': over 2^50 bytes", backing);
    l->kind = COW_V3;
    g_strlcpy(l->backing, backing, sizeof l->backing);
    l->mtime = mtime;
    l->size = size;
    l->sector_size = COW_SECTOR;
    l->alignment = COW_ALIGNMENT;
    if (!place(l, backing, error))
        return false;
    *ret_layout = *l;
    return true;
}

uint32_t cow_path_offset(CowKind kind)
{
    return fields_of[kind].backing;
}

uint32_t cow_path_max(CowKind kind)
{
    return fields_of[kind].backing_len;
}

static void put32(const CowFields *f, uint8_t *p, uint32_t v)
{
    if (f->big_endian)
        store_be32(p, v);
    else
        store_le32(p, v);
}

size_t cow_header_build(const CowLayout *l, uint8_t *buf)
{
    static const uint8_t versions[] = {[COW_V1] = 1, [COW_V2] = 2, [COW_V3] = 3,
                                       [COW_V3_BROKEN] = 3};
    const CowFields *f = &fields_of[l->kind];

    memset(buf, 0, COW_HEADER_MAX);
    put32(f, buf + OFF_MAGIC, COW_MAGIC);
    put32(f, buf + OFF_VERSION, versions[l->kind]);
    g_strlcpy((char *)buf + f->backing, l->backing, f->backing_len);
    put32(f, buf + f->mtime, l->mtime);
    if (f->big_endian)
        store_be64(buf + f->size, l->size);
    else
        store_le64(buf + f->size, l->size);
    put32(f, buf + f->sector, l->sector_size);
    if (f->alignment)
        put32(f, buf + f->alignment, l->alignment);
    return f->header;
}
