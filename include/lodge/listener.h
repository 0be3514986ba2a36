/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_LISTENER_H
#define LODGE_LISTENER_H

#include <stdbool.h>

#include <glib.h>

typedef struct Listener Listener;

/* A client came: @fd is its socket, non-blocking, transfer full. Main thread, no lock held. */
typedef void (*ListenerFn)(int fd, void *opaque);

/**
 * listener_new() - Accept whoever connects
 * @fd: a listening socket, taken over
 * A process that is out of descriptors or memory leaves clients in the queue for a while.
 * Context: main thread. Return: transfer full.
 */
Listener *listener_new(int fd, ListenerFn fn, void *opaque);
/* Close the socket. NULL is fine; not from inside @fn. Main thread. */
void listener_free(Listener *l);

struct sockaddr_un;
/* Whether the socket at @un is this user's and has nobody at its other end, so that it may go. */
bool listener_is_stale(const struct sockaddr_un *un);

#endif
