/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The router of keys and pointers, names of keys, and the keys of characters. */
#include <string.h>

#include <linux/input-event-codes.h>

#include "lodge/input.h"

typedef struct Heard {
    unsigned keys, code;
    bool down;
    int dx, dy, dz;
    unsigned rels, abss, x, y, buttons;
} Heard;

static void hear_key(void *opaque, unsigned code, bool down)
{
    Heard *h = opaque;
    h->keys++;
    h->code = code;
    h->down = down;
}

static void hear_rel(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
    Heard *h = opaque;
    h->rels++;
    h->dx = dx;
    h->dy = dy;
    h->dz = dz;
    h->buttons = buttons;
}

static void hear_abs(void *opaque, unsigned x, unsigned y, int dz, unsigned buttons)
{
    Heard *h = opaque;
    h->abss++;
    h->x = x;
    h->y = y;
    h->dz = dz;
    h->buttons = buttons;
}

static const InputOps keyboard_ops = {.key = hear_key};
static const InputOps mouse_ops = {.rel = hear_rel};
static const InputOps tablet_ops = {.abs = hear_abs};

static void test_routing(void)
{
    g_autoptr(Input) in = input_new();
    Heard old = {0}, kbd = {0}, mouse = {0};
    input_key(in, KEY_A, true); /* nobody there: no harm */
    input_rel(in, 1, 2, 3, 0);
    input_attach(in, &keyboard_ops, &old);
    input_attach(in, &keyboard_ops, &kbd);
    input_attach(in, &mouse_ops, &mouse);
    input_key(in, KEY_B, true);
    g_assert_cmpuint(kbd.code, ==, KEY_B);
    g_assert_true(kbd.down);
    g_assert_cmpuint(old.keys, ==, 0);
    input_rel(in, 1, -2, 3, INPUT_LEFT);
    g_assert_cmpint(mouse.dx, ==, 1);
    g_assert_cmpint(mouse.dy, ==, -2);
    g_assert_cmpint(mouse.dz, ==, 3);
    g_assert_cmpuint(mouse.buttons, ==, INPUT_LEFT);
    input_abs(in, 1, 1, 0, 0); /* nobody has the slot */
    input_detach(in, &keyboard_ops, &kbd);
    input_key(in, KEY_C, true);
    g_assert_cmpuint(old.code, ==, KEY_C);
    g_assert_cmpuint(kbd.keys, ==, 1);
    input_key(in, 0, true);
    input_key(in, 256, true);
    input_key(in, UINT_MAX, true);
    g_assert_cmpuint(old.keys, ==, 1);
}

static void test_releases(void)
{
    g_autoptr(Input) in = input_new();
    Heard h = {0};
    input_attach(in, &keyboard_ops, &h);
    input_attach(in, &mouse_ops, &h);
    input_key(in, KEY_A, false); /* was not down */
    g_assert_cmpuint(h.keys, ==, 0);
    input_key(in, KEY_A, true);
    input_key(in, KEY_A, true); /* repeats */
    g_assert_cmpuint(h.keys, ==, 2);
    input_key(in, KEY_LEFTCTRL, true);
    input_rel(in, 0, 0, 0, INPUT_LEFT | INPUT_EXTRA);
    input_release_all(in);
    g_assert_cmpuint(h.keys, ==, 5);
    g_assert_false(h.down);
    g_assert_cmpuint(h.buttons, ==, 0);
    g_assert_cmpuint(h.rels, ==, 2);
    input_release_all(in);
    g_assert_cmpuint(h.keys, ==, 5);
    g_assert_cmpuint(h.rels, ==, 2);
}

static void count_abs(void *opaque, bool has_abs)
{
    int *log = opaque;
    *log = *log * 10 + (has_abs ? 1 : 2);
}

static void test_abs(void)
{
    g_autoptr(Input) in = input_new();
    Heard h = {0};
    int log = 0;
    input_on_abs(in, count_abs, &log);
    g_assert_false(input_has_abs(in));
    input_attach(in, &tablet_ops, &h);
    g_assert_true(input_has_abs(in));
    input_abs(in, 70000, 5, -1, INPUT_RIGHT);
    g_assert_cmpuint(h.x, ==, INPUT_ABS_MAX);
    g_assert_cmpuint(h.y, ==, 5);
    g_assert_cmpint(h.dz, ==, -1);
    input_release_all(in); /* where it was */
    g_assert_cmpuint(h.x, ==, INPUT_ABS_MAX);
    g_assert_cmpuint(h.y, ==, 5);
    g_assert_cmpuint(h.buttons, ==, 0);
    input_set_abs(in, &tablet_ops, &h, false);
    g_assert_false(input_has_abs(in));
    input_abs(in, 1, 1, 0, 0);
    g_assert_cmpuint(h.abss, ==, 2);
    input_set_abs(in, &tablet_ops, &h, true);
    input_set_abs(in, &tablet_ops, &h, true); /* no change */
    input_detach(in, &tablet_ops, &h);
    input_set_abs(in, &tablet_ops, &h, true); /* no such device */
    g_assert_cmpint(log, ==, 1212);
    input_on_abs(in, NULL, NULL);
    input_attach(in, &tablet_ops, &h);
    g_assert_cmpint(log, ==, 1212);
}

typedef struct Race {
    Input *in;
    int inside, overlaps, after; /* atomic */
    bool detached;               /* atomic */
} Race;

static void race_key(void *opaque, unsigned code, bool down)
{
    Race *r = opaque;
    if (g_atomic_int_add(&r->inside, 1) != 0)
        g_atomic_int_inc(&r->overlaps);
    if (__atomic_load_n(&r->detached, __ATOMIC_ACQUIRE))
        g_atomic_int_inc(&r->after);
    g_thread_yield();
    g_atomic_int_add(&r->inside, -1);
}

static void *race_typist(void *opaque)
{
    Race *r = opaque;
    for (unsigned i = 0; i < 3000; i++)
        input_key(r->in, KEY_A, true);
    return NULL;
}

/* Typists on several threads do not meet within a device, nor after it was pulled out. */
static void test_threads(void)
{
    static const InputOps ops = {.key = race_key};
    g_autoptr(Input) in = input_new();
    Race r = {.in = in};
    GThread *t[3];
    input_attach(in, &ops, &r);
    for (unsigned i = 0; i < G_N_ELEMENTS(t); i++)
        t[i] = g_thread_new("typist", race_typist, &r);
    g_usleep(2000);
    input_detach(in, &ops, &r);
    __atomic_store_n(&r.detached, true, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < G_N_ELEMENTS(t); i++)
        g_thread_join(t[i]);
    g_assert_cmpint(r.overlaps, ==, 0);
    g_assert_cmpint(r.after, ==, 0);
}

typedef struct Pull {
    Input *in;
    int entered, pulling, left; /* atomic */
} Pull;

static void await(int *flag)
{
    while (!g_atomic_int_get(flag))
        g_thread_yield();
}

static void pull_key(void *opaque, unsigned code, bool down)
{
    Pull *p = opaque;
    g_atomic_int_set(&p->entered, 1);
    await(&p->pulling);
    g_usleep(20000); /* enough for a detach that does not wait */
    g_atomic_int_set(&p->left, 1);
}

static void *pull_typist(void *opaque)
{
    Pull *p = opaque;
    input_key(p->in, KEY_A, true);
    return NULL;
}

/* Who pulls a device out waits for the event that is in it. */
static void test_detach_waits(void)
{
    static const InputOps ops = {.key = pull_key};
    g_autoptr(Input) in = input_new();
    Pull p = {.in = in};
    input_attach(in, &ops, &p);
    GThread *t = g_thread_new("typist", pull_typist, &p);
    await(&p.entered);
    g_atomic_int_set(&p.pulling, 1);
    input_detach(in, &ops, &p);
    g_assert_true(g_atomic_int_get(&p.left));
    g_thread_join(t);
}

static void test_names(void)
{
    static const struct {
        const char *name;
        unsigned code;
    } some[] = {
        {"ret", KEY_ENTER}, {"ctrl", KEY_LEFTCTRL}, {"alt_r", KEY_RIGHTALT}, {"delete", KEY_DELETE},
        {"spc", KEY_SPACE}, {"f1", KEY_F1}, {"f12", KEY_F12}, {"kp_5", KEY_KP5},
        {"less", KEY_102ND}, {"pgup", KEY_PAGEUP}, {"print", KEY_SYSRQ}, {"meta_l", KEY_LEFTMETA}, {"0", KEY_0},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(some); i++)
        g_assert_cmpuint(input_key_by_name(some[i].name), ==, some[i].code);
    g_assert_cmpuint(input_key_by_name("enter"), ==, 0);
    g_assert_cmpuint(input_key_by_name(""), ==, 0);
    g_assert_cmpuint(input_key_by_name("A"), ==, 0);
}

/* Each printable character has a key, no two the same with the same shift. */
static void test_characters(void)
{
    bool used[2][256] = {{false}}, shift;
    for (uint32_t c = ' '; c <= '~'; c++) {
        unsigned code = input_key_by_char(c, &shift);
        g_assert_cmpuint(code, !=, 0);
        g_assert_cmpuint(code, <, 256);
        g_assert_false(used[shift][code]);
        used[shift][code] = true;
        g_assert_false(g_ascii_isupper((char)c) && !shift);
        g_assert_false(g_ascii_islower((char)c) && shift);
    }
    g_assert_cmpuint(input_key_by_char('q', &shift), ==, KEY_Q);
    g_assert_cmpuint(input_key_by_char('M', &shift), ==, KEY_M);
    g_assert_true(shift);
    g_assert_cmpuint(input_key_by_char('/', &shift), ==, KEY_SLASH);
    g_assert_cmpuint(input_key_by_char('`', &shift), ==, KEY_GRAVE);
    g_assert_cmpuint(input_key_by_char('|', &shift), ==, KEY_BACKSLASH);
    g_assert_true(shift);
    g_assert_cmpuint(input_key_by_char('\n', &shift), ==, KEY_ENTER);
    g_assert_false(shift);
    g_assert_cmpuint(input_key_by_char('\t', &shift), ==, KEY_TAB);
    g_assert_cmpuint(input_key_by_char(0, &shift), ==, 0);
    g_assert_cmpuint(input_key_by_char(0xe4, &shift), ==, 0);
    g_assert_cmpuint(input_key_by_char(UINT32_MAX, &shift), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/input/routing", test_routing);
    g_test_add_func("/input/releases", test_releases);
    g_test_add_func("/input/abs", test_abs);
    g_test_add_func("/input/threads", test_threads);
    g_test_add_func("/input/detach-waits", test_detach_waits);
    g_test_add_func("/input/names", test_names);
    g_test_add_func("/input/characters", test_characters);
    return g_test_run();
}
