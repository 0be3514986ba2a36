/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_WEBSOCKET_H
#define LODGE_WEBSOCKET_H

/* WebSocket, the server's side: the answer to a handshake, frames in, frames out. RFC 6455. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WS_ACCEPT_LEN 28
#define WS_CONTROL_MAX 125u
#define WS_HEADER_MAX 4u    /* of what we send */
#define WS_SEND_MAX 65535u  /* bytes in one frame of ours */

/* Section 5.2 */
enum {
    WS_OP_CONTINUATION = 0,
    WS_OP_TEXT = 1,
    WS_OP_BINARY = 2,
    WS_OP_CLOSE = 8,
    WS_OP_PING = 9,
    WS_OP_PONG = 10,
};

/* Section 7.4.1 */
enum {
    WS_NORMAL = 1000,
    WS_GOING_AWAY = 1001,
    WS_PROTOCOL_ERROR = 1002,
    WS_UNSUPPORTED_DATA = 1003,
};

/* What answers a client's Sec-WebSocket-Key. False: it is not 16 bytes in base64. Section 4.2.2. */
bool ws_accept_key(const char *key, char ret_accept[WS_ACCEPT_LEN + 1]);

typedef enum WsEvent {
    WS_MORE,  /* all was taken, nothing more to tell */
    WS_DATA,  /* bytes of a message: data, data_len */
    WS_PING,  /* to be answered with control, control_len */
    WS_CLOSE, /* the client closes; nothing more may follow */
    WS_BAD,   /* breaks the protocol: close with close_code; nothing more is taken */
} WsEvent;

/* Zero it to begin. */
typedef struct WsDecoder {
    /* Results of ws_decode(): */
    uint8_t *data; /* within what was handed in */
    size_t data_len;
    uint8_t control[WS_CONTROL_MAX];
    unsigned control_len;
    unsigned close_code;
    /* State: */
    uint8_t head[14]; /* of the frame that begins */
    unsigned head_len;
    bool in_payload, in_message; /* more of the frame, of the message is to come */
    bool bad;
    unsigned opcode;
    uint64_t left; /* bytes of the payload */
    uint8_t mask[4];
    unsigned mask_at;
} WsDecoder;

/**
 * ws_decode() - Take what a client sent, up to the next thing to tell
 * @data: unmasked in place
 * @ret_used: how many bytes were taken; hand the rest in again after any answer but WS_MORE
 * A frame may be of any length: its payload is told as it comes.
 */
WsEvent ws_decode(WsDecoder *d, uint8_t *data, size_t len, size_t *ret_used);

/* Header of a whole message of @len bytes, at most WS_SEND_MAX. Return: its length. */
size_t ws_header(uint8_t to[WS_HEADER_MAX], unsigned opcode, size_t len);

#endif
