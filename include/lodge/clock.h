/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CLOCK_H
#define LODGE_CLOCK_H

/*
 * The only sources of time. A LodgeClock is the guest's time: it starts at 0, counts
 * nanoseconds, stands still while the machine is paused, and can be driven by hand in tests.
 * A TimerQueue fires callbacks on such a clock; an IoThread owns one and sleeps until its next
 * deadline, a test runs it by timer_queue_advance().
 */

#include <stdbool.h>
#include <stdint.h>

typedef struct LodgeClock LodgeClock;
typedef struct TimerQueue TimerQueue;
typedef struct LodgeTimer LodgeTimer;

typedef void (*TimerFn)(void *opaque);

#define TIMER_NEVER INT64_MAX

/* CLOCK_MONOTONIC of the host in ns: for measuring, never for what a guest sees. */
int64_t clock_host_ns(void);

/* A clock that runs with the host's; transfer full. */
LodgeClock *lodge_clock_new(void);
/* A clock that moves by clock_advance() only; wall time starts at @wall_ns since the epoch. */
LodgeClock *lodge_clock_new_manual(int64_t wall_ns);
void lodge_clock_free(LodgeClock *c);

/* Guest time in ns, >= 0, never falls. Context: any thread, no lock needed. */
int64_t clock_now_ns(LodgeClock *c);
/* Wall time in ns since 1970-01-01 UTC, as the guest's RTC should see it. */
int64_t clock_wall_ns(LodgeClock *c);
/* When @guest_ns comes, in CLOCK_MONOTONIC ns; TIMER_NEVER while the clock stands still. */
int64_t clock_to_host_ns(LodgeClock *c, int64_t guest_ns);
/* Shift wall time by @ns from now on (--rtc EPOCH). */
void clock_set_wall_offset(LodgeClock *c, int64_t ns);
/* Stop and continue guest time, waking the queues that sleep on it; idempotent. Context: main
 * thread, vCPUs parked. */
void clock_pause(LodgeClock *c);
void clock_resume(LodgeClock *c);
/* Manual clocks only: move forward by @ns >= 0. */
void clock_advance(LodgeClock *c, int64_t ns);

/**
 * timer_queue_new() - Make a queue of timers on @c
 * @c:      borrowed, outlives the queue
 * @wake:   called when the earliest deadline moved forward, from the arming thread, with no
 *          lock above LOCK_RANK_QUEUE held, and when the clock goes on; must not look at the
 *          clock; NULL where somebody polls timer_queue_next()
 * Return:  transfer full.
 */
TimerQueue *timer_queue_new(LodgeClock *c, void (*wake)(void *opaque), void *opaque);
void timer_queue_free(TimerQueue *q);
LodgeClock *timer_queue_clock(TimerQueue *q);
/* Earliest deadline in guest ns, or TIMER_NEVER. */
int64_t timer_queue_next(TimerQueue *q);
/* Fire what is due. Context: the queue's thread, no lock held; callbacks run unlocked. */
void timer_queue_run(TimerQueue *q);
/* Tests, manual clocks: move by @ns, stopping at each deadline on the way to fire it. */
void timer_queue_advance(TimerQueue *q, int64_t ns);

/**
 * timer_new() - Make a timer, not armed
 * @fn: runs on the queue's thread with no lock held. It may come once after timer_cancel()
 *      from another thread returned, so it re-checks its own state under the device's lock.
 * Return: transfer full; timer_free() waits for a running callback, so never call it from one,
 *      nor with a lock that the callback takes.
 */
LodgeTimer *timer_new(TimerQueue *q, TimerFn fn, void *opaque);
void timer_free(LodgeTimer *t);
/* Fire at guest time @deadline_ns (past: at once, but never from inside this call); moves an
 * armed timer. Context: any thread, locks below LOCK_RANK_QUEUE may be held. */
void timer_arm(LodgeTimer *t, int64_t deadline_ns);
void timer_cancel(LodgeTimer *t);
/* Deadline, or TIMER_NEVER when not armed. */
int64_t timer_deadline(LodgeTimer *t);

/* @a * @b / @c in 128 bits, for ticks and ns; @c > 0, the result must fit. */
static inline uint64_t muldiv64(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((unsigned __int128)a * b / c);
}

#endif
