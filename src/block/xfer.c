/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One request of a file node, cut into the host calls that carry it out. Both engines use this:
 * blk_xfer_next() says what to read or write, blk_xfer_took() takes the answer, until it is done.
 *
 * The first step is normally the caller's own iovec, whole. A step differs only where the host
 * came back short, or where O_DIRECT wants memory aligned better than a guest gave it (a bounce
 * buffer, at most BOUNCE_MAX a step).
 *
 * Invariants: (1) x->done never passes req->len. (2) Bytes of a read that lie past the end of the
 * file are zeros. (3) Bounce and iovec copies are freed by blk_xfer_end(), on every path.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/num.h"

#include "block_int.h"

#define BOUNCE_MAX ((size_t)1 << 20)
#define BOUNCE_ALIGN 4096u
#define STEP_MAX ((size_t)0x7ffff000) /* MAX_RW_COUNT: read(2), "Notes" */

unsigned iov_slice(const struct iovec *iov, unsigned niov, uint64_t skip, uint64_t len,
                   struct iovec *ret_iov)
{
    unsigned n = 0;

    for (unsigned i = 0; i < niov && len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = MIN(iov[i].iov_len - skip, len);
        ret_iov[n].iov_base = (uint8_t *)iov[i].iov_base + skip;
        ret_iov[n++].iov_len = part;
        len -= part;
        skip = 0;
    }
    return n;
}

typedef enum IovDo { IOV_ZERO, IOV_GATHER, IOV_SCATTER } IovDo;

static size_t iov_walk(IovDo what, const struct iovec *iov, unsigned niov, uint64_t skip,
                       uint8_t *buf, uint64_t len)
{
    size_t moved = 0;

    for (unsigned i = 0; i < niov && len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = MIN(iov[i].iov_len - skip, len);
        uint8_t *p = (uint8_t *)iov[i].iov_base + skip;
        if (what == IOV_ZERO)
            memset(p, 0, part);
        else if (what == IOV_GATHER)
            memcpy(buf + moved, p, part);
        else
            memcpy(p, buf + moved, part);
        moved += part;
        len -= part;
        skip = 0;
    }
    return moved;
}

void iov_zero(const struct iovec *iov, unsigned niov, uint64_t skip, uint64_t len)
{
    iov_walk(IOV_ZERO, iov, niov, skip, NULL, len);
}

size_t iov_gather(const struct iovec *iov, unsigned niov, uint64_t skip, void *buf, size_t len)
{
    return iov_walk(IOV_GATHER, iov, niov, skip, buf, len);
}

size_t iov_scatter(const struct iovec *iov, unsigned niov, uint64_t skip, const void *buf,
                   size_t len)
{
    return iov_walk(IOV_SCATTER, iov, niov, skip, (uint8_t *)buf, len);
}

bool buffer_is_zero(const void *buf, size_t len)
{
    static const uint8_t zeros[16];
    const uint8_t *p = buf;

    if (len < sizeof zeros)
        return memcmp(p, zeros, len) == 0;
    /* The rest is compared with itself, 16 bytes off: libc has the fastest loop for that. */
    return memcmp(p, zeros, sizeof zeros) == 0 &&
           memcmp(p, p + sizeof zeros, len - sizeof zeros) == 0;
}

static bool iov_is_aligned(const BlkReq *req, uint32_t align)
{
    for (unsigned i = 0; i < req->niov; i++)
        if (((uintptr_t)req->iov[i].iov_base | req->iov[i].iov_len) & (align - 1))
            return false;
    return true;
}

int blk_xfer_next(BlkReq *req, const struct iovec **ret_iov, unsigned *ret_niov,
                  uint64_t *ret_offset)
{
    BlkXfer *x = blk_xfer(req);
    uint64_t left = req->len - x->done;

    *ret_offset = req->offset + x->done;
    if (x->file->direct && !(req->flags & BLK_REQ_META) && !iov_is_aligned(req, x->file->align)) {
        x->step = MIN(left, BOUNCE_MAX);
        if (!x->bounce &&
            posix_memalign(&x->bounce, BOUNCE_ALIGN, MIN(req->len, BOUNCE_MAX)) != 0) {
            x->bounce = NULL;
            return ENOMEM;
        }
        if (req->op == BLK_WRITE)
            iov_gather(req->iov, req->niov, x->done, x->bounce, x->step);
        x->one.iov_base = x->bounce;
        x->one.iov_len = x->step;
        *ret_iov = &x->one;
        *ret_niov = 1;
        return 0;
    }
    if (x->done == 0 && req->len <= STEP_MAX) {
        x->step = req->len;
        *ret_iov = req->iov;
        *ret_niov = req->niov;
        return 0;
    }
    x->step = MIN(left, STEP_MAX);
    if (!x->iov) {
        x->iov = g_try_new(struct iovec, req->niov);
        if (!x->iov)
            return ENOMEM;
    }
    *ret_niov = iov_slice(req->iov, req->niov, x->done, x->step, x->iov);
    *ret_iov = x->iov;
    return 0;
}

BlkStep blk_xfer_took(BlkReq *req, ssize_t result, int *ret_err)
{
    BlkXfer *x = blk_xfer(req);

    *ret_err = 0;
    if (result == -EAGAIN || result == -EINTR)
        return BLK_STEP_AGAIN;
    if (result < 0) {
        *ret_err = (int)-result;
        return BLK_STEP_DONE;
    }
    if (req->op == BLK_FLUSH)
        return BLK_STEP_DONE;
    if ((size_t)result > x->step) { /* the host broke its word; keeps (1) */
        *ret_err = EIO;
        return BLK_STEP_DONE;
    }
    if (req->op == BLK_WRITE && result == 0) {
        *ret_err = EIO;
        return BLK_STEP_DONE;
    }
    if (x->bounce && req->op == BLK_READ)
        iov_scatter(req->iov, req->niov, x->done, x->bounce, result);
    x->done += result;
    if (req->op == BLK_READ && x->done < req->len &&
        (result == 0 || (x->file->direct && result % x->file->align))) {
        /* End of file; with O_DIRECT it may lie inside a block. Keeps (2). */
        iov_zero(req->iov, req->niov, x->done, req->len - x->done);
        x->done = req->len;
    }
    return x->done == req->len ? BLK_STEP_DONE : BLK_STEP_AGAIN;
}

void blk_xfer_end(BlkReq *req)
{
    BlkXfer *x = blk_xfer(req);

    g_free(x->iov);
    free(x->bounce);
    x->iov = NULL;
    x->bounce = NULL;
}
