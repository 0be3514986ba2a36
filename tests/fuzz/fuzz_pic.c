/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The PIC pair from hostile programs, with interrupt lines that come and go. */
#include "bus_fuzz.h"

static const BusFuzzRegion ports[] = {{0x20, 2}, {0xa0, 2}, {0x4d0, 2}, {0}};
static IrqLine *lines[16];

static void set_up(TestBoard *tb)
{
    test_board_add(tb, "i8259", NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++)
        lines[i] = irq_line_new(tb->board.irq, i, "fuzz");
}

static void event(TestBoard *tb, uint8_t what)
{
    irq_line_set(lines[(what >> 1) % G_N_ELEMENTS(lines)], what & 1);
}

static void tear_down(TestBoard *tb)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++)
        irq_line_free(lines[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .set_up = set_up, .event = event, .tear_down = tear_down};

    return bus_fuzz_run(&f, data, len);
}
