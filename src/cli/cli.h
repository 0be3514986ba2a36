/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CLI_H
#define LODGE_CLI_H

/* What the verbs share: their table, exit statuses, how an error is told. */

#include <stdbool.h>

#include <glib.h>

#include "options.h"

/* The process's exit status. What a guest says itself (--debug-exit) passes through. */
typedef enum CliStatus {
    STATUS_OK = 0,
    STATUS_FAILURE = 1,
    STATUS_USAGE = 2,
    STATUS_NOT_FOUND = 3,
    STATUS_EXISTS = 5,      /* exists or running already */
    STATUS_NO_KVM = 6,
    STATUS_NOT_RUNNING = 7,
    STATUS_CPU_STOPPED = 8, /* the guest's CPU stopped on something KVM cannot run */
    STATUS_TIMEOUT = 124,
    STATUS_LODGE = 125,     /* Lodge failed around a guest's status */
    STATUS_SIGNAL = 128,    /* plus its number */
    STATUS_PANIC = 255,     /* the guest's kernel died */
} CliStatus;

/* A row of the list of statuses in help and man pages; NULL text ends it. */
typedef struct StatusText {
    int status;
    const char *label, *text; /* label: what is printed for the number */
} StatusText;
extern const StatusText cli_status_texts[];

typedef struct VerbExample {
    const char *line, *text; /* NULL line ends */
} VerbExample;

typedef struct Verb {
    const char *name;     /* NULL ends the table */
    const char *synopsis; /* behind "lodge NAME" */
    const char *help;     /* one line, lower case, no full stop */
    const char *text;     /* paragraphs of the man page, an empty line between them */
    const OptSpec *opts;  /* never NULL; an empty table ends at once */
    const VerbExample *examples; /* NULL: none */
    const struct Verb *verbs; /* of a family ("image"): its rows, named "image create"; or NULL */
    /* NULL for a family. @argc, @argv: the words behind the verb. Return: the exit status, errors
     * told already. */
    int (*run)(const struct Verb *self, int argc, char **argv);
    /* Words that it takes besides options, for help: the @i'th; false: no more. NULL: none. */
    bool (*word)(unsigned i, const char **ret_form, const char **ret_help);
} Verb;

extern const Verb verb_table[]; /* src/cli/verb_table.c */

/* Transfer none; NULL: no such verb. @family: NULL for the verbs of the program itself. */
const Verb *verb_find(const Verb *family, const char *name);
/* The verb that @name may stand for; NULL: none is near. */
const char *verb_nearest(const Verb *family, const char *name);
/* The last word of its name: "create" of "image create". */
const char *verb_word(const Verb *v);

/* The exit status for @error. @around_guest: the status belongs to the guest (--debug-exit), so
 * every failure of ours is STATUS_LODGE. */
int cli_status(const GError *error, bool around_guest);
/* Say "lodge: WHAT: MESSAGE" on standard error; answers cli_status(). */
int cli_fail(const char *what, const GError *error, bool around_guest);
/* Flush standard output; a full disk or a closed pipe turns @status 0 into a failure. */
int cli_finish(int status);

/* Print help of one verb, or with NULL of all, to standard output. */
void help_print(const Verb *v);

/* --json, as every verb that prints takes it. */
#define OPT_JSON {"json", 0, NULL, "Print JSON (an object with \"schema\": 1)."}

/* The options and functions of verbs, for verb_table.c. */
extern const OptSpec capture_options_table[];
extern const OptSpec console_options_table[];
extern const OptSpec cp_options_table[];
extern const OptSpec disk_options_table[];
extern const OptSpec doctor_options_table[];
extern const OptSpec events_options_table[];
extern const OptSpec exec_options_table[];
extern const OptSpec gdb_options_table[];
extern const OptSpec help_options_table[];
extern const OptSpec json_options_table[];
extern const OptSpec list_options_table[];
extern const OptSpec log_options_table[];
extern const OptSpec names_options_table[];
extern const OptSpec net_options_table[];
extern const OptSpec no_options_table[];
extern const OptSpec screen_options_table[];
extern const OptSpec ssh_options_table[];
extern const OptSpec stats_options_table[];
extern const OptSpec stop_options_table[];
extern const OptSpec switch_options_table[];
extern const OptSpec type_options_table[];
extern const OptSpec view_options_table[];
extern const OptSpec wait_options_table[];
extern const Verb image_verbs[];
int verb_capture(const Verb *self, int argc, char **argv);
int verb_completion(const Verb *self, int argc, char **argv);
int verb_console(const Verb *self, int argc, char **argv);
int verb_cp(const Verb *self, int argc, char **argv);
int verb_define(const Verb *self, int argc, char **argv);
int verb_devices(const Verb *self, int argc, char **argv);
int verb_disk(const Verb *self, int argc, char **argv);
int verb_doctor(const Verb *self, int argc, char **argv);
int verb_edit(const Verb *self, int argc, char **argv);
int verb_events(const Verb *self, int argc, char **argv);
int verb_exec(const Verb *self, int argc, char **argv);
int verb_gdb(const Verb *self, int argc, char **argv);
int verb_help(const Verb *self, int argc, char **argv);
int verb_kill(const Verb *self, int argc, char **argv);
int verb_list(const Verb *self, int argc, char **argv);
int verb_log(const Verb *self, int argc, char **argv);
int verb_net(const Verb *self, int argc, char **argv);
int verb_pause(const Verb *self, int argc, char **argv);
int verb_qmp(const Verb *self, int argc, char **argv);
int verb_rename(const Verb *self, int argc, char **argv);
int verb_reset(const Verb *self, int argc, char **argv);
int verb_resume(const Verb *self, int argc, char **argv);
int verb_rm(const Verb *self, int argc, char **argv);
int verb_run(const Verb *self, int argc, char **argv);
int verb_screen(const Verb *self, int argc, char **argv);
int verb_set(const Verb *self, int argc, char **argv);
int verb_ssh(const Verb *self, int argc, char **argv);
int verb_ssh_config(const Verb *self, int argc, char **argv);
int verb_stats(const Verb *self, int argc, char **argv);
int verb_top(const Verb *self, int argc, char **argv);
int verb_stop(const Verb *self, int argc, char **argv);
int verb_switch(const Verb *self, int argc, char **argv);
int verb_type(const Verb *self, int argc, char **argv);
int verb_version(const Verb *self, int argc, char **argv);
int verb_uml(const Verb *self, int argc, char **argv);
bool verb_uml_word(unsigned i, const char **ret_form, const char **ret_help);
int verb_unset(const Verb *self, int argc, char **argv);
int verb_view(const Verb *self, int argc, char **argv);
int verb_wait(const Verb *self, int argc, char **argv);

#endif
