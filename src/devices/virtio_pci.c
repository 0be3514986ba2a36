// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtio over PCI: registers, capabilities, kicks and interrupts.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, section 4.1 "Virtio Over PCI Bus", as a non-transitional
 * device: vendor 1af4, device 1040 + type, revision 1. BAR 0 is 16 KiB of memory:
 *   0x0000 common configuration   0x1000 ISR status   0x2000 device configuration
 *   0x3000 notifications, 4 bytes a queue
 * BAR 1 is MSI-X. The configuration access capability (4.1.4.9) reaches BAR 0 too. Left out: the
 * port-I/O interface of legacy devices, notification data, shared memory. Bus mastering is not
 * looked at: a driver that clears it and leaves the rings running keeps its own memory written.
 *
 * Threads: vCPUs enter without a lock (the BAR has none) and take the device's lock for registers
 * only. Starting and stopping waits for the loop thread, so no lock is held then. Kicks come by
 * ioeventfd while the device is started, and else through the same address here; both write the
 * queue's eventfd. The loop thread raises MSI-X vectors without a lock and takes the device's lock
 * for INTx and for the ISR.
 *
 * Invariants:
 * (1) VirtioQ.vector and msix_on equal the registers whenever the lock is free.
 * (2) The eventfds are registered at notify_gpa, all or none.
 */
#include "virtio.h"

#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "lodge/num.h"

enum {
    VENDOR_ID = 0x1af4,
    DEVICE_ID_BASE = 0x1040,
    REVISION = 1,
    SUBSYSTEM_ID = 0x1100,
    PIN_INTA = 1,
    BAR_REGS = 0,
    BAR_MSIX = 1,
    BAR_REGS_LEN = 0x4000,
    COMMON_AT = 0x0000,
    ISR_AT = 0x1000,
    DEVICE_AT = 0x2000,
    NOTIFY_AT = 0x3000,
    WINDOW_LEN = 0x1000, /* between those */
    NOTIFY_MULTIPLIER = 4,
    COMMON_LEN = sizeof(struct virtio_pci_common_cfg),
    CAP_ID_VENDOR = 0x09,
    CAP_DATA = sizeof(struct virtio_pci_cap), /* pci_cfg_data, notify_off_multiplier */
    CAP_DATA_LEN = 4,
    FEATURE_WORDS = 2,
    WORD_BITS = 32,
};

#define ISR_QUEUE 1

/* ---- interrupts ---- */

static void raise_locked(VirtioDev *vd, uint16_t vector, uint8_t isr)
{
    lock_assert_held(&vd->pci.dev.lock);
    if (vd->msix_on) {
        pci_msix_raise(&vd->pci, vector); /* NO_VECTOR is out of range: ignored */
        return;
    }
    vd->regs.isr |= isr;
    pci_set_intx(&vd->pci, true);
}

void virtio_pci_interrupt_config_locked(VirtioDev *vd)
{
    raise_locked(vd, vd->regs.config_vector, VIRTIO_PCI_ISR_CONFIG);
}

void virtio_pci_interrupt(VirtioDev *vd, VirtioQ *q)
{
    /* Pair with the stores of common_write() and virtio_pci_msix_sync_locked(); a driver that
     * changes them under a running queue gets the old or the new. */
    uint16_t vector = __atomic_load_n(&q->vector, __ATOMIC_RELAXED);

    if (__atomic_load_n(&vd->msix_on, __ATOMIC_RELAXED)) {
        pci_msix_raise(&vd->pci, vector);
        return;
    }
    lodge_lock(&vd->pci.dev.lock);
    raise_locked(vd, vector, ISR_QUEUE);
    lodge_unlock(&vd->pci.dev.lock);
}

void virtio_pci_msix_sync_locked(VirtioDev *vd)
{
    __atomic_store_n(&vd->msix_on, pci_msix_enabled(&vd->pci), __ATOMIC_RELAXED);
}

/* ---- ioeventfds ---- */

void virtio_pci_eventfds_locked(VirtioDev *vd, bool on)
{
    Bus *mmio = vd->pci.dev.board->mmio;
    uint64_t bar = pci_bar_base(&vd->pci, BAR_REGS);
    gpa_t want = on && vd->io && bar != UINT64_MAX ? bar + NOTIFY_AT : UINT64_MAX;

    lock_assert_held(&vd->pci.dev.lock);
    if (want == vd->notify_gpa)
        return;
    for (unsigned i = 0; vd->notify_gpa != UINT64_MAX && i < vd->queues; i++)
        bus_eventfd_remove(mmio, vd->notify_gpa + i * NOTIFY_MULTIPLIER, 0, vd->q[i].fd);
    /* Where the host cannot, the write handler does the same. */
    for (unsigned i = 0; want != UINT64_MAX && i < vd->queues; i++)
        (void)bus_eventfd_add(mmio, want + i * NOTIFY_MULTIPLIER, 0, vd->q[i].fd);
    vd->notify_gpa = want;
}

static void bars_moved(PciDev *d)
{
    VirtioDev *vd = (VirtioDev *)d;

    virtio_pci_eventfds_locked(
        vd, (vd->regs.status & VIRTIO_CONFIG_S_DRIVER_OK) && !vd->regs.resetting);
}

/* ---- common configuration, 4.1.4.3 ---- */

static uint32_t feature_word(uint64_t features, uint32_t sel)
{
    return sel < FEATURE_WORDS ? (uint32_t)(features >> (sel * WORD_BITS)) : 0;
}

static VirtioQueueRegs *selected_queue(VirtioDev *vd)
{
    return vd->regs.queue_sel < vd->queues ? &vd->regs.q[vd->regs.queue_sel] : NULL;
}

static uint32_t common_read_locked(VirtioDev *vd, uint64_t off, unsigned size)
{
    const VirtioRegs *r = &vd->regs;
    const VirtioQueueRegs *q = selected_queue(vd);
    struct virtio_pci_common_cfg c = {
        .device_feature_select = r->device_feature_sel,
        .device_feature = feature_word(vd->offered, r->device_feature_sel),
        .guest_feature_select = r->driver_feature_sel,
        .guest_feature = feature_word(r->driver_features, r->driver_feature_sel),
        .msix_config = r->config_vector,
        .num_queues = (uint16_t)vd->queues,
        .device_status = r->status,
        .config_generation = r->generation,
        .queue_select = r->queue_sel,
    };
    uint8_t b[sizeof(uint32_t)] = {0};

    if (q) { /* a queue that is not there has size 0 */
        c.queue_size = q->size;
        c.queue_msix_vector = q->vector;
        c.queue_enable = (uint16_t)q->enabled;
        c.queue_notify_off = r->queue_sel;
        c.queue_desc_lo = (uint32_t)q->desc;
        c.queue_desc_hi = (uint32_t)(q->desc >> WORD_BITS);
        c.queue_avail_lo = (uint32_t)q->avail;
        c.queue_avail_hi = (uint32_t)(q->avail >> WORD_BITS);
        c.queue_used_lo = (uint32_t)q->used;
        c.queue_used_hi = (uint32_t)(q->used >> WORD_BITS);
    }
    if (range_within(off, size, sizeof c))
        memcpy(b, (const uint8_t *)&c + off, size);
    return load_le32(b);
}

/* What a vector register holds after @v was written: NO_VECTOR says that it cannot be used. */
static uint16_t vector_accept(const VirtioDev *vd, uint32_t v)
{
    return v < vd->pci.msix_vectors ? (uint16_t)v : VIRTIO_MSI_NO_VECTOR;
}

static void set_half(uint64_t *reg, bool high, uint32_t val)
{
    if (high)
        *reg = (uint32_t)*reg | (uint64_t)val << WORD_BITS;
    else
        *reg = (*reg & ~(uint64_t)UINT32_MAX) | val;
}

static void driver_features_write(VirtioDev *vd, uint32_t val)
{
    if (vd->regs.status & VIRTIO_CONFIG_S_FEATURES_OK)
        guest_fault(&vd->pci.dev, "features changed after they were accepted");
    else if (vd->regs.driver_feature_sel < FEATURE_WORDS)
        set_half(&vd->regs.driver_features, vd->regs.driver_feature_sel == 1, val);
}

/* True if rings are to be brought up for it. */
static bool queue_enable_write(VirtioDev *vd, VirtioQueueRegs *q, uint32_t val)
{
    VirtQueue probe = {0};
    const char *why;
    VirtQueueSetup s = {.desc_gpa = q->desc,
                        .avail_gpa = q->avail,
                        .used_gpa = q->used,
                        .size = q->size};

    if (val != 1 || q->enabled)
        return false; /* 4.1.4.3.2: a driver writes nothing but 1 */
    if (!virtqueue_start(&probe, vd->pci.dev.board->mem, &s, &why)) {
        virtio_break_locked(vd, why);
        return false;
    }
    virtqueue_stop(&probe);
    q->enabled = 1;
    return vd->regs.status & VIRTIO_CONFIG_S_DRIVER_OK;
}

/* Registers of the selected queue. True as queue_enable_write(). */
static bool queue_write_locked(VirtioDev *vd, unsigned reg, unsigned size, uint32_t val)
{
    VirtioQueueRegs *q = selected_queue(vd);

    if (!q)
        return false;
    switch (reg) {
    case VIRTIO_PCI_COMMON_Q_MSIX:
        q->vector = vector_accept(vd, val);
        __atomic_store_n(&vd->q[vd->regs.queue_sel].vector, q->vector, __ATOMIC_RELAXED);
        return false;
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        return queue_enable_write(vd, q, val);
    default:
        break;
    }
    if (q->enabled) {
        guest_fault(&vd->pci.dev, "an enabled queue's registers changed");
        return false;
    }
    switch (reg) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        if (is_power_of_two(val) && val <= vd->queue_max)
            q->size = (uint16_t)val;
        else
            virtio_break_locked(vd, "queue size is not a power of two up to the maximum");
        break;
    case VIRTIO_PCI_COMMON_Q_DESCLO:
    case VIRTIO_PCI_COMMON_Q_DESCHI:
        set_half(&q->desc, reg == VIRTIO_PCI_COMMON_Q_DESCHI, val);
        break;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
    case VIRTIO_PCI_COMMON_Q_AVAILHI:
        set_half(&q->avail, reg == VIRTIO_PCI_COMMON_Q_AVAILHI, val);
        break;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
    case VIRTIO_PCI_COMMON_Q_USEDHI:
        set_half(&q->used, reg == VIRTIO_PCI_COMMON_Q_USEDHI, val);
        break;
    default:
        guest_fault(&vd->pci.dev, "write of a read-only register 0x%x", reg);
        break;
    }
    return false;
}

/* 4.1.3.1: a driver uses the width of the field, 4 bytes for the halves of a 64-bit one. */
static unsigned common_width(unsigned reg)
{
    switch (reg) {
    case VIRTIO_PCI_COMMON_STATUS:
    case VIRTIO_PCI_COMMON_CFGGENERATION:
        return 1;
    case VIRTIO_PCI_COMMON_MSIX:
    case VIRTIO_PCI_COMMON_NUMQ:
    case VIRTIO_PCI_COMMON_Q_SELECT:
    case VIRTIO_PCI_COMMON_Q_SIZE:
    case VIRTIO_PCI_COMMON_Q_MSIX:
    case VIRTIO_PCI_COMMON_Q_ENABLE:
    case VIRTIO_PCI_COMMON_Q_NOFF:
        return 2;
    default:
        return reg % 4 ? 0 : 4;
    }
}

static bool common_write_locked(VirtioDev *vd, unsigned reg, unsigned size, uint32_t val)
{
    VirtioRegs *r = &vd->regs;

    if (r->resetting)
        return false;
    switch (reg) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        r->device_feature_sel = val;
        return false;
    case VIRTIO_PCI_COMMON_GFSELECT:
        r->driver_feature_sel = val;
        return false;
    case VIRTIO_PCI_COMMON_GF:
        driver_features_write(vd, val);
        return false;
    case VIRTIO_PCI_COMMON_MSIX:
        r->config_vector = vector_accept(vd, val);
        return false;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        r->queue_sel = (uint16_t)val;
        return false;
    case VIRTIO_PCI_COMMON_DF:
    case VIRTIO_PCI_COMMON_NUMQ:
    case VIRTIO_PCI_COMMON_CFGGENERATION:
        guest_fault(&vd->pci.dev, "write of a read-only register 0x%x", reg);
        return false;
    default:
        return queue_write_locked(vd, reg, size, val);
    }
}

static void common_write(VirtioDev *vd, uint64_t off, unsigned size, uint32_t val)
{
    bool sync;

    if (off >= COMMON_LEN || common_width((unsigned)off) != size) {
        guest_fault(&vd->pci.dev, "%u bytes written at 0x%x of the common configuration", size,
                    (unsigned)off);
        return;
    }
    if (off == VIRTIO_PCI_COMMON_STATUS) {
        virtio_write_status(vd, (uint8_t)val);
        return;
    }
    lodge_lock(&vd->pci.dev.lock);
    sync = common_write_locked(vd, (unsigned)off, size, val);
    lodge_unlock(&vd->pci.dev.lock);
    if (sync)
        virtio_sync_rings(vd);
}

/* ---- BAR 0 ---- */

static uint32_t isr_read_locked(VirtioDev *vd)
{
    uint32_t v = vd->regs.isr;

    vd->regs.isr = 0; /* 4.1.4.5.1: reading clears and lowers the pin */
    pci_set_intx(&vd->pci, false);
    return v;
}

static uint64_t regs_read(void *owner, uint64_t off, unsigned size)
{
    VirtioDev *vd = owner;
    uint64_t at = off % WINDOW_LEN;
    uint32_t v = 0;

    lodge_lock(&vd->pci.dev.lock);
    switch (off - at) {
    case COMMON_AT:
        v = common_read_locked(vd, at, size);
        break;
    case ISR_AT:
        if (!at)
            v = isr_read_locked(vd);
        break;
    case DEVICE_AT:
        if (range_within(at, size, vd->config_len)) {
            uint8_t b[sizeof v] = {0};

            memcpy(b, vd->config + at, size);
            v = load_le32(b);
        }
        break;
    default:
        break; /* notifications are write-only: 0 */
    }
    lodge_unlock(&vd->pci.dev.lock);
    return v;
}

static void device_config_write(VirtioDev *vd, uint64_t at, unsigned size, uint32_t val)
{
    lodge_lock(&vd->pci.dev.lock);
    if (vd->vc->config_written && range_within(at, size, vd->config_len))
        vd->vc->config_written(vd, (unsigned)at, size, val);
    else
        guest_fault(&vd->pci.dev, "write of read-only configuration at 0x%x", (unsigned)at);
    lodge_unlock(&vd->pci.dev.lock);
}

static void regs_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    VirtioDev *vd = owner;
    uint64_t at = off % WINDOW_LEN;

    switch (off - at) {
    case COMMON_AT:
        common_write(vd, at, size, (uint32_t)val);
        break;
    case DEVICE_AT:
        device_config_write(vd, at, size, (uint32_t)val);
        break;
    case NOTIFY_AT:
        /* As the ioeventfd: the address says which queue, the value is not looked at. */
        if (at % NOTIFY_MULTIPLIER == 0)
            virtio_kick(vd, (unsigned)(at / NOTIFY_MULTIPLIER));
        break;
    default:
        break; /* the ISR is read-only */
    }
}

static const BusRegionOps regs_ops = {.read = regs_read, .write = regs_write, .sizes = 1 | 2 | 4};

/* ---- configuration space ---- */

static void cfg_written(PciDev *d, unsigned off, unsigned len)
{
    virtio_pci_msix_sync_locked((VirtioDev *)d);
}

/* 4.1.4.9: pci_cfg_data is the bytes of BAR 0 that the capability's offset and length name. */
static void cfg_window(PciDev *d, bool write, unsigned off, unsigned len)
{
    VirtioDev *vd = (VirtioDev *)d;
    uint8_t *cap = d->regs.cfg + vd->cap_window, *data = cap + CAP_DATA;
    uint32_t at = load_le32(cap + VIRTIO_PCI_CAP_OFFSET);
    uint32_t size = load_le32(cap + VIRTIO_PCI_CAP_LENGTH);
    uint32_t val = load_le32(data);

    if (cap[VIRTIO_PCI_CAP_BAR] != BAR_REGS || (size != 1 && size != 2 && size != 4) ||
        at % size || !range_within(at, size, BAR_REGS_LEN)) {
        guest_fault(&d->dev, "configuration access capability names nothing");
        return;
    }
    /* The registers take the lock themselves, and may wait for the loop without it. */
    lodge_unlock(&d->dev.lock);
    if (write)
        regs_write(vd, at, size, val);
    else
        val = (uint32_t)regs_read(vd, at, size);
    lodge_lock(&d->dev.lock);
    if (!write)
        memcpy(data, &val, size);
}

static uint8_t add_cap(VirtioDev *vd, uint8_t type, uint32_t at, uint32_t len, uint8_t extra)
{
    uint8_t cap_len = CAP_DATA + extra;
    uint8_t at_cfg = pci_add_cap(&vd->pci, CAP_ID_VENDOR, cap_len);
    uint8_t *cap = vd->pci.cfg_reset + at_cfg;

    cap[VIRTIO_PCI_CAP_LEN] = cap_len;
    cap[VIRTIO_PCI_CAP_CFG_TYPE] = type;
    cap[VIRTIO_PCI_CAP_BAR] = BAR_REGS;
    store_le32(cap + VIRTIO_PCI_CAP_OFFSET, at);
    store_le32(cap + VIRTIO_PCI_CAP_LENGTH, len);
    return at_cfg;
}

static void add_caps(VirtioDev *vd)
{
    uint8_t notify, *mask;

    add_cap(vd, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_AT, COMMON_LEN, 0);
    add_cap(vd, VIRTIO_PCI_CAP_ISR_CFG, ISR_AT, 1, 0);
    if (vd->config_len)
        add_cap(vd, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_AT, vd->config_len, 0);
    notify = add_cap(vd, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_AT, vd->queues * NOTIFY_MULTIPLIER,
                     CAP_DATA_LEN);
    store_le32(vd->pci.cfg_reset + notify + VIRTIO_PCI_NOTIFY_CAP_MULT, NOTIFY_MULTIPLIER);
    vd->cap_window = add_cap(vd, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, CAP_DATA_LEN);
    mask = vd->pci.cfg_mask + vd->cap_window;
    mask[VIRTIO_PCI_CAP_BAR] = UINT8_MAX;
    memset(mask + VIRTIO_PCI_CAP_OFFSET, UINT8_MAX,
           CAP_DATA + CAP_DATA_LEN - VIRTIO_PCI_CAP_OFFSET);
    vd->pci.cfg_window = cfg_window;
    vd->pci.cfg_window_at = vd->cap_window + CAP_DATA;
    vd->pci.cfg_window_len = CAP_DATA_LEN;
}

bool virtio_pci_realize(VirtioDev *vd, GError **error)
{
    if (!pci_realize(&vd->pci, -1, 0, VENDOR_ID, DEVICE_ID_BASE + vd->vc->type,
                     vd->vc->class_code, REVISION, PIN_INTA, error))
        return false;
    pci_set_subsystem(&vd->pci, VENDOR_ID, SUBSYSTEM_ID);
    pci_add_bar(&vd->pci, BAR_REGS, PCI_BAR_MMIO, BAR_REGS_LEN, vd->vc->name, &regs_ops, vd, NULL);
    add_caps(vd);
    if (!pci_add_msix(&vd->pci, BAR_MSIX, vd->queues + 1, error))
        return false;
    vd->pci.cfg_written = cfg_written;
    vd->pci.bars_moved = bars_moved;
    return true;
}

/* The transport's part of a reset; the registers are in their reset state. */
void virtio_pci_reset_locked(VirtioDev *vd)
{
    for (unsigned i = 0; vd->q && i < vd->queues; i++)
        __atomic_store_n(&vd->q[i].vector, VIRTIO_MSI_NO_VECTOR, __ATOMIC_RELAXED);
    virtio_pci_msix_sync_locked(vd);
    pci_set_intx(&vd->pci, false);
}
