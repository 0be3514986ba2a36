/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The IDE disk over the real block layer: completions come from its loop while the CPU polls. */
#include <string.h>

#include "blockfix.h"
#include "lodge/num.h"
#include "testboard.h"

#define SECTOR 512
#define SEED 7
#define IMAGE_BYTES (4u << 20)
#define TABLE 0x1000
#define DATA 0x100000u
#define BM 0xc000
#define IDE_DEVFN (1 << 3 | 1)
#define ROUNDS 200
#define DEADLINE_US (20 * G_USEC_PER_SEC)

/* Alternate status, once BSY is clear. */
static uint8_t wait_ready(TestBoard *tb)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_US;
    uint8_t st;

    while ((st = (uint8_t)test_in(tb, 0x3f6, 1)) & 0x80)
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    return st;
}

static void command(TestBoard *tb, uint32_t lba, unsigned n, uint8_t cmd)
{
    test_out(tb, 0x1f6, 1, 0xe0 | lba >> 24);
    test_out(tb, 0x1f2, 1, n);
    test_out(tb, 0x1f3, 1, lba & 0xff);
    test_out(tb, 0x1f4, 1, lba >> 8 & 0xff);
    test_out(tb, 0x1f5, 1, lba >> 16 & 0xff);
    test_out(tb, 0x1f7, 1, cmd);
}

static void dma(TestBoard *tb, uint32_t lba, unsigned n, bool in)
{
    uint8_t prd[8];

    store_le32(prd, DATA);
    store_le32(prd + 4, 0x80000000u | (n * SECTOR & 0xffff));
    g_assert_true(mem_write(tb->board.mem, TABLE, prd, sizeof prd));
    test_out(tb, BM + 4, 4, TABLE);
    test_out(tb, BM + 2, 1, 6);
    command(tb, lba, n, in ? 0xc8 : 0xca);
    test_out(tb, BM, 1, in ? 9 : 1);
}

static void test_file(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "disk", IMAGE_BYTES, SEED);
    BlkOptions o = {.file = path};
    BlkNode *node = block_fix_open(f, &o);
    TestBoard *tb = test_board_new(2 << 20);
    uint8_t buf[128 * SECTOR];

    test_board_backend(tb, "disk", node);
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "piix3-ide", NULL);
    test_board_add(tb, "ide-hd", "drive=disk");
    test_cfg_write(tb, IDE_DEVFN, 0x20, 4, BM);
    test_cfg_write(tb, IDE_DEVFN, 0x04, 2, 5);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t lba = i * 37 % (IMAGE_BYTES / SECTOR - 128);
        unsigned n = i % 128 + 1;

        dma(tb, lba, n, true);
        if (i % 8 == 7) { /* a reset under it: busy until the host is done with the memory */
            test_out(tb, 0x3f6, 1, 4);
            test_out(tb, 0x3f6, 1, 0);
        }
        g_assert_cmphex(wait_ready(tb), ==, 0x50);
        test_out(tb, BM, 1, 0);
        if (i % 8 == 7)
            continue;
        g_assert_true(mem_read(tb->board.mem, DATA, buf, n * SECTOR));
        for (unsigned k = 0; k < n * SECTOR; k++)
            g_assert_cmphex(buf[k], ==, block_fix_byte((uint64_t)lba * SECTOR + k, SEED));
    }
    memset(buf, 0x5a, SECTOR);
    g_assert_true(mem_write(tb->board.mem, DATA, buf, SECTOR));
    dma(tb, 99, 1, false);
    g_assert_cmphex(wait_ready(tb), ==, 0x50);
    test_out(tb, BM, 1, 0);
    command(tb, 0, 0, 0xe7);
    g_assert_cmphex(wait_ready(tb), ==, 0x50);
    g_assert_cmpint(blk_pread(node, buf + SECTOR, 99 * SECTOR, SECTOR), ==, 0);
    g_assert_cmpmem(buf, SECTOR, buf + SECTOR, SECTOR);
    blk_drain_begin(node); /* no completion is still on its way out of the device */
    test_board_free(tb);
    blk_drain_end(node);
    blk_close(node);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/ide/file", test_file);
    return g_test_run();
}
