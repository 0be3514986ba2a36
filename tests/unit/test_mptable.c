/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The MP table, walked as a kernel walks it. */
#include <string.h>

#include "lodge/num.h"
#include "mptable.h"
#include "pc_map.h"

#define AT PC_MPTABLE_GPA

static bool sums_to_zero(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += p[i];
    return !sum;
}

/* The IOAPIC pin of an interrupt source; -1: no entry, and its flags. */
static int pin_of(const uint8_t *mpc, uint8_t bus, uint8_t source, uint16_t *ret_flags)
{
    int pin = -1;
    unsigned at = 44;
    for (unsigned i = 0; i < load_le16(mpc + 34); i++) {
        const uint8_t *e = mpc + at;
        at += e[0] == 0 ? 20 : 8;
        if (e[0] != 3 || e[4] != bus || e[5] != source)
            continue;
        g_assert_cmpint(pin, ==, -1);
        pin = e[7];
        *ret_flags = load_le16(e + 2);
    }
    return pin;
}

static void test_walk(void)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    g_assert_true(mptable_build(3, AT, b));
    const uint8_t *mpf = b->data;
    g_assert_cmpmem(mpf, 4, "_MP_", 4);
    g_assert_true(sums_to_zero(mpf, 16));
    g_assert_cmpuint(mpf[8], ==, 1);
    g_assert_cmpuint(mpf[9], ==, 4);
    g_assert_cmpuint(mpf[11], ==, 0); /* a configuration table, no IMCR */
    g_assert_cmpuint(mpf[12], ==, 0);
    g_assert_cmphex(load_le32(mpf + 4), ==, AT + 16);
    const uint8_t *mpc = mpf + 16;
    uint16_t len = load_le16(mpc + 4), flags = 0;
    g_assert_cmpmem(mpc, 4, "PCMP", 4);
    g_assert_cmpuint(len + 16, ==, b->len);
    g_assert_true(sums_to_zero(mpc, len));
    g_assert_cmphex(load_le32(mpc + 36), ==, PC_LAPIC_GPA);
    unsigned count[5] = {0}, at = 44, boot = 0;
    for (unsigned i = 0; i < load_le16(mpc + 34); i++) {
        const uint8_t *e = mpc + at;
        g_assert_cmpuint(e[0], <, 5);
        if (e[0] == 0) {
            g_assert_cmpuint(e[1], ==, count[0]);
            boot += e[3] >> 1 & 1;
        }
        if (e[0] == 2)
            g_assert_cmphex(load_le32(e + 4), ==, PC_IOAPIC_GPA);
        count[e[0]]++;
        at += e[0] == 0 ? 20 : 8;
    }
    g_assert_cmpuint(at, ==, len);
    g_assert_cmpuint(boot, ==, 1);
    g_assert_cmpuint(count[0], ==, 3);
    g_assert_cmpuint(count[1], ==, 2);
    g_assert_cmpuint(count[2], ==, 1);
    g_assert_cmpuint(count[4], ==, 2);
    g_assert_cmpint(pin_of(mpc, 1, 0, &flags), ==, 2);
    g_assert_cmpint(pin_of(mpc, 1, 2, &flags), ==, -1);
    g_assert_cmpint(pin_of(mpc, 1, 4, &flags), ==, 4);
    g_assert_cmphex(flags, ==, 0);
    g_assert_cmpint(pin_of(mpc, 1, 9, &flags), ==, 9);
    g_assert_cmphex(flags, ==, 0x0d);
    g_assert_cmpint(pin_of(mpc, 0, 1 << 2, &flags), ==, 10);
    g_assert_cmpint(pin_of(mpc, 0, 3 << 2, &flags), ==, 11);
    g_assert_cmphex(flags, ==, 0x0d);
    g_assert_cmpint(pin_of(mpc, 0, 3 << 2 | 2, &flags), ==, 10);
    g_assert_cmpint(pin_of(mpc, 0, 31 << 2 | 3, &flags), ==, 10);
}

static void test_limits(void)
{
    g_autoptr(GByteArray) b = g_byte_array_new();
    g_assert_false(mptable_build(0, AT, b));
    g_assert_false(mptable_build(255, AT, b));
    g_assert_false(mptable_build(1, AT + 8, b));
    g_assert_false(mptable_build(1, 0x100000, b));
    g_assert_cmpuint(b->len, ==, 0);
    g_assert_true(mptable_build(254, AT, b));
    g_assert_cmpuint(b->len, <=, 0x10000);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mptable/walk", test_walk);
    g_test_add_func("/mptable/limits", test_limits);
    return g_test_run();
}
