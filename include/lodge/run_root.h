/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_RUN_ROOT_H
#define LODGE_RUN_ROOT_H

#include <stdbool.h>

#include <glib.h>

/* The folder of what runs: machines, switches. $XDG_RUNTIME_DIR/lodge; without that /run/lodge for
 * root, else a folder under /tmp, which must be ours alone. Transfer full; not made. */
char *run_root_path(void);
/* Whether @path is a folder, no link, that only this user can write. LODGE_ERROR_HOST. */
bool run_root_check(const char *path, GError **error);
/* Make folder @path, or find that it is there and this user's alone; its parent must be there.
 * LODGE_ERROR_HOST. */
bool run_root_make(const char *path, GError **error);

#endif
