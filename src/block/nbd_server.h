/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NBD_SERVER_H
#define LODGE_NBD_SERVER_H

/* A disk offered to other programs over NBD. */

#include "block_int.h"

#define NBD_CLIENTS_MAX 64u

typedef struct NbdServer NbdServer;

typedef struct NbdServerConfig {
    BlkNode *node;      /* borrowed, outlives the server */
    const char *name;   /* of the export, at most NBD_STRING_MAX bytes, UTF-8; copied */
    bool writable;      /* if the node is */
    unsigned clients;   /* at once, 1..NBD_CLIENTS_MAX; more wait */
    /* The last client that had come to use the export has left. Node's IoThread; may be NULL. */
    void (*left)(void *opaque);
    void *opaque;
} NbdServerConfig;

/* Context of all: main thread, node's loop runs. Transfer full. */
NbdServer *nbd_server_new(const NbdServerConfig *config);
/* Serve who connects to @fd, a listening socket, taken over in every case. */
bool nbd_server_listen(NbdServer *s, int fd, GError **error);
/* Serve who is at the other end of @fd, a stream socket, taken over in every case. */
bool nbd_server_add(NbdServer *s, int fd, GError **error);
/* Hang up on everybody, wait for what was begun, free. The caller flushes. NULL is fine. */
void nbd_server_free(NbdServer *s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NbdServer, nbd_server_free)
/* Clients that are connected now. */
unsigned nbd_server_clients(NbdServer *s);

#endif
