/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VGA from hostile programs, with a screen on which its picture is drawn now and then. The
 * event's byte: bit 7 asks for the text, the others put a mode up to start from, or one for which no
 * memory is large enough. */
#include "bus_fuzz.h"

#include "lodge/display.h"
#include "pc_map.h"
#include "pci.h"

enum {
    LFB = 0xe0000000,
    REGISTERS = 0xf0000000,
    CARD_DEVFN = 3 << 3,
    LARGE = 0x70,
};

static const BusFuzzRegion ports[] = {
    {0x3b4, 2}, {0x3ba, 1}, {0x3c0, 16}, {0x3d4, 2}, {0x3da, 1}, {0x1ce, 4}, {0x3b0, 0x30}, {0}};
/* Edges of the windows rather than all of them: most programs should meet what others wrote. */
static const BusFuzzRegion mmio[] = {
    {REGISTERS + 0x500, 0x18}, {REGISTERS + 0x400, 0x20}, {REGISTERS + 0x5fc, 0x10},
    {PC_VGA_GPA, 0x80}, {PC_VGA_GPA + 0xffc0, 0x80}, {PC_VGA_GPA + 0x17fc0, 0x80},
    {PC_VGA_GPA + PC_VGA_LEN - 0x40, 0x40}, {0}};
static const uint8_t devfns[] = {CARD_DEVFN, 0xff};

static Display *display;

static void set_up(TestBoard *tb)
{
    display = tb->board.display = display_new(NULL);
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "vga", "romfile=,vgamem=8M");
    test_cfg_write(tb, CARD_DEVFN, 0x10, 4, LFB);
    test_cfg_write(tb, CARD_DEVFN, 0x18, 4, REGISTERS);
    test_cfg_write(tb, CARD_DEVFN, 0x04, 2, 3);
    test_out(tb, 0x3c2, 1, 0x67);
    test_out(tb, 0x3c0, 1, 0x20);
}

static void set_pairs(TestBoard *tb, uint16_t port, const uint8_t *vals, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        test_out(tb, port, 2, vals[i] << 8 | i);
}

/* More picture than there is memory for it. */
static void put_large_mode(TestBoard *tb, unsigned size)
{
    uint16_t vbe[] = {0xb0c5, (uint16_t)(1024 << (size & 3)), (uint16_t)(1024 << (size >> 2 & 3)),
                      32, 0x41};

    test_out(tb, 0x1ce, 2, 4);
    test_out(tb, 0x1cf, 2, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(vbe); i++) {
        test_out(tb, 0x1ce, 2, i);
        test_out(tb, 0x1cf, 2, vbe[i]);
    }
}

/* A mode small enough that many programs run in a second. */
static void put_mode(TestBoard *tb, unsigned mode)
{
    static const uint8_t depths[] = {4, 8, 15, 16, 24, 32};
    static const uint8_t seq[] = {3, 0, 0x0f, 0, 2};
    static const uint8_t gfx[] = {0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff};
    static const uint8_t crtc[] = {0x5f, 7, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1d, 0,
                                   0x4f, 0x0d, 0x0e, 0, 0, 0, 1, 0x9c,
                                   0x0e, 39, 4, 0x1f, 0x96, 0xb9, 0xa3, 0xff};
    static const uint8_t shift[] = {0x10, 0x00, 0x30, 0x40};

    test_out(tb, 0x1ce, 2, 4);
    test_out(tb, 0x1cf, 2, 0);
    if (mode < G_N_ELEMENTS(depths)) {
        uint16_t vbe[] = {0xb0c5, 48, 32, depths[mode], 0x41};
        for (unsigned i = 0; i < G_N_ELEMENTS(vbe); i++) {
            test_out(tb, 0x1ce, 2, i);
            test_out(tb, 0x1cf, 2, vbe[i]);
        }
        return;
    }
    set_pairs(tb, 0x3c4, seq, G_N_ELEMENTS(seq));
    set_pairs(tb, 0x3ce, gfx, G_N_ELEMENTS(gfx));
    test_out(tb, 0x3d4, 2, 0x0011);
    set_pairs(tb, 0x3d4, crtc, G_N_ELEMENTS(crtc));
    if (mode & 8) {
        test_out(tb, 0x3ce, 2, shift[mode & 3] << 8 | 5);
        test_out(tb, 0x3ce, 2, 0x0506);
    }
}

static void event(TestBoard *tb, uint8_t what)
{
    if ((what & LARGE) == LARGE) {
        put_large_mode(tb, what & 0xf); /* not drawn: that takes long */
        return;
    }
    if (what & 0x7f)
        put_mode(tb, (what & 0x7f) - 1u);
    if (what & 0x80)
        g_free(display_text(display));
    else
        display_update(display);
}

static void tear_down(TestBoard *tb)
{
    tb->board.display = NULL;
    display_free(display);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .mmio = mmio, .devfns = devfns, .set_up = set_up,
                              .event = event, .tear_down = tear_down};

    return bus_fuzz_run(&f, data, len);
}
