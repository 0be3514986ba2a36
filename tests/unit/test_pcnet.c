/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The Am79C970A: registers, sending, receiving. */
#include "pcnetfix.h"

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
    set_csr(f, 4, DPOLL | MASKED);
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
    return g_test_run();
}
