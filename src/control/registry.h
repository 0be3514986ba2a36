/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_REGISTRY_H
#define LODGE_REGISTRY_H

/*
 * Names of machines and the folders that go with them, by the XDG rules: one for what lives as
 * long as the machine runs (lock, pid, sockets), one for what lasts (console log).
 */

#include <stdbool.h>
#include <sys/types.h>

#include <glib.h>

typedef struct Registry Registry;

/* Whether @name can name a machine: 1 to 63 letters, digits, '.', '_', '-', a letter or digit
 * first. */
bool registry_name_ok(const char *name);

/**
 * registry_claim() - Take @name for a machine of this process
 * @lasting: whether @name was given by the user and has a folder of its own for what lasts; else
 *           its logs go to a shared folder that keeps the newest few
 * Context: main thread.
 * Return: transfer full; NULL with LODGE_ERROR_EXISTS (a machine of that name runs; says its pid),
 *         LODGE_ERROR_CONFIG (bad name), LODGE_ERROR_HOST.
 */
Registry *registry_claim(const char *name, bool lasting, GError **error);
/* Give the name back; removes its running folder. NULL is fine. */
void registry_release(Registry *r);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Registry, registry_release)
/* Write this process's id, for those who look: again after a fork. */
bool registry_set_pid(Registry *r, GError **error);
/* $XDG_RUNTIME_DIR/lodge/NAME; transfer none. */
const char *registry_run_dir(const Registry *r);
/* The running folder of the machine @name, of whatever process; transfer full, and it need not run.
 * NULL with LODGE_ERROR_CONFIG: no name for a machine; LODGE_ERROR_NOT_FOUND: there never was one
 * that left anything; LODGE_ERROR_STATE: there was, and it does not run. */
char *registry_locate(const char *name, GError **error);
/* Path of the console log; transfer none. NULL where no folder could be made: there is no log. */
const char *registry_console_log(const Registry *r);

/* The running machine that has the file open: its name, transfer full; NULL: none of ours. */
char *registry_find_holder(dev_t dev, ino_t ino);

/* $XDG_CACHE_HOME/lodge/@sub, transfer full; not made. */
char *registry_cache_dir(const char *sub);

#endif
