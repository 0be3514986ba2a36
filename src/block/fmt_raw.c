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

/* A write to the first or the last sector, on its way with copies of those. */
typedef struct GuardedWrite {
    BlkReq child;
    BlkReq *parent;
    BlkProbe copy;
    struct iovec iov[];
} GuardedWrite;

_Static_assert(BLK_SECTOR == BLK_PROBE_BYTES, "the guarded sectors hold every mark");

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
    /* The copies go in front of and behind the rest, which goes as it came. */
    bool first = req->offset == 0;
    bool last = req->offset + req->len == r->node.limits.size && (!first || req->len > BLK_SECTOR);
    uint64_t head = first ? BLK_SECTOR : 0, tail = last ? BLK_SECTOR : 0;
    GuardedWrite *g = g_try_malloc0(sizeof *g + (req->niov + 2) * sizeof(struct iovec));

    if (!g) {
        blk_complete(req, ENOMEM);
        return;
    }
    iov_gather(req->iov, req->niov, 0, g->copy.head, head);
    iov_gather(req->iov, req->niov, req->len - tail, g->copy.tail, tail);
    if (first && req->len == r->node.limits.size && !last)
        memcpy(g->copy.tail, g->copy.head, BLK_SECTOR); /* a disk of one sector */
    const char *format = blk_probe_format(&g->copy);
    if (format) {
        if (!r->warned)
            lodge_warn("disk %s: the guest tried to write the mark of a %s image to the %s of "
                       "a disk whose format was guessed; refused; give format=raw to allow it",
                       r->node.name, format, first ? "start" : "end");
        r->warned = true;
        g_free(g);
        blk_complete(req, EIO);
        return;
    }
    g->parent = req;
    unsigned n = 0;
    if (head)
        g->iov[n++] = (struct iovec){g->copy.head, head};
    n += iov_slice(req->iov, req->niov, head, req->len - head - tail, g->iov + n);
    if (tail)
        g->iov[n++] = (struct iovec){g->copy.tail, tail};
    g->child.niov = n;
    g->child.op = req->op;
    g->child.fua = req->fua;
    g->child.offset = req->offset;
    g->child.len = req->len;
    g->child.iov = g->iov;
    g->child.done = guarded_done;
    g->child.opaque = g;
    blk_start(r->node.file, &g->child);
}

static void raw_submit(BlkNode *n, BlkReq *req)
{
    BlkRaw *r = (BlkRaw *)n;

    if (r->guard && req->op == BLK_WRITE && req->len &&
        (req->offset == 0 || req->offset + req->len == n->limits.size))
        guarded_write(r, req);
    else
        n->file->drv->submit(n->file, req);
}

static bool raw_open(BlkNode *n, const BlkOpenHow *how, BlkBaseRef *ret_base, GError **error)
{
    ((BlkRaw *)n)->guard = how->guessed && !how->read_only;
    return true;
}

static void raw_close(BlkNode *n)
{
}

static bool raw_create(const BlkCreate *c, GError **error)
{
    return blk_new_file_size(c->file, c->size, error);
}

static bool raw_resize(BlkNode *n, uint64_t size, bool shrink, GError **error)
{
    BlkFile *f = (BlkFile *)n->file;

    if (f->block_device)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': is a %s, whose size is not ours to change", f->path,
                          f->remote ? "network block device" : "block device");
    int err = blk_file_truncate(f, size);
    return !err || lodge_fail_errno(error, err, "'%s': cannot change its size", f->path);
}

const BlkDriver blk_driver_raw = {
    .name = "raw",
    .instance_size = sizeof(BlkRaw),
    .open = raw_open,
    .limits = raw_limits,
    .submit = raw_submit,
    .close = raw_close,
    .create = raw_create,
    .resize = raw_resize,
};
