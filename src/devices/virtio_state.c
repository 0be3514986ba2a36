// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A virtio device's registers to and from a snapshot. What is loaded is hostile: it is put in force
 * only where a driver could have left it so.
 *
 * Threads: main, with the device quiesced.
 */
#include "virtio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "lodge/error.h"
#include "lodge/num.h"

static const StateField queue_fields[] = {
    ST_U(VirtioQueueRegs, desc, UINT64_MAX),
    ST_U(VirtioQueueRegs, avail, UINT64_MAX),
    ST_U(VirtioQueueRegs, used, UINT64_MAX),
    ST_U(VirtioQueueRegs, size, VIRTQ_SIZE_MAX),
    ST_U(VirtioQueueRegs, vector, UINT16_MAX),
    ST_U(VirtioQueueRegs, last_avail, UINT16_MAX),
    ST_U(VirtioQueueRegs, used_idx, UINT16_MAX),
    ST_U(VirtioQueueRegs, enabled, 1),
    ST_END,
};
static const StateDesc queue_state = {.name = "queue", .version = 1, .oldest = 1,
                                      .regs_size = sizeof(VirtioQueueRegs),
                                      .fields = queue_fields};

static const StateField virtio_fields[] = {
    ST_U(VirtioRegs, driver_features, UINT64_MAX),
    ST_U(VirtioRegs, device_feature_sel, UINT32_MAX),
    ST_U(VirtioRegs, driver_feature_sel, UINT32_MAX),
    ST_U(VirtioRegs, config_vector, UINT16_MAX),
    ST_U(VirtioRegs, queue_sel, UINT16_MAX),
    ST_U(VirtioRegs, status, UINT8_MAX),
    ST_U(VirtioRegs, isr, VIRTIO_PCI_ISR_CONFIG | 1),
    ST_U(VirtioRegs, generation, UINT8_MAX),
    ST_B(VirtioRegs, resetting),
    ST_SUBS(VirtioRegs, q, VIRTIO_QUEUES_MAX, &queue_state),
    ST_END,
};
const StateDesc virtio_state = {.name = "virtio", .version = 1, .oldest = 1,
                                .regs_size = sizeof(VirtioRegs), .fields = virtio_fields};

static const StateField saved_fields[] = {
    ST_SUBS(VirtioSaved, pci, 1, &pci_state),
    ST_SUBS(VirtioSaved, virtio, 1, &virtio_state),
    ST_END,
};
const StateDesc virtio_saved_state = {.name = "virtio-pci", .version = 1, .oldest = 1,
                                      .regs_size = sizeof(VirtioSaved), .fields = saved_fields};

/**
 * virtio_pre_save() - Collect the registers, ring indices among them, for a snapshot
 * @ret_saved: filled
 * Context: main thread, quiesced: nothing is in flight, so the indices say all.
 */
void virtio_pre_save(VirtioDev *vd, VirtioSaved *ret_saved)
{
    for (unsigned i = 0; i < vd->queues; i++) {
        const VirtQueue *vq = &vd->q[i].vq;
        VirtioQueueRegs *r = &vd->regs.q[i];

        if (!vq->size)
            continue;
        r->last_avail = vq->last_avail;
        r->used_idx = vq->used_idx;
    }
    pci_pre_save(&vd->pci);
    ret_saved->pci = vd->pci.regs;
    ret_saved->virtio = vd->regs;
}

static bool vector_valid(const VirtioDev *vd, uint16_t v)
{
    return v == VIRTIO_MSI_NO_VECTOR || v < vd->pci.msix_vectors;
}

static bool regs_valid(VirtioDev *vd, const VirtioRegs *r)
{
    bool accepted = r->status & VIRTIO_CONFIG_S_FEATURES_OK;

    if (r->resetting || !vector_valid(vd, r->config_vector))
        return false;
    if (accepted && !virtio_features_ok(vd, r->driver_features))
        return false;
    if ((r->status & VIRTIO_CONFIG_S_DRIVER_OK) && !accepted)
        return false;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        const VirtioQueueRegs *q = &r->q[i];

        if (!vector_valid(vd, q->vector))
            return false;
        if (i >= vd->queues ? q->enabled || q->size
                            : !is_power_of_two(q->size) || q->size > vd->queue_max)
            return false;
    }
    return true;
}

/**
 * virtio_post_load() - Put loaded registers in force and bring the rings up
 * @s: as state_load() filled it; checked here
 * Context: main thread; the device was reset and is quiesced or has no loop.
 * Return:  false with LODGE_ERROR_IMAGE: registers that no driver could have left.
 */
bool virtio_post_load(VirtioDev *vd, const VirtioSaved *s, GError **error)
{
    const char *why = NULL;
    bool ok = false;

    if (!regs_valid(vd, &s->virtio))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: its registers contradict each other",
                          vd->pci.dev.id);
    lodge_lock(&vd->pci.dev.lock);
    vd->pci.regs = s->pci;
    vd->regs = s->virtio;
    ok = pci_post_load(&vd->pci, error);
    if (ok) {
        for (unsigned i = 0; i < vd->queues; i++)
            __atomic_store_n(&vd->q[i].vector, vd->regs.q[i].vector, __ATOMIC_RELAXED);
        virtio_pci_msix_sync_locked(vd);
        vd->broken = vd->regs.status & VIRTIO_CONFIG_S_NEEDS_RESET;
        if (!vd->broken && (vd->regs.status & VIRTIO_CONFIG_S_DRIVER_OK)) {
            for (unsigned i = 0; !why && i < vd->lanes; i++)
                why = virtio_start_rings_locked(&vd->lane[i]);
            virtio_pci_eventfds_locked(vd, !why);
        }
    }
    lodge_unlock(&vd->pci.dev.lock);
    if (!ok)
        return false;
    if (why)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: %s", vd->pci.dev.id, why);
    return true;
}
