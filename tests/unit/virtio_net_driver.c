/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "virtio_net_driver.h"

enum { RING = 16, BUF_BYTES = 65536, ACK_AT = 4000, DEADLINE_S = 20 };

uint64_t net_drv_start(Drv *d, uint64_t features, unsigned queues)
{
    g_assert_true(drv_accept(d, features));
    drv_msix(d, queues);
    for (unsigned q = 0; q < queues; q++)
        drv_queue(d, q, RING);
    drv_ready(d);
    return drv_alloc(d, BUF_BYTES);
}

unsigned net_drv_used(Drv *d, unsigned q)
{
    uint32_t head, len;
    unsigned n = 0;

    while (drv_used(d, q, &head, &len))
        n++;
    return n;
}

uint8_t net_drv_command(Drv *d, uint64_t buf, unsigned q, uint8_t class, uint8_t cmd,
                        const void *data, uint32_t len)
{
    int64_t end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    uint8_t hdr[2] = {class, cmd}, ack = 0xff;
    DrvSeg segs[3] = {{buf, sizeof hdr, false}};
    unsigned n = 1, used;

    drv_put(d, buf, hdr, sizeof hdr);
    drv_put(d, buf + ACK_AT, &ack, 1);
    if (len) {
        drv_put(d, buf + sizeof hdr, data, len);
        segs[n++] = (DrvSeg){buf + sizeof hdr, len, false};
    }
    segs[n++] = (DrvSeg){buf + ACK_AT, 1, true};
    drv_add(d, q, segs, n);
    drv_kick(d, q);
    while (!(used = net_drv_used(d, q))) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(500);
    }
    g_assert_cmpuint(used, ==, 1);
    drv_get(d, buf + ACK_AT, &ack, 1);
    return ack;
}
