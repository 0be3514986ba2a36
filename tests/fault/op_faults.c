/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work on whole images that is cut off: commit, rebase, changes of size, snapshots, repair, for
 * images of every shape.
 *
 * cut:  the power goes at each point of the work in turn (medium.c). The image must open, pass the
 *       check without an error, and be what it was before or what it is to become, nothing between.
 *       Where the base was being written its identity may not fit any more, which rebase --unsafe
 *       mends, as the message says.
 * fail: the n-th operation on the files fails, or all from it on, for each n: the work says why in
 *       one line, and the image is as after a cut.
 *
 * FAULT_SEED sets the seed, which is printed; FAULT_DRAWS how many files are put together at each
 * point (LODGE_TEST_LONG: 20; else some points are looked at); FAULT_SHAPE, FAULT_FORMAT and
 * FAULT_OP pick.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "medium.h"
#include "shapes.h"

#define SIZE (1 * MIB)
#define GROWN (SIZE + 700 * 512)
#define SHRUNK (SIZE - 300 * 512)
#define WRITES 30u
#define LEN_MAX_SECTORS 60
#define SOME_POINTS 5u /* looked at where not all are */

typedef enum Kind {
    OP_COMMIT, OP_REBASE, OP_FLATTEN, OP_GROW, OP_SHRINK, OP_CREATE, OP_DELETE, OP_APPLY, OP_REPAIR
} Kind;

static const struct {
    const char *name;
    Kind kind;
} ops[] = {
    {"commit", OP_COMMIT}, {"rebase", OP_REBASE}, {"flatten", OP_FLATTEN}, {"grow", OP_GROW},
    {"shrink", OP_SHRINK}, {"snapshot-create", OP_CREATE}, {"snapshot-delete", OP_DELETE},
    {"snapshot-apply", OP_APPLY}, {"repair", OP_REPAIR},
};

typedef struct Case {
    const Shape *shape;
    Kind kind;
    const char *name;
} Case;

typedef struct View {
    uint64_t size;
    uint8_t *bytes; /* owned; GROWN of them */
} View;

typedef struct Work {
    BlockFix *f; /* owned */
    const Case *c;
    char *path, *base, *other; /* owned; base and other: or NULL */
    GByteArray *leaky; /* owned, or NULL: what the image is to be repaired from */
    View before, then; /* then: at the snapshot "s" */
    Medium *m;   /* owned */
    unsigned mended; /* times that rebase --unsafe was needed */
} Work;

static bool is_asked(const Case *c)
{
    const char *name = g_getenv("FAULT_OP");
    const BlkDriver *drv = blk_driver_find(c->shape->format);

    if ((name && strcmp(name, c->name)) || !shape_is_asked(c->shape))
        return false;
    switch (c->kind) {
    case OP_COMMIT:
    case OP_REBASE:
        return c->shape->base_format;
    case OP_FLATTEN:
        return c->shape->base_format && !(drv->flags & BLK_DRV_NEEDS_BASE);
    case OP_GROW:
    case OP_SHRINK:
        return drv->resize;
    case OP_REPAIR:
        return drv->check;
    default:
        return drv->snap;
    }
}

static BlkNode *open_tapped(Work *w, const BlkTap *tap, unsigned flags, GError **error)
{
    BlkOptions o = {.file = w->path, .format = w->c->shape->format, .metadata_cache = 8192,
                    .tap = tap};

    return blk_open_flags(NULL, &o, BLK_OPEN_QUIET | flags, w->f->io, error);
}

static void read_view(BlkNode *n, View *v)
{
    v->size = n->limits.size;
    g_assert_cmpuint(v->size, <=, GROWN);
    g_free(v->bytes);
    v->bytes = g_malloc0(GROWN);
    g_assert_cmpint(blk_pread(n, v->bytes, 0, v->size), ==, 0);
}

static void scribble(BlkNode *n, GRand *rand)
{
    uint8_t buf[LEN_MAX_SECTORS * 512];

    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t len = (uint64_t)g_rand_int_range(rand, 1, LEN_MAX_SECTORS + 1) * 512;
        uint64_t at = (uint64_t)g_rand_int_range(rand, 0, (int)((SIZE - len) / 512)) * 512;
        BlkReq zero = {.op = BLK_ZERO, .offset = at, .len = len, .may_unmap = true};
        memset(buf, g_rand_int_range(rand, 1, 256), len);
        if (i % 6 == 5)
            g_assert_cmpint(blk_wait(n, &zero), ==, 0);
        else
            g_assert_cmpint(blk_pwrite(n, buf, at, len), ==, 0);
    }
}

/* What a power cut left of @path, if that had leaks: a repair has something to do. */
static void make_leaky(Work *w, GRand *rand)
{
    g_autoptr(Medium) m = medium_new();
    g_autoptr(GError) error = NULL;
    BlkNode *n = open_tapped(w, medium_add(m, w->path), 0, &error);

    g_assert_no_error(error);
    scribble(n, rand);
    blk_close(n);
    uint64_t end = medium_now(m);
    for (unsigned i = 0; i < 40; i++) {
        g_autoptr(GByteArray) bytes = medium_cut(m, 0, end * (i % 20) / 20, rand);
        g_autoptr(BlkReport) r = blk_report_new();
        medium_store(w->path, bytes);
        n = open_tapped(w, NULL, BLK_OPEN_CHECK | BLK_OPEN_NO_BASE, &error);
        g_assert_no_error(error);
        g_assert_true(image_check(n, false, r, &error));
        blk_close(n);
        if (r->leaks)
            break;
    }
    n = open_tapped(w, NULL, 0, &error);
    g_assert_no_error(error);
    read_view(n, &w->before);
    blk_close(n);
}

static void work_init(Work *w, const Case *c, GRand *rand)
{
    g_autoptr(GError) error = NULL;

    *w = (Work){.f = block_fix_new(), .c = c};
    w->path = shape_make(w->f, c->shape, SIZE, &w->base);
    if (c->kind == OP_REBASE) {
        g_autofree char *first = w->path, *old = w->base;
        g_autofree char *moved = block_fix_path(w->f, "other");
        /* Another base: what was the first one's, with other bytes. */
        BlkNode *n = block_fix_open(w->f, &(BlkOptions){.file = old,
                                                         .format = c->shape->base_format});
        scribble(n, rand);
        blk_close(n);
        g_assert_cmpint(g_rename(old, moved), ==, 0);
        w->other = g_steal_pointer(&moved);
        g_remove(first);
        w->path = shape_make(w->f, c->shape, SIZE, &w->base);
    }
    BlkNode *n = open_tapped(w, NULL, 0, &error);
    g_assert_no_error(error);
    scribble(n, rand);
    /* What a snapshot has of its base changes with that. */
    bool moves = c->kind == OP_COMMIT || c->kind == OP_REBASE || c->kind == OP_FLATTEN;
    if (n->drv->snap && c->kind != OP_CREATE && !moves) {
        image_snapshot(n, "create", "s", &error);
        g_assert_no_error(error);
        read_view(n, &w->then);
        scribble(n, rand);
    }
    g_assert_cmpint(blk_flush(n), ==, 0);
    read_view(n, &w->before);
    blk_close(n);
    if (c->kind == OP_REPAIR)
        make_leaky(w, rand);
    w->m = medium_new();
    (void)medium_add(w->m, w->path);
    if (w->base)
        (void)medium_add(w->m, w->base);
}

static void work_end(Work *w)
{
    if (w->mended)
        g_test_message("rebase --unsafe was needed %u times", w->mended);
    medium_free(w->m);
    g_free(w->before.bytes);
    g_free(w->then.bytes);
    g_free(w->path);
    g_free(w->base);
    g_free(w->other);
    block_fix_free(w->f);
}

static void restore(Work *w)
{
    for (unsigned i = 0; i < w->m->n_files; i++) {
        gsize len;
        const void *start = g_bytes_get_data(w->m->files[i].start, &len);
        GByteArray bytes = {(guint8 *)start, (guint)len};
        medium_store(w->m->files[i].path, &bytes);
    }
}

/* An image whose base has another identity now is told to take it all the same. */
static void mend_base(Work *w)
{
    g_autoptr(GError) error = NULL;
    CopyResult result;
    BlkNode *n = open_tapped(w, NULL, 0, &error);

    if (!n) {
        const BlkDriver *drv = blk_driver_find(w->c->shape->format);
        if (!(drv->flags & BLK_DRV_CHECKS_BASE) || !strstr(error->message, "--unsafe"))
            g_error("%s %s: %s", w->c->shape->name, w->c->name, error->message);
        g_clear_error(&error);
        RebaseArgs a = {.file = w->path, .format = w->c->shape->format, .base = w->base,
                        .base_format = w->c->shape->base_format, .unsafe = true};
        image_rebase(&a, w->f->io, &result, &error);
        g_assert_no_error(error);
        w->mended++;
    }
    blk_close(n);
}

/* Do the work; the taps are those of the medium, or NULL. */
static bool do_work(Work *w, const BlkTap *tap, const BlkTap *base_tap, GError **error)
{
    const Shape *s = w->c->shape;
    g_autoptr(BlkReport) r = blk_report_new();
    CopyResult result;
    bool ok = false;

    if (w->c->kind == OP_REBASE || w->c->kind == OP_FLATTEN) {
        RebaseArgs a = {.file = w->path, .format = s->format, .base = w->other,
                        .base_format = w->other ? s->base_format : NULL, .tap = tap};
        return image_rebase(&a, w->f->io, &result, error);
    }
    unsigned flags = w->c->kind == OP_COMMIT   ? BLK_OPEN_BASE_RW
                     : w->c->kind == OP_REPAIR ? BLK_OPEN_CHECK | BLK_OPEN_NO_BASE
                                               : 0;
    BlkNode *n = open_tapped(w, tap, flags, error);
    if (!n)
        return false;
    if (n->base)
        blk_file_under(n->base)->tap = base_tap;
    switch (w->c->kind) {
    case OP_COMMIT:
        ok = image_commit(n, false, NULL, &result, error);
        break;
    case OP_GROW:
        ok = image_resize(n, GROWN, false, error);
        break;
    case OP_SHRINK:
        ok = image_resize(n, SHRUNK, true, error);
        break;
    case OP_CREATE:
        ok = image_snapshot(n, "create", "new", error);
        break;
    case OP_DELETE:
        ok = image_snapshot(n, "delete", "s", error);
        break;
    case OP_APPLY:
        ok = image_snapshot(n, "apply", "s", error);
        break;
    default:
        ok = image_check(n, true, r, error);
    }
    int err = ok ? blk_flush(n) : 0;
    if (err)
        ok = lodge_fail_errno(error, err, "cannot flush");
    blk_close(n);
    return ok;
}

static void expect_untouched(Work *w)
{
    for (unsigned i = 0; i < w->m->n_files; i++) {
        g_autofree char *now = NULL;
        gsize len, now_len;
        const void *start = g_bytes_get_data(w->m->files[i].start, &len);
        g_assert_true(g_file_get_contents(w->m->files[i].path, &now, &now_len, NULL));
        g_assert_cmpmem(now, now_len, start, len);
    }
}

/* An image that cannot be changed so says it before anything is touched: then there is no more to
 * see. */
static bool can_do(Work *w)
{
    g_autoptr(GError) error = NULL;
    bool ok = do_work(w, NULL, NULL, &error);

    if (!ok)
        expect_untouched(w);

    if (!ok && !g_error_matches(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED) &&
        !g_error_matches(error, LODGE_ERROR, LODGE_ERROR_CONFIG))
        g_error("%s %s: %s", w->c->shape->name, w->c->name, error->message);
    restore(w);
    return ok;
}

static bool same(const View *got, const View *want, uint64_t *ret_at)
{
    for (uint64_t at = 0; at < MIN(got->size, want->size); at += 512)
        if (memcmp(got->bytes + at, want->bytes + at, 512) != 0) {
            *ret_at = at;
            return false;
        }
    return true;
}

static void expect_checks(BlkNode *n, const char *what)
{
    g_autoptr(BlkReport) r = blk_report_new();
    g_autoptr(GError) error = NULL;

    if (!n->drv->check)
        return;
    if (!image_check(n, false, r, &error))
        g_error("%s: check: %s", what, error->message);
    for (guint i = 0; r->errors && i < r->lines->len; i++)
        if (g_str_has_prefix(g_ptr_array_index(r->lines, i), "error"))
            g_error("%s: %s", what, (char *)g_ptr_array_index(r->lines, i));
    g_assert_cmpuint(r->errors, ==, 0);
}

/* @done: the work has ended well, so the image must be what it was to become. */
static void expect_sound(Work *w, bool done, const char *what)
{
    bool apply = w->c->kind == OP_APPLY;
    g_autofree uint8_t *bytes = NULL;
    g_autoptr(GError) error = NULL;
    View got = {0};
    uint64_t at = 0;

    mend_base(w);
    g_autoptr(BlkNode) n = open_tapped(w, NULL, 0, &error);
    g_assert_no_error(error);
    expect_checks(n, what);
    if (n->base)
        expect_checks(n->base, what);
    read_view(n, &got);
    bytes = got.bytes;
    /* What is to be cut off may be gone before the size says so. */
    uint64_t size = got.size;
    if (w->c->kind == OP_SHRINK)
        got.size = MIN(size, SHRUNK);
    bool old = same(&got, &w->before, &at), new = apply ? same(&got, &w->then, &at) : old;
    if (done ? !new : !old && !new)
        g_error("%s: byte %" G_GUINT64_FORMAT " is %02x", what, at, got.bytes[at]);
    for (at = SIZE; at < got.size; at++)
        if (got.bytes[at])
            g_error("%s: new byte %" G_GUINT64_FORMAT " is %02x", what, at, got.bytes[at]);
    uint64_t asked = w->c->kind == OP_GROW     ? GROWN
                     : w->c->kind == OP_SHRINK ? SHRUNK
                                               : w->before.size;
    if (size != asked && (done || size != w->before.size))
        g_error("%s: has %" G_GUINT64_FORMAT " bytes", what, size);
    /* A snapshot that is there is whole. */
    if (n->drv->snap && w->then.bytes && image_snapshot(n, "apply", "s", NULL)) {
        read_view(n, &got);
        bytes = got.bytes;
        if (!same(&got, &w->then, &at))
            g_error("%s: byte %" G_GUINT64_FORMAT " of the snapshot is %02x", what, at,
                    got.bytes[at]);
        expect_checks(n, what);
    } else if (w->then.bytes && w->c->kind != OP_DELETE) {
        g_error("%s: the snapshot is gone", what);
    }
}

/* The header of VHD has two sectors under one checksum. */
static Medium *recorder(const Case *c)
{
    Medium *m = medium_new();

    if (!strcmp(c->shape->format, "vhd")) {
        m->whole_at = 512;
        m->whole_len = 1024;
    }
    return m;
}

/* ---- cuts ---- */

static void test_cut(gconstpointer data)
{
    const Case *c = data;
    bool thorough = g_getenv("LODGE_TEST_LONG");
    unsigned draws = (unsigned)fault_number("FAULT_DRAWS", thorough ? 20 : 1);
    guint32 seed = fault_seed();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autoptr(GError) error = NULL;
    unsigned cuts = 0;
    Work w;

    work_init(&w, c, rand);
    if (!can_do(&w)) {
        work_end(&w);
        return;
    }
    mend_base(&w); /* the files are as they were, but for times */
    w.mended = 0;
    medium_free(w.m);
    w.m = recorder(c);
    const BlkTap *tap = medium_add(w.m, w.path), *base = w.base ? medium_add(w.m, w.base) : NULL;
    do_work(&w, tap, base, &error);
    g_assert_no_error(error);
    g_autofree char *done = g_strdup_printf("%s %s, seed %u", c->shape->name, c->name, seed);
    if (c->kind != OP_REBASE && c->kind != OP_FLATTEN)
        expect_sound(&w, true, done);
    uint64_t end = medium_now(w.m), step = thorough ? 1 : MAX(1, end / SOME_POINTS);
    for (uint64_t at = 0; at <= end; at += step)
        for (unsigned i = 0; i < draws; i++, cuts++) {
            g_autofree char *what = g_strdup_printf("%s, cut %u at %" G_GUINT64_FORMAT " of %"
                                                    G_GUINT64_FORMAT, done, i, at, end);
            for (unsigned k = 0; k < w.m->n_files; k++) {
                g_autoptr(GByteArray) bytes = medium_cut(w.m, k, at, rand);
                medium_store(w.m->files[k].path, bytes);
            }
            expect_sound(&w, false, what);
        }
    g_test_message("%u cuts", cuts);
    work_end(&w);
}

/* ---- failures ---- */

static void test_fail(gconstpointer data)
{
    static const int errors[] = {EIO, ENOSPC};
    const Case *c = data;
    bool thorough = g_getenv("LODGE_TEST_LONG");
    guint32 seed = fault_seed();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    unsigned told = 0, fails = 0;
    Work w;

    work_init(&w, c, rand);
    if (!can_do(&w)) {
        work_end(&w);
        return;
    }
    mend_base(&w);
    w.mended = 0;
    medium_free(w.m);
    w.m = recorder(c);
    const BlkTap *tap = medium_add(w.m, w.path), *base = w.base ? medium_add(w.m, w.base) : NULL;
    w.m->reads_too = true;
    uint64_t step = 1;
    for (uint64_t at = 0;; at += step, fails++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *what = g_strdup_printf("%s %s, seed %u, operation %" G_GUINT64_FORMAT,
                                                c->shape->name, c->name, seed, at);
        w.m->count = w.m->failed = 0;
        w.m->fail_from = at;
        w.m->fail_for = fails % 3 ? 1 : 1000000;
        w.m->fail_err = errors[fails % 2];
        bool ok = do_work(&w, tap, base, &error);
        bool fired = w.m->failed;
        if (at == 0 && !thorough && w.m->count < 2 * SOME_POINTS)
            step = 1;
        else if (!thorough)
            step = 1 + (uint64_t)g_rand_int_range(rand, 0, 14);
        w.m->fail_for = 0;
        if (!ok) {
            g_assert_true(fired);
            if (!strstr(error->message, g_strerror(errors[fails % 2])))
                g_error("%s: '%s' does not say why", what, error->message);
            g_assert_null(strchr(error->message, '\n'));
            told++;
        }
        expect_sound(&w, ok && c->kind != OP_REBASE && c->kind != OP_FLATTEN, what);
        restore(&w);
        mend_base(&w);
        if (!fired)
            break;
    }
    g_test_message("%u failures, %u told of", fails, told);
    work_end(&w);
}

int main(int argc, char **argv)
{
    if (g_access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", TRUE);
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < n_shapes; i++) {
        for (unsigned k = 0; k < G_N_ELEMENTS(ops); k++) {
            Case c = {&shapes[i], ops[k].kind, ops[k].name};
            g_autofree char *cut = g_strdup_printf("/op/cut/%s/%s", c.name, c.shape->name);
            g_autofree char *fail = g_strdup_printf("/op/fail/%s/%s", c.name, c.shape->name);
            if (!is_asked(&c))
                continue;
            g_test_add_data_func_full(cut, g_memdup2(&c, sizeof c), test_cut, g_free);
            g_test_add_data_func_full(fail, g_memdup2(&c, sizeof c), test_fail, g_free);
        }
    }
    return g_test_run();
}
