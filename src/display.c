/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The screen between an adapter that draws it and viewers that look at it: see lodge/display.h.
 *
 * The refresh timer runs only while a viewer is there: at DISPLAY_HZ, or each IDLE_NS once neither
 * the guest nor a viewer did anything for IDLE_AFTER_NS, since asking what the guest wrote costs
 * KVM a walk and the vCPUs a wake-up. What changes by itself, like a cursor, is drawn when it is
 * due, and then it is the time to look around as well. The timer counts guest time, so it stands
 * still with a paused machine, whose picture cannot change; for that case a viewer that comes is
 * shown the picture at once, on the thread that adds it.
 *
 * Threads: any. The adapter and the viewers are called with no lock held, by one thread at a
 * time: whoever set `busy`.
 *
 * Invariants:
 * (1) source, viewers and damage change only while `busy` is the changer's or nobody's, so its
 *     owner may walk them unlocked.
 * (2) width * height pixels are allocated, or both are 0.
 */
#include "lodge/display.h"

#include "lodge/clock.h"
#include "lodge/lock.h"
#include "lodge/num.h"

#define DAMAGE_MAX 64 /* rectangles of one refresh; more are joined into one */
#define IDLE_NS (NS_PER_SEC / 5)
#define IDLE_AFTER_NS (2 * NS_PER_SEC)

typedef struct Viewer {
    const DisplayViewer *ops; /* borrowed */
    void *opaque;
    bool fresh; /* has seen no picture yet */
} Viewer;

struct Display {
    /* Constant: */
    TimerQueue *timers; /* borrowed; NULL: none */
    LodgeTimer *timer;  /* owned; NULL likewise */
    /* Guarded by lock; (1): */
    LodgeLock lock; /* LOCK_RANK_QUEUE; held from display_begin() to display_end() */
    pthread_cond_t idle; /* busy went false */
    bool busy;
    bool redraw; /* the source is new */
    bool resized;
    const DisplaySource *source; /* borrowed */
    void *source_opaque;
    GArray *viewers; /* Viewer */
    DisplayRect damage[DAMAGE_MAX];
    unsigned damages;
    DisplaySurface surface; /* pixels owned */
    int64_t stirred_ns; /* guest time when guest or viewer last did something */
};

static void display_timer(void *opaque)
{
    display_update(opaque);
}

/**
 * display_new() - Make a screen without a picture
 * @timers: borrowed, outlives the screen; NULL: only display_update() refreshes
 * Context: main thread. Return: transfer full.
 */
Display *display_new(TimerQueue *timers)
{
    Display *d = g_new0(Display, 1);

    lodge_lock_init(&d->lock, LOCK_RANK_QUEUE, "display");
    pthread_cond_init(&d->idle, NULL);
    d->viewers = g_array_new(FALSE, FALSE, sizeof(Viewer));
    d->timers = timers;
    if (timers)
        d->timer = timer_new(timers, display_timer, d);
    return d;
}

/**
 * display_free() - Free a screen that no viewer and no source uses any more
 * @d: NULL is fine
 * Context: main thread; waits for a refresh by the timer.
 */
void display_free(Display *d)
{
    if (!d)
        return;
    timer_free(d->timer);
    g_assert(!d->viewers->len && !d->source && !d->busy);
    g_array_free(d->viewers, TRUE);
    g_free(d->surface.pixels);
    pthread_cond_destroy(&d->idle);
    lodge_lock_clear(&d->lock);
    g_free(d);
}

static void acquire(Display *d)
{
    lodge_lock(&d->lock);
    while (d->busy)
        lodge_cond_wait(&d->idle, &d->lock);
    d->busy = true;
    lodge_unlock(&d->lock);
}

static void release(Display *d)
{
    lodge_lock(&d->lock);
    d->busy = false;
    pthread_cond_broadcast(&d->idle);
    lodge_unlock(&d->lock);
}

static void tell_viewers(Display *d)
{
    unsigned width = d->surface.width, height = d->surface.height;

    for (unsigned i = 0; i < d->viewers->len; i++) {
        Viewer *v = &g_array_index(d->viewers, Viewer, i);
        if (!width)
            continue; /* nothing to show: stays fresh */
        if (d->resized || v->fresh) {
            v->fresh = false;
            v->ops->resized(v->opaque, width, height);
            continue;
        }
        for (unsigned r = 0; r < d->damages; r++)
            v->ops->changed(v->opaque, &d->damage[r]);
    }
}

/* When to look again, after a refresh at @now that found @news. */
static int64_t next_look(const Display *d, int64_t now, DisplayNews news)
{
    if (now - d->stirred_ns < IDLE_AFTER_NS)
        return now + NS_PER_SEC / DISPLAY_HZ;
    if (news.next_ns > now && news.next_ns < now + 2 * IDLE_NS)
        return news.next_ns;
    return now + IDLE_NS;
}

/* Context: `busy` is ours, no lock held. */
static void refresh(Display *d)
{
    DisplayNews news = {.next_ns = INT64_MAX};
    bool redraw = d->redraw;

    d->redraw = false;
    d->resized = false;
    d->damages = 0;
    if (d->source)
        news = d->source->refresh(d->source_opaque, d, redraw);
    tell_viewers(d);
    if (!d->timer)
        return;
    int64_t now = clock_now_ns(timer_queue_clock(d->timers));
    if (d->resized || news.stirred)
        d->stirred_ns = now;
    if (d->viewers->len)
        timer_arm(d->timer, next_look(d, now, news));
}

void display_update(Display *d)
{
    acquire(d);
    refresh(d);
    release(d);
}

void display_stir(Display *d)
{
    if (!d->timer)
        return;
    acquire(d);
    int64_t now = clock_now_ns(timer_queue_clock(d->timers));
    bool slow = now - d->stirred_ns >= IDLE_AFTER_NS;
    d->stirred_ns = now;
    if (slow && d->viewers->len)
        timer_arm(d->timer, now + NS_PER_SEC / DISPLAY_HZ);
    release(d);
}

void display_set_source(Display *d, const DisplaySource *s, void *opaque)
{
    acquire(d);
    d->source = s;
    d->source_opaque = opaque;
    d->redraw = s != NULL;
    release(d);
}

/**
 * display_add_viewer() - Start looking
 * @v: borrowed, until display_remove_viewer() of the same pair
 * Context: any thread but the refreshing one; no lock held. If there is a picture, @v's resized()
 *          runs before this returns.
 */
void display_add_viewer(Display *d, const DisplayViewer *v, void *opaque)
{
    Viewer viewer = {.ops = v, .opaque = opaque, .fresh = true};

    acquire(d);
    g_array_append_val(d->viewers, viewer);
    if (d->timers)
        d->stirred_ns = clock_now_ns(timer_queue_clock(d->timers));
    refresh(d);
    release(d);
}

/* @v is not called again once this returned. */
void display_remove_viewer(Display *d, const DisplayViewer *v, void *opaque)
{
    acquire(d);
    for (unsigned i = 0; i < d->viewers->len; i++) {
        Viewer *have = &g_array_index(d->viewers, Viewer, i);
        if (have->ops == v && have->opaque == opaque) {
            g_array_remove_index(d->viewers, i);
            break;
        }
    }
    if (!d->viewers->len && d->timer)
        timer_cancel(d->timer);
    release(d);
}

char *display_text(Display *d)
{
    char *text = NULL;

    acquire(d);
    refresh(d);
    if (d->source && d->source->text)
        text = d->source->text(d->source_opaque);
    release(d);
    return text;
}

DisplaySurface display_lock(Display *d)
{
    lodge_lock(&d->lock);
    return d->surface;
}

void display_unlock(Display *d)
{
    lodge_unlock(&d->lock);
}

/**
 * display_begin() - Lock the surface to draw on it
 * @width, @height: pixels; cut to the maximum. A surface of another size is made new, black.
 * Context: inside the source's refresh, device locks may be held.
 * Return: the surface as it is: 0 by 0 if the host has no memory for it.
 */
DisplaySurface display_begin(Display *d, unsigned width, unsigned height)
{
    width = MIN(width, DISPLAY_WIDTH_MAX);
    height = MIN(height, DISPLAY_HEIGHT_MAX);
    lodge_lock(&d->lock);
    if (width != d->surface.width || height != d->surface.height) {
        g_free(d->surface.pixels);
        d->surface = (DisplaySurface){.width = width, .height = height, .stride = width};
        d->surface.pixels = g_try_new0(uint32_t, (size_t)width * height);
        if (!d->surface.pixels)
            d->surface = (DisplaySurface){0}; /* keeps (2) */
        d->resized = true;
    }
    return d->surface;
}

void display_rect_join(DisplayRect *a, const DisplayRect *b)
{
    unsigned right = MAX(a->x + a->width, b->x + b->width);
    unsigned bottom = MAX(a->y + a->height, b->y + b->height);

    a->x = MIN(a->x, b->x);
    a->y = MIN(a->y, b->y);
    a->width = right - a->x;
    a->height = bottom - a->y;
}

void display_damage(Display *d, DisplayRect r)
{
    lock_assert_held(&d->lock);
    if (r.x >= d->surface.width || r.y >= d->surface.height)
        return;
    r.width = MIN(r.width, d->surface.width - r.x);
    r.height = MIN(r.height, d->surface.height - r.y);
    if (!r.width || !r.height)
        return;
    DisplayRect *last = d->damages ? &d->damage[d->damages - 1] : NULL;
    if (last && last->x == r.x && last->width == r.width && last->y + last->height == r.y) {
        last->height += r.height; /* rows that come from the top down */
        return;
    }
    if (d->damages < DAMAGE_MAX) {
        d->damage[d->damages++] = r;
        return;
    }
    for (unsigned i = 1; i < DAMAGE_MAX; i++)
        display_rect_join(&d->damage[0], &d->damage[i]);
    display_rect_join(&d->damage[0], &r);
    d->damages = 1;
}

void display_end(Display *d)
{
    lodge_unlock(&d->lock);
}
