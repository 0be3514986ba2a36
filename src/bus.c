/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Port and MMIO dispatch.
 *
 * The regions that are mapped stand in a list in order of their claims. From it a view is made: an
 * immutable sorted array of pieces that do not overlap, the earlier claim winning. A reader keeps
 * a reference on its view and takes a new one when the generation moved.
 *
 * Invariants:
 * (1) A piece keeps the base that its region had when the view was made, so an access that began
 *     on an old view computes an offset inside the region, wherever it has moved since.
 * (2) The layout lock is never held across a handler.
 */
#include <string.h>

#include "lodge/bus.h"
#include "lodge/error.h"
#include "lodge/num.h"

typedef struct Piece {
    uint64_t start, end; /* addresses, end exclusive */
    uint64_t base;       /* of the region, for offsets */
    BusRegion *region;
} Piece;

typedef struct BusView {
    unsigned refs; /* guarded by the bus's lock */
    uint64_t generation;
    unsigned n;
    Piece piece[];
} BusView;

struct Bus {
    const char *name;
    uint64_t limit;
    LodgeLock lock;
    GPtrArray *regions; /* BusRegion, borrowed, in order of claims */
    BusView *view;
    uint64_t generation; /* atomic; pairs with reader_view() */
    uint64_t unclaimed_reads, unclaimed_writes; /* atomic */
    BusEventHooks hooks;
};

struct BusReader {
    Bus *bus;      /* borrowed */
    BusView *view; /* ref */
    unsigned last; /* piece of the last hit */
};

Bus *bus_new(const char *name, uint64_t limit)
{
    Bus *b = g_new0(Bus, 1);
    b->name = name;
    b->limit = limit;
    lodge_lock_init(&b->lock, LOCK_RANK_LAYOUT, "bus layout");
    b->regions = g_ptr_array_new();
    b->view = g_malloc0(sizeof(BusView));
    b->view->refs = 1;
    return b;
}

void bus_free(Bus *b)
{
    if (!b)
        return;
    g_free(b->view);
    g_ptr_array_free(b->regions, TRUE);
    lodge_lock_clear(&b->lock);
    g_free(b);
}

const char *bus_name(const Bus *b)
{
    return b->name;
}

static void view_unref_locked(BusView *v)
{
    if (!--v->refs)
        g_free(v);
}

static int piece_order(const void *a, const void *b)
{
    const Piece *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* Add what of [@start, @end) of @r no piece in @out holds yet. */
static void claim(GArray *out, BusRegion *r, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < out->len; i++) {
        const Piece *p = &g_array_index(out, Piece, i);
        if (start >= p->end || end <= p->start)
            continue;
        uint64_t hole_start = p->start, hole_end = p->end;
        if (start < hole_start)
            claim(out, r, start, hole_start);
        if (end > hole_end)
            claim(out, r, hole_end, end);
        return;
    }
    Piece piece = {start, end, r->base, r};
    g_array_append_val(out, piece);
}

static void publish_locked(Bus *b)
{
    lock_assert_held(&b->lock);
    g_autoptr(GArray) pieces = g_array_new(FALSE, FALSE, sizeof(Piece));
    for (unsigned i = 0; i < b->regions->len; i++) {
        BusRegion *r = g_ptr_array_index(b->regions, i);
        claim(pieces, r, r->base, r->base + r->len);
    }
    g_array_sort(pieces, piece_order);
    BusView *v = g_malloc0(sizeof *v + pieces->len * sizeof(Piece));
    v->refs = 1;
    v->n = pieces->len;
    v->generation = b->generation + 1;
    if (pieces->len)
        memcpy(v->piece, pieces->data, pieces->len * sizeof(Piece));
    view_unref_locked(b->view);
    b->view = v;
    __atomic_store_n(&b->generation, v->generation, __ATOMIC_RELEASE);
}

static bool fits(const Bus *b, const BusRegion *r, uint64_t base)
{
    return r->len && range_within(base, r->len, b->limit);
}

/* Tell the hooks that @r comes to or leaves its place. */
static void coalesce_locked(Bus *b, const BusRegion *r, bool on)
{
    lock_assert_held(&b->lock);
    for (const BusSpan *s = r->ops->coalesce; b->hooks.coalesce && s && s->len; s++) {
        if (s->at < r->len)
            b->hooks.coalesce(b->hooks.opaque, b, r->base + s->at, MIN(s->len, r->len - s->at),
                              on);
    }
}

bool bus_map(Bus *b, BusRegion *r, uint64_t base, GError **error)
{
    g_assert(!r->mapped);
    if (!fits(b, r, base))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: %s 0x%" PRIx64 "+0x%" PRIx64
                          " lies outside the bus", r->name, b->name, base, r->len);
    lodge_lock(&b->lock);
    for (unsigned i = 0; i < b->regions->len; i++) {
        BusRegion *o = g_ptr_array_index(b->regions, i);
        if (ranges_overlap(base, r->len, o->base, o->len)) {
            lodge_unlock(&b->lock);
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: %s 0x%" PRIx64 " is taken by %s",
                              r->name, b->name, base, o->name);
        }
    }
    r->base = base;
    r->mapped = true;
    g_ptr_array_add(b->regions, r);
    publish_locked(b);
    coalesce_locked(b, r, true);
    lodge_unlock(&b->lock);
    return true;
}

void bus_place(Bus *b, BusRegion *r, uint64_t base)
{
    lodge_lock(&b->lock);
    bool changed = r->mapped;
    if (r->mapped && r->base == base) {
        changed = false;
    } else {
        if (r->mapped) {
            g_ptr_array_remove(b->regions, r);
            coalesce_locked(b, r, false);
        }
        r->mapped = fits(b, r, base);
        if (r->mapped) {
            r->base = base;
            g_ptr_array_add(b->regions, r);
            coalesce_locked(b, r, true);
            changed = true;
        }
    }
    if (changed)
        publish_locked(b);
    lodge_unlock(&b->lock);
}

void bus_unmap(Bus *b, BusRegion *r)
{
    lodge_lock(&b->lock);
    if (r->mapped) {
        r->mapped = false;
        g_ptr_array_remove(b->regions, r);
        coalesce_locked(b, r, false);
        publish_locked(b);
    }
    lodge_unlock(&b->lock);
}

BusReader *bus_reader_new(Bus *b)
{
    BusReader *rd = g_new0(BusReader, 1);
    rd->bus = b;
    lodge_lock(&b->lock);
    rd->view = b->view;
    rd->view->refs++;
    lodge_unlock(&b->lock);
    return rd;
}

void bus_reader_free(BusReader *rd)
{
    if (!rd)
        return;
    lodge_lock(&rd->bus->lock);
    view_unref_locked(rd->view);
    lodge_unlock(&rd->bus->lock);
    g_free(rd);
}

/* The current view; takes the layout lock only after a change. */
static inline const BusView *reader_view(BusReader *rd)
{
    Bus *b = rd->bus;
    if (__builtin_expect(__atomic_load_n(&b->generation, __ATOMIC_ACQUIRE) !=
                             rd->view->generation, 0)) {
        lodge_lock(&b->lock);
        view_unref_locked(rd->view);
        rd->view = b->view;
        rd->view->refs++;
        lodge_unlock(&b->lock);
        rd->last = 0;
    }
    return rd->view;
}

static const Piece *find_piece(BusReader *rd, uint64_t addr)
{
    const BusView *v = reader_view(rd);
    if (rd->last < v->n && addr >= v->piece[rd->last].start && addr < v->piece[rd->last].end)
        return &v->piece[rd->last];
    unsigned lo = 0, hi = v->n;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (addr >= v->piece[mid].end)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == v->n || addr < v->piece[lo].start)
        return NULL;
    rd->last = lo;
    return &v->piece[lo];
}

static inline uint64_t width_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (UINT64_C(1) << (size * 8)) - 1;
}

/* The widest accepted access that is not wider than @size; 0: none. */
static unsigned accepted_width(uint8_t sizes, unsigned size)
{
    while (size && !(sizes & size))
        size /= 2;
    return size;
}

static uint64_t region_read(const Piece *p, uint64_t off, unsigned size)
{
    BusRegion *r = p->region;
    if (!r->ops->read)
        return width_mask(size);
    unsigned width = accepted_width(r->ops->sizes, size);
    if (!width)
        return width_mask(size);
    uint64_t val = 0;
    if (r->lock)
        lodge_lock(r->lock);
    for (unsigned done = 0; done < size; done += width)
        val |= (r->ops->read(r->owner, off + done, width) & width_mask(width)) << (done * 8);
    if (r->lock)
        lodge_unlock(r->lock);
    return val;
}

static void region_write(const Piece *p, uint64_t off, unsigned size, uint64_t val)
{
    BusRegion *r = p->region;
    unsigned width = accepted_width(r->ops->sizes, size);
    if (!r->ops->write || !width)
        return;
    if (r->lock)
        lodge_lock(r->lock);
    for (unsigned done = 0; done < size; done += width)
        r->ops->write(r->owner, off + done, width, (val >> (done * 8)) & width_mask(width));
    if (r->lock)
        lodge_unlock(r->lock);
}

uint64_t bus_read(BusReader *rd, uint64_t addr, unsigned size)
{
    const Piece *p = find_piece(rd, addr);
    if (p && size <= p->end - addr) {
        __atomic_fetch_add(&p->region->hits, 1, __ATOMIC_RELAXED);
        return region_read(p, addr - p->base, size);
    }
    if (size > 1) {
        /* Nobody has all of it: each half for itself, low part first. */
        unsigned half = size / 2;
        uint64_t lo = bus_read(rd, addr, half);
        return lo | bus_read(rd, addr + half, half) << (half * 8);
    }
    __atomic_fetch_add(&rd->bus->unclaimed_reads, 1, __ATOMIC_RELAXED);
    return 0xff;
}

void bus_write(BusReader *rd, uint64_t addr, unsigned size, uint64_t val)
{
    const Piece *p = find_piece(rd, addr);
    if (p && size <= p->end - addr) {
        __atomic_fetch_add(&p->region->hits, 1, __ATOMIC_RELAXED);
        region_write(p, addr - p->base, size, val & width_mask(size));
        return;
    }
    if (size > 1) {
        unsigned half = size / 2;
        bus_write(rd, addr, half, val & width_mask(half));
        bus_write(rd, addr + half, half, val >> (half * 8));
        return;
    }
    __atomic_fetch_add(&rd->bus->unclaimed_writes, 1, __ATOMIC_RELAXED);
}

/* How a value stands in guest memory; x86 is little-endian, and so is the host. */
static inline uint64_t load_element(const uint8_t *at, unsigned size)
{
    return size == 4 ? load_le32(at) : size == 2 ? load_le16(at) : *at;
}

static inline void store_element(uint8_t *at, unsigned size, uint64_t val)
{
    if (size == 4)
        store_le32(at, (uint32_t)val);
    else if (size == 2)
        store_le16(at, (uint16_t)val);
    else
        *at = (uint8_t)val;
}

/* The piece where accesses go straight to the handler; NULL: each must find its own way. */
static const Piece *string_piece(BusReader *rd, uint64_t addr, unsigned size)
{
    const Piece *p = find_piece(rd, addr);
    return p && size <= p->end - addr && (p->region->ops->sizes & size) ? p : NULL;
}

/* Whether a handler has changed the layout. */
static inline bool is_stale(const BusReader *rd)
{
    return __atomic_load_n(&rd->bus->generation, __ATOMIC_ACQUIRE) != rd->view->generation;
}

void bus_read_string(BusReader *rd, uint64_t addr, unsigned size, void *data, uint32_t count)
{
    const Piece *p = string_piece(rd, addr, size);
    uint8_t *at = data;
    uint32_t i = 0;
    if (p && p->region->ops->read) {
        BusRegion *r = p->region;
        if (r->lock)
            lodge_lock(r->lock);
        for (; i < count && !is_stale(rd); i++, at += size)
            store_element(at, size, r->ops->read(r->owner, addr - p->base, size));
        if (r->lock)
            lodge_unlock(r->lock);
        __atomic_fetch_add(&r->hits, i, __ATOMIC_RELAXED);
    }
    for (; i < count; i++, at += size)
        store_element(at, size, bus_read(rd, addr, size));
}

void bus_write_string(BusReader *rd, uint64_t addr, unsigned size, const void *data,
                      uint32_t count)
{
    const Piece *p = string_piece(rd, addr, size);
    const uint8_t *at = data;
    uint32_t i = 0;
    if (p && p->region->ops->write) {
        BusRegion *r = p->region;
        if (r->lock)
            lodge_lock(r->lock);
        for (; i < count && !is_stale(rd); i++, at += size)
            r->ops->write(r->owner, addr - p->base, size, load_element(at, size));
        if (r->lock)
            lodge_unlock(r->lock);
        __atomic_fetch_add(&r->hits, i, __ATOMIC_RELAXED);
    }
    for (; i < count; i++, at += size)
        bus_write(rd, addr, size, load_element(at, size));
}

static BusRegion *region_at_locked(Bus *b, uint64_t addr)
{
    for (unsigned i = 0; i < b->view->n; i++) {
        const Piece *p = &b->view->piece[i];
        if (addr >= p->start && addr < p->end)
            return p->region;
    }
    return NULL;
}

const char *bus_region_at(Bus *b, uint64_t addr)
{
    lodge_lock(&b->lock);
    const BusRegion *r = region_at_locked(b, addr);
    lodge_unlock(&b->lock);
    return r ? r->name : NULL;
}

uint64_t bus_region_hits(Bus *b, uint64_t addr)
{
    lodge_lock(&b->lock);
    BusRegion *r = region_at_locked(b, addr);
    uint64_t hits = r ? __atomic_load_n(&r->hits, __ATOMIC_RELAXED) : 0;
    lodge_unlock(&b->lock);
    return hits;
}

void bus_each_region(Bus *b, BusRegionFn fn, void *opaque)
{
    lodge_lock(&b->lock);
    for (unsigned i = 0; i < b->regions->len; i++) {
        const BusRegion *r = g_ptr_array_index(b->regions, i);
        fn(opaque, r, __atomic_load_n(&r->hits, __ATOMIC_RELAXED));
    }
    lodge_unlock(&b->lock);
}

void bus_unclaimed(Bus *b, uint64_t *ret_reads, uint64_t *ret_writes)
{
    *ret_reads = __atomic_load_n(&b->unclaimed_reads, __ATOMIC_RELAXED);
    *ret_writes = __atomic_load_n(&b->unclaimed_writes, __ATOMIC_RELAXED);
}

void bus_set_event_hooks(Bus *b, const BusEventHooks *hooks)
{
    b->hooks = *hooks;
}

void bus_settle(Bus *b)
{
    if (b->hooks.settle)
        b->hooks.settle(b->hooks.opaque);
}

bool bus_eventfd_add(Bus *b, uint64_t addr, unsigned len, int fd)
{
    return b->hooks.add && b->hooks.add(b->hooks.opaque, b, addr, len, fd);
}

void bus_eventfd_remove(Bus *b, uint64_t addr, unsigned len, int fd)
{
    if (b->hooks.remove)
        b->hooks.remove(b->hooks.opaque, b, addr, len, fd);
}
