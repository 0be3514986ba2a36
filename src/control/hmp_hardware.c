/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines of the human monitor that show hardware, in the form that QEMU 7.2 has: PCI functions,
 * registers of a CPU, memory, jobs on disks.
 *
 * Of the registers those are shown that KVM hands out with the general, special and floating-point
 * sets; the debug registers are not, as a debugger of ours may be using them. A register is as wide
 * as the mode that the CPU is in.
 *
 * Spec: Intel SDM 3A, 3.4.5 (attributes of segments), 2.5 (control registers); SDM 1, 3.4.3
 * (flags), 8.1.
 */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "control_internal.h"
#include "live.h"

#define EFER_LMA 0x400u
#define CR0_PE 1u
#define RFLAGS_VM 0x20000u

/* ---- registers ---- */

typedef struct Named {
    const char *name;
    uint64_t value;
} Named;

/* So many to a line. */
static void print_named(GString *out, const Named *n, unsigned count, int digits, unsigned a_line)
{
    for (unsigned i = 0; i < count; i++)
        g_string_append_printf(out, "%s=%0*" PRIx64 "%s", n[i].name, digits, n[i].value,
                               (i + 1) % a_line == 0 || i + 1 == count ? "\r\n" : " ");
}

static void print_general(GString *out, const struct kvm_regs *r, bool wide)
{
    const Named all[] = {
        {"RAX", r->rax}, {"RBX", r->rbx}, {"RCX", r->rcx}, {"RDX", r->rdx},
        {"RSI", r->rsi}, {"RDI", r->rdi}, {"RBP", r->rbp}, {"RSP", r->rsp},
        {"R8 ", r->r8},  {"R9 ", r->r9},  {"R10", r->r10}, {"R11", r->r11},
        {"R12", r->r12}, {"R13", r->r13}, {"R14", r->r14}, {"R15", r->r15},
    };
    const Named narrow[] = {
        {"EAX", (uint32_t)r->rax}, {"EBX", (uint32_t)r->rbx}, {"ECX", (uint32_t)r->rcx},
        {"EDX", (uint32_t)r->rdx}, {"ESI", (uint32_t)r->rsi}, {"EDI", (uint32_t)r->rdi},
        {"EBP", (uint32_t)r->rbp}, {"ESP", (uint32_t)r->rsp},
    };
    if (wide)
        print_named(out, all, G_N_ELEMENTS(all), 16, 4);
    else
        print_named(out, narrow, G_N_ELEMENTS(narrow), 8, 4);
}

static void print_flags(GString *out, const struct kvm_regs *r, const struct kvm_sregs *s,
                        bool wide, bool halted)
{
    static const struct {
        unsigned bit;
        char letter;
    } flags[] = {{10, 'D'}, {11, 'O'}, {7, 'S'}, {6, 'Z'}, {4, 'A'}, {2, 'P'}, {0, 'C'}};
    char text[G_N_ELEMENTS(flags) + 1] = "";
    unsigned cpl = !(s->cr0 & CR0_PE) ? 0 : r->rflags & RFLAGS_VM ? 3 : s->ss.dpl;

    for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++)
        text[i] = r->rflags >> flags[i].bit & 1 ? flags[i].letter : '-';
    g_string_append_printf(out, "%s=%0*" PRIx64 " %s=%08" PRIx64
                                " [%s] CPL=%u II=0 A20=1 SMM=0 HLT=%d\r\n",
                           wide ? "RIP" : "EIP", wide ? 16 : 8, (uint64_t)r->rip,
                           wide ? "RFL" : "EFL", (uint64_t)r->rflags, text, cpl, halted);
}

/* The second word of a descriptor, as far as it is not the base. */
static uint32_t segment_flags(const struct kvm_segment *s)
{
    return (uint32_t)s->type << 8 | (uint32_t)s->s << 12 | (uint32_t)s->dpl << 13 |
           (uint32_t)s->present << 15 | (uint32_t)s->avl << 20 | (uint32_t)s->l << 21 |
           (uint32_t)s->db << 22 | (uint32_t)s->g << 23;
}

static void print_tables(GString *out, const struct kvm_sregs *s, bool wide)
{
    const struct {
        const char *name;
        const struct kvm_segment *at;
    } segments[] = {{"ES ", &s->es}, {"CS ", &s->cs}, {"SS ", &s->ss},  {"DS ", &s->ds},
                    {"FS ", &s->fs}, {"GS ", &s->gs}, {"LDT", &s->ldt}, {"TR ", &s->tr}};
    int digits = wide ? 16 : 8;

    for (unsigned i = 0; i < G_N_ELEMENTS(segments); i++)
        g_string_append_printf(out, "%s=%04x %0*" PRIx64 " %08x %08x\r\n", segments[i].name,
                               segments[i].at->selector, digits, (uint64_t)segments[i].at->base,
                               segments[i].at->limit, segment_flags(segments[i].at));
    g_string_append_printf(out, "GDT=     %0*" PRIx64 " %08x\r\nIDT=     %0*" PRIx64 " %08x\r\n",
                           digits, (uint64_t)s->gdt.base, s->gdt.limit, digits,
                           (uint64_t)s->idt.base, s->idt.limit);
    g_string_append_printf(out,
                           "CR0=%08" PRIx64 " CR2=%0*" PRIx64 " CR3=%0*" PRIx64 " CR4=%08" PRIx64
                           "\r\nEFER=%016" PRIx64 "\r\n",
                           (uint64_t)s->cr0, digits, (uint64_t)s->cr2, digits, (uint64_t)s->cr3,
                           (uint64_t)s->cr4, (uint64_t)s->efer);
}

static void print_float(GString *out, const struct kvm_fpu *f, bool wide)
{
    g_string_append_printf(out, "FCW=%04x FSW=%04x [ST=%u] FTW=%02x MXCSR=%08x\r\n", f->fcw,
                           f->fsw, f->fsw >> 11 & 7u, f->ftwx, f->mxcsr);
    for (unsigned i = 0; i < G_N_ELEMENTS(f->fpr); i++)
        g_string_append_printf(out, "FPR%u=%016" PRIx64 " %04x%s", i, load_le64(f->fpr[i]),
                               load_le16(f->fpr[i] + 8), i % 2 ? "\r\n" : " ");
    for (unsigned i = 0; i < (wide ? 16u : 8u); i++)
        g_string_append_printf(out, "XMM%02u=%016" PRIx64 " %016" PRIx64 "%s", i,
                               load_le64(f->xmm[i] + 8), load_le64(f->xmm[i]),
                               i % 2 ? "\r\n" : " ");
}

bool hmp_print_registers(Control *c, unsigned cpu, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);
    VcpuRegs r;
    bool halted;

    if (!m)
        return false;
    if (!machine_cpu_regs(m, cpu, &r, &halted)) {
        g_string_append_printf(out, "CPU#%u not available\r\n", cpu);
        return true;
    }
    bool wide = r.sregs.efer & EFER_LMA;
    g_string_append_printf(out, "\r\nCPU#%u\r\n", cpu);
    print_general(out, &r.regs, wide);
    print_flags(out, &r.regs, &r.sregs, wide, halted);
    print_tables(out, &r.sregs, wide);
    print_float(out, &r.fpu, wide);
    return true;
}

/* ---- PCI ---- */

static void print_bar(GString *out, const ControlPciBar *bar)
{
    uint64_t end = bar->at + bar->len - 1;

    if (bar->io)
        g_string_append_printf(out, "      BAR%u: I/O at 0x%04" PRIx64 " [0x%04" PRIx64 "].\r\n",
                               bar->number, bar->at, end);
    else
        g_string_append_printf(out, "      BAR%u: %u bit%s memory at 0x%08" PRIx64
                                    " [0x%08" PRIx64 "].\r\n",
                               bar->number, bar->wide ? 64 : 32,
                               bar->prefetch ? " prefetchable" : "", bar->at, end);
}

static void print_function(void *opaque, const ControlPci *p)
{
    GString *out = opaque;

    g_string_append_printf(out, "  Bus  0, device %3u, function %u:\r\n    ", p->slot, p->function);
    if (p->class_text)
        g_string_append(out, p->class_text);
    else
        g_string_append_printf(out, "Class %04u", p->class);
    g_string_append_printf(out, ": PCI device %04x:%04x\r\n      PCI subsystem %04x:%04x\r\n",
                           p->vendor, p->device, p->sub_vendor, p->sub_device);
    if (p->irq_pin)
        g_string_append_printf(out, "      IRQ %u, pin %c\r\n", p->irq,
                               (char)('A' + p->irq_pin - 1));
    for (unsigned i = 0; i < p->bars; i++)
        print_bar(out, &p->bar[i]);
    g_string_append_printf(out, "      id \"%s\"\r\n", p->id);
}

bool hmp_info_pci(Control *c, char **args, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);
    PciBus *bus = m ? machine_board(m)->pci : NULL;

    if (bus)
        control_each_pci(bus, print_function, out);
    else if (m)
        g_string_append(out, "PCI not supported\r\n");
    return m != NULL;
}

/* ---- memory and jobs ---- */

bool hmp_info_memory(Control *c, char **args, GString *out, GError **error)
{
    Machine *m = control_machine(c, error);

    if (!m)
        return false;
    const Board *b = machine_board(m);
    g_string_append_printf(out, "base memory: %" PRIu64 "\r\nplugged memory: 0\r\n",
                           b->ram_below_4g + b->ram_above_4g);
    return true;
}

static void print_job(void *out, const BlkJobInfo *info)
{
    g_string_append_printf(out,
                           "Type commit, device %s: Completed %" PRIu64 " of %" PRIu64
                           " bytes, speed limit %" PRIu64 " bytes/s\r\n",
                           info->id, info->offset, info->len, info->speed);
}

bool hmp_info_block_jobs(Control *c, char **args, GString *out, GError **error)
{
    if (!control_each_job(c, print_job, out, error))
        return false;
    if (!out->len)
        g_string_append(out, "No active jobs\r\n");
    return true;
}
