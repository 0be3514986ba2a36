/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The wire: order, back-pressure and completeness, on one loop and across two; link; parting. */
#include <string.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"

enum { DEADLINE_S = 20 };

/* A port that counts what it gets and can be told to be full. */
typedef struct TestPort {
    NetPort port;
    GMutex mutex;
    GCond cond;
    unsigned got, room; /* frames; room is what it still takes */
    uint32_t next_seq, last_len;
    bool out_of_order, inside_send, reentered;
    unsigned writable, links, changes;
    bool link, idle;
    uint8_t last_flags;
    NetPort *answer; /* send one frame back from inside deliver */
} TestPort;

static void put_seq(uint8_t *p, uint32_t len, uint32_t seq)
{
    memset(p, 0x55, len);
    store_be32(p, seq);
}

static bool test_deliver(NetPort *self, const NetFrame *f)
{
    TestPort *t = self->opaque;
    uint8_t head[4] = {0};
    bool take;

    memcpy(head, f->iov[0].iov_base, MIN(sizeof head, f->iov[0].iov_len));
    g_mutex_lock(&t->mutex);
    take = t->room > 0;
    if (take) {
        t->room--;
        t->got++;
        t->out_of_order |= load_be32(head) != t->next_seq++;
        t->last_len = f->len;
        t->last_flags = f->flags;
        t->reentered |= t->inside_send;
        g_cond_broadcast(&t->cond);
    }
    g_mutex_unlock(&t->mutex);
    if (take && t->answer) {
        uint8_t data[64];
        struct iovec iov = {data, sizeof data};
        NetFrame back = {.iov = &iov, .niov = 1, .len = sizeof data};
        put_seq(data, sizeof data, 0);
        g_assert_cmpuint(net_send(t->answer, &back, 1), ==, 1);
    }
    return take;
}

static void test_writable(NetPort *self)
{
    TestPort *t = self->opaque;

    g_mutex_lock(&t->mutex);
    t->writable++;
    g_cond_broadcast(&t->cond);
    g_mutex_unlock(&t->mutex);
}

static void test_link(NetPort *self, bool up)
{
    TestPort *t = self->opaque;

    g_mutex_lock(&t->mutex);
    t->links++;
    t->link = up;
    g_cond_broadcast(&t->cond);
    g_mutex_unlock(&t->mutex);
}

static void test_changed(NetPort *self)
{
    TestPort *t = self->opaque;

    g_mutex_lock(&t->mutex);
    t->changes++;
    t->idle = net_peer_idle(self);
    g_cond_broadcast(&t->cond);
    g_mutex_unlock(&t->mutex);
}

static const NetPortOps test_ops = {
    .deliver = test_deliver, .writable = test_writable, .link = test_link, .changed = test_changed,
    .offloads = NET_OFF_CSUM | NET_OFF_TSO4,
};

static void port_init(TestPort *t, const char *name, IoThread *io)
{
    *t = (TestPort){.room = UINT32_MAX};
    t->port = (NetPort){.ops = &test_ops, .name = name, .opaque = t, .io = io};
    g_mutex_init(&t->mutex);
    g_cond_init(&t->cond);
}

/* Wait until @counter of @t is at least @want. */
static void wait_for(TestPort *t, const unsigned *counter, unsigned want)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;

    g_mutex_lock(&t->mutex);
    while (*counter < want) {
        if (!g_cond_wait_until(&t->cond, &t->mutex, end))
            g_error("%s: %u of %u", t->port.name, *counter, want);
    }
    g_mutex_unlock(&t->mutex);
}

typedef struct Send {
    TestPort *from;
    unsigned n, taken, batch;
    uint32_t len, seq;
} Send;

/* On the sender's loop: send s->n frames with numbers from s->seq, until refused. */
static void do_send(void *opaque)
{
    Send *s = opaque;
    g_autofree uint8_t *data = g_malloc((gsize)s->len * s->batch);
    NetFrame frames[32];
    struct iovec iov[32];

    s->taken = 0;
    s->from->inside_send = true;
    while (s->taken < s->n) {
        unsigned n = MIN(s->batch, s->n - s->taken);
        for (unsigned i = 0; i < n; i++) {
            uint8_t *p = data + (gsize)s->len * i;
            put_seq(p, s->len, s->seq + s->taken + i);
            iov[i] = (struct iovec){p, s->len};
            frames[i] = (NetFrame){.iov = &iov[i], .niov = 1, .len = s->len};
        }
        unsigned got = net_send(&s->from->port, frames, n);
        s->taken += got;
        if (got < n)
            break;
    }
    s->from->inside_send = false;
}

static void do_ready(void *opaque)
{
    net_rx_ready(&((TestPort *)opaque)->port);
}

static void do_nothing(void *opaque)
{
}

/* After it the consumer @t has left its drain. */
static void settle(TestPort *t)
{
    io_thread_call(t->port.io, do_nothing, NULL);
}

static void set_room(TestPort *t, unsigned room)
{
    g_mutex_lock(&t->mutex);
    t->room = room;
    g_mutex_unlock(&t->mutex);
}

typedef struct Fixture {
    LodgeClock *clock;
    IoThread *io[2];
    TestPort a, b;
} Fixture;

static void setup(Fixture *f, gconstpointer two)
{
    f->clock = lodge_clock_new();
    f->io[0] = io_thread_new("a", f->clock, NULL);
    f->io[1] = two ? io_thread_new("b", f->clock, NULL) : NULL;
    port_init(&f->a, "a", f->io[0]);
    port_init(&f->b, "b", two ? f->io[1] : f->io[0]);
    g_assert_true(net_join(&f->a.port, &f->b.port, NULL));
}

static void teardown(Fixture *f, gconstpointer two)
{
    net_part(&f->a.port);
    g_assert_null(f->b.port.wire);
    io_thread_free(f->io[0]);
    io_thread_free(f->io[1]);
    lodge_clock_free(f->clock);
}

static void test_order(Fixture *f, gconstpointer two)
{
    Send s = {.from = &f->a, .n = 20, .batch = 8, .len = 100};
    NetStats st;

    /* Sizes that make the ring wrap at odd places. */
    for (unsigned round = 0; round < 150; round++) {
        s.len = 60 + round * 433 % 65000;
        s.n = 1 + round % 13;
        io_thread_call(f->io[0], do_send, &s);
        g_assert_cmpuint(s.taken, ==, s.n);
        s.seq += s.n;
        wait_for(&f->b, &f->b.got, s.seq);
        settle(&f->b); /* delivered is not yet out of the ring, nor counted */
    }
    g_assert_false(f->b.out_of_order);
    g_assert_cmpuint(f->b.last_len, ==, s.len);
    net_stats(&f->a.port, &st);
    g_assert_cmpuint(st.tx_frames, ==, s.seq);
    net_stats(&f->b.port, &st);
    g_assert_cmpuint(st.rx_frames, ==, s.seq);
    g_assert_cmpuint(st.rx_dropped, ==, 0);
}

static void test_pressure(Fixture *f, gconstpointer two)
{
    Send s = {.from = &f->a, .n = 5000, .batch = 32, .len = 1500};
    unsigned total = 0, stops = 0;

    set_room(&f->b, 3);
    while (total < s.n) {
        Send part = s;
        part.n = s.n - total;
        part.seq = total;
        unsigned told = f->a.writable;
        io_thread_call(f->io[0], do_send, &part);
        total += part.taken;
        if (part.taken == part.n)
            break;
        stops++;
        set_room(&f->b, 2000);
        io_thread_call(f->b.port.io, do_ready, &f->b);
        wait_for(&f->a, &f->a.writable, told + 1);
    }
    g_assert_cmpuint(stops, >, 0);
    set_room(&f->b, UINT32_MAX);
    io_thread_call(f->b.port.io, do_ready, &f->b);
    wait_for(&f->b, &f->b.got, s.n);
    g_assert_false(f->b.out_of_order);
}

/* A sender on the full peer's own loop keeps long frames; the ring holds its short ones, and all in
 * order. Elsewhere the ring holds both. */
static void test_long(Fixture *f, gconstpointer two)
{
    Send s = {.from = &f->a, .n = 4, .batch = 4, .len = 60000};

    set_room(&f->b, 1);
    io_thread_call(f->io[0], do_send, &s);
    g_assert_cmpuint(s.taken, ==, two ? 4 : 1);
    settle(&f->b);
    set_room(&f->b, 1);
    io_thread_call(f->b.port.io, do_ready, &f->b);
    settle(&f->a);
    g_assert_cmpuint(f->a.writable, ==, two ? 0 : 1);
    s = (Send){.from = &f->a, .n = 4, .batch = 4, .len = 60, .seq = s.taken};
    io_thread_call(f->io[0], do_send, &s);
    g_assert_cmpuint(s.taken, ==, 4);
    s = (Send){.from = &f->a, .n = 1, .batch = 1, .len = 60000, .seq = s.seq + 4};
    io_thread_call(f->io[0], do_send, &s);
    g_assert_cmpuint(s.taken, ==, two ? 1 : 0);
    set_room(&f->b, UINT32_MAX);
    io_thread_call(f->b.port.io, do_ready, &f->b);
    wait_for(&f->b, &f->b.got, s.seq + s.taken);
    settle(&f->a);
    g_assert_cmpuint(f->a.writable, ==, two ? 0 : 2);
    g_assert_false(f->b.out_of_order);
}

static void test_answer(Fixture *f, gconstpointer two)
{
    Send s = {.from = &f->a, .n = 10, .batch = 1, .len = 80};

    f->b.answer = &f->b.port;
    io_thread_call(f->io[0], do_send, &s);
    wait_for(&f->a, &f->a.got, 10);
    if (!two)
        g_assert_false(f->a.reentered);
}

static void test_link_down(Fixture *f, gconstpointer two)
{
    Send s = {.from = &f->a, .n = 5, .batch = 5, .len = 80};
    uint64_t lost[NET_LOSSES];
    NetStats st;

    net_set_link(&f->b.port, false);
    wait_for(&f->a, &f->a.links, 1);
    g_assert_false(f->a.link);
    io_thread_call(f->io[0], do_send, &s);
    g_assert_cmpuint(s.taken, ==, 5);
    net_stats(&f->a.port, &st);
    g_assert_cmpuint(st.tx_dropped, ==, 5);
    net_count_loss(&f->b.port, NET_LOSS_FULL, 2);
    for (unsigned side = 0; side < 2; side++) { /* either end tells of both directions */
        net_losses(side ? &f->b.port : &f->a.port, lost);
        g_assert_cmpuint(lost[NET_LOSS_DOWN], ==, 5);
        g_assert_cmpuint(lost[NET_LOSS_FULL], ==, 2);
        g_assert_cmpuint(lost[NET_LOSS_HEADER], ==, 0);
    }
    net_stats(&f->a.port, &st);
    g_assert_cmpuint(st.tx_dropped, ==, 5);
    g_assert_cmpuint(st.rx_dropped, ==, 2);
    net_set_link(&f->b.port, true);
    wait_for(&f->a, &f->a.links, 2);
    g_assert_true(f->a.link);
    io_thread_call(f->io[0], do_send, &s);
    wait_for(&f->b, &f->b.got, 5);
    g_assert_cmpuint(f->b.got, ==, 5);
}

static void say_changed(void *opaque)
{
    net_changed(opaque);
}

/* What a port wants is told to its peer, the last time when that has gone. */
static void test_told(Fixture *f, gconstpointer two)
{
    g_assert_false(net_peer_idle(&f->b.port));
    __atomic_store_n(&f->a.port.idle, true, __ATOMIC_RELAXED);
    __atomic_store_n(&f->a.port.offloads, NET_OFF_CSUM, __ATOMIC_RELAXED);
    io_thread_call(f->io[0], say_changed, &f->a.port);
    wait_for(&f->b, &f->b.changes, 1);
    g_assert_true(f->b.idle);
    g_assert_cmpuint(net_peer_takes(&f->b.port), ==, NET_OFF_CSUM);
    __atomic_store_n(&f->a.port.idle, false, __ATOMIC_RELAXED);
    io_thread_call(f->io[0], say_changed, &f->a.port);
    wait_for(&f->b, &f->b.changes, 2);
    g_assert_false(f->b.idle);
    g_assert_cmpuint(f->a.changes, ==, 0);
    net_part(&f->a.port);
    g_assert_cmpuint(f->b.changes, ==, 3);
    g_assert_true(f->b.idle);
    io_thread_call(f->io[0], say_changed, &f->a.port); /* nobody to tell */
    g_assert_true(net_join(&f->a.port, &f->b.port, NULL));
}

/* A cable that the operator pulled: up again only when both say so, and told once for each change. */
static void test_cut(Fixture *f, gconstpointer two)
{
    Send s = {.from = &f->a, .n = 5, .batch = 5, .len = 80};

    net_cut(&f->b.port, true);
    wait_for(&f->a, &f->a.links, 1);
    g_assert_false(f->a.link);
    g_assert_false(net_peer_link(&f->a.port));
    net_set_link(&f->b.port, false);
    net_cut(&f->b.port, false);
    g_assert_false(net_peer_link(&f->a.port));
    net_cut(&f->b.port, true);
    net_set_link(&f->b.port, true);
    io_thread_call(f->io[0], do_send, &s);
    g_assert_cmpuint(s.taken, ==, 5);
    g_assert_false(net_peer_link(&f->a.port));
    g_assert_cmpuint(f->a.links, ==, 1);
    /* It stays pulled for the next card. */
    net_part(&f->a.port);
    g_assert_true(net_join(&f->a.port, &f->b.port, NULL));
    g_assert_false(net_peer_link(&f->a.port));
    net_cut(&f->b.port, false);
    wait_for(&f->a, &f->a.links, 2);
    g_assert_true(f->a.link);
    io_thread_call(f->io[0], do_send, &s);
    wait_for(&f->b, &f->b.got, 5);
    g_assert_cmpuint(f->b.got, ==, 5);
}

/* A long TCP frame to be checksummed and cut, 40 bytes of IPv4 and TCP headers. */
static void do_send_tso(void *opaque)
{
    Send *s = opaque;
    g_autofree uint8_t *p = g_malloc0(s->len);
    struct iovec iov = {p, s->len};
    NetFrame f = {.iov = &iov, .niov = 1, .len = s->len, .gso = NET_GSO_TCPV4, .gso_size = 1000,
                  .flags = NET_FRAME_NEEDS_CSUM, .csum_start = 34, .csum_off = 16};

    store_be16(p + 12, 0x0800);
    p[14] = 0x45;
    p[23] = 6;
    p[46] = 5 << 4;
    if (s->n == 2)
        p[23] = 17; /* not what it says: dropped */
    s->taken = net_send(&s->from->port, &f, 1);
}

static void test_offloads(Fixture *f, gconstpointer two)
{
    Send s = {.from = &f->a, .len = 54 + 10500};
    NetStats st;

    io_thread_call(f->io[0], do_send_tso, &s);
    wait_for(&f->b, &f->b.got, 11);
    g_assert_cmpuint(f->b.got, ==, 11);
    g_assert_cmpuint(f->b.last_len, ==, 54 + 500);
    g_assert_cmpuint(f->b.last_flags & NET_FRAME_NEEDS_CSUM, ==, 0);
    f->b.port.offloads = NET_OFF_CSUM | NET_OFF_TSO4;
    io_thread_call(f->io[0], do_send_tso, &s);
    wait_for(&f->b, &f->b.got, 12);
    g_assert_cmpuint(f->b.last_len, ==, s.len);
    g_assert_cmpuint(f->b.last_flags, ==, NET_FRAME_NEEDS_CSUM);
    f->b.port.offloads = 0;
    s.n = 2;
    io_thread_call(f->io[0], do_send_tso, &s);
    g_assert_cmpuint(s.taken, ==, 1);
    net_stats(&f->a.port, &st);
    g_assert_cmpuint(st.tx_dropped, ==, 1);
}

static void test_join_twice(Fixture *f, gconstpointer two)
{
    TestPort c;
    g_autoptr(GError) error = NULL;
    Send s = {.from = &c, .n = 3, .batch = 1, .len = 60};

    port_init(&c, "c", f->io[0]);
    g_assert_false(net_join(&c.port, &f->a.port, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_STATE);
    io_thread_call(f->io[0], do_send, &s);
    g_assert_cmpuint(s.taken, ==, 3); /* not joined: taken and gone */
    net_part(&c.port);
}

/* Ports without a loop, as boards driven by hand have. */
static void test_no_loop(void)
{
    TestPort a, b;
    Send s = {.from = &a, .n = 3, .batch = 3, .len = 60};

    port_init(&a, "a", NULL);
    port_init(&b, "b", NULL);
    g_assert_true(net_join(&a.port, &b.port, NULL));
    b.answer = &b.port;
    do_send(&s);
    g_assert_cmpuint(b.got, ==, 3);
    g_assert_cmpuint(a.got, ==, 3);
    b.answer = NULL;
    b.room = 1;
    s.seq = 3;
    do_send(&s);
    g_assert_cmpuint(b.got, ==, 4);
    net_part(&b.port);
}

typedef void (*Test)(Fixture *f, gconstpointer two);

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        Test fn;
    } tests[] = {
        {"order", test_order},         {"pressure", test_pressure}, {"answer", test_answer},
        {"long", test_long},
        {"link-down", test_link_down}, {"cut", test_cut}, {"told", test_told}, {"offloads", test_offloads}, {"join-twice", test_join_twice},
    };

    g_test_init(&argc, &argv, NULL);
    for (int two = 0; two < 2; two++) {
        for (size_t i = 0; i < G_N_ELEMENTS(tests); i++) {
            g_autofree char *path = g_strdup_printf("/wire/%s/%s", two ? "two-loops" : "one-loop",
                                                    tests[i].name);
            g_test_add(path, Fixture, two ? "two" : NULL, setup, tests[i].fn, teardown);
        }
    }
    g_test_add_func("/wire/no-loop", test_no_loop);
    return g_test_run();
}
