/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_CHAN_HOST_H
#define LODGE_CHAN_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <glib.h>

/* The host's end of a channel: descriptors that can be read and written without ever blocking. */
typedef struct ChanHost {
    char *describe;   /* owned */
    int in_fd;        /* owned; -1: nothing to read (any more) */
    int out_fd;       /* owned; -1: nowhere to write (now); never the same number as in_fd */
    int listen_fd;    /* owned; -1: not a server */
    int keep_fd;      /* owned; -1, or what must stay open so that in_fd never hangs up: a pty's
                       * slave side, the other end of a pair */
    size_t out_chunk; /* most bytes of a write that cannot block */
    bool in_polled;   /* epoll can wait for in_fd; else it is always ready (files, /dev/null) */
    bool in_own, out_own; /* O_NONBLOCK is set on an open file of our own */
    bool socket;      /* in_fd and out_fd are one socket */
    bool terminal;    /* in_fd is a terminal, in raw mode */
    bool stdio;       /* holds the process's standard input and output */
    char *socket_path; /* owned; to be unlinked if it is still this file: */
    dev_t socket_dev;
    ino_t socket_ino;
} ChanHost;

bool chan_host_open(const char *spec, const char *name, ChanHost *ret_host, GError **error);
void chan_host_close(ChanHost *h);
bool chan_host_accept(ChanHost *h);
void chan_host_hang_up(ChanHost *h);
void chan_host_close_input(ChanHost *h);
void chan_host_close_output(ChanHost *h);
ssize_t chan_host_read(ChanHost *h, void *to, size_t len);
ssize_t chan_host_write(ChanHost *h, const void *data, size_t len);

#endif
