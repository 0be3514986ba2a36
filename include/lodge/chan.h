/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CHAN_H
#define LODGE_CHAN_H

/*
 * A two-way byte stream between a guest's serial-like device and the host: stdio, pty, file,
 * unix, tcp, none. Output that the host does not take is kept up to a ceiling, then the oldest is
 * dropped and counted: a guest never waits for a terminal. Input waits until the device wants it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

typedef struct IoThread IoThread;
typedef struct Chan Chan;

typedef struct ChanOps {
    /* Bytes from the host. Context: the channel's IoThread, no lock held. Return how many were
     * taken; after fewer than @len none come until chan_want(). */
    size_t (*input)(void *opaque, const uint8_t *data, size_t len);
    /* Somebody connected or left. Same context. NULL: not interested. */
    void (*connected)(void *opaque, bool up);
} ChanOps;

/**
 * chan_open() - Open a channel from its text
 * @spec: none | stdio | pty | file:PATH | unix:PATH[,server=on|off] |
 *        tcp:[HOST]:PORT[,server=on|off] | fd:N[,fd:M] | tty:PATH | pair; server is on by default,
 *        HOST 127.0.0.1; the other end of a pair is for chan_take_peer()
 * @name: copied; names it in messages
 * @io:   borrowed
 * Context: main thread. Return: transfer full, or NULL: LODGE_ERROR_CONFIG (unknown kind, bad
 *          path), LODGE_ERROR_HOST, LODGE_ERROR_BUSY (stdio used twice).
 */
Chan *chan_open(const char *spec, const char *name, IoThread *io, GError **error);
void chan_close(Chan *c); /* flushes what can be written, restores the terminal; NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Chan, chan_close)
const char *chan_describe(const Chan *c); /* "pty /dev/pts/3", ...; transfer none */
/* The other end of a pair: a stream socket that does not block, transfer full; -1: it is no pair,
 * or taken already. While it is open the guest's end is connected. Main thread. */
int chan_take_peer(Chan *c);

/* The device's side: one at a time. Main thread; NULL ops detaches. Says connected(true) at once
 * where somebody is there. */
void chan_attach(Chan *c, const ChanOps *ops, void *opaque);
/* Queue bytes for the host; never blocks, copies. Any thread, device locks may be held. */
void chan_write(Chan *c, const void *data, size_t len);
/* The device has room for input again. Any thread, device locks may be held. */
void chan_want(Chan *c);

/* A copy of all output goes to @fn as well (console log, panic watch); IoThread, no lock held. A
 * channel "none" is connected once it has one. */
typedef void (*ChanTapFn)(void *opaque, const uint8_t *data, size_t len);
void chan_set_tap(Chan *c, ChanTapFn fn, void *opaque);
/* Bytes typed on a terminal pass @fn first (escape key); it returns what is left in place. */
typedef size_t (*ChanFilterFn)(void *opaque, uint8_t *data, size_t len);
void chan_set_input_filter(Chan *c, ChanFilterFn fn, void *opaque);
/* Feed bytes as if the host's end had sent them (lodge type, tests). Any thread. */
void chan_inject(Chan *c, const void *data, size_t len);
bool chan_is_terminal(const Chan *c);
/* Output bytes that were lost because the host took none. Any thread. */
uint64_t chan_dropped(const Chan *c);

#endif
