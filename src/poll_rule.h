/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_POLL_RULE_H
#define LODGE_POLL_RULE_H

/* How long an event loop waits for work that shows in memory before it sleeps; see poll_rule.c. */

#include <stdbool.h>
#include <stdint.h>

/* What the loop did last, which says what comes next. */
typedef enum PollAfter {
    POLL_AFTER_LOOK,  /* work that a poll found: a guest's, mostly */
    POLL_AFTER_EVENT, /* what a descriptor told of: others', for the guest */
    POLL_AFTERS,
} PollAfter;

typedef struct PollWindow {
    int64_t ns; /* 0: shut */
    unsigned misses, hold_off;
} PollWindow;

/* All zero at first. The loop's thread only. */
typedef struct PollRule {
    PollWindow window[POLL_AFTERS];
    PollAfter after;
} PollRule;

static inline void poll_rule_did(PollRule *r, PollAfter what)
{
    r->after = what;
}
/* How long to wait now, ns; 0: sleep at once. */
static inline int64_t poll_rule_window(const PollRule *r)
{
    return r->window[r->after].ns;
}
/* Whether there is any waiting these days, and so no need of kicks while awake. */
static inline bool poll_rule_open(const PollRule *r)
{
    return r->window[POLL_AFTER_LOOK].ns || r->window[POLL_AFTER_EVENT].ns;
}
/* A wait of @took_ns found work. */
void poll_rule_hit(PollRule *r, int64_t took_ns);
/* A wait found nothing for as long as it may. */
void poll_rule_miss(PollRule *r);
/* Waited too often in vain, or for too long: no more of it. */
bool poll_rule_weary(const PollRule *r);
/* A sleep of @slept_ns ended; @found: by work that a poll found. */
void poll_rule_slept(PollRule *r, int64_t slept_ns, bool found);

#endif
