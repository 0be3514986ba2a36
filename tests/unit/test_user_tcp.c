/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Bulk TCP through the user network: long and short segments both ways, and a guest that does not read
 * for a while. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/num.h"
#include "pkt.h"
#include "user_guest.h"

enum { BULK = 150000, UP = 40000 };

static gpointer write_bulk(gpointer opaque)
{
    int fd = GPOINTER_TO_INT(opaque);
    g_autofree uint8_t *data = g_malloc(BULK);

    for (uint32_t i = 0, n = 0; i < BULK; i += n) {
        for (uint32_t j = i; j < BULK; j++)
            data[j] = (uint8_t)(j * 11 >> 3);
        ssize_t done = write(fd, data + i, BULK - i);
        g_assert_cmpint(done, >, 0);
        n = (uint32_t)done;
    }
    return NULL;
}

/* 0 where the TCP checksum of this frame of IPv4 is right. */
static uint16_t residue(const uint8_t *p)
{
    uint32_t l4 = load_be16(p + 16) - 20u;

    return pkt_fold(pkt_sum(p + 34, l4, pkt_sum(p + 26, 8, PKT_PROTO_TCP + l4)));
}

/* One from the host through a forwarded port; the host's end. */
static int bulk_open_forwarded(Tcp *t)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_autoptr(GError) error = NULL;
    g_autofree char *made = t->g->be->hostfwd_add(t->g->be, "tcp::0-:22", &error);

    g_assert_no_error(error);
    sa.sin_port = htons((uint16_t)atoi(strchr(made, ':') ? strrchr(made, ':') + 1 : made));
    g_assert_cmpint(connect(fd, (struct sockaddr *)&sa, sizeof sa), ==, 0);
    g_autoptr(GBytes) b = guest_wait(t->g, is_tcp);
    const uint8_t *syn = g_bytes_get_data(b, NULL);
    g_assert_cmphex(syn[47], ==, PKT_TCP_SYN);
    t->there = load_be16(syn + 34);
    t->here = load_be16(syn + 36);
    t->ack = load_be32(syn + 38) + 1;
    bulk_send(t, PKT_TCP_SYN | PKT_TCP_ACK, NULL, 0);
    return fd;
}

/* Both ways between the host and a guest whose card takes long segments, or does not. */
static void bulk(bool takes, int (*open)(Tcp *t))
{
    Guest g;
    Tcp t = {.g = &g, .here = 40000, .seq = 1000};
    uint32_t got = 0, longest = 0;
    g_autofree uint8_t *up = g_malloc(UP), *there = g_malloc(UP);

    guest_start(&g, NULL);
    g_atomic_int_set(&g.port.offloads, takes ? NET_OFF_ALL : 0);
    arp(&g);
    int fd = open(&t);
    g_assert_cmpint(fd, >=, 0);

    GThread *writer = g_thread_new("writer", write_bulk, GINT_TO_POINTER(fd));
    while (got < BULK) {
        g_autoptr(GBytes) b = guest_wait(&g, is_tcp);
        const uint8_t *p = g_bytes_get_data(b, NULL);
        uint32_t n = load_be16(p + 16) - 40u;
        g_assert_cmphex(residue(p), ==, 0);
        if (!n || load_be32(p + 38) != t.ack)
            continue; /* an acknowledgement, or what was sent again */
        for (uint32_t i = 0; i < n; i++)
            g_assert_cmphex(p[54 + i], ==, (uint8_t)((got + i) * 11 >> 3));
        got += n;
        t.ack += n;
        longest = MAX(longest, n);
        bulk_send(&t, PKT_TCP_ACK, NULL, 0);
    }
    g_thread_join(writer);
    g_assert_cmpuint(g_atomic_int_get(&g.bad), ==, 0);
    if (takes) {
        g_assert_cmpuint(longest, >=, 16000);
        g_assert_cmpuint(g_atomic_int_get(&g.gso), >, 0);
    } else {
        g_assert_cmpuint(longest, <=, 1460);
        g_assert_cmpuint(g_atomic_int_get(&g.gso), ==, 0);
    }

    for (uint32_t i = 0; i < UP; i++)
        up[i] = (uint8_t)(i * 13 >> 2);
    bulk_send(&t, PKT_TCP_ACK | PKT_TCP_PSH, up, UP);
    for (uint32_t have = 0; have < UP;) {
        struct pollfd ready = {fd, POLLIN, 0};
        g_assert_cmpint(poll(&ready, 1, DEADLINE_S * 1000), ==, 1);
        ssize_t n = read(fd, there + have, UP - have);
        g_assert_cmpint(n, >, 0);
        have += (uint32_t)n;
    }
    g_assert_cmpmem(there, UP, up, UP);
    close(fd);
    guest_stop(&g);
}

static void test_bulk_long(void)
{
    bulk(true, bulk_open);
    bulk(true, bulk_open_forwarded);
}

static void test_bulk_short(void)
{
    bulk(false, bulk_open);
    bulk(false, bulk_open_forwarded);
}

/* ---- a guest that does not read ---- */

enum { CONNS = 110, EACH = 56000, ROUNDS = 20, ROUND_US = 5000 };

static void nothing(void *opaque)
{
}

/* More than the wire has room for is on its way to a guest that stops reading: nothing is lost, no
 * segment is sent twice for it, and all of it is there when the guest reads again. */
static void test_deaf_guest(void)
{
    uint64_t lost[NET_LOSSES];
    uint32_t got[CONNS] = {0}, done = 0;
    g_autofree uint8_t *data = g_malloc(EACH);
    Tcp t[CONNS];
    int fd[CONNS];
    Guest g;

    for (uint32_t i = 0; i < EACH; i++)
        data[i] = (uint8_t)(i * 11 >> 3);
    guest_start(&g, NULL);
    g_atomic_int_set(&g.port.offloads, NET_OFF_ALL);
    arp(&g);
    for (unsigned i = 0; i < CONNS; i++) {
        t[i] = (Tcp){.g = &g, .here = (uint16_t)(40000 + i), .seq = 1000};
        fd[i] = bulk_open(&t[i]);
        g_assert_cmpint(fd[i], >=, 0);
    }
    guest_turn_deaf(&g);
    for (unsigned i = 0; i < CONNS; i++)
        g_assert_cmpint(send(fd[i], data, EACH, MSG_DONTWAIT), ==, EACH);
    /* Rounds of the network's loop, as many as would lose much. */
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (!g_atomic_int_get(&g.refused)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(ROUND_US);
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        io_thread_call(g.be->port->io, nothing, NULL);
        g_usleep(ROUND_US);
    }
    guest_turn_deaf(&g);
    while (done < CONNS) {
        g_autoptr(GBytes) b = guest_wait(&g, is_tcp);
        const uint8_t *p = g_bytes_get_data(b, NULL);
        uint32_t n = load_be16(p + 16) - 40u, i = load_be16(p + 36) - 40000u;
        g_assert_cmpuint(i, <, CONNS);
        if (!n || load_be32(p + 38) != t[i].ack)
            continue; /* an acknowledgement, or what was sent again */
        g_assert_cmpuint(n, <=, EACH - got[i]);
        g_assert_cmpmem(p + 54, n, data + got[i], n);
        got[i] += n;
        t[i].ack += n;
        done += got[i] == EACH;
        bulk_send(&t[i], PKT_TCP_ACK, NULL, 0);
    }
    net_losses(&g.port, lost);
    for (unsigned i = 0; i < NET_LOSSES; i++)
        g_assert_cmpuint(lost[i], ==, 0);
    for (unsigned i = 0; i < CONNS; i++)
        close(fd[i]);
    guest_stop(&g);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/user-tcp/bulk-long", test_bulk_long);
    g_test_add_func("/user-tcp/bulk-short", test_bulk_short);
    g_test_add_func("/user-tcp/deaf-guest", test_deaf_guest);
    return g_test_run();
}
