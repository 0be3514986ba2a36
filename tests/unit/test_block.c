/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Nodes, raw images, the two engines, caches, checks, drain, statistics, errors of opening. */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"

#define NOBODY 65534u

static const BlkAio engines[] = {BLK_AIO_AUTO, BLK_AIO_THREADS};

static void test_raw_rw(gconstpointer aio)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 1 * MIB, 3);
    g_autoptr(BlkNode) n =
        block_fix_open(f, &(BlkOptions){.file = path, .aio = *(const BlkAio *)aio});
    uint8_t buf[8192], back[8192];
    BlkLimits l;

    blk_limits(n, &l);
    g_assert_cmpuint(l.size, ==, 1 * MIB);
    g_assert_cmpuint(l.align, ==, 512);
    g_assert_false(l.read_only);
    g_assert_cmpstr(blk_format(n), ==, "raw");
    g_assert_cmpstr(blk_name(n), ==, "d0");
    g_assert_cmpint(blk_pread(n, buf, 4096 + 512, 8192), ==, 0);
    for (unsigned i = 0; i < sizeof buf; i++)
        g_assert_cmpuint(buf[i], ==, block_fix_byte(4096 + 512 + i, 3));
    memset(buf, 0xa5, sizeof buf);
    g_assert_cmpint(blk_pwrite(n, buf, 65536, sizeof buf), ==, 0);
    g_assert_cmpint(blk_flush(n), ==, 0);
    g_assert_cmpint(blk_pread(n, back, 65536, sizeof back), ==, 0);
    g_assert_cmpmem(buf, sizeof buf, back, sizeof back);

    /* Many pieces of memory, sizes that are no sector each; with FUA. */
    struct iovec iov[4] = {{buf, 100}, {buf + 100, 412}, {buf + 512, 1}, {buf + 513, 511}};
    for (unsigned i = 0; i < 1024; i++)
        buf[i] = i * 11;
    BlkReq req = {.op = BLK_WRITE, .offset = 512, .len = 1024, .iov = iov, .niov = 4, .fua = true};
    g_assert_cmpint(blk_wait(n, &req), ==, 0);
    memset(back, 0, sizeof back);
    struct iovec riov[3] = {{back, 7}, {back + 7, 1000}, {back + 1007, 17}};
    req = (BlkReq){.op = BLK_READ, .offset = 512, .len = 1024, .iov = riov, .niov = 3};
    g_assert_cmpint(blk_wait(n, &req), ==, 0);
    g_assert_cmpmem(buf, 1024, back, 1024);

    BlkStats st;
    blk_stats(n, &st);
    g_assert_cmpuint(st.ops[BLK_READ], ==, 3);
    g_assert_cmpuint(st.ops[BLK_WRITE], ==, 2);
    g_assert_cmpuint(st.ops[BLK_FLUSH], ==, 1);
    g_assert_cmpuint(st.bytes[BLK_WRITE], ==, sizeof buf + 1024);
    g_assert_cmpuint(st.errors[BLK_READ], ==, 0);
}

static int simple(BlkNode *n, BlkOp op, uint64_t offset, uint64_t len)
{
    BlkReq req = {.op = op, .offset = offset, .len = len, .may_unmap = true};

    return blk_wait(n, &req);
}

static void test_checks(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 64 * KIB, 1);
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = path});
    g_autofree uint8_t *buf = g_malloc0(4096);
    struct iovec iov = {buf, 512};

    g_assert_cmpint(blk_pread(n, buf, 64 * KIB, 512), ==, EIO);
    g_assert_cmpint(blk_pread(n, buf, 64 * KIB - 512, 1024), ==, EIO);
    g_assert_cmpint(blk_pread(n, buf, UINT64_MAX - 511, 512), ==, EIO);
    g_assert_cmpint(blk_pread(n, buf, 1, 512), ==, EINVAL);
    g_assert_cmpint(blk_pread(n, buf, 0, 100), ==, EINVAL);
    BlkReq req = {.op = BLK_READ, .len = 1024, .iov = &iov, .niov = 1};
    g_assert_cmpint(blk_wait(n, &req), ==, EINVAL); /* sum of iov */
    struct iovec wrap[2] = {{buf, SIZE_MAX}, {buf, 513}};
    req = (BlkReq){.op = BLK_READ, .len = 512, .iov = wrap, .niov = 2};
    g_assert_cmpint(blk_wait(n, &req), ==, EINVAL); /* sum that wraps */
    req = (BlkReq){.op = (BlkOp)17, .len = 512};
    g_assert_cmpint(blk_wait(n, &req), ==, EINVAL);
    g_assert_cmpint(blk_pread(n, buf, 0, 0), ==, 0);
    g_assert_cmpint(simple(n, BLK_DISCARD, 0, 0), ==, 0);
    blk_close(g_steal_pointer(&n));

    n = block_fix_open(f, &(BlkOptions){.file = path, .read_only = true});
    g_assert_cmpint(blk_pwrite(n, buf, 0, 512), ==, EROFS);
    g_assert_cmpint(simple(n, BLK_ZERO, 0, 512), ==, EROFS);
    g_assert_cmpint(simple(n, BLK_DISCARD, 0, 512), ==, EROFS);
    g_assert_cmpint(blk_flush(n), ==, 0);
    BlkStats st;
    blk_stats(n, &st);
    g_assert_cmpuint(st.errors[BLK_WRITE], ==, 1);
}

static void test_zero_discard_status(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 1 * MIB, 5);
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = path});
    g_autofree uint8_t *buf = g_malloc(1 * MIB);

    g_assert_cmpint(simple(n, BLK_ZERO, 512, 1024), ==, 0);
    g_assert_cmpint(simple(n, BLK_DISCARD, 64 * KIB, 64 * KIB), ==, 0);
    g_assert_cmpint(blk_pread(n, buf, 0, 1 * MIB), ==, 0);
    for (unsigned i = 0; i < 1 * MIB; i++) {
        bool gone = (i >= 512 && i < 1536) || (i >= 64 * KIB && i < 128 * KIB);
        g_assert_cmpuint(buf[i], ==, gone ? 0 : block_fix_byte(i, 5));
    }
    BlkReq req = {.op = BLK_STATUS, .offset = 64 * KIB, .len = 512 * KIB};
    g_assert_cmpint(blk_wait(n, &req), ==, 0);
    g_assert_cmpint(req.status, ==, 0);
    g_assert_cmpuint(req.status_len, ==, 64 * KIB);
    req = (BlkReq){.op = BLK_STATUS, .offset = 128 * KIB, .len = 64 * KIB};
    g_assert_cmpint(blk_wait(n, &req), ==, 0);
    g_assert_cmpint(req.status, ==, 1);
    g_assert_cmpuint(req.status_len, ==, 64 * KIB);
}

/* A size that is no multiple of a sector. */
static void test_odd_size(gconstpointer aio)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "odd.img", 70000, 9);
    g_autoptr(BlkNode) n =
        block_fix_open(f, &(BlkOptions){.file = path, .aio = *(const BlkAio *)aio});
    uint8_t buf[1024];
    BlkLimits l;

    blk_limits(n, &l);
    g_assert_cmpuint(l.size, ==, 70144);
    memset(buf, 0xee, sizeof buf);
    g_assert_cmpint(blk_pread(n, buf, 69120, 1024), ==, 0);
    for (unsigned i = 0; i < 1024; i++)
        g_assert_cmpuint(buf[i], ==, 69120 + i < 70000 ? block_fix_byte(69120 + i, 9) : 0);
}

static void test_guard(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 64 * KIB, 1);
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = path});
    uint8_t buf[1024] = "OOOM", back[1024];
    struct iovec iov[3] = {{buf, 2}, {buf + 2, 600}, {buf + 602, 422}};
    BlkReq req = {.op = BLK_WRITE, .len = 1024, .iov = iov, .niov = 3};

    g_assert_cmpint(blk_wait(n, &req), ==, EIO);
    g_assert_cmpint(blk_pread(n, back, 0, 1024), ==, 0);
    g_assert_cmpuint(back[0], ==, block_fix_byte(0, 1));
    memcpy(buf, "QFI\xfb", 4);
    g_assert_cmpint(blk_pwrite(n, buf, 0, 512), ==, EIO);
    memcpy(buf, "\xeb\x63\x90", 4);
    for (unsigned i = 4; i < sizeof buf; i++)
        buf[i] = i * 13;
    g_assert_cmpint(blk_wait(n, &req), ==, 0);
    g_assert_cmpint(blk_pread(n, back, 0, 1024), ==, 0);
    g_assert_cmpmem(buf, 1024, back, 1024);
    blk_close(g_steal_pointer(&n));

    n = block_fix_open(f, &(BlkOptions){.file = path, .format = "raw"});
    memcpy(buf, "OOOM", 4);
    g_assert_cmpint(blk_pwrite(n, buf, 0, 512), ==, 0);
    blk_close(g_steal_pointer(&n));
    block_fix_refused(f, &(BlkOptions){.file = path}, LODGE_ERROR_UNSUPPORTED, "version");
    memcpy(buf, "QFI\xfb", 4);
    n = block_fix_open(f, &(BlkOptions){.file = path, .format = "raw"});
    g_assert_cmpint(blk_pwrite(n, buf, 0, 512), ==, 0);
    blk_close(g_steal_pointer(&n));
    block_fix_refused(f, &(BlkOptions){.file = path}, LODGE_ERROR_UNSUPPORTED, "qcow2");
}

static void test_open_errors(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *none = block_fix_path(f, "none.img");
    g_autofree char *empty = block_fix_image(f, "empty.img", 0, 0);
    g_autofree char *fifo = block_fix_path(f, "fifo");
    g_autofree char *ok = block_fix_image(f, "ok.img", 4096, 0);

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    block_fix_refused(f, &(BlkOptions){.file = none}, LODGE_ERROR_CONFIG, "no such file");
    block_fix_refused(f, &(BlkOptions){.file = f->dir}, LODGE_ERROR_CONFIG, "is a directory");
    block_fix_refused(f, &(BlkOptions){.file = f->dir, .read_only = true}, LODGE_ERROR_CONFIG,
                      "is a directory");
    block_fix_refused(f, &(BlkOptions){.file = empty}, LODGE_ERROR_CONFIG, "is empty");
    block_fix_refused(f, &(BlkOptions){.file = fifo}, LODGE_ERROR_CONFIG, "is a FIFO");
    block_fix_refused(f, &(BlkOptions){.file = fifo, .read_only = true}, LODGE_ERROR_CONFIG,
                      "is a FIFO");
    block_fix_refused(f, &(BlkOptions){.file = "/dev/null"}, LODGE_ERROR_CONFIG,
                      "is a character device");
    block_fix_refused(f, &(BlkOptions){.file = ""}, LODGE_ERROR_CONFIG, "no file named");
    block_fix_refused(f, &(BlkOptions){.file = ok, .format = "qcow9"}, LODGE_ERROR_CONFIG,
                      "format 'qcow9'");
    block_fix_refused(f, &(BlkOptions){.file = ok, .format = "umlcow"}, LODGE_ERROR_IMAGE,
                      "no COW header");
    block_fix_refused(f, &(BlkOptions){.file = ok, .base = none}, LODGE_ERROR_CONFIG,
                      "is no overlay");
    block_fix_refused(f, &(BlkOptions){.file = ok, .aio = BLK_AIO_LIBAIO}, LODGE_ERROR_CONFIG,
                      "add cache=none");
    /* Root may write any file, so be somebody else for a moment. */
    bool root = geteuid() == 0;
    g_chmod(ok, 0444);
    g_chmod(f->dir, 0755);
    if (root)
        g_assert_cmpint(seteuid(NOBODY), ==, 0);
    block_fix_refused(f, &(BlkOptions){.file = ok}, LODGE_ERROR_CONFIG, "add ,ro");
    blk_close(block_fix_open(f, &(BlkOptions){.file = ok, .read_only = true}));
    if (root)
        g_assert_cmpint(seteuid(0), ==, 0);
}

typedef struct Many {
    BlkNode *n;
    BlkReq req;
    struct iovec iov;
    uint8_t buf[4096];
    uint64_t block;
    unsigned left;
    gint *running;
} Many;

static void many_next(Many *m)
{
    m->block = (m->block * 1103515245 + 12345) % 256;
    m->req.op = BLK_READ;
    m->req.offset = m->block * 4096;
    m->req.len = 4096;
    m->iov = (struct iovec){m->buf, 4096};
    m->req.iov = &m->iov;
    m->req.niov = 1;
    blk_submit(m->n, &m->req);
}

static void many_done(BlkReq *req, int err)
{
    Many *m = req->opaque;

    g_assert_true(io_thread_is_current(blk_io_thread(m->n)));
    g_assert_cmpint(err, ==, 0);
    for (unsigned i = 0; i < 4096; i += 511)
        g_assert_cmpuint(m->buf[i], ==, block_fix_byte(m->block * 4096 + i, 4));
    if (--m->left) {
        many_next(m);
        return;
    }
    g_atomic_int_add(m->running, -1);
}

typedef struct ManyCase {
    BlkAio aio;
    BlkCache cache;
} ManyCase;

static const ManyCase many_cases[] = {{BLK_AIO_AUTO, BLK_CACHE_WRITEBACK},
                                      {BLK_AIO_THREADS, BLK_CACHE_WRITEBACK},
                                      {BLK_AIO_LIBAIO, BLK_CACHE_NONE}};

/* More requests than the ring holds, each resubmitted from its completion; drains in between. */
static void test_many(gconstpointer data)
{
    const ManyCase *c = data;
    enum { STREAMS = 300, EACH = 20 };
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 1 * MIB, 4);
    g_autoptr(GError) error = NULL;
    BlkOptions o = {.file = path, .aio = c->aio, .cache = c->cache};
    g_autoptr(BlkNode) n = blk_open("d0", &o, f->io, &error);
    if (!n && g_error_matches(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED)) {
        g_test_skip(error->message);
        return;
    }
    g_assert_no_error(error);
    g_assert_cmpstr(blk_engine(n), ==, c->aio == BLK_AIO_LIBAIO    ? "libaio"
                                       : c->aio == BLK_AIO_THREADS ? "threads"
                                                                   : blk_engine(n));
    g_autofree Many *all = g_new0(Many, STREAMS);
    gint running = STREAMS;
    BlkStats a, b;

    for (unsigned i = 0; i < STREAMS; i++) {
        all[i].n = n;
        all[i].block = i;
        all[i].left = EACH;
        all[i].running = &running;
        all[i].req.done = many_done;
        all[i].req.opaque = &all[i];
        if (i == 0) {
            for (unsigned d = 0; d < 2; d++)
                blk_drain_begin(n);
            many_next(&all[i]);
        } else {
            many_next(&all[i]);
        }
        if (i == 100) {
            blk_drain_end(n);
            g_assert_cmpint(g_atomic_int_get(&running), ==, STREAMS); /* nothing started */
            blk_drain_end(n);
        }
    }
    blk_drain_begin(n);
    blk_stats(n, &a);
    g_usleep(2000);
    blk_stats(n, &b);
    g_assert_cmpuint(a.ops[BLK_READ], ==, b.ops[BLK_READ]);
    g_assert_cmpint(blk_flush(n), ==, 0); /* the one who drained may */
    blk_drain_end(n);
    int64_t until = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;
    while (g_atomic_int_get(&running) && g_get_monotonic_time() < until)
        g_usleep(500);
    g_assert_cmpint(g_atomic_int_get(&running), ==, 0);
    blk_stats(n, &a);
    g_assert_cmpuint(a.ops[BLK_READ], ==, STREAMS * EACH);
}

typedef struct Inline {
    BlkNode *n;
    BlkReq req;
    int want;
    bool inside, called;
} Inline;

static void inline_done(BlkReq *req, int err)
{
    Inline *t = req->opaque;

    g_assert_false(t->inside);
    g_assert_cmpint(err, ==, t->want);
    t->called = true;
}

static void inline_submit(void *opaque)
{
    Inline *t = opaque;

    t->inside = true;
    blk_submit(t->n, &t->req);
    t->inside = false;
}

/* done never runs from inside blk_submit(): not for a refused request, nor for one that is done at
 * once. */
static void test_never_inline(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 4096, 0);
    g_autoptr(BlkNode) n =
        block_fix_open(f, &(BlkOptions){.file = path, .cache = BLK_CACHE_UNSAFE});
    Inline t[] = {
        {.n = n, .req = {.op = BLK_READ, .offset = 1, .done = inline_done}, .want = EINVAL},
        {.n = n, .req = {.op = BLK_READ, .done = inline_done}},
        {.n = n, .req = {.op = BLK_FLUSH, .done = inline_done}},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(t); i++) {
        t[i].req.opaque = &t[i];
        io_thread_call(f->io, inline_submit, &t[i]);
        blk_drain_begin(n);
        blk_drain_end(n);
        g_assert_true(t[i].called);
    }
}

static void test_direct(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 4 * MIB + 700, 6);
    g_autoptr(GError) error = NULL;
    BlkOptions o = {.file = path, .cache = BLK_CACHE_NONE};
    g_autofree uint8_t *buf = g_malloc(3 * MIB + 1), *back = g_malloc(3 * MIB + 1);

    static const BlkAio direct[] = {BLK_AIO_AUTO, BLK_AIO_THREADS, BLK_AIO_LIBAIO};
    for (unsigned e = 0; e < G_N_ELEMENTS(direct); e++) {
        o.aio = direct[e];
        g_autoptr(BlkNode) n = blk_open("d0", &o, f->io, &error);
        if (!n && g_error_matches(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED)) {
            g_test_skip(error->message);
            return;
        }
        g_assert_no_error(error);
        /* Misaligned memory goes through the bounce buffer, in more than one step. */
        for (unsigned i = 0; i < 3 * MIB; i++)
            buf[i + 1] = i * 5 + i / 4099 + e;
        g_assert_cmpint(blk_pwrite(n, buf + 1, 512, 3 * MIB), ==, 0);
        g_assert_cmpint(blk_pread(n, back + 1, 512, 3 * MIB), ==, 0);
        g_assert_cmpmem(buf + 1, 3 * MIB, back + 1, 3 * MIB);
        g_assert_cmpint(blk_pread(n, back + 1, 4 * MIB, 1024), ==, 0); /* over the end of file */
        for (unsigned i = 0; i < 1024; i++)
            g_assert_cmpuint(back[1 + i], ==, i < 700 ? block_fix_byte(4 * MIB + i, 6) : 0);
        g_assert_cmpint(blk_flush(n), ==, 0);
    }
}

/* A loop device with blocks of 4096 bytes over @path; transfer full, NULL: none can be had here. */
static char *loop_4k(const char *path)
{
    const char *argv[] = {"losetup", "-f", "--show", "-b", "4096", path, NULL};
    char *out = NULL;
    int status = 1;

    if (geteuid() != 0 ||
        !g_spawn_sync(NULL, (char **)argv, NULL,
                      G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL,
                      &status, NULL) ||
        status) {
        g_free(out);
        return NULL;
    }
    return g_strchomp(out);
}

/* A device with large blocks, past the host's cache: a raw disk has them too, a base is read as it
 * must be. */
static void test_direct_4k(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", 1 * MIB, 6);
    g_autofree char *cow = block_fix_path(f, "o.cow");
    g_autofree char *loop = loop_4k(path);
    const char *detach[] = {"losetup", "-d", loop, NULL};
    g_autofree uint8_t *buf = g_malloc(64 * KIB + 1), *back = g_malloc(64 * KIB + 1);
    BlkLimits l;

    if (!loop) {
        g_test_skip("no loop device with blocks of 4096 bytes");
        return;
    }
    for (unsigned e = 0; e < 3; e++) {
        static const BlkAio aios[] = {BLK_AIO_AUTO, BLK_AIO_THREADS, BLK_AIO_LIBAIO};
        BlkOptions o = {.file = loop, .cache = BLK_CACHE_NONE, .aio = aios[e]};
        g_autoptr(BlkNode) n = block_fix_open(f, &o);
        blk_limits(n, &l);
        g_assert_cmpuint(l.align, ==, 4096);
        g_assert_cmpuint(l.size, ==, 1 * MIB);
        for (unsigned i = 0; i <= 64 * KIB; i++)
            buf[i] = i * 7 + e;
        g_assert_cmpint(blk_pwrite(n, buf + 1, 0, 64 * KIB), ==, 0); /* the guarded sector too */
        g_assert_cmpint(blk_pwrite(n, buf, 512, 512), ==, EINVAL);
        g_assert_cmpint(blk_flush(n), ==, 0);
        g_assert_cmpint(blk_pread(n, back + 1, 0, 64 * KIB), ==, 0);
        g_assert_cmpmem(buf + 1, 64 * KIB, back + 1, 64 * KIB);
    }
    /* Through the cache, blocks are 512 bytes. */
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = loop});
    blk_limits(n, &l);
    g_assert_cmpuint(l.align, ==, 512);
    g_assert_cmpint(blk_pread(n, back, 512, 512), ==, 0);
    g_assert_cmpmem(buf + 1 + 512, 512, back, 512);
    blk_close(g_steal_pointer(&n));
    /* As a base it is read by sectors all the same. */
    g_autoptr(GError) error = NULL;
    n = blk_open("d0", &(BlkOptions){.file = cow, .base = loop, .cache = BLK_CACHE_NONE}, f->io,
                 &error);
    if (n) {
        g_assert_cmpint(blk_pwrite(n, buf + 1, 1024, 512), ==, 0);
        g_assert_cmpint(blk_pread(n, back, 0, 4096), ==, 0);
        g_assert_cmpmem(buf + 1, 1024, back, 1024);
        g_assert_cmpmem(buf + 1, 512, back + 1024, 512);
        g_assert_cmpmem(buf + 1 + 1536, 2560, back + 1536, 2560);
        blk_close(g_steal_pointer(&n));
    } else {
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED); /* no O_DIRECT there */
    }
    /* An image of a format writes by sectors. */
    g_autofree char *small = block_fix_image(f, "small.img", 64 * KIB, 6);
    g_autofree char *made = block_fix_path(f, "small.cow"), *text = NULL;
    gsize len;
    blk_close(block_fix_open(f, &(BlkOptions){.file = made, .base = small}));
    g_assert_true(g_file_get_contents(made, &text, &len, NULL));
    n = block_fix_open(f, &(BlkOptions){.file = loop, .format = "raw"});
    g_assert_cmpint(blk_pwrite(n, text, 0, len / 512 * 512), ==, 0);
    blk_close(g_steal_pointer(&n));
    blk_close(block_fix_open(f, &(BlkOptions){.file = loop}));
    block_fix_refused(f, &(BlkOptions){.file = loop, .cache = BLK_CACHE_NONE},
                      LODGE_ERROR_UNSUPPORTED, "has blocks of 4096 bytes, and format umlcow");
    g_assert_true(g_spawn_sync(NULL, (char **)detach, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL,
                               NULL, NULL, NULL));
}

static void test_two_dozen(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    BlkNode *n[26];
    uint8_t buf[512];

    for (unsigned i = 0; i < G_N_ELEMENTS(n); i++) {
        g_autofree char *name = g_strdup_printf("%u.img", i);
        g_autofree char *path = block_fix_image(f, name, 8192, i + 1);
        n[i] = block_fix_open(f, &(BlkOptions){.file = path});
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(n); i++) {
        g_assert_cmpint(blk_pread(n[i], buf, 512, 512), ==, 0);
        g_assert_cmpuint(buf[3], ==, block_fix_byte(515, i + 1));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(n); i++)
        blk_close(n[i]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/block/raw-rw", &engines[0], test_raw_rw);
    g_test_add_data_func("/block/raw-rw-threads", &engines[1], test_raw_rw);
    g_test_add_func("/block/checks", test_checks);
    g_test_add_func("/block/zero-discard-status", test_zero_discard_status);
    g_test_add_data_func("/block/odd-size", &engines[0], test_odd_size);
    g_test_add_data_func("/block/odd-size-threads", &engines[1], test_odd_size);
    g_test_add_func("/block/guard", test_guard);
    g_test_add_func("/block/open-errors", test_open_errors);
    g_test_add_data_func("/block/many", &many_cases[0], test_many);
    g_test_add_data_func("/block/many-threads", &many_cases[1], test_many);
    g_test_add_data_func("/block/many-libaio", &many_cases[2], test_many);
    g_test_add_func("/block/never-inline", test_never_inline);
    g_test_add_func("/block/direct", test_direct);
    g_test_add_func("/block/direct-4k", test_direct_4k);
    g_test_add_func("/block/two-dozen", test_two_dozen);
    return g_test_run();
}
