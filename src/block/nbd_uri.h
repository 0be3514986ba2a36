/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NBD_URI_H
#define LODGE_NBD_URI_H

#include <stdbool.h>

#include <glib.h>

#define NBD_PORT "10809"      /* IANA's */
#define NBD_NAME_MAX 4096u    /* bytes of an export's name: protocol, "Values", strings */

/* Where an export is. */
typedef struct NbdUri {
    char *host, *port; /* owned; NULL: it is a Unix socket */
    char *socket;      /* owned; its path, or NULL */
    char *export;      /* owned; "": the server's default */
    char *where;       /* owned; for messages: "HOST port PORT", or the socket's path */
    bool tls;          /* nbds */
    char *certificates, *psk_file; /* owned; of TLS, paths, or NULL */
    char *user;        /* owned; of TLS with psk_file, or NULL */
} NbdUri;

/* Whether @file is no path but a URI of NBD, a right one or not. */
bool nbd_uri_is(const char *file);
/**
 * nbd_uri_parse() - Take a URI of NBD apart
 * Return: transfer full, or NULL: LODGE_ERROR_CONFIG, or LODGE_ERROR_UNSUPPORTED (vsock).
 * Spec: NBD project, doc/uri.md.
 */
NbdUri *nbd_uri_parse(const char *text, GError **error);
NbdUri *nbd_uri_copy(const NbdUri *u);
void nbd_uri_free(NbdUri *u);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NbdUri, nbd_uri_free)
/* The URI of an export, for people; transfer full. @socket, or @host and @port. */
char *nbd_uri_text(const char *socket, const char *host, unsigned port, const char *export);

#endif
