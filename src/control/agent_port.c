/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest agent's port, in turns.
 *
 * The agent speaks one request and one answer after the other over one stream, so its clients must
 * take turns, and any of them may die in the middle. Bytes are carried between the client whose
 * turn it is and the port, unseen; what the guest says while nobody has the port is thrown away.
 * Each turn begins with a synchronisation by the client (agent.c), so nothing that an earlier one
 * left half said does harm.
 *
 * Both directions are bounded by one piece each, and neither side is read while the other does not
 * take what came before. A client that goes away is noticed even then. One that keeps others
 * waiting for TURN_MS is dropped.
 *
 * A client that is killed cannot end what it began in the guest, so it may leave a will, a request
 * for the agent, which is sent between turns once its connection has ended.
 *
 * Context: main thread, default main context. Invariants: (1) without a client, in.len is 0, and
 * out holds nothing but a will. (2) somebody waits only while there is a client or such a will.
 */
#include "agent_port.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib-unix.h>

#include "lodge/error.h"

#define WAITING_MAX 64u
#define WILLS_MAX 64u
#define FORGET 0xff /* what an agent has half heard; it begins anew behind that */
#define PIECE 65536u
#define TURN_MS 60000u

/* Bytes on their way to one side. */
typedef struct Piece {
    uint8_t *data; /* owned; NULL: not needed yet */
    size_t len, at;
} Piece;

typedef struct Will {
    AgentPort *port;
    int fd;       /* owned; -1: the client is gone */
    guint source; /* 0: the client is gone */
    char *request;
} Will;

struct AgentPort {
    int fd;            /* owned; -1: the guest's end is gone */
    int client;        /* owned; whose turn it is; -1: nobody's */
    GArray *waiting;   /* int, owned: those whose turn comes */
    GPtrArray *wills;  /* Will, owned; those of clients that are gone are to be sent */
    Piece out, in;     /* to the guest; to the client */
    guint port_in, port_out, client_in, client_out, turn; /* sources; 0: not there */
    GIOCondition client_for; /* what client_in looks for */
};

static void update(AgentPort *p);
static void next_turn(AgentPort *p);

static void end_turn(AgentPort *p)
{
    g_clear_handle_id(&p->client_in, g_source_remove);
    g_clear_handle_id(&p->client_out, g_source_remove);
    g_clear_handle_id(&p->turn, g_source_remove);
    if (p->client >= 0)
        close(p->client);
    p->client = -1;
    p->out.len = p->in.len = 0;
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Read into an empty @piece. Return: false: the other side is gone. */
static bool fill(Piece *piece, int fd)
{
    if (!piece->data)
        piece->data = g_malloc(PIECE);
    ssize_t n = recv(fd, piece->data, PIECE, MSG_DONTWAIT);
    piece->at = 0;
    piece->len = n > 0 ? (size_t)n : 0;
    return n > 0 || (n < 0 && would_block());
}

/* Send what @fd takes. Return: false: the other side is gone. */
static bool drain(Piece *piece, int fd)
{
    while (piece->len) {
        ssize_t n = send(fd, piece->data + piece->at, piece->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return would_block();
        piece->at += (size_t)n;
        piece->len -= (size_t)n;
    }
    return true;
}

static void port_gone(AgentPort *p)
{
    g_clear_handle_id(&p->port_in, g_source_remove);
    g_clear_handle_id(&p->port_out, g_source_remove);
    close(p->fd);
    p->fd = -1;
    end_turn(p);
    next_turn(p);
}

/* Move on what there is, in both directions, as far as it goes. */
static void move(AgentPort *p)
{
    if (p->fd >= 0 && p->out.len && !drain(&p->out, p->fd))
        port_gone(p);
    if (p->client < 0 && !p->out.len)
        next_turn(p);
    if (p->client >= 0 && p->in.len && !drain(&p->in, p->client)) {
        end_turn(p);
        next_turn(p);
    }
    update(p);
}

static gboolean on_port(int fd, GIOCondition condition, gpointer opaque)
{
    AgentPort *p = opaque;

    if (!p->in.len && !fill(&p->in, p->fd))
        port_gone(p);
    if (p->client < 0)
        p->in.len = 0; /* an answer that nobody waits for any more; keeps (1) */
    move(p);
    return G_SOURCE_CONTINUE;
}

static gboolean on_client(int fd, GIOCondition condition, gpointer opaque)
{
    AgentPort *p = opaque;
    bool gone = p->out.len ? condition & (G_IO_HUP | G_IO_ERR) : !fill(&p->out, p->client);

    if (gone) {
        end_turn(p);
        next_turn(p);
    }
    move(p);
    return G_SOURCE_CONTINUE;
}

static gboolean on_room(int fd, GIOCondition condition, gpointer opaque)
{
    move(opaque);
    return G_SOURCE_CONTINUE;
}

static gboolean on_turn_over(gpointer opaque)
{
    AgentPort *p = opaque;

    p->turn = 0;
    end_turn(p);
    next_turn(p);
    update(p);
    return G_SOURCE_REMOVE;
}

/* A source is there exactly while it is wanted. */
static void want(guint *source, bool wanted, int fd, GIOCondition what, GUnixFDSourceFunc fn,
                 AgentPort *p)
{
    if (wanted && !*source)
        *source = g_unix_fd_add(fd, what, fn, p);
    else if (!wanted)
        g_clear_handle_id(source, g_source_remove);
}

static void update(AgentPort *p)
{
    /* A client that goes away is seen even while nothing more of it is taken. */
    GIOCondition look = G_IO_HUP | G_IO_ERR | (p->out.len ? 0 : G_IO_IN);

    if (p->client_for != look)
        g_clear_handle_id(&p->client_in, g_source_remove);
    p->client_for = look;
    want(&p->port_in, p->fd >= 0 && !p->in.len, p->fd, G_IO_IN | G_IO_HUP | G_IO_ERR, on_port, p);
    want(&p->port_out, p->fd >= 0 && p->out.len, p->fd, G_IO_OUT, on_room, p);
    want(&p->client_in, p->client >= 0, p->client, look, on_client, p);
    want(&p->client_out, p->client >= 0 && p->in.len, p->client, G_IO_OUT, on_room, p);
    if (p->waiting->len && !p->turn)
        p->turn = g_timeout_add(TURN_MS, on_turn_over, p);
    else if (!p->waiting->len)
        g_clear_handle_id(&p->turn, g_source_remove);
}

static void will_free(void *opaque)
{
    Will *w = opaque;

    g_clear_handle_id(&w->source, g_source_remove);
    if (w->fd >= 0)
        close(w->fd);
    g_free(w->request);
    g_free(w);
}

/* Begin to send the will of one who is gone; it goes on in move(). */
static void take_will(AgentPort *p)
{
    for (unsigned i = 0; i < p->wills->len && p->fd >= 0; i++) {
        const Will *w = g_ptr_array_index(p->wills, i);
        if (w->fd >= 0)
            continue;
        if (!p->out.data)
            p->out.data = g_malloc(PIECE);
        p->out.at = 0;
        p->out.len = (size_t)g_snprintf((char *)p->out.data, PIECE, "%c%s\n", FORGET, w->request);
        g_ptr_array_remove_index(p->wills, i);
        return;
    }
}

/* Keeps (2). */
static void next_turn(AgentPort *p)
{
    static const char turn = AGENT_TURN;

    if (p->client < 0 && !p->out.len)
        take_will(p);
    while (p->waiting->len && p->client < 0 && !p->out.len) {
        int fd = g_array_index(p->waiting, int, 0);
        g_array_remove_index(p->waiting, 0);
        if (p->fd >= 0 && send(fd, &turn, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
            p->client = fd;
        else
            close(fd); /* it did not want to wait so long, or there is no port any more */
    }
}

AgentPort *agent_port_new(int fd)
{
    AgentPort *p = g_new0(AgentPort, 1);

    p->fd = fd;
    p->client = -1;
    p->waiting = g_array_new(FALSE, FALSE, sizeof(int));
    p->wills = g_ptr_array_new_with_free_func(will_free);
    update(p);
    return p;
}

void agent_port_free(AgentPort *p)
{
    if (!p)
        return;
    end_turn(p);
    g_clear_handle_id(&p->port_in, g_source_remove);
    g_clear_handle_id(&p->port_out, g_source_remove);
    for (unsigned i = 0; i < p->waiting->len; i++)
        close(g_array_index(p->waiting, int, i));
    g_array_free(p->waiting, TRUE);
    g_ptr_array_free(p->wills, TRUE);
    if (p->fd >= 0)
        close(p->fd);
    g_free(p->out.data);
    g_free(p->in.data);
    g_free(p);
}

/* Those that wait no more make room. */
static void forget_gone(AgentPort *p)
{
    for (unsigned i = p->waiting->len; i-- > 0;) {
        struct pollfd look = {.fd = g_array_index(p->waiting, int, i)};
        if (poll(&look, 1, 0) > 0) {
            close(look.fd);
            g_array_remove_index(p->waiting, i);
        }
    }
}

static bool has_port(const AgentPort *p, GError **error)
{
    return (p && p->fd >= 0) ||
           lodge_fail(error, LODGE_ERROR_STATE,
                      "the machine has no port for a guest agent; start it with --agent on");
}

/* A byte: all went well, and it is void. */
static gboolean on_will(int fd, GIOCondition condition, gpointer opaque)
{
    Will *w = opaque;
    AgentPort *p = w->port;
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

    if (n < 0 && would_block())
        return G_SOURCE_CONTINUE;
    w->source = 0;
    if (n > 0 || p->fd < 0) {
        g_ptr_array_remove_fast(p->wills, w);
    } else {
        close(w->fd);
        w->fd = -1;
        move(p);
    }
    return G_SOURCE_REMOVE;
}

bool agent_port_add_will(AgentPort *p, int fd, const char *request, GError **error)
{
    bool ok = has_port(p, error) &&
              ((p->wills->len < WILLS_MAX && strlen(request) <= AGENT_WILL_BYTES_MAX) ||
               lodge_fail(error, LODGE_ERROR_LIMIT,
                          "%u wills of at most %u bytes can be left for the guest agent", WILLS_MAX,
                          AGENT_WILL_BYTES_MAX));

    if (!ok) {
        close(fd);
        return false;
    }
    Will *w = g_new0(Will, 1);
    *w = (Will){.port = p, .fd = fd, .request = g_strdup(request)};
    w->source = g_unix_fd_add(fd, G_IO_IN | G_IO_HUP | G_IO_ERR, on_will, w);
    g_ptr_array_add(p->wills, w);
    return true;
}

bool agent_port_add(AgentPort *p, int fd, GError **error)
{
    bool ok = has_port(p, error);

    if (ok && p->waiting->len >= WAITING_MAX) {
        forget_gone(p);
        ok = p->waiting->len < WAITING_MAX ||
             lodge_fail(error, LODGE_ERROR_LIMIT, "%u clients wait for the guest agent already",
                        WAITING_MAX);
    }
    if (!ok) {
        close(fd);
        return false;
    }
    g_array_append_val(p->waiting, fd);
    next_turn(p);
    update(p);
    return true;
}
