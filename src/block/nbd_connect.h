/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NBD_CONNECT_H
#define LODGE_NBD_CONNECT_H

/* One attempt to reach an export, on a thread of its own: names may take long to resolve. */

#include "lodge/iothread.h"

#include "nbd_lib.h"
#include "nbd_uri.h"

#define NBD_CONNECT_S 10 /* for an attempt as a whole */

typedef struct NbdTry NbdTry;

/* On @io: the attempt is over; nbd_try_take() tells how. It is not called after nbd_try_drop(). */
typedef void (*NbdTriedFn)(void *opaque);

/* @uri: copied; @lib: referred to. @fn and @io may be NULL: nobody is told. Any thread. Transfer
 * full. */
NbdTry *nbd_try_new(NbdLib *lib, const NbdUri *uri, IoThread *io, NbdTriedFn fn,
                    void *opaque);
/* Wait for its end, no longer than an attempt may take, and take what came of it. */
NbdHandle *nbd_try_wait(NbdTry *t, GError **error);
/* It is over: the ready handle, transfer full, or NULL with an error. */
NbdHandle *nbd_try_take(NbdTry *t, GError **error);
/* Have no more to do with it, finished or not. Context: @io's thread, or main where there is none.
 * NULL is fine. */
void nbd_try_drop(NbdTry *t);

#endif
