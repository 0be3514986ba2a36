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

/* Where a debugger's stop was: KVM_EXIT_DEBUG. */
typedef struct VcpuDebugStop {
    unsigned cpu;
    unsigned exception; /* 1: #DB, 3: #BP */
    uint64_t pc;        /* linear, of the instruction to come; for #BP that of INT3 itself */
    uint64_t dr6;       /* #DB: SDM 3B, 17.2.3 */
} VcpuDebugStop;

/* Told by vCPU threads; must not block. */
typedef struct CpuSetOps {
    /* All vCPUs stop running: triple fault. */
    void (*triple_fault)(void *opaque, unsigned cpu);
    /* The vCPU has parked for good; its registers may be read by crash_report(). */
    void (*stopped)(void *opaque, unsigned cpu, const VcpuStopInfo *info);
    /* The vCPU is held (cpu_set_hold()) where its debugger wanted it. */
    void (*debug)(void *opaque, const VcpuDebugStop *stop);
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
/* Tell guests that use KVM's clock that they did not run for a while, so that their watchdogs for
 * locked-up CPUs do not take that for one. Parked. */
void cpu_set_tell_stopped(CpuSet *s);
unsigned cpu_set_count(const CpuSet *s);
/* The host's number of @cpu's thread; 0: it has not begun. */
long cpu_set_thread(const CpuSet *s, unsigned cpu);
/* The CPU time of all threads, which includes the guest's. */
uint64_t cpu_set_time_ns(const CpuSet *s);
/* Number of exits so far, for reports. */
uint64_t cpu_set_exits(const CpuSet *s);

/* Keep @cpu parked while the others run, or no more. Parked. */
void cpu_set_hold(CpuSet *s, unsigned cpu, bool held);
/* The descriptor of @cpu, for vcpu_debug.c; -1: no such vCPU. */
int cpu_set_fd(const CpuSet *s, unsigned cpu);
const Kvm *cpu_set_kvm(const CpuSet *s);

/* Board.cpu_regs: EAX, EBX, ECX, EDX, ESI, EDI of the vCPU whose access is being handled. */
bool cpu_set_io_regs(Board *b, uint32_t regs[6], bool write);

/* Registers of a parked vCPU. */
bool vcpu_regs(CpuSet *s, unsigned cpu, struct kvm_regs *ret_regs, struct kvm_sregs *ret_sregs);
/* Guest virtual to physical by the vCPU's page tables; false: not mapped. */
bool vcpu_translate(CpuSet *s, unsigned cpu, uint64_t gva, gpa_t *ret_gpa);

/* ---- vcpu_debug.c: a parked vCPU for its debugger ---- */

typedef struct VcpuRegs {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;
} VcpuRegs;
bool vcpu_regs_read(CpuSet *s, unsigned cpu, VcpuRegs *ret);
/* False: KVM refuses them; some may have been taken. */
bool vcpu_regs_write(CpuSet *s, unsigned cpu, const VcpuRegs *r);
/* Whether it waits for an interrupt, or for its start. */
bool vcpu_is_halted(CpuSet *s, unsigned cpu);

#define VCPU_DEBUG_SLOTS 4u
typedef enum VcpuWatch { /* as DR7's R/W fields have it: SDM 3B, 17.2.4 */
    VCPU_WATCH_EXEC = 0,
    VCPU_WATCH_WRITE = 1,
    VCPU_WATCH_ACCESS = 3,
} VcpuWatch;
typedef struct VcpuDebug {
    bool step;      /* one instruction, with interrupts held back where KVM can */
    bool int3;      /* INT3 stops it */
    unsigned slots; /* a bit for each of the four that is in use */
    struct {
        uint64_t address; /* linear */
        VcpuWatch kind;
        unsigned len;     /* 1, 2, 4, 8; 1 for EXEC */
    } slot[VCPU_DEBUG_SLOTS];
    unsigned inject; /* exception 1 or 3 that it stopped at is the guest's own; 0: none */
} VcpuDebug;
/* All zero: it has no debugger. False: KVM cannot do that. */
bool vcpu_set_debug(CpuSet *s, unsigned cpu, const VcpuDebug *d);

#endif
