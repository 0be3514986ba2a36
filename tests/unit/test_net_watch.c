/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who looks at what passes a wire: addresses, captures; and cables of lesser quality. */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"
#include "pcap.h"
#include "pkt.h"
#include "shape.h"
#include "watch.h"

enum { DEADLINE_S = 20 };

static const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0, 0, 1};

static void pass(NetWatch *w, bool from_guest, const void *data, uint32_t len)
{
    struct iovec iov[2] = {{(void *)data, len / 2}, {(uint8_t *)data + len / 2, len - len / 2}};
    NetFrame f = {.iov = iov, .niov = 2, .len = len};

    net_watch_frames(w, from_guest, &f, 1);
}

/* ---- addresses ---- */

static void make_arp(uint8_t f[60], const uint8_t ip[4])
{
    static const uint8_t head[] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1};

    memset(f, 0, 60);
    memset(f, 0xff, 6);
    memcpy(f + 6, guest_mac, 6);
    memcpy(f + 12, head, sizeof head);
    memcpy(f + 22, guest_mac, 6);
    memcpy(f + 28, ip, 4);
}

static void test_arp(void)
{
    NetWatch *w = net_watch_new();
    NetSeen s[NET_SEEN_MAX];
    uint8_t f[60], ip[4] = {10, 0, 0, 1};

    make_arp(f, ip);
    pass(w, false, f, 60); /* not the guest's */
    pass(w, true, f, 41);
    f[18] = 8;
    pass(w, true, f, 60);
    f[18] = 6;
    memset(f + 28, 0, 4);
    pass(w, true, f, 60); /* a probe */
    g_assert_cmpuint(net_watch_seen(w, s, NET_SEEN_MAX), ==, 0);
    for (unsigned i = 0; i < 40; i++) {
        ip[3] = (uint8_t)(i + 1);
        make_arp(f, ip);
        pass(w, true, f, 60);
        pass(w, true, f, 60);
        g_assert_cmpuint(net_watch_seen(w, s, NET_SEEN_MAX), ==, MIN(i + 1, NET_SEEN_MAX));
        g_assert_cmpmem(s[0].addr, 4, ip, 4);
        g_assert_cmpmem(s[0].mac, 6, guest_mac, 6);
        g_assert_cmpstr(s[0].how, ==, "arp");
    }
    /* The latest sixteen, and one that is seen again is the first. */
    ip[3] = 30;
    make_arp(f, ip);
    pass(w, true, f, 60);
    net_watch_seen(w, s, NET_SEEN_MAX);
    g_assert_cmpuint(s[0].addr[3], ==, 30);
    g_assert_cmpuint(s[1].addr[3], ==, 40);
    g_assert_cmpuint(s[15].addr[3], ==, 25);
    net_watch_free(w);
}

static void test_nd(void)
{
    NetWatch *w = net_watch_new();
    NetSeen s[NET_SEEN_MAX];
    uint8_t f[86] = {0x33, 0x33};

    memcpy(f + 6, guest_mac, 6);
    store_be16(f + 12, 0x86dd);
    f[14] = 0x60;
    f[20] = 58;
    f[54] = 135;
    f[62] = 0xfe;
    f[63] = 0x80;
    f[77] = 9;
    pass(w, true, f, 77); /* cut */
    f[22] = 0xfe;         /* asks for another's, not for its own */
    pass(w, true, f, 86);
    f[20] = 6;
    f[22] = 0;
    pass(w, true, f, 86);
    f[20] = 58;
    g_assert_cmpuint(net_watch_seen(w, s, NET_SEEN_MAX), ==, 0);
    pass(w, true, f, 86);
    g_assert_cmpuint(net_watch_seen(w, s, NET_SEEN_MAX), ==, 1);
    g_assert_true(s[0].ip6);
    g_assert_cmpmem(s[0].addr, 16, f + 62, 16);
    net_watch_free(w);
}

static void make_dhcp(uint8_t *f, unsigned *ret_len)
{
    uint8_t *ip = f + 14, *udp = ip + 20, *m = udp + 8, *o = m + 240;

    memset(f, 0, 400);
    memset(f, 0xff, 6);
    store_be16(f + 12, 0x0800);
    ip[0] = 0x45;
    ip[9] = 17;
    store_be16(ip + 2, 20 + 8 + 240 + 8);
    store_be16(udp, 67);
    store_be16(udp + 2, 68);
    store_be16(udp + 4, 8 + 240 + 8);
    m[0] = 2;
    m[16] = 10;
    m[19] = 15;
    memcpy(m + 28, guest_mac, 6);
    store_be32(m + 236, 0x63825363);
    o[0] = 0; /* padding before the type */
    o[1] = 1;
    o[2] = 0;
    o[3] = 53;
    o[4] = 1;
    o[5] = 5;
    o[6] = 255;
    *ret_len = 14 + 20 + 8 + 240 + 8;
}

static void test_dhcp(void)
{
    NetWatch *w = net_watch_new();
    NetSeen s[NET_SEEN_MAX];
    uint8_t f[400];
    unsigned len;

    make_dhcp(f, &len);
    pass(w, true, f, len); /* a guest that plays server */
    f[282 + 5] = 2;        /* an offer */
    pass(w, false, f, len);
    f[282 + 5] = 5;
    f[282 + 2] = 200; /* an option beyond the end */
    pass(w, false, f, len);
    f[282 + 2] = 0;
    f[278] ^= 1; /* no cookie */
    pass(w, false, f, len);
    f[278] ^= 1;
    g_assert_cmpuint(net_watch_seen(w, s, NET_SEEN_MAX), ==, 0);
    for (unsigned cut = 0; cut < len; cut++)
        pass(w, false, f, cut);
    pass(w, false, f, len);
    g_assert_cmpuint(net_watch_seen(w, s, NET_SEEN_MAX), ==, 1);
    g_assert_cmpstr(s[0].how, ==, "dhcp");
    g_assert_cmpuint(s[0].addr[3], ==, 15);
    net_watch_free(w);
}

/* ---- captures ---- */

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

static void test_capture(void)
{
    NetWatch *w = net_watch_new();
    int pipes[2];
    uint8_t f[60], head[24], record[16 + 60], ip[4] = {1, 2, 3, 4};

    g_assert_cmpint(pipe(pipes), ==, 0);
    g_assert_true(net_watch_to_fd(w, pipes[1], NULL));
    read_all(pipes[0], head, sizeof head);
    g_assert_cmphex(load_le32(head), ==, 0xa1b23c4d);
    g_assert_cmpuint(load_le16(head + 4), ==, 2);
    g_assert_cmpuint(load_le32(head + 20), ==, 1);
    make_arp(f, ip);
    for (unsigned i = 0; i < 5; i++) {
        pass(w, i & 1, f, 60);
        read_all(pipes[0], record, sizeof record);
        g_assert_cmpuint(load_le32(record + 4), <, 1000000000);
        g_assert_cmpuint(load_le32(record + 8), ==, 60);
        g_assert_cmpuint(load_le32(record + 12), ==, 60);
        g_assert_cmpmem(record + 16, 60, f, 60);
    }
    /* The reader goes: the capture ends by itself, and makes room for others. */
    close(pipes[0]);
    for (unsigned i = 0; i < 20; i++) {
        int other[2];
        g_assert_cmpint(pipe(other), ==, 0);
        close(other[0]);
        while (!net_watch_to_fd(w, dup(other[1]), NULL)) {
            pass(w, true, f, 60);
            g_usleep(1000);
        }
        close(other[1]);
    }
    net_watch_free(w);
}

/* Nobody reads: what passes is not held up, memory is bounded, and the end waits for nobody. */
static void test_slow_reader(void)
{
    int pipes[2];
    GError *error = NULL;
    uint64_t frames, dropped;
    g_autofree uint8_t *big = g_malloc0(60000);
    struct iovec iov = {big, 60000};
    NetFrame f = {.iov = &iov, .niov = 1, .len = 60000};

    g_assert_cmpint(pipe(pipes), ==, 0);
    Pcap *p = pcap_open_fd(pipes[1], &error);
    g_assert_no_error(error);
    for (unsigned i = 0; i < 400; i++) /* 24 MB */
        pcap_frames(p, &f, 1);
    pcap_counts(p, &frames, &dropped);
    g_assert_cmpuint(frames + dropped, ==, 400);
    g_assert_cmpuint(dropped, >, 200);
    g_assert_cmpuint(frames, >, 50);
    g_assert_false(pcap_ended(p));
    pcap_free(p);
    close(pipes[0]);
}

/* Records of a capture; it must be whole. */
static unsigned count_records(const char *path, uint64_t limit)
{
    g_autofree char *data = NULL;
    gsize len;
    unsigned n = 0;

    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    g_assert_cmpuint(len, <=, limit);
    g_assert_cmpuint(len, >=, 24);
    g_assert_cmphex(load_le32(data), ==, 0xa1b23c4d);
    for (gsize at = 24; at < len; n++) {
        g_assert_cmpuint(len - at, >=, 16);
        gsize size = load_le32(data + at + 8);
        g_assert_cmpuint(size, <=, len - at - 16);
        at += 16 + size;
    }
    return n;
}

static void test_rotate(void)
{
    g_autofree char *dir = g_dir_make_tmp("lodge-net-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "p", NULL);
    g_autofree char *old = g_strconcat(path, ".1", NULL);
    g_autofree uint8_t *data = g_malloc0(NET_FRAME_MAX);
    NetWatch *w = net_watch_new();
    struct stat st;

    g_assert_true(net_watch_to_file(w, path, PCAP_LIMIT_MIN, NULL));
    for (unsigned i = 0; i < 100; i++)
        pass(w, true, data, i % 3 ? 1000 : NET_FRAME_MAX);
    net_watch_free(w);
    unsigned now = count_records(path, PCAP_LIMIT_MIN), before = count_records(old, PCAP_LIMIT_MIN);
    g_assert_cmpuint(now, >, 0);
    g_assert_cmpuint(before, >, 3);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint(st.st_mode & 0777, ==, 0600);
    /* A link that somebody put there is not followed. */
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(symlink(old, path), ==, 0);
    w = net_watch_new();
    g_assert_false(net_watch_to_file(w, path, PCAP_LIMIT_MIN, NULL));
    net_watch_free(w);
    g_assert_cmpuint(count_records(old, PCAP_LIMIT_MIN), ==, before);
    g_unlink(path);
    g_unlink(old);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

/* ---- cables ---- */

typedef struct Cable {
    LodgeClock *clock;
    IoThread *io;
    NetPort card, host;
    NetShape *shape;
    GArray *got; /* loop: uint32_t, first bytes of frames at the host */
    bool full;   /* loop */
} Cable;

static bool host_deliver(NetPort *self, const NetFrame *f)
{
    Cable *c = self->opaque;
    uint32_t first;

    if (c->full)
        return false;
    g_assert_true(pkt_gather(f, 0, &first, sizeof first));
    g_array_append_val(c->got, first);
    return true;
}

static bool card_deliver(NetPort *self, const NetFrame *f)
{
    return true;
}

static const NetPortOps host_ops = {.deliver = host_deliver}, card_ops = {.deliver = card_deliver};

static void cable_start(Cable *c, const ShapeOptions *o)
{
    memset(c, 0, sizeof *c);
    c->clock = lodge_clock_new_manual(0);
    c->io = io_thread_new("cable", c->clock, NULL);
    c->got = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    c->host = (NetPort){.ops = &host_ops, .name = "host", .opaque = c, .io = c->io};
    c->card = (NetPort){.ops = &card_ops, .name = "card", .opaque = c, .io = c->io};
    c->shape = net_shape_new(&c->host, NULL, c->clock, o, NULL);
    g_assert_true(net_join(&c->card, net_shape_port(c->shape), NULL));
}

static void cable_stop(Cable *c)
{
    net_shape_free(c->shape);
    g_assert_null(c->card.wire);
    io_thread_free(c->io);
    g_array_unref(c->got);
    lodge_clock_free(c->clock);
}

typedef struct CableSend {
    NetPort *from;
    uint32_t first, len, count, taken;
} CableSend;

static void cable_send_on_loop(void *opaque)
{
    CableSend *s = opaque;
    g_autofree uint32_t *data = g_malloc0(s->len);
    struct iovec iov = {data, s->len};
    NetFrame f = {.iov = &iov, .niov = 1, .len = s->len};

    for (s->taken = 0; s->taken < s->count; s->taken++) {
        *data = s->first + s->taken;
        if (!net_send(s->from, &f, 1))
            break;
    }
}

static uint32_t stream_send(Cable *c, NetPort *from, uint32_t first, uint32_t len, uint32_t count)
{
    CableSend s = {from, first, len, count, 0};

    io_thread_call(c->io, cable_send_on_loop, &s);
    return s.taken;
}

static uint32_t cable_send(Cable *c, uint32_t first, uint32_t len, uint32_t count)
{
    return stream_send(c, &c->card, first, len, count);
}

static void nothing(void *opaque)
{
}

/* Let the loop see the time. */
static unsigned cable_pass(Cable *c, int64_t ns)
{
    clock_advance(c->clock, ns);
    io_thread_wake(c->io);
    for (int i = 0; i < 3; i++)
        io_thread_call(c->io, nothing, NULL);
    g_usleep(20000); /* the loop's own turn */
    io_thread_call(c->io, nothing, NULL);
    return c->got->len;
}

static void test_delay(void)
{
    const ShapeOptions o = {.delay_ns = 5000000};
    Cable c;

    cable_start(&c, &o);
    g_assert_cmpuint(cable_send(&c, 0, 100, 3), ==, 3);
    g_assert_cmpuint(cable_pass(&c, 4999999), ==, 0);
    g_assert_cmpuint(cable_pass(&c, 1), ==, 3);
    for (uint32_t i = 0; i < 3; i++)
        g_assert_cmpuint(g_array_index(c.got, uint32_t, i), ==, i);
    cable_send(&c, 3, 100, 1); /* held at the end */
    cable_stop(&c);
}

static void test_rate(void)
{
    const ShapeOptions o = {.rate = 8000000}; /* a byte in a microsecond */
    Cable c;

    cable_start(&c, &o);
    g_assert_cmpuint(cable_send(&c, 0, 1000, 10), ==, 10);
    g_assert_cmpuint(cable_pass(&c, 999999), ==, 0);
    g_assert_cmpuint(cable_pass(&c, 1), ==, 1);
    g_assert_cmpuint(cable_pass(&c, 4000000), ==, 5);
    g_assert_cmpuint(cable_pass(&c, 5000000), ==, 10);
    /* More than fits in the backlog and the wire waits at the card, and nothing is lost. */
    uint32_t taken = cable_send(&c, 10, 1000, 100000);
    g_assert_cmpuint(taken, <, 2000);
    g_assert_cmpuint(taken, >=, 100);
    c.full = true; /* a receiver without room delays, and loses nothing either */
    g_assert_cmpuint(cable_pass(&c, NS_PER_SEC), ==, 10);
    c.full = false;
    io_thread_call(c.io, (IoCallFn)net_rx_ready, &c.host);
    for (unsigned i = 0; i < 100 && c.got->len < 10 + taken; i++)
        cable_pass(&c, NS_PER_SEC);
    g_assert_cmpuint(c.got->len, ==, 10 + taken);
    for (uint32_t i = 0; i < c.got->len; i++)
        g_assert_cmpuint(g_array_index(c.got, uint32_t, i), ==, i);
    cable_stop(&c);
}

/* Two streams of one back end go through one rate. */
static void test_rate_shared(void)
{
    const ShapeOptions o = {.rate = 8000000};
    Cable c;

    cable_start(&c, &o);
    NetPort host = {.ops = &host_ops, .name = "host", .opaque = &c, .io = c.io, .stream = 1};
    NetPort card = {.ops = &card_ops, .name = "card", .opaque = &c, .io = c.io};
    NetShape *shape = net_shape_new(&host, c.shape, c.clock, &o, NULL);
    g_assert_true(net_join(&card, net_shape_port(shape), NULL));
    g_assert_cmpuint(cable_send(&c, 0, 1000, 5), ==, 5);
    g_assert_cmpuint(stream_send(&c, &card, 5, 1000, 5), ==, 5);
    g_assert_cmpuint(cable_pass(&c, 5000000), ==, 5);
    g_assert_cmpuint(cable_pass(&c, 4999999), ==, 9);
    g_assert_cmpuint(cable_pass(&c, 1), ==, 10);
    for (uint32_t i = 0; i < 10; i++)
        g_assert_cmpuint(g_array_index(c.got, uint32_t, i), ==, i);
    /* What the card says of the second stream goes on to the host's side. */
    g_assert_true(net_peer_idle(&host));
    io_thread_call(c.io, (IoCallFn)net_changed, &card);
    io_thread_call(c.io, nothing, NULL);
    g_assert_false(net_peer_idle(&host));
    __atomic_store_n(&card.idle, true, __ATOMIC_RELAXED);
    io_thread_call(c.io, (IoCallFn)net_changed, &card);
    io_thread_call(c.io, nothing, NULL);
    g_assert_true(net_peer_idle(&host));
    net_shape_free(shape);
    cable_stop(&c);
}

static void test_loss(void)
{
    GArray *runs[2];

    for (unsigned run = 0; run < 2; run++) {
        const ShapeOptions o = {.loss = 1u << 30, .seed = 42};
        Cable c;
        cable_start(&c, &o);
        g_assert_cmpuint(cable_send(&c, 0, 60, 4000), ==, 4000);
        g_assert_cmpuint(c.got->len + net_shape_lost(c.shape), ==, 4000);
        g_assert_cmpuint(net_shape_lost(c.shape), >, 850);
        g_assert_cmpuint(net_shape_lost(c.shape), <, 1150);
        runs[run] = g_array_ref(c.got);
        cable_stop(&c);
    }
    g_assert_cmpmem(runs[0]->data, runs[0]->len * 4, runs[1]->data, runs[1]->len * 4);
    g_array_unref(runs[0]);
    g_array_unref(runs[1]);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN); /* as in the program: a reader that leaves is an error of a write */
    g_test_add_func("/net-watch/arp", test_arp);
    g_test_add_func("/net-watch/nd", test_nd);
    g_test_add_func("/net-watch/dhcp", test_dhcp);
    g_test_add_func("/net-watch/capture", test_capture);
    g_test_add_func("/net-watch/slow-reader", test_slow_reader);
    g_test_add_func("/net-watch/rotate", test_rotate);
    g_test_add_func("/net-watch/delay", test_delay);
    g_test_add_func("/net-watch/rate", test_rate);
    g_test_add_func("/net-watch/rate-shared", test_rate_shared);
    g_test_add_func("/net-watch/loss", test_loss);
    return g_test_run();
}
