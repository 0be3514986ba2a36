/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interval timer at 0x40..0x43 and the speaker port 0x61 that gates and shows its channel 2.
 *
 * Spec: Intel 8254 data sheet, order number 231164 ("8254"); port 0x61: Intel 82371AB data sheet,
 * order number 290562, section 4.2.5.1 (NMI status and control).
 *
 * Modelled: three channels, modes 0..5, binary and BCD, all read and write orders, counter latch,
 * read-back, null count, gate 2, reload at the end of a period (mode 2) or half period (mode 3).
 * Left out: the speaker's sound; NMI sources of port 0x61 (bits 6, 7 read 0; 2, 3 are only kept).
 * A re-trigger in mode 1 lets OUT read high for the one clock until the count is loaded.
 *
 * Counts are not counted: they are computed from the guest clock when somebody looks. Time is in
 * ticks of PIT_HZ since the guest clock's start, modulo 2^64, and only differences are used.
 *
 * Channel 0 drives GSI 0 with one pulse for each rising edge of OUT. Ticks are not lost while they
 * go through the PIC: a tick that finds the one before still requested or in service there is
 * queued, at most a second's worth, and the EOI lets the next one out. Through the IOAPIC an
 * edge has no EOI that we see, so those ticks go out as they come. Where nobody listens (pin
 * masked at both controllers and a tick latched at the PIC already) the host timer rests; the
 * controllers tell when the pin is opened.
 *
 * Threads: vCPU threads (ports, EOI), the timer queue's thread; all under the device's lock.
 *
 * Invariants:
 * (1) a channel that is loaded has a count of 1..65536.
 * (2) each rising edge of OUT 0 up to tick `seen` was delivered, queued or dropped, once.
 */

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/num.h"

#define PIT_BASE 0x40
#define PIT_PORTS 4
#define PIT_CONTROL 3
#define PIT_CHANNELS 3
#define PIT_SPEAKER_CHANNEL 2
#define PIT_HZ 1193182
#define PIT_MODULUS 65536
#define PIT_MODULUS_BCD 10000
/* A guest may ask for a tick each microsecond; the host is woken this often at most. */
#define PIT_MIN_SLEEP_NS 50000

/* 8254, "Control Word Format" */
#define CW_BCD 0x01
#define CW_MODE_SHIFT 1
#define CW_MODE_MASK 7
#define CW_RW_SHIFT 4
#define CW_RW_MASK 3
#define CW_CHANNEL_SHIFT 6
#define CW_READ_BACK 3
#define RW_LATCH 0
#define RW_LSB 1
#define RW_MSB 2
#define RW_BOTH 3
/* 8254, "Read-Back Command", "Status Byte" */
#define RB_NO_COUNT 0x20
#define RB_NO_STATUS 0x10
#define RB_CHANNEL0 0x02
#define STATUS_OUT 0x80
#define STATUS_NULL 0x40

/* 82371AB 4.2.5.1 */
#define PORT61_BASE 0x61
#define PORT61_GATE2 0x01
#define PORT61_KEPT 0x0f
#define PORT61_REFRESH 0x10
#define PORT61_OUT2 0x20
#define REFRESH_NS 15085 /* 18 ticks, to which firmware programs channel 1 */

/* Why the host timer is off: the queue of ticks is full, or both controllers mask the pin. */
enum { PIT_AWAKE, PIT_FULL, PIT_UNHEARD };

typedef struct PitChannel {
    uint64_t start;   /* tick at which the counting element was loaded */
    uint64_t frozen;  /* ticks counted when the gate stopped it */
    uint64_t next_at; /* tick at which @next replaces @count */
    uint32_t count;   /* of the counting element, 1..65536; 0: never loaded */
    uint32_t next;    /* 0: none */
    uint32_t reload;  /* count register; 0: not written since the control word */
    uint16_t latch;
    uint8_t low;      /* first byte of a two-byte write */
    uint8_t status;   /* latched */
    uint8_t mode, rw;
    bool bcd, gate, loaded, halted, untransferred;
    bool write_high, read_high, latched, status_latched;
    uint8_t pad[5];
} PitChannel;

typedef struct PitRegs {
    PitChannel ch[PIT_CHANNELS];
    uint64_t stamp;   /* tick at which the state was saved */
    uint64_t seen;    /* see (2) */
    uint32_t pending; /* ticks that wait for the PIC */
    uint8_t port61;
    uint8_t resting; /* PIT_AWAKE...: edges are dropped, no host timer */
    uint8_t pad[2];
} PitRegs;

typedef struct Pit {
    Device dev;
    /* Constant after realize: */
    BusRegion region, region61;
    IrqLine *irq;      /* owned */
    LodgeTimer *timer; /* owned */
    /* Guarded by dev.lock: */
    PitRegs regs;
} Pit;

static uint64_t pit_now(const Pit *p)
{
    return muldiv64(clock_now_ns(p->dev.board->clock), PIT_HZ, NS_PER_SEC);
}

/* First ns at which pit_now() is @tick. */
static int64_t pit_tick_ns(uint64_t tick)
{
    return (int64_t)(((unsigned __int128)tick * NS_PER_SEC + PIT_HZ - 1) / PIT_HZ);
}

static bool mode_is_periodic(uint8_t mode)
{
    return mode == 2 || mode == 3;
}

static bool mode_is_triggered(uint8_t mode)
{
    return mode == 1 || mode == 5;
}

/* Ticks for which OUT is high in mode 3: 8254, "Mode 3", odd counts. */
static uint32_t high_half(uint32_t count)
{
    return (count + 1) / 2;
}

/* Ticks since the load; negative in the clock between a write and the load. */
static int64_t elapsed(const PitChannel *c, uint64_t now)
{
    return c->halted ? (int64_t)c->frozen : (int64_t)(now - c->start);
}

/* Let a new count that waited for the end of the period take over. */
static void settle(PitChannel *c, uint64_t now)
{
    if (!c->next || c->halted || (int64_t)(now - c->next_at) < 0)
        return;
    bool low_half = c->mode == 3 && (c->next_at - c->start) % c->count != 0;
    c->count = c->next;
    c->start = low_half ? c->next_at - high_half(c->count) : c->next_at;
    c->next = 0;
}

/* OUT. Spec: 8254, "Mode Definitions". The channel is settled at @now. */
static bool out_level(const PitChannel *c, uint64_t now)
{
    int64_t d = elapsed(c, now);

    if (!c->loaded)
        return c->mode != 0;
    switch (c->mode) {
    case 0:
        return d >= (int64_t)c->count;
    case 1:
        return d < 0 || d >= (int64_t)c->count;
    case 2:
        return c->halted || d < 0 || d % c->count != c->count - 1;
    case 3:
        return c->halted || d < 0 || d % c->count < high_half(c->count);
    default:
        return d != (int64_t)c->count;
    }
}

/* The counting element as a guest reads it. Settled at @now. */
static uint16_t count_value(const PitChannel *c, uint64_t now)
{
    uint32_t modulus = c->bcd ? PIT_MODULUS_BCD : PIT_MODULUS;
    int64_t d = elapsed(c, now);
    uint32_t v, phase;

    if (!c->loaded)
        return 0;
    if (d < 0)
        d = 0;
    switch (c->mode) {
    case 2:
        v = c->count - d % c->count;
        break;
    case 3: /* by two, from the even number at or below the count */
        phase = d % c->count;
        if (phase >= high_half(c->count))
            phase -= high_half(c->count);
        v = (c->count & ~1u) - 2 * phase;
        break;
    default:
        v = c->count % modulus + modulus - d % modulus;
        break;
    }
    v %= modulus;
    if (c->bcd)
        v = v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10;
    return v;
}

/* Rising edges of OUT in (from, to], with the counts as they are. */
static uint64_t edges_plain(const PitChannel *c, uint64_t from, uint64_t to)
{
    int64_t a = (int64_t)(from - c->start), b = (int64_t)(to - c->start), at;

    if (!c->loaded || c->halted || b < 0)
        return 0;
    if (mode_is_periodic(c->mode))
        return b / c->count - (a < 0 ? 0 : a / c->count);
    at = c->mode < 4 ? c->count : (int64_t)c->count + 1; /* the strobe's end */
    return a < at && at <= b;
}

static uint64_t edges(PitChannel *c, uint64_t from, uint64_t to)
{
    uint64_t n = 0;

    if (c->next && !c->halted && (int64_t)(to - c->next_at) >= 0) {
        if ((int64_t)(c->next_at - from) > 0) {
            n = edges_plain(c, from, c->next_at);
            from = c->next_at;
        }
        settle(c, to);
    }
    return n + edges_plain(c, from, to);
}

/* The first tick after @now at which OUT rises; false: none. Settled at @now. */
static bool next_edge(const PitChannel *c, uint64_t now, uint64_t *ret_tick)
{
    int64_t d = elapsed(c, now);
    uint64_t at;

    if (!c->loaded || c->halted)
        return false;
    if (mode_is_periodic(c->mode)) {
        at = d < 0 ? c->count : (d / c->count + 1) * c->count;
        /* A new count may move the edge nearer; a look too early does no harm. */
        if (c->next && (int64_t)(c->start + at - c->next_at) > 0)
            at = c->next_at - c->start;
    } else {
        at = c->mode < 4 ? c->count : (uint64_t)c->count + 1;
        if (d >= (int64_t)at)
            return false;
    }
    *ret_tick = c->start + at;
    return true;
}

/* A second's worth of ticks at the present rate. */
static uint32_t pending_limit(const PitChannel *c)
{
    return mode_is_periodic(c->mode) && c->count && c->count < PIT_HZ ? PIT_HZ / c->count : 1;
}

/* Bring @n edges to the controllers; see the theory above. */
static void deliver(Pit *p, uint64_t n)
{
    unsigned pic = irq_line_at_pic(p->irq);
    bool open = pic & IRQ_PIN_OPEN;
    uint32_t limit = pending_limit(&p->regs.ch[0]);

    if (!n)
        return;
    if (irq_line_at_ioapic(p->irq) & IRQ_PIN_OPEN || !(pic & IRQ_PIN_BUSY)) {
        irq_line_pulse(p->irq);
        n--;
    }
    if (open && !(irq_line_at_ioapic(p->irq) & IRQ_PIN_OPEN))
        p->regs.pending = MIN(p->regs.pending + n, limit);
}

/* Account for the edges up to @now; keeps (2). Before any change of channel 0. */
static void catch_up(Pit *p, uint64_t now)
{
    uint64_t n = edges(&p->regs.ch[0], p->regs.seen, now);

    p->regs.seen = now;
    if (p->regs.resting == PIT_AWAKE)
        deliver(p, n);
    else if (p->regs.resting == PIT_UNHEARD && n)
        p->regs.pending = 0; /* a guest that masks for longer than its handler wants no backlog */
}

static void arm(Pit *p, uint64_t now)
{
    PitChannel *c = &p->regs.ch[0];
    unsigned pic = irq_line_at_pic(p->irq), ioapic = irq_line_at_ioapic(p->irq);
    bool heard = (pic | ioapic) & IRQ_PIN_OPEN;
    bool full = (pic & IRQ_PIN_OPEN) && !(ioapic & IRQ_PIN_OPEN) &&
                p->regs.pending >= pending_limit(c);
    uint64_t tick;

    p->regs.resting = !(pic & IRQ_PIN_BUSY) ? PIT_AWAKE
                      : !heard              ? PIT_UNHEARD
                      : full                ? PIT_FULL
                                            : PIT_AWAKE;
    if (p->regs.resting != PIT_AWAKE || !next_edge(c, now, &tick)) {
        timer_cancel(p->timer);
        return;
    }
    int64_t soonest = clock_now_ns(p->dev.board->clock) + PIT_MIN_SLEEP_NS;
    timer_arm(p->timer, MAX(pit_tick_ns(tick), soonest));
}

static void pit_timer(void *opaque)
{
    Pit *p = opaque;

    lodge_lock(&p->dev.lock);
    uint64_t now = pit_now(p);
    catch_up(p, now);
    arm(p, now);
    lodge_unlock(&p->dev.lock);
}

/* The guest ended a tick, or opened the pin. Context: vCPU thread, no lock held. */
static void pit_eoi(void *opaque)
{
    Pit *p = opaque;

    lodge_lock(&p->dev.lock);
    uint64_t now = pit_now(p);
    catch_up(p, now);
    if (p->regs.pending && !(irq_line_at_pic(p->irq) & IRQ_PIN_BUSY)) {
        p->regs.pending--;
        irq_line_pulse(p->irq);
    }
    arm(p, now);
    lodge_unlock(&p->dev.lock);
}

/* The counting element takes the count register on the next clock: 8254, "Mode Definitions". */
static void load(PitChannel *c, uint64_t now)
{
    c->count = c->reload;
    c->next = 0;
    c->start = now + 1;
    c->frozen = 0;
    c->loaded = true;
    c->halted = !c->gate && !mode_is_triggered(c->mode);
    c->untransferred = false;
}

/* 8254, "Gate Pin Operations Summary" */
static void set_gate(PitChannel *c, bool gate, uint64_t now)
{
    bool rose = gate && !c->gate, fell = !gate && c->gate;

    settle(c, now);
    c->gate = gate;
    if (rose && c->reload && (mode_is_triggered(c->mode) || mode_is_periodic(c->mode))) {
        load(c, now);
    } else if (rose && c->halted) {
        c->start = now - c->frozen;
        c->halted = false;
    } else if (fell && c->loaded && !mode_is_triggered(c->mode)) {
        int64_t d = elapsed(c, now);
        c->frozen = d < 0 ? 0 : d;
        c->halted = true;
    }
}

/* A whole count @raw was written: 8254, "Write Operations", "Mode Definitions". */
static void set_count(PitChannel *c, uint16_t raw, uint64_t now)
{
    uint32_t n = raw;

    if (c->bcd) {
        n = (raw >> 12) * 1000u + (raw >> 8 & 15) * 100u + (raw >> 4 & 15) * 10u + (raw & 15);
        n %= PIT_MODULUS_BCD; /* digits above 9 are the guest's mistake */
    }
    c->reload = n ? n : c->bcd ? PIT_MODULUS_BCD : PIT_MODULUS;
    c->untransferred = true;
    if (mode_is_triggered(c->mode))
        return;
    if (!mode_is_periodic(c->mode) || !c->loaded) {
        load(c, now);
        return;
    }
    if (c->halted) /* taken at the gate's rise */
        return;
    int64_t d = elapsed(c, now);
    uint64_t phase = d < 0 ? 0 : d % c->count, base = d < 0 ? c->start : now - phase;
    c->next = c->reload;
    c->untransferred = false;
    c->next_at =
        base + (c->mode == 3 && phase < high_half(c->count) ? high_half(c->count) : c->count);
}

static void latch_count(PitChannel *c, uint64_t now)
{
    if (c->latched)
        return;
    c->latch = count_value(c, now);
    c->latched = true;
}

static void latch_status(PitChannel *c, uint64_t now)
{
    bool null = c->untransferred || !c->loaded || c->next || elapsed(c, now) < 0;

    if (c->status_latched)
        return;
    c->status = (out_level(c, now) ? STATUS_OUT : 0) | (null ? STATUS_NULL : 0) |
                c->rw << CW_RW_SHIFT | c->mode << CW_MODE_SHIFT | (c->bcd ? CW_BCD : 0);
    c->status_latched = true;
}

static void write_control(Pit *p, uint8_t val, uint64_t now)
{
    unsigned n = val >> CW_CHANNEL_SHIFT, rw = val >> CW_RW_SHIFT & CW_RW_MASK;

    if (n == CW_READ_BACK) { /* 8254, "Read-Back Command" */
        for (unsigned i = 0; i < PIT_CHANNELS; i++) {
            PitChannel *c = &p->regs.ch[i];
            settle(c, now);
            if (!(val & RB_CHANNEL0 << i))
                continue;
            if (!(val & RB_NO_COUNT))
                latch_count(c, now);
            if (!(val & RB_NO_STATUS))
                latch_status(c, now);
        }
        return;
    }
    PitChannel *c = &p->regs.ch[n];
    settle(c, now);
    if (rw == RW_LATCH) { /* 8254, "Counter Latch Command" */
        latch_count(c, now);
        return;
    }
    bool before = out_level(c, now), gate = c->gate;
    uint8_t mode = val >> CW_MODE_SHIFT & CW_MODE_MASK;
    *c = (PitChannel){.mode = mode > 5 ? mode - 4 : mode, /* 6, 7 are 2, 3: bit 2 is ignored */
                      .rw = rw, .bcd = val & CW_BCD, .gate = gate};
    if (n == 0 && !before && out_level(c, now))
        deliver(p, 1);
}

static void write_count(PitChannel *c, uint8_t val, uint64_t now)
{
    settle(c, now);
    switch (c->rw) {
    case RW_LSB:
        set_count(c, val, now);
        break;
    case RW_MSB:
        set_count(c, val << 8, now);
        break;
    default:
        if (!c->write_high) {
            c->low = val;
            if (c->mode == 0) /* 8254, "Mode 0": the first byte stops the count, OUT is low */
                c->loaded = false;
        } else {
            set_count(c, val << 8 | c->low, now);
        }
        c->write_high = !c->write_high;
        break;
    }
}

static uint8_t read_count(PitChannel *c, uint64_t now)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    settle(c, now);
    uint16_t v = c->latched ? c->latch : count_value(c, now);
    bool high = c->rw == RW_MSB || (c->rw == RW_BOTH && c->read_high);
    if (c->rw == RW_BOTH)
        c->read_high = !c->read_high;
    if (c->rw != RW_BOTH || high)
        c->latched = false;
    return high ? v >> 8 : v;
}

static uint64_t pit_read(void *owner, uint64_t off, unsigned size)
{
    Pit *p = owner;

    if (off >= PIT_CHANNELS) /* the control word cannot be read: 8254, "Read/Write Logic" */
        return 0xff;
    uint64_t now = pit_now(p);
    if (off == 0)
        catch_up(p, now);
    return read_count(&p->regs.ch[off], now);
}

static void pit_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Pit *p = owner;
    uint64_t now = pit_now(p);

    catch_up(p, now);
    if (off == PIT_CONTROL)
        write_control(p, val, now);
    else if (off < PIT_CHANNELS)
        write_count(&p->regs.ch[off], val, now);
    p->regs.seen = now;
    arm(p, now);
}

static uint64_t port61_read(void *owner, uint64_t off, unsigned size)
{
    Pit *p = owner;
    PitChannel *c = &p->regs.ch[PIT_SPEAKER_CHANNEL];
    uint64_t now = pit_now(p);

    settle(c, now);
    bool refresh = clock_now_ns(p->dev.board->clock) / REFRESH_NS & 1;
    return p->regs.port61 | (refresh ? PORT61_REFRESH : 0) |
           (out_level(c, now) ? PORT61_OUT2 : 0);
}

static void port61_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Pit *p = owner;

    p->regs.port61 = val & PORT61_KEPT;
    set_gate(&p->regs.ch[PIT_SPEAKER_CHANNEL], val & PORT61_GATE2, pit_now(p));
}

static const BusRegionOps pit_ops = {.read = pit_read, .write = pit_write, .sizes = 1};
static const BusRegionOps port61_ops = {.read = port61_read, .write = port61_write, .sizes = 1};

/* The part has no reset pin and powers up undefined; nothing counts until programmed. */
static void pit_reset(Device *d, ResetKind kind)
{
    Pit *p = (Pit *)d;

    p->regs = (PitRegs){.seen = pit_now(p)};
    for (unsigned i = 0; i < PIT_CHANNELS; i++) {
        p->regs.ch[i].mode = 3;
        p->regs.ch[i].rw = RW_BOTH;
        p->regs.ch[i].gate = i != PIT_SPEAKER_CHANNEL;
    }
    timer_cancel(p->timer);
}

static void pit_unrealize(Device *d)
{
    Pit *p = (Pit *)d;

    bus_unmap(d->board->pio, &p->region);
    bus_unmap(d->board->pio, &p->region61);
    g_clear_pointer(&p->timer, timer_free);
    g_clear_pointer(&p->irq, irq_line_free);
}

static bool pit_realize(Device *d, GError **error)
{
    Pit *p = (Pit *)d;

    p->region = (BusRegion){
        .name = "pit", .len = PIT_PORTS, .ops = &pit_ops, .owner = p, .lock = &d->lock};
    p->region61 = (BusRegion){
        .name = "port61", .len = 1, .ops = &port61_ops, .owner = p, .lock = &d->lock};
    p->irq = irq_line_new(d->board->irq, 0, d->id);
    p->timer = timer_new(d->board->timers, pit_timer, p);
    if (!bus_map(d->board->pio, &p->region, PIT_BASE, error) ||
        !bus_map(d->board->pio, &p->region61, PORT61_BASE, error)) {
        pit_unrealize(d);
        return false;
    }
    irq_line_on_eoi(p->irq, pit_eoi, p);
    return true;
}

static void pit_pre_save(void *obj)
{
    Pit *p = obj;

    p->regs.stamp = pit_now(p);
}

/* The clock of this process started elsewhere: shift all ticks by the difference. */
static bool pit_post_load(void *obj, unsigned version, GError **error)
{
    Pit *p = obj;
    uint64_t now = pit_now(p), shift = now - p->regs.stamp;

    for (unsigned i = 0; i < PIT_CHANNELS; i++) {
        PitChannel *c = &p->regs.ch[i];
        c->start += shift;
        c->next_at += shift;
        if ((c->loaded || c->next) && !c->count) /* keeps (1) */
            return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: channel %u counts from 0", p->dev.id,
                              i);
    }
    p->regs.seen += shift;
    arm(p, now);
    return true;
}

static const StateField pit_channel_fields[] = {
    ST_U(PitChannel, start, UINT64_MAX),
    ST_U(PitChannel, frozen, INT64_MAX),
    ST_U(PitChannel, next_at, UINT64_MAX),
    ST_U(PitChannel, count, PIT_MODULUS),
    ST_U(PitChannel, next, PIT_MODULUS),
    ST_U(PitChannel, reload, PIT_MODULUS),
    ST_U(PitChannel, latch, UINT16_MAX),
    ST_U(PitChannel, low, 0xff),
    ST_U(PitChannel, status, 0xff),
    ST_U(PitChannel, mode, 5),
    ST_U(PitChannel, rw, RW_BOTH),
    ST_B(PitChannel, bcd),
    ST_B(PitChannel, gate),
    ST_B(PitChannel, loaded),
    ST_B(PitChannel, halted),
    ST_B(PitChannel, untransferred),
    ST_B(PitChannel, write_high),
    ST_B(PitChannel, read_high),
    ST_B(PitChannel, latched),
    ST_B(PitChannel, status_latched),
    ST_SKIPPED(PitChannel, pad, "always 0: rounds the structure up"),
    ST_END,
};
static const StateDesc pit_channel_state = {
    .name = "i8254-channel", .version = 1, .oldest = 1,
    .regs_size = sizeof(PitChannel), .fields = pit_channel_fields,
};
static const StateField pit_fields[] = {
    ST_SUBS(PitRegs, ch, PIT_CHANNELS, &pit_channel_state),
    ST_U(PitRegs, stamp, UINT64_MAX),
    ST_U(PitRegs, seen, UINT64_MAX),
    ST_U(PitRegs, pending, PIT_HZ),
    ST_U(PitRegs, port61, PORT61_KEPT),
    ST_U(PitRegs, resting, PIT_UNHEARD),
    ST_SKIPPED(PitRegs, pad, "always 0: rounds the structure up"),
    ST_END,
};
static const StateDesc pit_state = {
    .name = "i8254", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Pit, regs), .regs_size = sizeof(PitRegs),
    .fields = pit_fields, .pre_save = pit_pre_save, .post_load = pit_post_load,
};

const DeviceClass pit_i8254_class = {
    .name = "i8254",
    .help = "Intel 8254: interval timer of a PC, with port 0x61",
    .instance_size = sizeof(Pit),
    .state = &pit_state,
    .realize = pit_realize,
    .reset = pit_reset,
    .unrealize = pit_unrealize,
};
