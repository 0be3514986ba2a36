/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads, writes and flushes through io_uring: one ring a disk, on the disk's IoThread.
 *
 * A request is queued; one call posted to the loop, which runs after the round's events, turns all
 * that the round has queued into submission entries and enters the kernel once. (A post, not the
 * loop's idle hook: it also works when the request comes from somebody's idle hook.) What has
 * completed by then, as page-cache hits have, is told of at once, and a line longer than
 * SUBMIT_BATCH goes on after that. For the rest the loop looks at the ring before it sleeps, and
 * the ring's descriptor is watched. At most MAX_IN_FLIGHT are with the kernel; more wait in line.
 *
 * Spec: io_uring(7), io_uring_enter(2), io_uring_register(2).
 *
 * Invariants: (1) a request is in the line or with the kernel, never both. (2) in_flight counts
 * the entries filled in and not yet reaped. (3) While the line has requests that may go, or the
 * ring entries not submitted, a flush is posted.
 */
#include <errno.h>
#include <sys/epoll.h>

#include <liburing.h>

#include "lodge/iothread.h"

#include "block_int.h"

#define RING_ENTRIES 128u
#define MAX_IN_FLIGHT RING_ENTRIES /* the completion ring has twice that: no overflow */
#define FILE_SLOTS 8u              /* overlay and base, each with a second descriptor, doubled */
#define REAP_BATCH 32u
#define SUBMIT_BATCH 16u /* a guest fills its ring again while the rest is carried out */

struct BlkUring {
    IoThread *io;           /* borrowed */
    IoWatch *watch;         /* owned */
    IoPoll *poll;           /* owned */
    struct io_uring ring;
    bool used[FILE_SLOTS];  /* main thread only */
    bool has_table;
    /* IoThread only */
    BlkReq *line_head, **line_tail;
    unsigned in_flight, unsubmitted;
    bool flush_posted;
};

static void line_put(BlkUring *u, BlkReq *req)
{
    req->next = NULL;
    *u->line_tail = req;
    u->line_tail = &req->next;
}

static BlkReq *line_take(BlkUring *u)
{
    BlkReq *req = u->line_head;

    u->line_head = req->next;
    if (!u->line_head)
        u->line_tail = &u->line_head;
    return req;
}

static void prepare(struct io_uring_sqe *sqe, BlkReq *req, const struct iovec *iov, unsigned niov,
                    uint64_t offset)
{
    const BlkFile *f = blk_xfer(req)->file;
    bool meta = req->flags & BLK_REQ_META;
    int slot = meta ? f->meta_slot : f->fd_slot;
    int fd = slot >= 0 ? slot : meta ? f->meta_fd : f->fd;

    switch (req->op) {
    case BLK_READ:
        if (niov == 1)
            io_uring_prep_read(sqe, fd, iov->iov_base, iov->iov_len, offset);
        else
            io_uring_prep_readv(sqe, fd, iov, niov, offset);
        break;
    case BLK_WRITE:
        if (niov == 1)
            io_uring_prep_write(sqe, fd, iov->iov_base, iov->iov_len, offset);
        else
            io_uring_prep_writev(sqe, fd, iov, niov, offset);
        if (req->fua && !f->unsafe)
            sqe->rw_flags = RWF_DSYNC;
        break;
    default:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    }
    if (slot >= 0)
        sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(sqe, req);
}

/* Fill entries from the line. */
static void pump(BlkUring *u)
{
    while (u->line_head && u->in_flight < MAX_IN_FLIGHT && u->unsubmitted < SUBMIT_BATCH) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
        if (!sqe)
            return;
        BlkReq *req = line_take(u);
        const struct iovec *iov = NULL;
        unsigned niov = 0;
        uint64_t offset = 0;
        int err = req->op == BLK_FLUSH ? 0 : blk_xfer_next(req, &iov, &niov, &offset);
        if (err) {
            /* The entry is taken already; it becomes nothing, and is not told of. */
            io_uring_prep_nop(sqe);
            io_uring_sqe_set_data(sqe, NULL);
            blk_xfer_end(req);
            blk_complete(req, err);
        } else {
            prepare(sqe, req, iov, niov, offset);
        }
        u->in_flight++;
        u->unsubmitted++;
    }
}

static void uring_flush(void *opaque);

static void want_flush(BlkUring *u)
{
    if (u->flush_posted)
        return;
    u->flush_posted = true;
    io_thread_post(u->io, uring_flush, u);
}

static void reap(void *opaque, uint32_t events);

/* One io_uring_enter() for a round. */
static void uring_flush(void *opaque)
{
    BlkUring *u = opaque;

    u->flush_posted = false;
    pump(u);
    if (!u->unsubmitted)
        return;
    int n = io_uring_submit(&u->ring);
    if (n > 0)
        u->unsubmitted -= MIN((unsigned)n, u->unsubmitted);
    if (io_uring_cq_ready(&u->ring))
        reap(u, 0);
    if (u->unsubmitted || (u->line_head && u->in_flight < MAX_IN_FLIGHT))
        want_flush(u); /* memory is short, a signal came, or the ring was full; keeps (3) */
}

static void took(BlkUring *u, BlkReq *req, int result)
{
    int err;

    u->in_flight--;
    if (!req)
        return;
    if (blk_xfer_took(req, result, &err) == BLK_STEP_AGAIN) {
        line_put(u, req);
        want_flush(u);
        return;
    }
    blk_xfer_end(req);
    blk_complete(req, err);
    if (u->line_head)
        want_flush(u);
}

static void reap(void *opaque, uint32_t events)
{
    BlkUring *u = opaque;
    struct io_uring_cqe *cqes[REAP_BATCH];
    BlkReq *reqs[REAP_BATCH];
    int results[REAP_BATCH];

    /* Bounded: completions run here may queue requests, but those go in later. */
    for (unsigned round = 0; round <= 2 * MAX_IN_FLIGHT / REAP_BATCH; round++) {
        unsigned n = io_uring_peek_batch_cqe(&u->ring, cqes, REAP_BATCH);
        if (!n)
            return;
        for (unsigned i = 0; i < n; i++) {
            reqs[i] = io_uring_cqe_get_data(cqes[i]);
            results[i] = cqes[i]->res;
        }
        io_uring_cq_advance(&u->ring, n);
        for (unsigned i = 0; i < n; i++)
            took(u, reqs[i], results[i]);
    }
}

/* Completions are in the ring, or the kernel waits for a system call to put them there. */
static bool uring_look(void *opaque)
{
    BlkUring *u = opaque;

    if (!u->in_flight || (!io_uring_cq_ready(&u->ring) &&
                          !(__atomic_load_n(u->ring.sq.kflags, __ATOMIC_RELAXED) &
                            IORING_SQ_TASKRUN)))
        return false;
    reap(u, 0);
    return true;
}

static bool uring_waits(void *opaque)
{
    BlkUring *u = opaque;

    return u->in_flight;
}

static const IoPollOps uring_poll = {.look = uring_look, .waits = uring_waits};

BlkUring *blk_uring_new(IoThread *io, int *ret_errno)
{
    BlkUring *u = g_new0(BlkUring, 1);
    /* Completion work waits for the next system call instead of interrupting the thread. */
    int r = io_uring_queue_init(RING_ENTRIES, &u->ring,
                                IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG);

    if (r == -EINVAL)
        r = io_uring_queue_init(RING_ENTRIES, &u->ring, 0);
    if (r < 0) {
        *ret_errno = -r;
        g_free(u);
        return NULL;
    }
    u->io = io;
    u->line_tail = &u->line_head;
    u->has_table = io_uring_register_files_sparse(&u->ring, FILE_SLOTS) == 0;
    g_autoptr(GError) error = NULL;
    u->watch = io_watch_new(io, u->ring.ring_fd, EPOLLIN, reap, u, &error);
    if (!u->watch) {
        *ret_errno = ENOMEM;
        io_uring_queue_exit(&u->ring);
        g_free(u);
        return NULL;
    }
    u->poll = io_poll_new(io, &uring_poll, u);
    return u;
}

void blk_uring_free(BlkUring *u)
{
    if (!u)
        return;
    io_poll_free(u->poll);
    io_watch_free(u->watch); /* and lets a posted uring_flush() run first */
    io_uring_queue_exit(&u->ring);
    g_free(u);
}

int blk_uring_add_file(BlkUring *u, int fd)
{
    for (unsigned i = 0; u->has_table && i < FILE_SLOTS; i++) {
        if (u->used[i])
            continue;
        if (io_uring_register_files_update(&u->ring, i, &fd, 1) != 1)
            return -1;
        u->used[i] = true;
        return (int)i;
    }
    return -1;
}

void blk_uring_remove_file(BlkUring *u, int slot)
{
    int none = -1;

    if (slot < 0)
        return;
    /* A failure leaves the kernel's reference until the ring goes, a moment later. */
    (void)io_uring_register_files_update(&u->ring, slot, &none, 1);
    u->used[slot] = false;
}

void blk_uring_submit(BlkUring *u, BlkReq *req)
{
    line_put(u, req);
    want_flush(u);
}
