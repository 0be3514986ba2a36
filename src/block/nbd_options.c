/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server's handshake: greeting, options, until the export is used.
 *
 * An option is looked at when it is whole in the buffer, at most NBD_OPTION_MAX bytes; a longer one
 * ends the connection, as the protocol allows. Each length inside is compared with what is left
 * before it is used. STARTTLS and whatever else is not known is answered with ERR_UNSUP. The empty
 * name stands for the one export that there is.
 *
 * Spec: NBD project, doc/proto.md, "Fixed newstyle negotiation", "Option types", "Metadata
 * querying".
 */
#include <string.h>

#include "lodge/num.h"

#include "nbd_server_int.h"

#define GREETING_BYTES 18u
#define CLIENT_FLAGS_BYTES 4u
#define ZEROES 124u /* behind the answer to EXPORT_NAME, unless both want none */
#define REPLY_HEADER 20u
#define INFO_MAX 32u /* bytes of an answer without a name */
#define ALLOCATION_ID 1u
#define QUERY_ALL "base:"

/* What is left of an option's data. */
typedef struct Cursor {
    const uint8_t *p;
    size_t left;
} Cursor;

static bool take_u16(Cursor *c, uint16_t *ret)
{
    if (c->left < 2)
        return false;
    *ret = load_be16(c->p);
    c->p += 2;
    c->left -= 2;
    return true;
}

static bool take_u32(Cursor *c, uint32_t *ret)
{
    if (c->left < 4)
        return false;
    *ret = load_be32(c->p);
    c->p += 4;
    c->left -= 4;
    return true;
}

/* A length and so many bytes. */
static bool take_string(Cursor *c, const char **ret, uint32_t *ret_len)
{
    if (!take_u32(c, ret_len) || *ret_len > c->left || *ret_len > NBD_STRING_MAX)
        return false;
    *ret = (const char *)c->p;
    c->p += *ret_len;
    c->left -= *ret_len;
    return true;
}

static bool is_ours(const NbdConn *c, const char *name, size_t len)
{
    return len == 0 || (len == strlen(c->server->name) && !memcmp(name, c->server->name, len));
}

/* ---- answers ---- */

static bool reply(NbdConn *c, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
    uint8_t head[REPLY_HEADER + INFO_MAX + NBD_STRING_MAX];

    store_be64(head, NBD_REPLY_MAGIC);
    store_be32(head + 8, option);
    store_be32(head + 12, type);
    store_be32(head + 16, len);
    memcpy(head + REPLY_HEADER, data ? data : "", len);
    return nbd_conn_send(c, head, REPLY_HEADER + len, NULL, NULL, 0);
}

static bool ack(NbdConn *c, uint32_t option)
{
    return reply(c, option, NBD_REP_ACK, NULL, 0);
}

/* An error with words for people. */
static bool refuse(NbdConn *c, uint32_t option, uint32_t type, const char *words)
{
    return reply(c, option, type, words, (uint32_t)strlen(words));
}

static bool invalid(NbdConn *c, uint32_t option)
{
    return refuse(c, option, NBD_REP_ERR_INVALID, "malformed option");
}

void nbd_greet(NbdConn *c)
{
    uint8_t b[GREETING_BYTES];

    store_be64(b, NBD_MAGIC);
    store_be64(b + 8, NBD_OPTION_MAGIC);
    store_be16(b + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    nbd_conn_send(c, b, sizeof b, NULL, NULL, 0);
}

uint16_t nbd_export_flags(const NbdConn *c)
{
    const NbdServer *s = c->server;
    uint16_t flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA;

    if (!s->config.writable)
        flags |= NBD_READ_ONLY;
    else if (s->config.node->limits.discard_max)
        flags |= NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES | NBD_SEND_FAST_ZERO;
    if (c->structured)
        flags |= NBD_SEND_DF;
    if (s->config.clients > 1)
        flags |= NBD_CAN_MULTI_CONN; /* they share a node, and so its flush */
    return flags;
}

/* ---- options ---- */

static bool export_name(NbdConn *c, const uint8_t *data, uint32_t len)
{
    uint8_t b[8 + 2 + ZEROES] = {0};

    if (!is_ours(c, (const char *)data, len))
        return false; /* there is no other way to say no */
    store_be64(b, c->server->config.node->limits.size);
    store_be16(b + 8, nbd_export_flags(c));
    nbd_conn_enter(c);
    return nbd_conn_send(c, b, c->no_zeroes ? 10 : sizeof b, NULL, NULL, 0);
}

static bool list(NbdConn *c)
{
    uint8_t b[4 + NBD_STRING_MAX];
    uint32_t len = (uint32_t)strlen(c->server->name);

    store_be32(b, len);
    memcpy(b + 4, c->server->name, len);
    return reply(c, NBD_OPT_LIST, NBD_REP_SERVER, b, 4 + len) && ack(c, NBD_OPT_LIST);
}

static bool send_infos(NbdConn *c, uint32_t option, bool block_size, bool name)
{
    const BlkLimits *l = &c->server->config.node->limits;
    uint8_t b[2 + NBD_STRING_MAX];
    size_t len = strlen(c->server->name);

    store_be16(b, NBD_INFO_EXPORT);
    store_be64(b + 2, l->size);
    store_be16(b + 10, nbd_export_flags(c));
    if (!reply(c, option, NBD_REP_INFO, b, 12))
        return false;
    if (block_size) {
        store_be16(b, NBD_INFO_BLOCK_SIZE);
        store_be32(b + 2, l->align);
        store_be32(b + 6, MAX(l->block, l->align));
        store_be32(b + 10, NBD_PAYLOAD_MAX);
        if (!reply(c, option, NBD_REP_INFO, b, 14))
            return false;
    }
    if (!name)
        return true;
    store_be16(b, NBD_INFO_NAME);
    memcpy(b + 2, c->server->name, len);
    return reply(c, option, NBD_REP_INFO, b, (uint32_t)(2 + len));
}

/* INFO and GO. */
static bool info(NbdConn *c, uint32_t option, Cursor in)
{
    bool block_size = false, name_asked = false;
    const char *name;
    uint32_t name_len;
    uint16_t n, what;

    if (!take_string(&in, &name, &name_len) || !take_u16(&in, &n) || in.left != n * 2u)
        return invalid(c, option);
    while (take_u16(&in, &what)) {
        block_size |= what == NBD_INFO_BLOCK_SIZE;
        name_asked |= what == NBD_INFO_NAME;
    }
    if (!is_ours(c, name, name_len))
        return refuse(c, option, NBD_REP_ERR_UNKNOWN, "no export of that name");
    if (!send_infos(c, option, block_size, name_asked) || !ack(c, option))
        return false;
    if (option == NBD_OPT_GO)
        nbd_conn_enter(c);
    return true;
}

/* LIST and SET_META_CONTEXT. */
static bool meta_context(NbdConn *c, uint32_t option, Cursor in)
{
    bool set = option == NBD_OPT_SET_META_CONTEXT, found = false;
    const char *name, *query;
    uint32_t name_len, n, len;

    if (!c->structured)
        return refuse(c, option, NBD_REP_ERR_INVALID, "structured replies come first");
    if (!take_string(&in, &name, &name_len) || !take_u32(&in, &n) || n > in.left / 4)
        return invalid(c, option);
    if (set)
        c->meta = false; /* each SET replaces the ones before */
    found = !set && n == 0;
    for (; n; n--) {
        if (!take_string(&in, &query, &len))
            return invalid(c, option);
        found |= len == strlen(NBD_ALLOCATION) && !memcmp(query, NBD_ALLOCATION, len);
        found |= !set && len == strlen(QUERY_ALL) && !memcmp(query, QUERY_ALL, len);
    }
    if (in.left)
        return invalid(c, option);
    if (!is_ours(c, name, name_len))
        return refuse(c, option, NBD_REP_ERR_UNKNOWN, "no export of that name");
    if (found) {
        uint8_t b[4 + sizeof NBD_ALLOCATION - 1];
        store_be32(b, set ? ALLOCATION_ID : 0);
        memcpy(b + 4, NBD_ALLOCATION, sizeof b - 4);
        if (!reply(c, option, NBD_REP_META_CONTEXT, b, sizeof b))
            return false;
        c->meta |= set;
    }
    return ack(c, option);
}

/* False: hang up. */
static bool run_option(NbdConn *c, uint32_t option, const uint8_t *data, uint32_t len)
{
    Cursor in = {data, len};

    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        return export_name(c, data, len);
    case NBD_OPT_ABORT:
        if (ack(c, option))
            nbd_conn_hang_up(c, true);
        return true;
    case NBD_OPT_LIST:
        return len ? invalid(c, option) : list(c);
    case NBD_OPT_STRUCTURED_REPLY:
        if (len)
            return invalid(c, option);
        c->structured = true;
        return ack(c, option);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return info(c, option, in);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return meta_context(c, option, in);
    }
    return refuse(c, option, NBD_REP_ERR_UNSUP, "not known");
}

ssize_t nbd_option(NbdConn *c, const uint8_t *p, size_t len)
{
    if (c->phase == NBD_PHASE_FLAGS) {
        if (len < CLIENT_FLAGS_BYTES)
            return 0;
        uint32_t flags = load_be32(p);
        if (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
            return -1;
        c->no_zeroes = flags & NBD_NO_ZEROES;
        c->phase = NBD_PHASE_OPTIONS;
        return CLIENT_FLAGS_BYTES;
    }
    if (len < NBD_OPTION_HEADER)
        return 0;
    uint32_t option = load_be32(p + 8), data_len = load_be32(p + 12);
    if (load_be64(p) != NBD_OPTION_MAGIC || data_len > NBD_OPTION_MAX)
        return -1;
    if (len < NBD_OPTION_HEADER + data_len)
        return 0;
    return run_option(c, option, p + NBD_OPTION_HEADER, data_len)
               ? (ssize_t)(NBD_OPTION_HEADER + data_len)
               : -1;
}
