/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BLOCK_MAP_H
#define LODGE_BLOCK_MAP_H

/*
 * Images whose disk is cut into blocks of one size, each found by one 32-bit entry of a table, with
 * new blocks at the end of the file: what VHD, VDI and VMDK have in common. A driver's node begins
 * with a BlockMap, which its open() describes; its submit slot is block_map_submit().
 */

#include "child.h"

#define BLOCK_MAP_ENTRIES_MAX ((uint64_t)1 << 25) /* 2 TiB in blocks of 64 KiB */
#define BLOCK_MAP_BLOCK_MAX ((uint32_t)256 << 20)
#define BLOCK_MAP_PER_TABLE_MAX 512u

/* A part of the disk that lies as it is in a file: fixed images. */
typedef struct BlockExtent {
    uint64_t start, len; /* of the disk, bytes; extents are in order, without gaps */
    BlkFile *file;       /* borrowed; NULL: zeros */
    uint64_t offset;     /* in the file */
} BlockExtent;

typedef struct BlockMap BlockMap;

struct BlockMap {
    BlkNode node;
    /* Set by the driver's open(), changed at rest only. */
    uint64_t size;      /* of the disk, bytes */
    BlockExtent *plain; /* owned; the disk is these and has no table; NULL: it has one */
    unsigned n_plain;
    uint32_t block;     /* bytes of disk in a block; a power of two */
    uint32_t lead;      /* bytes of a block in the file before its data; multiple of 512 */
    bool sector_bits;   /* the lead is a bitmap, most significant bit first, of the sectors that are
                         * here; the others come from below */
    bool big_endian;    /* entries are */
    uint64_t entries;   /* at most BLOCK_MAP_ENTRIES_MAX */
    uint64_t table;     /* of one piece: its offset, a multiple of 512 */
    uint32_t *dir[2];   /* owned; of pieces of per_table entries: their sectors, and those of the
                         * copies or NULL; then table is not used. 0: that piece is not there */
    uint32_t per_table;
    uint64_t origin;    /* a block lies at origin + entry * unit; a multiple of 512 */
    uint32_t unit;
    uint32_t align;     /* new blocks begin at origin plus a multiple of this; 0: of unit */
    uint32_t none;      /* entry of a block that is not here */
    uint32_t zero;      /* entry of a block of zeros, where has_zero */
    bool has_zero;
    uint64_t lowest;    /* offset in the file below which there is no block */
    uint64_t floor;     /* below which no new block may begin */
    uint32_t tail;      /* bytes that belong behind the last block */
    const char *field;  /* borrowed; of messages: "block allocation table" */
    uint64_t meta_bytes;
    /* Hooks, on the worker or at rest; 0 or errno. NULL: nothing to do. */
    int (*settle)(BlockMap *m);  /* end has moved; write the tail, before the tables are written */
    int (*touched)(BlockMap *m); /* before the first write since the image was opened */
    /* Read the packed block at @offset of the file; NULL: blocks lie there as they are. */
    int (*unpack)(BlockMap *m, uint64_t index, uint64_t offset, uint8_t *buf);

    /* Of block_map.c. Worker, or at rest; what lookups read changes under the lock of meta: */
    BlkMeta *meta;      /* owned */
    uint64_t end;       /* where the next block goes; known once ready */
    uint64_t eof;       /* length of the file */
    uint64_t limit;     /* no block reaches beyond this */
    bool ready;         /* end is known */
    bool touch_done;
    atomic_bool moved;  /* the end, since settle() */
    uint8_t *unpacked;  /* owned; the block unpacked_index - 1 */
    uint64_t unpacked_index;
    /* IoThread only */
    bool was_touched;
    atomic_bool warned;
    BlkChildren children;
};

/* What @index's entry says; of a block its offset with the lead. */
typedef enum BlockKind { BLOCK_MISS, BLOCK_BAD, BLOCK_BELOW, BLOCK_ZERO, BLOCK_DATA } BlockKind;

/* ---- block_map.c ---- */

/**
 * block_map_init() - Check the description that open() made, and make the cache
 * Return: false with LODGE_ERROR_IMAGE: tables that lie past the end, sizes that do not fit.
 */
bool block_map_init(BlockMap *m, const BlkOpenHow *how, GError **error);
void block_map_submit(BlkNode *n, BlkReq *req);
void block_map_limits(BlkNode *n, BlkLimits *l);
/* Writes back and frees what this part owns. */
void block_map_close(BlkNode *n);
/* BlkDriver.settle */
int block_map_settle(BlkNode *n);
/* Write everything back. Worker, or at rest. 0 or errno. */
int block_map_flush(BlockMap *m);
/* The driver has changed tables or the file: forget what is cached, find the end again. At rest,
 * nothing dirty. 0 or errno. */
int block_map_rescan(BlockMap *m);

/* Entry @index, raw. At rest. 0 or errno. */
int block_map_entry(BlockMap *m, uint64_t index, uint32_t *ret_raw);
/* What the table's second copy says of it. */
int block_map_entry_copy(BlockMap *m, uint64_t index, uint32_t *ret_raw);
int block_map_set_entry(BlockMap *m, uint64_t index, uint32_t raw);
/* Bytes of a block in the file. */
uint64_t block_map_span(const BlockMap *m);
BlockKind block_map_decode(const BlockMap *m, uint32_t raw, uint64_t *ret_offset);
/* End of all that is in use; makes ready for new blocks. Worker, or at rest. 0 or errno. */
int block_map_ready(BlockMap *m);

/* ---- block_map_image.c: whole images; at rest ---- */

bool block_map_check(BlockMap *m, bool repair, BlkReport *r, GError **error);
/* Forget all blocks and give the file back what they took. */
bool block_map_make_empty(BlkNode *n, GError **error);
/* Whether no block is here, so that any base fits. At rest. 0 or errno. */
int block_map_is_empty(BlockMap *m, bool *ret_empty);
/* Cut off what lies behind the last block; the tables are written. 0 or errno. */
int block_map_give_back(BlockMap *m);
/* Before the disk gets shorter: drop what lies behind @size, so that it reads as zeros if the disk
 * grows again. */
bool block_map_cut(BlockMap *m, uint64_t size, GError **error);
void block_map_describe(BlockMap *m, GPtrArray *facts);
/* A new random UUID, version 4, and its text; @id is in the order of the text. */
void block_uuid_new(uint8_t id[16]);
char *block_uuid_text(const uint8_t id[16]);

#endif
