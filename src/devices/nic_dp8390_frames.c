/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * DP8390D: frames between the card's memory and the wire, and loopback. The part, what is left
 * out, threads and invariants: nic_dp8390.c, whose (1) to (4) are kept here too.
 */
#include "nic_dp8390_internal.h"

#include <string.h>

#include "lodge/iothread.h"
#include "lodge/num.h"

enum {
    FRAME_MIN = 14,    /* an Ethernet header */
    FRAME_SHORT = 60,  /* least frame on a cable, without its check sequence */
    FRAME_LONG = 1518, /* greatest, with a VLAN tag */
    FCS_LEN = 4,
    HEADER_LEN = 4, /* status, next page, length: NIC 7.0 */
    SLOTS = 64,
    TX_ROUNDS = 8, /* then the loop serves others */
    TALLY_MSB = 0x80,
    TALLY_MISSED = 2, /* CNTR2 */
};

struct Dp8390Slot {
    uint16_t len;
    uint8_t data[FRAME_LONG];
};

/* NIC 12.0, status results of loopback by mode: CDH and CRS as the pins are blocked. */
static const uint8_t loop_tsr[4] = {TSR_PTX, 0x53, 0x43, 0x03};

static void tx_run(void *opaque);

/* ---- the card's memory ---- */

/* The part of [@at, @at + @len) that lies in @at's page. */
static size_t within_page(uint16_t at, size_t len)
{
    return MIN(len, (size_t)DP8390_PAGE - at % DP8390_PAGE);
}

/* Copy out with the address counter's wrap at 16 bits; @len is bounded by the caller's buffer. */
static void copy_out(const Dp8390 *n, uint16_t at, uint8_t *to, size_t len)
{
    while (len) {
        size_t part = within_page(at, len);

        if (at & NE2000_MEM)
            memcpy(to, n->regs.mem + (at & (NE2000_MEM - 1)), part);
        else
            for (size_t i = 0; i < part; i++)
                to[i] = dp8390_cell(n, (uint16_t)(at + i));
        to += part;
        at += (uint16_t)part;
        len -= part;
    }
}

static uint8_t next_page(const Dp8390Regs *s, uint8_t page)
{
    uint8_t next = (uint8_t)(page + 1);

    return next == s->pstop ? s->pstart : next;
}
/* NIC 10.3, "Network Tally Counters": halts at 192, interrupts from 128 on. */
static void count_missed(Dp8390 *n)
{
    uint8_t *tally = &n->regs.tally[TALLY_MISSED];

    if (*tally < DP8390_TALLY_MAX)
        (*tally)++;
    if (*tally & TALLY_MSB)
        dp8390_raise(n, ISR_CNT);
}

/* ---- the loop's work ---- */

/* Have @fn run where no lock is held: on the loop; a board without threads has no other place than
 * here. Context: card's lock held. */
static void run_unlocked(Dp8390 *n, IoCallFn fn)
{
    if (n->port.io) {
        io_thread_post(n->port.io, fn, n);
        return;
    }
    lodge_unlock(&n->dev->lock);
    fn(n);
    lodge_lock(&n->dev->lock);
}

static void rx_ask(void *opaque)
{
    Dp8390 *n = opaque;

    lodge_lock(&n->dev->lock);
    n->rx_posted = false;
    n->rx_held = 0;
    lodge_unlock(&n->dev->lock);
    net_rx_ready(&n->port);
}

/* Something changed that may let the frame in that the wire holds, or let it be dropped. */
void dp8390_rx_wake(Dp8390 *n)
{
    if (!n->rx_held || n->rx_posted || n->quiet)
        return;
    n->rx_posted = true;
    run_unlocked(n, rx_ask);
}
/* ---- receiving, NIC 7.0 ---- */

/* CRC-32 of IEEE 802.3 with its register's most significant bit first. */
static uint32_t crc_msb(const uint8_t *data, size_t len)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            uint32_t feed = (crc >> 31) ^ ((data[i] >> bit) & 1);

            crc = crc << 1 ^ (feed ? UINT32_C(0x04c11db7) : 0);
        }
    }
    return crc;
}

/* NIC 4.0: the six high bits of the CRC over the address are an index into MAR. */
static bool hash_match(const Dp8390Regs *s, const uint8_t dest[DP8390_MAC_LEN])
{
    unsigned i = crc_msb(dest, DP8390_MAC_LEN) >> 26;

    return s->mar[i / 8] >> (i % 8) & 1;
}

/* NIC 10.3, "Receive Configuration Register": promiscuous is about physical addresses. */
static bool wanted(const Dp8390Regs *s, const uint8_t dest[DP8390_MAC_LEN])
{
    static const uint8_t broadcast[DP8390_MAC_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    if (!(dest[0] & 1))
        return (s->rcr & RCR_PRO) || !memcmp(dest, s->par, DP8390_MAC_LEN);
    if (!memcmp(dest, broadcast, DP8390_MAC_LEN) && (s->rcr & RCR_AB))
        return true;
    return (s->rcr & RCR_AM) && hash_match(s, dest);
}

/* Where CURR must stop. Drivers (Linux's lib8390) write one less than the next page to be read, and
 * so the page before the ring where that is the ring's first; the part would miss that boundary and
 * run over what is unread. Here it means the last page. */
static uint8_t boundary(const Dp8390Regs *s)
{
    return (uint8_t)(s->bnry + 1) == s->pstart ? (uint8_t)(s->pstop - 1) : s->bnry;
}

/* Whether @pages from CURR on can be filled and CURR moved behind them without reaching BNRY. */
static bool ring_room(const Dp8390Regs *s, unsigned pages)
{
    uint8_t page = s->curr, stop = boundary(s);

    for (unsigned i = 0; i < pages; i++) {
        page = next_page(s, page);
        if (page == stop)
            return false;
    }
    return true;
}

/* Write BNRY: there may be room now for the frame that the wire holds. Context: lock held. */
void dp8390_set_bnry(Dp8390 *n, uint8_t page)
{
    n->regs.bnry = page;
    n->regs.overflow = false;
    if (n->rx_held && ring_room(&n->regs, n->rx_held))
        dp8390_rx_wake(n);
}

/**
 * dp8390_unread() - Whether a full ring keeps a frame in the wire
 * Context: card's lock held.
 *
 * Then PRX stays. A driver may leave frames in the ring and wait for the next interrupt (Linux's
 * lib8390 takes nine at a time), which on a cable comes with the next frame, by PRX or OVW; here
 * that frame waits for the driver.
 */
bool dp8390_unread(const Dp8390 *n)
{
    return n->rx_held && !n->rx_posted;
}

/* Whether a sound ring takes @pages once the guest has read what is in it: BNRY may rest one page
 * behind CURR, and CURR stops one page before BNRY. */
static bool ring_would_fit(const Dp8390Regs *s, unsigned pages)
{
    uint8_t stop = boundary(s);

    return s->pstart < s->pstop && s->curr >= s->pstart && s->curr < s->pstop &&
           stop >= s->pstart && stop < s->pstop &&
           pages + 2 <= (unsigned)s->pstop - s->pstart;
}

/* Write @len bytes into @pages linked pages from CURR on and move CURR. */
static void ring_store(Dp8390Regs *s, const uint8_t *data, size_t len)
{
    uint8_t page = s->curr;

    while (len) {
        size_t part = MIN(len, (size_t)DP8390_PAGE);
        uint16_t at = (uint16_t)(page * DP8390_PAGE);

        if (at & NE2000_MEM)
            memcpy(s->mem + (at & (NE2000_MEM - 1)), data, part);
        data += part;
        len -= part;
        page = next_page(s, page);
    }
    s->curr = s->lnpp = page;
    s->clda = (uint16_t)(page * DP8390_PAGE);
}

/* Copy @f, whose pieces must add up to @len, to @to. */
static bool gather(const NetFrame *f, uint8_t *to, size_t len)
{
    for (unsigned i = 0; i < f->niov; i++) {
        size_t part = f->iov[i].iov_len;

        if (part > len)
            return false;
        if (part)
            memcpy(to, f->iov[i].iov_base, part);
        to += part;
        len -= part;
    }
    return !len;
}

/* Lock held. False: the wire keeps the frame. */
static bool receive(Dp8390 *n, const NetFrame *f)
{
    Dp8390Regs *s = &n->regs;
    uint8_t buf[HEADER_LEN + FRAME_LONG + FCS_LEN] = {0};
    const uint8_t *dest = buf + HEADER_LEN;

    if (f->len < FRAME_MIN || f->len > FRAME_LONG || !gather(f, buf + HEADER_LEN, f->len))
        return true;
    if ((s->cr & CR_STP) || !(s->cr & CR_STA) || (s->tcr & TCR_LB_MASK) || !wanted(s, dest))
        return true;
    uint8_t phy = dest[0] & 1 ? RSR_PHY : 0;
    size_t count = MAX(f->len, (size_t)FRAME_SHORT) + FCS_LEN;
    unsigned pages = (unsigned)((HEADER_LEN + count + DP8390_PAGE - 1) / DP8390_PAGE);
    if (s->rcr & RCR_MON) {
        s->rsr = RSR_MPA | RSR_DIS | phy;
        count_missed(n);
        return true;
    }
    if (!ring_room(s, pages)) {
        if (ring_would_fit(s, pages)) {
            n->rx_held = pages;
            dp8390_raise(n, ISR_PRX); /* see dp8390_unread() */
            return false;
        }
        s->rsr = RSR_MPA | phy;
        s->overflow = true;
        count_missed(n);
        dp8390_raise(n, ISR_OVW);
        return true;
    }
    uint8_t next = s->curr;
    for (unsigned i = 0; i < pages; i++)
        next = next_page(s, next);
    buf[0] = s->rsr = RSR_PRX | phy;
    buf[1] = next;
    store_le16(buf + 2, (uint16_t)count);
    ring_store(s, buf, HEADER_LEN + count);
    dp8390_raise(n, ISR_PRX);
    return true;
}

static bool nic_deliver(NetPort *port, const NetFrame *f)
{
    Dp8390 *n = port->opaque;
    bool taken;

    lodge_lock(&n->dev->lock);
    if (n->quiet) {
        n->rx_held = 1; /* resume asks for it, whatever it needs */
        taken = false;
    } else {
        taken = receive(n, f);
    }
    lodge_unlock(&n->dev->lock);
    return taken;
}
/* ---- transmitting, NIC 8.0 ---- */

/* NIC 12.0: the frame comes round into the FIFO; in word mode it lies in every other byte. The
 * receiver checks a check sequence only where the transmitter made none. */
static void loopback(Dp8390 *n, size_t len)
{
    Dp8390Regs *s = &n->regs;
    unsigned step = s->dcr & DCR_WTS ? 2 : 1;
    unsigned lane = (s->dcr & DCR_WTS) && !(s->dcr & DCR_BOS) ? 1 : 0;
    uint8_t frame[FRAME_LONG + 2 * FCS_LEN];
    size_t count = len / step;

    s->tsr = loop_tsr[(s->tcr & TCR_LB_MASK) >> TCR_LB_SHIFT];
    if (s->dcr & DCR_LS)
        return; /* the receiver was not told */
    if (count > FRAME_LONG + FCS_LEN) {
        guest_fault(n->dev, "loopback frame of %zu bytes", count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        frame[i] = dp8390_cell(n, (uint16_t)(s->tpsr * DP8390_PAGE + i * step + lane));
    bool mine = count >= DP8390_MAC_LEN && wanted(s, frame);
    uint32_t crc = crc_msb(frame, count);
    bool good = false;
    if (s->tcr & TCR_CRC) {
        good = crc == UINT32_C(0xc704dd7b); /* what a frame with its check sequence leaves */
    } else {
        for (unsigned i = 0; i < FCS_LEN; i++) {
            uint8_t byte = 0;

            for (unsigned bit = 0; bit < 8; bit++)
                byte |= (uint8_t)((~crc >> (31 - 8 * i - bit) & 1) << bit);
            frame[count++] = byte;
        }
    }
    s->rsr = mine && !good ? RSR_CRC : RSR_PRX;
    if (mine && (frame[0] & 1))
        s->rsr |= RSR_PHY;
    for (size_t i = 0; i < count; i++)
        s->fifo[i % DP8390_FIFO] = frame[i];
    s->fifo[count % DP8390_FIFO] = (uint8_t)count;
    s->fifo[(count + 1) % DP8390_FIFO] = (uint8_t)(count >> 8);
    s->fifo[(count + 2) % DP8390_FIFO] = (uint8_t)(count >> 8);
    s->fifo_at = 0;
}

void dp8390_tx_kick(Dp8390 *n)
{
    if (n->tx_running || n->tx_refused || n->quiet || !n->slot_count)
        return;
    n->tx_running = true;
    run_unlocked(n, tx_run);
}

/* TXP is 1. Leaves it so if the queue has no room: the loop calls again. */
void dp8390_transmit(Dp8390 *n)
{
    Dp8390Regs *s = &n->regs;
    size_t len = s->tbcr;

    if (s->tcr & TCR_LB_MASK) {
        loopback(n, len);
    } else if (len < FRAME_MIN || len > FRAME_LONG) {
        guest_fault(n->dev, "frame of %zu bytes to send", len);
        net_count_loss(&n->port, NET_LOSS_HEADER, 1);
        s->tsr = TSR_PTX;
    } else if (n->slot_count >= SLOTS) {
        return;
    } else {
        Dp8390Slot *slot = &n->slots[(n->slot_first + n->slot_count) % SLOTS];

        slot->len = (uint16_t)len;
        copy_out(n, (uint16_t)(s->tpsr * DP8390_PAGE), slot->data, len);
        n->slot_count++;
        s->tsr = TSR_PTX;
    }
    s->ncr = 0;
    s->cr &= (uint8_t)~CR_TXP;
    dp8390_raise(n, ISR_PTX);
    dp8390_tx_kick(n);
}

/* Send what is queued. Keeps (3). Context: loop, no lock held. */
static void tx_run(void *opaque)
{
    Dp8390 *n = opaque;

    lodge_lock(&n->dev->lock);
    n->tx_running = true;
    n->tx_refused = false;
    for (unsigned round = 0; round < TX_ROUNDS && n->slot_count && !n->quiet && !n->tx_refused;
         round++) {
        NetFrame frames[SLOTS];
        struct iovec iov[SLOTS];
        unsigned count = n->slot_count, took;

        for (unsigned i = 0; i < count; i++) {
            Dp8390Slot *slot = &n->slots[(n->slot_first + i) % SLOTS];

            iov[i] = (struct iovec){slot->data, slot->len};
            frames[i] = (NetFrame){.iov = &iov[i], .niov = 1, .len = slot->len};
        }
        lodge_unlock(&n->dev->lock);
        took = MIN(net_send(&n->port, frames, count), count);
        lodge_lock(&n->dev->lock);
        n->slot_first = (n->slot_first + took) % SLOTS;
        n->slot_count -= took;
        n->tx_refused = took < count;
        if (n->regs.cr & CR_TXP)
            dp8390_transmit(n); /* the frame that found no slot */
    }
    n->tx_running = false;
    dp8390_tx_kick(n);
    lodge_unlock(&n->dev->lock);
}

static void nic_writable(NetPort *port)
{
    tx_run(port->opaque);
}

static const NetPortOps nic_port_ops = {.deliver = nic_deliver, .writable = nic_writable};

/**
 * dp8390_join() - Make the port and join it to the network
 * Context: main thread. Return: false with LODGE_ERROR_STATE for a network that is taken.
 */
bool dp8390_join(Dp8390 *n, GError **error)
{
    n->port = (NetPort){
        .ops = &nic_port_ops, .name = n->dev->id, .opaque = n,
        .io = net_card_loop(n->netdev, n->dev->board->io)};
    memcpy(n->port.mac, n->mac, sizeof n->port.mac);
    n->joined = net_join(&n->port, n->netdev, error);
    if (n->joined)
        n->slots = g_new0(Dp8390Slot, SLOTS);
    return n->joined;
}

/**
 * dp8390_part() - Leave the wire, waiting for what was posted; fine where it was never joined
 * Context: main thread, no lock held.
 */
void dp8390_part(Dp8390 *n)
{
    if (n->joined)
        net_part(&n->port);
    n->joined = false;
    g_clear_pointer(&n->slots, g_free);
}
