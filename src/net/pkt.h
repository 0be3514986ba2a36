/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_PKT_H
#define LODGE_PKT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lodge/net.h"

enum {
    PKT_ETH_LEN = 14,
    PKT_VLAN_LEN = 4,
    PKT_ARP_LEN = 28,
    PKT_IP4_LEN = 20,
    PKT_IP6_LEN = 40,
    PKT_TCP_LEN = 20,
    PKT_UDP_LEN = 8,
    PKT_TCP_CSUM = 16, /* of the checksum in TCP's header */
    /* Ethernet, two VLAN tags, IPv4 with options or IPv6 with some extensions, TCP with options */
    PKT_HEADERS_MAX = 256,
};

enum {
    PKT_TYPE_IP4 = 0x0800,
    PKT_TYPE_ARP = 0x0806,
    PKT_TYPE_VLAN = 0x8100,
    PKT_TYPE_QINQ = 0x88a8,
    PKT_TYPE_IP6 = 0x86dd,
};

enum { PKT_PROTO_TCP = 6, PKT_PROTO_UDP = 17 };

enum {
    PKT_TCP_FIN = 0x01,
    PKT_TCP_SYN = 0x02,
    PKT_TCP_RST = 0x04,
    PKT_TCP_PSH = 0x08,
    PKT_TCP_ACK = 0x10,
    PKT_TCP_URG = 0x20,
    PKT_TCP_CWR = 0x80,
};

/* Where the headers of a frame are; offsets in bytes from the frame's start, each proven to lie
 * within the bytes that were parsed. */
typedef struct PktInfo {
    uint16_t ethertype;   /* after VLAN tags */
    uint16_t l3_off;      /* network header */
    uint16_t l4_off;      /* 0: no transport header was found */
    uint16_t payload_off; /* after the transport header; 0 without one */
    uint8_t ip_version;   /* 4, 6, or 0: not IP */
    uint8_t proto;        /* transport protocol; valid with ip_version */
    bool fragment;        /* part of a fragmented datagram */
} PktInfo;

/* Bytes [@off, @off + @len) of @f to @to. Return: false if they are not all there; *to is then
 * zeroed. */
bool pkt_gather(const NetFrame *f, uint32_t off, void *to, uint32_t len);
bool pkt_parse(const uint8_t *data, uint32_t len, PktInfo *ret_info);
/* Ones' complement sum of @len bytes added to @sum, and its final form. @len <= NET_FRAME_MAX. */
uint32_t pkt_sum(const void *data, uint32_t len, uint32_t sum);
uint16_t pkt_fold(uint32_t sum);
bool pkt_finish_csum(uint8_t *data, uint32_t len, uint16_t csum_start, uint16_t csum_off);
bool pkt_clear_urgent(uint8_t *data, const PktInfo *info);
bool pkt_raise_mss(uint8_t *data, const PktInfo *info, uint16_t least, uint16_t mss);
uint16_t pkt_pseudo_sum(const uint8_t *data, const PktInfo *info, uint32_t l4_len);

/* A TCP frame, or one of several datagrams of UDP, too long for the wire, being cut. */
typedef struct PktSegmenter {
    const NetFrame *frame; /* borrowed */
    uint8_t headers[PKT_HEADERS_MAX];
    PktInfo info;
    uint32_t header_len;
    uint32_t payload_len;
    uint32_t mss;
    uint32_t count; /* segments, >= 1 */
} PktSegmenter;

bool pkt_seg_begin(PktSegmenter *s, const NetFrame *f);
/* Bytes of segment @i < s->count. */
uint32_t pkt_seg_len(const PktSegmenter *s, uint32_t i);
void pkt_seg_write(const PktSegmenter *s, uint32_t i, uint8_t *to);
uint32_t pkt_seg_whole(const NetFrame *f, uint8_t *to);

/* An IPv4 datagram too long for the wire, being cut. */
typedef struct PktFragmenter {
    const uint8_t *data; /* borrowed; the frame */
    PktInfo info;
    uint32_t header_len; /* Ethernet and IPv4 */
    uint32_t payload_len;
    uint32_t step;  /* of the payload in each fragment but the last; a multiple of 8 */
    uint32_t count; /* fragments, >= 1 */
} PktFragmenter;

bool pkt_frag_begin(PktFragmenter *s, const uint8_t *data, uint32_t len, const PktInfo *info,
                    uint32_t mtu);
/* The header of fragment @i < s->count to @header, PKT_HEADERS_MAX bytes; what it carries. */
struct iovec pkt_frag_get(const PktFragmenter *s, uint32_t i, uint8_t *header);

#endif
