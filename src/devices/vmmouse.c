/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Absolute pointer behind VMware's back-door port 0x5658: the guest's pointer stands where the
 * viewer's does.
 *
 * Spec: VMware's "VMware mouse protocol" as its open drivers speak it (xf86-input-vmmouse,
 * vmmouse_proto.h and vmmouse_defs.h; drivers/input/mouse/vmmouse.c of Linux).
 *
 * A 32-bit IN from the port, with a magic number in EAX and a command in CX, reads and writes
 * the general registers: the board lends them for the time of the access. Modelled: the version
 * (GETVERSION) and the pointer (ABSPOINTER_*), absolute. Left out: relative events (a guest that
 * asks for them moves by the PS/2 mouse, as before it knew the port), ABSPOINTER_RESTRICT (user
 * mode needs the permission for this port as for any other) and all other commands, which answer
 * all-ones. Writes do nothing.
 *
 * A guest that enabled the pointer reads events of four words from a queue when the PS/2 mouse
 * interrupts: each event makes that mouse send a packet that says nothing. In a full queue the
 * last event takes the state of the newest, so the last state always arrives.
 *
 * Threads: vCPU threads and whoever points, under the device's lock, which is not held when the
 * mouse is told.
 *
 * Invariants:
 * (1) the queue holds `count` words from `head` on; the last four are an event if any is there.
 */

#include "vmmouse.h"

#include "lodge/error.h"
#include "lodge/input.h"

#include "ps2_mouse.h"

#define VMPORT_BASE 0x5658
#define VMPORT_LEN 4
#define VMPORT_MAGIC 0x564d5868
#define VMPORT_NONE 0xffffffff
#define VMPORT_VERSION 6
#define VMPORT_PRODUCT 2 /* in ECX: a server */

/* vmmouse_proto.h: commands in CX */
enum {
    CMD_GET_VERSION = 10,
    CMD_POINTER_DATA = 39,
    CMD_POINTER_STATUS = 40,
    CMD_POINTER_COMMAND = 41,
};
/* vmmouse_defs.h: pointer commands in EBX */
#define POINTER_ENABLE 0x45414552
#define POINTER_DISABLE 0x000000f5
#define POINTER_RELATIVE 0x4c455252
#define POINTER_ABSOLUTE 0x53424152
#define POINTER_ID 0x3442554a /* first word that an enabled pointer gives */
/* vmmouse_defs.h: status, high half; and the first word of an event */
#define STATUS_ERROR 0xffff
#define EVENT_LEFT 0x20
#define EVENT_RIGHT 0x10
#define EVENT_MIDDLE 0x08

#define EVENT_WORDS 4
#define QUEUE_WORDS 256

typedef struct VmmouseRegs {
    uint32_t queue[QUEUE_WORDS];
    uint16_t head, count; /* words */
    uint16_t status;      /* 0 or STATUS_ERROR */
    bool enabled, absolute;
} VmmouseRegs;

typedef struct Vmmouse {
    Device dev;
    /* Constant after realize: */
    BusRegion region;
    bool attached;
    /* Guarded by dev.lock: */
    bool resting;
    VmmouseRegs regs;
} Vmmouse;

static void put_word(Vmmouse *v, uint32_t word)
{
    v->regs.queue[(v->regs.head + v->regs.count++) % QUEUE_WORDS] = word;
}

static uint32_t *last_event(Vmmouse *v, unsigned word)
{
    return &v->regs.queue[(v->regs.head + v->regs.count - EVENT_WORDS + word) % QUEUE_WORDS];
}

static uint32_t button_bits(unsigned buttons)
{
    return (buttons & INPUT_LEFT ? EVENT_LEFT : 0) | (buttons & INPUT_RIGHT ? EVENT_RIGHT : 0) |
           (buttons & INPUT_MIDDLE ? EVENT_MIDDLE : 0);
}

/* The wheel is read as a signed byte. */
static uint32_t wheel(int64_t dz)
{
    return (uint32_t)CLAMP(dz, INT8_MIN, INT8_MAX);
}

/* Queue an event; whether the guest is to hear of it. */
static bool event_locked(Vmmouse *v, unsigned x, unsigned y, int dz, unsigned buttons)
{
    uint32_t first = button_bits(buttons);

    if (v->resting || !v->regs.enabled || !v->regs.absolute)
        return false;
    if (v->regs.count + EVENT_WORDS <= QUEUE_WORDS) {
        put_word(v, first);
        put_word(v, x);
        put_word(v, y);
        put_word(v, wheel(dz));
    } else { /* keeps (1): a queue without room for one event holds at least one */
        *last_event(v, 0) = first;
        *last_event(v, 1) = x;
        *last_event(v, 2) = y;
        *last_event(v, 3) = wheel((int64_t)(int32_t)*last_event(v, 3) + dz);
    }
    return true;
}

static void vmmouse_abs(void *opaque, unsigned x, unsigned y, int dz, unsigned buttons)
{
    Vmmouse *v = opaque;

    lodge_lock(&v->dev.lock);
    bool heard = event_locked(v, MIN(x, INPUT_ABS_MAX), MIN(y, INPUT_ABS_MAX), dz, buttons);
    lodge_unlock(&v->dev.lock);
    if (heard && v->dev.board->ps2_mouse)
        ps2_mouse_signal(v->dev.board->ps2_mouse);
}

static const InputOps vmmouse_input_ops = {.abs = vmmouse_abs};

static void tell_input(Vmmouse *v)
{
    Board *b = v->dev.board;

    if (b->input)
        input_set_abs(b->input, &vmmouse_input_ops, v, v->regs.enabled && v->regs.absolute);
}

static void disable(Vmmouse *v)
{
    v->regs.status = STATUS_ERROR;
    v->regs.enabled = v->regs.absolute = false;
    v->regs.head = v->regs.count = 0;
}

/* vmmouse_defs.h, "VMMOUSE_CMD_*" */
static void pointer_command(Vmmouse *v, uint32_t what)
{
    switch (what) {
    case POINTER_ENABLE:
        disable(v);
        v->regs.status = 0;
        v->regs.enabled = true;
        put_word(v, POINTER_ID);
        break;
    case POINTER_DISABLE:
        disable(v);
        break;
    case POINTER_RELATIVE:
    case POINTER_ABSOLUTE:
        v->regs.absolute = what == POINTER_ABSOLUTE;
        break;
    default:
        guest_fault(&v->dev, "unknown pointer command %#x", what);
        return;
    }
    tell_input(v);
}

/* Words of the queue into EAX and up; a number that is not there breaks the protocol. */
static void pointer_data(Vmmouse *v, uint32_t words, uint32_t regs[VMPORT_REGS])
{
    if (!words || words > VMPORT_REGS || words > v->regs.count) {
        guest_fault(&v->dev, "%u words asked for, %u in the queue", words, v->regs.count);
        disable(v);
        tell_input(v);
        regs[VMPORT_EAX] = VMPORT_NONE;
        return;
    }
    for (unsigned i = 0; i < words; i++) {
        regs[i] = v->regs.queue[v->regs.head % QUEUE_WORDS];
        v->regs.head = (v->regs.head + 1) % QUEUE_WORDS;
        v->regs.count--;
    }
}

void vmport_command(Device *d, uint32_t regs[VMPORT_REGS])
{
    Vmmouse *v = (Vmmouse *)d;
    uint32_t arg = regs[VMPORT_EBX];

    lock_assert_held(&d->lock);
    if (regs[VMPORT_EAX] != VMPORT_MAGIC) {
        regs[VMPORT_EAX] = VMPORT_NONE;
        return;
    }
    switch ((uint16_t)regs[VMPORT_ECX]) {
    case CMD_GET_VERSION:
        regs[VMPORT_EAX] = VMPORT_VERSION;
        regs[VMPORT_EBX] = VMPORT_MAGIC;
        regs[VMPORT_ECX] = VMPORT_PRODUCT;
        break;
    case CMD_POINTER_STATUS:
        regs[VMPORT_EAX] = (uint32_t)v->regs.status << 16 | v->regs.count;
        break;
    case CMD_POINTER_DATA:
        pointer_data(v, arg, regs);
        break;
    case CMD_POINTER_COMMAND:
        pointer_command(v, arg);
        regs[VMPORT_EAX] = 0;
        break;
    default:
        regs[VMPORT_EAX] = VMPORT_NONE;
        break;
    }
}

static uint64_t vmport_read(void *owner, uint64_t off, unsigned size)
{
    Vmmouse *v = owner;
    Board *b = v->dev.board;
    uint32_t regs[VMPORT_REGS];

    if (off || !b->cpu_regs || !b->cpu_regs(b, regs, false))
        return VMPORT_NONE;
    vmport_command(&v->dev, regs);
    (void)b->cpu_regs(b, regs, true); /* it gave them a moment ago, and the result is EAX */
    return regs[VMPORT_EAX];
}

static const BusRegionOps vmport_ops = {.read = vmport_read, .sizes = 4};

static void vmmouse_reset(Device *d, ResetKind kind)
{
    Vmmouse *v = (Vmmouse *)d;

    v->regs = (VmmouseRegs){0};
    disable(v);
    tell_input(v);
}

static void vmmouse_quiesce(Device *d)
{
    Vmmouse *v = (Vmmouse *)d;

    lodge_lock(&d->lock);
    v->resting = true;
    lodge_unlock(&d->lock);
    device_quiesced(d);
}

static void vmmouse_resume(Device *d)
{
    Vmmouse *v = (Vmmouse *)d;

    lodge_lock(&d->lock);
    v->resting = false;
    lodge_unlock(&d->lock);
}

static void vmmouse_unrealize(Device *d)
{
    Vmmouse *v = (Vmmouse *)d;

    if (v->attached)
        input_detach(d->board->input, &vmmouse_input_ops, v);
    v->attached = false;
    bus_unmap(d->board->pio, &v->region);
}

static bool vmmouse_realize(Device *d, GError **error)
{
    Vmmouse *v = (Vmmouse *)d;

    v->region = (BusRegion){
        .name = "vmport", .len = VMPORT_LEN, .ops = &vmport_ops, .owner = v, .lock = &d->lock};
    if (!bus_map(d->board->pio, &v->region, VMPORT_BASE, error))
        return false;
    if (d->board->input) {
        input_attach(d->board->input, &vmmouse_input_ops, v);
        v->attached = true;
    }
    return true;
}

/* Keeps (1) for a queue that a stream brought: whole events, after the pointer's name or not. */
static bool vmmouse_post_load(void *obj, unsigned version, GError **error)
{
    Vmmouse *v = obj;

    if (v->regs.count && !v->regs.enabled)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: events in a disabled pointer", v->dev.id);
    tell_input(v);
    return true;
}

static const StateField vmmouse_fields[] = {
    ST_U_ARRAY(VmmouseRegs, queue, UINT32_MAX),
    ST_U(VmmouseRegs, head, QUEUE_WORDS - 1),
    ST_U(VmmouseRegs, count, QUEUE_WORDS),
    ST_U(VmmouseRegs, status, STATUS_ERROR),
    ST_B(VmmouseRegs, enabled),
    ST_B(VmmouseRegs, absolute),
    ST_END,
};
static const StateDesc vmmouse_state = {
    .name = "vmmouse", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Vmmouse, regs), .regs_size = sizeof(VmmouseRegs),
    .fields = vmmouse_fields, .post_load = vmmouse_post_load,
};

const DeviceClass vmmouse_class = {
    .name = "vmmouse",
    .help = "VMware back door: absolute pointer, for drivers that know it",
    .instance_size = sizeof(Vmmouse),
    .state = &vmmouse_state,
    .realize = vmmouse_realize,
    .reset = vmmouse_reset,
    .quiesce = vmmouse_quiesce,
    .resume = vmmouse_resume,
    .unrealize = vmmouse_unrealize,
};
