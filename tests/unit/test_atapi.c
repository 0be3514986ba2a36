/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ATAPI CD-ROM: packets by PIO and bus master, sense, tray, media, and what it must refuse. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "ide_fix.h"

#define S IDE_SECONDARY
#define BLOCK 2048u
#define BLOCKS 400u
#define READY 0x50
#define TABLE 0x1000
#define DATA 0x10000

static void up(IdeFix *f, gconstpointer unused)
{
    ide_fix_up(f);
    ide_fix_drive(f, "ide-cd", 2, BLOCKS * 4 + 3, NULL);
}

static void down(IdeFix *f, gconstpointer unused)
{
    ide_fix_down(f);
}

/* Send a packet; what the drive says then, its data not taken yet. */
static uint8_t send(IdeFix *f, const uint8_t packet[12], unsigned limit, bool dma)
{
    ide_out(f, S, 6, 0xa0);
    ide_out(f, S, 1, dma);
    ide_out(f, S, 4, (uint8_t)limit);
    ide_out(f, S, 5, (uint8_t)(limit >> 8));
    ide_out(f, S, 7, 0xa0);
    g_assert_cmphex(ide_in(f, S, 7), ==, READY | 8);
    g_assert_cmphex(ide_in(f, S, 2) & 3, ==, 1);
    g_assert_false(ide_irq(f, S));
    ide_write_words(f, S, packet, 12);
    ide_settle(f);
    return ide_alt(f, S);
}

/* A packet and its answer by PIO; returns bytes, *ret_status as it ends. */
static unsigned run(IdeFix *f, const uint8_t packet[12], void *to, unsigned room,
                    uint8_t *ret_status)
{
    unsigned n = 0;
    uint8_t st = send(f, packet, 0xfffe, false);

    while (st & 8) {
        unsigned count = ide_in(f, S, 4) | (unsigned)ide_in(f, S, 5) << 8;

        g_assert_true(ide_irq(f, S));
        g_assert_cmphex(ide_in(f, S, 2) & 3, ==, 2);
        ide_in(f, S, 7);
        g_assert_cmpuint(n + count, <=, room);
        ide_read_words(f, S, (uint8_t *)to + n, count);
        n += count;
        ide_settle(f);
        st = ide_alt(f, S);
    }
    g_assert_true(ide_irq(f, S));
    g_assert_cmphex(ide_in(f, S, 2) & 3, ==, 3);
    *ret_status = ide_in(f, S, 7);
    return n;
}

/* Key, ASC, ASCQ of what went wrong. */
static uint32_t sense(IdeFix *f)
{
    uint8_t p[18], st;

    g_assert_cmpuint(run(f, (uint8_t[12]){0x03, 0, 0, 0, 18}, p, sizeof p, &st), ==, 18);
    g_assert_cmphex(st, ==, READY);
    return (uint32_t)(p[2] << 16 | p[12] << 8 | p[13]);
}

static void expect_sense(IdeFix *f, const uint8_t packet[12], uint32_t want)
{
    uint8_t st, sink[64];

    run(f, packet, sink, sizeof sink, &st);
    g_assert_cmphex(st, ==, READY | 1);
    g_assert_cmphex(ide_in(f, S, 1) >> 4, ==, want >> 16);
    g_assert_cmphex(sense(f), ==, want);
}

static const uint8_t test_unit[12] = {0x00};

static void clear_attention(IdeFix *f)
{
    expect_sense(f, test_unit, 0x062900);
}

static void test_signature(IdeFix *f, gconstpointer unused)
{
    uint8_t id[512];

    ide_out(f, S, 6, 0xa0);
    g_assert_cmphex(ide_in(f, S, 4) | ide_in(f, S, 5) << 8, ==, 0xeb14);
    g_assert_cmphex(ide_in(f, S, 7), ==, 0);
    ide_out(f, S, 6, 0xb0); /* there is no second one */
    g_assert_cmphex(ide_in(f, S, 4) | ide_in(f, S, 7), ==, 0);
    ide_out(f, S, 6, 0xa0);
    ide_out(f, S, 4, 0);
    ide_out(f, S, 7, 0xec); /* IDENTIFY DEVICE: refused, and the signature is back */
    g_assert_cmphex(ide_in(f, S, 7) & 1, ==, 1);
    g_assert_cmphex(ide_in(f, S, 4) | ide_in(f, S, 5) << 8, ==, 0xeb14);
    ide_out(f, S, 7, 0xa1);
    g_assert_true(ide_irq(f, S));
    g_assert_cmphex(ide_in(f, S, 7), ==, READY | 8);
    ide_read_words(f, S, id, 512);
    g_assert_cmphex(load_le16(id), ==, 0x85c0);
    g_assert_cmphex(ide_in(f, S, 7), ==, READY);
}

/* CVE-2015-6855: commands of disks, with a disc and without. */
static void foreign_commands(IdeFix *f)
{
    for (unsigned c = 0; c < 256; c++) {
        if (c == 0xa0 || c == 0xa1 || c == 0xe6 || c == 0x99 || c == 0x90 || c == 0x08)
            continue;
        ide_cmd(f, S, 0xa0, 1, 1, (uint8_t)c, false);
        ide_settle(f);
        g_assert_cmphex(ide_in(f, S, 7) & 0x88, ==, 0);
    }
}

static void test_foreign(IdeFix *f, gconstpointer unused)
{
    foreign_commands(f);
    g_assert_cmpuint(f->node[2]->ops[BLK_READ] + f->node[2]->ops[BLK_WRITE], ==, 0);
    ide_cmd(f, S, 0xa0, 0, 0, 0x27, true);
    g_assert_cmphex(ide_in(f, S, 7), ==, READY | 1);
    g_assert_cmphex(ide_in(f, S, 1), ==, 4);
}

static void test_foreign_empty(void)
{
    IdeFix f;

    ide_fix_up(&f);
    ide_fix_drive(&f, "ide-cd", 2, 0, NULL);
    foreign_commands(&f);
    clear_attention(&f);
    expect_sense(&f, test_unit, 0x023a01);
    expect_sense(&f, (uint8_t[12]){0x25}, 0x023a01);
    expect_sense(&f, (uint8_t[12]){0x28, 0, 0, 0, 0, 0, 0, 0, 1}, 0x023a01);
    ide_fix_down(&f);
}

static void test_inquiry_and_sizes(IdeFix *f, gconstpointer unused)
{
    uint8_t p[64], st;

    g_assert_cmpuint(run(f, (uint8_t[12]){0x12, 0, 0, 0, 255}, p, sizeof p, &st), ==, 36);
    g_assert_cmphex(p[0], ==, 5);
    g_assert_cmpmem(p + 8, 5, "LODGE", 5);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x12, 0, 0, 0, 5}, p, sizeof p, &st), ==, 5);
    clear_attention(f);
    expect_sense(f, (uint8_t[12]){0x12, 1, 0x80, 0, 255}, 0x052400);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x25}, p, sizeof p, &st), ==, 8);
    g_assert_cmpuint(load_be32(p), ==, BLOCKS - 1);
    g_assert_cmpuint(load_be32(p + 4), ==, BLOCK);
    expect_sense(f, (uint8_t[12]){0xff}, 0x052000);
    g_assert_cmphex(sense(f), ==, 0);
}

static void check_blocks(const uint8_t *p, uint32_t lba, unsigned n)
{
    for (unsigned i = 0; i < n * 4; i++)
        g_assert_true(ide_is_sector(p + i * 512, lba * 4 + i));
}

static void test_read(IdeFix *f, gconstpointer unused)
{
    g_autofree uint8_t *p = g_malloc(100 * BLOCK);
    uint8_t st;

    clear_attention(f);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x28, 0, 0, 0, 0, 9, 0, 0, 70}, p, 100 * BLOCK, &st), ==,
                     70 * BLOCK);
    check_blocks(p, 9, 70);
    g_assert_cmpuint(f->node[2]->ops[BLK_READ], ==, 3); /* 32 + 32 + 6 blocks */
    run(f, (uint8_t[12]){0xa8, 0, 0, 0, 1, 0x8f, 0, 0, 0, 1}, p, BLOCK, &st);
    check_blocks(p, BLOCKS - 1, 1);
    run(f, (uint8_t[12]){0xbe, 0, 0, 0, 0, 7, 0, 0, 2, 0x10}, p, 2 * BLOCK, &st);
    check_blocks(p, 7, 2);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x28}, p, BLOCK, &st), ==, 0); /* no blocks: no error */
    g_assert_cmphex(st, ==, READY);
    expect_sense(f, (uint8_t[12]){0xbe, 0, 0, 0, 0, 7, 0, 0, 2, 0xf8}, 0x052400);
    expect_sense(f, (uint8_t[12]){0xbe, 4, 0, 0, 0, 7, 0, 0, 2, 0x10}, 0x056400); /* audio */
}

/* The data comes in blocks of the byte count; an odd one is rounded down. */
static void test_byte_count(IdeFix *f, gconstpointer unused)
{
    uint8_t p[2 * BLOCK], st;
    unsigned n = 0, blocks = 0;

    clear_attention(f);
    st = send(f, (uint8_t[12]){0x28, 0, 0, 0, 0, 3, 0, 0, 2}, 1001, false);
    while (st & 8) {
        unsigned count = ide_in(f, S, 4) | (unsigned)ide_in(f, S, 5) << 8;

        g_assert_cmpuint(count, ==, MIN(1000, 2 * BLOCK - n));
        ide_in(f, S, 7);
        ide_read_words(f, S, p + n, count);
        n += count;
        blocks++;
        st = ide_alt(f, S);
    }
    g_assert_cmpuint(n, ==, 2 * BLOCK);
    g_assert_cmpuint(blocks, ==, 5);
    check_blocks(p, 3, 2);
    g_assert_cmpuint(f->node[2]->ops[BLK_READ], ==, 1);
    send(f, (uint8_t[12]){0x12, 0, 0, 0, 35}, 0xfffe, false); /* an odd end */
    ide_read_words(f, S, p, 36);
    g_assert_cmphex(ide_in(f, S, 7), ==, READY);
    g_assert_cmphex(p[35], ==, 0);
    g_assert_cmphex(test_in(f->tb, S, 4), ==, 0);
}

/* CVE-2020-29443: blocks that are not on the disc, and sizes whose sum wraps. */
static void test_range(IdeFix *f, gconstpointer unused)
{
    static const uint8_t bad[][12] = {
        {0x28, 0, 0, 0, 1, 0x90, 0, 0, 1},
        {0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff},
        {0xa8, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff},
        {0xa8, 0, 0x7f, 0xff, 0xff, 0xff, 0x80, 0, 0, 1},
        {0xbe, 0, 0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0x10},
        {0x2b, 0, 0, 0, 1, 0x90},
    };

    clear_attention(f);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        expect_sense(f, bad[i], 0x052100);
    g_assert_cmpuint(f->node[2]->ops[BLK_READ], ==, 0);
}

static void test_dma(IdeFix *f, gconstpointer unused)
{
    clear_attention(f);
    ide_table(f, TABLE, (IdePrd[]){{DATA, 65536}, {DATA + 65536, 4 * BLOCK}}, 2);
    send(f, (uint8_t[12]){0x28, 0, 0, 0, 0, 5, 0, 0, 36}, 0, true);
    g_assert_cmphex(ide_alt(f, S) & 0x80, ==, 0x80);
    ide_bm_start(f, S, TABLE, true);
    g_assert_true(f->node[2]->last.iov[0].iov_base == f->ram + DATA);
    ide_settle(f);
    g_assert_cmphex(ide_bm_status(f, S), ==, 4);
    g_assert_cmphex(ide_in(f, S, 7), ==, READY);
    check_blocks(f->ram + DATA, 5, 36);
    g_assert_cmpuint(f->node[2]->ops[BLK_READ], ==, 1);
    ide_bm_stop(f, S);
    ide_bm_clear(f, S);
    ide_table(f, TABLE, (IdePrd[]){{DATA, 10}, {DATA + 100, 100}}, 2); /* an answer in pieces */
    send(f, (uint8_t[12]){0x12, 0, 0, 0, 36}, 0, true);
    ide_bm_start(f, S, TABLE, true);
    g_assert_cmphex(ide_bm_status(f, S), ==, 5);
    g_assert_cmpmem(f->ram + DATA + 100, 3, "DGE", 3);
    g_assert_cmphex(ide_in(f, S, 7), ==, READY);
    ide_bm_stop(f, S);
    ide_table(f, TABLE, (IdePrd[]){{DATA, 10}}, 1); /* less room than answer */
    ide_bm_clear(f, S);
    send(f, (uint8_t[12]){0x12, 0, 0, 0, 36}, 0, true);
    ide_bm_start(f, S, TABLE, true);
    g_assert_cmphex(ide_bm_status(f, S), ==, 0);
    ide_out(f, S, 7, 0x08); /* DEVICE RESET gets it out */
    g_assert_cmphex(ide_in(f, S, 7), ==, 0);
    g_assert_cmphex(ide_in(f, S, 4), ==, 0x14);
}

static void test_medium_error(IdeFix *f, gconstpointer unused)
{
    g_autofree uint8_t *p = g_malloc(64 * BLOCK);
    uint8_t st;

    clear_attention(f);
    f->node[2]->bad_from = 101;
    f->node[2]->bad_to = 102;
    run(f, (uint8_t[12]){0x28, 0, 0, 0, 0, 10, 0, 0, 20}, p, 64 * BLOCK, &st);
    g_assert_cmphex(st, ==, READY | 1);
    run(f, (uint8_t[12]){0x03, 0, 0, 0, 18}, p, 64 * BLOCK, &st);
    g_assert_cmphex(p[0], ==, 0xf0);
    g_assert_cmphex(p[2], ==, 3);
    g_assert_cmphex(p[12], ==, 0x11);
    g_assert_cmpuint(load_be32(p + 3), ==, 25);
}

static void test_toc(IdeFix *f, gconstpointer unused)
{
    uint8_t p[64], st;

    clear_attention(f);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x43, 0, 0, 0, 0, 0, 0, 0, 64}, p, 64, &st), ==, 20);
    g_assert_cmpuint(load_be16(p), ==, 18);
    g_assert_cmphex(p[14], ==, 0xaa);
    g_assert_cmpuint(load_be32(p + 16), ==, BLOCKS);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x43, 2, 0, 0, 0, 0, 0xaa, 0, 64}, p, 64, &st), ==, 12);
    g_assert_cmpuint((p[9] * 60u + p[10]) * 75 + p[11], ==, BLOCKS + 150);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x43, 0, 1, 0, 0, 0, 0, 0, 64}, p, 64, &st), ==, 12);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x43, 0, 2, 0, 0, 0, 0, 0, 64}, p, 64, &st), ==, 48);
    g_assert_cmphex(p[4 + 22 + 3], ==, 0xa2);
    /* The format as it was before MMC. */
    run(f, (uint8_t[12]){0x43, 0, 0, 0, 0, 0, 0, 0, 64, 0x40}, p, 64, &st);
    g_assert_cmpuint(load_be16(p), ==, 10);
    expect_sense(f, (uint8_t[12]){0x43, 0, 0, 0, 0, 0, 2, 0, 64}, 0x052400);
    expect_sense(f, (uint8_t[12]){0x43, 0, 5, 0, 0, 0, 0, 0, 64}, 0x052400);
}

static void test_information(IdeFix *f, gconstpointer unused)
{
    uint8_t p[256], st;

    clear_attention(f);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x51, 0, 0, 0, 0, 0, 0, 1, 0}, p, 256, &st), ==, 34);
    g_assert_cmphex(p[2], ==, 0x0e);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x52, 1, 0, 0, 0, 1, 0, 1, 0}, p, 256, &st), ==, 36);
    g_assert_cmpuint(load_be32(p + 24), ==, BLOCKS);
    expect_sense(f, (uint8_t[12]){0x52, 1, 0, 0, 0, 2, 0, 1, 0}, 0x052400);
    g_assert_cmpuint(run(f, (uint8_t[12]){0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8}, p, 256, &st), ==, 8);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x46, 0, 0, 0, 0, 0, 0, 1, 0}, p, 256, &st), ==, 68);
    g_assert_cmpuint(load_be32(p), ==, 64);
    g_assert_cmphex(load_be16(p + 6), ==, 8);
    g_assert_cmphex(p[18], ==, 1); /* CD-ROM is the current profile */
    g_assert_cmpuint(run(f, (uint8_t[12]){0x46, 1, 0, 0x10, 0, 0, 0, 1, 0}, p, 256, &st), ==, 28);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x46, 2, 0, 3, 0, 0, 0, 1, 0}, p, 256, &st), ==, 16);
}

static void test_mode_pages(IdeFix *f, gconstpointer unused)
{
    uint8_t p[256], st;
    unsigned n;

    clear_attention(f);
    n = run(f, (uint8_t[12]){0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0}, p, 256, &st);
    g_assert_cmpuint(n, ==, 8 + 8 + 16 + 20);
    g_assert_cmpuint(load_be16(p), ==, n - 2);
    g_assert_cmphex(p[8], ==, 0x01);
    g_assert_cmphex(p[16], ==, 0x0e);
    g_assert_cmphex(p[32], ==, 0x2a);
    expect_sense(f, (uint8_t[12]){0x5a, 0, 0xc1, 0, 0, 0, 0, 1, 0}, 0x053900);
    expect_sense(f, (uint8_t[12]){0x5a, 0, 0x05, 0, 0, 0, 0, 1, 0}, 0x052400);
    g_assert_cmpuint(run(f, (uint8_t[12]){0x5a, 0, 0x01, 0, 0, 0, 0, 1, 0}, p, 256, &st), ==, 16);
    for (unsigned i = 0; i < 3; i++) { /* as it is; changed; too short */
        static const uint16_t len[] = {16, 16, 15};
        static const uint32_t want[] = {0, 0x052600, 0x051a00};

        p[11] = i == 1 ? 9 : 5;
        send(f, (uint8_t[12]){0x55, 0x10, 0, 0, 0, 0, 0, 0, (uint8_t)len[i]}, 0xfffe, false);
        g_assert_cmphex(ide_in(f, S, 2) & 3, ==, 0);
        g_assert_cmphex(ide_in(f, S, 7), ==, READY | 8);
        ide_write_words(f, S, p, len[i]);
        g_assert_cmphex(ide_in(f, S, 7), ==, READY | (want[i] ? 1 : 0));
        g_assert_cmphex(sense(f), ==, want[i]);
    }
    memcpy(f->ram + DATA, p, 16);
    ide_table(f, TABLE, (IdePrd[]){{DATA, 16}}, 1);
    send(f, (uint8_t[12]){0x55, 0x10, 0, 0, 0, 0, 0, 0, 16}, 0, true);
    ide_bm_start(f, S, TABLE, false);
    g_assert_cmphex(ide_in(f, S, 7), ==, READY);
    expect_sense(f, (uint8_t[12]){0x55, 0x11, 0, 0, 0, 0, 0, 0, 16}, 0x052400);
}

static void test_tray(IdeFix *f, gconstpointer unused)
{
    uint8_t p[8], st;

    clear_attention(f);
    run(f, (uint8_t[12]){0x1e, 0, 0, 0, 1}, p, 8, &st);
    expect_sense(f, (uint8_t[12]){0x1b, 0, 0, 0, 2}, 0x055302);
    run(f, (uint8_t[12]){0x1e}, p, 8, &st);
    run(f, (uint8_t[12]){0x1b, 0, 0, 0, 2}, p, 8, &st);
    g_assert_cmphex(st, ==, READY);
    expect_sense(f, test_unit, 0x023a02);
    run(f, (uint8_t[12]){0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}, p, 8, &st);
    g_assert_cmphex(p[4], ==, 3);
    g_assert_cmphex(p[5], ==, 1);
    run(f, (uint8_t[12]){0x1b, 0, 0, 0, 3}, p, 8, &st);
    expect_sense(f, test_unit, 0x062800);
    run(f, test_unit, p, 8, &st);
    g_assert_cmphex(st, ==, READY);
    run(f, (uint8_t[12]){0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}, p, 8, &st);
    g_assert_cmphex(p[4], ==, 2);
    g_assert_cmphex(p[5], ==, 2);
    expect_sense(f, (uint8_t[12]){0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8}, 0x052400);
}

static void test_change(IdeFix *f, gconstpointer unused)
{
    Device *d = g_ptr_array_index(f->tb->devices, f->tb->devices->len - 1);
    BlkNode *small = ide_medium_new(40), *tiny = ide_medium_new(1);
    g_autoptr(GError) error = NULL;
    uint8_t p[BLOCK], st;

    clear_attention(f);
    g_assert_true(d->cls->change_medium(d, small, NULL));
    expect_sense(f, test_unit, 0x062800);
    run(f, (uint8_t[12]){0x25}, p, 8, &st);
    g_assert_cmpuint(load_be32(p), ==, 9);
    run(f, (uint8_t[12]){0x1e, 0, 0, 0, 1}, p, 8, &st);
    g_assert_false(d->cls->change_medium(d, NULL, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_STATE);
    run(f, (uint8_t[12]){0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8}, p, 8, &st);
    g_assert_cmphex(p[4], ==, 1); /* somebody pressed eject */
    run(f, (uint8_t[12]){0x1e}, p, 8, &st);
    g_assert_false(d->cls->change_medium(d, tiny, NULL));
    g_assert_true(d->cls->change_medium(d, NULL, NULL));
    expect_sense(f, test_unit, 0x062800);
    expect_sense(f, test_unit, 0x023a01);
    g_assert_true(d->cls->change_medium(d, f->node[2], NULL));
    expect_sense(f, test_unit, 0x062800);
    /* Under a read that has more to come: it fails. */
    send(f, (uint8_t[12]){0x28, 0, 0, 0, 0, 9, 0, 0, 70}, 0xfffe, false);
    g_assert_true(d->cls->change_medium(d, small, NULL));
    g_assert_cmphex(ide_in(f, S, 7), ==, READY | 1);
    g_assert_cmphex(test_in(f->tb, S, 2), ==, 0);
    g_assert_true(d->cls->change_medium(d, f->node[2], NULL));
    ide_medium_free(small);
    ide_medium_free(tiny);
}

/* CVE-2015-5154: data port accesses past packet and data. */
static void test_past_the_end(IdeFix *f, gconstpointer unused)
{
    uint8_t p[64], st;

    clear_attention(f);
    send(f, (uint8_t[12]){0x12, 0, 0, 0, 36}, 0xfffe, false);
    for (unsigned i = 0; i < 70000; i++)
        test_out(f->tb, S, 4, 0x41414141);
    ide_read_words(f, S, p, 36);
    g_assert_cmphex(ide_in(f, S, 7), ==, READY);
    for (unsigned i = 0; i < 70000; i++)
        g_assert_cmphex(test_in(f->tb, S, 4), ==, 0);
    ide_out(f, S, 7, 0xa0);
    for (unsigned i = 0; i < 70000; i++)
        test_out(f->tb, S, 4, 0);
    g_assert_cmphex(ide_in(f, S, 7), ==, READY);
    run(f, test_unit, p, 8, &st);
    g_assert_cmphex(st, ==, READY);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*fn)(IdeFix *f, gconstpointer unused);
    } tests[] = {
        {"signature", test_signature},
        {"foreign", test_foreign},
        {"inquiry-and-sizes", test_inquiry_and_sizes},
        {"read", test_read},
        {"byte-count", test_byte_count},
        {"range", test_range},
        {"dma", test_dma},
        {"medium-error", test_medium_error},
        {"toc", test_toc},
        {"information", test_information},
        {"mode-pages", test_mode_pages},
        {"tray", test_tray},
        {"change", test_change},
        {"past-the-end", test_past_the_end},
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strconcat("/atapi/", tests[i].name, NULL);
        g_test_add(path, IdeFix, NULL, up, tests[i].fn, down);
    }
    g_test_add_func("/atapi/foreign-empty", test_foreign_empty);
    return g_test_run();
}
