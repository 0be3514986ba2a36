/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2 against qemu-img and a plain buffer: all shapes of images, scribbled on. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "qcow2.h"
#include "qcow2fix.h"

static bool need_qemu(void)
{
    return block_fix_need("qemu-img", "qemu-utils");
}

typedef struct Shape {
    const char *name, *options, *base;
    uint64_t size;
    unsigned steps;
    uint32_t most;
} Shape;

static const Shape shapes[] = {
    {"default", NULL, NULL, 8 * MIB, 300, 200000},
    {"overlay", NULL, "base.img", 8 * MIB, 300, 200000},
    {"v2", "compat=0.10", NULL, 8 * MIB, 300, 200000},
    {"v2-overlay", "compat=0.10,cluster-size=4K", "base.img", 4 * MIB, 300, 50000},
    {"cluster-512", "cluster-size=512", "base.img", MIB, 400, 20000},
    {"cluster-2M", "cluster-size=2M", "base.img", 16 * MIB + 512, 100, 1000000},
    {"refs-1", "refcount-bits=1,cluster-size=512", NULL, 4 * MIB, 300, 50000},
    {"refs-2", "refcount-bits=2,cluster-size=1K", NULL, 4 * MIB, 200, 50000},
    {"refs-4", "refcount-bits=4,cluster-size=2K", NULL, 4 * MIB, 200, 50000},
    {"refs-8", "refcount-bits=8,cluster-size=512", NULL, 4 * MIB, 200, 50000},
    {"refs-32", "refcount-bits=32,cluster-size=512", NULL, 4 * MIB, 200, 50000},
    {"refs-64", "refcount-bits=64,cluster-size=512", NULL, 16 * MIB, 300, 500000},
    {"preallocated", "preallocation=metadata,cluster-size=4K", NULL, 4 * MIB + 512, 200, 50000},
    {"lazy", "lazy-refcounts=on,cluster-size=8K", "base.img", 4 * MIB + 1536, 200, 50000},
};

/* Clusters that were freed keep their bytes where the host cannot punch holes. */
static void test_no_holes(void)
{
    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(4 * MIB, NULL, NULL, 0);
    for (unsigned round = 0; round < 6; round++) {
        blk_file_under(t->n)->no_punch = true;
        twin_scribble(t, 150, 100000);
        twin_reopen(t);
        g_assert_cmpint(blk_pread(t->n, t->buf, 0, t->size), ==, 0);
        g_assert_cmpmem(t->buf, t->size, t->want, t->size);
    }
    twin_compare(t);
}

static void test_scribble(gconstpointer opaque)
{
    const Shape *s = opaque;

    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(s->size, s->options, s->base, s->base ? 5 : 0);
    twin_compare(t);
    for (unsigned round = 0; round < 2; round++) {
        twin_scribble(t, s->steps, s->most);
        twin_compare(t);
    }
}


/* ---- snapshots ---- */

#define SNAPS 5u

typedef struct Saved {
    char name[16];
    uint8_t *bytes; /* owned; NULL: not there */
} Saved;

static void snap_step(Twin *t, Saved *s)
{
    const BlkSnapOps *ops = t->n->drv->snap;
    g_autoptr(GError) error = NULL;
    bool ok = true;

    if (!s->bytes) {
        ok = ops->create(t->n, s->name, &error);
        s->bytes = g_memdup2(t->want, t->size);
    } else if (g_rand_int_range(t->rand, 0, 2)) {
        ok = ops->apply(t->n, s->name, &error);
        memcpy(t->want, s->bytes, t->size);
    } else {
        ok = ops->remove(t->n, s->name, &error);
        g_clear_pointer(&s->bytes, g_free);
    }
    g_assert_no_error(error);
    g_assert_true(ok);
}

static void check_saved(Twin *t, const Saved *s)
{
    g_autofree char *path = block_fix_path(t->f, "s.raw");
    g_autofree char *raw = NULL;
    gsize len;

    if (!s->bytes)
        return;
    g_assert_cmpint(twin_run(t->f, "qemu-img convert -l snapshot.name=%s -O raw d.qcow2 s.raw",
                             s->name), ==, 0);
    g_assert_true(g_file_get_contents(path, &raw, &len, NULL));
    g_assert_cmpmem(raw, len, s->bytes, t->size);
}

static void test_snapshots(gconstpointer opaque)
{
    const Shape *s = opaque;
    Saved saved[SNAPS] = {0};

    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(s->size, s->options, s->base, s->base ? 5 : 0);
    for (unsigned i = 0; i < SNAPS; i++)
        g_snprintf(saved[i].name, sizeof saved[i].name, "s%u", i);
    for (unsigned round = 0; round < s->steps; round++) {
        twin_scribble(t, 30, s->most);
        snap_step(t, &saved[g_rand_int_range(t->rand, 0, SNAPS)]);
        twin_scribble(t, 30, s->most);
        twin_compare(t);
        blk_close(g_steal_pointer(&t->n)); /* our lock keeps others out */
        for (unsigned i = 0; i < SNAPS; i++)
            check_saved(t, &saved[i]);
        t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
        g_autoptr(GPtrArray) list = t->n->drv->snap->list(t->n, NULL);
        unsigned n = 0;
        for (unsigned i = 0; i < SNAPS; i++)
            n += saved[i].bytes != NULL;
        g_assert_cmpuint(list->len, ==, n);
    }
    for (unsigned i = 0; i < SNAPS; i++)
        g_free(saved[i].bytes);
}

static const Shape snap_shapes[] = {
    {"default", NULL, NULL, 4 * MIB, 8, 200000},
    {"overlay-512", "cluster-size=512", "base.img", MIB, 6, 20000},
    {"v2", "compat=0.10,cluster-size=4K", "base.img", 2 * MIB, 6, 50000},
    {"refs-4", "refcount-bits=4,cluster-size=1K", NULL, 2 * MIB, 6, 50000},
};

/* A count of one bit cannot say 2: refused, and nothing is changed. */
static void test_snapshot_full(void)
{
    g_autoptr(GError) error = NULL;

    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(MIB, "refcount-bits=1", NULL, 0);
    twin_write(t, 65536, 65536 * 3, 7);
    g_assert_false(t->n->drv->snap->create(t->n, "s", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    twin_scribble(t, 50, 100000);
    twin_compare(t);
    g_clear_error(&error);
    g_assert_false(t->n->drv->snap->apply(t->n, "s", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND);
}

/* ---- compressed ---- */

static void pack(Twin *t, uint64_t offset, uint64_t len, bool random)
{
    for (uint64_t i = 0; i < len; i++)
        t->want[offset + i] = random ? g_rand_int(t->rand) : (offset + i) / 700;
    struct iovec iov = {t->want + offset, len};
    BlkReq req = {.op = BLK_WRITE, .compress = true, .offset = offset, .len = len, .iov = &iov,
                  .niov = 1};
    g_assert_cmpint(blk_wait(t->n, &req), ==, 0);
}

static void test_compressed(gconstpointer opaque)
{
    const Shape *s = opaque;

    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(s->size, s->options, s->base, s->base ? 5 : 0);
    uint32_t cs = t->n->limits.block;
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 20; i++) {
            uint64_t at = g_rand_int_range(t->rand, 0, s->size / cs) * (uint64_t)cs;
            pack(t, at, MIN(s->size - at, 3 * cs), i % 4 == 3);
        }
        pack(t, s->size / cs * cs, s->size % cs, false); /* the last piece */
        pack(t, 0, cs, false);
        twin_compare(t);
        g_autoptr(BlkReport) r = blk_report_new();
        g_assert_true(t->n->drv->check(t->n, false, r, NULL));
        g_assert_cmpuint(r->compressed, >, 0);
        twin_scribble(t, 60, 2 * cs);
        twin_compare(t);
    }
    g_assert_true(t->n->drv->snap->create(t->n, "s", NULL));
    twin_scribble(t, 100, 2 * cs);
    twin_compare(t);
    g_assert_true(t->n->drv->snap->remove(t->n, "s", NULL));
    twin_compare(t);
}

static const Shape packed_shapes[] = {
    {"zlib", NULL, "base.img", 4 * MIB + 4096, 0, 0},
    {"zstd", "compression-type=zstd", NULL, 4 * MIB + 4096, 0, 0},
    {"zlib-4K-v2", "compat=0.10,cluster-size=4K", "base.img", MIB + 512, 0, 0},
    {"zstd-2M", "cluster-size=2M,compression-type=zstd", NULL, 8 * MIB, 0, 0},
};

/* What qemu-img makes of a raw file, read and written by us. */
static void test_foreign(gconstpointer opaque)
{
    const char *options = opaque;
    bool extended = strstr(options, "extended_l2=on") != NULL;

    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(4 * MIB, NULL, NULL, 0);
    g_autofree char *path = block_fix_path(t->f, "src.raw");
    for (unsigned i = 0; i < 40; i++) {
        uint64_t at = g_rand_int_range(t->rand, 0, t->size / 512) * 512ull;
        uint64_t len = g_rand_int_range(t->rand, 1, 200) * 512ull;
        len = MIN(len, t->size - at);
        for (uint64_t k = 0; k < len; k++)
            t->want[at + k] = i % 2 ? at / 512 + k / 999 : g_rand_int(t->rand);
    }
    g_assert_true(g_file_set_contents(path, (char *)t->want, t->size, NULL));
    blk_close(g_steal_pointer(&t->n));
    g_assert_cmpint(twin_run(t->f, "qemu-img convert -f raw -O qcow2 %s src.raw d.qcow2", options),
                    ==, 0);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path, .read_only = extended});
    g_assert_cmpint(blk_pread(t->n, t->buf, 0, t->size), ==, 0);
    g_assert_cmpmem(t->buf, t->size, t->want, t->size);
    if (extended) {
        blk_close(g_steal_pointer(&t->n));
        block_fix_refused(t->f, &(BlkOptions){.file = t->path}, LODGE_ERROR_UNSUPPORTED,
                          "extended L2");
        twin_own_check(t, false, 0, 0);
        return;
    }
    twin_compare(t);
    twin_scribble(t, 200, 100000);
    twin_compare(t);
}

static const char *const foreign[] = {
    "-c", "-o compat=0.10", "-o compat=0.10 -c", "-o compression_type=zstd -c",
    "-o cluster_size=512", "-o cluster_size=2M -c", "-o preallocation=metadata",
    "-o preallocation=full,cluster_size=4k", "-o lazy_refcounts=on,refcount_bits=64",
    "-o extended_l2=on", "-o extended_l2=on,cluster_size=16k -c",
};

/* Subclusters in every state, beside a base, read as qemu-io wrote them. */
static void test_subclusters(void)
{
    if (!need_qemu() || !block_fix_need("qemu-io", "qemu-utils"))
        return;
    g_autoptr(Twin) t = twin_new(2 * MIB, NULL, "base.img", 5);
    blk_close(g_steal_pointer(&t->n));
    g_assert_cmpint(twin_run(t->f, "qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k"
                                   " -b base.img -F raw d.qcow2 2M"), ==, 0);
    for (unsigned i = 0; i < 30; i++) {
        uint64_t at = g_rand_int_range(t->rand, 0, t->size / 2048) * 2048ull;
        uint64_t len = g_rand_int_range(t->rand, 1, 40) * 2048ull;
        len = MIN(len, t->size - at);
        bool zero = i % 3 == 2;
        memset(t->want + at, zero ? 0 : i + 1, len);
        g_autofree char *cmd = zero ? g_strdup_printf("write -z %" G_GUINT64_FORMAT " %"
                                                      G_GUINT64_FORMAT, at, len)
                                    : g_strdup_printf("write -P %u %" G_GUINT64_FORMAT " %"
                                                      G_GUINT64_FORMAT, i + 1, at, len);
        const char *argv[] = {"qemu-io", "-f", "qcow2", "-c", cmd, t->path, NULL};
        int status;
        g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL,
                                   G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL,
                                   NULL, NULL, &status, NULL));
        g_assert_cmpint(status, ==, 0);
    }
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path, .read_only = true});
    g_assert_cmpint(blk_pread(t->n, t->buf, 0, t->size), ==, 0);
    g_assert_cmpmem(t->buf, t->size, t->want, t->size);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t at = g_rand_int_range(t->rand, 0, t->size / 512) * 512ull;
        uint64_t len = g_rand_int_range(t->rand, 1, 300) * 512ull;
        len = MIN(len, t->size - at);
        g_assert_cmpint(blk_pread(t->n, t->buf, at, len), ==, 0);
        g_assert_cmpmem(t->buf, len, t->want + at, len);
    }
}

/* ---- many at once ---- */

#define CLIENTS 12u
#define STRIPES (512 * CLIENTS) /* in the lower half, each has one sector of these */

typedef struct Client {
    Twin *t;
    GRand *rand; /* owned */
    unsigned id, left;
    BlkReq req;
    struct iovec iov;
    uint8_t *buf; /* owned; half of the disk divided by CLIENTS, at most */
    gint *alive;
} Client;

static void client_next(Client *c);

static void client_done(BlkReq *req, int err)
{
    Client *c = req->opaque;

    g_assert_cmpint(err, ==, 0);
    if (req->op == BLK_READ)
        g_assert_cmpmem(c->buf, req->len, c->t->want + req->offset, req->len);
    client_next(c);
}

static void client_next(Client *c)
{
    Twin *t = c->t;
    uint64_t half = t->size / 2, own = align_down(half / CLIENTS, 512), at, len;
    unsigned what = g_rand_int_range(c->rand, 0, 16);

    if (!c->left--) {
        g_atomic_int_add(c->alive, -1);
        return;
    }
    if (g_rand_boolean(c->rand)) { /* one sector between those of the others */
        at = g_rand_int_range(c->rand, 0, half / STRIPES) * (uint64_t)STRIPES + c->id * 512;
        len = 512;
    } else { /* a range of its own, borders inside clusters */
        at = g_rand_int_range(c->rand, 0, own / 512) * 512ull;
        len = g_rand_int_range(c->rand, 1, own / 512 + 1) * 512ull;
        len = MIN(len, own - at);
        at += half + c->id * own;
    }
    c->req = (BlkReq){.op = what < 8 ? BLK_WRITE : what < 11 ? BLK_READ
                            : what < 12 ? BLK_FLUSH : what < 14 ? BLK_ZERO : BLK_DISCARD,
                      .may_unmap = what & 1, .compress = what == 7, .offset = at, .len = len,
                      .iov = &c->iov, .niov = 1, .done = client_done, .opaque = c};
    c->iov = (struct iovec){c->buf, len};
    if (c->req.op == BLK_WRITE) {
        for (uint64_t k = 0; k < len; k += 512)
            memset(c->buf + k, g_rand_int(c->rand), 512);
        memcpy(t->want + at, c->buf, len);
    } else if (c->req.op == BLK_ZERO || c->req.op == BLK_DISCARD) {
        memset(t->want + at, 0, len);
    } else if (c->req.op == BLK_FLUSH) {
        c->req.offset = c->req.len = 0;
    }
    blk_submit(t->n, &c->req);
}

static void clients_start(void *opaque)
{
    Client *c = opaque;

    for (unsigned i = 0; i < CLIENTS; i++)
        client_next(&c[i]);
}

/* Clients that share clusters, never sectors, all at once. */
static void test_crowd(gconstpointer opaque)
{
    const Shape *s = opaque;
    Client c[CLIENTS] = {0};
    gint alive;

    if (!need_qemu())
        return;
    g_autoptr(Twin) t = twin_new(s->size, s->options, s->base, s->base ? 5 : 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        c[i] = (Client){.t = t, .rand = g_rand_new_with_seed(g_rand_int(t->rand)), .id = i,
                        .buf = g_malloc0(s->size / 2 / CLIENTS), .alive = &alive};
    for (unsigned round = 0; round < 3; round++) {
        blk_close(t->n); /* with little memory for tables */
        t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path, .metadata_cache = 16384});
        if (round == 1)
            g_assert_true(t->n->drv->snap->create(t->n, "s", NULL));
        for (unsigned i = 0; i < CLIENTS; i++)
            c[i].left = s->steps;
        g_atomic_int_set(&alive, CLIENTS);
        io_thread_call(t->f->io, clients_start, c);
        while (g_atomic_int_get(&alive))
            g_usleep(1000);
        twin_compare(t);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        g_rand_free(c[i].rand);
        g_free(c[i].buf);
    }
}

static const Shape crowd_shapes[] = {
    {"default", NULL, NULL, 12 * MIB, 150, 0},
    {"overlay-4K", "cluster-size=4K", "base.img", 6 * MIB, 150, 0},
    {"overlay-512", "cluster-size=512,refcount-bits=64", "base.img", 3 * MIB, 150, 0},
    {"v2", "compat=0.10", "base.img", 12 * MIB, 100, 0},
};

/* A new overlay is what the end of its name says. */
static void test_by_name(void)
{
    static const struct {
        const char *name, *format;
    } cases[] = {{"o.qcow2", "qcow2"}, {"o.cow", "umlcow"}, {"o", "umlcow"}};
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = block_fix_image(f, "base.img", 1 << 20, 1);

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = block_fix_path(f, cases[i].name);
        BlkNode *n = block_fix_open(f, &(BlkOptions){.file = path, .base = base});

        g_assert_cmpstr(blk_format(blk_top(n)), ==, cases[i].format);
        blk_close(n);
    }
}

int main(int argc, char **argv)
{
    twin_init(&argc, &argv);
    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/scribble/%s", shapes[i].name);
        g_test_add_data_func(path, &shapes[i], test_scribble);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(snap_shapes); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/snapshots/%s", snap_shapes[i].name);
        g_test_add_data_func(path, &snap_shapes[i], test_snapshots);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(packed_shapes); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/compressed/%s", packed_shapes[i].name);
        g_test_add_data_func(path, &packed_shapes[i], test_compressed);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(foreign); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/foreign/%u", i);
        g_test_add_data_func(path, foreign[i], test_foreign);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(crowd_shapes); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/crowd/%s", crowd_shapes[i].name);
        g_test_add_data_func(path, &crowd_shapes[i], test_crowd);
    }
    g_test_add_func("/qcow2/no-holes", test_no_holes);
    g_test_add_func("/qcow2/snapshot-full", test_snapshot_full);
    g_test_add_func("/qcow2/subclusters", test_subclusters);
    g_test_add_func("/qcow2/by-name", test_by_name);
    return g_test_run();
}
