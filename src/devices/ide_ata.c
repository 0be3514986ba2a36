/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands of an IDE disk, and those that packet devices share with it.
 *
 * Spec: ATA/ATAPI-6 (T13 1410D), 8 (commands), 6.2 (addresses), 9 (protocols).
 *
 * A range that is not wholly on the disk fails before anything moves, with IDNF and the first
 * address that is not there. Left out: SMART, security, host protected area (READ NATIVE MAX tells
 * the whole disk; SET MAX aborts), queued commands, FUA writes, READ and WRITE BUFFER, DOWNLOAD
 * MICROCODE: they abort, as IDENTIFY says. A disk whose image is read-only aborts writes.
 *
 * Threads and locks: as ide_xfer.c. Invariant: lba + left <= total while a command runs.
 */
#include "ide.h"

#include "lodge/num.h"

/* ATA 8, table of commands */
enum {
    CMD_DEVICE_RESET = 0x08,
    CMD_RECALIBRATE = 0x10, /* to 0x1F */
    CMD_READ = 0x20,
    CMD_READ_ONCE = 0x21,
    CMD_READ_EXT = 0x24,
    CMD_READ_DMA_EXT = 0x25,
    CMD_READ_NATIVE_MAX_EXT = 0x27,
    CMD_READ_MULTIPLE_EXT = 0x29,
    CMD_WRITE = 0x30,
    CMD_WRITE_ONCE = 0x31,
    CMD_WRITE_EXT = 0x34,
    CMD_WRITE_DMA_EXT = 0x35,
    CMD_WRITE_MULTIPLE_EXT = 0x39,
    CMD_VERIFY = 0x40,
    CMD_VERIFY_ONCE = 0x41,
    CMD_VERIFY_EXT = 0x42,
    CMD_SEEK = 0x70, /* to 0x7F */
    CMD_SET_PARAMETERS = 0x91,
    CMD_IDENTIFY_PACKET = 0xa1,
    CMD_READ_MULTIPLE = 0xc4,
    CMD_WRITE_MULTIPLE = 0xc5,
    CMD_SET_MULTIPLE = 0xc6,
    CMD_READ_DMA = 0xc8,
    CMD_READ_DMA_ONCE = 0xc9,
    CMD_WRITE_DMA = 0xca,
    CMD_WRITE_DMA_ONCE = 0xcb,
    CMD_FLUSH = 0xe7,
    CMD_FLUSH_EXT = 0xea,
    CMD_IDENTIFY = 0xec,
    CMD_SET_FEATURES = 0xef,
    CMD_READ_NATIVE_MAX = 0xf8,
};

/* ATA 8.11 and the codes of ATA-1 to 3 beside them */
enum {
    CMD_STANDBY_NOW = 0xe0,
    CMD_IDLE_NOW = 0xe1,
    CMD_STANDBY = 0xe2,
    CMD_IDLE = 0xe3,
    CMD_CHECK_POWER = 0xe5,
    CMD_SLEEP = 0xe6,
    CMD_OLD_STANDBY_NOW = 0x94,
    CMD_OLD_IDLE_NOW = 0x95,
    CMD_OLD_STANDBY = 0x96,
    CMD_OLD_IDLE = 0x97,
    CMD_OLD_CHECK_POWER = 0x98,
    CMD_OLD_SLEEP = 0x99,
};
enum { POWER_STANDBY = 0x00, POWER_IDLE = 0x80, POWER_ACTIVE = 0xff };

/* ATA 8.46, subcommands */
enum {
    FEATURE_WRITE_CACHE = 0x02,
    FEATURE_TRANSFER_MODE = 0x03,
    FEATURE_NO_LOOK_AHEAD = 0x55,
    FEATURE_NO_REVERT = 0x66,
    FEATURE_NO_WRITE_CACHE = 0x82,
    FEATURE_LOOK_AHEAD = 0xaa,
    FEATURE_REVERT = 0xcc,
};

#define LBA28_MAX (UINT64_C(1) << 28)
#define LBA48_MAX (UINT64_C(1) << 48)

static uint8_t reg(const IdeDrive *d, unsigned which)
{
    return d->regs.reg[which - 1][0];
}

static uint8_t previous(const IdeDrive *d, unsigned which)
{
    return d->regs.reg[which - 1][1];
}

/* ---- addresses ---- */

/* Put @lba where the address of the running command came from (6.2). */
static void put_address(IdeDrive *d, uint64_t lba)
{
    IdeDriveRegs *r = &d->regs;
    uint8_t *device = &d->chan->regs->device;
    uint64_t v = lba;

    if (r->address == IDE_CHS && r->heads && r->sectors) {
        uint64_t cylinder = lba / ((uint64_t)r->heads * r->sectors);

        v = (lba % r->sectors + 1) | (cylinder & 0xffff) << 8 |
            (lba / r->sectors % r->heads) << 24;
    }
    r->reg[IDE_REG_LOW - 1][0] = (uint8_t)v;
    r->reg[IDE_REG_MID - 1][0] = (uint8_t)(v >> 8);
    r->reg[IDE_REG_HIGH - 1][0] = (uint8_t)(v >> 16);
    if (r->address == IDE_LBA48) {
        r->reg[IDE_REG_LOW - 1][1] = (uint8_t)(v >> 24);
        r->reg[IDE_REG_MID - 1][1] = (uint8_t)(v >> 32);
        r->reg[IDE_REG_HIGH - 1][1] = (uint8_t)(v >> 40);
    } else {
        *device = (uint8_t)((*device & ~IDE_HEAD) | (v >> 24 & IDE_HEAD));
    }
}

/**
 * ide_ata_media_error() - End the command: the host could not read or write sector @lba
 * Context: IdeBus.lock held. A read gives UNC, a write a device fault.
 */
void ide_ata_media_error(IdeDrive *d, uint64_t lba, bool write)
{
    put_address(d, lba);
    ide_fail(d, write ? IDE_ABRT : IDE_UNC);
    if (write)
        d->regs.status |= IDE_DF;
}

/* The address of the task file; UINT64_MAX: no such cylinder, head or sector. */
static uint64_t get_address(const IdeDrive *d)
{
    const IdeDriveRegs *r = &d->regs;
    uint64_t low = reg(d, IDE_REG_LOW), mid = reg(d, IDE_REG_MID), high = reg(d, IDE_REG_HIGH);
    uint32_t head = d->chan->regs->device & IDE_HEAD;

    if (r->address == IDE_LBA48)
        return low | mid << 8 | high << 16 | (uint64_t)previous(d, IDE_REG_LOW) << 24 |
               (uint64_t)previous(d, IDE_REG_MID) << 32 | (uint64_t)previous(d, IDE_REG_HIGH) << 40;
    if (r->address == IDE_LBA28)
        return low | mid << 8 | high << 16 | (uint64_t)head << 24;
    if (!low || low > r->sectors || head >= r->heads || (mid | high << 8) >= r->cylinders)
        return UINT64_MAX;
    return ((mid | high << 8) * r->heads + head) * r->sectors + low - 1;
}

static void choose_address(IdeDrive *d, bool ext)
{
    d->regs.address = ext ? IDE_LBA48 : d->chan->regs->device & IDE_LBA ? IDE_LBA28 : IDE_CHS;
}

/* Set lba and left from the task file. False: the command has failed with IDNF. */
static bool take_range(IdeDrive *d, bool ext)
{
    IdeDriveRegs *r = &d->regs;
    uint32_t n = reg(d, IDE_REG_COUNT) | (ext ? (uint32_t)previous(d, IDE_REG_COUNT) << 8 : 0);
    uint64_t lba;

    choose_address(d, ext);
    if (!n)
        n = ext ? 65536 : 256;
    lba = get_address(d);
    if (lba == UINT64_MAX) {
        ide_fail(d, IDE_IDNF);
        return false;
    }
    if (!range_within(lba, n, d->total)) {
        put_address(d, MAX(lba, d->total));
        ide_fail(d, IDE_IDNF);
        return false;
    }
    r->lba = lba;
    r->left = n;
    r->error = 0;
    r->power = POWER_ACTIVE;
    return true;
}

/* ---- commands ---- */

static void begin(IdeDrive *d, IdeStep step)
{
    d->regs.step = (uint8_t)step;
    d->regs.status = IDE_READY | IDE_BSY;
    ide_step(d);
}

static bool take_block(IdeDrive *d, bool multiple)
{
    if (multiple && !d->regs.multiple) {
        ide_fail(d, IDE_ABRT);
        return false;
    }
    d->regs.limit = multiple ? d->regs.multiple * IDE_SECTOR : IDE_SECTOR;
    return true;
}

static void read_pio(IdeDrive *d, bool ext, bool multiple)
{
    if (take_block(d, multiple) && take_range(d, ext))
        begin(d, IDE_STEP_READ);
}

static bool may_write(IdeDrive *d)
{
    if (d->read_only)
        ide_fail(d, IDE_ABRT);
    return !d->read_only;
}

static void write_pio(IdeDrive *d, bool ext, bool multiple)
{
    IdeDriveRegs *r = &d->regs;

    if (!may_write(d) || !take_block(d, multiple) || !take_range(d, ext))
        return;
    r->data = IDE_DATA_OUT;
    r->buf_pos = 0;
    r->buf_len = (uint32_t)MIN(r->left, IDE_BUF_SECTORS) * IDE_SECTOR;
    ide_open_block(d, false); /* 9.6: no interrupt before the first block */
}

static void move_dma(IdeDrive *d, bool ext, bool write)
{
    if ((!write || may_write(d)) && take_range(d, ext))
        begin(d, write ? IDE_STEP_DMA_OUT : IDE_STEP_DMA_IN);
}

static void verify(IdeDrive *d, bool ext)
{
    if (take_range(d, ext))
        begin(d, IDE_STEP_VERIFY);
}

static void seek(IdeDrive *d)
{
    uint64_t lba;

    choose_address(d, false);
    lba = get_address(d);
    if (lba >= d->total)
        ide_fail(d, IDE_IDNF);
    else
        ide_done(d);
}

static void set_parameters(IdeDrive *d)
{
    uint32_t heads = (d->chan->regs->device & IDE_HEAD) + 1u;

    if (ide_translate(d, heads, reg(d, IDE_REG_COUNT)))
        ide_done(d);
    else
        ide_fail(d, IDE_ABRT);
}

static void set_multiple(IdeDrive *d)
{
    uint8_t n = reg(d, IDE_REG_COUNT);

    if (n > IDE_MULTIPLE_MAX || (n & (n - 1))) {
        ide_fail(d, IDE_ABRT);
        return;
    }
    d->regs.multiple = n;
    ide_done(d);
}

static void read_native_max(IdeDrive *d, bool ext)
{
    choose_address(d, ext);
    ide_done(d);
    put_address(d, MIN(d->total, ext ? LBA48_MAX : LBA28_MAX) - 1);
}

/* Table of the transfer modes of SET FEATURES: flow control PIO, multiword DMA, ultra DMA. */
static bool set_mode(IdeDrive *d, uint8_t value)
{
    IdeDriveRegs *r = &d->regs;
    unsigned kind = value >> 3, mode = value & 7;

    if (kind == 0 && mode <= 1) {
        r->pio_mode = 0;
    } else if (kind == 1 && mode <= 4) {
        r->pio_mode = (uint8_t)mode;
    } else if (kind == 4 && mode <= 2) {
        r->mwdma = (uint8_t)(1u << mode);
        r->udma = 0;
    } else if (kind == 8 && mode <= 5) {
        r->udma = (uint8_t)(1u << mode);
        r->mwdma = 0;
    } else {
        return false;
    }
    return true;
}

/* SET FEATURES; false: no such feature. Spec: ATA 8.46. */
bool ide_set_features(IdeDrive *d)
{
    switch (reg(d, IDE_REG_FEATURE)) {
    case FEATURE_TRANSFER_MODE:
        return set_mode(d, reg(d, IDE_REG_COUNT));
    case FEATURE_WRITE_CACHE:
    case FEATURE_NO_WRITE_CACHE:
        d->regs.write_cache = reg(d, IDE_REG_FEATURE) == FEATURE_WRITE_CACHE;
        return !d->cd;
    case FEATURE_LOOK_AHEAD:
    case FEATURE_NO_LOOK_AHEAD:
        d->regs.look_ahead = reg(d, IDE_REG_FEATURE) == FEATURE_LOOK_AHEAD;
        return !d->cd;
    case FEATURE_REVERT:
    case FEATURE_NO_REVERT: /* settings always stand over a software reset */
        return true;
    default:
        return false;
    }
}

/* The commands of power management; false: @command is none of them. Spec: ATA 6.10, 8.11. */
bool ide_power_command(IdeDrive *d, uint8_t command)
{
    IdeDriveRegs *r = &d->regs;

    switch (command) {
    case CMD_STANDBY_NOW:
    case CMD_OLD_STANDBY_NOW:
    case CMD_STANDBY:
    case CMD_OLD_STANDBY:
        r->power = POWER_STANDBY;
        break;
    case CMD_IDLE_NOW:
    case CMD_OLD_IDLE_NOW:
    case CMD_IDLE:
    case CMD_OLD_IDLE:
        r->power = POWER_IDLE;
        break;
    case CMD_CHECK_POWER:
    case CMD_OLD_CHECK_POWER:
        r->reg[IDE_REG_COUNT - 1][0] = r->power;
        break;
    case CMD_SLEEP:
    case CMD_OLD_SLEEP:
        r->power = POWER_STANDBY;
        r->asleep = 1;
        break;
    default:
        return false;
    }
    ide_done(d);
    return true;
}

/* The disk's commands that move sectors; false: @command is none of them. */
static bool transfer_command(IdeDrive *d, uint8_t command)
{
    switch (command) {
    case CMD_READ:
    case CMD_READ_ONCE:
    case CMD_READ_EXT:
        read_pio(d, command == CMD_READ_EXT, false);
        return true;
    case CMD_READ_MULTIPLE:
    case CMD_READ_MULTIPLE_EXT:
        read_pio(d, command == CMD_READ_MULTIPLE_EXT, true);
        return true;
    case CMD_WRITE:
    case CMD_WRITE_ONCE:
    case CMD_WRITE_EXT:
        write_pio(d, command == CMD_WRITE_EXT, false);
        return true;
    case CMD_WRITE_MULTIPLE:
    case CMD_WRITE_MULTIPLE_EXT:
        write_pio(d, command == CMD_WRITE_MULTIPLE_EXT, true);
        return true;
    case CMD_READ_DMA:
    case CMD_READ_DMA_ONCE:
    case CMD_READ_DMA_EXT:
        move_dma(d, command == CMD_READ_DMA_EXT, false);
        return true;
    case CMD_WRITE_DMA:
    case CMD_WRITE_DMA_ONCE:
    case CMD_WRITE_DMA_EXT:
        move_dma(d, command == CMD_WRITE_DMA_EXT, true);
        return true;
    case CMD_VERIFY:
    case CMD_VERIFY_ONCE:
    case CMD_VERIFY_EXT:
        verify(d, command == CMD_VERIFY_EXT);
        return true;
    default:
        return false;
    }
}

static void disk_command(IdeDrive *d, uint8_t command)
{
    if (transfer_command(d, command) || ide_power_command(d, command))
        return;
    switch (command) {
    case CMD_FLUSH:
    case CMD_FLUSH_EXT:
        choose_address(d, command == CMD_FLUSH_EXT);
        begin(d, IDE_STEP_FLUSH);
        break;
    case CMD_IDENTIFY:
        ide_identify(d);
        break;
    case CMD_SET_FEATURES:
        if (ide_set_features(d))
            ide_done(d);
        else
            ide_fail(d, IDE_ABRT);
        break;
    case CMD_SET_PARAMETERS:
        set_parameters(d);
        break;
    case CMD_SET_MULTIPLE:
        set_multiple(d);
        break;
    case CMD_READ_NATIVE_MAX:
    case CMD_READ_NATIVE_MAX_EXT:
        read_native_max(d, command == CMD_READ_NATIVE_MAX_EXT);
        break;
    default:
        if ((command & 0xf0) == CMD_RECALIBRATE)
            ide_done(d);
        else if ((command & 0xf0) == CMD_SEEK)
            seek(d);
        else
            ide_fail(d, IDE_ABRT); /* NOP too (8.20), and all that is left out */
        break;
    }
}

/* The few commands that a packet device has beside PACKET (ATA 8, "packet" column). */
static void packet_device_command(IdeDrive *d, uint8_t command)
{
    switch (command) {
    case CMD_DEVICE_RESET: /* 9.11: at once, without an interrupt, whatever goes on */
        ide_soft_reset(d, true);
        ide_soft_reset(d, false);
        ide_update_irq(d->chan);
        break;
    case CMD_IDENTIFY_PACKET:
        ide_identify(d);
        break;
    case CMD_SET_FEATURES:
        if (ide_set_features(d))
            ide_done(d);
        else
            ide_fail(d, IDE_ABRT);
        break;
    case CMD_IDENTIFY: /* 8.15.4 and 8.34.4: abort, and show the signature */
    case CMD_READ:
        ide_signature(d);
        ide_fail(d, IDE_ABRT);
        break;
    default:
        ide_fail(d, IDE_ABRT);
        break;
    }
}

/**
 * ide_command() - The guest wrote @command for @d, which is awake and takes it
 * Context: vCPU thread, IdeBus.lock held.
 */
void ide_command(IdeDrive *d, uint8_t command)
{
    d->regs.command = command;
    if (!d->cd)
        disk_command(d, command);
    else if (command == IDE_CMD_PACKET)
        atapi_command(d);
    else if (!ide_power_command(d, command))
        packet_device_command(d, command);
}
