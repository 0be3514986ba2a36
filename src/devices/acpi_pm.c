/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power management function of the Intel 82371AB (PIIX4), 00:01.3: ACPI's fixed hardware.
 *
 * Specification: Intel 82371AB data sheet (290562), section 7; ACPI 6.4, section 4.8. The I/O block
 * stands at port 0x600 from reset on (PMBA and PMREGMISC are read-only and read as set up). SCI_EN
 * always reads as 1: there is no SMI, no legacy mode, no APM port; DEVACTB reads with APMC_EN set,
 * so that firmware does not wait for an SMI. Soft-off is SLP_TYP 0; other sleep types are refused.
 * No SMBus, no idle and device traps, no throttling: their registers read as 0.
 * The timer has 24 bits. PM1 status bits that can be set: TMR (0), PWRBTN (8). GPE0 is the 16-bit
 * pair at offset 0x0C.
 *
 * Threads: vCPU threads with the device's lock held; the overflow timer on the IoThread; the power
 * button from any thread.
 *
 * Invariants:
 * (1) regs.overflow_ticks is the first moment past the last clearing of TMR_STS at which bit 23
 *     changes; TMR_STS is set no later than the first look at it after that moment.
 * (2) The overflow timer is armed exactly while TMR_EN is set and TMR_STS is not.
 * (3) The SCI is the OR of (status AND enable) over PM1 and GPE0.
 */
#include "acpi_pm.h"

#include "lodge/error.h"
#include "lodge/num.h"

#include "pc_map.h"
#include "pci.h"
#include "pci_internal.h"

enum {
    PM_VENDOR = 0x8086,
    PM_DEVICE = 0x7113,
    PM_CLASS = 0x068000,
    PM_REVISION = 0x03,
};

/* Configuration space, data sheet section 7.1. */
#define PM_CFG_PMBA 0x40
#define PMBA_IO 0x1u
#define PM_CFG_DEVACTB 0x58
#define DEVACTB_APMC_EN (1u << 25)
#define PM_CFG_PMREGMISC 0x80
#define PMREGMISC_PMIOSE 0x01
#define PM_STATUS_RESET_HIGH 0x02 /* DEVSEL# medium */

/* PM1, ACPI 4.8.3.1 and 4.8.3.2. */
#define PM1_TMR (1u << 0)
#define PM1_GBL (1u << 5)
#define PM1_PWRBTN (1u << 8)
#define PM1_RTC (1u << 10)
#define PM1_ENABLE_MASK (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC)
#define PM1_CNT_SCI_EN (1u << 0)
#define PM1_CNT_BM_RLD (1u << 1)
#define PM1_CNT_SLP_TYP_SHIFT 10
#define PM1_CNT_SLP_TYP (7u << PM1_CNT_SLP_TYP_SHIFT)
#define PM1_CNT_SLP_EN (1u << 13)
#define PM1_CNT_MASK (PM1_CNT_BM_RLD | PM1_CNT_SLP_TYP)

#define TMR_MASK 0xffffffu
#define TMR_HALF 0x800000u /* ticks between changes of bit 23 */

typedef struct AcpiPmRegs {
    uint64_t overflow_ticks;
    uint16_t status, enable, control;
    uint16_t gpe_status, gpe_enable;
    uint16_t reserved[3];
} AcpiPmRegs;

typedef struct AcpiPm {
    PciDev pci;
    AcpiPmRegs regs; /* behind pci.regs: one range for the StateDesc */
    BusRegion io;
    IrqLine *sci;      /* owned */
    LodgeTimer *timer; /* owned */
} AcpiPm;

_Static_assert(offsetof(AcpiPm, regs) == offsetof(AcpiPm, pci.regs) + sizeof(PciRegs),
               "one range of state");

static uint64_t pm_ticks(const AcpiPm *p)
{
    return muldiv64((uint64_t)clock_now_ns(p->pci.dev.board->clock), ACPI_PM_TIMER_HZ,
                    (uint64_t)NS_PER_SEC);
}

/* Guest time at which @ticks are full; a tick may last a fraction longer, never shorter. */
static int64_t pm_ticks_ns(uint64_t ticks)
{
    return (int64_t)muldiv64(ticks, (uint64_t)NS_PER_SEC, ACPI_PM_TIMER_HZ) + 1;
}

/* Bring TMR_STS, the timer and the SCI in line with time and registers. Keeps (1), (2), (3). */
static void pm_update_locked(AcpiPm *p)
{
    AcpiPmRegs *r = &p->regs;
    lock_assert_held(&p->pci.dev.lock);
    if (pm_ticks(p) >= r->overflow_ticks)
        r->status |= PM1_TMR;
    if ((r->enable & PM1_TMR) && !(r->status & PM1_TMR))
        timer_arm(p->timer, pm_ticks_ns(r->overflow_ticks));
    else
        timer_cancel(p->timer);
    irq_line_set(p->sci, (r->status & r->enable) || (r->gpe_status & r->gpe_enable));
}

static void pm_timer_fired(void *opaque)
{
    AcpiPm *p = opaque;
    lodge_lock(&p->pci.dev.lock);
    pm_update_locked(p);
    lodge_unlock(&p->pci.dev.lock);
}

static void pm_status_clear(AcpiPm *p, uint16_t bits)
{
    p->regs.status &= (uint16_t)~bits;
    if (bits & PM1_TMR)
        p->regs.overflow_ticks = align_down(pm_ticks(p), TMR_HALF) + TMR_HALF;
}

static void pm_control_write(AcpiPm *p, uint16_t v)
{
    Board *board = p->pci.dev.board;
    p->regs.control = v & PM1_CNT_MASK;
    if (!(v & PM1_CNT_SLP_EN))
        return;
    unsigned type = (v & PM1_CNT_SLP_TYP) >> PM1_CNT_SLP_TYP_SHIFT;
    if (type == ACPI_PM_SLP_TYP_S5)
        board->request(board, BOARD_POWER_OFF, 0);
    else
        guest_fault(&p->pci.dev, "sleep type %u is not offered", type);
}

/* The 16-bit registers; @reg is even. */
static uint16_t pm_reg_read(AcpiPm *p, unsigned reg)
{
    switch (reg) {
    case ACPI_PM1_EVENT:
        return p->regs.status;
    case ACPI_PM1_EVENT + 2:
        return p->regs.enable;
    case ACPI_PM1_CONTROL:
        return p->regs.control | PM1_CNT_SCI_EN;
    case ACPI_GPE0:
        return p->regs.gpe_status;
    case ACPI_GPE0 + 2:
        return p->regs.gpe_enable;
    default:
        return 0;
    }
}

/* @v holds the bytes that @bytes names, zeros or the old value elsewhere as the register wants. */
static void pm_reg_write(AcpiPm *p, unsigned reg, uint16_t v, uint16_t bytes)
{
    switch (reg) {
    case ACPI_PM1_EVENT: /* a written 1 clears */
        pm_status_clear(p, v & bytes);
        break;
    case ACPI_PM1_EVENT + 2:
        p->regs.enable = ((p->regs.enable & ~bytes) | (v & bytes)) & PM1_ENABLE_MASK;
        break;
    case ACPI_PM1_CONTROL:
        pm_control_write(p, (uint16_t)((p->regs.control & ~bytes) | (v & bytes)));
        break;
    case ACPI_GPE0: /* a written 1 clears */
        p->regs.gpe_status &= (uint16_t)~(v & bytes);
        break;
    case ACPI_GPE0 + 2:
        p->regs.gpe_enable = (uint16_t)((p->regs.gpe_enable & ~bytes) | (v & bytes));
        break;
    default:
        break;
    }
}

static uint64_t pm_read(void *owner, uint64_t off, unsigned size)
{
    AcpiPm *p = owner;
    if (off >= ACPI_PM_TIMER && off < ACPI_PM_TIMER + ACPI_PM_TIMER_LEN)
        return (pm_ticks(p) & TMR_MASK) >> (8 * (off - ACPI_PM_TIMER));
    pm_update_locked(p);
    uint64_t v = 0;
    for (unsigned i = 0; i < size; i++) {
        unsigned at = (unsigned)off + i;
        v |= (uint64_t)(pm_reg_read(p, at & ~1u) >> (at & 1 ? 8 : 0) & 0xff) << (8 * i);
    }
    return v;
}

static void pm_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    AcpiPm *p = owner;
    unsigned at = (unsigned)off, end = at + size;
    pm_update_locked(p);
    while (at < end) {
        unsigned reg = at & ~1u, n = MIN(end, reg + 2) - at, shift = 8 * (at - reg);
        uint16_t bytes = (uint16_t)((n == 2 ? 0xffffu : 0xffu) << shift);
        pm_reg_write(p, reg, (uint16_t)(val << shift), bytes);
        val >>= 8 * n;
        at += n;
    }
    pm_update_locked(p);
}

static const BusRegionOps pm_ops = {pm_read, pm_write, 1 | 2 | 4};

void acpi_pm_power_button(Device *dev)
{
    AcpiPm *p = (AcpiPm *)dev;
    lodge_lock(&dev->lock);
    p->regs.status |= PM1_PWRBTN;
    pm_update_locked(p);
    lodge_unlock(&dev->lock);
}

void acpi_pm_gpe_raise(Device *dev, unsigned gpe)
{
    AcpiPm *p = (AcpiPm *)dev;
    if (gpe >= ACPI_PM_GPES)
        return;
    lodge_lock(&dev->lock);
    p->regs.gpe_status |= (uint16_t)(1u << gpe);
    pm_update_locked(p);
    lodge_unlock(&dev->lock);
}

static void pm_unrealize(Device *dev)
{
    AcpiPm *p = (AcpiPm *)dev;
    if (p->io.mapped)
        bus_unmap(dev->board->pio, &p->io);
    g_clear_pointer(&p->timer, timer_free);
    g_clear_pointer(&p->sci, irq_line_free);
    pci_unrealize(&p->pci);
}

static bool pm_realize(Device *dev, GError **error)
{
    AcpiPm *p = (AcpiPm *)dev;
    PciDev *d = &p->pci;
    if (!pci_realize(d, PC_SLOT_PIIX, PC_FN_PM, PM_VENDOR, PM_DEVICE, PM_CLASS, PM_REVISION, 0,
                     error))
        return false;
    d->cfg_reset[PCI_STATUS + 1] = PM_STATUS_RESET_HIGH;
    d->cfg_reset[PCI_INTERRUPT_LINE] = PC_IRQ_SCI;
    store_le32(d->cfg_reset + PM_CFG_PMBA, PC_PORT_ACPI_PM | PMBA_IO);
    store_le32(d->cfg_reset + PM_CFG_DEVACTB, DEVACTB_APMC_EN);
    d->cfg_reset[PM_CFG_PMREGMISC] = PMREGMISC_PMIOSE;
    p->sci = irq_line_new(dev->board->irq, PC_IRQ_SCI, dev->id);
    p->timer = timer_new(dev->board->timers, pm_timer_fired, p);
    p->io = (BusRegion){.name = "piix4-pm", .len = ACPI_PM_PORTS, .ops = &pm_ops, .owner = p,
                        .lock = &dev->lock};
    if (!bus_map(dev->board->pio, &p->io, PC_PORT_ACPI_PM, error)) {
        pm_unrealize(dev);
        return false;
    }
    return true;
}

static void pm_reset(Device *dev, ResetKind kind)
{
    AcpiPm *p = (AcpiPm *)dev;
    pci_reset(&p->pci);
    p->regs = (AcpiPmRegs){0};
    pm_status_clear(p, PM1_TMR);
    pm_update_locked(p);
}

static bool pm_post_load(void *obj, unsigned version, GError **error)
{
    AcpiPm *p = obj;
    /* Past this the conversion to ns would overflow: centuries of guest time. */
    if (p->regs.overflow_ticks > INT64_MAX / NS_PER_SEC * ACPI_PM_TIMER_HZ / 2)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: the timer overflows too far ahead",
                          p->pci.dev.id);
    lodge_lock(&p->pci.dev.lock);
    bool ok = pci_post_load(&p->pci, error);
    if (ok)
        pm_update_locked(p);
    lodge_unlock(&p->pci.dev.lock);
    return ok;
}

#define PM_U(field, maxval)                                                                        \
    {#field, ST_UINT, 1, sizeof(PciRegs) + offsetof(AcpiPmRegs, field),                            \
     ST_FIELD_SIZE(AcpiPmRegs, field), 1, (maxval), NULL, NULL}
static const StateField pm_fields[] = {
    {"pci", ST_SUB, 1, 0, sizeof(PciRegs), 1, 0, &pci_state, NULL},
    PM_U(overflow_ticks, INT64_MAX),
    PM_U(status, PM1_ENABLE_MASK),
    PM_U(enable, PM1_ENABLE_MASK),
    PM_U(control, PM1_CNT_MASK),
    PM_U(gpe_status, UINT16_MAX),
    PM_U(gpe_enable, UINT16_MAX),
    {"reserved", ST_SKIP, 1, sizeof(PciRegs) + offsetof(AcpiPmRegs, reserved),
     ST_FIELD_SIZE(AcpiPmRegs, reserved), 1, 0, NULL, "always 0, fills up the last word"},
    ST_END,
};
static const StateDesc pm_state = {
    .name = "piix4-pm", .version = 1, .oldest = 1, .regs_offset = offsetof(AcpiPm, pci.regs),
    .regs_size = sizeof(PciRegs) + sizeof(AcpiPmRegs), .fields = pm_fields,
    .pre_save = pci_pre_save, .post_load = pm_post_load};

const DeviceClass acpi_pm_class = {
    .name = "piix4-pm",
    .help = "Intel PIIX4 power management: ACPI timer, power button, soft-off",
    .instance_size = sizeof(AcpiPm),
    .state = &pm_state,
    .realize = pm_realize,
    .reset = pm_reset,
    .unrealize = pm_unrealize,
};
