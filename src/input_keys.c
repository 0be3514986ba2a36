/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of keys, and the keys that type a character on a US layout.
 *
 * The names are those of QMP's QKeyCode, so that what users know works; of its names only the
 * keys of workstations that no PC keyboard has are missing. "print" and "sysrq" are one key on a
 * PC keyboard, and so are "menu" and "compose".
 */

#include <string.h>

#include <linux/input-event-codes.h>

#include "lodge/input.h"

typedef struct KeyName {
    const char *name;
    uint8_t code;
} KeyName;

static const KeyName key_names[] = {
    {"shift", KEY_LEFTSHIFT}, {"shift_r", KEY_RIGHTSHIFT}, {"alt", KEY_LEFTALT},
    {"alt_r", KEY_RIGHTALT}, {"ctrl", KEY_LEFTCTRL}, {"ctrl_r", KEY_RIGHTCTRL},
    {"meta_l", KEY_LEFTMETA}, {"meta_r", KEY_RIGHTMETA}, {"menu", KEY_COMPOSE},
    {"compose", KEY_COMPOSE}, {"esc", KEY_ESC}, {"1", KEY_1}, {"2", KEY_2}, {"3", KEY_3},
    {"4", KEY_4}, {"5", KEY_5}, {"6", KEY_6}, {"7", KEY_7}, {"8", KEY_8}, {"9", KEY_9},
    {"0", KEY_0}, {"minus", KEY_MINUS}, {"equal", KEY_EQUAL}, {"backspace", KEY_BACKSPACE},
    {"tab", KEY_TAB}, {"a", KEY_A}, {"b", KEY_B}, {"c", KEY_C}, {"d", KEY_D}, {"e", KEY_E},
    {"f", KEY_F}, {"g", KEY_G}, {"h", KEY_H}, {"i", KEY_I}, {"j", KEY_J}, {"k", KEY_K},
    {"l", KEY_L}, {"m", KEY_M}, {"n", KEY_N}, {"o", KEY_O}, {"p", KEY_P}, {"q", KEY_Q},
    {"r", KEY_R}, {"s", KEY_S}, {"t", KEY_T}, {"u", KEY_U}, {"v", KEY_V}, {"w", KEY_W},
    {"x", KEY_X}, {"y", KEY_Y}, {"z", KEY_Z}, {"bracket_left", KEY_LEFTBRACE},
    {"bracket_right", KEY_RIGHTBRACE}, {"ret", KEY_ENTER}, {"semicolon", KEY_SEMICOLON},
    {"apostrophe", KEY_APOSTROPHE}, {"grave_accent", KEY_GRAVE}, {"backslash", KEY_BACKSLASH},
    {"comma", KEY_COMMA}, {"dot", KEY_DOT}, {"slash", KEY_SLASH}, {"asterisk", KEY_KPASTERISK},
    {"spc", KEY_SPACE}, {"caps_lock", KEY_CAPSLOCK}, {"num_lock", KEY_NUMLOCK},
    {"scroll_lock", KEY_SCROLLLOCK}, {"f1", KEY_F1}, {"f2", KEY_F2}, {"f3", KEY_F3},
    {"f4", KEY_F4}, {"f5", KEY_F5}, {"f6", KEY_F6}, {"f7", KEY_F7}, {"f8", KEY_F8},
    {"f9", KEY_F9}, {"f10", KEY_F10}, {"f11", KEY_F11}, {"f12", KEY_F12}, {"f13", KEY_F13},
    {"f14", KEY_F14}, {"f15", KEY_F15}, {"f16", KEY_F16}, {"f17", KEY_F17}, {"f18", KEY_F18},
    {"f19", KEY_F19}, {"f20", KEY_F20}, {"f21", KEY_F21}, {"f22", KEY_F22}, {"f23", KEY_F23},
    {"f24", KEY_F24}, {"kp_divide", KEY_KPSLASH}, {"kp_multiply", KEY_KPASTERISK},
    {"kp_subtract", KEY_KPMINUS}, {"kp_add", KEY_KPPLUS}, {"kp_enter", KEY_KPENTER},
    {"kp_decimal", KEY_KPDOT}, {"kp_comma", KEY_KPCOMMA}, {"kp_equals", KEY_KPEQUAL},
    {"kp_0", KEY_KP0}, {"kp_1", KEY_KP1}, {"kp_2", KEY_KP2}, {"kp_3", KEY_KP3},
    {"kp_4", KEY_KP4}, {"kp_5", KEY_KP5}, {"kp_6", KEY_KP6}, {"kp_7", KEY_KP7},
    {"kp_8", KEY_KP8}, {"kp_9", KEY_KP9}, {"less", KEY_102ND}, {"sysrq", KEY_SYSRQ},
    {"print", KEY_SYSRQ}, {"pause", KEY_PAUSE}, {"home", KEY_HOME}, {"end", KEY_END},
    {"pgup", KEY_PAGEUP}, {"pgdn", KEY_PAGEDOWN}, {"left", KEY_LEFT}, {"right", KEY_RIGHT},
    {"up", KEY_UP}, {"down", KEY_DOWN}, {"insert", KEY_INSERT}, {"delete", KEY_DELETE},
    {"ro", KEY_RO}, {"yen", KEY_YEN}, {"henkan", KEY_HENKAN}, {"muhenkan", KEY_MUHENKAN},
    {"hiragana", KEY_HIRAGANA}, {"katakanahiragana", KEY_KATAKANAHIRAGANA},
    {"lang1", KEY_HANGEUL}, {"lang2", KEY_HANJA}, {"power", KEY_POWER}, {"sleep", KEY_SLEEP},
    {"wake", KEY_WAKEUP}, {"audionext", KEY_NEXTSONG}, {"audioprev", KEY_PREVIOUSSONG},
    {"audiostop", KEY_STOPCD}, {"audioplay", KEY_PLAYPAUSE}, {"audiomute", KEY_MUTE},
    {"volumeup", KEY_VOLUMEUP}, {"volumedown", KEY_VOLUMEDOWN}, {"mediaselect", KEY_MEDIA},
    {"mail", KEY_MAIL}, {"calculator", KEY_CALC}, {"computer", KEY_COMPUTER},
    {"ac_home", KEY_HOMEPAGE}, {"ac_back", KEY_BACK}, {"ac_forward", KEY_FORWARD},
    {"ac_refresh", KEY_REFRESH}, {"ac_bookmarks", KEY_BOOKMARKS},
};

unsigned input_key_by_name(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(key_names); i++) {
        if (!strcmp(key_names[i].name, name))
            return key_names[i].code;
    }
    return 0;
}

/* Runs of keys whose codes follow each other, as they stand on a US keyboard. */
typedef struct KeyRun {
    uint8_t first; /* KEY_* */
    const char *plain, *shifted;
} KeyRun;

static const KeyRun key_runs[] = {
    {KEY_1, "1234567890-=", "!@#$%^&*()_+"},
    {KEY_Q, "qwertyuiop[]", "QWERTYUIOP{}"},
    {KEY_A, "asdfghjkl;'`", "ASDFGHJKL:\"~"},
    {KEY_BACKSLASH, "\\zxcvbnm,./", "|ZXCVBNM<>?"},
};

unsigned input_key_by_char(uint32_t c, bool *ret_shift)
{
    *ret_shift = false;
    switch (c) {
    case ' ':
        return KEY_SPACE;
    case '\n':
    case '\r':
        return KEY_ENTER;
    case '\t':
        return KEY_TAB;
    case '\b':
    case 0x7f:
        return KEY_BACKSPACE;
    case 0x1b:
        return KEY_ESC;
    }
    if (c < ' ' || c > '~')
        return 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(key_runs); i++) {
        const char *at = strchr(key_runs[i].plain, (int)c);
        if (at)
            return key_runs[i].first + (unsigned)(at - key_runs[i].plain);
        at = strchr(key_runs[i].shifted, (int)c);
        if (at) {
            *ret_shift = true;
            return key_runs[i].first + (unsigned)(at - key_runs[i].shifted);
        }
    }
    return 0;
}
