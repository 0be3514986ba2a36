/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "dgram" and "mcast": a frame in each datagram, as QEMU's -netdev dgram and UML's and QEMU's
 * multicast networks have it. "dgram" has one other end, by UDP or by the files of Unix sockets;
 * it has no connection, so its link is always up and frames are lost while nobody is there. All
 * ends of "mcast" that name one group and port are on one cable without a switch: each hears each,
 * and only itself not, which is why what is sent goes through a socket of its own.
 *
 * Anybody who can send to the port or the group is on the network. UDP frames come only from the
 * address that is named. A group of IPv6 whose reach is a link (RFC 4291, 2.7) needs to know which.
 * Threads and invariants: host_end.c.
 */
#include "driver_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"
#include "dgram.h"

enum {
    TTL_MAX = 255,
    MCAST_SOCKETS = 2, /* one to hear by, one to send by */
};

typedef struct DgramEnd {
    Dgram d;
    /* Constant: */
    NetAddr local, remote;
    int given, given_tx;   /* owned; sockets from outside, -1: none, or taken into use */
    char *path;            /* owned; of our socket's file, to be removed */
    bool group;            /* "mcast" */
    int ifindex;           /* of a group; 0: as routes say */
    int ttl;
    int tx_own;            /* owned; -1: frames go through the one socket */
} DgramEnd;

static void end_close(NetBackend *be)
{
    DgramEnd *e = (DgramEnd *)be;

    host_end_stop(&e->d.h);
    host_end_free(&e->d.h);
    if (e->tx_own >= 0)
        close(e->tx_own);
    if (e->given >= 0)
        close(e->given);
    if (e->given_tx >= 0)
        close(e->given_tx);
    if (e->path)
        (void)unlink(e->path); /* somebody else may have been quicker */
    g_free(e->path);
    g_free(e);
}

static DgramEnd *end_new(int given, int given_tx)
{
    DgramEnd *e = g_new0(DgramEnd, 1);

    e->d.h.be.close = end_close;
    e->d.longest = NET_FRAME_MAX;
    e->given = given;
    e->given_tx = given_tx;
    e->tx_own = -1;
    return e;
}

static int udp_socket(int family)
{
    return socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* *@given, if it is a datagram socket, to *@ret_fd, which then owns it. */
static bool take_given(int *given, int *ret_fd, const char *driver, GError **error)
{
    int type, flags = fcntl(*given, F_GETFL);
    socklen_t len = sizeof type;

    if (flags < 0 || getsockopt(*given, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        type != SOCK_DGRAM)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: fd=%d is not a datagram socket", driver,
                          *given);
    if (fcntl(*given, F_SETFL, flags | O_NONBLOCK) < 0)
        return lodge_fail_errno(error, errno, "%s: fd=%d", driver, *given);
    *ret_fd = *given;
    *given = -1;
    return true;
}

/* ---- dgram ---- */

static bool dgram_connect(HostEnd *h, bool first, GError **error)
{
    DgramEnd *e = (DgramEnd *)h;
    sa_family_t family = e->local.sa.ss_family;
    const char *path = ((struct sockaddr_un *)&e->local.sa)->sun_path;

    if (e->given >= 0) {
        if (!take_given(&e->given, &h->fd, "dgram", error))
            return false;
        e->d.tx = h->fd;
        e->d.to.len = 0;
        return true;
    }
    if (family == AF_UNIX && !net_unix_clear(path, SOCK_DGRAM, error))
        return false;
    h->fd = e->d.tx = udp_socket(family);
    if (h->fd < 0)
        return lodge_fail_errno(error, errno, "dgram: cannot make a socket");
    if (bind(h->fd, (struct sockaddr *)&e->local.sa, e->local.len) < 0) {
        lodge_fail_errno(error, errno, "dgram: %s: cannot receive there", h->detail);
    } else if (family == AF_UNIX) {
        e->path = g_strdup(path);
        e->d.to = e->remote; /* it may come later, or go and come back */
        return true;
    } else if (connect(h->fd, (struct sockaddr *)&e->remote.sa, e->remote.len) < 0) {
        lodge_fail_errno(error, errno, "dgram: %s: cannot send there", h->detail);
    } else {
        return true;
    }
    close(h->fd);
    h->fd = -1;
    return false;
}

static const HostEndOps dgram_ops = {
    .connect = dgram_connect,
    .fill = dgram_fill,
    .send = dgram_send,
};

static const NetOptSpec dgram_opts[] = {
    {"remote", "the other end: unix:PATH or udp:HOST:PORT; dgram=ADDR is the same"},
    {"local", "where frames arrive: unix:PATH or udp:[HOST]:PORT"},
    {"fd", "number of a connected datagram socket, instead of addresses"},
    {NULL},
};

/* An empty host of ours is any address of the other end's family. */
static void match_family(NetAddr *local, sa_family_t family)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};

    if (local->sa.ss_family == AF_INET6 && family == AF_INET) {
        in.sin_port = ((struct sockaddr_in6 *)&local->sa)->sin6_port;
        memset(local, 0, sizeof *local);
        memcpy(&local->sa, &in, local->len = sizeof in);
    } else if (local->sa.ss_family == AF_INET && family == AF_INET6) {
        in6.sin6_port = ((struct sockaddr_in *)&local->sa)->sin_port;
        memset(local, 0, sizeof *local);
        memcpy(&local->sa, &in6, local->len = sizeof in6);
    }
}

static bool dgram_addresses(DgramEnd *e, const char *remote, const char *local, GError **error)
{
    if (!net_addr_parse(remote, "udp", SOCK_DGRAM, false, &e->remote, error) ||
        !net_addr_parse(local, "udp", SOCK_DGRAM, true, &e->local, error))
        return false;
    if (g_str_has_prefix(local, "udp::"))
        match_family(&e->local, e->remote.sa.ss_family);
    if (e->local.sa.ss_family != e->remote.sa.ss_family)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "dgram: \"%s\" and local \"%s\" are of different kinds", remote, local);
    return true;
}

static NetBackend *dgram_open(const char *id, GHashTable *opts, LodgeClock *clock, GError **error)
{
    const char *remote = net_opt(opts, "remote"), *local = net_opt(opts, "local");
    int fd;

    if (!net_opt_fd(opts, &fd, error))
        return NULL;
    if (fd < 0 ? !remote || !local : remote || local) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "dgram: needs both ends or a descriptor; write dgram=unix:PATH,local=unix:PATH, "
                   "dgram=udp:HOST:PORT,local=udp::PORT or dgram,fd=N");
        return NULL;
    }
    DgramEnd *e = end_new(fd, -1);
    if (remote)
        g_snprintf(e->d.h.detail, sizeof e->d.h.detail, "%s from %s", remote, local);
    else
        g_snprintf(e->d.h.detail, sizeof e->d.h.detail, "dgram fd=%d", fd);
    if (host_end_open(&e->d.h, &net_driver_dgram, &dgram_ops, id, clock, 0, error) &&
        (fd >= 0 || dgram_addresses(e, remote, local, error)) &&
        host_end_start(&e->d.h, error)) {
        e->d.h.polls_room = e->d.to.len == 0;
        return &e->d.h.be;
    }
    end_close(&e->d.h.be);
    return NULL;
}

const NetDriver net_driver_dgram = {
    .name = "dgram",
    .help = "a frame in each datagram: UDP or Unix sockets, QEMU",
    .opts = dgram_opts,
    .target = "remote",
    .open = dgram_open,
};

/* ---- mcast ---- */

static bool is_ip6(const DgramEnd *e)
{
    return e->remote.sa.ss_family == AF_INET6;
}

static int mcast_join(const DgramEnd *e, int fd)
{
    if (is_ip6(e)) {
        const struct ipv6_mreq m = {((const struct sockaddr_in6 *)&e->remote.sa)->sin6_addr,
                                    (unsigned)e->ifindex};
        return setsockopt(fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &m, sizeof m);
    }
    const struct ip_mreqn m = {.imr_ifindex = e->ifindex,
                               .imr_multiaddr =
                                   ((const struct sockaddr_in *)&e->remote.sa)->sin_addr};
    return setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &m, sizeof m);
}

/* How far frames go, from which interface; and back to others on this host. */
static bool mcast_aim(const DgramEnd *e, int fd)
{
    const struct ip_mreqn from = {.imr_ifindex = e->ifindex};
    int one = 1;

    if (is_ip6(e))
        return !setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &e->ttl, sizeof e->ttl) &&
               !setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, &one, sizeof one) &&
               !setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &e->ifindex, sizeof e->ifindex);
    return !setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &e->ttl, sizeof e->ttl) &&
           !setsockopt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, &one, sizeof one) &&
           !setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &from, sizeof from);
}

static bool mcast_listen(DgramEnd *e, GError **error)
{
    int fd = e->d.h.fd, one = 1;

    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(fd, (struct sockaddr *)&e->remote.sa, e->remote.len) < 0)
        return lodge_fail_errno(error, errno, "mcast: %s: cannot listen", e->d.h.detail);
    if (mcast_join(e, fd) < 0)
        return lodge_fail_errno(error, errno,
                                "mcast: %s: cannot join the group; name an interface with "
                                "interface=NAME",
                                e->d.h.detail);
    return true;
}

static bool mcast_sender(DgramEnd *e, GError **error)
{
    int fd = e->tx_own;

    if (!mcast_aim(e, fd) || connect(fd, (struct sockaddr *)&e->remote.sa, e->remote.len) < 0)
        return lodge_fail_errno(error, errno, "mcast: %s: cannot send to the group",
                                e->d.h.detail);
    return true;
}

static bool mcast_sockets(DgramEnd *e, GError **error)
{
    e->d.h.fd = udp_socket(e->remote.sa.ss_family);
    e->tx_own = udp_socket(e->remote.sa.ss_family);
    if (e->d.h.fd < 0 || e->tx_own < 0)
        return lodge_fail_errno(error, errno, "mcast: cannot make a socket");
    return mcast_listen(e, error) && mcast_sender(e, error);
}

static bool mcast_given(DgramEnd *e, GError **error)
{
    NetAddr peer = {.len = sizeof peer.sa};

    if (!take_given(&e->given, &e->d.h.fd, "mcast", error) ||
        !take_given(&e->given_tx, &e->tx_own, "mcast", error))
        return false;
    return !getpeername(e->tx_own, (struct sockaddr *)&peer.sa, &peer.len) ||
           lodge_fail(error, LODGE_ERROR_CONFIG,
                      "mcast: fd=%d is not connected: the second descriptor is the one to send by",
                      e->tx_own);
}

static bool mcast_connect(HostEnd *h, bool first, GError **error)
{
    DgramEnd *e = (DgramEnd *)h;
    bool ok = e->given >= 0 ? mcast_given(e, error) : mcast_sockets(e, error);

    e->d.tx = e->tx_own;
    e->d.self.len = sizeof e->d.self.sa; /* by which one's own frames are known */
    if (ok && !getsockname(e->tx_own, (struct sockaddr *)&e->d.self.sa, &e->d.self.len))
        return true;
    if (ok)
        lodge_fail_errno(error, errno, "mcast: %s", e->d.h.detail);
    if (h->fd >= 0)
        close(h->fd);
    h->fd = -1;
    return false;
}

static const HostEndOps mcast_ops = {
    .connect = mcast_connect,
    .fill = dgram_fill,
    .send = dgram_send,
};

static const NetOptSpec mcast_opts[] = {
    {"group", "GROUP:PORT, like 239.192.168.1:1102 or [ff02::114%eth0]:1102; mcast=GROUP:PORT is "
              "the same"},
    {"interface", "the host's interface to send and listen at (as routes say)"},
    {"ttl", "how many routers frames may pass, 0 to 255 (1)"},
    {"fd", "number of a datagram socket that has joined the group, and once more: of one that is "
           "connected to it, instead of the group", true},
    {NULL},
};

/* Whether @e's address is a group; those of a link or host of IPv6 get their interface. */
static bool mcast_check(DgramEnd *e, const char *group, GError **error)
{
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&e->remote.sa;
    const struct sockaddr_in *in = (const struct sockaddr_in *)&e->remote.sa;

    if (is_ip6(e) ? !IN6_IS_ADDR_MULTICAST(&in6->sin6_addr)
                  : !IN_MULTICAST(ntohl(in->sin_addr.s_addr)))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "mcast: \"%s\" is no group; they are from 224.0.0.0 to "
                          "239.255.255.255, or begin with ff",
                          group);
    if (!is_ip6(e))
        return true;
    if (in6->sin6_scope_id && e->ifindex && in6->sin6_scope_id != (unsigned)e->ifindex)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "mcast: \"%s\" names another interface than interface=", group);
    if (in6->sin6_scope_id)
        e->ifindex = (int)in6->sin6_scope_id;
    if (!e->ifindex && (IN6_IS_ADDR_MC_LINKLOCAL(&in6->sin6_addr) ||
                        IN6_IS_ADDR_MC_NODELOCAL(&in6->sin6_addr)))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "mcast: \"%s\" is a group of one link; say which, with interface=NAME or "
                          "[GROUP%%NAME]:PORT",
                          group);
    in6->sin6_scope_id = (unsigned)e->ifindex;
    return true;
}

static bool mcast_parse(DgramEnd *e, GHashTable *opts, GError **error)
{
    const char *group = net_opt(opts, "group"), *interface = net_opt(opts, "interface");
    uint64_t ttl;

    if (!group)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "mcast: needs a group; write mcast=239.192.168.1:1102");
    if (!net_opt_number(opts, "ttl", 0, TTL_MAX, 1, &ttl, error) ||
        !net_addr_inet(group, SOCK_DGRAM, false, &e->remote, error))
        return false;
    if (interface && !(e->ifindex = (int)if_nametoindex(interface)))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "mcast: interface \"%s\": not there",
                          interface);
    e->ttl = (int)ttl;
    g_snprintf(e->d.h.detail, sizeof e->d.h.detail, "mcast %s", group);
    return mcast_check(e, group, error);
}

static NetBackend *mcast_open(const char *id, GHashTable *opts, LodgeClock *clock, GError **error)
{
    int fds[MCAST_SOCKETS] = {-1, -1};
    unsigned n;

    if (!net_opt_fds(opts, fds, MCAST_SOCKETS, &n, error))
        return NULL;
    if (n && (n < MCAST_SOCKETS || net_opt(opts, "group") || net_opt(opts, "interface") ||
              net_opt(opts, "ttl"))) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "mcast: descriptors come in twos and stand for the group: write "
                   "mcast,fd=N,fd=N, the first to hear by, the second to send by");
        return NULL;
    }
    DgramEnd *e = end_new(fds[0], fds[1]);
    if (n)
        g_snprintf(e->d.h.detail, sizeof e->d.h.detail, "mcast fd=%d fd=%d", fds[0], fds[1]);
    if (host_end_open(&e->d.h, &net_driver_mcast, &mcast_ops, id, clock, 0, error) &&
        (n || mcast_parse(e, opts, error)) && host_end_start(&e->d.h, error))
        return &e->d.h.be;
    end_close(&e->d.h.be);
    return NULL;
}

const NetDriver net_driver_mcast = {
    .name = "mcast",
    .help = "a cable of all who name a multicast group: UML, QEMU",
    .opts = mcast_opts,
    .target = "group",
    .open = mcast_open,
};
