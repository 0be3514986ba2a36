/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The forwarding half of the switch: what goes where, in which form, and what is bounded. */
#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "pkt.h"
#include "switch.h"

enum { PORTS = 5, BODY = 46, ROOM = 128 };

typedef struct TestPort {
    SwPort p;
    unsigned got;
    SwOut answer;
    uint32_t len; /* of the last frame */
    uint8_t last[ROOM];
    uint16_t csum_start;
    bool may_hold; /* as it was last told */
} TestPort;

typedef struct Fix {
    Switch *sw;
    TestPort port[PORTS + 1]; /* by number */
    unsigned events;
    char *event;
} Fix;

static SwOut test_output(SwPort *p, const NetFrame *f, bool may_hold)
{
    TestPort *t = (TestPort *)p;

    t->may_hold = may_hold;
    if (t->answer != SW_SENT)
        return t->answer;
    g_assert_cmpuint(f->len, <=, ROOM);
    g_assert_true(pkt_gather(f, 0, t->last, f->len));
    t->len = f->len;
    t->csum_start = f->csum_start;
    t->got++;
    return SW_SENT;
}

static const SwPortOps test_ops = {.kind = "test", .output = test_output};

static void on_event(void *opaque, const char *text)
{
    Fix *x = opaque;

    x->events++;
    g_free(x->event);
    x->event = g_strdup(text);
}

static void fix_open(Fix *x, SwConfig config, const char *const *vlans)
{
    *x = (Fix){0};
    config.event = on_event;
    config.opaque = x;
    if (!config.age_s)
        config.age_s = SW_AGE_DEFAULT;
    x->sw = switch_new(&config);
    for (unsigned i = 1; i <= PORTS; i++) {
        SwVlan v = {0};

        if (vlans && vlans[i - 1])
            g_assert_true(sw_vlan_parse(vlans[i - 1], &v, NULL));
        x->port[i].p.ops = &test_ops;
        x->port[i].p.may_hold = true;
        g_assert_true(switch_plug(x->sw, &x->port[i].p, i, "t", &v, NULL));
    }
}

static void fix_close(Fix *x)
{
    for (unsigned i = 1; i <= PORTS; i++)
        switch_unplug(&x->port[i].p);
    switch_free(x->sw);
    g_free(x->event);
}

/* A frame; @tag -1: none. Return: its length. */
static uint32_t make(uint8_t *to, const uint8_t *dst, const uint8_t *src, int tag)
{
    uint8_t *p = to;

    memset(to, 0x5a, ROOM);
    memcpy(p, dst, 6);
    memcpy(p + 6, src, 6);
    p += 12;
    if (tag >= 0) {
        store_be16(p, PKT_TYPE_VLAN);
        store_be16(p + 2, (uint16_t)tag);
        p += 4;
    }
    store_be16(p, 0x88b5);
    return (uint32_t)(p + 2 - to) + BODY;
}

static bool put(Fix *x, unsigned in, const uint8_t *data, uint32_t len, int64_t now)
{
    uint32_t head = MIN(len, SW_HEAD);
    struct iovec iov[2] = {{(void *)data, head}, {(void *)(data + head), len - head}};
    NetFrame f = {.iov = iov, .niov = len > head ? 2 : 1, .len = len};

    return switch_input(&x->port[in].p, &f, now);
}

static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static void mac_of(unsigned host, uint8_t mac[6])
{
    const uint8_t m[6] = {0x02, 0, 0, 0, 0, (uint8_t)host};

    memcpy(mac, m, 6);
}

/* One frame from @in, and who gets it: a digit for each port, behind it 't' where it is tagged with
 * the VLAN that the step says, 'u' where it bears no tag. */
typedef struct Step {
    unsigned in;
    int tag;         /* -1: none */
    unsigned src;    /* host, the last byte of its address */
    unsigned dst;    /* 0: all */
    const char *who; /* "2u3t" */
    unsigned vid;    /* of the tags that come out */
} Step;

static void run_steps(Fix *x, const Step *steps)
{
    for (const Step *s = steps; s->in; s++) {
        uint8_t data[ROOM], src[6], dst[6];
        char who[2 * PORTS + 1] = "";

        mac_of(s->src, src);
        mac_of(s->dst, dst);
        uint32_t len = make(data, s->dst ? dst : all, src, s->tag);
        for (unsigned i = 1; i <= PORTS; i++)
            x->port[i].got = 0;
        g_assert_true(put(x, s->in, data, len, 1000));
        for (unsigned i = 1; i <= PORTS; i++) {
            TestPort *t = &x->port[i];
            bool tagged = load_be16(t->last + 12) == PKT_TYPE_VLAN;

            g_assert_cmpuint(t->got, <=, 1);
            if (!t->got)
                continue;
            g_snprintf(who + strlen(who), sizeof who - strlen(who), "%u%c", i, tagged ? 't' : 'u');
            if (tagged)
                g_assert_cmpuint(load_be16(t->last + 14) & 0xfff, ==, s->vid);
            /* All but the tag is as it was. */
            g_assert_cmpuint(t->len - (tagged ? 4 : 0), ==, len - (s->tag >= 0 ? 4 : 0));
            g_assert_cmpmem(t->last, 12, data, 12);
            g_assert_cmpmem(t->last + (tagged ? 16 : 12), 2 + BODY,
                            data + (s->tag >= 0 ? 16 : 12), 2 + BODY);
        }
        if (strcmp(who, s->who))
            g_test_message("step %d: got %s", (int)(s - steps), who);
        g_assert_cmpstr(who, ==, s->who);
    }
}

static void test_learning(void)
{
    static const Step steps[] = {
        {1, -1, 1, 2, "2u3u4u5u", 0}, /* 2 is not known */
        {2, -1, 2, 1, "1u", 0},
        {1, -1, 1, 2, "2u", 0},
        {1, -1, 1, 0, "2u3u4u5u", 0},
        {3, -1, 2, 1, "1u", 0}, /* 2 moved */
        {1, -1, 1, 2, "3u", 0},
        {3, -1, 9, 2, "", 0},   /* lives where it came from */
        {4, 7, 4, 1, "1t", 7},  /* tags are payload */
        {0},
    };
    Fix x;

    fix_open(&x, (SwConfig){0}, NULL);
    run_steps(&x, steps);
    g_assert_cmpuint(x.port[3].p.drops[SW_DROP_LOCAL], ==, 1);
    g_assert_cmpuint(switch_macs(x.sw), ==, 4);
    g_assert_cmpuint(x.port[1].p.rx_frames, ==, 4);
    g_assert_cmpuint(x.port[1].p.tx_frames, ==, 3);
    switch_unplug(&x.port[3].p); /* with what was learnt there */
    g_assert_cmpuint(switch_macs(x.sw), ==, 2);
    g_assert_true(switch_plug(x.sw, &x.port[3].p, 3, "t", NULL, NULL));
    static const Step after[] = {{1, -1, 1, 2, "2u3u4u5u", 0}, {0}};
    run_steps(&x, after);
    fix_close(&x);
}

static void test_hub(void)
{
    static const Step steps[] = {
        {1, -1, 1, 2, "2u3u4u5u", 0}, {2, -1, 2, 1, "1u3u4u5u", 0}, {1, -1, 1, 2, "2u3u4u5u", 0},
        {0},
    };
    Fix x;

    fix_open(&x, (SwConfig){.hub = true}, NULL);
    run_steps(&x, steps);
    fix_close(&x);
}

static void test_vlans(void)
{
    /* 1 and 2: VLAN 10; 3: VLAN 20; 4: trunk of 10 and 30; 5: plain */
    static const char *const vlans[PORTS] = {"10", "10", "20", "trunk:10+30", NULL};
    static const Step steps[] = {
        {1, -1, 1, 0, "2u4t", 10},
        {3, -1, 3, 0, "", 0},
        {4, 10, 4, 0, "1u2u", 0},
        {4, 20, 4, 0, "", 0},  /* not of the trunk */
        {4, 30, 4, 0, "", 0},  /* nobody else there */
        {4, -1, 4, 0, "5u", 0},
        {5, -1, 5, 0, "4u", 0},
        {5, 10, 5, 0, "", 0},  /* a guest's own tag leads into no VLAN */
        {1, 10, 1, 0, "", 0},  /* nor does it here */
        {1, 0x6000, 1, 0, "2u4t", 10}, /* a priority tag is none */
        {4, 10, 4, 1, "1u", 0},        /* known in VLAN 10 */
        {3, -1, 3, 1, "", 0},          /* and there only */
        {2, -1, 2, 4, "4t", 10},
        {0},
    };
    Fix x;

    fix_open(&x, (SwConfig){0}, vlans);
    run_steps(&x, steps);
    g_assert_cmpuint(x.port[4].p.drops[SW_DROP_VLAN], ==, 1);
    g_assert_cmpuint(x.port[1].p.drops[SW_DROP_VLAN], ==, 1);
    g_assert_cmpuint(load_be16(x.port[4].last + 14), ==, 10);
    fix_close(&x);
}

static void test_offsets(void)
{
    static const char *const vlans[PORTS] = {"10", "10", NULL, "trunk", NULL};
    uint8_t data[ROOM], src[6];
    Fix x;

    fix_open(&x, (SwConfig){0}, vlans);
    mac_of(1, src);
    uint32_t len = make(data, all, src, -1);
    struct iovec iov = {data, len};
    NetFrame f = {.iov = &iov, .niov = 1, .len = len, .flags = NET_FRAME_NEEDS_CSUM,
                  .csum_start = 34, .csum_off = 16};
    g_assert_true(switch_input(&x.port[1].p, &f, 0));
    g_assert_cmpuint(x.port[2].csum_start, ==, 34);
    g_assert_cmpuint(x.port[4].csum_start, ==, 38);
    len = make(data, all, src, 10);
    iov.iov_len = f.len = len;
    f.csum_start = 38;
    g_assert_true(switch_input(&x.port[4].p, &f, 0));
    g_assert_cmpuint(x.port[1].csum_start, ==, 34);
    f.csum_start = 15; /* in the tag that goes away */
    g_assert_true(switch_input(&x.port[4].p, &f, 0));
    g_assert_cmpuint(x.port[1].p.drops[SW_DROP_MALFORMED], ==, 1);
    fix_close(&x);
}

static void test_vlan_text(void)
{
    static const struct {
        const char *in, *out; /* out NULL: refused */
    } cases[] = {
        {"1", "1"}, {"4094", "4094"}, {"0", NULL}, {"4095", NULL}, {"", NULL}, {"10x", NULL},
        {"trunk", "trunk"}, {"trunk:10+20-29", "trunk:10+20-29"}, {"trunk:20+10", "trunk:10+20"},
        {"trunk:1-4094", "trunk"}, {"trunk:", NULL}, {"trunk:5-4", NULL}, {"trunk:5+", NULL},
        {"trunk5", NULL}, {"99999999999999999999", NULL}, {"-1", NULL},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        SwVlan v;
        bool ok = sw_vlan_parse(cases[i].in, &v, &error);

        g_test_message("%s", cases[i].in);
        g_assert_cmpint(ok, ==, !!cases[i].out);
        if (!ok) {
            g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
            continue;
        }
        g_autofree char *text = sw_vlan_text(&v);
        g_assert_cmpstr(text, ==, cases[i].out);
    }
}

static void test_plugging(void)
{
    g_autoptr(GError) error = NULL;
    SwVlan ten, twenty;
    TestPort more = {.p.ops = &test_ops}, extra = {.p.ops = &test_ops};
    Fix x;

    fix_open(&x, (SwConfig){.mirror = 6}, NULL);
    g_assert_true(sw_vlan_parse("10", &ten, NULL) && sw_vlan_parse("20", &twenty, NULL));
    g_assert_false(switch_plug(x.sw, &more.p, 3, "x", NULL, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
    g_assert_false(switch_plug(x.sw, &more.p, SW_PORTS_MAX + 1, "x", NULL, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    switch_set_vlan(x.sw, 7, &ten);
    g_assert_false(switch_plug(x.sw, &more.p, 7, "x", &twenty, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    /* What was settled, and the mirror, are for those who ask. */
    g_assert_true(switch_plug(x.sw, &more.p, 0, "a\033[2Jb", &twenty, NULL));
    g_assert_cmpuint(more.p.number, ==, 8);
    g_assert_cmpstr(more.p.name, ==, "a?[2Jb");
    g_assert_true(switch_plug(x.sw, &extra.p, 7, "x", &ten, NULL));
    switch_unplug(&extra.p);
    switch_unplug(&more.p);
    g_assert_cmpint(switch_vlan(x.sw, 7)->mode, ==, SW_ACCESS);
    g_assert_cmpint(switch_vlan(x.sw, 8)->mode, ==, SW_PLAIN);
    fix_close(&x);
}

static void test_mirror(void)
{
    static const Step steps[] = {
        {1, -1, 1, 0, "2u3u4u5u", 0}, /* once, though it is flooded anyway */
        {2, -1, 2, 1, "1u5u", 0},
        {5, -1, 5, 1, "1u", 0},
        {1, -1, 1, 5, "5u", 0},
        {0},
    };
    Fix x;

    fix_open(&x, (SwConfig){.mirror = 5}, NULL);
    run_steps(&x, steps);
    fix_close(&x);
}

static void test_ageing(void)
{
    uint8_t data[ROOM], one[6], two[6];
    Fix x;

    fix_open(&x, (SwConfig){.age_s = 10}, NULL);
    mac_of(1, one);
    mac_of(2, two);
    uint32_t len = make(data, all, one, -1);
    g_assert_true(put(&x, 1, data, len, 1000));
    len = make(data, one, two, -1);
    g_assert_true(put(&x, 2, data, len, 11000));
    g_assert_cmpuint(x.port[3].got, ==, 1); /* the broadcast only */
    g_assert_true(put(&x, 2, data, len, 12000));
    g_assert_cmpuint(x.port[3].got, ==, 2); /* forgotten: flooded */
    g_assert_cmpuint(switch_macs(x.sw), ==, 2);
    switch_age(x.sw, 12000);
    g_assert_cmpuint(switch_macs(x.sw), ==, 1);
    g_assert_cmpuint(x.port[1].p.macs, ==, 0);
    fix_close(&x);
}

/* 100,000 addresses from one port take their share of the table and push nobody out. */
static void test_many_macs(void)
{
    uint8_t data[ROOM], src[6], honest[6];
    Fix x;

    fix_open(&x, (SwConfig){0}, NULL);
    mac_of(77, honest);
    uint32_t len = make(data, all, honest, -1);
    g_assert_true(put(&x, 2, data, len, 1000));
    for (unsigned i = 0; i < 100000; i++) {
        mac_of(1, src);
        src[2] = (uint8_t)(i >> 16);
        src[3] = (uint8_t)(i >> 8);
        src[4] = (uint8_t)i;
        len = make(data, honest, src, -1);
        g_assert_true(put(&x, 1, data, len, 1000));
    }
    g_assert_cmpuint(x.port[1].p.macs, <=, SW_PORT_MACS_MAX);
    g_assert_cmpuint(x.port[1].p.macs, >, SW_PORT_MACS_MAX * 9 / 10);
    g_assert_cmpuint(switch_macs(x.sw), ==, x.port[1].p.macs + 1);
    g_assert_cmpuint(switch_macs_refused(x.sw), ==, 100000 - x.port[1].p.macs);
    g_assert_cmpuint(x.port[2].got, ==, 100000); /* still known where it was */
    g_assert_cmpuint(x.port[3].got, ==, 1);
    switch_age(x.sw, 1000 + (SW_AGE_DEFAULT + 1) * 1000);
    g_assert_cmpuint(switch_macs(x.sw), ==, 0);
    fix_close(&x);
}

static void test_storm(void)
{
    uint8_t data[ROOM], src[6];
    Fix x;

    fix_open(&x, (SwConfig){.storm = 50}, NULL);
    mac_of(1, src);
    uint32_t len = make(data, all, src, -1);
    for (unsigned i = 0; i < 1000; i++)
        g_assert_true(put(&x, 1, data, len, 10000));
    g_assert_cmpuint(x.port[2].got, ==, 50);
    g_assert_cmpuint(x.port[1].p.drops[SW_DROP_STORM], ==, 950);
    for (unsigned i = 0; i < 1000; i++)
        g_assert_true(put(&x, 1, data, len, 10100)); /* a tenth of a second later */
    g_assert_cmpuint(x.port[2].got, ==, 55);
    fix_close(&x);
}

static void test_loop(void)
{
    uint8_t data[ROOM], src[6];
    Fix x;

    fix_open(&x, (SwConfig){0}, NULL);
    mac_of(1, src);
    uint32_t len = make(data, all, src, -1);
    for (unsigned i = 0; i < 4000; i++)
        g_assert_true(put(&x, 1 + i % 2, data, len, 10000));
    g_assert_cmpuint(x.events, ==, 1);
    g_assert_nonnull(strstr(x.event, "02:00:00:00:00:01"));
    g_assert_nonnull(strstr(x.event, "a loop"));
    g_assert_cmpuint(switch_loops(x.sw), >=, 1);
    g_assert_cmpuint(x.port[3].got, <, 2 * SW_GUARD_RATE + 100);
    /* One that only moves house is no loop. */
    unsigned loops = (unsigned)switch_loops(x.sw);
    mac_of(9, src);
    len = make(data, all, src, -1);
    for (unsigned i = 0; i < 100; i++)
        g_assert_true(put(&x, 3 + i % 2, data, len, 60000 + (int64_t)i * 100));
    g_assert_cmpuint(switch_loops(x.sw), ==, loops);
    fix_close(&x);
}

static void test_answers(void)
{
    uint8_t data[ROOM], one[6], two[6];
    Fix x;

    fix_open(&x, (SwConfig){0}, NULL);
    mac_of(1, one);
    mac_of(2, two);
    uint32_t len = make(data, all, two, -1);
    g_assert_true(put(&x, 2, data, len, 0));
    len = make(data, two, one, -1);
    x.port[2].answer = SW_HOLD;
    g_assert_false(put(&x, 1, data, len, 0));
    g_assert_cmpuint(x.port[1].p.rx_frames, ==, 0);
    g_assert_cmpuint(x.port[2].p.drops[SW_DROP_FULL], ==, 0);
    x.port[1].p.may_hold = false;
    g_assert_true(put(&x, 1, data, len, 0));
    g_assert_false(x.port[2].may_hold);
    g_assert_cmpuint(x.port[2].p.drops[SW_DROP_FULL], ==, 1);
    x.port[1].p.may_hold = true;
    len = make(data, all, one, -1); /* nobody waits for one of many */
    g_assert_true(put(&x, 1, data, len, 0));
    g_assert_cmpuint(x.port[2].p.drops[SW_DROP_FULL], ==, 2);
    g_assert_cmpuint(x.port[3].got, ==, 2);
    x.port[2].answer = SW_TOO_LONG;
    g_assert_true(put(&x, 1, data, len, 0));
    g_assert_cmpuint(x.port[2].p.drops[SW_DROP_LONG], ==, 1);
    for (uint32_t runt = 1; runt < SW_FRAME_MIN; runt++)
        g_assert_true(put(&x, 1, data, runt, 0));
    g_assert_cmpuint(x.port[1].p.drops[SW_DROP_SHORT], ==, SW_FRAME_MIN - 1);
    store_be16(data + 12, PKT_TYPE_VLAN); /* a tag that is cut off */
    for (uint32_t n = SW_FRAME_MIN; n < SW_HEAD; n++)
        g_assert_true(put(&x, 1, data, n, 0));
    fix_close(&x);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/switch/learning", test_learning);
    g_test_add_func("/switch/hub", test_hub);
    g_test_add_func("/switch/vlans", test_vlans);
    g_test_add_func("/switch/offsets", test_offsets);
    g_test_add_func("/switch/vlan-text", test_vlan_text);
    g_test_add_func("/switch/plugging", test_plugging);
    g_test_add_func("/switch/mirror", test_mirror);
    g_test_add_func("/switch/ageing", test_ageing);
    g_test_add_func("/switch/many-macs", test_many_macs);
    g_test_add_func("/switch/storm", test_storm);
    g_test_add_func("/switch/loop", test_loop);
    g_test_add_func("/switch/answers", test_answers);
    return g_test_run();
}
