/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tables of an image format in memory: blocks of one size. Thrown out is the oldest that was not
 * used since it last came to the end of the line (a second chance, so that a look-up need not put
 * the line in order). What was found is found again without the hash table.
 *
 * Changes are collected. They are written by blk_meta_flush(), or when no clean block is left to
 * throw out: first a sync, so that the data that the tables refer to is there, then the blocks rank
 * by rank with a sync behind each. So at every instant a table on the disk refers only to what is
 * on the disk: a format gives a table the higher rank, the nearer it is to the root (reference
 * counts 0, tables of clusters 1, the table of tables 2).
 *
 * Threads: lookups on any thread between lock and unlock; everything that changes the cache on the
 * worker, or on main at rest, which are never both at work. The lock is a leaf and is not held over
 * host calls: only the one thread that changes the cache waits there.
 *
 * Invariants: (1) a block's bytes and the table change under the lock. (2) A dirty block leaves
 * only by being written or by blk_meta_forget(). (3) At most max blocks, but while a flush fails.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/num.h"

#include "block_int.h"

#define META_MIN_BLOCKS 4u
#define META_RANKS 4u
#define META_BLOCK_MAX ((uint32_t)2 << 20)
#define META_FOUND 256u /* blocks of 4 KiB in the usual cache */

typedef struct Block {
    uint64_t offset;
    struct Block *newer, *older; /* in the order of use */
    bool dirty;
    bool used; /* since it was put in order */
    uint8_t rank;
    uint8_t data[];
} Block;

struct BlkMeta {
    BlkFile *file; /* borrowed, outlives us */
    uint32_t block;
    unsigned shift; /* log2 of block */
    unsigned max, ranks;
    GMutex mutex;
    /* guarded by mutex */
    GHashTable *blocks; /* offset -> Block, owned */
    Block *newest, *oldest;
    Block *found[META_FOUND]; /* by offset: the last one that was looked for; or NULL */
    unsigned dirty; /* blocks */
};

BlkMeta *blk_meta_new(BlkFile *f, uint32_t block, uint64_t bytes, unsigned ranks)
{
    BlkMeta *m = g_new0(BlkMeta, 1);

    g_assert(is_power_of_two(block) && block >= BLK_SECTOR && block <= META_BLOCK_MAX);
    g_assert(ranks >= 1 && ranks <= META_RANKS);
    m->file = f;
    m->block = block;
    m->shift = (unsigned)__builtin_ctz(block);
    m->max = MAX(META_MIN_BLOCKS, MIN(bytes, BLK_META_MAX) / block);
    m->ranks = ranks;
    m->blocks = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, g_free);
    g_mutex_init(&m->mutex);
    return m;
}

void blk_meta_free(BlkMeta *m)
{
    if (!m)
        return;
    g_hash_table_destroy(m->blocks);
    g_mutex_clear(&m->mutex);
    g_free(m);
}

void blk_meta_lock(BlkMeta *m)
{
    g_mutex_lock(&m->mutex);
}

void blk_meta_unlock(BlkMeta *m)
{
    g_mutex_unlock(&m->mutex);
}

static void unlink_block(BlkMeta *m, Block *b)
{
    if (b->newer)
        b->newer->older = b->older;
    else
        m->newest = b->older;
    if (b->older)
        b->older->newer = b->newer;
    else
        m->oldest = b->newer;
}

static void link_newest(BlkMeta *m, Block *b)
{
    b->newer = NULL;
    b->older = m->newest;
    if (m->newest)
        m->newest->newer = b;
    else
        m->oldest = b;
    m->newest = b;
}

static Block **found_slot(BlkMeta *m, uint64_t offset)
{
    return &m->found[offset >> m->shift & (META_FOUND - 1)];
}

/* Context: lock held. */
static Block *find_locked(BlkMeta *m, uint64_t offset)
{
    Block **slot = found_slot(m, offset), *b = *slot;

    if (!b || b->offset != offset) {
        b = g_hash_table_lookup(m->blocks, &offset);
        if (!b)
            return NULL;
        *slot = b;
    }
    b->used = true;
    return b;
}

const uint8_t *blk_meta_peek(BlkMeta *m, uint64_t offset)
{
    Block *b = find_locked(m, offset);

    return b ? b->data : NULL;
}

static void drop_locked(BlkMeta *m, Block *b)
{
    Block **slot = found_slot(m, b->offset);

    unlink_block(m, b);
    if (*slot == b)
        *slot = NULL;
    if (b->dirty)
        m->dirty--;
    g_hash_table_remove(m->blocks, &b->offset);
}

/* Throw out a clean block, if the cache is full. False: all are dirty. */
static bool make_room_locked(BlkMeta *m)
{
    unsigned left = 2 * g_hash_table_size(m->blocks); /* each twice: it may have been used */

    if (g_hash_table_size(m->blocks) < m->max)
        return true;
    for (Block *b = m->oldest, *next; b && left; b = next, left--) {
        next = b->newer;
        if (b->dirty)
            continue;
        if (!b->used) {
            drop_locked(m, b);
            return true;
        }
        b->used = false;
        unlink_block(m, b);
        link_newest(m, b);
        if (!next) /* it was the last one */
            next = b;
    }
    return false;
}

/* A new block in the cache, from the file or with zeros; it is not there yet. */
static int insert(BlkMeta *m, uint64_t offset, bool from_file, Block **ret)
{
    Block *b = g_try_malloc(sizeof *b + m->block);
    int err = 0;

    if (!b)
        return ENOMEM;
    b->offset = offset;
    b->dirty = b->used = false;
    b->rank = 0;
    if (from_file)
        err = blk_file_read_at(m->file, b->data, m->block, offset);
    else
        memset(b->data, 0, m->block);
    g_mutex_lock(&m->mutex);
    bool room = make_room_locked(m);
    g_mutex_unlock(&m->mutex);
    if (!err && !room)
        err = blk_meta_flush(m);
    if (err) {
        g_free(b);
        return err;
    }
    g_mutex_lock(&m->mutex);
    make_room_locked(m);
    link_newest(m, b);
    g_hash_table_insert(m->blocks, &b->offset, b);
    g_mutex_unlock(&m->mutex);
    *ret = b;
    return 0;
}

/* The block at @offset; it stays without the lock, as only the caller's thread throws any out. */
static int get(BlkMeta *m, uint64_t offset, Block **ret)
{
    g_mutex_lock(&m->mutex);
    *ret = find_locked(m, offset);
    g_mutex_unlock(&m->mutex);
    return *ret ? 0 : insert(m, offset, true, ret);
}

int blk_meta_load(BlkMeta *m, uint64_t offset)
{
    Block *b;

    return get(m, offset, &b);
}

int blk_meta_read(BlkMeta *m, uint64_t offset, void *buf, size_t len)
{
    uint8_t *to = buf;

    while (len) {
        uint64_t at = align_down(offset, m->block);
        size_t part = MIN(len, at + m->block - offset);
        Block *b;
        int err = get(m, at, &b);
        if (err)
            return err;
        memcpy(to, b->data + (offset - at), part);
        to += part;
        offset += part;
        len -= part;
    }
    return 0;
}

/* Context: lock held. */
static void taint_locked(BlkMeta *m, Block *b, unsigned rank)
{
    if (!b->dirty)
        m->dirty++;
    b->dirty = true;
    b->rank = rank;
}

int blk_meta_write(BlkMeta *m, uint64_t offset, const void *buf, size_t len, unsigned rank)
{
    const uint8_t *from = buf;

    g_assert(rank < m->ranks);
    while (len) {
        uint64_t at = align_down(offset, m->block);
        size_t part = MIN(len, at + m->block - offset);
        Block *b;
        int err = get(m, at, &b);
        if (err)
            return err;
        g_mutex_lock(&m->mutex);
        memcpy(b->data + (offset - at), from, part);
        taint_locked(m, b, rank);
        g_mutex_unlock(&m->mutex);
        from += part;
        offset += part;
        len -= part;
    }
    return 0;
}

int blk_meta_fresh(BlkMeta *m, uint64_t offset, unsigned rank)
{
    Block *b;
    int err = 0;

    g_assert(rank < m->ranks);
    g_mutex_lock(&m->mutex);
    b = find_locked(m, offset);
    g_mutex_unlock(&m->mutex);
    if (!b)
        err = insert(m, offset, false, &b);
    if (err)
        return err;
    g_mutex_lock(&m->mutex);
    memset(b->data, 0, m->block);
    taint_locked(m, b, rank);
    g_mutex_unlock(&m->mutex);
    return 0;
}

void blk_meta_forget(BlkMeta *m, uint64_t offset, uint64_t len)
{
    g_mutex_lock(&m->mutex);
    for (Block *b = m->oldest, *next; b; b = next) {
        next = b->newer;
        if (ranges_overlap(b->offset, m->block, offset, len))
            drop_locked(m, b);
    }
    g_mutex_unlock(&m->mutex);
}

static int by_offset(const void *a, const void *b)
{
    uint64_t x = (*(Block *const *)a)->offset, y = (*(Block *const *)b)->offset;

    return x < y ? -1 : x > y;
}

/* Write the dirty blocks of @rank in the order of the file. */
static int write_rank(BlkMeta *m, unsigned rank)
{
    g_autofree Block **list = NULL;
    unsigned n = 0;
    int err = 0;

    g_mutex_lock(&m->mutex);
    list = m->dirty ? g_try_new(Block *, m->dirty) : NULL;
    if (m->dirty && !list)
        err = ENOMEM;
    for (Block *b = m->oldest; list && b; b = b->newer)
        if (b->dirty && b->rank == rank)
            list[n++] = b;
    g_mutex_unlock(&m->mutex);
    if (err || !n)
        return err;
    qsort(list, n, sizeof *list, by_offset);
    for (unsigned i = 0; i < n && !err; i++) {
        err = blk_file_write_at(m->file, list[i]->data, m->block, list[i]->offset);
        if (err)
            break;
        g_mutex_lock(&m->mutex);
        list[i]->dirty = false;
        m->dirty--;
        g_mutex_unlock(&m->mutex);
    }
    /* A failed sync may have lost what was written: the blocks are dirty still. */
    int sync = blk_file_sync(m->file);
    if (sync) {
        g_mutex_lock(&m->mutex);
        for (unsigned i = 0; i < n; i++)
            taint_locked(m, list[i], rank);
        g_mutex_unlock(&m->mutex);
    }
    return err ? err : sync;
}

int blk_meta_flush(BlkMeta *m)
{
    int err = blk_file_sync(m->file);

    for (unsigned rank = 0; !err && rank < m->ranks; rank++)
        err = write_rank(m, rank);
    return err;
}

bool blk_meta_dirty(BlkMeta *m)
{
    g_mutex_lock(&m->mutex);
    bool dirty = m->dirty;
    g_mutex_unlock(&m->mutex);
    return dirty;
}
