// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PCNet's bus master side: initialization block, descriptor rings, frames.
 *
 * Spec: AMD Am79C970A data sheet (19436), "Buffer Management Unit", "Initialization Block",
 * "Receive Descriptors", "Transmit Descriptors", "Loopback Operation". Threads and what is left
 * out: nic_am79c970.c.
 *
 * A transmit round takes the lock, collects up to PCNET_TX_FRAMES frames whose pieces stay in guest
 * memory, drops the lock for one net_send() of all of them, and writes the descriptors back. A
 * frame in many small pieces is copied from the PCNET_TX_FRAME_IOVSth piece on. What the wire
 * did not take was not consumed either: the next round reads its descriptors again.
 *
 * A received frame is laid over the descriptors first, then copied, then the descriptors are given
 * back from the last to the first, so that a driver which sees STP finds the whole frame.
 *
 * Invariants:
 * (1) A descriptor's OWN is looked at alone, and only then, behind a barrier, the whole descriptor
 *     is copied. All that is used comes from that one copy, which must have OWN as well.
 * (2) A batch holds no descriptor twice: it is never longer than the ring. A frame that would come
 *     round to its own first descriptor finds it given back, as on the part.
 * (3) After the lock was dropped for net_send(), nothing of the batch is used if the generation
 *     moved: the guest has stopped or reset the chip.
 * (4) Every loop over descriptors is bounded: by the batch when sending, by RX_DESCS when
 *     receiving. Lengths are summed in 32 bits from at most 512 values below 4096.
 * (5) Loopback copies the frame to memory of our own before it is received: the receive buffers may
 *     be the transmit buffers.
 */
#include "nic_am79c970.h"

#include <string.h>

#include "lodge/num.h"

enum {
    RX_DESCS = 128,      /* descriptors that one frame may spread over */
    HEADER_LEN = 14,
    FRAME_MIN = 60,      /* bytes without FCS that a sender pads to */
    FRAME_LONG = 1518,   /* bytes with FCS; longer is a babble */
    LENGTH_FIELD = 12,
    LENGTH_PADDED = 46,  /* an 802.3 length below this means padding */
    RING_LEN_MAX_LOG2 = 9,
    STYLE_ILACC = 1,
    STYLE_BURST = 3,
};

enum { /* Upper half of RMD1 and TMD1 */
    MD_OWN = 0x8000,
    MD_ERR = 0x4000,
    MD_STP = 0x0200,
    MD_ENP = 0x0100,
    RMD_CRC = 0x0800,
    RMD_BUFF = 0x0400,
    RMD_PAM = 0x0040,
    RMD_LAFM = 0x0020,
    RMD_BAM = 0x0010,
    TMD_ADD_FCS = 0x2000, /* ILACC style: NO_FCS */
    TMD_LTINT = 0x1000,   /* written back as MORE */
    TMD_ONE = 0x0800,
    TMD_DEF = 0x0400,
};

enum { /* Upper half of TMD2 */
    TMD_BUFF = 0x8000,
    TMD_UFLO = 0x4000,
    TMD_LCAR = 0x0800,
};

/* A descriptor in the form of the 32-bit styles, whatever its style. */
typedef struct Desc {
    gpa_t gpa;
    uint32_t buffer;
    uint16_t status; /* RMD1 or TMD1, bits 31..16 */
    uint16_t len;    /* of the buffer, 0..4095 */
} Desc;

typedef enum DescOwner { DESC_OURS, DESC_HOST, DESC_ABORT } DescOwner;

static const uint8_t zeros[FRAME_MIN];

/**
 * pcnet_ssize32() - Whether software structures are 32 bits wide
 * Spec: BCR20, SSIZE32.
 */
bool pcnet_ssize32(const Pcnet *n)
{
    uint8_t style = n->regs.bcr[BCR_STYLE] & 0xff;

    return style >= STYLE_ILACC && style <= STYLE_BURST;
}

static uint8_t style_of(const Pcnet *n)
{
    return pcnet_ssize32(n) ? n->regs.bcr[BCR_STYLE] & 0xff : 0;
}

static unsigned desc_size(const Pcnet *n)
{
    return pcnet_ssize32(n) ? 16 : 8;
}

/* CSR2: bits 31..24 of every address while structures are 16 bits wide. */
static uint32_t high_address(const Pcnet *n)
{
    return (uint32_t)(n->regs.csr[CSR_IADR_HIGH] & 0xff00) << 16;
}

static uint32_t csr32(const Pcnet *n, unsigned low)
{
    return n->regs.csr[low] | (uint32_t)n->regs.csr[low + 1] << 16;
}

static void set_csr32(Pcnet *n, unsigned low, uint32_t val)
{
    n->regs.csr[low] = (uint16_t)val;
    n->regs.csr[low + 1] = (uint16_t)(val >> 16);
}

/* ---- rings: CSR72 and CSR74 count from the length's complement in CSR76 and CSR78 up ---- */

/* 1..65536: a length register of 0 stands for 65536. */
static uint32_t ring_len(const Pcnet *n, bool rx)
{
    return 0x10000u - n->regs.csr[rx ? CSR_RCVRL : CSR_XMTRL];
}

/* Below ring_len(): a counter past the ring is at its last entry. */
static uint32_t ring_index(const Pcnet *n, bool rx)
{
    uint16_t counter = n->regs.csr[rx ? CSR_RCVRC : CSR_XMTRC];
    uint16_t first = n->regs.csr[rx ? CSR_RCVRL : CSR_XMTRL];

    return MIN((uint16_t)(counter - first), ring_len(n, rx) - 1);
}

/* @count: at most the ring's length. */
static void ring_advance(Pcnet *n, bool rx, uint32_t count)
{
    uint32_t index = (ring_index(n, rx) + count) % ring_len(n, rx);

    n->regs.csr[rx ? CSR_RCVRC : CSR_XMTRC] =
        (uint16_t)(n->regs.csr[rx ? CSR_RCVRL : CSR_XMTRL] + index);
}

/**
 * pcnet_desc_address() - Address of the descriptor @ahead of the current one, modulo 4 GiB
 */
uint32_t pcnet_desc_address(const Pcnet *n, bool rx, unsigned ahead)
{
    uint32_t base = csr32(n, rx ? CSR_BADR : CSR_BADX);
    uint32_t index = (ring_index(n, rx) + ahead) % ring_len(n, rx);

    if (!pcnet_ssize32(n))
        base = (base & 0xffffff) | high_address(n);
    return (base & ~(uint32_t)(desc_size(n) - 1)) + index * desc_size(n);
}

/* Copy the descriptor @ahead of the current one if it is ours. Keeps (1). */
static DescOwner desc_read(Pcnet *n, bool rx, unsigned ahead, Desc *ret_desc)
{
    MemMap *mem = n->pci.dev.board->mem;
    gpa_t gpa = pcnet_desc_address(n, rx, ahead);
    bool wide = pcnet_ssize32(n);
    uint8_t raw[16], own;

    ret_desc->gpa = gpa;
    if (!mem_read(mem, gpa + (wide ? 7 : 3), &own, 1))
        return DESC_ABORT;
    if (!(own & (MD_OWN >> 8)))
        return DESC_HOST;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (!mem_read(mem, gpa, raw, desc_size(n)))
        return DESC_ABORT;
    if (wide) {
        ret_desc->buffer = load_le32(raw + (style_of(n) == STYLE_BURST ? 8 : 0));
        ret_desc->status = load_le16(raw + 6);
        ret_desc->len = (uint16_t)(-load_le16(raw + 4) & 0xfff);
    } else {
        ret_desc->buffer = load_le16(raw) | (uint32_t)raw[2] << 16 | high_address(n);
        ret_desc->status = (uint16_t)(raw[3] << 8);
        ret_desc->len = (uint16_t)(-load_le16(raw + 4) & 0xfff);
    }
    return ret_desc->status & MD_OWN ? DESC_OURS : DESC_HOST;
}

/* Give a descriptor back; its status half only, the rest is the driver's. */
static bool desc_release(Pcnet *n, gpa_t gpa, uint16_t status)
{
    uint8_t raw[2];

    store_le16(raw, status & ~MD_OWN);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    if (pcnet_ssize32(n))
        return mem_write(n->pci.dev.board->mem, gpa + 6, raw, sizeof raw);
    return mem_write(n->pci.dev.board->mem, gpa + 3, raw + 1, 1);
}

/**
 * pcnet_rx_owned_locked() - Whether a frame could be received now, or would be lost at once
 *
 * For a cheap look before the wire is asked to deliver what it holds.
 */
bool pcnet_rx_owned_locked(Pcnet *n)
{
    Desc d;

    lock_assert_held(&n->pci.dev.lock);
    if (!(n->regs.csr[CSR_STATUS] & CSR0_RXON))
        return true;
    return pcnet_running(n, CSR0_RXON) && desc_read(n, true, 0, &d) != DESC_HOST;
}

/* ---- initialization block ---- */

static uint16_t ring_complement(unsigned log2)
{
    return (uint16_t)-(1u << MIN(log2, RING_LEN_MAX_LOG2));
}

/**
 * pcnet_init_block_locked() - Load mode, addresses, filter and rings from memory
 * Context: vCPU thread, dev.lock held.
 * Return:  false: it lies outside memory; the chip has stopped.
 * Spec:    "Initialization Block": 24 bytes for 16-bit structures, 28 for 32-bit ones.
 */
bool pcnet_init_block_locked(Pcnet *n)
{
    uint32_t at = csr32(n, CSR_IADR_LOW);
    uint8_t b[28];

    lock_assert_held(&n->pci.dev.lock);
    if (pcnet_ssize32(n)) {
        at &= ~3u;
        if (!mem_read(n->pci.dev.board->mem, at, b, sizeof b)) {
            pcnet_master_abort_locked(n, "initialization block", at);
            return false;
        }
        n->regs.csr[CSR_MODE] = load_le16(b);
        n->regs.csr[CSR_RCVRL] = ring_complement(b[2] >> 4);
        n->regs.csr[CSR_XMTRL] = ring_complement(b[3] >> 4);
        for (unsigned i = 0; i < 3; i++)
            n->regs.csr[CSR_PADR + i] = load_le16(b + 4 + 2 * i);
        for (unsigned i = 0; i < 4; i++)
            n->regs.csr[CSR_LADRF + i] = load_le16(b + 12 + 2 * i);
        set_csr32(n, CSR_BADR, load_le32(b + 20));
        set_csr32(n, CSR_BADX, load_le32(b + 24));
    } else {
        at &= ~1u;
        if (!mem_read(n->pci.dev.board->mem, at, b, 24)) {
            pcnet_master_abort_locked(n, "initialization block", at);
            return false;
        }
        n->regs.csr[CSR_MODE] = load_le16(b);
        for (unsigned i = 0; i < 3; i++)
            n->regs.csr[CSR_PADR + i] = load_le16(b + 2 + 2 * i);
        for (unsigned i = 0; i < 4; i++)
            n->regs.csr[CSR_LADRF + i] = load_le16(b + 8 + 2 * i);
        set_csr32(n, CSR_BADR, (load_le32(b + 16) & 0xffffff) | high_address(n));
        set_csr32(n, CSR_BADX, (load_le32(b + 20) & 0xffffff) | high_address(n));
        n->regs.csr[CSR_RCVRL] = ring_complement(b[19] >> 5);
        n->regs.csr[CSR_XMTRL] = ring_complement(b[23] >> 5);
    }
    n->regs.csr[CSR_RCVRC] = n->regs.csr[CSR_RCVRL];
    n->regs.csr[CSR_XMTRC] = n->regs.csr[CSR_XMTRL];
    return true;
}

/* ---- CRC of 802.3, 3.2.9: reflected polynomial 0x04C11DB7 ---- */

static uint32_t crc_update(uint32_t crc, const uint8_t *p, size_t len)
{
    static const uint32_t nibble[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };

    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        crc = (crc >> 4) ^ nibble[crc & 15];
        crc = (crc >> 4) ^ nibble[crc & 15];
    }
    return crc;
}

/* ---- receiving ---- */

static size_t frame_head(const NetFrame *f, uint8_t *to, size_t max)
{
    size_t done = 0;

    for (unsigned i = 0; i < f->niov && done < max; i++) {
        size_t len = MIN(f->iov[i].iov_len, max - done);

        if (len) /* an empty piece may have no address */
            memcpy(to + done, f->iov[i].iov_base, len);
        done += len;
    }
    return done;
}

/* Spec: CSR15 and "Address Matching". RMD_PAM, RMD_LAFM, RMD_BAM of the match. */
static bool wanted(const Pcnet *n, const uint8_t *dest, uint16_t *ret_match)
{
    static const uint8_t broadcast[PCNET_MAC_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    uint16_t mode = n->regs.csr[CSR_MODE], match = 0;

    if (!memcmp(dest, broadcast, sizeof broadcast) && !(mode & MODE_DRCVBC)) {
        match = RMD_BAM;
    } else if (dest[0] & 1) {
        unsigned bit = crc_update(UINT32_MAX, dest, PCNET_MAC_LEN) >> 26;

        if (n->regs.csr[CSR_LADRF + bit / 16] >> (bit % 16) & 1)
            match = RMD_LAFM;
    } else if (!(mode & MODE_DRCVPA)) {
        uint8_t own[PCNET_MAC_LEN];

        for (unsigned i = 0; i < 3; i++)
            store_le16(own + 2 * i, n->regs.csr[CSR_PADR + i]);
        if (!memcmp(dest, own, sizeof own))
            match = RMD_PAM;
    }
    *ret_match = match;
    return match || (mode & MODE_PROM);
}

/* What is left of a frame that is being copied out: @tail zeros follow its bytes. */
typedef struct Source {
    const struct iovec *iov;
    unsigned niov;
    size_t off, left; /* off in iov[0]; left of the frame's own bytes */
} Source;

/* memmove: a wire between two cards of one guest lends guest memory. */
static void source_take(Source *s, uint8_t *to, size_t len)
{
    while (len) {
        size_t chunk;

        if (!s->left || !s->niov) {
            memset(to, 0, len);
            return;
        }
        chunk = MIN(MIN(len, s->left), s->iov->iov_len - s->off);
        if (chunk) /* an empty piece may have no address */
            memmove(to, (const uint8_t *)s->iov->iov_base + s->off, chunk);
        to += chunk;
        len -= chunk;
        s->left -= chunk;
        s->off += chunk;
        if (s->off == s->iov->iov_len) {
            s->iov++;
            s->niov--;
            s->off = 0;
        }
    }
}

static bool fill_buffer(Pcnet *n, Source *s, gpa_t at, size_t len)
{
    while (len) {
        MemPin pin;
        size_t got = mem_pin_some(n->pci.dev.board->mem, at, len, true, &pin);

        if (!got)
            return false;
        source_take(s, pin.host, got);
        mem_unpin(&pin);
        at += got;
        len -= got;
    }
    return true;
}

/* Lay @total bytes over descriptors. Return: how many, 0 with *ret_owner for none.
 * @ret_room: bytes in them, perhaps fewer than @total. */
static unsigned rx_collect(Pcnet *n, uint32_t total, Desc *descs, uint32_t *ret_room,
                           DescOwner *ret_owner)
{
    uint32_t max = MIN(ring_len(n, true), RX_DESCS), room = 0;
    unsigned count = 0;

    *ret_owner = DESC_OURS;
    while (room < total && count < max) {
        *ret_owner = desc_read(n, true, count, &descs[count]);
        if (*ret_owner != DESC_OURS)
            break;
        room += descs[count++].len;
    }
    *ret_room = room;
    return count;
}

/* Message byte count, valid with ENP. Spec: RMD2 (RMD3 for 16-bit structures). */
static bool write_mcnt(Pcnet *n, const Desc *d, uint32_t mcnt)
{
    uint8_t raw[4];
    unsigned at = style_of(n) == STYLE_BURST ? 0 : 8;

    store_le32(raw, mcnt);
    if (pcnet_ssize32(n))
        return mem_write(n->pci.dev.board->mem, d->gpa + at, raw, 4);
    return mem_write(n->pci.dev.board->mem, d->gpa + 6, raw, 2);
}

/* Put @total bytes, of which @f has the first @data, into the ring. */
static PcnetRxResult rx_put(Pcnet *n, const NetFrame *f, uint32_t data, uint32_t total,
                            uint16_t flags)
{
    Desc descs[RX_DESCS];
    DescOwner owner;
    uint32_t room, left = total;
    unsigned count = rx_collect(n, total, descs, &room, &owner);
    Source s = {f->iov, f->niov, 0, data};
    bool whole = room >= total;

    if (owner == DESC_ABORT) {
        pcnet_master_abort_locked(n, "receive descriptor", descs[count].gpa);
        return PCNET_RX_DROP;
    }
    if (!count)
        return PCNET_RX_FULL;
    for (unsigned i = 0; i < count; i++) {
        uint32_t len = MIN(left, descs[i].len);

        if (!fill_buffer(n, &s, descs[i].buffer, len)) {
            pcnet_master_abort_locked(n, "receive buffer", descs[i].buffer);
            return PCNET_RX_DROP;
        }
        left -= len;
    }
    for (unsigned i = count; i-- > 0;) {
        uint16_t status = i == 0 ? MD_STP : 0;
        bool ok = true;

        if (i == count - 1) {
            /* Data sheet, RMD1, BUFF: the next buffer is not ours and the frame goes on. */
            status |= whole ? MD_ENP | flags : MD_ERR | RMD_BUFF;
            if (whole)
                ok = write_mcnt(n, &descs[i], total);
        }
        /* Bits 7..0 are part of the buffer's address where structures are 16 bits wide. */
        if (!ok || !desc_release(n, descs[i].gpa, status)) {
            pcnet_master_abort_locked(n, "receive descriptor", descs[i].gpa);
            return PCNET_RX_DROP;
        }
    }
    ring_advance(n, true, count);
    n->regs.csr[CSR_STATUS] |= CSR0_RINT;
    pcnet_update_irq_locked(n);
    return PCNET_RX_DONE;
}

/**
 * pcnet_rx_locked() - Receive a frame from the wire
 * @f: without FCS; four zero bytes stand for it
 * Context: IoThread, dev.lock held.
 * Return:  PCNET_RX_FULL: keep it, there is no descriptor now (or no bus); PCNET_RX_DROP: the
 *          receiver is off, the frame not for us, or never to fit.
 * Spec:    "Receive Operation", CSR4 ASTRP_RCV.
 */
PcnetRxResult pcnet_rx_locked(Pcnet *n, const NetFrame *f)
{
    uint8_t head[HEADER_LEN];
    uint32_t data = f->len, total = MAX(f->len, FRAME_MIN) + PCNET_FCS_LEN;
    uint16_t match;

    lock_assert_held(&n->pci.dev.lock);
    if (!(n->regs.csr[CSR_STATUS] & CSR0_RXON) || (n->regs.csr[CSR_MODE] & MODE_LOOP))
        return PCNET_RX_DROP;
    if (f->len > PCNET_FRAME_MAX - PCNET_FCS_LEN ||
        frame_head(f, head, sizeof head) != sizeof head || !wanted(n, head, &match))
        return PCNET_RX_DROP;
    if (!pcnet_running(n, CSR0_RXON))
        return PCNET_RX_FULL;
    if (n->regs.csr[CSR_TEST_FEATURES] & CSR4_ASTRP_RCV) {
        uint16_t length = load_be16(head + LENGTH_FIELD);

        if (length < LENGTH_PADDED) {
            total = HEADER_LEN + length;
            data = MIN(data, total);
        }
    }
    return rx_put(n, f, data, total, match);
}

/* ---- sending ---- */

/* Append guest memory to the item under construction. False: outside memory. */
static bool tx_piece(Pcnet *n, unsigned first_iov, gpa_t at, uint32_t len)
{
    PcnetTx *tx = n->tx;

    while (len) {
        MemPin pin;
        size_t got = mem_pin_some(n->pci.dev.board->mem, at, len, false, &pin);

        if (!got)
            return false;
        if (tx->iovs - first_iov < PCNET_TX_FRAME_IOVS) {
            tx->iov[tx->iovs++] = (struct iovec){pin.host, got};
        } else {
            /* The caller made sure that the rest of the frame fits. */
            uint8_t *to = tx->bounce + tx->bounced;

            if (tx->iovs - first_iov == PCNET_TX_FRAME_IOVS)
                tx->iov[tx->iovs++] = (struct iovec){to, 0};
            memcpy(to, pin.host, got);
            tx->iov[tx->iovs - 1].iov_len += got;
            tx->bounced += (unsigned)got;
        }
        mem_unpin(&pin);
        at += got;
        len -= (uint32_t)got;
    }
    return true;
}

static void tx_trim(PcnetTx *tx, uint32_t bytes)
{
    while (bytes) {
        struct iovec *last = &tx->iov[tx->iovs - 1];
        size_t cut = MIN(bytes, last->iov_len);

        last->iov_len -= cut;
        bytes -= (uint32_t)cut;
        if (!last->iov_len)
            tx->iovs--;
    }
}

/* Whether the driver brings the FCS itself. Spec: CSR15 DXMTFCS, TMD1 ADD_FCS/NO_FCS, CSR4. */
static bool driver_fcs(const Pcnet *n, uint16_t first, uint16_t last)
{
    bool off = n->regs.csr[CSR_MODE] & MODE_DXMTFCS;

    if (n->regs.csr[CSR_TEST_FEATURES] & CSR4_APAD_XMT)
        return false;
    if (style_of(n) == STYLE_ILACC)
        return off || (last & TMD_ADD_FCS);
    return off && !(first & TMD_ADD_FCS);
}

/* The item's pieces are complete: pad, FCS, length; whether and what to send. */
static void tx_finish(Pcnet *n, PcnetTxFrame *item, unsigned first_iov, uint32_t len)
{
    PcnetTx *tx = n->tx;
    uint16_t mode = n->regs.csr[CSR_MODE];

    item->own_fcs = driver_fcs(n, tx->desc[item->first].status,
                               tx->desc[item->first + item->descs - 1].status);
    item->babble = len + (item->own_fcs ? 0 : PCNET_FCS_LEN) > FRAME_LONG;
    if (item->own_fcs && !(mode & MODE_LOOP)) {
        uint32_t cut = MIN(len, PCNET_FCS_LEN);

        tx_trim(tx, cut);
        len -= cut;
    }
    if ((n->regs.csr[CSR_TEST_FEATURES] & CSR4_APAD_XMT) && len < FRAME_MIN) {
        tx->iov[tx->iovs++] = (struct iovec){(void *)zeros, FRAME_MIN - len};
        len = FRAME_MIN;
    }
    if (!n->link_up && !(mode & (MODE_LOOP | MODE_DLNKTST)))
        item->error = TMD_LCAR;
    /* Shorter than a header: a fragment, which nobody on a network takes for a frame. */
    item->send = !item->error && len >= HEADER_LEN;
    if (!item->send && !item->error)
        net_count_loss(&n->port, NET_LOSS_HEADER, 1);
    if (!item->send)
        return;
    item->frame = tx->frames;
    tx->frame[tx->frames++] =
        (NetFrame){.iov = tx->iov + first_iov, .niov = tx->iovs - first_iov, .len = len};
}

typedef enum TxTake { TX_TAKEN, TX_NONE, TX_ABORT } TxTake;

/* Add one frame to the batch. Keeps (2) and (4). */
static TxTake tx_take(Pcnet *n)
{
    PcnetTx *tx = n->tx;
    unsigned first_iov = tx->iovs, bounced = tx->bounced, count = 0;
    uint32_t len = 0;
    PcnetTxFrame *item = &tx->item[tx->items];
    bool too_long = false, ended = false;

    if (tx->items == PCNET_TX_FRAMES || tx->iovs + PCNET_TX_FRAME_IOVS + 2 > PCNET_TX_IOVS)
        return TX_NONE;
    *item = (PcnetTxFrame){.first = (uint16_t)tx->descs};
    while (!ended) {
        Desc d;
        DescOwner owner = DESC_HOST;

        if (item->first + count == PCNET_TX_DESCS) {
            if (!item->first) {
                too_long = true; /* no frame has that many */
                break;
            }
            tx->iovs = first_iov;
            tx->bounced = bounced;
            return TX_NONE;
        }
        if (item->first + count < ring_len(n, false))
            owner = desc_read(n, false, item->first + count, &d);
        if (owner == DESC_ABORT) {
            pcnet_master_abort_locked(n, "transmit descriptor", d.gpa);
            return TX_ABORT;
        }
        if (owner == DESC_HOST) {
            if (!count)
                return TX_NONE;
            /* TMD2, BUFF: no ENP, and the next buffer is not ours. */
            item->error = TMD_BUFF | TMD_UFLO;
            break;
        }
        tx->desc[item->first + count++] = (PcnetTxDesc){d.gpa, d.status};
        if (count == 1 && !(d.status & MD_STP)) {
            item->skipped = true; /* TMD1, STP: passed over until one starts a frame */
            break;
        }
        too_long = too_long || len + d.len > PCNET_FRAME_MAX - PCNET_FCS_LEN;
        if (!too_long && bounced && tx->bounced + d.len > sizeof tx->bounce) {
            /* It may not fit behind earlier copies; alone in a batch it always does. */
            tx->iovs = first_iov;
            tx->bounced = bounced;
            return TX_NONE;
        }
        if (!too_long && !tx_piece(n, first_iov, d.buffer, d.len)) {
            pcnet_master_abort_locked(n, "transmit buffer", d.buffer);
            return TX_ABORT;
        }
        len += too_long ? 0 : d.len;
        ended = d.status & MD_ENP;
    }
    item->descs = (uint16_t)count;
    tx->descs += count;
    tx->items++;
    item->babble = too_long;
    if (too_long)
        net_count_loss(&n->port, NET_LOSS_HEADER, 1);
    if (!item->skipped && !item->error && !too_long)
        tx_finish(n, item, first_iov, len);
    if (!item->send) {
        tx->iovs = first_iov;
        tx->bounced = bounced;
    }
    return TX_TAKEN;
}

/* Loopback: the frame that was sent comes in. Nobody keeps it: without a descriptor it is missed.
 * Keeps (5). Spec: "Loopback Operation". */
static void tx_loop(Pcnet *n, const PcnetTxFrame *item)
{
    PcnetTx *tx = n->tx;
    uint32_t len = (uint32_t)frame_head(&tx->frame[item->frame], tx->loop,
                                        sizeof tx->loop - PCNET_FCS_LEN);
    uint32_t covered = item->own_fcs ? len - PCNET_FCS_LEN : len;
    uint32_t fcs = ~crc_update(UINT32_MAX, tx->loop, covered);
    struct iovec iov = {tx->loop, covered + PCNET_FCS_LEN};
    NetFrame f = {.iov = &iov, .niov = 1, .len = covered + PCNET_FCS_LEN};
    uint16_t flags;

    if (!(n->regs.csr[CSR_STATUS] & CSR0_RXON) || !wanted(n, tx->loop, &flags))
        return;
    if (!item->own_fcs)
        store_le32(tx->loop + covered, fcs);
    else if (load_le32(tx->loop + covered) != fcs)
        flags |= MD_ERR | RMD_CRC;
    if (rx_put(n, &f, f.len, f.len, flags) == PCNET_RX_FULL)
        n->regs.csr[CSR_STATUS] |= CSR0_MISS;
}

/* TMD2 31..16 (TMD3 for 16-bit structures); written for errors only. */
static bool write_error(Pcnet *n, gpa_t gpa, uint16_t error)
{
    uint8_t raw[2];
    unsigned at = !pcnet_ssize32(n) ? 6 : style_of(n) == STYLE_BURST ? 2 : 10;

    store_le16(raw, error);
    return mem_write(n->pci.dev.board->mem, gpa + at, raw, sizeof raw);
}

static bool tx_release(Pcnet *n, const PcnetTxFrame *item)
{
    for (unsigned k = 0; k < item->descs; k++) {
        const PcnetTxDesc *d = &n->tx->desc[item->first + k];
        uint16_t status = d->status & ~(MD_ERR | TMD_LTINT | TMD_ONE | TMD_DEF);

        if (item->error && k == item->descs - 1u) {
            status |= MD_ERR;
            if (!write_error(n, d->gpa, item->error))
                return false;
        }
        if (!desc_release(n, d->gpa, status))
            return false;
    }
    return true;
}

/* Flags of a frame that is done. Spec: CSR0, CSR4 TXSTRT, CSR5 TOKINTD and LTINTEN. */
static void tx_account(Pcnet *n, const PcnetTxFrame *item)
{
    uint16_t *csr = n->regs.csr;
    bool last = n->tx->desc[item->first + item->descs - 1].status & TMD_LTINT;

    if (item->skipped)
        return;
    if (item->send)
        csr[CSR_TEST_FEATURES] |= CSR4_TXSTRT;
    if (item->babble)
        csr[CSR_STATUS] |= CSR0_BABL;
    if (item->error & TMD_LCAR)
        csr[CSR_STATUS] |= CSR0_CERR; /* CSR0, CERR: after sending in Link Fail state */
    if ((item->error & TMD_UFLO) && !(csr[CSR_MASKS] & CSR3_DXSUFLO))
        csr[CSR_STATUS] &= ~CSR0_TXON;
    if (item->error || (!(csr[CSR_EXTENDED] & CSR5_TOKINTD) &&
                        (last || !(csr[CSR_EXTENDED] & CSR5_LTINTEN))))
        csr[CSR_STATUS] |= CSR0_TINT;
}

/**
 * pcnet_tx_round_locked() - Send one batch
 * Context: IoThread, dev.lock held; dropped and taken again around the wire. Keeps (3).
 * Return:  whether another round may find more.
 * Spec:    "Transmit Operation", "Transmit Descriptor Table Entry".
 */
bool pcnet_tx_round_locked(Pcnet *n)
{
    PcnetTx *tx = n->tx;
    uint16_t mode = n->regs.csr[CSR_MODE];
    uint32_t generation = n->generation;
    unsigned took, consumed = 0, i;
    TxTake take;

    lock_assert_held(&n->pci.dev.lock);
    if (!pcnet_running(n, CSR0_TXON))
        return false;
    tx->items = tx->frames = tx->descs = tx->iovs = tx->bounced = 0;
    do {
        take = tx_take(n);
    } while (take == TX_TAKEN);
    if (take == TX_ABORT || !tx->items)
        return false;
    took = tx->frames;
    if (tx->frames && (mode & (MODE_LOOP | MODE_INTL)) != (MODE_LOOP | MODE_INTL)) {
        n->tx_busy = true;
        lodge_unlock(&n->pci.dev.lock);
        took = net_send(&n->port, tx->frame, tx->frames);
        lodge_lock(&n->pci.dev.lock);
        n->tx_busy = false;
    }
    for (i = 0; i < tx->items && generation == n->generation; i++) {
        const PcnetTxFrame *item = &tx->item[i];

        if (item->send && item->frame >= took)
            break;
        if (item->send && (mode & MODE_LOOP)) {
            tx_loop(n, item);
            if (generation != n->generation)
                break;
        }
        if (!tx_release(n, item)) {
            pcnet_master_abort_locked(n, "transmit descriptor", tx->desc[item->first].gpa);
            break;
        }
        consumed += item->descs;
        tx_account(n, item);
    }
    if (generation != n->generation)
        return false;
    ring_advance(n, false, consumed);
    pcnet_update_irq_locked(n);
    n->tx_waiting = i < tx->items;
    return !n->tx_waiting;
}
