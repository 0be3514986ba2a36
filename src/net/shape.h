/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_SHAPE_H
#define LODGE_NET_SHAPE_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/net.h"

typedef struct NetShape NetShape;

typedef struct ShapeOptions {
    uint64_t rate;    /* bits a second each way; 0: as fast as it goes */
    int64_t delay_ns; /* each way */
    uint32_t loss;    /* of 2^32 frames */
    uint64_t seed;    /* of what is lost */
} ShapeOptions;

/* @first: of the same back end's first stream, whose rate this one shares; NULL: this is it. */
NetShape *net_shape_new(NetPort *host, NetShape *first, LodgeClock *clock, const ShapeOptions *o,
                        GError **error);
NetPort *net_shape_port(NetShape *s); /* for the card; transfer none */
uint64_t net_shape_lost(NetShape *s); /* frames; any thread */
void net_shape_free(NetShape *s);     /* parts; the first one last; NULL is fine */

#endif
