/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A node's worker: one thread that runs what a format has to do with blocking calls, in order.
 * Answers go back as one posted call for as many pieces as have piled up.
 *
 * Threads: blk_work() and done() on the IoThread, run() on the worker, blk_worker_free() on main.
 * Lock: w->mutex (a GMutex because it has a GCond) is a leaf; nothing is called with it held.
 */
#include <errno.h>

#include "lodge/iothread.h"

#include "block_int.h"

typedef struct WorkList {
    BlkWork *head, **tail;
} WorkList;

struct BlkWorker {
    BlkNode *node;   /* borrowed */
    GThread *thread; /* owned; NULL: none could be made, so far */
    unsigned busy;   /* IoThread only: pieces whose done() has not been called */
    GMutex mutex;
    GCond cond;
    /* guarded by mutex */
    WorkList todo, ready;
    bool posted, stopping, waiting;
};

static void list_put(WorkList *l, BlkWork *w)
{
    w->next = NULL;
    *l->tail = w;
    l->tail = &w->next;
}

static BlkWork *list_take_all(WorkList *l)
{
    BlkWork *w = l->head;

    l->head = NULL;
    l->tail = &l->head;
    return w;
}

static void deliver(void *opaque)
{
    BlkWorker *k = opaque;

    g_mutex_lock(&k->mutex);
    BlkWork *w = list_take_all(&k->ready);
    k->posted = false;
    g_mutex_unlock(&k->mutex);
    while (w) {
        BlkWork *next = w->next; /* done() may free it */
        k->busy--;
        w->done(k->node, w, w->err);
        w = next;
    }
}

/* Context: mutex held. True: the caller posts deliver() once it has let go of it. */
static bool ready_locked(BlkWorker *k, BlkWork *w, int err)
{
    bool post = !k->posted;

    w->err = err;
    list_put(&k->ready, w);
    k->posted = true;
    return post;
}

static void *work(void *opaque)
{
    BlkWorker *k = opaque;

    g_mutex_lock(&k->mutex);
    while (true) {
        BlkWork *w = k->todo.head;
        if (!w) {
            if (k->stopping)
                break;
            k->waiting = true;
            g_cond_wait(&k->cond, &k->mutex);
            k->waiting = false;
            continue;
        }
        k->todo.head = w->next;
        if (!w->next)
            k->todo.tail = &k->todo.head;
        g_mutex_unlock(&k->mutex);
        int err = w->run(k->node, w);
        g_mutex_lock(&k->mutex);
        if (ready_locked(k, w, err)) {
            g_mutex_unlock(&k->mutex);
            io_thread_post(k->node->io, deliver, k);
            g_mutex_lock(&k->mutex);
        }
    }
    g_mutex_unlock(&k->mutex);
    return NULL;
}

static BlkWorker *worker_new(BlkNode *n)
{
    BlkWorker *k = g_new0(BlkWorker, 1);

    k->node = n;
    list_take_all(&k->todo);
    list_take_all(&k->ready);
    g_mutex_init(&k->mutex);
    g_cond_init(&k->cond);
    return k;
}

void blk_work(BlkNode *n, BlkWork *w)
{
    if (!n->worker)
        n->worker = worker_new(n);
    BlkWorker *k = n->worker;
    bool post = false;

    k->busy++;
    if (!k->thread)
        k->thread = g_thread_try_new("lodge-fmt", work, k, NULL);
    g_mutex_lock(&k->mutex);
    if (k->thread)
        list_put(&k->todo, w);
    else
        post = ready_locked(k, w, EAGAIN);
    if (k->waiting) { /* a signal is a system call even where nobody waits */
        k->waiting = false;
        g_cond_signal(&k->cond);
    }
    g_mutex_unlock(&k->mutex);
    if (post)
        io_thread_post(n->io, deliver, k);
}

bool blk_work_idle(const BlkNode *n)
{
    return !n->worker || !n->worker->busy;
}

static void nothing(void *opaque)
{
}

void blk_worker_free(BlkWorker *k)
{
    if (!k)
        return;
    g_mutex_lock(&k->mutex);
    k->stopping = true;
    g_cond_signal(&k->cond);
    g_mutex_unlock(&k->mutex);
    if (k->thread)
        g_thread_join(k->thread);
    io_thread_call(k->node->io, nothing, NULL); /* a posted deliver() has run after this */
    g_cond_clear(&k->cond);
    g_mutex_clear(&k->mutex);
    g_free(k);
}
