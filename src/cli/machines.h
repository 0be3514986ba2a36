/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MACHINES_H
#define LODGE_MACHINES_H

/* What the verbs about named machines share. */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "cli.h"
#include "client.h"
#include "options.h"
#include "registry.h"

#define OPT_ALL {"all", 'a', NULL, "All machines that run."}

/* Microseconds of g_get_monotonic_time() from now; 0 seconds: never. */
int64_t machines_deadline(double seconds);
/* Wait for a moment before another look. Return: false: @deadline is over. */
bool machines_pause(int64_t deadline);
/* --@option as a number of seconds above 0, @preset where it is not given. */
bool machines_seconds(const Options *o, const char *option, double preset, double *ret,
                      GError **error);

/* The names on a line with NAME..., or with --all those of the machines that run; char *, transfer
 * full. NULL: the line has none. */
GPtrArray *machines_named(const Options *o, GError **error);
/* The one name of a line that takes one; transfer none, NULL with LODGE_ERROR_CONFIG. */
const char *machines_one(const Options *o, GError **error);

/* registry_look(), and LODGE_ERROR_STATE where it does not run. */
MachineLook *machines_running(const char *name, GError **error);
/* client_connect(); one that is still starting is waited for. */
Client *machines_reach(const char *name, int64_t deadline, GError **error);
/* A descriptor that becomes readable when the process that has @name now has ended; -1: it has. */
int machines_process(const char *name);
/* Wait for that. Return: false: not before the deadline. */
bool machines_wait_end(int pidfd, int64_t deadline);
/* Bytes of memory that process @pid has from the host. */
uint64_t machines_resident(long pid);

/* Print @answer of machine @name as JSON, under @key. */
void machines_print(const char *name, const char *key, Jv answer);

/* "2026-11-21 21:40:05" here, or with @utc "2026-11-21T21:40:05Z"; transfer full. */
char *machines_time(int64_t seconds, bool utc);
/* "1.5G", of K, M, G, T; transfer full. */
char *machines_size(uint64_t bytes);

#endif
