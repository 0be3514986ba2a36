/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_QCOW2_H
#define LODGE_QCOW2_H

/*
 * What the parts of the qcow2 driver share:
 *   fmt_qcow2.c       the driver: opening, closing, facts        main thread
 *   qcow2_header.c    header and its extensions, both ways       main thread
 *   qcow2_guard.c     which clusters are tables, the corrupt mark any / worker
 *   qcow2_data.c      requests, looked up and passed on          IoThread
 *   qcow2_alloc.c     writes to clusters that are not there yet  IoThread and worker
 *   qcow2_map.c       tables of clusters: lookup, change         any / worker
 *   qcow2_refs.c      reference counts, free clusters            worker
 *   qcow2_compress.c  compressed clusters                        worker
 *   qcow2_snapshot.c, qcow2_check.c, qcow2_image.c               main thread at rest
 *
 * "Worker" in the following stands for the one thread that may change metadata: the node's worker,
 * the main thread at rest, or the IoThread while the worker has nothing to do; there a call must
 * not block, so everything that it needs has to be in memory (the functions named *_ready()).
 *
 * Spec: QEMU docs/interop/qcow2.txt ("the specification" in these files).
 */

#include <stdatomic.h>

#include "child.h"

#define QCOW_MAGIC 0x514649fbu
#define QCOW_COPIED ((uint64_t)1 << 63)
#define QCOW_COMPRESSED ((uint64_t)1 << 62)
#define QCOW_ZERO ((uint64_t)1)
#define QCOW_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define QCOW_REF_OFFSET_MASK UINT64_C(0xfffffffffffffe00)
#define QCOW_HOST_MAX ((uint64_t)1 << 56) /* tables point below this */

#define QCOW_V2_HEADER 72u
#define QCOW_V3_HEADER 104u
#define QCOW_CLUSTER_BITS_MIN 9u
#define QCOW_CLUSTER_BITS_MAX 21u
#define QCOW_L1_MAX ((uint64_t)32 << 20)  /* bytes; QEMU's ceiling as well */
#define QCOW_RT_MAX ((uint64_t)8 << 20)   /* bytes; QEMU's ceiling as well */
#define QCOW_SNAPSHOTS_MAX 65536u
#define QCOW_SNAP_TABLE_MAX ((uint64_t)16 << 20)
#define QCOW_SNAP_EXTRA_MAX 1024u
#define QCOW_NAME_MAX 1023u
#define QCOW_HEADER_PUT_MAX BLK_SECTOR /* bytes of fields that are changed at once */
#define QCOW_BLOCK 4096u /* of tables kept in memory; smaller clusters: one cluster */

/* incompatible_features */
enum {
    QCOW_INC_DIRTY = 1 << 0,
    QCOW_INC_CORRUPT = 1 << 1,
    QCOW_INC_DATA_FILE = 1 << 2,
    QCOW_INC_COMPRESSION = 1 << 3,
    QCOW_INC_EXTENDED_L2 = 1 << 4,
};
#define QCOW_COMPAT_LAZY ((uint64_t)1)

enum { QCOW_ZLIB = 0, QCOW_ZSTD = 1 };

/* Offsets of header fields. */
enum {
    QCOW_AT_BACKING = 8, QCOW_AT_SIZE = 24, QCOW_AT_L1_SIZE = 36, QCOW_AT_L1 = 40, QCOW_AT_RT = 48,
    QCOW_AT_SNAPSHOTS = 60, QCOW_AT_INCOMPATIBLE = 72, QCOW_AT_AUTOCLEAR = 88,
};

/* Header extensions. */
#define QCOW_EXT_END 0u
#define QCOW_EXT_FORMAT 0xe2792acau
#define QCOW_EXT_FEATURES 0x6803f857u
#define QCOW_EXT_BITMAPS 0x23852875u

/* In the order in which changes reach the disk: what is referred to before what refers to it. */
enum { QCOW_RANK_REFS, QCOW_RANK_REF_TABLE, QCOW_RANK_L2, QCOW_RANK_L1, QCOW_RANKS };

typedef struct QcowHeader {
    uint32_t version, cluster_bits, crypt, l1_size, rt_clusters, n_snapshots;
    uint32_t refcount_order, length;
    uint64_t size, l1_offset, rt_offset, snapshots_offset, backing_offset;
    uint32_t backing_len;
    uint64_t incompatible, compatible, autoclear;
    uint8_t compression;
    bool bitmaps; /* has that extension */
} QcowHeader;

typedef struct QcowSnap {
    char *id, *name; /* owned */
    uint64_t l1_offset, vm_bytes, size, clock_ns;
    uint32_t l1_size, date_s, date_ns;
    uint8_t *extra; /* owned; what lies behind the fields that we know, as it is */
    uint32_t extra_len;
} QcowSnap;

/* A part of the file that nothing else may lie in. */
typedef struct QcowArea {
    const char *what;
    uint64_t at, len;
} QcowArea;
#define QCOW_AREAS 4u

/* What the tables say of a run of the disk. */
typedef enum QcowKind {
    QCOW_MISS,       /* the table is not in memory */
    QCOW_BELOW,      /* the base's, or zeros */
    QCOW_ZEROS,
    QCOW_DATA,       /* at host */
    QCOW_PACKED,     /* compressed; host is the descriptor */
    QCOW_BAD,        /* the table points astray */
} QcowKind;

typedef struct QcowMap {
    QcowKind kind;
    bool copied;   /* DATA: ours alone, may be written in place */
    uint64_t host; /* DATA: offset of the byte asked for */
    uint64_t len;  /* bytes of which this is true, of what was asked for */
    uint64_t table; /* MISS: the block of metadata to load */
} QcowMap;

/* Clusters that nothing refers to any more, once tables on the disk say so too. */
typedef struct QcowFreed {
    uint64_t first, n; /* clusters; each loses one reference */
    uint64_t epoch;
    bool table;
} QcowFreed;

typedef struct QcowPacker QcowPacker; /* qcow2_compress.c */
typedef struct QcowTask QcowTask;

typedef struct BlkQcow {
    BlkNode node;
    /* constant after open, but at rest */
    QcowHeader h;
    uint32_t cs;        /* bytes of a cluster */
    uint32_t block;     /* bytes of a block of meta */
    uint32_t entry;     /* bytes of an L2 entry */
    unsigned l2_bits;   /* log2 of the entries of an L2 table */
    unsigned refs_bits; /* log2 of the entries of a refcount block */
    uint64_t ref_max;
    bool extended, writable;
    BlkMeta *meta;      /* owned */
    GPtrArray *snaps;   /* owned; QcowSnap */
    uint64_t snap_bytes; /* of their table */

    /* changed by the worker with meta locked */
    uint64_t *l1;       /* owned; host byte order */
    uint64_t *rt;       /* owned; host byte order */
    uint32_t rt_n;      /* entries */
    QcowArea areas[QCOW_AREAS];
    unsigned n_areas;
    uint64_t areas_end; /* behind all of them */
    uint64_t *guard;    /* owned; slots of qcow2_guard.c */
    unsigned guard_bits;
    size_t guard_n;     /* entries */
    bool guard_old;     /* worker only: it has tables that were let go of */

    /* worker only */
    uint64_t scan;      /* no cluster below is free */
    uint64_t pool, pool_end; /* clusters known to be free, their counts in one block */
    uint64_t fresh_from; /* bytes: from here on the file was never written to */
    GArray *freed;      /* owned; QcowFreed */
    QcowPacker *packer; /* owned */
    /* Header fields that are to be as they were, where a change of them failed: until that is
     * written the disk may have either. */
    uint8_t redo[QCOW_HEADER_PUT_MAX];
    uint64_t redo_at;
    size_t redo_len; /* 0: none */

    /* any thread: which requests may still use clusters that tables have let go of */
    atomic_uint_fast64_t epoch;
    atomic_bool corrupt;  /* found to be so while it is open for writing: no change any more */
    atomic_uint using[2]; /* requests under way, by parity of the epoch that they began in */

    /* IoThread only */
    QcowTask *allocs;   /* under way, each with a range of the disk of its own */
    QcowTask *free_tasks;
    unsigned n_free_tasks;
    BlkChildren children;
    atomic_bool warned; /* of tables that point astray */
} BlkQcow;

static inline BlkFile *qcow_file(const BlkQcow *q)
{
    return (BlkFile *)q->node.file;
}

static inline uint64_t qcow_round(const BlkQcow *q, uint64_t v)
{
    return (v + q->cs - 1) & ~((uint64_t)q->cs - 1);
}

/* Bytes of [@pos, @pos + @len) of the disk where a base may show through. */
static inline uint64_t qcow_shown(const BlkQcow *q, uint64_t pos, uint64_t len)
{
    return q->node.ref.path && !q->node.base ? len : blk_base_part(&q->node, pos, len);
}

/* ---- qcow2_header.c ---- */

bool qcow_probe(const BlkProbe *p);
/* Read and check the header of @f; @ret_base as BlkDriver.open. */
bool qcow_header_read(BlkFile *f, const BlkOpenHow *how, QcowHeader *ret, BlkBaseRef *ret_base,
                      GError **error);
/* L1 entries that a disk of @size needs. */
uint64_t qcow_l1_need(uint64_t size, unsigned cluster_bits, bool extended);
/* The first cluster, @h with the base's name and format (or NULL), into @buf of one cluster; keeps
 * unknown extensions of @old (a first cluster, or NULL). Sets h->backing_*. */
bool qcow_header_build(QcowHeader *h, const char *base, const char *format, const uint8_t *old,
                       uint8_t *buf, const char *path, GError **error);
/* Record @base under @format, or none with NULL, in the image whose first cluster is @old: a name
 * in a place of its own, then one sector that refers to it. False: the header has no room for that.
 * *ret_err: 0 or errno. Changes @h and @old. */
bool qcow_header_patch(BlkQcow *q, QcowHeader *h, const char *base, const char *format,
                       uint8_t *old, int *ret_err);
/* Write header fields, which lie in one sector, and sync. Return: 0 or errno, and then they are, or
 * will be before the next flush ends well, what they were. Worker. */
int qcow_header_put(BlkQcow *q, uint64_t at, const void *buf, size_t len);
/* Undo a change that failed and could not be undone yet. Return: 0 or errno. Worker. */
int qcow_header_redo(BlkQcow *q);
int qcow_set_incompatible(BlkQcow *q, uint64_t bits);

/* ---- fmt_qcow2.c ---- */

/* Which areas are taken, after the header's fields have changed; meta is not locked. */
void qcow_areas_set(BlkQcow *q);
/* The area that [@at, @at + @len) meets, or NULL. */
const QcowArea *qcow_area_at(const BlkQcow *q, uint64_t at, uint64_t len);
/* Read the active L1 table, or the refcount table, anew. */
bool qcow_l1_load(BlkQcow *q, GError **error);
bool qcow_rt_load(BlkQcow *q, GError **error);

/* ---- qcow2_guard.c ---- */

enum { QCOW_GUARD_L2 = 1, QCOW_GUARD_REFS = 2 };

/* Which active tables the cluster at @at holds: QCOW_GUARD_*. Meta locked, or the worker. */
unsigned qcow_guard_at(const BlkQcow *q, uint64_t at);
/* Find all tables anew; false: no memory, and all is as it was. Worker, meta not locked. */
bool qcow_guard_build(BlkQcow *q);
/* Make room for one more; and add it. Worker. */
bool qcow_guard_room(BlkQcow *q);
void qcow_guard_add_locked(BlkQcow *q, uint64_t at, unsigned kind);
/* The image is corrupt, if it is open for writing: no change from now on. Any thread. */
void qcow_mark_corrupt(BlkQcow *q);
/* Say so in the header, where it is so. Worker. Return: 0 or errno. */
int qcow_write_mark(BlkQcow *q);
/* Whether the whole image may be changed; false with LODGE_ERROR_IMAGE. */
bool qcow_may_change(const BlkQcow *q, GError **error);

/* ---- qcow2_map.c ---- */

/* Whether @at may be a cluster of data, or an L2 table, as far as active tables tell. Meta locked,
 * or the worker. */
bool qcow_data_ok(const BlkQcow *q, uint64_t at);
bool qcow_table_ok(const BlkQcow *q, uint64_t at);
/* What is at @pos, for at most @len bytes; MISS where the table is not in memory. Any thread. */
void qcow_map_peek(BlkQcow *q, uint64_t pos, uint64_t len, QcowMap *ret);
/* The same, reading what is missing. Worker. Return: 0 or errno. */
int qcow_map(BlkQcow *q, uint64_t pos, uint64_t len, QcowMap *ret);
/* Make the L2 table of @pos one that may be written. Worker. */
int qcow_l2_own(BlkQcow *q, uint64_t pos);
/* Whether that, and the entries of @pos, need nothing that blocks. */
bool qcow_l2_ready(BlkQcow *q, uint64_t pos);
/* Entry of the cluster at @pos in its own L2 table; and change @n of them. Worker. */
int qcow_l2_get(BlkQcow *q, uint64_t pos, uint64_t *ret);
int qcow_l2_put(BlkQcow *q, uint64_t pos, const uint64_t *entries, unsigned n);
/* Let go of what L2 entry @e refers to. Worker. */
void qcow_l2_drop(BlkQcow *q, uint64_t e);
/* Bytes from @pos on whose entries lie in one block of metadata. */
uint64_t qcow_block_span(const BlkQcow *q, uint64_t pos);
/* Host range of a compressed cluster's descriptor; false: it points astray. */
bool qcow_packed_range(const BlkQcow *q, uint64_t e, uint64_t *ret_at, uint32_t *ret_len);
int qcow_l1_put(BlkQcow *q, uint32_t i, uint64_t e);

/* ---- qcow2_refs.c ---- */

int qcow_ref_get(BlkQcow *q, uint64_t cluster, uint64_t *ret);
int qcow_ref_set(BlkQcow *q, uint64_t cluster, uint64_t v);
/* Add @delta (1 or -1) to @n counts. ERANGE: one would leave its range; none of those behind is
 * changed then. What becomes free may be used at once. */
int qcow_ref_add(BlkQcow *q, uint64_t first, uint64_t n, int delta);
/* Value @i of a refcount block or a part of one. */
uint64_t qcow_ref_at(const uint8_t *table, uint64_t i, unsigned order);
void qcow_ref_put(uint8_t *table, uint64_t i, unsigned order, uint64_t v);
/* Take 1..@want free clusters in a row. @ret_fresh: the file has nothing there yet. */
int qcow_take(BlkQcow *q, uint64_t want, uint64_t *ret_host, uint64_t *ret_n, bool *ret_fresh);
/* Whether that needs nothing that blocks. */
bool qcow_take_ready(BlkQcow *q);
/* Take exactly @n clusters in a row, for tables; they are refcounted, their bytes are anything. */
int qcow_take_run(BlkQcow *q, uint64_t n, uint64_t *ret_host);
/* Forget what is known about free clusters. */
void qcow_pool_reset(BlkQcow *q, uint64_t scan);
/* One reference less to @n clusters, when the tables on the disk agree. */
void qcow_free_later(BlkQcow *q, uint64_t first, uint64_t n, bool table);
/* The list of these is long: flush, where that may block, between two changes. */
bool qcow_freed_full(const BlkQcow *q);
void qcow_freed_trim(BlkQcow *q);
/* Write everything back, then free what can be. Worker. */
int qcow_flush(BlkQcow *q);
/* At rest: flush until nothing waits to be freed. */
int qcow_settle(BlkQcow *q);

/* ---- qcow2_data.c, qcow2_alloc.c ---- */

typedef enum QcowTaskKind {
    QCOW_TASK_MAP, QCOW_TASK_ALLOC, QCOW_TASK_UNPACK, QCOW_TASK_PACK, QCOW_TASK_ZERO,
    QCOW_TASK_FLUSH, QCOW_TASK_MARK,
} QcowTaskKind;

/* Something that a request needs the worker or a new cluster for. */
struct QcowTask {
    BlkWork work;
    QcowTaskKind kind;
    BlkQcow *q;       /* borrowed */
    BlkReq *parent;
    QcowTask *next, *prev; /* in allocs or free_tasks */
    uint64_t pos, len; /* of the disk */
    QcowMap map;
    /* ALLOC: */
    uint64_t first, n;   /* clusters of the disk: nobody else's until it is over */
    BlkReq *waiters;
    uint64_t got_n, got_len; /* of these, what prepare() has clusters for */
    uint64_t host;       /* of cluster first */
    bool linking, zeros, taken;
    uint8_t *edges;      /* owned; what goes before and behind the data, or the zeros */
    uint64_t head, tail; /* bytes of these */
    struct iovec *iov;   /* owned */
    BlkReq io;
};

/* In BlkReq.scratch of a request that this layer has. */
typedef struct QcowState {
    uint64_t pos;         /* next to start */
    uint32_t outstanding; /* children and tasks */
    int err;
    bool waiting;         /* for a table, or for somebody else's new cluster */
    bool synced, counted;
    uint8_t parity;
} QcowState;
_Static_assert(sizeof(QcowState) <= sizeof(((BlkReq *)0)->scratch), "fits");

static inline QcowState *qcow_state(BlkReq *req)
{
    return (QcowState *)req->scratch;
}

void qcow_submit(BlkNode *n, BlkReq *req);
void qcow_passed(BlkNode *n, BlkReq *req);
/* Go on with @req. IoThread. */
void qcow_step(BlkQcow *q, BlkReq *req);
/* A piece of @req is through. */
void qcow_piece_done(BlkQcow *q, BlkReq *req, int err);
QcowTask *qcow_task_new(BlkQcow *q, BlkReq *req, QcowTaskKind kind);
void qcow_task_free(BlkQcow *q, QcowTask *t);
void qcow_tasks_drop(BlkQcow *q);
/* The first allocation under way that meets [@pos, @pos + @len), or NULL. */
QcowTask *qcow_alloc_meets(BlkQcow *q, uint64_t pos, uint64_t len);
/* Write [@pos, @pos + @len) of @req to new clusters; @zeros instead of its data. */
bool qcow_alloc_start(BlkQcow *q, BlkReq *req, uint64_t pos, uint64_t len, bool zeros);
/* Begin and end of a range's reservation; who waited is for qcow_wake() then. */
void qcow_alloc_reserve(BlkQcow *q, QcowTask *t);
BlkReq *qcow_alloc_release(BlkQcow *q, QcowTask *t);
void qcow_wake(BlkQcow *q, BlkReq *waiters);
/* Bytes of the disk at @pos as they are, blocking. Worker. */
int qcow_read_plain(BlkQcow *q, uint64_t pos, uint8_t *buf, uint64_t len);

/* ---- qcow2_compress.c ---- */

/* The cluster at @e unpacked; valid until the next call. Worker. */
int qcow_unpack(BlkQcow *q, uint64_t e, const uint8_t **ret);
/* Store the cluster at @pos, bytes in @plain, compressed. ENOTSUP: that does not pay. Worker. */
int qcow_pack(BlkQcow *q, uint64_t pos, const uint8_t *plain);
void qcow_packer_forget(BlkQcow *q);
void qcow_packer_free(QcowPacker *p);

/* ---- qcow2_snapshot.c ---- */

bool qcow_snaps_read(BlkQcow *q, GError **error);
/* Make COPIED right everywhere in the active tables. */
int qcow_fix_copied(BlkQcow *q);
extern const BlkSnapOps qcow_snap_ops;

/* ---- qcow2_check.c ---- */

bool qcow_check(BlkNode *n, bool repair, BlkReport *r, GError **error);

/* ---- qcow2_image.c ---- */

extern const BlkCreateOpt qcow_create_opts[];
bool qcow_create(const BlkCreate *c, GError **error);
bool qcow_resize(BlkNode *n, uint64_t size, bool shrink, GError **error);
bool qcow_set_base(BlkNode *n, const BlkBaseInfo *base, GError **error);
bool qcow_make_empty(BlkNode *n, GError **error);

#endif
