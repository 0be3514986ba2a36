/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_TERMINAL_H
#define LODGE_TERMINAL_H

#include <stdbool.h>

#include <glib.h>

/*
 * The terminal that Lodge was started from, in raw mode while a guest's console has it, and others
 * likewise, 16 a process. Their settings come back on every way out: terminal_restore(), exit(),
 * and signals that end or stop the process (those whose action was the default one when raw mode
 * began).
 */

/* Raw mode on @fd, a terminal. In the background it waits for the foreground (SIGCONT). Main
 * thread. Return: false with LODGE_ERROR_HOST, LODGE_ERROR_LIMIT. */
bool terminal_raw(int fd, GError **error);
/* Put the settings of all of them back; idempotent. Any thread, signal handlers, before _exit(). */
void terminal_restore(void);

#endif
