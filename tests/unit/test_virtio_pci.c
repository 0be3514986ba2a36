/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio transport: capabilities, negotiation, queue registers, interrupts, reset, state. */
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "pci.h"
#include "virtio_driver.h"

#define VERSION_1 (UINT64_C(1) << VIRTIO_F_VERSION_1)
#define RNG_DEVICE_ID 0x1044
#define BUF 0x200000

static uint32_t in(Drv *d, unsigned reg, unsigned size)
{
    return (uint32_t)test_peek(d->tb, d->common + reg, size);
}

static void out(Drv *d, unsigned reg, unsigned size, uint32_t val)
{
    test_poke(d->tb, d->common + reg, size, val);
}

static void test_identity(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);

    g_assert_cmphex(test_cfg_read(tb, d->devfn, 0, 2), ==, 0x1af4);
    g_assert_cmphex(test_cfg_read(tb, d->devfn, 2, 2), ==, RNG_DEVICE_ID);
    g_assert_cmphex(test_cfg_read(tb, d->devfn, 8, 1), ==, 1);
    g_assert_cmpuint(d->notify_mult, ==, 4);
    g_assert_cmpuint(in(d, VIRTIO_PCI_COMMON_NUMQ, 2), ==, 1);
    g_assert_cmphex(in(d, VIRTIO_PCI_COMMON_MSIX, 2), ==, VIRTIO_MSI_NO_VECTOR);
    g_assert_cmpuint(in(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 64);
    out(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    g_assert_cmpuint(in(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 0);
    g_assert_cmphex(drv_offered(d), ==,
                    VERSION_1 | 1u << VIRTIO_RING_F_EVENT_IDX | 1u << VIRTIO_RING_F_INDIRECT_DESC);
    out(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 2);
    g_assert_cmphex(in(d, VIRTIO_PCI_COMMON_DF, 4), ==, 0);
}

static void features(Drv *d, uint64_t f)
{
    out(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    out(d, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)f);
    out(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    out(d, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(f >> 32));
    drv_status(d, VIRTIO_CONFIG_S_FEATURES_OK);
}

static void test_negotiation(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);

    features(d, 0); /* version 1 is not optional */
    g_assert_false(drv_get_status(d) & VIRTIO_CONFIG_S_FEATURES_OK);
    features(d, VERSION_1 | 1); /* not offered */
    g_assert_false(drv_get_status(d) & VIRTIO_CONFIG_S_FEATURES_OK);
    drv_ready(d); /* too early: refused */
    g_assert_false(drv_get_status(d) & VIRTIO_CONFIG_S_DRIVER_OK);
    features(d, VERSION_1);
    g_assert_true(drv_get_status(d) & VIRTIO_CONFIG_S_FEATURES_OK);
    out(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    out(d, VIRTIO_PCI_COMMON_GF, 4, 0); /* settled */
    g_assert_cmphex(in(d, VIRTIO_PCI_COMMON_GF, 4), ==, VERSION_1 >> 32);
    out(d, VIRTIO_PCI_COMMON_STATUS, 1, VIRTIO_CONFIG_S_DRIVER); /* bits do not go away */
    g_assert_true(drv_get_status(d) & VIRTIO_CONFIG_S_FEATURES_OK);
    drv_reset(d);
    g_assert_cmphex(drv_get_status(d), ==, 0);
    g_assert_cmphex(in(d, VIRTIO_PCI_COMMON_GF, 4), ==, 0);
}

static void test_queue_registers(void)
{
    const uint32_t bad[] = {0, 3, 128, 0xffff};
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        out(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, bad[i]);
        g_assert_true(drv_needs_reset(d));
        g_assert_cmpuint(in(d, VIRTIO_PCI_COMMON_Q_SIZE, 2), ==, 64);
        drv_reset(d);
        g_assert_false(drv_needs_reset(d));
    }
    out(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4, DRV_RAM); /* outside memory: seen when enabled */
    out(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    g_assert_true(drv_needs_reset(d));
    g_assert_cmpuint(in(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2), ==, 0);
    drv_reset(d);
    drv_queue(d, 0, 8);
    out(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0x50000); /* enabled: fixed */
    g_assert_cmphex(in(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4), ==, d->q[0].desc);
    out(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2); /* there are two vectors */
    g_assert_cmphex(in(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), ==, VIRTIO_MSI_NO_VECTOR);
}

/* Every offset and width: nothing falls over, and nothing is enabled by accident. */
static void test_every_access(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);

    for (unsigned size = 1; size <= 8; size *= 2) {
        for (unsigned reg = 0; reg < 0x4000; reg += reg < 0x100 ? 1 : 0x3f) {
            test_peek(tb, d->common + reg, size);
            test_poke(tb, d->common + reg, size, UINT64_MAX);
        }
    }
    drv_reset(d);
    g_assert_cmphex(drv_get_status(d), ==, 0);
}

/* Nothing happens before DRIVER_OK, and what was offered before it is not lost. */
static void test_driver_ok(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);
    uint32_t head, len;

    g_assert_true(drv_accept(d, 0));
    drv_queue(d, 0, 8);
    drv_add(d, 0, &(DrvSeg){BUF, 16, true}, 1);
    drv_kick(d, 0);
    g_assert_false(drv_used(d, 0, &head, &len));
    drv_ready(d);
    g_assert_true(drv_used(d, 0, &head, &len));
    drv_reset(d);
    drv_add(d, 0, &(DrvSeg){BUF, 16, true}, 1);
    drv_kick(d, 0);
    g_assert_false(drv_used(d, 0, &head, &len));
}

/* Without MSI-X: a level on the pin, the reason in the ISR, both gone once it is read. */
static void test_intx(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);
    uint16_t status_reg = 6, intx = 8;

    g_assert_true(drv_accept(d, 0));
    drv_queue(d, 0, 8);
    drv_ready(d);
    drv_add(d, 0, &(DrvSeg){BUF, 16, true}, 1);
    drv_kick(d, 0);
    g_assert_true(test_cfg_read(tb, d->devfn, status_reg, 2) & intx);
    g_assert_cmphex(test_peek(tb, d->isr, 1), ==, 1);
    g_assert_cmphex(test_peek(tb, d->isr, 1), ==, 0);
    g_assert_false(test_cfg_read(tb, d->devfn, status_reg, 2) & intx);
    g_assert_cmpuint(tb->msis->len, ==, 0);
    drv_desc(d, 0, 0, BUF, 0, 0, 0);
    drv_offer(d, 0, 0);
    drv_kick(d, 0);
    g_assert_cmphex(test_peek(tb, d->isr, 1), ==, VIRTIO_PCI_ISR_CONFIG);
}

static void window(Drv *d, uint8_t bar, uint32_t off, uint32_t len)
{
    test_cfg_write(d->tb, d->devfn, d->window_cap + VIRTIO_PCI_CAP_BAR, 1, bar);
    test_cfg_write(d->tb, d->devfn, d->window_cap + VIRTIO_PCI_CAP_OFFSET, 4, off);
    test_cfg_write(d->tb, d->devfn, d->window_cap + VIRTIO_PCI_CAP_LENGTH, 4, len);
}

/* The whole device through configuration space alone. */
static void test_window(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);
    uint8_t data = d->window_cap + sizeof(struct virtio_pci_cap);
    uint32_t head, len;

    g_assert_true(drv_accept(d, 0));
    drv_queue(d, 0, 8);
    window(d, 0, VIRTIO_PCI_COMMON_NUMQ, 2);
    g_assert_cmpuint(test_cfg_read(tb, d->devfn, data, 2), ==, 1);
    window(d, 0, VIRTIO_PCI_COMMON_STATUS, 1);
    g_assert_cmphex(test_cfg_read(tb, d->devfn, data, 1), ==, drv_get_status(d));
    test_cfg_write(tb, d->devfn, data, 1, drv_get_status(d) | VIRTIO_CONFIG_S_DRIVER_OK);
    g_assert_true(drv_get_status(d) & VIRTIO_CONFIG_S_DRIVER_OK);
    window(d, 0, (uint32_t)(d->notify - d->common), 2);
    for (unsigned i = 0; i < 2; i++) { /* twice the same value: both are kicks */
        drv_add(d, 0, &(DrvSeg){BUF, 16, true}, 1);
        test_cfg_write(tb, d->devfn, data, 2, 0);
        g_assert_true(drv_used(d, 0, &head, &len));
    }
    window(d, 1, 0, 4);
    test_cfg_write(tb, d->devfn, data, 4, 0);
    window(d, 0, UINT32_MAX, 4);
    test_cfg_write(tb, d->devfn, data, 4, 0);
    window(d, 0, 0, 0);
    test_cfg_read(tb, d->devfn, data, 4);
    g_assert_cmpuint(d->dev->faults, >=, 3);
}

static void count_quiet(Device *d, void *opaque)
{
    (*(unsigned *)opaque)++;
}

/* Quiet: kicks wait. A copy of the state goes on where it stood, in another machine. */
static void test_state(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);
    g_autoptr(TestBoard) tb2 = drv_board();
    g_autoptr(Drv) d2 = drv_open(tb2, "virtio-rng-pci", NULL);
    g_autoptr(GByteArray) saved = g_byte_array_new();
    g_autofree uint8_t *ram = g_malloc(DRV_RAM);
    GError *error = NULL;
    unsigned quiet = 0;
    uint32_t head, len;
    size_t used;

    g_assert_true(state_check(d->dev->cls->state, &error));
    g_assert_no_error(error);
    g_assert_true(drv_accept(d, UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX));
    drv_msix(d, 1);
    drv_queue(d, 0, 8);
    drv_ready(d);
    drv_add(d, 0, &(DrvSeg){BUF, 16, true}, 1);
    drv_kick(d, 0);
    g_assert_true(drv_used(d, 0, &head, &len));
    device_quiesce(d->dev, count_quiet, &quiet);
    g_assert_cmpuint(quiet, ==, 1);
    drv_add(d, 0, &(DrvSeg){BUF, 16, true}, 1);
    drv_kick(d, 0);
    g_assert_false(drv_used(d, 0, &head, &len));

    state_save(d->dev->cls->state, d->dev, saved);
    drv_get(d, 0, ram, DRV_RAM);
    drv_put(d2, 0, ram, DRV_RAM);
    device_quiesce(d2->dev, count_quiet, &quiet);
    g_assert_true(
        state_load(d2->dev->cls->state, d2->dev, saved->data, saved->len, &used, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(used, ==, saved->len);
    memcpy(d2->q, d->q, sizeof d->q);
    device_resume(d2->dev);
    g_assert_true(drv_used(d2, 0, &head, &len));
    g_assert_false(drv_used(d2, 0, &head, &len));
    g_assert_cmpuint(drv_get16(d2, d2->q[0].used + 2), ==, 2);

    device_resume(d->dev);
    g_assert_true(drv_used(d, 0, &head, &len));
    /* A machine's reset takes it all back. */
    device_reset(d->dev, RESET_WARM);
    g_assert_cmphex(test_cfg_read(tb, d->devfn, 4, 2) & 7, ==, 0);
}

/* Registers that no driver could have left are refused. */
static void test_state_refused(void)
{
    g_autoptr(TestBoard) tb = drv_board();
    g_autoptr(Drv) d = drv_open(tb, "virtio-rng-pci", NULL);
    g_autoptr(GByteArray) saved = g_byte_array_new();
    GError *error = NULL;
    size_t used;

    g_assert_true(drv_accept(d, 0));
    drv_queue(d, 0, 8);
    drv_ready(d);
    state_save(d->dev->cls->state, d->dev, saved);
    /* The same stream where the rings are outside memory: another machine with less of it. */
    g_autoptr(TestBoard) small = test_board_new(0x10000);
    test_board_add(small, "i440fx", NULL);
    g_autoptr(Drv) d2 = drv_open(small, "virtio-rng-pci", NULL);
    g_assert_false(
        state_load(d2->dev->cls->state, d2->dev, saved->data, saved->len, &used, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_IMAGE);
    g_clear_error(&error);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/virtio-pci/identity", test_identity);
    g_test_add_func("/virtio-pci/negotiation", test_negotiation);
    g_test_add_func("/virtio-pci/queue-registers", test_queue_registers);
    g_test_add_func("/virtio-pci/every-access", test_every_access);
    g_test_add_func("/virtio-pci/driver-ok", test_driver_ok);
    g_test_add_func("/virtio-pci/intx", test_intx);
    g_test_add_func("/virtio-pci/window", test_window);
    g_test_add_func("/virtio-pci/state", test_state);
    g_test_add_func("/virtio-pci/state-refused", test_state_refused);
    return g_test_run();
}
