/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an operator wants done with the requests of one disk, applied where they enter and leave its
 * top node, so that it costs nothing where nothing is asked for, and no request needs a child:
 *
 *   discard=ignore   discards succeed and do nothing; zeros are written without holes
 *   detect-zeroes    a write of zeros alone becomes BLK_ZERO, with holes where discards are allowed
 *   iops, bps        limit.c
 *   on-error         a failed request succeeds, or waits until the operator lets the machine go on
 *
 * A request that waits is not in flight for the node: a drain does not wait for it.
 * Requests of those who drain (BLK_REQ_THROUGH) pass by all of this.
 *
 * Threads: the node's IoThread only, but for new, need_limit and free (main thread, nothing in
 * flight) and rates (main thread).
 */
#include "lodge/diag.h"

#include "block_int.h"

#define ERROR_SLOT 0 /* of scratch, as in graph.c */

struct BlkPolicy {
    BlkNode *node; /* borrowed */
    bool discard_ignore, detect_zeroes;
    BlkOnError on_error;
    BlkLimit *limit; /* owned, or NULL */
    BlkReq *kept_head, **kept_tail;
    bool stopped; /* told since the last retry */
    bool failing; /* the last retry let the errors be seen */
    void (*stop)(void *opaque, BlkNode *n, int err);
    void *opaque;
};

static void start(void *opaque, BlkReq *req)
{
    BlkPolicy *p = opaque;

    blk_start(p->node, req);
}

BlkPolicy *blk_policy_new(BlkNode *n, const BlkOptions *o, GError **error)
{
    BlkPolicy *p;

    if (!o->discard_ignore && !o->detect_zeroes && !o->iops && !o->bps &&
        o->on_error == BLK_ERROR_REPORT)
        return NULL;
    p = g_new0(BlkPolicy, 1);
    p->node = n;
    p->discard_ignore = o->discard_ignore;
    p->detect_zeroes = o->detect_zeroes;
    p->on_error = o->on_error;
    p->kept_tail = &p->kept_head;
    if (o->iops || o->bps) {
        p->limit = blk_limit_new(n->io, o->iops, o->bps, start, p, error);
        if (!p->limit) {
            blk_policy_free(p);
            return NULL;
        }
    }
    return p;
}

bool blk_policy_need_limit(BlkPolicy *p, GError **error)
{
    if (!p->limit)
        p->limit = blk_limit_new(p->node->io, 0, 0, start, p, error);
    return p->limit != NULL;
}

void blk_policy_set_rates(BlkPolicy *p, uint64_t iops, uint64_t bps)
{
    blk_limit_hold(p->limit, true); /* until the drain ends */
    blk_limit_set(p->limit, iops, bps);
}

void blk_policy_rates(const BlkPolicy *p, uint64_t *ret_iops, uint64_t *ret_bps)
{
    if (p->limit)
        blk_limit_get(p->limit, ret_iops, ret_bps);
}

void blk_policy_free(BlkPolicy *p)
{
    if (!p)
        return;
    blk_limit_free(p->limit);
    g_free(p);
}

static bool iov_is_zero(const BlkReq *req)
{
    for (unsigned i = 0; i < req->niov; i++)
        if (!buffer_is_zero(req->iov[i].iov_base, req->iov[i].iov_len))
            return false;
    return true;
}

BlkAdmit blk_policy_admit(BlkPolicy *p, BlkReq *req)
{
    if (p->detect_zeroes && req->op == BLK_WRITE && req->len &&
        req->len <= p->node->limits.discard_max && iov_is_zero(req)) {
        req->op = BLK_ZERO;
        req->may_unmap = true;
        req->flags |= BLK_REQ_ZEROED;
    }
    if (p->discard_ignore) {
        if (req->op == BLK_DISCARD)
            return BLK_ADMIT_DONE;
        req->may_unmap = false;
    }
    return !p->limit || blk_limit_admit(p->limit, req) ? BLK_ADMIT_START : BLK_ADMIT_WAIT;
}

bool blk_policy_keeps(BlkPolicy *p, BlkReq *req, int *err)
{
    if (p->on_error == BLK_ERROR_REPORT || (p->on_error == BLK_ERROR_STOP && p->failing))
        return false;
    if (p->on_error == BLK_ERROR_IGNORE) {
        if (req->op == BLK_READ)
            iov_zero(req->iov, req->niov, 0, req->len);
        *err = 0;
        return false;
    }
    req->scratch[ERROR_SLOT] = (uintptr_t)*err;
    req->next = NULL;
    *p->kept_tail = req;
    p->kept_tail = &req->next;
    return true;
}

void blk_policy_tell_stop(BlkPolicy *p, int err)
{
    if (!p->stopped && p->stop)
        p->stop(p->opaque, p->node, err);
    p->stopped = true;
}

BlkReq *blk_policy_take_kept(BlkPolicy *p, bool failing)
{
    BlkReq *head = p->kept_head;

    p->kept_head = NULL;
    p->kept_tail = &p->kept_head;
    p->stopped = false;
    p->failing = failing;
    return head;
}

void blk_policy_drain(BlkPolicy *p, bool on)
{
    if (p->limit)
        blk_limit_hold(p->limit, on);
}

void blk_policy_hurry(BlkPolicy *p, bool on)
{
    if (p->limit)
        blk_limit_hurry(p->limit, on);
}

void blk_policy_on_stop(BlkPolicy *p, void (*fn)(void *opaque, BlkNode *n, int err),
                        void *opaque)
{
    p->stop = fn;
    p->opaque = opaque;
}
