/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "none": no network. It has no port, so the machine gets no card either. A row of its own keeps
 * the choice in the same table, help and checks as the others. Threads: none.
 */
#include "driver_table.h"

#include <stddef.h>

static const NetOptSpec none_opts[] = {{NULL}};

static void none_close(NetBackend *be)
{
    g_free(be);
}

static NetBackend *none_open(const char *id, GHashTable *opts, LodgeClock *clock, GError **error)
{
    NetBackend *be = g_new0(NetBackend, 1);

    be->driver = &net_driver_none;
    be->close = none_close;
    return be;
}

const NetDriver net_driver_none = {
    .name = "none",
    .help = "no network",
    .opts = none_opts,
    .open = none_open,
};
