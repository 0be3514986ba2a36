/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The IDE controller and its disk: task file, PIO, bus master, errors, resets, hostile tables. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "ide_fix.h"

#define SECTOR 512
#define SECTORS 20000u
#define P IDE_PRIMARY
#define S IDE_SECONDARY
#define MASTER 0xe0 /* LBA */
#define SLAVE 0xf0
#define READY 0x50
#define TABLE 0x1000
#define DATA 0x10000

static void up(IdeFix *f, gconstpointer unused)
{
    ide_fix_up(f);
    ide_fix_drive(f, "ide-hd", 0, SECTORS, "serial=S-1,model=Test disk");
}

static void down(IdeFix *f, gconstpointer unused)
{
    ide_fix_down(f);
}

static unsigned word(const uint8_t *id, unsigned w)
{
    return load_le16(id + 2 * w);
}

static void identify(IdeFix *f, unsigned base, uint8_t device, uint8_t cmd, uint8_t id[SECTOR])
{
    ide_cmd(f, base, device, 0, 0, cmd, false);
    g_assert_cmphex(ide_in(f, base, 7), ==, READY | 8);
    ide_read_words(f, base, id, SECTOR);
    g_assert_cmphex(ide_in(f, base, 7), ==, READY);
}

static void test_absent(IdeFix *f, gconstpointer unused)
{
    g_assert_cmphex(ide_in(f, S, 7), ==, 0x7f); /* nobody: DD7 is pulled down */
    g_assert_cmphex(ide_in(f, S, 2), ==, 0x7f);
    g_assert_cmphex(test_in(f->tb, S, 2), ==, 0xff7f);
    g_assert_cmphex(ide_alt(f, S), ==, 0x7f);
    ide_out(f, S, 7, 0xec);
    g_assert_cmphex(ide_in(f, S, 7), ==, 0x7f);
    ide_out(f, P, 6, 0xb0); /* device 0 answers for device 1, with status 0 */
    ide_out(f, P, 2, 0x55);
    g_assert_cmphex(ide_in(f, P, 2), ==, 0x55);
    g_assert_cmphex(ide_in(f, P, 6), ==, 0xb0);
    g_assert_cmphex(ide_in(f, P, 7), ==, 0);
    ide_out(f, P, 7, 0xec);
    g_assert_cmphex(ide_in(f, P, 7), ==, 0);
    g_assert_false(ide_irq(f, P));
}

static void test_identify(IdeFix *f, gconstpointer unused)
{
    uint8_t id[SECTOR], sum = 0;

    identify(f, P, MASTER, 0xec, id);
    g_assert_cmpmem(id + 20, 4, "-S 1", 4);
    g_assert_cmpmem(id + 54, 10, "eTtsd si k", 10);
    g_assert_cmpuint(word(id, 1), ==, SECTORS / (16 * 63));
    g_assert_cmpuint(word(id, 3), ==, 16);
    g_assert_cmpuint(word(id, 6), ==, 63);
    g_assert_cmpuint(load_le32(id + 120), ==, SECTORS);
    g_assert_cmpuint(load_le64(id + 200), ==, SECTORS);
    g_assert_cmphex(word(id, 82) & 1, ==, 0); /* no SMART */
    g_assert_cmphex(word(id, 83) & 0x0400, ==, 0x0400);
    g_assert_cmphex(word(id, 88), ==, 0x3f);
    for (unsigned i = 0; i < SECTOR; i++)
        sum = (uint8_t)(sum + id[i]);
    g_assert_cmpuint(sum, ==, 0);
    ide_cmd(f, P, MASTER, 0, 0xda, 0xb0, false); /* SMART */
    g_assert_cmphex(ide_in(f, P, 7), ==, READY | 1);
    g_assert_cmphex(ide_in(f, P, 1), ==, 4);
}

static void test_features(IdeFix *f, gconstpointer unused)
{
    uint8_t id[SECTOR];

    ide_out(f, P, 1, 3);
    ide_cmd(f, P, MASTER, 0, 0x45, 0xef, false);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    ide_out(f, P, 1, 0x82);
    ide_cmd(f, P, MASTER, 0, 0, 0xef, false);
    identify(f, P, MASTER, 0xec, id);
    g_assert_cmphex(word(id, 88), ==, 0x203f);
    g_assert_cmphex(word(id, 85) & 0x20, ==, 0);
    ide_out(f, P, 1, 3);
    ide_cmd(f, P, MASTER, 0, 0x46, 0xef, false); /* mode 6 is not there */
    g_assert_cmphex(ide_in(f, P, 7), ==, READY | 1);
    ide_cmd(f, P, MASTER, 0, 3, 0xc6, false); /* three sectors a block */
    g_assert_cmphex(ide_in(f, P, 7), ==, READY | 1);
    /* Without the cache each write goes to the medium. */
    ide_table(f, TABLE, (IdePrd[]){{DATA, SECTOR}}, 1);
    ide_cmd(f, P, MASTER, 0, 1, 0xca, false);
    ide_bm_start(f, P, TABLE, false);
    g_assert_true(f->node[0]->last.fua);
}

static void test_power(IdeFix *f, gconstpointer unused)
{
    ide_cmd(f, P, MASTER, 0, 0, 0xe0, false);
    ide_cmd(f, P, MASTER, 0, 0x33, 0xe5, false);
    g_assert_cmphex(ide_in(f, P, 2), ==, 0);
    ide_cmd(f, P, MASTER, 0, 0, 0xe6, false); /* sleep: only a reset wakes it */
    ide_in(f, P, 7);
    ide_cmd(f, P, MASTER, 0, 0, 0xec, false);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    test_out(f->tb, IDE_CONTROL(P), 1, 4);
    test_out(f->tb, IDE_CONTROL(P), 1, 0);
    ide_cmd(f, P, MASTER, 0, 0, 0xe5, false);
    g_assert_cmphex(ide_in(f, P, 2), ==, 0xff);
}

/* Read @n sectors by PIO with blocks of @block sectors, an interrupt for each. */
static void read_pio(IdeFix *f, uint8_t cmd, bool ext, uint64_t lba, unsigned n, unsigned block)
{
    uint8_t buf[16 * SECTOR];

    ide_cmd(f, P, MASTER, lba, n, cmd, ext);
    g_assert_cmphex(ide_alt(f, P) & 0x80, ==, 0x80);
    for (unsigned at = 0; at < n; at += block) {
        unsigned now = MIN(block, n - at);

        ide_settle(f);
        g_assert_true(ide_irq(f, P));
        g_assert_cmphex(ide_in(f, P, 7), ==, READY | 8);
        g_assert_false(ide_irq(f, P));
        ide_read_words(f, P, buf, now * SECTOR);
        for (unsigned i = 0; i < now; i++)
            g_assert_true(ide_is_sector(buf + i * SECTOR, (uint32_t)(lba + at + i)));
    }
    g_assert_false(ide_irq(f, P));
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
}

static void test_read_pio(IdeFix *f, gconstpointer unused)
{
    read_pio(f, 0x20, false, 5, 3, 1);
    g_assert_cmpuint(f->node[0]->ops[BLK_READ], ==, 1); /* one request for all blocks */
    read_pio(f, 0x24, true, SECTORS - 300, 300, 1);
    g_assert_cmpuint(f->node[0]->ops[BLK_READ], ==, 4); /* 128 + 128 + 44 */
    ide_cmd(f, P, MASTER, 0, 8, 0xc6, false);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    read_pio(f, 0xc4, false, 100, 20, 8);
    read_pio(f, 0x29, true, 7, 129, 8);
    read_pio(f, 0x20, false, 9, 0 + 256, 1);
}

static void test_data_widths(IdeFix *f, gconstpointer unused)
{
    uint8_t buf[SECTOR];

    ide_cmd(f, P, MASTER, 11, 1, 0x20, false);
    ide_settle(f);
    for (unsigned i = 0; i < SECTOR; i += 4)
        store_le32(buf + i, (uint32_t)test_in(f->tb, P, 4));
    g_assert_true(ide_is_sector(buf, 11));
    ide_cmd(f, P, MASTER, 12, 1, 0x30, false);
    for (unsigned i = 0; i < SECTOR; i += 4)
        test_out(f->tb, P, 4, load_le32(buf + i));
    ide_settle(f);
    g_assert_true(ide_is_sector(f->node[0]->disk + 12 * SECTOR, 11));
}

static void test_write_pio(IdeFix *f, gconstpointer unused)
{
    g_autofree uint8_t *buf = g_malloc(200 * SECTOR);

    for (unsigned i = 0; i < 200 * SECTOR; i++)
        buf[i] = (uint8_t)(i * 13 >> 3);
    ide_cmd(f, P, MASTER, 40, 200, 0x34, true);
    g_assert_false(ide_irq(f, P)); /* none before the first block */
    for (unsigned i = 0; i < 200; i++) {
        g_assert_cmphex(ide_in(f, P, 7), ==, READY | 8);
        ide_write_words(f, P, buf + i * SECTOR, SECTOR);
        ide_settle(f);
        g_assert_true(ide_irq(f, P));
    }
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    g_assert_cmpuint(f->node[0]->ops[BLK_WRITE], ==, 2);
    g_assert_cmpmem(f->node[0]->disk + 40 * SECTOR, 200 * SECTOR, buf, 200 * SECTOR);
    g_assert_true(ide_is_sector(f->node[0]->disk + 240 * SECTOR, 240));
    ide_cmd(f, P, MASTER, 0, 0, 0xe7, false);
    g_assert_cmphex(ide_alt(f, P) & 0x80, ==, 0x80);
    ide_settle(f);
    g_assert_cmpuint(f->node[0]->ops[BLK_FLUSH], ==, 1);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
}

static void test_chs(IdeFix *f, gconstpointer unused)
{
    uint8_t buf[SECTOR], id[SECTOR];

    ide_cmd(f, P, 0xa0 | 2, 1 | 3 << 8, 1, 0x20, false); /* cylinder 3, head 2, sector 1 */
    ide_settle(f);
    ide_read_words(f, P, buf, SECTOR);
    g_assert_true(ide_is_sector(buf, (3 * 16 + 2) * 63));
    ide_cmd(f, P, 0xa0 | 3, 0, 10, 0x91, false); /* 4 heads of 10 sectors */
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    identify(f, P, MASTER, 0xec, id);
    g_assert_cmpuint(word(id, 54), ==, SECTORS / 40);
    g_assert_cmpuint(word(id, 55), ==, 4);
    g_assert_cmpuint(word(id, 56), ==, 10);
    ide_cmd(f, P, 0xa0 | 3, 10 | 2 << 8, 1, 0x20, false);
    ide_settle(f);
    ide_read_words(f, P, buf, SECTOR);
    g_assert_true(ide_is_sector(buf, (2 * 4 + 3) * 10 + 9));
    for (unsigned i = 0; i < 3; i++) { /* sector 0, sector 11, head 4 */
        static const uint32_t lba[] = {0, 11, 1};

        ide_cmd(f, P, i == 2 ? 0xa4 : 0xa0, lba[i], 1, 0x20, false);
        g_assert_cmphex(ide_in(f, P, 7), ==, READY | 1);
        g_assert_cmphex(ide_in(f, P, 1), ==, 0x10);
    }
    ide_cmd(f, P, 0xa0, 0, 0, 0x91, false); /* no sectors */
    g_assert_cmphex(ide_in(f, P, 7), ==, READY | 1);
}

static void test_out_of_range(IdeFix *f, gconstpointer unused)
{
    static const uint8_t cmds[] = {0x20, 0x30, 0xc8, 0xca, 0x40};

    for (unsigned i = 0; i < G_N_ELEMENTS(cmds); i++) {
        ide_cmd(f, P, MASTER, SECTORS - 2, 3, cmds[i], false);
        g_assert_cmphex(ide_in(f, P, 7), ==, READY | 1);
        g_assert_cmphex(ide_in(f, P, 1), ==, 0x10);
        g_assert_cmpuint(ide_in(f, P, 3) | ide_in(f, P, 4) << 8, ==, SECTORS);
    }
    ide_cmd(f, P, MASTER, UINT64_C(0xffffffffffff), 65535, 0x24, true);
    g_assert_cmphex(ide_in(f, P, 1), ==, 0x10);
    g_assert_cmphex(ide_in(f, P, 5), ==, 0xff);
    test_out(f->tb, IDE_CONTROL(P), 1, 0x80); /* the other half */
    g_assert_cmphex(ide_in(f, P, 5), ==, 0xff);
    g_assert_cmpuint(f->node[0]->ops[BLK_READ] + f->node[0]->ops[BLK_WRITE], ==, 0);
    ide_cmd(f, P, MASTER, 0, 0, 0xf8, false); /* READ NATIVE MAX */
    g_assert_cmpuint(ide_in(f, P, 3) | ide_in(f, P, 4) << 8, ==, SECTORS - 1);
    ide_cmd(f, P, MASTER, 0, 0, 0x27, true);
    g_assert_cmpuint(ide_in(f, P, 3) | ide_in(f, P, 4) << 8, ==, SECTORS - 1);
}

static void test_unreadable(IdeFix *f, gconstpointer unused)
{
    f->node[0]->bad_from = 300;
    f->node[0]->bad_to = 302;
    for (unsigned i = 0; i < 3; i++) {
        static const uint8_t cmds[] = {0x24, 0x25, 0x42};

        ide_table(f, TABLE, (IdePrd[]){{DATA, 65536}, {DATA + 65536, 65536}, {DATA, 65536}}, 3);
        ide_cmd(f, P, MASTER, 250, 300, cmds[i], true);
        if (i == 1)
            ide_bm_start(f, P, TABLE, true);
        ide_settle(f);
        g_assert_true(ide_irq(f, P));
        g_assert_cmphex(ide_in(f, P, 7), ==, READY | 1);
        g_assert_cmphex(ide_in(f, P, 1), ==, 0x40);
        g_assert_cmpuint(ide_in(f, P, 3) | ide_in(f, P, 4) << 8, ==, 300);
        ide_bm_stop(f, P);
    }
    ide_cmd(f, P, MASTER, 301, 1, 0x30, false);
    for (unsigned i = 0; i < SECTOR; i += 2)
        test_out(f->tb, P, 2, 0);
    ide_settle(f);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY | 0x21);
    f->node[0]->err = 5;
    ide_cmd(f, P, MASTER, 0, 0, 0xe7, false);
    ide_settle(f);
    g_assert_cmphex(ide_in(f, P, 7) & 1, ==, 1);
}

static void test_read_only(void)
{
    IdeFix f;

    ide_fix_up(&f);
    f.node[2] = ide_medium_new(100);
    f.node[2]->limits.read_only = true;
    test_board_backend(f.tb, "ro", f.node[2]);
    test_board_add(f.tb, "ide-hd", "unit=2,drive=ro");
    ide_cmd(&f, S, MASTER, 0, 1, 0x30, false);
    g_assert_cmphex(ide_in(&f, S, 7), ==, READY | 1);
    ide_cmd(&f, S, MASTER, 0, 1, 0x20, false);
    ide_settle(&f);
    g_assert_cmphex(ide_in(&f, S, 7), ==, READY | 8);
    ide_fix_down(&f);
}

static void test_two_drives(IdeFix *f, gconstpointer unused)
{
    uint8_t id[SECTOR];

    ide_fix_drive(f, "ide-hd", 1, 63 * 3, NULL);
    identify(f, P, SLAVE, 0xec, id);
    g_assert_cmpuint(word(id, 1), ==, 1);
    g_assert_cmpuint(word(id, 3), ==, 3);
    ide_cmd(f, P, SLAVE, 0, 1, 0x40, false);
    g_assert_false(ide_irq(f, P));
    ide_settle(f);
    g_assert_true(ide_irq(f, P));
    ide_out(f, P, 6, MASTER); /* who is not selected does not drive the line */
    g_assert_false(ide_irq(f, P));
    ide_out(f, P, 6, SLAVE);
    g_assert_true(ide_irq(f, P));
    test_out(f->tb, IDE_CONTROL(P), 1, 2); /* nIEN */
    g_assert_false(ide_irq(f, P));
    test_out(f->tb, IDE_CONTROL(P), 1, 0);
    g_assert_true(ide_irq(f, P));
    ide_out(f, P, 7, 0x90); /* EXECUTE DEVICE DIAGNOSTIC: both, device 0 answers */
    g_assert_cmphex(ide_in(f, P, 6), ==, 0);
    g_assert_cmphex(ide_in(f, P, 1), ==, 1);
    g_assert_cmphex(ide_in(f, P, 2), ==, 1);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
}

static void test_attach(IdeFix *f, gconstpointer unused)
{
    static const struct {
        const char *unit, *heads, *word;
    } bad[] = {{"0", "0", "taken by ide-hd"}, {"1", "4", "all of"}};

    test_board_backend(f->tb, "again", f->node[0]);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(Device) d = device_new(device_class_find("ide-hd"), "x", &f->tb->board);
        g_autoptr(GError) error = NULL;

        g_assert_true(device_set(d, "drive", "again", NULL));
        g_assert_true(device_set(d, "unit", bad[i].unit, NULL));
        g_assert_true(device_set(d, "heads", bad[i].heads, NULL));
        g_assert_false(device_realize(d, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_assert_nonnull(strstr(error->message, bad[i].word));
    }
}

/* ---- bus master ---- */

static void dma(IdeFix *f, uint8_t cmd, uint64_t lba, unsigned n, bool to_memory)
{
    ide_bm_clear(f, P);
    ide_cmd(f, P, MASTER, lba, n, cmd, true);
    ide_bm_start(f, P, TABLE, to_memory);
    ide_settle(f);
}

static void test_dma(IdeFix *f, gconstpointer unused)
{
    ide_table(f, TABLE, (IdePrd[]){{DATA, 4096}, {DATA + 4096, 65536}, {0x80000, 58 * SECTOR}}, 3);
    ide_bm_clear(f, P);
    ide_cmd(f, P, MASTER, 1000, 194, 0x25, true);
    ide_bm_start(f, P, TABLE, true);
    g_assert_cmphex(ide_bm_status(f, P), ==, 1);
    g_assert_cmpuint(f->node[0]->ops[BLK_READ], ==, 1); /* one request, two pieces */
    g_assert_cmpuint(f->node[0]->last.niov, ==, 2);
    g_assert_true(f->node[0]->last.iov[0].iov_base == f->ram + DATA);
    ide_settle(f);
    g_assert_cmphex(ide_bm_status(f, P), ==, 4); /* interrupt, not active: the table fits */
    g_assert_true(ide_irq(f, P));
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    for (unsigned i = 0; i < 136; i++)
        g_assert_true(ide_is_sector(f->ram + DATA + i * SECTOR, 1000 + i));
    for (unsigned i = 0; i < 58; i++)
        g_assert_true(ide_is_sector(f->ram + 0x80000 + i * SECTOR, 1136 + i));
    ide_bm_stop(f, P);
    ide_table(f, TABLE, (IdePrd[]){{0x80000, 4 * SECTOR}}, 1);
    dma(f, 0x35, 7, 2, false);
    g_assert_cmphex(ide_bm_status(f, P), ==, 5); /* the table is larger */
    g_assert_true(ide_is_sector(f->node[0]->disk + 8 * SECTOR, 1137));
    g_assert_true(ide_is_sector(f->node[0]->disk + 9 * SECTOR, 9));
    ide_bm_stop(f, P);
    g_assert_cmphex(ide_bm_status(f, P), ==, 4);
}

/* The engine may be started before the command, and bus mastering switched on last. */
static void test_dma_order(IdeFix *f, gconstpointer unused)
{
    ide_table(f, TABLE, (IdePrd[]){{DATA, SECTOR}}, 1);
    test_cfg_write(f->tb, IDE_DEVFN, 4, 2, 1);
    ide_bm_start(f, P, TABLE, true);
    ide_cmd(f, P, MASTER, 3, 1, 0xc8, false);
    g_assert_cmpuint(f->node[0]->ops[BLK_READ], ==, 0);
    test_cfg_write(f->tb, IDE_DEVFN, 4, 2, 5);
    g_assert_cmpuint(f->node[0]->ops[BLK_READ], ==, 1);
    ide_settle(f);
    g_assert_true(ide_is_sector(f->ram + DATA, 3));
}

/* Regions of odd sizes: sectors that several share go by the buffer. */
static void test_dma_pieces(IdeFix *f, gconstpointer unused)
{
    static const IdePrd prd[] = {{DATA, 100},          {DATA + 0x1000, 2},   {DATA + 0x2000, 922},
                                 {DATA + 0x3000, 512}, {DATA + 0x4000, 510}, {DATA + 0x5000, 2}};
    g_autofree uint8_t *got = g_malloc(4 * SECTOR);
    unsigned at = 0;

    ide_table(f, TABLE, prd, G_N_ELEMENTS(prd));
    dma(f, 0x25, 50, 4, true);
    g_assert_cmphex(ide_bm_status(f, P), ==, 4);
    for (unsigned i = 0; i < G_N_ELEMENTS(prd); i++) {
        memcpy(got + at, f->ram + prd[i].addr, prd[i].len);
        at += prd[i].len;
    }
    for (unsigned i = 0; i < 4; i++)
        g_assert_true(ide_is_sector(got + i * SECTOR, 50 + i));
    ide_bm_stop(f, P);
    dma(f, 0x35, 60, 4, false);
    for (unsigned i = 0; i < 4; i++)
        g_assert_true(ide_is_sector(f->node[0]->disk + (60 + i) * SECTOR, 50 + i));
}

/* More regions than one request takes, each too small for a sector. */
static void test_dma_many(IdeFix *f, gconstpointer unused)
{
    for (unsigned i = 0; i < 8192; i++) {
        store_le32(f->ram + 0x20000 + 8 * i, 0x100000 + 2 * i);
        store_le32(f->ram + 0x20000 + 8 * i + 4, 2 | (i == 8191 ? 0x80000000u : 0));
    }
    ide_cmd(f, P, MASTER, 0, 32, 0xc8, false);
    ide_bm_start(f, P, 0x20000, true);
    ide_settle(f);
    g_assert_cmphex(ide_bm_status(f, P), ==, 4);
    for (unsigned i = 0; i < 32; i++)
        g_assert_true(ide_is_sector(f->ram + 0x100000 + i * SECTOR, i));
    ide_bm_stop(f, P);
    ide_cmd(f, P, MASTER, 0, 2000, 0x25, true);
    for (unsigned i = 0; i < 2000; i++) {
        store_le32(f->ram + 0x20000 + 8 * i, 0x100000 + 1024 * i);
        store_le32(f->ram + 0x20000 + 8 * i + 4, SECTOR | (i == 1999 ? 0x80000000u : 0));
    }
    ide_bm_start(f, P, 0x20000, true);
    ide_settle(f);
    g_assert_cmpuint(ide_bm_status(f, P) & 1, ==, 0);
    for (unsigned i = 0; i < 2000; i++)
        g_assert_true(ide_is_sector(f->ram + 0x100000 + i * 1024, i));
}

/* CVE-2014-9718: a table without one whole sector neither loops nor moves anything. */
static void test_dma_short(IdeFix *f, gconstpointer unused)
{
    ide_table(f, TABLE, (IdePrd[]){{DATA, 2}, {DATA, 256}}, 2);
    dma(f, 0x25, 0, 1, true);
    g_assert_cmpuint(f->node[0]->ops[BLK_READ], ==, 0);
    g_assert_cmphex(ide_bm_status(f, P), ==, 0);
    g_assert_false(ide_irq(f, P));
    g_assert_cmphex(ide_alt(f, P) & 0x80, ==, 0x80);
    ide_bm_stop(f, P);
    ide_table(f, TABLE, (IdePrd[]){{DATA, 3 * SECTOR}}, 1); /* the drive still waits */
    ide_bm_start(f, P, TABLE, true);
    ide_settle(f);
    g_assert_cmphex(ide_bm_status(f, P), ==, 5);
    g_assert_true(ide_is_sector(f->ram + DATA, 0));
    ide_bm_stop(f, P);
    ide_table(f, TABLE, (IdePrd[]){{DATA, 2 * SECTOR}}, 1); /* too short by a sector */
    dma(f, 0x25, 4, 3, true);
    g_assert_true(ide_is_sector(f->ram + DATA + SECTOR, 5));
    g_assert_cmphex(ide_bm_status(f, P), ==, 0);
}

/* A table without an end is given up after 64 KiB of it. */
static void test_dma_endless(IdeFix *f, gconstpointer unused)
{
    for (unsigned i = 0; i < 9000; i++) {
        store_le32(f->ram + 0x20000 + 8 * i, DATA);
        store_le32(f->ram + 0x20000 + 8 * i + 4, 2);
    }
    ide_cmd(f, P, MASTER, 0, 10000, 0x25, true);
    ide_bm_start(f, P, 0x20000, true);
    ide_settle(f);
    g_assert_cmphex(ide_bm_status(f, P), ==, 2);
    g_assert_cmpuint(f->node[0]->ops[BLK_READ], <, 40);
}

/* Regions and tables in places where no memory is, at the table itself, and across 4 GiB. */
static void test_dma_wild(IdeFix *f, gconstpointer unused)
{
    static const uint32_t at[] = {0xfee00000, IDE_RAM - SECTOR / 2, 0xfffffe00, 0xb8000000};

    for (unsigned i = 0; i < G_N_ELEMENTS(at); i++) {
        ide_table(f, TABLE, (IdePrd[]){{at[i], 4 * SECTOR}}, 1);
        dma(f, 0x25, 20, 4, true);
        g_assert_cmphex(ide_bm_status(f, P), ==, 6);
        g_assert_cmphex(ide_in(f, P, 7), ==, READY);
        ide_bm_stop(f, P);
        dma(f, 0x35, 20, 4, false);
        g_assert_cmphex(ide_bm_status(f, P), ==, 6);
        ide_bm_stop(f, P);
        dma(f, 0x25, 20, 0, true); /* 32 MiB into nothing */
        test_out(f->tb, IDE_CONTROL(P), 1, 4);
        test_out(f->tb, IDE_CONTROL(P), 1, 0);
        ide_settle(f);
        ide_bm_stop(f, P);
    }
    ide_bm_clear(f, P);
    ide_cmd(f, P, MASTER, 0, 1, 0xc8, false);
    ide_bm_start(f, P, 0xfffffffc, true); /* the table is no memory */
    g_assert_cmphex(ide_bm_status(f, P), ==, 2);
    test_out(f->tb, IDE_CONTROL(P), 1, 4);
    test_out(f->tb, IDE_CONTROL(P), 1, 0);
    ide_bm_stop(f, P);
    ide_table(f, TABLE, (IdePrd[]){{TABLE, 4096}, {TABLE, 4096}}, 2); /* the table under itself */
    dma(f, 0x25, 100, 16, true);
    g_assert_true(ide_is_sector(f->ram + TABLE, 108));
    g_assert_cmphex(ide_bm_status(f, P), ==, 4);
}

/* A table that runs over a 64 KiB boundary goes on behind it. */
static void test_dma_table_boundary(IdeFix *f, gconstpointer unused)
{
    ide_table(f, 0x2fff8, (IdePrd[]){{DATA, SECTOR}, {DATA + SECTOR, SECTOR}}, 2);
    ide_cmd(f, P, MASTER, 9, 2, 0xc8, false);
    ide_bm_start(f, P, 0x2fff8, true);
    ide_settle(f);
    g_assert_true(ide_is_sector(f->ram + DATA + SECTOR, 10));
}

static void test_dma_direction(IdeFix *f, gconstpointer unused)
{
    ide_table(f, TABLE, (IdePrd[]){{DATA, SECTOR}}, 1);
    dma(f, 0x25, 0, 1, false);
    g_assert_cmphex(ide_bm_status(f, P), ==, 2);
    g_assert_cmpuint(f->node[0]->ops[BLK_READ], ==, 0);
}

/* ---- resets and misuse ---- */

/* A reset while the host reads: busy until that is over, and its end is nobody's. */
static void test_reset_in_flight(IdeFix *f, gconstpointer unused)
{
    ide_table(f, TABLE, (IdePrd[]){{DATA, SECTOR}}, 1);
    ide_cmd(f, P, MASTER, 9, 1, 0xc8, false);
    ide_bm_start(f, P, TABLE, true);
    test_out(f->tb, IDE_CONTROL(P), 1, 4);
    test_out(f->tb, IDE_CONTROL(P), 1, 0);
    g_assert_cmphex(ide_in(f, P, 7), ==, 0x80);
    ide_out(f, P, 7, 0xec); /* ignored */
    g_assert_cmpuint(ide_let_go(f->node[0]), ==, 1);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    g_assert_false(ide_irq(f, P));
    g_assert_cmphex(ide_in(f, P, 2), ==, 1);
    g_assert_cmphex(ide_in(f, P, 3), ==, 1);
    g_assert_cmphex(ide_in(f, P, 4), ==, 0);
    ide_bm_stop(f, P);
    /* The same by the controller's reset, twice. */
    ide_cmd(f, P, MASTER, 9, 1, 0xc8, false);
    ide_bm_start(f, P, TABLE, true);
    device_reset(g_ptr_array_index(f->tb->devices, 3), RESET_WARM);
    device_reset(g_ptr_array_index(f->tb->devices, 3), RESET_WARM);
    g_assert_cmpuint(ide_let_go(f->node[0]), ==, 1);
    test_cfg_write(f->tb, IDE_DEVFN, 0x04, 2, 0x05);
    test_cfg_write(f->tb, IDE_DEVFN, 0x20, 4, IDE_BM);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    read_pio(f, 0x20, false, 5, 3, 1);
}

static void test_stop_in_flight(IdeFix *f, gconstpointer unused)
{
    ide_table(f, TABLE, (IdePrd[]){{DATA, SECTOR}}, 1);
    ide_cmd(f, P, MASTER, 9, 1, 0xc8, false);
    ide_bm_start(f, P, TABLE, true);
    ide_bm_stop(f, P);
    ide_settle(f);
    g_assert_false(ide_irq(f, P));
    g_assert_cmphex(ide_alt(f, P) & 0x80, ==, 0x80);
    ide_bm_start(f, P, TABLE, true); /* it goes on with a new start */
    ide_settle(f);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    g_assert_true(ide_is_sector(f->ram + DATA, 9));
}

static void test_busy(IdeFix *f, gconstpointer unused)
{
    uint8_t buf[SECTOR];

    ide_cmd(f, P, MASTER, 9, 1, 0x20, false);
    ide_out(f, P, 3, 77);
    ide_out(f, P, 6, SLAVE);
    ide_out(f, P, 7, 0xca);
    ide_out(f, P, 7, 0x08);
    g_assert_cmphex(test_in(f->tb, P, 2), ==, 0);
    test_out(f->tb, P, 2, 0xdead);
    g_assert_cmpuint(f->node[0]->held.length, ==, 1);
    ide_settle(f);
    ide_read_words(f, P, buf, SECTOR);
    g_assert_true(ide_is_sector(buf, 9));
}

/* CVE-2015-5154: after the last byte DRQ is clear, and accesses neither take nor give. */
static void test_past_the_end(IdeFix *f, gconstpointer unused)
{
    uint8_t buf[SECTOR];

    ide_cmd(f, P, MASTER, 9, 1, 0x20, false);
    ide_settle(f);
    ide_read_words(f, P, buf, SECTOR - 2);
    g_assert_cmphex(test_in(f->tb, P, 4) >> 16, ==, 0); /* half of it is beyond */
    g_assert_cmphex(ide_in(f, P, 7), ==, READY);
    for (unsigned i = 0; i < 70000; i++)
        g_assert_cmphex(test_in(f->tb, P, 4), ==, 0);
    ide_cmd(f, P, MASTER, 9, 1, 0x30, false);
    for (unsigned i = 0; i < 70000; i++)
        test_out(f->tb, P, 4, 0x41414141);
    g_assert_cmpuint(f->node[0]->held.length, ==, 1);
    ide_settle(f);
    g_assert_cmphex(f->node[0]->disk[9 * SECTOR], ==, 0x41);
    g_assert_true(ide_is_sector(f->node[0]->disk + 10 * SECTOR, 10));
    ide_cmd(f, P, MASTER, 9, 1, 0x20, false); /* writes while it wants to be read */
    ide_settle(f);
    test_out(f->tb, P, 2, 0);
    ide_read_words(f, P, buf, 2);
    g_assert_cmphex(buf[0], ==, 0x41);
}

static void test_decode(IdeFix *f, gconstpointer unused)
{
    test_cfg_write(f->tb, IDE_DEVFN, 0x40, 2, 0);
    g_assert_null(bus_region_at(f->tb->board.pio, P));
    g_assert_nonnull(bus_region_at(f->tb->board.pio, S));
    test_cfg_write(f->tb, IDE_DEVFN, 0x40, 2, 0x8000);
    g_assert_nonnull(bus_region_at(f->tb->board.pio, P));
    g_assert_nonnull(bus_region_at(f->tb->board.pio, 0x3f6));
    g_assert_null(bus_region_at(f->tb->board.pio, 0x3f7));
    test_cfg_write(f->tb, IDE_DEVFN, 4, 2, 4);
    g_assert_null(bus_region_at(f->tb->board.pio, S));
    g_assert_null(bus_region_at(f->tb->board.pio, 0x376));
}

/* ---- quiet and state ---- */

static void count_quiet(Device *d, void *opaque)
{
    ++*(unsigned *)opaque;
}

static void test_quiesce(IdeFix *f, gconstpointer unused)
{
    Device *d = g_ptr_array_index(f->tb->devices, f->tb->devices->len - 1);
    unsigned quiet = 0;

    ide_table(f, TABLE, (IdePrd[]){{DATA, SECTOR}}, 1);
    ide_cmd(f, P, MASTER, 0, 129, 0x24, true);
    device_quiesce(d, count_quiet, &quiet);
    g_assert_cmpuint(quiet, ==, 0);
    ide_settle(f);
    g_assert_cmpuint(quiet, ==, 1);
    for (unsigned i = 0; i < 128 * SECTOR; i += 2)
        test_in(f->tb, P, 2);
    g_assert_cmpuint(f->node[0]->held.length, ==, 0); /* the next part waits */
    device_resume(d);
    g_assert_cmpuint(f->node[0]->held.length, ==, 1);
    ide_settle(f);
    g_assert_cmphex(ide_in(f, P, 7), ==, READY | 8);
}

/* A transfer begun on one board ends on another. */
static void test_state(IdeFix *f, gconstpointer unused)
{
    g_autoptr(GByteArray) ctl = g_byte_array_new(), hd = g_byte_array_new();
    Device *from = g_ptr_array_index(f->tb->devices, f->tb->devices->len - 1), *to, *bus;
    uint8_t buf[SECTOR];
    GError *error = NULL;
    IdeFix g;
    size_t used;

    ide_fix_up(&g);
    to = ide_fix_drive(&g, "ide-hd", 0, SECTORS, NULL);
    bus = g_ptr_array_index(f->tb->devices, 3);
    ide_cmd(f, P, MASTER, 77, 3, 0x20, false);
    ide_settle(f);
    ide_read_words(f, P, buf, SECTOR);
    ide_read_words(f, P, buf, 100);
    state_save(bus->cls->state, bus, ctl);
    state_save(from->cls->state, from, hd);
    bus = g_ptr_array_index(g.tb->devices, 3);
    state_load(bus->cls->state, bus, ctl->data, ctl->len, &used, &error);
    g_assert_no_error(error);
    state_load(to->cls->state, to, hd->data, hd->len, &used, &error);
    g_assert_no_error(error);
    ide_read_words(&g, P, buf + 100, SECTOR - 100);
    g_assert_true(ide_is_sector(buf, 78));
    ide_read_words(&g, P, buf, SECTOR);
    g_assert_true(ide_is_sector(buf, 79));
    g_assert_cmphex(ide_in(&g, P, 7), ==, READY);
    ide_fix_down(&g);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(IdeFix *f, gconstpointer unused);
    } tests[] = {
        {"absent", test_absent},
        {"identify", test_identify},
        {"features", test_features},
        {"power", test_power},
        {"read-pio", test_read_pio},
        {"data-widths", test_data_widths},
        {"write-pio", test_write_pio},
        {"chs", test_chs},
        {"out-of-range", test_out_of_range},
        {"unreadable", test_unreadable},
        {"two-drives", test_two_drives},
        {"attach", test_attach},
        {"dma", test_dma},
        {"dma-order", test_dma_order},
        {"dma-pieces", test_dma_pieces},
        {"dma-many", test_dma_many},
        {"dma-short", test_dma_short},
        {"dma-endless", test_dma_endless},
        {"dma-wild", test_dma_wild},
        {"dma-table-boundary", test_dma_table_boundary},
        {"dma-direction", test_dma_direction},
        {"reset-in-flight", test_reset_in_flight},
        {"stop-in-flight", test_stop_in_flight},
        {"busy", test_busy},
        {"past-the-end", test_past_the_end},
        {"decode", test_decode},
        {"quiesce", test_quiesce},
        {"state", test_state},
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strconcat("/ide/", tests[i].name, NULL);
        g_test_add(path, IdeFix, NULL, up, tests[i].fn, down);
    }
    g_test_add_func("/ide/read-only", test_read_only);
    return g_test_run();
}
