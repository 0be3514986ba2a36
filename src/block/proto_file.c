/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Host files and block devices as the bottom of a disk.
 *
 * A file's length is rounded up to a sector; what lies past its end reads as zeros, and a write
 * there makes it longer, by less than a sector. DISCARD punches a hole (a block device: BLKDISCARD)
 * and is advice: where the host cannot, it succeeds without effect. ZERO tries the host's ways in
 * turn, and writes zeros where it has none. STATUS asks SEEK_DATA and SEEK_HOLE.
 *
 * cache=none sets O_DIRECT once the image is open; headers and bitmaps go through a second
 * descriptor without it. Where the device has blocks of 4096 bytes, so has a raw disk then; image
 * formats, which write by 512 bytes, are refused.
 * cache=unsafe makes FLUSH and FUA nothing.
 *
 * Threads: open and close on main; submit on the IoThread; blk_file_run() on pool threads, which
 * touches constant and atomic fields only.
 *
 * Spec: fallocate(2), lseek(2), open(2) "O_DIRECT", linux/fs.h (BLKDISCARD, BLKZEROOUT).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lodge/num.h"

#include "block_int.h"

#define ZERO_CHUNK ((size_t)64 << 10) /* of the buffer when zeros are written by hand */
#define DIRECT_PROBE_BYTES 4096u
#define PHYSICAL_MAX 4096u

static BlkFile *file_of(BlkNode *n)
{
    return (BlkFile *)n;
}

static void file_limits(BlkNode *n, BlkLimits *l)
{
    BlkFile *f = file_of(n);

    l->size = align_up(f->size, f->align);
    l->discard_max = f->read_only ? 0 : BLK_DISCARD_MAX;
    l->align = f->align;
    l->physical = f->physical;
    l->block = 4096;
    l->max_iov = BLK_MAX_IOV;
    l->read_only = f->read_only;
}

static int tapped_run(BlkFile *f, BlkReq *req);

static void file_submit(BlkNode *n, BlkReq *req)
{
    BlkFile *f = file_of(n);

    memset(req->scratch, 0, sizeof req->scratch);
    blk_xfer(req)->file = f;
    if ((req->op == BLK_FLUSH && (f->unsafe || f->read_only)) ||
        (req->op != BLK_FLUSH && req->len == 0)) {
        blk_complete(req, 0);
        return;
    }
    /* An overlay reads its base by sectors; nobody writes there, so the host's cache is right
     * too. */
    if (f->align > BLK_SECTOR && f->read_only && (req->offset | req->len) & (f->align - 1))
        req->flags |= BLK_REQ_META;
    if (f->tap)
        blk_complete(req, tapped_run(f, req));
    else
        blk_engine_submit(n->engine, req);
}

static void file_close(BlkNode *n)
{
    BlkFile *f = file_of(n);

    if (n->engine && n->engine->uring) {
        blk_uring_remove_file(n->engine->uring, f->fd_slot);
        if (f->meta_slot != f->fd_slot)
            blk_uring_remove_file(n->engine->uring, f->meta_slot);
    }
    if (f->meta_fd >= 0 && f->meta_fd != f->fd)
        close(f->meta_fd);
    if (f->locked)
        image_lock_change(f->fd, F_UNLCK); /* io_uring keeps the file for a while after close() */
    if (f->fd >= 0)
        close(f->fd);
    g_free(f->path);
}

const BlkDriver blk_driver_file = {
    .name = "file",
    .flags = BLK_DRV_PROTOCOL,
    .instance_size = sizeof(BlkFile),
    .limits = file_limits,
    .submit = file_submit,
    .close = file_close,
};

/* ---- blocking calls ---- */

static int run_transfer(BlkFile *f, BlkReq *req)
{
    bool sync = req->fua && !f->unsafe;
    int fd = req->flags & BLK_REQ_META ? f->meta_fd : f->fd;
    BlkStep step;
    int err;

    do {
        const struct iovec *iov;
        unsigned niov;
        uint64_t offset;
        err = blk_xfer_next(req, &iov, &niov, &offset);
        if (err)
            break;
        ssize_t r;
        if (req->op == BLK_READ) /* for one piece the kernel is quicker with the plain calls */
            r = niov == 1 ? pread(fd, iov->iov_base, iov->iov_len, offset)
                          : preadv2(fd, iov, niov, offset, 0);
        else
            r = niov == 1 && !sync ? pwrite(fd, iov->iov_base, iov->iov_len, offset)
                                   : pwritev2(fd, iov, niov, offset, sync ? RWF_DSYNC : 0);
        step = blk_xfer_took(req, r < 0 ? -errno : r, &err);
    } while (step == BLK_STEP_AGAIN);
    blk_xfer_end(req);
    return err;
}

static int file_fallocate(BlkFile *f, int mode, uint64_t offset, uint64_t len)
{
    int r;

    do
        r = fallocate(f->fd, mode | FALLOC_FL_KEEP_SIZE, offset, len);
    while (r < 0 && errno == EINTR);
    return r == 0 ? 0 : errno;
}

static bool cannot(int err)
{
    return err == EOPNOTSUPP || err == ENOSYS || err == ENOTTY || err == EINVAL;
}

static int punch(BlkFile *f, uint64_t offset, uint64_t len)
{
    if (f->no_punch)
        return EOPNOTSUPP;
    int err = file_fallocate(f, FALLOC_FL_PUNCH_HOLE, offset, len);
    if (cannot(err))
        f->no_punch = true;
    return err;
}

static int run_discard(BlkFile *f, BlkReq *req)
{
    int err;

    if (f->block_device) {
        uint64_t range[2] = {req->offset, req->len};
        err = f->no_punch ? EOPNOTSUPP : ioctl(f->fd, BLKDISCARD, range) == 0 ? 0 : errno;
        if (cannot(err))
            f->no_punch = true;
    } else {
        err = punch(f, req->offset, req->len);
    }
    return cannot(err) ? 0 : err; /* advice only */
}

static int write_zeros(BlkFile *f, uint64_t offset, uint64_t len)
{
    void *buf = NULL;
    int err = 0;

    if (posix_memalign(&buf, DIRECT_PROBE_BYTES, ZERO_CHUNK) != 0)
        return ENOMEM;
    memset(buf, 0, ZERO_CHUNK);
    while (len && !err) {
        ssize_t r = pwrite(f->fd, buf, MIN(len, ZERO_CHUNK), offset);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0) {
            err = r < 0 ? errno : EIO;
        } else {
            offset += r;
            len -= r;
        }
    }
    free(buf);
    return err;
}

static int run_zero(BlkFile *f, BlkReq *req)
{
    int err = EOPNOTSUPP;

    if (f->block_device) {
        uint64_t range[2] = {req->offset, req->len};
        if (!f->no_zero_range)
            err = ioctl(f->fd, BLKZEROOUT, range) == 0 ? 0 : errno;
    } else {
        if (req->may_unmap)
            err = punch(f, req->offset, req->len);
        if (cannot(err) && !f->no_zero_range)
            err = file_fallocate(f, FALLOC_FL_ZERO_RANGE, req->offset, req->len);
    }
    if (cannot(err)) {
        f->no_zero_range = true;
        err = write_zeros(f, req->offset, req->len);
    }
    if (!err && req->fua && !f->unsafe && fdatasync(f->fd) < 0)
        err = errno;
    return err;
}

static int run_status(BlkFile *f, BlkReq *req)
{
    uint64_t known = f->data_to;

    if (req->offset >= f->data_from && req->offset < known) { /* SEEK_HOLE may take long */
        req->status = BLK_ST_DATA;
        req->status_offset = req->offset;
        req->status_len = MIN(req->len, align_up(known - req->offset, BLK_SECTOR));
        return 0;
    }
    off_t data = lseek(f->fd, req->offset, SEEK_DATA);
    int err = errno;

    req->status_len = req->len;
    req->status = BLK_ST_DATA;
    if (data < 0) { /* no data up to the end; else: cannot tell */
        req->status = err == ENXIO ? BLK_ST_BELOW : BLK_ST_DATA;
        req->status_offset = req->offset;
        return 0;
    }
    if ((uint64_t)data > req->offset) {
        req->status = BLK_ST_BELOW;
        req->status_len = MIN(req->len, align_down(data - req->offset, BLK_SECTOR));
        if (req->status_len)
            return 0;
        req->status = BLK_ST_DATA; /* the data begins inside this sector */
    }
    req->status_offset = req->offset;
    off_t hole = lseek(f->fd, data, SEEK_HOLE);
    if (hole > (off_t)req->offset)
        req->status_len = MIN(req->len, align_up(hole - req->offset, BLK_SECTOR));
    if (f->read_only && hole > data) {
        f->data_from = data;
        f->data_to = hole;
    }
    return 0;
}

int blk_file_run(BlkReq *req)
{
    BlkFile *f = blk_xfer(req)->file;

    switch (req->op) {
    case BLK_READ:
    case BLK_WRITE:
        return run_transfer(f, req);
    case BLK_FLUSH:
        return fdatasync(f->fd) == 0 ? 0 : errno;
    case BLK_DISCARD:
        return run_discard(f, req);
    case BLK_ZERO:
        return run_zero(f, req);
    case BLK_STATUS:
        return run_status(f, req);
    }
    return EINVAL;
}

/* ---- tests look on ---- */

static int tap_before(const BlkFile *f, BlkTapOp op, uint64_t offset, uint64_t len,
                      uint64_t *ret_mark)
{
    return f->tap ? f->tap->before(f->tap->opaque, op, offset, len, ret_mark) : 0;
}

/* Tell of what ended with @err, and answer that. */
static int tap_after(const BlkFile *f, BlkTapOp op, uint64_t offset, uint64_t len,
                     const struct iovec *iov, unsigned niov, uint64_t mark, int err)
{
    if (f->tap && !err)
        f->tap->after(f->tap->opaque, op, offset, len, iov, niov, mark);
    return err;
}

static int tapped_run(BlkFile *f, BlkReq *req)
{
    static const BlkTapOp ops[] = {[BLK_READ] = BLK_TAP_READ, [BLK_WRITE] = BLK_TAP_WRITE,
                                   [BLK_FLUSH] = BLK_TAP_SYNC, [BLK_DISCARD] = BLK_TAP_ZERO,
                                   [BLK_ZERO] = BLK_TAP_ZERO};
    uint64_t mark = 0;

    if (req->op == BLK_STATUS)
        return blk_file_run(req);
    int err = tap_before(f, ops[req->op], req->offset, req->len, &mark);
    if (err)
        return err;
    bool sync = req->fua && req->op != BLK_FLUSH;
    req->fua = false; /* as two steps, so that both are told of */
    err = blk_file_run(req);
    req->fua = sync;
    tap_after(f, ops[req->op], req->offset, req->len, req->iov, req->niov, mark, err);
    return err || !sync ? err : blk_file_sync(f);
}

/* ---- opening ---- */

static int open_path(const BlkFileOpen *o, GError **error)
{
    /* O_NONBLOCK: a FIFO does not block us; it is refused below. */
    int fd = open(o->path, (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int err = errno;

    if (fd >= 0)
        return fd;
    switch (err) {
    case ENOENT:
    case ENOTDIR:
        lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': no such file; %s", o->path,
                   o->is_base     ? "check the path of the base"
                   : o->read_only ? "check the path"
                                  : "check the path, or make it by truncate -s SIZE");
        break;
    case EISDIR:
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "'%s': is a directory; name an image file or a block device", o->path);
        break;
    case EACCES:
    case EROFS:
    case EPERM:
    case ETXTBSY:
        if (!o->read_only && access(o->path, R_OK) == 0) {
            lodge_fail(error, LODGE_ERROR_CONFIG,
                       "'%s': cannot be written (%s); add ,ro to use it read-only, or make an "
                       "overlay (base=)",
                       o->path, g_strerror(err));
            break;
        }
        lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': %s; check who may read it", o->path,
                   g_strerror(err));
        break;
    default:
        lodge_fail_errno(error, err, "'%s': cannot open", o->path);
    }
    return -1;
}

static bool check_kind(BlkFile *f, bool empty_ok, GError **error)
{
    struct stat st;

    if (fstat(f->fd, &st) < 0)
        return lodge_fail_errno(error, errno, "'%s': cannot stat", f->path);
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    f->mtime = (uint32_t)st.st_mtime;
    f->physical = (uint32_t)st.st_blksize;
    if (S_ISBLK(st.st_mode)) {
        f->block_device = true;
        if (ioctl(f->fd, BLKPBSZGET, &f->physical) < 0)
            f->physical = BLK_SECTOR;
        if (ioctl(f->fd, BLKGETSIZE64, &f->size) < 0)
            return lodge_fail_errno(error, errno, "'%s': cannot get the device's size", f->path);
    } else if (S_ISREG(st.st_mode)) {
        f->size = st.st_size;
    } else {
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': is a %s; name an image file or a block device", f->path,
                          S_ISDIR(st.st_mode)    ? "directory"
                          : S_ISFIFO(st.st_mode) ? "FIFO"
                          : S_ISCHR(st.st_mode)  ? "character device"
                                                 : "socket");
    }
    struct statfs fs;
    if (S_ISREG(st.st_mode) && fstatfs(f->fd, &fs) == 0) {
        f->instant = fs.f_type == TMPFS_MAGIC;
        f->serial = fs.f_type == EXT4_SUPER_MAGIC;
    }
    /* What would make no sense, or is a network's favourite, is a page. */
    if (!is_power_of_two(f->physical) || f->physical < BLK_SECTOR || f->physical > PHYSICAL_MAX)
        f->physical = PHYSICAL_MAX;
    if (f->size == 0 && !empty_ok)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': is empty; %s", f->path,
                          f->read_only ? "fetch or copy it again"
                                       : "give it a size first, by truncate -s SIZE");
    if (f->size > BLK_MAX_SIZE)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': over 2^62 bytes", f->path);
    return true;
}

BlkFile *blk_file_open(const char *name, const BlkFileOpen *o, int fd, IoThread *io,
                       BlkEngine *engine, GError **error)
{
    if (fd < 0 && blk_is_remote(o->path))
        return blk_nbd_open(name, o, io, engine, error);
    BlkNode *n = blk_node_new(&blk_driver_file, name, io, engine);
    BlkFile *f = file_of(n);
    bool given = fd >= 0;

    f->path = g_strdup(o->path);
    f->fd_slot = f->meta_slot = -1;
    f->align = BLK_SECTOR;
    f->read_only = o->read_only;
    f->unsafe = o->cache == BLK_CACHE_UNSAFE;
    f->fd = f->meta_fd = given ? fd : open_path(o, error);
    if (f->fd < 0 || !check_kind(f, o->empty_ok, error) ||
        (!o->no_lock && !image_lock(f->fd, o->path, !o->read_only, o->holder, error))) {
        blk_node_free(n);
        return NULL;
    }
    f->locked = !o->no_lock && !given;
    if (!given) /* a plain file does not care, an engine might */
        (void)fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) & ~O_NONBLOCK);
    if (engine->uring)
        f->fd_slot = f->meta_slot = blk_uring_add_file(engine->uring, f->fd);
    blk_node_ready(n);
    return f;
}

BlkFile *blk_file_again(const BlkFile *f, IoThread *io, BlkEngine *engine, GError **error)
{
    BlkNode *n = blk_node_new(&blk_driver_file, f->node.name, io, engine);
    BlkFile *g = file_of(n);

    g->path = g_strdup(f->path);
    g->fd_slot = g->meta_slot = -1;
    g->size = f->size;
    g->dev = f->dev;
    g->ino = f->ino;
    g->mtime = f->mtime;
    g->block_device = f->block_device;
    g->direct = f->direct;
    g->read_only = f->read_only;
    g->unsafe = f->unsafe;
    g->align = f->align;
    g->physical = f->physical;
    g->instant = f->instant;
    g->serial = f->serial;
    g->fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
    g->meta_fd = f->meta_fd == f->fd ? g->fd : fcntl(f->meta_fd, F_DUPFD_CLOEXEC, 0);
    if (g->fd < 0 || g->meta_fd < 0) {
        lodge_fail_errno(error, errno, "'%s': cannot have another descriptor of it", f->path);
        blk_node_free(n);
        return NULL;
    }
    if (engine->uring) {
        g->fd_slot = blk_uring_add_file(engine->uring, g->fd);
        g->meta_slot =
            g->meta_fd == g->fd ? g->fd_slot : blk_uring_add_file(engine->uring, g->meta_fd);
    }
    blk_node_ready(n);
    return g;
}

bool blk_file_set_direct(BlkFile *f, GError **error)
{
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", f->fd);
    void *buf = NULL;

    if (f->remote) /* what the other side caches is its own matter */
        return true;
    f->meta_fd = open(self, (f->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (f->meta_fd < 0)
        return lodge_fail_errno(error, errno, "'%s': cannot open it twice", f->path);
    if (fcntl(f->fd, F_SETFL, fcntl(f->fd, F_GETFL) | O_DIRECT) < 0)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': its file system has no O_DIRECT; leave cache=none out", f->path);
    if (posix_memalign(&buf, DIRECT_PROBE_BYTES, DIRECT_PROBE_BYTES) != 0)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': no memory", f->path);
    /* The second half of the first kilobyte: misaligned where blocks are larger. */
    ssize_t r = pread(f->fd, (uint8_t *)buf + BLK_SECTOR, BLK_SECTOR, BLK_SECTOR);
    if (r < 0 && errno == EINVAL) {
        f->align = DIRECT_PROBE_BYTES;
        r = pread(f->fd, buf, f->align, f->align);
    }
    int err = errno;
    free(buf);
    if (r < 0 && err == EINVAL)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': its device has blocks over %u bytes; leave cache=none out",
                          f->path, DIRECT_PROBE_BYTES);
    if (f->size % f->align && f->align > BLK_SECTOR && !f->read_only)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': its device has blocks of %u bytes, and its size is no multiple of "
                          "that; leave cache=none out",
                          f->path, f->align);
    f->direct = true;
    if (f->node.engine->uring)
        f->meta_slot = blk_uring_add_file(f->node.engine->uring, f->meta_fd);
    blk_node_ready(&f->node);
    return true;
}

int blk_file_read_at(BlkFile *f, void *buf, size_t len, uint64_t offset)
{
    size_t done = 0;
    uint64_t mark = 0;

    if (!range_within(offset, len, INT64_MAX))
        return EINVAL;
    if (f->remote)
        return blk_remote_read(f, buf, len, offset);
    int err = tap_before(f, BLK_TAP_READ, offset, len, &mark);
    if (err)
        return err;
    while (done < len) {
        ssize_t r = pread(f->meta_fd, (uint8_t *)buf + done, len - done, offset + done);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return errno;
        if (r == 0) {
            memset((uint8_t *)buf + done, 0, len - done);
            break;
        }
        done += r;
    }
    return 0;
}

int blk_file_write_at(BlkFile *f, const void *buf, size_t len, uint64_t offset)
{
    size_t done = 0;
    uint64_t mark = 0;

    if (!range_within(offset, len, INT64_MAX))
        return EFBIG;
    if (f->remote)
        return blk_remote_write(f, buf, len, offset);
    int err = tap_before(f, BLK_TAP_WRITE, offset, len, &mark);
    if (err)
        return err;
    while (done < len) {
        ssize_t r = pwrite(f->meta_fd, (const uint8_t *)buf + done, len - done, offset + done);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? errno : EIO;
        done += r;
    }
    struct iovec iov = {(void *)buf, len};
    return tap_after(f, BLK_TAP_WRITE, offset, len, &iov, 1, mark, 0);
}

int blk_file_zero_at(BlkFile *f, uint64_t offset, uint64_t len)
{
    BlkReq req = {.op = BLK_ZERO, .may_unmap = true, .offset = offset, .len = len};
    uint64_t end;
    int err = blk_file_length(f, &end);

    if (err || !len)
        return err;
    if (f->remote)
        return blk_remote_zero(f, offset, len);
    if (offset + len > end) /* hole punching keeps the length */
        err = blk_file_truncate(f, offset + len);
    if (offset >= end || err)
        return err;
    uint64_t mark = 0;
    err = tap_before(f, BLK_TAP_ZERO, offset, len, &mark);
    if (!err)
        err = run_zero(f, &req);
    return tap_after(f, BLK_TAP_ZERO, offset, len, NULL, 0, mark, err);
}

int blk_file_sync(BlkFile *f)
{
    uint64_t mark = 0;

    if (f->unsafe || f->read_only)
        return 0;
    if (f->remote)
        return blk_flush(&f->node);
    int err = tap_before(f, BLK_TAP_SYNC, 0, 0, &mark);
    if (!err && fdatasync(f->meta_fd) < 0)
        err = errno;
    return tap_after(f, BLK_TAP_SYNC, 0, 0, NULL, 0, mark, err);
}

int blk_file_truncate(BlkFile *f, uint64_t len)
{
    uint64_t mark = 0;
    if (f->remote)
        return blk_remote_truncate(f, len);
    int err = tap_before(f, BLK_TAP_TRUNCATE, 0, len, &mark);

    if (!err && ftruncate(f->meta_fd, len) < 0)
        err = errno;
    if (!err)
        f->size = len;
    return tap_after(f, BLK_TAP_TRUNCATE, 0, len, NULL, 0, mark, err);
}

int blk_file_length(BlkFile *f, uint64_t *ret_len)
{
    struct stat st;

    if (f->block_device) {
        *ret_len = f->size;
        return 0;
    }
    if (fstat(f->meta_fd, &st) < 0)
        return errno;
    *ret_len = st.st_size;
    return 0;
}

bool blk_file_pread(BlkFile *f, void *buf, size_t len, uint64_t offset, GError **error)
{
    int err = blk_file_read_at(f, buf, len, offset);

    return !err || lodge_fail_errno(error, err, "'%s': cannot read at %" G_GUINT64_FORMAT, f->path,
                                    offset);
}

bool blk_file_pwrite(BlkFile *f, const void *buf, size_t len, uint64_t offset, GError **error)
{
    int err = blk_file_write_at(f, buf, len, offset);

    return !err || lodge_fail_errno(error, err, "'%s': cannot write at %" G_GUINT64_FORMAT,
                                    f->path, offset);
}
