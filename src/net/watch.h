/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_WATCH_H
#define LODGE_NET_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/net.h"

typedef struct NetWatch NetWatch;

NetWatch *net_watch_new(void);
void net_watch_free(NetWatch *w); /* ends its captures; NULL is fine */
void net_watch_frames(NetWatch *w, bool from_guest, const NetFrame *v, unsigned n);
bool net_watch_to_file(NetWatch *w, const char *path, uint64_t limit, GError **error);
bool net_watch_to_fd(NetWatch *w, int fd, GError **error);
/* Addresses that the guest was seen to use, the latest first. Return: how many. Any thread. */
unsigned net_watch_seen(NetWatch *w, NetSeen *ret_seen, unsigned max);

#endif
