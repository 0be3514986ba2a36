/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine of one disk: an io_uring for reads, writes and flushes where the kernel has one, or
 * native AIO where that is asked for, and a thread pool for everything else, or for everything.
 * Shared by the nodes of the disk, made and freed on the main thread, used on the disk's IoThread.
 */
#include <sched.h>
#include <sys/uio.h>

#include "block_int.h"

#define WRITER_MAX (64u << 10)  /* bytes; what is larger is worth a wake-up */
#define INSTANT_MAX (64u << 10) /* bytes; a copy of some 10 us */
#define INSTANT_MOST (2u << 20) /* where nobody could copy beside us: some 500 us */

/* With two CPUs the guest has the other one: what the kernel's threads copied for us would be taken
 * from either, and they have to be woken, as do we. */
void blk_engine_for_guest(BlkEngine *e)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) <= 2)
        e->instant_max = INSTANT_MOST;
}

BlkEngine *blk_engine_new(IoThread *io, BlkAio aio, GError **error)
{
    g_autoptr(BlkEngine) e = g_new0(BlkEngine, 1);

    e->refs = 1;
    e->io = io;
    e->instant_max = INSTANT_MAX;
    e->pool = blk_pool_new(io, BLK_POOL_THREADS);
    e->writer = blk_pool_new(io, 1);
    if (aio == BLK_AIO_LIBAIO) {
        int errnum = 0;
        e->aio = blk_aio_new(io, e->pool, &errnum);
        if (!e->aio) {
            lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                       "aio=libaio: the host refuses it (%s); leave it out, or aio=threads",
                       g_strerror(errnum));
            return NULL;
        }
    } else if (aio != BLK_AIO_THREADS) {
        int errnum = 0;
        e->uring = blk_uring_new(io, &errnum);
        if (!e->uring && aio == BLK_AIO_URING) {
            lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                       "aio=io_uring: the host refuses it (%s); leave it out, or aio=threads",
                       g_strerror(errnum));
            return NULL;
        }
    }
    return g_steal_pointer(&e);
}

BlkEngine *blk_engine_ref(BlkEngine *e)
{
    e->refs++;
    return e;
}

void blk_engine_unref(BlkEngine *e)
{
    if (!e || --e->refs)
        return;
    blk_uring_free(e->uring);
    blk_aio_free(e->aio);
    blk_pool_free(e->pool);
    blk_pool_free(e->writer);
    g_free(e);
}

const char *blk_engine_kind(const BlkEngine *e)
{
    return e->uring ? "io_uring" : e->aio ? "libaio" : "threads";
}

/* Without io_uring: what lies in the page cache is read at once, as a thread would cost ten times
 * the copy. False: it would wait, or is not to be had this way. */
static bool read_now(BlkReq *req)
{
    const struct iovec *iov;
    unsigned niov;
    uint64_t offset;
    BlkFile *f = blk_xfer(req)->file;

    if (f->direct || blk_xfer_next(req, &iov, &niov, &offset) != 0)
        return false;
    ssize_t r = preadv2(f->fd, iov, niov, offset, RWF_NOWAIT);
    blk_xfer_end(req);
    return r >= 0 && (uint64_t)r == req->len;
}

/* Files in memory: io_uring would hand each request to a thread of the kernel's, which takes longer
 * than the copy. Large ones go that way where there are CPUs for it, so that several of them are
 * copied side by side. */
static bool run_at_once(const BlkEngine *e, BlkReq *req)
{
    return e->uring && blk_xfer(req)->file->instant &&
           (req->op == BLK_FLUSH ||
            ((req->op == BLK_READ || req->op == BLK_WRITE) && req->len <= e->instant_max));
}

/* Where a file system has no buffered writes that do not wait (ext4), io_uring gives them to its
 * threads, one after the other, and wakes us for each; our own takes them by the dozen. */
static bool by_writer(const BlkEngine *e, BlkReq *req)
{
    const BlkFile *f = blk_xfer(req)->file;

    return e->uring && req->op == BLK_WRITE && f->serial && req->len <= WRITER_MAX &&
           (!f->direct || (req->flags & BLK_REQ_META));
}

void blk_engine_submit(BlkEngine *e, BlkReq *req)
{
    if (run_at_once(e, req)) {
        blk_complete(req, blk_file_run(req));
        return;
    }
    if (!e->uring && req->op == BLK_READ && read_now(req)) {
        blk_complete(req, 0);
        return;
    }
    if (by_writer(e, req))
        blk_pool_submit(e->writer, req);
    else if (e->uring && (req->op == BLK_READ || req->op == BLK_WRITE || req->op == BLK_FLUSH))
        blk_uring_submit(e->uring, req);
    else if (e->aio && blk_aio_takes(req))
        blk_aio_submit(e->aio, req);
    else
        blk_pool_submit(e->pool, req);
}
