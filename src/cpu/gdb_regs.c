/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vCPU's registers as GDB knows them.
 *
 * Spec: GDB's manual, "Standard Target Features", i386 features (names, sizes, order of
 * org.gnu.gdb.i386.core, .sse and .segments); Intel SDM 1, 8.1 (x87), 10.5 (FXSAVE's layout, which
 * KVM_GET_FPU follows). One table for each mode; a register's number is its row. The system
 * registers stand behind all standard ones, in a feature of our own.
 *
 * x87's instruction and operand pointers have no selectors in 64-bit FXSAVE: fiseg and foseg read
 * as 0. A selector cannot be written: its hidden part would not follow.
 */
#include "gdb_regs.h"

#include <string.h>

#include "lodge/num.h"

#define EFER_LMA 0x400u
#define X87_REGS 8u

typedef enum RegKind {
    K_GPR, K_RIP, K_FLAGS, K_SEG, K_ST, K_X87, K_XMM, K_MXCSR, K_BASE, K_CR,
    K_EFER,
} RegKind;

typedef struct Reg {
    const char *name;
    uint8_t bits;
    RegKind kind;
    uint8_t index;
    const char *type;
    const char *feature; /* begins here; NULL: the one before goes on */
} Reg;

#define CORE "org.gnu.gdb.i386.core"
#define SSE "org.gnu.gdb.i386.sse"
#define SEGMENTS "org.gnu.gdb.i386.segments"
#define SYSTEM "lodge.system"

/* Offsets in kvm_regs, in GDB's order. */
#define R(name) (uint8_t)offsetof(struct kvm_regs, name)

#define X87_ROWS                                                                                   \
    {"st0", 80, K_ST, 0, "i387_ext", NULL}, {"st1", 80, K_ST, 1, "i387_ext", NULL},                \
    {"st2", 80, K_ST, 2, "i387_ext", NULL}, {"st3", 80, K_ST, 3, "i387_ext", NULL},                \
    {"st4", 80, K_ST, 4, "i387_ext", NULL}, {"st5", 80, K_ST, 5, "i387_ext", NULL},                \
    {"st6", 80, K_ST, 6, "i387_ext", NULL}, {"st7", 80, K_ST, 7, "i387_ext", NULL},                \
    {"fctrl", 32, K_X87, 0, "int", NULL}, {"fstat", 32, K_X87, 1, "int", NULL},                    \
    {"ftag", 32, K_X87, 2, "int", NULL}, {"fiseg", 32, K_X87, 3, "int", NULL},                     \
    {"fioff", 32, K_X87, 4, "int", NULL}, {"foseg", 32, K_X87, 5, "int", NULL},                    \
    {"fooff", 32, K_X87, 6, "int", NULL}, {"fop", 32, K_X87, 7, "int", NULL}
#define SEG_ROWS                                                                                   \
    {"cs", 32, K_SEG, 0, "int32", NULL}, {"ss", 32, K_SEG, 1, "int32", NULL},                      \
    {"ds", 32, K_SEG, 2, "int32", NULL}, {"es", 32, K_SEG, 3, "int32", NULL},                      \
    {"fs", 32, K_SEG, 4, "int32", NULL}, {"gs", 32, K_SEG, 5, "int32", NULL}
#define XMM(n) {"xmm" #n, 128, K_XMM, n, "vec128", NULL}
#define SYSTEM_ROWS(bits)                                                                          \
    {"cr0", bits, K_CR, 0, "int" #bits, SYSTEM}, {"cr2", bits, K_CR, 2, "int" #bits, NULL},        \
    {"cr3", bits, K_CR, 3, "int" #bits, NULL}, {"cr4", bits, K_CR, 4, "int" #bits, NULL},          \
    {"cr8", bits, K_CR, 8, "int" #bits, NULL}, {"efer", bits, K_EFER, 0, "int" #bits, NULL}

static const Reg regs64[] = {
    {"rax", 64, K_GPR, R(rax), "int64", CORE}, {"rbx", 64, K_GPR, R(rbx), "int64", NULL},
    {"rcx", 64, K_GPR, R(rcx), "int64", NULL}, {"rdx", 64, K_GPR, R(rdx), "int64", NULL},
    {"rsi", 64, K_GPR, R(rsi), "int64", NULL}, {"rdi", 64, K_GPR, R(rdi), "int64", NULL},
    {"rbp", 64, K_GPR, R(rbp), "data_ptr", NULL}, {"rsp", 64, K_GPR, R(rsp), "data_ptr", NULL},
    {"r8", 64, K_GPR, R(r8), "int64", NULL}, {"r9", 64, K_GPR, R(r9), "int64", NULL},
    {"r10", 64, K_GPR, R(r10), "int64", NULL}, {"r11", 64, K_GPR, R(r11), "int64", NULL},
    {"r12", 64, K_GPR, R(r12), "int64", NULL}, {"r13", 64, K_GPR, R(r13), "int64", NULL},
    {"r14", 64, K_GPR, R(r14), "int64", NULL}, {"r15", 64, K_GPR, R(r15), "int64", NULL},
    {"rip", 64, K_RIP, 0, "code_ptr", NULL}, {"eflags", 32, K_FLAGS, 0, "i386_eflags", NULL},
    SEG_ROWS, X87_ROWS,
    {"xmm0", 128, K_XMM, 0, "vec128", SSE}, XMM(1), XMM(2), XMM(3), XMM(4), XMM(5), XMM(6), XMM(7),
    XMM(8), XMM(9), XMM(10), XMM(11), XMM(12), XMM(13), XMM(14), XMM(15),
    {"mxcsr", 32, K_MXCSR, 0, "int", NULL},
    {"fs_base", 64, K_BASE, 4, "int64", SEGMENTS}, {"gs_base", 64, K_BASE, 5, "int64", NULL},
    SYSTEM_ROWS(64),
};

static const Reg regs32[] = {
    {"eax", 32, K_GPR, R(rax), "int32", CORE}, {"ecx", 32, K_GPR, R(rcx), "int32", NULL},
    {"edx", 32, K_GPR, R(rdx), "int32", NULL}, {"ebx", 32, K_GPR, R(rbx), "int32", NULL},
    {"esp", 32, K_GPR, R(rsp), "data_ptr", NULL}, {"ebp", 32, K_GPR, R(rbp), "data_ptr", NULL},
    {"esi", 32, K_GPR, R(rsi), "int32", NULL}, {"edi", 32, K_GPR, R(rdi), "int32", NULL},
    {"eip", 32, K_RIP, 0, "code_ptr", NULL}, {"eflags", 32, K_FLAGS, 0, "i386_eflags", NULL},
    SEG_ROWS, X87_ROWS,
    {"xmm0", 128, K_XMM, 0, "vec128", SSE}, XMM(1), XMM(2), XMM(3), XMM(4), XMM(5), XMM(6), XMM(7),
    {"mxcsr", 32, K_MXCSR, 0, "int", NULL},
    SYSTEM_ROWS(32),
};

static const Reg *reg_at(bool long_mode, unsigned n)
{
    return n < gdb_reg_count(long_mode) ? (long_mode ? regs64 : regs32) + n : NULL;
}

unsigned gdb_reg_count(bool long_mode)
{
    return long_mode ? G_N_ELEMENTS(regs64) : G_N_ELEMENTS(regs32);
}

unsigned gdb_reg_size(bool long_mode, unsigned n)
{
    const Reg *g = reg_at(long_mode, n);
    return g ? g->bits / 8u : 0;
}

bool gdb_regs_long_mode(const VcpuRegs *r)
{
    return r->sregs.efer & EFER_LMA;
}

static struct kvm_segment *segment(VcpuRegs *r, unsigned i)
{
    struct kvm_segment *const at[] = {&r->sregs.cs, &r->sregs.ss, &r->sregs.ds,
                                      &r->sregs.es, &r->sregs.fs, &r->sregs.gs};
    return at[i];
}

static __u64 *control(VcpuRegs *r, unsigned i)
{
    return i == 0   ? &r->sregs.cr0
           : i == 2 ? &r->sregs.cr2
           : i == 3 ? &r->sregs.cr3
           : i == 4 ? &r->sregs.cr4
                    : &r->sregs.cr8;
}

/* SDM 1, 8.1.7: two bits a register, of which FXSAVE keeps whether it is empty. */
static uint16_t full_tags(const struct kvm_fpu *f)
{
    unsigned top = f->fsw >> 11 & 7;
    uint16_t tags = 0;
    for (unsigned i = 0; i < X87_REGS; i++) { /* fpr[] counts from the top, tags do not */
        unsigned at = (top + i) % X87_REGS, tag = 3;
        if (f->ftwx >> at & 1) {
            uint64_t mantissa = load_le64(f->fpr[i]);
            unsigned exponent = load_le16(f->fpr[i] + 8) & 0x7fff;
            bool normal = exponent && exponent != 0x7fff && mantissa >> 63;
            tag = !exponent && !mantissa ? 1 : normal ? 0 : 2;
        }
        tags |= (uint16_t)(tag << 2 * at);
    }
    return tags;
}

static uint32_t x87_get(const struct kvm_fpu *f, unsigned i)
{
    switch (i) {
    case 0:
        return f->fcw;
    case 1:
        return f->fsw;
    case 2:
        return full_tags(f);
    case 4:
        return (uint32_t)f->last_ip;
    case 6:
        return (uint32_t)f->last_dp;
    case 7:
        return f->last_opcode;
    default:
        return 0;
    }
}

static void x87_set(struct kvm_fpu *f, unsigned i, uint32_t v)
{
    switch (i) {
    case 0:
        f->fcw = (uint16_t)v;
        break;
    case 1:
        f->fsw = (uint16_t)v;
        break;
    case 2:
        f->ftwx = 0;
        for (unsigned k = 0; k < X87_REGS; k++)
            f->ftwx |= (uint8_t)(((v >> 2 * k & 3) != 3) << k);
        break;
    case 4:
        f->last_ip = v;
        break;
    case 6:
        f->last_dp = v;
        break;
    case 7:
        f->last_opcode = (uint16_t)v;
        break;
    default:
        break;
    }
}

void gdb_reg_get(const VcpuRegs *r, bool long_mode, unsigned n, uint8_t *to)
{
    const Reg *g = reg_at(long_mode, n);
    uint8_t wide[GDB_REG_BYTES] = {0};
    VcpuRegs *all = (VcpuRegs *)r; /* only read through it */
    if (!g)
        return;
    switch (g->kind) {
    case K_GPR:
        memcpy(wide, (const uint8_t *)&r->regs + g->index, 8);
        break;
    case K_RIP:
        store_le64(wide, r->regs.rip);
        break;
    case K_FLAGS:
        store_le64(wide, r->regs.rflags);
        break;
    case K_SEG:
        store_le16(wide, segment(all, g->index)->selector);
        break;
    case K_ST:
        memcpy(wide, r->fpu.fpr[g->index], 10);
        break;
    case K_X87:
        store_le32(wide, x87_get(&r->fpu, g->index));
        break;
    case K_XMM:
        memcpy(wide, r->fpu.xmm[g->index], 16);
        break;
    case K_MXCSR:
        store_le32(wide, r->fpu.mxcsr);
        break;
    case K_BASE:
        store_le64(wide, segment(all, g->index)->base);
        break;
    case K_CR:
        store_le64(wide, *control(all, g->index));
        break;
    case K_EFER:
        store_le64(wide, r->sregs.efer);
        break;
    }
    memcpy(to, wide, g->bits / 8u);
}

void gdb_reg_set(VcpuRegs *r, bool long_mode, unsigned n, const uint8_t *from)
{
    const Reg *g = reg_at(long_mode, n);
    uint8_t wide[GDB_REG_BYTES] = {0};
    if (!g)
        return;
    memcpy(wide, from, g->bits / 8u);
    switch (g->kind) {
    case K_GPR:
        memcpy((uint8_t *)&r->regs + g->index, wide, 8);
        break;
    case K_RIP:
        r->regs.rip = load_le64(wide);
        break;
    case K_FLAGS:
        r->regs.rflags = load_le64(wide);
        break;
    case K_SEG:
        break;
    case K_ST:
        memcpy(r->fpu.fpr[g->index], wide, 10);
        break;
    case K_X87:
        x87_set(&r->fpu, g->index, load_le32(wide));
        break;
    case K_XMM:
        memcpy(r->fpu.xmm[g->index], wide, 16);
        break;
    case K_MXCSR:
        r->fpu.mxcsr = load_le32(wide);
        break;
    case K_BASE:
        segment(r, g->index)->base = load_le64(wide);
        break;
    case K_CR:
        *control(r, g->index) = load_le64(wide);
        break;
    case K_EFER:
        r->sregs.efer = load_le64(wide);
        break;
    }
}

static void begin_feature(GString *x, const char *name)
{
    g_string_append_printf(x, "<feature name=\"%s\">", name);
    if (!strcmp(name, CORE)) {
        static const struct {
            const char *name;
            unsigned bit;
        } flags[] = {{"CF", 0}, {"", 1}, {"PF", 2}, {"AF", 4}, {"ZF", 6}, {"SF", 7}, {"TF", 8},
                     {"IF", 9}, {"DF", 10}, {"OF", 11}, {"NT", 14}, {"RF", 16}, {"VM", 17},
                     {"AC", 18}, {"VIF", 19}, {"VIP", 20}, {"ID", 21}};
        g_string_append(x, "<flags id=\"i386_eflags\" size=\"4\">");
        for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++)
            g_string_append_printf(x, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", flags[i].name,
                                   flags[i].bit, flags[i].bit);
        g_string_append(x, "</flags>");
    } else if (!strcmp(name, SSE)) {
        g_string_append(x, "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
                           "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
                           "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
                           "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
                           "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
                           "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
                           "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>"
                           "<field name=\"v2_double\" type=\"v2d\"/>"
                           "<field name=\"v16_int8\" type=\"v16i8\"/>"
                           "<field name=\"v8_int16\" type=\"v8i16\"/>"
                           "<field name=\"v4_int32\" type=\"v4i32\"/>"
                           "<field name=\"v2_int64\" type=\"v2i64\"/>"
                           "<field name=\"uint128\" type=\"uint128\"/></union>");
    }
}

char *gdb_regs_xml(bool long_mode)
{
    GString *x = g_string_new("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
                              "<target><architecture>");
    const Reg *g;
    g_string_append_printf(x, "%s</architecture>", long_mode ? "i386:x86-64" : "i386");
    for (unsigned n = 0; (g = reg_at(long_mode, n)); n++) {
        if (g->feature && n)
            g_string_append(x, "</feature>");
        if (g->feature)
            begin_feature(x, g->feature);
        g_string_append_printf(x, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"", g->name, g->bits,
                               g->type);
        if (g->kind == K_X87)
            g_string_append(x, " group=\"float\"");
        g_string_append(x, "/>");
    }
    g_string_append(x, "</feature></target>");
    return g_string_free(x, FALSE);
}
