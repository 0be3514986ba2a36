/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An export of an NBD server as the bottom of a disk, by libnbd.
 *
 * A request becomes up to WINDOW commands at a time, each within the server's limits. Memory that
 * is one piece goes to the library as it is, else by a copy. What the server cannot do is made up
 * for: FUA by a flush, ZERO by written zeros; a DISCARD that it has not is without effect, as
 * advice may be. STATUS asks the context base:allocation; without it all is data. A size that is
 * no multiple of a sector is rounded up: zeros are read behind the end, and only zeros fit there.
 *
 * When the connection ends, or nothing is answered for STALL_S, what is under way fails with EIO,
 * as does all else until the server is back; attempts follow each other with growing pauses, in
 * host time, since a machine that waits for its disk stands still. Writes that were not flushed may
 * be lost with the server, so the next flush fails once. An export that came back with another
 * size, or read-only, is not taken.
 *
 * Threads: the IoThread only, but for open (main) and close (main, by a call on the loop).
 * Invariants: (1) the library calls back with its lock held, so callbacks only note what they are
 * told (n->finished); settle() acts on it, behind each call of the library. (2) A request ends when
 * the library has let go of its memory: all commands answered, or the handle closed. (3) A piece
 * that is busy is known to the library and no longer once it was called back.
 *
 * Spec: NBD project, doc/proto.md; libnbd(3), "ISSUING ASYNCHRONOUS COMMANDS", "CALLBACKS".
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

#include "block_int.h"
#include "nbd_connect.h"

#define WINDOW 8u                  /* commands of one request at a time */
#define DATA_MAX (32 * MIB)        /* protocol, "Block size constraints": the default */
#define STATUS_MAX ((uint64_t)1 << 30)
#define ZERO_PIECE ((uint32_t)64 << 10) /* where zeros are written by hand */
#define STALL_S 30
#define PAUSE_FIRST_MS 100u
#define PAUSE_MAX_MS 5000u

enum { STATE_HOLE = 1, STATE_ZERO = 2 }; /* protocol, "base:allocation" */

typedef struct NbdOp NbdOp;

typedef struct NbdPiece {
    NbdOp *op;
    struct NbdPiece *next; /* in finished */
    int err;
    bool busy;
} NbdPiece;

typedef struct BlkNbd {
    BlkFile file;
    /* constant after open */
    NbdLib *lib; /* ref */
    NbdUri *uri; /* owned */
    uint64_t piece_max;   /* bytes of data in a command */
    bool flush, fua, trim, zero, status; /* what the server can do */
    /* IoThread only */
    NbdHandle *h; /* owned; NULL: there is no connection */
    IoWatch *watch; /* owned; of h's socket */
    uint32_t events; /* of watch */
    int timer_fd;   /* owned; stalls while there is a connection, pauses while there is none */
    IoWatch *timer; /* owned */
    bool armed;
    NbdTry *trying; /* owned, or NULL */
    unsigned pause_ms;
    bool refused; /* the operator knows that the export that came back is another one */
    bool settling;
    NbdPiece *finished;
    GQueue ops;        /* NbdOp that have a command under way */
    uint64_t written;  /* writes done so far */
    uint64_t flushed;  /* of them, known to be on the server's disk */
    bool lost;         /* a connection ended with written > flushed; the next flush tells */
} BlkNbd;

/* A request on its way. */
struct NbdOp {
    BlkNbd *n;   /* not req->node: a raw disk hands its requests on as they are */
    BlkReq *req;
    GList link; /* of n->ops */
    uint8_t *data; /* the request's memory or bounce; READ and WRITE */
    uint8_t *bounce; /* owned, or NULL */
    uint64_t next, end; /* bytes of the export that no command has been sent for */
    uint64_t written;   /* FLUSH: n->written at its start */
    unsigned flying;
    int err;
    bool syncing; /* what FUA stands for is under way */
    NbdPiece pieces[WINDOW];
};

static const uint8_t zero_data[ZERO_PIECE];

static BlkNbd *nbd_of(BlkNode *n)
{
    return (BlkNbd *)n;
}

static void settle(BlkNbd *n);
static void reconnect(BlkNbd *n);

/* ---- the timer ---- */

/* 0 disarms. */
static void arm(BlkNbd *n, unsigned ms)
{
    struct itimerspec at = {.it_value = {ms / 1000, (long)(ms % 1000) * 1000000}};

    n->armed = ms != 0;
    (void)timerfd_settime(n->timer_fd, 0, &at, NULL); /* fails for wrong values only */
}

/* ---- commands ---- */

static int piece_done(void *opaque, int *error)
{
    NbdPiece *p = opaque;
    BlkNbd *n = p->op->n;

    p->err = *error;
    p->next = n->finished;
    n->finished = p; /* keeps (1) */
    return 1;
}

static int extents_told(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
                        size_t n_entries, int *error)
{
    NbdOp *op = ((NbdPiece *)opaque)->op;
    BlkReq *req = op->req;
    const BlkNbd *n = op->n;
    uint64_t len = 0, left = op->end - req->offset;
    bool zero = false;

    if (strcmp(context, "base:allocation") != 0 || offset != req->offset || n_entries < 2)
        return 0;
    for (size_t i = 0; i + 1 < n_entries && len < left; i += 2) {
        bool this_zero = entries[i + 1] & STATE_ZERO;
        if (i && this_zero != zero)
            break;
        zero = this_zero;
        len += entries[i];
    }
    len = MIN(len, left);
    if (len == left && op->end == n->file.size)
        len = req->len; /* what is behind the end goes with what is before */
    len = zero ? align_down(len, BLK_SECTOR) : MIN(req->len, align_up(len, BLK_SECTOR));
    if (!len) { /* the hole ends inside this sector, or the server says nothing */
        zero = false;
        len = BLK_SECTOR;
    }
    req->status = zero ? BLK_ST_BELOW : BLK_ST_DATA;
    req->status_offset = zero ? BLK_NO_OFFSET : req->offset;
    req->status_len = len;
    return 0;
}

/* Bytes of the next command of @op. */
static uint64_t piece_len(const BlkNbd *n, const NbdOp *op)
{
    uint64_t left = op->end - op->next, most = BLK_DISCARD_MAX;

    switch (op->req->op) {
    case BLK_READ:
    case BLK_WRITE:
        most = n->piece_max;
        break;
    case BLK_STATUS:
        most = STATUS_MAX;
        break;
    case BLK_ZERO:
        if (!n->zero)
            most = MIN(n->piece_max, ZERO_PIECE);
        break;
    default:
        break;
    }
    return MIN(left, most);
}

/* Send the next command of @op. Return: 0, or errno: nothing was sent. */
static int send_piece(BlkNbd *n, NbdOp *op, NbdPiece *p)
{
    const NbdLib *lib = n->lib;
    BlkReq *req = op->req;
    NbdLibDone done = {piece_done, p, NULL};
    uint64_t at = op->next, len = piece_len(n, op);
    uint32_t flags = req->fua && n->fua ? NBD_LIB_FUA : 0;
    uint8_t *data = op->data ? op->data + (at - req->offset) : NULL;
    int64_t r = -1;

    if (op->syncing || req->op == BLK_FLUSH) {
        r = lib->aio_flush(n->h, done, 0);
        len = op->end - op->next;
    } else if (req->op == BLK_READ) {
        r = lib->aio_pread(n->h, data, len, at, done, 0);
    } else if (req->op == BLK_WRITE) {
        r = lib->aio_pwrite(n->h, data, len, at, done, flags);
    } else if (req->op == BLK_ZERO && !n->zero) {
        r = lib->aio_pwrite(n->h, zero_data, len, at, done, flags);
    } else if (req->op == BLK_ZERO) {
        r = lib->aio_zero(n->h, len, at, done,
                          flags | (req->may_unmap ? 0 : NBD_LIB_NO_HOLE));
    } else if (req->op == BLK_DISCARD) {
        r = lib->aio_trim(n->h, len, at, done, flags);
    } else if (req->op == BLK_STATUS) {
        r = lib->aio_block_status(n->h, len, at, (NbdLibExtents){extents_told, p, NULL}, done, 0);
    }
    if (r < 0)
        return EIO;
    p->busy = true;
    op->flying++;
    op->next += len;
    return 0;
}

/* Send what the window has room for. */
static void send_more(BlkNbd *n, NbdOp *op)
{
    for (unsigned i = 0; i < WINDOW && op->next < op->end && !op->err; i++)
        if (!op->pieces[i].busy)
            op->err = n->h ? send_piece(n, op, &op->pieces[i]) : EIO;
}

static int as_errno(int err)
{
    return err == ENOSPC || err == ENOMEM ? err : EIO; /* others tell of the connection */
}

static void op_end(BlkNbd *n, NbdOp *op)
{
    BlkReq *req = op->req;
    int err = op->err;

    g_queue_unlink(&n->ops, &op->link);
    if (!err && req->op == BLK_READ) {
        uint64_t got = op->end - req->offset;
        if (op->bounce)
            iov_scatter(req->iov, req->niov, 0, op->bounce, got);
        iov_zero(req->iov, req->niov, got, req->len - got);
    }
    if (!err && (req->op == BLK_WRITE || req->op == BLK_ZERO) && !req->fua)
        n->written++;
    if (!err && req->op == BLK_FLUSH)
        n->flushed = MAX(n->flushed, op->written);
    g_free(op->bounce);
    g_free(op);
    blk_complete(req, err);
}

/* All commands so far are answered. */
static void op_step(BlkNbd *n, NbdOp *op)
{
    bool sync = op->req->fua && !n->fua && n->flush && op->req->op != BLK_FLUSH;

    if (!op->err && op->next < op->end) {
        send_more(n, op);
    } else if (!op->err && !op->flying && sync && !op->syncing) {
        op->syncing = true;
        op->err = n->h ? send_piece(n, op, &op->pieces[0]) : EIO;
    }
    if (!op->flying)
        op_end(n, op);
}

/* ---- requests ---- */

/* 0, or the errno that @req ends with before a command is made. */
static int op_data(NbdOp *op)
{
    BlkReq *req = op->req;
    uint64_t there = op->end - req->offset;

    if (req->op != BLK_READ && req->op != BLK_WRITE)
        return 0;
    if (req->niov == 1) {
        op->data = req->iov->iov_base;
    } else {
        op->bounce = g_try_malloc(req->len);
        if (!op->bounce)
            return ENOMEM;
        op->data = op->bounce;
        if (req->op == BLK_WRITE)
            iov_gather(req->iov, req->niov, 0, op->bounce, req->len);
    }
    if (req->op == BLK_WRITE && there < req->len &&
        !buffer_is_zero(op->data + there, req->len - there))
        return ENOSPC; /* behind the export's last byte */
    return 0;
}

/* Whether @req can be answered without the server; *ret_err: how. */
static bool answer_here(BlkNbd *n, BlkReq *req, int *ret_err)
{
    *ret_err = 0;
    switch (req->op) {
    case BLK_FLUSH:
        if (n->file.unsafe || n->file.read_only || !n->flush)
            return true;
        if (!n->lost)
            break;
        n->lost = false;
        *ret_err = EIO;
        return true;
    case BLK_DISCARD:
        if (!n->trim || !req->len)
            return true;
        break;
    case BLK_STATUS:
        if (n->status && req->offset < n->file.size)
            break;
        req->status = n->status ? BLK_ST_BELOW : BLK_ST_DATA;
        req->status_offset = n->status ? BLK_NO_OFFSET : req->offset;
        req->status_len = req->len;
        return true;
    default:
        if (!req->len)
            return true;
    }
    *ret_err = EIO;
    return !n->h;
}

static void nbd_submit(BlkNode *node, BlkReq *req)
{
    BlkNbd *n = nbd_of(node);
    int err;

    if (answer_here(n, req, &err)) {
        blk_complete(req, err);
        return;
    }
    if (n->file.unsafe)
        req->fua = false;
    NbdOp *op = g_try_new0(NbdOp, 1);
    if (!op) {
        blk_complete(req, ENOMEM);
        return;
    }
    op->n = n;
    op->req = req;
    op->link.data = op;
    op->next = req->op == BLK_FLUSH ? 0 : req->offset;
    op->end = req->op == BLK_FLUSH ? 1 : MIN(req->offset + req->len, n->file.size);
    if (req->op == BLK_STATUS) {
        op->end = MIN(op->end, op->next + STATUS_MAX);
        req->status = BLK_ST_DATA; /* unless the server says otherwise */
        req->status_offset = req->offset;
        req->status_len = MIN(req->len, STATUS_MAX);
    }
    op->end = MAX(op->end, op->next);
    op->written = n->written;
    for (unsigned i = 0; i < WINDOW; i++)
        op->pieces[i].op = op;
    g_queue_push_tail_link(&n->ops, &op->link);
    op->err = op_data(op);
    if (!op->err)
        op_step(n, op);
    else
        op_end(n, op);
    settle(n);
}

/* ---- the connection ---- */

static void drop_connection(BlkNbd *n)
{
    io_watch_free(g_steal_pointer(&n->watch));
    if (n->h)
        n->lib->close(n->h); /* calls back for what is left, or forgets it */
    n->h = NULL;
    arm(n, 0);
}

/* Pieces that the library was called back for, and with @all those that it forgot. */
static void take_finished(BlkNbd *n, bool all)
{
    while (n->finished) {
        NbdPiece *p = n->finished;
        NbdOp *op = p->op;
        n->finished = p->next;
        p->busy = false;
        op->flying--;
        if (p->err && !op->err)
            op->err = as_errno(p->err);
        op_step(n, op);
    }
    if (!all)
        return;
    for (GList *l = n->ops.head, *next; l; l = next) {
        NbdOp *op = l->data;
        next = l->next;
        op->err = EIO;
        op->flying = 0; /* the handle is closed: keeps (2) */
        op_end(n, op);
    }
}

static void lost(BlkNbd *n, const char *why)
{
    bool told = n->pause_ms != 0;

    drop_connection(n);
    if (n->flush && n->written > n->flushed)
        n->lost = true;
    n->flushed = n->written;
    if (!told)
        lodge_warn("disk %s: '%s': %s; its requests fail until it is back, which is tried again "
                   "and again", n->file.node.name, n->file.path, why);
    n->pause_ms = PAUSE_FIRST_MS;
    take_finished(n, true);
    reconnect(n);
}

static void update_events(BlkNbd *n)
{
    unsigned dir = n->lib->aio_get_direction(n->h);
    uint32_t events = (dir & NBD_LIB_READ ? EPOLLIN : 0) | (dir & NBD_LIB_WRITE ? EPOLLOUT : 0);

    if (events != n->events)
        io_watch_set(n->watch, events);
    n->events = events;
}

/* Act on what the library noted. Context: outside of its callbacks. */
static void settle(BlkNbd *n)
{
    if (n->settling || !n->h)
        return;
    n->settling = true;
    bool progress = n->finished;
    take_finished(n, false);
    if (n->lib->aio_is_dead(n->h) > 0 || n->lib->aio_is_closed(n->h) > 0) {
        lost(n, "the server went away");
    } else {
        update_events(n);
        if (!n->ops.length && n->armed)
            arm(n, 0);
        else if (n->ops.length && (progress || !n->armed))
            arm(n, STALL_S * 1000);
    }
    n->settling = false;
}

static void on_socket(void *opaque, uint32_t events)
{
    BlkNbd *n = opaque;
    unsigned dir = n->lib->aio_get_direction(n->h);

    /* One that fails says so by the handle's state. A hang-up is read, so that it is seen. */
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && dir & NBD_LIB_READ)
        (void)n->lib->aio_notify_read(n->h);
    else if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && dir & NBD_LIB_WRITE)
        (void)n->lib->aio_notify_write(n->h);
    settle(n);
}

/* Take @h, which is ready. Context: the loop. */
static bool take_connection(BlkNbd *n, NbdHandle *h, GError **error)
{
    n->h = h;
    n->events = EPOLLIN;
    n->watch = io_watch_new(n->file.node.io, n->lib->aio_get_fd(h), n->events, on_socket, n, error);
    if (n->watch)
        return true;
    drop_connection(n);
    return false;
}

static bool same_export(BlkNbd *n, NbdHandle *h, GError **error)
{
    int64_t size = n->lib->get_size(h);

    if (size < 0 || (uint64_t)size != n->file.size)
        return lodge_fail(error, LODGE_ERROR_HOST, "is back with another size, and is not used");
    return n->file.read_only || n->lib->is_read_only(h) == 0 ||
           lodge_fail(error, LODGE_ERROR_HOST, "is back read-only, and is not used");
}

static void tried(void *opaque)
{
    BlkNbd *n = opaque;
    g_autoptr(GError) error = NULL;
    NbdHandle *h = nbd_try_take(n->trying, NULL);

    nbd_try_drop(g_steal_pointer(&n->trying));
    if (h && !same_export(n, h, &error)) {
        n->lib->close(h);
        if (!n->refused)
            lodge_warn("disk %s: '%s': %s", n->file.node.name, n->file.path, error->message);
        n->refused = true;
        h = NULL;
    }
    if (!h || !take_connection(n, h, NULL)) {
        arm(n, n->pause_ms);
        n->pause_ms = MIN(n->pause_ms * 2, PAUSE_MAX_MS);
        return;
    }
    n->pause_ms = 0;
    n->refused = false;
    lodge_note("disk %s: '%s': the server is back", n->file.node.name, n->file.path);
    settle(n);
}

static void reconnect(BlkNbd *n)
{
    n->trying = nbd_try_new(n->lib, n->uri, n->file.node.io, tried, n);
}

static void on_timer(void *opaque, uint32_t events)
{
    BlkNbd *n = opaque;
    uint64_t count;

    if (read(n->timer_fd, &count, sizeof count) != sizeof count || !n->armed)
        return; /* it was set anew meanwhile */
    n->armed = false;
    if (n->h && n->ops.length)
        lost(n, "the server does not answer");
    else if (!n->h && !n->trying)
        reconnect(n);
}

/* ---- open and close ---- */

static void nbd_limits(BlkNode *node, BlkLimits *l)
{
    BlkFile *f = &nbd_of(node)->file;

    l->size = align_up(f->size, f->align);
    l->discard_max = f->read_only ? 0 : BLK_DISCARD_MAX;
    l->align = f->align;
    l->block = 4096;
    l->max_iov = BLK_MAX_IOV;
    l->read_only = f->read_only;
}

static void leave_loop(void *opaque)
{
    BlkNbd *n = opaque;

    nbd_try_drop(g_steal_pointer(&n->trying));
    if (n->h) /* the server hears a good-bye, where there is room for it now */
        (void)n->lib->aio_disconnect(n->h, 0);
    if (n->timer_fd >= 0)
        drop_connection(n);
    io_watch_free(g_steal_pointer(&n->timer));
}

static void nbd_close(BlkNode *node)
{
    BlkNbd *n = nbd_of(node);

    if (n->lib)
        io_thread_call(node->io, leave_loop, n);
    if (n->timer_fd >= 0)
        close(n->timer_fd);
    nbd_lib_unref(n->lib);
    nbd_uri_free(n->uri);
    g_free(n->file.path);
}

const BlkDriver blk_driver_nbd = {
    .name = "nbd",
    .flags = BLK_DRV_PROTOCOL,
    .instance_size = sizeof(BlkNbd),
    .limits = nbd_limits,
    .submit = nbd_submit,
    .close = nbd_close,
};

bool blk_is_remote(const char *path)
{
    return nbd_uri_is(path);
}

/* What the server says of the export. */
static bool read_export(BlkNbd *n, NbdHandle *h, bool empty_ok, GError **error)
{
    const NbdLib *lib = n->lib;
    BlkFile *f = &n->file;
    int64_t size = lib->get_size(h), least = lib->get_block_size(h, NBD_LIB_SIZE_MIN),
            most = lib->get_block_size(h, NBD_LIB_SIZE_MAX);

    if (size < 0 || (uint64_t)size > BLK_MAX_SIZE)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': over 2^62 bytes", f->path);
    if (size == 0 && !empty_ok)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': is empty; give it a size on the server",
                          f->path);
    if (!f->read_only && lib->is_read_only(h) != 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': the server offers it read-only; add ,ro to use it so, or make an "
                          "overlay (base=)", f->path);
    f->size = (uint64_t)size;
    f->unit = least > 0 ? (uint32_t)least : 1;
    f->align = f->unit > BLK_SECTOR ? 4096 : BLK_SECTOR;
    if (!is_power_of_two(f->unit) || f->unit > f->align || (uint64_t)size % f->unit)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': the server takes blocks of %u bytes; up to 4096 are supported",
                          f->path, f->unit);
    n->piece_max = most > 0 ? MIN((uint64_t)most, DATA_MAX) : DATA_MAX;
    n->piece_max = MAX(align_down(n->piece_max, f->align), f->align);
    n->flush = lib->can_flush(h) > 0;
    n->fua = lib->can_fua(h) > 0;
    n->trim = lib->can_trim(h) > 0;
    n->zero = lib->can_zero(h) > 0;
    n->status = lib->can_meta_context(h, "base:allocation") > 0;
    return true;
}

typedef struct Entry {
    BlkNbd *n;
    NbdHandle *h;
    GError **error;
    bool ok;
} Entry;

static void enter_loop(void *opaque)
{
    Entry *e = opaque;

    e->ok = take_connection(e->n, e->h, e->error);
}

static bool connect_first(BlkNbd *n, const BlkFileOpen *o, GError **error)
{
    NbdTry *t = nbd_try_new(n->lib, n->uri, NULL, NULL, NULL);
    g_autoptr(GError) why = NULL;
    NbdHandle *h = nbd_try_wait(t, &why);

    nbd_try_drop(t);
    if (!h)
        return lodge_fail(error, LODGE_ERROR_HOST, "'%s': %s", o->path, why->message);
    Entry e = {.n = n, .h = h, .error = error};
    if (!read_export(n, h, o->empty_ok, error)) {
        n->lib->close(h);
        return false;
    }
    n->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (n->timer_fd < 0) {
        n->lib->close(h);
        return lodge_fail_errno(error, errno, "'%s': cannot make a timer", o->path);
    }
    n->timer = io_watch_new(n->file.node.io, n->timer_fd, EPOLLIN, on_timer, n, error);
    if (!n->timer) {
        n->lib->close(h);
        return false;
    }
    io_thread_call(n->file.node.io, enter_loop, &e);
    return e.ok;
}

BlkFile *blk_nbd_open(const char *name, const BlkFileOpen *o, IoThread *io, BlkEngine *engine,
                      GError **error)
{
    BlkNode *node = blk_node_new(&blk_driver_nbd, name, io, engine);
    BlkNbd *n = nbd_of(node);
    BlkFile *f = &n->file;

    f->path = g_strdup(o->path);
    f->fd = f->meta_fd = f->fd_slot = f->meta_slot = n->timer_fd = -1;
    f->remote = f->block_device = true;
    f->read_only = o->read_only;
    f->unsafe = o->cache == BLK_CACHE_UNSAFE;
    f->align = BLK_SECTOR;
    n->uri = nbd_uri_parse(o->path, error);
    n->lib = n->uri ? nbd_lib_new(error) : NULL;
    if (!n->lib || !connect_first(n, o, error)) {
        blk_node_free(node);
        return NULL;
    }
    blk_node_ready(node);
    return f;
}
