// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtio entropy device.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, section 5.4 "Entropy Device". Bytes come from the
 * host's getrandom(2). A guest that asks without end is held to ROUND_BYTES a PERIOD_NS, so that it
 * cannot keep a host CPU busy; a buffer may come back partly filled, as 5.4.6.2 allows.
 *
 * Threads: the queue and its timer belong to one loop thread.
 *
 * Invariants:
 * (1) budget is what may still be given before refill_at_ns; it never exceeds ROUND_BYTES.
 */
#include "virtio.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <linux/virtio_ids.h>

#include "lodge/iothread.h"
#include "lodge/num.h"

enum {
    ROUND_BYTES = 64 << 10,
    RNG_ENTRIES = 64,
    CLASS_SYSTEM_OTHER = 0x088000, /* PCI: other system peripheral */
};
#define PERIOD_NS (10 * (NS_PER_SEC / 1000))

typedef struct VirtioRng {
    VirtioDev v;
    /* Constant after realize: */
    LodgeTimer *timer; /* owned */
    TimerQueue *timers; /* borrowed */
    /* Loop thread only: */
    uint32_t budget;
    int64_t refill_at_ns;
    struct iovec iov[RNG_ENTRIES];
    MemPin pins[RNG_ENTRIES];
    /* Main thread, quiesced: */
    VirtioSaved saved;
} VirtioRng;

/* Fill at most @max bytes; how many. */
static uint32_t fill_chain(const VirtChain *c, uint32_t max)
{
    uint32_t done = 0;

    for (unsigned i = c->readable; i < c->readable + c->writable && done < max; i++) {
        size_t want = MIN(c->iov[i].iov_len, max - done), at = 0;

        while (at < want) {
            ssize_t n = getrandom((uint8_t *)c->iov[i].iov_base + at, want - at, 0);

            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return done + (uint32_t)at;
            at += (size_t)n;
        }
        done += (uint32_t)want;
    }
    return done;
}

static void refill(VirtioRng *r)
{
    int64_t now = clock_now_ns(timer_queue_clock(r->timers));

    if (now < r->refill_at_ns)
        return;
    r->budget = ROUND_BYTES;
    r->refill_at_ns = now + PERIOD_NS;
}

static void rng_kick(VirtioDev *vd, unsigned qi)
{
    VirtioRng *r = (VirtioRng *)vd;
    VirtQueue *vq = &vd->q[qi].vq;
    VirtChain c = {.iov = r->iov, .pins = r->pins, .max = RNG_ENTRIES};
    unsigned n = 0;

    refill(r);
    do {
        virtqueue_notify_off(vq);
        while (r->budget && n < RNG_ENTRIES && virtio_pop(vd, qi, &c)) {
            uint32_t got = fill_chain(&c, r->budget);

            n++;
            if (!c.writable)
                guest_fault(&vd->pci.dev, "entropy asked for without a buffer");
            virtqueue_push_chain(vq, &c, got);
            r->budget -= got;
        }
    } while (r->budget && n < RNG_ENTRIES && !vd->broken && virtqueue_notify_on(vq));
    if (!r->budget || n == RNG_ENTRIES)
        timer_arm(r->timer, r->refill_at_ns);
    virtio_publish(vd, qi);
}

/* Also comes where the device was stopped in the meantime: then there is nothing to do. */
static void rng_timer(void *opaque)
{
    VirtioRng *r = opaque;

    if (virtio_may_run(&r->v) && virtqueue_running(&r->v.q[0].vq))
        rng_kick(&r->v, 0);
}

static void rng_stopped(VirtioDev *vd)
{
    VirtioRng *r = (VirtioRng *)vd;

    if (r->timer)
        timer_cancel(r->timer);
}

static const VirtioClass rng_virtio = {
    .name = "virtio-rng",
    .type = VIRTIO_ID_RNG,
    .class_code = CLASS_SYSTEM_OTHER,
    .kick = rng_kick,
    .stopped = rng_stopped,
};

static bool rng_realize(Device *d, GError **error)
{
    VirtioRng *r = (VirtioRng *)d;

    if (!virtio_realize(&r->v, &rng_virtio, d->board->io, 0, 1, RNG_ENTRIES, 0, error))
        return false;
    r->timers = d->board->io ? io_thread_timers(d->board->io) : d->board->timers;
    r->timer = timer_new(r->timers, rng_timer, r);
    return true;
}

static void rng_unrealize(Device *d)
{
    VirtioRng *r = (VirtioRng *)d;

    if (r->timer)
        timer_free(r->timer);
    r->timer = NULL;
    virtio_unrealize(&r->v);
}

static void rng_pre_save(void *obj)
{
    VirtioRng *r = obj;

    virtio_pre_save(&r->v, &r->saved);
}

static bool rng_post_load(void *obj, unsigned version, GError **error)
{
    VirtioRng *r = obj;

    return virtio_post_load(&r->v, &r->saved, error);
}

static const StateField rng_fields[] = {
    {"transport", ST_SUB, 1, 0, sizeof(VirtioSaved), 1, 0, &virtio_saved_state, NULL},
    ST_END,
};
static const StateDesc rng_state = {
    .name = "virtio-rng-pci",
    .version = 1,
    .oldest = 1,
    .regs_offset = offsetof(VirtioRng, saved),
    .regs_size = sizeof(VirtioSaved),
    .fields = rng_fields,
    .pre_save = rng_pre_save,
    .post_load = rng_post_load,
};

const DeviceClass virtio_rng_pci_class = {
    .name = "virtio-rng-pci",
    .bus = "pci",
    .help = "virtio 1.0 entropy device, fed by the host's getrandom",
    .instance_size = sizeof(VirtioRng),
    .state = &rng_state,
    .realize = rng_realize,
    .reset = virtio_reset,
    .quiesce = virtio_quiesce,
    .resume = virtio_resume,
    .unrealize = rng_unrealize,
};
