/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_LOCK_H
#define LODGE_LOCK_H

/*
 * Locks with a rank. A thread takes locks only in rising rank and never two of one rank, so a
 * cycle cannot form. Builds with LODGE_LOCK_CHECKS stop the process at the first breach of that
 * rule; it is our own logic, never something that a guest can bring about.
 */

#include <pthread.h>
#include <stdbool.h>

typedef enum LockRank {
    LOCK_RANK_MACHINE = 10, /* lifecycle, board wiring */
    LOCK_RANK_SETTLE = 15,  /* gathered writes on their way to devices */
    LOCK_RANK_DEVICE = 20,  /* one device's registers */
    LOCK_RANK_DMA = 25,     /* ISA DMA and IDE channels, reached with a device's own lock held */
    LOCK_RANK_LAYOUT = 30,  /* writers of memory and bus layouts */
    LOCK_RANK_IRQ = 40,     /* interrupt router, PIC and IOAPIC */
    LOCK_RANK_QUEUE = 60,   /* loops, timers, completion queues */
    LOCK_RANK_DIAG = 70,    /* logs and counters */
} LockRank;

typedef struct LodgeLock {
    pthread_mutex_t mutex;
    LockRank rank;
    const char *name; /* borrowed, static */
    /* With LODGE_LOCK_CHECKS, valid while held: */
    pthread_t owner;
    unsigned below; /* highest rank that the owner held before */
    bool held;
} LodgeLock;

/**
 * lodge_lock_init() - Make @lock ready; pair with lodge_lock_clear()
 * @name: static string for messages
 */
void lodge_lock_init(LodgeLock *lock, LockRank rank, const char *name);
void lodge_lock_clear(LodgeLock *lock);

/* Context: any thread that holds no lock of @lock's rank or above. Not recursive. */
void lodge_lock(LodgeLock *lock);
void lodge_unlock(LodgeLock *lock);
/* Wait on @cond with @lock held; as pthread_cond_wait(). */
void lodge_cond_wait(pthread_cond_t *cond, LodgeLock *lock);

#ifdef LODGE_LOCK_CHECKS
/* Stop unless the caller holds @lock; helpers named *_locked start with it. */
void lock_assert_held(const LodgeLock *lock);
/* Stop if the caller holds any LodgeLock: for callbacks that are promised none. */
void lock_assert_none(void);
#else
static inline void lock_assert_held(const LodgeLock *lock)
{
    (void)lock;
}
static inline void lock_assert_none(void)
{
}
#endif

#endif
