/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server's requests: from the wire to the node, and the answers.
 *
 * A request is checked against the export's size and flags before anything is allocated for it but
 * a WRITE's data, which has to be read in any case: at most NBD_PAYLOAD_MAX, more ends the
 * connection. Reads need not be aligned; writes, trims and zeros do, by the block size that is
 * told. Trims and zeros go to the node piece by piece, a block status step by step down the chain
 * of bases, at most STATUS_EXTENTS answers and STATUS_STEPS questions each.
 *
 * FUA behind TRIM and WRITE_ZEROES is a flush. FAST_ZERO is granted where zeros are known to be
 * cheap: raw and qcow2 on a file of a file system that has holes.
 *
 * A read is one chunk, so DF changes nothing. Requests that carry no data back are answered with
 * simple replies, which the protocol allows with structured ones too.
 *
 * Threads: the node's IoThread.
 * Invariant: a task is owned by the block layer while it runs, then by its answer.
 *
 * Spec: NBD project, doc/proto.md, "Transmission phase".
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/num.h"

#include "nbd_server_int.h"

#define DATA_ALIGN 4096u /* as O_DIRECT likes it */
#define STATUS_EXTENTS 512u
#define STATUS_STEPS 4096u
#define SIMPLE_BYTES 16u
#define CHUNK_BYTES 20u
#define EXTENT_BYTES 8u
#define CONTEXT_ID 1u

typedef struct Extent {
    uint32_t len, flags;
} Extent;

struct NbdTask {
    NbdConn *c; /* borrowed, outlives us */
    uint16_t flags, type;
    uint64_t cookie, offset, len; /* as the client said */
    uint32_t refused; /* an error of the protocol that was found before its data came */
    BlkReq req;
    struct iovec iov;
    uint8_t *buf;     /* owned; data, whole blocks */
    uint64_t at, end; /* TRIM, WRITE_ZEROES, BLOCK_STATUS: what has not been asked for yet */
    BlkNode *node;    /* BLOCK_STATUS: where in the chain of bases */
    Extent *extents;  /* owned */
    unsigned n_extents, steps;
};

void nbd_task_free(NbdTask *t)
{
    t->c->tasks--;
    t->c->bytes -= t->type == NBD_CMD_READ || t->type == NBD_CMD_WRITE ? t->len : 0;
    free(t->buf);
    g_free(t->extents);
    g_free(t);
}

uint8_t *nbd_task_data(NbdTask *t, size_t *ret_len)
{
    *ret_len = t->len;
    return t->buf;
}

/* ---- answers ---- */

static uint32_t wire_error(int err)
{
    switch (err) {
    case 0:
        return 0;
    case EPERM:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
        return NBD_ENOSPC;
    case EOPNOTSUPP:
        return NBD_ENOTSUP;
    }
    return NBD_EIO;
}

static void store_chunk(uint8_t *b, const NbdTask *t, uint16_t type, uint32_t len)
{
    store_be32(b, NBD_CHUNK_MAGIC);
    store_be16(b + 4, NBD_CHUNK_DONE);
    store_be16(b + 6, type);
    store_be64(b + 8, t->cookie);
    store_be32(b + 16, len);
}

/* Answer @t, which is then the connection's. */
static void answer(NbdTask *t, uint32_t error)
{
    NbdConn *c = t->c;
    bool chunk = t->type == NBD_CMD_BLOCK_STATUS || (t->type == NBD_CMD_READ && c->structured);
    uint8_t b[CHUNK_BYTES + 8];

    if (chunk && error) {
        store_chunk(b, t, NBD_CHUNK_ERROR, 6);
        store_be32(b + CHUNK_BYTES, error);
        store_be16(b + CHUNK_BYTES + 4, 0); /* no text */
        nbd_conn_send(c, b, CHUNK_BYTES + 6, t, NULL, 0);
        return;
    }
    const uint8_t *data = NULL;
    size_t data_len = 0;
    if (t->type == NBD_CMD_READ && !error) {
        data = t->buf + t->offset % c->server->config.node->limits.align;
        data_len = t->len;
    }
    if (!chunk) {
        store_be32(b, NBD_SIMPLE_MAGIC);
        store_be32(b + 4, error);
        store_be64(b + 8, t->cookie);
        nbd_conn_send(c, b, SIMPLE_BYTES, t, data, data_len);
        return;
    }
    store_chunk(b, t, NBD_CHUNK_OFFSET_DATA, (uint32_t)(8 + data_len));
    store_be64(b + CHUNK_BYTES, t->offset);
    nbd_conn_send(c, b, sizeof b, t, data, data_len);
}

static void answer_status(NbdTask *t)
{
    uint8_t b[CHUNK_BYTES + 4 + STATUS_EXTENTS * EXTENT_BYTES];
    uint32_t len = 4 + t->n_extents * EXTENT_BYTES;

    store_chunk(b, t, NBD_CHUNK_BLOCK_STATUS, len);
    store_be32(b + CHUNK_BYTES, CONTEXT_ID);
    for (unsigned i = 0; i < t->n_extents; i++) {
        store_be32(b + CHUNK_BYTES + 4 + i * EXTENT_BYTES, t->extents[i].len);
        store_be32(b + CHUNK_BYTES + 8 + i * EXTENT_BYTES, t->extents[i].flags);
    }
    nbd_conn_send(t->c, b, CHUNK_BYTES + len, t, NULL, 0);
}

/* ---- the node ---- */

/* The node has answered: go on, or answer. Context: the loop, no submit on the stack. */
static void task_done(BlkReq *req, int err);

static void submit(NbdTask *t, BlkNode *n, BlkOp op, uint64_t offset, uint64_t len)
{
    bool data = op == BLK_READ || op == BLK_WRITE;

    t->iov = (struct iovec){t->buf, len};
    t->req = (BlkReq){.op = op, .offset = offset, .len = len, .done = task_done, .opaque = t,
                      .iov = data ? &t->iov : NULL, .niov = data ? 1 : 0,
                      .fua = op == BLK_WRITE && t->flags & NBD_FLAG_FUA,
                      .may_unmap = !(t->flags & NBD_FLAG_NO_HOLE)};
    t->c->running++;
    blk_submit(n, &t->req);
}

/* The next piece of a TRIM or WRITE_ZEROES. False: there is none. */
static bool next_piece(NbdTask *t)
{
    BlkNode *n = t->c->server->config.node;
    uint64_t len = MIN(t->end - t->at, align_down(n->limits.discard_max, n->limits.align));

    if (!len)
        return false;
    t->at += len;
    submit(t, n, t->type == NBD_CMD_TRIM ? BLK_DISCARD : BLK_ZERO, t->at - len, len);
    return true;
}

/* Ask t->node what there is at t->at, no more than @len bytes. */
static void ask_status(NbdTask *t, uint64_t len)
{
    submit(t, t->node, BLK_STATUS, t->at, MIN(len, t->node->limits.size - t->at));
}

/* From t->at on @len bytes have @flags. */
static void add_extent(NbdTask *t, uint64_t len, uint32_t flags)
{
    uint64_t from = MAX(t->at, t->offset), to = MIN(t->at + len, t->offset + t->len);
    Extent *last = t->n_extents ? &t->extents[t->n_extents - 1] : NULL;

    t->at += len;
    if (to <= from)
        return;
    if (last && last->flags == flags)
        last->len += (uint32_t)(to - from); /* at most t->len, 32 bits */
    else
        t->extents[t->n_extents++] = (Extent){(uint32_t)(to - from), flags};
}

/* True: all is known that will be told. */
static bool status_enough(const NbdTask *t)
{
    return t->at >= t->end || t->n_extents == STATUS_EXTENTS || t->steps >= STATUS_STEPS ||
           (t->flags & NBD_FLAG_REQ_ONE && t->n_extents);
}

/* Take the answer of t->node. */
static void status_step(NbdTask *t)
{
    const BlkReq *r = &t->req;
    BlkNode *base = t->node->base;
    uint64_t len = MIN(r->len, r->status_len);

    t->steps++;
    if (r->status == BLK_ST_BELOW && base && t->at < base->limits.size) {
        t->node = base;
        ask_status(t, len);
        return;
    }
    add_extent(t, len, r->status == BLK_ST_DATA ? 0 : NBD_STATE_HOLE | NBD_STATE_ZERO);
    t->node = t->c->server->config.node;
    if (status_enough(t))
        answer_status(t);
    else
        ask_status(t, t->end - t->at);
}

static void task_done(BlkReq *req, int err)
{
    NbdTask *t = req->opaque;
    NbdConn *c = t->c;

    if (c->fd < 0) {
        nbd_task_free(t);
        nbd_conn_back(c);
        return;
    }
    if (nbd_conn_back(c))
        return;
    bool pieces = t->type == NBD_CMD_TRIM || t->type == NBD_CMD_WRITE_ZEROES;
    if (err) {
        answer(t, wire_error(err));
    } else if (t->type == NBD_CMD_BLOCK_STATUS) {
        if (req->status_len)
            status_step(t);
        else
            answer(t, NBD_EIO);
    } else if (pieces && req->op != BLK_FLUSH && next_piece(t)) {
        return;
    } else if (pieces && req->op != BLK_FLUSH && t->flags & NBD_FLAG_FUA) {
        submit(t, c->server->config.node, BLK_FLUSH, 0, 0);
        return;
    } else {
        answer(t, 0);
    }
    nbd_conn_run(c);
}

/* Room for the whole blocks that @t touches. */
static bool make_room(NbdTask *t, uint32_t align)
{
    uint64_t from = align_down(t->offset, align), to = align_up(t->offset + t->len, align);
    void *buf;

    if (posix_memalign(&buf, DATA_ALIGN, MAX(to - from, DATA_ALIGN)) != 0)
        return false;
    t->buf = buf;
    return true;
}

void nbd_task_go(NbdTask *t)
{
    BlkNode *n = t->c->server->config.node;
    uint32_t align = n->limits.align;

    t->at = align_down(t->offset, align);
    t->end = t->offset + t->len;
    if (t->refused) {
        answer(t, t->refused);
        return;
    }
    switch (t->type) {
    case NBD_CMD_READ:
        submit(t, n, BLK_READ, t->at, align_up(t->end, align) - t->at);
        return;
    case NBD_CMD_WRITE:
        submit(t, n, BLK_WRITE, t->offset, t->len);
        return;
    case NBD_CMD_FLUSH:
        submit(t, n, BLK_FLUSH, 0, 0);
        return;
    case NBD_CMD_TRIM:
    case NBD_CMD_WRITE_ZEROES:
        if (!next_piece(t))
            answer(t, 0);
        return;
    case NBD_CMD_BLOCK_STATUS:
        t->node = n;
        t->end = align_up(t->end, align);
        t->extents = g_try_new(Extent, STATUS_EXTENTS);
        if (t->extents)
            ask_status(t, t->end - t->at);
        else
            answer(t, NBD_ENOMEM);
    }
}

/* ---- from the wire ---- */

static uint16_t known_flags(uint16_t type)
{
    switch (type) {
    case NBD_CMD_READ:
        return NBD_FLAG_FUA | NBD_FLAG_DF;
    case NBD_CMD_WRITE_ZEROES:
        return NBD_FLAG_FUA | NBD_FLAG_NO_HOLE | NBD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_FLAG_FUA | NBD_FLAG_REQ_ONE;
    }
    return NBD_FLAG_FUA;
}

static bool zero_is_fast(BlkNode *n)
{
    const BlkFile *f = blk_file_under(n);

    return (n->drv == &blk_driver_raw || n->drv == &blk_driver_qcow2) && !f->block_device &&
           !f->no_punch && !f->no_zero_range;
}

/* Why @t cannot be done; 0: it can. */
static uint32_t check(const NbdTask *t)
{
    const NbdConn *c = t->c;
    const NbdServerConfig *s = &c->server->config;
    const BlkLimits *l = &s->node->limits;
    bool writes = t->type == NBD_CMD_WRITE || t->type == NBD_CMD_TRIM ||
                  t->type == NBD_CMD_WRITE_ZEROES;
    bool grows = t->type == NBD_CMD_WRITE || t->type == NBD_CMD_WRITE_ZEROES;

    if (t->flags & ~known_flags(t->type))
        return NBD_EINVAL;
    if (t->type == NBD_CMD_FLUSH)
        return t->offset || t->len ? NBD_EINVAL : 0;
    if (writes && !s->writable)
        return NBD_EPERM;
    if (!range_within(t->offset, t->len, l->size))
        return grows ? NBD_ENOSPC : NBD_EINVAL;
    if (writes && (t->offset | t->len) & (l->align - 1))
        return NBD_EINVAL;
    switch (t->type) {
    case NBD_CMD_READ:
    case NBD_CMD_WRITE:
        return t->len && t->len <= NBD_PAYLOAD_MAX ? 0 : NBD_EINVAL;
    case NBD_CMD_TRIM:
        return l->discard_max ? 0 : NBD_EINVAL;
    case NBD_CMD_WRITE_ZEROES:
        return !l->discard_max                                         ? NBD_EINVAL
               : t->flags & NBD_FLAG_FAST_ZERO && !zero_is_fast(s->node) ? NBD_ENOTSUP
                                                                         : 0;
    case NBD_CMD_BLOCK_STATUS:
        return c->meta && t->len ? 0 : NBD_EINVAL;
    }
    return NBD_EINVAL; /* not known */
}

ssize_t nbd_request(NbdConn *c, const uint8_t *p, size_t len)
{
    if (len < NBD_REQUEST_BYTES)
        return 0;
    uint16_t type = load_be16(p + 6);
    uint32_t data_len = load_be32(p + 24);
    bool data = type == NBD_CMD_READ || type == NBD_CMD_WRITE;
    if (load_be32(p) != NBD_REQUEST_MAGIC || (type == NBD_CMD_WRITE && data_len > NBD_PAYLOAD_MAX))
        return -1;
    if (type == NBD_CMD_DISC) {
        nbd_conn_hang_up(c, true);
        return NBD_REQUEST_BYTES;
    }
    uint32_t counted = data ? data_len : 0;
    if (c->tasks >= NBD_TASKS_MAX || (c->tasks && c->bytes + counted > NBD_BYTES_MAX))
        return 0; /* until an answer has left */
    NbdTask *t = g_try_new0(NbdTask, 1);
    if (!t)
        return -1;
    t->c = c;
    t->flags = load_be16(p + 4);
    t->type = type;
    t->cookie = load_be64(p + 8);
    t->offset = load_be64(p + 16);
    t->len = data_len;
    c->tasks++;
    c->bytes += counted;
    t->refused = check(t);
    bool is_write = type == NBD_CMD_WRITE && t->len;
    if (is_write && t->refused) { /* its data is on the way, for nothing */
        t->offset = 0;
    }
    if ((is_write || (type == NBD_CMD_READ && !t->refused)) &&
        !make_room(t, c->server->config.node->limits.align)) {
        t->refused = NBD_ENOMEM;
        if (is_write) { /* nowhere to put it */
            nbd_task_free(t);
            return -1;
        }
    }
    if (is_write) {
        c->payload = t;
        c->payload_got = 0;
    } else {
        nbd_task_go(t);
    }
    return NBD_REQUEST_BYTES;
}
