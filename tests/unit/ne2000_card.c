/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See ne2000_card.h. */
#include "ne2000_card.h"

#include <string.h>

#include "lodge/num.h"
#include "pci.h"

const uint8_t mac_own[6] = {0x52, 0x54, 0, 0, 0, 1};
const uint8_t mac_other[6] = {0x52, 0x54, 0, 0, 0, 2};
const uint8_t mac_broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
const uint8_t mac_group[6] = {0x01, 0x00, 0x5e, 0, 0, 1};

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

void card_out(Fix *f, unsigned reg, uint8_t val)
{
    test_out(f->tb, (uint16_t)(f->io + reg), 1, val);
}

uint8_t card_in(Fix *f, unsigned reg)
{
    return (uint8_t)test_in(f->tb, (uint16_t)(f->io + reg), 1);
}

void card_out_word(Fix *f, unsigned reg, uint16_t val)
{
    card_out(f, reg, (uint8_t)val);
    card_out(f, reg + 1, (uint8_t)(val >> 8));
}

bool card_irq(Fix *f)
{
    if (!f->irq)
        return test_cfg_read(f->tb, f->devfn, 6, 2) & 8;
    irq_lock_take(f->tb->board.irq);
    bool level = irq_level_locked(f->tb->board.irq, f->irq);
    irq_lock_drop(f->tb->board.irq);
    return level;
}

void card_set_address(Fix *f, const uint8_t mac[6])
{
    card_out(f, 0, CR_PAGE1 | 1);
    for (unsigned i = 0; i < 6; i++)
        card_out(f, 1 + i, mac[i]);
    card_out(f, 0, CR_STOP);
}

static void set_curr(Fix *f, uint8_t page)
{
    uint8_t cr = card_in(f, 0);

    card_out(f, 0, (cr & 0x3f) | 0x40);
    card_out(f, 7, page);
    card_out(f, 0, cr & 0x3f);
}

uint8_t card_get_curr(Fix *f)
{
    card_out(f, 0, CR_PAGE1);
    uint8_t page = card_in(f, 7);
    card_out(f, 0, CR_START);
    return page;
}

void card_set_ring(Fix *f, uint8_t first, uint8_t stop, uint8_t bnry, uint8_t curr)
{
    card_out(f, 1, first);
    card_out(f, 2, stop);
    card_out(f, 3, bnry);
    set_curr(f, curr);
}

void card_init(Fix *f)
{
    card_out(f, 0, CR_STOP);
    card_out(f, 0x0e, 0x49);
    card_out_word(f, 0x0a, 0);
    card_out(f, 0x0c, 0x04);
    card_out(f, 0x0d, 0x00);
    card_out(f, 7, 0xff);
    card_out(f, 0x0f, 0x00);
    card_set_address(f, mac_own);
    card_set_ring(f, RX_FIRST, RX_STOP, RX_FIRST, RX_FIRST + 1);
    card_out(f, 0, CR_START);
}

void card_start(Fix *f, bool isa)
{
    f->peer = (NetPort){.ops = &peer_ops, .name = "peer", .opaque = f, .io = f->loop};
    f->got = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
    f->room = UINT32_MAX;
    f->tb = test_board_new(MIB);
    f->tb->board.io = f->loop;
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
    card_init(f);
}

void card_up(Fix *f, gconstpointer isa)
{
    card_start(f, isa);
}

void card_down(Fix *f, gconstpointer unused)
{
    test_board_free(f->tb);
    g_ptr_array_free(f->got, TRUE);
}

void card_remote(Fix *f, uint8_t rd, uint16_t at, uint16_t len)
{
    card_out_word(f, 0x08, at);
    card_out_word(f, 0x0a, len);
    card_out(f, 7, ISR_RDC);
    card_out(f, 0, 0x02 | rd);
}

void card_put(Fix *f, uint16_t at, const uint8_t *data, uint16_t len)
{
    len = (uint16_t)align_up(len, 2);
    card_remote(f, 0x10, at, len);
    for (unsigned i = 0; i < len; i += 2)
        test_out(f->tb, (uint16_t)(f->io + DATA), 2, load_le16(data + i));
}

void card_get(Fix *f, uint16_t at, uint8_t *data, uint16_t len)
{
    len = (uint16_t)align_up(len, 2);
    card_remote(f, 0x08, at, len);
    for (unsigned i = 0; i < len; i += 2)
        store_le16(data + i, (uint16_t)test_in(f->tb, (uint16_t)(f->io + DATA), 2));
}

void frame_fill(uint8_t *frame, const uint8_t *dest, size_t len)
{
    for (size_t i = 0; i < len; i++)
        frame[i] = (uint8_t)(i * 3 + i / 256);
    memcpy(frame, dest, MIN(len, 6));
}

void card_send(Fix *f, uint8_t page, uint16_t len)
{
    card_out(f, 4, page);
    card_out_word(f, 5, len);
    card_out(f, 0, CR_START | 4);
}

void card_check_got(Fix *f, unsigned i, const uint8_t *frame, size_t len)
{
    size_t got;
    const uint8_t *b;

    g_assert_cmpuint(f->got->len, >, i);
    b = g_bytes_get_data(g_ptr_array_index(f->got, i), &got);
    g_assert_cmpmem(b, got, frame, len);
}

bool card_arrive(Fix *f, const uint8_t *frame, size_t len)
{
    size_t cut = MIN(len, 17);
    struct iovec iov[3] = {
        {(void *)frame, cut}, {NULL, 0}, {(void *)(frame + cut), len - cut}};
    NetFrame v = {.iov = iov, .niov = 3, .len = (uint32_t)len};

    return net_send(&f->peer, &v, 1) == 1;
}

bool card_hears(Fix *f, const uint8_t *dest)
{
    uint8_t frame[60];

    frame_fill(frame, dest, sizeof frame);
    card_out(f, 7, 0xff);
    uint8_t curr = card_get_curr(f);
    card_arrive(f, frame, sizeof frame);
    bool moved = card_get_curr(f) != curr;
    g_assert_cmphex(card_in(f, 7) & ISR_PRX, ==, moved ? ISR_PRX : 0);
    if (moved)
        card_out(f, 3, card_get_curr(f) == RX_FIRST ? RX_STOP - 1 : card_get_curr(f) - 1);
    return moved;
}
