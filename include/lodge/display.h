/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_DISPLAY_H
#define LODGE_DISPLAY_H

/*
 * A machine's screen: an adapter draws it, viewers look at it. The picture is a surface of 32-bit
 * pixels (0x00RRGGBB in host order) that the Display owns. Nobody looking costs nothing: the
 * adapter is asked for news only while a viewer is there, by a timer on the machine's IoThread:
 * at DISPLAY_HZ, a few times a second once the guest leaves the screen alone, or when somebody
 * wants a picture now.
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

typedef struct Display Display;
typedef struct TimerQueue TimerQueue;
typedef struct IoThread IoThread;

#define DISPLAY_HZ 30
#define DISPLAY_WIDTH_MAX 4096
#define DISPLAY_HEIGHT_MAX 4096

typedef struct DisplayRect { unsigned x, y, width, height; } DisplayRect; /* pixels */
/* Grow @a to take in @b; neither is empty. Any thread. */
void display_rect_join(DisplayRect *a, const DisplayRect *b);

/* The picture; valid while the lock of display_lock() is held. */
typedef struct DisplaySurface {
    unsigned width, height; /* pixels; 0: no picture yet */
    unsigned stride;        /* pixels from one row to the next */
    uint32_t *pixels;
} DisplaySurface;

/* What a refresh found. */
typedef struct DisplayNews {
    bool stirred;    /* the guest did something; a cursor that blinks is none of it */
    int64_t next_ns; /* guest time when the picture changes by itself; INT64_MAX: it does not */
} DisplayNews;

/* The adapter's side. */
typedef struct DisplaySource {
    /* Draw what changed since the last call (@all: everything) by display_begin(), writing pixels,
     * display_damage(), display_end(). Context: one thread at a time, no lock held; the adapter
     * takes its own lock before display_begin(). */
    DisplayNews (*refresh)(void *opaque, Display *d, bool all);
    /* The text screen as UTF-8 lines ended by \n, trailing blanks cut; NULL: not in a text mode.
     * Transfer full. Same context. */
    char *(*text)(void *opaque);
} DisplaySource;

/* A viewer's side. Context of its slots: the thread that refreshes, no lock held; they post and
 * return. */
typedef struct DisplayViewer {
    void (*changed)(void *opaque, const DisplayRect *r);            /* look again at @r */
    void (*resized)(void *opaque, unsigned width, unsigned height); /* everything is new */
} DisplayViewer;

Display *display_new(TimerQueue *timers); /* borrowed; NULL: only display_update() refreshes */
void display_free(Display *d); /* no viewer, no source any more; NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Display, display_free)

/* Realize and unrealize of the adapter; @s borrowed, static; NULL takes it away and waits for a
 * refresh under way. Main thread, no lock held. */
void display_set_source(Display *d, const DisplaySource *s, void *opaque);

/* From refresh: lock the surface, of that size from now on (cleared if it changed; a size over the
 * maximum is cut). */
DisplaySurface display_begin(Display *d, unsigned width, unsigned height);
void display_damage(Display *d, DisplayRect r); /* between begin and end; cut to the surface */
void display_end(Display *d);                   /* unlocks; viewers hear of it after refresh */

/* Start and stop looking. Any thread but the refreshing one; no lock held. */
void display_add_viewer(Display *d, const DisplayViewer *v, void *opaque);
void display_remove_viewer(Display *d, const DisplayViewer *v, void *opaque);
/* Refresh now, on this thread; waits for one under way. */
void display_update(Display *d);
/* A viewer's hand is on the keys: what the guest does in answer is to be seen soon. Any thread but
 * the refreshing one, no lock held; cheap. */
void display_stir(Display *d);
/* Hold the surface still, to copy from it. Rank: above devices (LOCK_RANK_QUEUE's); short. */
DisplaySurface display_lock(Display *d);
void display_unlock(Display *d);
/* After a refresh of its own: the text, or NULL in a graphics mode or without an adapter. Transfer
 * full. */
char *display_text(Display *d);

#endif
