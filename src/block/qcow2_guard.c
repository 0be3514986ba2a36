/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which clusters of a qcow2 image hold active L2 tables and blocks of reference counts, so that no
 * entry that points there is followed for data, and no table of the one kind for one of the other.
 * With the areas (header, L1 table, refcount table, snapshot table) that is all that a wrong entry
 * could destroy. Tables of snapshots are not among them: they are used by nobody until one is
 * applied, and then become active.
 *
 * A set of offsets with open addressing, at most half full; the kind stands in the low bits of an
 * offset. A table that is let go of stays in it until the next flush, before which nobody gets its
 * cluster.
 *
 * Corruption: a request that would change what a wrong entry points to is refused, and so is every
 * change after it, since the image can hold more of the kind; the header is marked (version 3), so
 * that nobody opens the image for writing before it was mended.
 *
 * Spec: the specification, "incompatible_features" (corrupt bit), "Cluster mapping".
 *
 * Threads: changed by the worker with meta locked; looked up with that lock held, or by the worker.
 */
#include <string.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "qcow2.h"

#define SLOTS_MIN_BITS 6u

static void put(uint64_t *slots, unsigned bits, unsigned cluster_bits, uint64_t at, unsigned kind)
{
    size_t mask = ((size_t)1 << bits) - 1;
    size_t i = (at >> cluster_bits) * UINT64_C(0x9e3779b97f4a7c15) >> (64 - bits);

    while (slots[i] && (slots[i] ^ at) >> cluster_bits)
        i = (i + 1) & mask;
    slots[i] |= at | kind;
}

unsigned qcow_guard_at(const BlkQcow *q, uint64_t at)
{
    if (!q->guard)
        return 0;
    size_t mask = ((size_t)1 << q->guard_bits) - 1;
    size_t i = (at >> q->h.cluster_bits) * UINT64_C(0x9e3779b97f4a7c15) >> (64 - q->guard_bits);
    for (; q->guard[i]; i = (i + 1) & mask)
        if (!((q->guard[i] ^ at) >> q->h.cluster_bits))
            return q->guard[i] & (QCOW_GUARD_L2 | QCOW_GUARD_REFS);
    return 0;
}

static bool can_hold(const BlkQcow *q, uint64_t at)
{
    return at && !(at & (q->cs - 1)) && at < QCOW_HOST_MAX;
}

bool qcow_guard_build(BlkQcow *q)
{
    uint32_t l1_n = q->l1 ? q->h.l1_size : 0, rt_n = q->rt ? q->rt_n : 0;
    unsigned bits = SLOTS_MIN_BITS;
    size_t n = 0;

    for (uint32_t i = 0; i < l1_n; i++)
        n += can_hold(q, q->l1[i] & QCOW_OFFSET_MASK);
    for (uint32_t i = 0; i < rt_n; i++)
        n += can_hold(q, q->rt[i] & QCOW_REF_OFFSET_MASK);
    while ((size_t)1 << bits < 4 * (n + 1))
        bits++;
    uint64_t *slots = g_try_new0(uint64_t, (size_t)1 << bits);
    if (!slots)
        return false;
    for (uint32_t i = 0; i < l1_n; i++)
        if (can_hold(q, q->l1[i] & QCOW_OFFSET_MASK))
            put(slots, bits, q->h.cluster_bits, q->l1[i] & QCOW_OFFSET_MASK, QCOW_GUARD_L2);
    for (uint32_t i = 0; i < rt_n; i++)
        if (can_hold(q, q->rt[i] & QCOW_REF_OFFSET_MASK))
            put(slots, bits, q->h.cluster_bits, q->rt[i] & QCOW_REF_OFFSET_MASK, QCOW_GUARD_REFS);
    blk_meta_lock(q->meta);
    g_free(q->guard);
    q->guard = slots;
    q->guard_bits = bits;
    q->guard_n = n;
    q->guard_old = false;
    blk_meta_unlock(q->meta);
    return true;
}

bool qcow_guard_room(BlkQcow *q)
{
    return (q->guard && q->guard_n < (size_t)1 << (q->guard_bits - 1)) || qcow_guard_build(q);
}

void qcow_guard_add_locked(BlkQcow *q, uint64_t at, unsigned kind)
{
    if (!can_hold(q, at))
        return;
    put(q->guard, q->guard_bits, q->h.cluster_bits, at, kind);
    q->guard_n++;
}

/* ---- corruption ---- */

void qcow_mark_corrupt(BlkQcow *q)
{
    if (q->writable && !atomic_exchange(&q->corrupt, true))
        lodge_warn("disk %s: '%s': is corrupt, and takes no writes from now on; end the machine, "
                   "then mend it (lodge image check --repair)", q->node.name, qcow_file(q)->path);
}

int qcow_write_mark(BlkQcow *q)
{
    return atomic_load(&q->corrupt)
               ? qcow_set_incompatible(q, q->h.incompatible | QCOW_INC_CORRUPT) : 0;
}

bool qcow_may_change(const BlkQcow *q, GError **error)
{
    return !atomic_load(&q->corrupt) ||
           lodge_fail(error, LODGE_ERROR_IMAGE,
                      "'%s': was found to be corrupt and takes no writes; mend it (lodge image "
                      "check --repair)", ((BlkFile *)q->node.file)->path);
}
