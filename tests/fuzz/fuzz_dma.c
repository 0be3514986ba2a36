/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 8237 pair from hostile programs, with devices that move data on every channel. */
#include "bus_fuzz.h"

#include "dma_i8237.h"

static const BusFuzzRegion ports[] = {{0x00, 16}, {0x81, 15}, {0xc0, 32}, {0}};

static void set_up(TestBoard *tb)
{
    test_board_add(tb, "i8237", NULL);
}

static void event(TestBoard *tb, uint8_t what)
{
    static const size_t lens[] = {1, 16, 513, 70000};
    g_autofree uint8_t *buf = g_malloc0(70000);
    size_t len = lens[what >> 3 & 3], n;
    unsigned ch = what & 7;
    bool tc;

    isa_dma_request(tb->board.dma, ch, what & 0x40);
    n = what & 0x20 ? isa_dma_read(tb->board.dma, ch, buf, len, &tc)
                    : isa_dma_write(tb->board.dma, ch, buf, len, &tc);
    g_assert_cmpuint(n, <=, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
