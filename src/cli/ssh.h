/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SSH_H
#define LODGE_SSH_H

/* Where a machine's SSH server is on this host. */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

/* Of a forward as MachineStatus has it, "ADDR:PORT->22/tcp": the host's side. Return: false: it
 * leads elsewhere. @ret_host: transfer full; where it listens for all, the loopback address. */
bool ssh_parse_forward(const char *text, char **ret_host, unsigned *ret_port);
/* The first of the running machine @name. Return: false with LODGE_ERROR_CONFIG: there is none; or
 * the errors of machines_running(). */
bool ssh_find(const char *name, char **ret_host, unsigned *ret_port, GError **error);
/* Whether somebody there begins as an SSH server does (RFC 4253, 4.2), before @deadline. */
bool ssh_answers(const char *host, unsigned port, int64_t deadline);

#endif
