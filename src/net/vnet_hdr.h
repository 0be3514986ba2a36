/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VNET_HDR_H
#define LODGE_VNET_HDR_H

/* The header that a tap with IFF_VNET_HDR has before each frame (linux/virtio_net.h). */

#include <linux/virtio_net.h>

#include "lodge/net.h"

/* Of Linux 6.2, which the headers of an older one lack. */
enum {
    VNET_HDR_GSO_UDP_L4 = 5,    /* VIRTIO_NET_HDR_GSO_UDP_L4 */
    VNET_TUN_USO = 0x20 | 0x40, /* TUN_F_USO4, TUN_F_USO6: the kernel takes them together */
};

/* Have the tap @fd give checksums that are to be done, what TUN_F_* in @flags say, and datagrams of
 * UDP in one frame; false: the kernel does not know the last, nothing has changed. */
bool vnet_tun_set_uso(int fd, unsigned flags);
/* What @f leaves to be done, for the kernel. */
void vnet_hdr_of(const NetFrame *f, struct virtio_net_hdr *ret_hdr);
/* What the kernel left to be done of @f, whose len is set; false: it makes no sense. */
bool vnet_hdr_read(const struct virtio_net_hdr *h, NetFrame *f);

#endif
