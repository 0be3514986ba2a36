/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Forwarding of frames between the ports of a switch, after IEEE 802.1Q-2018, section 8: an address
 * is learnt where frames come from it, frames for it go there, all others go to every port. As a
 * hub it sends everything everywhere and learns only for those who look.
 *
 * VLANs. A frame belongs to one VLAN inside the switch. Plain ports (none was asked for) share VLAN
 * 0, in which tags are payload, so a switch that nobody set up carries what guests tag themselves.
 * An access port adds the one VLAN that is its own; a trunk has frames of its VLANs with a tag, and
 * those of VLAN 0 without one. A frame that a plain port tagged never leaves by a trunk, where it
 * would turn up in another VLAN. Priority tags (VID 0) count as none; on an access port they are
 * taken away. Tags of 802.1ad are payload.
 *
 * Loops. There is no spanning tree: BPDUs are frames like others, so that guests can run it. What a
 * loop does is seen in the table: one address comes from two ports in turn. At LOOP_MOVES times in
 * a second both ports' flooded frames are held to SW_GUARD_RATE for a while, which bounds the
 * storm, and the operator is told.
 *
 * Left out: GVRP, multicast snooping, priorities.
 *
 * Threads: the owner's only. Invariants:
 * (1) What is decided is decided on the bytes of iov[0], which nobody else can change.
 * (2) A frame that is to be held has left no trace but in the table: only a single reader can hold
 *     it, and asking it comes before counting.
 */
#include "switch.h"

#include <string.h>

#include "lodge/error.h"
#include "lodge/num.h"
#include "pkt.h"
#include "switch_table.h"

enum {
    MAC_LEN = 6,
    MACS_LEN = 2 * MAC_LEN,
    VID_MASK = 0xfff,
    KEY_VLAN_SHIFT = 48,
    LOOP_MOVES = 32,        /* of one address in a second */
    EVENT_GAP_MS = 10000,   /* between two reports of loops */
    PIECES = 5,             /* of a frame that got a tag */
    NAME_LEN_MAX = 63,
    MS_PER_S = 1000,
};

#define KEY_USED ((uint64_t)1 << 63) /* no address and VLAN give key 0 */

struct Switch {
    SwConfig config;
    SwTable *table;
    SwPort *plugged[SW_PORTS_MAX]; /* the first ports of them; SwPort.slot is the index */
    unsigned ports;
    SwPort *by_number[SW_PORTS_MAX + 1];
    SwVlan *vlan[SW_PORTS_MAX + 1]; /* owned; NULL: plain */
    bool settled[SW_PORTS_MAX + 1]; /* vlan was given by the operator and outlives its port */
    unsigned macs;
    uint64_t macs_refused, loops;
    int64_t event_ms; /* when a loop was last reported */
};

static const SwVlan plain_vlan = {.mode = SW_PLAIN};

static const char *const drop_names[SW_DROPS] = {
    [SW_DROP_SHORT] = "short", [SW_DROP_LONG] = "long",   [SW_DROP_VLAN] = "vlan",
    [SW_DROP_STORM] = "storm", [SW_DROP_LOCAL] = "local", [SW_DROP_FULL] = "full",
    [SW_DROP_MALFORMED] = "malformed",
};

const char *sw_drop_name(SwDrop why)
{
    return drop_names[why];
}

/* ---- VLANs ---- */

static bool set_has(const SwVlan *v, unsigned vid)
{
    return v->set[vid / 64] >> (vid % 64) & 1;
}

static void set_add(SwVlan *v, unsigned from, unsigned to)
{
    for (unsigned vid = from; vid <= to; vid++)
        v->set[vid / 64] |= (uint64_t)1 << (vid % 64);
}

static bool read_vid(const char *text, const char **ret_end, unsigned *ret_vid)
{
    unsigned v = 0;
    const char *s = text;

    for (; g_ascii_isdigit(*s) && v <= SW_VID_MAX; s++)
        v = v * 10 + (unsigned)(*s - '0');
    *ret_end = s;
    *ret_vid = v;
    return s != text && v >= 1 && v <= SW_VID_MAX;
}

static bool read_set(const char *s, SwVlan *v)
{
    for (;; s++) {
        unsigned from, to;

        if (!read_vid(s, &s, &from))
            return false;
        to = from;
        if (*s == '-' && !read_vid(s + 1, &s, &to))
            return false;
        if (to < from)
            return false;
        set_add(v, from, to);
        if (*s != '+')
            return !*s;
    }
}

bool sw_vlan_parse(const char *text, SwVlan *ret_vlan, GError **error)
{
    SwVlan v = {.mode = SW_ACCESS};
    const char *end;
    unsigned vid = 0;
    bool ok;

    if (g_str_has_prefix(text, "trunk")) {
        v.mode = SW_TRUNK;
        ok = !text[5] || (text[5] == ':' && read_set(text + 6, &v));
        if (!text[5])
            set_add(&v, 1, SW_VID_MAX);
    } else {
        ok = read_vid(text, &end, &vid) && !*end;
        v.vid = (uint16_t)vid;
    }
    if (!ok)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "vlan '%s': write a number from 1 to %d, or trunk, or trunk:10+20-29",
                          text, SW_VID_MAX);
    *ret_vlan = v;
    return true;
}

char *sw_vlan_text(const SwVlan *v)
{
    GString *s = g_string_new(NULL);

    if (v->mode != SW_TRUNK) {
        g_string_append_printf(s, v->mode == SW_ACCESS ? "%u" : "-", v->vid);
        return g_string_free(s, FALSE);
    }
    g_string_append(s, "trunk");
    for (unsigned vid = 1, n = 0; vid <= SW_VID_MAX; vid++) {
        unsigned from = vid;

        if (!set_has(v, vid))
            continue;
        while (vid < SW_VID_MAX && set_has(v, vid + 1))
            vid++;
        if (from == 1 && vid == SW_VID_MAX)
            break;
        g_string_append_printf(s, "%c%u", n++ ? '+' : ':', from);
        if (vid > from)
            g_string_append_printf(s, "-%u", vid);
    }
    return g_string_free(s, FALSE);
}

static bool vlan_equal(const SwVlan *a, const SwVlan *b)
{
    return !memcmp(a, b, sizeof *a);
}

const SwVlan *switch_vlan(const Switch *sw, unsigned number)
{
    return sw->vlan[number] ? sw->vlan[number] : &plain_vlan;
}

static void put_vlan(Switch *sw, unsigned number, const SwVlan *vlan)
{
    g_clear_pointer(&sw->vlan[number], g_free);
    if (vlan && vlan->mode != SW_PLAIN)
        sw->vlan[number] = g_memdup2(vlan, sizeof *vlan);
}

void switch_set_vlan(Switch *sw, unsigned number, const SwVlan *vlan)
{
    if (number < 1 || number > SW_PORTS_MAX)
        return;
    put_vlan(sw, number, vlan);
    sw->settled[number] = true;
}

/* ---- life ---- */

Switch *switch_new(const SwConfig *config)
{
    Switch *sw = g_new0(Switch, 1);

    sw->config = *config;
    sw->config.age_s = MAX(config->age_s, 1);
    sw->table = sw_table_new();
    sw->event_ms = -EVENT_GAP_MS;
    return sw;
}

void switch_free(Switch *sw)
{
    if (!sw)
        return;
    for (unsigned i = 0; i <= SW_PORTS_MAX; i++)
        g_free(sw->vlan[i]);
    sw_table_free(sw->table);
    g_free(sw);
}

const SwConfig *switch_config(const Switch *sw)
{
    return &sw->config;
}

void switch_set_mirror(Switch *sw, unsigned port)
{
    sw->config.mirror = port;
}

static unsigned free_number(const Switch *sw)
{
    for (unsigned i = 1; i <= SW_PORTS_MAX; i++) {
        if (!sw->by_number[i] && !sw->settled[i] && i != sw->config.mirror)
            return i;
    }
    return 0;
}

/* A name from elsewhere, fit for a terminal. */
static char *clean_name(const char *name)
{
    char *s = g_strndup(name ? name : "", NAME_LEN_MAX);

    for (char *c = s; *c; c++) {
        if (!g_ascii_isprint(*c))
            *c = '?';
    }
    return s;
}

bool switch_plug(Switch *sw, SwPort *p, unsigned number, const char *name, const SwVlan *vlan,
                 GError **error)
{
    if (number > SW_PORTS_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "port %u: a switch has ports 1 to %d", number,
                          SW_PORTS_MAX);
    if (number && sw->by_number[number])
        return lodge_fail(error, LODGE_ERROR_BUSY, "port %u: taken by %s; choose another", number,
                          sw->by_number[number]->name);
    if (!number)
        number = free_number(sw);
    if (!number)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "all %d ports are taken", SW_PORTS_MAX);
    if (vlan && sw->settled[number] && !vlan_equal(vlan, switch_vlan(sw, number))) {
        g_autofree char *text = sw_vlan_text(switch_vlan(sw, number));
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "port %u: is settled to be of vlan %s; leave out vlan=", number, text);
    }
    if (!sw->settled[number])
        put_vlan(sw, number, vlan);
    p->sw = sw;
    p->number = number;
    p->name = clean_name(name);
    p->slot = sw->ports;
    p->macs = 0;
    p->guard_end_ms = 0;
    sw->by_number[number] = p;
    sw->plugged[sw->ports++] = p;
    return true;
}

void switch_unplug(SwPort *p)
{
    Switch *sw = p->sw;

    if (!sw)
        return;
    sw_table_forget_port(sw->table, (uint16_t)p->number);
    sw->macs -= p->macs;
    p->macs = 0;
    sw->by_number[p->number] = NULL;
    sw->plugged[p->slot] = sw->plugged[--sw->ports];
    sw->plugged[p->slot]->slot = p->slot;
    sw->plugged[sw->ports] = NULL;
    if (!sw->settled[p->number])
        put_vlan(sw, p->number, NULL);
    g_clear_pointer(&p->name, g_free);
    p->sw = NULL;
}

SwPort *switch_port(const Switch *sw, unsigned number)
{
    return number <= SW_PORTS_MAX ? sw->by_number[number] : NULL;
}

unsigned switch_ports(const Switch *sw)
{
    return sw->ports;
}

/* ---- forwarding ---- */

/* A frame on its way. */
typedef struct Passing {
    SwPort *in;
    const NetFrame *f;
    const uint8_t *head; /* f's first bytes, at least SW_FRAME_MIN */
    bool tagged;         /* has a tag of 802.1Q, whole */
    bool strip;          /* the tag says what @vlan says, or nothing */
    uint16_t tci;        /* of the tag, 0: none */
    uint16_t vlan;       /* inside the switch */
} Passing;

static void drop(SwPort *p, SwDrop why)
{
    p->drops[why]++;
}

/* Which VLAN the frame belongs to; false: it may not come in by this port. */
static bool classify(Passing *a)
{
    const SwVlan *v = switch_vlan(a->in->sw, a->in->number);
    unsigned vid;

    a->tagged = load_be16(a->head + MACS_LEN) == PKT_TYPE_VLAN &&
                a->f->iov[0].iov_len >= SW_HEAD;
    if (a->tagged)
        a->tci = load_be16(a->head + MACS_LEN + 2);
    vid = a->tci & VID_MASK;
    if (v->mode == SW_PLAIN)
        return true;
    if (v->mode == SW_ACCESS) {
        a->strip = a->tagged;
        a->vlan = v->vid;
        return !vid;
    }
    if (!vid)
        return true;
    a->strip = true;
    a->vlan = (uint16_t)vid;
    return vid <= SW_VID_MAX && set_has(v, vid);
}

typedef enum Form { FORM_NONE, FORM_AS_IS, FORM_BARE, FORM_TAGGED } Form;

/* How the frame leaves by @out. */
static Form form_for(const Passing *a, const SwPort *out)
{
    const SwVlan *v = switch_vlan(out->sw, out->number);

    switch (v->mode) {
    case SW_PLAIN:
        return a->vlan ? FORM_NONE : FORM_AS_IS;
    case SW_ACCESS:
        return a->vlan != v->vid ? FORM_NONE : a->strip ? FORM_BARE : FORM_AS_IS;
    case SW_TRUNK:
        break;
    }
    if (!a->vlan)
        return a->tci & VID_MASK ? FORM_NONE : FORM_AS_IS;
    if (!set_has(v, a->vlan))
        return FORM_NONE;
    return a->tagged && (a->tci & VID_MASK) ? FORM_AS_IS : FORM_TAGGED;
}

/* Move what is counted from the frame's start by @by bytes; false: it lies in the headers. */
static bool shift_offsets(NetFrame *f, int by)
{
    if (f->flags & NET_FRAME_NEEDS_CSUM) {
        if (f->csum_start < SW_HEAD - PKT_VLAN_LEN || (by < 0 && f->csum_start < SW_HEAD) ||
            (by > 0 && f->csum_start > UINT16_MAX - by))
            return false;
        f->csum_start = (uint16_t)(f->csum_start + by);
    }
    if (f->hdr_len)
        f->hdr_len = (uint16_t)CLAMP(f->hdr_len + by, 0, UINT16_MAX);
    return true;
}

static SwOut send_changed(const Passing *a, SwPort *out, Form form, bool may_hold)
{
    NetFrame f = *a->f;
    struct iovec iov[PIECES];
    uint8_t tag[PKT_VLAN_LEN];
    unsigned n = 0;
    size_t rest = MACS_LEN + (a->tagged ? PKT_VLAN_LEN : 0);
    int by = (form == FORM_TAGGED ? PKT_VLAN_LEN : 0) - (a->tagged ? PKT_VLAN_LEN : 0);

    if (!shift_offsets(&f, by))
        return SW_BAD;
    iov[n++] = (struct iovec){(void *)a->head, MACS_LEN};
    if (form == FORM_TAGGED) {
        /* A priority tag's priority stays. */
        store_be16(tag, PKT_TYPE_VLAN);
        store_be16(tag + 2, (uint16_t)((a->tci & ~VID_MASK) | a->vlan));
        iov[n++] = (struct iovec){tag, sizeof tag};
    }
    if (a->f->iov[0].iov_len > rest)
        iov[n++] = (struct iovec){(uint8_t *)a->head + rest, a->f->iov[0].iov_len - rest};
    for (unsigned i = 1; i < a->f->niov && n < PIECES; i++)
        iov[n++] = a->f->iov[i];
    f.iov = iov;
    f.niov = n;
    f.len = (uint32_t)((int64_t)f.len + by);
    return f.len > NET_FRAME_MAX ? SW_TOO_LONG : out->ops->output(out, &f, may_hold);
}

/* Return: false: hold it. */
static bool send_out(const Passing *a, SwPort *out, Form form, bool may_hold)
{
    SwOut got = form == FORM_AS_IS ? out->ops->output(out, a->f, may_hold)
                                   : send_changed(a, out, form, may_hold);

    switch (got) {
    case SW_SENT:
        out->tx_frames++;
        out->tx_bytes += a->f->len;
        break;
    case SW_FULL:
        drop(out, SW_DROP_FULL);
        break;
    case SW_HOLD:
        if (may_hold)
            return false;
        drop(out, SW_DROP_FULL);
        break;
    case SW_TOO_LONG:
        drop(out, SW_DROP_LONG);
        break;
    case SW_BAD:
        drop(out, SW_DROP_MALFORMED);
        break;
    }
    return true;
}

/* Whether @in may flood one more frame now. */
static bool flood_allowed(SwPort *in, int64_t now_ms)
{
    unsigned rate = in->sw->config.storm;

    if (now_ms < in->guard_end_ms && (!rate || rate > SW_GUARD_RATE))
        rate = SW_GUARD_RATE;
    if (!rate)
        return true;
    in->tokens += (double)(now_ms - in->tokens_ms) * rate / MS_PER_S;
    in->tokens_ms = now_ms;
    in->tokens = MIN(in->tokens, (double)rate); /* a second's worth at once */
    if (in->tokens < 1)
        return false;
    in->tokens--;
    return true;
}

static uint64_t key_of(const uint8_t *mac, unsigned vlan)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < MAC_LEN; i++)
        v = v << 8 | mac[i];
    return v | (uint64_t)vlan << KEY_VLAN_SHIFT | KEY_USED;
}

static void key_text(uint64_t key, char text[18])
{
    g_snprintf(text, 18, "%02x:%02x:%02x:%02x:%02x:%02x", (unsigned)(key >> 40 & 0xff),
               (unsigned)(key >> 32 & 0xff), (unsigned)(key >> 24 & 0xff),
               (unsigned)(key >> 16 & 0xff), (unsigned)(key >> 8 & 0xff), (unsigned)(key & 0xff));
}

static unsigned key_vlan(uint64_t key)
{
    return key >> KEY_VLAN_SHIFT & VID_MASK;
}

static void loop_noticed(SwPort *a, SwPort *b, uint64_t key, int64_t now_ms)
{
    Switch *sw = a->sw;
    char mac[18];
    bool fresh = now_ms >= a->guard_end_ms;

    for (unsigned i = 0; i < 2; i++) {
        SwPort *p = i ? b : a;
        if (now_ms >= p->guard_end_ms && p->tokens > SW_GUARD_RATE)
            p->tokens = SW_GUARD_RATE;
        p->guard_end_ms = now_ms + SW_GUARD_MS;
    }
    if (fresh)
        sw->loops++;
    if (now_ms - sw->event_ms < EVENT_GAP_MS)
        return;
    sw->event_ms = now_ms;
    key_text(key, mac);
    g_autofree char *text = g_strdup_printf(
        "%s comes from ports %u (%s) and %u (%s) in turn: a loop, or two machines with one "
        "address; their broadcasts are held to %d a second", mac, a->number, a->name, b->number, b->name,
        SW_GUARD_RATE);
    if (sw->config.event)
        sw->config.event(sw->config.opaque, text);
}

static void learn(const Passing *a, int64_t now_ms)
{
    SwPort *in = a->in, *before;
    Switch *sw = in->sw;
    uint64_t key = key_of(a->head + MAC_LEN, a->vlan);
    uint16_t old;
    unsigned moves;

    if (a->head[MAC_LEN] & 1)
        return; /* a group has no place */
    SwLearn got = sw_table_learn(sw->table, key, (uint16_t)in->number,
                                 (uint32_t)(now_ms / MS_PER_S), sw->config.age_s,
                                 in->macs < SW_PORT_MACS_MAX, &old, &moves);
    before = old ? sw->by_number[old] : NULL;
    if (before) {
        before->macs--;
        sw->macs--;
    }
    if (got == SW_LEARN_NEW || got == SW_LEARN_MOVED) {
        in->macs++;
        sw->macs++;
    }
    if (got == SW_LEARN_FULL)
        sw->macs_refused++;
    if (moves >= LOOP_MOVES && before)
        loop_noticed(in, before, key, now_ms);
}

/* To every port but the one that it came from. */
static void flood(const Passing *a)
{
    Switch *sw = a->in->sw;

    for (unsigned i = 0; i < sw->ports; i++) {
        SwPort *out = sw->plugged[i];
        Form form;

        if (out == a->in)
            continue;
        form = form_for(a, out);
        if (form == FORM_NONE && out->number == sw->config.mirror)
            form = FORM_AS_IS;
        if (form != FORM_NONE)
            (void)send_out(a, out, form, false); /* only with may_hold is there an answer */
    }
}

bool switch_input(SwPort *in, const NetFrame *f, int64_t now_ms)
{
    Switch *sw = in->sw;
    Passing a = {.in = in, .f = f};
    SwPort *out = NULL, *mirror;
    bool known = false;

    if (f->niov && f->iov[0].iov_len >= SW_FRAME_MIN) {
        a.head = f->iov[0].iov_base;
    } else {
        in->rx_frames++;
        drop(in, SW_DROP_SHORT);
        return true;
    }
    bool may = classify(&a);
    if (may)
        learn(&a, now_ms);
    if (may && !sw->config.hub && !(a.head[0] & 1)) {
        uint16_t port = sw_table_find(sw->table, key_of(a.head, a.vlan),
                                      (uint32_t)(now_ms / MS_PER_S), sw->config.age_s);
        out = port ? sw->by_number[port] : NULL;
        known = out;
    }
    Form form = out && out != in ? form_for(&a, out) : FORM_NONE;
    if (form != FORM_NONE && !send_out(&a, out, form, in->may_hold))
        return false; /* (2) */

    in->rx_frames++;
    in->rx_bytes += f->len;
    if (!may) {
        drop(in, SW_DROP_VLAN);
        return true;
    }
    if (!known) {
        if (flood_allowed(in, now_ms))
            flood(&a);
        else
            drop(in, SW_DROP_STORM);
        return true;
    }
    if (form == FORM_NONE)
        drop(in, out == in ? SW_DROP_LOCAL : SW_DROP_VLAN);
    mirror = switch_port(sw, sw->config.mirror);
    if (mirror && mirror != in && mirror != out)
        (void)send_out(&a, mirror, FORM_AS_IS, false); /* as above */
    return true;
}

void switch_age(Switch *sw, int64_t now_ms)
{
    uint32_t now_s = (uint32_t)(now_ms / MS_PER_S);
    const SwMac *e;

    for (unsigned at = 0; (e = sw_table_next(sw->table, &at));) {
        SwPort *p = sw->by_number[e->port];

        if (now_s - e->seen_s <= sw->config.age_s)
            continue;
        if (p)
            p->macs--;
        sw->macs--;
        sw_table_forget(sw->table, e);
    }
}

/* ---- what people see ---- */

unsigned switch_macs(const Switch *sw)
{
    return sw->macs;
}

uint64_t switch_macs_refused(const Switch *sw)
{
    return sw->macs_refused;
}

uint64_t switch_loops(const Switch *sw)
{
    return sw->loops;
}

static uint64_t dropped(const SwPort *p)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < SW_DROPS; i++)
        n += p->drops[i];
    return n;
}

void switch_json_ports(const Switch *sw, JsonOut *j)
{
    json_array(j, "ports");
    for (unsigned i = 1; i <= SW_PORTS_MAX; i++) {
        const SwPort *p = sw->by_number[i];
        g_autofree char *vlan = sw_vlan_text(switch_vlan(sw, i));

        if (!p)
            continue;
        json_object(j, NULL);
        json_number(j, "port", i);
        json_string(j, "kind", p->ops->kind);
        json_string(j, "name", p->name);
        json_string(j, "vlan", strcmp(vlan, "-") ? vlan : NULL);
        json_bool(j, "mirror", i == sw->config.mirror);
        json_number(j, "macs", p->macs);
        json_number(j, "rx-frames", (int64_t)p->rx_frames);
        json_number(j, "rx-bytes", (int64_t)p->rx_bytes);
        json_number(j, "tx-frames", (int64_t)p->tx_frames);
        json_number(j, "tx-bytes", (int64_t)p->tx_bytes);
        json_object(j, "drops");
        for (unsigned d = 0; d < SW_DROPS; d++)
            json_number(j, drop_names[d], (int64_t)p->drops[d]);
        json_end(j);
        json_end(j);
    }
    json_end(j);
}

void switch_text_ports(const Switch *sw, GString *to)
{
    g_string_append_printf(to, "%4s %-6s %-10s %6s %12s %12s %10s  %s\n", "PORT", "KIND", "VLAN",
                           "MACS", "RX", "TX", "DROPPED", "NAME");
    for (unsigned i = 1; i <= SW_PORTS_MAX; i++) {
        const SwPort *p = sw->by_number[i];
        g_autofree char *vlan = sw_vlan_text(switch_vlan(sw, i));

        if (!p)
            continue;
        g_string_append_printf(to, "%4u %-6s %-10s %6u %12" PRIu64 " %12" PRIu64 " %10" PRIu64
                               "  %s%s\n", i, p->ops->kind, vlan, p->macs, p->rx_frames,
                               p->tx_frames, dropped(p), p->name,
                               i == sw->config.mirror ? " (mirror)" : "");
    }
}

/* The next entry that is not too old. */
static const SwMac *next_mac(const Switch *sw, unsigned *at, int64_t now_ms, uint32_t *ret_age)
{
    const SwMac *e;

    while ((e = sw_table_next(sw->table, at))) {
        *ret_age = (uint32_t)(now_ms / MS_PER_S) - e->seen_s;
        if (*ret_age <= sw->config.age_s)
            return e;
    }
    return NULL;
}

void switch_json_macs(const Switch *sw, JsonOut *j, int64_t now_ms)
{
    const SwMac *e;
    uint32_t age;

    json_array(j, "macs");
    for (unsigned at = 0; (e = next_mac(sw, &at, now_ms, &age));) {
        char mac[18];

        key_text(e->key, mac);
        json_object(j, NULL);
        json_string(j, "mac", mac);
        json_number(j, "vlan", key_vlan(e->key));
        json_number(j, "port", e->port);
        json_number(j, "age", age);
        json_end(j);
    }
    json_end(j);
}

void switch_text_macs(const Switch *sw, GString *to, int64_t now_ms)
{
    const SwMac *e;
    uint32_t age;

    g_string_append_printf(to, "%-17s %5s %4s %6s\n", "MAC", "VLAN", "PORT", "AGE");
    for (unsigned at = 0; (e = next_mac(sw, &at, now_ms, &age));) {
        char mac[18];

        key_text(e->key, mac);
        g_string_append_printf(to, "%s %5u %4u %6u\n", mac, key_vlan(e->key), e->port, age);
    }
}
