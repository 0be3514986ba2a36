/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits of requests and bytes a second: a token bucket in the form of the generic cell rate
 * algorithm. A request costs time, 1/iops and length/bps; each sum of costs is kept as the time
 * when it will have been paid. A request goes while that is less than BURST_NS ahead, so a disk
 * that was idle may do a tenth of a second's worth at once, and one large request is never stuck.
 * What does not go waits in order; flushes cost nothing and do not wait, as they order only what
 * was done before.
 *
 * Time is the host's: a guest that stands still is not to find its requests undone.
 *
 * Threads: the node's IoThread only, but for new and free (main thread, nothing in flight) and for
 * get (main thread, which alone orders a change and waits until it is made).
 *
 * Spec: ITU-T I.371, annex A.1 (the algorithm).
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

#include "block_int.h"

#define BURST_NS (NS_PER_SEC / 10)

struct BlkLimit {
    uint64_t iops, bps; /* 0: none */
    void (*start)(void *opaque, BlkReq *req);
    void *opaque;
    int fd;         /* owned; a timerfd */
    IoWatch *watch; /* owned */
    int64_t paid_ops_ns, paid_bytes_ns; /* host time when what has gone is paid for */
    BlkReq *head, **tail;
    bool held, hurried;
};

static void run_queue(BlkLimit *l);

static void timer_fired(void *opaque, uint32_t events)
{
    BlkLimit *l = opaque;
    uint64_t ticks;

    (void)!read(l->fd, &ticks, sizeof ticks); /* EAGAIN: it was set anew meanwhile */
    run_queue(l);
}

BlkLimit *blk_limit_new(IoThread *io, uint64_t iops, uint64_t bps,
                        void (*start)(void *opaque, BlkReq *req), void *opaque, GError **error)
{
    BlkLimit *l = g_new0(BlkLimit, 1);

    l->iops = iops;
    l->bps = bps;
    l->start = start;
    l->opaque = opaque;
    l->tail = &l->head;
    l->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (l->fd < 0)
        lodge_fail_errno(error, errno, "cannot make a timer");
    else
        l->watch = io_watch_new(io, l->fd, EPOLLIN, timer_fired, l, error);
    if (!l->watch) {
        blk_limit_free(l);
        return NULL;
    }
    return l;
}

void blk_limit_set(BlkLimit *l, uint64_t iops, uint64_t bps)
{
    l->iops = iops;
    l->bps = bps;
    l->paid_ops_ns = l->paid_bytes_ns = 0; /* what went at the old rates is paid for */
    run_queue(l);
}

void blk_limit_get(const BlkLimit *l, uint64_t *ret_iops, uint64_t *ret_bps)
{
    *ret_iops = l->iops;
    *ret_bps = l->bps;
}

void blk_limit_free(BlkLimit *l)
{
    if (!l)
        return;
    io_watch_free(l->watch);
    if (l->fd >= 0)
        close(l->fd);
    g_free(l);
}

/* When the next request may go; in the past: now. */
static int64_t turn_ns(const BlkLimit *l)
{
    return MAX(l->iops ? l->paid_ops_ns : 0, l->bps ? l->paid_bytes_ns : 0) - BURST_NS;
}

static void pay(BlkLimit *l, const BlkReq *req, int64_t now)
{
    bool data = req->op == BLK_READ || req->op == BLK_WRITE;

    if (l->iops)
        l->paid_ops_ns = MAX(l->paid_ops_ns, now) + (int64_t)(NS_PER_SEC / l->iops);
    if (l->bps && data) /* in two parts: a length times 1e9 may pass 64 bits */
        l->paid_bytes_ns =
            MAX(l->paid_bytes_ns, now) +
            (int64_t)MIN(req->len / l->bps * NS_PER_SEC +
                             (uint64_t)((double)(req->len % l->bps) * (double)NS_PER_SEC /
                                        (double)l->bps),
                         (uint64_t)NS_PER_SEC * 3600);
}

static void set_timer(BlkLimit *l, int64_t at_ns)
{
    struct itimerspec t = {.it_value = {at_ns / NS_PER_SEC, at_ns % NS_PER_SEC}};

    (void)timerfd_settime(l->fd, TFD_TIMER_ABSTIME, &t, NULL); /* a valid time: cannot fail */
}

/* Start what may go, and come back for the rest. */
static void run_queue(BlkLimit *l)
{
    int64_t now = clock_host_ns();

    while (l->head && !l->held && (l->hurried || turn_ns(l) <= now)) {
        BlkReq *req = l->head;
        l->head = req->next;
        if (!l->head)
            l->tail = &l->head;
        pay(l, req, now);
        l->start(l->opaque, req);
    }
    if (l->head && !l->held)
        set_timer(l, MAX(turn_ns(l), now + 1));
}

bool blk_limit_admit(BlkLimit *l, BlkReq *req)
{
    int64_t now;

    if (req->op == BLK_FLUSH || req->op == BLK_STATUS || l->hurried)
        return true;
    now = clock_host_ns();
    if (!l->head && turn_ns(l) <= now) {
        pay(l, req, now);
        return true;
    }
    bool first = !l->head;
    req->next = NULL;
    *l->tail = req;
    l->tail = &req->next;
    if (first)
        set_timer(l, MAX(turn_ns(l), now + 1));
    return false;
}

void blk_limit_hold(BlkLimit *l, bool on)
{
    l->held = on;
    if (!on)
        run_queue(l);
}

void blk_limit_hurry(BlkLimit *l, bool on)
{
    l->hurried = on;
    if (on) { /* debts are forgiven too */
        l->paid_ops_ns = l->paid_bytes_ns = 0;
        run_queue(l);
    }
}
