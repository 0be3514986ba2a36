/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Floppy disk controller at ports 0x3F0..0x3F5 and 0x3F7, IRQ 6, DMA channel 2.
 *
 * Spec: Intel 82077AA CHMOS Single-Chip Floppy Disk Controller, 290166 ("82077").
 *
 * Modelled: the part in AT mode with two drives of FDC_UNITS selects; every command of its set (the
 * PARTID and the power-down of later parts are invalid here, as the scan commands are, so drivers
 * take it for what it is); DMA and non-DMA transfers; resets by DOR and DSR; the disk change line.
 * Left out: status registers A and B (AT mode does not drive them: ones), FM and sector sizes other
 * than 512 bytes (read as a disk without marks or data; to format them is an equipment check), tape
 * drives, precompensation, gaps, step rates and FIFO threshold (kept and shown, without effect),
 * deleted data marks (written as data). A drive that is empty or whose motor stands is a disk
 * without address marks; the real part would wait for its index hole for ever.
 *
 * Time: a seek, the way to the first sector and a reset take a little guest time, so that no
 * interrupt comes before the access that asked for it is over.
 *
 * Threads: vCPU threads, the timer queue's, and the loops of the drives' nodes; under the device's
 * lock. The drives have no registers of their own: theirs are here.
 *
 * Invariants:
 * (1) cmd_pos < FDC_COMMAND_MAX while a byte can come, result_pos < result_len <= FDC_RESULT_MAX in
 *     the result phase, data_pos < data_len <= FDC_SECTOR in the data phase.
 * (2) the one block request is not touched while in_flight; a reset makes it stale, and the next
 *     transfer waits for it in FDC_PHASE_NEXT.
 */
#include <string.h>

#include "fdc_internal.h"
#include "lodge/error.h"

#define FDC_PORT 0x3f0
#define FDC_PORTS 6
#define FDC_DIR_PORT 0x3f7
#define FDC_IRQ 6
#define RESET_NS 50000
#define SEEK_NS 50000
#define STEP_NS 10000
#define RECALIBRATE_STEPS 79 /* 82077, 5.2.6 */

/* Offsets of the registers: 82077, 2.1 */
enum { REG_DOR = 2, REG_TDR = 3, REG_MSR = 4, REG_FIFO = 5 };
#define MSR_BUSY(unit) (1u << (unit))
#define MSR_COMMAND_BUSY 0x10
#define MSR_NON_DMA 0x20
#define MSR_TO_HOST 0x40
#define MSR_READY 0x80
#define DSR_RESET 0x80
#define RATE_MASK 0x03
#define RATE_250K 2
#define DIR_CHANGED 0x80
#define TDR_MASK 0x03
#define PERPENDICULAR_OVERWRITE 0x80
#define PERPENDICULAR_DRIVES 0x3c
#define PERPENDICULAR_MODE 0x03
#define CONFIG_DEFAULT 0x20 /* EFIFO: the FIFO is off */
#define CONFIG_LOCKED 0x2f  /* EFIFO and threshold: what LOCK keeps */
#define CONFIG_MASK 0x7f
#define LOCK_SET 0x80
#define VERSION_ENHANCED 0x90
#define RELATIVE_INWARDS 0x40

typedef struct FdcCommandRow {
    uint8_t opcode, mask, length;
} FdcCommandRow;

static const FdcCommandRow fdc_commands[FDC_INVALID] = {
    [FDC_READ] = {0x06, 0x1f, 9},
    [FDC_READ_DELETED] = {0x0c, 0x1f, 9},
    [FDC_WRITE] = {0x05, 0x3f, 9},
    [FDC_WRITE_DELETED] = {0x09, 0x3f, 9},
    [FDC_READ_TRACK] = {0x02, 0x9f, 9},
    [FDC_VERIFY] = {0x16, 0x1f, 9},
    [FDC_FORMAT] = {0x0d, 0xbf, 6},
    [FDC_READ_ID] = {0x0a, 0xbf, 2},
    [FDC_RECALIBRATE] = {0x07, 0xff, 2},
    [FDC_SENSE_INTERRUPT] = {0x08, 0xff, 1},
    [FDC_SPECIFY] = {0x03, 0xff, 3},
    [FDC_SENSE_DRIVE] = {0x04, 0xff, 2},
    [FDC_SEEK] = {0x0f, 0xff, 3},
    [FDC_RELATIVE_SEEK] = {0x8f, 0xbf, 3},
    [FDC_VERSION] = {0x10, 0xff, 1},
    [FDC_CONFIGURE] = {0x13, 0xff, 4},
    [FDC_DUMPREG] = {0x0e, 0xff, 1},
    [FDC_PERPENDICULAR] = {0x12, 0xff, 2},
    [FDC_LOCK] = {0x14, 0x7f, 1},
};

FdcCommand fdc_decode(uint8_t opcode)
{
    for (unsigned k = 0; k < FDC_INVALID; k++) {
        if ((opcode & fdc_commands[k].mask) == fdc_commands[k].opcode)
            return (FdcCommand)k;
    }
    return FDC_INVALID;
}

unsigned fdc_command_length(FdcCommand k)
{
    return k == FDC_INVALID ? 1 : fdc_commands[k].length;
}

/* ---- interrupts and time ---- */

void fdc_update_irq(Fdc *f)
{
    const FdcRegs *r = &f->regs;

    irq_line_set(f->irq, (r->dor & DOR_GATE) &&
                             (r->irq_result || r->irq_sense || r->phase == FDC_PHASE_DATA));
}

void fdc_rearm(Fdc *f)
{
    int64_t first = MIN(f->regs.start_ns, f->regs.reset_ns);

    for (unsigned unit = 0; unit < FDC_UNITS; unit++)
        first = MIN(first, f->regs.seek_ns[unit]);
    if (first == TIMER_NEVER)
        timer_cancel(f->timer);
    else
        timer_arm(f->timer, first);
}

void fdc_set_result(Fdc *f, unsigned len)
{
    f->regs.phase = FDC_PHASE_RESULT;
    f->regs.result_pos = 0;
    f->regs.result_len = (uint8_t)len;
}

static void back_to_command(Fdc *f)
{
    f->regs.phase = FDC_PHASE_COMMAND;
    f->regs.cmd_pos = 0;
    f->regs.result_pos = f->regs.result_len = 0;
}

/* A step with a disk in the drive takes its change line back. */
void fdc_step(Fdc *f, unsigned unit, uint8_t track)
{
    track = MIN(track, FDC_TRACK_MAX);
    if (track != f->regs.track[unit] && f->drive[unit].node)
        f->regs.changed[unit] = false;
    f->regs.track[unit] = track;
}

/* The head has arrived; what SENSE INTERRUPT will say was known when it set off. */
static void seek_ended(Fdc *f, unsigned unit)
{
    f->regs.seek_ns[unit] = TIMER_NEVER;
    f->regs.pcn[unit] = f->regs.target[unit];
    f->regs.seek_end |= 1u << unit;
    f->regs.irq_sense = true;
}

static void fdc_timer(void *opaque)
{
    Fdc *f = opaque;
    FdcRegs *r = &f->regs;

    lodge_lock(&f->dev.lock);
    int64_t now = clock_now_ns(f->dev.board->clock);
    if (r->reset_ns <= now) {
        r->reset_ns = TIMER_NEVER;
        r->polled = (1u << FDC_UNITS) - 1;
        r->irq_sense = true;
    }
    for (unsigned unit = 0; unit < FDC_UNITS; unit++) {
        if (r->seek_ns[unit] <= now)
            seek_ended(f, unit);
    }
    if (r->start_ns <= now) {
        r->start_ns = TIMER_NEVER;
        if (r->phase == FDC_PHASE_START)
            r->phase = FDC_PHASE_NEXT;
        fdc_xfer_next(f);
    }
    fdc_update_irq(f);
    fdc_rearm(f);
    lodge_unlock(&f->dev.lock);
}

/* ---- resets ---- */

/* 82077, 4.0 "Controller phases", "Reset": what a software reset changes. */
static void soft_reset(Fdc *f)
{
    FdcRegs *r = &f->regs;

    fdc_xfer_abort(f);
    back_to_command(f);
    for (unsigned unit = 0; unit < FDC_UNITS; unit++)
        r->seek_ns[unit] = TIMER_NEVER;
    r->start_ns = r->reset_ns = TIMER_NEVER;
    r->seek_end = r->polled = 0;
    r->irq_result = r->irq_sense = false;
    r->perpendicular &= r->lock ? PERPENDICULAR_DRIVES : 0;
    r->config = r->lock ? r->config & CONFIG_LOCKED : CONFIG_DEFAULT;
    if (!r->lock)
        r->pretrk = 0;
}

/* Out of reset it polls the drives, which takes a while, and interrupts. */
static void start_polling(Fdc *f)
{
    f->regs.reset_ns = clock_now_ns(f->dev.board->clock) + RESET_NS;
}

static void write_dor(Fdc *f, uint8_t val)
{
    uint8_t old = f->regs.dor;

    f->regs.dor = val;
    if (!(val & DOR_NOT_RESET))
        soft_reset(f);
    else if (!(old & DOR_NOT_RESET))
        start_polling(f);
}

static void write_dsr(Fdc *f, uint8_t val)
{
    f->regs.rate = val & RATE_MASK;
    if ((val & DSR_RESET) && (f->regs.dor & DOR_NOT_RESET)) {
        soft_reset(f);
        start_polling(f);
    }
}

/* ---- commands without a transfer ---- */

static void start_seek(Fdc *f, unsigned unit, uint8_t target, uint8_t track, uint8_t st0)
{
    FdcRegs *r = &f->regs;
    unsigned steps = ABS((int)track - (int)r->track[unit]);

    fdc_step(f, unit, track);
    r->target[unit] = target;
    r->sense_st0[unit] = st0 | (uint8_t)unit;
    r->seek_end &= ~(1u << unit);
    r->seek_ns[unit] = clock_now_ns(f->dev.board->clock) + SEEK_NS + steps * STEP_NS;
    back_to_command(f);
}

/* 82077, 5.2.5: a drive that does not come to track 0, or is not there, is an equipment check. */
static void recalibrate(Fdc *f, unsigned unit)
{
    uint8_t track = f->regs.track[unit];
    uint8_t end = track - MIN(track, RECALIBRATE_STEPS);
    bool arrives = f->drive[unit].dev && !end;

    start_seek(f, unit, 0, end, ST0_SEEK_END | (arrives ? 0 : ST0_EQUIPMENT | ST0_ABNORMAL));
}

/* Steps go relative to where the controller believes the head to be: 82077, 5.2.6. */
static void seek(Fdc *f, unsigned unit, int delta)
{
    int track = CLAMP((int)f->regs.track[unit] + delta, 0, FDC_TRACK_MAX);

    start_seek(f, unit, (uint8_t)(f->regs.pcn[unit] + delta), (uint8_t)track, ST0_SEEK_END);
}

static void sense_interrupt(Fdc *f)
{
    FdcRegs *r = &f->regs;
    uint8_t waiting = r->polled | r->seek_end;

    r->irq_sense = false;
    if (!waiting) { /* 82077, 5.2.7: invalid then */
        r->result[0] = ST0_INVALID;
        fdc_set_result(f, 1);
        return;
    }
    unsigned unit = (unsigned)__builtin_ctz(waiting);
    uint8_t bit = (uint8_t)(1u << unit);
    r->result[0] = r->polled & bit ? ST0_POLLED | unit : r->sense_st0[unit];
    r->result[1] = r->pcn[unit];
    fdc_set_result(f, 2);
    if (r->polled & bit) {
        r->polled &= ~bit;
    } else {
        r->seek_end &= ~bit;
        fdc_update_irq(f); /* the line goes down before the next seek's end raises it */
        r->irq_sense = r->seek_end != 0;
    }
}

static void sense_drive(Fdc *f)
{
    FdcRegs *r = &f->regs;
    unsigned unit = r->cmd[1] & CMD_UNIT;
    const FdcDrive *d = &f->drive[unit];

    r->result[0] = ST3_ALWAYS | (r->cmd[1] & (CMD_HEAD | CMD_UNIT));
    if (d->dev && !r->track[unit])
        r->result[0] |= ST3_TRACK0;
    if (d->node && d->read_only)
        r->result[0] |= ST3_PROTECTED;
    fdc_set_result(f, 1);
}

static void dump_registers(Fdc *f)
{
    FdcRegs *r = &f->regs;

    memcpy(r->result, r->pcn, FDC_UNITS);
    memcpy(r->result + 4, r->specify, 2);
    r->result[6] = r->eot;
    r->result[7] = (uint8_t)(r->lock ? 0x80 : 0) | r->perpendicular;
    r->result[8] = r->config;
    r->result[9] = r->pretrk;
    fdc_set_result(f, 10);
}

static void perpendicular(FdcRegs *r, uint8_t val)
{
    uint8_t drives = val & PERPENDICULAR_OVERWRITE ? val : r->perpendicular;

    r->perpendicular = (drives & PERPENDICULAR_DRIVES) | (val & PERPENDICULAR_MODE);
}

/* What neither seeks nor transfers. */
static void run_simple(Fdc *f, FdcCommand k)
{
    FdcRegs *r = &f->regs;

    back_to_command(f);
    switch (k) {
    case FDC_SENSE_INTERRUPT:
        sense_interrupt(f);
        break;
    case FDC_SPECIFY:
        memcpy(r->specify, r->cmd + 1, 2);
        break;
    case FDC_SENSE_DRIVE:
        sense_drive(f);
        break;
    case FDC_VERSION:
        r->result[0] = VERSION_ENHANCED;
        fdc_set_result(f, 1);
        break;
    case FDC_CONFIGURE:
        r->config = r->cmd[2] & CONFIG_MASK;
        r->pretrk = r->cmd[3];
        break;
    case FDC_DUMPREG:
        dump_registers(f);
        break;
    case FDC_PERPENDICULAR:
        perpendicular(r, r->cmd[1]);
        break;
    case FDC_LOCK:
        r->lock = r->cmd[0] & LOCK_SET;
        r->result[0] = r->lock ? 0x10 : 0;
        fdc_set_result(f, 1);
        break;
    default:
        guest_fault(&f->dev, "invalid command 0x%02x", r->cmd[0]);
        r->result[0] = ST0_INVALID;
        fdc_set_result(f, 1);
        break;
    }
}

static void run_command(Fdc *f)
{
    FdcRegs *r = &f->regs;
    FdcCommand k = fdc_decode(r->cmd[0]);
    unsigned unit = r->cmd[1] & CMD_UNIT;

    if (k <= FDC_READ_ID || k == FDC_RECALIBRATE || k == FDC_SEEK || k == FDC_RELATIVE_SEEK) {
        r->polled = 0; /* nobody asks about the reset any more */
        r->irq_sense = r->seek_end != 0;
    }
    if (k <= FDC_READ_ID)
        fdc_xfer_start(f);
    else if (k == FDC_RECALIBRATE)
        recalibrate(f, unit);
    else if (k == FDC_SEEK)
        seek(f, unit, (int)r->cmd[2] - (int)r->pcn[unit]);
    else if (k == FDC_RELATIVE_SEEK)
        seek(f, unit, r->cmd[0] & RELATIVE_INWARDS ? r->cmd[2] : -(int)r->cmd[2]);
    else
        run_simple(f, k);
}

/* ---- ports ---- */

static bool data_to_host(const FdcRegs *r)
{
    FdcCommand k = fdc_decode(r->cmd[0]);

    return k == FDC_READ || k == FDC_READ_DELETED || k == FDC_READ_TRACK;
}

/* 82077, 2.1.5 "Main status register" */
static uint8_t main_status(const Fdc *f)
{
    const FdcRegs *r = &f->regs;
    uint8_t v = 0, non_dma = r->specify[1] & SPECIFY_NON_DMA ? MSR_NON_DMA : 0;

    if (!(r->dor & DOR_NOT_RESET))
        return 0;
    for (unsigned unit = 0; unit < FDC_UNITS; unit++)
        v |= r->seek_ns[unit] != TIMER_NEVER ? MSR_BUSY(unit) : 0;
    switch ((FdcPhase)r->phase) {
    case FDC_PHASE_COMMAND:
        return v | MSR_READY | (r->cmd_pos ? MSR_COMMAND_BUSY : 0);
    case FDC_PHASE_RESULT:
        return v | MSR_READY | MSR_TO_HOST | MSR_COMMAND_BUSY;
    case FDC_PHASE_DATA:
        return v | MSR_READY | MSR_NON_DMA | MSR_COMMAND_BUSY | (data_to_host(r) ? MSR_TO_HOST : 0);
    default:
        return v | MSR_COMMAND_BUSY | non_dma;
    }
}

static uint8_t fifo_read(Fdc *f)
{
    FdcRegs *r = &f->regs;
    uint8_t val = 0;

    if (r->phase == FDC_PHASE_RESULT) {
        val = r->result[r->result_pos++];
        r->irq_result = false;
        if (r->result_pos == r->result_len)
            back_to_command(f);
    } else if (r->phase == FDC_PHASE_DATA && data_to_host(r)) {
        val = r->data[r->data_pos++];
        if (r->data_pos == r->data_len)
            fdc_xfer_data(f);
    }
    return val; /* in other phases there is nothing */
}

/* Keeps (1): each byte finds its place before the next can come. */
static void fifo_write(Fdc *f, uint8_t val)
{
    FdcRegs *r = &f->regs;

    if (!(r->dor & DOR_NOT_RESET))
        return;
    if (r->phase == FDC_PHASE_COMMAND) {
        r->cmd[r->cmd_pos++] = val;
        if (r->cmd_pos == fdc_command_length(fdc_decode(r->cmd[0])))
            run_command(f);
    } else if (r->phase == FDC_PHASE_DATA && !data_to_host(r)) {
        r->data[r->data_pos++] = val;
        if (r->data_pos == r->data_len)
            fdc_xfer_data(f);
    }
}

static uint64_t fdc_read(void *owner, uint64_t off, unsigned size)
{
    Fdc *f = owner;
    uint8_t val = 0xff;

    switch (off) {
    case REG_DOR:
        val = f->regs.dor;
        break;
    case REG_TDR:
        val = f->regs.tdr;
        break;
    case REG_MSR:
        val = main_status(f);
        break;
    case REG_FIFO:
        val = fifo_read(f);
        break;
    }
    fdc_update_irq(f);
    fdc_rearm(f);
    return val;
}

static void fdc_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Fdc *f = owner;

    switch (off) {
    case REG_DOR:
        write_dor(f, (uint8_t)val);
        break;
    case REG_TDR:
        f->regs.tdr = val & TDR_MASK;
        break;
    case REG_MSR:
        write_dsr(f, (uint8_t)val);
        break;
    case REG_FIFO:
        fifo_write(f, (uint8_t)val);
        break;
    }
    fdc_update_irq(f);
    fdc_rearm(f);
}

/* 82077, 2.1.7: the line of the selected drive, if its motor bit selects it. */
static uint64_t fdc_dir_read(void *owner, uint64_t off, unsigned size)
{
    Fdc *f = owner;
    unsigned unit = f->regs.dor & DOR_SELECT;
    const FdcDrive *d = &f->drive[unit];

    if (!d->dev || !(f->regs.dor & DOR_MOTOR(unit)))
        return 0;
    return !d->node || f->regs.changed[unit] ? DIR_CHANGED : 0;
}

static void fdc_ccr_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    ((Fdc *)owner)->regs.rate = val & RATE_MASK;
}

static const BusRegionOps fdc_ops = {.read = fdc_read, .write = fdc_write, .sizes = 1};
static const BusRegionOps fdc_dir_ops = {.read = fdc_dir_read, .write = fdc_ccr_write, .sizes = 1};

/* ---- drives ---- */

bool fdc_attach(Fdc *f, unsigned unit, const FdcDrive *drive, GError **error)
{
    lodge_lock(&f->dev.lock);
    bool free = !f->drive[unit].dev;
    if (free)
        f->drive[unit] = *drive;
    lodge_unlock(&f->dev.lock);
    return free || lodge_fail(error, LODGE_ERROR_CONFIG, "%s: unit %u has a drive already",
                              drive->dev->id, unit);
}

void fdc_detach(Fdc *f, unsigned unit)
{
    lodge_lock(&f->dev.lock);
    f->drive[unit] = (FdcDrive){0};
    lodge_unlock(&f->dev.lock);
}

void fdc_insert(Fdc *f, unsigned unit, const FdcDrive *drive)
{
    lodge_lock(&f->dev.lock);
    f->drive[unit] = *drive;
    f->regs.changed[unit] = true;
    f->regs.gone |= (f->regs.cmd[1] & CMD_UNIT) == unit;
    lodge_unlock(&f->dev.lock);
}

void fdc_tell_quiet(Fdc *f)
{
    Device *who[FDC_UNITS + 1];
    unsigned n = 0;

    lodge_lock(&f->dev.lock);
    for (unsigned unit = 0; !f->in_flight && unit < FDC_UNITS; unit++) {
        if (f->notify & 1u << unit)
            who[n++] = f->drive[unit].dev;
    }
    if (!f->in_flight && (f->notify & FDC_QUIET_SELF))
        who[n++] = &f->dev;
    if (!f->in_flight)
        f->notify = 0;
    lodge_unlock(&f->dev.lock);
    for (unsigned i = 0; i < n; i++)
        device_quiesced(who[i]);
}

void fdc_quiesce(Fdc *f, uint8_t who)
{
    lodge_lock(&f->dev.lock);
    f->quieting |= who;
    f->notify |= who;
    lodge_unlock(&f->dev.lock);
    fdc_tell_quiet(f);
}

void fdc_resume(Fdc *f, uint8_t who)
{
    lodge_lock(&f->dev.lock);
    f->quieting &= ~who;
    f->notify &= ~who;
    fdc_xfer_next(f);
    fdc_update_irq(f);
    fdc_rearm(f);
    lodge_unlock(&f->dev.lock);
}

uint8_t fdc_cmos_drives(Fdc *f)
{
    lodge_lock(&f->dev.lock);
    uint8_t v = (uint8_t)(f->drive[0].type << 4 | f->drive[1].type);
    lodge_unlock(&f->dev.lock);
    return v;
}

/* ---- device ---- */

static void fdc_device_quiesce(Device *d)
{
    fdc_quiesce((Fdc *)d, FDC_QUIET_SELF);
}

static void fdc_device_resume(Device *d)
{
    fdc_resume((Fdc *)d, FDC_QUIET_SELF);
}

/* The drives' heads and change lines are not the controller's to reset, save at power on. */
static void fdc_reset(Device *d, ResetKind kind)
{
    Fdc *f = (Fdc *)d;
    FdcRegs old = f->regs;

    f->regs.lock = false;
    soft_reset(f);
    f->regs = (FdcRegs){.rate = RATE_250K, .config = CONFIG_DEFAULT,
                        .start_ns = TIMER_NEVER, .reset_ns = TIMER_NEVER};
    for (unsigned unit = 0; unit < FDC_UNITS; unit++) {
        f->regs.seek_ns[unit] = TIMER_NEVER;
        f->regs.track[unit] = kind == RESET_COLD ? 0 : old.track[unit];
        f->regs.changed[unit] = kind == RESET_COLD || old.changed[unit];
    }
    fdc_update_irq(f);
    fdc_rearm(f);
}

static void fdc_unrealize(Device *d)
{
    Fdc *f = (Fdc *)d;

    bus_unmap(d->board->pio, &f->ports);
    bus_unmap(d->board->pio, &f->dir);
    if (d->board->fdc == f)
        d->board->fdc = NULL;
    g_clear_pointer(&f->timer, timer_free);
    g_clear_pointer(&f->irq, irq_line_free);
}

static bool fdc_realize(Device *d, GError **error)
{
    Fdc *f = (Fdc *)d;

    f->ports = (BusRegion){.name = "fdc", .len = FDC_PORTS, .ops = &fdc_ops, .owner = f,
                           .lock = &d->lock};
    f->dir = (BusRegion){.name = "fdc-dir", .len = 1, .ops = &fdc_dir_ops, .owner = f,
                         .lock = &d->lock};
    f->irq = irq_line_new(d->board->irq, FDC_IRQ, d->id);
    f->timer = timer_new(d->board->timers, fdc_timer, f);
    if (!bus_map(d->board->pio, &f->ports, FDC_PORT, error) ||
        !bus_map(d->board->pio, &f->dir, FDC_DIR_PORT, error)) {
        fdc_unrealize(d);
        return false;
    }
    d->board->fdc = f;
    return true;
}

/* Keeps (1) for what comes from a snapshot. */
static bool phase_is_sound(const FdcRegs *r)
{
    bool transfers = fdc_decode(r->cmd[0]) <= FDC_READ_ID;

    switch ((FdcPhase)r->phase) {
    case FDC_PHASE_COMMAND:
        return !r->cmd_pos || r->cmd_pos < fdc_command_length(fdc_decode(r->cmd[0]));
    case FDC_PHASE_START:
    case FDC_PHASE_NEXT:
        return transfers;
    case FDC_PHASE_DATA:
        return transfers && r->data_pos < r->data_len;
    case FDC_PHASE_RESULT:
        return r->result_pos < r->result_len;
    default: /* nothing is in flight when a state is saved */
        return false;
    }
}

static bool fdc_post_load(void *obj, unsigned version, GError **error)
{
    Fdc *f = obj;

    if (!phase_is_sound(&f->regs))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: phase %u does not fit its counters",
                          f->dev.id, f->regs.phase);
    lodge_lock(&f->dev.lock);
    fdc_update_irq(f);
    fdc_rearm(f);
    lodge_unlock(&f->dev.lock);
    return true;
}

static const StateField fdc_fields[] = {
    ST_U(FdcRegs, start_ns, INT64_MAX),
    ST_U(FdcRegs, reset_ns, INT64_MAX),
    ST_U_ARRAY(FdcRegs, seek_ns, INT64_MAX),
    ST_U(FdcRegs, data_pos, FDC_SECTOR),
    ST_U(FdcRegs, data_len, FDC_SECTOR),
    ST_U(FdcRegs, phase, FDC_PHASES - 1),
    ST_U(FdcRegs, dor, UINT8_MAX),
    ST_U(FdcRegs, tdr, TDR_MASK),
    ST_U(FdcRegs, rate, RATE_MASK),
    ST_RAW(FdcRegs, cmd),
    ST_U(FdcRegs, cmd_pos, FDC_COMMAND_MAX),
    ST_RAW(FdcRegs, result),
    ST_U(FdcRegs, result_pos, FDC_RESULT_MAX),
    ST_U(FdcRegs, result_len, FDC_RESULT_MAX),
    ST_RAW(FdcRegs, specify),
    ST_U(FdcRegs, config, CONFIG_MASK),
    ST_U(FdcRegs, pretrk, UINT8_MAX),
    ST_U(FdcRegs, perpendicular, PERPENDICULAR_DRIVES | PERPENDICULAR_MODE),
    ST_B(FdcRegs, lock),
    ST_RAW(FdcRegs, pcn),
    ST_RAW(FdcRegs, target),
    ST_U_ARRAY(FdcRegs, track, FDC_TRACK_MAX),
    {"changed", ST_BOOL, 1, offsetof(FdcRegs, changed), 1, FDC_UNITS, 1, NULL, NULL},
    ST_U(FdcRegs, seek_end, 15),
    ST_U(FdcRegs, polled, 15),
    ST_RAW(FdcRegs, sense_st0),
    ST_B(FdcRegs, irq_result),
    ST_B(FdcRegs, irq_sense),
    ST_U(FdcRegs, eot, UINT8_MAX),
    ST_U(FdcRegs, c, UINT8_MAX),
    ST_U(FdcRegs, h, UINT8_MAX),
    ST_U(FdcRegs, r, UINT8_MAX),
    ST_U(FdcRegs, n, UINT8_MAX),
    ST_U(FdcRegs, head, 1),
    ST_U(FdcRegs, count, UINT8_MAX),
    ST_B(FdcRegs, tc),
    ST_B(FdcRegs, no_data),
    ST_B(FdcRegs, gone),
    ST_B(FdcRegs, wrote),
    ST_B(FdcRegs, ending),
    ST_RAW(FdcRegs, data),
    ST_END,
};
static const StateDesc fdc_state = {
    .name = "fdc-82077", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Fdc, regs), .regs_size = sizeof(FdcRegs),
    .fields = fdc_fields, .post_load = fdc_post_load,
};

const DeviceClass fdc_82077_class = {
    .name = "fdc-82077",
    .help = "Intel 82077AA: floppy disk controller",
    .instance_size = sizeof(Fdc),
    .state = &fdc_state,
    .realize = fdc_realize,
    .reset = fdc_reset,
    .quiesce = fdc_device_quiesce,
    .resume = fdc_device_resume,
    .unrealize = fdc_unrealize,
};
