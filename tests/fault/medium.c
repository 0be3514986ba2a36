/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk that loses its power: what was written before a sync that has ended is there; of what was
 * written since, and of what is under way, any part may be, in any order, torn between sectors.
 * Files are synced each for itself.
 *
 * Threads: the taps come on any; the record is under its mutex.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "lodge/num.h"

#include "medium.h"

#define UNDER_WAY 8u /* operations at once, at most */

typedef struct Entry {
    unsigned file;
    BlkTapOp op;
    uint64_t offset, len;
    uint8_t *data;  /* owned; WRITE */
    uint64_t start; /* length of the record when it began */
} Entry;

static int before(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len, uint64_t *ret_mark)
{
    Medium *m = ((MediumFile *)opaque)->medium;
    int err = 0;

    g_mutex_lock(&m->mutex);
    *ret_mark = m->entries->len;
    if (op != BLK_TAP_READ || m->reads_too) {
        if (m->fail_for && m->count >= m->fail_from && m->count - m->fail_from < m->fail_for) {
            err = m->fail_err;
            m->failed++;
        }
        m->count++;
    }
    g_mutex_unlock(&m->mutex);
    return err;
}

static void after(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len,
                  const struct iovec *iov, unsigned niov, uint64_t mark)
{
    MediumFile *f = opaque;
    Medium *m = f->medium;
    Entry e = {.file = f->index, .op = op, .offset = offset, .len = len, .start = mark};

    if (op == BLK_TAP_READ)
        return;
    if (op == BLK_TAP_WRITE) {
        e.data = g_malloc(len);
        g_assert_cmpuint(iov_gather(iov, niov, 0, e.data, len), ==, len);
    }
    g_mutex_lock(&m->mutex);
    g_array_append_val(m->entries, e);
    g_mutex_unlock(&m->mutex);
}

static void clear_entry(void *p)
{
    g_free(((Entry *)p)->data);
}

Medium *medium_new(void)
{
    Medium *m = g_new0(Medium, 1);

    m->entries = g_array_new(FALSE, FALSE, sizeof(Entry));
    g_array_set_clear_func(m->entries, clear_entry);
    g_mutex_init(&m->mutex);
    return m;
}

void medium_free(Medium *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->n_files; i++) {
        g_free(m->files[i].path);
        g_bytes_unref(m->files[i].start);
    }
    g_array_unref(m->entries);
    g_mutex_clear(&m->mutex);
    g_free(m);
}

const BlkTap *medium_add(Medium *m, const char *path)
{
    MediumFile *f = &m->files[m->n_files];
    char *bytes;
    gsize len;

    g_assert_cmpuint(m->n_files, <, MEDIUM_FILES);
    g_assert_true(g_file_get_contents(path, &bytes, &len, NULL));
    *f = (MediumFile){.medium = m, .index = m->n_files++, .path = g_strdup(path),
                      .start = g_bytes_new_take(bytes, len)};
    f->tap = (BlkTap){before, after, f};
    return &f->tap;
}

uint64_t medium_now(Medium *m)
{
    g_mutex_lock(&m->mutex);
    uint64_t now = m->entries->len;
    g_mutex_unlock(&m->mutex);
    return now;
}

/* Zeros behind the old end. */
static void grow(GByteArray *a, uint64_t len)
{
    uint64_t old = a->len;

    if (len <= old)
        return;
    g_byte_array_set_size(a, (guint)len);
    memset(a->data + old, 0, len - old);
}

/* Do a part of @e to @a. */
static void apply(GByteArray *a, const Entry *e, uint64_t from, uint64_t len)
{
    uint64_t at = e->offset + from, end = at + len;

    switch (e->op) {
    case BLK_TAP_TRUNCATE:
        grow(a, e->len);
        g_byte_array_set_size(a, (guint)e->len);
        break;
    case BLK_TAP_WRITE:
        grow(a, end);
        memcpy(a->data + at, e->data + from, len);
        break;
    case BLK_TAP_ZERO: /* holes do not make a file longer */
        if (at < MIN(end, a->len))
            memset(a->data + at, 0, MIN(end, a->len) - at);
        break;
    default:
        break;
    }
}

/* Some of @e: all, nothing, or some of its sectors. */
static void tear(const Medium *m, GByteArray *a, const Entry *e, GRand *rand)
{
    bool whole = range_within(e->offset - m->whole_at, e->len, m->whole_len);
    unsigned kind = g_rand_int_range(rand, 0, whole ? 3 : 4);

    if (kind == 0)
        return;
    if (kind < 3 || e->op == BLK_TAP_TRUNCATE) {
        apply(a, e, 0, e->len);
        return;
    }
    for (uint64_t at = 0; at < e->len;) {
        uint64_t part = MIN(e->len - at, BLK_SECTOR - (e->offset + at) % BLK_SECTOR);
        if (g_rand_boolean(rand))
            apply(a, e, at, part);
        at += part;
    }
}

GByteArray *medium_cut(Medium *m, unsigned index, uint64_t at, GRand *rand)
{
    gsize len;
    const void *start = g_bytes_get_data(m->files[index].start, &len);
    GByteArray *a = g_byte_array_sized_new((guint)len);
    bool all = g_rand_int_range(rand, 0, 8) == 0, none = g_rand_int_range(rand, 0, 8) == 0;
    uint64_t sure = 0; /* entries before this one are on the disk */

    g_byte_array_append(a, start, (guint)len);
    for (uint64_t i = 0; i < at; i++) {
        const Entry *e = &g_array_index(m->entries, Entry, i);
        if (e->op == BLK_TAP_SYNC && e->file == index)
            sure = MAX(sure, e->start);
    }
    /* Where two that are loose meet, the later wins: what is lost of them is drawn for each. */
    for (uint64_t i = 0; i < MIN(at + UNDER_WAY, m->entries->len); i++) {
        const Entry *e = &g_array_index(m->entries, Entry, i);
        if (e->file != index)
            continue;
        if (i < sure || (all && i < at))
            apply(a, e, 0, e->len);
        else if (!none && e->start <= at) /* written, or under way at the cut */
            tear(m, a, e, rand);
    }
    return a;
}

void medium_store(const char *path, const GByteArray *bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    g_assert_cmpint(fd, >=, 0);
    for (guint at = 0; at < bytes->len; at += 65536) {
        guint part = MIN(65536, bytes->len - at);
        if (!buffer_is_zero(bytes->data + at, part))
            g_assert_cmpint(pwrite(fd, bytes->data + at, part, at), ==, (ssize_t)part);
    }
    g_assert_cmpint(ftruncate(fd, bytes->len), ==, 0);
    close(fd);
}

uint64_t fault_number(const char *name, uint64_t otherwise)
{
    const char *text = g_getenv(name);

    return text ? g_ascii_strtoull(text, NULL, 0) : otherwise;
}

guint32 fault_seed(void)
{
    guint32 seed = (guint32)fault_number("FAULT_SEED", g_random_int());

    g_test_message("FAULT_SEED=%u", seed);
    return seed;
}
