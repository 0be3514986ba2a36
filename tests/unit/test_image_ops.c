/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Work on whole images: map, convert, compare, commit, rebase, check, resize, bench; and what UML's
 * own tools make of the result. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"
#include "image_ops.h"

#define SIZE (8 * MIB)

typedef struct Images {
    BlockFix *f;
    char *base, *cow, *out;
    uint8_t *want; /* the overlay's disk */
} Images;

/* A base with data and holes, an overlay that has some of it otherwise. */
static Images *images_new(void)
{
    Images *m = g_new0(Images, 1);

    m->f = block_fix_new();
    m->base = block_fix_image(m->f, "base.img", SIZE, 0);
    m->cow = block_fix_path(m->f, "o.cow");
    m->out = block_fix_path(m->f, "out.img");
    m->want = g_malloc0(SIZE);
    g_autoptr(BlkNode) b = block_fix_open(m->f, &(BlkOptions){.file = m->base});
    memset(m->want, 1, 64 * KIB);
    memset(m->want + 5 * MIB, 2, 64 * KIB);
    g_assert_cmpint(blk_pwrite(b, m->want, 0, SIZE / 8), ==, 0);
    g_assert_cmpint(blk_pwrite(b, m->want + 5 * MIB, 5 * MIB, 64 * KIB), ==, 0);
    BlkReq hole = {.op = BLK_DISCARD, .offset = 64 * KIB, .len = SIZE / 8 - 64 * KIB};
    g_assert_cmpint(blk_wait(b, &hole), ==, 0);
    blk_close(g_steal_pointer(&b));
    /* An mtime of its own, so that a change shows. */
    g_assert_cmpint(utime(m->base, &(struct utimbuf){1000000, 1000000}), ==, 0);
    g_autoptr(BlkNode) n =
        block_fix_open(m->f, &(BlkOptions){.file = m->cow, .base = m->base});
    memset(m->want + 4096, 3, 512);
    memset(m->want + 3 * MIB, 4, 3000 * 512);
    memset(m->want + 5 * MIB, 0, 4096); /* zeros over the base's data */
    g_assert_cmpint(blk_pwrite(n, m->want + 4096, 4096, 512), ==, 0);
    g_assert_cmpint(blk_pwrite(n, m->want + 3 * MIB, 3 * MIB, 3000 * 512), ==, 0);
    g_assert_cmpint(blk_pwrite(n, m->want + 5 * MIB, 5 * MIB, 4096), ==, 0);
    return m;
}

static void images_free(Images *m)
{
    block_fix_free(m->f);
    g_free(m->base);
    g_free(m->cow);
    g_free(m->out);
    g_free(m->want);
    g_free(m);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Images, images_free)

static void expect_disk(Images *m, const char *path, uint64_t size)
{
    g_autoptr(BlkNode) n = block_fix_open(m->f, &(BlkOptions){.file = path, .read_only = true});
    g_autofree uint8_t *buf = g_malloc(SIZE);

    g_assert_cmpuint(n->limits.size, ==, size);
    g_assert_cmpint(blk_pread(n, buf, 0, MIN(size, SIZE)), ==, 0);
    for (uint64_t i = 0; i < MIN(size, SIZE); i++)
        if (buf[i] != m->want[i])
            g_error("%s: byte %" G_GUINT64_FORMAT " is %u, not %u", path, i, buf[i], m->want[i]);
}

static void test_zero(void)
{
    g_autofree uint8_t *buf = g_malloc0(8192);

    g_assert_true(buffer_is_zero(buf, 8192));
    for (unsigned i = 0; i < 8192; i += 1 + i % 37) {
        buf[i] = 1;
        g_assert_false(buffer_is_zero(buf, 8192));
        g_assert_cmpint(buffer_is_zero(buf, 9), ==, i >= 9);
        buf[i] = 0;
    }
}

static void expect_map(BlkNode *n, uint64_t at, uint64_t len, unsigned depth, bool data, bool zero)
{
    MapEntry e;

    g_assert_cmpint(image_map(n, at, SIZE - at, &e), ==, 0);
    g_assert_cmpuint(e.len, ==, len);
    g_assert_cmpuint(e.depth, ==, depth);
    g_assert_cmpint(e.data, ==, data);
    g_assert_cmpint(e.zero, ==, zero);
    if (data)
        g_assert_cmpuint(e.file_offset, ==, depth ? at : at + 12288);
}

static void test_map(void)
{
    g_autoptr(Images) m = images_new();
    g_autoptr(BlkNode) n = block_fix_open(m->f, &(BlkOptions){.file = m->cow, .read_only = true});

    expect_map(n, 0, 4096, 1, true, false);
    expect_map(n, 4096, 512, 0, true, false);
    expect_map(n, 64 * KIB, 3 * MIB - 64 * KIB, 1, false, true);
    expect_map(n, 5 * MIB, 4096, 0, true, false);
    expect_map(n, 6 * MIB, 2 * MIB, 1, false, true);
    /* A discarded sector is the overlay's, and a hole in its file. */
    blk_close(g_steal_pointer(&n));
    n = block_fix_open(m->f, &(BlkOptions){.file = m->cow});
    BlkReq req = {.op = BLK_DISCARD, .offset = 3 * MIB, .len = 64 * KIB};
    g_assert_cmpint(blk_wait(n, &req), ==, 0);
    expect_map(n, 3 * MIB, 64 * KIB, 0, true, true);
}

static bool convert(Images *m, const char *from, const BlkMake *to, GError **error)
{
    CopyResult r;
    ConvertArgs a = {.from = from, .to = *to};

    return image_convert(&a, m->f->io, m->f->io, &r, error);
}

static void test_convert(void)
{
    g_autoptr(Images) m = images_new();
    g_autofree char *again = block_fix_path(m->f, "again.cow");
    g_autoptr(GError) error = NULL;
    struct stat st;

    convert(m, m->cow, &(BlkMake){.file = m->out}, &error);
    g_assert_no_error(error);
    expect_disk(m, m->out, SIZE);
    g_assert_cmpint(stat(m->out, &st), ==, 0);
    g_assert_cmpuint(st.st_blocks * 512, <, 2 * MIB); /* holes stay holes */
    g_assert_false(convert(m, m->cow, &(BlkMake){.file = m->out}, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_clear_error(&error);
    convert(m, m->cow, &(BlkMake){.file = m->out, .overwrite = true}, &error);
    g_assert_no_error(error);
    /* As an overlay of the base again: only what differs. */
    convert(m, m->out, &(BlkMake){.file = again, .base = m->base}, &error);
    g_assert_no_error(error);
    expect_disk(m, again, SIZE);
    g_autoptr(BlkNode) n = block_fix_open(m->f, &(BlkOptions){.file = again, .read_only = true});
    expect_map(n, 0, 4096, 1, true, false);
    expect_map(n, 5 * MIB, 4096, 0, true, false);
    expect_map(n, 5 * MIB + 4096, 60 * KIB, 1, true, false);
}

static void test_convert_odd(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *odd = block_fix_image(f, "odd.img", 70000, 3);
    g_autofree char *out = block_fix_path(f, "out.img");
    g_autoptr(GError) error = NULL;
    g_autofree char *a = NULL, *b = NULL;
    ConvertArgs args = {.from = odd, .to = {.file = out}};
    CopyResult r;
    gsize la, lb;

    g_assert_true(image_convert(&args, f->io, f->io, &r, &error));
    g_assert_true(g_file_get_contents(odd, &a, &la, NULL));
    g_assert_true(g_file_get_contents(out, &b, &lb, NULL));
    g_assert_cmpmem(a, la, b, lb);
}

/* A target that cannot be written is gone afterwards, and what was there before is still there. */
static void test_convert_fails(void)
{
    g_autoptr(Images) m = images_new();
    g_autoptr(GError) error = NULL;
    struct rlimit old, low;
    unsigned count = block_fix_count(m->f);

    g_assert_true(g_file_set_contents(m->out, "precious", -1, NULL));
    signal(SIGXFSZ, SIG_IGN);
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old), ==, 0);
    low = old;
    low.rlim_cur = 4 * MIB;
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &low), ==, 0);
    bool small = convert(m, m->cow, &(BlkMake){.file = m->out, .overwrite = true}, &error);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old), ==, 0);
    g_assert_false(small);
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_clear_error(&error);
    g_assert_cmpuint(block_fix_count(m->f), ==, count + 1);
    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(m->out, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "precious");
    g_assert_false(convert(m, m->cow, &(BlkMake){.file = m->out, .overwrite = true, .size = MIB},
                           &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_assert_cmpuint(block_fix_count(m->f), ==, count + 1);
}

static void test_compare(void)
{
    g_autoptr(Images) m = images_new();
    g_autoptr(GError) error = NULL;
    bool same = false;
    uint64_t offset = 0;

    convert(m, m->cow, &(BlkMake){.file = m->out}, &error);
    g_assert_no_error(error);
    g_autoptr(BlkNode) a = block_fix_open(m->f, &(BlkOptions){.file = m->cow, .read_only = true});
    g_autoptr(BlkNode) b = block_fix_open(m->f, &(BlkOptions){.file = m->out});
    g_assert_true(image_compare(a, b, NULL, &same, &offset, &error));
    g_assert_true(same);
    uint8_t buf[512] = {[100] = 9};
    g_assert_cmpint(blk_pwrite(b, buf, 7 * MIB, 512), ==, 0); /* where both had nothing */
    g_assert_true(image_compare(a, b, NULL, &same, &offset, &error));
    g_assert_false(same);
    g_assert_cmpuint(offset, ==, 7 * MIB + 100);
    memset(buf, 0, sizeof buf);
    g_assert_cmpint(blk_pwrite(b, buf, 7 * MIB, 512), ==, 0);
    /* One is longer: the same while only zeros follow. */
    g_assert_true(image_resize(b, SIZE + 8192, false, &error));
    g_assert_true(image_compare(a, b, NULL, &same, &offset, &error));
    g_assert_true(same);
    buf[511] = 1;
    g_assert_cmpint(blk_pwrite(b, buf, SIZE + 4096, 512), ==, 0);
    g_assert_true(image_compare(b, a, NULL, &same, &offset, &error));
    g_assert_false(same);
    g_assert_cmpuint(offset, ==, SIZE + 4096 + 511);
}

static BlkNode *open_for_commit(Images *m)
{
    g_autoptr(GError) error = NULL;
    BlkNode *n = blk_open_flags(NULL, &(BlkOptions){.file = m->cow},
                                BLK_OPEN_BASE_RW | BLK_OPEN_QUIET, m->f->io, &error);

    g_assert_no_error(error);
    return n;
}

static void test_commit(void)
{
    for (unsigned keep = 0; keep < 2; keep++) {
        g_autoptr(Images) m = images_new();
        g_autoptr(BlkNode) n = open_for_commit(m);
        g_autoptr(GError) error = NULL;
        CopyResult r;
        MapEntry e;
        struct stat st;
        image_commit(n, keep, NULL, &r, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(r.written + r.zeroed, <, 2 * MIB); /* only what the overlay had */
        blk_close(g_steal_pointer(&n));
        expect_disk(m, m->base, SIZE);
        g_assert_cmpint(stat(m->base, &st), ==, 0);
        g_assert_cmpint(st.st_mtime, !=, 1000000);
        expect_disk(m, m->cow, SIZE); /* its header has followed */
        n = block_fix_open(m->f, &(BlkOptions){.file = m->cow});
        g_assert_cmpint(image_map(n, 4096, 512, &e), ==, 0);
        g_assert_cmpuint(e.depth, ==, keep ? 0 : 1);
        /* It goes on as an overlay. */
        g_assert_cmpint(blk_pwrite(n, m->want, 7 * MIB, 512), ==, 0);
        memcpy(m->want + 7 * MIB, m->want, 512);
        blk_close(g_steal_pointer(&n));
        expect_disk(m, m->cow, SIZE);
    }
}

static void test_rebase(void)
{
    g_autoptr(Images) m = images_new();
    g_autofree char *other = block_fix_image(m->f, "other.img", SIZE, 5);
    g_autofree char *moved = block_fix_path(m->f, "moved.img");
    g_autofree char *small = block_fix_image(m->f, "small.img", MIB, 5);
    g_autoptr(GError) error = NULL;
    RebaseArgs a = {.file = m->cow, .base = other};
    CopyResult r;

    image_rebase(&a, m->f->io, &r, &error);
    g_assert_no_error(error);
    expect_disk(m, m->cow, SIZE);
    g_assert_cmpint(rename(other, moved), ==, 0);
    block_fix_refused(m->f, &(BlkOptions){.file = m->cow}, LODGE_ERROR_CONFIG, "no such file");
    a = (RebaseArgs){.file = m->cow, .base = moved, .unsafe = true};
    image_rebase(&a, m->f->io, &r, &error);
    g_assert_no_error(error);
    expect_disk(m, m->cow, SIZE);
    /* What is refused changes nothing. */
    g_autofree char *before = NULL, *after = NULL;
    gsize lb, la;
    g_assert_true(g_file_get_contents(m->cow, &before, &lb, NULL));
    const RebaseArgs bad[] = {{.file = m->cow},
                              {.file = m->cow, .base = small},
                              {.file = m->cow, .base = m->cow, .base_format = "umlcow"},
                              {.file = m->cow, .base = m->cow},
                              {.file = m->out, .base = m->base},
                              {.file = m->base, .base = moved}};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_false(image_rebase(&bad[i], m->f->io, &r, &error));
        g_assert_nonnull(error);
        g_clear_error(&error);
    }
    g_assert_true(g_file_get_contents(m->cow, &after, &la, NULL));
    g_assert_cmpmem(before, lb, after, la);
    /* A loop through another overlay. */
    g_autofree char *upper = block_fix_path(m->f, "upper.cow");
    blk_close(block_fix_open(
        m->f, &(BlkOptions){.file = upper, .base = m->cow, .base_format = "umlcow"}));
    a = (RebaseArgs){.file = moved, .base = upper, .base_format = "umlcow", .unsafe = true};
    g_assert_false(image_rebase(&a, m->f->io, &r, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED); /* the upper one says no format */
    g_clear_error(&error);
    a = (RebaseArgs){.file = m->cow, .base = m->cow, .base_format = "umlcow", .unsafe = true};
    g_assert_false(image_rebase(&a, m->f->io, &r, &error));
    g_assert_nonnull(strstr(error->message, "its own base"));
}

static void expect_check(Images *m, bool repair, uint64_t errors, uint64_t leaks, uint64_t used)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkReport) r = blk_report_new();
    g_autoptr(BlkNode) n =
        blk_open_flags(NULL, &(BlkOptions){.file = m->cow, .read_only = !repair},
                       BLK_OPEN_QUIET | BLK_OPEN_CHECK | BLK_OPEN_NO_BASE, m->f->io, &error);

    g_assert_no_error(error);
    g_assert_true(image_check(n, repair, r, &error));
    g_assert_cmpuint(r->errors, ==, errors);
    g_assert_cmpuint(r->leaks, ==, leaks);
    g_assert_cmpuint(r->errors_fixed, ==, repair ? errors : 0);
    g_assert_cmpuint(r->leaks_fixed, ==, repair ? leaks : 0);
    g_assert_cmpuint(r->allocated, ==, used);
    g_assert_cmpuint(r->lines->len, ==, errors + leaks);
}

static void test_check(void)
{
    g_autoptr(Images) m = images_new();
    g_autofree char *base = block_fix_image(m->f, "odd.img", 70000, 3); /* 137 sectors */
    uint8_t bits = 0xfe;

    expect_check(m, false, 0, 0, 3000 + 1 + 8);
    g_assert_cmpint(truncate(m->cow, 12288 + SIZE - 512), ==, 0);
    expect_check(m, false, 1, 0, 3009);
    expect_check(m, true, 1, 0, 3009);
    expect_check(m, false, 0, 0, 3009);
    g_assert_cmpint(g_remove(m->cow), ==, 0);
    blk_close(block_fix_open(m->f, &(BlkOptions){.file = m->cow, .base = base}));
    int fd = open(m->cow, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(pwrite(fd, &bits, 1, 8192 + 17), ==, 1);
    expect_check(m, false, 0, 1, 0);
    expect_check(m, true, 0, 1, 0);
    expect_check(m, false, 0, 0, 0);
    g_assert_cmpint(pread(fd, &bits, 1, 8192 + 17), ==, 1);
    close(fd);
    g_assert_cmpuint(bits, ==, 0);
}

static void test_resize(void)
{
    g_autoptr(Images) m = images_new();
    g_autoptr(GError) error = NULL;
    uint8_t buf[512] = {7};

    g_autoptr(BlkNode) n = block_fix_open(m->f, &(BlkOptions){.file = m->base});
    g_assert_cmpint(blk_pwrite(n, buf, SIZE, 512), ==, EIO);
    g_assert_true(image_resize(n, SIZE + 4096, false, &error));
    g_assert_cmpuint(n->limits.size, ==, SIZE + 4096);
    g_assert_cmpint(blk_pwrite(n, buf, SIZE, 512), ==, 0);
    g_assert_false(image_resize(n, SIZE, false, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    g_assert_true(image_resize(n, SIZE, true, &error));
    g_assert_cmpint(blk_pread(n, buf, SIZE, 512), ==, EIO);
    g_assert_false(image_resize(n, 0, true, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    blk_close(g_steal_pointer(&n));
    g_assert_cmpint(utime(m->base, &(struct utimbuf){1000000, 1000000}), ==, 0);
    n = block_fix_open(m->f, &(BlkOptions){.file = m->cow});
    g_assert_false(image_resize(n, 2 * SIZE, false, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED);
    g_clear_error(&error);
    g_assert_false(image_snapshot(n, "create", "x", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED);
}

static void test_bench(void)
{
    g_autoptr(Images) m = images_new();
    g_autoptr(BlkNode) n = block_fix_open(m->f, &(BlkOptions){.file = m->cow});
    g_autoptr(GError) error = NULL;
    BlkStats before, after;
    BenchResult r;
    BenchArgs a = {.op = BLK_WRITE, .depth = 8, .bytes = 4096, .random = true, .count = 500,
                   .flush_every = 100};

    blk_stats(n, &before);
    g_assert_true(image_bench(n, &a, &r, &error));
    blk_stats(n, &after);
    g_assert_cmpuint(r.count, ==, 500);
    g_assert_cmpuint(r.bytes, ==, 500 * 4096);
    g_assert_cmpint(r.ns, >, 0);
    g_assert_cmpuint(after.ops[BLK_WRITE] - before.ops[BLK_WRITE], ==, 500);
    g_assert_cmpuint(after.ops[BLK_FLUSH] - before.ops[BLK_FLUSH], ==, 4);
    a.bytes = 1000;
    g_assert_false(image_bench(n, &a, &r, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
}

static bool run(const char *a, const char *b, const char *c, const char *d)
{
    const char *argv[] = {a, b, c, d, NULL};
    int status = 1;

    return g_spawn_sync(NULL, (char **)argv, NULL,
                        G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL |
                            G_SPAWN_STDERR_TO_DEV_NULL,
                        NULL, NULL, NULL, NULL, &status, NULL) &&
           g_spawn_check_wait_status(status, NULL);
}

/* UML's tools take what we changed, and we take what they made. */
static void test_uml_tools(void)
{
    g_autoptr(Images) m = images_new();
    g_autofree char *made = block_fix_path(m->f, "made.cow");
    g_autoptr(GError) error = NULL;
    RebaseArgs a = {.file = m->cow, .base = m->out};
    CopyResult r;

    if (!block_fix_need("uml_moo", "uml-utilities") ||
        !block_fix_need("uml_mkcow", "uml-utilities"))
        return;
    g_autofree char *merged = block_fix_path(m->f, "merged.img");
    g_free(block_fix_image(m->f, "out.img", SIZE, 5)); /* m->out */
    image_rebase(&a, m->f->io, &r, &error);
    g_assert_no_error(error);
    g_assert_true(run("uml_moo", m->cow, merged, NULL));
    expect_disk(m, merged, SIZE);
    g_assert_true(run("uml_mkcow", made, merged, NULL));
    expect_disk(m, made, SIZE);
    g_autoptr(BlkNode) n = open_for_commit(m);
    image_commit(n, true, NULL, &r, &error);
    g_assert_no_error(error);
    blk_close(g_steal_pointer(&n));
    g_assert_cmpint(g_remove(merged), ==, 0);
    g_assert_true(run("uml_moo", m->cow, merged, NULL)); /* its check of the time passes */
    expect_disk(m, merged, SIZE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/image/zero", test_zero);
    g_test_add_func("/image/map", test_map);
    g_test_add_func("/image/convert", test_convert);
    g_test_add_func("/image/convert-odd", test_convert_odd);
    g_test_add_func("/image/convert-fails", test_convert_fails);
    g_test_add_func("/image/compare", test_compare);
    g_test_add_func("/image/commit", test_commit);
    g_test_add_func("/image/rebase", test_rebase);
    g_test_add_func("/image/check", test_check);
    g_test_add_func("/image/resize", test_resize);
    g_test_add_func("/image/bench", test_bench);
    g_test_add_func("/image/uml-tools", test_uml_tools);
    return g_test_run();
}
