/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VIRTQUEUE_H
#define LODGE_VIRTQUEUE_H

/*
 * The device's side of a split virtqueue: one walker for every virtio device. What it finds in
 * guest memory is copied once and then checked; a ring that breaks the rules stops the queue for
 * good (until it is started again) and says why.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lodge/mem.h"

#define VIRTQ_SIZE_MAX 1024          /* entries of a ring */
#define VIRTQ_SEGMENTS_MAX 1024      /* descriptors of one chain */
#define VIRTQ_BYTES_MAX (1u << 30)   /* bytes of one chain */

/* Where the driver put a ring, and where both sides stand in it. */
typedef struct VirtQueueSetup {
    gpa_t desc_gpa, avail_gpa, used_gpa;
    uint16_t size;
    uint16_t last_avail; /* next avail entry to take */
    uint16_t used_idx;   /* next used entry to fill */
    bool indirect, event_idx; /* features in force */
} VirtQueueSetup;

/* One request. The arrays are the caller's and have room for @max entries each. */
typedef struct VirtChain {
    struct iovec *iov; /* readable pieces first, then writable ones; the device may trim them */
    MemPin *pins;      /* the writable pieces again, untrimmed; marked dirty by virtqueue_push() */
    unsigned max;      /* <= VIRTQ_SEGMENTS_MAX is sensible */
    unsigned readable, writable;         /* pieces */
    uint32_t readable_len, writable_len; /* bytes, together <= VIRTQ_BYTES_MAX */
    unsigned npins;
    uint16_t head;
} VirtChain;

typedef struct VirtQueue {
    /* Constant while running: */
    MemMap *mem; /* borrowed */
    MemPin desc, avail, used;
    uint16_t size; /* power of two; 0: not started */
    bool indirect, event_idx;
    /* Owner thread only: */
    uint16_t last_avail;   /* next avail entry to take */
    uint16_t used_idx;     /* published */
    uint16_t staged;       /* used entries written, not yet published */
    uint16_t inuse;        /* chains popped and not pushed */
    bool broken;
    const char *why; /* static: what broke it */
} VirtQueue;

typedef enum VirtPop { VIRTQ_EMPTY, VIRTQ_CHAIN, VIRTQ_BROKEN } VirtPop;

/**
 * virtqueue_start() - Take a ring into use
 * @q:       stopped queue, owned by the caller
 * @mem:     borrowed, outlives the queue's run
 * @s:       copied
 * @ret_why: on false, what is wrong with @s (static)
 * Context: the queue's thread, or any while nothing else touches @q. The pins stay valid until
 *          virtqueue_stop(), since memory is removed only with all devices quiesced.
 * Return:  false if the size is no power of two or too big, or a part of the ring is misaligned
 *          or not wholly in one block of memory.
 * Spec:    Virtual I/O Device 1.2, 2.7 "Split Virtqueues".
 */
bool virtqueue_start(VirtQueue *q, MemMap *mem, const VirtQueueSetup *s, const char **ret_why);
/* Forget the ring; pushes of chains that are still out vanish. */
void virtqueue_stop(VirtQueue *q);
static inline bool virtqueue_running(const VirtQueue *q)
{
    return q->size && !q->broken;
}

/**
 * virtqueue_pop() - Take the next chain that the driver offers
 * @c: filled; its arrays are the caller's
 * Context: the queue's thread.
 * Return:  VIRTQ_CHAIN, VIRTQ_EMPTY, or VIRTQ_BROKEN with q->why set: then nothing was taken.
 */
VirtPop virtqueue_pop(VirtQueue *q, VirtChain *c);
/* Give back the last @n chains popped, so that they are popped again; none of them was pushed. */
void virtqueue_rewind(VirtQueue *q, unsigned n);
/* Whether a pop would find something. */
bool virtqueue_has_more(VirtQueue *q);

/**
 * virtqueue_push() - Give a chain back; the driver sees it after virtqueue_publish()
 * @head: from a popped chain
 * @len:  bytes written from the start of its writable part
 */
void virtqueue_push(VirtQueue *q, uint16_t head, uint32_t len);
/* Mark the chain's writable memory dirty, then push it. */
void virtqueue_push_chain(VirtQueue *q, VirtChain *c, uint32_t len);
void virtqueue_mark_dirty(VirtChain *c);
/* Show the driver what was pushed; true if it wants an interrupt for that. */
bool virtqueue_publish(VirtQueue *q);

/* Ask the driver not to kick. It may kick all the same. */
void virtqueue_notify_off(VirtQueue *q);
/* Ask for kicks again; true if something came in the meantime, for which no kick may come. */
bool virtqueue_notify_on(VirtQueue *q);
/* The same where the next @ahead chains were seen, but do not suffice: a kick for those after. */
bool virtqueue_notify_after(VirtQueue *q, uint16_t ahead);

/* Copy between a buffer and @n pieces from byte @off on; returns how many bytes there were. */
size_t virtq_from_iov(const struct iovec *iov, unsigned n, size_t off, void *to, size_t len);
size_t virtq_to_iov(const struct iovec *iov, unsigned n, size_t off, const void *from, size_t len);
/* Cut @len bytes off the front (at most all); pieces that become empty are skipped. */
void virtq_trim_front(struct iovec **iov, unsigned *n, size_t len);
void virtq_trim_back(struct iovec *iov, unsigned *n, size_t len);

#endif
