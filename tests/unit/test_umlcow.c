/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Overlays in UML's COW format: data path, making, checking, switching, snapshots. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utime.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"
#include "cow_header.h"

#define SIZE ((uint64_t)1 << 20)

typedef struct Cow {
    BlockFix *f;
    char *base, *cow;
    BlkNode *n;
} Cow;

static Cow *cow_new(uint64_t size, unsigned seed)
{
    Cow *c = g_new0(Cow, 1);

    c->f = block_fix_new();
    c->base = block_fix_image(c->f, "base.img", size, seed);
    c->cow = block_fix_path(c->f, "o.cow");
    c->n = block_fix_open(c->f, &(BlkOptions){.file = c->cow, .base = c->base});
    g_assert_cmpstr(blk_format(c->n), ==, "umlcow");
    return c;
}

static void cow_free(Cow *c)
{
    blk_close(c->n);
    block_fix_free(c->f);
    g_free(c->base);
    g_free(c->cow);
    g_free(c);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Cow, cow_free)

static void reopen(Cow *c)
{
    blk_close(c->n);
    c->n = block_fix_open(c->f, &(BlkOptions){.file = c->cow});
}

static CowLayout *layout_of(const char *path)
{
    g_autofree char *text = NULL;
    gsize len;
    CowLayout *l = g_new0(CowLayout, 1);

    g_assert_true(g_file_get_contents(path, &text, &len, NULL));
    g_assert_true(cow_header_parse((uint8_t *)text, MIN(len, COW_HEADER_MAX), path, l, NULL));
    return l;
}

static void test_rw(void)
{
    g_autoptr(Cow) c = cow_new(SIZE, 2);
    g_autofree uint8_t *buf = g_malloc(SIZE), *want = g_malloc(SIZE);
    struct stat st;

    for (unsigned i = 0; i < SIZE; i++)
        want[i] = block_fix_byte(i, 2);
    /* Sectors here and there, so that a read has many runs. */
    for (unsigned s = 1; s < SIZE / 512; s += 1 + s % 5) {
        memset(want + s * 512, s, 512);
        g_assert_cmpint(blk_pwrite(c->n, want + s * 512, s * 512, 512), ==, 0);
    }
    g_assert_cmpint(blk_pread(c->n, buf, 0, SIZE), ==, 0);
    g_assert_cmpmem(buf, SIZE, want, SIZE);
    /* The same in memory pieces that fit no sector. */
    struct iovec iov[40];
    uint64_t at = 0;
    for (unsigned i = 0; i < 40; i++) {
        iov[i].iov_base = buf + at;
        iov[i].iov_len = i < 39 ? 1001 : 65536 - at;
        at += iov[i].iov_len;
    }
    memset(buf, 0, 65536);
    BlkReq req = {.op = BLK_READ, .len = 65536, .iov = iov, .niov = 40};
    g_assert_cmpint(blk_wait(c->n, &req), ==, 0);
    g_assert_cmpmem(buf, 65536, want, 65536);
    reopen(c);
    g_assert_cmpint(blk_pread(c->n, buf, 0, SIZE), ==, 0);
    g_assert_cmpmem(buf, SIZE, want, SIZE);
    g_assert_cmpint(stat(c->cow, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 12288 + SIZE);
    /* The base is as it was. */
    g_autofree char *base = NULL;
    g_assert_true(g_file_get_contents(c->base, &base, NULL, NULL));
    for (unsigned i = 0; i < SIZE; i++)
        g_assert_cmpuint((uint8_t)base[i], ==, block_fix_byte(i, 2));
}

/* Bits are in the file when the write is done, without a flush; each where UML looks for it. */
static void test_bitmap(void)
{
    g_autoptr(Cow) c = cow_new(SIZE, 2);
    uint8_t buf[1024] = {1}, bits[32];
    int fd = open(c->cow, O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(blk_pwrite(c->n, buf, 70 * 512, 1024), ==, 0);
    g_assert_cmpint(pread(fd, bits, sizeof bits, 8192), ==, sizeof bits);
    for (unsigned i = 0; i < sizeof bits; i++)
        g_assert_cmpuint(bits[i], ==, i == 8 ? 0xc0 : 0);
    g_assert_cmpint(pread(fd, bits, 1, 12288 + 70 * 512), ==, 1);
    g_assert_cmpuint(bits[0], ==, 1);
    close(fd);
}

static void test_zero_discard(void)
{
    g_autoptr(Cow) c = cow_new(SIZE, 2);
    g_autofree uint8_t *buf = g_malloc(SIZE);
    BlkReq req = {.op = BLK_ZERO, .offset = 4096, .len = 8192};

    memset(buf, 7, SIZE);
    g_assert_cmpint(blk_pwrite(c->n, buf, 65536, 4096), ==, 0);
    g_assert_cmpint(blk_wait(c->n, &req), ==, 0);
    req = (BlkReq){.op = BLK_DISCARD, .offset = 65536 - 512, .len = 2048};
    g_assert_cmpint(blk_wait(c->n, &req), ==, 0);
    for (unsigned round = 0; round < 2; round++) {
        g_assert_cmpint(blk_pread(c->n, buf, 0, SIZE), ==, 0);
        for (unsigned i = 0; i < SIZE; i++) {
            bool zero = (i >= 4096 && i < 12288) || (i >= 65024 && i < 67072);
            bool seven = i >= 67072 && i < 69632;
            g_assert_cmpuint(buf[i], ==, zero ? 0 : seven ? 7 : block_fix_byte(i, 2));
        }
        reopen(c);
    }
    req = (BlkReq){.op = BLK_STATUS, .offset = 4096, .len = SIZE - 4096};
    g_assert_cmpint(blk_wait(c->n, &req), ==, 0);
    g_assert_cmpint(req.status, ==, 1);
    g_assert_cmpuint(req.status_len, ==, 8192);
    req = (BlkReq){.op = BLK_STATUS, .offset = 12288, .len = SIZE - 12288};
    g_assert_cmpint(blk_wait(c->n, &req), ==, 0);
    g_assert_cmpint(req.status, ==, 0);
    g_assert_cmpuint(req.status_len, ==, 65024 - 12288);
}

/* More pieces of the bitmap than are kept, and requests over their borders. */
static void test_large(void)
{
    const uint64_t span = 256 * MIB, pieces = 80;
    g_autoptr(Cow) c = cow_new(span * pieces, 0);
    uint8_t buf[4096], back[4096];

    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t i = 1; i < pieces; i++) {
            memset(buf, i, sizeof buf);
            if (round == 0)
                g_assert_cmpint(blk_pwrite(c->n, buf, i * span - 2048, 4096), ==, 0);
            g_assert_cmpint(blk_pread(c->n, back, i * span - 2048, 4096), ==, 0);
            g_assert_cmpmem(buf, 4096, back, 4096);
        }
    }
    reopen(c);
    memset(buf, 5, sizeof buf);
    g_assert_cmpint(blk_pread(c->n, back, 5 * span - 2048, 4096), ==, 0);
    g_assert_cmpmem(buf, 4096, back, 4096);
    BlkReq req = {.op = BLK_DISCARD, .offset = 3 * span, .len = GIB};
    g_assert_cmpint(blk_wait(c->n, &req), ==, 0);
    g_assert_cmpint(blk_pread(c->n, back, 5 * span, 512), ==, 0);
    g_assert_cmpuint(back[0], ==, 0);
}

static void test_odd_size(void)
{
    g_autoptr(Cow) c = cow_new(70000, 4);
    uint8_t buf[1024];
    BlkLimits l;

    blk_limits(c->n, &l);
    g_assert_cmpuint(l.size, ==, 70144);
    g_assert_cmpint(blk_pread(c->n, buf, 69632, 512), ==, 0);
    for (unsigned i = 0; i < 512; i++)
        g_assert_cmpuint(buf[i], ==, i < 368 ? block_fix_byte(69632 + i, 4) : 0);
    memset(buf, 9, 512);
    g_assert_cmpint(blk_pwrite(c->n, buf, 69632, 512), ==, 0);
    reopen(c);
    memset(buf, 0, 512);
    g_assert_cmpint(blk_pread(c->n, buf, 69632, 512), ==, 0);
    g_assert_cmpuint(buf[511], ==, 9);
}

static void set_mtime(const char *path, time_t t)
{
    struct utimbuf ut = {t, t};

    g_assert_cmpint(utime(path, &ut), ==, 0);
}

static void test_mismatch(void)
{
    g_autoptr(Cow) c = cow_new(SIZE, 2);
    g_autofree CowLayout *l = layout_of(c->cow);
    BlkOptions o = {.file = c->cow}, with = {.file = c->cow, .base = c->base};
    g_autofree char *text = NULL;

    blk_close(g_steal_pointer(&c->n));
    set_mtime(c->base, 1000000);
    text = g_strdup_printf("mtime mismatch (%u vs 1000000) of COW header vs backing file",
                           l->mtime);
    block_fix_refused(c->f, &o, LODGE_ERROR_CONFIG, text);
    block_fix_refused(c->f, &with, LODGE_ERROR_CONFIG, text);
    g_assert_cmpint(truncate(c->base, SIZE + 512), ==, 0);
    block_fix_refused(c->f, &o, LODGE_ERROR_CONFIG,
                      "Size mismatch (1048576 vs 1049088) of COW header vs backing file");
    g_assert_cmpint(truncate(c->base, SIZE), ==, 0);
    set_mtime(c->base, l->mtime);
    c->n = block_fix_open(c->f, &o);
    blk_close(g_steal_pointer(&c->n));
    g_assert_cmpint(truncate(c->cow, 12288 + SIZE - 1), ==, 0);
    block_fix_refused(c->f, &o, LODGE_ERROR_IMAGE, "is cut off");
    g_remove(c->base);
    block_fix_refused(c->f, &with, LODGE_ERROR_IMAGE, "is cut off");
}

static void test_switch(void)
{
    g_autoptr(Cow) c = cow_new(SIZE, 2);
    g_autofree CowLayout *l = layout_of(c->cow);
    g_autofree char *moved = block_fix_path(c->f, "moved.img");
    uint8_t buf[512];

    g_assert_cmpstr(l->backing, ==, c->base);
    blk_close(g_steal_pointer(&c->n));
    g_assert_cmpint(rename(c->base, moved), ==, 0);
    g_autofree char *advice = g_strdup_printf("'%s': no such file; if the base was moved: lodge image "
                                              "rebase --unsafe --base FILE %s", c->base, c->cow);
    block_fix_refused(c->f, &(BlkOptions){.file = c->cow}, LODGE_ERROR_CONFIG, advice);
    /* Read-only: taken, not noted. */
    blk_close(block_fix_open(
        c->f, &(BlkOptions){.file = c->cow, .base = moved, .read_only = true}));
    block_fix_refused(c->f, &(BlkOptions){.file = c->cow}, LODGE_ERROR_CONFIG, "no such file");
    blk_close(block_fix_open(c->f, &(BlkOptions){.file = c->cow, .base = moved}));
    c->n = block_fix_open(c->f, &(BlkOptions){.file = c->cow});
    g_assert_cmpint(blk_pread(c->n, buf, 512, 512), ==, 0);
    g_assert_cmpuint(buf[0], ==, block_fix_byte(512, 2));
    g_autofree CowLayout *after = layout_of(c->cow);
    g_assert_cmpstr(after->backing, ==, moved);
    g_assert_cmpuint(after->mtime, ==, l->mtime);
}

/* What fails leaves nothing behind. */
static void test_create_fails(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *none = block_fix_path(f, "none.img");
    g_autofree char *cow = block_fix_path(f, "o.cow");
    g_autofree char *base = block_fix_image(f, "base.img", 4096, 1);
    g_autofree char *far = g_build_filename(f->dir, "no", "o.cow", NULL);
    g_autofree char *cow2 = block_fix_path(f, "2.cow");

    block_fix_refused(f, &(BlkOptions){.file = cow, .base = none}, LODGE_ERROR_CONFIG,
                      "check the path of the base");
    block_fix_refused(f, &(BlkOptions){.file = cow, .base = f->dir}, LODGE_ERROR_CONFIG,
                      "is a directory");
    block_fix_refused(f, &(BlkOptions){.file = far, .base = base}, LODGE_ERROR_HOST,
                      "cannot make the overlay");
    block_fix_refused(f, &(BlkOptions){.file = cow, .base = base, .read_only = true},
                      LODGE_ERROR_CONFIG, "no such file");
    g_assert_cmpuint(block_fix_count(f), ==, 1);
    blk_close(block_fix_open(f, &(BlkOptions){.file = cow, .base = base}));
    g_assert_cmpuint(block_fix_count(f), ==, 2);
    block_fix_refused(f, &(BlkOptions){.file = cow2, .base = cow}, LODGE_ERROR_UNSUPPORTED,
                      "needs a raw base");
    g_assert_cmpuint(block_fix_count(f), ==, 2);
}

static void test_snapshot(void)
{
    g_autoptr(Cow) c = cow_new(SIZE, 2);
    g_autofree char *cow2 = block_fix_path(c->f, "2.cow");
    uint8_t buf[4096], back[4096];

    memset(buf, 1, sizeof buf);
    g_assert_cmpint(blk_pwrite(c->n, buf, 0, 4096), ==, 0);
    blk_close(c->n);
    c->n = block_fix_open(c->f, &(BlkOptions){.file = c->cow, .snapshot = true});
    memset(buf, 2, sizeof buf);
    g_assert_cmpint(blk_pwrite(c->n, buf, 2048, 4096), ==, 0);
    g_assert_cmpint(blk_flush(c->n), ==, 0);
    g_assert_cmpint(blk_pread(c->n, back, 2048, 4096), ==, 0);
    g_assert_cmpmem(buf, 4096, back, 4096);
    g_assert_cmpint(blk_pread(c->n, back, 0, 4096), ==, 0);
    g_assert_cmpuint(back[2047], ==, 1);
    g_assert_cmpuint(back[2048], ==, 2);
    g_assert_cmpint(blk_pread(c->n, back, 8192, 4096), ==, 0);
    g_assert_cmpuint(back[0], ==, block_fix_byte(8192, 2));
    reopen(c);
    g_assert_cmpint(blk_pread(c->n, back, 2048, 4096), ==, 0);
    g_assert_cmpuint(back[0], ==, 1);
    /* With a base and no overlay yet, none is made. */
    unsigned n = block_fix_count(c->f);
    blk_close(c->n);
    c->n = block_fix_open(
        c->f, &(BlkOptions){.file = cow2, .base = c->base, .snapshot = true});
    g_assert_cmpint(blk_pwrite(c->n, buf, 0, 4096), ==, 0);
    g_assert_cmpuint(block_fix_count(c->f), ==, n);
}

static void test_cache_none(void)
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *base = block_fix_image(f, "base.img", SIZE, 2);
    g_autofree char *cow = block_fix_path(f, "o.cow");
    g_autoptr(GError) error = NULL;
    BlkOptions o = {.file = cow, .base = base, .cache = BLK_CACHE_NONE};
    g_autoptr(BlkNode) n = blk_open("d0", &o, f->io, &error);
    g_autofree uint8_t *buf = g_malloc(8193);

    if (!n) {
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED);
        g_assert_cmpuint(block_fix_count(f), ==, 1);
        g_test_skip(error->message);
        return;
    }
    memset(buf, 3, 8193);
    g_assert_cmpint(blk_pwrite(n, buf + 1, 4096 + 512, 1024), ==, 0);
    blk_close(g_steal_pointer(&n));
    n = block_fix_open(f, &(BlkOptions){.file = cow});
    g_assert_cmpint(blk_pread(n, buf, 4096, 2048), ==, 0);
    g_assert_cmpuint(buf[511], ==, block_fix_byte(4096 + 511, 2));
    g_assert_cmpuint(buf[512], ==, 3);
    g_assert_cmpuint(buf[1535], ==, 3);
    g_assert_cmpuint(buf[1536], ==, block_fix_byte(4096 + 1536, 2));
}

/* Older layouts: read, not written, but for the broken version 3. */
static void test_old(void)
{
    static const CowKind kinds[] = {COW_V1, COW_V2, COW_V3_BROKEN};
    g_autoptr(Cow) c = cow_new(SIZE, 2);
    g_autofree CowLayout *l = layout_of(c->cow);
    g_autofree uint8_t *head = g_malloc(COW_HEADER_MAX);
    uint8_t sector[512], buf[1024];

    blk_close(g_steal_pointer(&c->n));
    memset(sector, 0xab, sizeof sector);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        CowLayout *m = g_memdup2(l, sizeof *l);
        BlkOptions rw = {.file = c->cow}, ro = {.file = c->cow, .read_only = true};
        uint8_t bit = 0x08; /* sector 11 */
        m->kind = kinds[i];
        size_t len = cow_header_build(m, head);
        g_assert_true(cow_header_parse(head, len, c->cow, m, NULL));
        int fd = open(c->cow, O_RDWR | O_TRUNC | O_CLOEXEC);
        g_assert_cmpint(pwrite(fd, head, len, 0), ==, (ssize_t)len);
        g_assert_cmpint(pwrite(fd, &bit, 1, m->bitmap_offset + 1), ==, 1);
        g_assert_cmpint(pwrite(fd, sector, 512, m->data_offset + 11 * 512), ==, 512);
        g_assert_cmpint(ftruncate(fd, m->data_offset + SIZE), ==, 0);
        close(fd);
        c->n = block_fix_open(c->f, &ro);
        g_assert_cmpint(blk_pread(c->n, buf, 10 * 512, 1024), ==, 0);
        g_assert_cmpuint(buf[511], ==, block_fix_byte(10 * 512 + 511, 2));
        g_assert_cmpmem(buf + 512, 512, sector, 512);
        blk_close(g_steal_pointer(&c->n));
        if (kinds[i] == COW_V3_BROKEN) {
            blk_close(block_fix_open(c->f, &rw));
        } else {
            block_fix_refused(c->f, &rw, LODGE_ERROR_UNSUPPORTED, "add ,ro");
        }
        g_free(m);
    }
}

#define WRITERS 64u

typedef struct Crowd {
    BlkNode *n;
    BlkReq req;
    struct iovec iov;
    uint8_t buf[2048];
    gint *left;
} Crowd;

static void crowd_done(BlkReq *req, int err)
{
    Crowd *w = req->opaque;

    g_assert_cmpint(err, ==, 0);
    g_atomic_int_add(w->left, -1);
}

static void crowd_start(void *opaque)
{
    Crowd *w = opaque;

    for (unsigned i = 0; i < WRITERS; i++)
        blk_submit(w[i].n, &w[i].req);
}

/* Many writes at once to the same and neighbouring new sectors: each sector is one writer's whole,
 * and a flush beside them ends. */
static void test_overlap(void)
{
    enum { SECTORS = 12 };
    g_autoptr(Cow) c = cow_new(SIZE, 2);
    g_autofree Crowd *w = g_new0(Crowd, WRITERS);
    gint left = WRITERS;
    uint8_t buf[SECTORS * 512];

    for (unsigned i = 0; i < WRITERS; i++) {
        memset(w[i].buf, 100 + i, sizeof w[i].buf);
        w[i].n = c->n;
        w[i].left = &left;
        w[i].iov = (struct iovec){w[i].buf, i % 9 == 8 ? 0 : 2048};
        w[i].req = (BlkReq){.op = i % 9 == 8 ? BLK_FLUSH : BLK_WRITE,
                            .offset = i % 9 * 512, .len = w[i].iov.iov_len, .iov = &w[i].iov,
                            .niov = 1, .done = crowd_done, .opaque = &w[i]};
    }
    io_thread_call(c->f->io, crowd_start, w); /* all in one round of the loop */
    int64_t until = g_get_monotonic_time() + 30 * G_TIME_SPAN_SECOND;
    while (g_atomic_int_get(&left) && g_get_monotonic_time() < until)
        g_usleep(200);
    g_assert_cmpint(g_atomic_int_get(&left), ==, 0);
    reopen(c);
    g_assert_cmpint(blk_pread(c->n, buf, 0, sizeof buf), ==, 0);
    for (unsigned s = 0; s < SECTORS; s++) {
        if (s < 11)
            g_assert_cmpuint(buf[s * 512], >=, 100);
        else
            g_assert_cmpuint(buf[s * 512], ==, block_fix_byte(s * 512, 2));
        for (unsigned i = 1; s < 11 && i < 512; i++)
            g_assert_cmpuint(buf[s * 512 + i], ==, buf[s * 512]);
    }
}

/* A bitmap that cannot be written is the request's error, and the next flush mends it. */
static void test_bitmap_error(void)
{
    g_autoptr(Cow) c = cow_new(SIZE, 2);
    struct rlimit old, none;
    uint8_t buf[512] = {1};
    BlkReq req = {.op = BLK_ZERO, .offset = 4096, .len = 512, .may_unmap = true};
    uint8_t bits[8];

    /* Files may not be written at or past 8192 now, but holes can still be punched in them. */
    signal(SIGXFSZ, SIG_IGN);
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &old), ==, 0);
    none = old;
    none.rlim_cur = 8192;
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &none), ==, 0);
    int err = blk_wait(c->n, &req);
    int flush = blk_flush(c->n);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &old), ==, 0);
    g_assert_cmpint(err, ==, EFBIG);
    g_assert_cmpint(flush, ==, EFBIG);
    g_assert_cmpint(blk_flush(c->n), ==, 0);
    int fd = open(c->cow, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(pread(fd, bits, sizeof bits, 8192), ==, sizeof bits);
    close(fd);
    g_assert_cmpuint(bits[1], ==, 1);
    g_assert_cmpint(blk_pwrite(c->n, buf, 0, 512), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/umlcow/rw", test_rw);
    g_test_add_func("/umlcow/bitmap", test_bitmap);
    g_test_add_func("/umlcow/zero-discard", test_zero_discard);
    g_test_add_func("/umlcow/large", test_large);
    g_test_add_func("/umlcow/odd-size", test_odd_size);
    g_test_add_func("/umlcow/mismatch", test_mismatch);
    g_test_add_func("/umlcow/switch", test_switch);
    g_test_add_func("/umlcow/create-fails", test_create_fails);
    g_test_add_func("/umlcow/snapshot", test_snapshot);
    g_test_add_func("/umlcow/cache-none", test_cache_none);
    g_test_add_func("/umlcow/old", test_old);
    g_test_add_func("/umlcow/overlap", test_overlap);
    g_test_add_func("/umlcow/bitmap-error", test_bitmap_error);
    return g_test_run();
}
