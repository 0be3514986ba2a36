/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NIC_DP8390_INTERNAL_H
#define LODGE_NIC_DP8390_INTERNAL_H

/* Shared by the register file and the frame engine of the DP8390. Sections are those of the data
 * sheet, see nic_dp8390.c. */

#include "nic_dp8390.h"

#define DP8390_PAGE 256

/* NIC 10.3 */
#define CR_STP 0x01
#define CR_STA 0x02
#define CR_TXP 0x04
#define CR_RD_MASK 0x38
#define CR_RD_READ 0x08
#define CR_RD_WRITE 0x10
#define CR_RD_SEND 0x18
#define CR_RD_ABORT 0x20
#define CR_PS_SHIFT 6
#define CR_PS_MASK 0xc0
#define ISR_PRX 0x01
#define ISR_PTX 0x02
#define ISR_OVW 0x10
#define ISR_CNT 0x20
#define ISR_RDC 0x40
#define ISR_RST 0x80
#define ISR_CAUSES 0x7f
#define DCR_WTS 0x01
#define DCR_BOS 0x02
#define DCR_LAS 0x04
#define DCR_LS 0x08 /* 0: loopback */
#define DCR_ONES 0x80
#define TCR_CRC 0x01 /* 1: append none */
#define TCR_LB_SHIFT 1
#define TCR_LB_MASK 0x06
#define TCR_ONES 0xe0
#define TSR_PTX 0x01
#define RCR_AB 0x04
#define RCR_AM 0x08
#define RCR_PRO 0x10
#define RCR_MON 0x20
#define RCR_ONES 0xc0
#define RSR_PRX 0x01
#define RSR_CRC 0x02
#define RSR_MPA 0x10
#define RSR_PHY 0x20
#define RSR_DIS 0x40

/* The byte that the controller's address @at selects: NE2000's decoder. Keeps (1). */
static inline uint8_t dp8390_cell(const Dp8390 *n, uint16_t at)
{
    return at & NE2000_MEM ? n->regs.mem[at & (NE2000_MEM - 1)]
                           : n->prom[(at >> 1) % NE2000_PROM];
}

/* All with the card's lock held. */
void dp8390_raise(Dp8390 *n, uint8_t isr_bits);
void dp8390_transmit(Dp8390 *n);
void dp8390_tx_kick(Dp8390 *n);
void dp8390_rx_wake(Dp8390 *n);
void dp8390_set_bnry(Dp8390 *n, uint8_t page);
bool dp8390_unread(const Dp8390 *n);

/* Join and leave the wire. Main thread, no lock held. */
bool dp8390_join(Dp8390 *n, GError **error);
void dp8390_part(Dp8390 *n);

#endif
