/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NIC_DP8390_H
#define LODGE_NIC_DP8390_H

/*
 * The DP8390D network controller and the buffer memory of an NE2000 beside it. A card embeds
 * Dp8390, fills the constant part, and passes accesses of its sixteen register ports, its data
 * port and its reset port on with its device's lock held.
 */

#include "lodge/device.h"
#include "lodge/net.h"

enum {
    DP8390_PORTS = 16,
    DP8390_MAC_LEN = 6,
    DP8390_FIFO = 8,        /* bytes of the half that loopback receives into */
    DP8390_COUNTERS = 3,
    DP8390_TALLY_MAX = 192, /* a tally counter stops here */
    NE2000_MEM = 0x4000,    /* bytes of buffer memory, at 0x4000 of the controller's addresses */
    NE2000_PROM = 16,       /* bytes, each seen twice */
};

/* What the guest sees. Any value of any register is legal: memory is addressed through masks. */
typedef struct Dp8390Regs {
    uint8_t mem[NE2000_MEM];
    uint16_t clda, crda, rbcr, tbcr, counter;
    uint8_t par[DP8390_MAC_LEN], mar[8];
    uint8_t tally[DP8390_COUNTERS];
    uint8_t fifo[DP8390_FIFO], fifo_at;
    uint8_t cr, isr, imr, dcr, tcr, rcr, tsr, rsr, ncr;
    uint8_t pstart, pstop, bnry, curr, tpsr, rnpp, lnpp;
    uint8_t cr9346, config2, config3; /* RTL8029 only */
    bool overflow;                    /* a frame was lost, and none removed since */
} Dp8390Regs;
_Static_assert(sizeof(Dp8390Regs) == NE2000_MEM + 56, "no hole");

typedef struct Dp8390Slot Dp8390Slot;

typedef struct Dp8390 {
    /* Guarded by dev->lock; first, so that a PCI card's state is one range: */
    Dp8390Regs regs;
    /* Properties: */
    NetPort *netdev; /* borrowed from the board: the back end's port */
    uint8_t mac[DP8390_MAC_LEN];
    /* Constant after realize: */
    Device *dev; /* the card */
    bool rtl8029; /* has Realtek's ID bytes and page 3 */
    void (*set_irq)(Device *card, bool asserted); /* lock held */
    uint8_t prom[NE2000_PROM];
    NetPort port; /* ours, joined to netdev */
    bool joined;
    /* Guarded by dev->lock: frames on their way to the loop are slots first .. first + count - 1,
     * in a ring */
    Dp8390Slot *slots; /* owned */
    unsigned slot_first, slot_count;
    bool tx_running; /* the loop will look at the slots, or does it now */
    bool tx_refused; /* the wire will say when it takes more */
    bool rx_posted;  /* the loop will ask the wire for the frame that it holds */
    unsigned rx_held; /* pages that this frame needs; 0: there is none */
    bool quiet;      /* between quiesce and resume */
} Dp8390;

extern const StateDesc dp8390_state; /* of Dp8390Regs, regs_offset 0: a sub-table for cards */

bool dp8390_realize(Dp8390 *n, Device *card, void (*set_irq)(Device *card, bool asserted),
                    bool rtl8029, GError **error);
void dp8390_unrealize(Dp8390 *n);
void dp8390_power_on(Dp8390 *n);
void dp8390_chip_reset(Dp8390 *n);
void dp8390_quiesce(Dp8390 *n);
void dp8390_resume(Dp8390 *n);
void dp8390_update_irq(Dp8390 *n);
bool dp8390_remote_irq(const Dp8390 *n);

uint8_t dp8390_read(Dp8390 *n, unsigned reg);
void dp8390_write(Dp8390 *n, unsigned reg, uint8_t val);
uint32_t dp8390_data_read(Dp8390 *n, unsigned size);
void dp8390_data_write(Dp8390 *n, unsigned size, uint32_t val);

#endif
