/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The MC146818 and its CMOS memory from hostile programs. */
#include "bus_fuzz.h"

static const BusFuzzRegion ports[] = {{0x70, 4}, {0}};

static void set_up(TestBoard *tb)
{
    test_board_add(tb, "i8259", NULL);
    test_board_add(tb, "mc146818", NULL);
    test_pic_auto_eoi(tb);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .set_up = set_up};

    return bus_fuzz_run(&f, data, len);
}
