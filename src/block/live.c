/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images put on top of a disk that runs, and other sizes of it.
 *
 * An overlay is made while the front is drained, so that the image below it stands still: what that
 * one holds back is written, it is opened once more for reading, the overlay is made over that and
 * gets its name, which is the last step that can fail. Only then the writer goes. Until then its
 * lock is a writer's, so nobody else can have come in when something goes wrong; afterwards it is
 * turned into a reader's without a moment in which there is none.
 *
 * Opening an image once more, rather than telling the node that it may write no more, leaves all
 * that a format does at its opening in one place. What lies below it is handed on as it is open.
 *
 * Threads: main.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/iothread.h"

#include "image_ops.h"
#include "live.h"
#include "open_int.h"

static void nothing(void *opaque)
{
}

int blk_settle(BlkNode *n)
{
    int err = blk_flush(n);

    if (!err && n->drv->settle)
        err = n->drv->settle(n);
    io_thread_call(n->io, nothing, NULL); /* what was posted for the node has run after this */
    return err;
}

/* ---- an image once more ---- */

BlkNode *blk_again(BlkFront *f, BlkNode *old, bool writable, GError **error)
{
    const BlkFile *was = blk_file_under(old);
    BlkOptions o = {.file = was->path, .cache = f->cache, .metadata_cache = f->meta_bytes,
                    .holder = f->holder};
    BlkOpener op = {.name = f->node.name, .o = &o, .flags = BLK_OPEN_QUIET, .io = f->node.io,
                    .engine = f->node.engine};
    BlkFileOpen fo = {.path = was->path, .read_only = !writable, .cache = f->cache,
                      .holder = f->holder, .is_base = true, .no_lock = true, .empty_ok = true};
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", was->meta_fd);
    if (was->remote) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "'%s': is on a server, where it cannot be opened once more while the disk runs; "
                   "end the machine first", was->path);
        return NULL;
    }
    int fd = open(self, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);

    if (fd < 0) {
        int err = errno;
        if (err == EACCES || err == EPERM || err == EROFS)
            lodge_fail(error, LODGE_ERROR_CONFIG,
                       "'%s': cannot be written (%s); check who may write it", was->path,
                       g_strerror(err));
        else
            lodge_fail_errno(error, err, "'%s': cannot open it once more", was->path);
        return NULL;
    }
    BlkFile *file = blk_file_open(f->node.name, &fo, fd, f->node.io, f->node.engine, error);
    if (!file)
        return NULL;
    file->tap = writable ? f->tap : NULL;
    OpenImage im = {.drv = old->drv, .read_only = !writable, .guessed = old->guessed,
                    .cache = f->cache, .base = old->base, .keep_base = true};
    BlkNode *n = opener_image(&op, file, &im, error);
    if (n && n->limits.size != old->limits.size) {
        lodge_fail(error, LODGE_ERROR_IMAGE, "'%s': has another size than a moment ago",
                   was->path);
        blk_again_drop(n);
        n = NULL;
    }
    return n;
}

void blk_again_drop(BlkNode *again)
{
    if (!again)
        return;
    again->base = NULL; /* it is the other one's */
    blk_node_free(again);
}

void blk_again_take(BlkNode *old, BlkNode *again)
{
    io_thread_call(old->io, nothing, NULL); /* as in blk_settle() */
    old->base = NULL;
    blk_node_free(old);
}

/* ---- locks ---- */

static void lock_as(BlkNode *n, short type)
{
    BlkFile *f = blk_file_under(n);

    image_lock_change(f->fd, type);
    f->locked = type != F_UNLCK;
}

void blk_lock_down(BlkNode *old, BlkNode *again)
{
    lock_as(old, F_RDLCK);
    lock_as(again, F_RDLCK);
}

bool blk_lock_up(BlkFront *f, BlkNode *old, BlkNode *again, GError **error)
{
    const BlkFile *file = blk_file_under(again);

    lock_as(again, F_RDLCK);
    lock_as(old, F_UNLCK);
    if (image_lock(file->fd, file->path, true, f->holder, error))
        return true;
    lock_as(old, F_RDLCK);
    return false;
}

/* ---- an overlay ---- */

/* What the new image says of its base when it is opened by itself must lead there. */
static bool can_be_base(const BlkFront *f, GError **error)
{
    const BlkNode *top = f->node.top;
    const char *path = blk_file_under((BlkNode *)top)->path;

    if (f->nameless)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "its writes go to a file without a name (snapshot=on), which can be no "
                          "base; leave snapshot=on out");
    if (f->node.read_only)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': is read-only here, so an overlay would stay empty; leave ,ro out",
                          path);
    if (blk_file_under((BlkNode *)top)->remote)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': a network disk cannot become a base while it is written; stop the "
                          "machine and start it with file=OVERLAY,base=%s", path, path);
    if (top->base && !top->ref.format && top->base->drv != &blk_driver_raw)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': does not record that its base is a %s image, so below an overlay "
                          "it could not be opened again; take a format that records it, as qcow2",
                          path, top->base->drv->name);
    return true;
}

/* An image that was made before, for instance by qemu-img create -b. */
static BlkNode *open_existing(BlkOpener *op, BlkNode *base, GError **error)
{
    const BlkOptions *o = op->o;
    OpenImage im = {.drv = blk_driver_find(o->format), .cache = o->cache, .base = base,
                    .keep_base = true};
    const BlkFile *under = blk_file_under(base);
    struct stat st;

    for (BlkNode *n = base; n && stat(o->file, &st) == 0; n = n->base)
        if (st.st_dev == blk_file_under(n)->dev && st.st_ino == blk_file_under(n)->ino) {
            lodge_fail(error, LODGE_ERROR_CONFIG,
                       "'%s': is in the disk's chain already; name another file", o->file);
            return NULL;
        }
    BlkFile *file = opener_file(op, o->file, 0, -1, error);
    BlkNode *n = file ? opener_image(op, file, &im, error) : NULL;
    if (!n)
        return NULL;
    g_autofree char *recorded = n->ref.path ? blk_base_path(o->file, n->ref.path) : NULL;
    bool right = recorded && stat(recorded, &st) == 0 && st.st_dev == under->dev &&
                 st.st_ino == under->ino;
    if (!right)
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "'%s': records '%s' as its base, and not the disk's image '%s'; make it with "
                   "that one", o->file, recorded ? recorded : "nothing", under->path);
    else if (n->limits.size != base->limits.size)
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "'%s': has %" G_GUINT64_FORMAT " bytes, and the disk %" G_GUINT64_FORMAT
                   "; make it of the same size", o->file, n->limits.size, base->limits.size);
    else if (n->ref.format ? strcmp(n->ref.format, base->drv->name) != 0
                           : base->drv != &blk_driver_raw)
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "'%s': records its base as %s, and that is %s; give the right format when "
                   "making it", o->file, n->ref.format ? n->ref.format : "raw", base->drv->name);
    else
        return n;
    blk_again_drop(n);
    return NULL;
}

/* The image on top of @base; it owns that then. */
static BlkNode *make_overlay(BlkFront *f, const BlkOverlayArgs *a, BlkNode *base, GError **error)
{
    BlkOptions o = {.file = a->file, .format = a->format, .cache = f->cache,
                    .metadata_cache = f->meta_bytes, .holder = f->holder, .tap = f->tap};
    BlkOpener op = {.name = f->node.name, .o = &o, .flags = BLK_OPEN_QUIET, .io = f->node.io,
                    .engine = f->node.engine, .depth = 0};
    g_autoptr(GPtrArray) files = NULL;
    struct stat st;

    if (a->existing)
        return open_existing(&op, base, error);
    if (stat(a->file, &st) == 0) {
        lodge_fail(error, LODGE_ERROR_EXISTS,
                   "'%s': is there already; name a file that is not", a->file);
        return NULL;
    }
    BlkNode *n = opener_live_overlay(&op, base, &files, error);
    if (!n)
        return NULL;
    if (n->limits.size != base->limits.size)
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "'%s': a %s image cannot have the disk's %" G_GUINT64_FORMAT
                   " bytes; take another format", a->file, n->drv->name, base->limits.size);
    else if (blk_make_finish(files, false, error))
        return n;
    n->base = NULL;
    blk_node_free(n);
    return NULL;
}

/* The front is drained. */
static bool overlay_at_rest(BlkFront *f, const BlkOverlayArgs *a, GError **error)
{
    BlkNode *old = f->node.top;
    int err = blk_settle(old);

    if (err)
        return lodge_fail_errno(error, err, "'%s': cannot write", blk_file_under(old)->path);
    BlkNode *base = blk_again(f, old, false, error);
    BlkNode *top = base ? make_overlay(f, a, base, error) : NULL;
    if (!top) {
        blk_again_drop(base);
        return false;
    }
    blk_lock_down(old, base);
    blk_sides_detach(&f->node); /* their ways lead past the overlay */
    blk_front_set_top(f, top);
    blk_again_take(old, base);
    return true;
}

static bool find_front(BlkNode *disk, BlkFront **ret, GError **error)
{
    *ret = blk_front(disk);
    if (*ret && (*ret)->job)
        return lodge_fail(error, LODGE_ERROR_BUSY,
                          "disk %s: its top image is being merged; wait for that, or cancel it",
                          disk->name);
    return *ret || lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "disk %s: its image is fixed",
                              disk->name);
}

bool blk_overlay(BlkNode *disk, const BlkOverlayArgs *a, GError **error)
{
    BlkOverlayArgs args = *a;
    BlkFront *f;
    bool ok = false;

    if (!find_front(disk, &f, error))
        return false;
    if (!args.format)
        args.format = strcmp(f->node.top->drv->name, "umlcow") == 0 ? "umlcow" : "qcow2";
    if (!blk_driver_find(args.format)) {
        g_autofree char *names = blk_driver_names();
        lodge_fail(error, LODGE_ERROR_CONFIG, "format '%s': not known; it can be %s", args.format,
                   names);
    } else if (can_be_base(f, error)) {
        blk_drain_begin(disk);
        ok = overlay_at_rest(f, &args, error);
        blk_drain_end(disk);
    }
    if (!ok)
        g_prefix_error(error, "disk %s: ", disk->name);
    return ok;
}

/* ---- size ---- */

bool blk_disk_resize(BlkNode *disk, uint64_t size, bool shrink, GError **error)
{
    BlkFront *f;

    if (!find_front(disk, &f, error))
        return false;
    blk_drain_begin(disk);
    bool ok = f->node.read_only
                  ? lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': is read-only here; leave ,ro out",
                               blk_file_under(f->node.top)->path)
                  : image_resize(f->node.top, size, shrink, error);
    if (ok)
        blk_front_set_top(f, f->node.top);
    blk_drain_end(disk);
    if (!ok)
        g_prefix_error(error, "disk %s: ", disk->name);
    return ok;
}
