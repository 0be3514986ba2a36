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
typedef struct BlkFile BlkFile;

#define BLK_SECTOR 512u
#define BLK_MAX_IOV 1024u               /* IOV_MAX of Linux */
#define BLK_MAX_SIZE ((uint64_t)1 << 62) /* sums of offsets stay inside int64_t */
#define BLK_DISCARD_MAX ((uint64_t)1 << 30)

typedef struct BlkDriver {
    const char *name;
    size_t instance_size; /* a BlkNode is the first member */
    /* The guest's view; read once, after open. */
    void (*limits)(BlkNode *n, BlkLimits *ret_limits);
    /* Start @req; it does not block. Completion by blk_complete(), which may be called at once. */
    void (*submit)(BlkNode *n, BlkReq *req);
    /* Free what the driver holds, not the children. Main thread, nothing in flight. */
    void (*close)(BlkNode *n);
} BlkDriver;

struct BlkNode {
    /* constant after open */
    const BlkDriver *drv;
    char *name;        /* owned */
    IoThread *io;      /* borrowed, outlives us */
    BlkEngine *engine; /* ref */
    BlkNode *file;     /* owned; what we are stored in, NULL for a protocol */
    BlkNode *base;     /* owned; what lies under an overlay, or NULL */
    BlkLimits limits;

    /* any thread */
    _Atomic(BlkReq *) inbox; /* pushed by foreign threads, newest first */
    atomic_uint_fast64_t ops[6], bytes[6], errors[6];

    /* IoThread only */
    unsigned in_flight;
    unsigned drained; /* depth of blk_drain_begin() */
    unsigned in_submit; /* depth of driver submits on the stack */
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

/* ---- driver_table.c ---- */

extern const BlkDriver blk_driver_file, blk_driver_raw, blk_driver_umlcow;

#define BLK_PROBE_BYTES 512u

/* Name of the image format that begins with @head (BLK_PROBE_BYTES, zeros past the end), or NULL
 * for none that is known: raw. */
const char *blk_probe_format(const uint8_t *head);
/* Whether this build reads @format. */
const BlkDriver *blk_driver_find(const char *format);

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

struct BlkFile {
    BlkNode node;
    /* constant after open */
    char *path;      /* owned */
    int fd;          /* owned */
    int meta_fd;     /* owned; without O_DIRECT; the same as fd where that has none */
    int fd_slot, meta_slot; /* in the ring's table of files, or -1 */
    uint64_t size;   /* bytes at open */
    uint64_t dev, ino;
    uint32_t mtime;  /* seconds, low 32 bits, as UML's COW header has it */
    bool block_device, direct, read_only, unsafe;
    /* any thread: what the file system turned out not to do */
    atomic_bool no_punch, no_zero_range;
};

typedef struct BlkFileOpen {
    const char *path;
    bool read_only;
    BlkCache cache;
    const char *holder;
    bool no_lock;  /* a file that nobody else can see */
    bool is_base;  /* only for messages */
} BlkFileOpen;

/**
 * blk_file_open() - Open and lock a host file or block device as a node
 * @fd: an open descriptor to use, taken over in every case, or -1 to open @o->path
 * Return: transfer full, or NULL with an error as for blk_open().
 */
BlkFile *blk_file_open(const char *name, const BlkFileOpen *o, int fd, IoThread *io,
                       BlkEngine *engine, GError **error);
/* Switch on O_DIRECT, when nothing but the data path touches the file any more. */
bool blk_file_set_direct(BlkFile *f, GError **error);
/* Plain reads and writes while opening. Return: false with LODGE_ERROR_HOST; short reads are
 * filled with zeros. */
bool blk_file_pread(BlkFile *f, void *buf, size_t len, uint64_t offset, GError **error);
bool blk_file_pwrite(BlkFile *f, const void *buf, size_t len, uint64_t offset, GError **error);
/* Run the whole of @req with blocking calls. Context: pool thread. Return: 0 or errno. */
int blk_file_run(BlkReq *req);

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
size_t iov_gather(const struct iovec *iov, unsigned niov, uint64_t skip, void *buf, size_t len);
size_t iov_scatter(const struct iovec *iov, unsigned niov, uint64_t skip, const void *buf,
                   size_t len);

/* ---- engine.c ---- */

struct BlkEngine {
    unsigned refs; /* main thread only */
    IoThread *io;  /* borrowed */
    BlkUring *uring; /* owned, or NULL */
    BlkPool *pool;   /* owned */
};

BlkEngine *blk_engine_new(IoThread *io, BlkAio aio, GError **error);
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

/* ---- engine_pool.c ---- */

BlkPool *blk_pool_new(IoThread *io);
void blk_pool_free(BlkPool *p);
void blk_pool_submit(BlkPool *p, BlkReq *req);

/* ---- fmt_raw.c ---- */

/* @file is taken over. @guard: the format was only guessed, so the guest may not make the image
 * look like another one. Transfer full. */
BlkNode *blk_raw_new(const char *name, BlkNode *file, bool guard);

/* ---- fmt_umlcow.c ---- */

typedef struct CowLayout CowLayout;
/* @file and @base are taken over. Transfer full. */
BlkNode *blk_umlcow_new(const char *name, BlkNode *file, BlkNode *base, const CowLayout *layout,
                        bool read_only);

#endif
