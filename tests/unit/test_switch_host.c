/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A running switch and its clients: those of uml_switch's and vde_switch's protocols, made here
 * from the protocols' layouts; Lodge's own link, well and badly behaved; and the back end of --net.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"
#include "link_ring.h"
#include "pkt.h"
#include "switch_fix.h"

enum { DEADLINE_S = 20, FRAME = 60 };

/* ---- clients of others' protocols ---- */

typedef struct Client {
    int ctl, fd;
    struct sockaddr_un own, peer; /* peer: where its frames go */
    socklen_t own_len;
    char *path; /* to be removed */
} Client;

static void connect_at(int fd, const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    g_strlcpy(a.sun_path, path, sizeof a.sun_path);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&a, sizeof a), ==, 0);
}

static void set_deadline(int fd)
{
    struct timeval t = {.tv_sec = DEADLINE_S};

    g_assert_cmpint(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t), ==, 0);
}

/* Bound and connected, with nothing asked yet. @path: NULL: an abstract address of full length. */
static void client_begin(Client *c, const char *ctl, const char *path, unsigned id)
{
    *c = (Client){.own.sun_family = AF_UNIX, .own_len = sizeof c->own};
    c->ctl = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    c->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    set_deadline(c->ctl);
    set_deadline(c->fd);
    if (path) {
        c->path = g_strdup(path);
        g_strlcpy(c->own.sun_path, path, sizeof c->own.sun_path);
    } else {
        int pid = getpid();
        memcpy(c->own.sun_path + 4, &pid, sizeof pid);
        memcpy(c->own.sun_path + 8, &id, sizeof id);
    }
    g_assert_cmpint(bind(c->fd, (struct sockaddr *)&c->own, c->own_len), ==, 0);
    connect_at(c->ctl, ctl);
}

static size_t request(uint8_t *to, const Client *c, unsigned version, uint32_t type)
{
    size_t at = version == 3 ? 12 : version ? 14 : 10;

    memset(to, 0, SW_REQUEST_MAX);
    store_le32(to, version ? 0xfeedfaceu : type);
    store_le32(to + 4, version == 3 ? 3 : type);
    if (version == 3)
        store_le32(to + 8, type);
    else if (!version)
        memset(to + 4, 0, 6);
    memcpy(to + at, &c->own, sizeof c->own);
    return at + sizeof c->own;
}

/* Ask for a port; false: refused. */
static bool client_ask(Client *c, unsigned version, uint32_t type, size_t extra)
{
    uint8_t r[SW_REQUEST_MAX];
    size_t len = request(r, c, version, type) + extra;

    g_assert_cmpint(send(c->ctl, r, len, 0), ==, (ssize_t)len);
    return !version || recv(c->ctl, &c->peer, sizeof c->peer, MSG_WAITALL) == sizeof c->peer;
}

static void client_end(Client *c)
{
    close(c->ctl);
    close(c->fd);
    if (c->path)
        (void)unlink(c->path);
    g_clear_pointer(&c->path, g_free);
}

/* ---- frames ---- */

static void make(uint8_t f[FRAME], unsigned dst, unsigned src, unsigned seq)
{
    memset(f, 0x5a, FRAME);
    memset(f, dst ? 0 : 0xff, 6);
    memset(f + 6, 0, 6);
    f[6] = 2;
    f[11] = (uint8_t)src;
    if (dst) {
        f[0] = 2;
        f[5] = (uint8_t)dst;
    }
    store_be16(f + 12, 0x88b5);
    store_be32(f + 14, seq);
}

static void client_put(Client *c, unsigned dst, unsigned src, unsigned seq)
{
    uint8_t f[FRAME];

    make(f, dst, src, seq);
    g_assert_cmpint(sendto(c->fd, f, sizeof f, 0, (struct sockaddr *)&c->peer, sizeof c->peer), ==,
                    FRAME);
}

static void client_get(Client *c, unsigned src, unsigned seq)
{
    uint8_t f[2048];

    g_assert_cmpint(recv(c->fd, f, sizeof f, 0), ==, FRAME);
    g_assert_cmpuint(f[11], ==, src);
    g_assert_cmpuint(load_be32(f + 14), ==, seq);
}

/* ---- what the switch says of itself ---- */

typedef struct Look {
    SwHost *host;
    unsigned port, ports;
    uint64_t value;
    int drop; /* -1: rx frames */
} Look;

static void look(void *opaque)
{
    Look *l = opaque;
    SwPort *p = switch_port(l->host->sw, l->port);

    l->ports = switch_ports(l->host->sw);
    l->value = !p ? 0 : l->drop < 0 ? p->rx_frames : p->drops[l->drop];
}

static unsigned ports_of(Fix *x)
{
    Look l = {.host = x->host};

    io_thread_call(x->host->io, look, &l);
    return l.ports;
}

static uint64_t count_of(Fix *x, unsigned port, int drop)
{
    Look l = {.host = x->host, .port = port, .drop = drop};

    io_thread_call(x->host->io, look, &l);
    return l.value;
}

static void wait_ports(Fix *x, unsigned n)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;

    while (ports_of(x) != n) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/* ---- tests ---- */

static void test_versions(void)
{
    Client v3, v1, v0, vde;
    Fix x;

    fix_open(&x);
    g_autofree char *ctl = g_build_filename(x.vde, "ctl", NULL);
    g_autofree char *path = g_build_filename(x.dir, "c", NULL);
    client_begin(&v3, x.uml, NULL, 3);
    client_begin(&v1, x.uml, NULL, 1);
    client_begin(&v0, x.uml, NULL, 0);
    client_begin(&vde, ctl, path, 0);
    g_assert_true(client_ask(&v3, 3, 0, 2)); /* UML pads by two bytes */
    g_assert_true(client_ask(&v1, 1, 0, 0));
    g_assert_true(client_ask(&v0, 0, 0, 0));
    g_strlcpy(v0.peer.sun_path, x.data, sizeof v0.peer.sun_path);
    v0.peer.sun_family = AF_UNIX;
    g_assert_true(client_ask(&vde, 3, 9 << 8, 0)); /* port 9 */
    g_autofree char *want = g_strdup_printf("%s/009.", x.vde);
    g_assert_true(g_str_has_prefix(vde.peer.sun_path, want));
    (void)unlink(path); /* as libvdeplug does */
    g_assert_cmpint(connect(vde.fd, (struct sockaddr *)&vde.peer, sizeof vde.peer), ==, 0);
    wait_ports(&x, 4);
    Client *all[] = {&v3, &v1, &v0, &vde};
    for (unsigned i = 0; i < 4; i++) {
        client_put(all[i], 0, i + 1, 100 + i);
        for (unsigned k = 0; k < 4; k++) {
            if (k != i)
                client_get(all[k], i + 1, 100 + i);
        }
    }
    /* Now all are known, and nobody else hears it. */
    for (unsigned i = 0; i < 4; i++) {
        client_put(all[i], (i + 1) % 4 + 1, i + 1, 200 + i);
        client_get(all[(i + 1) % 4], i + 1, 200 + i);
    }
    client_end(&v1);
    wait_ports(&x, 3);
    client_put(&v3, 2, 1, 300); /* flooded */
    client_get(&v0, 1, 300);
    client_get(&vde, 1, 300);
    client_end(&v3);
    client_end(&v0);
    client_end(&vde);
    wait_ports(&x, 0);
    fix_close(&x);
}

static void test_requests(void)
{
    static const struct {
        const char *what;
        unsigned version;
        uint32_t type;
        int at; /* change this byte, -1: none */
        uint8_t byte;
    } cases[] = {
        {"unknown type", 3, 2, -1, 0},
        {"not a socket's address", 3, 0, 12, AF_INET},
        {"version 1 with a type", 1, 1, -1, 0},
        {"no such port", 3, 300 << 8, -1, 0},
        {"nobody there", 3, 0, 40, 1},
    };
    uint8_t r[SW_REQUEST_MAX];
    Client c;
    Fix x;

    fix_open(&x);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s", cases[i].what);
        client_begin(&c, x.uml, NULL, i);
        size_t len = request(r, &c, cases[i].version, cases[i].type);
        if (cases[i].at >= 0)
            r[cases[i].at] = cases[i].byte;
        g_assert_cmpint(send(c.ctl, r, len, 0), ==, (ssize_t)len);
        g_assert_cmpint(recv(c.ctl, r, sizeof r, 0), ==, 0); /* hung up */
        client_end(&c);
    }
    /* In pieces. */
    client_begin(&c, x.uml, NULL, 50);
    size_t len = request(r, &c, 3, 0);
    for (size_t i = 0; i < len; i++) {
        g_assert_cmpint(send(c.ctl, r + i, 1, MSG_NOSIGNAL), ==, 1);
        if (i % 16 == 0)
            g_usleep(1000);
    }
    g_assert_cmpint(recv(c.ctl, &c.peer, sizeof c.peer, MSG_WAITALL), ==, sizeof c.peer);
    wait_ports(&x, 1);
    /* One that is taken. */
    Client d;
    client_begin(&d, x.uml, NULL, 51);
    g_assert_false(client_ask(&d, 3, 1 << 8, 0));
    client_end(&d);
    /* More who say nothing than there is room for. */
    Client idle[SW_CLIENTS_MAX + 5];
    for (unsigned i = 0; i < G_N_ELEMENTS(idle); i++)
        client_begin(&idle[i], x.uml, NULL, 100 + i);
    client_begin(&d, x.uml, NULL, 52);
    g_assert_true(client_ask(&d, 3, 0, 0));
    for (unsigned i = 0; i < G_N_ELEMENTS(idle); i++)
        client_end(&idle[i]);
    client_end(&d);
    client_end(&c);
    wait_ports(&x, 0);
    fix_close(&x);
}

/* Others cannot put frames into a client's port. */
static void test_stranger(void)
{
    Client a, b;
    uint8_t f[FRAME];
    Fix x;

    fix_open(&x);
    client_begin(&a, x.uml, NULL, 1);
    client_begin(&b, x.uml, NULL, 2);
    g_assert_true(client_ask(&a, 3, 0, 0));
    make(f, 0, 66, 0);
    g_assert_cmpint(sendto(b.fd, f, sizeof f, 0, (struct sockaddr *)&a.peer, sizeof a.peer), <, 0);
    g_assert_cmpint(errno, ==, EPERM);
    client_end(&a);
    client_end(&b);
    wait_ports(&x, 0);
    fix_close(&x);
}

static void test_doors(void)
{
    g_autoptr(GError) error = NULL;
    Fix x;

    fix_open(&x);
    g_autofree char *again = g_strdup_printf("uml:%s", x.uml);
    g_assert_false(sw_listen(x.host, again, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
    g_assert_false(sw_listen(x.host, "udp:1", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    /* A file that is no socket is somebody's. */
    g_autofree char *file = g_build_filename(x.dir, "file", NULL);
    g_autofree char *at = g_strdup_printf("uml:%s", file);
    g_assert_true(g_file_set_contents(file, "x", 1, NULL));
    g_assert_false(sw_listen(x.host, at, &error));
    g_assert_true(g_file_test(file, G_FILE_TEST_EXISTS));
    (void)unlink(file);
    g_clear_error(&error);
    g_assert_null(sw_name_claim("t", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_clear_error(&error);
    g_assert_null(sw_name_claim("../t", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    fix_close(&x);
}

/* ---- our own link ---- */

typedef struct Link {
    int ctl, fds[SW_ATTACH_FDS];
    void *memory;
    LinkTx tx;
    LinkRx rx;
    unsigned port;
} Link;

static void link_open(Link *l)
{
    g_autoptr(GError) error = NULL;
    SwHello h = sw_hello(SW_OP_ATTACH, "test");
    SwWelcome w;
    unsigned nfds;

    l->ctl = sw_dial("t", &error);
    g_assert_no_error(error);
    g_assert_true(sw_send_hello(l->ctl, &h, NULL, 0, &error));
    g_assert_true(sw_recv_welcome(l->ctl, &w, l->fds, &nfds, DEADLINE_S * 1000, &error));
    g_assert_cmpuint(nfds, ==, SW_ATTACH_FDS);
    l->memory = sw_link_map(l->fds[0], &error);
    g_assert_no_error(error);
    g_assert_cmpint(ftruncate(l->fds[0], 0), <, 0); /* sealed */
    link_tx_init(&l->tx, l->memory, 0);
    link_rx_init(&l->rx, l->memory, 1);
    l->port = w.port;
}

static void link_close(Link *l)
{
    munmap(l->memory, LINK_BYTES);
    for (unsigned i = 0; i < SW_ATTACH_FDS; i++)
        close(l->fds[i]);
    close(l->ctl);
}

static void link_kick(Link *l)
{
    uint64_t one = 1;

    g_assert_cmpint(write(l->fds[2], &one, sizeof one), ==, sizeof one);
}

static bool link_put(Link *l, unsigned dst, unsigned src, unsigned seq)
{
    uint8_t f[FRAME];
    struct iovec iov = {f, sizeof f};
    NetFrame v = {.iov = &iov, .niov = 1, .len = sizeof f};

    make(f, dst, src, seq);
    bool ok = link_tx_put(&l->tx, &v);
    if (link_tx_publish(&l->tx))
        link_kick(l);
    return ok;
}

static void link_get(Link *l, unsigned src, unsigned seq)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    struct iovec at;
    NetFrame f;

    while (!link_rx_next(&l->rx, &f, &at)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(200);
    }
    g_assert_cmpuint(((uint8_t *)at.iov_base)[11], ==, src);
    g_assert_cmpuint(load_be32((uint8_t *)at.iov_base + 14), ==, seq);
    if (link_rx_release(&l->rx))
        link_kick(l);
}

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
    ip[0] = 0x45;
    store_be16(ip + 2, 20 + 20 + PAYLOAD);
    ip[8] = 64;
    ip[9] = 6;
    store_be32(ip + 12, 0x0a000001);
    store_be32(ip + 16, 0x0a000002);
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
    ip[0] = 0x45;
    store_be16(ip + 2, 20 + 8 + PAYLOAD);
    ip[8] = 64;
    ip[9] = 17;
    store_be32(ip + 12, 0x0a000001);
    store_be32(ip + 16, 0x0a000002);
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

static void test_control(void)
{
    static const struct {
        size_t len;
        uint32_t magic;
        uint16_t op;
        uint16_t status; /* of the answer; 0xffff: hung up without one */
    } cases[] = {
        {sizeof(SwHello), SW_HELLO_MAGIC, 99, 1 + LODGE_ERROR_UNSUPPORTED},
        {sizeof(SwHello), SW_HELLO_MAGIC, 0, 1 + LODGE_ERROR_UNSUPPORTED},
        {sizeof(SwHello), SW_HELLO_MAGIC, SW_OP_UNPLUG, 1 + LODGE_ERROR_NOT_FOUND},
        {sizeof(SwHello), SW_HELLO_MAGIC, SW_OP_PLUG, 1 + LODGE_ERROR_CONFIG},
        {sizeof(SwHello), 1, SW_OP_PORTS, 0xffff},
        {20, SW_HELLO_MAGIC, SW_OP_PORTS, 0xffff},
    };
    Fix x;

    fix_open(&x);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        SwHello h = sw_hello((SwOp)cases[i].op, "test");
        SwWelcome w;
        int fd = sw_dial("t", NULL);

        g_test_message("%u", i);
        fcntl(fd, F_SETFL, 0);
        set_deadline(fd);
        h.magic = cases[i].magic;
        g_assert_cmpint(send(fd, &h, cases[i].len, 0), ==, (ssize_t)cases[i].len);
        ssize_t n = recv(fd, &w, sizeof w, 0);
        g_assert_cmpint(n, ==, cases[i].status == 0xffff ? 0 : (ssize_t)sizeof w);
        if (n > 0)
            g_assert_cmpuint(w.status, ==, cases[i].status);
        close(fd);
    }
    fix_close(&x);
}

/* ---- the back end ---- */

typedef struct Card {
    NetPort port;
    GMutex mutex;
    GCond cond;
    unsigned got, seq;
    bool link;
} Card;

static bool card_deliver(NetPort *self, const NetFrame *f)
{
    Card *c = self->opaque;
    uint8_t head[18];

    g_mutex_lock(&c->mutex);
    if (pkt_gather(f, 0, head, sizeof head)) {
        c->got++;
        c->seq = load_be32(head + 14);
    }
    g_cond_broadcast(&c->cond);
    g_mutex_unlock(&c->mutex);
    return true;
}

static void card_link(NetPort *self, bool up)
{
    Card *c = self->opaque;

    g_mutex_lock(&c->mutex);
    c->link = up;
    g_cond_broadcast(&c->cond);
    g_mutex_unlock(&c->mutex);
}

static const NetPortOps card_ops = {.deliver = card_deliver, .link = card_link};

static void card_wait(Card *c, unsigned got, bool link)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;

    g_mutex_lock(&c->mutex);
    while (c->got < got || c->link != link)
        g_assert_true(g_cond_wait_until(&c->cond, &c->mutex, end));
    g_mutex_unlock(&c->mutex);
}

typedef struct Send {
    Card *card;
    unsigned dst, src, seq, taken;
} Send;

static void card_send(void *opaque)
{
    Send *s = opaque;
    uint8_t f[FRAME];
    struct iovec iov = {f, sizeof f};
    NetFrame v = {.iov = &iov, .niov = 1, .len = sizeof f};

    make(f, s->dst, s->src, s->seq);
    s->taken = net_send(&s->card->port, &v, 1);
}

static NetBackend *open_backend(Fix *x, const char *option, const char *value, GError **error)
{
    g_autoptr(GHashTable) opts =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_ptr_array_unref);
    const char *pairs[2][2] = {{"switch", "t"}, {option, value}};

    for (unsigned i = 0; i < 2 && pairs[i][0]; i++) {
        GPtrArray *values = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(values, g_strdup(pairs[i][1]));
        g_hash_table_replace(opts, g_strdup(pairs[i][0]), values);
    }
    return net_backend_open("switch", "net0", opts, x->clock, error);
}

static void test_backend(void)
{
    g_autoptr(GError) error = NULL;
    Card card = {.link = true};
    Link l;
    Fix x;

    fix_open(&x);
    NetBackend *be = open_backend(&x, NULL, NULL, &error);
    g_assert_no_error(error);
    card.port = (NetPort){.ops = &card_ops, .name = "card", .opaque = &card, .io = be->port->io};
    g_assert_true(net_join(&card.port, be->port, &error));
    link_open(&l);
    Send s = {.card = &card, .src = 1, .seq = 5};
    io_thread_call(be->port->io, card_send, &s);
    link_get(&l, 1, 5);
    g_assert_true(link_put(&l, 1, 2, 6));
    card_wait(&card, 1, true);
    g_assert_cmpuint(card.seq, ==, 6);
    for (unsigned i = 0; i < 1000; i++)
        g_assert_true(link_put(&l, 1, 2, i));
    card_wait(&card, 1001, true);
    /* The switch dies: the link goes down, and comes back with the next one. */
    link_close(&l);
    host_stop(&x);
    card_wait(&card, 0, false);
    io_thread_call(be->port->io, card_send, &s);
    g_assert_cmpuint(s.taken, ==, 1); /* lost */
    host_start(&x);
    card_wait(&card, 0, true);
    link_open(&l);
    s.seq = 7;
    io_thread_call(be->port->io, card_send, &s);
    link_get(&l, 1, 7);
    g_assert_true(link_put(&l, 1, 2, 8));
    card_wait(&card, 1002, true);
    net_part(&card.port);
    net_backend_close(be);
    wait_ports(&x, 1);
    link_close(&l);
    wait_ports(&x, 0);
    fix_close(&x);
}

static void test_backend_options(void)
{
    static const char *const cases[][3] = {
        {"port", "0", "port '0' is not a number from 1 to 256"},
        {"port", "257", "not a number from 1 to 256"},
        {"port", "x", "not a number"},
        {"vlan", "0", "vlan '0'"},
        {"vlan", "trunk:", "vlan 'trunk:'"},
        {"switch", "a/b", "not a name for a switch"},
    };
    Fix x;

    fix_open(&x);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(open_backend(&x, cases[i][0], cases[i][1], &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_assert_nonnull(strstr(error->message, cases[i][2]));
    }
    fix_close(&x);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/switch-host/versions", test_versions);
    g_test_add_func("/switch-host/requests", test_requests);
    g_test_add_func("/switch-host/stranger", test_stranger);
    g_test_add_func("/switch-host/doors", test_doors);
    g_test_add_func("/switch-host/link", test_link);
    g_test_add_func("/switch-host/segments", test_segments);
    g_test_add_func("/switch-host/datagrams", test_datagrams);
    g_test_add_func("/switch-host/slow-reader", test_slow_reader);
    g_test_add_func("/switch-host/late-reader", test_late_reader);
    g_test_add_func("/switch-host/hostile", test_hostile);
    g_test_add_func("/switch-host/control", test_control);
    g_test_add_func("/switch-host/backend", test_backend);
    g_test_add_func("/switch-host/backend-options", test_backend_options);
    return g_test_run();
}
