/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * WebSocket frames. Spec: RFC 6455.
 *
 * Left out: text messages (closed with 1003), extensions (none is ever agreed on, so their bits are
 * errors), the reason of a close frame.
 *
 * A frame's length is used for counting down only; nothing is allocated. Threads: the owner's.
 *
 * Invariants:
 * (1) in_payload implies left > 0, and control_len + left <= WS_CONTROL_MAX for a control frame.
 */
#include "websocket.h"

#include <string.h>

#include <glib.h>

#include "lodge/num.h"

#define KEY_LEN 24 /* 16 bytes in base64 */
#define SHA1_LEN 20

/* Section 5.2 */
#define HEAD_FIN 0x80
#define HEAD_RESERVED 0x70
#define HEAD_OPCODE 0x0f
#define HEAD_CONTROL 0x08 /* of the opcode */
#define HEAD_MASK 0x80
#define HEAD_LEN 0x7f
#define LEN_16 126u
#define LEN_64 127u

bool ws_accept_key(const char *key, char ret_accept[WS_ACCEPT_LEN + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* section 1.3 */
    guint8 digest[SHA1_LEN];
    gsize len = sizeof digest;

    if (strlen(key) != KEY_LEN || strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                              "0123456789+/") != KEY_LEN - 2 ||
        strcmp(key + KEY_LEN - 2, "=="))
        return false;
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA1);
    g_checksum_update(sum, (const guchar *)key, KEY_LEN);
    g_checksum_update(sum, (const guchar *)guid, sizeof guid - 1);
    g_checksum_get_digest(sum, digest, &len);
    g_autofree char *text = g_base64_encode(digest, len);
    memcpy(ret_accept, text, WS_ACCEPT_LEN + 1);
    return true;
}

static WsEvent bad(WsDecoder *d, unsigned code)
{
    d->bad = true;
    d->close_code = code;
    return WS_BAD;
}

/* How long the header is, as far as its first two bytes say. */
static unsigned head_want(const WsDecoder *d)
{
    unsigned len = d->head_len < 2 ? 0 : d->head[1] & HEAD_LEN;

    return d->head_len < 2 ? 2 : 2 + (len == LEN_16 ? 2 : len == LEN_64 ? 8 : 0) + 4;
}

/* Section 5.2, the length: false where a shorter form would have done, or the top bit is set. */
static bool payload_len(const WsDecoder *d, uint64_t *ret_len)
{
    uint64_t len = d->head[1] & HEAD_LEN;

    if (len == LEN_16) {
        len = load_be16(d->head + 2);
        if (len < LEN_16)
            return false;
    } else if (len == LEN_64) {
        len = load_be64(d->head + 2);
        if (len <= UINT16_MAX || len > INT64_MAX)
            return false;
    }
    *ret_len = len;
    return true;
}

/* The header is whole: WS_MORE, or what is wrong. */
static WsEvent begin_frame(WsDecoder *d)
{
    bool fin = d->head[0] & HEAD_FIN;

    d->opcode = d->head[0] & HEAD_OPCODE;
    if ((d->head[0] & HEAD_RESERVED) || !payload_len(d, &d->left))
        return bad(d, WS_PROTOCOL_ERROR);
    memcpy(d->mask, d->head + d->head_len - 4, 4);
    d->mask_at = 0;
    d->head_len = 0;
    if (d->opcode & HEAD_CONTROL) {
        if (d->opcode > WS_OP_PONG || !fin || d->left > WS_CONTROL_MAX ||
            (d->opcode == WS_OP_CLOSE && d->left == 1)) /* section 5.5 */
            return bad(d, WS_PROTOCOL_ERROR);
        d->control_len = 0;
    } else {
        if (d->opcode == WS_OP_TEXT)
            return bad(d, WS_UNSUPPORTED_DATA);
        if (d->opcode > WS_OP_BINARY || d->in_message != (d->opcode == WS_OP_CONTINUATION))
            return bad(d, WS_PROTOCOL_ERROR); /* section 5.4 */
        d->in_message = !fin;
    }
    d->in_payload = d->left > 0;
    return WS_MORE;
}

static WsEvent end_control(WsDecoder *d)
{
    switch (d->opcode) {
    case WS_OP_PING:
        return WS_PING;
    case WS_OP_CLOSE:
        return WS_CLOSE;
    default:
        return WS_MORE; /* an answer to nothing: section 5.5.3 allows it */
    }
}

static WsEvent take_payload(WsDecoder *d, uint8_t *data, size_t len, size_t *ret_used)
{
    size_t n = (size_t)MIN(d->left, len);

    for (size_t i = 0; i < n; i++)
        data[i] ^= d->mask[d->mask_at++ % 4];
    d->left -= n;
    d->in_payload = d->left > 0;
    *ret_used = n;
    if (!(d->opcode & HEAD_CONTROL)) {
        d->data = data;
        d->data_len = n;
        return WS_DATA;
    }
    memcpy(d->control + d->control_len, data, n); /* keeps (1) */
    d->control_len += (unsigned)n;
    return d->in_payload ? WS_MORE : end_control(d);
}

WsEvent ws_decode(WsDecoder *d, uint8_t *data, size_t len, size_t *ret_used)
{
    size_t used = 0, n;
    WsEvent what = d->bad ? WS_BAD : WS_MORE;

    while (what == WS_MORE && used < len) {
        if (d->in_payload) {
            what = take_payload(d, data + used, len - used, &n);
            used += n;
            continue;
        }
        d->head[d->head_len++] = data[used++];
        if (d->head_len == 2 && !(d->head[1] & HEAD_MASK)) { /* section 5.1 */
            what = bad(d, WS_PROTOCOL_ERROR);
            continue;
        }
        if (d->head_len < head_want(d))
            continue;
        what = begin_frame(d);
        if (what == WS_MORE && !d->left && (d->opcode & HEAD_CONTROL))
            what = end_control(d);
    }
    *ret_used = used;
    return what;
}

size_t ws_header(uint8_t to[WS_HEADER_MAX], unsigned opcode, size_t len)
{
    to[0] = (uint8_t)(HEAD_FIN | opcode);
    if (len < LEN_16) {
        to[1] = (uint8_t)len;
        return 2;
    }
    to[1] = LEN_16;
    store_be16(to + 2, (uint16_t)len);
    return 4;
}
