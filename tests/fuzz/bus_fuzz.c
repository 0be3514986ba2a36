/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See bus_fuzz.h. Operations, accesses and guest time of one input are bounded. */
#include <string.h>

#include "bus_fuzz.h"
#include "lodge/num.h"

enum {
    OPS_MAX = 4096,
    ACCESSES_MAX = 16384, /* of bursts */
    BURST_MAX = 256,
    STATE_HEAD = 700, /* bytes at the start of a state that are damaged more often */
    STATES_MAX = 16,      /* a state costs as much as a thousand accesses */
    UNIT = 16,            /* of memory places */
    NS_SHIFT_MAX = 30,    /* one step of time: up to 2^30 ns */
    DEFAULT_SECONDS = 4,
};

/* Kinds of operation; the widths of the others are 1, 2, 4 and 8 (MMIO) or 4 (ports). */
enum {
    OP_PORT_WRITE,
    OP_PORT_READ,
    OP_MMIO_WRITE,
    OP_MMIO_READ,
    OP_BURST_WRITE,
    OP_BURST_READ,
    OP_CONFIG_WRITE,
    OP_CONFIG_READ,
    OP_FILL,     /* bytes of the input into guest memory */
    OP_POINTERS, /* addresses of guest memory into guest memory */
    OP_TIME,
    OP_EVENT,
    OP_STATE, /* of a device: save, load, save; or load with a byte turned over */
    OP_RESET,
    OP_ACK, /* the CPU takes an interrupt from the PIC */
    OP_MMIO_BURST,
};
#define VARIATION(op) ((op) >> 6)
#define AS_ADDRESS 1 /* variation of a write: the value is an address of guest memory */

typedef struct Program {
    const BusFuzz *f;
    TestBoard *tb;
    const uint8_t *data;
    size_t len;
    uint64_t ram;
    int64_t ns_left;
    unsigned accesses_left, states_left;
    uint64_t ports, mmio; /* sizes of the entry's spaces */
    unsigned devfns;
} Program;

static uint64_t take(Program *p, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes && p->len; i++, p->data++, p->len--)
        v |= (uint64_t)*p->data << (8 * i);
    return v;
}

static uint64_t space_size(const BusFuzzRegion *r)
{
    uint64_t sum = 0;

    for (; r && r->len; r++)
        sum += r->len;
    return sum;
}

/* An address in a space of @size > 0, from as few bytes of input as reach all of it. */
static uint64_t take_place(Program *p, const BusFuzzRegion *r, uint64_t size)
{
    uint64_t at = take(p, size <= 0x100 ? 1 : size <= 0x10000 ? 2 : 4) % size;

    for (; at >= r->len; r++)
        at -= r->len;
    return r->base + at;
}

static uint64_t take_memory(Program *p)
{
    return take(p, 2) * UNIT % p->ram;
}

static uint64_t take_value(Program *p, uint8_t op, unsigned size)
{
    return VARIATION(op) == AS_ADDRESS ? take_memory(p) : take(p, size);
}

static void one_access(Program *p, uint8_t op, bool mmio, bool write)
{
    unsigned size = 1u << (op >> 4 & 3);

    if (!(mmio ? p->mmio : p->ports))
        return;
    if (mmio) {
        uint64_t at = take_place(p, p->f->mmio, p->mmio);
        if (write)
            test_poke(p->tb, at, size, take_value(p, op, size));
        else
            (void)test_peek(p->tb, at, size);
        return;
    }
    uint16_t port = (uint16_t)take_place(p, p->f->ports, p->ports);
    size = MIN(size, 4);
    if (write)
        test_out(p->tb, port, size, take_value(p, op, size));
    else
        (void)test_in(p->tb, port, size);
}

static void string(Program *p, uint16_t port, unsigned size, unsigned n, uint64_t val, uint64_t inc,
                   bool write)
{
    uint8_t data[BURST_MAX * 4] = {0};

    for (unsigned i = 0; write && i < n; i++, val += inc)
        memcpy(data + i * size, &val, size);
    if (write)
        bus_write_string(p->tb->pio, port, size, data, n);
    else
        bus_read_string(p->tb->pio, port, size, data, n);
}

/* The same place many times, as loops or string instructions have it: data ports and FIFOs. Values
 * are a first one and a step. */
static void burst(Program *p, uint8_t op, bool mmio, bool write)
{
    const BusFuzzRegion *space = mmio ? p->f->mmio : p->f->ports;
    uint64_t space_len = mmio ? p->mmio : p->ports;
    unsigned size = MIN(1u << (op >> 4 & 3), mmio ? 8 : 4);

    if (!space_len)
        return;
    uint64_t at = take_place(p, space, space_len);
    unsigned n = (unsigned)take(p, 1) + 1; /* MIN evaluates its arguments twice */
    uint64_t val = write ? take(p, size) : 0, inc = write ? take(p, 1) : 0;

    n = MIN(n, p->accesses_left);
    p->accesses_left -= n;
    if (!mmio && VARIATION(op)) {
        string(p, (uint16_t)at, size, n, val, inc, write);
        return;
    }
    for (unsigned i = 0; i < n; i++, val += inc) {
        if (mmio && write)
            test_poke(p->tb, at, size, val);
        else if (mmio)
            (void)test_peek(p->tb, at, size);
        else if (write)
            test_out(p->tb, (uint16_t)at, size, val);
        else
            (void)test_in(p->tb, (uint16_t)at, size);
    }
}

static void config(Program *p, uint8_t op, bool write)
{
    unsigned size = MIN(1u << (op >> 4 & 3), 4);

    if (!p->devfns)
        return;
    uint8_t devfn = p->f->devfns[take(p, 1) % p->devfns];
    uint8_t reg = (uint8_t)take(p, 1);
    if (write)
        test_cfg_write(p->tb, devfn, reg, size, (uint32_t)take_value(p, op, size));
    else
        (void)test_cfg_read(p->tb, devfn, reg, size);
}

static void fill(Program *p)
{
    uint64_t at = take_memory(p);
    size_t n = take(p, 1) + 1;

    n = MIN(n, p->len);
    (void)mem_write(p->tb->board.mem, at, p->data, n); /* past the end: dropped */
    p->data += n;
    p->len -= n;
}

/* Descriptor rings: an address each @stride bytes, the next one @step further on. */
static void pointers(Program *p, uint8_t op)
{
    unsigned size = MIN(1u << (op >> 4 & 3), 8);
    uint64_t at = take_memory(p), to = take_memory(p);
    unsigned n = take(p, 1) % 64 + 1, stride = take(p, 1) % 64 + 1;
    uint64_t step = take(p, 1) * UNIT;

    for (unsigned i = 0; i < n; i++) {
        (void)mem_write(p->tb->board.mem, at + i * stride, &to, size);
        to = (to + step) % p->ram;
    }
}

static void pass_time(Program *p)
{
    uint64_t b = take(p, 1);
    int64_t ns = MIN(INT64_C(1) << MIN(b & 31, NS_SHIFT_MAX), p->ns_left);

    p->ns_left -= ns;
    test_advance(p->tb, ns);
}

static void note_quiet(Device *d, void *opaque)
{
    *(bool *)opaque = true;
}

static void load(Device *d, const GByteArray *from)
{
    GError *error = NULL;
    size_t used;

    state_load(d->cls->state, d, from->data, from->len, &used, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(used, ==, from->len);
}

static void quiet(Program *p, Device *d)
{
    bool done = false;

    device_quiesce(d, note_quiet, &done);
    if (!done && p->f->settle)
        p->f->settle(p->tb);
    g_assert_true(done);
}

/* A state that is loaded twice saves as the same (the first load may catch up with the clock); what
 * is loaded from damaged bytes is refused or keeps every bound. */
static void state(Program *p, uint8_t op)
{
    Device *d = g_ptr_array_index(p->tb->devices, take(p, 1) % p->tb->devices->len);
    g_autoptr(GByteArray) first = g_byte_array_new();
    g_autoptr(GByteArray) second = g_byte_array_new();
    size_t used;

    if (!p->states_left)
        return;
    p->states_left--;
    quiet(p, d);
    state_save(d->cls->state, d, first);
    if (VARIATION(op) && first->len) {
        size_t at = take(p, 2) % (VARIATION(op) == 1 ? first->len : MIN(first->len, STATE_HEAD));
        first->data[at] ^= (uint8_t)take(p, 1);
        if (!state_load(d->cls->state, d, first->data, first->len, &used, NULL))
            device_reset(d, RESET_COLD);
    } else {
        load(d, first);
        state_save(d->cls->state, d, second);
        load(d, second);
        g_byte_array_set_size(first, 0);
        state_save(d->cls->state, d, first);
        g_assert_cmpmem(first->data, first->len, second->data, second->len);
    }
    device_resume(d);
}

static void reset(Program *p, uint8_t op)
{
    for (unsigned i = 0; i < p->tb->devices->len; i++)
        device_reset(g_ptr_array_index(p->tb->devices, i),
                     VARIATION(op) ? RESET_WARM : RESET_COLD);
}

static void step(Program *p)
{
    uint8_t op = (uint8_t)take(p, 1);

    switch (op & 15) {
    case OP_PORT_WRITE:
    case OP_PORT_READ:
        one_access(p, op, false, (op & 15) == OP_PORT_WRITE);
        break;
    case OP_MMIO_WRITE:
    case OP_MMIO_READ:
        one_access(p, op, true, (op & 15) == OP_MMIO_WRITE);
        break;
    case OP_BURST_WRITE:
    case OP_BURST_READ:
        burst(p, op, false, (op & 15) == OP_BURST_WRITE);
        break;
    case OP_MMIO_BURST:
        burst(p, op, true, VARIATION(op));
        break;
    case OP_CONFIG_WRITE:
    case OP_CONFIG_READ:
        config(p, op, (op & 15) == OP_CONFIG_WRITE);
        break;
    case OP_FILL:
        fill(p);
        break;
    case OP_POINTERS:
        pointers(p, op);
        break;
    case OP_TIME:
        pass_time(p);
        break;
    case OP_EVENT:
        if (p->f->event)
            p->f->event(p->tb, (uint8_t)take(p, 1));
        break;
    case OP_STATE:
        state(p, op);
        break;
    case OP_RESET:
        reset(p, op);
        break;
    case OP_ACK:
        (void)irq_ack(p->tb->board.irq); /* -1 when nothing waits */
        break;
    }
}

static void quiet_all(Program *p)
{
    for (unsigned i = 0; i < p->tb->devices->len; i++)
        quiet(p, g_ptr_array_index(p->tb->devices, i));
}

static void free_devices(TestBoard *tb)
{
    while (tb->devices->len) {
        device_free(g_ptr_array_index(tb->devices, tb->devices->len - 1));
        g_ptr_array_set_size(tb->devices, (gint)tb->devices->len - 1);
    }
}

int bus_fuzz_run(const BusFuzz *f, const uint8_t *data, size_t len)
{
    Program p = {.f = f, .data = data, .len = len, .ram = f->ram ? f->ram : BUS_FUZZ_RAM,
                 .ns_left = f->max_ns ? f->max_ns : DEFAULT_SECONDS * NS_PER_SEC,
                 .accesses_left = ACCESSES_MAX, .states_left = STATES_MAX,
                 .ports = space_size(f->ports), .mmio = space_size(f->mmio)};

    while (f->devfns && f->devfns[p.devfns] != 0xff)
        p.devfns++;
    p.tb = test_board_new(p.ram);
    f->set_up(p.tb);
    for (unsigned n = 0; n < OPS_MAX && p.len; n++)
        step(&p);
    quiet_all(&p);
    free_devices(p.tb);
    if (f->tear_down)
        f->tear_down(p.tb);
    test_board_free(p.tb);
    return 0;
}
