/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image files of every format from hostile bytes: opened as what they look like, looked at, read,
 * checked, mended, written. What was mended must be clean when it is checked again. What was
 * written must read back, now and after it was opened anew, unless a check finds errors before:
 * where two pieces of a disk share a place in the file nothing can be promised.
 *
 * The first byte says what is done, the rest is the file. With its highest bit set, the last byte
 * counts steps of 4 bytes before it, which are taken one after the other: requests, alone and
 * several at once, snapshots, changes of size and base, overlays of the image. Two bits of that
 * count say that few tables are kept in memory, and that operations on the file can be made to
 * fail. An image that was sound and whose last flush went well must be sound after all of that.
 *
 * A recorded base is not opened: it would be a file of the host. The checksums of a VHD image are
 * made right, unless the first byte says to leave them: little would be reached behind them.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

#include "cow_header.h"
#include "image_ops.h"
#include "vhd.h"
#include "replay.h"

#define FILE_MAX (1 * MIB)   /* of the input */
#define GROWN_MAX (64 * MIB) /* of the file: what is over fails with EFBIG */
#define GROWN_COW (600 * MIB) /* of UML's, which are holes: three pieces of a bitmap */
#define STRETCHES 200u       /* of the map */
#define FLAGS (BLK_OPEN_QUIET | BLK_OPEN_NO_BASE | BLK_OPEN_UNLOCKED)

enum { DO_CHECK = 1, DO_REPAIR = 2, DO_WRITE = 4, DO_RESIZE = 8, DO_EMPTY = 16, DO_ZERO = 32,
       KEEP_SUMS = 64, STEPS = 128 };
#define STEP_BYTES 4u
#define STEPS_MAX 24u
enum { COUNT_BITS = 0x1f, FEW_TABLES = 0x40, CAN_FAIL = 0x80 }; /* of the last byte */
#define TABLES_LEAST 8192u
#define AT_ONCE 8u
#define STEP_LEN_MAX (128 * KIB)
#define OVERLAY_MAX (8 * MIB) /* disk of an image that others are made from */

typedef enum StepKind {
    STEP_WRITE, STEP_READ, STEP_ZERO, STEP_DISCARD, STEP_FLUSH, STEP_SNAPSHOT, STEP_APPLY,
    STEP_DELETE, STEP_RESIZE, STEP_PACK, STEP_CHECK, STEP_REPAIR, STEP_EMPTY, STEP_NO_BASE,
    STEP_BASE, STEP_REOPEN, STEP_OVERLAY, STEP_MAP, STEP_KINDS,
    STEP_MANY = 254, STEP_FAIL = 255 /* the byte itself */
} StepKind;

static IoThread *io;

static char *folder; /* for overlays and bases */

static void clean_up(void)
{
    (void)rmdir(folder);
}

static void set_up(void)
{
    GError *error = NULL;

    (void)signal(SIGXFSZ, SIG_IGN);
    io = io_thread_new("fuzz", lodge_clock_new(), &error);
    g_assert_no_error(error);
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", TRUE);
    folder = g_dir_make_tmp("lodge-fuzz-XXXXXX", &error);
    g_assert_no_error(error);
    (void)atexit(clean_up);
}

/* ---- what fails ---- */

/* Operations on the image's file: the one after @after more fails, and so on until @count have. */
static struct {
    bool can; /* the steps' opens put it under the image */
    unsigned after, count;
    int err;
} fault;

static int fault_before(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len,
                        uint64_t *ret_mark)
{
    (void)opaque, (void)op, (void)offset, (void)len, (void)ret_mark;
    if (fault.after) {
        fault.after--;
        return 0;
    }
    if (!fault.count)
        return 0;
    fault.count--;
    return fault.err;
}

static void fault_after(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len,
                        const struct iovec *iov, unsigned niov, uint64_t mark)
{
    (void)opaque, (void)op, (void)offset, (void)len, (void)iov, (void)niov, (void)mark;
}

static const BlkTap fault_tap = {.before = fault_before, .after = fault_after};

static void fault_arm(const uint8_t *p)
{
    fault.after = p[1] % 32;
    fault.count = p[2] % 4;
    fault.err = p[3] & 1 ? ENOSPC : EIO;
}

static uint64_t tables; /* bytes kept in memory by the steps' opens; 0: as usual */

static BlkNode *open_image(const char *path, bool read_only, unsigned flags)
{
    g_autoptr(GError) error = NULL;
    BlkOptions o = {.file = path, .read_only = read_only, .aio = BLK_AIO_THREADS,
                    .metadata_cache = tables, .tap = fault.can ? &fault_tap : NULL};
    BlkNode *n = blk_open_flags(NULL, &o, FLAGS | flags, io, &error);

    g_assert(!n == !!error);
    if (error)
        g_assert(error->domain == LODGE_ERROR && !strchr(error->message, '\n'));
    return n;
}

/* Facts, snapshots, the map from some places on, and bytes there. */
static void look(BlkNode *n)
{
    g_autoptr(GPtrArray) facts = blk_facts_new();
    uint8_t buf[4096];
    uint64_t size = n->limits.size;
    const uint64_t from[] = {0, align_down(size / 2, BLK_SECTOR), size - BLK_SECTOR};

    g_assert(size && size % BLK_SECTOR == 0 && size <= BLK_MAX_SIZE);
    if (n->drv->describe)
        n->drv->describe(n, facts);
    if (n->drv->snap) {
        GPtrArray *list = image_snapshots(n, NULL);
        if (list)
            g_ptr_array_unref(list);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(from); i++) {
        MapEntry e;
        uint64_t at = from[i];
        for (unsigned k = 0; k < STRETCHES && at < size; k++) {
            if (image_map(n, at, size - at, &e))
                break;
            g_assert(e.offset == at && e.len && e.len <= size - at);
            (void)blk_pread(n, buf, at, MIN(sizeof buf, e.len & ~511ull));
            at += e.len;
        }
        (void)blk_pread(n, buf, from[i], MIN(sizeof buf, size - from[i]));
    }
}

static uint64_t errors_of(BlkNode *n, bool repair, bool *ret_done)
{
    g_autoptr(BlkReport) r = blk_report_new();

    *ret_done = image_check(n, repair, r, NULL);
    g_assert(r->lines->len <= BLK_REPORT_LINES && r->errors_fixed <= r->errors);
    return r->errors - r->errors_fixed;
}

static void check_and_mend(const char *path, bool repair)
{
    g_autoptr(BlkNode) n = open_image(path, !repair, BLK_OPEN_CHECK);
    bool done = false;

    if (!n || !n->drv->check)
        return;
    uint64_t left = errors_of(n, repair, &done);
    if (!repair || !done || left || blk_flush(n))
        return;
    blk_close(g_steal_pointer(&n));
    n = open_image(path, true, BLK_OPEN_CHECK);
    bool clean = n && !errors_of(n, false, &done) && done;
    g_assert(clean); /* it was mended */
}

static bool is_sound(const char *path)
{
    g_autoptr(BlkNode) n = open_image(path, true, BLK_OPEN_CHECK);
    bool done = true;

    return n && (!n->drv->check || (errors_of(n, false, &done) == 0 && done));
}

static int simple(BlkNode *n, BlkOp op, uint64_t offset, uint64_t len)
{
    BlkReq req = {.op = op, .offset = offset, .len = len, .may_unmap = true};

    return blk_wait(n, &req);
}

/* The bytes at @offset are @byte, where they can be read. */
static void expect(BlkNode *n, uint64_t offset, size_t len, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc(len);

    if (blk_pread(n, buf, offset, len) != 0)
        return;
    for (size_t i = 0; i < len; i++)
        g_assert(buf[i] == byte);
}

static void change(const char *path, unsigned what)
{
    bool sound = is_sound(path);
    g_autoptr(BlkNode) n = open_image(path, false, 0);
    g_autofree uint8_t *buf = g_malloc(70000 / 512 * 512);
    size_t len = 70000 / 512 * 512;

    if (!n)
        return;
    uint64_t at = align_down(n->limits.size / 3, BLK_SECTOR);
    len = MIN(len, n->limits.size - at);
    memset(buf, 0xa5, len);
    bool wrote = what & DO_WRITE && blk_pwrite(n, buf, at, len) == 0;
    if (wrote && sound)
        expect(n, at, len, 0xa5);
    bool zeroed = what & DO_ZERO && simple(n, BLK_ZERO, at, MIN(len, 4096)) == 0;
    if (zeroed && sound)
        expect(n, at, MIN(len, 4096), 0);
    if (what & DO_RESIZE)
        (void)image_resize(n, n->limits.size / 2 + 4096, true, NULL);
    if (what & DO_EMPTY && n->drv->make_empty)
        (void)n->drv->make_empty(n, NULL);
    bool flushed = blk_flush(n) == 0;
    look(n);
    blk_close(g_steal_pointer(&n));
    if (!sound || !wrote || zeroed || !flushed || what & (DO_RESIZE | DO_EMPTY))
        return;
    n = open_image(path, true, 0);
    if (n)
        expect(n, at, len, 0xa5);
}

static void seal(uint8_t *p, size_t len, size_t sum_at)
{
    store_be32(p + sum_at, vhd_checksum(p, len, sum_at));
}

static void seal_vhd(uint8_t *p, size_t len)
{
    const size_t header = VHD_HEADER_AT;

    if (len >= VHD_FOOTER && !memcmp(p, VHD_COOKIE, 8))
        seal(p, VHD_FOOTER, FT_CHECKSUM);
    if (len >= VHD_FOOTER && !memcmp(p + len - VHD_FOOTER, VHD_COOKIE, 8))
        seal(p + len - VHD_FOOTER, VHD_FOOTER, FT_CHECKSUM);
    if (len >= header + VHD_HEADER && !memcmp(p + header, VHD_HEADER_COOKIE, 8))
        seal(p + header, VHD_HEADER, HD_CHECKSUM);
}

/* ---- steps ---- */

/* Of UML's, what has a base is a COW file, and what has none is raw. */
static const char *format_of(const BlkNode *n, bool overlay)
{
    if (n->drv == &blk_driver_umlcow || n->drv == &blk_driver_raw)
        return overlay ? blk_driver_umlcow.name : blk_driver_raw.name;
    return n->drv->name;
}

/* Another image of the same format and size; its path, or NULL: the format has none like that. */
static char *another(BlkNode *n, const char *name, const char *base, uint8_t how)
{
    static const char *const keys[] = {"subformat", "cluster-size", "compat", "preallocation",
                                       "subformat", "refcount-bits"};
    static const char *const values[] = {"fixed", "512", "0.10", "metadata", "monolithicFlat",
                                         "1"};
    unsigned which = how % 8;
    g_autoptr(GHashTable) options = g_hash_table_new(g_str_hash, g_str_equal);
    g_autofree char *path = g_build_filename(folder, name, NULL);
    BlkMake m = {.file = path, .format = format_of(n, base), .base = base,
                 .base_format = base ? n->drv->name : NULL,
                 .size = base && !(how & 32) ? 0 : n->limits.size + (how & 64 ? BLK_SECTOR : 0),
                 .options = options, .overwrite = true};
    g_autoptr(GError) error = NULL;

    if (n->limits.size > OVERLAY_MAX)
        return NULL;
    if (which < G_N_ELEMENTS(keys))
        g_hash_table_insert(options, (void *)keys[which],
                            (void *)((how & 0xe0) == 0xe0 ? "1000" : values[which]));
    if (how & 8 && n->drv == &blk_driver_qcow2) { /* refused beside compat=0.10 */
        g_hash_table_insert(options, (void *)"compression-type", (void *)"zstd");
        g_hash_table_insert(options, (void *)"lazy-refcounts", (void *)"on");
    }
    if (blk_make(&m, io, &error))
        return g_steal_pointer(&path);
    g_assert(error->domain == LODGE_ERROR && !strchr(error->message, '\n'));
    return NULL;
}

static BlkNode *open_overlay(const char *path)
{
    BlkOptions o = {.file = path, .aio = BLK_AIO_THREADS};

    return blk_open_flags(NULL, &o, BLK_OPEN_QUIET | BLK_OPEN_UNLOCKED | BLK_OPEN_BASE_RW, io,
                          NULL);
}

/* An overlay on what is open for reading as @n: written, found with a base of another time,
 * committed. */
static void use_overlay(BlkNode *n, const char *path, uint8_t how)
{
    const struct timespec then[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    g_autofree char *over = another(n, "overlay", path, how);
    CopyResult result;
    uint8_t buf[1024];

    if (!over)
        return;
    memset(buf, how, sizeof buf);
    g_autoptr(BlkNode) top = open_overlay(over);
    if (top && how & 16 && top->drv->base_changes)
        (void)top->drv->base_changes(top, INT64_MAX, NULL);
    bool wrote = top && blk_pwrite(top, buf, 0, MIN(sizeof buf, top->limits.size)) == 0;
    if (how & 128) {
        blk_close(g_steal_pointer(&top));
        (void)utimensat(AT_FDCWD, path, then, 0);
        top = open_overlay(over);
    }
    if (top && wrote)
        (void)image_commit(top, how & 1, NULL, &result, NULL);
    if (top)
        look(top);
    blk_close(g_steal_pointer(&top));
    (void)unlink(over);
}

static void change_base(BlkNode *n, uint8_t how)
{
    g_autofree char *base = another(n, "base", NULL, how);
    BlkOptions o = {.file = base, .read_only = true, .aio = BLK_AIO_THREADS};

    if (!base)
        return;
    g_autoptr(BlkNode) b = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, io, NULL);
    if (b && n->drv->set_base) {
        BlkBaseInfo info = blk_base_info(b, how & 1 ? "base" : base, base);
        blk_drain_begin(n);
        (void)n->drv->set_base(n, &info, NULL);
        blk_drain_end(n);
    }
    blk_close(g_steal_pointer(&b));
    (void)unlink(base);
}

/* A new image like @n, written, of other sizes, emptied; it stays sound. */
static void use_fresh(BlkNode *n, const uint8_t *p)
{
    g_autofree char *path = another(n, "fresh", NULL, p[1]);
    BlkOptions o = {.file = path, .format = format_of(n, false), .aio = BLK_AIO_THREADS,
                    .cache = p[1] & 32 ? BLK_CACHE_NONE : BLK_CACHE_WRITEBACK};
    g_autofree uint8_t *buf = g_malloc0(70 * KIB);
    bool done = false;

    if (!path)
        return;
    g_autoptr(BlkNode) f = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, io, NULL);
    for (unsigned i = 0; f && i < 8; i++) {
        uint64_t len = MIN(70 * KIB, f->limits.size);
        memset(buf, p[3] + i, len);
        if (p[2] >> i & 1)
            (void)blk_pwrite(f, buf, align_down((f->limits.size - len) / (i + 1), BLK_SECTOR), len);
        if (i == p[3] % 8)
            (void)image_resize(f, f->limits.size / 2 * (1 + p[3] / 8 % 4) + BLK_SECTOR, true, NULL);
        if (i == p[3] / 32 && f->drv->make_empty)
            (void)f->drv->make_empty(f, NULL);
    }
    bool flushed = f && blk_flush(f) == 0;
    if (f && f->drv->settle)
        (void)f->drv->settle(f);
    if (f)
        look(f);
    if (flushed && f->drv->check) {
        uint64_t errors = errors_of(f, p[1] & 64, &done);
        g_assert(!done || !errors);
    }
    blk_close(g_steal_pointer(&f));
    (void)unlink(path);
    g_autofree char *flat = g_build_filename(folder, "fresh-flat.vmdk", NULL);
    (void)unlink(flat);
}

/* The request that step @p of @kind asks for; @iov and @buf, STEP_LEN_MAX bytes, are its own. */
static BlkReq request_of(BlkNode *n, StepKind kind, const uint8_t *p, struct iovec *iov,
                         uint8_t *buf)
{
    static const BlkOp ops[] = {[STEP_WRITE] = BLK_WRITE, [STEP_READ] = BLK_READ,
                                [STEP_ZERO] = BLK_ZERO, [STEP_DISCARD] = BLK_DISCARD,
                                [STEP_FLUSH] = BLK_FLUSH};
    uint64_t sectors = n->limits.size / BLK_SECTOR, first = sectors * p[1] / 256;
    uint64_t len = MIN((1 + (uint64_t)p[2]) * BLK_SECTOR, STEP_LEN_MAX);
    BlkReq req = {.op = kind == STEP_PACK ? BLK_WRITE : ops[kind], .may_unmap = p[3] & 1,
                  .fua = p[3] & 2, .compress = kind == STEP_PACK};

    if (kind == STEP_FLUSH)
        return req;
    req.offset = first * BLK_SECTOR;
    req.len = MIN(len, (sectors - first) * BLK_SECTOR);
    memset(buf, p[3], STEP_LEN_MAX);
    for (unsigned i = 0; i < STEP_LEN_MAX && p[3] & 4; i++)
        buf[i] = (uint8_t)(i * 167 >> 3); /* nothing that packs well */
    if (kind == STEP_WRITE || kind == STEP_READ || kind == STEP_PACK) {
        *iov = (struct iovec){buf, req.len};
        req.iov = iov;
        req.niov = 1;
    }
    return req;
}

static void request(BlkNode *n, StepKind kind, const uint8_t *p)
{
    g_autofree uint8_t *buf = g_malloc(STEP_LEN_MAX);
    struct iovec iov;
    BlkReq req = request_of(n, kind, p, &iov, buf);

    (void)blk_wait(n, &req);
}

static void one_done(BlkReq *req, int err)
{
    (void)err;
    (void)g_atomic_int_dec_and_test((gint *)req->opaque);
}

/* Several under way at once, near each other. */
static void many(BlkNode *n, const uint8_t *p)
{
    g_autofree uint8_t *bufs = g_malloc((size_t)AT_ONCE * STEP_LEN_MAX);
    BlkReq reqs[AT_ONCE];
    struct iovec iovs[AT_ONCE];
    gint left = AT_ONCE;

    for (unsigned i = 0; i < AT_ONCE; i++) {
        const uint8_t mine[STEP_BYTES] = {0, (uint8_t)(p[1] + i * (p[2] & 3)), p[2] >> 2,
                                          (uint8_t)(p[3] + i)};
        StepKind kind = (p[3] >> 3) * (i + 1) % (STEP_FLUSH + 1);
        reqs[i] = request_of(n, kind, mine, &iovs[i], bufs + (size_t)i * STEP_LEN_MAX);
        reqs[i].done = one_done;
        reqs[i].opaque = &left;
        blk_submit(n, &reqs[i]);
    }
    while (g_atomic_int_get(&left))
        g_usleep(20);
}

/* One step; *@n may be another node after it, or NULL. False: nothing more can be done. */
static bool step(BlkNode **at_n, const char *path, const uint8_t *p, bool *flushed)
{
    static const char *const verbs[] = {[STEP_SNAPSHOT] = "create", [STEP_APPLY] = "apply",
                                        [STEP_DELETE] = "delete"};
    StepKind kind = p[0] >= STEP_MANY ? p[0] : p[0] % STEP_KINDS;
    g_autofree char *name = g_strdup_printf("%u", p[1] % 4);
    BlkNode *n = *at_n;
    bool done;

    *flushed = false;
    switch (kind) {
    case STEP_FLUSH:
        *flushed = blk_flush(n) == 0;
        break;
    case STEP_SNAPSHOT:
    case STEP_APPLY:
    case STEP_DELETE:
        (void)image_snapshot(n, verbs[kind], name, NULL);
        break;
    case STEP_RESIZE:
        (void)image_resize(n, n->limits.size / 128 * p[1] + p[2] * BLK_SECTOR, p[3] & 1, NULL);
        break;
    case STEP_CHECK:
    case STEP_REPAIR:
        if (n->drv->check)
            (void)errors_of(n, kind == STEP_REPAIR, &done);
        break;
    case STEP_EMPTY:
    case STEP_NO_BASE:
        blk_drain_begin(n);
        if (kind == STEP_EMPTY && n->drv->make_empty)
            (void)n->drv->make_empty(n, NULL);
        else if (kind == STEP_NO_BASE && n->drv->set_base)
            (void)n->drv->set_base(n, NULL, NULL);
        blk_drain_end(n);
        break;
    case STEP_BASE:
        change_base(n, p[1]);
        break;
    case STEP_REOPEN:
    case STEP_OVERLAY:
        blk_close(n);
        n = open_image(path, kind == STEP_OVERLAY, 0);
        if (n && kind == STEP_OVERLAY) {
            use_overlay(n, path, p[1]);
            blk_close(n);
            n = open_image(path, false, 0);
        }
        *at_n = n;
        break;
    case STEP_MAP:
        if (p[1] & 128)
            use_fresh(n, p);
        look(n);
        break;
    case STEP_MANY:
        many(n, p);
        break;
    case STEP_FAIL:
        fault_arm(p);
        break;
    default:
        request(n, kind, p);
    }
    return *at_n;
}

static void take_steps(const char *path, const uint8_t *program, unsigned count, unsigned how)
{
    bool sound = is_sound(path), flushed = true;

    fault.can = how & CAN_FAIL;
    tables = how & FEW_TABLES ? TABLES_LEAST : 0;
    BlkNode *n = open_image(path, false, 0);
    bool ok = n;
    for (unsigned i = 0; ok && i < count; i++)
        ok = step(&n, path, program + (size_t)i * STEP_BYTES, &flushed);
    if (n)
        flushed = blk_flush(n) == 0;
    blk_close(n);
    fault.can = false;
    fault.after = fault.count = 0;
    tables = 0;
    if (sound && ok && flushed)
        g_assert(is_sound(path));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct rlimit limit = {GROWN_MAX, RLIM_INFINITY};

    if (!io)
        set_up();
    if (len < 2 || len > FILE_MAX)
        return 0;
    unsigned steps = data[0] & STEPS ? MIN(data[len - 1] & COUNT_BITS, STEPS_MAX) : 0;
    unsigned how = data[len - 1];
    size_t tail = steps ? 1 + steps * STEP_BYTES : 0;
    if (tail + 2 > len)
        return 0;
    const uint8_t *program = data + len - tail;
    len -= tail;
    if (len > 4 && cow_is_magic(data + 1))
        limit.rlim_cur = GROWN_COW;
    (void)setrlimit(RLIMIT_FSIZE, &limit);
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree uint8_t *file = g_memdup2(data + 1, len - 1);
    if (!(data[0] & KEEP_SUMS))
        seal_vhd(file, len - 1);
    g_assert(fd >= 0 && write(fd, file, len - 1) == (ssize_t)(len - 1));
    g_autoptr(BlkNode) n = open_image(path, true, 0);
    if (n)
        look(n);
    blk_close(g_steal_pointer(&n));
    if (data[0] & (DO_CHECK | DO_REPAIR))
        check_and_mend(path, data[0] & DO_REPAIR);
    if (data[0] & (DO_WRITE | DO_ZERO | DO_RESIZE | DO_EMPTY))
        change(path, data[0]);
    if (steps)
        take_steps(path, program, steps, how);
    close(fd);
    return 0;
}
