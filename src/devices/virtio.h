/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VIRTIO_H
#define LODGE_VIRTIO_H

/*
 * What all virtio devices share. A transport and its device are one Device with one lock:
 * VirtioDev embeds PciDev, a device embeds VirtioDev first. virtio.c holds the life of a device
 * (features, start, reset, quiesce, state), virtio_pci.c its registers on the bus.
 *
 * Registers are the vCPUs', under the device's lock. Queues are the loop thread's, without a
 * lock: `io`, or in a test without threads (io NULL) whoever kicks. A device whose queues do not
 * know of each other can spread them over several loops, one by one or in groups: each is a lane,
 * which starts, stops and comes to rest by itself; "the loop" is then the queue's lane's.
 */

#include "lodge/device.h"
#include "pci.h"
#include "virtqueue.h"

#define VIRTIO_QUEUES_MAX 36
#define VIRTIO_LANES_MAX 8
#define VIRTIO_CONFIG_MAX 64 /* bytes of device-specific configuration */
#define VIRTIO_QUEUE_SIZE 256 /* entries, unless a device says otherwise */

typedef struct VirtioDev VirtioDev;
typedef struct VirtioLane VirtioLane;
typedef struct Chan Chan;
typedef struct IoPoll IoPoll;
typedef struct IoWatch IoWatch;

/* One row for each feature bit that a device can offer; name NULL ends the table. */
typedef struct VirtioFeature {
    uint8_t bit;
    const char *name;
    uint64_t needs; /* bits that must be accepted too */
} VirtioFeature;

#define VIRTIO_BIT(b) (UINT64_C(1) << (b))

typedef struct VirtioClass {
    const char *name;
    uint16_t type;       /* virtio device type: PCI device id is 0x1040 + type */
    uint32_t class_code; /* PCI, 24 bits */
    const VirtioFeature *features;
    /* Queue @q was kicked, or may have work after a start or resume. Context: loop thread, no
     * lock; the device is live. */
    void (*kick)(VirtioDev *vd, unsigned q);
    /* The loop looks at the rings before it sleeps: kick() ends with virtio_notify_on(), which
     * leaves the kicks off until then. */
    bool polled;
    /* Whether that holds for queue @q now; one that waits for somebody else must not be looked at.
     * Context as kick. NULL: for all, always. */
    bool (*polls)(VirtioDev *vd, unsigned q);
    /* The driver is ready, or the device goes on after a pause; features are in force. Context as
     * kick. NULL: not interested. */
    void (*started)(VirtioDev *vd);
    /* Rings are gone, forget everything that came from them. Context as kick, or under the
     * device's lock when the device is quiet: must not take it. */
    void (*stopped)(VirtioDev *vd);
    /* The same for what belongs to one lane, before that; on its loop. NULL: not interested. */
    void (*lane_stopped)(VirtioLane *l);
    /* Start no new host I/O. On each lane's loop: virtio_here() says for which queues. NULL: not
     * interested. */
    void (*quieted)(VirtioDev *vd);
    /* The driver wrote configuration bytes. Context: vCPU thread, device lock held. */
    void (*config_written)(VirtioDev *vd, unsigned off, unsigned len, uint32_t val);
} VirtioClass;

/* Registers of a queue, as the driver set them. */
typedef struct VirtioQueueRegs {
    uint64_t desc, avail, used; /* guest addresses */
    uint16_t size, vector;
    uint16_t last_avail, used_idx; /* filled at save; where a load goes on */
    uint64_t enabled; /* 0 or 1 */
} VirtioQueueRegs;

typedef struct VirtioRegs {
    uint64_t driver_features;
    uint32_t device_feature_sel, driver_feature_sel;
    uint16_t config_vector, queue_sel;
    uint8_t status, isr, generation;
    bool resetting; /* a reset was asked for and requests are still under way */
    VirtioQueueRegs q[VIRTIO_QUEUES_MAX];
} VirtioRegs;
extern const StateDesc virtio_state; /* of VirtioRegs: a sub-table for devices */

typedef struct VirtioQ {
    VirtQueue vq;    /* loop thread */
    VirtioDev *vd;   /* constant, borrowed: contains us */
    unsigned index;  /* constant */
    int fd;          /* constant, owned: eventfd of the kicks, -1 without a loop */
    IoWatch *watch;  /* constant, owned */
    uint16_t vector; /* atomic copy of the register */
    bool armed;      /* loop thread: the driver was told to kick */
} VirtioQ;

/* The share of a device that one loop serves: each VirtioDev.lanes-th group of queues. */
struct VirtioLane {
    VirtioDev *vd; /* constant, borrowed: contains us */
    IoThread *io;  /* constant, borrowed; NULL: kicks are handled by the kicking thread */
    IoPoll *poll;  /* constant, owned; NULL: the rings are not polled */
    unsigned index; /* constant */
    /* Loop thread only: */
    unsigned inflight; /* requests that hold guest memory */
    bool stopping;     /* a stop waits for inflight 0 */
    bool quieting;     /* a quiesce waits for inflight 0 */
    /* Atomic: */
    bool quiet;        /* no new host I/O */
    /* Guarded by dev.lock: */
    bool reset_due;    /* a reset waits for this lane to stop */
};

struct VirtioDev {
    PciDev pci;
    /* Constant after realize: */
    const VirtioClass *vc;
    IoThread *io; /* of the first lane */
    unsigned lanes;
    unsigned lane_group; /* queues that stay together */
    uint64_t offered; /* feature bits */
    unsigned queues;
    uint16_t queue_max; /* entries */
    VirtioQ *q; /* owned array */
    unsigned config_len;
    uint8_t cap_window; /* offset of the PCI configuration access capability */
    /* Guarded by dev.lock: */
    VirtioRegs regs;
    uint8_t config[VIRTIO_CONFIG_MAX];
    gpa_t notify_gpa; /* where the eventfds are registered; UINT64_MAX: nowhere */
    unsigned unsettled; /* lanes that a reset waits for */
    /* Changed only while no lane runs: */
    uint64_t features; /* in force */
    VirtioLane lane[VIRTIO_LANES_MAX];
    /* Without a loop: */
    uint64_t pending;  /* kicked queues */
    bool pumping;
    /* Atomic: */
    bool broken;         /* needs reset: rings are left alone */
    bool live;           /* started, not stopped; written by the first lane */
    unsigned unquiet;    /* lanes that a quiesce waits for */
    bool msix_on;        /* of the MSI-X control word; written under the lock */
};

/* The parts of a device's snapshot that are not its own; see virtio_pre_save(). */
typedef struct VirtioSaved {
    PciRegs pci;
    VirtioRegs virtio;
} VirtioSaved;
extern const StateDesc virtio_saved_state; /* a sub-table */

/**
 * virtio_realize() - Put a virtio device on the PCI bus
 * @vd:      zeroed but for properties
 * @io:      loop of its queues, borrowed, or NULL
 * @offered: device-specific feature bits; those of rings and version are added
 * @queues:  1..VIRTIO_QUEUES_MAX; MSI-X gets one vector more
 * @entries: greatest ring size, a power of two <= VIRTQ_SIZE_MAX
 * Context: main thread. Return: false with nothing left behind: the errors of pci_realize(),
 *          LODGE_ERROR_HOST for eventfds.
 * Spec:    Virtual I/O Device 1.2, 4.1 "Virtio Over PCI Bus".
 */
bool virtio_realize(VirtioDev *vd, const VirtioClass *vc, IoThread *io, uint64_t offered,
                    unsigned queues, uint16_t entries, unsigned config_len, GError **error);
/* Spread the queues, @group at a time, over @n <= VIRTIO_LANES_MAX loops, the first one is
 * virtio_realize()'s @io. Before that; unused where that is NULL. */
void virtio_set_lanes(VirtioDev *vd, IoThread *const *io, unsigned n, unsigned group);
void virtio_unrealize(VirtioDev *vd); /* main thread, quiesced; half-realized is fine */

/* Slots of a DeviceClass. */
void virtio_reset(Device *d, ResetKind kind);
void virtio_quiesce(Device *d);
void virtio_resume(Device *d);

/* Snapshot: to and from the registers. Main thread, quiesced. */
void virtio_pre_save(VirtioDev *vd, VirtioSaved *ret_saved);
bool virtio_post_load(VirtioDev *vd, const VirtioSaved *s, GError **error);

/* ---- for devices, loop thread ---- */

static inline VirtioLane *virtio_lane(VirtioDev *vd, unsigned q)
{
    return &vd->lane[q / vd->lane_group % vd->lanes];
}
/* Whether this thread serves queue @q. */
bool virtio_here(VirtioDev *vd, unsigned q);

static inline bool virtio_has(const VirtioDev *vd, unsigned bit)
{
    return vd->features & VIRTIO_BIT(bit);
}
/* Rings may be used: started, not broken, not quiet. Where there are several lanes, see the
 * next. */
bool virtio_may_run(VirtioDev *vd);
/* The ring of queue @q may be used. Context: its loop. */
bool virtio_queue_may_run(VirtioDev *vd, unsigned q);
/* As virtqueue_pop(); a breach breaks the device. */
bool virtio_pop(VirtioDev *vd, unsigned q, VirtChain *c);
/* What kick() does with queue @q first and last: no kicks, please; and kicks again, true if there
 * is more already. */
void virtio_notify_off(VirtioDev *vd, unsigned q);
bool virtio_notify_on(VirtioDev *vd, unsigned q);
/* Publish and interrupt as the driver wishes. */
void virtio_publish(VirtioDev *vd, unsigned q);
/* Have queue @q's kick handler run again later, so that one queue does not hog the loop. */
void virtio_kick_again(VirtioDev *vd, unsigned q);
/* The driver broke the rules: DEVICE_NEEDS_RESET. Context: device lock not held. */
void virtio_break(VirtioDev *vd, const char *why);
/* Count requests that hold guest memory; the last put ends a stop or quiesce that waits. */
void virtio_lane_get(VirtioLane *l);
void virtio_lane_put(VirtioLane *l);
/* Change @len configuration bytes and tell the driver. Any thread, device lock not held. */
void virtio_config_set(VirtioDev *vd, unsigned off, const void *from, unsigned len);

/* ---- between virtio.c, virtio_state.c and virtio_pci.c ---- */

/* Whether a driver may accept @features. */
bool virtio_features_ok(VirtioDev *vd, uint64_t features);
/* Bring up every enabled ring of the lane that is not up. Device lock held. NULL, or what is wrong. */
const char *virtio_start_rings_locked(VirtioLane *l);

void virtio_kick(VirtioDev *vd, unsigned q);          /* any thread, no lock */
void virtio_write_status(VirtioDev *vd, uint8_t val); /* vCPU thread, no lock */
void virtio_sync_rings(VirtioDev *vd);                /* a queue was enabled late; likewise */
void virtio_break_locked(VirtioDev *vd, const char *why);
bool virtio_pci_realize(VirtioDev *vd, GError **error);
void virtio_pci_reset_locked(VirtioDev *vd);
void virtio_pci_eventfds_locked(VirtioDev *vd, bool on);
void virtio_pci_msix_sync_locked(VirtioDev *vd);
/* Interrupt for a queue or (q NULL) a configuration change. Device lock not held. */
void virtio_pci_interrupt(VirtioDev *vd, VirtioQ *q);
void virtio_pci_interrupt_config_locked(VirtioDev *vd);

/* ---- for the machine ---- */

/* A console port's terminal has a new size; @d of class virtio-console-pci. Main thread. */
void virtio_console_resize(Device *d, unsigned port, uint16_t cols, uint16_t rows);

/**
 * virtio_console_add_port() - Give the guest one more port while it runs
 * @d:    device of class virtio-console-pci
 * @name: of the port, copied; no other port has it
 * @tty:  a terminal rather than a channel of bytes
 * @chan: borrowed until the port is removed or the device is gone
 * Context: main thread, no lock held; waits for the loop. Return: false with LODGE_ERROR_LIMIT.
 */
bool virtio_console_add_port(Device *d, const char *name, bool tty, Chan *chan, GError **error);
/* Take it away again, whoever uses it in the guest: its channel is free at once. False: none has
 * this name. Likewise. */
bool virtio_console_remove_port(Device *d, const char *name);

#endif
