/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host whose disk is full, for images of every shape: a file system of our own in memory, so
 * small that it is full soon, where writes end early or not at all and holes cannot be filled.
 *
 * write: random requests go on while there is no room, and after there is again. Each says ENOSPC
 *        or has done its work; the image is sound then and holds what was written well.
 * stop:  the same with on-error=stop: requests wait until there is room, and none is lost.
 * make:  images are made and converted with a little more room each time, until it is enough; what
 *        does not fit says so and leaves nothing behind.
 *
 * FAULT_SEED sets the seed, which is printed; FAULT_SHAPE and FAULT_FORMAT pick shapes.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "medium.h"
#include "shapes.h"

#define SIZE (2 * MIB)
#define SECTORS (SIZE / 512)
#define LEN_MAX_SECTORS 150
#define STEPS 120u
#define ROOM (SIZE * 2)
#define LITTLE (96 * KIB) /* free beside a new image, at most */
#define MAKE_STEP (64 * KIB)

static char *place; /* where the file system is */

static void room(uint64_t bytes)
{
    g_autofree char *options = g_strdup_printf("size=%" G_GUINT64_FORMAT, bytes);

    g_assert_cmpint(mount("none", place, "tmpfs", MS_REMOUNT, options), ==, 0);
}

/* Bytes of files that are in use; what is left of a file system without more. */
static uint64_t in_use(BlockFix *f)
{
    GDir *dir = g_dir_open(f->dir, 0, NULL);
    uint64_t sum = 64 * KIB; /* folders and names */
    const char *name;
    GStatBuf st;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = block_fix_path(f, name);
        g_assert_cmpint(g_stat(path, &st), ==, 0);
        sum += (uint64_t)st.st_blocks * 512;
    }
    g_dir_close(dir);
    return align_up(sum, 4096);
}

typedef struct Job {
    BlkReq req;
    struct iovec iov;
    uint8_t buf[LEN_MAX_SECTORS * 512];
    gint done, stopped;
    int err;
} Job;

static void job_done(BlkReq *req, int err)
{
    Job *j = req->opaque;

    j->err = err;
    g_atomic_int_set(&j->done, 1);
}

static void on_stop(void *opaque, BlkNode *n, int err)
{
    Job *j = opaque;

    g_assert_cmpint(err, ==, ENOSPC);
    g_atomic_int_set(&j->stopped, 1);
}

/* A request to its end; when it stands still the host gets more room. */
static void run(BlkNode *n, Job *j, uint64_t *room_now)
{
    g_atomic_int_set(&j->done, 0);
    j->req.done = job_done;
    j->req.opaque = j;
    blk_submit(n, &j->req);
    while (!g_atomic_int_get(&j->done)) {
        if (g_atomic_int_compare_and_exchange(&j->stopped, 1, 0)) {
            *room_now += 128 * KIB;
            room(*room_now);
            blk_retry(n, false);
        }
        g_usleep(20);
    }
}

static void draw(Job *j, GRand *rand, uint64_t *ret_first, uint64_t *ret_n)
{
    uint64_t many = (uint64_t)g_rand_int_range(rand, 1, LEN_MAX_SECTORS + 1);
    uint64_t first = (uint64_t)g_rand_int_range(rand, 0, (int)(SECTORS - many + 1));
    unsigned what = (unsigned)g_rand_int_range(rand, 0, 10);

    *ret_first = first;
    *ret_n = many;
    j->req = (BlkReq){.op = what == 0   ? BLK_FLUSH
                            : what == 1 ? BLK_ZERO
                                        : BLK_WRITE,
                      .may_unmap = what & 1};
    if (what == 0)
        return;
    j->req.offset = first * 512;
    j->req.len = many * 512;
    memset(j->buf, what == 1 ? 0 : g_rand_int_range(rand, 1, 256), many * 512);
    if (what > 1) {
        j->iov = (struct iovec){j->buf, many * 512};
        j->req.iov = &j->iov;
        j->req.niov = 1;
    }
}

static void expect_sound(BlockFix *f, const Shape *s, const char *path, const uint8_t *want,
                         const bool *unsure)
{
    g_autoptr(BlkReport) r = blk_report_new();
    g_autofree uint8_t *got = g_malloc(SIZE);
    g_autoptr(GError) error = NULL;
    BlkNode *n = block_fix_open(f, &(BlkOptions){.file = path, .format = s->format});

    if (!image_check(n, false, r, &error))
        g_error("%s: %s", s->name, error->message);
    if (r->errors)
        g_error("%s: %s", s->name, (char *)g_ptr_array_index(r->lines, 0));
    g_assert_cmpint(blk_pread(n, got, 0, SIZE), ==, 0);
    for (uint64_t at = 0; at < SECTORS; at++)
        if (!unsure[at] && memcmp(got + at * 512, want + at * 512, 512) != 0)
            g_error("%s: sector %" G_GUINT64_FORMAT " is %02x, not %02x", s->name, at,
                    got[at * 512], want[at * 512]);
    blk_close(n);
}

static void life(const Shape *s, BlkOnError on_error)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(fault_seed());
    room(4 * ROOM);
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = NULL, *path = shape_make(f, s, SIZE, &base);
    g_autofree uint8_t *want = g_malloc(SIZE);
    g_autofree bool *unsure = g_new0(bool, SECTORS);
    g_autofree Job *j = g_new0(Job, 1);
    BlkOptions o = {.file = path, .format = s->format, .on_error = on_error,
                    .metadata_cache = 8192};
    uint64_t now = in_use(f) + (uint64_t)g_rand_int_range(rand, 0, LITTLE);
    unsigned full = 0;

    for (uint64_t i = 0; i < SIZE; i++)
        want[i] = shape_byte(s, i);
    BlkNode *n = block_fix_open(f, &o);
    if (on_error == BLK_ERROR_STOP)
        blk_on_stop(n, on_stop, j);
    uint64_t first_room = now;
    room(now);
    for (unsigned i = 0; i < STEPS; i++) {
        uint64_t first, many;
        draw(j, rand, &first, &many);
        run(n, j, &now);
        if (on_error == BLK_ERROR_STOP)
            g_assert_cmpint(j->err, ==, 0);
        else if (j->err)
            g_assert_cmpint(j->err, ==, ENOSPC);
        full += j->err == ENOSPC;
        if (j->req.op == BLK_FLUSH)
            continue;
        if (!j->err)
            memcpy(want + first * 512, j->buf, many * 512);
        memset(unsure + first, j->err != 0, many);
        if (i % 40 == 39 && on_error != BLK_ERROR_STOP) /* a little, and then enough */
            room(now += i < STEPS / 2 ? 64 * KIB : ROOM);
    }
    g_assert_true(full || now > first_room);
    room(4 * ROOM);
    g_assert_cmpint(blk_flush(n), ==, 0);
    blk_close(n);
    expect_sound(f, s, path, want, unsure);
    g_test_message("%u requests without room", full);
}

static void test_write(gconstpointer data)
{
    life(data, BLK_ERROR_REPORT);
}

static void test_stop(gconstpointer data)
{
    life(data, BLK_ERROR_STOP);
}

static void test_make(gconstpointer data)
{
    const Shape *s = data;
    room(4 * ROOM);
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *from = block_fix_image(f, "from", SIZE, 5), *to = block_fix_path(f, "to");
    g_autofree uint8_t *want = g_malloc(SIZE);
    g_autofree bool *unsure = g_new0(bool, SECTORS);
    uint64_t start = in_use(f) - 32 * KIB;
    unsigned refused = 0;
    bool ok = false;

    for (uint64_t i = 0; i < SIZE; i++)
        want[i] = block_fix_byte(i, 5);
    for (uint64_t more = 0; !ok; more += MAKE_STEP) {
        g_autoptr(GError) error = NULL;
        ConvertArgs a = {.from = from, .from_format = "raw",
                         .to = {.file = to, .format = s->format}};
        CopyResult result;
        g_assert_cmpuint(more, <, ROOM);
        room(start + more);
        ok = image_convert(&a, f->io, f->io, &result, &error);
        if (ok)
            break;
        refused++;
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
        g_assert_nonnull(strstr(error->message, g_strerror(ENOSPC)));
        g_assert_null(strchr(error->message, '\n'));
        g_assert_cmpuint(block_fix_count(f), ==, 1); /* the source */
    }
    g_assert_cmpuint(refused, >, 2);
    room(4 * ROOM);
    expect_sound(f, s, to, want, unsure);
}

static void clean_up(void)
{
    (void)umount2(place, MNT_DETACH);
    (void)g_rmdir(place);
    g_clear_pointer(&place, g_free);
}

/* A namespace for the file system; false: not allowed here. */
static bool prepare(void)
{
    g_autofree char *options = g_strdup_printf("size=%llu", (unsigned long long)(4 * ROOM));

    if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return false;
    place = g_strdup("/tmp/lodge-full-XXXXXX"); /* GLib's would keep its folder for good */
    if (g_mkdtemp(place) && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("none", place, "tmpfs", 0, options) == 0) {
        (void)atexit(clean_up);
        return true;
    }
    g_rmdir(place);
    return false;
}

static void test_nothing(void)
{
    g_test_skip("no file system of its own can be mounted here (needs root or user namespaces)");
}

int main(int argc, char **argv)
{
    bool ready = prepare(); /* before there are threads */

    if (ready)
        g_setenv("TMPDIR", place, TRUE);
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; ready && i < n_shapes; i++) {
        const Shape *s = &shapes[i];
        g_autofree char *write = g_strdup_printf("/full/write/%s", s->name);
        g_autofree char *stop = g_strdup_printf("/full/stop/%s", s->name);
        g_autofree char *make = g_strdup_printf("/full/make/%s", s->name);
        if (!shape_is_asked(s))
            continue;
        g_test_add_data_func(write, s, test_write);
        g_test_add_data_func(stop, s, test_stop);
        if (!s->base_format && !s->options && !s->block)
            g_test_add_data_func(make, s, test_make);
    }
    if (!ready)
        g_test_add_func("/full", test_nothing);
    return g_test_run();
}
