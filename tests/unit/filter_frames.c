/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "filter_frames.h"

#include <string.h>

#include "lodge/num.h"

const uint8_t guest_mac[6] = {0x52, 0x54, 0, 0, 0, 1};
const uint8_t other_mac[6] = {0x52, 0x54, 0, 0, 0, 2};

void put(Made *m, const void *data, uint32_t len)
{
    memcpy(m->d + m->len, data, len);
    m->len += len;
}

void put16(Made *m, uint16_t v)
{
    store_be16(m->d + m->len, v);
    m->len += 2;
}

void ether(Made *m, uint16_t type)
{
    memset(m, 0, sizeof *m);
    put(m, other_mac, 6);
    put(m, guest_mac, 6);
    put16(m, type);
}

void tag(Made *m, uint16_t vid, uint16_t type)
{
    put16(m, vid);
    put16(m, type);
}

void ip4(Made *m, uint8_t proto, uint16_t frag, uint16_t payload)
{
    static const uint8_t addr[8] = {10, 0, 0, 5, 10, 0, 0, 9};
    uint8_t h[20] = {0x45};

    store_be16(h + 2, 20 + payload);
    store_be16(h + 6, frag);
    h[8] = 64;
    h[9] = proto;
    memcpy(h + 12, addr, 8);
    put(m, h, 20);
}

void ip6(Made *m, uint8_t next, uint16_t payload)
{
    uint8_t h[40] = {0x60};

    store_be16(h + 4, payload);
    h[6] = next;
    h[7] = 255;
    h[8] = h[24] = 0xfd;
    h[23] = 5;
    h[39] = 9;
    put(m, h, 40);
}

void tcp(Made *m, uint16_t from, uint16_t to, uint8_t flags)
{
    uint8_t h[20] = {0};

    store_be16(h, from);
    store_be16(h + 2, to);
    h[12] = 0x50;
    h[13] = flags;
    put(m, h, 20);
}

void udp(Made *m, uint16_t from, uint16_t to)
{
    put16(m, from);
    put16(m, to);
    put16(m, 8);
    put16(m, 0);
}
