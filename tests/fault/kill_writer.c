/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * kill -9 under write load, for each format that can be made: a child writes to an image and says
 * after each flush how far it is; it is killed at a random point. The image must then be free at
 * once, open, pass the check, and hold all that was flushed. Child and parent draw the same requests
 * from the same seed.
 *
 * FAULT_SEED sets the seed, which is printed; FAULT_KILLS how often each format's writer is killed
 * (10); FAULT_FORMAT picks one format.
 */
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"
#include "image_ops.h"

#define SIZE (4 * MIB)
#define SECTORS (SIZE / 512)
#define LEN_MAX_SECTORS 100u
#define FLUSH_EVERY 16u
#define KILL_MAX_US 60000

/* The next request: a write of one byte's value, 0: zeros by BLK_ZERO. */
typedef struct Draw {
    uint64_t first, n; /* sectors */
    uint8_t value;
} Draw;

static Draw draw(GRand *rand)
{
    Draw d;

    d.n = g_rand_int_range(rand, 1, g_rand_int_range(rand, 0, 3) ? 17 : LEN_MAX_SECTORS);
    d.first = g_rand_int_range(rand, 0, SECTORS - d.n + 1);
    d.value = g_rand_int_range(rand, 0, 8) ? g_rand_int_range(rand, 1, 256) : 0;
    return d;
}

/* The child: never returns but with an error. */
static int write_on(const char *path, const char *format, guint32 seed)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autoptr(GError) error = NULL;
    g_autofree uint8_t *buf = g_malloc(LEN_MAX_SECTORS * 512);
    IoThread *io = io_thread_new("writer", lodge_clock_new(), &error);
    BlkOptions o = {.file = path, .format = format, .metadata_cache = 8192};
    BlkNode *n = io ? blk_open_flags(NULL, &o, BLK_OPEN_QUIET, io, &error) : NULL;

    if (!n) {
        fprintf(stderr, "writer: %s\n", error->message);
        return 1;
    }
    for (uint64_t i = 0;; i++) {
        Draw d = draw(rand);
        BlkReq zero = {.op = BLK_ZERO, .offset = d.first * 512, .len = d.n * 512};
        memset(buf, d.value, d.n * 512);
        if (d.value ? blk_pwrite(n, buf, d.first * 512, d.n * 512) : blk_wait(n, &zero))
            return 2;
        if (i % FLUSH_EVERY)
            continue;
        if (blk_flush(n))
            return 3;
        printf("%" G_GUINT64_FORMAT "\n", i + 1);
        fflush(stdout);
    }
}

/* Start a writer, kill it. Return: how many requests it had flushed. */
static uint64_t kill_one(const char *path, const char *format, guint32 seed, GRand *rand)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *seed_text = g_strdup_printf("%u", seed);
    const char *argv[] = {self, "--writer", path, format, seed_text, NULL};
    g_autoptr(GError) error = NULL;
    uint64_t flushed = 0;
    char line[64];
    int out, status;
    GPid pid;

    g_spawn_async_with_pipes(NULL, (char **)argv, NULL, G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &pid,
                             NULL, &out, NULL, &error);
    g_assert_no_error(error);
    FILE *f = fdopen(out, "r");
    /* It has begun, and goes on for a while. */
    if (!fgets(line, sizeof line, f))
        g_error("the writer said nothing");
    flushed = g_ascii_strtoull(line, NULL, 10);
    g_usleep(g_rand_int_range(rand, 0, KILL_MAX_US));
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    while (fgets(line, sizeof line, f)) /* a line that is not whole is a flush not told of */
        if (strchr(line, '\n'))
            flushed = g_ascii_strtoull(line, NULL, 10);
    fclose(f);
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    return flushed;
}

static void expect_sound(BlockFix *f, const char *path, const char *format, guint32 seed,
                         uint64_t flushed, uint8_t *want)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autofree bool *open = g_new0(bool, SECTORS);
    g_autofree uint8_t *got = g_malloc(SIZE);
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkReport) r = blk_report_new();
    BlkOptions o = {.file = path, .format = format};

    for (uint64_t i = 0; i < flushed; i++) {
        Draw d = draw(rand);
        memset(want + d.first * 512, d.value, d.n * 512);
    }
    for (unsigned i = 0; i < 2 * FLUSH_EVERY; i++) { /* may have been written, or not */
        Draw d = draw(rand);
        for (uint64_t s = d.first; s < d.first + d.n; s++)
            open[s] = true;
    }
    g_autoptr(BlkNode) n = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, f->io, &error);
    g_assert_no_error(error);
    if (n->drv->check && !image_check(n, false, r, &error))
        g_error("seed %u: check: %s", seed, error->message);
    if (r->errors)
        g_error("seed %u: %s", seed, (char *)g_ptr_array_index(r->lines, 0));
    g_assert_cmpint(blk_pread(n, got, 0, SIZE), ==, 0);
    for (uint64_t s = 0; s < SECTORS; s++)
        if (!open[s] && memcmp(got + s * 512, want + s * 512, 512) != 0)
            g_error("seed %u, %" G_GUINT64_FORMAT " requests flushed: sector %" G_GUINT64_FORMAT
                    " is %02x..., not %02x...", seed, flushed, s, got[s * 512], want[s * 512]);
    memcpy(want, got, SIZE);
}

/* One image lives through all of its writers. */
static void test_kill(gconstpointer data)
{
    const BlkDriver *drv = data;
    const char *text = g_getenv("FAULT_SEED"), *kills_text = g_getenv("FAULT_KILLS");
    guint32 seed = text ? (guint32)g_ascii_strtoull(text, NULL, 0) : g_random_int();
    unsigned kills = kills_text ? (unsigned)g_ascii_strtoull(kills_text, NULL, 0) : 10;
    g_autoptr(BlockFix) f = block_fix_new();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    g_autoptr(GError) error = NULL;
    g_autofree char *path = block_fix_path(f, "image");
    g_autofree uint8_t *want = g_malloc0(SIZE);
    bool overlay = drv->flags & BLK_DRV_NEEDS_BASE;
    g_autofree char *base = overlay ? block_fix_image(f, "base", SIZE, 3) : NULL;
    BlkMake make = {.file = path, .format = drv->name, .base = base, .size = SIZE};
    uint64_t all = 0;

    g_test_message("FAULT_SEED=%u", seed);
    for (uint64_t i = 0; overlay && i < SIZE; i++)
        want[i] = block_fix_byte(i, 3);
    blk_make(&make, f->io, &error);
    g_assert_no_error(error);
    for (unsigned i = 0; i < kills; i++) {
        guint32 one = g_rand_int(rand);
        uint64_t flushed = kill_one(path, drv->name, one, rand);
        expect_sound(f, path, drv->name, one, flushed, want);
        all += flushed;
    }
    g_test_message("%" G_GUINT64_FORMAT " requests", all);
}

int main(int argc, char **argv)
{
    const char *only = g_getenv("FAULT_FORMAT");
    const BlkDriver *drv;

    if (argc == 5 && !strcmp(argv[1], "--writer"))
        return write_on(argv[2], argv[3], (guint32)g_ascii_strtoull(argv[4], NULL, 10));
    if (g_access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", TRUE); /* the host goes on: nothing is to be synced */
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; (drv = blk_driver_at(i)); i++) {
        g_autofree char *name = g_strdup_printf("/kill/%s", drv->name);
        if (drv->create && (!only || !strcmp(only, drv->name)))
            g_test_add_data_func(name, drv, test_kill);
    }
    return g_test_run();
}
