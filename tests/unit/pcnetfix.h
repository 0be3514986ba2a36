/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PCNETFIX_H
#define LODGE_PCNETFIX_H

/* A driver of the Am79C970A for its tests: word register map, rings of any style, and a wire whose
 * other end keeps what it gets. */

#include <string.h>

#include "lodge/net.h"
#include "lodge/num.h"
#include "pci.h"
#include "testboard.h"

#define RAM_BYTES (1 << 20)
#define MMIO_BASE 0xfe000000u
#define MMIO_LIMIT 0xfec00000u
#define CFG_COMMAND 0x04
#define CFG_STATUS 0x06
#define COMMAND_MASTER 4
#define STATUS_RMABORT 0x2000
#define NOWHERE 0xe0000000u /* no memory there */

#define INIT_AT 0x1000
#define TX_AT 0x2000
#define RX_AT 0x4000
#define TX_BUF(i) (0x10000u + (i) * 0x1000u)
#define RX_BUF(i) (0x40000u + (i) * 0x1000u)
#define BUF_LEN 1544

#define STOP 0x0004
#define STRT 0x0002
#define INIT 0x0001
#define TDMD 0x0008
#define TXON 0x0010
#define RXON 0x0020
#define IENA 0x0040
#define INTR 0x0080
#define IDON 0x0100
#define TINT 0x0200
#define RINT 0x0400
#define MERR 0x0800
#define MISS 0x1000
#define CERR 0x2000
#define BABL 0x4000
#define ERR 0x8000

#define OWN 0x8000
#define D_ERR 0x4000
#define D_STP 0x0200
#define D_ENP 0x0100
#define D_BUFF 0x0400
#define D_CRC 0x0800
#define PAM 0x40
#define LAFM 0x20
#define BAM 0x10

#define LOOP 0x0004
#define INTL 0x0040
#define DXMTFCS 0x0008
#define PROM 0x8000
#define DRCVBC 0x4000
#define DRCVPA 0x2000

#define SPND 0x0001
#define SINT 0x0800
#define PAD 0x0800
#define STRIP 0x0400
#define DPOLL 0x1000
#define MASKED 0x0115

#define MS (NS_PER_SEC / 1000)

typedef struct Fix {
    NetPort peer;
    GPtrArray *got; /* GBytes: frames that reached the peer */
    unsigned room, sends; /* sends: calls of the peer */
    TestBoard *tb;
    Device *dev;
    PciDev *pci;
    uint16_t io;
    unsigned style;
    unsigned tx_len, rx_len; /* log2 */
    uint16_t mode;
    uint32_t tx_at, rx_at;
} Fix;

extern const uint8_t own[6], other[6], group[6], everybody[6];
extern const NetPortOps peer_ops;

uint16_t csr(Fix *f, unsigned i);
void set_csr(Fix *f, unsigned i, uint16_t val);
uint16_t bcr(Fix *f, unsigned i);
void set_bcr(Fix *f, unsigned i, uint16_t val);
bool intx(Fix *f);
void put(Fix *f, uint32_t at, const void *from, size_t len);
void get(Fix *f, uint32_t at, void *to, size_t len);
void put16(Fix *f, uint32_t at, uint16_t v);
void put32(Fix *f, uint32_t at, uint32_t v);
uint16_t get16(Fix *f, uint32_t at);
uint32_t desc_at(Fix *f, uint32_t ring, unsigned i);
void put_desc(Fix *f, uint32_t ring, unsigned i, uint32_t buf, unsigned len, uint16_t status);
uint16_t status_of(Fix *f, uint32_t ring, unsigned i);
uint16_t tx_error(Fix *f, unsigned i);
unsigned mcnt(Fix *f, unsigned i);
void pcnet_board(Fix *f); /* a board with the wire, no card yet */
void pcnet_card(Fix *f);  /* the card, placed as firmware does */
void start(Fix *f);
void fix_up(Fix *f, gconstpointer style);
void fix_down(Fix *f, gconstpointer unused);
void fill(Fix *f, uint32_t at, const uint8_t dest[6], unsigned len);
void offer(Fix *f, unsigned i, const uint8_t dest[6], unsigned len);
const uint8_t *got(Fix *f, unsigned i, size_t *ret_len);
unsigned receive(Fix *f, const uint8_t dest[6], uint32_t len);

#define ADD_STYLE(name, fn, style)                                                                 \
    g_test_add("/pcnet/" name, Fix, GUINT_TO_POINTER(style), fix_up, fn, fix_down)
#define ADD(name, fn) ADD_STYLE(name, fn, 2)
#define ADD_STYLES(name, fn)                                                                       \
    do {                                                                                           \
        ADD_STYLE(name "/0", fn, 0);                                                               \
        ADD_STYLE(name "/1", fn, 1);                                                               \
        ADD_STYLE(name "/2", fn, 2);                                                               \
        ADD_STYLE(name "/3", fn, 3);                                                               \
    } while (0)

#endif
