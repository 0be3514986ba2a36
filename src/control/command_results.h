/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_COMMAND_RESULTS_H
#define LODGE_COMMAND_RESULTS_H

/* What commands answer: members of the objects, for the rows of command_table.c. */

#include "command_table.h"

/* An object of @members, and an array of such, as a row's result. */
#define RESULT_OBJECT(members) (&(const CommandArg){.kind = ARG_OBJECT, .of = (members)})
#define RESULT_LIST(members) (&(const CommandArg){.kind = ARG_ARRAY, .of = (members)})

extern const CommandArg result_any, result_string;
extern const CommandArg balloon_result[], block_result[], block_job_result[], blockstats_result[],
    chardev_result[], command_result[], console_result[], cpu_result[], current_machine_result[],
    description_result[], device_result[], gdb_result[], hostfwd_result[], job_result[],
    kvm_result[], machine_result[], memory_result[], name_result[], net_result[], node_result[],
    pci_result[], property_result[], schema_result[], screen_text_result[], stats_result[],
    status_result[], target_result[], uuid_result[], version_result[], vnc_result[],
    vnc_server_result[];

#endif
