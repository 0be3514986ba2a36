/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 16550A through its ports. The channel here is a fake of its own, so that what the device
 * asks of it is seen. */
#include <string.h>

#include "lodge/chan.h"
#include "testboard.h"
#include "uart_16550.h"

#define BASE 0x3f8
#define IER (BASE + 1)
#define IIR (BASE + 2)
#define FCR (BASE + 2)
#define LCR (BASE + 3)
#define MCR (BASE + 4)
#define LSR (BASE + 5)
#define MSR (BASE + 6)
#define SCR (BASE + 7)

struct Chan {
    const ChanOps *ops;
    void *opaque;
    GString *sent;
    unsigned wants;
};

void chan_attach(Chan *c, const ChanOps *ops, void *opaque)
{
    c->ops = ops;
    c->opaque = opaque;
}

void chan_write(Chan *c, const void *data, size_t len)
{
    g_string_append_len(c->sent, data, len);
}

void chan_want(Chan *c)
{
    c->wants++;
}

typedef struct Fixture {
    TestBoard *tb;
    Chan chan;
} Fixture;

static void set_up(Fixture *f, gconstpointer unused)
{
    f->tb = test_board_new(0);
    f->chan = (Chan){.sent = g_string_new(NULL)};
    test_board_backend(f->tb, "com1", &f->chan);
    test_board_add(f->tb, "i8259", NULL);
    test_board_add(f->tb, "16550a", "chan=com1");
    test_out(f->tb, 0x20, 1, 0x13);
    test_out(f->tb, 0x21, 1, 0x20);
    test_out(f->tb, 0x21, 1, 3); /* AEOI */
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    test_board_free(f->tb);
    g_assert_null(f->chan.ops);
    g_string_free(f->chan.sent, TRUE);
}

static uint8_t in(Fixture *f, uint16_t port)
{
    return test_in(f->tb, port, 1);
}

static void out(Fixture *f, uint16_t port, uint8_t val)
{
    test_out(f->tb, port, 1, val);
}

static size_t type(Fixture *f, const char *text)
{
    return f->chan.ops->input(f->chan.opaque, (const uint8_t *)text, strlen(text));
}

static int ack(Fixture *f)
{
    return irq_ack(f->tb->board.irq);
}

static void test_registers(Fixture *f, gconstpointer unused)
{
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    g_assert_cmphex(in(f, MSR), ==, 0xb0);
    g_assert_cmphex(in(f, IIR), ==, 0x01);
    out(f, IER, 0xff);
    g_assert_cmphex(in(f, IER), ==, 0x0f);
    out(f, MCR, 0xff & ~0x10);
    g_assert_cmphex(in(f, MCR), ==, 0x0f);
    out(f, SCR, 0xa5);
    g_assert_cmphex(in(f, SCR), ==, 0xa5);
    out(f, LCR, 0x83);
    out(f, BASE, 0x34);
    out(f, IER, 0x12);
    g_assert_cmphex(in(f, BASE), ==, 0x34);
    g_assert_cmphex(in(f, IER), ==, 0x12);
    out(f, LCR, 0x03);
    g_assert_cmphex(in(f, IER), ==, 0x0f);
    g_assert_cmphex(in(f, LCR), ==, 0x03);
}

/* The steps by which Linux's 8250 driver tells the chips apart. */
static void test_autodetect(Fixture *f, gconstpointer unused)
{
    out(f, IER, 0x00);
    g_assert_cmphex(in(f, IER), ==, 0x00);
    out(f, IER, 0x0f);
    g_assert_cmphex(in(f, IER), ==, 0x0f);
    out(f, IER, 0x00);
    out(f, MCR, 0x10 | 0x0a);
    g_assert_cmphex(in(f, MSR) & 0xf0, ==, 0x90);
    out(f, MCR, 0x08);
    out(f, LCR, 0xbf);
    out(f, FCR, 0x00);
    out(f, LCR, 0x00);
    out(f, FCR, 0x01);
    g_assert_cmphex(in(f, IIR) >> 6, ==, 3); /* 16550A */
    out(f, LCR, 0x80);
    g_assert_cmphex(in(f, IIR), !=, 0); /* no EFR of a 16650 */
    out(f, LCR, 0xbf);
    g_assert_cmphex(in(f, IIR), !=, 0);
    out(f, LCR, 0x00);
    out(f, FCR, 0x21);
    g_assert_cmphex(in(f, IIR) >> 5, ==, 6); /* no 64-byte FIFO */
    out(f, LCR, 0x80);
    out(f, FCR, 0x21);
    g_assert_cmphex(in(f, IIR) >> 5, ==, 6);
    out(f, LCR, 0x00);
    out(f, IER, 0x40);
    g_assert_cmphex(in(f, IER), ==, 0x00); /* no XScale unit enable */
}

static void test_thre(Fixture *f, gconstpointer unused)
{
    out(f, MCR, 0x08);
    out(f, IER, 0x02); /* empty already: at once */
    g_assert_cmpint(ack(f), ==, 0x24);
    g_assert_cmphex(in(f, IIR), ==, 0x02);
    g_assert_cmphex(in(f, IIR), ==, 0x01); /* the read cleared it */
    out(f, IER, 0x02); /* not a rise */
    g_assert_cmphex(in(f, IIR), ==, 0x01);
    out(f, IER, 0x00);
    out(f, IER, 0x02);
    g_assert_cmphex(in(f, IIR), ==, 0x02);
    ack(f);
    out(f, BASE, 'A');
    g_assert_cmpint(ack(f), ==, 0x24);
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    out(f, IER, 0x00);
    out(f, BASE, 'B');
    out(f, LCR, 0x43); /* break: the line is held */
    out(f, BASE, 'x');
    g_assert_cmpstr(f->chan.sent->str, ==, "AB");
}

static void test_receive_without_fifo(Fixture *f, gconstpointer unused)
{
    out(f, MCR, 0x08);
    out(f, IER, 0x01);
    g_assert_cmpuint(type(f, "ab"), ==, 1);
    g_assert_cmpuint(type(f, "b"), ==, 0);
    g_assert_cmpint(ack(f), ==, 0x24);
    g_assert_cmphex(in(f, IIR), ==, 0x04);
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    unsigned wants = f->chan.wants;
    g_assert_cmphex(in(f, BASE), ==, 'a');
    g_assert_cmpuint(f->chan.wants, ==, wants + 1);
    g_assert_cmphex(in(f, IIR), ==, 0x01);
    g_assert_cmpuint(type(f, "b"), ==, 1);
    g_assert_cmpint(ack(f), ==, 0x24);
}

static void test_fifo(Fixture *f, gconstpointer unused)
{
    out(f, MCR, 0x08);
    out(f, IER, 0x01);
    out(f, FCR, 0x81); /* trigger at 8 */
    g_assert_cmpuint(type(f, "1234567"), ==, 7);
    g_assert_cmphex(in(f, IIR), ==, 0xc1);
    g_assert_cmpint(ack(f), ==, -1);
    g_assert_cmpuint(type(f, "8"), ==, 1);
    g_assert_cmpint(ack(f), ==, 0x24);
    g_assert_cmphex(in(f, IIR), ==, 0xc4);
    g_assert_cmpuint(type(f, "9abcdefghij"), ==, 8);
    for (unsigned i = 0; i < 9; i++)
        g_assert_cmphex(in(f, BASE), ==, "123456789"[i]);
    g_assert_cmphex(in(f, IIR), ==, 0xc1); /* below the trigger */
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    out(f, FCR, 0x83); /* clear */
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    type(f, "z");
    out(f, FCR, 0x00); /* switching the FIFOs off clears them too */
    g_assert_cmphex(in(f, LSR), ==, 0x60);
    g_assert_cmphex(in(f, IIR), ==, 0x01);
}

static void test_timeout(Fixture *f, gconstpointer unused)
{
    out(f, LCR, 0x83);
    out(f, BASE, 12); /* 9600 baud: four characters of 10 bits are 4.17 ms */
    out(f, LCR, 0x03);
    out(f, MCR, 0x08);
    out(f, IER, 0x01);
    out(f, FCR, 0xc1);
    type(f, "ab");
    test_advance(f->tb, 4000000);
    g_assert_cmphex(in(f, IIR), ==, 0xc1);
    type(f, "c"); /* starts anew */
    test_advance(f->tb, 4000000);
    g_assert_cmphex(in(f, IIR), ==, 0xc1);
    test_advance(f->tb, 200000);
    g_assert_cmpint(ack(f), ==, 0x24);
    g_assert_cmphex(in(f, IIR), ==, 0xcc);
    type(f, "d"); /* does not take it back */
    g_assert_cmphex(in(f, IIR), ==, 0xcc);
    in(f, BASE);
    g_assert_cmphex(in(f, IIR), ==, 0xc1);
    test_advance(f->tb, 4200000);
    g_assert_cmphex(in(f, IIR), ==, 0xcc);
    for (unsigned i = 0; i < 3; i++)
        in(f, BASE);
    test_advance(f->tb, 42000000);
    g_assert_cmphex(in(f, IIR), ==, 0xc1);
}

static void test_loopback(Fixture *f, gconstpointer unused)
{
    out(f, MCR, 0x10);
    in(f, MSR);
    g_assert_cmpuint(type(f, "x"), ==, 0); /* the pin is cut off */
    out(f, BASE, 0x5a);
    g_assert_cmpuint(f->chan.sent->len, ==, 0);
    g_assert_cmphex(in(f, BASE), ==, 0x5a);
    out(f, MCR, 0x1f);
    g_assert_cmphex(in(f, MSR), ==, 0xfb); /* RI's rise is no delta */
    g_assert_cmphex(in(f, MSR), ==, 0xf0);
    out(f, MCR, 0x1b);
    g_assert_cmphex(in(f, MSR), ==, 0xb4);
    out(f, IER, 0x08);
    out(f, MCR, 0x19);
    g_assert_cmpint(ack(f), ==, 0x24);
    g_assert_cmphex(in(f, IIR), ==, 0x00);
    g_assert_cmphex(in(f, MSR), ==, 0xa1);
    g_assert_cmphex(in(f, IIR), ==, 0x01);
    unsigned wants = f->chan.wants;
    out(f, MCR, 0x08);
    g_assert_cmpuint(f->chan.wants, ==, wants + 1);
}

static void test_overrun(Fixture *f, gconstpointer unused)
{
    out(f, MCR, 0x18);
    out(f, IER, 0x05);
    out(f, BASE, 'a');
    out(f, BASE, 'b');
    g_assert_cmphex(in(f, IIR), ==, 0x06); /* line status comes first */
    g_assert_cmphex(in(f, LSR), ==, 0x63);
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    g_assert_cmphex(in(f, IIR), ==, 0x04);
    g_assert_cmphex(in(f, BASE), ==, 'b'); /* without FIFOs the old one is lost */
    out(f, FCR, 0x01);
    for (unsigned i = 0; i < 17; i++)
        out(f, BASE, 'A' + i);
    g_assert_cmphex(in(f, LSR) & 0x02, ==, 0x02);
    for (unsigned i = 0; i < 16; i++)
        g_assert_cmphex(in(f, BASE), ==, 'A' + i);
    g_assert_cmphex(in(f, LSR), ==, 0x60);
}

static void test_break(Fixture *f, gconstpointer unused)
{
    out(f, MCR, 0x10);
    out(f, FCR, 0x01);
    out(f, BASE, 'a');
    out(f, LCR, 0x43);
    out(f, LCR, 0x43);
    g_assert_cmphex(in(f, LSR), ==, 0xe1); /* in the FIFO, not at its top */
    in(f, BASE);
    g_assert_cmphex(in(f, LSR), ==, 0xf1);
    g_assert_cmphex(in(f, LSR), ==, 0x61);
    g_assert_cmphex(in(f, BASE), ==, 0);
    g_assert_cmphex(in(f, LSR), ==, 0x60);
}

/* A break from the line's other end: a zero with its mark, before what follows; none in loopback. */
static void test_break_from_outside(Fixture *f, gconstpointer unused)
{
    Device *d = g_ptr_array_index(f->tb->devices, f->tb->devices->len - 1);
    test_out(f->tb, FCR, 1, 1);
    test_out(f->tb, IER, 1, 4);
    test_out(f->tb, MCR, 1, 8);
    uart_receive_break(d);
    g_assert_cmpuint(f->chan.ops->input(f->chan.opaque, (const uint8_t *)"h", 1), ==, 1);
    g_assert_cmphex(in(f, IIR) & 0xf, ==, 6);
    g_assert_cmphex(in(f, LSR) & 0x11, ==, 0x11);
    g_assert_cmphex(in(f, BASE), ==, 0);
    g_assert_cmphex(in(f, LSR) & 0x11, ==, 1);
    g_assert_cmphex(in(f, BASE), ==, 'h');
    test_out(f->tb, MCR, 1, 0x10);
    uart_receive_break(d);
    g_assert_cmphex(in(f, LSR) & 0x11, ==, 0);
}

static void test_out2_gates(Fixture *f, gconstpointer unused)
{
    out(f, IER, 0x01);
    type(f, "a");
    g_assert_cmphex(in(f, IIR), ==, 0x04);
    g_assert_cmpint(ack(f), ==, -1);
    out(f, MCR, 0x08);
    g_assert_cmpint(ack(f), ==, 0x24);
}

static void test_alone(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    test_board_add(tb, "16550a", "iobase=0x2f8,irq=3");
    test_out(tb, 0x2f8, 1, 'x');
    g_assert_cmphex(test_in(tb, 0x2fd, 1), ==, 0x60);
    g_assert_cmphex(test_in(tb, 0x2f8, 1), ==, 0);
}

#define UART_TEST(name) g_test_add("/uart/" #name, Fixture, NULL, set_up, test_##name, tear_down)

/* Output alone goes to a channel that is another device's; input there is not taken. */
static void test_beside(void)
{
    TestBoard *tb = test_board_new(0);
    Chan other = {.sent = g_string_new(NULL)};

    test_board_backend(tb, "con0", &other);
    test_board_add(tb, "16550a", "beside=con0");
    g_assert_null(other.ops);
    test_out(tb, BASE, 1, 'A');
    g_assert_cmpstr(other.sent->str, ==, "A");
    test_board_free(tb);
    g_string_free(other.sent, TRUE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    UART_TEST(registers);
    UART_TEST(autodetect);
    UART_TEST(thre);
    UART_TEST(receive_without_fifo);
    UART_TEST(fifo);
    UART_TEST(timeout);
    UART_TEST(loopback);
    UART_TEST(break_from_outside);
    UART_TEST(overrun);
    UART_TEST(break);
    UART_TEST(out2_gates);
    g_test_add_func("/uart/alone", test_alone);
    g_test_add_func("/uart/beside", test_beside);
    return g_test_run();
}
