/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an operator wants done with a disk's requests: limits, discards, zeros, errors. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "block_int.h"
#include "blockfix.h"

#define SIZE (4 * MIB)

/* ---- many requests at once ---- */

typedef struct One {
    BlkReq req;
    struct iovec iov;
    uint8_t buf[4096];
    struct Many *many;
    int err;
    bool done;
} One;

typedef struct Many {
    BlkNode *n;
    unsigned count;
    One *one;
    gint left;
} Many;

static void one_done(BlkReq *req, int err)
{
    One *o = req->opaque;

    o->err = err;
    o->done = true;
    g_atomic_int_add(&o->many->left, -1);
}

/* @count requests of @op, one behind the other on the disk. */
static void many_start(Many *m, BlkNode *n, BlkOp op, unsigned count)
{
    *m = (Many){.n = n, .count = count, .one = g_new0(One, count), .left = (gint)count};
    for (unsigned i = 0; i < count; i++) {
        One *o = &m->one[i];
        memset(o->buf, 1 + i % 200, sizeof o->buf);
        o->many = m;
        o->iov = (struct iovec){o->buf, sizeof o->buf};
        o->req = (BlkReq){.op = op, .offset = i * 4096, .len = 4096, .iov = &o->iov, .niov = 1,
                          .may_unmap = true, .done = one_done, .opaque = o};
        blk_submit(n, &o->req);
    }
}

static bool many_wait(Many *m, unsigned left, unsigned ms)
{
    int64_t until = g_get_monotonic_time() + ms * 1000;

    while ((unsigned)g_atomic_int_get(&m->left) > left && g_get_monotonic_time() < until)
        g_usleep(500);
    return (unsigned)g_atomic_int_get(&m->left) <= left;
}

static void many_end(Many *m)
{
    g_assert_cmpint(g_atomic_int_get(&m->left), ==, 0);
    g_free(m->one);
}

/* ---- limits ---- */

static double seconds_for(BlockFix *f, const BlkOptions *o, unsigned count)
{
    g_autoptr(BlkNode) n = block_fix_open(f, o);
    int64_t from = clock_host_ns();
    Many m;

    many_start(&m, n, BLK_READ, count);
    g_assert_true(many_wait(&m, 0, 20000));
    many_end(&m);
    return (double)(clock_host_ns() - from) / NS_PER_SEC;
}

static void test_limits(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", SIZE, 3);

    /* A tenth of a second's worth goes at once: 300 requests take (300 - 100) / 1000 s. */
    double s = seconds_for(f, &(BlkOptions){.file = path, .iops = 1000}, 300);
    g_assert_cmpfloat(s, >=, 0.19);
    g_assert_cmpfloat(s, <, 2);
    s = seconds_for(f, &(BlkOptions){.file = path, .bps = 4 * MIB}, 400); /* 1600 KiB */
    g_assert_cmpfloat(s, >=, 0.28);
    g_assert_cmpfloat(s, <, 3);
    /* The sharper of two counts. */
    s = seconds_for(f, &(BlkOptions){.file = path, .iops = 100000, .bps = 4 * MIB}, 400);
    g_assert_cmpfloat(s, >=, 0.28);
    s = seconds_for(f, &(BlkOptions){.file = path, .iops = 1000, .bps = 1000 * MIB}, 300);
    g_assert_cmpfloat(s, >=, 0.19);
}

/* What waits for its turn is not lost: not by a drain, not by a hurry, not by closing; a request
 * that is larger than a second's worth goes too. */
static void test_limit_waiting(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", SIZE, 3);
    BlkOptions o = {.file = path, .iops = 20};
    g_autoptr(BlkNode) n = block_fix_open(f, &o);
    Many m;

    many_start(&m, n, BLK_READ, 40); /* 2 go at once, the others would take 2 s */
    g_assert_false(many_wait(&m, 30, 20));
    blk_drain_begin(n);
    int left = g_atomic_int_get(&m.left);
    g_usleep(200000);
    g_assert_cmpint(g_atomic_int_get(&m.left), ==, left);
    g_assert_cmpint(left, >, 30);
    g_assert_cmpint(blk_flush(n), ==, 0);
    blk_drain_end(n);
    g_assert_true(many_wait(&m, (unsigned)left - 1, 2000));
    blk_hurry(n, true);
    g_assert_true(many_wait(&m, 0, 500));
    many_end(&m);
    blk_hurry(n, false);
    many_start(&m, n, BLK_READ, 40);
    g_assert_false(many_wait(&m, 30, 20));
    blk_close(g_steal_pointer(&n));
    g_assert_cmpint(g_atomic_int_get(&m.left), ==, 0);
    for (unsigned i = 0; i < m.count; i++)
        g_assert_cmpint(m.one[i].err, ==, 0);
    many_end(&m);
    o = (BlkOptions){.file = path, .bps = 512};
    n = block_fix_open(f, &o);
    many_start(&m, n, BLK_READ, 1);
    g_assert_true(many_wait(&m, 0, 2000));
    many_end(&m);
}

/* Other rates while requests wait: these go by them; a disk without a limit gets one, and what came
 * to it from other loops counts too. */
static void test_limit_change(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", SIZE, 3);
    BlkOptions o = {.file = path, .iops = 20};
    g_autoptr(BlkNode) n = block_fix_open(f, &o);
    uint64_t iops, bps;
    Many m;

    blk_rates(n, &iops, &bps);
    g_assert_cmpuint(iops, ==, 20);
    g_assert_cmpuint(bps, ==, 0);
    many_start(&m, n, BLK_READ, 200); /* for 10 s */
    g_assert_false(many_wait(&m, 190, 20));
    g_assert_true(blk_set_rates(n, 1000000, 0, &error));
    g_assert_no_error(error);
    g_assert_true(many_wait(&m, 0, 3000));
    many_end(&m);
    g_assert_true(blk_set_rates(n, 0, 0, &error)); /* none at all: at once, and the same again */
    blk_rates(n, &iops, &bps);
    g_assert_cmpuint(iops + bps, ==, 0);
    many_start(&m, n, BLK_READ, 200);
    g_assert_true(many_wait(&m, 0, 3000));
    many_end(&m);
    blk_close(g_steal_pointer(&n));

    static const BlkOptions others[] = {{.iops = 0}, {.detect_zeroes = true}};
    for (unsigned i = 0; i < G_N_ELEMENTS(others); i++) {
        o = others[i];
        o.file = path;
        n = block_fix_open(f, &o);
        g_autoptr(IoThread) io = io_thread_new("other", f->clock, &error);
        g_assert_no_error(error);
        BlkNode *side = blk_side(n, io, &error);
        g_assert_no_error(error);
        g_assert_true(blk_set_rates(n, 0, 0, &error)); /* nothing is to be done */
        g_assert_true((side != n) == !i);
        blk_drain_begin(n); /* as a pause does */
        g_assert_true(blk_set_rates(n, 20, 0, &error));
        g_assert_no_error(error);
        many_start(&m, side, BLK_READ, 30);
        g_assert_false(many_wait(&m, 29, 50));
        blk_drain_end(n);
        g_assert_false(many_wait(&m, 20, 30));
        blk_hurry(n, true);
        g_assert_true(many_wait(&m, 0, 3000));
        blk_hurry(n, false);
        many_end(&m);
        blk_close(g_steal_pointer(&n));
    }
}

/* ---- discards and zeros ---- */

static uint64_t stored(const char *path)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    return (uint64_t)st.st_blocks * 512;
}

static void test_discard_ignore(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", SIZE, 3);
    g_autoptr(BlkNode) n =
        block_fix_open(f, &(BlkOptions){.file = path, .discard_ignore = true});
    uint8_t buf[512];
    Many m;

    many_start(&m, n, BLK_DISCARD, 1);
    g_assert_true(many_wait(&m, 0, 2000));
    g_assert_cmpint(m.one[0].err, ==, 0);
    many_end(&m);
    g_assert_cmpint(blk_pread(n, buf, 0, 512), ==, 0);
    g_assert_cmpuint(buf[0], ==, block_fix_byte(0, 3));
    uint64_t before = stored(path);
    Many z;
    many_start(&z, n, BLK_ZERO, 64);
    g_assert_true(many_wait(&z, 0, 2000));
    many_end(&z);
    g_assert_cmpint(blk_pread(n, buf, 0, 512), ==, 0);
    g_assert_cmpuint(buf[0], ==, 0);
    g_assert_cmpuint(stored(path), >=, before); /* no holes */
}

static void test_detect_zeroes(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", SIZE, 3);
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = path, .detect_zeroes = true});
    uint64_t before = stored(path);
    g_autofree uint8_t *buf = g_malloc0(MIB);
    struct iovec iov[2] = {{buf, MIB / 2}, {buf + MIB / 2, MIB / 2}};
    One o = {.req = {.op = BLK_WRITE, .offset = MIB, .len = MIB, .iov = iov, .niov = 2,
                     .done = one_done, .opaque = &o}};
    Many m = {.left = 1};
    BlkStats st;

    o.many = &m;
    blk_submit(n, &o.req);
    g_assert_true(many_wait(&m, 0, 2000));
    g_assert_cmpint(o.err, ==, 0);
    g_assert_cmpint(o.req.op, ==, BLK_WRITE); /* as it was submitted */
    g_assert_cmpuint(stored(path), <=, before - MIB);
    blk_stats(n, &st);
    g_assert_cmpuint(st.ops[BLK_WRITE], ==, 1);
    /* One byte that is not zero, in the last sector. */
    before = stored(path);
    buf[MIB - 3] = 1;
    m.left = 1;
    blk_submit(n, &o.req);
    g_assert_true(many_wait(&m, 0, 2000));
    g_assert_cmpuint(stored(path), >=, before + MIB);
    g_assert_cmpint(blk_pread(n, buf, 2 * MIB - 512, 512), ==, 0);
    g_assert_cmpuint(buf[509], ==, 1);
}

/* ---- errors ---- */

/* Writes at or past 64 KiB fail with EFBIG until the limit is lifted. */
static struct rlimit old_limit;

static void writes_fail(bool on)
{
    struct rlimit low;

    signal(SIGXFSZ, SIG_IGN);
    if (on) {
        g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old_limit), ==, 0);
        low = old_limit;
        low.rlim_cur = 64 * KIB;
        g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &low), ==, 0);
    } else {
        g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old_limit), ==, 0);
    }
}

static void on_stop(void *opaque, BlkNode *n, int err)
{
    g_assert_cmpint(err, ==, EFBIG);
    g_assert_true(io_thread_is_current(n->io));
    g_atomic_int_inc((gint *)opaque);
}

static void test_error_report_ignore(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", SIZE, 3);

    for (unsigned ignore = 0; ignore < 2; ignore++) {
        BlkOptions o = {.file = path, .on_error = ignore ? BLK_ERROR_IGNORE : BLK_ERROR_REPORT,
                        .aio = BLK_AIO_THREADS};
        g_autoptr(BlkNode) n = block_fix_open(f, &o);
        Many m;
        writes_fail(true);
        many_start(&m, n, BLK_WRITE, 32); /* the first 16 can be written */
        bool ended = many_wait(&m, 0, 5000);
        writes_fail(false);
        g_assert_true(ended);
        for (unsigned i = 0; i < m.count; i++)
            g_assert_cmpint(m.one[i].err, ==, ignore || i < 16 ? 0 : EFBIG);
        many_end(&m);
    }
}

static void test_error_stop(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", SIZE, 3);
    BlkOptions o = {.file = path, .on_error = BLK_ERROR_STOP, .aio = BLK_AIO_THREADS};
    g_autoptr(BlkNode) n = block_fix_open(f, &o);
    gint stops = 0;
    uint8_t buf[4096];
    Many m;

    blk_on_stop(n, on_stop, &stops);
    writes_fail(true);
    many_start(&m, n, BLK_WRITE, 32);
    g_assert_true(many_wait(&m, 16, 5000));
    g_assert_false(many_wait(&m, 15, 50));
    g_assert_cmpint(g_atomic_int_get(&stops), ==, 1);
    blk_drain_begin(n); /* does not wait for them */
    blk_drain_end(n);
    blk_retry(n, false); /* fails again */
    g_assert_false(many_wait(&m, 15, 50));
    g_assert_cmpint(g_atomic_int_get(&stops), ==, 2);
    writes_fail(false);
    blk_retry(n, false);
    g_assert_true(many_wait(&m, 0, 5000));
    for (unsigned i = 0; i < m.count; i++) {
        g_assert_cmpint(m.one[i].err, ==, 0);
        g_assert_cmpint(blk_pread(n, buf, i * 4096, 4096), ==, 0);
        g_assert_cmpuint(buf[4095], ==, 1 + i); /* nothing lost */
    }
    many_end(&m);
    /* Told to fail: those that wait, and others until the next retry. */
    writes_fail(true);
    many_start(&m, n, BLK_WRITE, 32);
    g_assert_true(many_wait(&m, 16, 5000));
    blk_retry(n, true);
    g_assert_true(many_wait(&m, 0, 5000));
    g_assert_cmpint(m.one[31].err, ==, EFBIG);
    many_end(&m);
    many_start(&m, n, BLK_WRITE, 17);
    g_assert_true(many_wait(&m, 0, 5000));
    g_assert_cmpint(m.one[16].err, ==, EFBIG);
    many_end(&m);
    /* Closing lets them be seen. */
    blk_retry(n, false);
    many_start(&m, n, BLK_WRITE, 17);
    g_assert_true(many_wait(&m, 1, 5000));
    g_assert_false(many_wait(&m, 0, 50));
    blk_close(g_steal_pointer(&n));
    writes_fail(false);
    g_assert_cmpint(m.one[16].err, ==, EFBIG);
    many_end(&m);
}

static int tap_before(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len, uint64_t *ret_mark)
{
    return op == BLK_TAP_WRITE && g_atomic_int_get((gint *)opaque) ? EIO : 0;
}

static void tap_after(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len,
                      const struct iovec *iov, unsigned niov, uint64_t mark)
{
}

/* What an image hands on to its file as it is comes back as it was: after an error it finds its place
 * again, and its submitter reads where it was meant to be. */
static void test_error_stop_image(gconstpointer format)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "a.img"), *base = block_fix_image(f, "b", SIZE, 3);
    BlkMake make = {.file = path, .format = format, .size = SIZE};
    gint failing = 0;
    BlkTap tap = {tap_before, tap_after, &failing};
    uint8_t buf[4096];
    BlkStats stats;
    Many m;

    if (!strcmp(format, "umlcow"))
        make.base = base;
    g_assert_true(blk_make(&make, f->io, NULL));
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = path, .format = format, .tap = &tap,
                                                           .on_error = BLK_ERROR_STOP});
    many_start(&m, n, BLK_DISCARD, 32); /* so that what follows is not in the order of the file */
    g_assert_true(many_wait(&m, 0, 5000));
    many_end(&m);
    for (unsigned i = 32; i-- > 0;) {
        memset(buf, 0xaa, sizeof buf);
        g_assert_cmpint(blk_pwrite(n, buf, i * 4096, sizeof buf), ==, 0);
    }
    g_atomic_int_set(&failing, 1);
    many_start(&m, n, BLK_WRITE, 32);
    g_assert_false(many_wait(&m, 31, 50));
    blk_retry(n, false); /* fails again */
    g_assert_false(many_wait(&m, 31, 50));
    g_atomic_int_set(&failing, 0);
    blk_retry(n, false);
    g_assert_true(many_wait(&m, 0, 5000));
    for (unsigned i = 0; i < m.count; i++) {
        g_assert_cmpint(m.one[i].err, ==, 0);
        g_assert_cmpuint(m.one[i].req.offset, ==, i * 4096);
        g_assert_cmpint(blk_pread(n, buf, i * 4096, 4096), ==, 0);
        g_assert_cmpuint(buf[0], ==, 1 + i);
        g_assert_cmpuint(buf[4095], ==, 1 + i);
    }
    many_end(&m);
    blk_stats(n, &stats);
    g_assert_cmpuint(stats.bytes[BLK_WRITE], ==, 2 * 32 * 4096);
    blk_drain_begin(n); /* nothing is counted as under way */
    blk_drain_end(n);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/policy/limits", test_limits);
    g_test_add_func("/policy/limit-waiting", test_limit_waiting);
    g_test_add_func("/policy/limit-change", test_limit_change);
    g_test_add_func("/policy/discard-ignore", test_discard_ignore);
    g_test_add_func("/policy/detect-zeroes", test_detect_zeroes);
    g_test_add_func("/policy/error-report-ignore", test_error_report_ignore);
    g_test_add_func("/policy/error-stop", test_error_stop);
    g_test_add_data_func("/policy/error-stop/qcow2", "qcow2", test_error_stop_image);
    g_test_add_data_func("/policy/error-stop/umlcow", "umlcow", test_error_stop_image);
    g_test_add_data_func("/policy/error-stop/vdi", "vdi", test_error_stop_image);
    return g_test_run();
}
