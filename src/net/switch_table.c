/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of addresses: sets of eight entries, found by a keyed hash, so that nobody who chooses
 * addresses can choose the set that they fall into. A full set learns nothing more until an entry
 * in it is too old; frames to what was not learnt are flooded, and nobody's entry is pushed out by
 * somebody else's flood of addresses. The memory is touched as sets come into use.
 *
 * Threads: the owner's. Invariant: a key stands in at most one entry of its set.
 */
#include "switch_table.h"

#include <sys/random.h>

#include "switch.h"

enum { WAYS = 8, SETS = SW_MACS_MAX / WAYS };

struct SwTable {
    uint64_t secret[2];
    SwMac entry[SETS][WAYS];
};

SwTable *sw_table_new(void)
{
    SwTable *t = g_new0(SwTable, 1);

    if (getrandom(t->secret, sizeof t->secret, GRND_NONBLOCK) != (ssize_t)sizeof t->secret)
        t->secret[0] = (uint64_t)g_get_monotonic_time() * 0x9e3779b97f4a7c15u;
    t->secret[1] |= 1;
    return t;
}

void sw_table_free(SwTable *t)
{
    g_free(t);
}

static unsigned set_of(const SwTable *t, uint64_t key)
{
    unsigned __int128 product = (unsigned __int128)(key ^ t->secret[0]) * t->secret[1];
    uint64_t mixed = (uint64_t)product ^ (uint64_t)(product >> 64);

    return (unsigned)((mixed * 0x9e3779b97f4a7c15u) >> 32) % SETS;
}

static bool too_old(const SwMac *e, uint32_t now_s, uint32_t age_s)
{
    return now_s - e->seen_s > age_s;
}

static void count_move(SwMac *e, uint32_t now_s)
{
    if (e->move_s != (uint8_t)now_s)
        e->moves = 0;
    e->move_s = (uint8_t)now_s;
    if (e->moves < UINT8_MAX)
        e->moves++;
}

SwLearn sw_table_learn(SwTable *t, uint64_t key, uint16_t port, uint32_t now_s, uint32_t age_s,
                       bool may_add, uint16_t *ret_old, unsigned *ret_moves)
{
    SwMac *set = t->entry[set_of(t, key)], *room = NULL;

    *ret_old = 0;
    *ret_moves = 0;
    for (unsigned i = 0; i < WAYS; i++) {
        SwMac *e = &set[i];

        if (e->key == key) {
            e->seen_s = now_s;
            if (e->port == port)
                return SW_LEARN_SEEN;
            *ret_old = e->port;
            count_move(e, now_s);
            *ret_moves = e->moves;
            e->port = port;
            return SW_LEARN_MOVED;
        }
        if (!room && (!e->key || too_old(e, now_s, age_s)))
            room = e;
    }
    if (!room || !may_add)
        return SW_LEARN_FULL;
    *ret_old = room->key ? room->port : 0;
    *room = (SwMac){.key = key, .seen_s = now_s, .port = port};
    return SW_LEARN_NEW;
}

uint16_t sw_table_find(const SwTable *t, uint64_t key, uint32_t now_s, uint32_t age_s)
{
    const SwMac *set = t->entry[set_of(t, key)];

    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].key == key)
            return too_old(&set[i], now_s, age_s) ? 0 : set[i].port;
    }
    return 0;
}

void sw_table_forget_port(SwTable *t, uint16_t port)
{
    for (unsigned i = 0; i < SETS * WAYS; i++) {
        SwMac *e = &t->entry[i / WAYS][i % WAYS];

        if (e->key && e->port == port)
            *e = (SwMac){0};
    }
}

void sw_table_forget(SwTable *t, const SwMac *e)
{
    t->entry[(e - t->entry[0]) / WAYS][(e - t->entry[0]) % WAYS] = (SwMac){0};
}

const SwMac *sw_table_next(const SwTable *t, unsigned *at)
{
    for (unsigned i = *at; i < SETS * WAYS; i++) {
        const SwMac *e = &t->entry[i / WAYS][i % WAYS];

        if (e->key) {
            *at = i + 1;
            return e;
        }
    }
    *at = SETS * WAYS;
    return NULL;
}
