/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PS/2 keyboard at the first port of the i8042.
 *
 * Spec: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)" ("IBM");
 * its scan codes are in ps2_scancode.c.
 *
 * Modelled: scan-code sets 1 and 2, all commands of IBM for these, buffer of 16 bytes, answers
 * before scan codes. Left out: set 3 and the commands that shape it (answered with "resend", as
 * keyboards without it do), the overrun code (a press without room is not there, and so is its
 * release), typematic repetition (who types repeats; rate and delay are taken and kept), the
 * lights (kept), and time: answers and the self-test take none.
 *
 * Keys that were seen going down are always seen going up: a release that finds no room is owed
 * and goes out as soon as there is some, before any other key; only the commands that clear the
 * buffer drop it, as they drop what is in there. While the machine rests, presses are dropped and
 * releases wait. A restored keyboard is one that nobody touches: what was down goes up.
 *
 * Threads: vCPU threads through the controller, which holds its lock; whoever types. The lock of
 * this file ranks above the controller's; it is not held when the controller is told of a byte.
 *
 * Invariants:
 * (1) the buffer holds whole sequences, so a byte sequence never lacks its end.
 * (2) while a release is owed no press enters the buffer.
 */

#include <string.h>

#include <linux/input-event-codes.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/input.h"

#include "kbd_i8042.h"
#include "ps2_scancode.h"

#define KBD_QUEUE 16 /* IBM, "Keyboard Buffer" */
#define KBD_ANSWERS 3
#define KBD_KEYS 256
#define KBD_SET_DEFAULT 2
#define KBD_RATE_DEFAULT 0x2b /* 10.9 a second after 500 ms */

/* IBM, "Commands from the System" */
enum {
    CMD_LEDS = 0xed,
    CMD_ECHO = 0xee,
    CMD_SCAN_SET = 0xf0,
    CMD_READ_ID = 0xf2,
    CMD_RATE = 0xf3,
    CMD_ENABLE = 0xf4,
    CMD_DISABLE = 0xf5,
    CMD_DEFAULT = 0xf6,
    CMD_RESEND = 0xfe,
    CMD_RESET = 0xff,
};
#define CMD_FIRST 0xed /* a parameter this high is a command instead */
/* IBM, "Commands to the System" */
#define ANSWER_ACK 0xfa
#define ANSWER_RESEND 0xfe
#define ANSWER_TEST_PASSED 0xaa
#define ID_FIRST 0xab
#define ID_SECOND 0x83

typedef struct KbdRegs {
    uint8_t queue[KBD_QUEUE];
    uint8_t head, count;
    uint8_t answer[KBD_ANSWERS];
    uint8_t answers;
    uint8_t last;    /* byte that went out last */
    uint8_t command; /* waits for its parameter; 0: none */
    uint8_t set;     /* 1, 2 */
    uint8_t leds, rate;
    uint8_t print; /* ScanForm in which PrintScreen went down */
    bool scanning;
    uint8_t down[KBD_KEYS / 8]; /* bits: keys that the guest saw going down, or could have */
    uint8_t owed[KBD_KEYS / 8]; /* bits: releases that wait for room */
} KbdRegs;

typedef struct Kbd {
    Device dev;
    /* Constant after realize: */
    Device *i8042; /* borrowed from the board, outlives us; NULL: not realized */
    LodgeLock lock; /* LOCK_RANK_QUEUE */
    /* Guarded by lock: */
    bool resting;
    uint8_t late[KBD_KEYS / 8]; /* bits: releases while resting */
    KbdRegs regs;
} Kbd;

static bool bit_test(const uint8_t *bits, unsigned n)
{
    return bits[n / 8] >> n % 8 & 1;
}

static void bit_set(uint8_t *bits, unsigned n, bool on)
{
    bits[n / 8] = (bits[n / 8] & ~(1u << n % 8)) | (unsigned)on << n % 8;
}

static bool is_down(const Kbd *k, unsigned left, unsigned right)
{
    return bit_test(k->regs.down, left) || bit_test(k->regs.down, right);
}

static ScanForm form_now(const Kbd *k, unsigned code)
{
    bool ctrl = is_down(k, KEY_LEFTCTRL, KEY_RIGHTCTRL);

    if (code == KEY_SYSRQ && is_down(k, KEY_LEFTALT, KEY_RIGHTALT))
        return SCAN_ALTED;
    if (ctrl || (code == KEY_SYSRQ && is_down(k, KEY_LEFTSHIFT, KEY_RIGHTSHIFT)))
        return SCAN_SHIFTED;
    return SCAN_PLAIN;
}

/* Put a whole sequence in; false: no room. Keeps (1). */
static bool queue_key(Kbd *k, unsigned code, bool down, ScanForm form)
{
    uint8_t bytes[SCAN_SEQUENCE_MAX];
    unsigned len = scan_sequence(k->regs.set, code, down, form, bytes);

    if (k->regs.count + len > KBD_QUEUE)
        return false;
    for (unsigned i = 0; i < len; i++)
        k->regs.queue[(k->regs.head + k->regs.count++) % KBD_QUEUE] = bytes[i];
    return true;
}

static bool queue_release(Kbd *k, unsigned code)
{
    return queue_key(k, code, false, code == KEY_SYSRQ ? k->regs.print : SCAN_PLAIN);
}

/* Whether nothing is owed any more. */
static bool pay(Kbd *k)
{
    for (unsigned code = 0; code < KBD_KEYS; code++) {
        if (!bit_test(k->regs.owed, code))
            continue;
        if (!queue_release(k, code))
            return false;
        bit_set(k->regs.owed, code, false);
    }
    return true;
}

static void press_locked(Kbd *k, unsigned code)
{
    bool repeated = bit_test(k->regs.down, code);
    ScanForm form = repeated && code == KEY_SYSRQ ? k->regs.print : form_now(k, code);

    if (k->regs.scanning && (!pay(k) || !queue_key(k, code, true, form))) /* keeps (2) */
        return;
    bit_set(k->regs.down, code, true);
    if (code == KEY_SYSRQ)
        k->regs.print = form;
}

static void release_locked(Kbd *k, unsigned code)
{
    if (!bit_test(k->regs.down, code))
        return;
    bit_set(k->regs.down, code, false);
    if (k->regs.scanning && (!pay(k) || !queue_release(k, code)))
        bit_set(k->regs.owed, code, true);
}

static void tell_controller(Kbd *k)
{
    lodge_lock(&k->i8042->lock);
    i8042_data_ready_locked(k->i8042);
    lodge_unlock(&k->i8042->lock);
}

static void kbd_key(void *opaque, unsigned code, bool down)
{
    Kbd *k = opaque;

    if (code >= KBD_KEYS)
        return;
    lodge_lock(&k->lock);
    if (k->resting) {
        if (!down)
            bit_set(k->late, code, true);
    } else if (down) {
        press_locked(k, code);
    } else {
        release_locked(k, code);
    }
    lodge_unlock(&k->lock);
    tell_controller(k);
}

static const InputOps kbd_input_ops = {.key = kbd_key};

static void answer(Kbd *k, uint8_t byte)
{
    if (k->regs.answers < KBD_ANSWERS)
        k->regs.answer[k->regs.answers++] = byte;
}

static void clear_buffer(Kbd *k)
{
    k->regs.head = k->regs.count = 0;
    memset(k->regs.owed, 0, sizeof(k->regs.owed));
}

/* IBM, "Set Default": power-on conditions and an empty buffer. */
static void set_default(Kbd *k, bool scanning)
{
    clear_buffer(k);
    k->regs.set = KBD_SET_DEFAULT;
    k->regs.rate = KBD_RATE_DEFAULT;
    k->regs.scanning = scanning;
}

static void run_command(Kbd *k, uint8_t byte)
{
    switch (byte) {
    case CMD_ECHO:
        answer(k, CMD_ECHO);
        break;
    case CMD_LEDS:
    case CMD_SCAN_SET:
    case CMD_RATE:
        answer(k, ANSWER_ACK);
        k->regs.command = byte;
        break;
    case CMD_READ_ID:
        answer(k, ANSWER_ACK);
        answer(k, ID_FIRST);
        answer(k, ID_SECOND);
        break;
    case CMD_ENABLE:
        clear_buffer(k);
        k->regs.scanning = true;
        answer(k, ANSWER_ACK);
        break;
    case CMD_DISABLE:
        set_default(k, false);
        answer(k, ANSWER_ACK);
        break;
    case CMD_DEFAULT:
        set_default(k, k->regs.scanning);
        answer(k, ANSWER_ACK);
        break;
    case CMD_RESEND:
        answer(k, k->regs.last);
        break;
    case CMD_RESET:
        set_default(k, true);
        k->regs.leds = 0;
        answer(k, ANSWER_ACK);
        answer(k, ANSWER_TEST_PASSED);
        break;
    default: /* IBM, "Resend": invalid input, and set 3's commands */
        answer(k, ANSWER_RESEND);
        break;
    }
}

static void take_parameter(Kbd *k, uint8_t command, uint8_t byte)
{
    uint8_t reply = ANSWER_ACK;

    switch (command) {
    case CMD_LEDS:
        k->regs.leds = byte & 7;
        break;
    case CMD_RATE:
        k->regs.rate = byte & 0x7f;
        break;
    default: /* CMD_SCAN_SET; 0 asks */
        if (byte > KBD_SET_DEFAULT) {
            reply = ANSWER_RESEND;
        } else if (byte) {
            clear_buffer(k);
            k->regs.set = byte;
        }
        break;
    }
    answer(k, reply);
    if (command == CMD_SCAN_SET && !byte)
        answer(k, k->regs.set);
}

/* A byte ends whatever was to be answered before. */
static void kbd_write(void *opaque, uint8_t byte)
{
    Kbd *k = opaque;

    lodge_lock(&k->lock);
    uint8_t command = k->regs.command;
    k->regs.command = 0;
    k->regs.answers = 0;
    if (command && byte < CMD_FIRST)
        take_parameter(k, command, byte);
    else
        run_command(k, byte);
    lodge_unlock(&k->lock);
}

static int next_byte(Kbd *k)
{
    int byte;

    if (k->regs.answers) {
        byte = k->regs.answer[0];
        memmove(k->regs.answer, k->regs.answer + 1, --k->regs.answers);
        return byte;
    }
    if (!k->regs.scanning || !k->regs.count || k->regs.command)
        return -1;
    byte = k->regs.queue[k->regs.head % KBD_QUEUE];
    k->regs.head = (k->regs.head + 1) % KBD_QUEUE;
    k->regs.count--;
    (void)pay(k); /* what finds no room stays owed */
    return byte;
}

static int kbd_read(void *opaque)
{
    Kbd *k = opaque;

    lodge_lock(&k->lock);
    int byte = next_byte(k);
    if (byte >= 0)
        k->regs.last = (uint8_t)byte;
    lodge_unlock(&k->lock);
    return byte;
}

static const Ps2Ops kbd_ps2_ops = {.write = kbd_write, .read = kbd_read};

/* As firmware leaves it. */
static void kbd_reset(Device *d, ResetKind kind)
{
    Kbd *k = (Kbd *)d;

    lodge_lock(&k->lock);
    k->regs = (KbdRegs){
        .set = KBD_SET_DEFAULT, .rate = KBD_RATE_DEFAULT, .scanning = true};
    memset(k->late, 0, sizeof(k->late));
    lodge_unlock(&k->lock);
}

static void kbd_quiesce(Device *d)
{
    Kbd *k = (Kbd *)d;

    lodge_lock(&k->lock);
    k->resting = true;
    lodge_unlock(&k->lock);
    device_quiesced(d);
}

static void kbd_resume(Device *d)
{
    Kbd *k = (Kbd *)d;

    lodge_lock(&k->lock);
    k->resting = false;
    for (unsigned code = 0; code < KBD_KEYS; code++) {
        if (bit_test(k->late, code))
            release_locked(k, code);
    }
    memset(k->late, 0, sizeof(k->late));
    lodge_unlock(&k->lock);
    tell_controller(k);
}

static void kbd_unrealize(Device *d)
{
    Kbd *k = (Kbd *)d;

    if (!k->i8042)
        return;
    if (d->board->input)
        input_detach(d->board->input, &kbd_input_ops, k);
    i8042_attach(k->i8042, PS2_KEYBOARD, NULL, NULL);
    lodge_lock_clear(&k->lock);
    k->i8042 = NULL;
}

static bool kbd_realize(Device *d, GError **error)
{
    Kbd *k = (Kbd *)d;

    if (!d->board->i8042)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: needs an i8042 to plug into", d->id);
    lodge_lock_init(&k->lock, LOCK_RANK_QUEUE, "ps2-kbd");
    k->regs.set = KBD_SET_DEFAULT;
    k->i8042 = d->board->i8042;
    i8042_attach(k->i8042, PS2_KEYBOARD, &kbd_ps2_ops, k);
    if (d->board->input)
        input_attach(d->board->input, &kbd_input_ops, k);
    return true;
}

static bool kbd_post_load(void *obj, unsigned version, GError **error)
{
    Kbd *k = obj;

    if (!k->regs.set)
        return lodge_fail(error, LODGE_ERROR_IMAGE, "%s: scan-code set 0", k->dev.id);
    lodge_lock(&k->lock);
    for (unsigned code = 0; code < KBD_KEYS; code++)
        release_locked(k, code);
    lodge_unlock(&k->lock);
    return true;
}

static const StateField kbd_fields[] = {
    ST_RAW(KbdRegs, queue),
    ST_U(KbdRegs, head, KBD_QUEUE - 1),
    ST_U(KbdRegs, count, KBD_QUEUE),
    ST_RAW(KbdRegs, answer),
    ST_U(KbdRegs, answers, KBD_ANSWERS),
    ST_U(KbdRegs, last, 0xff),
    ST_U(KbdRegs, command, 0xff),
    ST_U(KbdRegs, set, KBD_SET_DEFAULT),
    ST_U(KbdRegs, leds, 7),
    ST_U(KbdRegs, rate, 0x7f),
    ST_U(KbdRegs, print, SCAN_FORMS - 1),
    ST_B(KbdRegs, scanning),
    ST_RAW(KbdRegs, down),
    ST_RAW(KbdRegs, owed),
    ST_END,
};
static const StateDesc kbd_state = {
    .name = "ps2-kbd", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Kbd, regs), .regs_size = sizeof(KbdRegs),
    .fields = kbd_fields, .post_load = kbd_post_load,
};

const DeviceClass ps2_kbd_class = {
    .name = "ps2-kbd",
    .help = "PS/2 keyboard: 104 keys, scan-code sets 1 and 2",
    .instance_size = sizeof(Kbd),
    .state = &kbd_state,
    .realize = kbd_realize,
    .reset = kbd_reset,
    .quiesce = kbd_quiesce,
    .resume = kbd_resume,
    .unrealize = kbd_unrealize,
};
