/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Back ends over sockets, spoken to by hand at both ends: framing and what is malformed, a peer
 * that stops reading, leaves in the middle of a frame or comes back; requests to other switches. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"
#include "net_options.h"
#include "opts.h"
#include "pkt.h"
#include "plug.h"

enum { DEADLINE_S = 20, FRAME = 100 };

/* The guest's card: keeps what arrives. */
typedef struct Card {
    LodgeClock *clock;
    NetBackend *be;
    NetPort port;
    GAsyncQueue *frames; /* GBytes */
    int room;            /* frames that it takes; atomic */
    int link;            /* changes seen; atomic */
} Card;

static bool card_deliver(NetPort *self, const NetFrame *f)
{
    Card *c = self->opaque;

    if (!g_atomic_int_get(&c->room))
        return false;
    g_atomic_int_add(&c->room, -1);
    uint8_t *copy = g_malloc(f->len);
    g_assert_true(pkt_gather(f, 0, copy, f->len));
    g_async_queue_push(c->frames, g_bytes_new_take(copy, f->len));
    return true;
}

static void card_link(NetPort *self, bool up)
{
    Card *c = self->opaque;

    g_atomic_int_inc(&c->link);
}

static const NetPortOps card_ops = {.deliver = card_deliver, .link = card_link};

/* @opts: transfer full. */
static void card_start(Card *c, const char *driver, GHashTable *opts)
{
    g_autoptr(GError) error = NULL;

    memset(c, 0, sizeof *c);
    c->clock = lodge_clock_new();
    c->frames = g_async_queue_new_full((GDestroyNotify)g_bytes_unref);
    c->room = INT_MAX;
    c->be = net_backend_open(driver, "net0", opts, c->clock, &error);
    g_assert_no_error(error);
    c->port = (NetPort){.ops = &card_ops, .name = "card", .opaque = c, .io = c->be->port->io};
    g_assert_true(net_join(&c->port, c->be->port, NULL));
    g_hash_table_unref(opts);
}

static void card_stop(Card *c)
{
    net_backend_close(c->be);
    g_assert_null(c->port.wire);
    g_async_queue_unref(c->frames);
    lodge_clock_free(c->clock);
}

typedef struct SendCall {
    Card *c;
    const uint8_t *data;
    uint32_t len;
    unsigned taken;
} SendCall;

static void do_send(void *opaque)
{
    SendCall *s = opaque;
    uint32_t cut = s->len / 3; /* in pieces, as from a ring */
    struct iovec iov[2] = {{(void *)s->data, cut}, {(void *)(s->data + cut), s->len - cut}};
    NetFrame f = {.iov = iov, .niov = 2, .len = s->len};

    s->taken = net_send(&s->c->port, &f, 1);
}

static bool card_send(Card *c, const void *data, uint32_t len)
{
    SendCall s = {c, data, len, 0};

    io_thread_call(c->port.io, do_send, &s);
    return s.taken;
}

static GBytes *card_receive(Card *c)
{
    GBytes *b = g_async_queue_timeout_pop(c->frames, DEADLINE_S * G_TIME_SPAN_SECOND);

    g_assert_nonnull(b);
    return b;
}

static void card_expect(Card *c, const void *data, size_t len)
{
    g_autoptr(GBytes) got = card_receive(c);
    gsize n;
    const uint8_t *p = g_bytes_get_data(got, &n);

    g_assert_cmpuint(n, ==, MAX(len, (size_t)60));
    g_assert_cmpmem(p, len, data, len);
    for (gsize i = len; i < n; i++)
        g_assert_cmpuint(p[i], ==, 0);
}

static uint64_t drops(Card *c, const char *reason)
{
    NetInfo info;

    net_backend_info(c->be, &info);
    for (unsigned i = 0; i < NET_DROPS_MAX && info.drop[i].reason; i++) {
        if (!strcmp(info.drop[i].reason, reason))
            return info.drop[i].frames;
    }
    return 0;
}

static bool is_up(Card *c)
{
    NetInfo info;

    net_backend_info(c->be, &info);
    return info.link;
}

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        int64_t end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;                    \
        while (!(cond)) {                                                                          \
            g_assert_cmpint(g_get_monotonic_time(), <, end);                                       \
            g_usleep(1000);                                                                        \
        }                                                                                          \
    } while (0)

static void fill(uint8_t *p, size_t len, unsigned salt)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 7 + salt);
    p[0] = 2; /* not a group */
}

static void write_all(int fd, const void *data, size_t len)
{
    g_assert_cmpint(write(fd, data, len), ==, (gssize)len);
}

static void read_all(int fd, void *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        g_assert_cmpint(poll(&p, 1, DEADLINE_S * 1000), ==, 1);
        ssize_t n = read(fd, (uint8_t *)data + at, len - at);
        g_assert_cmpint(n, >, 0);
        at += (size_t)n;
    }
}

static GHashTable *fd_option(int fd)
{
    g_autofree char *text = g_strdup_printf("%d", fd);

    return options("fd", text, NULL);
}

static int stream_start(Card *c)
{
    int pair[2];

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    card_start(c, "stream", fd_option(pair[0]));
    return pair[1];
}

/* ---- stream ---- */

static void test_stream_framing(void)
{
    Card c;
    int peer = stream_start(&c);
    uint8_t wire[3 * (4 + FRAME)], frame[FRAME], got[4 + FRAME];

    fill(frame, FRAME, 1);
    g_assert_true(card_send(&c, frame, FRAME));
    read_all(peer, got, sizeof got);
    g_assert_cmpuint(load_be32(got), ==, FRAME);
    g_assert_cmpmem(got + 4, FRAME, frame, FRAME);

    /* Two and a half frames at once, then byte by byte. */
    for (unsigned i = 0; i < 3; i++) {
        store_be32(wire + i * sizeof got, FRAME);
        fill(wire + i * sizeof got + 4, FRAME, i);
    }
    write_all(peer, wire, 2 * sizeof got + FRAME / 2);
    for (unsigned i = 0; i < 2; i++)
        card_expect(&c, wire + i * sizeof got + 4, FRAME);
    for (size_t at = 2 * sizeof got + FRAME / 2; at < sizeof wire; at++)
        write_all(peer, wire + at, 1);
    card_expect(&c, wire + 2 * sizeof got + 4, FRAME);

    /* Short ones are filled up, what is no frame is counted, and the stream stays in step. */
    static const uint8_t empty[4], tiny[4 + 13] = {0, 0, 0, 13};
    uint8_t small[4 + 20] = {0, 0, 0, 20};
    fill(small + 4, 20, 9);
    write_all(peer, empty, sizeof empty);
    write_all(peer, tiny, sizeof tiny);
    write_all(peer, small, sizeof small);
    card_expect(&c, small + 4, 20);
    g_assert_cmpuint(drops(&c, "received malformed"), ==, 2);
    g_assert_true(is_up(&c));
    close(peer);
    card_stop(&c);
}

/* More at once than a turn of the loop takes. */
static void test_stream_burst(void)
{
    Card c;
    int peer = stream_start(&c);
    uint8_t wire[1000 * (4 + 60)];

    for (unsigned i = 0; i < 1000; i++) {
        store_be32(wire + i * 64, 60);
        fill(wire + i * 64 + 4, 60, i);
    }
    write_all(peer, wire, sizeof wire);
    for (unsigned i = 0; i < 1000; i++)
        card_expect(&c, wire + i * 64 + 4, 60);
    close(peer);
    card_stop(&c);
}

static void test_stream_longest(void)
{
    Card c;
    int peer = stream_start(&c);
    g_autofree uint8_t *frame = g_malloc(NET_FRAME_MAX + 4);

    store_be32(frame, NET_FRAME_MAX);
    fill(frame + 4, NET_FRAME_MAX, 3);
    for (unsigned i = 0; i < 40; i++) { /* past the end of any buffer */
        for (size_t at = 0; at < NET_FRAME_MAX + 4;) {
            ssize_t n = write(peer, frame + at, NET_FRAME_MAX + 4 - at);
            g_assert_cmpint(n, >, 0);
            at += (size_t)n;
        }
        card_expect(&c, frame + 4, NET_FRAME_MAX);
    }
    /* One byte longer is no frame, and what follows means nothing. */
    store_be32(frame, NET_FRAME_MAX + 1);
    write_all(peer, frame, 4);
    UNTIL(!is_up(&c));
    UNTIL(g_atomic_int_get(&c.link) == 1);
    g_assert_true(card_send(&c, frame + 4, 100)); /* lost, and nobody waits */
    close(peer);
    card_stop(&c);
}

static void test_stream_cut(void)
{
    Card c;
    int peer = stream_start(&c);
    static const uint8_t half[4 + 10] = {0, 0, 0, 100};

    write_all(peer, half, sizeof half);
    close(peer);
    UNTIL(!is_up(&c));
    UNTIL(g_atomic_int_get(&c.link) == 1);
    g_assert_cmpuint(g_async_queue_length(c.frames), ==, 0);
    card_stop(&c);
}

/* A peer that does not read: frames wait at the card, then are dropped, and are whole after it. */
static void test_stream_slow(void)
{
    Card c;
    int peer = stream_start(&c), refused = 0;
    g_autofree uint8_t *frame = g_malloc(4 + 60000);
    unsigned sent = 0;

    fill(frame, 60000, 5);
    while (drops(&c, "the other end does not read") < 3) {
        if (card_send(&c, frame, 60000)) {
            sent++;
        } else {
            refused++;
            g_usleep(2000);
        }
    }
    g_assert_cmpint(refused, >, 0);
    unsigned lost = (unsigned)drops(&c, "the other end does not read");
    /* Those that the wire held are among the lost once it gave them on. */
    g_autofree uint8_t *got = g_malloc(4 + 60000);
    unsigned whole = 0;
    struct pollfd p = {.fd = peer, .events = POLLIN};
    while (poll(&p, 1, 200) == 1) {
        read_all(peer, got, 4 + 60000);
        g_assert_cmpuint(load_be32(got), ==, 60000);
        g_assert_cmpmem(got + 4, 60000, frame, 60000);
        whole++;
    }
    g_assert_cmpuint(whole, >, 0);
    g_assert_cmpuint(whole + lost, <=, sent);
    UNTIL(card_send(&c, frame, 60000));
    read_all(peer, got, 4 + 60000);
    g_assert_cmpmem(got + 4, 60000, frame, 60000);
    close(peer);
    card_stop(&c);
}

/* A card without room: nothing is read ahead without a bound, and nothing is lost. */
static void test_card_full(void)
{
    Card c;
    int peer = stream_start(&c);
    uint8_t frame[4 + 1000];
    unsigned sent = 0;

    g_atomic_int_set(&c.room, 0);
    g_assert_cmpint(fcntl(peer, F_SETFL, O_NONBLOCK), ==, 0);
    store_be32(frame, 1000);
    for (int quiet = 0; quiet < 50;) {
        fill(frame + 4, 1000, sent);
        ssize_t n = write(peer, frame, sizeof frame);
        if (n < 0) {
            g_usleep(1000);
            quiet++;
            continue;
        }
        g_assert_cmpint(n, ==, sizeof frame);
        sent++;
        quiet = 0;
        g_assert_cmpuint(sent, <, 20000);
    }
    g_atomic_int_set(&c.room, INT_MAX);
    io_thread_call(c.port.io, (IoCallFn)net_rx_ready, &c.port);
    for (unsigned i = 0; i < sent; i++) {
        fill(frame + 4, 1000, i);
        card_expect(&c, frame + 4, 1000);
    }
    close(peer);
    card_stop(&c);
}

static int dial(const char *path)
{
    NetAddr a;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    g_assert_true(net_addr_unix(path, &a, NULL));
    UNTIL(connect(fd, (struct sockaddr *)&a.sa, a.len) == 0);
    return fd;
}

static void test_stream_server(void)
{
    g_autofree char *dir = g_dir_make_tmp("lodge-net-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "s", NULL);
    g_autofree char *addr = g_strdup_printf("unix:%s", path);
    g_autoptr(GHashTable) again = options("addr", addr, "server", "on", NULL);
    g_autoptr(GError) error = NULL;
    uint8_t frame[FRAME], got[4 + FRAME];
    Card c;

    card_start(&c, "stream", options("addr", addr, "server", "on", NULL));
    g_assert_false(is_up(&c));
    g_assert_false(net_peer_link(&c.port));
    fill(frame, FRAME, 0);
    g_assert_true(card_send(&c, frame, FRAME)); /* nobody is there */
    /* Who listens already is said. */
    g_assert_null(net_backend_open("stream", "net1", again, c.clock, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    for (int i = 0; i < 3; i++) {
        int peer = dial(path);
        UNTIL(is_up(&c));
        int second = dial(path); /* one at a time */
        g_assert_cmpint(read(second, got, 1), ==, 0);
        close(second);
        UNTIL(net_peer_link(&c.port));
        g_assert_true(card_send(&c, frame, FRAME));
        read_all(peer, got, sizeof got);
        g_assert_cmpmem(got + 4, FRAME, frame, FRAME);
        close(peer);
        UNTIL(!is_up(&c));
    }
    card_stop(&c);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

/* ---- datagrams ---- */

static void test_dgram(void)
{
    int pair[2];
    uint8_t frame[FRAME], got[FRAME + 1];
    Card c;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), ==, 0);
    card_start(&c, "dgram", fd_option(pair[0]));
    for (unsigned i = 0; i < 50; i++) {
        fill(frame, FRAME, i);
        UNTIL(card_send(&c, frame, FRAME));
        g_assert_cmpint(recv(pair[1], got, sizeof got, 0), ==, FRAME);
        g_assert_cmpmem(got, FRAME, frame, FRAME);
        write_all(pair[1], frame, FRAME);
        card_expect(&c, frame, FRAME);
    }
    write_all(pair[1], frame, 13);
    write_all(pair[1], frame, 14);
    card_expect(&c, frame, 14);
    g_assert_cmpuint(drops(&c, "received malformed"), ==, 1);
    /* Nobody reads: the socket fills, the card waits, then frames are dropped. */
    while (drops(&c, "the other end does not read") < 2)
        (void)card_send(&c, frame, FRAME);
    close(pair[1]);
    UNTIL((card_send(&c, frame, FRAME), drops(&c, "nobody at the other end") > 0));
    card_stop(&c);
}

/* A multicast network by given sockets takes two that can do what they are for. */
static void test_mcast_given(void)
{
    static const struct {
        int hear_type, say_type; /* 0: not given */
        const char *group, *says;
    } bad[] = {
        {SOCK_DGRAM, 0, NULL, "come in twos and stand for the group"},
        {SOCK_DGRAM, SOCK_DGRAM, "239.0.0.1:5", "come in twos and stand for the group"},
        {SOCK_STREAM, SOCK_DGRAM, NULL, "is not a datagram socket"},
        {SOCK_DGRAM, SOCK_STREAM, NULL, "is not a datagram socket"},
        {SOCK_DGRAM, SOCK_DGRAM, NULL, "is not connected"},
    };
    LodgeClock *clock = lodge_clock_new();

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        int hear = socket(AF_INET, bad[i].hear_type, 0);
        int say = bad[i].say_type ? socket(AF_INET, bad[i].say_type, 0) : -1;
        g_autofree char *a = g_strdup_printf("%d", hear), *b = g_strdup_printf("%d", say);
        g_autoptr(GHashTable) opts = options("fd", a, say < 0 ? NULL : "fd", b,
                                             bad[i].group ? "group" : NULL, bad[i].group, NULL);
        g_assert_null(net_backend_open("mcast", "net0", opts, clock, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        if (!strstr(error->message, bad[i].says))
            g_error("%zu: %s", i, error->message);
        (void)close(hear); /* where the back end has not */
        (void)close(say);
    }
    lodge_clock_free(clock);
}

/* ---- switches of others ---- */

static void test_plug_bytes(void)
{
    struct sockaddr_un own = {.sun_family = AF_UNIX, .sun_path = {0, 'a', 'b'}}, there;
    uint8_t b[PLUG_REQUEST_MAX];

    g_assert_cmpuint(plug_request(b, &own, 0, NULL), ==, 124);
    g_assert_cmphex(load_le32(b), ==, 0xfeedface);
    g_assert_cmpuint(load_le32(b + 4), ==, 3);
    g_assert_cmpuint(load_le32(b + 8), ==, 0);
    g_assert_cmpmem(b + 12, 110, &own, 110);
    g_assert_cmpuint(load_le16(b + 122), ==, 0);
    g_assert_cmpuint(plug_request(b, &own, 7, "me"), ==, 124);
    g_assert_cmphex(load_le32(b + 8), ==, 0x700);
    g_assert_cmpmem(b + 122, 2, "me", 2);
    g_autofree char *text = g_strnfill(500, 'x');
    g_assert_cmpuint(plug_request(b, &own, 7, text), ==, 122 + 127);

    memset(b, 'x', sizeof b);
    store_le16(b, AF_UNIX);
    g_assert_false(plug_reply(b, 109, &there));
    g_assert_false(plug_reply(b, 111, &there));
    g_assert_false(plug_reply(b, 110, &there)); /* a path without an end */
    b[109] = 0;
    g_assert_true(plug_reply(b, 110, &there));
    store_le16(b, AF_INET);
    g_assert_false(plug_reply(b, 110, &there));
}

typedef struct FakeSwitch {
    char *path;
    int listen_fd, data_fd;
    unsigned reply; /* bytes of the answer that are sent */
    int ctl;
    uint8_t request[PLUG_REQUEST_MAX];
} FakeSwitch;

static void *fake_switch(void *opaque)
{
    FakeSwitch *s = opaque;
    struct sockaddr_un own;
    socklen_t len = sizeof own;

    memset(&own, 0, sizeof own);
    s->ctl = accept(s->listen_fd, NULL, NULL);
    read_all(s->ctl, s->request, 124);
    g_assert_cmpint(getsockname(s->data_fd, (struct sockaddr *)&own, &len), ==, 0);
    if (s->reply)
        write_all(s->ctl, &own, s->reply);
    if (s->reply < sizeof own)
        close(s->ctl);
    return NULL;
}

static void test_plug(gconstpointer cut)
{
    g_autofree char *dir = g_dir_make_tmp("lodge-net-XXXXXX", NULL);
    g_autofree char *data = g_build_filename(dir, "d", NULL);
    FakeSwitch s = {.reply = GPOINTER_TO_UINT(cut)};
    NetAddr a;
    uint8_t frame[1600];
    Card c;

    s.path = g_build_filename(dir, "c", NULL);
    s.listen_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    s.data_fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    g_assert_true(net_addr_unix(s.path, &a, NULL));
    g_assert_cmpint(bind(s.listen_fd, (struct sockaddr *)&a.sa, a.len), ==, 0);
    g_assert_cmpint(listen(s.listen_fd, 1), ==, 0);
    g_assert_true(net_addr_unix(data, &a, NULL));
    g_assert_cmpint(bind(s.data_fd, (struct sockaddr *)&a.sa, a.len), ==, 0);
    GThread *t = g_thread_new("switch", fake_switch, &s);
    if (s.reply < sizeof(struct sockaddr_un)) {
        g_autoptr(GHashTable) opts = options("path", s.path, NULL);
        g_autoptr(GError) error = NULL;
        LodgeClock *clock = lodge_clock_new();
        g_assert_null(net_backend_open("daemon", "net0", opts, clock, &error));
        g_assert_nonnull(strstr(error->message, "the switch gives no port"));
        lodge_clock_free(clock);
        g_thread_join(t);
    } else {
        card_start(&c, "daemon", options("path", s.path, NULL));
        g_thread_join(t);
        struct sockaddr_un client;
        memcpy(&client, s.request + 12, sizeof client);
        fill(frame, sizeof frame, 1);
        g_assert_true(card_send(&c, frame, 1514));
        struct sockaddr_un from;
        socklen_t len = sizeof from;
        memset(&from, 0, sizeof from);
        g_assert_cmpint(recvfrom(s.data_fd, frame, sizeof frame, 0, (struct sockaddr *)&from, &len),
                        ==, 1514);
        /* The sender is who asked, in all bytes. */
        g_assert_cmpuint(len, ==, sizeof from);
        g_assert_cmpmem(&from, sizeof from, &client, sizeof client);
        /* Nobody else can put a frame on the network. */
        int other = socket(AF_UNIX, SOCK_DGRAM, 0);
        g_assert_cmpint(sendto(other, frame, 80, 0, (struct sockaddr *)&client, sizeof client), <,
                        0);
        close(other);
        g_assert_true(card_send(&c, frame, 1515));
        g_assert_cmpuint(drops(&c, "too long for the other end"), ==, 1);
        g_assert_cmpint(sendto(s.data_fd, frame, 80, 0, (struct sockaddr *)&client, sizeof client),
                        ==, 80);
        card_expect(&c, frame, 80);
        close(s.ctl);
        UNTIL(!is_up(&c));
        card_stop(&c);
    }
    close(s.listen_fd);
    close(s.data_fd);
    g_unlink(s.path);
    g_unlink(data);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    g_free(s.path);
}

/* ---- options ---- */

static void test_options(void)
{
    static const struct {
        const char *driver, *name, *value, *says;
    } bad[] = {
        {"stream", "fd", "2", "from 3 to"},
        {"stream", "fd", "900", "fd '900' is not open"},
        {"stream", "addr", "unix:", "has 1 to 107 bytes"},
        {"stream", "addr", "tcp:x", "not HOST:PORT"},
        {"stream", "addr", "tcp::80", "not HOST:PORT"},
        {"stream", "addr", "udp:a:80", "write unix:PATH or tcp:"},
        {"dgram", "remote", "unix:/x", "needs both ends"},
        {"mcast", "group", "1.2.3.4:5", "is no group"},
        {"mcast", "group", "239.0.0.1:0", "a port from 1"},
        {"mcast", "group", "[fd00::1]:5", "is no group"},
        {"mcast", "group", "[ff02::114]:5", "is a group of one link; say which"},
        {"tap", "ifname", "a/b", "1 to 15 characters"},
        {"tap", "ifname", "0123456789abcdef", "1 to 15 characters"},
        {"vde", "port", "0", "from 1 to 65535"},
        {"user", "rate", "-1M", "bits a second"},
        {"user", "rate", "10q", "bits a second"},
        {"user", "loss", "-1", "0% to 100%"},
        {"user", "delay", "61s", "at most a minute"},
        {"user", "seed", "x", "is not a number"},
        {"user", "pcap-limit", "1k", "at least 256K"},
    };
    LodgeClock *clock = lodge_clock_new();

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GHashTable) opts = options(bad[i].name, bad[i].value, NULL);
        g_assert_null(net_backend_open(bad[i].driver, "net0", opts, clock, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        if (!strstr(error->message, bad[i].says))
            g_error("%s,%s=%s: %s", bad[i].driver, bad[i].name, bad[i].value, error->message);
    }
    lodge_clock_free(clock);

    g_autoptr(GHashTable) good = options("r", "2.5M", "d", "1.5ms", "l", "50%", "s", "2M", NULL);
    uint64_t rate = 0, size = 0;
    int64_t delay = 0;
    uint32_t share = 0;
    g_assert_true(net_opt_rate(good, "r", &rate, NULL) && rate == 2500000);
    g_assert_true(net_opt_time(good, "d", &delay, NULL) && delay == 1500000);
    g_assert_true(net_opt_share(good, "l", &share, NULL) && share == 1u << 31);
    g_assert_true(net_opt_size(good, "s", 1, &size, NULL) && size == 2 << 20);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/host-nets/stream/framing", test_stream_framing);
    g_test_add_func("/host-nets/stream/burst", test_stream_burst);
    g_test_add_func("/host-nets/stream/longest", test_stream_longest);
    g_test_add_func("/host-nets/stream/cut", test_stream_cut);
    g_test_add_func("/host-nets/stream/slow", test_stream_slow);
    g_test_add_func("/host-nets/stream/card-full", test_card_full);
    g_test_add_func("/host-nets/stream/server", test_stream_server);
    g_test_add_func("/host-nets/dgram", test_dgram);
    g_test_add_func("/host-nets/mcast-given", test_mcast_given);
    g_test_add_func("/host-nets/plug/bytes", test_plug_bytes);
    g_test_add_data_func("/host-nets/plug/whole", GUINT_TO_POINTER(110), test_plug);
    g_test_add_data_func("/host-nets/plug/half", GUINT_TO_POINTER(50), test_plug);
    g_test_add_data_func("/host-nets/plug/none", GUINT_TO_POINTER(0), test_plug);
    g_test_add_func("/host-nets/options", test_options);
    return g_test_run();
}
