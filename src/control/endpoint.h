/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_ENDPOINT_H
#define LODGE_ENDPOINT_H

/* Sockets that a person names: tcp:[ADDR:]PORT (ADDR is 127.0.0.1 unless said) or unix:PATH. */

#include <stdbool.h>

#include <glib.h>

typedef struct Endpoint {
    int fd;        /* a listening socket, owned; -1: none */
    char *path;    /* owned; of a Unix socket that is ours; NULL: TCP */
    char *address; /* owned; where others find it: ADDR:PORT, or a full path */
} Endpoint;

/**
 * endpoint_listen() - Listen at @spec
 * @who: begins an error
 * @ret: written on success only. A Unix socket has mode 0600; one that nobody listens at any more
 *       is replaced.
 * Return: false with LODGE_ERROR_CONFIG, LODGE_ERROR_EXISTS or LODGE_ERROR_HOST.
 */
bool endpoint_listen(const char *who, const char *spec, Endpoint *ret, GError **error);
/* Close and remove what is left of it. */
void endpoint_clear(Endpoint *e);
/* Connect to @spec, waiting for that; -1 with the error. Transfer full, non-blocking. */
int endpoint_connect(const char *who, const char *spec, GError **error);

#endif
