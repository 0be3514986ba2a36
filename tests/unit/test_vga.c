/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VGA's registers and the CPU's way to its memory; escapes of other VGAs, played. Pictures are
 * in test_vga_draw.c. */
#include <string.h>

#include "lodge/num.h"
#include "vga_driver.h"

#define WINDOW 0xa0000u
#define MEM_LEN (8 * MIB)

static void set_up(VgaBoard **vb, gconstpointer unused)
{
    *vb = vga_board_new("romfile=,vgamem=8M");
}

static void tear_down(VgaBoard **vb, gconstpointer unused)
{
    vga_board_free(*vb);
}

/* A byte of the frame buffer, seen as memory. */
static uint8_t lfb(VgaBoard *vb, uint64_t off)
{
    uint8_t val;

    g_assert_true(mem_read(vb->tb->board.mem, VGA_LFB + off, &val, 1));
    return val;
}

static void test_pci(VgaBoard **f, gconstpointer unused)
{
    TestBoard *tb = (*f)->tb;

    g_assert_cmphex(test_cfg_read(tb, VGA_DEVFN, 0x00, 4), ==, 0x11111234);
    g_assert_cmphex(test_cfg_read(tb, VGA_DEVFN, 0x08, 4) >> 8, ==, 0x030000);
    g_assert_cmphex(test_cfg_read(tb, VGA_DEVFN, 0x2c, 4), ==, 0x11001af4);
    test_cfg_write(tb, VGA_DEVFN, 0x10, 4, 0xffffffff);
    g_assert_cmphex(test_cfg_read(tb, VGA_DEVFN, 0x10, 4), ==, 0xff800008);
    test_cfg_write(tb, VGA_DEVFN, 0x18, 4, 0xffffffff);
    g_assert_cmphex(test_cfg_read(tb, VGA_DEVFN, 0x18, 4), ==, 0xfffff000);
    test_cfg_write(tb, VGA_DEVFN, 0x30, 4, 0xffffffff);
    g_assert_cmphex(test_cfg_read(tb, VGA_DEVFN, 0x30, 4), ==, 0); /* romfile= */
}

static void check_refused(TestBoard *tb, const char *name, const char *value)
{
    g_autoptr(Device) d = device_new(device_class_find("vga"), "bad", &tb->board);
    g_autoptr(GError) error = NULL;

    g_assert_true(device_set(d, "romfile", "", NULL));
    if (device_set(d, name, value, &error))
        g_assert_false(device_realize(d, &error));
    g_assert_nonnull(error);
}

static void test_properties(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);

    test_board_add(tb, "i440fx", NULL);
    check_refused(tb, "vgamem", "12M");
    check_refused(tb, "vgamem", "4M");
    check_refused(tb, "vgamem", "128M");
    check_refused(tb, "romfile", "/no/such/file");
    test_board_add(tb, "vga", "romfile=,vgamem=64M"); /* nothing is left in its way; no Display */
    test_out(tb, 0x1ce, 2, 10);
    g_assert_cmphex(test_in(tb, 0x1cf, 2), ==, 1024);
    check_refused(tb, "romfile", ""); /* a second one finds the ports taken */
    test_out(tb, 0x1ce, 2, 0);
    g_assert_cmphex(test_in(tb, 0x1cf, 2), ==, 0xb0c5);
}

/* Indices that no chip has change nothing at all. */
static void test_missing_registers(VgaBoard **f, gconstpointer unused)
{
    static const struct { uint16_t port; uint8_t first, last; } chips[] = {
        {0x3c4, 5, 0xff}, {0x3ce, 9, 0xff}, {0x3d4, 25, 0xff}};
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_3);
    for (unsigned chip = 0; chip < G_N_ELEMENTS(chips); chip++) {
        for (unsigned i = chips[chip].first; i <= chips[chip].last; i++) {
            g_autoptr(GByteArray) before = g_byte_array_new(), after = g_byte_array_new();
            vga_out(vb, chips[chip].port, i);
            if (vga_in(vb, chips[chip].port) < chips[chip].first)
                continue; /* not all bits of the index are there */
            state_save(vb->vga->cls->state, vb->vga, before);
            vga_out(vb, chips[chip].port + 1, 0xa5);
            state_save(vb->vga->cls->state, vb->vga, after);
            g_assert_cmpmem(before->data, before->len, after->data, after->len);
        }
    }
}

static void test_indexed_registers(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_3);
    vga_seq(vb, 2, 0xff);
    g_assert_cmphex(vga_in(vb, 0x3c5), ==, 0x0f);
    vga_seq(vb, 7, 0xff);
    g_assert_cmphex(vga_in(vb, 0x3c5), ==, 0);
    g_assert_cmphex(vga_in(vb, 0x3c4), ==, 7);
    vga_gfx(vb, 0x0f, 0xff);
    g_assert_cmphex(vga_in(vb, 0x3cf), ==, 0);
    vga_gfx(vb, 8, 0xa5);
    g_assert_cmphex(vga_in(vb, 0x3cf), ==, 0xa5);
    vga_crtc(vb, 0x3f, 0xff);
    g_assert_cmphex(vga_in(vb, 0x3d5), ==, 0);
    vga_crtc(vb, 0x18, 0x12);
    g_assert_cmphex(vga_in(vb, 0x3d5), ==, 0x12);
    /* 3C0 takes index and data in turn; a read of 3DA starts over. */
    vga_attr(vb, 0x11, 0x2a);
    vga_out(vb, 0x3c0, 0x31);
    g_assert_cmphex(vga_in(vb, 0x3c0), ==, 0x31);
    g_assert_cmphex(vga_in(vb, 0x3c1), ==, 0x2a);
    vga_in(vb, 0x3da);
    vga_out(vb, 0x3c0, 0x3f);
    vga_out(vb, 0x3c0, 0xff); /* no such register */
    g_assert_cmphex(vga_in(vb, 0x3c1), ==, 0);
    g_assert_cmphex(vga_in(vb, 0x3c2), ==, 0x10);
    g_assert_cmphex(vga_in(vb, 0x3cc), ==, 0x67);
    vga_out(vb, 0x3da, 3);
    g_assert_cmphex(vga_in(vb, 0x3ca), ==, 3);
}

static void test_addresses(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_3);
    vga_crtc(vb, 0x0f, 0x55);
    vga_out(vb, 0x3b4, 0x0f);
    vga_out(vb, 0x3b5, 0xaa);
    g_assert_cmphex(vga_in(vb, 0x3b5), ==, 0xff);
    g_assert_cmphex(vga_in(vb, 0x3ba), ==, 0xff);
    g_assert_cmphex(vga_in(vb, 0x3d5), ==, 0x55);
    vga_mode(vb, MODE_7);
    vga_crtc(vb, 0x0f, 0xaa);
    g_assert_cmphex(vga_in(vb, 0x3b5), ==, 0xaa);
    g_assert_cmphex(vga_in(vb, 0x3d5), ==, 0xff);
    g_assert_cmphex(vga_in(vb, 0x3da), ==, 0xff);
    g_assert_cmphex(vga_in(vb, 0x3b0), ==, 0xff);
}

static void test_protect(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_3);
    vga_crtc(vb, 0x11, 0x8e);
    vga_crtc(vb, 0, 0x11);
    g_assert_cmphex(vga_in(vb, 0x3d5), ==, 0x5f);
    vga_crtc(vb, 7, 0x00); /* only bit 4, of the line compare */
    g_assert_cmphex(vga_in(vb, 0x3d5), ==, 0x0f);
    vga_crtc(vb, 8, 0x11);
    g_assert_cmphex(vga_in(vb, 0x3d5), ==, 0x11);
    vga_crtc(vb, 0x11, 0x0e);
    vga_crtc(vb, 0, 0x11);
    g_assert_cmphex(vga_in(vb, 0x3d5), ==, 0x11);
}

static void test_dac(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_dac(vb, 255, 0xff1234);
    vga_out(vb, 0x3c9, 1); /* wraps to entry 0, which stays as it was: two parts of three */
    vga_out(vb, 0x3c9, 2);
    vga_out(vb, 0x3c7, 255);
    g_assert_cmphex(vga_in(vb, 0x3c7), ==, 3);
    g_assert_cmphex(vga_in(vb, 0x3c9), ==, 0x3f);
    g_assert_cmphex(vga_in(vb, 0x3c9), ==, 0x12);
    g_assert_cmphex(vga_in(vb, 0x3c9), ==, 0x34);
    g_assert_cmphex(vga_in(vb, 0x3c9), ==, 0);
    vga_out(vb, 0x3c8, 9);
    g_assert_cmphex(vga_in(vb, 0x3c7), ==, 0);
    g_assert_cmphex(vga_in(vb, 0x3c8), ==, 9);
    vga_vbe(vb, 4, 0x20); /* 8 bits: entries are converted */
    vga_out(vb, 0x3c7, 255);
    g_assert_cmphex(vga_in(vb, 0x3c9), ==, 0xfc);
    vga_dac(vb, 3, 0xffeedd);
    vga_out(vb, 0x3c7, 3);
    g_assert_cmphex(vga_in(vb, 0x3c9), ==, 0xff);
    vga_vbe(vb, 4, 0);
    vga_out(vb, 0x3c7, 3);
    g_assert_cmphex(vga_in(vb, 0x3c9), ==, 0x3f);
}

/* Polling loops end, and the beam keeps a monitor's times. */
static void test_retrace(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;
    unsigned frames = 0, retrace = 0, off = 0;
    bool before = true;

    vga_mode(vb, MODE_3);
    for (unsigned i = 0; i < 100000; i++) { /* one second */
        uint8_t st = vga_in(vb, 0x3da);
        frames += (st & 8) && !before;
        before = st & 8;
        retrace += before;
        off += st & 1;
        g_assert_true((st & 1) || !(st & 8));
        test_advance(vb->tb, 10000);
    }
    g_assert_cmpuint(frames, >=, 69);
    g_assert_cmpuint(frames, <=, 71);
    g_assert_cmpuint(retrace, >, 5000);
    g_assert_cmpuint(retrace, <, 12000);
    g_assert_cmpuint(off, >, 20000);
    g_assert_cmpuint(off, <, 40000);
    for (unsigned round = 0; round < 50; round++) { /* whatever the registers say */
        unsigned seen = 0;
        vga_crtc(vb, 0x11, 0);
        vga_out(vb, 0x3c2, 1 | g_test_rand_int_range(0, 256));
        vga_seq(vb, 1, g_test_rand_int_range(0, 256));
        for (unsigned i = 0; i < 25; i++)
            vga_crtc(vb, i, g_test_rand_int_range(0, 256));
        for (unsigned i = 0; i < 4000 && seen != 0xf; i++) {
            uint8_t st = vga_in(vb, 0x3da);
            seen |= (st & 1 ? 1 : 2) | (st & 8 ? 4 : 8);
            test_advance(vb->tb, 17003);
        }
        g_assert_cmphex(seen, ==, 0xf);
    }
}

/* ---- memory: against four planes of bits, done by the book ---- */

typedef struct Model {
    uint8_t plane[4][0x10000], latch[4];
    uint8_t gfx[9], map_mask;
    enum { BYTES, ODD_EVEN, CHAIN4 } chain;
} Model;

static bool bit_of(unsigned val, unsigned n)
{
    return val >> n & 1;
}

static void model_place(const Model *m, unsigned addr, unsigned *off, unsigned *planes)
{
    static const unsigned masks[] = {0xf, 5, 1};
    unsigned low = m->chain == BYTES ? 0 : m->chain == ODD_EVEN ? 1 : 3;

    *off = addr - (addr & low);
    *planes = masks[m->chain] << (addr & low);
}

static void model_write(Model *m, unsigned addr, uint8_t val)
{
    unsigned off, planes, mode = m->gfx[5] & 3, n = m->gfx[3] & 7;
    uint8_t turned = val;

    for (unsigned i = 0; i < n; i++)
        turned = turned >> 1 | turned << 7;
    model_place(m, addr, &off, &planes);
    for (unsigned p = 0; p < 4; p++) {
        if (!bit_of(m->map_mask & planes, p))
            continue;
        for (unsigned b = 0; b < 8; b++) {
            bool latch = bit_of(m->latch[p], b), enabled = bit_of(m->gfx[8], b), in, out;
            if (mode == 0)
                in = bit_of(m->gfx[1], p) ? bit_of(m->gfx[0], p) : bit_of(turned, b);
            else if (mode == 2)
                in = bit_of(val, p);
            else
                in = bit_of(m->gfx[0], p);
            if (mode == 3)
                enabled = enabled && bit_of(turned, b);
            switch (m->gfx[3] >> 3 & 3) {
            case 0: out = in; break;
            case 1: out = in && latch; break;
            case 2: out = in || latch; break;
            default: out = in != latch; break;
            }
            if (mode == 1 || !enabled)
                out = latch;
            m->plane[p][off] = (m->plane[p][off] & ~(1u << b)) | (unsigned)out << b;
        }
    }
}

static uint8_t model_read(Model *m, unsigned addr)
{
    unsigned off, planes, chosen = m->gfx[4];
    uint8_t match = 0;

    model_place(m, addr, &off, &planes);
    for (unsigned p = 0; p < 4; p++)
        m->latch[p] = m->plane[p][off];
    if (m->chain == ODD_EVEN)
        chosen = (chosen & 2) + addr % 2;
    if (m->chain == CHAIN4)
        chosen = addr % 4;
    if (!(m->gfx[5] & 8))
        return m->latch[chosen];
    for (unsigned b = 0; b < 8; b++) {
        bool same = true;
        for (unsigned p = 0; p < 4; p++)
            same &= !bit_of(m->gfx[7], p) || bit_of(m->latch[p], b) == bit_of(m->gfx[2], p);
        match |= (unsigned)same << b;
    }
    return match;
}

static void model_check(VgaBoard *vb, const Model *m)
{
    for (unsigned off = 0; off < 0x200; off++) {
        for (unsigned p = 0; p < 4; p++)
            g_assert_cmphex(lfb(vb, 4 * off + p), ==, m->plane[p][off]);
    }
}

static void test_write_modes(VgaBoard **f, gconstpointer unused)
{
    static const uint8_t masks[9] = {0xf, 0xf, 0xf, 0x1f, 3, 0x0b, 0, 0xf, 0xff};
    g_autofree Model *m = g_new0(Model, 1);
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_12);
    m->gfx[7] = 0x0f;
    m->gfx[8] = 0xff;
    for (unsigned round = 0; round < 3000; round++) {
        unsigned reg = g_test_rand_int_range(0, 9), addr = g_test_rand_int_range(0, 0x200);
        if (round % 50 == 0) {
            m->chain = round / 50 % 3;
            vga_seq(vb, 4, m->chain == BYTES ? 6 : m->chain == ODD_EVEN ? 2 : 0xe);
            reg = 5;
        }
        m->gfx[reg] = g_test_rand_int_range(0, 256) & masks[reg];
        vga_gfx(vb, reg, reg == 5 && m->chain == ODD_EVEN ? m->gfx[5] | 0x10
                         : reg == 6 ? 5 : m->gfx[reg]);
        m->map_mask = g_test_rand_int_range(0, 16);
        vga_seq(vb, 2, m->map_mask);
        g_assert_cmphex(test_peek(vb->tb, WINDOW + addr, 1), ==, model_read(m, addr));
        addr = g_test_rand_int_range(0, 0x200);
        uint8_t val = g_test_rand_int_range(0, 256);
        test_poke(vb->tb, WINDOW + addr, 1, val);
        model_write(m, addr, val);
    }
    model_check(vb, m);
    vga_gfx(vb, 5, 0); /* wide accesses are bytes in order */
    vga_gfx(vb, 4, 0);
    vga_gfx(vb, 3, 0);
    vga_gfx(vb, 1, 0);
    vga_gfx(vb, 8, 0xff);
    vga_seq(vb, 2, 1);
    vga_seq(vb, 4, 6);
    test_poke(vb->tb, WINDOW + 0x300, 8, 0x8877665544332211);
    g_assert_cmphex(test_peek(vb->tb, WINDOW + 0x302, 4), ==, 0x66554433);
    g_assert_cmphex(lfb(vb, 4 * 0x307), ==, 0x88);
}

static void test_windows(VgaBoard **f, gconstpointer unused)
{
    static const struct { unsigned first, last; } windows[4] = {
        {0x00000, 0x1ffff}, {0x00000, 0x0ffff}, {0x10000, 0x17fff}, {0x18000, 0x1ffff}};
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_12);
    for (unsigned w = 0; w < 4; w++) {
        vga_gfx(vb, 6, w << 2 | 1);
        test_poke(vb->tb, WINDOW + windows[w].first, 1, 0xa0 + w);
        g_assert_cmphex(test_peek(vb->tb, WINDOW + windows[w].first, 1), ==, 0xa0 + w);
        g_assert_cmphex(lfb(vb, 0), ==, 0xa0 + w);
        test_poke(vb->tb, WINDOW + windows[w].last, 1, 0x50 + w);
        g_assert_cmphex(test_peek(vb->tb, WINDOW + windows[w].last, 1), ==, 0x50 + w);
        if (windows[w].last - windows[w].first >= 0xffff) /* planes end at 64 KiB */
            g_assert_cmphex(lfb(vb, 4 * 0xffff), ==, 0x50 + w);
        for (unsigned other = 0; other < 0x20000; other += 0x4000) {
            if (other < windows[w].first || other > windows[w].last)
                g_assert_cmphex(test_peek(vb->tb, WINDOW + other, 1), ==, 0xff);
        }
        vga_out(vb, 0x3c2, 0xe1); /* RAM off */
        test_poke(vb->tb, WINDOW + windows[w].first, 1, 0);
        g_assert_cmphex(test_peek(vb->tb, WINDOW + windows[w].first, 1), ==, 0xff);
        vga_out(vb, 0x3c2, 0xe3);
        g_assert_cmphex(lfb(vb, 0), ==, 0xa0 + w);
    }
}

/* ---- VBE ---- */

static void test_vbe_registers(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;
    static const uint16_t depths[] = {4, 8, 15, 16, 24, 32};

    g_assert_cmphex(vga_vbe_get(vb, 0), ==, 0xb0c5);
    vga_vbe(vb, 0, 0xb0c0);
    vga_vbe(vb, 0, 0xb0c6);
    g_assert_cmphex(vga_vbe_get(vb, 0), ==, 0xb0c0);
    g_assert_cmpuint(vga_vbe_get(vb, 10), ==, 128);
    vga_vbe(vb, 10, 1);
    g_assert_cmpuint(vga_vbe_get(vb, 10), ==, 128);
    g_assert_cmpuint(vga_vbe_get(vb, 11), ==, 0);
    g_assert_cmpuint(vga_vbe_get(vb, 0xffff), ==, 0);
    g_assert_cmphex(test_in(vb->tb, 0x1ce, 2), ==, 0xffff);
    g_assert_cmphex(test_in(vb->tb, 0x1ce, 1), ==, 0xff); /* words only */
    vga_vbe(vb, 4, 2); /* capabilities */
    g_assert_cmpuint(vga_vbe_get(vb, 1), ==, DISPLAY_WIDTH_MAX);
    g_assert_cmpuint(vga_vbe_get(vb, 2), ==, DISPLAY_HEIGHT_MAX);
    g_assert_cmpuint(vga_vbe_get(vb, 3), ==, 32);
    vga_vbe(vb, 4, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(depths); i++) {
        vga_vbe(vb, 3, depths[i]);
        g_assert_cmpuint(vga_vbe_get(vb, 3), ==, depths[i]);
        vga_vbe(vb, 3, depths[i] + 1 == 16 ? 17 : depths[i] + 1);
        g_assert_cmpuint(vga_vbe_get(vb, 3), ==, depths[i]);
    }
    vga_vbe(vb, 3, 0);
    g_assert_cmpuint(vga_vbe_get(vb, 3), ==, 8);
    vga_vbe_mode(vb, 1024, 768, 32);
    g_assert_cmpuint(vga_vbe_get(vb, 6), ==, 1024);
    g_assert_cmpuint(vga_vbe_get(vb, 7), ==, 2048);
    vga_vbe(vb, 1, 0);
    vga_vbe(vb, 1, DISPLAY_WIDTH_MAX + 1);
    g_assert_cmpuint(vga_vbe_get(vb, 1), ==, 1024);
    vga_vbe(vb, 2, 0);
    vga_vbe(vb, 2, DISPLAY_HEIGHT_MAX + 1);
    g_assert_cmpuint(vga_vbe_get(vb, 2), ==, 768);
    vga_vbe(vb, 6, 2048);
    g_assert_cmpuint(vga_vbe_get(vb, 6), ==, 2048);
    g_assert_cmpuint(vga_vbe_get(vb, 7), ==, 1024);
    vga_vbe(vb, 8, 0xffff);
    g_assert_cmpuint(vga_vbe_get(vb, 8), ==, 1024);
    vga_vbe(vb, 9, 0xffff);
    g_assert_cmpuint(vga_vbe_get(vb, 9), ==, 256);
    vga_vbe(vb, 6, 5); /* not narrower than the screen */
    g_assert_cmpuint(vga_vbe_get(vb, 6), ==, 1024);
    vga_vbe(vb, 5, 127);
    vga_vbe(vb, 5, 128);
    g_assert_cmpuint(vga_vbe_get(vb, 5), ==, 127);
    vga_vbe(vb, 4, 0);
    vga_vbe(vb, 4, 0xc1); /* enabling starts over */
    g_assert_cmpuint(vga_vbe_get(vb, 5) | vga_vbe_get(vb, 8) | vga_vbe_get(vb, 9), ==, 0);
    vga_vbe(vb, 4, 0);
    vga_vbe(vb, 3, 4); /* banks of 64 KiB in each of four planes */
    vga_vbe(vb, 5, 31);
    vga_vbe(vb, 5, 32);
    g_assert_cmpuint(vga_vbe_get(vb, 5), ==, 31);
}

static void test_vbe_clear(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;
    uint8_t mark = 0x5a;

    g_assert_true(mem_write(vb->tb->board.mem, VGA_LFB, &mark, 1));
    g_assert_true(mem_write(vb->tb->board.mem, VGA_LFB + 640 * 480, &mark, 1));
    vga_vbe(vb, 4, 0xc1);
    g_assert_cmphex(lfb(vb, 0), ==, 0x5a);
    vga_vbe(vb, 4, 0x41); /* on already: no clearing */
    g_assert_cmphex(lfb(vb, 0), ==, 0x5a);
    vga_vbe_mode(vb, 640, 480, 8);
    g_assert_cmphex(lfb(vb, 0), ==, 0);
    g_assert_cmphex(lfb(vb, 640 * 480), ==, 0x5a);
    vga_vbe_mode(vb, 4096, 4096, 32); /* more than there is */
    g_assert_cmphex(lfb(vb, MEM_LEN - 1), ==, 0);
}

static void test_bank(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_13);
    vga_vbe_mode(vb, 1024, 768, 8);
    vga_gfx(vb, 8, 0); /* in linear modes the graphics controller is out of the way */
    vga_vbe(vb, 5, 3);
    test_poke(vb->tb, WINDOW + 0xfffe, 2, 0x1234);
    g_assert_cmphex(lfb(vb, 0x3fffe), ==, 0x34);
    g_assert_cmphex(lfb(vb, 0x3ffff), ==, 0x12);
    g_assert_cmphex(test_peek(vb->tb, WINDOW + 0xffff, 1), ==, 0x12);
    vga_vbe(vb, 4, 0); /* without VBE there is no bank */
    vga_gfx(vb, 8, 0xff);
    test_poke(vb->tb, WINDOW, 1, 0x77);
    g_assert_cmphex(lfb(vb, 0), ==, 0x77);
    vga_mode(vb, MODE_12);
    vga_vbe_mode(vb, 800, 600, 4); /* planar: the bank counts bytes of planes */
    vga_vbe(vb, 5, 2);
    vga_seq(vb, 2, 4);
    test_poke(vb->tb, WINDOW + 5, 1, 0x99);
    g_assert_cmphex(lfb(vb, 4 * 0x20005 + 2), ==, 0x99);
}

/* CVE-2016-3710: a bank that is good for one way of access, then another way. With planes the
 * last linear bank is four times past the end. Also CVE-2016-3712: limits taken by order of
 * writes, and a window of 128 KiB behind the last bank. */
static void test_dark_portal(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_13);
    vga_vbe_mode(vb, 1024, 768, 8);
    vga_vbe(vb, 5, 127);
    test_poke(vb->tb, WINDOW + 0xffff, 1, 0x66);
    g_assert_cmphex(lfb(vb, MEM_LEN - 1), ==, 0x66);
    for (unsigned memory = 0; memory < 16; memory += 2) {
        for (unsigned window = 0; window < 2; window++) {
            vga_seq(vb, 4, memory);
            vga_gfx(vb, 6, window << 2 | 1);
            for (unsigned mode = 0; mode < 16; mode++) {
                vga_gfx(vb, 5, mode | (memory & 2) << 3);
                for (unsigned at = 0; at < 0x20000; at += 0xfff) {
                    test_poke(vb->tb, WINDOW + at, 8, 0xffffffffffffffff);
                    (void)test_peek(vb->tb, WINDOW + at, 8);
                }
            }
        }
    }
    vga_seq(vb, 4, 6); /* planes: bank 127 lies outside */
    vga_gfx(vb, 5, 0);
    g_assert_cmphex(test_peek(vb->tb, WINDOW, 1), ==, 0xff);
    vga_vbe(vb, 3, 4); /* and so it does when the depth follows */
    test_poke(vb->tb, WINDOW, 1, 0);
    g_assert_cmphex(test_peek(vb->tb, WINDOW, 1), ==, 0xff);
    vga_seq(vb, 4, 0x0e);
    vga_gfx(vb, 6, 0x01);
    test_poke(vb->tb, WINDOW + 0xfffc, 8, 0x1122334455667788); /* four bytes over the end */
    g_assert_cmphex(test_peek(vb->tb, WINDOW + 0xfffc, 8), ==, 0xffffffff55667788);
}

/* CVE-2017-13672 and CVE-2016-3712: registers that together name what is not there, in any order,
 * and a refresh after each. AddressSanitizer looks on; the block ends at an unmapped page. */
static void test_display_past_memory(VgaBoard **f, gconstpointer unused)
{
    static const uint16_t values[] = {0, 1, 7, 8, 640, 2047, 4095, 4096, 0x7fff, 0xffff};
    VgaBoard *vb = *f;

    vga_vbe_mode(vb, 4096, 4096, 32); /* 64 MiB of 8 */
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 4095, 4095), ==, 0);
    vga_vbe_mode(vb, 1001, 4096, 24); /* a line that is there in part is black */
    for (unsigned i = 1; i < 3003; i++) {
        uint8_t on = 0xff;
        g_assert_true(mem_write(vb->tb->board.mem, VGA_LFB + MEM_LEN - i, &on, 1));
    }
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 1000, MEM_LEN / 3003 - 1), ==, 0xffffff);
    g_assert_cmphex(vga_dot(vb, 0, MEM_LEN / 3003), ==, 0);
    vga_vbe_mode(vb, 64, 64, 4);
    vga_vbe(vb, 6, 0xffff);
    vga_vbe(vb, 9, 0xffff);
    vga_vbe(vb, 3, 32);
    vga_look(vb);
    for (unsigned i = 0; i < 300; i++) {
        vga_vbe(vb, g_test_rand_int_range(1, 10), values[g_test_rand_int_range(0, 10)]);
        if (i % 16 == 0)
            vga_vbe(vb, 4, 0xc1);
        vga_vbe(vb, 2, g_test_rand_int_range(1, 64));
        if (i % 4 == 0)
            vga_look(vb);
    }
    vga_mode(vb, MODE_12);
    for (unsigned i = 0; i < 300; i++) {
        vga_crtc(vb, 0x11, 0);
        vga_crtc(vb, g_test_rand_int_range(0, 25), g_test_rand_int_range(0, 256));
        vga_gfx(vb, 6, g_test_rand_int_range(0, 256));
        vga_gfx(vb, 5, g_test_rand_int_range(0, 256));
        vga_seq(vb, 1, g_test_rand_int_range(0, 256) & ~0x20);
        vga_seq(vb, 3, g_test_rand_int_range(0, 256));
        vga_attr(vb, 0x13, g_test_rand_int_range(0, 256));
        vga_look(vb);
        g_free(display_text(vb->display));
    }
}

static void test_registers_bar(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;
    TestBoard *tb = vb->tb;

    test_poke(tb, VGA_REGISTERS + 0x502, 2, 800);
    g_assert_cmpuint(test_peek(tb, VGA_REGISTERS + 0x502, 2), ==, 800);
    g_assert_cmpuint(vga_vbe_get(vb, 1), ==, 800);
    g_assert_cmphex(test_peek(tb, VGA_REGISTERS + 0x514, 2), ==, 128);
    g_assert_cmphex(test_peek(tb, VGA_REGISTERS + 0x516, 2), ==, 0);
    g_assert_cmphex(test_in(tb, 0x1ce, 2), ==, 1); /* the index stays */
    test_poke(tb, VGA_REGISTERS + 0x402, 1, 0x67);
    g_assert_cmphex(vga_in(vb, 0x3cc), ==, 0x67);
    test_poke(tb, VGA_REGISTERS + 0x404, 2, 0x0502);
    g_assert_cmphex(test_peek(tb, VGA_REGISTERS + 0x405, 1), ==, 5);
    g_assert_cmphex(test_peek(tb, VGA_REGISTERS + 0x600, 4), ==, 8);
    g_assert_cmphex(test_peek(tb, VGA_REGISTERS + 0x604, 4), ==, 0x1e1e1e1e);
    test_poke(tb, VGA_REGISTERS + 0x604, 4, 0x12345678);
    g_assert_cmphex(test_peek(tb, VGA_REGISTERS + 0x604, 4), ==, 0x1e1e1e1e);
    test_poke(tb, VGA_REGISTERS + 0x604, 4, 0xbebebebe);
    g_assert_cmphex(test_peek(tb, VGA_REGISTERS + 0x604, 4), ==, 0xbebebebe);
    g_assert_cmphex(test_peek(tb, VGA_REGISTERS, 4), ==, 0); /* no EDID */
    vga_attr(vb, 0x11, 0x2a);
    g_assert_cmphex(test_peek(tb, VGA_REGISTERS + 0x3fe, 4), ==, 0x2a310000); /* 3C0, 3C1 */
}

static void test_state(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;
    g_autoptr(GByteArray) saved = g_byte_array_new(), again = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    size_t used;

    vga_mode(vb, MODE_12);
    vga_vbe_mode(vb, 800, 600, 16);
    state_save(vb->vga->cls->state, vb->vga, saved);
    device_reset(vb->vga, RESET_COLD);
    g_assert_cmphex(vga_vbe_get(vb, 4), ==, 0);
    state_load(vb->vga->cls->state, vb->vga, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    state_save(vb->vga->cls->state, vb->vga, again);
    g_assert_cmpmem(saved->data, saved->len, again->data, again->len);
    vga_look(vb);
    g_assert_cmpuint(vga_vbe_get(vb, 1), ==, 800);
    /* A depth that no write leaves. */
    uint8_t *vbe = memmem(saved->data, saved->len, "\xc5\xb0\x20\x03\x58\x02\x10\x00", 8);
    g_assert_nonnull(vbe);
    vbe[6] = 7;
    g_assert_false(state_load(vb->vga->cls->state, vb->vga, saved->data, saved->len, &used,
                              &error));
    g_assert_nonnull(error);
    device_reset(vb->vga, RESET_COLD);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/vga/" name, VgaBoard *, NULL, set_up, fn, tear_down)
    ADD("pci", test_pci);
    g_test_add_func("/vga/properties", test_properties);
    ADD("registers", test_indexed_registers);
    ADD("missing-registers", test_missing_registers);
    ADD("addresses", test_addresses);
    ADD("protect", test_protect);
    ADD("dac", test_dac);
    ADD("retrace", test_retrace);
    ADD("write-modes", test_write_modes);
    ADD("windows", test_windows);
    ADD("vbe/registers", test_vbe_registers);
    ADD("vbe/clear", test_vbe_clear);
    ADD("vbe/bank", test_bank);
    ADD("escape/dark-portal", test_dark_portal);
    ADD("escape/display-past-memory", test_display_past_memory);
    ADD("registers-bar", test_registers_bar);
    ADD("state", test_state);
    return g_test_run();
}
