/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VDI images: data path, other programs, parents, changes of size, what is refused. */
#include <errno.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "formatfix.h"

#define SIZE (UINT64_C(9) << 20 | 1536)
#define TABLE 4096u

static void qemu_check(const char *path)
{
    g_autofree char *program = g_find_program_in_path("qemu-img");

    if (program)
        format_run("qemu-img", "check", "-f", "vdi", path, NULL);
}

static void new_disk(const char *options, const char *subformat)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vdi", &(BlkMake){.format = "vdi", .size = SIZE},
                                        options);
    g_autofree char *copy = block_fix_path(f, "b.vdi");
    g_autofree char *fact = format_fact(f, path, "subformat");
    g_autofree uint8_t *want = g_malloc0(SIZE);
    BlkOptions o = {.file = path};

    g_assert_cmpstr(fact, ==, subformat);
    qemu_check(path);
    format_storm(f, &o, want, SIZE, 10);
    format_same(f, &o, want, SIZE, "vdi");
    format_scribble(f, &o, want, SIZE, 11, 600);
    format_same(f, &o, want, SIZE, "vdi");
    format_check(f, path, false, 0, 0);
    qemu_check(path);
    g_autofree char *fresh = format_make(f, "k.vdi", &(BlkMake){.format = "vdi", .size = SIZE},
                                         options);
    memset(want, 0, SIZE);
    format_killed(f, &(BlkOptions){.file = fresh}, copy, want, SIZE, 12);
    o.file = copy;
    format_same(f, &o, want, SIZE, "vdi");
    qemu_check(copy);
}

static void test_dynamic(void)
{
    new_disk(NULL, "dynamic");
}

static void test_fixed(void)
{
    new_disk("subformat=fixed", "fixed");
}

static void test_order(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vdi", &(BlkMake){.format = "vdi", .size = SIZE},
                                        NULL);
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = path});
    uint8_t buf[512] = {1}, entry[4], before[16], after[16];

    format_peek(path, 0x198, before, 16);
    g_assert_cmpint(blk_pwrite(n, buf, 3 * MIB, 512), ==, 0);
    format_peek(path, 0x198, after, 16);
    g_assert_cmpint(memcmp(before, after, 16), !=, 0); /* written since */
    format_peek(path, TABLE + 12, entry, 4);
    g_assert_cmpuint(load_le32(entry), ==, 0xffffffff);
    g_assert_cmpint(blk_flush(n), ==, 0);
    format_peek(path, TABLE + 12, entry, 4);
    g_assert_cmpuint(load_le32(entry), ==, 0);
    format_peek(path, 0x184, entry, 4);
    g_assert_cmpuint(load_le32(entry), ==, 1);
    /* A write that asks for it is as good as a flush. */
    struct iovec iov = {buf, 512};
    BlkReq req = {.op = BLK_WRITE, .offset = 5 * MIB, .len = 512, .fua = true, .iov = &iov,
                  .niov = 1};
    g_assert_cmpint(blk_wait(n, &req), ==, 0);
    format_peek(path, TABLE + 20, entry, 4);
    g_assert_cmpuint(load_le32(entry), ==, 1);
}

static void qemu_disk(const char *options)
{
    const uint64_t size = 10 * MIB + 512;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "q.vdi");
    g_autofree uint8_t *want = g_malloc0(size);
    BlkOptions o = {.file = path};

    if (!block_fix_need("qemu-img", "qemu-utils") || !block_fix_need("qemu-io", "qemu-utils"))
        return;
    format_run("qemu-img", "create", "-f", "vdi", "-o", options, path, "10486272", NULL);
    format_run("qemu-io", "-f", "vdi", "-c", "write -P 7 100k 3M", "-c", "write -P 9 0 512", path,
               NULL);
    memset(want + 102400, 7, 3 * MIB);
    memset(want, 9, 512);
    format_same(f, &o, want, size, "vdi");
    format_scribble(f, &o, want, size, 21, 300);
    format_same(f, &o, want, size, "vdi");
    qemu_check(path);
    format_run("qemu-io", "-f", "vdi", "-c", "write -P 3 1M 9M", path, NULL);
    memset(want + MIB, 3, 9 * MIB);
    format_same(f, &o, want, size, "vdi");
    format_check(f, path, false, 0, 0);
}

static void test_qemu(void)
{
    qemu_disk("static=off");
    qemu_disk("static=on");
}

/* ---- parents ---- */

static void test_differencing(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = format_make(f, "ba se.vdi", &(BlkMake){.format = "vdi", .size = SIZE},
                                        NULL);
    g_autofree uint8_t *below = g_malloc0(SIZE + MIB), *want = g_malloc0(SIZE + MIB);
    g_autofree char *copy = block_fix_path(f, "copy.vdi");

    format_scribble(f, &(BlkOptions){.file = base}, below, SIZE, 31, 100);
    memcpy(want, below, SIZE);
    /* Longer than its base: the rest is zeros. */
    BlkMake m = {.format = "vdi", .base = base, .base_format = "vdi", .size = SIZE + MIB};
    g_autofree char *one = format_make(f, "one.vdi", &m, NULL);
    BlkOptions o = {.file = one};
    format_same(f, &o, want, SIZE + MIB, NULL);
    format_storm(f, &o, want, SIZE + MIB, 30);
    format_same(f, &o, want, SIZE + MIB, NULL);
    format_scribble(f, &o, want, SIZE + MIB, 32, 500);
    format_same(f, &o, want, SIZE + MIB, NULL);
    format_check(f, one, false, 0, 0);
    format_killed(f, &o, copy, want, SIZE + MIB, 33);
    format_same(f, &(BlkOptions){.file = copy}, want, SIZE + MIB, NULL);
    BlkMake m2 = {.format = "vdi", .base = copy, .base_format = "vdi"};
    g_autofree char *two = format_make(f, "two.vdi", &m2, NULL);
    format_scribble(f, &(BlkOptions){.file = two}, want, SIZE + MIB, 34, 200);
    format_same(f, &(BlkOptions){.file = two}, want, SIZE + MIB, NULL);
    format_same(f, &(BlkOptions){.file = base}, below, SIZE, "vdi");
}

/* As VirtualBox's images: no path, but an id that is looked for. */
static void test_search(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    BlkMake plain = {.format = "vdi", .size = SIZE};
    g_autofree char *base = format_make(f, "base.vdi", &plain, NULL);
    g_autofree char *other = format_make(f, "other.vdi", &plain, NULL);
    BlkMake m = {.format = "vdi", .base = base, .base_format = "vdi"};
    g_autofree char *one = format_make(f, "one.vdi", &m, NULL);
    g_autofree char *folder = block_fix_path(f, "Snapshots");
    g_autofree char *inner = g_build_filename(folder, "one.vdi", NULL);

    format_poke(one, 0x54, "a disk\0", 7);
    BlkNode *n = block_fix_open(f, &(BlkOptions){.file = one});
    g_assert_cmpstr(n->ref.path, ==, "base.vdi");
    blk_close(n);
    g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
    g_assert_cmpint(rename(one, inner), ==, 0);
    n = block_fix_open(f, &(BlkOptions){.file = inner});
    g_assert_cmpstr(n->ref.path, ==, "../base.vdi");
    blk_close(n);
    g_assert_cmpint(g_remove(base), ==, 0);
    g_autofree char *id = format_fact(f, inner, "parent-id");
    block_fix_refused(f, &(BlkOptions){.file = inner}, LODGE_ERROR_CONFIG, id);
    block_fix_refused(f, &(BlkOptions){.file = inner, .base = other}, LODGE_ERROR_CONFIG,
                      "parent id at offset 424");
    g_remove(inner);
    g_rmdir(folder);
}

static void test_wrong_parent(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    BlkMake plain = {.format = "vdi", .size = SIZE};
    g_autofree char *base = format_make(f, "base.vdi", &plain, NULL);
    g_autofree char *raw = block_fix_image(f, "base.img", SIZE, 1);
    BlkMake m = {.format = "vdi", .base = base, .base_format = "vdi"};
    g_autofree char *one = format_make(f, "one.vdi", &m, NULL);
    uint8_t buf[512] = {3};

    format_make_refused(f, &(BlkMake){.format = "vdi", .base = raw}, NULL, LODGE_ERROR_CONFIG,
                        "is raw");
    format_make_refused(f, &m, "subformat=fixed", LODGE_ERROR_CONFIG, "cannot be fixed");
    format_make_refused(f, &plain, "subformat=wow", LODGE_ERROR_CONFIG, "can be dynamic or fixed");
    blk_close(block_fix_open(f, &(BlkOptions){.file = one}));
    BlkNode *n = block_fix_open(f, &(BlkOptions){.file = base});
    g_assert_cmpint(blk_pwrite(n, buf, 0, 512), ==, 0);
    blk_close(n);
    block_fix_refused(f, &(BlkOptions){.file = one}, LODGE_ERROR_CONFIG,
                      "parent modification id at offset 440");
}

/* ---- changes at rest, checks ---- */

static void test_resize(void)
{
    format_resizes("vdi", NULL, SIZE, 29 * MIB, "vdi", qemu_check);
    format_resizes("vdi", "subformat=fixed", SIZE, 29 * MIB, "vdi", qemu_check);
}

static void test_rebase(void)
{
    format_moved("vdi", SIZE);
    format_rebase("vdi", SIZE, "vdi");
}

static void test_check(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vdi", &(BlkMake){.format = "vdi", .size = SIZE},
                                        NULL);
    g_autofree uint8_t *want = g_malloc(SIZE);
    BlkOptions o = {.file = path};
    uint8_t entry[4];

    memset(want, 6, SIZE);
    BlkNode *n = block_fix_open(f, &o);
    g_assert_cmpint(blk_pwrite(n, want, 0, SIZE), ==, 0);
    blk_close(n);
    format_check(f, path, false, 0, 0);
    for (unsigned i = 0; i < 2; i++) { /* too low is worse than too high */
        store_le32(entry, i ? 11 : 9);
        format_poke(path, 0x184, entry, 4);
        format_check(f, path, false, !i, i);
        format_check(f, path, true, !i, i);
        format_check(f, path, false, 0, 0);
    }
    g_assert_cmpint(truncate(path, 2 * MIB + 13 * MIB), ==, 0);
    format_check(f, path, true, 0, 1);
    format_check(f, path, false, 0, 0);
    format_same(f, &o, want, SIZE, "vdi");
    store_le32(entry, 0x7fffffff);
    format_poke(path, TABLE + 4, entry, 4);
    n = block_fix_open(f, &o);
    g_assert_cmpint(blk_pread(n, want + MIB, MIB, 512), ==, EIO);
    g_assert_cmpint(blk_pwrite(n, want + MIB, MIB, 512), ==, EIO);
    blk_close(n);
    format_check(f, path, false, 1, 0);
    format_check(f, path, true, 1, 0);
    memset(want + MIB, 0, MIB);
    format_check(f, path, false, 0, 0);
    format_same(f, &o, want, SIZE, NULL);
    format_peek(path, TABLE, entry, 4); /* twice the same block */
    format_poke(path, TABLE + 4, entry, 4);
    format_check(f, path, false, 1, 0);
}

static void test_hostile(void)
{
    static const struct {
        uint32_t offset, value;
        int code;
        const char *text;
    } all[] = {
        {0x40, 0, LODGE_ERROR_IMAGE, "magic 0 at offset 64"},
        {0x44, 0x00000001, LODGE_ERROR_UNSUPPORTED, "version 0x1 at offset 68"},
        {0x4c, 3, LODGE_ERROR_UNSUPPORTED, "image type 3 at offset 76"},
        {0x154, 0, LODGE_ERROR_IMAGE, "table offset 0 at offset 340"},
        {0x154, 0x1fff00, LODGE_ERROR_IMAGE, "is not at a sector"},
        {0x154, 0xfffffe00, LODGE_ERROR_IMAGE, "data offset 2097152 at offset 344"},
        {0x158, 4096, LODGE_ERROR_IMAGE, "data offset"},
        {0x158, 2097153, LODGE_ERROR_IMAGE, "data offset"},
        {0x168, 4096, LODGE_ERROR_IMAGE, "sector size 4096 at offset 360"},
        {0x170, 0x7fffffff, LODGE_ERROR_IMAGE, "does not fit a disk"},
        {0x174, 0x7fffffff, LODGE_ERROR_IMAGE, "a disk of"},
        {0x178, 0, LODGE_ERROR_IMAGE, "block size 0 at offset 376"},
        {0x178, 0x80000000, LODGE_ERROR_IMAGE, "block size"},
        {0x178, 0x00100001, LODGE_ERROR_IMAGE, "block size"},
        {0x17c, 1, LODGE_ERROR_IMAGE, "extra bytes of a block 1 at offset 380"},
        {0x17c, 0xfffffe00, LODGE_ERROR_IMAGE, "extra bytes"},
        {0x180, 0xffffffff, LODGE_ERROR_IMAGE, "data offset"},
        {0x180, 0, LODGE_ERROR_IMAGE, "table of 0 entries"},
    };
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "h.vdi");
    BlkOptions o = {.file = path, .format = "vdi"};
    BlkMake m = {.format = "vdi", .size = SIZE, .overwrite = true};

    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        uint8_t bytes[4];
        g_free(format_make(f, "h.vdi", &m, NULL));
        store_le32(bytes, all[i].value);
        format_poke(path, all[i].offset, bytes, 4);
        block_fix_refused(f, &o, all[i].code, all[i].text);
    }
    static const unsigned cuts[] = {100, 511, 4096, 4100};
    for (unsigned i = 0; i < G_N_ELEMENTS(cuts); i++) {
        g_free(format_make(f, "h.vdi", &m, NULL));
        g_assert_cmpint(truncate(path, cuts[i]), ==, 0);
        block_fix_refused(f, &o, LODGE_ERROR_IMAGE, "'");
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vdi/dynamic", test_dynamic);
    g_test_add_func("/vdi/fixed", test_fixed);
    g_test_add_func("/vdi/order", test_order);
    g_test_add_func("/vdi/qemu", test_qemu);
    g_test_add_func("/vdi/differencing", test_differencing);
    g_test_add_func("/vdi/search", test_search);
    g_test_add_func("/vdi/wrong_parent", test_wrong_parent);
    g_test_add_func("/vdi/resize", test_resize);
    g_test_add_func("/vdi/rebase", test_rebase);
    g_test_add_func("/vdi/check", test_check);
    g_test_add_func("/vdi/hostile", test_hostile);
    return g_test_run();
}
