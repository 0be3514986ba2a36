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
    LINK_PAGE = 4096,
    LINK_NARROW = 16 << 10,    /* what a quiet ring keeps to */
    LINK_LIMIT_MIN = 32 << 10, /* and what a busy one gets at least */
};

/* What is shared beside the bytes; each half is written by one side only, but for the wishes, which
 * the other one clears. */
typedef struct LinkShared {
    _Alignas(64) uint32_t head; /* bytes ever written, modulo 2^32 */
    uint32_t room_wanted; /* the producer sleeps until tail is there; bit 0: it does */
    _Alignas(64) uint32_t tail; /* bytes ever read */
    uint32_t asleep;            /* the consumer sleeps until something comes */
    uint32_t limit; /* how far into the ring the consumer would have records go; 0: to its end */
} LinkShared;

typedef struct LinkTx {
    LinkShared *shared; /* borrowed, as data: mapped by the link's owner */
    uint8_t *data;
    uint32_t head, published, tail;
    uint32_t own_limit, limit;  /* our wish, and the lower one of both sides' */
    uint32_t top;               /* records went so far since the memory behind was given back */
    uint32_t pad_end, pad_skip; /* the latest pad: where the counter was after it, and its length */
    uint32_t back_from;         /* from where on one that is empty goes back to its start */
    uint32_t full_at;           /* the counter when there was no room, or that was halved */
    bool shrunk; /* the limit went down, and memory behind it is still there */
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
/* Ask to be woken when half of what may be used is free, and a frame of @len bytes has room.
 * Return: true: that is so by now. */
bool link_tx_want_room(LinkTx *t, uint32_t len);
/* Use no more than @bytes of the ring (LINK_LIMIT_MIN to LINK_RING_BYTES), but for a frame that is
 * alone; what was used beyond goes back to the host as soon as it is read. */
void link_tx_set_limit(LinkTx *t, uint32_t bytes);
/* Whether it takes more memory than a quiet one. */
static inline bool link_tx_wide(const LinkTx *t)
{
    return t->top > LINK_NARROW;
}

/**
 * link_rx_next() - The next frame
 * @ret_f:   lies in the ring until link_rx_release(), where the other side may still write; what
 *           stands beside its bytes was copied and makes sense
 * @ret_iov: its only piece
 * Return: false: none now, or broken.
 */
bool link_rx_next(LinkRx *r, NetFrame *ret_f, struct iovec *ret_iov);
/* Whether link_rx_next() has something to say. */
bool link_rx_ready(LinkRx *r);
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
/* Tell the producer to use no more than @bytes; see link_tx_set_limit(). */
void link_rx_set_limit(LinkRx *r, uint32_t bytes);
/* Whether the producer is at a place where a quiet one would not be. */
static inline bool link_rx_wide(const LinkRx *r)
{
    return (r->tail & (LINK_RING_BYTES - 1)) > LINK_NARROW;
}
/* Unmap for now what is not at the start of an empty ring, whose memory is the producer's to give
 * back. The ring lies in shared memory. */
void link_rx_trim(LinkRx *r);

#endif
