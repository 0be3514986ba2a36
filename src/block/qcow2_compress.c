/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compressed clusters of qcow2 images: each a stream of its own, packed one behind the other
 * without regard to clusters; all host clusters that a stream touches count it as a reference.
 *
 * zlib streams have no header and a window of 4 KiB, as other programs read and write them; zstd
 * streams are frames. The libraries are loaded at first use. The cluster that was unpacked last is
 * kept: a guest reads it in pieces.
 *
 * A stream of hostile bytes can only fail: in and out are bounded by the descriptor (at most two
 * clusters) and by the cluster.
 *
 * Spec: the specification, "Compressed Clusters Descriptor"; zlib.h 1.2, zstd.h 1.4 (stable part).
 *
 * Threads: the worker.
 */
#include <errno.h>
#include <string.h>

#include "lodge/diag.h"
#include "lodge/dynlib.h"
#include "lodge/num.h"
#include "lodge/zstream.h"

#include "qcow2.h"

enum { Z_WINDOW = -12, Z_WINDOW_MAX = -15, Z_FINISHED = 4, Z_STREAM_ENDED = 1, Z_BUFFER = -5,
       Z_DEFLATE = 8, Z_LEVEL = 1, Z_MEMORY = 8 };

/* ZSTD_inBuffer and ZSTD_outBuffer. */
typedef struct ZstdBuf {
    void *buf;
    size_t size, pos;
} ZstdBuf;

struct QcowPacker {
    DynLib *lib; /* owned */
    /* zlib */
    int (*inflate_init)(ZStream *, int, const char *, int);
    int (*inflate)(ZStream *, int);
    int (*inflate_end)(ZStream *);
    int (*deflate_init)(ZStream *, int, int, int, int, int, const char *, int);
    int (*deflate)(ZStream *, int);
    int (*deflate_end)(ZStream *);
    /* zstd */
    void *(*new_dctx)(void);
    size_t (*free_dctx)(void *);
    size_t (*decompress)(void *, ZstdBuf *, ZstdBuf *);
    size_t (*compress)(void *, size_t, const void *, size_t, int);
    unsigned (*is_error)(size_t);

    uint8_t *plain;  /* owned; the cluster of descriptor @kept */
    uint64_t kept;   /* 0: none */
    uint8_t *packed; /* owned; two clusters */
    uint64_t at, room; /* where the next stream goes, and how much of that cluster is left */
};

#define SYM(field, name) {name, offsetof(QcowPacker, field)}
static const DynSym zlib_syms[] = {
    SYM(inflate_init, "inflateInit2_"), SYM(inflate, "inflate"), SYM(inflate_end, "inflateEnd"),
    SYM(deflate_init, "deflateInit2_"), SYM(deflate, "deflate"), SYM(deflate_end, "deflateEnd"),
};
static const DynSym zstd_syms[] = {
    SYM(new_dctx, "ZSTD_createDCtx"), SYM(free_dctx, "ZSTD_freeDCtx"),
    SYM(decompress, "ZSTD_decompressStream"), SYM(compress, "ZSTD_compress"),
    SYM(is_error, "ZSTD_isError"),
};
#undef SYM

static bool load_zlib(QcowPacker *p, GError **error)
{
    p->lib = dynlib_open("libz.so.1", "zlib1g", error);
    return p->lib && dynlib_syms(p->lib, zlib_syms, G_N_ELEMENTS(zlib_syms), p, error);
}

static bool load_zstd(QcowPacker *p, GError **error)
{
    p->lib = dynlib_open("libzstd.so.1", "libzstd1", error);
    return p->lib && dynlib_syms(p->lib, zstd_syms, G_N_ELEMENTS(zstd_syms), p, error);
}

static QcowPacker *packer_of(BlkQcow *q)
{
    g_autoptr(GError) error = NULL;

    if (q->packer)
        return q->packer;
    QcowPacker *p = g_new0(QcowPacker, 1);
    p->plain = g_try_malloc(q->cs);
    p->packed = g_try_malloc(2 * (size_t)q->cs);
    if (p->plain && p->packed &&
        (q->h.compression == QCOW_ZSTD ? load_zstd : load_zlib)(p, &error)) {
        q->packer = p;
        return p;
    }
    if (error && !atomic_exchange(&q->warned, true))
        lodge_warn("disk %s: '%s': has compressed clusters: %s", q->node.name, qcow_file(q)->path,
                   error->message);
    qcow_packer_free(p);
    return NULL;
}

void qcow_packer_forget(BlkQcow *q)
{
    if (q->packer)
        q->packer->kept = q->packer->room = 0;
}

void qcow_packer_free(QcowPacker *p)
{
    if (!p)
        return;
    dynlib_close(p->lib);
    g_free(p->plain);
    g_free(p->packed);
    g_free(p);
}

/* ---- out ---- */

static bool inflate_cluster(QcowPacker *p, const uint8_t *from, uint32_t len, uint32_t cs)
{
    ZStream z = {.next_in = from, .avail_in = len, .next_out = p->plain, .avail_out = cs};

    if (p->inflate_init(&z, Z_WINDOW_MAX, "1", sizeof z) != 0)
        return false;
    /* Behind a full cluster there may be more bytes of the last sector. */
    int r = p->inflate(&z, Z_FINISHED);
    p->inflate_end(&z);
    return (r == Z_STREAM_ENDED || r == Z_BUFFER) && z.avail_out == 0;
}

static bool unzstd_cluster(QcowPacker *p, const uint8_t *from, uint32_t len, uint32_t cs)
{
    ZstdBuf in = {(void *)from, len, 0}, out = {p->plain, cs, 0};
    void *ctx = p->new_dctx();

    while (ctx && out.pos < cs) {
        size_t in_before = in.pos, out_before = out.pos;
        size_t r = p->decompress(ctx, &out, &in);
        if (p->is_error(r) || (in.pos == in_before && out.pos == out_before))
            break;
    }
    if (ctx)
        p->free_dctx(ctx);
    return out.pos == cs;
}

int qcow_unpack(BlkQcow *q, uint64_t e, const uint8_t **ret)
{
    QcowPacker *p = packer_of(q);
    uint64_t at;
    uint32_t len;

    if (!p)
        return EIO;
    *ret = p->plain;
    e &= ~QCOW_COPIED;
    if (p->kept == e)
        return 0;
    if (!qcow_packed_range(q, e, &at, &len) || len > 2 * q->cs)
        return EIO;
    p->kept = 0;
    int err = blk_file_read_at(qcow_file(q), p->packed, len, at);
    if (err)
        return err;
    bool ok = q->h.compression == QCOW_ZSTD ? unzstd_cluster(p, p->packed, len, q->cs)
                                            : inflate_cluster(p, p->packed, len, q->cs);
    if (!ok) {
        if (!atomic_exchange(&q->warned, true))
            lodge_warn("disk %s: '%s': the compressed cluster at 0x%" PRIx64 " is damaged",
                       q->node.name, qcow_file(q)->path, at);
        return EIO;
    }
    p->kept = e;
    return 0;
}

/* ---- in ---- */

/* Bytes of @plain packed into p->packed, 0: not less than @cs. */
static size_t compress_cluster(const BlkQcow *q, QcowPacker *p, const uint8_t *plain)
{
    size_t room = q->cs - 1;

    if (q->h.compression == QCOW_ZSTD) {
        size_t n = p->compress(p->packed, room, plain, q->cs, 3);
        return p->is_error(n) ? 0 : n;
    }
    ZStream z = {.next_in = plain, .avail_in = q->cs, .next_out = p->packed, .avail_out = room};
    if (p->deflate_init(&z, Z_LEVEL, Z_DEFLATE, Z_WINDOW, Z_MEMORY, 0, "1", sizeof z) != 0)
        return 0;
    int r = p->deflate(&z, Z_FINISHED);
    size_t n = z.total_out;
    p->deflate_end(&z);
    return r == Z_STREAM_ENDED ? n : 0;
}

/* Room in the file for a stream of @len bytes, its references counted. */
static int place(BlkQcow *q, QcowPacker *p, size_t len, uint64_t *ret_at)
{
    uint64_t host, n, v;
    bool fresh;
    int err = 0;

    if (p->room) { /* a reference more to the cluster that has room */
        uint64_t c = p->at >> q->h.cluster_bits;
        err = qcow_ref_get(q, c, &v);
        if (err || !v || v >= q->ref_max)
            p->room = 0;
    }
    if (len > p->room) {
        err = qcow_take(q, 1, &host, &n, &fresh);
        if (err)
            return err;
        if (!p->room || host != p->at + p->room) {
            p->at = host;
            p->room = q->cs;
        } else {
            err = qcow_ref_add(q, p->at >> q->h.cluster_bits, 1, 1);
            p->room += q->cs;
        }
    } else {
        err = qcow_ref_add(q, p->at >> q->h.cluster_bits, 1, 1);
    }
    *ret_at = p->at;
    p->at += len;
    p->room -= len;
    return err;
}

int qcow_pack(BlkQcow *q, uint64_t pos, const uint8_t *plain)
{
    QcowPacker *p = packer_of(q);
    unsigned x = 62 - (q->h.cluster_bits - 8);
    uint64_t old, e, at = 0;

    if (!p)
        return ENOTSUP;
    p->kept = 0;
    size_t len = compress_cluster(q, p, plain);
    if (!len)
        return ENOTSUP;
    int err = qcow_l2_own(q, pos);
    if (!err)
        err = qcow_l2_get(q, pos, &old);
    if (!err)
        err = place(q, p, len, &at);
    if (err)
        return err;
    if (at + len > (uint64_t)1 << MIN(x, 56))
        return ENOSPC; /* what was counted leaks; the descriptor cannot say where it is */
    size_t whole = align_up(at + len, BLK_SECTOR) - at; /* others read whole sectors */
    memset(p->packed + len, 0, whole - len);
    err = blk_file_write_at(qcow_file(q), p->packed, whole, at);
    if (err)
        return err;
    e = QCOW_COMPRESSED | at | (((at + len - 1) / BLK_SECTOR - at / BLK_SECTOR) << x);
    err = qcow_l2_put(q, pos, &e, 1);
    if (!err)
        qcow_l2_drop(q, old);
    return err;
}
