/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sides of a raw disk: what several loops write is all there, drained, counted and guarded as one. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lodge/num.h"

#include "block_int.h"
#include "blockfix.h"
#include "live.h"

#define BLOCK 4096u
#define BLOCKS 256u
#define LOADS 3u
#define DEPTH 8u

typedef struct Load {
    BlkNode *node;
    IoThread *own;   /* the disk's loop */
    unsigned first;  /* block; then each LOADS-th */
    unsigned next, running, elsewhere;
    unsigned done;   /* atomic */
    uint8_t seed;
    int err;
    struct Slot {
        BlkReq req;
        struct iovec iov;
        uint8_t buf[BLOCK];
        struct Load *load;
    } slot[DEPTH];
} Load;

static void slot_done(BlkReq *req, int err);

/* Context: the load's loop, or the disk's; one of them at a time, as a slot has one request out. */
static void slot_start(struct Slot *s)
{
    Load *l = s->load;
    unsigned i = __atomic_fetch_add(&l->next, LOADS, __ATOMIC_RELAXED);

    if (i >= BLOCKS) {
        __atomic_fetch_sub(&l->running, 1, __ATOMIC_RELEASE);
        return;
    }
    memset(s->buf, (int)(i + l->seed), BLOCK);
    s->iov = (struct iovec){s->buf, BLOCK};
    s->req = (BlkReq){.op = BLK_WRITE, .offset = (uint64_t)i * BLOCK, .len = BLOCK, .iov = &s->iov,
                      .niov = 1, .done = slot_done, .opaque = s};
    blk_submit(l->node, &s->req);
}

static void slot_done(BlkReq *req, int err)
{
    struct Slot *s = req->opaque;

    if (err)
        s->load->err = err;
    if (io_thread_is_current(s->load->own))
        __atomic_fetch_add(&s->load->elsewhere, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&s->load->done, 1, __ATOMIC_RELAXED);
    slot_start(s);
}

static void load_start(void *opaque)
{
    Load *l = opaque;

    for (unsigned i = 0; i < DEPTH; i++) {
        l->slot[i].load = l;
        slot_start(&l->slot[i]);
    }
}

typedef struct Fix {
    BlockFix *b;
    IoThread *io[LOADS];
    char *image;
    BlkNode *n;
    Load load[LOADS];
} Fix;

static void fix_up(Fix *f, gconstpointer options)
{
    BlkOptions o = options ? *(const BlkOptions *)options : (BlkOptions){0};

    f->b = block_fix_new();
    f->image = block_fix_image(f->b, "disk.img", BLOCKS * BLOCK, 0);
    f->io[0] = f->b->io;
    for (unsigned i = 1; i < LOADS; i++)
        f->io[i] = io_thread_new("side", f->b->clock, NULL);
    o.file = f->image;
    f->n = block_fix_open(f->b, &o);
}

static void fix_down(Fix *f, gconstpointer unused)
{
    blk_close(f->n);
    for (unsigned i = 1; i < LOADS; i++)
        io_thread_free(f->io[i]);
    g_free(f->image);
    block_fix_free(f->b);
}

static void start(Fix *f, uint8_t seed)
{
    GError *error = NULL;

    for (unsigned i = 0; i < LOADS; i++) {
        Load *l = &f->load[i];
        memset(l, 0, sizeof *l);
        l->node = blk_side(f->n, f->io[i], &error);
        g_assert_no_error(error);
        l->own = f->io[0];
        l->next = i;
        l->running = DEPTH;
        l->seed = seed;
        io_thread_post(f->io[i], load_start, l);
    }
}

static unsigned total(Fix *f)
{
    unsigned n = 0;

    for (unsigned i = 0; i < LOADS; i++)
        n += __atomic_load_n(&f->load[i].done, __ATOMIC_RELAXED);
    return n;
}

static void finish(Fix *f)
{
    gint64 deadline = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;

    for (unsigned i = 0; i < LOADS; i++) {
        while (__atomic_load_n(&f->load[i].running, __ATOMIC_ACQUIRE)) {
            g_assert_cmpint(g_get_monotonic_time(), <, deadline);
            g_usleep(100);
        }
        g_assert_cmpint(f->load[i].err, ==, 0);
    }
    g_assert_cmpuint(total(f), ==, BLOCKS);
}

static void compare(Fix *f, uint8_t seed)
{
    g_autofree char *bytes = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(f->image, &bytes, &len, NULL));
    g_assert_cmpuint(len, ==, BLOCKS * BLOCK);
    for (unsigned i = 0; i < BLOCKS; i++)
        for (unsigned k = 0; k < BLOCK; k += BLOCK - 1)
            g_assert_cmpuint((uint8_t)bytes[i * BLOCK + k], ==, (uint8_t)(i + seed));
}

/* Also: the first and the last block go through the disk itself, for the guard. */
static void test_write(Fix *f, gconstpointer unused)
{
    BlkStats s;

    start(f, 1);
    g_assert_true(f->load[0].node == f->n);
    g_assert_true(f->load[1].node != f->n && f->load[1].node != f->load[2].node);
    g_assert_true(blk_side(f->n, f->io[1], NULL) == f->load[1].node);
    g_assert_true(blk_io_thread(f->load[2].node) == f->io[2]);
    g_assert_cmpuint(f->n->limits.physical, ==, 4096); /* tmpfs and disks alike */
    g_assert_cmpuint(f->load[1].node->limits.physical, ==, 4096);
    finish(f);
    compare(f, 1);
    blk_stats(f->n, &s);
    g_assert_cmpuint(s.ops[BLK_WRITE], ==, BLOCKS);
    g_assert_cmpuint(s.bytes[BLK_WRITE], ==, BLOCKS * BLOCK);
    g_assert_cmpuint(f->load[1].elsewhere + f->load[2].elsewhere, <=, 2);
    g_assert_cmpint(blk_flush(f->load[1].node), ==, 0);
}

/* While it is drained nothing happens, on no loop; then all goes on. */
static void test_drain(Fix *f, gconstpointer unused)
{
    for (uint8_t seed = 1; seed < 30; seed++) {
        start(f, seed);
        blk_drain_begin(f->n);
        unsigned before = total(f);
        g_usleep(1000);
        g_assert_cmpuint(total(f), ==, before);
        blk_drain_end(f->n);
        finish(f);
        compare(f, seed);
    }
}

/* Detached, the disk sees every request, also those that were parked. */
static void test_detach(Fix *f, gconstpointer unused)
{
    BlkStats own = {0};
    unsigned before;

    start(f, 7);
    blk_drain_begin(f->n);
    before = total(f);
    blk_sides_detach(f->n);
    blk_drain_end(f->n);
    finish(f);
    compare(f, 7);
    for (unsigned i = 1; i < LOADS; i++)
        f->load[i].elsewhere = 0;
    start(f, 9);
    finish(f);
    compare(f, 9);
    g_assert_cmpuint(f->load[1].elsewhere, ==, f->load[1].done);
    g_assert_cmpuint(f->load[2].elsewhere, ==, f->load[2].done);
    blk_stats(f->load[1].node, &own);
    g_assert_cmpuint(own.ops[BLK_WRITE], <=, before);
}

/* As a device has it: an overlay that is put on top while the sides are written to gets all that is
 * written from then on. */
static void test_overlay(Fix *f, gconstpointer unused)
{
    g_autofree char *top = block_fix_path(f->b, "top.qcow2");
    g_autofree char *before = NULL, *after = NULL;
    BlkOptions o = {.file = f->image};
    BlkOverlayArgs a = {.file = top};
    uint8_t buf[BLOCK];
    GError *error = NULL;
    gsize len;

    blk_close(f->n);
    f->n = blk_open("d0", &o, f->io[0], &error);
    g_assert_no_error(error);
    start(f, 1);
    g_assert_true(f->load[1].node != f->n);
    finish(f);
    compare(f, 1);
    start(f, 5);
    g_assert_true(blk_overlay(f->n, &a, &error));
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(f->image, &before, &len, NULL));
    finish(f);
    start(f, 9);
    finish(f);
    for (unsigned i = 0; i < BLOCKS; i++) {
        g_assert_cmpint(blk_pread(f->n, buf, (uint64_t)i * BLOCK, BLOCK), ==, 0);
        g_assert_cmpuint(buf[1], ==, (uint8_t)(i + 9));
    }
    g_assert_true(g_file_get_contents(f->image, &after, &len, NULL));
    g_assert_cmpmem(before, len, after, len);
}

static void test_errors(Fix *f, gconstpointer unused)
{
    GError *error = NULL;
    BlkNode *s = blk_side(f->n, f->io[1], &error);
    uint8_t buf[BLOCK] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};

    g_assert_no_error(error);
    g_assert_cmpint(blk_pread(s, buf, BLOCKS * BLOCK, BLOCK), ==, EIO);
    g_assert_cmpint(blk_pread(s, buf, 1, BLOCK), ==, EINVAL);
    /* The guard of a guessed format holds here too. */
    memcpy(buf, "QFI\xfb\0\0\0\3", 8);
    g_assert_cmpint(blk_pwrite(s, buf, 0, BLOCK), ==, EIO);
    g_assert_cmpint(blk_pwrite(s, buf, BLOCK, BLOCK), ==, 0);
}

/* A disk with limits, and an overlay, have none. */
static void test_none(Fix *f, gconstpointer unused)
{
    g_autofree char *cow = block_fix_path(f->b, "disk.cow");
    BlkOptions o = {.file = cow, .base = f->image};
    GError *error = NULL;

    g_assert_true(blk_side(f->n, f->io[1], &error) == f->n);
    start(f, 3);
    finish(f);
    compare(f, 3);
    blk_close(g_steal_pointer(&f->n));
    f->n = block_fix_open(f->b, &o);
    g_assert_true(blk_side(f->n, f->io[1], &error) == f->n);
    g_assert_no_error(error);
}

/* A new size is a side's too once the disk goes on. */
static void test_limits(Fix *f, gconstpointer unused)
{
    uint8_t buf[BLOCK];
    GError *error = NULL;
    BlkNode *s = blk_side(f->n, f->io[1], &error);

    g_assert_no_error(error);
    blk_drain_begin(f->n);
    g_assert_true(f->n->drv->resize(f->n, 2 * BLOCKS * BLOCK, false, &error));
    blk_node_ready(f->n->file);
    blk_node_ready(f->n);
    blk_drain_end(f->n);
    g_assert_cmpint(blk_pwrite(s, buf, (BLOCKS + 4) * BLOCK, BLOCK), ==, 0);
}

#define ADD(name, o, fn) g_test_add("/block/side/" name, Fix, o, fix_up, fn, fix_down)

int main(int argc, char **argv)
{
    static const BlkOptions threads = {.aio = BLK_AIO_THREADS}, limited = {.iops = 1000000};

    g_test_init(&argc, &argv, NULL);
    ADD("write", NULL, test_write);
    ADD("write-threads", &threads, test_write);
    ADD("drain", NULL, test_drain);
    ADD("detach", NULL, test_detach);
    ADD("overlay", NULL, test_overlay);
    ADD("errors", NULL, test_errors);
    ADD("none", &limited, test_none);
    ADD("limits", NULL, test_limits);
    return g_test_run();
}
