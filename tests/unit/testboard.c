/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See testboard.h. */
#include <string.h>

#include "lodge/num.h"
#include "testboard.h"

#define TEST_WALL_NS (INT64_C(946782245) * NS_PER_SEC) /* 2000-01-02 03:04:05 UTC */

static void record_msi(void *opaque, uint64_t addr, uint32_t data)
{
    TestBoard *tb = opaque;
    TestMsi m = {addr, data};

    g_mutex_lock(&tb->msis_lock); /* loops beside each other send them */
    g_array_append_val(tb->msis, m);
    g_mutex_unlock(&tb->msis_lock);
}

static void record_extint(void *opaque, bool asserted)
{
    TestBoard *tb = opaque;
    tb->extint = asserted;
}

static void record_request(Board *b, BoardRequest what, int arg)
{
    TestBoard *tb = b->opaque;
    tb->requests[what]++;
    tb->last_arg = arg;
}

static void *find_backend(Board *b, const char *name)
{
    TestBoard *tb = b->opaque;
    return g_hash_table_lookup(tb->backends, name);
}

static BlkNode *find_blk(Board *b, const char *name)
{
    return find_backend(b, name);
}

static NetPort *find_net(Board *b, const char *name)
{
    return find_backend(b, name);
}

static Chan *find_chan(Board *b, const char *name)
{
    return find_backend(b, name);
}

TestBoard *test_board_new(uint64_t ram_bytes)
{
    TestBoard *tb = g_new0(TestBoard, 1);
    Board *b = &tb->board;
    GError *error = NULL;
    b->mem = mem_map_new();
    if (ram_bytes) {
        MemBlock *ram = mem_block_new("ram", ram_bytes, 0, &error);
        g_assert_no_error(error);
        mem_map_add(b->mem, ram, 0, 0, ram_bytes, &error);
        g_assert_no_error(error);
    }
    b->pio = bus_new("port", 65536);
    b->mmio = bus_new("mmio", UINT64_C(1) << 52);
    b->irq = irq_new();
    b->clock = lodge_clock_new_manual(TEST_WALL_NS);
    b->timers = timer_queue_new(b->clock, NULL, NULL);
    b->cpus = 1;
    b->ram_below_4g = ram_bytes;
    b->blk = find_blk;
    b->net = find_net;
    b->chan = find_chan;
    b->request = record_request;
    b->opaque = tb;
    tb->pio = bus_reader_new(b->pio);
    tb->mmio = bus_reader_new(b->mmio);
    tb->devices = g_ptr_array_new();
    tb->msis = g_array_new(FALSE, FALSE, sizeof(TestMsi));
    tb->backends = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    IrqHooks hooks = {.msi = record_msi, .extint = record_extint, .opaque = tb};
    irq_set_hooks(b->irq, &hooks);
    return tb;
}

void test_board_free(TestBoard *tb)
{
    if (!tb)
        return;
    while (tb->devices->len) {
        device_free(g_ptr_array_index(tb->devices, tb->devices->len - 1));
        g_ptr_array_set_size(tb->devices, (gint)tb->devices->len - 1);
    }
    g_ptr_array_free(tb->devices, TRUE);
    g_array_free(tb->msis, TRUE);
    g_hash_table_destroy(tb->backends);
    bus_reader_free(tb->pio);
    bus_reader_free(tb->mmio);
    bus_free(tb->board.pio);
    bus_free(tb->board.mmio);
    irq_free(tb->board.irq);
    timer_queue_free(tb->board.timers);
    lodge_clock_free(tb->board.clock);
    mem_map_free(tb->board.mem);
    g_free(tb);
}

Device *test_board_add(TestBoard *tb, const char *cls, const char *props)
{
    GError *error = NULL;
    const DeviceClass *c = device_class_find(cls);
    g_assert_nonnull(c);
    Device *d = device_new(c, NULL, &tb->board);
    g_auto(GStrv) pairs = g_strsplit(props ? props : "", ",", -1);
    for (char **p = pairs; *p; p++) {
        char *eq = strchr(*p, '=');
        g_assert_nonnull(eq);
        *eq = '\0';
        device_set(d, *p, eq + 1, &error);
        g_assert_no_error(error);
    }
    device_realize(d, &error);
    g_assert_no_error(error);
    g_ptr_array_add(tb->devices, d);
    return d;
}

void test_board_backend(TestBoard *tb, const char *name, void *backend)
{
    g_hash_table_insert(tb->backends, g_strdup(name), backend);
}

uint64_t test_in(TestBoard *tb, uint16_t port, unsigned size)
{
    return bus_read(tb->pio, port, size);
}

void test_out(TestBoard *tb, uint16_t port, unsigned size, uint64_t val)
{
    bus_write(tb->pio, port, size, val);
}

uint64_t test_peek(TestBoard *tb, uint64_t addr, unsigned size)
{
    return bus_read(tb->mmio, addr, size);
}

void test_poke(TestBoard *tb, uint64_t addr, unsigned size, uint64_t val)
{
    bus_write(tb->mmio, addr, size, val);
}

void test_advance(TestBoard *tb, int64_t ns)
{
    timer_queue_advance(tb->board.timers, ns);
}

uint32_t test_cfg_read(TestBoard *tb, uint8_t devfn, uint8_t reg, unsigned size)
{
    test_out(tb, 0xcf8, 4, 0x80000000u | (uint32_t)devfn << 8 | (reg & 0xfcu));
    return (uint32_t)test_in(tb, (uint16_t)(0xcfc + (reg & 3)), size);
}

void test_cfg_write(TestBoard *tb, uint8_t devfn, uint8_t reg, unsigned size, uint32_t val)
{
    test_out(tb, 0xcf8, 4, 0x80000000u | (uint32_t)devfn << 8 | (reg & 0xfcu));
    test_out(tb, (uint16_t)(0xcfc + (reg & 3)), size, val);
}

void test_pic_auto_eoi(TestBoard *tb)
{
    for (unsigned port = 0x20; port <= 0xa0; port += 0x80) {
        test_out(tb, port, 1, 0x11);
        test_out(tb, port + 1, 1, port == 0x20 ? 0x20 : 0x28);
        test_out(tb, port + 1, 1, port == 0x20 ? 4 : 2);
        test_out(tb, port + 1, 1, 3); /* AEOI */
    }
}
