/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_FILTER_PROGRAM_H
#define LODGE_NET_FILTER_PROGRAM_H

/* A compiled filter, for the files that make and run it. */

#include "filter.h"

typedef struct FilterCounter {
    uint64_t frames, bytes; /* atomic, relaxed */
} FilterCounter;

struct FilterProgram {
    /* Constant once compiled: */
    char *name;       /* owned */
    FilterRule *rule; /* owned */
    char **text;      /* owned, one for each rule, as written */
    unsigned *line;   /* owned; of each rule */
    unsigned rules;
    bool allow_in, allow_out; /* what no rule decides */
    bool antispoof;
    bool addresses; /* antispoof is about these, too: */
    unsigned ip4s, ip6s;
    uint8_t ip4[FILTER_ADDRS_MAX][4];
    uint8_t ip6[FILTER_ADDRS_MAX][16];
    /* Atomic: */
    FilterCounter *counter; /* owned: rules, then those of FILTER_BY_DEFAULT_IN and so on */
};

/* The counter of a verdict's by. */
static inline FilterCounter *filter_counter(const FilterProgram *p, unsigned by)
{
    return &p->counter[by < FILTER_RULES_MAX ? by : p->rules + by - FILTER_RULES_MAX];
}

#endif
