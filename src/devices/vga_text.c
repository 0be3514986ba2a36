/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VGA's text modes: cells of characters, as dots and as text.
 *
 * Spec: FreeVGA, "VGA Text Mode Operation", "CRTC Registers" (cursor), "Attribute Controller
 * Registers".
 *
 * All that decides how a cell looks is packed in a key of 32 bits; a cell is drawn when its key is
 * not the one drawn last. Glyphs, colours and geometry are not in the key: a change of those
 * draws all (the caller's @all). Cursor skew is left out: the cursor is where it is written to be.
 *
 * Threads: the refreshing one, device lock held.
 */
#include "vga.h"

#define KEY_CURSOR (1u << 16)
#define KEY_HIDDEN (1u << 17) /* blinks and is off now */
#define KEY_CURSOR_FIRST 18   /* 5 bits: scan lines of the cursor */
#define KEY_CURSOR_LAST 23
#define KEY_NONE UINT32_MAX   /* no cell has it */
#define ATTR_BLINK 0x80
#define GLYPH_BYTES 32
#define GLYPH_DOTS 9

/* A piece of a character row: its lines on the screen are [y, y + lines). */
typedef struct Band {
    VgaScan from;
    unsigned lines;
} Band;

/* The next piece, up to the next row's first line; false at the bottom. */
static bool next_band(const VgaView *view, VgaScan *scan, Band *ret_band)
{
    if (scan->y >= view->height)
        return false;
    *ret_band = (Band){.from = *scan};
    do {
        ret_band->lines++;
        vga_scan_next(view, scan);
    } while (scan->y < view->height && scan->y != view->compare + 1 &&
             (scan->row || scan->again));
    return true;
}

static uint32_t planes_at(const Vga *v, uint32_t off)
{
    uint64_t at = (uint64_t)VGA_PLANES * off;

    return range_within(at, VGA_PLANES, v->mem_len) ? load_le32(v->mem + at) : 0;
}

/* Sets v->blinks if the cell does. */
static uint32_t cell_key(Vga *v, const VgaView *view, const Band *b, unsigned col)
{
    uint32_t addr = b->from.addr + col;
    uint32_t key = planes_at(v, vga_map(view, addr, b->from.row)) & 0xffff;
    const uint8_t *crtc = v->regs.crtc;
    unsigned first = crtc[CRTC_CURSOR_START] & 0x1f, last = crtc[CRTC_CURSOR_END] & 0x1f;
    unsigned cursor = crtc[CRTC_CURSOR_HIGH] << 8 | crtc[CRTC_CURSOR_LOW];

    if (view->blink && (key >> 8 & ATTR_BLINK)) {
        v->blinks = true;
        key |= v->blink_phase & 2 ? KEY_HIDDEN : 0;
    }
    if ((addr & 0xffff) != cursor || (crtc[CRTC_CURSOR_START] & CRTC_CURSOR_OFF) || first > last)
        return key;
    v->blinks = true;
    if (!(v->blink_phase & 1))
        key |= KEY_CURSOR | first << KEY_CURSOR_FIRST | last << KEY_CURSOR_LAST;
    return key;
}

/* Where a character generator's glyphs start, bytes of plane 2. FreeVGA, "Character Map Select
 * Register". */
static uint32_t font_at(uint32_t fonts, bool a)
{
    unsigned map = a ? (fonts >> 2 & 3) | (fonts >> 3 & 4) : (fonts & 3) | (fonts >> 2 & 4);

    return (map & 3) * 0x4000 + (map >> 2) * 0x2000;
}

/* The dots of one line of a cell, leftmost in bit GLYPH_DOTS - 1. */
static unsigned glyph_line(const Vga *v, const VgaView *view, uint32_t key, unsigned row)
{
    uint8_t ch = key, attr = key >> 8;
    uint32_t at = font_at(view->fonts, attr & 8) + ch * GLYPH_BYTES + row % GLYPH_BYTES;
    unsigned bits = (planes_at(v, at & (VGA_PLANE_LEN - 1)) >> 16 & 0xff) << 1;

    if (view->line_graphics && ch >= 0xc0 && ch <= 0xdf)
        bits |= bits >> 1 & 1;
    if (row == view->underline && (attr & 7) == 1)
        bits = (1u << GLYPH_DOTS) - 1;
    if (key & KEY_HIDDEN)
        bits = 0;
    if ((key & KEY_CURSOR) && row >= (key >> KEY_CURSOR_FIRST & 0x1f) &&
        row <= (key >> KEY_CURSOR_LAST & 0x1f))
        bits = (1u << GLYPH_DOTS) - 1;
    return bits;
}

static unsigned cell_width(const VgaView *view)
{
    return (view->nine ? 9u : 8u) << view->half;
}

/* Draw a cell; @x may lie partly outside. */
static void draw_cell(const Vga *v, const VgaView *view, const DisplaySurface *s, const Band *b,
                      int x, uint32_t key)
{
    unsigned width = cell_width(view);
    uint8_t attr = key >> 8;
    uint32_t fg = v->ega[attr & 0xf], bg = v->ega[view->blink ? attr >> 4 & 7 : attr >> 4];
    unsigned from = x < 0 ? (unsigned)-x : 0;

    if (x >= (int)s->width || from >= width)
        return;
    unsigned to = MIN(width, (unsigned)((int)s->width - x));
    for (unsigned i = 0; i < b->lines && b->from.y + i < s->height; i++) {
        unsigned row = b->from.row + (view->doubled ? (b->from.again + i) / 2 : i);
        unsigned bits = glyph_line(v, view, key, row);
        uint32_t *out = s->pixels + (size_t)s->stride * (b->from.y + i);
        for (unsigned dot = from; dot < to; dot++)
            out[x + (int)dot] = bits >> (GLYPH_DOTS - 1 - (dot >> view->half)) & 1 ? fg : bg;
    }
}

/* Make room for the keys; false where the host has none. */
static bool room_for_cells(Vga *v, size_t n)
{
    if (n == v->cells_len)
        return true;
    g_free(v->cells);
    v->cells = g_try_new(uint32_t, n);
    v->cells_len = v->cells ? n : 0;
    if (v->cells)
        memset(v->cells, 0xff, n * sizeof *v->cells); /* KEY_NONE */
    return v->cells;
}

static size_t count_bands(const VgaView *view)
{
    VgaScan scan;
    Band b;
    size_t n = 0;

    vga_scan_first(view, 0, &scan);
    while (next_band(view, &scan, &b))
        n++;
    return n;
}

static void damage_cells(Display *d, const VgaView *view, const Band *b, unsigned from, unsigned to)
{
    int width = (int)cell_width(view), shift = (int)(b->from.pan << view->half);
    int left = MAX((int)from * width - shift, 0), right = (int)to * width - shift;

    if (right > left)
        display_damage(d, (DisplayRect){(unsigned)left, b->from.y, (unsigned)(right - left),
                                        b->lines});
}

/**
 * vga_text_draw() - Bring the surface up to date in a text mode
 * @all: draw each cell, whatever was drawn last
 * Context: the refreshing thread, device lock held. Takes the surface only if a cell changed.
 */
void vga_text_draw(Vga *v, Display *d, const VgaView *view, bool all)
{
    unsigned across = view->columns + 1; /* panning shows a part of one more */
    DisplaySurface s = {0};
    VgaScan scan;
    Band b;
    bool begun = all;

    v->blinks = false;
    if (!room_for_cells(v, across * count_bands(view)))
        return;
    if (all) {
        memset(v->cells, 0xff, v->cells_len * sizeof *v->cells);
        s = display_begin(d, view->width, view->height);
    }
    uint32_t *shown = v->cells;
    vga_scan_first(view, vga_start(v), &scan);
    for (; next_band(view, &scan, &b); shown += across) {
        unsigned cols = view->columns + (b.from.pan ? 1 : 0), run = cols; /* run: none */
        for (unsigned col = 0; col < cols; col++) {
            uint32_t key = cell_key(v, view, &b, col);
            if (key == shown[col]) {
                if (run < col)
                    damage_cells(d, view, &b, run, col);
                run = cols;
                continue;
            }
            if (!begun)
                s = display_begin(d, view->width, view->height);
            begun = true;
            draw_cell(v, view, &s, &b,
                      (int)(col * cell_width(view)) - (int)(b.from.pan << view->half), key);
            shown[col] = key;
            run = MIN(run, col);
        }
        if (run < cols)
            damage_cells(d, view, &b, run, cols);
    }
    if (begun)
        display_end(d);
}

/* ---- as text ---- */

/* Code page 437. 0x00 and 0xFF are blank. */
static const uint16_t cp437_low[32] = {
    0x0020, 0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25d8, 0x25cb, 0x25d9,
    0x2642, 0x2640, 0x266a, 0x266b, 0x263c, 0x25ba, 0x25c4, 0x2195, 0x203c, 0x00b6, 0x00a7,
    0x25ac, 0x21a8, 0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc,
};
static const uint16_t cp437_high[129] = { /* from 0x7F */
    0x2302, 0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb,
    0x00e8, 0x00ef, 0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6,
    0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192,
    0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac,
    0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb, 0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561,
    0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b, 0x2510, 0x2514,
    0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566,
    0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553,
    0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580, 0x03b1, 0x00df,
    0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e,
    0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248,
    0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x0020,
};

static gunichar to_unicode(uint8_t ch)
{
    if (ch < 0x20)
        return cp437_low[ch];
    return ch < 0x7f ? ch : cp437_high[ch - 0x7f];
}

static void append_row(GString *text, const Vga *v, const VgaView *view, const Band *b)
{
    size_t end = text->len;

    for (unsigned col = 0; col < view->columns; col++) {
        uint8_t ch = planes_at(v, vga_map(view, b->from.addr + col, b->from.row));
        gunichar c = to_unicode(ch);
        g_string_append_unichar(text, c);
        if (c != ' ')
            end = text->len;
    }
    g_string_truncate(text, end);
    g_string_append_c(text, '\n');
}

/**
 * vga_text() - The text screen as UTF-8
 * Context: no lock held. Return: transfer full; "" while the screen is off; NULL in graphics modes.
 */
char *vga_text(void *opaque)
{
    Vga *v = opaque;
    VgaView view;
    VgaScan scan;
    Band b;
    GString *text = NULL;

    lodge_lock(&v->pci.dev.lock);
    vga_view(v, &view);
    if (!vga_vbe_on(v) && !(v->regs.gfx[GFX_MISC] & GFX_MISC_GRAPHICS))
        text = g_string_new(NULL);
    if (text && view.kind == VGA_TEXT) {
        vga_scan_first(&view, vga_start(v), &scan);
        while (next_band(&view, &scan, &b))
            append_row(text, v, &view, &b);
    }
    lodge_unlock(&v->pci.dev.lock);
    return text ? g_string_free(text, FALSE) : NULL;
}
