/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The i8254 and port 0x61 from hostile programs. */
#include "bus_fuzz.h"
#include "lodge/num.h"

static const BusFuzzRegion ports[] = {{0x40, 4}, {0x61, 1}, {0}};

static void set_up(TestBoard *tb)
{
    test_board_add(tb, "i8259", NULL);
    test_board_add(tb, "i8254", NULL);
    test_pic_auto_eoi(tb);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .set_up = set_up, .max_ns = NS_PER_SEC / 10};

    return bus_fuzz_run(&f, data, len);
}
