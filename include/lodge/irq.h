/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_IRQ_H
#define LODGE_IRQ_H

/*
 * Interrupt routing. One IrqLine for each (source, pin): the router ORs sharers, so a device
 * never sees its neighbours. The irq lock also guards the PIC pair and the IOAPIC, whose models
 * plug in as sinks; LAPICs are the kernel's and are reached by the hooks.
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/lock.h"

typedef struct Irq Irq;
typedef struct IrqLine IrqLine;
typedef struct IrqMsi IrqMsi;
typedef void (*IrqEoiFn)(void *opaque);

#define IRQ_GSIS 24 /* pins of the IOAPIC; 0..15 reach the PIC pair too */

/* A controller's input pins. Context: irq lock held; must not call back into Irq, except
 * irq_msi_deliver_locked(), irq_extint_locked(), irq_eoi_locked(). */
typedef struct IrqSink {
    void (*set_pin)(void *opaque, unsigned gsi, bool level);
    void *opaque;
    unsigned (*pin_state)(void *opaque, unsigned gsi); /* IRQ_PIN_*; NULL: never open */
} IrqSink;

/* What a controller makes of a pin now. */
enum {
    IRQ_PIN_OPEN = 1, /* not masked on its way to the CPUs */
    IRQ_PIN_BUSY = 2, /* a request is latched, or in service until the guest's EOI */
};

/* Towards the CPUs. Context: any thread, irq lock held. Must not call back. */
typedef struct IrqHooks {
    void (*msi)(void *opaque, uint64_t addr, uint32_t data);     /* deliver a message to LAPICs */
    void (*extint)(void *opaque, bool asserted);                 /* PIC's INTR to vCPU 0's LINT0 */
    /* @masked: closed, and no EOI of it is awaited either. */
    void (*ioapic_route)(void *opaque, unsigned pin, uint64_t addr, uint32_t data, bool level,
                         bool masked);                           /* mirror for EOI exits */
    /* @m is raised often: give it a descriptor by irq_msi_bound(), now or later. No lock held
     * above LOCK_RANK_DEVICE. NULL: messages only. */
    void (*msi_bind)(void *opaque, IrqMsi *m, uint64_t addr, uint32_t data);
    /* @m goes, or has another message: its descriptor is not used any more. */
    void (*msi_unbind)(void *opaque, IrqMsi *m);
    void *opaque;
} IrqHooks;

Irq *irq_new(void);
void irq_free(Irq *q);
/* Copied; main thread, before vCPUs run. Without hooks messages are counted and dropped. */
void irq_set_hooks(Irq *q, const IrqHooks *hooks);
/* Copied; NULL takes it away. */
void irq_set_pic(Irq *q, const IrqSink *sink);    /* sees GSI 0..15 */
void irq_set_ioapic(Irq *q, const IrqSink *sink); /* sees GSI 0..23, ISA IRQ 0 as pin 2 */
LodgeLock *irq_lock(Irq *q);

/* Main thread; @who is copied, for diagnostics. Transfer full. @gsi is an ISA IRQ number or a
 * GSI below IRQ_GSIS; GSI 0 is the PIT (PIC pin 0, IOAPIC pin 2). */
IrqLine *irq_line_new(Irq *q, unsigned gsi, const char *who);
void irq_line_free(IrqLine *l); /* lowers it first; NULL is fine */
/* Any thread; idempotent level; never calls back. */
void irq_line_set(IrqLine *l, bool asserted);
/* Called, with no lock held, on the vCPU thread after the guest's EOI of the line's pin, and when a
 * controller was told to open the pin or to forget its request: look at the line again. One fn. */
void irq_line_on_eoi(IrqLine *l, IrqEoiFn fn, void *opaque);
/* IRQ_PIN_* of the line's pin at the PIC pair and at the IOAPIC, for a source that rests while
 * nobody looks. Any thread; an opened pin is told by the EOI callback. */
unsigned irq_line_at_pic(IrqLine *l);
unsigned irq_line_at_ioapic(IrqLine *l);
/* Raise and lower at once: an edge. */
void irq_line_pulse(IrqLine *l);

/* Send a message. Any thread. Nonsense from the guest is counted, then dropped. */
void irq_msi_send(Irq *q, uint64_t addr, uint32_t data);
uint64_t irq_msi_count(Irq *q);

/* A message source with a descriptor, so that an IoThread or the kernel raises it without the
 * device. Transfer full. */
IrqMsi *irq_msi_new(Irq *q, const char *who);
void irq_msi_free(IrqMsi *m);
/* The message it sends from now on; main or vCPU thread. */
void irq_msi_set(IrqMsi *m, uint64_t addr, uint32_t data);
/* Stop sending (masked, or MSI off); raises in the meantime are remembered as one. */
void irq_msi_mask(IrqMsi *m, bool masked);
bool irq_msi_pending(IrqMsi *m); /* raised while masked */
void irq_msi_clear_pending(IrqMsi *m);
/* Any thread, device locks may be held. */
void irq_msi_raise(IrqMsi *m);

/* The hooks' answer to msi_bind: writing @fd injects (@addr, @data); dropped if @m has changed
 * since. @fd stays the hooks'. Any thread, no lock held. */
void irq_msi_bound(IrqMsi *m, uint64_t addr, uint32_t data, int fd);

/* For the controller models and the vCPU glue; irq lock held. */
void irq_msi_deliver_locked(Irq *q, uint64_t addr, uint32_t data);
void irq_extint_locked(Irq *q, bool asserted);
void irq_ioapic_route_locked(Irq *q, unsigned pin, uint64_t addr, uint32_t data, bool level,
                             bool masked);
/* The guest ended @gsi, opened its pin or dropped its request: collect the lines' callbacks; they
 * run in irq_lock_drop(). */
void irq_eoi_locked(Irq *q, unsigned gsi);
/* Level of @gsi as the router sees it. */
bool irq_level_locked(Irq *q, unsigned gsi);
/* Models lock by these, never by lodge_lock(irq_lock()): unlock runs the EOI callbacks. */
void irq_lock_take(Irq *q);
void irq_lock_drop(Irq *q);

/* The PIC's acknowledge, by vCPU 0's thread once irq_extint_pending() was seen; the irq lock is
 * held around @fn. Vector 0..255; spurious IRQ 7 when INTR was withdrawn in between, as a CPU that
 * had sampled it would get; -1 when INTR has not been up since the last acknowledge. */
typedef int (*IrqAckFn)(void *opaque);
void irq_set_ack(Irq *q, IrqAckFn fn, void *opaque);
int irq_ack(Irq *q);
bool irq_extint_pending(Irq *q);
/* KVM_EXIT_IOAPIC_EOI with @vector: the IOAPIC model registered here looks up its pins. */
typedef void (*IrqEoiVectorFn)(void *opaque, uint8_t vector);
void irq_set_eoi_vector(Irq *q, IrqEoiVectorFn fn, void *opaque); /* called with irq lock held */
void irq_eoi_vector(Irq *q, uint8_t vector);                     /* vCPU thread, no lock held */

#endif
