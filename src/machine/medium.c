/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether an image is whole: a download that broke off boots, and fails somewhere in the middle.
 *
 * Spec: ECMA-119 8.1 to 8.4 (volume descriptors of a CD-ROM), ECMA-107 clause 11 (description of a
 * FAT volume in its first sector).
 *
 * An image may be larger than its file system, as CD-ROMs with padding and floppy disks are. One
 * without a known file system is taken as it is: it cannot be told what is missing.
 *
 * Threads: main thread, where a medium is put into a drive; nothing is kept.
 */
#include "medium.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "lodge/error.h"
#include "lodge/num.h"

#define CD_SECTOR 2048u
/* ECMA-119, 6.3 and 8.1: the set of descriptors begins here; it ends with one of type 255. */
#define CD_DESCRIPTORS 16u
#define CD_DESCRIPTORS_MAX 16u
#define CD_TYPE_PRIMARY 1u
#define CD_TYPE_END 255u
#define CD_SPACE 80u /* 8.4.8: volume space size, in logical blocks; both byte orders */
#define CD_BLOCK 128u /* 8.4.12: logical block size */

#define FAT_SECTOR 512u
#define FAT_SECTORS_MAX 5760u /* of the largest floppy disk, 2.88 MiB */

/* Bytes of the CD-ROM's file system; 0: none is known. */
static uint64_t cd_bytes(BlkNode *n, uint64_t size)
{
    uint8_t d[CD_SECTOR];

    for (unsigned i = 0; i < CD_DESCRIPTORS_MAX; i++) {
        uint64_t at = (uint64_t)(CD_DESCRIPTORS + i) * CD_SECTOR;

        if (!range_within(at, sizeof d, size) || blk_pread(n, d, at, sizeof d) ||
            memcmp(d + 1, "CD001", 5) || d[0] == CD_TYPE_END)
            return 0;
        if (d[0] == CD_TYPE_PRIMARY) {
            uint32_t blocks = load_le32(d + CD_SPACE), unit = load_le16(d + CD_BLOCK);

            if (blocks != load_be32(d + CD_SPACE + 4) || unit < 512 || unit > CD_SECTOR ||
                !is_power_of_two(unit))
                return 0;
            return (uint64_t)blocks * unit;
        }
    }
    return 0;
}

/* Likewise of a floppy disk: the fields of ECMA-107, 11.2, are believed where all make sense, for
 * boot sectors of other kinds have code or zeros there. */
static uint64_t floppy_bytes(BlkNode *n, uint64_t size)
{
    uint8_t s[FAT_SECTOR];
    unsigned sectors;

    if (size < sizeof s || blk_pread(n, s, 0, sizeof s))
        return 0;
    sectors = load_le16(s + 19);
    if ((s[0] != 0xeb && s[0] != 0xe9) || load_le16(s + 11) != FAT_SECTOR ||
        !is_power_of_two(s[13]) || !load_le16(s + 14) || !s[16] || s[16] > 2 || s[21] < 0xf0 ||
        sectors > FAT_SECTORS_MAX)
        return 0;
    return (uint64_t)sectors * FAT_SECTOR;
}

bool medium_check(char kind, BlkNode *node, const char *file, GError **error)
{
    struct stat st;
    BlkLimits l;
    uint64_t needs;

    if (kind != 'a' && kind != 'd')
        return true;
    /* The node has filled up its last sector. */
    if (kind == 'a' && stat(file, &st) == 0 && S_ISREG(st.st_mode) && st.st_size % FAT_SECTOR)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': %" PRIu64 " bytes end within a sector of %u; it is cut off or no "
                          "floppy disk", file, (uint64_t)st.st_size, FAT_SECTOR);
    blk_limits(node, &l);
    if (kind == 'd' && l.size < CD_SECTOR)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': %" PRIu64 " bytes are no CD-ROM, whose sectors have %u; name an "
                          "ISO image", file, l.size, CD_SECTOR);
    needs = kind == 'd' ? cd_bytes(node, l.size) : floppy_bytes(node, l.size);
    if (needs > l.size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': is cut off: its file system has %" PRIu64 " bytes, the image %"
                          PRIu64 "; fetch or copy it again", file, needs, l.size);
    return true;
}
