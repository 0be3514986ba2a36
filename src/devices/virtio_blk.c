// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtio block device.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, section 5.2 "Block Device": read, write, flush, get-id,
 * discard, write-zeroes, several queues, block size and topology. Left out: SCSI commands, write
 * cache toggling (the cache is write-back while the driver accepted FLUSH, and else each write is
 * forced to the medium), geometry, secure erase, zones, lifetime.
 *
 * Threads: the queues belong to the node's loop thread, where completions come too; or with
 * iothreads=N they take turns on that and N - 1 more. What a queue on another loop submits goes
 * straight to the file where the image can have a side there (blk_side()), else by the node's own
 * loop; then its completion comes there too, and is handed back to the queue's loop by a list. No
 * lock and no allocation between a kick and the submission: each queue has as many requests as
 * entries.
 *
 * Invariants:
 * (1) A chain that was popped is pushed exactly once: at once if it is malformed, else in done.
 * (2) The data iovecs given to the block layer point into guest memory and are not trimmed after
 *     the submission.
 * (3) Requests of a queue, its used ring and its free list are touched on its loop only.
 * (4) Requests in the free list are not in flight; a pop succeeds only if one is free, since a ring
 *     gives out no more chains than it has entries.
 */
#include "virtio.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "lodge/block.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

enum {
    BLK_QUEUES_MAX = 8,
    SECTOR = 512,
    SEG_MAX = VIRTIO_QUEUE_SIZE - 2, /* data segments: header and status take two */
    SEG_ROOM = SEG_MAX + 2 + 8,      /* pieces: some segments cross blocks of memory */
    SIZE_MAX_BYTES = 4 << 20,        /* of a segment: a chain stays under VIRTQ_BYTES_MAX */
    HDR_LEN = sizeof(struct virtio_blk_outhdr),
    RANGE_LEN = sizeof(struct virtio_blk_discard_write_zeroes),
    KICK_BATCH = VIRTIO_QUEUE_SIZE, /* requests a kick starts before others get a turn */
    LOOK_BATCH = 16, /* likewise of a ring that is polled: the guest adds more meanwhile */
    KICK_BYTES = 1 << 20, /* likewise, of data: copied at once they may take 250 us */
    TELL_BYTES = 256 << 10, /* who waits for so many hears at once that they are there */
    CONFIG_LEN = offsetof(struct virtio_blk_config, max_secure_erase_sectors),
    CLASS_SCSI_STORAGE = 0x010000,
};

_Static_assert(CONFIG_LEN <= VIRTIO_CONFIG_MAX, "configuration fits");
_Static_assert((uint64_t)SEG_MAX * SIZE_MAX_BYTES + SECTOR < VIRTQ_BYTES_MAX, "chain fits");

typedef struct VirtioBlk VirtioBlk;
typedef struct VirtioBlkReq VirtioBlkReq;

struct VirtioBlkReq {
    BlkReq req;
    VirtioBlk *blk; /* constant */
    unsigned queue; /* constant */
    int err;        /* of one that is handed back */
    VirtioBlkReq *next; /* in the free list, or among those handed back */
    VirtChain chain; /* arrays are slices of the queue's arenas */
    uint8_t *status; /* in guest memory */
    uint32_t data_len; /* bytes that a successful read writes */
};

typedef struct VirtioBlkQueue {
    VirtioBlkReq *reqs; /* owned array */
    struct iovec *iovs; /* owned: SEG_ROOM a request */
    MemPin *pins;       /* likewise */
    VirtioBlk *blk;     /* constant */
    BlkNode *node;      /* constant, borrowed: where its requests go */
    /* Its loop's thread: */
    VirtioBlkReq *free;
    bool done;          /* used entries are to be published */
    bool flush_posted;
    /* Any thread: requests handed back from the node's loop, the newest first */
    _Atomic(VirtioBlkReq *) back;
} VirtioBlkQueue;

struct VirtioBlk {
    VirtioDev v;
    /* Properties: */
    BlkNode *drive; /* borrowed from the board */
    char *serial;
    uint32_t queues, iothreads;
    /* Constant after realize: */
    BlkLimits limits; /* but for the size, which is the loop's */
    VirtioBlkQueue queue[BLK_QUEUES_MAX];
    /* Main thread, quiesced: */
    VirtioSaved saved;
};

static const VirtioFeature blk_features[] = {
    {VIRTIO_BLK_F_SIZE_MAX, "size_max", 0},
    {VIRTIO_BLK_F_SEG_MAX, "seg_max", 0},
    {VIRTIO_BLK_F_RO, "ro", 0},
    {VIRTIO_BLK_F_BLK_SIZE, "blk_size", 0},
    {VIRTIO_BLK_F_FLUSH, "flush", 0},
    {VIRTIO_BLK_F_TOPOLOGY, "topology", 0},
    {VIRTIO_BLK_F_MQ, "mq", 0},
    {VIRTIO_BLK_F_DISCARD, "discard", 0},
    {VIRTIO_BLK_F_WRITE_ZEROES, "write_zeroes", 0},
    {0, NULL, 0},
};

/* ---- completion ---- */

static void flush_used(VirtioBlkQueue *q)
{
    if (q->done)
        virtio_publish(&q->blk->v, (unsigned)(q - q->blk->queue));
    q->done = false;
}

static void flush_posted(void *opaque)
{
    VirtioBlkQueue *q = opaque;

    q->flush_posted = false;
    flush_used(q);
}

/* Keeps (1). @len: bytes written from the start of the writable part. */
static void finish(VirtioBlkReq *r, uint8_t status, uint32_t len)
{
    VirtioBlk *b = r->blk;
    VirtioBlkQueue *q = &b->queue[r->queue];

    *r->status = status;
    virtqueue_push_chain(&b->v.q[r->queue].vq, &r->chain, len);
    q->done = true;
    r->next = q->free;
    q->free = r;
}

static uint8_t status_of(int err)
{
    return err == 0 ? VIRTIO_BLK_S_OK
                    : err == ENOTSUP || err == ENOSYS ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR;
}

static void finish_request(VirtioBlkReq *r, uint8_t status)
{
    uint32_t data = status == VIRTIO_BLK_S_OK ? r->data_len : 0;

    /* The status byte counts only where nothing unwritten lies before it (2.7.8.2). */
    finish(r, status, r->chain.writable_len == data + 1 ? data + 1 : data);
}

/* @r is over; on its queue's loop. One publication for a round of these, but for large ones. */
static void complete(VirtioBlkReq *r, int err)
{
    VirtioBlk *b = r->blk;
    VirtioBlkQueue *q = &b->queue[r->queue];
    VirtioLane *lane = virtio_lane(&b->v, r->queue);

    finish_request(r, status_of(err));
    if (!lane->io || lane->stopping || lane->quieting || r->req.len >= TELL_BYTES) {
        flush_used(q);
    } else if (!q->flush_posted) {
        q->flush_posted = true;
        io_thread_post(lane->io, flush_posted, q);
    }
    virtio_lane_put(lane);
}

static void take_back(void *opaque)
{
    VirtioBlkQueue *q = opaque;
    /* Pairs with the push in hand_back(). */
    VirtioBlkReq *newest = atomic_exchange_explicit(&q->back, NULL, memory_order_acquire);
    VirtioBlkReq *oldest = NULL;

    while (newest) {
        VirtioBlkReq *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        VirtioBlkReq *next = oldest->next;

        complete(oldest, oldest->err);
        oldest = next;
    }
}

/* Keeps (3). The push that finds the list empty posts; the device stays while a request is out. */
static void hand_back(VirtioBlkReq *r, int err)
{
    VirtioBlkQueue *q = &r->blk->queue[r->queue];
    VirtioBlkReq *head = atomic_load_explicit(&q->back, memory_order_relaxed);

    r->err = err;
    do
        r->next = head;
    while (!atomic_compare_exchange_weak_explicit(&q->back, &head, r, memory_order_release,
                                                  memory_order_relaxed));
    if (!head)
        io_thread_post(virtio_lane(&r->blk->v, r->queue)->io, take_back, q);
}

/* Block layer: @req is done. Context: the queue's loop, or the node's. */
static void blk_done(BlkReq *req, int err)
{
    VirtioBlkReq *r = req->opaque;

    if (virtio_here(&r->blk->v, r->queue))
        complete(r, err);
    else
        hand_back(r, err);
}

/* ---- requests ---- */

static void submit(VirtioBlkReq *r, BlkOp op, uint64_t offset, uint64_t len)
{
    VirtioBlk *b = r->blk;

    r->req.op = op;
    r->req.offset = offset;
    r->req.len = len;
    r->req.done = blk_done;
    r->req.opaque = r;
    virtio_lane_get(virtio_lane(&b->v, r->queue));
    blk_submit(b->queue[r->queue].node, &r->req);
}

/* Whether sectors from @sector on are on the disk; their place in bytes. */
static bool sectors_ok(const VirtioBlk *b, uint64_t sector, uint64_t bytes, uint64_t *ret_offset)
{
    return u64_mul_ok(sector, SECTOR, ret_offset) &&
           range_within(*ret_offset, bytes, b->limits.size);
}

static void start_rw(VirtioBlkReq *r, bool write, uint64_t sector, struct iovec *iov, unsigned n,
                     uint64_t len)
{
    VirtioBlk *b = r->blk;
    uint64_t offset;

    if (len % SECTOR || !sectors_ok(b, sector, len, &offset) ||
        (write && b->limits.read_only)) {
        finish_request(r, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (!len) {
        finish_request(r, VIRTIO_BLK_S_OK);
        return;
    }
    r->req.iov = iov;
    r->req.niov = n;
    r->req.fua = write && !virtio_has(&b->v, VIRTIO_BLK_F_FLUSH);
    r->data_len = write ? 0 : (uint32_t)len;
    submit(r, write ? BLK_WRITE : BLK_READ, offset, len);
}

/* 5.2.6.2: discard and write-zeroes carry ranges; one, as the configuration says. */
static void start_range(VirtioBlkReq *r, uint32_t type, const struct iovec *iov, unsigned n,
                        uint64_t len)
{
    VirtioBlk *b = r->blk;
    struct virtio_blk_discard_write_zeroes range;
    bool zeroes = type == VIRTIO_BLK_T_WRITE_ZEROES;
    uint64_t offset, bytes;

    if (!virtio_has(&b->v, zeroes ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD)) {
        finish_request(r, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    if (len != RANGE_LEN || virtq_from_iov(iov, n, 0, &range, RANGE_LEN) != RANGE_LEN) {
        finish_request(r, VIRTIO_BLK_S_IOERR);
        return;
    }
    if (range.flags & ~(zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0)) {
        finish_request(r, VIRTIO_BLK_S_UNSUPP);
        return;
    }
    bytes = (uint64_t)range.num_sectors * SECTOR;
    if (!bytes || bytes > b->limits.discard_max || b->limits.read_only ||
        !sectors_ok(b, range.sector, bytes, &offset)) {
        finish_request(r, VIRTIO_BLK_S_IOERR);
        return;
    }
    r->req.may_unmap = range.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    submit(r, zeroes ? BLK_ZERO : BLK_DISCARD, offset, bytes);
}

static void give_id(VirtioBlkReq *r, const struct iovec *iov, unsigned n)
{
    char id[VIRTIO_BLK_ID_BYTES] = {0};

    if (r->blk->serial)
        memcpy(id, r->blk->serial, strnlen(r->blk->serial, sizeof id));
    r->data_len = (uint32_t)virtq_to_iov(iov, n, 0, id, sizeof id);
    finish_request(r, VIRTIO_BLK_S_OK);
}

/* A chain was popped into @r: take it apart, wherever header and status lie in it. */
static void start_request(VirtioBlkReq *r)
{
    VirtioBlk *b = r->blk;
    VirtChain *c = &r->chain;
    struct iovec *in = c->iov + c->readable, *out = c->iov;
    unsigned nin = c->writable, nout = c->readable;
    struct virtio_blk_outhdr hdr;
    struct iovec *last;

    r->req.iov = NULL;
    r->req.niov = 0;
    r->req.fua = r->req.may_unmap = false;
    r->data_len = 0;
    last = &in[nin - 1];
    r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
    virtq_trim_back(in, &nin, 1);
    (void)virtq_from_iov(out, nout, 0, &hdr, HDR_LEN); /* its length was checked */
    virtq_trim_front(&out, &nout, HDR_LEN);
    switch (hdr.type) {
    case VIRTIO_BLK_T_IN:
        start_rw(r, false, hdr.sector, in, nin, c->writable_len - 1);
        break;
    case VIRTIO_BLK_T_OUT:
        start_rw(r, true, hdr.sector, out, nout, c->readable_len - HDR_LEN);
        break;
    case VIRTIO_BLK_T_FLUSH:
        submit(r, BLK_FLUSH, 0, 0);
        break;
    case VIRTIO_BLK_T_GET_ID:
        give_id(r, in, nin);
        break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        start_range(r, hdr.type, out, nout, c->readable_len - HDR_LEN);
        break;
    default:
        guest_fault(&b->v.pci.dev, "request of unknown type %u", hdr.type);
        finish_request(r, VIRTIO_BLK_S_UNSUPP);
        break;
    }
}

/* False when there was nothing, or the device broke. Adds to @bytes what is to be moved. */
static bool take_one(VirtioBlk *b, unsigned qi, uint64_t *bytes)
{
    VirtioBlkQueue *q = &b->queue[qi];
    VirtioBlkReq *r = q->free;

    if (!r) { /* every entry is out, see (4) */
        if (virtqueue_has_more(&b->v.q[qi].vq))
            virtio_break(&b->v, "more requests offered than the ring has entries");
        return false;
    }
    if (!virtio_pop(&b->v, qi, &r->chain))
        return false;
    if (r->chain.readable_len < HDR_LEN || !r->chain.writable_len) {
        virtqueue_push_chain(&b->v.q[qi].vq, &r->chain, 0);
        q->done = true;
        virtio_break(&b->v, "block request without header or status");
        return false;
    }
    q->free = r->next;
    *bytes += r->chain.readable_len + r->chain.writable_len;
    start_request(r);
    return true;
}

static void blk_kick(VirtioDev *vd, unsigned qi)
{
    VirtioBlk *b = (VirtioBlk *)vd;
    VirtioLane *lane = virtio_lane(vd, qi);
    unsigned n = 0, most = lane->poll ? LOOK_BATCH : KICK_BATCH;
    uint64_t bytes = 0;

    do {
        virtio_notify_off(vd, qi);
        while (n < most && bytes < KICK_BYTES && take_one(b, qi, &bytes))
            n++;
    } while (n < most && bytes < KICK_BYTES && !vd->broken && virtio_notify_on(vd, qi));
    if (bytes >= KICK_BYTES && lane->io)
        io_thread_others_first(lane->io);
    if ((n == most || bytes >= KICK_BYTES) && !lane->poll)
        virtio_kick_again(vd, qi);
    flush_used(&b->queue[qi]);
}

/* Used entries are published before the main thread hears that the device is quiet: it may take
 * the rings away then, and a snapshot saves their indices. */
static void blk_quieted(VirtioDev *vd)
{
    VirtioBlk *b = (VirtioBlk *)vd;

    for (unsigned i = 0; i < vd->queues; i++) {
        if (virtio_here(vd, i))
            flush_used(&b->queue[i]);
    }
}

static const VirtioClass blk_virtio = {
    .name = "virtio-blk",
    .type = VIRTIO_ID_BLOCK,
    .class_code = CLASS_SCSI_STORAGE,
    .features = blk_features,
    .kick = blk_kick,
    .polled = true,
    .quieted = blk_quieted,
};

/* ---- device ---- */

static void blk_free_queues(VirtioBlk *b)
{
    for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
        g_clear_pointer(&b->queue[i].reqs, g_free);
        g_clear_pointer(&b->queue[i].iovs, g_free);
        g_clear_pointer(&b->queue[i].pins, g_free);
        b->queue[i].free = NULL;
    }
}

/* Arenas are touched only as far as requests are in flight at once. */
static void blk_make_queue(VirtioBlk *b, unsigned qi)
{
    VirtioBlkQueue *q = &b->queue[qi];

    q->blk = b;
    q->reqs = g_new0(VirtioBlkReq, VIRTIO_QUEUE_SIZE);
    q->iovs = g_new(struct iovec, (size_t)VIRTIO_QUEUE_SIZE * SEG_ROOM);
    q->pins = g_new(MemPin, (size_t)VIRTIO_QUEUE_SIZE * SEG_ROOM);
    for (unsigned i = VIRTIO_QUEUE_SIZE; i-- > 0;) {
        VirtioBlkReq *r = &q->reqs[i];

        r->blk = b;
        r->queue = qi;
        r->chain.iov = q->iovs + (size_t)i * SEG_ROOM;
        r->chain.pins = q->pins + (size_t)i * SEG_ROOM;
        r->chain.max = SEG_ROOM;
        r->next = q->free;
        q->free = r;
    }
}

/* Give each queue its loop, and the node that takes its requests there. */
static bool blk_make_lanes(VirtioBlk *b, IoThread *io, GError **error)
{
    Board *board = b->v.pci.dev.board;
    IoThread *loops[BLK_QUEUES_MAX] = {io};
    unsigned n = io && board->disk_loop ? b->iothreads : 1;

    for (unsigned i = 1; i < n; i++) {
        loops[i] = board->disk_loop(board, i - 1, error);
        if (!loops[i])
            return false;
    }
    virtio_set_lanes(&b->v, loops, n, 1);
    for (unsigned i = 0; i < b->queues; i++) {
        b->queue[i].node = i % n ? blk_side(b->drive, loops[i % n], error) : b->drive;
        if (!b->queue[i].node)
            return false;
    }
    return true;
}

static uint64_t blk_configure(VirtioBlk *b)
{
    const BlkLimits *l = &b->limits;
    uint32_t sectors = (uint32_t)MIN(l->discard_max / SECTOR, UINT32_MAX / SECTOR);
    uint64_t f = VIRTIO_BIT(VIRTIO_BLK_F_SIZE_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) |
                 VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |
                 VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY);
    uint32_t physical = MAX(l->physical, l->align);
    struct virtio_blk_config c = {
        .capacity = l->size / SECTOR,
        .size_max = SIZE_MAX_BYTES,
        .seg_max = l->max_iov ? MIN(l->max_iov, SEG_MAX) : SEG_MAX,
        .blk_size = l->align,
        .physical_block_exp = (uint8_t)__builtin_ctz(physical / l->align),
        .min_io_size = (uint16_t)(physical / l->align),
        .opt_io_size = l->block > l->align ? l->block / l->align : 0,
        .num_queues = (uint16_t)b->queues,
    };

    if (b->queues > 1)
        f |= VIRTIO_BIT(VIRTIO_BLK_F_MQ);
    if (l->read_only)
        f |= VIRTIO_BIT(VIRTIO_BLK_F_RO);
    if (sectors && !l->read_only) {
        f |= VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) | VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
        c.max_discard_sectors = c.max_write_zeroes_sectors = sectors;
        c.max_discard_seg = c.max_write_zeroes_seg = 1;
        c.discard_sector_alignment = l->align / SECTOR;
        c.write_zeroes_may_unmap = 1;
    }
    memcpy(b->v.config, &c, CONFIG_LEN);
    return f;
}

static bool blk_realize(Device *d, GError **error)
{
    VirtioBlk *b = (VirtioBlk *)d;
    IoThread *io;

    if (!b->drive)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: needs drive=NAME", d->id);
    if (!b->queues)
        b->queues = CLAMP(MAX(d->board->cpus, b->iothreads), 1, BLK_QUEUES_MAX);
    if (b->iothreads > b->queues)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: iothreads=%u: more than its %u queues; a queue has one loop", d->id,
                          b->iothreads, b->queues);
    blk_limits(b->drive, &b->limits);
    io = blk_io_thread(b->drive);
    if (!io)
        io = d->board->io;
    for (unsigned i = 0; i < b->queues; i++)
        blk_make_queue(b, i);
    if (blk_make_lanes(b, io, error) &&
        virtio_realize(&b->v, &blk_virtio, io, blk_configure(b), b->queues, VIRTIO_QUEUE_SIZE,
                       CONFIG_LEN, error))
        return true;
    blk_free_queues(b);
    return false;
}

/* Context: the loop. */
static void take_size(void *opaque)
{
    VirtioBlk *b = opaque;
    BlkLimits l;

    blk_limits(b->drive, &l);
    b->limits.size = l.size;
}

/* 5.2.4: capacity may change while the driver is at work; it hears by a configuration change. */
static void blk_resized(Device *d)
{
    VirtioBlk *b = (VirtioBlk *)d;
    uint8_t capacity[8];

    io_thread_call(blk_io_thread(b->drive), take_size, b);
    store_le64(capacity, b->limits.size / SECTOR);
    virtio_config_set(&b->v, offsetof(struct virtio_blk_config, capacity), capacity,
                      sizeof capacity);
}

static void blk_unrealize(Device *d)
{
    VirtioBlk *b = (VirtioBlk *)d;

    virtio_unrealize(&b->v);
    blk_free_queues(b);
}

static void blk_pre_save(void *obj)
{
    VirtioBlk *b = obj;

    virtio_pre_save(&b->v, &b->saved);
}

static bool blk_post_load(void *obj, unsigned version, GError **error)
{
    VirtioBlk *b = obj;

    return virtio_post_load(&b->v, &b->saved, error);
}

static const StateField blk_fields[] = {
    {"transport", ST_SUB, 1, 0, sizeof(VirtioSaved), 1, 0, &virtio_saved_state, NULL},
    ST_END,
};
static const StateDesc blk_state = {
    .name = "virtio-blk-pci",
    .version = 1,
    .oldest = 1,
    .regs_offset = offsetof(VirtioBlk, saved),
    .regs_size = sizeof(VirtioSaved),
    .fields = blk_fields,
    .pre_save = blk_pre_save,
    .post_load = blk_post_load,
};

static const PropSpec blk_props[] = {
    {"drive", "disk image that it shows", PROP_BLK, offsetof(VirtioBlk, drive), 0, 0, NULL},
    {"serial", "serial number, at most 20 bytes", PROP_STRING, offsetof(VirtioBlk, serial), 0,
     VIRTIO_BLK_ID_BYTES, NULL},
    {"queues", "request queues; 0: one a CPU, at most 8", PROP_U32, offsetof(VirtioBlk, queues), 0,
     BLK_QUEUES_MAX, "0"},
    {"iothreads", "host threads that serve its queues, at most one a queue",
     PROP_U32, offsetof(VirtioBlk, iothreads), 1, VIRTIO_LANES_MAX, "1"},
    {0},
};

const DeviceClass virtio_blk_pci_class = {
    .name = "virtio-blk-pci",
    .bus = "pci",
    .help = "virtio 1.0 block device",
    .boot = 'c',
    .instance_size = sizeof(VirtioBlk),
    .props = blk_props,
    .state = &blk_state,
    .realize = blk_realize,
    .reset = virtio_reset,
    .quiesce = virtio_quiesce,
    .resume = virtio_resume,
    .unrealize = blk_unrealize,
    .medium_resized = blk_resized,
};
