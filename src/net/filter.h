/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NET_FILTER_H
#define LODGE_NET_FILTER_H

/*
 * Rules about what passes between a card and its network. A text is compiled to a program
 * (filter_compile.c), which decides frame by frame (filter_eval.c); the gate holds the program in
 * force and stands in the wire (filter_gate.c).
 */

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "lodge/net.h"

enum {
    FILTER_TEXT_MAX = 256 << 10, /* bytes of a text */
    FILTER_RULES_MAX = 4096,
    FILTER_LINE_MAX = 400, /* bytes of a line */
    FILTER_PORTS_MAX = 8,  /* ranges in one list */
    FILTER_ADDRS_MAX = 64, /* of antispoof */
    FILTER_HEAD = 512,     /* bytes of a frame that are looked at */
    FILTER_TAGS_MAX = 2,   /* VLAN tags that are looked under */
};

enum { FILTER_IN = 1 << 0, FILTER_OUT = 1 << 1 }; /* into the guest, out of it */

/* What a rule asks for. */
enum {
    FILTER_NEED_SRC_MAC = 1 << 0,
    FILTER_NEED_DST_MAC = 1 << 1,
    FILTER_NEED_UNTAGGED = 1 << 2,
    FILTER_NEED_VLAN = 1 << 3,
    FILTER_NEED_INNER = 1 << 4, /* a second tag */
    FILTER_NEED_TYPE = 1 << 5,
    FILTER_NEED_PROTO = 1 << 6,
    FILTER_NEED_SRC = 1 << 7,
    FILTER_NEED_DST = 1 << 8,
    FILTER_NEED_SPORT = 1 << 9,
    FILTER_NEED_DPORT = 1 << 10,
    FILTER_NEED_PORT = 1 << 11, /* either of them */
    FILTER_NEED_FRAGMENT = 1 << 12,
    FILTER_NEED_SYN = 1 << 13,
    FILTER_NEED_ICMP = 1 << 14, /* its type */
};

typedef struct FilterMac {
    uint8_t addr[6], mask[6];
} FilterMac;

typedef struct FilterPrefix {
    uint8_t addr[16]; /* the first 4 bytes where the rule is about IPv4; host bits 0 */
    uint8_t bits;
} FilterPrefix;

typedef struct FilterPorts {
    unsigned count;
    uint16_t first[FILTER_PORTS_MAX], last[FILTER_PORTS_MAX];
} FilterPorts;

typedef struct FilterRule {
    bool allow;
    uint8_t dirs; /* FILTER_IN, FILTER_OUT */
    uint8_t ip;   /* 4, 6; 0: either, or the rule is not about IP */
    uint8_t proto, icmp_type;
    uint16_t need; /* FILTER_NEED_* */
    uint16_t type, vlan, inner;
    FilterMac src_mac, dst_mac;
    FilterPrefix src, dst;
    FilterPorts sport, dport, port;
} FilterRule;

typedef struct FilterProgram FilterProgram;

/* Why a frame passes or not: the place of a rule, or one of these. */
enum {
    FILTER_BY_DEFAULT_IN = FILTER_RULES_MAX,
    FILTER_BY_DEFAULT_OUT,
    FILTER_BY_ANTISPOOF, /* it claims to be another machine */
    FILTER_BY_UNCLEAR,   /* a rule asks for what the frame does not show */
    FILTER_BYS,
};

typedef struct FilterVerdict {
    bool allow;
    unsigned by;
} FilterVerdict;

/**
 * filter_compile() - Make a program of a text
 * @name: of the text in messages, and of the program; copied
 * Context: any thread. Return: transfer full, or NULL with LODGE_ERROR_CONFIG, "NAME:LINE:COLUMN:
 * ..." or LODGE_ERROR_LIMIT.
 */
FilterProgram *filter_compile(const char *name, const char *text, size_t len, GError **error);
void filter_program_free(FilterProgram *p); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FilterProgram, filter_program_free)

/**
 * filter_judge() - Decide about one frame; counts nothing
 * @head: the frame's first bytes, MIN(FILTER_HEAD, f->len) of them, that nobody changes meanwhile
 * @f:    for its length and what is to be done with it; its bytes are not looked at
 * @out:  from the guest; @mac: the card's
 * Context: any thread.
 */
FilterVerdict filter_judge(const FilterProgram *p, const uint8_t *head, const NetFrame *f, bool out,
                           const uint8_t mac[6]);
/* Count @frames with @bytes in all for what decided. Any thread. */
void filter_count(FilterProgram *p, unsigned by, unsigned frames, uint64_t bytes);
/* What is in force, with its counters; see net.h. Transfer full. */
NetFilterInfo *filter_describe(const FilterProgram *p);

/* ---- the gate ---- */

typedef struct NetGate NetGate;
typedef unsigned (*NetGateSend)(void *opaque, const NetFrame *v, unsigned n);

NetGate *net_gate_new(unsigned streams); /* at most NET_STREAMS_MAX wires have it */
void net_gate_free(NetGate *g); /* nothing is sent any more; NULL is fine */
bool net_gate_open(const NetGate *g); /* no rules; sender's thread */
unsigned net_gate_send(NetGate *g, unsigned stream, bool out, const uint8_t mac[6],
                       const NetFrame *v, unsigned n, NetGateSend send, void *opaque);
FilterProgram *net_gate_swap(NetGate *g, FilterProgram *p);
NetFilterInfo *net_gate_info(NetGate *g); /* NULL: no rules; main thread */
uint64_t net_gate_refused(const NetGate *g); /* frames, since it was made; any thread */
#endif
