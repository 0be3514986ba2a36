/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a debugger may send, against arrays: the first byte says the mode; after that, bytes as they
 * come. 0x80 makes a vCPU stop (the next bytes say how), 0x81 is somebody else's pause, 0x82 begins
 * a packet whose frame and sum are put round the text up to the next byte above 0x7f, 0x83 is the
 * machine's end.
 */
#include "gdbfix.h"
#include "replay.h"

#define BYTES_MAX 16384u

static size_t framed(GdbFix *f, const uint8_t *data, size_t size)
{
    uint8_t sum = 0;
    size_t n = 0;
    while (n < size && data[n] < 0x80)
        sum += data[n++];
    char tail[4];
    g_snprintf(tail, sizeof tail, "#%02x", sum);
    gdb_stub_input(f->stub, (const uint8_t *)"$", 1);
    gdb_stub_input(f->stub, data, n);
    gdb_stub_input(f->stub, (const uint8_t *)tail, 3);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    GdbFix *f = g_new(GdbFix, 1);
    gdbfix_init(f, size && data[0] & 1, size && data[0] & 2);
    f->stuck = size && data[0] & 4;
    size = size < BYTES_MAX ? size : BYTES_MAX;
    for (size_t i = 1; i < size; i++) {
        if (data[i] == 0x80 && size - i > 4) {
            VcpuDebugStop stop = {data[i + 1] & 3, data[i + 2] & 3, data[i + 3] * 16u, data[i + 4]};
            f->running = false;
            gdb_stub_stopped(f->stub, &stop);
            i += 4;
        } else if (data[i] == 0x81) {
            f->running = false;
            gdb_stub_paused(f->stub);
        } else if (data[i] == 0x82) {
            i += framed(f, data + i + 1, size - i - 1);
        } else if (data[i] == 0x83) {
            f->running = false;
            gdb_stub_ended(f->stub);
        } else {
            gdb_stub_input(f->stub, data + i, 1);
        }
        if (f->out->len > 65536)
            g_string_truncate(f->out, 0);
    }
    gdbfix_clear(f);
    g_free(f);
    return 0;
}
