/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * DP8390D network controller, with the buffer memory and address PROM of an NE2000.
 *
 * Specification: National Semiconductor DP8390D/NS32490D data sheet, July 1995 ("NIC"), and
 * application note AN-937 for loopback; page 3 and the ID bytes: Realtek RTL8029AS data sheet,
 * section 5. The board decodes address bit 14: 16 KiB of memory where it is 1, the PROM where it is
 * 0; bit 15 is not decoded.
 *
 * Modelled: register pages 0 to 2 (3 on the RTL8029), ring with wrap and overflow, address filter
 * with hash, monitor mode, tally counters, remote read, write and send packet, the three loopback
 * modes. Loopback receives into the FIFO and never into memory (NIC 12), so a guest finds the last
 * bytes, the frame's check sequence and its length there; modes 2 and 3 turn round before the
 * cable too, as in the twisted-pair parts. Left out: collisions, and errors on the wire, which
 * has none: their status bits and counters stay 0. Bus timing, the FIFO's threshold, addresses of
 * more than 16 bits, and byte order (BOS) outside of loopback have no effect. A remote DMA of
 * length 0 is over at once, where the part would move 65536 bytes. The four bytes of check sequence
 * behind a frame in the ring are 0: the wire carries none. The serial EEPROM of the RTL8029 is
 * absent: its data line reads 0. Full duplex changes nothing: the wire always is.
 *
 * The wire has flow control, which a cable lacks: a frame that finds a sound ring full stays in the
 * wire and comes in when the boundary moves, so a guest that is slow loses nothing and sees no
 * overflow; until then PRX stays set. A frame that could not fit that ring if it were empty, or
 * meets a ring that is set up wrongly (pointers outside of it) and is stopped by the boundary,
 * overflows as NIC 7.0 says: OVW, RST until the boundary moves, and the missed-packet tally. Frames
 * from the wire are padded to 60 bytes; those over 1518 (with a VLAN tag, without the check
 * sequence) are on no Ethernet and are lost. A stopped part (STP) hears nothing; in monitor mode
 * each frame counts as missed.
 *
 * A frame is sent when the queue to the loop took it: 64 of them, then TXP stays 1 until there is
 * room. Lengths that no Ethernet carries (under 14, over 1518 bytes) are a guest fault and sent
 * nowhere; the part would not notice either, so PTX is set. What is in the queue when a snapshot
 * is taken is lost to its copy, as on a cable.
 *
 * This file has the registers, the remote DMA and the card's life; nic_dp8390_frames.c sends and
 * receives.
 *
 * Threads: vCPU threads at the ports, the loop thread with frames; both under the card's lock,
 * which is never held in a call of the wire.
 *
 * Invariants:
 * (1) Every access to the card's memory goes through dp8390_cell() or copies within one page, whose
 *     address is masked there: no register value leads out of it.
 * (2) Work for a register access or a frame is bounded by the frame's length, which is compared
 *     before use; no loop waits for one register to equal another.
 * (3) Only the loop's run takes slots away; it sends them unlocked, so others only add.
 * (4) The interrupt is asserted exactly while ISR AND IMR is not 0 (RST has no mask bit).
 */
#include "nic_dp8390_internal.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"

/* NIC 10.1: read in page 0; where a register is another when written it has two names. */
enum {
    R_CR, R_CLDA0, R_CLDA1, R_BNRY, R_TSR, R_NCR, R_FIFO, R_ISR,
    R_CRDA0, R_CRDA1, R_ID0, R_ID1, R_RSR, R_CNTR0, R_CNTR1, R_CNTR2,
};
enum {
    W_PSTART = 1, W_PSTOP, W_BNRY, W_TPSR, W_TBCR0, W_TBCR1, W_ISR,
    W_RSAR0, W_RSAR1, W_RBCR0, W_RBCR1, W_RCR, W_TCR, W_DCR, W_IMR,
};
enum { P1_PAR0 = 1, P1_CURR = 7, P1_MAR0 = 8 };
enum { P2_RNPP = 3, P2_LNPP = 5, P2_COUNTER1 = 6, P2_COUNTER0 = 7 };
enum { P3_9346CR = 1, P3_CONFIG0 = 3, P3_CONFIG2 = 5, P3_CONFIG3 = 6, P3_ID0 = 14, P3_ID1 = 15 };

/* RTL8029AS 5.3 */
#define CR9346_MODE 0xc0
#define CR9346_AUTO_LOAD 0x40
#define CR9346_CONFIG 0xc0 /* CONFIG2 and CONFIG3 may be written */
#define CR9346_MASK 0xfe
#define CONFIG2_MASK 0xe0
#define CONFIG3_MASK 0x46

/* ---- interrupts ---- */

/**
 * dp8390_update_irq() - Drive the card's interrupt pin from ISR and IMR; keeps (4)
 * Context: card's lock held.
 */
void dp8390_update_irq(Dp8390 *n)
{
    n->set_irq(n->dev, n->regs.isr & n->regs.imr & ISR_CAUSES);
}

/**
 * dp8390_remote_irq() - Whether the end of a remote DMA interrupts
 * Context: card's lock held.
 */
bool dp8390_remote_irq(const Dp8390 *n)
{
    return n->regs.imr & ISR_RDC;
}

/* Set causes in ISR. Context: card's lock held. */
void dp8390_raise(Dp8390 *n, uint8_t bits)
{
    n->regs.isr |= bits;
    dp8390_update_irq(n);
}

/* NIC 10.3: RST is a state, not an event. */
static uint8_t read_isr(const Dp8390Regs *s)
{
    return s->isr | ((s->cr & CR_STP) || s->overflow ? ISR_RST : 0);
}
/* ---- remote DMA, NIC 9.0 ---- */

static void remote_done(Dp8390 *n)
{
    Dp8390Regs *s = &n->regs;

    dp8390_raise(n, ISR_RDC);
    if ((s->cr & CR_RD_MASK) == CR_RD_SEND)
        dp8390_set_bnry(n, dp8390_cell(n, (uint16_t)(s->bnry * DP8390_PAGE + 1)));
}

static inline void remote_advance(Dp8390 *n, unsigned unit)
{
    Dp8390Regs *s = &n->regs;

    s->crda = (uint16_t)(s->crda + unit);
    if (s->crda % DP8390_PAGE < unit && s->crda / DP8390_PAGE == s->pstop)
        s->crda = (uint16_t)(s->pstart * DP8390_PAGE + s->crda % DP8390_PAGE);
    s->rbcr = s->rbcr > unit ? (uint16_t)(s->rbcr - unit) : 0;
    if (!s->rbcr)
        remote_done(n);
}

/* A read or write command with no bytes to move is over at once: drivers probe for the interrupt
 * line so. */
static void remote_start(Dp8390 *n)
{
    Dp8390Regs *s = &n->regs;

    if ((s->cr & CR_RD_MASK) == CR_RD_SEND) {
        s->crda = (uint16_t)(s->bnry * DP8390_PAGE);
        s->rnpp = dp8390_cell(n, (uint16_t)(s->crda + 1));
        s->rbcr = (uint16_t)(dp8390_cell(n, (uint16_t)(s->crda + 2)) |
                             dp8390_cell(n, (uint16_t)(s->crda + 3)) << 8);
    }
    if (!s->rbcr)
        remote_done(n);
}

static inline bool remote_reads(const Dp8390Regs *s)
{
    return s->rbcr && (s->cr & CR_RD_READ) && !(s->cr & CR_RD_ABORT);
}

static inline bool remote_writes(const Dp8390Regs *s)
{
    return s->rbcr && (s->cr & CR_RD_MASK) == CR_RD_WRITE;
}

/**
 * dp8390_data_read() - Read the card's data port
 * @size: 1, 2 or 4 bytes; 4 are two cycles of the remote DMA. In word mode a cycle moves a word,
 *        whose address has no bit 0, else a byte.
 * Context: card's lock held. Return: all-ones where no remote read is going on.
 */
uint32_t dp8390_data_read(Dp8390 *n, unsigned size)
{
    Dp8390Regs *s = &n->regs;
    uint32_t val = 0;

    for (unsigned shift = 0; shift < size * 8; shift += 16) {
        if (!remote_reads(s)) {
            val |= UINT32_C(0xffff) << shift;
        } else if (s->dcr & DCR_WTS) {
            uint16_t at = s->crda & (uint16_t)~1u;
            uint32_t word = at & NE2000_MEM ? load_le16(s->mem + (at & (NE2000_MEM - 2)))
                                            : dp8390_cell(n, at) * UINT32_C(0x101);
            val |= word << shift;
            remote_advance(n, 2);
        } else {
            val |= (uint32_t)dp8390_cell(n, s->crda) << shift;
            remote_advance(n, 1);
        }
    }
    return val;
}

/**
 * dp8390_data_write() - Write the card's data port
 * @size: as for dp8390_data_read(); in word mode a lone byte becomes the low half of a word
 * Context: card's lock held. Without a remote write going on, and to the PROM, it is lost.
 */
void dp8390_data_write(Dp8390 *n, unsigned size, uint32_t val)
{
    Dp8390Regs *s = &n->regs;

    for (unsigned shift = 0; shift < size * 8 && remote_writes(s); shift += 16) {
        if (s->dcr & DCR_WTS) {
            if (s->crda & NE2000_MEM)
                store_le16(s->mem + (s->crda & (NE2000_MEM - 2)), (uint16_t)(val >> shift));
            remote_advance(n, 2);
        } else {
            if (s->crda & NE2000_MEM)
                s->mem[s->crda & (NE2000_MEM - 1)] = (uint8_t)(val >> shift);
            remote_advance(n, 1);
        }
    }
}
/* ---- registers ---- */

/* NIC 10.3, "Command Register": neither STP nor STA leaves the state as it is; TXP goes to 0 by
 * the end of the transmission only. */
static void write_cr(Dp8390 *n, uint8_t val)
{
    Dp8390Regs *s = &n->regs;
    uint8_t old = s->cr, mode = old & (CR_STP | CR_STA);

    if (val & CR_STP)
        mode = CR_STP;
    else if (val & CR_STA)
        mode = CR_STA;
    s->cr = (uint8_t)((val & (CR_PS_MASK | CR_RD_MASK)) | (old & CR_TXP) | mode);
    if (mode != (old & (CR_STP | CR_STA)))
        dp8390_rx_wake(n);
    if ((val & CR_RD_MASK) && !(val & CR_RD_ABORT))
        remote_start(n);
    if ((val & CR_TXP) && !(old & CR_TXP) && mode == CR_STA) {
        s->cr |= CR_TXP;
        dp8390_transmit(n);
    }
}

static void write_page0(Dp8390 *n, unsigned reg, uint8_t val)
{
    Dp8390Regs *s = &n->regs;

    switch (reg) {
    case W_PSTART:
        s->pstart = val;
        dp8390_rx_wake(n);
        break;
    case W_PSTOP:
        s->pstop = val;
        dp8390_rx_wake(n);
        break;
    case W_BNRY:
        dp8390_set_bnry(n, val);
        break;
    case W_TPSR:
        s->tpsr = val;
        break;
    case W_TBCR0:
        s->tbcr = (s->tbcr & 0xff00) | val;
        break;
    case W_TBCR1:
        s->tbcr = (uint16_t)((s->tbcr & 0xff) | val << 8);
        break;
    case W_ISR: /* NIC 10.3: a written 1 clears; RST stays */
        s->isr &= (uint8_t)~val;
        if (dp8390_unread(n)) {
            n->set_irq(n->dev, false); /* an edge for the ISA card, whose driver may be leaving */
            s->isr |= ISR_PRX;
        }
        dp8390_update_irq(n);
        break;
    case W_RSAR0:
        s->crda = (s->crda & 0xff00) | val;
        break;
    case W_RSAR1:
        s->crda = (uint16_t)((s->crda & 0xff) | val << 8);
        break;
    case W_RBCR0:
        s->rbcr = (s->rbcr & 0xff00) | val;
        break;
    case W_RBCR1:
        s->rbcr = (uint16_t)((s->rbcr & 0xff) | val << 8);
        break;
    case W_RCR: /* NIC 10.3: DIS shows monitor mode */
        s->rcr = val & (uint8_t)~RCR_ONES;
        s->rsr = (uint8_t)((s->rsr & ~RSR_DIS) | (val & RCR_MON ? RSR_DIS : 0));
        dp8390_rx_wake(n);
        break;
    case W_TCR:
        s->tcr = val & (uint8_t)~TCR_ONES;
        dp8390_rx_wake(n);
        break;
    case W_DCR:
        s->dcr = val & (uint8_t)~DCR_ONES;
        break;
    default: /* W_IMR */
        s->imr = val & ISR_CAUSES;
        dp8390_update_irq(n);
        break;
    }
}

static void write_page1(Dp8390 *n, unsigned reg, uint8_t val)
{
    Dp8390Regs *s = &n->regs;

    if (reg == P1_CURR) {
        s->curr = val;
        dp8390_rx_wake(n);
    } else if (reg >= P1_MAR0) {
        s->mar[reg - P1_MAR0] = val;
    } else {
        s->par[reg - P1_PAR0] = val;
    }
}

/* NIC 10.1: for diagnostics; the rest of the page is read-only. */
static void write_page2(Dp8390Regs *s, unsigned reg, uint8_t val)
{
    switch (reg) {
    case R_CLDA0:
        s->clda = (s->clda & 0xff00) | val;
        break;
    case R_CLDA1:
        s->clda = (uint16_t)((s->clda & 0xff) | val << 8);
        break;
    case P2_RNPP:
        s->rnpp = val;
        break;
    case P2_LNPP:
        s->lnpp = val;
        break;
    case P2_COUNTER1:
        s->counter = (uint16_t)((s->counter & 0xff) | val << 8);
        break;
    case P2_COUNTER0:
        s->counter = (s->counter & 0xff00) | val;
        break;
    default:
        break;
    }
}

/* RTL8029AS 5.3 */
static void write_page3(Dp8390Regs *s, unsigned reg, uint8_t val)
{
    bool config = (s->cr9346 & CR9346_MODE) == CR9346_CONFIG;

    if (reg == P3_9346CR) {
        s->cr9346 = val & CR9346_MASK;
        if ((val & CR9346_MODE) == CR9346_AUTO_LOAD) /* done already */
            s->cr9346 = s->config2 = s->config3 = 0;
    } else if (reg == P3_CONFIG2 && config) {
        s->config2 = val & CONFIG2_MASK;
    } else if (reg == P3_CONFIG3 && config) {
        s->config3 = val & CONFIG3_MASK;
    }
}

/**
 * dp8390_write() - Write register port @reg, 0 to 15
 * Context: card's lock held; without a loop thread it is dropped and retaken to send.
 */
void dp8390_write(Dp8390 *n, unsigned reg, uint8_t val)
{
    unsigned page = n->regs.cr >> CR_PS_SHIFT;

    if (reg == R_CR)
        write_cr(n, val);
    else if (page == 0)
        write_page0(n, reg, val);
    else if (page == 1)
        write_page1(n, reg, val);
    else if (page == 2)
        write_page2(&n->regs, reg, val);
    else if (n->rtl8029)
        write_page3(&n->regs, reg, val);
}

/* NIC 12.0: the pointer moves with each read; outside of loopback the part must not be asked. */
static uint8_t read_fifo(Dp8390Regs *s)
{
    if (!(s->tcr & TCR_LB_MASK))
        return 0;
    uint8_t val = s->fifo[s->fifo_at % DP8390_FIFO];
    s->fifo_at = (s->fifo_at + 1) % DP8390_FIFO;
    return val;
}

static uint8_t read_page0(Dp8390 *n, unsigned reg)
{
    Dp8390Regs *s = &n->regs;
    uint8_t val;

    switch (reg) {
    case R_CLDA0:
        return (uint8_t)s->clda;
    case R_CLDA1:
        return (uint8_t)(s->clda >> 8);
    case R_BNRY:
        return s->bnry;
    case R_TSR:
        return s->tsr;
    case R_NCR:
        return s->ncr;
    case R_FIFO:
        return read_fifo(s);
    case R_ISR:
        return read_isr(s);
    case R_CRDA0:
        return (uint8_t)s->crda;
    case R_CRDA1:
        return (uint8_t)(s->crda >> 8);
    case R_ID0: /* RTL8029AS 5.3; reserved in the NIC */
        return n->rtl8029 ? 'P' : 0xff;
    case R_ID1:
        return n->rtl8029 ? 'C' : 0xff;
    case R_RSR:
        return s->rsr;
    default: /* R_CNTR0 to R_CNTR2: NIC 10.3: cleared by the read */
        val = s->tally[reg - R_CNTR0];
        s->tally[reg - R_CNTR0] = 0;
        return val;
    }
}

static uint8_t read_page1(const Dp8390Regs *s, unsigned reg)
{
    if (reg == P1_CURR)
        return s->curr;
    return reg >= P1_MAR0 ? s->mar[reg - P1_MAR0] : s->par[reg - P1_PAR0];
}

static uint8_t read_page2(const Dp8390Regs *s, unsigned reg)
{
    switch (reg) {
    case W_PSTART:
        return s->pstart;
    case W_PSTOP:
        return s->pstop;
    case P2_RNPP:
        return s->rnpp;
    case W_TPSR:
        return s->tpsr;
    case P2_LNPP:
        return s->lnpp;
    case P2_COUNTER1:
        return (uint8_t)(s->counter >> 8);
    case P2_COUNTER0:
        return (uint8_t)s->counter;
    case W_RCR:
        return s->rcr | RCR_ONES;
    case W_TCR:
        return s->tcr | TCR_ONES;
    case W_DCR:
        return s->dcr | DCR_ONES;
    case W_IMR:
        return s->imr;
    default:
        return 0xff;
    }
}

/* RTL8029AS 5.3. CONFIG0 0: no BNC connector. */
static uint8_t read_page3(const Dp8390Regs *s, unsigned reg)
{
    switch (reg) {
    case P3_9346CR:
        return s->cr9346;
    case P3_CONFIG0:
        return 0;
    case P3_CONFIG2:
        return s->config2;
    case P3_CONFIG3:
        return s->config3;
    case P3_ID0:
        return 0x29;
    case P3_ID1:
        return 0x80;
    default:
        return 0xff;
    }
}

/**
 * dp8390_read() - Read register port @reg, 0 to 15
 * Context: card's lock held.
 */
uint8_t dp8390_read(Dp8390 *n, unsigned reg)
{
    unsigned page = n->regs.cr >> CR_PS_SHIFT;

    if (reg == R_CR)
        return n->regs.cr;
    if (page == 0)
        return read_page0(n, reg);
    if (page == 1)
        return read_page1(&n->regs, reg);
    if (page == 2)
        return read_page2(&n->regs, reg);
    return n->rtl8029 ? read_page3(&n->regs, reg) : 0xff;
}
/* ---- life ---- */

/**
 * dp8390_chip_reset() - What the RESET pin does
 * Spec: NIC 11.0, "Reset": the registers that it does not name keep their values. Other interrupt
 * causes are withdrawn. Context: card's lock held.
 */
void dp8390_chip_reset(Dp8390 *n)
{
    Dp8390Regs *s = &n->regs;

    s->cr = CR_STP | CR_RD_ABORT;
    s->isr = s->imr = 0;
    s->dcr |= DCR_LAS;
    s->tcr &= (uint8_t)~TCR_LB_MASK;
    s->overflow = false;
    dp8390_update_irq(n);
    dp8390_rx_wake(n);
}

/**
 * dp8390_power_on() - All registers and memory 0, then the reset
 * Context: card's lock held.
 */
void dp8390_power_on(Dp8390 *n)
{
    memset(&n->regs, 0, sizeof n->regs);
    dp8390_chip_reset(n);
}

/* Bring a part of the card's life to the loop, or do it here where there is none. */
static void call_loop(Dp8390 *n, IoCallFn fn)
{
    if (n->port.io)
        io_thread_post(n->port.io, fn, n);
    else
        fn(n);
}

static void quiet_on_loop(void *opaque)
{
    Dp8390 *n = opaque;

    lodge_lock(&n->dev->lock);
    n->quiet = true;
    lodge_unlock(&n->dev->lock);
    device_quiesced(n->dev);
}

/**
 * dp8390_quiesce() - Take no frame from the wire and send none
 * Context: main thread; device_quiesced() is called, by the loop if there is one.
 */
void dp8390_quiesce(Dp8390 *n)
{
    call_loop(n, quiet_on_loop);
}

static void resume_on_loop(void *opaque)
{
    Dp8390 *n = opaque;

    lodge_lock(&n->dev->lock);
    n->quiet = false;
    if (n->regs.cr & CR_TXP)
        dp8390_transmit(n);
    dp8390_tx_kick(n);
    dp8390_rx_wake(n);
    lodge_unlock(&n->dev->lock);
}

/**
 * dp8390_resume() - Go on after a quiesce, or with registers from a snapshot
 * Context: main thread.
 */
void dp8390_resume(Dp8390 *n)
{
    call_loop(n, resume_on_loop);
}

/**
 * dp8390_realize() - Join the wire; the properties netdev and mac are set
 * @card: the device that embeds @n, whose lock guards it
 * @set_irq: drives the card's interrupt; called with the lock held
 * Context: main thread. Return: false with LODGE_ERROR_CONFIG for a missing network or a group
 * address, LODGE_ERROR_STATE for a network that is taken; then there is nothing to undo.
 */
bool dp8390_realize(Dp8390 *n, Device *card, void (*set_irq)(Device *card, bool asserted),
                    bool rtl8029, GError **error)
{
    n->dev = card;
    n->set_irq = set_irq;
    n->rtl8029 = rtl8029;
    if (!n->netdev)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: needs netdev=NAME", card->id);
    if (n->netdev->next)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: this card has one pair of queues; leave out queues, or take "
                          "model=virtio",
                          card->id);
    if (!net_mac_check(n->mac, card->id, error))
        return false;
    memcpy(n->prom, n->mac, DP8390_MAC_LEN);
    n->prom[NE2000_PROM - 2] = n->prom[NE2000_PROM - 1] = 'W'; /* word-wide */
    return dp8390_join(n, error);
}

/**
 * dp8390_unrealize() - Leave the wire; accepts what was never realized
 * Context: main thread, quiesced, the ports unmapped: net_part() waits for what was posted.
 */
void dp8390_unrealize(Dp8390 *n)
{
    dp8390_part(n);
}

static const StateField dp8390_fields[] = {
    ST_RAW(Dp8390Regs, mem),
    ST_U(Dp8390Regs, clda, UINT16_MAX),
    ST_U(Dp8390Regs, crda, UINT16_MAX),
    ST_U(Dp8390Regs, rbcr, UINT16_MAX),
    ST_U(Dp8390Regs, tbcr, UINT16_MAX),
    ST_U(Dp8390Regs, counter, UINT16_MAX),
    ST_RAW(Dp8390Regs, par),
    ST_RAW(Dp8390Regs, mar),
    ST_U_ARRAY(Dp8390Regs, tally, DP8390_TALLY_MAX),
    ST_RAW(Dp8390Regs, fifo),
    ST_U(Dp8390Regs, fifo_at, DP8390_FIFO - 1),
    ST_U(Dp8390Regs, cr, UINT8_MAX),
    ST_U(Dp8390Regs, isr, ISR_CAUSES),
    ST_U(Dp8390Regs, imr, ISR_CAUSES),
    ST_U(Dp8390Regs, dcr, UINT8_MAX & ~DCR_ONES),
    ST_U(Dp8390Regs, tcr, UINT8_MAX & ~TCR_ONES),
    ST_U(Dp8390Regs, rcr, UINT8_MAX & ~RCR_ONES),
    ST_U(Dp8390Regs, tsr, UINT8_MAX),
    ST_U(Dp8390Regs, rsr, UINT8_MAX),
    ST_U(Dp8390Regs, ncr, UINT8_MAX),
    ST_U(Dp8390Regs, pstart, UINT8_MAX),
    ST_U(Dp8390Regs, pstop, UINT8_MAX),
    ST_U(Dp8390Regs, bnry, UINT8_MAX),
    ST_U(Dp8390Regs, curr, UINT8_MAX),
    ST_U(Dp8390Regs, tpsr, UINT8_MAX),
    ST_U(Dp8390Regs, rnpp, UINT8_MAX),
    ST_U(Dp8390Regs, lnpp, UINT8_MAX),
    ST_U(Dp8390Regs, cr9346, CR9346_MASK),
    ST_U(Dp8390Regs, config2, CONFIG2_MASK),
    ST_U(Dp8390Regs, config3, CONFIG3_MASK),
    ST_B(Dp8390Regs, overflow),
    ST_END,
};
const StateDesc dp8390_state = {.name = "dp8390", .version = 1, .oldest = 1,
                                .regs_size = sizeof(Dp8390Regs), .fields = dp8390_fields};
