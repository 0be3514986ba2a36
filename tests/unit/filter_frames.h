/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_TESTS_FILTER_FRAMES_H
#define LODGE_TESTS_FILTER_FRAMES_H

/* Frames made by hand, header by header, for the tests of rules. */

#include <stdint.h>

#include "lodge/net.h"

enum { ETH = 14, FRAME = 2000 };

extern const uint8_t guest_mac[6], other_mac[6];

typedef struct Made {
    uint8_t d[FRAME];
    uint32_t len;
    NetFrame f; /* flags, gso and the like */
} Made;

void put(Made *m, const void *data, uint32_t len);
void put16(Made *m, uint16_t v);
/* Begins one, from guest_mac to other_mac. */
void ether(Made *m, uint16_t type);
void tag(Made *m, uint16_t vid, uint16_t type);
/* From 10.0.0.5 to 10.0.0.9; @payload bytes follow. */
void ip4(Made *m, uint8_t proto, uint16_t frag, uint16_t payload);
/* From fd00::5 to fd00::9. */
void ip6(Made *m, uint8_t next, uint16_t payload);
void tcp(Made *m, uint16_t from, uint16_t to, uint8_t flags);
void udp(Made *m, uint16_t from, uint16_t to);

#endif
