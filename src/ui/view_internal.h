/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_VIEW_INTERNAL_H
#define LODGE_VIEW_INTERNAL_H

/* Between who is let in (view.c) and what is carried then (view_relay.c). */

#include "lodge/listener.h"

#include "view.h"
#include "websocket.h"

struct View {
    ViewConfig config; /* folder is NULL here: it is open */
    int folder_fd;
    Listener *listener; /* owned; NULL before view_listen() */
    char *site;   /* owned: HOST:PORT; NULL before view_listen() */
    char *address; /* owned */
    char token[VIEW_TOKEN_LEN + 1];
    GPtrArray *conns; /* ViewConn, owned */
};

typedef enum ViewState {
    VIEW_HEAD,  /* the request comes in */
    VIEW_REPLY, /* the answer goes out, and the connection ends with it */
    VIEW_RELAY, /* a WebSocket */
    VIEW_DRAIN, /* all was said; the browser's end is waited for */
} ViewState;

typedef struct ViewConn {
    View *view; /* borrowed */
    ViewState state;
    int fd;            /* the browser's */
    guint browser_source, machine_source, timer; /* 0: none */
    GByteArray *input; /* of the browser, not looked at yet; empty once the relay has begun */
    GString *reply;    /* to the browser, not sent yet: text, later frames */
    int file;          /* that follows reply; -1: none */
    size_t file_left;
    /* VIEW_RELAY: */
    int machine; /* -1: none */
    WsDecoder decoder;
    GByteArray *to_machine; /* not sent yet */
    bool closing; /* our close frame is the last of reply */
} ViewConn;

void view_conn_step(ViewConn *c, GIOCondition from_browser);
void view_conn_free(ViewConn *c);
void view_conn_deadline(ViewConn *c, unsigned ms); /* freed then; 0: never */
/* Send no more; go to VIEW_DRAIN. */
void view_conn_drain(ViewConn *c);
/* Send of c->reply what goes. False: the browser is gone. */
bool view_flush_reply(ViewConn *c);

/* ---- view_relay.c ---- */

/* c->reply, the handshake, is on its way; c->machine is connected. */
void view_relay_begin(ViewConn *c);
/**
 * view_relay_step() - Carry what there is
 * @hung_up: the browser says and hears no more
 * Return: false: it is over; else what to wait for.
 */
bool view_relay_step(ViewConn *c, bool hung_up, GIOCondition *ret_browser,
                     GIOCondition *ret_machine);

#endif
