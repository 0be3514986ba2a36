/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GDB's remote serial protocol.
 *
 * Spec: GDB's manual, appendix "Remote Serial Protocol": packets, acknowledgement and its end,
 * stop replies, vCont, threads, target descriptions, Z packets; QEMU's Qqemu.PhyMemMode for
 * physical addresses. A thread is a vCPU, counted from 1. Left out: extended-remote, non-stop,
 * reverse execution, range stepping, tracepoints, file transfer; what is not known is answered as
 * GDB wants it, with nothing.
 *
 * Breakpoints are INT3 in guest memory (Z0) or debug registers (Z1 to Z4), which all vCPUs share.
 * Where the host does not stop at INT3 in guest kernel mode, Z0 takes debug registers as long as
 * there are some. An INT3 is found again by its physical address. An exception that is not ours is
 * the guest's: it gets it.
 *
 * Every length of a packet is bounded by PACKET_MAX; what is longer is read over and refused.
 *
 * Invariants:
 * (1) debug.slots has a bit for each entry of slot_type[] that is not 0.
 * (2) What is read does not show an INT3 of ours, what is written goes below it.
 */
#include "gdbstub.h"

#include <inttypes.h>
#include <string.h>

#include "lodge/num.h"

#include "gdb_regs.h"

#define PACKET_MAX 4096u /* bytes between $ and # */
#define INT3_MAX 256u
#define PAGE 4096u
#define MONITOR_PART 1024u /* bytes of a monitor's answer in one packet */
#define DR6_STEP 0x4000u   /* SDM 3B, 17.2.3 */
#define INT3 0xccu
#define SIGINT_GDB 2u
#define SIGTRAP_GDB 5u

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
    char packet[PACKET_MAX + 1];
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

/* ---- sending ---- */

static void send_packet(GdbStub *g, const char *data, size_t len)
{
    uint8_t sum = 0;
    g_string_assign(g->last, "$");
    for (size_t i = 0; i < len; i++) {
        char c = data[i];
        if (c == '#' || c == '$' || c == '}' || c == '*') {
            g_string_append_c(g->last, '}');
            sum += '}';
            c ^= 0x20;
        }
        g_string_append_c(g->last, c);
        sum += (uint8_t)c;
    }
    g_string_append_printf(g->last, "#%02x", sum);
    g->t.send(g->t.opaque, g->last->str, g->last->len);
}

static void reply(GdbStub *g, const char *text)
{
    send_packet(g, text, strlen(text));
}

static void reply_ok(GdbStub *g, bool ok)
{
    reply(g, ok ? "OK" : "E22");
}

static void append_hex(GString *out, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        g_string_append_printf(out, "%02x", ((const uint8_t *)data)[i]);
}

/* @what: "swbreak:;" or the like, or "". */
static void reply_stop(GdbStub *g, unsigned signal, const char *what)
{
    g_autofree char *text = g_strdup_printf("T%02x%sthread:%x;", signal, what, g->cpu + 1);
    reply(g, text);
}

/* ---- reading ---- */

/* A number of at most 16 hexadecimal digits; false: none. */
static bool take_hex(const char **p, uint64_t *ret)
{
    unsigned n = 0;
    *ret = 0;
    for (; g_ascii_isxdigit(**p) && n < 16; n++)
        *ret = *ret << 4 | (unsigned)g_ascii_xdigit_value(*(*p)++);
    return n > 0;
}

static bool take_char(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

/* Two digits a byte, @len bytes exactly up to the end of the text. */
static bool take_bytes(const char *p, uint8_t *to, size_t len)
{
    if (strlen(p) != 2 * len)
        return false;
    for (size_t i = 0; i < len; i++, p += 2) {
        if (!g_ascii_isxdigit(p[0]) || !g_ascii_isxdigit(p[1]))
            return false;
        to[i] = (uint8_t)(g_ascii_xdigit_value(p[0]) << 4 | g_ascii_xdigit_value(p[1]));
    }
    return true;
}

/* A thread's number: -1 (@ret_all), 0 (any: the chosen one), or a vCPU's. */
static bool take_thread(GdbStub *g, const char **p, unsigned *ret_cpu, bool *ret_all)
{
    uint64_t id;
    *ret_cpu = g->cpu;
    *ret_all = take_char(p, '-');
    if (!take_hex(p, &id))
        return false;
    if (*ret_all)
        return id == 1;
    if (!id)
        return true;
    *ret_cpu = (unsigned)(id - 1);
    return id <= g->t.cpus;
}

static bool halt(GdbStub *g)
{
    if (g->t.halt(g->t.opaque))
        return true;
    reply(g, "E16");
    return false;
}

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

static bool take_range(const char **p, uint64_t *ret_address, uint64_t *ret_len)
{
    return take_hex(p, ret_address) && take_char(p, ',') && take_hex(p, ret_len);
}

static void do_read(GdbStub *g, const char *p)
{
    uint64_t address, len;
    uint8_t data[PACKET_MAX / 2];
    if (!take_range(&p, &address, &len) || *p) {
        reply(g, "E22");
        return;
    }
    if (!halt(g))
        return;
    size_t n = transfer(g, address, data, MIN(len, sizeof data), false);
    g_autoptr(GString) out = g_string_new(NULL);
    append_hex(out, data, n);
    reply(g, n || !len ? out->str : "E14");
}

static void do_write(GdbStub *g, const char *p, bool binary)
{
    uint64_t address, len;
    uint8_t data[PACKET_MAX];
    bool ok = take_range(&p, &address, &len) && take_char(&p, ':') && len <= sizeof data;
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
        ok = take_bytes(p, data, (size_t)len);
    }
    if (!ok) {
        reply(g, "E22");
        return;
    }
    if (halt(g))
        reply(g, transfer(g, address, data, (size_t)len, true) == len ? "OK" : "E14");
}

/* ---- registers ---- */

static void do_read_all(GdbStub *g)
{
    VcpuRegs r;
    uint8_t bytes[GDB_REG_BYTES];
    if (!halt(g))
        return;
    if (!g->t.regs_read(g->t.opaque, g->cpu, &r)) {
        reply(g, "E14");
        return;
    }
    g_autoptr(GString) out = g_string_new(NULL);
    for (unsigned n = 0; n < gdb_reg_count(g->long_mode); n++) {
        gdb_reg_get(&r, g->long_mode, n, bytes);
        append_hex(out, bytes, gdb_reg_size(g->long_mode, n));
    }
    reply(g, out->str);
}

static void do_write_all(GdbStub *g, const char *p)
{
    VcpuRegs r;
    uint8_t bytes[GDB_REGS_BYTES];
    size_t len = 0;
    for (unsigned n = 0; n < gdb_reg_count(g->long_mode); n++)
        len += gdb_reg_size(g->long_mode, n);
    if (len > sizeof bytes || !take_bytes(p, bytes, len)) {
        reply(g, "E22");
        return;
    }
    if (!halt(g))
        return;
    bool ok = g->t.regs_read(g->t.opaque, g->cpu, &r);
    for (unsigned n = 0, at = 0; n < gdb_reg_count(g->long_mode); n++) {
        gdb_reg_set(&r, g->long_mode, n, bytes + at);
        at += gdb_reg_size(g->long_mode, n);
    }
    reply_ok(g, ok && g->t.regs_write(g->t.opaque, g->cpu, &r));
}

static void do_one_register(GdbStub *g, const char *p, bool write)
{
    VcpuRegs r;
    uint8_t bytes[GDB_REG_BYTES];
    uint64_t n;
    unsigned size = take_hex(&p, &n) && n <= UINT32_MAX ? gdb_reg_size(g->long_mode, (unsigned)n) : 0;
    if (!size || (write ? !take_char(&p, '=') || !take_bytes(p, bytes, size) : *p != '\0')) {
        reply(g, "E22");
        return;
    }
    if (!halt(g))
        return;
    if (!g->t.regs_read(g->t.opaque, g->cpu, &r)) {
        reply(g, "E14");
    } else if (write) {
        gdb_reg_set(&r, g->long_mode, (unsigned)n, bytes);
        reply_ok(g, g->t.regs_write(g->t.opaque, g->cpu, &r));
    } else {
        g_autoptr(GString) out = g_string_new(NULL);
        gdb_reg_get(&r, g->long_mode, (unsigned)n, bytes);
        append_hex(out, bytes, size);
        reply(g, out->str);
    }
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
static void do_breakpoint(GdbStub *g, const char *p, bool add)
{
    uint64_t address, kind;
    char type = *p;
    if (type < '0' || type > '4') {
        reply(g, "");
        return;
    }
    p++;
    if (!take_char(&p, ',') || !take_range(&p, &address, &kind) || kind > 8) {
        reply(g, "E22");
        return;
    }
    if (!halt(g))
        return;
    unsigned len = type <= '1' ? 1 : (unsigned)kind;
    unsigned slot = find_slot(g, type, address, len);
    unsigned at = type == '0' ? find_int3(g, address) : g->int3s->len;
    bool there = slot < VCPU_DEBUG_SLOTS || at < g->int3s->len;
    if (add == there) {
        reply(g, "OK"); /* as it was */
    } else if (!add) {
        if (slot < VCPU_DEBUG_SLOTS)
            remove_slot(g, slot);
        else
            remove_int3(g, at);
        reply(g, "OK");
    } else {
        bool ok = (type != '0' || g->t.no_int3) && add_slot(g, type, address, len);
        reply_ok(g, ok || (type == '0' && add_int3(g, address)));
    }
}

/* ---- running ---- */

/* Let the vCPUs go on by g->actions. @inject: the exception that @cpu stopped at, 0: none. */
static bool go_on(GdbStub *g, unsigned cpu, unsigned inject)
{
    g_autofree bool *held = g_new0(bool, g->t.cpus);
    for (unsigned i = 0; i < g->t.cpus; i++) {
        VcpuDebug d = g->debug;
        held[i] = g->actions[i] <= ACTION_HOLD;
        d.step = g->actions[i] == ACTION_STEP;
        d.int3 = g->int3s->len > 0;
        d.inject = inject && i == cpu ? inject : 0;
        if (!g->t.debug(g->t.opaque, i, &d))
            return false;
    }
    g->running = true;
    g->t.run(g->t.opaque, held);
    return true;
}

static void resume(GdbStub *g)
{
    if (halt(g) && !go_on(g, 0, 0))
        reply(g, "E22");
}

/* vCont;ACTION[:THREAD]...: the leftmost that fits a thread counts. */
static void do_vcont(GdbStub *g, const char *p)
{
    g_autofree Action *actions = g_new0(Action, g->t.cpus);
    bool any = false;
    while (take_char(&p, ';')) {
        char c = *p ? *p++ : '\0';
        Action a = c == 'c' || c == 'C' ? ACTION_RUN : c == 's' || c == 'S' ? ACTION_STEP
                                                                            : ACTION_NONE;
        unsigned cpu = 0;
        uint64_t signal;
        bool all = true;
        if (a == ACTION_NONE || ((c == 'C' || c == 'S') && !take_hex(&p, &signal)) ||
            (take_char(&p, ':') && !take_thread(g, &p, &cpu, &all))) {
            reply(g, "E22");
            return;
        }
        for (unsigned i = 0; i < g->t.cpus; i++) {
            if ((all || i == cpu) && actions[i] == ACTION_NONE)
                actions[i] = a;
        }
        any = true;
    }
    if (!any || *p) {
        reply(g, "E22");
        return;
    }
    memcpy(g->actions, actions, g->t.cpus * sizeof actions[0]);
    resume(g);
}

/* c, C, s, S: [SIGNAL][;]ADDRESS */
static void do_plain_run(GdbStub *g, char c, const char *p)
{
    bool step = c == 's' || c == 'S';
    uint64_t v;
    VcpuRegs r;
    if (c == 'C' || c == 'S') {
        if (!take_hex(&p, &v) || (*p && !take_char(&p, ';'))) {
            reply(g, "E22");
            return;
        }
    }
    if (take_hex(&p, &v)) {
        if (!halt(g))
            return;
        if (!g->t.regs_read(g->t.opaque, g->cpu, &r)) {
            reply(g, "E14");
            return;
        }
        r.regs.rip = v;
        (void)g->t.regs_write(g->t.opaque, g->cpu, &r);
    }
    for (unsigned i = 0; i < g->t.cpus; i++)
        g->actions[i] = step && i == g->cpu ? ACTION_STEP : ACTION_RUN;
    resume(g);
}

void gdb_stub_stopped(GdbStub *g, const VcpuDebugStop *stop)
{
    static const char *const watches[] = {"watch", "rwatch", "awatch"};
    if (!g->running || g->detached || stop->cpu >= g->t.cpus)
        return;
    g_autofree char *what = NULL;
    unsigned hit = VCPU_DEBUG_SLOTS;
    bool mine = false;
    for (unsigned i = 0; stop->exception == 1 && i < VCPU_DEBUG_SLOTS; i++) {
        if (hit == VCPU_DEBUG_SLOTS && (stop->dr6 >> i & 1) && g->slot_type[i])
            hit = i;
    }
    if (stop->exception == 3 && find_int3(g, stop->pc) < g->int3s->len) {
        mine = true;
        what = g_strdup(g->tells_break ? "swbreak:;" : "");
    } else if (hit < VCPU_DEBUG_SLOTS) {
        char type = g->slot_type[hit];
        mine = true;
        if (type <= '1')
            what = g_strdup(!g->tells_break ? "" : type == '0' ? "swbreak:;" : "hwbreak:;");
        else
            what = g_strdup_printf("%s:%" PRIx64 ";", watches[type - '2'],
                                   g->debug.slot[hit].address);
    } else if (stop->exception == 1 && g->actions[stop->cpu] == ACTION_STEP &&
               (stop->dr6 & DR6_STEP || !(stop->dr6 & 15))) {
        mine = true;
    }
    if (!mine && go_on(g, stop->cpu, stop->exception == 3 ? 3 : 1))
        return; /* the guest's own */
    g->running = false;
    g->cpu = stop->cpu;
    reply_stop(g, SIGTRAP_GDB, what ? what : "");
}

void gdb_stub_paused(GdbStub *g)
{
    if (!g->running || g->detached)
        return;
    g->running = false;
    reply_stop(g, SIGINT_GDB, "");
}

void gdb_stub_ended(GdbStub *g)
{
    if (!g->detached)
        reply(g, "W00");
    g->running = false;
    g->detached = true;
}

static void interrupt(GdbStub *g)
{
    if (!g->running || !g->t.halt(g->t.opaque))
        return;
    g->running = false;
    reply_stop(g, SIGINT_GDB, "");
}

/* ---- questions ---- */

static void do_threads(GdbStub *g)
{
    g_autoptr(GString) out = g_string_new("m");
    for (unsigned i = 0; i < g->t.cpus; i++)
        g_string_append_printf(out, "%s%x", i ? "," : "", i + 1);
    reply(g, out->str);
}

static void do_thread_text(GdbStub *g, const char *p)
{
    unsigned cpu;
    bool all;
    if (!take_thread(g, &p, &cpu, &all) || all) {
        reply(g, "E22");
        return;
    }
    if (!halt(g))
        return;
    g_autofree char *text = g_strdup_printf(
        "vCPU %u, %s", cpu, g->t.is_halted(g->t.opaque, cpu) ? "waits" : "runs");
    g_autoptr(GString) out = g_string_new(NULL);
    append_hex(out, text, strlen(text));
    reply(g, out->str);
}

static void look_at_mode(GdbStub *g)
{
    VcpuRegs r;
    g->long_mode = g->t.regs_read(g->t.opaque, g->cpu, &r) && gdb_regs_long_mode(&r);
}

/* OFFSET,LENGTH of target.xml */
static void do_description(GdbStub *g, const char *p)
{
    uint64_t offset, len;
    if (!take_range(&p, &offset, &len) || *p) {
        reply(g, "E22");
        return;
    }
    if (!offset) { /* the mode in which it is met stays that of the session */
        if (!halt(g))
            return;
        look_at_mode(g);
    }
    g_autofree char *xml = gdb_regs_xml(g->long_mode);
    size_t size = strlen(xml);
    offset = MIN(offset, (uint64_t)size);
    len = MIN(len, (uint64_t)PACKET_MAX - 16);
    g_autoptr(GString) out = g_string_new(len < size - offset ? "m" : "l");
    g_string_append_len(out, xml + offset, (gssize)MIN(len, size - offset));
    send_packet(g, out->str, out->len);
}

static void do_monitor(GdbStub *g, const char *p)
{
    size_t len = strlen(p) / 2;
    char line[PACKET_MAX / 2 + 1];
    if (!take_bytes(p, (uint8_t *)line, len)) {
        reply(g, "E22");
        return;
    }
    line[len] = '\0';
    g_autofree char *answer = g->t.monitor(g->t.opaque, line);
    size_t size = strlen(answer);
    for (size_t at = 0; at < size; at += MONITOR_PART) {
        g_autoptr(GString) out = g_string_new("O");
        append_hex(out, answer + at, MIN(size - at, (size_t)MONITOR_PART));
        reply(g, out->str);
    }
    reply(g, "OK");
}

static void do_query(GdbStub *g, const char *p)
{
    static const char features[] = "qXfer:features:read:target.xml:";
    if (g_str_has_prefix(p, "qSupported")) {
        g->tells_break = strstr(p, "swbreak+") && strstr(p, "hwbreak+");
        g_autofree char *text = g_strdup_printf(
            "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+",
            PACKET_MAX);
        reply(g, text);
    } else if (g_str_has_prefix(p, features)) {
        do_description(g, p + strlen(features));
    } else if (!strcmp(p, "QStartNoAckMode")) {
        reply(g, "OK");
        g->no_ack = true;
    } else if (!strcmp(p, "qfThreadInfo")) {
        do_threads(g);
    } else if (!strcmp(p, "qsThreadInfo")) {
        reply(g, "l");
    } else if (g_str_has_prefix(p, "qThreadExtraInfo,")) {
        do_thread_text(g, p + strlen("qThreadExtraInfo,"));
    } else if (!strcmp(p, "qC")) {
        g_autofree char *text = g_strdup_printf("QC%x", g->cpu + 1);
        reply(g, text);
    } else if (!strcmp(p, "qAttached")) {
        reply(g, "1"); /* who quits leaves the machine running */
    } else if (g_str_has_prefix(p, "qRcmd,")) {
        do_monitor(g, p + strlen("qRcmd,"));
    } else if (!strcmp(p, "qqemu.PhyMemMode")) {
        reply(g, g->physical ? "1" : "0");
    } else if (!strcmp(p, "Qqemu.PhyMemMode:0") || !strcmp(p, "Qqemu.PhyMemMode:1")) {
        g->physical = p[strlen(p) - 1] == '1';
        reply(g, "OK");
    } else {
        reply(g, "");
    }
}

static void do_select(GdbStub *g, const char *p)
{
    unsigned cpu;
    bool all;
    char what = *p;
    if ((what != 'g' && what != 'c') || (p++, !take_thread(g, &p, &cpu, &all)) || *p) {
        reply(g, "E22");
        return;
    }
    if (what == 'g' && !all)
        g->cpu = cpu;
    reply(g, "OK");
}

static void detach(GdbStub *g)
{
    reply(g, "OK");
    g->detached = true;
}

static void do_v(GdbStub *g, const char *p)
{
    if (!strcmp(p, "vCont?")) {
        reply(g, "vCont;c;C;s;S");
    } else if (g_str_has_prefix(p, "vCont")) {
        do_vcont(g, p + strlen("vCont"));
    } else if (g_str_has_prefix(p, "vKill")) {
        detach(g);
        g->t.kill(g->t.opaque);
    } else {
        reply(g, "");
    }
}

static void handle(GdbStub *g)
{
    const char *p = g->packet + 1;
    unsigned cpu;
    bool all;
    switch (g->packet[0]) {
    case '?':
        if (halt(g)) {
            g->running = false;
            look_at_mode(g);
            reply_stop(g, SIGTRAP_GDB, "");
        }
        break;
    case 'g':
        do_read_all(g);
        break;
    case 'G':
        do_write_all(g, p);
        break;
    case 'p':
    case 'P':
        do_one_register(g, p, g->packet[0] == 'P');
        break;
    case 'm':
        do_read(g, p);
        break;
    case 'M':
    case 'X':
        do_write(g, p, g->packet[0] == 'X');
        break;
    case 'Z':
    case 'z':
        do_breakpoint(g, p, g->packet[0] == 'Z');
        break;
    case 'c':
    case 'C':
    case 's':
    case 'S':
        do_plain_run(g, g->packet[0], p);
        break;
    case 'v':
        do_v(g, g->packet);
        break;
    case 'H':
        do_select(g, p);
        break;
    case 'T':
        reply_ok(g, take_thread(g, &p, &cpu, &all) && !all && !*p);
        break;
    case 'q':
    case 'Q':
        do_query(g, g->packet);
        break;
    case 'D':
        detach(g);
        break;
    case 'k':
        g->detached = true;
        g->t.kill(g->t.opaque);
        break;
    default:
        reply(g, "");
        break;
    }
}

/* ---- framing ---- */

static void end_packet(GdbStub *g)
{
    if (!g->no_ack && g->sum != g->said) {
        g->t.send(g->t.opaque, "-", 1);
        return;
    }
    if (!g->no_ack)
        g->t.send(g->t.opaque, "+", 1);
    g->packet[g->len] = '\0';
    if (g->too_long)
        reply(g, "E22");
    else
        handle(g);
}

static void take_byte(GdbStub *g, uint8_t b)
{
    switch (g->state) {
    case IN_IDLE:
        if (b == '$') {
            g->state = IN_DATA;
            g->len = 0;
            g->sum = 0;
            g->too_long = false;
        } else if (b == 3) {
            interrupt(g);
        } else if (b == '-' && g->last->len && !g->no_ack) {
            g->t.send(g->t.opaque, g->last->str, g->last->len);
        }
        break;
    case IN_DATA:
        if (b == '#') {
            g->state = IN_SUM1;
            break;
        }
        g->sum += b;
        if (g->len < PACKET_MAX)
            g->packet[g->len++] = (char)b;
        else
            g->too_long = true;
        break;
    case IN_SUM1:
    case IN_SUM2: {
        int v = g_ascii_xdigit_value((char)b);
        if (g->state == IN_SUM1) {
            g->said = (uint8_t)(v << 4);
            g->state = IN_SUM2;
        } else {
            g->said |= (uint8_t)(v & 15);
            g->state = IN_IDLE;
            end_packet(g);
        }
        break;
    }
    }
}

void gdb_stub_input(GdbStub *g, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len && !g->detached; i++)
        take_byte(g, data[i]);
}

/* ---- life ---- */

GdbStub *gdb_stub_new(const GdbTarget *t)
{
    GdbStub *g = g_new0(GdbStub, 1);
    g->t = *t;
    g->last = g_string_new(NULL);
    g->actions = g_new0(Action, t->cpus);
    g->int3s = g_array_new(FALSE, FALSE, sizeof(Int3));
    return g;
}

void gdb_stub_free(GdbStub *g)
{
    static const VcpuDebug none = {0};
    if (!g)
        return;
    while (g->int3s->len)
        remove_int3(g, g->int3s->len - 1);
    for (unsigned i = 0; i < g->t.cpus; i++)
        (void)g->t.debug(g->t.opaque, i, &none);
    g_array_free(g->int3s, TRUE);
    g_string_free(g->last, TRUE);
    g_free(g->actions);
    g_free(g);
}

bool gdb_stub_running(const GdbStub *g)
{
    return g->running;
}

bool gdb_stub_detached(const GdbStub *g)
{
    return g->detached;
}
