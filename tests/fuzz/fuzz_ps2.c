/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Keyboard, mouse and absolute pointer from hostile programs, while somebody types and points. */
#include "bus_fuzz.h"

#include "lodge/input.h"
#include "vmmouse.h"

#define VMPORT 0x5658
#define VMPORT_MAGIC 0x564d5868

static const BusFuzzRegion ports[] = {{0x60, 1}, {0x64, 1}, {VMPORT, 4}, {0}};
static Input *input;
static unsigned last; /* event: it makes the next one's codes, distances and buttons wider */

/* The vCPU's registers lie at address 0: the magic number is spared, its place chooses. */
static bool lend_regs(Board *b, uint32_t regs[6], bool write)
{
    static const uint32_t commands[] = {10, 39, 40, 41};
    static const uint32_t pointer[] = {0x45414552, 0x53424152, 0x4c455252, 0xf5};

    if (write)
        return mem_write(b->mem, 0, regs, 6 * sizeof(*regs));
    if (!mem_read(b->mem, 0, regs, 6 * sizeof(*regs)))
        return false;
    uint32_t choice = regs[VMPORT_EAX];
    if (choice % 16 == 15)
        return true;
    regs[VMPORT_EAX] = VMPORT_MAGIC;
    regs[VMPORT_ECX] = commands[choice % 4];
    if (regs[VMPORT_ECX] == 41)
        regs[VMPORT_EBX] = pointer[choice / 4 % 4];
    else if (choice & 64)
        regs[VMPORT_EBX] %= 8;
    return true;
}

/* As drivers leave it: the mouse reports. */
static void start(TestBoard *tb)
{
    static const uint16_t program[][2] = {{0x64, 0x60}, {0x60, 0x03}, {0x64, 0xd4}, {0x60, 0xf4}};

    for (unsigned i = 0; i < G_N_ELEMENTS(program); i++)
        test_out(tb, program[i][0], 1, program[i][1]);
    (void)test_in(tb, 0x60, 1); /* its ACK */
}

static void set_up(TestBoard *tb)
{
    input = input_new();
    last = 0;
    tb->board.input = input;
    tb->board.cpu_regs = lend_regs;
    test_board_add(tb, "i8042", NULL);
    test_board_add(tb, "ps2-kbd", NULL);
    test_board_add(tb, "ps2-mouse", NULL);
    test_board_add(tb, "vmmouse", NULL);
    start(tb);
}

static void event(TestBoard *tb, uint8_t what)
{
    unsigned v = what >> 2;

    switch (what & 3) {
    case 0:
        input_key(input, v + (last & 0xc0), true);
        break;
    case 1:
        input_key(input, v + (last & 0xc0), false);
        break;
    case 2:
        input_rel(input, (int)v - 32, (int)last * 8 - 1024, (int)(v & 15) - 8, last & 0x1f);
        break;
    default:
        if (v == 63)
            input_release_all(input);
        else
            input_abs(input, v << 10, last << 8, (int)(v & 3) - 1, last & 7);
        break;
    }
    last = what;
}

static void tear_down(TestBoard *tb)
{
    g_clear_pointer(&input, input_free);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {
        .ports = ports, .set_up = set_up, .event = event, .tear_down = tear_down};

    return bus_fuzz_run(&f, data, len);
}
