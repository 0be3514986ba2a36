/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Watchdog timer of the Intel 6300ESB.
 *
 * Specification: Intel 6300ESB I/O Controller Hub data sheet (300641), chapter "Watchdog Timer". A
 * counter of 35 bits at the PCI clock (33 MHz) with a prescaler of 2^15 or 2^5, in two stages: the
 * first sets the interrupt status, the second drives WDT_TOUT#, which this board leads to what the
 * operator wants of a guest that hangs (BOARD_WATCHDOG).
 * Registers: PCI configuration 0x60 (type of interrupt, prescaler, output), 0x68 (lock, enable,
 * free running); memory BAR 0, 16 bytes: 0x00 and 0x04 preload values, 0x08 interrupt status, 0x0C
 * reload. Preload values and reload take a write only behind 0x80 and 0x86 written to 0x0C.
 * Left out: the interrupt of the first stage, which goes to a second IOAPIC or to SMM: its status
 * bit is set. Free running: the output is taken for its first fall only; what follows would drive
 * nothing.
 *
 * Threads: vCPU threads with the device's lock held; the timer on the loop thread takes it.
 *
 * Invariants:
 * (1) regs.stage is 0 exactly where the timer does not count: it is not enabled, or has run out.
 * (2) The timer is armed for regs.deadline_ns exactly where regs.stage is not 0.
 * (3) A guest that sets short times gets one request for each time that it starts the timer.
 */
#include "pci.h"

#include <linux/pci_regs.h>

#include "lodge/iothread.h"
#include "lodge/num.h"

enum {
    ESB_VENDOR = 0x8086,
    ESB_DEVICE = 0x25ab,
    ESB_CLASS = 0x088000, /* other system peripheral */
    CFG_CONFIG = 0x60,
    CFG_CONFIG_MASK = 0x27,
    CONFIG_PRESCALE = 0x04,   /* 1: 2^5, else 2^15 */
    CONFIG_NO_OUTPUT = 0x20,
    CFG_LOCK = 0x68,
    LOCK_LOCKED = 0x01,
    LOCK_ENABLE = 0x02,
    LOCK_FREE = 0x04,
    LOCK_MASK = LOCK_LOCKED | LOCK_ENABLE | LOCK_FREE,
    BAR_LEN = 16,
    REG_PRELOAD1 = 0x00,
    REG_PRELOAD2 = 0x04,
    REG_STATUS = 0x08,
    REG_RELOAD = 0x0c,
    STATUS_ACTIVE = 0x01,
    RELOAD_RELOAD = 0x100,
    RELOAD_TIMEOUT = 0x200,   /* the output was driven; a written 1 clears it */
    UNLOCK_1 = 0x80,
    UNLOCK_2 = 0x86,
    PRELOAD_MASK = 0xfffff,
    PCI_HZ = 33000000,
};

typedef enum Unlock { LOCKED, HALF, OPEN } Unlock;

typedef struct EsbRegs {
    uint64_t deadline_ns; /* guest time of the stage's end */
    uint32_t preload[2];
    uint32_t stage;  /* 1, 2: counts; 0: not */
    uint32_t unlock; /* Unlock */
    uint32_t status; /* STATUS_ACTIVE */
    uint32_t reload; /* RELOAD_TIMEOUT */
} EsbRegs;

typedef struct Esb {
    PciDev pci;
    EsbRegs regs; /* behind pci.regs: one range for the StateDesc */
    /* Constant after realize: */
    LodgeTimer *timer; /* owned */
    LodgeClock *clock;
} Esb;

_Static_assert(offsetof(Esb, regs) == offsetof(Esb, pci.regs) + sizeof(PciRegs),
               "one range of state");

static uint8_t lock_reg(const Esb *e)
{
    return e->pci.regs.cfg[CFG_LOCK];
}

/* Keeps (2). A preload of 0 is one step of the prescaler. */
static void enter_stage_locked(Esb *e, unsigned stage)
{
    lock_assert_held(&e->pci.dev.lock);
    unsigned shift = e->pci.regs.cfg[CFG_CONFIG] & CONFIG_PRESCALE ? 5 : 15;
    uint64_t clocks = (uint64_t)MAX(e->regs.preload[stage - 1], 1) << shift;
    e->regs.stage = stage;
    e->regs.deadline_ns = (uint64_t)clock_now_ns(e->clock) + muldiv64(clocks, NS_PER_SEC, PCI_HZ);
    timer_arm(e->timer, (int64_t)e->regs.deadline_ns);
}

static void start_locked(Esb *e)
{
    enter_stage_locked(e, lock_reg(e) & LOCK_FREE ? 2 : 1);
}

static void stop_locked(Esb *e)
{
    e->regs.stage = 0;
    e->regs.deadline_ns = 0;
    timer_cancel(e->timer);
}

static void run_out_locked(Esb *e)
{
    Board *b = e->pci.dev.board;
    if (e->regs.stage == 1) {
        e->regs.status |= STATUS_ACTIVE;
        enter_stage_locked(e, 2);
        return;
    }
    stop_locked(e);
    if (e->pci.regs.cfg[CFG_CONFIG] & CONFIG_NO_OUTPUT)
        return;
    e->regs.reload |= RELOAD_TIMEOUT;
    b->request(b, BOARD_WATCHDOG, 0);
}

static void on_timer(void *opaque)
{
    Esb *e = opaque;
    lodge_lock(&e->pci.dev.lock);
    /* It may be one that was cancelled or moved meanwhile. */
    if (e->regs.stage && (uint64_t)clock_now_ns(e->clock) >= e->regs.deadline_ns)
        run_out_locked(e);
    lodge_unlock(&e->pci.dev.lock);
}

/* ---- registers ---- */

static uint64_t esb_read(void *owner, uint64_t off, unsigned size)
{
    const Esb *e = owner;
    const uint32_t words[] = {e->regs.preload[0], e->regs.preload[1], e->regs.status,
                              e->regs.reload};
    return words[off / 4] >> (off % 4 * 8);
}

/* A write that an unlocking let through. */
static void write_open(Esb *e, uint64_t off, uint32_t val)
{
    if (off == REG_PRELOAD1 || off == REG_PRELOAD2) {
        e->regs.preload[off / 4] = val & PRELOAD_MASK;
        return;
    }
    if (off != REG_RELOAD)
        return;
    e->regs.reload &= ~(val & RELOAD_TIMEOUT);
    if ((val & RELOAD_RELOAD) && (lock_reg(e) & LOCK_ENABLE))
        start_locked(e);
}

/* The reload register's second byte alone has its bits 8 to 15. */
static void esb_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Esb *e = owner;
    uint32_t v = (uint32_t)val << (off % 4 * 8);
    bool at_reload = off == REG_RELOAD;
    if (off == REG_STATUS) {
        e->regs.status &= ~(v & STATUS_ACTIVE);
    } else if (at_reload && v == UNLOCK_1) {
        e->regs.unlock = HALF;
    } else if (at_reload && v == UNLOCK_2 && e->regs.unlock == HALF) {
        e->regs.unlock = OPEN;
    } else {
        bool open = e->regs.unlock == OPEN;
        e->regs.unlock = LOCKED;
        if (open)
            write_open(e, off & ~UINT64_C(3), v);
    }
}

static const BusRegionOps esb_ops = {esb_read, esb_write, 1 | 2 | 4};

/* 0x68 takes no more writes once it is locked; what the guest may write follows it. */
static void apply_lock(Esb *e)
{
    e->pci.cfg_mask[CFG_LOCK] = lock_reg(e) & LOCK_LOCKED ? 0 : LOCK_MASK;
}

static void esb_cfg_written(PciDev *d, unsigned off, unsigned len)
{
    Esb *e = (Esb *)d;
    if (!ranges_overlap(off, len, CFG_LOCK, 1))
        return;
    if (!(lock_reg(e) & LOCK_ENABLE))
        stop_locked(e);
    else if (!e->regs.stage)
        start_locked(e);
    apply_lock(e);
}

/* ---- life ---- */

static bool esb_realize(Device *dev, GError **error)
{
    Esb *e = (Esb *)dev;
    PciDev *d = &e->pci;
    TimerQueue *timers =
        dev->board->io ? io_thread_timers(dev->board->io) : dev->board->timers;
    if (!pci_realize(d, -1, 0, ESB_VENDOR, ESB_DEVICE, ESB_CLASS, 0, 0, error))
        return false;
    d->cfg_mask[CFG_CONFIG] = CFG_CONFIG_MASK;
    d->cfg_mask[CFG_LOCK] = LOCK_MASK;
    d->cfg_written = esb_cfg_written;
    pci_add_bar(d, 0, PCI_BAR_MMIO, BAR_LEN, "i6300esb", &esb_ops, e, &dev->lock);
    e->clock = timer_queue_clock(timers);
    e->timer = timer_new(timers, on_timer, e);
    return true;
}

static void esb_unrealize(Device *dev)
{
    Esb *e = (Esb *)dev;
    if (e->timer)
        timer_free(e->timer);
    e->timer = NULL;
    pci_unrealize(&e->pci);
}

/* That it bit outlasts the reset which it caused: a driver tells it as the cause of the boot. */
static void esb_reset(Device *dev, ResetKind kind)
{
    Esb *e = (Esb *)dev;
    uint32_t keep = kind == RESET_COLD ? 0 : e->regs.reload;
    stop_locked(e);
    e->regs = (EsbRegs){.preload = {PRELOAD_MASK, PRELOAD_MASK}, .reload = keep};
    pci_reset(&e->pci);
    apply_lock(e);
}

static bool esb_post_load(void *obj, unsigned version, GError **error)
{
    Esb *e = obj;
    lodge_lock(&e->pci.dev.lock);
    e->pci.cfg_mask[CFG_LOCK] = LOCK_MASK; /* what it may be, before what it is */
    bool ok = pci_post_load(&e->pci, error);
    apply_lock(e);
    if (ok && e->regs.stage)
        timer_arm(e->timer, (int64_t)MIN(e->regs.deadline_ns, (uint64_t)INT64_MAX));
    lodge_unlock(&e->pci.dev.lock);
    return ok;
}

#define ESB_U(field, maxval)                                                                       \
    {#field, ST_UINT, 1, sizeof(PciRegs) + offsetof(EsbRegs, field), ST_FIELD_SIZE(EsbRegs, field), \
     1, (maxval), NULL, NULL}
static const StateField esb_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    ESB_U(deadline_ns, INT64_MAX),
    {"preload", ST_UINT, 1, sizeof(PciRegs) + offsetof(EsbRegs, preload), sizeof(uint32_t), 2,
     PRELOAD_MASK, NULL, NULL},
    ESB_U(stage, 2),
    ESB_U(unlock, OPEN),
    ESB_U(status, STATUS_ACTIVE),
    ESB_U(reload, RELOAD_TIMEOUT),
    ST_END,
};
static const StateDesc esb_state = {
    .name = "i6300esb", .version = 1, .oldest = 1, .regs_offset = offsetof(Esb, pci.regs),
    .regs_size = sizeof(PciRegs) + sizeof(EsbRegs), .fields = esb_fields,
    .pre_save = pci_pre_save, .post_load = esb_post_load};

const DeviceClass i6300esb_class = {
    .name = "i6300esb",
    .bus = "pci",
    .help = "watchdog of the Intel 6300ESB",
    .instance_size = sizeof(Esb),
    .state = &esb_state,
    .realize = esb_realize,
    .reset = esb_reset,
    .unrealize = esb_unrealize,
};
