/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Images that end before their file system does. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"
#include "medium.h"

#define BLOCK 2048u
#define VOLUME (16 * BLOCK)
#define SECTOR 512u

/* Two descriptors, a boot record before the primary one, of @blocks of @unit bytes. */
static void make_cd(uint8_t *d, size_t len, uint32_t blocks, uint16_t unit)
{
    uint8_t *p = d + VOLUME + BLOCK;

    memset(d, 0, len);
    memcpy(d + VOLUME, "\0CD001\1", 7);
    memcpy(p, "\1CD001\1", 7);
    store_le32(p + 80, blocks);
    store_be32(p + 84, blocks);
    store_le16(p + 128, unit);
    store_be16(p + 130, unit);
}

static void make_floppy(uint8_t *d, size_t len, uint16_t sectors)
{
    memset(d, 0, len);
    memcpy(d, "\xeb\x3c\x90", 3);
    store_le16(d + 11, SECTOR);
    d[13] = 1;
    store_le16(d + 14, 1);
    d[16] = 2;
    store_le16(d + 19, sectors);
    d[21] = 0xf0;
}

/* Whether a drive of @kind takes these @len bytes; refused: for @why. */
static bool taken(char kind, const void *data, size_t len, const char *why)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_path(f, "image");
    g_autoptr(GError) error = NULL;
    bool ok;

    g_assert_true(g_file_set_contents(path, data, (gssize)len, NULL));
    BlkNode *n = block_fix_open(f, &(BlkOptions){.file = path, .format = "raw", .read_only = true});
    ok = medium_check(kind, n, path, &error);
    if (!ok) {
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_assert_nonnull(strstr(error->message, path));
        g_assert_nonnull(strstr(error->message, why));
    }
    blk_close(n);
    return ok;
}

static void test_cd(void)
{
    static uint8_t d[40 * BLOCK];

    make_cd(d, sizeof d, 40, BLOCK);
    g_assert_true(taken('d', d, sizeof d, ""));
    g_assert_false(taken('d', d, sizeof d - 1024, "cut off"));
    g_assert_false(taken('d', d, 18 * BLOCK, "81920 bytes, the image 36864"));
    g_assert_true(taken('c', d, 18 * BLOCK, ""));
    make_cd(d, sizeof d, 41, BLOCK);
    g_assert_false(taken('d', d, sizeof d, "cut off"));
    make_cd(d, sizeof d, 30, BLOCK); /* padding behind */
    g_assert_true(taken('d', d, sizeof d, ""));
    make_cd(d, sizeof d, 160, 512);
    g_assert_true(taken('d', d, sizeof d, ""));
    make_cd(d, sizeof d, 161, 512);
    g_assert_false(taken('d', d, sizeof d, "cut off"));
    make_cd(d, sizeof d, UINT32_MAX, BLOCK);
    g_assert_false(taken('d', d, sizeof d, "cut off"));
}

/* What is no file system is taken as it is; a set without end ends. */
static void test_cd_unknown(void)
{
    static uint8_t d[60 * BLOCK];

    memset(d, 0, sizeof d);
    g_assert_true(taken('d', d, sizeof d, ""));
    g_assert_true(taken('d', d, BLOCK, ""));
    g_assert_false(taken('d', d, SECTOR, "name an ISO image"));
    make_cd(d, sizeof d, 1000, BLOCK);
    g_assert_true(taken('d', d, VOLUME + 2 * BLOCK - 1024, "")); /* ends within the descriptor */
    store_be32(d + VOLUME + BLOCK + 84, 999);
    g_assert_true(taken('d', d, sizeof d, ""));
    make_cd(d, sizeof d, 1000, 4096);
    g_assert_true(taken('d', d, sizeof d, ""));
    make_cd(d, sizeof d, 1000, BLOCK);
    d[VOLUME] = 255; /* the primary one is behind the end */
    g_assert_true(taken('d', d, sizeof d, ""));
    for (unsigned i = 16; i < 60; i++)
        memcpy(d + (size_t)i * BLOCK, "\0CD001\1", 7);
    g_assert_true(taken('d', d, sizeof d, ""));
}

static void test_floppy(void)
{
    static uint8_t d[720 * 1024];

    make_floppy(d, sizeof d, 1440);
    g_assert_true(taken('a', d, sizeof d, ""));
    g_assert_false(taken('a', d, sizeof d - SECTOR, "737280 bytes, the image 736768"));
    g_assert_false(taken('a', d, sizeof d - 100, "end within a sector"));
    g_assert_true(taken('c', d, sizeof d - 100, ""));
    make_floppy(d, sizeof d, 2880);
    g_assert_false(taken('a', d, sizeof d, "cut off"));
    d[0] = 0xfa; /* code, no description */
    g_assert_true(taken('a', d, sizeof d, ""));
    make_floppy(d, sizeof d, 0xf4f4);
    g_assert_true(taken('a', d, sizeof d, ""));
    make_floppy(d, sizeof d, 2880);
    d[16] = 3;
    g_assert_true(taken('a', d, sizeof d, ""));
    make_floppy(d, sizeof d, 2880);
    d[13] = 0;
    g_assert_true(taken('a', d, sizeof d, ""));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/medium/cd", test_cd);
    g_test_add_func("/medium/cd-unknown", test_cd_unknown);
    g_test_add_func("/medium/floppy", test_floppy);
    return g_test_run();
}
