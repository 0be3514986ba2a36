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
 * An exception that is not the debugger's is the guest's: it gets it. Every length of a packet is
 * bounded by GDB_PACKET_MAX; what is longer is read over and refused.
 */
#include "gdbstub.h"

#include <inttypes.h>
#include <string.h>

#include "gdb_regs.h"
#include "gdbstub_internal.h"

#define MONITOR_PART 1024u /* bytes of a monitor's answer in one packet */
#define DR6_STEP 0x4000u   /* SDM 3B, 17.2.3 */
#define SIGINT_GDB 2u
#define SIGTRAP_GDB 5u

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

void gdb_reply(GdbStub *g, const char *text)
{
    send_packet(g, text, strlen(text));
}

void gdb_reply_ok(GdbStub *g, bool ok)
{
    gdb_reply(g, ok ? "OK" : "E22");
}

void gdb_append_hex(GString *out, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        g_string_append_printf(out, "%02x", ((const uint8_t *)data)[i]);
}

/* @what: "swbreak:;" or the like, or "". */
static void reply_stop(GdbStub *g, unsigned signal, const char *what)
{
    g_autofree char *text = g_strdup_printf("T%02x%sthread:%x;", signal, what, g->cpu + 1);
    gdb_reply(g, text);
}

/* ---- reading ---- */

/* A number of at most 16 hexadecimal digits; false: none. */
bool gdb_take_hex(const char **p, uint64_t *ret)
{
    unsigned n = 0;
    *ret = 0;
    for (; g_ascii_isxdigit(**p) && n < 16; n++)
        *ret = *ret << 4 | (unsigned)g_ascii_xdigit_value(*(*p)++);
    return n > 0;
}

bool gdb_take_char(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

/* Two digits a byte, @len bytes exactly up to the end of the text. */
bool gdb_take_bytes(const char *p, uint8_t *to, size_t len)
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

bool gdb_take_range(const char **p, uint64_t *ret_address, uint64_t *ret_len)
{
    return gdb_take_hex(p, ret_address) && gdb_take_char(p, ',') && gdb_take_hex(p, ret_len);
}

/* A thread's number: -1 (@ret_all), 0 (any: the chosen one), or a vCPU's. */
static bool take_thread(GdbStub *g, const char **p, unsigned *ret_cpu, bool *ret_all)
{
    uint64_t id;
    *ret_cpu = g->cpu;
    *ret_all = gdb_take_char(p, '-');
    if (!gdb_take_hex(p, &id))
        return false;
    if (*ret_all)
        return id == 1;
    if (!id)
        return true;
    *ret_cpu = (unsigned)(id - 1);
    return id <= g->t.cpus;
}

bool gdb_halt(GdbStub *g)
{
    if (g->t.halt(g->t.opaque))
        return true;
    gdb_reply(g, "E16");
    return false;
}

/* ---- registers ---- */

static void do_read_all(GdbStub *g)
{
    VcpuRegs r;
    uint8_t bytes[GDB_REG_BYTES];
    if (!gdb_halt(g))
        return;
    if (!g->t.regs_read(g->t.opaque, g->cpu, &r)) {
        gdb_reply(g, "E14");
        return;
    }
    g_autoptr(GString) out = g_string_new(NULL);
    for (unsigned n = 0; n < gdb_reg_count(g->long_mode); n++) {
        gdb_reg_get(&r, g->long_mode, n, bytes);
        gdb_append_hex(out, bytes, gdb_reg_size(g->long_mode, n));
    }
    gdb_reply(g, out->str);
}

static void do_write_all(GdbStub *g, const char *p)
{
    VcpuRegs r;
    uint8_t bytes[GDB_REGS_BYTES];
    size_t len = 0;
    for (unsigned n = 0; n < gdb_reg_count(g->long_mode); n++)
        len += gdb_reg_size(g->long_mode, n);
    if (len > sizeof bytes || !gdb_take_bytes(p, bytes, len)) {
        gdb_reply(g, "E22");
        return;
    }
    if (!gdb_halt(g))
        return;
    bool ok = g->t.regs_read(g->t.opaque, g->cpu, &r);
    for (unsigned n = 0, at = 0; n < gdb_reg_count(g->long_mode); n++) {
        gdb_reg_set(&r, g->long_mode, n, bytes + at);
        at += gdb_reg_size(g->long_mode, n);
    }
    gdb_reply_ok(g, ok && g->t.regs_write(g->t.opaque, g->cpu, &r));
}

static void do_one_register(GdbStub *g, const char *p, bool write)
{
    VcpuRegs r;
    uint8_t bytes[GDB_REG_BYTES];
    uint64_t n;
    unsigned size = 0;
    if (gdb_take_hex(&p, &n) && n <= UINT32_MAX)
        size = gdb_reg_size(g->long_mode, (unsigned)n);
    bool whole = write ? gdb_take_char(&p, '=') && gdb_take_bytes(p, bytes, size) : *p == '\0';
    if (!size || !whole) {
        gdb_reply(g, "E22");
        return;
    }
    if (!gdb_halt(g))
        return;
    if (!g->t.regs_read(g->t.opaque, g->cpu, &r)) {
        gdb_reply(g, "E14");
    } else if (write) {
        gdb_reg_set(&r, g->long_mode, (unsigned)n, bytes);
        gdb_reply_ok(g, g->t.regs_write(g->t.opaque, g->cpu, &r));
    } else {
        g_autoptr(GString) out = g_string_new(NULL);
        gdb_reg_get(&r, g->long_mode, (unsigned)n, bytes);
        gdb_append_hex(out, bytes, size);
        gdb_reply(g, out->str);
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
    if (gdb_halt(g) && !go_on(g, 0, 0))
        gdb_reply(g, "E22");
}

/* vCont;ACTION[:THREAD]...: the leftmost that fits a thread counts. */
static void do_vcont(GdbStub *g, const char *p)
{
    g_autofree Action *actions = g_new0(Action, g->t.cpus);
    bool any = false;
    while (gdb_take_char(&p, ';')) {
        char c = *p ? *p++ : '\0';
        Action a = c == 'c' || c == 'C' ? ACTION_RUN : c == 's' || c == 'S' ? ACTION_STEP
                                                                            : ACTION_NONE;
        unsigned cpu = 0;
        uint64_t signal;
        bool all = true;
        if (a == ACTION_NONE || ((c == 'C' || c == 'S') && !gdb_take_hex(&p, &signal)) ||
            (gdb_take_char(&p, ':') && !take_thread(g, &p, &cpu, &all))) {
            gdb_reply(g, "E22");
            return;
        }
        for (unsigned i = 0; i < g->t.cpus; i++) {
            if ((all || i == cpu) && actions[i] == ACTION_NONE)
                actions[i] = a;
        }
        any = true;
    }
    if (!any || *p) {
        gdb_reply(g, "E22");
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
        if (!gdb_take_hex(&p, &v) || (*p && !gdb_take_char(&p, ';'))) {
            gdb_reply(g, "E22");
            return;
        }
    }
    if (gdb_take_hex(&p, &v)) {
        if (!gdb_halt(g))
            return;
        if (!g->t.regs_read(g->t.opaque, g->cpu, &r)) {
            gdb_reply(g, "E14");
            return;
        }
        r.regs.rip = v;
        (void)g->t.regs_write(g->t.opaque, g->cpu, &r);
    }
    for (unsigned i = 0; i < g->t.cpus; i++)
        g->actions[i] = step && i == g->cpu ? ACTION_STEP : ACTION_RUN;
    resume(g);
}

/* Somebody let it go on while the debugger believes that it stands: nothing of it stops there. */
static void ignore(GdbStub *g)
{
    static const VcpuDebug none = {0};
    g_autofree bool *held = g_new0(bool, g->t.cpus);
    for (unsigned i = 0; i < g->t.cpus; i++)
        (void)g->t.debug(g->t.opaque, i, &none);
    g->t.run(g->t.opaque, held);
}

void gdb_stub_stopped(GdbStub *g, const VcpuDebugStop *stop)
{
    static const char *const watches[] = {"watch", "rwatch", "awatch"};
    if (g->detached || stop->cpu >= g->t.cpus)
        return;
    if (!g->running) {
        ignore(g);
        return;
    }
    g_autofree char *what = NULL;
    unsigned hit = VCPU_DEBUG_SLOTS;
    bool mine = false;
    for (unsigned i = 0; stop->exception == 1 && i < VCPU_DEBUG_SLOTS; i++) {
        if (hit == VCPU_DEBUG_SLOTS && (stop->dr6 >> i & 1) && g->slot_type[i])
            hit = i;
    }
    if (stop->exception == 3 && gdb_has_int3(g, stop->pc)) {
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
        gdb_reply(g, "W00");
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
    gdb_reply(g, out->str);
}

static void do_thread_text(GdbStub *g, const char *p)
{
    unsigned cpu;
    bool all;
    if (!take_thread(g, &p, &cpu, &all) || all) {
        gdb_reply(g, "E22");
        return;
    }
    if (!gdb_halt(g))
        return;
    g_autofree char *text = g_strdup_printf(
        "vCPU %u, %s", cpu, g->t.is_halted(g->t.opaque, cpu) ? "waits" : "runs");
    g_autoptr(GString) out = g_string_new(NULL);
    gdb_append_hex(out, text, strlen(text));
    gdb_reply(g, out->str);
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
    if (!gdb_take_range(&p, &offset, &len) || *p) {
        gdb_reply(g, "E22");
        return;
    }
    if (!offset) { /* the mode in which it is met stays that of the session */
        if (!gdb_halt(g))
            return;
        look_at_mode(g);
    }
    g_autofree char *xml = gdb_regs_xml(g->long_mode);
    size_t size = strlen(xml);
    offset = MIN(offset, (uint64_t)size);
    len = MIN(len, (uint64_t)GDB_PACKET_MAX - 16);
    g_autoptr(GString) out = g_string_new(len < size - offset ? "m" : "l");
    g_string_append_len(out, xml + offset, (gssize)MIN(len, size - offset));
    send_packet(g, out->str, out->len);
}

static void do_monitor(GdbStub *g, const char *p)
{
    size_t len = strlen(p) / 2;
    char line[GDB_PACKET_MAX / 2 + 1];
    if (!gdb_take_bytes(p, (uint8_t *)line, len)) {
        gdb_reply(g, "E22");
        return;
    }
    line[len] = '\0';
    g_autofree char *answer = g->t.monitor(g->t.opaque, line);
    size_t size = strlen(answer);
    for (size_t at = 0; at < size; at += MONITOR_PART) {
        g_autoptr(GString) out = g_string_new("O");
        gdb_append_hex(out, answer + at, MIN(size - at, (size_t)MONITOR_PART));
        gdb_reply(g, out->str);
    }
    gdb_reply(g, "OK");
}

static void do_query(GdbStub *g, const char *p)
{
    static const char features[] = "qXfer:features:read:target.xml:";
    if (g_str_has_prefix(p, "qSupported")) {
        g->tells_break = strstr(p, "swbreak+") && strstr(p, "hwbreak+");
        g_autofree char *text = g_strdup_printf(
            "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+",
            GDB_PACKET_MAX);
        gdb_reply(g, text);
    } else if (g_str_has_prefix(p, features)) {
        do_description(g, p + strlen(features));
    } else if (!strcmp(p, "QStartNoAckMode")) {
        gdb_reply(g, "OK");
        g->no_ack = true;
    } else if (!strcmp(p, "qfThreadInfo")) {
        do_threads(g);
    } else if (!strcmp(p, "qsThreadInfo")) {
        gdb_reply(g, "l");
    } else if (g_str_has_prefix(p, "qThreadExtraInfo,")) {
        do_thread_text(g, p + strlen("qThreadExtraInfo,"));
    } else if (!strcmp(p, "qC")) {
        g_autofree char *text = g_strdup_printf("QC%x", g->cpu + 1);
        gdb_reply(g, text);
    } else if (!strcmp(p, "qAttached")) {
        gdb_reply(g, "1"); /* who quits leaves the machine running */
    } else if (g_str_has_prefix(p, "qRcmd,")) {
        do_monitor(g, p + strlen("qRcmd,"));
    } else if (!strcmp(p, "qqemu.PhyMemMode")) {
        gdb_reply(g, g->physical ? "1" : "0");
    } else if (!strcmp(p, "Qqemu.PhyMemMode:0") || !strcmp(p, "Qqemu.PhyMemMode:1")) {
        g->physical = p[strlen(p) - 1] == '1';
        gdb_reply(g, "OK");
    } else {
        gdb_reply(g, "");
    }
}

static void do_select(GdbStub *g, const char *p)
{
    unsigned cpu;
    bool all;
    char what = *p;
    if ((what != 'g' && what != 'c') || (p++, !take_thread(g, &p, &cpu, &all)) || *p) {
        gdb_reply(g, "E22");
        return;
    }
    if (what == 'g' && !all)
        g->cpu = cpu;
    gdb_reply(g, "OK");
}

static void detach(GdbStub *g)
{
    gdb_reply(g, "OK");
    g->detached = true;
}

static void do_v(GdbStub *g, const char *p)
{
    if (!strcmp(p, "vCont?")) {
        gdb_reply(g, "vCont;c;C;s;S");
    } else if (g_str_has_prefix(p, "vCont")) {
        do_vcont(g, p + strlen("vCont"));
    } else if (g_str_has_prefix(p, "vKill")) {
        detach(g);
        g->t.kill(g->t.opaque);
    } else {
        gdb_reply(g, "");
    }
}

static void handle(GdbStub *g)
{
    const char *p = g->packet + 1;
    unsigned cpu;
    bool all;
    switch (g->packet[0]) {
    case '?':
        if (gdb_halt(g)) {
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
        gdb_read_memory(g, p);
        break;
    case 'M':
    case 'X':
        gdb_write_memory(g, p, g->packet[0] == 'X');
        break;
    case 'Z':
    case 'z':
        gdb_breakpoint(g, p, g->packet[0] == 'Z');
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
        gdb_reply_ok(g, take_thread(g, &p, &cpu, &all) && !all && !*p);
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
        gdb_reply(g, "");
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
        gdb_reply(g, "E22");
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
        if (g->len < GDB_PACKET_MAX)
            g->packet[g->len++] = (char)b;
        else
            g->too_long = true;
        break;
    case IN_SUM1:
    case IN_SUM2: {
        unsigned v = (unsigned)g_ascii_xdigit_value((char)b) & 0xff; /* no digit: no sum fits */
        if (g->state == IN_SUM1) {
            g->said = (uint8_t)(v << 4);
            g->state = IN_SUM2;
        } else {
            g->said |= (uint8_t)v;
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
    gdb_remove_all(g);
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
