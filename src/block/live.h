/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_LIVE_H
#define LODGE_LIVE_H

/*
 * Disks of machines that run: images put on top of them and merged away, another size. @disk is
 * what blk_open() gave. Main thread; the guest's requests wait meanwhile, and are lost in no case.
 */

#include "block_int.h"

typedef struct BlkJob BlkJob;

typedef struct BlkFront {
    BlkNode node;
    /* constant */
    BlkCache cache;
    uint64_t meta_bytes; /* BlkOptions.metadata_cache */
    char *holder;        /* owned, or NULL */
    const BlkTap *tap;   /* of images that are opened for writing */
    bool nameless;       /* snapshot=on */
    bool detect_zeroes, discard_ignore; /* as BlkOptions have them; policy.c does it */
    /* main thread */
    BlkJob *job;         /* owned until it is over; what is done with its images, or NULL */
} BlkFront;

/* ---- front.c ---- */

/* NULL: @n is no front. */
BlkFront *blk_front(BlkNode *n);
/* Drained. @top is owned by it from now on, and the one before no more. */
void blk_front_set_top(BlkFront *f, BlkNode *top);
/* Drained. Changes are noted in @d, borrowed; NULL: no more. */
void blk_front_set_dirty(BlkFront *f, BlkDirty *d);

/* ---- live.c ---- */

typedef struct BlkOverlayArgs {
    const char *file;
    const char *format; /* NULL: qcow2, or umlcow over a umlcow */
    bool existing;      /* it is there already, and names the disk's present image as its base */
} BlkOverlayArgs;

/**
 * blk_overlay() - Put a new image on top of @disk, whose present one becomes its base
 * Return: false with all as before: LODGE_ERROR_CONFIG, LODGE_ERROR_EXISTS, LODGE_ERROR_BUSY (a job
 *         is under way), LODGE_ERROR_UNSUPPORTED, LODGE_ERROR_HOST.
 */
bool blk_overlay(BlkNode *disk, const BlkOverlayArgs *a, GError **error);

/* Another size, which the device is to be told; not less, unless @shrink. */
bool blk_disk_resize(BlkNode *disk, uint64_t size, bool shrink, GError **error);

/* Open the image of @old once more, for writing or not, over @old's base, which belongs to @old
 * still. It has no lock yet. At rest, @old settled. NULL with the error. */
BlkNode *blk_again(BlkFront *f, BlkNode *old, bool writable, GError **error);
/* Give that up, or put it in @old's place: that one is closed. */
void blk_again_drop(BlkNode *again);
void blk_again_take(BlkNode *old, BlkNode *again);
/* From a writer's lock of @old to a reader's of both, or from a reader's of @old to a writer's of
 * @again, which others may refuse; without a moment in which there is none. */
void blk_lock_down(BlkNode *old, BlkNode *again);
bool blk_lock_up(BlkFront *f, BlkNode *old, BlkNode *again, GError **error);
/* Everything is in the file. 0 or errno. At rest. */
int blk_settle(BlkNode *n);

/* ---- live_commit.c ---- */

typedef enum BlkJobState {
    BLK_JOB_RUNNING,
    BLK_JOB_READY,     /* all is copied; changes are followed until it is told to finish */
    BLK_JOB_COMPLETED, /* the base is the disk's image now */
    BLK_JOB_CANCELLED, /* the overlay is in use as before */
    BLK_JOB_FAILED,    /* likewise; error says why */
} BlkJobState;

typedef struct BlkJobInfo {
    const char *id, *disk;     /* borrowed */
    BlkJobState state;
    uint64_t offset, len;      /* bytes: done, and in all so far */
    uint64_t speed;            /* bytes a second; 0: as fast as it goes */
    const char *error;         /* FAILED; borrowed */
    int err;                   /* FAILED: errno, or 0 */
    bool reading;              /* FAILED: of the overlay; else of the base */
} BlkJobInfo;

typedef struct BlkCommitArgs {
    const char *id;            /* NULL: the disk's name */
    uint64_t speed;
    GMainContext *context;     /* where tell() is called; borrowed, outlives the job */
    /* The job's state is another one. It may not end jobs or close disks. */
    void (*tell)(void *opaque, const BlkJobInfo *info);
    void *opaque;
} BlkCommitArgs;

/**
 * blk_commit() - Begin to merge the image on top of @disk into its base, while the guest runs
 * When all is copied the job is READY and goes on following the guest until blk_job_complete().
 * Whenever it ends, by a crash too, the chain or the base is whole with all that was flushed.
 * Return: false with LODGE_ERROR_CONFIG (no overlay), LODGE_ERROR_BUSY (another job, or the base is
 *         in use by others), LODGE_ERROR_UNSUPPORTED, LODGE_ERROR_HOST.
 */
bool blk_commit(BlkNode *disk, const BlkCommitArgs *a, GError **error);
/* The job of @disk, or NULL. */
BlkJob *blk_job(BlkNode *disk);
void blk_job_info(BlkJob *j, BlkJobInfo *ret);
/* Let the base take over, now if READY, else as soon as it can. */
void blk_job_complete(BlkJob *j);
/* Go on with the overlay; tell() says when it is so. */
void blk_job_cancel(BlkJob *j);
void blk_job_set_speed(BlkJob *j, uint64_t speed);
/* The disk is being closed: as cancel, and it is over on return. */
void blk_job_abandon(BlkJob *j);

#endif
