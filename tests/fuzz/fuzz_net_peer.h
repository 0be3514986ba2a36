/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_FUZZ_NET_PEER_H
#define LODGE_FUZZ_NET_PEER_H

/* The other end of a fuzzed card's wire: it looks at every byte of what it is sent. */

#include "lodge/net.h"

typedef struct FuzzPeer {
    NetPort port;  /* its opaque is the FuzzPeer */
    unsigned room; /* frames that it takes before it is full */
} FuzzPeer;

/* For NetPortOps.send. Fails where a frame's pieces are not as long as it says. */
unsigned fuzz_peer_send(NetPort *port, const NetFrame *v, unsigned n);

#endif
