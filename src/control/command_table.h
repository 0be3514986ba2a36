/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_COMMAND_TABLE_H
#define LODGE_COMMAND_TABLE_H

/*
 * Commands as rows: their names, what they take, and what they do. A transport finds the row, has
 * the arguments checked against it, and gets one answer for each command, perhaps later.
 */

#include <stdbool.h>

#include <glib.h>

#include "lodge/json_out.h"

#include "control.h"
#include "json_in.h"

/* ARG_OBJECT and ARG_ANY are for results. */
typedef enum ArgKind { ARG_STRING, ARG_BOOL, ARG_INT, ARG_ARRAY, ARG_OBJECT, ARG_ANY } ArgKind;

#define ARG_OTHERS "*"

typedef struct CommandArg {
    const char *name; /* NULL ends a table; ARG_OTHERS: any other, of any kind, optional */
    ArgKind kind;
    bool optional;
    const char *const *values; /* ARG_STRING: what it may be, NULL-terminated; NULL: anything */
    const char *help;
    /* ARG_OBJECT: its members; ARG_ARRAY: those of the objects in it, or command_strings; NULL:
     * anything */
    const struct CommandArg *of;
} CommandArg;
extern const CommandArg command_strings[]; /* stands for strings in an array */

/*
 * The answer to one command. The transport owns it until the command says control_reply_later(),
 * and again from control_reply_done() on; between them it is the command's, unless cancel is
 * called.
 */
typedef struct ControlReply ControlReply;
typedef struct ControlFds ControlFds;
struct ControlReply {
    JsonOut *out;    /* a value may be put in under the key "return"; none: an empty object */
    bool returned;   /* it was */
    bool later;
    /* The one who asked is gone: the command drops the reply. Set by the command with later. */
    void (*cancel)(ControlReply *r);
    void *opaque; /* of the command */
    ControlFds *fds; /* borrowed from the transport: what the client passed; NULL: it cannot */
    /* Of the transport: send it, or with @error that. */
    void (*send)(ControlReply *r, const GError *error);
};

/* Begin the value of the answer: the caller writes it under the key "return". */
JsonOut *control_return(ControlReply *r);
/* The answer comes by control_reply_done(). */
void control_reply_later(ControlReply *r, void (*cancel)(ControlReply *r), void *opaque);
/* Send it; @r is gone. Runs no other command: may be called in the middle of a change. */
void control_reply_done(ControlReply *r, const GError *error);

typedef struct Command {
    const char *name; /* NULL ends the table */
    const CommandArg *args; /* NULL: none */
    const char *help; /* one line */
    /* @args: an object with every argument that the table calls for, of its kind, and no others.
     * Return: false with the error that is the answer. */
    bool (*run)(Control *c, Jv args, ControlReply *r, GError **error);
    const CommandArg *result; /* what it answers, without a name; NULL: an empty object */
} Command;

extern const Command command_table[]; /* command_table.c */
/* The one that is the transport's: it has no function. */
extern const Command command_negotiate;
const Command *command_find(const char *name);
/* Check @args (absent: an empty object) against @cmd's table. */
bool command_check(const Command *cmd, Jv args, GError **error);

/* Domain of errors whose class is DeviceNotActive. */
GQuark control_not_active_quark(void);
/* QMP's class for @error. */
const char *command_error_class(const GError *error);

/* ---- texts of wrong arguments, as QEMU has them ---- */
bool arg_missing(GError **error, const char *name);
bool arg_unexpected(GError **error, const char *name);
bool arg_type(GError **error, const char *name, const char *expected);
bool arg_value(GError **error, const char *name, const char *value);

/* ---- functions of the table: commands.c, commands_*.c, gdb.c, hmp.c ---- */
#define COMMAND_FN(fn) bool fn(Control *c, Jv args, ControlReply *r, GError **error)
COMMAND_FN(cmd_query_version);
COMMAND_FN(cmd_query_commands);
COMMAND_FN(cmd_query_status);
COMMAND_FN(cmd_query_name);
COMMAND_FN(cmd_query_uuid);
COMMAND_FN(cmd_query_kvm);
COMMAND_FN(cmd_stop);
COMMAND_FN(cmd_query_cpus);
COMMAND_FN(cmd_query_memory);
COMMAND_FN(cmd_query_target);
COMMAND_FN(cmd_query_current_machine);
COMMAND_FN(cmd_query_chardev);
COMMAND_FN(cmd_query_machines);
COMMAND_FN(cmd_query_schema);
COMMAND_FN(cmd_query_vnc);
COMMAND_FN(cmd_query_vnc_servers);
COMMAND_FN(cmd_block_throttle);
COMMAND_FN(cmd_query_blockstats);
COMMAND_FN(cmd_query_pci);
COMMAND_FN(cmd_device_properties);
COMMAND_FN(cmd_netdev_add);
COMMAND_FN(cmd_set_link);
COMMAND_FN(cmd_netdev_del);
COMMAND_FN(cmd_blockdev_add);
COMMAND_FN(cmd_blockdev_del);
COMMAND_FN(cmd_cont);
COMMAND_FN(cmd_powerdown);
COMMAND_FN(cmd_reset);
COMMAND_FN(cmd_quit);
COMMAND_FN(cmd_human_monitor);
COMMAND_FN(cmd_screendump);
COMMAND_FN(cmd_screen_text);
COMMAND_FN(cmd_send_key);
COMMAND_FN(cmd_input_event);
COMMAND_FN(cmd_type);
COMMAND_FN(cmd_device_add);
COMMAND_FN(cmd_device_del);
COMMAND_FN(cmd_devices);
COMMAND_FN(cmd_description);
COMMAND_FN(cmd_plug);
COMMAND_FN(cmd_unplug);
COMMAND_FN(cmd_console);
COMMAND_FN(cmd_console_take);
COMMAND_FN(cmd_getfd);
COMMAND_FN(cmd_closefd);
COMMAND_FN(cmd_add_client);
COMMAND_FN(cmd_agent);
COMMAND_FN(cmd_agent_will);
COMMAND_FN(cmd_query_block);
COMMAND_FN(cmd_query_nodes);
COMMAND_FN(cmd_snapshot_sync);
COMMAND_FN(cmd_block_resize);
COMMAND_FN(cmd_block_commit);
COMMAND_FN(cmd_query_block_jobs);
COMMAND_FN(cmd_query_jobs);
COMMAND_FN(cmd_block_job_cancel);
COMMAND_FN(cmd_block_job_complete);
COMMAND_FN(cmd_block_job_speed);
COMMAND_FN(cmd_job_cancel);
COMMAND_FN(cmd_job_complete);
COMMAND_FN(cmd_change_medium);
COMMAND_FN(cmd_eject);
COMMAND_FN(cmd_gdb);
COMMAND_FN(cmd_net);
COMMAND_FN(cmd_net_filter);
COMMAND_FN(cmd_capture);
COMMAND_FN(cmd_hostfwd_add);
COMMAND_FN(cmd_hostfwd_remove);
COMMAND_FN(cmd_balloon);
COMMAND_FN(cmd_query_balloon);
COMMAND_FN(cmd_stats);
COMMAND_FN(cmd_qom_get);
COMMAND_FN(cmd_qom_set);
COMMAND_FN(cmd_watchdog_action);
COMMAND_FN(cmd_set_action);

#endif
