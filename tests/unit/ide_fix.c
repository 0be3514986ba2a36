/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See ide_fix.h. */
#include <errno.h>
#include <string.h>

#include "lodge/num.h"
#include "ide_fix.h"

#define SECTOR 512

/* ---- the block layer's part ---- */

void blk_limits(BlkNode *n, BlkLimits *ret_limits)
{
    *ret_limits = n->limits;
}

IoThread *blk_io_thread(BlkNode *n)
{
    return NULL;
}

BlkNode *blk_side(BlkNode *n, IoThread *io, GError **error)
{
    return n;
}

void blk_submit(BlkNode *n, BlkReq *r)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < r->niov; i++) {
        g_assert_cmpuint(r->iov[i].iov_len, >, 0);
        sum += r->iov[i].iov_len;
    }
    if (r->op != BLK_FLUSH) {
        g_assert_cmpuint(r->len, >, 0);
        g_assert_cmpuint(sum, ==, r->len);
    }
    g_assert_cmpuint(r->niov, <=, n->limits.max_iov);
    n->last = *r;
    n->ops[r->op]++;
    g_queue_push_tail(&n->held, r);
}

static int carry_out(BlkNode *n, BlkReq *r)
{
    uint64_t at = r->offset;

    if (n->err)
        return n->err;
    if (r->op == BLK_FLUSH)
        return 0;
    if (!range_within(r->offset, r->len, n->limits.size))
        return EIO;
    if (ranges_overlap(r->offset, r->len, n->bad_from * SECTOR,
                       (n->bad_to - n->bad_from) * SECTOR))
        return EIO;
    for (unsigned i = 0; i < r->niov; i++) {
        if (r->op == BLK_READ)
            memcpy(r->iov[i].iov_base, n->disk + at, r->iov[i].iov_len);
        else
            memcpy(n->disk + at, r->iov[i].iov_base, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    return 0;
}

unsigned ide_let_go(BlkNode *n)
{
    unsigned done = 0;
    BlkReq *r;

    while ((r = g_queue_pop_head(&n->held))) {
        r->done(r, carry_out(n, r));
        done++;
    }
    return done;
}

static void fill_sector(uint8_t *p, uint32_t i)
{
    for (unsigned b = 0; b < SECTOR; b++)
        p[b] = (uint8_t)(i * 7 + b);
    store_le32(p, i);
}

bool ide_is_sector(const uint8_t *p, uint32_t i)
{
    uint8_t want[SECTOR];

    fill_sector(want, i);
    return !memcmp(p, want, SECTOR);
}

BlkNode *ide_medium_new(uint64_t sectors)
{
    BlkNode *n = g_new0(BlkNode, 1);

    n->limits = (BlkLimits){.size = sectors * SECTOR, .align = SECTOR, .block = 4096,
                            .max_iov = 1024};
    n->disk = g_malloc(sectors * SECTOR);
    for (uint32_t i = 0; i < sectors; i++)
        fill_sector(n->disk + (size_t)i * SECTOR, i);
    g_queue_init(&n->held);
    return n;
}

void ide_medium_free(BlkNode *n)
{
    if (!n)
        return;
    g_queue_clear(&n->held);
    g_free(n->disk);
    g_free(n);
}

/* ---- the board ---- */

void ide_fix_up(IdeFix *f)
{
    MemPin pin;

    memset(f, 0, sizeof *f);
    f->tb = test_board_new(IDE_RAM);
    test_board_add(f->tb, "i440fx", NULL);
    test_board_add(f->tb, "i8259", NULL);
    test_board_add(f->tb, "piix3", NULL);
    test_board_add(f->tb, "piix3-ide", NULL);
    test_cfg_write(f->tb, IDE_DEVFN, 0x20, 4, IDE_BM);
    test_cfg_write(f->tb, IDE_DEVFN, 0x04, 2, 0x05); /* I/O, bus master */
    test_pic_auto_eoi(f->tb);
    g_assert_true(mem_pin(f->tb->board.mem, 0, IDE_RAM, true, &pin));
    f->ram = pin.host;
}

void ide_fix_down(IdeFix *f)
{
    ide_settle(f);
    test_board_free(f->tb);
    for (unsigned i = 0; i < G_N_ELEMENTS(f->node); i++)
        ide_medium_free(f->node[i]);
}

Device *ide_fix_drive(IdeFix *f, const char *cls, unsigned unit, uint64_t sectors, const char *more)
{
    g_autofree char *name = g_strdup_printf("disk%u", unit);
    g_autofree char *drive = sectors ? g_strdup_printf(",drive=%s", name) : g_strdup("");
    g_autofree char *props = g_strdup_printf("unit=%u%s%s%s", unit, drive, more ? "," : "",
                                             more ? more : "");

    if (sectors) {
        f->node[unit] = ide_medium_new(sectors);
        test_board_backend(f->tb, name, f->node[unit]);
    }
    return test_board_add(f->tb, cls, props);
}

void ide_settle(IdeFix *f)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(f->node); i++) {
        if (f->node[i])
            ide_let_go(f->node[i]);
    }
}

/* ---- ports ---- */

uint8_t ide_in(IdeFix *f, unsigned base, unsigned reg)
{
    return (uint8_t)test_in(f->tb, (uint16_t)(base + reg), 1);
}

void ide_out(IdeFix *f, unsigned base, unsigned reg, uint8_t val)
{
    test_out(f->tb, (uint16_t)(base + reg), 1, val);
}

uint8_t ide_alt(IdeFix *f, unsigned base)
{
    return (uint8_t)test_in(f->tb, IDE_CONTROL(base), 1);
}

void ide_cmd(IdeFix *f, unsigned base, uint8_t device, uint64_t lba, unsigned count, uint8_t cmd,
             bool ext)
{
    ide_out(f, base, 6, (uint8_t)(device | (ext ? 0 : lba >> 24 & 15)));
    if (ext) {
        ide_out(f, base, 2, (uint8_t)(count >> 8));
        ide_out(f, base, 3, (uint8_t)(lba >> 24));
        ide_out(f, base, 4, (uint8_t)(lba >> 32));
        ide_out(f, base, 5, (uint8_t)(lba >> 40));
    }
    ide_out(f, base, 2, (uint8_t)count);
    ide_out(f, base, 3, (uint8_t)lba);
    ide_out(f, base, 4, (uint8_t)(lba >> 8));
    ide_out(f, base, 5, (uint8_t)(lba >> 16));
    ide_out(f, base, 7, cmd);
}

void ide_read_words(IdeFix *f, unsigned base, void *to, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 2)
        store_le16((uint8_t *)to + i, (uint16_t)test_in(f->tb, (uint16_t)base, 2));
}

void ide_write_words(IdeFix *f, unsigned base, const void *from, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 2)
        test_out(f->tb, (uint16_t)base, 2, load_le16((const uint8_t *)from + i));
}

bool ide_irq(IdeFix *f, unsigned base)
{
    bool level;

    irq_lock_take(f->tb->board.irq);
    level = irq_level_locked(f->tb->board.irq, base == IDE_PRIMARY ? 14 : 15);
    irq_lock_drop(f->tb->board.irq);
    return level;
}

void ide_table(IdeFix *f, uint32_t at, const IdePrd *prd, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        store_le32(f->ram + at + 8 * i, prd[i].addr);
        store_le32(f->ram + at + 8 * i + 4,
                   (prd[i].len & 0xffff) | (i == n - 1 ? 0x80000000u : 0));
    }
}

static uint16_t bm(unsigned base)
{
    return base == IDE_PRIMARY ? IDE_BM : IDE_BM + 8;
}

void ide_bm_start(IdeFix *f, unsigned base, uint32_t table, bool to_memory)
{
    test_out(f->tb, bm(base) + 4, 4, table);
    test_out(f->tb, bm(base), 1, to_memory ? 8 : 0);
    test_out(f->tb, bm(base), 1, to_memory ? 9 : 1);
}

void ide_bm_stop(IdeFix *f, unsigned base)
{
    test_out(f->tb, bm(base), 1, 0);
}

uint8_t ide_bm_status(IdeFix *f, unsigned base)
{
    return (uint8_t)test_in(f->tb, bm(base) + 2, 1);
}

void ide_bm_clear(IdeFix *f, unsigned base)
{
    test_out(f->tb, bm(base) + 2, 1, 6);
}
