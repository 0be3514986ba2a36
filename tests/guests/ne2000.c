/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NE2000, on PCI (10EC:8029) or ISA (port 0x300, IRQ 5): address PROM, buffer memory by words
 * and double words, loopback through the FIFO, and n=COUNT round trips over the user network: an
 * ARP request for 10.0.2.2, whose answer comes with an interrupt. "noloop" leaves the loopback out:
 * QEMU's card has no FIFO. "frames" sends instead what the initrd holds (records.h) but
 * without the headers, and then sends back what comes, as netbench with "echo" does.
 */
#include "records.h"

enum {
    ISA_PORT = 0x300,
    ISA_IRQ = 5,
    BASE = 0x20,
    DATA = 0x10,
    RESET = 0x1f,
    TX_PAGE = 0x40,
    RX_FIRST = 0x46,
    RX_STOP = 0x80,
    MEM_AT = 0x4000,
    MEM_LEN = 0x4000,
    ARP_LEN = 60,
    TX_LEN = (RX_FIRST - TX_PAGE) << 8,
    ETH_LEN = 14,
    FCS_LEN = 4,
    ISR_PRX = 1,
    ISR_PTX = 2,
    ISR_RDC = 0x40,
    ISR_RST = 0x80,
};

static u16 io;
static u8 irq, mac[6];
static volatile u32 interrupts, causes;

static void out(unsigned reg, u8 v)
{
    outb((u16)(io + reg), v);
}
static u8 in(unsigned reg)
{
    return inb((u16)(io + reg));
}
static void out_word(unsigned reg, u16 v)
{
    out(reg, (u8)v);
    out(reg + 1, (u8)(v >> 8));
}

static void find_card(void)
{
    for (unsigned dev = 0; dev < 32; dev++) {
        if (pci_read(dev, 0, 0) != 0x802910ec)
            continue;
        pci_write(dev, 0, 4, pci_read(dev, 0, 4) | 1);
        io = (u16)(pci_read(dev, 0, 0x10) & ~3u);
        irq = (u8)pci_read(dev, 0, 0x3c);
        CHECK(io, "its ports are not assigned");
        say("ne2000: PCI %u, port %x, IRQ %u\n", dev, io, irq);
        return;
    }
    io = ISA_PORT;
    irq = ISA_IRQ;
    CHECK(in(0) != 0xff, "no card on PCI or at port %x", ISA_PORT);
    say("ne2000: ISA, port %x, IRQ %u\n", io, irq);
}

static void remote(u8 rd, u16 at, u16 len)
{
    out_word(0x08, at);
    out_word(0x0a, len);
    out(7, ISR_RDC);
    out(0, rd | 2);
}

static void remote_end(const char *what)
{
    CHECK(in(7) & ISR_RDC, "%s does not end", what);
    out(7, ISR_RDC);
}

static void put(u16 at, const void *from, u16 len)
{
    const u16 *w = from;

    remote(0x10, at, len);
    for (unsigned i = 0; i < len / 2; i++)
        outw((u16)(io + DATA), w[i]);
    remote_end("remote write");
}

static void get(u16 at, void *to, u16 len)
{
    u16 *w = to;

    remote(0x08, at, len);
    for (unsigned i = 0; i < len / 2; i++)
        w[i] = inw((u16)(io + DATA));
    remote_end("remote read");
}

static void check_prom(void)
{
    u8 prom[32];

    out(RESET, in(RESET));
    CHECK(in(7) & ISR_RST, "not reset: ISR %x", in(7));
    out(0x0e, 0x48); /* bytes, normal operation */
    remote(0x08, 0, sizeof prom);
    for (unsigned i = 0; i < sizeof prom; i++)
        prom[i] = in(DATA);
    remote_end("reading the PROM");
    for (unsigned i = 0; i < 6; i++) {
        mac[i] = prom[2 * i];
        CHECK(prom[2 * i + 1] == mac[i], "the PROM's bytes are not doubled");
    }
    CHECK(prom[28] == 0x57 && prom[30] == 0x57, "no signature: %x %x", prom[28], prom[30]);
    out(0x0e, 0x49); /* words */
    say("address %x:%x:%x:%x:%x:%x\n", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
}

static void check_memory(void)
{
    remote(0x10, MEM_AT, MEM_LEN);
    for (u32 i = 0; i < MEM_LEN / 2; i++)
        outw((u16)(io + DATA), (u16)(i * 40503 + 7));
    remote_end("filling the memory");
    remote(0x08, MEM_AT, MEM_LEN);
    for (u32 i = 0; i < MEM_LEN / 2; i += 2) {
        u32 want = (u16)(i * 40503 + 7) | (u32)(u16)((i + 1) * 40503 + 7) << 16;
        u32 got = inl((u16)(io + DATA));
        CHECK(got == want, "memory at %x is %x, not %x", MEM_AT + 2 * i, got, want);
    }
    remote_end("reading the memory");
}

/* The card's own address, then it starts and hears broadcasts. */
static void start(void)
{
    out(0, 0x61);
    for (unsigned i = 0; i < 6; i++)
        out(1 + i, mac[i]);
    out(7, RX_FIRST + 1);
    out(0, 0x21);
    out(0x0c, 4);
    out(0x0d, 0);
    out(1, RX_FIRST);
    out(2, RX_STOP);
    out(3, RX_FIRST);
    out(7, 0xff);
    out(0, 0x22);
}

static void transmit(u16 len)
{
    out(4, TX_PAGE);
    out_word(5, len);
    out(0, 0x26);
}

static void check_loopback(void)
{
    u8 frame[64], fifo[8];

    for (unsigned i = 0; i < sizeof frame; i++)
        frame[i] = i < 6 ? mac[i] : (u8)(i * 5);
    put(TX_PAGE << 8, frame, sizeof frame);
    out(0x0e, 0x40); /* bytes, loopback */
    for (u8 mode = 1; mode <= 3; mode++) {
        out(0x0d, (u8)(mode << 1));
        transmit(60);
        CHECK(!(in(0) & 4) && in(7) == ISR_PTX, "mode %u: ISR %x", mode, in(7));
        out(7, 0xff);
        for (unsigned i = 0; i < 8; i++)
            fifo[i] = in(6);
        CHECK(fifo[0] == 64 && !fifo[1] && !fifo[2], "mode %u: length %x %x", mode, fifo[0],
              fifo[1]);
        CHECK(fifo[3] == frame[59], "mode %u: last byte %x", mode, fifo[3]);
        /* With what the transmitter appended, the receiver finds it good. */
        out(0x0e, 0x49);
        put((TX_PAGE << 8) + 60, fifo + 4, 4);
        out(0x0e, 0x40);
        out(0x0d, (u8)(mode << 1 | 1));
        transmit(64);
        out(7, 0xff);
        CHECK(in(0x0c) == 1, "mode %u: RSR %x", mode, in(0x0c));
    }
    out(0x0d, 0);
    out(0x0e, 0x49);
}

static void on_irq(Frame *f)
{
    u8 isr;

    /* Until none is left: on ISA, what comes before the line has fallen makes no edge. */
    while ((isr = in(7) & (ISR_PRX | ISR_PTX))) {
        out(7, isr);
        causes |= isr;
    }
    interrupts++;
    pic_eoi(irq);
}

static void wait_for(u32 cause)
{
    for (u64 t = rdtsc(); !(causes & cause);) {
        irq_enable();
        for (unsigned i = 0; i < 20; i++)
            cpu_relax();
        irq_disable();
        CHECK(rdtsc() - t < 20 * TSC_SECOND, "no interrupt %x: ISR %x", cause, in(7));
    }
    causes &= ~cause;
}

static void round_trip(u32 n)
{
    static const u8 arp[] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
    static const u8 ours[] = {10, 0, 2, 15}, theirs[] = {10, 0, 2, 2};
    static u8 next = RX_FIRST + 1;
    u8 frame[ARP_LEN] = {0}, back[4 + ARP_LEN];

    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    memcpy(frame + 12, arp, sizeof arp);
    memcpy(frame + 22, mac, 6);
    memcpy(frame + 28, ours, 4);
    memcpy(frame + 38, theirs, 4);
    put(TX_PAGE << 8, frame, sizeof frame);
    transmit(sizeof frame);
    wait_for(ISR_PTX);
    for (;;) {
        out(0, 0x62);
        u8 curr = in(7);
        out(0, 0x22);
        if (curr == next) {
            wait_for(ISR_PRX);
            continue;
        }
        get((u16)(next << 8), back, sizeof back);
        u32 len = back[2] | back[3] << 8;
        CHECK((back[0] & 1) && len >= 64 && len < 1600, "header %x %x, %u bytes", back[0], back[1],
              len);
        next = back[1];
        CHECK(next >= RX_FIRST && next < RX_STOP, "next page %x", next);
        out(3, next == RX_FIRST ? RX_STOP - 1 : next - 1);
        if (!memcmp(back + 4 + 12, arp, 9) && back[4 + 21] == 2)
            break; /* others may talk too */
    }
    CHECK(!memcmp(back + 4, mac, 6), "answer %u is not for us", n);
    CHECK(!memcmp(back + 4 + 28, theirs, 4), "answer %u is not from 10.0.2.2", n);
}

/* Of any length; the card finds as much of it as fits where frames to be sent lie. */
static void send(const u8 *f, u32 len)
{
    put(TX_PAGE << 8, f, (u16)((len < TX_LEN ? len + 1 : TX_LEN) & ~1u));
    transmit((u16)(len < 0xffff ? len : 0xffff));
    for (u64 t = rdtsc(); in(0) & 4; cpu_relax())
        CHECK(rdtsc() - t < 20 * TSC_SECOND, "a frame of %u bytes is not sent", len);
    out(7, ISR_PTX);
}

static void send_record(u32 n, const u8 *record, u32 len, u32 second)
{
    send(record + RECORD_HDR, len > RECORD_HDR ? len - RECORD_HDR : 0);
}

static void echo(void)
{
    static u8 f[TX_LEN + 2];
    u8 next = RX_FIRST + 1, head[4], was[6], curr;

    for (;;) {
        out(0, 0x62);
        curr = in(7);
        out(0, 0x22);
        if (curr == next) {
            cpu_relax();
            continue;
        }
        get((u16)(next << 8), head, sizeof head);
        u32 len = head[2] | (u32)head[3] << 8;
        CHECK((head[0] & 1) && len >= 64 && len <= TX_LEN, "header %x %x, %u bytes", head[0],
              head[1], len);
        get((u16)((next << 8) + sizeof head), f, (u16)((len - FCS_LEN + 1) & ~1u));
        next = head[1];
        CHECK(next >= RX_FIRST && next < RX_STOP, "next page %x", next);
        out(3, next == RX_FIRST ? RX_STOP - 1 : next - 1);
        if (!memcmp(f + ETH_LEN, "bye", 3))
            return;
        memcpy(was, f, 6);
        memcpy(f, f + 6, 6);
        memcpy(f + 6, was[0] & 1 ? mac : was, 6);
        send(f, len - FCS_LEN);
    }
}

void guest_main(void)
{
    u32 n = arg_num("n", 200);

    find_card();
    check_prom();
    if (arg_has("frames")) {
        start();
        say("sent %u\n", send_records(send_record));
        echo();
        return;
    }
    check_memory();
    start();
    if (!arg_has("noloop"))
        check_loopback();
    idt_load();
    pic_init(BASE);
    on_vector((u8)(BASE + irq), on_irq);
    pic_mask((u16)~(1u << irq | 4));
    out(0x0f, ISR_PRX | ISR_PTX);
    for (u32 i = 0; i < n; i++)
        round_trip(i);
    CHECK(in(0x0f) == 0, "missed %u frames", in(0x0f));
    say("%u round trips, %u interrupts\n", n, interrupts);
}
