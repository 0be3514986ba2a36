/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_SWITCH_PROTO_H
#define LODGE_SWITCH_PROTO_H

/*
 * What comes over the control sockets of a switch: requests of uml_switch's and vde_switch's
 * clients, and Lodge's own messages.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/un.h>

#include <glib.h>

enum {
    SW_REQUEST_MAX = 256, /* bytes of a request of uml_switch's or vde's, with its description */
    SW_DESCR_MAX = 128,
};

typedef enum SwParse { SW_PARSE_OK, SW_PARSE_MORE, SW_PARSE_BAD } SwParse;

/* A client of uml_switch's or vde's protocol wants a port. */
typedef struct SwRequest {
    unsigned version; /* 0, 1 or 3 */
    unsigned port;    /* the number that is wanted; 0: any */
    struct sockaddr_un addr; /* where its frames go to */
    socklen_t addr_len;
    char descr[SW_DESCR_MAX]; /* vde: what it is, as it came; "" */
} SwRequest;

/**
 * sw_request_parse() - Read the first bytes of a control connection
 * @data: @len bytes that came up to now, at most SW_REQUEST_MAX
 * Return: SW_PARSE_MORE: not all of it is there; SW_PARSE_BAD: no request, or of an unknown
 * version.
 */
SwParse sw_request_parse(const uint8_t *data, size_t len, SwRequest *ret_request);

/* ---- Lodge's own: one packet each way on a SOCK_SEQPACKET socket ---- */

#define SW_HELLO_MAGIC 0x31575353u /* "SSW1" */
#define SW_HELLO_VERSION 2

typedef enum SwOp {
    SW_OP_ATTACH = 1, /* answered with three descriptors: memory, ours to wait at, the switch's */
    SW_OP_PORTS,      /* these three: the answer, then text until the end */
    SW_OP_MACS,
    SW_OP_STATS,
    SW_OP_PLUG,   /* arg: "tap:NAME", "switch:NAME", "vde:DIR", "uml:PATH" */
    SW_OP_UNPLUG, /* port */
} SwOp;

enum { SW_HELLO_JSON = 1 << 0, SW_HELLO_INTERNAL = 1 << 1 };
enum { SW_WELCOME_AUTO = 1 << 0, SW_WELCOME_INTERNAL = 1 << 1, SW_WELCOME_HUB = 1 << 2 };
enum { SW_ATTACH_FDS = 3 };

typedef struct SwHello {
    uint32_t magic;
    uint16_t version, op;
    uint32_t port, flags;
    char name[64];  /* who asks */
    char vlan[256]; /* as of sw_vlan_parse(); "": whatever the port has */
    char arg[512];
} SwHello;

typedef struct SwWelcome {
    uint32_t magic;
    uint16_t version;
    uint16_t status; /* 0: well; else 1 + LodgeError, and text says why */
    uint32_t port;  /* that was given; before a report: how many are plugged in */
    uint32_t flags;
    uint32_t bytes; /* of the memory */
    char text[492];
} SwWelcome;

/* Whether a packet of @len bytes is a message; strings end. */
bool sw_hello_ok(const SwHello *h, size_t len);
bool sw_welcome_ok(const SwWelcome *w, size_t len);

#endif
