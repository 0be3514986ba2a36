/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "user_guest.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <arpa/inet.h>
#include <unistd.h>

#include "lodge/num.h"
#include "pkt.h"

const uint8_t user_guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static bool guest_deliver(NetPort *self, const NetFrame *f)
{
    Guest *g = self->opaque;

    if (g->deaf) {
        g_atomic_int_inc(&g->refused);
        return false;
    }
    uint8_t *copy = g_malloc(f->len);

    g_assert_true(pkt_gather(f, 0, copy, f->len));
    if (f->gso != NET_GSO_NONE) {
        g_atomic_int_inc(&g->gso);
        if (f->gso != NET_GSO_TCPV4 || f->gso_size != 1460 || f->hdr_len != 54 ||
            f->csum_start != 34 || f->flags != NET_FRAME_NEEDS_CSUM ||
            !pkt_finish_csum(copy, f->len, f->csum_start, f->csum_off))
            g_atomic_int_inc(&g->bad);
    } else if (f->len > PKT_ETH_LEN + 1500) {
        g_atomic_int_inc(&g->bad);
    }
    g_async_queue_push(g->frames, g_bytes_new_take(copy, f->len));
    return true;
}

static void guest_writable(NetPort *self)
{
    Guest *g = self->opaque;

    g_async_queue_push(g->room, g);
}

static const NetPortOps guest_ops = {.deliver = guest_deliver, .writable = guest_writable};

void guest_start_at(Guest *g, GHashTable *opts, LodgeClock *clock)
{
    g_autoptr(GError) error = NULL;

    memset(g, 0, sizeof *g);
    g->clock = clock;
    g->io = io_thread_new("guest", g->clock, NULL);
    g->frames = g_async_queue_new_full((GDestroyNotify)g_bytes_unref);
    g->room = g_async_queue_new();
    g->be = net_backend_open("user", "net0", opts, g->clock, &error);
    g_assert_no_error(error);
    g->port = (NetPort){.ops = &guest_ops, .name = "guest", .opaque = g, .io = g->io};
    g_assert_true(net_join(&g->port, g->be->port, NULL));
}

void guest_start(Guest *g, GHashTable *opts)
{
    guest_start_at(g, opts, lodge_clock_new());
}

static void set_deaf(void *opaque)
{
    Guest *g = opaque;

    g->deaf = !g->deaf;
    if (!g->deaf)
        net_rx_ready(&g->port);
}

void guest_turn_deaf(Guest *g)
{
    io_thread_call(g->io, set_deaf, g);
}

void guest_stop(Guest *g)
{
    net_backend_close(g->be);
    g_assert_null(g->port.wire);
    io_thread_free(g->io);
    g_async_queue_unref(g->frames);
    g_async_queue_unref(g->room);
    lodge_clock_free(g->clock);
}

typedef struct SendCall {
    Guest *g;
    const uint8_t *data;
    uint32_t len;
    uint32_t gso_size; /* TCP of IPv4; 0: none */
    unsigned taken;
} SendCall;

static void do_send(void *opaque)
{
    SendCall *s = opaque;
    struct iovec iov = {(void *)s->data, s->len};
    /* Checksums are left to the wire, as a guest's driver does. */
    NetFrame f = {.iov = &iov, .niov = 1, .len = s->len};
    PktInfo info;

    if (pkt_parse(s->data, s->len, &info) && info.l4_off) {
        f.flags = NET_FRAME_NEEDS_CSUM;
        f.csum_start = info.l4_off;
        f.csum_off = info.proto == PKT_PROTO_TCP ? 16 : 6;
    }
    if (s->gso_size) {
        f.gso = NET_GSO_TCPV4;
        f.gso_size = s->gso_size;
    }
    s->taken = net_send(&s->g->port, &f, 1);
}

void guest_send_gso(Guest *g, const uint8_t *data, uint32_t len, uint32_t gso_size)
{
    SendCall s = {g, data, len, gso_size, 0};

    io_thread_call(g->io, do_send, &s);
    while (!s.taken) {
        g_assert_nonnull(g_async_queue_timeout_pop(g->room, DEADLINE_S * G_TIME_SPAN_SECOND));
        io_thread_call(g->io, do_send, &s);
    }
}

void guest_send(Guest *g, const uint8_t *data, uint32_t len)
{
    guest_send_gso(g, data, len, 0);
}

uint32_t eth(uint8_t *p, const uint8_t *to, uint16_t type)
{
    memcpy(p, to, 6);
    memcpy(p + 6, user_guest_mac, 6);
    store_be16(p + 12, type);
    return PKT_ETH_LEN;
}

void ip4(Guest *g, uint8_t *p, uint32_t from, uint32_t to, uint8_t proto, uint32_t len,
                uint8_t *field)
{
    memset(p + 14, 0, 20);
    p[14] = 0x45;
    store_be16(p + 16, (uint16_t)(20 + len));
    store_be16(p + 18, g->ip_id++);
    p[22] = 64;
    p[23] = proto;
    store_be32(p + 26, from);
    store_be32(p + 30, to);
    store_be16(p + 24, pkt_fold(pkt_sum(p + 14, 20, 0)));
    store_be16(field, (uint16_t)~pkt_fold(pkt_sum(p + 26, 8, proto + len)));
}

GBytes *guest_wait(Guest *g, Match match)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;

    while (g_get_monotonic_time() < end) {
        GBytes *b = g_async_queue_timeout_pop(g->frames, G_TIME_SPAN_SECOND);
        gsize len;
        if (!b)
            continue;
        const uint8_t *p = g_bytes_get_data(b, &len);
        if (match(p, len))
            return b;
        g_bytes_unref(b);
    }
    g_error("no answer in %d s", DEADLINE_S);
}

static bool is_arp_reply(const uint8_t *p, gsize len)
{
    return len >= 42 && load_be16(p + 12) == PKT_TYPE_ARP && load_be16(p + 20) == 2;
}

bool is_tcp(const uint8_t *p, gsize len)
{
    return len >= 54 && load_be16(p + 12) == PKT_TYPE_IP4 && p[23] == PKT_PROTO_TCP;
}

void arp(Guest *g)
{
    uint8_t p[60] = {0};
    uint32_t at = eth(p, broadcast, PKT_TYPE_ARP);

    memcpy(p + at, "\0\1\x08\0\6\4\0\1", 8);
    memcpy(p + at + 8, user_guest_mac, 6);
    store_be32(p + at + 14, GUEST_IP);
    store_be32(p + at + 24, HOST_IP);
    guest_send(g, p, sizeof p);
    g_autoptr(GBytes) b = guest_wait(g, is_arp_reply);
    const uint8_t *r = g_bytes_get_data(b, NULL);
    g_assert_cmpuint(g_bytes_get_size(b), >=, 60);
    g_assert_cmphex(load_be32(r + 28), ==, HOST_IP);
    memcpy(g->gateway, r + 22, 6);
}

void tcp_send(Tcp *t, uint8_t flags, const char *data)
{
    uint32_t n = data ? (uint32_t)strlen(data) : 0;
    uint8_t p[256] = {0}, *tcp = p + 34;

    eth(p, t->g->gateway, PKT_TYPE_IP4);
    store_be16(tcp, t->here);
    store_be16(tcp + 2, t->there);
    store_be32(tcp + 4, t->seq);
    store_be32(tcp + 8, t->ack);
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    store_be16(tcp + 14, 8000);
    if (flags & PKT_TCP_URG)
        store_be16(tcp + 18, 0xfff0); /* far beyond the data */
    if (n)
        memcpy(tcp + 20, data, n);
    ip4(t->g, p, GUEST_IP, t->to ? t->to : HOST_IP, PKT_PROTO_TCP, 20 + n, tcp + 16);
    guest_send(t->g, p, 54 + n);
    t->seq += n + ((flags & (PKT_TCP_SYN | PKT_TCP_FIN)) ? 1 : 0);
}

uint8_t tcp_recv(Tcp *t)
{
    g_autoptr(GBytes) b = guest_wait(t->g, is_tcp);
    const uint8_t *p = g_bytes_get_data(b, NULL);
    uint32_t len = load_be16(p + 16) - 40u, seq = load_be32(p + 38);
    uint8_t flags = p[47], off = (p[46] >> 4) * 4;

    len -= off - 20u;
    if (flags & PKT_TCP_SYN) {
        t->there = load_be16(p + 34);
        t->here = load_be16(p + 36);
        t->ack = seq + 1;
    } else if (seq == t->ack && !(flags & PKT_TCP_RST)) {
        g_string_append_len(t->got, (const char *)p + 34 + off, len);
        t->ack += len + (flags & PKT_TCP_FIN ? 1 : 0);
        t->fin |= flags & PKT_TCP_FIN;
        if (len || (flags & PKT_TCP_FIN))
            tcp_send(t, PKT_TCP_ACK, NULL);
    }
    return flags;
}

void read_text(int fd, const char *want)
{
    char buf[64];
    size_t have = 0;

    while (have < strlen(want)) {
        struct pollfd p = {fd, POLLIN, 0};
        g_assert_cmpint(poll(&p, 1, DEADLINE_S * 1000), ==, 1);
        ssize_t n = read(fd, buf + have, sizeof buf - have);
        g_assert_cmpint(n, >, 0);
        have += (size_t)n;
    }
    g_assert_cmpmem(buf, have, want, strlen(want));
}

int listen_loopback(uint16_t *ret_port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sa;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(bind(fd, (struct sockaddr *)&sa, sizeof sa), ==, 0);
    g_assert_cmpint(listen(fd, 4), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&sa, &len), ==, 0);
    *ret_port = ntohs(sa.sin_port);
    return fd;
}

void bulk_send(Tcp *t, uint8_t flags, const uint8_t *data, uint32_t n)
{
    uint32_t options = flags & PKT_TCP_SYN ? 4 : 0, len = 20 + options + n;
    g_autofree uint8_t *p = g_malloc0(34 + len);
    uint8_t *tcp = p + 34;

    eth(p, t->g->gateway, PKT_TYPE_IP4);
    store_be16(tcp, t->here);
    store_be16(tcp + 2, t->there);
    store_be32(tcp + 4, t->seq);
    store_be32(tcp + 8, t->ack);
    tcp[12] = (uint8_t)((20 + options) / 4 << 4);
    tcp[13] = flags;
    store_be16(tcp + 14, WINDOW);
    if (options)
        memcpy(tcp + 20, "\2\4\x05\xb4", 4);
    if (n)
        memcpy(tcp + 20 + options, data, n);
    ip4(t->g, p, GUEST_IP, t->to ? t->to : HOST_IP, PKT_PROTO_TCP, len, tcp + 16);
    guest_send_gso(t->g, p, 34 + len, n > 1460 ? 1460 : 0);
    t->seq += n + (flags & PKT_TCP_SYN ? 1 : 0);
}

int bulk_open(Tcp *t)
{
    int server = listen_loopback(&t->there);

    bulk_send(t, PKT_TCP_SYN, NULL, 0);
    g_autoptr(GBytes) answer = guest_wait(t->g, is_tcp);
    const uint8_t *syn = g_bytes_get_data(answer, NULL);
    g_assert_cmphex(syn[47], ==, PKT_TCP_SYN | PKT_TCP_ACK);
    t->ack = load_be32(syn + 38) + 1;
    bulk_send(t, PKT_TCP_ACK, NULL, 0);
    int fd = accept(server, NULL, NULL);
    close(server);
    return fd;
}
