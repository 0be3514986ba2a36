/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From what the operator said to a stack of nodes: which format, which base, made now or before,
 * locked, checked against each other.
 *
 *   raw:       raw -> file            overlay:  umlcow -> file
 *                                                      -> base: raw -> file, read-only
 *   snapshot:  umlcow -> unlinked file
 *                     -> base: one of the above, read-only
 *
 * A new overlay is complete and on the disk before it gets its name (O_TMPFILE and linkat, or a
 * temporary name beside it), and is locked from the start through the very descriptor that goes on
 * being used. Having a name is the last step that can fail.
 *
 * An overlay records its base's path, size and time of modification. As in User-Mode Linux a base
 * that differs in the latter two is refused: the overlay's sectors would be mixed with others than
 * those they replaced. base= naming another file that fits is taken, and noted in the header.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "block_int.h"
#include "cow_header.h"

#define OVERLAY_MODE 0644
#define NAME_TRIES 16u
#define SNAPSHOT_DIR "/var/tmp" /* without TMPDIR: /tmp is memory on many hosts */

typedef struct Opener {
    const char *name;
    const BlkOptions *o;
    IoThread *io;
    BlkEngine *engine;
} Opener;

static BlkFile *open_file(Opener *op, const char *path, bool read_only, bool is_base, int fd,
                          GError **error)
{
    BlkFileOpen fo = {.path = path, .read_only = read_only, .cache = op->o->cache,
                      .holder = op->o->holder, .is_base = is_base};

    return blk_file_open(op->name, &fo, fd, op->io, op->engine, error);
}

static bool go_direct(Opener *op, BlkFile *f, GError **error)
{
    return op->o->cache != BLK_CACHE_NONE || blk_file_set_direct(f, error);
}

/* ---- bases ---- */

/* The base of an overlay: raw bytes, never written. Locked for reading. */
static BlkFile *open_base(Opener *op, const char *path, GError **error)
{
    uint8_t head[BLK_PROBE_BYTES];
    BlkFile *f = open_file(op, path, true, true, -1, error);

    if (!f)
        return NULL;
    if (!blk_file_pread(f, head, sizeof head, 0, error)) {
        blk_node_free(&f->node);
        return NULL;
    }
    const char *format = blk_probe_format(head);
    if (format) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "base '%s': is a %s image; an overlay needs a raw base%s", path, format,
                   strcmp(format, "umlcow") == 0 ? ", so merge it first (uml_moo)" : "");
        blk_node_free(&f->node);
        return NULL;
    }
    return f;
}

/* @path as the header records it: absolute, the folder resolved, the last name as it is. */
static char *absolute_path(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    g_autofree char *base = g_path_get_basename(path);
    char *real = realpath(dir, NULL);
    char *all = real ? g_build_filename(real, base, NULL) : g_canonicalize_filename(path, NULL);

    free(real);
    return all;
}

/* ---- new overlays ---- */

typedef struct NewFile {
    int fd;
    char *temp; /* owned; its name, or NULL: it has none */
} NewFile;

static bool no_tmpfile(int err)
{
    return err == EOPNOTSUPP || err == EISDIR || err == EINVAL || err == ENOENT;
}

static bool new_file(const char *path, NewFile *ret, GError **error)
{
    g_autofree char *dir = g_path_get_dirname(path);
    g_autofree char *base = g_path_get_basename(path);

    ret->temp = NULL;
    ret->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, OVERLAY_MODE);
    if (ret->fd >= 0)
        return true;
    for (unsigned i = 0; no_tmpfile(errno) && i < NAME_TRIES; i++) {
        g_autofree char *temp =
            g_strdup_printf("%s/.%.200s.%08x", dir, base, g_random_int());
        ret->fd = open(temp, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, OVERLAY_MODE);
        if (ret->fd >= 0) {
            ret->temp = g_steal_pointer(&temp);
            return true;
        }
        if (errno != EEXIST)
            break;
        errno = EINVAL; /* another name */
    }
    return lodge_fail_errno(error, errno, "'%s': cannot make the overlay in '%s'", path, dir);
}

/* Give the file its name. Return: 0 or errno; EEXIST when somebody was faster. */
static int publish(const NewFile *nf, const char *path)
{
    g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", nf->fd);

    if (!nf->temp)
        return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
    if (link(nf->temp, path) == 0) {
        unlink(nf->temp);
        return 0;
    }
    if (errno == EEXIST)
        return EEXIST;
    return renameat2(AT_FDCWD, nf->temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0 ? 0 : errno;
}

static bool fill_overlay(int fd, const CowLayout *l, const char *path, GError **error)
{
    uint8_t head[COW_HEADER_MAX];
    size_t len = cow_header_build(l, head);
    ssize_t r = pwrite(fd, head, len, 0);

    if (r != (ssize_t)len)
        return lodge_fail_errno(error, r < 0 ? errno : ENOSPC, "'%s': cannot write", path);
    if (ftruncate(fd, l->data_offset + l->size) < 0 || fdatasync(fd) < 0)
        return lodge_fail_errno(error, errno, "'%s': cannot give it its size", path);
    return true;
}

/* Make the overlay of @base (borrowed). NULL with *ret_exists: it has come to be meanwhile. */
static BlkFile *create_overlay(Opener *op, BlkFile *base, CowLayout *l, bool *ret_exists,
                               GError **error)
{
    const char *path = op->o->file;
    g_autofree char *backing = absolute_path(op->o->base);
    NewFile nf;

    if (!cow_layout_init(backing, base->size, base->mtime, l, error) ||
        !new_file(path, &nf, error))
        return NULL;
    g_autofree char *temp = nf.temp;
    if (!fill_overlay(nf.fd, l, path, error)) {
        close(nf.fd);
        if (temp)
            unlink(temp);
        return NULL;
    }
    BlkFile *f = open_file(op, path, false, false, nf.fd, error);
    if (f && !go_direct(op, f, error)) {
        blk_node_free(&f->node);
        f = NULL;
    }
    int err = f ? publish(&nf, path) : 0;
    if (!f || err) {
        if (temp)
            unlink(temp);
        *ret_exists = err == EEXIST;
        if (err && err != EEXIST)
            lodge_fail_errno(error, err, "'%s': cannot make the overlay", path);
        if (f)
            blk_node_free(&f->node);
        return NULL;
    }
    lodge_note("disk %s: made '%s' as an overlay of '%s'", op->name, path, op->o->base);
    return f;
}

static BlkNode *open_new_overlay(Opener *op, bool *ret_exists, GError **error)
{
    g_autofree CowLayout *l = g_new0(CowLayout, 1);
    BlkFile *base = open_base(op, op->o->base, error);

    if (!base)
        return NULL;
    BlkFile *f = create_overlay(op, base, l, ret_exists, error);
    if (!f || !go_direct(op, base, error)) {
        if (f) {
            unlink(op->o->file);
            blk_node_free(&f->node);
        }
        blk_node_free(&base->node);
        return NULL;
    }
    return blk_umlcow_new(op->name, &f->node, blk_raw_new(op->name, &base->node, false), l, false);
}

/* ---- overlays that are there ---- */

/* The path of the header's base as seen from here; relative ones are beside the overlay. */
static char *header_base(const CowLayout *l, const char *overlay)
{
    if (g_path_is_absolute(l->backing))
        return g_strdup(l->backing);
    g_autofree char *dir = g_path_get_dirname(overlay);
    return g_build_filename(dir, l->backing, NULL);
}

static bool check_base(const BlkFile *base, const CowLayout *l, const char *overlay,
                       GError **error)
{
    if (base->size != l->size)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': Size mismatch (%" G_GUINT64_FORMAT " vs %" G_GUINT64_FORMAT
                          ") of COW header vs backing file '%s'; give the base it was made with, "
                          "or start a new overlay",
                          overlay, l->size, base->size, base->path);
    if (base->mtime != l->mtime)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': mtime mismatch (%u vs %u) of COW header vs backing file '%s'; "
                          "the base was changed since: restore it, or start a new overlay "
                          "(if only its time changed: touch -d @%u)",
                          overlay, l->mtime, base->mtime, base->path, l->mtime);
    return true;
}

/* base= names another file than the header, and fits: the header follows. */
static bool switch_base(BlkFile *f, BlkFile *base, CowLayout *l, GError **error)
{
    g_autofree char *backing = absolute_path(base->path);
    uint8_t head[COW_HEADER_MAX];
    struct stat st;
    g_autofree char *old = header_base(l, f->path);

    if (stat(old, &st) == 0 && st.st_dev == base->dev && st.st_ino == base->ino)
        return true;
    if (strlen(backing) >= sizeof l->backing)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "base '%.40s...': its path is too long",
                          backing);
    g_strlcpy(l->backing, backing, sizeof l->backing);
    if (!blk_file_pwrite(f, head, cow_header_build(l, head), 0, error))
        return false;
    lodge_note("disk %s: '%s': Switching backing file to '%s' (was '%s')", f->node.name, f->path,
               backing, old);
    return true;
}

static bool check_overlay(const BlkFile *f, const CowLayout *l, bool read_only, BlkCache cache,
                          GError **error)
{
    uint64_t least = l->data_offset + l->size;

    if (f->size < least)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': is cut off at offset %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
                          "; restore it from a full copy",
                          f->path, f->size, least);
    if (!read_only && (l->kind == COW_V1 || l->kind == COW_V2))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': is a version %d COW file, for reading only; add ,ro or merge it "
                          "(uml_moo)",
                          f->path, l->kind == COW_V1 ? 1 : 2);
    if (cache == BLK_CACHE_NONE && l->data_offset % COW_ALIGNMENT)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': its data is not aligned to %u bytes; leave cache=none out",
                          f->path, COW_ALIGNMENT);
    return true;
}

/* @f is taken over in every case. */
static BlkNode *open_overlay(Opener *op, BlkFile *f, bool read_only, GError **error)
{
    uint8_t head[COW_HEADER_MAX];
    g_autofree CowLayout *l = g_new0(CowLayout, 1);
    BlkFile *base = NULL;

    if (blk_file_pread(f, head, sizeof head, 0, error) &&
        cow_header_parse(head, MIN(sizeof head, f->size), f->path, l, error) &&
        check_overlay(f, l, read_only, op->o->cache, error)) {
        g_autofree char *path = op->o->base ? g_strdup(op->o->base) : header_base(l, f->path);
        base = open_base(op, path, error);
    }
    if (!base || !check_base(base, l, f->path, error) ||
        (op->o->base && !read_only && !switch_base(f, base, l, error)) ||
        !go_direct(op, f, error) || !go_direct(op, base, error)) {
        if (base)
            blk_node_free(&base->node);
        blk_node_free(&f->node);
        return NULL;
    }
    return blk_umlcow_new(op->name, &f->node, blk_raw_new(op->name, &base->node, false), l,
                          read_only);
}

/* ---- whole disks ---- */

/* The format of @f, given or by its first bytes; NULL with an error. */
static const char *choose_format(Opener *op, BlkFile *f, bool *ret_guessed, GError **error)
{
    uint8_t head[BLK_PROBE_BYTES];
    const char *format = op->o->format;

    *ret_guessed = !format;
    if (!format) {
        if (!blk_file_pread(f, head, sizeof head, 0, error))
            return NULL;
        format = blk_probe_format(head);
        if (!format)
            format = "raw";
        if (!blk_driver_find(format)) {
            lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                       "'%s': is a %s image, which is not supported; convert it to raw (qemu-img "
                       "convert -O raw), or give format=raw to use its bytes as they are",
                       f->path, format);
            return NULL;
        }
    }
    if (op->o->base && strcmp(format, "raw") == 0) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "'%s': is there already and is no overlay; leave base= out, or name another "
                   "file for the overlay",
                   f->path);
        return NULL;
    }
    return format;
}

static BlkNode *open_existing(Opener *op, bool read_only, GError **error)
{
    BlkFile *f = open_file(op, op->o->file, read_only, false, -1, error);
    bool guessed;

    if (!f)
        return NULL;
    const char *format = choose_format(op, f, &guessed, error);
    if (format && strcmp(format, "umlcow") == 0)
        return open_overlay(op, f, read_only, error);
    if (!format || !go_direct(op, f, error)) {
        blk_node_free(&f->node);
        return NULL;
    }
    return blk_raw_new(op->name, &f->node, guessed && !read_only);
}

/* A disk whose writes are forgotten: an overlay without a name. @lower is taken over. */
static BlkNode *add_snapshot(Opener *op, BlkNode *lower, GError **error)
{
    const char *dir = g_getenv("TMPDIR");
    g_autofree CowLayout *l = g_new0(CowLayout, 1);
    BlkFileOpen fo = {.path = "snapshot", .cache = BLK_CACHE_UNSAFE, .no_lock = true};
    g_autofree char *place = NULL;
    NewFile nf;

    if (!dir || !*dir)
        dir = g_file_test(SNAPSHOT_DIR, G_FILE_TEST_IS_DIR) ? SNAPSHOT_DIR : g_get_tmp_dir();
    place = g_build_filename(dir, "lodge-snapshot", NULL);
    if (!cow_layout_init("snapshot", lower->limits.size, 0, l, error) ||
        !new_file(place, &nf, error)) {
        blk_node_free(lower);
        return NULL;
    }
    if (nf.temp)
        unlink(nf.temp);
    g_free(nf.temp);
    if (ftruncate(nf.fd, l->data_offset + l->size) < 0) {
        lodge_fail_errno(error, errno, "snapshot=on: cannot make a temporary file in '%s'", dir);
        close(nf.fd);
        blk_node_free(lower);
        return NULL;
    }
    BlkFile *f = blk_file_open(op->name, &fo, nf.fd, op->io, op->engine, error);
    if (!f) {
        blk_node_free(lower);
        return NULL;
    }
    return blk_umlcow_new(op->name, &f->node, lower, l, false);
}

static bool check_options(const BlkOptions *o, GError **error)
{
    if (!o->file || !*o->file)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "no file named; give file=PATH");
    if (o->format && !blk_driver_find(o->format))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "format '%s': not known; raw or umlcow are",
                          o->format);
    if (o->base && !*o->base)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': base= is empty; name a file", o->file);
    return true;
}

static BlkNode *open_all(Opener *op, GError **error)
{
    const BlkOptions *o = op->o;
    struct stat st;
    BlkNode *n = NULL;
    bool missing = o->base && stat(o->file, &st) < 0 && errno == ENOENT;
    bool exists = false;

    if (missing && o->snapshot) {
        /* Nothing to keep, so nothing is made. */
        BlkFile *base = open_base(op, o->base, error);
        if (base && !go_direct(op, base, error)) {
            blk_node_free(&base->node);
            base = NULL;
        }
        n = base ? blk_raw_new(op->name, &base->node, false) : NULL;
    } else if (missing && !o->read_only) {
        n = open_new_overlay(op, &exists, error);
        if (!n && exists)
            n = open_existing(op, false, error);
    } else {
        n = open_existing(op, o->read_only || o->snapshot, error);
    }
    return n && o->snapshot ? add_snapshot(op, n, error) : n;
}

BlkNode *blk_open(const char *name, const BlkOptions *o, IoThread *io, GError **error)
{
    g_autoptr(BlkEngine) engine = NULL;
    BlkNode *n = NULL;

    if (check_options(o, error)) {
        engine = blk_engine_new(io, o->aio, error);
        if (engine)
            n = open_all(&(Opener){name, o, io, engine}, error);
    }
    if (!n)
        g_prefix_error(error, "disk %s: ", name);
    return n;
}
