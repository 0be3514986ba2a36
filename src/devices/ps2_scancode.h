/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PS2_SCANCODE_H
#define LODGE_PS2_SCANCODE_H

#include <stdbool.h>
#include <stdint.h>

#define SCAN_BREAK 0xf0 /* set 2: the next byte is a key that went up */
#define SCAN_EXTENDED 0xe0
#define SCAN_EXTENDED1 0xe1
#define SCAN_SEQUENCE_MAX 8 /* bytes: Pause in set 2 */

/* How a key goes over the wire with the modifiers that are down: these two keys have several. */
typedef enum ScanForm {
    SCAN_PLAIN,
    SCAN_SHIFTED, /* PrintScreen with Shift or Ctrl; Pause with Ctrl is Break */
    SCAN_ALTED,   /* PrintScreen with Alt is SysRq */
    SCAN_FORMS,
} ScanForm;

/**
 * scan_set2_to_set1() - What an 8042 makes of a byte of set 2
 * SCAN_BREAK is not for this function: it sets bit 7 of the translation of the next.
 */
uint8_t scan_set2_to_set1(uint8_t byte);

/**
 * scan_sequence() - Bytes that a keyboard sends for a key
 * @set:  1 or 2
 * @code: KEY_* below 256
 * Return: bytes in @ret_bytes; 0: the keyboard has no such key, or it says nothing at its release.
 */
unsigned scan_sequence(unsigned set, unsigned code, bool down, ScanForm form,
                       uint8_t ret_bytes[SCAN_SEQUENCE_MAX]);

#endif
