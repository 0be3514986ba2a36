/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The Am79C970A, set up as a driver does it, from hostile programs; frames come in as events. */
#include <string.h>

#include "bus_fuzz.h"
#include "fuzz_net_peer.h"
#include "lodge/net.h"
#include "lodge/num.h"

#define IO_AT 0xc000
#define MMIO_AT 0xfe000000u
#define DEVFN (3 << 3) /* the first free slot */
#define CFG_COMMAND 0x04
#define CFG_BAR0 0x10
#define MAX_NS (100 * (NS_PER_SEC / 1000)) /* loopback storms make time dear */
#define FRAME_UNIT 277 /* times an event's lower bits: up to the longest frame */

static const BusFuzzRegion ports[] = {{IO_AT, 32}, {0}};
static const BusFuzzRegion mmio[] = {{MMIO_AT, 32}, {0}};
static const uint8_t devfns[] = {DEVFN, 0xff};

static const NetPortOps peer_ops = {.send = fuzz_peer_send};
static FuzzPeer peer;

static void reg(TestBoard *tb, unsigned at, unsigned rap, unsigned val)
{
    test_out(tb, IO_AT + 0x12, 2, rap);
    test_out(tb, (uint16_t)(IO_AT + at), 2, val);
}

static void put32(TestBoard *tb, uint32_t at, uint32_t val)
{
    (void)mem_write(tb->board.mem, at, &val, sizeof val);
}

/* As a driver: rings of 8, buffers from 0x10000 on, started in @style. Frames of one, two and three
 * descriptors wait to be sent. */
static void start(TestBoard *tb, unsigned style, uint16_t mode, uint16_t features)
{
    static const uint16_t chain[8] = {0x8300, 0x8200, 0x8100, 0x8200,
                                      0x8000, 0x8100, 0x8300, 0x8200};
    bool wide = style == 1 || style == 2 || style == 3;
    unsigned size = wide ? 16 : 8, buffer = style == 3 ? 8 : 0, misc = style == 3 ? 0 : 8;

    reg(tb, 0x10, 0, 4);
    reg(tb, 0x16, 20, style);
    put32(tb, 0x1000, mode | (wide ? 0x30300000u : 0));
    put32(tb, 0x1010, 0x60000000 | 0x3000);
    put32(tb, 0x1014, wide ? 0x3000 : 0x60002000);
    put32(tb, 0x1018, 0x2000);
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t tx = 0x2000 + size * i, rx = 0x3000 + size * i;
        uint32_t from = 0x10000 + 0x1000 * i, to = 0x20000 + 0x1000 * i;

        put32(tb, tx + buffer, wide ? from : from | (uint32_t)chain[i] << 16);
        put32(tb, rx + buffer, wide ? to : to | 0x80000000u);
        put32(tb, tx + 4, 0xf000 | (-100 & 0xfff) | (wide ? (uint32_t)chain[i] << 16 : 0));
        put32(tb, rx + 4, 0xf000 | (-600 & 0xfff) | (wide ? 0x80000000u : 0));
        if (wide) {
            put32(tb, tx + misc, 0);
            put32(tb, rx + misc, 0);
        }
    }
    reg(tb, 0x10, 1, 0x1000);
    reg(tb, 0x10, 2, 0);
    reg(tb, 0x10, 4, 0x0115 | features);
    reg(tb, 0x10, 0, 1);
    reg(tb, 0x10, 0, 0x42);
}

static void set_up(TestBoard *tb)
{
    peer = (FuzzPeer){.port = {.ops = &peer_ops, .name = "peer", .opaque = &peer}, .room = 1000};
    test_board_backend(tb, "wire", &peer.port);
    test_board_add(tb, "i440fx", NULL);
    test_board_add(tb, "pcnet", "netdev=wire");
    test_cfg_write(tb, DEVFN, CFG_BAR0, 4, IO_AT);
    test_cfg_write(tb, DEVFN, CFG_BAR0 + 4, 4, MMIO_AT);
    test_cfg_write(tb, DEVFN, CFG_COMMAND, 2, 7);
    start(tb, 2, 0x8000, 0);
}

/* A driver starts anew: style, loopback and FCS by the bits of @what. */
static void restart(TestBoard *tb, uint8_t what)
{
    uint16_t mode = (what & 4 ? 0x0044 : 0) | (what & 8 ? 0x0008 : 0) | (what & 16 ? 0x8000 : 0);

    start(tb, what & 3, mode, what & 8 ? 0x0400 : 0x0800);
}

static void event(TestBoard *tb, uint8_t what)
{
    static uint8_t bytes[NET_FRAME_MAX];
    struct iovec iov[2] = {{bytes, 7}, {bytes + 7, 0}};
    NetFrame f = {.iov = iov, .niov = 2};

    switch (what >> 6) {
    case 0:
        f.len = MIN(14 + (what & 63) * 27u, NET_FRAME_MAX);
        break;
    case 1:
        f.len = MIN(14 + (what & 63) * (FRAME_UNIT * 4u), NET_FRAME_MAX);
        break;
    case 2:
        if (what & 32)
            restart(tb, what);
        else
            net_set_link(&peer.port, what & 1);
        return;
    default:
        peer.room = what & 63;
        net_rx_ready(&peer.port);
        return;
    }
    memset(bytes, what & 1 ? 0xff : 0, 6);
    bytes[13] = what & 63; /* an 802.3 length, for stripping */
    iov[1].iov_len = f.len - 7;
    (void)net_send(&peer.port, &f, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .mmio = mmio, .devfns = devfns, .set_up = set_up,
                              .event = event, .max_ns = MAX_NS};

    return bus_fuzz_run(&f, data, len);
}
