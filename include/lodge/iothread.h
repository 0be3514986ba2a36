/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_IOTHREAD_H
#define LODGE_IOTHREAD_H

/*
 * An event loop on a thread of its own: descriptors (epoll), guest timers (one timerfd in
 * nanoseconds) and calls posted from elsewhere. Objects bound to an IoThread need no lock;
 * foreign threads reach them by io_thread_post().
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/clock.h"

typedef struct IoThread IoThread;
typedef struct IoWatch IoWatch;

/* @events: EPOLL* bits that are ready. Context: the loop's thread, no lock held. */
typedef void (*IoWatchFn)(void *opaque, uint32_t events);
typedef void (*IoCallFn)(void *opaque);

/**
 * io_thread_new() - Start a loop
 * @name:  at most 15 bytes, the thread's name
 * @clock: guest clock of its timers; borrowed, outlives the loop
 * Return: transfer full, or NULL with LODGE_ERROR_HOST.
 */
IoThread *io_thread_new(const char *name, LodgeClock *clock, GError **error);
/* Run what was posted, stop, join, free. NULL is fine. Context: not the loop's own thread. */
void io_thread_free(IoThread *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(IoThread, io_thread_free)

/* Let the loop look at its timers again, after clock_resume(). Any thread. */
void io_thread_wake(IoThread *t);

/* Transfer none. */
TimerQueue *io_thread_timers(IoThread *t);
bool io_thread_is_current(const IoThread *t);

/**
 * io_thread_post() - Call @fn(@opaque) on the loop, in order of posting
 * Context: any thread, locks below LOCK_RANK_QUEUE may be held; never calls inline.
 */
void io_thread_post(IoThread *t, IoCallFn fn, void *opaque);
/* The caller was long at work: though more may lie there, what follows are events and timers.
 * Context: the loop's thread. */
void io_thread_others_first(IoThread *t);
/* Like post, and wait until it has run; inline when on the loop. Context: no lock held. */
void io_thread_call(IoThread *t, IoCallFn fn, void *opaque);

/**
 * io_watch_new() - Call @fn while @fd has one of @events (level-triggered; add EPOLLET for edges)
 * @fd: borrowed; must stay open until the watch is freed
 * Context: any thread. The callback runs on the loop only.
 * Return:  transfer full, or NULL with LODGE_ERROR_HOST.
 */
IoWatch *io_watch_new(IoThread *t, int fd, uint32_t events, IoWatchFn fn, void *opaque,
                      GError **error);
/* Change the events; 0 mutes. Context: any thread. */
void io_watch_set(IoWatch *w, uint32_t events);
/* No callback starts after it returned. From another thread it waits for the loop, so hold no
 * lock; on the loop it may be called from the watch's own callback. NULL is fine. */
void io_watch_free(IoWatch *w);

/*
 * Work that shows in memory, such as a ring. The loop looks at it between rounds, and while such
 * work keeps coming for a bounded time before it sleeps, so that nobody need wake it.
 */
typedef struct IoPoll IoPoll;
typedef struct IoPollOps {
    /* Do what is there; whether there was anything. Context: the loop's thread, no lock held. */
    bool (*look)(void *opaque);
    /* @on: the loop is about to sleep: have an event sent for what comes from now on. True: there
     * is work already. Else it is awake, and will look: no events, please. Context likewise. NULL:
     * events are always sent. */
    bool (*arm)(void *opaque, bool on);
    /* Others are at work for us, who need a CPU more than looking does, and an event tells when
     * they are through. Context likewise. NULL: never. */
    bool (*waits)(void *opaque);
} IoPollOps;
/* @ops is borrowed. Transfer full. Context: any thread, no lock held. */
IoPoll *io_poll_new(IoThread *t, const IoPollOps *ops, void *opaque);
/* Neither function is called after it returned. Context: as io_watch_free(). NULL is fine. */
void io_poll_free(IoPoll *p);

/**
 * io_thread_add_idle() - Call @fn after each round of events, before the loop sleeps
 *
 * For batching: engines submit here what a round of callbacks has queued.
 * Context: the loop's thread, or before anything is bound to the loop.
 */
void io_thread_add_idle(IoThread *t, IoCallFn fn, void *opaque);
void io_thread_remove_idle(IoThread *t, IoCallFn fn, void *opaque);

#endif
