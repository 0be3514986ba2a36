// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Receive filter of the virtio network card.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, 5.1.6.5.1 "Packet Receive Filtering" and 5.1.6.5.2
 * "Setting MAC Address Filtering". The filter may let more through than asked for: where a table is
 * longer than NET_FILTER_MACS, all addresses of its kind pass.
 *
 * Threads: the device's loop thread.
 */
#include "virtio_net_filter.h"

#include <string.h>

#include "lodge/num.h"

enum {
    COUNT_LEN = 4,
    GROUP_BIT = 1, /* of an address's first byte: broadcast and multicast */
};

void net_filter_reset(NetFilter *f, const uint8_t mac[NET_MAC_LEN])
{
    memset(f, 0, sizeof *f);
    memcpy(f->mac, mac, NET_MAC_LEN);
    f->promisc = true;
}

static bool in_table(const uint8_t (*table)[NET_MAC_LEN], unsigned n, const uint8_t *mac)
{
    for (unsigned i = 0; i < n; i++) {
        if (!memcmp(table[i], mac, NET_MAC_LEN))
            return true;
    }
    return false;
}

bool net_filter_wants(const NetFilter *f, const uint8_t dest[NET_MAC_LEN])
{
    static const uint8_t broadcast[NET_MAC_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    if (f->promisc || !memcmp(dest, f->mac, NET_MAC_LEN) || !memcmp(dest, broadcast, NET_MAC_LEN))
        return true;
    if (dest[0] & GROUP_BIT)
        return f->allmulti || f->multi_overflow || in_table(f->multi, f->nmulti, dest);
    return f->uni_overflow || in_table(f->uni, f->nuni, dest);
}

/* One table at @*off. @ret_cut: it ends beyond what we look at. */
static bool take_table(const uint8_t *data, size_t len, size_t *off,
                       uint8_t (*table)[NET_MAC_LEN], uint8_t *ret_n, bool *ret_overflow)
{
    uint64_t n;

    if (!range_within(*off, COUNT_LEN, len))
        return false;
    n = load_le32(data + *off);
    *off += COUNT_LEN;
    *ret_overflow = n > NET_FILTER_MACS;
    *ret_n = 0;
    if (!range_within(*off, n * NET_MAC_LEN, len)) {
        *off = len;
        return *ret_overflow;
    }
    if (!*ret_overflow) {
        memcpy(table, data + *off, n * NET_MAC_LEN);
        *ret_n = (uint8_t)n;
    }
    *off += n * NET_MAC_LEN;
    return true;
}

bool net_filter_set_tables(NetFilter *f, const uint8_t *data, size_t len)
{
    NetFilter next = *f;
    size_t off = 0;

    if (!take_table(data, len, &off, next.uni, &next.nuni, &next.uni_overflow))
        return false;
    if (next.uni_overflow && off == len) {
        next.nmulti = 0;
        next.multi_overflow = true; /* beyond what we look at */
    } else if (!take_table(data, len, &off, next.multi, &next.nmulti, &next.multi_overflow)) {
        return false;
    }
    *f = next;
    return true;
}

bool net_filter_valid(const NetFilter *f)
{
    return f->nuni <= NET_FILTER_MACS && f->nmulti <= NET_FILTER_MACS;
}

static const StateField filter_fields[] = {
    ST_RAW(NetFilter, mac),
    ST_B(NetFilter, promisc),
    ST_B(NetFilter, allmulti),
    ST_B(NetFilter, uni_overflow),
    ST_B(NetFilter, multi_overflow),
    ST_U(NetFilter, nuni, NET_FILTER_MACS),
    ST_U(NetFilter, nmulti, NET_FILTER_MACS),
    ST_RAW(NetFilter, uni),
    ST_RAW(NetFilter, multi),
    ST_END,
};
const StateDesc net_filter_state = {.name = "filter", .version = 1, .oldest = 1,
                                    .regs_size = sizeof(NetFilter), .fields = filter_fields};
