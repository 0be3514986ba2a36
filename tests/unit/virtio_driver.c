/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See virtio_driver.h. Virtual I/O Device 1.2, 3.1 "Device Initialization" and 4.1. */
#include "virtio_driver.h"

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "lodge/num.h"
#include "pci.h"

#define MMIO_BASE 0xfe000000u
#define MMIO_LIMIT 0xfec00000u
#define DATA_BASE 0x10000
#define CFG_COMMAND 0x04
#define CFG_BAR0 0x10
#define CFG_CAPS 0x34
#define COMMAND_MASTER 4
#define CAP_VENDOR 0x09
#define CAP_MSIX 0x11
#define MSIX_ON 0x8000

TestBoard *drv_board(void)
{
    TestBoard *tb = test_board_new(DRV_RAM);

    test_board_add(tb, "i440fx", NULL);
    return tb;
}

static uint64_t cap_address(Drv *d, uint8_t cap)
{
    uint8_t bar = test_cfg_read(d->tb, d->devfn, cap + VIRTIO_PCI_CAP_BAR, 1);
    uint32_t base = test_cfg_read(d->tb, d->devfn, CFG_BAR0 + 4 * bar, 4) & ~0xfu;

    return base + test_cfg_read(d->tb, d->devfn, cap + VIRTIO_PCI_CAP_OFFSET, 4);
}

static void vendor_cap(Drv *d, uint8_t cap)
{
    switch (test_cfg_read(d->tb, d->devfn, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1)) {
    case VIRTIO_PCI_CAP_COMMON_CFG:
        d->common = cap_address(d, cap);
        break;
    case VIRTIO_PCI_CAP_ISR_CFG:
        d->isr = cap_address(d, cap);
        break;
    case VIRTIO_PCI_CAP_DEVICE_CFG:
        d->config = cap_address(d, cap);
        break;
    case VIRTIO_PCI_CAP_NOTIFY_CFG:
        d->notify = cap_address(d, cap);
        d->notify_mult =
            test_cfg_read(d->tb, d->devfn, cap + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
        break;
    case VIRTIO_PCI_CAP_PCI_CFG:
        d->window_cap = cap;
        break;
    default:
        break;
    }
}

Drv *drv_open(TestBoard *tb, const char *cls, const char *props)
{
    Drv *d = g_new0(Drv, 1);

    d->tb = tb;
    d->dev = test_board_add(tb, cls, props);
    d->devfn = ((PciDev *)d->dev)->devfn;
    d->next_gpa = DATA_BASE;
    pci_assign(tb->board.pci, MMIO_BASE, MMIO_LIMIT);
    test_cfg_write(tb, d->devfn, CFG_COMMAND, 2,
                   test_cfg_read(tb, d->devfn, CFG_COMMAND, 2) | COMMAND_MASTER);
    for (uint8_t cap = test_cfg_read(tb, d->devfn, CFG_CAPS, 1); cap;
         cap = test_cfg_read(tb, d->devfn, cap + 1, 1)) {
        uint8_t id = test_cfg_read(tb, d->devfn, cap, 1);

        if (id == CAP_VENDOR)
            vendor_cap(d, cap);
        else if (id == CAP_MSIX)
            d->msix_cap = cap;
    }
    g_assert_cmpuint(d->common, !=, 0);
    g_assert_cmpuint(d->notify, !=, 0);
    g_assert_cmpuint(d->msix_cap, !=, 0);
    d->msix = test_cfg_read(tb, d->devfn, CFG_BAR0 + 4, 4) & ~0xfu;
    return d;
}

void drv_free(Drv *d)
{
    g_free(d);
}

static uint32_t common_in(Drv *d, unsigned reg, unsigned size)
{
    return (uint32_t)test_peek(d->tb, d->common + reg, size);
}

static void common_out(Drv *d, unsigned reg, unsigned size, uint32_t val)
{
    test_poke(d->tb, d->common + reg, size, val);
}

uint8_t drv_get_status(Drv *d)
{
    return (uint8_t)common_in(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

void drv_status(Drv *d, uint8_t add)
{
    common_out(d, VIRTIO_PCI_COMMON_STATUS, 1, drv_get_status(d) | add);
}

void drv_reset(Drv *d)
{
    common_out(d, VIRTIO_PCI_COMMON_STATUS, 1, 0);
}

uint64_t drv_offered(Drv *d)
{
    uint64_t f;

    common_out(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
    f = (uint64_t)common_in(d, VIRTIO_PCI_COMMON_DF, 4) << 32;
    common_out(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
    return f | common_in(d, VIRTIO_PCI_COMMON_DF, 4);
}

bool drv_accept(Drv *d, uint64_t want)
{
    d->features = (want | UINT64_C(1) << VIRTIO_F_VERSION_1) & drv_offered(d);
    drv_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    drv_status(d, VIRTIO_CONFIG_S_DRIVER);
    common_out(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    common_out(d, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)d->features);
    common_out(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    common_out(d, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(d->features >> 32));
    drv_status(d, VIRTIO_CONFIG_S_FEATURES_OK);
    return drv_get_status(d) & VIRTIO_CONFIG_S_FEATURES_OK;
}

uint64_t drv_alloc(Drv *d, uint64_t len)
{
    uint64_t gpa = align_up(d->next_gpa, 16);

    d->next_gpa = gpa + len;
    g_assert_cmpuint(d->next_gpa, <=, DRV_RAM);
    g_assert_true(mem_zero(d->tb->board.mem, gpa, len));
    return gpa;
}

void drv_queue(Drv *d, unsigned q, uint16_t size)
{
    DrvQueue *r = &d->q[q];

    *r = (DrvQueue){.size = size};
    r->desc = drv_alloc(d, (uint64_t)size * sizeof(struct vring_desc));
    r->ring = drv_alloc(d, 6 + 2u * size);
    r->used = drv_alloc(d, 6 + sizeof(struct vring_used_elem) * size);
    common_out(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
    common_out(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    common_out(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4, (uint32_t)r->desc);
    common_out(d, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0);
    common_out(d, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, (uint32_t)r->ring);
    common_out(d, VIRTIO_PCI_COMMON_Q_AVAILHI, 4, 0);
    common_out(d, VIRTIO_PCI_COMMON_Q_USEDLO, 4, (uint32_t)r->used);
    common_out(d, VIRTIO_PCI_COMMON_Q_USEDHI, 4, 0);
    r->notify = d->notify + (uint64_t)d->notify_mult * common_in(d, VIRTIO_PCI_COMMON_Q_NOFF, 2);
    common_out(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

void drv_ready(Drv *d)
{
    drv_status(d, VIRTIO_CONFIG_S_DRIVER_OK);
}

static void msix_vector(Drv *d, unsigned v)
{
    uint64_t entry = d->msix + v * 16;

    test_poke(d->tb, entry, 4, 0xfee00000);
    test_poke(d->tb, entry + 4, 4, 0);
    test_poke(d->tb, entry + 8, 4, DRV_CONFIG_DATA + v);
    test_poke(d->tb, entry + 12, 4, 0);
}

void drv_msix(Drv *d, unsigned queues)
{
    test_cfg_write(d->tb, d->devfn, d->msix_cap + 2, 2, MSIX_ON);
    for (unsigned v = 0; v <= queues; v++)
        msix_vector(d, v);
    common_out(d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
    g_assert_cmpuint(common_in(d, VIRTIO_PCI_COMMON_MSIX, 2), ==, 0);
    for (unsigned q = 0; q < queues; q++) {
        common_out(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
        common_out(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, q + 1);
        g_assert_cmpuint(common_in(d, VIRTIO_PCI_COMMON_Q_MSIX, 2), ==, q + 1);
    }
}

unsigned drv_msis(Drv *d, int q)
{
    unsigned n = 0;

    g_mutex_lock(&d->tb->msis_lock);
    for (unsigned i = 0; i < d->tb->msis->len;) {
        if (g_array_index(d->tb->msis, TestMsi, i).data == (uint32_t)(DRV_CONFIG_DATA + q + 1)) {
            g_array_remove_index(d->tb->msis, i);
            n++;
        } else {
            i++;
        }
    }
    g_mutex_unlock(&d->tb->msis_lock);
    return n;
}

void drv_put(Drv *d, uint64_t gpa, const void *from, size_t len)
{
    g_assert_true(mem_write(d->tb->board.mem, gpa, from, len));
}

void drv_get(Drv *d, uint64_t gpa, void *to, size_t len)
{
    g_assert_true(mem_read(d->tb->board.mem, gpa, to, len));
}

uint16_t drv_get16(Drv *d, uint64_t gpa)
{
    uint16_t v;

    drv_get(d, gpa, &v, sizeof v);
    return v;
}

void drv_put16(Drv *d, uint64_t gpa, uint16_t v)
{
    drv_put(d, gpa, &v, sizeof v);
}

void drv_desc(Drv *d, unsigned q, uint16_t i, uint64_t gpa, uint32_t len, uint16_t flags,
              uint16_t next)
{
    struct vring_desc e = {.addr = gpa, .len = len, .flags = flags, .next = next};

    drv_put(d, d->q[q].desc + (uint64_t)i * sizeof e, &e, sizeof e);
}

void drv_offer(Drv *d, unsigned q, uint16_t head)
{
    DrvQueue *r = &d->q[q];

    drv_put16(d, r->ring + 4 + 2u * (r->avail % r->size), head);
    drv_put16(d, r->ring + 2, ++r->avail);
}

uint16_t drv_add(Drv *d, unsigned q, const DrvSeg *segs, unsigned n)
{
    DrvQueue *r = &d->q[q];
    uint16_t head = r->free % r->size;

    for (unsigned i = 0; i < n; i++) {
        uint16_t at = r->free++ % r->size, flags = segs[i].write ? VRING_DESC_F_WRITE : 0;

        if (i + 1 < n)
            flags |= VRING_DESC_F_NEXT;
        drv_desc(d, q, at, segs[i].gpa, segs[i].len, flags, r->free % r->size);
    }
    drv_offer(d, q, head);
    return head;
}

void drv_kick(Drv *d, unsigned q)
{
    test_poke(d->tb, d->q[q].notify, 2, q);
}

bool drv_used(Drv *d, unsigned q, uint32_t *ret_head, uint32_t *ret_len)
{
    DrvQueue *r = &d->q[q];
    struct vring_used_elem e;

    if (drv_get16(d, r->used + 2) == r->seen)
        return false;
    drv_get(d, r->used + 4 + sizeof e * (r->seen % r->size), &e, sizeof e);
    r->seen++;
    if (d->features & UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)
        drv_put16(d, r->ring + 4 + 2u * r->size, r->seen); /* used_event: tell me of the next */
    *ret_head = e.id;
    *ret_len = e.len;
    return true;
}

bool drv_needs_reset(Drv *d)
{
    return drv_get_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET;
}
