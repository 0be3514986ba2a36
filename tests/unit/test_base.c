/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The frame: clocks and timers, loops, guest memory, buses, the interrupt router, parsing. */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "lodge/bus.h"
#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/mem.h"
#include "lodge/num.h"

/* ---- clock and timers ---- */

typedef struct Fired {
    LodgeTimer *timer;
    LodgeClock *clock;
    unsigned count;
    int64_t at, again_ns;
} Fired;

static void on_timer(void *opaque)
{
    Fired *f = opaque;
    f->count++;
    f->at = clock_now_ns(f->clock);
    if (f->again_ns)
        timer_arm(f->timer, f->at + f->again_ns);
}

static void test_timers_fire_in_order(void)
{
    LodgeClock *c = lodge_clock_new_manual(0);
    TimerQueue *q = timer_queue_new(c, NULL, NULL);
    Fired f[20] = {0};
    for (unsigned i = 0; i < 20; i++) {
        f[i].clock = c;
        f[i].timer = timer_new(q, on_timer, &f[i]);
        timer_arm(f[i].timer, (int64_t)((i * 7) % 20) * 100 + 100);
    }
    timer_cancel(f[3].timer);
    g_assert_cmpint(timer_queue_next(q), ==, 100);
    timer_queue_advance(q, 1000);
    for (unsigned i = 0; i < 20; i++) {
        int64_t due = (int64_t)((i * 7) % 20) * 100 + 100;
        g_assert_cmpuint(f[i].count, ==, i != 3 && due <= 1000);
        if (f[i].count)
            g_assert_cmpint(f[i].at, ==, due);
    }
    for (unsigned i = 0; i < 20; i++)
        timer_free(f[i].timer);
    g_assert_cmpint(timer_queue_next(q), ==, TIMER_NEVER);
    timer_queue_free(q);
    lodge_clock_free(c);
}

static void test_timer_in_the_past_cannot_spin(void)
{
    LodgeClock *c = lodge_clock_new_manual(0);
    TimerQueue *q = timer_queue_new(c, NULL, NULL);
    Fired f = {.clock = c, .again_ns = -1};
    f.timer = timer_new(q, on_timer, &f);
    timer_arm(f.timer, 0);
    timer_queue_run(q);
    g_assert_cmpuint(f.count, ==, 1);
    timer_free(f.timer);
    timer_queue_free(q);
    lodge_clock_free(c);
}

/* ---- loop ---- */

typedef struct Loop {
    GMutex mutex;
    GCond cond;
    unsigned calls;
    int fd;
} Loop;

static void count_call(void *opaque)
{
    Loop *l = opaque;
    g_mutex_lock(&l->mutex);
    l->calls++;
    g_cond_signal(&l->cond);
    g_mutex_unlock(&l->mutex);
}

static void count_event(void *opaque, uint32_t events)
{
    Loop *l = opaque;
    uint64_t v;
    g_assert_cmpint(read(l->fd, &v, sizeof v), ==, sizeof v);
    count_call(l);
}

static void wait_calls(Loop *l, unsigned n)
{
    gint64 deadline = g_get_monotonic_time() + 10 * G_TIME_SPAN_SECOND;
    g_mutex_lock(&l->mutex);
    while (l->calls < n)
        g_assert_true(g_cond_wait_until(&l->cond, &l->mutex, deadline));
    g_mutex_unlock(&l->mutex);
}

/* A ring of one number: @put by another thread, which kicks only if the loop asked for it. */
typedef struct Ring {
    uint32_t put, armed; /* atomic */
    uint32_t taken;      /* atomic; the loop's */
    uint32_t looks;      /* likewise */
    int fd;
} Ring;

static bool ring_look(void *opaque)
{
    Ring *r = opaque;
    uint32_t put = __atomic_load_n(&r->put, __ATOMIC_ACQUIRE);

    __atomic_fetch_add(&r->looks, 1, __ATOMIC_RELAXED);
    if (put == r->taken)
        return false;
    __atomic_store_n(&r->armed, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&r->taken, put, __ATOMIC_RELEASE);
    return true;
}

static bool ring_arm(void *opaque, bool on)
{
    Ring *r = opaque;

    __atomic_store_n(&r->armed, on, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&r->put, __ATOMIC_SEQ_CST) != r->taken;
}

static void ring_kicked(void *opaque, uint32_t events)
{
    (void)ring_look(opaque);
}

/* Nothing is lost between looking and sleeping; other work gets its turn meanwhile. */
static void test_poll(void)
{
    static const IoPollOps ops = {.look = ring_look, .arm = ring_arm};
    gint64 deadline = g_get_monotonic_time() + 60 * G_TIME_SPAN_SECOND;
    GError *error = NULL;
    LodgeClock *c = lodge_clock_new();
    IoThread *t = io_thread_new("test", c, &error);
    g_assert_no_error(error);
    Ring r = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    Loop l = {.fd = -1};
    IoWatch *w = io_watch_new(t, r.fd, EPOLLIN | EPOLLET, ring_kicked, &r, &error);
    g_assert_no_error(error);
    IoPoll *p = io_poll_new(t, &ops, &r);
    for (unsigned i = 1; i <= 5000; i++) {
        uint64_t one = 1;
        __atomic_store_n(&r.put, i, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&r.armed, __ATOMIC_SEQ_CST))
            g_assert_cmpint(write(r.fd, &one, sizeof one), ==, sizeof one);
        if (i % 100 == 0)
            io_thread_post(t, count_call, &l);
        if (i % 1000 == 0) { /* a long pause shuts the window, and what follows opens it again */
            g_usleep(2000);
        } else if (i % 3 == 0) {
            continue;
        }
        while (__atomic_load_n(&r.taken, __ATOMIC_ACQUIRE) != i)
            g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    wait_calls(&l, 50);
    io_poll_free(p);
    io_watch_free(w);
    unsigned looks = r.looks;
    io_thread_call(t, count_call, &l);
    g_assert_cmpuint(__atomic_load_n(&r.looks, __ATOMIC_RELAXED), ==, looks);
    io_thread_free(t);
    lodge_clock_free(c);
    close(r.fd);
}

/* A poll that always finds work, which takes long. */
typedef struct Busy {
    IoThread *io;
    int fd;
    unsigned looks, fired_at; /* the loop's; fired_at: looks until the event came, 0: not yet */
    bool done;                /* atomic */
} Busy;

static bool busy_look(void *opaque)
{
    Busy *b = opaque;
    uint64_t one = 1;

    if (b->fired_at || b->looks == 64) {
        __atomic_store_n(&b->done, true, __ATOMIC_RELEASE);
        return false;
    }
    if (!b->looks++)
        g_assert_cmpint(write(b->fd, &one, sizeof one), ==, sizeof one);
    io_thread_others_first(b->io);
    return true;
}

static void busy_event(void *opaque, uint32_t events)
{
    Busy *b = opaque;

    if (!b->fired_at)
        b->fired_at = b->looks;
}

/* Who took long lets events come before it goes on. */
static void test_others_first(void)
{
    static const IoPollOps ops = {.look = busy_look};
    gint64 deadline = g_get_monotonic_time() + 30 * G_TIME_SPAN_SECOND;
    GError *error = NULL;
    LodgeClock *c = lodge_clock_new();
    Busy b = {.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .io = io_thread_new("test", c, &error)};
    g_assert_no_error(error);
    IoWatch *w = io_watch_new(b.io, b.fd, EPOLLIN | EPOLLET, busy_event, &b, &error);
    g_assert_no_error(error);
    IoPoll *p = io_poll_new(b.io, &ops, &b);
    while (!__atomic_load_n(&b.done, __ATOMIC_ACQUIRE)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        io_thread_wake(b.io);
    }
    g_assert_cmpuint(b.fired_at, >, 0);
    g_assert_cmpuint(b.fired_at, <=, 2); /* the first look may be the one right after a sleep */
    io_poll_free(p);
    io_watch_free(w);
    io_thread_free(b.io);
    lodge_clock_free(c);
    close(b.fd);
}

static void test_loop(void)
{
    GError *error = NULL;
    LodgeClock *c = lodge_clock_new();
    IoThread *t = io_thread_new("test", c, &error);
    g_assert_no_error(error);
    Loop l = {.fd = eventfd(0, EFD_CLOEXEC)};
    for (unsigned i = 0; i < 1000; i++)
        io_thread_post(t, count_call, &l);
    wait_calls(&l, 1000);
    io_thread_call(t, count_call, &l);
    g_assert_cmpuint(l.calls, ==, 1001);
    LodgeTimer *timer = timer_new(io_thread_timers(t), count_call, &l);
    timer_arm(timer, clock_now_ns(c) + 1000000);
    wait_calls(&l, 1002);
    IoWatch *w = io_watch_new(t, l.fd, EPOLLIN, count_event, &l, &error);
    g_assert_no_error(error);
    uint64_t one = 1;
    g_assert_cmpint(write(l.fd, &one, sizeof one), ==, sizeof one);
    wait_calls(&l, 1003);
    io_watch_free(w);
    g_assert_cmpint(write(l.fd, &one, sizeof one), ==, sizeof one);
    io_thread_call(t, count_call, &l);
    g_assert_cmpuint(l.calls, ==, 1004);
    g_assert_null(io_watch_new(t, -1, EPOLLIN, count_event, &l, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_clear_error(&error);
    timer_free(timer);
    io_thread_free(t);
    lodge_clock_free(c);
    close(l.fd);
}

/* ---- memory ---- */

/* What runs over an end of a block meets no other memory. */
static void test_memory_ends(void)
{
    static const unsigned flags[] = {0, MEM_SHARED, MEM_READ_ONLY | MEM_DIRTY_LOG};
    int to[2];
    g_assert_cmpint(pipe(to), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
        g_autoptr(MemBlock) b = mem_block_new("b", 8 * KIB, flags[i], NULL);
        uint8_t *host = mem_block_host(b);
        g_assert_cmpint(write(to[1], host, 1), ==, 1);
        g_assert_cmpint(write(to[1], host + 8 * KIB - 1, 1), ==, 1);
        g_assert_cmpint(write(to[1], host - 1, 1), ==, -1);
        g_assert_cmpint(errno, ==, EFAULT);
        g_assert_cmpint(write(to[1], host + 8 * KIB, 1), ==, -1);
        g_assert_cmpint(errno, ==, EFAULT);
    }
    close(to[0]);
    close(to[1]);
}

static void test_memory(void)
{
    GError *error = NULL;
    g_autoptr(MemMap) m = mem_map_new();
    MemBlock *ram = mem_block_new("ram", 16 * KIB, 0, &error);
    g_assert_no_error(error);
    g_assert_true(mem_map_add(m, ram, 0, 0, 8 * KIB, &error));
    g_assert_true(mem_map_add(m, ram, 8 * KIB, 8 * KIB, 8 * KIB, &error));
    MemBlock *rom = mem_block_new("rom", 4 * KIB, MEM_READ_ONLY, &error);
    g_assert_true(mem_map_add(m, rom, 1 * MIB, 0, 4 * KIB, &error));
    g_autoptr(MemBlock) extra = mem_block_new("extra", 4 * KIB, 0, &error);
    g_assert_false(mem_map_add(m, extra, 12 * KIB, 0, 4 * KIB, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);

    uint8_t a[64], b[64];
    memset(a, 0x5a, sizeof a);
    g_assert_true(mem_write(m, 8 * KIB - 32, a, 64)); /* spans two ranges */
    g_assert_true(mem_read(m, 8 * KIB - 32, b, 64));
    g_assert_cmpmem(a, 64, b, 64);
    g_assert_false(mem_write(m, 16 * KIB - 32, a, 64));
    g_assert_true(mem_read(m, 16 * KIB - 32, b, 32));
    g_assert_cmpuint(b[0], ==, 0); /* all or nothing */
    g_assert_false(mem_read(m, 16 * KIB - 32, b, 64));
    g_assert_cmpuint(b[63], ==, 0);
    g_assert_false(mem_read(m, UINT64_MAX - 3, b, 8));
    g_assert_false(mem_write(m, 1 * MIB, a, 4));
    g_assert_true(mem_load(m, 1 * MIB, a, 4));
    g_assert_true(mem_zero(m, 8 * KIB - 32, 64));

    MemPin pin;
    g_assert_true(mem_pin(m, 0, 8 * KIB, true, &pin));
    g_assert_false(mem_pin(m, 4 * KIB, 8 * KIB, true, &pin)); /* two ranges */
    g_assert_null(pin.host);
    g_assert_false(mem_pin(m, 1 * MIB, 4, true, &pin));
    g_assert_true(mem_pin(m, 1 * MIB, 4, false, &pin));
    g_assert_cmpuint(mem_pin_some(m, 4 * KIB, 64 * KIB, false, &pin), ==, 4 * KIB);
    g_assert_false(mem_pin(m, 0, 0, false, &pin));
    mem_unpin(&pin);
}

/* ---- bus ---- */

typedef struct Chip {
    uint64_t last_off, last_val;
    unsigned last_size, writes;
} Chip;

static uint64_t chip_read(void *owner, uint64_t off, unsigned size)
{
    return 0x1122334455667788u >> (off * 8);
}

static void chip_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Chip *c = owner;
    c->last_off = off;
    c->last_val = val;
    c->last_size = size;
    c->writes++;
}

static const BusRegionOps byte_ops = {chip_read, chip_write, 1};
static const BusRegionOps wide_ops = {chip_read, chip_write, 4};

static void test_bus_widths(void)
{
    Bus *b = bus_new("port", 65536);
    BusReader *rd = bus_reader_new(b);
    Chip chip = {0};
    BusRegion bytes = {.name = "bytes", .len = 8, .ops = &byte_ops, .owner = &chip};
    BusRegion wide = {.name = "wide", .len = 8, .ops = &wide_ops, .owner = &chip};
    GError *error = NULL;
    g_assert_true(bus_map(b, &bytes, 0x100, &error));
    g_assert_true(bus_map(b, &wide, 0x108, &error));
    g_assert_cmphex(bus_read(rd, 0x100, 4), ==, 0x55667788);
    g_assert_cmphex(bus_read(rd, 0x100, 8), ==, 0x1122334455667788u);
    bus_write(rd, 0x100, 4, 0xa1b2c3d4);
    g_assert_cmpuint(chip.writes, ==, 4);
    g_assert_cmphex(chip.last_val, ==, 0xa1);
    g_assert_cmphex(bus_read(rd, 0x108, 1), ==, 0xff); /* narrower than it takes */
    g_assert_cmphex(bus_read(rd, 0x108, 8), ==, 0x1122334455667788u);
    g_assert_cmphex(bus_read(rd, 0x107, 2), ==, 0xff11); /* across two regions */
    g_assert_cmphex(bus_read(rd, 0x200, 4), ==, 0xffffffff);
    g_assert_cmphex(bus_read(rd, 0xffff, 4), ==, 0xffffffff);
    uint64_t r, w;
    bus_unclaimed(b, &r, &w);
    g_assert_cmpuint(r, >, 0);
    g_assert_cmpstr(bus_region_at(b, 0x10f), ==, "wide");
    BusRegion clash = {.name = "clash", .len = 4, .ops = &byte_ops, .owner = &chip};
    g_assert_false(bus_map(b, &clash, 0x10c, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_assert_nonnull(strstr(error->message, "wide"));
    g_clear_error(&error);
    g_assert_false(bus_map(b, &clash, 0xfffe, &error));
    g_clear_error(&error);
    bus_reader_free(rd);
    bus_free(b);
}

static void count_region(void *opaque, const BusRegion *r, uint64_t hits)
{
    g_string_append_printf(opaque, "%s=%" PRIu64 " ", r->name, hits);
}

static void test_bus_counts(void)
{
    Bus *b = bus_new("port", 65536);
    BusReader *rd = bus_reader_new(b);
    Chip chip = {0};
    BusRegion idle = {.name = "idle", .len = 1, .ops = &byte_ops, .owner = &chip};
    BusRegion used = {.name = "used", .len = 2, .ops = &byte_ops, .owner = &chip};
    GString *text = g_string_new(NULL);
    GError *error = NULL;
    g_assert_true(bus_map(b, &idle, 0x100, &error));
    g_assert_true(bus_map(b, &used, 0x40, &error));
    bus_write(rd, 0x40, 1, 1);
    (void)bus_read(rd, 0x41, 1);
    (void)bus_read(rd, 0x42, 1); /* nobody's */
    bus_each_region(b, count_region, text);
    g_assert_cmpstr(text->str, ==, "idle=0 used=2 ");
    g_assert_cmpstr(bus_name(b), ==, "port");
    g_string_free(text, TRUE);
    bus_reader_free(rd);
    bus_free(b);
}

static void test_bus_moves(void)
{
    Bus *b = bus_new("mmio", UINT64_C(1) << 52);
    BusReader *rd = bus_reader_new(b);
    Chip first = {0}, second = {0};
    BusRegion r1 = {.name = "first", .len = 0x1000, .ops = &byte_ops, .owner = &first};
    BusRegion r2 = {.name = "second", .len = 0x3000, .ops = &byte_ops, .owner = &second};
    bus_place(b, &r1, 0x2000);
    bus_place(b, &r2, 0x1000); /* round the first: two pieces */
    bus_write(rd, 0x1000, 1, 1);
    bus_write(rd, 0x2004, 1, 2);
    bus_write(rd, 0x3008, 1, 3);
    g_assert_cmpuint(first.writes, ==, 1);
    g_assert_cmphex(first.last_off, ==, 4);
    g_assert_cmpuint(second.writes, ==, 2);
    g_assert_cmphex(second.last_off, ==, 0x2008);
    bus_place(b, &r1, UINT64_C(1) << 52); /* does not fit: gone */
    g_assert_false(r1.mapped);
    bus_write(rd, 0x2004, 1, 2);
    g_assert_cmpuint(second.writes, ==, 3);
    bus_unmap(b, &r2);
    bus_unmap(b, &r2);
    g_assert_cmphex(bus_read(rd, 0x1000, 1), ==, 0xff);
    bus_reader_free(rd);
    bus_free(b);
}

/* A shift register; told to, it takes itself off the bus in the middle of a string. */
typedef struct Fifo {
    Bus *bus;
    BusRegion region;
    uint32_t at, leave_at;
} Fifo;

static uint64_t fifo_read(void *owner, uint64_t off, unsigned size)
{
    Fifo *f = owner;
    f->at++;
    if (f->at == f->leave_at)
        bus_unmap(f->bus, &f->region);
    return f->at * 0x01010101u;
}

static void fifo_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Fifo *f = owner;
    f->at = f->at * 3 + (uint32_t)val + (uint32_t)off;
    if (f->leave_at && !--f->leave_at)
        bus_unmap(f->bus, &f->region);
}

static const BusRegionOps fifo_ops = {fifo_read, fifo_write, 1 | 2};

/* String accesses are the same as that many single ones, in the widths of the region, in others, and
 * where it goes away meanwhile. */
static void test_bus_strings(void)
{
    const uint8_t out[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255};
    for (unsigned leave = 0; leave < 4; leave++) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            Fifo fifo[2] = {{.leave_at = leave}, {.leave_at = leave}};
            uint8_t in[2][16];
            uint64_t lost[2][2], hits[2];
            for (unsigned way = 0; way < 2; way++) {
                Fifo *f = &fifo[way];
                Bus *b = f->bus = bus_new("port", 65536);
                BusReader *rd = bus_reader_new(b);
                f->region = (BusRegion){.name = "fifo", .len = 4, .ops = &fifo_ops, .owner = f};
                for (unsigned dir = 0; dir < 2; dir++) {
                    bus_place(b, &f->region, 0x10);
                    f->leave_at = leave;
                    unsigned n = sizeof out / size;
                    if (!way && dir)
                        bus_write_string(rd, 0x10, size, out, n);
                    else if (!way)
                        bus_read_string(rd, 0x10, size, in[way], n);
                    for (unsigned i = 0; way && i < n; i++) {
                        uint64_t v = 0;
                        memcpy(&v, out + i * size, size);
                        if (dir)
                            bus_write(rd, 0x10, size, v);
                        else
                            v = bus_read(rd, 0x10, size);
                        memcpy(in[way] + i * size, &v, dir ? 0 : size);
                    }
                }
                bus_unclaimed(b, &lost[way][0], &lost[way][1]);
                hits[way] = f->region.hits;
                bus_reader_free(rd);
                bus_free(b);
            }
            g_assert_cmpmem(in[0], 16, in[1], 16);
            g_assert_cmphex(fifo[0].at, ==, fifo[1].at);
            g_assert_cmpuint(lost[0][0], ==, lost[1][0]);
            g_assert_cmpuint(lost[0][1], ==, lost[1][1]);
            g_assert_true((lost[0][0] > 0) == (leave > 0));
            g_assert_cmpuint(hits[0], ==, hits[1]);
        }
    }
}

/* ---- interrupts ---- */

typedef struct Pins {
    unsigned changes;
    bool level[IRQ_GSIS];
    unsigned eois;
    Irq *irq;
    IrqLine *line;
} Pins;

static void see_pin(void *opaque, unsigned gsi, bool level)
{
    Pins *p = opaque;
    p->changes++;
    p->level[gsi] = level;
}

static void on_eoi(void *opaque)
{
    Pins *p = opaque;
    lock_assert_none();
    p->eois++;
    irq_line_set(p->line, false);
}

static void test_irq_lines(void)
{
    Irq *q = irq_new();
    Pins pic = {0}, apic = {.irq = q};
    irq_set_pic(q, &(IrqSink){see_pin, &pic});
    irq_set_ioapic(q, &(IrqSink){see_pin, &apic});
    IrqLine *a = irq_line_new(q, 10, "a"), *b = irq_line_new(q, 10, "b"), *t = irq_line_new(q, 0, "t");
    irq_line_set(a, true);
    irq_line_set(a, true);
    irq_line_set(b, true);
    g_assert_cmpuint(pic.changes, ==, 1);
    irq_line_set(a, false);
    g_assert_true(pic.level[10]);
    irq_line_free(b);
    g_assert_false(pic.level[10]);
    irq_line_set(t, true);
    g_assert_true(pic.level[0]);
    g_assert_true(apic.level[2]);
    apic.line = a;
    irq_line_on_eoi(a, on_eoi, &apic);
    irq_line_set(a, true);
    irq_lock_take(q);
    irq_eoi_locked(q, 10);
    g_assert_cmpuint(apic.eois, ==, 0);
    irq_lock_drop(q);
    g_assert_cmpuint(apic.eois, ==, 1);
    g_assert_false(apic.level[10]);
    irq_line_free(a);
    irq_line_free(t);
    irq_free(q);
}

static void count_msi(void *opaque, uint64_t addr, uint32_t data)
{
    Pins *p = opaque;
    p->changes++;
    p->eois = data;
}

static void test_irq_messages(void)
{
    Irq *q = irq_new();
    Pins p = {0};
    irq_set_hooks(q, &(IrqHooks){.msi = count_msi, .opaque = &p});
    irq_msi_send(q, 0xfee00000, 0x41);
    irq_msi_send(q, 0x1000, 0x42); /* no message address: dropped */
    g_assert_cmpuint(p.changes, ==, 1);
    IrqMsi *m = irq_msi_new(q, "m");
    irq_msi_set(m, 0xfee01000, 0x55);
    irq_msi_raise(m);
    irq_msi_raise(m);
    g_assert_true(irq_msi_pending(m));
    g_assert_cmpuint(p.changes, ==, 1);
    irq_msi_mask(m, false); /* the two raises are one */
    g_assert_cmpuint(p.changes, ==, 2);
    g_assert_cmphex(p.eois, ==, 0x55);
    g_assert_false(irq_msi_pending(m));
    irq_msi_free(m);
    irq_free(q);
}

/* ---- parsing ---- */

static void test_parse(void)
{
    uint64_t v;
    bool b;
    uint8_t mac[6];
    g_assert_true(parse_size("256M", &v) && v == 256 * MIB);
    g_assert_true(parse_size("0x10k", &v) && v == 16 * KIB);
    g_assert_true(parse_size("512", &v) && v == 512);
    g_assert_false(parse_size("", &v));
    g_assert_false(parse_size("-1", &v));
    g_assert_false(parse_size("1MM", &v));
    g_assert_false(parse_size("99999999T", &v));
    g_assert_false(parse_size("99999999999999999999999", &v));
    g_assert_false(parse_u64("12K", &v));
    g_assert_true(parse_bool("off", &b) && !b);
    g_assert_false(parse_bool("maybe", &b));
    g_assert_true(parse_mac("52:54:00:12:34:5f", mac) && mac[5] == 0x5f);
    g_assert_false(parse_mac("52:54:00:12:34", mac));
    g_assert_false(parse_mac("52:54:00:12:34:5f:", mac));
    g_assert_false(parse_mac("52-54-00-12-34-5f", mac));
}

/* A loop that fell asleep on a paused clock wakes when it goes on. */
static void test_loop_on_paused_clock(void)
{
    LodgeClock *c = lodge_clock_new();
    IoThread *io = io_thread_new("test", c, NULL);
    Fired f = {.clock = c};
    f.timer = timer_new(io_thread_timers(io), on_timer, &f);
    clock_pause(c);
    timer_arm(f.timer, clock_now_ns(c) + NS_PER_SEC / 100);
    g_usleep(G_USEC_PER_SEC / 20); /* time to fall asleep; too little only makes the test easier */
    g_assert_cmpuint(__atomic_load_n(&f.count, __ATOMIC_SEQ_CST), ==, 0);
    clock_resume(c);
    gint64 deadline = g_get_monotonic_time() + 10 * G_TIME_SPAN_SECOND;
    while (!__atomic_load_n(&f.count, __ATOMIC_SEQ_CST)) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_usleep(1000);
    }
    timer_free(f.timer);
    io_thread_free(io);
    lodge_clock_free(c);
}

/* What the guest moves: the layout follows, and refuses what overlaps. */
static void test_memory_moves(void)
{
    g_autoptr(MemMap) m = mem_map_new();
    MemBlock *ram = mem_block_new("ram", 16 * 4096, 0, NULL);
    MemBlock *rom = mem_block_new("rom", 4 * 4096, MEM_READ_ONLY, NULL);
    MemPin pin;
    uint32_t v = 0;
    g_assert_true(mem_map_add(m, ram, 0, 0, 8 * 4096, NULL));
    mem_map_own(m, rom);
    g_assert_true(mem_map_block(m, "rom") == rom && !mem_map_block(m, "none"));
    g_assert_true(mem_map_place(m, rom, 0x10000, 0, 4096, true));
    g_assert_false(mem_map_place(m, rom, 0x0f000, 0, 2 * 4096, true));
    g_assert_false(mem_map_place(m, rom, 0x7000, 0, 4096, true));
    g_assert_false(mem_map_place(m, rom, 0x10000, 4 * 4096, 4096, true));
    g_assert_false(mem_map_place(m, rom, 0x10001, 0, 4096, true));
    g_assert_false(mem_map_place(m, rom, UINT64_MAX - 4095, 0, 4096, true));
    g_assert_false(mem_write(m, 0x10000, "1234", 4));
    g_assert_true(mem_load(m, 0x10000, "1234", 4));
    /* Shadowed: the same place shows memory, written and read-only in turn. */
    g_assert_true(mem_map_place(m, ram, 0x10000, 8 * 4096, 4096, false));
    g_assert_true(mem_read(m, 0x10000, &v, 4) && v == 0);
    g_assert_true(mem_write(m, 0x10000, "5678", 4));
    g_assert_true(mem_map_place(m, ram, 0x10000, 8 * 4096, 4096, true));
    g_assert_false(mem_write(m, 0x10000, "1234", 4));
    g_assert_false(mem_pin(m, 0x10000, 4, true, &pin));
    g_assert_true(mem_read(m, 0x10000, &v, 4) && !memcmp(&v, "5678", 4));
    g_assert_true(mem_map_place(m, NULL, 0x10000, 0, 4096, false));
    g_assert_false(mem_read(m, 0x10000, &v, 4));
    /* Nothing is used up by moving. */
    for (unsigned i = 0; i < 10000; i++) {
        g_assert_true(mem_map_place(m, rom, 0x20000 + 4096 * (i % 7), 0, 4096, true));
        g_assert_true(mem_map_place(m, NULL, 0x20000 + 4096 * (i % 7), 0, 4096, true));
    }
}

static void test_memory_dirty(void)
{
    g_autoptr(MemMap) m = mem_map_new();
    MemBlock *vram = mem_block_new("vram", 70 * 4096, MEM_DIRTY_LOG, NULL);
    uint8_t map[16] = {0};
    MemPin pin;
    mem_map_own(m, vram);
    g_assert_true(mem_map_place(m, vram, 1 << 20, 0, 70 * 4096, false));
    g_assert_false(mem_dirty_fetch(m, vram, map));
    g_assert_true(mem_write(m, (1 << 20) + 4095, "ab", 2));
    g_assert_true(mem_pin(m, (1 << 20) + 69 * 4096, 4096, true, &pin));
    mem_unpin(&pin);
    g_assert_true(mem_pin(m, (1 << 20) + 30 * 4096, 4096, false, &pin));
    mem_unpin(&pin);
    g_assert_true(mem_dirty_fetch(m, vram, map));
    g_assert_cmpuint(map[0], ==, 3);
    g_assert_cmpuint(map[8], ==, 1 << 5);
    g_assert_cmpuint(map[3], ==, 0);
    g_assert_false(mem_dirty_fetch(m, vram, map));
}

typedef struct Gathered {
    uint64_t addr, len;
    unsigned on, off, settled;
} Gathered;

static void note_coalesce(void *opaque, Bus *b, uint64_t addr, uint64_t len, bool on)
{
    Gathered *g = opaque;
    g->addr = addr;
    g->len = len;
    g->on += on;
    g->off += !on;
}

static void note_settle(void *opaque)
{
    ((Gathered *)opaque)->settled++;
}

static void test_bus_gathers(void)
{
    Gathered g = {0};
    BusEventHooks hooks = {.coalesce = note_coalesce, .settle = note_settle, .opaque = &g};
    static const BusSpan all[] = {BUS_SPAN_ALL, {0}};
    static const BusSpan some[] = {{2, 1}, {0xfe, 4}, {0x100, 1}, {0}};
    static const BusRegionOps ops = {.sizes = 1, .coalesce = all};
    static const BusRegionOps partly = {.sizes = 1, .coalesce = some};
    BusRegion r = {.name = "screen", .len = 0x100, .ops = &ops};
    BusRegion chip = {.name = "chip", .len = 0x100, .ops = &partly};
    Bus *b = bus_new("mmio", 1 << 20);
    bus_settle(b); /* without hooks: nothing to bring */
    bus_set_event_hooks(b, &hooks);
    g_assert_true(bus_map(b, &r, 0x1000, NULL));
    g_assert_cmpuint(g.addr, ==, 0x1000);
    g_assert_cmpuint(g.len, ==, 0x100);
    bus_place(b, &r, 0x2000);
    g_assert_cmpuint(g.on, ==, 2);
    g_assert_cmpuint(g.off, ==, 1);
    g_assert_cmpuint(g.addr, ==, 0x2000);
    bus_unmap(b, &r);
    g_assert_cmpuint(g.off, ==, 2);
    bus_settle(b);
    g_assert_cmpuint(g.settled, ==, 1);
    g_assert_true(bus_map(b, &chip, 0x1000, NULL)); /* two parts; the third lies outside */
    g_assert_cmpuint(g.on, ==, 4);
    g_assert_cmphex(g.addr, ==, 0x10fe);
    g_assert_cmpuint(g.len, ==, 2);
    bus_unmap(b, &chip);
    g_assert_cmpuint(g.off, ==, 4);
    bus_free(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/timers/order", test_timers_fire_in_order);
    g_test_add_func("/timers/past", test_timer_in_the_past_cannot_spin);
    g_test_add_func("/loop/all", test_loop);
    g_test_add_func("/loop/poll", test_poll);
    g_test_add_func("/loop/others-first", test_others_first);
    g_test_add_func("/loop/paused-clock", test_loop_on_paused_clock);
    g_test_add_func("/mem/all", test_memory);
    g_test_add_func("/mem/ends", test_memory_ends);
    g_test_add_func("/mem/moves", test_memory_moves);
    g_test_add_func("/mem/dirty", test_memory_dirty);
    g_test_add_func("/bus/gathers", test_bus_gathers);
    g_test_add_func("/bus/widths", test_bus_widths);
    g_test_add_func("/bus/counts", test_bus_counts);
    g_test_add_func("/bus/moves", test_bus_moves);
    g_test_add_func("/bus/strings", test_bus_strings);
    g_test_add_func("/irq/lines", test_irq_lines);
    g_test_add_func("/irq/messages", test_irq_messages);
    g_test_add_func("/parse/all", test_parse);
    return g_test_run();
}
