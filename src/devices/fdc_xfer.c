/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Floppy disk controller: the commands with an execution phase, sector by sector. Spec and what is
 * left out: fdc_82077.c.
 *
 * Each sector is a turn: fdc_xfer_next() finds it and submits its block request, io_done() moves
 * its bytes by DMA or opens the data phase, sector_done() decides whether another turn follows. A
 * turn starts only while no request is in flight and nobody wants quiet, else the phase stays
 * FDC_PHASE_NEXT until whoever held it up calls again. A command that wrote flushes before its
 * result: what the guest was told is on the disk.
 *
 * Every sector is looked up anew, so an EOT or a counter beyond the track, a medium that went and a
 * motor that was turned off end the command as errors whatever the bytes before it said.
 */
#include <errno.h>
#include <string.h>

#include "dma_i8237.h"
#include "fdc_internal.h"
#include "lodge/num.h"

enum { DMA_CHANNEL = 2, ID_BYTES = 4, DATA_RESULT = 7 };
#define LATENCY_NS 50000 /* to the first sector */
#define REVOLUTION_NS (NS_PER_SEC / 5) /* 300 a minute */

static FdcCommand kind_of(const Fdc *f)
{
    return fdc_decode(f->regs.cmd[0]);
}

static bool is_write(FdcCommand k)
{
    return k == FDC_WRITE || k == FDC_WRITE_DELETED || k == FDC_FORMAT;
}

static unsigned unit_of(const Fdc *f)
{
    return f->regs.cmd[1] & CMD_UNIT;
}

static bool by_dma(const Fdc *f)
{
    return !(f->regs.specify[1] & SPECIFY_NON_DMA);
}

static void request_dma(Fdc *f, bool asserted)
{
    if (f->dev.board->dma)
        isa_dma_request(f->dev.board->dma, DMA_CHANNEL, asserted);
}

/* ---- the end of a command ---- */

static void conclude(Fdc *f)
{
    FdcRegs *r = &f->regs;

    r->ending = false;
    r->result[3] = r->c;
    r->result[4] = r->h;
    r->result[5] = r->r;
    r->result[6] = r->n;
    request_dma(f, false);
    fdc_set_result(f, DATA_RESULT);
    r->irq_result = true;
}

static void end(Fdc *f, uint8_t st0, uint8_t st1, uint8_t st2)
{
    FdcRegs *r = &f->regs;

    r->result[0] = st0 | (r->head ? ST0_HEAD : 0) | (uint8_t)unit_of(f);
    r->result[1] = st1;
    r->result[2] = st2;
    r->ending = true;
    r->phase = FDC_PHASE_NEXT;
    fdc_xfer_next(f);
}

/* 82077, 5.1.1, table of the ID that a command leaves: to the next sector. False past the last. */
static bool advance(FdcRegs *r)
{
    if (r->r != r->eot) {
        r->r++;
        return true;
    }
    r->r = 1;
    if ((r->cmd[0] & CMD_MULTI_TRACK) && !r->head) {
        r->head = 1;
        r->h ^= 1;
        return true;
    }
    r->c++;
    if (r->cmd[0] & CMD_MULTI_TRACK)
        r->h ^= 1;
    return false;
}

/* Whether the last sector was not the last of the command, by its own count. */
static bool has_more(FdcRegs *r, FdcCommand k)
{
    bool more = advance(r);

    if (k == FDC_FORMAT || k == FDC_READ_TRACK)
        return r->count < r->eot;
    if (k == FDC_VERIFY && (r->cmd[1] & CMD_VERIFY_COUNT))
        return more && r->count != r->cmd[8];
    return more;
}

static void sector_done(Fdc *f)
{
    FdcRegs *r = &f->regs;
    FdcCommand k = kind_of(f);

    r->count++;
    if (k == FDC_READ_DELETED) { /* 5.1.2: ended by a mark of the other kind, the ID stays */
        end(f, 0, 0, ST2_CONTROL_MARK);
        return;
    }
    bool more = has_more(r, k);
    if (more && !r->tc) {
        r->phase = FDC_PHASE_NEXT;
        fdc_xfer_next(f);
    } else if (r->tc || k == FDC_FORMAT || k == FDC_READ_TRACK || k == FDC_VERIFY) {
        end(f, 0, r->no_data ? ST1_NO_DATA : 0, 0);
    } else { /* 5.1.1: nobody said terminal count */
        end(f, ST0_ABNORMAL, ST1_END_OF_CYLINDER, 0);
    }
}

/* ---- block requests ---- */

static void io_done(BlkReq *req, int err);

static void submit(Fdc *f, BlkOp op, uint64_t offset, uint64_t len)
{
    f->iov = (struct iovec){f->buf, len};
    f->req = (BlkReq){.op = op, .offset = offset, .len = len, .iov = len ? &f->iov : NULL,
                      .niov = len ? 1 : 0, .done = io_done, .opaque = f};
    f->regs.phase = FDC_PHASE_IO;
    f->in_flight = true;
    blk_submit(f->drive[unit_of(f)].node, &f->req);
}

/* @sector: 1 to the format's number; the caller has looked at the medium. */
static void submit_sector(Fdc *f, BlkOp op, unsigned sector)
{
    const FdcDrive *d = &f->drive[unit_of(f)];
    const FdcRegs *r = &f->regs;
    uint64_t track = (uint64_t)r->track[unit_of(f)] * d->format->heads + r->head;
    uint64_t offset = (track * d->format->sectors + sector - 1) * FDC_SECTOR;

    if (range_within(offset, FDC_SECTOR, d->bytes))
        submit(f, op, offset, FDC_SECTOR);
    else
        end(f, ST0_ABNORMAL, ST1_DATA_ERROR, ST2_DATA_ERROR);
}

/* A sector was read into buf[]. */
static void deliver(Fdc *f)
{
    FdcRegs *r = &f->regs;
    IsaDma *dma = f->dev.board->dma;

    if (kind_of(f) == FDC_VERIFY) {
        sector_done(f);
        return;
    }
    if (!by_dma(f)) {
        memcpy(r->data, f->buf, FDC_SECTOR);
        r->data_pos = 0;
        r->data_len = FDC_SECTOR;
        r->phase = FDC_PHASE_DATA;
        return;
    }
    size_t n = dma ? isa_dma_write(dma, DMA_CHANNEL, f->buf, FDC_SECTOR, &r->tc) : 0;
    if (n < FDC_SECTOR && !r->tc)
        end(f, ST0_ABNORMAL, ST1_OVERRUN, 0);
    else
        sector_done(f);
}

static void io_result(Fdc *f, int err)
{
    FdcRegs *r = &f->regs;

    if (r->ending) { /* the flush */
        r->wrote = false;
        if (err)
            r->result[0] |= ST0_ABNORMAL | ST0_EQUIPMENT;
        conclude(f);
    } else if (is_write(kind_of(f))) {
        r->wrote |= !err;
        if (err == EROFS)
            end(f, ST0_ABNORMAL, ST1_NOT_WRITABLE, 0);
        else if (err)
            end(f, ST0_ABNORMAL | ST0_EQUIPMENT, 0, 0);
        else
            sector_done(f);
    } else if (err) {
        end(f, ST0_ABNORMAL, ST1_DATA_ERROR, ST2_DATA_ERROR);
    } else {
        deliver(f);
    }
}

/* Context: the node's loop, no lock held. */
static void io_done(BlkReq *req, int err)
{
    Fdc *f = req->opaque;

    lodge_lock(&f->dev.lock);
    bool stale = f->stale;
    f->in_flight = f->stale = false;
    if (stale)
        fdc_xfer_next(f); /* a later command may wait for the request */
    else
        io_result(f, err);
    fdc_update_irq(f);
    fdc_rearm(f);
    lodge_unlock(&f->dev.lock);
    fdc_tell_quiet(f);
}

/* ---- turns ---- */

/* Status 1 of a disk that has no address marks for this head at this rate; 0: it has. */
static uint8_t find_marks(const Fdc *f)
{
    const FdcRegs *r = &f->regs;
    unsigned unit = unit_of(f);
    const FdcDrive *d = &f->drive[unit];

    if (!d->node || r->gone || !(r->dor & DOR_MOTOR(unit)) || !(r->cmd[0] & CMD_MFM) ||
        !(d->format->rates & 1u << r->rate) || r->head >= d->format->heads ||
        r->track[unit] >= d->format->cylinders)
        return ST1_MISSING_MARK;
    return 0;
}

/* Whether the ID in c, h, r, n is on this track; else the command has ended. */
static bool find_sector(Fdc *f)
{
    FdcRegs *r = &f->regs;
    unsigned unit = unit_of(f);

    if (r->c != r->track[unit])
        end(f, ST0_ABNORMAL, ST1_NO_DATA, ST2_WRONG_CYLINDER);
    else if (r->h != r->head || r->n != FDC_SIZE_CODE || !r->r ||
             r->r > f->drive[unit].format->sectors)
        end(f, ST0_ABNORMAL, ST1_NO_DATA, 0);
    else
        return true;
    return false;
}

/* Bytes from the guest into buf[], in DMA mode at once; else the data phase opens first. False: not
 * there yet, or the command has ended. */
static bool fetch(Fdc *f, size_t len)
{
    FdcRegs *r = &f->regs;
    IsaDma *dma = f->dev.board->dma;

    memset(f->buf, 0, sizeof f->buf);
    if (by_dma(f)) {
        size_t n = dma ? isa_dma_read(dma, DMA_CHANNEL, f->buf, len, &r->tc) : 0;
        if (n == len || (n && r->tc))
            return true; /* 5.1.3: what is missing of the last sector is zeros */
        end(f, ST0_ABNORMAL, ST1_OVERRUN, 0);
        return false;
    }
    if (r->data_len != len || r->data_pos != len) {
        r->data_pos = 0;
        r->data_len = (uint16_t)len;
        r->phase = FDC_PHASE_DATA;
        return false;
    }
    memcpy(f->buf, r->data, len);
    r->data_pos = r->data_len = 0;
    return true;
}

static void next_write(Fdc *f)
{
    if (f->drive[unit_of(f)].read_only)
        end(f, ST0_ABNORMAL, ST1_NOT_WRITABLE, 0);
    else if (find_sector(f) && fetch(f, FDC_SECTOR))
        submit_sector(f, BLK_WRITE, f->regs.r);
}

/* 82077, 5.1.7. An image has one layout only: other IDs than its own are an equipment check. */
static void next_format(Fdc *f)
{
    FdcRegs *r = &f->regs;
    const FdcDrive *d = &f->drive[unit_of(f)];

    if (d->read_only) {
        end(f, ST0_ABNORMAL, ST1_NOT_WRITABLE, 0);
        return;
    }
    if (r->count >= r->eot) { /* no sector at all was asked for */
        end(f, 0, 0, 0);
        return;
    }
    if (!fetch(f, ID_BYTES))
        return;
    r->c = f->buf[0];
    r->h = f->buf[1];
    r->r = f->buf[2];
    r->n = f->buf[3];
    if (r->c != r->track[unit_of(f)] || r->h != r->head || !r->r || r->r > d->format->sectors ||
        r->n != FDC_SIZE_CODE || r->cmd[2] != FDC_SIZE_CODE) {
        end(f, ST0_ABNORMAL | ST0_EQUIPMENT, 0, 0);
        return;
    }
    memset(f->buf, r->cmd[5], FDC_SECTOR);
    submit_sector(f, BLK_WRITE, r->r);
}

/* 82077, 5.1.5: in the order of the disk, whatever the IDs are. */
static void next_of_track(Fdc *f)
{
    FdcRegs *r = &f->regs;
    unsigned unit = unit_of(f), sector = r->count + 1u;

    if (sector > f->drive[unit].format->sectors) {
        end(f, ST0_ABNORMAL, ST1_NO_DATA, 0);
        return;
    }
    r->no_data |= r->c != r->track[unit] || r->h != r->head || r->r != sector ||
                  r->n != FDC_SIZE_CODE;
    submit_sector(f, BLK_READ, sector);
}

/* The ID that passes the head now. */
static void read_id(Fdc *f)
{
    FdcRegs *r = &f->regs;
    const FdcFormat *m = f->drive[unit_of(f)].format;
    uint64_t angle = (uint64_t)clock_now_ns(f->dev.board->clock) % REVOLUTION_NS;

    r->c = r->track[unit_of(f)];
    r->h = r->head;
    r->r = (uint8_t)(1 + angle * m->sectors / REVOLUTION_NS);
    r->n = FDC_SIZE_CODE;
    end(f, 0, 0, 0);
}

void fdc_xfer_next(Fdc *f)
{
    FdcRegs *r = &f->regs;
    FdcCommand k = kind_of(f);
    bool medium = f->drive[unit_of(f)].node;

    if (r->phase != FDC_PHASE_NEXT || f->in_flight || f->quieting)
        return;
    if (r->ending) {
        if (r->wrote && medium)
            submit(f, BLK_FLUSH, 0, 0);
        else
            conclude(f);
        return;
    }
    uint8_t st1 = find_marks(f);
    if (st1)
        end(f, ST0_ABNORMAL, st1, 0);
    else if (k == FDC_READ_ID)
        read_id(f);
    else if (k == FDC_FORMAT)
        next_format(f);
    else if (is_write(k))
        next_write(f);
    else if (k == FDC_READ_TRACK)
        next_of_track(f);
    else if (k == FDC_READ_DELETED && (r->cmd[0] & CMD_SKIP)) /* skips all that there are */
        end(f, ST0_ABNORMAL, ST1_END_OF_CYLINDER, ST2_CONTROL_MARK);
    else if (find_sector(f))
        submit_sector(f, BLK_READ, r->r);
}

void fdc_xfer_data(Fdc *f)
{
    if (is_write(kind_of(f))) {
        f->regs.phase = FDC_PHASE_NEXT;
        fdc_xfer_next(f);
    } else {
        sector_done(f);
    }
}

/* 82077, 5.4 "Implied seek": the head goes to C before the transfer. */
static void implied_seek(Fdc *f)
{
    FdcRegs *r = &f->regs;
    unsigned unit = unit_of(f);
    int track = (int)r->track[unit] + (int)r->cmd[2] - (int)r->pcn[unit];

    fdc_step(f, unit, (uint8_t)CLAMP(track, 0, FDC_TRACK_MAX));
    r->pcn[unit] = r->cmd[2];
}

void fdc_xfer_start(Fdc *f)
{
    FdcRegs *r = &f->regs;
    FdcCommand k = kind_of(f);

    if (k == FDC_FORMAT) {
        r->eot = r->cmd[3];
    } else if (k != FDC_READ_ID) {
        r->c = r->cmd[2];
        r->h = r->cmd[3];
        r->r = r->cmd[4];
        r->n = r->cmd[5];
        r->eot = r->cmd[6];
        if (r->config & CONFIG_IMPLIED_SEEK)
            implied_seek(f);
    }
    r->head = r->cmd[1] & CMD_HEAD ? 1 : 0;
    r->count = 0;
    r->data_pos = r->data_len = 0;
    r->tc = r->no_data = r->gone = r->wrote = r->ending = false;
    r->cmd_pos = 0;
    r->phase = FDC_PHASE_START;
    r->start_ns = clock_now_ns(f->dev.board->clock) + LATENCY_NS;
    if (by_dma(f) && k != FDC_VERIFY && k != FDC_READ_ID)
        request_dma(f, true);
}

void fdc_xfer_abort(Fdc *f)
{
    f->stale = f->in_flight;
    f->regs.ending = f->regs.wrote = false;
    request_dma(f, false);
}
