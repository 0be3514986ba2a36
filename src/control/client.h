/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CLIENT_H
#define LODGE_CLIENT_H

/*
 * The other end of a machine's control socket, for a tool that asks something and waits. Blocking,
 * with a deadline; no main loop.
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "json_in.h"

typedef struct Client Client;

/**
 * client_connect() - Reach the running machine @name
 * @deadline: g_get_monotonic_time() at which to give up, here and in client_call()
 * Return: transfer full, or NULL: LODGE_ERROR_NOT_FOUND (no machine of that name),
 *         LODGE_ERROR_STATE (it does not run), LODGE_ERROR_CONFIG (no name), LODGE_ERROR_HOST.
 */
Client *client_connect(const char *name, int64_t deadline, GError **error);
void client_free(Client *c); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Client, client_free)

/**
 * client_begin() - Start a command
 * Return: transfer full: a writer inside the "arguments" object, for client_call().
 */
JsonOut *client_begin(const char *command);
/**
 * client_call() - Send a command and wait for its answer
 * @request: from client_begin(), taken over
 * @deadline: as of client_connect()
 * Return: what stands under "return", valid until the next call; node NULL with the machine's error
 *         (LODGE_ERROR_HOST; LODGE_ERROR_NOT_FOUND: no such device), or LODGE_ERROR_HOST: no
 *         answer; LODGE_ERROR_CONFIG: a string of the request is no UTF-8.
 */
Jv client_call(Client *c, JsonOut *request, int64_t deadline, GError **error);
/* Likewise, and pass a descriptor along. @fd: borrowed. */
Jv client_call_fd(Client *c, JsonOut *request, int fd, int64_t deadline, GError **error);

/* Wait for the next event, and drop answers; valid until the next call. Node NULL:
 * LODGE_ERROR_STATE: the machine ended; LODGE_ERROR_HOST. */
Jv client_event(Client *c, int64_t deadline, GError **error);
/* The library that its values are of; borrowed. */
const Json *client_json(const Client *c);

/* What to wait at for something from the machine, or its end, between calls. Owned by @c. */
int client_fd(const Client *c);
/* Throw away what came between calls, without waiting. Return: false: the machine ended. */
bool client_discard(Client *c);

#endif
