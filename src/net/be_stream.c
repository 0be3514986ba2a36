/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "stream": frames over a stream socket, each behind its length in four bytes, most significant
 * first, as passt and QEMU's -netdev stream have them. A client connects when the machine is
 * built and again whenever the connection is lost; a server has one client at a time, further ones
 * are turned away. A length that no frame can have ends the connection, since what follows it means
 * nothing.
 *
 * What the socket has no room for waits at the card, but for the rest of a frame that was begun,
 * which is kept here: at most one. Threads and invariants: host_end.c.
 */
#include "driver_table.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"
#include "host_end.h"
#include "opts.h"
#include "pkt.h"

enum {
    LENGTH = 4,
    TX_FRAMES = 64, /* of one sendmsg */
    TX_IOV = 1024,  /* likewise: UIO_MAXIOV */
    TAIL_MAX = LENGTH + NET_FRAME_MAX,
    FIRST_MS = 10000, /* for the first connection, which somebody waits for */
    AGAIN_MS = 200,   /* for later ones, which hold up this interface alone */
    BACKLOG = 4,
};

typedef struct Stream {
    HostEnd h;
    /* Constant: */
    NetAddr addr;
    bool server;
    int given; /* owned; a connected socket from outside, -1: none */
    int listen_fd; /* owned; -1: none */
    char *path; /* owned; of the listening socket's file, to be removed */
    /* Loop only: */
    IoWatch *listen_watch;
    uint32_t rx_at, rx_end; /* bytes of h.rx received and not looked at */
    uint8_t *tail;          /* owned; TAIL_MAX bytes: the rest of a frame that was begun */
    uint32_t tail_at, tail_len;
} Stream;

/* ---- receiving ---- */

/* Frames that are there whole. Return: false: the stream is out of step. */
static bool parse(Stream *s)
{
    HostEnd *h = &s->h;

    while (h->rx_count < HOST_RX_BATCH && s->rx_end - s->rx_at >= LENGTH) {
        uint32_t len = load_be32(h->rx + s->rx_at);
        if (len > NET_FRAME_MAX) {
            h->why = "the other end sent a length that no frame has";
            return false;
        }
        if (s->rx_end - s->rx_at - LENGTH < len)
            break;
        (void)host_end_rx(h, h->rx + s->rx_at + LENGTH, len); /* one too short is counted */
        s->rx_at += LENGTH + len;
    }
    return true;
}

static int stream_fill(HostEnd *h)
{
    Stream *s = (Stream *)h;

    /* What is left of the last read first; nothing points into the buffer now. */
    if (!parse(s))
        return HOST_FILL_LOST;
    if (h->rx_count)
        return (int)h->rx_count;
    memmove(h->rx, h->rx + s->rx_at, s->rx_end - s->rx_at);
    s->rx_end -= s->rx_at;
    s->rx_at = 0;
    ssize_t n = recv(h->fd, h->rx + s->rx_end, HOST_RX_BYTES - s->rx_end, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return HOST_FILL_DRY;
    if (n <= 0) {
        h->why = s->rx_end ? "the other end has gone in the middle of a frame"
                           : "the other end has closed the connection";
        return HOST_FILL_LOST;
    }
    s->rx_end += (uint32_t)n;
    return parse(s) ? (int)MAX(h->rx_count, 1u) : HOST_FILL_LOST;
}

/* ---- sending ---- */

/* Write what was begun; false: not all of it went. */
static bool flush_tail(Stream *s)
{
    HostEnd *h = &s->h;

    while (s->tail_at < s->tail_len) {
        ssize_t n = send(h->fd, s->tail + s->tail_at, s->tail_len - s->tail_at,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return false;
        if (n < 0) {
            host_end_lost(h, "the other end has closed the connection");
            return false;
        }
        s->tail_at += (uint32_t)n;
    }
    s->tail_at = s->tail_len = 0;
    return true;
}

static void stream_ready(HostEnd *h)
{
    if (flush_tail((Stream *)h))
        host_end_want_out(h, false);
}

/* Keep what was not sent of @f, of which @sent bytes went with its length. */
static void keep_tail(Stream *s, const NetFrame *f, size_t sent)
{
    store_be32(s->tail, f->len);
    if (!pkt_gather(f, 0, s->tail + LENGTH, f->len))
        memset(s->tail + LENGTH, 0, f->len); /* the length is out: something has to follow */
    s->tail_at = (uint32_t)sent;
    s->tail_len = LENGTH + f->len;
    host_end_want_out(&s->h, true);
}

/* As many frames as go into one message. */
static unsigned gather(const NetFrame *v, unsigned n, uint8_t (*length)[LENGTH], struct iovec *iov,
                       unsigned *ret_iovs)
{
    unsigned frames = 0, k = 0;

    while (frames < n && frames < TX_FRAMES && v[frames].niov + 1 <= TX_IOV - k) {
        store_be32(length[frames], v[frames].len);
        iov[k++] = (struct iovec){length[frames], LENGTH};
        memcpy(&iov[k], v[frames].iov, v[frames].niov * sizeof *iov);
        k += v[frames].niov;
        frames++;
    }
    *ret_iovs = k;
    return frames;
}

static unsigned stream_send(HostEnd *h, const NetFrame *v, unsigned n)
{
    Stream *s = (Stream *)h;
    uint8_t length[TX_FRAMES][LENGTH];
    struct iovec iov[TX_IOV];
    unsigned taken = 0;

    if (s->tail_len && !flush_tail(s))
        return 0;
    while (taken < n) {
        struct msghdr m = {.msg_iov = iov};
        unsigned iovs, frames = gather(v + taken, n - taken, length, iov, &iovs);
        if (!frames) { /* of too many pieces for one message: as a tail of which nothing went */
            keep_tail(s, &v[taken++], 0);
            if (!flush_tail(s))
                return taken;
            host_end_want_out(h, false);
            continue;
        }
        m.msg_iovlen = iovs;
        ssize_t sent = sendmsg(h->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return taken;
        if (sent < 0) {
            host_end_lost(h, "the other end has closed the connection");
            return taken;
        }
        for (unsigned i = 0; i < frames && sent > 0; i++, taken++) {
            size_t whole = LENGTH + (size_t)v[taken].len;
            if ((size_t)sent < whole) {
                keep_tail(s, &v[taken], (size_t)sent);
                return taken + 1;
            }
            sent -= (ssize_t)whole;
        }
    }
    return taken;
}

static void stream_lost(HostEnd *h)
{
    Stream *s = (Stream *)h;

    s->rx_at = s->rx_end = s->tail_at = s->tail_len = 0;
}

/* ---- the connection ---- */

static void prepare(int fd, const NetAddr *a)
{
    int one = 1;

    /* A socket from outside may be of any family: what does not fit fails, to no harm. */
    if (a->sa.ss_family != AF_UNIX)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* 0 or an errno. */
static int connect_within(int fd, const NetAddr *a, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    socklen_t len = sizeof(int);
    int err = 0;

    if (connect(fd, (const struct sockaddr *)&a->sa, a->len) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    if (poll(&p, 1, ms) <= 0)
        return ETIMEDOUT;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return errno;
    return err;
}

static bool stream_connect(HostEnd *h, bool first, GError **error)
{
    Stream *s = (Stream *)h;

    if (s->given >= 0) {
        h->fd = s->given;
        s->given = -1;
        prepare(h->fd, &s->addr);
        return true;
    }
    if (s->server)
        return true;
    int fd = socket(s->addr.sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return lodge_fail_errno(error, errno, "stream: cannot make a socket");
    int err = connect_within(fd, &s->addr, first ? FIRST_MS : AGAIN_MS);
    if (err) {
        close(fd);
        if (err == ENOENT || err == ECONNREFUSED)
            return lodge_fail(error, LODGE_ERROR_HOST,
                              "stream: %s: nobody listens there; start the other end first, or "
                              "add server=on",
                              h->detail);
        return lodge_fail_errno(error, err, "stream: %s: cannot connect", h->detail);
    }
    prepare(fd, &s->addr);
    h->fd = fd;
    return true;
}

/* Whether the other end of a connection has left, and nothing of it is to be read. */
static bool has_left(int fd)
{
    uint8_t b;

    return recv(fd, &b, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* A process without descriptors left stops listening, and does not spin on what it cannot have. */
static void on_client(void *opaque, uint32_t events)
{
    Stream *s = opaque;

    for (unsigned i = 0; i < BACKLOG; i++) {
        g_autoptr(GError) error = NULL;
        int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                lodge_warn("%s: %s: no longer listening: %s", s->h.id, s->h.detail,
                           g_strerror(errno));
                io_watch_set(s->listen_watch, 0);
            }
            break;
        }
        if (s->h.fd >= 0 && has_left(s->h.fd)) /* its event comes after this one */
            host_end_lost(&s->h, "the other end has closed the connection");
        if (s->h.fd >= 0) {
            close(fd);
            continue;
        }
        prepare(fd, &s->addr);
        s->h.fd = fd;
        bool up = host_end_up(&s->h, &error);
        if (!host_end_may_say(&s->h))
            continue;
        if (up)
            lodge_note("%s: %s: connected", s->h.id, s->h.detail);
        else
            lodge_warn("%s: %s: %s", s->h.id, s->h.detail, error->message);
    }
}

static const HostEndOps stream_ops = {
    .connect = stream_connect,
    .fill = stream_fill,
    .send = stream_send,
    .ready = stream_ready,
    .lost = stream_lost,
};

/* ---- life ---- */

static const NetOptSpec stream_opts[] = {
    {"addr", "unix:PATH or tcp:HOST:PORT; stream=ADDR is the same"},
    {"server", "on|off: listen there for the other end (off)"},
    {"fd", "number of a connected stream socket, instead of an address"},
    {NULL},
};

static bool stream_listen(Stream *s, GError **error)
{
    const struct sockaddr *sa = (const struct sockaddr *)&s->addr.sa;
    const char *path = ((const struct sockaddr_un *)sa)->sun_path;
    int one = 1;

    s->listen_fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listen_fd < 0)
        return lodge_fail_errno(error, errno, "stream: cannot make a socket");
    if (sa->sa_family != AF_UNIX)
        (void)setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    else if (!net_unix_clear(path, SOCK_STREAM, error))
        return false;
    if (bind(s->listen_fd, sa, s->addr.len) < 0)
        return lodge_fail_errno(error, errno, "stream: %s: cannot listen", s->h.detail);
    if (sa->sa_family == AF_UNIX)
        s->path = g_strdup(path);
    if (listen(s->listen_fd, BACKLOG) < 0)
        return lodge_fail_errno(error, errno, "stream: %s: cannot listen", s->h.detail);
    s->listen_watch = io_watch_new(s->h.io, s->listen_fd, EPOLLIN, on_client, s, error);
    return s->listen_watch != NULL;
}

static void stream_close(NetBackend *be)
{
    Stream *s = (Stream *)be;

    io_watch_free(s->listen_watch);
    host_end_stop(&s->h);
    host_end_free(&s->h);
    if (s->path)
        (void)unlink(s->path); /* somebody else may have been quicker */
    g_free(s->path);
    if (s->listen_fd >= 0)
        close(s->listen_fd);
    if (s->given >= 0)
        close(s->given);
    g_free(s->tail);
    g_free(s);
}

static bool stream_given(Stream *s, GError **error)
{
    int type, flags = fcntl(s->given, F_GETFL);
    socklen_t len = sizeof type;

    if (flags < 0 || getsockopt(s->given, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        type != SOCK_STREAM)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "stream: fd=%d is not a stream socket",
                          s->given);
    if (fcntl(s->given, F_SETFL, flags | O_NONBLOCK) < 0)
        return lodge_fail_errno(error, errno, "stream: fd=%d", s->given);
    g_snprintf(s->h.detail, sizeof s->h.detail, "stream fd=%d", s->given);
    return true;
}

static NetBackend *stream_open(const char *id, GHashTable *opts, LodgeClock *clock, GError **error)
{
    const char *addr = net_opt(opts, "addr");
    bool server;
    int fd;

    if (!net_opt_fd(opts, &fd, error) || !net_opt_switch(opts, "server", false, &server, error))
        return NULL;
    if (!addr == (fd < 0) || (server && fd >= 0)) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "stream: needs an address or a descriptor; write stream=unix:PATH, "
                   "stream=tcp:HOST:PORT or stream,fd=N");
        return NULL;
    }
    Stream *s = g_new0(Stream, 1);
    s->h.be.close = stream_close;
    s->h.again = !server && fd < 0;
    s->h.polls_room = true;
    s->server = server;
    s->given = fd;
    s->listen_fd = -1;
    s->tail = g_malloc(TAIL_MAX);
    g_snprintf(s->h.detail, sizeof s->h.detail, "%s", addr ? addr : "");
    if (host_end_open(&s->h, &net_driver_stream, &stream_ops, id, clock, 0, error) &&
        (fd < 0 ? net_addr_parse(addr, "tcp", SOCK_STREAM, server, &s->addr, error)
                : stream_given(s, error)) &&
        host_end_start(&s->h, error) && (!server || stream_listen(s, error)))
        return &s->h.be;
    stream_close(&s->h.be);
    return NULL;
}

const NetDriver net_driver_stream = {
    .name = "stream",
    .help = "frames over a stream socket: passt, QEMU, another machine",
    .opts = stream_opts,
    .target = "addr",
    .open = stream_open,
};
