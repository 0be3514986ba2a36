/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The user network, spoken to with hand-made frames: ARP, DHCP, TFTP, TCP out to the host's
 * loopback and in through a forwarded port, long datagrams; and the options that it refuses. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/clock.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"
#include "net_options.h"
#include "pkt.h"
#include "user_guest.h"

static bool is_dhcp(const uint8_t *p, gsize len)
{
    return len > 282 && load_be16(p + 12) == PKT_TYPE_IP4 && p[23] == PKT_PROTO_UDP &&
           load_be16(p + 36) == 68;
}

/* A destination-unreachable message. */
static bool is_unreachable(const uint8_t *p, gsize len)
{
    return len >= 42 && load_be16(p + 12) == PKT_TYPE_IP4 && p[23] == 1 && p[34] == 3;
}

/* One DHCP exchange of message @type; the answer's type, and the address it gives. */
static uint8_t dhcp(Guest *g, uint8_t type, uint32_t *ret_ip)
{
    uint8_t p[400] = {0}, *udp = p + 34, *bootp = p + 42, *opt = bootp + 236;
    uint8_t answer = 0;

    eth(p, broadcast, PKT_TYPE_IP4);
    store_be16(udp, 68);
    store_be16(udp + 2, 67);
    store_be16(udp + 4, sizeof p - 34);
    bootp[0] = bootp[1] = 1;
    bootp[2] = 6;
    store_be32(bootp + 4, 0x12345678);
    memcpy(bootp + 28, user_guest_mac, 6);
    memcpy(opt, "\x63\x82\x53\x63\x35\x01", 6);
    opt[6] = type;
    memcpy(opt + 7, "\x32\x04\x0a\x00\x02\x0f\xff", 7); /* the address wanted */
    ip4(g, p, 0, 0xffffffff, PKT_PROTO_UDP, sizeof p - 34, udp + 6);
    guest_send(g, p, sizeof p);
    g_autoptr(GBytes) b = guest_wait(g, is_dhcp);
    gsize len;
    const uint8_t *r = g_bytes_get_data(b, &len);
    *ret_ip = load_be32(r + 42 + 16);
    for (gsize i = 282; i + 2 < len && r[i] != 0xff; i += 2u + r[i + 1]) {
        if (r[i] == 0x35)
            answer = r[i + 2];
    }
    return answer;
}

static void test_arp_and_dhcp(void)
{
    Guest g;
    uint32_t ip;

    guest_start(&g, NULL);
    arp(&g);
    g_assert_cmpuint(dhcp(&g, 1, &ip), ==, 2); /* discover, offer */
    g_assert_cmphex(ip, ==, GUEST_IP);
    g_assert_cmpuint(dhcp(&g, 3, &ip), ==, 5); /* request, acknowledgement */
    g_assert_cmphex(ip, ==, GUEST_IP);
    guest_stop(&g);
}

/* ---- TFTP ---- */

enum { TFTP_HERE = 2000, TFTP_BLOCK = 512, TFTP_BLOCKS = 4, TFTP_QUIET_MS = 100 };

/* Ethernet, IPv4 and UDP around @len bytes from @port of ours to the server. */
static void tftp_send(Guest *g, uint16_t port, const void *data, uint32_t len)
{
    uint8_t p[128] = {0}, *udp = p + 34;

    eth(p, g->gateway, PKT_TYPE_IP4);
    store_be16(udp, port);
    store_be16(udp + 2, 69);
    store_be16(udp + 4, (uint16_t)(8 + len));
    memcpy(udp + 8, data, len);
    ip4(g, p, GUEST_IP, HOST_IP, PKT_PROTO_UDP, 8 + len, udp + 6);
    guest_send(g, p, 42 + len);
}

static void tftp_ack(Guest *g, uint16_t port, uint16_t block)
{
    uint8_t ack[4] = {0, 4};

    store_be16(ack + 2, block);
    tftp_send(g, port, ack, sizeof ack);
}

static bool is_tftp_data(const uint8_t *p, gsize len)
{
    return len >= 60 && load_be16(p + 12) == PKT_TYPE_IP4 && p[23] == PKT_PROTO_UDP &&
           load_be16(p + 34) == 69 && load_be16(p + 42) == 3;
}

/* The next frame has @block for @port, whose bytes are all @block. */
static void tftp_expect(Guest *g, uint16_t port, uint16_t block)
{
    g_autoptr(GBytes) b = guest_wait(g, is_tftp_data);
    const uint8_t *p = g_bytes_get_data(b, NULL);

    g_assert_cmpuint(load_be16(p + 36), ==, port);
    g_assert_cmpuint(load_be16(p + 44), ==, block);
    g_assert_cmpuint(load_be16(p + 38), ==, 8 + 4 + TFTP_BLOCK);
    for (unsigned i = 0; i < TFTP_BLOCK; i++)
        g_assert_cmpuint(p[46 + i], ==, block);
}

static void tftp_expect_nothing(Guest *g)
{
    GBytes *b;

    while ((b = g_async_queue_timeout_pop(g->frames, TFTP_QUIET_MS * G_TIME_SPAN_MILLISECOND))) {
        g_assert_false(is_tftp_data(g_bytes_get_data(b, NULL), g_bytes_get_size(b)));
        g_bytes_unref(b);
    }
}

/* A client that repeats itself because it is slow gets one block for each; one that lost a block
 * gets that again; a second transfer of another port is not touched. */
static void test_tftp_repeats(void)
{
    static const char request[] = "\0\1file\0octet", enough[] = "\0\5\0\0";
    Guest g;
    g_autofree char *dir = g_dir_make_tmp("lodge-tftp-XXXXXX", NULL);
    g_autoptr(GHashTable) opts = options("tftp", dir, NULL);
    g_autofree char *file = g_build_filename(dir, "file", NULL);
    uint8_t data[TFTP_BLOCKS * TFTP_BLOCK];

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(1 + i / TFTP_BLOCK);
    g_assert_true(g_file_set_contents(file, (char *)data, sizeof data, NULL));
    guest_start_at(&g, opts, lodge_clock_new_manual(0));
    arp(&g);
    tftp_send(&g, TFTP_HERE, request, sizeof request);
    tftp_expect(&g, TFTP_HERE, 1);
    tftp_ack(&g, TFTP_HERE, 1);
    tftp_expect(&g, TFTP_HERE, 2);
    tftp_ack(&g, TFTP_HERE, 1); /* on its way when block 2 was sent */
    tftp_expect_nothing(&g);
    tftp_ack(&g, TFTP_HERE, 2);
    tftp_expect(&g, TFTP_HERE, 3);
    tftp_send(&g, TFTP_HERE + 1, request, sizeof request);
    tftp_expect(&g, TFTP_HERE + 1, 1);
    clock_advance(g.clock, NS_PER_SEC);
    tftp_ack(&g, TFTP_HERE, 1); /* older: a stray */
    tftp_expect_nothing(&g);
    tftp_ack(&g, TFTP_HERE, 2); /* block 3 got lost */
    tftp_expect(&g, TFTP_HERE, 3);
    tftp_ack(&g, TFTP_HERE, 2); /* and it asked twice */
    tftp_expect_nothing(&g);
    tftp_ack(&g, TFTP_HERE, 3);
    tftp_expect(&g, TFTP_HERE, 4);
    tftp_ack(&g, TFTP_HERE + 1, 1);
    tftp_expect(&g, TFTP_HERE + 1, 2);
    tftp_send(&g, TFTP_HERE, request, sizeof request); /* the same port begins anew */
    tftp_expect(&g, TFTP_HERE, 1);
    tftp_ack(&g, TFTP_HERE, 1);
    tftp_expect(&g, TFTP_HERE, 2);
    for (uint16_t i = 2; i < 14; i++) { /* more transfers than are remembered; libslirp has 20 */
        tftp_send(&g, TFTP_HERE + i, request, sizeof request);
        tftp_expect(&g, TFTP_HERE + i, 1);
        tftp_ack(&g, TFTP_HERE + i, 1);
        tftp_expect(&g, TFTP_HERE + i, 2);
    }
    for (uint16_t i = 0; i < 14; i++) /* libslirp would not free what is under way */
        tftp_send(&g, TFTP_HERE + i, enough, sizeof enough);
    arp(&g); /* answered after all that */
    guest_stop(&g);
    g_remove(file);
    g_rmdir(dir);
}

static void test_tcp_out(void)
{
    Guest g;
    Tcp t = {.g = &g, .here = 40000, .seq = 1000, .got = g_string_new(NULL)};
    int server = listen_loopback(&t.there);

    guest_start(&g, NULL);
    arp(&g);
    /* Several in turn: libslirp's descriptors come and go under the same numbers. */
    for (int i = 0; i < 3; i++) {
        uint8_t flags;
        t.here++;
        tcp_send(&t, PKT_TCP_SYN, NULL);
        while (!((flags = tcp_recv(&t)) & PKT_TCP_SYN))
            g_assert_cmphex(flags & PKT_TCP_RST, ==, 0);
        tcp_send(&t, PKT_TCP_ACK, NULL);
        int fd = accept(server, NULL, NULL);
        g_assert_cmpint(fd, >=, 0);
        tcp_send(&t, PKT_TCP_ACK | PKT_TCP_PSH, "GET / HTTP/1.0\r\n");
        read_text(fd, "GET / HTTP/1.0\r\n");
        /* Urgent data whose pointer lies goes through as plain data. */
        tcp_send(&t, PKT_TCP_ACK | PKT_TCP_URG, "urgent");
        read_text(fd, "urgent");
        g_assert_cmpint(write(fd, "hello guest", 11), ==, 11);
        close(fd);
        g_string_truncate(t.got, 0);
        t.fin = false;
        while (!t.fin)
            (void)tcp_recv(&t); /* its flags are in t.fin */
        g_assert_cmpstr(t.got->str, ==, "hello guest");
        tcp_send(&t, PKT_TCP_ACK | PKT_TCP_FIN, NULL);
    }
    guest_stop(&g);
    close(server);
    g_string_free(t.got, TRUE);
}

enum { ICMP6_AT = 54, ROUTER_SOLICIT = 133, ROUTER_ADVERT = 134, ECHO_ASK6 = 128, ECHO_ANSWER6 };

/* An ICMPv6 message of @len bytes at ICMP6_AT, its header's two first bytes given, to all routers or
 * (@to) one address, from fe80::1. */
static void icmp6(Guest *g, uint8_t *p, uint8_t type, const uint8_t *to, uint32_t len)
{
    static const uint8_t routers[16] = {0xff, 2, [15] = 2}, from[16] = {0xfe, 0x80, [15] = 1};
    uint8_t *ip = p + 14, *m = p + ICMP6_AT;

    eth(p, to ? g->gateway : (const uint8_t[]){0x33, 0x33, 0, 0, 0, 2}, PKT_TYPE_IP6);
    ip[0] = 0x60;
    store_be16(ip + 4, (uint16_t)len);
    ip[6] = 58;
    ip[7] = 255;
    memcpy(ip + 8, from, sizeof from);
    memcpy(ip + 24, to ? to : routers, sizeof routers);
    m[0] = type;
    store_be16(m + 2, pkt_fold(pkt_sum(m, len, pkt_sum(ip + 8, 32, 58 + len))));
    guest_send(g, p, ICMP6_AT + len);
}

static bool is_advert6(const uint8_t *p, gsize len)
{
    return len > ICMP6_AT + 16 && load_be16(p + 12) == PKT_TYPE_IP6 && p[20] == 58 &&
           p[ICMP6_AT] == ROUTER_ADVERT;
}

static bool is_echo6(const uint8_t *p, gsize len)
{
    return len > ICMP6_AT + 8 && load_be16(p + 12) == PKT_TYPE_IP6 && p[20] == 58 &&
           p[ICMP6_AT] == ECHO_ANSWER6;
}

/* The prefix that was asked for is the one that the network's router announces, and it answers. */
static void test_ipv6(void)
{
    static const uint8_t prefix[8] = {0xfd, 0, 0, 1}, host[16] = {0xfd, 0, 0, 1, [15] = 2};
    g_autoptr(GHashTable) opts = options("ipv6-net", "fd00:1::/64", NULL);
    uint8_t solicit[ICMP6_AT + 8] = {0}, ask[ICMP6_AT + 24] = {0};
    Guest g;
    gsize len;

    guest_start(&g, opts);
    arp(&g);
    icmp6(&g, solicit, ROUTER_SOLICIT, NULL, 8);
    g_autoptr(GBytes) advert = guest_wait(&g, is_advert6);
    const uint8_t *p = g_bytes_get_data(advert, &len);
    g_assert_nonnull(memmem(p + ICMP6_AT, len - ICMP6_AT, prefix, sizeof prefix));
    icmp6(&g, ask, ECHO_ASK6, host, 24);
    g_autoptr(GBytes) answer = guest_wait(&g, is_echo6);
    g_assert_cmpmem((const uint8_t *)g_bytes_get_data(answer, NULL) + 22, 16, host, 16);
    guest_stop(&g);
}

/* A restricted guest reaches the service that was put into its network, and nothing of the host. */
static void test_guestfwd(void)
{
    enum { SERVICE = 0x0a000264 };
    Guest g;
    Tcp t = {.g = &g, .here = 40000, .seq = 1000, .got = g_string_new(NULL)};
    int loopback = listen_loopback(&t.there), server = socket(AF_UNIX, SOCK_STREAM, 0);
    g_autofree char *dir = g_dir_make_tmp("lodge-user.XXXXXX", NULL);
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    g_snprintf(at.sun_path, sizeof at.sun_path, "%s/service", dir);
    g_assert_cmpint(bind(server, (struct sockaddr *)&at, sizeof at), ==, 0);
    g_assert_cmpint(listen(server, 1), ==, 0);
    g_autofree char *forward = g_strdup_printf("tcp:10.0.2.100:80-unix:%s", at.sun_path);
    g_autoptr(GHashTable) opts = options("restrict", "on", "guestfwd", forward, NULL);
    guest_start(&g, opts);
    arp(&g);
    tcp_send(&t, PKT_TCP_SYN, NULL); /* refused, or not even answered */
    t = (Tcp){.g = &g, .here = 40001, .there = 80, .to = SERVICE, .seq = 1000, .got = t.got};
    tcp_send(&t, PKT_TCP_SYN, NULL);
    while (!(tcp_recv(&t) & PKT_TCP_SYN))
        ; /* that is of the first one */
    tcp_send(&t, PKT_TCP_ACK, NULL);
    tcp_send(&t, PKT_TCP_ACK | PKT_TCP_PSH, "who is there");
    int fd = accept(server, NULL, NULL);
    read_text(fd, "who is there");
    g_assert_cmpint(write(fd, "a service", 9), ==, 9);
    while (t.got->len < 9)
        (void)tcp_recv(&t); /* what it carries is in t.got */
    g_assert_cmpstr(t.got->str, ==, "a service");
    struct pollfd none = {.fd = loopback, .events = POLLIN};
    g_assert_cmpint(poll(&none, 1, 0), ==, 0);
    guest_stop(&g);
    close(fd);
    close(server);
    close(loopback);
    (void)unlink(at.sun_path);
    g_assert_cmpint(rmdir(dir), ==, 0);
    g_string_free(t.got, TRUE);
}

/* ---- long datagrams ---- */

static bool is_echo_piece(const uint8_t *p, gsize len)
{
    return len >= 60 && load_be16(p + 12) == PKT_TYPE_IP4 && p[23] == 1;
}

/* What answers a datagram that is longer than the MTU comes in pieces that are not. */
static void test_fragments(void)
{
    enum { DATA = 4000, ALL = 34 + 8 + DATA };
    Guest g;
    uint8_t p[ALL], got[8 + DATA] = {0};
    uint32_t have = 0;

    guest_start(&g, NULL);
    arp(&g);
    memset(p, 0, sizeof p);
    for (uint32_t i = 42; i < ALL; i++)
        p[i] = (uint8_t)(i * 5 >> 1);
    eth(p, g.gateway, PKT_TYPE_IP4);
    p[34] = 8; /* echo request */
    store_be16(p + 36, pkt_fold(pkt_sum(p + 34, ALL - 34, 0)));
    uint8_t unused[2];
    ip4(&g, p, GUEST_IP, HOST_IP, 1, ALL - 34, unused);
    guest_send(&g, p, ALL);
    for (int pieces = 0; have < sizeof got; pieces++) {
        g_autoptr(GBytes) b = guest_wait(&g, is_echo_piece);
        const uint8_t *r = g_bytes_get_data(b, NULL);
        uint32_t n = load_be16(r + 16) - 20u, at = (load_be16(r + 20) & 0x1fff) * 8u;
        g_assert_true(range_within(at, n, sizeof got));
        g_assert_cmpint(!!(load_be16(r + 20) & 0x2000), ==, at + n < sizeof got);
        memcpy(got + at, r + 34, n);
        have += n;
        g_assert_cmpint(pieces, <, 3);
    }
    g_assert_cmpuint(got[0], ==, 0); /* echo reply */
    g_assert_cmpmem(got + 8, DATA, p + 42, DATA);
    g_assert_cmpuint(g_atomic_int_get(&g.bad), ==, 0);
    guest_stop(&g);
}

static void test_loopback_off(void)
{
    Guest g;
    Tcp t = {.g = &g, .here = 40000, .seq = 1000, .got = g_string_new(NULL)};
    int server = listen_loopback(&t.there);
    g_autoptr(GHashTable) opts = options("host-loopback", "off", NULL);

    guest_start(&g, opts);
    arp(&g);
    tcp_send(&t, PKT_TCP_SYN, NULL);
    g_bytes_unref(guest_wait(&g, is_unreachable));
    struct pollfd p = {server, POLLIN, 0};
    g_assert_cmpint(poll(&p, 1, 0), ==, 0);
    guest_stop(&g);
    close(server);
    g_string_free(t.got, TRUE);
}

static void keep_note(void *opaque, const char *line)
{
    GString *s = opaque;

    g_string_append(s, line);
    g_string_append_c(s, '\n');
}

static void test_hostfwd(void)
{
    Guest g;
    Tcp t = {.g = &g, .seq = 7000, .got = g_string_new(NULL)};
    g_autoptr(GHashTable) opts = options("hostfwd", "tcp::0-:22", "hostfwd", "udp::0-:53", NULL);
    GString *notes = g_string_new(NULL);
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    unsigned port = 0;

    lodge_set_log(keep_note, notes);
    guest_start(&g, opts);
    lodge_set_log(NULL, NULL);
    const char *note = strstr(notes->str, "forwarding 127.0.0.1:");
    g_assert_nonnull(note);
    g_assert_cmpint(sscanf(note, "forwarding 127.0.0.1:%u to guest port 22", &port), ==, 1);
    g_assert_cmpuint(port, >, 0);
    arp(&g);

    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sa.sin_port = htons((uint16_t)port);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&sa, sizeof sa), ==, 0);
    while (!(tcp_recv(&t) & PKT_TCP_SYN))
        ;
    g_assert_cmpuint(t.here, ==, 22);
    tcp_send(&t, PKT_TCP_SYN | PKT_TCP_ACK, NULL);
    g_assert_cmpint(write(fd, "hi", 2), ==, 2);
    while (t.got->len < 2)
        (void)tcp_recv(&t); /* flags do not matter here */
    g_assert_cmpstr(t.got->str, ==, "hi");
    tcp_send(&t, PKT_TCP_ACK | PKT_TCP_PSH, "SSH-2.0-test\r\n");
    read_text(fd, "SSH-2.0-test\r\n");
    close(fd);

    /* The port is taken now, and a second network says so. */
    g_autofree char *text = g_strdup_printf("tcp:127.0.0.1:%u-:22", port);
    g_autofree char *name = g_strdup_printf("127.0.0.1:%u", port);
    g_autoptr(GHashTable) again = options("hostfwd", text, NULL);
    g_autoptr(GError) error = NULL;
    g_assert_null(net_backend_open("user", "net1", again, g.clock, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_assert_nonnull(strstr(error->message, name));
    guest_stop(&g);

    g_string_free(t.got, TRUE);
    g_string_free(notes, TRUE);
}

/* Frames that make no sense do no harm. */
static uint64_t dropped(Guest *g, const char *reason)
{
    NetInfo info;

    net_backend_info(g->be, &info);
    for (unsigned i = 0; i < NET_DROPS_MAX && info.drop[i].reason; i++) {
        if (!strcmp(info.drop[i].reason, reason))
            return info.drop[i].frames;
    }
    return 0;
}

/* What is not given to libslirp is counted, by its reason. */
static void test_counts(void)
{
    uint8_t p[60] = {0};
    Guest g;

    guest_start(&g, NULL);
    arp(&g);
    eth(p, g.gateway, PKT_TYPE_IP4);
    p[14] = 0x4f; /* options beyond its end */
    for (uint32_t len = 1; len < 60; len += 20) /* runts, and an IP header cut short */
        guest_send(&g, p, len);
    guest_send(&g, p, sizeof p);
    p[14] = 0x45;
    p[20] = 0x20; /* more fragments */
    p[23] = PKT_PROTO_TCP;
    guest_send(&g, p, sizeof p);
    arp(&g); /* behind them */
    g_assert_cmpuint(dropped(&g, "sent malformed"), ==, 4);
    g_assert_cmpuint(dropped(&g, "a fragment of TCP"), ==, 1);
    guest_stop(&g);
}

static void test_garbage(void)
{
    Guest g;
    uint8_t p[2000];
    g_autoptr(GHashTable) opts = options("restrict", "on", NULL); /* nothing leaves this host */

    guest_start(&g, opts);
    arp(&g);
    for (int i = 0; i < 3000; i++) {
        uint32_t len = (uint32_t)g_test_rand_int_range(1, sizeof p);
        for (uint32_t j = 0; j < len; j++)
            p[j] = (uint8_t)g_test_rand_int();
        if (len > 54 && i % 4) {
            eth(p, g.gateway, i % 4 == 1 ? PKT_TYPE_IP4 : i % 4 == 2 ? PKT_TYPE_IP6 : PKT_TYPE_ARP);
            p[14] = i % 4 == 1 ? 0x45 : i % 4 == 2 ? 0x60 : 0;
        }
        guest_send(&g, p, len);
    }
    arp(&g);
    guest_stop(&g);
}

static void test_refused(void)
{
    static const struct {
        const char *name, *value, *says;
    } bad[] = {
        {"hostfwd", "tcp:22", "is not tcp|udp:"},
        {"hostfwd", "", "is not tcp|udp:"},
        {"hostfwd", "sctp::22-:22", "is not tcp|udp:"},
        {"hostfwd", "tcp::22", "is not tcp|udp:"},
        {"hostfwd", "tcp::70000-:22", "is not tcp|udp:"},
        {"hostfwd", "tcp::2222-:0", "is not tcp|udp:"},
        {"hostfwd", "tcp:localhost:2222-:22", "is not tcp|udp:"},
        {"hostfwd", "tcp::-1-:22", "is not tcp|udp:"},
        {"restrict", "yes", "neither on nor off"},
        {"mtu", "575", "576 to 65520"},
        {"mtu", "65521", "576 to 65520"},
        {"mtu", "1000", "ipv6=off"},
        {"tftp", "/nonexistent", "not a folder"},
        {"dns", "8.8.8.8", "network"},
        {"hostname", "", "characters"},
        {"guestfwd", "x", "is not tcp:ADDR:PORT-unix:PATH"},
        {"guestfwd", "tcp:9.9.9.9:80-unix:/x", "not a free one"},
        {"net", "10.0.0.0/30", "8 to 27 bits"},
        {"net", "10.0.0.1/24", "bits behind"},
        {"ipv6-net", "fec0::1/64", "ADDR/64"},
        {"slow", "x", "it takes hostfwd, guestfwd"},
    };
    LodgeClock *clock = lodge_clock_new();

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GHashTable) opts = options(bad[i].name, bad[i].value, NULL);
        g_assert_null(net_backend_open("user", "net0", opts, clock, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        if (!strstr(error->message, bad[i].says) || !strstr(error->message, "net 'net0': "))
            g_error("%s=%s: %s", bad[i].name, bad[i].value, error->message);
    }
    g_autoptr(GError) error = NULL;
    g_assert_null(net_backend_open("tap9", "net0", NULL, clock, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_autoptr(GHashTable) twice = options("mtu", "1500", "mtu", "1500", NULL);
    g_assert_null(net_backend_open("user", "net0", twice, clock, NULL));
    g_autoptr(NetBackend) none = net_backend_open("none", "net0", NULL, clock, NULL);
    g_assert_nonnull(none);
    g_assert_null(none->port);
    g_autoptr(GHashTable) all = options("mtu", "65520", "restrict", "on", "ipv6", "off", "hostname",
                                        "lodge", "dns", "10.0.2.9", "tftp", "/tmp", "bootfile", "x",
                                        NULL);
    g_autoptr(NetBackend) be = net_backend_open("user", "net0", all, clock, NULL);
    g_assert_nonnull(be);
    g_assert_cmpuint(be->port->mtu, ==, 65520);
    net_backend_close(g_steal_pointer(&be));
    net_backend_close(g_steal_pointer(&none));
    lodge_clock_free(clock);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/user-net/arp-and-dhcp", test_arp_and_dhcp);
    g_test_add_func("/user-net/tftp-repeats", test_tftp_repeats);
    g_test_add_func("/user-net/tcp-out", test_tcp_out);
    g_test_add_func("/user-net/ipv6", test_ipv6);
    g_test_add_func("/user-net/guestfwd", test_guestfwd);
    g_test_add_func("/user-net/fragments", test_fragments);
    g_test_add_func("/user-net/loopback-off", test_loopback_off);
    g_test_add_func("/user-net/hostfwd", test_hostfwd);
    g_test_add_func("/user-net/counts", test_counts);
    g_test_add_func("/user-net/garbage", test_garbage);
    g_test_add_func("/user-net/refused", test_refused);
    return g_test_run();
}
