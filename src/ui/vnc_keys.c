/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys of VNC viewers: X keysyms (RFC 6143, section 7.5.4; X11's keysymdef.h) and the key codes of
 * QEMU's extended key event (community RFB specification, "QEMU Extended Key Event Message").
 *
 * A keysym is a character: which key types it depends on the layout, and a US layout is assumed.
 * Key codes are places and need no layout.
 */
#include "vnc_keys.h"

#include <glib.h>

#include <linux/input-event-codes.h>

#include "lodge/input.h"

#define KEYSYM_UNICODE 0x01000000
#define KEYSYM_F1 0xffbe
#define KEYSYM_F24 0xffd5
#define KEYSYM_KP_0 0xffb0
#define KEYSYM_KP_9 0xffb9

typedef struct SymKey {
    uint32_t sym;
    uint8_t code;
} SymKey;

static const SymKey sym_keys[] = {
    {0xff08, KEY_BACKSPACE}, {0xff09, KEY_TAB}, {0xff0a, KEY_ENTER}, {0xff0d, KEY_ENTER},
    {0xff13, KEY_PAUSE}, {0xff14, KEY_SCROLLLOCK}, {0xff15, KEY_SYSRQ}, {0xff1b, KEY_ESC},
    {0xff50, KEY_HOME}, {0xff51, KEY_LEFT}, {0xff52, KEY_UP}, {0xff53, KEY_RIGHT},
    {0xff54, KEY_DOWN}, {0xff55, KEY_PAGEUP}, {0xff56, KEY_PAGEDOWN}, {0xff57, KEY_END},
    {0xff61, KEY_SYSRQ}, {0xff63, KEY_INSERT}, {0xff67, KEY_COMPOSE}, {0xff6b, KEY_PAUSE},
    {0xff7f, KEY_NUMLOCK}, {0xff80, KEY_SPACE}, {0xff89, KEY_TAB}, {0xff8d, KEY_KPENTER},
    {0xff95, KEY_KP7}, {0xff96, KEY_KP4}, {0xff97, KEY_KP8}, {0xff98, KEY_KP6},
    {0xff99, KEY_KP2}, {0xff9a, KEY_KP9}, {0xff9b, KEY_KP3}, {0xff9c, KEY_KP1},
    {0xff9d, KEY_KP5}, {0xff9e, KEY_KP0}, {0xff9f, KEY_KPDOT}, {0xffbd, KEY_KPEQUAL},
    {0xffaa, KEY_KPASTERISK}, {0xffab, KEY_KPPLUS}, {0xffac, KEY_KPCOMMA},
    {0xffad, KEY_KPMINUS}, {0xffae, KEY_KPDOT}, {0xffaf, KEY_KPSLASH},
    {0xffe1, KEY_LEFTSHIFT}, {0xffe2, KEY_RIGHTSHIFT}, {0xffe3, KEY_LEFTCTRL},
    {0xffe4, KEY_RIGHTCTRL}, {0xffe5, KEY_CAPSLOCK}, {0xffe7, KEY_LEFTMETA},
    {0xffe8, KEY_RIGHTMETA}, {0xffe9, KEY_LEFTALT}, {0xffea, KEY_RIGHTALT},
    {0xffeb, KEY_LEFTMETA}, {0xffec, KEY_RIGHTMETA}, {0xfe03, KEY_RIGHTALT},
    {0xfe20, KEY_TAB}, {0xffff, KEY_DELETE}, {0x1008ff11, KEY_VOLUMEDOWN},
    {0x1008ff12, KEY_MUTE}, {0x1008ff13, KEY_VOLUMEUP}, {0x1008ff14, KEY_PLAYPAUSE},
    {0x1008ff15, KEY_STOPCD}, {0x1008ff16, KEY_PREVIOUSSONG}, {0x1008ff17, KEY_NEXTSONG},
};

static const uint8_t function_keys[] = {
    KEY_F1, KEY_F2, KEY_F3, KEY_F4, KEY_F5, KEY_F6, KEY_F7, KEY_F8, KEY_F9, KEY_F10, KEY_F11,
    KEY_F12, KEY_F13, KEY_F14, KEY_F15, KEY_F16, KEY_F17, KEY_F18, KEY_F19, KEY_F20, KEY_F21,
    KEY_F22, KEY_F23, KEY_F24,
};
static const uint8_t keypad_digits[] = {KEY_KP0, KEY_KP1, KEY_KP2, KEY_KP3, KEY_KP4,
                                        KEY_KP5, KEY_KP6, KEY_KP7, KEY_KP8, KEY_KP9};

unsigned vnc_key_by_keysym(uint32_t keysym, VncShift *ret_shift)
{
    bool shift;

    *ret_shift = VNC_SHIFT_ANY;
    for (unsigned i = 0; i < G_N_ELEMENTS(sym_keys); i++) {
        if (sym_keys[i].sym == keysym)
            return sym_keys[i].code;
    }
    if (keysym >= KEYSYM_F1 && keysym <= KEYSYM_F24)
        return function_keys[keysym - KEYSYM_F1];
    if (keysym >= KEYSYM_KP_0 && keysym <= KEYSYM_KP_9)
        return keypad_digits[keysym - KEYSYM_KP_0];
    if ((keysym & 0xff000000) == KEYSYM_UNICODE)
        keysym &= 0x00ffffff;
    if (keysym < ' ' || keysym > '~') /* Latin-1 beyond ASCII has no key on a US layout */
        return 0;
    unsigned code = input_key_by_char(keysym, &shift);
    if (g_ascii_isalpha((char)keysym))
        *ret_shift = shift ? VNC_SHIFT_UPPER : VNC_SHIFT_LOWER;
    else if (keysym != ' ')
        *ret_shift = shift ? VNC_SHIFT_YES : VNC_SHIFT_NO;
    return code;
}

/* Codes up to KEY_KPDOT, and of KEY_102ND to KEY_F12, Linux took over from set 1. */
static const uint8_t xt_keys[256] = {
    [0x54] = KEY_SYSRQ, [0x59] = KEY_KPEQUAL, [0x70] = KEY_KATAKANAHIRAGANA,
    [0x71] = KEY_HANJA, [0x72] = KEY_HANGEUL, [0x73] = KEY_RO, [0x76] = KEY_ZENKAKUHANKAKU,
    [0x77] = KEY_HIRAGANA, [0x78] = KEY_KATAKANA, [0x79] = KEY_HENKAN, [0x7b] = KEY_MUHENKAN,
    [0x7d] = KEY_YEN, [0x7e] = KEY_KPCOMMA,
    [0x90] = KEY_PREVIOUSSONG, [0x99] = KEY_NEXTSONG, [0x9c] = KEY_KPENTER,
    [0x9d] = KEY_RIGHTCTRL, [0xa0] = KEY_MUTE, [0xa1] = KEY_CALC, [0xa2] = KEY_PLAYPAUSE,
    [0xa4] = KEY_STOPCD, [0xae] = KEY_VOLUMEDOWN, [0xb0] = KEY_VOLUMEUP, [0xb2] = KEY_HOMEPAGE,
    [0xb5] = KEY_KPSLASH, [0xb7] = KEY_SYSRQ, [0xb8] = KEY_RIGHTALT, [0xc6] = KEY_PAUSE,
    [0xc7] = KEY_HOME, [0xc8] = KEY_UP, [0xc9] = KEY_PAGEUP, [0xcb] = KEY_LEFT,
    [0xcd] = KEY_RIGHT, [0xcf] = KEY_END, [0xd0] = KEY_DOWN, [0xd1] = KEY_PAGEDOWN,
    [0xd2] = KEY_INSERT, [0xd3] = KEY_DELETE, [0xdb] = KEY_LEFTMETA, [0xdc] = KEY_RIGHTMETA,
    [0xdd] = KEY_COMPOSE, [0xde] = KEY_POWER, [0xdf] = KEY_SLEEP, [0xe3] = KEY_WAKEUP,
    [0xe5] = KEY_SEARCH, [0xe6] = KEY_BOOKMARKS, [0xe7] = KEY_REFRESH, [0xe8] = KEY_STOP,
    [0xe9] = KEY_FORWARD, [0xea] = KEY_BACK, [0xeb] = KEY_COMPUTER, [0xec] = KEY_MAIL,
    [0xed] = KEY_MEDIA,
};

unsigned vnc_key_by_xt(uint32_t xt)
{
    if (xt >= G_N_ELEMENTS(xt_keys))
        return 0;
    if (xt <= KEY_KPDOT || (xt >= KEY_102ND && xt <= KEY_F12))
        return xt;
    return xt_keys[xt];
}
