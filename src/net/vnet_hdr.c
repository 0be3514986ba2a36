/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See vnet_hdr.h. The values of NET_GSO_* are those of VIRTIO_NET_HDR_GSO_*. Threads: any. */
#include "vnet_hdr.h"

#include <sys/ioctl.h>

#include <linux/if_tun.h>

_Static_assert((int)NET_GSO_TCPV4 == VIRTIO_NET_HDR_GSO_TCPV4 &&
                   (int)NET_GSO_TCPV6 == VIRTIO_NET_HDR_GSO_TCPV6 &&
                   (int)NET_GSO_UDP == VNET_HDR_GSO_UDP_L4,
               "handed on as they are");

bool vnet_tun_set_uso(int fd, unsigned flags)
{
    return ioctl(fd, TUNSETOFFLOAD, (unsigned long)(flags | TUN_F_CSUM | VNET_TUN_USO)) >= 0;
}

void vnet_hdr_of(const NetFrame *f, struct virtio_net_hdr *h)
{
    *h = (struct virtio_net_hdr){0};
    if (f->flags & NET_FRAME_NEEDS_CSUM) {
        h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        h->csum_start = f->csum_start;
        h->csum_offset = f->csum_off;
    } else if (f->flags & NET_FRAME_CSUM_VALID) {
        h->flags = VIRTIO_NET_HDR_F_DATA_VALID;
    }
    if (f->gso != NET_GSO_NONE) {
        h->gso_type = f->gso;
        h->gso_size = (uint16_t)f->gso_size;
        h->hdr_len = f->hdr_len;
    }
}

bool vnet_hdr_read(const struct virtio_net_hdr *h, NetFrame *f)
{
    uint8_t gso = h->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;

    if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
        if ((uint32_t)h->csum_start + h->csum_offset + sizeof(uint16_t) > f->len)
            return false;
        f->flags = NET_FRAME_NEEDS_CSUM;
        f->csum_start = h->csum_start;
        f->csum_off = h->csum_offset;
    } else if (h->flags & VIRTIO_NET_HDR_F_DATA_VALID) {
        f->flags = NET_FRAME_CSUM_VALID;
    }
    if (gso == VIRTIO_NET_HDR_GSO_NONE)
        return true;
    if ((gso != VIRTIO_NET_HDR_GSO_TCPV4 && gso != VIRTIO_NET_HDR_GSO_TCPV6 &&
         gso != VNET_HDR_GSO_UDP_L4) ||
        !h->gso_size || !(f->flags & NET_FRAME_NEEDS_CSUM))
        return false;
    f->gso = gso;
    f->gso_size = h->gso_size;
    f->hdr_len = h->hdr_len;
    return true;
}
