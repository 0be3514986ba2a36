/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VIRTIO_NET_FILTER_H
#define LODGE_VIRTIO_NET_FILTER_H

/* Which frames a virtio network card takes from the wire. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lodge/state.h"

#define NET_MAC_LEN 6
#define NET_FILTER_MACS 32 /* of a kind; more of them let all of that kind in */
#define NET_FILTER_VLANS 4096
#define NET_FILTER_HEAD 16 /* bytes of a frame that are looked at: addresses, type, tag */

/* What the driver asked for; travels in a snapshot. */
typedef struct NetFilter {
    uint8_t mac[NET_MAC_LEN];
    bool promisc, allmulti;
    bool uni_overflow, multi_overflow; /* a table was longer than we keep */
    uint8_t nuni, nmulti;
    uint8_t uni[NET_FILTER_MACS][NET_MAC_LEN];
    uint8_t multi[NET_FILTER_MACS][NET_MAC_LEN];
    uint8_t vlans[NET_FILTER_VLANS / 8]; /* a bit for each that comes in */
} NetFilter;
extern const StateDesc net_filter_state; /* a sub-table */

/* Everything comes in until the driver says otherwise; own address @mac. */
void net_filter_reset(NetFilter *f, const uint8_t mac[NET_MAC_LEN]);
/* @head: a frame's first bytes, zeros where it is shorter. @by_vlan: the driver filters by VLAN, too;
 * frames without a tag, or whose tag has only a priority, are of none. */
bool net_filter_wants(const NetFilter *f, const uint8_t head[NET_FILTER_HEAD], bool by_vlan);
/* VIRTIO_NET_CTRL_MAC_TABLE_SET: two tables, each a 32-bit count and as many addresses. @len may
 * be cut short where a table is longer than NET_FILTER_MACS. False: malformed, nothing changed. */
bool net_filter_set_tables(NetFilter *f, const uint8_t *data, size_t len);
/* VIRTIO_NET_CTRL_VLAN: a VLAN's number in 16 bits. False: malformed, nothing changed. */
bool net_filter_set_vlan(NetFilter *f, const uint8_t *data, size_t len, bool comes_in);
bool net_filter_valid(const NetFilter *f);

#endif
