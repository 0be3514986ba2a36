/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes: their life, the way of a request in and out, drain and statistics.
 *
 * A request from the node's IoThread goes to the driver at once. One from another thread is pushed
 * to the node's inbox, a list without a lock; the push that finds it empty posts one call to the
 * loop, which takes all that has gathered. Checks come first, where the submitter is; a request
 * that fails one takes the same way and completes from the loop.
 *
 * Invariants: (1) done runs exactly once, on the IoThread, with no submit of the node's driver on
 * the stack: a completion from inside one is put off to a posted call. (2) in_flight counts
 * requests from the driver's submit until their done has returned. (3) With drained > 0 no request
 * starts but those of the one who drains (BLK_REQ_THROUGH); they wait in order.
 *
 * What a device has is the front of a disk (front.c), a node that stays while images come and go
 * below it. A request is in flight for the front and for the image on top; when the front is idle,
 * so is the image, but for requests that were sent to it by itself.
 */
#include <errno.h>
#include <string.h>

#include "lodge/iothread.h"
#include "lodge/num.h"

#include "block_int.h"

#define ERROR_SLOT 0 /* of scratch: the error of a request that did not reach the driver, or late */

/* Set in flags by blk_submit() for a request that failed a check. */
#define BLK_REQ_REFUSED 0x80u

BlkNode *blk_node_new(const BlkDriver *drv, const char *name, IoThread *io, BlkEngine *engine)
{
    BlkNode *n = g_malloc0(drv->instance_size);

    n->drv = drv;
    n->name = g_strdup(name);
    n->io = io;
    n->engine = blk_engine_ref(engine);
    n->parked_tail = &n->parked_head;
    n->late_tail = &n->late_head;
    g_mutex_init(&n->idle_mutex);
    g_cond_init(&n->idle_cond);
    return n;
}

void blk_node_ready(BlkNode *n)
{
    n->drv->limits(n, &n->limits);
    if (!n->limits.physical && n->file)
        n->limits.physical = n->file->limits.physical;
    n->limits.physical = MAX(n->limits.physical, n->limits.align);
}

void blk_node_free(BlkNode *n)
{
    if (!n)
        return;
    blk_worker_free(n->worker);
    blk_policy_free(n->policy);
    n->drv->close(n);
    blk_node_free(n->top);
    blk_node_free(n->file);
    blk_node_free(n->base);
    blk_engine_unref(n->engine);
    g_mutex_clear(&n->idle_mutex);
    g_cond_clear(&n->idle_cond);
    g_free(n->ref.path);
    g_free(n->ref.format);
    g_free(n->name);
    g_free(n);
}

const char *blk_name(const BlkNode *n)
{
    return n->name;
}

const char *blk_format(const BlkNode *n)
{
    return blk_top((BlkNode *)n)->drv->name;
}

const char *blk_engine(const BlkNode *n)
{
    for (n = blk_top((BlkNode *)n); n->file;)
        n = n->file;
    return n->drv == &blk_driver_nbd ? n->drv->name : blk_engine_kind(n->engine);
}

void blk_limits(BlkNode *n, BlkLimits *ret_limits)
{
    *ret_limits = n->limits;
}

IoThread *blk_io_thread(BlkNode *n)
{
    return n->io;
}

uint64_t blk_base_part(const BlkNode *n, uint64_t pos, uint64_t len)
{
    uint64_t size = n->base ? n->base->limits.size : 0;

    return pos >= size ? 0 : MIN(len, size - pos);
}

/* ---- out ---- */

/* One request less is in flight. */
static void leave(BlkNode *n)
{
    if (--n->in_flight == 0 && n->drained) {
        g_mutex_lock(&n->idle_mutex);
        n->idle = true;
        g_cond_broadcast(&n->idle_cond);
        g_mutex_unlock(&n->idle_mutex);
    }
}

/* @req is over for the disk @n and the image @image on top of it, which may be the same. */
static void leave_both(BlkNode *n, BlkNode *image)
{
    if (image != n)
        leave(image);
    leave(n);
}

static bool is_change(const BlkReq *req)
{
    return req->op == BLK_WRITE || req->op == BLK_DISCARD || req->op == BLK_ZERO;
}

/* The host failed @req. True: it is kept; else *@err may be taken away. */
static bool failed(BlkNode *n, BlkReq *req, int *err)
{
    int was = *err;
    bool kept = n->policy && blk_policy_keeps(n->policy, req, err);
    const BlkNode *disk = n->side_of ? n->side_of : n;

    if (disk->error_fn)
        disk->error_fn(disk->error_opaque, n, req->op, was,
                    kept ? BLK_ERROR_STOP : *err ? BLK_ERROR_REPORT : BLK_ERROR_IGNORE);
    if (kept)
        blk_policy_tell_stop(n->policy, was); /* the error is told before what it causes */
    return kept;
}

/* What blk_pass() did is undone. */
static void come_back(BlkNode *image, BlkReq *req)
{
    req->offset -= req->shift;
    if (image->drv->passed)
        image->drv->passed(image, req);
    req->flags &= (uint8_t)~(BLK_REQ_PASSED | BLK_REQ_MARK);
}

static void finish(BlkReq *req, int err)
{
    BlkNode *image = req->node, *n = req->front ? req->front : image;

    if (req->flags & BLK_REQ_PASSED)
        come_back(image, req);
    if (n->dirty && is_change(req) && !(req->flags & BLK_REQ_REFUSED))
        blk_dirty_set(n->dirty, req->offset, req->len); /* failed ones may have written a part */
    if (req->flags & BLK_REQ_ZEROED)
        req->op = BLK_WRITE;
    if (err && !(req->flags & (BLK_REQ_THROUGH | BLK_REQ_REFUSED)) && failed(n, req, &err)) {
        leave_both(n, image);
        return;
    }
    unsigned op = req->op;
    if (op < G_N_ELEMENTS(n->ops)) {
        atomic_fetch_add_explicit(&n->ops[op], 1, memory_order_relaxed);
        if (err)
            atomic_fetch_add_explicit(&n->errors[op], 1, memory_order_relaxed);
        else if (op != BLK_FLUSH)
            atomic_fetch_add_explicit(&n->bytes[op], req->len, memory_order_relaxed);
    }
    req->done(req, err);
    leave_both(n, image);
}

static void run_late(void *opaque)
{
    BlkNode *n = opaque;
    BlkReq *req = n->late_head;

    n->late_head = NULL;
    n->late_tail = &n->late_head;
    while (req) {
        BlkReq *next = req->next; /* its done may free it */
        finish(req, (int)req->scratch[ERROR_SLOT]);
        req = next;
    }
}

static void complete_late(BlkReq *req, int err)
{
    BlkNode *n = req->node;
    bool first = !n->late_head;

    req->scratch[ERROR_SLOT] = err;
    req->next = NULL;
    *n->late_tail = req;
    n->late_tail = &req->next;
    if (first)
        io_thread_post(n->io, run_late, n);
}

void blk_complete(BlkReq *req, int err)
{
    if (req->node->in_submit)
        complete_late(req, err); /* keeps (1) */
    else
        finish(req, err);
}

/* ---- in ---- */

void blk_start(BlkNode *n, BlkReq *req)
{
    req->node = n;
    req->status_offset = BLK_NO_OFFSET;
    n->in_flight++;
    n->in_submit++;
    n->drv->submit(n, req);
    n->in_submit--;
}

void blk_pass(BlkNode *n, BlkReq *req, uint64_t offset)
{
    req->shift = offset - req->offset;
    req->offset = offset;
    req->flags |= BLK_REQ_PASSED;
    n->file->drv->submit(n->file, req);
}

static void submit_any(BlkNode *n, BlkReq *req, uint8_t flags);

/* Context: the IoThread. */
static void enter(BlkNode *n, BlkReq *req)
{
    if (n->side_of && !(req->flags & BLK_REQ_REFUSED) && blk_side_passes_on(n, req)) {
        submit_any(n->side_of, req, req->flags & BLK_REQ_THROUGH);
        return;
    }
    if (n->drained && !(req->flags & BLK_REQ_THROUGH)) {
        req->next = NULL;
        *n->parked_tail = req;
        n->parked_tail = &req->next;
        return;
    }
    if (req->flags & BLK_REQ_REFUSED) {
        n->in_flight++;
        complete_late(req, (int)req->scratch[ERROR_SLOT]);
        return;
    }
    switch (n->policy && !(req->flags & BLK_REQ_THROUGH) ? blk_policy_admit(n->policy, req)
                                                          : BLK_ADMIT_START) {
    case BLK_ADMIT_START:
        blk_start(n, req);
        break;
    case BLK_ADMIT_WAIT:
        break;
    case BLK_ADMIT_DONE:
        n->in_flight++;
        complete_late(req, 0);
        break;
    }
}

static void take_inbox(void *opaque)
{
    BlkNode *n = opaque;
    /* Pairs with the push in submit_any(). */
    BlkReq *newest = atomic_exchange_explicit(&n->inbox, NULL, memory_order_acquire);
    BlkReq *oldest = NULL;

    while (newest) {
        BlkReq *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        BlkReq *next = oldest->next;
        enter(n, oldest);
        oldest = next;
    }
}

static bool iov_sum_is(const BlkReq *req)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < req->niov; i++)
        if (!u64_add_ok(sum, req->iov[i].iov_len, &sum))
            return false;
    return sum == req->len;
}

/* Return: 0, or the errno of the breach. */
static int check(const BlkNode *n, const BlkReq *req, uint8_t flags)
{
    const BlkLimits *l = &n->limits;

    switch (req->op) {
    case BLK_FLUSH:
        return 0;
    case BLK_READ:
    case BLK_WRITE:
        if (req->niov > l->max_iov || !iov_sum_is(req))
            return EINVAL;
        break;
    case BLK_DISCARD:
    case BLK_ZERO:
        if (!l->read_only && req->len > l->discard_max)
            return l->discard_max ? EINVAL : EOPNOTSUPP;
        break;
    case BLK_STATUS:
        if (req->len == 0)
            return EINVAL;
        break;
    default:
        return EINVAL;
    }
    if ((req->offset | req->len) & (l->align - 1) && !(flags & BLK_REQ_BYTES))
        return EINVAL;
    if (!range_within(req->offset, req->len, l->size))
        return EIO;
    if (l->read_only && (req->op == BLK_WRITE || req->op == BLK_DISCARD || req->op == BLK_ZERO))
        return EROFS;
    return 0;
}

static void submit_any(BlkNode *n, BlkReq *req, uint8_t flags)
{
    int err = check(n, req, flags);

    req->node = n;
    req->front = NULL;
    req->flags = flags;
    if (err) {
        req->flags |= BLK_REQ_REFUSED;
        req->scratch[ERROR_SLOT] = err;
    }
    if (io_thread_is_current(n->io)) {
        enter(n, req);
        return;
    }
    BlkReq *head = atomic_load_explicit(&n->inbox, memory_order_relaxed);
    do
        req->next = head;
    while (!atomic_compare_exchange_weak_explicit(&n->inbox, &head, req, memory_order_release,
                                                  memory_order_relaxed));
    if (!head)
        io_thread_post(n->io, take_inbox, n);
}

void blk_submit(BlkNode *n, BlkReq *req)
{
    submit_any(n, req, 0);
}

/* ---- blocking calls ---- */

typedef struct Waiter {
    GMutex mutex;
    GCond cond;
    bool done;
    int err;
} Waiter;

static void wait_done(BlkReq *req, int err)
{
    Waiter *w = req->opaque;

    g_mutex_lock(&w->mutex);
    w->err = err;
    w->done = true;
    g_cond_signal(&w->cond);
    g_mutex_unlock(&w->mutex);
}

static int wait_with(BlkNode *n, BlkReq *req, uint8_t flags)
{
    Waiter w = {0};

    g_mutex_init(&w.mutex);
    g_cond_init(&w.cond);
    req->done = wait_done;
    req->opaque = &w;
    submit_any(n, req, flags | BLK_REQ_THROUGH);
    g_mutex_lock(&w.mutex);
    while (!w.done)
        g_cond_wait(&w.cond, &w.mutex);
    g_mutex_unlock(&w.mutex);
    g_mutex_clear(&w.mutex);
    g_cond_clear(&w.cond);
    return w.err;
}

int blk_wait(BlkNode *n, BlkReq *req)
{
    return wait_with(n, req, 0);
}

int blk_wait_bytes(BlkNode *n, BlkReq *req)
{
    return wait_with(n, req, BLK_REQ_BYTES);
}

static int transfer(BlkNode *n, BlkOp op, void *buf, uint64_t offset, size_t len)
{
    struct iovec iov = {buf, len};
    BlkReq req = {.op = op, .offset = offset, .len = len, .iov = &iov, .niov = 1};

    return blk_wait(n, &req);
}

int blk_pread(BlkNode *n, void *buf, uint64_t offset, size_t len)
{
    return transfer(n, BLK_READ, buf, offset, len);
}

int blk_pwrite(BlkNode *n, const void *buf, uint64_t offset, size_t len)
{
    return transfer(n, BLK_WRITE, (void *)buf, offset, len);
}

int blk_flush(BlkNode *n)
{
    return transfer(n, BLK_FLUSH, NULL, 0, 0);
}

/* ---- drain ---- */

static void drain_enter(void *opaque)
{
    BlkNode *n = opaque;

    n->drained++;
    if (n->policy)
        blk_policy_drain(n->policy, true);
    g_mutex_lock(&n->idle_mutex);
    n->idle = n->in_flight == 0;
    g_mutex_unlock(&n->idle_mutex);
}

void blk_drain_begin(BlkNode *n)
{
    blk_sides_drain(n, true);
    io_thread_call(n->io, drain_enter, n);
    g_mutex_lock(&n->idle_mutex);
    while (!n->idle)
        g_cond_wait(&n->idle_cond, &n->idle_mutex);
    g_mutex_unlock(&n->idle_mutex);
}

static void drain_leave(void *opaque)
{
    BlkNode *n = opaque;

    if (--n->drained)
        return;
    BlkReq *req = n->parked_head;
    n->parked_head = NULL;
    n->parked_tail = &n->parked_head;
    if (n->policy)
        blk_policy_drain(n->policy, false);
    while (req) {
        BlkReq *next = req->next;
        enter(n, req);
        req = next;
    }
}

void blk_drain_end(BlkNode *n)
{
    io_thread_call(n->io, drain_leave, n);
    blk_sides_drain(n, false);
}

/* ---- limits and errors ---- */

typedef struct Order {
    BlkNode *n;
    bool on;
} Order;

static void hurry_here(void *opaque)
{
    Order *o = opaque;

    blk_policy_hurry(o->n->policy, o->on);
}

void blk_hurry(BlkNode *n, bool on)
{
    if (n->policy)
        io_thread_call(n->io, hurry_here, &(Order){n, on});
}

typedef struct RatesOrder {
    BlkNode *n;
    BlkPolicy *first; /* owned; NULL: it has one */
    uint64_t iops, bps;
} RatesOrder;

static void rates_here(void *opaque)
{
    RatesOrder *o = opaque;

    if (o->first)
        o->n->policy = o->first;
    blk_policy_set_rates(o->n->policy, o->iops, o->bps);
}

bool blk_set_rates(BlkNode *n, uint64_t iops, uint64_t bps, GError **error)
{
    RatesOrder o = {n, NULL, iops, bps};
    bool ok;

    if (!n->policy && !iops && !bps)
        return true;
    blk_drain_begin(n);
    if (n->policy) {
        ok = blk_policy_need_limit(n->policy, error);
    } else {
        o.first = blk_policy_new(n, &(BlkOptions){.iops = iops, .bps = bps}, error);
        ok = o.first != NULL;
        if (ok)
            blk_sides_detach(n); /* each request counts from now on */
    }
    if (ok)
        io_thread_call(n->io, rates_here, &o);
    blk_drain_end(n);
    return ok;
}

void blk_rates(const BlkNode *n, uint64_t *ret_iops, uint64_t *ret_bps)
{
    *ret_iops = *ret_bps = 0;
    if (n->policy)
        blk_policy_rates(n->policy, ret_iops, ret_bps);
}

void blk_on_stop(BlkNode *n, void (*fn)(void *opaque, BlkNode *n, int err), void *opaque)
{
    if (n->policy)
        blk_policy_on_stop(n->policy, fn, opaque);
}

void blk_on_error(BlkNode *n, BlkErrorFn fn, void *opaque)
{
    n->error_fn = fn;
    n->error_opaque = opaque;
}

static void retry_here(void *opaque)
{
    Order *o = opaque;
    BlkNode *n = o->n;
    BlkReq *req = blk_policy_take_kept(n->policy, o->on);

    while (req) {
        BlkReq *next = req->next;
        if (o->on) {
            req->flags |= BLK_REQ_REFUSED; /* its error is in the slot, and is not kept again */
            req->node = n;
            req->front = NULL;
            n->in_flight++;
            complete_late(req, (int)req->scratch[ERROR_SLOT]);
        } else {
            req->flags &= (uint8_t)~BLK_REQ_ZEROED;
            enter(n, req);
        }
        req = next;
    }
}

void blk_retry(BlkNode *n, bool fail)
{
    if (n->policy)
        io_thread_call(n->io, retry_here, &(Order){n, fail});
}

static void nothing(void *opaque)
{
}

void blk_close(BlkNode *n)
{
    if (!n)
        return;
    blk_front_end(n);
    blk_hurry(n, true); /* what waits is done, with its error where it has one */
    blk_retry(n, true);
    blk_sides_free(n);
    blk_drain_begin(n);
    io_thread_call(n->io, nothing, NULL); /* what was posted for the node has run after this */
    blk_node_free(n);
}

void blk_stats(BlkNode *n, BlkStats *ret_stats)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(n->ops); i++) {
        ret_stats->ops[i] = atomic_load_explicit(&n->ops[i], memory_order_relaxed);
        ret_stats->bytes[i] = atomic_load_explicit(&n->bytes[i], memory_order_relaxed);
        ret_stats->errors[i] = atomic_load_explicit(&n->errors[i], memory_order_relaxed);
    }
    for (unsigned i = 0; n->sides && i < n->sides->len; i++) {
        BlkStats s;
        blk_stats(g_ptr_array_index(n->sides, i), &s);
        for (unsigned op = 0; op < G_N_ELEMENTS(n->ops); op++) {
            ret_stats->ops[op] += s.ops[op];
            ret_stats->bytes[op] += s.bytes[op];
            ret_stats->errors[op] += s.errors[op];
        }
    }
}
