/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw images: the bytes of the disk as they are. Requests go to the file below unchanged, the
 * request itself, with no child.
 *
 * Where the format was guessed (no format= given), a guest that wrote another format's mark to the
 * start of its disk would have the next start open the image as that format, with a backing file of
 * the guest's choice. So the first sector is copied before it is written, the copy is looked at,
 * and such a write fails with EIO. format=raw lifts this.
 */
#include <errno.h>
#include <string.h>

#include "lodge/diag.h"

#include "block_int.h"

typedef struct BlkRaw {
    BlkNode node;
    bool guard;
    bool warned; /* IoThread only */
} BlkRaw;

/* A write to the first sector, on its way with a copy of that sector. */
typedef struct GuardedWrite {
    BlkReq child;
    BlkReq *parent;
    uint8_t head[BLK_SECTOR];
    struct iovec iov[];
} GuardedWrite;

_Static_assert(BLK_SECTOR >= BLK_PROBE_BYTES, "the guarded sector holds every mark");

static void raw_limits(BlkNode *n, BlkLimits *l)
{
    *l = n->file->limits;
}

static void guarded_done(BlkReq *child, int err)
{
    GuardedWrite *g = child->opaque;
    BlkReq *parent = g->parent;

    g_free(g);
    blk_complete(parent, err);
}

static void guarded_write(BlkRaw *r, BlkReq *req)
{
    GuardedWrite *g =
        g_try_malloc0(sizeof *g + (req->niov + 1) * sizeof(struct iovec));

    if (!g) {
        blk_complete(req, ENOMEM);
        return;
    }
    iov_gather(req->iov, req->niov, 0, g->head, sizeof g->head);
    const char *format = blk_probe_format(g->head);
    if (format) {
        if (!r->warned)
            lodge_warn("disk %s: the guest tried to write the mark of a %s image to the start of "
                       "a disk whose format was guessed; refused; give format=raw to allow it",
                       r->node.name, format);
        r->warned = true;
        g_free(g);
        blk_complete(req, EIO);
        return;
    }
    g->parent = req;
    g->iov[0] = (struct iovec){g->head, sizeof g->head};
    g->child.niov = 1 + iov_slice(req->iov, req->niov, sizeof g->head,
                                  req->len - sizeof g->head, g->iov + 1);
    g->child.op = req->op;
    g->child.fua = req->fua;
    g->child.len = req->len;
    g->child.iov = g->iov;
    g->child.done = guarded_done;
    g->child.opaque = g;
    blk_start(r->node.file, &g->child);
}

static void raw_submit(BlkNode *n, BlkReq *req)
{
    BlkRaw *r = (BlkRaw *)n;

    if (r->guard && req->op == BLK_WRITE && req->offset < BLK_SECTOR && req->len)
        guarded_write(r, req);
    else
        n->file->drv->submit(n->file, req);
}

static void raw_close(BlkNode *n)
{
}

const BlkDriver blk_driver_raw = {
    .name = "raw",
    .instance_size = sizeof(BlkRaw),
    .limits = raw_limits,
    .submit = raw_submit,
    .close = raw_close,
};

BlkNode *blk_raw_new(const char *name, BlkNode *file, bool guard)
{
    BlkNode *n = blk_node_new(&blk_driver_raw, name, file->io, file->engine);

    n->file = file;
    ((BlkRaw *)n)->guard = guard;
    blk_node_ready(n);
    return n;
}
