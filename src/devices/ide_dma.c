/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bus master of the IDE controller: registers, descriptor tables, scatter and gather.
 *
 * Spec: Intel 290550 (PIIX3), 3.4 "PCI/IDE bus master registers"; "Programming Interface for Bus
 * Master IDE Controller" 1.0, 1.2 (physical region descriptors), 3.1 (how a transfer ends).
 *
 * A DMA command becomes one request of the block layer whose pieces lie in guest memory, or a few
 * where the table has more than IDE_IOV_MAX regions. Whole sectors inside one region go straight; a
 * sector that several regions share, and regions that are no memory, go through the drive's buffer.
 * A region that is no memory takes nothing and gives zeros, and the error bit says so at the end.
 * Regions may cross 64 KiB and wrap at 4 GiB; the table too, but has at most IDE_PRDS_MAX entries.
 *
 * As the data sheet has it, a table that ends before the command drops "active" without an
 * interrupt: the drive goes on waiting until a new table is started, or a reset. Stopping the
 * engine under a transfer cannot take the host's request back: its result is dropped, and the drive
 * stays busy.
 *
 * Threads: as ide_xfer.c; all under IdeBus.lock.
 *
 * Invariants:
 * (1) each descriptor is copied once, and each turn of a loop takes a descriptor, of which there
 *     are at most IDE_PRDS_MAX a start, or fills a part of a bounded array.
 * (2) a request has whole sectors; the cursor (prd_next, prd_addr, prd_left) is behind its last.
 */
#include "ide.h"

#include <string.h>

#include "lodge/num.h"

/* 290550, 3.4: offsets in a channel's eight ports */
enum {
    BM_COMMAND = 0,
    BM_STATUS = 2,
    BM_TABLE = 4,
    BM_CHANNEL_LEN = 8,
};
#define BMC_START 0x01
#define BMC_TO_MEMORY 0x08
#define BMS_ACTIVE 0x01
#define BMS_ERROR 0x02
#define BMS_INTERRUPT 0x04
#define BMS_CAPABLE 0x60 /* what the host's drivers note of drives 0 and 1 */
#define PRD_LAST 0x80000000u
#define PRD_MAX 65536u
#define GPA_END (UINT64_C(1) << 32)
#define PIECES_A_SECTOR (IDE_SECTOR / 2) /* a region has an even length */

/* ---- descriptors ---- */

static void halt(IdeChannel *c, bool error)
{
    c->regs->bm_status &= (uint8_t)~BMS_ACTIVE;
    if (error)
        c->regs->bm_status |= BMS_ERROR;
}

/* Copy the table's next part; false where there is no memory. */
static bool fill_cache(IdeChannel *c, uint32_t at)
{
    MemMap *mem = c->bus->pci.dev.board->mem;
    MemPin pin;
    size_t n = mem_pin_some(mem, at, (size_t)MIN(IDE_PRD_CACHE, GPA_END - at), false, &pin);

    n &= ~(size_t)(IDE_PRD_LEN - 1);
    if (n) {
        memcpy(c->prd_cache, pin.host, n);
    } else {
        n = IDE_PRD_LEN;
        if (!mem_read(mem, at, c->prd_cache, n))
            return false;
    }
    mem_unpin(&pin);
    c->prd_cache_at = at;
    c->prd_cache_len = (uint32_t)n;
    return true;
}

/* Take the next descriptor if none is in hand. False: the table is at its end, the engine halts. */
static bool take_prd(IdeChannel *c)
{
    IdeChannelRegs *r = c->regs;
    uint32_t off, word;

    if (r->prd_left)
        return true;
    if (r->prd_last) {
        halt(c, false);
        return false;
    }
    if (r->prd_count >= IDE_PRDS_MAX) {
        guest_fault(&c->bus->pci.dev, "table of more than %u descriptors", IDE_PRDS_MAX);
        halt(c, true);
        return false;
    }
    off = r->prd_next - c->prd_cache_at;
    if (!range_within(off, IDE_PRD_LEN, c->prd_cache_len)) {
        if (!fill_cache(c, r->prd_next)) {
            guest_fault(&c->bus->pci.dev, "no descriptors at %08x", r->prd_next);
            halt(c, true);
            return false;
        }
        off = 0;
    }
    word = load_le32(c->prd_cache + off + 4);
    r->prd_addr = load_le32(c->prd_cache + off) & ~1u;
    r->prd_left = word & 0xfffe ? word & 0xfffe : PRD_MAX;
    r->prd_last = !!(word & PRD_LAST);
    r->prd_next += IDE_PRD_LEN;
    r->prd_count++;
    return true;
}

/* What of the region in hand is contiguous, at most @max. */
static uint32_t run(const IdeChannel *c, uint64_t max)
{
    uint64_t n = MIN((uint64_t)c->regs->prd_left, GPA_END - c->regs->prd_addr);

    return (uint32_t)MIN(n, max);
}

static void advance(IdeChannel *c, uint32_t n)
{
    c->regs->prd_addr += n; /* wraps at 4 GiB */
    c->regs->prd_left -= n;
}

/* ---- requests ---- */

/* Whole sectors straight from the region in hand; returns bytes, 0: none. */
static uint64_t add_direct(IdeDrive *d, uint64_t room, bool to_memory)
{
    IdeChannel *c = d->chan;
    size_t n = run(c, room) & ~(uint32_t)(IDE_SECTOR - 1);
    struct iovec *last = d->niov ? &d->iov[d->niov - 1] : NULL;
    MemPin pin;

    if (!n)
        return 0;
    n = mem_pin_some(c->bus->pci.dev.board->mem, c->regs->prd_addr, n, to_memory, &pin);
    n &= ~(size_t)(IDE_SECTOR - 1);
    if (!n) {
        mem_unpin(&pin);
        return 0;
    }
    pin.len = n;
    if (last && d->pins[d->niov - 1].block == pin.block &&
        (uint8_t *)last->iov_base + last->iov_len == pin.host) {
        last->iov_len += n;
        d->pins[d->niov - 1].len += n;
    } else {
        d->iov[d->niov] = (struct iovec){pin.host, n};
        d->pins[d->niov++] = pin;
    }
    advance(c, (uint32_t)n);
    return n;
}

/* One sector by the buffer at @at; false: the table ended within it. */
static bool add_bounced(IdeDrive *d, uint32_t at, bool to_memory)
{
    IdeChannel *c = d->chan;
    MemMap *mem = c->bus->pci.dev.board->mem;
    struct iovec *last = d->niov ? &d->iov[d->niov - 1] : NULL;

    for (uint32_t n = 0; n < IDE_SECTOR;) {
        if (!take_prd(c))
            return false;
        IdePiece *p = &d->pieces[d->npieces++];

        *p = (IdePiece){c->regs->prd_addr, at + n, run(c, IDE_SECTOR - n)};
        if (!to_memory && !mem_read(mem, p->gpa, d->regs.buf + p->at, p->len))
            c->regs->bm_status |= BMS_ERROR;
        advance(c, p->len);
        n += p->len;
    }
    if (last && !d->pins[d->niov - 1].block &&
        (uint8_t *)last->iov_base + last->iov_len == d->regs.buf + at) {
        last->iov_len += IDE_SECTOR;
    } else {
        d->iov[d->niov] = (struct iovec){d->regs.buf + at, IDE_SECTOR};
        d->pins[d->niov++] = (MemPin){0};
    }
    return true;
}

/* Gather what one request can take; returns whole sectors in bytes. Keeps (1) and (2). */
static uint64_t gather(IdeDrive *d, bool to_memory)
{
    uint64_t want = d->regs.left * IDE_SECTOR, total = 0, n;
    uint32_t bounced = 0;

    d->niov = d->npieces = 0;
    while (total < want && d->niov < d->max_iov && take_prd(d->chan)) {
        n = add_direct(d, want - total, to_memory);
        if (!n) {
            if (bounced == IDE_BUF || d->npieces + PIECES_A_SECTOR + 1 > IDE_PIECES ||
                !add_bounced(d, bounced, to_memory))
                break;
            bounced += IDE_SECTOR;
            n = IDE_SECTOR;
        }
        total += n;
    }
    return total;
}

static bool engine_runs(const IdeChannel *c)
{
    return (c->regs->bm_status & BMS_ACTIVE) && c->bus->master;
}

static bool direction_fits(IdeChannel *c, bool to_memory)
{
    if (!!(c->regs->bm_command & BMC_TO_MEMORY) == to_memory)
        return true;
    guest_fault(&c->bus->pci.dev, "transfer against the direction of the command");
    halt(c, true);
    return false;
}

/**
 * ide_dma_step() - Move sectors between medium and guest memory, if the engine runs
 * Context: IdeBus.lock held, nothing in flight, regs.step is DMA_IN or DMA_OUT.
 */
void ide_dma_step(IdeDrive *d)
{
    bool to_memory = d->regs.step == IDE_STEP_DMA_IN;
    uint64_t bytes;

    if (!engine_runs(d->chan) || !direction_fits(d->chan, to_memory))
        return;
    bytes = gather(d, to_memory);
    if (!bytes) {
        ide_dma_unpin(d);
        return;
    }
    ide_submit(d, to_memory ? BLK_READ : BLK_WRITE, d->regs.lba, bytes / IDE_SECTOR);
}

void ide_dma_unpin(IdeDrive *d)
{
    for (unsigned i = 0; i < d->niov; i++)
        mem_unpin(&d->pins[i]);
    d->niov = d->npieces = 0;
}

/* The data is through: "active" falls where the table ends with it. */
static void finish(IdeChannel *c)
{
    if (!c->regs->prd_left && c->regs->prd_last)
        halt(c, false);
}

/**
 * ide_dma_done() - The request of ide_dma_step() was answered with @err
 * Context: the node's loop, IdeBus.lock held.
 */
void ide_dma_done(IdeDrive *d, int err)
{
    IdeDriveRegs *r = &d->regs;
    bool in = r->step == IDE_STEP_DMA_IN;

    for (unsigned i = 0; in && !err && i < d->npieces; i++) {
        const IdePiece *p = &d->pieces[i];

        if (!mem_write(d->bus->pci.dev.board->mem, p->gpa, r->buf + p->at, p->len))
            d->chan->regs->bm_status |= BMS_ERROR;
    }
    ide_dma_unpin(d);
    if (err && in) {
        ide_read_failed(d);
    } else if (err) {
        ide_idle(d);
        ide_ata_media_error(d, r->lba, true);
    } else {
        r->lba += d->chunk;
        r->left -= d->chunk;
        if (r->left) {
            ide_step(d);
            return;
        }
        finish(d->chan);
        if (d->cd)
            atapi_done(d);
        else
            ide_done(d);
    }
}

/**
 * ide_dma_buffer() - Move [buf_pos, buf_len) between buffer and guest memory, if the engine runs
 * Context: IdeBus.lock held, regs.step is BUF_IN or BUF_OUT: a packet command's data.
 */
void ide_dma_buffer(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;
    IdeChannel *c = d->chan;
    MemMap *mem = c->bus->pci.dev.board->mem;
    bool to_memory = r->step == IDE_STEP_BUF_IN;

    if (!engine_runs(c) || !direction_fits(c, to_memory))
        return;
    while (r->buf_pos < r->buf_len) {
        if (!take_prd(c))
            return;
        uint32_t n = run(c, r->buf_len - r->buf_pos);
        uint8_t *p = r->buf + r->buf_pos;

        if (to_memory ? !mem_write(mem, c->regs->prd_addr, p, n)
                      : !mem_read(mem, c->regs->prd_addr, p, n))
            c->regs->bm_status |= BMS_ERROR;
        advance(c, n);
        r->buf_pos += n;
    }
    finish(c);
    if (to_memory)
        atapi_done(d);
    else
        atapi_mode_selected(d);
}

/* ---- registers ---- */

static void start(IdeChannel *c)
{
    IdeChannelRegs *r = c->regs;

    r->prd_next = r->prd_table;
    r->prd_addr = r->prd_left = 0;
    r->prd_count = 0;
    r->prd_last = 0;
    c->prd_cache_len = 0;
    r->bm_status |= BMS_ACTIVE;
    for (unsigned u = 0; u < IDE_UNITS; u++) {
        if (c->drive[u] && c->drive[u]->regs.step >= IDE_STEP_DMA_IN)
            ide_step(c->drive[u]);
    }
}

static void stop(IdeChannel *c)
{
    halt(c, false);
    for (unsigned u = 0; u < IDE_UNITS; u++) {
        IdeDrive *d = c->drive[u];

        if (d && d->inflight && d->regs.step >= IDE_STEP_DMA_IN)
            d->stale = true;
    }
}

static uint8_t read_byte(const IdeChannel *c, unsigned off)
{
    switch (off) {
    case BM_COMMAND:
        return c->regs->bm_command;
    case BM_STATUS:
        return c->regs->bm_status;
    case BM_TABLE:
    case BM_TABLE + 1:
    case BM_TABLE + 2:
    case BM_TABLE + 3:
        return (uint8_t)(c->regs->prd_table >> (8 * (off - BM_TABLE)));
    default:
        return 0;
    }
}

static void write_byte(IdeChannel *c, unsigned off, uint8_t val)
{
    IdeChannelRegs *r = c->regs;
    uint8_t before = r->bm_command;

    switch (off) {
    case BM_COMMAND: /* 3.4.1; the direction is not to change under a transfer */
        r->bm_command = val & (BMC_START | BMC_TO_MEMORY);
        if (!(before & BMC_START) && (val & BMC_START))
            start(c);
        else if ((before & BMC_START) && !(val & BMC_START))
            stop(c);
        break;
    case BM_STATUS: /* 3.4.2: a written 1 clears error and interrupt */
        r->bm_status &= (uint8_t)~(val & (BMS_ERROR | BMS_INTERRUPT));
        r->bm_status = (uint8_t)((r->bm_status & ~BMS_CAPABLE) | (val & BMS_CAPABLE));
        break;
    case BM_TABLE: /* 3.4.3 */
    case BM_TABLE + 1:
    case BM_TABLE + 2:
    case BM_TABLE + 3: {
        unsigned shift = 8 * (off - BM_TABLE);

        r->prd_table = (r->prd_table & ~(0xffu << shift)) | (uint32_t)val << shift;
        r->prd_table &= ~3u;
        break;
    }
    default:
        break;
    }
}

uint64_t ide_bm_read(void *owner, uint64_t off, unsigned size)
{
    IdeBus *b = owner;
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++) {
        unsigned at = (unsigned)off + i;

        v |= (uint64_t)read_byte(&b->chan[at / BM_CHANNEL_LEN & 1], at % BM_CHANNEL_LEN) << (8 * i);
    }
    return v;
}

void ide_bm_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    IdeBus *b = owner;

    for (unsigned i = 0; i < size; i++) {
        unsigned at = (unsigned)off + i;

        write_byte(&b->chan[at / BM_CHANNEL_LEN & 1], at % BM_CHANNEL_LEN,
                   (uint8_t)(val >> (8 * i)));
    }
}

/* Controller reset; the drives are reset behind it. */
void ide_bm_reset(IdeChannel *c)
{
    IdeChannelRegs *r = c->regs;

    r->prd_table = r->prd_next = r->prd_addr = r->prd_left = 0;
    r->prd_count = 0;
    r->prd_last = r->bm_command = r->bm_status = 0;
    c->prd_cache_len = 0;
}
