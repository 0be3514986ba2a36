/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * New images: by name, as the overlay that a disk asks for at its first use, and as the nameless
 * overlay of snapshot=on.
 *
 * A new image is complete and on the disk before it gets its name (new_file.c), and is locked from
 * the start through the very open file that goes on being used. Having a name is the last step that
 * can fail.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/num.h"

#include "open_int.h"

#define SNAPSHOT_DIR "/var/tmp" /* without TMPDIR: /tmp is memory on many hosts */

/* @path made absolute, the folder resolved, the last name as it is; transfer full. */
static char *absolute_path(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    g_autofree char *base = g_path_get_basename(path);
    char *real = realpath(dir, NULL);
    char *all = real ? g_build_filename(real, base, NULL) : g_canonicalize_filename(path, NULL);

    free(real);
    return all;
}

/* @to as seen from the folder of @from; both absolute and clean; transfer full. */
static char *relative_path(const char *from, const char *to)
{
    GString *s = g_string_new(NULL);
    size_t common = 0;

    for (size_t i = 0; from[i] && from[i] == to[i]; i++)
        if (from[i] == '/')
            common = i + 1;
    for (const char *p = from + common; (p = strchr(p, '/')); p++)
        g_string_append(s, "../");
    g_string_append(s, to + common);
    return g_string_free(s, FALSE);
}

bool blk_create_fixed(const BlkCreate *c, bool *ret_fixed, GError **error)
{
    const char *sub = g_hash_table_lookup(c->options, "subformat");
    bool fixed = sub && strcmp(sub, "fixed") == 0;

    if (sub && !fixed && strcmp(sub, "dynamic") != 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "option subformat=%s: can be dynamic or fixed", sub);
    if (fixed && c->base)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': an overlay cannot be fixed; leave subformat out", c->path);
    *ret_fixed = fixed;
    return true;
}

char *blk_record_path(const BlkDriver *drv, const char *image, const char *path)
{
    char *full = blk_is_remote(path) ? g_strdup(path) : absolute_path(path);

    if (blk_is_remote(path) || drv->flags & BLK_DRV_ABSOLUTE_BASE || g_path_is_absolute(path))
        return full;
    g_autofree char *self = absolute_path(image);
    char *relative = relative_path(self, full);
    g_free(full);
    return relative;
}

/* ---- whole images ---- */

/* Keys are the same with dashes and underscores: other programs use both. */
static bool same_key(const char *a, const char *b)
{
    while (*a && (*a == *b || ((*a == '-' || *a == '_') && (*b == '-' || *b == '_')))) {
        a++;
        b++;
    }
    return *a == *b;
}

/* @options (or NULL) under the keys of the driver's table; NULL: one is not in it. Strings are
 * borrowed, the table is not. */
static GHashTable *create_options(const BlkDriver *drv, GHashTable *options, GError **error)
{
    g_autoptr(GHashTable) table = g_hash_table_new(g_str_hash, g_str_equal);
    GHashTableIter it;
    void *key, *value;

    if (!options)
        return g_steal_pointer(&table);
    g_hash_table_iter_init(&it, options);
    while (g_hash_table_iter_next(&it, &key, &value)) {
        g_autoptr(GString) names = g_string_new(NULL);
        const BlkCreateOpt *found = NULL;
        for (const BlkCreateOpt *c = drv->create_opts; c && c->key; c++) {
            if (same_key(c->key, key))
                found = c;
            g_string_append_printf(names, "%s%s", names->len ? ", " : "", c->key);
        }
        if (!found) {
            lodge_fail(error, LODGE_ERROR_CONFIG, "option '%s': format %s has %s%s", (char *)key,
                       drv->name, names->len ? "only " : "no options", names->str);
            return NULL;
        }
        g_hash_table_insert(table, (void *)found->key, value);
    }
    return g_steal_pointer(&table);
}

static void free_new_file(void *opaque)
{
    blk_new_file_free(opaque);
}

typedef struct Making {
    const BlkDriver *drv;
    const char *path;
    const char *base_path; /* as the operator gave it */
    BlkNode *base;         /* taken over; NULL: none */
    bool keep_base;        /* on failure the base stays the caller's */
    uint64_t size;
    GHashTable *options;
    const char *what;    /* for messages */
} Making;

/* Make the image's files and open it over them. @ret_files: transfer full, the image last. */
static BlkNode *make_open(BlkOpener *op, const Making *m, GPtrArray **ret_files, GError **error)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new_with_free_func(free_new_file);
    g_autofree char *record =
        m->base ? blk_record_path(m->drv, m->path, m->base_path) : NULL;
    BlkBaseInfo info = {0};
    BlkNewFile *nf = blk_new_file(m->path, m->what, error);
    BlkFile *f = NULL;

    if (m->base)
        info = blk_base_info(m->base, record, m->base_path);
    BlkCreate c = {.file = nf, .path = m->path, .size = m->size ? m->size : info.size,
                   .base = m->base ? &info : NULL, .options = m->options, .extra = files};
    bool ok = nf && m->drv->create(&c, error);
    if (nf)
        g_ptr_array_add(files, nf);
    if (ok) {
        int fd = fcntl(nf->fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            lodge_fail_errno(error, errno, "'%s': cannot open it twice", m->path);
        else
            f = opener_file(op, m->path, ROLE_EMPTY_OK, fd, error);
    }
    if (!f) {
        if (!m->keep_base)
            blk_node_free(m->base);
        return NULL;
    }
    OpenImage im = {.drv = m->drv, .cache = op->o->cache, .base = m->base,
                    .keep_base = m->keep_base};
    op->making = files;
    BlkNode *n = opener_image(op, f, &im, error);
    op->making = NULL;
    if (n)
        *ret_files = g_steal_pointer(&files);
    return n;
}

/* Publish the files in order; 0 or errno, and then none has its name any more. */
static int publish_all(GPtrArray *files, bool overwrite)
{
    for (guint i = 0; i < files->len; i++) {
        int err = blk_new_file_publish(g_ptr_array_index(files, i), overwrite);
        if (!err)
            continue;
        while (i--)
            (void)unlink(((BlkNewFile *)g_ptr_array_index(files, i))->path);
        return err;
    }
    return 0;
}

static const BlkDriver *maker(const char *format, bool base, GError **error)
{
    const BlkDriver *drv = blk_driver_find(format);

    if (!drv->create)
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "format %s: can be read, not made", drv->name);
    else if (base && !drv->attach && !drv->set_base)
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "format %s: has no overlays; leave the base out, or take another format",
                   drv->name);
    else if (!base && drv->flags & BLK_DRV_NEEDS_BASE)
        lodge_fail(error, LODGE_ERROR_CONFIG, "format %s: is for overlays; name a base",
                   drv->name);
    else
        return drv;
    return NULL;
}

static bool is_there(const char *path, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_EXISTS,
                      "'%s': is there already; name another file, or have it replaced (--force)",
                      path);
}

BlkNode *blk_make_begin(const BlkMake *m, BlkCache cache, IoThread *io, GPtrArray **ret_files,
                        GError **error)
{
    const char *format = m->format ? m->format : m->base ? "umlcow" : "raw";
    BlkOptions o = {.file = m->file, .cache = cache};
    g_autoptr(BlkEngine) engine = NULL;
    struct stat st;

    if (!blk_driver_find(format) || (m->base_format && !blk_driver_find(m->base_format))) {
        g_autofree char *names = blk_driver_names();
        lodge_fail(error, LODGE_ERROR_CONFIG, "format '%s': not known; it can be %s",
                   blk_driver_find(format) ? m->base_format : format, names);
        return NULL;
    }
    const BlkDriver *drv = maker(format, m->base, error);
    g_autoptr(GHashTable) options = drv ? create_options(drv, m->options, error) : NULL;
    if (!options)
        return NULL;
    if (stat(m->file, &st) == 0 && (!m->overwrite || !S_ISREG(st.st_mode))) {
        if (m->overwrite)
            lodge_fail(error, LODGE_ERROR_CONFIG,
                       "'%s': is no regular file; name one, or a file that is not there", m->file);
        else
            is_there(m->file, error);
        return NULL;
    }
    if (!m->base && !m->size) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': no size; give one (--size)", m->file);
        return NULL;
    }
    if (m->size > BLK_MAX_SIZE) {
        lodge_fail(error, LODGE_ERROR_LIMIT, "'%s': over 2^62 bytes", m->file);
        return NULL;
    }
    engine = blk_engine_new(io, BLK_AIO_AUTO, error);
    if (!engine)
        return NULL;
    BlkOpener op = {.name = "image", .o = &o, .flags = BLK_OPEN_QUIET, .io = io, .engine = engine};
    Making k = {.drv = drv, .path = m->file, .base_path = m->base, .size = m->size,
                .options = options, .what = "image"};
    if (m->base && !(k.base = opener_base(&op, m->base, m->base_format, error)))
        return NULL;
    return make_open(&op, &k, ret_files, error);
}

bool blk_make_finish(GPtrArray *files, bool overwrite, GError **error)
{
    const BlkNewFile *image = g_ptr_array_index(files, files->len - 1);
    int err = publish_all(files, overwrite);

    if (err == EEXIST)
        return is_there(image->path, error);
    return !err || lodge_fail_errno(error, err, "'%s': cannot make it", image->path);
}

bool blk_make(const BlkMake *m, IoThread *io, GError **error)
{
    g_autoptr(GPtrArray) files = NULL;
    BlkNode *n = blk_make_begin(m, BLK_CACHE_WRITEBACK, io, &files, error);

    blk_close(n);
    return n && blk_make_finish(files, m->overwrite, error);
}

/* ---- what a disk asks for ---- */

BlkNode *opener_new_overlay(BlkOpener *op, bool *ret_exists, GError **error)
{
    const BlkOptions *o = op->o;
    const BlkDriver *drv =
        maker(o->format ? o->format : blk_format_by_name(o->file, true), true, error);
    BlkNode *base = drv ? opener_base(op, o->base, o->base_format, error) : NULL;
    g_autoptr(GPtrArray) files = NULL;
    g_autoptr(GHashTable) none = g_hash_table_new(g_str_hash, g_str_equal);

    if (!base)
        return NULL;
    Making m = {.drv = drv, .path = o->file, .base_path = o->base, .base = base, .options = none,
                .what = "overlay"};
    BlkNode *n = make_open(op, &m, &files, error);
    int err = n ? publish_all(files, false) : 0;
    if (err) {
        *ret_exists = err == EEXIST;
        if (err != EEXIST)
            lodge_fail_errno(error, err, "'%s': cannot make the overlay", o->file);
        blk_close(n);
        return NULL;
    }
    if (n)
        lodge_note("disk %s: made '%s' as an overlay of '%s'", op->name, o->file, o->base);
    return n;
}

BlkNode *opener_live_overlay(BlkOpener *op, BlkNode *base, GPtrArray **ret_files, GError **error)
{
    const BlkDriver *drv = maker(op->o->format, true, error);
    g_autoptr(GHashTable) none = g_hash_table_new(g_str_hash, g_str_equal);
    g_autofree char *path = absolute_path(blk_file_under(base)->path);

    if (!drv)
        return NULL;
    Making m = {.drv = drv, .path = op->o->file, .base_path = path, .base = base,
                .keep_base = true, .options = none, .what = "overlay"};
    return make_open(op, &m, ret_files, error);
}

BlkNode *opener_snapshot(BlkOpener *op, BlkNode *lower, GError **error)
{
    const char *dir = g_getenv("TMPDIR");
    BlkOptions o = {.file = "snapshot", .cache = BLK_CACHE_UNSAFE,
                    .metadata_cache = op->o->metadata_cache};
    BlkOpener inner = {.name = op->name, .o = &o, .flags = BLK_OPEN_UNLOCKED, .io = op->io,
                       .engine = op->engine};
    g_autofree char *place = NULL;
    g_autoptr(GPtrArray) files = NULL; /* dropped without a name */

    if (!dir || !*dir)
        dir = g_file_test(SNAPSHOT_DIR, G_FILE_TEST_IS_DIR) ? SNAPSHOT_DIR : g_get_tmp_dir();
    place = g_build_filename(dir, "lodge-snapshot", NULL);
    g_autoptr(GHashTable) none = g_hash_table_new(g_str_hash, g_str_equal);
    Making m = {.drv = &blk_driver_umlcow, .path = place, .base_path = place, .base = lower,
                .options = none, .what = "overlay"};
    BlkNode *n = make_open(&inner, &m, &files, error);
    if (!n)
        g_prefix_error(error, "snapshot=on: ");
    return n;
}
