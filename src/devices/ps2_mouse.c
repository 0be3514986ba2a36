/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PS/2 mouse at the second port of the i8042, with a wheel and five buttons for who asks.
 *
 * Spec: IBM PS/2 Hardware Interface Technical Reference and Synaptics "PS/2 TouchPad Interfacing
 * Guide", 510-000080, section 3 ("PS2"), for the protocol; Microsoft, "Windows and the 5-Button
 * Wheel Mouse" ("MS") for wheel, buttons and the sample rates that ask for them.
 *
 * Modelled: all commands; stream, remote and wrap mode; identities 0, 3 and 4; scaling; buffer of
 * 16 bytes. Left out: time (the sample rate is kept and limits nothing) and the length of a count
 * (a movement is what its sender says, in counts of the resolution that is set).
 *
 * Movement that finds no room in the buffer is added up and goes out when there is some, with the
 * buttons as they are then: the last state always arrives, a click within the jam may not.
 *
 * Threads: vCPU threads through the controller, which holds its lock; whoever moves. The lock of
 * this file ranks above the controller's; it is not held when the controller is told of a byte.
 *
 * Invariants:
 * (1) the buffer holds whole packets, all of the same length.
 * (2) `left` bytes of what is being sent are there: answers, or else a packet.
 */

#include "ps2_mouse.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/input.h"

#include "kbd_i8042.h"

#define MOUSE_QUEUE 16
#define MOUSE_PACKET_MAX 4
#define MOUSE_ANSWERS (1 + MOUSE_PACKET_MAX)
#define MOUSE_SUM_MAX 4095 /* counts that wait */
#define MOUSE_STEP 255     /* in a packet, without its overflow bits */
#define MOUSE_RATE_DEFAULT 100
#define MOUSE_RESOLUTION_DEFAULT 2 /* 4 counts a millimetre */
#define MOUSE_RATES 3

/* PS2, "Command set" */
enum {
    CMD_SCALING_1 = 0xe6,
    CMD_SCALING_2 = 0xe7,
    CMD_RESOLUTION = 0xe8,
    CMD_STATUS = 0xe9,
    CMD_STREAM = 0xea,
    CMD_READ = 0xeb,
    CMD_WRAP_OFF = 0xec,
    CMD_WRAP = 0xee,
    CMD_REMOTE = 0xf0,
    CMD_READ_ID = 0xf2,
    CMD_RATE = 0xf3,
    CMD_ENABLE = 0xf4,
    CMD_DISABLE = 0xf5,
    CMD_DEFAULT = 0xf6,
    CMD_RESEND = 0xfe,
    CMD_RESET = 0xff,
};
#define ANSWER_ACK 0xfa
#define ANSWER_RESEND 0xfe
#define ANSWER_ERROR 0xfc
#define ANSWER_TEST_PASSED 0xaa
/* PS2, "Status request", first byte */
#define STATUS_RIGHT 0x01
#define STATUS_MIDDLE 0x02
#define STATUS_LEFT 0x04
#define STATUS_SCALING 0x10
#define STATUS_ENABLED 0x20
#define STATUS_REMOTE 0x40
/* PS2, "Data packet format", first byte */
#define PACKET_LEFT 0x01
#define PACKET_RIGHT 0x02
#define PACKET_MIDDLE 0x04
#define PACKET_ONE 0x08
#define PACKET_X_SIGN 0x10
#define PACKET_Y_SIGN 0x20
/* MS: identities, and the fourth byte of identity 4 */
enum { ID_PLAIN = 0, ID_WHEEL = 3, ID_BUTTONS = 4 };
#define WHEEL_MIN (-8)
#define WHEEL_MAX 7
#define WHEEL_BITS 0x0f
#define FOURTH_SIDE 0x10
#define FOURTH_EXTRA 0x20

typedef struct MouseRegs {
    uint16_t dx, dy, dz; /* what waits; two's complement, y upwards */
    uint8_t queue[MOUSE_QUEUE];
    uint8_t head, count;
    uint8_t answer[MOUSE_ANSWERS];
    uint8_t answers;
    uint8_t last[MOUSE_ANSWERS]; /* what was sent last, for a repetition */
    uint8_t last_len;
    uint8_t left;    /* bytes of that still to be sent */
    uint8_t command; /* waits for its parameter; 0: none */
    uint8_t buttons; /* INPUT_* */
    uint8_t id, rate, resolution;
    uint8_t rates[MOUSE_RATES]; /* set last, oldest first */
    bool enabled, remote, wrap, scaling;
    bool fresh; /* a packet is due even without movement */
    bool erred; /* the last byte was refused once */
    uint8_t pad;
} MouseRegs;

typedef struct Mouse {
    Device dev;
    /* Constant after realize: */
    Device *i8042; /* borrowed from the board, outlives us; NULL: not realized */
    LodgeLock lock; /* LOCK_RANK_QUEUE */
    /* Guarded by lock: */
    bool resting;
    unsigned late_buttons; /* while resting */
    MouseRegs regs;
} Mouse;

static unsigned packet_len(const Mouse *m)
{
    return m->regs.id == ID_PLAIN ? 3 : 4;
}

static void add(uint16_t *sum, int delta)
{
    int at = (int16_t)*sum;

    delta = CLAMP(delta, -2 * MOUSE_SUM_MAX, 2 * MOUSE_SUM_MAX);
    *sum = (uint16_t)CLAMP(at + delta, -MOUSE_SUM_MAX, MOUSE_SUM_MAX);
}

/* Take at most what a packet can say. */
static int take(uint16_t *sum, int min, int max)
{
    int at = (int16_t)*sum, part = CLAMP(at, min, max);

    *sum = (uint16_t)(at - part);
    return part;
}

/* PS2, "Set scaling 2:1" */
static int scaled(int v)
{
    static const uint8_t small[] = {0, 1, 1, 3, 6, 9};
    int n = v < 0 ? -v : v;

    n = n < (int)G_N_ELEMENTS(small) ? small[n] : 2 * n;
    return v < 0 ? -n : n;
}

/* PS2, "Data packet format"; MS for the fourth byte. */
static unsigned make_packet(Mouse *m, bool streamed, uint8_t ret_bytes[MOUSE_PACKET_MAX])
{
    bool doubled = streamed && m->regs.scaling;
    int step = doubled ? MOUSE_STEP / 2 : MOUSE_STEP;
    int dx = take(&m->regs.dx, -step, step), dy = take(&m->regs.dy, -step, step);
    int dz = take(&m->regs.dz, WHEEL_MIN, WHEEL_MAX);
    unsigned b = m->regs.buttons;

    if (doubled) {
        dx = scaled(dx);
        dy = scaled(dy);
    }
    ret_bytes[0] = PACKET_ONE | (b & INPUT_LEFT ? PACKET_LEFT : 0) |
                   (b & INPUT_RIGHT ? PACKET_RIGHT : 0) | (b & INPUT_MIDDLE ? PACKET_MIDDLE : 0) |
                   (dx < 0 ? PACKET_X_SIGN : 0) | (dy < 0 ? PACKET_Y_SIGN : 0);
    ret_bytes[1] = (uint8_t)dx;
    ret_bytes[2] = (uint8_t)dy;
    if (m->regs.id == ID_WHEEL)
        ret_bytes[3] = (uint8_t)dz;
    else
        ret_bytes[3] = (dz & WHEEL_BITS) | (b & INPUT_SIDE ? FOURTH_SIDE : 0) |
                       (b & INPUT_EXTRA ? FOURTH_EXTRA : 0);
    m->regs.fresh = false;
    return packet_len(m);
}

/* Fill the buffer from what waits. Keeps (1). */
static void stream(Mouse *m)
{
    uint8_t bytes[MOUSE_PACKET_MAX];

    if (!m->regs.enabled || m->regs.remote || m->regs.wrap || m->regs.command)
        return;
    if (m->regs.id == ID_PLAIN)
        m->regs.dz = 0;
    while ((m->regs.fresh || m->regs.dx || m->regs.dy || m->regs.dz) &&
           m->regs.count + packet_len(m) <= MOUSE_QUEUE) {
        unsigned len = make_packet(m, true, bytes);
        for (unsigned i = 0; i < len; i++)
            m->regs.queue[(m->regs.head + m->regs.count++) % MOUSE_QUEUE] = bytes[i];
    }
}

static void tell_controller(Mouse *m)
{
    lodge_lock(&m->i8042->lock);
    i8042_data_ready_locked(m->i8042);
    lodge_unlock(&m->i8042->lock);
}

static void set_buttons(Mouse *m, unsigned buttons)
{
    buttons &= INPUT_LEFT | INPUT_RIGHT | INPUT_MIDDLE | INPUT_SIDE | INPUT_EXTRA;
    if (buttons == m->regs.buttons)
        return;
    m->regs.buttons = (uint8_t)buttons;
    m->regs.fresh = true;
}

static void mouse_rel(void *opaque, int dx, int dy, int dz, unsigned buttons)
{
    Mouse *m = opaque;

    lodge_lock(&m->lock);
    if (m->resting) {
        m->late_buttons = buttons;
    } else {
        set_buttons(m, buttons);
        if (m->regs.enabled || m->regs.remote) {
            add(&m->regs.dx, dx);
            add(&m->regs.dy, -CLAMP(dy, -MOUSE_SUM_MAX, MOUSE_SUM_MAX));
            add(&m->regs.dz, dz);
        }
        stream(m);
    }
    lodge_unlock(&m->lock);
    tell_controller(m);
}

static const InputOps mouse_input_ops = {.rel = mouse_rel};

void ps2_mouse_signal(Device *d)
{
    Mouse *m = (Mouse *)d;

    lodge_lock(&m->lock);
    if (!m->resting && m->regs.enabled && !m->regs.remote) {
        m->regs.fresh = true;
        stream(m);
    }
    lodge_unlock(&m->lock);
    tell_controller(m);
}

static void answer(Mouse *m, uint8_t byte)
{
    if (m->regs.answers < MOUSE_ANSWERS)
        m->regs.answer[m->regs.answers++] = byte;
}

/* Drop what waits in the buffer; buttons that were told there are told again. */
static void clear_buffer(Mouse *m)
{
    m->regs.fresh |= m->regs.count > 0;
    m->regs.head = m->regs.count = 0;
}

static void clear_movement(Mouse *m)
{
    m->regs.dx = m->regs.dy = m->regs.dz = 0;
}

/* PS2, "Set defaults" */
static void set_default(Mouse *m)
{
    clear_movement(m);
    m->regs.rate = MOUSE_RATE_DEFAULT;
    m->regs.resolution = MOUSE_RESOLUTION_DEFAULT;
    m->regs.scaling = m->regs.remote = m->regs.wrap = m->regs.enabled = false;
}

/* PS2, "Status request" */
static void answer_status(Mouse *m)
{
    unsigned b = m->regs.buttons;

    answer(m, (b & INPUT_RIGHT ? STATUS_RIGHT : 0) | (b & INPUT_MIDDLE ? STATUS_MIDDLE : 0) |
                  (b & INPUT_LEFT ? STATUS_LEFT : 0) | (m->regs.scaling ? STATUS_SCALING : 0) |
                  (m->regs.enabled ? STATUS_ENABLED : 0) | (m->regs.remote ? STATUS_REMOTE : 0));
    answer(m, m->regs.resolution);
    answer(m, m->regs.rate);
}

/* PS2, "Error recovery": ask for the byte again, and give up the second time. */
static void refuse(Mouse *m)
{
    answer(m, m->regs.erred ? ANSWER_ERROR : ANSWER_RESEND);
    m->regs.erred = !m->regs.erred;
}

static void resend(Mouse *m)
{
    memcpy(m->regs.answer, m->regs.last, sizeof(m->regs.answer));
    m->regs.answers = m->regs.last_len;
}

static void run_command(Mouse *m, uint8_t byte)
{
    uint8_t packet[MOUSE_PACKET_MAX];
    bool erred = m->regs.erred;

    if (byte == CMD_RESEND) {
        resend(m);
        return;
    }
    m->regs.erred = false;
    answer(m, ANSWER_ACK);
    switch (byte) {
    case CMD_SCALING_1:
    case CMD_SCALING_2:
        m->regs.scaling = byte == CMD_SCALING_2;
        break;
    case CMD_RESOLUTION:
    case CMD_RATE:
        m->regs.command = byte;
        break;
    case CMD_STATUS:
        answer_status(m);
        break;
    case CMD_STREAM:
    case CMD_REMOTE:
        m->regs.remote = byte == CMD_REMOTE;
        clear_movement(m);
        break;
    case CMD_READ:
        for (unsigned i = 0, len = make_packet(m, false, packet); i < len; i++)
            answer(m, packet[i]);
        break;
    case CMD_WRAP:
    case CMD_WRAP_OFF:
        m->regs.wrap = byte == CMD_WRAP;
        clear_movement(m);
        break;
    case CMD_READ_ID:
        answer(m, m->regs.id);
        break;
    case CMD_ENABLE:
    case CMD_DISABLE:
        m->regs.enabled = byte == CMD_ENABLE;
        m->regs.fresh = m->regs.buttons != 0;
        clear_movement(m);
        break;
    case CMD_DEFAULT:
        set_default(m);
        break;
    case CMD_RESET:
        set_default(m);
        m->regs.id = ID_PLAIN;
        memset(m->regs.rates, 0, sizeof(m->regs.rates));
        answer(m, ANSWER_TEST_PASSED);
        answer(m, m->regs.id);
        break;
    default:
        m->regs.answers = 0;
        m->regs.erred = erred;
        refuse(m);
        break;
    }
}

/* PS2, "Set sample rate"; MS: three rates in a row ask for more than a plain mouse. */
static bool set_rate(Mouse *m, uint8_t rate)
{
    static const uint8_t allowed[] = {10, 20, 40, 60, 80, 100, 200};
    static const uint8_t ask_wheel[MOUSE_RATES] = {200, 100, 80};
    static const uint8_t ask_buttons[MOUSE_RATES] = {200, 200, 80};

    if (!memchr(allowed, rate, sizeof(allowed)))
        return false;
    m->regs.rate = rate;
    memmove(m->regs.rates, m->regs.rates + 1, MOUSE_RATES - 1);
    m->regs.rates[MOUSE_RATES - 1] = rate;
    if (!memcmp(m->regs.rates, ask_wheel, MOUSE_RATES))
        m->regs.id = ID_WHEEL;
    else if (!memcmp(m->regs.rates, ask_buttons, MOUSE_RATES))
        m->regs.id = ID_BUTTONS;
    return true;
}

static void take_parameter(Mouse *m, uint8_t command, uint8_t byte)
{
    bool ok = command == CMD_RATE ? set_rate(m, byte) : byte <= 3;

    if (!ok) {
        if (!m->regs.erred)
            m->regs.command = command; /* it is asked for again */
        refuse(m);
        return;
    }
    if (command != CMD_RATE)
        m->regs.resolution = byte;
    m->regs.erred = false;
    clear_movement(m);
    answer(m, ANSWER_ACK);
}

/* A byte ends whatever was being sent before: PS2, "Host to device communication". */
static void mouse_write(void *opaque, uint8_t byte)
{
    Mouse *m = opaque;

    lodge_lock(&m->lock);
    uint8_t command = m->regs.command;
    m->regs.command = 0;
    m->regs.answers = 0;
    m->regs.left = 0; /* keeps (2) */
    clear_buffer(m);
    if (m->regs.wrap && byte != CMD_WRAP_OFF && byte != CMD_RESET)
        answer(m, byte);
    else if (command)
        take_parameter(m, command, byte);
    else
        run_command(m, byte);
    stream(m);
    lodge_unlock(&m->lock);
}

/* Begin with the answers, or the next packet. */
static void start_sending(Mouse *m)
{
    MouseRegs *r = &m->regs;
    unsigned len = r->answers ? r->answers : MIN(r->count, packet_len(m));

    r->left = (uint8_t)len;
    if (!len)
        return;
    for (unsigned i = 0; i < len; i++)
        r->last[i] = r->answers ? r->answer[i] : r->queue[(r->head + i) % MOUSE_QUEUE];
    r->last_len = (uint8_t)len;
}

static int mouse_read(void *opaque)
{
    Mouse *m = opaque;
    MouseRegs *r = &m->regs;
    int byte = -1;

    lodge_lock(&m->lock);
    if (!r->left)
        start_sending(m);
    if (r->left && r->answers) {
        byte = r->answer[0];
        memmove(r->answer, r->answer + 1, --r->answers);
        r->left--;
    } else if (r->left && r->count) {
        byte = r->queue[r->head % MOUSE_QUEUE];
        r->head = (r->head + 1) % MOUSE_QUEUE;
        r->count--;
        r->left--;
        stream(m);
    }
    lodge_unlock(&m->lock);
    return byte;
}

static const Ps2Ops mouse_ps2_ops = {.write = mouse_write, .read = mouse_read};

static void mouse_reset(Device *d, ResetKind kind)
{
    Mouse *m = (Mouse *)d;

    lodge_lock(&m->lock);
    m->regs = (MouseRegs){0};
    set_default(m);
    lodge_unlock(&m->lock);
}

static void mouse_quiesce(Device *d)
{
    Mouse *m = (Mouse *)d;

    lodge_lock(&m->lock);
    m->resting = true;
    m->late_buttons = m->regs.buttons;
    lodge_unlock(&m->lock);
    device_quiesced(d);
}

static void mouse_resume(Device *d)
{
    Mouse *m = (Mouse *)d;

    lodge_lock(&m->lock);
    if (m->resting) {
        set_buttons(m, m->late_buttons & m->regs.buttons);
        stream(m);
    }
    m->resting = false;
    lodge_unlock(&m->lock);
    tell_controller(m);
}

static void mouse_unrealize(Device *d)
{
    Mouse *m = (Mouse *)d;

    if (!m->i8042)
        return;
    if (d->board->ps2_mouse == d)
        d->board->ps2_mouse = NULL;
    if (d->board->input)
        input_detach(d->board->input, &mouse_input_ops, m);
    i8042_attach(m->i8042, PS2_AUX, NULL, NULL);
    lodge_lock_clear(&m->lock);
    m->i8042 = NULL;
}

static bool mouse_realize(Device *d, GError **error)
{
    Mouse *m = (Mouse *)d;

    if (!d->board->i8042)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: needs an i8042 to plug into", d->id);
    lodge_lock_init(&m->lock, LOCK_RANK_QUEUE, "ps2-mouse");
    m->i8042 = d->board->i8042;
    d->board->ps2_mouse = d;
    i8042_attach(m->i8042, PS2_AUX, &mouse_ps2_ops, m);
    if (d->board->input)
        input_attach(d->board->input, &mouse_input_ops, m);
    return true;
}

static bool sum_ok(uint16_t sum)
{
    return (int16_t)sum >= -MOUSE_SUM_MAX && (int16_t)sum <= MOUSE_SUM_MAX;
}

/* A restored mouse is one that nobody touches: its buttons go up. */
static bool mouse_post_load(void *obj, unsigned version, GError **error)
{
    Mouse *m = obj;
    MouseRegs *r = &m->regs;

    if (!sum_ok(r->dx) || !sum_ok(r->dy) || !sum_ok(r->dz) ||
        (r->id != ID_PLAIN && r->id != ID_WHEEL && r->id != ID_BUTTONS) ||
        r->left > (r->answers ? r->answers : MIN(r->count, packet_len(m))))
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: registers contradict each other",
                          m->dev.id);
    lodge_lock(&m->lock);
    set_buttons(m, 0);
    m->late_buttons = 0;
    stream(m);
    lodge_unlock(&m->lock);
    return true;
}

static const StateField mouse_fields[] = {
    ST_U(MouseRegs, dx, UINT16_MAX),
    ST_U(MouseRegs, dy, UINT16_MAX),
    ST_U(MouseRegs, dz, UINT16_MAX),
    ST_RAW(MouseRegs, queue),
    ST_U(MouseRegs, head, MOUSE_QUEUE - 1),
    ST_U(MouseRegs, count, MOUSE_QUEUE),
    ST_RAW(MouseRegs, answer),
    ST_U(MouseRegs, answers, MOUSE_ANSWERS),
    ST_RAW(MouseRegs, last),
    ST_U(MouseRegs, last_len, MOUSE_ANSWERS),
    ST_U(MouseRegs, left, MOUSE_ANSWERS),
    ST_U(MouseRegs, command, 0xff),
    ST_U(MouseRegs, buttons, 0x1f),
    ST_U(MouseRegs, id, ID_BUTTONS),
    ST_U(MouseRegs, rate, 200),
    ST_U(MouseRegs, resolution, 3),
    ST_RAW(MouseRegs, rates),
    ST_B(MouseRegs, enabled),
    ST_B(MouseRegs, remote),
    ST_B(MouseRegs, wrap),
    ST_B(MouseRegs, scaling),
    ST_B(MouseRegs, fresh),
    ST_B(MouseRegs, erred),
    ST_SKIPPED(MouseRegs, pad, "always 0: rounds the structure up"),
    ST_END,
};
static const StateDesc mouse_state = {
    .name = "ps2-mouse", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Mouse, regs), .regs_size = sizeof(MouseRegs),
    .fields = mouse_fields, .post_load = mouse_post_load,
};

const DeviceClass ps2_mouse_class = {
    .name = "ps2-mouse",
    .help = "PS/2 mouse: wheel and five buttons, for drivers that ask for them",
    .instance_size = sizeof(Mouse),
    .state = &mouse_state,
    .realize = mouse_realize,
    .reset = mouse_reset,
    .quiesce = mouse_quiesce,
    .resume = mouse_resume,
    .unrealize = mouse_unrealize,
};
