/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The absolute pointer as Linux's vmmouse.c drives it, and as a hostile guest would. */
#include <string.h>

#include "lodge/input.h"
#include "testboard.h"
#include "vmmouse.h"

#define PORT 0x5658
#define MAGIC 0x564d5868
#define GETVERSION 10
#define DATA 39
#define STATUS 40
#define COMMAND 41
#define ENABLE 0x45414552
#define DISABLE 0xf5
#define ABSOLUTE 0x53424152
#define RELATIVE 0x4c455252

typedef struct Fixture {
    TestBoard *tb;
    Input *in;
    Device *dev;
} Fixture;

static uint32_t cpu[VMPORT_REGS];

static bool lend_regs(Board *b, uint32_t regs[6], bool write)
{
    if (write)
        memcpy(cpu, regs, sizeof(cpu));
    else
        memcpy(regs, cpu, sizeof(cpu));
    return true;
}

static void set_up(Fixture *f, gconstpointer unused)
{
    *f = (Fixture){.tb = test_board_new(0), .in = input_new()};
    f->tb->board.input = f->in;
    f->tb->board.cpu_regs = lend_regs;
    test_board_add(f->tb, "i8259", NULL);
    test_board_add(f->tb, "i8042", NULL);
    test_board_add(f->tb, "ps2-mouse", NULL);
    f->dev = test_board_add(f->tb, "vmmouse", NULL);
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    test_board_free(f->tb);
    input_free(f->in);
}

static uint32_t call(Fixture *f, uint32_t command, uint32_t arg)
{
    uint32_t regs[VMPORT_REGS] = {MAGIC, arg, command, PORT, 0x51, 0xd1};
    memcpy(cpu, regs, sizeof(cpu));
    uint32_t eax = (uint32_t)test_in(f->tb, PORT, 4);
    g_assert_cmphex(cpu[VMPORT_EAX], ==, eax);
    return eax;
}

static void enable(Fixture *f)
{
    call(f, COMMAND, ENABLE);
    g_assert_cmphex(call(f, STATUS, 0), ==, 1);
    g_assert_cmphex(call(f, DATA, 1), ==, 0x3442554a);
    call(f, COMMAND, ABSOLUTE);
}

static void test_version(Fixture *f, gconstpointer unused)
{
    g_assert_cmphex(call(f, GETVERSION, ~MAGIC), ==, 6);
    g_assert_cmphex(cpu[VMPORT_EBX], ==, MAGIC);
    g_assert_cmphex(call(f, 0x1234, 0), ==, 0xffffffff);
    cpu[VMPORT_EAX] = 1; /* no magic: the port is not there */
    cpu[VMPORT_ECX] = GETVERSION;
    g_assert_cmphex(test_in(f->tb, PORT, 4), ==, 0xffffffff);
    g_assert_cmphex(test_in(f->tb, PORT, 1), ==, 0xff);
    f->tb->board.cpu_regs = NULL;
    g_assert_cmphex(test_in(f->tb, PORT, 4), ==, 0xffffffff);
    f->tb->board.cpu_regs = lend_regs;
}

static void test_events(Fixture *f, gconstpointer unused)
{
    g_assert_false(input_has_abs(f->in));
    g_assert_cmphex(call(f, STATUS, 0) >> 16, ==, 0xffff);
    enable(f);
    g_assert_true(input_has_abs(f->in));
    g_assert_cmphex(call(f, STATUS, 0), ==, 0);
    input_abs(f->in, 100, 65535, -1, INPUT_LEFT);
    g_assert_cmphex(call(f, STATUS, 0), ==, 4);
    g_assert_cmphex(call(f, DATA, 4), ==, 0x20);
    g_assert_cmphex(cpu[VMPORT_EBX], ==, 100);
    g_assert_cmphex(cpu[VMPORT_ECX], ==, 65535);
    g_assert_cmphex(cpu[VMPORT_EDX], ==, 0xffffffff);
    g_assert_cmphex(cpu[VMPORT_ESI], ==, 0x51);
    input_abs(f->in, 0, 0, 0, INPUT_RIGHT | INPUT_MIDDLE);
    g_assert_cmphex(call(f, DATA, 4), ==, 0x18);
    call(f, COMMAND, RELATIVE);
    g_assert_false(input_has_abs(f->in));
    call(f, COMMAND, ABSOLUTE);
    call(f, COMMAND, DISABLE);
    g_assert_cmphex(call(f, STATUS, 0) >> 16, ==, 0xffff);
    g_assert_false(input_has_abs(f->in));
    input_abs(f->in, 0, 0, 0, 0);
    g_assert_cmphex(call(f, STATUS, 0) & 0xffff, ==, 0);
}

/* Each event makes the PS/2 mouse interrupt with a packet that says nothing. */
static void test_signal(Fixture *f, gconstpointer unused)
{
    test_pic_auto_eoi(f->tb);
    test_out(f->tb, 0x64, 1, 0x60);
    test_out(f->tb, 0x60, 1, 0x03);
    test_out(f->tb, 0x64, 1, 0xd4);
    test_out(f->tb, 0x60, 1, 0xf4);
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x2c);
    g_assert_cmphex(test_in(f->tb, 0x60, 1), ==, 0xfa);
    enable(f);
    input_abs(f->in, 5, 5, 0, INPUT_LEFT);
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x2c);
    g_assert_cmphex(test_in(f->tb, 0x60, 1), ==, 0x08);
    g_assert_cmphex(test_in(f->tb, 0x60, 1), ==, 0);
    g_assert_cmphex(test_in(f->tb, 0x60, 1), ==, 0);
    g_assert_cmphex(test_in(f->tb, 0x64, 1) & 1, ==, 0);
}

/* A guest that does not read: bounded, and the last state arrives. */
static void test_full(Fixture *f, gconstpointer unused)
{
    enable(f);
    for (unsigned i = 0; i < 1000; i++)
        input_abs(f->in, i, i, i >= 900, i < 999 ? INPUT_LEFT : 0);
    g_assert_cmphex(call(f, STATUS, 0), ==, 256);
    for (unsigned i = 0; i < 63; i++) {
        g_assert_cmphex(call(f, DATA, 4), ==, 0x20);
        g_assert_cmphex(cpu[VMPORT_EBX], ==, i);
    }
    g_assert_cmphex(call(f, DATA, 4), ==, 0);
    g_assert_cmphex(cpu[VMPORT_ECX], ==, 999);
    g_assert_cmphex(cpu[VMPORT_EDX], ==, 100); /* the wheel is added up */
    g_assert_cmphex(call(f, STATUS, 0), ==, 0);
}

static void test_hostile(Fixture *f, gconstpointer unused)
{
    static const uint32_t sizes[] = {0, 5, 7, 255, 0x10004, 0xffffffff};
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        enable(f);
        input_abs(f->in, 1, 2, 3, 0);
        g_assert_cmphex(call(f, DATA, sizes[i]), ==, 0xffffffff);
        g_assert_cmphex(call(f, STATUS, 0), ==, 0xffff0000);
        g_assert_false(input_has_abs(f->in));
    }
    for (unsigned i = 0; i < 1000; i++) { /* round the ring in odd steps */
        if (i % 7 == 0)
            enable(f);
        input_abs(f->in, i, 0, 0, 0);
        call(f, DATA, 1 + i % 4);
    }
    call(f, COMMAND, 0x12345678);
    g_assert_cmpuint(f->dev->faults, >, 0);
}

static void test_state(Fixture *f, gconstpointer unused)
{
    g_autoptr(GByteArray) saved = g_byte_array_new();
    size_t used;
    GError *error = NULL;
    enable(f);
    input_abs(f->in, 7, 8, 0, INPUT_LEFT);
    state_save(f->dev->cls->state, f->dev, saved);
    device_reset(f->dev, RESET_COLD);
    g_assert_false(input_has_abs(f->in));
    state_load(f->dev->cls->state, f->dev, saved->data, saved->len, &used, &error);
    g_assert_no_error(error);
    g_assert_true(input_has_abs(f->in));
    g_assert_cmphex(call(f, DATA, 4), ==, 0x20);
    g_assert_cmphex(cpu[VMPORT_EBX], ==, 7);
    device_reset(f->dev, RESET_COLD);
}

/* While the machine rests nothing comes in. */
static void test_resting(Fixture *f, gconstpointer unused)
{
    enable(f);
    f->dev->cls->quiesce(f->dev);
    input_abs(f->in, 1, 1, 0, 0);
    device_resume(f->dev);
    g_assert_cmphex(call(f, STATUS, 0), ==, 0);
    input_abs(f->in, 1, 1, 0, 0);
    g_assert_cmphex(call(f, STATUS, 0), ==, 4);
}

#define VMMOUSE_TEST(name)                                                                         \
    g_test_add("/vmmouse/" #name, Fixture, NULL, set_up, test_##name, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    VMMOUSE_TEST(version);
    VMMOUSE_TEST(events);
    VMMOUSE_TEST(signal);
    VMMOUSE_TEST(full);
    VMMOUSE_TEST(hostile);
    VMMOUSE_TEST(state);
    VMMOUSE_TEST(resting);
    return g_test_run();
}
