/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VIEW_H
#define LODGE_VIEW_H

/*
 * A screen for browsers: serves the files of noVNC, and carries what they say over a WebSocket to
 * a VNC server. On the default main context; nothing waits but the dialling. The process has to
 * ignore SIGPIPE.
 */

#include <stdbool.h>

#include <glib.h>

typedef struct View View;

#define VIEW_CONNECTIONS_MAX 64u /* at a time; more are told so and hung up on */
#define VIEW_TOKEN_LEN 32        /* hexadecimal digits: 128 bits */

typedef struct ViewConfig {
    const char *folder; /* noVNC's; copied */
    /* A stream socket connected to a VNC server that asks for no password, transfer full; -1: there
     * is none, and whoever wanted one is told no more than that. */
    int (*dial)(void *opaque);
    /* The address was used, and another one is good now: view_address(). */
    void (*renewed)(void *opaque);
    void *opaque;
} ViewConfig;

/**
 * view_new() - Make ready to serve
 * Return: transfer full; NULL with LODGE_ERROR_UNSUPPORTED: there is no noVNC in that folder, or
 *         LODGE_ERROR_HOST.
 */
View *view_new(const ViewConfig *config, GError **error);
void view_free(View *v); /* hangs up on everybody. NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(View, view_free)

/**
 * view_listen() - Let browsers in
 * @address: a number; NULL: 127.0.0.1
 * @port:    0: any that is free
 * Return: false with LODGE_ERROR_CONFIG: no number, LODGE_ERROR_BUSY: somebody listens there,
 *         LODGE_ERROR_HOST.
 */
bool view_listen(View *v, const char *address, unsigned port, GError **error);

/* Where the next viewer finds the screen; good once. Owned by @v; changes when it was used. NULL
 * before view_listen(). */
const char *view_address(const View *v);
/* The token in it. */
const char *view_token(const View *v);

/* Serve a connection that somebody else accepted: a stream socket, taken over. */
void view_add_connection(View *v, int fd);

#endif
