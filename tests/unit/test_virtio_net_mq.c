/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Several pairs of queues of the virtio network card, on a back end of as many streams: which are in
 * use, and what the control queue makes of a driver that means ill. With threads, each on its own. */
#include <string.h>

#include <linux/virtio_net.h>

#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/net.h"
#include "lodge/num.h"
#include "virtio_net_driver.h"

enum { PAIRS = 3, CTRL = 2 * PAIRS, ALONE = 2, FRAME = 100, DEADLINE_S = 20 };

#define HDR sizeof(struct virtio_net_hdr_v1)
#define MQ (UINT64_C(1) << VIRTIO_NET_F_MQ)

typedef struct Fix {
    NetPort stream[PAIRS];
    int got[PAIRS], changes[PAIRS]; /* atomic */
    IoThread *io[PAIRS];            /* NULL: without threads */
    LodgeClock *clock;
    TestBoard *tb;
    Drv *d;
    uint64_t buf;
} Fix;

static bool stream_deliver(NetPort *p, const NetFrame *f)
{
    Fix *x = p->opaque;

    g_assert_true(!p->io || io_thread_is_current(p->io));
    g_atomic_int_inc(&x->got[p->stream]);
    return true;
}

static void stream_changed(NetPort *p)
{
    Fix *x = p->opaque;

    g_assert_true(!p->io || io_thread_is_current(p->io));
    g_atomic_int_inc(&x->changes[p->stream]);
}

static const NetPortOps stream_ops = {
    .deliver = stream_deliver,
    .changed = stream_changed,
    .offloads = NET_OFF_ALL,
};

static void open_card(Fix *f, bool threads)
{
    memset(f, 0, sizeof *f);
    f->clock = lodge_clock_new();
    for (unsigned i = 0; i < PAIRS; i++) {
        f->io[i] = threads ? io_thread_new("stream", f->clock, NULL) : NULL;
        f->stream[i] = (NetPort){.ops = &stream_ops, .name = "stream", .opaque = f,
                                 .stream = (uint8_t)i, .io = f->io[i],
                                 .next = i + 1 < PAIRS ? &f->stream[i + 1] : NULL,
                                 .offloads = NET_OFF_ALL};
    }
    f->tb = drv_board();
    test_board_backend(f->tb, "wire", &f->stream[0]);
    f->d = drv_open(f->tb, "virtio-net-pci", "netdev=wire,mac=52:54:00:00:00:01");
}

static void start_driver(Fix *f, uint64_t without)
{
    f->buf = net_drv_start(f->d, UINT64_MAX & ~without, CTRL + 1);
}

static void fix_up(Fix *f, gconstpointer unused)
{
    open_card(f, false);
    start_driver(f, 0);
}

static void fix_down(Fix *f, gconstpointer unused)
{
    drv_free(f->d);
    test_board_free(f->tb);
    for (unsigned i = 0; i < PAIRS; i++)
        io_thread_free(f->io[i]);
    lodge_clock_free(f->clock);
}

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        int64_t end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;                    \
        while (!(cond)) {                                                                          \
            g_assert_cmpint(g_get_monotonic_time(), <, end);                                       \
            g_usleep(500);                                                                         \
        }                                                                                          \
    } while (0)

static uint8_t command_on(Fix *f, unsigned q, uint8_t class, uint8_t cmd, const void *data,
                          uint32_t len)
{
    return net_drv_command(f->d, f->buf, q, class, cmd, data, len);
}

static uint8_t set_pairs(Fix *f, uint16_t pairs)
{
    uint8_t data[2];

    store_le16(data, pairs);
    return command_on(f, CTRL, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, data, 2);
}

static void send_from(Fix *f, unsigned pair)
{
    uint8_t zeros[HDR + FRAME] = {0};
    uint64_t at = f->buf + 8192 + 4096 * pair;

    drv_put(f->d, at, zeros, sizeof zeros);
    drv_add(f->d, 2 * pair + 1, &(DrvSeg){at, sizeof zeros, false}, 1);
    drv_kick(f->d, 2 * pair + 1);
}

typedef struct SendCall {
    NetPort *from;
    unsigned taken;
} SendCall;

static void do_send(void *opaque)
{
    uint8_t frame[FRAME] = {0x52, 0x54, 0, 0, 0, 1};
    struct iovec iov = {frame, FRAME};
    NetFrame nf = {.iov = &iov, .niov = 1, .len = FRAME};
    SendCall *s = opaque;

    s->taken = net_send(s->from, &nf, 1);
}

/* A frame comes by stream @i, where there is a buffer for it; whether the driver got it. */
static bool arrives(Fix *f, unsigned i)
{
    SendCall s = {&f->stream[i], 0};

    drv_add(f->d, 2 * i, &(DrvSeg){f->buf + 32768 + 4096 * i, 2048, true}, 1);
    drv_kick(f->d, 2 * i);
    if (f->io[i])
        io_thread_call(f->io[i], do_send, &s);
    else
        do_send(&s);
    g_assert_cmpuint(s.taken, ==, 1);
    return net_drv_used(f->d, 2 * i) == 1;
}

static void check_in_use(Fix *f, unsigned pairs)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        g_assert_cmpint(net_peer_idle(&f->stream[i]), ==, i >= pairs);
        g_assert_cmpint(arrives(f, i), ==, i < pairs);
    }
}

static void test_pairs(Fix *f, gconstpointer unused)
{
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 8, 2), ==, PAIRS);
    g_assert_true(f->d->features & MQ);
    check_in_use(f, 1);
    int before = f->changes[2];
    g_assert_cmpuint(set_pairs(f, 2), ==, VIRTIO_NET_OK);
    check_in_use(f, 2);
    g_assert_cmpuint(set_pairs(f, PAIRS), ==, VIRTIO_NET_OK);
    g_assert_cmpint(f->changes[2], >, before);
    check_in_use(f, PAIRS);
    for (unsigned i = 0; i < PAIRS; i++) {
        send_from(f, i);
        g_assert_cmpint(f->got[i], ==, 1);
        g_assert_cmpuint(net_drv_used(f->d, 2 * i + 1), ==, 1);
        g_assert_cmpuint(drv_msis(f->d, 2 * (int)i + 1), ==, 1);
    }
    g_assert_cmpuint(set_pairs(f, 1), ==, VIRTIO_NET_OK);
    check_in_use(f, 1);
    g_assert_cmpuint(f->d->dev->faults, ==, 0);
}

static void test_bad_commands(Fix *f, gconstpointer unused)
{
    static const uint8_t three[3] = {2, 0, 0};

    g_assert_cmpuint(set_pairs(f, 2), ==, VIRTIO_NET_OK);
    g_assert_cmpuint(set_pairs(f, 0), ==, VIRTIO_NET_ERR);
    g_assert_cmpuint(set_pairs(f, PAIRS + 1), ==, VIRTIO_NET_ERR);
    g_assert_cmpuint(set_pairs(f, 0x8000), ==, VIRTIO_NET_ERR);
    g_assert_cmpuint(set_pairs(f, UINT16_MAX), ==, VIRTIO_NET_ERR);
    for (uint32_t len = 0; len <= 3; len++) {
        uint8_t want = len == 2 ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
        g_assert_cmpuint(command_on(f, CTRL, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
                                    three, len), ==, want);
    }
    /* Steering by hash is not offered (5.1.6.5.6.4 and 5.1.6.5.7.1). */
    for (uint8_t cmd = 1; cmd < 4; cmd++)
        g_assert_cmpuint(command_on(f, CTRL, VIRTIO_NET_CTRL_MQ, cmd, three, 2), ==,
                         VIRTIO_NET_ERR);
    check_in_use(f, 2);
    /* No room for the answer: the driver is broken, and nothing is sent or received any more. */
    drv_add(f->d, CTRL, &(DrvSeg){f->buf, 4, false}, 1);
    drv_kick(f->d, CTRL);
    g_assert_true(drv_needs_reset(f->d));
    g_assert_false(arrives(f, 0));
    g_assert_false(arrives(f, 1));
}

static void test_reset(Fix *f, gconstpointer unused)
{
    g_assert_cmpuint(set_pairs(f, PAIRS), ==, VIRTIO_NET_OK);
    check_in_use(f, PAIRS);
    drv_reset(f->d);
    for (unsigned i = 1; i < PAIRS; i++)
        g_assert_true(net_peer_idle(&f->stream[i]));
    g_assert_cmpuint(net_peer_takes(&f->stream[0]), ==, 0);
    start_driver(f, 0);
    check_in_use(f, 1);
    g_assert_cmpuint(net_peer_takes(&f->stream[0]), ==, NET_OFF_ALL);
    g_assert_cmpuint(set_pairs(f, 2), ==, VIRTIO_NET_OK);
    check_in_use(f, 2);
}

/* A driver that has not accepted several pairs has its control queue third (5.1.2), whose buffers
 * are no place for frames; what lies behind that is nobody's. */
static void test_not_accepted(void)
{
    Fix f;
    uint8_t two[2] = {2, 0}, off = 0;

    open_card(&f, false);
    start_driver(&f, MQ);
    g_assert_false(f.d->features & MQ);
    g_assert_cmpuint(command_on(&f, ALONE, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, two,
                                2), ==, VIRTIO_NET_ERR);
    g_assert_true(arrives(&f, 0));
    /* A command that the driver has not told of yet: its writable part takes no frame. */
    drv_add(f.d, ALONE, (DrvSeg[]){{f.buf, 2, false}, {f.buf + 2048, 2048, true}}, 2);
    SendCall s = {&f.stream[1], 0};
    do_send(&s);
    g_assert_cmpuint(net_drv_used(f.d, ALONE), ==, 0);
    drv_kick(f.d, ALONE);
    g_assert_cmpuint(net_drv_used(f.d, ALONE), ==, 1);
    g_assert_cmpuint(command_on(&f, ALONE, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1),
                     ==, VIRTIO_NET_OK);
    for (unsigned q = 3; q <= CTRL; q++) {
        drv_add(f.d, q, &(DrvSeg){f.buf, 1000, false}, 1);
        drv_kick(f.d, q);
        g_assert_cmpuint(net_drv_used(f.d, q), ==, 0);
    }
    for (unsigned i = 1; i < PAIRS; i++)
        g_assert_cmpint(f.got[i], ==, 0);
    g_assert_true(arrives(&f, 0));
    send_from(&f, 0);
    g_assert_cmpint(f.got[0], ==, 1);
    fix_down(&f, NULL);
}

/* The filter is the card's, not a pair's. */
static void test_filter(Fix *f, gconstpointer unused)
{
    static const uint8_t other[6] = {0x52, 0x54, 0, 0, 0, 9};
    uint8_t off = 0;

    g_assert_cmpuint(set_pairs(f, PAIRS), ==, VIRTIO_NET_OK);
    check_in_use(f, PAIRS);
    g_assert_cmpuint(command_on(f, CTRL, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1),
                     ==, VIRTIO_NET_OK);
    check_in_use(f, PAIRS);
    g_assert_cmpuint(command_on(f, CTRL, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other,
                                6), ==, VIRTIO_NET_OK);
    for (unsigned i = 0; i < PAIRS; i++)
        g_assert_false(arrives(f, i));
}

/* One link for all: it is down while one of the streams' is. */
static void test_link(Fix *f, gconstpointer unused)
{
    net_set_link(&f->stream[1], false);
    net_set_link(&f->stream[2], false);
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 6, 2), ==, 0);
    net_set_link(&f->stream[1], true);
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 6, 2), ==, 0);
    net_set_link(&f->stream[2], true);
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 6, 2), ==,
                     VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
}

static bool load(Fix *f, GByteArray *saved, GError **error)
{
    size_t used;

    device_reset(f->d->dev, RESET_COLD);
    return state_load(f->d->dev->cls->state, f->d->dev, saved->data, saved->len, &used, error);
}

static void test_state(Fix *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    Fix one;

    g_assert_cmpuint(set_pairs(f, 2), ==, VIRTIO_NET_OK);
    state_save(f->d->dev->cls->state, f->d->dev, saved);
    g_assert_true(load(f, saved, &error));
    g_assert_no_error(error);
    device_resume(f->d->dev);
    check_in_use(f, 2);
    g_assert_cmpuint(set_pairs(f, PAIRS), ==, VIRTIO_NET_OK);

    /* One that says that a driver uses two, and never accepted them. */
    g_autoptr(GByteArray) alone = g_byte_array_new();
    static const char name[] = "\5pairs"; /* then kind, size and count */
    open_card(&one, false);
    start_driver(&one, MQ);
    state_save(one.d->dev->cls->state, one.d->dev, alone);
    guint8 *at = memmem(alone->data, alone->len, name, strlen(name));
    g_assert_nonnull(at);
    at += strlen(name) + 1 + 4 + 4;
    g_assert_cmpuint(*at, ==, 1);
    *at = 2;
    g_assert_false(load(&one, alone, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
    g_assert_nonnull(strstr(error->message, "2 pairs of queues"));
    fix_down(&one, NULL);
}

/* ---- each pair on a thread of its own ---- */

static void note_quiet(Device *d, void *opaque)
{
    g_atomic_int_set((int *)opaque, 1);
}

static void rest(Fix *f)
{
    int quiet = 0;

    device_quiesce(f->d->dev, note_quiet, &quiet);
    UNTIL(g_atomic_int_get(&quiet));
}

static void test_threads(void)
{
    Fix f;

    open_card(&f, true);
    start_driver(&f, 0);
    g_assert_cmpuint(set_pairs(&f, PAIRS), ==, VIRTIO_NET_OK);
    for (unsigned round = 1; round <= 20; round++) {
        for (unsigned i = 0; i < PAIRS; i++)
            send_from(&f, i);
        for (unsigned i = 0; i < PAIRS; i++) {
            unsigned used = 0;

            UNTIL(g_atomic_int_get(&f.got[i]) == (int)round);
            UNTIL((used += net_drv_used(f.d, 2 * i + 1)) == 1);
            g_assert_true(arrives(&f, i));
        }
        g_assert_cmpuint(set_pairs(&f, (uint16_t)(1 + round % PAIRS)), ==, VIRTIO_NET_OK);
        g_assert_cmpuint(set_pairs(&f, PAIRS), ==, VIRTIO_NET_OK);
    }
    for (unsigned i = 1; i < PAIRS; i++)
        UNTIL(g_atomic_int_get(&f.changes[i]) >= 40);
    rest(&f);
    device_resume(f.d->dev);
    g_assert_true(arrives(&f, PAIRS - 1));
    drv_reset(f.d);
    start_driver(&f, 0);
    g_assert_false(arrives(&f, PAIRS - 1));
    rest(&f);
    fix_down(&f, NULL);
}

#define ADD(name, fn) g_test_add("/virtio-net/mq/" name, Fix, NULL, fix_up, fn, fix_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("pairs", test_pairs);
    ADD("bad-commands", test_bad_commands);
    ADD("reset", test_reset);
    ADD("filter", test_filter);
    ADD("link", test_link);
    ADD("state", test_state);
    g_test_add_func("/virtio-net/mq/not-accepted", test_not_accepted);
    g_test_add_func("/virtio-net/mq/threads", test_threads);
    return g_test_run();
}
