/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The IOAPIC through its window: edge, level with EOI, masks, remote IRR, what a storm does. */
#include "testboard.h"

#define BASE 0xfec00000
#define REDIR(pin) (0x10 + 2 * (pin))
#define LEVEL 0x8000
#define MASKED 0x10000
#define REMOTE_IRR 0x4000

typedef struct Fixture {
    TestBoard *tb;
    IrqLine *line;
    unsigned eois;
} Fixture;

static void count_eoi(void *opaque)
{
    ++*(unsigned *)opaque;
}

static uint32_t reg(Fixture *f, unsigned index)
{
    test_poke(f->tb, BASE, 4, index);
    return test_peek(f->tb, BASE + 0x10, 4);
}

static void set_reg(Fixture *f, unsigned index, uint32_t val)
{
    test_poke(f->tb, BASE, 4, index);
    test_poke(f->tb, BASE + 0x10, 4, val);
}

static void set_up(Fixture *f, gconstpointer gsi)
{
    f->tb = test_board_new(0);
    test_board_add(f->tb, "ioapic", "apic-id=2");
    f->line = irq_line_new(f->tb->board.irq, GPOINTER_TO_UINT(gsi), "test");
    f->eois = 0;
    irq_line_on_eoi(f->line, count_eoi, &f->eois);
}

static void tear_down(Fixture *f, gconstpointer gsi)
{
    irq_line_free(f->line);
    test_board_free(f->tb);
}

static TestMsi last(Fixture *f)
{
    g_assert_cmpuint(f->tb->msis->len, >, 0);
    return g_array_index(f->tb->msis, TestMsi, f->tb->msis->len - 1);
}

static void test_registers(Fixture *f, gconstpointer gsi)
{
    g_assert_cmphex(reg(f, 0), ==, 0x02000000);
    g_assert_cmphex(reg(f, 1), ==, 0x00170020);
    set_reg(f, 0, 0xff000000);
    g_assert_cmphex(reg(f, 0), ==, 0x0f000000);
    g_assert_cmphex(reg(f, 2), ==, 0x0f000000);
    for (unsigned pin = 0; pin < 24; pin++)
        g_assert_cmphex(reg(f, REDIR(pin)), ==, MASKED);
    set_reg(f, REDIR(3), 0xffffffff);
    g_assert_cmphex(reg(f, REDIR(3)), ==, 0x0001afff); /* delivery status, remote IRR: fixed */
    g_assert_cmphex(reg(f, 0x40), ==, 0);
    set_reg(f, 0xff, 1);
}

static void test_edge(Fixture *f, gconstpointer gsi)
{
    set_reg(f, REDIR(9) + 1, 0x03000000);
    set_reg(f, REDIR(9), 0x0941); /* logical, lowest priority */
    irq_line_set(f->line, true);
    g_assert_cmpuint(f->tb->msis->len, ==, 1);
    g_assert_cmphex(last(f).addr, ==, 0xfee03004);
    g_assert_cmphex(last(f).data, ==, 0x0141);
    g_assert_cmphex(reg(f, REDIR(9)) & REMOTE_IRR, ==, 0);
    irq_line_set(f->line, false);
    g_assert_cmpuint(f->tb->msis->len, ==, 1);
    irq_line_pulse(f->line);
    g_assert_cmpuint(f->tb->msis->len, ==, 2);
}

static void test_masked_edge_is_lost(Fixture *f, gconstpointer gsi)
{
    irq_line_set(f->line, true);
    g_assert_cmpuint(f->eois, ==, 0);
    set_reg(f, REDIR(9), 0x41);
    g_assert_cmpuint(f->eois, ==, 1); /* told that it was opened */
    g_assert_cmpuint(f->tb->msis->len, ==, 0);
    irq_line_set(f->line, false);
    irq_line_set(f->line, true);
    g_assert_cmpuint(f->tb->msis->len, ==, 1);
}

static void test_level(Fixture *f, gconstpointer gsi)
{
    set_reg(f, REDIR(9), LEVEL | 0x41);
    irq_line_set(f->line, true);
    g_assert_cmphex(last(f).data, ==, 0xc041);
    g_assert_cmphex(reg(f, REDIR(9)), ==, LEVEL | REMOTE_IRR | 0x41);
    irq_line_set(f->line, false);
    irq_line_set(f->line, true); /* remote IRR holds it */
    g_assert_cmpuint(f->tb->msis->len, ==, 1);
    f->eois = 0;
    irq_eoi_vector(f->tb->board.irq, 0x42); /* another's */
    g_assert_cmpuint(f->eois, ==, 0);
    irq_line_set(f->line, false);
    irq_eoi_vector(f->tb->board.irq, 0x41);
    g_assert_cmpuint(f->eois, ==, 1);
    g_assert_cmphex(reg(f, REDIR(9)) & REMOTE_IRR, ==, 0);
    g_assert_cmpuint(f->tb->msis->len, ==, 1);
}

static void test_eoi_register(Fixture *f, gconstpointer gsi)
{
    set_reg(f, REDIR(9), LEVEL | 0x41);
    irq_line_set(f->line, true);
    irq_line_set(f->line, false);
    test_poke(f->tb, BASE + 0x40, 4, 0x41);
    g_assert_cmphex(reg(f, REDIR(9)) & REMOTE_IRR, ==, 0);
}

/* A line that is never quieted costs one message for each EOI, no more. */
static void test_storm(Fixture *f, gconstpointer gsi)
{
    set_reg(f, REDIR(9), LEVEL | 0x41);
    irq_line_set(f->line, true);
    for (unsigned i = 1; i <= 10000; i++) {
        g_assert_cmpuint(f->tb->msis->len, ==, i);
        irq_eoi_vector(f->tb->board.irq, 0x41);
    }
    irq_line_set(f->line, false);
    irq_eoi_vector(f->tb->board.irq, 0x41);
    g_assert_cmpuint(f->tb->msis->len, ==, 10001);
}

static void test_masked_level(Fixture *f, gconstpointer gsi)
{
    set_reg(f, REDIR(9), LEVEL | MASKED | 0x41);
    irq_line_set(f->line, true);
    g_assert_cmpuint(f->tb->msis->len, ==, 0);
    set_reg(f, REDIR(9), LEVEL | 0x41);
    g_assert_cmpuint(f->tb->msis->len, ==, 1);
    set_reg(f, REDIR(9), LEVEL | MASKED | 0x41); /* masked in service, as Linux does */
    irq_eoi_vector(f->tb->board.irq, 0x41);
    g_assert_cmpuint(f->tb->msis->len, ==, 1);
    set_reg(f, REDIR(9), LEVEL | 0x41);
    g_assert_cmpuint(f->tb->msis->len, ==, 2);
    /* The way of drivers without an EOI register: to edge and back. */
    set_reg(f, REDIR(9), MASKED | 0x41);
    g_assert_cmphex(reg(f, REDIR(9)) & REMOTE_IRR, ==, 0);
    set_reg(f, REDIR(9), LEVEL | 0x41);
    g_assert_cmpuint(f->tb->msis->len, ==, 3);
}

static void test_modes(Fixture *f, gconstpointer gsi)
{
    set_reg(f, REDIR(9), 0x0400); /* NMI */
    irq_line_pulse(f->line);
    g_assert_cmphex(last(f).data, ==, 0x0400);
    set_reg(f, REDIR(9), LEVEL | 0x0400); /* level has no meaning here */
    irq_line_pulse(f->line);
    g_assert_cmphex(last(f).data, ==, 0x0400);
    g_assert_cmphex(reg(f, REDIR(9)) & REMOTE_IRR, ==, 0);
    set_reg(f, REDIR(9), 0x0700); /* ExtINT goes by LINT0 */
    irq_line_pulse(f->line);
    g_assert_cmpuint(f->tb->msis->len, ==, 2);
    g_assert_cmphex(irq_line_at_ioapic(f->line), ==, 0);
}

static void test_timer_pin(Fixture *f, gconstpointer gsi)
{
    set_reg(f, REDIR(0), 0x30);
    set_reg(f, REDIR(2), 0x31);
    irq_line_pulse(f->line);
    g_assert_cmpuint(f->tb->msis->len, ==, 1);
    g_assert_cmphex(last(f).data, ==, 0x31);
    g_assert_cmpuint(f->eois, ==, 1); /* pin 2 was opened */
    g_assert_cmphex(irq_line_at_ioapic(f->line), ==, IRQ_PIN_OPEN);
}

static void test_widths(Fixture *f, gconstpointer gsi)
{
    test_poke(f->tb, BASE, 4, 1);
    g_assert_cmphex(test_peek(f->tb, BASE + 0x10, 1), ==, 0xff);
    g_assert_cmphex(test_peek(f->tb, BASE + 0x20, 4), ==, 0);
    g_assert_cmphex(test_peek(f->tb, BASE + 0x10, 8), ==, 0x00170020);
}

typedef struct Mirror {
    unsigned calls;
    bool level, masked;
} Mirror;

static void note_route(void *opaque, unsigned pin, uint64_t addr, uint32_t data, bool level,
                       bool masked)
{
    Mirror *m = opaque;
    if (pin == 9)
        *m = (Mirror){m->calls + 1, level, masked};
}

/* The CPU side must report an EOI also where the guest masks the pin before it. */
static void test_masked_before_eoi(Fixture *f, gconstpointer gsi)
{
    Mirror m = {0};
    IrqHooks hooks = {.ioapic_route = note_route, .opaque = &m};
    irq_set_hooks(f->tb->board.irq, &hooks);
    set_reg(f, REDIR(9), LEVEL | 0x51);
    g_assert_true(m.level && !m.masked);
    irq_line_set(f->line, true);
    set_reg(f, REDIR(9), LEVEL | MASKED | 0x51);
    g_assert_cmphex(reg(f, REDIR(9)) & REMOTE_IRR, ==, REMOTE_IRR);
    g_assert_true(m.level && !m.masked);
    irq_eoi_vector(f->tb->board.irq, 0x51);
    g_assert_cmphex(reg(f, REDIR(9)) & REMOTE_IRR, ==, 0);
    g_assert_true(m.level && m.masked);
}

#define IOAPIC_TEST(name, gsi)                                                                     \
    g_test_add("/ioapic/" #name, Fixture, GUINT_TO_POINTER(gsi), set_up, test_##name, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    IOAPIC_TEST(registers, 9);
    IOAPIC_TEST(edge, 9);
    IOAPIC_TEST(masked_edge_is_lost, 9);
    IOAPIC_TEST(level, 9);
    IOAPIC_TEST(eoi_register, 9);
    IOAPIC_TEST(storm, 9);
    IOAPIC_TEST(masked_level, 9);
    IOAPIC_TEST(masked_before_eoi, 9);
    IOAPIC_TEST(modes, 9);
    IOAPIC_TEST(timer_pin, 0);
    IOAPIC_TEST(widths, 9);
    return g_test_run();
}
