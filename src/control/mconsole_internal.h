/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MCONSOLE_INTERNAL_H
#define LODGE_MCONSOLE_INTERNAL_H

/* Shared by mconsole.c (datagrams, commands) and mconsole_plug.c (config and remove). */

#include <sys/socket.h>
#include <sys/un.h>

#include "control_internal.h"
#include "mconsole.h"
#include "umid.h"

typedef struct MconsoleReply MconsoleReply;

struct Mconsole {
    Control *control; /* borrowed */
    Umid *umid;       /* owned, or NULL */
    char *path;       /* owned; NULL: no socket (fuzzers) */
    char *notify;     /* owned, or NULL */
    int fd;           /* -1: none */
    guint source;     /* 0: not read now */
    guint pump;       /* 0: nothing waits for room */
    GPtrArray *replies; /* owned: MconsoleReply, until they are sent */
};

/* A zeroed @m of @c, without a socket; for mconsole_close(). */
void mconsole_init(Mconsole *m, Control *c);

/* The answer to @r, which is then no longer the caller's. @err: 0, 1, or a negative errno. */
void mconsole_answer(MconsoleReply *r, int err, const char *text);
/* Likewise in parts, the last one empty. */
void mconsole_stream(MconsoleReply *r, const char *text);

/* A datagram came. @from: its sender; @from_len 0: it has no name, so nobody hears the answer. */
void mconsole_datagram(Mconsole *m, const uint8_t *data, size_t len,
                       const struct sockaddr_un *from, socklen_t from_len);
/* What happens to the machine; as machine_listen() tells it. */
void mconsole_news(Mconsole *m, const MachineNews *news);

/* ---- mconsole_plug.c ---- */
void mconsole_config(Mconsole *m, const char *args, MconsoleReply *r);
void mconsole_remove(Mconsole *m, const char *args, MconsoleReply *r);

#endif
