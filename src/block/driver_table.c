/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The formats that this build reads and writes, and the marks by which image formats are known.
 * The marks also cover formats that are not read: an image of one is refused rather than shown to
 * the guest as a raw disk, and a guest cannot turn a raw image into one behind its owner's back.
 */
#include <string.h>

#include "block_int.h"

static const BlkDriver *const driver_table[] = {
    &blk_driver_raw,
    &blk_driver_umlcow,
};

typedef struct Mark {
    const char *format;
    uint16_t offset, len;
    const char *bytes;
} Mark;

static const Mark marks[] = {
    {"umlcow", 0, 4, "OOOM"}, /* versions 2 and 3 */
    {"umlcow", 0, 4, "MOOO"}, /* version 1 on a little-endian host */
    {"qcow2", 0, 4, "QFI\xfb"},
    {"qed", 0, 4, "QED"},
    {"vmdk", 0, 4, "KDMV"},
    {"vmdk", 0, 4, "COWD"},
    {"vmdk", 0, 21, "# Disk DescriptorFile"},
    {"vhd", 0, 8, "conectix"},
    {"vhdx", 0, 8, "vhdxfile"},
    {"vdi", 64, 4, "\x7f\x10\xda\xbe"},
    {"parallels", 0, 16, "WithoutFreeSpace"},
    {"parallels", 0, 16, "WithouFreSpacExt"},
    {"luks", 0, 6, "LUKS\xba\xbe"},
};

const char *blk_probe_format(const uint8_t *head)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(marks); i++)
        if (memcmp(head + marks[i].offset, marks[i].bytes, marks[i].len) == 0)
            return marks[i].format;
    return NULL;
}

const BlkDriver *blk_driver_find(const char *format)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(driver_table); i++)
        if (strcmp(driver_table[i]->name, format) == 0)
            return driver_table[i];
    return NULL;
}
