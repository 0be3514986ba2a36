/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GDB's remote protocol: memory and breakpoints.
 *
 * Breakpoints are INT3 in guest memory (Z0) or debug registers (Z1 to Z4), which all vCPUs share.
 * Where the host does not stop at INT3 in guest kernel mode, Z0 takes debug registers as long as
 * there are some. An INT3 is found again by its physical address.
 *
 * Invariants:
 * (1) debug.slots has a bit for each entry of slot_type[] that is not 0.
 * (2) What is read does not show an INT3 of ours, what is written goes below it.
 */
#include <string.h>

#include "lodge/num.h"

#include "gdbstub_internal.h"

#define INT3_MAX 256u
#define PAGE 4096u
#define INT3 0xccu

/* ---- memory ---- */

/* Keeps (2). */
static void hide_int3s(GdbStub *g, gpa_t at, uint8_t *data, size_t len)
{
    for (unsigned i = 0; i < g->int3s->len; i++) {
        Int3 *b = &g_array_index(g->int3s, Int3, i);
        if (b->gpa >= at && b->gpa - at < len)
            data[b->gpa - at] = b->below;
    }
}

static bool write_below_int3s(GdbStub *g, gpa_t at, const uint8_t *data, size_t len)
{
    g_autofree uint8_t *copy = g_memdup2(data, len);
    for (unsigned i = 0; i < g->int3s->len; i++) {
        Int3 *b = &g_array_index(g->int3s, Int3, i);
        if (b->gpa >= at && b->gpa - at < len) {
            b->below = data[b->gpa - at];
            copy[b->gpa - at] = INT3;
        }
    }
    return g->t.mem_write(g->t.opaque, at, copy, len);
}

static bool physical(GdbStub *g, uint64_t address, gpa_t *ret)
{
    *ret = address;
    return g->physical || g->t.translate(g->t.opaque, g->cpu, address, ret);
}

/* Bytes that could be read, or written, from @address on. */
static size_t transfer(GdbStub *g, uint64_t address, uint8_t *data, size_t len, bool write)
{
    size_t done = 0;
    while (done < len) {
        size_t n = MIN(len - done, PAGE - (address + done) % PAGE);
        gpa_t at;
        if (!physical(g, address + done, &at))
            break;
        if (write ? !write_below_int3s(g, at, data + done, n)
                  : !g->t.mem_read(g->t.opaque, at, data + done, n))
            break;
        if (!write)
            hide_int3s(g, at, data + done, n);
        done += n;
    }
    return done;
}

void gdb_read_memory(GdbStub *g, const char *p)
{
    uint64_t address, len;
    uint8_t data[GDB_PACKET_MAX / 2];
    if (!gdb_take_range(&p, &address, &len) || *p) {
        gdb_reply(g, "E22");
        return;
    }
    if (!gdb_halt(g))
        return;
    size_t n = transfer(g, address, data, MIN(len, sizeof data), false);
    g_autoptr(GString) out = g_string_new(NULL);
    gdb_append_hex(out, data, n);
    gdb_reply(g, n || !len ? out->str : "E14");
}

void gdb_write_memory(GdbStub *g, const char *p, bool binary)
{
    uint64_t address, len;
    uint8_t data[GDB_PACKET_MAX];
    bool ok = gdb_take_range(&p, &address, &len) && gdb_take_char(&p, ':') && len <= sizeof data;
    if (ok && binary) {
        size_t n = 0;
        const char *end = g->packet + g->len;
        while (p < end && n < len) {
            bool escaped = *p == '}' && p + 1 < end;
            p += escaped;
            data[n++] = (uint8_t)(escaped ? *p ^ 0x20 : *p);
            p++;
        }
        ok = n == len && p == end;
    } else if (ok) {
        ok = gdb_take_bytes(p, data, (size_t)len);
    }
    if (!ok) {
        gdb_reply(g, "E22");
        return;
    }
    if (gdb_halt(g))
        gdb_reply(g, transfer(g, address, data, (size_t)len, true) == len ? "OK" : "E14");
}

/* ---- breakpoints ---- */

static unsigned find_int3(const GdbStub *g, uint64_t address)
{
    unsigned i = 0;
    while (i < g->int3s->len && g_array_index(g->int3s, Int3, i).address != address)
        i++;
    return i;
}

static unsigned find_slot(const GdbStub *g, char type, uint64_t address, unsigned len)
{
    unsigned i = 0;
    while (i < VCPU_DEBUG_SLOTS &&
           (g->slot_type[i] != type || (type && (g->debug.slot[i].address != address ||
                                                 g->debug.slot[i].len != len))))
        i++;
    return i;
}

static bool add_int3(GdbStub *g, uint64_t address)
{
    static const uint8_t int3 = INT3;
    Int3 b = {.address = address};
    if (g->int3s->len >= INT3_MAX || !physical(g, address, &b.gpa) ||
        !g->t.mem_read(g->t.opaque, b.gpa, &b.below, 1))
        return false;
    hide_int3s(g, b.gpa, &b.below, 1); /* another address of the same byte */
    if (!g->t.mem_write(g->t.opaque, b.gpa, &int3, 1))
        return false;
    g_array_append_val(g->int3s, b);
    return true;
}

static void remove_int3(GdbStub *g, unsigned i)
{
    Int3 b = g_array_index(g->int3s, Int3, i);
    uint8_t now = 0;
    g_array_remove_index(g->int3s, i);
    for (i = 0; i < g->int3s->len; i++) {
        if (g_array_index(g->int3s, Int3, i).gpa == b.gpa)
            return; /* still wanted under its other address */
    }
    /* A guest that started again has other things there. */
    if (g->t.mem_read(g->t.opaque, b.gpa, &now, 1) && now == INT3)
        (void)g->t.mem_write(g->t.opaque, b.gpa, &b.below, 1);
}

static bool add_slot(GdbStub *g, char type, uint64_t address, unsigned len)
{
    unsigned i = find_slot(g, 0, 0, 0);
    bool exec = type <= '1';
    if (exec)
        len = 1;
    if (i == VCPU_DEBUG_SLOTS || !is_power_of_two(len) || len > 8 || address % len)
        return false;
    g->slot_type[i] = type; /* keeps (1) */
    g->debug.slots |= 1u << i;
    g->debug.slot[i].address = address;
    g->debug.slot[i].len = len;
    g->debug.slot[i].kind = exec          ? VCPU_WATCH_EXEC
                            : type == '2' ? VCPU_WATCH_WRITE
                                          : VCPU_WATCH_ACCESS; /* reads alone: x86 cannot */
    return true;
}

static void remove_slot(GdbStub *g, unsigned i)
{
    g->slot_type[i] = 0;
    g->debug.slots &= ~(1u << i);
}

/* Z and z: TYPE,ADDRESS,KIND */
void gdb_breakpoint(GdbStub *g, const char *p, bool add)
{
    uint64_t address, kind;
    char type = *p;
    if (type < '0' || type > '4') {
        gdb_reply(g, "");
        return;
    }
    p++;
    if (!gdb_take_char(&p, ',') || !gdb_take_range(&p, &address, &kind) || kind > 8) {
        gdb_reply(g, "E22");
        return;
    }
    if (!gdb_halt(g))
        return;
    unsigned len = type <= '1' ? 1 : (unsigned)kind;
    unsigned slot = find_slot(g, type, address, len);
    unsigned at = type == '0' ? find_int3(g, address) : g->int3s->len;
    bool there = slot < VCPU_DEBUG_SLOTS || at < g->int3s->len;
    if (add == there) {
        gdb_reply(g, "OK"); /* as it was */
    } else if (!add) {
        if (slot < VCPU_DEBUG_SLOTS)
            remove_slot(g, slot);
        else
            remove_int3(g, at);
        gdb_reply(g, "OK");
    } else {
        bool ok = (type != '0' || g->t.no_int3) && add_slot(g, type, address, len);
        gdb_reply_ok(g, ok || (type == '0' && add_int3(g, address)));
    }
}

bool gdb_has_int3(const GdbStub *g, uint64_t address)
{
    return find_int3(g, address) < g->int3s->len;
}

void gdb_remove_all(GdbStub *g)
{
    while (g->int3s->len)
        remove_int3(g, g->int3s->len - 1);
}
