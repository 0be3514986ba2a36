/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The IOAPIC from hostile programs, with interrupt lines that come and go. */
#include "bus_fuzz.h"

static const BusFuzzRegion mmio[] = {{0xfec00000, 0x1000}, {0}};
static IrqLine *lines[24];

static void set_up(TestBoard *tb)
{
    test_board_add(tb, "ioapic", NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++)
        lines[i] = irq_line_new(tb->board.irq, i, "fuzz");
}

static void event(TestBoard *tb, uint8_t what)
{
    irq_line_set(lines[(what >> 1) % G_N_ELEMENTS(lines)], what & 1);
    irq_eoi_vector(tb->board.irq, what);
}

static void tear_down(TestBoard *tb)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++)
        irq_line_free(lines[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.mmio = mmio, .set_up = set_up, .event = event, .tear_down = tear_down};

    return bus_fuzz_run(&f, data, len);
}
