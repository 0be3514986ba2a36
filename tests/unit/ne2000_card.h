/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NE2000_CARD_H
#define LODGE_NE2000_CARD_H

/* An NE2000 for its tests: the card on a board, set up as drivers do, with a wire to the test. */

#include "lodge/net.h"
#include "testboard.h"

#define CR_STOP 0x21 /* with "abort remote DMA", page 0 */
#define CR_START 0x22
#define CR_PAGE1 0x62
#define CR_PAGE2 0xa2
#define CR_PAGE3 0xe2
#define ISR_PRX 0x01
#define ISR_PTX 0x02
#define ISR_OVW 0x10
#define ISR_CNT 0x20
#define ISR_RDC 0x40
#define ISR_RST 0x80
#define DATA 0x10
#define RESET 0x1f
#define TX_PAGE 0x40
#define RX_FIRST 0x4c
#define RX_STOP 0x80
#define RX_RING (RX_STOP - RX_FIRST)
#define FRAME_TOP 1600

typedef struct Fix {
    NetPort peer;
    GPtrArray *got; /* GBytes: frames that reached the peer */
    unsigned room;  /* frames that the peer takes */
    IoThread *loop; /* of card and peer, set before card_start(); NULL: none */
    TestBoard *tb;
    Device *dev;
    uint16_t io;
    uint8_t irq; /* 0: PCI */
    uint8_t devfn;
} Fix;

extern const uint8_t mac_own[6], mac_other[6], mac_broadcast[6], mac_group[6];

void card_out(Fix *f, unsigned reg, uint8_t val);
uint8_t card_in(Fix *f, unsigned reg);
void card_out_word(Fix *f, unsigned reg, uint16_t val);
/* The card's interrupt pin. */
bool card_irq(Fix *f);
void card_set_address(Fix *f, const uint8_t mac[6]);
uint8_t card_get_curr(Fix *f);
void card_set_ring(Fix *f, uint8_t first, uint8_t stop, uint8_t bnry, uint8_t curr);
/* As the drivers do: word mode, normal operation, ring behind the transmit pages. */
void card_init(Fix *f);
/* @isa: ne2k_isa at 0x300, IRQ 5; else ne2k_pci where pci_assign() puts it. */
void card_start(Fix *f, bool isa);
void card_up(Fix *f, gconstpointer isa);
void card_down(Fix *f, gconstpointer unused);
/* Start a remote DMA by @rd, the RD bits of the command register. */
void card_remote(Fix *f, uint8_t rd, uint16_t at, uint16_t len);
/* By the data port, in words. */
void card_put(Fix *f, uint16_t at, const uint8_t *data, uint16_t len);
void card_get(Fix *f, uint16_t at, uint8_t *data, uint16_t len);
void frame_fill(uint8_t *frame, const uint8_t *dest, size_t len);
void card_send(Fix *f, uint8_t page, uint16_t len);
/* The peer's @i-th frame is @frame. */
void card_check_got(Fix *f, unsigned i, const uint8_t *frame, size_t len);
/* A frame in three pieces, one of them empty. Whether the wire took it. */
bool card_arrive(Fix *f, const uint8_t *frame, size_t len);
/* Whether a least frame to @dest comes into the ring; then it is removed. */
bool card_hears(Fix *f, const uint8_t *dest);

#endif
