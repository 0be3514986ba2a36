/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What image formats stand on: chains of bases and what is refused in them, the worker, the cache
 * of metadata, new files. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "block_int.h"
#include "blockfix.h"
#include "cow_header.h"

#define SIZE ((uint64_t)64 << 10)

/* ---- chains ---- */

/* An overlay "N.cow" of @base, with sector @n filled with @n; transfer full. */
static char *layer(BlockFix *f, unsigned n, const char *base, const char *base_format)
{
    g_autofree char *name = g_strdup_printf("%u.cow", n);
    char *path = block_fix_path(f, name);
    BlkOptions o = {.file = path, .base = base, .base_format = base_format};
    g_autoptr(BlkNode) node = block_fix_open(f, &o);
    uint8_t buf[512];

    memset(buf, n, sizeof buf);
    g_assert_cmpint(blk_pwrite(node, buf, n * 512, 512), ==, 0);
    return path;
}

static void test_chain(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = block_fix_image(f, "base.img", SIZE, 3);
    g_autofree char *one = layer(f, 1, base, NULL);
    g_autofree char *two = layer(f, 2, one, "umlcow");
    uint8_t buf[2048];

    block_fix_refused(f, &(BlkOptions){.file = two}, LODGE_ERROR_UNSUPPORTED,
                      "base-format=umlcow");
    block_fix_refused(f, &(BlkOptions){.file = two, .base_format = "raw"}, LODGE_ERROR_CONFIG,
                      "Size mismatch");
    block_fix_refused(f, &(BlkOptions){.file = two, .base_format = "wow"}, LODGE_ERROR_CONFIG,
                      "base-format 'wow'");
    block_fix_refused(f, &(BlkOptions){.file = base, .base_format = "raw"}, LODGE_ERROR_CONFIG,
                      "leave base-format= out");
    g_autoptr(BlkNode) n =
        block_fix_open(f, &(BlkOptions){.file = two, .base_format = "umlcow"});
    g_assert_cmpint(blk_pread(n, buf, 0, 2048), ==, 0);
    g_assert_cmpuint(buf[5], ==, block_fix_byte(5, 3));
    g_assert_cmpuint(buf[512], ==, 1);
    g_assert_cmpuint(buf[1024], ==, 2);
    g_assert_cmpuint(buf[1541], ==, block_fix_byte(1541, 3));
    g_assert_cmpstr(blk_format(n->base), ==, "umlcow");
    g_assert_true(n->base->read_only);
    g_assert_cmpuint(blk_base_part(n, SIZE - 512, 4096), ==, 512);
    g_assert_cmpuint(blk_base_part(n, SIZE, 4096), ==, 0);
}

/* Let the header of overlay @path name @backing. */
static void redirect(const char *path, const char *backing)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    g_assert_cmpint(pwrite(fd, backing, strlen(backing) + 1, 32), >, 0);
    close(fd);
}

static void test_hostile_bases(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = block_fix_image(f, "base.img", SIZE, 3);
    g_autofree char *one = layer(f, 1, base, NULL);
    g_autofree char *two = layer(f, 2, one, "umlcow");
    g_autofree char *fifo = block_fix_path(f, "fifo");
    BlkOptions o1 = {.file = one}, o2 = {.file = two, .base_format = "umlcow"};

    /* A tool's message names the image that is at fault, once. */
    g_autoptr(GError) error = NULL;
    redirect(one, "gone.img");
    BlkNode *n = blk_open_flags(NULL, &o2, BLK_OPEN_QUIET, f->io, &error);
    g_assert_null(n);
    g_autofree char *want = g_strdup_printf("'%s': backing file name at offset 32: '", one);
    g_assert_true(g_str_has_prefix(error->message, want));
    redirect(one, two); /* two -> one -> two */
    block_fix_refused(f, &o2, LODGE_ERROR_CONFIG, "the chain is a loop");
    block_fix_refused(f, &o2, LODGE_ERROR_CONFIG, "1.cow': backing file name at offset 32: base");
    redirect(one, one);
    block_fix_refused(f, &o1, LODGE_ERROR_CONFIG, "the chain is a loop");
    redirect(one, "1.cow"); /* beside it: itself */
    block_fix_refused(f, &o1, LODGE_ERROR_CONFIG, "the chain is a loop");
    redirect(one, "/dev/zero");
    block_fix_refused(f, &o1, LODGE_ERROR_CONFIG,
                      "backing file name at offset 32 names '/dev/zero', which is a device");
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    redirect(one, "fifo"); /* opening it would wait for ever */
    block_fix_refused(f, &o1, LODGE_ERROR_CONFIG, "names");
    redirect(one, f->dir);
    block_fix_refused(f, &o1, LODGE_ERROR_CONFIG, "which is a directory");
    redirect(one, "base.img"); /* relative: beside the overlay */
    blk_close(block_fix_open(f, &o1));
}

/* ---- the worker ---- */

typedef struct Piece {
    BlkWork work;
    unsigned id;
    GThread *ran_on;
    bool on_loop;
    GArray *order; /* of done() */
    gint *left;
    int answer;
} Piece;

static int piece_run(BlkNode *n, BlkWork *w)
{
    Piece *p = (Piece *)w;
    uint8_t buf[512];

    p->ran_on = g_thread_self();
    /* Blocking calls on the node below and on its file are allowed here. */
    g_assert_cmpint(blk_pread(n->file, buf, 512, 512), ==, 0);
    g_assert_cmpuint(buf[0], ==, block_fix_byte(512, 5));
    g_assert_cmpint(blk_file_read_at((BlkFile *)n->file, buf, 512, 1024), ==, 0);
    g_assert_cmpuint(buf[0], ==, block_fix_byte(1024, 5));
    return p->answer;
}

static void piece_done(BlkNode *n, BlkWork *w, int err)
{
    Piece *p = (Piece *)w;

    p->on_loop = io_thread_is_current(n->io);
    g_assert_cmpint(err, ==, p->answer);
    g_array_append_val(p->order, p->id);
    g_atomic_int_add(p->left, -1);
}

typedef struct Pieces {
    BlkNode *n;
    Piece piece[20];
    bool idle_before, idle_after;
} Pieces;

static void pieces_start(void *opaque)
{
    Pieces *p = opaque;

    p->idle_before = blk_work_idle(p->n);
    for (unsigned i = 0; i < G_N_ELEMENTS(p->piece); i++)
        blk_work(p->n, &p->piece[i].work);
    p->idle_after = blk_work_idle(p->n);
}

static void pieces_idle(void *opaque)
{
    Pieces *p = opaque;

    p->idle_after = blk_work_idle(p->n);
}

static void test_worker(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path = block_fix_image(f, "a.img", SIZE, 5);
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = path});
    g_autoptr(GArray) order = g_array_new(FALSE, FALSE, sizeof(unsigned));
    Pieces p = {.n = n};
    gint left = G_N_ELEMENTS(p.piece);

    for (unsigned i = 0; i < G_N_ELEMENTS(p.piece); i++)
        p.piece[i] = (Piece){.work = {.run = piece_run, .done = piece_done}, .id = i,
                             .order = order, .left = &left, .answer = i % 3 ? 0 : EIO};
    io_thread_call(f->io, pieces_start, &p);
    int64_t until = g_get_monotonic_time() + 30 * G_TIME_SPAN_SECOND;
    while (g_atomic_int_get(&left) && g_get_monotonic_time() < until)
        g_usleep(200);
    g_assert_cmpint(g_atomic_int_get(&left), ==, 0);
    g_assert_true(p.idle_before);
    g_assert_false(p.idle_after);
    io_thread_call(f->io, pieces_idle, &p);
    g_assert_true(p.idle_after);
    for (unsigned i = 0; i < G_N_ELEMENTS(p.piece); i++) {
        g_assert_cmpuint(g_array_index(order, unsigned, i), ==, i);
        g_assert_true(p.piece[i].on_loop);
        g_assert_true(p.piece[i].ran_on == p.piece[0].ran_on);
        g_assert_true(p.piece[i].ran_on != g_thread_self());
    }
}

/* ---- the cache ---- */

#define BLOCK 4096u

typedef struct Meta {
    BlockFix *f;
    char *path;
    BlkNode *n;
    BlkFile *file;
    BlkMeta *m;
} Meta;

static Meta *meta_new(uint64_t bytes)
{
    Meta *t = g_new0(Meta, 1);

    t->f = block_fix_new();
    t->path = block_fix_image(t->f, "a.img", SIZE, 5);
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path});
    t->file = blk_file_under(t->n);
    t->m = blk_meta_new(t->file, BLOCK, bytes, 3);
    return t;
}

static void meta_free(Meta *t)
{
    blk_meta_free(t->m);
    blk_close(t->n);
    block_fix_free(t->f);
    g_free(t->path);
    g_free(t);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Meta, meta_free)

/* The first byte of the block in memory, or -1. */
static int peek(Meta *t, uint64_t offset)
{
    blk_meta_lock(t->m);
    const uint8_t *p = blk_meta_peek(t->m, offset);
    int v = p ? *p : -1;
    blk_meta_unlock(t->m);
    return v;
}

static int on_disk(Meta *t, uint64_t offset)
{
    uint8_t v;

    g_assert_cmpint(blk_file_read_at(t->file, &v, 1, offset), ==, 0);
    return v;
}

static void test_meta(void)
{
    g_autoptr(Meta) t = meta_new(4 * BLOCK);
    uint8_t buf[3 * BLOCK];

    g_assert_cmpint(peek(t, 0), ==, -1);
    g_assert_cmpint(blk_meta_load(t->m, 0), ==, 0);
    g_assert_cmpint(peek(t, 0), ==, block_fix_byte(0, 5));
    /* Across blocks, and past the end of the file: zeros. */
    g_assert_cmpint(blk_meta_read(t->m, BLOCK + 100, buf, BLOCK), ==, 0);
    for (unsigned i = 0; i < BLOCK; i++)
        g_assert_cmpuint(buf[i], ==, block_fix_byte(BLOCK + 100 + i, 5));
    g_assert_cmpint(blk_meta_read(t->m, SIZE, buf, 10), ==, 0);
    g_assert_cmpuint(buf[0], ==, 0);
    /* Full (0, 1, 2 and 16): the least recently used goes. */
    g_assert_cmpint(peek(t, 0), >=, 0);
    g_assert_cmpint(blk_meta_load(t->m, 5 * BLOCK), ==, 0);
    g_assert_cmpint(peek(t, 1 * BLOCK), ==, -1);
    g_assert_cmpint(peek(t, 0), >=, 0);
    /* A change is in memory until a flush. */
    memset(buf, 0xee, sizeof buf);
    g_assert_false(blk_meta_dirty(t->m));
    g_assert_cmpint(blk_meta_write(t->m, 2 * BLOCK - 8, buf, 16, 1), ==, 0);
    g_assert_true(blk_meta_dirty(t->m));
    g_assert_cmpint(peek(t, 2 * BLOCK), ==, 0xee);
    g_assert_cmpint(on_disk(t, 2 * BLOCK), ==, block_fix_byte(2 * BLOCK, 5));
    g_assert_cmpint(blk_meta_flush(t->m), ==, 0);
    g_assert_false(blk_meta_dirty(t->m));
    g_assert_cmpint(on_disk(t, 2 * BLOCK), ==, 0xee);
    g_assert_cmpint(on_disk(t, 2 * BLOCK - 1), ==, 0xee);
    g_assert_cmpint(on_disk(t, 2 * BLOCK + 8), ==, block_fix_byte(2 * BLOCK + 8, 5));
    /* New blocks are zeros whatever the file has; what is forgotten is never written. */
    g_assert_cmpint(blk_meta_fresh(t->m, 6 * BLOCK, 0), ==, 0);
    g_assert_cmpint(peek(t, 6 * BLOCK), ==, 0);
    g_assert_cmpint(blk_meta_write(t->m, 7 * BLOCK, buf, 16, 2), ==, 0);
    blk_meta_forget(t->m, 7 * BLOCK + 1, 1);
    g_assert_cmpint(peek(t, 7 * BLOCK), ==, -1);
    g_assert_cmpint(blk_meta_flush(t->m), ==, 0);
    g_assert_cmpint(on_disk(t, 6 * BLOCK), ==, 0);
    g_assert_cmpint(on_disk(t, 7 * BLOCK), ==, block_fix_byte(7 * BLOCK, 5));
}

/* More dirty blocks than there is room for: all of them reach the file. */
static void test_meta_full(void)
{
    g_autoptr(Meta) t = meta_new(4 * BLOCK);
    uint8_t v;

    for (unsigned i = 0; i < 16; i++) {
        v = 100 + i;
        g_assert_cmpint(blk_meta_write(t->m, i * BLOCK, &v, 1, i % 3), ==, 0);
    }
    for (unsigned i = 0; i < 16; i++) {
        g_assert_cmpint(blk_meta_read(t->m, i * BLOCK, &v, 1), ==, 0);
        g_assert_cmpuint(v, ==, 100 + i);
    }
    g_assert_cmpint(blk_meta_flush(t->m), ==, 0);
    for (unsigned i = 0; i < 16; i++)
        g_assert_cmpint(on_disk(t, i * BLOCK), ==, 100 + i);
}

/* A rank that fails keeps the higher ones back, and all is written when it works again. */
static void test_meta_ranks(void)
{
    g_autoptr(Meta) t = meta_new(8 * BLOCK);
    uint8_t v = 0xee;
    struct rlimit old, low;

    /* The lower rank lies where files may not be written now. */
    g_assert_cmpint(blk_meta_write(t->m, 8 * BLOCK, &v, 1, 0), ==, 0);
    g_assert_cmpint(blk_meta_write(t->m, 0, &v, 1, 1), ==, 0);
    signal(SIGXFSZ, SIG_IGN);
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old), ==, 0);
    low = old;
    low.rlim_cur = 8 * BLOCK;
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &low), ==, 0);
    int err = blk_meta_flush(t->m);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old), ==, 0);
    g_assert_cmpint(err, ==, EFBIG);
    g_assert_true(blk_meta_dirty(t->m));
    g_assert_cmpint(on_disk(t, 0), ==, block_fix_byte(0, 5));
    g_assert_cmpint(blk_meta_flush(t->m), ==, 0);
    g_assert_false(blk_meta_dirty(t->m));
    g_assert_cmpint(on_disk(t, 0), ==, 0xee);
    g_assert_cmpint(on_disk(t, 8 * BLOCK), ==, 0xee);
}

/* ---- making ---- */

static void test_make(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = block_fix_image(f, "base.img", 70000, 3);
    g_autofree char *raw = block_fix_path(f, "raw.img");
    g_autofree char *cow = block_fix_path(f, "o.cow");
    g_autoptr(GHashTable) opts = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GError) error = NULL;
    struct stat st;

    g_assert_true(blk_make(&(BlkMake){.file = raw, .size = 12345}, f->io, &error));
    g_assert_cmpint(stat(raw, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 12345);
    g_assert_false(blk_make(&(BlkMake){.file = raw, .size = 512}, f->io, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_clear_error(&error);
    g_assert_true(
        blk_make(&(BlkMake){.file = raw, .size = 512, .overwrite = true}, f->io, &error));
    g_assert_cmpint(stat(raw, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 512);
    g_assert_true(blk_make(&(BlkMake){.file = cow, .base = base}, f->io, &error));
    g_autoptr(BlkNode) n = block_fix_open(f, &(BlkOptions){.file = cow});
    g_assert_cmpuint(n->limits.size, ==, 70144);
    g_assert_cmpstr(n->ref.path, ==, base);
    blk_close(g_steal_pointer(&n));
    unsigned count = block_fix_count(f);
    g_assert_true(g_remove(cow) == 0);
    static const struct {
        BlkMake make;
        int code;
        const char *text;
    } bad[] = {
        {{.size = 0}, LODGE_ERROR_CONFIG, "no size"},
        {{.size = UINT64_MAX}, LODGE_ERROR_LIMIT, "over 2^62"},
        {{.format = "umlcow", .size = 512}, LODGE_ERROR_CONFIG, "name a base"},
        {{.format = "wow", .size = 512}, LODGE_ERROR_CONFIG, "format 'wow'"},
        {{.format = "raw", .base = "B"}, LODGE_ERROR_UNSUPPORTED, "has no overlays"},
        {{.base = "B", .size = 512}, LODGE_ERROR_CONFIG, "leave the size out"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        BlkMake m = bad[i].make;
        m.file = cow;
        m.base = m.base ? base : NULL;
        g_assert_false(blk_make(&m, f->io, &error));
        g_assert_error(error, LODGE_ERROR, bad[i].code);
        g_assert_nonnull(strstr(error->message, bad[i].text));
        g_clear_error(&error);
        g_assert_cmpuint(block_fix_count(f), ==, count - 1);
    }
    g_hash_table_insert(opts, (char *)"cluster-size", (char *)"4K");
    g_assert_false(blk_make(&(BlkMake){.file = cow, .size = 512, .options = opts}, f->io, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_assert_nonnull(strstr(error->message, "cluster-size"));
}

static void test_record_path(void)
{
    static const struct {
        const char *image, *base, *want;
    } rows[] = {
        {"/tmp/a.qcow2", "/tmp/b.img", "/tmp/b.img"},
        {"x/../a", "b", "b"},
        {"/a", "/b", "/b"},
    };
    static const BlkDriver relative = {.name = "r"}, absolute = {.flags = BLK_DRV_ABSOLUTE_BASE};

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *got = blk_record_path(&relative, rows[i].image, rows[i].base);
        if (i != 1)
            g_assert_cmpstr(got, ==, rows[i].want);
        g_autofree char *back = blk_base_path(rows[i].image, got);
        g_autofree char *full = blk_record_path(&absolute, rows[i].image, rows[i].base);
        g_assert_true(g_path_is_absolute(full));
        g_assert_nonnull(back);
    }
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *sub = block_fix_path(f, "sub");
    g_autofree char *cwd = g_get_current_dir();
    g_assert_cmpint(g_mkdir(sub, 0700), ==, 0);
    g_assert_cmpint(g_chdir(f->dir), ==, 0);
    g_autofree char *down = blk_record_path(&relative, "sub/o.img", "b.img");
    g_autofree char *up = blk_record_path(&relative, "o.img", "sub/b.img");
    g_autofree char *twin = blk_record_path(&relative, "sub/o.img", "sub/b.img");
    g_assert_cmpint(g_chdir(cwd), ==, 0);
    g_assert_cmpstr(down, ==, "../b.img");
    g_assert_cmpstr(up, ==, "sub/b.img");
    g_assert_cmpstr(twin, ==, "b.img");
    g_assert_cmpint(g_rmdir(sub), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/frame/chain", test_chain);
    g_test_add_func("/frame/hostile-bases", test_hostile_bases);
    g_test_add_func("/frame/worker", test_worker);
    g_test_add_func("/frame/meta", test_meta);
    g_test_add_func("/frame/meta-full", test_meta_full);
    g_test_add_func("/frame/meta-ranks", test_meta_ranks);
    g_test_add_func("/frame/make", test_make);
    g_test_add_func("/frame/record-path", test_record_path);
    return g_test_run();
}
