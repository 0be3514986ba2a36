/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an IDE drive says of itself, and its geometry.
 *
 * Spec: ATA/ATAPI-6 (T13 1410D), 8.15 (IDENTIFY DEVICE) and 8.16 (IDENTIFY PACKET DEVICE), annex on
 * CHS translation; words that are not named here are 0. SMART, security, power-up in standby, host
 * protected area, removable media status and queueing are not announced, and their commands abort.
 *
 * Geometry: 16 heads of 63 sectors and at most 16383 cylinders, as drives beyond 8 GiB report and
 * firmware translates; a disk of less than one such cylinder gets fewer heads or sectors. An odd
 * rest after the last cylinder is reached by LBA only.
 *
 * Threads and locks: as ide_xfer.c. Invariant: cylinders * heads * sectors of the translation in
 * force is at most the capacity, and none is 0.
 */
#include "ide.h"

#include <stdio.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

enum {
    USUAL_HEADS = 16,
    USUAL_SECTORS = 63,
    USUAL_CYLINDERS = 16383,
    CYLINDERS_MAX = 65535,
    IDENTIFY_LEN = 512,
    SIGNATURE = 0xa5, /* word 255, low byte */
    FIRMWARE_LEN = 8,
};
#define LBA28_MAX (UINT64_C(1) << 28)
#define IDENTIFY_FIRMWARE "1.0"
#define SET(w, v) store_le16(d->regs.buf + 2 * (w), (uint16_t)(v))

/* 8.15.8: two characters a word, the first in the high byte, filled up with spaces. */
static void put_text(IdeDrive *d, unsigned word, unsigned len, const char *text)
{
    uint8_t *p = d->regs.buf + 2 * word;
    size_t n = text ? strnlen(text, len) : 0;

    for (unsigned i = 0; i < len; i++)
        p[i ^ 1] = i < n ? (uint8_t)text[i] : ' ';
}

/* Words 10 to 46, 62 to 68, 88, 93, which both kinds have alike. */
static void put_common(IdeDrive *d)
{
    const IdeDriveRegs *r = &d->regs;
    char serial[IDE_SERIAL_MAX + 1];

    (void)snprintf(serial, sizeof serial, "LODGE%05u", d->unit); /* fits: unit is 0 to 3 */
    put_text(d, 10, IDE_SERIAL_MAX, d->serial && *d->serial ? d->serial : serial);
    put_text(d, 23, FIRMWARE_LEN, IDENTIFY_FIRMWARE);
    put_text(d, 27, IDE_MODEL_MAX,
             d->model && *d->model ? d->model : d->cd ? "Lodge CD-ROM" : "Lodge hard disk");
    SET(63, 0x0007 | r->mwdma << 8);
    SET(64, 0x0003); /* PIO modes 3 and 4 */
    for (unsigned w = 65; w <= 68; w++)
        SET(w, 120); /* ns a cycle */
    SET(88, 0x003f | r->udma << 8);
    /* 80-conductor cable; how the drive knew its number: by jumper. */
    SET(93, d->unit & 1 ? 0x6a00 : 0x600b);
}

/* 8.15.62: the sum of all bytes is 0. */
static void put_checksum(IdeDrive *d)
{
    uint8_t sum = SIGNATURE;

    for (unsigned i = 0; i < IDENTIFY_LEN - 2; i++)
        sum = (uint8_t)(sum + d->regs.buf[i]);
    SET(255, SIGNATURE | (uint8_t)-sum << 8);
}

static void identify_disk(IdeDrive *d)
{
    const IdeDriveRegs *r = &d->regs;
    uint32_t chs = r->cylinders * r->heads * r->sectors;
    uint32_t lba28 = (uint32_t)MIN(d->total, LBA28_MAX - 1);

    SET(0, 0x0040); /* fixed */
    SET(1, d->cylinders);
    SET(3, d->heads);
    SET(6, d->sectors);
    SET(47, 0x8000 | IDE_MULTIPLE_MAX);
    SET(49, 0x2f00); /* standard standby timer, IORDY, LBA, DMA */
    SET(50, 0x4000);
    SET(51, 0x0200);
    SET(53, 0x0007);
    SET(54, r->cylinders);
    SET(55, r->heads);
    SET(56, r->sectors);
    SET(57, chs & 0xffff);
    SET(58, chs >> 16);
    SET(59, r->multiple ? 0x0100 | r->multiple : 0);
    SET(60, lba28 & 0xffff);
    SET(61, lba28 >> 16);
    SET(80, 0x007e); /* ATA-1 to ATA/ATAPI-6 */
    SET(82, 0x4068); /* NOP, look-ahead, write cache, power management */
    SET(83, 0x7400); /* FLUSH CACHE, FLUSH CACHE EXT, 48-bit addresses */
    SET(84, 0x4000);
    SET(85, 0x4008 | (r->look_ahead ? 0x40 : 0) | (r->write_cache ? 0x20 : 0));
    SET(86, 0x3400);
    SET(87, 0x4000);
    for (unsigned i = 0; i < 4; i++)
        SET(100 + i, d->total >> (16 * i));
}

static void identify_packet(IdeDrive *d)
{
    SET(0, 0x85c0);  /* ATAPI, CD-ROM, removable, DRQ within 50 us, packets of 12 bytes */
    SET(49, 0x0f00); /* IORDY, LBA, DMA */
    SET(50, 0x4000);
    SET(51, 0x0200);
    SET(53, 0x0006);
    SET(80, 0x0070); /* ATA/ATAPI-4 to 6 */
    SET(82, 0x4218); /* NOP, DEVICE RESET, PACKET, power management */
    SET(83, 0x4000);
    SET(84, 0x4000);
    SET(85, 0x4218);
    SET(87, 0x4000);
}

/* Answer IDENTIFY DEVICE or IDENTIFY PACKET DEVICE. */
void ide_identify(IdeDrive *d)
{
    memset(d->regs.buf, 0, IDENTIFY_LEN);
    if (d->cd)
        identify_packet(d);
    else
        identify_disk(d);
    put_common(d);
    put_checksum(d);
    d->regs.limit = IDENTIFY_LEN;
    d->regs.error = 0;
    ide_data_in(d, IDENTIFY_LEN);
}

/**
 * ide_translate() - Put the translation of INITIALIZE DEVICE PARAMETERS in force
 * @heads: 1..16; @sectors: a track, 1..255
 * Context: IdeBus.lock held. Return: false if the disk has not one such cylinder.
 */
bool ide_translate(IdeDrive *d, uint32_t heads, uint32_t sectors)
{
    uint64_t n = heads && sectors ? d->total / ((uint64_t)heads * sectors) : 0;

    if (!n)
        return false;
    d->regs.cylinders = (uint32_t)MIN(n, heads == d->heads && sectors == d->sectors
                                             ? d->cylinders : CYLINDERS_MAX);
    d->regs.heads = heads;
    d->regs.sectors = sectors;
    return true;
}

/**
 * ide_choose_geometry() - Complete or check the geometry of the properties
 * Context: main thread, in realize; d->total > 0. Return: false with LODGE_ERROR_CONFIG when only
 *          part of it was given, or it is larger than the disk.
 */
bool ide_choose_geometry(IdeDrive *d, GError **error)
{
    unsigned given = !!d->cylinders + !!d->heads + !!d->sectors;

    if (given == 3) {
        if ((uint64_t)d->cylinders * d->heads * d->sectors <= d->total)
            return true;
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: %u cylinders of %u heads of %u sectors are more than the disk has",
                          d->dev.id, d->cylinders, d->heads, d->sectors);
    }
    if (given)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: a geometry needs all of cylinders, heads and sectors", d->dev.id);
    d->sectors = (uint32_t)MIN(d->total, USUAL_SECTORS);
    d->heads = (uint32_t)MIN(d->total / d->sectors, USUAL_HEADS);
    d->cylinders = (uint32_t)MIN(d->total / (d->sectors * d->heads), USUAL_CYLINDERS);
    return true;
}
