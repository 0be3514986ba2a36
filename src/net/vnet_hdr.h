/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VNET_HDR_H
#define LODGE_VNET_HDR_H

/* The header that a tap with IFF_VNET_HDR has before each frame (linux/virtio_net.h). */

#include <linux/virtio_net.h>

#include "lodge/net.h"

/* What @f leaves to be done, for the kernel. */
void vnet_hdr_of(const NetFrame *f, struct virtio_net_hdr *ret_hdr);
/* What the kernel left to be done of @f, whose len is set; false: it makes no sense. */
bool vnet_hdr_read(const struct virtio_net_hdr *h, NetFrame *f);

#endif
