/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "user": a network without privileges, by libslirp 4.7. Unless told, the guest sees 10.0.2.0/24
 * with the gateway (and the host) at .2, a name server at .3, DHCP leases from .15, and fec0::/64.
 *
 * Everything of libslirp happens on one IoThread named "net" (it is not thread-safe). Its
 * descriptors live in an epoll set of our own, which the IoThread watches as one descriptor: sets
 * may be nested, and libslirp may close and reopen a descriptor at any time, which a set of our
 * own survives (a stale number gives ENOENT and is added again). After each round of the loop
 * user_idle() lets libslirp act on what is ready and asks it what it waits for next; the time
 * that it wants is a guest timer, so a paused guest's connections do not time out.
 *
 * Guest to host: user_send() gives each frame to slirp_input(), after two repairs. Urgent TCP data
 * becomes ordinary: versions before 4.9.2 underflow a length in it and read host memory
 * (CVE-2026-9539). Fragments of TCP are dropped, since they could hide an urgent pointer and no
 * stack makes them. Protocol emulation (tcp_emu) stays off. What a guest repeats to the TFTP server
 * is answered here, see tftp.c.
 * Host to guest: the card works on this thread too, so send_packet copies into the guest's buffers.
 * When it has none the frame waits in the wire's ring or in a backlog, as libslirp cannot be
 * refused, and until the backlog has gone libslirp is not told of anything that its sockets have to
 * read: a guest that does not read holds the host's senders up. So the backlog has what libslirp had
 * taken in already; only what is more than BACKLOG_BYTES_MAX is dropped and counted.
 *
 * Long frames: libslirp spends as much on a short segment as on a long one, so TCP between it and
 * the guest is in segments far longer than the MTU where the guest's card takes such. What the
 * guest leaves to be segmented goes on in one piece. libslirp is told the greatest MTU, and the
 * guest's SYN is given an MSS to match, if it allowed what our own MTU has room for; what comes
 * then is marked to be segmented at that MTU, which guest or wire do. Long datagrams libslirp
 * leaves whole for the same reason, and they are fragmented here.
 *
 * Left out: IPv6 forwards. A reset of the guest changes nothing here.
 */
#include "driver_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <libslirp.h>

#include "lodge/clock.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"
#include "backlog.h"
#include "hostfwd.h"
#include "pkt.h"
#include "tftp.h"
#include "user_opts.h"
#include "wire.h"

enum {
    READY_BATCH = 64,
    PORT_TRIES = 16, /* for a free port that somebody snatches away */
    MSS_LONG = USER_MTU_MAX - PKT_IP6_LEN - PKT_TCP_LEN,
    READING = SLIRP_POLL_IN | SLIRP_POLL_PRI | SLIRP_POLL_HUP,
    FRAME_MIN = 60,  /* Ethernet without its check sequence */
    SLIRP_CONFIG_VERSION = 4,
};

#define NS_PER_MS INT64_C(1000000)

/* What the nested set knows of a descriptor; index in the table is the descriptor. */
typedef struct UserFd {
    uint32_t wanted;  /* EPOLL* registered in the set; 0: not there */
    uint32_t ready;   /* EPOLL* seen by the last epoll_wait() */
    uint32_t round;   /* of the last fill that named it */
} UserFd;

typedef struct UserNet {
    NetBackend be;
    NetPort port;
    char *id;          /* owned */
    LodgeClock *clock; /* borrowed, outlives us */
    IoThread *io;      /* owned */
    GArray *forwards;  /* HostFwd, as they became; main thread */

    /* "net" thread only */
    Slirp *slirp;
    int set;           /* epoll of libslirp's descriptors; owned */
    IoWatch *watch;    /* of set */
    LodgeTimer *timer; /* libslirp's next deadline */
    GArray *fds;       /* UserFd */
    uint32_t round;
    bool due;    /* something became ready: slirp_pollfds_poll() is called */
    bool filled; /* slirp_pollfds_fill() was called since the last poll */
    uint8_t *frame; /* owned; NET_FRAME_MAX bytes, a guest's frame in one piece */
    bool serves_tftp;
    Tftp tftp;
    Backlog backlog; /* for the guest; nothing is read for it meanwhile */

    uint64_t bad, pieces; /* atomic: frames not given to libslirp */
} UserNet;

/* libslirp's timers, made through its callback. */
typedef struct UserTimer {
    UserNet *u;
    LodgeTimer *timer;
    SlirpTimerId id;
    void *cb_opaque;
} UserTimer;

/* ---- descriptors ---- */

static UserFd *fd_slot(UserNet *u, int fd)
{
    if ((guint)fd >= u->fds->len)
        g_array_set_size(u->fds, (guint)fd + 1); /* cleared; bounded by RLIMIT_NOFILE */
    return &g_array_index(u->fds, UserFd, fd);
}

static void fd_forget(UserNet *u, int fd)
{
    if (fd < 0 || (guint)fd >= u->fds->len)
        return;
    UserFd *f = fd_slot(u, fd);
    if (f->wanted)
        (void)epoll_ctl(u->set, EPOLL_CTL_DEL, fd, NULL); /* closed already: nothing to take out */
    *f = (UserFd){0};
}

static int user_add_poll(int fd, int events, void *opaque)
{
    UserNet *u = opaque;
    UserFd *f = fd_slot(u, fd);
    struct epoll_event ev = {.data.fd = fd};

    if (!backlog_empty(&u->backlog))
        events &= ~READING;
    ev.events = (events & SLIRP_POLL_IN ? EPOLLIN : 0) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
                (events & SLIRP_POLL_PRI ? EPOLLPRI : 0) |
                (events & SLIRP_POLL_HUP ? EPOLLRDHUP : 0);
    f->round = u->round;
    f->ready = 0;
    if (f->wanted == ev.events)
        return fd;
    if (!ev.events) { /* in the set, it would tell of hang-ups all the time */
        fd_forget(u, fd);
        return fd;
    }
    if (epoll_ctl(u->set, f->wanted ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev) < 0) {
        int other = errno == ENOENT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
        if ((errno != ENOENT && errno != EEXIST) || epoll_ctl(u->set, other, fd, &ev) < 0) {
            lodge_trace("net", "%s: descriptor %d cannot be watched: %s", u->id, fd,
                        g_strerror(errno));
            f->wanted = 0;
            return fd;
        }
    }
    f->wanted = ev.events;
    return fd;
}

static int user_get_revents(int fd, void *opaque)
{
    UserNet *u = opaque;

    if (fd < 0 || (guint)fd >= u->fds->len)
        return 0;
    uint32_t ready = fd_slot(u, fd)->ready;
    if (!backlog_empty(&u->backlog)) /* since a moment ago */
        ready &= ~(uint32_t)(EPOLLIN | EPOLLPRI | EPOLLRDHUP);
    return (ready & EPOLLIN ? SLIRP_POLL_IN : 0) | (ready & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (ready & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (ready & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (ready & (EPOLLHUP | EPOLLRDHUP) ? SLIRP_POLL_HUP : 0);
}

static void user_ready(void *opaque, uint32_t events)
{
    UserNet *u = opaque;
    struct epoll_event ev[READY_BATCH];
    int n = epoll_wait(u->set, ev, READY_BATCH, 0);

    for (int i = 0; i < n; i++)
        fd_slot(u, ev[i].data.fd)->ready = ev[i].events;
    u->due = true;
}

static void user_deadline(void *opaque)
{
    UserNet *u = opaque;

    u->due = true;
}

/* After each round of the loop: act on what is ready, then ask what to wait for. */
static void user_idle(void *opaque)
{
    UserNet *u = opaque;
    uint32_t timeout_ms = UINT32_MAX;

    if (!u->slirp)
        return;
    if (u->due && u->filled) {
        slirp_pollfds_poll(u->slirp, 0, user_get_revents, u);
        u->due = false;
    }
    u->round++;
    slirp_pollfds_fill(u->slirp, &timeout_ms, user_add_poll, u);
    u->filled = true;
    for (guint fd = 0; fd < u->fds->len; fd++) {
        UserFd *f = &g_array_index(u->fds, UserFd, fd);
        if (f->wanted && f->round != u->round)
            fd_forget(u, (int)fd); /* level-triggered: one that nobody serves would spin */
    }
    /* Only ever earlier: libslirp counts from now each time, and steady traffic must not push its
     * retransmissions away. A wake-up too many is harmless. */
    int64_t deadline = clock_now_ns(u->clock) + timeout_ms * NS_PER_MS;
    if (timeout_ms != UINT32_MAX && deadline < timer_deadline(u->timer))
        timer_arm(u->timer, deadline);
}

/* ---- libslirp's callbacks ---- */

/* One frame of @head, then @body, which may be empty; what is too short for Ethernet is filled up. */
static void send_to_guest(UserNet *u, NetFrame f, struct iovec head, struct iovec body)
{
    static const uint8_t pad[FRAME_MIN];
    struct iovec iov[3] = {head, body};

    f.iov = iov;
    f.niov = body.iov_len ? 2 : 1;
    f.len = (uint32_t)(head.iov_len + body.iov_len);
    if (f.len < FRAME_MIN) {
        iov[f.niov++] = (struct iovec){(void *)pad, FRAME_MIN - f.len};
        f.len = FRAME_MIN;
    }
    if (backlog_empty(&u->backlog) && net_send(&u->port, &f, 1))
        return;
    if (!backlog_add(&u->backlog, &f))
        net_count_loss(&u->port, NET_LOSS_FULL, 1);
}

static void send_plain(UserNet *u, const void *buf, size_t len, uint8_t flags)
{
    send_to_guest(u, (NetFrame){.flags = flags}, (struct iovec){(void *)buf, len},
                  (struct iovec){0});
}

/* Longer than the guest's MTU: for the guest, or the wire, to cut. */
static void send_long_tcp(UserNet *u, const uint8_t *buf, uint32_t len, const PktInfo *info)
{
    uint8_t head[PKT_HEADERS_MAX];
    uint32_t header_len = info->payload_off, ip_len = header_len - info->l3_off;
    NetFrame f = {.gso = info->ip_version == 4 ? NET_GSO_TCPV4 : NET_GSO_TCPV6,
                  .gso_size = u->port.mtu - ip_len, .hdr_len = info->payload_off,
                  .flags = NET_FRAME_NEEDS_CSUM, .csum_start = info->l4_off,
                  .csum_off = PKT_TCP_CSUM};

    if (header_len > sizeof head || ip_len >= u->port.mtu)
        return; /* nothing that libslirp makes */
    memcpy(head, buf, header_len);
    store_be16(head + info->l4_off + PKT_TCP_CSUM, pkt_pseudo_sum(buf, info, len - info->l4_off));
    send_to_guest(u, f, (struct iovec){head, header_len},
                  (struct iovec){(void *)(buf + header_len), len - header_len});
}

static void send_fragments(UserNet *u, const PktFragmenter *s)
{
    uint8_t head[PKT_HEADERS_MAX];

    for (uint32_t i = 0; i < s->count; i++) {
        struct iovec body = pkt_frag_get(s, i, head);
        send_to_guest(u, (NetFrame){0}, (struct iovec){head, s->header_len}, body);
    }
}

static ssize_t user_send_packet(const void *buf, size_t len, void *opaque)
{
    UserNet *u = opaque;
    PktInfo info;
    PktFragmenter s;

    if (len > NET_FRAME_MAX)
        return (ssize_t)len;
    bool parsed = pkt_parse(buf, (uint32_t)len, &info);
    if (u->serves_tftp && parsed)
        tftp_from_server(&u->tftp, buf, (uint32_t)len, &info, clock_now_ns(u->clock));
    bool transport = parsed && info.l4_off; /* TCP or UDP, its checksum is libslirp's work */
    if (!parsed || len <= PKT_ETH_LEN + (size_t)u->port.mtu)
        send_plain(u, buf, len, transport ? NET_FRAME_CSUM_VALID : 0);
    else if (transport && info.proto == PKT_PROTO_TCP)
        send_long_tcp(u, buf, (uint32_t)len, &info);
    else if (pkt_frag_begin(&s, buf, (uint32_t)len, &info, u->port.mtu))
        send_fragments(u, &s);
    else
        send_plain(u, buf, len, 0);
    return (ssize_t)len;
}

static void user_guest_error(const char *msg, void *opaque)
{
    UserNet *u = opaque;

    lodge_trace("net", "%s: %s", u->id, msg);
}

static int64_t user_clock(void *opaque)
{
    UserNet *u = opaque;

    return clock_now_ns(u->clock);
}

static void user_timer_fire(void *opaque)
{
    UserTimer *t = opaque;

    if (t->u->slirp)
        slirp_handle_timer(t->u->slirp, t->id, t->cb_opaque);
}

static void *user_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    UserTimer *t = g_new0(UserTimer, 1);

    t->u = opaque;
    t->id = id;
    t->cb_opaque = cb_opaque;
    t->timer = timer_new(io_thread_timers(t->u->io), user_timer_fire, t);
    return t;
}

static void user_timer_free(void *timer, void *opaque)
{
    UserTimer *t = timer;

    timer_free(t->timer);
    g_free(t);
}

static void user_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    UserTimer *t = timer;

    timer_arm(t->timer, expire_ms * NS_PER_MS);
}

/* A number that comes or goes may be an old one reused: forget what the set knew of it. */
static void user_fd_changed(int fd, void *opaque)
{
    fd_forget(opaque, fd);
}

static void user_notify(void *opaque)
{
    /* user_idle() runs after every round anyway. */
}

static void user_init_completed(Slirp *slirp, void *opaque)
{
    UserNet *u = opaque;

    u->slirp = slirp;
}

static const SlirpCb user_callbacks = {
    .send_packet = user_send_packet,
    .guest_error = user_guest_error,
    .clock_get_ns = user_clock,
    .timer_new_opaque = user_timer_new,
    .timer_free = user_timer_free,
    .timer_mod = user_timer_mod,
    .register_poll_fd = user_fd_changed,
    .unregister_poll_fd = user_fd_changed,
    .notify = user_notify,
    .init_completed = user_init_completed,
};

/* ---- the port ---- */

/* Whether the frame in @u->frame is for libslirp, not a TFTP client's repetition. */
static bool tftp_news(UserNet *u, uint32_t len, const PktInfo *info)
{
    const TftpTransfer *again;
    TftpVerdict verdict =
        tftp_from_guest(&u->tftp, u->frame, len, info, clock_now_ns(u->clock), &again);

    if (verdict == TFTP_RESEND)
        send_plain(u, again->frame, again->len, 0);
    return verdict == TFTP_PASS;
}

/* A TCP fragment by its IPv4 header; libslirp takes no IPv6 fragments. */
static bool is_tcp_fragment(const PktInfo *info)
{
    return info->ip_version && info->fragment && info->proto == PKT_PROTO_TCP;
}

/* The guest's frame to u->frame, checksums done. Return: its length; 0: it is to be dropped. */
static uint32_t take_frame(UserNet *u, const NetFrame *f)
{
    if (f->len > NET_FRAME_MAX)
        return 0;
    if (f->gso != NET_GSO_NONE)
        return pkt_seg_whole(f, u->frame);
    if (!pkt_gather(f, 0, u->frame, f->len) ||
        ((f->flags & NET_FRAME_NEEDS_CSUM) &&
         !pkt_finish_csum(u->frame, f->len, f->csum_start, f->csum_off)))
        return 0;
    return f->len;
}

/* Long segments for this connection, if the guest can take them and allows ordinary ones. */
static void raise_mss(UserNet *u, const PktInfo *info)
{
    uint32_t need = NET_OFF_CSUM | (info->ip_version == 4 ? NET_OFF_TSO4 : NET_OFF_TSO6);
    uint32_t headers = info->l4_off - info->l3_off + PKT_TCP_LEN;

    if (info->l4_off && headers < u->port.mtu && (net_peer_takes(&u->port) & need) == need)
        (void)pkt_raise_mss(u->frame, info, (uint16_t)(u->port.mtu - headers), MSS_LONG);
}

static unsigned user_send(NetPort *self, const NetFrame *v, unsigned n)
{
    UserNet *u = self->opaque;

    for (unsigned i = 0; i < n; i++) {
        PktInfo info;
        uint32_t len = take_frame(u, &v[i]);
        /* Not for us to answer: a guest hears nothing, as from any network. */
        if (!len || !pkt_parse(u->frame, len, &info)) {
            __atomic_fetch_add(&u->bad, 1, __ATOMIC_RELAXED);
            continue;
        }
        if (is_tcp_fragment(&info)) {
            __atomic_fetch_add(&u->pieces, 1, __ATOMIC_RELAXED);
            continue;
        }
        if (u->serves_tftp && !tftp_news(u, len, &info))
            continue;
        (void)pkt_clear_urgent(u->frame, &info);
        raise_mss(u, &info);
        slirp_input(u->slirp, u->frame, (int)len);
    }
    return n;
}

/* user_idle(), which comes after this, has libslirp read again. */
static void user_writable(NetPort *self)
{
    UserNet *u = self->opaque;

    backlog_send(&u->backlog, &u->port);
}

static const NetPortOps user_port_ops = {
    .send = user_send,
    .writable = user_writable,
    .changed = user_writable, /* the peer may be gone, and what waits for it with it */
    .offloads = NET_OFF_CSUM | NET_OFF_TSO4 | NET_OFF_TSO6,
};

/* ---- life ---- */

typedef struct UserStart {
    UserNet *u;
    UserOpts *opts;
    GError **error;
    bool ok;
} UserStart;

/* *@ret_made: as it became. */
static bool add_forward(UserNet *u, HostFwd f, HostFwd *ret_made, GError **error)
{
    bool any = !f.host_port;

    for (int i = 0; i < PORT_TRIES; i++) {
        if (!hostfwd_probe(&f, error))
            return false;
        struct sockaddr_in host = {.sin_family = AF_INET, .sin_addr = f.host_addr,
                                   .sin_port = htons(f.host_port)};
        struct sockaddr_in guest = {.sin_family = AF_INET, .sin_addr = f.guest_addr,
                                    .sin_port = htons(f.guest_port)};
        errno = 0;
        if (slirp_add_hostxfwd(u->slirp, (struct sockaddr *)&host, sizeof host,
                               (struct sockaddr *)&guest, sizeof guest,
                               f.udp ? SLIRP_HOSTFWD_UDP : 0) >= 0) {
            if (any) {
                char addr[INET_ADDRSTRLEN] = "";
                (void)inet_ntop(AF_INET, &f.host_addr, addr, sizeof addr); /* room is there */
                lodge_note("forwarding %s:%u to guest port %u%s", addr, f.host_port, f.guest_port,
                           f.udp ? " (udp)" : "");
            }
            *ret_made = f;
            return true;
        }
        if (!any)
            break;
        f.host_port = 0;
    }
    g_autofree char *name = hostfwd_name(&f);
    return lodge_fail_errno(error, errno ? errno : EADDRINUSE, "hostfwd: cannot listen on %s",
                            name);
}

/* tcp:ADDR:PORT-unix:PATH or tcp:ADDR:PORT-cmd:COMMAND: an address in the guest's network that is
 * something of the host. libslirp refuses addresses outside, and those that are its own. */
static bool add_guest_forward(UserNet *u, const char *text, const GPtrArray *all, GError **error)
{
    const char *dash = strchr(text, '-');
    g_autofree char *there = g_strndup(text, dash ? (gsize)(dash - text) : 0);
    g_auto(GStrv) part = g_strsplit(there, ":", 3);
    struct in_addr addr;
    guint64 port;
    bool path = dash && g_str_has_prefix(dash, "-unix:");

    if (!dash || (!path && !g_str_has_prefix(dash, "-cmd:")) || g_strv_length(part) != 3 ||
        strcmp(part[0], "tcp") || inet_pton(AF_INET, part[1], &addr) != 1 ||
        !g_ascii_string_to_unsigned(part[2], 10, 1, UINT16_MAX, &port, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "guestfwd '%s' is not tcp:ADDR:PORT-unix:PATH or "
                          "tcp:ADDR:PORT-cmd:COMMAND",
                          text);
    for (guint i = 0; g_ptr_array_index(all, i) != text; i++) {
        if (!strncmp(g_ptr_array_index(all, i), text, (size_t)(dash - text) + 1))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "guestfwd '%s': %s is given twice; choose another address or port",
                              text, there);
    }
    const char *target = strchr(dash, ':') + 1;
    if ((path ? slirp_add_unix(u->slirp, target, &addr, (int)port)
              : slirp_add_exec(u->slirp, target, &addr, (int)port)) < 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "guestfwd '%s': the address is not a free one of the guest's network",
                          text);
    return true;
}

static void user_start(void *opaque)
{
    UserStart *s = opaque;
    UserNet *u = s->u;
    UserOpts *o = s->opts;
    SlirpConfig cfg = {
        .version = SLIRP_CONFIG_VERSION,
        .restricted = o->restricted,
        .in_enabled = true,
        .vnetwork = o->net,
        .vnetmask = o->mask,
        .vhost = user_address_at(o, USER_HOST_ADDRESS),
        .vdhcp_start = user_address_at(o, USER_LEASE_ADDRESS),
        .vnameserver = o->dns,
        .in6_enabled = o->ip6,
        .vprefix_len = USER_IP6_PREFIX_LEN,
        .vhostname = o->hostname,
        .tftp_path = o->tftp,
        .bootfile = o->bootfile,
        .if_mtu = USER_MTU_MAX, /* o->mtu is kept by user_send_packet() */
        .if_mru = USER_MTU_MAX,
        .disable_host_loopback = !o->host_loopback,
    };
    cfg.vprefix_addr6 = cfg.vhost6 = cfg.vnameserver6 = o->prefix6;
    cfg.vhost6.s6_addr[15] = USER_HOST_ADDRESS;
    cfg.vnameserver6.s6_addr[15] = USER_DNS_ADDRESS;

    u->serves_tftp = o->tftp;
    u->timer = timer_new(io_thread_timers(u->io), user_deadline, u);
    u->slirp = slirp_new(&cfg, &user_callbacks, u);
    if (!u->slirp) {
        lodge_fail(s->error, LODGE_ERROR_UNSUPPORTED, "libslirp %s refused its configuration",
                   slirp_version_string());
        return;
    }
    for (guint i = 0; i < o->forwards->len; i++) {
        HostFwd made;
        if (!add_forward(u, g_array_index(o->forwards, HostFwd, i), &made, s->error))
            return;
        g_array_append_val(u->forwards, made); /* the main thread waits for us */
    }
    for (guint i = 0; o->guest_forwards && i < o->guest_forwards->len; i++) {
        if (!add_guest_forward(u, g_ptr_array_index(o->guest_forwards, i), o->guest_forwards,
                               s->error))
            return;
    }
    u->watch = io_watch_new(u->io, u->set, EPOLLIN, user_ready, u, s->error);
    if (!u->watch)
        return;
    io_thread_add_idle(u->io, user_idle, u); /* this very round ends with the first fill */
    s->ok = true;
}

typedef struct ForwardCall {
    UserNet *u;
    HostFwd fwd;
    GError **error;
    bool ok;
} ForwardCall;

static void add_on_loop(void *opaque)
{
    ForwardCall *c = opaque;

    c->ok = add_forward(c->u, c->fwd, &c->fwd, c->error);
}

static void remove_on_loop(void *opaque)
{
    ForwardCall *c = opaque;

    (void)slirp_remove_hostfwd(c->u->slirp, c->fwd.udp, c->fwd.host_addr, c->fwd.host_port);
}

static char *user_hostfwd_add(NetBackend *be, const char *text, GError **error)
{
    ForwardCall c = {.u = (UserNet *)be, .error = error};

    if (!hostfwd_parse(text, &c.fwd, error))
        return NULL;
    io_thread_call(c.u->io, add_on_loop, &c);
    if (!c.ok)
        return NULL;
    g_array_append_val(c.u->forwards, c.fwd);
    return hostfwd_name(&c.fwd);
}

/* @whole: @want is a rule, not the host's end alone. -1: there is none. */
static int find_forward(const UserNet *u, const HostFwd *want, bool whole)
{
    for (guint i = 0; i < u->forwards->len; i++) {
        const HostFwd *f = &g_array_index(u->forwards, HostFwd, i);
        if (whole ? hostfwd_same_rule(f, want) : hostfwd_same_host(f, want))
            return (int)i;
    }
    return -1;
}

static bool user_hostfwd_remove(NetBackend *be, const char *text, HostFwd *ret_gone, GError **error)
{
    ForwardCall c = {.u = (UserNet *)be, .error = error};
    bool whole = strchr(text, '-');
    HostFwd want;

    if (!(whole ? hostfwd_parse : hostfwd_parse_host)(text, &want, error))
        return false;
    g_autofree char *name = hostfwd_name(&want);
    int at = find_forward(c.u, &want, whole);
    if (at < 0)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "no port %s leads into the guest", name);
    c.fwd = g_array_index(c.u->forwards, HostFwd, at);
    io_thread_call(c.u->io, remove_on_loop, &c);
    g_array_remove_index(c.u->forwards, (guint)at);
    *ret_gone = c.fwd;
    return true;
}

static const GArray *user_hostfwds(NetBackend *be)
{
    return ((UserNet *)be)->forwards;
}

static void user_stop(void *opaque)
{
    UserNet *u = opaque;
    Slirp *slirp = u->slirp;

    io_thread_remove_idle(u->io, user_idle, u);
    io_watch_free(u->watch);
    if (slirp)
        slirp_cleanup(slirp);
    u->slirp = NULL;
    timer_free(u->timer);
    u->timer = NULL;
}

static void user_info(NetBackend *be, NetInfo *ret_info)
{
    UserNet *u = (UserNet *)be;
    const struct {
        const char *reason;
        uint64_t frames;
    } dropped[] = {
        {"sent malformed", __atomic_load_n(&u->bad, __ATOMIC_RELAXED)},
        {"a fragment of TCP", __atomic_load_n(&u->pieces, __ATOMIC_RELAXED)},
    };
    unsigned n = 0;

    for (unsigned i = 0; i < G_N_ELEMENTS(dropped); i++) {
        if (dropped[i].frames) {
            ret_info->drop[n].reason = dropped[i].reason;
            ret_info->drop[n++].frames = dropped[i].frames;
        }
    }
}

static void user_close(NetBackend *be)
{
    UserNet *u = (UserNet *)be;

    net_part(&u->port);
    if (u->io) {
        io_thread_call(u->io, user_stop, u);
        io_thread_free(u->io);
    }
    if (u->set >= 0)
        close(u->set);
    backlog_clear(&u->backlog);
    g_array_free(u->fds, TRUE);
    g_array_free(u->forwards, TRUE);
    g_free(u->frame);
    g_free(u->id);
    g_free(u);
}

/* libslirp talks through GLib's log about what guests do; that is for tracing only. */
static void quiet_log(const char *domain, GLogLevelFlags level, const char *message, void *opaque)
{
    lodge_trace("slirp", "%s", message);
}

static NetBackend *user_open(const char *id, GHashTable *opts, LodgeClock *clock, GError **error)
{
    g_autoptr(GArray) forwards = g_array_new(FALSE, FALSE, sizeof(HostFwd));
    UserOpts o = {.forwards = forwards};

    if (!user_opts_parse(opts, &o, error))
        return NULL;
    g_log_set_handler("Slirp", G_LOG_LEVEL_MASK | G_LOG_FLAG_RECURSION, quiet_log, NULL);

    UserNet *u = g_new0(UserNet, 1);
    u->be.driver = &net_driver_user;
    u->be.close = user_close;
    u->be.info = user_info;
    u->be.hostfwd_add = user_hostfwd_add;
    u->be.hostfwd_remove = user_hostfwd_remove;
    u->be.hostfwds = user_hostfwds;
    u->be.port = &u->port;
    u->id = g_strdup(id);
    u->clock = clock;
    u->fds = g_array_new(FALSE, TRUE, sizeof(UserFd));
    u->forwards = g_array_new(FALSE, FALSE, sizeof(HostFwd));
    backlog_init(&u->backlog);
    u->frame = g_malloc(NET_FRAME_MAX);
    u->set = epoll_create1(EPOLL_CLOEXEC);
    if (u->set < 0)
        lodge_fail_errno(error, errno, "cannot make an epoll set");
    else
        u->io = io_thread_new("net", clock, error);
    UserStart s = {.u = u, .opts = &o, .error = error};
    if (u->io) {
        u->port = (NetPort){.ops = &user_port_ops, .name = u->id, .opaque = u, .io = u->io,
                            .mtu = o.mtu, .offloads = user_port_ops.offloads};
        io_thread_call(u->io, user_start, &s);
    }
    if (!s.ok) {
        user_close(&u->be);
        return NULL;
    }
    return &u->be;
}

const NetDriver net_driver_user = {
    .name = "user",
    .help = "NAT to the host's network without privileges (libslirp)",
    .opts = user_opts,
    .open = user_open,
};
