/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_WIRE_H
#define LODGE_WIRE_H

#include "lodge/net.h"

/* Count frames that @p's owner could not send and threw away. Context: @p's IoThread. */
void net_count_tx_drop(NetPort *p, unsigned frames);
/* Wait until nothing that @p or its peer was doing when this was called goes on. Main thread. */
void net_settle(NetPort *p);

#endif
