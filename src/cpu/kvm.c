/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtual machine in the kernel: memory slots, ioeventfds, interrupt routes, messages.
 * Everything of KVM that concerns the machine as a whole; vcpu.c has what concerns one CPU.
 *
 * The irqchip is split: local APICs are the kernel's; PIC, IOAPIC and PIT are ours. The routing
 * table holds, below GSI 24, the level-triggered pins of the IOAPIC, so that the kernel reports
 * their EOI; from 24 on, the messages that are raised by descriptor (irqfd).
 *
 * Invariants:
 * (1) Route changes are only noted by whoever makes them; a vCPU thread brings them to the kernel
 *     before its next KVM_RUN, all in one ioctl. A pin that is opened is in force at once: its
 *     interrupt may reach another vCPU, and end there, before this one runs on.
 * (2) An irqfd is handed out only after the kernel has its route.
 *
 * Spec: Documentation/virt/kvm/api.rst of Linux; sections are named at the calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "kvm.h"

#define KVM_API 12
#define KVM_TSS_GPA 0xfeffd000u      /* three pages below all firmware, for VT-x real mode */
#define KVM_IDENTITY_GPA 0xfeffc000u /* one page before them */
#define MSI_ROUTES 512u              /* descriptors for messages; more are sent one by one */
#define SLOTS_MAX 64u
#define PAGE 4096u

typedef struct MsiRoute {
    IrqMsi *msi; /* NULL: free */
    uint64_t addr;
    uint32_t data;
    int fd; /* eventfd, kept for reuse; -1: none */
    bool announce; /* irq_msi_bound() after the next commit */
} MsiRoute;

typedef struct PinRoute {
    uint64_t addr;
    uint32_t data;
    bool wanted;
} PinRoute;

typedef struct Slot {
    gpa_t at;
    uint64_t len; /* 0: free */
} Slot;

struct Kvm {
    int sys_fd, fd;
    size_t run_size;
    Board *board; /* borrowed */
    Slot slots[SLOTS_MAX];
    void (*extint_kick)(void *opaque);
    void *extint_opaque;
    struct kvm_clock_data clock;
    struct kvm_coalesced_mmio_ring *ring; /* in vCPU 0's mapping; NULL: writes are not gathered */
    unsigned ring_size;                   /* entries */
    bool coalesce_mmio, coalesce_pio;     /* what the host can */
    LodgeLock settle_lock;                /* rank SETTLE: the ring's reading end */
    BusReader *settle_pio, *settle_mmio;  /* owned; under settle_lock */
    /* Guarded by lock: */
    LodgeLock lock; /* rank QUEUE: taken with device and irq locks held */
    PinRoute pins[IRQ_GSIS];
    MsiRoute msis[MSI_ROUTES];
    unsigned msi_top; /* slots in use are below */
    /* Atomic: */
    bool routes_dirty;
};

static int kvm_ioctl(int fd, unsigned long request, void *arg)
{
    int r;
    do {
        r = ioctl(fd, request, arg);
    } while (r < 0 && errno == EINTR);
    return r;
}

int kvm_cap(const Kvm *k, int cap)
{
    int r = ioctl(k->fd >= 0 ? k->fd : k->sys_fd, KVM_CHECK_EXTENSION, (long)cap);
    return MAX(r, 0);
}

static bool open_device(Kvm *k, GError **error)
{
    k->sys_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (k->sys_fd >= 0)
        return true;
    if (errno == ENOENT)
        return lodge_fail(error, LODGE_ERROR_NO_KVM,
                          "/dev/kvm: not there; load kvm_intel or kvm_amd, and enable "
                          "virtualization in the firmware setup (see 'lodge doctor')");
    if (errno == EACCES || errno == EPERM)
        return lodge_fail(error, LODGE_ERROR_NO_KVM,
                          "/dev/kvm: permission denied; add yourself to its group: "
                          "sudo usermod -aG kvm $USER, then log in again");
    return lodge_fail(error, LODGE_ERROR_NO_KVM, "/dev/kvm: %s (see 'lodge doctor')",
                      g_strerror(errno));
}

static bool check_caps(Kvm *k, GError **error)
{
    static const struct {
        int cap;
        const char *name;
    } needed[] = {
        {KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP"},
        {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
        {KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
        {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
        {KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
        {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
        {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    };
    int version = ioctl(k->sys_fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return lodge_fail(error, LODGE_ERROR_NO_KVM,
                          "/dev/kvm: is not KVM's device (%s); see 'lodge doctor'",
                          g_strerror(errno));
    if (version != KVM_API)
        return lodge_fail(error, LODGE_ERROR_NO_KVM, "/dev/kvm: API version %d, %d is needed",
                          version, KVM_API);
    for (unsigned i = 0; i < G_N_ELEMENTS(needed); i++) {
        if (!kvm_cap(k, needed[i].cap))
            return lodge_fail(error, LODGE_ERROR_NO_KVM,
                              "/dev/kvm: this kernel lacks %s; Linux 4.12 or newer has it",
                              needed[i].name);
    }
    return true;
}

Kvm *kvm_open(GError **error)
{
    g_autoptr(Kvm) k = g_new0(Kvm, 1);
    k->fd = k->sys_fd = -1;
    lodge_lock_init(&k->lock, LOCK_RANK_QUEUE, "routes");
    lodge_lock_init(&k->settle_lock, LOCK_RANK_SETTLE, "gathered writes");
    for (unsigned i = 0; i < MSI_ROUTES; i++)
        k->msis[i].fd = -1;
    if (!open_device(k, error) || !check_caps(k, error))
        return NULL;
    k->fd = kvm_ioctl(k->sys_fd, KVM_CREATE_VM, NULL);
    if (k->fd < 0) {
        lodge_fail(error, LODGE_ERROR_NO_KVM, "/dev/kvm: cannot make a virtual machine: %s",
                   g_strerror(errno));
        return NULL;
    }
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IRQ_GSIS}};
    uint64_t identity = KVM_IDENTITY_GPA;
    int size = ioctl(k->sys_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (kvm_ioctl(k->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
        ioctl(k->fd, KVM_SET_TSS_ADDR, (unsigned long)KVM_TSS_GPA) < 0 ||
        kvm_ioctl(k->fd, KVM_ENABLE_CAP, &split) < 0 || size < (int)sizeof(struct kvm_run)) {
        lodge_fail_errno(error, errno, "/dev/kvm: cannot set up a split irqchip");
        return NULL;
    }
    k->run_size = (size_t)size;
    return g_steal_pointer(&k);
}

void kvm_free(Kvm *k)
{
    if (!k)
        return;
    for (unsigned i = 0; i < MSI_ROUTES; i++) {
        if (k->msis[i].fd >= 0)
            close(k->msis[i].fd);
    }
    if (k->fd >= 0)
        close(k->fd);
    if (k->sys_fd >= 0)
        close(k->sys_fd);
    bus_reader_free(k->settle_pio);
    bus_reader_free(k->settle_mmio);
    lodge_lock_clear(&k->settle_lock);
    lodge_lock_clear(&k->lock);
    g_free(k);
}

int kvm_fd(const Kvm *k)
{
    return k->fd;
}

int kvm_sys_fd(const Kvm *k)
{
    return k->sys_fd;
}

size_t kvm_run_size(const Kvm *k)
{
    return k->run_size;
}

unsigned kvm_max_vcpus(const Kvm *k)
{
    int max = kvm_cap(k, KVM_CAP_MAX_VCPUS);
    return max > 0 ? (unsigned)max : 4; /* api.rst 4.7: 4 where the capability is not there */
}

/* ---- memory: api.rst 4.35 ---- */

static bool memory_add(void *opaque, MemBlock *b, gpa_t at, uint64_t offset, uint64_t len,
                       bool read_only, GError **error)
{
    Kvm *k = opaque;
    unsigned i = 0;
    while (i < SLOTS_MAX && k->slots[i].len)
        i++;
    if (i == SLOTS_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "%s: more than %u memory slots",
                          mem_block_name(b), SLOTS_MAX);
    struct kvm_userspace_memory_region r = {
        .slot = i,
        .flags = (read_only ? KVM_MEM_READONLY : 0) |
                 (mem_block_logs_dirty(b) ? KVM_MEM_LOG_DIRTY_PAGES : 0),
        .guest_phys_addr = at,
        .memory_size = len,
        .userspace_addr = (uintptr_t)mem_block_host(b) + offset,
    };
    if (kvm_ioctl(k->fd, KVM_SET_USER_MEMORY_REGION, &r) < 0)
        return lodge_fail_errno(error, errno, "%s: KVM refuses memory at 0x%" PRIx64,
                                mem_block_name(b), at);
    k->slots[i] = (Slot){at, len};
    return true;
}

static void memory_remove(void *opaque, MemBlock *b, gpa_t at, uint64_t len)
{
    Kvm *k = opaque;
    for (unsigned i = 0; i < SLOTS_MAX; i++) {
        if (k->slots[i].len == len && k->slots[i].at == at) {
            struct kvm_userspace_memory_region r = {.slot = i, .guest_phys_addr = at};
            kvm_ioctl(k->fd, KVM_SET_USER_MEMORY_REGION, &r);
            k->slots[i].len = 0;
            return;
        }
    }
}

/* api.rst 4.8: fetches and clears. */
static void memory_dirty(void *opaque, MemBlock *b, gpa_t at, uint64_t offset, uint64_t len,
                         uint8_t *bitmap)
{
    Kvm *k = opaque;
    unsigned i = 0;
    while (i < SLOTS_MAX && (k->slots[i].len != len || k->slots[i].at != at))
        i++;
    uint64_t words = (len / PAGE + 63) / 64, first = offset / PAGE;
    if (i == SLOTS_MAX)
        return;
    g_autofree uint64_t *log = g_new0(uint64_t, words);
    struct kvm_dirty_log get = {.slot = i, .dirty_bitmap = log};
    if (kvm_ioctl(k->fd, KVM_GET_DIRTY_LOG, &get) < 0)
        return;
    for (uint64_t w = 0; w < words; w++) {
        for (uint64_t left = log[w]; left; left &= left - 1) {
            uint64_t page = first + w * 64 + (unsigned)__builtin_ctzll(left);
            bitmap[page / 8] |= (uint8_t)(1u << (page % 8));
        }
    }
}

/* ---- ioeventfds: api.rst 4.59 ---- */

static bool eventfd_set(Kvm *k, Bus *b, uint64_t addr, unsigned len, int fd, bool add)
{
    struct kvm_ioeventfd e = {
        .addr = addr,
        .len = len,
        .fd = fd,
        .flags = (b == k->board->pio ? KVM_IOEVENTFD_FLAG_PIO : 0) |
                 (add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
    };
    return kvm_ioctl(k->fd, KVM_IOEVENTFD, &e) == 0;
}

static bool eventfd_add(void *opaque, Bus *b, uint64_t addr, unsigned len, int fd)
{
    return eventfd_set(opaque, b, addr, len, fd, true);
}

static void eventfd_remove(void *opaque, Bus *b, uint64_t addr, unsigned len, int fd)
{
    (void)eventfd_set(opaque, b, addr, len, fd, false); /* it may never have been taken */
}

/* ---- gathered writes: api.rst 4.116 (KVM_REGISTER_COALESCED_MMIO), 5 (the ring) ---- */

static void coalesce(void *opaque, Bus *b, uint64_t addr, uint64_t len, bool on)
{
    Kvm *k = opaque;
    bool pio = b == k->board->pio;
    struct kvm_coalesced_mmio_zone zone = {.addr = addr, .size = (uint32_t)len, .pio = pio};
    if (pio ? !k->coalesce_pio : !k->coalesce_mmio)
        return;
    /* Without it each write comes by itself, which is as good, if slower. */
    (void)kvm_ioctl(k->fd, on ? KVM_REGISTER_COALESCED_MMIO : KVM_UNREGISTER_COALESCED_MMIO, &zone);
}

static void settle_ring(Kvm *k)
{
    lodge_lock(&k->settle_lock);
    /* As many as the ring holds: another vCPU may go on writing meanwhile. */
    for (unsigned i = 0; k->ring && i < k->ring_size; i++) {
        uint32_t first = k->ring->first;
        if (first == __atomic_load_n(&k->ring->last, __ATOMIC_ACQUIRE) || first >= k->ring_size)
            break;
        const struct kvm_coalesced_mmio *e = &k->ring->coalesced_mmio[first];
        uint64_t val = 0;
        unsigned len = MIN(e->len, (uint32_t)sizeof val);
        memcpy(&val, e->data, len);
        if (is_power_of_two(len))
            bus_write(e->pio ? k->settle_pio : k->settle_mmio, e->phys_addr, len, val);
        else
            for (unsigned n = 0; n < len; n++)
                bus_write(k->settle_mmio, e->phys_addr + n, 1, e->data[n]);
        __atomic_store_n(&k->ring->first, (first + 1) % k->ring_size, __ATOMIC_RELEASE);
    }
    lodge_unlock(&k->settle_lock);
}

void kvm_settle(Kvm *k)
{
    if (k->ring && k->ring->first != __atomic_load_n(&k->ring->last, __ATOMIC_ACQUIRE))
        settle_ring(k);
}

static void settle(void *opaque)
{
    settle_ring(opaque);
}

void kvm_set_run_pages(Kvm *k, void *run)
{
    int page = kvm_cap(k, KVM_CAP_COALESCED_MMIO);
    bool there = run && page && (size_t)(page + 1) * PAGE <= k->run_size;
    lodge_lock(&k->settle_lock);
    k->ring = there ? (void *)((uint8_t *)run + (size_t)page * PAGE) : NULL;
    k->ring_size = (PAGE - sizeof *k->ring) / sizeof k->ring->coalesced_mmio[0];
    lodge_unlock(&k->settle_lock);
}

/* ---- interrupts ---- */

static void send_msi(void *opaque, uint64_t addr, uint32_t data)
{
    Kvm *k = opaque;
    struct kvm_msi m = {
        .address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data};
    /* 0: the guest blocked it, as a message to a disabled APIC is; nothing to do either way. */
    (void)ioctl(k->fd, KVM_SIGNAL_MSI, &m);
}

static void extint_changed(void *opaque, bool asserted)
{
    Kvm *k = opaque;
    if (asserted && k->extint_kick)
        k->extint_kick(k->extint_opaque);
}

void kvm_set_extint_kick(Kvm *k, void (*kick)(void *opaque), void *opaque)
{
    k->extint_opaque = opaque;
    k->extint_kick = kick;
}

static void mark_dirty_locked(Kvm *k)
{
    lock_assert_held(&k->lock);
    __atomic_store_n(&k->routes_dirty, true, __ATOMIC_RELEASE); /* pairs with kvm_sync_routes() */
}

static void add_route(struct kvm_irq_routing *table, unsigned gsi, uint64_t addr, uint32_t data)
{
    table->entries[table->nr++] = (struct kvm_irq_routing_entry){
        .gsi = gsi,
        .type = KVM_IRQ_ROUTING_MSI,
        .u.msi = {.address_lo = (uint32_t)addr, .address_hi = (uint32_t)(addr >> 32), .data = data},
    };
}

static bool put_routes_locked(Kvm *k)
{
    lock_assert_held(&k->lock);
    g_autofree struct kvm_irq_routing *table = g_malloc0(
        sizeof *table + (IRQ_GSIS + k->msi_top) * sizeof(struct kvm_irq_routing_entry));
    for (unsigned i = 0; i < IRQ_GSIS; i++) {
        if (k->pins[i].wanted)
            add_route(table, i, k->pins[i].addr, k->pins[i].data);
    }
    for (unsigned i = 0; i < k->msi_top; i++) {
        if (k->msis[i].msi)
            add_route(table, IRQ_GSIS + i, k->msis[i].addr, k->msis[i].data);
    }
    return kvm_ioctl(k->fd, KVM_SET_GSI_ROUTING, table) == 0;
}

static void ioapic_route(void *opaque, unsigned pin, uint64_t addr, uint32_t data, bool level,
                         bool masked)
{
    Kvm *k = opaque;
    PinRoute p = {.addr = addr, .data = data, .wanted = level && !masked};
    if (!p.wanted)
        p = (PinRoute){0};
    lodge_lock(&k->lock);
    PinRoute *old = &k->pins[pin];
    bool changed = old->wanted != p.wanted || old->addr != p.addr || old->data != p.data;
    *old = p;
    if (changed && !(p.wanted && put_routes_locked(k)))
        mark_dirty_locked(k);
    lodge_unlock(&k->lock);
}

static void msi_bind(void *opaque, IrqMsi *m, uint64_t addr, uint32_t data)
{
    Kvm *k = opaque;
    lodge_lock(&k->lock);
    unsigned i = 0;
    while (i < k->msi_top && k->msis[i].msi)
        i++;
    if (i < MSI_ROUTES) {
        if (k->msis[i].fd < 0)
            k->msis[i].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (k->msis[i].fd >= 0) {
            k->msis[i] = (MsiRoute){m, addr, data, k->msis[i].fd, true};
            k->msi_top = MAX(k->msi_top, i + 1);
            mark_dirty_locked(k);
        }
    }
    lodge_unlock(&k->lock);
}

static bool irqfd_set(Kvm *k, unsigned i, bool add)
{
    struct kvm_irqfd f = {
        .fd = (uint32_t)k->msis[i].fd,
        .gsi = IRQ_GSIS + i,
        .flags = add ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
    };
    return kvm_ioctl(k->fd, KVM_IRQFD, &f) == 0;
}

static void msi_unbind(void *opaque, IrqMsi *m)
{
    Kvm *k = opaque;
    lodge_lock(&k->lock);
    for (unsigned i = 0; i < k->msi_top; i++) {
        if (k->msis[i].msi == m) {
            if (!k->msis[i].announce)
                irqfd_set(k, i, false);
            k->msis[i].msi = NULL;
            k->msis[i].announce = false;
            mark_dirty_locked(k);
        }
    }
    lodge_unlock(&k->lock);
}

/* Keeps (1) and (2). */
static void commit_routes(Kvm *k)
{
    g_autofree MsiRoute *ready = g_new(MsiRoute, MSI_ROUTES);
    unsigned n = 0;
    lodge_lock(&k->lock);
    if (!k->routes_dirty) { /* another vCPU did it while we waited for the lock */
        lodge_unlock(&k->lock);
        return;
    }
    if (put_routes_locked(k)) {
        for (unsigned i = 0; i < k->msi_top; i++) {
            if (k->msis[i].announce && irqfd_set(k, i, true)) {
                k->msis[i].announce = false;
                ready[n++] = k->msis[i];
            }
        }
    }
    /* Last, so that a vCPU which sees it clear finds the routes in the kernel. */
    __atomic_store_n(&k->routes_dirty, false, __ATOMIC_RELEASE);
    lodge_unlock(&k->lock);
    for (unsigned i = 0; i < n; i++)
        irq_msi_bound(ready[i].msi, ready[i].addr, ready[i].data, ready[i].fd);
}

void kvm_sync_routes(Kvm *k)
{
    if (__atomic_load_n(&k->routes_dirty, __ATOMIC_ACQUIRE))
        commit_routes(k);
}

bool kvm_attach(Kvm *k, Board *board, GError **error)
{
    k->board = board;
    k->coalesce_mmio = kvm_cap(k, KVM_CAP_COALESCED_MMIO);
    k->coalesce_pio = k->coalesce_mmio && kvm_cap(k, KVM_CAP_COALESCED_PIO);
    k->settle_pio = bus_reader_new(board->pio);
    k->settle_mmio = bus_reader_new(board->mmio);
    BusEventHooks events = {eventfd_add, eventfd_remove, coalesce, settle, k};
    bus_set_event_hooks(board->pio, &events);
    bus_set_event_hooks(board->mmio, &events);
    IrqHooks irqs = {
        .msi = send_msi,
        .extint = extint_changed,
        .ioapic_route = ioapic_route,
        .msi_bind = kvm_cap(k, KVM_CAP_IRQFD) ? msi_bind : NULL,
        .msi_unbind = msi_unbind,
        .opaque = k,
    };
    irq_set_hooks(board->irq, &irqs);
    MemListener memory = {memory_add, memory_remove, memory_dirty, k};
    return mem_map_set_listener(board->mem, &memory, error);
}

/* ---- guest clock: api.rst 4.29, 4.30 ---- */

void kvm_clock_save(Kvm *k)
{
    k->clock = (struct kvm_clock_data){0};
    (void)kvm_ioctl(k->fd, KVM_GET_CLOCK, &k->clock); /* without it time jumps, as on a stall */
}

void kvm_clock_restore(Kvm *k)
{
    struct kvm_clock_data c = {.clock = k->clock.clock};
    if (c.clock)
        (void)kvm_ioctl(k->fd, KVM_SET_CLOCK, &c);
}
