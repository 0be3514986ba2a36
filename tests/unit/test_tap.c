/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A tap in a network namespace of the test's own, with a packet socket at the host's side of it
 * that sees and makes the headers of offloads: checksums and segments that are left to the other end, in
 * both directions, as far as the card takes them. Skipped where namespaces or taps cannot be had.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_packet.h>
#include <linux/virtio_net.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"
#include "pkt.h"
#include "vnet_hdr.h"

enum {
    DEADLINE_S = 20,
    ETH = 14,
    HEADERS = ETH + 20 + 20,
    MSS = 1000,
    LONG = HEADERS + 5 * MSS - 300, /* five segments, the last one shorter */
    ETH_ALL = 3,
};

typedef struct Fix {
    LodgeClock *clock;
    NetBackend *be;
    NetPort port;
    GAsyncQueue *frames; /* Got */
    int sock;            /* at the host's side */
    uint32_t lend;       /* bytes that the card lends */
    uint8_t lent[2048];
    unsigned taken, refused; /* where they were; the loop's */
} Fix;

typedef struct Got {
    NetFrame meta;
    uint8_t data[NET_FRAME_MAX];
} Got;

static bool card_deliver(NetPort *self, const NetFrame *f)
{
    Fix *x = self->opaque;
    Got *g = g_new0(Got, 1);
    uint8_t to[6];

    g_assert_true(pkt_gather(f, 0, to, sizeof to));
    g->meta = *f;
    g_assert_true(pkt_gather(f, 0, g->data, f->len));
    if (to[0] & 1) /* the host looks for routers and neighbours */
        g_free(g);
    else
        g_async_queue_push(x->frames, g);
    return true;
}

static const NetPortOps card_ops = {.deliver = card_deliver};

static unsigned card_borrow(NetPort *self, struct iovec *ret_iov, unsigned max)
{
    Fix *x = self->opaque;

    memset(x->lent, 0xff, sizeof x->lent);
    ret_iov[0] = (struct iovec){x->lent, x->lend - x->lend / 3};
    ret_iov[1] = (struct iovec){x->lent + x->lend - x->lend / 3, x->lend / 3};
    return x->lend ? 2 : 0;
}

static bool card_commit(NetPort *self, const NetFrame *f)
{
    Fix *x = self->opaque;

    if (f->len > x->lend) {
        x->refused++;
        return false;
    }
    x->taken += f->len > 0;
    return !f->len || card_deliver(self, f);
}

static const NetPortOps lending_ops = {.deliver = card_deliver, .rx_borrow = card_borrow,
                                       .rx_commit = card_commit};

static bool own_network(void)
{
    static int state;

    if (!state)
        state = unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0 ? 1 : -1;
    return state == 1 && access("/dev/net/tun", R_OK | W_OK) == 0;
}

/* False: the test was skipped. */
static bool start_with(Fix *x, const NetPortOps *ops, uint32_t card_offloads)
{
    g_autoptr(GHashTable) opts = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) name = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    int one = 1;

    memset(x, 0, sizeof *x);
    if (!own_network()) {
        g_test_skip("no network namespace or no /dev/net/tun here");
        return false;
    }
    g_ptr_array_add(name, (gpointer) "lt0");
    g_hash_table_insert(opts, (gpointer) "ifname", name);
    x->clock = lodge_clock_new();
    x->frames = g_async_queue_new_full(g_free);
    x->be = net_backend_open("tap", "net0", opts, x->clock, &error);
    g_assert_no_error(error);
    x->port = (NetPort){.ops = ops, .name = "card", .opaque = x, .io = x->be->port->io,
                        .offloads = card_offloads};
    g_assert_true(net_join(&x->port, x->be->port, NULL));
    x->sock = socket(AF_PACKET, SOCK_RAW, htons(ETH_ALL));
    g_assert_cmpint(x->sock, >=, 0);
    struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_ALL),
                             .sll_ifindex = (int)if_nametoindex("lt0")};
    g_assert_cmpint(bind(x->sock, (struct sockaddr *)&at, sizeof at), ==, 0);
    g_assert_cmpint(setsockopt(x->sock, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one), ==, 0);
    return true;
}

static bool start(Fix *x, uint32_t card_offloads)
{
    return start_with(x, &card_ops, card_offloads);
}

static void stop(Fix *x)
{
    close(x->sock);
    net_backend_close(x->be);
    g_async_queue_unref(x->frames);
    lodge_clock_free(x->clock);
}

/* A TCP frame whose checksum is to be completed from the pseudo header's. */
static void make_tcp(uint8_t *f, uint32_t len)
{
    uint8_t *ip = f + ETH, *tcp = ip + 20;

    memset(f, 0, HEADERS);
    memcpy(f, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0", ETH);
    ip[0] = 0x45;
    store_be16(ip + 2, (uint16_t)(len - ETH));
    ip[8] = 64;
    ip[9] = 6;
    ip[12] = ip[16] = 10;
    ip[15] = 1;
    ip[19] = 2;
    store_be16(ip + 10, pkt_fold(pkt_sum(ip, 20, 0)));
    store_be16(tcp, 1234);
    store_be16(tcp + 2, 80);
    tcp[12] = 5 << 4;
    tcp[13] = PKT_TCP_ACK;
    uint32_t sum = pkt_sum(ip + 12, 8, 6 + (len - ETH - 20));
    store_be16(tcp + 16, (uint16_t)~pkt_fold(sum));
    for (uint32_t i = HEADERS; i < len; i++)
        f[i] = (uint8_t)(i * 3);
}

/* Whether the TCP checksum of a frame is whole. */
static bool tcp_is_good(const uint8_t *f, uint32_t len)
{
    uint32_t total = load_be16(f + ETH + 2), tcp = total - 20;

    return total + ETH <= len &&
           pkt_fold(pkt_sum(f + ETH + 20, tcp, pkt_sum(f + ETH + 12, 8, 6 + tcp))) == 0;
}

typedef struct SendCall {
    Fix *x;
    NetFrame f;
} SendCall;

static void send_on_loop(void *opaque)
{
    SendCall *s = opaque;

    g_assert_cmpuint(net_send(&s->x->port, &s->f, 1), ==, 1);
}

static void card_send(Fix *x, uint8_t *data, uint32_t len, bool segments)
{
    struct iovec iov[3] = {{data, 20}, {data + 20, HEADERS - 20}, {data + HEADERS, len - HEADERS}};
    SendCall s = {x, {.iov = iov, .niov = 3, .len = len, .flags = NET_FRAME_NEEDS_CSUM,
                      .csum_start = ETH + 20, .csum_off = 16}};

    if (segments) {
        s.f.gso = NET_GSO_TCPV4;
        s.f.gso_size = MSS;
        s.f.hdr_len = HEADERS;
    }
    io_thread_call(x->port.io, send_on_loop, &s);
}

/* The next frame to our address at the host's side. */
static uint32_t host_receive(Fix *x, struct virtio_net_hdr *h, uint8_t *to, uint32_t max)
{
    for (;;) {
        struct pollfd p = {.fd = x->sock, .events = POLLIN};
        struct iovec iov[2] = {{h, sizeof *h}, {to, max}};
        struct sockaddr_ll from;
        struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = iov,
                           .msg_iovlen = 2};
        g_assert_cmpint(poll(&p, 1, DEADLINE_S * 1000), ==, 1);
        ssize_t n = recvmsg(x->sock, &m, 0);
        g_assert_cmpint(n, >, (ssize_t)sizeof *h);
        if (from.sll_pkttype != PACKET_OUTGOING && !(to[0] & 1))
            return (uint32_t)n - (uint32_t)sizeof *h;
    }
}

static void host_send(Fix *x, const uint8_t *data, uint32_t len, bool segments)
{
    struct virtio_net_hdr h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = ETH + 20,
                               .csum_offset = 16};
    struct iovec iov[2] = {{&h, sizeof h}, {(void *)data, len}};

    if (segments) {
        h.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
        h.gso_size = MSS;
        h.hdr_len = HEADERS;
    }
    g_assert_cmpint(writev(x->sock, iov, 2), ==, (ssize_t)(sizeof h + len));
}

static Got *card_receive(Fix *x)
{
    Got *g = g_async_queue_timeout_pop(x->frames, DEADLINE_S * G_TIME_SPAN_SECOND);

    g_assert_nonnull(g);
    return g;
}

static void test_to_host(void)
{
    Fix x;
    g_autofree uint8_t *f = g_malloc(LONG), *got = g_malloc(NET_FRAME_MAX);
    struct virtio_net_hdr h;

    if (!start(&x, 0))
        return;
    make_tcp(f, HEADERS + 100);
    card_send(&x, f, HEADERS + 100, false);
    g_assert_cmpuint(host_receive(&x, &h, got, NET_FRAME_MAX), ==, HEADERS + 100);
    g_assert_cmpuint(h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, ==, VIRTIO_NET_HDR_F_NEEDS_CSUM);
    g_assert_cmpuint(h.csum_start, ==, ETH + 20);
    g_assert_cmpmem(got, HEADERS + 100, f, HEADERS + 100);
    /* Five segments cross as one frame. */
    make_tcp(f, LONG);
    card_send(&x, f, LONG, true);
    g_assert_cmpuint(host_receive(&x, &h, got, NET_FRAME_MAX), ==, LONG);
    g_assert_cmpuint(h.gso_type, ==, VIRTIO_NET_HDR_GSO_TCPV4);
    g_assert_cmpuint(h.gso_size, ==, MSS);
    g_assert_cmpmem(got + HEADERS, LONG - HEADERS, f + HEADERS, LONG - HEADERS);
    stop(&x);
}

static void test_to_card(void)
{
    Fix x;
    g_autofree uint8_t *f = g_malloc(LONG);

    if (!start(&x, NET_OFF_CSUM | NET_OFF_TSO4))
        return;
    make_tcp(f, LONG);
    host_send(&x, f, LONG, true);
    /* What waited before the kernel knew what the card takes comes in pieces; then it is one. */
    for (unsigned tries = 0;; tries++) {
        g_autofree Got *g = card_receive(&x);
        g_assert_cmpuint(tries, <, 50);
        if (g->meta.gso == NET_GSO_TCPV4) {
            g_assert_cmpuint(g->meta.len, ==, LONG);
            g_assert_cmpuint(g->meta.gso_size, ==, MSS);
            g_assert_cmpuint(g->meta.flags & NET_FRAME_NEEDS_CSUM, ==, NET_FRAME_NEEDS_CSUM);
            g_assert_cmpmem(g->data + HEADERS, LONG - HEADERS, f + HEADERS, LONG - HEADERS);
            break;
        }
        if (g_async_queue_length(x.frames) <= 0)
            host_send(&x, f, LONG, true);
    }
    stop(&x);
}

/* Make @f one of datagrams of UDP. */
static void make_udp(uint8_t *f, uint32_t len)
{
    make_tcp(f, len);
    f[ETH + 9] = 17;
    store_be16(f + ETH + 10, 0);
    store_be16(f + ETH + 10, pkt_fold(pkt_sum(f + ETH, 20, 0)));
    uint8_t *udp = f + ETH + 20;
    store_be16(udp + 4, (uint16_t)(len - ETH - 20));
    store_be16(udp + 6, (uint16_t)~pkt_fold(pkt_sum(f + ETH + 12, 8, 17 + (len - ETH - 20))));
    for (uint32_t i = ETH + 28; i < len; i++)
        f[i] = (uint8_t)(i * 11);
}

enum { UDP_HEADERS = ETH + 20 + 8, UDP_LONG = UDP_HEADERS + 5 * MSS - 300 };

/* Datagrams of UDP cross as one frame where the kernel knows such, and in any case whole. */
static void test_datagrams(void)
{
    Fix x;
    g_autofree uint8_t *f = g_malloc(UDP_LONG), *got = g_malloc(NET_FRAME_MAX);
    struct virtio_net_hdr h;

    if (!start(&x, NET_OFF_ALL))
        return;
    bool knows = x.be->port->offloads & NET_OFF_USO;
    make_udp(f, UDP_LONG);
    struct iovec iov = {f, UDP_LONG};
    SendCall s = {&x, {.iov = &iov, .niov = 1, .len = UDP_LONG, .flags = NET_FRAME_NEEDS_CSUM,
                       .csum_start = ETH + 20, .csum_off = 6, .gso = NET_GSO_UDP,
                       .gso_size = MSS, .hdr_len = UDP_HEADERS}};
    io_thread_call(x.port.io, send_on_loop, &s);
    uint32_t seen = 0;
    while (seen < UDP_LONG - UDP_HEADERS) {
        uint32_t n = host_receive(&x, &h, got, NET_FRAME_MAX);
        g_assert_cmpuint(n, >, UDP_HEADERS);
        g_assert_cmpuint(h.gso_type, ==, knows ? VNET_HDR_GSO_UDP_L4 : 0);
        g_assert_cmpmem(got + UDP_HEADERS, n - UDP_HEADERS, f + UDP_HEADERS + seen,
                        n - UDP_HEADERS);
        seen += n - UDP_HEADERS;
    }
    if (!knows) {
        stop(&x);
        g_test_skip("a kernel before Linux 6.2");
        return;
    }
    struct virtio_net_hdr to = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = ETH + 20,
                                .csum_offset = 6, .gso_type = VNET_HDR_GSO_UDP_L4,
                                .gso_size = MSS, .hdr_len = UDP_HEADERS};
    struct iovec out[2] = {{&to, sizeof to}, {f, UDP_LONG}};
    g_assert_cmpint(writev(x.sock, out, 2), ==, (ssize_t)(sizeof to + UDP_LONG));
    g_autofree Got *g = card_receive(&x);
    g_assert_cmpuint(g->meta.gso, ==, NET_GSO_UDP);
    g_assert_cmpuint(g->meta.gso_size, ==, MSS);
    g_assert_cmpmem(g->data + UDP_HEADERS, UDP_LONG - UDP_HEADERS, f + UDP_HEADERS,
                    UDP_LONG - UDP_HEADERS);
    stop(&x);
}

/* Frames land in the card's own memory; what is longer than that is whole all the same. */
static void test_lent(void)
{
    Fix x;
    g_autofree uint8_t *f = g_malloc(LONG);
    static const uint32_t lens[] = {HEADERS, HEADERS + 100, 1066, 1067, 1500};

    if (!start_with(&x, &lending_ops, NET_OFF_CSUM | NET_OFF_TSO4))
        return;
    for (unsigned round = 0; round < 2; round++) {
        x.lend = round ? 100 : 1600;
        for (unsigned i = 0; i < G_N_ELEMENTS(lens); i++) {
            make_tcp(f, lens[i]);
            host_send(&x, f, lens[i], false);
            g_autofree Got *g = card_receive(&x);
            g_assert_cmpuint(g->meta.len, ==, MAX(lens[i], 60));
            g_assert_cmpmem(g->data + HEADERS, lens[i] - HEADERS, f + HEADERS, lens[i] - HEADERS);
            for (unsigned k = lens[i]; k < g->meta.len; k++)
                g_assert_cmpuint(g->data[k], ==, 0);
        }
        if (!round)
            g_assert_cmpuint(x.taken, >=, G_N_ELEMENTS(lens) - 1); /* the very first may be early */
    }
    x.lend = 1600;
    make_tcp(f, LONG);
    host_send(&x, f, LONG, true);
    g_autofree Got *g = card_receive(&x);
    g_assert_cmpuint(g->meta.len, ==, LONG);
    g_assert_cmpuint(g->meta.gso, ==, NET_GSO_TCPV4);
    g_assert_cmpuint(g->meta.gso_size, ==, MSS);
    g_assert_cmpuint(g->meta.flags & NET_FRAME_NEEDS_CSUM, ==, NET_FRAME_NEEDS_CSUM);
    g_assert_cmpmem(g->data, LONG, f, LONG);
    g_assert_cmpuint(x.refused, >, 0);
    stop(&x);
}

/* A card that takes nothing gets whole frames of the wire's size. */
static void test_to_plain_card(void)
{
    Fix x;
    g_autofree uint8_t *f = g_malloc(LONG);

    if (!start(&x, 0))
        return;
    make_tcp(f, LONG);
    host_send(&x, f, LONG, true);
    uint32_t payload = 0;
    while (payload < LONG - HEADERS) {
        g_autofree Got *g = card_receive(&x);
        g_assert_cmpuint(g->meta.gso, ==, NET_GSO_NONE);
        g_assert_cmpuint(g->meta.flags & NET_FRAME_NEEDS_CSUM, ==, 0);
        g_assert_cmpuint(g->meta.len, <=, HEADERS + MSS);
        g_assert_true(tcp_is_good(g->data, g->meta.len));
        uint32_t part = load_be16(g->data + ETH + 2) - 40u;
        g_assert_cmpmem(g->data + HEADERS, part, f + HEADERS + payload, part);
        payload += part;
    }
    g_assert_cmpuint(payload, ==, LONG - HEADERS);
    stop(&x);
}

static uint64_t refused_by_host(Fix *x)
{
    NetInfo info = {.link = false};

    net_backend_info(x->be, &info);
    for (unsigned i = 0; i < NET_DROPS_MAX && info.drop[i].reason; i++) {
        if (!strcmp(info.drop[i].reason, "refused by the host"))
            return info.drop[i].frames;
    }
    return 0;
}

static uint64_t refused_by_wire(Fix *x)
{
    uint64_t lost[NET_LOSSES];

    net_losses(&x->port, lost);
    return lost[NET_LOSS_HEADER];
}

/* What is no frame is counted, by who refuses it, and holds nothing up. */
static void test_malformed(void)
{
    static const struct {
        NetFrame f;
        bool by_wire;
    } cases[] = {
        {{.len = 0}, true},
        {{.len = NET_FRAME_MAX + 1}, true},
        {{.len = 1}, false},
        {{.len = ETH - 1}, false},
        {{.len = 500, .flags = NET_FRAME_NEEDS_CSUM, .csum_start = 600, .csum_off = 16}, false},
        {{.len = 500, .flags = NET_FRAME_NEEDS_CSUM, .csum_start = 499}, false},
        {{.len = LONG, .gso = NET_GSO_TCPV4}, false},
        {{.len = LONG, .gso = 77, .gso_size = MSS}, false},
    };
    g_autofree uint8_t *data = g_malloc0(NET_FRAME_MAX + 1), *got = g_malloc(NET_FRAME_MAX);
    uint64_t wire = 0, host = 0;
    struct virtio_net_hdr h;
    Fix x;

    if (!start(&x, 0))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        SendCall s = {&x, cases[i].f};
        struct iovec iov = {data, s.f.len};

        make_tcp(data, LONG);
        s.f.iov = &iov;
        s.f.niov = 1;
        io_thread_call(x.port.io, send_on_loop, &s);
        wire += cases[i].by_wire;
        host += !cases[i].by_wire;
        g_assert_cmpuint(refused_by_wire(&x), ==, wire);
        g_assert_cmpuint(refused_by_host(&x), ==, host);
    }
    make_tcp(data, HEADERS + 100);
    card_send(&x, data, HEADERS + 100, false);
    g_assert_cmpuint(host_receive(&x, &h, got, NET_FRAME_MAX), ==, HEADERS + 100);
    g_assert_cmpuint(refused_by_host(&x), ==, host);
    stop(&x);
}

/* The host's own address on it, and one that is none. */
static void test_address(void)
{
    g_autoptr(GHashTable) opts = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) name = g_ptr_array_new();
    g_autoptr(GPtrArray) address = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    struct ifreq r = {.ifr_name = "lt1"};
    LodgeClock *clock = lodge_clock_new();

    g_ptr_array_add(name, (gpointer) "lt1");
    g_ptr_array_add(address, (gpointer) "10.9.8");
    g_hash_table_insert(opts, (gpointer) "ifname", name);
    g_hash_table_insert(opts, (gpointer) "address", address);
    g_assert_null(net_backend_open("tap", "net0", opts, clock, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    if (!own_network()) {
        lodge_clock_free(clock);
        g_test_skip("no network namespace or no /dev/net/tun here");
        return;
    }
    address->pdata[0] = (gpointer) "10.9.8.7";
    NetBackend *be = net_backend_open("tap", "net0", opts, clock, &error);
    g_assert_no_error(error);
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(ioctl(s, SIOCGIFADDR, &r), ==, 0);
    g_assert_cmphex(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr, ==, htonl(0x0a090807));
    g_assert_cmpint(ioctl(s, SIOCGIFNETMASK, &r), ==, 0);
    g_assert_cmphex(((struct sockaddr_in *)&r.ifr_addr)->sin_addr.s_addr, ==, htonl(0xffffff00));
    g_assert_cmpint(ioctl(s, SIOCGIFFLAGS, &r), ==, 0);
    g_assert_true(r.ifr_flags & IFF_UP);
    close(s);
    net_backend_close(be);
    lodge_clock_free(clock);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/tap/to-host", test_to_host);
    g_test_add_func("/tap/to-card", test_to_card);
    g_test_add_func("/tap/datagrams", test_datagrams);
    g_test_add_func("/tap/lent", test_lent);
    g_test_add_func("/tap/to-plain-card", test_to_plain_card);
    g_test_add_func("/tap/malformed", test_malformed);
    g_test_add_func("/tap/address", test_address);
    return g_test_run();
}
