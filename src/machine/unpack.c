/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decompression of kernels and kernel modules.
 *
 * Models: the formats that scripts/Makefile.lib of Linux can produce, each by the library of its
 * authors, loaded for the call and unloaded after it (dynlib.c). The result goes to one anonymous
 * mapping: as large as the stated size, or lazily as large as the ceiling and cut to size after.
 * Left out: LZO, whose kernels start by their own decompressor.
 *
 * LZ4: kernels use the legacy frame (LZ4_Frame_format.md, "Legacy frame"): magic, then blocks of
 * 8 MiB of output, each preceded by its compressed size. Blocks do not refer to each other, so
 * several threads decompress them side by side.
 *
 * Threads: any; no shared state.
 */
#include "unpack.h"

#include <string.h>
#include <sys/mman.h>

#include "lodge/dynlib.h"
#include "lodge/error.h"
#include "lodge/num.h"
#include "lodge/zstream.h"

#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_BLOCK (8 * MIB)
#define LZ4_MAX_THREADS 4
#define XZ_MEMORY_LIMIT (256 * MIB) /* dictionaries of the kernel's xz are 32 MiB */
#define PAGE 4096

static const struct {
    const char *name;
    const char *magic;
    size_t len;
} signatures[] = {
    [UNPACK_UNKNOWN] = {"unknown", NULL, 0},
    [UNPACK_PLAIN] = {"uncompressed", "\177ELF", 4},
    [UNPACK_GZIP] = {"gzip", "\037\213", 2},
    [UNPACK_BZIP2] = {"bzip2", "BZh", 3},
    [UNPACK_LZMA] = {"lzma", "\135\0\0", 3},
    [UNPACK_XZ] = {"xz", "\3757zXZ", 6}, /* with the terminating zero, part of the magic */
    [UNPACK_LZ4] = {"lz4", "\002\041\114\030", 4},
    [UNPACK_ZSTD] = {"zstd", "\050\265\057\375", 4},
    [UNPACK_LZO] = {"lzo", "\211LZO", 4},
};

UnpackFormat unpack_detect(const void *data, size_t len)
{
    for (size_t i = 1; i < G_N_ELEMENTS(signatures); i++)
        if (len >= signatures[i].len && !memcmp(data, signatures[i].magic, signatures[i].len))
            return (UnpackFormat)i;
    return UNPACK_UNKNOWN;
}

const char *unpack_name(UnpackFormat format)
{
    return (size_t)format < G_N_ELEMENTS(signatures) ? signatures[format].name : "unknown";
}

typedef struct Job {
    const uint8_t *src;
    size_t len;
    uint8_t *dst;
    size_t cap; /* bytes at dst */
    size_t out; /* bytes produced */
    bool exact; /* cap is the stated size, not a ceiling */
} Job;

/* A decompressor: false with an error, LODGE_ERROR_IMAGE if the bytes are to blame. */
typedef bool (*UnpackFn)(DynLib *lib, Job *job, GError **error);

static bool damaged(const Job *job, GError **error)
{
    if (job->exact)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "compressed data: damaged or truncated");
    return lodge_fail(error, LODGE_ERROR_IMAGE,
                      "compressed data: damaged, truncated, or more than %zu bytes when unpacked",
                      job->cap);
}

static bool unpack_gzip(DynLib *lib, Job *job, GError **error)
{
    enum { WINDOW_GZIP = 15 + 16, FINISH = 4, STREAM_END = 1 };
    int (*init)(ZStream *, int, const char *, int) = dynlib_sym(lib, "inflateInit2_", error);
    int (*run)(ZStream *, int) = init ? dynlib_sym(lib, "inflate", error) : NULL;
    int (*end)(ZStream *) = run ? dynlib_sym(lib, "inflateEnd", error) : NULL;
    if (!end)
        return false;
    if (job->len > UINT32_MAX || job->cap > UINT32_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "compressed data: too large");
    ZStream z = {.next_in = job->src,
                 .avail_in = (unsigned)job->len,
                 .next_out = job->dst,
                 .avail_out = (unsigned)job->cap};
    if (init(&z, WINDOW_GZIP, "1", sizeof z) != 0)
        return lodge_fail(error, LODGE_ERROR_HOST, "zlib: cannot start: out of memory");
    int status = run(&z, FINISH);
    job->out = z.total_out;
    end(&z);
    return status == STREAM_END ? true : damaged(job, error);
}

static bool unpack_bzip2(DynLib *lib, Job *job, GError **error)
{
    int (*run)(char *, unsigned *, const char *, unsigned, int, int) =
        dynlib_sym(lib, "BZ2_bzBuffToBuffDecompress", error);
    if (!run)
        return false;
    if (job->len > UINT32_MAX || job->cap > UINT32_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "compressed data: too large");
    unsigned out = (unsigned)job->cap;
    int status = run((char *)job->dst, &out, (const char *)job->src, (unsigned)job->len, 0, 0);
    job->out = out;
    return status == 0 ? true : damaged(job, error);
}

/* lzma_stream of lzma/base.h. */
typedef struct LzmaStream {
    const uint8_t *next_in;
    size_t avail_in;
    uint64_t total_in;
    uint8_t *next_out;
    size_t avail_out;
    uint64_t total_out;
    void *allocator, *internal, *reserved_ptr[4];
    uint64_t reserved_int[4];
    unsigned reserved_enum[2];
} LzmaStream;

static bool unpack_lzma(DynLib *lib, Job *job, GError **error)
{
    enum { FINISH = 3, STREAM_END = 1 };
    int (*init)(LzmaStream *, uint64_t) = dynlib_sym(lib, "lzma_alone_decoder", error);
    int (*run)(LzmaStream *, int) = init ? dynlib_sym(lib, "lzma_code", error) : NULL;
    void (*end)(LzmaStream *) = run ? dynlib_sym(lib, "lzma_end", error) : NULL;
    if (!end)
        return false;
    LzmaStream s = {.next_in = job->src,
                    .avail_in = job->len,
                    .next_out = job->dst,
                    .avail_out = job->cap};
    if (init(&s, XZ_MEMORY_LIMIT) != 0)
        return lodge_fail(error, LODGE_ERROR_HOST, "liblzma: cannot start: out of memory");
    int status = run(&s, FINISH);
    job->out = s.total_out;
    end(&s);
    return status == STREAM_END ? true : damaged(job, error);
}

static bool unpack_xz(DynLib *lib, Job *job, GError **error)
{
    int (*run)(uint64_t *, uint32_t, const void *, const uint8_t *, size_t *, size_t, uint8_t *,
               size_t *, size_t) = dynlib_sym(lib, "lzma_stream_buffer_decode", error);
    if (!run)
        return false;
    uint64_t memlimit = XZ_MEMORY_LIMIT;
    size_t in = 0;
    int status = run(&memlimit, 0, NULL, job->src, &in, job->len, job->dst, &job->out, job->cap);
    return status == 0 ? true : damaged(job, error);
}

static bool unpack_zstd(DynLib *lib, Job *job, GError **error)
{
    size_t (*run)(void *, size_t, const void *, size_t) =
        dynlib_sym(lib, "ZSTD_decompress", error);
    unsigned (*is_error)(size_t) = run ? dynlib_sym(lib, "ZSTD_isError", error) : NULL;
    if (!is_error)
        return false;
    size_t out = run(job->dst, job->cap, job->src, job->len);
    if (is_error(out))
        return damaged(job, error);
    job->out = out;
    return true;
}

typedef int (*Lz4Fn)(const char *src, char *dst, int len, int cap);

typedef struct Lz4Block {
    size_t at, len; /* in the source */
    uint64_t to;    /* in the result */
    int out;        /* bytes produced; < 0: damaged */
} Lz4Block;

typedef struct Lz4Team {
    const Job *job;
    Lz4Fn run;
    GArray *blocks; /* Lz4Block */
    unsigned next;  /* atomic: block to take */
} Lz4Team;

static void *lz4_worker(void *opaque)
{
    Lz4Team *team = opaque;
    for (;;) {
        unsigned i = (unsigned)g_atomic_int_add((int *)&team->next, 1);
        if (i >= team->blocks->len)
            return NULL;
        Lz4Block *b = &g_array_index(team->blocks, Lz4Block, i);
        uint64_t room = MIN(team->job->cap - b->to, LZ4_LEGACY_BLOCK);
        b->out = team->run((const char *)team->job->src + b->at, (char *)team->job->dst + b->to,
                           (int)b->len, (int)room);
    }
}

static bool unpack_lz4(DynLib *lib, Job *job, GError **error)
{
    g_autoptr(GArray) blocks = g_array_new(FALSE, FALSE, sizeof(Lz4Block));
    Lz4Team team = {
        .job = job, .blocks = blocks, .run = dynlib_sym(lib, "LZ4_decompress_safe", error)};
    if (!team.run)
        return false;
    uint64_t to = 0;
    for (size_t at = 4; at + 4 <= job->len;) {
        uint32_t len = load_le32(job->src + at);
        at += 4;
        if (len == LZ4_LEGACY_MAGIC)
            continue;
        if (len == 0)
            break;
        if (len > INT32_MAX || !range_within(at, len, job->len))
            return damaged(job, error);
        if (to >= job->cap)
            return damaged(job, error);
        Lz4Block b = {.at = at, .len = len, .to = to};
        g_array_append_val(blocks, b);
        to += LZ4_LEGACY_BLOCK;
        at += len;
    }
    GThread *helpers[LZ4_MAX_THREADS - 1] = {NULL};
    unsigned wanted = MIN(MIN(g_get_num_processors(), blocks->len), LZ4_MAX_THREADS);
    for (unsigned i = 0; i + 1 < wanted; i++)
        helpers[i] = g_thread_try_new("unpack", lz4_worker, &team, NULL); /* none: work alone */
    lz4_worker(&team);
    for (unsigned i = 0; i < G_N_ELEMENTS(helpers); i++)
        if (helpers[i])
            g_thread_join(helpers[i]);
    for (unsigned i = 0; i < blocks->len; i++) {
        const Lz4Block *b = &g_array_index(blocks, Lz4Block, i);
        /* Only the last block may be short: the others' places were computed from that. */
        if (b->out < 0 || (i + 1 < blocks->len && (uint64_t)b->out != LZ4_LEGACY_BLOCK))
            return damaged(job, error);
        job->out = b->to + (uint64_t)b->out;
    }
    return true;
}

static const struct {
    UnpackFn run;
    const char *soname, *package;
} decoders[] = {
    [UNPACK_GZIP] = {unpack_gzip, "libz.so.1", "zlib1g"},
    [UNPACK_BZIP2] = {unpack_bzip2, "libbz2.so.1.0", "libbz2-1.0"},
    [UNPACK_LZMA] = {unpack_lzma, "liblzma.so.5", "liblzma5"},
    [UNPACK_XZ] = {unpack_xz, "liblzma.so.5", "liblzma5"},
    [UNPACK_LZ4] = {unpack_lz4, "liblz4.so.1", "liblz4-1"},
    [UNPACK_ZSTD] = {unpack_zstd, "libzstd.so.1", "libzstd1"},
};

void unpack_buf_clear(UnpackBuf *buf)
{
    if (buf->data)
        munmap(buf->data, buf->mapped);
    *buf = (UnpackBuf){0};
}

static bool buf_map(UnpackBuf *buf, size_t len, GError **error)
{
    size_t mapped = align_up(len, PAGE);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *p = mmap(NULL, mapped, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (p == MAP_FAILED)
        return lodge_fail(error, LODGE_ERROR_HOST, "unpacking: no %zu bytes of memory", mapped);
    /* Fewer page faults; a host without transparent huge pages refuses, which is no loss. */
    (void)madvise(p, mapped, MADV_HUGEPAGE);
    *buf = (UnpackBuf){.data = p, .mapped = mapped};
    return true;
}

/* Give back what the result did not need. */
static void buf_trim(UnpackBuf *buf, size_t len)
{
    size_t keep = MAX(align_up(len, PAGE), PAGE);
    buf->len = len;
    if (keep < buf->mapped && !munmap(buf->data + keep, buf->mapped - keep))
        buf->mapped = keep;
}

bool unpack(UnpackFormat format, const void *src, size_t len, uint64_t expect, uint64_t max,
            UnpackBuf *ret_buf, GError **error)
{
    max = MIN(max, UNPACK_MAX_SIZE);
    if (format == UNPACK_PLAIN && !expect)
        expect = len;
    if (expect > max)
        return lodge_fail(error, LODGE_ERROR_LIMIT,
                          "compressed data: unpacks to %" G_GUINT64_FORMAT
                          " bytes, more than %" G_GUINT64_FORMAT, expect, max);
    if (format != UNPACK_PLAIN &&
        ((size_t)format >= G_N_ELEMENTS(decoders) || !decoders[format].run))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "compressed data: the format (%s) is not supported", unpack_name(format));
    g_auto(UnpackBuf) buf = {0};
    if (!buf_map(&buf, expect ? expect : max, error))
        return false;
    Job job = {.src = src, .len = len, .dst = buf.data, .cap = expect ? expect : max,
               .exact = expect != 0};
    if (format == UNPACK_PLAIN) {
        job.out = MIN(len, job.cap);
        memcpy(job.dst, src, job.out);
    } else {
        g_autoptr(DynLib) lib =
            dynlib_open(decoders[format].soname, decoders[format].package, error);
        if (!lib || !decoders[format].run(lib, &job, error))
            return false;
    }
    if (expect && job.out != expect)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "compressed data: unpacked to %zu bytes instead of %" G_GUINT64_FORMAT,
                          job.out, expect);
    buf_trim(&buf, job.out);
    *ret_buf = buf;
    buf = (UnpackBuf){0};
    return true;
}
