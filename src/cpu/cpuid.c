/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the guest's CPUID says. The host's supported leaves are the start; the table below states
 * each deviation and why; leaves that describe topology are computed.
 *
 * One socket, one thread a core: what a scheduler assumes of cores that share nothing is the
 * safest lie about vCPUs that float over the host.
 *
 * Spec: Intel SDM 2A "CPUID"; AMD APM 3, appendix E; Documentation/virt/kvm/x86/cpuid.rst.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lodge/error.h"

#include "cpuid.h"
#include "kvm.h"

#define CPUID_ENTRIES 256u

enum { EAX, EBX, ECX, EDX };

typedef struct BitPolicy {
    uint32_t leaf, subleaf;
    uint8_t reg, bit;
    enum { CLEAR, SET, SET_IF_CAP, CLEAR_UNLESS_NESTED } what;
    int cap;         /* SET_IF_CAP */
    const char *why; /* read by people; kept beside the bit so that neither is lost */
} BitPolicy;

static const BitPolicy policy[] = {
    {0x1, 0, ECX, 31, SET, 0, "a hypervisor is present"},
    {0x1, 0, ECX, 21, SET, 0, "x2APIC: EOIs and IPIs by MSR, without an instruction decode"},
    {0x1, 0, ECX, 24, SET_IF_CAP, KVM_CAP_TSC_DEADLINE_TIMER,
     "TSC-deadline: no calibration of the APIC timer, and one exit less to arm it"},
    {0x1, 0, ECX, 3, CLEAR, 0, "MONITOR: the kernel does not offer it to guests"},
    {0x1, 0, ECX, 5, CLEAR_UNLESS_NESTED, 0, "VMX"},
    {0x80000001, 0, ECX, 2, CLEAR_UNLESS_NESTED, 0, "SVM"},
    {0x6, 0, EAX, 2, SET, 0, "ARAT: the APIC timer never stops, no broadcast timer is needed"},
    {0x7, 0, EDX, 18, CLEAR, 0, "PCONFIG: not virtualized"},
};

static uint32_t *entry_reg(struct kvm_cpuid_entry2 *e, unsigned reg)
{
    uint32_t *regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};
    return regs[reg];
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < c->nent; i++) {
        struct kvm_cpuid_entry2 *e = &c->entries[i];
        if (e->function == leaf &&
            (e->index == subleaf || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
            return e;
    }
    return NULL;
}

static void drop(struct kvm_cpuid2 *c, uint32_t leaf)
{
    unsigned n = 0;
    for (unsigned i = 0; i < c->nent; i++) {
        if (c->entries[i].function != leaf)
            c->entries[n++] = c->entries[i];
    }
    c->nent = n;
}

static struct kvm_cpuid_entry2 *add(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t subleaf,
                                    bool indexed)
{
    static struct kvm_cpuid_entry2 none;
    if (c->nent == CPUID_ENTRIES)
        return &none;
    struct kvm_cpuid_entry2 *e = &c->entries[c->nent++];
    *e = (struct kvm_cpuid_entry2){.function = leaf,
                                   .index = subleaf,
                                   .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0};
    return e;
}

static void apply_bits(const Kvm *k, struct kvm_cpuid2 *c, const CpuidPolicy *p)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(policy); i++) {
        const BitPolicy *b = &policy[i];
        struct kvm_cpuid_entry2 *e = find(c, b->leaf, b->subleaf);
        if (!e)
            continue;
        uint32_t bit = UINT32_C(1) << b->bit, *reg = entry_reg(e, b->reg);
        if (b->what == SET || (b->what == SET_IF_CAP && kvm_cap(k, b->cap)))
            *reg |= bit;
        else if (b->what == CLEAR || (b->what == CLEAR_UNLESS_NESTED && !p->nested))
            *reg &= ~bit;
    }
}

/* Bits of an APIC ID that number @n things. */
static unsigned id_bits(unsigned n)
{
    unsigned bits = 0;
    while ((1u << bits) < n)
        bits++;
    return bits;
}

/* Leaf 0xB (and 0x1F, dropped): threads, then cores. */
static void topology(struct kvm_cpuid2 *c, const CpuidPolicy *p)
{
    struct kvm_cpuid_entry2 *e = find(c, 1, 0);
    if (e) {
        e->ebx = (e->ebx & 0x0000ffff) | (MIN(p->cpus, 255u) << 16) | (p->index << 24);
        if (p->cpus > 1)
            e->edx |= 1u << 28; /* HTT: the count in EBX is valid */
        else
            e->edx &= ~(1u << 28);
    }
    drop(c, 0x1f);
    bool extended = find(c, 0, 0) && find(c, 0, 0)->eax >= 0xb;
    drop(c, 0xb);
    if (extended) {
        static const uint32_t kind[] = {1, 2}; /* SMT, core */
        for (unsigned i = 0; i < 3; i++) {
            e = add(c, 0xb, i, true);
            e->eax = i == 1 ? id_bits(p->cpus) : 0;
            e->ebx = i == 0 ? 1 : i == 1 ? p->cpus : 0;
            e->ecx = i | (i < 2 ? kind[i] << 8 : 0);
            e->edx = p->index;
        }
    }
    for (unsigned i = 0; i < c->nent; i++) {
        e = &c->entries[i];
        if (e->function == 4 || e->function == 0x8000001d) {
            /* Each core has its caches; the last level is the package's. */
            unsigned level = (e->eax >> 5) & 7, sharing = level >= 3 ? p->cpus : 1;
            e->eax = (e->eax & 0x3fff) | ((MAX(1u << id_bits(sharing), 1u) - 1) << 14);
            if (e->function == 4)
                e->eax |= ((1u << id_bits(p->cpus)) - 1) << 26;
        } else if (e->function == 0x80000008) {
            e->ecx = (e->ecx & ~0xffffu) | (id_bits(p->cpus) << 12) | MIN(p->cpus - 1, 255u);
        } else if (e->function == 0x8000001e) {
            e->eax = p->index;
            e->ebx = p->index & 0xff; /* one thread a core */
            e->ecx = 0;
        } else if (e->function == 0x80000001) {
            e->ecx &= ~(1u << 22); /* TOPOEXT: 0xB says it all */
        }
    }
}

static void host_cpuid(uint32_t leaf, struct kvm_cpuid_entry2 *e)
{
    __asm__ volatile("cpuid"
                     : "=a"(e->eax), "=b"(e->ebx), "=c"(e->ecx), "=d"(e->edx)
                     : "0"(leaf), "2"(0));
}

/* The name of the processor, which KVM leaves empty: the host's. */
static void brand(struct kvm_cpuid2 *c)
{
    for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++) {
        struct kvm_cpuid_entry2 *e = find(c, leaf, 0);
        if (!e)
            e = add(c, leaf, 0, false);
        if (!(e->eax | e->ebx | e->ecx | e->edx))
            host_cpuid(leaf, e); /* every x86-64 has it */
    }
}

struct kvm_cpuid2 *cpuid_build(const Kvm *k, const CpuidPolicy *p, GError **error)
{
    g_autofree struct kvm_cpuid2 *c =
        g_malloc0(sizeof *c + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2));
    c->nent = CPUID_ENTRIES;
    if (ioctl(kvm_sys_fd(k), KVM_GET_SUPPORTED_CPUID, c) < 0) {
        lodge_fail_errno(error, errno, "/dev/kvm: cannot read the supported CPUID");
        return NULL;
    }
    apply_bits(k, c, p);
    topology(c, p);
    brand(c);
    drop(c, 0xa); /* performance counters: not virtualized */
    return g_steal_pointer(&c);
}
