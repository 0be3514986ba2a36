/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_DRIVER_TABLE_H
#define LODGE_NET_DRIVER_TABLE_H

#include "lodge/net.h"

extern const NetDriver net_driver_daemon;
extern const NetDriver net_driver_dgram;
extern const NetDriver net_driver_host_only;
extern const NetDriver net_driver_internal;
extern const NetDriver net_driver_mcast;
extern const NetDriver net_driver_none;
extern const NetDriver net_driver_stream;
extern const NetDriver net_driver_switch;
extern const NetDriver net_driver_tap;
extern const NetDriver net_driver_user;
extern const NetDriver net_driver_vde;

#endif
