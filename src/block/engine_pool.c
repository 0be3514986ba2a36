/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Blocking host calls on a few threads: what io_uring is not used for (hole punching, block device
 * ioctls, maps), and everything where io_uring is missing. Threads start when work comes and none
 * is free, at most as many as the pool may have, and leave after LINGER_US without work.
 *
 * Answers go back as one posted call for as many requests as have piled up until it runs; a pool of
 * one thread takes up to BATCH requests at a time, and posts it when it has nothing to do, or as
 * many answers. Where a request is a few microseconds, locks and wake-ups for each would be half of
 * it.
 *
 * Lock: p->mutex (a GMutex because it has a GCond) is a leaf; nothing is called with it held.
 */
#include "lodge/iothread.h"

#include "block_int.h"

#define BATCH 8u
#define LINGER_US (2 * G_TIME_SPAN_SECOND)

typedef struct Worker {
    BlkPool *pool;
    GThread *thread; /* owned; NULL: slot never used, or joined */
    bool gone;       /* has left; to be joined */
} Worker;

struct BlkPool {
    IoThread *io;     /* borrowed */
    IoPoll *poll;     /* owned */
    unsigned threads; /* constant */
    unsigned out;     /* IoThread: requests that were not delivered yet */
    GMutex mutex;
    GCond work;
    /* guarded by mutex */
    BlkReq *todo_head, **todo_tail;
    BlkReq *done_head, **done_tail;
    unsigned queued, untold;
    unsigned idle, woken; /* workers that wait; how many of these were told that there is work */
    bool posted, stopping;
    Worker workers[BLK_POOL_THREADS];
};

static void deliver(void *opaque)
{
    BlkPool *p = opaque;

    g_mutex_lock(&p->mutex);
    BlkReq *req = p->done_head;
    p->done_head = NULL;
    p->done_tail = &p->done_head;
    p->posted = false;
    p->untold = 0;
    g_mutex_unlock(&p->mutex);
    while (req) {
        BlkReq *next = req->next;
        p->out--;
        blk_complete(req, blk_xfer(req)->result);
        req = next;
    }
}

/* Take the next request, in a pool of one thread a list of some; or NULL to leave. */
static BlkReq *next_work_locked(BlkPool *p)
{
    int64_t until_us = g_get_monotonic_time() + LINGER_US;

    while (!p->todo_head) {
        if (p->stopping)
            return NULL;
        p->idle++;
        bool woken = g_cond_wait_until(&p->work, &p->mutex, until_us);
        p->idle--;
        if (p->woken)
            p->woken--;
        if (!woken && !p->todo_head)
            return NULL;
    }
    BlkReq *req = p->todo_head, *last = req;
    unsigned n = 1;
    for (; p->threads == 1 && last->next && n < BATCH; n++)
        last = last->next;
    p->todo_head = last->next;
    if (!p->todo_head)
        p->todo_tail = &p->todo_head;
    last->next = NULL;
    p->queued -= n;
    return req;
}

/* Carry out a list; its last one. */
static BlkReq *run_list(BlkReq *req, unsigned *ret_n)
{
    for (*ret_n = 1;; ++*ret_n) {
        blk_xfer(req)->result = blk_file_run(req);
        if (!req->next)
            return req;
        req = req->next;
    }
}

static void *work(void *opaque)
{
    Worker *w = opaque;
    BlkPool *p = w->pool;
    BlkReq *req;

    g_mutex_lock(&p->mutex);
    while ((req = next_work_locked(p))) {
        unsigned n;
        g_mutex_unlock(&p->mutex);
        BlkReq *last = run_list(req, &n);
        g_mutex_lock(&p->mutex);
        *p->done_tail = req;
        p->done_tail = &last->next;
        p->untold += n;
        if (!p->posted && (p->threads > 1 || !p->todo_head || p->untold >= BATCH)) {
            p->posted = true;
            g_mutex_unlock(&p->mutex);
            io_thread_post(p->io, deliver, p);
            g_mutex_lock(&p->mutex);
        }
    }
    w->gone = true;
    g_mutex_unlock(&p->mutex);
    return NULL;
}

/* One more worker, if there is a slot; true if somebody will take what is queued. */
static bool grow_locked(BlkPool *p)
{
    Worker *slot = NULL;
    bool any = false;

    for (unsigned i = 0; i < p->threads; i++) {
        Worker *w = &p->workers[i];
        if (w->thread && !w->gone)
            any = true;
        else if (!slot)
            slot = w;
    }
    if (!slot)
        return any;
    if (slot->thread)
        g_thread_join(slot->thread); /* it needs no lock any more */
    slot->gone = false;
    slot->thread = g_thread_try_new("lodge-blk", work, slot, NULL);
    return slot->thread || any;
}

static bool pool_look(void *opaque)
{
    return false; /* a posted call tells */
}

static bool pool_waits(void *opaque)
{
    return ((BlkPool *)opaque)->out;
}

static const IoPollOps pool_poll = {.look = pool_look, .waits = pool_waits};

BlkPool *blk_pool_new(IoThread *io, unsigned threads)
{
    BlkPool *p = g_new0(BlkPool, 1);

    p->io = io;
    p->threads = threads;
    g_mutex_init(&p->mutex);
    g_cond_init(&p->work);
    p->todo_tail = &p->todo_head;
    p->done_tail = &p->done_head;
    for (unsigned i = 0; i < threads; i++)
        p->workers[i].pool = p;
    p->poll = io_poll_new(io, &pool_poll, p);
    return p;
}

static void nothing(void *opaque)
{
}

void blk_pool_free(BlkPool *p)
{
    if (!p)
        return;
    g_mutex_lock(&p->mutex);
    p->stopping = true;
    g_cond_broadcast(&p->work);
    g_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->threads; i++)
        if (p->workers[i].thread)
            g_thread_join(p->workers[i].thread);
    io_poll_free(p->poll);
    io_thread_call(p->io, nothing, NULL); /* a posted deliver() has run after this */
    g_cond_clear(&p->work);
    g_mutex_clear(&p->mutex);
    g_free(p);
}

void blk_pool_submit(BlkPool *p, BlkReq *req)
{
    bool taken = true;

    req->next = NULL;
    p->out++;
    g_mutex_lock(&p->mutex);
    *p->todo_tail = req;
    p->todo_tail = &req->next;
    p->queued++;
    if (p->queued > p->idle)
        taken = grow_locked(p);
    if (!taken) { /* no thread could be made: the only request queued is this one */
        p->todo_head = NULL;
        p->todo_tail = &p->todo_head;
        p->queued--;
    } else if (p->idle > p->woken) { /* a signal is a system call; waking up takes a while */
        p->woken++;
        g_cond_signal(&p->work);
    }
    g_mutex_unlock(&p->mutex);
    if (!taken) {
        p->out--;
        blk_complete(req, EAGAIN);
    }
}
