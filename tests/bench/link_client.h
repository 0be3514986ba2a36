/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_LINK_CLIENT_H
#define LODGE_LINK_CLIENT_H

/* A port of a Lodge switch for benchmarks, by Lodge's own link. One thread. */

#include "link_ring.h"
#include "switch_client.h"

typedef struct LinkClient {
    int ctl, fds[SW_ATTACH_FDS]; /* owned: memory, ours to wait at, the switch's */
    void *memory;
    LinkTx tx;
    LinkRx rx;
} LinkClient;

/* Plug in at switch @name as @who, which may be up to @wait_ms late. */
bool link_client_open(LinkClient *c, const char *name, const char *who, int wait_ms,
                      GError **error);
void link_client_close(LinkClient *c);
/* Have @fd's owner look. */
void link_client_poke(int fd);
/* Let the switch see what was put into c->tx. */
void link_client_flush(LinkClient *c);
/* Nothing is in c->rx: the descriptor to wait at, c->fds[1], becomes readable when something is. */
void link_client_rest(LinkClient *c);

#endif
