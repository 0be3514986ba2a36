/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ATAPI CD-ROM drive: the PACKET command, its phases and sense, reads, tray and media.
 *
 * Spec: ATA/ATAPI-6 (T13 1410D), 8.23 and 9.8 (PACKET); SFF-8020i 2.6; MMC-3 (T10 1363D), 5 and 6;
 * SPC-2 for sense data. Answers that only describe the drive are in atapi_info.c.
 *
 * A disc is one data track of mode 1 in one session. Left out: audio, sub-channels, raw sectors
 * (READ CD gives user data only), DVD structures and keys, writing, overlapped commands: their
 * packets end with ILLEGAL REQUEST. A large disc calls itself a DVD-ROM.
 *
 * By PIO, data comes in blocks of at most the guest's byte count; by bus master, reads go straight
 * into guest memory (ide_dma.c). The first command after power-on or a new medium is told so by a
 * unit attention.
 *
 * Threads and locks: as ide_xfer.c.
 *
 * Invariant: a read starts only if all its blocks lie on the medium that is in; a change of medium
 * ends it with an error.
 */
#include "ide.h"

#include <string.h>

#include "lodge/num.h"

/* MMC 6.1, table of commands */
enum {
    OP_TEST_UNIT_READY = 0x00,
    OP_REQUEST_SENSE = 0x03,
    OP_INQUIRY = 0x12,
    OP_START_STOP = 0x1b,
    OP_PREVENT_ALLOW = 0x1e,
    OP_READ_CAPACITY = 0x25,
    OP_READ_10 = 0x28,
    OP_SEEK = 0x2b,
    OP_READ_TOC = 0x43,
    OP_GET_CONFIGURATION = 0x46,
    OP_GET_EVENT = 0x4a,
    OP_DISC_INFORMATION = 0x51,
    OP_TRACK_INFORMATION = 0x52,
    OP_MODE_SELECT = 0x55,
    OP_MODE_SENSE = 0x5a,
    OP_READ_12 = 0xa8,
    OP_SET_SPEED = 0xbb,
    OP_MECHANISM_STATUS = 0xbd,
    OP_READ_CD = 0xbe,
};

/* SFF-8020i 2.6, interrupt reason */
#define REASON_COMMAND 0x01
#define REASON_TO_HOST 0x02

#define FEATURE_DMA 0x01
#define FEATURE_OVERLAP 0x02
#define COUNT_MAX 0xfffeu

#define KEY_NOT_READY 0x02
#define KEY_MEDIUM 0x03
#define KEY_ATTENTION 0x06
#define ASC_UNREADABLE 0x11
#define EVENT_EJECT 1
#define EVENT_NEW_MEDIUM 2
#define EVENT_REMOVED 3

static void set_reason(IdeDrive *d, uint8_t reason)
{
    d->regs.reg[IDE_REG_COUNT - 1][0] = reason;
}

/* A DRQ block of @bytes opens: what it is for and how long. */
void atapi_set_count(IdeDrive *d, uint32_t bytes)
{
    IdeDriveRegs *r = &d->regs;

    set_reason(d, r->data == IDE_DATA_PACKET ? REASON_COMMAND
                  : r->data == IDE_DATA_IN   ? REASON_TO_HOST : 0);
    if (r->data != IDE_DATA_PACKET) {
        r->reg[IDE_REG_MID - 1][0] = (uint8_t)bytes;
        r->reg[IDE_REG_HIGH - 1][0] = (uint8_t)(bytes >> 8);
    }
}

/* The packet command ended well: status phase. */
void atapi_done(IdeDrive *d)
{
    set_reason(d, REASON_COMMAND | REASON_TO_HOST);
    ide_done(d);
}

/* It failed: CHECK CONDITION; REQUEST SENSE tells more. */
void atapi_fail(IdeDrive *d, uint8_t key, uint8_t asc, uint8_t ascq)
{
    d->regs.sense = (IdeSense){.key = key, .asc = asc, .ascq = ascq};
    set_reason(d, REASON_COMMAND | REASON_TO_HOST);
    ide_fail(d, (uint8_t)(key << 4 | IDE_ABRT));
}

/* The host could not read 512-byte sector @lba. */
void atapi_media_error(IdeDrive *d, uint64_t lba)
{
    atapi_fail(d, KEY_MEDIUM, ASC_UNREADABLE, 0);
    d->regs.sense.info = (uint32_t)(lba / CD_SECTORS);
    d->regs.sense.info_valid = 1;
}

/* Send @len bytes of the buffer, of which the guest has room for @room. */
void atapi_reply(IdeDrive *d, uint32_t len, uint32_t room)
{
    IdeDriveRegs *r = &d->regs;
    uint32_t n = MIN(len, room);

    if (!n) {
        atapi_done(d);
    } else if (r->dma) {
        r->buf_pos = 0;
        r->block_end = r->buf_len = n;
        r->step = IDE_STEP_BUF_IN;
        r->status = IDE_READY | IDE_BSY;
        ide_step(d);
    } else {
        ide_data_in(d, n);
    }
}

/* ---- tray and media ---- */

static void change_sense(IdeDrive *d, bool present)
{
    d->regs.attention = SENSE_MEDIUM_CHANGED_ASC;
    d->regs.event = present ? EVENT_NEW_MEDIUM : EVENT_REMOVED;
}

/* Another medium is in the closed tray, or none. A command on the old one fails. */
void atapi_medium_changed(IdeDrive *d)
{
    if (d->regs.left)
        atapi_fail(d, KEY_ATTENTION, SENSE_MEDIUM_CHANGED_ASC, 0);
    d->regs.tray_open = 0;
    change_sense(d, d->node != NULL);
}

void atapi_eject_pressed(IdeDrive *d)
{
    d->regs.event = EVENT_EJECT;
}

static void start_stop(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;
    uint8_t how = r->packet[4];

    if (!(how & 2) || how >> 4) { /* spin, or a power condition */
        atapi_done(d);
        return;
    }
    if (!(how & 1)) {
        if (r->locked) {
            atapi_fail(d, 0x05, 0x53, 0x02); /* medium removal prevented */
            return;
        }
        r->tray_open = 1;
        r->event = EVENT_REMOVED;
    } else if (r->tray_open) {
        r->tray_open = 0;
        if (d->node)
            change_sense(d, true);
    }
    atapi_done(d);
}

static void prevent_allow(IdeDrive *d)
{
    d->regs.locked = d->regs.packet[4] & 1;
    atapi_done(d);
}

/* ---- reading ---- */

static void read_blocks(IdeDrive *d, uint32_t lba, uint32_t n)
{
    IdeDriveRegs *r = &d->regs;

    if (!range_within(lba, n, atapi_blocks(d))) {
        atapi_fail(d, SENSE_OUT_OF_RANGE);
        return;
    }
    if (!n) {
        atapi_done(d);
        return;
    }
    r->lba = (uint64_t)lba * CD_SECTORS;
    r->left = (uint64_t)n * CD_SECTORS;
    r->step = r->dma ? IDE_STEP_DMA_IN : IDE_STEP_READ;
    r->status = IDE_READY | IDE_BSY;
    ide_step(d);
}

static void read_10(IdeDrive *d)
{
    read_blocks(d, load_be32(d->regs.packet + 2), load_be16(d->regs.packet + 7));
}

static void read_12(IdeDrive *d)
{
    read_blocks(d, load_be32(d->regs.packet + 2), load_be32(d->regs.packet + 6));
}

/* MMC 6.1.17: of the parts of a sector only user data can be had. */
static void read_cd(IdeDrive *d)
{
    const uint8_t *p = d->regs.packet;
    uint8_t type = p[1] >> 2 & 7, parts = p[9] & 0xfe;

    if (type != 0 && type != 2) { /* any, or mode 1 */
        atapi_fail(d, 0x05, 0x64, 0x00); /* illegal mode for this track */
    } else if ((parts != 0x10 && parts != 0) || (p[10] & 7)) {
        atapi_fail(d, SENSE_INVALID_FIELD);
    } else if (!parts) {
        atapi_done(d);
    } else {
        read_blocks(d, load_be32(p + 2), load_be32(p + 5) & 0xffffff);
    }
}

static void read_capacity(IdeDrive *d)
{
    store_be32(d->regs.buf, atapi_blocks(d) - 1);
    store_be32(d->regs.buf + 4, CD_BLOCK);
    atapi_reply(d, 8, 8);
}

static void seek(IdeDrive *d)
{
    if (load_be32(d->regs.packet + 2) < atapi_blocks(d))
        atapi_done(d);
    else
        atapi_fail(d, SENSE_OUT_OF_RANGE);
}

/* ---- packets ---- */

#define ALWAYS 1 /* answered in spite of a unit attention */
#define MEDIUM 2 /* needs a disc */

static const struct {
    uint8_t op, flags;
    void (*run)(IdeDrive *d);
} packets[] = {
    {OP_TEST_UNIT_READY, MEDIUM, atapi_done},
    {OP_REQUEST_SENSE, ALWAYS, atapi_request_sense},
    {OP_INQUIRY, ALWAYS, atapi_inquiry},
    {OP_START_STOP, 0, start_stop},
    {OP_PREVENT_ALLOW, 0, prevent_allow},
    {OP_READ_CAPACITY, MEDIUM, read_capacity},
    {OP_READ_10, MEDIUM, read_10},
    {OP_SEEK, MEDIUM, seek},
    {OP_READ_TOC, MEDIUM, atapi_read_toc},
    {OP_GET_CONFIGURATION, ALWAYS, atapi_get_configuration},
    {OP_GET_EVENT, ALWAYS, atapi_get_event},
    {OP_DISC_INFORMATION, MEDIUM, atapi_disc_information},
    {OP_TRACK_INFORMATION, MEDIUM, atapi_track_information},
    {OP_MODE_SELECT, 0, atapi_mode_select},
    {OP_MODE_SENSE, 0, atapi_mode_sense},
    {OP_READ_12, MEDIUM, read_12},
    {OP_SET_SPEED, 0, atapi_done},
    {OP_MECHANISM_STATUS, 0, atapi_mechanism_status},
    {OP_READ_CD, MEDIUM, read_cd},
};

static void run_packet(IdeDrive *d, unsigned i)
{
    IdeDriveRegs *r = &d->regs;

    if (r->attention && !(packets[i].flags & ALWAYS)) {
        atapi_fail(d, KEY_ATTENTION, r->attention, 0);
        r->attention = 0;
        return;
    }
    if ((packets[i].flags & MEDIUM) && !atapi_has_medium(d)) {
        atapi_fail(d, KEY_NOT_READY, SENSE_NO_MEDIUM_ASC, r->tray_open ? 2 : 1);
        return;
    }
    if (packets[i].op != OP_REQUEST_SENSE)
        r->sense = (IdeSense){0};
    packets[i].run(d);
}

/* The packet is in the buffer. */
void atapi_packet(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;
    uint32_t count = r->reg[IDE_REG_MID - 1][0] | (uint32_t)r->reg[IDE_REG_HIGH - 1][0] << 8;

    memcpy(r->packet, r->buf, IDE_PACKET);
    /* SFF 5.6: an odd count is rounded down, 0 stands for the largest. */
    count = count ? MAX(count & ~1u, 2) : COUNT_MAX;
    r->limit = count;
    r->power = 0xff;
    for (unsigned i = 0; i < G_N_ELEMENTS(packets); i++) {
        if (packets[i].op == r->packet[0]) {
            run_packet(d, i);
            return;
        }
    }
    atapi_fail(d, SENSE_INVALID_COMMAND);
}

/**
 * atapi_command() - PACKET was written: take its twelve bytes
 * Context: vCPU thread, IdeBus.lock held. No interrupt asks for the packet, as IDENTIFY says.
 */
void atapi_command(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;
    uint8_t feature = r->reg[IDE_REG_FEATURE - 1][0];

    if (feature & FEATURE_OVERLAP) {
        ide_fail(d, IDE_ABRT);
        return;
    }
    r->dma = feature & FEATURE_DMA;
    r->error = 0;
    r->left = 0;
    r->limit = IDE_PACKET;
    r->data = IDE_DATA_PACKET;
    r->buf_pos = 0;
    r->buf_len = IDE_PACKET;
    ide_open_block(d, false);
}
