/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_UML_COMPAT_H
#define LODGE_UML_COMPAT_H

/* What makes a machine look like User-Mode Linux from outside, besides its description. */

#include <stdbool.h>

#include <glib.h>

#include "machine.h"
#include "uml_args.h"

/* The guest's kernel: @given, $LODGE_UML_KERNEL, that of the user's configuration (the last line
 * kernel=FILE of lodge/uml.conf in $XDG_CONFIG_HOME), the one that the host runs, the newest in
 * /boot. Transfer full; NULL with LODGE_ERROR_NOT_FOUND, or LODGE_ERROR_CONFIG: that file is
 * wrong. */
char *uml_find_kernel(const char *given, GError **error);
/* Whether the file is a bzImage. */
bool uml_kernel_is_linux(const char *path);
/* For UmlHost.look. */
UmlFile uml_look(const char *path);
/* For UmlHost.seed; transfer full. */
char *uml_seed(const char *uml_dir, const char *umid);

/* Print the kernel's release, or its configuration from the file beside it, to standard output. */
bool uml_print_version(const char *kernel, GError **error);
bool uml_print_config(const char *kernel, GError **error);

/* Tell what scripts look for in a kernel's log, on con0 before the guest speaks: where the
 * management console is (@mconsole; NULL: there is none), what lines were assigned, and @o's notes.
 * Then open the windows. Return: how many bytes that was on con0. */
size_t uml_announce(Machine *m, const char *mconsole, const UmlOptions *o);

/* Whether a kernel said that it panics in @text, the last lines of a console. */
bool uml_panicked(const char *text);
/* Whether @line is a kernel's last one, when it halts and leaves the power on. */
bool uml_halted(const char *line);

/* SIGINT and SIGTERM end this process with status 1, until somebody else has them. */
void uml_signals_early(void);
/* From here to the next start they wait. Main thread, when the machine has ended. */
void uml_signals_hold(void);

/* End this process as a panic of UML does: by SIGABRT, without a core of ours. */
G_NORETURN void uml_die(void);
/* Start again, in this process, with the arguments that it was started with. Returns only where
 * that failed: LODGE_ERROR_HOST. */
void uml_again(GError **error);

#endif
