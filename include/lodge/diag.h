/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_DIAG_H
#define LODGE_DIAG_H

#include <stdarg.h>
#include <stdbool.h>

#include <glib.h>

/* Messages for the person at the terminal: one line "lodge: TEXT" on standard error each.
 * Context: any thread. */
void lodge_warn(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void lodge_note(const char *fmt, ...) G_GNUC_PRINTF(1, 2); /* suppressed by --quiet */
void lodge_set_quiet(bool quiet);
/* LODGE_TRACE=NAME[,NAME]: whether @name is to be traced, and a line of it. */
bool lodge_tracing(const char *name);
void lodge_trace(const char *name, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Where messages go besides standard error (the VM's log); NULL takes it away. Main thread. */
typedef void (*LodgeLogFn)(void *opaque, const char *line);
void lodge_set_log(LodgeLogFn fn, void *opaque);

#endif
