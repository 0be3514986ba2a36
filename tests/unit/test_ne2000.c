/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NE2000 cards on a real wire, whose other end is the test's. */
#include <string.h>

#include "lodge/net.h"
#include "lodge/num.h"
#include "pci.h"
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
    TestBoard *tb;
    Device *dev;
    uint16_t io;
    uint8_t irq; /* 0: PCI */
    uint8_t devfn;
} Fix;

static const uint8_t own[6] = {0x52, 0x54, 0, 0, 0, 1};
static const uint8_t other[6] = {0x52, 0x54, 0, 0, 0, 2};
static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t group[6] = {0x01, 0x00, 0x5e, 0, 0, 1};

static bool peer_deliver(NetPort *p, const NetFrame *f)
{
    Fix *x = p->opaque;
    GByteArray *b;

    if (!x->room)
        return false;
    x->room--;
    b = g_byte_array_new();
    for (unsigned i = 0; i < f->niov; i++)
        g_byte_array_append(b, f->iov[i].iov_base, (guint)f->iov[i].iov_len);
    g_ptr_array_add(x->got, g_byte_array_free_to_bytes(b));
    return true;
}

static const NetPortOps peer_ops = {.deliver = peer_deliver};

static void out(Fix *f, unsigned reg, uint8_t val)
{
    test_out(f->tb, (uint16_t)(f->io + reg), 1, val);
}

static uint8_t in(Fix *f, unsigned reg)
{
    return (uint8_t)test_in(f->tb, (uint16_t)(f->io + reg), 1);
}

static void out_word(Fix *f, unsigned reg, uint16_t val)
{
    out(f, reg, (uint8_t)val);
    out(f, reg + 1, (uint8_t)(val >> 8));
}

static bool irq_is_up(Fix *f)
{
    if (!f->irq)
        return test_cfg_read(f->tb, f->devfn, 6, 2) & 8;
    irq_lock_take(f->tb->board.irq);
    bool level = irq_level_locked(f->tb->board.irq, f->irq);
    irq_lock_drop(f->tb->board.irq);
    return level;
}

static void set_address(Fix *f, const uint8_t mac[6])
{
    out(f, 0, CR_PAGE1 | 1);
    for (unsigned i = 0; i < 6; i++)
        out(f, 1 + i, mac[i]);
    out(f, 0, CR_STOP);
}

static void set_curr(Fix *f, uint8_t page)
{
    uint8_t cr = in(f, 0);

    out(f, 0, (cr & 0x3f) | 0x40);
    out(f, 7, page);
    out(f, 0, cr & 0x3f);
}

static uint8_t get_curr(Fix *f)
{
    out(f, 0, CR_PAGE1);
    uint8_t page = in(f, 7);
    out(f, 0, CR_START);
    return page;
}

static void set_ring(Fix *f, uint8_t first, uint8_t stop, uint8_t bnry, uint8_t curr)
{
    out(f, 1, first);
    out(f, 2, stop);
    out(f, 3, bnry);
    set_curr(f, curr);
}

/* As the drivers do: word mode, normal operation, ring behind the transmit pages. */
static void init(Fix *f)
{
    out(f, 0, CR_STOP);
    out(f, 0x0e, 0x49);
    out_word(f, 0x0a, 0);
    out(f, 0x0c, 0x04);
    out(f, 0x0d, 0x00);
    out(f, 7, 0xff);
    out(f, 0x0f, 0x00);
    set_address(f, own);
    set_ring(f, RX_FIRST, RX_STOP, RX_FIRST, RX_FIRST + 1);
    out(f, 0, CR_START);
}

static void start(Fix *f, bool isa)
{
    f->peer = (NetPort){.ops = &peer_ops, .name = "peer", .opaque = f};
    f->got = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    f->room = UINT32_MAX;
    f->tb = test_board_new(MIB);
    test_board_backend(f->tb, "wire", &f->peer);
    if (isa) {
        f->dev = test_board_add(f->tb, "ne2k_isa", "netdev=wire,mac=52:54:00:00:00:01");
        f->io = 0x300;
        f->irq = 5;
    } else {
        test_board_add(f->tb, "i440fx", NULL);
        f->dev = test_board_add(f->tb, "ne2k_pci", "netdev=wire,mac=52:54:00:00:00:01");
        f->devfn = ((PciDev *)f->dev)->devfn;
        pci_assign(f->tb->board.pci, 0xe0000000u, 0xf0000000u);
        f->io = (uint16_t)(test_cfg_read(f->tb, f->devfn, 0x10, 4) & ~3u);
    }
    init(f);
}

static void fix_up(Fix *f, gconstpointer isa)
{
    start(f, isa);
}

static void fix_down(Fix *f, gconstpointer unused)
{
    test_board_free(f->tb);
    g_ptr_array_free(f->got, TRUE);
}

/* ---- remote DMA ---- */

static void remote(Fix *f, uint8_t rd, uint16_t at, uint16_t len)
{
    out_word(f, 0x08, at);
    out_word(f, 0x0a, len);
    out(f, 7, ISR_RDC);
    out(f, 0, 0x02 | rd);
}

static void card_put(Fix *f, uint16_t at, const uint8_t *data, uint16_t len)
{
    len = (uint16_t)align_up(len, 2);
    remote(f, 0x10, at, len);
    for (unsigned i = 0; i < len; i += 2)
        test_out(f->tb, (uint16_t)(f->io + DATA), 2, load_le16(data + i));
}

static void card_get(Fix *f, uint16_t at, uint8_t *data, uint16_t len)
{
    len = (uint16_t)align_up(len, 2);
    remote(f, 0x08, at, len);
    for (unsigned i = 0; i < len; i += 2)
        store_le16(data + i, (uint16_t)test_in(f->tb, (uint16_t)(f->io + DATA), 2));
}

static void test_probe(Fix *f, gconstpointer isa)
{
    uint8_t prom[32];

    out(f, RESET, in(f, RESET));
    g_assert_cmphex(in(f, 0), ==, CR_STOP);
    g_assert_cmphex(in(f, 7), ==, ISR_RST);
    out(f, 0x0e, 0x48); /* bytes */
    remote(f, 0x08, 0, sizeof prom);
    for (unsigned i = 0; i < sizeof prom; i++)
        prom[i] = in(f, DATA);
    for (unsigned i = 0; i < 6; i++) {
        g_assert_cmphex(prom[2 * i], ==, own[i]);
        g_assert_cmphex(prom[2 * i + 1], ==, own[i]);
    }
    for (unsigned i = 28; i < 32; i++)
        g_assert_cmphex(prom[i], ==, 0x57);
    g_assert_cmphex(in(f, 7), ==, ISR_RDC);
    g_assert_cmphex(in(f, 0x0a), ==, isa ? 0xff : 'P');
    g_assert_cmphex(in(f, 0x0b), ==, isa ? 0xff : 'C');
    out(f, 0x0e, 0x49); /* words: bytes doubled */
    card_get(f, 0, prom, sizeof prom);
    g_assert_cmphex(load_le16(prom + 2), ==, 0x5454);
    card_put(f, 0, own, 2); /* the PROM is not written */
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
    g_assert_cmphex(in(f, 7) & ISR_RDC, ==, ISR_RDC);
    g_assert_cmphex(in(f, 8) | in(f, 9) << 8, ==, 0x4100);
    out(f, 7, ISR_RDC);
    g_assert_cmphex(in(f, 7), ==, 0);
    card_get(f, 0x4000, back, sizeof back);
    g_assert_cmpmem(back, sizeof back, data, sizeof data);
    /* Bit 15 is not decoded; 32 bits are two words, at 0x12 as well. */
    remote(f, 0x08, 0xc000, 8);
    g_assert_cmphex(test_in(f->tb, port, 4), ==, load_le32(data));
    g_assert_cmphex(in(f, 7), ==, 0);
    g_assert_cmphex(test_in(f->tb, (uint16_t)(port + 2), 4), ==, load_le32(data + 4));
    g_assert_cmphex(in(f, 7), ==, ISR_RDC);
    g_assert_cmphex(test_in(f->tb, port, 4), ==, 0xffffffff); /* over */
    g_assert_cmphex(test_in(f->tb, port, 2), ==, 0xffff);
    remote(f, 0x10, 0x5000, 4);
    test_out(f->tb, port, 4, 0x44332211);
    test_out(f->tb, port, 4, 0x88776655); /* lost */
    card_get(f, 0x5000, back, 8);
    g_assert_cmphex(load_le64(back), ==, 0x44332211);
    /* A lone byte of an odd length takes the last word's low half. */
    remote(f, 0x08, 0x4000, 3);
    g_assert_cmphex(test_in(f->tb, port, 2), ==, load_le16(data));
    g_assert_cmphex(test_in(f->tb, port, 1), ==, data[2]);
    g_assert_cmphex(in(f, 7) & ISR_RDC, ==, ISR_RDC);
    /* A write in the middle of a read, and the other way round, does nothing. */
    remote(f, 0x08, 0x4000, 4);
    test_out(f->tb, port, 2, 0);
    g_assert_cmphex(test_in(f->tb, port, 2), ==, load_le16(data));
    remote(f, 0x10, 0x4000, 4);
    g_assert_cmphex(test_in(f->tb, port, 2), ==, 0xffff);
    out(f, 0, CR_START); /* aborted */
    test_out(f->tb, port, 2, 0);
    card_get(f, 0x4000, back, 4);
    g_assert_cmpmem(back, 4, data, 4);
    /* Bytes. */
    out(f, 0x0e, 0x48);
    remote(f, 0x10, 0x4001, 2);
    out(f, DATA, 0xab);
    test_out(f->tb, port, 2, 0xcd);
    remote(f, 0x08, 0x4000, 5);
    g_assert_cmphex(in(f, DATA), ==, data[0]);
    g_assert_cmphex(in(f, DATA + 7), ==, 0xab);
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
    g_assert_cmphex(in(f, 8) | in(f, 9) << 8, ==, (RX_FIRST + 1) * 256);
    /* The top of the address space, with no ring there. */
    card_put(f, 0xff00, data, 256);
    remote(f, 0x08, 0xfffe, 4);
    g_assert_cmphex(test_in(f->tb, (uint16_t)(f->io + DATA), 2), ==, load_le16(data + 254));
    g_assert_cmphex(test_in(f->tb, (uint16_t)(f->io + DATA), 2), ==, 0x5252);
}

/* Linux finds the interrupt so. */
static void test_irq_probe(Fix *f, gconstpointer unused)
{
    out(f, 0x0f, 0x50);
    g_assert_false(irq_is_up(f));
    remote(f, 0x08, 0, 0);
    g_assert_true(irq_is_up(f));
    out(f, 0x0f, 0);
    g_assert_false(irq_is_up(f));
    out(f, 0x0f, 0xff);
    g_assert_true(irq_is_up(f));
    out(f, 7, ISR_RDC);
    g_assert_false(irq_is_up(f));
    remote(f, 0x10, 0, 0);
    g_assert_true(irq_is_up(f));
    in(f, RESET);
    g_assert_false(irq_is_up(f));
}

/* ---- sending ---- */

static void fill(uint8_t *frame, const uint8_t *dest, size_t len)
{
    for (size_t i = 0; i < len; i++)
        frame[i] = (uint8_t)(i * 3 + i / 256);
    memcpy(frame, dest, MIN(len, 6));
}

static void send_from(Fix *f, uint8_t page, uint16_t len)
{
    out(f, 4, page);
    out_word(f, 5, len);
    out(f, 0, CR_START | 4);
}

static void check_got(Fix *f, unsigned i, const uint8_t *frame, size_t len)
{
    size_t got;
    const uint8_t *b;

    g_assert_cmpuint(f->got->len, >, i);
    b = g_bytes_get_data(g_ptr_array_index(f->got, i), &got);
    g_assert_cmpmem(b, got, frame, len);
}

static void test_send(Fix *f, gconstpointer unused)
{
    static const uint16_t sizes[] = {14, 59, 60, 256, 257, 1514, 1518};
    uint8_t frame[FRAME_TOP];

    fill(frame, other, sizeof frame);
    card_put(f, TX_PAGE * 256, frame, 1518);
    out(f, 0x0f, ISR_PTX);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        out(f, 7, 0xff);
        send_from(f, TX_PAGE, sizes[i]);
        g_assert_cmphex(in(f, 0), ==, CR_START);
        g_assert_cmphex(in(f, 7), ==, ISR_PTX);
        g_assert_cmphex(in(f, 4), ==, 1);
        g_assert_cmphex(in(f, 5), ==, 0);
        g_assert_true(irq_is_up(f));
        check_got(f, i, frame, sizes[i]);
    }
    g_assert_cmpuint(f->dev->faults, ==, 0);
}

/* Lengths that no Ethernet carries, and memory's end: nothing leaves the card. */
static void test_send_hostile(Fix *f, gconstpointer unused)
{
    static const uint16_t sizes[] = {0, 1, 13, 1519, 0x7fff, 0x8000, 0xffff};
    size_t len;

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        out(f, 7, 0xff);
        send_from(f, 0xff, sizes[i]);
        g_assert_cmphex(in(f, 7), ==, ISR_PTX);
    }
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmpuint(f->dev->faults, ==, G_N_ELEMENTS(sizes));
    send_from(f, 0xff, 1514); /* wraps to the PROM */
    check_got(f, 0, g_bytes_get_data(g_ptr_array_index(f->got, 0), NULL), 1514);
    const uint8_t *b = g_bytes_get_data(g_ptr_array_index(f->got, 0), &len);
    g_assert_cmphex(b[256], ==, 0x52);
    g_assert_cmphex(b[258], ==, 0x54);
    out(f, 0, CR_STOP);
    out(f, 0, CR_STOP | 4); /* a stopped part sends nothing */
    g_assert_cmphex(in(f, 0), ==, CR_STOP);
    g_assert_cmpuint(f->got->len, ==, 1);
}

/* A full wire: 64 frames wait, then TXP stays; nothing is lost or out of order. */
static void test_backpressure(Fix *f, gconstpointer unused)
{
    uint8_t frame[1500];
    uint32_t n = 0;

    fill(frame, other, sizeof frame);
    card_put(f, TX_PAGE * 256, frame, sizeof frame);
    f->room = 0;
    for (; n < 100000 && !(in(f, 0) & 4); n++) {
        card_put(f, TX_PAGE * 256 + 20, (uint8_t *)&n, sizeof n);
        out(f, 7, 0xff);
        send_from(f, TX_PAGE, sizeof frame);
    }
    g_assert_cmpuint(n, >, 64);
    g_assert_cmpuint(n, <, 2000);
    g_assert_cmphex(in(f, 7), ==, 0);
    out(f, 0, CR_START | 4); /* no second transmission */
    f->room = UINT32_MAX;
    net_rx_ready(&f->peer);
    g_assert_cmphex(in(f, 0), ==, CR_START);
    g_assert_cmphex(in(f, 7), ==, ISR_PTX);
    g_assert_cmpuint(f->got->len, ==, n);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *b = g_bytes_get_data(g_ptr_array_index(f->got, i), NULL);
        g_assert_cmpuint(load_le32(b + 20), ==, i);
    }
}

/* ---- receiving ---- */

/* A frame in three pieces, one of them empty. Whether the wire took it. */
static bool arrive(Fix *f, const uint8_t *frame, size_t len)
{
    size_t cut = MIN(len, 17);
    struct iovec iov[3] = {
        {(void *)frame, cut}, {NULL, 0}, {(void *)(frame + cut), len - cut}};
    NetFrame v = {.iov = iov, .niov = 3, .len = (uint32_t)len};

    return net_send(&f->peer, &v, 1) == 1;
}

static bool hears(Fix *f, const uint8_t *dest)
{
    uint8_t frame[60];

    fill(frame, dest, sizeof frame);
    out(f, 7, 0xff);
    uint8_t curr = get_curr(f);
    arrive(f, frame, sizeof frame);
    bool moved = get_curr(f) != curr;
    g_assert_cmphex(in(f, 7) & ISR_PRX, ==, moved ? ISR_PRX : 0);
    if (moved)
        out(f, 3, get_curr(f) == RX_FIRST ? RX_STOP - 1 : get_curr(f) - 1);
    return moved;
}

static void test_receive(Fix *f, gconstpointer unused)
{
    static const unsigned sizes[] = {14, 59, 60, 248, 249, 1514, 1518};
    uint8_t frame[FRAME_TOP], back[FRAME_TOP], want[FRAME_TOP];

    out(f, 0x0f, ISR_PRX);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes) * 8; i++) {
        unsigned len = sizes[i % G_N_ELEMENTS(sizes)], padded = MAX(len, 60);
        uint8_t curr = get_curr(f);
        uint8_t next = (uint8_t)(curr + (padded + 8 + 255) / 256);

        if (next >= RX_STOP)
            next -= RX_RING;
        fill(frame, i & 1 ? broadcast : own, sizeof frame);
        g_assert_true(arrive(f, frame, len));
        g_assert_cmphex(in(f, 7) & ~ISR_RDC, ==, ISR_PRX);
        g_assert_true(irq_is_up(f));
        g_assert_cmphex(in(f, 0x0c), ==, i & 1 ? 0x21 : 0x01);
        g_assert_cmphex(get_curr(f), ==, next);
        card_get(f, (uint16_t)(curr * 256), back, (uint16_t)(padded + 4));
        g_assert_cmphex(back[0], ==, i & 1 ? 0x21 : 0x01);
        g_assert_cmphex(back[1], ==, next);
        g_assert_cmpuint(load_le16(back + 2), ==, padded + 4);
        memset(want, 0, sizeof want);
        memcpy(want, frame, len);
        g_assert_cmpmem(back + 4, padded, want, padded);
        out(f, 3, next == RX_FIRST ? RX_STOP - 1 : next - 1);
        out(f, 7, 0xff);
    }
}

/* Sizes that are no frames: the counters and the ring stay as they are. */
static void test_receive_sizes(Fix *f, gconstpointer unused)
{
    static const unsigned sizes[] = {0, 1, 5, 6, 13, 1519, 4096, 32768, 65535, 65562};
    g_autofree uint8_t *frame = g_malloc0(65562);

    memcpy(frame, own, sizeof own);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_assert_true(arrive(f, frame, sizes[i]));
        g_assert_cmphex(in(f, 7), ==, 0);
        g_assert_cmphex(get_curr(f), ==, RX_FIRST + 1);
    }
    /* Pieces that do not add up to the length. */
    struct iovec iov[2] = {{frame, 1000}, {frame, 1000}};
    NetFrame v = {.iov = iov, .niov = 2, .len = 60};
    net_send(&f->peer, &v, 1);
    v.len = 1518;
    iov[1].iov_len = 10;
    net_send(&f->peer, &v, 1);
    g_assert_cmphex(get_curr(f), ==, RX_FIRST + 1);
    g_assert_true(hears(f, own));
}

static void test_filter(Fix *f, gconstpointer unused)
{
    g_assert_true(hears(f, own));
    g_assert_false(hears(f, other));
    g_assert_true(hears(f, broadcast));
    g_assert_false(hears(f, group));
    out(f, 0x0c, 0x00);
    g_assert_false(hears(f, broadcast));
    out(f, 0x0c, 0x10); /* promiscuous: physical addresses */
    g_assert_true(hears(f, other));
    g_assert_false(hears(f, group));
    g_assert_false(hears(f, broadcast));
    out(f, 0x0c, 0x08);
    g_assert_false(hears(f, group));
    /* 01:00:5e:00:00:01 has hash index 0x1f, the six high bits of its CRC 0x7fa32d9b. */
    out(f, 0, CR_PAGE1);
    out(f, 8 + 3, 0x80);
    out(f, 0, CR_START);
    g_assert_true(hears(f, group));
    out(f, 0, CR_PAGE1);
    out(f, 8 + 3, 0x7f);
    out(f, 0, CR_START);
    g_assert_false(hears(f, group));
    for (unsigned i = 0; i < 8; i++) {
        out(f, 0, CR_PAGE1);
        out(f, 8 + i, 0xff);
        g_assert_cmphex(in(f, 8 + i), ==, 0xff);
        out(f, 0, CR_START);
    }
    g_assert_true(hears(f, group));
    g_assert_true(hears(f, broadcast)); /* by its hash */
    out(f, 0x0d, 0x02);
    g_assert_false(hears(f, own));
    out(f, 0x0d, 0x00);
    out(f, 0, CR_STOP);
    uint8_t frame[60];
    fill(frame, own, sizeof frame);
    g_assert_true(arrive(f, frame, sizeof frame));
    g_assert_cmphex(in(f, 7), ==, ISR_RST);
}

static void test_monitor(Fix *f, gconstpointer unused)
{
    uint8_t curr = get_curr(f);

    out(f, 0x0c, 0x24);
    g_assert_cmphex(in(f, 0x0c) & 0x40, ==, 0x40);
    out(f, 0x0f, ISR_CNT);
    for (unsigned i = 0; i < 127; i++)
        g_assert_false(hears(f, i & 1 ? broadcast : own));
    g_assert_cmphex(in(f, 7), ==, 0);
    g_assert_false(irq_is_up(f));
    g_assert_false(hears(f, broadcast));
    g_assert_cmphex(in(f, 0x0c), ==, 0x70);
    g_assert_cmphex(in(f, 7), ==, ISR_CNT);
    g_assert_true(irq_is_up(f));
    for (unsigned i = 0; i < 300; i++)
        g_assert_false(hears(f, own));
    g_assert_cmphex(in(f, 0x0c), ==, 0x50);
    g_assert_cmpuint(in(f, 0x0f), ==, 192); /* and stops there */
    g_assert_cmpuint(in(f, 0x0f), ==, 0);
    g_assert_cmpuint(in(f, 0x0d), ==, 0);
    g_assert_cmpuint(in(f, 0x0e), ==, 0);
    g_assert_cmphex(get_curr(f), ==, curr);
    out(f, 0x0c, 0x04);
    g_assert_cmphex(in(f, 0x0c) & 0x40, ==, 0);
    g_assert_true(hears(f, own));
}

/* A slow guest: frames wait in the wire, and come in order as the boundary moves. */
static void test_full_ring(Fix *f, gconstpointer unused)
{
    uint8_t frame[1514], back[1600];
    unsigned seen = 0;
    uint8_t next = RX_FIRST + 1;

    fill(frame, own, sizeof frame);
    for (uint32_t i = 0; i < 20; i++) {
        store_le32(frame + 20, i);
        g_assert_true(arrive(f, frame, sizeof frame));
    }
    g_assert_cmphex(in(f, 7), ==, ISR_PRX);
    g_assert_cmpuint(in(f, 0x0f), ==, 0);
    for (; next != get_curr(f); seen++) {
        g_assert_cmpuint(seen, <, 20);
        card_get(f, (uint16_t)(next * 256), back, 28);
        g_assert_cmpuint(load_le32(back + 24), ==, seen);
        next = back[1];
        out(f, 3, next == RX_FIRST ? RX_STOP - 1 : next - 1);
    }
    g_assert_cmpuint(seen, ==, 20);
    /* A card that is stopped meanwhile lets the rest go. */
    for (uint32_t i = 0; i < 20; i++)
        g_assert_true(arrive(f, frame, sizeof frame));
    uint8_t curr = get_curr(f);
    out(f, 0, CR_STOP);
    out(f, 3, curr - 1);
    out(f, 0, CR_START);
    g_assert_cmphex(get_curr(f), ==, curr);
    g_assert_true(hears(f, own));
}

/* A frame that the ring could never take. */
static void test_overflow(Fix *f, gconstpointer unused)
{
    uint8_t frame[1514];

    set_ring(f, RX_FIRST, RX_FIRST + 7, RX_FIRST, RX_FIRST + 1);
    fill(frame, own, sizeof frame);
    out(f, 0x0f, ISR_OVW);
    g_assert_true(arrive(f, frame, sizeof frame));
    g_assert_cmphex(in(f, 7), ==, ISR_OVW | ISR_RST);
    g_assert_true(irq_is_up(f));
    g_assert_cmphex(in(f, 0x0c), ==, 0x10);
    g_assert_cmpuint(in(f, 0x0f), ==, 1);
    g_assert_cmphex(get_curr(f), ==, RX_FIRST + 1);
    out(f, 7, 0xff);
    g_assert_cmphex(in(f, 7), ==, ISR_RST);
    g_assert_false(irq_is_up(f));
    out(f, 3, RX_FIRST);
    g_assert_cmphex(in(f, 7), ==, 0);
    set_ring(f, RX_FIRST, RX_FIRST + 8, RX_FIRST, RX_FIRST + 1);
    g_assert_true(arrive(f, frame, sizeof frame));
    g_assert_cmphex(in(f, 7), ==, ISR_PRX);
    g_assert_cmphex(get_curr(f), ==, RX_FIRST + 7);
}

/* CVE-2015-5278, CVE-2015-5279, CVE-2016-2841, CVE-2007-1321: rings that make no sense. Frames end
 * in the card's memory or nowhere, and each register access returns. */
static void test_bad_rings(Fix *f, gconstpointer unused)
{
    static const uint8_t pages[] = {0x00, 0x01, 0x3f, 0x40, 0x41, 0x7f, 0x80, 0x81, 0xbf,
                                    0xc0, 0xfe, 0xff};
    const unsigned n = G_N_ELEMENTS(pages);
    uint8_t frame[1518], back[16];

    fill(frame, own, sizeof frame);
    for (unsigned i = 0; i < n * n * n * n; i++) {
        set_ring(f, pages[i % n], pages[i / n % n], pages[i / n / n % n], pages[i / n / n / n]);
        arrive(f, frame, i % 3 ? sizeof frame : 60);
        card_get(f, (uint16_t)(pages[i % n] * 256 + 250), back, sizeof back);
    }
    init(f);
    g_assert_true(hears(f, own));
    card_get(f, 0, back, 2); /* the PROM holds */
    g_assert_cmphex(back[0], ==, 0x52);
}

/* CVE-2015-8743: every address by every width, read and written; what is no memory stays. */
static void test_all_addresses(Fix *f, gconstpointer unused)
{
    uint8_t back[2];

    for (unsigned at = 0; at < 0x10000; at += 127) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            remote(f, 0x10, (uint16_t)at, 0xffff);
            test_out(f->tb, (uint16_t)(f->io + DATA), size, 0xa5a5a5a5);
            remote(f, 0x08, (uint16_t)at, 0xffff);
            uint64_t val = test_in(f->tb, (uint16_t)(f->io + DATA), size);
            if (at & 0x4000 && (at & 0x3fff) < 0x3ffc && size == 2)
                g_assert_cmphex(val, ==, 0xa5a5);
        }
    }
    out(f, 0, CR_START);
    card_get(f, 2, back, 2);
    g_assert_cmphex(back[0], ==, 0x54);
}

/* ---- send packet ---- */

static void test_send_packet(Fix *f, gconstpointer unused)
{
    uint8_t frame[300];
    uint16_t word;

    out(f, 3, RX_FIRST + 1); /* where the packet will be, as this command wants it */
    fill(frame, own, sizeof frame);
    arrive(f, frame, sizeof frame);
    out(f, 7, 0xff);
    out(f, 0x0b, 0x0f);
    out(f, 0, 0x1a);
    for (unsigned i = 0; i < 304; i += 2) {
        g_assert_cmphex(in(f, 7), ==, 0);
        word = (uint16_t)test_in(f->tb, (uint16_t)(f->io + DATA), 2);
        if (i >= 4)
            g_assert_cmphex(word, ==, load_le16(frame + i - 4));
        else
            g_assert_cmphex(word, ==, i ? 304 : (RX_FIRST + 3) << 8 | 0x01);
    }
    g_assert_cmphex(in(f, 7), ==, ISR_RDC);
    g_assert_cmphex(in(f, 3), ==, RX_FIRST + 3);
    out(f, 0, CR_PAGE2);
    g_assert_cmphex(in(f, 3), ==, RX_FIRST + 3);
}

/* ---- loopback ---- */

/* The FIFO's eight bytes after a loop of @len bytes from the transmit page. */
static void loop(Fix *f, uint8_t tcr, uint16_t len, uint8_t fifo[8])
{
    out(f, 0x0d, tcr);
    out(f, 7, 0xff);
    send_from(f, TX_PAGE, len);
    g_assert_cmphex(in(f, 7), ==, ISR_PTX);
    for (unsigned i = 0; i < 8; i++)
        fifo[i] = in(f, 6);
}

/* CVE-2021-3416: no mode of loopback reaches the ring or the wire, so nothing can go round twice. */
static void test_loopback(Fix *f, gconstpointer unused)
{
    static const uint8_t tsr[] = {0, 0x53, 0x43, 0x03};
    static const uint8_t fcs[] = {0x85, 0x4b, 0x10, 0x77};
    uint8_t frame[64], fifo[8], again[8];

    out(f, 0x0e, 0x40); /* bytes, loopback */
    out(f, 0x0c, 0x1f);
    for (unsigned i = 0; i < 60; i++)
        frame[i] = i < 6 ? own[i] : (uint8_t)i;
    memcpy(frame + 60, fcs, 4);
    out(f, 0x0e, 0x49);
    card_put(f, TX_PAGE * 256, frame, 64);
    out(f, 0x0e, 0x40);
    for (uint8_t mode = 1; mode <= 3; mode++) {
        loop(f, (uint8_t)(mode << 1), 60, fifo);
        g_assert_cmphex(in(f, 4), ==, tsr[mode]);
        g_assert_cmphex(in(f, 0x0c), ==, 0x02);
        const uint8_t want[8] = {64, 0, 0, 59, fcs[0], fcs[1], fcs[2], fcs[3]};
        g_assert_cmpmem(fifo, 8, want, 8);
        /* The receiver checks what software appended. */
        loop(f, (uint8_t)(mode << 1 | 1), 64, again);
        g_assert_cmphex(in(f, 0x0c), ==, 0x01);
        g_assert_cmpmem(again, 8, want, 8);
        loop(f, (uint8_t)(mode << 1 | 1), 63, again);
        g_assert_cmphex(in(f, 0x0c), ==, 0x02);
        out(f, 0x0c, 0);
        out(f, 0, CR_PAGE1);
        out(f, 1, 0); /* not our address: a bad check sequence is not noticed */
        out(f, 0, CR_START);
        loop(f, (uint8_t)(mode << 1 | 1), 63, again);
        g_assert_cmphex(in(f, 0x0c), ==, 0x01);
        out(f, 0, CR_PAGE1);
        out(f, 1, own[0]);
        out(f, 0, CR_START);
    }
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmphex(get_curr(f), ==, RX_FIRST + 1);
    /* Words: every other byte, by BOS. */
    out(f, 0x0e, 0x43);
    loop(f, 0x02, 60, fifo);
    g_assert_cmphex(fifo[34 % 8], ==, 34);
    g_assert_cmphex(fifo[(30 - 1) % 8], ==, 58); /* even bytes */
    out(f, 0x0e, 0x41);
    loop(f, 0x02, 60, again);
    g_assert_cmphex(again[(30 - 1) % 8], ==, 59);
    /* The greatest and the impossible. */
    out(f, 0x0e, 0x40);
    loop(f, 0x02, 1522, fifo);
    g_assert_cmpuint(f->dev->faults, ==, 0);
    g_assert_cmphex(fifo[1526 % 8], ==, 1526 & 0xff);
    g_assert_cmphex(fifo[1527 % 8], ==, 1526 >> 8);
    loop(f, 0x02, 0xffff, again);
    g_assert_cmpuint(f->dev->faults, ==, 1);
    loop(f, 0x02, 0, again);
    g_assert_cmphex(again[4], ==, 4); /* the check sequence alone */
    out(f, 0x0d, 0);
    g_assert_cmphex(in(f, 6), ==, 0);
    /* Group address. */
    out(f, 0x0c, 0x04);
    out(f, 0x0e, 0x49);
    card_put(f, TX_PAGE * 256, broadcast, 6);
    out(f, 0x0e, 0x40);
    loop(f, 0x02, 60, fifo);
    g_assert_cmphex(in(f, 0x0c), ==, 0x22);
    /* TCR alone takes the card off the wire and tells the receiver nothing. */
    out(f, 0x0e, 0x48);
    loop(f, 0x02, 14, again);
    g_assert_cmpmem(again, 8, fifo, 8);
    g_assert_cmpuint(f->got->len, ==, 0);
}

/* ---- registers ---- */

static void test_registers(Fix *f, gconstpointer isa)
{
    out(f, 0x0c, 0xff);
    out(f, 0x0d, 0x19);
    out(f, 0x0e, 0x49);
    out(f, 0x0f, 0xff);
    out(f, 4, 0x46);
    out(f, 0, CR_PAGE2);
    g_assert_cmphex(in(f, 0), ==, CR_PAGE2);
    g_assert_cmphex(in(f, 1), ==, RX_FIRST);
    g_assert_cmphex(in(f, 2), ==, RX_STOP);
    g_assert_cmphex(in(f, 4), ==, 0x46);
    g_assert_cmphex(in(f, 8), ==, 0xff);
    g_assert_cmphex(in(f, 0x0c), ==, 0xff);
    g_assert_cmphex(in(f, 0x0d), ==, 0xf9);
    g_assert_cmphex(in(f, 0x0e), ==, 0xc9);
    g_assert_cmphex(in(f, 0x0f), ==, 0x7f);
    for (unsigned i = 1; i < 16; i++)
        out(f, i, (uint8_t)(0x10 + i));
    g_assert_cmphex(in(f, 1), ==, RX_FIRST);
    g_assert_cmphex(in(f, 3), ==, 0x13);
    g_assert_cmphex(in(f, 5), ==, 0x15);
    g_assert_cmphex(in(f, 6), ==, 0x16);
    g_assert_cmphex(in(f, 7), ==, 0x17);
    out(f, 0, CR_START);
    g_assert_cmphex(in(f, 1), ==, 0x11);
    g_assert_cmphex(in(f, 2), ==, 0x12);
    out(f, 0, CR_PAGE3);
    g_assert_cmphex(in(f, 0x0e), ==, isa ? 0xff : 0x29);
    g_assert_cmphex(in(f, 0x0f), ==, isa ? 0xff : 0x80);
    g_assert_cmphex(in(f, 2), ==, 0xff);
    g_assert_cmphex(in(f, 3), ==, isa ? 0xff : 0x00);
    out(f, 6, 0x40); /* full duplex; locked */
    g_assert_cmphex(in(f, 6), ==, isa ? 0xff : 0x00);
    out(f, 1, 0xc0);
    out(f, 5, 0xff);
    out(f, 6, 0xff);
    g_assert_cmphex(in(f, 1), ==, isa ? 0xff : 0xc0);
    g_assert_cmphex(in(f, 5), ==, isa ? 0xff : 0xe0);
    g_assert_cmphex(in(f, 6), ==, isa ? 0xff : 0x46);
    out(f, 1, 0x40);
    g_assert_cmphex(in(f, 6), ==, isa ? 0xff : 0x00);
    /* Neither stop nor start: as it was. */
    out(f, 0, 0x20);
    g_assert_cmphex(in(f, 0), ==, CR_START);
    out(f, 0, 0x23);
    g_assert_cmphex(in(f, 0), ==, CR_STOP);
    g_assert_cmphex(in(f, 7) & ISR_RST, ==, ISR_RST);
    out(f, 7, ISR_RST);
    g_assert_cmphex(in(f, 7) & ISR_RST, ==, ISR_RST);
    /* Wide accesses are as many bytes; one that runs into the data port as well. */
    set_address(f, own);
    out(f, 0, CR_PAGE1);
    g_assert_cmphex(test_in(f->tb, (uint16_t)(f->io + 1), 4), ==, load_le32(own));
    g_assert_cmphex(test_in(f->tb, (uint16_t)(f->io + 0x0f), 2) >> 8, ==, 0xff);
    test_out(f->tb, (uint16_t)(f->io + 8), 4, 0x04030201);
    g_assert_cmphex(in(f, 10), ==, 3);
    test_out(f->tb, (uint16_t)(f->io + 0x0f), 4, 0);
    g_assert_cmphex(in(f, 0x0f), ==, 0);
    test_out(f->tb, (uint16_t)(f->io + RESET), 1, 0);
    g_assert_cmphex(in(f, 0), ==, CR_PAGE1);
    test_in(f->tb, (uint16_t)(f->io + 0x16), 4);
    g_assert_cmphex(in(f, 0), ==, CR_STOP);
}

static void test_pci_config(void)
{
    Fix f = {0};

    start(&f, false);
    g_assert_cmphex(test_cfg_read(f.tb, f.devfn, 0, 4), ==, 0x802910ec);
    g_assert_cmphex(test_cfg_read(f.tb, f.devfn, 8, 4) >> 8, ==, 0x020000);
    test_cfg_write(f.tb, f.devfn, 0x10, 4, 0xffffffff);
    g_assert_cmphex(test_cfg_read(f.tb, f.devfn, 0x10, 4), ==, 0xffffffe1);
    g_assert_cmphex(test_cfg_read(f.tb, f.devfn, 0x3d, 1), ==, 1);
    fix_down(&f, NULL);
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

    fill(frame, own, sizeof frame);
    card_put(f, TX_PAGE * 256, frame, sizeof frame);
    device_quiesce(f->dev, quiet, &calls);
    g_assert_cmpuint(calls, ==, 1);
    out(f, 7, 0xff);
    send_from(f, TX_PAGE, sizeof frame);
    g_assert_true(arrive(f, frame, sizeof frame)); /* the wire keeps it */
    g_assert_cmpuint(f->got->len, ==, 0);
    g_assert_cmphex(in(f, 7), ==, ISR_PTX);
    device_resume(f->dev);
    g_assert_cmpuint(f->got->len, ==, 1);
    g_assert_cmphex(in(f, 7), ==, ISR_PTX | ISR_PRX);
    check_got(f, 0, frame, sizeof frame);
}

static void test_state(Fix *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    uint8_t frame[60], back[64];
    size_t used;

    g_assert_true(state_check(f->dev->cls->state, &error));
    fill(frame, own, sizeof frame);
    arrive(f, frame, sizeof frame);
    out(f, 0x0f, ISR_PRX);
    state_save(f->dev->cls->state, f->dev, saved);
    device_reset(f->dev, RESET_COLD);
    g_assert_false(irq_is_up(f));
    g_assert_true(
        state_load(f->dev->cls->state, f->dev, saved->data, saved->len, &used, &error));
    g_assert_no_error(error);
    device_resume(f->dev);
    g_assert_true(irq_is_up(f));
    card_get(f, (RX_FIRST + 1) * 256 + 4, back, sizeof frame);
    g_assert_cmpmem(back, sizeof frame, frame, sizeof frame);
    out(f, 3, RX_FIRST + 1);
    g_assert_true(hears(f, own));
    /* A transmission that had found no room goes on. */
    f->room = 0;
    while (!(in(f, 0) & 4))
        send_from(f, TX_PAGE, 1514);
    g_byte_array_set_size(saved, 0);
    state_save(f->dev->cls->state, f->dev, saved);
    f->room = UINT32_MAX;
    net_rx_ready(&f->peer);
    unsigned sent = f->got->len;
    g_assert_true(
        state_load(f->dev->cls->state, f->dev, saved->data, saved->len, &used, &error));
    g_assert_cmphex(in(f, 0) & 4, ==, 4);
    device_resume(f->dev);
    g_assert_cmphex(in(f, 0) & 4, ==, 0);
    g_assert_cmpuint(f->got->len, ==, sent + 1);
    /* A warm reset keeps the memory. */
    device_reset(f->dev, RESET_WARM);
    if (!f->irq)
        test_cfg_write(f->tb, f->devfn, 4, 2, 1);
}

static void test_refused(void)
{
    Fix f = {0};
    GError *error = NULL;

    start(&f, true);
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
    NetPort more = {.ops = &peer_ops, .name = "more", .opaque = &f};
    test_board_backend(f.tb, "more", &more);
    g_autoptr(Device) same = device_new(device_class_find("ne2k_isa"), NULL, &f.tb->board);
    g_assert_true(device_set(same, "netdev", "more", NULL));
    g_assert_false(device_realize(same, &error)); /* ports are taken */
    g_clear_error(&error);
    g_assert_null(more.wire);
    g_assert_true(hears(&f, own));
    fix_down(&f, NULL);
}

#define ADD(name, fn)                                                                              \
    g_test_add("/ne2000/isa/" name, Fix, "isa", fix_up, fn, fix_down);                             \
    g_test_add("/ne2000/pci/" name, Fix, NULL, fix_up, fn, fix_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("probe", test_probe);
    ADD("memory", test_memory);
    ADD("remote-wrap", test_remote_wrap);
    ADD("irq-probe", test_irq_probe);
    ADD("send", test_send);
    ADD("send-hostile", test_send_hostile);
    ADD("backpressure", test_backpressure);
    ADD("receive", test_receive);
    ADD("receive-sizes", test_receive_sizes);
    ADD("filter", test_filter);
    ADD("monitor", test_monitor);
    ADD("full-ring", test_full_ring);
    ADD("overflow", test_overflow);
    ADD("bad-rings", test_bad_rings);
    ADD("all-addresses", test_all_addresses);
    ADD("send-packet", test_send_packet);
    ADD("loopback", test_loopback);
    ADD("registers", test_registers);
    ADD("quiesce", test_quiesce);
    ADD("state", test_state);
    g_test_add_func("/ne2000/pci-config", test_pci_config);
    g_test_add_func("/ne2000/refused", test_refused);
    return g_test_run();
}
