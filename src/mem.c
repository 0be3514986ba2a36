/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory: blocks of host memory shown to the guest at guest physical addresses.
 *
 * The layout is one small array sorted by address behind a sequence counter: a reader looks at the
 * counter, searches, copies the range it found and looks again. Writers hold the layout lock and
 * make the counter odd while they move entries; the guest may move BARs and shadowed ROM as often
 * as it likes, and nothing is left behind by it. Blocks live as long as the map, so a range that a
 * reader copied stays memory of this process whatever happens to the layout.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/lock.h"
#include "lodge/mem.h"
#include "lodge/num.h"

#define MEM_PAGE 4096u
#define MEM_HUGE_PAGE (2 * MIB)
#define MEM_BLOCK_MAX (UINT64_C(1) << 46) /* bytes: half of a process's address space */
#define MEM_RANGES_MAX 64u

struct MemBlock {
    char *name; /* owned */
    uint8_t *host;
    uint64_t len;
    size_t mapped_len; /* of host, huge pages rounded up */
    uint8_t *room;     /* around host, a page or more without access at each end */
    size_t room_len;
    uint32_t page;     /* bytes: what the host gives and takes back */
    int fd;            /* MEM_SHARED: the memfd; else -1 */
    bool read_only;
    bool in_map;
    uint64_t *dirty; /* MEM_DIRTY_LOG: a bit a page, atomic; owned; else NULL */
};

typedef struct MemRange {
    gpa_t at;
    uint64_t len, offset;
    MemBlock *block;
    uint64_t read_only; /* 0 or 1, as wide as the other fields */
} MemRange;

struct MemMap {
    /* Written under lock, read by anybody between two looks at seq: */
    unsigned seq; /* atomic; odd while the entries move */
    unsigned n;
    MemRange r[MEM_RANGES_MAX];
    LodgeLock lock; /* LAYOUT: writers */
    GPtrArray *blocks; /* MemBlock, owned */
    MemListener listener;
};

static size_t dirty_words(uint64_t len)
{
    return (size_t)((len / MEM_PAGE + 63) / 64);
}

MemBlock *mem_block_new(const char *name, uint64_t len, unsigned flags, GError **error)
{
    g_assert(len && len % MEM_PAGE == 0);
    if (len > MEM_BLOCK_MAX) {
        lodge_fail(error, LODGE_ERROR_LIMIT, "%s: %" PRIu64 " MiB is more than a process can map",
                   name, len / MIB);
        return NULL;
    }
    MemBlock *b = g_new0(MemBlock, 1);
    b->name = g_strdup(name);
    b->len = len;
    b->fd = -1;
    b->read_only = flags & MEM_READ_ONLY;
    b->page = flags & MEM_HUGE ? (uint32_t)MEM_HUGE_PAGE : MEM_PAGE;
    b->mapped_len = flags & MEM_HUGE ? align_up(len, MEM_HUGE_PAGE) : len;
    int map = MAP_NORESERVE | (flags & MEM_PREFAULT ? MAP_POPULATE : 0);
    if (flags & MEM_SHARED) {
        b->fd = memfd_create(name, MFD_CLOEXEC | (flags & MEM_HUGE ? MFD_HUGETLB : 0));
        if (b->fd < 0 || ftruncate(b->fd, (off_t)b->mapped_len) < 0) {
            lodge_fail_errno(error, errno, "%s: cannot make a shared memory file", name);
            mem_block_free(b);
            return NULL;
        }
        map |= MAP_SHARED;
    } else {
        map |= MAP_PRIVATE | MAP_ANONYMOUS | (flags & MEM_HUGE ? MAP_HUGETLB : 0);
    }
    /* Room to start at a huge page's boundary, so that the kernel can back guest and host with the
     * same large mapping; the rest stays unreadable: what runs over an end stops there. */
    b->room_len = b->mapped_len + MEM_HUGE_PAGE + 2 * MEM_PAGE;
    uint8_t *room = mmap(NULL, b->room_len, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *host = MAP_FAILED;
    if (room != MAP_FAILED) {
        b->room = room;
        host = (uint8_t *)align_up((uintptr_t)room + MEM_PAGE, MEM_HUGE_PAGE);
        host = mmap(host, b->mapped_len, PROT_READ | PROT_WRITE, map | MAP_FIXED, b->fd, 0);
    }
    if (host == MAP_FAILED) {
        int err = errno;
        if (flags & MEM_HUGE)
            lodge_fail_errno(error, err,
                             "%s: no %" PRIu64 " MiB of huge pages (see /proc/sys/vm/nr_hugepages)",
                             name, b->mapped_len / MIB);
        else
            lodge_fail_errno(error, err, "%s: cannot map %" PRIu64 " MiB", name, len / MIB);
        mem_block_free(b);
        return NULL;
    }
    b->host = host;
    if (flags & MEM_DIRTY_LOG)
        b->dirty = g_malloc0(dirty_words(len) * sizeof(uint64_t));
    if (flags & MEM_THP)
        (void)madvise(host, b->mapped_len, MADV_HUGEPAGE); /* advice: a host without is fine */
    (void)madvise(host, b->mapped_len, MADV_DONTDUMP);     /* likewise */
    return b;
}

void mem_block_free(MemBlock *b)
{
    if (!b)
        return;
    if (b->room)
        munmap(b->room, b->room_len);
    if (b->fd >= 0)
        close(b->fd);
    g_free(b->dirty);
    g_free(b->name);
    g_free(b);
}

void *mem_block_host(MemBlock *b)
{
    return b->host;
}

uint64_t mem_block_len(const MemBlock *b)
{
    return b->len;
}

const char *mem_block_name(const MemBlock *b)
{
    return b->name;
}

bool mem_block_logs_dirty(const MemBlock *b)
{
    return b->dirty != NULL;
}

MemMap *mem_map_new(void)
{
    MemMap *m = g_new0(MemMap, 1);
    lodge_lock_init(&m->lock, LOCK_RANK_LAYOUT, "memory layout");
    m->blocks = g_ptr_array_new_with_free_func((GDestroyNotify)mem_block_free);
    return m;
}

void mem_map_free(MemMap *m)
{
    if (!m)
        return;
    g_ptr_array_free(m->blocks, TRUE);
    lodge_lock_clear(&m->lock);
    g_free(m);
}

/* ---- the layout ---- */

/* Entries are read beside a writer: each field by itself, the counter says whether they agree. */
static MemRange range_load(const MemRange *r)
{
    MemRange copy;
    copy.at = __atomic_load_n(&r->at, __ATOMIC_RELAXED);
    copy.len = __atomic_load_n(&r->len, __ATOMIC_RELAXED);
    copy.offset = __atomic_load_n(&r->offset, __ATOMIC_RELAXED);
    copy.block = __atomic_load_n(&r->block, __ATOMIC_RELAXED);
    copy.read_only = __atomic_load_n(&r->read_only, __ATOMIC_RELAXED);
    return copy;
}

static void range_store(MemRange *r, const MemRange *v)
{
    __atomic_store_n(&r->at, v->at, __ATOMIC_RELAXED);
    __atomic_store_n(&r->len, v->len, __ATOMIC_RELAXED);
    __atomic_store_n(&r->offset, v->offset, __ATOMIC_RELAXED);
    __atomic_store_n(&r->block, v->block, __ATOMIC_RELAXED);
    __atomic_store_n(&r->read_only, v->read_only, __ATOMIC_RELAXED);
}

/* Replace entry @i (@drop: it goes) by @v, or put @v in front of it; NULL: nothing new. */
static void layout_write_locked(MemMap *m, unsigned i, bool drop, const MemRange *v)
{
    lock_assert_held(&m->lock);
    __atomic_store_n(&m->seq, m->seq + 1, __ATOMIC_RELAXED); /* pairs with mem_find() */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    if (drop && !v) {
        for (unsigned k = i; k + 1 < m->n; k++)
            range_store(&m->r[k], &m->r[k + 1]);
        __atomic_store_n(&m->n, m->n - 1, __ATOMIC_RELAXED);
    } else if (!drop && v) {
        for (unsigned k = m->n; k > i; k--)
            range_store(&m->r[k], &m->r[k - 1]);
        range_store(&m->r[i], v);
        __atomic_store_n(&m->n, m->n + 1, __ATOMIC_RELAXED);
    } else if (v) {
        range_store(&m->r[i], v);
    }
    __atomic_store_n(&m->seq, m->seq + 1, __ATOMIC_RELEASE);
}

/* Find the range that holds @at; *ret_range is a copy. From the top down: most of what devices
 * touch is the memory above the first megabyte, and what lies below comes in many small ranges. */
static inline bool mem_find(const MemMap *m, gpa_t at, MemRange *ret_range)
{
    for (;;) {
        unsigned seq = __atomic_load_n(&m->seq, __ATOMIC_ACQUIRE);
        bool found = false;
        if (!(seq & 1)) {
            unsigned n = MIN(__atomic_load_n(&m->n, __ATOMIC_RELAXED), MEM_RANGES_MAX);
            while (n-- && !found) {
                *ret_range = range_load(&m->r[n]);
                found = at - ret_range->at < ret_range->len;
            }
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (__atomic_load_n(&m->seq, __ATOMIC_RELAXED) == seq)
                return found;
        }
        __builtin_ia32_pause();
    }
}

bool mem_map_set_listener(MemMap *m, const MemListener *l, GError **error)
{
    lodge_lock(&m->lock);
    m->listener = *l;
    bool ok = true;
    for (unsigned i = 0; ok && i < m->n; i++) {
        MemRange *r = &m->r[i];
        ok = l->add(l->opaque, r->block, r->at, r->offset, r->len, r->read_only, error);
    }
    lodge_unlock(&m->lock);
    return ok;
}

void mem_map_own(MemMap *m, MemBlock *b)
{
    if (b->in_map)
        return;
    b->in_map = true;
    g_ptr_array_add(m->blocks, b);
}

void mem_map_disown(MemMap *m, MemBlock *b)
{
    g_ptr_array_remove_fast(m->blocks, b); /* frees it */
}

MemBlock *mem_map_block(MemMap *m, const char *name)
{
    for (unsigned i = 0; i < m->blocks->len; i++) {
        MemBlock *b = g_ptr_array_index(m->blocks, i);
        if (!strcmp(b->name, name))
            return b;
    }
    return NULL;
}

static bool tell_listener_locked(MemMap *m, const MemRange *r, GError **error)
{
    return !m->listener.add || m->listener.add(m->listener.opaque, r->block, r->at, r->offset,
                                               r->len, r->read_only, error);
}

bool mem_map_add(MemMap *m, MemBlock *b, gpa_t at, uint64_t offset, uint64_t len, GError **error)
{
    uint64_t end;
    if (!len || (at | offset | len) % MEM_PAGE || !range_within(offset, len, b->len) ||
        !u64_add_ok(at, len, &end))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: 0x%" PRIx64 "+0x%" PRIx64 " is not a range of whole pages", b->name,
                          at, len);
    MemRange r = {at, len, offset, b, b->read_only};
    lodge_lock(&m->lock);
    unsigned i = 0;
    while (i < m->n && m->r[i].at < at)
        i++;
    bool clash = (i > 0 && m->r[i - 1].at + m->r[i - 1].len > at) || (i < m->n && end > m->r[i].at);
    bool ok = !clash && m->n < MEM_RANGES_MAX;
    if (clash)
        lodge_fail(error, LODGE_ERROR_CONFIG, "%s: other memory lies at 0x%" PRIx64 " already",
                   b->name, at);
    else if (!ok)
        lodge_fail(error, LODGE_ERROR_LIMIT, "%s: more than %u ranges of memory", b->name,
                   MEM_RANGES_MAX);
    ok = ok && tell_listener_locked(m, &r, error);
    if (ok)
        layout_write_locked(m, i, false, &r);
    lodge_unlock(&m->lock);
    if (ok)
        mem_map_own(m, b);
    return ok;
}

bool mem_map_place(MemMap *m, MemBlock *b, gpa_t at, uint64_t offset, uint64_t len, bool read_only)
{
    uint64_t end;
    if (!len || (at | offset | len) % MEM_PAGE || !u64_add_ok(at, len, &end) ||
        (b && !range_within(offset, len, b->len)))
        return false;
    MemRange r = {at, len, offset, b, read_only || (b && b->read_only)};
    lodge_lock(&m->lock);
    unsigned i = 0;
    while (i < m->n && m->r[i].at < at)
        i++;
    bool same = i < m->n && m->r[i].at == at && m->r[i].len == len;
    MemRange old = same ? m->r[i] : (MemRange){0};
    bool clash = !same && ((i > 0 && m->r[i - 1].at + m->r[i - 1].len > at) ||
                           (i < m->n && end > m->r[i].at));
    bool ok = !clash && (same || !b || m->n < MEM_RANGES_MAX);
    bool changed = ok && !(same && old.block == b && old.offset == offset &&
                           old.read_only == r.read_only) && (same || b);
    if (changed) {
        if (same && m->listener.remove)
            m->listener.remove(m->listener.opaque, old.block, at, len);
        ok = !b || tell_listener_locked(m, &r, NULL);
        if (ok)
            layout_write_locked(m, i, same, b ? &r : NULL);
        else if (same && !tell_listener_locked(m, &old, NULL))
            layout_write_locked(m, i, true, NULL); /* the host lost it; so do we */
    }
    lodge_unlock(&m->lock);
    return ok;
}

bool mem_map_range(MemMap *m, unsigned i, gpa_t *ret_at, uint64_t *ret_len, bool *ret_read_only)
{
    lodge_lock(&m->lock);
    bool there = i < m->n;
    if (there) {
        *ret_at = m->r[i].at;
        *ret_len = m->r[i].len;
        *ret_read_only = m->r[i].read_only;
    }
    lodge_unlock(&m->lock);
    return there;
}

/* ---- what was written ---- */

static void mark_dirty(MemBlock *b, const uint8_t *host, uint64_t len)
{
    if (!b->dirty || !len)
        return;
    uint64_t first = (uint64_t)(host - b->host) / MEM_PAGE;
    uint64_t last = ((uint64_t)(host - b->host) + len - 1) / MEM_PAGE;
    for (uint64_t p = first; p <= last; p++)
        __atomic_fetch_or(&b->dirty[p / 64], UINT64_C(1) << (p % 64), __ATOMIC_RELAXED);
}

bool mem_dirty_fetch(MemMap *m, MemBlock *b, uint8_t *ret_bitmap)
{
    size_t words = dirty_words(b->len);
    uint64_t any = 0;
    for (size_t i = 0; i < words; i++) {
        uint64_t w = __atomic_load_n(&b->dirty[i], __ATOMIC_RELAXED)
                         ? __atomic_exchange_n(&b->dirty[i], 0, __ATOMIC_RELAXED) : 0;
        store_le64(ret_bitmap + 8 * i, w);
    }
    lodge_lock(&m->lock);
    for (unsigned i = 0; m->listener.dirty && i < m->n; i++) {
        const MemRange *r = &m->r[i];
        if (r->block == b)
            m->listener.dirty(m->listener.opaque, b, r->at, r->offset, r->len, ret_bitmap);
    }
    lodge_unlock(&m->lock);
    for (size_t i = 0; i < words; i++)
        any |= load_le64(ret_bitmap + 8 * i);
    return any;
}

/* ---- reading and writing ---- */

/* Whether [@at, @at + @len) is wholly memory that may be written, if @write. */
static bool mem_covered(MemMap *m, gpa_t at, uint64_t len, bool write)
{
    MemRange r;
    while (len) {
        if (!mem_find(m, at, &r) || (write && r.read_only))
            return false;
        uint64_t n = MIN(len, r.len - (at - r.at));
        len -= n;
        if (!u64_add_ok(at, n, &at) && len)
            return false;
    }
    return true;
}

typedef enum MemCopy { MEM_COPY_OUT, MEM_COPY_IN, MEM_COPY_ZERO } MemCopy;

/* Move @len bytes, piece by piece where the range spans several; the caller has looked at it. False
 * where the guest took it away since, which leaves the rest undone. */
static bool mem_copy(MemMap *m, gpa_t at, void *buf, uint64_t len, MemCopy kind)
{
    uint8_t *p = buf;
    MemRange r;
    while (len) {
        if (!mem_find(m, at, &r))
            return false;
        uint64_t off = at - r.at, n = MIN(len, r.len - off);
        uint8_t *host = r.block->host + r.offset + off;
        if (kind == MEM_COPY_OUT)
            memcpy(p, host, n);
        else if (kind == MEM_COPY_IN)
            memcpy(host, p, n);
        else
            memset(host, 0, n);
        if (kind != MEM_COPY_OUT)
            mark_dirty(r.block, host, n);
        p = p ? p + n : NULL;
        at += n;
        len -= n;
    }
    return true;
}

bool mem_read(MemMap *m, gpa_t from, void *to, size_t len)
{
    if (mem_covered(m, from, len, false) && mem_copy(m, from, to, len, MEM_COPY_OUT))
        return true;
    memset(to, 0, len);
    return false;
}

bool mem_write(MemMap *m, gpa_t to, const void *from, size_t len)
{
    return mem_covered(m, to, len, true) && mem_copy(m, to, (void *)from, len, MEM_COPY_IN);
}

bool mem_load(MemMap *m, gpa_t to, const void *from, size_t len)
{
    return mem_covered(m, to, len, false) && mem_copy(m, to, (void *)from, len, MEM_COPY_IN);
}

bool mem_zero(MemMap *m, gpa_t to, uint64_t len)
{
    return mem_covered(m, to, len, true) && mem_copy(m, to, NULL, len, MEM_COPY_ZERO);
}

/* ---- giving back ---- */

/* Whether @r is memory that the guest may part with: no ROM, nothing that a device shows. */
static bool guest_may_part(const MemRange *r)
{
    return !r->read_only && !r->block->read_only && !r->block->dirty;
}

uint32_t mem_host_page(MemMap *m, gpa_t at)
{
    MemRange r;
    return mem_find(m, at, &r) && guest_may_part(&r) ? r.block->page : 0;
}

/* The whole pages of the host inside [@off, @off + @len) of @b; how many bytes are gone. */
static uint64_t discard_in_block(MemBlock *b, uint64_t off, uint64_t len)
{
    uint64_t from = align_up(off, b->page), to = align_down(off + len, b->page);
    if (from >= to)
        return 0;
    /* A file's pages stay in the file until a hole is punched. */
    int advice = b->fd >= 0 ? MADV_REMOVE : MADV_DONTNEED;
    return madvise(b->host + from, to - from, advice) ? 0 : to - from;
}

uint64_t mem_discard(MemMap *m, gpa_t at, uint64_t len)
{
    uint64_t gone = 0, end;
    MemRange r;
    if (!u64_add_ok(at, len, &end))
        return 0;
    while (at < end && mem_find(m, at, &r)) {
        uint64_t off = at - r.at, n = MIN(end - at, r.len - off);
        if (guest_may_part(&r))
            gone += discard_in_block(r.block, r.offset + off, n);
        at += n;
    }
    return gone;
}

size_t mem_pin_some(MemMap *m, gpa_t at, size_t len, bool write, MemPin *ret_pin)
{
    MemRange r;
    *ret_pin = (MemPin){0};
    if (!len || !mem_find(m, at, &r) || (write && r.read_only))
        return 0;
    uint64_t off = at - r.at;
    size_t n = (size_t)MIN(len, r.len - off);
    *ret_pin = (MemPin){r.block->host + r.offset + off, n, at, r.block, write};
    return n;
}

bool mem_pin(MemMap *m, gpa_t at, size_t len, bool write, MemPin *ret_pin)
{
    if (len && mem_pin_some(m, at, len, write, ret_pin) == len)
        return true;
    *ret_pin = (MemPin){0};
    return false;
}

void mem_unpin(MemPin *pin)
{
    if (pin->write)
        mark_dirty(pin->block, pin->host, pin->len);
    *pin = (MemPin){0};
}
