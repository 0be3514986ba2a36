/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMDK images: data path, other programs, parents, descriptors, what is refused. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "formatfix.h"
#include "vmdk.h"

#define SIZE (UINT64_C(9) << 20 | 1536)
#define BIG (UINT64_C(70) << 20) /* three grain tables */

static void qemu_check(const char *path)
{
    g_autofree char *program = g_find_program_in_path("qemu-img");

    if (program)
        format_run("qemu-img", "check", "-f", "vmdk", path, NULL);
}

static void test_sparse(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vmdk", &(BlkMake){.format = "vmdk", .size = BIG},
                                        NULL);
    g_autofree char *copy = block_fix_path(f, "b.vmdk");
    g_autofree char *fact = format_fact(f, path, "subformat");
    g_autofree uint8_t *want = g_malloc0(BIG);
    BlkOptions o = {.file = path};

    g_assert_cmpstr(fact, ==, "monolithicSparse");
    qemu_check(path);
    format_storm(f, &o, want, BIG, 10);
    format_same(f, &o, want, BIG, "vmdk");
    format_scribble(f, &o, want, BIG, 11, 400);
    format_same(f, &o, want, BIG, "vmdk");
    format_check(f, path, false, 0, 0);
    qemu_check(path);
    g_autofree char *fresh = format_make(f, "k.vmdk", &(BlkMake){.format = "vmdk", .size = BIG},
                                         NULL);
    memset(want, 0, BIG);
    format_killed(f, &(BlkOptions){.file = fresh}, copy, want, BIG, 12);
    o.file = copy;
    format_same(f, &o, want, BIG, "vmdk");
    qemu_check(copy);
}

static void test_flat(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vmdk", &(BlkMake){.format = "vmdk", .size = SIZE},
                                        "subformat=monolithicFlat");
    g_autofree char *flat = block_fix_path(f, "a-flat.vmdk");
    g_autofree char *fact = format_fact(f, path, "subformat");
    g_autofree uint8_t *want = g_malloc0(40 * MIB);
    static const uint64_t sizes[] = {12 * MIB, 30 * MIB + 512, 5 * MIB, 9 * MIB};
    uint64_t old = SIZE;
    BlkOptions o = {.file = path};
    struct stat st;

    g_assert_cmpstr(fact, ==, "monolithicFlat");
    format_storm(f, &o, want, SIZE, 10);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        format_scribble(f, &o, want, old, 40 + i, 200);
        format_same(f, &o, want, old, "vmdk");
        format_check(f, path, false, 0, 0);
        if (sizes[i] < old)
            memset(want + sizes[i], 0, old - sizes[i]);
        format_resize(f, path, sizes[i], sizes[i] < old);
        old = sizes[i];
        g_assert_cmpint(stat(flat, &st), ==, 0);
        g_assert_cmpuint(st.st_size, ==, old);
        format_same(f, &o, want, old, "vmdk");
    }
}

/* The id of the contents changes at the first write since the image was opened, and only then. */
static void test_cid(void)
{
    static const char *const options[] = {NULL, "subformat=monolithicFlat"};
    g_autoptr(BlockFix) f = block_fix_new();

    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        g_autofree char *path =
            format_make(f, i ? "f.vmdk" : "s.vmdk", &(BlkMake){.format = "vmdk", .size = SIZE},
                        options[i]);
        g_autofree char *made = format_fact(f, path, "cid");
        uint8_t buf[512] = {1};
        blk_close(block_fix_open(f, &(BlkOptions){.file = path}));
        g_autofree char *opened = format_fact(f, path, "cid");
        g_assert_cmpstr(made, ==, opened);
        BlkNode *n = block_fix_open(f, &(BlkOptions){.file = path});
        g_assert_cmpint(blk_pwrite(n, buf, 0, 512), ==, 0);
        blk_close(n);
        g_autofree char *written = format_fact(f, path, "cid");
        g_assert_cmpstr(made, !=, written);
        g_assert_cmpuint(strlen(written), ==, 8);
    }
}

static void qemu_disk(const char *options)
{
    const uint64_t size = 40 * MIB;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "q.vmdk");
    g_autofree uint8_t *want = g_malloc0(size);
    BlkOptions o = {.file = path};

    if (!block_fix_need("qemu-img", "qemu-utils") || !block_fix_need("qemu-io", "qemu-utils"))
        return;
    format_run("qemu-img", "create", "-f", "vmdk", "-o", options, path, "40M", NULL);
    format_run("qemu-io", "-f", "vmdk", "-c", "write -P 7 100k 3M", "-c", "write -P 9 35M 512",
               path, NULL);
    memset(want + 102400, 7, 3 * MIB);
    memset(want + 35 * MIB, 9, 512);
    format_same(f, &o, want, size, "vmdk");
    format_scribble(f, &o, want, size, 21, 300);
    format_same(f, &o, want, size, "vmdk");
    format_run("qemu-io", "-f", "vmdk", "-c", "write -P 3 1M 9M", path, NULL);
    memset(want + MIB, 3, 9 * MIB);
    format_same(f, &o, want, size, "vmdk");
    format_check(f, path, false, 0, 0);
    qemu_check(path);
}

static void test_qemu(void)
{
    qemu_disk("subformat=monolithicSparse");
    qemu_disk("subformat=monolithicSparse,zeroed_grain=on");
    qemu_disk("subformat=monolithicFlat");
    qemu_disk("subformat=twoGbMaxExtentFlat");
}

static void test_packed(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *raw = block_fix_image(f, "a.img", 40 * MIB + 512, 0);
    g_autofree char *path = block_fix_path(f, "s.vmdk");
    g_autofree uint8_t *want = g_malloc0(40 * MIB + 512), *buf = g_malloc(65536);
    BlkOptions o = {.file = path};

    if (!block_fix_need("qemu-img", "qemu-utils"))
        return;
    format_scribble(f, &(BlkOptions){.file = raw, .format = "raw"}, want, 40 * MIB + 512, 61, 200);
    format_run("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, path,
               NULL);
    g_autofree char *fact = format_fact(f, path, "subformat");
    g_assert_cmpstr(fact, ==, "streamOptimized");
    format_same(f, &o, want, 40 * MIB + 512, NULL);
    format_check(f, path, false, 0, 0);
    block_fix_refused(f, &o, LODGE_ERROR_UNSUPPORTED, "for reading only");
    /* Damaged: the grain is lost, the rest is not. */
    o.read_only = true;
    BlkNode *n = block_fix_open(f, &o);
    uint64_t at = 0;
    BlkReq st = {.op = BLK_STATUS, .len = 40 * MIB};
    while (blk_wait(n, &st) == 0 && st.status != BLK_ST_DATA) {
        at += st.status_len;
        st = (BlkReq){.op = BLK_STATUS, .offset = at, .len = 40 * MIB - at};
    }
    blk_close(n);
    uint32_t sector;
    uint8_t head[512], dir[4];
    format_peek(path, 0, head, 512);
    format_peek(path, (int64_t)load_le64(head + SP_GD) * 512, dir, 4);
    format_peek(path, (int64_t)load_le32(dir) * 512 + (int64_t)(at / 65536 * 4), &sector, 4);
    static const struct {
        unsigned at;
        uint8_t byte;
    } damage[] = {{0, 0x55}, {11, 0xff}, {12, 0x01}};
    for (unsigned i = 0; i < G_N_ELEMENTS(damage); i++) {
        uint8_t old;
        int64_t where = (int64_t)sector * 512 + damage[i].at;
        format_peek(path, where, &old, 1);
        format_poke(path, where, &damage[i].byte, 1);
        n = block_fix_open(f, &o);
        g_assert_cmpint(blk_pread(n, buf, at, 512), ==, EIO);
        g_assert_cmpint(blk_pread(n, buf, 40 * MIB, 512), ==, 0);
        blk_close(n);
        format_poke(path, where, &old, 1);
    }
    /* As VMware writes it, a footer tells of the directory: marker, header, end of stream. */
    uint8_t tail[1536] = {1}, at_end[8];
    struct stat file;
    tail[12] = 3; /* type: footer */
    memcpy(tail + 512, head, 512);
    memset(at_end, 0xff, sizeof at_end);
    g_assert_cmpint(stat(path, &file), ==, 0);
    format_poke(path, file.st_size, tail, sizeof tail);
    format_poke(path, SP_GD, at_end, sizeof at_end);
    format_same(f, &o, want, 40 * MIB + 512, "vmdk");
}

/* ---- parents ---- */

static void test_overlay(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = format_make(f, "ba se.vmdk", &(BlkMake){.format = "vmdk", .size = SIZE},
                                        NULL);
    g_autofree uint8_t *below = g_malloc0(SIZE), *want = g_malloc(SIZE);
    g_autofree char *copy = block_fix_path(f, "copy.vmdk");
    g_autofree char *raw = block_fix_image(f, "base.img", SIZE, 1);
    uint8_t buf[512] = {1};

    format_scribble(f, &(BlkOptions){.file = base}, below, SIZE, 31, 100);
    memcpy(want, below, SIZE);
    BlkMake m = {.format = "vmdk", .base = base, .base_format = "vmdk"};
    g_autofree char *one = format_make(f, "one.vmdk", &m, NULL);
    BlkOptions o = {.file = one};
    format_same(f, &o, want, SIZE, "vmdk");
    format_storm(f, &o, want, SIZE, 30);
    format_same(f, &o, want, SIZE, "vmdk");
    format_scribble(f, &o, want, SIZE, 32, 500);
    format_same(f, &o, want, SIZE, "vmdk");
    format_check(f, one, false, 0, 0);
    format_killed(f, &o, copy, want, SIZE, 33);
    format_same(f, &(BlkOptions){.file = copy}, want, SIZE, "vmdk");
    format_make_refused(f, &(BlkMake){.format = "vmdk", .base = raw}, NULL, LODGE_ERROR_CONFIG,
                        "is raw");
    format_make_refused(f, &m, "subformat=monolithicFlat", LODGE_ERROR_CONFIG, "cannot be flat");
    BlkNode *n = block_fix_open(f, &(BlkOptions){.file = base});
    g_assert_cmpint(blk_pwrite(n, buf, 0, 512), ==, 0);
    blk_close(n);
    block_fix_refused(f, &o, LODGE_ERROR_CONFIG, "parentCID");
}

static void test_rebase(void)
{
    format_moved("vmdk", SIZE);
    format_rebase("vmdk", SIZE, "vmdk");
}

/* An overlay that qemu-img made. */
static void test_qemu_overlay(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = format_make(f, "base.vmdk", &(BlkMake){.format = "vmdk", .size = SIZE},
                                        NULL);
    g_autofree uint8_t *want = g_malloc0(SIZE);
    g_autofree char *one = block_fix_path(f, "one.vmdk");

    if (!block_fix_need("qemu-img", "qemu-utils"))
        return;
    format_scribble(f, &(BlkOptions){.file = base}, want, SIZE, 71, 100);
    format_run("qemu-img", "create", "-f", "vmdk", "-b", base, "-F", "vmdk", one, NULL);
    format_same(f, &(BlkOptions){.file = one}, want, SIZE, "vmdk");
    format_scribble(f, &(BlkOptions){.file = one}, want, SIZE, 72, 200);
    format_same(f, &(BlkOptions){.file = one}, want, SIZE, "vmdk");
}

/* ---- checks, hostile images ---- */

static void test_check(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vmdk", &(BlkMake){.format = "vmdk", .size = SIZE},
                                        NULL);
    g_autofree uint8_t *want = g_malloc(SIZE);
    BlkOptions o = {.file = path};
    uint8_t head[512], dir[4], entry[4];

    memset(want, 6, SIZE);
    BlkNode *n = block_fix_open(f, &o);
    g_assert_cmpint(blk_pwrite(n, want, 0, SIZE), ==, 0);
    blk_close(n);
    format_check(f, path, false, 0, 0);
    format_peek(path, 0, head, 512);
    format_peek(path, (int64_t)load_le64(head + SP_RGD) * 512, dir, 4);
    store_le32(entry, 0x12345);
    format_poke(path, (int64_t)load_le32(dir) * 512 + 8, entry, 4); /* the copy */
    format_check(f, path, false, 0, 1);
    format_check(f, path, true, 0, 1);
    format_check(f, path, false, 0, 0);
    struct stat st;
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(truncate(path, st.st_size + 3 * 65536), ==, 0);
    format_check(f, path, true, 0, 1);
    format_check(f, path, false, 0, 0);
    format_peek(path, (int64_t)load_le64(head + SP_GD) * 512, dir, 4);
    store_le32(entry, 0x7fffffff);
    format_poke(path, (int64_t)load_le32(dir) * 512 + 8, entry, 4);
    n = block_fix_open(f, &o);
    g_assert_cmpint(blk_pread(n, want, 2 * 65536, 512), ==, EIO);
    blk_close(n);
    format_check(f, path, true, 1, 1);
    format_check(f, path, false, 0, 0);
    memset(want, 6, 512);
    memset(want + 2 * 65536, 0, 65536);
    format_same(f, &o, want, SIZE, "vmdk");
}

static void test_hostile(void)
{
    static const struct {
        unsigned offset, len;
        uint64_t value;
        int code;
        const char *text;
    } all[] = {
        {SP_VERSION, 4, 4, LODGE_ERROR_UNSUPPORTED, "version 4 at offset 4"},
        {SP_FLAGS, 4, 0x30003, LODGE_ERROR_UNSUPPORTED, "compression 0 at offset 77"},
        {SP_CAPACITY, 8, 0, LODGE_ERROR_IMAGE, "capacity 0 at offset 12"},
        {SP_CAPACITY, 8, UINT64_MAX, LODGE_ERROR_IMAGE, "capacity"},
        {SP_CAPACITY, 8, UINT64_C(1) << 50, LODGE_ERROR_IMAGE, "capacity"},
        {SP_CAPACITY, 8, UINT64_C(1) << 17, LODGE_ERROR_UNSUPPORTED, "has no table for entry 1"},
        {SP_CAPACITY, 8, UINT64_C(1) << 30, LODGE_ERROR_IMAGE, "grain directory outside"},
        {SP_GRAIN, 8, 0, LODGE_ERROR_IMAGE, "grain size 0 at offset 20"},
        {SP_GRAIN, 8, 127, LODGE_ERROR_IMAGE, "grain size"},
        {SP_GRAIN, 8, UINT64_C(1) << 40, LODGE_ERROR_IMAGE, "grain size"},
        {SP_TEXT, 8, 0, LODGE_ERROR_UNSUPPORTED, "no descriptor at offset 28"},
        {SP_TEXT, 8, UINT64_MAX, LODGE_ERROR_IMAGE, "descriptor outside"},
        {SP_TEXT, 8, 1 << 20, LODGE_ERROR_IMAGE, "lies outside of the file"},
        {SP_TEXT_SIZE, 8, UINT64_MAX, LODGE_ERROR_IMAGE, "descriptor outside"},
        {SP_TEXT_SIZE, 8, 0, LODGE_ERROR_IMAGE, "descriptor of 0 bytes"},
        {SP_GTES, 4, 1, LODGE_ERROR_IMAGE, "grain tables of 1 entries at offset 44"},
        {SP_RGD, 8, 1 << 20, LODGE_ERROR_IMAGE, "grain directory outside of the file"},
        {SP_GD, 8, 0, LODGE_ERROR_IMAGE, "grain directory outside of the file"},
        {SP_GD, 8, UINT64_MAX - 1, LODGE_ERROR_IMAGE, "grain directory outside of the file"},
        {SP_GD, 8, UINT64_MAX, LODGE_ERROR_IMAGE, "magic"},
        {SP_GD, 8, 1, LODGE_ERROR_IMAGE, "overlap at offset 512"},
        {SP_GD, 8, 21, LODGE_ERROR_IMAGE, "overlap at offset 10752"},
        {SP_TEXT_SIZE, 8, 30, LODGE_ERROR_IMAGE, "overlap at offset"},
        {SP_OVERHEAD, 8, UINT64_MAX, LODGE_ERROR_IMAGE, "overhead past the end"},
    };
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "h.vmdk");
    BlkOptions o = {.file = path, .format = "vmdk"};
    BlkMake m = {.format = "vmdk", .size = SIZE, .overwrite = true};

    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        uint8_t bytes[8];
        g_free(format_make(f, "h.vmdk", &m, NULL));
        store_le64(bytes, all[i].value);
        format_poke(path, all[i].offset, bytes, all[i].len);
        block_fix_refused(f, &o, all[i].code, all[i].text);
    }
    static const unsigned cuts[] = {100, 512, 4096, 30000};
    for (unsigned i = 0; i < G_N_ELEMENTS(cuts); i++) {
        g_free(format_make(f, "h.vmdk", &m, NULL));
        g_assert_cmpint(truncate(path, cuts[i]), ==, 0);
        block_fix_refused(f, &o, LODGE_ERROR_IMAGE, "'");
    }
}

#define HEAD "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
#define FLAT HEAD "createType=\"monolithicFlat\"\n"

static void test_descriptors(void)
{
    static const struct {
        const char *text;
        int code;
        const char *says;
    } all[] = {
        {HEAD, LODGE_ERROR_IMAGE, "has no createType"},
        {FLAT, LODGE_ERROR_IMAGE, "names no extent"},
        {HEAD "createType=\"twoGbMaxExtentSparse\"\nRW 8 SPARSE \"a.img\"\n",
         LODGE_ERROR_UNSUPPORTED, "createType twoGbMaxExtentSparse"},
        {HEAD "createType=\"monolithicFlat\nRW 8 FLAT \"a.img\" 0", LODGE_ERROR_IMAGE,
         "has no createType"},
        {FLAT "RW 8 FLAT \"/etc/passwd\" 0\n", LODGE_ERROR_IMAGE,
         "'/etc/passwd' at offset 92: must name a file beside"},
        {FLAT "RW 8 FLAT \"x/../../a.img\" 0\n", LODGE_ERROR_IMAGE, "must name a file beside"},
        {FLAT "RW 8 FLAT \"..\" 0\n", LODGE_ERROR_IMAGE, "must name a file beside"},
        {FLAT "RW 8 FLAT\n", LODGE_ERROR_IMAGE, "must name a file beside"},
        {FLAT "RW 8 FLAT \"fifo\" 0\n", LODGE_ERROR_CONFIG, "is no regular file"},
        {FLAT "RW 8 FLAT \"gone.img\" 0\n", LODGE_ERROR_CONFIG, "extent at offset 92"},
        {FLAT "RW 8 FLAT \"a.img", LODGE_ERROR_IMAGE, "extent at offset 92: cannot be read"},
        {FLAT "RW 99999999999999999999 FLAT \"a.img\" 0\n", LODGE_ERROR_IMAGE, "cannot be read"},
        {FLAT "RW 9223372036854775807 FLAT \"a.img\" 0\n", LODGE_ERROR_IMAGE, "cannot be read"},
        {FLAT "RW 0 FLAT \"a.img\" 0\n", LODGE_ERROR_IMAGE, "cannot be read"},
        {FLAT "RW -8 FLAT \"a.img\" 0\n", LODGE_ERROR_IMAGE, "cannot be read"},
        {FLAT "RW 8 FLAT \"a.img\" 9007199254740991\n", LODGE_ERROR_IMAGE, "is cut off"},
        {FLAT "RW 100 FLAT \"a.img\" 0\n", LODGE_ERROR_IMAGE, "is cut off"},
        {FLAT "RW 8 FLAT \"h.vmdk\" 0\n", LODGE_ERROR_BUSY, "h.vmdk"},
        {FLAT "RW 8 VMFSRDM \"a.img\" 0\n", LODGE_ERROR_UNSUPPORTED, "type VMFSRDM"},
        {FLAT "RDONLY 8 FLAT \"a.img\" 0\n", LODGE_ERROR_IMAGE, "may not be written"},
        {FLAT "RW 8 FLAT \"a.img\" 0\nRW 8 FLAT \"a.img\" 8\n", LODGE_ERROR_BUSY, "a.img"},
        {FLAT "CID=123456789\n", LODGE_ERROR_IMAGE, "CID at offset 92"},
        {FLAT "parentCID=1\nRW 8 FLAT \"a.img\" 0\n", LODGE_ERROR_IMAGE, "no parentFileNameHint"},
        {FLAT "parentCID=1\nparentFileNameHint=\"/dev/zero\"\nRW 8 FLAT \"a.img\" 0\n",
         LODGE_ERROR_CONFIG, "parentFileNameHint at offset 104 names '/dev/zero'"},
    };
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "h.vmdk"), *fifo = block_fix_path(f, "fifo");
    BlkOptions o = {.file = path};
    uint8_t buf[4096] = {0};

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    g_free(block_fix_image(f, "a.img", 8192, 3));
    g_free(block_fix_image(f, "b.img", 8192, 4));
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        g_assert_true(g_file_set_contents(path, all[i].text, -1, NULL));
        block_fix_refused(f, &o, all[i].code, all[i].says);
    }
    /* What lies behind a zero byte never becomes a part of it, however long a new CID makes it. */
    static const char hidden[] = "# Disk DescriptorFile\ncreateType=\"monolithicFlat\"\n"
                                 "RW 8 FLAT \"a.img\" 0\n\0some bytes\n"
                                 "RW 8 NONSENSE \"x\"\nRW 8 NONSENSE \"x\"\n";
    g_assert_true(g_file_set_contents(path, hidden, sizeof hidden - 1, NULL));
    for (unsigned i = 0; i < 2; i++) {
        BlkNode *h = block_fix_open(f, &o);
        g_assert_cmpuint(h->limits.size, ==, 4096);
        g_assert_cmpint(blk_pwrite(h, buf, 0, 512), ==, 0);
        g_assert_cmpint(blk_flush(h), ==, 0);
        blk_close(h);
    }
    g_free(block_fix_image(f, "a.img", 8192, 3));
    /* Read-only, the same file twice and the image itself get through the locks. */
    o.read_only = true;
    g_assert_true(g_file_set_contents(
        path, FLAT "RW 8 FLAT \"a.img\" 0\nRW 8 FLAT \"a.img\" 8\n", -1, NULL));
    block_fix_refused(f, &o, LODGE_ERROR_IMAGE, "named twice");
    g_assert_true(g_file_set_contents(path, FLAT "RW 1 FLAT \"h.vmdk\" 0\n", -1, NULL));
    block_fix_refused(f, &o, LODGE_ERROR_IMAGE, "is the image itself");
    /* As VMware writes it: more spaces, CRs, zeros between two files. */
    o.read_only = false;
    g_assert_true(g_file_set_contents(path,
                                      FLAT "RW  8\tFLAT \"a.img\" 2\r\nRW 8 ZERO\r\n"
                                           "RW 4 VMFS \"./b.img\"\r\n# end",
                                      -1, NULL));
    BlkNode *n = block_fix_open(f, &o);
    g_assert_cmpuint(n->limits.size, ==, 20 * 512);
    g_assert_cmpint(blk_pread(n, buf, 3072, 4096), ==, 0);
    g_assert_cmpuint(buf[1], ==, block_fix_byte(4097, 3));
    g_assert_cmpuint(buf[1024], ==, 0);
    g_assert_cmpint(blk_pread(n, buf, 8192 - 512, 1024), ==, 0);
    g_assert_cmpuint(buf[512], ==, block_fix_byte(0, 4));
    g_assert_cmpint(blk_pwrite(n, buf, 8192 - 512, 512), ==, EIO);
    g_assert_cmpint(blk_pwrite(n, buf, 8192, 512), ==, 0);
    g_assert_cmpint(blk_flush(n), ==, 0);
    blk_close(n);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vmdk/sparse", test_sparse);
    g_test_add_func("/vmdk/flat", test_flat);
    g_test_add_func("/vmdk/cid", test_cid);
    g_test_add_func("/vmdk/qemu", test_qemu);
    g_test_add_func("/vmdk/packed", test_packed);
    g_test_add_func("/vmdk/overlay", test_overlay);
    g_test_add_func("/vmdk/rebase", test_rebase);
    g_test_add_func("/vmdk/qemu_overlay", test_qemu_overlay);
    g_test_add_func("/vmdk/check", test_check);
    g_test_add_func("/vmdk/hostile", test_hostile);
    g_test_add_func("/vmdk/descriptors", test_descriptors);
    return g_test_run();
}
