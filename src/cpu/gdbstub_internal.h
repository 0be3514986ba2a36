/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_GDBSTUB_INTERNAL_H
#define LODGE_GDBSTUB_INTERNAL_H

/* Shared by gdbstub.c (packets, registers, running) and gdb_memory.c (memory, breakpoints). */

#include "gdbstub.h"

#define GDB_PACKET_MAX 4096u /* bytes between $ and # */

typedef enum Action { ACTION_NONE, ACTION_HOLD, ACTION_RUN, ACTION_STEP } Action;

typedef struct Int3 {
    uint64_t address;
    gpa_t gpa;
    uint8_t below; /* the guest's byte */
} Int3;

struct GdbStub {
    GdbTarget t;
    /* Framing: */
    enum { IN_IDLE, IN_DATA, IN_SUM1, IN_SUM2 } state;
    char packet[GDB_PACKET_MAX + 1];
    size_t len;
    bool too_long;
    uint8_t sum, said; /* counted; as the packet has it */
    bool no_ack;
    GString *last;     /* as it was sent, for one that did not arrive */
    /* What the debugger chose: */
    unsigned cpu;      /* whose registers and page tables */
    bool physical;     /* addresses are */
    bool long_mode;    /* of the description that it was given */
    bool tells_break;  /* it knows swbreak and hwbreak */
    bool running, detached;
    Action *actions;   /* of each vCPU, as it last went on */
    GArray *int3s;
    VcpuDebug debug;
    char slot_type[VCPU_DEBUG_SLOTS]; /* '0' to '4'; 0: free */
};

void gdb_reply(GdbStub *g, const char *text);
void gdb_reply_ok(GdbStub *g, bool ok);
void gdb_append_hex(GString *out, const void *data, size_t len);
/* Come to rest, or answer that it cannot be. */
bool gdb_halt(GdbStub *g);

/* ---- parts of a packet: false where they are not there; @p is then anywhere ---- */
/* A number of at most 16 hexadecimal digits. */
bool gdb_take_hex(const char **p, uint64_t *ret);
bool gdb_take_char(const char **p, char c);
/* Two digits a byte, @len bytes exactly up to the end of the text. */
bool gdb_take_bytes(const char *p, uint8_t *to, size_t len);
/* ADDRESS,LENGTH */
bool gdb_take_range(const char **p, uint64_t *ret_address, uint64_t *ret_len);

/* ---- gdb_memory.c ---- */
void gdb_read_memory(GdbStub *g, const char *p);
void gdb_write_memory(GdbStub *g, const char *p, bool binary);
/* Z and z: TYPE,ADDRESS,KIND */
void gdb_breakpoint(GdbStub *g, const char *p, bool add);
bool gdb_has_int3(const GdbStub *g, uint64_t address);
/* Those in memory. */
void gdb_remove_all(GdbStub *g);

#endif
