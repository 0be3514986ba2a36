/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keyboard controller without and with a device plugged in, and port 0x92. */
#include "kbd_i8042.h"
#include "testboard.h"

#define DATA 0x60
#define COMMAND 0x64
#define FULL 0x01
#define AUX 0x20
#define TIMEOUT 0x40

typedef struct Fixture {
    TestBoard *tb;
    Device *kbc;
    uint8_t queue[8];
    unsigned head, count;
    uint8_t heard;
} Fixture;

static void set_up(Fixture *f, gconstpointer unused)
{
    *f = (Fixture){.tb = test_board_new(0)};
    test_board_add(f->tb, "i8259", NULL);
    f->kbc = test_board_add(f->tb, "i8042", NULL);
    test_pic_auto_eoi(f->tb);
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    test_board_free(f->tb);
}

static uint8_t status(Fixture *f)
{
    return test_in(f->tb, COMMAND, 1);
}

static uint8_t ask(Fixture *f, uint8_t command)
{
    test_out(f->tb, COMMAND, 1, command);
    g_assert_cmphex(status(f) & (FULL | AUX), ==, FULL);
    uint8_t val = test_in(f->tb, DATA, 1);
    g_assert_cmphex(status(f) & FULL, ==, 0);
    return val;
}

static void tell(Fixture *f, uint8_t command, uint8_t val)
{
    test_out(f->tb, COMMAND, 1, command);
    g_assert_cmphex(status(f) & 0x08, ==, 0x08);
    test_out(f->tb, DATA, 1, val);
    g_assert_cmphex(status(f) & 0x08, ==, 0);
}

static void test_commands(Fixture *f, gconstpointer unused)
{
    g_assert_cmphex(ask(f, 0xaa), ==, 0x55);
    g_assert_cmphex(ask(f, 0xab), ==, 0x00);
    g_assert_cmphex(ask(f, 0xa9), ==, 0x00);
    g_assert_cmphex(ask(f, 0xc0), ==, 0xb0);
    g_assert_cmphex(ask(f, 0xa4), ==, 0xf1);
    tell(f, 0x60, 0xff);
    g_assert_cmphex(ask(f, 0x20), ==, 0x7f);
    tell(f, 0x60, 0x00);
    g_assert_cmphex(status(f) & 0x04, ==, 0);
    test_out(f->tb, COMMAND, 1, 0xad);
    test_out(f->tb, COMMAND, 1, 0xa7);
    g_assert_cmphex(ask(f, 0x20), ==, 0x30);
    test_out(f->tb, COMMAND, 1, 0xae);
    test_out(f->tb, COMMAND, 1, 0xa8);
    g_assert_cmphex(ask(f, 0x20), ==, 0x00);
    tell(f, 0x7f, 0x5a);
    g_assert_cmphex(ask(f, 0x3f), ==, 0x5a);
    test_out(f->tb, COMMAND, 1, 0x00); /* unknown: silence */
    g_assert_cmphex(status(f) & FULL, ==, 0);
}

/* What a driver's probe sees: an answer at once, which says that nobody is there. */
static void test_nothing_attached(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, DATA, 1, 0xf2);
    g_assert_cmphex(status(f) & (FULL | AUX | TIMEOUT), ==, FULL | TIMEOUT);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0xfe);
    g_assert_cmphex(status(f) & (FULL | TIMEOUT), ==, 0);
    tell(f, 0xd4, 0xf2);
    g_assert_cmphex(status(f) & (FULL | AUX | TIMEOUT), ==, FULL | AUX | TIMEOUT);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0xfe);
}

static void test_interrupts(Fixture *f, gconstpointer unused)
{
    tell(f, 0x60, 0x03);
    tell(f, 0xd2, 0x11);
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x21);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0x11);
    tell(f, 0xd3, 0x22);
    g_assert_cmphex(status(f) & AUX, ==, AUX);
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x2c);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0x22);
    irq_lock_take(f->tb->board.irq);
    g_assert_false(irq_level_locked(f->tb->board.irq, 12)); /* lowered by the read */
    irq_lock_drop(f->tb->board.irq);
    tell(f, 0xd2, 0x33);
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x21);
    tell(f, 0xd2, 0x44); /* over the unread one: an edge all the same */
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x21);
    tell(f, 0x60, 0x00);
    tell(f, 0xd2, 0x11);
    g_assert_false(f->tb->extint);
    tell(f, 0x60, 0x01); /* enabled with a byte waiting */
    g_assert_true(f->tb->extint);
}

static void test_output_port(Fixture *f, gconstpointer unused)
{
    g_assert_cmphex(ask(f, 0xd0) & 0x33, ==, 0x03);
    tell(f, 0xd1, 0xdd);
    g_assert_cmphex(ask(f, 0xd0) & 0x03, ==, 0x01);
    test_out(f->tb, COMMAND, 1, 0xdf);
    g_assert_cmphex(ask(f, 0xd0) & 0x03, ==, 0x03);
    test_out(f->tb, COMMAND, 1, 0xdd);
    g_assert_cmphex(ask(f, 0xd0) & 0x03, ==, 0x01);
    g_assert_cmpuint(f->tb->requests[BOARD_RESET], ==, 0);
    tell(f, 0xd1, 0x02);
    g_assert_cmpuint(f->tb->requests[BOARD_RESET], ==, 1);
}

static void test_pulse(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, COMMAND, 1, 0xff); /* pulses nothing: Linux ends its A20 sequence so */
    g_assert_cmpuint(f->tb->requests[BOARD_RESET], ==, 0);
    test_out(f->tb, COMMAND, 1, 0xfe);
    g_assert_cmpuint(f->tb->requests[BOARD_RESET], ==, 1);
    test_out(f->tb, COMMAND, 1, 0xf0);
    g_assert_cmpuint(f->tb->requests[BOARD_RESET], ==, 2);
}

static void fake_write(void *opaque, uint8_t byte)
{
    Fixture *f = opaque;
    f->heard = byte;
    f->queue[(f->head + f->count++) % 8] = 0xfa;
    f->queue[(f->head + f->count++) % 8] = 0x42;
}

static int fake_read(void *opaque)
{
    Fixture *f = opaque;
    if (!f->count)
        return -1;
    f->count--;
    return f->queue[f->head++ % 8];
}

static void test_device(Fixture *f, gconstpointer unused)
{
    static const Ps2Ops ops = {.write = fake_write, .read = fake_read};
    i8042_attach(f->kbc, PS2_KEYBOARD, &ops, f);
    tell(f, 0x60, 0x01);
    test_out(f->tb, DATA, 1, 0xf2);
    g_assert_cmphex(f->heard, ==, 0xf2);
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x21);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0xfa);
    g_assert_cmpint(irq_ack(f->tb->board.irq), ==, 0x21); /* the next byte has its own edge */
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0x42);
    g_assert_false(f->tb->extint);
    test_out(f->tb, COMMAND, 1, 0xad); /* off: the byte stays in the device */
    f->queue[f->head % 8] = 0x1c;
    f->count = 1;
    lodge_lock(&f->kbc->lock);
    i8042_data_ready_locked(f->kbc);
    lodge_unlock(&f->kbc->lock);
    g_assert_cmphex(status(f) & FULL, ==, 0);
    test_out(f->tb, COMMAND, 1, 0xae);
    g_assert_cmphex(status(f) & (FULL | TIMEOUT), ==, FULL);
    g_assert_cmphex(test_in(f->tb, DATA, 1), ==, 0x1c);
}

static void test_port92(Fixture *f, gconstpointer unused)
{
    test_board_add(f->tb, "port92", NULL);
    g_assert_cmphex(test_in(f->tb, 0x92, 1), ==, 0x02);
    test_out(f->tb, 0x92, 1, 0x00);
    g_assert_cmphex(test_in(f->tb, 0x92, 1), ==, 0x00);
    test_out(f->tb, 0x92, 1, 0xfe);
    g_assert_cmphex(test_in(f->tb, 0x92, 1), ==, 0x02);
    g_assert_cmpuint(f->tb->requests[BOARD_RESET], ==, 0);
    test_out(f->tb, 0x92, 1, 0x03);
    test_out(f->tb, 0x92, 1, 0x03); /* no edge */
    g_assert_cmpuint(f->tb->requests[BOARD_RESET], ==, 1);
}

#define KBC_TEST(name) g_test_add("/i8042/" #name, Fixture, NULL, set_up, test_##name, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    KBC_TEST(commands);
    KBC_TEST(nothing_attached);
    KBC_TEST(interrupts);
    KBC_TEST(output_port);
    KBC_TEST(pulse);
    KBC_TEST(device);
    KBC_TEST(port92);
    return g_test_run();
}
