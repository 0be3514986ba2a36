/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Packet headers: what parses, what is cut short, checksums against slow ones, segments. */
#include <string.h>

#include "lodge/num.h"
#include "pkt.h"

enum { HEADERS4 = 14 + 20 + 20, HEADERS6 = 14 + 40 + 20 };

/* A TCP frame over IPv4 or IPv6 with @payload bytes counting up; returns its length. */
static uint32_t make_tcp(uint8_t *p, int version, uint32_t payload, uint8_t flags)
{
    uint32_t l4 = 14 + (version == 4 ? 20 : 40);

    memset(p, 0, l4 + 20);
    store_be16(p + 12, version == 4 ? PKT_TYPE_IP4 : PKT_TYPE_IP6);
    if (version == 4) {
        p[14] = 0x45;
        store_be16(p + 18, 0x1234);
        p[22] = 64;
        p[23] = PKT_PROTO_TCP;
        memcpy(p + 26, "\x0a\x00\x02\x0f\x0a\x00\x02\x02", 8);
    } else {
        p[14] = 0x60;
        p[20] = PKT_PROTO_TCP;
        memset(p + 22, 0xfe, 32);
    }
    store_be16(p + l4, 4000);
    store_be16(p + l4 + 2, 80);
    store_be32(p + l4 + 4, 0xfffffff0); /* wraps on the way */
    p[l4 + 12] = 5 << 4;
    p[l4 + 13] = flags;
    for (uint32_t i = 0; i < payload; i++)
        p[l4 + 20 + i] = (uint8_t)(i * 7);
    return l4 + 20 + payload;
}

/* The plain, slow checksum of RFC 1071. */
static uint16_t slow_sum(const uint8_t *p, uint32_t len, uint32_t sum)
{
    for (uint32_t i = 0; i < len; i++)
        sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

/* 0 where the TCP checksum of a whole frame is right. */
static uint16_t tcp_residue(const uint8_t *p, uint32_t len, int version)
{
    uint32_t l4 = 14 + (version == 4 ? 20 : 40), addrs = version == 4 ? 26 : 22;
    uint32_t sum = PKT_PROTO_TCP + len - l4;

    for (uint32_t i = addrs; i < l4; i += 2)
        sum += load_be16(p + i);
    return slow_sum(p + l4, len - l4, sum);
}

static void test_sum(void)
{
    uint8_t data[4099];

    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)g_test_rand_int();
    for (uint32_t len = 0; len < 70; len++)
        g_assert_cmphex(pkt_fold(pkt_sum(data + 1, len, 5)), ==, slow_sum(data + 1, len, 5));
    g_assert_cmphex(pkt_fold(pkt_sum(data, sizeof data, 0)), ==, slow_sum(data, sizeof data, 0));
    memset(data, 0xff, sizeof data);
    g_assert_cmphex(pkt_fold(pkt_sum(data, 4096, 0)), ==, slow_sum(data, 4096, 0));
}

static void test_parse(void)
{
    uint8_t p[256];
    PktInfo info;
    uint32_t len = make_tcp(p, 4, 10, PKT_TCP_ACK);

    g_assert_true(pkt_parse(p, len, &info));
    g_assert_cmpuint(info.ip_version, ==, 4);
    g_assert_cmpuint(info.l4_off, ==, 34);
    g_assert_cmpuint(info.payload_off, ==, HEADERS4);
    /* Every cut is seen: below the IP header an error, below TCP's no transport. */
    for (uint32_t cut = 0; cut < len; cut++) {
        uint8_t *tight = g_memdup2(p, cut);
        bool ok = pkt_parse(tight, cut, &info);
        g_assert_cmpint(ok, ==, cut >= 34);
        g_assert_cmpint(info.l4_off != 0, ==, cut >= HEADERS4);
        g_free(tight);
    }
    p[14] = 0x44; /* header length below 20 */
    g_assert_false(pkt_parse(p, len, &info));
    p[14] = 0x65; /* not version 4 */
    g_assert_false(pkt_parse(p, len, &info));
    p[14] = 0x45;
    p[46] = 4 << 4; /* TCP header below 20 */
    g_assert_true(pkt_parse(p, len, &info));
    g_assert_cmpuint(info.l4_off, ==, 0);
    p[46] = 5 << 4;
    store_be16(p + 20, 0x2000);
    g_assert_true(pkt_parse(p, len, &info));
    g_assert_true(info.fragment);
    g_assert_cmpuint(info.l4_off, ==, 0);
}

static void test_parse_tags_and_extensions(void)
{
    uint8_t p[300], q[300];
    PktInfo info;
    uint32_t len = make_tcp(p, 6, 4, 0);

    memcpy(q, p, 12);
    store_be16(q + 12, PKT_TYPE_QINQ);
    store_be16(q + 14, 5);
    store_be16(q + 16, PKT_TYPE_VLAN);
    store_be16(q + 18, 6);
    memcpy(q + 20, p + 12, len - 12);
    g_assert_true(pkt_parse(q, len + 8, &info));
    g_assert_cmpuint(info.ethertype, ==, PKT_TYPE_IP6);
    g_assert_cmpuint(info.payload_off, ==, HEADERS6 + 8);
    g_assert_false(pkt_parse(q, 18, &info));

    /* A destination options header of 8 bytes before TCP. */
    memcpy(q, p, 54);
    q[20] = 60;
    memset(q + 54, 0, 8);
    q[54] = PKT_PROTO_TCP;
    memcpy(q + 62, p + 54, len - 54);
    g_assert_true(pkt_parse(q, len + 8, &info));
    g_assert_cmpuint(info.l4_off, ==, 62);
    q[55] = 255; /* longer than the frame */
    g_assert_false(pkt_parse(q, len + 8, &info));
    q[55] = 0;
    q[20] = q[54] = 43; /* an endless chain of routing headers */
    memset(q + 54, 43, 200);
    for (int i = 0; i < 25; i++)
        q[55 + i * 8] = 0;
    g_assert_false(pkt_parse(q, 254, &info));
}

static void test_gather(void)
{
    uint8_t a[3] = {1, 2, 3}, b[2] = {4, 5}, out[8];
    struct iovec iov[3] = {{a, 3}, {NULL, 0}, {b, 2}};
    NetFrame f = {.iov = iov, .niov = 3, .len = 5};

    g_assert_true(pkt_gather(&f, 2, out, 3));
    g_assert_cmpmem(out, 3, "\3\4\5", 3);
    g_assert_true(pkt_gather(&f, 5, out, 0));
    g_assert_false(pkt_gather(&f, 3, out, 3));
    f.len = 8; /* a length that the vectors do not have */
    g_assert_false(pkt_gather(&f, 0, out, 8));
    g_assert_cmpmem(out, 8, "\0\0\0\0\0\0\0\0", 8);
}

static void test_csum(void)
{
    uint8_t p[256];
    uint32_t len = make_tcp(p, 4, 33, PKT_TCP_ACK);
    uint32_t pseudo = PKT_PROTO_TCP + len - 34;

    for (int i = 26; i < 34; i += 2)
        pseudo += load_be16(p + i);
    store_be16(p + 50, (uint16_t)~pkt_fold(pseudo));
    g_assert_true(pkt_finish_csum(p, len, 34, 16));
    g_assert_cmphex(tcp_residue(p, len, 4), ==, 0);
    g_assert_false(pkt_finish_csum(p, len, (uint16_t)(len - 17), 16));
    g_assert_false(pkt_finish_csum(p, len, 0xffff, 0xffff));
    g_assert_false(pkt_finish_csum(p, 0, 0, 0));
}

static void test_urgent(void)
{
    uint8_t p[256];
    PktInfo info;
    uint32_t len = make_tcp(p, 4, 20, PKT_TCP_ACK | PKT_TCP_URG);

    store_be16(p + 52, 0xbeef);
    store_be16(p + 50, tcp_residue(p, len, 4));
    g_assert_cmphex(tcp_residue(p, len, 4), ==, 0);
    g_assert_true(pkt_parse(p, len, &info));
    g_assert_true(pkt_clear_urgent(p, &info));
    g_assert_cmphex(p[47], ==, PKT_TCP_ACK);
    g_assert_cmphex(load_be16(p + 52), ==, 0);
    g_assert_cmphex(tcp_residue(p, len, 4), ==, 0);
    g_assert_false(pkt_clear_urgent(p, &info));
}

static void check_segments(int version, uint32_t payload, uint16_t mss)
{
    static uint8_t p[NET_FRAME_MAX], out[NET_FRAME_MAX];
    const uint8_t flags = PKT_TCP_CWR | PKT_TCP_ACK | PKT_TCP_PSH | PKT_TCP_FIN;
    uint32_t len = make_tcp(p, version, payload, flags), headers = len - payload, seen = 0;
    struct iovec iov[2] = {{p, 60}, {p + 60, len - 60}};
    NetFrame f = {.iov = iov, .niov = 2, .len = len, .gso_size = mss,
                  .gso = version == 4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6,
                  .flags = NET_FRAME_NEEDS_CSUM};
    PktSegmenter s;

    g_assert_true(pkt_seg_begin(&s, &f));
    g_assert_cmpuint(s.count, ==, payload ? (payload + mss - 1) / mss : 1);
    for (uint32_t i = 0; i < s.count; i++) {
        uint32_t n = pkt_seg_len(&s, i), l4 = headers - 20;
        g_assert_cmpuint(n, <=, headers + mss);
        pkt_seg_write(&s, i, out);
        g_assert_cmphex(tcp_residue(out, n, version), ==, 0);
        if (version == 4) {
            g_assert_cmphex(slow_sum(out + 14, 20, 0), ==, 0);
            g_assert_cmpuint(load_be16(out + 16), ==, n - 14);
            g_assert_cmpuint(load_be16(out + 18), ==, 0x1234 + i);
        } else {
            g_assert_cmpuint(load_be16(out + 18), ==, n - 54);
        }
        g_assert_cmphex(load_be32(out + l4 + 4), ==, 0xfffffff0 + seen);
        g_assert_cmpmem(out + headers, n - headers, p + headers + seen, n - headers);
        g_assert_cmpint(!!(out[l4 + 13] & PKT_TCP_CWR), ==, i == 0);
        g_assert_cmpint(!!(out[l4 + 13] & PKT_TCP_FIN), ==, i == s.count - 1);
        g_assert_cmpint(!!(out[l4 + 13] & PKT_TCP_PSH), ==, i == s.count - 1);
        seen += n - headers;
    }
    g_assert_cmpuint(seen, ==, payload);
}

static void test_segments(void)
{
    check_segments(4, 4000, 1448);
    check_segments(4, 1448, 1448);
    check_segments(4, 65400, 536);
    check_segments(6, 10001, 1428);
    check_segments(6, 1, 1);
    check_segments(4, 0, 100);
}

/* Datagrams of UDP in one frame: each with lengths and checksum of its own. */
static void test_datagrams(void)
{
    static uint8_t p[9000], out[9000];

    for (int version = 4; version <= 6; version += 2) {
        uint32_t l4 = version == 4 ? 34 : 54, len = l4 + 8 + 5000, seen = 0;
        struct iovec iov[2] = {{p, 40}, {p + 40, len - 40}};
        NetFrame f = {.iov = iov, .niov = 2, .len = len, .gso_size = 1200, .gso = NET_GSO_UDP,
                      .flags = NET_FRAME_NEEDS_CSUM};
        PktSegmenter s;
        (void)make_tcp(p, version, 5000, 0); /* the headers up to the transport's */
        p[version == 4 ? 23 : 20] = PKT_PROTO_UDP;
        store_be16(p + l4, 1000);
        store_be16(p + l4 + 2, 53);
        for (uint32_t i = l4 + 8; i < len; i++)
            p[i] = (uint8_t)(i * 5);
        g_assert_true(pkt_seg_begin(&s, &f));
        g_assert_cmpuint(s.count, ==, 5);
        for (uint32_t i = 0; i < s.count; i++) {
            uint32_t n = pkt_seg_len(&s, i), part = n - l4 - 8;
            g_assert_cmpuint(part, ==, i < 4 ? 1200 : 200);
            pkt_seg_write(&s, i, out);
            g_assert_cmpuint(load_be16(out + l4), ==, 1000);
            g_assert_cmpuint(load_be16(out + l4 + 4), ==, part + 8);
            g_assert_cmpuint(load_be16(out + (version == 4 ? 16 : 18)), ==,
                             version == 4 ? n - 14 : part + 8);
            uint32_t sum = PKT_PROTO_UDP + part + 8;
            for (uint32_t k = version == 4 ? 26 : 22; k < n - (n & 1); k += 2)
                sum += load_be16(out + k);
            while (sum >> 16)
                sum = (sum & 0xffff) + (sum >> 16);
            g_assert_cmphex(sum, ==, 0xffff);
            g_assert_cmpmem(out + l4 + 8, part, p + l4 + 8 + seen, part);
            seen += part;
        }
        g_assert_cmpuint(seen, ==, 5000);
        f.gso = version == 4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6;
        g_assert_false(pkt_seg_begin(&s, &f));
        f.gso = NET_GSO_UDP;
        p[version == 4 ? 23 : 20] = PKT_PROTO_TCP;
        g_assert_false(pkt_seg_begin(&s, &f));
        p[12] = 0x08;
        p[13] = 0x06;
        g_assert_false(pkt_seg_begin(&s, &f));
    }
}

static void test_segments_refused(void)
{
    uint8_t p[256];
    uint32_t len = make_tcp(p, 4, 100, 0);
    struct iovec iov = {p, len};
    NetFrame f = {.iov = &iov, .niov = 1, .len = len, .gso_size = 50, .gso = NET_GSO_TCPV6};
    PktSegmenter s;

    g_assert_false(pkt_seg_begin(&s, &f)); /* IPv4 that says it is IPv6 */
    f.gso = NET_GSO_TCPV4;
    g_assert_true(pkt_seg_begin(&s, &f));
    f.gso_size = 0;
    g_assert_false(pkt_seg_begin(&s, &f));
    f.gso_size = 50;
    p[23] = PKT_PROTO_UDP;
    g_assert_false(pkt_seg_begin(&s, &f));
    f.len = 20;
    g_assert_false(pkt_seg_begin(&s, &f));
}

/* ---- for an end that takes long segments ---- */

enum { MSS_AT = 14 + 20 + 20, MSS_LONG = 65460 };

/* A SYN over IPv4 with these options, its checksum right. */
static uint32_t make_syn(uint8_t *p, const char *options, uint32_t n, uint8_t flags, PktInfo *info)
{
    uint32_t len = make_tcp(p, 4, n, flags);

    memcpy(p + MSS_AT, options, n);
    p[14 + 20 + 12] = (uint8_t)((20 + n) / 4 << 4);
    store_be16(p + 14 + 20 + PKT_TCP_CSUM, 0);
    store_be16(p + 14 + 20 + PKT_TCP_CSUM, tcp_residue(p, len, 4));
    g_assert_true(pkt_parse(p, len, info));
    g_assert_cmphex(tcp_residue(p, len, 4), ==, 0);
    return len;
}

static void test_raise_mss(void)
{
    static const struct {
        const char *options;
        uint32_t n, mss; /* where the MSS is behind the header; 0: nothing is changed */
        uint8_t flags;
    } syn[] = {
        {"\2\4\x05\xb4", 4, 2, PKT_TCP_SYN},
        {"\1\2\4\x05\xb4\1\1\1", 8, 3, PKT_TCP_SYN | PKT_TCP_ACK},
        {"\3\3\7\2\4\x05\xb5\0", 8, 5, PKT_TCP_SYN},
        {"\2\4\x05\xb3", 4, 0, PKT_TCP_SYN},         /* less than ordinary */
        {"\2\4\xff\xb4", 4, 0, PKT_TCP_SYN},         /* more than is offered */
        {"\2\4\x05\xb4", 4, 0, PKT_TCP_ACK},
        {"\0\2\4\x05\xb4\0\0\0", 8, 0, PKT_TCP_SYN}, /* behind the end */
        {"\3\0\2\4", 4, 0, PKT_TCP_SYN},             /* an option of no length */
        {"\3\1\2\4", 4, 0, PKT_TCP_SYN},
        {"\3\x7f\2\4", 4, 0, PKT_TCP_SYN},           /* one that is cut short */
        {"\2\3\5\xb4", 4, 0, PKT_TCP_SYN},
        {"\1\1\1\2", 4, 0, PKT_TCP_SYN},
        {"", 0, 0, PKT_TCP_SYN},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(syn); i++) {
        uint8_t p[128], was[128];
        PktInfo info;
        uint32_t len = make_syn(p, syn[i].options, syn[i].n, syn[i].flags, &info);
        memcpy(was, p, len);
        g_assert_cmpint(pkt_raise_mss(p, &info, 1460, MSS_LONG), ==, syn[i].mss != 0);
        g_assert_cmphex(tcp_residue(p, len, 4), ==, 0);
        if (syn[i].mss)
            g_assert_cmpuint(load_be16(p + MSS_AT + syn[i].mss), ==, MSS_LONG);
        else
            g_assert_cmpmem(p, len, was, len);
    }
}

static void test_whole(void)
{
    g_autofree uint8_t *p = g_malloc(70000), *to = g_malloc(70000);

    for (int version = 4; version <= 6; version += 2) {
        uint32_t len = make_tcp(p, version, 50000, PKT_TCP_ACK | PKT_TCP_PSH);
        struct iovec iov[2] = {{p, 1000}, {p + 1000, len - 1000}};
        NetFrame f = {.iov = iov, .niov = 2, .len = len, .gso_size = 1460,
                      .gso = version == 4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6};
        uint32_t l4 = version == 4 ? 34 : 54;
        g_assert_cmpuint(pkt_seg_whole(&f, to), ==, len);
        g_assert_cmphex(tcp_residue(to, len, version), ==, 0);
        g_assert_cmpuint(version == 4 ? load_be16(to + 16) + 14u : load_be16(to + 18) + 54u, ==, len);
        g_assert_cmpmem(to + l4 + 20, 50000, p + l4 + 20, 50000);
        g_assert_cmphex(to[l4 + 13], ==, PKT_TCP_ACK | PKT_TCP_PSH);
        PktInfo info;
        g_assert_true(pkt_parse(to, len, &info));
        /* The sum of the pseudo header is what finishing starts from. */
        store_be16(to + l4 + PKT_TCP_CSUM, pkt_pseudo_sum(to, &info, len - l4));
        g_assert_true(pkt_finish_csum(to, len, (uint16_t)l4, PKT_TCP_CSUM));
        g_assert_cmphex(tcp_residue(to, len, version), ==, 0);
        f.gso_size = 0;
        g_assert_cmpuint(pkt_seg_whole(&f, to), ==, 0);
        f.gso_size = 1460;
        f.gso = NET_GSO_NONE;
        g_assert_cmpuint(pkt_seg_whole(&f, to), ==, 0);
    }
    uint32_t len = make_tcp(p, 4, 65535 - 40 + 1, PKT_TCP_ACK); /* one more than IP can say */
    struct iovec iov = {p, len};
    NetFrame f = {.iov = &iov, .niov = 1, .len = len, .gso_size = 1460, .gso = NET_GSO_TCPV4};
    g_assert_cmpuint(pkt_seg_whole(&f, to), ==, 0);
    f.len = (uint32_t)(iov.iov_len -= 1);
    g_assert_cmpuint(pkt_seg_whole(&f, to), ==, f.len);
}

static void test_fragments(void)
{
    enum { SIZE = 14 + 20 + 4001, MTU = 1500, STEP = 1480 };
    uint8_t p[SIZE + 6], head[PKT_HEADERS_MAX], got[4001];
    PktInfo info;
    PktFragmenter s;

    memset(p, 0, sizeof p);
    store_be16(p + 12, PKT_TYPE_IP4);
    p[14] = 0x45;
    store_be16(p + 16, SIZE - 14);
    store_be16(p + 18, 77);
    p[22] = 64;
    p[23] = 1; /* ICMP */
    for (uint32_t i = 34; i < SIZE; i++)
        p[i] = (uint8_t)(i * 3);
    for (int more = 0; more < 2; more++) { /* also one that is a fragment itself */
        store_be16(p + 20, more ? 0x2000 | 16 : 0);
        g_assert_true(pkt_parse(p, sizeof p, &info));
        g_assert_true(pkt_frag_begin(&s, p, sizeof p, &info, MTU)); /* not the padding */
        g_assert_cmpuint(s.count, ==, 3);
        for (uint32_t i = 0; i < s.count; i++) {
            struct iovec body = pkt_frag_get(&s, i, head);
            uint16_t where = load_be16(head + 20);
            g_assert_cmpuint(s.header_len, ==, 34);
            g_assert_cmpuint(load_be16(head + 16), ==, 20 + body.iov_len);
            g_assert_cmpuint(load_be16(head + 16), <=, MTU);
            g_assert_cmphex(slow_sum(head + 14, 20, 0), ==, 0);
            g_assert_cmpuint(load_be16(head + 18), ==, 77);
            g_assert_cmpuint((where & 0x1fff) * 8u, ==, i * STEP + (more ? 128 : 0));
            g_assert_cmpint(!!(where & 0x2000), ==, i < 2 || more);
            memcpy(got + i * STEP, body.iov_base, body.iov_len);
        }
        g_assert_cmpmem(got, sizeof got, p + 34, sizeof got);
    }
    g_assert_false(pkt_frag_begin(&s, p, sizeof p, &info, 27)); /* no room for 8 bytes */
    g_assert_true(pkt_frag_begin(&s, p, sizeof p, &info, 28));
    g_assert_false(pkt_frag_begin(&s, p, SIZE - 1, &info, MTU));
    store_be16(p + 16, 20);
    g_assert_false(pkt_frag_begin(&s, p, sizeof p, &info, MTU));
    info.ip_version = 6;
    g_assert_false(pkt_frag_begin(&s, p, sizeof p, &info, MTU));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/pkt/sum", test_sum);
    g_test_add_func("/pkt/parse", test_parse);
    g_test_add_func("/pkt/parse/tags-and-extensions", test_parse_tags_and_extensions);
    g_test_add_func("/pkt/gather", test_gather);
    g_test_add_func("/pkt/csum", test_csum);
    g_test_add_func("/pkt/urgent", test_urgent);
    g_test_add_func("/pkt/segments", test_segments);
    g_test_add_func("/pkt/datagrams", test_datagrams);
    g_test_add_func("/pkt/segments/refused", test_segments_refused);
    g_test_add_func("/pkt/raise-mss", test_raise_mss);
    g_test_add_func("/pkt/whole", test_whole);
    g_test_add_func("/pkt/fragments", test_fragments);
    return g_test_run();
}
