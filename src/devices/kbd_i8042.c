/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keyboard and auxiliary device controller at ports 0x60 and 0x64, with the lines that a PC hangs
 * on its output port: CPU reset and A20.
 *
 * Spec: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller" ("IBM"); Intel UPI-41/42 (8042) for the two ports.
 *
 * Modelled: all commands of the IBM reference, translation of the keyboard's bytes from set 2 to
 * set 1, reset by pulse and by output port. A20 is always open: its bit reads back as written. The
 * password commands (0xA4..0xA6) answer "none installed".
 * Left out: line timing. The input buffer is taken at once, so IBF reads 0.
 *
 * A byte for a port without a device is answered as IBM has it for a transmission that nobody
 * clocked: 0xFE in the output buffer with the time-out bit, so a driver's probe ends at once.
 *
 * Threads: vCPU threads, and whoever feeds the PS/2 devices; under the device's lock.
 *
 * Invariants:
 * (1) at most one of IRQ 1 and IRQ 12 is asserted, and only while the output buffer is full.
 * (2) each byte in the output buffer makes an edge of its own.
 */

#include "kbd_i8042.h"

#include "ps2_scancode.h"

#define KBC_DATA_PORT 0x60
#define KBC_COMMAND_PORT 0x64
#define KBC_IRQ_KEYBOARD 1
#define KBC_IRQ_AUX 12
#define KBC_RAM 32

/* IBM, "Status register" */
#define ST_OUTPUT_FULL 0x01
#define ST_SYSTEM 0x04
#define ST_COMMAND 0x08
#define ST_NOT_INHIBITED 0x10
#define ST_AUX_FULL 0x20
#define ST_TIMEOUT 0x40
/* IBM, "Controller command byte" (address 0 of the RAM) */
#define CB_IRQ_KEYBOARD 0x01
#define CB_IRQ_AUX 0x02
#define CB_SYSTEM 0x04
#define CB_NO_KEYBOARD 0x10
#define CB_NO_AUX 0x20
#define CB_TRANSLATE 0x40
#define CB_WRITABLE 0x7f
/* As firmware leaves it, for kernels that are entered without one. */
#define CB_AFTER_FIRMWARE (CB_IRQ_KEYBOARD | CB_SYSTEM | CB_NO_AUX | CB_TRANSLATE)
/* IBM, "Output port", "Input port" */
#define OP_NOT_RESET 0x01
#define OP_A20 0x02
#define OP_KEYBOARD_FULL 0x10
#define OP_AUX_FULL 0x20
#define OP_IDLE_LINES 0xc0
#define OP_LATCHED (OP_NOT_RESET | OP_A20)
#define INPUT_PORT 0xb0 /* lock open, jumper open, second RAM bank enabled */

/* IBM, "Controller commands" */
enum {
    CMD_READ_RAM = 0x20, /* to 0x3F */
    CMD_WRITE_RAM = 0x60, /* to 0x7F */
    CMD_PASSWORD_TEST = 0xa4,
    CMD_AUX_OFF = 0xa7,
    CMD_AUX_ON = 0xa8,
    CMD_AUX_TEST = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_KEYBOARD_TEST = 0xab,
    CMD_KEYBOARD_OFF = 0xad,
    CMD_KEYBOARD_ON = 0xae,
    CMD_READ_INPUT = 0xc0,
    CMD_READ_OUTPUT = 0xd0,
    CMD_WRITE_OUTPUT = 0xd1,
    CMD_WRITE_KEYBOARD_BUFFER = 0xd2,
    CMD_WRITE_AUX_BUFFER = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_A20_OFF = 0xdd, /* these two are not IBM's, but every clone has them */
    CMD_A20_ON = 0xdf,
    CMD_PULSE = 0xf0, /* to 0xFF; a clear bit pulses its line low */
};
#define SELF_TEST_OK 0x55
#define PORT_TEST_OK 0x00
#define NO_PASSWORD 0xf1
#define RESEND 0xfe
#define SET1_UP 0x80 /* bit 7 of set 1: the key went up */

typedef struct KbcRegs {
    uint8_t status; /* ST_SYSTEM, ST_COMMAND, ST_OUTPUT_FULL, ST_AUX_FULL, ST_TIMEOUT */
    uint8_t output; /* output buffer */
    uint8_t output_port; /* OP_LATCHED */
    uint8_t command; /* waits for its data byte; 0: none */
    uint8_t ram[KBC_RAM]; /* 0 is the command byte */
} KbcRegs;

typedef struct Kbc {
    Device dev;
    /* Constant after realize: */
    BusRegion data, control;
    IrqLine *irq[PS2_PORTS]; /* owned */
    /* Guarded by dev.lock: */
    const Ps2Ops *ops[PS2_PORTS]; /* borrowed; NULL: nothing plugged in */
    void *opaque[PS2_PORTS];
    KbcRegs regs;
} Kbc;

static void update_irq(Kbc *k)
{
    bool full = k->regs.status & ST_OUTPUT_FULL, aux = k->regs.status & ST_AUX_FULL;

    irq_line_set(k->irq[PS2_KEYBOARD], full && !aux && (k->regs.ram[0] & CB_IRQ_KEYBOARD));
    irq_line_set(k->irq[PS2_AUX], full && aux && (k->regs.ram[0] & CB_IRQ_AUX));
}

static void put(Kbc *k, unsigned port, uint8_t byte, uint8_t flags)
{
    k->regs.status &= ~(ST_OUTPUT_FULL | ST_AUX_FULL | ST_TIMEOUT);
    update_irq(k); /* keeps (2) */
    k->regs.output = byte;
    k->regs.status |= ST_OUTPUT_FULL | (port == PS2_AUX ? ST_AUX_FULL : 0) | flags;
    update_irq(k);
}

static void answer(Kbc *k, uint8_t byte)
{
    put(k, PS2_KEYBOARD, byte, 0);
}

/* The device's next byte as the guest is to see it, or -1. IBM, "Scan Code Translation": the prefix
 * of a key that went up says nothing by itself; the key follows it at once. */
static int fetch(Kbc *k, unsigned port)
{
    int byte = k->ops[port]->read(k->opaque[port]);
    uint8_t up = 0;

    if (port == PS2_AUX || !(k->regs.ram[0] & CB_TRANSLATE))
        return byte;
    if (byte == SCAN_BREAK) {
        up = SET1_UP;
        byte = k->ops[port]->read(k->opaque[port]);
    }
    return byte < 0 ? byte : scan_set2_to_set1((uint8_t)byte) | up;
}

/* Fetch a byte from a device whose clock is not held, keyboard first. */
static void fill(Kbc *k)
{
    static const uint8_t off[PS2_PORTS] = {CB_NO_KEYBOARD, CB_NO_AUX};

    for (unsigned port = 0; port < PS2_PORTS; port++) {
        if (k->regs.status & ST_OUTPUT_FULL)
            return;
        if (!k->ops[port] || (k->regs.ram[0] & off[port]))
            continue;
        int byte = fetch(k, port);
        if (byte >= 0)
            put(k, port, byte, 0);
    }
}

static void send(Kbc *k, unsigned port, uint8_t byte)
{
    k->regs.ram[0] &= port == PS2_AUX ? ~CB_NO_AUX : ~CB_NO_KEYBOARD;
    if (k->ops[port])
        k->ops[port]->write(k->opaque[port], byte);
    else
        put(k, port, RESEND, ST_TIMEOUT);
}

static void write_command_byte(Kbc *k, uint8_t val)
{
    k->regs.ram[0] = val & CB_WRITABLE;
    k->regs.status = (k->regs.status & ~ST_SYSTEM) | (val & CB_SYSTEM ? ST_SYSTEM : 0);
    update_irq(k);
}

static void write_output_port(Kbc *k, uint8_t val)
{
    k->regs.output_port = (val & OP_A20) | OP_NOT_RESET;
    if (!(val & OP_NOT_RESET))
        k->dev.board->request(k->dev.board, BOARD_RESET, 0);
}

static uint8_t read_output_port(const Kbc *k)
{
    uint8_t status = k->regs.status, val = k->regs.output_port | OP_IDLE_LINES;

    if (status & ST_OUTPUT_FULL)
        val |= status & ST_AUX_FULL ? OP_AUX_FULL : OP_KEYBOARD_FULL;
    return val;
}

/* The byte that a command waited for: IBM, "Controller commands". */
static void command_data(Kbc *k, uint8_t command, uint8_t val)
{
    switch (command) {
    case CMD_WRITE_RAM:
        write_command_byte(k, val);
        break;
    case CMD_WRITE_OUTPUT:
        write_output_port(k, val);
        break;
    case CMD_WRITE_KEYBOARD_BUFFER:
        put(k, PS2_KEYBOARD, val, 0);
        break;
    case CMD_WRITE_AUX_BUFFER:
        put(k, PS2_AUX, val, 0);
        break;
    case CMD_WRITE_AUX:
        send(k, PS2_AUX, val);
        break;
    default: /* CMD_WRITE_RAM + 1 and up */
        k->regs.ram[command % KBC_RAM] = val;
        break;
    }
}

static void run_command(Kbc *k, uint8_t val)
{
    if (val >= CMD_READ_RAM && val < CMD_READ_RAM + KBC_RAM) {
        answer(k, k->regs.ram[val % KBC_RAM]);
        return;
    }
    if (val >= CMD_WRITE_RAM && val < CMD_WRITE_RAM + KBC_RAM) {
        k->regs.command = val;
        return;
    }
    if (val >= CMD_PULSE) {
        if (!(val & OP_NOT_RESET))
            k->dev.board->request(k->dev.board, BOARD_RESET, 0);
        return;
    }
    switch (val) {
    case CMD_PASSWORD_TEST:
        answer(k, NO_PASSWORD);
        break;
    case CMD_AUX_OFF:
        k->regs.ram[0] |= CB_NO_AUX;
        break;
    case CMD_AUX_ON:
        k->regs.ram[0] &= ~CB_NO_AUX;
        break;
    case CMD_KEYBOARD_OFF:
        k->regs.ram[0] |= CB_NO_KEYBOARD;
        break;
    case CMD_KEYBOARD_ON:
        k->regs.ram[0] &= ~CB_NO_KEYBOARD;
        break;
    case CMD_AUX_TEST:
    case CMD_KEYBOARD_TEST:
        answer(k, PORT_TEST_OK);
        break;
    case CMD_SELF_TEST:
        k->regs.status |= ST_SYSTEM;
        answer(k, SELF_TEST_OK);
        break;
    case CMD_READ_INPUT:
        answer(k, INPUT_PORT);
        break;
    case CMD_READ_OUTPUT:
        answer(k, read_output_port(k));
        break;
    case CMD_WRITE_OUTPUT:
    case CMD_WRITE_KEYBOARD_BUFFER:
    case CMD_WRITE_AUX_BUFFER:
    case CMD_WRITE_AUX:
        k->regs.command = val;
        break;
    case CMD_A20_OFF:
        k->regs.output_port &= ~OP_A20;
        break;
    case CMD_A20_ON:
        k->regs.output_port |= OP_A20;
        break;
    default: /* reserved: taken and ignored */
        break;
    }
}

static uint64_t kbc_data_read(void *owner, uint64_t off, unsigned size)
{
    Kbc *k = owner;
    uint8_t val = k->regs.output;

    k->regs.status &= ~(ST_OUTPUT_FULL | ST_AUX_FULL | ST_TIMEOUT);
    update_irq(k); /* keeps (2) */
    fill(k);
    return val;
}

static void kbc_data_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Kbc *k = owner;
    uint8_t command = k->regs.command;

    k->regs.status &= ~ST_COMMAND;
    k->regs.command = 0;
    if (command)
        command_data(k, command, val);
    else
        send(k, PS2_KEYBOARD, val);
    fill(k);
}

static uint64_t kbc_status_read(void *owner, uint64_t off, unsigned size)
{
    Kbc *k = owner;

    return k->regs.status | ST_NOT_INHIBITED;
}

static void kbc_command_write(void *owner, uint64_t off, unsigned size, uint64_t val)
{
    Kbc *k = owner;

    k->regs.status |= ST_COMMAND;
    k->regs.command = 0;
    run_command(k, val);
    fill(k);
}

static const BusRegionOps kbc_data_ops = {
    .read = kbc_data_read, .write = kbc_data_write, .sizes = 1};
static const BusRegionOps kbc_control_ops = {
    .read = kbc_status_read, .write = kbc_command_write, .sizes = 1};

void i8042_attach(Device *d, unsigned port, const Ps2Ops *ops, void *opaque)
{
    Kbc *k = (Kbc *)d;

    g_assert(port < PS2_PORTS);
    lodge_lock(&d->lock);
    k->ops[port] = ops;
    k->opaque[port] = opaque;
    lodge_unlock(&d->lock);
}

void i8042_data_ready_locked(Device *d)
{
    lock_assert_held(&d->lock);
    fill((Kbc *)d);
}

static void kbc_reset(Device *d, ResetKind kind)
{
    Kbc *k = (Kbc *)d;

    k->regs = (KbcRegs){.status = ST_SYSTEM, .output_port = OP_NOT_RESET | OP_A20,
                        .ram = {CB_AFTER_FIRMWARE}};
    update_irq(k);
}

static void kbc_unrealize(Device *d)
{
    Kbc *k = (Kbc *)d;

    if (d->board->i8042 == d)
        d->board->i8042 = NULL;
    bus_unmap(d->board->pio, &k->data);
    bus_unmap(d->board->pio, &k->control);
    for (unsigned port = 0; port < PS2_PORTS; port++)
        g_clear_pointer(&k->irq[port], irq_line_free);
}

static bool kbc_realize(Device *d, GError **error)
{
    Kbc *k = (Kbc *)d;

    k->data = (BusRegion){
        .name = "i8042-data", .len = 1, .ops = &kbc_data_ops, .owner = k, .lock = &d->lock};
    k->control = (BusRegion){
        .name = "i8042-control", .len = 1, .ops = &kbc_control_ops, .owner = k, .lock = &d->lock};
    k->irq[PS2_KEYBOARD] = irq_line_new(d->board->irq, KBC_IRQ_KEYBOARD, d->id);
    k->irq[PS2_AUX] = irq_line_new(d->board->irq, KBC_IRQ_AUX, d->id);
    if (!bus_map(d->board->pio, &k->data, KBC_DATA_PORT, error) ||
        !bus_map(d->board->pio, &k->control, KBC_COMMAND_PORT, error)) {
        kbc_unrealize(d);
        return false;
    }
    d->board->i8042 = d;
    return true;
}

static bool kbc_post_load(void *obj, unsigned version, GError **error)
{
    update_irq(obj);
    return true;
}

static const StateField kbc_fields[] = {
    ST_U(KbcRegs, status, 0xff),
    ST_U(KbcRegs, output, 0xff),
    ST_U(KbcRegs, output_port, OP_LATCHED),
    ST_U(KbcRegs, command, 0xff),
    ST_RAW(KbcRegs, ram),
    ST_END,
};
static const StateDesc kbc_state = {
    .name = "i8042", .version = 1, .oldest = 1,
    .regs_offset = offsetof(Kbc, regs), .regs_size = sizeof(KbcRegs),
    .fields = kbc_fields, .post_load = kbc_post_load,
};

const DeviceClass kbd_i8042_class = {
    .name = "i8042",
    .help = "Intel 8042: keyboard controller with CPU reset and A20",
    .instance_size = sizeof(Kbc),
    .state = &kbc_state,
    .realize = kbc_realize,
    .reset = kbc_reset,
    .unrealize = kbc_unrealize,
};
