/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Floppy disk drive on the cable of the controller: which image fits which drive.
 *
 * Spec: ECMA-99, ECMA-125 and ECMA-147 for the layouts, the IBM PC/AT Technical Reference for the
 * types that firmware set-up names.
 *
 * Modelled: 5.25 inch drives of 360 KiB and 1.2 MiB, 3.5 inch drives of 1.44 and 2.88 MiB. The
 * first medium chooses the drive, an empty one is of 1.44 MiB. A 360 KiB disk comes in a drive of
 * its own kind, so that no driver must step twice for each of its tracks. Head, change line and all
 * else that the guest sees are in the controller (fdc_82077.c), under its lock.
 *
 * Threads: main thread.
 */
#include "fdc_internal.h"
#include "lodge/error.h"
#include "lodge/num.h"

#define CUT_FORMAT formats[6] /* 1440 KiB */
enum { TYPE_NONE, TYPE_360K, TYPE_1200K, TYPE_720K, TYPE_1440K, TYPE_2880K };
enum { RATE_500K, RATE_300K, RATE_250K, RATE_1M };
#define BIT(n) (1u << (n))
/* 300K in drives that turn faster. */
#define DOUBLE_DENSITY_5 (BIT(RATE_250K) | BIT(RATE_300K))
#define FITS_3 (BIT(TYPE_1440K) | BIT(TYPE_2880K))

typedef struct Floppy {
    Device dev;
    /* Properties: */
    BlkNode *drive; /* borrowed; NULL: empty */
    uint32_t unit;
    /* Main thread: */
    FdcDrive cable; /* as the controller has it */
    bool attached;
} Floppy;

static const FdcFormat formats[] = {
    {160 * KIB, 40, 1, 8, DOUBLE_DENSITY_5, TYPE_360K, BIT(TYPE_360K)},
    {180 * KIB, 40, 1, 9, DOUBLE_DENSITY_5, TYPE_360K, BIT(TYPE_360K)},
    {320 * KIB, 40, 2, 8, DOUBLE_DENSITY_5, TYPE_360K, BIT(TYPE_360K)},
    {360 * KIB, 40, 2, 9, DOUBLE_DENSITY_5, TYPE_360K, BIT(TYPE_360K)},
    {720 * KIB, 80, 2, 9, BIT(RATE_250K), TYPE_1440K, FITS_3},
    {1200 * KIB, 80, 2, 15, BIT(RATE_500K), TYPE_1200K, BIT(TYPE_1200K)},
    {1440 * KIB, 80, 2, 18, BIT(RATE_500K), TYPE_1440K, FITS_3},
    {1680 * KIB, 80, 2, 21, BIT(RATE_500K), TYPE_1440K, FITS_3},
    {2880 * KIB, 80, 2, 36, BIT(RATE_1M), TYPE_2880K, BIT(TYPE_2880K)},
};

/* An odd size is the beginning of a 1.44 MiB disk, as GRUB's image is: boot images are often cut
 * where their contents end. */
static const FdcFormat *find_format(uint64_t bytes)
{
    if (!bytes || bytes % FDC_SECTOR)
        return NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (formats[i].bytes == bytes)
            return &formats[i];
    }
    return bytes < CUT_FORMAT.bytes ? &CUT_FORMAT : NULL;
}

/* @c with @medium in it (NULL: empty); unchanged if that fails. */
static bool put_in(const Device *d, FdcDrive *c, BlkNode *medium, GError **error)
{
    BlkLimits l = {0};
    const FdcFormat *m = NULL;

    if (medium) {
        blk_limits(medium, &l);
        m = find_format(l.size);
        if (!m)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "%s: an image of %" PRIu64 " bytes is no floppy disk; there are "
                              "160K, 180K, 320K, 360K, 720K, 1200K, 1440K, 1680K and 2880K, and "
                              "whole sectors of less than 1440K",
                              d->id, l.size);
        if (l.align > FDC_SECTOR)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "%s: a floppy disk needs an image with requests of 512 bytes", d->id);
        if (c->type && !(m->fits & BIT(c->type)))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "%s: a disk of %u KiB does not fit this drive", d->id,
                              (unsigned)(m->bytes / KIB));
    }
    c->node = medium;
    c->format = m;
    c->bytes = l.size;
    c->read_only = l.read_only;
    if (!c->type)
        c->type = m ? m->drive : TYPE_1440K;
    return true;
}

static bool floppy_change_medium(Device *d, BlkNode *medium, GError **error)
{
    Floppy *f = (Floppy *)d;

    if (!put_in(d, &f->cable, medium, error))
        return false;
    fdc_insert(d->board->fdc, f->unit, &f->cable);
    return true;
}

static void floppy_quiesce(Device *d)
{
    fdc_quiesce(d->board->fdc, (uint8_t)BIT(((Floppy *)d)->unit));
}

static void floppy_resume(Device *d)
{
    fdc_resume(d->board->fdc, (uint8_t)BIT(((Floppy *)d)->unit));
}

static void floppy_unrealize(Device *d)
{
    Floppy *f = (Floppy *)d;

    if (f->attached)
        fdc_detach(d->board->fdc, f->unit);
    f->attached = false;
}

static bool floppy_realize(Device *d, GError **error)
{
    Floppy *f = (Floppy *)d;

    if (!d->board->fdc)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: the machine has no floppy controller",
                          d->id);
    f->cable = (FdcDrive){.dev = d};
    if (!put_in(d, &f->cable, f->drive, error) ||
        !fdc_attach(d->board->fdc, f->unit, &f->cable, error))
        return false;
    f->attached = true;
    return true;
}

static const PropSpec floppy_props[] = {
    {"unit", "0 for A:, 1 for B:", PROP_U32, offsetof(Floppy, unit), 0, FDC_DRIVES - 1, "0"},
    {"drive", "image of the disk in it; none: empty", PROP_BLK, offsetof(Floppy, drive), 0, 0, ""},
    {0},
};

const DeviceClass floppy_class = {
    .name = "floppy",
    .bus = "fdc",
    .help = "floppy disk drive of 360K, 1.2M, 1.44M or 2.88M",
    .boot = 'a',
    .instance_size = sizeof(Floppy),
    .props = floppy_props,
    .state = &state_none,
    .realize = floppy_realize,
    .quiesce = floppy_quiesce,
    .resume = floppy_resume,
    .unrealize = floppy_unrealize,
    .change_medium = floppy_change_medium,
};
