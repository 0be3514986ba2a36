/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VMDK_H
#define LODGE_VMDK_H

/* What the driver of VMDK images (fmt_vmdk.c), their descriptors (vmdk_text.c) and the care of
 * whole images (vmdk_image.c) share. */

#include "lodge/dynlib.h"

#include "block_map.h"

#define VMDK_GRAIN_SECTORS 128u
#define VMDK_GTES 512u
#define VMDK_TEXT_MAGIC "# Disk DescriptorFile"
#define VMDK_NO_PARENT 0xffffffffu
#define VMDK_TEXT_MAX ((size_t)1 << 20)
#define VMDK_EXTENTS_MAX 64u
/* The last line of an overlay's descriptor while its parent is being written; others take it for a
 * comment. */
#define VMDK_NOTE "# Lodge: the parent is being written"

typedef enum VmdkAccess { VMDK_NOACCESS, VMDK_RDONLY, VMDK_RW } VmdkAccess;

/* A line of the descriptor that names a part of the disk. */
typedef struct VmdkExtent {
    VmdkAccess access;
    uint64_t sectors, offset; /* of the disk; of the file, sectors */
    char *type;               /* owned */
    char *name;               /* owned, or NULL */
    size_t at;                /* of the line in the descriptor */
} VmdkExtent;

typedef struct VmdkText {
    char *text;          /* owned, as it stands in the file */
    char *type;          /* owned; createType */
    char *parent;        /* owned; parentFileNameHint, or NULL */
    uint64_t parent_at;  /* of its line */
    uint32_t cid, parent_cid;
    GArray *extents;     /* owned, VmdkExtent */
    bool noted;          /* has VMDK_NOTE */
} VmdkText;

/* Offsets in the header of a sparse extent. */
enum {
    SP_MAGIC = 0, SP_VERSION = 4, SP_FLAGS = 8, SP_CAPACITY = 12, SP_GRAIN = 20, SP_TEXT = 28,
    SP_TEXT_SIZE = 36, SP_GTES = 44, SP_RGD = 48, SP_GD = 56, SP_OVERHEAD = 64, SP_NEWLINES = 73,
    SP_COMPRESS = 77,
};

typedef struct BlkVmdk {
    BlockMap map;
    VmdkText text;
    uint64_t text_at;     /* in the file, bytes */
    uint64_t text_max;    /* bytes there are for it; 0: the file is the descriptor */
    GPtrArray *files;     /* owned; BlkFile of extents */
    DynLib *zlib;         /* owned, or NULL; streamOptimized */
    bool base_changes;    /* the note stands for what happens now, not for a merge cut short */
    bool has_parent;      /* one is open: */
    uint32_t parent_cid;  /* its CID when it was opened */
    int (*uncompress)(uint8_t *, unsigned long *, const uint8_t *, unsigned long);
    uint8_t *packed;      /* owned */
} BlkVmdk;

/* vmdk_text.c */

/* Parse @text of the file @path, whose first byte is at @base. Free @ret in every case. */
bool vmdk_text_parse(const char *text, const char *path, uint64_t base, VmdkText *ret,
                     GError **error);
void vmdk_text_clear(VmdkText *t);
/* @text with another value for @key, "" for a line that goes; transfer full. */
char *vmdk_text_replace(const char *text, const char *key, const char *value);
/* @text with the note as its last line, or without it; transfer full. */
char *vmdk_text_note(const char *text, bool noted);
/* Whether @name of an extent stays in the folder of its image. */
bool vmdk_name_ok(const char *name);

/* vmdk_image.c: slots of the driver, and the hook that gives a written image a new id */
bool vmdk_create(const BlkCreate *c, GError **error);
bool vmdk_check(BlkNode *n, bool repair, BlkReport *r, GError **error);
bool vmdk_resize(BlkNode *n, uint64_t size, bool shrink, GError **error);
bool vmdk_set_base(BlkNode *n, const BlkBaseInfo *base, GError **error);
bool vmdk_make_empty(BlkNode *n, GError **error);
void vmdk_describe(BlkNode *n, GPtrArray *facts);
bool vmdk_base_changes(BlkNode *n, int64_t until_s, GError **error);
int vmdk_touched(BlockMap *m);
extern const BlkCreateOpt vmdk_create_opts[];

#endif
