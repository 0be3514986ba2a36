/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PS/2 keyboard and mouse through the controller's ports, as drivers see them. */
#include <string.h>

#include <linux/input-event-codes.h>

#include "lodge/error.h"
#include "lodge/input.h"
#include "ps2_mouse.h"
#include "testboard.h"

#define DATA 0x60
#define COMMAND 0x64
#define FULL 0x01
#define AUX 0x20
#define XLATE 0x40

typedef struct Fixture {
    TestBoard *tb;
    Input *in;
    Device *kbd, *mouse;
} Fixture;

static void set_command_byte(Fixture *f, uint8_t val)
{
    test_out(f->tb, COMMAND, 1, 0x60);
    test_out(f->tb, DATA, 1, val);
}

static void set_up(Fixture *f, gconstpointer unused)
{
    *f = (Fixture){.tb = test_board_new(0), .in = input_new()};
    f->tb->board.input = f->in;
    test_board_add(f->tb, "i8259", NULL);
    test_board_add(f->tb, "i8042", NULL);
    f->kbd = test_board_add(f->tb, "ps2-kbd", NULL);
    f->mouse = test_board_add(f->tb, "ps2-mouse", NULL);
    test_pic_auto_eoi(f->tb);
    set_command_byte(f, 0x03);
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    test_board_free(f->tb);
    input_free(f->in);
}

/* Read all that waits, as hex: "e0 75"; @aux: from the mouse. */
static char *drain(Fixture *f, uint8_t aux)
{
    GString *s = g_string_new(NULL);
    uint8_t st;
    while ((st = (uint8_t)test_in(f->tb, COMMAND, 1)) & FULL) {
        g_assert_cmphex(st & AUX, ==, aux);
        g_string_append_printf(s, "%s%02x", s->len ? " " : "",
                               (unsigned)test_in(f->tb, DATA, 1));
        g_assert_cmpuint(s->len, <, 1000);
    }
    return g_string_free(s, FALSE);
}

static void expect(Fixture *f, uint8_t aux, const char *bytes)
{
    g_autofree char *got = drain(f, aux);
    g_assert_cmpstr(got, ==, bytes);
}

static void keys(Fixture *f, const char *bytes)
{
    expect(f, 0, bytes);
}

static void kbd(Fixture *f, uint8_t byte, const char *bytes)
{
    test_out(f->tb, DATA, 1, byte);
    expect(f, 0, bytes);
}

static void mouse(Fixture *f, uint8_t byte, const char *bytes)
{
    test_out(f->tb, COMMAND, 1, 0xd4);
    test_out(f->tb, DATA, 1, byte);
    expect(f, AUX, bytes);
}

static void hit(Fixture *f, unsigned code, const char *down, const char *up)
{
    g_test_message("key %u", code);
    input_key(f->in, code, true);
    keys(f, down);
    input_key(f->in, code, false);
    keys(f, up);
}

static void test_kbd_commands(Fixture *f, gconstpointer unused)
{
    kbd(f, 0xff, "fa aa");
    kbd(f, 0xf2, "fa ab 83");
    kbd(f, 0xfe, "83");
    kbd(f, 0xee, "ee");
    kbd(f, 0xed, "fa");
    kbd(f, 0x07, "fa");
    kbd(f, 0xf3, "fa");
    kbd(f, 0x20, "fa");
    kbd(f, 0xf0, "fa");
    kbd(f, 0x00, "fa 02");
    kbd(f, 0xf0, "fa");
    kbd(f, 0x01, "fa");
    kbd(f, 0xf0, "fa");
    kbd(f, 0x00, "fa 01");
    kbd(f, 0xf0, "fa");
    kbd(f, 0x03, "fe"); /* has no set 3 */
    kbd(f, 0xf6, "fa");
    kbd(f, 0xf0, "fa");
    kbd(f, 0x00, "fa 02");
    kbd(f, 0xed, "fa");
    kbd(f, 0xf4, "fa"); /* a command instead of the parameter */
    kbd(f, 0x12, "fe");
    kbd(f, 0xe0, "fe");
    kbd(f, 0xf5, "fa");
    hit(f, KEY_A, "", "");
    kbd(f, 0xf4, "fa");
    hit(f, KEY_A, "1c", "f0 1c");
    set_command_byte(f, 0x03 | XLATE);
    kbd(f, 0xf2, "fa ab 41");
    kbd(f, 0xf0, "fa");
    kbd(f, 0x00, "fa 41"); /* "set 2" */
    kbd(f, 0xff, "fa aa");
}

/* Answers go before scan codes, which wait while a parameter is awaited. */
static void test_kbd_order(Fixture *f, gconstpointer unused)
{
    input_key(f->in, KEY_A, true);
    input_key(f->in, KEY_B, true);
    test_out(f->tb, DATA, 1, 0xed); /* 1c is in the controller already */
    keys(f, "1c fa");
    kbd(f, 0x00, "fa 32");
    input_key(f->in, KEY_A, false);
    input_key(f->in, KEY_B, false);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0xf0);
    kbd(f, 0xf4, "1c fa"); /* the rest was in the buffer that F4 clears */
}

/* The answer amid a key's bytes does not change their meaning. */
static void test_kbd_translated_order(Fixture *f, gconstpointer unused)
{
    set_command_byte(f, 0x03 | XLATE);
    hit(f, KEY_A, "1e", "9e");
    input_key(f->in, KEY_UP, true);
    input_key(f->in, KEY_UP, false);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0xe0);
    kbd(f, 0xee, "48 ee e0 c8");
    hit(f, KEY_F7, "41", "c1");
}

/* Microsoft's and IBM's tables: set 1, set 2 of the keys of more than one byte, or not in the
 * block that Linux numbered after set 1. */
static const struct {
    unsigned code;
    const char *down1, *up1, *down2, *up2;
} published[] = {
    {KEY_KPENTER, "e0 1c", "e0 9c", "e0 5a", "e0 f0 5a"},
    {KEY_RIGHTCTRL, "e0 1d", "e0 9d", "e0 14", "e0 f0 14"},
    {KEY_KPSLASH, "e0 35", "e0 b5", "e0 4a", "e0 f0 4a"},
    {KEY_RIGHTALT, "e0 38", "e0 b8", "e0 11", "e0 f0 11"},
    {KEY_HOME, "e0 47", "e0 c7", "e0 6c", "e0 f0 6c"},
    {KEY_UP, "e0 48", "e0 c8", "e0 75", "e0 f0 75"},
    {KEY_PAGEUP, "e0 49", "e0 c9", "e0 7d", "e0 f0 7d"},
    {KEY_LEFT, "e0 4b", "e0 cb", "e0 6b", "e0 f0 6b"},
    {KEY_RIGHT, "e0 4d", "e0 cd", "e0 74", "e0 f0 74"},
    {KEY_END, "e0 4f", "e0 cf", "e0 69", "e0 f0 69"},
    {KEY_DOWN, "e0 50", "e0 d0", "e0 72", "e0 f0 72"},
    {KEY_PAGEDOWN, "e0 51", "e0 d1", "e0 7a", "e0 f0 7a"},
    {KEY_INSERT, "e0 52", "e0 d2", "e0 70", "e0 f0 70"},
    {KEY_DELETE, "e0 53", "e0 d3", "e0 71", "e0 f0 71"},
    {KEY_LEFTMETA, "e0 5b", "e0 db", "e0 1f", "e0 f0 1f"},
    {KEY_RIGHTMETA, "e0 5c", "e0 dc", "e0 27", "e0 f0 27"},
    {KEY_COMPOSE, "e0 5d", "e0 dd", "e0 2f", "e0 f0 2f"},
    {KEY_POWER, "e0 5e", "e0 de", "e0 37", "e0 f0 37"},
    {KEY_SLEEP, "e0 5f", "e0 df", "e0 3f", "e0 f0 3f"},
    {KEY_WAKEUP, "e0 63", "e0 e3", "e0 5e", "e0 f0 5e"},
    {KEY_NEXTSONG, "e0 19", "e0 99", "e0 4d", "e0 f0 4d"},
    {KEY_PREVIOUSSONG, "e0 10", "e0 90", "e0 15", "e0 f0 15"},
    {KEY_STOPCD, "e0 24", "e0 a4", "e0 3b", "e0 f0 3b"},
    {KEY_PLAYPAUSE, "e0 22", "e0 a2", "e0 34", "e0 f0 34"},
    {KEY_MUTE, "e0 20", "e0 a0", "e0 23", "e0 f0 23"},
    {KEY_VOLUMEUP, "e0 30", "e0 b0", "e0 32", "e0 f0 32"},
    {KEY_VOLUMEDOWN, "e0 2e", "e0 ae", "e0 21", "e0 f0 21"},
    {KEY_MEDIA, "e0 6d", "e0 ed", "e0 50", "e0 f0 50"},
    {KEY_MAIL, "e0 6c", "e0 ec", "e0 48", "e0 f0 48"},
    {KEY_CALC, "e0 21", "e0 a1", "e0 2b", "e0 f0 2b"},
    {KEY_COMPUTER, "e0 6b", "e0 eb", "e0 40", "e0 f0 40"},
    {KEY_SEARCH, "e0 65", "e0 e5", "e0 10", "e0 f0 10"},
    {KEY_HOMEPAGE, "e0 32", "e0 b2", "e0 3a", "e0 f0 3a"},
    {KEY_BACK, "e0 6a", "e0 ea", "e0 38", "e0 f0 38"},
    {KEY_FORWARD, "e0 69", "e0 e9", "e0 30", "e0 f0 30"},
    {KEY_STOP, "e0 68", "e0 e8", "e0 28", "e0 f0 28"},
    {KEY_REFRESH, "e0 67", "e0 e7", "e0 20", "e0 f0 20"},
    {KEY_BOOKMARKS, "e0 66", "e0 e6", "e0 18", "e0 f0 18"},
    {KEY_KPEQUAL, "59", "d9", "0f", "f0 0f"},
    {KEY_F13, "64", "e4", "08", "f0 08"},
    {KEY_F14, "65", "e5", "10", "f0 10"},
    {KEY_F15, "66", "e6", "18", "f0 18"},
    {KEY_F16, "67", "e7", "20", "f0 20"},
    {KEY_F17, "68", "e8", "28", "f0 28"},
    {KEY_F18, "69", "e9", "30", "f0 30"},
    {KEY_F19, "6a", "ea", "38", "f0 38"},
    {KEY_F20, "6b", "eb", "40", "f0 40"},
    {KEY_F21, "6c", "ec", "48", "f0 48"},
    {KEY_F22, "6d", "ed", "50", "f0 50"},
    {KEY_F23, "6e", "ee", "57", "f0 57"},
    {KEY_F24, "76", "f6", "5f", "f0 5f"},
    {KEY_ZENKAKUHANKAKU, "76", "f6", "5f", "f0 5f"},
    {KEY_KATAKANAHIRAGANA, "70", "f0", "13", "f0 13"},
    {KEY_RO, "73", "f3", "51", "f0 51"},
    {KEY_HIRAGANA, "77", "f7", "62", "f0 62"},
    {KEY_KATAKANA, "78", "f8", "63", "f0 63"},
    {KEY_HENKAN, "79", "f9", "64", "f0 64"},
    {KEY_MUHENKAN, "7b", "fb", "67", "f0 67"},
    {KEY_YEN, "7d", "fd", "6a", "f0 6a"},
    {KEY_KPCOMMA, "7e", "fe", "6d", "f0 6d"},
    {KEY_HANGEUL, "f2", "", "f2", ""},
    {KEY_HANJA, "f1", "", "f1", ""},
    {KEY_PAUSE, "e1 1d 45 e1 9d c5", "", "e1 14 77 e1 f0 14 f0 77", ""},
    {KEY_SYSRQ, "e0 2a e0 37", "e0 b7 e0 aa", "e0 12 e0 7c", "e0 f0 7c e0 f0 12"},
    {KEY_F7, "41", "c1", "83", "f0 83"},
    {KEY_F5, "3f", "bf", "03", "f0 03"},
    {KEY_A, "1e", "9e", "1c", "f0 1c"},
    {KEY_ENTER, "1c", "9c", "5a", "f0 5a"},
    {KEY_ESC, "01", "81", "76", "f0 76"},
    {KEY_LEFTSHIFT, "2a", "aa", "12", "f0 12"},
};

static bool in_block(unsigned code)
{
    return (code >= KEY_ESC && code <= KEY_KPDOT) || (code >= KEY_102ND && code <= KEY_F12);
}

/* Set 2 as it is, set 2 through the translation, set 1: each key there is. */
static void test_scan_codes(Fixture *f, gconstpointer unused)
{
    bool known[256] = {false};
    for (unsigned i = 0; i < G_N_ELEMENTS(published); i++) {
        set_command_byte(f, 0x03);
        hit(f, published[i].code, published[i].down2, published[i].up2);
        set_command_byte(f, 0x03 | XLATE);
        hit(f, published[i].code, published[i].down1, published[i].up1);
        known[published[i].code] = true;
    }
    for (unsigned code = 0; code < 256; code++) { /* Linux's numbers of this block are set 1 */
        g_autofree char *down = g_strdup_printf("%02x", code);
        g_autofree char *up = g_strdup_printf("%02x", code | 0x80);
        if (in_block(code))
            hit(f, code, down, up);
        else if (!known[code])
            hit(f, code, "", "");
    }
    set_command_byte(f, 0x03);
    kbd(f, 0xf0, "fa");
    kbd(f, 0x01, "fa");
    for (unsigned i = 0; i < G_N_ELEMENTS(published); i++)
        hit(f, published[i].code, published[i].down1, published[i].up1);
}

static void test_print_screen(Fixture *f, gconstpointer unused)
{
    input_key(f->in, KEY_LEFTSHIFT, true);
    keys(f, "12");
    hit(f, KEY_SYSRQ, "e0 7c", "e0 f0 7c");
    input_key(f->in, KEY_LEFTSHIFT, false);
    keys(f, "f0 12");
    input_key(f->in, KEY_RIGHTALT, true);
    keys(f, "e0 11");
    input_key(f->in, KEY_SYSRQ, true);
    keys(f, "84");
    input_key(f->in, KEY_RIGHTALT, false); /* Alt first: the key goes up as it went down */
    keys(f, "e0 f0 11");
    input_key(f->in, KEY_SYSRQ, true);
    keys(f, "84");
    input_key(f->in, KEY_SYSRQ, false);
    keys(f, "f0 84");
    input_key(f->in, KEY_RIGHTCTRL, true);
    keys(f, "e0 14");
    hit(f, KEY_PAUSE, "e0 7e e0 f0 7e", "");
    input_key(f->in, KEY_RIGHTCTRL, false);
    keys(f, "e0 f0 14");
}

/* A guest that does not read for a while: presses are dropped, releases are not. */
static void test_full(Fixture *f, gconstpointer unused)
{
    bool down[256] = {false};
    unsigned presses = 0, code = 0;
    set_command_byte(f, 0x03 | XLATE);
    for (unsigned i = KEY_1; i <= KEY_KPDOT; i++)
        input_key(f->in, i, true);
    for (unsigned i = KEY_1; i <= KEY_KPDOT; i++)
        input_key(f->in, i, false);
    input_key(f->in, KEY_UP, true); /* while releases are owed there is no press */
    input_key(f->in, KEY_UP, false);
    while (test_in(f->tb, COMMAND, 1) & FULL) {
        code = (unsigned)test_in(f->tb, DATA, 1);
        g_assert_cmphex(code, !=, 0xe0);
        g_assert_true(down[code & 0x7f] == (code >= 0x80));
        down[code & 0x7f] = code < 0x80;
        presses += code < 0x80;
    }
    g_assert_cmpuint(presses, ==, 17); /* the buffer and the controller's byte */
    for (unsigned i = 0; i < 128; i++)
        g_assert_false(down[i]);
    hit(f, KEY_A, "1e", "9e");
}

/* One byte is free and a release of two is owed: a press of one byte does not overtake it. */
static void test_owed(Fixture *f, gconstpointer unused)
{
    static const char all[] = "16 1e 26 25 2e 36 3d 3e 46 45 4e 55 66 0d 15 1d f0 16";
    for (unsigned i = KEY_1; i < KEY_1 + 16; i++)
        input_key(f->in, i, true);
    input_key(f->in, KEY_1, false);
    input_key(f->in, KEY_A, true);
    keys(f, all);
    input_key(f->in, KEY_A, false);
    keys(f, "");
    hit(f, KEY_A, "1c", "f0 1c");
}

static void test_repeat(Fixture *f, gconstpointer unused)
{
    input_key(f->in, KEY_A, true);
    input_key(f->in, KEY_A, true);
    input_key(f->in, KEY_A, true);
    keys(f, "1c 1c 1c");
    input_key(f->in, KEY_A, false);
    keys(f, "f0 1c");
}

static void test_rest(Fixture *f, gconstpointer unused)
{
    input_key(f->in, KEY_A, true);
    keys(f, "1c");
    f->kbd->cls->quiesce(f->kbd);
    input_key(f->in, KEY_A, false);
    input_key(f->in, KEY_B, true);
    keys(f, "");
    device_resume(f->kbd);
    keys(f, "f0 1c");
    input_key(f->in, KEY_B, false); /* never went down */
    keys(f, "");
    mouse(f, 0xf4, "fa");
    input_rel(f->in, 0, 0, 0, INPUT_LEFT);
    expect(f, AUX, "09 00 00");
    f->mouse->cls->quiesce(f->mouse);
    input_rel(f->in, 5, 0, 0, INPUT_RIGHT);
    expect(f, AUX, "");
    device_resume(f->mouse);
    expect(f, AUX, "08 00 00");
}

static void test_kbd_state(Fixture *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    size_t used;
    input_key(f->in, KEY_UP, true);
    input_key(f->in, KEY_A, true);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0xe0);
    state_save(f->kbd->cls->state, f->kbd, saved);
    device_reset(f->kbd, RESET_COLD);
    keys(f, "75"); /* was in the controller */
    state_load(f->kbd->cls->state, f->kbd, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    set_command_byte(f, 0x03);
    keys(f, "1c f0 1c e0 f0 75"); /* nobody holds them any more */
}

/* The value of field @name in a saved state: after kind, width and count. */
static uint8_t *saved_field(GByteArray *saved, const char *name)
{
    g_autofree char *key = g_strdup_printf("%c%s", (int)strlen(name), name);
    uint8_t *at = memmem(saved->data, saved->len, key, strlen(key));
    g_assert_nonnull(at);
    return at + strlen(key) + 9;
}

/* CVE-2017-16845: indices in a stream that lead out of the buffer. */
static void test_hostile_indices(Fixture *f, gconstpointer unused)
{
    static const struct {
        const char *name;
        uint8_t kbd, mouse; /* the least that must be refused; 0: no such field */
    } bounds[] = {{"head", 16, 16}, {"count", 17, 17}, {"answers", 4, 6},
                  {"last_len", 0, 6}, {"left", 0, 1}, {"id", 0, 5}, {"set", 3, 0}};
    Device *devs[] = {f->kbd, f->mouse};
    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(bounds); i++) {
        Device *d = devs[i % 2];
        uint8_t bad = i % 2 ? bounds[i / 2].mouse : bounds[i / 2].kbd;
        g_autoptr(GByteArray) saved = g_byte_array_new();
        GError *error = NULL;
        size_t used;
        if (!bad)
            continue;
        device_reset(d, RESET_COLD);
        state_save(d->cls->state, d, saved);
        g_test_message("%s %s %u", d->id, bounds[i / 2].name, bad);
        *saved_field(saved, bounds[i / 2].name) = bad;
        g_assert_false(
            state_load(d->cls->state, d, saved->data, saved->len, &used, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
        g_clear_error(&error);
        device_reset(d, RESET_COLD);
    }
}

/* Any byte of a stream wrong: refused, or taken and harmless. */
static void test_hostile_state(Fixture *f, gconstpointer unused)
{
    Device *devs[] = {f->kbd, f->mouse};
    for (unsigned d = 0; d < G_N_ELEMENTS(devs); d++) {
        g_autoptr(GByteArray) good = g_byte_array_new();
        unsigned refused = 0;
        state_save(devs[d]->cls->state, devs[d], good);
        for (unsigned i = 0; i < good->len; i++) {
            g_autofree uint8_t *bad = g_memdup2(good->data, good->len);
            GError *error = NULL;
            size_t used;
            bad[i] = 0xff;
            if (!state_load(devs[d]->cls->state, devs[d], bad, good->len, &used, &error)) {
                g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
                g_clear_error(&error);
                device_reset(devs[d], RESET_COLD);
                refused++;
                continue;
            }
            for (unsigned n = 0; n < 40; n++) { /* what was taken can be used */
                input_key(f->in, KEY_A, n & 1);
                input_rel(f->in, 300, -300, 1, n & 1);
                test_in(f->tb, DATA, 1);
            }
            device_reset(devs[d], RESET_COLD);
        }
        g_assert_cmpuint(refused, >, good->len / 2);
    }
}

static void test_mouse_commands(Fixture *f, gconstpointer unused)
{
    mouse(f, 0xff, "fa aa 00");
    mouse(f, 0xfe, "fa aa 00");
    mouse(f, 0xf2, "fa 00");
    mouse(f, 0xe9, "fa 00 02 64");
    mouse(f, 0xe8, "fa");
    mouse(f, 0x03, "fa");
    mouse(f, 0xf3, "fa");
    mouse(f, 40, "fa");
    mouse(f, 0xe7, "fa");
    mouse(f, 0xf4, "fa");
    mouse(f, 0xe9, "fa 30 03 28");
    mouse(f, 0xf0, "fa");
    mouse(f, 0xe9, "fa 70 03 28");
    mouse(f, 0xea, "fa");
    mouse(f, 0xe6, "fa");
    mouse(f, 0xe9, "fa 20 03 28");
    mouse(f, 0xf6, "fa");
    mouse(f, 0xe9, "fa 00 02 64");
    mouse(f, 0xe8, "fa"); /* refused, asked for again, given up */
    mouse(f, 0x04, "fe");
    mouse(f, 0x05, "fc");
    mouse(f, 0xe1, "fe");
    mouse(f, 0xe1, "fc");
    mouse(f, 0xf3, "fa");
    mouse(f, 77, "fe");
    mouse(f, 80, "fa");
    mouse(f, 0xee, "fa"); /* wrap: an echo */
    mouse(f, 0xf4, "f4");
    mouse(f, 0x12, "12");
    mouse(f, 0xec, "fa");
    mouse(f, 0xe9, "fa 00 02 50");
    mouse(f, 0xee, "fa");
    mouse(f, 0xff, "fa aa 00");
}

static void test_mouse_packets(Fixture *f, gconstpointer unused)
{
    input_rel(f->in, 5, 5, 0, 0); /* off: nothing, and nothing later */
    expect(f, AUX, "");
    mouse(f, 0xf4, "fa");
    input_rel(f->in, 5, 3, 1, 0);
    expect(f, AUX, "28 05 fd");
    input_rel(f->in, -1, -300, 0, INPUT_LEFT);
    expect(f, AUX, "19 ff ff 09 00 2d");
    input_rel(f->in, 0, 0, 0, INPUT_LEFT | INPUT_RIGHT | INPUT_MIDDLE);
    expect(f, AUX, "0f 00 00");
    input_rel(f->in, 0, 0, 0, INPUT_SIDE);
    expect(f, AUX, "08 00 00");
    input_rel(f->in, 0, 0, 0, INPUT_SIDE);
    expect(f, AUX, "");
    mouse(f, 0xe7, "fa");
    input_rel(f->in, 5, -4, 0, INPUT_SIDE);
    expect(f, AUX, "08 09 06");
    input_rel(f->in, -200, 0, 0, INPUT_SIDE);
    expect(f, AUX, "18 02 00 18 6e 00");
    mouse(f, 0xf0, "fa"); /* remote: only when asked, and not scaled */
    input_rel(f->in, 5, 0, 0, INPUT_RIGHT);
    expect(f, AUX, "");
    mouse(f, 0xeb, "fa 0a 05 00");
    mouse(f, 0xeb, "fa 0a 00 00");
    mouse(f, 0xfe, "fa 0a 00 00");
}

static void rate(Fixture *f, uint8_t val)
{
    mouse(f, 0xf3, "fa");
    mouse(f, val, "fa");
}

static void test_mouse_wheel(Fixture *f, gconstpointer unused)
{
    rate(f, 200);
    rate(f, 100);
    rate(f, 80);
    mouse(f, 0xf2, "fa 03");
    mouse(f, 0xf4, "fa");
    input_rel(f->in, 1, 0, -1, 0);
    expect(f, AUX, "08 01 00 ff");
    input_rel(f->in, 0, 0, 20, INPUT_SIDE);
    expect(f, AUX, "08 00 00 07 08 00 00 07 08 00 00 06");
    rate(f, 200);
    rate(f, 200);
    rate(f, 80);
    mouse(f, 0xf2, "fa 04");
    input_rel(f->in, 0, 0, -2, INPUT_SIDE);
    expect(f, AUX, "08 00 00 1e");
    input_rel(f->in, 0, 0, 0, INPUT_EXTRA | INPUT_LEFT);
    expect(f, AUX, "09 00 00 20");
    mouse(f, 0xff, "fa aa 00");
    mouse(f, 0xf2, "fa 00");
}

/* Movements merge when the guest does not read; the last buttons arrive. */
static void test_mouse_full(Fixture *f, gconstpointer unused)
{
    mouse(f, 0xf4, "fa");
    for (unsigned i = 0; i < 100; i++)
        input_rel(f->in, 1, 0, 0, INPUT_LEFT);
    input_rel(f->in, 0, 0, 0, 0);
    int x = 0;
    unsigned packets = 0, buttons = 0;
    while (test_in(f->tb, COMMAND, 1) & FULL) {
        buttons = (unsigned)test_in(f->tb, DATA, 1);
        g_assert_cmphex(buttons & 0xf8, ==, 0x08);
        x += (int)test_in(f->tb, DATA, 1);
        g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0);
        packets++;
    }
    g_assert_cmpint(x, ==, 100);
    g_assert_cmphex(buttons, ==, 0x08);
    g_assert_cmpuint(packets, <, 10);
    input_rel(f->in, INT_MAX, INT_MIN, INT_MAX, 0); /* cut, in bounds */
    g_autofree char *got = drain(f, AUX);
    g_assert_cmpuint(strlen(got), >, 9 * 15);
    mouse(f, 0xf5, "fa");
}

/* A command ends what was being sent; the button that was in there is told again. */
static void test_mouse_interrupted(Fixture *f, gconstpointer unused)
{
    mouse(f, 0xf4, "fa");
    input_rel(f->in, 1, 0, 0, INPUT_LEFT);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0x09);
    test_out(f->tb, COMMAND, 1, 0xd4);
    test_out(f->tb, DATA, 1, 0xf2);
    expect(f, AUX, "01 fa 00 09 00 00");
    ps2_mouse_signal(f->mouse);
    expect(f, AUX, "09 00 00");
    mouse(f, 0xf5, "fa");
    ps2_mouse_signal(f->mouse);
    expect(f, AUX, "");
}

static void test_unplugged(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    static const char *const names[] = {"ps2-kbd", "ps2-mouse"};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(Device) d = device_new(device_class_find(names[i]), NULL, &tb->board);
        GError *error = NULL;
        g_assert_false(device_realize(d, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_clear_error(&error);
    }
}

static void test_gone(Fixture *f, gconstpointer unused)
{
    for (unsigned i = 0; i < 2; i++) {
        Device *d = g_ptr_array_steal_index(f->tb->devices, f->tb->devices->len - 1);
        device_free(d);
    }
    g_assert_null(f->tb->board.ps2_mouse);
    input_key(f->in, KEY_A, true);
    input_rel(f->in, 1, 1, 1, 1);
    kbd(f, 0xf2, "fe");
}

#define PS2_TEST(name) g_test_add("/ps2/" #name, Fixture, NULL, set_up, test_##name, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    PS2_TEST(kbd_commands);
    PS2_TEST(kbd_order);
    PS2_TEST(kbd_translated_order);
    PS2_TEST(scan_codes);
    PS2_TEST(print_screen);
    PS2_TEST(full);
    PS2_TEST(owed);
    PS2_TEST(repeat);
    PS2_TEST(rest);
    PS2_TEST(kbd_state);
    PS2_TEST(hostile_indices);
    PS2_TEST(hostile_state);
    PS2_TEST(mouse_commands);
    PS2_TEST(mouse_packets);
    PS2_TEST(mouse_wheel);
    PS2_TEST(mouse_full);
    PS2_TEST(mouse_interrupted);
    g_test_add_func("/ps2/unplugged", test_unplugged);
    PS2_TEST(gone);
    return g_test_run();
}
