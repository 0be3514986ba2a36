/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The firmware configuration device from hostile programs. */
#include "bus_fuzz.h"

#include "fw_cfg.h"
#include "pc_map.h"
static const BusFuzzRegion ports[] = {{PC_PORT_FW_CFG, 12}, {0}};

static void set_up(TestBoard *tb)
{
    static const uint8_t file[300] = {1, 2, 3};
    bool ok;

    test_board_add(tb, "fw-cfg", NULL);
    ok = fw_cfg_add_file(tb->board.fw_cfg, "etc/file", file, sizeof file, NULL);
    g_assert_true(ok);
}

/* A DMA descriptor at a place that fills reach. */
static void event(TestBoard *tb, uint8_t what)
{
    test_out(tb, FW_CFG_PORT_DMA + 4, 4, __builtin_bswap32(what * 16u));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
