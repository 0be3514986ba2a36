/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SWITCH_TABLE_H
#define LODGE_SWITCH_TABLE_H

/* Which address is behind which port, for each VLAN: bounded, with ageing. */

#include <stdbool.h>
#include <stdint.h>

typedef struct SwTable SwTable;

typedef struct SwMac {
    uint64_t key;     /* address in the low 48 bits, VLAN above; 0: a free entry */
    uint32_t seen_s;  /* when a frame of it came last */
    uint16_t port;    /* 1 and up */
    uint8_t moves;    /* to another port, within the second move_s (its low 8 bits) */
    uint8_t move_s;
} SwMac;

SwTable *sw_table_new(void);
void sw_table_free(SwTable *t);

typedef enum SwLearn {
    SW_LEARN_SEEN,  /* known behind that port */
    SW_LEARN_NEW,
    SW_LEARN_MOVED, /* was behind another, *ret_old */
    SW_LEARN_FULL,  /* no room, or @may_add was false */
} SwLearn;
/* A frame of @key came from @port. An entry older than @age_s counts as free.
 * @ret_old: the port that an entry was taken from (moved, or too old), 0: none.
 * @ret_moves: how often it moved in this second */
SwLearn sw_table_learn(SwTable *t, uint64_t key, uint16_t port, uint32_t now_s, uint32_t age_s,
                       bool may_add, uint16_t *ret_old, unsigned *ret_moves);
/* The port that @key is behind; 0: not known. */
uint16_t sw_table_find(const SwTable *t, uint64_t key, uint32_t now_s, uint32_t age_s);
void sw_table_forget_port(SwTable *t, uint16_t port);
void sw_table_forget(SwTable *t, const SwMac *e); /* an entry of sw_table_next() */
/* The entries one by one, free ones left out: the first at or behind *@at, which moves on. NULL: no
 * more. */
const SwMac *sw_table_next(const SwTable *t, unsigned *at);

#endif
