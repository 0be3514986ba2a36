/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pieces of a disk were changed: a bit for each, of a size that bounds the whole to 1 MiB.
 *
 * A change is noted when it is done, before its submitter hears so; who copies takes the bit first
 * and reads then. So a piece that is read while it changes is noted again, and what is not noted at
 * rest has been copied as it is.
 *
 * Threads: any; the words are atomic.
 */
#include <stdatomic.h>

#include "lodge/num.h"

#include "block_int.h"

#define PIECE_MIN ((uint64_t)64 << 10)
#define PIECES_MAX ((uint64_t)1 << 23)
#define WORD_BITS 64u

struct BlkDirty {
    uint64_t size, piece; /* bytes; piece is a power of two */
    uint64_t n;           /* pieces */
    atomic_uint_fast64_t words[];
};

BlkDirty *blk_dirty_new(uint64_t size)
{
    uint64_t piece = PIECE_MIN;

    while ((size + piece - 1) / piece > PIECES_MAX)
        piece *= 2;
    uint64_t n = (size + piece - 1) / piece, words = (n + WORD_BITS - 1) / WORD_BITS;
    BlkDirty *d = g_malloc0(sizeof *d + words * sizeof d->words[0]);
    d->size = size;
    d->piece = piece;
    d->n = n;
    blk_dirty_set(d, 0, size);
    return d;
}

void blk_dirty_free(BlkDirty *d)
{
    g_free(d);
}

void blk_dirty_set(BlkDirty *d, uint64_t offset, uint64_t len)
{
    if (!len || offset >= d->size)
        return;
    uint64_t first = offset / d->piece, end = MIN(d->n, (offset + len - 1) / d->piece + 1);

    for (uint64_t w = first / WORD_BITS; w * WORD_BITS < end; w++) {
        uint64_t mask = UINT64_MAX;
        if (w == first / WORD_BITS)
            mask &= UINT64_MAX << (first % WORD_BITS);
        if ((w + 1) * WORD_BITS > end)
            mask &= UINT64_MAX >> (WORD_BITS - end % WORD_BITS);
        /* Pairs with take_bit(): who takes it reads what was written before. */
        atomic_fetch_or_explicit(&d->words[w], mask, memory_order_seq_cst);
    }
}

static bool take_bit(BlkDirty *d, uint64_t i)
{
    uint64_t mask = (uint64_t)1 << (i % WORD_BITS);

    return atomic_fetch_and_explicit(&d->words[i / WORD_BITS], ~mask, memory_order_seq_cst) & mask;
}

bool blk_dirty_take(BlkDirty *d, uint64_t *at, uint64_t most, uint64_t *ret_from,
                    uint64_t *ret_len)
{
    uint64_t i = *at / d->piece, pieces = MAX(1, most / d->piece), n = 0;

    while (i < d->n && !take_bit(d, i)) {
        bool skip = i % WORD_BITS == 0 && !atomic_load(&d->words[i / WORD_BITS]);
        i += skip ? WORD_BITS : 1;
    }
    if (i >= d->n)
        return false;
    for (n = 1; n < pieces && i + n < d->n && take_bit(d, i + n);)
        n++;
    *ret_from = i * d->piece;
    *ret_len = MIN(n * d->piece, d->size - *ret_from);
    *at = *ret_from + n * d->piece;
    return true;
}

uint64_t blk_dirty_bytes(BlkDirty *d)
{
    uint64_t bits = 0;

    for (uint64_t w = 0; w * WORD_BITS < d->n; w++)
        bits += (unsigned)__builtin_popcountll(atomic_load(&d->words[w]));
    return MIN(bits * d->piece, d->size);
}
