/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rings of frames in shared memory. A record is 16 bytes and the frame, in one piece; where the
 * ring ends before it, a record of length PAD leads to the start. Counters run freely, so that full
 * and empty differ.
 *
 * A producer that finds the ring empty goes back to its start, by a pad too: a link with little
 * traffic touches a few pages, not the whole ring. What a burst has touched is given back later
 * (link_tx_trim()).
 *
 * The other side may write anything at any time. Its counter is read once and must lie within the
 * ring, a record's 16 bytes are read once and checked as a whole, and each side goes by its own
 * counters, never by what it wrote into the shared ones. Nonsense makes the link broken, for good:
 * the owner takes it down. Bytes of frames may change while they are looked at; whoever decides by
 * them copies them first.
 *
 * Threads: one for each end. Invariant: sleeping and waking follow one order on both sides: say
 * what is wanted, full barrier, look again; and publish, full barrier, look what is wanted.
 */
#include "link_ring.h"

#include <string.h>
#include <sys/mman.h>

#include "lodge/num.h"

enum {
    REWIND_FROM = 16 << 10, /* where going back begins to save memory */
    REC_BYTES = 16,
};
#define PAD UINT32_MAX

_Static_assert((LINK_RING_BYTES & (LINK_RING_BYTES - 1)) == 0, "free-running counters");
_Static_assert(sizeof(LinkShared) <= LINK_HEAD_STRIDE, "both directions in one page");

static uint32_t record_bytes(uint32_t len)
{
    return (uint32_t)align_up((uint64_t)REC_BYTES + len, LINK_ALIGN);
}

static uint32_t place(uint32_t count)
{
    return count & (LINK_RING_BYTES - 1);
}

static LinkShared *shared_at(void *memory, unsigned which)
{
    return (LinkShared *)((uint8_t *)memory + which * LINK_HEAD_STRIDE);
}

static uint8_t *data_at(void *memory, unsigned which)
{
    return (uint8_t *)memory + LINK_HEAD_BYTES + (size_t)which * LINK_RING_BYTES;
}

/* ---- producer ---- */

void link_tx_init(LinkTx *t, void *memory, unsigned which)
{
    *t = (LinkTx){.shared = shared_at(memory, which), .data = data_at(memory, which)};
}

/* Bytes that are not read yet; sees how far the consumer is. */
static uint32_t tx_used(LinkTx *t)
{
    uint32_t tail = __atomic_load_n(&t->shared->tail, __ATOMIC_ACQUIRE);

    /* It can only have moved towards what was published. */
    if (tail - t->tail > t->published - t->tail || tail % LINK_ALIGN)
        t->broken = true;
    else
        t->tail = tail;
    return t->head - t->tail;
}

static void put_words(uint8_t *at, uint64_t a, uint64_t b)
{
    store_le64(at, a);
    store_le64(at + 8, b);
}

static void put_pad(LinkTx *t)
{
    uint32_t at = place(t->head);

    put_words(t->data + at, PAD, 0);
    t->head += LINK_RING_BYTES - at;
}

bool link_tx_put(LinkTx *t, const NetFrame *f)
{
    uint32_t need = record_bytes(f->len), at = place(t->head), used;

    if (t->broken || !f->len || f->len > NET_FRAME_MAX)
        return false;
    used = t->head - t->tail;
    if (used && (at >= REWIND_FROM || used + need > LINK_RING_BYTES - at))
        used = tx_used(t);
    if (t->broken)
        return false;
    if ((!used && at >= REWIND_FROM && need <= at) || need > LINK_RING_BYTES - at) {
        if (used + (LINK_RING_BYTES - at) + need > LINK_RING_BYTES)
            return false;
        put_pad(t);
        at = 0;
    } else if (used + need > LINK_RING_BYTES) {
        return false;
    }
    uint8_t *to = t->data + at;
    put_words(to, f->len | (uint64_t)f->flags << 32 | (uint64_t)f->gso << 40,
              f->csum_start | (uint64_t)f->csum_off << 16 |
                  (uint64_t)MIN(f->gso_size, UINT16_MAX) << 32 | (uint64_t)f->hdr_len << 48);
    to += REC_BYTES;
    for (uint32_t i = 0, left = f->len; i < f->niov && left; i++) {
        size_t n = MIN(f->iov[i].iov_len, left);

        memcpy(to, f->iov[i].iov_base, n);
        to += n;
        left -= (uint32_t)n;
    }
    t->head += need;
    return true;
}

bool link_tx_publish(LinkTx *t)
{
    if (t->published == t->head)
        return false;
    __atomic_store_n(&t->shared->head, t->head, __ATOMIC_RELEASE);
    t->published = t->head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return __atomic_load_n(&t->shared->asleep, __ATOMIC_RELAXED) &&
           __atomic_exchange_n(&t->shared->asleep, 0, __ATOMIC_RELAXED);
}

bool link_tx_want_room(LinkTx *t)
{
    __atomic_store_n(&t->shared->room_wanted, 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (tx_used(t) > LINK_RING_BYTES / 2 || t->broken)
        return false;
    __atomic_store_n(&t->shared->room_wanted, 0, __ATOMIC_RELAXED);
    return true;
}

/* Only we write there, and nobody reads what is not published. */
void link_tx_trim(LinkTx *t)
{
    if (!t->broken && !tx_used(t)) /* it fails where memory is no file's: no matter */
        (void)madvise(t->data + REWIND_FROM, LINK_RING_BYTES - REWIND_FROM, MADV_REMOVE);
}

/* ---- consumer ---- */

void link_rx_init(LinkRx *r, void *memory, unsigned which)
{
    *r = (LinkRx){.shared = shared_at(memory, which), .data = data_at(memory, which)};
}

/* How much is there to read. */
static uint32_t rx_left(LinkRx *r)
{
    if (r->head == r->tail) {
        uint32_t head = __atomic_load_n(&r->shared->head, __ATOMIC_ACQUIRE);

        if (head - r->released > LINK_RING_BYTES || head - r->released < r->tail - r->released ||
            head % LINK_ALIGN)
            r->broken = true;
        else
            r->head = head;
    }
    return r->broken ? 0 : r->head - r->tail;
}

static bool meta_ok(const NetFrame *f)
{
    const unsigned flags = NET_FRAME_NEEDS_CSUM | NET_FRAME_CSUM_VALID;

    if (f->flags & ~flags)
        return false;
    if ((f->flags & NET_FRAME_NEEDS_CSUM) &&
        (uint32_t)f->csum_start + f->csum_off + sizeof(uint16_t) > f->len)
        return false;
    if (f->gso == NET_GSO_NONE)
        return true;
    return (f->gso == NET_GSO_TCPV4 || f->gso == NET_GSO_TCPV6 || f->gso == NET_GSO_UDP) &&
           f->gso_size && (f->flags & NET_FRAME_NEEDS_CSUM);
}

bool link_rx_next(LinkRx *r, NetFrame *ret_f, struct iovec *ret_iov)
{
    uint32_t left = rx_left(r), at = place(r->tail);

    if (!left)
        return false;
    const uint64_t *rec = (const uint64_t *)(const void *)(r->data + at);
    uint64_t a = __atomic_load_n(&rec[0], __ATOMIC_RELAXED);
    if ((uint32_t)a == PAD) {
        if (!at || left <= LINK_RING_BYTES - at) {
            r->broken = true; /* never alone: a frame stands behind it */
            return false;
        }
        r->tail += LINK_RING_BYTES - at;
        left -= LINK_RING_BYTES - at;
        at = 0;
        rec = (const uint64_t *)(const void *)r->data;
        a = __atomic_load_n(&rec[0], __ATOMIC_RELAXED);
    }
    uint64_t b = __atomic_load_n(&rec[1], __ATOMIC_RELAXED);
    uint32_t len = (uint32_t)a;
    NetFrame f = {.iov = ret_iov, .niov = 1, .len = len, .flags = (uint8_t)(a >> 32),
                  .gso = (uint8_t)(a >> 40), .csum_start = (uint16_t)b,
                  .csum_off = (uint16_t)(b >> 16), .gso_size = (uint16_t)(b >> 32),
                  .hdr_len = (uint16_t)(b >> 48)};
    if (!len || len > NET_FRAME_MAX || record_bytes(len) > left ||
        record_bytes(len) > LINK_RING_BYTES - at || !meta_ok(&f)) {
        r->broken = true;
        return false;
    }
    *ret_iov = (struct iovec){(uint8_t *)r->data + at + REC_BYTES, len};
    *ret_f = f;
    r->tail += record_bytes(len);
    return true;
}

bool link_rx_release(LinkRx *r)
{
    if (r->released == r->tail)
        return false;
    __atomic_store_n(&r->shared->tail, r->tail, __ATOMIC_RELEASE);
    r->released = r->tail;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&r->shared->room_wanted, __ATOMIC_RELAXED))
        return false;
    uint32_t used = __atomic_load_n(&r->shared->head, __ATOMIC_RELAXED) - r->tail;
    if (used > LINK_RING_BYTES / 2)
        return false;
    return __atomic_exchange_n(&r->shared->room_wanted, 0, __ATOMIC_RELAXED);
}

bool link_rx_sleep(LinkRx *r)
{
    __atomic_store_n(&r->shared->asleep, 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(&r->shared->head, __ATOMIC_RELAXED) == r->tail || r->broken)
        return true;
    link_rx_awake(r);
    return false;
}

void link_rx_awake(LinkRx *r)
{
    if (__atomic_load_n(&r->shared->asleep, __ATOMIC_RELAXED))
        __atomic_store_n(&r->shared->asleep, 0, __ATOMIC_RELAXED);
}

void link_rx_trim(LinkRx *r)
{
    if (!r->broken && !rx_left(r))
        (void)madvise((uint8_t *)r->data + REWIND_FROM, LINK_RING_BYTES - REWIND_FROM,
                      MADV_DONTNEED);
}
