/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_ERROR_H
#define LODGE_ERROR_H

#include <inttypes.h>
#include <stdbool.h>

#include <glib.h>

/**
 * enum LodgeError - Codes of the LODGE_ERROR domain, chosen by what the caller can do about it
 *
 * Three channels of failure never mix: GError for set-up and control, errno in a completion for
 * the data path, guest_fault() for what the guest did wrong.
 */
typedef enum LodgeError {
    LODGE_ERROR_CONFIG,      /* the operator must change the request */
    LODGE_ERROR_HOST,        /* a host call failed; the message ends in strerror */
    LODGE_ERROR_IMAGE,       /* bytes in a file or stream are malformed; names file and offset */
    LODGE_ERROR_UNSUPPORTED, /* well-formed, but this build or host cannot do it */
    LODGE_ERROR_STATE,       /* not now: the object is in the wrong state */
    LODGE_ERROR_BUSY,        /* somebody else holds it; the message names the holder */
    LODGE_ERROR_LIMIT,       /* over a named ceiling */
    LODGE_ERROR_NOT_FOUND,   /* no object of that name */
    LODGE_ERROR_EXISTS,      /* an object of that name is there already */
    LODGE_ERROR_NO_KVM,      /* this host cannot run guests now */
} LodgeError;

#define LODGE_ERROR (lodge_error_quark())
GQuark lodge_error_quark(void);

/**
 * lodge_fail() - Set @error and answer false, so that a caller can write `return lodge_fail(...)`
 * @error: place for a new GError, or NULL
 * @code:  why, from the caller's point of view
 * @fmt:   lower case, names the object, quotes operator text, no full stop, no newline:
 *         "WHICH: WHY; what to do"
 * Context: any thread.
 * Return:  always false.
 */
bool lodge_fail(GError **error, LodgeError code, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/**
 * lodge_fail_errno() - Like lodge_fail() with LODGE_ERROR_HOST, ": strerror" appended
 * @error:  place for a new GError, or NULL
 * @errnum: positive errno value
 * @fmt:    as for lodge_fail()
 * Context: any thread. Leaves errno as it was.
 * Return:  always false.
 */
bool lodge_fail_errno(GError **error, int errnum, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

#endif
