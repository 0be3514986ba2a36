/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * See shapes.h. Blocks of VHD and VDI images are made small by changing the new image's header, so
 * that a small disk has many.
 */
#include <string.h>

#include "lodge/num.h"

#include "shapes.h"
#include "vhd.h"

#define BASE_SEED 3u
#define VDI_TABLE 4096u
#define VDI_AT_BLOCK 0x178u
#define VDI_AT_BLOCKS 0x180u

const Shape shapes[] = {
    {.name = "umlcow", .format = "umlcow", .base_format = "raw"},
    {.name = "qcow2", .format = "qcow2"},
    {.name = "qcow2-v2", .format = "qcow2", .options = "compat=0.10,cluster-size=4K"},
    {.name = "qcow2-tiny", .format = "qcow2", .options = "cluster-size=512,refcount-bits=64"},
    {.name = "qcow2-on-base", .format = "qcow2", .base_format = "raw"},
    {.name = "qcow2-chain", .format = "qcow2", .options = "cluster-size=8K", .base_format = "qcow2"},
    {.name = "vhd", .format = "vhd"},
    {.name = "vhd-small", .format = "vhd", .block = 65536},
    {.name = "vhd-on-base", .format = "vhd", .base_format = "vhd", .block = 65536},
    {.name = "vdi", .format = "vdi"},
    {.name = "vdi-small", .format = "vdi", .block = 65536},
    {.name = "vdi-on-base", .format = "vdi", .base_format = "vdi", .block = 65536},
    {.name = "vmdk", .format = "vmdk"},
    {.name = "vmdk-on-base", .format = "vmdk", .base_format = "vmdk"},
};
const unsigned n_shapes = G_N_ELEMENTS(shapes);

static void patch(const char *path, const Shape *s, uint64_t size)
{
    g_autofree char *text = NULL;
    gsize len;
    uint32_t n = (uint32_t)((size + s->block - 1) / s->block);

    g_assert_true(g_file_get_contents(path, &text, &len, NULL));
    uint8_t *p = (uint8_t *)text;
    if (!strcmp(s->format, "vhd")) {
        uint8_t *h = p + VHD_HEADER_AT;
        g_assert_cmpuint(n * 4, <=, BLK_SECTOR); /* of the table: it is not made longer */
        store_be32(h + HD_BLOCK, s->block);
        store_be32(h + HD_ENTRIES, n);
        store_be32(h + HD_CHECKSUM, vhd_checksum(h, VHD_HEADER, HD_CHECKSUM));
    } else {
        store_le32(p + VDI_AT_BLOCK, s->block);
        store_le32(p + VDI_AT_BLOCKS, n);
        memset(p + VDI_TABLE, 0xff, n * 4);
    }
    g_assert_true(g_file_set_contents(path, text, (gssize)len, NULL));
}

static char *make(BlockFix *f, const char *name, const BlkMake *what, const char *options)
{
    g_autoptr(GHashTable) table = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_auto(GStrv) list = g_strsplit(options ? options : "", ",", -1);
    g_autoptr(GError) error = NULL;
    char *path = block_fix_path(f, name);
    BlkMake m = *what;

    for (char **p = list; *p; p++) {
        g_auto(GStrv) kv = g_strsplit(*p, "=", 2);
        g_hash_table_insert(table, g_strdup(kv[0]), g_strdup(kv[1]));
    }
    m.file = path;
    m.options = table;
    blk_make(&m, f->io, &error);
    g_assert_no_error(error);
    return path;
}

char *shape_make(BlockFix *f, const Shape *s, uint64_t size, char **ret_base)
{
    BlkMake m = {.format = s->format, .size = size};

    *ret_base = NULL;
    if (s->base_format && !strcmp(s->base_format, "raw")) {
        *ret_base = block_fix_image(f, "base", size, BASE_SEED);
    } else if (s->base_format) {
        g_autofree uint8_t *bytes = g_malloc(size);
        for (uint64_t i = 0; i < size; i++)
            bytes[i] = block_fix_byte(i, BASE_SEED);
        *ret_base = make(f, "base", &(BlkMake){.format = s->base_format, .size = size}, NULL);
        BlkNode *n = block_fix_open(f, &(BlkOptions){.file = *ret_base, .format = s->base_format});
        g_assert_cmpint(blk_pwrite(n, bytes, 0, size), ==, 0);
        blk_close(n);
    }
    m.base = *ret_base;
    m.base_format = s->base_format;
    if (m.base)
        m.size = 0;
    char *path = make(f, "image", &m, s->options);
    if (s->block)
        patch(path, s, size);
    return path;
}

uint8_t shape_byte(const Shape *s, uint64_t i)
{
    return s->base_format ? block_fix_byte(i, BASE_SEED) : 0;
}

bool shape_is_asked(const Shape *s)
{
    const char *name = g_getenv("FAULT_SHAPE"), *format = g_getenv("FAULT_FORMAT");

    return (!name || !strcmp(name, s->name)) && (!format || !strcmp(format, s->format));
}
