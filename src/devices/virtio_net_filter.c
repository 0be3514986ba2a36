// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Receive filter of the virtio network card.
 *
 * Models: Virtual I/O Device (VIRTIO) 1.2, 5.1.6.5.1 "Packet Receive Filtering", 5.1.6.5.2
 * "Setting MAC Address Filtering" and 5.1.6.5.3 "VLAN Filtering". The filter may let more through
 * than asked for: where a table is longer than NET_FILTER_MACS, all addresses of its kind pass.
 *
 * Threads: the device's loop thread.
 */
#include "virtio_net_filter.h"

#include <string.h>

#include "lodge/num.h"
#include "pkt.h"

enum {
    COUNT_LEN = 4,
    TYPE_AT = 12,
    TAG_AT = 14,
    VLAN_MASK = NET_FILTER_VLANS - 1,
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

static bool wants_address(const NetFilter *f, const uint8_t *dest)
{
    static const uint8_t broadcast[NET_MAC_LEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    if (!memcmp(dest, f->mac, NET_MAC_LEN) || !memcmp(dest, broadcast, NET_MAC_LEN))
        return true;
    if (dest[0] & GROUP_BIT)
        return f->allmulti || f->multi_overflow || in_table(f->multi, f->nmulti, dest);
    return f->uni_overflow || in_table(f->uni, f->nuni, dest);
}

static bool wants_vlan(const NetFilter *f, const uint8_t *head)
{
    unsigned vlan = load_be16(head + TAG_AT) & VLAN_MASK;

    return load_be16(head + TYPE_AT) != PKT_TYPE_VLAN || !vlan ||
           f->vlans[vlan / 8] >> vlan % 8 & 1;
}

bool net_filter_wants(const NetFilter *f, const uint8_t head[NET_FILTER_HEAD], bool by_vlan)
{
    return f->promisc || (wants_address(f, head) && (!by_vlan || wants_vlan(f, head)));
}

bool net_filter_set_vlan(NetFilter *f, const uint8_t *data, size_t len, bool comes_in)
{
    unsigned vlan = len == sizeof(uint16_t) ? load_le16(data) : NET_FILTER_VLANS;
    uint8_t bit = (uint8_t)(1u << vlan % 8);

    if (vlan >= NET_FILTER_VLANS)
        return false;
    if (comes_in)
        f->vlans[vlan / 8] |= bit;
    else
        f->vlans[vlan / 8] &= (uint8_t)~bit;
    return true;
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
    ST_RAW(NetFilter, vlans),
    ST_END,
};
const StateDesc net_filter_state = {.name = "filter", .version = 1, .oldest = 1,
                                    .regs_size = sizeof(NetFilter), .fields = filter_fields};
