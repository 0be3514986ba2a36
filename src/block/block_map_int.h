/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BLOCK_MAP_INT_H
#define LODGE_BLOCK_MAP_INT_H

/* What the parts of the data path with one table of blocks share: requests (block_map.c), new
 * blocks (block_map_store.c), the table and the node's life (block_map_table.c). */

#include "block_map.h"

#define RUN_MAX ((uint64_t)1 << 30)

enum { RANK_BITS, RANK_TABLE, RANKS };

/* What is done on @len bytes from some position on. */
typedef struct Run {
    BlockKind kind;
    BlkFile *file;   /* DATA */
    uint64_t offset; /* DATA: in the file; MISS: of what is to be loaded; BAD: of the entry */
    uint64_t len;
} Run;

typedef enum Answer { ANSWER_NONE, ANSWER_RUN, ANSWER_STORED } Answer;

/* In BlkReq.scratch of a request that this layer has. */
typedef struct MapState {
    BlkWork work;
    uint64_t pos;         /* next to start; FLUSH: next extent */
    uint64_t run_offset;  /* the worker's answer, for the run at pos */
    uint32_t run_len;
    uint8_t run_kind, answer;
    bool working;         /* the worker has it */
    bool flushing;        /* FUA: the data is through */
    uint16_t outstanding; /* children */
    int16_t err;
} MapState;

_Static_assert(sizeof(MapState) <= sizeof(((BlkReq *)0)->scratch), "fits");
_Static_assert(offsetof(MapState, work) == 0, "req_of() leans on it");

static inline MapState *state_of(BlkReq *req)
{
    return (MapState *)req->scratch;
}

static inline BlkReq *req_of(BlkWork *w)
{
    return (BlkReq *)((uint8_t *)w - offsetof(BlkReq, scratch));
}

static inline bool is_write(const BlkReq *req)
{
    return req->op == BLK_WRITE || req->op == BLK_DISCARD || req->op == BLK_ZERO;
}

static inline BlkFile *block_map_file(const BlockMap *m)
{
    return (BlkFile *)m->node.file;
}

/* It is only looked at, without its base: nobody knows what is there. */
static inline bool base_missing(const BlockMap *m)
{
    return m->node.ref.path && !m->node.base;
}

/* Whether a DISCARD or ZERO of @run has nothing to do. */
static inline bool is_zero_already(const BlockMap *m, const Run *run, uint64_t pos)
{
    return run->kind == BLOCK_ZERO ||
           (run->kind == BLOCK_BELOW && !base_missing(m) &&
            !blk_base_part(&m->node, pos, run->len));
}

/* block_map_table.c */

/* What holds @pos, at most @len bytes, from what is in memory. Any thread. */
void block_map_find(BlockMap *m, uint64_t pos, uint64_t len, Run *run);
/* The same, loading what it takes. Worker. 0 or errno; a bad entry is EIO. */
int block_map_look(BlockMap *m, uint64_t pos, uint64_t len, Run *run);
/* Where a block that may not begin before @offset does, so that an entry can point to it. */
uint64_t block_map_place(const BlockMap *m, uint64_t offset);

/* block_map_store.c */

/* What the worker does for the request that @w is in. */
int block_map_work(BlkNode *n, BlkWork *w);

#endif
