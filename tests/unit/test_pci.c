/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The PCI bus, its bridges and MSI-X through the configuration window. */
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "testboard.h"

#include "lodge/error.h"
#include "lodge/num.h"

#include "pc_map.h"
#include "pci.h"

#define WINDOW 0xcf8
#define RESET_PORT 0xcf9
#define DATA 0xcfc
#define DEVFN_ISA (1u << 3)
#define VENDOR 0x1af4
#define ABSENT 0xffffffffu

/* A function with a memory BAR of 16 KiB, an I/O BAR of 32 ports, a small memory BAR, MSI-X. */
typedef struct Probe {
    PciDev pci;
    uint64_t last_off, last_val;
    unsigned writes, cfg_writes, moves;
    unsigned cfg_off, cfg_len;
    int slot;
    unsigned pin, vectors;
    const char *romfile;
} Probe;

#define MEM_BAR 0
#define IO_BAR 1
#define SMALL_BAR 2
#define MSIX_BAR 4
#define W1C_REG 0xf0

static uint64_t probe_read(void *owner, uint64_t off, unsigned size)
{
    return off + 0x40;
}

static void probe_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Probe *p = owner;
    p->writes++;
    p->last_off = off;
    p->last_val = val;
}

static const BusRegionOps probe_ops = {probe_read, probe_write, 1 | 2 | 4};

static void probe_cfg_written(PciDev *d, unsigned off, unsigned len)
{
    Probe *p = (Probe *)d;
    lock_assert_held(&d->dev.lock);
    p->cfg_writes++;
    p->cfg_off = off;
    p->cfg_len = len;
}

static void probe_bars_moved(PciDev *d)
{
    lock_assert_held(&d->dev.lock);
    ((Probe *)d)->moves++;
}

static bool probe_realize(Device *dev, GError **error)
{
    Probe *p = (Probe *)dev;
    PciDev *d = &p->pci;
    if (!pci_realize(d, p->slot, 0, VENDOR, 0x1234, 0x020000, 1, p->pin, error))
        return false;
    pci_set_subsystem(d, 0x1af4, 0x5678);
    pci_add_bar(d, MEM_BAR, PCI_BAR_MMIO, 0x4000, "probe-mem", &probe_ops, p, &dev->lock);
    pci_add_bar(d, IO_BAR, PCI_BAR_IO, 32, "probe-io", &probe_ops, p, &dev->lock);
    pci_add_bar(d, SMALL_BAR, PCI_BAR_MMIO, 16, "probe-small", &probe_ops, p, &dev->lock);
    pci_add_cap(d, 0x09, 16);
    d->cfg_written = probe_cfg_written;
    d->bars_moved = probe_bars_moved;
    d->cfg_reset[W1C_REG] = 0xff;
    d->cfg_w1c[W1C_REG] = 0x0f;
    if (p->vectors && !pci_add_msix(d, MSIX_BAR, p->vectors, error)) {
        pci_unrealize(d);
        return false;
    }
    if (!pci_add_rom(d, p->romfile, error)) {
        pci_unrealize(d);
        return false;
    }
    return true;
}

static void probe_reset(Device *dev, ResetKind kind)
{
    pci_reset((PciDev *)dev);
}

static void probe_unrealize(Device *dev)
{
    pci_unrealize((PciDev *)dev);
}

static bool probe_post_load(void *obj, unsigned version, GError **error)
{
    PciDev *d = obj;
    lodge_lock(&d->dev.lock);
    bool ok = pci_post_load(d, error);
    lodge_unlock(&d->dev.lock);
    return ok;
}

static const StateField probe_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    ST_END,
};
static const StateDesc probe_state = {
    .name = "probe", .version = 1, .oldest = 1, .regs_offset = offsetof(Probe, pci.regs),
    .regs_size = sizeof(PciRegs), .fields = probe_fields, .pre_save = pci_pre_save,
    .post_load = probe_post_load};

static const DeviceClass probe_class = {
    .name = "probe", .bus = "pci", .help = "a function for tests", .instance_size = sizeof(Probe),
    .state = &probe_state, .realize = probe_realize, .reset = probe_reset,
    .unrealize = probe_unrealize};

static Probe *probe_make(TestBoard *tb, int slot, unsigned pin, unsigned vectors, GError **error)
{
    Device *d = device_new(&probe_class, NULL, &tb->board);
    Probe *p = (Probe *)d;
    p->slot = slot;
    p->pin = pin;
    p->vectors = vectors;
    if (!device_realize(d, error)) {
        device_free(d);
        return NULL;
    }
    g_ptr_array_add(tb->devices, d);
    return p;
}

static Probe *probe_add(TestBoard *tb, int slot, unsigned pin, unsigned vectors)
{
    GError *error = NULL;
    Probe *p = probe_make(tb, slot, pin, vectors, &error);
    g_assert_no_error(error);
    return p;
}

static TestBoard *board(void)
{
    TestBoard *tb = test_board_new(0);
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "piix3", NULL);
    return tb;
}

static bool gsi_level(TestBoard *tb, unsigned gsi)
{
    irq_lock_take(tb->board.irq);
    bool level = irq_level_locked(tb->board.irq, gsi);
    irq_lock_drop(tb->board.irq);
    return level;
}

static void set_intx(Probe *p, bool asserted)
{
    lodge_lock(&p->pci.dev.lock);
    pci_set_intx(&p->pci, asserted);
    lodge_unlock(&p->pci.dev.lock);
}

static void test_window(void)
{
    g_autoptr(TestBoard) tb = board();
    g_assert_cmphex(test_cfg_read(tb, 0, 0, 4), ==, 0x12378086);
    g_assert_cmphex(test_cfg_read(tb, 0, 0x2c, 4), ==, 0x11001af4);
    g_assert_cmphex(test_cfg_read(tb, 0, 0x08, 4), ==, 0x06000002);
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA, 0, 4), ==, 0x70008086);
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA, 0x0a, 2), ==, 0x0601);
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA, 0x0b, 1), ==, 0x06);
    g_assert_cmphex(test_cfg_read(tb, 2 << 3, 0, 4), ==, ABSENT);
    g_assert_cmphex(test_cfg_read(tb, 2 << 3, 2, 2), ==, 0xffff);
    /* The register reads back what it has; narrow accesses to it are not its own. */
    test_out(tb, WINDOW, 4, 0xffffffff);
    g_assert_cmphex(test_in(tb, WINDOW, 4), ==, 0x80fffffc);
    test_out(tb, WINDOW, 4, 0x80000000);
    test_out(tb, WINDOW, 1, 0x44);
    test_out(tb, WINDOW, 2, 0x4444);
    test_out(tb, WINDOW + 2, 2, 0x4444);
    g_assert_cmphex(test_in(tb, WINDOW, 4), ==, 0x80000000);
    g_assert_cmphex(test_in(tb, WINDOW, 1), ==, 0xff);
    g_assert_cmphex(test_in(tb, DATA, 4), ==, 0x12378086);
    g_assert_cmphex(test_in(tb, DATA + 1, 2), ==, 0x3780);
    g_assert_cmphex(test_in(tb, DATA + 3, 1), ==, 0x12);
    /* Without the enable bit, and on another bus, nobody answers. */
    test_out(tb, WINDOW, 4, 0);
    g_assert_cmphex(test_in(tb, DATA, 4), ==, ABSENT);
    test_out(tb, WINDOW, 4, 0x80010000);
    g_assert_cmphex(test_in(tb, DATA, 4), ==, ABSENT);
    test_out(tb, DATA, 4, 0);
    /* Read-only registers. */
    test_cfg_write(tb, 0, 0, 4, 0);
    test_cfg_write(tb, 0, 0x30, 4, 0xffffffff);
    g_assert_cmphex(test_cfg_read(tb, 0, 0, 4), ==, 0x12378086);
    g_assert_cmphex(test_cfg_read(tb, 0, 0x30, 4), ==, 0);
}

static void test_bridge_registers(void)
{
    g_autoptr(TestBoard) tb = board();
    test_cfg_write(tb, 0, 0x58, 4, 0xffffffff);
    test_cfg_write(tb, 0, 0x5c, 4, 0xffffffff);
    g_assert_cmphex(test_cfg_read(tb, 0, 0x58, 4), ==, 0x33333000);
    g_assert_cmphex(test_cfg_read(tb, 0, 0x5c, 4), ==, 0x33333333);
    g_assert_cmphex(test_cfg_read(tb, 0, 0x72, 1), ==, 0x02);
    test_cfg_write(tb, 0, 0x72, 1, 0x4a);
    g_assert_cmphex(test_cfg_read(tb, 0, 0x72, 1), ==, 0x4a);
    test_cfg_write(tb, 0, 0x72, 1, 0x5a); /* lock: closes, then stays */
    g_assert_cmphex(test_cfg_read(tb, 0, 0x72, 1), ==, 0x1a);
    test_cfg_write(tb, 0, 0x70, 4, 0x00480000);
    g_assert_cmphex(test_cfg_read(tb, 0, 0x72, 1), ==, 0x1a);
    device_reset(g_ptr_array_index(tb->devices, 0), RESET_WARM);
    g_assert_cmphex(test_cfg_read(tb, 0, 0x72, 1), ==, 0x02);
}

static void test_reset_port(void)
{
    g_autoptr(TestBoard) tb = board();
    test_out(tb, RESET_PORT, 1, 0x02);
    g_assert_cmphex(test_in(tb, RESET_PORT, 1), ==, 0x02);
    g_assert_cmpuint(tb->requests[BOARD_RESET], ==, 0);
    test_out(tb, RESET_PORT, 1, 0x06);
    g_assert_cmpuint(tb->requests[BOARD_RESET], ==, 1);
    test_out(tb, RESET_PORT, 1, 0x06);
    g_assert_cmpuint(tb->requests[BOARD_RESET], ==, 1);
    device_reset(g_ptr_array_index(tb->devices, 1), RESET_WARM);
    g_assert_cmphex(test_in(tb, RESET_PORT, 1), ==, 0x00);
    test_out(tb, RESET_PORT, 2, 0x0606); /* not a byte */
    test_out(tb, WINDOW, 4, 0x80000600);
    g_assert_cmpuint(tb->requests[BOARD_RESET], ==, 1);
    test_out(tb, RESET_PORT, 1, 0x06);
    g_assert_cmpuint(tb->requests[BOARD_RESET], ==, 2);
    g_assert_cmphex(test_in(tb, WINDOW, 4), ==, 0x80000600);
}

static void test_multifunction(void)
{
    g_autoptr(TestBoard) tb = board();
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA, 0x0e, 1), ==, 0x00);
    Device *pm = test_board_add(tb, "piix4-pm", NULL);
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA, 0x0e, 1), ==, 0x80);
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA | 3, 0x0e, 1), ==, 0x00);
    device_reset(g_ptr_array_index(tb->devices, 1), RESET_COLD);
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA, 0x0e, 1), ==, 0x80);
    device_free(pm);
    g_ptr_array_set_size(tb->devices, 2);
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA, 0x0e, 1), ==, 0x00);
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA | 3, 0, 4), ==, ABSENT);
}

static void test_slots(void)
{
    g_autoptr(TestBoard) tb = board();
    GError *error = NULL;
    g_assert_null(probe_make(tb, 1, 0, 0, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    for (unsigned slot = 3; slot < 32; slot++)
        g_assert_cmphex(probe_add(tb, -1, 0, 0)->pci.devfn, ==, slot << 3);
    g_assert_null(probe_make(tb, -1, 0, 0, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    g_assert_null(probe_make(tb, 2, 0, PCI_MSIX_MAX + 1, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    g_assert_cmphex(test_cfg_read(tb, 2 << 3, 0, 4), ==, ABSENT);
    unsigned n = 0;
    int last = -1;
    for (PciDev *d = pci_bus_next(tb->board.pci, NULL); d; d = pci_bus_next(tb->board.pci, d)) {
        g_assert_cmpint(d->devfn, >, last);
        last = d->devfn;
        n++;
    }
    g_assert_cmpuint(n, ==, 31);
    g_assert_null(pci_bus_find(tb->board.pci, 2 << 3));
}

static void test_bars(void)
{
    g_autoptr(TestBoard) tb = board();
    Probe *p = probe_add(tb, 3, 1, 0);
    uint8_t fn = 3 << 3;
    /* Sizes. */
    for (unsigned i = 0; i < 7; i++)
        test_cfg_write(tb, fn, (uint8_t)(0x10 + 4 * i), 4, 0xffffffff);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x10, 4), ==, 0xffffc000);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x14, 4), ==, 0xffffffe1);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x18, 4), ==, 0xfffff000);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x1c, 4), ==, 0);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x28, 4), ==, 0);
    /* Sizing with decoding on places nothing. */
    test_cfg_write(tb, fn, 4, 2, 3);
    g_assert_cmpuint(p->moves, ==, 0);
    g_assert_cmphex(test_cfg_read(tb, fn, 4, 2), ==, 3);
    for (unsigned i = 0; i < 3; i++)
        g_assert_cmphex(pci_bar_base(&p->pci, i), ==, UINT64_MAX);
    test_cfg_write(tb, fn, 0x10, 4, 0xe0001000); /* low bits are not the guest's */
    test_cfg_write(tb, fn, 0x14, 4, 0xc100);
    test_cfg_write(tb, fn, 0x18, 4, 0xe0010000);
    g_assert_cmpuint(p->moves, ==, 3);
    g_assert_cmphex(pci_bar_base(&p->pci, MEM_BAR), ==, 0xe0000000);
    g_assert_cmphex(pci_bar_base(&p->pci, IO_BAR), ==, 0xc100);
    g_assert_cmphex(test_peek(tb, 0xe0000008, 4), ==, 0x48);
    g_assert_cmphex(test_in(tb, 0xc104, 1), ==, 0x44);
    g_assert_cmphex(test_peek(tb, 0xe0010000, 4), ==, 0x40);
    g_assert_cmphex(test_peek(tb, 0xe0010010, 4), ==, ABSENT); /* past the small BAR */
    test_poke(tb, 0xe0003ffc, 4, 0x55);
    g_assert_cmphex(p->last_off, ==, 0x3ffc);
    /* A move leaves nothing behind. */
    test_cfg_write(tb, fn, 0x10, 4, 0xe0020000);
    g_assert_cmphex(test_peek(tb, 0xe0000008, 4), ==, ABSENT);
    g_assert_cmphex(test_peek(tb, 0xe0020008, 4), ==, 0x48);
    /* The command register switches each space by itself. */
    test_cfg_write(tb, fn, 4, 2, 2);
    g_assert_cmphex(test_in(tb, 0xc104, 1), ==, 0xff);
    g_assert_cmphex(test_peek(tb, 0xe0020008, 4), ==, 0x48);
    test_cfg_write(tb, fn, 4, 1, 1);
    g_assert_cmphex(test_in(tb, 0xc104, 1), ==, 0x44);
    g_assert_cmphex(test_peek(tb, 0xe0020008, 4), ==, ABSENT);
    /* Ports past the end, memory at 0: nowhere. */
    test_cfg_write(tb, fn, 0x14, 4, 0x10000);
    g_assert_cmphex(pci_bar_base(&p->pci, IO_BAR), ==, UINT64_MAX);
    test_cfg_write(tb, fn, 4, 2, 7);
    test_cfg_write(tb, fn, 0x10, 4, 0);
    g_assert_cmphex(pci_bar_base(&p->pci, MEM_BAR), ==, UINT64_MAX);
    g_assert_true(pci_bus_master(&p->pci));
    /* A byte of a BAR. */
    test_cfg_write(tb, fn, 0x13, 1, 0xd0);
    g_assert_cmphex(pci_bar_base(&p->pci, MEM_BAR), ==, 0xd0000000);
    g_assert_cmpuint(p->cfg_off, ==, 0x13);
    g_assert_cmpuint(p->cfg_len, ==, 1);
    unsigned writes = p->cfg_writes;
    test_cfg_write(tb, fn, 0x13, 1, 0xd0); /* changes nothing */
    g_assert_cmpuint(p->cfg_writes, ==, writes);
    /* Write one to clear. */
    test_cfg_write(tb, fn, W1C_REG, 1, 0x35);
    g_assert_cmphex(test_cfg_read(tb, fn, W1C_REG, 1), ==, 0xfa);
    device_reset(&p->pci.dev, RESET_WARM);
    g_assert_cmphex(pci_bar_base(&p->pci, MEM_BAR), ==, UINT64_MAX);
    g_assert_cmphex(test_peek(tb, 0xd0000008, 4), ==, ABSENT);
    g_assert_cmphex(test_cfg_read(tb, fn, 4, 2), ==, 0);
    g_assert_false(pci_bus_master(&p->pci));
}

static void test_caps(void)
{
    g_autoptr(TestBoard) tb = board();
    probe_add(tb, 3, 0, 4);
    uint8_t fn = 3 << 3;
    g_assert_cmphex(test_cfg_read(tb, fn, 6, 2) & 0x10, ==, 0x10);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x34, 1), ==, 0x40);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x40, 2), ==, 0x5009);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x50, 4), ==, 0x00030011);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x54, 4), ==, MSIX_BAR);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x58, 4), ==, 0x800 | MSIX_BAR);
    g_assert_cmphex(test_cfg_read(tb, 0, 6, 2) & 0x10, ==, 0);
}

static void test_intx(void)
{
    g_autoptr(TestBoard) tb = board();
    Probe *a = probe_add(tb, 3, 1, 0), *b = probe_add(tb, 7, 1, 0); /* PIRQ C both */
    uint8_t fn = 3 << 3;
    g_assert_cmphex(test_cfg_read(tb, fn, 0x3d, 1), ==, 1);
    g_assert_cmpuint(pci_pirq(1, 0), ==, 0);
    g_assert_cmpuint(pci_pirq(3, 0), ==, 2);
    g_assert_cmpuint(pci_pirq(0, 0), ==, 3);
    set_intx(a, true);
    g_assert_true(gsi_level(tb, 11));
    g_assert_false(gsi_level(tb, 10));
    g_assert_cmphex(test_cfg_read(tb, fn, 6, 1) & 8, ==, 8);
    set_intx(b, true);
    set_intx(b, true);
    set_intx(a, false);
    g_assert_true(gsi_level(tb, 11));
    /* The standing level follows the route. */
    test_cfg_write(tb, DEVFN_ISA, 0x62, 1, 0x05);
    g_assert_true(gsi_level(tb, 5));
    g_assert_false(gsi_level(tb, 11));
    test_cfg_write(tb, DEVFN_ISA, 0x60, 4, 0x0b850a0a); /* bit 7: off */
    g_assert_false(gsi_level(tb, 5));
    test_cfg_write(tb, DEVFN_ISA, 0x62, 1, 0x08); /* the RTC's is not for PIRQs */
    g_assert_false(gsi_level(tb, 8));
    test_cfg_write(tb, DEVFN_ISA, 0x62, 1, 0xff);
    g_assert_cmphex(test_cfg_read(tb, DEVFN_ISA, 0x62, 1), ==, 0x8f);
    test_cfg_write(tb, DEVFN_ISA, 0x62, 1, 0x0b);
    g_assert_true(gsi_level(tb, 11));
    /* Interrupt disable. */
    test_cfg_write(tb, 7 << 3, 4, 2, 0x400);
    g_assert_false(gsi_level(tb, 11));
    g_assert_cmphex(test_cfg_read(tb, 7 << 3, 6, 1) & 8, ==, 8);
    test_cfg_write(tb, 7 << 3, 4, 2, 0);
    g_assert_true(gsi_level(tb, 11));
    device_reset(&b->pci.dev, RESET_WARM);
    g_assert_false(gsi_level(tb, 11));
    g_assert_cmphex(test_cfg_read(tb, 7 << 3, 6, 1) & 8, ==, 0);
    set_intx(b, true);
    g_ptr_array_remove(tb->devices, b);
    device_free(&b->pci.dev);
    g_assert_false(gsi_level(tb, 11));
}

#define MSIX_AT 0xe0000000u

static void msix_place(TestBoard *tb, uint8_t fn)
{
    test_cfg_write(tb, fn, 0x10 + 4 * MSIX_BAR, 4, MSIX_AT);
    test_cfg_write(tb, fn, 4, 2, 6);
}

static void test_msix(void)
{
    g_autoptr(TestBoard) tb = board();
    Probe *p = probe_add(tb, 3, 1, 2);
    uint8_t fn = 3 << 3;
    msix_place(tb, fn);
    g_assert_cmphex(test_peek(tb, MSIX_AT + 12, 4), ==, 1);
    test_poke(tb, MSIX_AT, 8, 0xfee00003);
    test_poke(tb, MSIX_AT + 8, 4, 0x41);
    test_poke(tb, MSIX_AT + 12, 4, 0xfffffffe);
    g_assert_cmphex(test_peek(tb, MSIX_AT, 8), ==, 0xfee00000);
    g_assert_cmphex(test_peek(tb, MSIX_AT + 8, 8), ==, 0x41);
    /* Off: a raise is lost. */
    pci_msix_raise(&p->pci, 0);
    g_assert_cmphex(test_peek(tb, MSIX_AT + 0x800, 8), ==, 0);
    test_cfg_write(tb, fn, 0x52, 2, 0x8000);
    g_assert_cmphex(test_cfg_read(tb, fn, 0x52, 2), ==, 0x8001);
    g_assert_cmpuint(tb->msis->len, ==, 0);
    pci_msix_raise(&p->pci, 0);
    g_assert_cmpuint(tb->msis->len, ==, 1);
    g_assert_cmphex(g_array_index(tb->msis, TestMsi, 0).addr, ==, 0xfee00000);
    g_assert_cmphex(g_array_index(tb->msis, TestMsi, 0).data, ==, 0x41);
    pci_msix_raise(&p->pci, 2); /* no such vector */
    pci_msix_raise(&p->pci, UINT_MAX);
    /* Vector 1 is masked from reset on: it pends, and leaves with its new message. */
    pci_msix_raise(&p->pci, 1);
    pci_msix_raise(&p->pci, 1);
    g_assert_cmpuint(tb->msis->len, ==, 1);
    g_assert_cmphex(test_peek(tb, MSIX_AT + 0x800, 4), ==, 2);
    test_poke(tb, MSIX_AT + 0x800, 8, 0);
    g_assert_cmphex(test_peek(tb, MSIX_AT + 0x800, 8), ==, 2);
    test_poke(tb, MSIX_AT + 16, 4, 0xfee01000);
    test_poke(tb, MSIX_AT + 24, 8, 0x42);
    g_assert_cmpuint(tb->msis->len, ==, 2);
    g_assert_cmphex(g_array_index(tb->msis, TestMsi, 1).addr, ==, 0xfee01000);
    g_assert_cmphex(g_array_index(tb->msis, TestMsi, 1).data, ==, 0x42);
    g_assert_cmphex(test_peek(tb, MSIX_AT + 0x800, 8), ==, 0);
    /* An open vector's message changes at once. */
    test_poke(tb, MSIX_AT + 8, 4, 0x51);
    pci_msix_raise(&p->pci, 0);
    g_assert_cmphex(g_array_index(tb->msis, TestMsi, 2).data, ==, 0x51);
    /* Function mask. */
    test_cfg_write(tb, fn, 0x53, 1, 0xc0);
    pci_msix_raise(&p->pci, 0);
    g_assert_cmpuint(tb->msis->len, ==, 3);
    test_cfg_write(tb, fn, 0x53, 1, 0x80);
    g_assert_cmpuint(tb->msis->len, ==, 4);
    /* Odd widths and places. */
    g_assert_cmphex(test_peek(tb, MSIX_AT, 1), ==, 0xff);
    g_assert_cmphex(test_peek(tb, MSIX_AT + 32, 4), ==, 0);
    test_poke(tb, MSIX_AT + 32, 8, UINT64_MAX);
    test_poke(tb, MSIX_AT + 28, 8, UINT64_MAX); /* runs over the table's end */
    g_assert_cmphex(test_peek(tb, MSIX_AT + 28, 4), ==, 0);
    test_poke(tb, MSIX_AT + 12, 8, 0x00000000fee02000ull << 32); /* across two entries */
    g_assert_cmphex(test_peek(tb, MSIX_AT + 16, 4), ==, 0xfee02000);
    device_reset(&p->pci.dev, RESET_WARM);
    g_assert_false(pci_msix_enabled(&p->pci));
    pci_msix_raise(&p->pci, 0);
    g_assert_cmpuint(tb->msis->len, ==, 4);
}

static void test_assign(void)
{
    g_autoptr(TestBoard) tb = board();
    Probe *a = probe_add(tb, 3, 1, 2), *b = probe_add(tb, 4, 2, 0);
    pci_assign(tb->board.pci, PC_PCI_HOLE_GPA, PC_PCI_HOLE_LIMIT_GPA);
    for (unsigned slot = 3; slot <= 4; slot++) {
        g_assert_cmphex(test_cfg_read(tb, (uint8_t)(slot << 3), 4, 2), ==, 3);
        g_assert_cmphex(test_cfg_read(tb, (uint8_t)(slot << 3), 0x3c, 1), ==,
                        slot == 3 ? 11 : 10);
    }
    struct {
        uint64_t base, len;
    } at[8];
    unsigned n = 0;
    Probe *both[] = {a, b};
    for (unsigned k = 0; k < 2; k++) {
        g_assert_cmphex(pci_bar_base(&both[k]->pci, IO_BAR), >=, PC_PCI_PORTS);
        for (unsigned i = 0; i < PCI_BARS; i++) {
            const PciBar *bar = &both[k]->pci.bar[i];
            if (bar->kind != PCI_BAR_MMIO)
                continue;
            at[n].base = pci_bar_base(&both[k]->pci, i);
            at[n].len = MAX(bar->len, 4096);
            g_assert_cmphex(at[n].base % at[n].len, ==, 0);
            g_assert_true(range_within(at[n].base - PC_PCI_HOLE_GPA, at[n].len,
                                       PC_PCI_HOLE_LIMIT_GPA - PC_PCI_HOLE_GPA));
            for (unsigned j = 0; j < n; j++)
                g_assert_false(ranges_overlap(at[n].base, at[n].len, at[j].base, at[j].len));
            n++;
        }
    }
    g_assert_cmpuint(n, ==, 5);
    g_assert_cmphex(pci_bar_base(&a->pci, IO_BAR), !=, pci_bar_base(&b->pci, IO_BAR));
    /* Too small a hole: what does not fit stays off. */
    device_reset(&a->pci.dev, RESET_WARM);
    device_reset(&b->pci.dev, RESET_WARM);
    pci_assign(tb->board.pci, PC_PCI_HOLE_GPA, PC_PCI_HOLE_GPA + 0x4000);
    g_assert_cmphex(pci_bar_base(&a->pci, MEM_BAR), ==, PC_PCI_HOLE_GPA);
    g_assert_cmphex(pci_bar_base(&b->pci, MEM_BAR), ==, UINT64_MAX);
}

static void test_state(void)
{
    g_autoptr(TestBoard) tb = board();
    g_autoptr(GByteArray) saved = g_byte_array_new();
    Probe *p = probe_add(tb, 3, 1, 2);
    uint8_t fn = 3 << 3;
    GError *error = NULL;
    size_t used;
    msix_place(tb, fn);
    test_poke(tb, MSIX_AT + 16, 8, 0xfee01000);
    test_poke(tb, MSIX_AT + 24, 4, 0x42);
    test_cfg_write(tb, fn, 0x52, 2, 0x8000);
    pci_msix_raise(&p->pci, 1);
    set_intx(p, true);
    state_save(&probe_state, p, saved);
    device_reset(&p->pci.dev, RESET_COLD);
    g_assert_false(gsi_level(tb, 11));
    state_load(&probe_state, p, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(used, ==, saved->len);
    g_assert_true(gsi_level(tb, 11));
    g_assert_cmphex(test_peek(tb, MSIX_AT + 0x800, 8), ==, 2);
    g_assert_cmpuint(tb->msis->len, ==, 0);
    test_poke(tb, MSIX_AT + 28, 4, 0);
    g_assert_cmpuint(tb->msis->len, ==, 1);
    /* A record of another device's is refused. */
    p->pci.regs.cfg[0] ^= 1;
    g_byte_array_set_size(saved, 0);
    state_save(&probe_state, p, saved);
    p->pci.regs.cfg[0] ^= 1;
    g_assert_false(state_load(&probe_state, p, saved->data, saved->len, &used, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
    g_clear_error(&error);
    /* The bridges: address register and routes. */
    Device *host = g_ptr_array_index(tb->devices, 0), *isa = g_ptr_array_index(tb->devices, 1);
    p->pci.regs.cfg[0] = (uint8_t)VENDOR;
    test_cfg_write(tb, DEVFN_ISA, 0x62, 1, 0x05);
    test_out(tb, WINDOW, 4, 0x80000804);
    g_byte_array_set_size(saved, 0);
    state_save(host->cls->state, host, saved);
    guint host_len = saved->len;
    state_save(isa->cls->state, isa, saved);
    device_reset(host, RESET_COLD);
    device_reset(isa, RESET_COLD);
    g_assert_cmphex(test_in(tb, WINDOW, 4), ==, 0);
    g_assert_false(gsi_level(tb, 5));
    state_load(host->cls->state, host, saved->data, host_len, &used, &error);
    g_assert_no_error(error);
    state_load(isa->cls->state, isa, saved->data + host_len, saved->len - host_len, &used, &error);
    g_assert_no_error(error);
    g_assert_cmphex(test_in(tb, WINDOW, 4), ==, 0x80000804);
    g_assert_true(gsi_level(tb, 5));
}

/* Any write to any register of any function: nothing breaks, identity stays. */
static void test_hostile_writes(void)
{
    g_autoptr(TestBoard) tb = board();
    Probe *p = probe_add(tb, 3, 1, 2);
    test_board_add(tb, "piix4-pm", NULL);
    for (unsigned i = 0; i < 20000; i++) {
        static const uint8_t fns[] = {0, 1 << 3, 1 << 3 | 3, 3 << 3};
        uint32_t r = g_test_rand_int();
        unsigned size = 1u << (r >> 8 & 3) % 3;
        test_cfg_write(tb, fns[r & 3], (uint8_t)(r >> 16), size, g_test_rand_int());
        if (!(i % 7))
            pci_msix_raise(&p->pci, r >> 24 & 3);
    }
    g_assert_cmphex(test_cfg_read(tb, 3 << 3, 0, 4), ==, 0x12341af4);
    g_assert_cmphex(test_cfg_read(tb, 0, 0, 4), ==, 0x12378086);
    g_assert_cmphex(test_cfg_read(tb, 1 << 3, 0, 4), ==, 0x70008086);
    g_assert_cmphex(test_cfg_read(tb, 1 << 3 | 3, 0, 4), ==, 0x71138086);
}

#define ROM_AT 0xfe000000u
#define ROM_BYTES 1024

/* What a guest finds in the ROM of a probe that got @rom as a file. */
static void rom_seen(const uint8_t *rom, uint8_t *seen)
{
    g_autoptr(TestBoard) tb = board();
    g_autofree char *file = NULL;
    GError *error = NULL;
    int fd = g_file_open_tmp("lodge-rom-XXXXXX", &file, &error);
    g_assert_no_error(error);
    close(fd);
    g_assert_true(g_file_set_contents(file, (const char *)rom, ROM_BYTES, NULL));
    Device *d = device_new(&probe_class, NULL, &tb->board);
    ((Probe *)d)->slot = 3;
    ((Probe *)d)->romfile = file;
    g_assert_true(device_realize(d, &error));
    g_assert_no_error(error);
    g_ptr_array_add(tb->devices, d);
    g_remove(file);
    test_cfg_write(tb, 3 << 3, 0x30, 4, ROM_AT | 1);
    test_cfg_write(tb, 3 << 3, 0x04, 2, 2);
    g_assert_true(mem_read(tb->board.mem, ROM_AT, seen, ROM_BYTES));
}

static uint8_t rom_sum(const uint8_t *rom)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < ROM_BYTES; i++)
        sum += rom[i];
    return sum;
}

/* A ROM that names no card, as iPXE's for NE2000, or another: the copy names the one it sits on. */
static void test_rom_names_card(void)
{
    uint8_t rom[ROM_BYTES] = {0x55, 0xaa, ROM_BYTES / 512}, seen[ROM_BYTES];

    for (unsigned i = 0x1a; i < sizeof rom; i++)
        rom[i] = (uint8_t)(i * 7);
    store_le16(rom + 0x18, 0x1c);
    memcpy(rom + 0x1c, "PCIR\0\0\0\0", 8);
    rom[6] = (uint8_t)-rom_sum(rom);
    rom_seen(rom, seen);
    g_assert_cmphex(load_le16(seen + 0x20), ==, VENDOR);
    g_assert_cmphex(load_le16(seen + 0x22), ==, 0x1234);
    g_assert_cmphex(rom_sum(seen), ==, 0);
    seen[6] = rom[6];
    memset(seen + 0x20, 0, 4);
    g_assert_cmpmem(seen, sizeof seen, rom, sizeof rom);
}

/* A structure that is none, or lies outside the image or in the header, is left alone. */
static void test_rom_without_card(void)
{
    static const struct {
        uint16_t at;
        uint8_t blocks;
        const char *mark;
    } c[] = {
        {0x1c, 2, "PCIX"}, {0x08, 2, "PCIR"}, {0x3f9, 2, "PCIR"},
        {0x3fc, 2, "PCIR"}, {0xffff, 2, NULL}, {0x300, 1, "PCIR"}, {0x1c, 0, "PCIR"},
    };
    uint8_t seen[ROM_BYTES];

    for (unsigned i = 0; i < G_N_ELEMENTS(c); i++) {
        uint8_t rom[ROM_BYTES] = {0x55, 0xaa, c[i].blocks};
        store_le16(rom + 0x18, c[i].at);
        if (c[i].mark)
            memcpy(rom + c[i].at, c[i].mark, 4);
        rom_seen(rom, seen);
        g_assert_cmpmem(seen, sizeof seen, rom, sizeof rom);
    }
}

static void test_two_boards(void)
{
    g_autoptr(TestBoard) one = board();
    g_autoptr(TestBoard) two = board();
    Probe *p = probe_add(one, 3, 1, 0);
    g_assert_cmphex(test_cfg_read(two, 3 << 3, 0, 4), ==, ABSENT);
    test_out(one, WINDOW, 4, 0x80000000);
    g_assert_cmphex(test_in(two, WINDOW, 4), !=, 0x80000000);
    set_intx(p, true);
    g_assert_false(gsi_level(two, 11));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pci/window", test_window);
    g_test_add_func("/pci/bridge-registers", test_bridge_registers);
    g_test_add_func("/pci/reset-port", test_reset_port);
    g_test_add_func("/pci/multifunction", test_multifunction);
    g_test_add_func("/pci/slots", test_slots);
    g_test_add_func("/pci/bars", test_bars);
    g_test_add_func("/pci/capabilities", test_caps);
    g_test_add_func("/pci/intx", test_intx);
    g_test_add_func("/pci/msix", test_msix);
    g_test_add_func("/pci/assign", test_assign);
    g_test_add_func("/pci/rom-names-card", test_rom_names_card);
    g_test_add_func("/pci/rom-without-card", test_rom_without_card);
    g_test_add_func("/pci/state", test_state);
    g_test_add_func("/pci/hostile-writes", test_hostile_writes);
    g_test_add_func("/pci/two-boards", test_two_boards);
    return g_test_run();
}
