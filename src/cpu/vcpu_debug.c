/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A parked vCPU for its debugger: all registers, breakpoints, single step.
 *
 * Spec: Documentation/virt/kvm/api.rst, KVM_SET_GUEST_DEBUG; Intel SDM 3B, 17.2 (debug registers).
 * While a slot is in use the guest's own debug registers do nothing. What the host's KVM does not
 * do: one that emulates guest kernel mode stops there at steps and at slots of kind EXEC only, and
 * at nothing in ring 3.
 */
#include <sys/ioctl.h>

#include "kvm.h"
#include "vcpu.h"

/* SDM 3B, 17.2.4 */
#define DR7_FIXED 0x400u
#define DR7_GLOBAL(slot) (2u << 2 * (slot))
#define DR7_KIND_SHIFT(slot) (16 + 4 * (slot))

bool vcpu_regs_read(CpuSet *s, unsigned cpu, VcpuRegs *ret)
{
    int fd = cpu_set_fd(s, cpu);
    return fd >= 0 && ioctl(fd, KVM_GET_REGS, &ret->regs) == 0 &&
           ioctl(fd, KVM_GET_SREGS, &ret->sregs) == 0 && ioctl(fd, KVM_GET_FPU, &ret->fpu) == 0;
}

bool vcpu_regs_write(CpuSet *s, unsigned cpu, const VcpuRegs *r)
{
    int fd = cpu_set_fd(s, cpu);
    struct kvm_sregs sregs;
    if (fd < 0 || ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
        return false;
    /* A write of the special ones drops what is being delivered: only where they change. */
    bool same = sregs.cr0 == r->sregs.cr0 && sregs.cr2 == r->sregs.cr2 &&
                sregs.cr3 == r->sregs.cr3 && sregs.cr4 == r->sregs.cr4 &&
                sregs.cr8 == r->sregs.cr8 && sregs.efer == r->sregs.efer &&
                sregs.fs.base == r->sregs.fs.base && sregs.gs.base == r->sregs.gs.base;
    return (same || ioctl(fd, KVM_SET_SREGS, &r->sregs) == 0) &&
           ioctl(fd, KVM_SET_REGS, &r->regs) == 0 && ioctl(fd, KVM_SET_FPU, &r->fpu) == 0;
}

bool vcpu_is_halted(CpuSet *s, unsigned cpu)
{
    struct kvm_mp_state mp;
    int fd = cpu_set_fd(s, cpu);
    return fd >= 0 && ioctl(fd, KVM_GET_MP_STATE, &mp) == 0 &&
           mp.mp_state != KVM_MP_STATE_RUNNABLE;
}

bool vcpu_set_debug(CpuSet *s, unsigned cpu, const VcpuDebug *d)
{
    static const uint8_t len_bits[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    int fd = cpu_set_fd(s, cpu);
    struct kvm_guest_debug g = {0};
    if (d->step || d->int3 || d->slots || d->inject)
        g.control = KVM_GUESTDBG_ENABLE;
    if (d->step) {
        g.control |= KVM_GUESTDBG_SINGLESTEP;
#ifdef KVM_GUESTDBG_BLOCKIRQ
        if (kvm_cap(cpu_set_kvm(s), KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ)
            g.control |= KVM_GUESTDBG_BLOCKIRQ;
#endif
    }
    if (d->int3)
        g.control |= KVM_GUESTDBG_USE_SW_BP;
    if (d->inject)
        g.control |= d->inject == 3 ? KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB;
    for (unsigned i = 0; i < VCPU_DEBUG_SLOTS; i++) {
        if (!(d->slots >> i & 1))
            continue;
        g.control |= KVM_GUESTDBG_USE_HW_BP;
        g.arch.debugreg[i] = d->slot[i].address;
        g.arch.debugreg[7] |= DR7_FIXED | DR7_GLOBAL(i) |
                              (uint64_t)(d->slot[i].kind | len_bits[MIN(d->slot[i].len, 8u)] << 2)
                                  << DR7_KIND_SHIFT(i);
    }
    return fd >= 0 && ioctl(fd, KVM_SET_GUEST_DEBUG, &g) == 0;
}
