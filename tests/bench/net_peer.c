/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's side of the network benchmark.
 *
 * net_peer WHERE blast LEN sends frames of LEN bytes (tso: TCP of 65,160 bytes in segments of
 * 1,448) as fast as they are taken; net_peer WHERE echo sends back each frame of EtherType 88B5.
 * Both until killed. WHERE is an interface, by a packet socket, or switch=NAME, a port of Lodge's
 * switch by Lodge's own link. A line "ready" says that it begins.
 *
 * net_peer TAP bare KLEN MS is what a hypervisor could do at best: it holds the tap as one does
 * and writes (t) frames, reads (r) those that the blast of another net_peer sends, or writes one
 * and reads the answer (p), plainly, for so long, from and to as many buffers as the guest has,
 * while a second thread uses up a CPU as the guest's does. It prints as the guest does: "NAME ops
 * N cycles N kicks 0 bytes N", cycles of 1 ns.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>

#include "link_client.h"

enum { BENCH_TYPE = 0x88b5, BATCH = 64, MSS = 1448, HEADERS = 54, TSO_LEN = HEADERS + 45 * MSS,
       FRAME_ROOM = 1 << 17,
       TX_BUFS = 128, RX_BUFS = 8, LINK_WAIT_MS = 10000, ANSWER_MS = 20 };

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

/* A frame of @len bytes at @f from @from to @to. */
static void make_frame(uint8_t *f, size_t len, const uint8_t *to, const uint8_t *from,
                       struct virtio_net_hdr *h)
{
    memcpy(f, to, 6);
    memcpy(f + 6, from, 6);
    put16(f + 12, BENCH_TYPE);
    *h = (struct virtio_net_hdr){0};
    if (len == TSO_LEN)
        make_tso(f, h);
}

static size_t frame_len(const char *what)
{
    size_t len = !strcmp(what, "tso") ? TSO_LEN : strtoul(what, NULL, 10);

    if (len >= HEADERS && len <= TSO_LEN)
        return len;
    fprintf(stderr, "net_peer: %s: frames have %d to %d bytes\n", what, HEADERS, TSO_LEN);
    exit(2);
}

static void ready(void)
{
    puts("ready");
    fflush(stdout);
}

static void blast(const char *name, size_t len)
{
    bool tso = len == TSO_LEN;
    int fd = packet_socket(name, 0, tso);
    static uint8_t f[FRAME_ROOM];
    struct virtio_net_hdr h;
    struct iovec iov[2] = {{&h, sizeof h}, {f, len}};
    struct mmsghdr m[BATCH];

    make_frame(f, len, guest, own, &h);
    memset(m, 0, sizeof m);
    for (unsigned i = 0; i < BATCH; i++) {
        m[i].msg_hdr.msg_iov = tso ? iov : iov + 1;
        m[i].msg_hdr.msg_iovlen = tso ? 2 : 1;
    }
    ready();
    for (;;) {
        if (sendmmsg(fd, m, BATCH, 0) < 0 && errno != ENOBUFS && errno != EAGAIN &&
            errno != ENETDOWN && errno != ENXIO) {
            perror("send");
            exit(1);
        }
    }
}

/* Back to where it came from; false: it is our own. */
static bool turn_round(uint8_t *f)
{
    uint8_t was[6];

    if (!memcmp(f + 6, own, 6))
        return false;
    memcpy(was, f, 6);
    memcpy(f, f + 6, 6);
    memcpy(f + 6, was, 6);
    return true;
}

static void echo(const char *name)
{
    int fd = packet_socket(name, BENCH_TYPE, false);
    uint8_t f[2048];

    ready();
    for (;;) {
        ssize_t n = recv(fd, f, sizeof f, 0);
        if (n < 14 || !turn_round(f))
            continue;
        if (send(fd, f, (size_t)n, 0) < 0 && errno != ENOBUFS && errno != ENETDOWN)
            perror("send");
    }
}

/* ---- on a switch ---- */

static void link_plug(LinkClient *c, const char *name)
{
    g_autoptr(GError) error = NULL;

    if (link_client_open(c, name, "net_peer", LINK_WAIT_MS, &error)) {
        ready();
        return;
    }
    fprintf(stderr, "net_peer: %s\n", error->message);
    exit(1);
}

static void link_wait(LinkClient *c)
{
    struct pollfd p = {.fd = c->fds[1], .events = POLLIN};

    (void)poll(&p, 1, -1); /* whatever ended it, the rings are looked at */
}

static void drop_all(LinkClient *c)
{
    struct iovec iov;
    NetFrame f;

    while (link_rx_next(&c->rx, &f, &iov))
        continue;
    if (link_rx_release(&c->rx))
        link_client_poke(c->fds[2]);
}

static void link_blast(LinkClient *c, size_t len)
{
    static uint8_t data[FRAME_ROOM];
    struct virtio_net_hdr h;
    struct iovec iov = {data, len};
    NetFrame f = {.iov = &iov, .niov = 1, .len = (uint32_t)len};

    make_frame(data, len, guest, own, &h);
    if (len == TSO_LEN) {
        f.flags = NET_FRAME_NEEDS_CSUM;
        f.gso = NET_GSO_TCPV4;
        f.gso_size = h.gso_size;
        f.hdr_len = h.hdr_len;
        f.csum_start = h.csum_start;
        f.csum_off = h.csum_offset;
    }
    for (;;) {
        unsigned n = 0;

        while (n < BATCH && link_tx_put(&c->tx, &f))
            n++;
        link_client_flush(c);
        drop_all(c);
        while (n < BATCH && !link_tx_want_room(&c->tx, f.len)) {
            link_client_rest(c);
            link_wait(c);
            drop_all(c);
        }
    }
}

static void link_echo(LinkClient *c)
{
    for (;;) {
        struct iovec iov;
        uint8_t data[2048];
        NetFrame f;
        bool any = false;

        while (link_rx_next(&c->rx, &f, &iov)) {
            any = true;
            if (f.len > sizeof data || f.len < HEADERS)
                continue;
            memcpy(data, iov.iov_base, f.len);
            iov.iov_base = data;
            if (turn_round(data))
                (void)link_tx_put(&c->tx, &f); /* one that finds no room is lost */
        }
        link_client_flush(c);
        if (link_rx_release(&c->rx))
            link_client_poke(c->fds[2]);
        if (any)
            continue;
        link_client_rest(c);
        link_wait(c);
    }
}

/* ---- the bare tap ---- */

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *use_cpu(void *opaque)
{
    for (;;)
        __builtin_ia32_pause();
    return NULL;
}

static int open_tap(const char *name)
{
    struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    unsigned long offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK), len = sizeof(struct virtio_net_hdr);

    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &r) < 0 || ioctl(fd, TUNSETOFFLOAD, offloads) < 0 ||
        ioctl(fd, TUNSETVNETHDRSZ, &len) < 0) { /* the one before us may have left another */
        perror(name);
        exit(1);
    }
    return fd;
}

static uint8_t tx_buf[TX_BUFS][FRAME_ROOM] __attribute__((aligned(2 << 20)));
static uint8_t rx_buf[RX_BUFS][FRAME_ROOM];

/* Until a frame of the other side's came; false: none does. */
static bool read_one(int fd, uint64_t number, int wait_ms)
{
    uint8_t *f = rx_buf[number % RX_BUFS];
    struct virtio_net_hdr h;
    struct iovec iov[2] = {{&h, sizeof h}, {f, FRAME_ROOM}};
    struct pollfd p = {.fd = fd, .events = POLLIN};

    for (;;) {
        ssize_t n = readv(fd, iov, 2);
        if (n > (ssize_t)sizeof h && !memcmp(f + 6, own, 6))
            return true;
        if (n < 0 && errno == EAGAIN && poll(&p, 1, wait_ms) <= 0)
            return false;
    }
}

static void bare(const char *name, const char *test, unsigned ms)
{
    size_t len = frame_len(test + 1);
    int fd = open_tap(name);
    struct virtio_net_hdr h;
    uint64_t ops = 0, begin, end;
    pthread_t thread;

    /* A guest's memory: there, and in huge pages. What was never written is one page, always cached. */
    (void)madvise(tx_buf, sizeof tx_buf, MADV_HUGEPAGE);
    memset(tx_buf, 1, sizeof tx_buf);
    for (unsigned i = 0; i < TX_BUFS; i++)
        make_frame(tx_buf[i], len, own, guest, &h);
    if (pthread_create(&thread, NULL, use_cpu, NULL))
        exit(1);
    if (*test == 'r' && !read_one(fd, 0, LINK_WAIT_MS)) {
        fprintf(stderr, "net_peer: nothing comes\n");
        exit(1);
    }
    begin = now_ns();
    end = begin + ms * UINT64_C(1000000);
    while (now_ns() < end) {
        struct iovec iov[2] = {{&h, sizeof h}, {tx_buf[ops % TX_BUFS], len}};
        if (*test != 'r' && writev(fd, iov, 2) < 0) {
            perror("write");
            exit(1);
        }
        ops += *test == 't' || read_one(fd, ops, ANSWER_MS); /* one that is lost is sent again */
    }
    printf("tsc 1000000000 Hz\n%s ops %" PRIu64 " cycles %" PRIu64 " kicks 0 bytes %" PRIu64 "\n",
           test, ops, now_ns() - begin, ops * len);
}

int main(int argc, char **argv)
{
    const char *sw = argc > 1 && !strncmp(argv[1], "switch=", 7) ? argv[1] + 7 : NULL;
    bool blasts = argc == 4 && !strcmp(argv[2], "blast");
    LinkClient link;

    if (!blasts && !(argc == 3 && !strcmp(argv[2], "echo")) &&
        !(argc == 5 && !sw && !strcmp(argv[2], "bare") && strchr("trp", argv[3][0]))) {
        fprintf(stderr, "usage: net_peer IF|switch=NAME blast LEN|tso, "
                        "net_peer IF|switch=NAME echo, net_peer TAP bare t|r|pLEN MS\n");
        return 2;
    }
    if (argc == 5) {
        bare(argv[1], argv[3], (unsigned)atoi(argv[4]));
        return 0;
    }
    if (sw)
        link_plug(&link, sw);
    if (blasts && sw)
        link_blast(&link, frame_len(argv[3]));
    else if (blasts)
        blast(argv[1], frame_len(argv[3]));
    else if (sw)
        link_echo(&link);
    else
        echo(argv[1]);
    return 0;
}
