/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio entropy device, and through it what every virtio device shares on a real ring. */
#include <string.h>

#include <linux/virtio_ring.h>

#include "lodge/num.h"
#include "virtio_driver.h"

#define EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
#define ROUND (64 << 10)
#define PERIOD_NS (10 * 1000 * 1000)

static Drv *rng_up(TestBoard *tb, uint64_t features)
{
    Drv *d = drv_open(tb, "virtio-rng-pci", NULL);

    g_assert_true(drv_accept(d, features));
    drv_msix(d, 1);
    drv_queue(d, 0, 8);
    drv_ready(d);
    return d;
}

static void test_fill(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = rng_up(tb, 0);
    uint64_t gpa = drv_alloc(d, 64);
    DrvSeg segs[] = {{gpa, 40, true}, {gpa + 40, 24, true}};
    uint8_t got[64], zero[64] = {0};
    uint32_t head, len;
    uint16_t h = drv_add(d, 0, segs, 2);

    g_assert_false(drv_used(d, 0, &head, &len));
    drv_kick(d, 0);
    g_assert_true(drv_used(d, 0, &head, &len));
    g_assert_cmpuint(head, ==, h);
    g_assert_cmpuint(len, ==, 64);
    drv_get(d, gpa, got, sizeof got);
    g_assert_true(memcmp(got, zero, sizeof got) != 0);
    g_assert_true(memcmp(got + 40, zero, 24) != 0);
    g_assert_cmpuint(drv_msis(d, 0), ==, 1);
}

/* More than a round's bytes wait for the clock, and a short answer is an answer. */
static void test_rate(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = rng_up(tb, 0);
    uint64_t gpa = drv_alloc(d, ROUND);
    DrvSeg seg = {gpa, ROUND - 100, true};
    uint32_t head, len;

    for (unsigned i = 0; i < 3; i++)
        drv_add(d, 0, &seg, 1);
    drv_kick(d, 0);
    g_assert_true(drv_used(d, 0, &head, &len));
    g_assert_cmpuint(len, ==, ROUND - 100);
    g_assert_true(drv_used(d, 0, &head, &len));
    g_assert_cmpuint(len, ==, 100);
    drv_kick(d, 0);
    g_assert_false(drv_used(d, 0, &head, &len));
    test_advance(tb, PERIOD_NS);
    g_assert_true(drv_used(d, 0, &head, &len));
    g_assert_cmpuint(len, ==, ROUND - 100);
}

/* A buffer that cannot be written gets nothing; the ring goes on. */
static void test_read_only_buffer(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = rng_up(tb, 0);
    DrvSeg seg = {drv_alloc(d, 16), 16, false};
    uint32_t head, len;

    drv_add(d, 0, &seg, 1);
    drv_kick(d, 0);
    g_assert_true(drv_used(d, 0, &head, &len));
    g_assert_cmpuint(len, ==, 0);
    g_assert_cmpuint(d->dev->faults, ==, 1);
    g_assert_false(drv_needs_reset(d));
}

/* With event index an interrupt comes only when used_event is passed. */
static void test_event_idx(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = rng_up(tb, EVENT_IDX);
    DrvSeg seg = {drv_alloc(d, 16), 16, true};
    DrvQueue *q = &d->q[0];

    drv_put16(d, q->ring + 4 + 2 * q->size, 1); /* used_event: tell me after the second */
    drv_add(d, 0, &seg, 1);
    drv_kick(d, 0);
    g_assert_cmpuint(drv_get16(d, q->used + 2), ==, 1);
    g_assert_cmpuint(drv_msis(d, 0), ==, 0);
    g_assert_cmpuint(drv_get16(d, q->used + 4 + 8 * q->size), ==, 1); /* avail_event */
    drv_add(d, 0, &seg, 1);
    drv_kick(d, 0);
    g_assert_cmpuint(drv_msis(d, 0), ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-rng/fill", test_fill);
    g_test_add_func("/virtio-rng/rate", test_rate);
    g_test_add_func("/virtio-rng/read-only-buffer", test_read_only_buffer);
    g_test_add_func("/virtio-rng/event-idx", test_event_idx);
    return g_test_run();
}
