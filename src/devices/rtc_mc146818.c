/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Real-time clock with 256 bytes of battery-backed memory: index/data at 0x70/0x71, the upper bank
 * at 0x72/0x73.
 *
 * Spec: Motorola MC146818 data sheet ADI856R2 ("MC146818"); upper bank: Intel 82371AB data sheet,
 * order number 290562, section 4.2.6 ("Real Time Clock Registers"). Century at 0x32: ACPI 6.4,
 * 5.2.9, field CENTURY, which the board's FADT names.
 *
 * Modelled: time, date, alarm with don't-care codes, BCD and binary, 12 and 24 hours, SET, divider
 * reset, UIP, periodic, alarm and update-ended flags and interrupts, VRT (always 1).
 * Left out: daylight saving (DSE is kept and does nothing), the square wave pin, the NMI mask in
 * bit 7 of the index, oscillators other than 32768 Hz (their DV codes run the same).
 *
 * The time is the guest's wall clock plus an offset that moves when the guest sets the clock.
 * While SET or the divider's reset holds the time, it lies in `held`. Flags of register C are
 * computed when somebody looks; a host timer is armed only for an enabled interrupt whose flag is
 * still clear, so an idle clock costs nothing.
 *
 * Memory, time and alarm live through every reset of a machine: they are battery-backed.
 *
 * Threads: vCPU threads and the timer queue's thread, under the device's lock.
 *
 * Invariants:
 * (1) the IRQ line equals IRQF of register C.
 * (2) flags are right up to guest time `checked_ns` and RTC second `checked_sec`.
 */

#include "rtc_mc146818.h"

#include <time.h>

#include "lodge/error.h"
#include "lodge/num.h"

#define RTC_BASE 0x70
#define RTC_PORTS 4
#define RTC_IRQ 8
#define RTC_CELLS 256
#define RTC_BANK 128
#define RTC_INDEX_MASK 0x7f

/* MC146818, "Address Map" */
enum {
    RTC_SECONDS = 0,
    RTC_SECONDS_ALARM = 1,
    RTC_MINUTES = 2,
    RTC_MINUTES_ALARM = 3,
    RTC_HOURS = 4,
    RTC_HOURS_ALARM = 5,
    RTC_WEEKDAY = 6,
    RTC_DAY = 7,
    RTC_MONTH = 8,
    RTC_YEAR = 9,
    RTC_REG_A = 10,
    RTC_REG_B = 11,
    RTC_REG_C = 12,
    RTC_REG_D = 13,
    RTC_FIRST_CELL = 14,
    RTC_CENTURY = 0x32,
};

/* MC146818, "Register A" ... "Register D" */
#define A_UIP 0x80
#define A_DV_RESET 0x60 /* 11x holds the divider chain */
#define A_DV_32K 0x20
#define A_RATE 0x0f
#define A_RATE_1024HZ 6
#define B_SET 0x80
#define B_PIE 0x40
#define B_AIE 0x20
#define B_UIE 0x10
#define B_SQWE 0x08
#define B_BINARY 0x04
#define B_24H 0x02
#define C_IRQF 0x80
#define C_PF 0x40
#define C_AF 0x20
#define C_UF 0x10
#define C_FLAGS (C_PF | C_AF | C_UF)
#define D_VRT 0x80

#define HOUR_PM 0x80
#define ALARM_ANY 0xc0 /* both top bits set: don't care */
#define ALARM_NEVER (-1)
#define RTC_CRYSTAL_HZ 32768
#define UIP_NS 244000 /* MC146818, "Update Cycle": UIP leads the update by 244 us */
#define HALF_SECOND_NS (NS_PER_SEC / 2) /* divider release to first update: "Register A" */
#define SECS_PER_DAY 86400
#define SECS_PER_HOUR 3600
/* 2242: the guest cannot set a later time. Nanoseconds end in 2262; the rest is for running on. */
#define RTC_LAST_SEC INT64_C(8583926400)
#define RTC_WRAP_SEC (INT64_MAX / NS_PER_SEC + 1) /* what a clock that ran on can reach */

typedef struct RtcRegs {
    int64_t offset_ns;   /* RTC time minus wall time */
    int64_t checked_ns;  /* see (2) */
    int64_t checked_sec;
    uint8_t cells[RTC_CELLS]; /* 0..13: only alarms and A, B, C are used */
    uint8_t held[RTC_YEAR + 1];
    uint8_t held_century;
    uint8_t index, index_high;
    uint8_t weekday_shift; /* 0..6: what the guest calls the day, against the calendar */
    uint8_t pad[2];
} RtcRegs;

typedef struct Rtc {
    Device dev;
    /* Constant after realize: */
    char *base; /* owned; "utc" or "localtime" */
    BusRegion region;
    IrqLine *irq;      /* owned */
    LodgeTimer *timer; /* owned */
    /* Guarded by dev.lock: */
    RtcRegs regs;
} Rtc;

typedef struct RtcDate {
    int64_t year; /* all of it */
    unsigned month, day, weekday, hour, minute, second; /* month, day from 1; Sunday is 1 */
} RtcDate;

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Days from 1970-01-01 to a date of the Gregorian calendar; years start in March inside. */
static int64_t days_from_date(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = floor_div(y, 400);
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static RtcDate date_from_seconds(int64_t sec)
{
    int64_t days = floor_div(sec, SECS_PER_DAY), rest = sec - days * SECS_PER_DAY;
    int64_t z = days + 719468, era = floor_div(z, 146097), doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;
    RtcDate d = {
        .day = doy - (153 * mp + 2) / 5 + 1,
        .month = mp < 10 ? mp + 3 : mp - 9,
        .weekday = (days % 7 + 7 + 4) % 7 + 1, /* 1970-01-01 was a Thursday */
        .hour = rest / SECS_PER_HOUR,
        .minute = rest / 60 % 60,
        .second = rest % 60,
    };
    d.year = yoe + era * 400 + (d.month <= 2);
    return d;
}

static uint8_t encode(const Rtc *r, unsigned v)
{
    return r->regs.cells[RTC_REG_B] & B_BINARY ? v : (v / 10 % 10) << 4 | v % 10;
}

static unsigned decode(const Rtc *r, uint8_t v)
{
    return r->regs.cells[RTC_REG_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

/* MC146818, "Time, Calendar, and Alarm Locations": 12 AM is hour 0, the top bit is PM. */
static uint8_t encode_hour(const Rtc *r, unsigned hour)
{
    if (r->regs.cells[RTC_REG_B] & B_24H)
        return encode(r, hour);
    return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const Rtc *r, uint8_t v)
{
    if (r->regs.cells[RTC_REG_B] & B_24H)
        return decode(r, v);
    unsigned hour = decode(r, v & ~HOUR_PM);
    return (hour == 12 ? 0 : hour) + (v & HOUR_PM ? 12 : 0);
}

static int64_t rtc_time_ns(const Rtc *r)
{
    /* Wraps, rather than overflows, some years past RTC_LAST_SEC. */
    return (int64_t)((uint64_t)clock_wall_ns(r->dev.board->clock) + (uint64_t)r->regs.offset_ns);
}

static bool divider_held(const Rtc *r)
{
    return (r->regs.cells[RTC_REG_A] & A_DV_RESET) == A_DV_RESET;
}

static bool time_held(const Rtc *r)
{
    return (r->regs.cells[RTC_REG_B] & B_SET) || divider_held(r);
}

/* The time registers as they read now, in the format of register B. */
static void time_to_registers(const Rtc *r, uint8_t *ret_regs, uint8_t *ret_century)
{
    RtcDate d = date_from_seconds(floor_div(rtc_time_ns(r), NS_PER_SEC));

    ret_regs[RTC_SECONDS] = encode(r, d.second);
    ret_regs[RTC_MINUTES] = encode(r, d.minute);
    ret_regs[RTC_HOURS] = encode_hour(r, d.hour);
    ret_regs[RTC_WEEKDAY] = encode(r, (d.weekday - 1 + r->regs.weekday_shift) % 7 + 1);
    ret_regs[RTC_DAY] = encode(r, d.day);
    ret_regs[RTC_MONTH] = encode(r, d.month);
    ret_regs[RTC_YEAR] = encode(r, d.year % 100);
    *ret_century = encode(r, d.year / 100 % 100);
}

/* Make the RTC show what @regs say; the fraction of the second becomes @frac_ns. */
static void time_from_registers(Rtc *r, const uint8_t *regs, uint8_t century, int64_t frac_ns)
{
    int64_t year = (int64_t)decode(r, century) * 100 + decode(r, regs[RTC_YEAR]) % 100;
    unsigned month = CLAMP(decode(r, regs[RTC_MONTH]), 1u, 12u);
    int64_t days = days_from_date(year, month, 1) + (int64_t)decode(r, regs[RTC_DAY]) - 1;
    int64_t sec = days * SECS_PER_DAY + decode_hour(r, regs[RTC_HOURS]) * SECS_PER_HOUR +
                  decode(r, regs[RTC_MINUTES]) * 60 + decode(r, regs[RTC_SECONDS]);
    sec = CLAMP(sec, -RTC_LAST_SEC, RTC_LAST_SEC);
    unsigned calendar = date_from_seconds(sec).weekday;
    r->regs.weekday_shift = (decode(r, regs[RTC_WEEKDAY]) % 7 + 7 - calendar % 7) % 7;
    r->regs.offset_ns =
        (int64_t)((uint64_t)(sec * NS_PER_SEC + frac_ns) -
                  (uint64_t)clock_wall_ns(r->dev.board->clock));
    r->regs.checked_sec = sec;
}

static int64_t fraction_ns(const Rtc *r)
{
    return (rtc_time_ns(r) % NS_PER_SEC + NS_PER_SEC) % NS_PER_SEC;
}

/* Crystal ticks in a period: MC146818, "Periodic Interrupt Rate"; 0: none. */
static uint64_t period_ticks(const Rtc *r)
{
    unsigned rate = r->regs.cells[RTC_REG_A] & A_RATE;

    if (!rate || divider_held(r))
        return 0;
    return UINT64_C(1) << (rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t crystal_ticks(int64_t ns)
{
    return muldiv64(ns, RTC_CRYSTAL_HZ, NS_PER_SEC);
}

/* Whether alarm byte @v lets @now pass: MC146818, "Alarm". */
static bool alarm_matches(uint8_t v, unsigned wanted, unsigned now)
{
    return v >= ALARM_ANY || wanted == now;
}

/* The first second after @sec at which the alarm goes off, or ALARM_NEVER. At most 24 hours, 60
 * minutes and 60 seconds are looked at: each step skips what cannot match. */
static int64_t next_alarm(const Rtc *r, int64_t sec)
{
    const uint8_t *cells = r->regs.cells;
    uint8_t h = cells[RTC_HOURS_ALARM], m = cells[RTC_MINUTES_ALARM],
            s = cells[RTC_SECONDS_ALARM];
    unsigned hour = decode_hour(r, h), minute = decode(r, m), second = decode(r, s);

    if ((h < ALARM_ANY && hour > 23) || (m < ALARM_ANY && minute > 59) ||
        (s < ALARM_ANY && second > 59))
        return ALARM_NEVER;
    int64_t t = sec + 1, end = sec + 2 * SECS_PER_DAY;
    while (t < end) {
        int64_t of_day = t - floor_div(t, SECS_PER_DAY) * SECS_PER_DAY;
        if (!alarm_matches(h, hour, of_day / SECS_PER_HOUR))
            t += SECS_PER_HOUR - of_day % SECS_PER_HOUR;
        else if (!alarm_matches(m, minute, of_day / 60 % 60))
            t += 60 - of_day % 60;
        else if (!alarm_matches(s, second, of_day % 60))
            t++;
        else
            return t;
    }
    return ALARM_NEVER;
}

static void update_irq(Rtc *r)
{
    uint8_t *cells = r->regs.cells;
    bool irq = cells[RTC_REG_C] & cells[RTC_REG_B] & C_FLAGS; /* enables sit at the same bits */

    cells[RTC_REG_C] = (cells[RTC_REG_C] & C_FLAGS) | (irq ? C_IRQF : 0);
    irq_line_set(r->irq, irq);
}

/* Bring the flags up to now; keeps (1) and (2). */
static void check_flags(Rtc *r)
{
    uint8_t *c = &r->regs.cells[RTC_REG_C];
    int64_t now = clock_now_ns(r->dev.board->clock);
    int64_t sec = floor_div(rtc_time_ns(r), NS_PER_SEC);
    uint64_t period = period_ticks(r);

    if (period && crystal_ticks(now) / period != crystal_ticks(r->regs.checked_ns) / period)
        *c |= C_PF;
    if (!time_held(r) && sec > r->regs.checked_sec) {
        int64_t alarm = next_alarm(r, r->regs.checked_sec);
        *c |= C_UF | (alarm != ALARM_NEVER && alarm <= sec ? C_AF : 0);
    }
    r->regs.checked_ns = now;
    r->regs.checked_sec = sec;
    update_irq(r);
}

/* Wake for the next enabled flag that is still clear. */
static void arm(Rtc *r)
{
    uint8_t wanted = r->regs.cells[RTC_REG_B] & ~r->regs.cells[RTC_REG_C];
    int64_t now = clock_now_ns(r->dev.board->clock), wait = TIMER_NEVER;
    uint64_t period = period_ticks(r);

    if ((wanted & B_PIE) && period) {
        uint64_t tick = (crystal_ticks(now) / period + 1) * period;
        int64_t at = muldiv64(tick, NS_PER_SEC, RTC_CRYSTAL_HZ) + 1;
        wait = MIN(wait, at - now);
    }
    if (!time_held(r)) {
        int64_t to_update = NS_PER_SEC - fraction_ns(r);
        int64_t sec = floor_div(rtc_time_ns(r), NS_PER_SEC);
        if (wanted & B_UIE)
            wait = MIN(wait, to_update);
        int64_t alarm = wanted & B_AIE ? next_alarm(r, sec) : ALARM_NEVER;
        if (alarm != ALARM_NEVER)
            wait = MIN(wait, to_update + (alarm - sec - 1) * NS_PER_SEC);
    }
    if (wait == TIMER_NEVER)
        timer_cancel(r->timer);
    else
        timer_arm(r->timer, now + wait);
}

static void rtc_timer(void *opaque)
{
    Rtc *r = opaque;

    lodge_lock(&r->dev.lock);
    check_flags(r);
    arm(r);
    lodge_unlock(&r->dev.lock);
}

static bool is_time_register(unsigned index)
{
    return index == RTC_CENTURY ||
           (index <= RTC_YEAR && (!(index & 1) || index >= RTC_WEEKDAY));
}

static uint8_t read_time_register(Rtc *r, unsigned index)
{
    uint8_t regs[RTC_YEAR + 1] = {0}, century;

    if (time_held(r))
        return index == RTC_CENTURY ? r->regs.held_century : r->regs.held[index];
    time_to_registers(r, regs, &century);
    return index == RTC_CENTURY ? century : regs[index];
}

static void write_time_register(Rtc *r, unsigned index, uint8_t val)
{
    uint8_t regs[RTC_YEAR + 1] = {0}, century;

    if (time_held(r)) {
        if (index == RTC_CENTURY)
            r->regs.held_century = val;
        else
            r->regs.held[index] = val;
        return;
    }
    time_to_registers(r, regs, &century);
    if (index == RTC_CENTURY)
        century = val;
    else
        regs[index] = val;
    time_from_registers(r, regs, century, fraction_ns(r));
}

/* Registers A and B: hold the time when SET or the divider's reset comes, and let it go on from
 * what the registers say when the last of the two goes. MC146818, "Register A", "Register B". */
static void write_control(Rtc *r, unsigned index, uint8_t val)
{
    uint8_t *cells = r->regs.cells;
    bool was_held = time_held(r), was_reset = divider_held(r);
    int64_t frac = fraction_ns(r);

    if (!was_held) /* in the format that holds until this write */
        time_to_registers(r, r->regs.held, &r->regs.held_century);
    if (index == RTC_REG_A) {
        cells[RTC_REG_A] = val & ~A_UIP;
    } else {
        if (val & B_SET)
            val &= ~B_UIE;
        cells[RTC_REG_B] = val;
    }
    if (was_held && !time_held(r))
        time_from_registers(r, r->regs.held, r->regs.held_century,
                            was_reset ? HALF_SECOND_NS : frac);
}

static uint8_t rtc_read_cell(Rtc *r, unsigned index)
{
    uint8_t *cells = r->regs.cells, val;

    if (is_time_register(index))
        return read_time_register(r, index);
    switch (index) {
    case RTC_REG_A:
        return cells[RTC_REG_A] |
               (!time_held(r) && fraction_ns(r) >= NS_PER_SEC - UIP_NS ? A_UIP : 0);
    case RTC_REG_C: /* reading clears it: MC146818, "Register C" */
        check_flags(r);
        val = cells[RTC_REG_C];
        cells[RTC_REG_C] = 0;
        update_irq(r);
        arm(r);
        return val;
    case RTC_REG_D:
        return D_VRT;
    default:
        return cells[index];
    }
}

static void rtc_write_cell(Rtc *r, unsigned index, uint8_t val)
{
    if (index == RTC_REG_C || index == RTC_REG_D) /* read-only */
        return;
    if (index >= RTC_FIRST_CELL && index != RTC_CENTURY) {
        r->regs.cells[index] = val;
        return;
    }
    check_flags(r);
    if (is_time_register(index))
        write_time_register(r, index, val);
    else if (index == RTC_REG_A || index == RTC_REG_B)
        write_control(r, index, val);
    else
        r->regs.cells[index] = val;
    update_irq(r);
    arm(r);
}

static uint64_t rtc_read(void *owner, uint64_t off, unsigned size)
{
    Rtc *r = owner;

    switch (off) {
    case 1:
        return rtc_read_cell(r, r->regs.index);
    case 3:
        return r->regs.cells[RTC_BANK + r->regs.index_high];
    default: /* the indexes are write-only: 82371AB 4.2.6 */
        return 0xff;
    }
}

static void rtc_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Rtc *r = owner;

    switch (off) {
    case 0:
        r->regs.index = val & RTC_INDEX_MASK;
        break;
    case 1:
        rtc_write_cell(r, r->regs.index, val);
        break;
    case 2:
        r->regs.index_high = val & RTC_INDEX_MASK;
        break;
    default:
        r->regs.cells[RTC_BANK + r->regs.index_high] = val;
        break;
    }
}

static const BusSpan index_register[] = {{0, 1}, {0}};
static const BusRegionOps rtc_ops = {.read = rtc_read, .write = rtc_write, .sizes = 1,
                                     .coalesce = index_register};

void rtc_set_cmos(Device *d, unsigned index, uint8_t value)
{
    Rtc *r = (Rtc *)d;

    g_assert(index >= RTC_FIRST_CELL && index < RTC_CELLS && index != RTC_CENTURY);
    lodge_lock(&d->lock);
    r->regs.cells[index] = value;
    lodge_unlock(&d->lock);
}

/* MC146818, "RESET": interrupts and flags go, everything else is battery-backed. */
static void rtc_reset(Device *d, ResetKind kind)
{
    Rtc *r = (Rtc *)d;

    check_flags(r);
    r->regs.cells[RTC_REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    r->regs.cells[RTC_REG_C] = 0;
    r->regs.index = r->regs.index_high = 0;
    update_irq(r);
    arm(r);
}

static void rtc_unrealize(Device *d)
{
    Rtc *r = (Rtc *)d;

    bus_unmap(d->board->pio, &r->region);
    g_clear_pointer(&r->timer, timer_free);
    g_clear_pointer(&r->irq, irq_line_free);
}

/* Seconds that local time is ahead of UTC at @wall_ns. */
static int64_t local_offset_sec(int64_t wall_ns)
{
    time_t t = floor_div(wall_ns, NS_PER_SEC);
    struct tm tm;

    return localtime_r(&t, &tm) ? tm.tm_gmtoff : 0;
}

static bool rtc_realize(Device *d, GError **error)
{
    Rtc *r = (Rtc *)d;
    bool local = g_str_equal(r->base, "localtime");

    if (!local && !g_str_equal(r->base, "utc"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: base: \"%s\" is not utc or localtime",
                          d->id, r->base);
    r->region = (BusRegion){
        .name = "rtc", .len = RTC_PORTS, .ops = &rtc_ops, .owner = r, .lock = &d->lock};
    if (!bus_map(d->board->pio, &r->region, RTC_BASE, error))
        return false;
    r->irq = irq_line_new(d->board->irq, RTC_IRQ, d->id);
    r->timer = timer_new(d->board->timers, rtc_timer, r);
    r->regs.cells[RTC_REG_A] = A_DV_32K | A_RATE_1024HZ;
    r->regs.cells[RTC_REG_B] = B_24H;
    if (local)
        r->regs.offset_ns = local_offset_sec(clock_wall_ns(d->board->clock)) * NS_PER_SEC;
    r->regs.checked_ns = clock_now_ns(d->board->clock);
    r->regs.checked_sec = floor_div(rtc_time_ns(r), NS_PER_SEC);
    return true;
}

/* The guest clock may have started elsewhere: what passed in between is not a flag. */
static bool rtc_post_load(void *obj, unsigned version, GError **error)
{
    Rtc *r = obj;

    if (r->regs.checked_sec < -RTC_WRAP_SEC || r->regs.checked_sec > RTC_WRAP_SEC)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: checked_sec is out of range", r->dev.id);
    r->regs.checked_ns = clock_now_ns(r->dev.board->clock);
    check_flags(r);
    arm(r);
    return true;
}

static const PropSpec rtc_props[] = {
    {.name = "base", .help = "what the clock shows: utc or localtime", .kind = PROP_STRING,
     .offset = offsetof(Rtc, base), .max = 16, .preset = "utc"},
    {NULL},
};
static const StateField rtc_fields[] = {
    ST_U(RtcRegs, offset_ns, UINT64_MAX),
    ST_U(RtcRegs, checked_ns, INT64_MAX),
    ST_U(RtcRegs, checked_sec, UINT64_MAX),
    ST_RAW(RtcRegs, cells),
    ST_RAW(RtcRegs, held),
    ST_U(RtcRegs, held_century, 0xff),
    ST_U(RtcRegs, index, RTC_INDEX_MASK),
    ST_U(RtcRegs, index_high, RTC_INDEX_MASK),
    ST_U(RtcRegs, weekday_shift, 6),
    ST_SKIPPED(RtcRegs, pad, "always 0: rounds the structure up"),
    ST_END,
};
static const StateDesc rtc_state = {
    .name = "mc146818", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Rtc, regs), .regs_size = sizeof(RtcRegs),
    .fields = rtc_fields, .post_load = rtc_post_load,
};

const DeviceClass rtc_mc146818_class = {
    .name = "mc146818",
    .help = "Motorola MC146818: real-time clock with 256 bytes of CMOS memory",
    .instance_size = sizeof(Rtc),
    .props = rtc_props,
    .state = &rtc_state,
    .realize = rtc_realize,
    .reset = rtc_reset,
    .unrealize = rtc_unrealize,
};
