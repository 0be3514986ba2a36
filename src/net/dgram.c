/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frames in datagrams, in batches: recvmmsg into the batch's slots, sendmmsg from the guest's own
 * memory. Threads: the loop. */
#include "dgram.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "lodge/num.h"

enum { TX_BATCH = 64 };

static bool same_addr(const NetAddr *a, const struct sockaddr_storage *sa, socklen_t len)
{
    const struct sockaddr_in6 *x = (const struct sockaddr_in6 *)&a->sa;
    const struct sockaddr_in6 *y = (const struct sockaddr_in6 *)sa;

    /* Of IPv6, flow and scope of what is heard are not those that a socket says of itself. */
    if (len == sizeof *y && a->len == len && sa->ss_family == AF_INET6)
        return x->sin6_port == y->sin6_port &&
               IN6_ARE_ADDR_EQUAL(&x->sin6_addr, &y->sin6_addr);
    return a->len == len && !memcmp(&a->sa, sa, len);
}

/**
 * dgram_fill() - HostEndOps.fill
 * Errors that a datagram socket reports of what was sent earlier (nobody there) end nothing.
 */
int dgram_fill(HostEnd *h)
{
    Dgram *d = (Dgram *)h;
    struct mmsghdr m[HOST_RX_BATCH];
    struct iovec iov[HOST_RX_BATCH];
    struct sockaddr_storage from[HOST_RX_BATCH];

    memset(m, 0, sizeof m);
    for (unsigned i = 0; i < HOST_RX_BATCH; i++) {
        iov[i] = (struct iovec){h->rx + (size_t)i * HOST_RX_STRIDE, HOST_RX_STRIDE};
        m[i].msg_hdr.msg_iov = &iov[i];
        m[i].msg_hdr.msg_iovlen = 1;
        m[i].msg_hdr.msg_name = &from[i];
        m[i].msg_hdr.msg_namelen = sizeof from[i];
    }
    int n = recvmmsg(h->fd, m, HOST_RX_BATCH, MSG_DONTWAIT, NULL);
    if (n <= 0)
        return HOST_FILL_DRY;
    for (int i = 0; i < n; i++) {
        if (!d->self.len || !same_addr(&d->self, &from[i], m[i].msg_hdr.msg_namelen))
            (void)host_end_rx(h, iov[i].iov_base, m[i].msg_len); /* counts what is no frame */
    }
    return n;
}

static HostDrop reason_for(int err)
{
    switch (err) {
    case EMSGSIZE:
        return HOST_DROP_TOO_LONG;
    case ECONNREFUSED:
    case ENOENT:
    case ENOTCONN:
    case ECONNRESET:
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
        return HOST_DROP_DOWN;
    default:
        return HOST_DROP_HOST;
    }
}

/**
 * dgram_send() - HostEndOps.send
 * A frame that the host refuses is counted by its reason and holds up no other.
 */
unsigned dgram_send(HostEnd *h, const NetFrame *v, unsigned n)
{
    Dgram *d = (Dgram *)h;
    struct mmsghdr m[TX_BATCH];
    unsigned taken = 0;

    while (taken < n) {
        unsigned count = MIN(n - taken, (unsigned)TX_BATCH), fit = 0;
        while (fit < count && v[taken + fit].len <= d->longest) {
            m[fit].msg_hdr = (struct msghdr){.msg_name = d->to.len ? &d->to.sa : NULL,
                                             .msg_namelen = d->to.len,
                                             .msg_iov = (struct iovec *)v[taken + fit].iov,
                                             .msg_iovlen = v[taken + fit].niov};
            fit++;
        }
        if (!fit) {
            host_end_drop(h, HOST_DROP_TOO_LONG, 1);
            taken++;
            continue;
        }
        int sent = sendmmsg(d->tx, m, fit, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            taken += (unsigned)sent;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == ENOBUFS)
            return taken;
        host_end_drop(h, reason_for(errno), 1);
        taken++;
    }
    return taken;
}
