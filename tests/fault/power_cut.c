/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cuts and failing hosts under random requests, for images of every shape.
 *
 * cut:  everything that happens to an image's file is recorded. Then files are put together as the
 *       disk could hold them after a cut at some point (medium.c). Each must open, pass the check
 *       without an error, and hold every byte that was flushed and not touched since. Leaks may be
 *       there.
 * fail: the n-th operation on the file fails, and all later ones for a while, with EIO or ENOSPC.
 *       Each request tells of an error or has done its work; afterwards the image is sound, and
 *       holds what was written well.
 *
 * A few requests are under way at once, a flush among them, each in a part of the disk of its own.
 *
 * FAULT_SEED sets the seed, which is printed; FAULT_CUTS how many cuts a shape gets (60; with
 * LODGE_TEST_LONG 10000); FAULT_FAILS how many failures (24; 1000); FAULT_SHAPE and FAULT_FORMAT
 * pick shapes.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "medium.h"
#include "shapes.h"

#define SIZE (3 * MIB)
#define SECTORS (SIZE / 512)
#define LEN_MAX_SECTORS 200u
#define AT_ONCE 4u
#define ROUNDS 25u     /* of requests at once, in a recording */
#define CUTS_A_RUN 50u /* from one recording */
#define SYNC_EVERY 5

/* What a flush, or a write with FUA, has promised from a length of the record on. */
typedef struct Promise {
    uint64_t at;
    uint8_t *bytes;  /* owned; of the disk */
    bool *open;      /* owned; sectors of which nothing is promised */
} Promise;

/* What a request touched: nothing is promised of that until the next flush. */
typedef struct Touch {
    uint64_t at; /* length of the record before the request */
    uint64_t first, n;
} Touch;

/* What is known of each sector. */
typedef struct Disk {
    uint8_t *bytes;    /* owned; what was written last */
    uint8_t *flushed;  /* owned; what was flushed last */
    bool *touched;     /* owned; since then */
} Disk;

static void clear_promise(void *p)
{
    g_free(((Promise *)p)->bytes);
    g_free(((Promise *)p)->open);
}

static void disk_init(Disk *d, const uint8_t *bytes)
{
    d->bytes = g_memdup2(bytes, SIZE);
    d->flushed = g_memdup2(bytes, SIZE);
    d->touched = g_new0(bool, SECTORS);
}

static void disk_end(Disk *d)
{
    g_free(d->bytes);
    g_free(d->flushed);
    g_free(d->touched);
}

static void disk_flushed(Disk *d)
{
    memcpy(d->flushed, d->bytes, SIZE);
    memset(d->touched, 0, SECTORS * sizeof *d->touched);
}

/* ---- requests ---- */

typedef struct Op {
    BlkReq req;
    struct iovec iov;
    uint8_t buf[LEN_MAX_SECTORS * 512];
    Touch touch;
    gint *left;
    int err;
} Op;

static void op_done(BlkReq *req, int err)
{
    Op *op = req->opaque;

    op->err = err;
    g_atomic_int_add(op->left, -1);
}

static void op_draw(Op *op, GRand *rand, unsigned slice)
{
    uint64_t most = SECTORS / AT_ONCE;
    uint64_t n = g_rand_int_range(rand, 1, g_rand_int_range(rand, 0, 3) ? 17 : LEN_MAX_SECTORS);
    uint64_t first = slice * most + (uint64_t)g_rand_int_range(rand, 0, (int)(most - n + 1));

    op->touch = (Touch){.first = first, .n = n};
    op->req = (BlkReq){.op = BLK_WRITE, .offset = first * 512, .len = n * 512,
                       .may_unmap = g_rand_boolean(rand), .done = op_done, .opaque = op};
    switch (g_rand_int_range(rand, 0, 8)) {
    case 0:
        op->req.op = BLK_ZERO;
        memset(op->buf, 0, n * 512);
        break;
    case 1:
        op->req.op = BLK_DISCARD;
        break;
    default:
        memset(op->buf, g_rand_int_range(rand, 1, 256), n * 512);
        for (uint64_t i = 0; i < n * 512; i += 512)
            op->buf[i] = (uint8_t)(first + i / 512);
        op->iov = (struct iovec){op->buf, n * 512};
        op->req.iov = &op->iov;
        op->req.niov = 1;
        op->req.fua = g_rand_int_range(rand, 0, 10) == 0;
        op->req.compress = g_rand_int_range(rand, 0, 10) == 0;
    }
}

/* Some requests at once, and before them, with @sync, a flush. What @d knows follows.
 * Return: whether all of that was promised to last: the flush, or a write with FUA. */
static bool round_of(BlkNode *n, GRand *rand, Op *ops, unsigned *ret_n, Disk *d, bool sync,
                     int *ret_flush_err)
{
    unsigned count = (unsigned)g_rand_int_range(rand, 1, AT_ONCE + 1);
    unsigned skip = (unsigned)g_rand_int_range(rand, 0, AT_ONCE);
    gint left = (gint)count + sync;
    Op *flush = &ops[AT_ONCE];
    bool lasts = false;

    *flush = (Op){.req = {.op = BLK_FLUSH, .done = op_done, .opaque = flush}, .left = &left};
    for (unsigned i = 0; i < count; i++) {
        op_draw(&ops[i], rand, (i + skip) % AT_ONCE);
        ops[i].left = &left;
    }
    if (sync)
        blk_submit(n, &flush->req);
    for (unsigned i = 0; i < count; i++)
        blk_submit(n, &ops[i].req);
    while (g_atomic_int_get(&left))
        g_usleep(10);
    if (sync && !flush->err)
        disk_flushed(d);
    lasts = sync && !flush->err;
    *ret_flush_err = sync ? flush->err : 0;
    for (unsigned i = 0; i < count; i++) {
        Op *op = &ops[i];
        uint64_t first = op->touch.first, many = op->touch.n;
        for (uint64_t s = first; s < first + many; s++)
            d->touched[s] = true;
        if (!op->err && op->req.op == BLK_DISCARD) /* as before or zeros: see which */
            op->err = blk_pread(n, op->buf, first * 512, many * 512);
        if (op->err)
            continue;
        memcpy(d->bytes + first * 512, op->buf, many * 512);
        if (!op->req.fua)
            continue;
        memcpy(d->flushed + first * 512, op->buf, many * 512);
        memset(d->touched + first, 0, many * sizeof *d->touched);
        lasts = true;
    }
    *ret_n = count;
    return lasts;
}

/* ---- images ---- */

typedef struct Image {
    BlockFix *f;
    const Shape *shape;
    char *path, *base, *cut; /* owned; base: or NULL */
    uint8_t *bytes; /* owned; of the disk, new */
} Image;

static void image_init(Image *im, BlockFix *f, const Shape *s)
{
    *im = (Image){.f = f, .shape = s, .cut = block_fix_path(f, "cut"), .bytes = g_malloc(SIZE)};
    im->path = shape_make(f, s, SIZE, &im->base);
    for (uint64_t i = 0; i < SIZE; i++)
        im->bytes[i] = shape_byte(s, i);
}

static void image_end(Image *im)
{
    g_free(im->path);
    g_free(im->base);
    g_free(im->cut);
    g_free(im->bytes);
}

static BlkNode *open_image(const Image *im, const char *path, const BlkTap *tap, GError **error)
{
    BlkOptions o = {.file = path, .format = im->shape->format, .metadata_cache = 8192, .tap = tap};

    return blk_open_flags(NULL, &o, BLK_OPEN_QUIET, im->f->io, error);
}

/* @path opens, is without an error, and holds @want where @skip does not say otherwise. */
static void expect_sound(const Image *im, const char *path, const uint8_t *want, const bool *skip,
                         const char *what)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkReport) r = blk_report_new();
    g_autofree uint8_t *got = g_malloc(SIZE);
    g_autoptr(BlkNode) n = open_image(im, path, NULL, &error);

    if (!n)
        g_error("%s: %s", what, error->message);
    if (!image_check(n, false, r, &error))
        g_error("%s: check: %s", what, error->message);
    if (r->errors)
        g_error("%s: %s", what, (char *)g_ptr_array_index(r->lines, 0));
    g_assert_cmpint(blk_pread(n, got, 0, SIZE), ==, 0);
    for (uint64_t s = 0; s < SECTORS; s++)
        if (!(skip && skip[s]) && memcmp(got + s * 512, want + s * 512, 512) != 0)
            g_error("%s: sector %" G_GUINT64_FORMAT " is %02x %02x..., not %02x %02x...", what, s,
                    got[s * 512], got[s * 512 + 1], want[s * 512], want[s * 512 + 1]);
}

/* ---- cuts ---- */

/* The last promise before @at. */
static const Promise *promise_at(const GArray *promises, uint64_t at)
{
    const Promise *best = NULL;

    for (guint i = 0; i < promises->len; i++) {
        const Promise *p = &g_array_index(promises, Promise, i);
        if (p->at <= at)
            best = p;
    }
    return best;
}

static void promise(GArray *promises, Medium *m, const Disk *d)
{
    Promise p = {.at = medium_now(m), .bytes = g_memdup2(d->flushed, SIZE),
                 .open = g_memdup2(d->touched, SECTORS * sizeof *d->touched)};

    g_array_append_val(promises, p);
}

/* Cuts of a recording; @end: its length. */
static void cut_up(const Image *im, Medium *m, const GArray *promises, const GArray *touches,
                   GRand *rand, unsigned cuts, const char *story)
{
    uint64_t end = medium_now(m);

    for (unsigned i = 0; i < cuts; i++) {
        uint64_t at = g_rand_int_range(rand, 0, (int)end + 1);
        const Promise *p = promise_at(promises, at);
        g_autofree bool *skip = g_memdup2(p->open, SECTORS * sizeof(bool));
        g_autofree char *what =
            g_strdup_printf("%s, cut %u at %" G_GUINT64_FORMAT, story, i, at);
        g_autoptr(GByteArray) bytes = medium_cut(m, 0, at, rand);
        for (guint k = 0; k < touches->len; k++) {
            const Touch *t = &g_array_index(touches, Touch, k);
            for (uint64_t s = t->first; t->at >= p->at && s < t->first + t->n; s++)
                skip[s] = true;
        }
        medium_store(im->cut, bytes);
        expect_sound(im, im->cut, p->bytes, skip, what);
    }
}

static void test_cut(gconstpointer data)
{
    const Shape *shape = data;
    bool thorough = g_getenv("LODGE_TEST_LONG");
    unsigned cuts = (unsigned)fault_number("FAULT_CUTS", thorough ? 10000 : 60);
    guint32 seed = fault_seed();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autofree Op *ops = g_new(Op, AT_ONCE + 1);

    for (unsigned done = 0; done < cuts; done += CUTS_A_RUN) {
        g_autoptr(BlockFix) f = block_fix_new();
        g_autoptr(GError) error = NULL;
        g_autoptr(GArray) touches = g_array_new(FALSE, FALSE, sizeof(Touch));
        g_autoptr(GArray) promises = g_array_new(FALSE, FALSE, sizeof(Promise));
        g_autoptr(Medium) m = medium_new();
        g_autofree char *story = g_strdup_printf("%s, seed %u, after %u", shape->name, seed, done);
        Disk d;
        Image im;

        g_array_set_clear_func(promises, clear_promise);
        image_init(&im, f, shape);
        disk_init(&d, im.bytes);
        BlkNode *n = open_image(&im, im.path, medium_add(m, im.path), &error);
        g_assert_no_error(error);
        promise(promises, m, &d);
        for (unsigned i = 0; i < ROUNDS; i++) {
            uint64_t at = medium_now(m);
            unsigned count;
            int flush_err;
            bool lasts = round_of(n, rand, ops, &count, &d,
                                  g_rand_int_range(rand, 0, SYNC_EVERY) == 0, &flush_err);
            g_assert_cmpint(flush_err, ==, 0);
            for (unsigned k = 0; k < count; k++) {
                g_assert_cmpint(ops[k].err, ==, 0);
                ops[k].touch.at = at;
                g_array_append_val(touches, ops[k].touch);
            }
            if (lasts)
                promise(promises, m, &d);
            if (n->drv->snap && g_rand_int_range(rand, 0, 20) == 0 &&
                !image_snapshot(n, "create", "s", NULL))
                image_snapshot(n, "delete", "s", NULL);
        }
        blk_close(n);
        expect_sound(&im, im.path, d.bytes, NULL, "closed in peace");
        cut_up(&im, m, promises, touches, rand, MIN(CUTS_A_RUN, cuts - done), story);
        disk_end(&d);
        image_end(&im);
    }
}

/* ---- failures ---- */

static void test_fail(gconstpointer data)
{
    static const int errors[] = {EIO, ENOSPC};
    const Shape *shape = data;
    bool thorough = g_getenv("LODGE_TEST_LONG");
    unsigned fails = (unsigned)fault_number("FAULT_FAILS", thorough ? 1000 : 24);
    guint32 seed = fault_seed();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autofree Op *ops = g_new(Op, AT_ONCE + 1);

    for (unsigned i = 0; i < fails; i++) {
        g_autoptr(BlockFix) f = block_fix_new();
        g_autoptr(GError) error = NULL;
        g_autofree char *what = g_strdup_printf("%s, seed %u, failure %u", shape->name, seed, i);
        g_autofree bool *unsure = g_new0(bool, SECTORS);
        g_autoptr(Medium) m = medium_new();
        Disk d;
        Image im;

        image_init(&im, f, shape);
        disk_init(&d, im.bytes);
        BlkNode *n = open_image(&im, im.path, medium_add(m, im.path), &error);
        g_assert_no_error(error);
        m->fail_from = m->count + (uint64_t)g_rand_int_range(rand, 0, 80);
        m->fail_for = g_rand_boolean(rand) ? 1 : (uint64_t)g_rand_int_range(rand, 2, 30);
        m->fail_err = errors[i % 2];
        m->reads_too = i % 4 == 0;
        for (unsigned k = 0; k < ROUNDS; k++) {
            unsigned count;
            int flush_err;
            (void)round_of(n, rand, ops, &count, &d, k % SYNC_EVERY == 0, &flush_err);
            if (flush_err)
                g_assert_cmpint(flush_err, ==, m->fail_err);
            for (unsigned o = 0; o < count; o++) {
                const Touch *t = &ops[o].touch;
                if (ops[o].err)
                    g_assert_cmpint(ops[o].err, ==, m->fail_err);
                for (uint64_t at = t->first; at < t->first + t->n; at++)
                    unsure[at] = ops[o].err != 0; /* until it is written well */
            }
        }
        m->fail_for = 0; /* the host is well again */
        int err = blk_flush(n);
        blk_close(n);
        if (err) /* what a failed flush has lost stays lost, and says so for ever */
            memcpy(unsure, d.touched, SECTORS * sizeof(bool));
        expect_sound(&im, im.path, d.bytes, unsure, what);
        disk_end(&d);
        image_end(&im);
    }
}

int main(int argc, char **argv)
{
    /* Syncs are recorded, not needed: memory is fast. */
    if (g_access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", TRUE);
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < n_shapes; i++) {
        g_autofree char *cut = g_strdup_printf("/fault/cut/%s", shapes[i].name);
        g_autofree char *fail = g_strdup_printf("/fault/fail/%s", shapes[i].name);
        if (!shape_is_asked(&shapes[i]))
            continue;
        g_test_add_data_func(cut, &shapes[i], test_cut);
        g_test_add_data_func(fail, &shapes[i], test_fail);
    }
    return g_test_run();
}
