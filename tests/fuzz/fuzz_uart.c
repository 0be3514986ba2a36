/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 16550A from hostile programs, with a channel that types. */
#include "bus_fuzz.h"

#include "lodge/chan.h"
static const BusFuzzRegion ports[] = {{0x3f8, 8}, {0}};

/* Stands for the real one: this program defines its functions. */
struct Chan {
    const ChanOps *ops;
    void *opaque;
};
static Chan chan;

void chan_attach(Chan *c, const ChanOps *ops, void *opaque)
{
    c->ops = ops;
    c->opaque = opaque;
}

void chan_write(Chan *c, const void *data, size_t len)
{
}

void chan_want(Chan *c)
{
}

static void set_up(TestBoard *tb)
{
    test_board_backend(tb, "com1", &chan);
    test_board_add(tb, "16550a", "chan=com1");
}

static void event(TestBoard *tb, uint8_t what)
{
    uint8_t text[40] = {what};

    if (what < 2 && chan.ops->connected)
        chan.ops->connected(chan.opaque, what);
    else
        g_assert_cmpuint(chan.ops->input(chan.opaque, text, what % 40 + 1), <=, what % 40 + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {.ports = ports, .set_up = set_up, .event = event};

    return bus_fuzz_run(&f, data, len);
}
