/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The firmware configuration device through its two ports. */
#include <stdio.h>
#include <string.h>

#include "testboard.h"

#include "fw_cfg.h"
#include "lodge/error.h"
#include "lodge/num.h"
#include "pc_map.h"

#define SELECT PC_PORT_FW_CFG
#define DATA (PC_PORT_FW_CFG + 1)

static void item_read(TestBoard *tb, uint16_t key, void *to, size_t len)
{
    uint8_t *p = to;
    test_out(tb, SELECT, 2, key);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)test_in(tb, DATA, 1);
}

static void test_items(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    uint8_t b[9];
    tb->board.cpus = 3;
    tb->board.ram_below_4g = 3 * GIB;
    tb->board.ram_above_4g = 5 * GIB;
    test_board_add(tb, "fw-cfg", NULL);
    g_assert_nonnull(tb->board.fw_cfg);
    item_read(tb, FW_CFG_SIGNATURE, b, 5);
    g_assert_cmpmem(b, 5, "QEMU\0", 5);
    item_read(tb, FW_CFG_ID, b, 4);
    g_assert_cmphex(load_le32(b), ==, 3);
    item_read(tb, FW_CFG_RAM_SIZE, b, 9);
    g_assert_cmphex(load_le64(b), ==, 8 * GIB);
    g_assert_cmphex(b[8], ==, 0);
    item_read(tb, FW_CFG_NB_CPUS, b, 2);
    g_assert_cmpuint(load_le16(b), ==, 3);
    item_read(tb, FW_CFG_MAX_CPUS, b, 2);
    g_assert_cmpuint(load_le16(b), ==, 3);
    item_read(tb, 0x7777, b, 4); /* no such item */
    g_assert_cmphex(load_le32(b), ==, 0);
    item_read(tb, FW_CFG_SIGNATURE | 0x4000, b, 4); /* the write channel */
    g_assert_cmphex(load_le32(b), ==, 0);
    fw_cfg_set_u32(tb->board.fw_cfg, 0x8000, 0x01020304);
    item_read(tb, 0x8000, b, 4);
    g_assert_cmphex(load_le32(b), ==, 0x01020304);
    fw_cfg_set_u16(tb->board.fw_cfg, FW_CFG_NB_CPUS, 9);
    item_read(tb, FW_CFG_NB_CPUS, b, 2);
    g_assert_cmpuint(load_le16(b), ==, 9);
}

static void test_ports(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    Device *d = test_board_add(tb, "fw-cfg", NULL);
    test_out(tb, SELECT, 2, FW_CFG_SIGNATURE);
    g_assert_cmphex(test_in(tb, DATA, 1), ==, 'Q');
    g_assert_cmphex(test_in(tb, SELECT, 1), ==, 0xff);
    g_assert_cmphex(test_in(tb, SELECT, 2), ==, 0xffff);
    test_out(tb, SELECT, 1, FW_CFG_ID); /* half a selector */
    test_out(tb, DATA, 1, 'X');         /* items are read-only */
    g_assert_cmphex(test_in(tb, DATA, 1), ==, 'E');
    device_reset(d, RESET_WARM);
    g_assert_cmphex(test_in(tb, DATA, 1), ==, 'Q');
}

static void test_files(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    test_board_add(tb, "fw-cfg", NULL);
    FwCfg *f = tb->board.fw_cfg;
    GError *error = NULL;
    uint8_t b[4 + 2 * 64], text[8];
    item_read(tb, FW_CFG_FILE_DIR, b, 4);
    g_assert_cmphex(load_be32(b), ==, 0);
    g_assert_true(fw_cfg_add_file(f, "etc/two", "2", 1, &error));
    g_assert_true(fw_cfg_add_file(f, "etc/one", "first", 5, &error)); /* comes before it */
    item_read(tb, FW_CFG_FILE_DIR, b, sizeof b);
    g_assert_cmphex(load_be32(b), ==, 2);
    g_assert_cmphex(load_be32(b + 4), ==, 5);
    g_assert_cmpstr((char *)b + 4 + 8, ==, "etc/one");
    g_assert_cmphex(load_be32(b + 68), ==, 1);
    g_assert_cmpstr((char *)b + 68 + 8, ==, "etc/two");
    item_read(tb, load_be16(b + 8), text, 6);
    g_assert_cmpmem(text, 6, "first\0", 6);
    item_read(tb, load_be16(b + 72), text, 2);
    g_assert_cmpmem(text, 2, "2\0", 2);

    g_assert_false(fw_cfg_add_file(f, "etc/two", "3", 1, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_clear_error(&error);
    g_autofree char *long_name = g_strnfill(56, 'n');
    g_assert_false(fw_cfg_add_file(f, long_name, "3", 1, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    long_name[55] = '\0';
    g_assert_true(fw_cfg_add_file(f, long_name, "3", 1, &error));
    for (unsigned i = 3; i < 64; i++) {
        g_autofree char *name = g_strdup_printf("file-%u", i * 29 % 64);
        uint8_t value = (uint8_t)(i * 29 % 64);
        g_assert_true(fw_cfg_add_file(f, name, &value, 1, &error));
    }
    uint8_t all[4 + 64 * 64];
    item_read(tb, FW_CFG_FILE_DIR, all, sizeof all);
    g_assert_cmpuint(load_be32(all), ==, 64);
    for (unsigned i = 0; i < 64; i++) {
        const uint8_t *e = all + 4 + i * 64;
        const char *name = (const char *)e + 8;
        unsigned number;
        g_assert_true(i == 0 || strcmp(name - 64, name) < 0);
        item_read(tb, load_be16(e + 4), text, 1);
        if (sscanf(name, "file-%u", &number) == 1)
            g_assert_cmpuint(text[0], ==, number);
    }
    g_assert_false(fw_cfg_add_file(f, "one-more", "3", 1, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
}

static void test_state(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    Device *d = test_board_add(tb, "fw-cfg", NULL);
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    size_t used;
    uint8_t b[2];
    fw_cfg_set(tb->board.fw_cfg, 0x8001, "abc", 3);
    item_read(tb, 0x8001, b, 2);
    state_save(d->cls->state, d, saved);
    device_reset(d, RESET_COLD);
    state_load(d->cls->state, d, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    g_assert_cmphex(test_in(tb, DATA, 1), ==, 'c');
    g_assert_cmphex(test_in(tb, DATA, 1), ==, 0);
    /* The other side's item is shorter: the offset points past it. */
    g_byte_array_set_size(saved, 0);
    state_save(d->cls->state, d, saved);
    fw_cfg_set(tb->board.fw_cfg, 0x8001, "a", 1);
    g_assert_false(state_load(d->cls->state, d, saved->data, saved->len, &used, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
    g_clear_error(&error);
}

/* ---- DMA ---- */

#define RAM (1 * MIB)
#define DESC 0x1000u
#define TO 0x2000u
#define ERROR 1u
#define READ 2u
#define SKIP 4u
#define SELECT_ITEM 8u
#define WRITE 16u

/* Descriptor at @at; the control word that it ends with. */
static uint32_t dma_at(TestBoard *tb, uint64_t at, uint32_t control, uint32_t len, uint64_t to)
{
    uint8_t d[16] = {0};
    store_be32(d, control);
    store_be32(d + 4, len);
    store_be64(d + 8, to);
    g_assert_true(mem_write(tb->board.mem, at, d, sizeof d));
    test_out(tb, FW_CFG_PORT_DMA, 4, __builtin_bswap32((uint32_t)(at >> 32)));
    test_out(tb, FW_CFG_PORT_DMA + 4, 4, __builtin_bswap32((uint32_t)at));
    mem_read(tb->board.mem, at, d, 4);
    return load_be32(d);
}

static uint32_t dma(TestBoard *tb, uint32_t control, uint32_t len, uint64_t to)
{
    return dma_at(tb, DESC, control, len, to);
}

static void expect(TestBoard *tb, uint64_t at, const char *bytes, size_t len)
{
    g_autofree uint8_t *got = g_malloc(len);
    g_assert_true(mem_read(tb->board.mem, at, got, len));
    g_assert_cmpmem(got, len, bytes, len);
}

static void test_dma(void)
{
    g_autoptr(TestBoard) tb = test_board_new(RAM);
    Device *d = test_board_add(tb, "fw-cfg", NULL);
    fw_cfg_set(tb->board.fw_cfg, 0x8001, "abcdefgh", 8);
    uint32_t item = 0x80010000u | SELECT_ITEM;
    /* The address register tells what is behind it. */
    g_assert_cmphex(test_in(tb, FW_CFG_PORT_DMA, 4), ==, load_le32("QEMU"));
    g_assert_cmphex(test_in(tb, FW_CFG_PORT_DMA + 4, 4), ==, load_le32(" CFG"));
    g_assert_cmphex(test_in(tb, FW_CFG_PORT_DMA + 6, 1), ==, 'F');

    mem_write(tb->board.mem, TO, "................", 16);
    g_assert_cmphex(dma(tb, item | READ, 4, TO), ==, 0);
    expect(tb, TO, "abcd....", 8);
    g_assert_cmphex(dma(tb, READ, 2, TO), ==, 0); /* goes on */
    expect(tb, TO, "efcd....", 8);
    g_assert_cmphex(test_in(tb, DATA, 1), ==, 'g'); /* one offset for both ways */
    g_assert_cmphex(dma(tb, item, 0, 0), ==, 0);
    g_assert_cmphex(dma(tb, SKIP, 5, 0), ==, 0);
    g_assert_cmphex(dma(tb, READ, 6, TO), ==, 0); /* past the end: zeros */
    expect(tb, TO, "fgh\0\0\0..", 8);
    g_assert_cmphex(dma(tb, item | SKIP, UINT32_MAX, 0), ==, 0);
    g_assert_cmphex(test_in(tb, DATA, 1), ==, 0);
    g_assert_cmphex(dma(tb, 0x77770000u | SELECT_ITEM | READ, 2, TO), ==, 0); /* no such item */
    expect(tb, TO, "\0\0h\0\0\0..", 8);
    g_assert_cmphex(dma(tb, item | READ, 0, UINT64_MAX), ==, 0); /* nothing, nowhere */
    g_assert_cmphex(dma(tb, 0, 100, TO), ==, 0);                 /* asks for nothing */
    expect(tb, TO, "\0\0h\0\0\0..", 8);
    g_assert_cmpuint(d->faults, ==, 0);
}

static void test_dma_hostile(void)
{
    g_autoptr(TestBoard) tb = test_board_new(RAM);
    Device *d = test_board_add(tb, "fw-cfg", NULL);
    fw_cfg_set(tb->board.fw_cfg, 0x8001, "abcdefgh", 8);
    uint32_t item = 0x80010000u | SELECT_ITEM;
    mem_write(tb->board.mem, TO, "........", 8);
    g_assert_cmphex(dma(tb, item | WRITE, 4, TO), ==, ERROR);
    g_assert_cmphex(dma(tb, item | READ, 4, RAM - 2), ==, ERROR);
    g_assert_cmphex(dma(tb, item | READ, 4, RAM), ==, ERROR);
    g_assert_cmphex(dma(tb, item | READ, 4, UINT64_MAX - 1), ==, ERROR);
    g_assert_cmphex(dma(tb, item | READ, 16, UINT64_MAX - 7), ==, ERROR); /* would wrap */
    expect(tb, TO, "........", 8);
    /* Ports that share addresses with memory are not reached by DMA, nor is the descriptor read
     * twice: its own bytes are its target, and the control word still ends right. */
    g_assert_cmphex(dma_at(tb, DESC, item | READ, 8, DESC), ==, 0);
    expect(tb, DESC, "\0\0\0\0efgh", 8);
    g_assert_cmphex(dma_at(tb, DESC, item | READ, 8, DESC + 4), ==, 0);
    expect(tb, DESC, "\0\0\0\0abcdefgh", 12);
    /* Descriptors that are not in memory, wholly or partly. */
    unsigned faults = d->faults;
    test_out(tb, FW_CFG_PORT_DMA + 4, 4, __builtin_bswap32(RAM - 8));
    test_out(tb, FW_CFG_PORT_DMA, 4, UINT32_MAX);
    test_out(tb, FW_CFG_PORT_DMA + 4, 4, UINT32_MAX);
    g_assert_cmpuint(d->faults, ==, faults + 2);
    /* The upper half is used once: the low half alone starts the next. */
    g_assert_cmphex(dma(tb, item | READ, 4, TO), ==, 0);
    test_out(tb, FW_CFG_PORT_DMA, 4, __builtin_bswap32(1));
    test_out(tb, FW_CFG_PORT_DMA + 4, 4, __builtin_bswap32(DESC));
    g_assert_cmpuint(d->faults, ==, ++faults + 2);
    test_out(tb, FW_CFG_PORT_DMA + 4, 4, __builtin_bswap32(DESC));
    g_assert_cmpuint(d->faults, ==, faults + 2);
    /* Narrow writes start nothing. */
    test_out(tb, FW_CFG_PORT_DMA + 4, 2, 0x1000);
    test_out(tb, FW_CFG_PORT_DMA + 7, 1, 0x10);
    g_assert_cmpuint(d->faults, ==, faults + 2);
}

/* 4 GiB of zeros cost a bounded time: refused, and not a byte written past the ceiling. */
static void test_dma_endless(void)
{
    g_autoptr(TestBoard) tb = test_board_new(64 * MIB);
    test_board_add(tb, "fw-cfg", NULL);
    fw_cfg_set(tb->board.fw_cfg, 0x8001, "ab", 2);
    mem_write(tb->board.mem, TO, "........", 8);
    g_assert_cmphex(dma(tb, 0x80010000u | SELECT_ITEM | READ, UINT32_MAX, TO), ==, ERROR);
    expect(tb, TO, "ab......", 8);
    g_assert_cmphex(dma(tb, READ, 16 * MIB, TO), ==, 0);
    expect(tb, TO, "\0\0\0\0\0\0\0\0", 8);
    g_assert_cmphex(dma(tb, READ, 16 * MIB + 1, TO), ==, ERROR);
}

/* The first half of an address survives a snapshot. */
static void test_dma_state(void)
{
    g_autoptr(TestBoard) tb = test_board_new(RAM);
    Device *d = test_board_add(tb, "fw-cfg", NULL);
    g_autoptr(GByteArray) saved = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    size_t used;
    test_out(tb, FW_CFG_PORT_DMA, 4, __builtin_bswap32(1));
    state_save(d->cls->state, d, saved);
    device_reset(d, RESET_COLD);
    state_load(d->cls->state, d, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    test_out(tb, FW_CFG_PORT_DMA + 4, 4, __builtin_bswap32(DESC)); /* 4 GiB + DESC: no memory */
    g_assert_cmpuint(d->faults, ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fw-cfg/items", test_items);
    g_test_add_func("/fw-cfg/ports", test_ports);
    g_test_add_func("/fw-cfg/files", test_files);
    g_test_add_func("/fw-cfg/state", test_state);
    g_test_add_func("/fw-cfg/dma", test_dma);
    g_test_add_func("/fw-cfg/dma-hostile", test_dma_hostile);
    g_test_add_func("/fw-cfg/dma-endless", test_dma_endless);
    g_test_add_func("/fw-cfg/dma-state", test_dma_state);
    return g_test_run();
}
