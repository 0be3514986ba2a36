/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MCONSOLE_H
#define LODGE_MCONSOLE_H

/*
 * User-Mode Linux's management console, version 2, for its tools (uml_mconsole): a datagram socket
 * that takes commands and answers them. Main thread.
 */

#include "control.h"

typedef struct Mconsole Mconsole;

/* Strings are copied. */
typedef struct MconsoleConfig {
    const char *path;    /* of the socket; NULL: the one of UML's layout */
    const char *uml_dir, *umid; /* UML's layout, see umid_claim(); without @path */
    const char *notify;  /* a datagram socket that is told of what happens; NULL: none */
} MconsoleConfig;

/**
 * mconsole_open() - Answer commands at a socket, which is made for this user alone
 * @c: outlives it; one mconsole each
 * Return: transfer full, or NULL: LODGE_ERROR_CONFIG (a path too long), LODGE_ERROR_EXISTS (the
 *         umid is in use, or something that is no left-over socket is at the path),
 *         LODGE_ERROR_HOST.
 */
Mconsole *mconsole_open(Control *c, const MconsoleConfig *config, GError **error);
/* Removes what it made. NULL is fine. */
void mconsole_close(Mconsole *m);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Mconsole, mconsole_close)
/* Of the socket; transfer none. */
const char *mconsole_path(const Mconsole *m);

#endif
