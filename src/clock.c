/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest time and its timers.
 *
 * A clock is an offset to CLOCK_MONOTONIC, or frozen at a value (paused, or driven by hand). The
 * queue keeps its timers in a binary heap under a lock of rank QUEUE; a callback runs with that
 * lock dropped, so it may arm and cancel, and timer_free() waits for it.
 *
 * Threads: any thread arms; one thread runs the queue.
 */
#include <pthread.h>
#include <time.h>

#include <glib.h>

#include "lodge/clock.h"
#include "lodge/lock.h"
#include "lodge/num.h"

struct LodgeClock {
    pthread_mutex_t mutex; /* guards the fields; innermost, held for a few instructions */
    GPtrArray *queues;     /* TimerQueue that sleep on this clock, borrowed */
    bool manual, paused;
    int64_t offset_ns;      /* guest = host + offset while running */
    int64_t frozen_ns;      /* guest time while paused or manual */
    int64_t wall_offset_ns; /* wall = guest epoch shift */
    int64_t manual_wall_ns; /* wall time at guest time 0, manual clocks */
};

struct LodgeTimer {
    TimerQueue *queue; /* borrowed */
    TimerFn fn;
    void *opaque;
    int64_t deadline_ns; /* TIMER_NEVER: not in the heap */
    unsigned index;      /* in the heap */
};

struct TimerQueue {
    LodgeClock *clock; /* borrowed */
    void (*wake)(void *opaque);
    void *wake_opaque;
    LodgeLock lock;
    pthread_cond_t ran;     /* a callback ended */
    GPtrArray *heap;        /* LodgeTimer, earliest first */
    LodgeTimer *running;    /* whose callback is under way */
    pthread_t runner;
};

int64_t clock_host_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static int64_t host_wall_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

LodgeClock *lodge_clock_new(void)
{
    LodgeClock *c = g_new0(LodgeClock, 1);
    pthread_mutex_init(&c->mutex, NULL);
    c->queues = g_ptr_array_new();
    c->offset_ns = -clock_host_ns();
    return c;
}

LodgeClock *lodge_clock_new_manual(int64_t wall_ns)
{
    LodgeClock *c = lodge_clock_new();
    c->manual = true;
    c->manual_wall_ns = wall_ns;
    return c;
}

void lodge_clock_free(LodgeClock *c)
{
    if (!c)
        return;
    g_ptr_array_free(c->queues, TRUE);
    pthread_mutex_destroy(&c->mutex);
    g_free(c);
}

int64_t clock_now_ns(LodgeClock *c)
{
    pthread_mutex_lock(&c->mutex);
    int64_t now = c->manual || c->paused ? c->frozen_ns : clock_host_ns() + c->offset_ns;
    pthread_mutex_unlock(&c->mutex);
    return now;
}

int64_t clock_wall_ns(LodgeClock *c)
{
    pthread_mutex_lock(&c->mutex);
    int64_t wall = (c->manual ? c->manual_wall_ns + c->frozen_ns : host_wall_ns()) +
                   c->wall_offset_ns;
    pthread_mutex_unlock(&c->mutex);
    return wall;
}

int64_t clock_to_host_ns(LodgeClock *c, int64_t guest_ns)
{
    if (guest_ns == TIMER_NEVER)
        return TIMER_NEVER;
    pthread_mutex_lock(&c->mutex);
    int64_t host = TIMER_NEVER;
    if (!c->manual && !c->paused && __builtin_sub_overflow(guest_ns, c->offset_ns, &host))
        host = TIMER_NEVER;
    pthread_mutex_unlock(&c->mutex);
    return host;
}

void clock_set_wall_offset(LodgeClock *c, int64_t ns)
{
    pthread_mutex_lock(&c->mutex);
    c->wall_offset_ns = ns;
    pthread_mutex_unlock(&c->mutex);
}

void clock_pause(LodgeClock *c)
{
    pthread_mutex_lock(&c->mutex);
    if (!c->manual && !c->paused) {
        c->frozen_ns = clock_host_ns() + c->offset_ns;
        c->paused = true;
    }
    pthread_mutex_unlock(&c->mutex);
}

void clock_resume(LodgeClock *c)
{
    pthread_mutex_lock(&c->mutex);
    if (!c->manual && c->paused) {
        c->offset_ns = c->frozen_ns - clock_host_ns();
        c->paused = false;
        /* A loop that fell asleep on the paused clock has no deadline. */
        for (unsigned i = 0; i < c->queues->len; i++) {
            TimerQueue *q = g_ptr_array_index(c->queues, i);
            if (q->wake)
                q->wake(q->wake_opaque);
        }
    }
    pthread_mutex_unlock(&c->mutex);
}

void clock_advance(LodgeClock *c, int64_t ns)
{
    g_assert(c->manual && ns >= 0);
    pthread_mutex_lock(&c->mutex);
    c->frozen_ns += ns;
    pthread_mutex_unlock(&c->mutex);
}

TimerQueue *timer_queue_new(LodgeClock *c, void (*wake)(void *opaque), void *opaque)
{
    TimerQueue *q = g_new0(TimerQueue, 1);
    q->clock = c;
    q->wake = wake;
    q->wake_opaque = opaque;
    lodge_lock_init(&q->lock, LOCK_RANK_QUEUE, "timers");
    pthread_cond_init(&q->ran, NULL);
    q->heap = g_ptr_array_new();
    pthread_mutex_lock(&c->mutex);
    g_ptr_array_add(c->queues, q);
    pthread_mutex_unlock(&c->mutex);
    return q;
}

void timer_queue_free(TimerQueue *q)
{
    if (!q)
        return;
    pthread_mutex_lock(&q->clock->mutex);
    g_ptr_array_remove(q->clock->queues, q);
    pthread_mutex_unlock(&q->clock->mutex);
    g_ptr_array_free(q->heap, TRUE);
    pthread_cond_destroy(&q->ran);
    lodge_lock_clear(&q->lock);
    g_free(q);
}

LodgeClock *timer_queue_clock(TimerQueue *q)
{
    return q->clock;
}

static LodgeTimer *heap_at(TimerQueue *q, unsigned i)
{
    return g_ptr_array_index(q->heap, i);
}

static void heap_put(TimerQueue *q, unsigned i, LodgeTimer *t)
{
    q->heap->pdata[i] = t;
    t->index = i;
}

/* Move the timer at @i to where its deadline belongs. */
static void heap_settle(TimerQueue *q, unsigned i)
{
    LodgeTimer *t = heap_at(q, i);
    while (i > 0 && heap_at(q, (i - 1) / 2)->deadline_ns > t->deadline_ns) {
        heap_put(q, i, heap_at(q, (i - 1) / 2));
        i = (i - 1) / 2;
    }
    for (;;) {
        unsigned child = 2 * i + 1;
        if (child >= q->heap->len)
            break;
        if (child + 1 < q->heap->len &&
            heap_at(q, child + 1)->deadline_ns < heap_at(q, child)->deadline_ns)
            child++;
        if (heap_at(q, child)->deadline_ns >= t->deadline_ns)
            break;
        heap_put(q, i, heap_at(q, child));
        i = child;
    }
    heap_put(q, i, t);
}

static void heap_remove(TimerQueue *q, LodgeTimer *t)
{
    unsigned i = t->index;
    LodgeTimer *last = heap_at(q, q->heap->len - 1);
    g_ptr_array_set_size(q->heap, (gint)q->heap->len - 1);
    t->deadline_ns = TIMER_NEVER;
    if (last != t) {
        heap_put(q, i, last);
        heap_settle(q, i);
    }
}

int64_t timer_queue_next(TimerQueue *q)
{
    lodge_lock(&q->lock);
    int64_t next = q->heap->len ? heap_at(q, 0)->deadline_ns : TIMER_NEVER;
    lodge_unlock(&q->lock);
    return next;
}

void timer_queue_run(TimerQueue *q)
{
    lock_assert_none();
    int64_t now = clock_now_ns(q->clock);
    lodge_lock(&q->lock);
    q->runner = pthread_self();
    /* @now is read once: a callback that re-arms for the past cannot keep us here. */
    unsigned budget = q->heap->len;
    while (budget-- && q->heap->len && heap_at(q, 0)->deadline_ns <= now) {
        LodgeTimer *t = heap_at(q, 0);
        heap_remove(q, t);
        q->running = t;
        TimerFn fn = t->fn;
        void *opaque = t->opaque;
        lodge_unlock(&q->lock);
        fn(opaque);
        lodge_lock(&q->lock);
        q->running = NULL;
        pthread_cond_broadcast(&q->ran);
    }
    lodge_unlock(&q->lock);
}

void timer_queue_advance(TimerQueue *q, int64_t ns)
{
    int64_t end = clock_now_ns(q->clock) + ns;
    for (;;) {
        int64_t now = clock_now_ns(q->clock), next = timer_queue_next(q);
        if (next > end)
            break;
        if (next > now)
            clock_advance(q->clock, next - now);
        timer_queue_run(q);
    }
    clock_advance(q->clock, end - clock_now_ns(q->clock));
}

LodgeTimer *timer_new(TimerQueue *q, TimerFn fn, void *opaque)
{
    LodgeTimer *t = g_new0(LodgeTimer, 1);
    t->queue = q;
    t->fn = fn;
    t->opaque = opaque;
    t->deadline_ns = TIMER_NEVER;
    return t;
}

void timer_free(LodgeTimer *t)
{
    if (!t)
        return;
    TimerQueue *q = t->queue;
    lodge_lock(&q->lock);
    if (t->deadline_ns != TIMER_NEVER)
        heap_remove(q, t);
    while (q->running == t && !pthread_equal(q->runner, pthread_self()))
        lodge_cond_wait(&q->ran, &q->lock);
    /* A callback that is still about to be entered may have re-armed. */
    if (t->deadline_ns != TIMER_NEVER)
        heap_remove(q, t);
    lodge_unlock(&q->lock);
    g_free(t);
}

void timer_arm(LodgeTimer *t, int64_t deadline_ns)
{
    TimerQueue *q = t->queue;
    if (deadline_ns == TIMER_NEVER) {
        timer_cancel(t);
        return;
    }
    lodge_lock(&q->lock);
    int64_t before = q->heap->len ? heap_at(q, 0)->deadline_ns : TIMER_NEVER;
    if (t->deadline_ns == TIMER_NEVER) {
        t->deadline_ns = deadline_ns;
        t->index = q->heap->len;
        g_ptr_array_add(q->heap, t);
    } else {
        t->deadline_ns = deadline_ns;
    }
    heap_settle(q, t->index);
    bool sooner = heap_at(q, 0)->deadline_ns < before;
    lodge_unlock(&q->lock);
    if (sooner && q->wake)
        q->wake(q->wake_opaque);
}

void timer_cancel(LodgeTimer *t)
{
    lodge_lock(&t->queue->lock);
    if (t->deadline_ns != TIMER_NEVER)
        heap_remove(t->queue, t);
    lodge_unlock(&t->queue->lock);
}

int64_t timer_deadline(LodgeTimer *t)
{
    lodge_lock(&t->queue->lock);
    int64_t d = t->deadline_ns;
    lodge_unlock(&t->queue->lock);
    return d;
}
