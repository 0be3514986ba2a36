/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What may come to a switch: the first byte says where. 0: a request of uml_switch's or vde's
 * clients; 1: what a peer writes into the rings of a link, between looks at them; 2: a program of
 * frames, and of ports that come, go and do not read; 3: texts of VLANs, and messages of the control
 * socket.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "lodge/num.h"
#include "link_ring.h"
#include "pkt.h"
#include "fuzz_input.h"
#include "replay.h"
#include "switch.h"
#include "switch_proto.h"

enum { PORTS = 4, STEPS = 100 };

static void fuzz_request(const uint8_t *data, size_t len)
{
    SwRequest r;

    if (sw_request_parse(data, MIN(len, (size_t)SW_REQUEST_MAX), &r) != SW_PARSE_OK)
        return;
    /* What its users lean on. */
    g_assert_true(r.addr.sun_family == AF_UNIX && r.addr_len <= sizeof r.addr);
    g_assert_nonnull(memchr(r.descr, 0, sizeof r.descr));
}

/* All that is there, frame by frame. */
static void drain(LinkRx *rx, const uint8_t *memory, unsigned max)
{
    const uint8_t *rings = memory + LINK_HEAD_BYTES;
    struct iovec at;
    NetFrame f;

    for (unsigned i = 0; i < max && link_rx_next(rx, &f, &at); i++) {
        const uint8_t *base = at.iov_base;
        g_assert_true(f.len == at.iov_len && f.len && f.len <= NET_FRAME_MAX);
        g_assert_true(base >= rings && range_within((uint64_t)(base - rings), f.len,
                                                    2 * LINK_RING_BYTES));
    }
    (void)link_rx_release(rx);
    (void)link_rx_sleep(rx);
}

static void fill(LinkTx *tx, const NetFrame *f, unsigned max)
{
    for (unsigned i = 0; i < max && link_tx_put(tx, f); i++)
        (void)link_tx_publish(tx);
}

/* A step is 16 bytes: what, where, two words. The peer has ends of its own, with which it may also
 * do what it should. */
static void fuzz_rings(const uint8_t *data, size_t len)
{
    static uint8_t *memory;
    static uint8_t body[NET_FRAME_MAX];
    LinkTx tx, peer_tx;
    LinkRx rx, peer_rx;

    if (!memory) {
        memory = mmap(NULL, LINK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        g_assert_true(memory != MAP_FAILED);
    }
    g_assert_cmpint(madvise(memory, LINK_BYTES, MADV_REMOVE), ==, 0); /* all zero again */
    link_tx_init(&tx, memory, 1);
    link_rx_init(&rx, memory, 0);
    link_tx_init(&peer_tx, memory, 0);
    link_rx_init(&peer_rx, memory, 1);
    for (unsigned n = 0; len >= 16 && n < STEPS; n++, data += 16, len -= 16) {
        uint32_t where = load_le32(data + 4) % LINK_RING_BYTES & ~15u;
        struct iovec iov = {body, load_le32(data + 8) % sizeof body}, at;
        NetFrame f = {.iov = &iov, .niov = 1, .len = (uint32_t)iov.iov_len};

        switch (data[0] % 12) {
        case 0: /* a record */
            if (where <= LINK_RING_BYTES - 16)
                memcpy(memory + LINK_HEAD_BYTES + where, data + 8, 8);
            memset(memory + LINK_HEAD_BYTES + where + 8, data[1], 8);
            break;
        case 1:
            rx.shared->head = data[1] ? load_le32(data + 8) & ~15u : load_le32(data + 8);
            break;
        case 2:
            tx.shared->tail = data[1] ? load_le32(data + 8) & ~15u : load_le32(data + 8);
            break;
        case 3:
            rx.shared->room_wanted = rx.shared->asleep = data[1];
            tx.shared->room_wanted = tx.shared->asleep = data[2];
            break;
        case 4:
            drain(&rx, memory, 64);
            break;
        case 5:
            fill(&tx, &f, 32);
            break;
        case 6:
            (void)link_tx_want_room(&tx, data[1] * 300u);
            link_tx_set_limit(&tx, data[2] * 8192u);
            tx.shared->limit = load_le32(data + 8);
            break;
        case 7: { /* there and back */
            uint32_t mark = link_rx_mark(&rx);
            if (link_rx_next(&rx, &f, &at))
                link_rx_back(&rx, mark);
            break;
        }
        case 8:
            drain(&peer_rx, memory, data[1]);
            break;
        case 9:
            f.flags = data[1] & 3;
            f.gso = data[2] & 3;
            f.gso_size = data[3];
            f.csum_start = load_le16(data + 12);
            fill(&peer_tx, &f, data[4]);
            break;
        case 10:
            link_tx_trim(&tx);
            if (link_rx_wide(&rx))
                link_rx_trim(&rx);
            link_rx_set_limit(&rx, load_le32(data + 8));
            break;
        default:
            if (!link_rx_ready(&rx))
                link_rx_awake(&rx);
            (void)link_tx_want_room(&peer_tx, data[1] * 300u);
            break;
        }
    }
}

static unsigned take2(Input *in)
{
    unsigned low = take(in);

    return low | take(in) << 8;
}

/* A switch, and ports that come and go. */
typedef struct Lab {
    Switch *sw;
    SwPort port[PORTS];
    int64_t now_ms;
} Lab;

static SwOut answer; /* of all readers to the next frames */

static SwOut lab_output(SwPort *p, const NetFrame *f, bool may_hold)
{
    static uint8_t out[NET_FRAME_MAX];

    g_assert_nonnull(p->sw);
    g_assert_true(f->len <= sizeof out && pkt_gather(f, 0, out, f->len));
    return answer == SW_HOLD && !may_hold ? SW_FULL : answer;
}

static const SwVlan *lab_vlan(unsigned which)
{
    static const char *const texts[] = {"10", "trunk:10+20", "trunk", "4094"};
    static SwVlan v;

    which %= G_N_ELEMENTS(texts) + 1;
    if (!which)
        return NULL;
    g_assert_true(sw_vlan_parse(texts[which - 1], &v, NULL));
    return &v;
}

static void lab_plug(Lab *lab, Input *in)
{
    static const SwPortOps ops = {.kind = "fuzz", .output = lab_output};
    unsigned which = take(in), number = take2(in) % (SW_PORTS_MAX + 2);
    SwPort *p = &lab->port[which % PORTS];

    if (p->sw) {
        switch_unplug(p);
        return;
    }
    *p = (SwPort){.ops = &ops, .may_hold = which & 0x10};
    (void)switch_plug(lab->sw, p, which & 0x20 ? number : 0, which & 0x40 ? "f\x1b" : NULL,
                      lab_vlan(take(in)), NULL); /* may be taken, or no port's number */
}

/* Few addresses, so that they meet; a tag where a bit says so, cut off where another does. */
static uint32_t lab_head(uint8_t *to, Input *in)
{
    unsigned who = take(in), form = take(in);
    uint32_t len = 14;

    memset(to, 0, SW_HEAD);
    to[0] = who & 8 ? 0xff : 2;
    to[5] = who & 7;
    to[6] = who & 0x80 ? 1 : 2;
    to[11] = who >> 4 & 7;
    if (form & 1) {
        store_be16(to + 12, PKT_TYPE_VLAN);
        store_be16(to + 14, (uint16_t)take2(in));
        len = SW_HEAD;
    }
    return form & 2 ? form >> 2 & 0xf : len;
}

static void lab_frame(Lab *lab, Input *in)
{
    static uint8_t bytes[SW_HEAD + NET_FRAME_MAX];
    unsigned where = take(in), times = where & 0x80 ? 40 : 1;
    uint32_t head = lab_head(bytes, in), body = take(in);
    unsigned offload = take(in);
    struct iovec iov[2] = {{bytes, head}, {bytes + SW_HEAD, body}};
    NetFrame f = {.iov = iov, .niov = body ? 2 : head ? 1 : 0, .len = head + body,
                  .flags = offload & 1 ? NET_FRAME_NEEDS_CSUM : 0,
                  .csum_start = (uint16_t)(offload & 2 ? 34 : offload & 4 ? UINT16_MAX : 0),
                  .hdr_len = offload & 8 ? 54 : 0, .csum_off = 16};

    if (offload & 0x10) {
        iov[1].iov_len = NET_FRAME_MAX - head; /* the longest: a tag has no room */
        f.niov = 2;
        f.len = NET_FRAME_MAX;
    }
    for (unsigned i = 0; i < times; i++) { /* from two ports in turn: a loop */
        SwPort *p = &lab->port[(where + i) % PORTS];
        if (p->sw && !switch_input(p, &f, lab->now_ms))
            g_assert_true(p->may_hold && answer == SW_HOLD);
    }
}

static void lab_texts(const Lab *lab)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(JsonOut) j = json_out_new();
    unsigned macs = 0;

    switch_text_macs(lab->sw, text, lab->now_ms);
    switch_text_ports(lab->sw, text);
    json_object(j, NULL);
    switch_json_ports(lab->sw, j);
    switch_json_macs(lab->sw, j, lab->now_ms);
    g_assert_nonnull(json_text(j));
    for (unsigned i = 0; i < PORTS; i++)
        macs += lab->port[i].sw ? lab->port[i].macs : 0;
    g_assert_cmpuint(switch_macs(lab->sw), ==, macs);
}

static void lab_event(void *opaque, const char *text)
{
    const Lab *lab = opaque;

    g_assert_true(*text && switch_loops(lab->sw));
}

static void fuzz_frames(const uint8_t *data, size_t len)
{
    static const SwOut answers[] = {SW_SENT, SW_FULL, SW_HOLD, SW_TOO_LONG, SW_BAD};
    Input in = {data, len};
    Lab lab = {0};
    unsigned knobs = take(&in);
    SwConfig config = {.hub = knobs & 1, .age_s = 5, .storm = knobs & 2 ? 20 : 0,
                       .mirror = knobs & 4 ? 2 : 0, .event = lab_event, .opaque = &lab};

    answer = SW_SENT;
    lab.sw = switch_new(&config);
    for (unsigned n = 0; in.len && n < STEPS; n++) {
        unsigned what = take(&in);

        switch (what & 7) {
        case 0:
            lab_plug(&lab, &in);
            break;
        case 1: {
            const SwVlan *v = lab_vlan(what >> 3);
            switch_set_vlan(lab.sw, take2(&in) % (SW_PORTS_MAX + 2), v);
            break;
        }
        case 2:
            switch_set_mirror(lab.sw, what >> 3);
            break;
        case 3:
            lab.now_ms += take2(&in);
            if (what & 8)
                switch_age(lab.sw, lab.now_ms);
            break;
        case 4:
            answer = answers[(what >> 3) % G_N_ELEMENTS(answers)];
            break;
        default:
            lab_frame(&lab, &in);
            break;
        }
    }
    lab_texts(&lab);
    for (unsigned i = 0; i < PORTS; i++)
        switch_unplug(&lab.port[i]); /* not plugged in is fine */
    g_assert_cmpuint(switch_macs(lab.sw), ==, 0);
    switch_free(lab.sw);
}

static void fuzz_texts(const uint8_t *data, size_t len)
{
    g_autofree char *text = g_strndup((const char *)data, len);
    union {
        SwHello hello;
        SwWelcome welcome;
    } u;
    SwVlan v, again;

    memset(&u, 0, sizeof u);
    memcpy(&u, data, MIN(len, sizeof u));
    (void)sw_hello_ok(&u.hello, MIN(len, sizeof u));
    (void)sw_welcome_ok(&u.welcome, MIN(len, sizeof u));
    if (!sw_vlan_parse(text, &v, NULL))
        return;
    g_autofree char *shown = sw_vlan_text(&v);
    g_assert_true(sw_vlan_parse(shown, &again, NULL) && !memcmp(&v, &again, sizeof v));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static void (*const run[])(const uint8_t *data, size_t len) = {fuzz_request, fuzz_rings,
                                                                   fuzz_frames, fuzz_texts};

    if (len)
        run[data[0] % G_N_ELEMENTS(run)](data + 1, len - 1);
    return 0;
}
