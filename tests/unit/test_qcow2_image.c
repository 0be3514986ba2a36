/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2 images as wholes: made, resized, on other bases, mended; headers and tables that lie. */
#include <errno.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "qcow2.h"
#include "qcow2fix.h"

static bool need_qemu(void)
{
    return block_fix_need("qemu-img", "qemu-utils");
}

static void set_size(Twin *t, uint64_t size)
{
    g_autoptr(GError) error = NULL;
    bool ok = t->n->drv->resize(t->n, size, size < t->size, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
    t->n->drv->limits(t->n, &t->n->limits);
    t->want = g_realloc(t->want, size);
    t->buf = g_realloc(t->buf, size);
    if (size > t->size)
        memset(t->want + t->size, 0, size - t->size);
    t->size = size;
}

/* The base is shorter, longer, then shorter again than the disk; its bytes never come up. */
static void test_resize(void)
{
    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(MIB, "cluster-size=4K", "base.img", 5);
    g_assert_false(t->n->drv->resize(t->n, MIB / 2, false, NULL));
    static const uint64_t sizes[] = {MIB / 4 + 512, MIB / 2, 40 * MIB, 2 * MIB + 1536, 5 * MIB};
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        set_size(t, sizes[i]);
        twin_compare(t);
        twin_scribble(t, 60, 50000);
        twin_compare(t);
    }
    twin_reopen(t);
    g_assert_cmpuint(t->n->limits.size, ==, 5 * MIB);
}

static void test_base(void)
{
    g_autoptr(GError) error = NULL;

    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(MIB, NULL, "base.img", 5);
    twin_scribble(t, 20, 100000);
    g_assert_true(t->n->drv->make_empty(t->n, &error));
    for (uint64_t i = 0; i < t->size; i++)
        t->want[i] = i < t->size * 3 / 4 ? block_fix_byte(i, 5) : 0;
    twin_compare(t);
    g_autofree char *other = block_fix_image(t->f, "other.img", MIB, 9);
    BlkBaseInfo info = {.path = "other.img", .full = other, .format = "raw", .size = MIB};
    g_assert_true(t->n->drv->set_base(t->n, &info, &error));
    twin_reopen(t);
    g_assert_cmpstr(t->n->ref.path, ==, "other.img");
    g_assert_cmpstr(t->n->ref.format, ==, "raw");
    for (uint64_t i = 0; i < t->size; i++)
        t->want[i] = block_fix_byte(i, 9);
    twin_compare(t);
    g_assert_true(t->n->drv->set_base(t->n, NULL, &error));
    twin_reopen(t);
    g_assert_null(t->n->ref.path);
    memset(t->want, 0, t->size);
    twin_compare(t);
}

/* ---- damage ---- */

static void poke(Twin *t, uint64_t at, uint64_t v, unsigned bytes)
{
    g_autofree char *text = NULL;
    gsize len;
    uint8_t b[8];

    store_be64(b, v);
    g_assert_true(g_file_get_contents(t->path, &text, &len, NULL));
    g_assert_cmpuint(at + bytes, <=, len);
    memcpy(text + at, b + 8 - bytes, bytes);
    g_assert_true(g_file_set_contents(t->path, text, len, NULL));
}

static uint64_t peek(Twin *t, uint64_t at, unsigned bytes)
{
    g_autofree char *text = NULL;
    gsize len;
    uint64_t v = 0;

    g_assert_true(g_file_get_contents(t->path, &text, &len, NULL));
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | (uint8_t)text[at + i];
    return v;
}

/* A base that is longer than the disk does not come up when that grows. */
static void test_longer_base(void)
{
    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(MIB, NULL, "base.img", 5);
    blk_close(g_steal_pointer(&t->n));
    g_assert_cmpint(twin_run(t->f, "qemu-img create -q -f qcow2 -o cluster_size=4k -b base.img "
                                   "-F raw d.qcow2 300544"), ==, 0);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
    t->size = 300544;
    twin_compare(t);
    set_size(t, 2 * MIB);
    twin_compare(t);
}

/* Tables that are longer than what one block of counts can count, in a row. */
static void test_long_tables(void)
{
    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(2 * MIB, "cluster-size=512,refcount-bits=64", NULL, 0);
    twin_scribble(t, 50, 20000);
    g_assert_true(t->n->drv->resize(t->n, 400 * MIB, false, NULL));
    t->n->drv->limits(t->n, &t->n->limits);
    g_assert_cmpint(blk_pwrite(t->n, t->want, 399 * MIB, 512), ==, 0);
    g_assert_true(t->n->drv->snap->create(t->n, "s", NULL));
    g_assert_cmpint(blk_pwrite(t->n, t->buf, 399 * MIB + 512, 512), ==, 0);
    blk_close(g_steal_pointer(&t->n));
    twin_qemu_check(t);
    twin_own_check(t, false, 0, 0);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
    g_assert_true(t->n->drv->snap->apply(t->n, "s", NULL));
    g_assert_true(t->n->drv->snap->remove(t->n, "s", NULL));
    g_assert_cmpint(blk_pread(t->n, t->buf, 0, t->size), ==, 0);
    g_assert_cmpmem(t->buf, t->size, t->want, t->size);
    blk_close(g_steal_pointer(&t->n));
    twin_qemu_check(t);
}

static void test_options(void)
{
    static const struct {
        const char *options, *text;
        uint64_t size;
    } bad[] = {
        {"cluster-size=256", "cluster-size=256: it can be", MIB},
        {"cluster-size=4M", "a power of two from 512 to 2M", MIB},
        {"cluster-size=3K", "a power of two", MIB},
        {"cluster-size=4Kx", "a power of two", MIB},
        {"compat=1.0", "0.10 or 1.1", MIB},
        {"refcount-bits=3", "refcount-bits=3", MIB},
        {"refcount-bits=8,compat=0.10", "16 only with compat=0.10", MIB},
        {"lazy-refcounts=on,compat=0.10", "on with compat=1.1", MIB},
        {"compression-type=zstd,compat=0.10", "zstd with compat=1.1", MIB},
        {"compression-type=lzo", "zlib, or zstd", MIB},
        {"preallocation=full", "off or metadata", MIB},
        {"cluster-size=512", "at most 137438953472 bytes", 200 * GIB},
        {"preallocation=metadata,cluster-size=512,refcount-bits=64", "too large to be preallocated",
         100 * GIB},
    };
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "o.qcow2");

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GHashTable) h = twin_options(bad[i].options);
        BlkMake m = {.file = path, .format = "qcow2", .size = bad[i].size, .options = h};
        g_assert_false(blk_make(&m, f->io, &error));
        if (!strstr(error->message, bad[i].text))
            g_error("'%s' is not in '%s'", bad[i].text, error->message);
        g_assert_cmpuint(block_fix_count(f), ==, 0);
    }
}

/* More than the table of tables may list, before anything is written. */
static void test_too_large(void)
{
    g_autoptr(Twin) t = twin_new(MIB, "cluster-size=512", NULL, 0);
    g_autoptr(GError) error = NULL;

    g_assert_false(t->n->drv->resize(t->n, 200 * GIB, false, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_assert_nonnull(strstr(error->message, "it can have at most 137438953472 bytes"));
    twin_scribble(t, 20, 20000);
    twin_reopen(t);
    g_assert_cmpuint(t->n->limits.size, ==, MIB);
}

/* What a request may still use is not free, though no table has it any more. */
static void test_epochs(void)
{
    g_autoptr(Twin) t = twin_new(MIB, NULL, NULL, 0);
    BlkQcow *q = (BlkQcow *)t->n;
    BlkReq req = {.op = BLK_DISCARD, .offset = 65536, .len = 65536};
    uint64_t entry, refs;

    twin_write(t, 65536, 65536, 7);
    g_assert_cmpint(blk_flush(t->n), ==, 0);
    g_assert_cmpint(qcow_l2_get(q, 65536, &entry), ==, 0);
    uint64_t cluster = (entry & QCOW_OFFSET_MASK) >> 16;
    unsigned parity = atomic_load(&q->epoch) & 1;
    atomic_fetch_add(&q->using[parity], 1); /* as a request does that began now */
    g_assert_cmpint(blk_wait(t->n, &req), ==, 0);
    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmpint(blk_flush(t->n), ==, 0);
        g_assert_cmpint(qcow_ref_get(q, cluster, &refs), ==, 0);
        g_assert_cmpuint(refs, ==, 1);
    }
    atomic_fetch_sub(&q->using[parity], 1);
    g_assert_cmpint(blk_flush(t->n), ==, 0);
    g_assert_cmpint(qcow_ref_get(q, cluster, &refs), ==, 0);
    g_assert_cmpuint(refs, ==, 0);
}

/* Blocks of counts that are wrong, missing, astray: mended, by the dirty mark when it is opened. */
static void test_repair(void)
{
    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(4 * MIB, "cluster-size=4K", "base.img", 5);
    twin_scribble(t, 100, 50000);
    g_assert_true(t->n->drv->snap->create(t->n, "s", NULL));
    twin_scribble(t, 50, 50000);
    for (unsigned round = 0; round < 6; round++) {
        blk_close(g_steal_pointer(&t->n));
        uint64_t rt = peek(t, 48, 8), block = peek(t, rt, 8), l1 = peek(t, 40, 8);
        uint64_t l2 = peek(t, l1, 8) & 0xfffffffff000;
        bool dirty = round % 2;
        if (round < 2) {
            for (unsigned i = 0; i < 40; i += 2)
                poke(t, block + 20 + i, i % 3, 2); /* too low, too high */
        } else if (round < 4) {
            poke(t, rt, 0, 8); /* none */
        } else {
            poke(t, rt, block + 512, 8); /* astray */
            poke(t, l2, peek(t, l2, 8) & ~QCOW_COPIED, 8);
        }
        if (dirty)
            poke(t, 72, 1, 8);
        else
            twin_own_check(t, false, UINT64_MAX, UINT64_MAX);
        g_assert_cmpint(twin_run(t->f, "qemu-img check -q d.qcow2"), !=, 0);
        if (!dirty)
            twin_own_check(t, true, UINT64_MAX, UINT64_MAX);
        t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
        twin_compare(t);
        twin_scribble(t, 30, 50000);
        twin_compare(t);
    }
}

/* Fields that lie, one at a time: refused with their names, or errors of requests. */
static void test_hostile(void)
{
    static const struct {
        unsigned at, bytes;
        uint64_t v;
        int code;
        const char *text;
    } bad[] = {
        {4, 4, 1, LODGE_ERROR_UNSUPPORTED, "version at offset 4 is 1"},
        {4, 4, 4, LODGE_ERROR_UNSUPPORTED, "version at offset 4 is 4"},
        {8, 8, 70000, LODGE_ERROR_IMAGE, "backing_file_offset"},
        {16, 4, 1024, LODGE_ERROR_IMAGE, "backing_file_size"},
        {16, 4, 0, LODGE_ERROR_IMAGE, "backing_file_size"},
        {20, 4, 8, LODGE_ERROR_IMAGE, "cluster_bits at offset 20 is 8"},
        {20, 4, 64, LODGE_ERROR_IMAGE, "cluster_bits at offset 20 is 64"},
        {24, 8, 0, LODGE_ERROR_IMAGE, "size at offset 24"},
        {24, 8, INT64_MAX, LODGE_ERROR_IMAGE, "size at offset 24"},
        {24, 8, (uint64_t)1 << 62, LODGE_ERROR_IMAGE, "l1_size at offset 36"},
        {32, 4, 1, LODGE_ERROR_UNSUPPORTED, "encrypted (AES)"},
        {32, 4, 2, LODGE_ERROR_UNSUPPORTED, "encrypted (LUKS)"},
        {36, 4, 0, LODGE_ERROR_IMAGE, "l1_size at offset 36"},
        {36, 4, UINT32_MAX, LODGE_ERROR_IMAGE, "l1_size at offset 36"},
        {40, 8, 512, LODGE_ERROR_IMAGE, "l1_table_offset at offset 40"},
        {40, 8, 0, LODGE_ERROR_IMAGE, "l1_table_offset at offset 40"},
        {40, 8, (uint64_t)1 << 40, LODGE_ERROR_IMAGE, "past the end of the file"},
        {40, 8, 0xfffffffffff00000, LODGE_ERROR_IMAGE, "past the end of the file"},
        {40, 8, 65536, LODGE_ERROR_IMAGE, "overlaps"},
        {48, 8, 65537, LODGE_ERROR_IMAGE, "refcount_table_offset at offset 48"},
        {48, 8, (uint64_t)1 << 60, LODGE_ERROR_IMAGE, "refcount_table_offset at offset 48"},
        {56, 4, 0, LODGE_ERROR_IMAGE, "refcount_table_clusters at offset 56"},
        {56, 4, 129, LODGE_ERROR_IMAGE, "refcount_table_clusters at offset 56"},
        {60, 4, 70000, LODGE_ERROR_IMAGE, "nb_snapshots at offset 60"},
        {60, 4, 1, LODGE_ERROR_IMAGE, "snapshots_offset at offset 64"},
        {72, 8, 4, LODGE_ERROR_UNSUPPORTED, "external file"},
        {72, 8, 8, LODGE_ERROR_IMAGE, "compression_type at offset 104"},
        {72, 8, (uint64_t)1 << 40, LODGE_ERROR_UNSUPPORTED, "bit 40, which has no name"},
        {72, 8, 2, LODGE_ERROR_IMAGE, "corrupt"},
        {72, 8, 16, LODGE_ERROR_UNSUPPORTED, "extended L2"},
        {96, 4, 7, LODGE_ERROR_IMAGE, "refcount_order at offset 96"},
        {100, 4, 100, LODGE_ERROR_IMAGE, "header_length at offset 100"},
        {100, 4, 0x7ffffff8, LODGE_ERROR_IMAGE, "header_length at offset 100"},
        {116, 4, 70000, LODGE_ERROR_IMAGE, "header extension at offset"},
    };
    g_autoptr(Twin) t = twin_new(4 * MIB, NULL, "base.img", 5);
    g_autofree char *good = NULL;
    gsize len;

    twin_write(t, 65536, 3 * 65536, 7);
    blk_close(g_steal_pointer(&t->n));
    g_assert_true(g_file_get_contents(t->path, &good, &len, NULL));
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        poke(t, bad[i].at, bad[i].v, bad[i].bytes);
        block_fix_refused(t->f, &(BlkOptions){.file = t->path}, bad[i].code, bad[i].text);
        g_assert_true(g_file_set_contents(t->path, good, len, NULL));
    }
    /* A feature that the image itself names: what it calls the dirty bit is bit 9 now. */
    const char *name = memmem(good, 4096, "dirty bit", 9);
    g_assert_nonnull(name);
    poke(t, name - good - 1, 9, 1);
    poke(t, 72, 1 << 9, 8);
    block_fix_refused(t->f, &(BlkOptions){.file = t->path}, LODGE_ERROR_UNSUPPORTED, "'dirty bit'");
    /* Corrupt: may be looked at. */
    g_assert_true(g_file_set_contents(t->path, good, len, NULL));
    poke(t, 72, 2, 8);
    blk_close(block_fix_open(t->f, &(BlkOptions){.file = t->path, .read_only = true}));
    g_assert_true(g_file_set_contents(t->path, good, len, NULL));
}

/* Entries that point into tables: the request fails, and nothing is overwritten. */
static void test_astray(void)
{
    g_autoptr(Twin) t = twin_new(4 * MIB, NULL, NULL, 0);
    uint8_t buf[512] = {1};

    twin_write(t, 0, 3 * 65536, 7);
    blk_close(g_steal_pointer(&t->n));
    uint64_t l1 = peek(t, 40, 8), l2 = peek(t, l1, 8) & 0xffffffff0000, rt = peek(t, 48, 8);
    const uint64_t entries[] = {QCOW_COPIED | l1, QCOW_COPIED | rt, QCOW_COPIED | 512,
                                QCOW_COPIED | (l2 + 512), QCOW_COMPRESSED | rt,
                                QCOW_COPIED | QCOW_OFFSET_MASK};
    for (unsigned i = 0; i < G_N_ELEMENTS(entries); i++) {
        poke(t, l2 + 8, entries[i], 8);
        t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
        g_assert_cmpint(blk_pread(t->n, buf, 65536, 512), ==, EIO);
        g_assert_cmpint(blk_pwrite(t->n, buf, 65536, 512), ==, EIO);
        g_assert_cmpint(blk_pread(t->n, buf, 0, 512), ==, 0);
        blk_close(g_steal_pointer(&t->n));
        twin_own_check(t, true, UINT64_MAX, UINT64_MAX);
        twin_own_check(t, false, 0, 0);
    }
    /* Counts that call the tables free: nothing new goes there. */
    uint64_t block = peek(t, rt, 8);
    for (unsigned i = 0; i < 8; i++)
        poke(t, block + i * 2, 0, 2);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
    g_assert_cmpint(blk_pwrite(t->n, buf, 2 * MIB, 512), ==, EIO);
    blk_close(g_steal_pointer(&t->n));
    g_assert_cmpuint(peek(t, 0, 4), ==, QCOW_MAGIC);
    twin_own_check(t, true, UINT64_MAX, UINT64_MAX);
    twin_own_check(t, false, 0, 0);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
}

/* Where the tables of an image with one L2 table lie. */
typedef struct Tables {
    uint64_t l1, l2, rt, refs;
} Tables;

static Tables find_tables(Twin *t)
{
    Tables at = {.l1 = peek(t, 40, 8), .rt = peek(t, 48, 8)};

    at.l2 = peek(t, at.l1, 8) & QCOW_OFFSET_MASK;
    at.refs = peek(t, at.rt, 8);
    return at;
}

/* The first change that a wrong table leads into a table is refused, the image is marked, and takes
 * none any more, until it is mended. The table has what it had. */
static void expect_marked(Twin *t, uint64_t wrong, uint64_t table, bool v3)
{
    g_autoptr(GError) error = NULL;
    uint8_t buf[512] = {1}, before[4096], after[4096];

    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
    g_assert_cmpint(blk_file_read_at(blk_file_under(t->n), before, sizeof before, table), ==, 0);
    if (v3)
        g_assert_cmpuint(peek(t, 72, 8), ==, 0);
    g_assert_cmpint(blk_pwrite(t->n, buf, wrong, 512), ==, EIO);
    if (v3)
        g_assert_cmpuint(peek(t, 72, 8), ==, QCOW_INC_CORRUPT);
    g_assert_cmpint(blk_pwrite(t->n, buf, 0, 512), ==, EIO);
    BlkReq zero = {.op = BLK_ZERO, .offset = 0, .len = 65536, .may_unmap = true};
    g_assert_cmpint(blk_wait(t->n, &zero), ==, EIO);
    g_assert_false(t->n->drv->resize(t->n, 8 * MIB, false, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
    g_assert_nonnull(strstr(error->message, "corrupt"));
    g_assert_false(t->n->drv->snap->create(t->n, "s", NULL));
    g_assert_cmpint(blk_flush(t->n), ==, 0);
    g_assert_cmpint(blk_pread(t->n, buf, 0, 512), ==, 0);
    g_assert_cmpint(buf[0], ==, 7);
    g_assert_cmpint(blk_file_read_at(blk_file_under(t->n), after, sizeof after, table), ==, 0);
    g_assert_cmpmem(before, sizeof before, after, sizeof after);
    blk_close(g_steal_pointer(&t->n));
    if (v3)
        block_fix_refused(t->f, &(BlkOptions){.file = t->path}, LODGE_ERROR_IMAGE, "corrupt");
    twin_own_check(t, true, UINT64_MAX, UINT64_MAX);
    twin_own_check(t, false, 0, 0);
    g_autofree char *qemu_img = g_find_program_in_path("qemu-img");
    if (qemu_img)
        g_assert_cmpint(twin_run(t->f, "qemu-img check -q d.qcow2"), ==, 0);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
    g_assert_cmpint(blk_pwrite(t->n, buf, wrong, 512), ==, 0);
    blk_close(g_steal_pointer(&t->n));
}

/* Entries of clusters, plain and compressed, and of tables, that point into L2 tables and blocks of
 * counts: all of a corrupt image. */
static void test_corrupt(gconstpointer data)
{
    const char *options = data;
    g_autoptr(Twin) t = twin_new(4 * MIB, options, NULL, 0);
    g_autofree char *good = NULL;
    gsize len;

    twin_write(t, 0, 3 * 65536, 7);
    blk_close(g_steal_pointer(&t->n));
    g_assert_true(g_file_get_contents(t->path, &good, &len, NULL));
    Tables at = find_tables(t);
    const struct {
        uint64_t at, v, table;
    } wrong[] = {
        {at.l2 + 8, QCOW_COPIED | at.l2, at.l2},
        {at.l2 + 8, QCOW_COPIED | at.refs, at.refs},
        {at.l2 + 8, QCOW_COMPRESSED | at.refs, at.refs},
        {at.l2 + 8, QCOW_COMPRESSED | (uint64_t)1 << 54 | (at.l2 - 100), at.l2},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_assert_true(g_file_set_contents(t->path, good, (gssize)len, NULL));
        poke(t, wrong[i].at, wrong[i].v, 8);
        expect_marked(t, 65536, wrong[i].table, !options);
    }
    /* The table of tables leads to a block of counts, and that of counts to an L2 table. */
    static const uint8_t one[512] = {1};
    for (unsigned i = 0; i < 2; i++) {
        g_assert_true(g_file_set_contents(t->path, good, (gssize)len, NULL));
        poke(t, i ? at.rt : at.l1, i ? at.l2 : QCOW_COPIED | at.refs, 8);
        t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
        g_assert_cmpint(blk_pwrite(t->n, one, 3 * MIB, 512), ==, EIO);
        g_assert_cmpint(blk_pwrite(t->n, one, MIB, 512), ==, EIO);
        blk_close(g_steal_pointer(&t->n));
        if (!options)
            block_fix_refused(t->f, &(BlkOptions){.file = t->path}, LODGE_ERROR_IMAGE, "corrupt");
        twin_own_check(t, true, UINT64_MAX, UINT64_MAX);
        twin_own_check(t, false, 0, 0);
    }
    /* Nothing is counted or let go of that only looks like a table, or like data. */
    const uint64_t lies[][2] = {{at.l1, QCOW_COPIED | at.refs}, {at.l1, QCOW_COPIED | (at.l2 + 512)},
                                {at.l2 + 8, QCOW_COPIED | at.refs}};
    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_true(g_file_set_contents(t->path, good, (gssize)len, NULL));
        poke(t, lies[i][0], lies[i][1], 8);
        t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
        g_assert_false(t->n->drv->snap->create(t->n, "s", NULL));
        if (lies[i][0] == at.l1) {
            g_assert_false(t->n->drv->make_empty(t->n, &error));
            g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
            g_assert_nonnull(strstr(error->message, "cannot empty it"));
        } else {
            g_assert_true(t->n->drv->make_empty(t->n, NULL));
        }
        blk_close(g_steal_pointer(&t->n));
        g_assert_cmpuint(peek(t, at.refs + (at.refs >> 16) * 2, 2), ==, 1);
    }
    /* One that is read only is not touched. */
    g_assert_true(g_file_set_contents(t->path, good, (gssize)len, NULL));
    poke(t, at.l2 + 8, QCOW_COPIED | at.l2, 8);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path, .read_only = true});
    uint8_t buf[512];
    g_assert_cmpint(blk_pread(t->n, buf, 65536, 512), ==, EIO);
    blk_close(g_steal_pointer(&t->n));
    if (!options)
        g_assert_cmpuint(peek(t, 72, 8), ==, 0);
    /* Tables that come and go: what one leaves may hold data again. */
    g_assert_true(g_file_set_contents(t->path, good, (gssize)len, NULL));
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
    memset(t->want, 7, 3 * 65536);
    for (unsigned i = 0; i < 4; i++) {
        g_assert_true(t->n->drv->snap->create(t->n, "s", NULL));
        twin_scribble(t, 40, 200000);
        g_assert_true(t->n->drv->snap->remove(t->n, "s", NULL));
        twin_scribble(t, 40, 200000);
    }
    g_assert_true(t->n->drv->make_empty(t->n, NULL));
    memset(t->want, 0, t->size);
    twin_scribble(t, 200, 200000);
}

int main(int argc, char **argv)
{
    twin_init(&argc, &argv);
    g_test_add_func("/qcow2-image/resize", test_resize);
    g_test_add_func("/qcow2-image/longer-base", test_longer_base);
    g_test_add_func("/qcow2-image/epochs", test_epochs);
    g_test_add_func("/qcow2-image/long-tables", test_long_tables);
    g_test_add_func("/qcow2-image/options", test_options);
    g_test_add_func("/qcow2-image/too-large", test_too_large);
    g_test_add_func("/qcow2-image/base", test_base);
    g_test_add_func("/qcow2-image/repair", test_repair);
    g_test_add_func("/qcow2-image/hostile", test_hostile);
    g_test_add_func("/qcow2-image/astray", test_astray);
    g_test_add_data_func("/qcow2-image/corrupt/v3", NULL, test_corrupt);
    g_test_add_data_func("/qcow2-image/corrupt/v2", "compat=0.10", test_corrupt);
    return g_test_run();
}
