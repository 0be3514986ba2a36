/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every host end that --net can name; a new one adds its line here and in driver_table.h. */
#include "driver_table.h"

#include <stddef.h>

const NetDriver *const net_driver_table[] = {
    &net_driver_user,
    &net_driver_tap,
    &net_driver_stream,
    &net_driver_dgram,
    &net_driver_mcast,
    &net_driver_daemon,
    &net_driver_vde,
    &net_driver_switch,
    &net_driver_internal,
    &net_driver_host_only,
    &net_driver_none,
    NULL,
};
