/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VNC_H
#define LODGE_VNC_H

#include <stdbool.h>

#include <glib.h>

#include "lodge/display.h"
#include "lodge/input.h"

typedef struct Vnc Vnc;

#define VNC_CLIENTS_MAX 32 /* at a time; more are hung up on */

typedef struct VncConfig {
    Display *display; /* borrowed, outlives the server; NULL: an empty screen */
    Input *input;     /* likewise; NULL: who types types into the void */
    const char *name; /* shown by viewers; copied */
} VncConfig;

/**
 * vnc_open() - Serve a screen to VNC viewers
 * @spec: WHERE[,password-file=FILE]; WHERE is :N, HOST:N (display N, port 5900 + N), HOST::PORT,
 *        [HOST:]auto (the first free port from 5900), each on the loopback interface where HOST is
 *        left out, or unix:PATH. A comma within is doubled. NULL: it listens nowhere, and serves
        whom vnc_add_client() brings.
 * Context: main thread. Return: transfer full; NULL with LODGE_ERROR_CONFIG (the text, the
 *          password), LODGE_ERROR_UNSUPPORTED (built without, or the library is missing),
 *          LODGE_ERROR_BUSY (somebody has that address) or LODGE_ERROR_HOST.
 */
Vnc *vnc_open(const char *spec, const VncConfig *config, GError **error);

/* Hang up on everybody and end; keys that they hold go up. Main thread. NULL is fine. */
void vnc_close(Vnc *vnc);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Vnc, vnc_close)

/* Where it listens, as one gives it to a viewer: "127.0.0.1:5901", "[::1]:5900",
 * "unix:/run/screen"; NULL: nowhere. Owned by @vnc. */
const char *vnc_describe(const Vnc *vnc);

/**
 * vnc_add_client() - Serve a connection that somebody else accepted and let in
 * @fd: connected stream socket; taken over, also on failure. Its first unread bytes are the
 *      client's: of RFB (nothing, since the server speaks first), or an HTTP request to upgrade to
 *      a WebSocket, which is answered here. Who wants to see the request first, peeks (MSG_PEEK).
 * @skip_auth: no password is asked for, where others are asked for one.
 * Context: any thread, no lock held.
 * Return: false with LODGE_ERROR_LIMIT (VNC_CLIENTS_MAX) or LODGE_ERROR_HOST.
 */
bool vnc_add_client(Vnc *vnc, int fd, bool skip_auth, GError **error);

/* Whether it asks for a password; and the addresses of those who look now, @max of them at most.
 * Any thread. */
bool vnc_has_password(const Vnc *vnc);
struct sockaddr_storage;
unsigned vnc_list_clients(Vnc *vnc, struct sockaddr_storage *ret, unsigned max);

#endif
