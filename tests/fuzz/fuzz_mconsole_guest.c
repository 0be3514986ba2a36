/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fuzz what a guest says to the management console: pieces of it, and requests in between. */
#include <string.h>

#include "lodge/chan.h"
#include "lodge/clock.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

#include "mconsole_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Each piece: kind, length, bytes; kind 0 asks for a file. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ControlConfig config = {.name = "vm"};
    Control *c = control_open(&config, NULL);
    Mconsole *m = g_new0(Mconsole, 1);
    struct sockaddr_un from = {.sun_family = AF_UNIX};
    LodgeClock *clock = lodge_clock_new();
    IoThread *io = io_thread_new("io", clock, NULL);
    Chan *chan = chan_open("none", "mconsole", io, NULL);
    static const char ask[] = "proc 1/stat";
    uint8_t d[12 + sizeof ask];

    g_assert_true(c && io && chan);
    mconsole_init(m, c);
    m->guest = mconsole_guest_new(chan);
    store_le32(d, 0xcafebabe);
    store_le32(d + 4, 2);
    store_le32(d + 8, sizeof ask - 1);
    memcpy(d + 12, ask, sizeof ask);
    mconsole_guest_bytes(m->guest, (const uint8_t *)"hello 1\n", 8);
    while (size >= 2) {
        size_t n = MIN((size_t)data[1], size - 2);

        if (data[0])
            mconsole_guest_bytes(m->guest, data + 2, n);
        else
            mconsole_datagram(m, d, sizeof d - 1, &from, 0);
        data += 2 + n;
        size -= 2 + n;
    }
    mconsole_close(m);
    chan_close(chan);
    io_thread_free(io);
    lodge_clock_free(clock);
    control_close(c);
    return 0;
}
