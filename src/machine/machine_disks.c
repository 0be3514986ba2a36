/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk images of a machine: from /backends/block/ID to what the block layer opens, and what happens
 * when the host fails a request of a disk with on-error=stop.
 *
 * Such a machine stalls: its vCPUs and its clock stand still, while its devices are not at rest, as
 * they wait for the very requests that failed. So nothing can be plugged, ejected or saved until it
 * goes on, which starts those requests again; a reset or the end lets the errors be seen.
 */
#include <string.h>

#include "lodge/diag.h"
#include "lodge/error.h"

#include "block_int.h"
#include "machine_internal.h"

/* The place of property @key's text among @words; 0 where it is absent. */
static bool choice(const Tree *t, const char *path, const char *id, const char *key,
                   const char *const *words, int *ret, GError **error)
{
    const char *text = tree_str(t, path, key);
    g_autoptr(GString) list = NULL;

    *ret = 0;
    if (!text)
        return true;
    for (int i = 0; words[i]; i++) {
        if (!strcmp(words[i], text)) {
            *ret = i;
            return true;
        }
    }
    list = g_string_new(NULL);
    for (int i = 0; words[i]; i++)
        g_string_append_printf(list, "%s%s", i == 0 ? "" : words[i + 1] ? ", " : " or ", words[i]);
    return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: %s=%s: must be %s", id, key, text, list->str);
}

static bool number(const Tree *t, const char *path, const char *id, const char *key, bool size,
                   uint64_t *ret, GError **error)
{
    const char *text = tree_str(t, path, key);

    *ret = 0;
    if (!text)
        return true;
    return ((size ? parse_size(text, ret) : parse_u64(text, ret)) && *ret > 0) ||
           lodge_fail(error, LODGE_ERROR_CONFIG, "%s: %s=%s: must be a %s above 0", id, key, text,
                      size ? "size" : "number");
}

static bool known_format(const Tree *t, const char *path, const char *id, const char *key,
                         GError **error)
{
    const char *format = tree_str(t, path, key);

    if (!format || blk_driver_find(format))
        return true;
    g_autofree char *names = blk_driver_names();
    return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: %s=%s: not known; it can be %s", id, key,
                      format, names);
}

bool machine_disk_options(const Tree *t, const char *id, BlkOptions *ret, GError **error)
{
    static const char *const caches[] = {"writeback", "none", "unsafe", NULL};
    static const char *const aios[] = {"auto", "io_uring", "threads", "libaio", NULL};
    static const char *const discards[] = {"unmap", "ignore", NULL};
    static const char *const errors[] = {"report", "ignore", "stop", NULL};
    static const char *const switches[] = {"off", "on", NULL};
    g_autofree char *path = g_strdup_printf("/backends/block/%s", id);
    int cache, aio, discard, on_error, zeroes;
    uint64_t iops, bps, metadata;

    if (!known_format(t, path, id, "format", error) ||
        !known_format(t, path, id, "base-format", error) ||
        !choice(t, path, id, "cache", caches, &cache, error) ||
        !choice(t, path, id, "aio", aios, &aio, error) ||
        !choice(t, path, id, "discard", discards, &discard, error) ||
        !choice(t, path, id, "on-error", errors, &on_error, error) ||
        !choice(t, path, id, "detect-zeroes", switches, &zeroes, error) ||
        !number(t, path, id, "iops", false, &iops, error) ||
        !number(t, path, id, "bps", true, &bps, error) ||
        !number(t, path, id, "metadata-cache", true, &metadata, error))
        return false;
    *ret = (BlkOptions){
        .file = tree_str(t, path, "file"),
        .base = tree_str(t, path, "base"),
        .format = tree_str(t, path, "format"),
        .base_format = tree_str(t, path, "base-format"),
        .read_only = tree_has(t, path, "read-only"),
        .snapshot = tree_has(t, path, "snapshot"),
        .cache = (BlkCache)cache,
        .aio = (BlkAio)aio,
        .metadata_cache = metadata,
        .discard_ignore = discard == 1,
        .detect_zeroes = zeroes == 1,
        .iops = iops,
        .bps = bps,
        .on_error = (BlkOnError)on_error,
    };
    return ret->file || lodge_fail(error, LODGE_ERROR_CONFIG, "%s: no file", path);
}

/* ---- loops ---- */

IoThread *machine_disk_loop(Board *b, unsigned i, GError **error)
{
    Machine *m = b->opaque;
    g_autofree char *name = g_strdup_printf("io%u", i + 1);

    if (i >= MACHINE_DISK_LOOPS) {
        lodge_fail(error, LODGE_ERROR_LIMIT, "a machine has %u loops for disks at most",
                   MACHINE_DISK_LOOPS + 1);
        return NULL;
    }
    if (!m->disk_io[i])
        m->disk_io[i] = io_thread_new(name, b->clock, error);
    return m->disk_io[i];
}

/* ---- errors ---- */

/* Context: the disk's IoThread. */
static void disk_stopped(void *opaque, BlkNode *n, int err)
{
    Machine *m = opaque;

    lodge_warn("disk %s: %s; the machine is paused; make it good, then let it "
               "go on (QMP cont)", blk_name(n),
               g_strerror(err));
    machine_request(m, REQUEST_DISK_ERROR);
}

/* What is still to be told of a disk. One error at a time, and no more than one a second that stops
 * nothing: a guest may cause as many as it likes. */
typedef struct DiskWatch {
    Machine *m; /* borrowed */
    char *name; /* owned */
    GMutex mutex;
    /* guarded by mutex */
    GSource *source; /* owned; NULL: nothing is to be told */
    int64_t told_us;
    BlkOp op;
    int err;
    BlkOnError action;
} DiskWatch;

static gboolean tell_error(gpointer opaque)
{
    DiskWatch *w = opaque;

    g_mutex_lock(&w->mutex);
    g_clear_pointer(&w->source, g_source_unref);
    MachineDiskError e = {.disk = w->name, .op = w->op, .err = w->err, .action = w->action};
    g_mutex_unlock(&w->mutex);
    machine_tell(w->m, &(MachineNews){.what = MACHINE_EVENT_DISK_ERROR, .disk_error = &e});
    return G_SOURCE_REMOVE;
}

/* Context: the disk's IoThread. */
static void disk_failed(void *opaque, BlkNode *n, BlkOp op, int err, BlkOnError action)
{
    DiskWatch *w = opaque;
    int64_t now = g_get_monotonic_time();

    g_mutex_lock(&w->mutex);
    bool soon = now < w->told_us + G_TIME_SPAN_SECOND && action != BLK_ERROR_STOP;
    if (!w->source && !soon) {
        w->told_us = now;
        w->op = op;
        w->err = err;
        w->action = action;
        w->source = g_idle_source_new();
        g_source_set_priority(w->source, G_PRIORITY_HIGH - 10); /* before the machine stalls */
        g_source_set_callback(w->source, tell_error, w, NULL);
        g_source_attach(w->source, w->m->context);
    }
    g_mutex_unlock(&w->mutex);
}

static void watch_free(gpointer opaque)
{
    DiskWatch *w = opaque;

    if (w->source) {
        g_source_destroy(w->source);
        g_source_unref(w->source);
    }
    g_mutex_clear(&w->mutex);
    g_free(w->name);
    g_free(w);
}

void machine_watch_disk(Machine *m, BlkNode *n)
{
    DiskWatch *w = g_new0(DiskWatch, 1);

    w->m = m;
    w->name = g_strdup(blk_name(n));
    w->told_us = INT64_MIN / 2;
    g_mutex_init(&w->mutex);
    if (!m->disk_watches)
        m->disk_watches = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, watch_free);
    g_hash_table_replace(m->disk_watches, w->name, w);
    blk_on_error(n, disk_failed, w);
}

bool machine_open_disk(Machine *m, const Tree *t, const char *id, GError **error)
{
    BlkOptions o;

    if (!machine_disk_options(t, id, &o, error))
        return false;
    o.holder = m->config.name;
    BlkNode *n = blk_open(id, &o, m->io, error);
    if (!n)
        return false;
    blk_on_stop(n, disk_stopped, m);
    machine_watch_disk(m, n);
    g_hash_table_insert(m->blks, g_strdup(id), n);
    return true;
}

void machine_close_disk(Machine *m, const BlkNode *n)
{
    g_autofree char *gone = g_strdup(blk_name(n));

    g_hash_table_remove(m->blks, gone); /* closes it */
    g_hash_table_remove(m->disk_watches, gone);
}

static void each_disk(Machine *m, void (*fn)(BlkNode *n, bool on), bool on)
{
    GHashTableIter it;
    gpointer node;

    g_hash_table_iter_init(&it, m->blks);
    while (g_hash_table_iter_next(&it, NULL, &node))
        fn(node, on);
}

void machine_disks_hurry(Machine *m, bool on)
{
    each_disk(m, blk_hurry, on);
}

void machine_disks_retry(Machine *m, bool fail)
{
    each_disk(m, blk_retry, fail);
}

/* ---- disks of a machine that runs ---- */

BlkNode *machine_disk(Machine *m, const char *name, Device **ret_device)
{
    Device *found = machine_device(m, name);
    BlkNode *n = found ? machine_medium(m, found) : NULL;

    if (!n) {
        n = g_hash_table_lookup(m->blks, name);
        found = NULL;
        for (unsigned i = 0; n && !found && i < m->devices->len; i++)
            if (machine_medium(m, g_ptr_array_index(m->devices, i)) == n)
                found = g_ptr_array_index(m->devices, i);
    }
    if (ret_device)
        *ret_device = found;
    return n;
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(blk_name(*(BlkNode *const *)a), blk_name(*(BlkNode *const *)b));
}

GPtrArray *machine_disks(Machine *m)
{
    GPtrArray *all = g_ptr_array_new();
    GHashTableIter it;
    gpointer node;

    g_hash_table_iter_init(&it, m->blks);
    while (g_hash_table_iter_next(&it, NULL, &node))
        g_ptr_array_add(all, node);
    g_ptr_array_sort(all, by_name);
    return all;
}

bool machine_resize_disk(Machine *m, BlkNode *disk, uint64_t size, bool shrink, GError **error)
{
    if (!blk_disk_resize(disk, size, shrink, error))
        return false;
    for (unsigned i = 0; i < m->devices->len; i++) {
        Device *d = g_ptr_array_index(m->devices, i);
        if (d->cls->medium_resized && machine_medium(m, d) == disk)
            d->cls->medium_resized(d);
    }
    return true;
}

bool machine_limit_disk(Machine *m, BlkNode *disk, uint64_t iops, uint64_t bps, GError **error)
{
    const struct {
        const char *name;
        uint64_t value;
    } rates[] = {{"iops", iops}, {"bps", bps}};
    g_autofree char *path = g_strdup_printf("/backends/block/%s", blk_name(disk));

    if (!blk_set_rates(disk, iops, bps, error))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(rates) && tree_has(m->now, path, NULL); i++) {
        g_autofree char *text = g_strdup_printf("%" PRIu64, rates[i].value);
        if (rates[i].value)
            (void)tree_set_str(m->now, path, rates[i].name, text); /* short: no limit is near */
        else
            tree_remove(m->now, path, rates[i].name);
    }
    return true;
}

static void job_changed(void *opaque, const BlkJobInfo *info)
{
    machine_tell(opaque, &(MachineNews){.what = MACHINE_EVENT_JOB, .job = info});
}

bool machine_commit_disk(Machine *m, BlkNode *disk, const char *id, uint64_t speed, GError **error)
{
    BlkCommitArgs a = {.id = id, .speed = speed, .context = m->context, .tell = job_changed,
                       .opaque = m};

    if (machine_job(m, id ? id : blk_name(disk)))
        return lodge_fail(error, LODGE_ERROR_EXISTS, "Job ID '%s' already in use",
                          id ? id : blk_name(disk));
    return blk_commit(disk, &a, error);
}

BlkJob *machine_job(Machine *m, const char *id)
{
    GHashTableIter it;
    gpointer node;

    g_hash_table_iter_init(&it, m->blks);
    while (g_hash_table_iter_next(&it, NULL, &node)) {
        BlkJob *j = blk_job(node);
        BlkJobInfo info;
        if (j)
            blk_job_info(j, &info);
        if (j && strcmp(info.id, id) == 0)
            return j;
    }
    return NULL;
}
