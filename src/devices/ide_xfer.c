/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a command of an IDE drive moves: blocks at the data port, steps on the host, its end.
 *
 * Spec: ATA/ATAPI-6 (T13 1410D), 9.5 to 9.7 (PIO and DMA protocols), 9.8 (packet), 9.2 (resets).
 *
 * A command that needs the medium names its next step in regs.step and has BSY set; ide_step()
 * gives the step to the block layer, host_done() takes it from there, on the node's loop. PIO
 * reads fetch up to 64 KiB of the command at once, and writes gather as much, so DRQ blocks between
 * cost no host I/O. A read that failed is looked at again in smaller parts (IDE_STEP_FIND), so that
 * the guest is told the very sector.
 *
 * A reset cannot take back a request that the host has begun, and DMA writes into guest memory: the
 * drive stays BSY until it is done, its result forgotten. So a guest that waits as it must never
 * sees its memory change afterwards.
 *
 * Threads: vCPU threads and the node's loop, under IdeBus.lock; main for quiesce.
 *
 * Invariants:
 * (1) buf_pos <= block_end <= buf_len <= IDE_BUF, and DRQ is set only while buf_pos < block_end:
 *     the access that takes the last byte clears it before anything else.
 * (2) one request is in flight at most, and while it is, BSY is set.
 */
#include "ide.h"

#include <errno.h>
#include <string.h>

#include "lodge/num.h"

/* Context: the node's loop, no lock held. */
static void host_done(BlkReq *req, int err);

/**
 * ide_submit() - Give the block layer a part of the medium, to or from the buffer or d->iov
 * @lba, @sectors: units of 512 bytes
 * Context: IdeBus.lock held, nothing in flight. d->iov and d->niov are set. Keeps (2).
 */
void ide_submit(IdeDrive *d, BlkOp op, uint64_t lba, uint64_t sectors)
{
    d->inflight = true;
    d->chunk = sectors;
    d->req = (BlkReq){.op = op, .offset = lba * IDE_SECTOR, .len = sectors * IDE_SECTOR,
                      .iov = d->iov, .niov = op == BLK_FLUSH ? 0 : d->niov, .done = host_done,
                      .opaque = d, .fua = op == BLK_WRITE && !d->regs.write_cache};
    blk_submit(d->node, &d->req);
}

static void submit_buffer(IdeDrive *d, BlkOp op, uint64_t lba, uint64_t sectors)
{
    d->iov[0] = (struct iovec){d->regs.buf, sectors * IDE_SECTOR};
    d->pins[0] = (MemPin){0};
    d->niov = 1;
    ide_submit(d, op, lba, sectors);
}

/**
 * ide_step() - Start what regs.step says, if it can start now
 * Context: any thread, IdeBus.lock held. A step that waits is started again by whoever ends
 *          the wait: a completion, the bus master, a resume.
 */
void ide_step(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;

    if (d->inflight || d->quieting || r->step == IDE_STEP_NONE)
        return;
    if (!d->node && r->step != IDE_STEP_BUF_IN && r->step != IDE_STEP_BUF_OUT) {
        ide_fail(d, IDE_ABRT);
        return;
    }
    switch (r->step) {
    case IDE_STEP_READ:
    case IDE_STEP_VERIFY:
        submit_buffer(d, BLK_READ, r->lba, MIN(r->left, IDE_BUF_SECTORS));
        break;
    case IDE_STEP_WRITE:
        submit_buffer(d, BLK_WRITE, r->lba, r->buf_len / IDE_SECTOR);
        break;
    case IDE_STEP_FLUSH:
        ide_submit(d, BLK_FLUSH, 0, 0);
        break;
    case IDE_STEP_FIND:
        submit_buffer(d, BLK_READ, r->find, MIN(r->find_end - r->find, r->find_unit));
        break;
    case IDE_STEP_DMA_IN:
    case IDE_STEP_DMA_OUT:
        ide_dma_step(d);
        break;
    default:
        ide_dma_buffer(d);
        break;
    }
}

static void media_error(IdeDrive *d, uint64_t lba, bool write)
{
    ide_idle(d);
    if (d->cd)
        atapi_media_error(d, lba);
    else
        ide_ata_media_error(d, lba, write);
}

/* The request of d->chunk sectors at regs.lba could not be read. */
void ide_read_failed(IdeDrive *d)
{
    if (d->chunk <= 1) {
        media_error(d, d->regs.lba, false);
        return;
    }
    d->regs.step = IDE_STEP_FIND;
    d->regs.find = d->regs.lba;
    d->regs.find_end = d->regs.lba + d->chunk;
    d->regs.find_unit = IDE_BUF_SECTORS;
    ide_step(d);
}

static void find_done(IdeDrive *d, int err)
{
    IdeDriveRegs *r = &d->regs;

    if (err && d->chunk <= 1) {
        media_error(d, r->find, false);
        return;
    }
    if (err) {
        r->find_end = r->find + d->chunk;
        r->find_unit = 1;
    } else {
        r->find += d->chunk;
    }
    if (r->find >= r->find_end)
        media_error(d, r->lba, false); /* it reads now; the command failed all the same */
    else
        ide_step(d);
}

static void read_done(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;

    r->lba += d->chunk;
    r->left -= d->chunk;
    if (r->step == IDE_STEP_VERIFY) {
        if (r->left)
            ide_step(d);
        else
            ide_done(d);
        return;
    }
    r->step = IDE_STEP_NONE;
    r->data = IDE_DATA_IN;
    r->buf_pos = 0;
    r->buf_len = (uint32_t)d->chunk * IDE_SECTOR;
    ide_open_block(d, true);
}

/* Ask for the next part of a write. */
static void want_data(IdeDrive *d, bool irq)
{
    IdeDriveRegs *r = &d->regs;

    r->step = IDE_STEP_NONE;
    r->buf_pos = 0;
    r->buf_len = (uint32_t)MIN(r->left, IDE_BUF_SECTORS) * IDE_SECTOR;
    ide_open_block(d, irq);
}

static void write_done(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;

    r->lba += d->chunk;
    r->left -= d->chunk;
    if (r->left)
        want_data(d, true);
    else
        ide_done(d);
}

static void step_done(IdeDrive *d, int err)
{
    switch (d->regs.step) {
    case IDE_STEP_READ:
    case IDE_STEP_VERIFY:
        if (err)
            ide_read_failed(d);
        else
            read_done(d);
        break;
    case IDE_STEP_WRITE:
        if (err)
            media_error(d, d->regs.lba, true);
        else
            write_done(d);
        break;
    case IDE_STEP_FLUSH:
        if (err)
            media_error(d, 0, true);
        else
            ide_done(d);
        break;
    case IDE_STEP_FIND:
        find_done(d, err);
        break;
    case IDE_STEP_DMA_IN:
    case IDE_STEP_DMA_OUT:
        ide_dma_done(d, err);
        break;
    default:
        break;
    }
}

static void host_done(BlkReq *req, int err)
{
    IdeDrive *d = req->opaque;
    LodgeLock *lock = &d->bus->lock;
    bool quiet;

    lodge_lock(lock);
    d->inflight = false;
    if (!d->stale) {
        step_done(d, err);
    } else {
        d->stale = false;
        ide_dma_unpin(d);
        if (d->reset_wait) {
            d->reset_wait = false;
            ide_signature(d);
        } else {
            ide_step(d);
        }
    }
    quiet = d->quieting && !d->inflight;
    lodge_unlock(lock);
    if (quiet)
        device_quiesced(&d->dev);
}

/* ---- phases ---- */

/* Open the next DRQ block of the buffer. */
void ide_open_block(IdeDrive *d, bool irq)
{
    IdeDriveRegs *r = &d->regs;

    r->block_end = r->buf_pos + MIN(r->limit, r->buf_len - r->buf_pos);
    r->status = IDE_READY | IDE_DRQ;
    if (d->cd && r->command == IDE_CMD_PACKET)
        atapi_set_count(d, r->block_end - r->buf_pos);
    if (irq)
        ide_raise(d);
}

/* @len bytes (> 0) of the buffer are the answer to a command. */
void ide_data_in(IdeDrive *d, uint32_t len)
{
    IdeDriveRegs *r = &d->regs;

    r->data = IDE_DATA_IN;
    r->buf_pos = 0;
    r->buf_len = len;
    ide_open_block(d, true);
}

/* The DRQ block was moved whole. */
void ide_moved(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;

    r->status &= (uint8_t)~IDE_DRQ; /* keeps (1) */
    if (r->data != IDE_DATA_PACKET && r->buf_pos < r->buf_len) {
        ide_open_block(d, true);
        return;
    }
    switch (r->data) {
    case IDE_DATA_PACKET:
        r->data = IDE_DATA_NONE;
        atapi_packet(d);
        return;
    case IDE_DATA_PARAM:
        r->data = IDE_DATA_NONE;
        atapi_mode_selected(d);
        return;
    case IDE_DATA_OUT:
        r->status = IDE_READY | IDE_BSY;
        r->step = IDE_STEP_WRITE;
        ide_step(d);
        return;
    default:
        break;
    }
    if (r->left) {
        r->data = IDE_DATA_NONE;
        r->status = IDE_READY | IDE_BSY;
        r->step = IDE_STEP_READ;
        ide_step(d);
    } else if (d->cd && r->command == IDE_CMD_PACKET) {
        atapi_done(d);
    } else {
        ide_idle(d); /* ATA 9.5: the host has its data, no interrupt ends a PIO read */
        r->status = IDE_READY;
    }
}

static bool port_moves(const IdeDriveRegs *r, bool in)
{
    return (r->status & IDE_DRQ) && (r->data == IDE_DATA_IN) == in && r->data != IDE_DATA_NONE;
}

/* One 16-bit cycle; an odd last byte is in the low half. */
static uint32_t word_read(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;
    uint8_t w[2] = {0};
    uint32_t n;

    if (!port_moves(r, true) || r->buf_pos >= r->block_end)
        return 0;
    n = MIN(2, r->block_end - r->buf_pos);
    memcpy(w, r->buf + r->buf_pos, n);
    r->buf_pos += n;
    if (r->buf_pos == r->block_end)
        ide_moved(d);
    return load_le16(w);
}

static void word_write(IdeDrive *d, uint16_t val)
{
    IdeDriveRegs *r = &d->regs;
    uint8_t w[2];
    uint32_t n;

    if (!port_moves(r, false) || r->buf_pos >= r->block_end)
        return;
    n = MIN(2, r->block_end - r->buf_pos);
    store_le16(w, val);
    memcpy(r->buf + r->buf_pos, w, n);
    r->buf_pos += n;
    if (r->buf_pos == r->block_end)
        ide_moved(d);
}

/**
 * ide_port_read() - An access to the data register
 * @size: 1 (the low half of a word), 2, or 4 (two cycles)
 * Context: vCPU thread, IdeBus.lock held. With DRQ clear nothing moves and it reads 0.
 */
uint32_t ide_port_read(IdeDrive *d, unsigned size)
{
    IdeDriveRegs *r = &d->regs;
    uint32_t v;

    if (size >= 2 && port_moves(r, true) && r->buf_pos + size < r->block_end) {
        v = size == 4 ? load_le32(r->buf + r->buf_pos) : load_le16(r->buf + r->buf_pos);
        r->buf_pos += size;
        return v;
    }
    v = word_read(d);
    return size == 4 ? v | word_read(d) << 16 : v;
}

void ide_port_write(IdeDrive *d, unsigned size, uint32_t val)
{
    IdeDriveRegs *r = &d->regs;

    if (size == 4 && port_moves(r, false) && r->buf_pos + size < r->block_end) {
        store_le32(r->buf + r->buf_pos, val);
        r->buf_pos += size;
        return;
    }
    word_write(d, size == 1 ? val & 0xff : (uint16_t)val);
    if (size == 4)
        word_write(d, (uint16_t)(val >> 16));
}

/* ---- ends ---- */

/* No command runs any more; what is in flight stays so. */
void ide_idle(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;

    r->step = IDE_STEP_NONE;
    r->data = IDE_DATA_NONE;
    r->left = 0;
    r->buf_pos = r->block_end = r->buf_len = 0;
}

/* The command of a disk, or one that is no packet, ended well. */
void ide_done(IdeDrive *d)
{
    ide_idle(d);
    d->regs.status = IDE_READY;
    d->regs.error = 0;
    ide_raise(d);
}

void ide_fail(IdeDrive *d, uint8_t error)
{
    ide_idle(d);
    d->regs.status = IDE_READY | IDE_ERR;
    d->regs.error = error;
    ide_raise(d);
}

/* ---- resets ---- */

/* Forget the command; a request in flight finishes for nobody. */
void ide_abandon(IdeDrive *d)
{
    ide_idle(d);
    d->regs.irq = 0;
    d->stale = d->inflight;
    d->regs.status = IDE_BSY;
}

/* Registers after a reset (ATA 9.12). */
void ide_signature(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;

    ide_idle(d);
    memset(r->reg, 0, sizeof r->reg);
    r->reg[IDE_REG_COUNT - 1][0] = 1;
    r->reg[IDE_REG_LOW - 1][0] = 1;
    if (d->cd) {
        r->reg[IDE_REG_MID - 1][0] = 0x14;
        r->reg[IDE_REG_HIGH - 1][0] = 0xeb;
    }
    r->error = 1; /* diagnostic code: passed */
    r->status = d->cd ? 0 : IDE_READY;
}

/* SRST rose or fell; Spec: ATA 9.2. */
void ide_soft_reset(IdeDrive *d, bool asserted)
{
    ide_abandon(d);
    d->regs.asleep = 0;
    d->regs.power = 0xff;
    d->reset_wait = !asserted && d->inflight;
    if (!asserted && !d->inflight)
        ide_signature(d);
}

/* Everything to its power-on value; may not fail or allocate. */
void ide_power_on(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;

    ide_abandon(d);
    r->lba = r->find = r->find_end = 0;
    r->find_unit = r->address = r->command = r->asleep = r->dma = 0;
    r->limit = IDE_SECTOR;
    r->multiple = 0;
    r->pio_mode = r->mwdma = r->udma = 0;
    r->write_cache = r->look_ahead = 1;
    r->power = 0xff;
    memset(r->packet, 0, sizeof r->packet);
    r->tray_open = r->locked = r->event = 0;
    memset(r->pad, 0, sizeof r->pad);
    r->sense = (IdeSense){0};
    r->attention = d->cd ? SENSE_POWER_ON_ASC : 0;
    if (!d->cd)
        (void)ide_translate(d, d->heads, d->sectors); /* realize has seen that it can */
    if (d->inflight)
        d->reset_wait = true;
    else
        ide_signature(d);
}
