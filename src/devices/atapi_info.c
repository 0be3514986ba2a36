/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the CD-ROM drive tells of itself and of the disc in it.
 *
 * Spec: MMC-3 (T10 1363D), 5.2 (features), 5.5 (mode pages), 6.1 (commands); SPC-2 (INQUIRY,
 * REQUEST SENSE, mode headers); SFF-8020i for the format bits of READ TOC that came before MMC.
 *
 * Mode pages: 01 error recovery, 0E audio control (silent), 2A capabilities. No value can be
 * changed: MODE SELECT takes what MODE SENSE gives and refuses the rest. There are no saved pages.
 *
 * Threads and locks: as ide_xfer.c. Invariant: an answer is built in the buffer, has a fixed
 * ceiling far below IDE_BUF, and is cut to the guest's room by atapi_reply().
 */
#include "ide.h"

#include <string.h>

#include "lodge/num.h"

enum {
    LEAD_OUT = 0xaa,
    ADR_DATA_TRACK = 0x14, /* Q channel mode 1, data track */
    MSF_LEAD_IN = 150,     /* frames before block 0 */
    CD_BLOCKS_MAX = 450000, /* more than the longest CD holds: a DVD */
    PROFILE_CD = 0x0008,
    PROFILE_DVD = 0x0010,
    TRAY = 0x29, /* tray, can eject, can lock */
    SPEED = 7056, /* kB/s, 40 times */
    PAGE_RECOVERY = 0x01,
    PAGE_AUDIO = 0x0e,
    PAGE_CAPABILITIES = 0x2a,
    PAGE_ALL = 0x3f,
    MODE_HEADER = 8,
    SENSE_LEN = 18,
    INQUIRY_LEN = 36,
};

static uint16_t room16(const IdeDrive *d, unsigned at)
{
    return load_be16(d->regs.packet + at);
}

static uint8_t *clear(IdeDrive *d, size_t n)
{
    return memset(d->regs.buf, 0, n);
}

/* SPC-2 7.3 */
void atapi_inquiry(IdeDrive *d)
{
    uint8_t *p = clear(d, INQUIRY_LEN);

    if ((d->regs.packet[1] & 3) || d->regs.packet[2]) { /* no vital product data */
        atapi_fail(d, SENSE_INVALID_FIELD);
        return;
    }
    p[0] = 0x05; /* CD-ROM */
    p[1] = 0x80; /* removable */
    p[3] = 0x21; /* ATAPI, response format 1 */
    p[4] = INQUIRY_LEN - 5;
    memcpy(p + 8, "LODGE   CD-ROM          1.0 ", 28);
    atapi_reply(d, INQUIRY_LEN, d->regs.packet[4]);
}

/* SPC-2 7.20; the sense is told once. */
void atapi_request_sense(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;
    uint8_t *p = clear(d, SENSE_LEN);

    if (!r->sense.key && r->attention) {
        r->sense = (IdeSense){.key = 0x06, .asc = r->attention};
        r->attention = 0;
    }
    p[0] = 0x70 | (r->sense.info_valid ? 0x80 : 0);
    p[2] = r->sense.key;
    store_be32(p + 3, r->sense.info);
    p[7] = SENSE_LEN - 8;
    p[12] = r->sense.asc;
    p[13] = r->sense.ascq;
    r->sense = (IdeSense){0};
    atapi_reply(d, SENSE_LEN, r->packet[4]);
}

/* ---- READ TOC, MMC 6.1.29 ---- */

static void put_msf(uint8_t *p, uint32_t block)
{
    uint64_t frames = (uint64_t)block + MSF_LEAD_IN;

    p[0] = (uint8_t)MIN(frames / (60 * 75), 255);
    p[1] = (uint8_t)(frames / 75 % 60);
    p[2] = (uint8_t)(frames % 75);
}

/* A descriptor of formats 0 and 1. */
static uint8_t *put_track(uint8_t *p, uint8_t track, uint32_t block, bool msf)
{
    p[1] = ADR_DATA_TRACK;
    p[2] = track;
    if (msf)
        put_msf(p + 5, block);
    else
        store_be32(p + 4, block);
    return p + 8;
}

/* A descriptor of format 2; @p: PMIN, PSEC and PFRAME. */
static uint8_t *put_point(uint8_t *at, uint8_t point, const uint8_t p[3])
{
    at[0] = 1; /* session */
    at[1] = ADR_DATA_TRACK;
    at[3] = point;
    memcpy(at + 8, p, 3);
    return at + 11;
}

static uint8_t *put_raw_toc(uint8_t *at, uint32_t blocks)
{
    static const uint8_t first_track[3] = {1, 0, 0};
    uint8_t msf[3];

    at = put_point(at, 0xa0, first_track);
    at = put_point(at, 0xa1, first_track); /* the last one too */
    put_msf(msf, blocks);
    at = put_point(at, 0xa2, msf);
    put_msf(msf, 0);
    return put_point(at, 1, msf);
}

void atapi_read_toc(IdeDrive *d)
{
    const uint8_t *packet = d->regs.packet;
    uint8_t format = packet[2] & 0x0f, start = packet[6];
    bool msf = packet[1] & 2;
    uint8_t *p = clear(d, 64), *end = p + 4;

    if (!format)
        format = packet[9] >> 6;
    p[2] = p[3] = 1; /* first and last track or session */
    switch (format) {
    case 0:
        if (start > 1 && start != LEAD_OUT) {
            atapi_fail(d, SENSE_INVALID_FIELD);
            return;
        }
        if (start <= 1)
            end = put_track(end, 1, 0, msf);
        end = put_track(end, LEAD_OUT, atapi_blocks(d), msf);
        break;
    case 1:
        end = put_track(end, 1, 0, msf);
        break;
    case 2:
        end = put_raw_toc(end, atapi_blocks(d));
        break;
    default:
        atapi_fail(d, SENSE_INVALID_FIELD);
        return;
    }
    store_be16(p, (uint16_t)(end - p - 2));
    atapi_reply(d, (uint32_t)(end - p), room16(d, 7));
}

/* ---- mode pages ---- */

/* Put page @code at @p as it stands, or 0 where there is none; returns its length. */
static unsigned put_page(const IdeDrive *d, uint8_t code, uint8_t *p)
{
    switch (code) {
    case PAGE_RECOVERY: /* MMC 5.5.5 */
        memset(p, 0, 8);
        p[1] = 6;
        p[3] = 5; /* retries */
        break;
    case PAGE_AUDIO: /* MMC 5.5.2 */
        memset(p, 0, 16);
        p[1] = 14;
        p[2] = 4; /* immediate */
        break;
    case PAGE_CAPABILITIES: /* MMC 5.5.10 */
        memset(p, 0, 20);
        p[1] = 18;
        p[2] = 0x0b; /* reads CD-R, CD-RW, DVD-ROM */
        p[6] = (uint8_t)(TRAY | (d->regs.locked ? 2 : 0));
        store_be16(p + 8, SPEED);
        store_be16(p + 12, IDE_BUF / 1024);
        store_be16(p + 14, SPEED);
        break;
    default:
        return 0;
    }
    p[0] = code;
    return p[1] + 2u;
}

void atapi_mode_sense(IdeDrive *d)
{
    static const uint8_t codes[] = {PAGE_RECOVERY, PAGE_AUDIO, PAGE_CAPABILITIES};
    uint8_t what = d->regs.packet[2] & 0x3f, control = d->regs.packet[2] >> 6;
    uint8_t *p = clear(d, 128), *end = p + MODE_HEADER;

    if (control == 3) {
        atapi_fail(d, 0x05, 0x39, 0x00); /* saving parameters not supported */
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(codes); i++) {
        unsigned n = what == PAGE_ALL || what == codes[i] ? put_page(d, codes[i], end) : 0;

        if (n && control == 1) /* which bits can change: none */
            memset(end + 2, 0, n - 2);
        end += n;
    }
    if (end == p + MODE_HEADER) {
        atapi_fail(d, SENSE_INVALID_FIELD);
        return;
    }
    store_be16(p, (uint16_t)(end - p - 2));
    p[2] = d->regs.tray_open ? 0x71 : atapi_has_medium(d) ? 0x01 : 0x70;
    atapi_reply(d, (uint32_t)(end - p), room16(d, 7));
}

void atapi_mode_select(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;
    uint16_t n = room16(d, 7);

    if (!(r->packet[1] & 0x10) || (r->packet[1] & 1)) { /* page format, nothing saved */
        atapi_fail(d, SENSE_INVALID_FIELD);
        return;
    }
    if (!n) {
        atapi_done(d);
        return;
    }
    r->buf_pos = 0;
    r->buf_len = n;
    if (r->dma) {
        r->block_end = n;
        r->step = IDE_STEP_BUF_OUT;
        r->status = IDE_READY | IDE_BSY;
        ide_step(d);
    } else {
        r->data = IDE_DATA_PARAM;
        ide_open_block(d, true);
    }
}

void atapi_mode_selected(IdeDrive *d)
{
    const uint8_t *p = d->regs.buf;
    uint32_t len = d->regs.buf_len, at = MODE_HEADER;
    uint8_t page[32];

    if (len < MODE_HEADER || load_be16(p + 6) > len - MODE_HEADER) {
        atapi_fail(d, 0x05, 0x1a, 0x00); /* parameter list length error */
        return;
    }
    for (at += load_be16(p + 6); at < len;) {
        unsigned n = put_page(d, p[at] & 0x3f, page);

        if (!n) {
            atapi_fail(d, 0x05, 0x26, 0x00); /* invalid field in parameter list */
            return;
        }
        if (n > len - at) {
            atapi_fail(d, 0x05, 0x1a, 0x00);
            return;
        }
        if (memcmp(p + at + 1, page + 1, n - 1)) {
            atapi_fail(d, 0x05, 0x26, 0x00);
            return;
        }
        at += n;
    }
    atapi_done(d);
}

/* ---- features and status ---- */

static uint16_t profile(const IdeDrive *d)
{
    return !atapi_has_medium(d) ? 0 : atapi_blocks(d) > CD_BLOCKS_MAX ? PROFILE_DVD : PROFILE_CD;
}

/* MMC 5.2: a feature's header; its data follows. */
static uint8_t *put_feature(uint8_t *p, uint16_t code, bool persistent, bool current, uint8_t len)
{
    memset(p, 0, 4u + len);
    store_be16(p, code);
    p[2] = (uint8_t)(persistent << 1 | current);
    p[3] = len;
    return p + 4;
}

typedef struct FeatureRow {
    uint16_t code;
    bool persistent;
    uint8_t len;
    uint8_t data[8];
} FeatureRow;

static const FeatureRow features[] = {
    {0x0000, true, 8, {0, PROFILE_DVD, 0, 0, 0, PROFILE_CD}},
    {0x0001, true, 4, {0, 0, 0, 2}}, /* core; ATAPI */
    {0x0002, true, 4, {0}},          /* morphing */
    {0x0003, true, 4, {TRAY}},
    {0x0010, false, 8, {0, 0, CD_BLOCK >> 8, 0, 0, 1}}, /* random readable */
    {0x001e, false, 4, {0}},                            /* CD read */
    {0x001f, false, 0, {0}},                            /* DVD read */
};

static bool feature_current(const FeatureRow *f, uint16_t now)
{
    return f->persistent || (f->code == 0x0010 && now) ||
           (f->code == 0x001e && now == PROFILE_CD) || (f->code == 0x001f && now == PROFILE_DVD);
}

/* MMC 6.1.4 */
void atapi_get_configuration(IdeDrive *d)
{
    uint8_t kind = d->regs.packet[1] & 3;
    uint16_t from = load_be16(d->regs.packet + 2), now = profile(d);
    uint8_t *p = clear(d, 8), *end = p + 8;

    if (kind == 3) {
        atapi_fail(d, SENSE_INVALID_FIELD);
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(features); i++) {
        const FeatureRow *f = &features[i];
        bool current = feature_current(f, now);

        if (kind == 2 ? f->code != from : f->code < from || (kind == 1 && !current))
            continue;
        end = put_feature(end, f->code, f->persistent, current, f->len);
        memcpy(end, f->data, f->len);
        if (!f->code) { /* the profile list says which is current */
            end[2] = now == PROFILE_DVD;
            end[6] = now == PROFILE_CD;
        }
        end += f->len;
    }
    store_be32(p, (uint32_t)(end - p - 4));
    store_be16(p + 6, now);
    atapi_reply(d, (uint32_t)(end - p), room16(d, 7));
}

/* MMC 6.1.5: the class of media events, polled. */
void atapi_get_event(IdeDrive *d)
{
    IdeDriveRegs *r = &d->regs;
    uint8_t *p = clear(d, 8);
    bool asked = r->packet[4] & 0x10;

    if (!(r->packet[1] & 1)) {
        atapi_fail(d, SENSE_INVALID_FIELD);
        return;
    }
    p[3] = 0x10;
    if (!asked) {
        p[1] = 2;
        p[2] = 0x80; /* no event available */
        atapi_reply(d, 4, room16(d, 7));
        return;
    }
    p[1] = 6;
    p[2] = 4;
    p[4] = r->event;
    p[5] = (uint8_t)((r->tray_open ? 1 : 0) | (atapi_has_medium(d) ? 2 : 0));
    if (room16(d, 7) > 4)
        r->event = 0;
    atapi_reply(d, 8, room16(d, 7));
}

/* MMC 6.1.8: no changer. */
void atapi_mechanism_status(IdeDrive *d)
{
    uint8_t *p = clear(d, 8);

    p[1] = d->regs.tray_open ? 0x10 : 0;
    atapi_reply(d, 8, room16(d, 8));
}

/* MMC 6.1.22: a complete disc of one session. */
void atapi_disc_information(IdeDrive *d)
{
    uint8_t *p = clear(d, 34);

    store_be16(p, 32);
    p[2] = 0x0e; /* last session and disc complete */
    p[3] = p[4] = p[5] = p[6] = 1;
    p[7] = 0x20; /* unrestricted use */
    memset(p + 17, 0xff, 3);
    memset(p + 21, 0xff, 3);
    atapi_reply(d, 34, room16(d, 7));
}

/* MMC 6.1.27 */
void atapi_track_information(IdeDrive *d)
{
    uint8_t kind = d->regs.packet[1] & 3;
    uint32_t which = load_be32(d->regs.packet + 2);
    uint8_t *p = clear(d, 36);

    if (kind > 2 || (kind ? which != 1 : which >= atapi_blocks(d))) {
        atapi_fail(d, SENSE_INVALID_FIELD);
        return;
    }
    store_be16(p, 34);
    p[2] = p[3] = 1;
    p[5] = 0x04; /* data, uninterrupted */
    p[6] = 0x01; /* mode 1 */
    store_be32(p + 24, atapi_blocks(d));
    atapi_reply(d, 36, room16(d, 7));
}
