/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scan codes of PC keyboards: sets 1 and 2, and the 8042's translation between them.
 *
 * Spec: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)", "Scan
 * Codes"; Microsoft, "Keyboard Scan Code Specification" and "USB HID to PS/2 Scan Code
 * Translation Table" (keys of media, power and far-eastern keyboards).
 *
 * One table, of set 2: set 1 is by definition what the translation makes of it. Left out: the
 * shift codes that keyboards wrap around cursor keys while Shift or Num Lock is on, which serve
 * programs of the 84-key keyboard.
 */

#include "ps2_scancode.h"

#include <string.h>

#include <glib.h>

#include <linux/input-event-codes.h>

#define SCAN_TRANSLATED 0x85 /* bytes from here on are not scan codes and pass */
#define SCAN_BREAK_BIT 0x80  /* of set 1 */

/* IBM, "Keyboard and Auxiliary Device Controller", "Scan Code Translation" */
static const uint8_t set2_to_set1[SCAN_TRANSLATED] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
    0x80, 0x81, 0x82, 0x41, 0x54,
};

/* KEY_* to set 2; EXT: after SCAN_EXTENDED, ONCE: nothing at the release; 0: no such key. */
#define EXT 0x100
#define ONCE 0x200
static const uint16_t set2[256] = {
    [KEY_ESC] = 0x76, [KEY_1] = 0x16, [KEY_2] = 0x1e, [KEY_3] = 0x26, [KEY_4] = 0x25,
    [KEY_5] = 0x2e, [KEY_6] = 0x36, [KEY_7] = 0x3d, [KEY_8] = 0x3e, [KEY_9] = 0x46,
    [KEY_0] = 0x45, [KEY_MINUS] = 0x4e, [KEY_EQUAL] = 0x55, [KEY_BACKSPACE] = 0x66,
    [KEY_TAB] = 0x0d, [KEY_Q] = 0x15, [KEY_W] = 0x1d, [KEY_E] = 0x24, [KEY_R] = 0x2d,
    [KEY_T] = 0x2c, [KEY_Y] = 0x35, [KEY_U] = 0x3c, [KEY_I] = 0x43, [KEY_O] = 0x44,
    [KEY_P] = 0x4d, [KEY_LEFTBRACE] = 0x54, [KEY_RIGHTBRACE] = 0x5b, [KEY_ENTER] = 0x5a,
    [KEY_LEFTCTRL] = 0x14, [KEY_A] = 0x1c, [KEY_S] = 0x1b, [KEY_D] = 0x23, [KEY_F] = 0x2b,
    [KEY_G] = 0x34, [KEY_H] = 0x33, [KEY_J] = 0x3b, [KEY_K] = 0x42, [KEY_L] = 0x4b,
    [KEY_SEMICOLON] = 0x4c, [KEY_APOSTROPHE] = 0x52, [KEY_GRAVE] = 0x0e,
    [KEY_LEFTSHIFT] = 0x12, [KEY_BACKSLASH] = 0x5d, [KEY_Z] = 0x1a, [KEY_X] = 0x22,
    [KEY_C] = 0x21, [KEY_V] = 0x2a, [KEY_B] = 0x32, [KEY_N] = 0x31, [KEY_M] = 0x3a,
    [KEY_COMMA] = 0x41, [KEY_DOT] = 0x49, [KEY_SLASH] = 0x4a, [KEY_RIGHTSHIFT] = 0x59,
    [KEY_KPASTERISK] = 0x7c, [KEY_LEFTALT] = 0x11, [KEY_SPACE] = 0x29, [KEY_CAPSLOCK] = 0x58,
    [KEY_F1] = 0x05, [KEY_F2] = 0x06, [KEY_F3] = 0x04, [KEY_F4] = 0x0c, [KEY_F5] = 0x03,
    [KEY_F6] = 0x0b, [KEY_F7] = 0x83, [KEY_F8] = 0x0a, [KEY_F9] = 0x01, [KEY_F10] = 0x09,
    [KEY_NUMLOCK] = 0x77, [KEY_SCROLLLOCK] = 0x7e, [KEY_KP7] = 0x6c, [KEY_KP8] = 0x75,
    [KEY_KP9] = 0x7d, [KEY_KPMINUS] = 0x7b, [KEY_KP4] = 0x6b, [KEY_KP5] = 0x73,
    [KEY_KP6] = 0x74, [KEY_KPPLUS] = 0x79, [KEY_KP1] = 0x69, [KEY_KP2] = 0x72,
    [KEY_KP3] = 0x7a, [KEY_KP0] = 0x70, [KEY_KPDOT] = 0x71, [KEY_102ND] = 0x61,
    [KEY_F11] = 0x78, [KEY_F12] = 0x07, [KEY_KPEQUAL] = 0x0f, [KEY_KPCOMMA] = 0x6d,
    [KEY_F13] = 0x08, [KEY_F14] = 0x10, [KEY_F15] = 0x18, [KEY_F16] = 0x20, [KEY_F17] = 0x28,
    [KEY_F18] = 0x30, [KEY_F19] = 0x38, [KEY_F20] = 0x40, [KEY_F21] = 0x48, [KEY_F22] = 0x50,
    [KEY_F23] = 0x57, [KEY_F24] = 0x5f,
    [KEY_RO] = 0x51, [KEY_YEN] = 0x6a, [KEY_HENKAN] = 0x64, [KEY_MUHENKAN] = 0x67,
    [KEY_KATAKANAHIRAGANA] = 0x13, [KEY_HIRAGANA] = 0x62, [KEY_KATAKANA] = 0x63,
    [KEY_ZENKAKUHANKAKU] = 0x5f, [KEY_HANGEUL] = ONCE | 0xf2, [KEY_HANJA] = ONCE | 0xf1,
    [KEY_KPENTER] = EXT | 0x5a, [KEY_RIGHTCTRL] = EXT | 0x14, [KEY_KPSLASH] = EXT | 0x4a,
    [KEY_RIGHTALT] = EXT | 0x11, [KEY_HOME] = EXT | 0x6c, [KEY_UP] = EXT | 0x75,
    [KEY_PAGEUP] = EXT | 0x7d, [KEY_LEFT] = EXT | 0x6b, [KEY_RIGHT] = EXT | 0x74,
    [KEY_END] = EXT | 0x69, [KEY_DOWN] = EXT | 0x72, [KEY_PAGEDOWN] = EXT | 0x7a,
    [KEY_INSERT] = EXT | 0x70, [KEY_DELETE] = EXT | 0x71, [KEY_LEFTMETA] = EXT | 0x1f,
    [KEY_RIGHTMETA] = EXT | 0x27, [KEY_COMPOSE] = EXT | 0x2f, [KEY_POWER] = EXT | 0x37,
    [KEY_SLEEP] = EXT | 0x3f, [KEY_WAKEUP] = EXT | 0x5e, [KEY_NEXTSONG] = EXT | 0x4d,
    [KEY_PREVIOUSSONG] = EXT | 0x15, [KEY_STOPCD] = EXT | 0x3b, [KEY_PLAYPAUSE] = EXT | 0x34,
    [KEY_MUTE] = EXT | 0x23, [KEY_VOLUMEUP] = EXT | 0x32, [KEY_VOLUMEDOWN] = EXT | 0x21,
    [KEY_MEDIA] = EXT | 0x50, [KEY_MAIL] = EXT | 0x48, [KEY_CALC] = EXT | 0x2b,
    [KEY_COMPUTER] = EXT | 0x40, [KEY_SEARCH] = EXT | 0x10, [KEY_HOMEPAGE] = EXT | 0x3a,
    [KEY_BACK] = EXT | 0x38, [KEY_FORWARD] = EXT | 0x30, [KEY_STOP] = EXT | 0x28,
    [KEY_REFRESH] = EXT | 0x20, [KEY_BOOKMARKS] = EXT | 0x18,
};

/* The two keys that are not one code: IBM, "Scan Codes", notes to keys 124 and 126. */
typedef struct Special {
    uint8_t make_len, brk_len;
    uint8_t make[SCAN_SEQUENCE_MAX], brk[SCAN_SEQUENCE_MAX];
} Special;

static const Special print_screen[SCAN_FORMS] = {
    [SCAN_PLAIN] = {4, 6, {0xe0, 0x12, 0xe0, 0x7c}, {0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12}},
    [SCAN_SHIFTED] = {2, 3, {0xe0, 0x7c}, {0xe0, 0xf0, 0x7c}},
    [SCAN_ALTED] = {1, 2, {0x84}, {0xf0, 0x84}},
};
static const Special pause_key = {8, 0, {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77}, {0}};
static const Special break_key = {5, 0, {0xe0, 0x7e, 0xe0, 0xf0, 0x7e}, {0}};

uint8_t scan_set2_to_set1(uint8_t byte)
{
    return byte < SCAN_TRANSLATED ? set2_to_set1[byte] : byte;
}

static unsigned special_sequence(const Special *s, bool down, uint8_t *ret_bytes)
{
    memcpy(ret_bytes, down ? s->make : s->brk, SCAN_SEQUENCE_MAX);
    return down ? s->make_len : s->brk_len;
}

static unsigned set2_sequence(unsigned code, bool down, ScanForm form, uint8_t *ret_bytes)
{
    unsigned len = 0;

    if (code == KEY_SYSRQ)
        return special_sequence(&print_screen[form], down, ret_bytes);
    if (code == KEY_PAUSE)
        return special_sequence(form == SCAN_SHIFTED ? &break_key : &pause_key, down, ret_bytes);
    if (code >= G_N_ELEMENTS(set2) || !set2[code] || (!down && (set2[code] & ONCE)))
        return 0;
    if (set2[code] & EXT)
        ret_bytes[len++] = SCAN_EXTENDED;
    if (!down)
        ret_bytes[len++] = SCAN_BREAK;
    ret_bytes[len++] = (uint8_t)set2[code];
    return len;
}

unsigned scan_sequence(unsigned set, unsigned code, bool down, ScanForm form,
                       uint8_t ret_bytes[SCAN_SEQUENCE_MAX])
{
    unsigned len = set2_sequence(code, down, form, ret_bytes), to = 0;
    uint8_t up = 0;

    if (set == 2)
        return len;
    for (unsigned i = 0; i < len; i++) {
        if (ret_bytes[i] == SCAN_BREAK) {
            up = SCAN_BREAK_BIT;
            continue;
        }
        ret_bytes[to++] = scan_set2_to_set1(ret_bytes[i]) | up;
        up = 0;
    }
    return to;
}
