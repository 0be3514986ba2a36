/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The worker's part of images with one table of blocks: new blocks, sectors that become ours,
 * packed blocks, writing back. Plain blocking code, one piece at a time. See block_map.c.
 *
 * Threads: the node's worker, or main at rest.
 */
#include <errno.h>
#include <string.h>

#include "lodge/num.h"

#include "block_map_int.h"

#define BITS_PER_SECTOR (BLK_SECTOR * 8u)
#define CHUNK ((size_t)64 << 10) /* copied at once */

/* Make the file hold a clear block at its end. It is not taken before map_publish(). */
static int map_reserve(BlockMap *m, uint64_t *ret_offset)
{
    uint64_t span = block_map_span(m);
    int err = block_map_ready(m);

    if (err)
        return err;
    uint64_t raw = (m->end - m->origin) / m->unit, top = UINT32_MAX - 2;
    if (raw > top || (m->has_zero && raw == m->zero) || raw == m->none ||
        !range_within(m->end, span, BLK_MAX_SIZE))
        return EFBIG;
    if (m->end < m->eof) /* a footer, or of a process that was killed */
        err = blk_file_zero_at(block_map_file(m), m->end, MIN(span, m->eof - m->end));
    if (!err && m->end + span > m->eof) {
        err = blk_file_truncate(block_map_file(m), m->end + span);
        if (!err) {
            blk_meta_lock(m->meta);
            m->eof = m->end + span;
            blk_meta_unlock(m->meta);
        }
    }
    *ret_offset = m->end;
    return err;
}

/* The block at the end is complete: let entry @index speak of it. */
static int map_publish(BlockMap *m, uint64_t index)
{
    uint32_t raw = (m->end - m->origin) / m->unit;

    atomic_store(&m->moved, true);
    blk_meta_lock(m->meta);
    m->end = block_map_place(m, m->end + block_map_span(m));
    m->limit = MAX(m->limit, m->end);
    blk_meta_unlock(m->meta);
    return block_map_set_entry(m, index, raw);
}

/* Copy [@pos, + @len) of the base to @offset of a cleared place in the file. */
static int map_copy_base(BlockMap *m, uint64_t pos, uint64_t len, uint64_t offset)
{
    int err = 0;

    len = MIN(len, pos < m->size ? m->size - pos : 0);
    len = blk_base_part(&m->node, pos, len);
    if (!len)
        return 0;
    g_autofree uint8_t *buf = g_try_malloc(CHUNK);
    if (!buf)
        return ENOMEM;
    for (uint64_t at = 0; !err && at < len; at += CHUNK) {
        size_t part = MIN(CHUNK, len - at);
        err = blk_pread(m->node.base, buf, pos + at, part);
        if (!err && !buffer_is_zero(buf, part))
            err = blk_file_write_at(block_map_file(m), buf, part, offset + at);
    }
    return err;
}

/* Write the part of @req that belongs to [@pos, + @len) to @offset of the file. */
static int map_write(BlockMap *m, const BlkReq *req, uint64_t pos, uint64_t len, uint64_t offset)
{
    int err = 0;

    if (req->op != BLK_WRITE)
        return blk_file_zero_at(block_map_file(m), offset, len);
    if (req->niov == 1)
        return blk_file_write_at(block_map_file(m),
                                 (uint8_t *)req->iov->iov_base + (pos - req->offset), len, offset);
    g_autofree uint8_t *buf = g_try_malloc(MIN(CHUNK, len));
    if (!buf)
        return ENOMEM;
    for (uint64_t at = 0; !err && at < len; at += CHUNK) {
        size_t part = MIN(CHUNK, len - at);
        iov_gather(req->iov, req->niov, pos + at - req->offset, buf, part);
        err = blk_file_write_at(block_map_file(m), buf, part, offset + at);
    }
    return err;
}

/* Set the bits of [@in, + @len) of the block at @offset. */
static int map_set_bits(BlockMap *m, uint64_t offset, uint32_t in, uint64_t len)
{
    uint32_t bit = in / BLK_SECTOR, end = bit + (uint32_t)(len / BLK_SECTOR);
    int err = 0;

    while (!err && bit < end) {
        uint32_t part = MIN(end - bit, BITS_PER_SECTOR - bit % BITS_PER_SECTOR);
        uint32_t lo = bit / 8, hi = (bit + part + 7) / 8;
        uint8_t bytes[BLK_SECTOR];
        err = blk_meta_read(m->meta, offset + lo, bytes, hi - lo);
        for (uint32_t i = bit; i < bit + part; i++)
            bytes[i / 8 - lo] |= 0x80u >> (i % 8);
        if (!err)
            err = blk_meta_write(m->meta, offset + lo, bytes, hi - lo, RANK_BITS);
        bit += part;
    }
    return err;
}

/* Put [@pos, + @len) of @req, inside one block, in a new one. */
static int store_new(BlockMap *m, const BlkReq *req, uint64_t pos, uint64_t len, bool below)
{
    uint32_t in = pos % m->block;
    uint64_t offset;
    int err = map_reserve(m, &offset);

    if (!err && below && !m->sector_bits)
        err = map_copy_base(m, pos - in, in, offset + m->lead);
    if (!err && below && !m->sector_bits)
        err = map_copy_base(m, pos + len, m->block - in - len, offset + m->lead + in + len);
    if (!err && req->op == BLK_WRITE) /* else it is zeros already */
        err = map_write(m, req, pos, len, offset + m->lead + in);
    for (uint32_t at = 0; !err && m->sector_bits && at < m->lead; at += BLK_SECTOR)
        err = blk_meta_fresh(m->meta, offset + at, RANK_BITS);
    /* Without a base all that is not written is zeros, which the block holds. */
    if (!err && m->sector_bits)
        err = m->node.base ? map_set_bits(m, offset, in, len)
                           : map_set_bits(m, offset, 0, m->block);
    return err ? err : map_publish(m, pos / m->block);
}

/* Zeros for [@pos, + @len), inside one block: whether an entry can say so. */
static bool can_store_zero(const BlockMap *m, uint64_t pos, uint64_t len)
{
    return m->has_zero && pos % m->block == 0 && (len == m->block || pos + len >= m->size);
}

/* The first part of what is left of a WRITE, DISCARD or ZERO. */
static int store(BlockMap *m, BlkReq *req, MapState *s)
{
    uint64_t len = req->offset + req->len - s->pos, offset;
    uint32_t raw, in;
    Run run;

    if (m->plain) /* was sent here for touched() only */
        return 0;
    int err = block_map_look(m, s->pos, len, &run);
    if (err)
        return err;
    s->run_kind = run.kind;
    s->run_offset = run.offset;
    s->run_len = run.len;
    s->answer = ANSWER_RUN;
    if (run.kind == BLOCK_BELOW && base_missing(m))
        return EIO;
    if (run.kind == BLOCK_DATA || (req->op != BLK_WRITE && is_zero_already(m, &run, s->pos)))
        return 0;
    in = s->pos % m->block;
    len = MIN(run.len, m->block - in);
    s->run_len = len;
    s->answer = ANSWER_STORED;
    if (req->op != BLK_WRITE && can_store_zero(m, s->pos, len))
        return block_map_set_entry(m, s->pos / m->block, m->zero);
    err = block_map_entry(m, s->pos / m->block, &raw);
    if (err)
        return err;
    if (block_map_decode(m, raw, &offset) != BLOCK_DATA)
        return store_new(m, req, s->pos, len, run.kind == BLOCK_BELOW);
    err = map_write(m, req, s->pos, len, offset + m->lead + in); /* sectors that are not here yet */
    return err ? err : map_set_bits(m, offset, in, len);
}

/* As much of what is left as is for the worker: a long write is many blocks. */
static int store_all(BlockMap *m, BlkReq *req, MapState *s)
{
    uint64_t start = s->pos, end = req->offset + req->len;
    int err;

    do {
        err = store(m, req, s);
        if (err || s->answer != ANSWER_STORED)
            break;
        s->pos += s->run_len;
    } while (s->pos < end && s->pos - start < RUN_MAX);
    if (!err && s->pos != start) { /* a run that came last is found again */
        s->answer = ANSWER_STORED;
        s->run_len = (uint32_t)(s->pos - start);
    }
    s->pos = start;
    return err;
}

/* The packed block that holds what is next of the READ @req. */
static int unpack(BlockMap *m, BlkReq *req, MapState *s, const Run *run)
{
    uint64_t index = s->pos / m->block;

    if (!m->unpacked && !(m->unpacked = g_try_malloc(m->block)))
        return ENOMEM;
    if (m->unpacked_index != index + 1) {
        m->unpacked_index = 0;
        int err = m->unpack(m, index, run->offset, m->unpacked);
        if (err)
            return err;
        m->unpacked_index = index + 1;
    }
    iov_scatter(req->iov, req->niov, s->pos - req->offset, m->unpacked + s->pos % m->block,
                run->len);
    s->answer = ANSWER_STORED;
    return 0;
}

static int settle(BlockMap *m)
{
    uint64_t end;

    if (!atomic_exchange(&m->moved, false))
        return 0;
    int err = block_map_ready(m);
    if (!err && m->settle)
        err = m->settle(m);
    end = m->end + m->tail;
    if (!err && m->eof > end) /* of a process that was killed */
        err = blk_file_truncate(block_map_file(m), end);
    if (err) {
        atomic_store(&m->moved, true);
        return err;
    }
    blk_meta_lock(m->meta);
    m->eof = end;
    blk_meta_unlock(m->meta);
    return 0;
}

int block_map_flush(BlockMap *m)
{
    if (!m->meta)
        return blk_file_sync(block_map_file(m));
    int err = settle(m);
    return err ? err : blk_meta_flush(m->meta);
}

int block_map_work(BlkNode *n, BlkWork *w)
{
    BlockMap *m = (BlockMap *)n;
    BlkReq *req = req_of(w);
    MapState *s = state_of(req);
    Run run;
    int err;

    if (req->op == BLK_FLUSH || s->flushing)
        return block_map_flush(m);
    if (is_write(req)) {
        if (m->touch_done)
            return store_all(m, req, s);
        err = m->touched ? m->touched(m) : 0;
        m->touch_done = !err;
        return err;
    }
    err = block_map_look(m, s->pos, req->offset + req->len - s->pos, &run);
    if (err)
        return err;
    s->run_kind = run.kind;
    s->run_offset = run.offset;
    s->run_len = MIN(run.len, RUN_MAX);
    s->answer = ANSWER_RUN;
    return run.kind == BLOCK_DATA && m->unpack && req->op == BLK_READ ? unpack(m, req, s, &run)
                                                                      : 0;
}
