/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CONSOLES_H
#define LODGE_CONSOLES_H

/* Those who look at a machine's first serial port from other terminals: all of them read, one
 * writes. */

#include <stdbool.h>

#include <glib.h>

typedef struct Chan Chan;
typedef struct ConsoleLog ConsoleLog;
typedef struct Consoles Consoles;

/**
 * consoles_new() - Let others look at @c, and keep its output in @log
 * @c:   borrowed; its tap is ours from now on. NULL: there is no port.
 * @log: borrowed, outlives us
 * Context: main thread, as for all of these. Return: transfer full.
 */
Consoles *consoles_new(Chan *c, ConsoleLog *log);
/* Before @c is closed: nobody new, and nobody writes any more. What the guest said last still goes
 * to those who are there. NULL is fine. */
void consoles_stop(Consoles *cs);
/* After @c was closed, and consoles_stop(). NULL is fine. */
void consoles_free(Consoles *cs);

/**
 * consoles_add() - Serve who is at the other end of @fd, a stream socket that is taken over
 * @write: what it says is typed, if nobody else writes
 * @ret_id: of consoles_take(); @ret_writes: whether it writes
 * It is first told what was there before. One that does not read loses output, and is told so.
 * Return: false with LODGE_ERROR_STATE (no port), LODGE_ERROR_LIMIT; @fd is closed all the same.
 */
bool consoles_add(Consoles *cs, int fd, bool write, unsigned *ret_id, bool *ret_writes,
                  GError **error);
/* From now on @id writes, and no other. LODGE_ERROR_NOT_FOUND. */
bool consoles_take(Consoles *cs, unsigned id, GError **error);

#endif
