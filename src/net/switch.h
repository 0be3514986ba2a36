/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SWITCH_H
#define LODGE_SWITCH_H

/*
 * The forwarding half of Lodge's own switch: no descriptors, no clock, no threads. Transports give
 * it frames and take frames from it; whoever owns it says what time it is.
 */

#include <stdbool.h>
#include <stdint.h>

#include "lodge/net.h"
#include "lodge/json_out.h"

enum {
    SW_PORTS_MAX = 256,      /* ports are numbered from 1 to this */
    SW_MACS_MAX = 16384,     /* addresses known at a time */
    SW_PORT_MACS_MAX = 4096, /* of those behind one port */
    SW_VID_MAX = 4094,       /* IEEE 802.1Q-2018, table 9-2: 0 and 4095 name no VLAN */
    SW_AGE_DEFAULT = 300,    /* seconds, IEEE 802.1Q-2018, table 8-6 */
    SW_GUARD_RATE = 100,     /* flooded frames a second of a port where a loop was noticed */
    SW_GUARD_MS = 5000,      /* how long that lasts */
    SW_FRAME_MIN = 14,       /* an Ethernet header */
    SW_HEAD = 18,            /* what of a frame is looked at: the header with one tag */
};

/* Why a frame was dropped, counted for the port that it came from or should have left by. */
typedef enum SwDrop {
    SW_DROP_SHORT,     /* came without a whole header */
    SW_DROP_LONG,      /* longer than the port's transport takes */
    SW_DROP_VLAN,      /* its VLAN is not this port's */
    SW_DROP_STORM,     /* over the limit of flooded frames */
    SW_DROP_LOCAL,     /* came from where its destination is */
    SW_DROP_FULL,      /* the reader is too slow */
    SW_DROP_MALFORMED, /* what came with it makes no sense, or it cannot be cut in segments */
    SW_DROPS,
} SwDrop;
const char *sw_drop_name(SwDrop why);

typedef enum SwVlanMode {
    SW_PLAIN,  /* no VLAN: tags are payload */
    SW_ACCESS, /* untagged frames, all of one VLAN */
    SW_TRUNK,  /* tagged frames of the VLANs in the set; untagged ones belong to plain ports */
} SwVlanMode;

typedef struct SwVlan {
    SwVlanMode mode;
    uint16_t vid;                        /* SW_ACCESS: 1 to SW_VID_MAX */
    uint64_t set[(SW_VID_MAX + 2) / 64]; /* SW_TRUNK: a bit for each VLAN */
} SwVlan;
/* "N", "trunk" (all), "trunk:N+N-M". LODGE_ERROR_CONFIG. */
bool sw_vlan_parse(const char *text, SwVlan *ret_vlan, GError **error);
char *sw_vlan_text(const SwVlan *v); /* transfer full; "-" for a plain port */

typedef enum SwOut {
    SW_SENT,
    SW_FULL, /* dropped */
    SW_HOLD, /* not taken: again in a moment */
    SW_TOO_LONG,
    SW_BAD,
} SwOut;

typedef struct Switch Switch;
typedef struct SwPort SwPort;

typedef struct SwPortOps {
    const char *kind; /* "lodge", "uml", "vde", "tap" */
    /* A frame that leaves by @p; @f dies on return. SW_HOLD only where @may_hold. */
    SwOut (*output)(SwPort *p, const NetFrame *f, bool may_hold);
    /* An operator wants it gone: unplug @p and free it. */
    void (*unplug)(SwPort *p);
} SwPortOps;

/* A port; part of its transport's own struct. */
struct SwPort {
    const SwPortOps *ops;
    Switch *sw;      /* NULL: not plugged in */
    unsigned number; /* 1 to SW_PORTS_MAX */
    char *name;      /* owned; what is plugged in, printable */
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes;
    uint64_t drops[SW_DROPS];
    bool may_hold; /* the transport can keep a frame and offer it again */
    /* Of the core: */
    unsigned macs;        /* learnt and not forgotten */
    unsigned slot;        /* in the list of plugged ports */
    int64_t guard_end_ms; /* floods are limited until then */
    int64_t tokens_ms;    /* when tokens were last given */
    double tokens;
};

typedef struct SwConfig {
    bool hub;
    unsigned age_s;    /* after which an address is forgotten; at least 1 */
    unsigned storm;    /* flooded frames a second of each port; 0: no limit */
    unsigned mirror;   /* port that sees everything; 0: none */
    /* A line for people: a loop was noticed. */
    void (*event)(void *opaque, const char *text);
    void *opaque;
} SwConfig;

Switch *switch_new(const SwConfig *config); /* transfer full */
/* No port may be plugged in. NULL is fine. */
void switch_free(Switch *sw);
const SwConfig *switch_config(const Switch *sw);
void switch_set_mirror(Switch *sw, unsigned port);

/* Settle the VLAN of port @number, now and for whatever is plugged in there later. */
void switch_set_vlan(Switch *sw, unsigned number, const SwVlan *vlan);
const SwVlan *switch_vlan(const Switch *sw, unsigned number);

/**
 * switch_plug() - Make @p a port of @sw
 * @number: the one that is wanted; 0: the lowest free one that no VLAN was settled for
 * @name:   copied; what does not print becomes '?'
 * @vlan:   NULL: what was settled, else plain
 * Return:  false: LODGE_ERROR_BUSY (taken), LODGE_ERROR_LIMIT (none is free), LODGE_ERROR_CONFIG
 *          (no such number, or another VLAN was settled for it).
 */
bool switch_plug(Switch *sw, SwPort *p, unsigned number, const char *name, const SwVlan *vlan,
                 GError **error);
/* Take @p out and forget what was learnt behind it; its counters stay. Not plugged in is fine. */
void switch_unplug(SwPort *p);
SwPort *switch_port(const Switch *sw, unsigned number); /* NULL: nothing there */
unsigned switch_ports(const Switch *sw);                /* how many are plugged in */

/**
 * switch_input() - Forward a frame that came in by @in
 * @f:  the first SW_HEAD bytes (or all, if fewer) in @f->iov[0] and nobody else's; at most two
 *      pieces; f->len is their sum and at most NET_FRAME_MAX
 * @now_ms: monotonic, never negative
 * Return: false: its reader is full for a moment; offer it again. Nothing was counted. Only where
 *         @in->may_hold.
 */
bool switch_input(SwPort *in, const NetFrame *f, int64_t now_ms);

/* Forget addresses that are too old: now and then, so that they make room. */
void switch_age(Switch *sw, int64_t now_ms);

/* How many addresses are known, and how many were not learnt for want of room. */
unsigned switch_macs(const Switch *sw);
uint64_t switch_macs_refused(const Switch *sw);
uint64_t switch_loops(const Switch *sw); /* noticed */

/* For people and programs: into an object that is open; text has a heading and a newline at the
 * end of each line. */
void switch_json_ports(const Switch *sw, JsonOut *j);
void switch_json_macs(const Switch *sw, JsonOut *j, int64_t now_ms);
void switch_text_ports(const Switch *sw, GString *to);
void switch_text_macs(const Switch *sw, GString *to, int64_t now_ms);

#endif
