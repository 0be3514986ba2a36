/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_BLOCK_H
#define LODGE_BLOCK_H

/*
 * The block path, from a device model to a host file: nodes stacked behind one vtable, formats
 * over protocols. A node is bound to one IoThread; submit may come from any thread; done runs on
 * the node's IoThread with no lock held, exactly once, never from inside blk_submit().
 *
 * A flush orders only what was done before it was submitted. A format serves cache hits inline;
 * allocation and metadata misses run one at a time on the node's worker, written as plain blocking
 * code. Drained: no request in flight, and submit parks new ones.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <glib.h>

typedef struct IoThread IoThread;
typedef struct BlkNode BlkNode;
typedef struct BlkReq BlkReq;

/* STATUS: what is allocated, for map, convert and NBD. */
typedef enum BlkOp { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_ZERO, BLK_STATUS } BlkOp;

#define BLK_CHILDREN 4 /* requests that one layer may have under way for one parent request */

/* Answers of BLK_STATUS, of one node. */
typedef enum BlkStatus {
    BLK_ST_BELOW, /* nothing is stored here: it comes from the base, or is zeros without one */
    BLK_ST_DATA,
    BLK_ST_ZERO,  /* known to be zeros, whatever the base holds */
} BlkStatus;
#define BLK_NO_OFFSET UINT64_MAX

struct BlkReq {
    /* Set by the submitter: */
    BlkOp op;
    bool fua, may_unmap;
    bool compress;           /* WRITE: store it compressed, where the format can and it pays */
    bool ordered;            /* WRITE: nothing refers to the data before it is on the disk, so that
                              * a power cut leaves what was there */
    uint64_t offset, len;    /* bytes */
    const struct iovec *iov; /* borrowed until done; READ and WRITE only */
    unsigned niov;
    void (*done)(BlkReq *req, int err); /* 0 or a positive errno */
    void *opaque;
    /* Owned by the block layer until done: */
    BlkNode *node;
    BlkNode *front;          /* the disk that it came to, where node is the image on top of it */
    BlkReq *next;
    int status;              /* BLK_STATUS: a BlkStatus */
    uint64_t status_len;     /* BLK_STATUS: bytes from offset with that answer, at least 1 */
    uint64_t status_offset;  /* BLK_STATUS, data: where they begin in the file, or BLK_NO_OFFSET */
    uint8_t flags;           /* of the block layer */
    uint64_t shift;          /* of one that was handed on: what was added to offset */
    uintptr_t scratch[8];    /* of the driver that has it */
};

typedef struct BlkLimits {
    uint64_t size;        /* bytes, the guest's view; a multiple of align */
    uint64_t discard_max; /* bytes in one DISCARD or ZERO; 0: not supported */
    uint32_t align;       /* offset and len are multiples: 512 or 4096 */
    uint32_t physical;    /* bytes that the host writes at once; a multiple of align; 0: align */
    uint32_t block;       /* preferred I/O size, bytes: a cluster, where that is at most 2 MiB */
    uint32_t max_iov;     /* entries in one request */
    bool read_only;
} BlkLimits;

typedef enum BlkCache { BLK_CACHE_WRITEBACK, BLK_CACHE_NONE, BLK_CACHE_UNSAFE } BlkCache;

typedef enum BlkAio { BLK_AIO_AUTO, BLK_AIO_URING, BLK_AIO_THREADS, BLK_AIO_LIBAIO } BlkAio;

/* What becomes of a request that the host failed. */
typedef enum BlkOnError {
    BLK_ERROR_REPORT, /* the guest sees it */
    BLK_ERROR_IGNORE, /* the guest is told that all went well; reads give zeros */
    BLK_ERROR_STOP,   /* it waits for blk_retry(); see blk_on_stop() */
} BlkOnError;

/* 1 MiB of tables serves 8 GiB of qcow2 with clusters of 64 KiB, or 4 GiB of UML COW. */
#define BLK_META_DEFAULT ((uint64_t)1 << 20)
#define BLK_META_MAX ((uint64_t)32 << 20)

/* What a disk is opened with; strings are borrowed for the call. */
typedef struct BlkOptions {
    const char *file;   /* required */
    const char *base;   /* makes @file as an overlay of it where @file is not there yet */
    const char *format; /* a name of blk_driver_at(), or NULL: by magic */
    const char *base_format; /* of the base, where the image records none; NULL: raw */
    bool read_only;
    bool snapshot;      /* writes go to an unlinked temporary overlay */
    BlkCache cache;
    BlkAio aio;
    uint64_t metadata_cache; /* bytes of tables kept in memory; 0: BLK_META_DEFAULT */
    bool discard_ignore; /* discards do nothing; zeros keep their room */
    bool detect_zeroes;  /* writes of zeros become holes or zero clusters */
    uint64_t iops, bps;  /* requests and bytes a second; 0: no limit */
    BlkOnError on_error;
    const char *holder; /* name of the VM, for lock messages */
    const struct BlkTap *tap; /* for tests (block_int.h): what happens to the image's file */
} BlkOptions;

/**
 * blk_open() - Open an image and all that is under it, locked
 * @name: node name in the description, copied
 * @io:   its IoThread, borrowed
 * Context: main thread.
 * Return: transfer full (close by blk_close()), or NULL: LODGE_ERROR_CONFIG (missing, a directory,
 *         bad option), LODGE_ERROR_IMAGE (malformed), LODGE_ERROR_BUSY (locked; names the holder),
 *         LODGE_ERROR_HOST. Nothing that it made is left behind on failure.
 */
BlkNode *blk_open(const char *name, const BlkOptions *o, IoThread *io, GError **error);
/* Who has the file of that device and inode locked, from the registry of VMs: transfer full, or
 * NULL if it is none of ours. Set once, before anything is opened; NULL takes it away. Main
 * thread. */
typedef char *(*BlkHolderFn)(void *opaque, uint64_t dev, uint64_t ino);
void blk_set_holder_lookup(BlkHolderFn fn, void *opaque);
/* Drains, closes what is under it, frees. Main thread. NULL is fine. */
void blk_close(BlkNode *n);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlkNode, blk_close)

const char *blk_name(const BlkNode *n);
const char *blk_format(const BlkNode *n); /* driver's name: "raw", "umlcow", ... */
const char *blk_engine(const BlkNode *n); /* "io_uring", "libaio", "threads" */
void blk_limits(BlkNode *n, BlkLimits *ret_limits);
IoThread *blk_io_thread(BlkNode *n);

/**
 * blk_side() - Where requests to @n from the loop @io are to be submitted
 * A raw disk has a node of its own there, so that they need no other thread; else it is @n itself.
 * done of such a request runs on @io or on blk_io_thread(@n). A side lives as long as @n, which
 * also drains it; nothing else is to be done with it.
 * Context: main thread. Return: transfer none; NULL: LODGE_ERROR_HOST.
 */
BlkNode *blk_side(BlkNode *n, IoThread *io, GError **error);

/**
 * blk_submit() - Start @req on @n
 * Checks range, alignment, iov sum and read-only first; a breach completes with EINVAL, EIO or
 * EROFS like any other error. Context: any thread, device locks may be held.
 */
void blk_submit(BlkNode *n, BlkReq *req);
/* Block until @req is done; for tools and tests; takes over its done and opaque. It is not parked
 * by a drain, so that the one who drained can flush. Context: not the node's IoThread. */
int blk_wait(BlkNode *n, BlkReq *req);
int blk_pread(BlkNode *n, void *buf, uint64_t offset, size_t len);
int blk_pwrite(BlkNode *n, const void *buf, uint64_t offset, size_t len);
int blk_flush(BlkNode *n);

/* Park new requests and wait until none is in flight; nests. Main thread. */
void blk_drain_begin(BlkNode *n);
void blk_drain_end(BlkNode *n);

/* Limits do not count while @on, so that requests that wait for their turn are done; nests not.
 * Main thread. */
void blk_hurry(BlkNode *n, bool on);
/**
 * blk_set_rates() - Requests and bytes a second of a disk in use, from now on; 0: no limit
 * Context: main thread. Return: false with LODGE_ERROR_HOST, and all is as before.
 */
bool blk_set_rates(BlkNode *n, uint64_t iops, uint64_t bps, GError **error);
void blk_rates(const BlkNode *n, uint64_t *ret_iops, uint64_t *ret_bps); /* main thread */
/* With BLK_ERROR_STOP: @fn is called when a request begins to wait, once until the next
 * blk_retry(), on the node's IoThread, where nothing may be waited for. Before the first
 * request. */
void blk_on_stop(BlkNode *n, void (*fn)(void *opaque, BlkNode *n, int err), void *opaque);
/* @fn is called when the host has failed a request, with what became of it; on the IoThread of the
 * request, where nothing may be waited for. Before the first request. */
typedef void (*BlkErrorFn)(void *opaque, BlkNode *n, BlkOp op, int err, BlkOnError action);
void blk_on_error(BlkNode *n, BlkErrorFn fn, void *opaque);
/* Start the requests that wait behind an error once more; with @fail let errors be seen, these and
 * all until the next call. Main thread. */
void blk_retry(BlkNode *n, bool fail);

/* Unflushed and unlocked state is never freed under a client: */
typedef struct BlkStats {
    uint64_t ops[6], bytes[6], errors[6]; /* by BlkOp */
} BlkStats;
void blk_stats(BlkNode *n, BlkStats *ret_stats);

#endif
