/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The router between those who type and the guest's keyboard and pointing devices.
 *
 * It remembers which keys and buttons are down, so that whoever leaves can let go of them. A key
 * that is not down cannot be released; a press of one that is down passes as a repetition.
 *
 * Threads: any. Events are delivered one at a time, in the order in which their senders got their
 * turn, with the lock dropped: a slot takes its device's lock. The lock is innermost, so that a
 * device may say input_set_abs() under its own.
 *
 * Invariants:
 * (1) a slot runs only in somebody's turn, so a detach that had its turn has outlived all calls.
 * (2) what `down` and `buttons` hold is what the devices were told last.
 */

#include "lodge/input.h"

#include "lodge/lock.h"

#define INPUT_KEYS 256

typedef struct InputDevice {
    const InputOps *ops; /* borrowed */
    void *opaque;
    bool abs; /* takes absolute positions now */
} InputDevice;

struct Input {
    LodgeLock lock; /* LOCK_RANK_QUEUE */
    pthread_cond_t turn_over;
    /* Guarded by lock: */
    bool busy; /* somebody has the turn */
    GArray *devices; /* InputDevice; owned; changed only by who has the turn */
    void (*abs_fn)(void *opaque, bool has_abs);
    void *abs_opaque;
    /* Of who has the turn: */
    bool down[INPUT_KEYS];
    unsigned buttons;
    bool was_abs; /* the buttons went with an absolute position, the one below */
    unsigned x, y;
};

Input *input_new(void)
{
    Input *in = g_new0(Input, 1);

    lodge_lock_init(&in->lock, LOCK_RANK_QUEUE, "input");
    pthread_cond_init(&in->turn_over, NULL);
    in->devices = g_array_new(FALSE, FALSE, sizeof(InputDevice));
    return in;
}

void input_free(Input *in)
{
    if (!in)
        return;
    g_array_free(in->devices, TRUE);
    pthread_cond_destroy(&in->turn_over);
    lodge_lock_clear(&in->lock);
    g_free(in);
}

static void take_turn(Input *in)
{
    lodge_lock(&in->lock);
    while (in->busy)
        lodge_cond_wait(&in->turn_over, &in->lock);
    in->busy = true;
    lodge_unlock(&in->lock);
}

static void end_turn(Input *in)
{
    lodge_lock(&in->lock);
    in->busy = false;
    pthread_cond_signal(&in->turn_over);
    lodge_unlock(&in->lock);
}

static bool has_abs_locked(Input *in)
{
    lock_assert_held(&in->lock);
    for (unsigned i = 0; i < in->devices->len; i++) {
        if (g_array_index(in->devices, InputDevice, i).abs)
            return true;
    }
    return false;
}

static void tell_abs_locked(Input *in, bool before)
{
    bool now = has_abs_locked(in);

    if (now != before && in->abs_fn)
        in->abs_fn(in->abs_opaque, now);
}

void input_attach(Input *in, const InputOps *ops, void *opaque)
{
    InputDevice dev = {.ops = ops, .opaque = opaque, .abs = ops->abs};

    take_turn(in);
    lodge_lock(&in->lock);
    bool before = has_abs_locked(in);
    g_array_append_val(in->devices, dev);
    tell_abs_locked(in, before);
    lodge_unlock(&in->lock);
    end_turn(in);
}

static InputDevice *find_locked(Input *in, const InputOps *ops, void *opaque, unsigned *ret_index)
{
    lock_assert_held(&in->lock);
    for (unsigned i = 0; i < in->devices->len; i++) {
        InputDevice *dev = &g_array_index(in->devices, InputDevice, i);
        if (dev->ops == ops && dev->opaque == opaque) {
            *ret_index = i;
            return dev;
        }
    }
    return NULL;
}

void input_detach(Input *in, const InputOps *ops, void *opaque)
{
    unsigned i;

    take_turn(in); /* keeps (1) */
    lodge_lock(&in->lock);
    bool before = has_abs_locked(in);
    if (find_locked(in, ops, opaque, &i))
        g_array_remove_index(in->devices, i);
    tell_abs_locked(in, before);
    lodge_unlock(&in->lock);
    end_turn(in);
}

void input_set_abs(Input *in, const InputOps *ops, void *opaque, bool on)
{
    unsigned i;

    lodge_lock(&in->lock);
    bool before = has_abs_locked(in);
    InputDevice *dev = find_locked(in, ops, opaque, &i);
    if (dev)
        dev->abs = on && ops->abs;
    tell_abs_locked(in, before);
    lodge_unlock(&in->lock);
}

bool input_has_abs(Input *in)
{
    lodge_lock(&in->lock);
    bool has = has_abs_locked(in);
    lodge_unlock(&in->lock);
    return has;
}

void input_on_abs(Input *in, void (*fn)(void *opaque, bool has_abs), void *opaque)
{
    lodge_lock(&in->lock);
    in->abs_fn = fn;
    in->abs_opaque = opaque;
    lodge_unlock(&in->lock);
}

/* The last device with the slot at @offset of its InputOps. Context: the caller has the turn. */
static bool pick(Input *in, size_t offset, InputDevice *ret_dev)
{
    bool found = false;

    lodge_lock(&in->lock);
    for (unsigned i = in->devices->len; i-- > 0 && !found;) {
        InputDevice *dev = &g_array_index(in->devices, InputDevice, i);
        void *slot = *(void *const *)((const char *)dev->ops + offset);
        if (!slot || (offset == offsetof(InputOps, abs) && !dev->abs))
            continue;
        *ret_dev = *dev;
        found = true;
    }
    lodge_unlock(&in->lock);
    return found;
}

static void send_key(Input *in, unsigned code, bool down)
{
    InputDevice dev;

    if (!down && !in->down[code])
        return;
    in->down[code] = down;
    if (pick(in, offsetof(InputOps, key), &dev))
        dev.ops->key(dev.opaque, code, down);
}

static void send_rel(Input *in, int dx, int dy, int dz, unsigned buttons)
{
    InputDevice dev;

    in->buttons = buttons;
    in->was_abs = false;
    if (pick(in, offsetof(InputOps, rel), &dev))
        dev.ops->rel(dev.opaque, dx, dy, dz, buttons);
}

static void send_abs(Input *in, unsigned x, unsigned y, int dz, unsigned buttons)
{
    InputDevice dev;

    in->buttons = buttons;
    in->was_abs = true;
    in->x = MIN(x, INPUT_ABS_MAX);
    in->y = MIN(y, INPUT_ABS_MAX);
    if (pick(in, offsetof(InputOps, abs), &dev))
        dev.ops->abs(dev.opaque, in->x, in->y, dz, buttons);
}

void input_key(Input *in, unsigned code, bool down)
{
    if (!code || code >= INPUT_KEYS)
        return;
    take_turn(in);
    send_key(in, code, down);
    end_turn(in);
}

void input_rel(Input *in, int dx, int dy, int dz, unsigned buttons)
{
    take_turn(in);
    send_rel(in, dx, dy, dz, buttons);
    end_turn(in);
}

void input_abs(Input *in, unsigned x, unsigned y, int dz, unsigned buttons)
{
    take_turn(in);
    send_abs(in, x, y, dz, buttons);
    end_turn(in);
}

void input_release_all(Input *in)
{
    take_turn(in);
    for (unsigned code = 0; code < INPUT_KEYS; code++)
        send_key(in, code, false);
    if (in->buttons) {
        if (in->was_abs)
            send_abs(in, in->x, in->y, 0, 0);
        else
            send_rel(in, 0, 0, 0, 0);
    }
    end_turn(in);
}
