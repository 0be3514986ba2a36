/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_GDBFIX_H
#define LODGE_GDBFIX_H

/* A target of two vCPUs and 64 KiB for GDB's protocol: memory and registers are arrays. Virtual
 * addresses from 0x10000 on are those from 0 on; the page at 0x3000 is not there. */

#include "gdbstub.h"

#define GDBFIX_MEM 65536u
#define GDBFIX_CPUS 2u

typedef struct GdbFix {
    GdbStub *stub;
    uint8_t mem[GDBFIX_MEM];
    VcpuRegs regs[GDBFIX_CPUS];
    VcpuDebug debug[GDBFIX_CPUS];
    bool held[GDBFIX_CPUS];
    bool running, stuck; /* stuck: it does not come to rest */
    bool no_debug;       /* KVM refuses */
    unsigned runs, halts, kills;
    GString *out;        /* what was sent */
} GdbFix;

void gdbfix_init(GdbFix *f, bool long_mode, bool no_int3);
void gdbfix_clear(GdbFix *f);

#endif
