/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 8259A pair through its ports: priorities, every way to end an interrupt, spurious ones. */
#include <string.h>

#include "testboard.h"

#define MASTER 0x20
#define SLAVE 0xa0
#define ELCR 0x4d0
#define EOI 0x20
#define SPECIFIC_EOI 0x60
#define READ_IRR 0x0a
#define READ_ISR 0x0b

typedef struct Fixture {
    TestBoard *tb;
    IrqLine *line[16];
    unsigned eois[16];
} Fixture;

static void count_eoi(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void init(Fixture *f, uint8_t icw4_master, uint8_t icw4_slave)
{
    test_out(f->tb, MASTER, 1, 0x11);
    test_out(f->tb, MASTER + 1, 1, 0x20);
    test_out(f->tb, MASTER + 1, 1, 0x04);
    test_out(f->tb, MASTER + 1, 1, icw4_master);
    test_out(f->tb, SLAVE, 1, 0x11);
    test_out(f->tb, SLAVE + 1, 1, 0x28);
    test_out(f->tb, SLAVE + 1, 1, 0x02);
    test_out(f->tb, SLAVE + 1, 1, icw4_slave);
    memset(f->eois, 0, sizeof f->eois);
}

static void set_up(Fixture *f, gconstpointer unused)
{
    f->tb = test_board_new(0);
    test_board_add(f->tb, "i8259", NULL);
    for (unsigned i = 0; i < 16; i++) {
        f->line[i] = irq_line_new(f->tb->board.irq, i, "test");
        irq_line_on_eoi(f->line[i], count_eoi, &f->eois[i]);
    }
    init(f, 0x01, 0x01);
}

static void tear_down(Fixture *f, gconstpointer unused)
{
    for (unsigned i = 0; i < 16; i++)
        irq_line_free(f->line[i]);
    test_board_free(f->tb);
}

static int ack(Fixture *f)
{
    return irq_ack(f->tb->board.irq);
}

static void pulse(Fixture *f, unsigned irq)
{
    irq_line_pulse(f->line[irq]);
}

static uint8_t isr(Fixture *f, uint16_t port)
{
    test_out(f->tb, port, 1, READ_ISR);
    return test_in(f->tb, port, 1);
}

static uint8_t irr(Fixture *f, uint16_t port)
{
    test_out(f->tb, port, 1, READ_IRR);
    return test_in(f->tb, port, 1);
}

static void test_masked_at_power_on(void)
{
    g_autoptr(TestBoard) tb = test_board_new(0);
    test_board_add(tb, "i8259", NULL);
    IrqLine *l = irq_line_new(tb->board.irq, 3, "test");
    irq_line_pulse(l);
    g_assert_false(tb->extint);
    g_assert_cmpint(irq_ack(tb->board.irq), ==, -1);
    irq_line_free(l);
}

static void test_priorities(Fixture *f, gconstpointer unused)
{
    pulse(f, 5);
    g_assert_true(f->tb->extint);
    g_assert_cmpint(ack(f), ==, 0x25);
    g_assert_false(f->tb->extint);
    pulse(f, 6); /* lower: waits */
    g_assert_false(f->tb->extint);
    pulse(f, 5); /* the same: waits */
    g_assert_false(f->tb->extint);
    pulse(f, 1); /* higher: nests */
    g_assert_cmpint(ack(f), ==, 0x21);
    g_assert_cmphex(isr(f, MASTER), ==, 0x22);
    g_assert_cmphex(irr(f, MASTER), ==, 0x60);
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_cmphex(isr(f, MASTER), ==, 0x20);
    g_assert_false(f->tb->extint);
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_cmpuint(f->eois[1], ==, 1);
    g_assert_cmpuint(f->eois[5], ==, 1);
    g_assert_cmpint(ack(f), ==, 0x25);
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_cmpint(ack(f), ==, 0x26);
}

static void test_edge_needs_fall(Fixture *f, gconstpointer unused)
{
    irq_line_set(f->line[4], true);
    g_assert_cmpint(ack(f), ==, 0x24);
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_false(f->tb->extint);
    irq_line_set(f->line[4], false);
    irq_line_set(f->line[4], true);
    g_assert_true(f->tb->extint);
}

static void test_cascade(Fixture *f, gconstpointer unused)
{
    pulse(f, 12);
    g_assert_cmpint(ack(f), ==, 0x2c);
    g_assert_cmphex(isr(f, MASTER), ==, 0x04);
    g_assert_cmphex(isr(f, SLAVE), ==, 0x10);
    pulse(f, 9); /* higher on the slave, but the master's IR2 is in service */
    g_assert_false(f->tb->extint);
    test_out(f->tb, SLAVE, 1, EOI);
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_cmpint(ack(f), ==, 0x29);
    test_out(f->tb, SLAVE, 1, EOI);
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_cmpuint(f->eois[12], ==, 1);
    g_assert_cmpuint(f->eois[9], ==, 1);
    g_assert_cmpuint(f->eois[2], ==, 0);
}

static void test_special_fully_nested(Fixture *f, gconstpointer unused)
{
    init(f, 0x11, 0x01);
    pulse(f, 12);
    g_assert_cmpint(ack(f), ==, 0x2c);
    pulse(f, 9);
    g_assert_cmpint(ack(f), ==, 0x29);
    g_assert_cmphex(isr(f, SLAVE), ==, 0x12);
}

static void test_specific_eoi(Fixture *f, gconstpointer unused)
{
    pulse(f, 5);
    ack(f);
    pulse(f, 1);
    ack(f);
    test_out(f->tb, MASTER, 1, SPECIFIC_EOI | 5);
    g_assert_cmphex(isr(f, MASTER), ==, 0x02);
    g_assert_cmpuint(f->eois[5], ==, 1);
    g_assert_cmpuint(f->eois[1], ==, 0);
    test_out(f->tb, MASTER, 1, SPECIFIC_EOI | 5); /* not in service: nothing */
    g_assert_cmpuint(f->eois[5], ==, 1);
}

static void test_rotate(Fixture *f, gconstpointer unused)
{
    pulse(f, 3);
    ack(f);
    test_out(f->tb, MASTER, 1, 0xa0); /* rotate on non-specific EOI: 3 becomes the lowest */
    pulse(f, 3);
    pulse(f, 4);
    g_assert_cmpint(ack(f), ==, 0x24);
    test_out(f->tb, MASTER, 1, 0xe0 | 4); /* rotate on specific EOI */
    pulse(f, 5);
    g_assert_cmpint(ack(f), ==, 0x25);
    test_out(f->tb, MASTER, 1, EOI);
    test_out(f->tb, MASTER, 1, 0xc0 | 2); /* set priority: 3 is the highest */
    pulse(f, 0);
    g_assert_cmpint(ack(f), ==, 0x23);
}

static void test_auto_eoi(Fixture *f, gconstpointer unused)
{
    init(f, 0x03, 0x01);
    pulse(f, 4);
    pulse(f, 6);
    g_assert_cmpint(ack(f), ==, 0x24);
    g_assert_cmphex(isr(f, MASTER), ==, 0);
    g_assert_cmpuint(f->eois[4], ==, 1);
    g_assert_cmpint(ack(f), ==, 0x26);
    test_out(f->tb, MASTER, 1, 0x80); /* rotate in AEOI */
    pulse(f, 4);
    g_assert_cmpint(ack(f), ==, 0x24);
    pulse(f, 4);
    pulse(f, 5);
    g_assert_cmpint(ack(f), ==, 0x25);
    g_assert_cmpint(ack(f), ==, 0x24);
    test_out(f->tb, MASTER, 1, 0x00); /* stays rotated: 5 is the highest */
    pulse(f, 4);
    pulse(f, 5);
    g_assert_cmpint(ack(f), ==, 0x25);
    pulse(f, 5);
    g_assert_cmpint(ack(f), ==, 0x25);
}

static void test_special_mask(Fixture *f, gconstpointer unused)
{
    pulse(f, 2 + 1);
    ack(f);
    pulse(f, 6);
    g_assert_false(f->tb->extint);
    test_out(f->tb, MASTER + 1, 1, 0x08);
    test_out(f->tb, MASTER, 1, 0x68); /* ESMM | SMM */
    g_assert_cmpint(ack(f), ==, 0x26);
    test_out(f->tb, MASTER, 1, EOI); /* does not see the masked level */
    g_assert_cmphex(isr(f, MASTER), ==, 0x08);
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_cmphex(isr(f, MASTER), ==, 0x08);
    test_out(f->tb, MASTER, 1, 0x48); /* off */
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_cmphex(isr(f, MASTER), ==, 0);
}

static void test_poll(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, MASTER, 1, 0x0c);
    g_assert_cmphex(test_in(f->tb, MASTER, 1), ==, 0);
    pulse(f, 6);
    test_out(f->tb, MASTER, 1, 0x0c);
    g_assert_cmphex(test_in(f->tb, MASTER, 1), ==, 0x86);
    g_assert_cmphex(isr(f, MASTER), ==, 0x40);
    g_assert_false(f->tb->extint);
}

static void test_spurious(Fixture *f, gconstpointer unused)
{
    g_assert_cmpint(ack(f), ==, -1);
    test_out(f->tb, ELCR, 1, 0x20);
    test_out(f->tb, ELCR + 1, 1, 0x04);
    irq_line_set(f->line[5], true);
    irq_line_set(f->line[5], false); /* withdrawn before the acknowledge */
    g_assert_false(f->tb->extint);
    g_assert_cmpint(ack(f), ==, 0x27);
    g_assert_cmphex(isr(f, MASTER), ==, 0);
    g_assert_cmpint(ack(f), ==, -1);
    irq_line_set(f->line[10], true);
    irq_line_set(f->line[10], false);
    g_assert_cmpint(ack(f), ==, 0x2f);
    g_assert_cmphex(isr(f, SLAVE), ==, 0);
    g_assert_cmphex(isr(f, MASTER), ==, 0x04);
}

static void test_elcr(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, ELCR, 1, 0xff);
    test_out(f->tb, ELCR + 1, 1, 0xff);
    g_assert_cmphex(test_in(f->tb, ELCR, 1), ==, 0xf8);
    g_assert_cmphex(test_in(f->tb, ELCR + 1, 1), ==, 0xde);
    irq_line_set(f->line[11], true);
    g_assert_cmpint(ack(f), ==, 0x2b);
    test_out(f->tb, SLAVE, 1, EOI);
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_cmpuint(f->eois[11], ==, 1);
    g_assert_cmpint(ack(f), ==, 0x2b); /* still high: again */
    irq_line_set(f->line[11], false);
    test_out(f->tb, SLAVE, 1, EOI);
    test_out(f->tb, MASTER, 1, EOI);
    g_assert_false(f->tb->extint);
}

static void test_mask(Fixture *f, gconstpointer unused)
{
    test_out(f->tb, MASTER + 1, 1, 0x10);
    pulse(f, 4);
    g_assert_false(f->tb->extint);
    g_assert_cmphex(irq_line_at_pic(f->line[4]), ==, IRQ_PIN_BUSY);
    g_assert_cmphex(irq_line_at_pic(f->line[3]), ==, IRQ_PIN_OPEN);
    test_out(f->tb, MASTER + 1, 1, 0x00);
    g_assert_cmpuint(f->eois[4], ==, 1); /* told that it was opened */
    g_assert_cmpint(ack(f), ==, 0x24);
    g_assert_cmphex(test_in(f->tb, MASTER + 1, 1), ==, 0);
}

static void test_initialization_forgets(Fixture *f, gconstpointer unused)
{
    pulse(f, 4);
    ack(f);
    pulse(f, 3);
    init(f, 0x01, 0x01);
    g_assert_false(f->tb->extint);
    g_assert_cmphex(isr(f, MASTER), ==, 0);
    g_assert_cmphex(irr(f, MASTER), ==, 0);
}

#define PIC_TEST(name) g_test_add("/pic/" #name, Fixture, NULL, set_up, test_##name, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pic/masked_at_power_on", test_masked_at_power_on);
    PIC_TEST(priorities);
    PIC_TEST(edge_needs_fall);
    PIC_TEST(cascade);
    PIC_TEST(special_fully_nested);
    PIC_TEST(specific_eoi);
    PIC_TEST(rotate);
    PIC_TEST(auto_eoi);
    PIC_TEST(special_mask);
    PIC_TEST(poll);
    PIC_TEST(spurious);
    PIC_TEST(elcr);
    PIC_TEST(mask);
    PIC_TEST(initialization_forgets);
    return g_test_run();
}
