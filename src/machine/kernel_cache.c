/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cache of unpacked kernels, DIR/KEY, one file a kernel.
 *
 * Key: SHA-256 over the bzImage's device, inode, size, modification and change time, and sums of
 * 64 pieces of its contents, first and last among them. Hashing all of it costs 0.3 s on a slow
 * host, as long as unpacking does. Whoever writes to a file moves its change time and cannot set
 * it back; the one gap, a second write within the clock's step, is closed by storing an entry only
 * for a file that has rested for SETTLE_NS.
 *
 * Entry: header, extents, then the bytes of the extents and the relocation lists, not randomized.
 * The header has its own checksum and the checksum of the bytes, which is verified while they are
 * copied to the guest: a damaged entry never starts, it is removed and made anew.
 *
 * Written to a nameless file (O_TMPFILE, else a temporary name) and linked when complete, so
 * readers see whole entries, and a killed process leaves nothing. Folder 0700, files 0600; a folder
 * or file that another user could write is not used. Entries age by their modification time, which
 * each use sets to now.
 *
 * Threads: any; processes meet only in the file system.
 */
#include "kernel_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#define MAGIC 0x314e524b45474c4cu /* "LLGEKRN1" */
#define TEMP_PREFIX ".new-"

enum {
    DATA_ALIGN = 4096,
    SAMPLES = 64,
    SAMPLE_BYTES = 4096,
    STALE_TEMP_S = 3600,
    SETTLE_S = 2,
    SUM_CHUNK = 256 * 1024, /* as kernel_image_load() cuts */
};

typedef struct CacheHeader {
    uint64_t magic;
    uint64_t header_sum; /* over the header with 0 here, and the extents */
    uint64_t data_sum;
    uint64_t file_len;
    uint64_t span, link_base, entry, has_relocs, n_extents;
    struct {
        uint64_t from, count;
    } reloc[KERNEL_RELOC_LISTS];
    char key[KERNEL_KEY_HEX];
} CacheHeader;

#define trace(...) lodge_trace("boot", __VA_ARGS__)

bool kernel_cache_key(int fd, KernelKey *ret_key)
{
    struct stat st;
    if (fstat(fd, &st) || st.st_size <= 0)
        return false;
    uint64_t size = (uint64_t)st.st_size;
    const uint64_t identity[] = {
        MAGIC,
        st.st_dev,
        st.st_ino,
        size,
        (uint64_t)st.st_mtim.tv_sec,
        (uint64_t)st.st_mtim.tv_nsec,
        (uint64_t)st.st_ctim.tv_sec,
        (uint64_t)st.st_ctim.tv_nsec,
    };
    KernelSum sum = KERNEL_SUM_INIT;
    uint8_t piece[SAMPLE_BYTES];
    for (unsigned i = 0; i < SAMPLES; i++) {
        uint64_t room = size > sizeof piece ? size - sizeof piece : 0;
        ssize_t n = pread(fd, piece, sizeof piece, (off_t)(room / (SAMPLES - 1) * i));
        if (n < 0)
            return false;
        kernel_sum(&sum, piece, (size_t)n);
    }
    ssize_t n = pread(fd, piece, sizeof piece,
                      (off_t)(size > sizeof piece ? size - sizeof piece : 0));
    if (n < 0)
        return false;
    kernel_sum(&sum, piece, (size_t)n);
    g_autoptr(GChecksum) hash = g_checksum_new(G_CHECKSUM_SHA256);
    g_checksum_update(hash, (const guchar *)identity, sizeof identity);
    g_checksum_update(hash, (const guchar *)&sum, sizeof sum);
    g_strlcpy(ret_key->hex, g_checksum_get_string(hash), sizeof ret_key->hex);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    ret_key->settled = now.tv_sec - MAX(st.st_mtim.tv_sec, st.st_ctim.tv_sec) >= SETTLE_S;
    return true;
}

/* Ours alone? Others could otherwise hand us a kernel. */
static bool is_private(int fd, bool folder)
{
    struct stat st;
    return !fstat(fd, &st) && st.st_uid == geteuid() && !(st.st_mode & (S_IWGRP | S_IWOTH)) &&
           (folder ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode));
}

static int open_dir(const char *dir, bool create)
{
    if (create && g_mkdir_with_parents(dir, 0700))
        return -1;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && !is_private(fd, true)) {
        trace("cache %s: others may write there, not used", dir);
        close(fd);
        return -1;
    }
    return fd;
}

static bool read_all(int fd, void *to, size_t len, uint64_t off)
{
    return pread(fd, to, len, (off_t)off) == (ssize_t)len;
}

static uint64_t header_sum(CacheHeader h, const KernelExtent *extents)
{
    KernelSum sum = KERNEL_SUM_INIT;
    h.header_sum = 0;
    kernel_sum(&sum, &h, sizeof h);
    kernel_sum(&sum, extents, h.n_extents * sizeof *extents);
    return kernel_sum_end(&sum);
}

/* Checks what kernel_image.h promises of an image; see its invariants (1) and (2). */
static bool header_valid(const CacheHeader *h, const KernelExtent *extents)
{
    uint64_t done = 0;
    for (uint64_t i = 0; i < h->n_extents; i++) {
        const KernelExtent *e = &extents[i];
        if (e->to < done || !range_within(e->to, e->len, h->span) ||
            !range_within(e->from, e->len, h->file_len))
            return false;
        done = e->to + e->len;
    }
    for (unsigned i = 0; i < KERNEL_RELOC_LISTS; i++)
        if (h->reloc[i].count > UNPACK_MAX_SIZE / 4 ||
            !range_within(h->reloc[i].from, 4 * h->reloc[i].count, h->file_len))
            return false;
    return h->span <= UNPACK_MAX_SIZE && h->entry < h->span && h->has_relocs <= 1;
}

static bool read_entry(int fd, const KernelKey *key, KernelImage *k)
{
    CacheHeader h;
    struct stat st;
    if (!is_private(fd, false) || fstat(fd, &st) || !read_all(fd, &h, sizeof h, 0) ||
        h.magic != MAGIC || h.n_extents > KERNEL_MAX_EXTENTS || h.file_len != (uint64_t)st.st_size)
        return false;
    if (!read_all(fd, k->extent, h.n_extents * sizeof k->extent[0], sizeof h) ||
        header_sum(h, k->extent) != h.header_sum || !header_valid(&h, k->extent) ||
        memcmp(h.key, key->hex, sizeof h.key))
        return false;
    k->fd_sum = h.data_sum;
    k->span = h.span;
    k->link_base = h.link_base;
    k->entry = h.entry;
    k->has_relocs = h.has_relocs;
    k->n_extents = (unsigned)h.n_extents;
    for (unsigned i = 0; i < KERNEL_RELOC_LISTS; i++) {
        k->reloc[i].from = h.reloc[i].from;
        k->reloc[i].count = h.reloc[i].count;
    }
    return true;
}

bool kernel_cache_open(const char *dir, const KernelKey *key, KernelImage *ret)
{
    int dirfd = open_dir(dir, false);
    if (dirfd < 0)
        return false;
    int fd = openat(dirfd, key->hex, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    bool ok = false;
    if (fd >= 0) {
        g_autofree KernelImage *k = g_new0(KernelImage, 1);
        k->fd = fd;
        ok = read_entry(fd, key, k);
        if (ok) {
            *ret = *k;
            (void)futimens(fd, NULL); /* its age orders removal, nothing else */
        } else {
            trace("cache: entry %s is damaged, removed", key->hex);
            (void)unlinkat(dirfd, key->hex, 0); /* a read-only cache keeps it, still unused */
            close(fd);
        }
    }
    close(dirfd);
    return ok;
}

void kernel_cache_forget(const char *dir, const KernelKey *key)
{
    int dirfd = open_dir(dir, false);
    if (dirfd < 0)
        return;
    trace("cache: entry %s is damaged, removed", key->hex);
    (void)unlinkat(dirfd, key->hex, 0); /* a read-only cache keeps it, still unused */
    close(dirfd);
}

typedef struct OldEntry {
    char name[KERNEL_KEY_HEX + 1];
    uint64_t size;
    struct timespec used;
} OldEntry;

static int by_use(gconstpointer a, gconstpointer b)
{
    const OldEntry *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    return x->used.tv_nsec < y->used.tv_nsec ? -1 : x->used.tv_nsec > y->used.tv_nsec;
}

/* Remove the least recently used entries until @room more bytes stay under @max. */
static void evict(int dirfd, uint64_t room, uint64_t max)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    g_autoptr(GArray) entries = g_array_new(FALSE, TRUE, sizeof(OldEntry));
    uint64_t total = room;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
            continue;
        if (g_str_has_prefix(e->d_name, TEMP_PREFIX) && time(NULL) - st.st_mtime > STALE_TEMP_S)
            (void)unlinkat(dirfd, e->d_name, 0); /* a killed writer's, where O_TMPFILE is not */
        if (strlen(e->d_name) != KERNEL_KEY_HEX)
            continue;
        OldEntry old = {.size = (uint64_t)st.st_size, .used = st.st_mtim};
        g_strlcpy(old.name, e->d_name, sizeof old.name);
        g_array_append_val(entries, old);
        total += old.size;
    }
    closedir(d);
    g_array_sort(entries, by_use);
    for (unsigned i = 0; i < entries->len && total > max; i++) {
        const OldEntry *old = &g_array_index(entries, OldEntry, i);
        if (!unlinkat(dirfd, old->name, 0))
            total -= old->size;
    }
}

static bool write_all(int fd, const void *from, uint64_t len, uint64_t off)
{
    for (uint64_t done = 0; done < len;) {
        ssize_t n = pwrite(fd, (const char *)from + done, len - done, (off_t)(off + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (uint64_t)n;
    }
    return true;
}

/* Append store bytes to the entry at *@at, summed in the reader's pieces. */
static bool write_piece(int fd, const uint8_t *from, uint64_t len, uint64_t *at, KernelSum *sum)
{
    for (uint64_t done = 0; done < len; done += SUM_CHUNK)
        kernel_sum(sum, from + done, MIN(len - done, SUM_CHUNK));
    if (!write_all(fd, from, len, *at))
        return false;
    *at += len;
    return true;
}

static bool write_entry(int fd, const KernelKey *key, const KernelImage *k)
{
    g_autofree KernelExtent *extents = g_new(KernelExtent, k->n_extents);
    CacheHeader h = {.magic = MAGIC,
                     .span = k->span,
                     .link_base = k->link_base,
                     .entry = k->entry,
                     .has_relocs = k->has_relocs,
                     .n_extents = k->n_extents};
    memcpy(h.key, key->hex, sizeof h.key);
    uint64_t at = align_up(sizeof h + k->n_extents * sizeof *extents, DATA_ALIGN);
    KernelSum sum = KERNEL_SUM_INIT;
    for (unsigned i = 0; i < k->n_extents; i++) {
        extents[i] = k->extent[i];
        extents[i].from = at;
        if (!write_piece(fd, k->store.data + k->extent[i].from, k->extent[i].len, &at, &sum))
            return false;
    }
    for (unsigned i = 0; i < KERNEL_RELOC_LISTS; i++) {
        h.reloc[i].from = at;
        h.reloc[i].count = k->reloc[i].count;
        if (!write_piece(fd, k->store.data + k->reloc[i].from, 4 * k->reloc[i].count, &at, &sum))
            return false;
    }
    h.file_len = at;
    h.data_sum = kernel_sum_end(&sum);
    h.header_sum = header_sum(h, extents);
    return write_all(fd, extents, k->n_extents * sizeof *extents, sizeof h) &&
           write_all(fd, &h, sizeof h, 0);
}

/* Give a complete nameless file its name. */
static bool link_entry(int dirfd, int fd, const char *name)
{
    char self[64];
    g_snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    /* One that another process stored meanwhile is as good. */
    return !linkat(AT_FDCWD, self, dirfd, name, AT_SYMLINK_FOLLOW) || errno == EEXIST;
}

bool kernel_cache_store(const char *dir, const KernelKey *key, const KernelImage *k,
                        uint64_t max_bytes)
{
    if (!key->settled || k->fd >= 0 || k->store.len > max_bytes)
        return false;
    int dirfd = open_dir(dir, true);
    if (dirfd < 0) {
        trace("cache %s: cannot be used", dir);
        return false;
    }
    evict(dirfd, k->store.len, max_bytes);
    bool ok;
    int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) {
        ok = write_entry(fd, key, k) && link_entry(dirfd, fd, key->hex);
    } else {
        g_autofree char *temp = g_strdup_printf(TEMP_PREFIX "%s-%d", key->hex, (int)getpid());
        fd = openat(dirfd, temp, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
        ok = fd >= 0 && write_entry(fd, key, k) && !renameat(dirfd, temp, dirfd, key->hex);
        if (fd >= 0 && !ok)
            (void)unlinkat(dirfd, temp, 0); /* best effort; evict() drops it later */
    }
    if (!ok)
        trace("cache %s: cannot be written: %s", dir, g_strerror(errno));
    if (fd >= 0)
        close(fd);
    close(dirfd);
    return ok;
}
