/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio block device over a disk in memory, whose completions the test holds back. */
#include <errno.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "lodge/block.h"
#include "lodge/iothread.h"
#include "virtio_driver.h"

#define SECTOR 512
#define DISK_BYTES (64 * SECTOR)
#define BIT(b) (UINT64_C(1) << (b))

/* Stands for the block layer: this program defines its functions. */
struct BlkNode {
    BlkLimits limits;
    uint8_t disk[DISK_BYTES];
    GQueue held; /* BlkReq */
    bool hold;   /* keep requests until the test lets them go */
    int err;
    IoThread *io;
    BlkReq last; /* a copy of the last request */
    unsigned ops[6];
};

void blk_limits(BlkNode *n, BlkLimits *ret_limits)
{
    *ret_limits = n->limits;
}

IoThread *blk_io_thread(BlkNode *n)
{
    return n->io;
}

static void carry_out(BlkNode *n, BlkReq *r)
{
    uint8_t *at = n->disk + r->offset;

    for (unsigned i = 0; i < r->niov; i++) {
        if (r->op == BLK_READ)
            memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
        else
            memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    if (r->op == BLK_ZERO || r->op == BLK_DISCARD)
        memset(at, 0, r->len);
}

/* Finish what is held, oldest first. */
static void let_go(void *opaque)
{
    BlkNode *n = opaque;
    BlkReq *r;

    while ((r = g_queue_pop_head(&n->held))) {
        if (!n->err)
            carry_out(n, r);
        r->done(r, n->err);
    }
}

/* Completions come after the kick, never from inside blk_submit(). */
void blk_submit(BlkNode *n, BlkReq *r)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < r->niov; i++) {
        g_assert_cmpuint(r->iov[i].iov_len, >, 0);
        sum += r->iov[i].iov_len;
    }
    if (r->op == BLK_READ || r->op == BLK_WRITE)
        g_assert_cmpuint(sum, ==, r->len);
    g_assert_cmpuint(r->offset + r->len, <=, DISK_BYTES);
    n->last = *r;
    n->ops[r->op]++;
    g_queue_push_tail(&n->held, r);
    if (n->io && !n->hold)
        io_thread_post(n->io, let_go, n);
}

typedef struct Fix {
    BlkNode node;
    TestBoard *tb;
    Drv *d;
    uint64_t hdr, data, status;
} Fix;

static void fix_make(Fix *f)
{
    f->node.limits = (BlkLimits){.size = DISK_BYTES, .discard_max = DISK_BYTES, .align = SECTOR,
                                 .block = 4096, .max_iov = 128};
    for (unsigned i = 0; i < DISK_BYTES; i++)
        f->node.disk[i] = (uint8_t)(i / SECTOR + 1);
    g_queue_init(&f->node.held);
    f->tb = drv_board();
    test_board_backend(f->tb, "disk", &f->node);
}

static void fix_start(Fix *f, const char *props, uint64_t features)
{
    f->d = drv_open(f->tb, "virtio-blk-pci", props);
    g_assert_true(drv_accept(f->d, features));
    drv_msix(f->d, 1);
    drv_queue(f->d, 0, 16);
    drv_ready(f->d);
    f->hdr = drv_alloc(f->d, 64);
    f->data = drv_alloc(f->d, 8 * SECTOR);
    f->status = drv_alloc(f->d, 1);
}

static void fix_up(Fix *f, gconstpointer unused)
{
    fix_make(f);
    fix_start(f, "drive=disk,serial=LODGE-1", UINT64_MAX);
}

static void fix_down(Fix *f, gconstpointer unused)
{
    drv_free(f->d);
    test_board_free(f->tb);
}

static void put_header(Fix *f, uint32_t type, uint64_t sector)
{
    struct virtio_blk_outhdr h = {.type = type, .sector = sector};
    uint8_t unset = 0xff;

    drv_put(f->d, f->hdr, &h, sizeof h);
    drv_put(f->d, f->status, &unset, 1);
}

static uint8_t status(Fix *f)
{
    uint8_t v;

    drv_get(f->d, f->status, &v, 1);
    return v;
}

/* One request of the usual layout, finished; its status byte and used length. */
static uint8_t request(Fix *f, uint32_t type, uint64_t sector, uint32_t len, bool in,
                       uint32_t *ret_len)
{
    DrvSeg segs[3] = {{f->hdr, sizeof(struct virtio_blk_outhdr), false}};
    unsigned n = 1;
    uint32_t head;

    put_header(f, type, sector);
    if (len)
        segs[n++] = (DrvSeg){f->data, len, in};
    segs[n++] = (DrvSeg){f->status, 1, true};
    drv_add(f->d, 0, segs, n);
    drv_kick(f->d, 0);
    let_go(&f->node);
    g_assert_true(drv_used(f->d, 0, &head, ret_len));
    g_assert_cmpuint(drv_msis(f->d, 0), ==, 1);
    return status(f);
}

static void test_read_write(Fix *f, gconstpointer unused)
{
    uint8_t buf[2 * SECTOR];
    uint32_t len;

    g_assert_cmpuint(request(f, VIRTIO_BLK_T_IN, 3, 2 * SECTOR, true, &len), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpuint(len, ==, 2 * SECTOR + 1);
    drv_get(f->d, f->data, buf, sizeof buf);
    g_assert_cmpuint(buf[0], ==, 4);
    g_assert_cmpuint(buf[2 * SECTOR - 1], ==, 5);
    memset(buf, 0xaa, sizeof buf);
    drv_put(f->d, f->data, buf, sizeof buf);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_OUT, 62, 2 * SECTOR, false, &len), ==,
                     VIRTIO_BLK_S_OK);
    g_assert_cmpuint(len, ==, 1);
    g_assert_cmpuint(f->node.disk[62 * SECTOR], ==, 0xaa);
    g_assert_false(f->node.last.fua);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, false, &len), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpuint(f->node.ops[BLK_FLUSH], ==, 1);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES, true, &len), ==,
                     VIRTIO_BLK_S_OK);
    drv_get(f->d, f->data, buf, VIRTIO_BLK_ID_BYTES);
    g_assert_cmpstr((char *)buf, ==, "LODGE-1");
}

static void test_errors(Fix *f, gconstpointer unused)
{
    uint32_t len;

    g_assert_cmpuint(request(f, VIRTIO_BLK_T_IN, 64, SECTOR, true, &len), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_IN, 63, 2 * SECTOR, true, &len), ==,
                     VIRTIO_BLK_S_IOERR);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_IN, UINT64_MAX / SECTOR, SECTOR, true, &len), ==,
                     VIRTIO_BLK_S_IOERR);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_IN, UINT64_MAX, SECTOR, true, &len), ==,
                     VIRTIO_BLK_S_IOERR);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_IN, 0, SECTOR - 1, true, &len), ==,
                     VIRTIO_BLK_S_IOERR);
    g_assert_cmpuint(request(f, 77, 0, SECTOR, true, &len), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpuint(f->node.ops[BLK_READ], ==, 0);
    f->node.err = EIO;
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_IN, 0, SECTOR, true, &len), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpuint(len, ==, 0);
    f->node.err = ENOTSUP;
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_FLUSH, 0, 0, true, &len), ==, VIRTIO_BLK_S_UNSUPP);
    g_assert_false(drv_needs_reset(f->d));
}

static void test_discard(Fix *f, gconstpointer unused)
{
    struct virtio_blk_discard_write_zeroes r = {.sector = 8, .num_sectors = 4};
    uint32_t len;

    drv_put(f->d, f->data, &r, sizeof r);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_DISCARD, 0, sizeof r, false, &len), ==,
                     VIRTIO_BLK_S_OK);
    g_assert_cmpuint(f->node.disk[8 * SECTOR], ==, 0);
    g_assert_cmpuint(f->node.disk[12 * SECTOR], ==, 13);
    r.flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    drv_put(f->d, f->data, &r, sizeof r);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_DISCARD, 0, sizeof r, false, &len), ==,
                     VIRTIO_BLK_S_UNSUPP);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof r, false, &len), ==,
                     VIRTIO_BLK_S_OK);
    g_assert_true(f->node.last.may_unmap);
    r.num_sectors = UINT32_MAX;
    drv_put(f->d, f->data, &r, sizeof r);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof r, false, &len), ==,
                     VIRTIO_BLK_S_IOERR);
    g_assert_cmpuint(request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, sizeof r - 1, false, &len), ==,
                     VIRTIO_BLK_S_IOERR);
}

/* Header and status wherever they lie: header in pieces with data behind it, status with data. */
static void test_layout(Fix *f, gconstpointer unused)
{
    uint64_t flat = drv_alloc(f->d, 16 + SECTOR);
    uint64_t back = drv_alloc(f->d, SECTOR + 1);
    struct virtio_blk_outhdr h = {.type = VIRTIO_BLK_T_OUT, .sector = 1};
    DrvSeg write[] = {{flat, 5, false}, {flat + 5, 11 + SECTOR, false}, {f->status, 1, true}};
    DrvSeg read[] = {{flat, 16, false}, {back, 100, true}, {back + 100, SECTOR - 99, true}};
    uint8_t buf[SECTOR + 1];
    uint32_t head, len;

    memset(buf, 0x5a, sizeof buf);
    drv_put(f->d, flat, &h, sizeof h);
    drv_put(f->d, flat + 16, buf, SECTOR);
    drv_add(f->d, 0, write, 3);
    drv_kick(f->d, 0);
    let_go(&f->node);
    g_assert_true(drv_used(f->d, 0, &head, &len));
    g_assert_cmpuint(f->node.disk[SECTOR], ==, 0x5a);
    g_assert_cmpuint(f->node.disk[2 * SECTOR - 1], ==, 0x5a);
    h.type = VIRTIO_BLK_T_IN;
    drv_put(f->d, flat, &h, sizeof h);
    drv_add(f->d, 0, read, 3);
    drv_kick(f->d, 0);
    let_go(&f->node);
    g_assert_true(drv_used(f->d, 0, &head, &len));
    drv_get(f->d, back, buf, sizeof buf);
    g_assert_cmpuint(buf[0], ==, 0x5a);
    g_assert_cmpuint(buf[SECTOR - 1], ==, 0x5a);
    g_assert_cmpuint(buf[SECTOR], ==, VIRTIO_BLK_S_OK);
}

static void test_no_status(Fix *f, gconstpointer unused)
{
    put_header(f, VIRTIO_BLK_T_IN, 0);
    drv_add(f->d, 0, &(DrvSeg){f->hdr, 16, false}, 1);
    drv_kick(f->d, 0);
    g_assert_true(drv_needs_reset(f->d));
    g_assert_cmpuint(f->node.ops[BLK_READ], ==, 0);
}

/* A reset is over only when no request can touch guest memory any more. */
static void test_reset_in_flight(Fix *f, gconstpointer unused)
{
    DrvSeg segs[] = {{f->hdr, 16, false}, {f->data, SECTOR, true}, {f->status, 1, true}};
    unsigned seen;

    put_header(f, VIRTIO_BLK_T_IN, 0);
    drv_add(f->d, 0, segs, 3);
    drv_kick(f->d, 0);
    drv_reset(f->d);
    g_assert_cmpuint(drv_get_status(f->d), !=, 0);
    drv_reset(f->d);
    drv_status(f->d, VIRTIO_CONFIG_S_ACKNOWLEDGE); /* not yet: no effect */
    g_assert_cmpuint(drv_get_status(f->d), !=, 0);
    seen = drv_get16(f->d, f->d->q[0].used + 2);
    let_go(&f->node);
    g_assert_cmpuint(drv_get_status(f->d), ==, 0);
    g_assert_cmpuint(drv_get16(f->d, f->d->q[0].used + 2), ==, seen); /* left alone */
    g_assert_cmpuint(drv_msis(f->d, 0), ==, 0);
}

static void note_quiet(Device *d, void *opaque)
{
    *(bool *)opaque = true;
}

static void test_quiesce_in_flight(Fix *f, gconstpointer unused)
{
    DrvSeg segs[] = {{f->hdr, 16, false}, {f->data, SECTOR, true}, {f->status, 1, true}};
    bool quiet = false;
    uint32_t head, len;

    put_header(f, VIRTIO_BLK_T_IN, 0);
    drv_add(f->d, 0, segs, 3);
    drv_kick(f->d, 0);
    device_quiesce(f->d->dev, note_quiet, &quiet);
    g_assert_false(quiet);
    let_go(&f->node);
    g_assert_true(quiet);
    g_assert_true(drv_used(f->d, 0, &head, &len));
    device_resume(f->d->dev);
}

/* Without FLUSH each write goes to the medium; a read-only disk takes none. */
static void test_write_through(void)
{
    Fix f = {0};
    uint32_t len;

    fix_make(&f);
    fix_start(&f, "drive=disk", ~BIT(VIRTIO_BLK_F_FLUSH));
    g_assert_cmpuint(request(&f, VIRTIO_BLK_T_OUT, 0, SECTOR, false, &len), ==, VIRTIO_BLK_S_OK);
    g_assert_true(f.node.last.fua);
    fix_down(&f, NULL);
}

static void test_read_only(void)
{
    Fix f = {0};
    uint32_t len;

    fix_make(&f);
    f.node.limits.read_only = true;
    fix_start(&f, "drive=disk", UINT64_MAX);
    g_assert_true(f.d->features & BIT(VIRTIO_BLK_F_RO));
    g_assert_false(f.d->features & BIT(VIRTIO_BLK_F_DISCARD));
    g_assert_cmpuint(request(&f, VIRTIO_BLK_T_OUT, 0, SECTOR, false, &len), ==,
                     VIRTIO_BLK_S_IOERR);
    g_assert_cmpuint(f.node.ops[BLK_WRITE], ==, 0);
    fix_down(&f, NULL);
}

static void test_config(Fix *f, gconstpointer unused)
{
    g_assert_cmpuint(test_peek(f->tb, f->d->config, 4), ==, DISK_BYTES / SECTOR);
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 12, 4), ==, 128); /* seg_max */
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 20, 4), ==, SECTOR);
}

/* With a loop: kicks, completions, a reset and a quiesce all cross threads. */
static void test_threads(void)
{
    Fix f = {0};
    GError *error = NULL;
    gint64 deadline = g_get_monotonic_time() + 30 * G_TIME_SPAN_SECOND;
    bool quiet = false;
    LodgeClock *clock = lodge_clock_new();
    IoThread *io = io_thread_new("test", clock, &error);

    g_assert_no_error(error);
    fix_make(&f);
    f.node.io = io;
    fix_start(&f, "drive=disk", UINT64_MAX);
    for (unsigned i = 0; i < 200; i++) {
        DrvSeg segs[] = {{f.hdr, 16, false}, {f.data, SECTOR, true}, {f.status, 1, true}};
        uint32_t head, len;

        put_header(&f, VIRTIO_BLK_T_IN, i % 64);
        drv_add(f.d, 0, segs, 3);
        drv_kick(f.d, 0);
        while (!drv_used(f.d, 0, &head, &len))
            g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_assert_cmpuint(status(&f), ==, VIRTIO_BLK_S_OK);
    }
    drv_kick(f.d, 0);
    drv_reset(f.d);
    while (drv_get_status(f.d))
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    device_quiesce(f.d->dev, note_quiet, &quiet);
    while (!__atomic_load_n(&quiet, __ATOMIC_ACQUIRE))
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    fix_down(&f, NULL);
    io_thread_free(io);
    lodge_clock_free(clock);
}

#define ADD(name, fn) g_test_add("/virtio-blk/" name, Fix, NULL, fix_up, fn, fix_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("read-write", test_read_write);
    ADD("errors", test_errors);
    ADD("discard", test_discard);
    ADD("layout", test_layout);
    ADD("no-status", test_no_status);
    ADD("reset-in-flight", test_reset_in_flight);
    ADD("quiesce-in-flight", test_quiesce_in_flight);
    ADD("config", test_config);
    g_test_add_func("/virtio-blk/write-through", test_write_through);
    g_test_add_func("/virtio-blk/read-only", test_read_only);
    g_test_add_func("/virtio-blk/threads", test_threads);
    return g_test_run();
}
