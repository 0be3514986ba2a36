/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Overlays against the plain truth: the same random writes, zeros and reads go to an overlay and to
 * an array in memory; then the overlay's content is compared with what the distribution's uml_moo
 * makes of it, and overlays made by uml_mkcow are used. The seed is printed; DIFF_SEED sets it.
 */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/num.h"

#include "blockfix.h"

#define SIZE ((uint64_t)3 << 20)
#define ROUNDS 400u
#define IN_FLIGHT 8u
#define LEN_MAX_SECTORS 96u
#define SECTORS ((uint32_t)(SIZE / 512))

typedef struct Op {
    BlkReq req;
    struct iovec iov[3];
    uint8_t buf[LEN_MAX_SECTORS * 512];
    gint *left;
    int err;
} Op;

static guint32 the_seed(void)
{
    const char *text = g_getenv("DIFF_SEED");
    guint32 seed = text ? (guint32)g_ascii_strtoull(text, NULL, 0) : g_random_int();

    g_test_message("DIFF_SEED=%u", seed);
    return seed;
}

static void op_done(BlkReq *req, int err)
{
    Op *op = req->opaque;

    op->err = err;
    g_atomic_int_add(op->left, -1);
}

/* A write, zero or read at @first, done to @model as well; reads are checked by the caller. */
static void op_make(Op *op, GRand *rand, uint32_t first, uint32_t n, uint8_t *model)
{
    size_t len = n * 512;
    size_t cut = g_rand_int_range(rand, 0, len), cut2 = cut + (len - cut) / 3;

    op->iov[0] = (struct iovec){op->buf, cut};
    op->iov[1] = (struct iovec){op->buf + cut, cut2 - cut};
    op->iov[2] = (struct iovec){op->buf + cut2, len - cut2};
    op->req = (BlkReq){.offset = (uint64_t)first * 512, .len = len, .iov = op->iov, .niov = 3,
                       .done = op_done, .opaque = op, .may_unmap = g_rand_boolean(rand),
                       .fua = g_rand_int_range(rand, 0, 16) == 0};
    switch (g_rand_int_range(rand, 0, 8)) {
    case 0:
        op->req.op = BLK_ZERO;
        memset(model + first * 512, 0, len);
        break;
    case 1:
    case 2:
    case 3:
        op->req.op = BLK_READ;
        break;
    default:
        op->req.op = BLK_WRITE;
        for (size_t i = 0; i < len; i++)
            op->buf[i] = g_rand_int(rand);
        memcpy(model + first * 512, op->buf, len);
    }
}

/* Rounds of requests that run at once and do not overlap each other. */
static void hammer(BlkNode *n, GRand *rand, uint8_t *model)
{
    g_autofree Op *ops = g_new0(Op, IN_FLIGHT);

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t slice = SECTORS / IN_FLIGHT;
        gint left = IN_FLIGHT;
        for (unsigned i = 0; i < IN_FLIGHT; i++) {
            uint32_t count = g_rand_int_range(rand, 1, LEN_MAX_SECTORS + 1);
            uint32_t first = i * slice + g_rand_int_range(rand, 0, slice - count);
            ops[i].left = &left;
            op_make(&ops[i], rand, first, count, model);
            blk_submit(n, &ops[i].req);
        }
        if (round % 16 == 0)
            g_assert_cmpint(blk_flush(n), ==, 0);
        while (g_atomic_int_get(&left))
            g_usleep(20);
        for (unsigned i = 0; i < IN_FLIGHT; i++) {
            g_assert_cmpint(ops[i].err, ==, 0);
            if (ops[i].req.op == BLK_READ)
                g_assert_cmpmem(ops[i].buf, ops[i].req.len, model + ops[i].req.offset,
                                ops[i].req.len);
        }
    }
}

static uint8_t *read_all(BlkNode *n)
{
    uint8_t *buf = g_malloc(SIZE);

    for (uint64_t at = 0; at < SIZE; at += 256 * KIB)
        g_assert_cmpint(blk_pread(n, buf + at, at, 256 * KIB), ==, 0);
    return buf;
}

static void run(BlockFix *f, const char *const argv[])
{
    g_autofree char *err = NULL;
    g_autoptr(GError) error = NULL;
    int status;

    g_assert_true(g_spawn_sync(f->dir, (char **)argv, NULL,
                               G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL,
                               &err, &status, &error));
    if (status)
        g_error("%s: status %d: %s", argv[0], status, err);
}

static void check_file(const char *path, const uint8_t *model)
{
    g_autofree char *got = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(path, &got, &len, NULL));
    g_assert_cmpuint(len, ==, SIZE);
    g_assert_cmpint(memcmp(got, model, SIZE), ==, 0);
}

static void test_model(gconstpointer aio)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autoptr(GRand) rand = g_rand_new_with_seed(the_seed());
    g_autofree char *base = block_fix_image(f, "base.img", SIZE, 3);
    g_autofree char *cow = block_fix_path(f, "o.cow");
    g_autofree uint8_t *model = g_malloc(SIZE);
    BlkOptions o = {.file = cow, .base = base, .aio = aio ? BLK_AIO_THREADS : BLK_AIO_AUTO};

    for (uint64_t i = 0; i < SIZE; i++)
        model[i] = block_fix_byte(i, 3);
    for (unsigned again = 0; again < 2; again++) {
        g_autoptr(BlkNode) n = block_fix_open(f, &o);
        hammer(n, rand, model);
        g_autofree uint8_t *got = read_all(n);
        g_assert_cmpint(memcmp(got, model, SIZE), ==, 0);
    }
}

/* uml_moo merges our overlay to what we showed. */
static void test_moo(void)
{
    if (!block_fix_need("uml_moo", "uml-utilities"))
        return;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autoptr(GRand) rand = g_rand_new_with_seed(the_seed());
    g_autofree char *base = block_fix_image(f, "base.img", SIZE, 3);
    g_autofree char *cow = block_fix_path(f, "o.cow"), *merged = block_fix_path(f, "m.img");
    g_autofree uint8_t *model = g_malloc(SIZE);
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = cow, .base = base});

    for (uint64_t i = 0; i < SIZE; i++)
        model[i] = block_fix_byte(i, 3);
    hammer(n, rand, model);
    blk_close(g_steal_pointer(&n));
    run(f, (const char *const[]){"uml_moo", cow, merged, NULL});
    check_file(merged, model);
    run(f, (const char *const[]){"uml_moo", "-d", cow, NULL});
    check_file(base, model);
}

/* An overlay that uml_mkcow made is used, and uml_moo still understands it. */
static void test_mkcow(void)
{
    if (!block_fix_need("uml_mkcow", "uml-utilities") ||
        !block_fix_need("uml_moo", "uml-utilities"))
        return;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autoptr(GRand) rand = g_rand_new_with_seed(the_seed());
    g_autofree char *base = block_fix_image(f, "base.img", SIZE, 3);
    g_autofree char *cow = block_fix_path(f, "o.cow"), *merged = block_fix_path(f, "m.img");
    g_autofree uint8_t *model = g_malloc(SIZE);

    run(f, (const char *const[]){"uml_mkcow", cow, base, NULL});
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = cow});
    g_assert_cmpstr(blk_format(n), ==, "umlcow");
    for (uint64_t i = 0; i < SIZE; i++)
        model[i] = block_fix_byte(i, 3);
    hammer(n, rand, model);
    blk_close(g_steal_pointer(&n));
    run(f, (const char *const[]){"uml_moo", cow, merged, NULL});
    check_file(merged, model);
    /* The header that uml_mkcow wrote and the one that we write say the same. */
    g_autofree char *ours = block_fix_path(f, "ours.cow"), *a = NULL, *b = NULL;
    blk_close(block_fix_open(f, &(BlkOptions){.file = ours, .base = base}));
    g_assert_true(g_file_get_contents(ours, &a, NULL, NULL));
    g_assert_true(g_file_get_contents(cow, &b, NULL, NULL));
    g_assert_cmpmem(a, 32 + strlen(base) + 1, b, 32 + strlen(base) + 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/diff-umlcow/model", NULL, test_model);
    g_test_add_data_func("/diff-umlcow/model-threads", "threads", test_model);
    g_test_add_func("/diff-umlcow/uml_moo", test_moo);
    g_test_add_func("/diff-umlcow/uml_mkcow", test_mkcow);
    return g_test_run();
}
