/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cuts and failing hosts, for each format that can be made.
 *
 * cut:  everything that happens to an image's file under random requests is recorded. Then files
 *       are put together as the disk could hold them after a cut at some point: what was written
 *       before the last sync is there; of what was written since, any part, in any order, torn
 *       between sectors. Each must open, pass the check without an error, and hold every byte that
 *       was flushed and not touched since. Leaks may be there.
 * fail: the n-th operation on the file fails, and all later ones for a while, with EIO or ENOSPC.
 *       Each request tells of an error or has done its work; afterwards the image is sound, and
 *       holds what was written well.
 *
 * FAULT_SEED sets the seed, which is printed; FAULT_CUTS how many cuts a format gets (150);
 * FAULT_FAILS how many failures (60); FAULT_FORMAT picks one format.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "blockfix.h"
#include "image_ops.h"

#define SIZE (3 * MIB)
#define SECTORS (SIZE / 512)
#define LEN_MAX_SECTORS 200u
#define ROUNDS 60u     /* of requests in a recording */
#define CUTS_A_RUN 50u /* from one recording */
#define SYNC_EVERY 5u

typedef struct Case {
    const BlkDriver *drv;
    bool base;
} Case;

/* ---- the record ---- */

typedef struct Entry {
    BlkTapOp op;
    uint64_t offset, len;
    uint8_t *data;   /* owned; WRITE */
    uint64_t start;  /* length of the record when it began */
} Entry;

/* What a flush, or a write with FUA, has promised from a length of the record on. */
typedef struct Promise {
    uint64_t at;
    uint8_t *bytes;  /* owned; of the disk */
    bool *open;      /* owned; sectors of which nothing is promised */
} Promise;

typedef struct Record {
    GMutex mutex;
    GArray *entries;  /* Entry */
    GArray *promises; /* Promise */
    uint64_t count;   /* operations so far */
    uint64_t fail_from, fail_for; /* of these, which fail; fail_for 0: none */
    int fail_err;
    bool reads_too;
} Record;

static int on_before(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len, uint64_t *ret_mark)
{
    Record *r = opaque;
    int err = 0;

    g_mutex_lock(&r->mutex);
    *ret_mark = r->entries->len;
    if (op != BLK_TAP_READ || r->reads_too) {
        if (r->fail_for && r->count >= r->fail_from && r->count < r->fail_from + r->fail_for)
            err = r->fail_err;
        r->count++;
    }
    g_mutex_unlock(&r->mutex);
    return err;
}

static void on_after(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len,
                     const struct iovec *iov, unsigned niov, uint64_t mark)
{
    Record *r = opaque;
    Entry e = {.op = op, .offset = offset, .len = len, .start = mark};

    if (op == BLK_TAP_READ)
        return;
    if (op == BLK_TAP_WRITE) {
        e.data = g_malloc(len);
        g_assert_cmpuint(iov_gather(iov, niov, 0, e.data, len), ==, len);
    }
    g_mutex_lock(&r->mutex);
    g_array_append_val(r->entries, e);
    g_mutex_unlock(&r->mutex);
}

static void clear_entry(void *p)
{
    g_free(((Entry *)p)->data);
}

static void clear_promise(void *p)
{
    g_free(((Promise *)p)->bytes);
    g_free(((Promise *)p)->open);
}

static void record_init(Record *r)
{
    *r = (Record){.entries = g_array_new(FALSE, FALSE, sizeof(Entry)),
                  .promises = g_array_new(FALSE, FALSE, sizeof(Promise))};
    g_mutex_init(&r->mutex);
    g_array_set_clear_func(r->entries, clear_entry);
    g_array_set_clear_func(r->promises, clear_promise);
}

static void record_end(Record *r)
{
    g_array_unref(r->entries);
    g_array_unref(r->promises);
    g_mutex_clear(&r->mutex);
}

/* ---- requests ---- */

/* What a request touched: nothing is promised of that until the next flush. */
typedef struct Touch {
    uint64_t at; /* length of the record before the request */
    uint64_t first, n;
} Touch;

/* What is known of each sector. */
typedef struct Disk {
    uint8_t *bytes;    /* owned; what was written last */
    uint8_t *flushed;  /* owned; what was flushed last */
    bool *touched;     /* owned; since then */
} Disk;

static void disk_init(Disk *d, const uint8_t *bytes)
{
    d->bytes = g_memdup2(bytes, SIZE);
    d->flushed = g_memdup2(bytes, SIZE);
    d->touched = g_new0(bool, SECTORS);
}

static void disk_end(Disk *d)
{
    g_free(d->bytes);
    g_free(d->flushed);
    g_free(d->touched);
}

static void touch(Disk *d, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++)
        d->touched[i] = true;
}

/* One random request. Return: its errno. What it did is in @d; after an error nobody knows.
 * *ret_fua: it is on the disk. */
static int request(BlkNode *n, GRand *rand, Disk *d, Touch *ret_touch, bool *ret_fua)
{
    uint32_t count = g_rand_int_range(rand, 1, g_rand_int_range(rand, 0, 4) ? 20 : LEN_MAX_SECTORS);
    uint64_t first = g_rand_int_range(rand, 0, SECTORS - count + 1), len = count * 512;
    g_autofree uint8_t *buf = g_malloc0(len);
    struct iovec iov = {buf, len};
    BlkReq req = {.op = BLK_WRITE, .offset = first * 512, .len = len,
                  .may_unmap = g_rand_boolean(rand), .fua = g_rand_int_range(rand, 0, 10) == 0};

    switch (g_rand_int_range(rand, 0, 8)) {
    case 0:
        req.op = BLK_ZERO;
        break;
    case 1:
        req.op = BLK_DISCARD;
        break;
    default:
        memset(buf, g_rand_int_range(rand, 1, 256), len);
        for (uint64_t i = 0; i < len; i += 512)
            buf[i] = (uint8_t)(first + i / 512);
        req.iov = &iov;
        req.niov = 1;
    }
    touch(d, first, count);
    ret_touch->first = first;
    ret_touch->n = count;
    int err = blk_wait(n, &req);
    if (!err && req.op == BLK_DISCARD) /* may read as before or as zeros: see which */
        err = blk_pread(n, buf, req.offset, len);
    if (!err)
        memcpy(d->bytes + first * 512, buf, len);
    *ret_fua = !err && req.fua && req.op == BLK_WRITE;
    if (*ret_fua) {
        memcpy(d->flushed + first * 512, buf, len);
        memset(d->touched + first, 0, count * sizeof *d->touched);
    }
    return err;
}

static int flush(BlkNode *n, Disk *d)
{
    int err = blk_flush(n);

    if (err)
        return err;
    memcpy(d->flushed, d->bytes, SIZE);
    memset(d->touched, 0, SECTORS * sizeof *d->touched);
    return 0;
}

/* ---- images ---- */

typedef struct Image {
    BlockFix *f;
    char *path, *base, *cut; /* base: or NULL */
    const char *format;
    uint8_t *bytes; /* of the disk, new; SIZE */
} Image;

static void image_init(Image *im, BlockFix *f, const Case *c)
{
    g_autoptr(GError) error = NULL;
    CopyResult r;

    *im = (Image){.f = f, .path = block_fix_path(f, "image"), .cut = block_fix_path(f, "cut"),
                  .format = c->drv->name, .bytes = g_malloc0(SIZE)};
    BlkMake make = {.file = im->path, .format = c->drv->name, .size = SIZE, .overwrite = true};
    if (c->base) {
        im->base = block_fix_image(f, "base", SIZE, 3);
        make.base = im->base;
        for (uint64_t i = 0; i < SIZE; i++)
            im->bytes[i] = block_fix_byte(i, 3);
    }
    if (!blk_make(&make, f->io, &error)) {
        /* Overlays of some formats stand on their own kind only. */
        g_autofree char *own = block_fix_path(f, "own-base");
        ConvertArgs a = {.from = im->base,
                         .to = {.file = own, .format = c->drv->name, .overwrite = true}};
        g_clear_error(&error);
        image_convert(&a, f->io, f->io, &r, &error);
        g_assert_no_error(error);
        make.base = own;
        make.base_format = c->drv->name;
        make.size = 0;
        blk_make(&make, f->io, &error);
        g_assert_no_error(error);
    }
}

static void image_end(Image *im)
{
    g_free(im->path);
    g_free(im->base);
    g_free(im->cut);
    g_free(im->bytes);
}

static BlkNode *open_image(const Image *im, const char *path, const BlkTap *tap, unsigned flags,
                           GError **error)
{
    BlkOptions o = {.file = path, .format = im->format, .metadata_cache = 8192, .tap = tap};

    return blk_open_flags(NULL, &o, flags | BLK_OPEN_QUIET, im->f->io, error);
}

/* @path opens, is without an error, and holds @want where @skip does not say otherwise. */
static void expect_sound(const Image *im, const char *path, const uint8_t *want, const bool *skip,
                         const char *what)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkReport) r = blk_report_new();
    g_autofree uint8_t *got = g_malloc(SIZE);
    g_autoptr(BlkNode) n = open_image(im, path, NULL, 0, &error);

    if (!n)
        g_error("%s: %s", what, error->message);
    if (n->drv->check && !image_check(n, false, r, &error))
        g_error("%s: check: %s", what, error->message);
    if (r->errors)
        g_error("%s: %s", what, (char *)g_ptr_array_index(r->lines, 0));
    g_assert_cmpint(blk_pread(n, got, 0, SIZE), ==, 0);
    for (uint64_t s = 0; s < SECTORS; s++)
        if (!(skip && skip[s]) && memcmp(got + s * 512, want + s * 512, 512) != 0)
            g_error("%s: sector %" G_GUINT64_FORMAT " is %02x %02x..., not %02x %02x...", what, s,
                    got[s * 512], got[s * 512 + 1], want[s * 512], want[s * 512 + 1]);
}

/* ---- cuts ---- */

/* Do a part of @e to the file @m that is being put together. */
static void medium_apply(GByteArray *m, const Entry *e, uint64_t from, uint64_t len)
{
    uint64_t end = e->offset + from + len;

    if (e->op == BLK_TAP_TRUNCATE) {
        uint64_t old = m->len;
        g_byte_array_set_size(m, e->len);
        if (e->len > old)
            memset(m->data + old, 0, e->len - old);
        return;
    }
    if (e->op == BLK_TAP_ZERO) /* holes do not make a file longer */
        end = MIN(end, m->len);
    if (end > m->len) {
        uint64_t old = m->len;
        g_byte_array_set_size(m, end);
        memset(m->data + old, 0, end - old);
    }
    if (e->offset + from >= end)
        return;
    if (e->op == BLK_TAP_WRITE)
        memcpy(m->data + e->offset + from, e->data + from, end - e->offset - from);
    else
        memset(m->data + e->offset + from, 0, end - e->offset - from);
}

/* Some of @e: all, nothing, or some of its sectors. */
static void medium_tear(GByteArray *m, const Entry *e, GRand *rand)
{
    unsigned kind = g_rand_int_range(rand, 0, 4);

    if (kind == 0)
        return;
    if (kind < 3 || e->op == BLK_TAP_TRUNCATE) {
        medium_apply(m, e, 0, e->len);
        return;
    }
    for (uint64_t at = 0; at < e->len;) {
        uint64_t part = MIN(e->len - at, BLK_SECTOR - (e->offset + at) % BLK_SECTOR);
        if (g_rand_boolean(rand))
            medium_apply(m, e, at, part);
        at += part;
    }
}

/* The file as it could be after a cut at length @at of the record. */
static void put_together(const Record *r, const GByteArray *start, uint64_t at, GRand *rand,
                         const char *path)
{
    g_autoptr(GByteArray) m = g_byte_array_sized_new(start->len);
    g_autoptr(GArray) loose = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    uint64_t sure = 0; /* entries before this one are on the disk */
    bool all = g_rand_int_range(rand, 0, 8) == 0, none = g_rand_int_range(rand, 0, 8) == 0;

    g_byte_array_append(m, start->data, start->len);
    for (uint64_t i = 0; i < at; i++) {
        const Entry *e = &g_array_index(r->entries, Entry, i);
        if (e->op == BLK_TAP_SYNC)
            sure = MAX(sure, e->start);
    }
    for (uint64_t i = 0; i < r->entries->len; i++) {
        const Entry *e = &g_array_index(r->entries, Entry, i);
        if (e->op == BLK_TAP_SYNC)
            continue;
        if (i < sure || (all && i < at))
            medium_apply(m, e, 0, e->len);
        else if (!none && e->start <= at && i < at + 8) /* written, or under way at the cut */
            g_array_append_val(loose, i);
    }
    /* Within a sector the later write wins: order counts only between writes that do not meet, and
     * those commute. What is lost of them is drawn for each. */
    for (guint k = 0; k < loose->len; k++)
        medium_tear(m, &g_array_index(r->entries, Entry, g_array_index(loose, uint64_t, k)), rand);
    g_assert_true(g_file_set_contents(path, (char *)m->data, m->len, NULL));
}

/* The last promise before @at. */
static const Promise *promise_at(const Record *r, uint64_t at)
{
    const Promise *best = NULL;

    for (guint i = 0; i < r->promises->len; i++) {
        const Promise *p = &g_array_index(r->promises, Promise, i);
        if (p->at <= at)
            best = p;
    }
    return best;
}

static void promise(Record *r, const Disk *d)
{
    Promise p = {.at = r->entries->len, .bytes = g_memdup2(d->flushed, SIZE),
                 .open = g_memdup2(d->touched, SECTORS * sizeof *d->touched)};

    g_array_append_val(r->promises, p);
}

static void test_cut(gconstpointer data)
{
    const Case *c = data;
    const char *text = g_getenv("FAULT_SEED"), *cuts_text = g_getenv("FAULT_CUTS");
    guint32 seed = text ? (guint32)g_ascii_strtoull(text, NULL, 0) : g_random_int();
    unsigned cuts = cuts_text ? (unsigned)g_ascii_strtoull(cuts_text, NULL, 0) : 150;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

    g_test_message("FAULT_SEED=%u", seed);
    for (unsigned done = 0; done < cuts;) {
        g_autoptr(BlockFix) f = block_fix_new();
        g_autoptr(GError) error = NULL;
        g_autoptr(GArray) touches = g_array_new(FALSE, FALSE, sizeof(Touch));
        g_autofree char *start_text = NULL;
        gsize start_len;
        Record r;
        Disk d;
        Image im;

        record_init(&r);
        BlkTap tap = {on_before, on_after, &r};
        image_init(&im, f, c);
        disk_init(&d, im.bytes);
        g_assert_true(g_file_get_contents(im.path, &start_text, &start_len, NULL));
        GByteArray start = {(guint8 *)start_text, (guint)start_len};
        BlkNode *n = open_image(&im, im.path, &tap, 0, &error);
        g_assert_no_error(error);
        promise(&r, &d);
        for (unsigned i = 0; i < ROUNDS; i++) {
            Touch t = {.at = r.entries->len};
            bool fua;
            g_assert_cmpint(request(n, rand, &d, &t, &fua), ==, 0);
            if (fua)
                promise(&r, &d);
            g_array_append_val(touches, t);
            if (g_rand_int_range(rand, 0, SYNC_EVERY) == 0) {
                g_assert_cmpint(flush(n, &d), ==, 0);
                promise(&r, &d);
            }
            if (c->drv->snap && g_rand_int_range(rand, 0, 20) == 0) {
                image_snapshot(n, "create", "s", &error);
                if (error)
                    image_snapshot(n, "delete", "s", NULL);
                g_clear_error(&error);
            }
        }
        blk_close(n);
        expect_sound(&im, im.path, d.bytes, NULL, "closed in peace");
        for (unsigned i = 0; i < CUTS_A_RUN && done < cuts; i++, done++) {
            uint64_t at = g_rand_int_range(rand, 0, (int)r.entries->len + 1);
            const Promise *p = promise_at(&r, at);
            g_autofree bool *skip = g_memdup2(p->open, SECTORS * sizeof(bool));
            g_autofree char *what =
                g_strdup_printf("%s, seed %u, cut %u at %" G_GUINT64_FORMAT, im.format, seed, done,
                                at);
            for (guint k = 0; k < touches->len; k++) {
                const Touch *t = &g_array_index(touches, Touch, k);
                for (uint64_t s = t->first; t->at >= p->at && s < t->first + t->n; s++)
                    skip[s] = true;
            }
            put_together(&r, &start, at, rand, im.cut);
            expect_sound(&im, im.cut, p->bytes, skip, what);
        }
        disk_end(&d);
        image_end(&im);
        record_end(&r);
    }
}

/* ---- failures ---- */

static void test_fail(gconstpointer data)
{
    static const int errors[] = {EIO, ENOSPC};
    const Case *c = data;
    const char *text = g_getenv("FAULT_SEED"), *fails_text = g_getenv("FAULT_FAILS");
    guint32 seed = text ? (guint32)g_ascii_strtoull(text, NULL, 0) : g_random_int();
    unsigned fails = fails_text ? (unsigned)g_ascii_strtoull(fails_text, NULL, 0) : 60;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);

    g_test_message("FAULT_SEED=%u", seed);
    for (unsigned i = 0; i < fails; i++) {
        g_autoptr(BlockFix) f = block_fix_new();
        g_autoptr(GError) error = NULL;
        g_autofree char *what = g_strdup_printf("%s, seed %u, failure %u", c->drv->name, seed, i);
        g_autofree bool *unsure = g_new0(bool, SECTORS);
        Record r;
        Disk d;
        Image im;

        record_init(&r);
        BlkTap tap = {on_before, on_after, &r};
        image_init(&im, f, c);
        disk_init(&d, im.bytes);
        BlkNode *n = open_image(&im, im.path, &tap, 0, &error);
        g_assert_no_error(error);
        r.fail_from = r.count + (uint64_t)g_rand_int_range(rand, 0, 60);
        r.fail_for = g_rand_boolean(rand) ? 1 : (uint64_t)g_rand_int_range(rand, 2, 30);
        r.fail_err = errors[i % 2];
        r.reads_too = i % 4 == 0;
        for (unsigned k = 0; k < ROUNDS; k++) {
            Touch t;
            bool fua;
            int err = request(n, rand, &d, &t, &fua);
            if (err)
                g_assert_cmpint(err, ==, r.fail_err);
            for (uint64_t at = t.first; at < t.first + t.n; at++)
                unsure[at] = err != 0; /* until it is written well */
            if (k % SYNC_EVERY == 0)
                (void)flush(n, &d);
        }
        r.fail_for = 0; /* the host is well again */
        int err = blk_flush(n);
        blk_close(n);
        if (err) /* what a failed flush has lost stays lost, and says so for ever */
            memcpy(unsure, d.touched, SECTORS * sizeof(bool));
        expect_sound(&im, im.path, d.bytes, unsure, what);
        disk_end(&d);
        image_end(&im);
        record_end(&r);
    }
}

int main(int argc, char **argv)
{
    const char *only = g_getenv("FAULT_FORMAT");
    const BlkDriver *drv;

    /* Syncs are recorded, not needed: memory is fast. */
    if (g_access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", TRUE);
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; (drv = blk_driver_at(i)); i++) {
        for (unsigned base = 0; base < 2; base++) {
            g_autofree char *cut =
                g_strdup_printf("/fault/cut/%s%s", drv->name, base ? "-on-base" : "");
            g_autofree char *fail =
                g_strdup_printf("/fault/fail/%s%s", drv->name, base ? "-on-base" : "");
            if (!drv->create || (only && strcmp(only, drv->name)) ||
                (base && !drv->attach && !drv->set_base) ||
                (!base && drv->flags & BLK_DRV_NEEDS_BASE))
                continue;
            const Case c = {drv, base};
            g_test_add_data_func_full(cut, g_memdup2(&c, sizeof c), test_cut, g_free);
            g_test_add_data_func_full(fail, g_memdup2(&c, sizeof c), test_fail, g_free);
        }
    }
    return g_test_run();
}
