/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images put on top of a disk and merged away while it is in use: guests on threads of their own
 * write, read, zero and flush all the while, each its own blocks, and compare with a plain model.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

#include "blockfix.h"
#include "image_ops.h"
#include "live.h"

#define BLOCK 4096u
#define BLOCKS 1024u
#define SIZE ((uint64_t)BLOCKS * BLOCK)
#define GUESTS 4u
#define WAIT_S 60

typedef struct Disk Disk;

typedef struct Guest {
    Disk *d;
    unsigned which;
    GThread *thread;
    GRand *rand;
    uint64_t rounds; /* atomic */
    unsigned errors;
} Guest;

struct Disk {
    BlockFix *f;
    BlkNode *n;
    uint8_t model[BLOCKS]; /* what each block is filled with; a guest's own only */
    Guest guests[GUESTS];
    gint stop;
    bool may_fail;
    /* of the job */
    BlkJobState state;
    unsigned told;
    char *error;
    /* tap */
    BlkTap tap;
    gint ops, fail_at, failing;
    int fail_err;
};

typedef struct Wait {
    GMutex mutex;
    GCond cond;
    bool done;
    int err;
} Wait;

static void on_done(BlkReq *req, int err)
{
    Wait *w = req->opaque;

    g_mutex_lock(&w->mutex);
    w->done = true;
    w->err = err;
    g_cond_signal(&w->cond);
    g_mutex_unlock(&w->mutex);
}

/* As a device does, so that a drain parks it. */
static int request(BlkNode *n, BlkOp op, unsigned block, void *buf)
{
    struct iovec iov = {buf, BLOCK};
    Wait w = {.done = false};
    BlkReq req = {.op = op, .offset = (uint64_t)block * BLOCK, .len = op == BLK_FLUSH ? 0 : BLOCK,
                  .iov = buf ? &iov : NULL, .niov = buf ? 1 : 0, .may_unmap = true,
                  .done = on_done, .opaque = &w};

    g_mutex_init(&w.mutex);
    g_cond_init(&w.cond);
    blk_submit(n, &req);
    g_mutex_lock(&w.mutex);
    while (!w.done)
        g_cond_wait(&w.cond, &w.mutex);
    g_mutex_unlock(&w.mutex);
    g_mutex_clear(&w.mutex);
    g_cond_clear(&w.cond);
    return w.err;
}

static void fill(uint8_t *buf, unsigned block, uint8_t v)
{
    memset(buf, v, BLOCK);
    if (v)
        memcpy(buf + 8, &block, sizeof block);
}

static void expect_block(BlkNode *n, unsigned block, uint8_t v)
{
    uint8_t buf[BLOCK], want[BLOCK];

    fill(want, block, v);
    g_assert_cmpint(request(n, BLK_READ, block, buf), ==, 0);
    if (memcmp(buf, want, BLOCK))
        g_error("block %u: has %u, not %u", block, buf[0], v);
}

static void *guest(void *opaque)
{
    Guest *g = opaque;
    Disk *d = g->d;
    uint8_t buf[BLOCK];

    while (!g_atomic_int_get(&d->stop)) {
        unsigned b = (unsigned)g_rand_int_range(g->rand, 0, BLOCKS / GUESTS) * GUESTS + g->which;
        int what = g_rand_int_range(g->rand, 0, 16), err = 0;
        if (what == 0) {
            err = request(d->n, BLK_FLUSH, 0, NULL);
        } else if (what == 1) {
            err = request(d->n, BLK_ZERO, b, NULL);
            if (!err)
                d->model[b] = 0;
        } else if (what < 8) {
            expect_block(d->n, b, d->model[b]);
        } else {
            uint8_t v = (uint8_t)g_rand_int_range(g->rand, 1, 256);
            fill(buf, b, v);
            err = request(d->n, BLK_WRITE, b, buf);
            if (!err)
                d->model[b] = v;
        }
        if (err) {
            g_assert_true(d->may_fail);
            g->errors++;
            if (what == 1 || what >= 8) { /* its bytes are anything now: make it known again */
                g_atomic_int_set(&d->failing, 0);
                fill(buf, b, 7);
                g_assert_cmpint(request(d->n, BLK_WRITE, b, buf), ==, 0);
                d->model[b] = 7;
            }
        }
        g_atomic_pointer_add((gpointer *)&g->rounds, 1);
    }
    return NULL;
}

static void start_guests(Disk *d)
{
    g_atomic_int_set(&d->stop, 0);
    for (unsigned i = 0; i < GUESTS; i++) {
        Guest *g = &d->guests[i];
        g->d = d;
        g->which = i;
        g->rand = g_rand_new_with_seed(g_test_rand_int());
        g->thread = g_thread_new("guest", guest, g);
    }
}

static void stop_guests(Disk *d)
{
    g_atomic_int_set(&d->stop, 1);
    for (unsigned i = 0; i < GUESTS; i++) {
        g_thread_join(d->guests[i].thread);
        g_rand_free(d->guests[i].rand);
    }
}

/* Every guest has done @n more things. */
static void let_work(Disk *d, uint64_t n)
{
    for (unsigned i = 0; i < GUESTS; i++) {
        uint64_t from = (uint64_t)g_atomic_pointer_get((gpointer *)&d->guests[i].rounds);
        while ((uint64_t)g_atomic_pointer_get((gpointer *)&d->guests[i].rounds) < from + n)
            g_usleep(200);
    }
}

static void expect_all(Disk *d, BlkNode *n)
{
    g_autofree uint8_t *buf = g_malloc(SIZE);
    uint8_t want[BLOCK];

    g_assert_cmpint(blk_pread(n, buf, 0, SIZE), ==, 0);
    for (unsigned b = 0; b < BLOCKS; b++) {
        fill(want, b, d->model[b]);
        if (memcmp(buf + (size_t)b * BLOCK, want, BLOCK))
            g_error("block %u: has %u, not %u", b, buf[(size_t)b * BLOCK], d->model[b]);
    }
}

/* ---- taps ---- */

static int tap_before(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len, uint64_t *ret_mark)
{
    Disk *d = opaque;

    if (op == BLK_TAP_READ)
        return 0;
    int n = g_atomic_int_add(&d->ops, 1) + 1;
    if (g_atomic_int_get(&d->fail_at) && n == g_atomic_int_get(&d->fail_at))
        g_atomic_int_set(&d->failing, 1);
    return g_atomic_int_get(&d->failing) ? d->fail_err : 0;
}

static void tap_after(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len,
                      const struct iovec *iov, unsigned niov, uint64_t mark)
{
}

/* ---- disks ---- */

static Disk *disk_open(const char *format, bool tapped)
{
    g_autoptr(GError) error = NULL;
    Disk *d = g_new0(Disk, 1);

    d->f = block_fix_new();
    d->tap = (BlkTap){tap_before, tap_after, d};
    g_autofree char *path = block_fix_path(d->f, "base");
    g_assert_true(blk_make(&(BlkMake){.file = path, .format = format, .size = SIZE}, d->f->io,
                           &error));
    g_assert_no_error(error);
    d->n = blk_open("d0", &(BlkOptions){.file = path, .format = format,
                                        .cache = tapped ? BLK_CACHE_WRITEBACK : BLK_CACHE_UNSAFE,
                                        .tap = tapped ? &d->tap : NULL}, d->f->io, &error);
    g_assert_no_error(error);
    for (unsigned b = 0; b < BLOCKS; b += 3) {
        uint8_t buf[BLOCK];
        d->model[b] = (uint8_t)(b % 250 + 1);
        fill(buf, b, d->model[b]);
        g_assert_cmpint(blk_pwrite(d->n, buf, (uint64_t)b * BLOCK, BLOCK), ==, 0);
    }
    return d;
}

static void disk_free(Disk *d)
{
    blk_close(d->n);
    block_fix_free(d->f);
    g_free(d->error);
    g_free(d);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Disk, disk_free)

static bool overlay(Disk *d, const char *name, const char *format, GError **error)
{
    g_autofree char *path = block_fix_path(d->f, name);

    return blk_overlay(d->n, &(BlkOverlayArgs){.file = path, .format = format}, error);
}

static void must_overlay(Disk *d, const char *name, const char *format)
{
    g_autoptr(GError) error = NULL;

    overlay(d, name, format, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(blk_format(d->n), ==, format);
}

static void told(void *opaque, const BlkJobInfo *info)
{
    Disk *d = opaque;

    d->state = info->state;
    d->told++;
    g_free(d->error);
    d->error = g_strdup(info->error);
}

static bool commit(Disk *d, uint64_t speed, GError **error)
{
    d->state = BLK_JOB_RUNNING;
    return blk_commit(d->n, &(BlkCommitArgs){.context = NULL, .speed = speed, .tell = told,
                                             .opaque = d}, error);
}

static void must_commit(Disk *d, uint64_t speed)
{
    g_autoptr(GError) error = NULL;

    commit(d, speed, &error);
    g_assert_no_error(error);
}

/* Run main's loop until the job is @state or over. */
static void wait_state(Disk *d, BlkJobState state)
{
    gint64 deadline = g_get_monotonic_time() + WAIT_S * G_TIME_SPAN_SECOND;

    while (d->state < state) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        if (!g_main_context_iteration(NULL, FALSE))
            g_usleep(500);
    }
}

/* Merge, with the guest writing meanwhile. */
static void merge(Disk *d)
{
    must_commit(d, 0);
    wait_state(d, BLK_JOB_READY);
    g_assert_cmpint(d->state, ==, BLK_JOB_READY);
    blk_job_complete(blk_job(d->n));
    wait_state(d, BLK_JOB_COMPLETED);
    g_assert_cmpstr(d->error, ==, NULL);
    g_assert_cmpint(d->state, ==, BLK_JOB_COMPLETED);
    g_assert_null(blk_job(d->n));
}

/* The chain whose top is @name, opened by itself while it may be in use, reads as the model. */
static void expect_chain(Disk *d, const char *name, const char *format)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = block_fix_path(d->f, name);
    BlkOptions o = {.file = path, .format = format, .read_only = true};
    g_autoptr(BlkNode) n = blk_open_flags("look", &o, BLK_OPEN_UNLOCKED | BLK_OPEN_QUIET, d->f->io,
                                          &error);

    g_assert_no_error(error);
    expect_all(d, n);
}

static void expect_clean(Disk *d, const char *name, const char *format)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = block_fix_path(d->f, name);
    BlkOptions o = {.file = path, .format = format, .read_only = true};
    g_autoptr(BlkNode) n = blk_open_flags("look", &o, BLK_OPEN_UNLOCKED | BLK_OPEN_QUIET, d->f->io,
                                          &error);

    g_assert_no_error(error);
    if (!n->drv->check)
        return;
    g_autoptr(BlkReport) r = blk_report_new();
    g_assert_true(image_check(n, false, r, &error));
    g_assert_cmpuint(r->errors, ==, 0);
}

static void reopen(Disk *d, const char *name, const char *format)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = block_fix_path(d->f, name);

    blk_close(g_steal_pointer(&d->n));
    d->n = blk_open("d0", &(BlkOptions){.file = path, .format = format}, d->f->io, &error);
    g_assert_no_error(error);
}

/* ---- tests ---- */

typedef struct Pair {
    const char *base, *over;
} Pair;

static const Pair pairs[] = {
    {"raw", "qcow2"}, {"qcow2", "qcow2"}, {"raw", "umlcow"}, {"vhd", "qcow2"}, {"vdi", "qcow2"},
    {"vmdk", "qcow2"}, {"vhd", "vhd"}, {"vdi", "vdi"}, {"vmdk", "vmdk"},
};

/* Overlays of it record a state of their base. */
static bool records_state(const char *format)
{
    return !strcmp(format, "vhd") || !strcmp(format, "vdi") || !strcmp(format, "vmdk");
}

static void test_two_and_two(gconstpointer opaque)
{
    const Pair *p = opaque;
    g_autoptr(Disk) d = disk_open(p->base, false);

    start_guests(d);
    for (unsigned round = 0; round < (p == pairs ? 2 : 1); round++) {
        g_autofree char *one = g_strdup_printf("one%u", round);
        g_autofree char *two = g_strdup_printf("two%u", round);
        let_work(d, 20);
        must_overlay(d, one, p->over);
        let_work(d, 30);
        must_overlay(d, two, "qcow2");
        let_work(d, 30);
        merge(d);
        g_assert_cmpstr(blk_format(d->n), ==, p->over);
        let_work(d, 30);
        merge(d);
        g_assert_cmpstr(blk_format(d->n), ==, p->base);
        let_work(d, 20);
    }
    stop_guests(d);
    expect_all(d, d->n);
    g_assert_cmpint(blk_flush(d->n), ==, 0);
    expect_clean(d, "base", p->base);
    if (records_state(p->over)) { /* it is empty, and its record of the base is right still */
        expect_clean(d, "one0", p->over);
        reopen(d, "one0", p->over);
        expect_all(d, d->n);
        blk_close(g_steal_pointer(&d->n));
    }
    reopen(d, "base", p->base);
    expect_all(d, d->n);
    /* The overlays are empty: by their names too the disk reads as it is. */
    if (!strcmp(p->over, "qcow2"))
        expect_chain(d, "two0", "qcow2");
}

/* Move a file's time of modification by @s seconds. */
static void later(const char *path, int s)
{
    struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) + s}};

    g_assert_cmpint(utimensat(AT_FDCWD, path, t, 0), ==, 0);
}

/* A process that is killed while it merges leaves an overlay whose base may have any state. The
 * next change of the overlay records the state that is, and from then on another is refused. */
static void test_killed_merge(gconstpointer opaque)
{
    const char *format = opaque;
    g_autoptr(Disk) d = disk_open(format, false);
    g_autofree char *over = block_fix_path(d->f, "over"), *base = block_fix_path(d->f, "base");
    g_autofree char *kept = NULL;
    uint8_t buf[BLOCK];
    gsize len;

    must_overlay(d, "over", format);
    start_guests(d);
    let_work(d, 100);
    must_commit(d, 0);
    wait_state(d, BLK_JOB_READY);
    let_work(d, 20);
    stop_guests(d);
    g_assert_cmpint(blk_flush(d->n), ==, 0);
    g_assert_true(g_file_get_contents(over, &kept, &len, NULL));
    blk_job_cancel(blk_job(d->n));
    wait_state(d, BLK_JOB_COMPLETED);
    blk_close(g_steal_pointer(&d->n));
    g_assert_true(g_file_set_contents(over, kept, (gssize)len, NULL));
    later(base, 20);
    expect_clean(d, "over", format);
    reopen(d, "over", format);
    expect_all(d, d->n);
    fill(buf, 5, 77);
    d->model[5] = 77;
    g_assert_cmpint(request(d->n, BLK_WRITE, 5, buf), ==, 0);
    reopen(d, "over", format);
    expect_all(d, d->n);
    reopen(d, "base", format);
    g_assert_cmpint(request(d->n, BLK_WRITE, 5, buf), ==, 0);
    blk_close(g_steal_pointer(&d->n));
    later(base, 40);
    block_fix_refused(d->f, &(BlkOptions){.file = over, .format = format}, LODGE_ERROR_CONFIG,
                      "was changed since");
}

static void test_cancel(gconstpointer opaque)
{
    const Pair *p = opaque;
    g_autoptr(Disk) d = disk_open(p->base, false);
    g_autoptr(GError) error = NULL;

    must_overlay(d, "over", p->over);
    start_guests(d);
    for (unsigned round = 0; round < 3; round++) {
        let_work(d, 100);
        must_commit(d, round % 2 ? 0 : SIZE / 4);
        g_assert_false(commit(d, 0, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
        g_clear_error(&error);
        g_assert_false(overlay(d, "more", "qcow2", &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
        g_clear_error(&error);
        let_work(d, 20);
        if (round % 2)
            wait_state(d, BLK_JOB_READY);
        blk_job_cancel(blk_job(d->n));
        wait_state(d, BLK_JOB_COMPLETED);
        g_assert_cmpint(d->state, ==, BLK_JOB_CANCELLED);
        g_assert_cmpstr(blk_format(d->n), ==, p->over);
    }
    stop_guests(d);
    expect_all(d, d->n);
    reopen(d, "over", p->over);
    expect_all(d, d->n);
    merge(d);
    expect_all(d, d->n);
}

/* Whenever the process ends, the chain opens, and what was flushed is there. */
static void test_cut_short(gconstpointer opaque)
{
    const Pair *p = opaque;
    g_autoptr(Disk) d = disk_open(p->base, false);

    must_overlay(d, "over", p->over);
    start_guests(d);
    let_work(d, 100);
    stop_guests(d);
    g_assert_cmpint(blk_flush(d->n), ==, 0);
    g_usleep(1100000); /* so that the base's time, in seconds, moves */
    must_commit(d, SIZE / 8);
    for (unsigned i = 0; i < 8; i++) {
        expect_chain(d, "over", p->over);
        g_usleep(20000);
    }
    blk_job_set_speed(blk_job(d->n), 0);
    wait_state(d, BLK_JOB_READY);
    expect_chain(d, "over", p->over);
    /* It is closed in the middle, which is like a cancel. */
    reopen(d, "over", p->over);
    g_assert_cmpint(d->state, ==, BLK_JOB_CANCELLED);
    expect_all(d, d->n);
}

/* A killed process leaves the note about the base's time; a later change is refused as ever. */
static void test_note(void)
{
    g_autoptr(Disk) d = disk_open("raw", false);
    g_autoptr(GError) error = NULL;
    g_autofree char *over = block_fix_path(d->f, "over"), *base = block_fix_path(d->f, "base");
    g_autofree char *kept = NULL;
    gsize len;

    must_overlay(d, "over", "umlcow");
    must_commit(d, 0);
    wait_state(d, BLK_JOB_READY);
    g_assert_true(g_file_get_contents(over, &kept, &len, NULL));
    blk_job_cancel(blk_job(d->n));
    wait_state(d, BLK_JOB_COMPLETED);
    blk_close(g_steal_pointer(&d->n));
    for (int late = 0; late < 2; late++) {
        struct timespec t[2] = {{.tv_nsec = UTIME_OMIT},
                                {.tv_sec = time(NULL) + (late ? 1000 : 20)}};
        g_assert_true(g_file_set_contents(over, kept, (gssize)len, NULL));
        g_assert_cmpint(utimensat(AT_FDCWD, base, t, 0), ==, 0);
        d->n = blk_open("d0", &(BlkOptions){.file = over}, d->f->io, &error);
        if (late) {
            g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
            g_assert_nonnull(strstr(error->message, "mtime mismatch"));
            continue;
        }
        g_assert_no_error(error);
        expect_all(d, d->n);
        reopen(d, "over", "umlcow"); /* the header was mended */
        blk_close(g_steal_pointer(&d->n));
    }
}

/* Each host call of an overlay's making fails in turn: all is as before. */
static void test_overlay_fails(void)
{
    g_autoptr(Disk) d = disk_open("qcow2", true);
    g_autofree char *path = block_fix_path(d->f, "over");
    bool ok = false;

    d->fail_err = ENOSPC;
    for (int n = 1; !ok; n++) {
        g_autoptr(GError) error = NULL;
        uint8_t buf[BLOCK];
        /* Something is to be written back. */
        fill(buf, 700 + (unsigned)n, 9);
        g_assert_cmpint(request(d->n, BLK_WRITE, 700 + (unsigned)n, buf), ==, 0);
        d->model[700 + n] = 9;
        g_atomic_int_set(&d->fail_at, g_atomic_int_get(&d->ops) + n);
        ok = overlay(d, "over", "qcow2", &error);
        g_atomic_int_set(&d->fail_at, 0);
        g_atomic_int_set(&d->failing, 0);
        g_assert_cmpint(n, <, 100);
        if (ok)
            break;
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
        g_assert_nonnull(strstr(error->message, "No space left"));
        g_assert_cmpint(access(path, F_OK), ==, -1);
        expect_all(d, d->n);
    }
    expect_all(d, d->n);
    merge(d);
    expect_all(d, d->n);
}

/* Each host call of a merge fails in turn, for good until the job is over. */
static void test_commit_fails(gconstpointer opaque)
{
    const Pair *p = opaque;
    g_autoptr(Disk) d = disk_open(p->base, true);
    unsigned failures = 0;

    d->fail_err = ENOSPC;
    d->may_fail = true;
    must_overlay(d, "over", p->over);
    start_guests(d);
    let_work(d, 100);
    stop_guests(d);
    for (int n = 1;; n += 1 + n / 5) {
        g_autoptr(GError) error = NULL;
        g_atomic_int_set(&d->fail_at, g_atomic_int_get(&d->ops) + n);
        bool began = commit(d, 0, &error);
        if (began) {
            wait_state(d, BLK_JOB_READY);
            if (d->state == BLK_JOB_READY)
                blk_job_complete(blk_job(d->n));
            wait_state(d, BLK_JOB_COMPLETED);
        }
        g_atomic_int_set(&d->fail_at, 0);
        g_atomic_int_set(&d->failing, 0);
        expect_all(d, d->n);
        if (began && d->state == BLK_JOB_COMPLETED)
            break;
        failures++;
        g_assert_cmpstr(blk_format(d->n), ==, p->over);
        const char *text = began ? d->error : error->message;
        if (!strstr(text, "No space left"))
            g_error("'%s' names no reason", text);
        g_assert_cmpint(blk_flush(d->n), ==, 0);
        expect_chain(d, "over", p->over);
    }
    g_test_message("%u failures", failures);
    g_assert_cmpuint(failures, >, 5);
    g_assert_cmpstr(blk_format(d->n), ==, p->base);
    g_assert_cmpint(blk_flush(d->n), ==, 0);
    expect_clean(d, "base", p->base);
}

static void refuse(bool ok, GError **e, int code, const char *text)
{
    g_autoptr(GError) error = g_steal_pointer(e);

    g_assert_false(ok);
    g_assert_error(error, LODGE_ERROR, code);
    if (!strstr(error->message, text))
        g_error("'%s' is not in '%s'", text, error->message);
}

static void test_refused(void)
{
    g_autoptr(Disk) d = disk_open("raw", false);
    g_autofree char *base = block_fix_path(d->f, "base");
    g_autofree char *more = block_fix_path(d->f, "more"), *other = block_fix_path(d->f, "other");
    GError *e = NULL;
    BlkMake make = {.file = other, .format = "qcow2", .size = SIZE};

    refuse(commit(d, 0, &e), &e, LODGE_ERROR_CONFIG, "has no base to be merged into");
    refuse(overlay(d, "base", "qcow2", &e), &e, LODGE_ERROR_EXISTS,
           "is there already; name a file");
    refuse(overlay(d, "over", "raw", &e), &e, LODGE_ERROR_UNSUPPORTED, "has no overlays");
    refuse(overlay(d, "over", "floppy", &e), &e, LODGE_ERROR_CONFIG, "not known; it can be");
    refuse(overlay(d, "no/such", "qcow2", &e), &e, LODGE_ERROR_HOST, "cannot make the overlay");
    e = NULL;
    BlkOverlayArgs a = {.file = other, .format = "qcow2", .existing = true};
    refuse(blk_overlay(d->n, &a, &e), &e, LODGE_ERROR_CONFIG, "no such file");
    g_assert_true(blk_make(&make, d->f->io, NULL));
    refuse(blk_overlay(d->n, &a, &e), &e, LODGE_ERROR_CONFIG, "records 'nothing' as its base");
    a.file = base;
    a.format = "qcow2";
    refuse(blk_overlay(d->n, &a, &e), &e, LODGE_ERROR_CONFIG, "is in the disk's chain already");
    /* A base that another one reads is not written. */
    must_overlay(d, "over", "qcow2");
    g_autoptr(BlkNode) reader = block_fix_open(d->f, &(BlkOptions){.file = base, .format = "raw",
                                                                   .read_only = true});
    refuse(commit(d, 0, &e), &e, LODGE_ERROR_BUSY, "in use by");
    expect_all(d, d->n);
    blk_close(g_steal_pointer(&reader));
    merge(d);
    expect_all(d, d->n);
    /* snapshot=on and read-only disks. */
    blk_close(g_steal_pointer(&d->n));
    d->n = blk_open("d0", &(BlkOptions){.file = base, .format = "raw", .snapshot = true}, d->f->io,
                    NULL);
    refuse(overlay(d, "more", "qcow2", &e), &e, LODGE_ERROR_UNSUPPORTED, "snapshot=on");
    refuse(commit(d, 0, &e), &e, LODGE_ERROR_UNSUPPORTED, "snapshot=on");
    blk_close(g_steal_pointer(&d->n));
    d->n = blk_open("d0", &(BlkOptions){.file = base, .format = "raw", .read_only = true},
                    d->f->io, NULL);
    refuse(overlay(d, "more", "qcow2", &e), &e, LODGE_ERROR_CONFIG, "read-only here");
    /* A UML COW file does not record the format of its base. */
    blk_close(g_steal_pointer(&d->n));
    d->n = blk_open("d0", &(BlkOptions){.file = more, .base = other, .base_format = "qcow2"},
                    d->f->io, NULL);
    refuse(overlay(d, "over2", "qcow2", &e), &e, LODGE_ERROR_UNSUPPORTED, "does not record that");
}

/* After an overlay was made, others may read the base, and none may write it; and the overlay that
 * was made by others before is taken. */
static void test_existing_and_locks(void)
{
    g_autoptr(Disk) d = disk_open("raw", false);
    g_autoptr(GError) error = NULL;
    g_autofree char *base = block_fix_path(d->f, "base"), *other = block_fix_path(d->f, "other");
    g_autofree char *copy = block_fix_path(d->f, "copy"), *longer = block_fix_path(d->f, "longer");
    BlkOptions o = {.file = base, .format = "raw"};
    BlkMake make = {.file = other, .format = "qcow2", .base = copy, .base_format = "raw"};

    /* Made over a copy that then takes the name away: the base itself is locked. */
    g_assert_cmpint(truncate(base, SIZE), ==, 0);
    g_assert_cmpint(link(base, copy), ==, 0);
    block_fix_refused(d->f, &o, LODGE_ERROR_BUSY, "in use by");
    blk_close(g_steal_pointer(&d->n));
    g_assert_true(blk_make(&make, d->f->io, &error));
    make.file = longer;
    make.size = 2 * SIZE;
    g_assert_true(blk_make(&make, d->f->io, &error));
    d->n = blk_open("d0", &o, d->f->io, &error);
    g_assert_no_error(error);
    BlkOverlayArgs odd = {.file = longer, .format = "qcow2", .existing = true};
    GError *e = NULL;
    refuse(blk_overlay(d->n, &odd, &e), &e, LODGE_ERROR_CONFIG, "make it of the same size");
    BlkOverlayArgs a = {.file = other, .format = "qcow2", .existing = true};
    blk_overlay(d->n, &a, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(blk_format(d->n), ==, "qcow2");
    expect_all(d, d->n);
    block_fix_refused(d->f, &o, LODGE_ERROR_BUSY, "in use by");
    o.read_only = true;
    blk_close(block_fix_open(d->f, &o));
    merge(d);
    block_fix_refused(d->f, &o, LODGE_ERROR_BUSY, "in use by");
    expect_all(d, d->n);
}

/* With O_DIRECT, and limits and error policies of the disk, which stay over all images. */
static void test_direct(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = block_fix_image(f, "base", SIZE, 0);
    g_autoptr(GError) error = NULL;
    Disk *d = g_new0(Disk, 1);

    d->f = f;
    d->n = blk_open("d0", &(BlkOptions){.file = base, .format = "raw", .cache = BLK_CACHE_NONE,
                                        .iops = 100000, .on_error = BLK_ERROR_STOP,
                                        .detect_zeroes = true}, f->io, &error);
    if (!d->n && strstr(error->message, "O_DIRECT")) {
        g_test_skip("no O_DIRECT here");
        g_free(d);
        return;
    }
    g_assert_no_error(error);
    start_guests(d);
    must_overlay(d, "over", "qcow2");
    let_work(d, 30);
    g_assert_true(blk_file_under(d->n->top)->direct);
    merge(d);
    g_assert_true(blk_file_under(d->n->top)->direct);
    let_work(d, 30);
    must_overlay(d, "cow", "umlcow");
    let_work(d, 30);
    merge(d);
    stop_guests(d);
    expect_all(d, d->n);
    BlkStats s;
    blk_stats(d->n, &s);
    g_assert_cmpuint(s.ops[BLK_WRITE], >, 100);
    blk_close(d->n);
    g_free(d->error);
    g_free(d);
}

static void test_resize(void)
{
    g_autoptr(Disk) d = disk_open("raw", false);
    GError *e = NULL;
    BlkLimits l;

    start_guests(d);
    g_assert_true(blk_disk_resize(d->n, SIZE + 65536, false, NULL));
    let_work(d, 20);
    must_overlay(d, "over", "qcow2");
    g_assert_true(blk_disk_resize(d->n, SIZE * 2, false, NULL));
    let_work(d, 20);
    blk_limits(d->n, &l);
    g_assert_cmpuint(l.size, ==, SIZE * 2);
    merge(d); /* the base grows too */
    let_work(d, 20);
    stop_guests(d);
    blk_limits(d->n, &l);
    g_assert_cmpuint(l.size, ==, SIZE * 2);
    expect_block(d->n, BLOCKS * 2 - 1, 0);
    expect_all(d, d->n);
    refuse(blk_disk_resize(d->n, SIZE, false, &e), &e, LODGE_ERROR_CONFIG, "would lose the rest");
}

/* What nobody said the format of may not become another one by a merge. */
static void test_guard(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = block_fix_image(f, "base", SIZE, 3), *over = block_fix_path(f, "over");
    Disk d = {.f = f};
    uint8_t buf[BLOCK] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};

    d.n = blk_open("d0", &(BlkOptions){.file = over, .base = base}, f->io, NULL);
    g_assert_cmpstr(blk_format(d.n), ==, "umlcow");
    g_assert_cmpint(request(d.n, BLK_WRITE, 0, buf), ==, 0);
    must_commit(&d, 0);
    wait_state(&d, BLK_JOB_COMPLETED);
    g_assert_cmpint(d.state, ==, BLK_JOB_FAILED);
    g_assert_cmpstr(blk_format(d.n), ==, "umlcow");
    buf[0] = 'R';
    g_assert_cmpint(request(d.n, BLK_WRITE, 0, buf), ==, 0);
    merge(&d);
    buf[0] = 'Q';
    g_assert_cmpint(request(d.n, BLK_WRITE, 0, buf), ==, EIO);
    blk_close(d.n);
    g_free(d.error);
}

#define DISK ((uint64_t)8 << 20)

static void test_dirty(void)
{
    BlkDirty *d = blk_dirty_new(DISK);
    uint64_t at = 0, from, len;

    g_assert_cmpuint(blk_dirty_bytes(d), ==, DISK);
    g_assert_true(blk_dirty_take(d, &at, UINT64_MAX, &from, &len));
    g_assert_cmpuint(from, ==, 0);
    g_assert_cmpuint(len, ==, DISK);
    g_assert_cmpuint(blk_dirty_bytes(d), ==, 0);
    blk_dirty_set(d, 65536 * 3 - 1, 2);
    blk_dirty_set(d, 65536 * 70, 1);
    blk_dirty_set(d, DISK, 512);
    g_assert_cmpuint(blk_dirty_bytes(d), ==, 65536 * 3);
    at = 65536;
    g_assert_true(blk_dirty_take(d, &at, UINT64_MAX, &from, &len));
    g_assert_cmpuint(from, ==, 65536 * 2);
    g_assert_cmpuint(len, ==, 65536 * 2);
    g_assert_cmpuint(at, ==, 65536 * 4);
    g_assert_true(blk_dirty_take(d, &at, 1, &from, &len));
    g_assert_cmpuint(from, ==, 65536 * 70);
    g_assert_false(blk_dirty_take(d, &at, 1, &from, &len));
    blk_dirty_free(d);
    d = blk_dirty_new((uint64_t)1 << 62); /* however large the disk */
    blk_dirty_set(d, ((uint64_t)1 << 62) - 1, 1);
    at = ((uint64_t)1 << 62) - 512;
    g_assert_true(blk_dirty_take(d, &at, 1, &from, &len));
    g_assert_cmpuint(from + len, ==, (uint64_t)1 << 62);
    blk_dirty_free(d);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/live/dirty", test_dirty);
    for (unsigned i = 0; i < G_N_ELEMENTS(pairs); i++) {
        g_autofree char *name = g_strdup_printf("%s-on-%s", pairs[i].over, pairs[i].base);
        g_autofree char *two = g_strdup_printf("/live/two-and-two/%s", name);
        g_autofree char *cancel = g_strdup_printf("/live/cancel/%s", name);
        g_autofree char *cut = g_strdup_printf("/live/cut-short/%s", name);
        g_autofree char *fails = g_strdup_printf("/live/commit-fails/%s", name);
        g_test_add_data_func(two, &pairs[i], test_two_and_two);
        if (i < 3 || records_state(pairs[i].over)) {
            g_test_add_data_func(cancel, &pairs[i], test_cancel);
            g_test_add_data_func(cut, &pairs[i], test_cut_short);
            g_test_add_data_func(fails, &pairs[i], test_commit_fails);
        }
    }
    g_test_add_data_func("/live/killed-merge/vhd", "vhd", test_killed_merge);
    g_test_add_data_func("/live/killed-merge/vdi", "vdi", test_killed_merge);
    g_test_add_data_func("/live/killed-merge/vmdk", "vmdk", test_killed_merge);
    g_test_add_func("/live/note", test_note);
    g_test_add_func("/live/overlay-fails", test_overlay_fails);
    g_test_add_func("/live/refused", test_refused);
    g_test_add_func("/live/existing-and-locks", test_existing_and_locks);
    g_test_add_func("/live/resize", test_resize);
    g_test_add_func("/live/direct", test_direct);
    g_test_add_func("/live/guard", test_guard);
    return g_test_run();
}
