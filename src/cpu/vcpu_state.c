/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vCPU's registers: the state after power-on, kept for resets, and the states in which loaders
 * enter a program.
 *
 * Spec: Documentation/virt/kvm/api.rst; Intel SDM 3A, 9.1 (reset), 3.4.5 (descriptors).
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "lodge/error.h"

#include "kvm.h"
#include "vcpu_state.h"

#define MSR_LIST_MAX 1024u
#define CR0_PE 0x1u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_PG 0x80000000u
#define CR4_PAE 0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define RFLAGS_FIXED 0x2u
#define MSR_TSC 0x10u

/* Segment types: SDM 3A, table 3-1, accessed already. */
#define SEG_CODE 11u
#define SEG_DATA 3u
#define SEG_TSS_BUSY 11u

struct VcpuInitial {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;
    struct kvm_debugregs debug;
    struct kvm_xcrs xcrs;
    bool has_debug, has_xcrs;
    struct kvm_lapic_state lapic;
    struct kvm_vcpu_events events;
    struct kvm_msrs *msrs; /* owned; those that can be read and written back */
};

void vcpu_initial_free(VcpuInitial *v)
{
    if (!v)
        return;
    g_free(v->msrs);
    g_free(v);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VcpuInitial, vcpu_initial_free)

/* The list has some that this host then refuses: KVM stops at such a one, and the rest is asked for
 * again without it. */
static struct kvm_msrs *read_msrs(Kvm *k, int fd)
{
    g_autofree struct kvm_msr_list *list =
        g_malloc0(sizeof *list + MSR_LIST_MAX * sizeof(uint32_t));
    list->nmsrs = MSR_LIST_MAX;
    if (ioctl(kvm_sys_fd(k), KVM_GET_MSR_INDEX_LIST, list) < 0)
        list->nmsrs = 0;
    size_t size = sizeof(struct kvm_msrs) + list->nmsrs * sizeof(struct kvm_msr_entry);
    struct kvm_msrs *all = g_malloc0(size);
    g_autofree struct kvm_msrs *rest = g_malloc0(size);
    for (uint32_t next = 0; next < list->nmsrs;) {
        rest->nmsrs = 0;
        for (uint32_t i = next; i < list->nmsrs; i++)
            rest->entries[rest->nmsrs++].index = list->indices[i];
        int n = ioctl(fd, KVM_GET_MSRS, rest);
        for (int i = 0; i < n; i++) {
            /* Guest time goes on over a reset, as on a board whose TSC is never written. */
            if (rest->entries[i].index != MSR_TSC)
                all->entries[all->nmsrs++] = rest->entries[i];
        }
        next += (n > 0 ? (uint32_t)n : 0) + 1;
    }
    return all;
}

VcpuInitial *vcpu_initial_read(Kvm *k, int fd, GError **error)
{
    g_autoptr(VcpuInitial) v = g_new0(VcpuInitial, 1);
    if (ioctl(fd, KVM_GET_REGS, &v->regs) < 0 || ioctl(fd, KVM_GET_SREGS, &v->sregs) < 0 ||
        ioctl(fd, KVM_GET_FPU, &v->fpu) < 0 || ioctl(fd, KVM_GET_LAPIC, &v->lapic) < 0 ||
        ioctl(fd, KVM_GET_VCPU_EVENTS, &v->events) < 0) {
        lodge_fail_errno(error, errno, "cannot read a vCPU's registers");
        return NULL;
    }
    v->has_debug = ioctl(fd, KVM_GET_DEBUGREGS, &v->debug) == 0;
    v->has_xcrs = ioctl(fd, KVM_GET_XCRS, &v->xcrs) == 0;
    v->msrs = read_msrs(k, fd);
    return g_steal_pointer(&v);
}

/* One by one, for the same reason; a refused one keeps its value and is none that matters. */
static void write_msrs(int fd, const struct kvm_msrs *all)
{
    uint32_t done = 0;
    g_autofree struct kvm_msrs *rest =
        g_malloc0(sizeof *rest + all->nmsrs * sizeof(struct kvm_msr_entry));
    while (done < all->nmsrs) {
        rest->nmsrs = all->nmsrs - done;
        memcpy(rest->entries, all->entries + done, rest->nmsrs * sizeof rest->entries[0]);
        int n = ioctl(fd, KVM_SET_MSRS, rest);
        done += (n > 0 ? (uint32_t)n : 0) + 1; /* it stops at the first that it refuses */
    }
}

/* On AMD's processors KVM clears the control block of a vCPU that has shut down, and with it what
 * is added to the host's TSC: the guest would read the host's from then on, and its timers, which
 * KVM counts by the right one, come late by all that the host has been up. Setting it once more
 * mends that, and guest time goes on. */
static void renew_tsc(int fd)
{
    uint64_t offset = 0;
    struct kvm_device_attr attr = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET,
                                   .addr = (uintptr_t)&offset};
    if (ioctl(fd, KVM_GET_DEVICE_ATTR, &attr) == 0 && ioctl(fd, KVM_SET_DEVICE_ATTR, &attr) == 0)
        return;
    g_autofree struct kvm_msrs *tsc = g_malloc0(sizeof *tsc + sizeof(struct kvm_msr_entry));
    tsc->nmsrs = 1;
    tsc->entries[0].index = MSR_TSC;
    if (ioctl(fd, KVM_GET_MSRS, tsc) == 1)
        (void)ioctl(fd, KVM_SET_MSRS, tsc); /* before Linux 5.16; refused, it is as it was */
}

bool vcpu_initial_write(int fd, const VcpuInitial *v, bool bsp, GError **error)
{
    struct kvm_mp_state mp = {.mp_state = bsp ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED};
    struct kvm_regs regs = v->regs;
    struct kvm_sregs sregs = v->sregs;
    struct kvm_fpu fpu = v->fpu;
    struct kvm_lapic_state lapic = v->lapic;
    struct kvm_vcpu_events events = v->events;
    struct kvm_debugregs debug = v->debug;
    struct kvm_xcrs xcrs = v->xcrs;
    memset(sregs.interrupt_bitmap, 0, sizeof sregs.interrupt_bitmap);
    /* Special registers first: they enable the APIC that the rest needs. */
    if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(fd, KVM_SET_REGS, &regs) < 0 ||
        ioctl(fd, KVM_SET_FPU, &fpu) < 0 || (v->has_xcrs && ioctl(fd, KVM_SET_XCRS, &xcrs) < 0) ||
        (v->has_debug && ioctl(fd, KVM_SET_DEBUGREGS, &debug) < 0))
        return lodge_fail_errno(error, errno, "cannot reset a vCPU's registers");
    renew_tsc(fd); /* what MSRs say of timers is counted by it */
    write_msrs(fd, v->msrs);
    if (ioctl(fd, KVM_SET_LAPIC, &lapic) < 0 || ioctl(fd, KVM_SET_VCPU_EVENTS, &events) < 0 ||
        ioctl(fd, KVM_SET_MP_STATE, &mp) < 0)
        return lodge_fail_errno(error, errno, "cannot reset a vCPU's interrupts");
    return true;
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool long_mode)
{
    return (struct kvm_segment){
        .base = 0,
        .limit = 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .db = !long_mode,
        .s = 1,
        .l = long_mode,
        .g = 1,
    };
}

static void enter_protected(struct kvm_sregs *s, const VcpuEntry *e)
{
    bool long_mode = e->mode == VCPU_MODE_LONG64;
    struct kvm_segment data = flat_segment(e->ds, SEG_DATA, false);
    s->cs = flat_segment(e->cs, SEG_CODE, long_mode);
    s->ds = s->es = s->fs = s->gs = s->ss = data;
    s->tr = (struct kvm_segment){.limit = 0x67, .type = SEG_TSS_BUSY, .present = 1};
    s->ldt = (struct kvm_segment){.unusable = 1};
    s->gdt.base = e->gdt_base;
    s->gdt.limit = e->gdt_limit;
    s->idt.base = 0;
    s->idt.limit = 0;
    s->cr0 = CR0_PE | CR0_ET | CR0_NE;
    s->cr4 = 0;
    s->efer = 0;
    if (long_mode) {
        s->cr3 = e->cr3;
        s->cr4 = CR4_PAE;
        s->efer = EFER_LME | EFER_LMA;
        s->cr0 |= CR0_PG;
    }
}

bool vcpu_enter(int fd, const VcpuEntry *e, GError **error)
{
    struct kvm_sregs s;
    if (ioctl(fd, KVM_GET_SREGS, &s) < 0)
        return lodge_fail_errno(error, errno, "cannot read a vCPU's registers");
    if (e->mode == VCPU_MODE_REAL) {
        s.cs.base = 0;
        s.cs.selector = 0;
    } else {
        enter_protected(&s, e);
    }
    struct kvm_regs r = {
        .rip = e->rip,
        .rsp = e->rsp,
        .rax = e->rax,
        .rbx = e->rbx,
        .rcx = e->rcx,
        .rdx = e->rdx,
        .rsi = e->rsi,
        .rdi = e->rdi,
        .rbp = e->rbp,
        .rflags = RFLAGS_FIXED,
    };
    if (ioctl(fd, KVM_SET_SREGS, &s) < 0 || ioctl(fd, KVM_SET_REGS, &r) < 0)
        return lodge_fail_errno(error, errno, "KVM refuses the entry state of vCPU 0");
    return true;
}
