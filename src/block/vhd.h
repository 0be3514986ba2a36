/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VHD_H
#define LODGE_VHD_H

/* What opening VHD images (fmt_vhd.c) and the care of whole ones (vhd_image.c) share. */

#include "block_map.h"

#define VHD_COOKIE "conectix"
#define VHD_HEADER_COOKIE "cxsparse"
#define VHD_FOOTER 512u
#define VHD_FOOTER_OLD 511u /* the last byte, reserved, is not there */
#define VHD_HEADER 1024u
#define VHD_HEADER_AT 512u
#define VHD_NONE 0xffffffffu
#define VHD_BLOCK ((uint32_t)2 << 20)
#define VHD_BLOCK_MIN 4096u
#define VHD_SIZE_MAX (UINT64_C(0xff000000) * BLK_SECTOR) /* 2040 GiB */
#define VHD_GEOMETRY_MAX (UINT64_C(65535) * 16 * 255)     /* sectors */
#define VHD_EPOCH 946684800u                              /* 2000-01-01 UTC, since 1970 */

enum { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

/* Offsets in the footer. Spec: "Hard Disk Footer Format". */
enum {
    FT_COOKIE = 0, FT_FEATURES = 8, FT_VERSION = 12, FT_DATA = 16, FT_TIME = 24, FT_CREATOR = 28,
    FT_CREATOR_VERSION = 32, FT_HOST = 36, FT_ORIGINAL = 40, FT_SIZE = 48, FT_GEOMETRY = 56,
    FT_TYPE = 60, FT_CHECKSUM = 64, FT_ID = 68,
};

/* Offsets in the header. Spec: "Dynamic Disk Header Format". */
enum {
    HD_COOKIE = 0, HD_DATA = 8, HD_TABLE = 16, HD_VERSION = 24, HD_ENTRIES = 28, HD_BLOCK = 32,
    HD_CHECKSUM = 36, HD_PARENT_ID = 40, HD_PARENT_TIME = 56, HD_PARENT_NAME = 64,
    HD_LOCATORS = 576,
};
#define HD_PARENT_NAME_BYTES 512u

/* Parent locators: where, and in what form, the parent's path lies. */
enum { LOC_CODE = 0, LOC_SPACE = 4 /* sectors */, LOC_LENGTH = 8, LOC_OFFSET = 16, LOC_BYTES = 24 };
#define VHD_LOCATORS 8u
#define VHD_LOCATOR_MAX 16384u
#define VHD_W2RU 0x57327275u /* UTF-16LE, relative */
#define VHD_W2KU 0x57326b75u /* UTF-16LE, absolute */
#define VHD_MACX 0x4d616358u /* file URL, UTF-8 */

typedef struct BlkVhd {
    BlockMap map;
    uint8_t footer[VHD_FOOTER], header[VHD_HEADER]; /* as in the file */
    uint32_t tail_len; /* bytes of the one at the end when the image was opened */
    bool no_tail;  /* the footer at the end is missing */
    bool bad_copy; /* the one at the start is damaged */
    bool old_copy; /* the one at the start is right, but not the same */
    bool base_changes;    /* the parent is being written, so its time is not recorded */
    uint32_t parent_time; /* of the parent that is open; 0: none */
} BlkVhd;

extern const BlkCreateOpt vhd_create_opts[];

/* fmt_vhd.c */
/* One's complement of the sum of all bytes but the four at @at. */
uint32_t vhd_checksum(const uint8_t *p, size_t len, size_t at);
uint64_t vhd_chs_bytes(const uint8_t *footer);
bool vhd_is_fixed(const BlkVhd *v);
/* The size has changed: map the disk to the file. */
bool vhd_set_fixed(BlkVhd *v, GError **error);
void vhd_table_changed(BlkVhd *v);
/* Write the footer behind the last block. */
int vhd_settle(BlockMap *m);
/* A time as headers have it. */
uint32_t vhd_time_of(uint32_t mtime);

/* vhd_image.c: slots of the driver */
bool vhd_create(const BlkCreate *c, GError **error);
bool vhd_check(BlkNode *n, bool repair, BlkReport *r, GError **error);
bool vhd_resize(BlkNode *n, uint64_t size, bool shrink, GError **error);
bool vhd_set_base(BlkNode *n, const BlkBaseInfo *base, GError **error);
bool vhd_make_empty(BlkNode *n, GError **error);
bool vhd_base_changes(BlkNode *n, int64_t until_s, GError **error);
/* Record the parent's time, where an overlay has none, before its first change. Worker. */
int vhd_touched(BlockMap *m);
void vhd_describe(BlkNode *n, GPtrArray *facts);

#endif
