/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VNC_KEYS_H
#define LODGE_VNC_KEYS_H

#include <stdbool.h>
#include <stdint.h>

/* What Shift has to do with a key that was asked for by its character. */
typedef enum VncShift {
    VNC_SHIFT_ANY,   /* not a character: as it is */
    VNC_SHIFT_NO,    /* types the character without Shift */
    VNC_SHIFT_YES,   /* with */
    VNC_SHIFT_UPPER, /* a letter: with Shift or Caps Lock, not both */
    VNC_SHIFT_LOWER,
} VncShift;

/* KEY_* for an X keysym, on a US layout; 0: none. */
unsigned vnc_key_by_keysym(uint32_t keysym, VncShift *ret_shift);
/* KEY_* for a key code of the QEMU extension: scan-code set 1, 0x80 added after 0xE0; 0: none. */
unsigned vnc_key_by_xt(uint32_t xt);

#endif
