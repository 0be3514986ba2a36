/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image files of every format from hostile bytes: opened as what they look like, looked at, read,
 * checked, mended, written. What was mended must be clean when it is checked again. What was
 * written must read back, now and after it was opened anew, unless a check finds errors before:
 * where two pieces of a disk share a place in the file nothing can be promised.
 *
 * The first byte says what is done, the rest is the file. A recorded base is not opened: it would
 * be a file of the host. The checksums of a VHD image are made right, unless the first byte says to
 * leave them: little would be reached behind them.
 */
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

#include "image_ops.h"
#include "vhd.h"
#include "replay.h"

#define FILE_MAX (1 * MIB)   /* of the input */
#define GROWN_MAX (64 * MIB) /* of the file: what is over fails with EFBIG */
#define STRETCHES 200u       /* of the map */
#define FLAGS (BLK_OPEN_QUIET | BLK_OPEN_NO_BASE | BLK_OPEN_UNLOCKED)

enum { DO_CHECK = 1, DO_REPAIR = 2, DO_WRITE = 4, DO_RESIZE = 8, DO_EMPTY = 16, DO_ZERO = 32,
       KEEP_SUMS = 64 };

static IoThread *io;

static void set_up(void)
{
    GError *error = NULL;
    struct rlimit limit = {GROWN_MAX, RLIM_INFINITY};

    (void)signal(SIGXFSZ, SIG_IGN);
    (void)setrlimit(RLIMIT_FSIZE, &limit);
    io = io_thread_new("fuzz", lodge_clock_new(), &error);
    g_assert_no_error(error);
}

static BlkNode *open_image(const char *path, bool read_only, unsigned flags)
{
    g_autoptr(GError) error = NULL;
    BlkOptions o = {.file = path, .read_only = read_only, .aio = BLK_AIO_THREADS};
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!io)
        set_up();
    if (len < 2 || len > FILE_MAX)
        return 0;
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
    close(fd);
    return 0;
}
