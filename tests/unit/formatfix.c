/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of image formats share. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "formatfix.h"

#define OP_MAX ((uint64_t)300 << 10) /* over several blocks */

static bool make(BlockFix *f, const BlkMake *m, const char *options, GError **error)
{
    g_autoptr(GHashTable) table = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_auto(GStrv) list = g_strsplit(options ? options : "", ",", -1);
    BlkMake all = *m;

    for (char **p = list; *p; p++) {
        g_auto(GStrv) kv = g_strsplit(*p, "=", 2);
        g_hash_table_insert(table, g_strdup(kv[0]), g_strdup(kv[1]));
    }
    all.options = table;
    return blk_make(&all, f->io, error);
}

char *format_make(BlockFix *f, const char *name, const BlkMake *m, const char *options)
{
    g_autoptr(GError) error = NULL;
    char *path = block_fix_path(f, name);
    BlkMake all = *m;

    all.file = path;
    make(f, &all, options, &error);
    g_assert_no_error(error);
    return path;
}

void format_make_refused(BlockFix *f, const BlkMake *m, const char *options, int code,
                         const char *text)
{
    g_autofree char *path = block_fix_path(f, "refused.img");
    g_autoptr(GError) error = NULL;
    BlkMake all = *m;

    all.file = path;
    g_assert_false(make(f, &all, options, &error));
    g_assert_error(error, LODGE_ERROR, code);
    if (!strstr(error->message, text))
        g_error("'%s' is not in '%s'", text, error->message);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

void format_run(const char *program, ...)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_autofree char *err = NULL, *out = NULL;
    g_autoptr(GError) error = NULL;
    int status;
    va_list ap;

    g_ptr_array_add(argv, (char *)program);
    va_start(ap, program);
    for (char *a; (a = va_arg(ap, char *));)
        g_ptr_array_add(argv, a);
    va_end(ap);
    g_ptr_array_add(argv, NULL);
    g_spawn_sync(NULL, (char **)argv->pdata, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err,
                 &status, &error);
    g_assert_no_error(error);
    if (!g_spawn_check_wait_status(status, NULL)) {
        g_autofree char *line = g_strjoinv(" ", (char **)argv->pdata);
        g_error("%s: %s%s", line, out, err);
    }
}

static uint64_t pick(GRand *r, uint64_t size, uint64_t *ret_len)
{
    uint64_t sectors = size / 512, at = (uint64_t)g_rand_int(r) % sectors;
    uint64_t most = g_rand_int(r) % 4 ? 16 : OP_MAX / 512;

    most = MIN(sectors - at, most);
    *ret_len = (1 + g_rand_int(r) % most) * 512;
    return at * 512;
}

void format_scribble(BlockFix *f, const BlkOptions *o, uint8_t *want, uint64_t size, unsigned seed,
                     unsigned steps)
{
    g_autoptr(GRand) r = g_rand_new_with_seed(seed);
    g_autofree uint8_t *buf = g_malloc(OP_MAX);
    g_autoptr(BlkNode) n = block_fix_open(f, o);

    g_test_message("seed %u", seed);
    for (unsigned i = 0; i < steps; i++) {
        unsigned what = g_rand_int(r) % 100;
        uint64_t len, at = pick(r, size, &len);
        if (what < 45) {
            uint8_t fill = (uint8_t)g_rand_int(r);
            for (uint64_t b = 0; b < len; b++)
                want[at + b] = (uint8_t)(fill + b / 512 * 3 + b);
            /* In three pieces, so that memory and blocks end at different places. */
            uint64_t third = len / 3, rest = len - 2 * third;
            g_autofree uint8_t *one = g_memdup2(want + at, third);
            g_autofree uint8_t *two = g_memdup2(want + at + third, third);
            struct iovec iov[3] = {{one, third}, {two, third}, {want + at + 2 * third, rest}};
            BlkReq req = {.op = BLK_WRITE, .offset = at, .len = len, .iov = iov, .niov = 3,
                          .fua = what == 0};
            g_assert_cmpint(blk_wait(n, &req), ==, 0);
        } else if (what < 60) {
            BlkReq req = {.op = what < 53 ? BLK_ZERO : BLK_DISCARD, .offset = at, .len = len,
                          .may_unmap = what % 2};
            g_assert_cmpint(blk_wait(n, &req), ==, 0);
            memset(want + at, 0, len);
        } else if (what < 65) {
            g_assert_cmpint(blk_flush(n), ==, 0);
        } else if (what < 67) {
            blk_close(g_steal_pointer(&n));
            n = block_fix_open(f, o);
        } else {
            g_assert_cmpint(blk_pread(n, buf, at, len), ==, 0);
            g_assert_cmpmem(buf, len, want + at, len);
        }
    }
}

void format_same(BlockFix *f, const BlkOptions *o, const uint8_t *want, uint64_t size,
                 const char *qemu)
{
    BlkOptions ro = *o;

    ro.read_only = true;
    ro.base = NULL;
    BlkNode *n = block_fix_open(f, &ro);
    BlkLimits l;
    blk_limits(n, &l);
    g_assert_cmpuint(l.size, ==, size);
    g_autofree uint8_t *buf = g_malloc(size);
    g_assert_cmpint(blk_pread(n, buf, 0, size), ==, 0);
    g_assert_cmpmem(buf, size, want, size);
    /* Every byte has a status; what has none of ours and no base is zeros. */
    for (uint64_t at = 0; at < size;) {
        BlkReq st = {.op = BLK_STATUS, .offset = at, .len = size - at};
        g_assert_cmpint(blk_wait(n, &st), ==, 0);
        g_assert_true(st.status_len && st.status_len <= size - at);
        for (uint64_t b = 0; b < st.status_len; b++)
            if (st.status == BLK_ST_ZERO || (st.status == BLK_ST_BELOW && !n->base))
                g_assert_cmpuint(want[at + b], ==, 0);
        at += st.status_len;
    }
    blk_close(n);
    g_autofree char *program = qemu ? g_find_program_in_path("qemu-img") : NULL;
    if (!program)
        return;
    g_autofree char *raw = block_fix_path(f, "qemu.raw");
    g_autofree char *text = NULL;
    gsize len;
    format_run("qemu-img", "convert", "-f", qemu, "-O", "raw", o->file, raw, NULL);
    g_assert_true(g_file_get_contents(raw, &text, &len, NULL));
    g_assert_cmpmem(text, len, want, size);
    unlink(raw);
}

void format_check(BlockFix *f, const char *path, bool repair, unsigned errors, unsigned leaks)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkReport) r = blk_report_new();
    BlkOptions o = {.file = path, .read_only = !repair};
    BlkNode *n = blk_open_flags(NULL, &o, BLK_OPEN_CHECK | BLK_OPEN_QUIET, f->io, &error);

    g_assert_no_error(error);
    blk_drain_begin(n);
    g_assert_true(n->drv->check(n, repair, r, &error));
    g_assert_no_error(error);
    blk_drain_end(n);
    blk_close(n);
    for (guint i = 0; i < r->lines->len; i++)
        g_test_message("%s", (char *)r->lines->pdata[i]);
    g_assert_cmpuint(r->errors, ==, errors);
    g_assert_cmpuint(r->leaks, ==, leaks);
    g_assert_cmpuint(r->errors_fixed + r->leaks_fixed, ==, repair ? errors + leaks : 0);
}

char *format_fact(BlockFix *f, const char *path, const char *key)
{
    g_autoptr(GPtrArray) facts = blk_facts_new();
    BlkOptions o = {.file = path, .read_only = true};
    g_autoptr(GError) error = NULL;
    BlkNode *n = blk_open_flags(NULL, &o, BLK_OPEN_NO_BASE | BLK_OPEN_QUIET, f->io, &error);
    char *text = NULL;

    g_assert_no_error(error);
    n->drv->describe(n, facts);
    for (guint i = 0; i < facts->len; i++) {
        const BlkFact *fact = facts->pdata[i];
        if (strcmp(fact->key, key) == 0)
            text = fact->text ? g_strdup(fact->text)
                              : g_strdup_printf("%" G_GUINT64_FORMAT, fact->number);
    }
    blk_close(n);
    return text;
}

static int open_at(const char *path, int64_t *offset)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(fstat(fd, &st), ==, 0);
    if (*offset < 0)
        *offset += st.st_size;
    return fd;
}

void format_poke(const char *path, int64_t offset, const void *bytes, size_t len)
{
    int fd = open_at(path, &offset);

    g_assert_cmpint(pwrite(fd, bytes, len, offset), ==, (ssize_t)len);
    close(fd);
}

void format_peek(const char *path, int64_t offset, void *bytes, size_t len)
{
    int fd = open_at(path, &offset);

    g_assert_cmpint(pread(fd, bytes, len, offset), ==, (ssize_t)len);
    close(fd);
}

void format_killed(BlockFix *f, const BlkOptions *o, const char *copy, uint8_t *want,
                   uint64_t size, unsigned seed)
{
    g_autoptr(GRand) r = g_rand_new_with_seed(seed);
    g_autofree uint8_t *buf = g_malloc(size);
    g_autofree char *text = NULL;
    BlkOptions other = *o;
    uint64_t half = size / 1024 * 512;
    gsize len;

    BlkNode *n = block_fix_open(f, o);
    for (unsigned i = 0; i < 60; i++) {
        bool second = i >= 30;
        uint64_t part, at = pick(r, half, &part) + (second ? half : 0);
        if (i == 30)
            g_assert_cmpint(blk_flush(n), ==, 0);
        memset(want + at, (int)(1 + i), part);
        g_assert_cmpint(blk_pwrite(n, want + at, at, part), ==, 0);
    }
    /* What the file holds now is what a process that dies now leaves. */
    g_assert_true(g_file_get_contents(o->file, &text, &len, NULL));
    g_assert_true(g_file_set_contents(copy, text, (gssize)len, NULL));
    blk_close(n);
    other.file = copy;
    n = block_fix_open(f, &other);
    g_assert_cmpint(blk_pread(n, buf, 0, size), ==, 0);
    g_assert_cmpmem(buf, half, want, half);
    blk_close(n);
    memcpy(want, buf, size);
    /* The first block that is new takes back what was lost, and not what was in it. */
    n = block_fix_open(f, &other);
    for (uint64_t at = 0; at < size; at += 512) {
        BlkReq st = {.op = BLK_STATUS, .offset = at, .len = size - at};
        g_assert_cmpint(blk_wait(n, &st), ==, 0);
        if (st.status != BLK_ST_BELOW) {
            at += st.status_len - 512;
            continue;
        }
        memset(want + at, 0xee, 512);
        g_assert_cmpint(blk_pwrite(n, want + at, at, 512), ==, 0);
        break;
    }
    blk_close(n);
    format_same(f, &other, want, size, NULL);
    format_check(f, copy, false, 0, 0);
    format_scribble(f, &other, want, size, seed + 1, 200);
    format_same(f, &other, want, size, NULL);
    format_check(f, copy, false, 0, 0);
}

typedef struct Storm {
    BlkReq req;
    struct iovec iov;
    gint *left;
} Storm;

static void storm_done(BlkReq *req, int err)
{
    Storm *s = req->opaque;

    g_assert_cmpint(err, ==, 0);
    g_atomic_int_add(s->left, -1);
}

#define STORM 96u

void format_storm(BlockFix *f, const BlkOptions *o, uint8_t *want, uint64_t size, unsigned seed)
{
    g_autoptr(GRand) r = g_rand_new_with_seed(seed);
    g_autofree Storm *all = g_new0(Storm, STORM);
    g_autoptr(BlkNode) n = block_fix_open(f, o);
    uint64_t part = align_down(size / STORM, 512);
    gint left = STORM;

    for (unsigned i = 0; i < STORM; i++) {
        Storm *s = &all[i];
        uint64_t at = i * part + g_rand_int(r) % (part / 1024) * 512, len = part / 1024 * 512;
        BlkOp op = i % 8 == 7 ? BLK_FLUSH : i % 8 == 6 ? BLK_ZERO : BLK_WRITE;
        if (op != BLK_FLUSH)
            memset(want + at, op == BLK_WRITE ? (int)i + 1 : 0, len);
        s->iov = (struct iovec){want + at, len};
        s->req = (BlkReq){.op = op, .offset = op == BLK_FLUSH ? 0 : at,
                          .len = op == BLK_FLUSH ? 0 : len, .fua = i % 8 == 5, .iov = &s->iov,
                          .niov = 1, .done = storm_done, .opaque = s};
        s->left = &left;
    }
    for (unsigned i = 0; i < STORM; i++)
        blk_submit(n, &all[(i * 37) % STORM].req);
    int64_t until = g_get_monotonic_time() + 30 * G_TIME_SPAN_SECOND;
    while (g_atomic_int_get(&left) && g_get_monotonic_time() < until)
        g_usleep(200);
    g_assert_cmpint(g_atomic_int_get(&left), ==, 0);
}

/* ---- changes at rest ---- */

static BlkNode *open_quiet(BlockFix *f, const char *path)
{
    g_autoptr(GError) error = NULL;
    BlkOptions o = {.file = path};
    BlkNode *n = blk_open_flags(NULL, &o, BLK_OPEN_QUIET, f->io, &error);

    g_assert_no_error(error);
    blk_drain_begin(n);
    return n;
}

static void close_quiet(BlkNode *n)
{
    blk_drain_end(n);
    blk_close(n);
}

void format_resize(BlockFix *f, const char *path, uint64_t size, bool shrink)
{
    g_autoptr(GError) error = NULL;
    BlkNode *n = open_quiet(f, path);

    if (shrink) {
        g_assert_false(n->drv->resize(n, size, false, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_clear_error(&error);
    }
    g_assert_true(n->drv->resize(n, size, shrink, &error));
    g_assert_no_error(error);
    close_quiet(n);
}

void format_resizes(const char *format, const char *options, uint64_t size, uint64_t last,
                    const char *qemu, void (*look)(const char *path))
{
    g_autoptr(BlockFix) f = block_fix_new();
    g_autofree char *path =
        format_make(f, "a.img", &(BlkMake){.format = format, .size = size}, options);
    const uint64_t sizes[] = {size + 512, 12 * MIB, 300 * MIB, 5 * MIB + 512, last};
    g_autofree uint8_t *want = g_malloc0(300 * MIB);
    uint64_t old = size;
    BlkOptions o = {.file = path};

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        format_scribble(f, &o, want, MIN(old, 20 * MIB), 40 + i, 100);
        if (sizes[i] < old)
            memset(want + sizes[i], 0, old - sizes[i]);
        format_resize(f, path, sizes[i], sizes[i] < old);
        old = sizes[i];
        format_same(f, &o, want, old, old > 100 * MIB ? NULL : qemu);
        format_check(f, path, false, 0, 0);
        if (look)
            look(path);
    }
}

void format_rebase(const char *format, uint64_t size, const char *qemu)
{
    g_autoptr(BlockFix) f = block_fix_new();
    BlkMake plain = {.format = format, .size = size};
    g_autofree char *base = format_make(f, "base.img", &plain, NULL);
    g_autofree char *other = format_make(f, "other.img", &plain, NULL);
    g_autofree uint8_t *below = g_malloc0(size), *want = g_malloc0(size);
    BlkMake m = {.format = format, .base = base, .base_format = format};
    g_autofree char *one = format_make(f, "one.img", &m, NULL);
    BlkOptions o = {.file = one};
    g_autoptr(GError) error = NULL;

    format_scribble(f, &(BlkOptions){.file = other}, below, size, 51, 100);
    memcpy(want, below, size);
    memset(want + 4 * MIB, 5, MIB); /* a whole block, or more would be copied from the base */
    BlkNode *n = block_fix_open(f, &o);
    g_assert_cmpint(blk_pwrite(n, want + 4 * MIB, 4 * MIB, MIB), ==, 0);
    blk_close(n);

    BlkNode *b = block_fix_open(f, &(BlkOptions){.file = other, .read_only = true});
    BlkBaseInfo info = blk_base_info(b, "other.img", other);
    n = open_quiet(f, one);
    g_assert_true(n->drv->set_base(n, &info, &error));
    close_quiet(n);
    blk_close(b);
    format_scribble(f, &o, want, 65536, 52, 1);
    format_same(f, &o, want, size, NULL);
    format_scribble(f, &o, want, size, 53, 100);
    format_same(f, &o, want, size, NULL);
    format_check(f, one, false, 0, 0);

    n = open_quiet(f, one);
    g_assert_true(n->drv->make_empty(n, &error));
    close_quiet(n);
    format_same(f, &o, below, size, NULL);
    format_check(f, one, false, 0, 0);

    n = open_quiet(f, one);
    g_assert_true(n->drv->set_base(n, NULL, &error));
    close_quiet(n);
    memset(want, 0, size);
    format_same(f, &o, want, size, qemu);
}

void format_moved(const char *format, uint64_t size)
{
    g_autoptr(BlockFix) f = block_fix_new();
    BlkMake plain = {.format = format, .size = size};
    g_autofree char *base = format_make(f, "base.img", &plain, NULL);
    g_autofree char *moved = block_fix_path(f, "moved image.img");
    g_autofree uint8_t *want = g_malloc0(size);
    BlkMake m = {.format = format, .base = base, .base_format = format};

    format_scribble(f, &(BlkOptions){.file = base}, want, size, 81, 50);
    g_autofree char *one = format_make(f, "one.img", &m, NULL);
    format_scribble(f, &(BlkOptions){.file = one}, want, size, 82, 50);
    g_assert_cmpint(rename(base, moved), ==, 0);
    block_fix_refused(f, &(BlkOptions){.file = one}, LODGE_ERROR_CONFIG, "no such file");
    /* Named once, it is known from then on. */
    blk_close(block_fix_open(f, &(BlkOptions){.file = one, .base = moved, .base_format = format}));
    format_same(f, &(BlkOptions){.file = one}, want, size, NULL);
    format_check(f, one, false, 0, 0);
}
