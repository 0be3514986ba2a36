/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_INPUT_H
#define LODGE_INPUT_H

/*
 * Keys and pointers on their way from whoever types (viewers, `lodge type`, control commands) to
 * the guest's keyboard and pointing devices. Keys are Linux's codes (linux/input-event-codes.h,
 * KEY_*): places on the keyboard, not characters. A device with a full queue drops what comes, as
 * a real one does; releases of what is held are never lost (see input_release_all()).
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

typedef struct Input Input;

enum {
    INPUT_LEFT = 1 << 0,
    INPUT_RIGHT = 1 << 1,
    INPUT_MIDDLE = 1 << 2,
    INPUT_SIDE = 1 << 3,
    INPUT_EXTRA = 1 << 4,
};

#define INPUT_ABS_MAX 65535 /* absolute positions: 0 is the left or upper edge of the screen */

/* Slots of a device; any may be NULL. Context: any thread, no lock held. Must not call Input. */
typedef struct InputOps {
    /* @code: KEY_* below 256. @down: pressed or, again, repeated. */
    void (*key)(void *opaque, unsigned code, bool down);
    /* Movement in counts, right and down positive; @dz: wheel, away from the user negative. */
    void (*rel)(void *opaque, int dx, int dy, int dz, unsigned buttons);
    /* @x, @y: 0..INPUT_ABS_MAX. */
    void (*abs)(void *opaque, unsigned x, unsigned y, int dz, unsigned buttons);
} InputOps;

Input *input_new(void);
void input_free(Input *in); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Input, input_free)

/* Plug a device in; events of a kind go to the one that came last and has that slot. @ops is
 * borrowed, static. Context: any thread, no lock held. */
void input_attach(Input *in, const InputOps *ops, void *opaque);
/* No slot of it starts after the return. */
void input_detach(Input *in, const InputOps *ops, void *opaque);
/* Whether somebody takes absolute positions now: else a viewer must send movements. */
bool input_has_abs(Input *in);
/* Say whether an attached device with that slot takes absolute positions from now on; it does when
 * it is attached. Context: any thread, a device's lock may be held. */
void input_set_abs(Input *in, const InputOps *ops, void *opaque, bool on);
/* Told when that changes; one listener; NULL takes it away, and it does not run any more after the
 * return. Context of @fn: any thread, locks held: it posts and returns, and calls no Input. */
void input_on_abs(Input *in, void (*fn)(void *opaque, bool has_abs), void *opaque);

/* Any thread, no lock held; codes of 256 and more are ignored. */
void input_key(Input *in, unsigned code, bool down);
void input_rel(Input *in, int dx, int dy, int dz, unsigned buttons);
void input_abs(Input *in, unsigned x, unsigned y, int dz, unsigned buttons);
/* Let go of every key and button that is down: a viewer has left. */
void input_release_all(Input *in);

/* Name of a key as QMP's QKeyCode has it ("ret", "ctrl", "a", "f1", ...) to KEY_*; 0: unknown. */
unsigned input_key_by_name(const char *name);
/* The keys that type @c (Unicode) on a US layout: @ret_shift with KEY_LEFTSHIFT held; 0: none. */
unsigned input_key_by_char(uint32_t c, bool *ret_shift);

#endif
