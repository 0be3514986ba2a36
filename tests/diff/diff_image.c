/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Each format that can be made against the plain truth: the same random writes, zeros, discards,
 * reads, flushes, resizes, snapshots and reopenings go to an image and to an array in memory;
 * images stand alone and on a base. After each life the image must be clean, and at the end it must
 * be what it is for others too: converted to raw by us, and checked and compared by qemu-img where
 * that knows the format.
 *
 * What was discarded may read as before or as zeros, until it is written again.
 *
 * DIFF_SEED sets the seed, which is printed; DIFF_LIVES how often each image is opened (6);
 * DIFF_FORMAT picks one format.
 */
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"
#include "image_ops.h"

#define SIZE (6 * MIB)
#define SIZE_MAX_MODEL (12 * MIB)
#define BASE_SIZE (4 * MIB) /* of the base of a format whose overlays may be longer */
#define IN_FLIGHT 8u
#define ROUNDS 60u
#define LEN_MAX_SECTORS 300u

typedef enum Truth { TRUTH_KNOWN, TRUTH_DISCARDED } Truth;

typedef struct Model {
    uint64_t size;
    uint8_t *bytes;   /* owned; SIZE_MAX_MODEL */
    uint8_t *truth;   /* owned; a Truth a sector */
} Model;

typedef struct Case {
    const BlkDriver *drv;
    bool base;
} Case;

typedef struct Op {
    BlkReq req;
    struct iovec iov[3];
    uint8_t buf[LEN_MAX_SECTORS * 512];
    gint *left;
    int err;
} Op;

static Model *model_new(uint64_t size)
{
    Model *m = g_new0(Model, 1);

    m->size = size;
    m->bytes = g_malloc0(SIZE_MAX_MODEL);
    m->truth = g_malloc0(SIZE_MAX_MODEL / 512);
    return m;
}

static void model_free(Model *m)
{
    g_free(m->bytes);
    g_free(m->truth);
    g_free(m);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Model, model_free)

static void model_copy(Model *to, const Model *from)
{
    to->size = from->size;
    memcpy(to->bytes, from->bytes, SIZE_MAX_MODEL);
    memcpy(to->truth, from->truth, SIZE_MAX_MODEL / 512);
}

static void model_resize(Model *m, uint64_t size)
{
    uint64_t from = MIN(size, m->size);

    memset(m->bytes + from, 0, SIZE_MAX_MODEL - from);
    memset(m->truth + from / 512, TRUTH_KNOWN, (SIZE_MAX_MODEL - from) / 512);
    m->size = size;
}

/* What was read at @offset is the truth; what was discarded is known from then on. */
static void expect(Model *m, const uint8_t *got, uint64_t offset, uint64_t len, const char *when)
{
    for (uint64_t at = 0; at < len; at += 512) {
        uint8_t *want = m->bytes + offset + at, *truth = &m->truth[(offset + at) / 512];
        if (memcmp(got + at, want, 512) == 0)
            continue;
        if (*truth == TRUTH_DISCARDED && buffer_is_zero(got + at, 512))
            memset(want, 0, 512);
        else
            g_error("%s: sector %" G_GUINT64_FORMAT " differs: %02x %02x..., not %02x %02x...",
                    when, (offset + at) / 512, got[at], got[at + 1], want[0], want[1]);
    }
}

static void op_done(BlkReq *req, int err)
{
    Op *op = req->opaque;

    op->err = err;
    g_atomic_int_add(op->left, -1);
}

static void op_make(Op *op, GRand *rand, Model *m, uint64_t first, uint32_t n)
{
    size_t len = n * 512;
    size_t cut = g_rand_int_range(rand, 0, len), cut2 = cut + (len - cut) / 3;

    op->iov[0] = (struct iovec){op->buf, cut};
    op->iov[1] = (struct iovec){op->buf + cut, cut2 - cut};
    op->iov[2] = (struct iovec){op->buf + cut2, len - cut2};
    op->req = (BlkReq){.offset = first * 512, .len = len, .iov = op->iov, .niov = 3,
                       .done = op_done, .opaque = op, .may_unmap = g_rand_boolean(rand),
                       .fua = g_rand_int_range(rand, 0, 32) == 0};
    switch (g_rand_int_range(rand, 0, 10)) {
    case 0:
        op->req.op = BLK_ZERO;
        memset(m->bytes + first * 512, 0, len);
        memset(m->truth + first, TRUTH_KNOWN, n);
        break;
    case 1:
        op->req.op = BLK_DISCARD;
        memset(m->truth + first, TRUTH_DISCARDED, n);
        break;
    case 2:
    case 3:
    case 4:
        op->req.op = BLK_READ;
        break;
    default:
        op->req.op = BLK_WRITE;
        memset(op->buf, g_rand_int_range(rand, 0, 256), len);
        for (size_t i = 0; i < len; i += 512)
            op->buf[i + first % 512] = g_rand_int(rand);
        memcpy(m->bytes + first * 512, op->buf, len);
        memset(m->truth + first, TRUTH_KNOWN, n);
    }
}

/* Requests that run at once, each in a slice of the disk of its own. */
static void hammer(BlkNode *n, GRand *rand, Model *m)
{
    g_autofree Op *ops = g_new0(Op, IN_FLIGHT);
    uint32_t slice = m->size / 512 / IN_FLIGHT;

    for (unsigned round = 0; round < ROUNDS; round++) {
        gint left = IN_FLIGHT;
        for (unsigned i = 0; i < IN_FLIGHT; i++) {
            uint32_t most = g_rand_int_range(rand, 0, 3) ? 17 : MIN(LEN_MAX_SECTORS + 1, slice);
            uint32_t count = g_rand_int_range(rand, 1, most);
            uint64_t first = i * slice + g_rand_int_range(rand, 0, slice - count + 1);
            ops[i].left = &left;
            op_make(&ops[i], rand, m, first, count);
            blk_submit(n, &ops[i].req);
        }
        if (g_rand_int_range(rand, 0, 16) == 0)
            g_assert_cmpint(blk_flush(n), ==, 0);
        while (g_atomic_int_get(&left))
            g_usleep(20);
        for (unsigned i = 0; i < IN_FLIGHT; i++) {
            g_assert_cmpint(ops[i].err, ==, 0);
            if (ops[i].req.op == BLK_READ)
                expect(m, ops[i].buf, ops[i].req.offset, ops[i].req.len, "a read");
        }
    }
}

static void expect_all(BlkNode *n, Model *m, const char *when)
{
    g_autofree uint8_t *buf = g_malloc(m->size);

    g_assert_cmpuint(n->limits.size, ==, m->size);
    g_assert_cmpint(blk_pread(n, buf, 0, m->size), ==, 0);
    expect(m, buf, 0, m->size, when);
}

static void expect_clean(BlkNode *n, const char *when)
{
    g_autoptr(BlkReport) r = blk_report_new();
    g_autoptr(GError) error = NULL;

    if (!n->drv->check)
        return;
    if (!image_check(n, false, r, &error))
        g_error("%s: check: %s", when, error->message);
    if (r->errors || r->leaks)
        g_error("%s: %s", when, (char *)g_ptr_array_index(r->lines, 0));
}

static void resize(BlkNode *n, GRand *rand, Model *m)
{
    uint64_t size = (uint64_t)g_rand_int_range(rand, 3 * MIB / 512, SIZE_MAX_MODEL / 512) * 512;
    g_autoptr(GError) error = NULL;

    if (image_resize(n, size, true, &error)) {
        model_resize(m, size);
        expect_all(n, m, "a resize");
    } else if (!g_error_matches(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED) &&
               !g_error_matches(error, LODGE_ERROR, LODGE_ERROR_CONFIG)) {
        g_error("resize: %s", error->message);
    }
}

/* Take, go back to, or forget the one snapshot that there is. */
static void snapshot(BlkNode *n, GRand *rand, Model *m, Model *kept, bool *have)
{
    g_autoptr(GError) error = NULL;
    const char *verb = !*have ? "create" : g_rand_boolean(rand) ? "apply" : "delete";

    if (!n->drv->snap)
        return;
    if (!image_snapshot(n, verb, "s", &error))
        g_error("snapshot %s: %s", verb, error->message);
    if (!strcmp(verb, "create"))
        model_copy(kept, m);
    else if (!strcmp(verb, "apply"))
        model_copy(m, kept);
    *have = strcmp(verb, "delete") != 0;
    expect_all(n, m, verb);
}

static BlkNode *open_it(BlockFix *f, const char *path, GRand *rand)
{
    BlkOptions o = {.file = path, .aio = g_rand_boolean(rand) ? BLK_AIO_THREADS : BLK_AIO_AUTO,
                    .metadata_cache = g_rand_boolean(rand) ? 4096 : 0};
    g_autoptr(GError) error = NULL;
    BlkNode *n = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, f->io, &error);

    g_assert_no_error(error);
    return n;
}

/* What others make of it. */
static void witness(BlockFix *f, const Case *c, const char *path, const char *raw)
{
    static const struct {
        const char *ours, *theirs;
        bool overlays; /* it knows those too */
    } names[] = {{"qcow2", "qcow2", true}, {"vhd", "vpc"}, {"vdi", "vdi"}, {"vmdk", "vmdk", true}};
    const char *theirs = NULL;
    g_autofree char *qemu = g_find_program_in_path("qemu-img");

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        if (!strcmp(names[i].ours, c->drv->name) && (names[i].overlays || !c->base))
            theirs = names[i].theirs;
    if (!theirs || !qemu)
        return;
    const char *check[] = {qemu, "check", "-f", theirs, path, NULL};
    const char *compare[] = {qemu, "compare", "-f", theirs, "-F", "raw", path, raw, NULL};
    const char *const *all[] = {check, compare};
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        g_autofree char *out = NULL, *err = NULL;
        int status = 0;
        g_assert_true(g_spawn_sync(f->dir, (char **)all[i], NULL, 0, NULL, NULL, &out, &err,
                                   &status, NULL));
        /* 63: the format has no check there. */
        if (!g_spawn_check_wait_status(status, NULL) &&
            !(i == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 63))
            g_error("qemu-img %s: %s%s", all[i][1], out, err);
    }
}

static void test_format(gconstpointer data)
{
    const Case *c = data;
    const char *text = g_getenv("DIFF_SEED"), *lives_text = g_getenv("DIFF_LIVES");
    guint32 seed = text ? (guint32)g_ascii_strtoull(text, NULL, 0) : g_random_int();
    unsigned lives = lives_text ? (unsigned)g_ascii_strtoull(lives_text, NULL, 0) : 6;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    bool same_size = c->drv->flags & BLK_DRV_NEEDS_BASE;
    g_autofree char *path = block_fix_path(f, "image"), *raw = block_fix_path(f, "raw");
    g_autofree char *base =
        c->base ? block_fix_image(f, "base", same_size ? SIZE : BASE_SIZE, 3) : NULL;
    g_autoptr(Model) m = model_new(SIZE), kept = model_new(SIZE);
    g_autoptr(GError) error = NULL;
    BlkMake make = {.file = path, .format = c->drv->name, .base = base, .size = SIZE};
    CopyResult r;
    bool have = false;

    g_test_message("DIFF_SEED=%u", seed);
    for (uint64_t i = 0; c->base && i < (same_size ? SIZE : BASE_SIZE); i++)
        m->bytes[i] = block_fix_byte(i, 3);
    if (!blk_make(&make, f->io, &error)) {
        /* Overlays of some formats stand on their own kind only, and have its size. */
        g_autofree char *own = block_fix_path(f, "own-base");
        ConvertArgs to_own = {.from = base, .to = {.file = own, .format = c->drv->name}};
        g_assert_true(c->base);
        g_clear_error(&error);
        image_convert(&to_own, f->io, f->io, &r, &error);
        g_assert_no_error(error);
        make = (BlkMake){.file = path, .format = c->drv->name, .base = own,
                         .base_format = c->drv->name};
        blk_make(&make, f->io, &error);
        g_assert_no_error(error);
    }
    for (unsigned life = 0; life < lives; life++) {
        g_autoptr(BlkNode) n = open_it(f, path, rand);
        if (life == 0) /* made to the format's own grain, or to the base's size */
            model_resize(m, n->limits.size);
        expect_all(n, m, "a new life");
        hammer(n, rand, m);
        if (life % 2)
            snapshot(n, rand, m, kept, &have);
        if (life % 3 == 1)
            resize(n, rand, m);
        hammer(n, rand, m);
        g_assert_cmpint(blk_flush(n), ==, 0);
        expect_clean(n, "after a flush");
    }
    g_autoptr(BlkNode) n = open_it(f, path, rand);
    expect_all(n, m, "the end");
    expect_clean(n, "the end");
    blk_close(g_steal_pointer(&n));
    ConvertArgs a = {.from = path, .from_format = c->drv->name, .to = {.file = raw}};
    image_convert(&a, f->io, f->io, &r, &error);
    g_assert_no_error(error);
    n = open_it(f, raw, rand);
    expect_all(n, m, "converted to raw");
    blk_close(g_steal_pointer(&n));
    witness(f, c, path, raw);
    g_remove(raw);
}

int main(int argc, char **argv)
{
    const char *only = g_getenv("DIFF_FORMAT");
    const BlkDriver *drv;

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; (drv = blk_driver_at(i)); i++) {
        for (unsigned base = 0; base < 2; base++) {
            g_autofree char *name =
                g_strdup_printf("/diff/%s%s", drv->name, base ? "-on-base" : "");
            Case *c;
            if (!drv->create || (only && strcmp(only, drv->name)) ||
                (base && !drv->attach && !drv->set_base) ||
                (!base && drv->flags & BLK_DRV_NEEDS_BASE))
                continue;
            c = g_new(Case, 1);
            *c = (Case){drv, base};
            g_test_add_data_func_full(name, c, test_format, g_free);
        }
    }
    return g_test_run();
}
