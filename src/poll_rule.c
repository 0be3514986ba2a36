/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long an event loop waits for work that shows in memory before it sleeps.
 *
 * A wait spares the guest a kick and the loop a wake-up, and costs the CPU on which it is spent, which
 * the host's other end of the work may need: on a host of two CPUs a guest that spins and a loop that
 * waits leave none. So there is a window for each thing that the loop may have done last. A frame that
 * was brought to a guest is answered by it in a moment; one that was sent for it is answered by others,
 * who have to run first. A disk's next request follows the one before. Each window grows when such
 * work ended a short sleep, shrinks after a long one, and is shut for HOLD_OFF sleeps when
 * waiting was MISSES_MAX times in a row in vain or too long to pay, so a loop burns at most a bounded
 * share of a CPU and nothing when it is idle. The largest window is longer than it takes a guest to
 * come back from a kick where guest kernel mode is emulated, 60 us and more: a guest that has begun to
 * kick for each request must be waited for once.
 *
 * Threads: the loop's. No clock: times are the caller's.
 */
#include "poll_rule.h"

#include <glib.h>

#define WINDOW_FIRST_NS 8000
#define WINDOW_MAX_NS 200000
#define PAYS_NS 50000  /* waiting for longer costs more than a kick */
#define NEAR_NS 150000 /* a sleep that waiting could have spared, but for what waking costs */
#define MISSES_MAX 8u
#define HOLD_OFF 64u

void poll_rule_hit(PollRule *r, int64_t took_ns)
{
    PollWindow *w = &r->window[r->after];

    w->misses = took_ns < PAYS_NS ? 0 : w->misses + 1;
}

bool poll_rule_weary(const PollRule *r)
{
    return r->window[r->after].misses >= MISSES_MAX;
}

void poll_rule_miss(PollRule *r)
{
    PollWindow *w = &r->window[r->after];

    if (++w->misses >= MISSES_MAX)
        *w = (PollWindow){.hold_off = HOLD_OFF};
}

void poll_rule_slept(PollRule *r, int64_t slept_ns, bool found)
{
    PollWindow *w = &r->window[r->after];

    if (w->hold_off) {
        w->hold_off--;
    } else if (slept_ns > NEAR_NS) {
        w->ns = w->ns / 2 < WINDOW_FIRST_NS ? 0 : w->ns / 2;
        w->misses = 0;
    } else if (found) {
        w->ns = CLAMP(w->ns * 2, WINDOW_FIRST_NS, WINDOW_MAX_NS);
    }
}
