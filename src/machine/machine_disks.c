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
    g_hash_table_insert(m->blks, g_strdup(id), n);
    return true;
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
