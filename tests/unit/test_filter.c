/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rules about what passes a network: their text and their answers. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "filter.h"
#include "filter_frames.h"
#include "pkt.h"
#include "wire.h"

/* ---- verdicts ---- */

static FilterProgram *compiled(const char *text)
{
    g_autoptr(GError) error = NULL;
    FilterProgram *p = filter_compile("rules", text, strlen(text), &error);

    g_assert_no_error(error);
    return p;
}

static FilterVerdict judged(const char *rules, const Made *m, bool out)
{
    g_autoptr(FilterProgram) p = compiled(rules);
    uint32_t have = MIN(m->len, (uint32_t)FILTER_HEAD);
    g_autofree uint8_t *head = g_memdup2(m->d, have); /* so that a sanitizer sees the end */
    NetFrame f = m->f;

    f.len = m->len;
    return filter_judge(p, head, &f, out, guest_mac);
}

static bool passes(const char *rules, const Made *m)
{
    return judged(rules, m, true).allow;
}

/* Whether the one rule @conditions holds, and is no guess. */
static bool fits(const char *conditions, const Made *m)
{
    g_autofree char *allow = g_strdup_printf("allow %s\ndefault deny", conditions);
    g_autofree char *deny = g_strdup_printf("deny %s\ndefault allow", conditions);
    bool a = passes(allow, m), d = passes(deny, m);

    g_assert_cmpint(a, !=, d);
    return a;
}

/* Whether it cannot be told whether the rule holds: refused either way. */
static bool unclear(const char *conditions, const Made *m)
{
    g_autofree char *allow = g_strdup_printf("allow %s\ndefault allow", conditions);
    g_autofree char *deny = g_strdup_printf("deny %s\ndefault allow", conditions);
    FilterVerdict a = judged(allow, m, true), d = judged(deny, m, true);

    return !a.allow && a.by == FILTER_BY_UNCLEAR && !d.allow && d.by == FILTER_BY_UNCLEAR;
}

static void test_conditions(void)
{
    Made m;

    ether(&m, 0x0800);
    ip4(&m, 6, 0, 20);
    tcp(&m, 4000, 80, 0x02);
    static const char *const yes[] = {
        "", "out", "ip", "tcp", "proto 6", "proto 0x6", "from 10.0.0.5", "from 10.0.0.0/8",
        "from 10.0.0.4/31", "to 10.0.0.9/32", "from 0.0.0.0/0", "to port 80", "from port 4000",
        "port 80", "port 4000", "to port 1,79-81,9", "tcp syn", "vlan none",
        "from mac 52:54:00:00:00:01", "to mac 52:54:00:00:00:02", "tcp from 10.0.0.0/24 to port 80",
        "ip tcp", "ethertype 0x800",
    };
    static const char *const no[] = {
        "in", "ip6", "arp", "udp", "icmp", "icmpv6", "proto 7", "from 10.0.0.4", "from 11.0.0.0/8",
        "from 10.0.0.6/31", "to 10.0.0.5", "from ::/0", "to port 4000", "from port 80", "port 79",
        "port 81", "udp port 80", "vlan 0", "vlan 5", "from mac 52:54:00:00:00:02", "fragment",
        "to mac broadcast", "to mac multicast", "ethertype 0x806", "icmp type 8", "tcp from port 80",
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(yes); i++)
        g_assert_true((g_test_message("%s", yes[i]), fits(yes[i], &m)));
    for (unsigned i = 0; i < G_N_ELEMENTS(no); i++)
        g_assert_false((g_test_message("%s", no[i]), fits(no[i], &m)));
    g_assert_true(judged("allow in\ndefault deny", &m, false).allow);
    g_assert_false(judged("allow out\ndefault deny", &m, false).allow);
    m.d[m.len - 7] = 0x12; /* SYN and ACK */
    g_assert_false(fits("tcp syn", &m));
    memset(m.d, 0xff, 6);
    g_assert_true(fits("to mac broadcast", &m));
    g_assert_true(fits("to mac multicast", &m));
    m.d[0] = 0x01;
    g_assert_false(fits("to mac broadcast", &m));
    g_assert_true(fits("to mac multicast", &m));
}

static void test_conditions6(void)
{
    Made m;

    ether(&m, 0x86dd);
    ip6(&m, 17, 8);
    udp(&m, 546, 547);
    g_assert_true(fits("ip6 udp to port 547 from fd00::/16 to fd00::9", &m));
    g_assert_true(fits("udp", &m));
    g_assert_true(fits("to fd00::8/125", &m));
    g_assert_false(fits("to fd00::/125", &m));
    g_assert_false(fits("ip", &m));
    g_assert_false(fits("from 10.0.0.0/8", &m));
    g_assert_false(fits("from fe80::/10", &m));

    ether(&m, 0x86dd);
    ip6(&m, 58, 4);
    put16(&m, 0x8000);
    put16(&m, 0);
    g_assert_true(fits("icmpv6 type 128", &m));
    g_assert_false(fits("icmpv6 type 129", &m));
    g_assert_false(fits("icmp", &m));
}

static void test_order_and_defaults(void)
{
    Made m;

    ether(&m, 0x0806);
    g_assert_true(passes("", &m));
    g_assert_true(passes("# nothing\n\n", &m));
    g_assert_false(passes("default deny", &m));
    g_assert_false(passes("default deny out", &m));
    g_assert_true(passes("default deny in", &m));
    g_assert_false(judged("default deny in", &m, false).allow);
    g_assert_true(passes("default allow in\ndefault allow out", &m));
    g_assert_true(passes("allow arp\ndeny arp", &m));
    g_assert_false(passes("deny arp # first\nallow arp", &m));
    g_assert_cmpuint(judged("\nallow ip\nallow\tarp\r\n", &m, true).by, ==, 1);
    g_assert_cmpuint(judged("deny ip", &m, true).by, ==, FILTER_BY_DEFAULT_OUT);
    g_assert_cmpuint(judged("deny ip", &m, false).by, ==, FILTER_BY_DEFAULT_IN);
}

static void test_vlan(void)
{
    Made m;

    ether(&m, 0x8100);
    tag(&m, 0x6005, 0x0800); /* with a priority */
    ip4(&m, 17, 0, 8);
    udp(&m, 1, 53);
    g_assert_true(fits("vlan 5 udp to port 53", &m));
    g_assert_false(fits("vlan 6", &m));
    g_assert_false(fits("vlan 5.5", &m));
    g_assert_false(fits("vlan none", &m));

    ether(&m, 0x88a8);
    tag(&m, 5, 0x8100);
    tag(&m, 7, 0x0800);
    ip4(&m, 17, 0, 8);
    udp(&m, 1, 53);
    g_assert_true(fits("vlan 5.7 udp to port 53", &m));
    g_assert_true(fits("vlan 5", &m));
    g_assert_false(fits("vlan 7", &m));
    g_assert_false(fits("vlan 5.8", &m));

    /* A third tag hides what is under it. */
    ether(&m, 0x8100);
    tag(&m, 5, 0x8100);
    tag(&m, 7, 0x8100);
    tag(&m, 9, 0x0800);
    ip4(&m, 17, 0, 8);
    udp(&m, 1, 53);
    g_assert_true(fits("vlan 5.7", &m));
    g_assert_false(fits("vlan 5.9", &m));
    g_assert_true(unclear("udp", &m));
    g_assert_true(unclear("ip", &m));
    g_assert_true(unclear("arp", &m));
    g_assert_false(fits("udp vlan 6", &m)); /* what is known says no */

    ether(&m, 0x8100); /* cut within its tag */
    put16(&m, 5);
    g_assert_true(unclear("vlan 5", &m));
    g_assert_true(unclear("arp", &m));
    g_assert_false(fits("vlan none", &m));
}

static void test_cut_short(void)
{
    Made m;

    ether(&m, 0x0800);
    ip4(&m, 6, 0, 20);
    tcp(&m, 4000, 80, 2);
    for (; m.len >= ETH; m.len--) {
        uint32_t l4 = m.len < ETH + 20 ? 0 : m.len - ETH - 20;
        g_assert_true(l4 >= 4 ? fits("tcp to port 80", &m) : unclear("tcp to port 80", &m));
        g_assert_true(l4 >= 14 ? fits("tcp syn", &m) : unclear("tcp syn", &m));
        g_assert_true(m.len >= ETH + 20 ? fits("tcp from 10.0.0.5", &m)
                                        : unclear("from 10.0.0.5", &m));
        g_assert_true(fits("ip", &m));
    }
    m.len = 5;
    g_assert_true(unclear("ip", &m));
    g_assert_true(unclear("", &m));

    /* What the packet's own length leaves out is not there. */
    ether(&m, 0x0800);
    ip4(&m, 6, 0, 2);
    tcp(&m, 4000, 80, 2);
    g_assert_true(unclear("to port 80", &m));
    m.d[ETH + 3] = 19;
    g_assert_true(unclear("from 10.0.0.5", &m));
    m.d[ETH + 3] = 40;
    m.d[ETH] = 0x44;
    g_assert_true(unclear("tcp", &m));
    m.d[ETH] = 0x65;
    g_assert_true(unclear("tcp", &m));
    m.d[ETH] = 0x46; /* options: the ports are further on */
    g_assert_false(fits("to port 80", &m));
    g_assert_true(fits("ip", &m));
}

static void test_fragments(void)
{
    Made m;

    ether(&m, 0x0800);
    ip4(&m, 17, 0x2000, 8);
    udp(&m, 1, 53);
    g_assert_true(fits("udp to port 53", &m)); /* the first has the ports */
    g_assert_true(fits("fragment", &m));
    store_be16(m.d + ETH + 6, 1);
    g_assert_true(unclear("udp to port 53", &m));
    g_assert_true(unclear("port 53", &m));
    g_assert_false(fits("tcp to port 53", &m));
    g_assert_true(fits("udp", &m));
    g_assert_true(fits("fragment", &m));
    g_assert_true(passes("allow fragment\ndeny port 53", &m));
    store_be16(m.d + ETH + 6, 0x4000); /* may not be cut, and is not */
    g_assert_false(fits("fragment", &m));

    /* TCP's flags in a second piece: RFC 1858. */
    ether(&m, 0x0800);
    ip4(&m, 6, 0x2000, 8);
    put(&m, (uint8_t[8]){0, 1, 0, 80}, 8);
    g_assert_true(unclear("tcp syn", &m));
    g_assert_true(fits("tcp to port 80", &m));

    ether(&m, 0x86dd);
    ip6(&m, 44, 16);
    put(&m, (uint8_t[8]){17, 0, 0, 1}, 8); /* the first */
    udp(&m, 1, 53);
    g_assert_true(fits("udp to port 53", &m));
    g_assert_true(fits("ip6 fragment", &m));
    m.d[ETH + 43] = 8;
    g_assert_true(unclear("udp to port 53", &m));
    g_assert_true(fits("udp fragment", &m));
    m.d[ETH + 40] = 60; /* a later one of what begins with options */
    g_assert_true(unclear("udp", &m));
    g_assert_true(fits("fragment", &m));
    m.d[ETH + 40] = 17;
    m.d[ETH + 43] = 0; /* a fragment that is whole */
    g_assert_false(fits("fragment", &m));
    g_assert_true(fits("udp to port 53", &m));
}

static void test_extensions(void)
{
    for (unsigned n = 0; n < 12; n++) {
        Made m;
        ether(&m, 0x86dd);
        ip6(&m, n ? 60 : 17, (uint16_t)(n * 16 + 8));
        for (unsigned i = 0; i < n; i++) {
            uint8_t ext[16] = {i + 1 < n ? 60 : 17, 1};
            put(&m, ext, 16);
        }
        udp(&m, 1, 53);
        if (n <= 8)
            g_assert_true(fits("udp to port 53 from fd00::5", &m));
        else
            g_assert_true(unclear("udp", &m));
        g_assert_true(fits("ip6 from fd00::5", &m));
    }
    /* Past what is looked at, though the frame has it; and past the packet. */
    Made m;
    ether(&m, 0x86dd);
    ip6(&m, 60, 1024 + 8);
    uint8_t ext[1024] = {17, 127};
    put(&m, ext, sizeof ext);
    udp(&m, 1, 53);
    g_assert_true(unclear("port 53", &m));
    g_assert_true(fits("udp", &m));
    ether(&m, 0x86dd);
    ip6(&m, 60, 4);
    put(&m, ext, 8);
    udp(&m, 1, 53);
    g_assert_true(unclear("udp", &m));
}

/* ---- who it claims to be ---- */

static void arp(Made *m, const uint8_t *mac, uint8_t last)
{
    static const uint8_t head[8] = {0, 1, 8, 0, 6, 4, 0, 1};
    uint8_t ip[4] = {10, 0, 0, last};

    if (!last)
        memset(ip, 0, 4);
    ether(m, 0x0806);
    put(m, head, 8);
    put(m, mac, 6);
    put(m, ip, 4);
    m->len += 10;
}

#define BOTH "antispoof=10.0.0.5,fd00::5"

static void test_antispoof(void)
{
    Made m;

    ether(&m, 0x0800);
    ip4(&m, 17, 0, 8);
    udp(&m, 1, 53);
    g_assert_true(passes("antispoof", &m));
    g_assert_true(passes(BOTH, &m));
    g_assert_false(passes("antispoof=fd00::5", &m)); /* no address of that kind */
    g_assert_cmpuint(judged("allow out\nantispoof=10.0.0.6", &m, true).by, ==,
                     FILTER_BY_ANTISPOOF);
    g_assert_true(judged("antispoof=10.0.0.6", &m, false).allow); /* others may */
    m.d[11] ^= 1;
    g_assert_false(passes("antispoof", &m));
    g_assert_true(judged("antispoof", &m, false).allow);

    /* No address yet. */
    ether(&m, 0x0800);
    ip4(&m, 17, 0, 8);
    udp(&m, 68, 67);
    memset(m.d + ETH + 12, 0, 4);
    g_assert_true(passes(BOTH, &m));
    g_assert_false(passes("antispoof=fd00::5", &m));
    m.d[m.len - 5] = 66;
    g_assert_false(passes(BOTH, &m));

    arp(&m, guest_mac, 5);
    g_assert_true(passes(BOTH, &m));
    arp(&m, guest_mac, 0);
    g_assert_true(passes(BOTH, &m));
    arp(&m, guest_mac, 6);
    g_assert_false(passes(BOTH, &m));
    g_assert_true(passes("antispoof", &m));
    arp(&m, other_mac, 5);
    g_assert_false(passes("antispoof", &m));
    m.d[12] = 0x80; /* RARP */
    m.d[13] = 0x35;
    g_assert_false(passes("antispoof", &m));
    arp(&m, guest_mac, 5);
    for (; m.len > ETH + 27; m.len--)
        g_assert_true(m.len < ETH + 28 || passes("antispoof", &m));
    g_assert_false(passes("antispoof", &m));

    ether(&m, 0x8100); /* under a tag, as without */
    tag(&m, 5, 0x0800);
    ip4(&m, 17, 0, 0);
    g_assert_true(passes(BOTH, &m));
    m.d[ETH + 4 + 15]++;
    g_assert_false(passes(BOTH, &m));
    ether(&m, 0x8100);
    tag(&m, 5, 0x8100);
    tag(&m, 6, 0x8100);
    tag(&m, 7, 0x0800);
    g_assert_false(passes("antispoof", &m));
}

/* A neighbour message of @type with an option of kind @kind. */
static void nd(Made *m, uint8_t type, uint8_t kind, const uint8_t *mac)
{
    uint8_t body[24] = {type};

    ether(m, 0x86dd);
    ip6(m, 58, 32);
    body[8] = 0xfd;
    body[23] = 5;
    put(m, body, 24);
    put(m, (uint8_t[2]){kind, 1}, 2);
    put(m, mac, 6);
}

static void test_antispoof_nd(void)
{
    static const uint8_t local[16] = {0xfe, 0x80, [8] = 0x50, 0x54, 0, 0xff, 0xfe, 0, 0, 1};
    Made m;

    nd(&m, 136, 2, guest_mac);
    g_assert_true(passes(BOTH, &m));
    g_assert_true(passes("antispoof", &m));
    nd(&m, 136, 2, other_mac);
    g_assert_false(passes("antispoof", &m));
    nd(&m, 135, 2, other_mac); /* of no meaning there */
    g_assert_true(passes("antispoof", &m));
    nd(&m, 135, 1, other_mac);
    g_assert_false(passes("antispoof", &m));
    nd(&m, 136, 2, guest_mac);
    m.d[ETH + 40 + 23] = 6; /* another's address */
    g_assert_false(passes(BOTH, &m));
    g_assert_true(passes("antispoof", &m));
    nd(&m, 136, 2, guest_mac);
    m.d[m.len - 7] = 0; /* an option without length */
    g_assert_false(passes("antispoof", &m));
    m.d[m.len - 7] = 2; /* longer than the message */
    g_assert_false(passes("antispoof", &m));
    nd(&m, 136, 2, guest_mac);
    m.len--;
    g_assert_false(passes("antispoof", &m));

    /* Duplicate address detection, for an address of its own and another. */
    nd(&m, 135, 14, other_mac);
    memset(m.d + ETH + 8, 0, 16);
    g_assert_true(passes(BOTH, &m));
    m.d[ETH + 40 + 23] = 6;
    g_assert_false(passes(BOTH, &m));
    nd(&m, 136, 2, guest_mac);
    memcpy(m.d + ETH + 8, local, 16);
    memcpy(m.d + ETH + 40 + 8, local, 16);
    g_assert_true(passes(BOTH, &m));
    m.d[ETH + 8 + 15]++;
    g_assert_false(passes(BOTH, &m));

    /* In pieces, or behind more headers than are walked: nobody hides so. */
    ether(&m, 0x86dd);
    ip6(&m, 44, 8 + 24);
    put(&m, (uint8_t[8]){58, 0, 0, 1}, 8);
    put(&m, (uint8_t[24]){136}, 24);
    g_assert_false(passes("antispoof", &m));
    m.d[ETH + 43] = 8;
    g_assert_true(passes("antispoof", &m));
    ether(&m, 0x86dd);
    ip6(&m, 60, 9 * 8 + 24);
    for (unsigned i = 0; i < 9; i++)
        put(&m, (uint8_t[8]){i < 8 ? 60 : 58}, 8);
    put(&m, (uint8_t[24]){136}, 24);
    g_assert_false(passes("antispoof", &m));
}

/* A checksum that the guest leaves to its card may not land on what was looked at. */
static void test_offloads(void)
{
    Made m;

    ether(&m, 0x0800);
    ip4(&m, 6, 0, 20);
    tcp(&m, 4000, 80, 2);
    m.f.flags = NET_FRAME_NEEDS_CSUM;
    m.f.csum_start = ETH + 20;
    m.f.csum_off = 16;
    g_assert_true(passes("", &m));
    for (unsigned at = 0; at < m.len; at++) {
        m.f.csum_start = 0;
        m.f.csum_off = (uint16_t)at;
        g_assert_cmpint(passes("", &m), ==, at == ETH + 20 + 16);
    }
    m.f.csum_start = ETH + 20;
    m.f.csum_off = 16;
    m.f.gso = NET_GSO_TCPV4;
    m.f.gso_size = 500;
    g_assert_true(passes("", &m));
    m.f.gso = NET_GSO_TCPV6;
    g_assert_false(passes("", &m));
    m.f.gso = NET_GSO_TCPV4;
    store_be16(m.d + ETH + 6, 0x2000);
    g_assert_false(passes("", &m));

    ether(&m, 0x0800);
    ip4(&m, 17, 0, 8 + 20);
    udp(&m, 1, 53);
    m.len += 20;
    m.f.flags = NET_FRAME_NEEDS_CSUM;
    m.f.csum_start = ETH + 20;
    m.f.csum_off = 6;
    g_assert_true(passes("", &m));
    m.f.gso = NET_GSO_UDP;
    m.f.gso_size = 10;
    g_assert_true(passes("allow udp\ndefault deny", &m));
    m.f.gso = NET_GSO_TCPV4;
    g_assert_false(passes("", &m));
    m.f.gso = 3; /* of no meaning here */
    g_assert_false(passes("", &m));
    m.f.gso = NET_GSO_NONE;
    m.f.csum_off = 2;
    g_assert_false(passes("", &m));
    m.f.csum_off = 12; /* of what it carries */
    g_assert_true(passes("", &m));
    store_be16(m.d + ETH + 6, 1);
    g_assert_false(passes("", &m));
    ether(&m, 0x0806);
    m.len += 30;
    m.f.flags = NET_FRAME_NEEDS_CSUM;
    m.f.csum_start = 28;
    g_assert_false(passes("", &m));
}

/* ---- the text ---- */

static void test_errors(void)
{
    static const struct {
        const char *text, *message;
    } c[] = {
        {"alow tcp", "rules:1:1: \"alow\" is no rule; a line begins with allow, deny, default or antispoof"},
        {"\n  deny foo", "rules:2:8: \"foo\" is no condition; there are arp, ip, ip6, tcp, udp, icmp, "
                         "icmpv6, proto, ethertype, from, to, port, vlan, fragment, syn, type"},
        {"deny from", "rules:1:10: \"from\" needs an address, mac or port"},
        {"deny from here", "rules:1:11: \"here\" is neither an address nor mac or port"},
        {"deny from 10.0.0.1/8", "rules:1:11: \"10.0.0.1/8\" has bits behind its prefix; clear them"},
        {"deny from 10.0.0.0/33", "rules:1:11: \"10.0.0.0/33\": the prefix has 0 to 32 bits"},
        {"deny from fd00::/129", "rules:1:11: \"fd00::/129\": the prefix has 0 to 128 bits"},
        {"deny from fd00::1 to 10.0.0.1", "rules:1:22: \"10.0.0.1\" is an address of IPv4 in a rule about IPv6"},
        {"deny icmp ip6", "rules:1:11: \"ip6\": the rule is about IPv4 already"},
        {"deny ip6 icmp", "rules:1:10: \"icmp\" is of IPv4 in a rule about IPv6"},
        {"deny tcp udp", "rules:1:10: \"udp\": the rule has said that already"},
        {"deny from mac 1:2", "rules:1:15: \"1:2\" is no hardware address; write 52:54:00:12:34:56, broadcast or multicast"},
        {"deny from mac 52:54:00:12:34:567", "rules:1:15: \"52:54:00:12:34:567\" is no hardware address; write "
                                             "52:54:00:12:34:56, broadcast or multicast"},
        {"deny port 80-", "rules:1:11: \"80-\" is no list of ports; write 80,443,8000-8999"},
        {"deny port 90-80", "rules:1:11: \"90-80\" is no list of ports; write 80,443,8000-8999"},
        {"deny port 65536", "rules:1:11: \"65536\" is no list of ports; write 80,443,8000-8999"},
        {"deny port 1,2,3,4,5,6,7,8,9", "rules:1:11: a list has at most 8 ports or ranges; use two rules"},
        {"deny vlan 4095", "rules:1:11: \"4095\" is no VLAN; write 0 to 4094, 5.7 for 7 within 5, or none"},
        {"deny vlan 1.2.3", "rules:1:11: \"1.2.3\" is no VLAN; write 0 to 4094, 5.7 for 7 within 5, or none"},
        {"deny vlan 1 vlan none", "rules:1:13: \"vlan\": the rule has said that already"},
        {"deny vlan none vlan 1", "rules:1:16: \"vlan\": the rule has said that already"},
        {"deny arp from 10.0.0.1", "rules:1:1: arp and ethertype go with mac and vlan only; what ARP says is antispoof's"},
        {"deny arp ip", "rules:1:1: arp and ethertype go with mac and vlan only; what ARP says is antispoof's"},
        {"deny icmp port 1", "rules:1:1: only tcp and udp have ports"},
        {"deny udp syn", "rules:1:1: \"syn\" goes with tcp"},
        {"deny type 8", "rules:1:1: \"type\" goes with icmp or icmpv6"},
        {"deny proto 256", "rules:1:12: \"256\" is no protocol from 0 to 255"},
        {"deny icmp type x", "rules:1:16: \"x\" is no type from 0 to 255"},
        {"deny ethertype 5", "rules:1:16: \"5\" is no type from 0x600 to 0xffff"},
        {"default", "rules:1:8: \"default\" needs allow or deny"},
        {"default drop", "rules:1:9: \"drop\" is neither allow nor deny"},
        {"default deny up", "rules:1:14: \"up\" is neither in nor out"},
        {"default deny\ndefault allow in", "rules:2:15: there is a default already"},
        {"default deny in now", "rules:1:17: \"now\": nothing comes behind in or out"},
        {"antispoof=10.0.0.300", "rules:1:1: \"10.0.0.300\" is no address; write antispoof=10.0.0.5,fd00::5"},
        {"antispoof 10.0.0.3", "rules:1:11: \"10.0.0.3\": write antispoof=ADDR,ADDR without blanks"},
        {"deny tcp\a", "rules:1:9: a rule has letters, digits and blanks only"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(c); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(filter_compile("rules", c[i].text, strlen(c[i].text), &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_assert_cmpstr(error->message, ==, c[i].message);
    }
}

static void test_limits(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) s = g_string_new(NULL);
    Made m;

    for (unsigned i = 0; i < FILTER_RULES_MAX; i++)
        g_string_append_printf(s, "deny arp vlan %u\n", i % 4000);
    g_string_append(s, "antispoof\ndefault allow\n");
    filter_program_free(compiled(s->str));
    g_string_append(s, "deny\n");
    g_assert_null(filter_compile("rules", s->str, s->len, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    g_autofree char *line = g_strnfill(FILTER_LINE_MAX + 1, 'a');
    g_assert_null(filter_compile("rules", line, FILTER_LINE_MAX + 1, &error));
    g_assert_cmpstr(error->message, ==, "rules:1:1: the line is longer than 400 bytes");
    g_clear_error(&error);
    g_autofree char *text = g_strnfill(FILTER_TEXT_MAX + 1, '\n');
    g_assert_null(filter_compile("rules", text, FILTER_TEXT_MAX + 1, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    g_string_assign(s, "antispoof=10.0.0.1");
    for (unsigned i = 0; i < 20; i++)
        g_string_append(s, ",10.0.0.5");
    ether(&m, 0x0800);
    ip4(&m, 17, 0, 0);
    g_assert_true(passes(s->str, &m));
    for (unsigned i = 0; i < 4; i++)
        g_string_append_printf(s, "\nantispoof=10.1.0.1,10.1.0.2,10.1.0.3,10.1.0.4,10.1.0.5,"
                                  "10.1.0.6,10.1.0.7,10.1.0.8,10.1.0.9,10.1.0.10,10.1.0.11");
    g_assert_null(filter_compile("rules", s->str, s->len, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
}

static void test_read(void)
{
    g_autoptr(GError) error = NULL;
    size_t len;

    g_assert_null(net_filter_read("/does/not/exist", &len, &error));
    g_assert_cmpstr(error->message, ==,
                    "\"/does/not/exist\": cannot read the rules: No such file or directory");
    g_clear_error(&error);
    g_assert_null(net_filter_read("/dev/zero", &len, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_clear_error(&error);
    g_assert_null(net_filter_read("/", &len, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/filter/conditions", test_conditions);
    g_test_add_func("/filter/conditions6", test_conditions6);
    g_test_add_func("/filter/order", test_order_and_defaults);
    g_test_add_func("/filter/vlan", test_vlan);
    g_test_add_func("/filter/cut-short", test_cut_short);
    g_test_add_func("/filter/fragments", test_fragments);
    g_test_add_func("/filter/extensions", test_extensions);
    g_test_add_func("/filter/antispoof", test_antispoof);
    g_test_add_func("/filter/antispoof-nd", test_antispoof_nd);
    g_test_add_func("/filter/offloads", test_offloads);
    g_test_add_func("/filter/errors", test_errors);
    g_test_add_func("/filter/limits", test_limits);
    g_test_add_func("/filter/read", test_read);
    return g_test_run();
}
