/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pair of DMA controllers of a PC with the page registers around them.
 *
 * Spec: Intel 8237A High Performance Programmable DMA Controller, 231466-005 ("8237"); Intel
 * 82371SB (PIIX3), 290550-002, "DMA registers" ("PIIX3") for the ports, the page registers and the
 * channels that count words.
 *
 * Modelled: every register of the 8237 that a PC's software reaches; single, demand and block mode
 * alike (a device's FIFO moves at once), verify, autoinitialization, address decrement, the wrap of
 * the address counter inside its page. The PIIX3 has no registers for address bits above 23.
 * Left out: memory-to-memory transfers and transfers by software request (the request bit is kept
 * and shown, nothing moves), rotating priority, compressed and extended timing, bus masters behind
 * a cascaded channel, PIIX3's type F timing. Reads of write-only registers give ones.
 *
 * Threads: vCPU threads, and devices from wherever they work; under the pair's own lock, whose rank
 * lets a device call in with its lock held.
 *
 * Invariant: (1) a transfer touches only the 64 KiB (128 KiB for words) that its page register
 * names.
 */
#include <string.h>

#include "dma_i8237.h"
#include "lodge/num.h"
#include "pc_map.h"

enum {
    CHANNELS = 4, /* of one chip */
    DMA1_PORTS = 16,
    DMA2_PORTS = 32, /* every second one */
    PAGE_BASE = 0x81, /* 0x80 is the POST port */
    PAGE_PORTS = 15,
    COUNTER_WRAP = 0x10000,
    GUEST_PAGE = 4096,
};

/* 8237, "Register description" */
enum {
    REG_STATUS = 8, /* write: command */
    REG_REQUEST,
    REG_MASK_ONE,
    REG_MODE,
    REG_CLEAR_FLIP_FLOP,
    REG_MASTER_CLEAR, /* read: temporary register */
    REG_CLEAR_MASK,
    REG_MASK_ALL,
};
#define COMMAND_DISABLE 0x04
#define SELECT_SET 0x04 /* of a request or single mask write */
#define SELECT_CHANNEL 0x03
#define MODE_TRANSFER 0x0c
#define MODE_VERIFY 0x00
#define MODE_WRITE 0x04 /* device to memory */
#define MODE_READ 0x08
#define MODE_AUTOINIT 0x10
#define MODE_DECREMENT 0x20
#define MODE_CASCADE 0xc0
#define ALL_CHANNELS 0x0f

typedef struct DmaChannel {
    uint16_t base_addr, base_count;
    uint16_t addr, count; /* current; count is units less one */
    uint8_t mode;         /* as written, without the channel */
    uint8_t pad;
} DmaChannel;

typedef struct DmaChip {
    DmaChannel ch[CHANNELS];
    uint8_t command;
    uint8_t tc;      /* a bit a channel, cleared by reading the status */
    uint8_t request; /* by software */
    uint8_t dreq;    /* by devices */
    uint8_t mask;
    uint8_t temporary;
    bool high_byte;  /* the flip-flop */
    uint8_t pad;
} DmaChip;

typedef struct DmaRegs {
    DmaChip chip[2];
    uint8_t page[16]; /* at ports 0x80 + index; 0 is not ours */
} DmaRegs;

struct IsaDma {
    Device dev;
    /* Constant after realize: */
    BusRegion low, high, pages;
    LodgeLock pair_lock; /* LOCK_RANK_DMA; guards what follows */
    bool locked;         /* pair_lock is initialized */
    DmaRegs regs;
};

/* PIIX3, "DMA page registers": index of each channel's. */
static const uint8_t page_of[2 * CHANNELS] = {7, 3, 1, 2, 15, 11, 9, 10};

/* ---- transfers ---- */

static gpa_t unit_address(const IsaDma *m, unsigned ch)
{
    const DmaChannel *c = &m->regs.chip[ch / CHANNELS].ch[ch % CHANNELS];
    gpa_t page = m->regs.page[page_of[ch]];

    /* PIIX3: word channels shift the counter and ignore the page's lowest bit. */
    if (ch >= CHANNELS)
        return (page & ~UINT64_C(1)) << 16 | (gpa_t)c->addr << 1;
    return page << 16 | c->addr;
}

static void copy_page(IsaDma *m, gpa_t at, uint8_t *buf, size_t n, bool to_memory)
{
    MemMap *mem = m->dev.board->mem;

    if (to_memory)
        (void)mem_write(mem, at, buf, n); /* nobody takes it: dropped */
    else if (!mem_read(mem, at, buf, n))
        memset(buf, 0xff, n);
}

/* @n bytes, contiguous; memory comes and goes by pages. */
static void copy(IsaDma *m, gpa_t at, uint8_t *buf, size_t n, bool to_memory)
{
    while (n) {
        size_t part = MIN(n, GUEST_PAGE - at % GUEST_PAGE);
        copy_page(m, at, buf, part, to_memory);
        at += part;
        buf += part;
        n -= part;
    }
}

/* Units that can be moved in one copy from the current address. */
static size_t run_length(const DmaChannel *c, size_t units)
{
    if (c->mode & MODE_DECREMENT)
        return 1;
    return MIN(units, (size_t)COUNTER_WRAP - c->addr);
}

/* 8237, "Program condition", "Autoinitialize": what the last unit brings about. */
static void terminal_count(DmaChip *chip, unsigned i)
{
    DmaChannel *c = &chip->ch[i];

    chip->tc |= 1u << i;
    chip->request &= ~(1u << i);
    if (c->mode & MODE_AUTOINIT) {
        c->addr = c->base_addr;
        c->count = c->base_count;
    } else {
        chip->mask |= 1u << i;
    }
}

static size_t transfer(IsaDma *m, unsigned ch, uint8_t *buf, size_t len, bool to_memory,
                       bool *ret_tc)
{
    DmaChip *chip = &m->regs.chip[ch / CHANNELS];
    DmaChannel *c = &chip->ch[ch % CHANNELS];
    size_t unit = ch < CHANNELS ? 1 : 2;
    size_t left = MIN(len / unit, (size_t)c->count + 1), moved = 0;
    uint8_t kind = c->mode & MODE_TRANSFER;

    if ((chip->command & COMMAND_DISABLE) || (chip->mask & 1u << ch % CHANNELS) ||
        (c->mode & MODE_CASCADE) == MODE_CASCADE ||
        (kind != MODE_VERIFY && kind != (to_memory ? MODE_WRITE : MODE_READ)))
        return 0;
    while (left) {
        size_t n = run_length(c, left);
        if (kind != MODE_VERIFY)
            copy(m, unit_address(m, ch), buf + moved, n * unit, to_memory);
        else if (!to_memory)
            memset(buf + moved, 0xff, n * unit);
        c->addr = (uint16_t)(c->mode & MODE_DECREMENT ? c->addr - n : c->addr + n);
        *ret_tc = n > c->count;
        c->count = (uint16_t)(c->count - n);
        left -= n;
        moved += n * unit;
    }
    if (*ret_tc)
        terminal_count(chip, ch % CHANNELS);
    return moved;
}

size_t isa_dma_read(IsaDma *m, unsigned ch, void *buf, size_t len, bool *ret_tc)
{
    *ret_tc = false;
    g_assert(ch < 2 * CHANNELS);
    lodge_lock(&m->pair_lock);
    size_t n = transfer(m, ch, buf, len, false, ret_tc);
    lodge_unlock(&m->pair_lock);
    return n;
}

size_t isa_dma_write(IsaDma *m, unsigned ch, const void *buf, size_t len, bool *ret_tc)
{
    *ret_tc = false;
    g_assert(ch < 2 * CHANNELS);
    lodge_lock(&m->pair_lock);
    /* Only read from: the direction is to memory. */
    size_t n = transfer(m, ch, (uint8_t *)buf, len, true, ret_tc);
    lodge_unlock(&m->pair_lock);
    return n;
}

void isa_dma_request(IsaDma *m, unsigned ch, bool asserted)
{
    g_assert(ch < 2 * CHANNELS);
    lodge_lock(&m->pair_lock);
    uint8_t *dreq = &m->regs.chip[ch / CHANNELS].dreq, bit = (uint8_t)(1u << ch % CHANNELS);
    *dreq = asserted ? *dreq | bit : *dreq & ~bit;
    lodge_unlock(&m->pair_lock);
}

/* ---- registers ---- */

/* 8237, "Master clear"; DREQ is a pin and stays. */
static void master_clear(DmaChip *chip)
{
    chip->command = chip->tc = chip->request = chip->temporary = 0;
    chip->high_byte = false;
    chip->mask = ALL_CHANNELS;
}

static uint8_t chip_read(DmaChip *chip, unsigned reg)
{
    if (reg < REG_STATUS) {
        const DmaChannel *c = &chip->ch[reg / 2];
        uint16_t v = reg & 1 ? c->count : c->addr;
        unsigned shift = chip->high_byte ? 8 : 0;
        chip->high_byte = !chip->high_byte;
        return (uint8_t)(v >> shift);
    }
    if (reg == REG_STATUS) {
        uint8_t v = chip->tc | (uint8_t)((chip->dreq | chip->request) << 4);
        chip->tc = 0;
        return v;
    }
    return reg == REG_MASTER_CLEAR ? chip->temporary : 0xff;
}

static void set_half(uint16_t *v, bool high, uint8_t val)
{
    *v = (uint16_t)(high ? (*v & 0x00ff) | val << 8 : (*v & 0xff00) | val);
}

static void select_bit(uint8_t *bits, uint8_t val)
{
    uint8_t bit = (uint8_t)(1u << (val & SELECT_CHANNEL));

    *bits = val & SELECT_SET ? *bits | bit : *bits & ~bit;
}

static void chip_write(DmaChip *chip, unsigned reg, uint8_t val)
{
    if (reg < REG_STATUS) { /* base and current together */
        DmaChannel *c = &chip->ch[reg / 2];
        set_half(reg & 1 ? &c->base_count : &c->base_addr, chip->high_byte, val);
        set_half(reg & 1 ? &c->count : &c->addr, chip->high_byte, val);
        chip->high_byte = !chip->high_byte;
        return;
    }
    switch (reg) {
    case REG_STATUS:
        chip->command = val;
        break;
    case REG_REQUEST:
        select_bit(&chip->request, val);
        break;
    case REG_MASK_ONE:
        select_bit(&chip->mask, val);
        break;
    case REG_MODE:
        chip->ch[val & SELECT_CHANNEL].mode = val & ~SELECT_CHANNEL;
        break;
    case REG_CLEAR_FLIP_FLOP:
        chip->high_byte = false;
        break;
    case REG_MASTER_CLEAR:
        master_clear(chip);
        break;
    case REG_CLEAR_MASK:
        chip->mask = 0;
        break;
    case REG_MASK_ALL:
        chip->mask = val & ALL_CHANNELS;
        break;
    }
}

static uint64_t low_read(void *owner, uint64_t off, unsigned size)
{
    return chip_read(&((IsaDma *)owner)->regs.chip[0], (unsigned)off);
}

static void low_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    chip_write(&((IsaDma *)owner)->regs.chip[0], (unsigned)off, (uint8_t)val);
}

/* PIIX3: the second chip hangs on address lines 1 to 4. */
static uint64_t high_read(void *owner, uint64_t off, unsigned size)
{
    return chip_read(&((IsaDma *)owner)->regs.chip[1], (unsigned)off / 2);
}

static void high_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    chip_write(&((IsaDma *)owner)->regs.chip[1], (unsigned)off / 2, (uint8_t)val);
}

static uint64_t page_read(void *owner, uint64_t off, unsigned size)
{
    return ((IsaDma *)owner)->regs.page[off + 1];
}

static void page_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    ((IsaDma *)owner)->regs.page[off + 1] = (uint8_t)val;
}

static const BusRegionOps low_ops = {.read = low_read, .write = low_write, .sizes = 1};
static const BusRegionOps high_ops = {.read = high_read, .write = high_write, .sizes = 1};
static const BusRegionOps page_ops = {.read = page_read, .write = page_write, .sizes = 1};

/* ---- device ---- */

static void dma_reset(Device *d, ResetKind kind)
{
    IsaDma *m = (IsaDma *)d;

    lodge_lock(&m->pair_lock);
    uint8_t dreq[2] = {m->regs.chip[0].dreq, m->regs.chip[1].dreq};
    m->regs = (DmaRegs){0};
    for (unsigned i = 0; i < 2; i++) {
        m->regs.chip[i].dreq = dreq[i];
        master_clear(&m->regs.chip[i]);
    }
    /* As every firmware leaves it, for kernels that are entered without one: channel 4 carries the
     * first chip's requests. */
    m->regs.chip[1].ch[0].mode = MODE_CASCADE;
    m->regs.chip[1].mask &= ~1u;
    lodge_unlock(&m->pair_lock);
}

static void dma_unrealize(Device *d)
{
    IsaDma *m = (IsaDma *)d;

    bus_unmap(d->board->pio, &m->low);
    bus_unmap(d->board->pio, &m->high);
    bus_unmap(d->board->pio, &m->pages);
    if (d->board->dma == m)
        d->board->dma = NULL;
    if (m->locked)
        lodge_lock_clear(&m->pair_lock);
    m->locked = false;
}

static bool dma_realize(Device *d, GError **error)
{
    IsaDma *m = (IsaDma *)d;
    Bus *pio = d->board->pio;

    lodge_lock_init(&m->pair_lock, LOCK_RANK_DMA, "i8237");
    m->locked = true;
    m->low = (BusRegion){.name = "dma1", .len = DMA1_PORTS, .ops = &low_ops, .owner = m,
                         .lock = &m->pair_lock};
    m->high = (BusRegion){.name = "dma2", .len = DMA2_PORTS, .ops = &high_ops, .owner = m,
                          .lock = &m->pair_lock};
    m->pages = (BusRegion){.name = "dma-pages", .len = PAGE_PORTS, .ops = &page_ops, .owner = m,
                           .lock = &m->pair_lock};
    if (!bus_map(pio, &m->low, PC_PORT_DMA1, error) ||
        !bus_map(pio, &m->high, PC_PORT_DMA2, error) ||
        !bus_map(pio, &m->pages, PAGE_BASE, error)) {
        dma_unrealize(d);
        return false;
    }
    d->board->dma = m;
    return true;
}

static const StateField channel_fields[] = {
    ST_U(DmaChannel, base_addr, UINT16_MAX),
    ST_U(DmaChannel, base_count, UINT16_MAX),
    ST_U(DmaChannel, addr, UINT16_MAX),
    ST_U(DmaChannel, count, UINT16_MAX),
    ST_U(DmaChannel, mode, UINT8_MAX & ~SELECT_CHANNEL),
    ST_SKIPPED(DmaChannel, pad, "always 0: rounds the structure up"),
    ST_END,
};
static const StateDesc channel_state = {.name = "i8237-channel", .version = 1, .oldest = 1,
                                        .regs_size = sizeof(DmaChannel), .fields = channel_fields};
static const StateField chip_fields[] = {
    ST_SUBS(DmaChip, ch, CHANNELS, &channel_state),
    ST_U(DmaChip, command, UINT8_MAX),
    ST_U(DmaChip, tc, ALL_CHANNELS),
    ST_U(DmaChip, request, ALL_CHANNELS),
    ST_U(DmaChip, dreq, ALL_CHANNELS),
    ST_U(DmaChip, mask, ALL_CHANNELS),
    ST_U(DmaChip, temporary, UINT8_MAX),
    ST_B(DmaChip, high_byte),
    ST_SKIPPED(DmaChip, pad, "always 0: rounds the structure up"),
    ST_END,
};
static const StateDesc chip_state = {.name = "i8237-chip", .version = 1, .oldest = 1,
                                     .regs_size = sizeof(DmaChip), .fields = chip_fields};
static const StateField dma_fields[] = {
    ST_SUBS(DmaRegs, chip, 2, &chip_state),
    ST_RAW(DmaRegs, page),
    ST_END,
};
static const StateDesc dma_state = {
    .name = "i8237", .version = 1, .oldest = 1,
    .regs_offset = offsetof(IsaDma, regs), .regs_size = sizeof(DmaRegs), .fields = dma_fields,
};

const DeviceClass dma_i8237_class = {
    .name = "i8237",
    .help = "Intel 8237A pair: DMA for ISA devices, with page registers",
    .instance_size = sizeof(IsaDma),
    .state = &dma_state,
    .realize = dma_realize,
    .reset = dma_reset,
    .unrealize = dma_unrealize,
};
