/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory: blocks of host memory shown to the guest at guest physical addresses.
 *
 * Readers load the current view (an immutable array sorted by address) with one acquire load and
 * search it. Writers, under the layout lock, publish a new array and keep the old one until the
 * map is freed: layouts change a handful of times in a machine's life, so the graveyard is small.
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

struct MemBlock {
    char *name; /* owned */
    uint8_t *host;
    uint64_t len;
    size_t mapped_len; /* of host, huge pages rounded up */
    int fd;            /* MEM_SHARED: the memfd; else -1 */
    bool read_only;
    bool in_map;
};

typedef struct MemRange {
    gpa_t at;
    uint64_t len, offset;
    MemBlock *block;
} MemRange;

typedef struct MemView {
    unsigned n;
    MemRange r[];
} MemView;

struct MemMap {
    MemView *view;  /* atomic; pairs with the release in publish_locked() */
    LodgeLock lock; /* LAYOUT: writers */
    GPtrArray *old; /* MemView, owned */
    GPtrArray *blocks; /* MemBlock, owned */
    MemListener listener;
};

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
    /* Reserve room to start at a huge page's boundary: the kernel can then back guest and host
     * with the same large mapping. */
    size_t slack = flags & MEM_HUGE ? 0 : MEM_HUGE_PAGE;
    uint8_t *room = mmap(NULL, b->mapped_len + slack, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *host = MAP_FAILED;
    if (room != MAP_FAILED) {
        uint8_t *at = (uint8_t *)align_up((uintptr_t)room, slack ? MEM_HUGE_PAGE : MEM_PAGE);
        host = mmap(at, b->mapped_len, PROT_READ | PROT_WRITE, map | MAP_FIXED, b->fd, 0);
        int err = errno;
        if (host == MAP_FAILED) {
            munmap(room, b->mapped_len + slack);
        } else {
            if (at > room)
                munmap(room, (size_t)(at - room));
            size_t tail = slack - (size_t)(at - room);
            if (tail)
                munmap(at + b->mapped_len, tail);
        }
        errno = err;
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
    if (flags & MEM_THP)
        (void)madvise(host, b->mapped_len, MADV_HUGEPAGE); /* advice: a host without is fine */
    (void)madvise(host, b->mapped_len, MADV_DONTDUMP);     /* likewise */
    return b;
}

void mem_block_free(MemBlock *b)
{
    if (!b)
        return;
    if (b->host)
        munmap(b->host, b->mapped_len);
    if (b->fd >= 0)
        close(b->fd);
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

MemMap *mem_map_new(void)
{
    MemMap *m = g_new0(MemMap, 1);
    lodge_lock_init(&m->lock, LOCK_RANK_LAYOUT, "memory layout");
    m->view = g_malloc0(sizeof(MemView));
    m->old = g_ptr_array_new_with_free_func(g_free);
    m->blocks = g_ptr_array_new_with_free_func((GDestroyNotify)mem_block_free);
    return m;
}

void mem_map_free(MemMap *m)
{
    if (!m)
        return;
    g_ptr_array_free(m->old, TRUE);
    g_free(m->view);
    g_ptr_array_free(m->blocks, TRUE);
    lodge_lock_clear(&m->lock);
    g_free(m);
}

bool mem_map_set_listener(MemMap *m, const MemListener *l, GError **error)
{
    m->listener = *l;
    for (unsigned i = 0; i < m->view->n; i++) {
        MemRange *r = &m->view->r[i];
        if (!l->add(l->opaque, r->block, r->at, r->offset, r->len, r->block->read_only, error))
            return false;
    }
    return true;
}

bool mem_map_add(MemMap *m, MemBlock *b, gpa_t at, uint64_t offset, uint64_t len, GError **error)
{
    uint64_t end;
    if (!len || (at | offset | len) % MEM_PAGE || !range_within(offset, len, b->len) ||
        !u64_add_ok(at, len, &end))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: 0x%" PRIx64 "+0x%" PRIx64 " is not a range of whole pages", b->name,
                          at, len);
    lodge_lock(&m->lock);
    MemView *old = m->view;
    unsigned i = 0;
    while (i < old->n && old->r[i].at < at)
        i++;
    if ((i > 0 && old->r[i - 1].at + old->r[i - 1].len > at) || (i < old->n && end > old->r[i].at)) {
        lodge_unlock(&m->lock);
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: other memory lies at 0x%" PRIx64 " already",
                          b->name, at);
    }
    lodge_unlock(&m->lock);
    /* Main thread only, so the layout cannot move while the listener works unlocked. */
    if (m->listener.add &&
        !m->listener.add(m->listener.opaque, b, at, offset, len, b->read_only, error))
        return false;
    MemView *view = g_malloc0(sizeof *view + (old->n + 1) * sizeof(MemRange));
    view->n = old->n + 1;
    memcpy(view->r, old->r, i * sizeof(MemRange));
    view->r[i] = (MemRange){at, len, offset, b};
    memcpy(view->r + i + 1, old->r + i, (old->n - i) * sizeof(MemRange));
    lodge_lock(&m->lock);
    __atomic_store_n(&m->view, view, __ATOMIC_RELEASE);
    g_ptr_array_add(m->old, old);
    lodge_unlock(&m->lock);
    if (!b->in_map) {
        b->in_map = true;
        g_ptr_array_add(m->blocks, b);
    }
    return true;
}

bool mem_map_range(MemMap *m, unsigned i, gpa_t *ret_at, uint64_t *ret_len, bool *ret_read_only)
{
    const MemView *v = __atomic_load_n(&m->view, __ATOMIC_ACQUIRE);
    if (i >= v->n)
        return false;
    *ret_at = v->r[i].at;
    *ret_len = v->r[i].len;
    *ret_read_only = v->r[i].block->read_only;
    return true;
}

/* The range that holds @at, or NULL. */
static inline const MemRange *mem_find(MemMap *m, gpa_t at)
{
    const MemView *v = __atomic_load_n(&m->view, __ATOMIC_ACQUIRE);
    for (unsigned i = 0; i < v->n; i++) {
        if (at - v->r[i].at < v->r[i].len)
            return &v->r[i];
    }
    return NULL;
}

/* Whether [@at, @at + @len) is wholly memory that may be written, if @write. */
static bool mem_covered(MemMap *m, gpa_t at, uint64_t len, bool write)
{
    while (len) {
        const MemRange *r = mem_find(m, at);
        if (!r || (write && r->block->read_only))
            return false;
        uint64_t n = MIN(len, r->len - (at - r->at));
        len -= n;
        if (!u64_add_ok(at, n, &at) && len)
            return false;
    }
    return true;
}

typedef enum MemCopy { MEM_COPY_OUT, MEM_COPY_IN, MEM_COPY_ZERO } MemCopy;

/* Move @len bytes, piece by piece where the range spans several; the caller has looked at it. */
static void mem_copy(MemMap *m, gpa_t at, void *buf, uint64_t len, MemCopy kind)
{
    uint8_t *p = buf;
    while (len) {
        const MemRange *r = mem_find(m, at);
        uint64_t off = at - r->at, n = MIN(len, r->len - off);
        uint8_t *host = r->block->host + r->offset + off;
        if (kind == MEM_COPY_OUT)
            memcpy(p, host, n);
        else if (kind == MEM_COPY_IN)
            memcpy(host, p, n);
        else
            memset(host, 0, n);
        p = p ? p + n : NULL;
        at += n;
        len -= n;
    }
}

bool mem_read(MemMap *m, gpa_t from, void *to, size_t len)
{
    if (!mem_covered(m, from, len, false)) {
        memset(to, 0, len);
        return false;
    }
    mem_copy(m, from, to, len, MEM_COPY_OUT);
    return true;
}

bool mem_write(MemMap *m, gpa_t to, const void *from, size_t len)
{
    if (!mem_covered(m, to, len, true))
        return false;
    mem_copy(m, to, (void *)from, len, MEM_COPY_IN);
    return true;
}

bool mem_load(MemMap *m, gpa_t to, const void *from, size_t len)
{
    if (!mem_covered(m, to, len, false))
        return false;
    mem_copy(m, to, (void *)from, len, MEM_COPY_IN);
    return true;
}

bool mem_zero(MemMap *m, gpa_t to, uint64_t len)
{
    if (!mem_covered(m, to, len, true))
        return false;
    mem_copy(m, to, NULL, len, MEM_COPY_ZERO);
    return true;
}

size_t mem_pin_some(MemMap *m, gpa_t at, size_t len, bool write, MemPin *ret_pin)
{
    *ret_pin = (MemPin){0};
    const MemRange *r = mem_find(m, at);
    if (!r || !len || (write && r->block->read_only))
        return 0;
    uint64_t off = at - r->at;
    size_t n = (size_t)MIN(len, r->len - off);
    *ret_pin = (MemPin){r->block->host + r->offset + off, n, at, r->block, write};
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
    *pin = (MemPin){0};
}
