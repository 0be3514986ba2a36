/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A filter's decision about one frame. The frame's first FILTER_HEAD bytes are parsed once into a
 * view in which each field is known or not; rules are tried in order, and the first that the view
 * answers with yes decides. Where a rule cannot be answered, since the frame is cut short, has more
 * VLAN tags or IPv6 extension headers than are walked, or is a later fragment and the rule asks
 * for ports, and nothing that is known answers no, the frame is refused: nobody passes a rule by
 * hiding from it.
 *
 * Specs: IEEE 802.3, 802.1Q (tags 8100 and 88A8), RFC 826 (ARP), RFC 791, RFC 8200, RFC 9293, RFC
 * 768, RFC 792, RFC 4443, RFC 4861 (neighbour discovery), RFC 6980 (which is not fragmented), RFC
 * 2131 and 5227 (who may have no address yet).
 *
 * A guest that leaves its checksum to its card says where it goes, and that could be over an
 * address or port after they were looked at: the place must be the one that the header has. What
 * is to be cut into segments must be of the kind that it says.
 *
 * Left out: state of connections, reassembly, what is inside tunnels, AH and ESP (their number is
 * the protocol), what source routes and routing headers do to a destination.
 *
 * Invariants:
 * (1) No byte is read outside of what the caller gave, nor behind the end of the IP packet.
 * (2) Every loop is bounded by a constant or by the head's length.
 * Threads: any; counters are atomic.
 */
#include "filter_program.h"

#include <string.h>

#include "lodge/num.h"
#include "pkt.h"

enum {
    MAC_LEN = 6,
    TYPE_MIN = 0x600, /* below it is a length: 802.2 */
    TYPE_RARP = 0x8035,
    EXTENSIONS_MAX = 8,
    PROTO_HOP_BY_HOP = 0,
    PROTO_ICMP = 1,
    PROTO_ROUTING = 43,
    PROTO_FRAGMENT = 44,
    PROTO_ICMP6 = 58,
    PROTO_DEST_OPTIONS = 60,
    TCP_CSUM = 16,
    UDP_CSUM = 6,
    TCP_FLAGS = 13,
    ND_FIRST = 133, /* router solicitation */
    ND_NEIGHBOUR_SOLICIT = 135,
    ND_NEIGHBOUR_ADVERT = 136,
    ND_LAST = 137, /* redirect */
    ND_SOURCE_OPTION = 1,
    ND_TARGET_OPTION = 2,
    DHCP_SERVER = 67,
    DHCP_CLIENT = 68,
};

typedef enum Fragment { FRAG_NONE, FRAG_FIRST, FRAG_LATER } Fragment;

typedef struct View {
    const uint8_t *d;
    uint32_t have; /* bytes at d, and of the packet: the head, the frame or the packet ends */
    bool type_known; /* the tags end */
    unsigned tags;   /* that are known */
    uint16_t vid[FILTER_TAGS_MAX];
    uint16_t type;
    uint32_t l3;
    uint8_t ip;                 /* what the type says: 4, 6, 0 */
    bool ip_ok;                 /* its fixed header is whole and sound */
    const uint8_t *src, *dst;   /* with ip_ok */
    bool proto_known;
    uint8_t proto;
    Fragment fragment;
    uint32_t l4; /* with proto_known and no later fragment */
} View;

/* ---- the view ---- */

static void view_ip4(View *v)
{
    const uint8_t *h = v->d + v->l3;

    if (!range_within(v->l3, PKT_IP4_LEN, v->have) || h[0] >> 4 != 4)
        return;
    uint32_t size = (h[0] & 0xf) * 4u, total = load_be16(h + 2);
    if (size < PKT_IP4_LEN || total < size)
        return;
    v->ip_ok = true;
    v->src = h + 12;
    v->dst = h + 16;
    v->have = MIN(v->have, v->l3 + total);
    uint16_t where = load_be16(h + 6);
    v->fragment = where & 0x1fff ? FRAG_LATER : where & 0x2000 ? FRAG_FIRST : FRAG_NONE;
    v->proto = h[9];
    v->proto_known = true;
    v->l4 = v->l3 + size;
}

static bool is_extension(uint8_t proto)
{
    return proto == PROTO_HOP_BY_HOP || proto == PROTO_ROUTING || proto == PROTO_FRAGMENT ||
           proto == PROTO_DEST_OPTIONS;
}

static void view_ip6(View *v)
{
    const uint8_t *h = v->d + v->l3;

    if (!range_within(v->l3, PKT_IP6_LEN, v->have) || h[0] >> 4 != 6)
        return;
    v->ip_ok = true;
    v->src = h + 8;
    v->dst = h + 24;
    v->have = MIN(v->have, v->l3 + PKT_IP6_LEN + load_be16(h + 4));
    uint8_t next = h[6];
    uint32_t at = v->l3 + PKT_IP6_LEN;
    for (unsigned i = 0; is_extension(next) && v->fragment != FRAG_LATER; i++) {
        if (i == EXTENSIONS_MAX || !range_within(at, 8, v->have))
            return;
        const uint8_t *e = v->d + at;
        if (next == PROTO_FRAGMENT) {
            uint16_t where = load_be16(e + 2);
            v->fragment = where & 0xfff8 ? FRAG_LATER : where & 1 ? FRAG_FIRST : v->fragment;
            at += 8;
        } else {
            at += 8u + e[1] * 8u;
        }
        next = e[0];
    }
    if (is_extension(next))
        return; /* behind what this fragment has */
    v->proto = next;
    v->proto_known = true;
    v->l4 = at;
}

static void view_of(View *v, const uint8_t *head, uint32_t len)
{
    uint32_t at = PKT_ETH_LEN - 2;

    *v = (View){.d = head, .have = MIN(len, (uint32_t)FILTER_HEAD)};
    if (v->have < PKT_ETH_LEN)
        return;
    v->type = load_be16(head + at);
    while (v->type == PKT_TYPE_VLAN || v->type == PKT_TYPE_QINQ) {
        if (v->tags == FILTER_TAGS_MAX || !range_within(at, 6, v->have))
            return;
        v->vid[v->tags++] = load_be16(head + at + 2) & 0xfff;
        at += PKT_VLAN_LEN;
        v->type = load_be16(head + at);
    }
    v->type_known = true;
    v->l3 = at + 2;
    if (v->type == PKT_TYPE_IP4) {
        v->ip = 4;
        view_ip4(v);
    } else if (v->type == PKT_TYPE_IP6) {
        v->ip = 6;
        view_ip6(v);
    }
}

/* Whether the @len bytes at @off behind the transport header's start can be read. */
static bool l4_has(const View *v, uint32_t off, uint32_t len)
{
    return v->proto_known && v->fragment != FRAG_LATER && range_within((uint64_t)v->l4 + off, len,
                                                                       v->have);
}

/* Whether a checksum put at @place of the frame leaves alone what rules look at. */
static bool csum_is_sound(const View *v, uint32_t place)
{
    if (!v->proto_known || v->fragment == FRAG_LATER)
        return false;
    switch (v->proto) {
    case PKT_PROTO_TCP:
        return place == v->l4 + TCP_CSUM;
    case PKT_PROTO_UDP: /* its own, or that of what it carries */
        return place == v->l4 + UDP_CSUM || place >= v->l4 + PKT_UDP_LEN;
    case PROTO_ICMP6:
        return false;
    default:
        return place >= v->l4 + PKT_UDP_LEN;
    }
}

/* What is to be done to the frame leaves alone what is looked at here. */
static bool work_is_sound(const View *v, const NetFrame *f)
{
    if (f->flags & NET_FRAME_NEEDS_CSUM &&
        !csum_is_sound(v, (uint32_t)f->csum_start + f->csum_off))
        return false;
    switch (f->gso) {
    case NET_GSO_NONE:
        return true;
    case NET_GSO_TCPV4:
        return v->ip == 4 && v->proto_known && v->proto == PKT_PROTO_TCP && !v->fragment;
    case NET_GSO_TCPV6:
        return v->ip == 6 && v->proto_known && v->proto == PKT_PROTO_TCP && !v->fragment;
    case NET_GSO_UDP:
        return v->ip && v->proto_known && v->proto == PKT_PROTO_UDP && !v->fragment;
    default:
        return false;
    }
}

/* ---- who it claims to be ---- */

static bool is_zero(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i])
            return false;
    }
    return true;
}

static bool own_ip4(const FilterProgram *p, const uint8_t *addr)
{
    for (unsigned i = 0; i < p->ip4s; i++) {
        if (!memcmp(p->ip4[i], addr, 4))
            return true;
    }
    return !p->addresses;
}

/* The link-local address that a card's makes (RFC 4291, appendix A) is the guest's too. */
static bool own_ip6(const FilterProgram *p, const uint8_t *addr, const uint8_t *mac)
{
    const uint8_t local[16] = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2],
                               0xff, 0xfe, mac[3], mac[4], mac[5]};

    for (unsigned i = 0; i < p->ip6s; i++) {
        if (!memcmp(p->ip6[i], addr, 16))
            return true;
    }
    return !p->addresses || (p->ip6s && !memcmp(local, addr, 16));
}

static bool honest_arp(const FilterProgram *p, const View *v, const uint8_t *mac)
{
    const uint8_t *a = v->d + v->l3;

    if (!range_within(v->l3, PKT_ARP_LEN, v->have) || load_be16(a) != 1 ||
        load_be16(a + 2) != PKT_TYPE_IP4 || a[4] != MAC_LEN || a[5] != 4)
        return false;
    return !memcmp(a + 8, mac, MAC_LEN) && (is_zero(a + 14, 4) || own_ip4(p, a + 14));
}

static bool honest_ip4(const FilterProgram *p, const View *v)
{
    if (!p->addresses)
        return true;
    if (!v->ip_ok)
        return false;
    if (!is_zero(v->src, 4))
        return own_ip4(p, v->src);
    return p->ip4s && v->proto_known && v->proto == PKT_PROTO_UDP && l4_has(v, 0, PKT_UDP_LEN) &&
           load_be16(v->d + v->l4) == DHCP_CLIENT && load_be16(v->d + v->l4 + 2) == DHCP_SERVER;
}

/* Options with the sender's or the target's card, and the address that is claimed. */
static bool honest_nd(const FilterProgram *p, const View *v, uint32_t len, const uint8_t *mac)
{
    const uint8_t *m = v->d + v->l4;
    uint32_t at = m[0] == ND_FIRST ? 8 : m[0] == ND_FIRST + 1 ? 16 : m[0] == ND_LAST ? 40 : 24;

    if (v->fragment || v->l4 + at > len || len > v->have)
        return false;
    len -= v->l4;
    if ((m[0] == ND_NEIGHBOUR_ADVERT || (m[0] == ND_NEIGHBOUR_SOLICIT && is_zero(v->src, 16))) &&
        !own_ip6(p, m + 8, mac))
        return false;
    while (at < len) {
        if (len - at < 8 || !m[at + 1] || m[at + 1] * 8u > len - at)
            return false;
        bool says = m[at] == ND_SOURCE_OPTION ||
                    (m[at] == ND_TARGET_OPTION && m[0] == ND_NEIGHBOUR_ADVERT);
        if (says && memcmp(m + at + 2, mac, MAC_LEN))
            return false;
        at += m[at + 1] * 8u;
    }
    return true;
}

static bool honest_ip6(const FilterProgram *p, const View *v, const uint8_t *mac)
{
    if (!v->ip_ok || !v->proto_known)
        return v->ip_ok && v->fragment == FRAG_LATER && own_ip6(p, v->src, mac);
    bool icmp = v->proto == PROTO_ICMP6;
    /* Without an address yet: duplicate address detection, and listening to groups for it. */
    if (!own_ip6(p, v->src, mac) && !(icmp && p->ip6s && is_zero(v->src, 16)))
        return false;
    if (!icmp || v->fragment == FRAG_LATER)
        return true;
    if (!l4_has(v, 0, 4))
        return false;
    uint8_t type = v->d[v->l4];
    if (type < ND_FIRST || type > ND_LAST)
        return true;
    return honest_nd(p, v, v->l3 + PKT_IP6_LEN + load_be16(v->d + v->l3 + 4), mac);
}

/* Whether a guest with @mac may say this: its own addresses only. */
static bool honest(const FilterProgram *p, const View *v, const uint8_t *mac)
{
    if (v->have < PKT_ETH_LEN || memcmp(v->d + MAC_LEN, mac, MAC_LEN) || !v->type_known)
        return false;
    switch (v->type) {
    case PKT_TYPE_ARP:
    case TYPE_RARP:
        return honest_arp(p, v, mac);
    case PKT_TYPE_IP4:
        return honest_ip4(p, v);
    case PKT_TYPE_IP6:
        return honest_ip6(p, v, mac);
    default:
        return true;
    }
}

/* ---- rules ---- */

typedef enum Answer { NO, YES, UNCLEAR } Answer;

static Answer yes_if(bool yes)
{
    return yes ? YES : NO;
}

static Answer ask_mac(const FilterMac *m, const uint8_t *addr)
{
    for (unsigned i = 0; i < MAC_LEN; i++) {
        if ((addr[i] & m->mask[i]) != m->addr[i])
            return NO;
    }
    return YES;
}

/* Tag number @i: @vlan. */
static Answer ask_tag(const View *v, unsigned i, uint16_t vlan)
{
    if (i < v->tags)
        return yes_if(v->vid[i] == vlan);
    return v->type_known ? NO : UNCLEAR;
}

static Answer ask_prefix(const FilterPrefix *p, const uint8_t *addr)
{
    unsigned whole = p->bits / 8, rest = p->bits % 8;

    if (memcmp(addr, p->addr, whole))
        return NO;
    return yes_if(!rest || !((addr[whole] ^ p->addr[whole]) >> (8 - rest)));
}

static bool in_ports(const FilterPorts *p, uint16_t port)
{
    for (unsigned i = 0; i < p->count; i++) {
        if (port >= p->first[i] && port <= p->last[i])
            return true;
    }
    return false;
}

static Answer ask_ports(const FilterRule *r, const View *v)
{
    if (v->proto != PKT_PROTO_TCP && v->proto != PKT_PROTO_UDP)
        return NO;
    if (!l4_has(v, 0, 4))
        return UNCLEAR;
    uint16_t from = load_be16(v->d + v->l4), to = load_be16(v->d + v->l4 + 2);
    return yes_if((!(r->need & FILTER_NEED_SPORT) || in_ports(&r->sport, from)) &&
                  (!(r->need & FILTER_NEED_DPORT) || in_ports(&r->dport, to)) &&
                  (!(r->need & FILTER_NEED_PORT) || in_ports(&r->port, from) ||
                   in_ports(&r->port, to)));
}

/* The opening of a connection: SYN without ACK. */
static Answer ask_syn(const View *v)
{
    if (v->proto != PKT_PROTO_TCP)
        return NO;
    if (!l4_has(v, 0, TCP_FLAGS + 1))
        return UNCLEAR;
    return yes_if((v->d[v->l4 + TCP_FLAGS] & (PKT_TCP_SYN | PKT_TCP_ACK)) == PKT_TCP_SYN);
}

static Answer ask_icmp(const FilterRule *r, const View *v)
{
    return l4_has(v, 0, 1) ? yes_if(v->d[v->l4] == r->icmp_type) : UNCLEAR;
}

/* What needs the IP header, of a frame that says it has one. */
static Answer ask_ip(const FilterRule *r, const View *v)
{
    enum { BEHIND = FILTER_NEED_SPORT | FILTER_NEED_DPORT | FILTER_NEED_PORT };
    Answer all = YES;

    if (!v->ip_ok)
        return UNCLEAR;
    if ((r->need & FILTER_NEED_SRC && !ask_prefix(&r->src, v->src)) ||
        (r->need & FILTER_NEED_DST && !ask_prefix(&r->dst, v->dst)))
        return NO;
    if (r->need & FILTER_NEED_FRAGMENT) {
        if (v->fragment)
            all = YES;
        else if (v->proto_known)
            return NO;
        else
            all = UNCLEAR;
    }
    if (!(r->need & (FILTER_NEED_PROTO | BEHIND | FILTER_NEED_SYN | FILTER_NEED_ICMP)))
        return all;
    if (!v->proto_known)
        return UNCLEAR;
    if (r->need & FILTER_NEED_PROTO && v->proto != r->proto)
        return NO;
    Answer more[] = {r->need & BEHIND ? ask_ports(r, v) : YES,
                     r->need & FILTER_NEED_SYN ? ask_syn(v) : YES,
                     r->need & FILTER_NEED_ICMP ? ask_icmp(r, v) : YES};
    for (unsigned i = 0; i < G_N_ELEMENTS(more); i++) {
        if (more[i] == NO)
            return NO;
        if (more[i] == UNCLEAR)
            all = UNCLEAR;
    }
    return all;
}

static Answer ask(const FilterRule *r, const View *v)
{
    enum {
        IP = FILTER_NEED_PROTO | FILTER_NEED_SRC | FILTER_NEED_DST | FILTER_NEED_SPORT |
             FILTER_NEED_DPORT | FILTER_NEED_PORT | FILTER_NEED_FRAGMENT | FILTER_NEED_SYN |
             FILTER_NEED_ICMP
    };
    Answer parts[5] = {YES, YES, YES, YES, YES}, all = YES;

    if (v->have < PKT_ETH_LEN)
        return UNCLEAR;
    if ((r->need & FILTER_NEED_SRC_MAC && !ask_mac(&r->src_mac, v->d + MAC_LEN)) ||
        (r->need & FILTER_NEED_DST_MAC && !ask_mac(&r->dst_mac, v->d)))
        return NO;
    if (r->need & FILTER_NEED_UNTAGGED)
        parts[0] = yes_if(!v->tags && v->type_known); /* else a tag was begun, at least */
    if (r->need & FILTER_NEED_VLAN)
        parts[1] = ask_tag(v, 0, r->vlan);
    if (r->need & FILTER_NEED_INNER)
        parts[2] = ask_tag(v, 1, r->inner);
    if (r->need & FILTER_NEED_TYPE)
        parts[3] = v->type_known ? yes_if(v->type == r->type) : UNCLEAR;
    if (r->ip || r->need & IP) {
        if (!v->type_known)
            parts[4] = UNCLEAR;
        else if (!v->ip || (r->ip && r->ip != v->ip))
            parts[4] = NO;
        else if (r->need & IP)
            parts[4] = ask_ip(r, v);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++) {
        if (parts[i] == NO)
            return NO;
        if (parts[i] == UNCLEAR)
            all = UNCLEAR;
    }
    return all;
}

FilterVerdict filter_judge(const FilterProgram *p, const uint8_t *head, const NetFrame *f, bool out,
                           const uint8_t mac[6])
{
    const uint8_t dir = out ? FILTER_OUT : FILTER_IN;
    View v;

    view_of(&v, head, f->len);
    if (out && p->antispoof && !honest(p, &v, mac))
        return (FilterVerdict){false, FILTER_BY_ANTISPOOF};
    if (!work_is_sound(&v, f))
        return (FilterVerdict){false, FILTER_BY_UNCLEAR};
    for (unsigned i = 0; i < p->rules; i++) {
        if (!(p->rule[i].dirs & dir))
            continue;
        Answer a = ask(&p->rule[i], &v);
        if (a == UNCLEAR)
            return (FilterVerdict){false, FILTER_BY_UNCLEAR};
        if (a == YES)
            return (FilterVerdict){p->rule[i].allow, i};
    }
    return out ? (FilterVerdict){p->allow_out, FILTER_BY_DEFAULT_OUT}
               : (FilterVerdict){p->allow_in, FILTER_BY_DEFAULT_IN};
}

void filter_count(FilterProgram *p, unsigned by, unsigned frames, uint64_t bytes)
{
    FilterCounter *c = filter_counter(p, by);

    __atomic_fetch_add(&c->frames, frames, __ATOMIC_RELAXED);
    __atomic_fetch_add(&c->bytes, bytes, __ATOMIC_RELAXED);
}
