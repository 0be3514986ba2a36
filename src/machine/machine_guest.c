/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest tells of itself: how much memory it has, that it died, that it hangs or has halted;
 * and the words for what becomes of it then.
 *
 * A driver writes the size of its balloon after each megabyte, from a vCPU that must not wait. The
 * listener hears of it at most once a second, the last time with the size that stayed.
 */
#include <string.h>

#include "machine_internal.h"
#include "vcpu.h"
#include "virtio_balloon.h"

#define BALLOON_NEWS_US G_USEC_PER_SEC
#define RFLAGS_IF (1u << 9) /* Intel SDM volume 1, 3.4.3.3 */

Device *machine_balloon(Machine *m)
{
    for (unsigned i = 0; i < m->devices->len; i++) {
        Device *d = g_ptr_array_index(m->devices, i);
        if (is_virtio_balloon(d))
            return d;
    }
    return NULL;
}

static gboolean tell_balloon(gpointer opaque)
{
    Machine *m = opaque;
    Device *d = machine_balloon(m);
    lodge_lock(&m->request_lock);
    m->balloon_queued = false;
    m->balloon_told_us = g_get_monotonic_time();
    lodge_unlock(&m->request_lock);
    if (d && m->state != MACHINE_ENDED) {
        BalloonInfo info;
        virtio_balloon_info(d, &info);
        machine_tell(m, &(MachineNews){.what = MACHINE_EVENT_BALLOON,
                                       .balloon = info.ram - info.lent});
    }
    return G_SOURCE_REMOVE;
}

void machine_balloon_changed(Machine *m)
{
    lodge_lock(&m->request_lock);
    bool queue = !m->closed && !m->balloon_queued;
    int64_t wait = m->balloon_told_us + BALLOON_NEWS_US - g_get_monotonic_time();
    m->balloon_queued |= queue;
    lodge_unlock(&m->request_lock);
    if (!queue)
        return;
    GSource *s = wait > 0 ? g_timeout_source_new((guint)(wait / 1000 + 1)) : g_idle_source_new();
    g_source_set_callback(s, tell_balloon, m, NULL);
    g_source_attach(s, m->context);
    g_source_unref(s);
}

static const char *const actions[] = {
    [MACHINE_ACTION_POWEROFF] = "poweroff", [MACHINE_ACTION_RESET] = "reset",
    [MACHINE_ACTION_PAUSE] = "pause",       [MACHINE_ACTION_NONE] = "none",
    [MACHINE_ACTION_SHUTDOWN] = "shutdown",
};

const char *machine_action_name(MachineAction a)
{
    return actions[a];
}

bool machine_action_parse(const char *text, MachineAction *ret)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++) {
        if (!strcmp(text, actions[i])) {
            *ret = (MachineAction)i;
            return true;
        }
    }
    return false;
}

void machine_set_on_panic(Machine *m, MachineAction a)
{
    m->on_panic = a;
}

void machine_set_watchdog_action(Machine *m, MachineAction a)
{
    m->watchdog_action = a;
}

static bool stands(CpuSet *s, unsigned cpu)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    return vcpu_is_halted(s, cpu) && vcpu_regs(s, cpu, &regs, &sregs) && !(regs.rflags & RFLAGS_IF);
}

bool machine_is_halted(Machine *m)
{
    uint64_t now = m->state == MACHINE_RUNNING ? cpu_set_time_ns(m->cpus) : 0;
    bool all = true;

    /* One that waits for nothing takes no time; only then are the vCPUs stopped for a look. */
    if (!now || now != m->halt_seen_ns) {
        m->halt_seen_ns = now;
        return false;
    }
    cpu_set_park(m->cpus);
    for (unsigned i = 0; i < cpu_set_count(m->cpus) && all; i++)
        all = stands(m->cpus, i);
    cpu_set_run(m->cpus);
    return all;
}

bool machine_cpu_regs(Machine *m, unsigned cpu, VcpuRegs *ret, bool *ret_halted)
{
    bool running = m->state == MACHINE_RUNNING, ok;

    if (running)
        cpu_set_park(m->cpus);
    ok = vcpu_regs_read(m->cpus, cpu, ret);
    *ret_halted = vcpu_is_halted(m->cpus, cpu);
    if (running)
        cpu_set_run(m->cpus);
    return ok;
}
