/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who looks at what passes between a card and its back end: captures, and the addresses that the
 * guest uses. Those are read from ARP (RFC 826: the sender's), DHCP (RFC 2131: what an ACK gives)
 * and neighbour discovery (RFC 4861, RFC 4862: a solicitation's target under duplicate address
 * detection, an advertisement's target). All of it is what guests and peers say, shown to people
 * and trusted by nobody. Left out: addresses of guests that never ask for a neighbour.
 *
 * Threads: frames come from the loops of both ends; the rest from the main thread. The lock
 * guards both tables; frames of no interest do not take it while nothing is captured.
 */
#include "watch.h"

#include <string.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/lock.h"
#include "lodge/num.h"
#include "pcap.h"
#include "pkt.h"

enum {
    CAPTURES_MAX = 8,
    MAC_LEN = 6,
    ARP_ETHER_IP4 = 0x0001,
    ND_SOLICIT = 135,
    ND_ADVERT = 136,
    ICMP6 = 58,
    ND_LEN = PKT_ETH_LEN + PKT_IP6_LEN + 24,
    DHCP_SERVER = 67,
    DHCP_CLIENT = 68,
    DHCP_FIXED = 240, /* up to the options, with the cookie */
    DHCP_COOKIE = 0x63825363,
    DHCP_TYPE = 53,
    DHCP_ACK = 5,
    DHCP_PAD = 0,
    DHCP_END = 255,
    LOOK_MAX = 600, /* bytes of a frame that are looked at */
};

struct NetWatch {
    LodgeLock lock;
    /* guarded by lock; the count is read without it too */
    Pcap *capture[CAPTURES_MAX];
    unsigned captures;
    NetSeen seen[NET_SEEN_MAX]; /* the latest first */
    unsigned seen_count;
};

/* ---- addresses ---- */

static void saw(NetWatch *w, bool ip6, const uint8_t *mac, const uint8_t *addr, const char *how)
{
    NetSeen s = {.ip6 = ip6, .how = how};
    unsigned i;

    memcpy(s.mac, mac, MAC_LEN);
    memcpy(s.addr, addr, ip6 ? 16 : 4);
    lodge_lock(&w->lock);
    for (i = 0; i < w->seen_count; i++) {
        NetSeen *old = &w->seen[i];
        if (old->ip6 == ip6 && !memcmp(old->mac, s.mac, MAC_LEN) &&
            !memcmp(old->addr, s.addr, sizeof s.addr)) {
            s.how = old->how;
            break;
        }
    }
    if (i == w->seen_count) {
        if (w->seen_count < NET_SEEN_MAX)
            w->seen_count++;
        else
            i--;
    }
    memmove(&w->seen[1], &w->seen[0], i * sizeof w->seen[0]);
    w->seen[0] = s;
    lodge_unlock(&w->lock);
}

static bool is_zero(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i])
            return false;
    }
    return true;
}

static void look_arp(NetWatch *w, const uint8_t *d, uint32_t len)
{
    const uint8_t *arp = d + PKT_ETH_LEN;

    if (len < PKT_ETH_LEN + PKT_ARP_LEN || load_be16(arp) != ARP_ETHER_IP4 ||
        load_be16(arp + 2) != PKT_TYPE_IP4 || arp[4] != MAC_LEN || arp[5] != 4 ||
        is_zero(arp + 14, 4))
        return;
    saw(w, false, arp + 8, arp + 14, "arp");
}

static void look_nd(NetWatch *w, const uint8_t *d, uint32_t len)
{
    const uint8_t *ip = d + PKT_ETH_LEN, *icmp = ip + PKT_IP6_LEN, *target = icmp + 8;
    bool probe;

    if (len < ND_LEN || ip[0] >> 4 != 6 || ip[6] != ICMP6)
        return;
    probe = icmp[0] == ND_SOLICIT && is_zero(ip + 8, 16);
    if (probe || icmp[0] == ND_ADVERT)
        saw(w, true, d + MAC_LEN, target, "nd");
}

/* The message type of a DHCP message whose options begin at @o; 0: none. */
static uint8_t dhcp_type(const uint8_t *o, uint32_t len)
{
    uint32_t at = 0;

    while (at < len && o[at] != DHCP_END) {
        if (o[at] == DHCP_PAD) {
            at++;
            continue;
        }
        if (len - at < 2 || o[at + 1] > len - at - 2)
            return 0;
        if (o[at] == DHCP_TYPE && o[at + 1] == 1)
            return o[at + 2];
        at += 2u + o[at + 1];
    }
    return 0;
}

static void look_dhcp(NetWatch *w, const uint8_t *d, uint32_t len)
{
    PktInfo info;

    if (!pkt_parse(d, len, &info) || info.ip_version != 4 || info.proto != PKT_PROTO_UDP ||
        !info.payload_off || info.fragment)
        return;
    const uint8_t *udp = d + info.l4_off, *m = d + info.payload_off;
    uint32_t left = len - info.payload_off;
    if (load_be16(udp) != DHCP_SERVER || load_be16(udp + 2) != DHCP_CLIENT || left < DHCP_FIXED ||
        load_be32(m + DHCP_FIXED - 4) != DHCP_COOKIE || is_zero(m + 16, 4))
        return;
    if (dhcp_type(m + DHCP_FIXED, left - DHCP_FIXED) == DHCP_ACK)
        saw(w, false, m + 28, m + 16, "dhcp");
}

static void look(NetWatch *w, bool from_guest, const NetFrame *f)
{
    uint8_t head[PKT_ETH_LEN], d[LOOK_MAX];
    const uint8_t *type;
    uint32_t len = MIN(f->len, (uint32_t)LOOK_MAX);

    if (f->niov && f->iov[0].iov_len >= PKT_ETH_LEN) {
        type = (const uint8_t *)f->iov[0].iov_base + 12;
    } else {
        if (!pkt_gather(f, 0, head, sizeof head))
            return;
        type = head + 12;
    }
    switch (load_be16(type)) {
    case PKT_TYPE_ARP:
        if (from_guest && pkt_gather(f, 0, d, len))
            look_arp(w, d, len);
        break;
    case PKT_TYPE_IP6:
        if (from_guest && f->len < LOOK_MAX && pkt_gather(f, 0, d, len))
            look_nd(w, d, len);
        break;
    case PKT_TYPE_IP4:
        if (!from_guest && f->len >= PKT_ETH_LEN + PKT_IP4_LEN + PKT_UDP_LEN + DHCP_FIXED &&
            f->len <= LOOK_MAX && pkt_gather(f, 0, d, len))
            look_dhcp(w, d, len);
        break;
    default:
        break;
    }
}

unsigned net_watch_seen(NetWatch *w, NetSeen *ret_seen, unsigned max)
{
    lodge_lock(&w->lock);
    unsigned n = MIN(max, w->seen_count);
    memcpy(ret_seen, w->seen, n * sizeof *ret_seen);
    lodge_unlock(&w->lock);
    return n;
}

/* ---- frames ---- */

/* Take the captures that ended out of the table; transfer full to @ret_ended. */
static unsigned take_ended_locked(NetWatch *w, Pcap **ret_ended)
{
    unsigned ended = 0, kept = 0;

    lock_assert_held(&w->lock);
    for (unsigned i = 0; i < w->captures; i++) {
        if (pcap_ended(w->capture[i]))
            ret_ended[ended++] = w->capture[i];
        else
            w->capture[kept++] = w->capture[i];
    }
    __atomic_store_n(&w->captures, kept, __ATOMIC_RELAXED);
    return ended;
}

/**
 * net_watch_frames() - Frames that passed the wire
 * @from_guest: they came from the card
 * Context: the sender's IoThread, no lock held.
 */
void net_watch_frames(NetWatch *w, bool from_guest, const NetFrame *v, unsigned n)
{
    Pcap *ended[CAPTURES_MAX];
    unsigned count = 0;

    for (unsigned i = 0; i < n; i++)
        look(w, from_guest, &v[i]);
    if (!__atomic_load_n(&w->captures, __ATOMIC_RELAXED))
        return;
    lodge_lock(&w->lock);
    for (unsigned i = 0; i < w->captures; i++)
        pcap_frames(w->capture[i], v, n);
    count = take_ended_locked(w, ended);
    lodge_unlock(&w->lock);
    for (unsigned i = 0; i < count; i++)
        pcap_free(ended[i]);
}

/* @p: taken over. */
static bool add_capture(NetWatch *w, Pcap *p, GError **error)
{
    Pcap *ended[CAPTURES_MAX];

    if (!p)
        return false;
    lodge_lock(&w->lock);
    unsigned count = take_ended_locked(w, ended);
    bool room = w->captures < CAPTURES_MAX;
    if (room) {
        w->capture[w->captures] = p;
        __atomic_store_n(&w->captures, w->captures + 1, __ATOMIC_RELAXED);
    }
    lodge_unlock(&w->lock);
    for (unsigned i = 0; i < count; i++)
        pcap_free(ended[i]);
    if (room)
        return true;
    pcap_free(p);
    return lodge_fail(error, LODGE_ERROR_LIMIT, "capture: there are %d already; end one of them",
                      CAPTURES_MAX);
}

/**
 * net_watch_to_file() - Capture to a file from now on; see pcap_open_file()
 * Context: main thread. Return: false with LODGE_ERROR_HOST or LODGE_ERROR_LIMIT.
 */
bool net_watch_to_file(NetWatch *w, const char *path, uint64_t limit, GError **error)
{
    return add_capture(w, pcap_open_file(path, limit, error), error);
}

/**
 * net_watch_to_fd() - Capture to a descriptor until its reader goes
 * @fd: taken over
 * Context: main thread. Return: false with LODGE_ERROR_HOST or LODGE_ERROR_LIMIT.
 */
bool net_watch_to_fd(NetWatch *w, int fd, GError **error)
{
    return add_capture(w, pcap_open_fd(fd, error), error);
}

NetWatch *net_watch_new(void)
{
    NetWatch *w = g_new0(NetWatch, 1);

    lodge_lock_init(&w->lock, LOCK_RANK_QUEUE, "net watch");
    return w;
}

void net_watch_free(NetWatch *w)
{
    if (!w)
        return;
    for (unsigned i = 0; i < w->captures; i++)
        pcap_free(w->capture[i]);
    lodge_lock_clear(&w->lock);
    g_free(w);
}
