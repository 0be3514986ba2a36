/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SWITCH_ENDS_H
#define SWITCH_ENDS_H

/*
 * What is plugged into the switch named "t": clients of uml_switch's and vde_switch's protocols, made
 * from the protocols' layouts, and ends of Lodge's own link. Frames are short, from 02:00:00:00:00:SRC
 * to such an address or (DST 0) to all, and numbered.
 */

#include <sys/un.h>

#include "link_ring.h"
#include "switch_proto.h"

enum { DEADLINE_S = 20, FRAME = 60 };

void frame_make(uint8_t f[FRAME], unsigned dst, unsigned src, unsigned seq);

typedef struct Client {
    int ctl, fd;
    struct sockaddr_un own, peer; /* peer: where its frames go */
    socklen_t own_len;
    char *path; /* to be removed */
} Client;

void set_deadline(int fd);
/* Bound and connected, with nothing asked yet. @path: NULL: an abstract address of full length. */
void client_begin(Client *c, const char *ctl, const char *path, unsigned id);
/* A request of uml_switch's @version or vde's, of SW_REQUEST_MAX bytes at most; how long it is. */
size_t client_request(uint8_t *to, const Client *c, unsigned version, uint32_t type);
/* Ask for a port; false: refused. */
bool client_ask(Client *c, unsigned version, uint32_t type, size_t extra);
void client_end(Client *c);
void client_put(Client *c, unsigned dst, unsigned src, unsigned seq);
void client_get(Client *c, unsigned src, unsigned seq); /* waits for it */

typedef struct Link {
    int ctl, fds[SW_ATTACH_FDS];
    void *memory;
    LinkTx tx;
    LinkRx rx;
    unsigned port;
} Link;

void link_open(Link *l);
void link_close(Link *l);
void link_kick(Link *l);
bool link_put(Link *l, unsigned dst, unsigned src, unsigned seq); /* false: no room */
void link_get(Link *l, unsigned src, unsigned seq); /* waits for it */

#endif
