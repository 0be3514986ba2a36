/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_WIRE_H
#define LODGE_WIRE_H

#include "lodge/net.h"

/* Wait until nothing that @p or its peer was doing when this was called goes on. Main thread. */
void net_settle(NetPort *p);

#endif
