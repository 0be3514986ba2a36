/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VGA_H
#define LODGE_VGA_H

/*
 * What the files of the VGA adapter share: vga.c has the chips' registers, vga_mem.c the way of
 * the CPU to the video memory, vga_vbe.c the Bochs VBE registers, vga_draw.c and vga_text.c the
 * picture.
 *
 * Video memory is one block of bytes with the four planes side by side: byte 4 * n + p is byte n
 * of plane p. The linear frame buffer is the same bytes in order.
 */

#include "lodge/display.h"
#include "lodge/num.h"

#include "pc_map.h"
#include "pci.h"

#define VGA_PLANES 4
#define VGA_PLANE_LEN 0x10000u /* bytes of a plane that the VGA itself can address */
#define VGA_PAGE_SHIFT 12      /* of the dirty bitmaps */
#define VGA_MEM_MIN (8 * MIB)
#define VGA_MEM_MAX (64 * MIB)
#define VGA_PAGES_MAX (VGA_MEM_MAX >> VGA_PAGE_SHIFT)
#define VGA_DAC_ENTRIES 256
#define VGA_ATTR_COLORS 16

/* Registers of the chips that exist; indices beyond read as 0 and take nothing. */
#define VGA_SEQ_REGS 5
#define VGA_GFX_REGS 9
#define VGA_CRTC_REGS 25
#define VGA_ATTR_REGS 21

/* Sequencer (FreeVGA, "Sequencer Registers") */
#define SEQ_RESET 0x00
#define SEQ_RESET_RUN 0x03
#define SEQ_CLOCKING 0x01
#define SEQ_CLOCKING_8DOT 0x01
#define SEQ_CLOCKING_HALF 0x08
#define SEQ_CLOCKING_OFF 0x20
#define SEQ_MAP_MASK 0x02
#define SEQ_FONTS 0x03
#define SEQ_MEMORY 0x04
#define SEQ_MEMORY_NO_ODD_EVEN 0x04
#define SEQ_MEMORY_CHAIN4 0x08

/* Graphics controller ("Graphics Registers") */
#define GFX_SET_RESET 0x00
#define GFX_SET_RESET_ON 0x01
#define GFX_COMPARE 0x02
#define GFX_ROTATE 0x03
#define GFX_READ_MAP 0x04
#define GFX_MODE 0x05
#define GFX_MODE_WRITE 0x03
#define GFX_MODE_READ 0x08
#define GFX_MODE_ODD_EVEN 0x10
#define GFX_MODE_INTERLEAVE 0x20
#define GFX_MODE_256 0x40
#define GFX_MISC 0x06
#define GFX_MISC_GRAPHICS 0x01
#define GFX_DONT_CARE 0x07
#define GFX_BIT_MASK 0x08

/* CRT controller ("CRTC Registers") */
#define CRTC_HTOTAL 0x00
#define CRTC_HDISPLAY_END 0x01
#define CRTC_VTOTAL 0x06
#define CRTC_OVERFLOW 0x07
#define CRTC_PRESET 0x08
#define CRTC_MAX_SCAN 0x09
#define CRTC_MAX_SCAN_DOUBLE 0x80
#define CRTC_CURSOR_START 0x0a
#define CRTC_CURSOR_OFF 0x20
#define CRTC_CURSOR_END 0x0b
#define CRTC_START_HIGH 0x0c
#define CRTC_START_LOW 0x0d
#define CRTC_CURSOR_HIGH 0x0e
#define CRTC_CURSOR_LOW 0x0f
#define CRTC_VRETRACE 0x10
#define CRTC_VRETRACE_END 0x11
#define CRTC_PROTECT 0x80
#define CRTC_VDISPLAY_END 0x12
#define CRTC_OFFSET 0x13
#define CRTC_UNDERLINE 0x14
#define CRTC_DWORD 0x40
#define CRTC_MODE 0x17
#define CRTC_MODE_NO_BIT13 0x01
#define CRTC_MODE_NO_BIT14 0x02
#define CRTC_MODE_WRAP 0x20
#define CRTC_MODE_BYTE 0x40
#define CRTC_LINE_COMPARE 0x18

/* Attribute controller ("Attribute Controller Registers") */
#define ATTR_INDEX_ON 0x20 /* palette address source: the screen shows something */
#define ATTR_MODE 0x10
#define ATTR_MODE_MONO 0x02
#define ATTR_MODE_LINE_GRAPHICS 0x04
#define ATTR_MODE_BLINK 0x08
#define ATTR_MODE_PAN 0x20
#define ATTR_MODE_P54S 0x80
#define ATTR_PLANES 0x12
#define ATTR_PAN 0x13
#define ATTR_COLOR_SELECT 0x14

/* Miscellaneous output ("External Registers") */
#define MISC_COLOR 0x01 /* CRTC at 3Dx */
#define MISC_RAM 0x02   /* the CPU reaches the video memory */

/* Bochs VBE: index register and its 16-bit registers. */
enum {
    VBE_ID,
    VBE_XRES,
    VBE_YRES,
    VBE_BPP,
    VBE_ENABLE,
    VBE_BANK,
    VBE_VIRT_WIDTH,
    VBE_VIRT_HEIGHT,
    VBE_X_OFFSET,
    VBE_Y_OFFSET,
    VBE_REGS,
    VBE_MEMORY_64K = VBE_REGS /* holds no state */
};
#define VBE_ENABLED 0x01
#define VBE_GETCAPS 0x02
#define VBE_8BIT_DAC 0x20
#define VBE_LFB 0x40
#define VBE_NOCLEAR 0x80

/* What the guest sees, but for the video memory, which travels as memory. */
typedef struct VgaRegs {
    uint32_t endian; /* of the linear frame buffer: VGA_LITTLE_ENDIAN or VGA_BIG_ENDIAN */
    uint32_t latch;  /* plane p in bits 8p to 8p + 7 */
    uint16_t vbe_index;
    uint16_t vbe[VBE_REGS];
    uint8_t misc, feature;
    uint8_t seq_index, seq[VGA_SEQ_REGS];
    uint8_t gfx_index, gfx[VGA_GFX_REGS];
    uint8_t crtc_index, crtc[VGA_CRTC_REGS];
    uint8_t attr_index, attr[VGA_ATTR_REGS]; /* index with ATTR_INDEX_ON */
    uint8_t attr_data; /* flip-flop: the next write of 3C0 is data */
    uint8_t dac_mask, dac_reading, dac_index, dac_part; /* part 0..2: red, green, blue */
    uint8_t dac_buffer[2]; /* red and green of an entry being written */
    uint8_t dac[VGA_DAC_ENTRIES * 3]; /* as written: 6 bits, or 8 with VBE_8BIT_DAC */
    uint8_t reserved; /* 0: no padding behind */
} VgaRegs;
#define VGA_LITTLE_ENDIAN 0x1e1e1e1eu
#define VGA_BIG_ENDIAN 0xbebebebeu

typedef enum VgaKind { VGA_NOTHING, VGA_BLANK, VGA_TEXT, VGA_PLANAR, VGA_LINEAR } VgaKind;

/* How memory becomes dots, worked out anew for each refresh; two of them are compared as bytes, so
 * all members are 32 bits wide. Lengths in dots, lines, or bytes of a plane (LINEAR: bytes). */
typedef struct VgaView {
    uint32_t kind;
    uint32_t width, height;
    uint32_t columns;    /* character clocks of a line */
    uint32_t start, pitch; /* TEXT: start 0, cells are compared one by one */
    uint32_t row_lines;  /* scan lines of a character row: 1..32 */
    uint32_t doubled;    /* each scan line is shown twice */
    uint32_t preset;     /* scan line of the row that the picture begins with */
    uint32_t compare;    /* last line above the split */
    uint32_t pan, pan_below; /* dots, or pixels of LINEAR; below the split */
    uint32_t half;       /* dot clock halved: dots are two wide */
    uint32_t mapping, mode; /* CRTC_UNDERLINE, CRTC_MODE: how an address reaches the memory */
    uint32_t shift;      /* GFX_MODE_INTERLEAVE | GFX_MODE_256 */
    uint32_t mask;       /* last byte that an address can name, for PLANAR */
    uint32_t bpp, big_endian; /* LINEAR */
    uint32_t nine, line_graphics, blink, underline, fonts; /* TEXT */
} VgaView;

/* Where the beam is: one scan line. */
typedef struct VgaScan {
    uint32_t y;
    uint32_t addr; /* of the line's first character, CRTC counter */
    uint32_t row;  /* scan line of the character row */
    uint32_t again; /* doubled: the second showing */
    uint32_t pan;
} VgaScan;

typedef struct Vga {
    PciDev pci;
    VgaRegs regs; /* behind pci.regs: one range for the StateDesc */
    /* Constant after realize: */
    uint64_t mem_len; /* property */
    char *romfile;    /* property */
    MemBlock *block;  /* the map's; NULL: not realized */
    uint8_t *mem;     /* mem_len bytes, also the guest's */
    BusRegion legacy, ports, vbe_ports;
    uint32_t spread[256]; /* bit 7 - n of the index in bit 4n */
    /* Guarded by pci.dev.lock: */
    uint64_t dirty[VGA_PAGES_MAX / 64]; /* pages written by our own paths */
    bool wrote;         /* a bit of dirty is set */
    bool touched;       /* a register that the picture depends on was written */
    bool palette_stale; /* colours have to be worked out anew */
    bool font_stale;    /* plane 2 was written: glyphs may be others */
    /* The refresh's, guarded by pci.dev.lock: */
    VgaView view; /* what the surface shows */
    uint64_t fetched[VGA_PAGES_MAX / 64];
    uint32_t colors[VGA_DAC_ENTRIES]; /* of 8-bit pixels, 0x00RRGGBB */
    uint32_t ega[VGA_ATTR_COLORS];    /* of 4-bit pixels, through the attribute controller */
    uint32_t *cells; /* owned; keys of the cells shown; NULL: none */
    size_t cells_len;
    bool blinks; /* something blinks on the screen */
    uint64_t blink_phase; /* half periods of the cursor, shown */
    uint32_t line[DISPLAY_WIDTH_MAX];
    uint8_t index[DISPLAY_WIDTH_MAX + 16];
} Vga;

/* All below: pci.dev.lock held. */

/* ---- vga_mem.c ---- */
uint64_t vga_mem_read(void *owner, uint64_t off, unsigned size);
void vga_mem_write(void *owner, uint64_t off, unsigned size, uint64_t val);
void vga_mark_dirty(Vga *v, uint64_t off, uint64_t len);

/* ---- vga_vbe.c ---- */
void vga_vbe_reset(Vga *v);
uint16_t vga_vbe_read(Vga *v);
void vga_vbe_write(Vga *v, uint16_t val);
bool vga_vbe_on(const Vga *v);
bool vga_vbe_is_sound(const Vga *v);
/* Bytes by which the bank register moves the CPU's window. */
uint64_t vga_vbe_bank(const Vga *v);
void vga_vbe_view(const Vga *v, VgaView *ret_view);

/* ---- vga_draw.c ---- */
DisplayNews vga_refresh(void *opaque, Display *d, bool all); /* lock not held */
void vga_view(const Vga *v, VgaView *ret_view);
void vga_scan_first(const VgaView *view, uint32_t start, VgaScan *ret_scan);
void vga_scan_next(const VgaView *view, VgaScan *scan);
uint32_t vga_map(const VgaView *view, uint32_t addr, uint32_t row);
uint32_t vga_start(const Vga *v);

/* ---- vga_text.c ---- */
void vga_text_draw(Vga *v, Display *d, const VgaView *view, bool all);
char *vga_text(void *opaque); /* lock not held */

#endif
