/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work on whole images, put together from the drivers' slots and image_copy().
 *
 * Order, so that a crash at any point loses nothing: commit syncs the base before the overlay
 * forgets what it had; rebase syncs what it copied before the reference changes; a converted image
 * gets its name last. What a format has no slot for is refused in words.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lodge/iothread.h"
#include "lodge/num.h"

#include "image_ops.h"

#define COMPARE_BYTES ((uint64_t)1 << 20)

static const char *path_of(BlkNode *n)
{
    return blk_file_under(n)->path;
}

static bool cannot(BlkNode *n, const char *what, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "'%s': format %s cannot %s", path_of(n),
                      n->drv->name, what);
}

static bool flush(BlkNode *n, GError **error)
{
    int err = blk_flush(n);

    return !err || lodge_fail_errno(error, err, "'%s': cannot write", path_of(n));
}

/* ---- slots of a driver, at rest ---- */

bool image_check(BlkNode *n, bool repair, BlkReport *r, GError **error)
{
    if (!n->drv->check)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': format %s has nothing that could be checked; name another "
                          "by --format if it has one",
                          path_of(n), n->drv->name);
    blk_drain_begin(n);
    bool ok = n->drv->check(n, repair, r, error);
    blk_drain_end(n);
    return ok;
}

static void limits_again(void *opaque)
{
    BlkNode *n = opaque;

    blk_node_ready(n->file);
    blk_node_ready(n);
}

bool image_resize(BlkNode *n, uint64_t size, bool shrink, GError **error)
{
    if (!n->drv->resize)
        return cannot(n, "change an image's size", error);
    if (!size || size > BLK_MAX_SIZE)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': a size of %" G_GUINT64_FORMAT
                          " is not in 1..2^62", path_of(n), size);
    if (size < n->limits.size && !shrink &&
        !(n->drv == &blk_driver_raw && align_up(size, BLK_SECTOR) == n->limits.size))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': has %" G_GUINT64_FORMAT " bytes; less would lose the rest: "
                          "--shrink says that it is meant",
                          path_of(n), n->limits.size);
    blk_drain_begin(n);
    bool ok = n->drv->resize(n, size, shrink, error);
    if (ok)
        io_thread_call(n->io, limits_again, n);
    blk_drain_end(n);
    return ok;
}

GPtrArray *image_snapshots(BlkNode *n, GError **error)
{
    if (!n->drv->snap) {
        cannot(n, "hold snapshots; make an overlay instead", error);
        return NULL;
    }
    blk_drain_begin(n);
    GPtrArray *list = n->drv->snap->list(n, error);
    blk_drain_end(n);
    return list;
}

bool image_snapshot(BlkNode *n, const char *verb, const char *which, GError **error)
{
    const BlkSnapOps *s = n->drv->snap;
    bool ok;

    if (!s)
        return cannot(n, "hold snapshots; make an overlay instead", error);
    blk_drain_begin(n);
    if (strcmp(verb, "create") == 0)
        ok = s->create(n, which, error);
    else if (strcmp(verb, "apply") == 0)
        ok = s->apply(n, which, error);
    else
        ok = s->remove(n, which, error);
    if (ok)
        io_thread_call(n->io, limits_again, n);
    blk_drain_end(n);
    return ok;
}

/* ---- compare ---- */

typedef struct Side {
    BlkNode *n;
    BlkReq req;
    struct iovec iov;
    uint8_t *buf; /* owned */
    MapEntry known; /* the stretch looked up last */
    int err;
    GMutex *mutex; /* borrowed, both sides' */
    GCond *cond;
    bool busy; /* guarded by mutex */
} Side;

static void side_done(BlkReq *req, int err)
{
    Side *s = req->opaque;

    g_mutex_lock(s->mutex);
    s->err = err;
    s->busy = false;
    g_cond_signal(s->cond);
    g_mutex_unlock(s->mutex);
}

/* Start to read what @s has of @len bytes at @at; zeros for the rest. */
static void side_read(Side *s, uint64_t at, uint64_t len)
{
    uint64_t size = s->n->limits.size, there = at >= size ? 0 : MIN(len, size - at);

    memset(s->buf + there, 0, len - there);
    s->err = 0;
    if (!there)
        return;
    s->busy = true;
    s->iov = (struct iovec){s->buf, there};
    s->req = (BlkReq){.op = BLK_READ, .offset = at, .len = there, .iov = &s->iov, .niov = 1,
                      .done = side_done, .opaque = s};
    blk_submit(s->n, &s->req);
}

static void side_wait(Side *s)
{
    g_mutex_lock(s->mutex);
    while (s->busy)
        g_cond_wait(s->cond, s->mutex);
    g_mutex_unlock(s->mutex);
}

/* How many bytes at @at read as zeros on both sides, without reading them. A stretch is looked up
 * once: finding its end may take the host as long as it is. */
static uint64_t both_zero(Side *sides, uint64_t at, uint64_t size)
{
    uint64_t len = size - at;

    for (unsigned i = 0; i < 2; i++) {
        Side *s = &sides[i];
        uint64_t end = s->n->limits.size;
        if (at >= end)
            continue;
        if (at >= s->known.offset + s->known.len && image_map(s->n, at, end - at, &s->known) != 0)
            s->known = (MapEntry){.offset = at, .len = MIN(COMPARE_BYTES, end - at), .data = true};
        if (!s->known.zero)
            return 0;
        len = MIN(len, s->known.offset + s->known.len - at);
    }
    return len;
}

/* -1: the piece is the same; else the offset in it, or with an error -2. */
static int64_t compare_piece(Side *sides, uint64_t at, uint64_t len, GError **error)
{
    side_read(&sides[0], at, len);
    side_read(&sides[1], at, len);
    side_wait(&sides[0]);
    side_wait(&sides[1]);
    for (unsigned i = 0; i < 2; i++)
        if (sides[i].err) {
            lodge_fail_errno(error, sides[i].err, "'%s': cannot read at %" G_GUINT64_FORMAT,
                             path_of(sides[i].n), at);
            return -2;
        }
    if (memcmp(sides[0].buf, sides[1].buf, len) == 0)
        return -1;
    int64_t i = 0;
    while (sides[0].buf[i] == sides[1].buf[i])
        i++;
    return i;
}

bool image_compare(BlkNode *a, BlkNode *b, const ImageProgress *progress, bool *ret_same,
                   uint64_t *ret_offset, GError **error)
{
    uint64_t size = MAX(a->limits.size, b->limits.size), at = 0;
    GMutex mutex;
    GCond cond;
    Side sides[2] = {{.n = a}, {.n = b}};
    int64_t found = -1;

    g_mutex_init(&mutex);
    g_cond_init(&cond);
    for (unsigned i = 0; i < 2; i++) {
        sides[i].buf = g_malloc(COMPARE_BYTES);
        sides[i].mutex = &mutex;
        sides[i].cond = &cond;
    }
    while (at < size && found == -1) {
        uint64_t len = both_zero(sides, at, size);
        if (!len) {
            len = MIN(COMPARE_BYTES, size - at);
            found = compare_piece(sides, at, len, error);
        }
        if (found == -1)
            at += len;
        if (progress)
            progress->tell(progress->opaque, at, size);
    }
    g_free(sides[0].buf);
    g_free(sides[1].buf);
    g_mutex_clear(&mutex);
    g_cond_clear(&cond);
    if (found == -2)
        return false;
    *ret_same = found == -1;
    *ret_offset = at + (found > 0 ? (uint64_t)found : 0);
    return true;
}

/* ---- convert ---- */

static bool fill(const ConvertArgs *a, BlkNode *from, BlkNode *to, CopyResult *ret_result,
                 GError **error)
{
    CopyPlan p = {.from = from, .to = to, .skip_zero = !to->base, .diff = to->base != NULL,
                  .unlike = to->base, .compress = a->compress, .progress = a->progress};

    if (a->compress && !(to->drv->flags & BLK_DRV_COMPRESS))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "--compress: format %s stores nothing compressed", to->drv->name);
    if (to->limits.read_only)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "format %s: can be read, not written",
                          to->drv->name);
    return image_copy(&p, ret_result, error) && flush(to, error);
}

/* The target is on a server: it is written over, in place. */
static bool fill_remote(const ConvertArgs *a, BlkNode *from, IoThread *io,
                        CopyResult *ret_result, GError **error)
{
    BlkOptions o = {.file = a->to.file, .format = "raw"};
    CopyPlan p = {.from = from, .progress = a->progress};

    if (a->to.base || a->compress || (a->to.format && strcmp(a->to.format, "raw") != 0))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': is on a server, where only a raw disk can be written", o.file);
    if (!a->to.overwrite)
        return lodge_fail(error, LODGE_ERROR_EXISTS,
                          "'%s': is there already; --force writes over it", o.file);
    g_autoptr(BlkNode) to = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, io, error);
    if (!to)
        return false;
    if (to->limits.size < from->limits.size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': has %" G_GUINT64_FORMAT " bytes, less than the source's "
                          "%" G_GUINT64_FORMAT, o.file, to->limits.size, from->limits.size);
    p.to = to;
    return image_copy(&p, ret_result, error) && flush(to, error);
}

bool image_convert(const ConvertArgs *a, IoThread *io_from, IoThread *io_to,
                   CopyResult *ret_result, GError **error)
{
    BlkOptions o = {.file = a->from, .format = a->from_format, .read_only = true};
    g_autoptr(BlkNode) from = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, io_from, error);
    g_autoptr(GPtrArray) files = NULL;
    BlkMake make = a->to;

    if (!from)
        return false;
    if (blk_is_remote(make.file))
        return fill_remote(a, from, io_to, ret_result, error);
    uint64_t size = blk_base_info(from, NULL, NULL).size; /* exact, for raw */
    if (!make.size && !make.base)
        make.size = size;
    BlkNode *to = blk_make_begin(&make, BLK_CACHE_UNSAFE, io_to, &files, error);
    if (!to)
        return false;
    bool ok = true;
    if (to->limits.size < from->limits.size)
        ok = lodge_fail(error, LODGE_ERROR_CONFIG,
                        "'%s': has %" G_GUINT64_FORMAT " bytes, less than the source's "
                        "%" G_GUINT64_FORMAT, make.file, to->limits.size, from->limits.size);
    ok = ok && fill(a, from, to, ret_result, error);
    /* The last sector may have made a raw file longer than it is to be. */
    if (ok && to->drv == &blk_driver_raw) {
        int err = blk_file_truncate((BlkFile *)to->file, make.size);
        if (err)
            ok = lodge_fail_errno(error, err, "'%s': cannot give it its size", make.file);
    }
    blk_close(to);
    for (guint i = 0; i < files->len; i++)
        ((BlkNewFile *)g_ptr_array_index(files, i))->lazy = !a->sync;
    return ok && blk_make_finish(files, make.overwrite, error);
}

/* ---- commit ---- */

bool image_follow_base(BlkNode *n, GError **error)
{
    BlkFile *base = blk_file_under(n->base);
    struct stat st;

    if (!n->drv->set_base || !(n->drv->flags & BLK_DRV_CHECKS_BASE))
        return true;
    if (!base->remote && stat(base->path, &st) < 0)
        return lodge_fail_errno(error, errno, "'%s': cannot stat", base->path);
    if (!base->remote)
        base->mtime = (uint32_t)st.st_mtime;
    BlkBaseInfo info = blk_base_info(n->base, n->ref.path, base->path);
    blk_drain_begin(n);
    bool ok = n->drv->set_base(n, &info, error);
    blk_drain_end(n);
    return ok;
}

bool image_commit(BlkNode *n, bool keep, const ImageProgress *progress, CopyResult *ret_result,
                  GError **error)
{
    CopyPlan p = {.from = n, .to = n->base, .top_only = true, .progress = progress};

    if (!n->base)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': has no base to commit to", path_of(n));
    if (n->base->limits.size < n->limits.size &&
        !image_resize(n->base, n->limits.size, false, error))
        return false;
    if (!image_copy(&p, ret_result, error) || !flush(n->base, error) ||
        !image_follow_base(n, error))
        return false;
    if (keep || !n->drv->make_empty)
        return flush(n, error);
    blk_drain_begin(n);
    bool ok = n->drv->make_empty(n, error);
    blk_drain_end(n);
    return ok && flush(n, error);
}

/* ---- rebase ---- */

static bool set_base(BlkNode *n, const BlkBaseInfo *info, GError **error)
{
    if (!n->drv->set_base)
        return cannot(n, "record another base", error);
    blk_drain_begin(n);
    bool ok = n->drv->set_base(n, info, error);
    blk_drain_end(n);
    return ok && flush(n, error);
}

/* The new base, open for reading. */
static BlkNode *open_new_base(const RebaseArgs *a, IoThread *io, GError **error)
{
    const char *format = a->base_format ? a->base_format : "raw";
    BlkOptions o = {.file = a->base, .format = a->base_format, .read_only = true};
    BlkNode *n = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, io, error);

    /* As everywhere, a base is not probed to anything but raw. */
    if (n && !a->base_format && strcmp(n->drv->name, format) != 0) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "base '%s': is a %s image; say so by --base-format %s", a->base, n->drv->name,
                   n->drv->name);
        blk_close(n);
        return NULL;
    }
    return n;
}

bool image_rebase(const RebaseArgs *a, IoThread *io, CopyResult *ret_result, GError **error)
{
    BlkOptions o = {.file = a->file, .format = a->format, .base_format = a->old_base_format,
                    .tap = a->tap};
    unsigned flags = BLK_OPEN_QUIET | (a->unsafe ? BLK_OPEN_NO_BASE : 0);
    g_autoptr(BlkNode) base = NULL;
    BlkBaseInfo info = {0};
    struct stat st;
    bool gone = a->base && a->unsafe && !blk_is_remote(a->base) && stat(a->base, &st) < 0;

    if (a->base && !gone && !(base = open_new_base(a, io, error)))
        return false;
    for (BlkNode *b = base; b; b = b->base)
        if (stat(a->file, &st) == 0 && st.st_dev == blk_file_under(b)->dev &&
            st.st_ino == blk_file_under(b)->ino)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "'%s': would be its own base: it is '%s', or below that", a->file,
                              a->base);
    g_autoptr(BlkNode) n = blk_open_flags(NULL, &o, flags, io, error);
    if (!n)
        return false;
    g_autofree char *record = a->base ? blk_record_path(n->drv, a->file, a->base) : NULL;
    if (base)
        info = blk_base_info(base, record, a->base);
    else if (a->base)
        info = (BlkBaseInfo){.path = record, .full = a->base,
                             .format = a->base_format ? a->base_format : "raw"};
    CopyPlan p = {.from = n, .to = n, .unlike = base, .diff = true, .below_only = true,
                  .ordered = true,
                  .progress = a->progress};
    if (!n->drv->set_base)
        return cannot(n, "record another base", error);
    if (!a->base && n->drv->flags & BLK_DRV_NEEDS_BASE)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': format %s is for overlays; convert the image to have no base",
                          a->file, n->drv->name);
    if (base && n->drv->flags & BLK_DRV_NEEDS_BASE && info.size != n->ref.size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': its base must have %" G_GUINT64_FORMAT " bytes; '%s' has "
                          "%" G_GUINT64_FORMAT, a->file, n->ref.size, a->base, info.size);
    if (!a->unsafe && (!image_copy(&p, ret_result, error) || !flush(n, error)))
        return false;
    return set_base(n, a->base ? &info : NULL, error);
}
