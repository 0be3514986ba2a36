/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's side of the network benchmark, on an interface by a packet socket: net_peer IF blast LEN
 * sends frames of LEN bytes (tso: TCP of 65,160 bytes in segments of 1,448) as fast as they are taken;
 * net_peer IF echo sends back each frame of EtherType 88B5. Both until killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>

enum { BENCH_TYPE = 0x88b5, BATCH = 64, MSS = 1448, HEADERS = 54, TSO_LEN = HEADERS + 45 * MSS };

static const uint8_t guest[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56}, own[6] = {2, 0, 0, 0, 0, 1};

static int packet_socket(const char *name, int protocol, bool vnet)
{
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons((uint16_t)protocol),
                             .sll_ifindex = (int)if_nametoindex(name)};
    int fd = socket(AF_PACKET, SOCK_RAW, htons((uint16_t)protocol)), one = 1;

    if (fd < 0 || (vnet && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) < 0) ||
        /* past the queue nobody cuts what the interface does not take yet */
        (!vnet && setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one) < 0) ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        perror(name);
        exit(1);
    }
    return fd;
}

static void put16(uint8_t *at, unsigned v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

static uint16_t fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

/* TCP that is to be cut, from 10.9.0.1 to 10.9.0.2; @h is its header. */
static void make_tso(uint8_t *f, struct virtio_net_hdr *h)
{
    static const uint8_t head[] = {8, 0, 0x45, 0}, addr[8] = {10, 9, 0, 1, 10, 9, 0, 2};
    uint32_t sum = 6 + TSO_LEN - 34;

    *h = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                 .gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .hdr_len = HEADERS,
                                 .gso_size = MSS, .csum_start = 34, .csum_offset = 16};
    memcpy(f + 12, head, 4);
    put16(f + 16, TSO_LEN - 14);
    f[22] = 64;
    f[23] = 6;
    memcpy(f + 26, addr, 8);
    for (unsigned k = 0; k < 8; k += 2)
        sum += (unsigned)addr[k] << 8 | addr[k + 1];
    put16(f + 50, fold(sum));
    sum = 0;
    for (unsigned k = 14; k < 34; k += 2)
        sum += (unsigned)f[k] << 8 | f[k + 1];
    put16(f + 24, (uint16_t)~fold(sum));
    put16(f + 34, 9);
    put16(f + 36, 9);
    f[46] = 0x50;
    f[47] = 0x10;
}

static void blast(const char *name, const char *what)
{
    bool tso = !strcmp(what, "tso");
    size_t len = tso ? TSO_LEN : strtoul(what, NULL, 10);
    int fd = packet_socket(name, 0, tso);
    uint8_t *f = calloc(1, len + 64);
    struct virtio_net_hdr h;
    struct iovec iov[2] = {{&h, sizeof h}, {f, len}};
    struct mmsghdr m[BATCH];

    memcpy(f, guest, 6);
    memcpy(f + 6, own, 6);
    put16(f + 12, BENCH_TYPE);
    if (tso)
        make_tso(f, &h);
    memset(m, 0, sizeof m);
    for (unsigned i = 0; i < BATCH; i++) {
        m[i].msg_hdr.msg_iov = tso ? iov : iov + 1;
        m[i].msg_hdr.msg_iovlen = tso ? 2 : 1;
    }
    for (;;) {
        if (sendmmsg(fd, m, BATCH, 0) < 0 && errno != ENOBUFS && errno != EAGAIN &&
            errno != ENETDOWN && errno != ENXIO) {
            perror("send");
            exit(1);
        }
    }
}

static void echo(const char *name)
{
    int fd = packet_socket(name, BENCH_TYPE, false);
    uint8_t f[2048], was[6];

    for (;;) {
        ssize_t n = recv(fd, f, sizeof f, 0);
        if (n < 14 || !memcmp(f + 6, own, 6))
            continue;
        memcpy(was, f, 6);
        memcpy(f, f + 6, 6);
        memcpy(f + 6, was, 6);
        if (send(fd, f, (size_t)n, 0) < 0 && errno != ENOBUFS && errno != ENETDOWN)
            perror("send");
    }
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[2], "blast"))
        blast(argv[1], argv[3]);
    if (argc == 3 && !strcmp(argv[2], "echo"))
        echo(argv[1]);
    fprintf(stderr, "usage: net_peer IF blast LEN|tso, net_peer IF echo\n");
    return 2;
}
