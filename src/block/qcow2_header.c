/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The header of qcow2 images and its extensions: read and checked, built, changed field by field.
 *
 * Every field is held against the file and against the named ceilings before anything is allocated
 * or read by it. Unknown incompatible features are refused by the names that the image itself gives
 * them; unknown extensions are kept when the header is built anew.
 *
 * Fields that belong together lie in the header's first sector and are written by one call, so that
 * a power cut leaves the old ones or the new ones.
 *
 * Spec: the specification, "Header", "Header extensions", "Feature name table".
 *
 * Threads: reading and building on main; qcow_header_put() on the worker too.
 */
#include <string.h>

#include "lodge/num.h"

#include "qcow2.h"

#define EXTENSIONS_MAX 64u /* in one header; a bound for the loops */
#define FEATURE_BYTES 48u  /* of an entry in the table of names */
#define FEATURE_NAME 46u
#define AT_COMPRESSION 104u
#define INCOMPATIBLE_KNOWN 5u /* bits: QCOW_INC_* */

bool qcow_probe(const BlkProbe *p)
{
    return load_be32(p->head) == QCOW_MAGIC;
}

uint64_t qcow_l1_need(uint64_t size, unsigned cluster_bits, bool extended)
{
    unsigned shift = cluster_bits + cluster_bits - (extended ? 4 : 3);

    return (size >> shift) + ((size & (((uint64_t)1 << shift) - 1)) != 0);
}

static void parse_fields(const uint8_t *b, QcowHeader *h)
{
    h->version = load_be32(b + 4);
    h->backing_offset = load_be64(b + QCOW_AT_BACKING);
    h->backing_len = load_be32(b + 16);
    h->cluster_bits = load_be32(b + 20);
    h->size = load_be64(b + QCOW_AT_SIZE);
    h->crypt = load_be32(b + 32);
    h->l1_size = load_be32(b + QCOW_AT_L1_SIZE);
    h->l1_offset = load_be64(b + QCOW_AT_L1);
    h->rt_offset = load_be64(b + QCOW_AT_RT);
    h->rt_clusters = load_be32(b + 56);
    h->n_snapshots = load_be32(b + QCOW_AT_SNAPSHOTS);
    h->snapshots_offset = load_be64(b + 64);
    h->refcount_order = 4;
    h->length = QCOW_V2_HEADER;
    if (h->version < 3)
        return;
    h->incompatible = load_be64(b + QCOW_AT_INCOMPATIBLE);
    h->compatible = load_be64(b + 80);
    h->autoclear = load_be64(b + QCOW_AT_AUTOCLEAR);
    h->refcount_order = load_be32(b + 96);
    h->length = load_be32(b + 100);
    if (h->length > AT_COMPRESSION)
        h->compression = b[AT_COMPRESSION];
}

static bool bad(const char *path, const char *field, uint64_t at, const char *why, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_IMAGE, "'%s': %s at offset %" G_GUINT64_FORMAT " %s", path,
                      field, at, why);
}

/* ---- extensions ---- */

typedef struct Ext {
    uint32_t type, len;
    uint32_t at; /* of the data in the cluster */
} Ext;

/* The extension at *pos of the first @len bytes of the image. False: the end, or one that does not
 * fit, and then *ret_bad. */
static bool next_ext(const uint8_t *b, uint64_t len, uint64_t *pos, Ext *ret, bool *ret_bad)
{
    if (!range_within(*pos, 8, len))
        return false;
    ret->type = load_be32(b + *pos);
    ret->len = load_be32(b + *pos + 4);
    ret->at = *pos + 8;
    if (ret->type == QCOW_EXT_END)
        return false;
    if (!range_within(ret->at, ret->len, len)) {
        *ret_bad = true;
        return false;
    }
    *pos = align_up((uint64_t)ret->at + ret->len, 8);
    return true;
}

/* The name of incompatible feature @bit by the table at @t, or NULL; transfer full. */
static char *feature_name(const uint8_t *t, uint32_t len, unsigned bit)
{
    for (uint32_t at = 0; t && len - at >= FEATURE_BYTES; at += FEATURE_BYTES)
        if (t[at] == 0 && t[at + 1] == bit) {
            g_autofree char *raw = g_strndup((const char *)t + at + 2, FEATURE_NAME);
            return g_strescape(raw, NULL);
        }
    return NULL;
}

static bool check_features(const QcowHeader *h, const uint8_t *t, uint32_t len, const char *path,
                           GError **error)
{
    g_autoptr(GString) names = g_string_new(NULL);

    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(h->incompatible >> bit & 1) || bit < INCOMPATIBLE_KNOWN)
            continue;
        g_autofree char *name = feature_name(t, len, bit);
        g_string_append(names, names->len ? ", " : "");
        if (name)
            g_string_append_printf(names, "'%s'", name);
        else
            g_string_append_printf(names, "bit %u, which has no name", bit);
    }
    if (names->len)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': incompatible_features at offset %d asks for what is not known "
                          "here: %s; convert it by a newer program",
                          path, QCOW_AT_INCOMPATIBLE, names->str);
    if (h->incompatible & QCOW_INC_DATA_FILE)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': keeps its data in an external file, which is not supported; "
                          "convert it (qemu-img convert -O qcow2)",
                          path);
    if (!(h->incompatible & QCOW_INC_COMPRESSION) != (h->compression == QCOW_ZLIB))
        return bad(path, "compression_type", AT_COMPRESSION,
                   "disagrees with incompatible_features", error);
    if (h->compression > QCOW_ZSTD)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': compression_type at offset %u is %u, which is not known here; "
                          "convert it by a newer program",
                          path, AT_COMPRESSION, h->compression);
    return true;
}

static bool read_extensions(const uint8_t *b, uint64_t len, QcowHeader *h, const char *path,
                            BlkBaseRef *ref, GError **error)
{
    const uint8_t *features = NULL;
    uint32_t features_len = 0;
    uint64_t pos = h->length;
    bool broken = false;
    Ext e;

    for (unsigned i = 0; i < EXTENSIONS_MAX && next_ext(b, len, &pos, &e, &broken); i++) {
        if (e.type == QCOW_EXT_FORMAT && !ref->format) {
            if (e.len > QCOW_NAME_MAX || memchr(b + e.at, 0, e.len))
                return bad(path, "backing file format", e.at, "is no name", error);
            ref->format = g_strndup((const char *)b + e.at, e.len);
        } else if (e.type == QCOW_EXT_FEATURES) {
            features = b + e.at;
            features_len = e.len;
        } else if (e.type == QCOW_EXT_BITMAPS) {
            h->bitmaps = true;
        }
    }
    if (broken)
        return bad(path, "header extension", pos, "runs past the first cluster", error);
    return check_features(h, features, features_len, path, error);
}

/* ---- checks ---- */

static bool check_geometry(const QcowHeader *h, const char *path, GError **error)
{
    if (h->version != 2 && h->version != 3)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': version at offset 4 is %u; 2 and 3 are known; convert it "
                          "(qemu-img convert -O qcow2)",
                          path, h->version);
    if (h->cluster_bits < QCOW_CLUSTER_BITS_MIN || h->cluster_bits > QCOW_CLUSTER_BITS_MAX)
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': cluster_bits at offset 20 is %u; it can be %u to %u", path,
                          h->cluster_bits, QCOW_CLUSTER_BITS_MIN, QCOW_CLUSTER_BITS_MAX);
    if (h->crypt)
        return lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                          "'%s': is encrypted (%s), which is not supported; convert it (qemu-img "
                          "convert)",
                          path, h->crypt == 1 ? "AES" : h->crypt == 2 ? "LUKS" : "unknown way");
    if (h->refcount_order > 6)
        return bad(path, "refcount_order", 96, "is over 6", error);
    if (h->version >= 3 && (h->length < QCOW_V3_HEADER || h->length % 8 ||
                            h->length > (uint64_t)1 << h->cluster_bits))
        return bad(path, "header_length", 100, "is no length of a header", error);
    return true;
}

/* A table of @len bytes at @at, both aligned, inside a file of @file bytes (rounded up)? */
static bool check_table(const char *path, const char *field, uint64_t field_at, uint64_t at,
                        uint64_t len, uint32_t cs, uint64_t file, GError **error)
{
    if (at & (cs - 1))
        return bad(path, field, field_at, "is not aligned to a cluster", error);
    if (at == 0)
        return bad(path, field, field_at, "points to the header", error);
    if (!range_within(at, len, align_up(file, cs)))
        return lodge_fail(error, LODGE_ERROR_IMAGE,
                          "'%s': %s at offset %" G_GUINT64_FORMAT
                          " points past the end of the file (to %" G_GUINT64_FORMAT ", %"
                          G_GUINT64_FORMAT " bytes)",
                          path, field, field_at, at, len);
    return true;
}

static bool check_tables(const QcowHeader *h, const BlkFile *f, GError **error)
{
    bool extended = h->incompatible & QCOW_INC_EXTENDED_L2;
    uint32_t cs = 1u << h->cluster_bits;
    uint64_t rt = (uint64_t)h->rt_clusters * cs, l1 = (uint64_t)h->l1_size * 8;

    if (extended && h->cluster_bits < 14)
        return bad(f->path, "cluster_bits", 20, "is under 14, with extended L2 entries", error);
    if (h->size > BLK_MAX_SIZE)
        return bad(f->path, "size", QCOW_AT_SIZE, "is over 2^62", error);
    if (!h->size)
        return bad(f->path, "size", QCOW_AT_SIZE, "is 0: there is no disk", error);
    if (l1 > QCOW_L1_MAX)
        return bad(f->path, "l1_size", QCOW_AT_L1_SIZE, "is over 32 MiB of table", error);
    if (h->l1_size < qcow_l1_need(h->size, h->cluster_bits, extended))
        return bad(f->path, "l1_size", QCOW_AT_L1_SIZE, "is too small for the disk's size", error);
    if (l1 && !check_table(f->path, "l1_table_offset", QCOW_AT_L1, h->l1_offset, l1, cs, f->size,
                           error))
        return false;
    if (!h->rt_clusters || rt > QCOW_RT_MAX)
        return bad(f->path, "refcount_table_clusters", 56, "is 0 or over 8 MiB of table", error);
    if (!check_table(f->path, "refcount_table_offset", QCOW_AT_RT, h->rt_offset, rt, cs, f->size,
                     error))
        return false;
    if (h->n_snapshots > QCOW_SNAPSHOTS_MAX)
        return bad(f->path, "nb_snapshots", QCOW_AT_SNAPSHOTS, "is over 65536", error);
    return !h->n_snapshots || check_table(f->path, "snapshots_offset", 64, h->snapshots_offset,
                                          40, cs, f->size, error);
}

static bool read_backing(const QcowHeader *h, const uint8_t *b, uint64_t len, const char *path,
                         BlkBaseRef *ref, GError **error)
{
    if (!h->backing_offset) {
        g_clear_pointer(&ref->format, g_free);
        return true;
    }
    if (!h->backing_len || h->backing_len > QCOW_NAME_MAX)
        return bad(path, "backing_file_size", 16, "is no length of a name", error);
    if (!range_within(h->backing_offset, h->backing_len, len))
        return bad(path, "backing_file_offset", QCOW_AT_BACKING, "points out of the first cluster",
                   error);
    if (memchr(b + h->backing_offset, 0, h->backing_len))
        return bad(path, "backing file name", h->backing_offset, "has a zero byte", error);
    ref->path = g_strndup((const char *)b + h->backing_offset, h->backing_len);
    ref->field = "backing file name";
    ref->offset = h->backing_offset;
    return true;
}

bool qcow_header_read(BlkFile *f, const BlkOpenHow *how, QcowHeader *h, BlkBaseRef *ref,
                      GError **error)
{
    uint8_t head[QCOW_V3_HEADER + 8];

    if (!blk_file_pread(f, head, sizeof head, 0, error))
        return false;
    if (f->size < QCOW_V2_HEADER || load_be32(head) != QCOW_MAGIC)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "'%s': magic at offset 0 is not that of a "
                          "qcow2 image; name its right format", f->path);
    parse_fields(head, h);
    if (!check_geometry(h, f->path, error))
        return false;
    uint64_t len = MIN((uint64_t)1 << h->cluster_bits, f->size);
    g_autofree uint8_t *cluster = g_malloc(len);
    if (h->length > len)
        return bad(f->path, "header_length", 100, "is past the end of the file", error);
    return blk_file_pread(f, cluster, len, 0, error) &&
           read_extensions(cluster, len, h, f->path, ref, error) && check_tables(h, f, error) &&
           read_backing(h, cluster, len, f->path, ref, error);
}

/* ---- writing ---- */

static const struct {
    uint8_t type, bit;
    const char *name;
} feature_names[] = {
    {0, 0, "dirty bit"}, {0, 1, "corrupt bit"}, {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"},
    {1, 0, "lazy refcounts"}, {2, 0, "bitmaps"}, {2, 1, "raw external data"},
};

/* Append an extension; false: no room. */
static bool put_ext(uint8_t *buf, uint64_t cs, uint64_t *pos, uint32_t type, const void *data,
                    uint32_t len)
{
    if (!range_within(*pos, 8 + align_up(len, 8), cs))
        return false;
    store_be32(buf + *pos, type);
    store_be32(buf + *pos + 4, len);
    if (len)
        memcpy(buf + *pos + 8, data, len);
    *pos += 8 + align_up(len, 8);
    return true;
}

static void put_fields(const QcowHeader *h, uint8_t *b)
{
    store_be32(b, QCOW_MAGIC);
    store_be32(b + 4, h->version);
    store_be64(b + QCOW_AT_BACKING, h->backing_offset);
    store_be32(b + 16, h->backing_len);
    store_be32(b + 20, h->cluster_bits);
    store_be64(b + QCOW_AT_SIZE, h->size);
    store_be32(b + 32, h->crypt);
    store_be32(b + QCOW_AT_L1_SIZE, h->l1_size);
    store_be64(b + QCOW_AT_L1, h->l1_offset);
    store_be64(b + QCOW_AT_RT, h->rt_offset);
    store_be32(b + 56, h->rt_clusters);
    store_be32(b + QCOW_AT_SNAPSHOTS, h->n_snapshots);
    store_be64(b + 64, h->snapshots_offset);
    if (h->version < 3)
        return;
    store_be64(b + QCOW_AT_INCOMPATIBLE, h->incompatible);
    store_be64(b + 80, h->compatible);
    store_be64(b + QCOW_AT_AUTOCLEAR, h->autoclear);
    store_be32(b + 96, h->refcount_order);
    store_be32(b + 100, h->length);
    if (h->length > AT_COMPRESSION)
        b[AT_COMPRESSION] = h->compression;
}

/* The table of names, where there is room: it only helps those who do not know a feature. */
static void put_feature_names(uint8_t *buf, uint64_t cs, uint64_t *pos)
{
    uint8_t table[G_N_ELEMENTS(feature_names) * FEATURE_BYTES] = {0};

    for (unsigned i = 0; i < G_N_ELEMENTS(feature_names); i++) {
        uint8_t *p = table + i * FEATURE_BYTES;
        p[0] = feature_names[i].type;
        p[1] = feature_names[i].bit;
        memcpy(p + 2, feature_names[i].name, strlen(feature_names[i].name));
    }
    if (cs >= QCOW_BLOCK)
        (void)put_ext(buf, cs, pos, QCOW_EXT_FEATURES, table, sizeof table);
}

bool qcow_header_build(QcowHeader *h, const char *base, const char *format, const uint8_t *old,
                       uint8_t *buf, const char *path, GError **error)
{
    uint64_t cs = (uint64_t)1 << h->cluster_bits, pos = h->length, old_pos = h->length;
    size_t base_len = base ? strlen(base) : 0;
    bool ok = true, broken = false;
    Ext e;

    if (format && strcmp(format, "vhd") == 0)
        format = "vpc"; /* its name for others */
    memset(buf, 0, cs);
    if (old) /* fields that we do not know stay */
        memcpy(buf, old, h->length);
    if (base && format)
        ok = put_ext(buf, cs, &pos, QCOW_EXT_FORMAT, format, strlen(format));
    if (!old && h->version >= 3)
        put_feature_names(buf, cs, &pos);
    for (unsigned i = 0; old && ok && i < EXTENSIONS_MAX; i++) {
        if (!next_ext(old, cs, &old_pos, &e, &broken))
            break;
        if (e.type != QCOW_EXT_FORMAT)
            ok = put_ext(buf, cs, &pos, e.type, old + e.at, e.len);
    }
    ok = ok && put_ext(buf, cs, &pos, QCOW_EXT_END, NULL, 0) && base_len <= cs - pos;
    if (!ok || base_len > QCOW_NAME_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': the path of its base is too long for the header: '%.40s...'; use "
                          "a shorter one or larger clusters",
                          path, base ? base : "");
    h->backing_offset = base ? pos : 0;
    h->backing_len = base_len;
    if (base)
        memcpy(buf + pos, base, base_len);
    put_fields(h, buf);
    return true;
}

static int write_synced(BlkQcow *q, uint64_t at, const void *buf, size_t len)
{
    int err = blk_file_write_at(qcow_file(q), buf, len, at);

    return err ? err : blk_file_sync(qcow_file(q));
}

/* The format's extension may be changed where it lies. */
static bool patch_format(uint8_t *b, const Ext *e, const char *format)
{
    size_t len = strlen(format), room = align_up(e->len, 8);

    if (len > room || e->at + room > BLK_SECTOR)
        return false;
    store_be32(b + e->at - 4, (uint32_t)len);
    memset(b + e->at, 0, room);
    memcpy(b + e->at, format, len);
    return true;
}

bool qcow_header_patch(BlkQcow *q, QcowHeader *h, const char *base, const char *format,
                       uint8_t *old, int *ret_err)
{
    uint64_t pos = h->length, at, old_end = h->backing_offset + h->backing_len;
    size_t len = base ? strlen(base) : 0;
    bool broken = false, found = false;
    Ext e;

    *ret_err = 0;
    if (format && strcmp(format, "vhd") == 0)
        format = "vpc"; /* its name for others */
    for (unsigned i = 0; base && i < EXTENSIONS_MAX && next_ext(old, q->cs, &pos, &e, &broken); i++)
        if (e.type == QCOW_EXT_FORMAT && !found) {
            found = format && patch_format(old, &e, format);
            if (!found)
                return false;
        }
    at = pos + 8; /* behind the mark of the end */
    if (h->backing_offset && ranges_overlap(at, len, h->backing_offset, h->backing_len))
        at = old_end;
    if (base && (!found || broken || len > QCOW_NAME_MAX || !range_within(at, len, q->cs)))
        return false;
    h->backing_offset = base ? at : 0;
    h->backing_len = len;
    put_fields(h, old);
    if (base)
        *ret_err = write_synced(q, at, base, len);
    if (!*ret_err && base && at < BLK_SECTOR)
        memcpy(old + at, base, MIN(len, BLK_SECTOR - at));
    if (!*ret_err)
        *ret_err = qcow_header_put(q, 0, old, BLK_SECTOR);
    return true;
}

int qcow_header_redo(BlkQcow *q)
{
    int err = q->redo_len ? write_synced(q, q->redo_at, q->redo, q->redo_len) : 0;

    if (!err)
        q->redo_len = 0;
    return err;
}

int qcow_header_put(BlkQcow *q, uint64_t at, const void *buf, size_t len)
{
    uint8_t old[QCOW_HEADER_PUT_MAX];
    int err = qcow_header_redo(q);

    g_assert(len <= sizeof old);
    if (!err)
        err = blk_file_read_at(qcow_file(q), old, len, at);
    if (err)
        return err;
    err = write_synced(q, at, buf, len);
    if (err) { /* nobody knows which of the two the disk has */
        memcpy(q->redo, old, len);
        q->redo_at = at;
        q->redo_len = len;
        (void)qcow_header_redo(q);
    }
    return err;
}

int qcow_set_incompatible(BlkQcow *q, uint64_t bits)
{
    uint8_t b[8];

    if (q->h.version < 3 || q->h.incompatible == bits)
        return 0;
    store_be64(b, bits);
    int err = qcow_header_put(q, QCOW_AT_INCOMPATIBLE, b, sizeof b);
    if (!err)
        q->h.incompatible = bits;
    return err;
}
