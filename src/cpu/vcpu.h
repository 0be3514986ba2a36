/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VCPU_H
#define LODGE_VCPU_H

#include <linux/kvm.h>

#include "lodge/device.h"

typedef struct Kvm Kvm;
typedef struct Vcpu Vcpu;
typedef struct CpuSet CpuSet;

/* Where a loaded program is entered. Segments are flat; interrupts are off. */
typedef enum VcpuMode {
    VCPU_MODE_REAL,   /* CS:IP = the reset vector, or rip in segment 0 */
    VCPU_MODE_PROT32, /* protected mode, no paging */
    VCPU_MODE_LONG64, /* long mode on the page tables at cr3 */
} VcpuMode;

typedef struct VcpuEntry {
    VcpuMode mode;
    uint64_t rip, rsp, rax, rbx, rcx, rdx, rsi, rdi, rbp;
    uint64_t cr3;               /* LONG64 */
    uint64_t gdt_base;          /* a GDT that matches the selectors below; 0: none */
    uint16_t gdt_limit;         /* bytes - 1 */
    uint16_t cs, ds;            /* selectors */
} VcpuEntry;

/* Why a CPU cannot go on. */
typedef enum VcpuStop {
    VCPU_STOP_INTERNAL, /* KVM_EXIT_INTERNAL_ERROR: an instruction or state KVM cannot run */
    VCPU_STOP_ENTRY,    /* KVM_EXIT_FAIL_ENTRY: the hardware refused the state */
    VCPU_STOP_UNKNOWN,  /* an exit this program does not know */
    VCPU_STOP_RUN,      /* KVM_RUN itself failed */
} VcpuStop;

typedef struct VcpuStopInfo {
    VcpuStop why;
    uint32_t exit_reason, suberror;
    uint32_t ndata;
    uint64_t data[16];
    int errnum; /* VCPU_STOP_RUN */
} VcpuStopInfo;

/* Told by vCPU threads; must not block. */
typedef struct CpuSetOps {
    /* All vCPUs stop running: triple fault. */
    void (*triple_fault)(void *opaque, unsigned cpu);
    /* The vCPU has parked for good; its registers may be read by crash_report(). */
    void (*stopped)(void *opaque, unsigned cpu, const VcpuStopInfo *info);
    void *opaque;
} CpuSetOps;

/**
 * cpu_set_new() - Make @count vCPUs with their CPUID, not running
 * @count: 1..kvm_max_vcpus(), checked
 * Return: transfer full, or NULL with LODGE_ERROR_HOST or LODGE_ERROR_LIMIT.
 */
CpuSet *cpu_set_new(Kvm *k, Board *board, unsigned count, bool nested, const CpuSetOps *ops,
                    GError **error);
/* Stops and joins the threads. NULL is fine. */
void cpu_set_free(CpuSet *s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CpuSet, cpu_set_free)

/* Threads exist from here on, parked. */
bool cpu_set_start(CpuSet *s, GError **error);
/* Let them run. Main thread. */
void cpu_set_run(CpuSet *s);
/* Make them stop between instructions, and wait for it: afterwards no vCPU thread is in a device,
 * and registers are sound. Main thread, no lock held. */
void cpu_set_park(CpuSet *s);
/* Make them stop soon, without waiting; cpu_set_park() waits. Any thread, device and irq locks
 * may be held. */
void cpu_set_stop(CpuSet *s);
/* All vCPUs to their state after power-on; vCPU 0 to @entry (NULL: the reset vector), the others
 * wait for SIPI. Parked. */
bool cpu_set_reset(CpuSet *s, const VcpuEntry *entry, GError **error);
unsigned cpu_set_count(const CpuSet *s);
/* Number of exits so far, for reports. */
uint64_t cpu_set_exits(const CpuSet *s);

/* Registers of a parked vCPU. */
/* Board.cpu_regs: EAX, EBX, ECX, EDX, ESI, EDI of the vCPU whose access is being handled. */
bool cpu_set_io_regs(Board *b, uint32_t regs[6], bool write);

bool vcpu_regs(CpuSet *s, unsigned cpu, struct kvm_regs *ret_regs, struct kvm_sregs *ret_sregs);
/* Guest virtual to physical by the vCPU's page tables; false: not mapped. */
bool vcpu_translate(CpuSet *s, unsigned cpu, uint64_t gva, gpa_t *ret_gpa);

#endif
