/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The VGA's picture: what registers and memory look like on a screen.
 *
 * Spec: FreeVGA, "CRTC Registers", "VGA Sequencer Operation", "Attribute Controller Registers",
 * "Color Registers"; Bochs VBE for linear modes.
 *
 * The picture has the dots and lines that a monitor would show within the display enable times:
 * mode 13h is 640 by 400, with pixels of 2 by 2. Left out: the overscan border, blinking in
 * graphics modes, the sequencer's slow shift loads and the CRTC's slow counts (bits of EGA modes
 * with 64 KiB), the vertical counters' halving.
 *
 * A refresh works out a VgaView from the registers; one that differs from the last, or other
 * colours, draws all. Else text compares cells, and graphics draw the lines whose memory
 * was written, by pages; of those only dots that differ are damage. With nothing written and no
 * register touched a refresh does not come that far.
 *
 * Threads: the refreshing one, which takes the device lock.
 *
 * Invariant: each fetch compares its place with the length of the memory: planar ones by the
 * view's mask and the length, linear ones a line at a time; what lies outside is black.
 */
#include "vga.h"

#define BLINK_HALF_NS (NS_PER_SEC * 16 / 60) /* cursor: 16 fields on, 16 off; text half as fast */
#define BLANK_WIDTH 640 /* where no picture was before */
#define BLANK_HEIGHT 400
#define FONT_PAGES (VGA_PLANES * VGA_PLANE_LEN >> VGA_PAGE_SHIFT)

/* ---- the view ---- */

/* A register's bit @from as bit @to. */
static unsigned bit(uint8_t reg, unsigned from, unsigned to)
{
    return (reg >> from & 1u) << to;
}

/* The start address registers and the byte panning. */
uint32_t vga_start(const Vga *v)
{
    const uint8_t *crtc = v->regs.crtc;

    return (crtc[CRTC_START_HIGH] << 8 | crtc[CRTC_START_LOW]) + (crtc[CRTC_PRESET] >> 5 & 3);
}

/* FreeVGA, "Horizontal Pixel Panning Register" */
static unsigned panning(uint8_t reg, bool nine)
{
    unsigned pan = reg & 0xf;

    if (nine)
        return pan < 8 ? pan + 1 : 0;
    return pan < 8 ? pan : 0;
}

static void text_view(const Vga *v, VgaView *view)
{
    const uint8_t *attr = v->regs.attr;

    view->kind = VGA_TEXT;
    view->nine = !(v->regs.seq[SEQ_CLOCKING] & SEQ_CLOCKING_8DOT);
    view->line_graphics = view->nine && (attr[ATTR_MODE] & ATTR_MODE_LINE_GRAPHICS);
    view->blink = attr[ATTR_MODE] & ATTR_MODE_BLINK;
    view->underline = attr[ATTR_MODE] & ATTR_MODE_MONO ? v->regs.crtc[CRTC_UNDERLINE] & 0x1f
                                                       : UINT32_MAX;
    view->fonts = v->regs.seq[SEQ_FONTS];
}

static void vga_legacy_view(const Vga *v, VgaView *view)
{
    const uint8_t *crtc = v->regs.crtc, *attr = v->regs.attr;
    uint8_t overflow = crtc[CRTC_OVERFLOW], max_scan = crtc[CRTC_MAX_SCAN];

    if (v->regs.gfx[GFX_MISC] & GFX_MISC_GRAPHICS) {
        view->kind = VGA_PLANAR;
        view->start = vga_start(v);
        view->shift = v->regs.gfx[GFX_MODE] & (GFX_MODE_INTERLEAVE | GFX_MODE_256);
    } else {
        text_view(v, view);
    }
    view->half = !!(v->regs.seq[SEQ_CLOCKING] & SEQ_CLOCKING_HALF);
    view->columns = crtc[CRTC_HDISPLAY_END] + 1u;
    view->width = MIN(view->columns * (view->nine ? 9 : 8) << view->half, DISPLAY_WIDTH_MAX);
    view->height = (crtc[CRTC_VDISPLAY_END] | bit(overflow, 1, 8) | bit(overflow, 6, 9)) + 1;
    view->compare = crtc[CRTC_LINE_COMPARE] | bit(overflow, 4, 8) | bit(max_scan, 6, 9);
    view->pitch = crtc[CRTC_OFFSET] * 2u;
    view->row_lines = (max_scan & 0x1f) + 1u;
    view->doubled = !!(max_scan & CRTC_MAX_SCAN_DOUBLE);
    view->preset = crtc[CRTC_PRESET] & 0x1f;
    view->pan = panning(attr[ATTR_PAN], view->nine);
    view->pan_below = attr[ATTR_MODE] & ATTR_MODE_PAN ? 0 : view->pan;
    view->mapping = crtc[CRTC_UNDERLINE] & CRTC_DWORD;
    view->mode = crtc[CRTC_MODE];
    view->mask = VGA_PLANE_LEN - 1;
}

/**
 * vga_view() - Work out from the registers how memory becomes dots
 * Context: device lock held. Return: every byte of *ret_view is set; lengths are within the
 *          display's limits, places are not checked.
 */
void vga_view(const Vga *v, VgaView *ret_view)
{
    memset(ret_view, 0, sizeof *ret_view);
    if ((v->regs.attr_index & ATTR_INDEX_ON) && vga_vbe_on(v)) {
        vga_vbe_view(v, ret_view);
        return;
    }
    if ((v->regs.attr_index & ATTR_INDEX_ON) &&
        !(v->regs.seq[SEQ_CLOCKING] & SEQ_CLOCKING_OFF)) {
        vga_legacy_view(v, ret_view);
        return;
    }
    ret_view->kind = VGA_BLANK;
    ret_view->width = v->view.width ? v->view.width : BLANK_WIDTH;
    ret_view->height = v->view.height ? v->view.height : BLANK_HEIGHT;
}

/* ---- the beam ---- */

/**
 * vga_scan_first() - Put the beam on the first line
 * @start: CRTC counter of its first character
 */
void vga_scan_first(const VgaView *view, uint32_t start, VgaScan *ret_scan)
{
    *ret_scan = (VgaScan){.addr = start, .row = view->preset, .pan = view->pan};
}

/* To the next line. FreeVGA, "Line Compare", "Maximum Scan Line", "Offset" registers. */
void vga_scan_next(const VgaView *view, VgaScan *scan)
{
    scan->y++;
    if (scan->y == view->compare + 1) {
        scan->addr = scan->row = scan->again = 0;
        scan->pan = view->pan_below;
        return;
    }
    if (view->doubled && !scan->again) {
        scan->again = 1;
        return;
    }
    scan->again = 0;
    if (++scan->row >= view->row_lines) {
        scan->row = 0;
        scan->addr += view->pitch;
    }
}

/**
 * vga_map() - Where a character clock reads
 * @addr: CRTC counter; @row: scan line of the character row
 * Return: byte of a plane, within the view's mask.
 * Spec: FreeVGA, "CRTC Mode Control Register", "Underline Location Register" (doubleword).
 */
uint32_t vga_map(const VgaView *view, uint32_t addr, uint32_t row)
{
    uint32_t off = addr;

    if (view->mapping & CRTC_DWORD)
        off = addr << 2 | (addr >> 14 & 3);
    else if (!(view->mode & CRTC_MODE_BYTE))
        off = addr << 1 | (addr >> (view->mode & CRTC_MODE_WRAP ? 15 : 13) & 1);
    if (!(view->mode & CRTC_MODE_NO_BIT13))
        off = (off & ~UINT32_C(0x2000)) | (row & 1) << 13;
    if (!(view->mode & CRTC_MODE_NO_BIT14))
        off = (off & ~UINT32_C(0x4000)) | (row >> 1 & 1) << 14;
    return off & view->mask;
}

/* ---- colours ---- */

/* FreeVGA, "Color Registers": the entry that a pixel of 8 bits names. */
static uint32_t dac_color(const Vga *v, uint8_t pixel)
{
    const uint8_t *entry = v->regs.dac + 3 * (pixel & v->regs.dac_mask);
    uint32_t color = 0;

    for (unsigned i = 0; i < 3; i++) {
        uint8_t c = entry[i];
        if (!(v->regs.vbe[VBE_ENABLE] & VBE_8BIT_DAC)) {
            c &= 0x3f;
            c = c << 2 | c >> 4;
        }
        color = color << 8 | c;
    }
    return color;
}

/* FreeVGA, "Palette Registers", "Color Select Register": 4 bits to 8. */
static uint8_t attr_color(const Vga *v, unsigned pixel)
{
    const uint8_t *attr = v->regs.attr;
    uint8_t select = attr[ATTR_COLOR_SELECT];
    uint8_t color = attr[pixel & attr[ATTR_PLANES] & (VGA_ATTR_COLORS - 1)] & 0x3f;

    if (attr[ATTR_MODE] & ATTR_MODE_P54S)
        color = (color & 0xf) | (select & 3) << 4;
    return color | (select & 0xc) << 4;
}

/* Whether a colour is another than before. */
static bool update_colors(Vga *v)
{
    bool changed = false;

    v->palette_stale = false;
    for (unsigned i = 0; i < VGA_DAC_ENTRIES; i++) {
        uint32_t color = dac_color(v, i);
        changed |= color != v->colors[i];
        v->colors[i] = color;
    }
    for (unsigned i = 0; i < VGA_ATTR_COLORS; i++) {
        uint32_t color = dac_color(v, attr_color(v, i));
        changed |= color != v->ega[i];
        v->ega[i] = color;
    }
    return changed;
}

/* ---- what was written ---- */

/* Fill v->fetched; whether any page of the memory was written. */
static bool fetch_dirty(Vga *v)
{
    unsigned words = (v->mem_len >> VGA_PAGE_SHIFT) / 64;
    bool any = mem_dirty_fetch(v->pci.dev.board->mem, v->block, (uint8_t *)v->fetched);

    if (any) {
        for (unsigned i = 0; i < FONT_PAGES / 64; i++)
            v->font_stale |= v->fetched[i] != 0;
    } else if (v->wrote) {
        memset(v->fetched, 0, words * sizeof *v->fetched);
    }
    if (v->wrote) {
        for (unsigned i = 0; i < words; i++)
            v->fetched[i] |= v->dirty[i];
        memset(v->dirty, 0, words * sizeof *v->dirty);
        v->wrote = false;
        any = true;
    }
    return any;
}

/* Whether v->fetched has a page of [@off, @off + @len). */
static bool was_written(const Vga *v, uint64_t off, uint64_t len)
{
    if (!len || !range_within(off, len, v->mem_len))
        return false;
    for (uint64_t page = off >> VGA_PAGE_SHIFT; page <= (off + len - 1) >> VGA_PAGE_SHIFT; page++) {
        if (v->fetched[page / 64] >> page % 64 & 1)
            return true;
    }
    return false;
}

/* ---- lines ---- */

/* Lines under each other that changed, and the columns in which they did. */
typedef struct Painter {
    Display *d;
    DisplaySurface s;
    DisplayRect run; /* height 0: none */
} Painter;

static void flush(Painter *p)
{
    if (p->run.height)
        display_damage(p->d, p->run);
    p->run.height = 0;
}

/* Put v->line on the surface where it differs. */
static void put_line(Vga *v, Painter *p, unsigned y, unsigned width)
{
    unsigned from = 0, to = MIN(width, p->s.width);

    if (y >= p->s.height)
        return;
    uint32_t *out = p->s.pixels + (size_t)p->s.stride * y;
    while (from < to && out[from] == v->line[from])
        from++;
    while (to > from && out[to - 1] == v->line[to - 1])
        to--;
    if (from == to)
        return;
    memcpy(out + from, v->line + from, (to - from) * sizeof *out);
    if (p->run.height && p->run.y + p->run.height == y) {
        unsigned right = MAX(p->run.x + p->run.width, to);
        p->run.x = MIN(p->run.x, from);
        p->run.width = right - p->run.x;
        p->run.height++;
        return;
    }
    flush(p);
    p->run = (DisplayRect){from, y, to - from, 1};
}

static uint32_t expand(unsigned val, unsigned bits)
{
    return val << (8 - bits) | val >> (2 * bits - 8);
}

/* A line of linear memory to v->line. @in: view->width pixels */
static void linear_line(Vga *v, const VgaView *view, const uint8_t *in)
{
    uint32_t *out = v->line, *end = out + view->width;
    bool big = view->big_endian;

    switch (view->bpp) {
    case 8:
        while (out < end)
            *out++ = v->colors[*in++];
        break;
    case 15:
        for (; out < end; in += 2) {
            unsigned p = big ? load_be16(in) : load_le16(in);
            *out++ = expand(p >> 10 & 0x1f, 5) << 16 | expand(p >> 5 & 0x1f, 5) << 8 |
                     expand(p & 0x1f, 5);
        }
        break;
    case 16:
        for (; out < end; in += 2) {
            unsigned p = big ? load_be16(in) : load_le16(in);
            *out++ = expand(p >> 11, 5) << 16 | expand(p >> 5 & 0x3f, 6) << 8 |
                     expand(p & 0x1f, 5);
        }
        break;
    case 24:
        for (; out < end; in += 3)
            *out++ = big ? (uint32_t)in[0] << 16 | in[1] << 8 | in[2]
                         : (uint32_t)in[2] << 16 | in[1] << 8 | in[0];
        break;
    default: /* 32 */
        for (; out < end; in += 4)
            *out++ = (big ? load_be32(in) : load_le32(in)) & 0xffffff;
        break;
    }
}

static void draw_linear(Vga *v, Painter *p, const VgaView *view, bool all)
{
    unsigned bits = view->bpp == 15 ? 16 : view->bpp;
    uint64_t len = (uint64_t)view->width * bits / 8;

    for (unsigned y = 0; y < view->height; y++) {
        uint64_t off = view->start + (uint64_t)view->pitch * y;
        if (!all && !was_written(v, off, len))
            continue;
        if (range_within(off, len, v->mem_len))
            linear_line(v, view, v->mem + off);
        else
            memset(v->line, 0, view->width * sizeof *v->line);
        put_line(v, p, y, view->width);
    }
}

/* The pixels of one character clock: 8, or 4 of 256 colours. FreeVGA, "Graphics Mode Register",
 * shift modes. */
static unsigned clock_pixels(const Vga *v, const VgaView *view, uint32_t planes, uint8_t *out)
{
    if (view->shift & GFX_MODE_256) {
        for (unsigned i = 0; i < 4; i++)
            out[i] = planes >> 8 * i;
        return 4;
    }
    if (view->shift & GFX_MODE_INTERLEAVE) {
        for (unsigned i = 0; i < 8; i++) {
            uint32_t pair = planes >> (i < 4 ? 0 : 8); /* planes 0 and 2, then 1 and 3 */
            unsigned at = 6 - 2 * (i & 3);
            out[i] = (pair >> at & 3) | (pair >> (16 + at) & 3) << 2;
        }
        return 8;
    }
    uint32_t nibbles = v->spread[planes & 0xff] | v->spread[planes >> 8 & 0xff] << 1 |
                       v->spread[planes >> 16 & 0xff] << 2 | v->spread[planes >> 24] << 3;
    for (unsigned i = 0; i < 8; i++)
        out[i] = nibbles >> 4 * i & 0xf;
    return 8;
}

/* A scan line to v->line. */
static void planar_line(Vga *v, const VgaView *view, const VgaScan *scan)
{
    bool wide = view->shift & GFX_MODE_256;
    unsigned clocks = view->columns + (scan->pan ? 1 : 0), n = 0;
    unsigned shift = view->half + (wide ? 1 : 0), skip = scan->pan << view->half;
    const uint32_t *colors = wide ? v->colors : v->ega;

    for (unsigned c = 0; c < clocks; c++) {
        uint64_t at = (uint64_t)VGA_PLANES * vga_map(view, scan->addr + c, scan->row);
        uint32_t planes = range_within(at, VGA_PLANES, v->mem_len) ? load_le32(v->mem + at) : 0;
        n += clock_pixels(v, view, planes, v->index + n);
    }
    for (unsigned x = 0; x < view->width; x++) {
        unsigned i = (x + skip) >> shift;
        v->line[x] = i < n ? colors[v->index[i]] : 0;
    }
}

static void draw_planar(Vga *v, Painter *p, const VgaView *view, bool all)
{
    uint64_t drawn = UINT64_MAX; /* first and last byte and panning of what v->line has */
    VgaScan scan;

    vga_scan_first(view, view->start, &scan);
    for (; scan.y < view->height; vga_scan_next(view, &scan)) {
        uint64_t first = vga_map(view, scan.addr, scan.row);
        uint64_t last = vga_map(view, scan.addr + view->columns, scan.row);
        uint64_t line = first << 32 | last << 5 | scan.pan;
        if (first > last) { /* wraps: any page counts */
            first = 0;
            last = view->mask;
        }
        if (!all && !was_written(v, VGA_PLANES * first, VGA_PLANES * (last - first + 1)))
            continue;
        if (line != drawn)
            planar_line(v, view, &scan);
        drawn = line;
        put_line(v, p, scan.y, view->width);
    }
}

static void draw_graphics(Vga *v, Display *d, const VgaView *view, bool all)
{
    Painter p = {.d = d, .s = display_begin(d, view->width, view->height)};

    if (view->kind == VGA_LINEAR)
        draw_linear(v, &p, view, all);
    else if (view->kind == VGA_PLANAR)
        draw_planar(v, &p, view, all);
    else if (all) {
        memset(v->line, 0, sizeof v->line);
        for (unsigned y = 0; y < view->height; y++)
            put_line(v, &p, y, view->width);
    }
    flush(&p);
    display_end(d);
}

/* When the cursor or a blinking cell turns over next. */
static int64_t next_turn(const Vga *v)
{
    return v->blinks ? (int64_t)(v->blink_phase + 1) * BLINK_HALF_NS : INT64_MAX;
}

static DisplayNews refresh_locked(Vga *v, Display *d, bool all)
{
    uint64_t phase = (uint64_t)(clock_now_ns(v->pci.dev.board->clock) / BLINK_HALF_NS);
    bool written = fetch_dirty(v), turned = v->blinks && phase != v->blink_phase;
    bool stirred = written || v->touched || v->palette_stale;
    VgaView view;

    lock_assert_held(&v->pci.dev.lock);
    if (!all && !turned && !stirred)
        return (DisplayNews){.next_ns = next_turn(v)};
    vga_view(v, &view);
    v->touched = false;
    all |= memcmp(&view, &v->view, sizeof view) != 0;
    if (v->palette_stale)
        all |= update_colors(v);
    v->blink_phase = phase;
    if (view.kind == VGA_TEXT) {
        all |= v->font_stale;
        v->font_stale = false;
        vga_text_draw(v, d, &view, all);
    } else {
        v->blinks = false;
        if (all || written)
            draw_graphics(v, d, &view, all);
    }
    v->view = view;
    return (DisplayNews){.stirred = stirred, .next_ns = next_turn(v)};
}

/**
 * vga_refresh() - Draw what changed; the adapter's side of a Display
 * Context: one thread at a time, no lock held.
 */
DisplayNews vga_refresh(void *opaque, Display *d, bool all)
{
    Vga *v = opaque;

    bus_settle(v->pci.dev.board->mmio);
    lodge_lock(&v->pci.dev.lock);
    DisplayNews news = refresh_locked(v, d, all);
    lodge_unlock(&v->pci.dev.lock);
    return news;
}
