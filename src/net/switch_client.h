/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SWITCH_CLIENT_H
#define LODGE_SWITCH_CLIENT_H

/* How a process reaches a switch of Lodge's by its name. */

#include <stdbool.h>

#include "switch_proto.h"

enum { SW_NAME_MAX = 40 }; /* a socket's path has 107 characters */

/* 1 to SW_NAME_MAX letters, digits, '.', '_', '-', a letter or digit first, and no word of "lodge
 * switch"; LODGE_ERROR_CONFIG. */
bool sw_name_check(const char *name, GError **error);
/* The folder of switches, and what is in it; transfer full. */
char *sw_folder(void);
char *sw_socket_path(const char *name);
char *sw_lock_path(const char *name);

/* The name of a switch, taken by the process that is it. */
typedef struct SwName {
    char *name;             /* owned */
    int lock_fd, listen_fd; /* owned; the second until somebody takes it (-1) */
} SwName;
/* LODGE_ERROR_EXISTS: one of that name runs. Transfer full. */
SwName *sw_name_claim(const char *name, GError **error);
bool sw_name_set_pid(SwName *n, GError **error); /* again after a fork */
/* Nobody finds it any more, and the name is free. NULL is fine. */
void sw_name_release(SwName *n);

/* Names under which switches listen, in their order, with those that were killed; transfer full. */
GPtrArray *sw_names(void);

/* A connection to switch @name, -1: LODGE_ERROR_NOT_FOUND: there is none; LODGE_ERROR_HOST. */
int sw_dial(const char *name, GError **error);
/* A request that is yet to be filled; a text that is too long is cut off. */
SwHello sw_hello(SwOp op, const char *who);
/* Send @h, with @nfds descriptors (borrowed). Never waits. */
bool sw_send_hello(int fd, const SwHello *h, const int *fds, unsigned nfds, GError **error);
/**
 * sw_recv_welcome() - Wait for the answer
 * @fds:     SW_ATTACH_FDS of them if @ret_nfds says so, transfer full
 * @wait_ms: at most; 0: it is there
 * Return:   false: the switch's own error, or LODGE_ERROR_HOST.
 */
bool sw_recv_welcome(int fd, SwWelcome *ret_welcome, int fds[SW_ATTACH_FDS], unsigned *ret_nfds,
                     int wait_ms, GError **error);
typedef enum SwMake {
    SW_MAKE_PLAIN,
    SW_MAKE_INTERNAL,  /* --internal */
    SW_MAKE_HOST_ONLY, /* --tap NAME */
} SwMake;
/* Have a switch made that ends when it is unused: lodge switch NAME --detach --until-unused.
 * @wait: until it can be reached, or it is known why not */
bool sw_spawn(const char *name, SwMake make, bool wait, GError **error);
/* Map the memory of a link if it is what it should be. @fd: borrowed. NULL: LODGE_ERROR_HOST. */
void *sw_link_map(int fd, GError **error);

#endif
