/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_NBD_SERVER_INT_H
#define LODGE_NBD_SERVER_INT_H

/* What the parts of the NBD server know of each other. All on the node's IoThread. */

#include "lodge/iothread.h"

#include "nbd_proto.h"
#include "nbd_server.h"

#define NBD_IN_MAX ((size_t)64 << 10)   /* bytes of one option, and read ahead */
#define NBD_OPTION_MAX (NBD_IN_MAX - NBD_OPTION_HEADER)
#define NBD_TASKS_MAX 64u               /* requests of a client, until they are answered */
#define NBD_BYTES_MAX NBD_PAYLOAD_MAX   /* of their data; one request alone may pass it */
#define NBD_HANDSHAKE_S 20              /* until a client uses the export */

typedef struct NbdConn NbdConn;

/* Something to send; freed when it is sent. */
typedef struct NbdOut {
    struct NbdOut *next;
    const uint8_t *data; /* borrowed from task, or NULL */
    size_t data_len, head_len, sent;
    struct NbdTask *task; /* owned, or NULL: it is over when this is sent */
    uint8_t head[];
} NbdOut;

typedef enum NbdPhase { NBD_PHASE_FLAGS, NBD_PHASE_OPTIONS, NBD_PHASE_REQUESTS } NbdPhase;

struct NbdServer {
    /* constant */
    NbdServerConfig config;
    char *name; /* owned */
    IoThread *io;
    /* IoThread only */
    GQueue conns;
    int listen_fd; /* owned, or -1 */
    IoWatch *listen; /* owned */
    bool muted;
    LodgeTimer *retry; /* owned; accepting again, where the process was out of something */
    unsigned users; /* clients that use the export */
    /* main waits in nbd_server_free(); guarded by mutex */
    GMutex mutex;
    GCond cond;
    unsigned n_conns;
};

struct NbdConn {
    NbdServer *server; /* borrowed, outlives us */
    GList link;
    int fd; /* owned; -1: hung up */
    IoWatch *watch; /* owned */
    uint32_t events;
    LodgeTimer *timer; /* owned; until the export is used */
    NbdPhase phase;
    bool no_zeroes, structured, meta; /* negotiated */
    bool closing; /* when all is sent; nothing is read any more */
    bool busy; /* conn_run() is on the stack */
    uint8_t *in; /* owned; NBD_IN_MAX bytes */
    size_t in_len;
    struct NbdTask *payload; /* owned; a WRITE whose data is coming in */
    size_t payload_got;
    NbdOut *out_head, **out_tail;
    unsigned tasks;   /* begun and not yet answered */
    uint64_t bytes;   /* of their data */
    unsigned running; /* of them, in the block layer */
};

/* ---- nbd_server.c ---- */

/* Queue @head_len bytes and then @data; @task is over when they are sent. False: hung up. */
bool nbd_conn_send(NbdConn *c, const void *head, size_t head_len, struct NbdTask *task,
                   const uint8_t *data, size_t data_len);
/* Drop the client at once, or @after what it asked for is done and sent. */
void nbd_conn_hang_up(NbdConn *c, bool after);
/* The export is in use from now on. */
void nbd_conn_enter(NbdConn *c);
/* Go on sending, parsing and reading, as far as it goes now. */
void nbd_conn_run(NbdConn *c);
/* One request less is in the block layer. True: the client is gone, and *@c may be too. */
bool nbd_conn_back(NbdConn *c);

/* ---- nbd_options.c: before the export is used ---- */

void nbd_greet(NbdConn *c);
uint16_t nbd_export_flags(const NbdConn *c);
/* Take one message from the @len bytes at @p. Return: bytes taken; 0: it is not whole yet; -1: hang
 * up. */
ssize_t nbd_option(NbdConn *c, const uint8_t *p, size_t len);

/* ---- nbd_requests.c ---- */

typedef struct NbdTask NbdTask;

/* As nbd_option(); also 0 while there is no room for another request. */
ssize_t nbd_request(NbdConn *c, const uint8_t *p, size_t len);
/* Where the data of c->payload goes. */
uint8_t *nbd_task_data(NbdTask *t, size_t *ret_len);
/* The data is there. */
void nbd_task_go(NbdTask *t);
/* It is answered, or nobody wants the answer. */
void nbd_task_free(NbdTask *t);

#endif
