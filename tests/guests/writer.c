/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes to a virtio disk until it is stopped, and says after each flush how many writes the disk
 * has for good ("F n"). Who kills the machine computes from the numbers what the disk must hold:
 * write i goes to one of 8 slices of the disk, place, length and kind come from hash(i), and the
 * first and the last word of each sector are i, or 0 where it is a write of zeros.
 *
 * Up to 8 writes are under way at once, in slices of their own, and a flush runs beside the writes
 * after it. Arguments: sectors= of the disk; first= number of the first write.
 * Spec: VIRTIO 1.2, 2.7 (split virtqueues), 4.1.4 (PCI), 5.2.6 (block device operation).
 */
#include "lib.h"

enum {
    QSIZE = 128,
    SLICES = 8,
    LEN_MAX = 12, /* sectors of a write */
    CHAIN = LEN_MAX + 2,
    FLUSH_SLOT = SLICES,
    BLK_OUT = 1,
    BLK_FLUSH = 4,
    BLK_WRITE_ZEROES = 13,
    F_FLUSH = 1 << 9,
    F_WRITE_ZEROES = 1 << 14,
    NEXT = 1,
    DEVICE_WRITES = 2,
    STUCK_SECONDS = 20
};

typedef struct Desc {
    u64 addr;
    u32 len;
    u16 flags, next;
} Desc;
typedef struct Request {
    u32 type, reserved;
    u64 sector;
    u64 zero_sector; /* struct virtio_blk_discard_write_zeroes */
    u32 zero_count, zero_flags;
    u8 status;
    u32 data[128]; /* of every sector of the write */
} Request;

static Desc desc[QSIZE] __attribute__((aligned(16)));
static struct {
    u16 flags, idx, ring[QSIZE], used_event;
} avail __attribute__((aligned(2)));
static volatile struct {
    u16 flags, idx;
    struct {
        u32 id, len;
    } ring[QSIZE];
} used __attribute__((aligned(4)));
static Request requests[SLICES + 1] __attribute__((aligned(16)));
static bool busy[SLICES + 1];
static ulong kick_at;
static u16 taken;
static unsigned dev;
static u32 next_bar = 0xfe000000, sectors;

static u32 hash(u32 i)
{
    i = (i ^ i >> 16) * 0x7feb352du;
    i = (i ^ i >> 15) * 0x846ca68bu;
    return i ^ i >> 16;
}

static ulong bar_base(unsigned bar)
{
    unsigned reg = 0x10 + 4 * bar;
    u32 v = pci_read(dev, 0, reg);

    if (!(v & ~15u)) {
        pci_write(dev, 0, reg, ~0u);
        u32 size = ~(pci_read(dev, 0, reg) & ~15u) + 1;
        next_bar = (next_bar + size - 1) & ~(size - 1);
        pci_write(dev, 0, reg, v = next_bar);
        next_bar += size;
        if ((pci_read(dev, 0, reg) & 6) == 4)
            pci_write(dev, 0, reg + 4, 0);
    }
    return v & ~15u;
}

static void disk_start(void)
{
    ulong common = 0, notify = 0;
    u32 multiplier = 0;

    for (dev = 0; dev < 32; dev++)
        if (pci_read(dev, 0, 0) == 0x10421af4)
            break;
    CHECK(dev < 32, "no virtio disk on bus 0");
    for (u32 cap = pci_read(dev, 0, 0x34) & 0xfc; cap; cap = pci_read(dev, 0, cap) >> 8 & 0xfc) {
        u32 v = pci_read(dev, 0, cap), bar = pci_read(dev, 0, cap + 4) & 0xff;
        if ((v & 0xff) != 9)
            continue;
        if (v >> 24 == 1 && !common)
            common = bar_base(bar) + pci_read(dev, 0, cap + 8);
        if (v >> 24 == 2 && !notify) {
            notify = bar_base(bar) + pci_read(dev, 0, cap + 8);
            multiplier = pci_read(dev, 0, cap + 16);
        }
    }
    CHECK(common && notify, "a capability is missing");
    pci_write(dev, 0, 4, (pci_read(dev, 0, 4) & 0xffff) | 6 | 1 << 10);
    mmio_write8(common + 20, 0);
    while (mmio_read8(common + 20))
        cpu_relax();
    mmio_write8(common + 20, 3);
    mmio_write32(common + 0, 0);
    u32 features = mmio_read32(common + 4);
    CHECK((features & F_FLUSH) && (features & F_WRITE_ZEROES), "features %x", features);
    mmio_write32(common + 8, 0);
    mmio_write32(common + 12, F_FLUSH | F_WRITE_ZEROES);
    mmio_write32(common + 8, 1);
    mmio_write32(common + 12, 1);
    mmio_write8(common + 20, 11);
    CHECK(mmio_read8(common + 20) & 8, "FEATURES_OK does not stay");
    mmio_write16(common + 22, 0);
    mmio_write16(common + 24, QSIZE);
    ulong parts[3] = {(ulong)desc, (ulong)&avail, (ulong)&used};
    for (unsigned i = 0; i < 3; i++) {
        mmio_write32(common + 32 + 8 * i, (u32)parts[i]);
        mmio_write32(common + 36 + 8 * i, 0);
    }
    kick_at = notify + mmio_read16(common + 30) * multiplier;
    avail.flags = 1; /* no interrupts */
    mmio_write16(common + 28, 1);
    mmio_write8(common + 20, 15);
}

/* Offer the request of @slot with @n sectors of data, or with what WRITE ZEROES says. */
static void offer(unsigned slot, u32 n)
{
    Request *r = &requests[slot];
    u16 head = (u16)(slot * CHAIN), at = head;

    desc[at] = (Desc){(ulong)&r->type, 16, NEXT, (u16)(at + 1)};
    at++;
    for (u32 i = 0; i < n; i++, at++)
        desc[at] = (Desc){(ulong)r->data, 512, NEXT, (u16)(at + 1)};
    if (r->type == BLK_WRITE_ZEROES) {
        desc[at] = (Desc){(ulong)&r->zero_sector, 16, NEXT, (u16)(at + 1)};
        at++;
    }
    r->status = 0xff;
    desc[at] = (Desc){(ulong)&r->status, 1, DEVICE_WRITES, 0};
    busy[slot] = true;
    avail.ring[avail.idx % QSIZE] = head;
    __asm__ volatile("" : : : "memory");
    avail.idx++;
}

static void kick(void)
{
    __asm__ volatile("" : : : "memory");
    mmio_write16(kick_at, 0);
}

static void reap(void)
{
    while (taken != used.idx) {
        unsigned slot = used.ring[taken++ % QSIZE].id / CHAIN;
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
        kick();
        wait_for(0, SLICES);
        written = i - 1;
        reap();
        if (flushing && !busy[FLUSH_SLOT]) {
            say("F %u\n", flushing);
            flushing = 0;
        }
    }
}
