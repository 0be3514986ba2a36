/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From what the operator said to a stack of nodes: which format, which base, locked, checked
 * against each other. make.c makes new images. What is special to a format is in its driver.
 *
 *   raw:       raw -> file            overlay:  FORMAT -> file
 *                                                      -> base: any of these, read-only
 *   snapshot:  umlcow -> unlinked file
 *                     -> base: one of the above, read-only
 *
 * An image may have been made by somebody else to harm: the base that it records is opened only if
 * it is a plain file that is not in the chain yet, and is read in the format that the image
 * records, or as raw where it records none. An image of another format is refused there rather than
 * probed: a guest that writes a raw base's first bytes would choose files of the host. What the
 * operator names with base= and base-format= is taken at its word.
 *
 * A format that can tell a wrong base from the right one (BLK_DRV_CHECKS_BASE) follows base= to
 * another place and notes it in the header. The others take base= only where it is the recorded
 * file, or where that is gone, and note nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/diag.h"

#include "open_int.h"

BlkFile *opener_file(BlkOpener *op, const char *path, unsigned role, int fd, GError **error)
{
    BlkFileOpen fo = {.path = path, .read_only = role & ROLE_READ, .cache = op->o->cache,
                      .holder = op->o->holder, .is_base = role & ROLE_BASE,
                      .no_lock = op->flags & BLK_OPEN_UNLOCKED, .empty_ok = role & ROLE_EMPTY_OK};
    BlkFile *f = blk_file_open(op->name, &fo, fd, op->io, op->engine, error);

    if (f && op->depth < BLK_CHAIN_MAX)
        op->seen[op->depth] = (BlkSeen){f->dev, f->ino};
    if (f && !(role & ROLE_BASE))
        f->tap = op->o->tap;
    return f;
}

/* What writes by sectors cannot be had where blocks are larger and no cache is in between. */
static bool check_blocks(const BlkFile *f, const BlkDriver *drv, GError **error)
{
    if (f->align == BLK_SECTOR || drv == &blk_driver_raw)
        return true;
    if (f->remote)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': its server takes blocks of %u bytes, and format %s writes by %u; "
                          "let the server read the format, and use it as raw",
                          f->path, f->align, drv->name, BLK_SECTOR);
    return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "'%s': its device has blocks of %u bytes, and format %s writes by %u; leave "
                      "cache=none out",
                      f->path, f->align, drv->name, BLK_SECTOR);
}

static bool go_direct(BlkOpener *op, BlkFile *f, const BlkDriver *drv, GError **error)
{
    if (f->remote)
        return check_blocks(f, drv, error);
    return op->o->cache != BLK_CACHE_NONE || f->unsafe ||
           (blk_file_set_direct(f, error) && check_blocks(f, drv, error));
}

BlkFile *blk_file_under(BlkNode *n)
{
    while (n->file)
        n = n->file;
    return (BlkFile *)n;
}

BlkBaseInfo blk_base_info(BlkNode *n, const char *path, const char *full)
{
    const BlkFile *f = blk_file_under(n);

    return (BlkBaseInfo){.path = path, .full = full, .format = n->drv->name,
                         .size = n->drv == &blk_driver_raw ? f->size : n->limits.size,
                         .mtime = f->mtime, .node = n};
}

char *blk_base_path(const char *image, const char *path)
{
    if (g_path_is_absolute(path) || blk_is_remote(path))
        return g_strdup(path);
    g_autofree char *dir = g_path_get_dirname(image);
    return strcmp(dir, ".") == 0 ? g_strdup(path) : g_build_filename(dir, path, NULL);
}

BlkFile *blk_open_beside(BlkNode *n, const BlkOpenHow *how, const char *path, GError **error)
{
    BlkOpener *op = how->opener;
    unsigned role = (how->read_only ? ROLE_READ : 0) | ROLE_EMPTY_OK;
    g_autofree char *full = blk_base_path(blk_file_under(n)->path, path);
    struct stat st;
    int fd = -1;

    if (blk_is_remote(path)) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': a part of an image cannot be elsewhere",
                   path);
        return NULL;
    }
    for (guint i = 0; op->making && i < op->making->len; i++) {
        const BlkNewFile *nf = g_ptr_array_index(op->making, i);
        if (strcmp(nf->path, full) == 0)
            fd = fcntl(nf->fd, F_DUPFD_CLOEXEC, 0);
    }
    if (fd < 0 && stat(full, &st) == 0 && !S_ISREG(st.st_mode)) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': is no regular file", full);
        return NULL;
    }
    BlkFileOpen fo = {.path = full, .read_only = role & ROLE_READ, .cache = how->cache,
                      .holder = op->o->holder, .no_lock = op->flags & BLK_OPEN_UNLOCKED,
                      .empty_ok = true};
    BlkFile *f = blk_file_open(op->name, &fo, fd, op->io, op->engine, error);
    if (f && how->cache == BLK_CACHE_NONE &&
        !(blk_file_set_direct(f, error) && check_blocks(f, n->drv, error))) {
        blk_node_free(&f->node);
        f = NULL;
    }
    return f;
}

/* ---- formats ---- */

#define PROBE_TAIL_MIN (BLK_SECTOR - 1) /* old footers of VHD end one byte before a sector does */

/* The format of @f by its bytes, "raw" if it is none that is known; NULL with an error. */
static const char *probe_file(BlkFile *f, GError **error)
{
    BlkProbe p = {{0}, {0}};

    if (!blk_file_pread(f, p.head, sizeof p.head, 0, error))
        return NULL;
    /* A footer begins where a sector does: the guard of raw images sees whole sectors. */
    size_t end = f->size % BLK_SECTOR == 0 ? sizeof p.tail : f->size % BLK_SECTOR;
    if (f->size >= sizeof p.tail && end >= PROBE_TAIL_MIN &&
        !blk_file_pread(f, p.tail, end, f->size - end, error))
        return NULL;
    const char *format = blk_probe_format(&p);
    return format ? format : "raw";
}

/* The driver of the top image @f, given or probed. */
static const BlkDriver *choose_format(BlkOpener *op, BlkFile *f, bool *ret_guessed, GError **error)
{
    *ret_guessed = !op->o->format;
    if (op->o->format)
        return blk_driver_find(op->o->format);
    const char *format = probe_file(f, error);
    const BlkDriver *drv = format ? blk_driver_find(format) : NULL;
    if (format && !drv)
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "'%s': is a %s image, which is not supported; convert it to raw (qemu-img "
                   "convert -O raw), or give format=raw to use its bytes as they are",
                   f->path, format);
    return drv;
}

/* The driver of a base: said by @said, else raw, and then it must look so. */
static const BlkDriver *base_format(BlkFile *f, const char *said, GError **error)
{
    if (said) {
        const BlkDriver *drv = blk_driver_find(said);
        if (!drv)
            lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                       "base '%s': its format '%s' is not supported", f->path, said);
        return drv;
    }
    const char *format = probe_file(f, error);
    if (!format)
        return NULL;
    if (strcmp(format, "raw") == 0)
        return &blk_driver_raw;
    lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
               "base '%s': is a %s image; an overlay needs a raw base where nobody says otherwise, "
               "so give base-format=%s%s", f->path, format, format,
               strcmp(format, "umlcow") == 0 ? ", or merge it first (uml_moo)" : "");
    return NULL;
}

/* ---- bases ---- */

BlkNode *opener_base(BlkOpener *op, const char *path, const char *said, GError **error)
{
    unsigned role = ROLE_BASE | ROLE_READ;
    struct stat st;

    if (op->depth + 1 >= BLK_CHAIN_MAX) {
        lodge_fail(error, LODGE_ERROR_LIMIT, "base '%s': the chain has more than %u images", path,
                   BLK_CHAIN_MAX);
        return NULL;
    }
    for (unsigned i = 0; i <= op->depth && stat(path, &st) == 0; i++)
        if (op->seen[i].ino == st.st_ino && op->seen[i].dev == st.st_dev) {
            lodge_fail(error, LODGE_ERROR_CONFIG,
                       "base '%s': is in the chain above already, so the chain is a loop; give "
                       "the base that is meant",
                       path);
            return NULL;
        }
    if (op->depth == 0 && op->flags & BLK_OPEN_BASE_RW)
        role = ROLE_BASE;
    op->depth++;
    BlkFile *f = opener_file(op, path, role, -1, error);
    const BlkDriver *drv = f ? base_format(f, said, error) : NULL;
    if (!drv) {
        if (f)
            blk_node_free(&f->node);
        op->depth--;
        return NULL;
    }
    OpenImage im = {.drv = drv, .cache = op->o->cache, .read_only = role & ROLE_READ,
                    .guessed = !said && role & ROLE_READ};
    BlkNode *n = opener_image(op, f, &im, error);
    op->depth--;
    return n;
}

/* The base that the image itself names. A FIFO, a tape or /dev/sda is not opened on its word. */
static bool check_recorded(const BlkNode *n, const char *full, GError **error)
{
    struct stat st;

    if (blk_is_remote(full))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': %s at offset %" G_GUINT64_FORMAT
                          " names '%s', which is on another host or in another program; if that "
                          "is meant, give base=%s",
                          blk_file_under((BlkNode *)n)->path, n->ref.field, n->ref.offset, full,
                          full);
    if (stat(full, &st) < 0 || S_ISREG(st.st_mode))
        return true; /* what is missing is told of by who opens it */
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "'%s': %s at offset %" G_GUINT64_FORMAT
                      " names '%s', which is a %s and not a file; if that is meant, give base=%s",
                      blk_file_under((BlkNode *)n)->path, n->ref.field, n->ref.offset, full,
                      S_ISDIR(st.st_mode) ? "directory" : "device", full);
}

static bool same_file(const char *path, const BlkFile *f, bool *ret_there)
{
    struct stat st;

    if (blk_is_remote(path)) /* whether it is there still is not to be known */
        return *ret_there = strcmp(path, f->path) == 0;
    *ret_there = stat(path, &st) == 0;
    return *ret_there && st.st_dev == f->dev && st.st_ino == f->ino;
}

/* base= was given for the open @n, whose header records @recorded. */
static bool take_named(BlkOpener *op, BlkNode *n, const char *recorded, GError **error)
{
    const BlkFile *base = blk_file_under(n->base);
    const char *image = blk_file_under(n)->path;
    bool there;

    if (same_file(recorded, base, &there))
        return true;
    if (!(n->drv->flags & BLK_DRV_CHECKS_BASE)) {
        if (there)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "'%s': has the base '%s', not '%s'; leave base= out, or record "
                              "another one by lodge image rebase",
                              image, recorded, base->path);
        if (!(op->flags & BLK_OPEN_QUIET))
            lodge_note("disk %s: '%s': its base '%s' is gone; '%s' is used in its place; lodge "
                       "image rebase --unsafe records that",
                       n->name, image, recorded, base->path);
        return true;
    }
    if (n->read_only)
        return true;
    g_autofree char *path = blk_record_path(n->drv, image, base->path);
    BlkBaseInfo info = blk_base_info(n->base, path, base->path);
    if (!n->drv->set_base(n, &info, error))
        return false;
    if (!(op->flags & BLK_OPEN_QUIET))
        lodge_note("disk %s: '%s': Switching backing file to '%s' (was '%s')", n->name, image,
                   path, recorded);
    return true;
}

static bool attach(BlkNode *n, const char *path, GError **error)
{
    BlkBaseInfo info = blk_base_info(n->base, path, blk_file_under(n->base)->path);

    return !n->drv->attach || n->drv->attach(n, &info, error);
}

/* Open what is under @n, whose header has been read. */
static bool open_chain(BlkOpener *op, BlkNode *n, GError **error)
{
    const char *image = blk_file_under(n)->path;
    const char *named = op->depth == 0 ? op->o->base : NULL;
    const char *said = op->depth == 0 ? op->o->base_format : NULL;

    if (!n->ref.path && (named || said))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': is there already and is no overlay; leave %s out, or name another "
                          "file for the overlay",
                          image, named ? "base=" : "base-format=");
    if (!n->ref.path)
        return true;
    if (said && n->ref.format && blk_driver_find(said) != blk_driver_find(n->ref.format))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': records that its base is a %s image; leave base-format=%s out",
                          image, n->ref.format, said);
    g_autofree char *recorded = blk_base_path(image, n->ref.path);
    if (!named && !check_recorded(n, recorded, error))
        return false;
    n->base = opener_base(op, named ? named : recorded, n->ref.format ? n->ref.format : said,
                          error);
    if (!n->base) {
        if (!named && !op->blamed && access(recorded, F_OK) < 0 && errno == ENOENT) {
            g_clear_error(error);
            lodge_fail(error, LODGE_ERROR_CONFIG,
                       "'%s': %s at offset %" PRIu64 ": '%s': no such file; if the base was moved: "
                       "lodge image rebase --unsafe --base FILE %s",
                       image, n->ref.field, n->ref.offset, recorded, image);
        } else if (!named && !op->blamed) {
            g_prefix_error(error, "'%s': %s at offset %" PRIu64 ": ", image, n->ref.field,
                           n->ref.offset);
        }
        op->blamed = true;
        return false;
    }
    return attach(n, n->ref.path, error) && (!named || take_named(op, n, recorded, error));
}

/* ---- images ---- */

BlkNode *opener_image(BlkOpener *op, BlkFile *f, const OpenImage *im, GError **error)
{
    BlkNode *n = blk_node_new(im->drv, op->name, op->io, op->engine);
    uint64_t meta = op->o->metadata_cache ? op->o->metadata_cache : BLK_META_DEFAULT;
    BlkOpenHow how = {.read_only = im->read_only, .guessed = im->guessed,
                      .for_check = op->flags & BLK_OPEN_CHECK && op->depth == 0,
                      .no_base = op->flags & BLK_OPEN_NO_BASE, .cache = im->cache,
                      .meta_bytes = MIN(meta, BLK_META_MAX), .opener = op};
    bool ok;

    n->file = &f->node;
    n->read_only = im->read_only;
    n->guessed = im->guessed;
    ok = !im->drv->open || im->drv->open(n, &how, &n->ref, error);
    if (im->base) {
        n->base = im->base; /* before it is looked at: freed with @n */
        ok = ok && attach(n, n->ref.path, error);
    } else {
        ok = ok && (how.no_base || open_chain(op, n, error));
    }
    ok = ok && go_direct(op, f, im->drv, error);
    if (!ok) {
        if (im->keep_base)
            n->base = NULL;
        blk_node_free(n);
        return NULL;
    }
    blk_node_ready(n);
    return n;
}

BlkNode *opener_existing(BlkOpener *op, bool read_only, GError **error)
{
    const BlkDriver *said = op->o->format ? blk_driver_find(op->o->format) : NULL;
    unsigned role = (read_only ? ROLE_READ : 0) |
                    (said && said->flags & BLK_DRV_EMPTY_OK ? ROLE_EMPTY_OK : 0);
    BlkFile *f = opener_file(op, op->o->file, role, -1, error);
    OpenImage im = {.read_only = read_only, .cache = op->o->cache};

    if (!f)
        return NULL;
    im.drv = choose_format(op, f, &im.guessed, error);
    if (!im.drv) {
        blk_node_free(&f->node);
        return NULL;
    }
    return opener_image(op, f, &im, error);
}

static bool check_options(const BlkOptions *o, GError **error)
{
    const char *formats[] = {o->format, o->base_format};

    if (!o->file || !*o->file)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "no file named; give the path of one");
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++)
        if (formats[i] && !blk_driver_find(formats[i])) {
            g_autofree char *names = blk_driver_names();
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%sformat '%s': not known; it can be %s",
                              i ? "base-" : "", formats[i], names);
        }
    if (o->base && !*o->base)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': base= is empty; name a file", o->file);
    if (o->aio == BLK_AIO_LIBAIO && o->cache != BLK_CACHE_NONE)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': aio=libaio blocks without O_DIRECT; add cache=none, or leave it "
                          "out",
                          o->file);
    if (o->metadata_cache > BLK_META_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': metadata-cache= is over 32M", o->file);
    return true;
}

static BlkNode *open_all(BlkOpener *op, GError **error)
{
    const BlkOptions *o = op->o;
    struct stat st;
    BlkNode *n = NULL;
    bool missing = o->base && !blk_is_remote(o->file) && stat(o->file, &st) < 0 && errno == ENOENT;
    bool exists = false;

    if (missing && o->snapshot) { /* nothing to keep, so nothing is made */
        n = opener_base(op, o->base, o->base_format, error);
    } else if (missing && !o->read_only) {
        n = opener_new_overlay(op, &exists, error);
        if (!n && exists)
            n = opener_existing(op, false, error);
    } else {
        n = opener_existing(op, o->read_only || o->snapshot, error);
    }
    return n && o->snapshot ? opener_snapshot(op, n, error) : n;
}

BlkNode *blk_open_flags(const char *name, const BlkOptions *o, unsigned flags, IoThread *io,
                        GError **error)
{
    BlkNode *n = NULL;

    if (check_options(o, error)) {
        g_autoptr(BlkEngine) engine = blk_engine_new(io, o->aio, error);
        BlkOpener op = {.name = name ? name : "image", .o = o, .flags = flags, .io = io,
                        .engine = engine};
        if (engine)
            n = open_all(&op, error);
    }
    if (n && flags & BLK_OPEN_FRONT)
        n = blk_front_new(n, o);
    if (n) {
        g_autoptr(GError) why = NULL;
        n->policy = blk_policy_new(n, o, &why);
        if (why) {
            g_propagate_error(error, g_steal_pointer(&why));
            blk_close(n);
            n = NULL;
        }
    }
    if (!n && !(flags & BLK_OPEN_QUIET))
        g_prefix_error(error, "disk %s: ", name);
    return n;
}

BlkNode *blk_open(const char *name, const BlkOptions *o, IoThread *io, GError **error)
{
    return blk_open_flags(name, o, BLK_OPEN_FRONT, io, error);
}
