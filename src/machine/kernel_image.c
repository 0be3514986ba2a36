/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel inside a bzImage, without its decompressor.
 *
 * The unpacked payload of an x86-64 kernel is an ELF file with relocation lists behind it. The
 * lists are read backwards from the end as 32-bit words: addresses of 32-bit words to add to, a
 * zero, of 32-bit words to subtract from (until Linux 6.14), a zero, of 64-bit words, a zero.
 * How many lists there are shows by where the ELF file ends. An address is the low half of a
 * kernel virtual address: sign-extended, it lies in the 2 GiB from START_KERNEL_MAP.
 *
 * In memory a kernel is a list of extents, runs of pages that are not zero: a third of a
 * distribution's kernel is zeros (.bss and its like, forced into the file by a last section), and
 * fresh guest memory has those already.
 *
 * The file is untrusted. Invariants after kernel_image_parse(), or after the cache's check:
 * (1) extents are inside [0, span) of memory and inside the store, (2) lists are inside the store.
 * Where a relocation points is checked at each one, against (0, span).
 *
 * Threads: any; an image is not shared while it is changed.
 * Spec: System V ABI, ELF-64; arch/x86/boot/compressed/misc.c and arch/x86/tools/relocs.c of
 *       Linux 6.1 for the lists.
 */
#include "kernel_image.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#define START_KERNEL_MAP 0x80000000u /* low half of __START_KERNEL_map */
#define PAGE 4096u
#define ZERO_RUN (16 * PAGE) /* shorter runs of zeros are copied: an extent costs a call */
#define CHUNK (256 * KIB)    /* read and summed while it is in the CPU's cache */

void kernel_image_clear(KernelImage *k)
{
    unpack_buf_clear(&k->store);
    if (k->fd > 0)
        close(k->fd);
    *k = (KernelImage){.fd = -1};
}

typedef uint64_t SumLanes __attribute__((vector_size(32)));

void kernel_sum(KernelSum *s, const void *data, size_t len)
{
    SumLanes a, b, v;
    memcpy(&a, s->a, sizeof a);
    memcpy(&b, s->b, sizeof b);
    const uint8_t *p = data;
    for (; len >= sizeof v; p += sizeof v, len -= sizeof v) {
        memcpy(&v, p, sizeof v);
        a += v;
        b += a;
    }
    if (len) {
        v = (SumLanes){0};
        memcpy(&v, p, len);
        a += v;
        b += a;
    }
    memcpy(s->a, &a, sizeof a);
    memcpy(s->b, &b, sizeof b);
}

uint64_t kernel_sum_end(const KernelSum *s)
{
    uint64_t h = 0;
    for (unsigned i = 0; i < 4; i++) {
        h = (h ^ s->a[i]) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio: spreads every bit */
        h = (h ^ (h >> 29) ^ s->b[i]) * 0x9e3779b97f4a7c15u;
        h ^= h >> 32;
    }
    return h;
}

static bool page_is_zero(const uint8_t *p, size_t len)
{
    return !p[0] && !p[len - 1] && (len == 1 || !memcmp(p, p + 1, len - 1));
}

/* Length of the run at @p that is all zero, or not all zero, by whole pages. */
static uint64_t run_length(const uint8_t *p, uint64_t len, bool zero)
{
    uint64_t at = 0;
    while (at < len) {
        size_t n = MIN(len - at, PAGE);
        if (page_is_zero(p + at, n) != zero)
            break;
        at += n;
    }
    return at;
}

static bool add_extent(KernelImage *k, uint64_t to, uint64_t from, uint64_t len)
{
    KernelExtent *last = k->n_extents ? &k->extent[k->n_extents - 1] : NULL;
    if (last && last->to + last->len == to && last->from + last->len == from) {
        last->len += len;
        return true;
    }
    if (k->n_extents == KERNEL_MAX_EXTENTS)
        return false;
    k->extent[k->n_extents++] = (KernelExtent){to, from, len};
    return true;
}

/* Split file bytes into extents around their zeros. */
static bool add_segment(KernelImage *k, const uint8_t *data, uint64_t to, uint64_t from,
                        uint64_t len)
{
    uint64_t at = 0;
    while (at < len) {
        uint64_t zeros = run_length(data + from + at, len - at, true);
        if (zeros >= ZERO_RUN || at + zeros == len) {
            at += zeros;
            continue;
        }
        uint64_t n = zeros + run_length(data + from + at + zeros, len - at - zeros, false);
        if (!add_extent(k, to + at, from + at, n))
            return false;
        at += n;
    }
    return true;
}

static bool shape(GError **error, const char *what)
{
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "unpacked kernel: %s", what);
}

static bool hostile(GError **error, const char *what)
{
    return lodge_fail(error, LODGE_ERROR_IMAGE, "unpacked kernel: damaged: %s", what);
}

/* Where the ELF file ends: its tables and its sections' bytes. */
static bool elf_end(const uint8_t *d, uint64_t len, const Elf64_Ehdr *eh, uint64_t *ret_end)
{
    uint64_t end = eh->e_phoff + (uint64_t)eh->e_phnum * sizeof(Elf64_Phdr);
    if (!eh->e_shnum || eh->e_shentsize != sizeof(Elf64_Shdr) ||
        !range_within(eh->e_shoff, (uint64_t)eh->e_shnum * sizeof(Elf64_Shdr), len))
        return false;
    end = MAX(end, eh->e_shoff + (uint64_t)eh->e_shnum * sizeof(Elf64_Shdr));
    for (unsigned i = 0; i < eh->e_shnum; i++) {
        Elf64_Shdr sh;
        memcpy(&sh, d + eh->e_shoff + i * sizeof sh, sizeof sh);
        if (sh.sh_type == SHT_NOBITS || sh.sh_type == SHT_NULL)
            continue;
        if (!range_within(sh.sh_offset, sh.sh_size, len))
            return false;
        end = MAX(end, sh.sh_offset + sh.sh_size);
    }
    *ret_end = end;
    return true;
}

/* Find the lists between @end of the ELF file and @len. */
static bool find_relocs(KernelImage *k, const uint8_t *d, uint64_t len, uint64_t end,
                        GError **error)
{
    if (len == end)
        return true; /* linked for one address */
    struct {
        uint64_t from, count;
    } found[KERNEL_RELOC_LISTS];
    unsigned n = 0;
    uint64_t at = len;
    while (at > end && n < KERNEL_RELOC_LISTS) {
        uint64_t stop = at;
        while (stop >= end + 4 && load_le32(d + stop - 4))
            stop -= 4;
        if (stop < end + 4)
            return shape(error, "its relocation lists do not end where its ELF part does");
        found[n].from = stop;
        found[n++].count = (at - stop) / 4;
        at = stop - 4;
    }
    if (at != end || n < KERNEL_RELOC_LISTS - 1)
        return shape(error, "its relocation lists do not end where its ELF part does");
    k->has_relocs = true;
    k->reloc[KERNEL_RELOC_32].from = found[0].from;
    k->reloc[KERNEL_RELOC_32].count = found[0].count;
    if (n == KERNEL_RELOC_LISTS) {
        k->reloc[KERNEL_RELOC_INVERSE_32].from = found[1].from;
        k->reloc[KERNEL_RELOC_INVERSE_32].count = found[1].count;
    }
    k->reloc[KERNEL_RELOC_64].from = found[n - 1].from;
    k->reloc[KERNEL_RELOC_64].count = found[n - 1].count;
    return true;
}

static bool parse(const uint8_t *d, uint64_t len, uint64_t link_base, KernelImage *k,
                  GError **error)
{
    Elf64_Ehdr eh;
    if (len < sizeof eh || memcmp(d, ELFMAG, SELFMAG))
        return shape(error, "it is not an ELF file");
    memcpy(&eh, d, sizeof eh);
    if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_ident[EI_DATA] != ELFDATA2LSB ||
        eh.e_machine != EM_X86_64)
        return shape(error, "it is not for x86-64");
    if (eh.e_phentsize != sizeof(Elf64_Phdr) || !eh.e_phnum ||
        !range_within(eh.e_phoff, (uint64_t)eh.e_phnum * sizeof(Elf64_Phdr), len))
        return hostile(error, "program headers");
    k->link_base = link_base;
    uint64_t previous_end = 0;
    for (unsigned i = 0; i < eh.e_phnum; i++) {
        Elf64_Phdr ph;
        memcpy(&ph, d + eh.e_phoff + i * sizeof ph, sizeof ph);
        if (ph.p_type != PT_LOAD || !ph.p_memsz)
            continue;
        if (ph.p_paddr < link_base || ph.p_filesz > ph.p_memsz ||
            !range_within(ph.p_offset, ph.p_filesz, len) ||
            !range_within(ph.p_paddr - link_base, ph.p_memsz, UNPACK_MAX_SIZE))
            return hostile(error, "a segment lies outside");
        uint64_t to = ph.p_paddr - link_base;
        if (to < previous_end)
            return shape(error, "its segments are not in order");
        previous_end = to + ph.p_memsz;
        if (!add_segment(k, d, to, ph.p_offset, ph.p_filesz))
            return shape(error, "it is too scattered");
    }
    k->span = previous_end;
    if (eh.e_entry < link_base || eh.e_entry - link_base >= k->span)
        return shape(error, "its entry point lies outside");
    k->entry = eh.e_entry - link_base;
    uint64_t end;
    if (!elf_end(d, len, &eh, &end))
        return shape(error, "its section headers do not tell where it ends");
    return find_relocs(k, d, len, end, error);
}

bool kernel_image_parse(UnpackBuf *buf, uint64_t link_base, KernelImage *ret, GError **error)
{
    g_autofree KernelImage *k = g_new0(KernelImage, 1);
    k->fd = -1;
    if (!parse(buf->data, buf->len, link_base, k, error))
        return false;
    k->store = *buf;
    *buf = (UnpackBuf){0};
    *ret = *k;
    return true;
}

/* Offset from the kernel's base of the word that @reloc names; false: outside. */
static inline bool reloc_target(const KernelImage *k, uint32_t reloc, unsigned width,
                                uint64_t *ret_at)
{
    /* Kernel addresses have an upper half of all ones: the low halves tell them apart. */
    uint64_t at = (uint64_t)reloc - START_KERNEL_MAP - k->link_base;
    *ret_at = at;
    return reloc >= START_KERNEL_MAP && range_within(at, width, k->span);
}

static bool relocate(const KernelImage *k, uint8_t *kernel, const uint8_t *lists[],
                     uint64_t delta, GError **error)
{
    for (unsigned l = 0; l < KERNEL_RELOC_LISTS; l++) {
        unsigned width = l == KERNEL_RELOC_64 ? 8 : 4;
        uint32_t add = l == KERNEL_RELOC_INVERSE_32 ? (uint32_t)-delta : (uint32_t)delta;
        for (uint64_t i = 0; i < k->reloc[l].count; i++) {
            uint64_t at;
            if (!reloc_target(k, load_le32(lists[l] + 4 * i), width, &at))
                return hostile(error, "a relocation points outside the kernel");
            if (width == 8)
                store_le64(kernel + at, load_le64(kernel + at) + delta);
            else
                store_le32(kernel + at, load_le32(kernel + at) + add);
        }
    }
    return true;
}

/* Bytes of the store at @from to @to; with a file, summed on the way. */
static bool store_read(const KernelImage *k, uint64_t from, uint8_t *to, uint64_t len,
                       KernelSum *sum, GError **error)
{
    if (k->fd < 0) {
        memcpy(to, k->store.data + from, len);
        return true;
    }
    while (len) {
        size_t want = MIN(len, CHUNK), done = 0;
        while (done < want) {
            ssize_t n = pread(k->fd, to + done, want - done, (off_t)(from + done));
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return lodge_fail_errno(error, errno, "kernel cache: cannot be read");
            if (n == 0)
                return hostile(error, "the cache file is too short");
            done += (size_t)n;
        }
        kernel_sum(sum, to, want);
        from += want;
        to += want;
        len -= want;
    }
    return true;
}

bool kernel_image_load(const KernelImage *k, MemMap *mem, gpa_t base, uint64_t virt_delta,
                       bool clean, GError **error)
{
    MemPin pin;
    if (!mem_pin(mem, base, k->span, true, &pin))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "kernel: no memory at 0x%" PRIx64, base);
    uint8_t *kernel = pin.host;
    KernelSum sum = KERNEL_SUM_INIT;
    bool ok = true;
    uint64_t done = 0;
    for (unsigned i = 0; ok && i < k->n_extents; i++) {
        const KernelExtent *e = &k->extent[i];
        if (!clean)
            memset(kernel + done, 0, e->to - done);
        ok = store_read(k, e->from, kernel + e->to, e->len, &sum, error);
        done = e->to + e->len;
    }
    if (ok && !clean)
        memset(kernel + done, 0, k->span - done);
    const uint8_t *lists[KERNEL_RELOC_LISTS] = {NULL};
    uint8_t *copies[KERNEL_RELOC_LISTS] = {NULL};
    for (unsigned l = 0; ok && l < KERNEL_RELOC_LISTS; l++) {
        if (k->fd < 0) {
            lists[l] = k->store.data ? k->store.data + k->reloc[l].from : NULL;
            continue;
        }
        lists[l] = copies[l] = g_try_malloc(MAX(4 * k->reloc[l].count, 1));
        ok = copies[l] && store_read(k, k->reloc[l].from, copies[l], 4 * k->reloc[l].count, &sum,
                                     error);
    }
    if (ok && k->fd >= 0 && kernel_sum_end(&sum) != k->fd_sum)
        ok = hostile(error, "the cache file's checksum differs");
    if (ok && virt_delta)
        ok = relocate(k, kernel, lists, virt_delta, error);
    mem_unpin(&pin);
    for (unsigned l = 0; l < KERNEL_RELOC_LISTS; l++)
        g_free(copies[l]);
    return ok;
}
