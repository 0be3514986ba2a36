/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rings of frames in shared memory. A record is 16 bytes and the frame, in one piece; where the
 * ring ends before it, a record of length PAD leads to the start. Counters run freely, so that full
 * and empty differ; a pad counts as what it skips.
 *
 * A producer that finds the ring empty goes back to its start, by a pad too: a link with little
 * traffic touches a few pages, not the whole ring. Until the consumer has passed that pad there is
 * room only up to where it stands, so one that was full goes back from twice as far, each time, and
 * from half of that when it has not been full for a while. What a burst has touched is given back
 * later (link_tx_trim()). Either side may set a limit, where the producer pads as if the ring ended
 * there, so that many busy links share a bounded memory. A frame that is longer than the limit goes
 * beyond it, alone.
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
    REWIND_FROM = LINK_NARROW, /* where going back begins to save memory */
    CROWDED_BYTES = 2 << 20, /* after so many without being full it goes back sooner */
    REC_BYTES = 16,
    ROOM_WANTED = 1, /* in LinkShared.room_wanted, beside a counter */
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
    *t = (LinkTx){.shared = shared_at(memory, which), .data = data_at(memory, which),
                  .own_limit = LINK_RING_BYTES, .limit = LINK_RING_BYTES,
                  .back_from = REWIND_FROM};
}

static uint32_t limit_ok(uint32_t bytes)
{
    if (!bytes)
        return LINK_RING_BYTES;
    return CLAMP(bytes, (uint32_t)LINK_LIMIT_MIN, (uint32_t)LINK_RING_BYTES) &
           ~(uint32_t)(LINK_PAGE - 1);
}

static void look_at_limit(LinkTx *t)
{
    uint32_t theirs = limit_ok(__atomic_load_n(&t->shared->limit, __ATOMIC_RELAXED));
    uint32_t limit = MIN(t->own_limit, theirs);

    t->shrunk |= limit < t->limit;
    t->limit = limit;
}

void link_tx_set_limit(LinkTx *t, uint32_t bytes)
{
    t->own_limit = limit_ok(bytes);
}

/* Nothing that is unread lies behind the limit: its memory goes back. */
static void give_back(LinkTx *t, uint32_t used)
{
    uint32_t at = place(t->head);

    if (at > t->limit || used > at)
        return;
    if (t->top > t->limit) { /* it fails where memory is no file's: no matter */
        (void)madvise(t->data + t->limit, LINK_RING_BYTES - t->limit, MADV_REMOVE);
        t->top = t->limit;
    }
    t->shrunk = false;
}

/* Bytes that are not read yet; sees how far the consumer is. */
static uint32_t tx_used(LinkTx *t)
{
    uint32_t tail = __atomic_load_n(&t->shared->tail, __ATOMIC_ACQUIRE);

    /* It can only have moved towards what was published. */
    if (tail - t->tail > t->published - t->tail || tail % LINK_ALIGN) {
        t->broken = true;
        return t->head - t->tail;
    }
    t->tail = tail;
    look_at_limit(t);
    if (t->shrunk)
        give_back(t, t->head - tail);
    return t->head - tail;
}

/* Whether a record of @need bytes has room beside @used ones; @ret_wrap: at the ring's start. */
static bool find_place(const LinkTx *t, uint32_t used, uint32_t need, bool *ret_wrap)
{
    uint32_t at = place(t->head);
    bool past = at + need > t->limit;

    *ret_wrap = used + need <= at && (past || (!used && at >= t->back_from));
    return *ret_wrap || ((!past || !used) && need <= LINK_RING_BYTES - at &&
                         used + need <= LINK_RING_BYTES);
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
    t->pad_skip = LINK_RING_BYTES - at;
    t->head += t->pad_skip;
    t->pad_end = t->head;
}

bool link_tx_put(LinkTx *t, const NetFrame *f)
{
    uint32_t need = record_bytes(f->len), at = place(t->head), used;
    bool wrap;

    if (t->broken || !f->len || f->len > NET_FRAME_MAX)
        return false;
    if (t->back_from > REWIND_FROM && t->head - t->full_at > CROWDED_BYTES) {
        t->back_from /= 2;
        t->full_at = t->head;
    }
    used = t->head - t->tail;
    if (used && at >= REWIND_FROM)
        used = tx_used(t);
    if (!find_place(t, used, need, &wrap)) {
        used = tx_used(t);
        if (t->broken)
            return false;
        if (!find_place(t, used, need, &wrap)) {
            t->back_from = MIN(2 * t->back_from, (uint32_t)LINK_RING_BYTES);
            t->full_at = t->head;
            return false;
        }
    }
    if (t->broken)
        return false;
    if (wrap) {
        put_pad(t);
        at = 0;
    }
    t->top = MAX(t->top, at + need);
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

/* Of @used bytes those that a pad does not skip. */
static uint32_t unread(const LinkTx *t, uint32_t used)
{
    bool inside = t->pad_skip && t->pad_end - t->tail - 1 < used;

    return inside && used > t->pad_skip ? used - t->pad_skip : used;
}

static bool has_room(const LinkTx *t, uint32_t used, uint32_t need)
{
    bool wrap;

    return unread(t, used) <= t->limit / 2 && find_place(t, used, need, &wrap);
}

/* Where the tail is to be for that, as far as can be told: at least a step on, at most the head. */
static uint32_t wake_at(const LinkTx *t, uint32_t used, uint32_t need)
{
    uint32_t bytes = unread(t, used), half = t->limit / 2;
    uint32_t step = align_up(MAX(bytes > half ? bytes - half : bytes / 2, 1u), LINK_ALIGN);
    bool wrap;

    if (bytes < used && step > t->pad_end - t->pad_skip - t->tail)
        step += t->pad_skip;
    return step < used && find_place(t, used - step, need, &wrap) ? t->tail + step : t->head;
}

bool link_tx_want_room(LinkTx *t, uint32_t len)
{
    uint32_t need = record_bytes(MIN(len, (uint32_t)NET_FRAME_MAX)), used = tx_used(t);

    while (!t->broken && !has_room(t, used, need)) {
        uint32_t wake = wake_at(t, used, need);

        __atomic_store_n(&t->shared->room_wanted, wake | ROOM_WANTED, __ATOMIC_RELEASE);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        used = tx_used(t);
        if (t->broken || t->tail - wake > INT32_MAX)
            return false;
        __atomic_store_n(&t->shared->room_wanted, 0, __ATOMIC_RELAXED);
    }
    return !t->broken;
}

/* Only we write there, and nobody reads what is not published. */
void link_tx_trim(LinkTx *t)
{
    if (t->broken || tx_used(t))
        return;
    (void)madvise(t->data + REWIND_FROM, LINK_RING_BYTES - REWIND_FROM, MADV_REMOVE);
    t->top = MIN(t->top, (uint32_t)REWIND_FROM);
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

bool link_rx_ready(LinkRx *r)
{
    return rx_left(r) || r->broken;
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
    uint32_t want = __atomic_load_n(&r->shared->room_wanted, __ATOMIC_ACQUIRE);
    if (!want || r->tail - (want & ~(uint32_t)(LINK_ALIGN - 1)) > INT32_MAX)
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

void link_rx_set_limit(LinkRx *r, uint32_t bytes)
{
    __atomic_store_n(&r->shared->limit, bytes, __ATOMIC_RELAXED);
}
