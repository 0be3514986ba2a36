/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vCPU threads: KVM_RUN, the exits that belong to buses and interrupts, parking.
 *
 * Parking: `wanted` says what the threads shall do. A thread looks at it before each KVM_RUN; a
 * change is followed by a kick: immediate_exit makes the next KVM_RUN return at once, the signal
 * ends one that is under way. A vCPU that left through a port or MMIO exit has an unfinished
 * instruction: before it parks it re-enters with immediate_exit set until KVM has completed it. One
 * instruction can take several accesses (a read and a write, a page crossed), each an exit.
 *
 * ExtINT: the PIC's INTR belongs to vCPU 0. Its thread fetches the vector only when the vCPU can
 * take it (ready_for_interrupt_injection), else asks for an exit when it can. A raise from another
 * thread kicks it, for it may sleep in HLT inside the kernel.
 *
 * Invariants:
 * (1) `in_run` is set before the last look at `wanted` and INTR, and a kicker writes those before
 *     it looks at `in_run`: one of the two sees the other.
 * (2) The parking lock is never held across KVM_RUN or a handler.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "cpuid.h"
#include "kvm.h"
#include "vcpu.h"
#include "vcpu_state.h"

#define VCPU_KICK_SIGNAL SIGUSR1
#define VCPU_STACK (128 * KIB)
/* Exits of one instruction: KVM emulates at most 1024 rounds of a repeated one at a time, of a read
 * and a write in at most two pieces each. */
#define INSTRUCTION_EXITS 4096u

typedef enum Wanted { WANT_PARK, WANT_RUN, WANT_EXIT } Wanted;

struct Vcpu {
    CpuSet *set; /* borrowed */
    unsigned index;
    int fd;
    struct kvm_run *run; /* mapped, owned */
    BusReader *pio, *mmio;
    VcpuInitial *initial; /* owned: state after power-on */
    pthread_t thread;
    bool started;
    /* Atomic: */
    bool in_run;
    int tid; /* of the thread; 0: has not begun */
    uint64_t exits;
    /* Guarded by the parking lock: */
    bool parked, dead, held;
};

struct CpuSet {
    Kvm *kvm;     /* borrowed */
    Board *board; /* borrowed */
    CpuSetOps ops;
    unsigned count;
    Vcpu *cpus; /* owned array */
    LodgeLock lock; /* rank QUEUE: parking */
    pthread_cond_t changed;
    Wanted wanted; /* atomic; written under lock */
};

/* The vCPU whose thread this is: a port handler may ask for its registers. */
static _Thread_local Vcpu *current_vcpu;

static void on_kick(int sig)
{
    /* Only ends KVM_RUN. */
}

static void vcpu_kick(Vcpu *c)
{
    __atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (c->started && __atomic_load_n(&c->in_run, __ATOMIC_SEQ_CST)) /* keeps (1) */
        pthread_kill(c->thread, VCPU_KICK_SIGNAL);
}

static void extint_kick(void *opaque)
{
    CpuSet *s = opaque;
    Vcpu *c = &s->cpus[0];
    if (__atomic_load_n(&c->in_run, __ATOMIC_SEQ_CST))
        vcpu_kick(c);
}

/* ---- exits ---- */

static void handle_io(Vcpu *c)
{
    struct kvm_run *r = c->run;
    uint8_t *data = (uint8_t *)r + r->io.data_offset;
    unsigned size = r->io.size;
    uint64_t v = 0;
    if (r->io.count != 1) {
        if (r->io.direction == KVM_EXIT_IO_OUT)
            bus_write_string(c->pio, r->io.port, size, data, r->io.count);
        else
            bus_read_string(c->pio, r->io.port, size, data, r->io.count);
    } else if (r->io.direction == KVM_EXIT_IO_OUT) {
        memcpy(&v, data, size);
        bus_write(c->pio, r->io.port, size, v);
    } else {
        v = bus_read(c->pio, r->io.port, size);
        memcpy(data, &v, size);
    }
}

static void handle_mmio(Vcpu *c)
{
    struct kvm_run *r = c->run;
    uint64_t at = r->mmio.phys_addr, v;
    unsigned left = MIN(r->mmio.len, 8u);
    uint8_t *data = r->mmio.data;
    while (left) { /* KVM splits at pages and 8 bytes; odd lengths come from rep and SSE moves */
        unsigned n = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        v = 0;
        if (r->mmio.is_write) {
            memcpy(&v, data, n);
            bus_write(c->mmio, at, n, v);
        } else {
            v = bus_read(c->mmio, at, n);
            memcpy(data, &v, n);
        }
        at += n;
        data += n;
        left -= n;
    }
}

static void stop_vcpu(Vcpu *c, VcpuStop why, int errnum)
{
    CpuSet *s = c->set;
    struct kvm_run *r = c->run;
    VcpuStopInfo info = {.why = why, .exit_reason = r->exit_reason, .errnum = errnum};
    if (why == VCPU_STOP_INTERNAL) {
        info.suberror = r->internal.suberror;
        info.ndata = MIN(r->internal.ndata, (uint32_t)G_N_ELEMENTS(info.data));
        memcpy(info.data, r->internal.data, info.ndata * sizeof info.data[0]);
    } else if (why == VCPU_STOP_ENTRY) {
        info.ndata = 1;
        info.data[0] = r->fail_entry.hardware_entry_failure_reason;
    }
    lodge_lock(&s->lock);
    c->dead = true;
    lodge_unlock(&s->lock);
    s->ops.stopped(s->ops.opaque, c->index, &info);
}

static void debug_stop(Vcpu *c)
{
    CpuSet *s = c->set;
    const struct kvm_debug_exit_arch *d = &c->run->debug.arch;
    VcpuDebugStop stop = {c->index, d->exception, d->pc, d->dr6};
    lodge_lock(&s->lock);
    c->held = true; /* whatever else lets the others run before the debugger has seen it */
    lodge_unlock(&s->lock);
    s->ops.debug(s->ops.opaque, &stop);
}

/* Whether the vCPU may go on. */
static bool handle_exit(Vcpu *c)
{
    CpuSet *s = c->set;
    switch (c->run->exit_reason) {
    case KVM_EXIT_IO:
        kvm_settle(s->kvm);
        handle_io(c);
        return true;
    case KVM_EXIT_MMIO:
        kvm_settle(s->kvm);
        handle_mmio(c);
        return true;
    case KVM_EXIT_IOAPIC_EOI:
        irq_eoi_vector(s->board->irq, c->run->eoi.vector);
        return true;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
        return true;
    case KVM_EXIT_SHUTDOWN:
        s->ops.triple_fault(s->ops.opaque, c->index);
        lodge_lock(&s->lock);
        c->dead = true; /* until the reset that follows */
        lodge_unlock(&s->lock);
        return false;
    case KVM_EXIT_DEBUG:
        debug_stop(c);
        return false;
    case KVM_EXIT_INTERNAL_ERROR:
        stop_vcpu(c, VCPU_STOP_INTERNAL, 0);
        return false;
    case KVM_EXIT_FAIL_ENTRY:
        stop_vcpu(c, VCPU_STOP_ENTRY, 0);
        return false;
    default:
        stop_vcpu(c, VCPU_STOP_UNKNOWN, 0);
        return false;
    }
}

/* ---- the loop ---- */

/* Hand the PIC's interrupt to vCPU 0, or ask for the moment when it can take it. */
static void inject_extint(Vcpu *c)
{
    struct kvm_run *r = c->run;
    Irq *irq = c->set->board->irq;
    /* A request that went away while the guest had interrupts off is not acknowledged. */
    if (r->ready_for_interrupt_injection && irq_extint_pending(irq)) {
        int vector = irq_ack(irq);
        if (vector >= 0) {
            struct kvm_interrupt i = {.irq = (uint32_t)vector};
            (void)ioctl(c->fd, KVM_INTERRUPT, &i); /* EEXIST cannot be: it was ready */
            r->ready_for_interrupt_injection = 0;
        }
    }
    r->request_interrupt_window = irq_extint_pending(irq);
}

/* Let KVM finish the instruction whose port or MMIO access it handed out, with the accesses that it
 * still makes. */
static void complete_instruction(Vcpu *c)
{
    for (unsigned i = 0; i < INSTRUCTION_EXITS; i++) {
        __atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        if (ioctl(c->fd, KVM_RUN, 0) < 0)
            return; /* EINTR: complete; anything else comes again when it runs */
        c->exits++;
        if (!handle_exit(c))
            return;
    }
}

/* Wait until told to run; false: to exit. */
static bool wait_for_go(Vcpu *c)
{
    CpuSet *s = c->set;
    lodge_lock(&s->lock);
    while (s->wanted == WANT_PARK || ((c->dead || c->held) && s->wanted != WANT_EXIT)) {
        if (!c->parked) {
            c->parked = true;
            pthread_cond_broadcast(&s->changed);
        }
        lodge_cond_wait(&s->changed, &s->lock);
    }
    c->parked = false;
    bool go = s->wanted == WANT_RUN;
    lodge_unlock(&s->lock);
    return go;
}

static void *vcpu_thread(void *opaque)
{
    Vcpu *c = opaque;
    CpuSet *s = c->set;
    struct kvm_run *r = c->run;
    char name[16];
    current_vcpu = c;
    __atomic_store_n(&c->tid, (int)gettid(), __ATOMIC_RELAXED);
    sigset_t all, kick;
    g_snprintf(name, sizeof name, "vcpu %u", c->index);
    pthread_setname_np(pthread_self(), name);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&kick);
    sigaddset(&kick, VCPU_KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);

    bool alive = true, unfinished = false;
    while (wait_for_go(c)) {
        alive = true;
        while (alive) {
            kvm_sync_routes(s->kvm);
            __atomic_store_n(&c->in_run, true, __ATOMIC_SEQ_CST);
            if (__atomic_load_n(&s->wanted, __ATOMIC_SEQ_CST) != WANT_RUN)
                break;
            if (c->index == 0 && (irq_extint_pending(s->board->irq) || r->request_interrupt_window))
                inject_extint(c);
            int err = ioctl(c->fd, KVM_RUN, 0) < 0 ? errno : 0;
            __atomic_store_n(&c->in_run, false, __ATOMIC_RELAXED);
            c->exits++;
            if (err == EINTR || err == EAGAIN) {
                __atomic_store_n(&r->immediate_exit, 0, __ATOMIC_SEQ_CST);
                unfinished = false;
                continue;
            }
            if (err) {
                stop_vcpu(c, VCPU_STOP_RUN, err);
                alive = false;
                break;
            }
            unfinished = r->exit_reason == KVM_EXIT_IO || r->exit_reason == KVM_EXIT_MMIO;
            alive = handle_exit(c);
        }
        __atomic_store_n(&c->in_run, false, __ATOMIC_RELAXED);
        if (unfinished)
            complete_instruction(c);
        unfinished = false;
        __atomic_store_n(&r->immediate_exit, 0, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

/* ---- the set ---- */

static bool vcpu_init(Vcpu *c, CpuSet *s, unsigned index, bool nested, GError **error)
{
    c->set = s;
    c->index = index;
    c->fd = ioctl(kvm_fd(s->kvm), KVM_CREATE_VCPU, (unsigned long)index);
    if (c->fd < 0)
        return lodge_fail_errno(error, errno, "cannot make vCPU %u", index);
    c->run = mmap(NULL, kvm_run_size(s->kvm), PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
    if (c->run == MAP_FAILED) {
        c->run = NULL;
        return lodge_fail_errno(error, errno, "cannot map vCPU %u", index);
    }
    if (index == 0)
        kvm_set_run_pages(s->kvm, c->run);
    CpuidPolicy policy = {.index = index, .cpus = s->count, .nested = nested};
    g_autofree struct kvm_cpuid2 *cpuid = cpuid_build(s->kvm, &policy, error);
    if (!cpuid)
        return false;
    if (ioctl(c->fd, KVM_SET_CPUID2, cpuid) < 0)
        return lodge_fail_errno(error, errno, "vCPU %u: KVM refuses its CPUID", index);
    c->initial = vcpu_initial_read(s->kvm, c->fd, error);
    c->pio = bus_reader_new(s->board->pio);
    c->mmio = bus_reader_new(s->board->mmio);
    return c->initial != NULL;
}

CpuSet *cpu_set_new(Kvm *k, Board *board, unsigned count, bool nested, const CpuSetOps *ops,
                    GError **error)
{
    if (!count || count > kvm_max_vcpus(k)) {
        lodge_fail(error, LODGE_ERROR_LIMIT, "%u vCPUs: this host's KVM takes 1 to %u", count,
                   kvm_max_vcpus(k));
        return NULL;
    }
    g_autoptr(CpuSet) s = g_new0(CpuSet, 1);
    s->kvm = k;
    s->board = board;
    s->ops = *ops;
    s->count = count;
    s->cpus = g_new0(Vcpu, count);
    lodge_lock_init(&s->lock, LOCK_RANK_QUEUE, "parking");
    pthread_cond_init(&s->changed, NULL);
    for (unsigned i = 0; i < count; i++)
        s->cpus[i].fd = -1;
    struct sigaction kick = {.sa_handler = on_kick};
    sigaction(VCPU_KICK_SIGNAL, &kick, NULL);
    for (unsigned i = 0; i < count; i++) {
        if (!vcpu_init(&s->cpus[i], s, i, nested, error))
            return NULL;
    }
    kvm_set_extint_kick(k, extint_kick, s);
    return g_steal_pointer(&s);
}

static void set_wanted(CpuSet *s, Wanted w)
{
    lodge_lock(&s->lock);
    if (s->wanted == WANT_EXIT) { /* for good: a late request must not hold a thread back */
        lodge_unlock(&s->lock);
        return;
    }
    __atomic_store_n(&s->wanted, w, __ATOMIC_SEQ_CST);
    pthread_cond_broadcast(&s->changed);
    lodge_unlock(&s->lock);
    if (w != WANT_RUN) {
        for (unsigned i = 0; i < s->count; i++)
            vcpu_kick(&s->cpus[i]);
    }
}

bool cpu_set_start(CpuSet *s, GError **error)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, VCPU_STACK);
    int err = 0;
    for (unsigned i = 0; i < s->count && !err; i++) {
        err = pthread_create(&s->cpus[i].thread, &attr, vcpu_thread, &s->cpus[i]);
        s->cpus[i].started = !err;
    }
    pthread_attr_destroy(&attr);
    if (err)
        return lodge_fail_errno(error, err, "cannot start the vCPU threads");
    return true;
}

void cpu_set_run(CpuSet *s)
{
    set_wanted(s, WANT_RUN);
}

void cpu_set_stop(CpuSet *s)
{
    set_wanted(s, WANT_PARK);
}

void cpu_set_park(CpuSet *s)
{
    set_wanted(s, WANT_PARK);
    lodge_lock(&s->lock);
    for (unsigned i = 0; i < s->count; i++) {
        while (s->cpus[i].started && !s->cpus[i].parked)
            lodge_cond_wait(&s->changed, &s->lock);
    }
    lodge_unlock(&s->lock);
}

bool cpu_set_reset(CpuSet *s, const VcpuEntry *entry, GError **error)
{
    for (unsigned i = 0; i < s->count; i++) {
        Vcpu *c = &s->cpus[i];
        if (!vcpu_initial_write(c->fd, c->initial, i == 0, error) ||
            (i == 0 && entry && !vcpu_enter(c->fd, entry, error)))
            return false;
        lodge_lock(&s->lock);
        c->dead = c->held = false;
        lodge_unlock(&s->lock);
        c->run->request_interrupt_window = 0;
        c->run->ready_for_interrupt_injection = 0;
    }
    return true;
}

void cpu_set_hold(CpuSet *s, unsigned cpu, bool held)
{
    lodge_lock(&s->lock);
    if (cpu < s->count)
        s->cpus[cpu].held = held;
    lodge_unlock(&s->lock);
}

int cpu_set_fd(const CpuSet *s, unsigned cpu)
{
    return cpu < s->count ? s->cpus[cpu].fd : -1;
}

const Kvm *cpu_set_kvm(const CpuSet *s)
{
    return s->kvm;
}

void cpu_set_tell_stopped(CpuSet *s)
{
    /* api.rst 4.79. EINVAL: the guest has no such clock, and nothing to be told by. */
    for (unsigned i = 0; i < s->count; i++)
        (void)ioctl(s->cpus[i].fd, KVM_KVMCLOCK_CTRL, 0);
}

long cpu_set_thread(const CpuSet *s, unsigned cpu)
{
    return cpu < s->count ? __atomic_load_n(&s->cpus[cpu].tid, __ATOMIC_RELAXED) : 0;
}

unsigned cpu_set_count(const CpuSet *s)
{
    return s->count;
}

uint64_t cpu_set_time_ns(const CpuSet *s)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < s->count; i++) {
        clockid_t id;
        struct timespec t;
        if (s->cpus[i].started && pthread_getcpuclockid(s->cpus[i].thread, &id) == 0 &&
            clock_gettime(id, &t) == 0)
            sum += (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    return sum;
}

uint64_t cpu_set_exits(const CpuSet *s)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < s->count; i++)
        n += __atomic_load_n(&s->cpus[i].exits, __ATOMIC_RELAXED);
    return n;
}

void cpu_set_free(CpuSet *s)
{
    if (!s)
        return;
    kvm_set_extint_kick(s->kvm, NULL, NULL);
    kvm_set_run_pages(s->kvm, NULL);
    set_wanted(s, WANT_EXIT);
    for (unsigned i = 0; i < s->count; i++) {
        Vcpu *c = &s->cpus[i];
        if (c->started)
            pthread_join(c->thread, NULL);
        bus_reader_free(c->pio);
        bus_reader_free(c->mmio);
        if (c->run)
            munmap(c->run, kvm_run_size(s->kvm));
        if (c->fd >= 0)
            close(c->fd);
        vcpu_initial_free(c->initial);
    }
    g_free(s->cpus);
    pthread_cond_destroy(&s->changed);
    lodge_lock_clear(&s->lock);
    g_free(s);
}

bool cpu_set_io_regs(Board *b, uint32_t regs[6], bool write)
{
    struct kvm_regs r;
    if (!current_vcpu || ioctl(current_vcpu->fd, KVM_GET_REGS, &r) < 0)
        return false;
    __u64 *const at[6] = {&r.rax, &r.rbx, &r.rcx, &r.rdx, &r.rsi, &r.rdi};
    for (unsigned i = 0; i < G_N_ELEMENTS(at); i++) {
        if (write)
            *at[i] = regs[i]; /* as a 32-bit destination: the upper half is cleared */
        else
            regs[i] = (uint32_t)*at[i];
    }
    return !write || ioctl(current_vcpu->fd, KVM_SET_REGS, &r) == 0;
}

bool vcpu_regs(CpuSet *s, unsigned cpu, struct kvm_regs *ret_regs, struct kvm_sregs *ret_sregs)
{
    return cpu < s->count && ioctl(s->cpus[cpu].fd, KVM_GET_REGS, ret_regs) == 0 &&
           ioctl(s->cpus[cpu].fd, KVM_GET_SREGS, ret_sregs) == 0;
}

bool vcpu_translate(CpuSet *s, unsigned cpu, uint64_t gva, gpa_t *ret_gpa)
{
    struct kvm_translation t = {.linear_address = gva};
    if (cpu >= s->count || ioctl(s->cpus[cpu].fd, KVM_TRANSLATE, &t) < 0 || !t.valid)
        return false;
    *ret_gpa = t.physical_address;
    return true;
}
