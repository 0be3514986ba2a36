/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtio network card with two pairs of queues from hostile programs. Its driver has come up
 * when a program starts (fuzz_virtio.h), so that writes to memory and to the notification registers
 * are frames, buffers and commands. Frames come by both streams as events.
 */
#include <string.h>

#include <linux/virtio_net.h>

#include "bus_fuzz.h"
#include "fuzz_net_peer.h"
#include "fuzz_virtio.h"
#include "lodge/net.h"
#include "lodge/num.h"
#include "pci.h"

enum {
    STREAMS = 2,
    QUEUES = 2 * STREAMS + 1,
    SLOT = 3,
    CFG_BAR0 = 0x10,
    LENT_MAX = 64,
    MAC_LEN = 6,
    FRAME_UNIT = 1057, /* times an event's lower bits: up to the longest frame */
};

#define BARS_GPA UINT64_C(0xe0000000)
#define BARS_LIMIT_GPA UINT64_C(0xf0000000)
#define MSIX_GPA (BARS_GPA + 0x4000) /* where pci_assign() puts it; set_up() checks */

static const BusFuzzRegion mmio[] = {{BARS_GPA, 0x40},
                                     {BARS_GPA + 0x1000, 1},
                                     {BARS_GPA + 0x2000, 16},
                                     {BARS_GPA + 0x3000, 4 * QUEUES},
                                     {MSIX_GPA, 16 * (QUEUES + 1)},
                                     {0}};
static const uint8_t devfns[] = {SLOT << 3, 0xff};

static FuzzPeer peer[STREAMS];
static uint8_t frame[NET_FRAME_MAX + 1];

static const NetPortOps peer_ops = {.send = fuzz_peer_send, .offloads = NET_OFF_ALL};

static void set_up(TestBoard *tb)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        peer[i].room = UINT32_MAX;
        peer[i].port = (NetPort){.ops = &peer_ops, .name = "peer", .opaque = &peer[i],
                                 .offloads = NET_OFF_ALL, .stream = (uint8_t)i,
                                 .next = i + 1 < STREAMS ? &peer[i + 1].port : NULL};
    }
    test_board_backend(tb, "wire", &peer[0].port);
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "virtio-net-pci", "netdev=wire,mtu=1500");
    tb->board.ram_below_4g = BUS_FUZZ_RAM;
    pci_assign(tb->board.pci, BARS_GPA, BARS_LIMIT_GPA);
    g_assert_cmphex(test_cfg_read(tb, SLOT << 3, CFG_BAR0, 4), ==, BARS_GPA);
    g_assert_cmphex(test_cfg_read(tb, SLOT << 3, CFG_BAR0 + 4, 4), ==, MSIX_GPA);
    fuzz_virtio_bring_up(tb, BARS_GPA, QUEUES, 0);
}

/* A frame by lent buffers, as far as they go, and the rest behind. */
static void lend(NetPort *from, uint32_t len)
{
    struct iovec iov[LENT_MAX + 1];
    unsigned n = net_rx_borrow(from, iov, LENT_MAX), used = 0;
    NetFrame f = {.iov = iov, .len = len};

    if (!n)
        return;
    iov[n] = (struct iovec){frame, sizeof frame};
    for (uint32_t left = len; left; left -= (uint32_t)iov[used++].iov_len) {
        iov[used].iov_len = MIN(iov[used].iov_len, left);
        memset(iov[used].iov_base, 0x5a, iov[used].iov_len);
    }
    f.niov = used;
    (void)net_rx_commit(from, &f);
}

/* What comes with a frame: nothing, a checksum to make or one that was seen, a size to cut by. */
static void offloads(NetFrame *f, unsigned kind)
{
    static const uint8_t gso[] = {NET_GSO_NONE, NET_GSO_NONE, NET_GSO_NONE, NET_GSO_NONE,
                                  NET_GSO_TCPV4, NET_GSO_TCPV6, NET_GSO_UDP};

    kind %= G_N_ELEMENTS(gso);
    f->flags = kind == 1 ? NET_FRAME_CSUM_VALID : kind ? NET_FRAME_NEEDS_CSUM : 0;
    f->csum_start = kind > 1 ? 34 : 0;
    f->csum_off = kind > 1 ? 16 : 0;
    f->gso = gso[kind];
    f->gso_size = gso[kind] ? 536 : 0;
    f->hdr_len = gso[kind] ? 54 : 0;
}

static void event(TestBoard *tb, uint8_t what)
{
    FuzzPeer *p = &peer[what & 1];
    uint32_t len = (uint32_t)(what & 0x3e) * FRAME_UNIT / 2 + 60;
    struct iovec iov = {frame, len};
    NetFrame f = {.iov = &iov, .niov = 1, .len = len};

    switch (what >> 6) {
    case 0:
        offloads(&f, what >> 1 & 0xf);
        memset(frame, what & 0x20 ? 0x33 : 0x52, MAC_LEN);
        (void)net_send(&p->port, &f, 1);
        break;
    case 1:
        lend(&p->port, len);
        break;
    case 2:
        p->room = what & 8 ? UINT32_MAX : (what >> 1) & 3;
        net_rx_ready(&p->port);
        if (what & 0x20)
            net_set_link(&p->port, what & 0x10);
        break;
    default:
        fuzz_virtio_bring_up(tb, BARS_GPA, QUEUES,
                             what & 2   ? UINT64_C(1) << VIRTIO_NET_F_MQ
                             : what & 4 ? UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF
                                        : 0);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.mmio = mmio, .devfns = devfns, .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
