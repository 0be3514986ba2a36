/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Exit statuses and how an error is told: one line, "lodge: WHAT: WHICH: WHY; what to do". */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lodge/diag.h"
#include "lodge/error.h"

const StatusText cli_status_texts[] = {
    {STATUS_OK, "0", "all went well"},
    {STATUS_FAILURE, "1", "failure"},
    {STATUS_USAGE, "2", "wrong usage: an option, a file or a value is not right"},
    {STATUS_NOT_FOUND, "3", "not found"},
    {STATUS_EXISTS, "5", "exists or is running already"},
    {STATUS_NO_KVM, "6", "KVM is not available; lodge doctor says why"},
    {STATUS_NOT_RUNNING, "7", "not running"},
    {STATUS_CPU_STOPPED, "8", "the guest's CPU stopped on something that KVM cannot run"},
    {STATUS_TIMEOUT, "124", "--timeout ran out"},
    {STATUS_LODGE, "125", "Lodge itself failed, where the status is the guest's (--debug-exit)"},
    {STATUS_SIGNAL, "128+N", "ended by signal N"},
    {STATUS_PANIC, "255", "the guest's kernel panicked"},
    {0, NULL, NULL},
};

/* What a caller of the process can do about each code. */
static const struct {
    LodgeError code;
    CliStatus status;
} error_status[] = {
    {LODGE_ERROR_CONFIG, STATUS_USAGE},
    {LODGE_ERROR_HOST, STATUS_FAILURE},
    {LODGE_ERROR_IMAGE, STATUS_FAILURE},
    {LODGE_ERROR_UNSUPPORTED, STATUS_FAILURE},
    {LODGE_ERROR_STATE, STATUS_NOT_RUNNING},
    {LODGE_ERROR_BUSY, STATUS_FAILURE},
    {LODGE_ERROR_LIMIT, STATUS_FAILURE},
    {LODGE_ERROR_NOT_FOUND, STATUS_NOT_FOUND},
    {LODGE_ERROR_EXISTS, STATUS_EXISTS},
    {LODGE_ERROR_NO_KVM, STATUS_NO_KVM},
};

int cli_status(const GError *error, bool around_guest)
{
    if (around_guest)
        return STATUS_LODGE;
    if (error->domain == LODGE_ERROR) {
        for (size_t i = 0; i < G_N_ELEMENTS(error_status); i++) {
            if ((int)error_status[i].code == error->code)
                return error_status[i].status;
        }
    }
    return STATUS_FAILURE;
}

int cli_fail(const char *what, const GError *error, bool around_guest)
{
    lodge_warn("%s: %s", what, error->message);
    return cli_status(error, around_guest);
}

int cli_finish(int status)
{
    if (fflush(stdout) || ferror(stdout)) {
        lodge_warn("standard output: %s", strerror(errno));
        return status ? status : STATUS_FAILURE;
    }
    return status;
}
