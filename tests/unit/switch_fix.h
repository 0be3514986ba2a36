/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef SWITCH_FIX_H
#define SWITCH_FIX_H

/* A switch named "t" that runs in this process, in a folder of its own. */

#include "lodge/clock.h"
#include "switch_client.h"
#include "switch_host.h"

typedef struct Fix {
    char *dir;
    LodgeClock *clock;
    SwName *name;
    SwHost *host;
    char *uml, *data, *vde; /* paths */
} Fix;

void fix_open(Fix *x);
void fix_close(Fix *x); /* the switch must have left nothing behind */
/* The switch dies, and there is another; the second one has no doors but its own. */
void host_stop(Fix *x);
void host_start(Fix *x);
unsigned ports_of(Fix *x); /* how many are plugged in */
/* What port number @port counted: frames that came, or (@drop at least 0) a SwDrop. 0: not there. */
uint64_t count_of(Fix *x, unsigned port, int drop);
void wait_ports(Fix *x, unsigned n); /* until so many are plugged in */

#endif
