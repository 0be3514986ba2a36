/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MCONSOLE_INTERNAL_H
#define LODGE_MCONSOLE_INTERNAL_H

/* Shared by mconsole.c (datagrams, commands), mconsole_plug.c (config and remove) and
 * mconsole_guest.c (what is done inside the guest). */

#include <sys/socket.h>
#include <sys/un.h>

#include "control_internal.h"
#include "mconsole.h"
#include "umid.h"

typedef struct MconsoleReply MconsoleReply;
typedef struct MconsoleGuest MconsoleGuest;

struct Mconsole {
    Control *control; /* borrowed */
    Umid *umid;       /* owned, or NULL */
    char *path;       /* owned; NULL: no socket (fuzzers) */
    char *notify;     /* owned, or NULL */
    int fd;           /* -1: none */
    guint source;     /* 0: there is no socket */
    guint pump;       /* 0: nothing waits for room */
    GPtrArray *replies; /* owned: MconsoleReply, until they are sent */
    unsigned dropped; /* answers, because their clients did not read */
    MconsoleGuest *guest; /* owned; NULL: the machine has no port for it */
};

/* A zeroed @m of @c, without a socket; for mconsole_close(). */
void mconsole_init(Mconsole *m, Control *c);

/* The answer to @r, which is then no longer the caller's. @err: 0, 1, or a negative errno. */
void mconsole_answer(MconsoleReply *r, int err, const char *text);
/* Likewise in parts, the last one empty. */
void mconsole_stream(MconsoleReply *r, const char *text);
void mconsole_stream_bytes(MconsoleReply *r, const char *data, size_t len);

/* A datagram came. @from: its sender; @from_len 0: it has no name, so nobody hears the answer. */
void mconsole_datagram(Mconsole *m, const uint8_t *data, size_t len,
                       const struct sockaddr_un *from, socklen_t from_len);
/* What happens to the machine; as machine_listen() tells it. */
void mconsole_news(Mconsole *m, const MachineNews *news);

/* ---- mconsole_plug.c ---- */
void mconsole_config(Mconsole *m, const char *args, MconsoleReply *r);
void mconsole_remove(Mconsole *m, const char *args, MconsoleReply *r);

/* ---- mconsole_guest.c; a NULL guest is one where nobody is ---- */

/* @chan: of the port lodge.mconsole, a channel without an end on the host; outlives it. */
MconsoleGuest *mconsole_guest_new(Chan *chan);
void mconsole_guest_free(MconsoleGuest *g);
/* Bytes that the guest said; for tests and fuzzers, who have no loop. */
void mconsole_guest_bytes(MconsoleGuest *g, const uint8_t *data, size_t len);
/* The guest starts again: who was there is not. */
void mconsole_guest_restarted(MconsoleGuest *g);
void mconsole_guest_proc(MconsoleGuest *g, const char *file, MconsoleReply *r);
void mconsole_guest_stack(MconsoleGuest *g, const char *pid, MconsoleReply *r);
/* Text to the kernel's log, Ctrl-Alt-Del; false: nobody is there. */
bool mconsole_guest_log(MconsoleGuest *g, const char *text);
bool mconsole_guest_cad(MconsoleGuest *g);
/* The device that comes next: kind "eth" by its name and address, "ubd" by number and serial. */
void mconsole_guest_expect(MconsoleGuest *g, const char *kind, const char *name, const char *value);

#endif
