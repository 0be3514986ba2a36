/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The screen between a scripted adapter and viewers that count what they hear. */
#include <string.h>

#include "lodge/clock.h"
#include "lodge/display.h"
#include "lodge/num.h"

#define BLINKS_HZ 4

typedef struct Adapter {
    unsigned refreshes, redraws;
    LodgeClock *blinks; /* what is damaged changes by itself, BLINKS_HZ times a second; NULL: not */
    unsigned width, height; /* 0: draws nothing */
    DisplayRect damage[100];
    unsigned damages;
    DisplaySurface got;
} Adapter;

typedef struct Eye {
    unsigned changes, resizes;
    DisplayRect last;
    unsigned width, height;
    bool seen[100 * 100]; /* dots that changed */
} Eye;

static DisplayNews adapter_refresh(void *opaque, Display *d, bool all)
{
    Adapter *a = opaque;

    a->refreshes++;
    a->redraws += all;
    if (!a->width)
        return (DisplayNews){.next_ns = INT64_MAX};
    a->got = display_begin(d, a->width, a->height);
    for (unsigned i = 0; i < a->damages; i++)
        display_damage(d, a->damage[i]);
    display_end(d);
    if (!a->blinks)
        return (DisplayNews){.stirred = a->damages, .next_ns = INT64_MAX};
    int64_t period = NS_PER_SEC / BLINKS_HZ;
    return (DisplayNews){.next_ns = (clock_now_ns(a->blinks) / period + 1) * period};
}

static char *adapter_text(void *opaque)
{
    Adapter *a = opaque;

    return g_strdup_printf("refreshed %u\n", a->refreshes);
}

static void eye_changed(void *opaque, const DisplayRect *r)
{
    Eye *e = opaque;

    e->changes++;
    e->last = *r;
    for (unsigned y = r->y; y < r->y + r->height; y++) {
        for (unsigned x = r->x; x < r->x + r->width; x++)
            e->seen[y * 100 + x] = true;
    }
}

static void eye_resized(void *opaque, unsigned width, unsigned height)
{
    Eye *e = opaque;

    e->resizes++;
    e->width = width;
    e->height = height;
}

static const DisplaySource source = {.refresh = adapter_refresh, .text = adapter_text};
static const DisplayViewer eye_ops = {.changed = eye_changed, .resized = eye_resized};

static void test_on_demand(void)
{
    g_autoptr(Display) d = display_new(NULL);
    Adapter a = {.width = 16, .height = 8};
    Eye eye = {0};

    display_update(d); /* without an adapter */
    g_assert_null(display_text(d));
    display_set_source(d, &source, &a);
    display_update(d);
    g_assert_cmpuint(a.refreshes, ==, 1);
    g_assert_cmpuint(a.redraws, ==, 1);
    g_autofree char *text = display_text(d);
    g_assert_cmpstr(text, ==, "refreshed 2\n");
    g_assert_cmpuint(a.redraws, ==, 1);
    display_add_viewer(d, &eye_ops, &eye); /* a picture is there already */
    g_assert_cmpuint(eye.resizes, ==, 1);
    g_assert_cmpuint(eye.width, ==, 16);
    g_assert_cmpuint(eye.height, ==, 8);
    display_remove_viewer(d, &eye_ops, &eye);
    display_set_source(d, NULL, NULL);
    display_update(d);
    g_assert_cmpuint(a.refreshes, ==, 3);
}

static void test_surface(void)
{
    g_autoptr(Display) d = display_new(NULL);
    Adapter a = {.width = 4, .height = 4};

    display_set_source(d, &source, &a);
    display_update(d);
    a.got.pixels[5] = 0x123456;
    display_update(d); /* same size: kept */
    DisplaySurface s = display_lock(d);
    g_assert_cmphex(s.pixels[5], ==, 0x123456);
    g_assert_cmpuint(s.stride, >=, s.width);
    display_unlock(d);
    a.width = 8;
    display_update(d); /* another: cleared */
    s = display_lock(d);
    g_assert_cmpuint(s.width, ==, 8);
    g_assert_cmphex(s.pixels[5], ==, 0);
    display_unlock(d);
    a.width = 0xffffffff;
    a.height = DISPLAY_HEIGHT_MAX + 1;
    display_update(d);
    s = display_lock(d);
    g_assert_cmpuint(s.width, ==, DISPLAY_WIDTH_MAX);
    g_assert_cmpuint(s.height, ==, DISPLAY_HEIGHT_MAX);
    s.pixels[(size_t)s.stride * (s.height - 1) + s.width - 1] = 1;
    display_unlock(d);
    display_set_source(d, NULL, NULL);
}

static void check_last(const Eye *e, unsigned x, unsigned y, unsigned width, unsigned height)
{
    g_assert_cmpuint(e->last.x, ==, x);
    g_assert_cmpuint(e->last.y, ==, y);
    g_assert_cmpuint(e->last.width, ==, width);
    g_assert_cmpuint(e->last.height, ==, height);
}

static void test_damage(void)
{
    g_autoptr(Display) d = display_new(NULL);
    Adapter a = {.width = 100, .height = 100};
    Eye eye = {0}, late = {0};

    display_set_source(d, &source, &a);
    display_add_viewer(d, &eye_ops, &eye);
    g_assert_cmpuint(eye.resizes, ==, 1);
    g_assert_cmpuint(eye.changes, ==, 0);
    a.damages = 1;
    a.damage[0] = (DisplayRect){90, 95, 0xffffffff, 50};
    display_update(d);
    g_assert_cmpuint(eye.changes, ==, 1);
    check_last(&eye, 90, 95, 10, 5);
    a.damage[0] = (DisplayRect){100, 0, 1, 1};
    display_update(d);
    a.damage[0] = (DisplayRect){0, 0, 0, 1};
    display_update(d);
    g_assert_cmpuint(eye.changes, ==, 1);
    a.damages = 3; /* rows under each other are one rectangle */
    a.damage[0] = (DisplayRect){1, 10, 5, 2};
    a.damage[1] = (DisplayRect){1, 12, 5, 1};
    a.damage[2] = (DisplayRect){2, 13, 5, 1};
    display_add_viewer(d, &eye_ops, &late); /* new: the whole picture, no parts */
    g_assert_cmpuint(late.resizes, ==, 1);
    g_assert_cmpuint(late.changes, ==, 0);
    g_assert_cmpuint(eye.changes, ==, 3);
    check_last(&eye, 2, 13, 5, 1);
    a.damages = 100; /* more than are kept apart: nothing is lost */
    for (unsigned i = 0; i < 100; i++)
        a.damage[i] = (DisplayRect){i, i, 1, 1};
    eye.changes = 0;
    memset(eye.seen, 0, sizeof eye.seen);
    display_update(d);
    g_assert_cmpuint(eye.changes, <=, 64);
    for (unsigned i = 0; i < 100; i++)
        g_assert_true(eye.seen[101 * i]);
    g_assert_cmpuint(late.changes, ==, eye.changes);
    check_last(&eye, 99, 99, 1, 1);
    a.width = 50;
    eye.changes = 0;
    display_update(d);
    g_assert_cmpuint(eye.resizes, ==, 2);
    g_assert_cmpuint(eye.changes, ==, 0);
    display_remove_viewer(d, &eye_ops, &eye);
    display_update(d);
    g_assert_cmpuint(eye.changes, ==, 0);
    g_assert_cmpuint(late.changes, >, 0);
    display_remove_viewer(d, &eye_ops, &late);
    display_set_source(d, NULL, NULL);
}

/* Refreshes in @ns of guest time. */
static unsigned refreshes_in(Adapter *a, TimerQueue *q, int64_t ns)
{
    unsigned before = a->refreshes;

    timer_queue_advance(q, ns);
    return a->refreshes - before;
}

static void test_rate(void)
{
    LodgeClock *clock = lodge_clock_new_manual(0);
    TimerQueue *q = timer_queue_new(clock, NULL, NULL);
    Display *d = display_new(q);
    Adapter a = {.width = 10, .height = 10};
    Eye eye = {0}, other = {0};

    display_set_source(d, &source, &a);
    g_assert_cmpuint(refreshes_in(&a, q, NS_PER_SEC), ==, 0); /* nobody looks */
    display_add_viewer(d, &eye_ops, &eye);
    display_add_viewer(d, &eye_ops, &other);
    g_assert_cmpint(refreshes_in(&a, q, NS_PER_SEC), >=, DISPLAY_HZ - 1);
    timer_queue_advance(q, 2 * NS_PER_SEC);
    unsigned slow = refreshes_in(&a, q, 2 * NS_PER_SEC);
    g_assert_cmpuint(slow, >=, 9);
    g_assert_cmpuint(slow, <=, 11);
    a.damages = 1;
    a.damage[0] = (DisplayRect){0, 0, 1, 1};
    timer_queue_advance(q, NS_PER_SEC / 5);
    g_assert_cmpuint(refreshes_in(&a, q, NS_PER_SEC), >=, DISPLAY_HZ - 1);
    display_remove_viewer(d, &eye_ops, &eye);
    g_assert_cmpuint(refreshes_in(&a, q, NS_PER_SEC), >=, DISPLAY_HZ - 1);

    a.blinks = clock; /* drawn when it is due, which is often enough to look for more */
    timer_queue_advance(q, 3 * NS_PER_SEC);
    g_assert_cmpuint(refreshes_in(&a, q, 3 * NS_PER_SEC), ==, 3 * BLINKS_HZ);
    display_stir(d); /* somebody types: the answer is not to wait for the cursor */
    g_assert_cmpint(refreshes_in(&a, q, NS_PER_SEC), >=, DISPLAY_HZ - 1);
    display_remove_viewer(d, &eye_ops, &other);
    g_assert_cmpuint(refreshes_in(&a, q, NS_PER_SEC), ==, 0);
    display_set_source(d, NULL, NULL);
    display_free(d);
    timer_queue_free(q);
    lodge_clock_free(clock);
}

/* Many threads refresh, look and leave at once; each call of the adapter is alone. */
typedef struct Crowd {
    Display *d;
    int inside; /* atomic */
} Crowd;

static DisplayNews crowd_refresh(void *opaque, Display *d, bool all)
{
    Crowd *c = opaque;

    g_assert_cmpint(__atomic_add_fetch(&c->inside, 1, __ATOMIC_SEQ_CST), ==, 1);
    display_begin(d, 8, 8);
    display_damage(d, (DisplayRect){0, 0, 8, 8});
    display_end(d);
    __atomic_sub_fetch(&c->inside, 1, __ATOMIC_SEQ_CST);
    return (DisplayNews){.stirred = true, .next_ns = INT64_MAX};
}

static gpointer crowd_member(gpointer opaque)
{
    Crowd *c = opaque;
    Eye eye = {0};

    for (unsigned i = 0; i < 300; i++) {
        display_add_viewer(c->d, &eye_ops, &eye);
        display_update(c->d);
        g_assert_cmpuint(eye.resizes, >, i);
        g_assert_cmpuint(eye.changes, >, i);
        display_remove_viewer(c->d, &eye_ops, &eye);
        eye.changes = eye.resizes = i + 1; /* written unlocked: nobody may call any more */
    }
    return NULL;
}

static void test_threads(void)
{
    static const DisplaySource crowd = {.refresh = crowd_refresh};
    Crowd c = {.d = display_new(NULL)};
    GThread *t[3];

    display_set_source(c.d, &crowd, &c);
    for (unsigned i = 0; i < G_N_ELEMENTS(t); i++)
        t[i] = g_thread_new("eye", crowd_member, &c);
    for (unsigned i = 0; i < G_N_ELEMENTS(t); i++)
        g_thread_join(t[i]);
    display_set_source(c.d, NULL, NULL);
    display_free(c.d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/display/on-demand", test_on_demand);
    g_test_add_func("/display/surface", test_surface);
    g_test_add_func("/display/damage", test_damage);
    g_test_add_func("/display/rate", test_rate);
    g_test_add_func("/display/threads", test_threads);
    return g_test_run();
}
