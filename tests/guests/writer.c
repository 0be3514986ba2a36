/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes to a virtio disk until it is stopped, and says after each flush how many writes the disk
 * has for good ("F n"). Who kills the machine computes from the numbers what the disk must hold:
 * write i goes to one of 8 slices of the disk, place, length and kind come from hash(i), and the
 * first and the last word of each sector are i, or 0 where it is a write of zeros.
 *
 * Up to 8 writes are under way at once, in slices of their own, and a flush runs beside the writes
 * after it. Arguments: sectors= of the disk; first= number of the first write.
 * Spec: VIRTIO 1.2, 5.2.6 (block device operation); virtio.h has the rest.
 */
#include "virtio.h"

enum {
    SLICES = 8,
    LEN_MAX = 12, /* sectors of a write */
    CHAIN = LEN_MAX + 2,
    FLUSH_SLOT = SLICES,
    BLK_OUT = 1,
    BLK_FLUSH = 4,
    BLK_WRITE_ZEROES = 13,
    F_FLUSH = 1 << 9,
    F_WRITE_ZEROES = 1 << 14,
    STUCK_SECONDS = 20
};

typedef struct Request {
    u32 type, reserved;
    u64 sector;
    u64 zero_sector; /* struct virtio_blk_discard_write_zeroes */
    u32 zero_count, zero_flags;
    u8 status;
    u32 data[128]; /* of every sector of the write */
} Request;

static Request requests[SLICES + 1] __attribute__((aligned(16)));
static bool busy[SLICES + 1];
static u32 sectors;
static Virtio disk;
static Queue queue __attribute__((aligned(16)));

static u32 hash(u32 i)
{
    i = (i ^ i >> 16) * 0x7feb352du;
    i = (i ^ i >> 15) * 0x846ca68bu;
    return i ^ i >> 16;
}

static void disk_start(void)
{
    virtio_find(&disk, 0x10421af4, "virtio disk");
    CHECK((disk.offered & F_FLUSH) && (disk.offered & F_WRITE_ZEROES), "features %x", disk.offered);
    virtio_accept(&disk, F_FLUSH | F_WRITE_ZEROES, 0);
    virtio_start_queue(&disk, &queue, 0);
    virtio_go(&disk);
}

/* Offer the request of @slot with @n sectors of data, or with what WRITE ZEROES says. */
static void offer(unsigned slot, u32 n)
{
    Request *r = &requests[slot];
    u16 head = (u16)(slot * CHAIN), at = head;

    queue.desc[at] = (Desc){(ulong)&r->type, 16, DESC_NEXT, (u16)(at + 1)};
    at++;
    for (u32 i = 0; i < n; i++, at++)
        queue.desc[at] = (Desc){(ulong)r->data, 512, DESC_NEXT, (u16)(at + 1)};
    if (r->type == BLK_WRITE_ZEROES) {
        queue.desc[at] = (Desc){(ulong)&r->zero_sector, 16, DESC_NEXT, (u16)(at + 1)};
        at++;
    }
    r->status = 0xff;
    queue.desc[at] = (Desc){(ulong)&r->status, 1, DESC_WRITE, 0};
    busy[slot] = true;
    virtio_offer(&queue, head);
}

static void reap(void)
{
    while (queue.seen != queue.used.idx) {
        unsigned slot = queue.used.ring[queue.seen++ % QSIZE].id / CHAIN;
        CHECK(busy[slot], "an answer to nothing, slot %u", slot);
        CHECK(requests[slot].status == 0, "slot %u: status %u", slot, requests[slot].status);
        busy[slot] = false;
    }
}

static void offer_write(u32 i)
{
    unsigned slot = i % SLICES;
    Request *r = &requests[slot];
    u32 h = hash(i), slice = sectors / SLICES, n = 1 + h % LEN_MAX;
    u32 at = slot * slice + (h >> 4) % (slice - LEN_MAX);

    if (h >> 28 == 0) {
        r->type = BLK_WRITE_ZEROES;
        r->sector = 0;
        r->zero_sector = at;
        r->zero_count = n;
        r->zero_flags = h >> 27 & 1; /* unmap */
        offer(slot, 0);
        return;
    }
    r->type = BLK_OUT;
    r->sector = at;
    r->data[0] = r->data[127] = i;
    offer(slot, n);
}

/* Until the slots [@from, @to) are free. */
static void wait_for(unsigned from, unsigned to)
{
    u64 t = rdtsc();

    for (unsigned slot = from; slot < to; slot++)
        while (busy[slot]) {
            reap();
            CHECK(rdtsc() - t < STUCK_SECONDS * TSC_SECOND, "slot %u: no answer", slot);
        }
}

void guest_main(void)
{
    u32 i = arg_num("first", 1), written = i - 1, flushing = 0;

    sectors = arg_num("sectors", 16384);
    disk_start();
    for (;;) {
        u32 batch = 1 + hash(~i) % SLICES;
        for (u32 k = 0; k < batch; k++)
            offer_write(i++);
        if (!flushing && hash(i) % 4 == 0 && written) {
            flushing = written;
            requests[FLUSH_SLOT].type = BLK_FLUSH;
            requests[FLUSH_SLOT].sector = 0;
            offer(FLUSH_SLOT, 0);
        }
        virtio_tell(&disk, &queue);
        wait_for(0, SLICES);
        written = i - 1;
        reap();
        if (flushing && !busy[FLUSH_SLOT]) {
            say("F %u\n", flushing);
            flushing = 0;
        }
    }
}
