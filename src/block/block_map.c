/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The data path of images with one table of blocks: VHD, VDI, VMDK.
 *
 * A request is split into runs that have one source: the file, the base, zeros. Runs whose table
 * entry is in memory go down at once from the IoThread, at most BLK_CHILDREN under way. What needs
 * a table from the disk or a new block goes to the node's worker, one piece at a time:
 *
 *   new block   takes the end of the file; gets what the base has around the write (without sector
 *               bits) and the data; then its entry is set in memory
 *   sector bits set after the data is in the file (VHD, where a block may be part ours, part below)
 *   flush       settle(): what lies at the file's end or counts blocks; then meta_cache.c: a sync
 *               of the data, bitmaps, a sync, tables, a sync
 *
 * A block's place is never changed nor used again while the image is open, so a request that goes
 * to the file needs no lock against the worker. A process that is killed leaves at worst blocks
 * that no entry speaks of; the next new block takes their place, cleared.
 *
 * DISCARD is as ZERO: sectors that are here become a hole, those of the base are hidden.
 *
 * Threads: submit and completions on the IoThread, the functions named store_*, map_* on the
 * worker, or on main at rest.
 *
 * Invariants: (1) data of a block is in the file before its entry or bit is set in memory, and on
 * the disk before it is set there. (2) An entry counts only if its block lies wholly between
 * lowest and limit. (3) end, limit and eof change under the lock of meta. (4) A request is either
 * with the worker or stepped by the IoThread, never both.
 */
#include <errno.h>
#include <string.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "block_map.h"

#define SECTOR ((uint64_t)BLK_SECTOR)
#define BITS_PER_SECTOR (BLK_SECTOR * 8u)
#define ENTRY_BYTES 4u
#define CHUNK ((size_t)64 << 10) /* copied at once */
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

static MapState *state_of(BlkReq *req)
{
    return (MapState *)req->scratch;
}

static BlkReq *req_of(BlkWork *w)
{
    return (BlkReq *)((uint8_t *)w - offsetof(BlkReq, scratch));
}

static bool is_write(const BlkReq *req)
{
    return req->op == BLK_WRITE || req->op == BLK_DISCARD || req->op == BLK_ZERO;
}

static BlkFile *file_of(const BlockMap *m)
{
    return (BlkFile *)m->node.file;
}

/* It is only looked at, without its base: nobody knows what is there. */
static bool base_missing(const BlockMap *m)
{
    return m->node.ref.path && !m->node.base;
}

static void step(BlockMap *m, BlkReq *req);

/* ---- the table ---- */

uint64_t block_map_span(const BlockMap *m)
{
    return (uint64_t)m->lead + m->block;
}

/* Offset of entry @index in the file, in copy @copy of the table; 0: that piece is not there. */
static uint64_t entry_at(const BlockMap *m, uint64_t index, unsigned copy)
{
    if (!m->per_table)
        return m->table + index * ENTRY_BYTES;
    uint64_t sector = m->dir[copy][index / m->per_table];
    return sector ? sector * SECTOR + index % m->per_table * ENTRY_BYTES : 0;
}

static uint32_t load_raw(const BlockMap *m, const uint8_t *p)
{
    return m->big_endian ? load_be32(p) : load_le32(p);
}

BlockKind block_map_decode(const BlockMap *m, uint32_t raw, uint64_t *ret_offset)
{
    if (raw == m->none)
        return BLOCK_BELOW;
    if (m->has_zero && raw == m->zero)
        return BLOCK_ZERO;
    *ret_offset = m->origin + (uint64_t)raw * m->unit;
    uint64_t span = m->unpack ? SECTOR : block_map_span(m); /* a packed block has its own length */
    bool in_table = !m->per_table && ranges_overlap(*ret_offset, span, m->table,
                                                    m->entries * ENTRY_BYTES);
    return *ret_offset < m->lowest || in_table || !range_within(*ret_offset, span, m->limit)
               ? BLOCK_BAD /* keeps (2) */
               : BLOCK_DATA;
}

static bool bit_at(const uint8_t *bits, uint32_t i)
{
    return bits[i / 8] >> (7 - i % 8) & 1;
}

/* Bits from @i below @end that are as bit @i. */
static uint32_t bit_run(const uint8_t *bits, uint32_t i, uint32_t end)
{
    bool set = bit_at(bits, i);
    uint32_t at = i + 1;

    while (at < end) {
        if (at % 8 == 0 && end - at >= 8 && bits[at / 8] == (set ? 0xff : 0))
            at += 8;
        else if (bit_at(bits, at) == set)
            at++;
        else
            break;
    }
    return at - i;
}

static void find_plain(const BlockMap *m, uint64_t pos, uint64_t len, Run *run)
{
    unsigned lo = 0, hi = m->n_plain;

    while (hi - lo > 1) {
        unsigned mid = lo + (hi - lo) / 2;
        if (m->plain[mid].start <= pos)
            lo = mid;
        else
            hi = mid;
    }
    const BlockExtent *e = &m->plain[lo];
    uint64_t in = pos - e->start;
    *run = (Run){.kind = e->file ? BLOCK_DATA : BLOCK_ZERO, .file = e->file,
                 .offset = e->offset + in, .len = MIN(len, e->len - in)};
}

/* The block at @offset holds [@in, + run->len): narrow @run to sectors that have one source. */
static void find_bits(BlockMap *m, uint64_t offset, uint32_t in, Run *run)
{
    uint32_t bit = in / BLK_SECTOR, first = bit / BITS_PER_SECTOR * BITS_PER_SECTOR;
    uint64_t at = offset + first / 8;
    const uint8_t *bits = blk_meta_peek(m->meta, at);

    if (!bits) {
        run->kind = BLOCK_MISS;
        run->offset = at;
        return;
    }
    uint32_t end = MIN(BITS_PER_SECTOR, bit - first + (uint32_t)(run->len / BLK_SECTOR));
    if (!bit_at(bits, bit - first))
        run->kind = BLOCK_BELOW;
    run->len = (uint64_t)bit_run(bits, bit - first, end) * BLK_SECTOR;
}

/* What holds @pos, at most @len bytes. Context: the lock of meta is held, where there is a meta. */
static void find_locked(BlockMap *m, uint64_t pos, uint64_t len, Run *run)
{
    if (m->plain) {
        find_plain(m, pos, len, run);
        return;
    }
    uint64_t index = pos / m->block, at = entry_at(m, index, 0);
    uint32_t in = pos % m->block;
    len = MIN(len, RUN_MAX);
    *run = (Run){.kind = BLOCK_BELOW, .file = file_of(m), .len = MIN(len, m->block - in)};
    if (!at)
        return;
    uint64_t sector = align_down(at, SECTOR), place;
    const uint8_t *p = blk_meta_peek(m->meta, sector);
    if (!p) {
        run->kind = BLOCK_MISS;
        run->offset = sector;
        return;
    }
    unsigned i = (at - sector) / ENTRY_BYTES;
    uint32_t raw = load_raw(m, p + i * ENTRY_BYTES);
    run->kind = block_map_decode(m, raw, &place);
    if (run->kind == BLOCK_BAD) {
        run->offset = at;
        return;
    }
    bool data = run->kind == BLOCK_DATA;
    if (data) {
        run->offset = place + (m->unpack ? 0 : m->lead + in);
        if (m->sector_bits)
            find_bits(m, place, in, run);
    }
    /* Go on over entries of this sector that say the same, or of blocks that lie in a row. */
    uint32_t stride = data ? m->block / m->unit : 0;
    if (data && (m->unpack || m->lead))
        return;
    while (run->len < len && ++i < BLK_SECTOR / ENTRY_BYTES && ++index < m->entries &&
           (!m->per_table || index % m->per_table)) {
        raw += stride;
        if (load_raw(m, p + i * ENTRY_BYTES) != raw ||
            block_map_decode(m, raw, &place) != run->kind)
            break;
        run->len = MIN(len, run->len + m->block);
    }
}

static void find(BlockMap *m, uint64_t pos, uint64_t len, Run *run)
{
    if (m->meta)
        blk_meta_lock(m->meta);
    find_locked(m, pos, len, run);
    if (m->meta)
        blk_meta_unlock(m->meta);
}

/* ---- worker ---- */

static void warn_bad(BlockMap *m, uint64_t at)
{
    if (!atomic_exchange(&m->warned, true))
        lodge_warn("disk %s: '%s': %s at offset %" G_GUINT64_FORMAT
                   ": the block lies outside of the file; its sectors cannot be used",
                   m->node.name, file_of(m)->path, m->field, at);
}

/* As find(), loading what it takes. */
static int map_find(BlockMap *m, uint64_t pos, uint64_t len, Run *run)
{
    find(m, pos, len, run);
    while (run->kind == BLOCK_MISS) {
        int err = blk_meta_load(m->meta, run->offset);
        if (err)
            return err;
        find(m, pos, len, run);
    }
    if (run->kind == BLOCK_BAD) {
        warn_bad(m, run->offset);
        return EIO;
    }
    return 0;
}

static int read_entry(BlockMap *m, uint64_t index, unsigned copy, uint32_t *ret_raw)
{
    uint64_t at = entry_at(m, index, copy);
    uint8_t raw[ENTRY_BYTES];
    int err = at ? blk_meta_read(m->meta, at, raw, sizeof raw) : 0;

    if (!err)
        *ret_raw = at ? load_raw(m, raw) : m->none;
    return err;
}

int block_map_entry(BlockMap *m, uint64_t index, uint32_t *ret_raw)
{
    return read_entry(m, index, 0, ret_raw);
}

int block_map_entry_copy(BlockMap *m, uint64_t index, uint32_t *ret_raw)
{
    return read_entry(m, index, 1, ret_raw);
}

int block_map_set_entry(BlockMap *m, uint64_t index, uint32_t raw)
{
    uint8_t bytes[ENTRY_BYTES];
    int err = 0;

    if (m->big_endian)
        store_be32(bytes, raw);
    else
        store_le32(bytes, raw);
    for (unsigned copy = 0; !err && copy < (m->dir[1] ? 2 : 1); copy++) {
        uint64_t at = entry_at(m, index, copy);
        err = at ? blk_meta_write(m->meta, at, bytes, sizeof bytes, RANK_TABLE) : EIO;
    }
    return err;
}

/* Where a block that may not begin before @offset does, so that an entry can point to it. */
static uint64_t next_place(const BlockMap *m, uint64_t offset)
{
    uint64_t step = m->align ? m->align : m->unit;

    return m->origin + (offset - m->origin + step - 1) / step * step;
}

int block_map_ready(BlockMap *m)
{
    uint64_t end = m->floor, offset;
    int err = 0;

    if (m->ready)
        return 0;
    for (uint64_t i = 0; !err && i < m->entries; i++) {
        uint32_t raw;
        err = block_map_entry(m, i, &raw);
        if (!err && block_map_decode(m, raw, &offset) == BLOCK_DATA)
            end = MAX(end, offset + block_map_span(m));
    }
    if (err)
        return err;
    blk_meta_lock(m->meta);
    m->end = next_place(m, end);
    m->ready = true;
    blk_meta_unlock(m->meta);
    return 0;
}

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
        err = blk_file_zero_at(file_of(m), m->end, MIN(span, m->eof - m->end));
    if (!err && m->end + span > m->eof) {
        err = blk_file_truncate(file_of(m), m->end + span);
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
    m->end = next_place(m, m->end + block_map_span(m));
    m->limit = MAX(m->limit, m->end);
    blk_meta_unlock(m->meta);
    return block_map_set_entry(m, index, raw);
}

static bool all_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
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
        if (!err && !all_zero(buf, part))
            err = blk_file_write_at(file_of(m), buf, part, offset + at);
    }
    return err;
}

/* Write the part of @req that belongs to [@pos, + @len) to @offset of the file. */
static int map_write(BlockMap *m, const BlkReq *req, uint64_t pos, uint64_t len, uint64_t offset)
{
    int err = 0;

    if (req->op != BLK_WRITE)
        return blk_file_zero_at(file_of(m), offset, len);
    if (req->niov == 1)
        return blk_file_write_at(file_of(m),
                                 (uint8_t *)req->iov->iov_base + (pos - req->offset), len, offset);
    g_autofree uint8_t *buf = g_try_malloc(MIN(CHUNK, len));
    if (!buf)
        return ENOMEM;
    for (uint64_t at = 0; !err && at < len; at += CHUNK) {
        size_t part = MIN(CHUNK, len - at);
        iov_gather(req->iov, req->niov, pos + at - req->offset, buf, part);
        err = blk_file_write_at(file_of(m), buf, part, offset + at);
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

/* Whether a DISCARD or ZERO of @run has nothing to do. */
static bool is_zero_already(const BlockMap *m, const Run *run, uint64_t pos)
{
    return run->kind == BLOCK_ZERO ||
           (run->kind == BLOCK_BELOW && !base_missing(m) && !blk_base_part(&m->node, pos, run->len));
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
    int err = map_find(m, s->pos, len, &run);
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
    if (!atomic_exchange(&m->moved, false))
        return 0;
    int err = m->settle ? m->settle(m) : 0;
    if (err)
        atomic_store(&m->moved, true);
    return err;
}

int block_map_flush(BlockMap *m)
{
    if (!m->meta)
        return blk_file_sync(file_of(m));
    int err = settle(m);
    return err ? err : blk_meta_flush(m->meta);
}

static int work_run(BlkNode *n, BlkWork *w)
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
            return store(m, req, s);
        err = m->touched ? m->touched(m) : 0;
        m->touch_done = !err;
        return err;
    }
    err = map_find(m, s->pos, req->offset + req->len - s->pos, &run);
    if (err)
        return err;
    s->run_kind = run.kind;
    s->run_offset = run.offset;
    s->run_len = MIN(run.len, RUN_MAX);
    s->answer = ANSWER_RUN;
    return run.kind == BLOCK_DATA && m->unpack && req->op == BLK_READ ? unpack(m, req, s, &run)
                                                                      : 0;
}

/* ---- requests ---- */

static void work_done(BlkNode *n, BlkWork *w, int err)
{
    BlockMap *m = (BlockMap *)n;
    BlkReq *req = req_of(w);
    MapState *s = state_of(req);

    s->working = false;
    if (is_write(req) && !s->flushing && !err && s->answer == ANSWER_NONE)
        m->was_touched = true;
    if (err && !s->err)
        s->err = (int16_t)err;
    if ((req->op == BLK_FLUSH || s->flushing) && !s->outstanding) {
        blk_complete(req, s->err);
        return;
    }
    step(m, req);
}

static void to_worker(BlockMap *m, BlkReq *req)
{
    MapState *s = state_of(req);

    s->working = true; /* keeps (4) */
    s->answer = ANSWER_NONE;
    s->work.run = work_run;
    s->work.done = work_done;
    blk_work(&m->node, &s->work);
}

static void flush_step(BlockMap *m, BlkReq *req);

static void child_done(BlkReq *parent, const BlkChildAnswer *a)
{
    BlockMap *m = (BlockMap *)parent->node;
    MapState *s = state_of(parent);

    s->outstanding--;
    if (a->err && !s->err)
        s->err = (int16_t)a->err;
    if (a->op == BLK_STATUS && !a->err) {
        /* The file knows of holes in what is ours; where it lies is told for the file itself. */
        parent->status = a->status == BLK_ST_DATA ? BLK_ST_DATA : BLK_ST_ZERO;
        parent->status_len = MIN(a->status_len, s->run_len);
        parent->status_offset = a->below == m->node.file ? a->status_offset : BLK_NO_OFFSET;
    }
    if (s->working)
        return;
    if (parent->op == BLK_FLUSH || s->flushing)
        flush_step(m, parent);
    else
        step(m, parent);
}

static void send(BlockMap *m, BlkReq *req, BlkOp op, BlkNode *below, uint64_t offset, uint64_t len)
{
    MapState *s = state_of(req);
    BlkChildPart part = {.op = op, .below = below, .pos = s->pos, .len = len, .offset = offset};

    s->outstanding++;
    if (!blk_child_start(&m->children, req, &part, child_done)) {
        s->outstanding--;
        s->err = ENOMEM;
    }
}

/* Files of the image, one by one; those of a fixed one may be many. */
static void flush_step(BlockMap *m, BlkReq *req)
{
    MapState *s = state_of(req);

    if (!s->flushing)
        s->pos = 0;
    s->flushing = true;
    if (m->node.read_only) {
        blk_complete(req, s->err);
        return;
    }
    if (m->meta && (atomic_load(&m->moved) || blk_meta_dirty(m->meta))) {
        to_worker(m, req);
        return;
    }
    /* pos 0 is the image's own file, then come the extents in others. */
    while (!s->err && s->outstanding < BLK_CHILDREN && s->pos <= m->n_plain) {
        BlkFile *f = s->pos ? m->plain[s->pos - 1].file : file_of(m);
        if (f && (s->pos == 0 || f != file_of(m)))
            send(m, req, BLK_FLUSH, &f->node, 0, 0);
        s->pos++;
    }
    if (!s->outstanding)
        blk_complete(req, s->err);
}

/* Send on, or do, what @run says of s->pos. */
static void take_run(BlockMap *m, BlkReq *req, const Run *run)
{
    MapState *s = state_of(req);
    uint64_t part = 0;

    if (run->kind == BLOCK_DATA) {
        send(m, req, req->op, &run->file->node, run->offset, run->len);
    } else if (req->op == BLK_WRITE || (run->kind == BLOCK_BELOW && base_missing(m))) {
        s->err = EIO; /* an extent that is zeros for ever */
    } else if (req->op == BLK_READ) {
        if (run->kind == BLOCK_BELOW)
            part = blk_base_part(&m->node, s->pos, run->len);
        if (part)
            send(m, req, BLK_READ, m->node.base, s->pos, part);
        iov_zero(req->iov, req->niov, s->pos - req->offset + part, run->len - part);
    }
    s->pos += run->len;
}

/* What holds s->pos, from the worker's answer or from memory. False: the worker has to look. */
static bool next_run(BlockMap *m, BlkReq *req, Run *run)
{
    MapState *s = state_of(req);
    bool answered = s->answer == ANSWER_RUN;

    if (answered)
        *run = (Run){.kind = s->run_kind, .file = file_of(m), .offset = s->run_offset,
                     .len = s->run_len};
    else
        find(m, s->pos, req->offset + req->len - s->pos, run);
    s->answer = ANSWER_NONE;
    if (run->kind == BLOCK_DATA)
        return req->op != BLK_READ || !m->unpack;
    if (run->kind == BLOCK_MISS || run->kind == BLOCK_BAD)
        return false;
    return !is_write(req) || m->plain ||
           (req->op != BLK_WRITE && is_zero_already(m, run, s->pos));
}

static void status_step(BlockMap *m, BlkReq *req)
{
    MapState *s = state_of(req);
    Run run;

    if (s->err || s->pos != req->offset) {
        blk_complete(req, s->err);
        return;
    }
    if (!next_run(m, req, &run)) {
        to_worker(m, req);
        return;
    }
    s->pos = req->offset + req->len; /* once is enough */
    s->run_len = MIN(run.len, RUN_MAX);
    if (run.kind == BLOCK_DATA && m->plain) {
        BlkChildPart part = {.op = BLK_STATUS, .below = &run.file->node, .pos = req->offset,
                             .len = s->run_len, .offset = run.offset};
        s->outstanding++;
        if (blk_child_start(&m->children, req, &part, child_done))
            return;
        s->outstanding--;
        s->err = ENOMEM;
    }
    req->status_len = s->run_len;
    req->status = run.kind == BLOCK_DATA   ? BLK_ST_DATA
                  : run.kind == BLOCK_ZERO ? BLK_ST_ZERO
                                           : BLK_ST_BELOW;
    req->status_offset = run.kind == BLOCK_DATA && !m->unpack ? run.offset : BLK_NO_OFFSET;
    blk_complete(req, s->err);
}

static void step(BlockMap *m, BlkReq *req)
{
    MapState *s = state_of(req);
    uint64_t end = req->offset + req->len;

    if (req->op == BLK_STATUS) {
        status_step(m, req);
        return;
    }
    if (s->answer == ANSWER_STORED && !s->err)
        s->pos += s->run_len;
    if (s->answer == ANSWER_STORED)
        s->answer = ANSWER_NONE;
    while (!s->err && s->pos < end && s->outstanding < BLK_CHILDREN) {
        Run run;
        if ((is_write(req) && !m->was_touched) || !next_run(m, req, &run)) {
            to_worker(m, req);
            return;
        }
        take_run(m, req, &run);
    }
    if (s->outstanding)
        return;
    if (!s->err && is_write(req) && req->fua)
        flush_step(m, req);
    else
        blk_complete(req, s->err);
}

void block_map_submit(BlkNode *n, BlkReq *req)
{
    BlockMap *m = (BlockMap *)n;
    MapState *s = state_of(req);

    memset(req->scratch, 0, sizeof req->scratch);
    s->pos = req->offset;
    if (req->op == BLK_FLUSH)
        flush_step(m, req);
    else
        step(m, req);
}

void block_map_limits(BlkNode *n, BlkLimits *l)
{
    BlockMap *m = (BlockMap *)n;

    l->size = align_up(m->size, BLK_SECTOR);
    l->discard_max = n->read_only ? 0 : BLK_DISCARD_MAX;
    l->align = BLK_SECTOR;
    l->block = 4096;
    l->max_iov = BLK_MAX_IOV;
    l->read_only = n->read_only;
}

/* ---- life ---- */

static bool check_geometry(BlockMap *m, GError **error)
{
    const char *path = file_of(m)->path;
    uint64_t eof = file_of(m)->size;

    if (m->entries == 0 || m->entries > BLOCK_MAP_ENTRIES_MAX ||
        m->size > m->entries * m->block)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': %s of %" G_GUINT64_FORMAT " entries: does not fit a disk of %"
                          G_GUINT64_FORMAT " bytes",
                          path, m->field, m->entries, m->size);
    if (!m->per_table && m->table % BLK_SECTOR)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': %s at offset %" G_GUINT64_FORMAT ": is not at a sector", path,
                          m->field, m->table);
    if (!m->per_table && !range_within(m->table, m->entries * ENTRY_BYTES, eof))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': %s at offset %" G_GUINT64_FORMAT
                          ": reaches past the end of the file at %" G_GUINT64_FORMAT,
                          path, m->field, m->table, eof);
    for (uint64_t i = 0; m->per_table && i * m->per_table < m->entries; i++)
        for (unsigned copy = 0; copy < 2 && m->dir[copy]; copy++)
            if (!range_within((uint64_t)m->dir[copy][i] * SECTOR,
                              (uint64_t)m->per_table * ENTRY_BYTES, eof))
                return lodge_fail(error, LODGE_ERROR_IMAGE,
                                  "'%s': %s, entry %" G_GUINT64_FORMAT
                                  ": a table at offset %" G_GUINT64_FORMAT
                                  " past the end of the file at %" G_GUINT64_FORMAT,
                                  path, m->field, i, (uint64_t)m->dir[copy][i] * SECTOR, eof);
    return true;
}

static void set_eof(BlockMap *m, uint64_t eof)
{
    m->eof = eof;
    /* A last block may be cut off: it ends in zeros, and new ones begin behind the whole of it. */
    m->limit = m->sector_bits ? eof : eof + block_map_span(m) - 1;
}

bool block_map_init(BlockMap *m, const BlkOpenHow *how, GError **error)
{
    BlkFile *f = file_of(m);

    bool odd = m->origin % 4096 || m->lead % 4096 || m->block % 4096 ||
               (m->align ? m->align : m->unit) % 4096;
    for (unsigned i = 0; i < m->n_plain; i++)
        odd = odd || (m->plain[i].offset - m->plain[i].start) % 4096;
    if (how->cache == BLK_CACHE_NONE && odd)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': its data is not aligned to 4096 bytes; leave cache=none out",
                          f->path);
    if (m->plain)
        return true;
    if (!check_geometry(m, error))
        return false;
    m->meta_bytes = how->meta_bytes;
    m->meta = blk_meta_new(f, BLK_SECTOR, how->meta_bytes, RANKS);
    set_eof(m, f->size);
    return true;
}

int block_map_rescan(BlockMap *m)
{
    uint64_t len;
    int err = blk_file_length(file_of(m), &len);

    if (err)
        return err;
    blk_meta_free(m->meta);
    m->meta = blk_meta_new(file_of(m), BLK_SECTOR, m->meta_bytes, RANKS);
    set_eof(m, len);
    m->ready = false;
    m->unpacked_index = 0;
    return block_map_ready(m);
}

void block_map_close(BlkNode *n)
{
    BlockMap *m = (BlockMap *)n;

    if (m->meta && (atomic_load(&m->moved) || blk_meta_dirty(m->meta))) {
        int err = block_map_flush(m);
        if (err)
            lodge_warn("disk %s: '%s': cannot write its tables: %s; some of its last writes are "
                       "lost",
                       n->name, file_of(m)->path, g_strerror(err));
    }
    blk_meta_free(m->meta);
    blk_children_free(&m->children);
    g_free(m->plain);
    g_free(m->dir[0]);
    g_free(m->dir[1]);
    g_free(m->unpacked);
}
