/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests on a switch's control sockets.
 *
 * uml_switch (uml-utilities 20070815, uml_router): in the client's byte order, which is ours.
 *     v0: type, address of 6 bytes, socket address             no magic
 *     v1: magic, type, address of 6 bytes, socket address
 *     v3: magic, version, type, socket address                 v2 was never spoken
 * v1 has its type, 0 or 1, where v3 has its version. vde_switch (vde-2) takes v3 without its two
 * bytes of padding and with a description behind it; bits 8 and up of type are the number of a
 * port.
 *
 * A client may leave the socket address's unused bytes as they are; uml_switch and its clients use
 * names of their full length. So an abstract name has all 108 bytes, a path ends at its zero.
 *
 * Threads: any. Nothing is kept.
 */
#include "switch_proto.h"

#include <string.h>
#include <sys/socket.h>

#include "lodge/num.h"

#define UML_MAGIC 0xfeedfaceu

enum {
    UML_V3 = 3,
    ADDR_LEN = sizeof(struct sockaddr_un),
    V0_ADDR = 10,
    V1_ADDR = 14,
    V3_ADDR = 12,
    TYPE_NEW = 0,       /* REQ_NEW_CONTROL */
    TYPE_NEW_PORT0 = 1, /* vde: a port without a number */
    TYPE_MASK = 0xff,
    TYPE_PORT_SHIFT = 8,
};

static SwParse read_address(const uint8_t *data, size_t len, size_t at, SwRequest *r)
{
    if (len < at + ADDR_LEN)
        return SW_PARSE_MORE;
    memcpy(&r->addr, data + at, ADDR_LEN);
    if (r->addr.sun_family != AF_UNIX)
        return SW_PARSE_BAD;
    r->addr_len = ADDR_LEN;
    if (r->addr.sun_path[0] && !memchr(r->addr.sun_path, 0, sizeof r->addr.sun_path))
        return SW_PARSE_BAD;
    if (r->addr.sun_path[0])
        r->addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
                                  strlen(r->addr.sun_path) + 1);
    return SW_PARSE_OK;
}

SwParse sw_request_parse(const uint8_t *data, size_t len, SwRequest *ret_request)
{
    SwRequest r = {0};
    uint32_t type;
    size_t at;

    if (len < 2 * sizeof(uint32_t))
        return SW_PARSE_MORE;
    if (load_le32(data) != UML_MAGIC) {
        type = load_le32(data);
        at = V0_ADDR;
    } else if (load_le32(data + 4) == UML_V3) {
        if (len < V3_ADDR)
            return SW_PARSE_MORE;
        r.version = UML_V3;
        type = load_le32(data + 8);
        r.port = type >> TYPE_PORT_SHIFT;
        at = V3_ADDR;
    } else {
        r.version = 1;
        type = load_le32(data + 4);
        at = V1_ADDR;
    }
    if ((type & TYPE_MASK) > TYPE_NEW_PORT0 || (r.version != UML_V3 && type != TYPE_NEW))
        return SW_PARSE_BAD;
    SwParse got = read_address(data, len, at, &r);
    if (got != SW_PARSE_OK)
        return got;
    if (r.version == UML_V3 && len > at + ADDR_LEN) {
        size_t n = MIN(len - at - ADDR_LEN, sizeof r.descr - 1);
        memcpy(r.descr, data + at + ADDR_LEN, n);
    }
    *ret_request = r;
    return SW_PARSE_OK;
}

static bool ends(const char *s, size_t size)
{
    return memchr(s, 0, size);
}

bool sw_hello_ok(const SwHello *h, size_t len)
{
    return len == sizeof *h && h->magic == SW_HELLO_MAGIC && h->version == SW_HELLO_VERSION &&
           ends(h->name, sizeof h->name) && ends(h->vlan, sizeof h->vlan) &&
           ends(h->arg, sizeof h->arg);
}

bool sw_welcome_ok(const SwWelcome *w, size_t len)
{
    return len == sizeof *w && w->magic == SW_HELLO_MAGIC && w->version == SW_HELLO_VERSION &&
           ends(w->text, sizeof w->text);
}
