/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "tap": a network interface of the host (Linux's tun driver, Documentation/networking/tuntap.rst
 * and linux/if_tun.h). Every frame has a virtio_net_hdr in front of it, so that checksums and TCP
 * segments that the guest leaves to its card are left to the host's, and the other way round; what
 * the card at our end cannot take at the moment the kernel is told not to give (TUNSETOFFLOAD).
 * One frame is one readv or writev, from and to the guest's own memory: where nothing stands
 * between, the card lends buffers for a frame as long as the one before, and what is longer is
 * copied.
 *
 * An interface that does not exist is made, for as long as we hold it; that and bridges need
 * CAP_NET_ADMIN, an interface that belongs to the user does not. One that is taken away takes the
 * link down, and is attached again when it comes back.
 *
 * With queues=N the interface is attached to N times (IFF_MULTI_QUEUE), each a stream of its own
 * with its own loop; the first one leads and does what is done once. The kernel spreads frames over
 * the queues by flow, and answers by the queue that a flow was last sent on. Queues that the card
 * does not use are detached (TUNSETQUEUE), so that it gives them none.
 *
 * Left out: IFF_TUN, vhost, steering programs. Threads and invariants: host_end.c.
 */
#include "driver_table.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/if_tun.h>
#include <linux/sockios.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "host_end.h"
#include "opts.h"
#include "pkt.h"
#include "tap_if.h"
#include "vnet_hdr.h"

enum {
    HDR_LEN = sizeof(struct virtio_net_hdr),
    IOV_MAX_FRAME = 1024, /* of one writev: UIO_MAXIOV */
    LENT_MAX = 128,       /* pieces that a card lends */
    FILL_BYTES = 32 << 10, /* of copied frames that wait at once: they stay in the cache */
};

typedef struct Tap {
    HostEnd h;
    /* Constant: */
    struct Tap *lead;             /* borrowed: the first queue; itself there */
    struct Tap *queue[NET_STREAMS_MAX]; /* of the lead: all; owned but for itself */
    unsigned queues;              /* of the lead */
    int fds[NET_STREAMS_MAX];     /* of the lead, owned: descriptors for its queues, or -1 */
    char *name, *bridge, *script; /* of the lead, owned; NULL: not given */
    struct in_addr address;       /* of the lead; 0: not given */
    int given;                    /* owned; a descriptor from outside, -1: none */
    /* Loop only: */
    bool vnet;        /* frames have a header */
    bool detached;    /* the kernel gives this queue nothing */
    bool uso;         /* and the kernel knows frames of several datagrams, Linux 6.2 */
    uint32_t offered; /* NET_OFF_* last told to the kernel */
    uint8_t *flat;    /* owned; a frame of too many pieces */
} Tap;

/* ---- frames ---- */

/* Have the kernel give no more than the card takes at this moment. It knows but one answer for all
 * queues of an interface, and a card has but one too. */
static void match_offloads(Tap *t)
{
    uint32_t takes = net_peer_takes(&t->h.port);
    unsigned flags = 0;

    if (!t->vnet || takes == t->offered || t->lead != t)
        return;
    if (takes & NET_OFF_CSUM) {
        flags |= TUN_F_CSUM;
        flags |= takes & NET_OFF_TSO4 ? TUN_F_TSO4 : 0;
        flags |= takes & NET_OFF_TSO6 ? TUN_F_TSO6 : 0;
        flags |= takes & NET_OFF_USO && t->uso ? VNET_TUN_USO : 0;
    }
    t->offered = takes;
    /* A refusal leaves what was: the wire finishes what the card does not take. */
    if (ioctl(t->h.fd, TUNSETOFFLOAD, (unsigned long)flags) < 0)
        lodge_trace("net", "%s: TUNSETOFFLOAD: %s", t->h.id, g_strerror(errno));
}

/* Have the kernel give frames to those queues only that the card looks at; the first one always. */
static void match_use(Tap *t)
{
    bool idle = t->lead != t && net_peer_idle(&t->h.port);
    struct ifreq r = {.ifr_flags = (short)(idle ? IFF_DETACH_QUEUE : IFF_ATTACH_QUEUE)};

    if (idle == t->detached)
        return;
    if (ioctl(t->h.fd, TUNSETQUEUE, &r) == 0)
        t->detached = idle;
    else
        lodge_trace("net", "%s: TUNSETQUEUE: %s", t->h.id, g_strerror(errno));
}

static void tap_changed(HostEnd *h)
{
    match_offloads((Tap *)h);
    match_use((Tap *)h);
}

/* Keep only @len bytes of the pieces. */
static unsigned cut_pieces(struct iovec *iov, unsigned n, size_t len)
{
    unsigned i = 0;

    for (; i < n && len; i++) {
        iov[i].iov_len = MIN(iov[i].iov_len, len);
        len -= iov[i].iov_len;
    }
    return i;
}

/* Zeros behind a frame of @len bytes, up to @to. */
static void pad_pieces(const struct iovec *iov, size_t len, size_t to)
{
    for (size_t at = 0; at < to; at += iov++->iov_len) {
        size_t from = len > at ? MIN(len - at, iov->iov_len) : 0;
        memset((uint8_t *)iov->iov_base + from, 0, MIN(iov->iov_len, to - at) - MIN(from, to - at));
    }
}

typedef enum Direct {
    DIRECT_DONE,
    DIRECT_NOT,  /* the card lends nothing: as all others */
    DIRECT_HELD, /* it is the batch's first frame */
    DIRECT_DRY,
    DIRECT_LOST,
} Direct;

/* Receive a frame into the card's own memory. The batch is empty: what the card's buffers have no
 * room for lands in its first slot, where the rest is put in front if the card does not take it. */
static Direct fill_direct(Tap *t)
{
    static const NetFrame none = {.len = 0};
    HostEnd *h = &t->h;
    struct virtio_net_hdr hdr = {0};
    struct iovec iov[LENT_MAX + 2];
    size_t room = 0, skip = t->vnet ? HDR_LEN : 0;
    unsigned lent = net_rx_borrow(&h->port, iov + 1, LENT_MAX);
    ssize_t n;

    if (!lent)
        return DIRECT_NOT;
    for (unsigned i = 1; i <= lent; i++)
        room += iov[i].iov_len;
    unsigned pieces = lent;
    if (room <= NET_FRAME_MAX)
        iov[1 + pieces++] = (struct iovec){h->rx + room, HOST_RX_STRIDE - room};
    iov[0] = (struct iovec){&hdr, HDR_LEN};
    do
        n = t->vnet ? readv(h->fd, iov, (int)pieces + 1) : readv(h->fd, iov + 1, (int)pieces);
    while (n < 0 && errno == EINTR);
    size_t len = n > (ssize_t)skip ? (size_t)n - skip : 0;
    NetFrame f = {.iov = iov + 1, .len = (uint32_t)MAX(len, HOST_FRAME_PAD)};
    bool bad = len < HOST_FRAME_MIN || len > NET_FRAME_MAX ||
               (t->vnet && !vnet_hdr_read(&hdr, &f));
    if (bad || room < HOST_FRAME_PAD) {
        int err = errno;
        (void)net_rx_commit(&h->port, &none); /* gives back */
        if (n > 0)
            host_end_drop(h, HOST_DROP_MALFORMED, 1);
        return n > 0 ? DIRECT_DONE : n < 0 && err == EAGAIN ? DIRECT_DRY : DIRECT_LOST;
    }
    if (len < HOST_FRAME_PAD)
        pad_pieces(iov + 1, len, HOST_FRAME_PAD);
    f.niov = cut_pieces(iov + 1, pieces, f.len);
    if (net_rx_commit(&h->port, &f))
        return DIRECT_DONE;
    (void)pkt_gather(&f, 0, h->rx, (uint32_t)MIN(room, f.len)); /* it has as many */
    NetFrame *own = host_end_rx(h, h->rx, f.len);
    f.iov = own->iov;
    f.niov = own->niov;
    *own = f;
    return DIRECT_HELD;
}

static int tap_fill(HostEnd *h)
{
    Tap *t = (Tap *)h;
    int got = HOST_FILL_DRY;

    match_offloads(t);
    for (Direct d = DIRECT_DONE; d == DIRECT_DONE;) {
        d = fill_direct(t);
        got += d == DIRECT_DONE || d == DIRECT_HELD;
        if (d == DIRECT_DRY || (d == DIRECT_DONE && got == HOST_RX_BATCH))
            return got;
        if (d == DIRECT_LOST) {
            h->why = "the interface is gone";
            return HOST_FILL_LOST;
        }
    }
    size_t bytes = h->rx_count ? h->frame[0].len : 0;
    while (h->rx_count < HOST_RX_BATCH && bytes < FILL_BYTES) {
        uint8_t *slot = h->rx + (size_t)h->rx_count * HOST_RX_STRIDE;
        size_t skip = t->vnet ? HDR_LEN : 0;
        ssize_t n = read(h->fd, slot, HOST_RX_STRIDE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n <= 0) {
            h->why = "the interface is gone";
            return HOST_FILL_LOST;
        }
        got++;
        bytes += (size_t)n;
        NetFrame *f = (size_t)n >= skip ? host_end_rx(h, slot + skip, (size_t)n - skip) : NULL;
        struct virtio_net_hdr hdr;
        if (f && t->vnet) {
            memcpy(&hdr, slot, HDR_LEN);
            if (!vnet_hdr_read(&hdr, f)) {
                h->rx_count--;
                host_end_drop(h, HOST_DROP_MALFORMED, 1);
            }
        }
        if (got == HOST_RX_BATCH)
            break; /* dropped ones count, so that this ends */
    }
    return got;
}

/* One frame; false: there is no room now. */
static bool send_one(Tap *t, const NetFrame *f)
{
    struct virtio_net_hdr hdr;
    struct iovec iov[IOV_MAX_FRAME];
    unsigned n = 0;
    ssize_t done;

    vnet_hdr_of(f, &hdr);
    if (t->vnet)
        iov[n++] = (struct iovec){&hdr, HDR_LEN};
    if (f->niov <= IOV_MAX_FRAME - 1) {
        memcpy(&iov[n], f->iov, f->niov * sizeof *iov);
        n += f->niov;
    } else {
        if (!pkt_gather(f, 0, t->flat, f->len)) {
            host_end_drop(&t->h, HOST_DROP_HOST, 1);
            return true;
        }
        iov[n++] = (struct iovec){t->flat, f->len};
    }
    do
        done = writev(t->h.fd, iov, (int)n);
    while (done < 0 && errno == EINTR);
    if (done < 0 && (errno == EAGAIN || errno == ENOBUFS))
        return false;
    if (done < 0) /* EIO: the interface is down; EINVAL: a header that the kernel does not like */
        host_end_drop(&t->h, errno == EIO ? HOST_DROP_DOWN : HOST_DROP_HOST, 1);
    return true;
}

static unsigned tap_send(HostEnd *h, const NetFrame *v, unsigned n)
{
    unsigned i = 0;

    match_offloads((Tap *)h);
    while (i < n && send_one((Tap *)h, &v[i]))
        i++;
    return i;
}

/* ---- the interface ---- */

static void set_name(struct ifreq *r, const char *name)
{
    memset(r, 0, sizeof *r);
    g_strlcpy(r->ifr_name, name, sizeof r->ifr_name);
}

static bool join_bridge(Tap *t, const char *ifname, GError **error)
{
    struct ifreq r;
    int s = tap_if_socket(), err = 0;

    set_name(&r, t->bridge);
    r.ifr_ifindex = (int)if_nametoindex(ifname);
    if (s < 0 || (ioctl(s, SIOCBRADDIF, &r) < 0 && errno != EBUSY))
        err = errno;
    if (s >= 0)
        close(s);
    if (!err)
        return true;
    if (err == EPERM)
        return lodge_fail(error, LODGE_ERROR_HOST,
                          "tap: bridge \"%s\": no right to it; put the interface on it first: sudo "
                          "ip link set %s master %s",
                          t->bridge, ifname, t->bridge);
    if ((err == ENODEV || err == EOPNOTSUPP) && if_nametoindex(t->bridge))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "tap: bridge \"%s\": is an interface, and no bridge; name another one",
                          t->bridge);
    if (err == ENODEV || err == EOPNOTSUPP)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "tap: bridge \"%s\": there is no bridge of that name; make it: sudo ip "
                          "link add %s type bridge",
                          t->bridge, t->bridge);
    return lodge_fail_errno(error, err, "tap: bridge \"%s\": cannot join %s to it", t->bridge,
                            ifname);
}

/* Bring the interface up, as far as we may; say so where it is down and stays it. */
static void bring_up(Tap *t, const char *ifname)
{
    if (!tap_if_up(ifname))
        lodge_warn("%s: %s is down; bring it up: sudo ip link set %s up", t->h.id, ifname, ifname);
}

/* Give the host's side an address, with the netmask of 256 neighbours. */
static bool set_address(const Tap *t, const char *ifname, GError **error)
{
    static const unsigned long wants[] = {SIOCSIFADDR, SIOCSIFNETMASK};
    const in_addr_t values[] = {t->address.s_addr, htonl(IN_CLASSC_NET)};
    int s = tap_if_socket(), err = s < 0 ? errno : 0;

    for (unsigned i = 0; !err && i < G_N_ELEMENTS(wants); i++) {
        struct ifreq r;
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = values[i]};

        set_name(&r, ifname);
        memcpy(&r.ifr_addr, &in, sizeof in);
        if (ioctl(s, wants[i], &r) < 0)
            err = errno;
    }
    if (s >= 0)
        close(s);
    if (err == EPERM)
        return lodge_fail(error, LODGE_ERROR_HOST,
                          "tap: address: no right to set it; do that first: sudo ip address add "
                          "%s/24 dev %s",
                          inet_ntoa(t->address), ifname);
    return !err || lodge_fail_errno(error, err, "tap: address: cannot be set on %s", ifname);
}

static bool run_script(Tap *t, const char *ifname, GError **error)
{
    char *argv[] = {t->script, (char *)ifname, NULL};
    g_autoptr(GError) why = NULL;
    int status;

    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_CHILD_INHERITS_STDIN, NULL, NULL, NULL, NULL,
                      &status, &why) ||
        !g_spawn_check_wait_status(status, &why))
        return lodge_fail(error, LODGE_ERROR_HOST, "tap: up \"%s\": %s", t->script, why->message);
    return true;
}

/* The interface that a queue is attached to, or was. */
static const char *name_of(const Tap *t)
{
    return t->h.detail + strlen("tap ");
}

/* What a descriptor from outside is; *ret_name has IFNAMSIZ bytes. */
static bool take_given(Tap *t, int *ret_fd, char *ret_name, GError **error)
{
    struct ifreq r;
    int flags = fcntl(t->given, F_GETFL);

    memset(&r, 0, sizeof r);
    if (flags < 0 || ioctl(t->given, TUNGETIFF, &r) < 0 || !(r.ifr_flags & IFF_TAP) ||
        !(r.ifr_flags & IFF_NO_PI))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "tap: fd=%d is not an attached tap without packet information",
                          t->given);
    if (t->lead->queues > 1 && !(r.ifr_flags & IFF_MULTI_QUEUE))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "tap: fd=%d is of a tap of one queue; give one fd, or have the tap "
                          "multi_queue",
                          t->given);
    if (t->lead != t && strcmp(r.ifr_name, name_of(t->lead)))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "tap: fd=%d is of %s and the first one of %s; give queues of one "
                          "interface",
                          t->given, r.ifr_name, name_of(t->lead));
    if (fcntl(t->given, F_SETFL, flags | O_NONBLOCK) < 0)
        return lodge_fail_errno(error, errno, "tap: fd=%d", t->given);
    t->vnet = r.ifr_flags & IFF_VNET_HDR;
    g_strlcpy(ret_name, r.ifr_name, IFNAMSIZ);
    *ret_fd = t->given;
    t->given = -1;
    return true;
}

static bool attach(Tap *t, bool first, int *ret_fd, char *ret_name, GError **error)
{
    /* Only at the start is a missing one made: later it would be another one of that name. */
    if (!first && !if_nametoindex(name_of(t)))
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "not there");
    const char *name = t->name ? t->name : "tap%d";
    if (!first || t->lead != t)
        name = name_of(first ? t->lead : t);
    int fd = tap_if_open(name, t->lead->queues, ret_name, error);
    if (fd < 0)
        return false;
    t->vnet = true;
    *ret_fd = fd;
    return true;
}

static bool tap_connect(HostEnd *h, bool first, GError **error)
{
    Tap *t = (Tap *)h;
    char name[IFNAMSIZ];
    int fd = -1, len = HDR_LEN;

    if (!(t->given >= 0 ? take_given(t, &fd, name, error) : attach(t, first, &fd, name, error)))
        return false;
    h->fd = fd;
    t->offered = UINT32_MAX;
    t->detached = false;
    t->uso = t->vnet && (t->lead == t ? vnet_tun_set_uso(fd, 0) : t->lead->uso);
    if (t->vnet && ioctl(fd, TUNSETVNETHDRSZ, &len) < 0)
        lodge_fail_errno(error, errno, "tap \"%s\": cannot have headers", name);
    else if ((!t->script || run_script(t, name, error)) &&
             (!t->bridge || join_bridge(t, name, error)) &&
             (!t->address.s_addr || set_address(t, name, error))) {
        if (t->lead == t)
            bring_up(t, name);
        g_snprintf(h->detail, sizeof h->detail, "tap %s", name);
        return true;
    }
    close(fd);
    h->fd = -1;
    return false;
}

static const HostEndOps tap_ops = {
    .connect = tap_connect,
    .fill = tap_fill,
    .send = tap_send,
    .changed = tap_changed,
};

/* ---- life ---- */

static const NetOptSpec tap_opts[] = {
    {"ifname", "the interface (the next free tapN); tap=NAME is the same"},
    {"bridge", "bridge of the host to join it to"},
    {"up", "program to run with the interface's name when it is there"},
    {"address", "IPv4 address that the host gets on it, with the netmask 255.255.255.0"},
    {"queues", "pairs of queues that a virtio card has, 1 to 8, or auto: one a CPU; the tap is to be made "
               "with multi_queue (1)"},
    {"fd", "number of an open descriptor that is attached to a tap; several times: one for each queue",
     true},
    {NULL},
};

static void queue_free(Tap *t)
{
    host_end_stop(&t->h);
    host_end_free(&t->h);
    if (t->given >= 0)
        close(t->given);
    g_free(t->flat);
}

static void tap_close(NetBackend *be)
{
    Tap *t = (Tap *)be;

    for (unsigned i = t->queues; i-- > 0;) {
        if (t->queue[i])
            queue_free(t->queue[i]);
        if (i)
            g_free(t->queue[i]);
        if (t->fds[i] >= 0)
            close(t->fds[i]);
    }
    g_free(t->name);
    g_free(t->bridge);
    g_free(t->script);
    g_free(t);
}

/* What all queues have dropped. */
static void tap_info(NetBackend *be, NetInfo *ret_info)
{
    const Tap *t = (Tap *)be;
    uint64_t more[HOST_DROPS] = {0};

    for (unsigned i = 1; i < t->queues; i++) {
        for (unsigned k = 0; k < HOST_DROPS; k++)
            more[k] += __atomic_load_n(&t->queue[i]->h.drops[k], __ATOMIC_RELAXED);
    }
    host_end_tell(be, more, ret_info);
}

static bool queue_open(Tap *lead, unsigned i, const char *id, LodgeClock *clock, GError **error)
{
    Tap *t = i ? g_new0(Tap, 1) : lead;
    g_autofree char *name = i ? g_strdup_printf("%s.%u", id, i) : g_strdup(id);

    lead->queue[i] = t;
    t->lead = lead;
    t->given = lead->fds[i];
    lead->fds[i] = -1;
    t->h.again = t->given < 0;
    t->h.polls_room = true;
    t->h.silent = i;
    t->flat = g_malloc(NET_FRAME_MAX);
    if (!host_end_open(&t->h, &net_driver_tap, &tap_ops, name, clock, NET_OFF_ALL, error))
        return false;
    t->h.port.stream = (uint8_t)i;
    if (!host_end_start(&t->h, error))
        return false;
    if (!t->uso) /* not joined yet */
        t->h.port.offloads &= t->vnet ? ~(uint32_t)NET_OFF_USO : 0;
    if (i)
        lead->queue[i - 1]->h.port.next = &t->h.port;
    return true;
}

static NetBackend *tap_open(const char *id, GHashTable *opts, LodgeClock *clock, GError **error)
{
    const char *name = net_opt(opts, "ifname"), *bridge = net_opt(opts, "bridge");
    const char *address = net_opt(opts, "address");
    struct in_addr ip = {0};
    int fds[NET_STREAMS_MAX];
    unsigned given;
    uint64_t queues;

    if (!net_opt_fds(opts, fds, NET_STREAMS_MAX, &given, error) ||
        !net_opt_number(opts, "queues", 1, NET_STREAMS_MAX, MAX(given, 1), &queues, error))
        return NULL;
    if (given && queues != given) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "tap: queues=%u and %u descriptors; give one fd for each queue",
                   (unsigned)queues, given);
        return NULL;
    }
    if ((name && !tap_if_name_check(name, error)) ||
        (bridge && !tap_if_name_check(bridge, error)))
        return NULL;
    if (name && given) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "tap: ifname and fd exclude each other");
        return NULL;
    }
    if (address && (inet_pton(AF_INET, address, &ip) != 1 || !ip.s_addr)) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "tap: address \"%s\": not an IPv4 address like 192.168.0.254", address);
        return NULL;
    }
    Tap *t = g_new0(Tap, 1);
    t->address = ip;
    t->name = g_strdup(name);
    t->bridge = g_strdup(bridge);
    t->script = g_strdup(net_opt(opts, "up"));
    t->queues = (unsigned)queues;
    for (unsigned i = 0; i < NET_STREAMS_MAX; i++)
        t->fds[i] = i < given ? fds[i] : -1;
    for (unsigned i = 0; i < t->queues; i++) {
        if (!queue_open(t, i, id, clock, error)) {
            tap_close(&t->h.be);
            return NULL;
        }
    }
    t->h.be.close = tap_close;
    t->h.be.info = tap_info;
    return &t->h.be;
}

const NetDriver net_driver_tap = {
    .name = "tap",
    .help = "a network interface of the host",
    .opts = tap_opts,
    .target = "ifname",
    .open = tap_open,
};
