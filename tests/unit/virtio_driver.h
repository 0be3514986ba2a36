/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VIRTIO_DRIVER_H
#define LODGE_VIRTIO_DRIVER_H

/*
 * A virtio driver for tests: finds the device's registers through its PCI capabilities, drives them
 * through the real buses, and keeps split rings in the board's memory.
 */

#include "lodge/mem.h"
#include "testboard.h"

#define DRV_QUEUES 36
#define DRV_RAM (UINT64_C(4) << 20)
#define DRV_CONFIG_DATA 0x4000 /* MSI data of the configuration vector; queue q has q + 1 more */

typedef struct DrvQueue {
    uint16_t size, free, avail, seen;
    uint64_t desc, ring, used; /* guest addresses */
    uint64_t notify;
} DrvQueue;

typedef struct Drv {
    TestBoard *tb;
    Device *dev;
    uint8_t devfn;
    uint64_t common, isr, config, notify, msix;
    uint32_t notify_mult;
    uint8_t msix_cap, window_cap;
    uint64_t next_gpa; /* of drv_alloc() */
    uint64_t features; /* accepted */
    DrvQueue q[DRV_QUEUES];
} Drv;

typedef struct DrvSeg {
    uint64_t gpa;
    uint32_t len;
    bool write;
} DrvSeg;

/* A board with a host bridge. */
TestBoard *drv_board(void);
/* Find the one virtio device of class @cls, which the board gets with @props. */
Drv *drv_open(TestBoard *tb, const char *cls, const char *props);
void drv_free(Drv *d);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Drv, drv_free)

void drv_status(Drv *d, uint8_t add);
uint8_t drv_get_status(Drv *d);
void drv_reset(Drv *d);
uint64_t drv_offered(Drv *d);
/* Acknowledge and accept @want of what is offered (and version 1); true if the device agrees. */
bool drv_accept(Drv *d, uint64_t want);
uint64_t drv_alloc(Drv *d, uint64_t len);
void drv_queue(Drv *d, unsigned q, uint16_t size);
void drv_ready(Drv *d);
/* MSI-X on: configuration on vector 0, queue q on vector q + 1. Before drv_queue(). */
void drv_msix(Drv *d, unsigned queues);
/* Messages of queue @q (-1: configuration) since the last call. */
unsigned drv_msis(Drv *d, int q);

void drv_desc(Drv *d, unsigned q, uint16_t i, uint64_t gpa, uint32_t len, uint16_t flags,
              uint16_t next);
/* Offer the chain that starts at @head. */
void drv_offer(Drv *d, unsigned q, uint16_t head);
/* Lay out @n segments as a chain and offer it; its head. */
uint16_t drv_add(Drv *d, unsigned q, const DrvSeg *segs, unsigned n);
void drv_kick(Drv *d, unsigned q);
/* Next used element; false: none. */
bool drv_used(Drv *d, unsigned q, uint32_t *ret_head, uint32_t *ret_len);
void drv_put(Drv *d, uint64_t gpa, const void *from, size_t len);
void drv_get(Drv *d, uint64_t gpa, void *to, size_t len);
uint16_t drv_get16(Drv *d, uint64_t gpa);
void drv_put16(Drv *d, uint64_t gpa, uint16_t v);
bool drv_needs_reset(Drv *d);

#endif
