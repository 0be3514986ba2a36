/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a person needs when the CPU stops on something that KVM cannot run: registers, code, KVM's
 * own words, and their meaning on this host.
 *
 * libcapstone is a large library, so it is loaded at the crash and declared here by the calls that
 * are used. Its cs_insn differs from version to version, in the length of `bytes`; a version that
 * is not known here is not used.
 */
#include <string.h>

#include <gmodule.h>

#include "crash.h"

#define CODE_BYTES 32u
#define CODE_LINES 6u
#define CS_ARCH_X86 3
#define CS_MODE_16 (1 << 1)
#define CS_MODE_32 (1 << 2)
#define CS_MODE_64 (1 << 3)
#define EFER_LMA 0x400u
#define CR0_PE 0x1u

#define CS_MNEMONIC 32
#define CS_OPERANDS 160

/* cs_insn, as capstone.h of each major version lays it out: id, address, size, bytes[], mnemonic[],
 * op_str[], detail. */
typedef struct CapstoneLayout {
    int major;
    size_t address, mnemonic, operands, stride;
} CapstoneLayout;

static const CapstoneLayout layouts[] = {
    {4, 8, 34, 34 + CS_MNEMONIC, 240}, /* bytes[16] */
    {5, 8, 42, 42 + CS_MNEMONIC, 248}, /* bytes[24] */
};

typedef struct CapstoneInsn CapstoneInsn;
typedef unsigned (*CsVersion)(int *major, int *minor);
typedef int (*CsOpen)(int arch, int mode, size_t *handle);
typedef size_t (*CsDisasm)(size_t handle, const uint8_t *code, size_t len, uint64_t address,
                           size_t count, CapstoneInsn **insn);
typedef void (*CsFree)(CapstoneInsn *insn, size_t count);
typedef int (*CsClose)(size_t *handle);

static const char *const sonames[] = {"libcapstone.so.4", "libcapstone.so.5", "libcapstone.so"};

/* Append the instructions in @code; false: no library that is known. */
static bool disassemble(GString *out, const uint8_t *code, size_t len, uint64_t rip, int mode)
{
    GModule *lib = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(sonames) && !lib; i++)
        lib = g_module_open(sonames[i], G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
    if (!lib)
        return false;
    CsVersion cs_version;
    CsOpen cs_open;
    CsDisasm cs_disasm;
    CsFree cs_free;
    CsClose cs_close;
    const CapstoneLayout *layout = NULL;
    size_t handle = 0;
    bool done = false;
    if (g_module_symbol(lib, "cs_version", (gpointer *)&cs_version)) {
        int major = 0, minor = 0;
        cs_version(&major, &minor);
        for (unsigned i = 0; i < G_N_ELEMENTS(layouts); i++)
            layout = layouts[i].major == major ? &layouts[i] : layout;
    }
    if (layout && g_module_symbol(lib, "cs_open", (gpointer *)&cs_open) &&
        g_module_symbol(lib, "cs_disasm", (gpointer *)&cs_disasm) &&
        g_module_symbol(lib, "cs_free", (gpointer *)&cs_free) &&
        g_module_symbol(lib, "cs_close", (gpointer *)&cs_close) &&
        cs_open(CS_ARCH_X86, mode, &handle) == 0) {
        CapstoneInsn *insn = NULL;
        size_t n = cs_disasm(handle, code, len, rip, 0, &insn);
        const char *at = (const char *)insn;
        for (size_t i = 0; i < MIN(n, CODE_LINES); i++, at += layout->stride) {
            uint64_t address;
            memcpy(&address, at + layout->address, sizeof address);
            g_string_append_printf(out, "  %s 0x%016" G_GINT64_MODIFIER "x: %.*s %.*s\n",
                                   i ? "  " : "=>", (guint64)address, CS_MNEMONIC,
                                   at + layout->mnemonic, CS_OPERANDS, at + layout->operands);
        }
        done = n > 0;
        if (insn)
            cs_free(insn, n);
        cs_close(&handle);
    }
    g_module_close(lib);
    return done;
}

static void add_registers(GString *out, const struct kvm_regs *r, const struct kvm_sregs *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } regs[] = {
        {"rax", r->rax}, {"rbx", r->rbx}, {"rcx", r->rcx},       {"rdx", r->rdx}, {"rsi", r->rsi},
        {"rdi", r->rdi}, {"rbp", r->rbp}, {"rsp", r->rsp},       {"r8 ", r->r8},  {"r9 ", r->r9},
        {"r10", r->r10}, {"r11", r->r11}, {"r12", r->r12},       {"r13", r->r13}, {"r14", r->r14},
        {"r15", r->r15}, {"rip", r->rip}, {"flg", r->rflags},    {"cr0", s->cr0}, {"cr2", s->cr2},
        {"cr3", s->cr3}, {"cr4", s->cr4}, {"efr", s->efer},      {"apc", s->apic_base},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(regs); i++)
        g_string_append_printf(out, "%s%s %016" G_GINT64_MODIFIER "x%s", i % 4 ? "  " : "  ",
                               regs[i].name, (guint64)regs[i].value, i % 4 == 3 ? "\n" : "");
    g_string_append_printf(out,
                           "  cs %04x base %" G_GINT64_MODIFIER "x  ss %04x  ds %04x  "
                           "gdt %" G_GINT64_MODIFIER "x/%x  idt %" G_GINT64_MODIFIER "x/%x\n",
                           s->cs.selector, (guint64)s->cs.base, s->ss.selector, s->ds.selector,
                           (guint64)s->gdt.base, s->gdt.limit, (guint64)s->idt.base, s->idt.limit);
}

static void add_code(GString *out, CpuSet *set, unsigned cpu, MemMap *mem, const struct kvm_regs *r,
                     const struct kvm_sregs *s)
{
    uint8_t code[CODE_BYTES];
    size_t n = 0;
    uint64_t rip = s->cs.base + r->rip;
    for (gpa_t at; n < CODE_BYTES; n++) { /* byte by byte: the range may end at an unmapped page */
        if (!vcpu_translate(set, cpu, rip + n, &at) || !mem_read(mem, at, &code[n], 1))
            break;
    }
    if (!n) {
        g_string_append(out, "  the code at RIP is not mapped\n");
        return;
    }
    g_string_append(out, "  bytes at rip:");
    for (size_t i = 0; i < n; i++)
        g_string_append_printf(out, " %02x", code[i]);
    g_string_append_c(out, '\n');
    int mode = s->efer & EFER_LMA && s->cs.l ? CS_MODE_64 : s->cs.db ? CS_MODE_32 : CS_MODE_16;
    if (!disassemble(out, code, n, r->rip, mode))
        g_string_append(out, "  (install libcapstone4 or libcapstone5 to see them disassembled)\n");
}

/* Whether the host's CPU has VT-x or AMD-V: without, KVM emulates guest kernel mode. */
static bool host_has_assist(void)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents("/proc/cpuinfo", &text, NULL, NULL))
        return true; /* nothing known: claim nothing */
    const char *flags = strstr(text, "\nflags");
    const char *end = flags ? strchr(flags + 1, '\n') : NULL;
    g_autofree char *line = flags && end ? g_strndup(flags, (gsize)(end - flags)) : g_strdup("");
    return strstr(line, " vmx") || strstr(line, " svm");
}

static void add_meaning(GString *out, const VcpuStopInfo *info)
{
    switch (info->why) {
    case VCPU_STOP_INTERNAL:
        g_string_append_printf(out, "  KVM said: internal error %u (%s)", info->suberror,
                               info->suberror == KVM_INTERNAL_ERROR_EMULATION
                                   ? "it cannot emulate this instruction"
                               : info->suberror == KVM_INTERNAL_ERROR_SIMUL_EX
                                   ? "an exception during an exception"
                               : info->suberror == KVM_INTERNAL_ERROR_DELIVERY_EV
                                   ? "an exit while an event was delivered"
                                   : "of a kind not listed");
        for (uint32_t i = 0; i < info->ndata; i++)
            g_string_append_printf(out, " %" G_GINT64_MODIFIER "x", (guint64)info->data[i]);
        g_string_append_c(out, '\n');
        break;
    case VCPU_STOP_ENTRY:
        g_string_append_printf(out, "  KVM said: the CPU refused the guest's state, reason %"
                               G_GINT64_MODIFIER "x\n", (guint64)info->data[0]);
        break;
    case VCPU_STOP_UNKNOWN:
        g_string_append_printf(out, "  KVM said: exit %u, which this program does not know\n",
                               info->exit_reason);
        break;
    case VCPU_STOP_RUN:
        g_string_append_printf(out, "  KVM said: KVM_RUN failed: %s\n", g_strerror(info->errnum));
        break;
    }
    if (info->why != VCPU_STOP_INTERNAL)
        return;
    if (host_has_assist())
        g_string_append(out, "  what it means: the guest ran into memory or a device where code "
                             "should be, or uses an instruction there that KVM does not emulate\n");
    else
        g_string_append(out, "  what it means: this host has no VT-x or AMD-V, so KVM emulates the "
                             "guest's kernel mode and knows only part of the instructions; run "
                             "this guest on a host with hardware assist (see 'lodge doctor')\n");
}

char *crash_report(CpuSet *s, unsigned cpu, const VcpuStopInfo *info, MemMap *mem)
{
    GString *out = g_string_new(NULL);
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    g_string_append_printf(out, "vCPU %u stopped\n", cpu);
    if (vcpu_regs(s, cpu, &regs, &sregs)) {
        add_registers(out, &regs, &sregs);
        add_code(out, s, cpu, mem, &regs, &sregs);
    }
    add_meaning(out, info);
    return g_string_free(out, FALSE);
}
