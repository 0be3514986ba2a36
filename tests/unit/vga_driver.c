/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See vga_driver.h. */
#include "vga_driver.h"

typedef struct ModeTable {
    uint8_t misc, seq[5], crtc[25], gfx[9], attr[21];
} ModeTable;

#define EGA_PALETTE                                                                               \
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f
#define CGA_PALETTE                                                                               \
    0x00, 0x13, 0x15, 0x17, 0x02, 0x04, 0x06, 0x07, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17
#define GRAY_PALETTE                                                                              \
    0x00, 0x08, 0x08, 0x08, 0x08, 0x08, 0x08, 0x08, 0x10, 0x18, 0x18, 0x18, 0x18, 0x18, 0x18, 0x18

static const ModeTable modes[VGA_MODES] = {
    [MODE_1] = {0x67, {3, 8, 3, 0, 2},
                {0x2d, 0x27, 0x28, 0x90, 0x2b, 0xa0, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0,
                 0x9c, 0x8e, 0x8f, 0x14, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
                {0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff}, {EGA_PALETTE, 0x0c, 0, 0x0f, 8, 0}},
    [MODE_3] = {0x67, {3, 0, 3, 0, 2},
                {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0,
                 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
                {0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff}, {EGA_PALETTE, 0x0c, 0, 0x0f, 8, 0}},
    [MODE_4] = {0x63, {3, 9, 3, 0, 2},
                {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0,
                 0x9c, 0x8e, 0x8f, 0x14, 0, 0x96, 0xb9, 0xa2, 0xff},
                {0, 0, 0, 0, 0, 0x30, 0x0f, 0, 0xff}, {CGA_PALETTE, 1, 0, 3, 0, 0}},
    [MODE_6] = {0x63, {3, 1, 1, 0, 6},
                {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0,
                 0x9c, 0x8e, 0x8f, 0x28, 0, 0x96, 0xb9, 0xc2, 0xff},
                {0, 0, 0, 0, 0, 0, 0x0d, 0, 0xff}, {0, 0x17, 0x17, [16] = 1, 0, 1, 0, 0}},
    [MODE_7] = {0x66, {3, 0, 3, 0, 2},
                {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0,
                 0x9c, 0x8e, 0x8f, 0x28, 0x0d, 0x96, 0xb9, 0xa3, 0xff},
                {0, 0, 0, 0, 0, 0x10, 0x0a, 0, 0xff}, {GRAY_PALETTE, 0x0e, 0, 0x0f, 8, 0}},
    [MODE_D] = {0x63, {3, 9, 0x0f, 0, 6},
                {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0, 0xc0, 0, 0, 0, 0, 0, 0,
                 0x9c, 0x8e, 0x8f, 0x14, 0, 0x96, 0xb9, 0xe3, 0xff},
                {0, 0, 0, 0, 0, 0, 5, 0x0f, 0xff}, {EGA_PALETTE, 1, 0, 0x0f, 0, 0}},
    [MODE_12] = {0xe3, {3, 1, 0x0f, 0, 6},
                 {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0, 0, 0, 0, 0, 0,
                  0xea, 0x8c, 0xdf, 0x28, 0, 0xe7, 0x04, 0xe3, 0xff},
                 {0, 0, 0, 0, 0, 0, 5, 0x0f, 0xff}, {EGA_PALETTE, 1, 0, 0x0f, 0, 0}},
    [MODE_13] = {0x63, {3, 1, 0x0f, 0, 0x0e},
                 {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0x41, 0, 0, 0, 0, 0, 0,
                  0x9c, 0x8e, 0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
                 {0, 0, 0, 0, 0, 0x40, 5, 0x0f, 0xff}, {EGA_PALETTE, 0x41, 0, 0x0f, 0, 0}},
    [MODE_X] = {0xe3, {3, 1, 0x0f, 0, 6},
                {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0d, 0x3e, 0, 0x41, 0, 0, 0, 0, 0, 0,
                 0xea, 0xac, 0xdf, 0x28, 0, 0xe7, 0x06, 0xe3, 0xff},
                {0, 0, 0, 0, 0, 0x40, 5, 0x0f, 0xff}, {EGA_PALETTE, 0x41, 0, 0x0f, 0, 0}},
};

static void viewer_changed(void *opaque, const DisplayRect *r)
{
    VgaBoard *vb = opaque;

    vb->changes++;
    vb->pixels += (uint64_t)r->width * r->height;
    vb->last = *r;
}

static void viewer_resized(void *opaque, unsigned width, unsigned height)
{
    VgaBoard *vb = opaque;

    vb->resizes++;
}

static const DisplayViewer viewer = {.changed = viewer_changed, .resized = viewer_resized};

VgaBoard *vga_board_new(const char *props)
{
    VgaBoard *vb = g_new0(VgaBoard, 1);

    vb->tb = test_board_new(0);
    vb->display = vb->tb->board.display = display_new(NULL);
    test_board_add(vb->tb, "i440fx", NULL);
    vb->vga = test_board_add(vb->tb, "vga", props ? props : "romfile=");
    test_cfg_write(vb->tb, VGA_DEVFN, 0x10, 4, VGA_LFB);
    test_cfg_write(vb->tb, VGA_DEVFN, 0x18, 4, VGA_REGISTERS);
    test_cfg_write(vb->tb, VGA_DEVFN, 0x04, 2, 3);
    vb->crtc = 0x3d4;
    display_add_viewer(vb->display, &viewer, vb);
    return vb;
}

void vga_board_free(VgaBoard *vb)
{
    display_remove_viewer(vb->display, &viewer, vb);
    test_board_free(vb->tb);
    display_free(vb->display);
    g_free(vb);
}

void vga_out(VgaBoard *vb, unsigned port, uint8_t val)
{
    test_out(vb->tb, (uint16_t)port, 1, val);
}

uint8_t vga_in(VgaBoard *vb, unsigned port)
{
    return test_in(vb->tb, (uint16_t)port, 1);
}

void vga_seq(VgaBoard *vb, uint8_t reg, uint8_t val)
{
    test_out(vb->tb, 0x3c4, 2, (unsigned)val << 8 | reg);
}

void vga_gfx(VgaBoard *vb, uint8_t reg, uint8_t val)
{
    test_out(vb->tb, 0x3ce, 2, (unsigned)val << 8 | reg);
}

void vga_crtc(VgaBoard *vb, uint8_t reg, uint8_t val)
{
    test_out(vb->tb, (uint16_t)vb->crtc, 2, (unsigned)val << 8 | reg);
}

void vga_attr(VgaBoard *vb, uint8_t reg, uint8_t val)
{
    vga_in(vb, vb->crtc + 6);
    vga_out(vb, 0x3c0, reg | 0x20);
    vga_out(vb, 0x3c0, val);
}

void vga_vbe(VgaBoard *vb, uint16_t reg, uint16_t val)
{
    test_out(vb->tb, 0x1ce, 2, reg);
    test_out(vb->tb, 0x1cf, 2, val);
}

uint16_t vga_vbe_get(VgaBoard *vb, uint16_t reg)
{
    test_out(vb->tb, 0x1ce, 2, reg);
    return test_in(vb->tb, 0x1d0, 2);
}

void vga_dac(VgaBoard *vb, uint8_t entry, uint32_t rgb)
{
    vga_out(vb, 0x3c8, entry);
    vga_out(vb, 0x3c9, rgb >> 16);
    vga_out(vb, 0x3c9, rgb >> 8);
    vga_out(vb, 0x3c9, rgb);
}

uint32_t dac_preset(unsigned i)
{
    return (i * 7 & 0x3f) << 16 | (i * 3 & 0x3f) << 8 | (63 - i % 64);
}

uint32_t color_preset(unsigned i)
{
    uint32_t out = 0;

    for (unsigned part = 0; part < 3; part++) {
        unsigned c = dac_preset(i) >> (16 - 8 * part) & 0x3f;
        out = out << 8 | (c * 4 + c / 16);
    }
    return out;
}

void vga_mode(VgaBoard *vb, VgaMode mode)
{
    const ModeTable *m = &modes[mode];

    vga_vbe(vb, 4, 0);
    vga_out(vb, 0x3c2, m->misc);
    vb->crtc = m->misc & 1 ? 0x3d4 : 0x3b4;
    for (unsigned i = 0; i < sizeof m->seq; i++)
        vga_seq(vb, i, m->seq[i]);
    vga_crtc(vb, 0x11, 0);
    for (unsigned i = 0; i < sizeof m->crtc; i++)
        vga_crtc(vb, i, m->crtc[i]);
    for (unsigned i = 0; i < sizeof m->gfx; i++)
        vga_gfx(vb, i, m->gfx[i]);
    for (unsigned i = 0; i < sizeof m->attr; i++)
        vga_attr(vb, i, m->attr[i]);
    for (unsigned i = 0; i < 256; i++)
        vga_dac(vb, i, dac_preset(i));
}

void vga_vbe_mode(VgaBoard *vb, unsigned width, unsigned height, unsigned bpp)
{
    vga_vbe(vb, 4, 0);
    vga_vbe(vb, 3, bpp);
    vga_vbe(vb, 1, width);
    vga_vbe(vb, 2, height);
    vga_vbe(vb, 4, 0x41);
    vga_in(vb, vb->crtc + 6);
    vga_out(vb, 0x3c0, 0x20);
}

uint32_t vga_dot(VgaBoard *vb, unsigned x, unsigned y)
{
    DisplaySurface s = display_lock(vb->display);
    uint32_t dot;

    g_assert_cmpuint(x, <, s.width);
    g_assert_cmpuint(y, <, s.height);
    dot = s.pixels[(size_t)s.stride * y + x];
    display_unlock(vb->display);
    return dot;
}

void vga_look(VgaBoard *vb)
{
    vb->changes = vb->resizes = 0;
    vb->pixels = 0;
    display_update(vb->display);
}
