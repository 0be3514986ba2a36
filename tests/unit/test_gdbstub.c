/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GDB's protocol, packet by packet, against arrays. With GDB itself and a machine it is in
 * tests/e2e/test_native_gdb.py and test_full_gdb.py. */
#include <string.h>

#include "gdb_regs.h"
#include "gdbfix.h"
#include "lodge/num.h"

typedef struct Fixture {
    GdbFix f;
} Fixture;

static void feed(Fixture *x, const char *text)
{
    gdb_stub_input(x->f.stub, (const uint8_t *)text, strlen(text));
}

static void packet(Fixture *x, const char *data, size_t len)
{
    g_autoptr(GString) p = g_string_new("$");
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += (uint8_t)data[i];
    g_string_append_len(p, data, (gssize)len);
    g_string_append_printf(p, "#%02x", sum);
    gdb_stub_input(x->f.stub, (const uint8_t *)p->str, p->len);
}

/* What was sent since, its frame checked and taken off; several packets stand behind each other. */
static const char *heard(Fixture *x)
{
    static char text[65536];
    size_t n = 0;
    for (const char *p = x->f.out->str; *p;) {
        if (*p == '+') {
            p++;
            continue;
        }
        g_assert_cmpint(*p, ==, '$');
        uint8_t sum = 0;
        for (p++; *p != '#'; p++) {
            g_assert_true(*p && n + 1 < sizeof text);
            text[n++] = *p;
            sum += (uint8_t)*p;
        }
        g_assert_cmphex(strtoul((char[]){p[1], p[2], 0}, NULL, 16), ==, sum);
        p += 3;
    }
    text[n] = '\0';
    g_string_truncate(x->f.out, 0);
    return text;
}

static const char *ask(Fixture *x, const char *text)
{
    packet(x, text, strlen(text));
    return heard(x);
}

#define ASK(text, answer) g_assert_cmpstr(ask(x, text), ==, answer)

static void set_up(Fixture *x, gconstpointer kind)
{
    unsigned k = GPOINTER_TO_UINT(kind);
    gdbfix_init(&x->f, k & 1, k & 2);
    for (unsigned i = 0; i < GDBFIX_MEM; i++)
        x->f.mem[i] = (uint8_t)(i ^ i >> 8);
}

static void tear_down(Fixture *x, gconstpointer kind)
{
    gdbfix_clear(&x->f);
}

static void test_framing(Fixture *x, gconstpointer kind)
{
    feed(x, "noise$?#3f");
    g_assert_cmpstr(x->f.out->str, ==, "+$T05thread:1;#d7");
    g_string_truncate(x->f.out, 0);
    feed(x, "$?#00$?#zz$?#3g"); /* wrong sums */
    g_assert_cmpstr(x->f.out->str, ==, "---");
    g_string_truncate(x->f.out, 0);
    feed(x, "-"); /* it did not arrive: the same once more */
    g_assert_cmpstr(x->f.out->str, ==, "$T05thread:1;#d7");
    heard(x);
    ASK("qSupported:swbreak+;hwbreak+",
        "PacketSize=1000;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+");
    ASK("QStartNoAckMode", "OK");
    feed(x, "$?#00-");
    g_assert_cmpstr(x->f.out->str, ==, "$T05thread:1;#d7");
    heard(x);
    g_autofree char *big = g_strnfill(4097, 'm');
    ASK(big, "E22");
    big[0] = '!'; /* of the greatest length: not known */
    big[4096] = '\0';
    ASK(big, "");
    ASK("?", "T05thread:1;");
    const char *const unknown[] = {"", "!", "vMustReplyEmpty", "qTStatus", "qXfer:auxv:read::0,10",
                                   "Z9,0,0", "R00", "x", "\x01"};
    for (unsigned i = 0; i < G_N_ELEMENTS(unknown); i++)
        ASK(unknown[i], "");
    g_assert_cmpuint(x->f.halts, ==, 1);
}

static void test_threads(Fixture *x, gconstpointer kind)
{
    ASK("qfThreadInfo", "m1,2");
    ASK("qsThreadInfo", "l");
    ASK("qC", "QC1");
    ASK("Hg2", "OK");
    ASK("qC", "QC2");
    ASK("Hg0", "OK");
    ASK("Hc-1", "OK");
    ASK("qC", "QC2");
    ASK("T1", "OK");
    ASK("qThreadExtraInfo,2", "7643505520312c207761697473"); /* vCPU 1, waits */
    ASK("qAttached", "1");
    const char *const bad[] = {"Hg3", "Hg", "Hx1", "T0x", "T3", "T-1", "Hgffffffffffffffff",
                               "Hg10000000000000001", "H"};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        ASK(bad[i], "E22");
    ASK("qC", "QC2");
}

static void test_memory(Fixture *x, gconstpointer kind)
{
    ASK("m10,4", "10111213");
    ASK("m10010,2", "1011");
    ASK("m2ffe,8", "d1d0"); /* up to the hole */
    ASK("m3000,1", "E14");
    ASK("mfffffffffffffff0,20", "E14");
    ASK("m10,0", "");
    ASK("M10,2:abcd", "OK");
    ASK("m10010,2", "abcd");
    packet(x, "X20,4:a}\x03z}]", 11);
    g_assert_cmpstr(heard(x), ==, "OK");
    ASK("m20,4", "61237a7d");
    ASK("Mffffff,1:00", "E14");
    ASK("Qqemu.PhyMemMode:1", "OK");
    ASK("qqemu.PhyMemMode", "1");
    ASK("m3000,2", "3031");
    ASK("m10000,1", "E14");
    ASK("Qqemu.PhyMemMode:0", "OK");
    ASK("qqemu.PhyMemMode", "0");
    g_assert_cmpuint(strlen(ask(x, "m0,ffffffff")), ==, 4096);
    const char *const bad[] = {"m", "m10", "m10,", "mg,1", "m10,4x", "M10,2:ab", "M10,2:abc",
                               "M10,2:abcdef", "M10,1:zz", "M10,ffffffffffffffff:", "X10,2:a",
                               "X10,1:ab", "M10,1", "m11112222333344445,1"};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        ASK(bad[i], "E22");
    x->f.running = x->f.stuck = true;
    ASK("m10,4", "E16");
    x->f.stuck = false;
}

static void test_registers(Fixture *x, gconstpointer kind)
{
    bool long_mode = GPOINTER_TO_UINT(kind) & 1;
    VcpuRegs *r = &x->f.regs[1];
    g_autofree char *xml = gdb_regs_xml(long_mode);
    g_autoptr(GString) got = g_string_new(NULL);
    /* In parts, as GDB asks for it. */
    for (;;) {
        g_autofree char *q =
            g_strdup_printf("qXfer:features:read:target.xml:%x,400", (unsigned)got->len);
        const char *part = ask(x, q);
        g_string_append(got, part + 1);
        if (part[0] == 'l')
            break;
        g_assert_cmpint(part[0], ==, 'm');
    }
    g_assert_cmpstr(got->str, ==, xml);
    g_assert_true(strstr(xml, long_mode ? ">i386:x86-64<" : ">i386<"));
    ASK("qXfer:features:read:target.xml:ffffff,10", "l");
    ASK("qXfer:features:read:target.xml:0", "E22");
    ASK("Hg2", "OK");
    r->regs.rbx = 0x1122334455667788;
    r->regs.rip = 0xffffffff81000000;
    r->sregs.cr3 = 0xabc000;
    ASK(long_mode ? "p1" : "p3", long_mode ? "8877665544332211" : "88776655");
    ASK(long_mode ? "p10" : "p8", long_mode ? "00000081ffffffff" : "00000081");
    ASK(long_mode ? "P1=0100000000000080" : "P3=01000080", "OK");
    g_assert_cmphex(r->regs.rbx, ==, long_mode ? 0x8000000000000001 : 0x80000001);
    ASK("Hg1", "OK");
    ASK(long_mode ? "p1" : "p3", long_mode ? "0000000000000000" : "00000000");
    ASK("Hg2", "OK");
    /* All at once, and back. */
    for (unsigned i = 0; i < sizeof r->fpu.xmm; i++)
        ((uint8_t *)r->fpu.xmm)[i] = (uint8_t)i;
    g_autofree char *all = g_strdup(ask(x, "g"));
    VcpuRegs before = *r;
    g_autofree char *write = g_strconcat("G", all, NULL);
    memset(&r->regs, 0, sizeof r->regs);
    memset(r->fpu.xmm, 0, long_mode ? sizeof r->fpu.xmm : 128);
    ASK(write, "OK");
    g_assert_cmphex(r->regs.rbx, ==, before.regs.rbx);
    g_assert_cmpint(memcmp(r->fpu.xmm, before.fpu.xmm, sizeof r->fpu.xmm), ==, 0);
    g_assert_cmpstr(ask(x, "g"), ==, all);
    write[strlen(write) - 1] = '\0';
    ASK(write, "E22");
    const char *const bad[] = {"p",  "pff", "p100000001", "p1x",   "P1",
                               "P1=", "P1=00", "Pff=00",  "P=00", "G"};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        ASK(bad[i], "E22");
    /* SDM 1, 8.1.7: ST0 holds 1.0 at place 6, the rest is empty. */
    r->fpu.fsw = 6 << 11;
    r->fpu.ftwx = 1 << 6;
    memcpy(r->fpu.fpr[0], "\0\0\0\0\0\0\0\x80\xff\x3f", 10);
    ASK(long_mode ? "p22" : "p1a", "ffcf0000");
    ASK(long_mode ? "P22=ffff0000" : "P1a=ffff0000", "OK");
    g_assert_cmphex(r->fpu.ftwx, ==, 0);
}

static void stopped(Fixture *x, unsigned cpu, unsigned exception, uint64_t pc, uint64_t dr6)
{
    x->f.running = false;
    gdb_stub_stopped(x->f.stub, &(VcpuDebugStop){cpu, exception, pc, dr6});
}

static void test_int3(Fixture *x, gconstpointer kind)
{
    ask(x, "qSupported:swbreak+;hwbreak+");
    ASK("Z0,10100,1", "OK");
    ASK("Z0,10100,1", "OK");
    g_assert_cmphex(x->f.mem[0x100], ==, 0xcc);
    ASK("m100,2", "0100"); /* it does not show, and what is written goes below it */
    ASK("M100,2:aabb", "OK");
    g_assert_cmphex(x->f.mem[0x100], ==, 0xcc);
    ASK("m100,2", "aabb");
    ASK("Z0,100,1", "OK"); /* the same byte by another address */
    ASK("z0,10100,1", "OK");
    g_assert_cmphex(x->f.mem[0x100], ==, 0xcc);
    ASK("vCont;c", "");
    g_assert_true(x->f.running && x->f.debug[0].int3 && !x->f.debug[0].step);
    stopped(x, 1, 3, 0x100, 0);
    g_assert_cmpstr(heard(x), ==, "T05swbreak:;thread:2;");
    g_assert_false(x->f.running);
    /* One of the guest's own is handed to it. */
    ASK("c", "");
    stopped(x, 1, 3, 0x555, 0);
    g_assert_cmpstr(heard(x), ==, "");
    g_assert_true(x->f.running && x->f.debug[1].inject == 3 && !x->f.debug[0].inject);
    stopped(x, 0, 1, 0x555, 0x4000);
    g_assert_true(x->f.running && x->f.debug[0].inject == 1);
    feed(x, "\003");
    g_assert_cmpstr(heard(x), ==, "T02thread:2;");
    feed(x, "\003");
    g_assert_cmpstr(heard(x), ==, "");
    ASK("z0,100,1", "OK");
    g_assert_cmphex(x->f.mem[0x100], ==, 0xaa);
    ASK("z0,100,1", "OK");
    ASK("Z0,3000,1", "E22");
    ASK("Z0,100000,1", "E22");
    /* Memory that was loaded anew keeps its bytes. */
    ASK("Z0,200,1", "OK");
    x->f.mem[0x200] = 0x90;
    ASK("z0,200,1", "OK");
    g_assert_cmphex(x->f.mem[0x200], ==, 0x90);
    unsigned n = 0;
    for (char q[32]; n < 300; n++) {
        g_snprintf(q, sizeof q, "Z0,%x,1", 0x400 + n);
        if (strcmp(ask(x, q), "OK"))
            break;
    }
    g_assert_cmpuint(n, ==, 256);
}

static void test_slots(Fixture *x, gconstpointer kind)
{
    bool no_int3 = GPOINTER_TO_UINT(kind) & 2;
    ask(x, "qSupported:swbreak+;hwbreak+");
    ASK("Z1,1000,1", "OK");
    ASK("Z2,2000,4", "OK");
    ASK("Z4,2008,8", "OK");
    ASK("Z3,2001,1", "OK");
    ASK("Z1,1004,1", "E22"); /* there are four */
    ASK("vCont;c", "");
    const VcpuDebug *d = &x->f.debug[1];
    g_assert_true(d->slots == 15 && !d->int3);
    g_assert_true(d->slot[0].address == 0x1000 && d->slot[0].kind == VCPU_WATCH_EXEC &&
                  d->slot[0].len == 1);
    g_assert_true(d->slot[1].address == 0x2000 && d->slot[1].kind == VCPU_WATCH_WRITE &&
                  d->slot[1].len == 4);
    g_assert_true(d->slot[2].len == 8 && d->slot[2].kind == VCPU_WATCH_ACCESS);
    const struct {
        uint64_t dr6;
        const char *answer;
    } hits[] = {{1, "T05hwbreak:;thread:2;"}, {2, "T05watch:2000;thread:2;"},
                {4, "T05awatch:2008;thread:2;"}, {8, "T05rwatch:2001;thread:2;"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(hits); i++) {
        stopped(x, 1, 1, 0x1000, hits[i].dr6 | 0xffff0ff0);
        g_assert_cmpstr(heard(x), ==, hits[i].answer);
        ask(x, "c");
    }
    ASK("z2,2000,8", "OK"); /* not that one */
    ASK("Z1,1004,1", "E22");
    ASK("z2,2000,4", "OK");
    ASK("Z1,1004,1", "OK");
    ASK("z1,1004,1", "OK");
    const char *const bad[] = {"Z2,2001,2", "Z2,2000,3", "Z2,2000,0", "Z2,2000,10", "Z2,2000",
                               "Z2", "Z1,,1", "Z4,2004,8"};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        ASK(bad[i], "E22");
    /* Where INT3 does not stop a vCPU, Z0 takes the last slot, then memory after all. */
    uint8_t byte = x->f.mem[0x300];
    ASK("Z0,300,1", "OK");
    g_assert_cmphex(x->f.mem[0x300], ==, no_int3 ? byte : 0xcc);
    ASK("Z0,301,1", "OK");
    g_assert_cmphex(x->f.mem[0x301], ==, 0xcc);
    ASK("vCont;c", "");
    g_assert_cmpuint(x->f.debug[0].slots, ==, no_int3 ? 15 : 13);
    if (no_int3) {
        stopped(x, 0, 1, 0x300, 2);
        g_assert_cmpstr(heard(x), ==, "T05swbreak:;thread:1;");
    }
    ASK("z0,300,1", "OK");
    ASK("z0,301,1", "OK");
    g_assert_cmphex(x->f.mem[0x300], ==, byte);
}

static void test_running(Fixture *x, gconstpointer kind)
{
    ASK("?", "T05thread:1;");
    ASK("vCont?", "vCont;c;C;s;S");
    ASK("vCont;s:1;c", "");
    g_assert_true(x->f.debug[0].step && !x->f.debug[1].step && !x->f.held[0] && !x->f.held[1]);
    stopped(x, 0, 1, 0x10, 0xffff4ff0);
    g_assert_cmpstr(heard(x), ==, "T05thread:1;");
    ASK("vCont;s:2", "");
    g_assert_true(x->f.debug[1].step && x->f.held[0] && !x->f.held[1]);
    stopped(x, 1, 1, 0x10, 0xffff4ff0);
    g_assert_cmpstr(heard(x), ==, "T05thread:2;");
    ASK("vCont;C05:1;S02:-1", "");
    g_assert_true(!x->f.debug[0].step && x->f.debug[1].step && !x->f.held[0]);
    gdb_stub_paused(x->f.stub); /* by somebody else */
    g_assert_cmpstr(heard(x), ==, "T02thread:2;");
    gdb_stub_paused(x->f.stub);
    g_assert_cmpstr(heard(x), ==, "");
    ASK("Hg1", "OK");
    ASK("s1234", "");
    g_assert_true(x->f.regs[0].regs.rip == 0x1234 && x->f.debug[0].step && !x->f.debug[1].step);
    feed(x, "\003");
    heard(x);
    ASK("C05;4321", "");
    g_assert_true(x->f.regs[0].regs.rip == 0x4321 && !x->f.debug[0].step);
    /* Something is asked while it runs: it is brought to rest first. */
    ASK("m10,1", "10");
    g_assert_false(x->f.running);
    /* Let go on behind the debugger's back, it is not stopped by what the debugger left. */
    feed(x, "\003");
    heard(x);
    ASK("Z1,100,1", "OK");
    ASK("vCont;c", "");
    feed(x, "\003");
    heard(x);
    g_assert_cmpuint(x->f.debug[0].slots, ==, 1);
    stopped(x, 0, 1, 0x100, 1);
    g_assert_cmpstr(heard(x), ==, "");
    g_assert_true(x->f.running && !x->f.debug[0].slots && !x->f.held[0]);
    ASK("z1,100,1", "OK");
    const char *const bad[] = {"vCont", "vCont;", "vCont;x", "vCont;c:3", "vCont;c:", "vCont;Cz",
                               "vCont;c;", "vCont;c1", "Cz", "C05x"};
    unsigned runs = x->f.runs;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        ASK(bad[i], "E22");
    g_assert_cmpuint(x->f.runs, ==, runs);
    x->f.no_debug = true;
    ASK("vCont;s:1", "E22");
    x->f.no_debug = false;
    ASK("qRcmd,61", "O3c613eOK");
    ASK("qRcmd,6", "E22");
    ASK("qRcmd,zz", "E22");
    ASK("vCont;c", "");
    gdb_stub_ended(x->f.stub);
    g_assert_cmpstr(heard(x), ==, "W00");
    g_assert_true(gdb_stub_detached(x->f.stub));
}

static void test_leaving(Fixture *x, gconstpointer kind)
{
    ASK("Z0,100,1", "OK");
    ASK("Z1,100,1", "OK");
    ASK("vCont;c", "");
    x->f.running = false;
    packet(x, "D", 1);
    g_assert_cmpstr(heard(x), ==, "OK");
    g_assert_true(gdb_stub_detached(x->f.stub));
    ASK("m10,1", "");
    gdb_stub_free(x->f.stub);
    g_assert_cmphex(x->f.mem[0x100], ==, 0x01);
    g_assert_true(!x->f.debug[0].slots && !x->f.debug[0].int3 && !x->f.debug[1].slots);
    g_string_free(x->f.out, TRUE);
    gdbfix_init(&x->f, true, false);
    ASK("vKill;1", "OK");
    g_assert_true(x->f.kills == 1 && gdb_stub_detached(x->f.stub));
    gdbfix_clear(&x->f);
    gdbfix_init(&x->f, true, false);
    ASK("k", "");
    g_assert_true(x->f.kills == 1 && gdb_stub_detached(x->f.stub));
}

#define GDB_TEST(name, test, kind)                                                                 \
    g_test_add("/gdbstub/" name, Fixture, GUINT_TO_POINTER(kind), set_up, test, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    GDB_TEST("framing", test_framing, 1);
    GDB_TEST("threads", test_threads, 1);
    GDB_TEST("memory", test_memory, 1);
    GDB_TEST("registers/64", test_registers, 1);
    GDB_TEST("registers/32", test_registers, 0);
    GDB_TEST("int3", test_int3, 1);
    GDB_TEST("slots", test_slots, 1);
    GDB_TEST("slots/no int3", test_slots, 3);
    GDB_TEST("running", test_running, 1);
    GDB_TEST("leaving", test_leaving, 1);
    return g_test_run();
}
