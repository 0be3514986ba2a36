/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads and writes through the kernel's native AIO, for files with O_DIRECT: without that it blocks
 * in the submission, so blk_open() wants cache=none. What is not direct, flushes and everything
 * else go to the thread pool. The system calls are made plainly; libaio adds nothing to them here.
 *
 * As in engine_uring.c a round's requests are gathered, and one io_submit() starts them all; an
 * eventfd tells of completions. Where the kernel has no room, the request is tried again when
 * another one is done, and at once by the pool where none is under way.
 *
 * Spec: io_setup(2), io_submit(2), io_getevents(2), eventfd(2).
 *
 * Invariants: (1) a request is in the line or with the kernel, never both. (2) in_flight counts
 * what the kernel has. (3) While the line has requests that may go, a flush is posted.
 */
#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lodge/iothread.h"

#include "block_int.h"

#define MAX_IN_FLIGHT 128u
#define REAP_BATCH 32u

struct BlkAioRing {
    IoThread *io;   /* borrowed */
    BlkPool *pool;  /* borrowed; for what cannot be had here */
    IoWatch *watch; /* owned */
    int fd;         /* owned; an eventfd */
    aio_context_t ctx;
    struct iocb iocbs[MAX_IN_FLIGHT];
    /* IoThread only */
    unsigned free[MAX_IN_FLIGHT], n_free; /* indices of iocbs */
    BlkReq *line_head, **line_tail;
    unsigned in_flight;
    bool flush_posted;
};

static void line_put(BlkAioRing *a, BlkReq *req)
{
    req->next = NULL;
    *a->line_tail = req;
    a->line_tail = &req->next;
}

static BlkReq *line_take(BlkAioRing *a)
{
    BlkReq *req = a->line_head;

    a->line_head = req->next;
    if (!a->line_head)
        a->line_tail = &a->line_head;
    return req;
}

static void aio_flush(void *opaque);

static void want_flush(BlkAioRing *a)
{
    if (a->flush_posted)
        return;
    a->flush_posted = true;
    io_thread_post(a->io, aio_flush, a);
}

/* Fill in @cb for the next step of @req. Return: 0 or errno. */
static int prepare(BlkAioRing *a, struct iocb *cb, BlkReq *req)
{
    const BlkFile *f = blk_xfer(req)->file;
    const struct iovec *iov;
    unsigned niov;
    uint64_t offset;
    int err = blk_xfer_next(req, &iov, &niov, &offset);

    if (err)
        return err;
    *cb = (struct iocb){
        .aio_data = (uintptr_t)req,
        .aio_lio_opcode = req->op == BLK_READ ? IOCB_CMD_PREADV : IOCB_CMD_PWRITEV,
        .aio_fildes = (uint32_t)f->fd,
        .aio_buf = (uintptr_t)iov,
        .aio_nbytes = niov,
        .aio_offset = (int64_t)offset,
        .aio_flags = IOCB_FLAG_RESFD,
        .aio_resfd = (uint32_t)a->fd,
        .aio_rw_flags = req->op == BLK_WRITE && req->fua && !f->unsafe ? RWF_DSYNC : 0,
    };
    return 0;
}

/* The kernel did not take @cbs[@from..@to): back into the line, in order, or to the pool. */
static void not_taken(BlkAioRing *a, struct iocb **cbs, unsigned from, unsigned to, int err)
{
    for (unsigned i = to; i-- > from;) {
        BlkReq *req = (BlkReq *)(uintptr_t)cbs[i]->aio_data;
        a->free[a->n_free++] = (unsigned)(cbs[i] - a->iocbs);
        if (err == EAGAIN && a->in_flight) {
            req->next = a->line_head;
            a->line_head = req;
            if (!req->next)
                a->line_tail = &req->next;
        } else { /* begins anew from where it stands; the first one may be at fault */
            blk_pool_submit(a->pool, req);
        }
    }
}

static void aio_flush(void *opaque)
{
    BlkAioRing *a = opaque;
    struct iocb *cbs[MAX_IN_FLIGHT];
    unsigned n = 0, done = 0;

    a->flush_posted = false;
    while (a->line_head && a->n_free) {
        BlkReq *req = line_take(a);
        struct iocb *cb = &a->iocbs[a->free[--a->n_free]];
        int err = prepare(a, cb, req);
        if (err) {
            a->free[a->n_free++] = (unsigned)(cb - a->iocbs);
            blk_xfer_end(req);
            blk_complete(req, err);
            continue;
        }
        cbs[n++] = cb;
    }
    while (done < n) {
        long r = syscall(SYS_io_submit, a->ctx, (long)(n - done), cbs + done);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0) {
            not_taken(a, cbs, done, n, r < 0 ? errno : EAGAIN);
            return;
        }
        done += (unsigned)r;
        a->in_flight += (unsigned)r;
    }
}

static void took(BlkAioRing *a, const struct io_event *e)
{
    BlkReq *req = (BlkReq *)(uintptr_t)e->data;
    const struct iocb *cb = (const struct iocb *)(uintptr_t)e->obj;
    int err;

    a->in_flight--;
    a->free[a->n_free++] = (unsigned)(cb - a->iocbs);
    if (blk_xfer_took(req, (ssize_t)e->res, &err) == BLK_STEP_AGAIN) {
        line_put(a, req);
        want_flush(a);
        return;
    }
    blk_xfer_end(req);
    blk_complete(req, err);
    if (a->line_head)
        want_flush(a);
}

static void reap(void *opaque, uint32_t events)
{
    BlkAioRing *a = opaque;
    struct io_event got[REAP_BATCH];
    struct timespec now = {0};
    eventfd_t told;

    (void)eventfd_read(a->fd, &told); /* EAGAIN: taken by an earlier round */
    /* Bounded: what completions start is told of by another event. */
    for (unsigned round = 0; round <= MAX_IN_FLIGHT / REAP_BATCH; round++) {
        long n = syscall(SYS_io_getevents, a->ctx, 0L, (long)REAP_BATCH, got, &now);
        for (long i = 0; i < n; i++)
            took(a, &got[i]);
        if (n < (long)REAP_BATCH)
            return;
    }
    (void)eventfd_write(a->fd, 1); /* there may be more; a counter at its top says so too */
}

BlkAioRing *blk_aio_new(IoThread *io, BlkPool *pool, int *ret_errno)
{
    BlkAioRing *a = g_new0(BlkAioRing, 1);

    a->io = io;
    a->pool = pool;
    a->line_tail = &a->line_head;
    for (unsigned i = 0; i < MAX_IN_FLIGHT; i++)
        a->free[a->n_free++] = i;
    a->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    *ret_errno = errno;
    if (a->fd >= 0 && syscall(SYS_io_setup, (long)MAX_IN_FLIGHT, &a->ctx) < 0) {
        *ret_errno = errno;
        a->ctx = 0;
    }
    if (a->ctx) {
        a->watch = io_watch_new(io, a->fd, EPOLLIN, reap, a, NULL);
        *ret_errno = ENOMEM;
    }
    if (!a->watch) {
        blk_aio_free(a);
        return NULL;
    }
    return a;
}

static void nothing(void *opaque)
{
}

void blk_aio_free(BlkAioRing *a)
{
    if (!a)
        return;
    io_watch_free(a->watch);
    io_thread_call(a->io, nothing, NULL); /* a posted aio_flush() has run after this */
    if (a->ctx)
        (void)syscall(SYS_io_destroy, a->ctx); /* nothing is in flight */
    if (a->fd >= 0)
        close(a->fd);
    g_free(a);
}

bool blk_aio_takes(const BlkReq *req)
{
    return (req->op == BLK_READ || req->op == BLK_WRITE) && !(req->flags & BLK_REQ_META) &&
           ((const BlkXfer *)req->scratch)->file->direct;
}

void blk_aio_submit(BlkAioRing *a, BlkReq *req)
{
    line_put(a, req);
    want_flush(a);
}
