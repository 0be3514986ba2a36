/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serial port with FIFOs.
 *
 * Spec: National Semiconductor PC16550D data sheet, June 1995 ("16550D").
 *
 * Modelled: both FIFOs with trigger levels and character timeout, interrupt priorities, THRE
 * semantics, line and modem status with deltas, loopback, break, overrun, scratch. As on a PC,
 * OUT2 gates the interrupt pin (in loopback too, so that a self-test sees its interrupts).
 * Left out: line rate (a byte written is sent at once, so the transmit FIFO is always empty),
 * DMA signals, parity and framing errors (the host's end has none). CTS, DSR and DCD are always
 * asserted: guests that watch the carrier must not hang up because a terminal is not attached.
 *
 * Output alone may go to a channel that another device has, for a kernel's messages before it knows
 * that one.
 *
 * Input is taken from the channel as the receive FIFO has room, so the host overruns nothing; a
 * guest can overrun itself in loopback. The character timeout is four characters at the
 * programmed rate after the last arrival or read.
 *
 * Threads: vCPU threads, the channel's IoThread, the timer queue's thread; under the device's lock.
 *
 * Invariants:
 * (1) the IRQ line equals "an enabled interrupt is pending and OUT2 is set".
 * (2) rx_count <= the FIFO's depth, which is 1 while FIFOs are off.
 */

#include <string.h>

#include "lodge/chan.h"
#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "uart_16550.h"

#define UART_PORTS 8
#define UART_FIFO 16
#define UART_CLOCK_HZ 115200 /* 1.8432 MHz / 16 */
#define TIMEOUT_CHARS 4      /* 16550D 8.6.4, "FIFO Interrupt Mode Operation" */

/* 16550D 8.0, Table II: offsets */
enum { UART_DATA, UART_IER, UART_IIR_FCR, UART_LCR, UART_MCR, UART_LSR, UART_MSR, UART_SCR };

#define IER_RX 0x01
#define IER_TX 0x02
#define IER_LINE 0x04
#define IER_MODEM 0x08
#define IER_MASK 0x0f
#define IIR_NONE 0x01
#define IIR_MODEM 0x00
#define IIR_TX 0x02
#define IIR_RX 0x04
#define IIR_LINE 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFOS 0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define FCR_TRIGGER_SHIFT 6
#define LCR_BITS_MASK 0x03
#define LCR_STOP 0x04
#define LCR_PARITY 0x08
#define LCR_BREAK 0x40
#define LCR_DLAB 0x80
#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define MCR_MASK 0x1f
#define LSR_DR 0x01
#define LSR_OE 0x02
#define LSR_BI 0x10
#define LSR_ERRORS 0x1e /* OE, PE, FE, BI */
#define LSR_THRE 0x20
#define LSR_TEMT 0x40
#define LSR_FIFO_ERROR 0x80
#define MSR_DCTS 0x01
#define MSR_DDSR 0x02
#define MSR_TERI 0x04
#define MSR_DDCD 0x08
#define MSR_CTS 0x10
#define MSR_DSR 0x20
#define MSR_RI 0x40
#define MSR_DCD 0x80
#define MSR_LINES 0xf0

typedef struct UartRegs {
    uint16_t divisor;
    uint8_t ier, lcr, mcr, scr, msr;
    uint8_t lsr;     /* OE only; the rest is computed or kept with its character */
    uint8_t fcr;     /* enable and trigger bits */
    uint8_t rx_head, rx_count;
    bool thre_pending; /* the THRE interrupt, apart from the THRE bit */
    bool timeout;
    uint8_t pad;
    uint8_t rx[UART_FIFO];
    uint8_t rx_error[UART_FIFO]; /* LSR error bits of each character */
} UartRegs;

typedef struct Uart {
    Device dev;
    /* Constant after realize: */
    uint32_t iobase, irq_pin;
    Chan *chan;   /* borrowed from the board; NULL: nothing attached */
    char *beside; /* property: name of a channel that is another device's */
    Chan *out;    /* borrowed; where output goes, NULL: nowhere */
    BusRegion region;
    IrqLine *irq;      /* owned */
    LodgeTimer *timer; /* owned */
    /* Guarded by dev.lock: */
    UartRegs regs;
} Uart;

static const uint8_t rx_trigger[4] = {1, 4, 8, 14}; /* 16550D 8.4, bits 6 and 7 */

static bool fifos_on(const Uart *u)
{
    return u->regs.fcr & FCR_ENABLE;
}

static unsigned rx_depth(const Uart *u)
{
    return fifos_on(u) ? UART_FIFO : 1;
}

static unsigned trigger_level(const Uart *u)
{
    return fifos_on(u) ? rx_trigger[u->regs.fcr >> FCR_TRIGGER_SHIFT] : 1;
}

/* Room for the host's bytes: none in loopback, where the input pin is cut off. */
static unsigned rx_room(const Uart *u)
{
    return u->regs.mcr & MCR_LOOP ? 0 : rx_depth(u) - u->regs.rx_count;
}

static int64_t char_ns(const Uart *u)
{
    unsigned bits = 1 + 5 + (u->regs.lcr & LCR_BITS_MASK) + !!(u->regs.lcr & LCR_PARITY) + 1 +
                    !!(u->regs.lcr & LCR_STOP);

    return NS_PER_SEC * bits * MAX(u->regs.divisor, 1) / UART_CLOCK_HZ;
}

/* 16550D 8.3: a character's errors show when it is at the top of the FIFO. */
static uint8_t line_status(const Uart *u)
{
    const UartRegs *s = &u->regs;
    uint8_t lsr = s->lsr | LSR_THRE | LSR_TEMT;

    if (s->rx_count)
        lsr |= LSR_DR | s->rx_error[s->rx_head];
    for (unsigned i = 0; fifos_on(u) && i < s->rx_count; i++) {
        if (s->rx_error[(s->rx_head + i) % UART_FIFO])
            lsr |= LSR_FIFO_ERROR;
    }
    return lsr;
}

/* 16550D 8.5, Table IV: the highest of the pending interrupts. */
static uint8_t interrupt_id(const Uart *u)
{
    const UartRegs *s = &u->regs;

    if ((s->ier & IER_LINE) && (line_status(u) & LSR_ERRORS))
        return IIR_LINE;
    if ((s->ier & IER_RX) && s->rx_count >= trigger_level(u))
        return IIR_RX;
    if ((s->ier & IER_RX) && s->timeout && s->rx_count)
        return IIR_TIMEOUT;
    if ((s->ier & IER_TX) && s->thre_pending)
        return IIR_TX;
    if ((s->ier & IER_MODEM) && (s->msr & ~MSR_LINES))
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(Uart *u)
{
    irq_line_set(u->irq, (u->regs.mcr & MCR_OUT2) && interrupt_id(u) != IIR_NONE);
}

/* The FIFO was touched: its timeout starts anew. One that came already waits for a read of data:
 * 16550D 8.6.4. */
static void restart_timeout(Uart *u, bool ended)
{
    if (ended)
        u->regs.timeout = false;
    if (fifos_on(u) && u->regs.rx_count && u->regs.rx_count < trigger_level(u))
        timer_arm(u->timer, clock_now_ns(u->dev.board->clock) + TIMEOUT_CHARS * char_ns(u));
    else
        timer_cancel(u->timer);
}

static void uart_timer(void *opaque)
{
    Uart *u = opaque;

    lodge_lock(&u->dev.lock);
    /* A late firing after a cancel finds no character, or a FIFO at its trigger: no harm. */
    u->regs.timeout = fifos_on(u) && u->regs.rx_count;
    update_irq(u);
    lodge_unlock(&u->dev.lock);
}

static void receive(Uart *u, uint8_t byte, uint8_t errors)
{
    UartRegs *s = &u->regs;

    if (s->rx_count >= rx_depth(u)) {
        /* 16550D 8.3, bit 1: without FIFOs the old character is lost, with them the new one. */
        s->lsr |= LSR_OE;
        if (fifos_on(u))
            return;
        s->rx_count = 0;
    }
    unsigned at = (s->rx_head + s->rx_count) % UART_FIFO;
    s->rx[at] = byte;
    s->rx_error[at] = errors;
    s->rx_count++;
}

static void clear_rx(Uart *u)
{
    u->regs.rx_head = u->regs.rx_count = 0;
    memset(u->regs.rx, 0, sizeof u->regs.rx);
    memset(u->regs.rx_error, 0, sizeof u->regs.rx_error);
}

static void want_input(Uart *u)
{
    if (u->chan && rx_room(u))
        chan_want(u->chan);
}

/* 16550D 8.2: an error bit that was read is gone, here and in its character. */
static uint8_t read_lsr(Uart *u)
{
    uint8_t lsr = line_status(u);

    u->regs.lsr = 0;
    if (u->regs.rx_count)
        u->regs.rx_error[u->regs.rx_head] = 0;
    return lsr;
}

static uint8_t read_data(Uart *u)
{
    UartRegs *s = &u->regs;

    if (!s->rx_count)
        return 0;
    uint8_t byte = s->rx[s->rx_head];
    s->rx_error[s->rx_head] = 0;
    s->rx_head = (s->rx_head + 1) % UART_FIFO;
    s->rx_count--;
    restart_timeout(u, true);
    want_input(u);
    return byte;
}

static void write_data(Uart *u, uint8_t byte)
{
    u->regs.thre_pending = true; /* cleared by the write, set again as the byte is gone at once */
    if (u->regs.mcr & MCR_LOOP) {
        receive(u, byte, 0);
        restart_timeout(u, false);
    } else if (u->out && !(u->regs.lcr & LCR_BREAK)) {
        chan_write(u->out, &byte, 1);
    }
}

/* 16550D 8.7: the modem inputs, which loopback takes from the outputs, and their deltas. */
static void update_modem(Uart *u)
{
    UartRegs *s = &u->regs;
    uint8_t old = s->msr, lines = MSR_CTS | MSR_DSR | MSR_DCD;

    if (s->mcr & MCR_LOOP)
        lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
    uint8_t changed = (old ^ lines) & MSR_LINES;
    s->msr = lines | (old & ~MSR_LINES) | (changed & MSR_CTS ? MSR_DCTS : 0) |
             (changed & MSR_DSR ? MSR_DDSR : 0) | (changed & old & MSR_RI ? MSR_TERI : 0) |
             (changed & MSR_DCD ? MSR_DDCD : 0);
}

/* 16550D 8.4. Bits other than the enable count only while the enable bit is written as 1. */
static void write_fcr(Uart *u, uint8_t val)
{
    bool was_on = fifos_on(u);

    u->regs.fcr = val & FCR_ENABLE ? val & (FCR_ENABLE | 3u << FCR_TRIGGER_SHIFT) : 0;
    if (was_on != fifos_on(u) || (fifos_on(u) && (val & FCR_CLEAR_RX)))
        clear_rx(u);
    restart_timeout(u, true);
    want_input(u);
}

static void write_lcr(Uart *u, uint8_t val)
{
    bool break_began = (val & LCR_BREAK) && !(u->regs.lcr & LCR_BREAK);

    u->regs.lcr = val;
    if (break_began && (u->regs.mcr & MCR_LOOP)) {
        receive(u, 0, LSR_BI); /* 16550D 8.3, bit 4: one zero character */
        restart_timeout(u, false);
    }
}

static uint64_t uart_read(void *owner, uint64_t off, unsigned size)
{
    Uart *u = owner;
    UartRegs *s = &u->regs;
    bool dlab = s->lcr & LCR_DLAB;
    uint8_t val;

    switch (off) {
    case UART_DATA: /* 16550D 8.1; with DLAB the divisor */
        val = dlab ? s->divisor : read_data(u);
        break;
    case UART_IER: /* 16550D 8.6 */
        val = dlab ? s->divisor >> 8 : s->ier;
        break;
    case UART_IIR_FCR: /* 16550D 8.5: reading clears THRE if THRE is what it shows */
        val = interrupt_id(u);
        if (val == IIR_TX)
            s->thre_pending = false;
        val |= fifos_on(u) ? IIR_FIFOS : 0;
        break;
    case UART_LCR:
        val = s->lcr;
        break;
    case UART_MCR:
        val = s->mcr;
        break;
    case UART_LSR:
        val = read_lsr(u);
        break;
    case UART_MSR:
        val = s->msr;
        s->msr &= MSR_LINES;
        break;
    default: /* UART_SCR */
        val = s->scr;
        break;
    }
    update_irq(u);
    return val;
}

static void uart_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Uart *u = owner;
    UartRegs *s = &u->regs;
    bool dlab = s->lcr & LCR_DLAB, was_loop = s->mcr & MCR_LOOP;

    switch (off) {
    case UART_DATA:
        if (dlab)
            s->divisor = (s->divisor & 0xff00) | (uint8_t)val;
        else
            write_data(u, val);
        break;
    case UART_IER:
        if (dlab) {
            s->divisor = (uint8_t)val << 8 | (s->divisor & 0xff);
        } else { /* 16550D 8.6: enabling THRE while the holding register is empty interrupts */
            if ((val & IER_TX) && !(s->ier & IER_TX))
                s->thre_pending = true;
            s->ier = val & IER_MASK;
        }
        break;
    case UART_IIR_FCR:
        write_fcr(u, val);
        break;
    case UART_LCR:
        write_lcr(u, val);
        break;
    case UART_MCR:
        s->mcr = val & MCR_MASK;
        update_modem(u);
        if (was_loop && !(s->mcr & MCR_LOOP))
            want_input(u);
        break;
    case UART_LSR: /* for factory tests only: 16550D 8.3 */
    case UART_MSR:
        break;
    default: /* UART_SCR */
        s->scr = val;
        break;
    }
    update_irq(u);
}

static const BusRegionOps uart_ops = {.read = uart_read, .write = uart_write, .sizes = 1};

static size_t uart_input(void *opaque, const uint8_t *data, size_t len)
{
    Uart *u = opaque;
    size_t n;

    lodge_lock(&u->dev.lock);
    n = MIN(len, rx_room(u));
    for (size_t i = 0; i < n; i++)
        receive(u, data[i], 0);
    if (n)
        restart_timeout(u, false);
    update_irq(u);
    lodge_unlock(&u->dev.lock);
    return n;
}

void uart_receive_break(Device *d)
{
    Uart *u = (Uart *)d;

    lodge_lock(&d->lock);
    if (!(u->regs.mcr & MCR_LOOP)) {
        receive(u, 0, LSR_BI); /* 16550D 8.3, bit 4: one zero character */
        restart_timeout(u, false);
        update_irq(u);
    }
    lodge_unlock(&d->lock);
}

static const ChanOps uart_chan_ops = {.input = uart_input};

/* 16550D 8.0, Table III, "UART Reset Configuration". The divisor keeps its value. */
static void uart_reset(Device *d, ResetKind kind)
{
    Uart *u = (Uart *)d;
    uint16_t divisor = u->regs.divisor;

    u->regs = (UartRegs){.divisor = kind == RESET_COLD || !divisor ? 1 : divisor,
                         .msr = MSR_CTS | MSR_DSR | MSR_DCD};
    timer_cancel(u->timer);
    update_irq(u);
    want_input(u);
}

static void uart_unrealize(Device *d)
{
    Uart *u = (Uart *)d;

    bus_unmap(d->board->pio, &u->region);
    if (u->chan && u->timer)
        chan_attach(u->chan, NULL, NULL);
    g_clear_pointer(&u->timer, timer_free);
    g_clear_pointer(&u->irq, irq_line_free);
}

static bool uart_realize(Device *d, GError **error)
{
    Uart *u = (Uart *)d;

    u->region = (BusRegion){
        .name = "uart", .len = UART_PORTS, .ops = &uart_ops, .owner = u, .lock = &d->lock};
    u->out = u->chan ? u->chan : u->beside ? d->board->chan(d->board, u->beside) : NULL;
    if (u->beside && (u->chan || !u->out))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: beside=%s: %s", d->id, u->beside,
                          u->chan ? "has a channel of its own" : "there is no such channel");
    if (!bus_map(d->board->pio, &u->region, u->iobase, error))
        return false;
    u->irq = irq_line_new(d->board->irq, u->irq_pin, d->id);
    u->timer = timer_new(d->board->timers, uart_timer, u);
    if (u->chan)
        chan_attach(u->chan, &uart_chan_ops, u);
    return true;
}

static bool uart_post_load(void *obj, unsigned version, GError **error)
{
    Uart *u = obj;

    if (u->regs.rx_count > rx_depth(u)) /* keeps (2) */
        clear_rx(u);
    restart_timeout(u, false);
    update_irq(u);
    want_input(u);
    return true;
}

static const PropSpec uart_props[] = {
    {.name = "iobase", .help = "first of eight ports", .kind = PROP_U32,
     .offset = offsetof(Uart, iobase), .max = 0x10000 - UART_PORTS, .preset = "0x3f8"},
    {.name = "irq", .help = "ISA interrupt", .kind = PROP_U32,
     .offset = offsetof(Uart, irq_pin), .min = 3, .max = 15, .preset = "4"},
    {.name = "chan", .help = "channel to the host", .kind = PROP_CHAN,
     .offset = offsetof(Uart, chan)},
    {.name = "beside", .help = "another device's channel that output goes to as well",
     .kind = PROP_STRING, .offset = offsetof(Uart, beside)},
    {NULL},
};
static const StateField uart_fields[] = {
    ST_U(UartRegs, divisor, UINT16_MAX),
    ST_U(UartRegs, ier, IER_MASK),
    ST_U(UartRegs, lcr, 0xff),
    ST_U(UartRegs, mcr, MCR_MASK),
    ST_U(UartRegs, scr, 0xff),
    ST_U(UartRegs, msr, 0xff),
    ST_U(UartRegs, lsr, LSR_OE),
    ST_U(UartRegs, fcr, 0xff),
    ST_U(UartRegs, rx_head, UART_FIFO - 1),
    ST_U(UartRegs, rx_count, UART_FIFO),
    ST_B(UartRegs, thre_pending),
    ST_B(UartRegs, timeout),
    ST_SKIPPED(UartRegs, pad, "always 0: rounds the structure up"),
    ST_RAW(UartRegs, rx),
    ST_RAW(UartRegs, rx_error),
    ST_END,
};
static const StateDesc uart_state = {
    .name = "16550a", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Uart, regs), .regs_size = sizeof(UartRegs),
    .fields = uart_fields, .post_load = uart_post_load,
};

const DeviceClass uart_16550_class = {
    .name = "16550a",
    .bus = "isa",
    .help = "National 16550A: serial port with FIFOs",
    .instance_size = sizeof(Uart),
    .props = uart_props,
    .state = &uart_state,
    .realize = uart_realize,
    .reset = uart_reset,
    .unrealize = uart_unrealize,
};
