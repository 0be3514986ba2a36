/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NE2000 cards: registers, memory, loopback, life. Their frames: test_ne2000_net.c. */
#include <string.h>

#include "lodge/num.h"
#include "ne2000_card.h"
#include "pci.h"

/* ---- remote DMA ---- */

static void test_probe(Fix *f, gconstpointer isa)
{
    uint8_t prom[32];

    card_out(f, RESET, card_in(f, RESET));
    g_assert_cmphex(card_in(f, 0), ==, CR_STOP);
    g_assert_cmphex(card_in(f, 7), ==, ISR_RST);
    card_out(f, 0x0e, 0x48); /* bytes */
    card_remote(f, 0x08, 0, sizeof prom);
    for (unsigned i = 0; i < sizeof prom; i++)
        prom[i] = card_in(f, DATA);
    for (unsigned i = 0; i < 6; i++) {
        g_assert_cmphex(prom[2 * i], ==, mac_own[i]);
        g_assert_cmphex(prom[2 * i + 1], ==, mac_own[i]);
    }
    for (unsigned i = 28; i < 32; i++)
        g_assert_cmphex(prom[i], ==, 0x57);
    g_assert_cmphex(card_in(f, 7), ==, ISR_RDC);
    g_assert_cmphex(card_in(f, 0x0a), ==, isa ? 0xff : 'P');
    g_assert_cmphex(card_in(f, 0x0b), ==, isa ? 0xff : 'C');
    card_out(f, 0x0e, 0x49); /* words: bytes doubled */
    card_get(f, 0, prom, sizeof prom);
    g_assert_cmphex(load_le16(prom + 2), ==, 0x5454);
    card_put(f, 0, mac_own, 2); /* the PROM is not written */
    card_get(f, 0, prom, 2);
    g_assert_cmphex(prom[0], ==, 0x52);
}

static void test_memory(Fix *f, gconstpointer unused)
{
    uint8_t data[256], back[256];
    uint16_t port = (uint16_t)(f->io + DATA);

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 + 1);
    card_put(f, 0x4000, data, sizeof data);
    g_assert_cmphex(card_in(f, 7) & ISR_RDC, ==, ISR_RDC);
    g_assert_cmphex(card_in(f, 8) | card_in(f, 9) << 8, ==, 0x4100);
    card_out(f, 7, ISR_RDC);
    g_assert_cmphex(card_in(f, 7), ==, 0);
    card_get(f, 0x4000, back, sizeof back);
    g_assert_cmpmem(back, sizeof back, data, sizeof data);
    /* Bit 15 is not decoded; 32 bits are two words, at 0x12 as well. */
    card_remote(f, 0x08, 0xc000, 8);
    g_assert_cmphex(test_in(f->tb, port, 4), ==, load_le32(data));
    g_assert_cmphex(card_in(f, 7), ==, 0);
    g_assert_cmphex(test_in(f->tb, (uint16_t)(port + 2), 4), ==, load_le32(data + 4));
    g_assert_cmphex(card_in(f, 7), ==, ISR_RDC);
    g_assert_cmphex(test_in(f->tb, port, 4), ==, 0xffffffff); /* over */
    g_assert_cmphex(test_in(f->tb, port, 2), ==, 0xffff);
    card_remote(f, 0x10, 0x5000, 4);
    test_out(f->tb, port, 4, 0x44332211);
    test_out(f->tb, port, 4, 0x88776655); /* lost */
    card_get(f, 0x5000, back, 8);
    g_assert_cmphex(load_le64(back), ==, 0x44332211);
    /* A lone byte of an odd length takes the last word's low half. */
    card_remote(f, 0x08, 0x4000, 3);
    g_assert_cmphex(test_in(f->tb, port, 2), ==, load_le16(data));
    g_assert_cmphex(test_in(f->tb, port, 1), ==, data[2]);
    g_assert_cmphex(card_in(f, 7) & ISR_RDC, ==, ISR_RDC);
    /* A write in the middle of a read, and the other way round, does nothing. */
    card_remote(f, 0x08, 0x4000, 4);
    test_out(f->tb, port, 2, 0);
    g_assert_cmphex(test_in(f->tb, port, 2), ==, load_le16(data));
    card_remote(f, 0x10, 0x4000, 4);
    g_assert_cmphex(test_in(f->tb, port, 2), ==, 0xffff);
    card_out(f, 0, CR_START); /* aborted */
    test_out(f->tb, port, 2, 0);
    card_get(f, 0x4000, back, 4);
    g_assert_cmpmem(back, 4, data, 4);
    /* Bytes. */
    card_out(f, 0x0e, 0x48);
    card_remote(f, 0x10, 0x4001, 2);
    card_out(f, DATA, 0xab);
    test_out(f->tb, port, 2, 0xcd);
    card_remote(f, 0x08, 0x4000, 5);
    g_assert_cmphex(card_in(f, DATA), ==, data[0]);
    g_assert_cmphex(card_in(f, DATA + 7), ==, 0xab);
    g_assert_cmphex(test_in(f->tb, port, 2), ==, 0xcd);
    g_assert_cmphex(test_in(f->tb, port, 4), ==, (uint32_t)data[4] << 16 | data[3]);
}

/* The remote DMA leaves the ring at PSTOP and comes back at PSTART. */
static void test_remote_wrap(Fix *f, gconstpointer unused)
{
    uint8_t data[512], back[512];

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i + i / 256);
    card_put(f, 0x7f00, data, 256);
    card_put(f, RX_FIRST * 256, data + 256, 256);
    card_get(f, 0x7f00, back, sizeof back);
    g_assert_cmpmem(back, sizeof back, data, sizeof data);
    g_assert_cmphex(card_in(f, 8) | card_in(f, 9) << 8, ==, (RX_FIRST + 1) * 256);
    /* The top of the address space, with no ring there. */
    card_put(f, 0xff00, data, 256);
    card_remote(f, 0x08, 0xfffe, 4);
    g_assert_cmphex(test_in(f->tb, (uint16_t)(f->io + DATA), 2), ==, load_le16(data + 254));
    g_assert_cmphex(test_in(f->tb, (uint16_t)(f->io + DATA), 2), ==, 0x5252);
}

/* Linux finds the interrupt so. */
static void test_irq_probe(Fix *f, gconstpointer unused)
{
    card_out(f, 0x0f, 0x50);
    g_assert_false(card_irq(f));
    card_remote(f, 0x08, 0, 0);
    g_assert_true(card_irq(f));
    card_out(f, 0x0f, 0);
    g_assert_false(card_irq(f));
    card_out(f, 0x0f, 0xff);
    g_assert_true(card_irq(f));
    card_out(f, 7, ISR_RDC);
    g_assert_false(card_irq(f));
    card_remote(f, 0x10, 0, 0);
    g_assert_true(card_irq(f));
    card_in(f, RESET);
    g_assert_false(card_irq(f));
}

/* CVE-2015-8743: every address by every width, read and written; what is no memory stays. */
static void test_all_addresses(Fix *f, gconstpointer unused)
{
    uint8_t back[2];

    for (unsigned at = 0; at < 0x10000; at += 127) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            card_remote(f, 0x10, (uint16_t)at, 0xffff);
            test_out(f->tb, (uint16_t)(f->io + DATA), size, 0xa5a5a5a5);
            card_remote(f, 0x08, (uint16_t)at, 0xffff);
            uint64_t val = test_in(f->tb, (uint16_t)(f->io + DATA), size);
            if (at & 0x4000 && (at & 0x3fff) < 0x3ffc && size == 2)
                g_assert_cmphex(val, ==, 0xa5a5);
        }
    }
    card_out(f, 0, CR_START);
    card_get(f, 2, back, 2);
    g_assert_cmphex(back[0], ==, 0x54);
}

static void test_send_packet(Fix *f, gconstpointer unused)
{
    uint8_t frame[300];
    uint16_t word;

    card_out(f, 3, RX_FIRST + 1); /* where the packet will be, as this command wants it */
    frame_fill(frame, mac_own, sizeof frame);
    card_arrive(f, frame, sizeof frame);
    card_out(f, 7, 0xff);
    card_out(f, 0x0b, 0x0f);
    card_out(f, 0, 0x1a);
    for (unsigned i = 0; i < 304; i += 2) {
        g_assert_cmphex(card_in(f, 7), ==, 0);
        word = (uint16_t)test_in(f->tb, (uint16_t)(f->io + DATA), 2);
        if (i >= 4)
            g_assert_cmphex(word, ==, load_le16(frame + (i - 4)));
        else
            g_assert_cmphex(word, ==, i ? 304 : (RX_FIRST + 3) << 8 | 0x01);
    }
    g_assert_cmphex(card_in(f, 7), ==, ISR_RDC);
    g_assert_cmphex(card_in(f, 3), ==, RX_FIRST + 3);
    card_out(f, 0, CR_PAGE2);
    g_assert_cmphex(card_in(f, 3), ==, RX_FIRST + 3);
}

/* ---- loopback ---- */

/* The FIFO's eight bytes after a loop of @len bytes from the transmit page. */
static void loop(Fix *f, uint8_t tcr, uint16_t len, uint8_t fifo[8])
{
    card_out(f, 0x0d, tcr);
    card_out(f, 7, 0xff);
    card_send(f, TX_PAGE, len);
    g_assert_cmphex(card_in(f, 7), ==, ISR_PTX);
    for (unsigned i = 0; i < 8; i++)
        fifo[i] = card_in(f, 6);
}

/* CVE-2021-3416: no loopback reaches the ring or the wire, so nothing can go round twice. */
static void test_loopback(Fix *f, gconstpointer unused)
{
    static const uint8_t tsr[] = {0, 0x53, 0x43, 0x03};
    static const uint8_t fcs[] = {0x85, 0x4b, 0x10, 0x77};
    uint8_t frame[64], fifo[8], again[8];

    card_out(f, 0x0e, 0x40); /* bytes, loopback */
    card_out(f, 0x0c, 0x1f);
    for (unsigned i = 0; i < 60; i++)
        frame[i] = i < 6 ? mac_own[i] : (uint8_t)i;
    memcpy(frame + 60, fcs, 4);
    card_out(f, 0x0e, 0x49);
    card_put(f, TX_PAGE * 256, frame, 64);
    card_out(f, 0x0e, 0x40);
    for (uint8_t mode = 1; mode <= 3; mode++) {
        loop(f, (uint8_t)(mode << 1), 60, fifo);
        g_assert_cmphex(card_in(f, 4), ==, tsr[mode]);
        g_assert_cmphex(card_in(f, 0x0c), ==, 0x02);
        const uint8_t want[8] = {64, 0, 0, 59, fcs[0], fcs[1], fcs[2], fcs[3]};
        g_assert_cmpmem(fifo, 8, want, 8);
        /* The receiver checks what software appended. */
        loop(f, (uint8_t)(mode << 1 | 1), 64, again);
        g_assert_cmphex(card_in(f, 0x0c), ==, 0x01);
        g_assert_cmpmem(again, 8, want, 8);
        loop(f, (uint8_t)(mode << 1 | 1), 63, again);
        g_assert_cmphex(card_in(f, 0x0c), ==, 0x02);
        card_out(f, 0x0c, 0);
        card_out(f, 0, CR_PAGE1);
        card_out(f, 1, 0); /* not our address: a bad check sequence is not noticed */
        card_out(f, 0, CR_START);
        loop(f, (uint8_t)(mode << 1 | 1), 63, again);
        g_assert_cmphex(card_in(f, 0x0c), ==, 0x01);
        card_out(f, 0, CR_PAGE1);
        card_out(f, 1, mac_own[0]);
        card_out(f, 0, CR_START);
    }
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmphex(card_get_curr(f), ==, RX_FIRST + 1);
    /* Words: every other byte, by BOS. */
    card_out(f, 0x0e, 0x43);
    loop(f, 0x02, 60, fifo);
    g_assert_cmphex(fifo[34 % 8], ==, 34);
    g_assert_cmphex(fifo[(30 - 1) % 8], ==, 58); /* even bytes */
    card_out(f, 0x0e, 0x41);
    loop(f, 0x02, 60, again);
    g_assert_cmphex(again[(30 - 1) % 8], ==, 59);
    /* The greatest and the impossible. */
    card_out(f, 0x0e, 0x40);
    loop(f, 0x02, 1522, fifo);
    g_assert_cmpuint(f->dev->faults, ==, 0);
    g_assert_cmphex(fifo[1526 % 8], ==, 1526 & 0xff);
    g_assert_cmphex(fifo[1527 % 8], ==, 1526 >> 8);
    loop(f, 0x02, 0xffff, again);
    g_assert_cmpuint(f->dev->faults, ==, 1);
    loop(f, 0x02, 0, again);
    g_assert_cmphex(again[4], ==, 4); /* the check sequence alone */
    card_out(f, 0x0d, 0);
    g_assert_cmphex(card_in(f, 6), ==, 0);
    /* Group address. */
    card_out(f, 0x0c, 0x04);
    card_out(f, 0x0e, 0x49);
    card_put(f, TX_PAGE * 256, mac_broadcast, 6);
    card_out(f, 0x0e, 0x40);
    loop(f, 0x02, 60, fifo);
    g_assert_cmphex(card_in(f, 0x0c), ==, 0x22);
    /* TCR alone takes the card off the wire and tells the receiver nothing. */
    card_out(f, 0x0e, 0x48);
    loop(f, 0x02, 14, again);
    g_assert_cmpmem(again, 8, fifo, 8);
    g_assert_cmpuint(f->got->len, ==, 0);
}

/* ---- registers ---- */

static void test_registers(Fix *f, gconstpointer isa)
{
    card_out(f, 0x0c, 0xff);
    card_out(f, 0x0d, 0x19);
    card_out(f, 0x0e, 0x49);
    card_out(f, 0x0f, 0xff);
    card_out(f, 4, 0x46);
    card_out(f, 0, CR_PAGE2);
    g_assert_cmphex(card_in(f, 0), ==, CR_PAGE2);
    g_assert_cmphex(card_in(f, 1), ==, RX_FIRST);
    g_assert_cmphex(card_in(f, 2), ==, RX_STOP);
    g_assert_cmphex(card_in(f, 4), ==, 0x46);
    g_assert_cmphex(card_in(f, 8), ==, 0xff);
    g_assert_cmphex(card_in(f, 0x0c), ==, 0xff);
    g_assert_cmphex(card_in(f, 0x0d), ==, 0xf9);
    g_assert_cmphex(card_in(f, 0x0e), ==, 0xc9);
    g_assert_cmphex(card_in(f, 0x0f), ==, 0x7f);
    for (unsigned i = 1; i < 16; i++)
        card_out(f, i, (uint8_t)(0x10 + i));
    g_assert_cmphex(card_in(f, 1), ==, RX_FIRST);
    g_assert_cmphex(card_in(f, 3), ==, 0x13);
    g_assert_cmphex(card_in(f, 5), ==, 0x15);
    g_assert_cmphex(card_in(f, 6), ==, 0x16);
    g_assert_cmphex(card_in(f, 7), ==, 0x17);
    card_out(f, 0, CR_START);
    g_assert_cmphex(card_in(f, 1), ==, 0x11);
    g_assert_cmphex(card_in(f, 2), ==, 0x12);
    card_out(f, 0, CR_PAGE3);
    g_assert_cmphex(card_in(f, 0x0e), ==, isa ? 0xff : 0x29);
    g_assert_cmphex(card_in(f, 0x0f), ==, isa ? 0xff : 0x80);
    g_assert_cmphex(card_in(f, 2), ==, 0xff);
    g_assert_cmphex(card_in(f, 3), ==, isa ? 0xff : 0x00);
    card_out(f, 6, 0x40); /* full duplex; locked */
    g_assert_cmphex(card_in(f, 6), ==, isa ? 0xff : 0x00);
    card_out(f, 1, 0xc0);
    card_out(f, 5, 0xff);
    card_out(f, 6, 0xff);
    g_assert_cmphex(card_in(f, 1), ==, isa ? 0xff : 0xc0);
    g_assert_cmphex(card_in(f, 5), ==, isa ? 0xff : 0xe0);
    g_assert_cmphex(card_in(f, 6), ==, isa ? 0xff : 0x46);
    card_out(f, 1, 0x40);
    g_assert_cmphex(card_in(f, 6), ==, isa ? 0xff : 0x00);
    /* Neither stop nor start: as it was. */
    card_out(f, 0, 0x20);
    g_assert_cmphex(card_in(f, 0), ==, CR_START);
    card_out(f, 0, 0x23);
    g_assert_cmphex(card_in(f, 0), ==, CR_STOP);
    g_assert_cmphex(card_in(f, 7) & ISR_RST, ==, ISR_RST);
    card_out(f, 7, ISR_RST);
    g_assert_cmphex(card_in(f, 7) & ISR_RST, ==, ISR_RST);
    /* Wide accesses are as many bytes; one that runs into the data port as well. */
    card_set_address(f, mac_own);
    card_out(f, 0, CR_PAGE1);
    g_assert_cmphex(test_in(f->tb, (uint16_t)(f->io + 1), 4), ==, load_le32(mac_own));
    g_assert_cmphex(test_in(f->tb, (uint16_t)(f->io + 0x0f), 2) >> 8, ==, 0xff);
    test_out(f->tb, (uint16_t)(f->io + 8), 4, 0x04030201);
    g_assert_cmphex(card_in(f, 10), ==, 3);
    test_out(f->tb, (uint16_t)(f->io + 0x0f), 4, 0);
    g_assert_cmphex(card_in(f, 0x0f), ==, 0);
    test_out(f->tb, (uint16_t)(f->io + RESET), 1, 0);
    g_assert_cmphex(card_in(f, 0), ==, CR_PAGE1);
    test_in(f->tb, (uint16_t)(f->io + 0x16), 4);
    g_assert_cmphex(card_in(f, 0), ==, CR_STOP);
}

static void test_pci_config(void)
{
    Fix f = {0};

    card_start(&f, false);
    g_assert_cmphex(test_cfg_read(f.tb, f.devfn, 0, 4), ==, 0x802910ec);
    g_assert_cmphex(test_cfg_read(f.tb, f.devfn, 8, 4) >> 8, ==, 0x020000);
    test_cfg_write(f.tb, f.devfn, 0x10, 4, 0xffffffff);
    g_assert_cmphex(test_cfg_read(f.tb, f.devfn, 0x10, 4), ==, 0xffffffe1);
    g_assert_cmphex(test_cfg_read(f.tb, f.devfn, 0x3d, 1), ==, 1);
    card_down(&f, NULL);
}

/* ---- life ---- */

static void quiet(Device *d, void *opaque)
{
    (*(unsigned *)opaque)++;
}

static void test_quiesce(Fix *f, gconstpointer unused)
{
    uint8_t frame[60];
    unsigned calls = 0;

    frame_fill(frame, mac_own, sizeof frame);
    card_put(f, TX_PAGE * 256, frame, sizeof frame);
    device_quiesce(f->dev, quiet, &calls);
    g_assert_cmpuint(calls, ==, 1);
    card_out(f, 7, 0xff);
    card_send(f, TX_PAGE, sizeof frame);
    g_assert_true(card_arrive(f, frame, sizeof frame)); /* the wire keeps it */
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmphex(card_in(f, 7), ==, ISR_PTX);
    device_resume(f->dev);
    g_assert_cmpuint(f->got->len, ==, 1);
    g_assert_cmphex(card_in(f, 7), ==, ISR_PTX | ISR_PRX);
    card_check_got(f, 0, frame, sizeof frame);
}

static void test_state(Fix *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    uint8_t frame[60], back[64];
    size_t used;

    g_assert_true(state_check(f->dev->cls->state, &error));
    frame_fill(frame, mac_own, sizeof frame);
    card_arrive(f, frame, sizeof frame);
    card_out(f, 0x0f, ISR_PRX);
    state_save(f->dev->cls->state, f->dev, saved);
    device_reset(f->dev, RESET_COLD);
    g_assert_false(card_irq(f));
    g_assert_true(
        state_load(f->dev->cls->state, f->dev, saved->data, saved->len, &used, &error));
    g_assert_no_error(error);
    device_resume(f->dev);
    g_assert_true(card_irq(f));
    card_get(f, (RX_FIRST + 1) * 256 + 4, back, sizeof frame);
    g_assert_cmpmem(back, sizeof frame, frame, sizeof frame);
    card_out(f, 3, RX_FIRST + 1);
    g_assert_true(card_hears(f, mac_own));
    /* A transmission that had found no room goes on. */
    f->room = 0;
    while (!(card_in(f, 0) & 4))
        card_send(f, TX_PAGE, 1514);
    g_byte_array_set_size(saved, 0);
    state_save(f->dev->cls->state, f->dev, saved);
    f->room = UINT32_MAX;
    net_rx_ready(&f->peer);
    unsigned sent = f->got->len;
    g_assert_true(
        state_load(f->dev->cls->state, f->dev, saved->data, saved->len, &used, &error));
    g_assert_cmphex(card_in(f, 0) & 4, ==, 4);
    device_resume(f->dev);
    g_assert_cmphex(card_in(f, 0) & 4, ==, 0);
    g_assert_cmpuint(f->got->len, ==, sent + 1);
    /* A warm reset keeps the memory. */
    device_reset(f->dev, RESET_WARM);
    if (!f->irq)
        test_cfg_write(f->tb, f->devfn, 4, 2, 1);
}

static unsigned data_zones; /* that the bus gathers writes in, now */

static void count_zones(void *opaque, Bus *b, uint64_t addr, uint64_t len, bool on)
{
    if ((addr & 0x1f) == DATA)
        data_zones += on ? 1 : -1u;
}

/* Words of a remote write may come late unless their end interrupts. */
static void test_gathered(Fix *f, gconstpointer unused)
{
    GByteArray *saved = g_byte_array_new();
    size_t used;

    data_zones = 1;
    bus_set_event_hooks(f->tb->board.pio, &(BusEventHooks){.coalesce = count_zones});
    card_out(f, 0, CR_START);
    card_out(f, 0x0f, 0x40);
    g_assert_cmpuint(data_zones, ==, 0);
    state_save(f->dev->cls->state, f->dev, saved);
    card_out(f, 0x0f, 0x7f);
    g_assert_cmpuint(data_zones, ==, 0);
    card_out(f, 0x0f, 0x3f);
    g_assert_cmpuint(data_zones, ==, 1);
    card_out(f, 0x0f, 0);
    g_assert_cmpuint(data_zones, ==, 1);
    g_assert_true(state_load(f->dev->cls->state, f->dev, saved->data, saved->len, &used, NULL));
    g_assert_cmpuint(data_zones, ==, 0);
    device_reset(f->dev, RESET_COLD);
    g_assert_cmpuint(data_zones, ==, f->irq ? 1 : 0); /* on PCI its ports are gone */
    g_byte_array_free(saved, TRUE);
    bus_set_event_hooks(f->tb->board.pio, &(BusEventHooks){0});
}

static void test_refused(void)
{
    Fix f = {0};
    GError *error = NULL;

    card_start(&f, true);
    static const char *const classes[] = {"ne2k_isa", "ne2k_pci"};
    for (unsigned i = 0; i < 2; i++) {
        const DeviceClass *c = device_class_find(classes[i]);

        if (i)
            test_board_add(f.tb, "i440fx", NULL);
        g_autoptr(Device) none = device_new(c, NULL, &f.tb->board);
        g_assert_false(device_realize(none, &error));
        g_assert_nonnull(strstr(error->message, "netdev"));
        g_clear_error(&error);
        g_autoptr(Device) bad = device_new(c, NULL, &f.tb->board);
        g_assert_true(device_set(bad, "netdev", "wire", NULL));
        g_assert_true(device_set(bad, "mac", "01:00:00:00:00:00", NULL));
        g_assert_false(device_realize(bad, &error));
        g_assert_nonnull(strstr(error->message, "group"));
        g_clear_error(&error);
        g_autoptr(Device) second = device_new(c, NULL, &f.tb->board);
        g_assert_true(device_set(second, "netdev", "wire", NULL));
        g_assert_false(device_realize(second, &error)); /* the wire is taken */
        g_clear_error(&error);
    }
    NetPort more = {.ops = f.peer.ops, .name = "more", .opaque = &f};
    test_board_backend(f.tb, "more", &more);
    g_autoptr(Device) same = device_new(device_class_find("ne2k_isa"), NULL, &f.tb->board);
    g_assert_true(device_set(same, "netdev", "more", NULL));
    g_assert_false(device_realize(same, &error)); /* ports are taken */
    g_clear_error(&error);
    g_assert_null(more.wire);
    g_assert_true(card_hears(&f, mac_own));
    card_down(&f, NULL);
}

#define ADD(name, fn)                                                                              \
    g_test_add("/ne2000/isa/" name, Fix, "isa", card_up, fn, card_down);                           \
    g_test_add("/ne2000/pci/" name, Fix, NULL, card_up, fn, card_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("probe", test_probe);
    ADD("memory", test_memory);
    ADD("remote-wrap", test_remote_wrap);
    ADD("irq-probe", test_irq_probe);
    ADD("all-addresses", test_all_addresses);
    ADD("send-packet", test_send_packet);
    ADD("loopback", test_loopback);
    ADD("registers", test_registers);
    ADD("quiesce", test_quiesce);
    ADD("gathered", test_gathered);
    ADD("state", test_state);
    g_test_add_func("/ne2000/pci-config", test_pci_config);
    g_test_add_func("/ne2000/refused", test_refused);
    return g_test_run();
}
