/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VGA's picture in each kind of mode, dot by dot against what the mode's description says, and
 * what a change of it costs. With VGA_PICTURES set to a folder some are left there as PPM. */
#include <stdio.h>
#include <string.h>

#include "lodge/num.h"
#include "vga_driver.h"

#define GRAPHICS 0xa0000u
#define MONO 0xb0000u
#define COLOR 0xb8000u
#define BLINK_NS 266666667 /* half a period of the cursor */

static void set_up(VgaBoard **vb, gconstpointer unused)
{
    *vb = vga_board_new("romfile=,vgamem=8M");
}

static void tear_down(VgaBoard **vb, gconstpointer unused)
{
    vga_board_free(*vb);
}

static uint8_t noise(unsigned n)
{
    return (n * 2654435761u) >> 13;
}

static void check_size(VgaBoard *vb, unsigned width, unsigned height)
{
    DisplaySurface s = display_lock(vb->display);

    g_assert_cmpuint(s.width, ==, width);
    g_assert_cmpuint(s.height, ==, height);
    display_unlock(vb->display);
}

/* Nothing to do costs nothing. */
static void check_idle(VgaBoard *vb)
{
    vga_look(vb);
    vga_look(vb);
    g_assert_cmpuint(vb->changes, ==, 0);
    g_assert_cmpuint(vb->resizes, ==, 0);
}

static void leave_picture(VgaBoard *vb, const char *name)
{
    const char *folder = g_getenv("VGA_PICTURES");

    if (!folder)
        return;
    g_autofree char *path = g_build_filename(folder, name, NULL);
    FILE *f = fopen(path, "wb");
    g_assert_nonnull(f);
    DisplaySurface s = display_lock(vb->display);
    fprintf(f, "P6 %u %u 255\n", s.width, s.height);
    for (size_t i = 0; i < (size_t)s.stride * s.height; i++) {
        uint8_t rgb[3] = {s.pixels[i] >> 16, s.pixels[i] >> 8, s.pixels[i]};
        g_assert_cmpuint(fwrite(rgb, 3, 1, f), ==, 1);
    }
    display_unlock(vb->display);
    g_assert_cmpint(fclose(f), ==, 0);
}

/* ---- text ---- */

/* The glyphs of these tests: 32 lines a character, another shape in each of two maps. */
static uint8_t glyph(unsigned map, unsigned ch, unsigned row)
{
    return noise(map * 8192 + ch * 32 + row);
}

/* As a BIOS loads fonts: plane 2 alone, byte by byte. */
static void load_font(VgaBoard *vb, unsigned map, unsigned at)
{
    vga_seq(vb, 2, 4);
    vga_seq(vb, 4, 6);
    vga_gfx(vb, 5, 0);
    vga_gfx(vb, 6, 4);
    for (unsigned i = 0; i < 256 * 32; i++)
        test_poke(vb->tb, GRAPHICS + at + i, 1, glyph(map, i / 32, i % 32));
    vga_seq(vb, 2, 3);
    vga_seq(vb, 4, 2);
    vga_gfx(vb, 5, 0x10);
    vga_gfx(vb, 6, 0x0e);
}

static void put(VgaBoard *vb, unsigned cell, uint8_t ch, uint8_t attr)
{
    test_poke(vb->tb, COLOR + 2 * cell, 2, ch | attr << 8);
}

static void fill_text(VgaBoard *vb, unsigned cells)
{
    for (unsigned i = 0; i < cells; i++)
        put(vb, i, noise(i), noise(i + 5000));
}

static const uint8_t ega[16] = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07,
                                0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f};

/* A dot of a cell in a colour text mode with 9-dot characters; blinking characters are on. */
static uint32_t text_dot(uint8_t ch, uint8_t attr, unsigned map, unsigned dot, unsigned row)
{
    uint8_t bits = glyph(map, ch, row);
    bool on = dot < 8 ? bits >> (7 - dot) & 1 : ch >= 0xc0 && ch <= 0xdf && (bits & 1);

    return color_preset(ega[on ? attr & 15 : attr >> 4 & 7]);
}

static void check_text(VgaBoard *vb, unsigned columns, unsigned first_cell, unsigned wide)
{
    for (unsigned y = 0; y < 400; y++) {
        for (unsigned x = 0; x < columns * 9 * wide; x++) {
            unsigned i = first_cell + y / 16 * columns + x / (9 * wide);
            g_assert_cmphex(vga_dot(vb, x, y), ==, text_dot(noise(i), noise(i + 5000), 0,
                                                            x / wide % 9, y % 16));
        }
    }
}

static void start_text(VgaBoard *vb, VgaMode mode)
{
    vga_mode(vb, mode);
    load_font(vb, 0, 0);
    vga_crtc(vb, 0x0a, 0x20); /* cursor off */
}

static void test_text(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    start_text(vb, MODE_3);
    fill_text(vb, 2000 + 80);
    vga_look(vb);
    check_size(vb, 720, 400);
    check_text(vb, 80, 0, 1);
    check_idle(vb);
    vga_crtc(vb, 0x0d, 80); /* scroll by a row */
    vga_look(vb);
    check_text(vb, 80, 80, 1);
    start_text(vb, MODE_1);
    vga_look(vb);
    check_size(vb, 720, 400);
    check_text(vb, 40, 0, 2);
}

static void test_text_costs(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    start_text(vb, MODE_3);
    for (unsigned i = 0; i < 2000; i++)
        put(vb, i, ' ', 7);
    vga_look(vb);
    g_assert_cmpuint(vb->resizes, ==, 1);
    check_idle(vb);
    put(vb, 81, 'A', 7);
    vga_look(vb); /* one character: one rectangle of its size */
    g_assert_cmpuint(vb->changes, ==, 1);
    g_assert_cmpuint(vb->pixels, ==, 9 * 16);
    g_assert_cmpuint(vb->last.x, ==, 9);
    g_assert_cmpuint(vb->last.y, ==, 16);
    put(vb, 81, 'A', 7); /* the same again: none */
    vga_look(vb);
    g_assert_cmpuint(vb->changes, ==, 0);
    for (unsigned i = 0; i < 10; i++)
        put(vb, 170 + i, 'x', 7);
    put(vb, 190, 'y', 7);
    vga_look(vb);
    g_assert_cmpuint(vb->changes, ==, 2);
    g_assert_cmpuint(vb->pixels, ==, 11 * 9 * 16);
    uint16_t cell = 0x0742; /* a guest that writes the frame buffer behind the VGA's back */
    g_assert_true(mem_write(vb->tb->board.mem, VGA_LFB + 8 * 3, &cell, 2));
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 27, 0), ==, text_dot(0x42, 7, 0, 0, 0));
    vga_dac(vb, 200, 0x123456); /* a colour that is not shown */
    check_idle(vb);
}

static void test_cursor(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;
    uint32_t fg = color_preset(ega[2]);

    start_text(vb, MODE_3);
    for (unsigned i = 0; i < 2000; i++)
        put(vb, i, 0, 0x02);
    vga_look(vb);
    vga_crtc(vb, 0x0e, 0);
    vga_crtc(vb, 0x0f, 85);
    vga_crtc(vb, 0x0a, 13);
    vga_crtc(vb, 0x0b, 14);
    vga_look(vb);
    g_assert_cmpuint(vb->changes, ==, 1);
    g_assert_cmpuint(vb->pixels, ==, 9 * 16);
    for (unsigned row = 0; row < 16; row++) {
        for (unsigned dot = 0; dot < 9; dot++)
            g_assert_cmphex(vga_dot(vb, 45 + dot, 16 + row), ==,
                            row == 13 || row == 14 ? fg : text_dot(0, 2, 0, dot, row));
    }
    unsigned turns = 0;
    for (unsigned i = 0; i < 20; i++) { /* two half periods, of one cell */
        test_advance(vb->tb, BLINK_NS / 10 + 1000);
        vga_look(vb);
        turns += vb->changes;
        g_assert_cmpuint(vb->pixels, ==, vb->changes * 9 * 16);
    }
    g_assert_cmpuint(turns, ==, 2);
    vga_crtc(vb, 0x0f, 86); /* moves: the old cell and the new one */
    vga_look(vb);
    g_assert_cmpuint(vb->pixels, ==, 2 * 9 * 16);
    vga_crtc(vb, 0x0a, 15); /* starts below its end: none */
    vga_look(vb);
    for (unsigned i = 0; i < 3; i++) {
        test_advance(vb->tb, BLINK_NS);
        vga_look(vb);
        g_assert_cmpuint(vb->changes, ==, 0);
    }
    vga_crtc(vb, 0x0a, 0x2d);
    test_advance(vb->tb, BLINK_NS);
    check_idle(vb);
    vga_crtc(vb, 0x0a, 13); /* out of the screen: nothing blinks */
    vga_crtc(vb, 0x0e, 0x20);
    vga_look(vb);
    test_advance(vb->tb, BLINK_NS);
    check_idle(vb);
}

static void test_blink(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;
    unsigned turns = 0;

    start_text(vb, MODE_3);
    for (unsigned i = 0; i < 2000; i++)
        put(vb, i, ' ', 7);
    put(vb, 0, 1, 0x97);
    vga_look(vb);
    uint32_t on = 0, off = 0;
    for (unsigned i = 0; i < 40; i++) { /* a whole period of four half ones of the cursor */
        bool shown = true, hidden = true;
        for (unsigned x = 0; x < 9; x++) {
            shown &= vga_dot(vb, x, 3) == text_dot(1, 0x17, 0, x, 3);
            hidden &= vga_dot(vb, x, 3) == color_preset(ega[1]);
        }
        g_assert_true(shown || hidden);
        on += shown;
        off += hidden;
        test_advance(vb->tb, BLINK_NS / 10 + 1000);
        vga_look(vb);
        turns += vb->changes > 0;
    }
    g_assert_cmpuint(on, >=, 19);
    g_assert_cmpuint(off, >=, 19);
    g_assert_cmpuint(turns, ==, 2);
    vga_attr(vb, 0x10, 0x04); /* no blinking: 16 backgrounds */
    vga_look(vb);
    for (unsigned x = 0; x < 9; x++)
        g_assert_cmphex(vga_dot(vb, x, 3), ==,
                        x < 8 && glyph(0, 1, 3) >> (7 - x) & 1 ? color_preset(ega[7])
                                                               : color_preset(ega[9]));
    test_advance(vb->tb, 2 * BLINK_NS);
    check_idle(vb);
}

static void test_fonts(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    start_text(vb, MODE_3);
    load_font(vb, 1, 0x6000); /* map 5 */
    put(vb, 0, 'a', 0x07);
    put(vb, 1, 'a', 0x0f);
    vga_seq(vb, 3, 0x24); /* A, chosen by bit 3: map 5; B: map 0 */
    vga_look(vb);
    for (unsigned row = 0; row < 16; row++) {
        for (unsigned dot = 0; dot < 9; dot++) {
            g_assert_cmphex(vga_dot(vb, dot, row), ==, text_dot('a', 7, 0, dot, row));
            g_assert_cmphex(vga_dot(vb, 9 + dot, row), ==, text_dot('a', 15, 1, dot, row));
        }
    }
    vga_attr(vb, 0x12, 7); /* 512 characters, 8 colours */
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 9, 2), ==, text_dot('a', 7, 1, 0, 2));
    vga_seq(vb, 3, 0x11); /* B, map 5 */
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 3, 2), ==, text_dot('a', 7, 1, 3, 2));
    vga_seq(vb, 3, 0);
    vga_look(vb);
    load_font(vb, 1, 0); /* new glyphs of characters that stay */
    vga_look(vb);
    for (unsigned row = 0; row < 16; row++)
        g_assert_cmphex(vga_dot(vb, 5, row), ==, text_dot('a', 7, 1, 5, row));
    check_idle(vb);
    uint8_t line = ~glyph(1, 'a', 9); /* and by the frame buffer */
    g_assert_true(mem_write(vb->tb->board.mem, VGA_LFB + 4 * ('a' * 32 + 9) + 2, &line, 1));
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 5, 9), !=, text_dot('a', 7, 1, 5, 9));
    check_idle(vb);
}

/* Panning, preset row scan and a split screen, all of text. */
static void test_smooth(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    start_text(vb, MODE_3);
    fill_text(vb, 4000);
    vga_attr(vb, 0x13, 2); /* 9 dots: 8 is none, 2 is three */
    vga_attr(vb, 0x10, 0x2c); /* none below the split */
    vga_crtc(vb, 8, 5);
    vga_crtc(vb, 0x0c, 160 >> 8);
    vga_crtc(vb, 0x0d, 160);
    vga_crtc(vb, 0x18, 99);
    vga_crtc(vb, 7, 0x0f);
    vga_crtc(vb, 9, 0x0f);
    vga_look(vb);
    for (unsigned y = 0; y < 400; y++) {
        for (unsigned x = 0; x < 720; x++) {
            unsigned line = y < 100 ? y + 5 : y - 100, dot = y < 100 ? x + 3 : x;
            unsigned i = (y < 100 ? 160 : 0) + line / 16 * 80 + dot / 9;
            g_assert_cmphex(vga_dot(vb, x, y), ==, text_dot(noise(i), noise(i + 5000), 0, dot % 9,
                                                            line % 16));
        }
    }
    check_idle(vb);
}

static void test_mono(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_7);
    vga_crtc(vb, 0x0a, 0x20);
    test_poke(vb->tb, MONO, 2, 0x0141); /* underlined: row 13 */
    test_poke(vb->tb, MONO + 2, 2, 0x0742);
    vga_look(vb);
    check_size(vb, 720, 400);
    for (unsigned x = 0; x < 9; x++) {
        g_assert_cmphex(vga_dot(vb, x, 13), ==, color_preset(8));
        g_assert_cmphex(vga_dot(vb, x, 12), ==, color_preset(0));
        g_assert_cmphex(vga_dot(vb, 9 + x, 13), ==, color_preset(0));
    }
    g_autofree char *text = display_text(vb->display);
    g_assert_true(g_str_has_prefix(text, "AB\n"));
}

static void test_as_text(VgaBoard **f, gconstpointer unused)
{
    static const char *const want[] = {"Hello, world", "", "  \xe2\x95\x94\xe2\x95\x90 \xc2\xb5 x",
                                       "\xe2\x98\xba\xe2\x8c\x82\xe2\x88\x9e"};
    static const char *const have[] = {"Hello, world  ", "\xff", "  \xc9\xcd \xe6\377x",
                                       "\x01\x7f\xec"};
    VgaBoard *vb = *f;

    start_text(vb, MODE_3);
    for (unsigned i = 0; i < 2000; i++)
        put(vb, i, i % 2 ? ' ' : 0, 7);
    for (unsigned row = 0; row < G_N_ELEMENTS(have); row++) {
        for (unsigned i = 0; have[row][i]; i++)
            put(vb, 80 * row + i, have[row][i], 7);
    }
    g_autofree char *text = display_text(vb->display);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_assert_cmpuint(g_strv_length(lines), ==, 26);
    for (unsigned row = 0; row < G_N_ELEMENTS(want); row++)
        g_assert_cmpstr(lines[row], ==, want[row]);
    g_assert_cmpstr(lines[24], ==, "");
    vga_seq(vb, 1, 0x20); /* screen off */
    g_autofree char *off = display_text(vb->display);
    g_assert_cmpstr(off, ==, "");
    vga_mode(vb, MODE_13);
    g_assert_null(display_text(vb->display));
    vga_vbe_mode(vb, 640, 480, 32);
    g_assert_null(display_text(vb->display));
}

static void test_blank(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    check_size(vb, 640, 400); /* nothing set up yet */
    start_text(vb, MODE_3);
    fill_text(vb, 2000);
    vga_look(vb);
    vga_in(vb, 0x3da);
    vga_out(vb, 0x3c0, 0); /* palette address source: the CPU's */
    vga_look(vb);
    g_assert_cmpuint(vb->resizes, ==, 0);
    for (unsigned i = 0; i < 720 * 400; i += 97)
        g_assert_cmphex(vga_dot(vb, i % 720, i / 720), ==, 0);
    check_idle(vb);
    vga_in(vb, 0x3da);
    vga_out(vb, 0x3c0, 0x20);
    vga_look(vb);
    check_text(vb, 80, 0, 1);
    device_reset(vb->vga, RESET_COLD);
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 45, 45), ==, 0);
}

/* ---- graphics ---- */

static void test_planar(VgaBoard **f, gconstpointer mode_ptr)
{
    VgaBoard *vb = *f;
    bool small = GPOINTER_TO_UINT(mode_ptr) == MODE_D;
    unsigned wide = small ? 2 : 1, line = small ? 40 : 80, height = small ? 400 : 480;

    vga_mode(vb, GPOINTER_TO_UINT(mode_ptr));
    for (unsigned p = 0; p < 4; p++) {
        vga_seq(vb, 2, 1u << p);
        for (unsigned i = 0; i < line * height / wide; i++)
            test_poke(vb->tb, GRAPHICS + i, 1, noise(i * 4 + p));
    }
    vga_look(vb);
    check_size(vb, 640, height);
    for (unsigned y = 0; y < height; y++) {
        for (unsigned x = 0; x < 640; x++) {
            unsigned at = y / wide * line + x / wide / 8, pixel = 0;
            for (unsigned p = 0; p < 4; p++)
                pixel |= (noise(at * 4 + p) >> (7 - x / wide % 8) & 1u) << p;
            g_assert_cmphex(vga_dot(vb, x, y), ==, color_preset(ega[pixel]));
        }
    }
    check_idle(vb);
    vga_seq(vb, 2, 0x0f); /* a byte of a line: eight pixels of that line at most */
    test_poke(vb->tb, GRAPHICS + 100 * line + 3, 1, ~noise((100 * line + 3) * 4));
    vga_look(vb);
    g_assert_cmpuint(vb->changes, ==, 1);
    g_assert_cmpuint(vb->pixels, <=, 8 * wide * wide);
    g_assert_cmpuint(vb->last.y, ==, 100 * wide);
}

static void test_cga(VgaBoard **f, gconstpointer unused)
{
    static const uint8_t palette[4] = {0x00, 0x13, 0x15, 0x17};
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_4);
    for (unsigned i = 0; i < 0x4000; i++)
        test_poke(vb->tb, COLOR + i, 1, noise(i));
    vga_look(vb);
    check_size(vb, 640, 400);
    for (unsigned y = 0; y < 400; y++) {
        for (unsigned x = 0; x < 640; x++) {
            unsigned row = y / 2, col = x / 2;
            uint8_t byte = noise(row % 2 * 0x2000 + row / 2 * 80 + col / 4);
            g_assert_cmphex(vga_dot(vb, x, y), ==,
                            color_preset(palette[byte >> (6 - 2 * (col % 4)) & 3]));
        }
    }
    g_assert_cmphex(test_peek(vb->tb, COLOR + 0x2001, 1), ==, noise(0x2001));
    vga_mode(vb, MODE_6);
    for (unsigned i = 0; i < 0x4000; i++)
        test_poke(vb->tb, COLOR + i, 1, noise(i + 7));
    vga_look(vb);
    check_size(vb, 640, 400);
    for (unsigned y = 0; y < 400; y++) {
        for (unsigned x = 0; x < 640; x++) {
            unsigned row = y / 2;
            uint8_t byte = noise(row % 2 * 0x2000 + row / 2 * 80 + x / 8 + 7);
            g_assert_cmphex(vga_dot(vb, x, y), ==,
                            color_preset(byte >> (7 - x % 8) & 1 ? 0x17 : 0));
        }
    }
    check_idle(vb);
}

static void test_256(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_13);
    for (unsigned i = 0; i < 320 * 200; i++)
        test_poke(vb->tb, GRAPHICS + i, 1, noise(i));
    vga_look(vb);
    check_size(vb, 640, 400);
    for (unsigned y = 0; y < 400; y++) {
        for (unsigned x = 0; x < 640; x++)
            g_assert_cmphex(vga_dot(vb, x, y), ==, color_preset(noise(y / 2 * 320 + x / 2)));
    }
    check_idle(vb);
    test_poke(vb->tb, GRAPHICS + 320 * 50 + 60, 1, ~noise(320 * 50 + 60));
    vga_look(vb);
    g_assert_cmpuint(vb->changes, ==, 1);
    g_assert_cmpuint(vb->pixels, ==, 4);
    vga_out(vb, 0x3c6, 0x0f); /* DAC mask */
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 20, 20), ==, color_preset(noise(10 * 320 + 10) & 0x0f));
    vga_mode(vb, MODE_X);
    vga_out(vb, 0x3c6, 0xff);
    for (unsigned p = 0; p < 4; p++) {
        vga_seq(vb, 2, 1u << p);
        for (unsigned i = 0; i < 80 * 300; i++)
            test_poke(vb->tb, GRAPHICS + i, 1, noise(4 * i + p));
    }
    vga_crtc(vb, 0x0d, 80 * 2); /* two lines down, and pan by a pixel */
    vga_attr(vb, 0x13, 2);
    vga_look(vb);
    check_size(vb, 640, 480);
    for (unsigned y = 0; y < 480; y++) {
        for (unsigned x = 0; x < 640; x++)
            g_assert_cmphex(vga_dot(vb, x, y), ==,
                            color_preset(noise((y / 2 + 2) * 320 + x / 2 + 1)));
    }
    check_idle(vb);
}

/* The CRTC's counter passes the end of the planes. */
static void test_wrap(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_12);
    vga_seq(vb, 2, 1);
    for (unsigned i = 0; i < 0x10000; i++)
        test_poke(vb->tb, GRAPHICS + i, 1, noise(i));
    vga_crtc(vb, 0x0c, 0xff);
    vga_crtc(vb, 0x0d, 0xd8);
    vga_look(vb);
    for (unsigned y = 0; y < 480; y++) {
        for (unsigned x = 0; x < 640; x++) {
            unsigned at = (0xffd8 + y * 80 + x / 8) & 0xffff;
            g_assert_cmphex(vga_dot(vb, x, y), ==,
                            color_preset(ega[noise(at) >> (7 - x % 8) & 1]));
        }
    }
    test_poke(vb->tb, GRAPHICS + 5, 1, ~noise(5)); /* the wrapped line's second half */
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 360, 0), ==, color_preset(ega[!(noise(5) >> 7)]));
}

/* The four bits of the palette registers through the colour select register. */
static void test_color_select(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_12);
    test_poke(vb->tb, GRAPHICS, 1, 0x80); /* pixel 0 is 15 */
    vga_attr(vb, 0x14, 0x0f);
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 0, 0), ==, color_preset(0xc0 | 0x3f));
    vga_attr(vb, 0x14, 0x05);
    vga_attr(vb, 0x10, 0x81);
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 0, 0), ==, color_preset(0x40 | 0x10 | 0x0f));
    vga_attr(vb, 0x12, 0x0b); /* without plane 2 */
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 0, 0), ==, color_preset(0x40 | 0x10 | 0x0b));
}

/* ---- linear modes ---- */

static void linear_write(VgaBoard *vb, uint64_t off, uint32_t val, unsigned bytes)
{
    uint8_t b[4];

    store_le32(b, val);
    g_assert_true(mem_write(vb->tb->board.mem, VGA_LFB + off, b, bytes));
}

static uint32_t widen(unsigned val, unsigned max)
{
    return (val * 255 + max / 2) / max; /* what repeating the top bits comes to, within one */
}

static void check_near(uint32_t have, uint32_t want)
{
    for (unsigned shift = 0; shift < 24; shift += 8)
        g_assert_cmpint(abs((int)(have >> shift & 255) - (int)(want >> shift & 255)), <=, 1);
}

static void test_linear(VgaBoard **f, gconstpointer bpp_ptr)
{
    VgaBoard *vb = *f;
    unsigned bpp = GPOINTER_TO_UINT(bpp_ptr), bytes = (bpp + 7) / 8;

    vga_mode(vb, MODE_13);
    vga_vbe_mode(vb, 101, 67, bpp);
    vga_vbe(vb, 6, 150);
    vga_vbe(vb, 8, 9);
    vga_vbe(vb, 9, 4);
    for (unsigned i = 0; i < 150 * 80; i++) {
        uint32_t val = noise(i) | noise(i + 1) << 8 | noise(i + 2) << 16 | 0xee000000;
        linear_write(vb, (uint64_t)i * bytes, val, bytes);
    }
    vga_look(vb);
    check_size(vb, 101, 67);
    for (unsigned y = 0; y < 67; y++) {
        for (unsigned x = 0; x < 101; x++) {
            unsigned i = (y + 4) * 150 + x + 9;
            uint32_t val = noise(i) | noise(i + 1) << 8 | noise(i + 2) << 16;
            uint32_t dot = vga_dot(vb, x, y);
            if (bpp == 8)
                g_assert_cmphex(dot, ==, color_preset(val & 0xff));
            else if (bpp == 15)
                check_near(dot, widen(val >> 10 & 31, 31) << 16 | widen(val >> 5 & 31, 31) << 8 |
                                    widen(val & 31, 31));
            else if (bpp == 16)
                check_near(dot, widen(val >> 11 & 31, 31) << 16 | widen(val >> 5 & 63, 63) << 8 |
                                    widen(val & 31, 31));
            else
                g_assert_cmphex(dot, ==, val);
        }
    }
    check_idle(vb);
    linear_write(vb, (uint64_t)(10 * 150 + 30) * bytes, ~0u, bytes);
    vga_look(vb);
    g_assert_cmpuint(vb->changes, ==, 1);
    g_assert_cmpuint(vb->pixels, ==, 1);
    g_assert_cmpuint(vb->last.x, ==, 21);
    g_assert_cmpuint(vb->last.y, ==, 6);
    if (bpp == 8 || bpp == 24)
        return;
    test_poke(vb->tb, VGA_REGISTERS + 0x604, 4, 0xbebebebe);
    if (bpp == 32)
        linear_write(vb, (4 * 150 + 9) * 4, 0x332211ee, 4);
    else
        linear_write(vb, (4 * 150 + 9) * 2, 0x0f80, 2); /* 0x800f */
    vga_look(vb);
    check_near(vga_dot(vb, 0, 0), bpp == 32 ? 0x112233
                                  : bpp == 16 ? widen(16, 31) << 16 | widen(15, 31)
                                              : widen(15, 31));
}

static void test_vbe_planar(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_12);
    vga_vbe_mode(vb, 800, 600, 4);
    vga_vbe(vb, 6, 1024);
    vga_vbe(vb, 8, 13);
    vga_vbe(vb, 9, 2);
    for (unsigned i = 0; i < 128 * 602 * 4; i += 4)
        linear_write(vb, i, noise(i) | noise(i + 1) << 8 | noise(i + 2) << 16 |
                                (uint32_t)noise(i + 3) << 24, 4);
    vga_look(vb);
    check_size(vb, 800, 600);
    for (unsigned y = 0; y < 600; y++) {
        for (unsigned x = 0; x < 800; x++) {
            unsigned at = 4 * ((y + 2) * 128 + (x + 13) / 8), pixel = 0;
            for (unsigned p = 0; p < 4; p++)
                pixel |= (noise(at + p) >> (7 - (x + 13) % 8) & 1u) << p;
            g_assert_cmphex(vga_dot(vb, x, y), ==, color_preset(ega[pixel]));
        }
    }
    check_idle(vb);
}

static void test_8bit_dac(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_vbe_mode(vb, 32, 32, 8);
    vga_vbe(vb, 4, 0x61);
    vga_dac(vb, 0, 0xfedcba);
    vga_look(vb);
    g_assert_cmphex(vga_dot(vb, 31, 31), ==, 0xfedcba);
}

/* ---- to look at ---- */

static void test_pictures(VgaBoard **f, gconstpointer unused)
{
    VgaBoard *vb = *f;

    vga_mode(vb, MODE_13);
    for (unsigned i = 0; i < 256; i++)
        vga_dac(vb, i, (i >> 5 & 7) * 9 << 16 | (i >> 2 & 7) * 9 << 8 | (i & 3) * 21);
    for (unsigned y = 0; y < 200; y++) {
        for (unsigned x = 0; x < 320; x++)
            test_poke(vb->tb, GRAPHICS + y * 320 + x, 1, (y / 25) << 5 | x * 32 / 320);
    }
    vga_look(vb);
    leave_picture(vb, "mode13.ppm");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD_WITH(name, fn, data)                                                                  \
    g_test_add("/vga/draw/" name, VgaBoard *, GUINT_TO_POINTER(data), set_up, fn, tear_down)
#define ADD(name, fn) ADD_WITH(name, fn, 0)
    ADD("text", test_text);
    ADD("text-costs", test_text_costs);
    ADD("cursor", test_cursor);
    ADD("blink", test_blink);
    ADD("fonts", test_fonts);
    ADD("smooth", test_smooth);
    ADD("mono", test_mono);
    ADD("as-text", test_as_text);
    ADD("blank", test_blank);
    ADD_WITH("planar", test_planar, MODE_12);
    ADD_WITH("planar-small", test_planar, MODE_D);
    ADD("cga", test_cga);
    ADD("256", test_256);
    ADD("wrap", test_wrap);
    ADD("color-select", test_color_select);
    ADD_WITH("linear-8", test_linear, 8);
    ADD_WITH("linear-15", test_linear, 15);
    ADD_WITH("linear-16", test_linear, 16);
    ADD_WITH("linear-24", test_linear, 24);
    ADD_WITH("linear-32", test_linear, 32);
    ADD("vbe-planar", test_vbe_planar);
    ADD("8-bit-dac", test_8bit_dac);
    ADD("pictures", test_pictures);
    return g_test_run();
}
