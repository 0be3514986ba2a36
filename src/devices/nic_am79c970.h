/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NIC_AM79C970_H
#define LODGE_NIC_AM79C970_H

/* Between nic_am79c970.c (card), nic_am79c970_regs.c (registers) and nic_am79c970_ring.c
 * (initialization block, descriptors, frames). Names of registers and bits are the data sheet's. */

#include "lodge/net.h"
#include "pci.h"

enum {
    PCNET_CSRS = 128,
    PCNET_BCRS = 32,
    PCNET_APROM_LEN = 16,
    PCNET_MAC_LEN = 6,
};

/* Data sheet, "Control and Status Registers" */
enum {
    CSR_STATUS = 0,
    CSR_IADR_LOW = 1,
    CSR_IADR_HIGH = 2,
    CSR_MASKS = 3,
    CSR_TEST_FEATURES = 4,
    CSR_EXTENDED = 5,
    CSR_LADRF = 8,
    CSR_PADR = 12,
    CSR_MODE = 15,
    CSR_IADR_LOW_ALIAS = 16,
    CSR_IADR_HIGH_ALIAS = 17,
    CSR_BADR = 24,
    CSR_NRDA = 26,
    CSR_CRDA = 28,
    CSR_BADX = 30,
    CSR_NXDA = 32,
    CSR_CXDA = 34,
    CSR_POLL_INTERVAL = 47,
    CSR_SOFTWARE_STYLE = 58,
    CSR_RCVRC = 72,
    CSR_XMTRC = 74,
    CSR_RCVRL = 76,
    CSR_XMTRL = 78,
    CSR_FIFO = 80,
    CSR_CHIP_LOW = 88,
    CSR_CHIP_HIGH = 89,
    CSR_BUS_TIMEOUT = 100,
    CSR_MISSED = 112,
    CSR_COLLISIONS = 114,
    CSR_BMU_TEST = 124,
};

/* Data sheet, "Bus Configuration Registers" */
enum {
    BCR_MISC = 2,
    BCR_LED_FIRST = 4,
    BCR_LED_LAST = 7,
    BCR_FULL_DUPLEX = 9,
    BCR_BURST = 18,
    BCR_STYLE = 20,
};

/* "I/O Resources": behind the APROM, four registers of 16 or 32 bits */
enum { PCNET_RDP, PCNET_RAP, PCNET_RESET, PCNET_BDP };

enum {
    PCNET_RAP_MASK = 0xff,
    PCNET_BCR2_APROMWE = 0x0100,
    PCNET_BCR20_SSIZE32 = 0x0100,
    PCNET_STATUS_RMABORT = 0x20, /* PCI status, upper byte */
    PCNET_BACKOFF_MAX = 6,       /* of polls for a frame that waits */
};

enum { /* CSR0 */
    CSR0_INIT = 1 << 0,
    CSR0_STRT = 1 << 1,
    CSR0_STOP = 1 << 2,
    CSR0_TDMD = 1 << 3,
    CSR0_TXON = 1 << 4,
    CSR0_RXON = 1 << 5,
    CSR0_IENA = 1 << 6,
    CSR0_INTR = 1 << 7,
    CSR0_IDON = 1 << 8,
    CSR0_TINT = 1 << 9,
    CSR0_RINT = 1 << 10,
    CSR0_MERR = 1 << 11,
    CSR0_MISS = 1 << 12,
    CSR0_CERR = 1 << 13,
    CSR0_BABL = 1 << 14,
    CSR0_ERR = 1 << 15,
};

enum { /* CSR3; bits 8 to 12 and 14 mask the same bits of CSR0 */
    CSR3_DXSUFLO = 1 << 6,
};

enum { /* CSR4 */
    CSR4_JAB = 1 << 1,
    CSR4_TXSTRT = 1 << 3,
    CSR4_RCVCCO = 1 << 5,
    CSR4_UINT = 1 << 6,
    CSR4_UINTCMD = 1 << 7,
    CSR4_MFCO = 1 << 9,
    CSR4_ASTRP_RCV = 1 << 10,
    CSR4_APAD_XMT = 1 << 11,
    CSR4_DPOLL = 1 << 12,
    CSR4_EN124 = 1 << 15,
};

enum { /* CSR5 */
    CSR5_SPND = 1 << 0,
    CSR5_MPINT = 1 << 4,
    CSR5_EXDINT = 1 << 7,
    CSR5_SLPINT = 1 << 9,
    CSR5_SINT = 1 << 11,
    CSR5_LTINTEN = 1 << 14,
    CSR5_TOKINTD = 1 << 15,
};

enum { /* CSR15 */
    MODE_DRX = 1 << 0,
    MODE_DTX = 1 << 1,
    MODE_LOOP = 1 << 2,
    MODE_DXMTFCS = 1 << 3,
    MODE_INTL = 1 << 6,
    MODE_DLNKTST = 1 << 12,
    MODE_DRCVPA = 1 << 13,
    MODE_DRCVBC = 1 << 14,
    MODE_PROM = 1 << 15,
};

enum {
    PCNET_TX_FRAMES = 64,      /* frames of a batch */
    PCNET_TX_DESCS = 512,      /* descriptors of a batch */
    PCNET_TX_IOVS = 256,       /* pieces of a batch */
    PCNET_TX_FRAME_IOVS = 16,  /* pieces of a frame; further ones are copied */
    PCNET_FRAME_MAX = 4095,    /* bytes with FCS: MCNT has 12 bits */
    PCNET_FCS_LEN = 4,
};

/* What the guest sees, besides PciRegs. */
typedef struct PcnetRegs {
    uint16_t csr[PCNET_CSRS];
    uint16_t bcr[PCNET_BCRS];
    uint8_t aprom[PCNET_APROM_LEN];
    uint16_t rap;
    uint8_t dwio;   /* 0 or 1: 32-bit register map */
    uint8_t unused; /* the struct has no hole */
} PcnetRegs;

/* One frame of a transmit batch, or one descriptor that is given back unsent. */
typedef struct PcnetTxFrame {
    uint16_t first, descs; /* in PcnetTx.descs */
    uint16_t error;        /* TMD2 31..16; 0: none */
    bool send, skipped, babble;
    bool own_fcs;          /* its last four bytes are the driver's FCS: loopback keeps them */
    unsigned frame;        /* of the send array */
} PcnetTxFrame;

typedef struct PcnetTxDesc {
    gpa_t gpa;
    uint16_t status; /* TMD1 31..16 as read */
} PcnetTxDesc;

/* A batch lives for one round of the transmitter. */
typedef struct PcnetTx {
    unsigned items, frames, descs, iovs, bounced;
    PcnetTxFrame item[PCNET_TX_FRAMES];
    NetFrame frame[PCNET_TX_FRAMES];
    PcnetTxDesc desc[PCNET_TX_DESCS];
    struct iovec iov[PCNET_TX_IOVS];
    uint8_t loop[PCNET_FRAME_MAX];   /* the frame that is being looped back */
    uint8_t bounce[PCNET_FRAME_MAX]; /* copied pieces */
} PcnetTx;

typedef struct Pcnet {
    PciDev pci;
    PcnetRegs regs; /* guarded by dev.lock; right behind PciRegs */
    /* Properties: */
    NetPort *netdev; /* borrowed from the board: the back end's port */
    bool netboot;    /* has its expansion ROM */
    char *romfile;   /* owned */
    uint8_t mac[PCNET_MAC_LEN];
    /* Constant after realize: */
    NetPort port; /* ours, joined to netdev */
    bool joined;
    LodgeTimer *poll; /* owned */
    /* Guarded by dev.lock: */
    bool link_up;
    bool quiet;      /* a pause: no DMA */
    bool dead;       /* unrealize has begun: post nothing */
    bool posted;     /* a service call is on its way or running */
    bool tx_wanted;  /* look at the transmit ring */
    bool rx_wanted;  /* tell the wire that there may be room */
    bool rx_blocked; /* the wire holds a frame for us */
    bool tx_waiting; /* the wire was full: its writable starts us again */
    bool tx_busy;    /* a batch is with the wire and the lock dropped */
    bool doorbell;   /* the driver uses TDMD */
    bool intx;       /* level of INTA */
    uint8_t backoff; /* of polls for a blocked frame, as a shift */
    uint32_t generation; /* a batch of an older one is not written back */
    /* IoThread only: */
    PcnetTx *tx; /* owned */
} Pcnet;

typedef enum PcnetRxResult { PCNET_RX_DONE, PCNET_RX_FULL, PCNET_RX_DROP } PcnetRxResult;

/* ---- nic_am79c970_ring.c; dev.lock held ---- */
bool pcnet_init_block_locked(Pcnet *n);
bool pcnet_tx_round_locked(Pcnet *n);
PcnetRxResult pcnet_rx_locked(Pcnet *n, const NetFrame *f);
bool pcnet_rx_owned_locked(Pcnet *n);
uint32_t pcnet_desc_address(const Pcnet *n, bool rx, unsigned ahead);
bool pcnet_ssize32(const Pcnet *n);

/* ---- nic_am79c970_regs.c; dev.lock held ---- */
uint64_t pcnet_reg_read_locked(Pcnet *n, unsigned reg);
void pcnet_reg_write_locked(Pcnet *n, unsigned reg, uint16_t val);
void pcnet_hard_reset_locked(Pcnet *n);
void pcnet_arm_poll_locked(Pcnet *n);
bool pcnet_polls_tx(const Pcnet *n);
void pcnet_update_irq_locked(Pcnet *n);
void pcnet_master_abort_locked(Pcnet *n, const char *what, gpa_t at);

static inline bool pcnet_running(const Pcnet *n, uint16_t on)
{
    return (n->regs.csr[CSR_STATUS] & on) && !(n->regs.csr[CSR_EXTENDED] & CSR5_SPND) &&
           !n->quiet && pci_bus_master(&n->pci);
}

#endif
