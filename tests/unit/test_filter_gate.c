/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rules at work: the gate in the wire between a card and its network. */
#include <string.h>

#include "lodge/error.h"
#include "filter.h"
#include "filter_frames.h"
#include "pkt.h"
#include "wire.h"

typedef struct Sink {
    NetPort port;
    unsigned frames, room;
    uint8_t last[FRAME];
    uint32_t len;
    uint8_t *spoil; /* the sender's memory: changed while the frame is on its way */
} Sink;

static bool sink_deliver(NetPort *port, const NetFrame *f)
{
    Sink *s = port->opaque;

    if (!s->room)
        return false;
    s->room--;
    if (s->spoil)
        memset(s->spoil, 0xee, 40);
    s->frames++;
    s->len = f->len;
    g_assert_true(pkt_gather(f, 0, s->last, f->len));
    return true;
}

static const NetPortOps sink_ops = {.deliver = sink_deliver, .offloads = NET_OFF_CSUM};

typedef struct Pair {
    Sink card, host;
    NetBackend be;
} Pair;

static void pair_open_streams(Pair *p, unsigned streams)
{
    g_autoptr(GError) error = NULL;

    memset(p, 0, sizeof *p);
    p->card.port = (NetPort){.ops = &sink_ops, .name = "card", .opaque = &p->card};
    memcpy(p->card.port.mac, guest_mac, 6);
    p->be.gate = net_gate_new(streams);
    p->host.port = (NetPort){.ops = &sink_ops, .name = "host", .opaque = &p->host,
                             .gate = p->be.gate};
    p->be.port = &p->host.port;
    p->card.room = p->host.room = 1000;
    p->card.port.offloads = p->host.port.offloads = NET_OFF_CSUM;
    g_assert_true(net_join(&p->card.port, &p->host.port, &error));
}

static void pair_open(Pair *p)
{
    pair_open_streams(p, 1);
}

static void pair_close(Pair *p)
{
    net_part(&p->card.port);
    net_gate_free(p->be.gate);
}

static void force(Pair *p, const char *text)
{
    g_autoptr(GError) error = NULL;

    net_backend_filter(&p->be, "rules", text, text ? strlen(text) : 0, &error);
    g_assert_no_error(error);
}

static unsigned send(NetPort *from, Made *m, unsigned copies)
{
    NetFrame f[40];
    struct iovec iov[2] = {{m->d, 10}, {m->d + 10, m->len - 10}};

    for (unsigned i = 0; i < copies; i++) {
        f[i] = m->f;
        f[i].iov = iov;
        f[i].niov = 2;
        f[i].len = m->len;
    }
    return net_send(from, f, copies);
}

static const NetFilterRow *row_of(const NetFilterInfo *i, const char *text)
{
    for (unsigned k = 0; k < i->rows; k++) {
        if (!strcmp(i->row[k].text, text))
            return &i->row[k];
    }
    g_assert_not_reached();
}

/* Two streams with one gate: each direction of each is judged in memory of its own. */
static void test_streams(void)
{
    Pair p, q;
    Made m;

    memset(&q, 0, sizeof q);
    pair_open_streams(&p, 2);
    q.card.port = (NetPort){.ops = &sink_ops, .name = "card", .opaque = &q.card};
    q.host.port = (NetPort){.ops = &sink_ops, .name = "host", .opaque = &q.host, .gate = p.be.gate,
                            .stream = 1};
    q.card.room = q.host.room = 1000;
    p.host.port.next = &q.host.port;
    g_assert_true(net_join(&q.card.port, &q.host.port, NULL));
    ether(&m, 0x0800);
    ip4(&m, 17, 0, 1000);
    udp(&m, 1, 53);
    for (unsigned i = 0; i < 992; i++)
        m.d[m.len++] = (uint8_t)i;
    force(&p, "allow out udp to port 53\ndefault deny");
    g_assert_cmpuint(send(&p.card.port, &m, 3), ==, 3);
    g_assert_cmpuint(send(&q.card.port, &m, 4), ==, 4);
    g_assert_cmpuint(send(&q.host.port, &m, 5), ==, 5);
    g_assert_cmpuint(p.host.frames, ==, 3);
    g_assert_cmpuint(q.host.frames, ==, 4);
    g_assert_cmpuint(q.card.frames, ==, 0);
    g_autoptr(NetFilterInfo) info = net_backend_filter_info(&p.be);
    g_assert_cmpuint(row_of(info, "allow out udp to port 53")->frames, ==, 7);
    g_assert_cmpuint(net_gate_refused(p.be.gate), ==, 5);
    NetStats s;
    net_backend_stats(&p.be, &s);
    g_assert_cmpuint(s.tx_frames, ==, 7);
    net_backend_cut(&p.be, true);
    g_assert_false(net_peer_link(&p.card.port) || net_peer_link(&q.card.port));
    net_part(&q.card.port);
    pair_close(&p);
}

static void test_gate(void)
{
    Pair p;
    Made m;

    pair_open(&p);
    ether(&m, 0x0800);
    ip4(&m, 17, 0, 1000);
    udp(&m, 1, 53);
    for (unsigned i = 0; i < 992; i++)
        m.d[m.len++] = (uint8_t)i;
    g_assert_cmpuint(send(&p.card.port, &m, 3), ==, 3);
    g_assert_cmpuint(p.host.frames, ==, 3);
    g_assert_null(net_backend_filter_info(&p.be));
    force(&p, "allow out udp to port 53\nallow in tcp\ndefault deny");
    g_assert_cmpuint(send(&p.card.port, &m, 40), ==, 40);
    g_assert_cmpuint(p.host.frames, ==, 43);
    g_assert_cmpmem(p.host.last, p.host.len, m.d, m.len);
    g_assert_cmpuint(send(&p.host.port, &m, 5), ==, 5);
    g_assert_cmpuint(p.card.frames, ==, 0);
    g_autoptr(NetFilterInfo) info = net_backend_filter_info(&p.be);
    g_assert_cmpstr(info->name, ==, "rules");
    g_assert_cmpuint(row_of(info, "allow out udp to port 53")->frames, ==, 40);
    g_assert_cmpuint(row_of(info, "allow out udp to port 53")->bytes, ==, 40 * m.len);
    g_assert_cmpuint(row_of(info, "allow out udp to port 53")->line, ==, 1);
    g_assert_cmpuint(row_of(info, "allow in tcp")->frames, ==, 0);
    g_assert_cmpuint(row_of(info, "default deny in")->frames, ==, 5);
    g_assert_cmpuint(row_of(info, "default deny out")->frames, ==, 0);
    g_assert_cmpuint(net_gate_refused(p.be.gate), ==, 5);
    /* A wrong text changes nothing; none lets all pass. */
    g_autoptr(GError) error = NULL;
    g_assert_false(net_backend_filter(&p.be, "x", "what", 4, &error));
    g_assert_cmpuint(send(&p.host.port, &m, 1), ==, 1);
    g_assert_cmpuint(p.card.frames, ==, 0);
    force(&p, NULL);
    g_assert_cmpuint(send(&p.host.port, &m, 1), ==, 1);
    g_assert_cmpuint(p.card.frames, ==, 1);
    pair_close(&p);
}

/* What is sent is what was looked at, whatever the guest does to its memory meanwhile. */
static void test_gate_copies(void)
{
    Pair p;
    Made m;

    pair_open(&p);
    force(&p, "allow udp to port 53\ndefault deny");
    ether(&m, 0x0800);
    ip4(&m, 17, 0, 8);
    udp(&m, 1, 53);
    Made was = m;
    p.host.spoil = m.d;
    g_assert_cmpuint(send(&p.card.port, &m, 1), ==, 1);
    g_assert_cmpmem(p.host.last, p.host.len, was.d, was.len);
    g_assert_cmpuint(m.d[0], ==, 0xee);
    pair_close(&p);
}

/* Frames that come again count once, and keep their order with those that are refused. */
static void test_gate_full(void)
{
    Pair p;
    Made m;

    pair_open(&p);
    force(&p, "deny arp\ndefault allow");
    ether(&m, 0x0800);
    ip4(&m, 17, 0, 1480);
    m.len += 1480;
    p.host.room = 7;
    unsigned taken = 0, calls = 0;
    for (unsigned n = 40; n == 40 && calls < 100; calls++, taken += n)
        n = send(&p.card.port, &m, 40);
    g_assert_cmpuint(calls, <, 100); /* the wire's ring is full */
    g_autoptr(NetFilterInfo) info = net_backend_filter_info(&p.be);
    g_assert_cmpuint(row_of(info, "default allow out")->frames, ==, taken);
    g_assert_cmpuint(send(&p.card.port, &m, 5), ==, 0);
    g_autoptr(NetFilterInfo) same = net_backend_filter_info(&p.be);
    g_assert_cmpuint(row_of(same, "default allow out")->frames, ==, taken);
    p.host.room = 10000;
    net_rx_ready(&p.host.port);
    g_assert_cmpuint(p.host.frames, ==, taken);
    pair_close(&p);
}

/* Refused ones among others, and frames of many pieces. */
static void test_gate_mixed(void)
{
    Pair p;
    Made ok, no;
    NetFrame f[30];
    struct iovec a, b, *many = g_new0(struct iovec, 3000);

    pair_open(&p);
    force(&p, "deny arp\ndefault allow");
    ether(&ok, 0x0800);
    ip4(&ok, 17, 0, 600);
    ok.len += 600;
    ether(&no, 0x0806);
    a = (struct iovec){ok.d, ok.len};
    b = (struct iovec){no.d, no.len};
    for (unsigned i = 0; i < 30; i++)
        f[i] = (NetFrame){.iov = i % 3 == 1 ? &b : &a, .niov = 1, .len = i % 3 == 1 ? no.len : ok.len};
    g_assert_cmpuint(net_send(&p.card.port, f, 30), ==, 30);
    g_assert_cmpuint(p.host.frames, ==, 20);
    g_assert_cmpuint(net_gate_refused(p.be.gate), ==, 10);
    for (unsigned i = 0; i < ok.len; i++)
        many[i] = (struct iovec){ok.d + i, 1};
    for (unsigned i = 0; i < 30; i++)
        f[i] = (NetFrame){.iov = many, .niov = 1500, .len = ok.len};
    memset(p.host.last, 0, sizeof p.host.last);
    g_assert_cmpuint(net_send(&p.card.port, f, 30), ==, 30);
    g_assert_cmpuint(p.host.frames, ==, 50);
    g_assert_cmpmem(p.host.last, p.host.len, ok.d, ok.len);
    f[0].niov = 3000;
    g_assert_cmpuint(net_send(&p.card.port, f, 1), ==, 1);
    g_assert_cmpuint(p.host.frames, ==, 50);
    g_free(many);
    pair_close(&p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/filter-gate/counts", test_gate);
    g_test_add_func("/filter-gate/streams", test_streams);
    g_test_add_func("/filter-gate/copies", test_gate_copies);
    g_test_add_func("/filter-gate/full", test_gate_full);
    g_test_add_func("/filter-gate/mixed", test_gate_mixed);
    return g_test_run();
}
