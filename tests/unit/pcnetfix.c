/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See pcnetfix.h. */
#include "pcnetfix.h"

const uint8_t own[6] = {0x52, 0x54, 0, 0, 0, 1};
const uint8_t other[6] = {0x52, 0x54, 0, 0, 0, 2};
const uint8_t group[6] = {0x33, 0x33, 0, 0, 0, 5};
const uint8_t everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

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

const NetPortOps peer_ops = {.send = peer_send};

/* ---- the chip through its I/O BAR, word map ---- */

uint16_t csr(Fix *f, unsigned i)
{
    test_out(f->tb, f->io + 0x12, 2, i);
    return (uint16_t)test_in(f->tb, f->io + 0x10, 2);
}

void set_csr(Fix *f, unsigned i, uint16_t val)
{
    test_out(f->tb, f->io + 0x12, 2, i);
    test_out(f->tb, f->io + 0x10, 2, val);
}

uint16_t bcr(Fix *f, unsigned i)
{
    test_out(f->tb, f->io + 0x12, 2, i);
    return (uint16_t)test_in(f->tb, f->io + 0x16, 2);
}

void set_bcr(Fix *f, unsigned i, uint16_t val)
{
    test_out(f->tb, f->io + 0x12, 2, i);
    test_out(f->tb, f->io + 0x16, 2, val);
}

bool intx(Fix *f)
{
    return test_cfg_read(f->tb, f->pci->devfn, CFG_STATUS, 2) & 8;
}

void put(Fix *f, uint32_t at, const void *from, size_t len)
{
    g_assert_true(mem_write(f->tb->board.mem, at, from, len));
}

void get(Fix *f, uint32_t at, void *to, size_t len)
{
    g_assert_true(mem_read(f->tb->board.mem, at, to, len));
}

void put16(Fix *f, uint32_t at, uint16_t v)
{
    put(f, at, &v, sizeof v);
}

void put32(Fix *f, uint32_t at, uint32_t v)
{
    put(f, at, &v, sizeof v);
}

uint16_t get16(Fix *f, uint32_t at)
{
    uint16_t v;

    get(f, at, &v, sizeof v);
    return v;
}

/* ---- descriptors of the fixture's style ---- */

uint32_t desc_at(Fix *f, uint32_t ring, unsigned i)
{
    return ring + i * (f->style ? 16 : 8);
}

void put_desc(Fix *f, uint32_t ring, unsigned i, uint32_t buf, unsigned len, uint16_t status)
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

uint16_t status_of(Fix *f, uint32_t ring, unsigned i)
{
    return get16(f, desc_at(f, ring, i) + (f->style ? 6 : 2));
}

uint16_t tx_error(Fix *f, unsigned i)
{
    return get16(f, desc_at(f, f->tx_at, i) + (!f->style ? 6 : f->style == 3 ? 2 : 10));
}

unsigned mcnt(Fix *f, unsigned i)
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
void start(Fix *f)
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

void pcnet_board(Fix *f)
{
    f->peer = (NetPort){.ops = &peer_ops, .name = "peer", .opaque = f};
    f->got = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    f->room = UINT32_MAX;
    f->tb = test_board_new(RAM_BYTES);
    test_board_add(f->tb, "i440fx", NULL);
    test_board_backend(f->tb, "wire", &f->peer);
    f->style = 2;
    f->tx_len = f->rx_len = 2;
    f->tx_at = TX_AT;
    f->rx_at = RX_AT;
}

void pcnet_card(Fix *f)
{
    f->dev = test_board_add(f->tb, "pcnet", "netdev=wire,mac=52:54:00:00:00:01");
    f->pci = (PciDev *)f->dev;
    pci_assign(f->tb->board.pci, MMIO_BASE, MMIO_LIMIT);
    f->io = (uint16_t)(test_cfg_read(f->tb, f->pci->devfn, 0x10, 4) & ~3u);
    test_cfg_write(f->tb, f->pci->devfn, CFG_COMMAND, 2,
                   test_cfg_read(f->tb, f->pci->devfn, CFG_COMMAND, 2) | COMMAND_MASTER);
}

void fix_up(Fix *f, gconstpointer style)
{
    pcnet_board(f);
    pcnet_card(f);
    f->style = GPOINTER_TO_UINT(style);
    start(f);
}

void fix_down(Fix *f, gconstpointer unused)
{
    test_board_free(f->tb);
    g_ptr_array_free(f->got, TRUE);
}

void fill(Fix *f, uint32_t at, const uint8_t dest[6], unsigned len)
{
    g_autofree uint8_t *b = g_malloc(len + 6);

    for (unsigned i = 0; i < len; i++)
        b[i] = (uint8_t)(i * 7);
    memcpy(b, dest, 6);
    store_be16(b + 12, 0x0800);
    put(f, at, b, len);
}

/* One frame of @len bytes in descriptor @i, not announced. */
void offer(Fix *f, unsigned i, const uint8_t dest[6], unsigned len)
{
    fill(f, TX_BUF(i), dest, MAX(len, 14));
    put_desc(f, f->tx_at, i, TX_BUF(i), len, OWN | D_STP | D_ENP);
}

const uint8_t *got(Fix *f, unsigned i, size_t *ret_len)
{
    g_assert_cmpuint(i, <, f->got->len);
    return g_bytes_get_data(g_ptr_array_index(f->got, i), ret_len);
}

unsigned receive(Fix *f, const uint8_t dest[6], uint32_t len)
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
