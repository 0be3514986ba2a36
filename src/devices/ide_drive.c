/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The drives as devices: attaching to a channel, media, quiet, state; classes ide-hd and ide-cd.
 *
 * Spec: what a drive does is in ide_ata.c and atapi.c. Sectors have 512 bytes, so an image that
 * must be accessed in larger units (cache=none on such a disk) is refused at realize. A CD image is
 * its whole blocks of 2048 bytes; a rest behind them is not shown.
 *
 * Threads: main here, with IdeBus.lock where a drive's state is touched.
 *
 * Invariant: after quiesce nothing is in flight; a step that did not start stays in regs.step, so a
 * snapshot taken then has all there is, and resume starts it.
 */
#include "ide.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"

/* A new medium, or none; d->node's limits are the drive's. IdeBus.lock held. */
void ide_set_medium(IdeDrive *d, BlkNode *node)
{
    BlkLimits l = {0};

    d->node = node;
    if (node)
        blk_limits(node, &l);
    d->total = l.size / IDE_SECTOR;
    d->read_only = l.read_only;
    d->max_iov = l.max_iov ? MIN(l.max_iov, IDE_IOV_MAX) : IDE_IOV_MAX;
}

static bool medium_fits(const IdeDrive *d, BlkNode *node, GError **error)
{
    BlkLimits l;

    blk_limits(node, &l);
    if (l.align > IDE_SECTOR)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: its image is accessed in units of %u bytes, a drive has %u; leave "
                          "cache=none out", d->dev.id, l.align, IDE_SECTOR);
    if (d->cd ? l.size < CD_BLOCK : l.size < IDE_SECTOR)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: its image has no whole sector",
                          d->dev.id);
    return true;
}

/**
 * drive_attach() - Put @d on its place of board->ide, in its power-on state
 * Context: main thread, in realize. Return: false with LODGE_ERROR_CONFIG: no controller, the unit
 *          is taken, or the image does not fit a drive.
 */
static bool drive_attach(IdeDrive *d, GError **error)
{
    IdeBus *bus = d->dev.board->ide;
    IdeChannel *c;
    unsigned place = d->unit % IDE_UNITS;

    if (!bus)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: the board has no IDE controller",
                          d->dev.id);
    c = &bus->chan[d->unit / IDE_UNITS];
    if (c->drive[place])
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: IDE unit %u is taken by %s", d->dev.id,
                          d->unit, c->drive[place]->dev.id);
    if (d->node && !medium_fits(d, d->node, error))
        return false;
    ide_set_medium(d, d->node);
    if (!d->cd && !ide_choose_geometry(d, error))
        return false;
    d->iov = g_new(struct iovec, IDE_IOV_MAX);
    d->pins = g_new(MemPin, IDE_IOV_MAX);
    d->pieces = g_new(IdePiece, IDE_PIECES);
    d->bus = bus;
    d->chan = c;
    lodge_lock(&bus->lock);
    c->drive[place] = d;
    ide_power_on(d);
    lodge_unlock(&bus->lock);
    return true;
}

static void drive_unrealize(Device *dev)
{
    IdeDrive *d = (IdeDrive *)dev;

    if (d->bus) {
        lodge_lock(&d->bus->lock);
        d->regs.irq = 0;
        ide_update_irq(d->chan);
        d->chan->drive[d->unit % IDE_UNITS] = NULL;
        ide_update_irq(d->chan);
        lodge_unlock(&d->bus->lock);
        d->bus = NULL;
    }
    g_clear_pointer(&d->iov, g_free);
    g_clear_pointer(&d->pins, g_free);
    g_clear_pointer(&d->pieces, g_free);
}

static void drive_reset(Device *dev, ResetKind kind)
{
    IdeDrive *d = (IdeDrive *)dev;

    if (!d->bus)
        return;
    lodge_lock(&d->bus->lock);
    ide_power_on(d);
    ide_update_irq(d->chan);
    lodge_unlock(&d->bus->lock);
}

static void drive_quiesce(Device *dev)
{
    IdeDrive *d = (IdeDrive *)dev;
    bool quiet = true;

    if (d->bus) {
        lodge_lock(&d->bus->lock);
        d->quieting = true;
        quiet = !d->inflight;
        lodge_unlock(&d->bus->lock);
    }
    if (quiet)
        device_quiesced(dev);
}

static void drive_resume(Device *dev)
{
    IdeDrive *d = (IdeDrive *)dev;

    if (!d->bus)
        return;
    lodge_lock(&d->bus->lock);
    d->quieting = false;
    ide_step(d);
    lodge_unlock(&d->bus->lock);
}

/* What the tables cannot bound alone; NULL: sound. */
static const char *check_regs(const IdeDrive *d)
{
    const IdeDriveRegs *r = &d->regs;
    bool drq = r->status & IDE_DRQ, busy = r->status & IDE_BSY;

    if (r->buf_pos > r->block_end || r->block_end > r->buf_len)
        return "positions in the buffer do not rise";
    if (drq != (r->buf_pos < r->block_end && r->step == IDE_STEP_NONE) ||
        drq != (r->data != IDE_DATA_NONE && r->step == IDE_STEP_NONE))
        return "DRQ without data, or data without DRQ";
    if (r->step != IDE_STEP_NONE && !busy)
        return "a step while not busy";
    if (r->step >= IDE_STEP_BUF_IN ? !d->cd : r->step == IDE_STEP_FLUSH && d->cd)
        return "a step of another kind of drive";
    if (d->cd && (r->step == IDE_STEP_WRITE || r->step == IDE_STEP_DMA_OUT ||
                  r->step == IDE_STEP_VERIFY || r->data == IDE_DATA_OUT))
        return "a CD that writes";
    if (!d->cd && (r->data == IDE_DATA_PACKET || r->data == IDE_DATA_PARAM))
        return "a packet for a disk";
    if (!range_within(r->lba, r->left, MAX(d->total, r->lba)))
        return "sectors beyond the medium";
    if (!r->left && (r->step == IDE_STEP_READ || r->step == IDE_STEP_WRITE ||
                     r->step == IDE_STEP_VERIFY || r->step == IDE_STEP_DMA_IN ||
                     r->step == IDE_STEP_DMA_OUT || r->data == IDE_DATA_OUT))
        return "nothing left to move";
    if ((r->step == IDE_STEP_WRITE || r->data == IDE_DATA_OUT) &&
        (!r->buf_len || r->buf_len % IDE_SECTOR || r->buf_len / IDE_SECTOR > r->left))
        return "a buffer that is not the write's";
    if (r->step == IDE_STEP_FIND &&
        (r->find >= r->find_end || r->find_end > d->total || !r->find_unit))
        return "a search for nothing";
    if (r->data == IDE_DATA_PACKET && r->buf_len != IDE_PACKET)
        return "a packet of another length";
    if (r->multiple > IDE_MULTIPLE_MAX || (r->multiple & (r->multiple - 1)))
        return "multiple is no power of two";
    if (!d->cd && (!r->heads || !r->sectors || !r->cylinders ||
                   (uint64_t)r->heads * r->sectors * r->cylinders > d->total))
        return "a translation larger than the disk";
    return r->limit ? NULL : "blocks of no bytes";
}

static bool drive_post_load(void *obj, unsigned version, GError **error)
{
    IdeDrive *d = obj;
    const char *why;

    if (!d->bus)
        return true;
    lodge_lock(&d->bus->lock);
    why = check_regs(d);
    if (!why) {
        uint8_t latched = d->chan->regs->bm_status;

        ide_update_irq(d->chan);
        d->chan->regs->bm_status = latched;
    }
    lodge_unlock(&d->bus->lock);
    return why ? lodge_fail(error, LODGE_ERROR_IMAGE, "%s: %s", d->dev.id, why) : true;
}

/* ---- state and classes ---- */

static const StateField sense_fields[] = {
    ST_U(IdeSense, info, UINT32_MAX),
    ST_U(IdeSense, key, 15),
    ST_U(IdeSense, asc, UINT8_MAX),
    ST_U(IdeSense, ascq, UINT8_MAX),
    ST_U(IdeSense, info_valid, 1),
    ST_END,
};
static const StateDesc sense_state = {.name = "ide-sense", .version = 1, .oldest = 1,
                                      .regs_size = sizeof(IdeSense), .fields = sense_fields};

static const StateField drive_fields[] = {
    ST_U(IdeDriveRegs, lba, UINT64_MAX),
    ST_U(IdeDriveRegs, left, UINT64_MAX),
    ST_U(IdeDriveRegs, find, UINT64_MAX),
    ST_U(IdeDriveRegs, find_end, UINT64_MAX),
    ST_U(IdeDriveRegs, buf_pos, IDE_BUF),
    ST_U(IdeDriveRegs, block_end, IDE_BUF),
    ST_U(IdeDriveRegs, buf_len, IDE_BUF),
    ST_U(IdeDriveRegs, limit, IDE_BUF),
    ST_U(IdeDriveRegs, cylinders, 65535),
    ST_U(IdeDriveRegs, heads, 16),
    ST_U(IdeDriveRegs, sectors, 255),
    ST_RAW(IdeDriveRegs, reg),
    ST_U(IdeDriveRegs, error, UINT8_MAX),
    ST_U(IdeDriveRegs, status, UINT8_MAX),
    ST_U(IdeDriveRegs, command, UINT8_MAX),
    ST_U(IdeDriveRegs, irq, 1),
    ST_U(IdeDriveRegs, step, IDE_STEPS - 1),
    ST_U(IdeDriveRegs, data, IDE_DATAS - 1),
    ST_U(IdeDriveRegs, address, IDE_ADDRESSES - 1),
    ST_U(IdeDriveRegs, find_unit, IDE_BUF_SECTORS),
    ST_U(IdeDriveRegs, multiple, IDE_MULTIPLE_MAX),
    ST_U(IdeDriveRegs, pio_mode, 4),
    ST_U(IdeDriveRegs, mwdma, 7),
    ST_U(IdeDriveRegs, udma, 0x3f),
    ST_U(IdeDriveRegs, write_cache, 1),
    ST_U(IdeDriveRegs, look_ahead, 1),
    ST_U(IdeDriveRegs, power, UINT8_MAX),
    ST_U(IdeDriveRegs, asleep, 1),
    ST_RAW(IdeDriveRegs, packet),
    ST_U(IdeDriveRegs, dma, 1),
    ST_U(IdeDriveRegs, tray_open, 1),
    ST_U(IdeDriveRegs, locked, 1),
    ST_U(IdeDriveRegs, attention, UINT8_MAX),
    ST_U(IdeDriveRegs, event, 15),
    ST_SKIPPED(IdeDriveRegs, pad, "fills the struct; always 0"),
    ST_SUBS(IdeDriveRegs, sense, 1, &sense_state),
    ST_RAW(IdeDriveRegs, buf),
    ST_END,
};

static const StateDesc hd_state = {
    .name = "ide-hd", .version = 1, .oldest = 1, .regs_offset = offsetof(IdeDrive, regs),
    .regs_size = sizeof(IdeDriveRegs), .fields = drive_fields,
    .post_load = drive_post_load};
static const StateDesc cd_state = {
    .name = "ide-cd", .version = 1, .oldest = 1, .regs_offset = offsetof(IdeDrive, regs),
    .regs_size = sizeof(IdeDriveRegs), .fields = drive_fields,
    .post_load = drive_post_load};

static bool hd_realize(Device *dev, GError **error)
{
    IdeDrive *d = (IdeDrive *)dev;

    if (!d->node)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: needs drive=NAME", dev->id);
    return drive_attach(d, error);
}

static bool cd_realize(Device *dev, GError **error)
{
    IdeDrive *d = (IdeDrive *)dev;

    d->cd = true;
    return drive_attach(d, error);
}

/* A tray that the guest has locked stays shut; the guest hears that somebody pressed eject. */
static bool cd_change_medium(Device *dev, BlkNode *medium, bool force, GError **error)
{
    IdeDrive *d = (IdeDrive *)dev;
    bool ok = false;

    if (!d->bus)
        return lodge_fail(error, LODGE_ERROR_STATE, "%s: not attached", dev->id);
    if (medium && !medium_fits(d, medium, error))
        return false;
    lodge_lock(&d->bus->lock);
    if (d->inflight) {
        (void)lodge_fail(error, LODGE_ERROR_STATE, "%s: still reading", dev->id);
    } else if (d->regs.locked && d->node && !force) {
        atapi_eject_pressed(d);
        (void)lodge_fail(error, LODGE_ERROR_STATE, "%s: the guest has locked the tray; unmount the "
                         "disc there", dev->id);
    } else {
        ide_set_medium(d, medium);
        atapi_medium_changed(d);
        ok = true;
    }
    lodge_unlock(&d->bus->lock);
    return ok;
}

static bool cd_medium_locked(Device *dev)
{
    IdeDrive *d = (IdeDrive *)dev;
    bool locked = false;

    if (d->bus) {
        lodge_lock(&d->bus->lock);
        locked = d->regs.locked;
        lodge_unlock(&d->bus->lock);
    }
    return locked;
}

#define DRIVE_PROPS                                                                                \
    {"unit", "0 and 1: master and slave of the first channel; 2 and 3: of the second", PROP_U32,   \
     offsetof(IdeDrive, unit), 0, IDE_CHANNELS * IDE_UNITS - 1, "0"},                              \
    {"serial", "serial number, at most 20 bytes", PROP_STRING, offsetof(IdeDrive, serial), 0,      \
     IDE_SERIAL_MAX, NULL},                                                                        \
    {"model", "model name, at most 40 bytes", PROP_STRING, offsetof(IdeDrive, model), 0,           \
     IDE_MODEL_MAX, NULL}

static const PropSpec hd_props[] = {
    DRIVE_PROPS,
    {"drive", "disk image that it shows", PROP_BLK, offsetof(IdeDrive, node), 0, 0, NULL},
    {"cylinders", "geometry it reports; 0: chosen by size", PROP_U32,
     offsetof(IdeDrive, cylinders), 0, 65535, "0"},
    {"heads", "likewise", PROP_U32, offsetof(IdeDrive, heads), 0, 16, "0"},
    {"sectors", "likewise, of a track", PROP_U32, offsetof(IdeDrive, sectors), 0, 255, "0"},
    {0},
};

static const PropSpec cd_props[] = {
    DRIVE_PROPS,
    {"drive", "disc image in it; without: none", PROP_BLK, offsetof(IdeDrive, node), 0, 0, ""},
    {0},
};

const DeviceClass ide_hd_class = {
    .name = "ide-hd",
    .bus = "ide",
    .help = "ATA hard disk",
    .boot = 'c',
    .instance_size = sizeof(IdeDrive),
    .props = hd_props,
    .state = &hd_state,
    .realize = hd_realize,
    .reset = drive_reset,
    .quiesce = drive_quiesce,
    .resume = drive_resume,
    .unrealize = drive_unrealize,
};

const DeviceClass ide_cd_class = {
    .name = "ide-cd",
    .bus = "ide",
    .help = "ATAPI CD-ROM drive",
    .boot = 'd',
    .instance_size = sizeof(IdeDrive),
    .props = cd_props,
    .state = &cd_state,
    .realize = cd_realize,
    .reset = drive_reset,
    .quiesce = drive_quiesce,
    .resume = drive_resume,
    .unrealize = drive_unrealize,
    .change_medium = cd_change_medium,
    .medium_locked = cd_medium_locked,
};
