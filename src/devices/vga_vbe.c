/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bochs VBE: the index and data registers by which firmware and drivers set linear modes.
 *
 * Spec: Bochs, "VBE Display HOWTO" and its DISPI interface, identification 0xB0C5; the guest's
 * contract is that of QEMU's standard VGA.
 *
 * Enabling starts with the virtual width at the width, offsets and bank 0. The resolution and the
 * depth can be written at any time. A value out of its limits is dropped, an offset is cut to
 * where the picture still lies in the memory; the virtual height is computed. Switching
 * the DAC's width converts its entries. What of a picture lies outside the memory is black.
 *
 * Threads: vCPU threads and the refreshing one, device lock held.
 *
 * Invariant: a register is limited when it is written, and again by who uses it: registers that
 * are written in any order, and in any mode, never name a byte outside the memory.
 */
#include "vga.h"

#define VBE_ID_FIRST 0xb0c0
#define VBE_ID_LAST 0xb0c5
#define VBE_ENABLE_STORED (VBE_ENABLED | VBE_GETCAPS | VBE_8BIT_DAC | VBE_LFB | VBE_NOCLEAR)
#define VBE_BPP_MAX 32
#define VBE_BPP_PRESET 8
#define VBE_BPP_PLANAR 4

/* Bits of memory that a pixel takes; 15-bit pixels lie in 16. */
static unsigned pixel_bits(unsigned bpp)
{
    return bpp == 15 ? 16 : bpp;
}

static bool bpp_is_known(unsigned bpp)
{
    return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

bool vga_vbe_on(const Vga *v)
{
    return v->regs.vbe[VBE_ENABLE] & VBE_ENABLED;
}

/**
 * vga_vbe_bank() - By how much the bank register moves the CPU's window
 * Return: bytes of linear memory, or of a plane in 4-bit modes; may lie outside the memory.
 */
uint64_t vga_vbe_bank(const Vga *v)
{
    return (uint64_t)v->regs.vbe[VBE_BANK] * (64 * KIB);
}

static uint32_t virtual_width(const Vga *v)
{
    return MAX(v->regs.vbe[VBE_VIRT_WIDTH], v->regs.vbe[VBE_XRES]);
}

/* Bytes of a line, in all planes; at least 1. */
static uint32_t line_bytes(const Vga *v)
{
    uint32_t bits = virtual_width(v) * pixel_bits(v->regs.vbe[VBE_BPP]);

    return MAX(bits / 8, 1);
}

static uint16_t virtual_height(const Vga *v)
{
    return MIN(v->mem_len / line_bytes(v), UINT16_MAX);
}

static void set_enable(Vga *v, uint16_t val)
{
    uint16_t *vbe = v->regs.vbe, old = vbe[VBE_ENABLE];

    vbe[VBE_ENABLE] = val & VBE_ENABLE_STORED;
    if ((old ^ val) & VBE_8BIT_DAC) {
        for (unsigned i = 0; i < sizeof v->regs.dac; i++)
            v->regs.dac[i] = val & VBE_8BIT_DAC ? v->regs.dac[i] << 2 : v->regs.dac[i] >> 2;
        v->palette_stale = true;
    }
    if (!(val & VBE_ENABLED) || (old & VBE_ENABLED))
        return;
    vbe[VBE_VIRT_WIDTH] = vbe[VBE_XRES];
    vbe[VBE_X_OFFSET] = vbe[VBE_Y_OFFSET] = vbe[VBE_BANK] = 0;
    if (!(val & VBE_NOCLEAR)) {
        uint64_t len = MIN((uint64_t)line_bytes(v) * vbe[VBE_YRES], v->mem_len);
        memset(v->mem, 0, len);
        vga_mark_dirty(v, 0, len);
        v->font_stale = true;
    }
}

/**
 * vga_vbe_write() - Write the register that the index names
 * Context: vCPU thread, device lock held.
 */
void vga_vbe_write(Vga *v, uint16_t val)
{
    uint16_t *vbe = v->regs.vbe;
    unsigned room;

    switch (v->regs.vbe_index) {
    case VBE_ID:
        if (val >= VBE_ID_FIRST && val <= VBE_ID_LAST)
            vbe[VBE_ID] = val;
        return;
    case VBE_XRES:
        if (val && val <= DISPLAY_WIDTH_MAX)
            vbe[VBE_XRES] = val;
        break;
    case VBE_YRES:
        if (val && val <= DISPLAY_HEIGHT_MAX)
            vbe[VBE_YRES] = val;
        break;
    case VBE_BPP:
        if (!val || bpp_is_known(val))
            vbe[VBE_BPP] = val ? val : VBE_BPP_PRESET;
        break;
    case VBE_ENABLE:
        set_enable(v, val);
        break;
    case VBE_BANK:
        room = v->mem_len / (64 * KIB);
        if (vbe[VBE_BPP] == VBE_BPP_PLANAR)
            room /= VGA_PLANES;
        if (val < room)
            vbe[VBE_BANK] = val;
        return;
    case VBE_VIRT_WIDTH:
        vbe[VBE_VIRT_WIDTH] = MAX(val, vbe[VBE_XRES]);
        break;
    case VBE_X_OFFSET:
        vbe[VBE_X_OFFSET] = MIN(val, virtual_width(v) - vbe[VBE_XRES]);
        break;
    case VBE_Y_OFFSET:
        room = virtual_height(v);
        room -= MIN(room, vbe[VBE_YRES]);
        vbe[VBE_Y_OFFSET] = MIN(val, room);
        break;
    default: /* computed, or not there */
        return;
    }
    v->touched = true;
}

/* As vga_vbe_write(). */
uint16_t vga_vbe_read(Vga *v)
{
    const uint16_t *vbe = v->regs.vbe;
    uint16_t index = v->regs.vbe_index;

    if (vbe[VBE_ENABLE] & VBE_GETCAPS) {
        switch (index) {
        case VBE_XRES:
            return DISPLAY_WIDTH_MAX;
        case VBE_YRES:
            return DISPLAY_HEIGHT_MAX;
        case VBE_BPP:
            return VBE_BPP_MAX;
        default:
            break;
        }
    }
    if (index == VBE_VIRT_HEIGHT)
        return virtual_height(v);
    if (index == VBE_MEMORY_64K)
        return v->mem_len / (64 * KIB);
    return index < VBE_REGS ? vbe[index] : 0;
}

/* Power-on values. */
void vga_vbe_reset(Vga *v)
{
    v->regs.vbe_index = 0;
    memset(v->regs.vbe, 0, sizeof v->regs.vbe);
    v->regs.vbe[VBE_ID] = VBE_ID_LAST;
    v->regs.vbe[VBE_XRES] = 640;
    v->regs.vbe[VBE_YRES] = 480;
    v->regs.vbe[VBE_BPP] = VBE_BPP_PRESET;
    v->regs.vbe[VBE_VIRT_WIDTH] = 640;
}

/* Whether registers from a saved state are such as writes can leave. */
bool vga_vbe_is_sound(const Vga *v)
{
    const uint16_t *vbe = v->regs.vbe;

    return vbe[VBE_XRES] && vbe[VBE_XRES] <= DISPLAY_WIDTH_MAX && vbe[VBE_YRES] &&
           vbe[VBE_YRES] <= DISPLAY_HEIGHT_MAX && bpp_is_known(vbe[VBE_BPP]);
}

/**
 * vga_vbe_view() - How the enabled VBE mode makes dots of memory
 * @ret_view: zeroed
 */
void vga_vbe_view(const Vga *v, VgaView *ret_view)
{
    const uint16_t *vbe = v->regs.vbe;
    uint32_t wide = virtual_width(v);
    uint64_t skip = (uint64_t)vbe[VBE_Y_OFFSET] * wide + vbe[VBE_X_OFFSET]; /* pixels */

    ret_view->width = MIN(vbe[VBE_XRES], DISPLAY_WIDTH_MAX);
    ret_view->height = MIN(vbe[VBE_YRES], DISPLAY_HEIGHT_MAX);
    ret_view->compare = UINT32_MAX;
    ret_view->row_lines = 1;
    if (vbe[VBE_BPP] == VBE_BPP_PLANAR) {
        ret_view->kind = VGA_PLANAR;
        ret_view->pitch = wide / 8;
        ret_view->mask = v->mem_len / VGA_PLANES - 1;
        skip = (uint64_t)vbe[VBE_Y_OFFSET] * ret_view->pitch + vbe[VBE_X_OFFSET] / 8;
        ret_view->start = skip & ret_view->mask;
        ret_view->columns = (ret_view->width + 7) / 8;
        ret_view->pan = vbe[VBE_X_OFFSET] & 7;
        ret_view->mode = CRTC_MODE_NO_BIT13 | CRTC_MODE_NO_BIT14 | CRTC_MODE_BYTE;
        return;
    }
    ret_view->kind = VGA_LINEAR;
    ret_view->bpp = vbe[VBE_BPP];
    ret_view->pitch = line_bytes(v);
    ret_view->start = MIN(skip * pixel_bits(vbe[VBE_BPP]) / 8, v->mem_len);
    ret_view->big_endian = v->regs.endian == VGA_BIG_ENDIAN;
}
