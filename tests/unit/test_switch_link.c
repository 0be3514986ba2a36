/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A running switch and Lodge's own link, well and badly behaved. */
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/net.h"
#include "lodge/num.h"
#include "link_ring.h"
#include "pkt.h"
#include "switch_ends.h"
#include "switch_fix.h"

static void test_link(void)
{
    Link a, b;
    Client c;
    Fix x;

    fix_open(&x);
    link_open(&a);
    link_open(&b);
    client_begin(&c, x.uml, NULL, 1);
    g_assert_true(client_ask(&c, 3, 0, 0));
    wait_ports(&x, 3);
    g_assert_true(link_put(&a, 0, 1, 10));
    link_get(&b, 1, 10);
    client_get(&c, 1, 10);
    client_put(&c, 1, 3, 11);
    link_get(&a, 3, 11);
    for (unsigned i = 0; i < 3000; i++) { /* the ring's start comes by again and again */
        while (!link_put(&b, 1, 2, i))
            g_usleep(100);
        link_get(&a, 2, i);
    }
    g_assert_cmpuint(count_of(&x, b.port, SW_DROP_FULL), ==, 0);
    client_end(&c);
    link_close(&a);
    link_close(&b);
    wait_ports(&x, 0);
    fix_close(&x);
}

/* Without its checksum; @len: bytes behind it. */
static void ipv4_head(uint8_t ip[20], uint8_t protocol, uint16_t len)
{
    ip[0] = 0x45;
    store_be16(ip + 2, 20 + len);
    ip[8] = 64;
    ip[9] = protocol;
    store_be32(ip + 12, 0x0a000001);
    store_be32(ip + 16, 0x0a000002);
}

/* A TCP frame of 4000 bytes of payload that is to be cut, to a client that knows no such thing. */
static void test_segments(void)
{
    enum { MSS = 1448, PAYLOAD = 4000, HEADERS = 14 + 20 + 20 };
    uint8_t data[HEADERS + PAYLOAD] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0};
    uint8_t *ip = data + 14, *tcp = ip + 20, got[2048];
    struct iovec iov = {data, sizeof data};
    NetFrame f = {.iov = &iov, .niov = 1, .len = sizeof data, .gso = NET_GSO_TCPV4, .gso_size = MSS,
                  .hdr_len = HEADERS, .flags = NET_FRAME_NEEDS_CSUM, .csum_start = 34,
                  .csum_off = 16};
    unsigned sum = 0;
    Link a;
    Client c;
    Fix x;

    fix_open(&x);
    link_open(&a);
    client_begin(&c, x.uml, NULL, 1);
    g_assert_true(client_ask(&c, 3, 0, 0));
    wait_ports(&x, 2);
    ipv4_head(ip, 6, 20 + PAYLOAD);
    tcp[12] = 5 << 4;
    tcp[13] = PKT_TCP_ACK;
    g_assert_true(link_tx_put(&a.tx, &f));
    /* Not a TCP frame at all, but said to be one; and one that is too long for the client. */
    store_be16(data + 12, 0x88b5);
    g_assert_true(link_tx_put(&a.tx, &f));
    f.gso = NET_GSO_NONE;
    f.flags = 0;
    g_assert_true(link_tx_put(&a.tx, &f));
    if (link_tx_publish(&a.tx))
        link_kick(&a);
    link_kick(&a);
    while (sum < PAYLOAD) {
        ssize_t n = recv(c.fd, got, sizeof got, 0);
        g_assert_cmpint(n, >, HEADERS);
        g_assert_cmpint(n, <=, HEADERS + MSS);
        g_assert_cmpuint(load_be16(got + 16), ==, n - 14);
        g_assert_cmpuint(load_be32(got + 14 + 20 + 4), ==, sum); /* sequence */
        sum += (unsigned)n - HEADERS;
    }
    g_assert_cmpuint(sum, ==, PAYLOAD);
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (!count_of(&x, 2, SW_DROP_LONG))
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    g_assert_cmpuint(count_of(&x, 2, SW_DROP_MALFORMED), ==, 1);
    client_end(&c);
    link_close(&a);
    wait_ports(&x, 0);
    fix_close(&x);
}

/* The sum of 16-bit words, folded; 0xffff over what has a right checksum in it. */
static uint32_t ones_sum(const uint8_t *d, size_t len, uint32_t sum)
{
    for (size_t i = 0; i < len; i++)
        sum += i & 1 ? d[i] : (uint32_t)d[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/* Datagrams of UDP in one frame, to a tap whose kernel knows no such thing (here a socket, which
 * refuses to): each alone, with a header that leaves nothing to be done, and a right checksum. */
static void test_datagrams(void)
{
    enum { SIZE = 1000, PAYLOAD = 2500, HEADERS = 14 + 20 + 8, VNET = 10 };
    uint8_t data[HEADERS + PAYLOAD] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0};
    uint8_t *ip = data + 14, *udp = ip + 20, got[VNET + HEADERS + PAYLOAD];
    static const uint8_t nothing[VNET];
    struct iovec iov = {data, sizeof data};
    NetFrame f = {.iov = &iov, .niov = 1, .len = sizeof data, .gso = NET_GSO_UDP, .gso_size = SIZE,
                  .hdr_len = HEADERS, .flags = NET_FRAME_NEEDS_CSUM, .csum_start = 34,
                  .csum_off = 6};
    g_autoptr(GError) error = NULL;
    SwHello h = sw_hello(SW_OP_PLUG, "test");
    int tap[2], fds[SW_ATTACH_FDS], ctl = -1;
    unsigned nfds, at = 0;
    SwWelcome w;
    Link a;
    Fix x;

    fix_open(&x);
    link_open(&a);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, tap), ==, 0);
    g_strlcpy(h.arg, "tap:t0", sizeof h.arg);
    ctl = sw_dial("t", &error);
    g_assert_true(sw_send_hello(ctl, &h, &tap[0], 1, &error));
    g_assert_true(sw_recv_welcome(ctl, &w, fds, &nfds, DEADLINE_S * 1000, &error));
    close(ctl);
    close(tap[0]);
    wait_ports(&x, 2);
    ipv4_head(ip, 17, 8 + PAYLOAD);
    store_be16(udp + 2, 53);
    store_be16(udp + 4, 8 + PAYLOAD);
    for (unsigned i = 0; i < PAYLOAD; i++)
        data[HEADERS + i] = (uint8_t)(i * 7 + i / 256);
    g_assert_true(link_tx_put(&a.tx, &f));
    store_be16(data + 12, 0x88b5); /* said to be datagrams, and is not even of IP */
    g_assert_true(link_tx_put(&a.tx, &f));
    (void)link_tx_publish(&a.tx);
    link_kick(&a);
    for (unsigned n = 0; at < PAYLOAD; n++) {
        struct pollfd p = {.fd = tap[1], .events = POLLIN};
        g_assert_cmpint(poll(&p, 1, DEADLINE_S * 1000), ==, 1);
        ssize_t len = recv(tap[1], got, sizeof got, 0);
        unsigned part = MIN((unsigned)SIZE, PAYLOAD - at);
        const uint8_t *frame = got + VNET, *to = frame + 14 + 20;

        g_assert_cmpint(len, ==, VNET + HEADERS + part);
        g_assert_cmpmem(got, VNET, nothing, VNET);
        g_assert_cmpuint(load_be16(frame + 16), ==, 20 + 8 + part);
        g_assert_cmpuint(load_be16(to + 4), ==, 8 + part);
        g_assert_cmpmem(to + 8, part, data + HEADERS + at, part);
        g_assert_cmpuint(ones_sum(frame + 14, 20, 0), ==, 0xffff);
        g_assert_cmpuint(ones_sum(to, 8 + part, ones_sum(frame + 14 + 12, 8, 17 + 8 + part)), ==,
                         0xffff);
        at += part;
    }
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (!count_of(&x, 2, SW_DROP_MALFORMED))
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    g_assert_cmpint(recv(tap[1], got, sizeof got, 0), <, 0);
    g_assert_cmpint(send(tap[1], nothing, 1, 0), ==, 1); /* less than a header: unplugged */
    wait_ports(&x, 1);
    close(tap[1]);
    link_close(&a);
    wait_ports(&x, 0);
    fix_close(&x);
}

/* A reader that never reads loses what it is sent; the others go on. */
static void test_slow_reader(void)
{
    Link a, b, slow;
    Fix x;

    fix_open(&x);
    link_open(&a);
    link_open(&b);
    link_open(&slow);
    wait_ports(&x, 3);
    g_assert_true(link_put(&slow, 0, 3, 1));
    link_get(&a, 3, 1);
    link_get(&b, 3, 1);
    for (unsigned i = 0; i < 20000; i++) {
        while (!link_put(&a, 3, 1, i))
            g_usleep(100);
        if (i % 100 == 0) {
            while (!link_put(&a, i ? 2 : 0, 1, i))
                g_usleep(100);
            link_get(&b, 1, i);
            if (!i) {
                g_assert_true(link_put(&b, 1, 2, 7));
                link_get(&a, 2, 7);
            }
        }
    }
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (count_of(&x, slow.port, SW_DROP_FULL) < 5000)
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    link_close(&a);
    link_close(&b);
    link_close(&slow);
    wait_ports(&x, 0);
    fix_close(&x);
}

/* Wait for @h in vain; how long nobody does so again. */
static int64_t wait_in_vain(SwHostPort *h)
{
    h->full = false; /* it had read something */
    g_assert_cmpint(sw_host_full(h, true), ==, SW_HOLD);
    h->hold_end_ms = sw_host_now_ms(h->host) - 1;
    h->host->rounds++;
    g_assert_cmpint(sw_host_full(h, true), ==, SW_HOLD); /* the loop has not looked yet */
    h->host->rounds++;
    int64_t before = sw_host_now_ms(h->host);
    g_assert_cmpint(sw_host_full(h, true), ==, SW_FULL);
    h->full = false;
    if (h->hold_ok_ms > sw_host_now_ms(h->host) + 1)
        g_assert_cmpint(sw_host_full(h, true), ==, SW_FULL); /* not at once */
    return h->hold_ok_ms - before;
}

/* One that was late once is waited for again soon, one that always is ever more seldom. */
static void test_late_reader(void)
{
    SwHost host = {0};
    SwHostPort h = {.host = &host};

    for (unsigned again = 0; again < 2; again++) {
        for (int gap = SW_HOLD_GAP_FIRST_MS; gap < 2 * SW_HOLD_GAP_MS; gap *= 2) {
            int64_t got = wait_in_vain(&h);

            g_assert_cmpint(got, >=, MIN(gap, (int)SW_HOLD_GAP_MS));
            g_assert_cmpint(got, <, 2 * gap);
            h.hold_ok_ms = sw_host_now_ms(&host);
        }
        h.hold_ok_ms -= SW_HOLD_GAP_MS; /* it was in time since then */
    }
}

/* Peers that write nonsense into the rings lose their ports; nobody else notices. */
static void test_hostile(void)
{
    Link good, other;
    Fix x;

    fix_open(&x);
    link_open(&good);
    link_open(&other);
    for (unsigned i = 0; i < 3; i++) {
        Link bad;

        link_open(&bad);
        wait_ports(&x, 3);
        if (i == 0)
            bad.tx.shared->head = 0x12345;
        else if (i == 1) {
            memset(bad.tx.data, 0xff, 64);
            bad.tx.shared->head = 64;
        } else {
            bad.rx.shared->tail = 0xffff0000u;
            for (unsigned k = 0; k < 30000 && (k % 512 || ports_of(&x) == 3); k++)
                (void)link_put(&good, 99, 1, k); /* flooded into its ring until it is full */
        }
        link_kick(&bad);
        wait_ports(&x, 2);
        char byte;
        g_assert_cmpint(recv(bad.ctl, &byte, 1, 0), ==, 0); /* hung up */
        link_close(&bad);
    }
    link_close(&good);
    link_close(&other);
    wait_ports(&x, 0);
    fix_close(&x);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/switch-link/link", test_link);
    g_test_add_func("/switch-link/segments", test_segments);
    g_test_add_func("/switch-link/datagrams", test_datagrams);
    g_test_add_func("/switch-link/slow-reader", test_slow_reader);
    g_test_add_func("/switch-link/late-reader", test_late_reader);
    g_test_add_func("/switch-link/hostile", test_hostile);
    return g_test_run();
}
