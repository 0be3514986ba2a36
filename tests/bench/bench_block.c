/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the block path costs: random 4 KiB reads of a cached 64 MiB file, by a bare pread() loop and
 * through a node, for raw and overlay, both engines, 1 and 16 requests at once. Prints one line
 * each: name, reads a second. Short: about 0.3 s a line; the argument sets another time in ms.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lodge/block.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

#define FILE_BYTES (64 * MIB)
#define BLOCK 4096u
#define DEPTH_MAX 16u
#define LOOK_EVERY 64u /* reads between looks at the clock */

typedef struct Load {
    BlkNode *n;
    int64_t until_ns;
    uint64_t count;
    uint32_t seed;
    unsigned running;
    int failed;
    GMutex mutex;
    GCond cond;
    bool done; /* guarded by mutex */
    struct Slot {
        BlkReq req;
        struct iovec iov;
        uint8_t *buf;
        struct Load *load;
    } slot[DEPTH_MAX];
    unsigned depth;
} Load;

static uint64_t next_offset(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint64_t)(*seed >> 8) % (FILE_BYTES / BLOCK) * BLOCK;
}

static void slot_start(struct Slot *s)
{
    s->req.op = BLK_READ;
    s->req.offset = next_offset(&s->load->seed);
    s->req.len = BLOCK;
    s->req.iov = &s->iov;
    s->req.niov = 1;
    blk_submit(s->load->n, &s->req);
}

static void slot_done(BlkReq *req, int err)
{
    struct Slot *s = req->opaque;
    Load *l = s->load;

    if (err)
        l->failed = err;
    l->count++;
    if (l->count % LOOK_EVERY || clock_host_ns() < l->until_ns) {
        slot_start(s);
        return;
    }
    l->until_ns = 0;
    if (--l->running)
        return;
    g_mutex_lock(&l->mutex);
    l->done = true;
    g_cond_signal(&l->cond);
    g_mutex_unlock(&l->mutex);
}

static void load_start(void *opaque)
{
    Load *l = opaque;

    for (unsigned i = 0; i < l->depth; i++)
        slot_start(&l->slot[i]);
}

static void bench_node(const char *what, BlkNode *n, unsigned depth, int64_t ns)
{
    Load *l = g_new0(Load, 1);
    int64_t start = clock_host_ns();

    l->n = n;
    l->depth = l->running = depth;
    l->until_ns = start + ns;
    for (unsigned i = 0; i < depth; i++) {
        struct Slot *s = &l->slot[i];
        if (posix_memalign((void **)&s->buf, BLOCK, BLOCK) != 0)
            abort();
        s->load = l;
        s->iov = (struct iovec){s->buf, BLOCK};
        s->req.done = slot_done;
        s->req.opaque = s;
    }
    io_thread_call(blk_io_thread(n), load_start, l);
    g_mutex_lock(&l->mutex);
    while (!l->done)
        g_cond_wait(&l->cond, &l->mutex);
    g_mutex_unlock(&l->mutex);
    blk_drain_begin(n);
    blk_drain_end(n);
    printf("%-10s %-9s depth %2u  %10.0f/s%s\n", what, blk_engine(n), depth,
           l->count * 1e9 / (clock_host_ns() - start), l->failed ? "  FAILED" : "");
    for (unsigned i = 0; i < depth; i++)
        free(l->slot[i].buf);
    g_free(l);
}

static void bench_pread(const char *path, int64_t ns)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *buf = NULL;
    uint32_t seed = 1;
    uint64_t count = 0;
    int64_t start = clock_host_ns();

    if (fd < 0 || posix_memalign((void **)&buf, BLOCK, BLOCK) != 0)
        abort();
    while (count % LOOK_EVERY || clock_host_ns() < start + ns) {
        if (pread(fd, buf, BLOCK, next_offset(&seed)) != BLOCK)
            abort();
        count++;
    }
    printf("%-10s %-9s depth %2u  %10.0f/s\n", "pread", "-", 1u,
           count * 1e9 / (clock_host_ns() - start));
    free(buf);
    close(fd);
}

static char *make_file(const char *dir)
{
    char *path = g_build_filename(dir, "bench.img", NULL);
    g_autofree uint8_t *buf = g_malloc(MIB);
    int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

    memset(buf, 0x5a, MIB);
    for (uint64_t at = 0; fd >= 0 && at < FILE_BYTES; at += MIB)
        if (pwrite(fd, buf, MIB, at) != (ssize_t)MIB)
            abort();
    if (fd < 0)
        abort();
    close(fd);
    return path;
}

int main(int argc, char **argv)
{
    static const unsigned depths[] = {1, DEPTH_MAX};
    static const BlkAio engines[] = {BLK_AIO_AUTO, BLK_AIO_THREADS};
    int64_t ns = (argc > 1 ? strtol(argv[1], NULL, 10) : 300) * 1000000;
    g_autoptr(GError) error = NULL;
    g_autofree char *dir = g_dir_make_tmp("lodge-bench-XXXXXX", &error);
    LodgeClock *clock = lodge_clock_new();
    g_autoptr(IoThread) io = dir ? io_thread_new("bench", clock, &error) : NULL;

    if (!io) {
        fprintf(stderr, "bench_block: %s\n", error->message);
        return 1;
    }
    g_autofree char *image = make_file(dir), *cow = g_build_filename(dir, "bench.cow", NULL);
    bench_pread(image, ns);
    for (unsigned i = 0; i < 8 && !error; i++) {
        bool overlay = i & 4;
        BlkOptions o = {.file = overlay ? cow : image, .base = overlay ? image : NULL,
                        .aio = engines[i >> 1 & 1]};
        g_autoptr(BlkNode) n = blk_open("bench", &o, io, &error);
        if (n)
            bench_node(overlay ? "overlay" : "raw", n, depths[i & 1], ns);
    }
    if (error)
        fprintf(stderr, "bench_block: %s\n", error->message);
    unlink(image);
    unlink(cow);
    rmdir(dir);
    io_thread_free(g_steal_pointer(&io));
    lodge_clock_free(clock);
    return error != NULL;
}
