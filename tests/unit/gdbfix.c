/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "gdbfix.h"

#include <string.h>

#include "lodge/num.h"

static bool fix_halt(void *opaque)
{
    GdbFix *f = opaque;
    if (f->stuck)
        return false;
    f->halts += f->running;
    f->running = false;
    return true;
}

static void fix_run(void *opaque, const bool *held)
{
    GdbFix *f = opaque;
    memcpy(f->held, held, sizeof f->held);
    f->running = true;
    f->runs++;
}

static bool fix_debug(void *opaque, unsigned cpu, const VcpuDebug *d)
{
    GdbFix *f = opaque;
    g_assert_cmpuint(cpu, <, GDBFIX_CPUS);
    f->debug[cpu] = *d;
    return !f->no_debug;
}

static bool fix_regs_read(void *opaque, unsigned cpu, VcpuRegs *ret)
{
    GdbFix *f = opaque;
    g_assert_true(cpu < GDBFIX_CPUS && !f->running);
    *ret = f->regs[cpu];
    return true;
}

static bool fix_regs_write(void *opaque, unsigned cpu, const VcpuRegs *r)
{
    GdbFix *f = opaque;
    g_assert_true(cpu < GDBFIX_CPUS && !f->running);
    f->regs[cpu] = *r;
    return true;
}

static bool fix_is_halted(void *opaque, unsigned cpu)
{
    return cpu == 1;
}

static bool fix_translate(void *opaque, unsigned cpu, uint64_t gva, gpa_t *ret_gpa)
{
    g_assert_cmpuint(cpu, <, GDBFIX_CPUS);
    *ret_gpa = gva >= 0x10000 ? gva - 0x10000 : gva;
    return gva < 2 * GDBFIX_MEM && *ret_gpa >> 12 != 3;
}

static bool fix_read(void *opaque, gpa_t from, void *to, size_t len)
{
    GdbFix *f = opaque;
    g_assert_cmpuint(len, <=, 4096);
    if (!range_within(from, len, GDBFIX_MEM))
        return false;
    memcpy(to, f->mem + from, len);
    return true;
}

static bool fix_write(void *opaque, gpa_t to, const void *from, size_t len)
{
    GdbFix *f = opaque;
    g_assert_cmpuint(len, <=, 4096);
    if (!range_within(to, len, GDBFIX_MEM))
        return false;
    memcpy(f->mem + to, from, len);
    return true;
}

static void fix_kill(void *opaque)
{
    ((GdbFix *)opaque)->kills++;
}

static char *fix_monitor(void *opaque, const char *line)
{
    return g_strdup_printf("<%s>", line);
}

static void fix_send(void *opaque, const void *data, size_t len)
{
    g_string_append_len(((GdbFix *)opaque)->out, data, (gssize)len);
}

void gdbfix_init(GdbFix *f, bool long_mode, bool no_int3)
{
    GdbTarget t = {
        .cpus = GDBFIX_CPUS, .no_int3 = no_int3, .halt = fix_halt, .run = fix_run,
        .debug = fix_debug, .regs_read = fix_regs_read, .regs_write = fix_regs_write,
        .is_halted = fix_is_halted, .translate = fix_translate, .mem_read = fix_read,
        .mem_write = fix_write, .kill = fix_kill, .monitor = fix_monitor, .send = fix_send,
        .opaque = f,
    };
    memset(f, 0, sizeof *f);
    f->out = g_string_new(NULL);
    f->running = true;
    for (unsigned i = 0; i < GDBFIX_CPUS; i++)
        f->regs[i].sregs.efer = long_mode ? 0x500 : 0;
    f->stub = gdb_stub_new(&t);
}

void gdbfix_clear(GdbFix *f)
{
    f->running = false;
    gdb_stub_free(f->stub);
    g_string_free(f->out, TRUE);
}
