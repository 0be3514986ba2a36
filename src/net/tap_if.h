/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_TAP_IF_H
#define LODGE_TAP_IF_H

/* Interfaces of the host's: taps that are made or found, and brought up. */

#include <net/if.h>
#include <stdbool.h>

#include <glib.h>

/**
 * tap_if_open() - Attach to tap @name, made for as long as it is held where there is none
 * @name:     "tap%d" stands for the next free one
 * @queues:   how many the tap is to have: more than one needs one of that kind; 1: needs one that
 *            has one, 0 likewise, and no other can be had
 * @ret_name: what it is called
 * Frames have a struct virtio_net_hdr and no packet information; reading does not wait.
 * Context: any thread. Return: the descriptor, or -1: LODGE_ERROR_CONFIG (no name for an interface;
 *          there is another kind of interface), LODGE_ERROR_BUSY, LODGE_ERROR_HOST (no right to
 *          it; no taps on this host).
 */
int tap_if_open(const char *name, unsigned queues, char ret_name[IFNAMSIZ], GError **error);
/* Whether an interface can be called @name; LODGE_ERROR_CONFIG. Any thread. */
bool tap_if_name_check(const char *name, GError **error);
/* A socket for ioctls on interfaces; -1 with errno. Any thread. */
int tap_if_socket(void);
/* Bring @name up; false: it is down and we may not. Any thread. */
bool tap_if_up(const char *name);

#endif
