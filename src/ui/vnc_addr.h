/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VNC_ADDR_H
#define LODGE_VNC_ADDR_H

#include <stdbool.h>

#include <glib.h>

#define VNC_PASSWORD_MAX 8 /* what VNC's authentication takes of it */

typedef struct VncAddr {
    char *unix_path; /* NULL: TCP */
    char *host;
    unsigned port, last_port; /* the first free one of these */
    char *password;           /* NULL: nobody is asked */
} VncAddr;

/* Take a text apart as vnc_open() has it and read the password's file. False: nothing to clear. */
bool vnc_addr_parse(const char *spec, VncAddr *ret_addr, GError **error);
void vnc_addr_clear(VncAddr *addr);
/* A listening socket that does not block; @ret_name: the address for people, transfer full. */
int vnc_addr_listen(const VncAddr *addr, char **ret_name, GError **error);

#endif
