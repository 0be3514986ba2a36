/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Both NE2000 cards from hostile programs, on wires whose other ends send what never was a frame. */
#include "bus_fuzz.h"

#include "lodge/net.h"
#include "lodge/num.h"
#include "pc_map.h"
#include "pci.h"

enum {
    ISA_BASE = 0x300,
    PCI_BASE = 0xc000, /* where pci_assign() starts */
    CARD_PORTS = 32,
    CARD_SLOT = 3,
    CARDS = 2,
};

static const BusFuzzRegion ports[] = {
    {ISA_BASE, CARD_PORTS}, {PCI_BASE, CARD_PORTS}, {PC_PORT_PCI_WINDOW, 8}, {0}};
static const uint8_t devfns[] = {CARD_SLOT << 3, 0xff};

static NetPort peers[CARDS];
static Device *cards[CARDS];
static bool full[CARDS], paused[CARDS];

static bool peer_deliver(NetPort *p, const NetFrame *f)
{
    return !full[p - peers];
}

static const NetPortOps peer_ops = {.deliver = peer_deliver};

/* Registers as a driver leaves them in the middle of a remote write, so that frames and data get
 * somewhere. */
static void start_card(TestBoard *tb, uint16_t base, uint8_t dcr)
{
    static const uint8_t program[][2] = {
        {0, 0x61}, {1, 0x52}, {2, 0x54}, {6, 1}, {7, 0x47}, {0, 0x21}, {1, 0x46}, {2, 0x80},
        {3, 0x46}, {4, 0x40}, {5, 60}, {12, 0x0c}, {15, 0x7f}, {8, 0xf0}, {9, 0x7e},
        {10, 0xf0}, {11, 0x0f},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(program); i++)
        test_out(tb, (uint16_t)(base + program[i][0]), 1, program[i][1]);
    test_out(tb, (uint16_t)(base + 14), 1, dcr);
    test_out(tb, base, 1, 0x12);
}

static void set_up(TestBoard *tb)
{
    static const char *const names[CARDS] = {"isa", "pci"};

    for (unsigned i = 0; i < CARDS; i++) {
        peers[i] = (NetPort){.ops = &peer_ops, .name = names[i]};
        full[i] = paused[i] = false;
        test_board_backend(tb, names[i], &peers[i]);
    }
    test_board_add(tb, "i440fx", NULL);
    cards[0] = test_board_add(tb, "ne2k_isa", "netdev=isa,mac=52:54:00:00:00:01");
    cards[1] = test_board_add(tb, "ne2k_pci", "netdev=pci,mac=52:54:00:00:00:01");
    pci_assign(tb->board.pci, 0xe0000000u, 0xf0000000u);
    start_card(tb, ISA_BASE, 0x48); /* bytes */
    start_card(tb, PCI_BASE, 0x49);
}

static void send_frame(NetPort *peer, unsigned what)
{
    static const uint32_t sizes[] = {0, 1, 14, 59, 60, 1514, 1518, 65562};
    static const uint8_t first[] = {0x52, 0xff, 0x01, 0x02};
    static uint8_t frame[NET_FRAME_MAX];
    uint32_t len = sizes[what % G_N_ELEMENTS(sizes)], cut = MIN(len, what);
    struct iovec iov[2] = {{frame, cut}, {frame + cut, len - cut}};
    NetFrame f = {.iov = iov, .niov = 2, .len = len};

    memset(frame, first[what / 8 % G_N_ELEMENTS(first)], 6);
    if (what / 8 % 4 == 0) {
        store_le32(frame, 0x00005452);
        store_le16(frame + 4, 0x0100);
    }
    net_send(peer, &f, 1);
}

/* Bit 7 chooses the card, bits 6 and 5 what happens to it. */
static void event(TestBoard *tb, uint8_t what)
{
    unsigned card = what >> 7;

    switch (what >> 5 & 3) {
    case 2:
        full[card] = what & 1;
        if (!full[card])
            net_rx_ready(&peers[card]);
        break;
    case 3:
        paused[card] = what & 1;
        if (paused[card])
            device_quiesce(cards[card], NULL, NULL);
        else
            device_resume(cards[card]);
        break;
    default:
        send_frame(&peers[card], what & 0x1f);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {
        .ports = ports, .devfns = devfns, .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
