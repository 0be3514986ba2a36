/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A WebSocket on one side, the bytes of RFB on the other.
 *
 * Each direction has one buffer, and is read only when that is empty, so that whoever does not read
 * stops the other side and nothing piles up; answers to pings are the exception, and while
 * PONG_ROOM bytes of them wait the browser is not read either. Spec: RFC 6455.
 *
 * Threads: main.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "view_internal.h"

#define CHUNK_BYTES 16384u /* read at a time */
#define PONG_ROOM 65536u
#define CLOSE_MS 2000u

G_STATIC_ASSERT(CHUNK_BYTES <= WS_SEND_MAX);

static void put_frame(ViewConn *c, unsigned opcode, const void *data, size_t len)
{
    uint8_t head[WS_HEADER_MAX];
    size_t n = ws_header(head, opcode, len);

    g_string_append_len(c->reply, (char *)head, (gssize)n);
    g_string_append_len(c->reply, data, (gssize)len);
}

/* Section 5.5.1: nothing follows a close frame. */
static void put_close(ViewConn *c, unsigned code)
{
    uint8_t be[2] = {(uint8_t)(code >> 8), (uint8_t)code};

    put_frame(c, WS_OP_CLOSE, be, sizeof be);
    c->closing = true;
    view_conn_deadline(c, CLOSE_MS);
}

void view_relay_begin(ViewConn *c)
{
    c->state = VIEW_RELAY;
    view_conn_deadline(c, 0);
}

static void take_frames(ViewConn *c, uint8_t *data, size_t len)
{
    size_t used;

    for (size_t at = 0; at < len && !c->closing; at += used) {
        switch (ws_decode(&c->decoder, data + at, len - at, &used)) {
        case WS_MORE:
            break;
        case WS_DATA:
            g_byte_array_append(c->to_machine, c->decoder.data, (guint)c->decoder.data_len);
            break;
        case WS_PING:
            put_frame(c, WS_OP_PONG, c->decoder.control, c->decoder.control_len);
            break;
        case WS_CLOSE:
            put_close(c, WS_NORMAL);
            break;
        case WS_BAD:
            put_close(c, c->decoder.close_code);
            break;
        }
    }
}

static bool may_read_browser(const ViewConn *c)
{
    return !c->closing && !c->to_machine->len && c->reply->len < PONG_ROOM;
}

static bool may_read_machine(const ViewConn *c)
{
    return !c->closing && !c->reply->len;
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* False: the browser is gone. */
static bool read_browser(ViewConn *c)
{
    uint8_t room[CHUNK_BYTES];

    if (c->input->len) { /* came with the request */
        take_frames(c, c->input->data, c->input->len);
        g_byte_array_set_size(c->input, 0);
        return true;
    }
    ssize_t n = recv(c->fd, room, sizeof room, MSG_DONTWAIT);
    if (n > 0)
        take_frames(c, room, (size_t)n);
    return n > 0 || (n < 0 && would_block());
}

static void read_machine(ViewConn *c)
{
    uint8_t room[CHUNK_BYTES];
    ssize_t n = recv(c->machine, room, sizeof room, MSG_DONTWAIT);

    if (n > 0)
        put_frame(c, WS_OP_BINARY, room, (size_t)n);
    else if (!n || !would_block())
        put_close(c, WS_GOING_AWAY);
}

static void flush_machine(ViewConn *c)
{
    while (c->to_machine->len) {
        ssize_t n = send(c->machine, c->to_machine->data, c->to_machine->len,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            g_byte_array_remove_range(c->to_machine, 0, (guint)n);
        } else if (errno != EINTR) {
            if (errno != EAGAIN && errno != EWOULDBLOCK) /* it hung up: its end is read soon */
                g_byte_array_set_size(c->to_machine, 0);
            return;
        }
    }
}

bool view_relay_step(ViewConn *c, bool hung_up, GIOCondition *ret_browser,
                     GIOCondition *ret_machine)
{
    bool read = may_read_browser(c);

    if (read ? !read_browser(c) : hung_up)
        return false;
    if (may_read_machine(c))
        read_machine(c);
    flush_machine(c);
    if (!view_flush_reply(c))
        return false;
    if (c->closing && !c->reply->len) {
        view_conn_drain(c);
        return true;
    }
    *ret_browser = (may_read_browser(c) ? G_IO_IN : 0) | (c->reply->len ? G_IO_OUT : 0);
    *ret_machine = (may_read_machine(c) ? G_IO_IN : 0) | (c->to_machine->len ? G_IO_OUT : 0);
    return true;
}
