/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BLOCK_INT_H
#define LODGE_BLOCK_INT_H

/*
 * What the parts of the block library know of each other: the driver's vtable, the node, the
 * engine that carries requests to the host, and the helpers that drivers share.
 *
 * A node's driver runs on the node's IoThread only, save open and close (main thread). All nodes
 * of one disk share one IoThread and one engine, so no field below the top needs a lock.
 */

#include <stdatomic.h>
#include <sys/types.h>

#include "lodge/block.h"
#include "lodge/error.h"

typedef struct BlkEngine BlkEngine;
typedef struct BlkUring BlkUring;
typedef struct BlkPool BlkPool;
typedef struct BlkAioRing BlkAioRing;
typedef struct BlkFile BlkFile;

#define BLK_SECTOR 512u
#define BLK_MAX_IOV 1024u               /* IOV_MAX of Linux */
#define BLK_MAX_SIZE ((uint64_t)1 << 62) /* sums of offsets stay inside int64_t */
#define BLK_DISCARD_MAX ((uint64_t)1 << 30)

/* ---- image formats: the contract of a driver ----
 *
 * A format is one file (fmt_NAME.c; a second one where it passes 800 lines), one row in
 * driver_table.c, and its tests. open.c does what is common: it opens and locks the file, finds the
 * format, opens the chain below, makes new images under a temporary name. A driver sees
 *
 *   probe    is this image yours?                        any thread, pure
 *   open     n->file is open; read the header            main thread, blocking calls are fine
 *   attach   n->base is open; does it fit the header?    main thread
 *   limits   the guest's view                            after open and attach
 *   submit   requests                                    IoThread, never blocks
 *   close    write back, free                            main thread, nothing in flight
 *
 * Slots marked "at rest" (check, resize, set_base, make_empty, describe, snap) run on the main
 * thread with the node drained; they may block: blk_file_*_at() on n->file, blk_pread() on n->base.
 * A slot that is NULL is refused in words by those who would call it.
 *
 * Data path: what is cached is looked up inline and sent on by blk_start() to n->file or n->base.
 * What needs the disk or new clusters goes to the node's worker (blk_work()), plain blocking code,
 * one at a time. blk_start() checks nothing: a format may write past the end of its file, which
 * grows, but must keep reads of n->base below the base's size (blk_base_part()).
 * Every number of a file is hostile: compare before use, sums by u64_add_ok(), sizes of allocations
 * under a named ceiling; messages name the file, the field and its offset.
 */

/* What is probed: the first and the last sector of an image, zeros where it is shorter. */
#define BLK_PROBE_BYTES 512u
typedef struct BlkProbe {
    uint8_t head[BLK_PROBE_BYTES], tail[BLK_PROBE_BYTES];
} BlkProbe;

/* How an image is opened; for a driver's open() only. */
typedef struct BlkOpenHow {
    bool read_only;
    bool guessed;        /* the format was probed, not said */
    bool for_check;      /* take what check() can mend; nothing else will be asked of the node */
    bool no_base;        /* the base will not be opened: for info; attach() is not called */
    BlkCache cache;      /* NONE: data of which the header says that it is not aligned to 4096
                          * bytes must be refused; metadata goes with BLK_REQ_META or *_at() */
    uint64_t meta_bytes; /* for blk_meta_new(), at most BLK_META_MAX */
    struct BlkOpener *opener; /* of the frame */
} BlkOpenHow;

/* The base that a header records; filled in by open(), freed by the frame. */
typedef struct BlkBaseRef {
    char *path;          /* owned; as it stands there; NULL: there is none */
    char *format;        /* owned; as it stands there; NULL: not said */
    const char *field;   /* borrowed; what messages call the path's field: "backing file name" */
    uint64_t offset;     /* of the field in the file, bytes */
    uint64_t size;       /* bytes that a base must have; NEEDS_BASE only */
} BlkBaseRef;

/* A base that is open, for attach(), create() and set_base(). */
typedef struct BlkBaseInfo {
    const char *path;    /* as it is to be recorded (BLK_DRV_ABSOLUTE_BASE: absolute) */
    const char *full;    /* as it can be opened from here */
    const char *format;  /* driver's name */
    uint64_t size;       /* bytes; of a raw base the file's exact length, not rounded */
    uint32_t mtime;      /* seconds, low 32 bits, of the base's file */
    BlkNode *node;       /* borrowed; NULL for rebase --unsafe to a base that is not there */
} BlkBaseInfo;

typedef struct BlkCreateOpt {
    const char *key;     /* NULL ends a table */
    const char *value;   /* "SIZE", or what is allowed: "on|off" */
    const char *help;
} BlkCreateOpt;

typedef struct BlkNewFile BlkNewFile;

/* A new image; for create(). */
typedef struct BlkCreate {
    BlkNewFile *file;    /* empty; fill it by blk_new_file_write() and _size() */
    const char *path;    /* the name that it gets, for messages */
    uint64_t size;       /* bytes of disk, 1..BLK_MAX_SIZE; with a base at least as given there */
    const BlkBaseInfo *base; /* or NULL */
    GHashTable *options; /* key -> value, of the driver's own table only */
    GPtrArray *extra;    /* BlkNewFile; see blk_new_file_extra() */
} BlkCreate;

typedef enum BlkFinding { BLK_FIND_ERROR, BLK_FIND_LEAK } BlkFinding;

/* What check() found; a driver adds by blk_report_add() and counts clusters. */
typedef struct BlkReport {
    uint64_t errors, leaks;             /* findings, mended or not */
    uint64_t errors_fixed, leaks_fixed;
    uint64_t total, allocated, compressed, fragmented; /* units of the format: clusters, sectors */
    uint64_t end;                       /* bytes: first offset that is not in use */
    GPtrArray *lines;                   /* char *, owned; the first BLK_REPORT_LINES findings */
} BlkReport;

/* One fact of info: @text, or with NULL the number. */
typedef struct BlkFact {
    const char *key;     /* borrowed; lower case, dashes: "cluster-size" */
    char *text;          /* owned */
    uint64_t number;
} BlkFact;

typedef struct BlkSnapshot {
    char *id, *name;     /* owned */
    uint64_t size;       /* bytes of disk then; 0: not recorded */
    uint64_t vm_bytes;   /* of a machine's state stored with it */
    int64_t date_s;      /* since 1970 */
    uint64_t clock_ns;   /* guest's */
} BlkSnapshot;

/* Internal snapshots; at rest. @which: id or name, an id first. */
typedef struct BlkSnapOps {
    /* Transfer full (BlkSnapshot, freed by the array), NULL with an error. */
    GPtrArray *(*list)(BlkNode *n, GError **error);
    bool (*create)(BlkNode *n, const char *name, GError **error);
    bool (*apply)(BlkNode *n, const char *which, GError **error); /* may change the size */
    bool (*remove)(BlkNode *n, const char *which, GError **error);
} BlkSnapOps;

enum {
    BLK_DRV_PROTOCOL = 1 << 0,      /* no image format: not to be named, probed, made */
    BLK_DRV_ABSOLUTE_BASE = 1 << 1, /* records bases by absolute path only */
    BLK_DRV_CHECKS_BASE = 1 << 2,   /* attach() can tell a wrong base from the right one */
    BLK_DRV_NEEDS_BASE = 1 << 3,    /* every image is an overlay */
    BLK_DRV_COMPRESS = 1 << 4,      /* honours BlkReq.compress */
    BLK_DRV_EMPTY_OK = 1 << 5,      /* an empty file is an image of its */
};

typedef struct BlkDriver {
    const char *name;     /* stable: options, QMP, files that record a base's format */
    unsigned flags;       /* BLK_DRV_* */
    size_t instance_size; /* a BlkNode is the first member */
    /* Whether the image begins (or ends) as one of this format. NULL: never (raw). Also the guard
     * of guessed raw images asks: what may come true after a guest's write to either sector must be
     * told from these bytes alone. */
    bool (*probe)(const BlkProbe *p);
    /* Read and check the header of n->file; fill in the driver's own fields, but start nothing.
     * On false close() is called all the same. LODGE_ERROR_IMAGE for malformed bytes,
     * LODGE_ERROR_UNSUPPORTED for features, each with field and offset. */
    bool (*open)(BlkNode *n, const BlkOpenHow *how, BlkBaseRef *ret_base, GError **error);
    /* n->base is open, @base describes it: compare size, time or identity with the header. NULL:
     * any base will do. */
    bool (*attach)(BlkNode *n, const BlkBaseInfo *base, GError **error);
    /* The guest's view; read after open, attach and each resize. */
    void (*limits)(BlkNode *n, BlkLimits *ret_limits);
    /* Start @req; it does not block. Completion by blk_complete(), which may be called at once. */
    void (*submit)(BlkNode *n, BlkReq *req);
    /* @req, which submit() handed on by blk_pass(), is over, however it ended; its scratch is lost.
     * NULL: that is nothing to the driver. IoThread. */
    void (*passed)(BlkNode *n, BlkReq *req);
    /* Write back what is dirty, free what the driver holds, not the children; half-opened nodes
     * too. Main thread, nothing in flight, the worker is gone. */
    void (*close)(BlkNode *n);

    /* Fill @c's empty file with an image whose disk reads as the base, or as zeros. Main thread. */
    bool (*create)(const BlkCreate *c, GError **error);
    const BlkCreateOpt *create_opts; /* NULL: none */
    /* Read all metadata. @repair: mend what can be mended (the node is writable). False: the check
     * itself could not be done. At rest. */
    bool (*check)(BlkNode *n, bool repair, BlkReport *r, GError **error);
    /* New bytes read as zeros, never as the base. @shrink: less is meant, else refuse it. At rest;
     * the frame reads the limits again. */
    bool (*resize)(BlkNode *n, uint64_t size, bool shrink, GError **error);
    /* Record another base, or none with NULL; no data is moved. At rest. */
    bool (*set_base)(BlkNode *n, const BlkBaseInfo *base, GError **error);
    /* Forget all data, so that everything comes from the base again. At rest. */
    bool (*make_empty)(BlkNode *n, GError **error);
    /* Facts for info, by blk_fact_text() and blk_fact_number(). At rest. */
    void (*describe)(BlkNode *n, GPtrArray *facts);
    /* Write back all that close() would, so that the file is whole and close() writes nothing.
     * NULL: a flush does that. 0 or errno. At rest. */
    int (*settle)(BlkNode *n);
    /* From now on up to @until_s (since 1970) the base will be written, only where this image hides
     * it: a base that has changed by then is the right one all the same. Called again to have more
     * time; set_base() ends it. NULL: cannot be had. Main thread at rest, or the one who writes. */
    bool (*base_changes)(BlkNode *n, int64_t until_s, GError **error);
    const BlkSnapOps *snap; /* NULL: the format has none */
} BlkDriver;

typedef struct BlkWorker BlkWorker;
typedef struct BlkPolicy BlkPolicy;
typedef struct BlkDirty BlkDirty;

struct BlkNode {
    /* constant after open */
    const BlkDriver *drv;
    char *name;        /* owned */
    IoThread *io;      /* borrowed, outlives us */
    BlkEngine *engine; /* ref */
    BlkNode *file;     /* owned; what we are stored in, NULL for a protocol */
    BlkNode *base;     /* owned; what lies under an overlay, or NULL; changed at rest */
    BlkNode *top;      /* owned; of a front the image on top, changed at rest; else NULL */
    BlkBaseRef ref;    /* owned; what the header says of it */
    BlkNode *side_of;  /* borrowed; the disk that this is a side of (side.c), or NULL */
    GPtrArray *sides;  /* owned; main thread; BlkNode, or NULL */
    BlkLimits limits;
    bool read_only;
    bool guessed;      /* nobody said what the format is */

    /* any thread */
    _Atomic(BlkReq *) inbox; /* pushed by foreign threads, newest first */
    atomic_uint_fast64_t ops[6], bytes[6], errors[6];

    /* IoThread only */
    unsigned in_flight;
    unsigned drained; /* depth of blk_drain_begin() */
    bool detached;      /* a side that is used no more */
    unsigned in_submit; /* depth of driver submits on the stack */
    BlkWorker *worker;  /* owned; made at first use */
    BlkPolicy *policy;  /* owned; NULL: requests go as they come */
    BlkErrorFn error_fn; /* or NULL; set before the first request */
    void *error_opaque;
    BlkDirty *dirty;    /* borrowed; of a front: where changes are noted, or NULL */
    BlkReq *parked_head, **parked_tail;
    BlkReq *late_head, **late_tail; /* done, to be told from the loop; error in scratch[0] */

    /* guarded by idle_mutex; signalled when drained and in_flight reached 0 */
    GMutex idle_mutex;
    GCond idle_cond;
    bool idle;
};

/* BlkReq.flags */
#define BLK_REQ_THROUGH 1u /* not parked by a drain: of the one who drains */
#define BLK_REQ_META 2u    /* format's metadata: through the page cache even with cache=none */
#define BLK_REQ_ZEROED 4u  /* a WRITE that policy.c has made a ZERO */
#define BLK_REQ_BYTES 8u   /* in bytes, not in sectors: of a format, to its remote file */
#define BLK_REQ_PASSED 0x10u /* handed on by blk_pass(): offset is the file's */
#define BLK_REQ_MARK 0x20u   /* of one that is handed on: the driver's, until passed() */

/* ---- graph.c ---- */

/* Make a closed-off node: not yet to be submitted to. Transfer full. */
BlkNode *blk_node_new(const BlkDriver *drv, const char *name, IoThread *io, BlkEngine *engine);
/* After the driver's own fields are set: takes over its limits. */
void blk_node_ready(BlkNode *n);
/* Free @n and its children; for nodes that were never submitted to, and the end of blk_close(). */
void blk_node_free(BlkNode *n);
/* Start @req on @n, checks done by the caller. Context: @n's IoThread. */
void blk_start(BlkNode *n, BlkReq *req);
/* @req is through: tells its submitter, from the loop where a submit is on the stack. */
void blk_complete(BlkReq *req, int err);
/**
 * blk_pass() - Hand the whole of @req on to the file below, where it lies at @offset
 * It goes as it is: no child, and nothing of it comes back here but passed(). So it is for what
 * needs nothing done afterwards. @req's scratch is the file's from now on.
 * Context: @n's submit(), of @req.
 */
void blk_pass(BlkNode *n, BlkReq *req, uint64_t offset);

/* Bytes of [@pos, @pos + @len) of @n's disk that its base has; the rest reads as zeros. */
uint64_t blk_base_part(const BlkNode *n, uint64_t pos, uint64_t len);

/* ---- front.c: what a device holds of a disk, while images come and go below it ---- */

/* The image that @n's requests go to now; @n itself where it is no front. */
static inline BlkNode *blk_top(BlkNode *n)
{
    return n->top ? n->top : n;
}
/* A front over @top, which is taken over; @o as for blk_open(). */
BlkNode *blk_front_new(BlkNode *top, const BlkOptions *o);
/* Before it is closed: ends what is done with its images. Other nodes are left alone. */
void blk_front_end(BlkNode *n);

/* dirty.c: pieces of a disk that were changed. */
BlkDirty *blk_dirty_new(uint64_t size); /* all of it is */
void blk_dirty_free(BlkDirty *d); /* NULL is fine */
void blk_dirty_set(BlkDirty *d, uint64_t offset, uint64_t len); /* any thread */
/**
 * blk_dirty_take() - Take one stretch of changed pieces out of [*@at, end of the disk)
 * @most: bytes of it at most, at least a piece is taken
 * Return: false: there is none; else *@ret_from and *@ret_len, and *@at is behind it.
 */
bool blk_dirty_take(BlkDirty *d, uint64_t *at, uint64_t most, uint64_t *ret_from,
                    uint64_t *ret_len);
uint64_t blk_dirty_bytes(BlkDirty *d);

/* ---- policy.c, limit.c: what an operator wants done with a disk's requests ---- */

typedef struct BlkLimit BlkLimit;

/* Transfer full, or NULL: nothing is asked for, or with @error set it cannot be had. */
BlkPolicy *blk_policy_new(BlkNode *n, const BlkOptions *o, GError **error);
void blk_policy_free(BlkPolicy *p);

typedef enum BlkAdmit { BLK_ADMIT_START, BLK_ADMIT_WAIT, BLK_ADMIT_DONE } BlkAdmit;

/* All on the IoThread. What to do with @req before the driver sees it; WAIT: it is kept. */
BlkAdmit blk_policy_admit(BlkPolicy *p, BlkReq *req);
/* @req failed with *@err. True: it is kept. */
bool blk_policy_keeps(BlkPolicy *p, BlkReq *req, int *err); /* the error: into scratch[0] */
/* A request is kept for @err: say that the machine is to stand still, unless that was said. */
void blk_policy_tell_stop(BlkPolicy *p, int err);
/* The node drains, or does no more. */
void blk_policy_drain(BlkPolicy *p, bool on);
void blk_policy_hurry(BlkPolicy *p, bool on);
/* Make @p's limit, if it has none yet. Main thread, drained; false: the host refuses. */
bool blk_policy_need_limit(BlkPolicy *p, GError **error);
/* Other rates for the limit that it has. IoThread, drained. */
void blk_policy_set_rates(BlkPolicy *p, uint64_t iops, uint64_t bps);
/* Leaves both alone where there is no limit. Main thread. */
void blk_policy_rates(const BlkPolicy *p, uint64_t *ret_iops, uint64_t *ret_bps);
/* The requests kept behind errors, a list by next, the oldest first. @failing: no more are kept. */
BlkReq *blk_policy_take_kept(BlkPolicy *p, bool failing);
void blk_policy_on_stop(BlkPolicy *p, void (*fn)(void *opaque, BlkNode *n, int err),
                        void *opaque);

/* NULL with LODGE_ERROR_HOST. @start starts a request when its turn has come. */
BlkLimit *blk_limit_new(IoThread *io, uint64_t iops, uint64_t bps,
                        void (*start)(void *opaque, BlkReq *req), void *opaque, GError **error);
void blk_limit_free(BlkLimit *l);
/* Other rates from now on; 0: none. What waits goes by them. */
void blk_limit_set(BlkLimit *l, uint64_t iops, uint64_t bps);
void blk_limit_get(const BlkLimit *l, uint64_t *ret_iops, uint64_t *ret_bps);
/* True: go. False: it is kept until its turn comes. */
bool blk_limit_admit(BlkLimit *l, BlkReq *req);
void blk_limit_hold(BlkLimit *l, bool on);  /* nothing starts: the node drains */
void blk_limit_hurry(BlkLimit *l, bool on); /* everything starts at once */

/* ---- side.c: a disk as seen from further loops; blk_side() is in lodge/block.h ---- */

/* Whether @req goes to the disk that @side belongs to. Context: @side's IoThread. */
bool blk_side_passes_on(const BlkNode *side, const BlkReq *req);
/* From now on everything goes to @n itself: for who puts an image on top of it, or wants to see
 * each write. Main thread, drained. */
void blk_sides_detach(BlkNode *n);
void blk_sides_drain(BlkNode *n, bool on);
void blk_sides_free(BlkNode *n);

/* ---- driver_table.c ---- */

extern const BlkDriver blk_driver_file, blk_driver_nbd, blk_driver_qcow2, blk_driver_raw,
    blk_driver_umlcow, blk_driver_vdi, blk_driver_vhd, blk_driver_vmdk;

/* Name of the image format that @p belongs to, read by this build or not; NULL: raw. */
const char *blk_probe_format(const BlkProbe *p);
/* Whether this build reads @format. */
const BlkDriver *blk_driver_find(const char *format);
/* The formats, one by one; NULL at the end. */
const BlkDriver *blk_driver_at(unsigned i);
/* What a new image is whose format nobody says: the end of its name tells. */
const char *blk_format_by_name(const char *path, bool overlay);
/* "raw, umlcow and ..." for messages; transfer full. */
char *blk_driver_names(void);

/* ---- open.c ---- */

#define BLK_CHAIN_MAX 64u /* images in a chain */

enum {
    BLK_OPEN_NO_BASE = 1 << 0,  /* only the top image, for info; reads of it are refused */
    BLK_OPEN_CHECK = 1 << 1,    /* for check() */
    BLK_OPEN_UNLOCKED = 1 << 2, /* read-only, though somebody may be writing */
    BLK_OPEN_QUIET = 1 << 3,    /* no notes, no name of a disk before errors: for tools */
    BLK_OPEN_BASE_RW = 1 << 4,  /* the first base is opened for writing, for commit */
    BLK_OPEN_FRONT = 1 << 5,    /* for a device: the image may change while it runs */
};

/* blk_open() with BLK_OPEN_* flags. @name may be NULL with QUIET. */
BlkNode *blk_open_flags(const char *name, const BlkOptions *o, unsigned flags, IoThread *io,
                        GError **error);

typedef struct BlkMake {
    const char *file, *format; /* format: NULL for raw, or with a base "umlcow" */
    const char *base, *base_format;
    uint64_t size;       /* 0: the base's */
    GHashTable *options; /* char * -> char *, or NULL */
    bool overwrite;      /* an image that is there is replaced, once the new one is whole */
} BlkMake;

/**
 * blk_make() - Make an image
 * Context: main thread. Errors as blk_open(); LODGE_ERROR_EXISTS. Nothing is left behind then.
 */
bool blk_make(const BlkMake *m, IoThread *io, GError **error);
/**
 * blk_make_begin() - The same without giving it its name yet
 * @ret_files: transfer full; what blk_make_finish() publishes, or its unref drops
 * Return: the image, open for writing; transfer full.
 */
BlkNode *blk_make_begin(const BlkMake *m, BlkCache cache, IoThread *io, GPtrArray **ret_files,
                        GError **error);
/* Publish; the node is closed before. What of it has a name already is taken away on failure. */
bool blk_make_finish(GPtrArray *files, bool overwrite, GError **error);
/* What option subformat=dynamic|fixed asks for; an overlay is never fixed. LODGE_ERROR_CONFIG. */
bool blk_create_fixed(const BlkCreate *c, bool *ret_fixed, GError **error);
/* Describe the open @n as a base; strings are borrowed from @n and the arguments. */
BlkBaseInfo blk_base_info(BlkNode *n, const char *path, const char *full);
/* The host file under @n that holds its image. */
BlkFile *blk_file_under(BlkNode *n);
/* @path as recorded in the image @image (a path), seen from here; transfer full. */
char *blk_base_path(const char *image, const char *path);
/* @path, given by an operator, as the format of @drv is to record it in @image; transfer full. */
char *blk_record_path(const BlkDriver *drv, const char *image, const char *path);
/* Another file that belongs to the image of @n (a VMDK extent), as found in it: opened, locked and
 * cached as n->file is; the driver frees it by blk_node_free() in close(). Only inside open(). */
BlkFile *blk_open_beside(BlkNode *n, const BlkOpenHow *how, const char *path, GError **error);

/* ---- new_file.c: files that get their name when they are whole ---- */

struct BlkNewFile {
    int fd;     /* owned */
    char *path; /* owned; the name to get */
    char *temp; /* owned; the name meanwhile, or NULL: it has none */
    bool lazy;  /* published without a sync: as safe as cp */
};

/* @what: "image", "overlay", for messages. Transfer full; LODGE_ERROR_HOST. */
BlkNewFile *blk_new_file(const char *path, const char *what, GError **error);
/* One more file of the image that is being made (an extent); published before it. Transfer none. */
BlkNewFile *blk_new_file_extra(const BlkCreate *c, const char *path, GError **error);
bool blk_new_file_write(BlkNewFile *f, const void *buf, size_t len, uint64_t offset,
                        GError **error);
bool blk_new_file_size(BlkNewFile *f, uint64_t size, GError **error);
/* Sync and give it its name. Return: 0 or errno; EEXIST when that is taken, without @overwrite. */
int blk_new_file_publish(BlkNewFile *f, bool overwrite);
/* Close and free it; without its name it is gone. NULL is fine. */
void blk_new_file_free(BlkNewFile *f);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlkNewFile, blk_new_file_free)

/* ---- report.c ---- */

#define BLK_REPORT_LINES 100u

BlkReport *blk_report_new(void);
void blk_report_free(BlkReport *r);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlkReport, blk_report_free)
/* One finding: "FIELD at OFFSET: WHY". */
void blk_report_add(BlkReport *r, BlkFinding kind, bool fixed, const char *fmt, ...)
    G_GNUC_PRINTF(4, 5);
GPtrArray *blk_facts_new(void);
void blk_fact_text(GPtrArray *facts, const char *key, const char *text);
void blk_fact_number(GPtrArray *facts, const char *key, uint64_t number);
/* An array for BlkSnapOps.list; blk_snapshot_free() is its free function. */
GPtrArray *blk_snapshots_new(void);

/* ---- worker.c: blocking work of a node, one piece at a time ---- */

typedef struct BlkWork BlkWork;
/* A piece of work, inside the driver's own state of a request; all of it is the worker's until
 * done() runs. */
struct BlkWork {
    int (*run)(BlkNode *n, BlkWork *w);             /* worker thread; 0 or errno; may block */
    void (*done)(BlkNode *n, BlkWork *w, int err);  /* IoThread, no submit on the stack */
    BlkWork *next;
    int err;
};

/**
 * blk_work() - Run @w on @n's worker, in the order of the calls
 * run() may use blk_file_*_at() on n->file, blk_pread() on n->base, blk_meta_*().
 * Context: @n's IoThread. Makes the thread at first use; where none can be had, done() gets EAGAIN.
 */
void blk_work(BlkNode *n, BlkWork *w);
/* Whether nothing is queued or running: work that keeps its order may be done inline. IoThread. */
bool blk_work_idle(const BlkNode *n);
/* Ends the thread; nothing may be queued. Main thread. NULL is fine. */
void blk_worker_free(BlkWorker *w);

/* ---- meta_cache.c: tables of a format in memory ---- */

typedef struct BlkMeta BlkMeta;

/**
 * blk_meta_new() - A cache of blocks of metadata of @f
 * @block: bytes of a block, a power of two, 512..2 MiB; blocks lie at multiples of @block
 * @bytes: of all blocks (BlkOpenHow.meta_bytes); at least META_MIN_BLOCKS blocks are kept
 * @ranks: 1..4; dirty blocks of a lower rank are on the disk before those of a higher one
 * Return: transfer full.
 */
BlkMeta *blk_meta_new(BlkFile *f, uint32_t block, uint64_t bytes, unsigned ranks);
/* Dirty blocks are lost: blk_meta_flush() before. NULL is fine. */
void blk_meta_free(BlkMeta *m);
/* For looking at blocks in memory; any thread; a leaf lock, call nothing but peek with it held. */
void blk_meta_lock(BlkMeta *m);
void blk_meta_unlock(BlkMeta *m);
/* The block at @offset (a multiple of @block), or NULL: not in memory. Valid until unlock. */
const uint8_t *blk_meta_peek(BlkMeta *m, uint64_t offset);
/* The following may block. Context: the worker, or at rest. Return: 0 or errno. */
/* Bring the block at @offset into memory. */
int blk_meta_load(BlkMeta *m, uint64_t offset);
/* Copy from and to blocks, loading what is missing; a range may span blocks. */
int blk_meta_read(BlkMeta *m, uint64_t offset, void *buf, size_t len);
int blk_meta_write(BlkMeta *m, uint64_t offset, const void *buf, size_t len, unsigned rank);
/* The block at @offset is new: zeros in memory, dirty, whatever the file has. */
int blk_meta_fresh(BlkMeta *m, uint64_t offset, unsigned rank);
/* Drop what is in memory of [@offset, @offset + @len), dirty or not: it is metadata no more. */
void blk_meta_forget(BlkMeta *m, uint64_t offset, uint64_t len);
/* Sync data, then write dirty blocks rank by rank with a sync behind each: metadata never refers
 * to what may not be there. Nothing is dirty afterwards, unless it failed. */
int blk_meta_flush(BlkMeta *m);
bool blk_meta_dirty(BlkMeta *m);

/* ---- image_lock.c ---- */

/**
 * image_lock() - Lock the whole of an image file
 * @fd:        its descriptor, open for what @exclusive asks
 * @path:      for messages
 * @exclusive: a writer's lock; else a reader's
 * @holder:    our own VM's name, or NULL
 * Context: main thread. The lock goes with the open file description (F_OFD_SETLK).
 * Return:  false with LODGE_ERROR_BUSY naming who has it, or LODGE_ERROR_HOST. A file system
 *          without locks: true, after a warning.
 */
bool image_lock(int fd, const char *path, bool exclusive, const char *holder, GError **error);
/* Have another lock where nobody can be in the way: F_RDLCK, or F_UNLCK to give it back at once,
 * also where others still refer to the open file (a child, io_uring). */
void image_lock_change(int fd, short type);

/* ---- proto_file.c ---- */

/* What a file node hands to the engine for each request; lives in BlkReq.scratch. */
typedef struct BlkXfer {
    BlkFile *file;
    uint64_t done;    /* bytes moved so far */
    struct iovec *iov; /* owned; the rest of a request that came back short, or NULL */
    void *bounce;     /* owned; aligned copy for O_DIRECT, or NULL */
    size_t step;      /* bytes asked for in the present step */
    struct iovec one; /* the bounce as an iovec */
    int result;       /* of a pool thread: 0 or errno */
} BlkXfer;

_Static_assert(sizeof(BlkXfer) <= sizeof(((BlkReq *)0)->scratch), "fits");

static inline BlkXfer *blk_xfer(BlkReq *req)
{
    return (BlkXfer *)req->scratch;
}

/* What happens to a file, for tests that record it or make it fail. Such a file does everything
 * with blocking calls, on whatever thread asks. */
typedef enum BlkTapOp {
    BLK_TAP_READ, BLK_TAP_WRITE, BLK_TAP_ZERO, BLK_TAP_TRUNCATE, BLK_TAP_SYNC
} BlkTapOp;

typedef struct BlkTap {
    /* About to happen. Return: 0, or an errno that it fails with; *ret_mark goes to after(). */
    int (*before)(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len, uint64_t *ret_mark);
    /* It has happened. @iov: what was written, WRITE only. TRUNCATE: @len is the new length. */
    void (*after)(void *opaque, BlkTapOp op, uint64_t offset, uint64_t len,
                  const struct iovec *iov, unsigned niov, uint64_t mark);
    void *opaque;
} BlkTap;

struct BlkFile {
    BlkNode node;
    /* constant after open */
    char *path;      /* owned */
    int fd;          /* owned */
    int meta_fd;     /* owned; without O_DIRECT; the same as fd where that has none */
    int fd_slot, meta_slot; /* in the ring's table of files, or -1 */
    uint64_t size;   /* bytes at open, or after the last resize */
    uint64_t dev, ino;
    uint32_t mtime;  /* seconds, low 32 bits, as UML's COW header has it */
    bool block_device, direct, read_only, unsafe, locked;
    bool serial;     /* buffered writes are carried out one by one, and wait */
    bool instant;    /* on tmpfs: a transfer is a copy in memory, and waits for nothing */
    uint32_t align;  /* bytes; of offsets, lengths and memory where direct */
    uint32_t physical; /* bytes: blocks of the device, or of the file system */
    bool remote;     /* no descriptor, a size that stays: everything goes by requests */
    uint32_t unit;   /* bytes; remote: of offsets and lengths, below align too */
    const BlkTap *tap; /* borrowed, outlives us; NULL but in tests */
    /* any thread: what the file system turned out not to do */
    atomic_bool no_punch, no_zero_range;
    /* any thread, read-only files: a stretch of data that was found last; data is never wrong */
    atomic_uint_fast64_t data_from, data_to;
};

typedef struct BlkFileOpen {
    const char *path;
    bool read_only;
    BlkCache cache;
    const char *holder;
    bool no_lock;  /* a file that nobody else can see, or only looked at */
    bool empty_ok;
    bool is_base;  /* only for messages */
} BlkFileOpen;

/**
 * blk_file_open() - Open and lock a host file or block device as a node
 * @fd: an open descriptor to use, taken over in every case, or -1 to open @o->path
 * Return: transfer full, or NULL with an error as for blk_open().
 */
BlkFile *blk_file_open(const char *name, const BlkFileOpen *o, int fd, IoThread *io,
                       BlkEngine *engine, GError **error);
/* The same open file once more, for another loop: same lock, limits and flags. Transfer full, or
 * NULL with LODGE_ERROR_HOST. */
BlkFile *blk_file_again(const BlkFile *f, IoThread *io, BlkEngine *engine, GError **error);
/* Switch on O_DIRECT, when nothing but the data path touches the file any more. */
bool blk_file_set_direct(BlkFile *f, GError **error);
/* Plain reads and writes while opening. Return: false with LODGE_ERROR_HOST; short reads are
 * filled with zeros. */
bool blk_file_pread(BlkFile *f, void *buf, size_t len, uint64_t offset, GError **error);
bool blk_file_pwrite(BlkFile *f, const void *buf, size_t len, uint64_t offset, GError **error);
/* Blocking access to the file, through the host's cache; worker, or main thread at rest. Return: 0
 * or errno. Reads past the end give zeros; writes there make the file longer. */
int blk_file_read_at(BlkFile *f, void *buf, size_t len, uint64_t offset);
int blk_file_write_at(BlkFile *f, const void *buf, size_t len, uint64_t offset);
int blk_file_zero_at(BlkFile *f, uint64_t offset, uint64_t len); /* a hole where possible */
int blk_file_sync(BlkFile *f); /* fdatasync(); nothing with cache=unsafe */
int blk_file_truncate(BlkFile *f, uint64_t len);
int blk_file_length(BlkFile *f, uint64_t *ret_len);
/* Run the whole of @req with blocking calls. Context: pool thread. Return: 0 or errno. */
int blk_file_run(BlkReq *req);

/* ---- proto_nbd.c ---- */

/**
 * blk_nbd_open() - Reach the export that the URI @o->path names, as a node
 * Blocks until the server answers, at most NBD_CONNECT_S.
 * Context: main thread. Return: transfer full, or NULL: LODGE_ERROR_CONFIG (the URI, a read-only
 *          export), LODGE_ERROR_UNSUPPORTED (no libnbd, TLS, large blocks), LODGE_ERROR_HOST.
 */
BlkFile *blk_nbd_open(const char *name, const BlkFileOpen *o, IoThread *io, BlkEngine *engine,
                      GError **error);
/* Whether @path names an export and no file. */
bool blk_is_remote(const char *path);

/* ---- file_remote.c: blk_file_*_at() where BlkFile.remote ---- */

/* Context: as blk_file_*_at(), and not the node's IoThread. */
int blk_remote_read(BlkFile *f, void *buf, size_t len, uint64_t offset);
int blk_remote_write(BlkFile *f, const void *buf, size_t len, uint64_t offset);
int blk_remote_zero(BlkFile *f, uint64_t offset, uint64_t len);
/* It does not grow: 0 where @len is in it, else ENOSPC. */
int blk_remote_truncate(BlkFile *f, uint64_t len);

/* ---- graph.c ---- */

/* blk_wait() for a request in bytes of BlkFile.unit, below the sectors of the limits. */
int blk_wait_bytes(BlkNode *n, BlkReq *req);

/* ---- xfer.c ---- */

typedef enum BlkStep { BLK_STEP_DONE, BLK_STEP_AGAIN } BlkStep;

/* What to read or write next for @req. Return: 0, or ENOMEM. */
int blk_xfer_next(BlkReq *req, const struct iovec **ret_iov, unsigned *ret_niov,
                  uint64_t *ret_offset);
/* Take the answer of the host to that: bytes, or a negative errno. @ret_err is set when done. */
BlkStep blk_xfer_took(BlkReq *req, ssize_t result, int *ret_err);
/* Free what the steps allocated. */
void blk_xfer_end(BlkReq *req);

/* iov helpers; @iov describes at least @skip + @len bytes. */
unsigned iov_slice(const struct iovec *iov, unsigned niov, uint64_t skip, uint64_t len,
                   struct iovec *ret_iov);
void iov_zero(const struct iovec *iov, unsigned niov, uint64_t skip, uint64_t len);
bool buffer_is_zero(const void *buf, size_t len);
size_t iov_gather(const struct iovec *iov, unsigned niov, uint64_t skip, void *buf, size_t len);
size_t iov_scatter(const struct iovec *iov, unsigned niov, uint64_t skip, const void *buf,
                   size_t len);

/* ---- engine.c ---- */

struct BlkEngine {
    unsigned refs; /* main thread only */
    IoThread *io;  /* borrowed */
    BlkUring *uring; /* owned, or NULL */
    BlkAioRing *aio; /* owned, or NULL */
    BlkPool *pool;   /* owned */
    BlkPool *writer; /* owned; of one thread: writes that exclude one another anyhow */
    uint32_t instant_max; /* bytes of a request to a file in memory that is carried out at once */
};

BlkEngine *blk_engine_new(IoThread *io, BlkAio aio, GError **error);
/* A guest waits for it. Context: main, nothing submitted yet. */
void blk_engine_for_guest(BlkEngine *e);
BlkEngine *blk_engine_ref(BlkEngine *e);
void blk_engine_unref(BlkEngine *e);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlkEngine, blk_engine_unref)
const char *blk_engine_kind(const BlkEngine *e);
void blk_engine_submit(BlkEngine *e, BlkReq *req);

/* ---- engine_uring.c ---- */

/* NULL and *ret_errno where the kernel has none or forbids it. */
BlkUring *blk_uring_new(IoThread *io, int *ret_errno);
void blk_uring_free(BlkUring *u);
/* A slot for @fd in the ring's table, or -1 when that is full. Main thread. */
int blk_uring_add_file(BlkUring *u, int fd);
void blk_uring_remove_file(BlkUring *u, int slot);
void blk_uring_submit(BlkUring *u, BlkReq *req);

/* ---- engine_aio.c ---- */

/* NULL and *ret_errno where the kernel has none. @pool outlives it. */
BlkAioRing *blk_aio_new(IoThread *io, BlkPool *pool, int *ret_errno);
void blk_aio_free(BlkAioRing *a);
/* Whether @req may be submitted here. */
bool blk_aio_takes(const BlkReq *req);
void blk_aio_submit(BlkAioRing *a, BlkReq *req);

/* ---- engine_pool.c ---- */

#define BLK_POOL_THREADS 4u

/* At most @threads <= BLK_POOL_THREADS. Transfer full. */
BlkPool *blk_pool_new(IoThread *io, unsigned threads);
void blk_pool_free(BlkPool *p);
void blk_pool_submit(BlkPool *p, BlkReq *req);

#endif
