// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PCNet's registers: CSRs, BCRs, events and masks, start, stop and reset.
 *
 * Spec: AMD Am79C970A data sheet (19436), "Control and Status Registers", "Bus Configuration
 * Registers", "Reset" (H_RESET, S_RESET, STOP). What is left out and the threads: nic_am79c970.c.
 *
 * Most CSRs can be written while the chip is stopped or suspended only; csr_stopped_mask[] says
 * which and which bits. What it does not name is reserved or read-only.
 *
 * Invariants:
 * (1) generation moves at each stop, initialization and reset.
 * (2) With STOP set none of INIT, STRT, TXON, RXON is, and SPND is clear.
 * (3) An index into csr[] or bcr[] is compared with its size where it is used.
 */
#include "nic_am79c970.h"

#include <string.h>

#include "lodge/num.h"
#include "pci_internal.h"

enum {
    CLOCK_NS = 30, /* of a 33 MHz bus clock, the unit of CSR47 */
};
#define RX_POLL_NS (250 * (NS_PER_SEC / 1000000))
#define POLL_MIN_NS (500 * (NS_PER_SEC / 1000000))
#define POLL_RINGING_NS (128 * (NS_PER_SEC / 1000))

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

/* See the first comment; the others are in csr_write(). */
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

#define BCR9_FDEN 0x0001
#define BCR18_DWIO 0x0080
#define BCR20_STYLE 0x00ff
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

/**
 * pcnet_polls_tx() - Whether the chip looks at the transmit ring unasked
 * Spec: CSR4, DPOLL. Context: dev.lock held.
 */
bool pcnet_polls_tx(const Pcnet *n)
{
    return pcnet_running(n, CSR0_TXON) && !(n->regs.csr[CSR_TEST_FEATURES] & CSR4_DPOLL);
}

/**
 * pcnet_arm_poll_locked() - Set the poll timer for what is to be looked at next, if anything
 * Context: any thread, dev.lock held.
 */
void pcnet_arm_poll_locked(Pcnet *n)
{
    int64_t wait_ns = TIMER_NEVER;

    if (n->quiet || n->dead)
        return;
    if (pcnet_polls_tx(n))
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
    n->pci.regs.cfg[PCI_STATUS + 1] |= PCNET_STATUS_RMABORT;
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

/**
 * pcnet_hard_reset_locked() - All registers as after power-on, the APROM's address loaded
 * Spec: "H_RESET"; "Address PROM Space" (bytes 12 and 13: sum of the others).
 * Context: any thread, dev.lock held.
 */
void pcnet_hard_reset_locked(Pcnet *n)
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
    pcnet_arm_poll_locked(n);
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
        pcnet_arm_poll_locked(n);
    }
}

static void write_style(Pcnet *n, uint16_t val)
{
    if (!resting(n))
        return;
    n->regs.bcr[BCR_STYLE] = val & bcr_table[BCR_STYLE].mask;
    if (pcnet_ssize32(n))
        n->regs.bcr[BCR_STYLE] |= PCNET_BCR20_SSIZE32;
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
        pcnet_arm_poll_locked(n); /* DPOLL */
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

/* ---- the four ports ---- */

/**
 * pcnet_reg_read_locked() - Read RDP, RAP, RESET or BDP
 * @reg: PCNET_RDP to PCNET_BDP; reading PCNET_RESET is S_RESET
 * Context: vCPU thread, dev.lock held.
 */
uint64_t pcnet_reg_read_locked(Pcnet *n, unsigned reg)
{
    switch (reg) {
    case PCNET_RDP:
        return csr_read(n, n->regs.rap);
    case PCNET_RAP:
        return n->regs.rap;
    case PCNET_BDP:
        return bcr_read(n, n->regs.rap);
    default: /* PCNET_RESET: reading it is the reset */
        soft_reset(n);
        return 0;
    }
}

/**
 * pcnet_reg_write_locked() - Write RDP, RAP or BDP; RESET takes no writes on this part
 * Context: vCPU thread, dev.lock held; sets tx_wanted or rx_wanted, which the caller serves.
 */
void pcnet_reg_write_locked(Pcnet *n, unsigned reg, uint16_t val)
{
    switch (reg) {
    case PCNET_RDP:
        csr_write(n, n->regs.rap, val);
        break;
    case PCNET_RAP:
        n->regs.rap = val & PCNET_RAP_MASK;
        break;
    case PCNET_BDP:
        bcr_write(n, n->regs.rap, val);
        break;
    default: /* writes to PCNET_RESET do nothing on this part */
        break;
    }
}

