/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_WAIT_H
#define LODGE_WAIT_H

#include <stdbool.h>

#include <glib.h>

/* A regular expression of Perl's syntax, as option @option gives it: transfer full; NULL with
 * LODGE_ERROR_CONFIG, which says at which character it is none. */
GRegex *wait_regex(const char *option, const char *text, GError **error);

/* Wait until a line of the console of machine @name matches, from its start on. LODGE_ERROR_STATE:
 * it ended before; LODGE_ERROR_NOT_FOUND: it has no log. */
bool wait_for_line(const char *name, GRegex *regex, GError **error);

#endif
