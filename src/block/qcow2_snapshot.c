/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qcow2.h"
bool qcow_snaps_read(BlkQcow *q, GError **error)
{
    return true;
}
const BlkSnapOps qcow_snap_ops;
