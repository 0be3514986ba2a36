/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drives a virtio 1.0 block device (1af4:1042) on PCI bus 0 from ring 3, which runs at the CPU's own
 * speed wherever there is a /dev/kvm (virtio.h has how).
 *
 * Arguments:
 *   tests=KSIZE-DEPTH,...  K: r or w, random reads and writes at multiples of SIZE; R or W, the same in
 *                          order; f, one write in each 64 KiB, each place once, in mixed order;
 *                          v, writes all of the region with a pattern, and reads it back. SIZE: 4k, 1m
 *   ms=N      how long each takes (1000); f and v end when they are through
 *   mib=N     only the first N MiB of the disk (all)
 *   queues=N  takes turns with so many queues (1)
 * It prints "NAME ops N cycles N kicks N" for each, after one line "tsc N Hz", found by means of the PIT.
 * Spec: Virtual I/O Device 1.2, 5.2 "Block Device".
 */
#include "virtio.h"

enum {
    QUEUES = 8,
    SLOTS = 128,
    SECTOR = 512,
    BLOCK_MAX = 1 << 20,
    PLACE = 65536, /* of an "f" test */
    BUFFERS_AT = 16 << 20,
    F_BLK_FLUSH = 1 << 9, /* without it each write would go to the medium */
    F_BLK_MQ = 1 << 12,
    T_IN = 0,
    T_OUT = 1,
    PIT_TICKS = 60000,
};

typedef struct Slot {
    Desc table[3];
    struct {
        u32 type, priority;
        u64 sector;
    } head;
    u64 number; /* of the request, for the pattern */
    u8 status;
} Slot;
static Virtio drive;
static Queue queue[QUEUES] __attribute__((aligned(4096)));
static Slot slot[SLOTS] __attribute__((aligned(128)));
static unsigned queues;
static u64 disk_bytes, tsc_hz;

/* The test under way. */
static char kind;
static u32 size, seed = 1;
static u64 places, started, finished, limit, next_place;

static void start_drive(void)
{
    virtio_find(&drive, 0x10421af4, "virtio-blk");
    CHECK(drive.offered & F_INDIRECT, "no indirect descriptors");
    virtio_accept(&drive, drive.offered & (F_INDIRECT | F_BLK_FLUSH |
                                           (arg_has("noevent") ? 0 : F_EVENT_IDX) |
                                           (queues > 1 ? F_BLK_MQ : 0)), 0);
    CHECK(queues == 1 ||
              ((drive.offered & F_BLK_MQ) && mmio_read16(drive.config + 34) >= queues),
          "the device has not %u queues", queues);
    for (unsigned i = 0; i < queues; i++)
        virtio_start_queue(&drive, &queue[i], i);
    virtio_go(&drive);
    disk_bytes = ((u64)mmio_read32(drive.config + 4) << 32 | mmio_read32(drive.config)) * SECTOR;
}

/* ---- requests ---- */

static u8 *buffer(unsigned s)
{
    return (u8 *)(ulong)(BUFFERS_AT + (ulong)s * size);
}

static u32 word_of(u64 place, u32 i)
{
    return (u32)(place * 2654435761u) ^ (i * 40503u) ^ 0x5bd1e995u;
}

static u64 place_of(u64 n)
{
    if (kind == 'r' || kind == 'w') {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        return (seed * places) >> 32;
    }
    if (kind == 'f') /* an odd factor permutes the numbers below a power of two */
        return (n * 0x9e3779b1u) & (places - 1);
    return n % places;
}

static void put(unsigned s, bool write)
{
    Slot *r = &slot[s];
    u64 at = place_of(r->number = next_place++) * (kind == 'f' ? PLACE : size);

    r->head.type = write ? T_OUT : T_IN;
    r->head.sector = at / SECTOR;
    r->table[1].flags = DESC_NEXT | (write ? 0 : DESC_WRITE);
    r->status = 0xff;
    virtio_offer(&queue[s % queues], s / queues);
    started++;
}

static void fill(unsigned s)
{
    u32 *w = (u32 *)(void *)buffer(s);

    for (u32 i = 0; i < size / 4; i++)
        w[i] = word_of(next_place, i);
}

static void compare(unsigned s)
{
    u32 *w = (u32 *)(void *)buffer(s);

    for (u32 i = 0; i < size / 4; i++)
        CHECK(w[i] == word_of(slot[s].number, i), "request %Q: word %u is %x", slot[s].number, i, w[i]);
}

/* Start requests until @limit of them were started or @ticks passed; wait for all. */
static u64 run(unsigned depth, bool write, bool pattern, u64 ticks)
{
    u64 begin = rdtsc(), last = begin;

    started = finished = drive.kicks = next_place = 0;
    for (unsigned s = 0; s < depth && started < limit; s++) {
        if (write && pattern)
            fill(s);
        put(s, write);
    }
    for (unsigned i = 0; i < queues; i++)
        virtio_tell(&drive, &queue[i]);
    while (finished < started) {
        u64 now = rdtsc(), before = finished;
        bool more = now - begin < ticks;

        for (unsigned i = 0; i < queues; i++) {
            Queue *q = &queue[i];
            for (u16 idx = q->used.idx; q->seen != idx; q->seen++) {
                unsigned s = q->used.ring[q->seen % QSIZE].id * queues + i;
                CHECK(s < depth, "used entry names %u", s);
                CHECK(!slot[s].status, "request at sector %Q: status %u", slot[s].head.sector,
                      slot[s].status);
                finished++;
                if (pattern && !write)
                    compare(s);
                if (more && started < limit) {
                    if (pattern && write)
                        fill(s);
                    put(s, write);
                }
            }
            virtio_tell(&drive, q);
        }
        if (finished != before)
            last = now;
        else
            cpu_relax();
        CHECK(now - last < 20 * TSC_SECOND, "the device is silent: %Q of %Q", finished, started);
    }
    return rdtsc() - begin;
}

static void test(const char *name, unsigned depth, u64 region)
{
    bool write = kind == 'w' || kind == 'W' || kind == 'f';
    u64 ticks = tsc_hz / 1000 * arg_num("ms", 1000), cycles;

    CHECK(depth && depth <= SLOTS && (u64)depth * size <= 64 << 20, "%s: depth %u", name, depth);
    places = region / (kind == 'f' ? PLACE : size);
    limit = ~0ull;
    for (unsigned s = 0; s < depth; s++) {
        Slot *r = &slot[s];
        r->table[0] = (Desc){(ulong)&r->head, sizeof r->head, DESC_NEXT, 1};
        r->table[1] = (Desc){(ulong)buffer(s), size, 0, 2};
        r->table[2] = (Desc){(ulong)&r->status, 1, DESC_WRITE, 0};
        queue[s % queues].desc[s / queues] =
            (Desc){(ulong)r->table, sizeof r->table, DESC_INDIRECT, 0};
        if (kind != 'v') {
            next_place = s;
            fill(s);
        }
    }
    if (kind == 'f') {
        while (places & (places - 1))
            places &= places - 1;
        limit = places;
    }
    if (kind == 'v') {
        limit = places;
        run(depth, true, true, ~0ull);
        limit = places;
        cycles = run(depth, false, true, ~0ull);
    } else {
        cycles = run(depth, write, false, kind == 'f' ? ~0ull : ticks);
    }
    say("%s ops %Q cycles %Q kicks %Q\n", name, finished, cycles, drive.kicks);
}

static void user(void)
{
    char list[200], *p = list;
    u64 region;

    tsc_hz = pit2_measure(PIT_TICKS) * PIT_HZ / PIT_TICKS;
    start_drive();
    region = (u64)arg_num("mib", 0) << 20;
    if (!region || region > disk_bytes)
        region = disk_bytes;
    say("tsc %Q Hz\n", tsc_hz);
    CHECK(arg_str("tests", list, sizeof list), "no tests=");
    while (*p) {
        char *name = p;
        u32 depth = 0;

        kind = *p++;
        for (size = 0; *p >= '0' && *p <= '9'; p++)
            size = size * 10 + (u32)(*p - '0');
        size <<= *p == 'm' ? 20 : 10;
        CHECK((*p == 'k' || *p == 'm') && size && size <= BLOCK_MAX && p[1] == '-', "tests=: %s", name);
        for (p += 2; *p >= '0' && *p <= '9'; p++)
            depth = depth * 10 + (u32)(*p - '0');
        if (*p)
            *p++ = 0;
        test(name, depth, region);
    }
    pass();
}

void guest_main(void)
{
    static u8 stack[16384] __attribute__((aligned(16)));

    queues = arg_num("queues", 1);
    CHECK(queues && queues <= QUEUES, "queues=%u", queues);
    ring3_enter(user, (ulong)(stack + sizeof stack - 8));
}
