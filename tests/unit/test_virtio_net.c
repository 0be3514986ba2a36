/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio network card on a real wire, whose other end is the test's. */
#include <string.h>

#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "lodge/net.h"
#include "lodge/num.h"
#include "virtio.h"
#include "virtio_net_driver.h"
#include "virtio_net_filter.h"

#define BIT(b) (UINT64_C(1) << (b))
#define HDR sizeof(struct virtio_net_hdr_v1)
#define FRAME 100
#define RX 0
#define TX 1
#define CTRL 2

typedef struct Fix {
    NetPort peer;
    GPtrArray *got; /* GBytes: frames that reached the peer */
    NetFrame last;
    unsigned room; /* frames that the peer takes */
    TestBoard *tb;
    Drv *d;
    uint64_t buf;
} Fix;

static bool peer_deliver(NetPort *p, const NetFrame *f)
{
    Fix *x = p->opaque;
    GByteArray *b;

    if (!x->room)
        return false;
    x->room--;
    b = g_byte_array_new();
    for (unsigned i = 0; i < f->niov; i++)
        g_byte_array_append(b, f->iov[i].iov_base, (guint)f->iov[i].iov_len);
    g_assert_cmpuint(b->len, ==, f->len);
    x->last = *f;
    g_ptr_array_add(x->got, g_byte_array_free_to_bytes(b));
    return true;
}

static const NetPortOps peer_ops = {
    .deliver = peer_deliver,
    .offloads = NET_OFF_ALL,
};

static void start(Fix *f, uint64_t features)
{
    f->peer = (NetPort){
        .ops = &peer_ops, .name = "peer", .opaque = f, .offloads = peer_ops.offloads};
    f->got = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    f->room = UINT32_MAX;
    f->tb = drv_board();
    test_board_backend(f->tb, "wire", &f->peer);
    f->d = drv_open(f->tb, "virtio-net-pci", "netdev=wire,mac=52:54:00:00:00:01,mtu=1400");
    f->buf = net_drv_start(f->d, features, CTRL + 1);
}

static void fix_up(Fix *f, gconstpointer unused)
{
    start(f, UINT64_MAX);
}

static void fix_down(Fix *f, gconstpointer unused)
{
    drv_free(f->d);
    test_board_free(f->tb);
    g_ptr_array_free(f->got, TRUE);
}

/* A frame of @len bytes to @dest in guest memory, header before it; offered, not kicked. */
static void offer_tx(Fix *f, const struct virtio_net_hdr_v1 *h, uint32_t len)
{
    uint8_t frame[FRAME * 4];

    for (unsigned i = 0; i < len; i++)
        frame[i] = (uint8_t)i;
    drv_put(f->d, f->buf, h, HDR);
    drv_put(f->d, f->buf + HDR, frame, len);
    drv_add(f->d, TX, (DrvSeg[]){{f->buf, 20, false}, {f->buf + 20, HDR + len - 20, false}}, 2);
}

static void test_send(Fix *f, gconstpointer unused)
{
    struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34,
                                  .csum_offset = 16, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                  .gso_size = 40, .hdr_len = 54};
    size_t len;

    offer_tx(f, &h, FRAME);
    drv_kick(f->d, TX);
    g_assert_cmpuint(f->got->len, ==, 1);
    const uint8_t *b = g_bytes_get_data(g_ptr_array_index(f->got, 0), &len);
    g_assert_cmpuint(len, ==, FRAME);
    g_assert_cmpuint(b[0], ==, 0);
    g_assert_cmpuint(b[FRAME - 1], ==, FRAME - 1);
    g_assert_cmpuint(f->last.gso, ==, NET_GSO_TCPV4);
    g_assert_cmpuint(f->last.gso_size, ==, 40);
    g_assert_cmpuint(f->last.csum_start, ==, 34);
    g_assert_cmpuint(net_drv_used(f->d, TX), ==, 1);
    g_assert_cmpuint(drv_msis(f->d, TX), ==, 1);
}

/* Datagrams of UDP in one frame, both ways (features 54 to 56). */
static void test_datagrams(Fix *f, gconstpointer unused)
{
    struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34,
                                  .csum_offset = 6, .gso_type = 5, .gso_size = 40, .hdr_len = 42};
    uint8_t frame[FRAME] = {0x52, 0x54, 0, 0, 0, 1};
    struct iovec iov = {frame, FRAME};
    NetFrame nf = {.iov = &iov, .niov = 1, .len = FRAME, .flags = NET_FRAME_NEEDS_CSUM,
                   .csum_start = 34, .csum_off = 6, .gso = NET_GSO_UDP, .gso_size = 40};

    offer_tx(f, &h, FRAME);
    drv_kick(f->d, TX);
    g_assert_cmpuint(f->got->len, ==, 1);
    g_assert_cmpuint(f->last.gso, ==, NET_GSO_UDP);
    g_assert_cmpuint(f->last.gso_size, ==, 40);
    g_assert_cmpuint(f->d->dev->faults, ==, 0);
    drv_add(f->d, RX, &(DrvSeg){f->buf + 4096, 2048, true}, 1);
    g_assert_cmpuint(net_send(&f->peer, &nf, 1), ==, 1);
    drv_get(f->d, f->buf + 4096, &h, HDR);
    g_assert_cmpuint(h.gso_type, ==, 5);
    g_assert_cmpuint(h.gso_size, ==, 40);
    g_assert_cmpuint(net_drv_used(f->d, RX), ==, 1);
}

/* Send numbered frames until the wire takes no more: the last one stays with us. */
static uint32_t fill_wire(Fix *f)
{
    struct virtio_net_hdr_v1 h = {0};

    for (uint32_t i = 0; i < 100000; i++) {
        drv_put(f->d, f->buf, &h, HDR);
        drv_put(f->d, f->buf + HDR, &i, sizeof i);
        drv_add(f->d, TX, &(DrvSeg){f->buf, HDR + 1400, false}, 1);
        drv_kick(f->d, TX);
        if (!net_drv_used(f->d, TX))
            return i + 1;
    }
    g_assert_not_reached();
}

static void check_order(Fix *f, uint32_t n)
{
    g_assert_cmpuint(f->got->len, ==, n);
    for (uint32_t i = 0; i < n; i++)
        g_assert_cmpuint(load_le32(g_bytes_get_data(g_ptr_array_index(f->got, i), NULL)), ==, i);
    g_assert_cmpuint(net_drv_used(f->d, TX), ==, 1);
}

/* A full wire stops us, in order, and nothing is lost or doubled. */
static void test_backpressure(Fix *f, gconstpointer unused)
{
    uint32_t n;

    f->room = 2;
    n = fill_wire(f);
    drv_kick(f->d, TX);
    g_assert_cmpuint(net_drv_used(f->d, TX), ==, 0);
    f->room = UINT32_MAX;
    net_rx_ready(&f->peer);
    check_order(f, n);
}

static void note_quiet(Device *d, void *opaque)
{
    *(bool *)opaque = true;
}

/* Frames that the wire did not take go back to the ring for the time of a pause. */
static void test_quiesce(Fix *f, gconstpointer unused)
{
    bool quiet = false;
    uint32_t n;

    f->room = 0;
    n = fill_wire(f);
    device_quiesce(f->d->dev, note_quiet, &quiet);
    g_assert_true(quiet);
    f->room = UINT32_MAX;
    net_rx_ready(&f->peer);
    g_assert_cmpuint(f->got->len, ==, n - 1);
    device_resume(f->d->dev);
    check_order(f, n);
}

static void test_bad_frames(Fix *f, gconstpointer unused)
{
    const struct virtio_net_hdr_v1 bad[] = {
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = FRAME - 1, .csum_offset = 0},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 0xffff, .csum_offset = 0xffff},
        {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 40},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_UDP, .gso_size = 40},
    };
    uint64_t lost[NET_LOSSES];

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        offer_tx(f, &bad[i], FRAME);
    drv_add(f->d, TX, &(DrvSeg){f->buf, 5, false}, 1);       /* not even a header */
    drv_add(f->d, TX, &(DrvSeg){f->buf, HDR + 13, false}, 1); /* nor an Ethernet one */
    drv_kick(f->d, TX);
    g_assert_cmpuint(f->got->len, ==, 0);
    net_losses(&f->peer, lost);
    g_assert_cmpuint(lost[NET_LOSS_HEADER], ==, G_N_ELEMENTS(bad) + 2);
    g_assert_cmpuint(lost[NET_LOSS_DOWN] + lost[NET_LOSS_FULL], ==, 0);
    g_assert_cmpuint(net_drv_used(f->d, TX), ==, G_N_ELEMENTS(bad) + 2);
    g_assert_cmpuint(f->d->dev->faults, ==, G_N_ELEMENTS(bad) + 2);
    g_assert_false(drv_needs_reset(f->d));
}

static unsigned receive(Fix *f, const uint8_t dest[6], uint32_t len, uint8_t flags)
{
    g_autofree uint8_t *frame = g_malloc0(len);
    struct iovec iov = {frame, len};
    NetFrame nf = {.iov = &iov, .niov = 1, .len = len, .flags = flags,
                   .csum_start = 34, .csum_off = 16};

    memcpy(frame, dest, 6);
    frame[len - 1] = 0x77;
    return net_send(&f->peer, &nf, 1);
}

static const uint8_t own[6] = {0x52, 0x54, 0, 0, 0, 1};
static const uint8_t other[6] = {0x52, 0x54, 0, 0, 0, 2};
static const uint8_t group[6] = {0x33, 0x33, 0, 0, 0, 5};
static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static void test_receive(Fix *f, gconstpointer unused)
{
    struct virtio_net_hdr_v1 h;
    uint64_t b = drv_alloc(f->d, 2048);
    uint8_t last;
    uint32_t head, len;

    g_assert_cmpuint(receive(f, own, FRAME, NET_FRAME_CSUM_VALID), ==, 1);
    g_assert_false(drv_used(f->d, RX, &head, &len)); /* no buffers: the wire keeps it */
    drv_add(f->d, RX, &(DrvSeg){b, 2048, true}, 1);
    drv_kick(f->d, RX);
    g_assert_true(drv_used(f->d, RX, &head, &len));
    g_assert_cmpuint(len, ==, HDR + FRAME);
    drv_get(f->d, b, &h, HDR);
    g_assert_cmpuint(h.num_buffers, ==, 1);
    g_assert_cmpuint(h.flags, ==, VIRTIO_NET_HDR_F_DATA_VALID);
    drv_get(f->d, b + HDR + FRAME - 1, &last, 1);
    g_assert_cmpuint(last, ==, 0x77);
    g_assert_cmpuint(drv_msis(f->d, RX), ==, 1);
}

/* A frame over several buffers, too few of them at first: all or nothing, then the right kick. */
static void test_merge(Fix *f, gconstpointer unused)
{
    struct virtio_net_hdr_v1 h;
    uint64_t b = drv_alloc(f->d, 300);
    DrvQueue *q = &f->d->q[RX];
    uint32_t head, len;

    for (unsigned i = 0; i < 2; i++)
        drv_add(f->d, RX, &(DrvSeg){b + 100 * i, 100, true}, 1);
    g_assert_cmpuint(receive(f, own, 250, 0), ==, 1);
    g_assert_false(drv_used(f->d, RX, &head, &len));
    g_assert_cmpuint(drv_get16(f->d, q->used + 4 + 8 * q->size), ==, 2); /* avail_event */
    drv_add(f->d, RX, &(DrvSeg){b + 200, 100, true}, 1);
    drv_kick(f->d, RX);
    drv_get(f->d, b, &h, HDR);
    g_assert_cmpuint(h.num_buffers, ==, 3);
    g_assert_true(drv_used(f->d, RX, &head, &len) && len == 100);
    g_assert_true(drv_used(f->d, RX, &head, &len) && len == 100);
    g_assert_true(drv_used(f->d, RX, &head, &len) && len == 250 + HDR - 200);
    g_assert_cmpuint(drv_msis(f->d, RX), ==, 1);
    /* One that no ring of such buffers can hold is dropped, not kept for ever. */
    for (unsigned i = 0; i < 16; i++)
        drv_add(f->d, RX, &(DrvSeg){b, 100, true}, 1);
    g_assert_cmpuint(receive(f, own, 1600, 0), ==, 1);
    g_assert_cmpuint(net_drv_used(f->d, RX), ==, 0);
    g_assert_cmpuint(receive(f, own, 1500, 0), ==, 1);
    g_assert_cmpuint(net_drv_used(f->d, RX), ==, 16);
}

static void test_receive_hostile(Fix *f, gconstpointer unused)
{
    drv_add(f->d, RX, &(DrvSeg){f->buf, 64, false}, 1); /* nothing to write to */
    g_assert_cmpuint(receive(f, own, FRAME, 0), ==, 1);
    g_assert_true(drv_needs_reset(f->d));
}

static uint8_t command(Fix *f, uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
    return net_drv_command(f->d, f->buf, CTRL, class, cmd, data, len);
}

/* ---- lent buffers ---- */

/* Receive @len bytes to @dest by way of lent buffers, behind them what does not fit. Return: pieces
 * that were lent; *ret_done: whether it is received. */
static unsigned borrow(Fix *f, const uint8_t dest[6], uint32_t len, uint8_t flags, bool *ret_done)
{
    struct iovec iov[65];
    g_autofree uint8_t *frame = g_malloc(len), *rest = g_malloc(len);
    unsigned n = net_rx_borrow(&f->peer, iov, 64), used = 0;
    size_t at = 0;

    *ret_done = false;
    if (!n)
        return 0;
    for (unsigned i = 0; i < len; i++)
        frame[i] = (uint8_t)(i * 7);
    memcpy(frame, dest, 6);
    iov[n] = (struct iovec){rest, len};
    for (; at < len; at += iov[used++].iov_len) {
        iov[used].iov_len = MIN(iov[used].iov_len, len - at);
        memcpy(iov[used].iov_base, frame + at, iov[used].iov_len);
    }
    NetFrame nf = {.iov = iov, .niov = used, .len = len, .flags = flags, .csum_start = 34,
                   .csum_off = 16};
    *ret_done = net_rx_commit(&f->peer, &nf);
    return n;
}

static void offer_rx(Fix *f, uint64_t at, uint32_t len, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        drv_add(f->d, RX, &(DrvSeg){at + (uint64_t)len * i, len, true}, 1);
}

static void check_rx(Fix *f, uint64_t at, uint32_t size, uint32_t len)
{
    struct virtio_net_hdr_v1 h;
    uint32_t head, used, left = HDR + len, buffers = 0;

    for (; left; buffers++) {
        g_assert_true(drv_used(f->d, RX, &head, &used));
        g_assert_cmpuint(used, ==, MIN(left, size));
        left -= used;
    }
    g_assert_false(drv_used(f->d, RX, &head, &used));
    drv_get(f->d, at, &h, HDR);
    g_assert_cmpuint(h.num_buffers, ==, buffers);
    for (uint32_t i = 6; i < len; i++) {
        uint8_t b;
        drv_get(f->d, at + HDR + i, &b, 1);
        g_assert_cmpuint(b, ==, (uint8_t)(i * 7));
    }
}

static void test_lent(Fix *f, gconstpointer unused)
{
    static const NetFrame none = {.len = 0};
    struct iovec iov[64];
    NetStats s;
    bool done;

    g_assert_cmpuint(borrow(f, own, 100, 0, &done), ==, 0); /* there are no buffers */
    offer_rx(f, f->buf, 2048, 1);
    g_assert_cmpuint(borrow(f, own, 1400, NET_FRAME_CSUM_VALID, &done), ==, 1);
    g_assert_true(done);
    check_rx(f, f->buf, 2048, 1400);
    g_assert_cmpuint(drv_msis(f->d, RX), ==, 1);
    net_stats(&f->peer, &s);
    g_assert_cmpuint(s.tx_frames, ==, 1);
    g_assert_cmpuint(s.tx_bytes, ==, 1400);

    /* Given back, it serves the next; one for another machine is not received. */
    offer_rx(f, f->buf, 2048, 1);
    g_assert_cmpuint(net_rx_borrow(&f->peer, iov, 64), ==, 1);
    g_assert_true(net_rx_commit(&f->peer, &none));
    uint8_t off = 0;
    command(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1);
    offer_rx(f, f->buf, 2048, 1); /* the command used the first page */
    g_assert_cmpuint(borrow(f, other, 1400, 0, &done), ==, 1);
    g_assert_true(done);
    g_assert_cmpuint(net_drv_used(f->d, RX), ==, 0);
    g_assert_cmpuint(borrow(f, own, 1400, 0, &done), ==, 1);
    check_rx(f, f->buf, 2048, 1400);
}

/* As many buffers as the frame before had, and nothing is lost or lent where they are too few. */
static void test_lent_merged(Fix *f, gconstpointer unused)
{
    bool done;

    offer_rx(f, f->buf, 1024, 16);
    g_assert_cmpuint(borrow(f, own, 9000, 0, &done), ==, 2);
    g_assert_false(done);
    g_assert_cmpuint(net_drv_used(f->d, RX), ==, 0);
    g_assert_cmpuint(borrow(f, own, 9000, 0, &done), ==, 9);
    g_assert_true(done);
    check_rx(f, f->buf, 1024, 9000);
    /* Seven are left, which a shorter one, given in full, may have. */
    g_assert_cmpuint(borrow(f, own, 9000, 0, &done), ==, 0);
    g_assert_cmpuint(receive(f, own, 2500, 0), ==, 1);
    g_assert_cmpuint(net_drv_used(f->d, RX), ==, 3);
    /* The next uses what it needs and leaves the rest. */
    g_assert_cmpuint(borrow(f, own, 1014, 0, &done), ==, 3);
    check_rx(f, f->buf + 12 * 1024, 1024, 1014);
    g_assert_cmpuint(borrow(f, own, 100, 0, &done), ==, 2);
    check_rx(f, f->buf + 14 * 1024, 1024, 100);
    g_assert_cmpuint(borrow(f, own, 100, 0, &done), ==, 0); /* one is not enough for any frame */
}

/* A buffer without room is no part of what is lent; alone it is for deliver() to complain. */
static void test_lent_hostile(Fix *f, gconstpointer unused)
{
    bool done;

    offer_rx(f, f->buf, 2048, 1);
    g_assert_cmpuint(borrow(f, own, 4000, 0, &done), ==, 1);
    g_assert_false(done);
    drv_add(f->d, RX, &(DrvSeg){f->buf + 4096, 8, true}, 1);
    offer_rx(f, f->buf + 8192, 2048, 2);
    g_assert_cmpuint(borrow(f, own, 2030, 0, &done), ==, 1);
    g_assert_true(done);
    check_rx(f, f->buf, 2048, 2030);
    g_assert_cmpuint(borrow(f, own, 100, 0, &done), ==, 0);
    g_assert_false(drv_needs_reset(f->d));
    g_assert_cmpuint(receive(f, own, FRAME, 0), ==, 1);
    g_assert_true(drv_needs_reset(f->d));
    g_assert_cmpuint(borrow(f, own, 100, 0, &done), ==, 0);
}

static bool arrives(Fix *f, const uint8_t dest[6])
{
    uint64_t b = f->buf + 8192;

    drv_add(f->d, RX, &(DrvSeg){b, 2048, true}, 1);
    g_assert_cmpuint(receive(f, dest, FRAME, 0), ==, 1);
    return net_drv_used(f->d, RX) > 0;
}

static void test_filter(Fix *f, gconstpointer unused)
{
    uint8_t off = 0, tables[8 + 6] = {0};

    g_assert_true(arrives(f, other)); /* all, until the driver says otherwise */
    g_assert_cmpuint(command(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1), ==, 0);
    g_assert_false(arrives(f, other));
    g_assert_true(arrives(f, own));
    g_assert_true(arrives(f, everybody));
    g_assert_false(arrives(f, group));
    tables[4] = 1; /* no unicast, one multicast address */
    memcpy(tables + 8, group, 6);
    g_assert_cmpuint(
        command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, sizeof tables), ==,
        VIRTIO_NET_OK);
    g_assert_true(arrives(f, group));
    g_assert_cmpuint(command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, 7), ==,
                     VIRTIO_NET_ERR);
    g_assert_cmpuint(command(f, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, other, 6), ==,
                     VIRTIO_NET_OK);
    g_assert_true(arrives(f, other));
    g_assert_false(arrives(f, own));
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 5, 1), ==, 2);
    g_assert_cmpuint(command(f, 77, 0, &off, 1), ==, VIRTIO_NET_ERR);
}

/* @type and @tag: what comes behind the addresses. */
static bool tagged_arrives(Fix *f, const uint8_t dest[6], uint16_t type, uint16_t tag)
{
    uint8_t frame[FRAME] = {0};
    struct iovec iov = {frame, sizeof frame};
    NetFrame nf = {.iov = &iov, .niov = 1, .len = sizeof frame};

    memcpy(frame, dest, 6);
    store_be16(frame + 12, type);
    store_be16(frame + 14, tag);
    drv_add(f->d, RX, &(DrvSeg){f->buf + 8192, 2048, true}, 1);
    g_assert_cmpuint(net_send(&f->peer, &nf, 1), ==, 1);
    return net_drv_used(f->d, RX) > 0;
}

static uint8_t vlan_command(Fix *f, uint8_t cmd, uint16_t vlan, uint32_t len)
{
    uint8_t data[4] = {0};

    store_le16(data, vlan);
    return command(f, VIRTIO_NET_CTRL_VLAN, cmd, data, len);
}

static void test_vlans(Fix *f, gconstpointer unused)
{
    uint8_t off = 0;

    g_assert_true(tagged_arrives(f, own, 0x8100, 7)); /* all, until the driver says otherwise */
    g_assert_cmpuint(command(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1), ==, 0);
    g_assert_false(tagged_arrives(f, own, 0x8100, 7));
    g_assert_true(tagged_arrives(f, own, 0x8100, 0xe000)); /* only a priority */
    g_assert_true(tagged_arrives(f, own, 0x0800, 7));
    g_assert_cmpuint(vlan_command(f, VIRTIO_NET_CTRL_VLAN_ADD, 7, 2), ==, VIRTIO_NET_OK);
    g_assert_cmpuint(vlan_command(f, VIRTIO_NET_CTRL_VLAN_ADD, 4095, 2), ==, VIRTIO_NET_OK);
    g_assert_true(tagged_arrives(f, own, 0x8100, 0xe007));
    g_assert_true(tagged_arrives(f, own, 0x8100, 4095));
    g_assert_false(tagged_arrives(f, own, 0x8100, 8));
    g_assert_false(tagged_arrives(f, own, 0x8100, 15));
    g_assert_false(tagged_arrives(f, other, 0x8100, 7));
    g_assert_cmpuint(vlan_command(f, VIRTIO_NET_CTRL_VLAN_DEL, 4096, 2), ==, VIRTIO_NET_ERR);
    g_assert_cmpuint(vlan_command(f, VIRTIO_NET_CTRL_VLAN_DEL, 7, 1), ==, VIRTIO_NET_ERR);
    g_assert_cmpuint(vlan_command(f, VIRTIO_NET_CTRL_VLAN_DEL, 7, 3), ==, VIRTIO_NET_ERR);
    g_assert_cmpuint(vlan_command(f, 2, 7, 2), ==, VIRTIO_NET_ERR);
    g_assert_true(tagged_arrives(f, own, 0x8100, 7));
    g_assert_cmpuint(vlan_command(f, VIRTIO_NET_CTRL_VLAN_DEL, 7, 2), ==, VIRTIO_NET_OK);
    g_assert_false(tagged_arrives(f, own, 0x8100, 7));
    g_assert_true(tagged_arrives(f, own, 0x8100, 4095));
}

/* A driver that does not know of the filter gets all. */
static void test_vlans_not_accepted(void)
{
    Fix f = {0};
    uint8_t off = 0;

    start(&f, ~(UINT64_C(1) << VIRTIO_NET_F_CTRL_VLAN));
    g_assert_cmpuint(command(&f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1), ==, 0);
    g_assert_cmpuint(vlan_command(&f, VIRTIO_NET_CTRL_VLAN_ADD, 7, 2), ==, VIRTIO_NET_ERR);
    g_assert_true(tagged_arrives(&f, own, 0x8100, 8));
    fix_down(&f, NULL);
}

static bool wants(const NetFilter *f, const uint8_t dest[6])
{
    uint8_t head[NET_FILTER_HEAD] = {0};

    memcpy(head, dest, 6);
    return net_filter_wants(f, head, false);
}

static void test_tables(void)
{
    NetFilter f;
    uint8_t data[8 + 6 * 40] = {0};

    net_filter_reset(&f, own);
    f.promisc = false;
    store_le32(data, 0);
    store_le32(data + 4, 33); /* more than we keep: all multicast comes in */
    g_assert_true(net_filter_set_tables(&f, data, sizeof data));
    g_assert_true(wants(&f, group));
    g_assert_false(wants(&f, other));
    store_le32(data, UINT32_MAX);
    g_assert_true(net_filter_set_tables(&f, data, sizeof data));
    g_assert_true(wants(&f, other));
    store_le32(data, 2);
    g_assert_false(net_filter_set_tables(&f, data, 10));
    g_assert_true(net_filter_valid(&f));
    f.nuni = NET_FILTER_MACS + 1;
    g_assert_false(net_filter_valid(&f));
}

static void test_link(Fix *f, gconstpointer unused)
{
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 6, 2), ==, VIRTIO_NET_S_LINK_UP);
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 10, 2), ==, 1400);
    net_set_link(&f->peer, false);
    g_assert_cmpuint(test_peek(f->tb, f->d->config + 6, 2), ==, 0);
    g_assert_cmpuint(drv_msis(f->d, -1), ==, 1);
}

static unsigned status(Fix *f)
{
    return test_peek(f->tb, f->d->config + 6, 2);
}

/* A link that is back is an occasion to make oneself known, until the driver has. */
static void test_announce(Fix *f, gconstpointer unused)
{
    const unsigned asked = VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE;

    g_assert_cmpuint(status(f), ==, VIRTIO_NET_S_LINK_UP);
    net_set_link(&f->peer, false);
    g_assert_cmpuint(status(f), ==, 0);
    net_set_link(&f->peer, true);
    g_assert_cmpuint(status(f), ==, asked);
    g_assert_cmpuint(drv_msis(f->d, -1), ==, 2);
    g_assert_cmpuint(command(f, VIRTIO_NET_CTRL_ANNOUNCE, 1, "", 0), ==, VIRTIO_NET_ERR);
    g_assert_cmpuint(command(f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, "", 1), ==,
                     VIRTIO_NET_ERR);
    g_assert_cmpuint(status(f), ==, asked);
    g_assert_cmpuint(command(f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, "", 0), ==,
                     VIRTIO_NET_OK);
    g_assert_cmpuint(status(f), ==, VIRTIO_NET_S_LINK_UP);
    net_set_link(&f->peer, false);
    net_set_link(&f->peer, true);
    g_assert_cmpuint(status(f), ==, asked);
    device_reset(f->d->dev, RESET_COLD);
    device_resume(f->d->dev);
    g_assert_cmpuint(((VirtioDev *)f->d->dev)->config[6], ==, VIRTIO_NET_S_LINK_UP);
}

/* Nor is a driver asked that cannot answer. */
static void test_announce_not_accepted(void)
{
    Fix f = {0};

    start(&f, ~(UINT64_C(1) << VIRTIO_NET_F_GUEST_ANNOUNCE));
    net_set_link(&f.peer, false);
    net_set_link(&f.peer, true);
    g_assert_cmpuint(status(&f), ==, VIRTIO_NET_S_LINK_UP);
    g_assert_cmpuint(command(&f, VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, "", 0), ==,
                     VIRTIO_NET_ERR);
    fix_down(&f, NULL);
}

/* A network with an MTU of its own tells the card, unless one was chosen for that. */
static void test_mtu_of_network(void)
{
    static const struct {
        uint16_t network, told;
        const char *card;
    } cases[] = {{0, 0, "mtu=0"}, {1500, 0, "mtu=0"}, {9000, 9000, "mtu=0"},
                 {9000, 1400, "mtu=1400"}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        TestBoard *tb = drv_board();
        NetPort peer = {.ops = &peer_ops, .name = "peer", .mtu = cases[i].network};
        g_autofree char *props = g_strdup_printf("netdev=wire,%s", cases[i].card);
        test_board_backend(tb, "wire", &peer);
        Drv *d = drv_open(tb, "virtio-net-pci", props);
        uint64_t told = drv_offered(d) & (UINT64_C(1) << VIRTIO_NET_F_MTU);
        g_assert_cmpint(told != 0, ==, cases[i].told != 0);
        if (told)
            g_assert_cmpuint(test_peek(tb, d->config + 10, 2), ==, cases[i].told);
        drv_free(d);
        test_board_free(tb);
    }
}

/* Without the features: plain frames only, and the wire finishes what comes in. */
static void test_plain(void)
{
    Fix f = {0};
    struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 34,
                                  .csum_offset = 16};

    struct virtio_net_hdr_v1 got;
    uint64_t b;

    start(&f, 0);
    b = drv_alloc(f.d, 2048);
    drv_add(f.d, RX, &(DrvSeg){b, 2048, true}, 1);
    g_assert_cmpuint(receive(&f, own, FRAME, NET_FRAME_NEEDS_CSUM), ==, 1);
    g_assert_cmpuint(net_drv_used(f.d, RX), ==, 1);
    drv_get(f.d, b, &got, HDR);
    g_assert_cmpuint(got.flags, ==, 0);
    /* Lent buffers are for frames that nothing has to be done to. */
    bool done;
    offer_rx(&f, b, 2048, 1);
    g_assert_cmpuint(borrow(&f, own, FRAME, NET_FRAME_NEEDS_CSUM, &done), ==, 1);
    g_assert_false(done);
    g_assert_cmpuint(borrow(&f, own, FRAME, 0, &done), ==, 1);
    g_assert_true(done);
    g_assert_cmpuint(net_drv_used(f.d, RX), ==, 1);
    offer_tx(&f, &h, FRAME);
    drv_kick(f.d, TX);
    g_assert_cmpuint(f.got->len, ==, 0);
    g_assert_cmpuint(f.d->dev->faults, ==, 1);
    h.gso_type = 5;
    h.gso_size = 40;
    offer_tx(&f, &h, FRAME);
    drv_kick(f.d, TX);
    g_assert_cmpuint(f.got->len, ==, 0);
    g_assert_cmpuint(f.d->dev->faults, ==, 2);
    fix_down(&f, NULL);
}

static void test_state(Fix *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    uint8_t off = 0;
    size_t used;

    g_assert_true(state_check(f->d->dev->cls->state, &error));
    g_assert_no_error(error);
    command(f, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1);
    vlan_command(f, VIRTIO_NET_CTRL_VLAN_ADD, 7, 2);
    state_save(f->d->dev->cls->state, f->d->dev, saved);
    device_reset(f->d->dev, RESET_COLD);
    g_assert_true(
        state_load(f->d->dev->cls->state, f->d->dev, saved->data, saved->len, &used, &error));
    g_assert_no_error(error);
    drv_msis(f->d, -1);
    device_resume(f->d->dev);
    g_assert_cmpuint(status(f), ==, VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    g_assert_cmpuint(drv_msis(f->d, -1), ==, 1);
    g_assert_false(arrives(f, other));
    g_assert_true(arrives(f, own));
    g_assert_true(tagged_arrives(f, own, 0x8100, 7));
    g_assert_false(tagged_arrives(f, own, 0x8100, 8));
}

#define ADD(name, fn) g_test_add("/virtio-net/" name, Fix, NULL, fix_up, fn, fix_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("send", test_send);
    ADD("datagrams", test_datagrams);
    ADD("backpressure", test_backpressure);
    ADD("quiesce", test_quiesce);
    ADD("bad-frames", test_bad_frames);
    ADD("receive", test_receive);
    ADD("merge", test_merge);
    ADD("receive-hostile", test_receive_hostile);
    ADD("lent", test_lent);
    ADD("lent-merged", test_lent_merged);
    ADD("lent-hostile", test_lent_hostile);
    ADD("filter", test_filter);
    ADD("vlans", test_vlans);
    ADD("link", test_link);
    ADD("announce", test_announce);
    ADD("state", test_state);
    g_test_add_func("/virtio-net/vlans-not-accepted", test_vlans_not_accepted);
    g_test_add_func("/virtio-net/announce-not-accepted", test_announce_not_accepted);
    g_test_add_func("/virtio-net/tables", test_tables);
    g_test_add_func("/virtio-net/mtu-of-network", test_mtu_of_network);
    g_test_add_func("/virtio-net/plain", test_plain);
    return g_test_run();
}
