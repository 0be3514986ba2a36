/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drives a virtio 1.0 network card (1af4:1041) on PCI bus 0 from ring 3, which runs at the CPU's own
 * speed wherever there is a /dev/kvm (virtio.h has how).
 *
 * Arguments:
 *   tests=KLEN,...  K: t, sends frames of LEN bytes; r, receives; p, sends one and waits for the
 *                   answer to it; LEN: 64, 1514, or tso: TCP of 65,160 bytes in segments of 1,448
 *   ms=N            how long each takes (1000), from the first frame on
 *   echo            sends back each frame of at most 4,084 bytes that comes instead, as it came but for
 *                   swapped addresses, those of IPv4 and the ports of UDP too, until one with "bye" comes
 *   frames          sends what the initrd holds (records.h), as it stands there, and then is as
 *                   with "echo"
 *   noevent         without event indices
 * It prints "NAME ops N cycles N kicks N bytes N" for each, after a line "tsc N Hz", found by means of
 * the PIT, and "ready". Before it receives it sends one, so that a switch knows where it is. Frames
 * are of EtherType 88B5, to 02:00:00:00:00:01, whose own go to 52:54:00:12:34:56; those of TCP from 10.9.0.2 to 10.9.0.1.
 * Spec: Virtual I/O Device 1.2, 5.1 "Network Device".
 */
#include "records.h"
#include "virtio.h"

enum {
    RX = 0,
    TX = 1,
    HDR = 12,
    ETH = 14,
    TCP_HEADERS = 54,
    MSS = 1448,
    TSO_LEN = TCP_HEADERS + 45 * MSS,
    RX_BUF = 4096,
    TX_BUF = 1 << 17,
    DEPTH = 128,
    RX_AT = 16 << 20,
    TX_AT = 32 << 20,
    F_CSUM = 1 << 0,
    F_GUEST_CSUM = 1 << 1,
    F_MAC = 1 << 5,
    F_GUEST_TSO4 = 1 << 7,
    F_HOST_TSO4 = 1 << 11,
    F_MRG_RXBUF = 1 << 15,
    F_HOST_TSO6 = 1 << 12,
    F_HOST_USO = 1 << 24, /* of the second word; of Linux 6.2 */
    PIT_TICKS = 60000,
};

static Virtio card;
static Queue queue[2] __attribute__((aligned(4096)));
static u64 tsc_hz, bytes;
static u8 mac[6];
static const u8 ends[2][6] = {{2, 0, 0, 0, 0, 1}, {0x52, 0x54, 0, 0x12, 0x34, 0x56}};

static void start_card(void)
{
    enum { WANT = F_CSUM | F_GUEST_CSUM | F_MAC | F_GUEST_TSO4 | F_HOST_TSO4 | F_MRG_RXBUF };

    virtio_find(&card, 0x10411af4, "virtio-net");
    CHECK((card.offered & WANT) == WANT, "an offload is missing: %x", card.offered);
    u32 more = arg_has("frames") ? F_HOST_TSO6 : 0, more2 = arg_has("frames") ? F_HOST_USO : 0;
    more |= arg_has("noevent") ? 0 : F_EVENT_IDX;
    virtio_accept(&card, WANT | (card.offered & more), card.offered2 & more2);
    for (unsigned i = 0; i < 2; i++)
        virtio_start_queue(&card, &queue[i], i);
    virtio_go(&card);
    for (unsigned i = 0; i < 6; i++)
        mac[i] = mmio_read8(card.config + i);
}

/* ---- rings ---- */

static u8 *buffer(unsigned q, unsigned i)
{
    return (u8 *)(q == RX ? RX_AT + (ulong)i * RX_BUF : TX_AT + (ulong)i * TX_BUF);
}

static void offer(unsigned q, unsigned i)
{
    virtio_offer(&queue[q], i);
}

static void tell(unsigned q)
{
    virtio_tell(&card, &queue[q]);
}

/* ---- frames ---- */

static void put16(u8 *at, u32 v)
{
    at[0] = (u8)(v >> 8);
    at[1] = (u8)v;
}

/* A frame of @len bytes into each buffer for sending, once; its header says what is left to do. */
static void make_frames(u32 len)
{
    for (unsigned i = 0; i < DEPTH; i++) {
        u8 *h = buffer(TX, i), *f = h + HDR;
        memset(h, 0, HDR + TCP_HEADERS);
        memcpy(f, ends[!memcmp(mac, ends[0], 6)], 6);
        memcpy(f + 6, mac, 6);
        put16(f + 12, 0x88b5);
        if (len == TSO_LEN) {
            u32 sum = 6 + TSO_LEN - 34;
            static const u8 ip[] = {8, 0, 0x45, 0}, addr[8] = {10, 9, 0, 2, 10, 9, 0, 1};
            memcpy(f + 12, ip, 4);
            put16(f + 16, TSO_LEN - ETH);
            f[22] = 64;
            f[23] = 6;
            memcpy(f + 26, addr, 8);
            for (unsigned k = 0; k < 8; k += 2)
                sum += (u32)addr[k] << 8 | addr[k + 1];
            put16(f + 50, (sum & 0xffff) + (sum >> 16)); /* of the pseudo header */
            sum = 0;
            for (unsigned k = 14; k < 34; k += 2)
                sum += (u32)f[k] << 8 | f[k + 1];
            sum = (sum & 0xffff) + (sum >> 16);
            put16(f + 24, ~((sum & 0xffff) + (sum >> 16)));
            put16(f + 34, 9);
            put16(f + 36, 9);
            f[46] = 0x50;
            f[47] = 0x10;
            h[0] = 1; /* the checksum is to be done */
            h[1] = 1; /* TCP over IPv4 is to be cut */
            h[2] = TCP_HEADERS;
            h[4] = (u8)MSS;
            h[5] = (u8)(MSS >> 8);
            h[6] = 34;
            h[8] = 16;
        }
        queue[TX].desc[i].addr = (ulong)h;
        queue[TX].desc[i].len = HDR + len;
        queue[TX].desc[i].flags = 0;
    }
}

/* Take what came, give the buffers back. Return: frames. */
static u32 take_frames(void)
{
    Queue *q = &queue[RX];
    u32 n = 0;

    for (u16 idx = q->used.idx; q->seen != idx; n++) {
        u32 id = q->used.ring[q->seen % QSIZE].id;
        CHECK(id < QSIZE, "used entry names %u", id);
        u32 count = buffer(RX, id)[10] | (u32)buffer(RX, id)[11] << 8;
        CHECK(count && count <= (u16)(idx - q->seen), "a frame of %u buffers", count);
        for (bytes -= HDR; count; count--, q->seen++) {
            bytes += q->used.ring[q->seen % QSIZE].len;
            offer(RX, q->used.ring[q->seen % QSIZE].id);
        }
    }
    tell(RX);
    return n;
}

static u64 send_run(u32 len, u64 ticks, u64 *ret_done)
{
    Queue *q = &queue[TX];
    u64 done = 0, begin, now, last;

    for (unsigned i = 0; i < DEPTH; i++)
        offer(TX, i);
    begin = last = rdtsc();
    tell(TX);
    u64 started = DEPTH;
    while (done < started) {
        now = rdtsc();
        bool more = now - begin < ticks;
        u64 before = done;
        for (u16 idx = q->used.idx; q->seen != idx; q->seen++) {
            done++;
            if (more) {
                offer(TX, q->used.ring[q->seen % QSIZE].id);
                started++;
            }
        }
        tell(TX);
        if (done != before)
            last = now;
        else
            cpu_relax();
        CHECK(now - last < 20 * TSC_SECOND, "the device is silent: %Q of %Q", done, started);
    }
    bytes = done * len;
    *ret_done = done;
    return rdtsc() - begin;
}

static u64 receive_run(u64 ticks, u64 *ret_done)
{
    u64 begin = rdtsc(), done = 0;

    offer(TX, 0);
    tell(TX);
    while (queue[TX].used.idx != queue[TX].avail.idx)
        CHECK(rdtsc() - begin < 20 * TSC_SECOND, "the device is silent");
    queue[TX].seen = queue[TX].used.idx;
    while (!take_frames()) /* what lay there, and the first */
        CHECK(rdtsc() - begin < 20 * TSC_SECOND, "nothing comes");
    begin = rdtsc();
    bytes = card.kicks = 0;
    while (rdtsc() - begin < ticks) {
        u32 n = take_frames();
        done += n;
        if (!n)
            cpu_relax();
    }
    *ret_done = done;
    return rdtsc() - begin;
}

/* One at a time; one that is lost is sent again after a while. */
static u64 pong_run(u64 ticks, u64 *ret_done)
{
    u64 begin = rdtsc(), now = begin, done = 0;

    (void)take_frames();
    while (now - begin < ticks) {
        u64 sent = rdtsc();
        offer(TX, 0);
        tell(TX);
        while (!take_frames() && (now = rdtsc()) - sent < TSC_SECOND)
            cpu_relax();
        if (now - sent < TSC_SECOND)
            done++;
        while (queue[TX].used.idx != queue[TX].avail.idx)
            cpu_relax();
        queue[TX].seen = queue[TX].used.idx;
        now = rdtsc();
    }
    bytes = done * 64;
    *ret_done = done;
    return rdtsc() - begin;
}

static void test(const char *name, u32 len)
{
    u64 ticks = tsc_hz / 1000 * arg_num("ms", 1000), done, cycles;

    card.kicks = bytes = 0;
    make_frames(len);
    cycles = *name == 't' ? send_run(len, ticks, &done)
             : *name == 'r' ? receive_run(ticks, &done) : pong_run(ticks, &done);
    say("%s ops %Q cycles %Q kicks %Q bytes %Q\n", name, done, cycles, card.kicks, bytes);
}

/* DEPTH under way at once, each in one descriptor or two. */
static void send_record(u32 n, const u8 *record, u32 len, u32 second)
{
    Queue *q = &queue[TX];
    u32 i = n % DEPTH;

    CHECK((ulong)record + len <= RX_AT, "record %u: not below 16 MiB", n);
    CHECK(len && len <= TX_BUF && second < len, "record %u: %u bytes", n, len);
    for (u64 t = rdtsc(); !i && q->avail.idx != q->used.idx;)
        CHECK(rdtsc() - t < 20 * TSC_SECOND, "a frame before number %u is not sent", n);
    q->seen = q->used.idx;
    memcpy(buffer(TX, i), record, len);
    q->desc[i].addr = (ulong)buffer(TX, i);
    q->desc[i].len = second ? second : len;
    q->desc[i].flags = second ? DESC_NEXT : 0;
    q->desc[i].next = (u16)(i + DEPTH);
    q->desc[i + DEPTH].addr = (ulong)buffer(TX, i) + second;
    q->desc[i + DEPTH].len = len - second;
    q->desc[i + DEPTH].flags = 0;
    offer(TX, i);
    tell(TX);
}

static void send_all_records(void)
{
    Queue *q = &queue[TX];
    u32 sent = send_records(send_record);

    for (u64 t = rdtsc(); q->avail.idx != q->used.idx;)
        CHECK(rdtsc() - t < 20 * TSC_SECOND, "a frame is not sent");
    q->seen = q->used.idx;
    say("sent %u\n", sent);
}

static void swap(u8 *a, u8 *b, u32 len)
{
    for (u8 was; len--; *a++ = *b, *b++ = was)
        was = *a;
}

/* UDP over IPv4 without options; its checksums stay what they are. Return: where the data begins. */
static u32 turn_datagram(u8 *f, u32 len)
{
    if (len < ETH + 28 || f[12] != 8 || f[13] || f[14] != 0x45 || f[23] != 17)
        return ETH;
    swap(f + 26, f + 30, 4);
    swap(f + 34, f + 36, 2);
    return ETH + 28;
}

/* What comes goes back, each from the buffer in which it came. */
static void echo(void)
{
    Queue *rx = &queue[RX], *tx = &queue[TX];

    for (;;) {
        for (u16 idx = rx->used.idx; rx->seen != idx; rx->seen++) {
            u32 id = rx->used.ring[rx->seen % QSIZE].id, len = rx->used.ring[rx->seen % QSIZE].len;
            u8 *f = buffer(RX, id) + HDR, was[6];
            for (u32 parts = f[-2]; parts > 1; parts--, rx->seen++) /* too long: dropped */
                offer(RX, rx->used.ring[rx->seen % QSIZE].id);
            if (f[-2] > 1) {
                offer(RX, rx->used.ring[rx->seen % QSIZE].id);
                continue;
            }
            if (!memcmp(f + turn_datagram(f, len - HDR), "bye", 3))
                return;
            memcpy(was, f, 6);
            memcpy(f, f + 6, 6);
            memcpy(f + 6, was[0] & 1 ? mac : was, 6);
            memset(f - HDR, 0, HDR);
            tx->desc[id].addr = (ulong)(f - HDR);
            tx->desc[id].len = len;
            tx->desc[id].flags = 0;
            offer(TX, id);
        }
        tell(TX);
        for (u16 idx = tx->used.idx; tx->seen != idx; tx->seen++)
            offer(RX, tx->used.ring[tx->seen % QSIZE].id);
        tell(RX);
        cpu_relax();
    }
}

static void user(void)
{
    char list[200], *p = list;

    tsc_hz = pit2_measure(PIT_TICKS) * PIT_HZ / PIT_TICKS;
    start_card();
    for (unsigned i = 0; i < QSIZE; i++) {
        queue[RX].desc[i].addr = (ulong)buffer(RX, i);
        queue[RX].desc[i].len = RX_BUF;
        queue[RX].desc[i].flags = DESC_WRITE;
        offer(RX, i);
    }
    tell(RX);
    say("tsc %Q Hz\nready\n", tsc_hz);
    if (arg_has("frames"))
        send_all_records();
    if (arg_has("echo") || arg_has("frames")) {
        echo();
        pass();
    }
    CHECK(arg_str("tests", list, sizeof list), "no tests=");
    while (*p) {
        char *name = p++;
        u32 len = 0;

        if (*p == 't')
            for (len = TSO_LEN; *p && *p != ',';)
                p++;
        for (; *p >= '0' && *p <= '9'; p++)
            len = len * 10 + (u32)(*p - '0');
        CHECK((*name == 't' || *name == 'r' || *name == 'p') && len >= 60 && len <= TSO_LEN,
              "tests=: %s", name);
        if (*p)
            *p++ = 0;
        test(name, len);
    }
    pass();
}

void guest_main(void)
{
    static u8 stack[16384] __attribute__((aligned(16)));

    ring3_enter(user, (ulong)(stack + sizeof stack - 8));
}
