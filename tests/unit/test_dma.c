/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 8237 pair: programmed through its ports, driven by a device of the test's. */
#include <string.h>

#include "testboard.h"

#include "dma_i8237.h"
#include "lodge/num.h"

#define RAM (MIB)
#define WRITE 0x44 /* single, device to memory */
#define READ 0x48

typedef struct Fixture {
    TestBoard *tb;
    IsaDma *dma;
    Device *d;
} Fixture;

static void set_up(Fixture *f, gconstpointer unused)
{
    f->tb = test_board_new(RAM);
    f->d = test_board_add(f->tb, "i8237", NULL);
    f->dma = f->tb->board.dma;
    g_assert_nonnull(f->dma);
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    test_board_free(f->tb);
}

static uint8_t in(Fixture *f, uint16_t port)
{
    return (uint8_t)test_in(f->tb, port, 1);
}

static void out(Fixture *f, uint16_t port, uint8_t val)
{
    test_out(f->tb, port, 1, val);
}

static uint16_t in16(Fixture *f, uint16_t port)
{
    uint8_t low = in(f, port);

    return (uint16_t)(low | in(f, port) << 8);
}

/* Channel @ch for @count + 1 units at @addr; mode without channel. */
static void program(Fixture *f, unsigned ch, uint8_t mode, uint32_t addr, uint16_t count)
{
    static const uint8_t page[] = {0x87, 0x83, 0x81, 0x82, 0x8f, 0x8b, 0x89, 0x8a};
    unsigned step = ch < 4 ? 1 : 2, base = ch < 4 ? 0 : 0xc0, i = ch % 4;
    uint16_t counter = (uint16_t)(ch < 4 ? addr : addr >> 1);

    out(f, base + 10 * step, 4 | i);
    out(f, base + 12 * step, 0);
    out(f, base + 11 * step, mode | i);
    out(f, base + 2 * i * step, counter & 0xff);
    out(f, base + 2 * i * step, counter >> 8);
    out(f, base + (2 * i + 1) * step, count & 0xff);
    out(f, base + (2 * i + 1) * step, count >> 8);
    out(f, page[ch], (uint8_t)(addr >> 16));
    out(f, base + 10 * step, i);
}

static void pattern(uint8_t *p, size_t n, uint8_t seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(seed + i * 7 + i / 256);
}

static void guest_read(Fixture *f, gpa_t at, void *to, size_t n)
{
    g_assert_true(mem_read(f->tb->board.mem, at, to, n));
}

static void guest_write(Fixture *f, gpa_t at, const void *from, size_t n)
{
    g_assert_true(mem_write(f->tb->board.mem, at, from, n));
}

static void test_registers(Fixture *f, gconstpointer unused)
{
    out(f, 0x0c, 0);
    out(f, 0x04, 0x34);
    out(f, 0x04, 0x12);
    out(f, 0x05, 0x78);
    out(f, 0x05, 0x56);
    g_assert_cmphex(in16(f, 4), ==, 0x1234);
    g_assert_cmphex(in16(f, 5), ==, 0x5678);
    in(f, 4);
    out(f, 0x0c, 0); /* the flip-flop goes back to the low half */
    g_assert_cmphex(in16(f, 4), ==, 0x1234);
    for (uint16_t port = 0x81; port < 0x90; port++)
        out(f, port, (uint8_t)(port * 3));
    for (uint16_t port = 0x81; port < 0x90; port++)
        g_assert_cmphex(in(f, port), ==, (uint8_t)(port * 3));
    g_assert_cmphex(in(f, 0x80), ==, 0xff); /* not ours */
    /* The second chip on every second port, aliased on the odd ones. */
    out(f, 0xd8, 0);
    out(f, 0xc4, 0xcd);
    out(f, 0xc5, 0xab);
    g_assert_cmphex(in16(f, 0xc4), ==, 0xabcd);
    g_assert_cmphex(in(f, 0x0d), ==, 0);
    g_assert_cmphex(in(f, 0x0f), ==, 0xff);
    out(f, 0x09, 6);
    g_assert_cmphex(in(f, 0x08), ==, 0x40);
    out(f, 0x09, 2);
    g_assert_cmphex(in(f, 0x08), ==, 0);
    isa_dma_request(f->dma, 6, true);
    g_assert_cmphex(in(f, 0xd0), ==, 0x40);
    isa_dma_request(f->dma, 6, false);
    g_assert_cmphex(in(f, 0xd0), ==, 0);
}

static void test_to_memory(Fixture *f, gconstpointer unused)
{
    uint8_t buf[512], got[520];
    bool tc = true;

    pattern(buf, sizeof buf, 3);
    program(f, 2, WRITE, 0x23400, 511);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 200, &tc), ==, 200);
    g_assert_false(tc);
    g_assert_cmphex(in16(f, 4), ==, 0x3400 + 200);
    g_assert_cmphex(in16(f, 5), ==, 311);
    g_assert_cmphex(in(f, 8), ==, 0);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf + 200, 512, &tc), ==, 312);
    g_assert_true(tc);
    guest_read(f, 0x23400, got, sizeof got);
    g_assert_cmpmem(got, 512, buf, 512);
    g_assert_cmphex(got[512], ==, 0);
    g_assert_cmphex(in16(f, 5), ==, 0xffff);
    g_assert_cmphex(in(f, 8), ==, 0x04);
    g_assert_cmphex(in(f, 8), ==, 0x00);
    /* Terminal count has masked it. */
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 10, &tc), ==, 0);
    g_assert_false(tc);
    out(f, 0x0a, 2); /* open again it has 64 KiB to go */
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 10, &tc), ==, 10);
}

static void test_from_memory(Fixture *f, gconstpointer unused)
{
    uint8_t buf[256], got[256];
    bool tc;

    pattern(buf, sizeof buf, 9);
    guest_write(f, 0x40000 - 100, buf, sizeof buf);
    /* Words: the counter wraps at 128 KiB, the page's bit 0 does not count. */
    program(f, 5, READ, 0x3ff9c, 127);
    memset(got, 0, sizeof got);
    g_assert_cmpuint(isa_dma_read(f->dma, 5, got, 99, &tc), ==, 98);
    g_assert_false(tc);
    g_assert_cmpmem(got, 98, buf, 98);
    guest_write(f, 0x20000, "wrapped", 8);
    g_assert_cmpuint(isa_dma_read(f->dma, 5, got, 10, &tc), ==, 10);
    g_assert_cmpmem(got + 2, 8, "wrapped", 8);
    /* Bytes wrap at 64 KiB. */
    program(f, 1, READ, 0x3ff9c, 255);
    guest_write(f, 0x30000, buf, sizeof buf);
    g_assert_cmpuint(isa_dma_read(f->dma, 1, got, 256, &tc), ==, 256);
    g_assert_true(tc);
    g_assert_cmpmem(got, 100, buf, 100);
    g_assert_cmpmem(got + 100, 156, buf, 156);
    /* Backwards. */
    program(f, 3, READ | 0x20, 0x30003, 5);
    g_assert_cmpuint(isa_dma_read(f->dma, 3, got, 256, &tc), ==, 6);
    g_assert_true(tc);
    for (unsigned i = 0; i < 4; i++)
        g_assert_cmphex(got[i], ==, buf[3 - i]);
    g_assert_cmphex(in16(f, 6), ==, 0xfffd);
}

static void test_autoinit(Fixture *f, gconstpointer unused)
{
    uint8_t buf[64], got[16];
    bool tc;

    pattern(buf, sizeof buf, 1);
    program(f, 0, WRITE | 0x10, 0x1000, 15);
    g_assert_cmpuint(isa_dma_write(f->dma, 0, buf, 64, &tc), ==, 16);
    g_assert_true(tc);
    g_assert_cmphex(in16(f, 0), ==, 0x1000);
    g_assert_cmphex(in16(f, 1), ==, 15);
    g_assert_cmpuint(isa_dma_write(f->dma, 0, buf + 16, 48, &tc), ==, 16);
    guest_read(f, 0x1000, got, 16);
    g_assert_cmpmem(got, 16, buf + 16, 16);
}

static void test_refused(Fixture *f, gconstpointer unused)
{
    uint8_t buf[32], got[32];
    bool tc;

    memset(buf, 0x5a, sizeof buf);
    program(f, 2, READ, 0x5000, 31);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 32, &tc), ==, 0); /* the other direction */
    program(f, 2, 0xc0, 0x5000, 31);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 32, &tc), ==, 0); /* cascade */
    program(f, 2, WRITE, 0x5000, 31);
    out(f, 0x08, 4);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 32, &tc), ==, 0); /* disabled */
    out(f, 0x08, 0);
    out(f, 0x0f, 4);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 32, &tc), ==, 0); /* masked */
    out(f, 0x0e, 0);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 8, &tc), ==, 8);
    out(f, 0x0d, 0);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 8, &tc), ==, 0); /* master clear masks */
    g_assert_cmphex(in16(f, 5), ==, 23); /* and leaves the counters */
    /* Verify counts; memory stays, the device gets ones. */
    program(f, 2, 0x40, 0x6000, 31);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 8, &tc), ==, 8);
    g_assert_cmpuint(isa_dma_read(f->dma, 2, got, 32, &tc), ==, 24);
    g_assert_true(tc);
    g_assert_cmphex(got[0] & got[23], ==, 0xff);
    guest_read(f, 0x6000, got, 32);
    g_assert_cmphex(got[0], ==, 0);
}

/* Past the end of memory: ones are read, writes vanish, what is memory is not harmed. */
static void test_no_memory(Fixture *f, gconstpointer unused)
{
    uint8_t buf[64], got[64];
    bool tc;

    pattern(buf, sizeof buf, 5);
    program(f, 5, WRITE, RAM - 32, 31);
    g_assert_cmpuint(isa_dma_write(f->dma, 5, buf, 64, &tc), ==, 64);
    guest_read(f, RAM - 32, got, 32);
    g_assert_cmpmem(got, 32, buf, 32);
    program(f, 1, READ, 0xfe0000, 63);
    g_assert_cmpuint(isa_dma_read(f->dma, 1, got, 64, &tc), ==, 64);
    g_assert_true(tc);
    g_assert_cmphex(got[0] & got[63], ==, 0xff);
    /* A page of memory before a hole still gives its bytes. */
    program(f, 1, READ | 0x20, 0x100001, 7);
    g_assert_cmpuint(isa_dma_read(f->dma, 1, got, 4, &tc), ==, 4);
    program(f, 6, READ, RAM - 32, 31);
    g_assert_cmpuint(isa_dma_read(f->dma, 6, got, 64, &tc), ==, 64);
}

static void test_reset(Fixture *f, gconstpointer unused)
{
    uint8_t buf[8] = {0};
    bool tc;

    program(f, 2, WRITE, 0x5000, 31);
    isa_dma_request(f->dma, 2, true);
    device_reset(f->d, RESET_WARM);
    g_assert_cmphex(in(f, 8), ==, 0x40); /* the pin is the device's */
    g_assert_cmphex(in(f, 0x81), ==, 0);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 8, &tc), ==, 0);
}

static void test_state(Fixture *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    uint8_t buf[40] = {1};
    size_t used;
    bool tc;

    program(f, 2, WRITE, 0x5000, 31);
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 8, &tc), ==, 8);
    state_save(f->d->cls->state, f->d, saved);
    device_reset(f->d, RESET_COLD);
    g_assert_true(state_load(f->d->cls->state, f->d, saved->data, saved->len, &used, NULL));
    g_assert_cmpuint(isa_dma_write(f->dma, 2, buf, 40, &tc), ==, 24);
    g_assert_true(tc);
}

#define ADD(path, fn) g_test_add("/dma/" path, Fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("registers", test_registers);
    ADD("to-memory", test_to_memory);
    ADD("from-memory", test_from_memory);
    ADD("autoinit", test_autoinit);
    ADD("refused", test_refused);
    ADD("no-memory", test_no_memory);
    ADD("reset", test_reset);
    ADD("state", test_state);
    return g_test_run();
}
