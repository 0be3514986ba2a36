/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CPU's way to the VGA's memory through 0xA0000 to 0xBFFFF: the graphics controller's write
 * and read modes, the sequencer's map mask, odd/even and chain-4 addressing.
 *
 * Spec: FreeVGA, "Accessing the VGA Display Memory", "Graphics Registers", "Sequencer Registers";
 * Bochs VBE for the bank.
 *
 * Chain 4 and odd/even leave the address bits that choose a plane 0, as the VGA does, so a quarter
 * and a half of each plane is used. While VBE is on, chain 4 is plain linear memory and the
 * graphics controller is out of the way, as on the Bochs adapter. Left out: the page bit of
 * the miscellaneous output register (odd/even uses even bytes always).
 *
 * Threads: vCPU threads, device lock held.
 *
 * Invariant: each access compares its place with the length of the memory (mem_get, mem_put and
 * the linear path); nothing that was computed when a register was written is trusted.
 */
#include "vga.h"

#define WINDOW_COLOR 0x18000u /* offset of B8000 */
#define WINDOW_MONO 0x10000u  /* of B0000 */
#define WINDOW_64K 0x10000u
#define WINDOW_32K 0x8000u
#define BYTES4 0x01010101u

typedef struct Place {
    uint64_t off;   /* byte of a plane */
    uint8_t planes; /* that a write reaches */
    uint8_t chosen; /* plane that read mode 0 reads */
} Place;

static uint32_t every_plane(uint8_t byte)
{
    return byte * BYTES4;
}

/* Bit p of @bits to all of plane p's byte. */
static uint32_t plane_mask(uint8_t bits)
{
    return ((bits & 1u) | (bits & 2u) << 7 | (bits & 4u) << 14 | (bits & 8u) << 21) * 0xff;
}

static uint32_t mem_get(const Vga *v, uint64_t off)
{
    return off < v->mem_len / VGA_PLANES ? load_le32(v->mem + VGA_PLANES * off) : UINT32_MAX;
}

/* Write the bits of @mask. */
static void mem_put(Vga *v, uint64_t off, uint32_t val, uint32_t mask)
{
    if (off >= v->mem_len / VGA_PLANES)
        return;
    uint8_t *at = v->mem + VGA_PLANES * off;
    uint32_t old = load_le32(at), new = (old & ~mask) | (val & mask);
    if (new == old)
        return;
    store_le32(at, new);
    vga_mark_dirty(v, VGA_PLANES * off, VGA_PLANES);
    if ((new ^ old) & plane_mask(1 << 2))
        v->font_stale = true;
}

/**
 * vga_mark_dirty() - Note that [@off, @off + @len) of the memory was written
 * @off: bytes; what lies outside the memory is ignored
 */
void vga_mark_dirty(Vga *v, uint64_t off, uint64_t len)
{
    if (!len || !range_within(off, len, v->mem_len))
        return;
    for (uint64_t page = off >> VGA_PAGE_SHIFT; page <= (off + len - 1) >> VGA_PAGE_SHIFT; page++)
        v->dirty[page / 64] |= UINT64_C(1) << page % 64;
    v->wrote = true;
}

/* FreeVGA, "Miscellaneous Graphics Register": which addresses are the adapter's. */
static bool in_window(const Vga *v, uint64_t off, uint64_t *ret_off)
{
    uint64_t first = 0, len = PC_VGA_LEN;

    switch (v->regs.gfx[GFX_MISC] >> 2 & 3) {
    case 0:
        break;
    case 1:
        len = WINDOW_64K;
        break;
    case 2:
        first = WINDOW_MONO;
        len = WINDOW_32K;
        break;
    default:
        first = WINDOW_COLOR;
        len = WINDOW_32K;
        break;
    }
    if (!(v->regs.misc & MISC_RAM) || off < first || off - first >= len)
        return false;
    *ret_off = off - first;
    return true;
}

/* Whether the window shows linear memory. */
static bool is_linear(const Vga *v)
{
    return vga_vbe_on(v) && (v->regs.seq[SEQ_MEMORY] & SEQ_MEMORY_CHAIN4);
}

/* FreeVGA, "Sequencer Memory Mode Register", "Graphics Mode Register" */
static Place find_place(const Vga *v, uint64_t off, bool write)
{
    uint8_t memory = v->regs.seq[SEQ_MEMORY];
    bool odd_even = write ? !(memory & SEQ_MEMORY_NO_ODD_EVEN)
                          : v->regs.gfx[GFX_MODE] & GFX_MODE_ODD_EVEN;
    Place p = {.off = off, .planes = 0xf, .chosen = v->regs.gfx[GFX_READ_MAP] & 3};

    if (memory & SEQ_MEMORY_CHAIN4) {
        p.chosen = off & 3;
        p.planes = 1u << p.chosen;
        p.off &= ~UINT64_C(3);
    } else if (odd_even) {
        p.chosen = (p.chosen & 2) | (off & 1);
        p.planes = 5u << (off & 1);
        p.off &= ~UINT64_C(1);
    }
    if (vga_vbe_on(v))
        p.off += vga_vbe_bank(v);
    else
        p.off &= VGA_PLANE_LEN - 1;
    return p;
}

static uint8_t read_byte(Vga *v, uint64_t off)
{
    uint64_t at;

    if (!in_window(v, off, &at))
        return UINT8_MAX;
    if (is_linear(v)) {
        at += vga_vbe_bank(v);
        return at < v->mem_len ? v->mem[at] : UINT8_MAX;
    }
    Place p = find_place(v, at, false);
    v->regs.latch = mem_get(v, p.off);
    if (!(v->regs.gfx[GFX_MODE] & GFX_MODE_READ))
        return v->regs.latch >> 8 * p.chosen;
    /* Read mode 1: bits whose colour matches in all planes that are cared for. */
    uint32_t differ = (v->regs.latch ^ plane_mask(v->regs.gfx[GFX_COMPARE])) &
                      plane_mask(v->regs.gfx[GFX_DONT_CARE]);
    return ~(differ | differ >> 8 | differ >> 16 | differ >> 24);
}

static uint8_t rotate(uint8_t val, unsigned by)
{
    return (val | val << 8) >> (by & 7);
}

/* FreeVGA, "Data Rotate Register": the logical operation. */
static uint32_t combine(const Vga *v, uint32_t val)
{
    switch (v->regs.gfx[GFX_ROTATE] >> 3 & 3) {
    case 0:
        return val;
    case 1:
        return val & v->regs.latch;
    case 2:
        return val | v->regs.latch;
    default:
        return val ^ v->regs.latch;
    }
}

/* The graphics controller: what the planes get. FreeVGA, "Graphics Mode Register", write modes. */
static uint32_t write_modes(const Vga *v, uint8_t val)
{
    const uint8_t *gfx = v->regs.gfx;
    uint8_t turned = rotate(val, gfx[GFX_ROTATE]), bits = gfx[GFX_BIT_MASK];
    uint32_t data, mask;

    switch (gfx[GFX_MODE] & GFX_MODE_WRITE) {
    case 0:
        mask = plane_mask(gfx[GFX_SET_RESET_ON]);
        data = (every_plane(turned) & ~mask) | (plane_mask(gfx[GFX_SET_RESET]) & mask);
        break;
    case 1:
        return v->regs.latch;
    case 2:
        data = plane_mask(val & 0xf);
        break;
    default:
        data = plane_mask(gfx[GFX_SET_RESET]);
        bits &= turned;
        break;
    }
    mask = every_plane(bits);
    return (combine(v, data) & mask) | (v->regs.latch & ~mask);
}

static void write_byte(Vga *v, uint64_t off, uint8_t val)
{
    uint64_t at;

    if (!in_window(v, off, &at))
        return;
    if (is_linear(v)) {
        at += vga_vbe_bank(v);
        if (at < v->mem_len && v->mem[at] != val) {
            v->mem[at] = val;
            vga_mark_dirty(v, at, 1);
        }
        return;
    }
    Place p = find_place(v, at, true);
    mem_put(v, p.off, write_modes(v, val),
            plane_mask(p.planes & v->regs.seq[SEQ_MAP_MASK]));
}

/**
 * vga_mem_read() - The guest reads [@off, @off + @size) of the window at 0xA0000
 * Context: vCPU thread, device lock held.
 */
uint64_t vga_mem_read(void *owner, uint64_t off, unsigned size)
{
    uint64_t val = 0;

    for (unsigned i = 0; i < size; i++)
        val |= (uint64_t)read_byte(owner, off + i) << 8 * i;
    return val;
}

/* As vga_mem_read(). */
void vga_mem_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    for (unsigned i = 0; i < size; i++)
        write_byte(owner, off + i, val >> 8 * i);
}
