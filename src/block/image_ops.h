/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_IMAGE_OPS_H
#define LODGE_IMAGE_OPS_H

/*
 * What is done with whole images outside a machine: map, copy, compare, commit, rebase, resize,
 * bench. Everything blocks; main thread, while the nodes' IoThreads run.
 */

#include "block_int.h"

/* A stretch of a disk with one answer. */
typedef struct MapEntry {
    uint64_t offset, len;  /* bytes */
    unsigned depth;        /* of the image in the chain that has it; 0: the top */
    bool data;             /* stored; else nothing in the chain has it */
    bool zero;             /* reads as zeros */
    uint64_t file_offset;  /* or BLK_NO_OFFSET */
    const char *file;      /* borrowed from the node; where file_offset counts */
} MapEntry;

/* The stretch at @offset, at most @len long. Return: 0 or errno. */
int image_map(BlkNode *n, uint64_t offset, uint64_t len, MapEntry *ret);

/* Called now and then; both in bytes. */
typedef struct ImageProgress {
    void (*tell)(void *opaque, uint64_t done, uint64_t total);
    void *opaque;
} ImageProgress;

typedef struct CopyPlan {
    BlkNode *from, *to;
    BlkNode *unlike;     /* writes only what differs from this one, zeros behind its end */
    bool diff;           /* unlike counts; with NULL there it stands for zeros */
    bool skip_zero;      /* @to reads as zeros already */
    bool compress;
    bool top_only;       /* only what the top image of @from has itself */
    bool below_only;     /* only what it has not */
    bool ordered;        /* see BlkReq */
    const ImageProgress *progress; /* or NULL */
} CopyPlan;

typedef struct CopyResult {
    uint64_t written, zeroed; /* bytes */
} CopyResult;

/**
 * image_copy() - Copy a disk, or what is asked for of it
 * Bytes of @from behind the end of @to are left out.
 * Return: false with LODGE_ERROR_HOST that names file and offset.
 */
bool image_copy(const CopyPlan *p, CopyResult *ret_result, GError **error);

/* Where @a and @b differ first; *ret_same: nowhere. What one has more must be zeros. */
bool image_compare(BlkNode *a, BlkNode *b, const ImageProgress *progress, bool *ret_same,
                   uint64_t *ret_offset, GError **error);

typedef struct ConvertArgs {
    const char *from, *from_format;
    BlkMake to;
    bool compress;
    bool sync; /* on the disk before it has its name */
    const ImageProgress *progress;
} ConvertArgs;

/* @io_from and @io_to may be the same loop, but two are faster. */
bool image_convert(const ConvertArgs *a, IoThread *io_from, IoThread *io_to,
                   CopyResult *ret_result, GError **error);

/* Write the top image @n has into its base, opened with BLK_OPEN_BASE_RW. @keep: leave it full. */
bool image_commit(BlkNode *n, bool keep, const ImageProgress *progress, CopyResult *ret_result,
                  GError **error);

/* The base was written: what the overlay @n records of it follows. */
bool image_follow_base(BlkNode *n, GError **error);

typedef struct RebaseArgs {
    const char *file, *format;
    const char *old_base_format; /* where the image does not say it */
    const char *base, *base_format; /* NULL: none from now on */
    bool unsafe; /* only the reference changes */
    const ImageProgress *progress;
    const BlkTap *tap; /* for tests: see BlkOptions */
} RebaseArgs;

bool image_rebase(const RebaseArgs *a, IoThread *io, CopyResult *ret_result, GError **error);

/* At rest and in a running machine; see BlkDriver.resize. */
bool image_resize(BlkNode *n, uint64_t size, bool shrink, GError **error);

bool image_check(BlkNode *n, bool repair, BlkReport *r, GError **error);
/* @verb: "create", "apply", "delete" of the internal snapshot @which. */
bool image_snapshot(BlkNode *n, const char *verb, const char *which, GError **error);
GPtrArray *image_snapshots(BlkNode *n, GError **error);

typedef struct BenchArgs {
    BlkOp op;            /* READ or WRITE */
    unsigned depth;      /* 1..BENCH_DEPTH_MAX */
    uint32_t bytes;      /* of a request */
    bool random;
    uint64_t count;      /* requests */
    unsigned flush_every; /* 0: never */
} BenchArgs;
#define BENCH_DEPTH_MAX 256u

typedef struct BenchResult {
    uint64_t count, bytes;
    int64_t ns;
} BenchResult;

bool image_bench(BlkNode *n, const BenchArgs *a, BenchResult *ret_result, GError **error);

#endif
