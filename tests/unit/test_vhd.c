/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VHD images: data path, other programs, parents, changes of size, what is refused. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "formatfix.h"
#include "vhd.h"

/* Not a multiple of the block, nor of what a geometry can say. */
#define SIZE (UINT64_C(9) << 20 | 1536)

static void new_disk(const char *options, const char *subformat)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vhd", &(BlkMake){.format = "vhd", .size = SIZE},
                                        options);
    g_autofree char *copy = block_fix_path(f, "b.vhd");
    g_autofree char *fact = format_fact(f, path, "subformat");
    g_autofree uint8_t *want = g_malloc0(SIZE);
    BlkOptions o = {.file = path};

    g_assert_cmpstr(fact, ==, subformat);
    format_same(f, &o, want, SIZE, "vpc");
    format_storm(f, &o, want, SIZE, 10);
    format_same(f, &o, want, SIZE, "vpc");
    format_scribble(f, &o, want, SIZE, 11, 600);
    format_same(f, &o, want, SIZE, "vpc");
    format_check(f, path, false, 0, 0);
    if (options)
        return;
    g_autofree char *fresh = format_make(f, "k.vhd", &(BlkMake){.format = "vhd", .size = SIZE},
                                         options);
    memset(want, 0, SIZE);
    format_killed(f, &(BlkOptions){.file = fresh}, copy, want, SIZE, 12);
    o.file = copy;
    format_same(f, &o, want, SIZE, "vpc");
}

static void test_dynamic(void)
{
    new_disk(NULL, "dynamic");
}

static void test_fixed(void)
{
    new_disk("subformat=fixed", "fixed");
}

/* Blocks come only when they are written, and zeros take none. */
static void test_growth(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path =
        format_make(f, "a.vhd", &(BlkMake){.format = "vhd", .size = 2040 * GIB}, NULL);
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = path});
    const uint64_t table = 2040 * GIB / VHD_BLOCK * 4, span = VHD_BLOCK + 512;
    uint8_t buf[512] = {1}, footer[512], entry[4];
    BlkReq zero = {.op = BLK_ZERO, .len = GIB};
    struct stat st;

    g_assert_cmpint(blk_wait(n, &zero), ==, 0);
    g_assert_cmpint(blk_pwrite(n, buf, 2039 * GIB, 512), ==, 0);
    g_assert_cmpint(blk_pwrite(n, buf, 5 * VHD_BLOCK - 512, 512), ==, 0);
    /* Not before a flush does the table speak of the blocks. */
    format_peek(path, 1536 + 4 * 4, entry, 4);
    g_assert_cmpuint(load_be32(entry), ==, VHD_NONE);
    g_assert_cmpint(blk_flush(n), ==, 0);
    format_peek(path, 1536 + 4 * 4, entry, 4);
    g_assert_cmpuint(load_be32(entry), ==, (1536 + table + span) / 512);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint(st.st_size, ==, 1536 + table + 2 * span + 512);
    format_peek(path, -512, footer, 512);
    g_assert_cmpmem(footer, 8, "conectix", 8);
    format_peek(path, 0, buf, 512);
    g_assert_cmpmem(footer, 512, buf, 512);
}

static void qemu_disk(const char *options, uint64_t size)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "q.vhd");
    g_autofree uint8_t *want = g_malloc0(size);
    g_autofree char *bytes = g_strdup_printf("%" G_GUINT64_FORMAT, size);
    BlkOptions o = {.file = path};

    if (!block_fix_need("qemu-img", "qemu-utils") || !block_fix_need("qemu-io", "qemu-utils"))
        return;
    format_run("qemu-img", "create", "-f", "vpc", "-o", options, path, bytes, NULL);
    format_run("qemu-io", "-f", "vpc", "-c", "write -P 7 100k 3M", "-c", "write -P 9 0 512", path,
               NULL);
    memset(want + 102400, 7, 3 * MIB);
    memset(want, 9, 512);
    format_same(f, &o, want, size, "vpc");
    format_scribble(f, &o, want, size, 21, 300);
    format_same(f, &o, want, size, "vpc");
    format_run("qemu-io", "-f", "vpc", "-c", "write -P 3 1M 5M", path, NULL);
    memset(want + MIB, 3, 5 * MIB);
    format_same(f, &o, want, size, "vpc");
    format_check(f, path, false, 0, 0);
}

/* With its own option QEMU means the size, without it the geometry. */
static void test_qemu(void)
{
    qemu_disk("force_size=on", 10 * MIB + 4096);
    qemu_disk("subformat=fixed,force_size=on", 8 * MIB);
    qemu_disk("subformat=dynamic", UINT64_C(1) * 301 * 4 * 17 * 512); /* a geometry */
}

static void reseal(const char *path)
{
    uint8_t f[512];

    for (unsigned i = 0; i < 2; i++) {
        int64_t at = i ? -512 : 0;
        format_peek(path, at, f, 512);
        if (memcmp(f, VHD_COOKIE, 8) != 0)
            continue;
        store_be32(f + FT_CHECKSUM, vhd_checksum(f, 512, FT_CHECKSUM));
        format_poke(path, at, f, 512);
    }
}

static void test_geometry(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vhd", &(BlkMake){.format = "vhd", .size = SIZE},
                                        NULL);
    g_autofree char *chs = format_fact(f, path, "geometry-size");
    BlkOptions o = {.file = path};
    BlkLimits l;
    static const struct {
        const char *creator;
        bool by_geometry;
    } all[] = {{"vpc ", true}, {"qemu", true}, {"vs  ", true}, {"qem2", false}, {"win ", false},
               {"d2v ", false}, {"vbox", false}};

    g_assert_cmpuint(g_ascii_strtoull(chs, NULL, 10), <, SIZE);
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        format_poke(path, FT_CREATOR, all[i].creator, 4);
        format_poke(path, -512 + FT_CREATOR, all[i].creator, 4);
        reseal(path);
        BlkNode *n = block_fix_open(f, &o);
        blk_limits(n, &l);
        blk_close(n);
        g_assert_cmpuint(l.size, ==,
                         all[i].by_geometry ? g_ascii_strtoull(chs, NULL, 10) : SIZE);
    }
}

/* ---- parents ---- */

static void test_differencing(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = format_make(f, "ba se.vhd", &(BlkMake){.format = "vhd", .size = SIZE},
                                        NULL);
    g_autofree uint8_t *below = g_malloc0(SIZE), *want = g_malloc(SIZE);
    g_autofree char *copy = block_fix_path(f, "copy.vhd");
    uint8_t id[16], parent[16];

    format_scribble(f, &(BlkOptions){.file = base}, below, SIZE, 31, 100);
    memcpy(want, below, SIZE);
    BlkMake m = {.format = "vhd", .base = base, .base_format = "vhd"};
    g_autofree char *one = format_make(f, "one.vhd", &m, NULL);
    BlkOptions o = {.file = one};
    format_same(f, &o, want, SIZE, NULL);
    format_storm(f, &o, want, SIZE, 30);
    format_same(f, &o, want, SIZE, NULL);
    format_scribble(f, &o, want, SIZE, 32, 500);
    format_same(f, &o, want, SIZE, NULL);
    format_check(f, one, false, 0, 0);
    format_peek(base, -512 + FT_ID, id, 16);
    format_peek(one, VHD_HEADER_AT + HD_PARENT_ID, parent, 16);
    g_assert_cmpmem(id, 16, parent, 16);
    format_killed(f, &o, copy, want, SIZE, 33);
    /* A chain of three; the base is as it was. */
    format_same(f, &(BlkOptions){.file = copy}, want, SIZE, NULL);
    BlkMake m2 = {.format = "vhd", .base = copy, .base_format = "vhd"};
    g_autofree char *two = format_make(f, "two.vhd", &m2, NULL);
    format_scribble(f, &(BlkOptions){.file = two}, want, SIZE, 34, 200);
    format_same(f, &(BlkOptions){.file = two}, want, SIZE, NULL);
    format_same(f, &(BlkOptions){.file = base}, below, SIZE, "vpc");
}

/* The forms in which a parent's path may be said, by whoever made the image. */
static void test_locators(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = format_make(f, "b\303\244se 1.vhd",
                                        &(BlkMake){.format = "vhd", .size = SIZE}, NULL);
    BlkMake m = {.format = "vhd", .base = base, .base_format = "vhd"};
    g_autofree char *one = format_make(f, "one.vhd", &m, NULL);
    uint8_t loc[2 * LOC_BYTES], none[4] = {0}, header[VHD_HEADER];

    format_peek(one, VHD_HEADER_AT + HD_LOCATORS, loc, sizeof loc);
    /* An absolute one for Windows and a URL; each serves alone, then the bare name does. */
    g_assert_cmpuint(load_be32(loc), ==, VHD_W2KU);
    g_assert_cmpuint(load_be32(loc + LOC_BYTES), ==, VHD_MACX);
    for (unsigned i = 0; i < 3; i++) {
        format_poke(one, VHD_HEADER_AT + HD_LOCATORS, i == 0 ? loc : none, 4);
        format_poke(one, VHD_HEADER_AT + HD_LOCATORS + LOC_BYTES, i == 1 ? loc + LOC_BYTES : none,
                    4);
        format_peek(one, VHD_HEADER_AT, header, VHD_HEADER);
        store_be32(header + HD_CHECKSUM, vhd_checksum(header, VHD_HEADER, HD_CHECKSUM));
        format_poke(one, VHD_HEADER_AT, header, VHD_HEADER);
        BlkNode *n = block_fix_open(f, &(BlkOptions){.file = one});
        g_assert_true(i == 2 ? g_str_has_suffix(n->ref.path, "se 1.vhd") && n->ref.path[0] != '/'
                             : strcmp(n->ref.path, base) == 0);
        blk_close(n);
    }
    /* A relative one of Windows goes first. */
    static const uint8_t relative[] = ".\0\\\0n\0o\0.\0v\0h\0d\0";
    format_poke(one, (int64_t)load_be64(loc + LOC_OFFSET), relative, sizeof relative - 1);
    store_be32(loc, VHD_W2RU);
    store_be32(loc + LOC_LENGTH, sizeof relative - 1);
    format_poke(one, VHD_HEADER_AT + HD_LOCATORS, loc, sizeof loc);
    format_peek(one, VHD_HEADER_AT, header, VHD_HEADER);
    store_be32(header + HD_CHECKSUM, vhd_checksum(header, VHD_HEADER, HD_CHECKSUM));
    format_poke(one, VHD_HEADER_AT, header, VHD_HEADER);
    block_fix_refused(f, &(BlkOptions){.file = one}, LODGE_ERROR_CONFIG, "/no.vhd'");
}

static void test_wrong_parent(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    BlkMake plain = {.format = "vhd", .size = SIZE};
    g_autofree char *base = format_make(f, "base.vhd", &plain, NULL);
    g_autofree char *other = format_make(f, "other.vhd", &plain, NULL);
    g_autofree char *raw = block_fix_image(f, "base.img", SIZE, 1);
    BlkMake m = {.format = "vhd", .base = base, .base_format = "vhd"};
    g_autofree char *one = format_make(f, "one.vhd", &m, NULL);
    struct utimbuf old = {1000000000, 1000000000};
    struct stat st;

    format_make_refused(f, &(BlkMake){.format = "vhd", .base = raw}, NULL, LODGE_ERROR_CONFIG,
                        "is raw");
    format_make_refused(f, &(BlkMake){.format = "vhd", .base = base, .base_format = "vhd",
                                      .size = SIZE + 512},
                        NULL, LODGE_ERROR_CONFIG, "has the size of its base");
    format_make_refused(f, &m, "subformat=fixed", LODGE_ERROR_CONFIG, "cannot be fixed");
    format_make_refused(f, &plain, "subformat=wow", LODGE_ERROR_CONFIG, "can be dynamic or fixed");
    block_fix_refused(f, &(BlkOptions){.file = one, .base = other}, LODGE_ERROR_CONFIG,
                      "parent id at offset 552");
    g_assert_cmpint(stat(base, &st), ==, 0);
    utime(base, &old);
    block_fix_refused(f, &(BlkOptions){.file = one}, LODGE_ERROR_CONFIG,
                      "parent time at offset 568");
    struct utimbuf back = {st.st_mtime, st.st_mtime};
    utime(base, &back);
    blk_close(block_fix_open(f, &(BlkOptions){.file = one}));
    g_assert_cmpint(rename(other, base), ==, 0);
    block_fix_refused(f, &(BlkOptions){.file = one}, LODGE_ERROR_CONFIG,
                      "parent id at offset 552");
}

/* ---- changes at rest ---- */

static void test_resize(void)
{
    format_resizes("vhd", NULL, SIZE, 290 * MIB, "vpc", NULL);
    format_resizes("vhd", "subformat=fixed", SIZE, 290 * MIB, "vpc", NULL);
}

static void test_rebase(void)
{
    format_moved("vhd", SIZE);
    format_rebase("vhd", SIZE, "vpc");
}

/* ---- checks ---- */

static void test_check(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vhd", &(BlkMake){.format = "vhd", .size = SIZE},
                                        NULL);
    g_autofree uint8_t *want = g_malloc0(SIZE);
    BlkOptions o = {.file = path};
    uint8_t entry[4], junk[1024] = {1};

    memset(want, 6, SIZE);
    BlkNode *n = block_fix_open(f, &o);
    g_assert_cmpint(blk_pwrite(n, want, 0, SIZE), ==, 0);
    blk_close(n);
    format_check(f, path, false, 0, 0);
    format_poke(path, 100, junk, 1); /* the copy of the footer */
    format_check(f, path, false, 1, 0);
    format_check(f, path, true, 1, 0);
    format_check(f, path, false, 0, 0);
    format_poke(path, -512, junk, 1); /* the footer, and what then is behind it */
    format_check(f, path, false, 0, 1);
    format_check(f, path, true, 0, 1);
    format_check(f, path, false, 0, 0);
    store_be32(entry, 0x7fffffff);
    format_poke(path, 1536 + 4, entry, 4);
    format_check(f, path, false, 1, 0);
    n = block_fix_open(f, &o);
    g_assert_cmpint(blk_pread(n, want, VHD_BLOCK, 512), ==, EIO);
    g_assert_cmpint(blk_pwrite(n, want, VHD_BLOCK, 512), ==, EIO);
    blk_close(n);
    format_check(f, path, true, 1, 0);
    memset(want + VHD_BLOCK, 0, VHD_BLOCK);
    format_check(f, path, false, 0, 0);
    format_same(f, &o, want, SIZE, NULL);
    format_peek(path, 1536, entry, 4); /* twice the same block */
    format_poke(path, 1536 + 4, entry, 4);
    format_check(f, path, false, 1, 0);
}

/* ---- hostile images ---- */

typedef struct Hostile {
    uint32_t offset, len;
    uint64_t value;
    int code;
    const char *text;
} Hostile;

static void fresh(BlockFix *f)
{
    BlkMake m = {.format = "vhd", .size = SIZE, .overwrite = true};

    g_free(format_make(f, "h.vhd", &m, NULL));
}

static void test_hostile(void)
{
    static const Hostile all[] = {
        {FT_VERSION, 4, 0x00020000, LODGE_ERROR_UNSUPPORTED, "version 0x20000 at offset 12"},
        {FT_TYPE, 4, 7, LODGE_ERROR_UNSUPPORTED, "disk type 7 at offset 60"},
        {FT_SIZE, 8, 0, LODGE_ERROR_IMAGE, "at offset 48"},
        {FT_SIZE, 8, UINT64_MAX & ~UINT64_C(511), LODGE_ERROR_IMAGE, "at offset 48"},
        {FT_SIZE, 8, 1000, LODGE_ERROR_IMAGE, "at offset 48"},
        {FT_SIZE, 8, UINT64_C(1) << 40, LODGE_ERROR_IMAGE, "does not fit a disk"},
        {FT_DATA, 8, UINT64_MAX, LODGE_ERROR_UNSUPPORTED, "data offset"},
        {512 + HD_COOKIE, 4, 0, LODGE_ERROR_IMAGE, "header at offset 512: its cookie"},
        {512 + HD_VERSION, 4, 0, LODGE_ERROR_UNSUPPORTED, "header: version 0x0 at offset 536"},
        {512 + HD_TABLE, 8, UINT64_MAX - 511, LODGE_ERROR_IMAGE, "past the end of the file"},
        {512 + HD_TABLE, 8, 1537, LODGE_ERROR_IMAGE, "is not at a sector"},
        {512 + HD_TABLE, 8, 512, LODGE_ERROR_IMAGE, "lies in the header"},
        {512 + HD_ENTRIES, 4, 0xffffffff, LODGE_ERROR_IMAGE, "table of 4294967295 entries"},
        {512 + HD_ENTRIES, 4, 1 << 20, LODGE_ERROR_IMAGE, "past the end of the file"},
        {512 + HD_ENTRIES, 4, 0, LODGE_ERROR_IMAGE, "table of 0 entries"},
        {512 + HD_BLOCK, 4, 0, LODGE_ERROR_IMAGE, "block size 0 at offset 544"},
        {512 + HD_BLOCK, 4, 0x80000000, LODGE_ERROR_IMAGE, "block size"},
        {512 + HD_BLOCK, 4, 3 << 20, LODGE_ERROR_IMAGE, "block size"},
    };
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "h.vhd");
    BlkOptions o = {.file = path, .format = "vhd"};

    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        const Hostile *h = &all[i];
        uint8_t bytes[8], header[VHD_HEADER];
        fresh(f);
        store_be64(bytes, h->len == 8 ? h->value : h->value << 32);
        format_poke(path, h->offset, bytes, h->len);
        if (h->offset < 512)
            format_poke(path, -512 + (int64_t)h->offset, bytes, h->len);
        reseal(path);
        format_peek(path, VHD_HEADER_AT, header, VHD_HEADER);
        store_be32(header + HD_CHECKSUM, vhd_checksum(header, VHD_HEADER, HD_CHECKSUM));
        format_poke(path, VHD_HEADER_AT, header, VHD_HEADER);
        block_fix_refused(f, &o, h->code, h->text);
    }
    /* Cut off at every kind of place. */
    static const unsigned cuts[] = {511, 512, 1000, 1536, 1540};
    for (unsigned i = 0; i < G_N_ELEMENTS(cuts); i++) {
        fresh(f);
        g_assert_cmpint(truncate(path, cuts[i]), ==, 0);
        block_fix_refused(f, &o, LODGE_ERROR_IMAGE, "'");
    }
    g_autofree char *fixed = format_make(f, "f.vhd", &(BlkMake){.format = "vhd", .size = MIB},
                                         "subformat=fixed");
    uint8_t footer[512];
    format_peek(fixed, -512, footer, 512);
    g_assert_cmpint(truncate(fixed, MIB - 512), ==, 0);
    format_poke(fixed, MIB - 512, footer, 512);
    block_fix_refused(f, &(BlkOptions){.file = fixed}, LODGE_ERROR_IMAGE, "but the file has");
    /* A fixed disk has no copy: what its guest writes at the start is no footer. */
    format_poke(fixed, 0, footer, 512);
    format_poke(fixed, -512, "X", 1);
    block_fix_refused(f, &(BlkOptions){.file = fixed}, LODGE_ERROR_IMAGE, "neither a footer");
}

/* Images of before Virtual PC 2004, whose footer ends one byte early. */
static void test_old_footer(gconstpointer data)
{
    const char *options = data;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = format_make(f, "a.vhd", &(BlkMake){.format = "vhd", .size = MIB},
                                        options);
    g_autofree uint8_t *want = g_malloc0(MIB);
    BlkOptions o = {.file = path};
    struct stat st;

    format_scribble(f, &o, want, MIB, 3, 40);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(truncate(path, st.st_size - 1), ==, 0);
    BlkNode *n = block_fix_open(f, &(BlkOptions){.file = path, .read_only = true});
    g_assert_cmpstr(blk_format(n), ==, "vhd");
    blk_close(n);
    format_same(f, &o, want, MIB, NULL);
    format_check(f, path, false, 0, 0);
    format_scribble(f, &o, want, MIB, 4, 60);
    format_same(f, &o, want, MIB, NULL);
    format_check(f, path, false, 0, 0);
    format_resize(f, path, 2 * MIB, false);
    format_check(f, path, false, 0, 0);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size % BLK_SECTOR, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vhd/dynamic", test_dynamic);
    g_test_add_func("/vhd/fixed", test_fixed);
    g_test_add_data_func("/vhd/old-footer/fixed", "subformat=fixed", test_old_footer);
    g_test_add_data_func("/vhd/old-footer/dynamic", NULL, test_old_footer);
    g_test_add_func("/vhd/growth", test_growth);
    g_test_add_func("/vhd/qemu", test_qemu);
    g_test_add_func("/vhd/geometry", test_geometry);
    g_test_add_func("/vhd/differencing", test_differencing);
    g_test_add_func("/vhd/locators", test_locators);
    g_test_add_func("/vhd/wrong_parent", test_wrong_parent);
    g_test_add_func("/vhd/resize", test_resize);
    g_test_add_func("/vhd/rebase", test_rebase);
    g_test_add_func("/vhd/check", test_check);
    g_test_add_func("/vhd/hostile", test_hostile);
    return g_test_run();
}
