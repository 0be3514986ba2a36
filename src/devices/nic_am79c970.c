// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * AMD Am79C970A, PCnet-PCI II: Ethernet controller for PCI.
 *
 * Spec: AMD Am79C970A data sheet, order number 19436 ("Register Descriptions": CSR, BCR;
 * "I/O Resources"; "Software Access"). Descriptors and frames: nic_am79c970_ring.c.
 *
 * Modelled: APROM, word and double-word register maps through I/O and memory BARs, all software
 * styles, initialization block, both rings with chaining, polling, automatic padding and stripping,
 * physical, logical and broadcast matching, loopback, suspend, interrupts and their masks, link
 * state in BCR4 to BCR7.
 *
 * Left out, and what the guest sees: LAPP, Magic Packet, sleep, deferral, collisions and parity
 * (their enables read back, their events never come); the serial EEPROM (BCR19 says that none is
 * there; the APROM holds the address all the same); GPSI and AUI (their selection reads back, the
 * link is that of the wire); big-endian transfers (BSWP reads back). Buffer addresses and counts of
 * the DMA engine (CSR18 to CSR23, CSR40 to CSR45, CSR60 to CSR67, CSR82 to CSR86) are plain storage.
 * The part has no MII: BCR23 and up read 0. Frames of the wire have no FCS: four zero bytes stand
 * for it in the receive buffer; a looped-back frame has the right one. Frames below 60 bytes are
 * padded on reception, as a sender on Ethernet would have done; nothing longer than 4091 bytes is
 * sent or received, since MCNT has 12 bits.
 *
 * A DMA access outside memory ends as on the part ("Master Abort"): RMABORT in the PCI status,
 * SINT in CSR5, and the chip stops. Without bus master enable an initialization ends in MERR, and
 * rings rest.
 *
 * No receive descriptor: the part would count a missed frame. Here the wire keeps the frame and its
 * sender is slowed down, until the driver writes a register with a descriptor given back, or a
 * poll finds it (RX_POLL_NS, rising to 2^RX_BACKOFF_MAX times that). So MISS comes from loopback
 * only, and CSR112 reads 0. While the receiver is off frames are lost without a trace, as on the
 * part.
 *
 * Transmit polling: every CSR47 interval, at least POLL_MIN_NS, until the driver first uses TDMD;
 * then it is known to ring and the poll comes every POLL_RINGING_NS, so that an idle card costs
 * nothing to speak of.
 *
 * Threads: registers on vCPU threads, rings on the port's IoThread, both under dev.lock. The handlers
 * take the lock themselves: on a board without threads the rings are served behind the handler, and
 * the wire wants no lock held. TDMD posts one call to the loop; while that is on its way or at work
 * a further one only sets tx_wanted.
 *
 * Invariants:
 * (1) posted says that pcnet_service() is on its way or running: there is one at most.
 * (2) generation moves at each stop, initialization and reset; see the rings' invariant (3).
 * (3) rx_blocked says that the wire holds a frame for us: then a poll is armed, or a pause ends.
 * (4) An index into csr[] or bcr[] is compared with its size where it is used.
 */
#include "nic_am79c970.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"
#include "pci_internal.h"

enum {
    PCNET_VENDOR = 0x1022,
    PCNET_DEVICE = 0x2000,
    PCNET_REVISION = 0x16,
    CLASS_ETHERNET = 0x020000,
    BAR_LEN = 32,
    PIN_INTA = 1,
    PCI_MIN_GNT = 0x3e,
    PCI_MAX_LAT = 0x3f,
    STATUS_HIGH_RMABORT = 0x20, /* of byte PCI_STATUS + 1 */
    SERVICE_ROUNDS = 16, /* batches, then the loop serves others */
    RX_BACKOFF_MAX = 6,
    CLOCK_NS = 30,       /* of a 33 MHz bus clock, the unit of CSR47 */
};
#define RX_POLL_NS (250 * (NS_PER_SEC / 1000000))
#define POLL_MIN_NS (500 * (NS_PER_SEC / 1000000))
#define POLL_RINGING_NS (128 * (NS_PER_SEC / 1000))

/* "I/O Resources": APROM, then four registers of 16 or 32 bits */
enum { REG_RDP, REG_RAP, REG_RESET, REG_BDP };

#define RAP_MASK 0xff
#define APROM_HARDWARE_ID 0x11 /* "Address PROM Space": byte 9 */
#define CHIP_ID (0x2621u << 12 | 0x003) /* CSR88, CSR89: part number, AMD; version 0 */

/* CSR0: events, cleared by a written 1. CERR makes no interrupt. */
#define CSR0_EVENTS 0x7f00
#define CSR0_MASKABLE 0x5f00
#define CSR0_ERRORS (CSR0_BABL | CSR0_CERR | CSR0_MISS | CSR0_MERR)
#define CSR3_WRITABLE 0x5f7c
#define CSR4_EVENTS (CSR4_MFCO | CSR4_UINT | CSR4_RCVCCO | CSR4_TXSTRT | CSR4_JAB)
#define CSR4_MASKED_EVENTS (CSR4_MFCO | CSR4_RCVCCO | CSR4_TXSTRT | CSR4_JAB) /* mask: bit below */
#define CSR4_WRITABLE 0xfd15
#define CSR4_RESET 0x0115
#define CSR5_EVENTS (CSR5_SINT | CSR5_SLPINT | CSR5_EXDINT | CSR5_MPINT) /* enable: bit below */
#define CSR5_ALWAYS (CSR5_SINT | CSR5_SLPINT) /* interrupt without IENA */
#define CSR5_WRITABLE 0xc56f
#define CSR80_RESET 0x1410
#define CSR80_ONES 0xc000
#define CSR100_RESET 0x0200
#define CSR124_WRITABLE 0x001e

/* CSRs that can be written while the chip is stopped or suspended; the others are in csr_write().
 * What is not named is reserved or read-only. */
static const uint16_t csr_stopped_mask[PCNET_CSRS] = {
    [1] = 0xffff,  [2] = 0xffff,  [8] = 0xffff,  [9] = 0xffff,  [10] = 0xffff, [11] = 0xffff,
    [12] = 0xffff, [13] = 0xffff, [14] = 0xffff, [15] = 0xffff, [18] = 0xffff, [19] = 0xffff,
    [20] = 0xffff, [21] = 0xffff, [22] = 0xffff, [23] = 0xffff, [24] = 0xffff, [25] = 0xffff,
    [30] = 0xffff, [31] = 0xffff, [40] = 0xffff, [41] = 0xffff, [42] = 0xffff, [43] = 0xffff,
    [44] = 0xffff, [45] = 0xffff, [46] = 0xffff, [47] = 0xffff, [60] = 0xffff, [61] = 0xffff,
    [62] = 0xffff, [63] = 0xffff, [64] = 0xffff, [65] = 0xffff, [66] = 0xffff, [67] = 0xffff,
    [72] = 0xffff, [74] = 0xffff, [76] = 0xffff, [78] = 0xffff, [80] = 0x3fff, [82] = 0xffff,
    [84] = 0xffff, [85] = 0xffff, [86] = 0xffff, [92] = 0xffff, [100] = 0xffff, [122] = 0x0001,
};

/* "Bus Configuration Registers" */
enum {
    BCR_MISC = 2,
    BCR_LED_FIRST = 4,
    BCR_LED_LAST = 7,
    BCR_FULL_DUPLEX = 9,
    BCR_BURST = 18,
    BCR_EEPROM = 19,
    BCR_STYLE = 20,
};
#define BCR2_APROMWE 0x0100
#define BCR9_FDEN 0x0001
#define BCR18_DWIO 0x0080
#define BCR20_STYLE 0x00ff
#define BCR20_SSIZE32 0x0100
#define BCR20_CSRPCNET 0x0200
#define BCR20_APERREN 0x0400
#define LED_OUT 0x8000
#define LED_FDLSE 0x0100
#define LED_LNKSE 0x0040

static const struct {
    uint16_t reset, mask;
} bcr_table[PCNET_BCRS] = {
    [0] = {0x0005, 0xffff},  /* master mode read active */
    [1] = {0x0005, 0xffff},  /* master mode write active */
    [2] = {0x0002, 0x71bf},  /* miscellaneous: ASEL */
    [4] = {0x00c0, 0x63ff},  /* LEDs: link */
    [5] = {0x0084, 0x63ff},  /* receive */
    [6] = {0x0088, 0x63ff},  /* receive polarity */
    [7] = {0x0090, 0x63ff},  /* transmit */
    [9] = {0x0000, 0x0007},  /* full duplex */
    [16] = {0x0000, 0xffe0}, /* I/O base: reserved for software */
    [17] = {0x0000, 0xffff},
    [18] = {0x9001, 0xf367}, /* burst and bus control */
    [19] = {0x0002, 0x0016}, /* EEPROM: no PVALID, no EEDET */
    [20] = {0x0200, BCR20_STYLE | BCR20_APERREN},
    [21] = {0x0000, 0xffff},
    [22] = {0xff06, 0x0000}, /* MAX_LAT, MIN_GNT */
};

static void pcnet_service(void *opaque);

/* ---- interrupts ---- */

/* CSR0, INTR: an event whose mask or enable lets it through. */
static bool interrupt_pending(const Pcnet *n)
{
    const uint16_t *csr = n->regs.csr;
    uint16_t features = csr[CSR_TEST_FEATURES], ext = csr[CSR_EXTENDED];

    return (csr[CSR_STATUS] & ~csr[CSR_MASKS] & CSR0_MASKABLE) ||
           (features & ~(features << 1) & CSR4_MASKED_EVENTS) || (features & CSR4_UINT) ||
           (ext & (ext << 1) & CSR5_EVENTS);
}

/**
 * pcnet_update_irq_locked() - Drive INTA from events, masks and IENA
 * Context: any thread, dev.lock held.
 */
void pcnet_update_irq_locked(Pcnet *n)
{
    uint16_t ext = n->regs.csr[CSR_EXTENDED];
    bool level = ((n->regs.csr[CSR_STATUS] & CSR0_IENA) && interrupt_pending(n)) ||
                 (ext & (ext << 1) & CSR5_ALWAYS);

    lock_assert_held(&n->pci.dev.lock);
    if (level == n->intx)
        return;
    n->intx = level;
    pci_set_intx(&n->pci, level);
}

/* ---- start and stop ---- */

static bool stopped(const Pcnet *n)
{
    return n->regs.csr[CSR_STATUS] & CSR0_STOP;
}

/* Stopped or suspended: most registers can be written. */
static bool resting(const Pcnet *n)
{
    return stopped(n) || (n->regs.csr[CSR_EXTENDED] & CSR5_SPND);
}

static int64_t poll_interval_ns(const Pcnet *n)
{
    int64_t clocks = 0x10000 - n->regs.csr[CSR_POLL_INTERVAL];

    return MAX(clocks * CLOCK_NS, POLL_MIN_NS);
}

static bool polls_tx(const Pcnet *n)
{
    return pcnet_running(n, CSR0_TXON) && !(n->regs.csr[CSR_TEST_FEATURES] & CSR4_DPOLL);
}

static void arm_poll(Pcnet *n)
{
    int64_t wait_ns = TIMER_NEVER;

    if (n->quiet || n->dead)
        return;
    if (polls_tx(n))
        wait_ns = n->doorbell ? POLL_RINGING_NS : poll_interval_ns(n);
    if (n->rx_blocked)
        wait_ns = MIN(wait_ns, RX_POLL_NS << n->backoff);
    if (wait_ns != TIMER_NEVER)
        timer_arm(n->poll, clock_now_ns(n->pci.dev.board->clock) + wait_ns);
}

/* Setting STOP. Spec: CSR0, STOP; "STOP_RESET". */
static void stop(Pcnet *n)
{
    n->regs.csr[CSR_STATUS] = CSR0_STOP;
    n->regs.csr[CSR_TEST_FEATURES] &= ~CSR4_EVENTS;
    n->regs.csr[CSR_EXTENDED] &= ~CSR5_SPND;
    n->generation++;
    n->tx_wanted = false;
    n->rx_wanted |= n->rx_blocked; /* the wire may drop what it held */
    pcnet_update_irq_locked(n);
}

/**
 * pcnet_master_abort_locked() - A DMA access hit nothing
 * @what: for the log
 * Context: any thread, dev.lock held. The chip is stopped afterwards.
 * Spec: "Master Abort"; PCI status register, RMABORT; CSR5, SINT.
 */
void pcnet_master_abort_locked(Pcnet *n, const char *what, gpa_t at)
{
    guest_fault(&n->pci.dev, "%s at 0x%" G_GINT64_MODIFIER "x is not memory", what, at);
    stop(n);
    n->pci.regs.cfg[PCI_STATUS + 1] |= STATUS_HIGH_RMABORT;
    n->regs.csr[CSR_EXTENDED] |= CSR5_SINT;
    pcnet_update_irq_locked(n);
}

static void soft_reset(Pcnet *n)
{
    uint16_t *csr = n->regs.csr;

    csr[CSR_MASKS] = 0;
    csr[CSR_TEST_FEATURES] = CSR4_RESET;
    csr[CSR_EXTENDED] = 0;
    memset(csr + CSR_LADRF, 0, 4 * sizeof csr[0]);
    csr[CSR_POLL_INTERVAL] = 0;
    csr[CSR_FIFO] = CSR80_RESET;
    csr[CSR_BUS_TIMEOUT] = CSR100_RESET;
    csr[CSR_BMU_TEST] = 0;
    n->regs.rap = 0;
    n->doorbell = false;
    stop(n);
}

static void hard_reset(Pcnet *n)
{
    PcnetRegs *r = &n->regs;
    uint16_t sum = 0;

    memset(r, 0, sizeof *r);
    for (unsigned i = 0; i < PCNET_BCRS; i++)
        r->bcr[i] = bcr_table[i].reset;
    memcpy(r->aprom, n->mac, PCNET_MAC_LEN);
    r->aprom[9] = APROM_HARDWARE_ID;
    r->aprom[14] = r->aprom[15] = 'W';
    for (unsigned i = 0; i < PCNET_APROM_LEN; i++)
        sum += r->aprom[i];
    store_le16(r->aprom + 12, sum);
    for (unsigned i = 0; i < PCNET_MAC_LEN / 2; i++)
        r->csr[CSR_PADR + i] = load_le16(n->mac + 2 * i);
    soft_reset(n);
}

/* ---- control and status registers ---- */

static void initialize(Pcnet *n)
{
    n->generation++;
    if (!pci_bus_master(&n->pci)) {
        guest_fault(&n->pci.dev, "initialization without bus master enable");
        n->regs.csr[CSR_STATUS] |= CSR0_MERR;
        return;
    }
    if (pcnet_init_block_locked(n))
        n->regs.csr[CSR_STATUS] |= CSR0_IDON;
}

static void start(Pcnet *n)
{
    uint16_t mode = n->regs.csr[CSR_MODE], *status = &n->regs.csr[CSR_STATUS];

    *status &= ~(CSR0_RXON | CSR0_TXON);
    *status |= (mode & MODE_DRX ? 0 : CSR0_RXON) | (mode & MODE_DTX ? 0 : CSR0_TXON);
    n->doorbell = false;
    n->tx_wanted = true;
    arm_poll(n);
}

static void write_status(Pcnet *n, uint16_t val)
{
    uint16_t *status = &n->regs.csr[CSR_STATUS], rises;

    if (val & CSR0_STOP) {
        stop(n);
        return;
    }
    *status &= ~(val & CSR0_EVENTS);
    *status = (*status & ~CSR0_IENA) | (val & CSR0_IENA);
    rises = val & ~*status & (CSR0_INIT | CSR0_STRT);
    if (rises)
        *status = (*status & ~CSR0_STOP) | rises;
    if (rises & CSR0_INIT)
        initialize(n);
    if ((rises & CSR0_STRT) && !stopped(n))
        start(n);
    if ((val & CSR0_TDMD) && (*status & CSR0_TXON)) {
        n->doorbell = true;
        n->tx_wanted = !n->tx_waiting;
    }
}

static void write_extended(Pcnet *n, uint16_t val)
{
    uint16_t *ext = &n->regs.csr[CSR_EXTENDED], old = *ext;

    *ext = (old & ~val & CSR5_EVENTS) | (val & CSR5_WRITABLE);
    if (stopped(n))
        *ext &= ~CSR5_SPND;
    if (old & ~*ext & CSR5_SPND) {
        n->tx_wanted = !n->tx_waiting;
        n->rx_wanted |= n->rx_blocked;
        arm_poll(n);
    }
}

static void write_style(Pcnet *n, uint16_t val)
{
    if (!resting(n))
        return;
    n->regs.bcr[BCR_STYLE] = val & bcr_table[BCR_STYLE].mask;
    if (pcnet_ssize32(n))
        n->regs.bcr[BCR_STYLE] |= BCR20_SSIZE32;
    if ((val & BCR20_STYLE) != 1) /* all but ILACC's */
        n->regs.bcr[BCR_STYLE] |= BCR20_CSRPCNET;
}

static void csr_write(Pcnet *n, unsigned i, uint16_t val)
{
    uint16_t *csr = n->regs.csr;

    switch (i) {
    case CSR_STATUS:
        write_status(n, val);
        break;
    case CSR_MASKS:
        csr[i] = val & CSR3_WRITABLE;
        break;
    case CSR_TEST_FEATURES:
        csr[i] = (csr[i] & ~val & CSR4_EVENTS) | (val & CSR4_WRITABLE);
        if (val & CSR4_UINTCMD)
            csr[i] |= CSR4_UINT;
        arm_poll(n); /* DPOLL */
        break;
    case CSR_EXTENDED:
        write_extended(n, val);
        break;
    case CSR_IADR_LOW_ALIAS:
    case CSR_IADR_HIGH_ALIAS:
        csr_write(n, i - CSR_IADR_LOW_ALIAS + CSR_IADR_LOW, val);
        return;
    case CSR_SOFTWARE_STYLE:
        write_style(n, val);
        break;
    case CSR_BMU_TEST:
        if (csr[CSR_TEST_FEATURES] & CSR4_EN124)
            csr[i] = val & CSR124_WRITABLE;
        break;
    default:
        if (i < PCNET_CSRS && resting(n))
            csr[i] = (csr[i] & ~csr_stopped_mask[i]) | (val & csr_stopped_mask[i]);
        break;
    }
    if (n->rx_blocked && pcnet_rx_owned_locked(n))
        n->rx_wanted = true;
    pcnet_update_irq_locked(n);
}

static uint16_t half(uint32_t v, unsigned i)
{
    return (uint16_t)(i & 1 ? v >> 16 : v);
}

static uint16_t csr_read(Pcnet *n, unsigned i)
{
    const uint16_t *csr = n->regs.csr;

    switch (i) {
    case CSR_STATUS:
        return csr[i] | (csr[i] & CSR0_ERRORS ? CSR0_ERR : 0) |
               (interrupt_pending(n) ? CSR0_INTR : 0);
    case CSR_EXTENDED:
        /* SPND reads 1 once the frame under way is done. */
        return csr[i] & ~(n->tx_busy ? CSR5_SPND : 0);
    case CSR_IADR_LOW_ALIAS:
    case CSR_IADR_HIGH_ALIAS:
        return csr[i - CSR_IADR_LOW_ALIAS + CSR_IADR_LOW];
    case CSR_NRDA:
    case CSR_NRDA + 1:
        return half(pcnet_desc_address(n, true, 1), i);
    case CSR_CRDA:
    case CSR_CRDA + 1:
        return half(pcnet_desc_address(n, true, 0), i);
    case CSR_NXDA:
    case CSR_NXDA + 1:
        return half(pcnet_desc_address(n, false, 1), i);
    case CSR_CXDA:
    case CSR_CXDA + 1:
        return half(pcnet_desc_address(n, false, 0), i);
    case CSR_SOFTWARE_STYLE:
        return n->regs.bcr[BCR_STYLE];
    case CSR_FIFO:
        return csr[i] | CSR80_ONES;
    case CSR_CHIP_LOW:
        return (uint16_t)CHIP_ID;
    case CSR_CHIP_HIGH:
        return (uint16_t)(CHIP_ID >> 16);
    default:
        return i < PCNET_CSRS ? csr[i] : 0;
    }
}

/* ---- bus configuration registers ---- */

static void bcr_write(Pcnet *n, unsigned i, uint16_t val)
{
    if (i == BCR_STYLE)
        write_style(n, val);
    else if (i < PCNET_BCRS)
        n->regs.bcr[i] = (n->regs.bcr[i] & ~bcr_table[i].mask) | (val & bcr_table[i].mask);
}

static uint16_t bcr_read(const Pcnet *n, unsigned i)
{
    const uint16_t *bcr = n->regs.bcr;

    if (i >= PCNET_BCRS)
        return 0;
    if (i >= BCR_LED_FIRST && i <= BCR_LED_LAST && n->link_up) {
        bool duplex = (bcr[i] & LED_FDLSE) && (bcr[BCR_FULL_DUPLEX] & BCR9_FDEN);

        if ((bcr[i] & LED_LNKSE) || duplex)
            return bcr[i] | LED_OUT;
    }
    if (i == BCR_BURST && n->regs.dwio)
        return bcr[i] | BCR18_DWIO;
    return bcr[i];
}

/* ---- the 32 bytes of both BARs ---- */

static uint64_t aprom_read(const Pcnet *n, uint64_t off, unsigned size)
{
    uint64_t val = 0;

    for (unsigned i = 0; i < size; i++)
        val |= (uint64_t)(off + i < PCNET_APROM_LEN ? n->regs.aprom[off + i] : 0xff) << (8 * i);
    return val;
}

/* Which register an access means; false: none in this map, its result is undefined. */
static bool decode(const Pcnet *n, uint64_t off, unsigned size, unsigned *ret_reg)
{
    unsigned width = n->regs.dwio ? 4 : 2;

    off -= PCNET_APROM_LEN;
    *ret_reg = (unsigned)(off / width);
    return size == width && off % width == 0 && *ret_reg <= REG_BDP;
}

static uint64_t reg_read(Pcnet *n, unsigned reg)
{
    switch (reg) {
    case REG_RDP:
        return csr_read(n, n->regs.rap);
    case REG_RAP:
        return n->regs.rap;
    case REG_BDP:
        return bcr_read(n, n->regs.rap);
    default: /* REG_RESET: reading it is the reset */
        soft_reset(n);
        return 0;
    }
}

static void reg_write(Pcnet *n, unsigned reg, uint16_t val)
{
    switch (reg) {
    case REG_RDP:
        csr_write(n, n->regs.rap, val);
        break;
    case REG_RAP:
        n->regs.rap = val & RAP_MASK;
        break;
    case REG_BDP:
        bcr_write(n, n->regs.rap, val);
        break;
    default: /* writes to REG_RESET do nothing on this part */
        break;
    }
}

/* End of a handler: have the rings served if it asked for that. Keeps (1). */
static void unlock_and_kick(Pcnet *n)
{
    bool kick = (n->tx_wanted || n->rx_wanted) && !n->posted && !n->quiet && !n->dead;
    IoThread *io = n->pci.dev.board->io;

    if (kick)
        n->posted = true;
    lodge_unlock(&n->pci.dev.lock);
    if (kick && io)
        io_thread_post(io, pcnet_service, n);
    else if (kick)
        pcnet_service(n);
}

static uint64_t pcnet_read(void *owner, uint64_t off, unsigned size)
{
    Pcnet *n = owner;
    uint64_t val = UINT64_MAX;
    unsigned reg;

    lodge_lock(&n->pci.dev.lock);
    if (off < PCNET_APROM_LEN)
        val = aprom_read(n, off, size);
    else if (decode(n, off, size, &reg))
        val = reg_read(n, reg);
    unlock_and_kick(n);
    return val;
}

static void pcnet_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Pcnet *n = owner;
    unsigned reg;

    lodge_lock(&n->pci.dev.lock);
    if (off < PCNET_APROM_LEN) {
        for (unsigned i = 0; i < size && off + i < PCNET_APROM_LEN; i++) {
            if (n->regs.bcr[BCR_MISC] & BCR2_APROMWE)
                n->regs.aprom[off + i] = (uint8_t)(val >> (8 * i));
        }
    } else {
        /* "I/O Resources": a double word written to RDP changes the map, until H_RESET. */
        if (off == PCNET_APROM_LEN && size == 4)
            n->regs.dwio = 1;
        if (decode(n, off, size, &reg))
            reg_write(n, reg, (uint16_t)val);
    }
    unlock_and_kick(n);
}

static const BusRegionOps pcnet_ops = {pcnet_read, pcnet_write, 1 | 2 | 4};

/* ---- serving the rings ---- */

/* IoThread, or the caller's thread on a board without one; no lock held. */
static void pcnet_service(void *opaque)
{
    Pcnet *n = opaque;
    IoThread *io = n->pci.dev.board->io;
    unsigned rounds = 0;

    lodge_lock(&n->pci.dev.lock);
    while (!n->quiet && !n->dead && (n->tx_wanted || n->rx_wanted)) {
        if (rounds++ == SERVICE_ROUNDS) {
            if (io) {
                lodge_unlock(&n->pci.dev.lock);
                io_thread_post(io, pcnet_service, n);
                return;
            }
            timer_arm(n->poll, clock_now_ns(n->pci.dev.board->clock));
            break;
        }
        if (n->rx_wanted) {
            n->rx_wanted = n->rx_blocked = false;
            lodge_unlock(&n->pci.dev.lock);
            net_rx_ready(&n->port);
            lodge_lock(&n->pci.dev.lock);
        }
        if (n->tx_wanted) {
            n->tx_wanted = false;
            if (pcnet_tx_round_locked(n))
                n->tx_wanted = true;
        }
    }
    n->posted = false;
    lodge_unlock(&n->pci.dev.lock);
}

/* On the IoThread with the lock held; drops it. Serves at once unless that is under way. */
static void serve_and_unlock(Pcnet *n)
{
    bool serve = (n->tx_wanted || n->rx_wanted) && !n->posted && !n->quiet && !n->dead;

    if (serve)
        n->posted = true;
    lodge_unlock(&n->pci.dev.lock);
    if (serve)
        pcnet_service(n);
}

static void pcnet_poll(void *opaque)
{
    Pcnet *n = opaque;

    lodge_lock(&n->pci.dev.lock);
    if (polls_tx(n) && !n->tx_waiting)
        n->tx_wanted = true;
    if (n->rx_blocked) {
        if (pcnet_rx_owned_locked(n))
            n->rx_wanted = true;
        else if (n->backoff < RX_BACKOFF_MAX)
            n->backoff++;
    }
    arm_poll(n);
    serve_and_unlock(n);
}

/* ---- port ---- */

static bool pcnet_deliver(NetPort *port, const NetFrame *f)
{
    Pcnet *n = port->opaque;
    PcnetRxResult result;

    lodge_lock(&n->pci.dev.lock);
    result = pcnet_rx_locked(n, f);
    if (result == PCNET_RX_DONE)
        n->backoff = 0;
    if (result == PCNET_RX_FULL) {
        n->rx_blocked = true;
        arm_poll(n);
    }
    lodge_unlock(&n->pci.dev.lock);
    return result != PCNET_RX_FULL;
}

static void pcnet_writable(NetPort *port)
{
    Pcnet *n = port->opaque;

    lodge_lock(&n->pci.dev.lock);
    if (n->tx_waiting) {
        n->tx_waiting = false;
        n->tx_wanted = true;
        arm_poll(n);
    }
    serve_and_unlock(n);
}

static void pcnet_link(NetPort *port, bool up)
{
    Pcnet *n = port->opaque;

    lodge_lock(&n->pci.dev.lock);
    n->link_up = up;
    lodge_unlock(&n->pci.dev.lock);
}

static const NetPortOps pcnet_port_ops = {
    .deliver = pcnet_deliver,
    .writable = pcnet_writable,
    .link = pcnet_link,
};

/* ---- device ---- */

/* Bus master enable was set: what waited for the bus goes on. */
static void pcnet_cfg_written(PciDev *d, unsigned off, unsigned len)
{
    Pcnet *n = (Pcnet *)d;

    if (off <= PCI_COMMAND && off + len > PCI_COMMAND)
        arm_poll(n);
}

static void quiet_on_loop(void *opaque)
{
    Pcnet *n = opaque;

    lodge_lock(&n->pci.dev.lock);
    n->quiet = true;
    lodge_unlock(&n->pci.dev.lock);
    device_quiesced(&n->pci.dev);
}

static void resume_on_loop(void *opaque)
{
    Pcnet *n = opaque;

    lodge_lock(&n->pci.dev.lock);
    n->quiet = false;
    n->tx_wanted = !n->tx_waiting;
    n->rx_wanted |= n->rx_blocked;
    arm_poll(n);
    serve_and_unlock(n);
}

static void on_loop(Pcnet *n, IoCallFn fn)
{
    if (n->pci.dev.board->io)
        io_thread_post(n->pci.dev.board->io, fn, n);
    else
        fn(n);
}

static void pcnet_quiesce(Device *d)
{
    on_loop((Pcnet *)d, quiet_on_loop);
}

static void pcnet_resume(Device *d)
{
    on_loop((Pcnet *)d, resume_on_loop);
}

static void pcnet_reset(Device *d, ResetKind kind)
{
    Pcnet *n = (Pcnet *)d;

    n->intx = false;
    pci_reset(&n->pci);
    hard_reset(n);
    n->backoff = 0;
    if (n->rx_blocked && !n->quiet) /* the poll finds the receiver off and has the wire drop it */
        timer_arm(n->poll, clock_now_ns(d->board->clock));
}

static void visit(void *opaque)
{
}

static void pcnet_unrealize(Device *d)
{
    Pcnet *n = (Pcnet *)d;

    lodge_lock(&d->lock);
    n->dead = true;
    lodge_unlock(&d->lock);
    if (n->joined)
        net_part(&n->port);
    n->joined = false;
    if (n->poll)
        timer_free(n->poll);
    n->poll = NULL;
    if (d->board->io) /* what was posted before has run then */
        io_thread_call(d->board->io, visit, NULL);
    pci_unrealize(&n->pci);
    g_clear_pointer(&n->tx, g_free);
}

static bool pcnet_realize(Device *d, GError **error)
{
    Pcnet *n = (Pcnet *)d;
    PciDev *p = &n->pci;

    if (!n->netdev)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: needs netdev=NAME", d->id);
    if (n->mac[0] & 1)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: mac: is a group address", d->id);
    n->link_up = true;
    n->tx = g_new0(PcnetTx, 1);
    n->poll = timer_new(d->board->timers, pcnet_poll, n);
    n->port = (NetPort){
        .ops = &pcnet_port_ops, .name = d->id, .opaque = n, .io = d->board->io};
    if (!pci_realize(p, -1, 0, PCNET_VENDOR, PCNET_DEVICE, CLASS_ETHERNET, PCNET_REVISION,
                     PIN_INTA, error)) {
        pcnet_unrealize(d);
        return false;
    }
    p->cfg_reset[PCI_MIN_GNT] = 0x06; /* BCR22 */
    p->cfg_reset[PCI_MAX_LAT] = 0xff;
    p->cfg_w1c[PCI_STATUS + 1] |= STATUS_HIGH_RMABORT;
    p->cfg_written = pcnet_cfg_written;
    pci_add_bar(p, 0, PCI_BAR_IO, BAR_LEN, "pcnet", &pcnet_ops, n, NULL);
    pci_add_bar(p, 1, PCI_BAR_MMIO, BAR_LEN, "pcnet", &pcnet_ops, n, NULL);
    n->joined = (!n->netboot || pci_add_rom(p, n->romfile, error)) &&
                net_join(&n->port, n->netdev, error);
    if (!n->joined)
        pcnet_unrealize(d);
    return n->joined;
}

static bool pcnet_post_load(void *obj, unsigned version, GError **error)
{
    Pcnet *n = obj;
    PcnetRegs *r = &n->regs;
    uint16_t status = r->csr[CSR_STATUS], style = r->bcr[BCR_STYLE];
    bool ok;

    if ((status & (CSR0_ERR | CSR0_INTR | CSR0_TDMD)) ||
        ((status & CSR0_STOP) && (status & ~CSR0_STOP & 0xff & ~CSR0_IENA)) ||
        (style & BCR20_SSIZE32) != (pcnet_ssize32(n) ? BCR20_SSIZE32 : 0))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: its registers contradict each other",
                          n->pci.dev.id);
    lodge_lock(&n->pci.dev.lock);
    n->intx = r->csr[CSR_STATUS] & CSR0_IENA; /* whatever it was: the next line drives the pin */
    n->generation++;
    ok = pci_post_load(&n->pci, error);
    if (ok) {
        n->intx = n->pci.regs.cfg[PCI_STATUS] & PCI_STATUS_INTX;
        pcnet_update_irq_locked(n);
    }
    lodge_unlock(&n->pci.dev.lock);
    return ok;
}

static const StateField regs_fields[] = {
    ST_U_ARRAY(PcnetRegs, csr, UINT16_MAX),
    ST_U_ARRAY(PcnetRegs, bcr, UINT16_MAX),
    ST_RAW(PcnetRegs, aprom),
    ST_U(PcnetRegs, rap, RAP_MASK),
    ST_U(PcnetRegs, dwio, 1),
    ST_SKIPPED(PcnetRegs, unused, "only fills up the struct"),
    ST_END,
};
static const StateDesc regs_state = {.name = "pcnet", .version = 1, .oldest = 1,
                                     .regs_size = sizeof(PcnetRegs), .fields = regs_fields};
_Static_assert(offsetof(Pcnet, regs) == offsetof(PciDev, regs) + sizeof(PciRegs),
               "one range for the state");
static const StateField pcnet_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    {"pcnet", ST_SUB, 1, sizeof(PciRegs), sizeof(PcnetRegs), 1, 0, &regs_state, NULL},
    ST_END,
};
static const StateDesc pcnet_state = {
    .name = "pcnet",
    .version = 1,
    .oldest = 1,
    .regs_offset = offsetof(Pcnet, pci.regs),
    .regs_size = sizeof(PciRegs) + sizeof(PcnetRegs),
    .fields = pcnet_fields,
    .pre_save = pci_pre_save,
    .post_load = pcnet_post_load,
};

static const PropSpec pcnet_props[] = {
    {"netdev", "network that it is on", PROP_NET, offsetof(Pcnet, netdev), 0, 0, NULL},
    {"mac", "hardware address", PROP_MAC, offsetof(Pcnet, mac), 0, 0, "52:54:00:12:34:56"},
    PCI_NETBOOT_PROPS(Pcnet, "pxe-pcnet.rom"),
    {0},
};

const DeviceClass pcnet_class = {
    .name = "pcnet",
    .bus = "pci",
    .help = "AMD Am79C970A (PCnet-PCI II) network card",
    .instance_size = sizeof(Pcnet),
    .props = pcnet_props,
    .state = &pcnet_state,
    .realize = pcnet_realize,
    .reset = pcnet_reset,
    .quiesce = pcnet_quiesce,
    .resume = pcnet_resume,
    .unrealize = pcnet_unrealize,
};
