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
 * Host to guest: send_packet copies into the wire's ring; when that is full the frame is dropped
 * and counted, as on any network, and TCP slows down.
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
#include "hostfwd.h"
#include "opts.h"
#include "pkt.h"
#include "tftp.h"
#include "wire.h"

enum {
    MTU_MIN = 576,
    MTU_MAX = 65520,
    MTU_DEFAULT = 1500,
    MTU_MIN_IP6 = 1280, /* RFC 8200, section 5 */
    READY_BATCH = 64,
    PORT_TRIES = 16, /* for a free port that somebody snatches away */
    FRAME_MIN = 60,  /* Ethernet without its check sequence */
    HOSTNAME_MAX = 64,
    SLIRP_CONFIG_VERSION = 4,
    IP6_PREFIX_LEN = 64,
    NET_BITS_MIN = 8,
    NET_BITS_MAX = 27, /* leases have sixteen addresses */
    HOST_ADDRESS = 2,  /* in the guest's network */
    DNS_ADDRESS = 3,
    LEASE_ADDRESS = 15,
};

#define NS_PER_MS INT64_C(1000000)

/* What the nested set knows of a descriptor; index in the table is the descriptor. */
typedef struct UserFd {
    uint32_t wanted;  /* EPOLL* registered in the set; 0: not there */
    uint32_t ready;   /* EPOLL* seen by the last epoll_wait() */
    uint32_t round;   /* of the last fill that named it */
} UserFd;

typedef struct UserOpts {
    bool restricted, host_loopback, ip6;
    uint16_t mtu;
    const char *hostname, *tftp, *bootfile; /* borrowed from the options */
    struct in_addr net, mask, dns;
    struct in6_addr prefix6; /* of 64 bits */
    GArray *forwards;        /* owned; HostFwd */
    GPtrArray *guest_forwards; /* borrowed from the options; texts, or NULL */
} UserOpts;

typedef struct UserNet {
    NetBackend be;
    NetPort port;
    char *id;          /* owned */
    LodgeClock *clock; /* borrowed, outlives us */
    IoThread *io;      /* owned */

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

    ev.events = (events & SLIRP_POLL_IN ? EPOLLIN : 0) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0) |
                (events & SLIRP_POLL_PRI ? EPOLLPRI : 0) |
                (events & SLIRP_POLL_HUP ? EPOLLRDHUP : 0);
    f->round = u->round;
    f->ready = 0;
    if (f->wanted == ev.events)
        return fd;
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

static void send_to_guest(UserNet *u, const void *buf, size_t len)
{
    static const uint8_t pad[FRAME_MIN];
    struct iovec iov[2] = {{(void *)buf, len}, {(void *)pad, 0}};
    NetFrame f = {.iov = iov, .niov = 1, .len = (uint32_t)len};

    if (len < FRAME_MIN) {
        iov[1].iov_len = FRAME_MIN - len;
        f.niov = 2;
        f.len = FRAME_MIN;
    }
    if (!net_send(&u->port, &f, 1))
        net_count_loss(&u->port, NET_LOSS_FULL, 1);
}

static ssize_t user_send_packet(const void *buf, size_t len, void *opaque)
{
    UserNet *u = opaque;
    PktInfo info;

    if (len > NET_FRAME_MAX)
        return (ssize_t)len;
    if (u->serves_tftp && pkt_parse(buf, (uint32_t)len, &info))
        tftp_from_server(&u->tftp, buf, (uint32_t)len, &info, clock_now_ns(u->clock));
    send_to_guest(u, buf, len);
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
        send_to_guest(u, again->frame, again->len);
    return verdict == TFTP_PASS;
}

/* A TCP fragment by its IPv4 header; libslirp takes no IPv6 fragments. */
static bool is_tcp_fragment(const PktInfo *info)
{
    return info->ip_version && info->fragment && info->proto == PKT_PROTO_TCP;
}

static unsigned user_send(NetPort *self, const NetFrame *v, unsigned n)
{
    UserNet *u = self->opaque;

    for (unsigned i = 0; i < n; i++) {
        PktInfo info;
        /* Not for us to answer: a guest hears nothing, as from any network. */
        if (v[i].len > NET_FRAME_MAX || !pkt_gather(&v[i], 0, u->frame, v[i].len) ||
            !pkt_parse(u->frame, v[i].len, &info)) {
            __atomic_fetch_add(&u->bad, 1, __ATOMIC_RELAXED);
            continue;
        }
        if (is_tcp_fragment(&info)) {
            __atomic_fetch_add(&u->pieces, 1, __ATOMIC_RELAXED);
            continue;
        }
        if (u->serves_tftp && !tftp_news(u, v[i].len, &info))
            continue;
        (void)pkt_clear_urgent(u->frame, &info);
        slirp_input(u->slirp, u->frame, (int)v[i].len);
    }
    return n;
}

static const NetPortOps user_port_ops = {
    .send = user_send,
    .offloads = 0, /* libslirp verifies checksums and takes no long frames */
};

/* ---- options ---- */

static const NetOptSpec user_opts[] = {
    {"hostfwd", "tcp|udp:[ADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT: a host port into the guest; ADDR "
                "is 127.0.0.1 when empty, HOSTPORT 0 takes a free one", true},
    {"guestfwd", "tcp:ADDR:PORT-unix:PATH or tcp:ADDR:PORT-cmd:COMMAND: what the guest reaches "
                 "there, an address of its network: a socket, or a program's input and output",
     true},
    {"restrict", "on|off: keep the guest from reaching anything outside (off)"},
    {"host-loopback", "on|off: the guest reaches the host's 127.0.0.1 as 10.0.2.2 (on)"},
    {"net", "the guest's network, ADDR/BITS with 8 to 27 bits (10.0.2.0/24): the host is its "
            "second address, the name server the third, leases begin at the fifteenth"},
    {"ipv6", "on|off (on)"},
    {"ipv6-net", "the guest's IPv6 network, ADDR/64 (fec0::/64)"},
    {"mtu", "bytes, 576 to 65520 (1500)"},
    {"hostname", "name that DHCP gives the guest"},
    {"dns", "address of the name server that the guest is told, in its network (the third)"},
    {"tftp", "folder served to the guest by TFTP, read-only"},
    {"bootfile", "file name that DHCP gives for network boot"},
    {NULL},
};

static bool opt_mtu(GHashTable *opts, UserOpts *o, GError **error)
{
    const char *text = net_opt(opts, "mtu");
    guint64 v = MTU_DEFAULT;

    if (text && !g_ascii_string_to_unsigned(text, 10, MTU_MIN, MTU_MAX, &v, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "mtu '%s' is not a number from %d to %d", text,
                          MTU_MIN, MTU_MAX);
    if (v < MTU_MIN_IP6 && o->ip6)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "mtu %s is too small for IPv6, which needs "
                          "%d; add ipv6=off", text, MTU_MIN_IP6);
    o->mtu = (uint16_t)v;
    return true;
}

/* The @n-th address of the guest's network. */
static struct in_addr address_at(const UserOpts *o, uint32_t n)
{
    return (struct in_addr){htonl(ntohl(o->net.s_addr) + n)};
}

static bool in_network(const UserOpts *o, struct in_addr a)
{
    return (a.s_addr & o->mask.s_addr) == o->net.s_addr;
}

static bool opt_names(GHashTable *opts, UserOpts *o, GError **error)
{
    const char *dns = net_opt(opts, "dns");

    o->hostname = net_opt(opts, "hostname");
    o->tftp = net_opt(opts, "tftp");
    o->bootfile = net_opt(opts, "bootfile");
    if (o->hostname && (!*o->hostname || strlen(o->hostname) > HOSTNAME_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "hostname '%s' is not 1 to %d characters long",
                          o->hostname, HOSTNAME_MAX);
    if (o->tftp && !g_file_test(o->tftp, G_FILE_TEST_IS_DIR))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "tftp '%s' is not a folder", o->tftp);
    o->dns = address_at(o, DNS_ADDRESS);
    if (!dns)
        return true;
    if (inet_pton(AF_INET, dns, &o->dns) != 1 || !in_network(o, o->dns) ||
        o->dns.s_addr == address_at(o, HOST_ADDRESS).s_addr)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "dns '%s' is not an address of the guest's "
                          "network other than the host's", dns);
    return true;
}

static bool opt_networks(GHashTable *opts, UserOpts *o, GError **error)
{
    const char *net = net_opt(opts, "net"), *net6 = net_opt(opts, "ipv6-net");
    g_auto(GStrv) part = g_strsplit(net ? net : "10.0.2.0/24", "/", 2);
    g_auto(GStrv) part6 = g_strsplit(net6 ? net6 : "fec0::/64", "/", 2);
    guint64 bits;

    if (inet_pton(AF_INET, part[0], &o->net) != 1 || !part[1] ||
        !g_ascii_string_to_unsigned(part[1], 10, NET_BITS_MIN, NET_BITS_MAX, &bits, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s' is not ADDR/BITS with %d to %d bits",
                          net, NET_BITS_MIN, NET_BITS_MAX);
    o->mask.s_addr = htonl(UINT32_MAX << (32 - bits));
    if (o->net.s_addr & ~o->mask.s_addr)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s' has bits behind its %d", net,
                          (int)bits);
    if (inet_pton(AF_INET6, part6[0], &o->prefix6) != 1 || g_strcmp0(part6[1], "64") ||
        o->prefix6.s6_addr32[2] || o->prefix6.s6_addr32[3])
        return lodge_fail(error, LODGE_ERROR_CONFIG, "ipv6-net '%s' is not ADDR/64", net6);
    return true;
}

static bool opt_forwards(GHashTable *opts, UserOpts *o, GError **error)
{
    GPtrArray *texts = g_hash_table_lookup(opts, "hostfwd");

    o->guest_forwards = g_hash_table_lookup(opts, "guestfwd");
    for (guint i = 0; texts && i < texts->len; i++) {
        HostFwd f;
        if (!hostfwd_parse(g_ptr_array_index(texts, i), &f, error))
            return false;
        g_array_append_val(o->forwards, f);
    }
    return true;
}

static bool user_parse(GHashTable *opts, UserOpts *o, GError **error)
{
    return net_opt_switch(opts, "restrict", false, &o->restricted, error) &&
           net_opt_switch(opts, "host-loopback", true, &o->host_loopback, error) &&
           net_opt_switch(opts, "ipv6", true, &o->ip6, error) && opt_mtu(opts, o, error) &&
           opt_networks(opts, o, error) && opt_names(opts, o, error) &&
           opt_forwards(opts, o, error);
}

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
static bool add_guest_forward(UserNet *u, const char *text, GError **error)
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
        .vhost = address_at(o, HOST_ADDRESS),
        .vdhcp_start = address_at(o, LEASE_ADDRESS),
        .vnameserver = o->dns,
        .in6_enabled = o->ip6,
        .vprefix_len = IP6_PREFIX_LEN,
        .vhostname = o->hostname,
        .tftp_path = o->tftp,
        .bootfile = o->bootfile,
        .if_mtu = o->mtu,
        .if_mru = o->mtu,
        .disable_host_loopback = !o->host_loopback,
    };
    cfg.vprefix_addr6 = cfg.vhost6 = cfg.vnameserver6 = o->prefix6;
    cfg.vhost6.s6_addr[15] = HOST_ADDRESS;
    cfg.vnameserver6.s6_addr[15] = DNS_ADDRESS;

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
    }
    for (guint i = 0; o->guest_forwards && i < o->guest_forwards->len; i++) {
        if (!add_guest_forward(u, g_ptr_array_index(o->guest_forwards, i), s->error))
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

    c->ok = slirp_remove_hostfwd(c->u->slirp, c->fwd.udp, c->fwd.host_addr, c->fwd.host_port) == 0;
}

static char *user_hostfwd_add(NetBackend *be, const char *text, GError **error)
{
    ForwardCall c = {.u = (UserNet *)be, .error = error};

    if (!hostfwd_parse(text, &c.fwd, error))
        return NULL;
    io_thread_call(c.u->io, add_on_loop, &c);
    return c.ok ? hostfwd_name(&c.fwd) : NULL;
}

static bool user_hostfwd_remove(NetBackend *be, const char *text, GError **error)
{
    ForwardCall c = {.u = (UserNet *)be, .error = error};

    if (!hostfwd_parse_host(text, &c.fwd, error))
        return false;
    io_thread_call(c.u->io, remove_on_loop, &c);
    return c.ok || lodge_fail(error, LODGE_ERROR_NOT_FOUND, "hostfwd '%s': there is none", text);
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
    g_array_free(u->fds, TRUE);
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

    if (!user_parse(opts, &o, error)) {
        g_prefix_error(error, "net '%s': ", id);
        return NULL;
    }
    g_log_set_handler("Slirp", G_LOG_LEVEL_MASK | G_LOG_FLAG_RECURSION, quiet_log, NULL);

    UserNet *u = g_new0(UserNet, 1);
    u->be.driver = &net_driver_user;
    u->be.close = user_close;
    u->be.info = user_info;
    u->be.hostfwd_add = user_hostfwd_add;
    u->be.hostfwd_remove = user_hostfwd_remove;
    u->be.port = &u->port;
    u->id = g_strdup(id);
    u->clock = clock;
    u->fds = g_array_new(FALSE, TRUE, sizeof(UserFd));
    u->frame = g_malloc(NET_FRAME_MAX);
    u->set = epoll_create1(EPOLL_CLOEXEC);
    if (u->set < 0)
        lodge_fail_errno(error, errno, "cannot make an epoll set");
    else
        u->io = io_thread_new("net", clock, error);
    UserStart s = {.u = u, .opts = &o, .error = error};
    if (u->io) {
        u->port = (NetPort){.ops = &user_port_ops, .name = u->id, .opaque = u, .io = u->io,
                            .mtu = o.mtu};
        io_thread_call(u->io, user_start, &s);
    }
    if (!s.ok) {
        g_prefix_error(error, "net '%s': ", id);
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
