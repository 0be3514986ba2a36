/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a machine: start, pause, resume, reset, end.
 *
 * Pause, reset and end share one order: park the vCPUs, quiesce every device and wait for each
 * answer, drain the block nodes, act; going on is the reverse. What devices and vCPUs ask for is
 * noted under a lock, stops the vCPUs at once (the guest does not run on behind its own request)
 * and is carried out by the main thread.
 *
 * Invariants:
 * (1) A device's callbacks never run the machine's transitions: those are the main thread's.
 * (2) However often a guest asks, one poll is queued; requests are bits, the first exit status
 *     counts.
 */
#include <errno.h>

#include "lodge/diag.h"
#include "lodge/display.h"
#include "lodge/error.h"
#include "lodge/input.h"
#include "lodge/num.h"

#include "acpi_pm.h"
#include "crash.h"
#include "machine_internal.h"

#define QUIESCE_TIMEOUT (30 * G_TIME_SPAN_SECOND)

static gboolean machine_poll(gpointer opaque);

void machine_tell(Machine *m, const MachineNews *news)
{
    if (m->listener)
        m->listener(m->listener_opaque, news);
}

static void tell(Machine *m, MachineEvent what)
{
    machine_tell(m, &(MachineNews){
                        .what = what,
                        .result = what == MACHINE_EVENT_ENDED ? &m->result : NULL,
                    });
}

/* ---- requests ---- */

void machine_request(Machine *m, unsigned bits)
{
    lodge_lock(&m->request_lock);
    bool late = m->closed, queue = !late && !m->poll_queued;
    m->requested |= bits;
    m->poll_queued |= queue;
    lodge_unlock(&m->request_lock);
    if (late) /* nobody is left to act */
        return;
    if (m->cpus)
        cpu_set_stop(m->cpus);
    if (queue) {
        GSource *s = g_idle_source_new();
        g_source_set_priority(s, G_PRIORITY_HIGH);
        g_source_set_callback(s, machine_poll, m, NULL);
        g_source_attach(s, m->context);
        g_source_unref(s);
    }
}

void machine_on_request(Board *b, BoardRequest what, int arg)
{
    Machine *m = b->opaque;
    if (what == BOARD_EXIT) {
        lodge_lock(&m->request_lock);
        if (!(m->requested & (1u << BOARD_EXIT)))
            m->exit_status = arg;
        lodge_unlock(&m->request_lock);
    }
    if (what == BOARD_BALLOON) { /* nothing that the guest has to wait for */
        machine_balloon_changed(m);
        return;
    }
    if (what == BOARD_EJECT) {
        lodge_lock(&m->request_lock);
        m->ejected |= 1u << (arg & 31);
        lodge_unlock(&m->request_lock);
    }
    if (what == BOARD_CRASH_LOAD) {
        lodge_note("the guest's kernel died and boots its crash kernel");
        return;
    }
    machine_request(m, 1u << what);
}

void machine_on_triple_fault(void *opaque, unsigned cpu)
{
    lodge_trace("guest", "vCPU %u: triple fault", cpu);
    machine_request(opaque, REQUEST_TRIPLE_FAULT);
}

void machine_on_cpu_stopped(void *opaque, unsigned cpu, const VcpuStopInfo *info)
{
    Machine *m = opaque;
    lodge_lock(&m->request_lock);
    if (!(m->requested & REQUEST_CPU_STOPPED)) {
        m->stopped_cpu = cpu;
        m->stop_info = *info;
    }
    lodge_unlock(&m->request_lock);
    machine_request(m, REQUEST_CPU_STOPPED);
}

/* If several vCPUs stop at once, the first is told; the others come to their breakpoints again. */
void machine_on_debug(void *opaque, const VcpuDebugStop *stop)
{
    Machine *m = opaque;
    lodge_lock(&m->request_lock);
    if (!(m->requested & REQUEST_DEBUG))
        m->debug_stop = *stop;
    lodge_unlock(&m->request_lock);
    machine_request(m, REQUEST_DEBUG);
}

/* ---- coming to rest ---- */

typedef struct Quiesce {
    GMutex mutex;
    GCond cond;
    GHashTable *waiting; /* Device that has not answered */
} Quiesce;

static void device_is_quiet(Device *d, void *opaque)
{
    Quiesce *q = opaque;
    g_mutex_lock(&q->mutex);
    g_hash_table_remove(q->waiting, d);
    g_cond_signal(&q->cond);
    g_mutex_unlock(&q->mutex);
}

static void drain_all(Machine *m, bool begin)
{
    GHashTableIter it;
    gpointer node;
    g_hash_table_iter_init(&it, m->blks);
    while (g_hash_table_iter_next(&it, NULL, &node)) {
        if (begin)
            blk_drain_begin(node);
        else
            blk_drain_end(node);
    }
}

static void wake_all(Machine *m)
{
    machine_disks_hurry(m, false);
    machine_disks_retry(m, false);
    drain_all(m, false);
    for (unsigned i = m->devices->len; i-- > 0;)
        device_resume(g_ptr_array_index(m->devices, i));
}

/* Bring a machine whose vCPUs are parked to rest. On false all is as before. */
static bool quiesce_all(Machine *m, GError **error)
{
    Quiesce *q = g_new0(Quiesce, 1);
    g_mutex_init(&q->mutex);
    g_cond_init(&q->cond);
    q->waiting = g_hash_table_new(NULL, NULL);
    machine_disks_hurry(m, true);
    for (unsigned i = 0; i < m->devices->len; i++)
        g_hash_table_add(q->waiting, g_ptr_array_index(m->devices, i));
    for (unsigned i = 0; i < m->devices->len; i++)
        device_quiesce(g_ptr_array_index(m->devices, i), device_is_quiet, q);
    gint64 deadline = g_get_monotonic_time() + QUIESCE_TIMEOUT;
    g_mutex_lock(&q->mutex);
    bool in_time = true;
    while (in_time && g_hash_table_size(q->waiting))
        in_time = g_cond_wait_until(&q->cond, &q->mutex, deadline);
    const char *who = NULL;
    for (unsigned i = 0; !in_time && i < m->devices->len; i++) {
        Device *d = g_ptr_array_index(m->devices, i);
        if (g_hash_table_contains(q->waiting, d))
            who = d->id;
    }
    g_mutex_unlock(&q->mutex);
    if (!in_time) {
        /* q is left to the late answer: freeing it would give that a dead object. */
        wake_all(m);
        return lodge_fail(error, LODGE_ERROR_BUSY, "%s: does not come to rest",
                          who ? who : "a device");
    }
    g_hash_table_destroy(q->waiting);
    g_mutex_clear(&q->mutex);
    g_cond_clear(&q->cond);
    g_free(q);
    drain_all(m, true);
    return true;
}

/* ---- transitions ---- */

static bool rest(Machine *m, GError **error)
{
    cpu_set_park(m->cpus);
    bus_settle(m->board.mmio);
    clock_pause(m->board.clock);
    if (!quiesce_all(m, error)) {
        clock_resume(m->board.clock);
        return false;
    }
    kvm_clock_save(m->kvm);
    return true;
}

/* The guest's clocks go on where they stood; its RTC has the host's time. */
static void start_clocks(Machine *m)
{
    kvm_clock_restore(m->kvm);
    cpu_set_tell_stopped(m->cpus);
    clock_resume(m->board.clock);
}

static void go_on(Machine *m)
{
    start_clocks(m);
    wake_all(m);
    cpu_set_run(m->cpus);
}

/* LODGE_TRACE=bus: how often each region was reached, over all resets; what waits for a device
 * that is not there shows here. */
static void trace_region(void *opaque, const BusRegion *r, uint64_t hits)
{
    if (hits)
        lodge_trace("bus", "%s 0x%" PRIx64 " %s: %" PRIu64,
                    bus_name(opaque), r->base, r->name, hits);
}

static void trace_buses(Machine *m)
{
    Bus *const buses[] = {m->board.pio, m->board.mmio};
    if (!lodge_tracing("bus"))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(buses); i++) {
        uint64_t reads, writes;
        bus_each_region(buses[i], trace_region, buses[i]);
        bus_unclaimed(buses[i], &reads, &writes);
        lodge_trace("bus", "%s unclaimed: %" PRIu64, bus_name(buses[i]), reads + writes);
    }
}

static void end(Machine *m, MachineEnd why, int status, char *report)
{
    if (m->state == MACHINE_ENDED) {
        g_free(report);
        return;
    }
    g_autoptr(GError) error = NULL;
    bool was_running = m->state == MACHINE_RUNNING || m->stalled;
    m->state = MACHINE_ENDED;
    machine_disks_retry(m, true); /* what failed on a disk is told now */
    lodge_lock(&m->request_lock);
    m->closed = true;
    lodge_unlock(&m->request_lock);
    /* Data that the guest was told is written must be: rest waits for it. */
    m->stuck = was_running && !rest(m, &error);
    if (m->stuck)
        lodge_warn("%s", error->message);
    m->result = (MachineResult){why, status, report};
    trace_buses(m);
    tell(m, MACHINE_EVENT_ENDED);
    if (m->config.ended)
        m->config.ended(m->config.opaque, &m->result);
}

/* ---- loading ---- */

bool machine_load(Machine *m, BootCpu *ret_cpu, GError **error)
{
    BootLayout layout = {0};
    if (!m->boot) { /* the firmware is where the CPU starts, and loads what it likes */
        *ret_cpu = (BootCpu){.mode = BOOT_MODE_REAL};
        return true;
    }
    return pc_write_tables(&m->board, m->parts, &layout, error) &&
           boot_load(m->boot, m->board.mem, &layout, ret_cpu, error);
}

static gpointer loader_thread(gpointer opaque)
{
    Machine *m = opaque;
    (void)machine_load(m, &m->loader.cpu, &m->loader.error); /* told by loader.error */
    return NULL;
}

void machine_loader_start(Machine *m)
{
    m->loader.thread = g_thread_new("loader", loader_thread, m);
}

static bool loader_join(Machine *m, GError **error)
{
    if (m->loader.thread)
        g_thread_join(g_steal_pointer(&m->loader.thread));
    if (m->loader.error) {
        g_propagate_error(error, g_steal_pointer(&m->loader.error));
        return false;
    }
    return true;
}

/* Chips and vCPUs as firmware and a boot loader leave them; parked. */
static bool enter_guest(Machine *m, const BootCpu *cpu, GError **error)
{
    VcpuEntry entry = {
        .mode = cpu->mode == BOOT_MODE_LONG64   ? VCPU_MODE_LONG64
                : cpu->mode == BOOT_MODE_PROT32 ? VCPU_MODE_PROT32
                                                : VCPU_MODE_REAL,
        .rip = cpu->rip,
        .rsp = cpu->rsp,
        .rax = cpu->rax,
        .rbx = cpu->rbx,
        .rsi = cpu->rsi,
        .cr3 = cpu->cr3,
        .gdt_base = cpu->gdt_gpa,
        .gdt_limit = BOOT_GDT_LIMIT,
        .cs = BOOT_CS,
        .ds = BOOT_DS,
    };
    pc_init_chips(&m->pc);
    return cpu_set_reset(m->cpus, cpu->mode == BOOT_MODE_REAL ? NULL : &entry, error);
}

static void reset_now(Machine *m, MachineEvent who)
{
    GError *error = NULL;
    machine_disks_retry(m, true);
    if (rest(m, &error)) {
        /* What another vCPU asked for on the way here is answered by this reset. */
        lodge_lock(&m->request_lock);
        m->requested &= ~(REQUEST_TRIPLE_FAULT | REQUEST_CPU_STOPPED | REQUEST_HOST_RESET |
                          REQUEST_DEBUG | 1u << BOARD_RESET);
        lodge_unlock(&m->request_lock);
        for (unsigned i = 0; i < m->devices->len; i++)
            device_reset(g_ptr_array_index(m->devices, i), RESET_WARM);
        BootCpu cpu = {0};
        if (machine_load(m, &cpu, &error) && enter_guest(m, &cpu, &error)) {
            go_on(m);
            tell(m, who);
            return;
        }
        m->state = MACHINE_PAUSED; /* at rest already, for end() */
    }
    char *report = g_strdup_printf("the machine cannot be reset: %s", error->message);
    g_error_free(error);
    end(m, MACHINE_END_ERROR, 0, report);
}

/* A disk's request failed and waits: so does the guest. */
static void stall(Machine *m)
{
    cpu_set_park(m->cpus);
    bus_settle(m->board.mmio);
    clock_pause(m->board.clock);
    kvm_clock_save(m->kvm);
    m->stalled = true;
    m->state = MACHINE_PAUSED;
    tell(m, MACHINE_EVENT_PAUSED);
}

static void release_cpus(Machine *m)
{
    for (unsigned i = 0; i < cpu_set_count(m->cpus); i++)
        cpu_set_hold(m->cpus, i, false);
}

/* A vCPU is where its debugger wanted it. */
static void debug_stop(Machine *m, const VcpuDebugStop *stop)
{
    g_autoptr(GError) error = NULL;
    if (!m->debug_listener) { /* which is gone */
        cpu_set_park(m->cpus);
        release_cpus(m);
        cpu_set_run(m->cpus);
    } else if (machine_pause(m, &error)) {
        m->debug_listener(m->debug_opaque, stop);
    } else {
        lodge_warn("the debugger's stop is lost: %s", error->message);
        cpu_set_park(m->cpus);
        release_cpus(m);
        cpu_set_run(m->cpus);
    }
}

/* The guest has died or hangs. */
static void act(Machine *m, MachineAction action, MachineEnd why, const char *paused_by)
{
    g_autoptr(GError) error = NULL;
    switch (action) {
    case MACHINE_ACTION_RESET:
        if (!m->no_reboot) {
            reset_now(m, MACHINE_EVENT_GUEST_RESET);
            break;
        }
        end(m, why, 0, NULL);
        break;
    case MACHINE_ACTION_POWEROFF:
        end(m, why, 0, NULL);
        break;
    case MACHINE_ACTION_PAUSE:
        m->paused_by = paused_by;
        if (machine_pause(m, &error))
            break;
        lodge_warn("%s", error->message);
        m->paused_by = NULL;
        break;
    case MACHINE_ACTION_SHUTDOWN:
        machine_power_button(m);
        cpu_set_run(m->cpus);
        break;
    case MACHINE_ACTION_NONE:
        cpu_set_run(m->cpus);
        break;
    }
}

static void panicked(Machine *m)
{
    machine_tell(m, &(MachineNews){.what = MACHINE_EVENT_PANICKED, .action = m->on_panic});
    if (m->on_panic != MACHINE_ACTION_POWEROFF) /* else the end is told */
        lodge_warn("the guest's kernel died (panic): %s", machine_action_name(m->on_panic));
    act(m, m->on_panic, MACHINE_END_PANIC, "guest-panicked");
}

static void watchdog_bites(Machine *m)
{
    machine_tell(m, &(MachineNews){.what = MACHINE_EVENT_WATCHDOG, .action = m->watchdog_action});
    if (m->watchdog_action != MACHINE_ACTION_POWEROFF)
        lodge_warn("the guest hangs (watchdog): %s", machine_action_name(m->watchdog_action));
    act(m, m->watchdog_action, MACHINE_END_WATCHDOG, "watchdog");
}

/* Carry out what was asked, the weightiest first. */
static gboolean machine_poll(gpointer opaque)
{
    Machine *m = opaque;
    bool running = m->state == MACHINE_RUNNING;
    lodge_lock(&m->request_lock);
    unsigned asked = m->requested;
    int status = m->exit_status;
    uint32_t ejected = m->ejected;
    VcpuDebugStop stop = m->debug_stop;
    m->poll_queued = false;
    if (running) /* else machine_resume() comes back to it */
        m->requested = m->ejected = 0;
    lodge_unlock(&m->request_lock);
    if (!running)
        return G_SOURCE_REMOVE;
    if (ejected)
        machine_eject(m, ejected);
    if (asked & (1u << BOARD_EXIT)) {
        end(m, MACHINE_END_EXIT, status, NULL);
    } else if (asked & REQUEST_CPU_STOPPED) {
        cpu_set_park(m->cpus);
        end(m, MACHINE_END_CPU, 0,
            crash_report(m->cpus, m->stopped_cpu, &m->stop_info, m->board.mem));
    } else if (asked & (1u << BOARD_PANIC)) {
        panicked(m);
    } else if (asked & (1u << BOARD_POWER_OFF)) {
        end(m, MACHINE_END_POWER_OFF, 0, NULL);
    } else if (asked & (REQUEST_TRIPLE_FAULT | REQUEST_HOST_RESET | 1u << BOARD_RESET)) {
        bool host = !(asked & (REQUEST_TRIPLE_FAULT | 1u << BOARD_RESET));
        if (m->no_reboot)
            end(m, MACHINE_END_RESET, host, NULL);
        else
            reset_now(m, host ? MACHINE_EVENT_HOST_RESET : MACHINE_EVENT_GUEST_RESET);
    } else if (asked & (1u << BOARD_WATCHDOG)) {
        watchdog_bites(m);
    } else if (asked & REQUEST_DISK_ERROR) {
        stall(m);
    } else if (asked & REQUEST_DEBUG) {
        debug_stop(m, &stop);
    } else {
        cpu_set_run(m->cpus); /* nothing that this version does: the guest runs on */
    }
    return G_SOURCE_REMOVE;
}

bool machine_start(Machine *m, GError **error)
{
    g_assert(m->state == MACHINE_BUILT);
    if (!loader_join(m, error) || (!m->boot && !machine_load(m, &m->loader.cpu, error)) ||
        !enter_guest(m, &m->loader.cpu, error))
        return false;
    m->times.load_ns = clock_host_ns();
    if (!cpu_set_start(m->cpus, error))
        return false;
    m->state = MACHINE_RUNNING;
    if (m->config.paused) {
        if (!rest(m, error))
            return false;
        m->state = MACHINE_PAUSED;
    } else {
        cpu_set_run(m->cpus);
    }
    m->times.start_ns = clock_host_ns();
    return true;
}

bool machine_pause(Machine *m, GError **error)
{
    if (m->state != MACHINE_RUNNING)
        return lodge_fail(error, LODGE_ERROR_STATE, "the machine is not running");
    if (!rest(m, error)) {
        cpu_set_run(m->cpus);
        return false;
    }
    /* A vCPU that stops for its debugger at this moment does so again when it goes on; told late,
     * its stop would be one that nobody waits for. */
    lodge_lock(&m->request_lock);
    m->requested &= ~REQUEST_DEBUG;
    lodge_unlock(&m->request_lock);
    m->state = MACHINE_PAUSED;
    tell(m, MACHINE_EVENT_PAUSED);
    return true;
}

/* Go on, with what came in meanwhile. */
static void go_on_asked(Machine *m)
{
    if (m->stalled) {
        m->stalled = false;
        start_clocks(m);
        machine_disks_retry(m, false);
        cpu_set_run(m->cpus);
    } else {
        go_on(m);
    }
    lodge_lock(&m->request_lock);
    unsigned asked = m->requested;
    lodge_unlock(&m->request_lock);
    if (asked)
        machine_request(m, asked);
}

void machine_debug_resume(Machine *m)
{
    if (m->state != MACHINE_PAUSED)
        return;
    m->state = MACHINE_RUNNING;
    m->paused_by = NULL;
    tell(m, MACHINE_EVENT_RESUMED);
    go_on_asked(m);
}

void machine_resume(Machine *m)
{
    if (m->state == MACHINE_PAUSED)
        release_cpus(m);
    machine_debug_resume(m);
}

CpuSet *machine_cpus(Machine *m)
{
    return m->cpus;
}

void machine_debug_listen(Machine *m, void (*fn)(void *opaque, const VcpuDebugStop *stop),
                          void *opaque)
{
    m->debug_listener = fn;
    m->debug_opaque = opaque;
}

bool machine_hold(Machine *m, GError **error)
{
    if (m->state == MACHINE_BUILT || m->state == MACHINE_ENDED)
        return lodge_fail(error, LODGE_ERROR_STATE, "the machine is not running");
    if (m->stalled)
        return lodge_fail(error, LODGE_ERROR_STATE,
                          "the machine waits behind an error of a disk; let it go on first");
    if (m->state == MACHINE_PAUSED || rest(m, error))
        return true;
    cpu_set_run(m->cpus);
    return false;
}

void machine_let_go(Machine *m)
{
    if (m->state == MACHINE_RUNNING)
        go_on_asked(m);
}

void machine_listen(Machine *m, void (*fn)(void *opaque, const MachineNews *news), void *opaque)
{
    m->listener = fn;
    m->listener_opaque = opaque;
}

void machine_power_button(Machine *m)
{
    if (m->pc.pm)
        acpi_pm_power_button(m->pc.pm);
    tell(m, MACHINE_EVENT_POWER_BUTTON);
}

void machine_reset(Machine *m)
{
    /* A paused one is reset when it goes on. */
    if (m->state == MACHINE_RUNNING || m->state == MACHINE_PAUSED)
        machine_request(m, REQUEST_HOST_RESET);
}

void machine_kill(Machine *m, int status)
{
    end(m, MACHINE_END_KILLED, status, NULL);
}

MachineState machine_state(const Machine *m)
{
    return m->state;
}

const char *machine_paused_by(const Machine *m)
{
    return m->paused_by;
}

bool machine_stalled(const Machine *m)
{
    return m->stalled;
}

Chan *machine_chan(Machine *m, const char *name)
{
    return g_hash_table_lookup(m->chans, name);
}

Board *machine_board(Machine *m)
{
    return &m->board;
}

const GPtrArray *machine_nets(Machine *m)
{
    return m->net_order;
}

const GPtrArray *machine_devices(Machine *m)
{
    return m->devices;
}

void machine_times(const Machine *m, MachineTimes *ret_times)
{
    *ret_times = m->times;
}

const char *machine_boot_text(const Machine *m)
{
    return m->boot ? boot_describe(m->boot) : "firmware";
}

const char *machine_kernel_banner(const Machine *m)
{
    return m->boot ? boot_kernel_banner(m->boot) : NULL;
}

uint64_t machine_exits(const Machine *m)
{
    return m->cpus ? cpu_set_exits(m->cpus) : 0;
}

void machine_free(Machine *m)
{
    if (!m)
        return;
    if (m->state == MACHINE_RUNNING)
        end(m, MACHINE_END_KILLED, 0, NULL);
    (void)loader_join(m, NULL); /* whoever frees an unstarted machine has an error already */
    if (m->stuck) {
        /* What is under way holds pointers into all of it; the process is about to end. */
        cpu_set_park(m->cpus);
        return;
    }
    cpu_set_free(g_steal_pointer(&m->cpus));
    while (g_source_remove_by_user_data(m)) {
        /* polls that are still queued on the default context */
    }
    if (m->devices) {
        while (m->devices->len) {
            device_free(g_ptr_array_index(m->devices, m->devices->len - 1));
            g_ptr_array_set_size(m->devices, (gint)m->devices->len - 1);
        }
        g_ptr_array_free(m->devices, TRUE);
    }
    display_free(m->board.display);
    input_free(m->board.input);
    if (m->net_order)
        g_ptr_array_free(m->net_order, TRUE);
    g_clear_pointer(&m->nets, g_hash_table_destroy);
    g_clear_pointer(&m->blks, g_hash_table_destroy);
    g_clear_pointer(&m->disk_watches, g_hash_table_destroy);
    g_clear_pointer(&m->chans, g_hash_table_destroy);
    for (unsigned i = 0; i < MACHINE_DISK_LOOPS; i++)
        io_thread_free(m->disk_io[i]);
    io_thread_free(m->io);
    boot_free(m->boot);
    tree_free(m->now);
    kvm_free(m->kvm);
    irq_free(m->board.irq);
    bus_free(m->board.pio);
    bus_free(m->board.mmio);
    mem_map_free(m->board.mem);
    lodge_clock_free(m->board.clock);
    g_main_context_unref(m->context);
    lodge_lock_clear(&m->request_lock);
    g_free(m->result.report);
    g_free(m);
}
