/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A virtio network card (1AF4:1041), driven by polling: answers ARP and ICMP echo requests for
 * ip=ADDR until n=COUNT were answered or a datagram to port 9 says "bye"; with ping=ADDR it asks
 * that address n times instead. With cards=COUNT so many do this, one after the other in the order
 * of their PCI slots, and there is no further one. No offloads, one frame in one buffer. Spec:
 * Virtual I/O Device 1.2, sections 2.7, 4.1 and 5.1.
 */
#include "lib.h"

enum {
    SLOTS = 32,
    QUEUE = 16,
    BUF = 2048,
    HDR = 12,
    ETH = 14,
    IP = 20,
    ICMP = 8,
    RX = 0,
    TX = 1,
    /* common configuration */
    FEATURE_SEL = 8,
    FEATURE = 12,
    STATUS = 20,
    Q_SEL = 22,
    Q_SIZE = 24,
    Q_ENABLE = 28,
    Q_NOTIFY = 30,
    Q_DESC = 32,
    Q_AVAIL = 40,
    Q_USED = 48,
    F_MAC = 1 << 5,
    F_STATUS = 1 << 16,
    F_VERSION_1 = 1, /* of the upper half */
};

typedef struct Ring {
    struct {
        u64 addr;
        u32 len;
        u16 flags, next;
    } desc[QUEUE];
    struct {
        u16 flags, idx, ring[QUEUE];
    } avail;
    u16 pad[2];
    struct {
        volatile u16 flags, idx;
        struct {
            u32 id, len;
        } ring[QUEUE];
    } used __attribute__((aligned(16)));
    u16 seen;
} Ring;

static Ring rings[2] __attribute__((aligned(4096)));
static u8 bufs[2][QUEUE][BUF] __attribute__((aligned(16)));
static ulong common, notify, config;
static u32 notify_mult;
static u8 mac[6], ip[4], peer_ip[4], peer_mac[6];

static ulong bar_of(unsigned dev, u8 bar)
{
    return pci_read(dev, 0, 0x10 + 4u * bar) & ~15ul; /* memory below 4 GiB */
}

/* The first card in slot @dev or a later one; SLOTS: none. */
static unsigned find_card(unsigned dev)
{
    while (dev < SLOTS && pci_read(dev, 0, 0) != 0x10411af4)
        dev++;
    return dev;
}

static void open_card(unsigned dev)
{
    common = notify = config = 0;
    pci_write(dev, 0, 4, pci_read(dev, 0, 4) | 6);
    for (u8 at = (u8)pci_read(dev, 0, 0x34); at; at = (u8)(pci_read(dev, 0, at) >> 8)) {
        u32 head = pci_read(dev, 0, at), type = head >> 24;
        if ((head & 0xff) != 9)
            continue;
        ulong place = bar_of(dev, (u8)pci_read(dev, 0, at + 4u)) + pci_read(dev, 0, at + 8u);
        if (type == 1) {
            common = place;
        } else if (type == 2) {
            notify = place;
            notify_mult = pci_read(dev, 0, at + 16u);
        } else if (type == 4) {
            config = place;
        }
    }
    CHECK(common && notify && config, "its registers are not assigned");
}

static void kick(unsigned q)
{
    mmio_write16(common + Q_SEL, (u16)q);
    mmio_write16(notify + (ulong)mmio_read16(common + Q_NOTIFY) * notify_mult, (u16)q);
}

static void offer(unsigned q, u16 i, u32 len)
{
    Ring *r = &rings[q];

    r->desc[i].addr = (ulong)bufs[q][i];
    r->desc[i].len = len;
    r->desc[i].flags = q == RX ? 2 : 0;
    r->avail.ring[r->avail.idx % QUEUE] = i;
    __asm__ volatile("" : : : "memory");
    r->avail.idx++;
    __asm__ volatile("mfence" : : : "memory");
}

static void stop_card(void)
{
    mmio_write8(common + STATUS, 0);
    while (mmio_read8(common + STATUS))
        cpu_relax();
}

static void start_card(void)
{
    stop_card();
    memset(rings, 0, sizeof rings);
    mmio_write8(common + STATUS, 3);
    mmio_write32(common + FEATURE_SEL, 0);
    mmio_write32(common + FEATURE, F_MAC | F_STATUS);
    mmio_write32(common + FEATURE_SEL, 1);
    mmio_write32(common + FEATURE, F_VERSION_1);
    mmio_write8(common + STATUS, 11);
    CHECK(mmio_read8(common + STATUS) & 8, "features refused");
    for (u16 q = 0; q < 2; q++) {
        mmio_write16(common + Q_SEL, q);
        mmio_write16(common + Q_SIZE, QUEUE);
        mmio_write32(common + Q_DESC, (u32)(ulong)&rings[q].desc);
        mmio_write32(common + Q_DESC + 4, 0);
        mmio_write32(common + Q_AVAIL, (u32)(ulong)&rings[q].avail);
        mmio_write32(common + Q_AVAIL + 4, 0);
        mmio_write32(common + Q_USED, (u32)(ulong)&rings[q].used);
        mmio_write32(common + Q_USED + 4, 0);
        mmio_write16(common + Q_ENABLE, 1);
        rings[q].avail.flags = 1; /* no interrupts */
    }
    mmio_write8(common + STATUS, 15);
    for (u16 i = 0; i < QUEUE; i++)
        offer(RX, i, BUF);
    kick(RX);
    for (unsigned i = 0; i < 6; i++)
        mac[i] = mmio_read8(config + i);
}

static void send(const u8 *frame, u32 len)
{
    Ring *r = &rings[TX];
    u16 i = r->avail.idx % QUEUE;

    memset(bufs[TX][i], 0, HDR);
    memcpy(bufs[TX][i] + HDR, frame, len);
    offer(TX, i, HDR + len);
    kick(TX);
    for (u64 t = rdtsc(); r->used.idx != r->avail.idx; cpu_relax())
        CHECK(rdtsc() - t < 20 * TSC_SECOND, "a frame is not sent");
}

static bool parse_ip(const char *key, u8 *to)
{
    char text[20];
    const char *p = text;

    if (!arg_str(key, text, sizeof text))
        return false;
    for (unsigned i = 0; i < 4; i++) {
        unsigned v = 0;
        for (; *p >= '0' && *p <= '9'; p++)
            v = v * 10 + (unsigned)(*p - '0');
        to[i] = (u8)v;
        p += *p == '.';
    }
    return true;
}

static u16 sum(const u8 *p, u32 len)
{
    u32 s = 0;

    for (u32 i = 0; i + 1 < len; i += 2)
        s += (u32)p[i] << 8 | p[i + 1];
    if (len & 1)
        s += (u32)p[len - 1] << 8;
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (u16)~s;
}

static void put_sum(u8 *at, u16 v)
{
    at[0] = (u8)(v >> 8);
    at[1] = (u8)v;
}

static void send_arp(u8 op, const u8 *to_mac, const u8 *to_ip)
{
    static const u8 head[] = {8, 6, 0, 1, 8, 0, 6, 4, 0};
    u8 f[60] = {0};

    memcpy(f, to_mac, 6);
    memcpy(f + 6, mac, 6);
    memcpy(f + 12, head, sizeof head);
    f[21] = op;
    memcpy(f + 22, mac, 6);
    memcpy(f + 28, ip, 4);
    if (op == 2)
        memcpy(f + 32, to_mac, 6);
    memcpy(f + 38, to_ip, 4);
    send(f, sizeof f);
}

static bool is_ip(const u8 *f, u32 len, u8 proto)
{
    return len >= ETH + IP + 8 && f[12] == 8 && !f[13] && f[14] == 0x45 && f[23] == proto &&
           !memcmp(f + 30, ip, 4);
}

/* Turn the request around and send it back. */
static void answer(u8 *f, u32 len)
{
    u32 total = (u32)f[16] << 8 | f[17];

    if (total < IP + ICMP || total > len - ETH)
        return;
    memcpy(f, f + 6, 6);
    memcpy(f + 6, mac, 6);
    memcpy(f + 30, f + 26, 4);
    memcpy(f + 26, ip, 4);
    f[22] = 64;
    f[24] = f[25] = 0;
    put_sum(f + 24, sum(f + ETH, IP));
    f[34] = 0;
    f[36] = f[37] = 0;
    put_sum(f + 36, sum(f + 34, total - IP));
    send(f, ETH + total);
}

static void send_ping(u16 seq)
{
    static const u8 head[] = {8, 0, 0x45, 0, 0, 84, 0, 0, 0, 0, 64, 1, 0, 0};
    u8 f[ETH + 84] = {0};

    memcpy(f, peer_mac, 6);
    memcpy(f + 6, mac, 6);
    memcpy(f + 12, head, sizeof head);
    memcpy(f + 26, ip, 4);
    memcpy(f + 30, peer_ip, 4);
    put_sum(f + 24, sum(f + ETH, IP));
    f[34] = 8;
    put_sum(f + 40, seq);
    for (unsigned i = 42; i < sizeof f; i++)
        f[i] = (u8)i;
    put_sum(f + 36, sum(f + 34, 64));
    send(f, sizeof f);
}

/* The next frame, copied; its length, 0: none came in time. */
static u32 receive(u8 *to, u64 ticks)
{
    Ring *r = &rings[RX];

    for (u64 t = rdtsc(); r->used.idx == r->seen; cpu_relax()) {
        if (rdtsc() - t > ticks)
            return 0;
    }
    u32 id = r->used.ring[r->seen % QUEUE].id, len = r->used.ring[r->seen % QUEUE].len;
    r->seen++;
    CHECK(id < QUEUE && len >= HDR && len <= BUF, "frame %u of %u bytes", id, len);
    len -= HDR;
    memcpy(to, bufs[RX][id] + HDR, len);
    offer(RX, (u16)id, BUF);
    kick(RX);
    return len;
}

static u32 echoes, replies;
static bool bye, know_peer;

static void handle(u8 *f, u32 len)
{
    if (len >= 42 && f[12] == 8 && f[13] == 6 && !memcmp(f + 38, ip, 4)) {
        if (f[21] == 1) {
            u8 to[6], to_ip[4];
            memcpy(to, f + 22, 6);
            memcpy(to_ip, f + 28, 4);
            send_arp(2, to, to_ip);
        } else if (!memcmp(f + 28, peer_ip, 4)) {
            memcpy(peer_mac, f + 22, 6);
            know_peer = true;
        }
    } else if (is_ip(f, len, 1) && f[34] == 8) {
        answer(f, len);
        echoes++;
    } else if (is_ip(f, len, 1) && f[34] == 0) {
        replies++;
    } else if (is_ip(f, len, 17) && !f[36] && f[37] == 9 && len >= 45 &&
               !memcmp(f + 42, "bye", 3)) {
        bye = true;
    }
}

static void talk(u32 n, bool ask)
{
    static const u8 all[6] = {255, 255, 255, 255, 255, 255};
    static u8 f[BUF];
    u32 sent = 0;
    u64 begun = rdtsc();

    echoes = replies = 0;
    bye = know_peer = false;
    while (ask ? replies < n : !bye && (!n || echoes < n)) {
        if (ask && !know_peer)
            send_arp(1, all, peer_ip);
        else if (ask && sent == replies)
            send_ping((u16)++sent);
        u32 len = receive(f, TSC_SECOND / 4);
        if (len)
            handle(f, len);
        else if (ask)
            sent = replies; /* lost: once more */
        CHECK(rdtsc() - begun < 120 * TSC_SECOND, "%u echoes, %u replies", echoes, replies);
    }
    say("%u echoes, %u replies\n", echoes, replies);
}

void guest_main(void)
{
    u32 n = arg_num("n", 0), cards = arg_num("cards", 1);
    bool ask = parse_ip("ping", peer_ip);
    unsigned dev = 0;

    CHECK(parse_ip("ip", ip), "no ip=");
    for (u32 i = 0; i < cards; i++, dev++) {
        dev = find_card(dev);
        CHECK(dev < SLOTS, "%u cards", i);
        open_card(dev);
        start_card();
        say("ready %x:%x:%x:%x:%x:%x\n", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
        talk(n, ask);
        stop_card();
    }
    CHECK(find_card(dev) == SLOTS, "a card too many in slot %u", find_card(dev));
}
