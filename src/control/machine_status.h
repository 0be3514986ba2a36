/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MACHINE_STATUS_H
#define LODGE_MACHINE_STATUS_H

/* What a running machine tells of itself in a file of its running folder, so that a list of many
 * asks none of them. */

#include <stdint.h>

#include <glib.h>

typedef enum MachineStatusState {
    MACHINE_STATUS_STARTING,
    MACHINE_STATUS_RUNNING,
    MACHINE_STATUS_PAUSED,
    MACHINE_STATUS_IO_ERROR, /* a disk with on-error=stop failed */
} MachineStatusState;

typedef struct MachineStatus {
    MachineStatusState state;
    long pid;
    uint64_t cpus, memory;  /* count; bytes */
    int64_t since;          /* seconds since the epoch */
    char *log;              /* owned; path of the console log; NULL: there is none */
    GStrv forwards;         /* owned; "ADDR:PORT->PORT/tcp"; NULL: none */
} MachineStatus;

void machine_status_free(MachineStatus *s); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MachineStatus, machine_status_free)

/* For people; static. */
const char *machine_status_word(MachineStatusState state);
/* The file's text; transfer full. */
char *machine_status_format(const MachineStatus *s);
/* NULL: it is not what machine_status_format() writes. Lines that are not known are passed over. */
MachineStatus *machine_status_parse(const char *text);

#endif
