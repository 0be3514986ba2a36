/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Packet headers: bounds-checked look at Ethernet (with up to two VLAN tags), IPv4, IPv6, TCP and
 * UDP; the Internet checksum; the cutting of a long TCP frame into segments, or of a frame of
 * several datagrams of UDP into these, for a peer that cannot do it; and of an IPv4 datagram into
 * fragments.
 *
 * Specs: IEEE 802.3 and 802.1Q, RFC 791, RFC 8200, RFC 9293, RFC 768, RFC 1071, virtio 1.2 section
 * 5.1.6 (what a frame with GSO holds).
 *
 * Left out: reassembly, IPv6 destination options beyond skipping them, jumbograms. A frame that
 * does not parse is not an error of this file: callers pass it on or drop it.
 *
 * Invariants:
 * (1) No byte is read outside the length that was given.
 * (2) An offset in PktInfo is at most that length, and the header of fixed size that starts
 *     there lies within it.
 * (3) A segmenter's header_len <= PKT_HEADERS_MAX and header_len + payload_len == frame->len.
 * Threads: none of its own; no state.
 */
#include "pkt.h"

#include <string.h>

#include "lodge/num.h"

enum {
    IP4_MORE_FRAGMENTS = 0x2000,
    IP4_OFFSET_MASK = 0x1fff,
    IP6_HOP_BY_HOP = 0,
    IP6_ROUTING = 43,
    IP6_FRAGMENT = 44,
    IP6_DEST_OPTIONS = 60,
    IP6_EXT_MIN = 8,
    IP6_EXT_MAX_COUNT = 8, /* more than any sane sender uses; bounds the walk */
    VLAN_TAGS_MAX = 2,
};

/* Field offsets within their headers. */
enum {
    IP4_TOTAL_LEN = 2,
    IP4_ID = 4,
    IP4_FRAG = 6,
    IP4_PROTO = 9,
    IP4_CSUM = 10,
    IP4_SRC = 12,
    IP6_PAYLOAD_LEN = 4,
    IP6_NEXT = 6,
    IP6_SRC = 8,
    IP6_FRAG_OFFSET = 2,
    IP6_FRAG_MASK = 0xfff9, /* offset and the more-fragments bit */
    TCP_SEQ = 4,
    TCP_DATA_OFF = 12,
    TCP_FLAGS = 13,
    TCP_URGENT = 18,
    TCP_OPTION_END = 0,
    TCP_OPTION_NOP = 1,
    TCP_OPTION_MSS = 2,
    TCP_MSS_LEN = 4,
    UDP_LENGTH = 4,
    UDP_CSUM = 6,
};

/**
 * pkt_gather() - Copy bytes out of a scattered frame
 * @f:   frame; its len must not exceed the sum of its iov, which is checked again here
 * @off: first byte; @to: at least @len bytes
 * Context: any thread. Return: false if the range is not wholly there.
 */
bool pkt_gather(const NetFrame *f, uint32_t off, void *to, uint32_t len)
{
    uint8_t *out = to;
    uint32_t left = len;

    if (range_within(off, len, f->len)) {
        for (unsigned i = 0; i < f->niov && left; i++) {
            size_t have = f->iov[i].iov_len;
            if (off >= have) {
                off -= have;
                continue;
            }
            size_t n = have - off < left ? have - off : left;
            memcpy(out, (const uint8_t *)f->iov[i].iov_base + off, n);
            out += n;
            left -= n;
            off = 0;
        }
        if (!left)
            return true;
    }
    memset(to, 0, len);
    return false;
}

/* Walk IPv6 extension headers from @off; sets proto, fragment, l4_off. False: cut short. */
static bool parse_ip6_extensions(const uint8_t *data, uint32_t len, uint32_t off, PktInfo *info)
{
    for (int i = 0; i < IP6_EXT_MAX_COUNT; i++) {
        uint8_t next = info->proto;
        if (next != IP6_HOP_BY_HOP && next != IP6_ROUTING && next != IP6_FRAGMENT &&
            next != IP6_DEST_OPTIONS) {
            info->l4_off = (uint16_t)off;
            return true;
        }
        if (!range_within(off, IP6_EXT_MIN, len))
            return false;
        uint32_t size = IP6_EXT_MIN;
        if (next == IP6_FRAGMENT) {
            uint16_t where = load_be16(data + off + IP6_FRAG_OFFSET);
            info->fragment |= (where & IP6_FRAG_MASK) != 0;
        } else {
            size += data[off + 1] * IP6_EXT_MIN;
        }
        if (!range_within(off, size, len))
            return false;
        info->proto = data[off];
        off += size;
    }
    return false;
}

/* Find the payload behind the transport header at l4_off, or clear l4_off. */
static void parse_transport(const uint8_t *data, uint32_t len, PktInfo *info)
{
    uint32_t off = info->l4_off, size = 0;

    if (info->proto == PKT_PROTO_UDP) {
        size = PKT_UDP_LEN;
    } else if (info->proto == PKT_PROTO_TCP && range_within(off, PKT_TCP_LEN, len)) {
        size = (data[off + TCP_DATA_OFF] >> 4) * 4u;
        if (size < PKT_TCP_LEN)
            size = 0;
    }
    if (!size || info->fragment || !range_within(off, size, len)) {
        info->l4_off = 0;
        return;
    }
    info->payload_off = (uint16_t)(off + size);
}

/**
 * pkt_parse() - Find the headers of a frame
 * @data: the frame's first bytes; @len: how many there are, which may be fewer than the frame's
 * @ret_info: written always; what was not found is 0
 * Context: any thread. Keeps (1) and (2).
 * Return: false if the Ethernet or IP header is cut short or contradicts itself.
 */
bool pkt_parse(const uint8_t *data, uint32_t len, PktInfo *ret_info)
{
    PktInfo info = {0};
    uint32_t off = PKT_ETH_LEN;

    *ret_info = info;
    if (len < PKT_ETH_LEN)
        return false;
    if (len > UINT16_MAX)
        len = UINT16_MAX; /* offsets fit 16 bits: nothing that far is a header */
    info.ethertype = load_be16(data + off - 2);
    for (int tags = 0; tags < VLAN_TAGS_MAX; tags++) {
        if (info.ethertype != PKT_TYPE_VLAN && info.ethertype != PKT_TYPE_QINQ)
            break;
        if (!range_within(off, PKT_VLAN_LEN, len))
            return false;
        info.ethertype = load_be16(data + off + 2);
        off += PKT_VLAN_LEN;
    }
    info.l3_off = (uint16_t)off;

    if (info.ethertype == PKT_TYPE_IP4) {
        if (!range_within(off, PKT_IP4_LEN, len) || data[off] >> 4 != 4)
            return false;
        uint32_t size = (data[off] & 0xf) * 4u;
        if (size < PKT_IP4_LEN || !range_within(off, size, len))
            return false;
        info.ip_version = 4;
        info.proto = data[off + IP4_PROTO];
        info.fragment = load_be16(data + off + IP4_FRAG) & (IP4_MORE_FRAGMENTS | IP4_OFFSET_MASK);
        info.l4_off = (uint16_t)(off + size);
        parse_transport(data, len, &info);
    } else if (info.ethertype == PKT_TYPE_IP6) {
        if (!range_within(off, PKT_IP6_LEN, len) || data[off] >> 4 != 6)
            return false;
        info.ip_version = 6;
        info.proto = data[off + IP6_NEXT];
        if (!parse_ip6_extensions(data, len, off + PKT_IP6_LEN, &info))
            return false;
        parse_transport(data, len, &info);
    }
    *ret_info = info;
    return true;
}

/**
 * pkt_sum() - Add bytes to an Internet checksum
 * @len: at most NET_FRAME_MAX; an odd last byte counts as padded with zero
 * @sum: what earlier, even-sized parts came to
 * Context: any thread. Spec: RFC 1071; a 64-bit sum folded late is its section 2(C).
 */
uint32_t pkt_sum(const void *data, uint32_t len, uint32_t sum)
{
    const uint8_t *p = data;
    uint64_t total = 0; /* in host order: the sum is the same but for a final byte swap */

    for (; len >= 4; len -= 4, p += 4)
        total += load_le32(p);
    if (len >= 2) {
        total += load_le16(p);
        p += 2;
        len -= 2;
    }
    if (len)
        total += *p;
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return sum + __builtin_bswap16((uint16_t)total);
}

/* The checksum as it stands in a header, before byte swapping. */
uint16_t pkt_fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/**
 * pkt_finish_csum() - Complete a checksum that the sender left to be done
 * @csum_start: first byte that it covers; @csum_off: from there, the field, which holds the sum
 *              of the pseudo header
 * Context: any thread. Return: false, frame untouched, if the field is not within the frame.
 * Spec: virtio 1.2, 5.1.6.2, VIRTIO_NET_HDR_F_NEEDS_CSUM.
 */
bool pkt_finish_csum(uint8_t *data, uint32_t len, uint16_t csum_start, uint16_t csum_off)
{
    uint32_t field = (uint32_t)csum_start + csum_off;

    if (!range_within(field, 2, len) || csum_start >= len)
        return false;
    uint16_t sum = pkt_fold(pkt_sum(data + csum_start, len - csum_start, 0));
    /* 0 means "no checksum" in UDP, and all ones is the same number in every protocol. */
    store_be16(data + field, sum ? sum : UINT16_MAX);
    return true;
}

/**
 * pkt_clear_urgent() - Take urgent data out of a TCP frame
 * @info: of this very frame, from pkt_parse()
 *
 * Urgent data becomes ordinary, which RFC 6093 recommends to applications anyway; the checksum
 * is adjusted as RFC 1624 says. Context: any thread. Return: whether something changed.
 */
bool pkt_clear_urgent(uint8_t *data, const PktInfo *info)
{
    if (!info->l4_off || info->proto != PKT_PROTO_TCP)
        return false;
    uint8_t *tcp = data + info->l4_off;
    uint16_t word = load_be16(tcp + TCP_DATA_OFF), urgent = load_be16(tcp + TCP_URGENT);
    if (!(word & PKT_TCP_URG) && !urgent)
        return false;
    uint16_t plain = word & (uint16_t)~PKT_TCP_URG;
    uint32_t sum = (uint16_t)~load_be16(tcp + PKT_TCP_CSUM);
    sum += (uint16_t)~word + (uint32_t)plain + (uint16_t)~urgent;
    store_be16(tcp + TCP_DATA_OFF, plain);
    store_be16(tcp + TCP_URGENT, 0);
    store_be16(tcp + PKT_TCP_CSUM, pkt_fold(sum));
    return true;
}

/**
 * pkt_raise_mss() - Let the other end send longer segments than a SYN says
 * @info: of this very frame, from pkt_parse(); @mss: what it says afterwards
 * @least: a SYN that allows fewer bytes stays as it is
 *
 * For who cuts the segments himself before the sender of the SYN sees them. The checksum is
 * adjusted. Context: any thread. Return: whether something changed. Spec: RFC 9293, 3.2 (options),
 * RFC 1624.
 */
bool pkt_raise_mss(uint8_t *data, const PktInfo *info, uint16_t least, uint16_t mss)
{
    uint32_t at = info->l4_off + PKT_TCP_LEN, end = info->payload_off;

    if (!info->l4_off || info->proto != PKT_PROTO_TCP ||
        !(data[info->l4_off + TCP_FLAGS] & PKT_TCP_SYN))
        return false;
    while (at < end && data[at] != TCP_OPTION_END) {
        uint32_t size = data[at] == TCP_OPTION_NOP ? 1 : at + 1 < end ? data[at + 1] : 0;
        if (!size || (size < 2 && data[at] != TCP_OPTION_NOP) || !range_within(at, size, end))
            return false;
        if (data[at] == TCP_OPTION_MSS && size == TCP_MSS_LEN) {
            uint8_t *field = data + at + 2, *csum = data + info->l4_off + PKT_TCP_CSUM;
            uint16_t was = load_be16(field), is = mss;
            if (was < least || was >= mss)
                return false;
            store_be16(field, mss);
            if ((at - info->l4_off) & 1) { /* its bytes are in two words of the sum */
                was = __builtin_bswap16(was);
                is = __builtin_bswap16(is);
            }
            store_be16(csum, pkt_fold((uint16_t)~load_be16(csum) + (uint32_t)(uint16_t)~was + is));
            return true;
        }
        at += size;
    }
    return false;
}

/**
 * pkt_pseudo_sum() - What the checksum's field holds of a frame whose checksum is to be done
 * @info: with ip_version; @l4_len: bytes behind the IP header
 * Context: any thread.
 */
uint16_t pkt_pseudo_sum(const uint8_t *data, const PktInfo *info, uint32_t l4_len)
{
    const uint8_t *ip = data + info->l3_off;
    uint32_t sum = info->proto + l4_len;

    return (uint16_t)~pkt_fold(info->ip_version == 4 ? pkt_sum(ip + IP4_SRC, 2 * 4, sum)
                                                     : pkt_sum(ip + IP6_SRC, 2 * 16, sum));
}

/**
 * pkt_seg_begin() - Get ready to cut a TCP frame, or one of datagrams of UDP
 * @f: gso NET_GSO_TCPV4, NET_GSO_TCPV6 or NET_GSO_UDP, gso_size > 0; borrowed until the last one
 *
 * Nothing but gso and gso_size is believed: header lengths come from the headers themselves.
 * Context: any thread. Keeps (3). Return: false if @f is not what its gso says.
 */
bool pkt_seg_begin(PktSegmenter *s, const NetFrame *f)
{
    uint32_t have = f->len < PKT_HEADERS_MAX ? f->len : PKT_HEADERS_MAX;
    bool udp = f->gso == NET_GSO_UDP;
    uint8_t version = f->gso == NET_GSO_TCPV4 ? 4 : f->gso == NET_GSO_TCPV6 ? 6 : 0;

    s->frame = f;
    if ((!version && !udp) || !f->gso_size || f->len > NET_FRAME_MAX)
        return false;
    if (!pkt_gather(f, 0, s->headers, have) || !pkt_parse(s->headers, have, &s->info))
        return false;
    if ((!udp && s->info.ip_version != version) || !s->info.ip_version || !s->info.l4_off ||
        s->info.proto != (udp ? PKT_PROTO_UDP : PKT_PROTO_TCP))
        return false;
    s->header_len = s->info.payload_off;
    s->payload_len = f->len - s->header_len;
    s->mss = f->gso_size;
    s->count = s->payload_len ? (s->payload_len - 1) / s->mss + 1 : 1;
    return true;
}

uint32_t pkt_seg_len(const PktSegmenter *s, uint32_t i)
{
    uint32_t done = i * s->mss; /* below NET_FRAME_MAX: i < count */
    uint32_t left = s->payload_len - done;

    return s->header_len + (left < s->mss ? left : s->mss);
}

static void finish_tcp(const PktSegmenter *s, uint32_t i, uint8_t *tcp, uint32_t l4_len,
                       uint32_t sum)
{
    store_be32(tcp + TCP_SEQ, load_be32(tcp + TCP_SEQ) + i * s->mss);
    if (i)
        tcp[TCP_FLAGS] &= (uint8_t)~PKT_TCP_CWR;
    if (i + 1 < s->count)
        tcp[TCP_FLAGS] &= (uint8_t) ~(PKT_TCP_FIN | PKT_TCP_PSH);
    store_be16(tcp + PKT_TCP_CSUM, 0);
    store_be16(tcp + PKT_TCP_CSUM, pkt_fold(pkt_sum(tcp, l4_len, sum)));
}

static void finish_udp(uint8_t *udp, uint32_t l4_len, uint32_t sum)
{
    store_be16(udp + UDP_LENGTH, (uint16_t)l4_len);
    store_be16(udp + UDP_CSUM, 0);
    uint16_t csum = pkt_fold(pkt_sum(udp, l4_len, sum));
    store_be16(udp + UDP_CSUM, csum ? csum : UINT16_MAX);
}

/**
 * pkt_seg_write() - Write one segment with its own lengths, sequence number and checksums
 * @i:  below s->count; @to: pkt_seg_len() bytes
 * Context: any thread.
 * Spec: RFC 9293, 3.1 (flags: PSH and FIN belong to the last segment), RFC 3168, 6.1.2 (CWR to
 *       the first), RFC 768 (0 is no checksum).
 */
void pkt_seg_write(const PktSegmenter *s, uint32_t i, uint8_t *to)
{
    uint32_t len = pkt_seg_len(s, i), done = i * s->mss;
    uint8_t *ip = to + s->info.l3_off, *l4 = to + s->info.l4_off;
    uint32_t l4_len = len - s->info.l4_off, sum = s->info.proto + l4_len;

    memcpy(to, s->headers, s->header_len);
    (void)pkt_gather(s->frame, s->header_len + done, to + s->header_len, len - s->header_len);

    if (s->info.ip_version == 4) {
        store_be16(ip + IP4_TOTAL_LEN, (uint16_t)(len - s->info.l3_off));
        store_be16(ip + IP4_ID, (uint16_t)(load_be16(ip + IP4_ID) + i));
        store_be16(ip + IP4_CSUM, 0);
        store_be16(ip + IP4_CSUM, pkt_fold(pkt_sum(ip, s->info.l4_off - s->info.l3_off, 0)));
        sum = pkt_sum(ip + IP4_SRC, 2 * 4, sum);
    } else {
        store_be16(ip + IP6_PAYLOAD_LEN, (uint16_t)(len - s->info.l3_off - PKT_IP6_LEN));
        sum = pkt_sum(ip + IP6_SRC, 2 * 16, sum);
    }
    if (s->info.proto == PKT_PROTO_TCP)
        finish_tcp(s, i, l4, l4_len, sum);
    else
        finish_udp(l4, l4_len, sum);
}

/**
 * pkt_seg_whole() - Write a frame with GSO as one segment, however long, for who takes such
 * @f: as for pkt_seg_begin(); @to: f->len bytes
 * Context: any thread. Return: its length; 0: it is not what its gso says, or IP cannot say so
 * much.
 */
uint32_t pkt_seg_whole(const NetFrame *f, uint8_t *to)
{
    NetFrame whole = *f;
    PktSegmenter s;

    whole.gso_size = NET_FRAME_MAX;
    if (!f->gso_size || !pkt_seg_begin(&s, &whole) || f->len - s.info.l3_off > UINT16_MAX)
        return 0;
    pkt_seg_write(&s, 0, to);
    return f->len;
}

/**
 * pkt_frag_begin() - Get ready to cut an IPv4 datagram
 * @data: the whole frame, @len bytes, borrowed until the last fragment; @info: its
 * @mtu: bytes of a fragment with its IP header
 *
 * A fragment may be cut again. IP options go into each fragment (of those that exist only few may
 * not, and who needs this sends none). Context: any thread. Return: false if it is no IPv4, or its
 * header contradicts @len, or nothing fits into @mtu. Spec: RFC 791, 3.2 (fragmentation).
 */
bool pkt_frag_begin(PktFragmenter *s, const uint8_t *data, uint32_t len, const PktInfo *info,
                    uint32_t mtu)
{
    const uint8_t *ip = data + info->l3_off;

    if (info->ip_version != 4)
        return false;
    uint32_t size = (ip[0] & 0xf) * 4u, total = load_be16(ip + IP4_TOTAL_LEN);
    if (total <= size || !range_within(info->l3_off, total, len) || mtu < size + 8)
        return false;
    *s = (PktFragmenter){.data = data, .info = *info, .header_len = info->l3_off + size,
                         .payload_len = total - size, .step = (mtu - size) & ~7u};
    s->count = (s->payload_len - 1) / s->step + 1;
    return true;
}

struct iovec pkt_frag_get(const PktFragmenter *s, uint32_t i, uint8_t *header)
{
    uint8_t *ip = header + s->info.l3_off;
    uint32_t done = i * s->step, left = s->payload_len - done;
    uint32_t n = left < s->step ? left : s->step, size = s->header_len - s->info.l3_off;

    memcpy(header, s->data, s->header_len);
    uint16_t frag = load_be16(ip + IP4_FRAG);
    uint16_t off = (uint16_t)((frag & IP4_OFFSET_MASK) + done / 8) & IP4_OFFSET_MASK;
    uint16_t more = i + 1 < s->count ? IP4_MORE_FRAGMENTS : frag & IP4_MORE_FRAGMENTS;
    store_be16(ip + IP4_FRAG, off | more);
    store_be16(ip + IP4_TOTAL_LEN, (uint16_t)(size + n));
    store_be16(ip + IP4_CSUM, 0);
    store_be16(ip + IP4_CSUM, pkt_fold(pkt_sum(ip, size, 0)));
    return (struct iovec){(void *)(s->data + s->header_len + done), n};
}
