/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NBD_LISTEN_H
#define LODGE_NBD_LISTEN_H

/* Where an NBD server listens. */

#include <stdbool.h>

#include <glib.h>

typedef struct NbdListen {
    int fd;       /* owned; non-blocking, listening */
    char *socket; /* owned; the path to remove at the end, or NULL */
    char *uri;    /* owned; for people; NULL: who passed the socket knows */
} NbdListen;

/* All: main thread; false with LODGE_ERROR_CONFIG, _BUSY or _HOST. @export: the name in the URI. */
/* @address: "ADDR" or "ADDR:PORT" or "[ADDR]:PORT", numbers. */
bool nbd_listen_tcp(const char *address, const char *export, NbdListen *ret, GError **error);
/* Only its owner can open it. One of ours that nobody serves any more is replaced. */
bool nbd_listen_unix(const char *path, const char *export, NbdListen *ret, GError **error);
/**
 * nbd_listen_passed() - The listening socket that whoever started us passed
 * The variables that say so are taken away, so that no child sees them.
 * Return: false without an error: there is none.
 * Spec: sd_listen_fds(3).
 */
bool nbd_listen_passed(NbdListen *ret, GError **error);
/* Close, and remove the path. */
void nbd_listen_clear(NbdListen *l);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(NbdListen, nbd_listen_clear)

#endif
