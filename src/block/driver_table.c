/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The formats that this build reads and writes, and the marks of those that it does not: an image
 * of one is refused rather than shown to the guest as a raw disk, and a guest cannot turn a raw
 * image into one behind its owner's back.
 */
#include <string.h>

#include "block_int.h"

static const BlkDriver *const driver_table[] = {
    &blk_driver_qcow2,
    &blk_driver_raw,
    &blk_driver_umlcow,
    &blk_driver_vdi,
    &blk_driver_vhd,
    &blk_driver_vmdk,
};

/* Names that other programs record in their images for formats of the table. */
static const struct {
    const char *other, *ours;
} aliases[] = {
    {"vpc", "vhd"},
    {"file", "raw"},
    {"host_device", "raw"},
};

typedef struct Mark {
    const char *format;
    uint16_t offset, len;
    const char *bytes;
} Mark;

static const Mark marks[] = {
    {"qed", 0, 4, "QED"},
    {"COWD vmdk", 0, 4, "COWD"},
    {"vhdx", 0, 8, "vhdxfile"},
    {"parallels", 0, 16, "WithoutFreeSpace"},
    {"parallels", 0, 16, "WithouFreSpacExt"},
    {"luks", 0, 6, "LUKS\xba\xbe"},
};

const char *blk_probe_format(const BlkProbe *p)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(driver_table); i++)
        if (driver_table[i]->probe && driver_table[i]->probe(p))
            return driver_table[i]->name;
    for (unsigned i = 0; i < G_N_ELEMENTS(marks); i++)
        if (memcmp(p->head + marks[i].offset, marks[i].bytes, marks[i].len) == 0)
            return marks[i].format;
    return NULL;
}

const BlkDriver *blk_driver_at(unsigned i)
{
    return i < G_N_ELEMENTS(driver_table) ? driver_table[i] : NULL;
}

const BlkDriver *blk_driver_find(const char *format)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(aliases); i++)
        if (strcmp(aliases[i].other, format) == 0)
            format = aliases[i].ours;
    for (unsigned i = 0; i < G_N_ELEMENTS(driver_table); i++)
        if (strcmp(driver_table[i]->name, format) == 0)
            return driver_table[i];
    return NULL;
}

const char *blk_format_by_name(const char *path, bool overlay)
{
    static const struct {
        const char *ending, *format;
    } endings[] = {{".qcow2", "qcow2"}, {".vhd", "vhd"}, {".vpc", "vhd"}, {".vdi", "vdi"},
                   {".vmdk", "vmdk"},   {".cow", "umlcow"}};

    for (unsigned i = 0; i < G_N_ELEMENTS(endings); i++)
        if (g_str_has_suffix(path, endings[i].ending))
            return endings[i].format;
    return overlay ? "umlcow" : "raw";
}

char *blk_driver_names(void)
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(driver_table); i++)
        g_string_append_printf(s, "%s%s",
                               i == 0                                  ? ""
                               : i + 1 < G_N_ELEMENTS(driver_table) ? ", "
                                                                    : " or ",
                               driver_table[i]->name);
    return g_string_free(s, FALSE);
}
