/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Blocking access to a file that is not on this host: what blk_file_*_at() do by system calls for
 * a descriptor is done here by requests to the node, and waited for.
 *
 * Such a file has the size that it had when it was opened: reads past its end give zeros, as those
 * of a file do, and writes there fail with ENOSPC, as those to a block device do. Where the server
 * takes only blocks (BlkFile.unit), what surrounds a piece is read first; formats, whose metadata
 * such pieces are, write it by one thread at a time.
 *
 * Threads: a format's worker, or main at rest; never the node's IoThread, which does the work.
 */
#include <errno.h>
#include <string.h>

#include "lodge/iothread.h"
#include "lodge/num.h"

#include "block_int.h"

#define PIECE_MAX ((size_t)1 << 20) /* of the buffer for blocks around a piece */

static int run(BlkFile *f, BlkOp op, void *buf, uint64_t offset, uint64_t len)
{
    struct iovec iov = {buf, len};
    BlkReq req = {.op = op, .offset = offset, .len = len, .may_unmap = true};

    if (io_thread_is_current(f->node.io))
        return EDEADLK;
    if (buf) {
        req.iov = &iov;
        req.niov = 1;
    }
    return blk_wait_bytes(&f->node, &req);
}

/* One piece whose blocks fit into PIECE_MAX, reading these whole. */
static int piece(BlkFile *f, bool write, uint8_t *buf, uint64_t offset, size_t len)
{
    uint64_t from = align_down(offset, f->unit), to = align_up(offset + len, f->unit);
    g_autofree uint8_t *blocks = NULL;
    int err;

    if (from == offset && to == offset + len)
        return run(f, write ? BLK_WRITE : BLK_READ, buf, offset, len);
    blocks = g_try_malloc(to - from);
    if (!blocks)
        return ENOMEM;
    err = run(f, BLK_READ, blocks, from, to - from);
    if (err)
        return err;
    if (!write) {
        memcpy(buf, blocks + (offset - from), len);
        return 0;
    }
    memcpy(blocks + (offset - from), buf, len);
    return run(f, BLK_WRITE, blocks, from, to - from);
}

static int pieces(BlkFile *f, bool write, uint8_t *buf, uint64_t offset, size_t len)
{
    int err = 0;

    while (len && !err) {
        size_t part = MIN(len, PIECE_MAX - 2 * f->unit);
        err = piece(f, write, buf, offset, part);
        buf += part;
        offset += part;
        len -= part;
    }
    return err;
}

int blk_remote_read(BlkFile *f, void *buf, size_t len, uint64_t offset)
{
    size_t there = offset >= f->size ? 0 : MIN(len, f->size - offset);

    memset((uint8_t *)buf + there, 0, len - there);
    return pieces(f, false, buf, offset, there);
}

int blk_remote_write(BlkFile *f, const void *buf, size_t len, uint64_t offset)
{
    if (!range_within(offset, len, f->size))
        return ENOSPC;
    return pieces(f, true, (uint8_t *)buf, offset, len);
}

int blk_remote_zero(BlkFile *f, uint64_t offset, uint64_t len)
{
    static const uint8_t zeros[4096];
    int err = 0;

    if (!range_within(offset, len, f->size))
        return ENOSPC;
    while (len && !err) {
        uint64_t part = MIN(len, BLK_DISCARD_MAX);
        if (offset % f->unit || len < f->unit) {
            part = MIN(len, f->unit - offset % f->unit);
            err = piece(f, true, (uint8_t *)zeros, offset, part);
        } else {
            part = align_down(part, f->unit);
            err = run(f, BLK_ZERO, NULL, offset, part);
        }
        offset += part;
        len -= part;
    }
    return err;
}

int blk_remote_truncate(BlkFile *f, uint64_t len)
{
    return len <= f->size ? 0 : ENOSPC;
}
