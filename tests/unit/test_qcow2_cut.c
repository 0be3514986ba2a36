/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cuts: what a qcow2 image is after any instant. Every change of the file is recorded in
 * order, with the syncs; then the file is put together as a disk could hold it after a cut: all
 * that a finished sync covers, and of the rest each sector of each write or not, by chance. Every
 * such image must open, pass the check (what is counted and not used is allowed), and hold every
 * byte that a finished flush covered and nobody has touched since.
 *
 * LODGE_CUTS=N makes N cuts for each shape.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/num.h"

#include "block_int.h"
#include "qcow2fix.h"

#define CUTS_DEFAULT 150u

typedef enum EventKind { EV_WRITE, EV_ZERO, EV_SIZE, EV_SYNC } EventKind;

typedef struct Event {
    EventKind kind;
    uint64_t at, len;
    uint8_t *data;    /* owned */
    unsigned covers;  /* SYNC: events before this one are on the disk */
} Event;

static GMutex mutex;
static GArray *events; /* Event; guarded by mutex */

static int before(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len, uint64_t *ret_mark)
{
    g_mutex_lock(&mutex);
    *ret_mark = events->len;
    g_mutex_unlock(&mutex);
    return 0;
}

static void after(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len,
                  const struct iovec *iov, unsigned niov, uint64_t mark)
{
    static const EventKind kinds[] = {[BLK_TAP_WRITE] = EV_WRITE, [BLK_TAP_ZERO] = EV_ZERO,
                                      [BLK_TAP_TRUNCATE] = EV_SIZE, [BLK_TAP_SYNC] = EV_SYNC};
    Event e = {.at = offset, .len = len, .covers = mark};

    if (op == BLK_TAP_READ)
        return;
    e.kind = kinds[op];
    if (e.kind == EV_SIZE)
        e.at = len;
    if (e.kind == EV_WRITE) {
        e.data = g_malloc(len);
        iov_gather(iov, niov, 0, e.data, len);
    }
    g_mutex_lock(&mutex);
    g_array_append_val(events, e);
    g_mutex_unlock(&mutex);
}

static const BlkTap tap = {before, after, NULL};

/* ---- the file put together ---- */

typedef struct Disk {
    uint8_t *bytes; /* owned */
    uint64_t len, room;
} Disk;

static void grow(Disk *d, uint64_t len)
{
    if (len > d->room) {
        uint64_t room = len * 2;
        d->bytes = g_realloc(d->bytes, room);
        memset(d->bytes + d->room, 0, room - d->room);
        d->room = room;
    }
    d->len = MAX(d->len, len);
}

/* @torn: each sector by chance. */
static void apply(Disk *d, const Event *e, GRand *torn)
{
    if (e->kind == EV_SIZE && !torn) {
        grow(d, e->at);
        memset(d->bytes + e->at, 0, d->room - e->at);
        d->len = e->at;
    }
    if (e->kind != EV_WRITE && e->kind != EV_ZERO)
        return;
    for (uint64_t at = e->at, end = e->at + e->len; at < end;) {
        uint64_t part = MIN(end, align_down(at, 512) + 512) - at;
        if (!torn || g_rand_boolean(torn)) {
            if (e->kind == EV_WRITE) {
                grow(d, at + part);
                memcpy(d->bytes + at, e->data + (at - e->at), part);
            } else if (at < d->len) {
                grow(d, MAX(d->len, MIN(at + part, d->room)));
                memset(d->bytes + at, 0, MIN(part, d->room - at));
            }
        }
        at += part;
    }
}

/* ---- what the guest did ---- */

typedef struct Mark {
    unsigned at;    /* events that there were */
    uint8_t *want;  /* owned; FLUSH: the disk's bytes */
    uint64_t from, len; /* else: touched */
} Mark;

typedef struct Story {
    Twin *t;
    GArray *marks; /* Mark */
} Story;

static unsigned now(void)
{
    g_mutex_lock(&mutex);
    unsigned n = events->len;
    g_mutex_unlock(&mutex);
    return n;
}

static void touch(Story *s, uint64_t from, uint64_t len)
{
    Mark m = {.at = now(), .from = from, .len = len};

    g_array_append_val(s->marks, m);
}

static void flushed(Story *s)
{
    Mark m = {.at = now(), .want = g_memdup2(s->t->want, s->t->size)};

    g_array_append_val(s->marks, m);
}

static void live(Story *s, unsigned steps, uint32_t most, bool snapshots)
{
    Twin *t = s->t;
    unsigned snap = 0;

    for (unsigned i = 0; i < steps; i++) {
        uint64_t at = g_rand_int_range(t->rand, 0, t->size / 512) * 512ull;
        uint64_t len = g_rand_int_range(t->rand, 1, most / 512 + 1) * 512ull;
        len = MIN(len, t->size - at);
        unsigned what = g_rand_int_range(t->rand, 0, 20);
        BlkReq zero = {.op = what & 1 ? BLK_ZERO : BLK_DISCARD, .may_unmap = true, .offset = at,
                       .len = len};
        if (what < 3) {
            g_assert_cmpint(blk_flush(t->n), ==, 0);
            flushed(s);
        } else if (what < 7) {
            touch(s, at, len);
            memset(t->want + at, 0, len);
            g_assert_cmpint(blk_wait(t->n, &zero), ==, 0);
        } else if (what == 7 && snapshots) {
            g_autofree char *name = g_strdup_printf("s%u", snap++ / 2);
            if (snap & 1)
                g_assert_true(t->n->drv->snap->create(t->n, name, NULL));
            else
                g_assert_true(t->n->drv->snap->remove(t->n, name, NULL));
        } else {
            touch(s, at, len);
            for (uint64_t k = 0; k < len; k += 512)
                memset(t->want + at + k, g_rand_int(t->rand), 512);
            struct iovec iov = {t->want + at, len};
            BlkReq req = {.op = BLK_WRITE, .offset = at, .len = len, .iov = &iov, .niov = 1,
                          .compress = what == 8};
            g_assert_cmpint(blk_wait(t->n, &req), ==, 0);
        }
    }
}

/* ---- after the cut ---- */

static void write_file(const char *path, const Disk *d)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    for (uint64_t at = 0; at < d->len; at += 4096) {
        uint64_t part = MIN(4096, d->len - at);
        if (!buffer_is_zero(d->bytes + at, part))
            g_assert_cmpint(pwrite(fd, d->bytes + at, part, at), ==, (long)part);
    }
    g_assert_cmpint(ftruncate(fd, d->len), ==, 0);
    close(fd);
}

static void expect_clean(Story *s, const char *path)
{
    g_autoptr(BlkReport) r = blk_report_new();
    BlkOptions o = {.file = path, .format = "qcow2", .read_only = true};
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkNode) n = blk_open_flags(NULL, &o, BLK_OPEN_CHECK | BLK_OPEN_QUIET, s->t->f->io,
                                          &error);

    g_assert_no_error(error);
    g_assert_true(n->drv->check(n, false, r, &error));
    if (r->errors)
        g_error("%s", (char *)g_ptr_array_index(r->lines, 0));
}

static void check_cut(Story *s, const Disk *d, unsigned cut, unsigned durable, bool snapshots)
{
    Twin *t = s->t;
    g_autofree char *path = block_fix_path(t->f, "cut.qcow2");
    g_autofree uint8_t *touched = g_malloc0(t->size / 512);
    const uint8_t *want = NULL;

    write_file(path, d);
    if (!snapshots)
        expect_clean(s, path);
    BlkNode *n = block_fix_open(t->f, &(BlkOptions){.file = path});
    g_assert_cmpint(blk_pread(n, t->buf, 0, t->size), ==, 0);
    blk_close(n);
    expect_clean(s, path);
    for (guint i = 0; i < s->marks->len; i++) {
        const Mark *m = &g_array_index(s->marks, Mark, i);
        if (m->at > cut)
            break;
        if (m->want) {
            want = m->want;
            memset(touched, 0, t->size / 512);
        } else {
            memset(touched + m->from / 512, 1, m->len / 512);
        }
    }
    for (uint64_t k = 0; want && k < t->size / 512; k++)
        if (!touched[k] && memcmp(want + k * 512, t->buf + k * 512, 512) != 0)
            g_error("cut at %u of %u, synced to %u: sector %" G_GUINT64_FORMAT " is lost", cut,
                    events->len, durable, k);
}

typedef struct Shape {
    const char *name, *options, *base;
    uint64_t size;
    unsigned steps;
    uint32_t most;
    bool snapshots;
} Shape;

static const Shape shapes[] = {
    {"default", NULL, NULL, 4 * MIB, 120, 150000, false},
    {"overlay", "cluster-size=4K", "base.img", MIB, 150, 20000, false},
    {"tiny", "cluster-size=512,refcount-bits=64", NULL, MIB, 120, 20000, false},
    {"snapshots", "cluster-size=1K", "base.img", MIB / 2, 150, 10000, true},
};

static void load_start(Disk *d, const char *path)
{
    g_autofree char *text = NULL;
    gsize len;

    g_assert_true(g_file_get_contents(path, &text, &len, NULL));
    grow(d, len);
    memcpy(d->bytes, text, len);
}

static void test_cut(gconstpointer opaque)
{
    const Shape *shape = opaque;
    const char *env = g_getenv("LODGE_CUTS");
    unsigned cuts = env ? atoi(env) : CUTS_DEFAULT;
    g_autoptr(Twin) t = twin_new(shape->size, shape->options, shape->base, shape->base ? 5 : 0);
    Story s = {.t = t, .marks = g_array_new(FALSE, TRUE, sizeof(Mark))};
    Disk durable = {0};

    blk_close(g_steal_pointer(&t->n));
    load_start(&durable, t->path);
    events = g_array_new(FALSE, TRUE, sizeof(Event));
    /* A small cache, so that tables go to the disk between flushes as well. */
    t->n = block_fix_open(t->f, &(BlkOptions){.file = t->path, .metadata_cache = 16384});
    blk_file_under(t->n)->tap = &tap;
    flushed(&s);
    live(&s, shape->steps, shape->most, shape->snapshots);
    blk_close(g_steal_pointer(&t->n));
    unsigned synced = 0, last = 0;
    for (unsigned i = 0; i < cuts; i++) {
        unsigned cut = (uint64_t)events->len * (i + 1) / cuts;
        for (; last < cut; last++) {
            const Event *e = &g_array_index(events, Event, last);
            for (; e->kind == EV_SYNC && synced < e->covers; synced++)
                apply(&durable, &g_array_index(events, Event, synced), NULL);
        }
        Disk d = {g_memdup2(durable.bytes, durable.room), durable.len, durable.room};
        for (unsigned k = synced; k < cut; k++)
            apply(&d, &g_array_index(events, Event, k), t->rand);
        check_cut(&s, &d, cut, synced, shape->snapshots);
        g_free(d.bytes);
    }
    for (guint i = 0; i < events->len; i++)
        g_free(g_array_index(events, Event, i).data);
    g_clear_pointer(&events, g_array_unref);
    for (guint i = 0; i < s.marks->len; i++)
        g_free(g_array_index(s.marks, Mark, i).want);
    g_array_unref(s.marks);
    g_free(durable.bytes);
}

int main(int argc, char **argv)
{
    twin_init(&argc, &argv);
    for (unsigned i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2-cut/%s", shapes[i].name);
        g_test_add_data_func(path, &shapes[i], test_cut);
    }
    return g_test_run();
}
