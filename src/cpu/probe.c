/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A throw-away machine that tells real hardware assist from an emulation of guest kernel mode.
 *
 * A /dev/kvm without VT-x or AMD-V beneath runs ring 3 natively and emulates ring 0 instruction by
 * instruction: bare-metal test programs work, a stock kernel does not get through its start-up.
 * The flags of /proc/cpuinfo do not say which it is, the time of a loop does.
 *
 * Raw ioctls, apart from the machine's own KVM code: this must work, or fail with a reason, on a
 * host where that would not start. Spec: KVM API (Documentation/virt/kvm/api.rst), 4.1 to 4.21;
 * Intel SDM volume 3A, 3.4.5 (segment types) and 4.5 (4-level paging).
 *
 * The guest, in 64-bit mode with one page mapped for both rings (such hosts run ring 3 natively
 * only behind page tables of its own):
 *     loop: dec ecx; jnz loop; out 0x80, al
 * An interval timer signals this thread when a slice is over. The signal is blocked outside of
 * KVM_RUN and open inside it (KVM_SET_SIGNAL_MASK), so one that comes early still ends the run,
 * and no handler is needed. ECX then tells how far the loop came.
 */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/num.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define PROBE_PAGE 0x1000u
#define PROBE_CODE_GPA PROBE_PAGE
#define PROBE_TABLES_GPA (2 * PROBE_PAGE) /* one page for each level, the highest first */
#define PROBE_LEVELS 4
#define PROBE_MEM_BYTES (PROBE_TABLES_GPA + PROBE_LEVELS * PROBE_PAGE)
#define PROBE_COUNT 0xffffffffu /* iterations: more than any CPU does in a slice */
#define PROBE_SLICE_NS 60000000
#define PROBE_TSS_GPA                                                                              \
    0xfffbd000 /* three pages that an Intel host without unrestricted guest needs */
#define PROBE_SIGNAL SIGRTMIN
#define KERNEL_SIGSET_BYTES 8

#define CR0_PE 1u
#define CR0_ET (1u << 4)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)
#define PTE_RIGHTS 0x67u /* present, write, user, accessed, dirty */
#define RFLAGS_ONE (1u << 1)
#define RFLAGS_IOPL3 (3u << 12)
#define SEG_CODE 0xb /* execute, read, accessed */
#define SEG_DATA 0x3 /* read, write, accessed */
#define SEG_TSS 0xb  /* 64-bit, busy */
#define SEL_CODE 0x08
#define SEL_DATA 0x10

static const uint8_t probe_code[] = {
    0xff, 0xc9, /* dec ecx */
    0x75, 0xfc, /* jnz -4 */
    0xe6, 0x80, /* out 0x80, al */
    0xf4,       /* hlt */
};

typedef struct Probe {
    int vm, vcpu;        /* owned; -1: none */
    void *mem;           /* owned mapping; MAP_FAILED: none */
    struct kvm_run *run; /* owned mapping */
    size_t run_len;
    timer_t timer;
    bool has_timer;
} Probe;

static void probe_clear(Probe *p)
{
    if (p->has_timer)
        timer_delete(p->timer);
    if (p->run != MAP_FAILED)
        munmap(p->run, p->run_len);
    if (p->vcpu >= 0)
        close(p->vcpu);
    if (p->vm >= 0)
        close(p->vm);
    if (p->mem != MAP_FAILED)
        munmap(p->mem, PROBE_MEM_BYTES);
}

static bool probe_memory(Probe *p, GError **error)
{
    struct kvm_userspace_memory_region region = {.memory_size = PROBE_MEM_BYTES};

    p->mem =
        mmap(NULL, PROBE_MEM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p->mem == MAP_FAILED)
        return lodge_fail_errno(error, errno, "probe: %u bytes of memory", PROBE_MEM_BYTES);
    memcpy((uint8_t *)p->mem + PROBE_CODE_GPA, probe_code, sizeof probe_code);
    /* Address 0x1000 has index 0 in all tables but the last, where it is 1. */
    for (unsigned i = 0; i < PROBE_LEVELS; i++) {
        bool last = i == PROBE_LEVELS - 1;
        uint8_t *table = (uint8_t *)p->mem + PROBE_TABLES_GPA + i * PROBE_PAGE;
        uint64_t to = last ? PROBE_CODE_GPA : PROBE_TABLES_GPA + (i + 1) * PROBE_PAGE;

        store_le64(table + (last ? sizeof to : 0), to | PTE_RIGHTS);
    }
    region.userspace_addr = (uintptr_t)p->mem;
    if (ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return lodge_fail_errno(error, errno, "probe: KVM_SET_USER_MEMORY_REGION");
    return true;
}

/* PROBE_SIGNAL is open while in KVM_RUN only; see above. */
static bool probe_signal_mask(Probe *p, const sigset_t *thread_mask, GError **error)
{
    union {
        struct kvm_signal_mask kvm;
        uint8_t bytes[sizeof(struct kvm_signal_mask) + KERNEL_SIGSET_BYTES];
    } m = {{0}};
    sigset_t inside = *thread_mask;

    sigdelset(&inside, PROBE_SIGNAL);
    m.kvm.len = KERNEL_SIGSET_BYTES;
    memcpy(m.bytes + sizeof m.kvm, &inside, KERNEL_SIGSET_BYTES);
    if (ioctl(p->vcpu, KVM_SET_SIGNAL_MASK, &m) < 0)
        return lodge_fail_errno(error, errno, "probe: KVM_SET_SIGNAL_MASK");
    return true;
}

static bool probe_open(Probe *p, int kvm_fd, const sigset_t *thread_mask, GError **error)
{
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = PROBE_SIGNAL};
    int len;

    p->vm = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    if (p->vm < 0)
        return lodge_fail_errno(error, errno, "probe: KVM_CREATE_VM");
    /* AMD hosts have no such need and may refuse it. */
    (void)ioctl(p->vm, KVM_SET_TSS_ADDR, (unsigned long)PROBE_TSS_GPA);
    if (!probe_memory(p, error))
        return false;
    p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
    if (p->vcpu < 0)
        return lodge_fail_errno(error, errno, "probe: KVM_CREATE_VCPU");
    len = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (len < (int)sizeof *p->run)
        return lodge_fail_errno(error, len < 0 ? errno : EINVAL, "probe: KVM_GET_VCPU_MMAP_SIZE");
    p->run_len = (size_t)len;
    p->run = mmap(NULL, p->run_len, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
    if (p->run == MAP_FAILED)
        return lodge_fail_errno(error, errno, "probe: mapping of kvm_run");
    ev.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    if (timer_create(CLOCK_MONOTONIC, &ev, &p->timer) < 0)
        return lodge_fail_errno(error, errno, "probe: timer_create");
    p->has_timer = true;
    return probe_signal_mask(p, thread_mask, error);
}

static struct kvm_segment flat_segment(unsigned selector, unsigned type, unsigned ring)
{
    return (struct kvm_segment){
        .limit = 0xffffffff,
        .selector = (uint16_t)(selector | ring),
        .type = (uint8_t)type,
        .present = 1,
        .dpl = (uint8_t)ring,
        .db = 1,
        .s = 1,
        .g = 1,
    };
}

static bool probe_registers(Probe *p, unsigned ring, GError **error)
{
    struct kvm_regs regs = {
        .rip = PROBE_CODE_GPA,
        .rcx = PROBE_COUNT,
        .rflags = RFLAGS_ONE | (ring ? RFLAGS_IOPL3 : 0), /* the OUT is allowed in ring 3 */
    };
    struct kvm_sregs s;

    if (ioctl(p->vcpu, KVM_GET_SREGS, &s) < 0)
        return lodge_fail_errno(error, errno, "probe: KVM_GET_SREGS");
    s.cs = flat_segment(SEL_CODE, SEG_CODE, ring);
    s.ss = flat_segment(SEL_DATA, SEG_DATA, ring);
    s.ds = s.es = s.fs = s.gs = s.ss;
    s.tr = (struct kvm_segment){.limit = 0x67, .type = SEG_TSS, .present = 1};
    s.cs.db = 0;
    s.cs.l = 1;
    s.cr0 = CR0_PE | CR0_ET | CR0_PG;
    s.cr3 = PROBE_TABLES_GPA;
    s.cr4 = CR4_PAE;
    s.efer = EFER_LME | EFER_LMA;
    if (ioctl(p->vcpu, KVM_SET_SREGS, &s) < 0)
        return lodge_fail_errno(error, errno, "probe: KVM_SET_SREGS");
    if (ioctl(p->vcpu, KVM_SET_REGS, &regs) < 0)
        return lodge_fail_errno(error, errno, "probe: KVM_SET_REGS");
    return true;
}

static bool probe_slice(Probe *p, unsigned ring, uint64_t *ret_rate, GError **error)
{
    struct itimerspec slice = {.it_value.tv_nsec = PROBE_SLICE_NS}, off = {{0}};
    struct timespec now = {0};
    struct kvm_regs regs;
    sigset_t set;
    int64_t start, ns;
    int rc, err;

    if (!probe_registers(p, ring, error))
        return false;
    if (timer_settime(p->timer, 0, &slice, NULL) < 0)
        return lodge_fail_errno(error, errno, "probe: timer_settime");
    start = clock_host_ns();
    rc = ioctl(p->vcpu, KVM_RUN, 0);
    err = errno;
    ns = clock_host_ns() - start;
    timer_settime(p->timer, 0, &off, NULL);
    /* Take the signal back, whether it ended the run or came behind it. */
    sigemptyset(&set);
    sigaddset(&set, PROBE_SIGNAL);
    (void)sigtimedwait(&set, NULL, &now);
    if (rc < 0 && err != EINTR)
        return lodge_fail_errno(error, err, "probe: KVM_RUN in ring %u", ring);
    if (!rc && p->run->exit_reason != KVM_EXIT_IO)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "probe: the CPU stopped in ring %u: KVM exit reason %u", ring,
                          p->run->exit_reason);
    if (ioctl(p->vcpu, KVM_GET_REGS, &regs) < 0)
        return lodge_fail_errno(error, errno, "probe: KVM_GET_REGS");
    *ret_rate =
        muldiv64(PROBE_COUNT - (uint32_t)regs.rcx, (uint64_t)NS_PER_SEC, (uint64_t)MAX(ns, 1));
    return true;
}

bool probe_rates(int kvm_fd, ProbeRates *ret_rates, GError **error)
{
    Probe p = {.vm = -1, .vcpu = -1, .mem = MAP_FAILED, .run = MAP_FAILED};
    ProbeRates rates = {0};
    sigset_t block, before;
    bool ok;

    sigemptyset(&block);
    sigaddset(&block, PROBE_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &block, &before);
    ok = probe_open(&p, kvm_fd, &before, error) && probe_slice(&p, 0, &rates.ring0, error) &&
         probe_slice(&p, 3, &rates.ring3, error);
    probe_clear(&p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (ok)
        *ret_rates = rates;
    return ok;
}

bool probe_is_emulated(const ProbeRates *r)
{
    return r->ring3 / PROBE_EMULATED_FACTOR > r->ring0;
}
