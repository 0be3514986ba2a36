/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_GDBSTUB_H
#define LODGE_GDBSTUB_H

/* GDB's remote protocol for one debugger: bytes in, bytes out. Who owns the socket and the machine
 * is elsewhere. One thread. */

#include "vcpu.h"

typedef struct GdbStub GdbStub;

/* What is debugged. vCPUs are at rest in every call but halt() and end(). */
typedef struct GdbTarget {
    unsigned cpus;
    /* The host does not stop at INT3 in guest kernel mode: use debug registers while there are. */
    bool no_int3;
    /* Come to rest, where it is not; false: it cannot now. */
    bool (*halt)(void *opaque);
    /* Let it go on but for the vCPUs in @held, false for none. */
    void (*run)(void *opaque, const bool *held);
    bool (*debug)(void *opaque, unsigned cpu, const VcpuDebug *d);
    bool (*regs_read)(void *opaque, unsigned cpu, VcpuRegs *ret);
    bool (*regs_write)(void *opaque, unsigned cpu, const VcpuRegs *r);
    bool (*is_halted)(void *opaque, unsigned cpu); /* waits for an interrupt */
    bool (*translate)(void *opaque, unsigned cpu, uint64_t gva, gpa_t *ret_gpa);
    bool (*mem_read)(void *opaque, gpa_t from, void *to, size_t len);
    bool (*mem_write)(void *opaque, gpa_t to, const void *from, size_t len);
    void (*kill)(void *opaque);
    /* The answer to a line for the monitor; transfer full. */
    char *(*monitor)(void *opaque, const char *line);
    void (*send)(void *opaque, const void *data, size_t len);
    void *opaque;
} GdbTarget;

/* @t is copied. Transfer full. */
GdbStub *gdb_stub_new(const GdbTarget *t);
/* Take the breakpoints out; the target is at rest or has ended. NULL is fine. */
void gdb_stub_free(GdbStub *g);
/* Bytes came. */
void gdb_stub_input(GdbStub *g, const uint8_t *data, size_t len);
/* A vCPU stopped, and all are at rest. */
void gdb_stub_stopped(GdbStub *g, const VcpuDebugStop *stop);
/* Somebody else brought it to rest. */
void gdb_stub_paused(GdbStub *g);
/* The machine has ended. */
void gdb_stub_ended(GdbStub *g);
/* The debugger believes that it runs. */
bool gdb_stub_running(const GdbStub *g);
/* The debugger said good-bye: nothing more is answered. */
bool gdb_stub_detached(const GdbStub *g);

#endif
