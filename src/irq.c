/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The interrupt router: lines with sharers in front of the PIC pair and the IOAPIC, and messages.
 *
 * Invariants:
 * (1) A pin's level is the OR of its lines; controllers hear only of changes.
 * (2) EOI callbacks are collected under the irq lock and run after it is dropped, so a device may
 *     take its own lock (a lower rank) in them.
 * (3) A message's address is checked here, once, for all senders.
 */
#include <string.h>
#include <unistd.h>

#include "lodge/irq.h"

#define MSI_HOT 64 /* raises with one message before it is worth a descriptor: a new route stops
                    * all vCPUs for a moment, and most vectors of a boot are raised a few times */
#define MSI_ADDRESS_TOP 0xfeeu /* Intel SDM 3A, 10.11.1: bits 31:20 of a message's address */

typedef struct EoiCall {
    IrqEoiFn fn;
    void *opaque;
} EoiCall;

struct IrqLine {
    Irq *irq;     /* borrowed */
    unsigned gsi;
    char *who;    /* owned */
    bool level;   /* atomic for the idempotent fast path; written under the irq lock */
    IrqEoiFn eoi; /* guarded by the irq lock */
    void *eoi_opaque;
};

struct IrqMsi {
    Irq *irq; /* borrowed */
    char *who;
    /* Guarded by the irq lock: */
    uint64_t addr;
    uint32_t data;
    bool masked, pending;
    unsigned raised; /* with this message, up to MSI_HOT */
    int fd; /* of the kernel's injection, or -1; owned by the hooks */
};

struct Irq {
    LodgeLock lock;
    IrqHooks hooks;
    IrqSink pic, ioapic;
    GPtrArray *lines[IRQ_GSIS]; /* IrqLine, borrowed */
    unsigned asserted[IRQ_GSIS];
    GArray *eois, *eois_spare; /* EoiCall */
    bool extint;               /* atomic for readers */
    IrqAckFn ack;
    void *ack_opaque;
    IrqEoiVectorFn eoi_vector;
    void *eoi_vector_opaque;
    uint64_t messages, bad_messages;
};

Irq *irq_new(void)
{
    Irq *q = g_new0(Irq, 1);
    lodge_lock_init(&q->lock, LOCK_RANK_IRQ, "irq");
    for (unsigned i = 0; i < IRQ_GSIS; i++)
        q->lines[i] = g_ptr_array_new();
    q->eois = g_array_new(FALSE, FALSE, sizeof(EoiCall));
    q->eois_spare = g_array_new(FALSE, FALSE, sizeof(EoiCall));
    return q;
}

void irq_free(Irq *q)
{
    if (!q)
        return;
    for (unsigned i = 0; i < IRQ_GSIS; i++)
        g_ptr_array_free(q->lines[i], TRUE);
    g_array_free(q->eois, TRUE);
    g_array_free(q->eois_spare, TRUE);
    lodge_lock_clear(&q->lock);
    g_free(q);
}

void irq_set_hooks(Irq *q, const IrqHooks *hooks)
{
    q->hooks = *hooks;
}

void irq_set_pic(Irq *q, const IrqSink *sink)
{
    irq_lock_take(q);
    q->pic = sink ? *sink : (IrqSink){0};
    irq_lock_drop(q);
}

void irq_set_ioapic(Irq *q, const IrqSink *sink)
{
    irq_lock_take(q);
    q->ioapic = sink ? *sink : (IrqSink){0};
    irq_lock_drop(q);
}

LodgeLock *irq_lock(Irq *q)
{
    return &q->lock;
}

void irq_lock_take(Irq *q)
{
    lodge_lock(&q->lock);
}

void irq_lock_drop(Irq *q)
{
    if (!q->eois->len) {
        lodge_unlock(&q->lock);
        return;
    }
    GArray *calls = q->eois;
    q->eois = q->eois_spare ? q->eois_spare : g_array_new(FALSE, FALSE, sizeof(EoiCall));
    q->eois_spare = NULL;
    lodge_unlock(&q->lock);
    for (unsigned i = 0; i < calls->len; i++) {
        EoiCall c = g_array_index(calls, EoiCall, i);
        c.fn(c.opaque);
    }
    g_array_set_size(calls, 0);
    lodge_lock(&q->lock);
    if (!q->eois_spare) {
        q->eois_spare = calls;
        calls = NULL;
    }
    lodge_unlock(&q->lock);
    if (calls)
        g_array_free(calls, TRUE);
}

/* ISA IRQ 0 arrives at the IOAPIC's pin 2. */
static unsigned ioapic_pin(unsigned gsi)
{
    return gsi == 0 ? 2 : gsi;
}

static void drive_pin_locked(Irq *q, unsigned gsi)
{
    bool level = q->asserted[gsi] > 0;
    if (gsi < 16 && q->pic.set_pin)
        q->pic.set_pin(q->pic.opaque, gsi, level);
    if (q->ioapic.set_pin)
        q->ioapic.set_pin(q->ioapic.opaque, ioapic_pin(gsi), level);
}

static void line_set_locked(IrqLine *l, bool asserted)
{
    Irq *q = l->irq;
    if (l->level == asserted)
        return;
    __atomic_store_n(&l->level, asserted, __ATOMIC_RELAXED);
    unsigned before = q->asserted[l->gsi];
    q->asserted[l->gsi] = asserted ? before + 1 : before - 1;
    if (!before != !q->asserted[l->gsi])
        drive_pin_locked(q, l->gsi);
}

IrqLine *irq_line_new(Irq *q, unsigned gsi, const char *who)
{
    g_assert(gsi < IRQ_GSIS);
    IrqLine *l = g_new0(IrqLine, 1);
    l->irq = q;
    l->gsi = gsi;
    l->who = g_strdup(who);
    lodge_lock(&q->lock);
    g_ptr_array_add(q->lines[gsi], l);
    lodge_unlock(&q->lock);
    return l;
}

void irq_line_free(IrqLine *l)
{
    if (!l)
        return;
    Irq *q = l->irq;
    irq_lock_take(q);
    line_set_locked(l, false);
    g_ptr_array_remove(q->lines[l->gsi], l);
    irq_lock_drop(q);
    g_free(l->who);
    g_free(l);
}

void irq_line_set(IrqLine *l, bool asserted)
{
    lodge_lock(&l->irq->lock);
    line_set_locked(l, asserted);
    lodge_unlock(&l->irq->lock);
}

void irq_line_pulse(IrqLine *l)
{
    lodge_lock(&l->irq->lock);
    line_set_locked(l, true);
    line_set_locked(l, false);
    lodge_unlock(&l->irq->lock);
}

void irq_line_on_eoi(IrqLine *l, IrqEoiFn fn, void *opaque)
{
    lodge_lock(&l->irq->lock);
    l->eoi = fn;
    l->eoi_opaque = opaque;
    lodge_unlock(&l->irq->lock);
}

unsigned irq_line_at_pic(IrqLine *l)
{
    Irq *q = l->irq;
    lodge_lock(&q->lock);
    bool wired = l->gsi < 16 && q->pic.pin_state;
    unsigned state = wired ? q->pic.pin_state(q->pic.opaque, l->gsi) : 0;
    lodge_unlock(&q->lock);
    return state;
}

unsigned irq_line_at_ioapic(IrqLine *l)
{
    Irq *q = l->irq;
    lodge_lock(&q->lock);
    unsigned state =
        q->ioapic.pin_state ? q->ioapic.pin_state(q->ioapic.opaque, ioapic_pin(l->gsi)) : 0;
    lodge_unlock(&q->lock);
    return state;
}

void irq_eoi_locked(Irq *q, unsigned gsi)
{
    lock_assert_held(&q->lock);
    for (unsigned i = 0; i < q->lines[gsi]->len; i++) {
        IrqLine *l = g_ptr_array_index(q->lines[gsi], i);
        EoiCall c = {l->eoi, l->eoi_opaque};
        if (c.fn)
            g_array_append_val(q->eois, c);
    }
}

bool irq_level_locked(Irq *q, unsigned gsi)
{
    lock_assert_held(&q->lock);
    return q->asserted[gsi] > 0;
}

/* Keeps (3). Context: irq lock held or not; the hook takes no lock of ours. */
static void deliver(Irq *q, uint64_t addr, uint32_t data)
{
    if (addr >> 20 != MSI_ADDRESS_TOP) {
        __atomic_fetch_add(&q->bad_messages, 1, __ATOMIC_RELAXED);
        return;
    }
    __atomic_fetch_add(&q->messages, 1, __ATOMIC_RELAXED);
    if (q->hooks.msi)
        q->hooks.msi(q->hooks.opaque, addr, data);
}

void irq_msi_send(Irq *q, uint64_t addr, uint32_t data)
{
    deliver(q, addr, data);
}

void irq_msi_deliver_locked(Irq *q, uint64_t addr, uint32_t data)
{
    lock_assert_held(&q->lock);
    deliver(q, addr, data);
}

uint64_t irq_msi_count(Irq *q)
{
    return __atomic_load_n(&q->messages, __ATOMIC_RELAXED);
}

IrqMsi *irq_msi_new(Irq *q, const char *who)
{
    IrqMsi *m = g_new0(IrqMsi, 1);
    m->irq = q;
    m->who = g_strdup(who);
    m->fd = -1;
    m->masked = true;
    return m;
}

void irq_msi_free(IrqMsi *m)
{
    if (!m)
        return;
    if (m->irq->hooks.msi_unbind)
        m->irq->hooks.msi_unbind(m->irq->hooks.opaque, m);
    g_free(m->who);
    g_free(m);
}

void irq_msi_set(IrqMsi *m, uint64_t addr, uint32_t data)
{
    Irq *q = m->irq;
    lodge_lock(&q->lock);
    bool unbind = false;
    if (m->addr != addr || m->data != data) {
        unbind = m->raised >= MSI_HOT;
        m->addr = addr;
        m->data = data;
        m->raised = 0;
        m->fd = -1;
    }
    lodge_unlock(&q->lock);
    if (unbind && q->hooks.msi_unbind)
        q->hooks.msi_unbind(q->hooks.opaque, m);
}

void irq_msi_bound(IrqMsi *m, uint64_t addr, uint32_t data, int fd)
{
    lodge_lock(&m->irq->lock);
    if (m->addr == addr && m->data == data && m->raised >= MSI_HOT)
        m->fd = fd;
    lodge_unlock(&m->irq->lock);
}

void irq_msi_mask(IrqMsi *m, bool masked)
{
    lodge_lock(&m->irq->lock);
    bool send = m->masked && !masked && m->pending;
    m->masked = masked;
    if (send)
        m->pending = false;
    lodge_unlock(&m->irq->lock);
    if (send)
        irq_msi_raise(m);
}

bool irq_msi_pending(IrqMsi *m)
{
    lodge_lock(&m->irq->lock);
    bool pending = m->pending;
    lodge_unlock(&m->irq->lock);
    return pending;
}

void irq_msi_clear_pending(IrqMsi *m)
{
    lodge_lock(&m->irq->lock);
    m->pending = false;
    lodge_unlock(&m->irq->lock);
}

void irq_msi_raise(IrqMsi *m)
{
    Irq *q = m->irq;
    lodge_lock(&q->lock);
    int fd = m->fd;
    uint64_t addr = m->addr;
    uint32_t data = m->data;
    bool masked = m->masked;
    if (masked)
        m->pending = true;
    bool bind = !masked && m->raised < MSI_HOT && ++m->raised == MSI_HOT && q->hooks.msi_bind &&
                addr >> 20 == MSI_ADDRESS_TOP;
    lodge_unlock(&q->lock);
    if (masked)
        return;
    if (bind)
        q->hooks.msi_bind(q->hooks.opaque, m, addr, data);
    if (fd >= 0) {
        uint64_t one = 1;
        __atomic_fetch_add(&q->messages, 1, __ATOMIC_RELAXED);
        if (write(fd, &one, sizeof one) == sizeof one)
            return;
    }
    deliver(q, addr, data);
}

void irq_extint_locked(Irq *q, bool asserted)
{
    lock_assert_held(&q->lock);
    if (q->extint == asserted)
        return;
    /* Before the hook looks whether vCPU 0 runs, as that looks here after it said that it does: an
     * order of a store and a load, which only this one keeps. */
    __atomic_store_n(&q->extint, asserted, __ATOMIC_SEQ_CST);
    if (q->hooks.extint)
        q->hooks.extint(q->hooks.opaque, asserted);
}

bool irq_extint_pending(Irq *q)
{
    return __atomic_load_n(&q->extint, __ATOMIC_SEQ_CST); /* pairs with irq_extint_locked() */
}

void irq_ioapic_route_locked(Irq *q, unsigned pin, uint64_t addr, uint32_t data, bool level,
                             bool masked)
{
    lock_assert_held(&q->lock);
    if (q->hooks.ioapic_route)
        q->hooks.ioapic_route(q->hooks.opaque, pin, addr, data, level, masked);
}

void irq_set_ack(Irq *q, IrqAckFn fn, void *opaque)
{
    q->ack = fn;
    q->ack_opaque = opaque;
}

int irq_ack(Irq *q)
{
    if (!q->ack)
        return -1;
    irq_lock_take(q);
    int vector = q->ack(q->ack_opaque);
    irq_lock_drop(q);
    return vector;
}

void irq_set_eoi_vector(Irq *q, IrqEoiVectorFn fn, void *opaque)
{
    q->eoi_vector = fn;
    q->eoi_vector_opaque = opaque;
}

void irq_eoi_vector(Irq *q, uint8_t vector)
{
    irq_lock_take(q);
    if (q->eoi_vector)
        q->eoi_vector(q->eoi_vector_opaque, vector);
    irq_lock_drop(q);
}
