/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The image on top of a disk merged into its base, while the guest writes.
 *
 * The guest goes on writing to the overlay. A thread copies what the overlay has to the base, piece
 * by piece, and again what the guest has changed since (dirty.c), until hardly anything is left;
 * then the job is ready, and follows. To finish, the front is drained, the rest is copied, the base
 * is flushed, the overlay is emptied, and the base becomes the disk's image.
 *
 * Whatever happens, nothing is lost: the base is written only where the overlay hides it, so until
 * the end the chain reads as it should. The overlay is emptied only when the base has everything on
 * the disk, and the base is written by the guest only when the emptied overlay is on the disk: who
 * opens the chain by the overlay's name after that, sees the base. An overlay that records its
 * base's state (all but qcow2) is told in advance that it will change (BlkDriver.base_changes), and
 * the record is put right at the end.
 *
 * Threads: main, but for work(), which submits requests to the two images by themselves and touches
 * what is guarded by mutex. Main touches the images with the front drained and the thread gone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lodge/diag.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

#include "image_ops.h"
#include "live.h"

#define TAKE ((uint64_t)64 << 20)  /* bytes looked at before the job hears of a cancel */
#define PIECE ((size_t)2 << 20)    /* bytes copied at once */
#define REST ((uint64_t)4 << 20)   /* bytes of change with which a job is ready */
#define PASSES 16u                 /* after which it is so with more: the guest writes faster */
#define FOLLOW_US (100 * G_TIME_SPAN_MILLISECOND)
#define MEMORY_ALIGN 4096u
#define GRANT_S 60 /* how far ahead the overlay is told that its base changes */

struct BlkJob {
    /* constant */
    BlkFront *f;       /* borrowed, outlives us */
    BlkNode *top, *base; /* borrowed from it */
    char *id;          /* owned */
    BlkCommitArgs args;
    BlkDirty *dirty;   /* owned */
    void *buf;         /* owned; PIECE bytes, of who copies */
    /* main thread */
    GThread *thread;   /* owned; NULL: joined */
    GError *error;     /* owned */
    BlkJobState told;
    int64_t until_s;   /* of the grant; then of who copies */
    /* guarded by mutex */
    GMutex mutex;
    GCond cond;
    GSource *source;   /* owned; main was asked to look */
    BlkJobState state; /* up to READY; then main's */
    bool cancel, complete, over; /* over: the thread is done */
    uint64_t done, speed, paid; /* bytes; paid: of speed, in this second */
    int64_t second_us;
    int err;
    bool reading;
};

/* ---- copying ---- */

static void note_failed(BlkJob *j, const BlkNode *n)
{
    g_mutex_lock(&j->mutex);
    j->reading = n == j->top;
    g_mutex_unlock(&j->mutex);
}

static int run(BlkJob *j, BlkNode *n, BlkOp op, uint64_t at, uint64_t len)
{
    struct iovec iov = {j->buf, len};
    bool data = op == BLK_READ || op == BLK_WRITE;
    BlkReq req = {.op = op, .offset = at, .len = len, .iov = data ? &iov : NULL, .niov = data,
                  .may_unmap = true};
    int err = blk_wait(n, &req);

    if (err)
        note_failed(j, n);
    return err;
}

static int copy_piece(BlkJob *j, uint64_t at, uint64_t len, bool zero)
{
    int err = 0;

    if (zero && j->base->limits.discard_max)
        return run(j, j->base, BLK_ZERO, at, len);
    if (zero)
        memset(j->buf, 0, len);
    else
        err = run(j, j->top, BLK_READ, at, len);
    return err ? err : run(j, j->base, BLK_WRITE, at, len);
}

/* What the overlay has itself of [@at, @end) goes to the base. 0 or errno. */
static int copy_range(BlkJob *j, uint64_t at, uint64_t end)
{
    while (at < end) {
        BlkReq st = {.op = BLK_STATUS, .offset = at, .len = end - at};
        int err = blk_wait(j->top, &st);
        if (err) {
            note_failed(j, j->top);
            return err;
        }
        uint64_t to = at + MIN(st.len, st.status_len);
        for (; st.status != BLK_ST_BELOW && at < to; at += MIN(PIECE, to - at)) {
            err = copy_piece(j, at, MIN(PIECE, to - at), st.status == BLK_ST_ZERO);
            if (err)
                return err;
        }
        at = to;
    }
    return 0;
}

static int64_t now_s(void)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

/* The overlay knows that its base is being written for a while yet. */
static bool grant(BlkJob *j, GError **error)
{
    if (now_s() < j->until_s - GRANT_S / 2)
        return true;
    j->until_s = now_s() + GRANT_S;
    return j->top->drv->base_changes(j->top, j->until_s, error);
}

/* One stretch of what is changed from *@at on. True: there was one. */
static bool copy_some(BlkJob *j, uint64_t *at, uint64_t most, int *ret_err)
{
    uint64_t from, len;

    if (!blk_dirty_take(j->dirty, at, most, &from, &len))
        return false;
    g_autoptr(GError) error = NULL;
    *ret_err = grant(j, &error) ? copy_range(j, from, from + len) : EIO;
    if (*ret_err)
        blk_dirty_set(j->dirty, from, len);
    g_mutex_lock(&j->mutex);
    j->done += *ret_err ? 0 : len;
    j->paid += len;
    g_mutex_unlock(&j->mutex);
    return true;
}

/* ---- the thread ---- */

static gboolean look(gpointer opaque);

/* Have main look. Context: mutex held. */
static void poke_locked(BlkJob *j)
{
    if (j->source)
        return;
    j->source = g_idle_source_new();
    g_source_set_callback(j->source, look, j, NULL);
    g_source_set_priority(j->source, G_PRIORITY_DEFAULT);
    g_source_attach(j->source, j->args.context);
}

/* Wait while the job has copied more than it may. Context: mutex held. */
static void slow_down_locked(BlkJob *j)
{
    while (j->speed && j->paid >= j->speed && !j->cancel) {
        int64_t now = g_get_monotonic_time(), next = j->second_us + G_USEC_PER_SEC;
        if (now >= next) {
            j->paid -= MIN(j->paid, j->speed);
            j->second_us = now;
        } else {
            g_cond_wait_until(&j->cond, &j->mutex, next);
        }
    }
}

/* All is copied but what the guest changes now: wait for that, or a word. False: finish. */
static bool follow_locked(BlkJob *j)
{
    if (j->state == BLK_JOB_RUNNING) {
        j->state = BLK_JOB_READY;
        poke_locked(j);
    }
    if (!j->complete && !j->cancel)
        g_cond_wait_until(&j->cond, &j->mutex, g_get_monotonic_time() + FOLLOW_US);
    return !j->complete;
}

static void *work(void *opaque)
{
    BlkJob *j = opaque;
    uint64_t at = 0;
    unsigned passes = 0;
    int err = 0;
    bool on = true;

    while (on && !err) {
        g_mutex_lock(&j->mutex);
        slow_down_locked(j);
        /* With a limit, what is taken at once is little, so that the rate is even. */
        uint64_t most = j->speed ? CLAMP(j->speed / 8, 1, TAKE) : TAKE;
        on = !j->cancel;
        g_mutex_unlock(&j->mutex);
        if (!on || copy_some(j, &at, most, &err))
            continue;
        at = 0;
        passes++;
        if (blk_dirty_bytes(j->dirty) > REST && passes < PASSES)
            continue;
        g_mutex_lock(&j->mutex);
        on = follow_locked(j);
        g_mutex_unlock(&j->mutex);
    }
    g_mutex_lock(&j->mutex);
    j->err = err;
    j->over = true;
    poke_locked(j);
    g_mutex_unlock(&j->mutex);
    return NULL;
}

/* ---- begin ---- */

static bool can_merge(const BlkFront *f, GError **error)
{
    BlkNode *top = f->node.top;
    const char *path = blk_file_under(top)->path;

    if (!top->base)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': has no base to be merged into; it is the only image", path);
    if (f->nameless || f->node.read_only)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': is used %s, so nothing may be merged; leave that out", path,
                          f->nameless ? "with snapshot=on" : "read-only");
    if (blk_file_under(top->base)->remote)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': a network disk that others may read is not written; stop the "
                          "machine, then use lodge image commit", blk_file_under(top->base)->path);
    if (!top->drv->base_changes || !top->drv->make_empty)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': a %s image cannot be merged while the machine runs; stop it, "
                          "then use lodge image commit",
                          path, top->drv->name);
    if (top->base->limits.size > top->limits.size)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': has %" G_GUINT64_FORMAT " bytes, its base %" G_GUINT64_FORMAT
                          ", and a disk cannot grow by that; resize the disk first",
                          path, top->limits.size, top->base->limits.size);
    if (top->base->limits.align > f->node.limits.align)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': is accessed in units of %u bytes, and the guest uses %u; stop the "
                          "machine, then use lodge image commit",
                          blk_file_under(top->base)->path, top->base->limits.align,
                          f->node.limits.align);
    return true;
}

/* At rest: internal snapshots share the base, and would change with it. */
static bool no_snapshots(BlkNode *top, GError **error)
{
    g_autoptr(GPtrArray) list = top->drv->snap ? top->drv->snap->list(top, error) : NULL;

    if (top->drv->snap && !list)
        return false;
    return !list || !list->len ||
           lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                      "'%s': holds internal snapshots, which need the base as it is; delete them "
                      "first (lodge image snapshot)", blk_file_under(top)->path);
}

/* The front is drained: the base is opened for writing. */
static bool open_base(BlkJob *j, GError **error)
{
    BlkNode *top = j->top, *old = top->base;

    if (!no_snapshots(top, error) || !grant(j, error))
        return false;
    BlkNode *base = blk_again(j->f, old, true, error);
    if (base && blk_lock_up(j->f, old, base, error) &&
        (base->limits.size == top->limits.size ||
         image_resize(base, top->limits.size, false, error))) {
        top->base = j->base = base;
        blk_again_take(old, base);
        return true;
    }
    if (base)
        blk_lock_down(base, old);
    blk_again_drop(base);
    g_autoptr(GError) why = NULL;
    if (!image_follow_base(top, &why)) /* what the grant said ends by itself */
        lodge_warn("disk %s: %s", j->f->node.name, why->message);
    return false;
}

static void job_free(BlkJob *j)
{
    if (j->thread)
        g_thread_join(j->thread);
    if (j->source) {
        g_source_destroy(j->source);
        g_source_unref(j->source);
    }
    blk_dirty_free(j->dirty);
    free(j->buf);
    g_clear_error(&j->error);
    g_mutex_clear(&j->mutex);
    g_cond_clear(&j->cond);
    g_free(j->id);
    g_free(j);
}

static BlkJob *job_new(BlkFront *f, const BlkCommitArgs *a)
{
    BlkJob *j = g_new0(BlkJob, 1);

    g_mutex_init(&j->mutex);
    g_cond_init(&j->cond);
    j->f = f;
    j->top = f->node.top;
    j->id = g_strdup(a->id ? a->id : f->node.name);
    j->args = *a;
    j->speed = a->speed;
    j->state = j->told = BLK_JOB_RUNNING;
    if (posix_memalign(&j->buf, MEMORY_ALIGN, PIECE) != 0)
        j->buf = NULL;
    return j;
}

bool blk_commit(BlkNode *disk, const BlkCommitArgs *a, GError **error)
{
    BlkFront *f = blk_front(disk);
    bool ok = false;

    if (!f)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "disk %s: its image is fixed",
                          disk->name);
    if (f->job)
        return lodge_fail(error, LODGE_ERROR_BUSY,
                          "disk %s: its top image is being merged already; wait for that",
                          disk->name);
    if (!can_merge(f, error)) {
        g_prefix_error(error, "disk %s: ", disk->name);
        return false;
    }
    BlkJob *j = job_new(f, a);
    if (j->buf) {
        blk_drain_begin(disk);
        ok = open_base(j, error);
        if (ok) {
            j->dirty = blk_dirty_new(f->node.limits.size);
            blk_front_set_dirty(f, j->dirty);
        }
        blk_drain_end(disk);
    } else {
        lodge_fail(error, LODGE_ERROR_LIMIT, "no memory");
    }
    if (!ok) {
        g_prefix_error(error, "disk %s: ", disk->name);
        job_free(j);
        return false;
    }
    f->job = j;
    j->thread = g_thread_new("lodge-merge", work, j);
    return true;
}

/* ---- end ---- */

static void warn_of(BlkJob *j, GError *error)
{
    lodge_warn("disk %s: %s", j->f->node.name, error->message);
    g_error_free(error);
}

/* The overlay stays: its base is for reading again. Drained. */
static void keep_overlay(BlkJob *j)
{
    GError *error = NULL;
    int err = blk_settle(j->base);

    if (err)
        lodge_warn("disk %s: '%s': cannot be written: %s; the overlay hides what that concerns",
                   j->f->node.name, blk_file_under(j->base)->path, g_strerror(err));
    BlkNode *base = blk_again(j->f, j->base, false, &error);
    if (base) {
        blk_lock_down(j->base, base);
        j->top->base = base;
        blk_again_take(j->base, base);
    } else { /* it serves as it is */
        warn_of(j, g_steal_pointer(&error));
    }
    if (!image_follow_base(j->top, &error))
        warn_of(j, error);
}

static bool failed(BlkJob *j, BlkNode *n, int err, const char *what, GError **error)
{
    j->reading = n == j->top;
    j->err = err;
    return lodge_fail_errno(error, err, "'%s': cannot %s", blk_file_under(n)->path, what);
}

/* Everything is in the base, and the overlay forgets what it has. Drained. */
static bool hand_over(BlkJob *j, GError **error)
{
    uint64_t at = 0;
    int err = 0;

    while (!err && copy_some(j, &at, TAKE, &err))
        ;
    if (err)
        return failed(j, j->reading ? j->top : j->base, err, j->reading ? "read" : "write", error);
    err = blk_settle(j->base);
    if (err)
        return failed(j, j->base, err, "write", error);
    if (!j->top->drv->make_empty(j->top, error) || !image_follow_base(j->top, error))
        return false;
    err = blk_settle(j->top);
    return !err || failed(j, j->top, err, "write", error);
}

static void base_takes_over(BlkJob *j)
{
    g_autofree char *old = g_strdup(blk_file_under(j->top)->path);

    j->top->base = NULL;
    blk_front_set_top(j->f, j->base);
    lodge_note("disk %s: merged into '%s', which is its image now; '%s' is empty: remove it, and "
               "name '%s' at the next start%s",
               j->f->node.name, blk_file_under(j->base)->path, old, blk_file_under(j->base)->path,
               j->top->drv == &blk_driver_umlcow
                   ? " (its record of the base's time was mended, and is wrong from the guest's "
                     "next write on)" : "");
    blk_node_free(j->top);
    j->top = NULL;
}

static void tell(BlkJob *j, BlkJobState state)
{
    BlkJobInfo info;

    j->told = state;
    blk_job_info(j, &info);
    info.state = state;
    if (j->args.tell)
        j->args.tell(j->args.opaque, &info);
}

/* The thread is gone. */
static void end(BlkJob *j, bool complete)
{
    BlkJobState state = BLK_JOB_CANCELLED;
    BlkFront *f = j->f;
    bool done = false;

    blk_drain_begin(&f->node);
    if (j->err)
        failed(j, j->reading ? j->top : j->base, j->err, j->reading ? "read" : "write", &j->error);
    else if (complete)
        done = hand_over(j, &j->error);
    blk_front_set_dirty(f, NULL);
    if (done)
        base_takes_over(j);
    else
        keep_overlay(j);
    blk_drain_end(&f->node);
    if (done)
        state = BLK_JOB_COMPLETED;
    else if (j->error) {
        state = BLK_JOB_FAILED;
        lodge_warn("disk %s: not merged: %s; the overlay stays in use and nothing is lost; make "
                   "room or mend that, then merge again", f->node.name, j->error->message);
    }
    f->job = NULL;
    tell(j, state);
    job_free(j);
}

/* Main was asked to look. */
static gboolean look(gpointer opaque)
{
    BlkJob *j = opaque;

    g_mutex_lock(&j->mutex);
    g_clear_pointer(&j->source, g_source_unref);
    bool over = j->over, complete = j->complete && !j->cancel;
    BlkJobState state = j->state;
    g_mutex_unlock(&j->mutex);
    if (state == BLK_JOB_READY && j->told != BLK_JOB_READY)
        tell(j, BLK_JOB_READY);
    if (over) {
        g_thread_join(g_steal_pointer(&j->thread));
        end(j, complete);
    }
    return G_SOURCE_REMOVE;
}

BlkJob *blk_job(BlkNode *disk)
{
    BlkFront *f = blk_front(disk);

    return f ? f->job : NULL;
}

void blk_job_info(BlkJob *j, BlkJobInfo *ret)
{
    g_mutex_lock(&j->mutex);
    *ret = (BlkJobInfo){.id = j->id, .disk = j->f->node.name, .state = j->state,
                        .offset = j->done, .speed = j->speed,
                        .error = j->error ? j->error->message : NULL, .err = j->err,
                        .reading = j->reading};
    ret->len = j->done + blk_dirty_bytes(j->dirty);
    g_mutex_unlock(&j->mutex);
}

static void say(BlkJob *j, bool cancel)
{
    g_mutex_lock(&j->mutex);
    j->cancel |= cancel;
    j->complete |= !cancel;
    g_cond_signal(&j->cond);
    g_mutex_unlock(&j->mutex);
}

void blk_job_complete(BlkJob *j)
{
    say(j, false);
}

void blk_job_cancel(BlkJob *j)
{
    say(j, true);
}

void blk_job_set_speed(BlkJob *j, uint64_t speed)
{
    g_mutex_lock(&j->mutex);
    j->speed = speed;
    g_cond_signal(&j->cond);
    g_mutex_unlock(&j->mutex);
}

void blk_job_abandon(BlkJob *j)
{
    say(j, true);
    g_thread_join(g_steal_pointer(&j->thread));
    end(j, false);
}
