/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See fuzz_disk.h. A request that breaks the contract of block.h stops the run: a device model must
 * not submit it, whatever the guest wrote. */
#include <errno.h>
#include <string.h>

#include "fuzz_disk.h"
#include "lodge/num.h"

static volatile uint8_t sink G_GNUC_UNUSED; /* of what is read from writers' buffers */

struct BlkNode {
    char *name;
    BlkLimits limits;
    GQueue held; /* BlkReq */
};

BlkNode *fuzz_disk_new(const char *name, uint64_t size, bool read_only)
{
    BlkNode *n = g_new0(BlkNode, 1);

    n->name = g_strdup(name);
    n->limits = (BlkLimits){.size = size, .discard_max = 1 << 20, .align = 512, .block = 4096,
                            .max_iov = 1024, .read_only = read_only};
    g_queue_init(&n->held);
    return n;
}

void fuzz_disk_free(BlkNode *n)
{
    g_assert_true(g_queue_is_empty(&n->held));
    g_free(n->name);
    g_free(n);
}

const char *blk_name(const BlkNode *n)
{
    return n->name;
}

const char *blk_format(const BlkNode *n)
{
    return "fuzz";
}

void blk_limits(BlkNode *n, BlkLimits *ret_limits)
{
    *ret_limits = n->limits;
}

IoThread *blk_io_thread(BlkNode *n)
{
    return NULL;
}

BlkNode *blk_side(BlkNode *n, IoThread *io, GError **error)
{
    return n;
}

void blk_submit(BlkNode *n, BlkReq *r)
{
    uint64_t sum = 0;

    g_assert_nonnull(r->done);
    g_assert_true(range_within(r->offset, r->len, n->limits.size));
    if (r->op == BLK_READ || r->op == BLK_WRITE) {
        g_assert_cmpuint(r->niov, <=, n->limits.max_iov);
        for (unsigned i = 0; i < r->niov; i++)
            sum += r->iov[i].iov_len;
        g_assert_cmpuint(sum, ==, r->len);
        g_assert_cmpuint((r->offset | r->len) % n->limits.align, ==, 0);
    }
    for (GList *l = n->held.head; l; l = l->next)
        g_assert_true(l->data != r); /* submitted while in flight */
    g_queue_push_tail(&n->held, r);
}

/* Every byte of a buffer is touched, so that one that is gone or too short is seen. */
static void carry_out(BlkReq *r)
{
    uint64_t at = r->offset;

    for (unsigned i = 0; i < r->niov; at += r->iov[i].iov_len, i++) {
        uint8_t *p = r->iov[i].iov_base;
        if (r->op == BLK_READ)
            memset(p, (int)(at / 512), r->iov[i].iov_len);
        else
            for (size_t k = 0; k < r->iov[i].iov_len; k++)
                sink ^= p[k];
    }
}

bool fuzz_disk_complete(BlkNode *n, int err)
{
    BlkReq *r = g_queue_pop_head(&n->held);

    if (!r)
        return false;
    if (!err && r->op == BLK_WRITE && n->limits.read_only)
        err = EROFS;
    if (!err && (r->op == BLK_READ || r->op == BLK_WRITE))
        carry_out(r);
    r->done(r, err);
    return true;
}

void fuzz_disk_settle(BlkNode *n)
{
    while (fuzz_disk_complete(n, 0))
        continue;
}
