/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What may come to a switch: the first byte says where. 0: a request of uml_switch's or vde's
 * clients; 1: what a peer writes into the rings of a link, between looks at them; 2: frames at
 * ports of all kinds; 3: texts of VLANs, and messages of the control socket.
 */
#include <string.h>
#include <sys/socket.h>

#include "lodge/num.h"
#include "link_ring.h"
#include "pkt.h"
#include "replay.h"
#include "switch.h"
#include "switch_proto.h"

enum { PORTS = 4, STEPS = 200, FRAME_BYTES = 2048 };

static void fuzz_request(const uint8_t *data, size_t len)
{
    SwRequest r;

    if (sw_request_parse(data, MIN(len, (size_t)SW_REQUEST_MAX), &r) != SW_PARSE_OK)
        return;
    /* What its users lean on. */
    g_assert_true(r.addr.sun_family == AF_UNIX && r.addr_len <= sizeof r.addr);
    g_assert_nonnull(memchr(r.descr, 0, sizeof r.descr));
}

/* A step is 16 bytes: what, where, two words. */
static void fuzz_rings(const uint8_t *data, size_t len)
{
    static uint8_t *memory;
    static uint8_t body[NET_FRAME_MAX];
    LinkTx tx;
    LinkRx rx;

    if (!memory)
        memory = g_aligned_alloc0(1, LINK_BYTES, 4096);
    memset(memory, 0, LINK_HEAD_BYTES + LINK_RING_BYTES); /* what is read of it */
    link_tx_init(&tx, memory, 1);
    link_rx_init(&rx, memory, 0);
    for (unsigned n = 0; len >= 16 && n < STEPS; n++, data += 16, len -= 16) {
        uint32_t where = load_le32(data + 4) % LINK_RING_BYTES & ~15u;
        struct iovec iov = {body, load_le32(data + 8) % sizeof body}, at;
        NetFrame f = {.iov = &iov, .niov = 1, .len = (uint32_t)iov.iov_len};

        switch (data[0] % 8) {
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
            for (unsigned i = 0; i < 64 && link_rx_next(&rx, &f, &at); i++) {
                const uint8_t *base = at.iov_base, *ring = memory + LINK_HEAD_BYTES;
                g_assert_true(f.len == at.iov_len && f.len && f.len <= NET_FRAME_MAX);
                g_assert_true(base >= ring && range_within((uint64_t)(base - ring), f.len,
                                                           LINK_RING_BYTES));
            }
            (void)link_rx_release(&rx);
            (void)link_rx_sleep(&rx);
            break;
        case 5:
            for (unsigned i = 0; i < 32 && link_tx_put(&tx, &f); i++)
                (void)link_tx_publish(&tx);
            break;
        case 6:
            (void)link_tx_want_room(&tx, data[1] * 300u);
            link_tx_set_limit(&tx, data[2] * 8192u);
            tx.shared->limit = load_le32(data + 8);
            break;
        default: { /* there and back */
            uint32_t mark = link_rx_mark(&rx);
            if (link_rx_next(&rx, &f, &at))
                link_rx_back(&rx, mark);
            break;
        }
        }
    }
}

static SwOut fuzz_output(SwPort *p, const NetFrame *f, bool may_hold)
{
    static uint8_t out[FRAME_BYTES + 4];
    static unsigned calls;

    g_assert_true(f->len <= sizeof out && pkt_gather(f, 0, out, f->len));
    return may_hold && ++calls % 5 == 0 ? SW_HOLD : SW_SENT;
}

static void fuzz_frames(const uint8_t *data, size_t len)
{
    static const SwPortOps ops = {.kind = "fuzz", .output = fuzz_output};
    static const char *const vlans[PORTS] = {NULL, "10", "trunk:10+20", "trunk"};
    SwPort port[PORTS] = {{0}};
    SwConfig config = {.hub = len && data[0] & 1, .age_s = 5, .storm = len && data[0] & 2 ? 20 : 0,
                       .mirror = len && data[0] & 4 ? 2 : 0};
    Switch *sw = switch_new(&config);
    int64_t now = 0;

    for (unsigned i = 0; i < PORTS; i++) {
        SwVlan v = {0};
        if (vlans[i])
            g_assert_true(sw_vlan_parse(vlans[i], &v, NULL));
        port[i].ops = &ops;
        port[i].may_hold = i & 1;
        g_assert_true(switch_plug(sw, &port[i], i + 1, "f", &v, NULL));
    }
    for (unsigned n = 0; len > 8 && n < STEPS; n++) {
        uint8_t bytes[FRAME_BYTES];
        uint32_t size = MIN(MIN((uint32_t)(load_le16(data + 1) % FRAME_BYTES), sizeof bytes),
                            (uint32_t)len - 8);
        uint32_t head = MIN(size, (uint32_t)SW_HEAD);
        struct iovec iov[2] = {{bytes, head}, {bytes + head, size - head}};
        NetFrame f = {.iov = iov, .niov = size > head ? 2 : size ? 1 : 0, .len = size,
                      .flags = data[3] & 1, .csum_start = load_le16(data + 4),
                      .hdr_len = data[6], .csum_off = data[7]};

        memcpy(bytes, data + 8, size);
        now += data[3];
        (void)switch_input(&port[data[0] % PORTS], &f, now);
        data += 8 + size;
        len -= 8 + size;
    }
    switch_age(sw, now);
    g_autoptr(GString) text = g_string_new(NULL);
    switch_text_macs(sw, text, now);
    switch_text_ports(sw, text);
    for (unsigned i = 0; i < PORTS; i++)
        switch_unplug(&port[i]);
    g_assert_cmpuint(switch_macs(sw), ==, 0);
    switch_free(sw);
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
