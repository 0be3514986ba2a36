/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VGA_DRIVER_H
#define LODGE_VGA_DRIVER_H

/* A VGA on a board, set up as a video BIOS does. */
#include "lodge/display.h"

#include "pci.h"
#include "testboard.h"

#define VGA_LFB 0xe0000000u /* where the frame buffer is mapped */
#define VGA_REGISTERS 0xf0000000u
#define VGA_DEVFN (3 << 3)

/* The BIOS's modes; MODE_X is 320 by 240 without chain 4. */
typedef enum VgaMode {
    MODE_1,
    MODE_3,
    MODE_4,
    MODE_6,
    MODE_7,
    MODE_D,
    MODE_12,
    MODE_13,
    MODE_X,
    VGA_MODES
} VgaMode;

typedef struct VgaBoard {
    TestBoard *tb;
    Display *display;
    Device *vga;
    unsigned crtc; /* 0x3b4 or 0x3d4 */
    /* What a viewer heard: */
    unsigned changes, resizes;
    uint64_t pixels; /* damaged */
    DisplayRect last;
} VgaBoard;

VgaBoard *vga_board_new(const char *props);
void vga_board_free(VgaBoard *vb);
void vga_out(VgaBoard *vb, unsigned port, uint8_t val);
uint8_t vga_in(VgaBoard *vb, unsigned port);
void vga_seq(VgaBoard *vb, uint8_t reg, uint8_t val);
void vga_gfx(VgaBoard *vb, uint8_t reg, uint8_t val);
void vga_crtc(VgaBoard *vb, uint8_t reg, uint8_t val);
void vga_attr(VgaBoard *vb, uint8_t reg, uint8_t val);
void vga_vbe(VgaBoard *vb, uint16_t reg, uint16_t val);
uint16_t vga_vbe_get(VgaBoard *vb, uint16_t reg);
void vga_dac(VgaBoard *vb, uint8_t entry, uint32_t rgb);
/* Registers, and entry i of the DAC at dac_preset(i). */
void vga_mode(VgaBoard *vb, VgaMode mode);
void vga_vbe_mode(VgaBoard *vb, unsigned width, unsigned height, unsigned bpp);
uint32_t dac_preset(unsigned i);  /* 6 bits a part, 0x00RRGGBB */
uint32_t color_preset(unsigned i); /* as it shows */
/* The dot at @x, @y after a refresh; the refresh is the caller's. */
uint32_t vga_dot(VgaBoard *vb, unsigned x, unsigned y);
/* Refresh with the counts above at 0 before. */
void vga_look(VgaBoard *vb);

#endif
