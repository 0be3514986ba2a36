/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A qcow2 disk beside a plain buffer of the same bytes, scribbled on together. */
#include <string.h>
#include <sys/wait.h>

#include "block_int.h"
#include "qcow2fix.h"

void twin_init(int *argc, char ***argv)
{
    if (g_file_test("/dev/shm", G_FILE_TEST_IS_DIR))
        g_setenv("TMPDIR", "/dev/shm", FALSE); /* many small images, each synced */
    g_test_init(argc, argv, NULL);
}

int twin_run(BlockFix *f, const char *fmt, ...)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *out = NULL, *err = NULL;
    va_list ap;
    int status;

    va_start(ap, fmt);
    g_autofree char *line = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    g_auto(GStrv) argv = g_strsplit(line, " ", -1);
    g_spawn_sync(f->dir, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, &error);
    g_assert_no_error(error);
    if (status)
        g_test_message("%s: %s%s", line, out, err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256;
}

GHashTable *twin_options(const char *options)
{
    GHashTable *h = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_auto(GStrv) all = g_strsplit(options, ",", -1);

    for (char **p = all; *p; p++) {
        g_auto(GStrv) kv = g_strsplit(*p, "=", 2);
        g_hash_table_insert(h, g_strdup(kv[0]), g_strdup(kv[1]));
    }
    return h;
}

Twin *twin_new(uint64_t size, const char *options, const char *base, unsigned base_seed)
{
    g_autoptr(GError) error = NULL;
    Twin *t = g_new0(Twin, 1);

    t->f = block_fix_new();
    t->path = block_fix_path(t->f, "d.qcow2");
    t->size = size;
    t->want = g_malloc0(size);
    t->buf = g_malloc0(size);
    guint32 seed = g_test_rand_int();
    t->rand = g_rand_new_with_seed(seed);
    g_test_message("seed %u", seed);
    g_autoptr(GHashTable) h = options ? twin_options(options) : NULL;
    BlkMake m = {.file = t->path, .format = "qcow2", .size = size, .options = h};
    if (base) {
        uint64_t base_size = size * 3 / 4 / 512 * 512; /* shorter than the overlay */
        g_autofree char *path = block_fix_image(t->f, base, base_size, base_seed);
        m.base = path;
        m.base_format = "raw";
        for (uint64_t i = 0; i < base_size; i++)
            t->want[i] = block_fix_byte(i, base_seed);
        bool ok = blk_make(&m, t->f->io, &error);
        g_assert_no_error(error);
        g_assert_true(ok);
    } else {
        bool ok = blk_make(&m, t->f->io, &error);
        g_assert_no_error(error);
        g_assert_true(ok);
    }
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
    return t;
}

void twin_free(Twin *t)
{
    blk_close(t->n);
    block_fix_free(t->f);
    g_rand_free(t->rand);
    g_free(t->path);
    g_free(t->want);
    g_free(t->buf);
    g_free(t);
}

void twin_reopen(Twin *t)
{
    blk_close(t->n);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
}

void twin_write(Twin *t, uint64_t offset, uint64_t len, uint8_t v)
{
    memset(t->want + offset, v, len);
    g_assert_cmpint(blk_pwrite(t->n, t->want + offset, offset, len), ==, 0);
}

static void do_zero(Twin *t, BlkOp op, bool unmap, uint64_t offset, uint64_t len)
{
    BlkReq req = {.op = op, .may_unmap = unmap, .offset = offset, .len = len};

    memset(t->want + offset, 0, len);
    g_assert_cmpint(blk_wait(t->n, &req), ==, 0);
}

void twin_scribble(Twin *t, unsigned steps, uint32_t most)
{
    for (unsigned i = 0; i < steps; i++) {
        uint64_t offset = g_rand_int_range(t->rand, 0, t->size / 512) * 512ull;
        uint64_t len = g_rand_int_range(t->rand, 1, most / 512 + 1) * 512ull;
        unsigned what = g_rand_int_range(t->rand, 0, 16);
        if (g_rand_int_range(t->rand, 0, 4) == 0) /* whole clusters are rare else */
            offset = offset / 65536 * 65536, len = (len + 65535) / 65536 * 65536;
        len = MIN(len, t->size - offset);
        if (what < 9) {
            for (uint64_t k = 0; k < len; k += 512)
                memset(t->want + offset + k, g_rand_int(t->rand), 512);
            g_assert_cmpint(blk_pwrite(t->n, t->want + offset, offset, len), ==, 0);
        } else if (what == 9) {
            g_assert_cmpint(blk_flush(t->n), ==, 0);
        } else if (what < 12) {
            do_zero(t, BLK_ZERO, what == 10, offset, len);
        } else if (what == 12) {
            do_zero(t, BLK_DISCARD, true, offset, len);
        } else {
            g_assert_cmpint(blk_pread(t->n, t->buf, offset, len), ==, 0);
            g_assert_cmpmem(t->buf, len, t->want + offset, len);
        }
    }
}

void twin_qemu_check(Twin *t)
{
    g_assert_cmpint(twin_run(t->f, "qemu-img check -f qcow2 d.qcow2"), ==, 0);
}

void twin_own_check(Twin *t, bool repair, uint64_t errors, uint64_t leaks)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkReport) r = blk_report_new();
    BlkOptions o = {.file = t->path, .format = "qcow2", .read_only = !repair};
    BlkNode *n = blk_open_flags(NULL, &o, BLK_OPEN_CHECK | BLK_OPEN_QUIET, t->f->io, &error);

    g_assert_no_error(error);
    g_assert_true(n->drv->check(n, repair, r, &error));
    g_assert_no_error(error);
    for (guint i = 0; i < r->lines->len && i < 5; i++)
        g_test_message("%s", (char *)g_ptr_array_index(r->lines, i));
    if (errors != UINT64_MAX)
        g_assert_cmpuint(r->errors, ==, errors);
    if (leaks != UINT64_MAX)
        g_assert_cmpuint(r->leaks, ==, leaks);
    if (repair) {
        g_assert_cmpuint(r->errors_fixed, ==, r->errors);
        g_assert_cmpuint(r->leaks_fixed, ==, r->leaks);
    }
    blk_close(n);
}

void twin_compare(Twin *t)
{
    g_autofree char *raw = NULL;
    gsize len;

    g_assert_cmpint(blk_pread(t->n, t->buf, 0, t->size), ==, 0);
    g_assert_cmpmem(t->buf, t->size, t->want, t->size);
    blk_close(g_steal_pointer(&t->n));
    twin_own_check(t, false, 0, 0);
    twin_qemu_check(t);
    g_assert_cmpint(twin_run(t->f, "qemu-img convert -f qcow2 -O raw d.qcow2 d.raw"), ==, 0);
    g_autofree char *path = block_fix_path(t->f, "d.raw");
    g_assert_true(g_file_get_contents(path, &raw, &len, NULL));
    g_assert_cmpmem(raw, len, t->want, t->size);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
    g_assert_cmpint(blk_pread(t->n, t->buf, 0, t->size), ==, 0);
    g_assert_cmpmem(t->buf, t->size, t->want, t->size);
}
