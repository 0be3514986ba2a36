/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_DGRAM_H
#define LODGE_NET_DGRAM_H

/* A frame in each datagram: what back ends over datagram sockets share. */

#include "host_end.h"
#include "opts.h"

typedef struct Dgram {
    HostEnd h;
    /* Loop only, set by connect: */
    int tx;          /* borrowed or owned as the driver has it: what is sent through */
    NetAddr to;      /* len 0: tx is connected */
    NetAddr self;    /* len not 0: frames from here are our own, come back */
    uint32_t longest; /* bytes of a frame that the other end takes */
} Dgram;

int dgram_fill(HostEnd *h);
unsigned dgram_send(HostEnd *h, const NetFrame *v, unsigned n);

#endif
