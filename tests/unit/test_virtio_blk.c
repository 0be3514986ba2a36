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
    GMutex mutex; /* guards held, last, ops */
    GQueue held;  /* BlkReq */
    bool hold;    /* keep requests until the test lets them go */
    BlkNode *side; /* blk_side()'s answer; NULL: the node itself */
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

BlkNode *blk_side(BlkNode *n, IoThread *io, GError **error)
{
    return n->side ? n->side : n; /* itself: its completions come on another loop than the queue's */
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

/* Finish the oldest that is held; false: none is. */
static bool let_one_go(BlkNode *n)
{
    g_mutex_lock(&n->mutex);
    BlkReq *r = g_queue_pop_head(&n->held);
    g_mutex_unlock(&n->mutex);
    if (!r)
        return false;
    if (!n->err)
        carry_out(n, r);
    r->done(r, n->err);
    return true;
}

static void let_first_go(void *opaque)
{
    (void)let_one_go(opaque);
}

static void let_go(void *opaque)
{
    while (let_one_go(opaque)) {
        /* until none is held */
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
    g_mutex_lock(&n->mutex);
    n->last = *r;
    n->ops[r->op]++;
    g_queue_push_tail(&n->held, r);
    g_mutex_unlock(&n->mutex);
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
                                 .physical = 4096, .block = 65536, .max_iov = 128};
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
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 24, 1), ==, 3);   /* 4096 = 512 << 3 */
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 25, 1), ==, 0);   /* aligned */
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 26, 2), ==, 8);   /* smallest good request */
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 28, 4), ==, 128); /* best request */
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

/* ---- several loops ---- */

#define LANES 3
#define LANE_QUEUES 4

typedef struct Lanes {
    Fix f;
    LodgeClock *clock;
    IoThread *io[LANES];
    BlkNode side; /* on io[1] */
    gint64 deadline;
    struct {
        uint64_t hdr, data, status;
    } at[LANE_QUEUES];
    unsigned used[LANE_QUEUES];
} Lanes;

static Lanes *lanes; /* for give_loop() */

static IoThread *give_loop(Board *b, unsigned i, GError **error)
{
    g_assert_cmpuint(i + 1, <, LANES);
    return lanes->io[i + 1];
}

static void lanes_up(Lanes *l, gconstpointer iothreads)
{
    lanes = l;
    l->deadline = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;
    l->clock = lodge_clock_new();
    for (unsigned i = 0; i < LANES; i++)
        l->io[i] = io_thread_new("test", l->clock, NULL);
    fix_make(&l->f);
    l->f.node.io = l->io[0];
    l->f.tb->board.disk_loop = give_loop;
    g_autofree char *props =
        g_strdup_printf("drive=disk,queues=4,iothreads=%s", (const char *)iothreads);
    l->side = (BlkNode){.limits = l->f.node.limits, .io = l->io[1]};
    memcpy(l->side.disk, l->f.node.disk, DISK_BYTES);
    g_queue_init(&l->side.held);
    l->f.node.side = !strcmp(iothreads, "2") ? &l->side : NULL;
    l->f.d = drv_open(l->f.tb, "virtio-blk-pci", props);
    for (unsigned i = 0; i < LANE_QUEUES; i++) {
        l->at[i].hdr = drv_alloc(l->f.d, 64);
        l->at[i].data = drv_alloc(l->f.d, SECTOR);
        l->at[i].status = drv_alloc(l->f.d, 1);
    }
}

static void lanes_start(Lanes *l)
{
    g_assert_true(drv_accept(l->f.d, UINT64_MAX));
    g_assert_true(l->f.d->features & BIT(VIRTIO_BLK_F_MQ));
    g_assert_cmpuint(test_peek(l->f.tb, l->f.d->config + 34, 2), ==, LANE_QUEUES);
    drv_msix(l->f.d, LANE_QUEUES);
    for (unsigned i = 0; i < LANE_QUEUES; i++)
        drv_queue(l->f.d, i, 16);
    drv_ready(l->f.d);
}

static void lanes_down(Lanes *l, gconstpointer unused)
{
    fix_down(&l->f, NULL);
    for (unsigned i = 0; i < LANES; i++)
        io_thread_free(l->io[i]);
    lodge_clock_free(l->clock);
}

static void in_time(const Lanes *l)
{
    g_assert_cmpint(g_get_monotonic_time(), <, l->deadline);
    g_usleep(10);
}

static void lane_put(Lanes *l, unsigned q, uint64_t sector)
{
    struct virtio_blk_outhdr h = {.type = VIRTIO_BLK_T_IN, .sector = sector};
    DrvSeg segs[] = {{l->at[q].hdr, 16, false}, {l->at[q].data, SECTOR, true},
                     {l->at[q].status, 1, true}};

    drv_put(l->f.d, l->at[q].hdr, &h, sizeof h);
    drv_add(l->f.d, q, segs, 3);
    drv_kick(l->f.d, q);
}

static void lane_get(Lanes *l, unsigned q, uint64_t sector)
{
    uint32_t head, len;
    uint8_t first;

    while (!drv_used(l->f.d, q, &head, &len))
        in_time(l);
    g_assert_cmpuint(len, ==, SECTOR + 1);
    drv_get(l->f.d, l->at[q].data, &first, 1);
    g_assert_cmpuint(first, ==, sector + 1);
}

static unsigned held(Lanes *l)
{
    g_mutex_lock(&l->f.node.mutex);
    unsigned n = g_queue_get_length(&l->f.node.held);
    g_mutex_unlock(&l->f.node.mutex);
    return n;
}

static void hold_one_each(Lanes *l)
{
    l->f.node.hold = true;
    for (unsigned q = 0; q < LANE_QUEUES; q++)
        lane_put(l, q, q);
    while (held(l) < LANE_QUEUES)
        in_time(l);
    l->f.node.hold = false;
}

/* Every queue gets its own answers, whichever loop its requests were done on. */
static void test_lanes(Lanes *l, gconstpointer unused)
{
    lanes_start(l);
    for (unsigned i = 0; i < 300; i++) {
        for (unsigned q = 0; q < LANE_QUEUES; q++)
            lane_put(l, q, (i + q) % 64);
        for (unsigned q = 0; q < LANE_QUEUES; q++)
            lane_get(l, q, (i + q) % 64);
    }
    g_assert_cmpuint(l->f.node.ops[BLK_READ], ==, 300 * LANE_QUEUES);
}

/* A queue whose loop the image has a side on submits there, and only those of that loop do. */
static void test_lanes_side(Lanes *l, gconstpointer unused)
{
    lanes_start(l);
    for (unsigned q = 0; q < LANE_QUEUES; q++) {
        lane_put(l, q, 5);
        lane_get(l, q, 5);
    }
    g_assert_cmpuint(l->side.ops[BLK_READ], ==, 2);
    g_assert_cmpuint(l->f.node.ops[BLK_READ], ==, 2);
}

/* A reset ends when the last loop has let go of guest memory, and the device starts again. */
static void test_lanes_reset(Lanes *l, gconstpointer unused)
{
    for (unsigned i = 0; i < 20; i++) {
        lanes_start(l);
        hold_one_each(l);
        drv_reset(l->f.d);
        g_assert_cmpuint(drv_get_status(l->f.d), !=, 0);
        drv_reset(l->f.d);
        g_assert_cmpuint(drv_get_status(l->f.d), !=, 0);
        for (unsigned left = LANE_QUEUES; --left;) { /* the last one counts, on whichever loop */
            io_thread_call(l->io[0], let_first_go, &l->f.node);
            g_usleep(500);
            g_assert_cmpuint(drv_get_status(l->f.d), !=, 0);
        }
        io_thread_call(l->io[0], let_go, &l->f.node);
        while (drv_get_status(l->f.d))
            in_time(l);
        for (int q = 0; q < LANE_QUEUES; q++)
            g_assert_cmpuint(drv_msis(l->f.d, q), ==, 0);
    }
    lanes_start(l);
    for (unsigned q = 0; q < LANE_QUEUES; q++) {
        lane_put(l, q, 9);
        lane_get(l, q, 9);
    }
}

static void test_lanes_quiesce(Lanes *l, gconstpointer unused)
{
    bool quiet = false;

    lanes_start(l);
    hold_one_each(l);
    device_quiesce(l->f.d->dev, note_quiet, &quiet);
    for (unsigned left = LANE_QUEUES; --left;) {
        g_usleep(2000);
        g_assert_false(__atomic_load_n(&quiet, __ATOMIC_ACQUIRE));
        io_thread_call(l->io[0], let_first_go, &l->f.node);
    }
    g_usleep(2000);
    g_assert_false(__atomic_load_n(&quiet, __ATOMIC_ACQUIRE));
    io_thread_call(l->io[0], let_go, &l->f.node);
    while (!__atomic_load_n(&quiet, __ATOMIC_ACQUIRE))
        in_time(l);
    for (unsigned q = 0; q < LANE_QUEUES; q++)
        lane_get(l, q, q); /* published before it said that it is quiet */
    for (unsigned q = 0; q < LANE_QUEUES; q++)
        lane_put(l, q, 7);
    g_usleep(2000);
    g_assert_cmpuint(l->f.node.ops[BLK_READ], ==, LANE_QUEUES);
    device_resume(l->f.d->dev);
    for (unsigned q = 0; q < LANE_QUEUES; q++)
        lane_get(l, q, 7);
}

/* A queue that breaks the rules stops them all, and a reset mends that. */
static void test_lanes_broken(Lanes *l, gconstpointer unused)
{
    lanes_start(l);
    drv_desc(l->f.d, 1, 0, UINT64_MAX - 4096, 16, 0, 0);
    drv_offer(l->f.d, 1, 0);
    drv_kick(l->f.d, 1);
    while (!drv_needs_reset(l->f.d))
        in_time(l);
    drv_reset(l->f.d);
    while (drv_get_status(l->f.d))
        in_time(l);
    lanes_start(l);
    for (unsigned q = 0; q < LANE_QUEUES; q++) {
        lane_put(l, q, 3);
        lane_get(l, q, 3);
    }
}

static void test_lanes_refused(void)
{
    Fix f = {0};
    GError *error = NULL;

    fix_make(&f);
    Device *d = device_new(device_class_find("virtio-blk-pci"), "disk9", &f.tb->board);
    g_assert_true(device_set(d, "drive", "disk", &error));
    g_assert_true(device_set(d, "queues", "2", &error));
    g_assert_true(device_set(d, "iothreads", "3", &error));
    g_assert_false(device_realize(d, &error));
    g_assert_cmpstr(error->message, ==,
                    "disk9: iothreads=3: more than its 2 queues; a queue has one loop");
    g_clear_error(&error);
    device_free(d);
    test_board_free(f.tb);
}

#define ADD_LANES(name, n, fn) g_test_add("/virtio-blk/" name, Lanes, n, lanes_up, fn, lanes_down)
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
    ADD_LANES("lanes", "3", test_lanes);
    ADD_LANES("lanes-side", "2", test_lanes_side);
    ADD_LANES("lanes-reset", "3", test_lanes_reset);
    ADD_LANES("lanes-quiesce", "3", test_lanes_quiesce);
    ADD_LANES("lanes-broken", "3", test_lanes_broken);
    g_test_add_func("/virtio-blk/lanes-refused", test_lanes_refused);
    return g_test_run();
}
