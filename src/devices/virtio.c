// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The life of a virtio device.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, sections 2.1 "Device Status Field", 2.2 "Feature Bits",
 * 2.4 "Device Reset", 3.1 "Device Initialization". A driver must accept VIRTIO_F_VERSION_1; there
 * is no legacy interface. Left out: packed rings, queue reset, ACCESS_PLATFORM, suspend.
 *
 * Threads: a vCPU writes the status register and holds no lock while the loop thread starts or
 * stops the rings on its behalf; main quiesces and resumes; the loop thread handles kicks. Where a
 * device has several lanes, each of these is done lane by lane, on its loop, and over when all are.
 *
 * Invariants:
 * (1) Rings are used by their lane's loop only, between start_lane() and stop_lane(); both run on
 *     the loop, or where it cannot be (quiet device, no loop) under the device's lock.
 * (2) start_lane() and stop_on_lane() look at the registers under the lock at the moment that they
 *     run, so vCPUs that race on the status register end in the state of the last write.
 * (3) The status register reads 0 after a reset only when no request holds guest memory.
 * (4) A broken device touches no ring until it is reset.
 */
#include "virtio.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

enum { PUMP_ROUNDS = 64 }; /* kick handlers run for one kick, without a loop */

/* Features of every device. */
static const VirtioFeature ring_features[] = {
    {VIRTIO_RING_F_INDIRECT_DESC, "indirect_desc", 0},
    {VIRTIO_RING_F_EVENT_IDX, "event_idx", 0},
    {VIRTIO_F_VERSION_1, "version_1", 0},
    {0, NULL, 0},
};

/* ---- features ---- */

static const VirtioFeature *unmet_feature(const VirtioFeature *table, uint64_t features)
{
    for (const VirtioFeature *f = table; f && f->name; f++) {
        if ((features & VIRTIO_BIT(f->bit)) && (f->needs & ~features))
            return f;
    }
    return NULL;
}

bool virtio_features_ok(VirtioDev *vd, uint64_t features)
{
    const VirtioFeature *f = unmet_feature(vd->vc->features, features);

    if (features & ~vd->offered) {
        guest_fault(&vd->pci.dev, "accepts features that were not offered");
        return false;
    }
    if (!(features & VIRTIO_BIT(VIRTIO_F_VERSION_1))) {
        guest_fault(&vd->pci.dev, "does not accept version 1");
        return false;
    }
    if (f) {
        guest_fault(&vd->pci.dev, "accepts %s without what it needs", f->name);
        return false;
    }
    return true;
}

/* ---- running on the loop ---- */

bool virtio_may_run(VirtioDev *vd)
{
    return __atomic_load_n(&vd->live, __ATOMIC_RELAXED) &&
           !__atomic_load_n(&vd->broken, __ATOMIC_RELAXED) &&
           !__atomic_load_n(&vd->lane[0].quiet, __ATOMIC_RELAXED);
}

/* Rings run only while the device is started. */
bool virtio_queue_may_run(VirtioDev *vd, unsigned q)
{
    return virtqueue_running(&vd->q[q].vq) && !__atomic_load_n(&vd->broken, __ATOMIC_RELAXED) &&
           !__atomic_load_n(&virtio_lane(vd, q)->quiet, __ATOMIC_RELAXED);
}

/* The queue of the lane that comes after @q; the first is lane_first(). */
static unsigned lane_next(const VirtioLane *l, unsigned q)
{
    unsigned group = l->vd->lane_group;

    return ++q % group ? q : q + (l->vd->lanes - 1) * group;
}

static unsigned lane_first(const VirtioLane *l)
{
    return l->index * l->vd->lane_group;
}

bool virtio_here(VirtioDev *vd, unsigned q)
{
    IoThread *io = virtio_lane(vd, q)->io;
    return !io || io_thread_is_current(io);
}

static void handle_kick(VirtioQ *q)
{
    if (virtio_queue_may_run(q->vd, q->index))
        q->vd->vc->kick(q->vd, q->index);
}

static void on_kick(void *opaque, uint32_t events)
{
    /* Edge-triggered: each write of the eventfd is an event, so its counter need not be read. */
    handle_kick(opaque);
}

void virtio_notify_off(VirtioDev *vd, unsigned q)
{
    vd->q[q].armed = false;
    virtqueue_notify_off(&vd->q[q].vq);
}

static bool is_polled(VirtioDev *vd, unsigned q)
{
    return virtio_lane(vd, q)->poll && (!vd->vc->polls || vd->vc->polls(vd, q));
}

bool virtio_notify_on(VirtioDev *vd, unsigned q)
{
    return !is_polled(vd, q) && virtqueue_notify_on(&vd->q[q].vq);
}

static bool poll_look(void *opaque)
{
    VirtioLane *l = opaque;
    VirtioDev *vd = l->vd;
    bool found = false;

    for (unsigned i = lane_first(l); i < vd->queues; i = lane_next(l, i)) {
        if (!is_polled(vd, i) || !virtqueue_has_more(&vd->q[i].vq) || !virtio_queue_may_run(vd, i))
            continue;
        vd->vc->kick(vd, i);
        found = true;
    }
    return found;
}

static bool poll_arm(void *opaque, bool on)
{
    VirtioLane *l = opaque;
    VirtioDev *vd = l->vd;
    bool found = false;

    for (unsigned i = lane_first(l); i < vd->queues; i = lane_next(l, i)) {
        VirtioQ *q = &vd->q[i];

        if (!is_polled(vd, i) || q->armed == on || !virtio_queue_may_run(vd, i))
            continue;
        if (!on) {
            virtio_notify_off(vd, i);
            continue;
        }
        q->armed = !virtqueue_notify_on(&q->vq);
        found |= !q->armed;
    }
    return found;
}

static const IoPollOps poll_ops = {.look = poll_look, .arm = poll_arm};

/* Without a loop: handle what is pending, here. Handlers may kick again, which nests no deeper. */
static void pump(VirtioDev *vd)
{
    if (vd->pumping)
        return;
    vd->pumping = true;
    for (unsigned i = 0; vd->pending && i < PUMP_ROUNDS; i++) {
        unsigned q = (unsigned)__builtin_ctzll(vd->pending);

        vd->pending &= ~VIRTIO_BIT(q);
        handle_kick(&vd->q[q]);
    }
    vd->pumping = false;
}

void virtio_kick(VirtioDev *vd, unsigned q)
{
    if (q >= vd->queues)
        return;
    if (vd->io) {
        /* Fails only where the counter is full, and then the event is there already. */
        (void)eventfd_write(vd->q[q].fd, 1);
        return;
    }
    vd->pending |= VIRTIO_BIT(q);
    pump(vd);
}

void virtio_kick_again(VirtioDev *vd, unsigned q)
{
    if (vd->io)
        (void)eventfd_write(vd->q[q].fd, 1); /* as above */
    else
        vd->pending |= VIRTIO_BIT(q);
}

static void kick_all(VirtioLane *l)
{
    VirtioDev *vd = l->vd;

    for (unsigned i = lane_first(l); i < vd->queues; i = lane_next(l, i)) {
        if (virtqueue_running(&vd->q[i].vq))
            virtio_kick_again(vd, i);
    }
    if (!vd->io)
        pump(vd);
}

/* ---- start ---- */

static VirtQueueSetup ring_setup(const VirtioDev *vd, const VirtioQueueRegs *r)
{
    uint64_t f = vd->regs.driver_features;

    return (VirtQueueSetup){
        .desc_gpa = r->desc,
        .avail_gpa = r->avail,
        .used_gpa = r->used,
        .size = r->size,
        .last_avail = r->last_avail,
        .used_idx = r->used_idx,
        .indirect = f & VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC),
        .event_idx = f & VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX),
    };
}

const char *virtio_start_rings_locked(VirtioLane *l)
{
    VirtioDev *vd = l->vd;

    if (!l->index) /* the first one starts first */
        vd->features = vd->regs.driver_features;
    for (unsigned i = lane_first(l); i < vd->queues; i = lane_next(l, i)) {
        VirtioQueueRegs *r = &vd->regs.q[i];
        VirtQueueSetup s = ring_setup(vd, r);
        const char *why;

        if (!r->enabled || vd->q[i].vq.size)
            continue;
        if (!virtqueue_start(&vd->q[i].vq, vd->pci.dev.board->mem, &s, &why))
            return why;
    }
    if (!l->index)
        __atomic_store_n(&vd->live, true, __ATOMIC_RELAXED);
    return NULL;
}

/* On the loop; keeps (2). */
static void start_lane(void *opaque)
{
    VirtioLane *l = opaque;
    VirtioDev *vd = l->vd;
    const char *why = NULL;
    bool go, first;

    lodge_lock(&vd->pci.dev.lock);
    go = (vd->regs.status & VIRTIO_CONFIG_S_DRIVER_OK) &&
         !(vd->regs.status & VIRTIO_CONFIG_S_NEEDS_RESET) && !vd->regs.resetting;
    first = !l->index && !vd->live;
    if (go)
        why = virtio_start_rings_locked(l);
    lodge_unlock(&vd->pci.dev.lock);
    if (!go)
        return;
    if (why) {
        virtio_break(vd, why);
        return;
    }
    if (first && vd->vc->started)
        vd->vc->started(vd);
    kick_all(l);
}

/* Call @fn(lane) on each lane's loop; a board without threads has no other place than this. */
static void on_lanes(VirtioDev *vd, IoCallFn fn, bool wait)
{
    for (unsigned i = 0; i < vd->lanes; i++) {
        VirtioLane *l = &vd->lane[i];

        if (!l->io)
            fn(l);
        else if (wait)
            io_thread_call(l->io, fn, l);
        else
            io_thread_post(l->io, fn, l);
    }
}

void virtio_sync_rings(VirtioDev *vd)
{
    on_lanes(vd, start_lane, true);
    lodge_lock(&vd->pci.dev.lock);
    virtio_pci_eventfds_locked(vd, vd->live && !vd->regs.resetting);
    lodge_unlock(&vd->pci.dev.lock);
}

/* ---- reset ---- */

/* Take the lane's rings away; the device forgets what it holds, but for requests under way. */
static void stop_lane(VirtioLane *l)
{
    VirtioDev *vd = l->vd;

    if (!l->index) {
        __atomic_store_n(&vd->live, false, __ATOMIC_RELAXED);
        vd->pending = 0;
    }
    for (unsigned i = lane_first(l); i < vd->queues; i = lane_next(l, i)) {
        virtqueue_stop(&vd->q[i].vq);
        vd->q[i].vq.broken = false;
        vd->q[i].armed = false;
    }
    if (vd->vc->lane_stopped)
        vd->vc->lane_stopped(l);
    if (!l->index && vd->vc->stopped)
        vd->vc->stopped(vd);
}

/* Registers to their values after reset. */
static void regs_reset_locked(VirtioDev *vd)
{
    lock_assert_held(&vd->pci.dev.lock);
    memset(&vd->regs, 0, sizeof vd->regs);
    __atomic_store_n(&vd->broken, false, __ATOMIC_RELAXED);
    vd->features = 0;
    vd->regs.config_vector = VIRTIO_MSI_NO_VECTOR;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        vd->regs.q[i].vector = VIRTIO_MSI_NO_VECTOR;
        vd->regs.q[i].size = i < vd->queues ? vd->queue_max : 0;
    }
    virtio_pci_reset_locked(vd);
}

/* No request of a lane that was stopped holds guest memory; the last one ends the reset. */
static void lane_settled(VirtioDev *vd)
{
    lodge_lock(&vd->pci.dev.lock);
    if (--vd->unsettled == 0)
        regs_reset_locked(vd);
    lodge_unlock(&vd->pci.dev.lock);
}

/* On the loop; keeps (2) and (3). */
static void stop_on_lane(void *opaque)
{
    VirtioLane *l = opaque;
    VirtioDev *vd = l->vd;
    bool go;

    lodge_lock(&vd->pci.dev.lock);
    go = l->reset_due;
    l->reset_due = false;
    lodge_unlock(&vd->pci.dev.lock);
    if (!go)
        return;
    stop_lane(l);
    l->stopping = l->inflight > 0;
    if (!l->stopping)
        lane_settled(vd);
}

/* The registers stay as they are until every lane has stopped. */
static void begin_reset_locked(VirtioDev *vd)
{
    lock_assert_held(&vd->pci.dev.lock);
    vd->regs.resetting = true;
    vd->unsettled = vd->lanes;
    for (unsigned i = 0; i < vd->lanes; i++)
        vd->lane[i].reset_due = true;
}

static void driver_reset(VirtioDev *vd)
{
    bool first;

    lodge_lock(&vd->pci.dev.lock);
    first = !vd->regs.resetting;
    if (first && !(vd->regs.status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET))) {
        regs_reset_locked(vd);
        first = false;
    } else if (first) {
        begin_reset_locked(vd);
        virtio_pci_eventfds_locked(vd, false);
    }
    lodge_unlock(&vd->pci.dev.lock);
    if (first)
        on_lanes(vd, stop_on_lane, true);
}

static bool all_quiet(const VirtioDev *vd)
{
    for (unsigned i = 0; i < vd->lanes; i++) {
        if (!__atomic_load_n(&vd->lane[i].quiet, __ATOMIC_ACQUIRE))
            return false;
    }
    return true;
}

void virtio_reset(Device *d, ResetKind kind)
{
    VirtioDev *vd = (VirtioDev *)d;

    pci_reset(&vd->pci);
    virtio_pci_eventfds_locked(vd, false);
    if (vd->regs.resetting) { /* one is under way, and ends as this one would */
        virtio_pci_msix_sync_locked(vd);
        return;
    }
    if (vd->io && vd->live && !all_quiet(vd)) {
        /* The loops may be in a handler now: they stop the rings themselves. */
        begin_reset_locked(vd);
        virtio_pci_msix_sync_locked(vd);
        on_lanes(vd, stop_on_lane, false);
        return;
    }
    vd->unsettled = 0;
    for (unsigned i = 0; i < vd->lanes; i++) {
        VirtioLane *l = &vd->lane[i];

        stop_lane(l);
        l->stopping = l->inflight > 0;
        vd->unsettled += l->stopping;
    }
    if (vd->unsettled) {
        vd->regs.resetting = true;
        virtio_pci_msix_sync_locked(vd);
        return;
    }
    regs_reset_locked(vd);
}

/* Keeps (3), and lets a quiesce end. */
static void settle(VirtioLane *l)
{
    VirtioDev *vd = l->vd;

    if (l->inflight)
        return;
    if (l->stopping) {
        l->stopping = false;
        lane_settled(vd);
    }
    if (l->quieting) {
        l->quieting = false;
        if (__atomic_sub_fetch(&vd->unquiet, 1, __ATOMIC_ACQ_REL) == 0)
            device_quiesced(&vd->pci.dev);
    }
}

void virtio_lane_get(VirtioLane *l)
{
    l->inflight++;
}

void virtio_lane_put(VirtioLane *l)
{
    g_assert(l->inflight);
    l->inflight--;
    if (!l->inflight && (l->stopping || l->quieting))
        settle(l);
}

/* ---- the status register ---- */

void virtio_write_status(VirtioDev *vd, uint8_t val)
{
    bool start = false;

    if (!val) {
        driver_reset(vd);
        return;
    }
    lodge_lock(&vd->pci.dev.lock);
    if (!vd->regs.resetting) {
        uint8_t old = vd->regs.status, now;

        /* 2.1.1: a driver only adds bits; NEEDS_RESET is ours. */
        now = old | (val & ~VIRTIO_CONFIG_S_NEEDS_RESET);
        if ((now & ~old & VIRTIO_CONFIG_S_FEATURES_OK) &&
            !virtio_features_ok(vd, vd->regs.driver_features))
            now &= ~VIRTIO_CONFIG_S_FEATURES_OK;
        if ((now & VIRTIO_CONFIG_S_DRIVER_OK) && !(now & VIRTIO_CONFIG_S_FEATURES_OK)) {
            guest_fault(&vd->pci.dev, "driver is ready before its features are accepted");
            now &= ~VIRTIO_CONFIG_S_DRIVER_OK;
        }
        vd->regs.status = now;
        start = now & ~old & VIRTIO_CONFIG_S_DRIVER_OK;
    }
    lodge_unlock(&vd->pci.dev.lock);
    if (start)
        virtio_sync_rings(vd);
}

void virtio_break_locked(VirtioDev *vd, const char *why)
{
    lock_assert_held(&vd->pci.dev.lock);
    guest_fault(&vd->pci.dev, "%s", why);
    if (vd->regs.resetting || (vd->regs.status & VIRTIO_CONFIG_S_NEEDS_RESET))
        return;
    vd->regs.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    /* 2.1.2: the driver is told if it was ready. */
    if (vd->regs.status & VIRTIO_CONFIG_S_DRIVER_OK)
        virtio_pci_interrupt_config_locked(vd);
}

void virtio_break(VirtioDev *vd, const char *why)
{
    __atomic_store_n(&vd->broken, true, __ATOMIC_RELAXED);
    lodge_lock(&vd->pci.dev.lock);
    virtio_break_locked(vd, why);
    lodge_unlock(&vd->pci.dev.lock);
}

/* ---- for devices ---- */

bool virtio_pop(VirtioDev *vd, unsigned q, VirtChain *c)
{
    VirtQueue *vq = &vd->q[q].vq;

    if (__atomic_load_n(&vd->broken, __ATOMIC_RELAXED))
        return false;
    switch (virtqueue_pop(vq, c)) {
    case VIRTQ_CHAIN:
        return true;
    case VIRTQ_BROKEN:
        virtio_break(vd, vq->why);
        return false;
    case VIRTQ_EMPTY:
        break;
    }
    return false;
}

void virtio_publish(VirtioDev *vd, unsigned q)
{
    if (virtqueue_publish(&vd->q[q].vq))
        virtio_pci_interrupt(vd, &vd->q[q]);
}

void virtio_config_set(VirtioDev *vd, unsigned off, const void *from, unsigned len)
{
    g_assert(range_within(off, len, VIRTIO_CONFIG_MAX));
    lodge_lock(&vd->pci.dev.lock);
    if (memcmp(vd->config + off, from, len)) {
        memcpy(vd->config + off, from, len);
        vd->regs.generation++;
        if ((vd->regs.status & VIRTIO_CONFIG_S_DRIVER_OK) && !vd->regs.resetting)
            virtio_pci_interrupt_config_locked(vd);
    }
    lodge_unlock(&vd->pci.dev.lock);
}

/* ---- quiesce and resume ---- */

static void quiet_on_lane(void *opaque)
{
    VirtioLane *l = opaque;
    VirtioDev *vd = l->vd;

    __atomic_store_n(&l->quiet, true, __ATOMIC_RELEASE);
    if (__atomic_load_n(&vd->live, __ATOMIC_RELAXED) && vd->vc->quieted)
        vd->vc->quieted(vd);
    l->quieting = true;
    settle(l);
}

void virtio_quiesce(Device *d)
{
    VirtioDev *vd = (VirtioDev *)d;

    __atomic_store_n(&vd->unquiet, vd->lanes, __ATOMIC_RELEASE);
    on_lanes(vd, quiet_on_lane, false);
}

static void resume_on_lane(void *opaque)
{
    VirtioLane *l = opaque;
    VirtioDev *vd = l->vd;

    __atomic_store_n(&l->quiet, false, __ATOMIC_RELEASE);
    l->quieting = false;
    if (!l->index && vd->live && vd->vc->started)
        vd->vc->started(vd);
    kick_all(l);
}

void virtio_resume(Device *d)
{
    on_lanes((VirtioDev *)d, resume_on_lane, false);
}

/* ---- realize ---- */

static bool make_queues(VirtioDev *vd, GError **error)
{
    vd->q = g_new0(VirtioQ, vd->queues);
    for (unsigned i = 0; i < vd->queues; i++) {
        vd->q[i].vd = vd;
        vd->q[i].index = i;
        vd->q[i].fd = -1;
    }
    for (unsigned i = 0; vd->io && i < vd->queues; i++) {
        VirtioQ *q = &vd->q[i];

        IoThread *io = virtio_lane(vd, i)->io;

        q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (q->fd < 0)
            return lodge_fail_errno(error, errno, "%s: cannot make an eventfd", vd->pci.dev.id);
        q->watch = io_watch_new(io, q->fd, EPOLLIN | EPOLLET, on_kick, q, error);
        if (!q->watch)
            return false;
    }
    for (unsigned i = 0; vd->io && vd->vc->polled && i < vd->lanes; i++)
        vd->lane[i].poll = io_poll_new(vd->lane[i].io, &poll_ops, &vd->lane[i]);
    return true;
}

void virtio_set_lanes(VirtioDev *vd, IoThread *const *io, unsigned n, unsigned group)
{
    g_assert(n && n <= VIRTIO_LANES_MAX && group);
    vd->lanes = n;
    vd->lane_group = group;
    for (unsigned i = 0; i < n; i++)
        vd->lane[i].io = io[i];
}

bool virtio_realize(VirtioDev *vd, const VirtioClass *vc, IoThread *io, uint64_t offered,
                    unsigned queues, uint16_t entries, unsigned config_len, GError **error)
{
    g_assert(queues && queues <= VIRTIO_QUEUES_MAX && queues < PCI_MSIX_MAX);
    g_assert(is_power_of_two(entries) && entries <= VIRTQ_SIZE_MAX);
    g_assert(config_len <= VIRTIO_CONFIG_MAX);
    vd->vc = vc;
    vd->io = io;
    if (!io || !vd->lanes)
        virtio_set_lanes(vd, &io, 1, 1);
    g_assert(vd->lane[0].io == io);
    for (unsigned i = 0; i < vd->lanes; i++) {
        vd->lane[i].vd = vd;
        vd->lane[i].index = i;
    }
    vd->offered = offered;
    for (const VirtioFeature *f = ring_features; f->name; f++)
        vd->offered |= VIRTIO_BIT(f->bit);
    g_assert(!unmet_feature(vc->features, vd->offered));
    vd->queues = queues;
    vd->queue_max = entries;
    vd->config_len = config_len;
    vd->notify_gpa = UINT64_MAX;
    if (virtio_pci_realize(vd, error) && make_queues(vd, error))
        return true;
    virtio_unrealize(vd);
    return false;
}

void virtio_unrealize(VirtioDev *vd)
{
    if (!vd->vc)
        return;
    if (vd->q) {
        lodge_lock(&vd->pci.dev.lock);
        virtio_pci_eventfds_locked(vd, false);
        lodge_unlock(&vd->pci.dev.lock);
    }
    for (unsigned i = 0; i < vd->lanes; i++)
        io_poll_free(g_steal_pointer(&vd->lane[i].poll));
    for (unsigned i = 0; vd->q && i < vd->queues; i++) {
        io_watch_free(vd->q[i].watch);
        if (vd->q[i].fd >= 0)
            close(vd->q[i].fd);
    }
    g_clear_pointer(&vd->q, g_free);
    pci_unrealize(&vd->pci);
    vd->vc = NULL;
}
