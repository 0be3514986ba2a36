/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finding and starting a virtio 1.0 device on PCI bus 0, and its split rings, for guests that drive
 * one from ring 3. They take no interrupts: they ask for none and watch the used rings, give back a pass's
 * worth of buffers at once, and kick only when the device wants it.
 *
 * Spec: Virtual I/O Device 1.2, 2.7 "Split Virtqueues", 3.1 "Device Initialization", 4.1 "Virtio Over
 * PCI Bus".
 */
#ifndef GUEST_VIRTIO_H
#define GUEST_VIRTIO_H

#include "lib.h"

enum {
    QSIZE = 256,
    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,
    F_INDIRECT = 1 << 28,
    F_EVENT_IDX = 1 << 29,
    F_VERSION_1 = 1 << 0, /* of the second word */
    QUIET = 0x8000, /* a used_event so far ahead of the used index that no interrupt is due */
};

typedef struct Desc {
    u64 addr;
    u32 len;
    u16 flags, next;
} Desc;
typedef struct Queue {
    Desc desc[QSIZE];
    struct {
        u16 flags, idx, ring[QSIZE], used_event;
    } avail;
    volatile struct {
        u16 flags, idx;
        struct {
            u32 id, len;
        } ring[QSIZE];
        u16 avail_event;
    } used __attribute__((aligned(4)));
    ulong notify;
    u16 index, seen, told; /* used index looked at; avail index of the last kick or look */
} Queue;

typedef struct Virtio {
    unsigned dev; /* on bus 0 */
    ulong common, notify, config;
    u32 multiplier, offered, offered2; /* feature bits, the first word and the second */
    u32 next_bar;
    u8 status;
    bool event_idx;
    u64 kicks;
} Virtio;

static ulong bar_base(Virtio *v, unsigned bar)
{
    unsigned reg = 0x10 + 4 * bar;
    u32 at = pci_read(v->dev, 0, reg);

    if (!(at & ~15u)) { /* no firmware placed it */
        pci_write(v->dev, 0, reg, ~0u);
        u32 bytes = ~(pci_read(v->dev, 0, reg) & ~15u) + 1;
        v->next_bar = (v->next_bar + bytes - 1) & ~(bytes - 1);
        pci_write(v->dev, 0, reg, v->next_bar);
        at = v->next_bar;
        v->next_bar += bytes;
        if ((at & 6) == 4)
            pci_write(v->dev, 0, reg + 4, 0);
    }
    if ((pci_read(v->dev, 0, reg) & 6) == 4)
        CHECK(!pci_read(v->dev, 0, reg + 4), "BAR %u lies above 4 GiB", bar);
    return at & ~15u;
}

/* Find the device of PCI identity @id, reset it, and read what it offers: ACKNOWLEDGE and DRIVER. */
static void virtio_find(Virtio *v, u32 id, const char *name)
{
    *v = (Virtio){.next_bar = 0xfe000000};
    for (; v->dev < 32; v->dev++)
        if (pci_read(v->dev, 0, 0) == id)
            break;
    CHECK(v->dev < 32, "no %s 1.0 on bus 0", name);
    pci_write(v->dev, 0, 4, (pci_read(v->dev, 0, 4) & 0xffff) & ~7u);
    for (u32 cap = pci_read(v->dev, 0, 0x34) & 0xfc; cap; cap = pci_read(v->dev, 0, cap) >> 8 & 0xfc) {
        u32 head = pci_read(v->dev, 0, cap), bar = pci_read(v->dev, 0, cap + 4) & 0xff;
        u32 off = pci_read(v->dev, 0, cap + 8), type = head >> 24;
        if ((head & 0xff) != 9 || (type != 1 && type != 2 && type != 4) ||
            (pci_read(v->dev, 0, 0x10 + 4 * bar) & 1))
            continue;
        if (type == 1 && !v->common)
            v->common = bar_base(v, bar) + off;
        if (type == 4 && !v->config)
            v->config = bar_base(v, bar) + off;
        if (type == 2 && !v->notify) {
            v->notify = bar_base(v, bar) + off;
            v->multiplier = pci_read(v->dev, 0, cap + 16);
        }
    }
    CHECK(v->common && v->notify && v->config, "a capability is missing");
    pci_write(v->dev, 0, 4, (pci_read(v->dev, 0, 4) & 0xffff) | 6 | 1 << 10);
    mmio_write8(v->common + 20, 0);
    for (u64 t = rdtsc(); mmio_read8(v->common + 20);)
        CHECK(rdtsc() - t < 5 * TSC_SECOND, "reset never ends");
    mmio_write8(v->common + 20, v->status = 1);
    mmio_write8(v->common + 20, v->status |= 2);
    mmio_write32(v->common + 0, 0);
    v->offered = mmio_read32(v->common + 4);
    mmio_write32(v->common + 0, 1);
    v->offered2 = mmio_read32(v->common + 4);
}

/* Take features @accept of the first word, @accept2 of the second and version 1. */
static void virtio_accept(Virtio *v, u32 accept, u32 accept2)
{
    v->event_idx = accept & F_EVENT_IDX;
    mmio_write32(v->common + 8, 0);
    mmio_write32(v->common + 12, accept);
    mmio_write32(v->common + 8, 1);
    mmio_write32(v->common + 12, accept2 | F_VERSION_1);
    mmio_write8(v->common + 20, v->status |= 8);
    CHECK(mmio_read8(v->common + 20) & 8, "FEATURES_OK does not stay");
}

static void virtio_start_queue(Virtio *v, Queue *q, unsigned i)
{
    ulong parts[3] = {(ulong)q->desc, (ulong)&q->avail, (ulong)&q->used};

    mmio_write16(v->common + 22, (u16)i);
    CHECK(mmio_read16(v->common + 24) >= QSIZE, "queue %u has %u entries", i,
          mmio_read16(v->common + 24));
    mmio_write16(v->common + 24, QSIZE);
    for (unsigned p = 0; p < 3; p++) {
        mmio_write32(v->common + 32 + 8 * p, (u32)parts[p]);
        mmio_write32(v->common + 36 + 8 * p, 0);
    }
    q->index = (u16)i;
    q->notify = v->notify + mmio_read16(v->common + 30) * v->multiplier;
    q->avail.flags = 1; /* no interrupts */
    q->avail.used_event = QUIET;
    mmio_write16(v->common + 28, 1);
}

static void virtio_go(Virtio *v)
{
    mmio_write8(v->common + 20, v->status |= 4);
}

static void virtio_offer(Queue *q, unsigned i)
{
    q->avail.ring[q->avail.idx % QSIZE] = (u16)i;
    __asm__ volatile("" : : : "memory");
    q->avail.idx++;
}

/* Kick where the device asked for it since the last look. */
static void virtio_tell(Virtio *v, Queue *q)
{
    u16 now = q->avail.idx, old = q->told;

    if (now == old)
        return;
    q->told = now;
    q->avail.used_event = (u16)(q->seen + QUIET);
    __asm__ volatile("mfence" : : : "memory");
    if (v->event_idx ? (u16)(now - q->used.avail_event - 1) < (u16)(now - old)
                     : !(q->used.flags & 1)) {
        v->kicks++;
        mmio_write16(q->notify, q->index);
    }
}

#endif
