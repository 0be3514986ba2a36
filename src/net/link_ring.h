/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_LINK_RING_H
#define LODGE_LINK_RING_H

/*
 * One direction of the link between two Lodge processes: a ring of frames in memory that both have
 * mapped. Neither side trusts the other.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lodge/net.h"

enum {
    LINK_RING_BYTES = 1 << 20,
    LINK_HEAD_BYTES = 4096, /* before the rings: the counters of both directions */
    LINK_HEAD_STRIDE = 2048,
    LINK_BYTES = LINK_HEAD_BYTES + 2 * LINK_RING_BYTES,
    LINK_ALIGN = 16,
};

/* What is shared beside the bytes; each half is written by one side only, but for the wishes, which
 * the other one clears. */
typedef struct LinkShared {
    _Alignas(64) uint32_t head; /* bytes ever written, modulo 2^32 */
    uint32_t room_wanted;       /* the producer sleeps until half of the ring is free */
    _Alignas(64) uint32_t tail; /* bytes ever read */
    uint32_t asleep;            /* the consumer sleeps until something comes */
} LinkShared;

typedef struct LinkTx {
    LinkShared *shared; /* borrowed, as data: mapped by the link's owner */
    uint8_t *data;
    uint32_t head, published, tail;
    bool broken; /* the other side's counters made no sense: nothing is sent any more */
} LinkTx;

typedef struct LinkRx {
    LinkShared *shared;
    const uint8_t *data;
    uint32_t tail;     /* next to be read */
    uint32_t released; /* what the producer knows of it */
    uint32_t head;
    bool broken;
} LinkRx;

/* Direction @which (0 or 1) of the link in @memory (LINK_BYTES), which is all zero: a link whose
 * peer is gone is not taken up again. */
void link_tx_init(LinkTx *t, void *memory, unsigned which);
void link_rx_init(LinkRx *r, void *memory, unsigned which);

/* Copy @f into the ring, not to be seen before link_tx_publish(). Return: false: no room, or
 * broken. */
bool link_tx_put(LinkTx *t, const NetFrame *f);
/* Let the consumer see it. Return: whether it sleeps, and is to be woken. */
bool link_tx_publish(LinkTx *t);
/* Give the memory of an empty ring back to the host, but for its start; now and then. */
void link_tx_trim(LinkTx *t);
/* Ask to be woken at half a ring of room. Return: true: there is that much by now. */
bool link_tx_want_room(LinkTx *t);

/**
 * link_rx_next() - The next frame
 * @ret_f:   lies in the ring until link_rx_release(), where the other side may still write; what
 *           stands beside its bytes was copied and makes sense
 * @ret_iov: its only piece
 * Return: false: none now, or broken.
 */
bool link_rx_next(LinkRx *r, NetFrame *ret_f, struct iovec *ret_iov);
/* Where the reader stands, and go back there: frames since then come again. */
static inline uint32_t link_rx_mark(const LinkRx *r)
{
    return r->tail;
}
static inline void link_rx_back(LinkRx *r, uint32_t mark)
{
    r->tail = mark;
}
/* Give back what was read. Return: whether the producer waits for that, and is to be woken. */
bool link_rx_release(LinkRx *r);
/* Ask to be woken when something comes. Return: false: there is something; do not sleep. */
bool link_rx_sleep(LinkRx *r);
void link_rx_awake(LinkRx *r); /* no need to wake us */
/* Unmap for now what is not at the start of an empty ring, whose memory is the producer's to give back.
 * The ring lies in shared memory. */
void link_rx_trim(LinkRx *r);

#endif
