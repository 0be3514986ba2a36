/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The PCnet-PCI (1022:2000), driven by polling: sends what the initrd holds (records.h),
 * without the headers, and then sends back each frame that comes in one buffer, as it came but
 * for swapped addresses, until one with "bye" comes. A longer frame than a descriptor holds, and one
 * with a second descriptor, is chained.
 * Spec: Am79C970A data sheet, "Initialization Block", "Transmit Descriptors", "Receive Descriptors".
 */
#include "records.h"

enum {
    RDP = 0x10,
    RAP = 0x12,
    RESET = 0x14,
    BDP = 0x16,
    STYLE = 2, /* 32-bit structures */
    RING = 64,
    RING_LOG = 6,
    BUF = 2048,
    PIECE = 4000,
    ETH_LEN = 14,
    FCS_LEN = 4,
    CSR0_INIT = 1,
    CSR0_STRT = 2,
    CSR0_TDMD = 8,
    CSR0_TXON = 0x10,
    CSR0_IDON = 0x100,
};
#define OWN (1u << 31)
#define STP (1u << 25)
#define ENP (1u << 24)
#define BCNT(len) (0xf000 | (-(len) & 0xfff))

typedef struct Desc {
    volatile u32 base, status, count, spare;
} Desc;

static Desc rx[RING] __attribute__((aligned(16))), tx[RING] __attribute__((aligned(16)));
static struct {
    u16 mode;
    u8 rlen, tlen, mac[6], spare[2], filter[8];
    u32 rdra, tdra;
} block __attribute__((aligned(16)));
static u8 bufs[RING][BUF];
static u16 io;
static u32 at; /* the next transmit descriptor */

static void csr(u16 reg, u16 v)
{
    outw((u16)(io + RAP), reg);
    outw((u16)(io + RDP), v);
}

static u16 csr0(void)
{
    outw((u16)(io + RAP), 0);
    return inw((u16)(io + RDP));
}

static void start(void)
{
    unsigned dev = 0;

    while (dev < 32 && pci_read(dev, 0, 0) != 0x20001022)
        dev++;
    CHECK(dev < 32, "no card");
    pci_write(dev, 0, 4, pci_read(dev, 0, 4) | 5);
    io = (u16)(pci_read(dev, 0, 0x10) & ~3u);
    CHECK(io, "its ports are not assigned");
    (void)inw((u16)(io + RESET));
    outw((u16)(io + RAP), 20);
    outw((u16)(io + BDP), STYLE);
    for (unsigned i = 0; i < RING; i++) {
        rx[i].base = (u32)(ulong)bufs[i];
        rx[i].count = 0;
        rx[i].status = OWN | BCNT(BUF);
    }
    for (unsigned i = 0; i < 6; i++)
        block.mac[i] = inb((u16)(io + i));
    block.rlen = block.tlen = RING_LOG << 4;
    block.rdra = (u32)(ulong)rx;
    block.tdra = (u32)(ulong)tx;
    csr(1, (u16)(ulong)&block);
    csr(2, (u16)((ulong)&block >> 16));
    csr(0, CSR0_INIT);
    for (u64 t = rdtsc(); !(csr0() & CSR0_IDON); cpu_relax())
        CHECK(rdtsc() - t < 20 * TSC_SECOND, "no end of initialization: %x", csr0());
    csr(0, CSR0_IDON | CSR0_STRT);
}

/* In pieces, the first one of @first bytes, which are the card's from the last one to the first. */
static void send(const u8 *f, u32 len, u32 first)
{
    u32 begin = at, n = 0;

    for (u32 done = 0; done < len; n++) {
        u32 part = len - done < PIECE ? len - done : PIECE;
        if (!n && first && first < part)
            part = first;
        Desc *d = &tx[(begin + n) % RING];
        d->base = (u32)(ulong)f + done;
        d->count = 0;
        done += part;
        d->status = (n ? OWN : STP) | (done == len ? ENP : 0) | BCNT(part);
    }
    __asm__ volatile("" : : : "memory");
    tx[begin % RING].status |= OWN;
    at += n;
    csr(0, CSR0_TDMD);
    for (u64 t = rdtsc(); tx[(at - 1) % RING].status & OWN; cpu_relax())
        CHECK(rdtsc() - t < 20 * TSC_SECOND, "%u bytes in %u are not sent: %x", len, n, csr0());
    CHECK(csr0() & CSR0_TXON, "the transmitter is off: %x", csr0());
}

static void send_record(u32 n, const u8 *record, u32 len, u32 second)
{
    send(record + RECORD_HDR, len > RECORD_HDR ? len - RECORD_HDR : 1,
         second > RECORD_HDR ? second - RECORD_HDR : 0);
}

static void echo(void)
{
    static u8 out[BUF];
    u8 *f = out;

    for (u32 i = 0;; i = (i + 1) % RING) {
        while (rx[i].status & OWN)
            cpu_relax();
        u32 status = rx[i].status, len = rx[i].count & 0xfff;
        if ((status & STP) && (status & ENP)) {
            CHECK(len >= 64 && len <= BUF, "a frame of %u bytes: %x", len, status);
            memcpy(f, bufs[i] + 6, 6);
            memcpy(f + 6, bufs[i][0] & 1 ? block.mac : bufs[i], 6);
            memcpy(f + 12, bufs[i] + 12, len - FCS_LEN - 12);
        } else {
            len = 0;
        }
        rx[i].count = 0;
        rx[i].status = OWN | BCNT(BUF);
        if (len && !memcmp(f + ETH_LEN, "bye", 3))
            return;
        if (len)
            send(f, len - FCS_LEN, 0);
    }
}

void guest_main(void)
{
    start();
    say("ready\n");
    say("sent %u\n", send_records(send_record));
    echo();
}
