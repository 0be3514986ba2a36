// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Split virtqueue, the device's side.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, section 2.7 "Split Virtqueues", with indirect
 * descriptors (2.7.5.3) and used/avail event suppression (2.7.7). Left out: packed rings and
 * in-order use, which no device offers.
 *
 * Threads: a running queue belongs to one thread, which takes no lock. The driver's vCPUs write
 * the same memory at any time, so:
 *
 * (1) Each descriptor and ring entry is copied once to a local, and only the copy is looked at.
 * (2) A walk ends: a chain has at most ring-size direct descriptors and VIRTQ_SEGMENTS_MAX in all,
 *     a pop is refused when the ring's size is in use already, and an avail index further ahead
 *     than the ring is refused.
 * (3) After a breach nothing more is taken from the ring; pushes of what was taken still land in
 *     the used ring, whose place in memory was checked when the queue was started.
 *
 * Ordering, each with its partner in the driver:
 *   avail->idx    load-acquire    driver's store-release after it filled the ring entry
 *   used->idx     store-release   driver's load-acquire before it reads the used element
 *   publish       full fence between used->idx and used_event/flags; driver's full fence between
 *                 its store of used_event and its second look at used->idx
 *   notify_on     full fence between avail_event/flags and avail->idx; driver's full fence
 *                 between avail->idx and its look at avail_event/flags
 */
#include "virtqueue.h"

#include <string.h>

#include <linux/virtio_ring.h>

#include "lodge/num.h"

enum {
    DESC_LEN = sizeof(struct vring_desc),
    DESC_ALIGN = VRING_DESC_ALIGN_SIZE,
    AVAIL_ALIGN = VRING_AVAIL_ALIGN_SIZE,
    USED_ALIGN = VRING_USED_ALIGN_SIZE,
    AVAIL_FLAGS = 0,
    AVAIL_IDX = 2,
    AVAIL_RING = 4,
    USED_FLAGS = 0,
    USED_IDX = 2,
    USED_RING = 4,
    USED_ELEM_LEN = sizeof(struct vring_used_elem),
    EVENT_LEN = 2, /* used_event and avail_event, behind the rings */
};

static uint16_t *ring_u16(const MemPin *pin, size_t off)
{
    return (uint16_t *)(void *)((uint8_t *)pin->host + off);
}

/* Keeps (1): the barrier makes the compiler treat the copy as the only source of the values. */
static struct vring_desc desc_copy(const void *table, size_t i)
{
    struct vring_desc d;

    memcpy(&d, (const uint8_t *)table + i * DESC_LEN, sizeof d);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    return d;
}

static VirtPop virtqueue_fail(VirtQueue *q, const char *why)
{
    q->broken = true;
    q->why = why;
    return VIRTQ_BROKEN;
}

bool virtqueue_start(VirtQueue *q, MemMap *mem, const VirtQueueSetup *s, const char **ret_why)
{
    MemPin desc, avail, used;
    uint32_t n = s->size;

    if (!is_power_of_two(n) || n > VIRTQ_SIZE_MAX) {
        *ret_why = "queue size is not a power of two up to the maximum";
        return false;
    }
    if (s->desc_gpa % DESC_ALIGN || s->avail_gpa % AVAIL_ALIGN || s->used_gpa % USED_ALIGN) {
        *ret_why = "ring is misaligned";
        return false;
    }
    if (!mem_pin(mem, s->desc_gpa, (size_t)n * DESC_LEN, false, &desc) ||
        !mem_pin(mem, s->avail_gpa, AVAIL_RING + n * sizeof(uint16_t) + EVENT_LEN, false, &avail) ||
        !mem_pin(mem, s->used_gpa, USED_RING + n * USED_ELEM_LEN + EVENT_LEN, true, &used)) {
        *ret_why = "ring is outside memory";
        return false;
    }
    q->mem = mem;
    q->desc = desc;
    q->avail = avail;
    q->used = used;
    q->size = s->size;
    q->indirect = s->indirect;
    q->event_idx = s->event_idx;
    q->last_avail = s->last_avail;
    q->used_idx = s->used_idx;
    q->staged = 0;
    q->inuse = 0;
    q->broken = false;
    q->why = NULL;
    return true;
}

void virtqueue_stop(VirtQueue *q)
{
    if (!q->size)
        return;
    mem_unpin(&q->desc);
    mem_unpin(&q->avail);
    mem_unpin(&q->used);
    q->size = 0;
    q->staged = 0;
    q->inuse = 0;
}

static uint16_t avail_idx(const VirtQueue *q)
{
    return __atomic_load_n(ring_u16(&q->avail, AVAIL_IDX), __ATOMIC_ACQUIRE);
}

bool virtqueue_has_more(VirtQueue *q)
{
    return virtqueue_running(q) && avail_idx(q) != q->last_avail;
}

/* Add one descriptor's memory to the chain, in as many pieces as blocks of memory it crosses. */
static const char *chain_add(VirtQueue *q, VirtChain *c, const struct vring_desc *d)
{
    bool write = d->flags & VRING_DESC_F_WRITE;
    uint64_t gpa = d->addr;
    uint32_t left = d->len;

    if (!left)
        return "descriptor of zero length";
    if (left > VIRTQ_BYTES_MAX - c->readable_len - c->writable_len)
        return "chain of too many bytes";
    if (!write && c->writable)
        return "readable descriptor after a writable one";
    while (left) {
        unsigned i = c->readable + c->writable;
        MemPin pin;
        size_t got;

        if (i >= c->max)
            return "chain of too many descriptors";
        got = mem_pin_some(q->mem, gpa, left, write, &pin);
        if (!got)
            return "descriptor outside memory";
        c->iov[i] = (struct iovec){.iov_base = pin.host, .iov_len = got};
        if (write) {
            c->pins[c->npins++] = pin;
            c->writable++;
            c->writable_len += got;
        } else {
            c->readable++;
            c->readable_len += got;
        }
        gpa += got;
        left -= got;
    }
    return NULL;
}

/* Walk the table that @d points to; it ends the chain. */
static const char *chain_add_indirect(VirtQueue *q, VirtChain *c, const struct vring_desc *d)
{
    MemPin table;
    uint32_t entries = d->len / DESC_LEN;
    uint32_t i = 0;

    if (!q->indirect)
        return "indirect descriptor without the feature";
    if (d->flags & VRING_DESC_F_NEXT)
        return "indirect descriptor with a successor";
    if (!d->len || d->len % DESC_LEN || entries > VIRTQ_SEGMENTS_MAX)
        return "indirect table of a wrong length";
    if (!mem_pin(q->mem, d->addr, d->len, false, &table))
        return "indirect table outside memory";
    for (uint32_t steps = 0; steps < entries; steps++) {
        struct vring_desc e = desc_copy(table.host, i);
        const char *why;

        if (e.flags & VRING_DESC_F_INDIRECT)
            return "indirect descriptor in an indirect table";
        why = chain_add(q, c, &e);
        if (why)
            return why;
        if (!(e.flags & VRING_DESC_F_NEXT))
            return NULL;
        if (e.next >= entries)
            return "next index outside the indirect table";
        i = e.next;
    }
    return "loop in an indirect table";
}

static const char *chain_walk(VirtQueue *q, VirtChain *c)
{
    uint16_t i = c->head;

    for (unsigned steps = 0; steps < q->size; steps++) {
        struct vring_desc d = desc_copy(q->desc.host, i);
        const char *why;

        if (d.flags & VRING_DESC_F_INDIRECT)
            return chain_add_indirect(q, c, &d);
        why = chain_add(q, c, &d);
        if (why)
            return why;
        if (!(d.flags & VRING_DESC_F_NEXT))
            return NULL;
        if (d.next >= q->size)
            return "next index outside the ring";
        i = d.next;
    }
    return "loop in a chain";
}

VirtPop virtqueue_pop(VirtQueue *q, VirtChain *c)
{
    uint16_t avail, head;
    const char *why;

    if (q->broken)
        return VIRTQ_BROKEN;
    if (!q->size)
        return VIRTQ_EMPTY;
    avail = avail_idx(q);
    if (avail == q->last_avail)
        return VIRTQ_EMPTY;
    if ((uint16_t)(avail - q->last_avail) > q->size)
        return virtqueue_fail(q, "avail index jumped further than the ring is long");
    /* Keeps (2): an index that moves on without completions must not make us hold more. */
    if (q->inuse >= q->size)
        return virtqueue_fail(q, "more chains offered than the ring has entries");
    head = __atomic_load_n(
        ring_u16(&q->avail, AVAIL_RING + (size_t)(q->last_avail & (q->size - 1)) * 2),
        __ATOMIC_RELAXED);
    if (head >= q->size)
        return virtqueue_fail(q, "avail entry outside the ring");
    c->head = head;
    c->readable = c->writable = c->npins = 0;
    c->readable_len = c->writable_len = 0;
    why = chain_walk(q, c);
    if (why)
        return virtqueue_fail(q, why);
    q->last_avail++;
    q->inuse++;
    return VIRTQ_CHAIN;
}

void virtqueue_rewind(VirtQueue *q, unsigned n)
{
    g_assert(n <= q->inuse || !q->size);
    if (!q->size)
        return;
    q->last_avail -= n;
    q->inuse -= n;
}

void virtqueue_push(VirtQueue *q, uint16_t head, uint32_t len)
{
    struct vring_used_elem e = {.id = head, .len = len};
    uint16_t at;

    if (!q->size)
        return;
    at = (uint16_t)(q->used_idx + q->staged) & (q->size - 1);
    memcpy((uint8_t *)q->used.host + USED_RING + (size_t)at * USED_ELEM_LEN, &e, sizeof e);
    q->staged++;
    q->inuse--;
}

void virtqueue_mark_dirty(VirtChain *c)
{
    for (unsigned i = 0; i < c->npins; i++)
        mem_unpin(&c->pins[i]);
    c->npins = 0;
}

void virtqueue_push_chain(VirtQueue *q, VirtChain *c, uint32_t len)
{
    virtqueue_mark_dirty(c);
    virtqueue_push(q, c->head, len);
}

bool virtqueue_publish(VirtQueue *q)
{
    uint16_t old = q->used_idx, now = old + q->staged;
    uint16_t flags;

    if (!q->size || !q->staged)
        return false;
    q->staged = 0;
    q->used_idx = now;
    __atomic_store_n(ring_u16(&q->used, USED_IDX), now, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* pairs as "publish" above */
    if (q->event_idx) {
        uint16_t event = __atomic_load_n(ring_u16(&q->avail, AVAIL_RING + (size_t)q->size * 2),
                                         __ATOMIC_RELAXED);

        return vring_need_event(event, now, old);
    }
    flags = __atomic_load_n(ring_u16(&q->avail, AVAIL_FLAGS), __ATOMIC_RELAXED);
    return !(flags & VRING_AVAIL_F_NO_INTERRUPT);
}

void virtqueue_notify_off(VirtQueue *q)
{
    if (!q->size)
        return;
    if (q->event_idx) /* the driver kicks when it passes avail_event: as far from here as can be */
        __atomic_store_n(ring_u16(&q->used, USED_RING + (size_t)q->size * USED_ELEM_LEN),
                         (uint16_t)(q->last_avail + 0x8000), __ATOMIC_RELAXED);
    else
        __atomic_store_n(ring_u16(&q->used, USED_FLAGS), VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool virtqueue_notify_after(VirtQueue *q, uint16_t ahead)
{
    uint16_t seen = q->last_avail + ahead;

    if (!virtqueue_running(q))
        return false;
    if (q->event_idx)
        __atomic_store_n(ring_u16(&q->used, USED_RING + (size_t)q->size * USED_ELEM_LEN), seen,
                         __ATOMIC_RELAXED);
    else
        __atomic_store_n(ring_u16(&q->used, USED_FLAGS), 0, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* pairs as "notify_on" above */
    return avail_idx(q) != seen;
}

bool virtqueue_notify_on(VirtQueue *q)
{
    return virtqueue_notify_after(q, 0);
}

size_t virtq_from_iov(const struct iovec *iov, unsigned n, size_t off, void *to, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        size_t take;

        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        take = MIN(iov[i].iov_len - off, len - done);
        memcpy((uint8_t *)to + done, (const uint8_t *)iov[i].iov_base + off, take);
        done += take;
        off = 0;
    }
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* keeps (1) for headers copied this way */
    return done;
}

size_t virtq_to_iov(const struct iovec *iov, unsigned n, size_t off, const void *from, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        size_t take;

        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        take = MIN(iov[i].iov_len - off, len - done);
        memcpy((uint8_t *)iov[i].iov_base + off, (const uint8_t *)from + done, take);
        done += take;
        off = 0;
    }
    return done;
}

void virtq_trim_front(struct iovec **iov, unsigned *n, size_t len)
{
    while (*n && len >= (*iov)->iov_len) {
        len -= (*iov)->iov_len;
        (*iov)++;
        (*n)--;
    }
    if (*n && len) {
        (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + len;
        (*iov)->iov_len -= len;
    }
}

void virtq_trim_back(struct iovec *iov, unsigned *n, size_t len)
{
    while (*n && len >= iov[*n - 1].iov_len) {
        len -= iov[*n - 1].iov_len;
        (*n)--;
    }
    if (*n)
        iov[*n - 1].iov_len -= len;
}
