/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The firmware configuration device through its two ports. */
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
    g_assert_cmphex(load_le32(b), ==, 1);
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
    g_assert_true(fw_cfg_add_file(f, "etc/one", "first", 5, &error));
    g_assert_true(fw_cfg_add_file(f, "etc/two", "2", 1, &error));
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
        g_autofree char *name = g_strdup_printf("file-%u", i);
        g_assert_true(fw_cfg_add_file(f, name, NULL, 0, &error));
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
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fw-cfg/items", test_items);
    g_test_add_func("/fw-cfg/ports", test_ports);
    g_test_add_func("/fw-cfg/files", test_files);
    g_test_add_func("/fw-cfg/state", test_state);
    return g_test_run();
}
