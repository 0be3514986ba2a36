/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The floppy controller with drives, DMA and PIC, over disks in memory whose completions the test
 * can hold back. The escapes that this part was famous for are played at the end. */
#include <errno.h>
#include <string.h>

#include "testboard.h"

#include "fdc_82077.h"
#include "lodge/block.h"
#include "lodge/error.h"
#include "lodge/num.h"

#define DOR 0x3f2
#define MSR 0x3f4
#define FIFO 0x3f5
#define DIR 0x3f7
#define SECTOR 512
#define DMA_GPA 0x8000
#define VECTOR 0x26
#define MOTOR_A 0x1c /* drive 0, its motor, gate, not reset */
#define WAIT_NS (10 * 1000 * 1000)

/* Stands for the block layer: this program defines its functions. */
struct BlkNode {
    BlkLimits limits;
    uint8_t *disk;
    BlkReq *held;
    bool hold; /* keep requests until let_go() */
    int err;
    unsigned ops[6];
};

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
    g_assert_null(n->held);
    g_assert_true(range_within(r->offset, r->len, n->limits.size));
    g_assert_cmpuint(r->niov ? r->iov[0].iov_len : 0, ==, r->len);
    n->ops[r->op]++;
    n->held = r;
}

static bool let_go(BlkNode *n)
{
    BlkReq *r = n->held;

    if (!r)
        return false;
    n->held = NULL;
    if (!n->err && r->op == BLK_READ)
        memcpy(r->iov->iov_base, n->disk + r->offset, r->len);
    if (!n->err && r->op == BLK_WRITE)
        memcpy(n->disk + r->offset, r->iov->iov_base, r->len);
    r->done(r, n->err);
    return true;
}

typedef struct Fixture {
    TestBoard *tb;
    BlkNode node;
    Device *fdc, *floppy;
    uint8_t st[10]; /* the last result */
} Fixture;

static void make_disk(BlkNode *n, uint64_t bytes)
{
    *n = (BlkNode){.limits = {.size = bytes, .align = 512, .max_iov = 16}};
    n->disk = g_malloc(bytes);
    for (uint64_t i = 0; i < bytes; i++)
        n->disk[i] = (uint8_t)(i / SECTOR * 3 + i % 251);
}

static uint8_t in(Fixture *f, uint16_t port)
{
    return (uint8_t)test_in(f->tb, port, 1);
}

static void out(Fixture *f, uint16_t port, uint8_t val)
{
    test_out(f->tb, port, 1, val);
}

static int ack(Fixture *f)
{
    return irq_ack(f->tb->board.irq);
}

/* Time passes and block requests end, until nothing happens any more. */
static void settle(Fixture *f)
{
    for (;;) {
        test_advance(f->tb, WAIT_NS);
        if (f->node.hold || !let_go(&f->node))
            return;
        while (let_go(&f->node))
            continue;
    }
}

static void sense(Fixture *f, uint8_t st0, uint8_t pcn)
{
    out(f, FIFO, 0x08);
    g_assert_cmphex(in(f, FIFO), ==, st0);
    if (st0 != 0x80)
        g_assert_cmphex(in(f, FIFO), ==, pcn);
    g_assert_cmphex(in(f, MSR) & 0xf0, ==, 0x80);
}

static void leave_reset(Fixture *f)
{
    out(f, DOR, 0);
    out(f, DOR, MOTOR_A);
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    for (unsigned i = 0; i < 4; i++) {
        out(f, FIFO, 0x08);
        g_assert_cmphex(in(f, FIFO), ==, 0xc0 | i);
        in(f, FIFO); /* cylinders survive */
    }
    out(f, DIR, 0); /* 500 kbit/s */
}

static void set_up_with(Fixture *f, uint64_t bytes, const char *props)
{
    f->tb = test_board_new(MIB);
    make_disk(&f->node, bytes);
    test_board_backend(f->tb, "a", &f->node);
    test_board_add(f->tb, "i8259", NULL);
    test_pic_auto_eoi(f->tb);
    test_board_add(f->tb, "i8237", NULL);
    f->fdc = test_board_add(f->tb, "fdc-82077", NULL);
    f->floppy = test_board_add(f->tb, "floppy", props);
    leave_reset(f);
}

static void set_up(Fixture *f, gconstpointer unused)
{
    set_up_with(f, 1440 * KIB, "drive=a");
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    while (let_go(&f->node))
        continue;
    test_board_free(f->tb);
    g_free(f->node.disk);
}

/* Program channel 2; mode without the channel. */
static void dma(Fixture *f, uint8_t mode, unsigned bytes)
{
    out(f, 0x0a, 6);
    out(f, 0x0c, 0);
    out(f, 0x0b, mode | 2);
    out(f, 0x04, DMA_GPA & 0xff);
    out(f, 0x04, DMA_GPA >> 8);
    out(f, 0x05, (uint8_t)(bytes - 1));
    out(f, 0x05, (uint8_t)((bytes - 1) >> 8));
    out(f, 0x81, 0);
    out(f, 0x0a, 2);
}

static void send(Fixture *f, const uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmphex(in(f, MSR) & 0xc0, ==, 0x80);
        out(f, FIFO, bytes[i]);
    }
}
#define SEND(f, ...) send(f, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static unsigned results(Fixture *f)
{
    unsigned n = 0;

    while ((in(f, MSR) & 0xd0) == 0xd0 && n < 10)
        f->st[n++] = in(f, FIFO);
    g_assert_cmphex(in(f, MSR) & 0xf0, ==, 0x80);
    return n;
}

/* A data command, to its end: seven bytes with an interrupt. */
static void data_command(Fixture *f, uint8_t op, uint8_t head, uint8_t c, uint8_t h, uint8_t r,
                         uint8_t eot)
{
    SEND(f, op, (uint8_t)(head << 2), c, h, r, 2, eot, 0x1b, 0xff);
    g_assert_cmphex(in(f, MSR) & 0xd0, ==, 0x10);
    g_assert_cmpint(ack(f), ==, -1);
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    g_assert_cmpuint(results(f), ==, 7);
    g_assert_cmpint(ack(f), ==, -1);
}

static void expect(Fixture *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
    g_assert_cmphex(f->st[0], ==, st0);
    g_assert_cmphex(f->st[1], ==, st1);
    g_assert_cmphex(f->st[2], ==, st2);
}

static void expect_id(Fixture *f, uint8_t c, uint8_t h, uint8_t r)
{
    g_assert_cmpuint(f->st[3], ==, c);
    g_assert_cmpuint(f->st[4], ==, h);
    g_assert_cmpuint(f->st[5], ==, r);
    g_assert_cmpuint(f->st[6], ==, 2);
}

static void seek(Fixture *f, uint8_t cylinder)
{
    SEND(f, 0x0f, 0, cylinder);
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    sense(f, 0x20, cylinder);
}

static const uint8_t *guest(Fixture *f, uint8_t *buf, size_t n)
{
    g_assert_true(mem_read(f->tb->board.mem, DMA_GPA, buf, n));
    return buf;
}

static const uint8_t *lba(Fixture *f, unsigned c, unsigned h, unsigned s)
{
    return f->node.disk + ((c * 2 + h) * 18 + s - 1) * SECTOR;
}

static void test_registers(Fixture *f, gconstpointer unused)
{
    g_assert_cmphex(in(f, 0x3f0), ==, 0xff);
    g_assert_cmphex(in(f, DOR), ==, MOTOR_A);
    out(f, 0x3f3, 0xff);
    g_assert_cmphex(in(f, 0x3f3), ==, 3);
    SEND(f, 0x10);
    g_assert_cmpuint(results(f), ==, 1);
    g_assert_cmphex(f->st[0], ==, 0x90);
    SEND(f, 0x03, 0xaf, 0x02);
    SEND(f, 0x13, 0, 0x57, 0x11);
    SEND(f, 0x12, 0xbd);
    SEND(f, 0x94);
    g_assert_cmpuint(results(f), ==, 1);
    g_assert_cmphex(f->st[0], ==, 0x10);
    SEND(f, 0x0e);
    g_assert_cmpuint(results(f), ==, 10);
    static const uint8_t want[10] = {0, 0, 0, 0, 0xaf, 0x02, 0, 0xbd, 0x57, 0x11};
    g_assert_cmpmem(f->st, 10, want, 10);
    /* LOCK keeps what it names over a software reset, here by the data rate register. */
    out(f, MSR, 0x80);
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    SEND(f, 0x0e);
    results(f);
    g_assert_cmphex(f->st[7], ==, 0xbc);
    g_assert_cmphex(f->st[8], ==, 0x07);
    g_assert_cmphex(f->st[9], ==, 0x11);
    SEND(f, 0x14);
    results(f);
    leave_reset(f);
    SEND(f, 0x0e);
    results(f);
    g_assert_cmphex(f->st[7], ==, 0);
    g_assert_cmphex(f->st[8], ==, 0x20);
    g_assert_cmphex(f->st[9], ==, 0);
    SEND(f, 0x18); /* later parts identify themselves */
    g_assert_cmpuint(results(f), ==, 1);
    g_assert_cmphex(f->st[0], ==, 0x80);
    g_assert_cmphex(fdc_cmos_drives(f->tb->board.fdc), ==, 0x40);
}

static void test_reset(Fixture *f, gconstpointer unused)
{
    out(f, DOR, 0x18); /* in reset */
    g_assert_cmphex(in(f, MSR), ==, 0);
    out(f, FIFO, 0x10);
    out(f, DOR, 0x1c);
    g_assert_cmphex(in(f, MSR), ==, 0x80);
    g_assert_cmpint(ack(f), ==, -1);
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    for (unsigned i = 0; i < 4; i++)
        sense(f, 0xc0 | i, 0);
    sense(f, 0x80, 0);
    /* Without the gate nothing reaches the bus. */
    out(f, DOR, 0x10);
    out(f, DOR, 0x14);
    settle(f);
    g_assert_cmpint(ack(f), ==, -1);
    out(f, DOR, 0x1c);
    g_assert_cmphex(ack(f), ==, VECTOR);
    /* A command makes the poll's answers void. */
    seek(f, 0);
    sense(f, 0x80, 0);
}

static void test_seek(Fixture *f, gconstpointer unused)
{
    g_assert_cmphex(in(f, DIR), ==, 0x80); /* not yet stepped */
    SEND(f, 0x0f, 0, 5);
    g_assert_cmphex(in(f, MSR), ==, 0x81);
    SEND(f, 0x07, 1); /* the other one, which is not there */
    g_assert_cmphex(in(f, MSR), ==, 0x83);
    settle(f);
    g_assert_cmphex(in(f, DIR), ==, 0);
    g_assert_cmphex(ack(f), ==, VECTOR);
    sense(f, 0x20, 5);
    g_assert_cmphex(ack(f), ==, VECTOR); /* for the second end */
    sense(f, 0x71, 0);
    sense(f, 0x80, 0);
    SEND(f, 0x04, 0x04);
    results(f);
    g_assert_cmphex(f->st[0], ==, 0x2c);
    SEND(f, 0xcf, 0, 3);
    settle(f);
    sense(f, 0x20, 8);
    SEND(f, 0x8f, 0, 6);
    settle(f);
    sense(f, 0x20, 2);
    seek(f, 82);
    SEND(f, 0x07, 0); /* 79 steps are not enough */
    settle(f);
    sense(f, 0x70, 0);
    SEND(f, 0x07, 0);
    settle(f);
    sense(f, 0x20, 0);
    SEND(f, 0x04, 0);
    results(f);
    g_assert_cmphex(f->st[0], ==, 0x38);
}

static void test_read(Fixture *f, gconstpointer unused)
{
    uint8_t buf[36 * SECTOR];

    seek(f, 3);
    dma(f, 0x44, 3 * SECTOR);
    data_command(f, 0xe6, 1, 3, 1, 4, 18);
    expect(f, 0x04, 0, 0);
    expect_id(f, 3, 1, 7);
    g_assert_cmpmem(guest(f, buf, 3 * SECTOR), 3 * SECTOR, lba(f, 3, 1, 4), 3 * SECTOR);
    /* Both sides of a cylinder. */
    dma(f, 0x44, 36 * SECTOR);
    data_command(f, 0xe6, 0, 3, 0, 1, 18);
    expect(f, 0x04, 0, 0);
    expect_id(f, 4, 0, 1);
    g_assert_cmpmem(guest(f, buf, sizeof buf), sizeof buf, lba(f, 3, 0, 1), sizeof buf);
    /* Part of a sector. */
    dma(f, 0x44, 100);
    data_command(f, 0x66, 0, 3, 0, 18, 18);
    expect(f, 0, 0, 0);
    expect_id(f, 4, 0, 1);
    g_assert_cmpmem(guest(f, buf, 100), 100, lba(f, 3, 0, 18), 100);
    /* Nobody says terminal count. */
    dma(f, 0x44, 0x10000);
    data_command(f, 0x46, 0, 3, 0, 18, 18);
    expect(f, 0x40, 0x80, 0);
    /* The channel is not there for us. */
    out(f, 0x0a, 6);
    data_command(f, 0x46, 0, 3, 0, 18, 18);
    expect(f, 0x40, 0x10, 0);
}

static void test_lookup(Fixture *f, gconstpointer unused)
{
    dma(f, 0x44, SECTOR);
    data_command(f, 0x46, 0, 1, 0, 1, 18); /* the head is on 0 */
    expect(f, 0x40, 0x04, 0x10);
    data_command(f, 0x46, 0, 0, 1, 1, 18);
    expect(f, 0x40, 0x04, 0);
    data_command(f, 0x46, 0, 0, 0, 19, 36);
    expect(f, 0x40, 0x04, 0);
    data_command(f, 0x46, 0, 0, 0, 0, 36);
    expect(f, 0x40, 0x04, 0);
    data_command(f, 0x06, 0, 0, 0, 1, 18); /* FM */
    expect(f, 0x40, 0x01, 0);
    out(f, DIR, 2); /* another data rate */
    data_command(f, 0x46, 0, 0, 0, 1, 18);
    expect(f, 0x40, 0x01, 0);
    out(f, DIR, 0);
    out(f, DOR, 0x0c); /* the motor stands */
    data_command(f, 0x46, 0, 0, 0, 1, 18);
    expect(f, 0x40, 0x01, 0);
    out(f, DOR, MOTOR_A);
    f->node.err = EIO;
    data_command(f, 0x46, 0, 0, 0, 1, 18);
    expect(f, 0x40, 0x20, 0x20);
    f->node.err = 0;
    /* The head goes by itself where it was told to. */
    SEND(f, 0x13, 0, 0x40, 0);
    data_command(f, 0x46, 0, 7, 0, 2, 18);
    expect(f, 0, 0, 0);
    expect_id(f, 7, 0, 3);
}

static void test_write(Fixture *f, gconstpointer unused)
{
    uint8_t buf[2 * SECTOR];

    memset(buf, 0xa5, sizeof buf);
    mem_write(f->tb->board.mem, DMA_GPA, buf, sizeof buf);
    dma(f, 0x48, SECTOR + 10);
    data_command(f, 0xc5, 0, 0, 0, 18, 18);
    expect(f, 0x04, 0, 0);
    expect_id(f, 0, 1, 2);
    g_assert_cmpmem(lba(f, 0, 0, 18), SECTOR + 10, buf, SECTOR + 10);
    g_assert_cmphex(lba(f, 0, 1, 1)[10], ==, 0);
    g_assert_cmphex(lba(f, 0, 1, 1)[SECTOR - 1], ==, 0);
    g_assert_cmpuint(f->node.ops[BLK_FLUSH], ==, 1);
    dma(f, 0x48, SECTOR);
    data_command(f, 0x49, 0, 0, 0, 2, 18); /* deleted data */
    expect(f, 0, 0, 0);
    g_assert_cmpmem(lba(f, 0, 0, 2), SECTOR, buf, SECTOR);
    dma(f, 0x48, SECTOR);
    f->node.err = ENOSPC;
    data_command(f, 0x45, 0, 0, 0, 2, 18);
    expect(f, 0x50, 0, 0);
    f->node.err = EROFS;
    dma(f, 0x48, SECTOR);
    data_command(f, 0x45, 0, 0, 0, 2, 18);
    expect(f, 0x40, 0x02, 0);
}

static void test_protected(Fixture *f, gconstpointer unused)
{
    f->node.limits.read_only = true;
    GError *error = NULL;
    g_assert_true(f->floppy->cls->change_medium(f->floppy, &f->node, false, &error));
    dma(f, 0x48, SECTOR);
    data_command(f, 0x45, 0, 0, 0, 2, 18);
    expect(f, 0x40, 0x02, 0);
    SEND(f, 0x4d, 0, 2, 18, 0x54, 0xf6);
    settle(f);
    results(f);
    expect(f, 0x40, 0x02, 0);
    SEND(f, 0x04, 0);
    results(f);
    g_assert_cmphex(f->st[0], ==, 0x78);
    g_assert_cmpuint(f->node.ops[BLK_WRITE], ==, 0);
}

static void test_other_reads(Fixture *f, gconstpointer unused)
{
    uint8_t buf[18 * SECTOR];

    dma(f, 0x44, SECTOR);
    data_command(f, 0x4c, 0, 0, 0, 3, 18); /* read deleted meets data */
    expect(f, 0, 0, 0x40);
    expect_id(f, 0, 0, 3);
    g_assert_cmpmem(guest(f, buf, SECTOR), SECTOR, lba(f, 0, 0, 3), SECTOR);
    data_command(f, 0x6c, 0, 0, 0, 3, 18);
    expect(f, 0x40, 0x80, 0x40);
    dma(f, 0x44, 18 * SECTOR);
    data_command(f, 0x42, 1, 0, 1, 1, 18);
    expect(f, 0x04, 0, 0);
    g_assert_cmpmem(guest(f, buf, sizeof buf), sizeof buf, lba(f, 0, 1, 1), sizeof buf);
    dma(f, 0x44, 2 * SECTOR);
    data_command(f, 0x42, 0, 0, 0, 9, 18); /* starts at the index all the same */
    expect(f, 0, 0x04, 0);
    g_assert_cmpmem(guest(f, buf, 2 * SECTOR), 2 * SECTOR, lba(f, 0, 0, 1), 2 * SECTOR);
    dma(f, 0x44, 0x10000);
    data_command(f, 0x42, 0, 0, 0, 1, 200);
    expect(f, 0x40, 0x04, 0);
    /* Verify moves nothing. */
    unsigned reads = f->node.ops[BLK_READ];
    data_command(f, 0x56, 0, 0, 0, 1, 18);
    expect(f, 0, 0, 0);
    g_assert_cmpuint(f->node.ops[BLK_READ] - reads, ==, 18);
    reads = f->node.ops[BLK_READ];
    SEND(f, 0xd6, 0x80, 0, 0, 17, 2, 18, 0x1b, 5); /* five, on to the other side */
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    results(f);
    expect(f, 0x04, 0, 0);
    g_assert_cmpuint(f->node.ops[BLK_READ] - reads, ==, 5);
    expect_id(f, 0, 1, 4);
    data_command(f, 0x56, 0, 0, 0, 1, 19);
    expect(f, 0x40, 0x04, 0);
}

static void test_read_id(Fixture *f, gconstpointer unused)
{
    unsigned seen = 0;

    seek(f, 9);
    for (unsigned i = 0; i < 400; i++) {
        test_advance(f->tb, 1234567);
        SEND(f, 0x4a, 4);
        settle(f);
        g_assert_cmphex(ack(f), ==, VECTOR);
        g_assert_cmpuint(results(f), ==, 7);
        expect(f, 0x04, 0, 0);
        expect_id(f, 9, 1, f->st[5]);
        g_assert_cmpuint(f->st[5], >=, 1);
        g_assert_cmpuint(f->st[5], <=, 18);
        seen |= 1u << f->st[5];
    }
    g_assert_cmphex(seen, ==, 0x7fffe);
}

static void test_format(Fixture *f, gconstpointer unused)
{
    uint8_t ids[18 * 4];

    seek(f, 2);
    for (unsigned i = 0; i < 18; i++) {
        const uint8_t id[4] = {2, 1, (uint8_t)(i + 1), 2};
        memcpy(ids + 4 * i, id, 4);
    }
    mem_write(f->tb->board.mem, DMA_GPA, ids, sizeof ids);
    dma(f, 0x48, sizeof ids);
    SEND(f, 0x4d, 4, 2, 18, 0x54, 0xf6);
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    g_assert_cmpuint(results(f), ==, 7);
    expect(f, 0x04, 0, 0);
    for (unsigned i = 0; i < 18 * SECTOR; i++)
        g_assert_cmphex(lba(f, 2, 1, 1)[i], ==, 0xf6);
    g_assert_cmphex(lba(f, 3, 0, 1)[0], !=, 0xf6);
    ids[2] = 19; /* not this image's layout */
    mem_write(f->tb->board.mem, DMA_GPA, ids, sizeof ids);
    dma(f, 0x48, sizeof ids);
    SEND(f, 0x4d, 4, 2, 18, 0x54, 0xf6);
    settle(f);
    results(f);
    expect(f, 0x54, 0, 0);
    SEND(f, 0x4d, 4, 2, 0, 0x54, 0xf6);
    settle(f);
    results(f);
    expect(f, 0x04, 0, 0);
}

static void test_non_dma(Fixture *f, gconstpointer unused)
{
    SEND(f, 0x03, 0xaf, 0x03);
    SEND(f, 0x66, 0, 0, 0, 17, 2, 18, 0x1b, 0xff);
    for (unsigned s = 17; s <= 18; s++) {
        settle(f);
        g_assert_cmphex(ack(f), ==, VECTOR);
        for (unsigned i = 0; i < SECTOR; i++) {
            g_assert_cmphex(in(f, MSR), ==, 0xf0);
            g_assert_cmphex(in(f, FIFO), ==, lba(f, 0, 0, s)[i]);
        }
    }
    g_assert_cmpuint(results(f), ==, 7);
    expect(f, 0x40, 0x80, 0);
    expect_id(f, 1, 0, 1);
    SEND(f, 0x45, 0, 0, 0, 18, 2, 18, 0x1b, 0xff);
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    for (unsigned i = 0; i < SECTOR; i++) {
        g_assert_cmphex(in(f, MSR), ==, 0xb0);
        out(f, FIFO, (uint8_t)(i * 5));
    }
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    results(f);
    expect(f, 0x40, 0x80, 0);
    for (unsigned i = 0; i < SECTOR; i++)
        g_assert_cmphex(lba(f, 0, 0, 18)[i], ==, (uint8_t)(i * 5));
}

static void test_formats(void)
{
    static const struct {
        unsigned kib, cylinders, heads, sectors, rate, cmos;
    } t[] = {{160, 40, 1, 8, 2, 1}, {180, 40, 1, 9, 1, 1}, {320, 40, 2, 8, 2, 1},
             {360, 40, 2, 9, 1, 1}, {720, 80, 2, 9, 2, 4}, {1200, 80, 2, 15, 0, 2},
             {1440, 80, 2, 18, 0, 4}, {1680, 80, 2, 21, 0, 4}, {2880, 80, 2, 36, 3, 5}};
    uint8_t buf[SECTOR];

    for (unsigned i = 0; i < G_N_ELEMENTS(t); i++) {
        Fixture f = {0};
        set_up_with(&f, t[i].kib * KIB, "drive=a");
        g_assert_cmphex(fdc_cmos_drives(f.tb->board.fdc), ==, t[i].cmos << 4);
        uint8_t c = (uint8_t)(t[i].cylinders - 1), h = (uint8_t)(t[i].heads - 1);
        out(&f, DIR, (uint8_t)t[i].rate);
        seek(&f, c);
        dma(&f, 0x44, SECTOR);
        data_command(&f, 0x46, h, c, h, (uint8_t)t[i].sectors, 99);
        expect(&f, (uint8_t)(h << 2), 0, 0);
        g_assert_cmpmem(guest(&f, buf, SECTOR), SECTOR,
                        f.node.disk + t[i].kib * KIB - SECTOR, SECTOR);
        dma(&f, 0x44, SECTOR);
        data_command(&f, 0x46, h, c, h, (uint8_t)(t[i].sectors + 1), 99);
        expect(&f, 0x40 | (uint8_t)(h << 2), 0x04, 0);
        if (!h) {
            data_command(&f, 0x46, 1, c, 1, 1, 99);
            expect(&f, 0x44, 0x01, 0);
        }
        tear_down(&f, NULL);
    }
}

/* An image that was cut: what is there can be read, the rest of the disk is bad. */
static void test_cut(void)
{
    Fixture f = {0};
    uint8_t buf[SECTOR];

    set_up_with(&f, 20 * SECTOR, "drive=a");
    g_assert_cmphex(fdc_cmos_drives(f.tb->board.fdc), ==, 0x40);
    dma(&f, 0x44, SECTOR);
    data_command(&f, 0x46, 1, 0, 1, 2, 18);
    expect(&f, 0x04, 0, 0);
    g_assert_cmpmem(guest(&f, buf, SECTOR), SECTOR, f.node.disk + 19 * SECTOR, SECTOR);
    dma(&f, 0x44, SECTOR);
    data_command(&f, 0x46, 1, 0, 1, 3, 18);
    expect(&f, 0x44, 0x20, 0x20);
    dma(&f, 0x48, SECTOR);
    data_command(&f, 0x45, 1, 0, 1, 3, 18);
    expect(&f, 0x44, 0x20, 0x20);
    tear_down(&f, NULL);
}

static void test_change(Fixture *f, gconstpointer unused)
{
    GError *error = NULL;
    BlkNode odd = {.limits = {.size = 1440 * KIB + 512, .align = 512}};
    BlkNode nothing = {.limits = {.align = 512}};
    BlkNode five = {.limits = {.size = 1200 * KIB, .align = 512}};

    g_assert_true(f->floppy->cls->change_medium(f->floppy, NULL, false, &error));
    seek(f, 1);
    g_assert_cmphex(in(f, DIR), ==, 0x80); /* steps do not help while it is empty */
    g_assert_false(f->floppy->cls->change_medium(f->floppy, &odd, false, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    g_assert_false(f->floppy->cls->change_medium(f->floppy, &nothing, false, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    g_assert_false(f->floppy->cls->change_medium(f->floppy, &five, false, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    g_assert_true(f->floppy->cls->change_medium(f->floppy, &f->node, false, &error));
    g_assert_cmphex(in(f, DIR), ==, 0x80);
    seek(f, 1); /* no step */
    g_assert_cmphex(in(f, DIR), ==, 0x80);
    seek(f, 0);
    g_assert_cmphex(in(f, DIR), ==, 0);
    out(f, DOR, 0x0c);
    g_assert_cmphex(in(f, DIR), ==, 0);
}

static void note_quiet(Device *d, void *opaque)
{
    *(bool *)opaque = true;
}

/* Saved in the middle of a command, loaded, continued. */
static void test_state(Fixture *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    uint8_t buf[4 * SECTOR];
    bool quiet = false;
    size_t used;

    f->node.hold = true;
    dma(f, 0x44, sizeof buf);
    SEND(f, 0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
    settle(f);
    g_assert_nonnull(f->node.held);
    device_quiesce(f->fdc, note_quiet, &quiet);
    g_assert_false(quiet);
    let_go(&f->node);
    g_assert_true(quiet);
    g_assert_null(f->node.held);
    state_save(f->fdc->cls->state, f->fdc, saved);
    device_reset(f->fdc, RESET_COLD);
    g_assert_true(state_load(f->fdc->cls->state, f->fdc, saved->data, saved->len, &used, NULL));
    f->node.hold = false;
    device_resume(f->fdc);
    settle(f);
    g_assert_cmphex(ack(f), ==, VECTOR);
    results(f);
    expect(f, 0, 0, 0);
    g_assert_cmpmem(guest(f, buf, sizeof buf), sizeof buf, lba(f, 0, 0, 1), sizeof buf);
}

/* CVE-2015-3456: each command byte, then thousands into the FIFO. */
static void test_venom(Fixture *f, gconstpointer unused)
{
    for (unsigned op = 0; op < 256; op++) {
        out(f, FIFO, (uint8_t)op);
        for (unsigned i = 0; i < 3000; i++)
            out(f, FIFO, op & 1 ? 0xff : (uint8_t)(i * 7 + op));
        for (unsigned i = 0; i < 600; i++)
            in(f, FIFO);
        settle(f);
        leave_reset(f);
    }
    /* READ ID, DRIVE SPECIFICATION: what comes after the command goes nowhere. */
    static const struct {
        uint8_t op, status, results;
    } famous[] = {{0x0a, 0x10, 7}, {0x8e, 0xd0, 1}};
    uint8_t before[10];
    SEND(f, 0x03, 0xaf, 0x02);
    for (unsigned k = 0; k < 2; k++) {
        SEND(f, 0x0e);
        g_assert_cmpuint(results(f), ==, 10);
        memcpy(before, f->st, 10);
        out(f, FIFO, famous[k].op);
        for (unsigned i = 0; i < 100000; i++)
            out(f, FIFO, 0x42);
        g_assert_cmphex(in(f, MSR), ==, famous[k].status);
        settle(f);
        g_assert_cmpuint(results(f), ==, famous[k].results);
        SEND(f, 0x0e);
        g_assert_cmpuint(results(f), ==, 10);
        g_assert_cmpmem(f->st, 10, before, 10);
    }
}

/* CVE-2021-3507: an EOT past the track while the terminal count never comes. */
static void test_end_of_track(Fixture *f, gconstpointer unused)
{
    dma(f, 0x54, 0x10000); /* starts over by itself */
    data_command(f, 0x46, 0, 0, 0, 17, 255);
    expect(f, 0x40, 0x04, 0);
    expect_id(f, 0, 0, 19);
    seek(f, 79);
    dma(f, 0x54, 0x10000);
    data_command(f, 0xc6, 0, 79, 0, 18, 18);
    expect(f, 0x44, 0x80, 0);
    expect_id(f, 80, 0, 1);
}

/* CVE-2021-20196: commands for a drive that is empty, and for one that is not there. */
static void test_empty(Fixture *f, gconstpointer unused)
{
    static const uint8_t ops[] = {0x46, 0x45, 0x49, 0x4c, 0x42, 0x56};

    g_assert_true(f->floppy->cls->change_medium(f->floppy, NULL, false, NULL));
    for (unsigned unit = 0; unit < 4; unit++) {
        out(f, DOR, (uint8_t)(0xfc | unit));
        for (unsigned i = 0; i < sizeof ops; i++) {
            dma(f, i == 1 || i == 2 ? 0x48 : 0x44, SECTOR);
            SEND(f, ops[i], (uint8_t)unit, 0, 0, 1, 2, 18, 0x1b, 0xff);
            settle(f);
            g_assert_cmpuint(results(f), ==, 7);
            expect(f, 0x40 | (uint8_t)unit, 0x01, 0);
        }
        SEND(f, 0x4d, (uint8_t)unit, 2, 18, 0x54, 0xf6);
        settle(f);
        results(f);
        expect(f, 0x40 | (uint8_t)unit, 0x01, 0);
        SEND(f, 0x4a, (uint8_t)unit);
        settle(f);
        results(f);
        expect(f, 0x40 | (uint8_t)unit, 0x01, 0);
        SEND(f, 0x0f, (uint8_t)unit, 255);
        settle(f);
        sense(f, 0x20 | (uint8_t)unit, 255);
    }
    g_assert_null(f->node.held);
}

/* The medium goes, or is another one, while a transfer is under way. */
static void test_removed(Fixture *f, gconstpointer unused)
{
    for (unsigned kind = 0; kind < 2; kind++) {
        bool quiet = false;

        f->node.hold = true;
        dma(f, 0x44, 4 * SECTOR);
        SEND(f, 0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
        settle(f);
        device_quiesce(f->floppy, note_quiet, &quiet);
        g_assert_false(quiet);
        let_go(&f->node);
        g_assert_true(quiet);
        f->floppy->cls->change_medium(f->floppy, kind ? NULL : &f->node, false, NULL);
        device_resume(f->floppy);
        settle(f);
        g_assert_cmphex(ack(f), ==, VECTOR);
        results(f);
        expect(f, 0x40, 0x01, 0);
        expect_id(f, 0, 0, 2);
        g_assert_null(f->node.held);
    }
}

/* Resets while a request is in flight: its end is not taken for the next command's. */
static void test_reset_in_flight(Fixture *f, gconstpointer unused)
{
    uint8_t buf[SECTOR];

    for (unsigned kind = 0; kind < 3; kind++) {
        f->node.hold = true;
        dma(f, 0x44, SECTOR);
        SEND(f, 0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff);
        settle(f);
        g_assert_nonnull(f->node.held);
        if (kind == 1)
            out(f, MSR, 0x80);
        if (kind == 2)
            device_reset(f->fdc, RESET_WARM);
        leave_reset(f);
        dma(f, 0x44, SECTOR);
        SEND(f, 0xe6, 0, 0, 0, 5, 2, 18, 0x1b, 0xff);
        settle(f);
        g_assert_cmphex(in(f, MSR), ==, 0x10);
        let_go(&f->node); /* the old one */
        g_assert_cmphex(in(f, MSR), ==, 0x10);
        g_assert_nonnull(f->node.held);
        f->node.hold = false;
        settle(f);
        g_assert_cmphex(ack(f), ==, VECTOR);
        results(f);
        expect(f, 0, 0, 0);
        expect_id(f, 0, 0, 6);
        g_assert_cmpmem(guest(f, buf, SECTOR), SECTOR, lba(f, 0, 0, 5), SECTOR);
    }
}

static void test_two_drives(Fixture *f, gconstpointer unused)
{
    GError *error = NULL;
    Device *d = device_new(device_class_find("floppy"), "again", &f->tb->board);

    g_assert_false(device_realize(d, &error)); /* unit 0 is taken */
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    device_free(d);
    test_board_add(f->tb, "floppy", "unit=1");
    g_assert_cmphex(fdc_cmos_drives(f->tb->board.fdc), ==, 0x44);
    out(f, DOR, 0x2d);
    g_assert_cmphex(in(f, DIR), ==, 0x80);
    SEND(f, 0x07, 1);
    settle(f);
    sense(f, 0x21, 0);
}

#define ADD(path, fn) g_test_add("/fdc/" path, Fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("registers", test_registers);
    ADD("reset", test_reset);
    ADD("seek", test_seek);
    ADD("read", test_read);
    ADD("lookup", test_lookup);
    ADD("write", test_write);
    ADD("protected", test_protected);
    ADD("other-reads", test_other_reads);
    ADD("read-id", test_read_id);
    ADD("format", test_format);
    ADD("non-dma", test_non_dma);
    g_test_add_func("/fdc/formats", test_formats);
    g_test_add_func("/fdc/cut", test_cut);
    ADD("change", test_change);
    ADD("two-drives", test_two_drives);
    ADD("state", test_state);
    ADD("venom", test_venom);
    ADD("end-of-track", test_end_of_track);
    ADD("empty", test_empty);
    ADD("removed", test_removed);
    ADD("reset-in-flight", test_reset_in_flight);
    return g_test_run();
}
