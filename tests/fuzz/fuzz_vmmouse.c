/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VMware back door from hostile programs: the registers lent to it are a program's as well, and
 * somebody points all the while, with the PS/2 mouse that it makes signal on the same board. */
#include <string.h>

#include "bus_fuzz.h"

#include "lodge/input.h"
#include "vmmouse.h"

enum {
    REGS_GPA = 0, /* in guest memory: where fills put registers */
    MAGIC = 0x564d5868,
    COORDINATE = 1021,
};

static const BusFuzzRegion ports[] = {{0x5658, 4}, {0x5658, 1}, {0x60, 1}, {0x64, 1}, {0}};
static uint32_t cpu[VMPORT_REGS];
static bool lends;

static bool lend_regs(Board *b, uint32_t regs[6], bool write)
{
    if (!lends)
        return false;
    memcpy(write ? cpu : regs, write ? regs : cpu, sizeof cpu);
    return true;
}

static void set_up(TestBoard *tb)
{
    lends = true;
    memset(cpu, 0, sizeof cpu);
    tb->board.cpu_regs = lend_regs;
    tb->board.input = input_new();
    test_board_add(tb, "i8042", NULL);
    test_board_add(tb, "ps2-mouse", NULL);
    test_board_add(tb, "vmmouse", NULL);
}

static void run_command(TestBoard *tb, uint32_t command, uint32_t arg)
{
    cpu[VMPORT_EAX] = MAGIC;
    cpu[VMPORT_EBX] = arg;
    cpu[VMPORT_ECX] = command;
    (void)test_in(tb, 0x5658, 4);
}

/* The top bits: somebody points, or the lower say with which registers the port is read. */
static void event(TestBoard *tb, uint8_t what)
{
    static const uint32_t commands[] = {10, 39, 40, 41, 39, 39, 0x10027, 42};
    static const uint32_t args[] = {0x45414552, 0xf5, 0x4c455252, 0x53424152, 4, 1, 7, 0xffffffff};

    switch (what >> 6) {
    case 0:
        run_command(tb, commands[what & 7], args[what >> 3 & 7]);
        break;
    case 1: /* as if the viewer moved in a storm: the queue fills */
        for (unsigned i = 0; i <= (what & 0x3fu); i++)
            input_abs(tb->board.input, i * COORDINATE, what * COORDINATE, what & 1 ? -128 : 127,
                      i & 7);
        break;
    case 2:
        if (what & 1)
            input_release_all(tb->board.input);
        else
            input_rel(tb->board.input, what, -what, what & 2 ? 1 : 0, what >> 3 & 7);
        break;
    default:
        lends = what != 0xff;
        (void)mem_read(tb->board.mem, REGS_GPA, cpu, sizeof cpu); /* it is memory */
        if (what & 1)
            cpu[VMPORT_EAX] = MAGIC;
        (void)test_in(tb, 0x5658, 4);
        break;
    }
}

static void tear_down(TestBoard *tb)
{
    input_free(tb->board.input);
    tb->board.input = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const BusFuzz f = {
        .ports = ports, .set_up = set_up, .event = event, .tear_down = tear_down};

    return bus_fuzz_run(&f, data, len);
}
