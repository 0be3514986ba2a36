/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands about disks: their chains of images, overlays put on top of them and merged away, other
 * sizes; and the events of these.
 *
 * Names, fields, errors and the order of events are QEMU 7.2's (qapi/block-core.json, job.json). A
 * disk goes by the name of its device or by its own. Its images below the top are named by it and
 * their depth ("disk0.1"). A merge of a running disk becomes ready and follows the guest until it
 * is told to complete, as QEMU's of an active layer; one command merges one image, so base= may be
 * left out only where there is one image below the top.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "lodge/block.h"
#include "lodge/error.h"

#include "block_int.h"
#include "control_internal.h"
#include "live.h"

/* ---- images ---- */

static const char *path_of(BlkNode *n)
{
    return blk_file_under(n)->path;
}

static unsigned depth_of(BlkNode *image)
{
    unsigned depth = 0;

    for (BlkNode *n = image->base; n; n = n->base)
        depth++;
    return depth;
}

static void print_image(JsonOut *out, BlkNode *image, bool chain, const char *key)
{
    json_object(out, key);
    json_string(out, "filename", path_of(image));
    json_string(out, "format", image->drv->name);
    json_number(out, "virtual-size", (int64_t)image->limits.size);
    if (image->base) {
        json_string(out, "backing-filename", path_of(image->base));
        json_string(out, "backing-filename-format", image->base->drv->name);
    }
    if (image->base && chain)
        print_image(out, image->base, true, "backing-image");
    json_end(out);
}

/* BlockDeviceInfo of QEMU's: how @disk is used. Rates are those of the image on top. */
static void print_use(JsonOut *out, BlkNode *disk, bool top)
{
    const BlkFront *f = blk_front(disk);
    uint64_t iops = 0, bps = 0;

    if (top)
        blk_rates(disk, &iops, &bps);
    json_number(out, "bps", (int64_t)bps);
    json_number(out, "bps_rd", 0);
    json_number(out, "bps_wr", 0);
    json_number(out, "iops", (int64_t)iops);
    json_number(out, "iops_rd", 0);
    json_number(out, "iops_wr", 0);
    json_string(out, "detect_zeroes",
                !f || !f->detect_zeroes ? "off" : f->discard_ignore ? "on" : "unmap");
    json_object(out, "cache");
    json_bool(out, "writeback", true);
    json_bool(out, "direct", f && f->cache == BLK_CACHE_NONE);
    json_bool(out, "no-flush", f && f->cache == BLK_CACHE_UNSAFE);
    json_end(out);
    json_bool(out, "encrypted", false);
    json_number(out, "write_threshold", 0);
}

/* What query-block and query-named-block-nodes have in common (BlockDeviceInfo): @image is @disk's,
 * so many below the top. */
static void print_node(JsonOut *out, BlkNode *image, BlkNode *disk, unsigned at)
{
    g_autofree char *name =
        at ? g_strdup_printf("%s.%u", blk_name(disk), at) : g_strdup(blk_name(disk));

    print_use(out, disk, !at);
    json_bool(out, "ro", image->limits.read_only);
    json_string(out, "drv", image->drv->name);
    json_string(out, "node-name", name);
    json_string(out, "file", path_of(image));
    if (image->base)
        json_string(out, "backing_file", path_of(image->base));
    json_number(out, "backing_file_depth", depth_of(image));
    print_image(out, image, !at, "image");
}

static const PropSpec *blk_prop(const Device *d)
{
    for (const PropSpec *p = d->cls->props; p && p->name; p++) {
        if (p->kind == PROP_BLK)
            return p;
    }
    return NULL;
}

static void print_drive(void *out, Device *d, BlkNode *node)
{
    if (!blk_prop(d))
        return;
    json_object(out, NULL);
    json_string(out, "device", d->id);
    json_bool(out, "locked", d->cls->medium_locked && d->cls->medium_locked(d));
    json_bool(out, "removable", d->cls->change_medium != NULL);
    if (node) {
        json_object(out, "inserted");
        print_node(out, blk_top(node), node, 0);
        json_end(out);
    }
    json_string(out, "qdev", d->id);
    json_string(out, "type", "unknown");
    json_end(out);
}

COMMAND_FN(cmd_query_block)
{
    if (!control_machine(c, error))
        return false;
    JsonOut *out = control_return(r);
    json_array(out, "return");
    (void)control_each_device(c, print_drive, out, NULL); /* there is a machine */
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_nodes)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    g_autoptr(GPtrArray) disks = machine_disks(m);
    JsonOut *out = control_return(r);
    json_array(out, "return");
    for (unsigned i = 0; i < disks->len; i++) {
        BlkNode *disk = g_ptr_array_index(disks, i);
        unsigned at = 0;
        for (BlkNode *n = blk_top(disk); n; n = n->base) {
            json_object(out, NULL);
            print_node(out, n, disk, at++);
            json_end(out);
        }
    }
    json_end(out);
    return true;
}

/* ---- finding ---- */

static BlkNode *find_disk(Control *c, const char *name, GError **error)
{
    Machine *m = control_machine(c, error);
    Device *d;
    BlkNode *n = m ? machine_disk(m, name, &d) : NULL;

    if (n || !m)
        return n;
    if (machine_device(m, name))
        lodge_fail(error, LODGE_ERROR_CONFIG, "Device '%s' has no medium", name);
    else
        lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Device '%s' not found", name);
    return NULL;
}

/* By the arguments device and node-name, one of them. */
static BlkNode *find_named(Control *c, Jv args, GError **error)
{
    const char *device = jv_text(jv_get(args, "device"));
    const char *node = jv_text(jv_get(args, "node-name"));
    g_autoptr(GError) why = NULL;
    BlkNode *n = !device == !node ? NULL : find_disk(c, device ? device : node, &why);

    if (n)
        return n;
    if (device && node)
        lodge_fail(error, LODGE_ERROR_CONFIG, "Need exactly one of 'device' and 'node-name'");
    else if (why && why->code != LODGE_ERROR_NOT_FOUND)
        g_propagate_error(error, g_steal_pointer(&why));
    else
        lodge_fail(error, LODGE_ERROR_CONFIG, "Cannot find device='%s' nor node-name='%s'",
                   device ? device : "", node ? node : "");
    return NULL;
}

/* ---- limits ---- */

#define RATE_MAX 1000000000000000 /* QEMU's THROTTLE_VALUE_MAX */

COMMAND_FN(cmd_block_throttle)
{
    static const char *const rates[] = {"bps", "iops", NULL};
    static const char *const parts[] = {"_rd", "_wr"};
    const char *device = jv_text(jv_get(args, "device")), *id = jv_text(jv_get(args, "id"));
    int64_t value[2];

    if (!device == !id)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "Need exactly one of 'device' and 'id'");
    BlkNode *disk = find_disk(c, device ? device : id, error);
    if (!disk)
        return false;
    for (unsigned i = 0; rates[i]; i++) {
        value[i] = jv_int(jv_get(args, rates[i]));
        if (value[i] < 0 || value[i] > RATE_MAX)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "bps/iops/max values must be within [0, %" PRId64 "]",
                              (int64_t)RATE_MAX);
        for (unsigned k = 0; k < G_N_ELEMENTS(parts); k++) {
            g_autofree char *name = g_strconcat(rates[i], parts[k], NULL);
            if (jv_int(jv_get(args, name)))
                return lodge_fail(error, LODGE_ERROR_CONFIG,
                                  "Parameter '%s' expects 0: reads and writes have one limit, %s",
                                  name, rates[i]);
        }
    }
    return machine_limit_disk(c->config.machine, disk, (uint64_t)value[1], (uint64_t)value[0],
                              error);
}

/* ---- overlays and sizes ---- */

COMMAND_FN(cmd_snapshot_sync)
{
    BlkNode *disk = find_named(c, args, error);
    const char *format = jv_text(jv_get(args, "format"));
    BlkOverlayArgs a = {
        .file = jv_text(jv_get(args, "snapshot-file")),
        .format = format ? format : "qcow2",
        .existing = !g_strcmp0(jv_text(jv_get(args, "mode")), "existing"),
    };
    return disk && blk_overlay(disk, &a, error);
}

COMMAND_FN(cmd_block_resize)
{
    BlkNode *disk = find_named(c, args, error);
    int64_t size = jv_int(jv_get(args, "size"));
    if (!disk)
        return false;
    if (size <= 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "Parameter 'size' expects a value greater than zero");
    return machine_resize_disk(c->config.machine, disk, (uint64_t)size, true, error);
}

/* ---- jobs ---- */

/* JobStatus of job.json. */
static const char *const job_states[] = {
    [BLK_JOB_RUNNING] = "running",
    [BLK_JOB_READY] = "ready",
    [BLK_JOB_COMPLETED] = "concluded",
    [BLK_JOB_CANCELLED] = "concluded",
    [BLK_JOB_FAILED] = "concluded",
};

static void status_event(Control *c, const char *id, const char *status)
{
    JsonOut *e = control_event_begin(EVENT_JOB_STATUS_CHANGE);
    json_object(e, "data");
    json_string(e, "status", status);
    json_string(e, "id", id);
    control_event_send(c, e);
}

static void print_progress(JsonOut *out, const BlkJobInfo *info)
{
    json_string(out, "device", info->id);
    json_number(out, "len", (int64_t)info->len);
    json_number(out, "offset", (int64_t)info->offset);
    json_number(out, "speed", (int64_t)info->speed);
    json_string(out, "type", "commit");
}

static void job_event(Control *c, const BlkJobInfo *info, ControlEvent what)
{
    JsonOut *e = control_event_begin(what);
    json_object(e, "data");
    print_progress(e, info);
    if (info->error)
        json_string(e, "error", info->err ? g_strerror(info->err) : info->error);
    control_event_send(c, e);
}

static void job_error_event(Control *c, const BlkJobInfo *info)
{
    JsonOut *e = control_event_begin(EVENT_BLOCK_JOB_ERROR);
    json_object(e, "data");
    json_string(e, "device", info->id);
    json_string(e, "operation", info->reading ? "read" : "write");
    json_string(e, "action", "report");
    control_event_send(c, e);
}

void control_job_event(Control *c, const BlkJobInfo *info)
{
    switch (info->state) {
    case BLK_JOB_RUNNING:
        status_event(c, info->id, "created");
        status_event(c, info->id, "running");
        return;
    case BLK_JOB_READY:
        status_event(c, info->id, "ready");
        job_event(c, info, EVENT_BLOCK_JOB_READY);
        return;
    case BLK_JOB_COMPLETED:
        status_event(c, info->id, "waiting");
        status_event(c, info->id, "pending");
        job_event(c, info, EVENT_BLOCK_JOB_COMPLETED);
        break;
    case BLK_JOB_CANCELLED:
        status_event(c, info->id, "aborting");
        job_event(c, info, EVENT_BLOCK_JOB_CANCELLED);
        break;
    case BLK_JOB_FAILED:
        if (info->err)
            job_error_event(c, info);
        status_event(c, info->id, "aborting");
        job_event(c, info, EVENT_BLOCK_JOB_COMPLETED);
        break;
    }
    status_event(c, info->id, "concluded");
    status_event(c, info->id, "null");
}

static bool same_file(const char *path, BlkNode *image)
{
    struct stat st;

    return stat(path, &st) == 0 && st.st_dev == blk_file_under(image)->dev &&
           st.st_ino == blk_file_under(image)->ino;
}

/* @top and @base name the two images of @disk that are merged. */
static bool check_pair(BlkNode *disk, const char *top, const char *base, GError **error)
{
    BlkNode *image = blk_top(disk);

    if (top && !same_file(top, image))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "Top image file %s is not the one on top of the disk; only that can be "
                          "merged while the machine runs", top);
    if (base && image->base && !same_file(base, image->base))
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "Base '%s' is not the image below the top, '%s'; merge one after the "
                          "other", base, path_of(image->base));
    if (!base && image->base && image->base->base)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "the disk has more than one image below the top; say base='%s', and "
                          "merge one after the other", path_of(image->base));
    return true;
}

static bool job_name_ok(const char *id)
{
    bool ok = g_ascii_isalpha(id[0]);

    for (const char *p = id; ok && *p; p++)
        ok = g_ascii_isalnum(*p) || strchr("._-", *p);
    return ok;
}

static bool speed_of(Jv args, uint64_t *ret, GError **error)
{
    int64_t speed = jv_int(jv_get(args, "speed"));

    *ret = (uint64_t)speed;
    return speed >= 0 || lodge_fail(error, LODGE_ERROR_CONFIG,
                                    "Parameter 'speed' expects a non-negative value");
}

COMMAND_FN(cmd_block_commit)
{
    const char *id = jv_text(jv_get(args, "job-id"));
    BlkNode *disk = find_disk(c, jv_text(jv_get(args, "device")), error);
    uint64_t speed;

    if (!disk || !speed_of(args, &speed, error))
        return false;
    if (id && !job_name_ok(id))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "Invalid job ID '%s'", id);
    if (!check_pair(disk, jv_text(jv_get(args, "top")), jv_text(jv_get(args, "base")), error) ||
        !machine_commit_disk(c->config.machine, disk, id, speed, error))
        return false;
    BlkJobInfo info;
    blk_job_info(blk_job(disk), &info);
    info.state = BLK_JOB_RUNNING;
    control_job_event(c, &info);
    return true;
}

static void print_block_job(void *out, const BlkJobInfo *info)
{
    json_object(out, NULL);
    print_progress(out, info);
    json_string(out, "status", job_states[info->state]);
    json_string(out, "io-status", "ok");
    json_bool(out, "ready", info->state == BLK_JOB_READY);
    json_bool(out, "busy", true);
    json_bool(out, "paused", false);
    json_bool(out, "auto-finalize", true);
    json_bool(out, "auto-dismiss", true);
    json_end(out);
}

static void print_job(void *out, const BlkJobInfo *info)
{
    json_object(out, NULL);
    json_string(out, "id", info->id);
    json_string(out, "type", "commit");
    json_string(out, "status", job_states[info->state]);
    json_number(out, "current-progress", (int64_t)info->offset);
    json_number(out, "total-progress", (int64_t)info->len);
    json_end(out);
}

bool control_each_job(Control *c, ControlJobFn *fn, void *out, GError **error)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    g_autoptr(GPtrArray) disks = machine_disks(m);
    for (unsigned i = 0; i < disks->len; i++) {
        BlkJob *j = blk_job(g_ptr_array_index(disks, i));
        BlkJobInfo info;
        if (!j)
            continue;
        blk_job_info(j, &info);
        fn(out, &info);
    }
    return true;
}

static bool print_jobs(Control *c, ControlReply *r, ControlJobFn *print, GError **error)
{
    if (!control_machine(c, error))
        return false;
    JsonOut *out = control_return(r);
    json_array(out, "return");
    (void)control_each_job(c, print, out, NULL); /* there is a machine */
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_block_jobs)
{
    return print_jobs(c, r, print_block_job, error);
}

COMMAND_FN(cmd_query_jobs)
{
    return print_jobs(c, r, print_job, error);
}

/* @block: by a command of block jobs, whose error is another one. */
static BlkJob *find_job(Control *c, const char *id, bool block, GError **error)
{
    Machine *m = control_machine(c, error);
    BlkJob *j = m ? machine_job(m, id) : NULL;

    if (m && !j && block)
        g_set_error(error, control_not_active_quark(), 0, "Block job '%s' not found", id);
    else if (m && !j)
        g_set_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG, "Job not found");
    return j;
}

static bool cancel(BlkJob *j)
{
    if (j)
        blk_job_cancel(j);
    return j;
}

static bool complete(BlkJob *j, GError **error)
{
    BlkJobInfo info;

    if (!j)
        return false;
    blk_job_info(j, &info);
    if (info.state != BLK_JOB_READY)
        return lodge_fail(error, LODGE_ERROR_STATE,
                          "Job '%s' in state '%s' cannot accept command verb 'complete'", info.id,
                          job_states[info.state]);
    blk_job_complete(j);
    return true;
}

COMMAND_FN(cmd_block_job_cancel)
{
    return cancel(find_job(c, jv_text(jv_get(args, "device")), true, error));
}

COMMAND_FN(cmd_job_cancel)
{
    return cancel(find_job(c, jv_text(jv_get(args, "id")), false, error));
}

COMMAND_FN(cmd_block_job_complete)
{
    return complete(find_job(c, jv_text(jv_get(args, "device")), true, error), error);
}

COMMAND_FN(cmd_job_complete)
{
    return complete(find_job(c, jv_text(jv_get(args, "id")), false, error), error);
}

COMMAND_FN(cmd_block_job_speed)
{
    BlkJob *j = find_job(c, jv_text(jv_get(args, "device")), true, error);
    uint64_t speed;

    if (!j || !speed_of(args, &speed, error))
        return false;
    blk_job_set_speed(j, speed);
    return true;
}

/* ---- errors of requests ---- */

void control_disk_error(Control *c, const MachineDiskError *e)
{
    static const char *const actions[] = {
        [BLK_ERROR_REPORT] = "report", [BLK_ERROR_IGNORE] = "ignore", [BLK_ERROR_STOP] = "stop"};
    JsonOut *out = control_event_begin(EVENT_BLOCK_IO_ERROR);

    json_object(out, "data");
    json_string(out, "device", e->disk);
    json_string(out, "node-name", e->disk);
    json_string(out, "operation", e->op == BLK_READ ? "read" : "write");
    json_string(out, "action", actions[e->action]);
    json_bool(out, "nospace", e->err == ENOSPC);
    json_string(out, "reason", g_strerror(e->err));
    control_event_send(c, out);
}
