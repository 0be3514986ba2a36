/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The Am79C970A on a real wire, whose other end is the test's. */
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

static const uint8_t own[6] = {0x52, 0x54, 0, 0, 0, 1};
static const uint8_t other[6] = {0x52, 0x54, 0, 0, 0, 2};
static const uint8_t group[6] = {0x33, 0x33, 0, 0, 0, 5};
static const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static unsigned peer_send(NetPort *p, const NetFrame *v, unsigned n)
{
    Fix *x = p->opaque;
    unsigned took = MIN(n, x->room);

    x->sends++;
    for (unsigned k = 0; k < took; k++) {
        GByteArray *b = g_byte_array_new();

        for (unsigned i = 0; i < v[k].niov; i++)
            g_byte_array_append(b, v[k].iov[i].iov_base, (guint)v[k].iov[i].iov_len);
        g_assert_cmpuint(b->len, ==, v[k].len);
        g_ptr_array_add(x->got, g_byte_array_free_to_bytes(b));
    }
    x->room -= took;
    return took;
}

static const NetPortOps peer_ops = {.send = peer_send};

/* ---- the chip through its I/O BAR, word map ---- */

static uint16_t csr(Fix *f, unsigned i)
{
    test_out(f->tb, f->io + 0x12, 2, i);
    return (uint16_t)test_in(f->tb, f->io + 0x10, 2);
}

static void set_csr(Fix *f, unsigned i, uint16_t val)
{
    test_out(f->tb, f->io + 0x12, 2, i);
    test_out(f->tb, f->io + 0x10, 2, val);
}

static uint16_t bcr(Fix *f, unsigned i)
{
    test_out(f->tb, f->io + 0x12, 2, i);
    return (uint16_t)test_in(f->tb, f->io + 0x16, 2);
}

static void set_bcr(Fix *f, unsigned i, uint16_t val)
{
    test_out(f->tb, f->io + 0x12, 2, i);
    test_out(f->tb, f->io + 0x16, 2, val);
}

static bool intx(Fix *f)
{
    return test_cfg_read(f->tb, f->pci->devfn, CFG_STATUS, 2) & 8;
}

static void put(Fix *f, uint32_t at, const void *from, size_t len)
{
    g_assert_true(mem_write(f->tb->board.mem, at, from, len));
}

static void get(Fix *f, uint32_t at, void *to, size_t len)
{
    g_assert_true(mem_read(f->tb->board.mem, at, to, len));
}

static void put16(Fix *f, uint32_t at, uint16_t v)
{
    put(f, at, &v, sizeof v);
}

static void put32(Fix *f, uint32_t at, uint32_t v)
{
    put(f, at, &v, sizeof v);
}

static uint16_t get16(Fix *f, uint32_t at)
{
    uint16_t v;

    get(f, at, &v, sizeof v);
    return v;
}

/* ---- descriptors of the fixture's style ---- */

static uint32_t desc_at(Fix *f, uint32_t ring, unsigned i)
{
    return ring + i * (f->style ? 16 : 8);
}

static void put_desc(Fix *f, uint32_t ring, unsigned i, uint32_t buf, unsigned len, uint16_t status)
{
    uint32_t at = desc_at(f, ring, i);
    uint16_t bcnt = (uint16_t)(0xf000 | (-len & 0xfff));

    if (!f->style) {
        put16(f, at, (uint16_t)buf);
        put16(f, at + 4, bcnt);
        put16(f, at + 6, 0);
        put16(f, at + 2, (uint16_t)(status | (buf >> 16 & 0xff)));
        return;
    }
    put32(f, at + (f->style == 3 ? 8 : 0), buf);
    put32(f, at + (f->style == 3 ? 0 : 8), 0);
    put16(f, at + 4, bcnt);
    put16(f, at + 6, status);
}

static uint16_t status_of(Fix *f, uint32_t ring, unsigned i)
{
    return get16(f, desc_at(f, ring, i) + (f->style ? 6 : 2));
}

static uint16_t tx_error(Fix *f, unsigned i)
{
    return get16(f, desc_at(f, f->tx_at, i) + (!f->style ? 6 : f->style == 3 ? 2 : 10));
}

static unsigned mcnt(Fix *f, unsigned i)
{
    return get16(f, desc_at(f, f->rx_at, i) + (!f->style ? 6 : f->style == 3 ? 0 : 8));
}

static void init_block(Fix *f)
{
    uint8_t b[28] = {0};

    if (f->style) {
        store_le16(b, f->mode);
        b[2] = (uint8_t)(f->rx_len << 4);
        b[3] = (uint8_t)(f->tx_len << 4);
        memcpy(b + 4, own, 6);
        store_le32(b + 20, f->rx_at);
        store_le32(b + 24, f->tx_at);
    } else {
        store_le16(b, f->mode);
        memcpy(b + 2, own, 6);
        store_le32(b + 16, f->rx_at | f->rx_len << 29);
        store_le32(b + 20, f->tx_at | f->tx_len << 29);
    }
    put(f, INIT_AT, b, sizeof b);
}

/* As a driver does: style, block, INIT, STRT; receive buffers in the ring. */
static void start(Fix *f)
{
    set_csr(f, 0, STOP);
    set_bcr(f, 20, (uint16_t)f->style);
    for (unsigned i = 0; i < 1u << f->rx_len && f->rx_at == RX_AT; i++)
        put_desc(f, f->rx_at, i, RX_BUF(i), BUF_LEN, OWN);
    for (unsigned i = 0; i < 1u << f->tx_len && f->tx_at == TX_AT; i++)
        put_desc(f, f->tx_at, i, 0, 0, 0);
    init_block(f);
    set_csr(f, 1, (uint16_t)INIT_AT);
    set_csr(f, 2, INIT_AT >> 16);
    set_csr(f, 0, INIT);
    g_assert_true(csr(f, 0) & IDON);
    set_csr(f, 0, STRT | IENA | IDON);
}

static void boot(Fix *f)
{
    f->peer = (NetPort){.ops = &peer_ops, .name = "peer", .opaque = f};
    f->got = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    f->room = UINT32_MAX;
    f->tb = test_board_new(RAM_BYTES);
    test_board_add(f->tb, "i440fx", NULL);
    test_board_backend(f->tb, "wire", &f->peer);
    f->dev = test_board_add(f->tb, "pcnet", "netdev=wire,mac=52:54:00:00:00:01");
    f->pci = (PciDev *)f->dev;
    pci_assign(f->tb->board.pci, MMIO_BASE, MMIO_LIMIT);
    f->io = (uint16_t)(test_cfg_read(f->tb, f->pci->devfn, 0x10, 4) & ~3u);
    test_cfg_write(f->tb, f->pci->devfn, CFG_COMMAND, 2,
                   test_cfg_read(f->tb, f->pci->devfn, CFG_COMMAND, 2) | COMMAND_MASTER);
    f->style = 2;
    f->tx_len = f->rx_len = 2;
    f->tx_at = TX_AT;
    f->rx_at = RX_AT;
}

static void fix_up(Fix *f, gconstpointer style)
{
    boot(f);
    f->style = GPOINTER_TO_UINT(style);
    start(f);
}

static void fix_down(Fix *f, gconstpointer unused)
{
    test_board_free(f->tb);
    g_ptr_array_free(f->got, TRUE);
}

static void fill(Fix *f, uint32_t at, const uint8_t dest[6], unsigned len)
{
    g_autofree uint8_t *b = g_malloc(len + 6);

    for (unsigned i = 0; i < len; i++)
        b[i] = (uint8_t)(i * 7);
    memcpy(b, dest, 6);
    store_be16(b + 12, 0x0800);
    put(f, at, b, len);
}

/* One frame of @len bytes in descriptor @i, not announced. */
static void offer(Fix *f, unsigned i, const uint8_t dest[6], unsigned len)
{
    fill(f, TX_BUF(i), dest, MAX(len, 14));
    put_desc(f, f->tx_at, i, TX_BUF(i), len, OWN | D_STP | D_ENP);
}

static const uint8_t *got(Fix *f, unsigned i, size_t *ret_len)
{
    g_assert_cmpuint(i, <, f->got->len);
    return g_bytes_get_data(g_ptr_array_index(f->got, i), ret_len);
}

static unsigned receive(Fix *f, const uint8_t dest[6], uint32_t len)
{
    g_autofree uint8_t *b = g_malloc0(len + 14);
    struct iovec iov[2] = {{b, MIN(len, 9)}, {b + 9, len - MIN(len, 9)}};
    NetFrame nf = {.iov = iov, .niov = len > 9 ? 2 : 1, .len = len};

    memcpy(b, dest, 6);
    store_be16(b + 12, 0x0800);
    if (len > 14)
        b[len - 1] = 0x77;
    return net_send(&f->peer, &nf, 1);
}

/* ---- registers ---- */

static void test_identity(Fix *f, gconstpointer unused)
{
    uint16_t sum = 0;

    g_assert_cmphex(test_cfg_read(f->tb, f->pci->devfn, 0, 4), ==, 0x20001022);
    g_assert_cmphex(test_cfg_read(f->tb, f->pci->devfn, 8, 4), ==, 0x02000016);
    for (unsigned i = 0; i < 6; i++)
        g_assert_cmphex(test_in(f->tb, f->io + i, 1), ==, own[i]);
    g_assert_cmphex(test_in(f->tb, f->io + 14, 2), ==, 0x5757);
    g_assert_cmphex(test_in(f->tb, f->io + 14, 4), ==, 0xffff5757);
    for (unsigned i = 0; i < 16; i++)
        sum += i == 12 || i == 13 ? 0 : test_in(f->tb, f->io + i, 1);
    g_assert_cmphex(test_in(f->tb, f->io + 12, 2), ==, sum);
    g_assert_cmphex((csr(f, 88) | (uint32_t)csr(f, 89) << 16) >> 12 & 0xffff, ==, 0x2621);
    g_assert_cmphex(csr(f, 88) & 0xfff, ==, 3);
    g_assert_cmphex(csr(f, 12), ==, 0x5452);
    /* The APROM can be written where BCR2 says so. */
    test_out(f->tb, f->io + 6, 1, 0x5a);
    g_assert_cmphex(test_in(f->tb, f->io + 6, 1), ==, 0);
    set_bcr(f, 2, bcr(f, 2) | 0x100);
    test_out(f->tb, f->io + 6, 2, 0x115a);
    test_out(f->tb, f->io + 14, 4, 0x01020304);
    g_assert_cmphex(test_in(f->tb, f->io + 6, 2), ==, 0x115a);
}

static void test_maps(Fix *f, gconstpointer unused)
{
    uint32_t mmio = test_cfg_read(f->tb, f->pci->devfn, 0x14, 4) & ~0xfu;

    g_assert_cmphex(csr(f, 0) & STOP, ==, 0);
    test_in(f->tb, f->io + 0x14, 2); /* RESET */
    g_assert_cmphex(csr(f, 0), ==, STOP);
    g_assert_cmphex(test_in(f->tb, f->io + 0x12, 2), ==, 0);
    test_out(f->tb, f->io + 0x12, 2, 88);
    g_assert_cmphex(test_in(f->tb, f->io + 0x12, 2), ==, 88);
    g_assert_cmphex(test_in(f->tb, f->io + 0x18, 2), ==, 0xffff);
    g_assert_cmphex(test_in(f->tb, f->io + 0x10, 1), ==, 0xff);
    test_out(f->tb, f->io + 0x14, 2, 0); /* no reset by writing */
    g_assert_cmphex(test_in(f->tb, f->io + 0x12, 2), ==, 88);
    g_assert_cmphex(test_peek(f->tb, mmio + 0x10, 2), ==, 0x1003);
    /* A double word at RDP changes the map until a hard reset. */
    test_out(f->tb, f->io + 0x12, 2, 0);
    test_out(f->tb, f->io + 0x10, 4, STOP);
    g_assert_cmphex(test_in(f->tb, f->io + 0x10, 2), ==, 0xffff);
    g_assert_cmphex(test_in(f->tb, f->io + 0x10, 4), ==, STOP);
    test_out(f->tb, f->io + 0x14, 4, 18);
    g_assert_cmphex(test_in(f->tb, f->io + 0x1c, 4), ==, 0x9081);
    test_peek(f->tb, mmio + 0x18, 4);
    g_assert_cmphex(test_in(f->tb, f->io + 0x14, 4), ==, 0);
    test_out(f->tb, f->io + 0x14, 4, 88);
    g_assert_cmphex(test_in(f->tb, f->io + 0x14, 4), ==, 88);
    g_assert_cmphex(test_in(f->tb, f->io + 0x10, 4), ==, 0x1003);
    device_reset(f->dev, RESET_COLD);
}

static void test_registers(Fix *f, gconstpointer unused)
{
    static const struct {
        unsigned i;
        uint16_t write, read;
    } rows[] = {
        {1, 0xffff, 0xffff}, {16, 0x1234, 0x1234}, {3, 0xffff, 0x5f7c}, {47, 0xabcd, 0xabcd},
        {80, 0xffff, 0xffff}, {80, 0, 0xc000}, {82, 0x1111, 0x1111}, {88, 0, 0x1003},
        {112, 7, 0}, {127, 0xffff, 0}, {6, 0xffff, 0}, {15, 0x8044, 0x8044},
        {76, 0x1234, 0x1234}, {200, 0xffff, 0},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) { /* running: closed, but for CSR3 */
        uint16_t old = csr(f, rows[i].i);

        set_csr(f, rows[i].i, rows[i].write);
        if (rows[i].i != 3)
            g_assert_cmphex(csr(f, rows[i].i), ==, old);
    }
    set_bcr(f, 20, 0);
    g_assert_cmphex(bcr(f, 20), ==, 0x302);
    set_csr(f, 0, STOP);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        set_csr(f, rows[i].i, rows[i].write);
        g_assert_cmphex(csr(f, rows[i].i), ==, rows[i].read);
    }
    g_assert_cmphex(csr(f, 1), ==, csr(f, 16));
    set_csr(f, 124, 0xffff);
    g_assert_cmphex(csr(f, 124), ==, 0);
    set_csr(f, 4, 0x8000);
    set_csr(f, 124, 0xffff);
    g_assert_cmphex(csr(f, 124), ==, 0x1e);
    set_bcr(f, 20, 0x401);
    g_assert_cmphex(bcr(f, 20), ==, 0x501);
    g_assert_cmphex(csr(f, 58), ==, 0x501);
    set_csr(f, 58, 3);
    g_assert_cmphex(bcr(f, 20), ==, 0x303);
    set_bcr(f, 20, 4); /* unknown: 16 bits */
    g_assert_cmphex(bcr(f, 20), ==, 0x204);
    g_assert_cmphex(bcr(f, 32), ==, 0);
    g_assert_cmphex(bcr(f, 255), ==, 0);
    set_bcr(f, 255, 1);
    g_assert_cmphex(bcr(f, 0), ==, 5);
    set_bcr(f, 22, 0);
    g_assert_cmphex(bcr(f, 22), ==, 0xff06);
}

static void test_link(Fix *f, gconstpointer unused)
{
    g_assert_cmphex(bcr(f, 4), ==, 0x80c0);
    g_assert_cmphex(bcr(f, 5), ==, 0x0084);
    set_bcr(f, 5, 0x0184);
    g_assert_cmphex(bcr(f, 5), ==, 0x0184);
    set_bcr(f, 9, 1);
    g_assert_cmphex(bcr(f, 5), ==, 0x8184);
    net_set_link(&f->peer, false);
    g_assert_cmphex(bcr(f, 4), ==, 0x00c0);
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmphex(status_of(f, TX_AT, 0), ==, D_ERR | D_STP | D_ENP);
    g_assert_cmphex(tx_error(f, 0), ==, 0x0800); /* LCAR */
    g_assert_cmphex(csr(f, 0) & (CERR | ERR), ==, CERR | ERR);
    g_assert_cmpuint(f->got->len, ==, 0);
}

static void test_start_stop(Fix *f, gconstpointer unused)
{
    g_assert_cmphex(csr(f, 0), ==, RXON | TXON | IENA | STRT | INIT);
    set_csr(f, 0, STOP | STRT | INIT);
    g_assert_cmphex(csr(f, 0), ==, STOP);
    f->mode = 3;
    start(f);
    g_assert_cmphex(csr(f, 0) & (RXON | TXON), ==, 0);
    /* No bus, no block. */
    test_cfg_write(f->tb, f->pci->devfn, CFG_COMMAND, 2, 3);
    set_csr(f, 0, STOP);
    set_csr(f, 0, INIT);
    g_assert_cmphex(csr(f, 0) & (MERR | IDON), ==, MERR);
    /* A block outside memory. */
    test_cfg_write(f->tb, f->pci->devfn, CFG_COMMAND, 2, 7);
    for (f->style = 0; f->style < 3; f->style += 2) {
        set_csr(f, 0, STOP);
        set_bcr(f, 20, (uint16_t)f->style);
        set_csr(f, 2, NOWHERE >> 16);
        set_csr(f, 5, SINT | 0x400);
        g_assert_false(intx(f));
        set_csr(f, 0, INIT | STRT);
        g_assert_cmphex(csr(f, 0) & (0xff7f & ~IENA), ==, STOP);
        g_assert_true(csr(f, 5) & SINT);
        g_assert_true(intx(f)); /* SINT needs no IENA */
        g_assert_true(test_cfg_read(f->tb, f->pci->devfn, CFG_STATUS, 2) & STATUS_RMABORT);
        test_cfg_write(f->tb, f->pci->devfn, CFG_STATUS, 2, STATUS_RMABORT);
        g_assert_false(test_cfg_read(f->tb, f->pci->devfn, CFG_STATUS, 2) & STATUS_RMABORT);
    }
}

static void test_interrupts(Fix *f, gconstpointer unused)
{
    set_csr(f, 4, 0x0080 | MASKED); /* UINTCMD */
    g_assert_cmphex(csr(f, 4), ==, MASKED | 0x40);
    g_assert_true(intx(f) && (csr(f, 0) & INTR));
    set_csr(f, 0, 0);
    g_assert_false(intx(f));
    g_assert_true(csr(f, 0) & INTR);
    set_csr(f, 0, IENA);
    g_assert_true(intx(f));
    set_csr(f, 4, 0x40 | MASKED);
    g_assert_false(intx(f));
    set_csr(f, 3, 0x0400); /* RINTM */
    g_assert_cmpuint(receive(f, own, 60), ==, 1);
    g_assert_true(csr(f, 0) & RINT);
    g_assert_false(intx(f));
    set_csr(f, 3, 0);
    g_assert_true(intx(f));
    set_csr(f, 0, RINT | IENA);
    g_assert_false(intx(f));
    set_csr(f, 4, 0x0111); /* TXSTRT unmasked */
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmphex(csr(f, 4), ==, 0x0119);
    set_csr(f, 0, TINT | IENA);
    g_assert_true(intx(f));
    set_csr(f, 4, 0x0119);
    g_assert_false(intx(f));
}

/* ---- sending ---- */

static void test_send(Fix *f, gconstpointer unused)
{
    const uint8_t *b;
    size_t len;

    offer(f, 0, other, 100);
    set_csr(f, 0, TDMD | IENA);
    b = got(f, 0, &len);
    g_assert_cmpuint(len, ==, 100);
    g_assert_cmpint(memcmp(b, other, 6), ==, 0);
    g_assert_cmpuint(b[99], ==, (uint8_t)(99 * 7));
    g_assert_cmphex(status_of(f, TX_AT, 0), ==,
                    D_STP | D_ENP | (f->style ? 0 : TX_BUF(0) >> 16));
    g_assert_cmphex(csr(f, 0) & (TINT | ERR), ==, TINT);
    g_assert_true(intx(f));
    set_csr(f, 0, TINT | IENA);
    /* Three more, chained, round the end of the ring: one call of the wire, one interrupt. */
    f->sends = 0;
    offer(f, 1, other, 60);
    fill(f, TX_BUF(2), other, 200);
    put_desc(f, TX_AT, 2, TX_BUF(2), 50, OWN | D_STP);
    put_desc(f, TX_AT, 3, TX_BUF(2) + 50, 0, OWN);
    put_desc(f, TX_AT, 0, TX_BUF(2) + 50, 150, OWN | D_ENP);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->sends, ==, 1);
    b = got(f, 2, &len);
    g_assert_cmpuint(len, ==, 200);
    g_assert_cmpuint(b[199], ==, (uint8_t)(199 * 7));
    for (unsigned i = 0; i < 4; i++)
        g_assert_false(status_of(f, TX_AT, i) & OWN);
    g_assert_cmphex(csr(f, 0) & TINT, ==, TINT);
    g_assert_cmphex(csr(f, 34), ==, (uint16_t)desc_at(f, TX_AT, 1)); /* CXDA */
    g_assert_cmphex(csr(f, 32), ==, (uint16_t)desc_at(f, TX_AT, 2));
    g_assert_cmphex(csr(f, 33), ==, 0);
    g_assert_cmpuint(f->dev->faults, ==, 0);
}

static void test_poll_tx(Fix *f, gconstpointer unused)
{
    offer(f, 0, other, 60);
    test_advance(f->tb, 3 * MS); /* CSR47 is 0: 65536 clocks */
    g_assert_cmpuint(f->got->len, ==, 1);
    set_csr(f, 4, DPOLL | MASKED);
    offer(f, 1, other, 60);
    test_advance(f->tb, 1000 * MS);
    g_assert_cmpuint(f->got->len, ==, 1);
    set_csr(f, 0, TDMD | IENA); /* from here on it rings */
    g_assert_cmpuint(f->got->len, ==, 2);
    set_csr(f, 4, MASKED);
    test_advance(f->tb, 300 * MS);
    offer(f, 2, other, 60);
    test_advance(f->tb, 3 * MS);
    unsigned early = f->got->len;
    test_advance(f->tb, 130 * MS);
    g_assert_cmpuint(early, ==, 2);
    g_assert_cmpuint(f->got->len, ==, 3);
}

static void test_pad_and_fcs(Fix *f, gconstpointer unused)
{
    size_t len;

    offer(f, 0, other, 20);
    set_csr(f, 0, TDMD | IENA);
    got(f, 0, &len);
    g_assert_cmpuint(len, ==, 20);
    set_csr(f, 4, PAD | MASKED);
    offer(f, 1, other, 20);
    set_csr(f, 0, TDMD | IENA);
    const uint8_t *b = got(f, 1, &len);
    g_assert_cmpuint(len, ==, 60);
    g_assert_cmpuint(b[19], ==, (uint8_t)(19 * 7));
    g_assert_cmpuint(b[20], ==, 0);
    /* The driver brings the FCS: it does not reach the wire. */
    set_csr(f, 4, MASKED);
    f->mode = DXMTFCS;
    start(f);
    offer(f, 0, other, 104);
    offer(f, 1, other, 15); /* too short without it */
    offer(f, 2, other, 3);
    fill(f, TX_BUF(3), other, 100); /* ADD_FCS: the chip does */
    put_desc(f, TX_AT, 3, TX_BUF(3), 100, OWN | 0x2000 | D_STP | D_ENP);
    set_csr(f, 0, TDMD | IENA);
    got(f, 2, &len);
    g_assert_cmpuint(len, ==, 100);
    got(f, 3, &len);
    g_assert_cmpuint(len, ==, 100);
    g_assert_cmpuint(f->got->len, ==, 4);
    f->mode = 0; /* NO_FCS of the ILACC style */
    f->style = 1;
    start(f);
    fill(f, TX_BUF(0), other, 100);
    put_desc(f, TX_AT, 0, TX_BUF(0), 50, OWN | D_STP);
    put_desc(f, TX_AT, 1, TX_BUF(0) + 50, 2, OWN);
    put_desc(f, TX_AT, 2, TX_BUF(0) + 52, 2, OWN | 0x2000 | D_ENP);
    set_csr(f, 0, TDMD | IENA);
    got(f, 4, &len);
    g_assert_cmpuint(len, ==, 50);
}

static void test_tx_interrupt_modes(Fix *f, gconstpointer unused)
{
    set_csr(f, 5, 0x8000); /* TOKINTD */
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_false(csr(f, 0) & TINT);
    set_csr(f, 5, 0x4000); /* LTINTEN */
    offer(f, 1, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_false(csr(f, 0) & TINT);
    fill(f, TX_BUF(2), other, 60);
    put_desc(f, TX_AT, 2, TX_BUF(2), 60, OWN | 0x1000 | D_STP | D_ENP);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(csr(f, 0) & TINT);
    g_assert_cmpuint(f->got->len, ==, 3);
}

/* A frame whose end never comes: the transmitter stops, unless DXSUFLO. */
static void test_unfinished(Fix *f, gconstpointer unused)
{
    put_desc(f, TX_AT, 0, TX_BUF(0), 60, OWN | D_ENP); /* no STP: passed over */
    put_desc(f, TX_AT, 1, TX_BUF(0), 60, OWN | D_STP);
    set_csr(f, 3, 0x40);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmphex(status_of(f, TX_AT, 0), ==, D_ENP);
    g_assert_cmphex(status_of(f, TX_AT, 1), ==, D_ERR | D_STP);
    g_assert_cmphex(tx_error(f, 1), ==, 0xc000);
    g_assert_true(csr(f, 0) & TXON);
    /* The whole ring without ENP: its own first descriptor is not owned any more. */
    set_csr(f, 3, 0);
    set_csr(f, 0, TINT | IENA);
    for (unsigned i = 0; i < 4; i++)
        put_desc(f, TX_AT, i, TX_BUF(0), 60, OWN | D_STP);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmphex(tx_error(f, 1), ==, 0xc000); /* last in order: 2, 3, 0, 1 */
    g_assert_cmphex(csr(f, 0) & (TXON | TINT | RXON), ==, TINT | RXON);
    g_assert_cmpuint(f->got->len, ==, 0);
}

/* A full wire stops us, in order, and nothing is lost or doubled. */
static void test_backpressure(Fix *f, gconstpointer unused)
{
    uint32_t sent = 0;

    f->room = 2;
    for (unsigned i = 0; i < 100000; i++) {
        offer(f, i % 4, other, 1500);
        put32(f, TX_BUF(i % 4) + 14, i);
        set_csr(f, 0, TDMD | IENA);
        sent++;
        if (status_of(f, TX_AT, i % 4) & OWN)
            break;
    }
    test_advance(f->tb, 500 * MS);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(status_of(f, TX_AT, (sent - 1) % 4) & OWN);
    f->room = UINT32_MAX;
    net_rx_ready(&f->peer);
    g_assert_false(status_of(f, TX_AT, (sent - 1) % 4) & OWN);
    g_assert_cmpuint(f->got->len, ==, sent);
    for (uint32_t i = 0; i < sent; i++)
        g_assert_cmpuint(load_le32(got(f, i, NULL) + 14), ==, i);
}

/* More than a batch of pieces, frames and copies; nothing is lost. */
static void test_batches(Fix *f, gconstpointer unused)
{
    unsigned n = 512, at = 0, frames = 0;
    size_t len;

    f->tx_len = 9;
    start(f);
    fill(f, TX_BUF(0), other, 4095);
    for (unsigned k = 0; k < 3; k++) { /* 100 pieces of 10 bytes each: copied from the 16th on */
        for (unsigned i = 0; i < 100; i++)
            put_desc(f, TX_AT, at++, TX_BUF(0) + 10 * i, 10,
                     OWN | (i == 0 ? D_STP : 0) | (i == 99 ? D_ENP : 0));
        frames++;
    }
    for (unsigned k = 0; k < 2; k++) { /* the longest, in 31 pieces */
        for (unsigned i = 0; i < 31; i++)
            put_desc(f, TX_AT, at++, TX_BUF(0) + 130 * i, 130,
                     OWN | (i == 0 ? D_STP : 0) | (i == 30 ? D_ENP : 0));
        frames++;
    }
    while (at < n) {
        put_desc(f, TX_AT, at++, TX_BUF(0), 60, OWN | D_STP | D_ENP);
        frames++;
    }
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, frames);
    g_assert_cmpuint(f->sends, <, 12);
    for (unsigned k = 0; k < 5; k++) {
        const uint8_t *b = got(f, k, &len);

        g_assert_cmpuint(len, ==, k < 3 ? 1000 : 31 * 130);
        for (unsigned i = 14; i < len; i++)
            g_assert_cmpuint(b[i], ==, (uint8_t)(i * 7));
    }
    g_assert_cmphex(csr(f, 0) & (BABL | ERR), ==, BABL | ERR); /* those of 4030 bytes */
}

/* ---- receiving ---- */

static void test_receive(Fix *f, gconstpointer unused)
{
    uint8_t b[104];

    g_assert_cmpuint(receive(f, own, 100), ==, 1);
    g_assert_cmphex(status_of(f, RX_AT, 0), ==,
                    D_STP | D_ENP | (f->style ? PAM : RX_BUF(0) >> 16));
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
    get(f, RX_BUF(0), b, sizeof b);
    g_assert_cmpint(memcmp(b, own, 6), ==, 0);
    g_assert_cmpuint(b[99], ==, 0x77);
    g_assert_true(csr(f, 0) & RINT);
    g_assert_true(intx(f));
    g_assert_cmpuint(receive(f, everybody, 20), ==, 1); /* padded */
    g_assert_cmpuint(mcnt(f, 1), ==, 64);
    g_assert_cmphex(csr(f, 28), ==, (uint16_t)desc_at(f, RX_AT, 2)); /* CRDA */
    g_assert_cmphex(csr(f, 26), ==, (uint16_t)desc_at(f, RX_AT, 3));
    if (f->style)
        g_assert_cmphex(status_of(f, RX_AT, 1), ==, D_STP | D_ENP | BAM);
    g_assert_cmpuint(receive(f, other, 60), ==, 1);
    g_assert_cmpuint(receive(f, own, 13), ==, 1);
    g_assert_true(status_of(f, RX_AT, 2) & OWN);
    g_assert_cmpuint(f->dev->faults, ==, 0);
}

static void test_filter(Fix *f, gconstpointer unused)
{
    static const struct {
        uint16_t mode;
        bool hash;
        const uint8_t *dest;
        int match; /* -1: not received */
    } rows[] = {
        {0, false, own, PAM},         {0, false, other, -1},
        {0, false, group, -1},        {0, true, group, LAFM},
        {0, true, other, -1},         {0, false, everybody, BAM},
        {DRCVBC, false, everybody, -1}, {DRCVBC, true, everybody, LAFM},
        {DRCVPA, true, own, -1},      {PROM, false, other, 0},
        {PROM, false, own, PAM},      {PROM | DRCVPA, false, own, 0},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        f->mode = rows[i].mode;
        start(f);
        set_csr(f, 5, SPND);
        for (unsigned w = 0; w < 4; w++)
            set_csr(f, 8 + w, rows[i].hash ? 0xffff : 0);
        set_csr(f, 5, 0);
        g_assert_cmpuint(receive(f, rows[i].dest, 60), ==, 1);
        g_assert_cmphex(status_of(f, RX_AT, 0), ==,
                        rows[i].match < 0 ? OWN : D_STP | D_ENP | rows[i].match);
    }
}

/* The bit of an address is the upper six of its CRC: 0xd9b4c5fe's for 01:00:5e:00:00:01. */
static void test_hash(Fix *f, gconstpointer unused)
{
    static const uint8_t all_hosts[6] = {1, 0, 0x5e, 0, 0, 1};
    unsigned hits = 0, bit = 64;

    for (unsigned i = 0; i < 64; i++) {
        start(f);
        set_csr(f, 5, SPND);
        for (unsigned w = 0; w < 4; w++)
            set_csr(f, 8 + w, (uint16_t)(i / 16 == w ? 1u << (i % 16) : 0));
        set_csr(f, 5, 0);
        receive(f, all_hosts, 60);
        if (!(status_of(f, RX_AT, 0) & OWN)) {
            hits++;
            bit = i;
        }
    }
    g_assert_cmpuint(hits, ==, 1);
    g_assert_cmpuint(bit, ==, 0x36);
}

/* No descriptor: the wire keeps the frame until one comes back, by a register or by the poll. */
static void test_hold(Fix *f, gconstpointer unused)
{
    for (unsigned i = 0; i < 6; i++)
        g_assert_cmpuint(receive(f, own, 100 + i), ==, 1);
    for (unsigned i = 0; i < 4; i++)
        g_assert_cmpuint(mcnt(f, i), ==, 104 + i);
    g_assert_false(csr(f, 0) & MISS);
    put_desc(f, RX_AT, 0, RX_BUF(0), BUF_LEN, OWN);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
    set_csr(f, 0, RINT | IENA);
    g_assert_cmpuint(mcnt(f, 0), ==, 108);
    test_advance(f->tb, 100 * MS);
    put_desc(f, RX_AT, 1, RX_BUF(1), BUF_LEN, OWN);
    test_advance(f->tb, 20 * MS);
    g_assert_cmpuint(mcnt(f, 1), ==, 109);
    /* Stopped: what is held is lost, and so is what comes. */
    put_desc(f, RX_AT, 0, RX_BUF(0), BUF_LEN, 0);
    for (unsigned i = 2; i < 4; i++)
        put_desc(f, RX_AT, i, RX_BUF(i), BUF_LEN, OWN);
    for (unsigned i = 0; i < 3; i++)
        receive(f, own, 200 + i);
    set_csr(f, 0, STOP);
    receive(f, own, 300);
    start(f);
    receive(f, own, 400);
    g_assert_cmpuint(mcnt(f, 0), ==, 404);
    g_assert_true(status_of(f, RX_AT, 1) & OWN);
}

/* The longest backoff still finds the frame, and a reset lets go of it. */
static void test_hold_reset(Fix *f, gconstpointer unused)
{
    for (unsigned i = 0; i < 5; i++)
        receive(f, own, 100);
    device_reset(f->dev, RESET_COLD);
    test_advance(f->tb, MS);
    f->io = 0;
    pci_assign(f->tb->board.pci, MMIO_BASE, MMIO_LIMIT);
    f->io = (uint16_t)(test_cfg_read(f->tb, f->pci->devfn, 0x10, 4) & ~3u);
    test_cfg_write(f->tb, f->pci->devfn, CFG_COMMAND, 2, 7);
    start(f);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
    receive(f, own, 200);
    g_assert_cmpuint(mcnt(f, 0), ==, 204);
}

static void test_scatter(Fix *f, gconstpointer unused)
{
    uint8_t b[4];

    for (unsigned i = 0; i < 3; i++)
        put_desc(f, RX_AT, i, RX_BUF(i), i == 1 ? 0 : 64, OWN);
    put_desc(f, RX_AT, 3, RX_BUF(3), 64, OWN);
    receive(f, own, 150);
    g_assert_cmphex(status_of(f, RX_AT, 0) & 0xff00, ==, D_STP);
    g_assert_cmphex(status_of(f, RX_AT, 1) & 0xff00, ==, 0);
    g_assert_cmphex(status_of(f, RX_AT, 2) & 0xff00, ==, 0);
    g_assert_cmphex(status_of(f, RX_AT, 3) & 0xff00, ==, D_ENP);
    g_assert_cmpuint(mcnt(f, 3), ==, 154);
    get(f, RX_BUF(3) + 21, b, 2);
    g_assert_cmpuint(b[0], ==, 0x77);
    g_assert_cmpuint(b[1], ==, 0);
    /* The ring ends before the frame does. */
    for (unsigned i = 0; i < 2; i++)
        put_desc(f, RX_AT, i, RX_BUF(i), 64, OWN);
    receive(f, own, 150);
    g_assert_cmphex(status_of(f, RX_AT, 0) & 0xff00, ==, D_STP);
    g_assert_cmphex(status_of(f, RX_AT, 1) & 0xff00, ==, D_ERR | D_BUFF);
}

static void test_strip(Fix *f, gconstpointer unused)
{
    uint8_t b[60] = {0};
    struct iovec iov = {b, sizeof b};
    NetFrame nf = {.iov = &iov, .niov = 1, .len = sizeof b};

    set_csr(f, 4, STRIP | MASKED);
    memcpy(b, own, 6);
    store_be16(b + 12, 20);
    net_send(&f->peer, &nf, 1);
    g_assert_cmpuint(mcnt(f, 0), ==, 34);
    store_be16(b + 12, 46);
    net_send(&f->peer, &nf, 1);
    g_assert_cmpuint(mcnt(f, 1), ==, 64);
    store_be16(b + 12, 40);
    iov.iov_len = nf.len = 30; /* shorter than its length field says: zeros follow */
    net_send(&f->peer, &nf, 1);
    g_assert_cmpuint(mcnt(f, 2), ==, 54);
}

static void test_suspend(Fix *f, gconstpointer unused)
{
    set_csr(f, 5, SPND);
    g_assert_true(csr(f, 5) & SPND);
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    receive(f, own, 100);
    test_advance(f->tb, 500 * MS);
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
    set_csr(f, 5, 0);
    g_assert_cmpuint(f->got->len, ==, 1);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
    set_csr(f, 0, STOP);
    set_csr(f, 5, SPND);
    g_assert_false(csr(f, 5) & SPND);
}

static void note_quiet(Device *d, void *opaque)
{
    *(bool *)opaque = true;
}

static void test_quiesce(Fix *f, gconstpointer unused)
{
    bool quiet = false;

    device_quiesce(f->dev, note_quiet, &quiet);
    g_assert_true(quiet);
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    receive(f, own, 100);
    test_advance(f->tb, 500 * MS);
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
    device_resume(f->dev);
    g_assert_cmpuint(f->got->len, ==, 1);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
}

/* ---- loopback ---- */

static void test_loopback(Fix *f, gconstpointer unused)
{
    uint8_t b[104];

    f->mode = LOOP | INTL;
    start(f);
    offer(f, 0, own, 100);
    offer(f, 1, other, 100); /* not for us */
    offer(f, 2, own, 20);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
    g_assert_cmpuint(mcnt(f, 1), ==, 24);
    g_assert_true(status_of(f, RX_AT, 2) & OWN);
    get(f, RX_BUF(0), b, sizeof b);
    g_assert_cmpuint(b[99], ==, (uint8_t)(99 * 7));
    g_assert_true(load_le32(b + 100) != 0);
    uint32_t fcs = load_le32(b + 100);
    receive(f, own, 60); /* nothing comes in from the wire */
    g_assert_true(status_of(f, RX_AT, 2) & OWN);
    /* The driver's own FCS: right, then wrong. */
    f->mode |= DXMTFCS;
    start(f);
    for (unsigned i = 0; i < 2; i++) {
        offer(f, i, own, 104);
        put32(f, TX_BUF(i) + 100, fcs + i);
    }
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmphex(status_of(f, RX_AT, 0), ==, D_STP | D_ENP | PAM);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
    g_assert_cmphex(status_of(f, RX_AT, 1), ==, D_ERR | D_CRC | D_STP | D_ENP | PAM);
    /* External: on the wire as well. */
    f->mode = LOOP;
    start(f);
    offer(f, 0, own, 100);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, 1);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
    /* No descriptor: missed. */
    for (unsigned i = 1; i < 4; i++)
        put_desc(f, RX_AT, i, 0, 0, 0);
    offer(f, 1, own, 100);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(csr(f, 0) & MISS);
    /* Receiver off. */
    f->mode = LOOP | INTL | 1;
    start(f);
    offer(f, 0, own, 100);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
}

/* CVE-2021-3416: a card that receives what it sends into its own transmit ring goes on for ever in
 * others; here each round is bounded, the stack is flat and the caller comes back. */
static void test_loop_storm(Fix *f, gconstpointer unused)
{
    uint8_t d[16];

    f->mode = LOOP | INTL | PROM;
    f->tx_len = f->rx_len = 0;
    f->rx_at = RX_AT;
    start(f);
    /* The frame is a transmit descriptor that sends itself, received over the descriptor. */
    store_le32(d, TX_AT);
    store_le16(d + 4, 0xf000 | (-16 & 0xfff));
    store_le16(d + 6, OWN | D_STP | D_ENP);
    store_le32(d + 8, 0);
    store_le32(d + 12, 0);
    for (unsigned i = 0; i < 50; i++) {
        put_desc(f, RX_AT, 0, TX_AT, 20, OWN);
        put(f, TX_AT, d, sizeof d);
        set_csr(f, 0, TDMD | IENA);
        test_advance(f->tb, 5 * MS);
    }
    g_assert_true(csr(f, 0) & RINT);
}

/* ---- escapes of other implementations, played ---- */

/* CVE-2015-3209: descriptors below 4096 bytes each, together above what a frame buffer holds. */
static void test_long_chain(Fix *f, gconstpointer loop)
{
    f->mode = loop ? LOOP | INTL | PROM : 0;
    f->tx_len = 9;
    start(f);
    for (unsigned i = 0; i < 512; i++)
        put_desc(f, TX_AT, i, TX_BUF(0), 4095,
                 OWN | (i == 0 ? D_STP : 0) | (i == 511 ? D_ENP : 0));
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_true(csr(f, 0) & BABL);
    for (unsigned i = 0; i < 512; i++)
        g_assert_false(status_of(f, TX_AT, i) & OWN);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
    /* Chained over more descriptors than a batch has. */
    set_csr(f, 0, STOP);
    set_csr(f, 78, (uint16_t)-1024);
    set_csr(f, 74, (uint16_t)-1024);
    for (unsigned i = 0; i < 1024; i++)
        put_desc(f, TX_AT + 0x80000, i, TX_BUF(0), 1, OWN | (i == 0 ? D_STP : 0));
    set_csr(f, 31, 8);
    set_csr(f, 0, STRT | IENA);
    g_assert_cmpuint(f->got->len, ==, 0);
}

/* CVE-2015-7504: a looped-back frame that fills the buffer, and the FCS behind it. */
static void test_loop_full(Fix *f, gconstpointer unused)
{
    for (unsigned own_fcs = 0; own_fcs < 2; own_fcs++) {
        f->mode = (uint16_t)(LOOP | INTL | PROM | (own_fcs ? DXMTFCS : 0));
        start(f);
        for (unsigned len = 4088; len < 4096; len++) {
            for (unsigned i = 0; i < 4; i++)
                put_desc(f, RX_AT, i, RX_BUF(i), 1400, OWN);
            set_csr(f, 0, STOP);
            set_csr(f, 72, csr(f, 76));
            set_csr(f, 74, csr(f, 78));
            set_csr(f, 0, STRT | IENA);
            offer(f, 0, own, len);
            set_csr(f, 0, TDMD | IENA);
            g_assert_false(status_of(f, TX_AT, 0) & OWN);
            if (len <= 4091) {
                g_assert_cmphex(status_of(f, RX_AT, 2) & D_ENP, ==, D_ENP);
                g_assert_cmpuint(mcnt(f, 2), ==, own_fcs ? len : len + 4);
            } else {
                g_assert_true(status_of(f, RX_AT, 0) & OWN);
            }
        }
    }
}

/* CVE-2015-7512, CVE-2018-17963: frames of the network longer than any buffer, up to the longest. */
static void test_huge_receive(Fix *f, gconstpointer unused)
{
    static const uint32_t lens[] = {4092, 4096, 4097, 32767, 32768, 65535, 65536, NET_FRAME_MAX};

    f->mode = PROM;
    start(f);
    for (unsigned i = 0; i < G_N_ELEMENTS(lens); i++)
        g_assert_cmpuint(receive(f, own, lens[i]), ==, 1);
    g_assert_true(status_of(f, RX_AT, 0) & OWN);
    receive(f, own, 4091); /* the longest that MCNT can say */
    g_assert_cmphex(status_of(f, RX_AT, 2) & 0xff00, ==, D_ENP);
    g_assert_cmpuint(mcnt(f, 2), ==, 4095);
}

/* CVE-2016-7909: ring lengths of 0 stand for 65536 entries, and a pass ends. */
static void test_ring_zero(Fix *f, gconstpointer unused)
{
    set_csr(f, 0, STOP);
    for (unsigned i = 72; i <= 78; i += 2)
        set_csr(f, i, 0);
    /* All of memory is an owned descriptor: every entry is OWN without STP. */
    for (uint32_t at = 0; at < RAM_BYTES; at += 2)
        put16(f, at, OWN);
    set_csr(f, 24, 0);
    set_csr(f, 30, 0);
    set_csr(f, 0, STRT | IENA);
    test_advance(f->tb, 50 * MS);
    g_assert_cmpuint(f->got->len, ==, 0);
    receive(f, own, 100);
    g_assert_true(csr(f, 0) & STRT);
    /* A counter outside its ring stands at the last entry. */
    set_csr(f, 0, STOP);
    set_csr(f, 76, (uint16_t)-4);
    set_csr(f, 72, 1000);
    set_csr(f, 25, 1);
    g_assert_cmphex(csr(f, 28), ==, 3 * 16);
    g_assert_cmphex(csr(f, 29), ==, 1);
    g_assert_cmphex(csr(f, 26), ==, 0);
}

/* Rings and buffers that are not memory: the chip stops, with the error that the part has. */
static void test_wild(Fix *f, gconstpointer unused)
{
    for (unsigned k = 0; k < 6; k++) {
        f->tx_at = k == 0 ? NOWHERE : TX_AT;
        f->rx_at = k == 1 ? NOWHERE : k == 5 ? RAM_BYTES - 8 : RX_AT;
        f->rx_len = k == 5 ? 0 : 2;
        set_csr(f, 5, SINT);
        start(f);
        if (k == 2)
            put_desc(f, TX_AT, 0, MMIO_BASE, 60, OWN | D_STP | D_ENP);
        if (k == 3)
            put_desc(f, TX_AT, 0, RAM_BYTES - 10, 60, OWN | D_STP | D_ENP);
        if (k == 4)
            put_desc(f, RX_AT, 0, RAM_BYTES - 10, 1500, OWN);
        if (k == 5)
            put16(f, RAM_BYTES - 16 + 6, OWN);
        set_csr(f, 0, TDMD | IENA);
        receive(f, own, 100);
        if (k == 5) /* the base is aligned down: the ring is memory */
            g_assert_false(csr(f, 0) & STOP);
        else
            g_assert_cmphex(csr(f, 0) & (0xff7f & ~IENA), ==, STOP);
        g_assert_cmphex(csr(f, 5) & SINT, ==, k == 5 ? 0 : SINT);
    }
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmpuint(f->dev->faults, ==, 5);
}

/* Receive buffers over their own ring, and over the transmit ring. */
static void test_self(Fix *f, gconstpointer unused)
{
    for (unsigned k = 0; k < 2; k++) {
        start(f);
        for (unsigned i = 0; i < 4; i++)
            put_desc(f, RX_AT, i, k ? TX_AT : RX_AT, BUF_LEN, OWN);
        for (unsigned i = 0; i < 20; i++) {
            receive(f, own, 1000);
            set_csr(f, 0, TDMD | IENA);
        }
        test_advance(f->tb, 20 * MS);
    }
    start(f);
    receive(f, own, 100);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
}

/* The peer writes registers from inside the wire: a stop then voids the batch. */
static unsigned stopping_send(NetPort *p, const NetFrame *v, unsigned n)
{
    Fix *f = p->opaque;

    g_assert_cmphex(csr(f, 5) & SPND, ==, 0);
    set_csr(f, 5, SPND);
    g_assert_cmphex(csr(f, 5) & SPND, ==, 0); /* not yet: a frame is under way */
    set_csr(f, 5, 0);
    set_csr(f, 0, TDMD | IENA); /* only a flag */
    set_csr(f, 0, STOP);
    return n;
}

static void test_stop_inside(Fix *f, gconstpointer unused)
{
    static const NetPortOps ops = {.send = stopping_send};

    f->peer.ops = &ops;
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(status_of(f, TX_AT, 0) & OWN);
    g_assert_cmphex(csr(f, 0), ==, STOP);
    f->peer.ops = &peer_ops;
    start(f);
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_false(status_of(f, TX_AT, 0) & OWN);
}

/* ---- state, realize ---- */

static bool load(Fix *f, GByteArray *saved, GError **error)
{
    size_t used;

    device_reset(f->dev, RESET_COLD);
    return state_load(f->dev->cls->state, f->dev, saved->data, saved->len, &used, error);
}

static void test_state(Fix *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;

    g_assert_true(state_check(f->dev->cls->state, &error));
    offer(f, 0, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_true(intx(f));
    state_save(f->dev->cls->state, f->dev, saved);
    g_assert_true(load(f, saved, &error));
    g_assert_no_error(error);
    device_resume(f->dev);
    g_assert_true(intx(f));
    set_csr(f, 0, TINT | IENA);
    g_assert_false(intx(f));
    offer(f, 1, other, 60);
    set_csr(f, 0, TDMD | IENA);
    g_assert_cmpuint(f->got->len, ==, 2);
    receive(f, own, 100);
    g_assert_cmpuint(mcnt(f, 0), ==, 104);
}

static void test_bad_state(Fix *f, gconstpointer unused)
{
    uint16_t *regs = (uint16_t *)(void *)((uint8_t *)&f->pci->regs + sizeof(PciRegs));
    const struct {
        unsigned at;
        uint16_t val;
    } rows[] = {{0, 0x8000}, {0, STOP | TXON}, {128 + 20, 0x0002}};

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GByteArray) saved = g_byte_array_new();
        GError *error = NULL;
        uint16_t old = regs[rows[i].at];

        regs[rows[i].at] = rows[i].val;
        state_save(f->dev->cls->state, f->dev, saved);
        regs[rows[i].at] = old;
        g_assert_false(load(f, saved, &error));
        g_assert_nonnull(error);
        g_clear_error(&error);
    }
    device_reset(f->dev, RESET_COLD);
}

static void test_realize(Fix *f, gconstpointer unused)
{
    static const char *const bad[][2] = {
        {NULL, NULL}, {"wire2", "53:00:00:00:00:01"}, {"wire", NULL}};
    NetPort free_port = {.ops = &peer_ops, .name = "peer2", .opaque = f};

    test_board_backend(f->tb, "wire2", &free_port);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) { /* no wire, a group, one that is taken */
        Device *d = device_new(device_class_find("pcnet"), "second", &f->tb->board);
        GError *error = NULL;

        if (bad[i][0])
            g_assert_true(device_set(d, "netdev", bad[i][0], &error));
        if (bad[i][1])
            g_assert_true(device_set(d, "mac", bad[i][1], &error));
        g_assert_false(device_realize(d, &error));
        g_assert_nonnull(error);
        g_clear_error(&error);
        device_free(d);
    }
}

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

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("identity", test_identity);
    ADD("maps", test_maps);
    ADD("registers", test_registers);
    ADD("link", test_link);
    ADD("start-stop", test_start_stop);
    ADD("interrupts", test_interrupts);
    ADD_STYLES("send", test_send);
    ADD("poll-tx", test_poll_tx);
    ADD("pad-and-fcs", test_pad_and_fcs);
    ADD("tx-interrupt-modes", test_tx_interrupt_modes);
    ADD_STYLE("unfinished", test_unfinished, 2);
    ADD_STYLE("unfinished/3", test_unfinished, 3);
    ADD("backpressure", test_backpressure);
    ADD("batches", test_batches);
    ADD_STYLES("receive", test_receive);
    ADD("filter", test_filter);
    ADD("hash", test_hash);
    ADD("hold", test_hold);
    ADD("hold-reset", test_hold_reset);
    ADD_STYLES("scatter", test_scatter);
    ADD("strip", test_strip);
    ADD("suspend", test_suspend);
    ADD("quiesce", test_quiesce);
    ADD("loopback", test_loopback);
    ADD("loop-storm", test_loop_storm);
    ADD_STYLE("cve-2015-3209", test_long_chain, 2);
    ADD("cve-2015-7504", test_loop_full);
    ADD("cve-2015-7512", test_huge_receive);
    ADD("cve-2016-7909", test_ring_zero);
    ADD("wild", test_wild);
    ADD("self", test_self);
    ADD("stop-inside", test_stop_inside);
    ADD("state", test_state);
    ADD("bad-state", test_bad_state);
    ADD("realize", test_realize);
    return g_test_run();
}
