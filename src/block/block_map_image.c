/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images with one table of blocks as wholes: checking, emptying, cutting off, facts.
 *
 * A check reads every entry. An entry that points outside of the file is an error, mended by taking
 * the block away; two blocks that overlap are an error that is not mended, since nobody can tell
 * whose the data is; what lies behind the last block is a leak, mended by cutting the file.
 *
 * Threads: main, the node drained.
 */
#include <errno.h>
#include <stdlib.h>

#include "lodge/num.h"

#include "block_map_int.h"

static bool fail(const BlockMap *m, int err, const char *what, GError **error)
{
    return !err || lodge_fail_errno(error, err, "'%s': cannot %s", block_map_file(m)->path, what);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Offset of the block of a key, which is entry << 32 | index. */
static uint64_t place_of(const BlockMap *m, uint64_t key)
{
    return m->origin + (key >> 32) * m->unit;
}

static void check_overlaps(const BlockMap *m, uint64_t *keys, uint64_t n, BlkReport *r)
{
    uint64_t span = m->unpack ? BLK_SECTOR : block_map_span(m);

    qsort(keys, n, sizeof *keys, by_value);
    for (uint64_t i = 1; i < n; i++)
        if (place_of(m, keys[i]) < place_of(m, keys[i - 1]) + span)
            blk_report_add(r, BLK_FIND_ERROR, false,
                           "%s, entries %u and %u: their blocks overlap at %" G_GUINT64_FORMAT,
                           m->field, (uint32_t)keys[i - 1], (uint32_t)keys[i],
                           place_of(m, keys[i]));
}

/* The second copy of entry @index says the same, or nothing is lost by making it so. */
static bool check_copy(BlockMap *m, uint64_t index, uint32_t raw, bool repair, BlkReport *r,
                       int *ret_err)
{
    uint32_t copy;

    *ret_err = block_map_entry_copy(m, index, &copy);
    if (*ret_err || copy == raw)
        return !*ret_err;
    blk_report_add(r, BLK_FIND_LEAK, repair,
                   "%s, entry %" G_GUINT64_FORMAT ": is %u, in its copy %u", m->field, index, raw,
                   copy);
    *ret_err = repair ? block_map_set_entry(m, index, raw) : 0;
    return !*ret_err;
}

static bool check_entries(BlockMap *m, bool repair, BlkReport *r, GError **error)
{
    uint64_t used = 0, offset, room = m->unpack ? BLK_SECTOR : block_map_span(m);
    /* More blocks than the file can hold must overlap, and one such pair is told of. */
    uint64_t most = MIN(m->entries, m->limit / room + 2);
    g_autofree uint64_t *keys = g_try_new(uint64_t, most);

    if (!keys)
        return fail(m, ENOMEM, "check it", error);
    for (uint64_t i = 0; i < m->entries; i++) {
        uint32_t raw;
        int err = block_map_entry(m, i, &raw);
        if (err)
            return fail(m, err, "read its tables", error);
        if (m->dir[1] && !check_copy(m, i, raw, repair, r, &err))
            return fail(m, err, "mend its tables", error);
        BlockKind kind = block_map_decode(m, raw, &offset);
        if (kind == BLOCK_BAD) {
            blk_report_add(r, BLK_FIND_ERROR, repair,
                           "%s, entry %" G_GUINT64_FORMAT ": a block at %" G_GUINT64_FORMAT
                           ", outside of the file's %" G_GUINT64_FORMAT " bytes",
                           m->field, i, offset, m->eof);
            err = repair ? block_map_set_entry(m, i, m->none) : 0;
            if (err)
                return fail(m, err, "mend its tables", error);
        } else if (kind == BLOCK_DATA) {
            r->allocated++;
            if (used < most)
                keys[used++] = (uint64_t)raw << 32 | i;
        }
    }
    check_overlaps(m, keys, used, r);
    return true;
}

int block_map_is_empty(BlockMap *m, bool *ret_empty)
{
    int err = 0;

    *ret_empty = true;
    for (uint64_t i = 0; !err && *ret_empty && i < m->entries; i++) {
        uint32_t raw;
        err = block_map_entry(m, i, &raw);
        *ret_empty = !err && raw == m->none;
    }
    return err;
}

int block_map_give_back(BlockMap *m)
{
    int err = block_map_rescan(m);

    if (err)
        return err;
    atomic_store(&m->moved, true);
    return block_map_flush(m);
}

bool block_map_check(BlockMap *m, bool repair, BlkReport *r, GError **error)
{
    if (m->plain) {
        r->end = block_map_file(m)->size;
        return true;
    }
    r->total = (m->size + m->block - 1) / m->block;
    if (!check_entries(m, repair, r, error))
        return false;
    int err = repair ? block_map_flush(m) : 0;
    if (!err)
        err = block_map_rescan(m);
    if (err)
        return fail(m, err, "mend its tables", error);
    r->end = m->end + m->tail;
    if (m->unpack || m->eof <= r->end)
        return true;
    blk_report_add(r, BLK_FIND_LEAK, repair,
                   "file at %" G_GUINT64_FORMAT ": %" G_GUINT64_FORMAT
                   " bytes behind the last block are not in use",
                   m->end, m->eof - r->end);
    return !repair || fail(m, block_map_give_back(m), "give back what is not in use", error);
}

bool block_map_make_empty(BlkNode *n, GError **error)
{
    BlockMap *m = (BlockMap *)n;
    int err = 0;

    for (uint64_t i = 0; !err && i < m->entries; i++) {
        uint32_t raw;
        err = block_map_entry(m, i, &raw);
        if (!err && raw != m->none)
            err = block_map_set_entry(m, i, m->none);
    }
    /* What entries spoke of may go only when they are gone. */
    if (!err)
        err = block_map_flush(m);
    return fail(m, err ? err : block_map_give_back(m), "empty it", error);
}

bool block_map_cut(BlockMap *m, uint64_t size, GError **error)
{
    uint64_t keep = (size + m->block - 1) / m->block, offset;
    uint32_t in = size % m->block, raw;
    int err = 0;

    for (uint64_t i = keep; !err && i < m->entries; i++) {
        err = block_map_entry(m, i, &raw);
        if (!err && raw != m->none)
            err = block_map_set_entry(m, i, m->none);
    }
    if (!err && in)
        err = block_map_entry(m, keep - 1, &raw);
    if (!err && in && block_map_decode(m, raw, &offset) == BLOCK_DATA)
        err = blk_file_zero_at(block_map_file(m), offset + m->lead + in, m->block - in);
    if (!err)
        err = block_map_flush(m);
    return fail(m, err ? err : block_map_give_back(m), "cut its tables", error);
}

void block_map_describe(BlockMap *m, GPtrArray *facts)
{
    if (!m->plain)
        blk_fact_number(facts, "cluster-size", m->block);
}

void block_uuid_new(uint8_t id[16])
{
    for (unsigned i = 0; i < 16; i += 4)
        store_le32(id + i, g_random_int());
    id[6] = (id[6] & 0x0f) | 0x40; /* RFC 4122, section 4.4 */
    id[8] = (id[8] & 0x3f) | 0x80;
}

char *block_uuid_text(const uint8_t id[16])
{
    GString *s = g_string_new(NULL);

    for (unsigned i = 0; i < 16; i++)
        g_string_append_printf(s, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                               id[i]);
    return g_string_free(s, FALSE);
}
