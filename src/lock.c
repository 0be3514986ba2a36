/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ranked locks. With LODGE_LOCK_CHECKS each thread keeps a mask of the ranks that it holds; a
 * breach of the order is a bug of ours and stops the process with both names.
 */
#include <stdio.h>
#include <stdlib.h>

#include "lodge/lock.h"

#ifdef LODGE_LOCK_CHECKS
static _Thread_local unsigned highest_rank; /* of the locks held */
static _Thread_local unsigned held_count;

static void lock_breach(const LodgeLock *lock, const char *what)
{
    fprintf(stderr, "lodge: lock %s (rank %d): %s\n", lock ? lock->name : "-",
            lock ? (int)lock->rank : 0, what);
    abort();
}

void lock_assert_held(const LodgeLock *lock)
{
    if (!__atomic_load_n(&lock->held, __ATOMIC_RELAXED) ||
        !pthread_equal(lock->owner, pthread_self()))
        lock_breach(lock, "not held by the caller");
}

void lock_assert_none(void)
{
    if (held_count)
        lock_breach(NULL, "a callback started with a lock held");
}
#endif

void lodge_lock_init(LodgeLock *lock, LockRank rank, const char *name)
{
    pthread_mutex_init(&lock->mutex, NULL);
    lock->rank = rank;
    lock->name = name;
    lock->held = false;
}

void lodge_lock_clear(LodgeLock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

void lodge_lock(LodgeLock *lock)
{
#ifdef LODGE_LOCK_CHECKS
    if (held_count && highest_rank >= (unsigned)lock->rank)
        lock_breach(lock, "taken after a lock of the same or a higher rank");
#endif
    pthread_mutex_lock(&lock->mutex);
#ifdef LODGE_LOCK_CHECKS
    /* Each lock remembers what was highest before it: a stack without storage. */
    lock->owner = pthread_self();
    lock->below = highest_rank;
    __atomic_store_n(&lock->held, true, __ATOMIC_RELAXED);
    highest_rank = (unsigned)lock->rank;
    held_count++;
#endif
}

void lodge_unlock(LodgeLock *lock)
{
#ifdef LODGE_LOCK_CHECKS
    lock_assert_held(lock);
    if (highest_rank != (unsigned)lock->rank)
        lock_breach(lock, "released before a lock taken after it");
    highest_rank = lock->below;
    held_count--;
    __atomic_store_n(&lock->held, false, __ATOMIC_RELAXED);
#endif
    pthread_mutex_unlock(&lock->mutex);
}

void lodge_cond_wait(pthread_cond_t *cond, LodgeLock *lock)
{
#ifdef LODGE_LOCK_CHECKS
    lock_assert_held(lock);
    unsigned below = lock->below;
    __atomic_store_n(&lock->held, false, __ATOMIC_RELAXED);
#endif
    pthread_cond_wait(cond, &lock->mutex);
#ifdef LODGE_LOCK_CHECKS
    lock->owner = pthread_self();
    lock->below = below;
    __atomic_store_n(&lock->held, true, __ATOMIC_RELAXED);
#endif
}
