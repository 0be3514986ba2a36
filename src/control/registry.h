/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_REGISTRY_H
#define LODGE_REGISTRY_H

/*
 * Names of machines and the folders that go with them, by the XDG rules: one for what lives as
 * long as the machine runs (lock, pid, status, socket), one for what lasts (definition, logs).
 */

#include <stdbool.h>
#include <sys/types.h>

#include <glib.h>

#include "machine_status.h"

typedef struct Registry Registry;

#define STATUS_FILE "status"         /* in the running folder */
#define DEFINITION_FILE "definition" /* in the lasting one */

/* What is left of a machine when it has ended. */
typedef enum RegistryKeep {
    REGISTRY_LASTING, /* a folder of its own */
    REGISTRY_SHARED,  /* its console log, in a folder that keeps the newest few */
    REGISTRY_NOTHING,
} RegistryKeep;

/* Whether @name can name a machine: 1 to 63 letters, digits, '.', '_', '-', a letter or digit
 * first. */
bool registry_name_ok(const char *name);
/* The same, with LODGE_ERROR_CONFIG. */
bool registry_check_name(const char *name, GError **error);

/**
 * registry_claim() - Take @name for a machine of this process
 * Context: main thread.
 * Return: transfer full; NULL with LODGE_ERROR_EXISTS (a machine of that name runs; says its pid),
 *         LODGE_ERROR_CONFIG (bad name), LODGE_ERROR_HOST.
 */
Registry *registry_claim(const char *name, RegistryKeep keep, GError **error);
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
/* $XDG_STATE_HOME/lodge/NAME; transfer none; NULL: nothing lasts. */
const char *registry_lasting_dir(const Registry *r);
/* The same of any name; transfer full, and it need not be there. */
char *registry_state_dir(const char *name);
/* Where the console log of any machine is, if it is; @lasting: it is one with a folder. */
char *registry_log_path(const char *name, bool lasting);
/* Tell those who look how the machine is; replaces what was told before as a whole. */
bool registry_set_status(Registry *r, const MachineStatus *s, GError **error);

typedef struct MachineLook {
    char *name;            /* owned */
    bool defined, running; /* running: a process has the name */
    MachineStatus *status; /* owned; NULL: not running */
} MachineLook;
void machine_look_free(MachineLook *l); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MachineLook, machine_look_free)

/* Say that there is no machine @name (LODGE_ERROR_NOT_FOUND), or that it is not running
 * (LODGE_ERROR_STATE), and what to do. Return: false. */
bool registry_not_found(const char *name, GError **error);
bool registry_not_running(const char *name, GError **error);

/* What is known of @name, from files alone; transfer full, NULL with LODGE_ERROR_NOT_FOUND,
 * LODGE_ERROR_CONFIG, LODGE_ERROR_HOST (the folders are not this user's). */
MachineLook *registry_look(const char *name, GError **error);
/* Machines that run or are defined (MachineLook), by name; transfer full, NULL with
 * LODGE_ERROR_HOST. */
GPtrArray *registry_list(GError **error);

/* Path of the console log; transfer none. NULL where no folder could be made: there is no log. */
const char *registry_console_log(const Registry *r);

/* The running machine that has the file open: its name, transfer full; NULL: none of ours. */
char *registry_find_holder(dev_t dev, ino_t ino);

/* $XDG_CACHE_HOME/lodge/@sub, transfer full; not made. */
char *registry_cache_dir(const char *sub);

#endif
