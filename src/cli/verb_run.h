/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VERB_RUN_H
#define LODGE_VERB_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <glib.h>

#include "definition.h"
#include "options.h"
#include "tree.h"

#define RUN_MEMORY_DEFAULT ((uint64_t)512 << 20)
#define RUN_AGENT_CHAN "agent" /* the channel of the guest agent's port */

/* Where else QMP is spoken; see ControlQmpAt. */
typedef struct RunQmp {
    char *spec; /* owned */
    bool server, wait;
} RunQmp;

/* What of a run's command line is no part of the machine. */
typedef struct RunOptions {
    char *name;        /* owned; given, or "vm-PID" */
    bool name_given;
    bool detach;       /* -d: leave the terminal once the guest runs */
    bool ephemeral;    /* leave nothing, not even what is written to disks */
    bool dry_run;      /* print the description, start nothing */
    bool debug_exit;   /* the guest's own status; Lodge's failures are 125 */
    bool verbose, quiet;
    bool trace_boot;   /* time of each step until the guest runs, on standard error */
    uint64_t timeout_ns; /* 0: none */
    char *display; /* owned; where the screen is shown, as vnc_open() takes it; NULL: nowhere */
    char *display_password; /* owned; file with the viewers' password; NULL: none */
    Definition *define;  /* owned; to be kept under the name once the guest runs; NULL: nothing */
    char *gdb;     /* owned; where a debugger is let in; NULL: nowhere */
    bool gdb_wait; /* until it lets the machine go on */
    char **command; /* owned; to be run in the guest, which then ends; NULL: none */
    struct GuestWay *way; /* owned; how it gets there; NULL without a command */
    GPtrArray *qmp; /* owned: RunQmp; NULL: none */
    GRegex *wait;   /* owned; with detach: come back when the console says it; NULL: at once */
    bool mconsole;           /* a management console: */
    char *mconsole_path, *umid, *uml_dir, *mconsole_notify; /* owned; as MconsoleConfig has them */
    const struct UmlOptions *uml; /* borrowed; it is to look like User-Mode Linux; NULL: not so */
} RunOptions;

/* run_execute()'s answers for such a machine, besides 0, and 1 after a signal. */
#define RUN_UML_PANIC 134
#define RUN_UML_AGAIN 256 /* to be started again in this process */

void run_options_clear(RunOptions *o); /* frees what it owns */

extern const OptSpec run_options_table[];
/* Of --disk, --cdrom, --floppy: what is not the device's. */
extern const SubSpec run_disk_subs[], run_cdrom_subs[], run_floppy_subs[];

/**
 * run_compile() - Turn a command line into a machine description
 * @argc: count of @argv; @argv: the words behind "run"
 * @ret:  cleared by the caller with run_options_clear(); written on success only
 * Context: main thread. Opens nothing and looks at no file; needs the tables of device classes and
 *          network drivers only.
 * Return: transfer full, or NULL with LODGE_ERROR_CONFIG: WHICH: WHY; what to do.
 */
Tree *run_compile(int argc, char **argv, RunOptions *ret, GError **error);

/* Whether there is anything to start on a machine that run_compile() has described: a kernel, a
 * medium, firmware of the user's own, a network that may offer a boot. */
bool run_may_boot(const Tree *t);

/**
 * run_execute() - Build the machine, run it to its end
 * @tree: the description, borrowed
 * Context: main thread. Return: the process's exit status; it has said why where that is not the
 *          guest's own.
 */
int run_execute(Tree *tree, const RunOptions *o);

/**
 * run_command() - Run the command of @o in a guest that has been started for it, then end that
 * @machine: the process that runs it, a child
 * Return: the exit status, as of run_execute().
 */
int run_command(const Tree *tree, const RunOptions *o, pid_t machine);
/* Whether the guest of @tree may have written what it should not lose: it is asked to power off. */
bool run_command_keeps(const Tree *tree);

#endif
