/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef VIRTIO_NET_DRIVER_H
#define VIRTIO_NET_DRIVER_H

/* What a network card's driver does besides (virtio_driver.h). */

#include "virtio_driver.h"

/* Bring up a card with what it offers of @features, a vector for each of its first @queues queues.
 * Return: 64 KiB of guest memory for frames and commands. */
uint64_t net_drv_start(Drv *d, uint64_t features, unsigned queues);
/* How many chains the device has given back since the last call. */
unsigned net_drv_used(Drv *d, unsigned q);
/* Have a command with @len bytes of @data carried out by control queue @q; it takes up 4 KiB at
 * @buf. Return: the answer (virtio 1.2, 5.1.6.5). */
uint8_t net_drv_command(Drv *d, uint64_t buf, unsigned q, uint8_t class, uint8_t cmd,
                        const void *data, uint32_t len);

#endif
