/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile images, the same for every format: cut off at each byte of their heads, bases that are
 * the image itself, in a loop, no files, or too many; data of two places in one. What only one
 * format has is in its own tests.
 */
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "shapes.h"

#define SIZE (1 * MIB)
#define HEAD_BYTES 700u /* cut at each of the first */
#define CUT_STEP 173u   /* and from there on at some */

static void set_length(const char *path, const char *bytes, gsize len)
{
    g_assert_true(g_file_set_contents(path, bytes, (gssize)len, NULL));
}

/* An image that ends too early is refused in one line that names it, or all that is there reads. */
static void test_short(gconstpointer data)
{
    const Shape *s = data;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = NULL, *path = shape_make(f, s, SIZE, &base), *bytes = NULL;
    g_autofree uint8_t *buf = g_malloc(SIZE);
    unsigned refused = 0;
    gsize len;

    memset(buf, 7, SIZE);
    BlkNode *n = block_fix_open(f, &(BlkOptions){.file = path, .format = s->format});
    g_assert_cmpint(blk_pwrite(n, buf, 0, 3 * 65536), ==, 0);
    blk_close(n);
    g_assert_true(g_file_get_contents(path, &bytes, &len, NULL));
    for (gsize at = 0; at < len; at += at < HEAD_BYTES ? 1 : CUT_STEP + at / 64) {
        g_autoptr(GError) error = NULL;
        BlkOptions o = {.file = path, .format = s->format, .aio = BLK_AIO_THREADS};
        set_length(path, bytes, at);
        n = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, f->io, &error);
        if (n) {
            g_autoptr(BlkReport) r = blk_report_new();
            g_assert_cmpuint(at, >=, 72); /* the shortest head that there is */
            (void)blk_pread(n, buf, 0, SIZE);
            (void)image_check(n, false, r, NULL);
            blk_close(n);
            continue;
        }
        refused++;
        g_assert_true(error->domain == LODGE_ERROR);
        g_assert_true(error->code == LODGE_ERROR_IMAGE || error->code == LODGE_ERROR_CONFIG ||
                      error->code == LODGE_ERROR_UNSUPPORTED);
        g_assert_nonnull(strstr(error->message, path));
        g_assert_null(strchr(error->message, '\n'));
    }
    g_assert_cmpuint(refused, >=, 72);
}

static void expect_refused(BlockFix *f, const char *path, const Shape *s, int code,
                           const char *text)
{
    BlkOptions o = {.file = path, .format = s->format};
    g_autoptr(GError) error = NULL;
    BlkNode *n = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, f->io, &error);

    g_assert_null(n);
    if (!strstr(error->message, text))
        g_error("%s: '%s' is not in '%s'", s->name, text, error->message);
    g_assert_error(error, LODGE_ERROR, code);
    g_assert_null(strchr(error->message, '\n'));
    g_assert_nonnull(strstr(error->message, " at offset ")); /* of the field that names the base */
}

static char *overlay(BlockFix *f, const Shape *s, const char *name, const char *base)
{
    char *path = block_fix_path(f, name);
    BlkMake m = {.file = path, .format = s->format, .base = base, .base_format = s->format};
    g_autoptr(GError) error = NULL;

    blk_make(&m, f->io, &error);
    g_assert_no_error(error);
    return path;
}

/* The name that the image records is something else now. */
static void test_bases(gconstpointer data)
{
    const Shape *s = data;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = NULL, *path = shape_make(f, s, SIZE, &base);
    g_autofree char *kept = block_fix_path(f, "kept");
    bool own = !strcmp(s->format, s->base_format); /* an overlay can stand on an overlay */

    g_assert_cmpint(g_rename(base, kept), ==, 0);
    expect_refused(f, path, s, LODGE_ERROR_CONFIG, "no such file");
    g_assert_cmpint(link(path, base), ==, 0);
    expect_refused(f, path, s, LODGE_ERROR_CONFIG, "the chain is a loop");
    g_remove(base);
    g_assert_cmpint(symlink(path, base), ==, 0);
    expect_refused(f, path, s, LODGE_ERROR_CONFIG, "the chain is a loop");
    g_remove(base);
    g_assert_cmpint(mkfifo(base, 0600), ==, 0); /* opening it would wait for ever */
    expect_refused(f, path, s, LODGE_ERROR_CONFIG, "not a file");
    g_remove(base);
    g_assert_cmpint(symlink("/dev/zero", base), ==, 0);
    expect_refused(f, path, s, LODGE_ERROR_CONFIG, "which is a device");
    g_remove(base);
    g_assert_cmpint(mkdir(base, 0700), ==, 0);
    expect_refused(f, path, s, LODGE_ERROR_CONFIG, "which is a directory");
    g_assert_cmpint(g_rmdir(base), ==, 0);
    g_assert_cmpint(g_rename(kept, base), ==, 0);
    if (own) { /* top stands on image, image on what is top now */
        g_autofree char *top = overlay(f, s, "top", path);
        g_assert_cmpint(g_rename(base, kept), ==, 0);
        g_assert_cmpint(link(top, base), ==, 0);
        expect_refused(f, top, s, LODGE_ERROR_CONFIG, "the chain is a loop");
    }
}

/* 64 images in a chain are fine, 65 are not: not to be made, nor to be opened. */
static void test_chain(gconstpointer data)
{
    const Shape *s = data;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *below = NULL, *path = shape_make(f, s, SIZE, &below);
    g_autofree char *last = g_strdup(path), *spare = block_fix_path(f, "spare");
    g_autofree char *more = block_fix_path(f, "more");
    g_autoptr(GError) error = NULL;

    for (unsigned i = 2; i < BLK_CHAIN_MAX; i++) { /* base and image are two */
        g_autofree char *name = g_strdup_printf("l%u", i);
        char *next = overlay(f, s, name, last);
        g_free(last);
        last = next;
    }
    blk_close(block_fix_open(f, &(BlkOptions){.file = last, .format = s->format}));
    BlkMake m = {.file = more, .format = s->format, .base = last, .base_format = s->format};
    g_assert_false(blk_make(&m, f->io, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    /* One that stands on a short chain, whose base then becomes the long one. */
    g_free(overlay(f, s, "short", path));
    g_autofree char *short_path = block_fix_path(f, "short");
    g_autofree char *top = overlay(f, s, "top", short_path);
    g_assert_cmpint(g_rename(short_path, spare), ==, 0);
    g_assert_cmpint(g_rename(last, short_path), ==, 0);
    expect_refused(f, top, s, LODGE_ERROR_LIMIT, "the chain has more than 64 images");
}

/* ---- two places of the disk in one of the file ---- */

typedef struct Overlap {
    const char *shape;
    uint64_t table, entry; /* offset of the table; bytes of an entry */
    const char *text;
} Overlap;

static const Overlap overlaps[] = {
    {"vhd-small", 1536, 4, "block allocation table, entries 0 and 1: their blocks overlap at"},
    {"vdi-small", 4096, 4, "entries 0 and 1: their blocks overlap at"},
    {"qcow2-v2", 0, 8, "is counted 1 times, used 2"},
};

static void test_overlap(gconstpointer data)
{
    const Overlap *o = data;
    const Shape *s = shapes;

    while (strcmp(s->name, o->shape) != 0)
        s++;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = NULL, *path = shape_make(f, s, SIZE, &base), *bytes = NULL;
    g_autofree uint8_t *buf = g_malloc0(4 * 65536);
    g_autoptr(BlkReport) r = blk_report_new();
    uint64_t table = o->table;
    bool found = false;
    gsize len;

    memset(buf, 7, 4 * 65536);
    BlkOptions opt = {.file = path, .format = s->format};
    BlkNode *n = block_fix_open(f, &opt);
    g_assert_cmpint(blk_pwrite(n, buf, 0, 4 * 65536), ==, 0);
    blk_close(n);
    g_assert_true(g_file_get_contents(path, &bytes, &len, NULL));
    if (!table) /* qcow2: the first L2 table, by the L1 table at the offset in the header */
        table = load_be64(bytes + load_be64(bytes + 40)) & UINT64_C(0x00fffffffffffe00);
    memcpy(bytes + table + o->entry, bytes + table, o->entry);
    set_length(path, bytes, len);
    n = block_fix_open(f, &opt);
    g_assert_true(image_check(n, false, r, NULL));
    blk_close(n);
    g_assert_cmpuint(r->errors, >=, 1);
    for (guint i = 0; i < r->lines->len; i++)
        found = found || strstr(g_ptr_array_index(r->lines, i), o->text);
    if (!found)
        g_error("'%s' is not in '%s'", o->text, (char *)g_ptr_array_index(r->lines, 0));
}

int main(int argc, char **argv)
{
    if (g_access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", TRUE);
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < n_shapes; i++) {
        const Shape *s = &shapes[i];
        g_autofree char *cut = g_strdup_printf("/hostile/short/%s", s->name);
        g_autofree char *bases = g_strdup_printf("/hostile/bases/%s", s->name);
        g_autofree char *chain = g_strdup_printf("/hostile/chain/%s", s->name);
        g_test_add_data_func(cut, s, test_short);
        if (s->base_format)
            g_test_add_data_func(bases, s, test_bases);
        if (s->base_format && strcmp(s->base_format, "raw"))
            g_test_add_data_func(chain, s, test_chain);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(overlaps); i++) {
        g_autofree char *name = g_strdup_printf("/hostile/overlap/%s", overlaps[i].shape);
        g_test_add_data_func(name, &overlaps[i], test_overlap);
    }
    return g_test_run();
}
