/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_WAIT_H
#define LODGE_WAIT_H

#include <stdbool.h>

#include <glib.h>

/* Wait until a line of the console of machine @name matches, from its start on. LODGE_ERROR_STATE:
 * it ended before; LODGE_ERROR_NOT_FOUND: it has no log. */
bool wait_for_line(const char *name, GRegex *regex, GError **error);

#endif
