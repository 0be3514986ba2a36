/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of blocks of VHD, VDI and VMDK images: what an entry says, where the next block goes;
 * and the life of a node that has one. See block_map.c.
 *
 * Threads: block_map_find() on any, under the lock of meta; the rest on the worker, or on main at
 * rest.
 */
#include <errno.h>
#include <string.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "block_map_int.h"

#define SECTOR ((uint64_t)BLK_SECTOR)
#define BITS_PER_SECTOR (BLK_SECTOR * 8u)
#define ENTRY_BYTES 4u

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
    *run = (Run){.kind = BLOCK_BELOW, .file = block_map_file(m), .len = MIN(len, m->block - in)};
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

void block_map_find(BlockMap *m, uint64_t pos, uint64_t len, Run *run)
{
    if (m->meta)
        blk_meta_lock(m->meta);
    find_locked(m, pos, len, run);
    if (m->meta)
        blk_meta_unlock(m->meta);
}

/* ---- entries: worker, or at rest ---- */

static void warn_bad(BlockMap *m, uint64_t at)
{
    if (!atomic_exchange(&m->warned, true))
        lodge_warn("disk %s: '%s': %s at offset %" G_GUINT64_FORMAT
                   ": the block lies outside of the file; its sectors cannot be used",
                   m->node.name, block_map_file(m)->path, m->field, at);
}

int block_map_look(BlockMap *m, uint64_t pos, uint64_t len, Run *run)
{
    block_map_find(m, pos, len, run);
    while (run->kind == BLOCK_MISS) {
        int err = blk_meta_load(m->meta, run->offset);
        if (err)
            return err;
        block_map_find(m, pos, len, run);
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

uint64_t block_map_place(const BlockMap *m, uint64_t offset)
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
    m->end = block_map_place(m, end);
    m->ready = true;
    blk_meta_unlock(m->meta);
    return 0;
}

/* ---- life ---- */

static bool check_geometry(BlockMap *m, GError **error)
{
    const char *path = block_map_file(m)->path;
    uint64_t eof = block_map_file(m)->size;

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
    BlkFile *f = block_map_file(m);

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
    int err = blk_file_length(block_map_file(m), &len);

    if (err)
        return err;
    blk_meta_free(m->meta);
    m->meta = blk_meta_new(block_map_file(m), BLK_SECTOR, m->meta_bytes, RANKS);
    set_eof(m, len);
    m->ready = false;
    m->unpacked_index = 0;
    return block_map_ready(m);
}

int block_map_settle(BlkNode *n)
{
    BlockMap *m = (BlockMap *)n;

    return m->meta && (atomic_load(&m->moved) || blk_meta_dirty(m->meta)) ? block_map_flush(m) : 0;
}

void block_map_close(BlkNode *n)
{
    BlockMap *m = (BlockMap *)n;

    if (m->meta && (atomic_load(&m->moved) || blk_meta_dirty(m->meta))) {
        int err = block_map_flush(m);
        if (err)
            lodge_warn("disk %s: '%s': cannot write its tables: %s; some of its last writes are "
                       "lost",
                       n->name, block_map_file(m)->path, g_strerror(err));
    }
    blk_meta_free(m->meta);
    blk_children_free(&m->children);
    g_free(m->plain);
    g_free(m->dir[0]);
    g_free(m->dir[1]);
    g_free(m->unpacked);
}
