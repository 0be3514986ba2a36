/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ports of a switch that speak uml_switch's or vde_switch's protocol: one datagram is one frame.
 * Each port has a socket of its own, connected to the client's, so only that client's frames come
 * in by it, and the kernel says when a slow client has room again. Frames go out in batches; at
 * most SLOTS wait for a client.
 *
 * These clients know no offloads: checksums are done and segments are cut here. What is longer than
 * they have room for is dropped and counted, where uml_switch would cut it off; and so is what they
 * send that is longer than a batch's slot.
 */
#include "switch_host.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/error.h"
#include "pkt.h"

enum { SLOTS = SW_BATCH, SLOT_BYTES = 1536, ROOM = 16 };

#define SLOTS_BYTES ((size_t)SLOTS * SLOT_BYTES)

_Static_assert((int)SW_DGRAM_FRAME_MAX <= (int)SLOT_BYTES, "a frame fits into its slot");

typedef struct DgramPort {
    SwHostPort h;
    int fd;     /* owned */
    char *path; /* owned; where fd is bound, NULL: nowhere that has to be removed */
    uint8_t *slot; /* owned, mapped: SLOTS of SLOT_BYTES; pages are touched at first use */
    unsigned first, last;    /* frames that wait; number n is in slot n % SLOTS */
    uint16_t len[SLOTS];
    GByteArray *kept; /* owned: frames that were received and are held, each behind its length */
    guint kept_at;    /* the first of them */
    bool blocked; /* the client's queue is full */
    bool armed;   /* and an event tells when it is not */
    int64_t tried_ms; /* when it was last tried for room */
    bool shares;  /* its frames come by a socket that others use too */
    struct sockaddr_un from; /* and are known by this */
} DgramPort;

static void watch_again(DgramPort *d)
{
    io_watch_set(d->h.watch, (d->kept->len ? 0 : (uint32_t)EPOLLIN) |
                                 (d->armed ? (uint32_t)EPOLLOUT : 0));
}

static void set_blocked(DgramPort *d, bool blocked)
{
    d->blocked = blocked;
    if (!blocked) {
        d->armed = false;
        watch_again(d);
    } else if (!d->armed) {
        sw_host_stuck(&d->h);
    }
}

/* Send what waits. Afterwards, slots are free unless the client is slow. */
static void send_waiting(DgramPort *d)
{
    struct mmsghdr m[SLOTS];
    struct iovec iov[SLOTS];

    while (d->first != d->last) {
        unsigned n = d->last - d->first;

        for (unsigned i = 0; i < n; i++) {
            unsigned at = (d->first + i) % SLOTS;
            iov[i] = (struct iovec){d->slot + (size_t)at * SLOT_BYTES, d->len[at]};
            m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
        }
        int sent = sendmmsg(d->fd, m, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0)
            d->first += (unsigned)sent;
        if (sent == (int)n)
            break;
        /* After a part went; were it something else, the next call would say so. */
        if (sent > 0 || errno == EAGAIN || errno == ENOBUFS) {
            set_blocked(d, true);
            break;
        } else if (errno != EINTR) {
            d->h.p.drops[SW_DROP_FULL] += n; /* its socket is gone; the control one follows */
            d->first = d->last;
        }
    }
    if (d->first == d->last) {
        d->first = d->last = 0; /* quiet ports touch the first slots only */
        set_blocked(d, false);
    }
    if (d->last - d->first <= SLOTS - ROOM)
        sw_host_room(&d->h);
}

static void dgram_retry(SwHostPort *h)
{
    DgramPort *d = (DgramPort *)h;

    if (d->blocked)
        send_waiting(d);
}

static void dgram_arm(SwHostPort *h)
{
    DgramPort *d = (DgramPort *)h;

    if (d->blocked) {
        d->armed = true;
        watch_again(d);
    }
}

static bool room_for(DgramPort *d, uint32_t frames)
{
    if (d->last - d->first + frames > SLOTS) {
        int64_t now = sw_host_now_ms(d->h.host);
        /* In a long round nobody looks whether a client has read in the meantime. */
        if (!d->blocked || d->tried_ms != now)
            send_waiting(d);
        d->tried_ms = now;
    }
    return frames <= SLOTS && d->last - d->first <= SLOTS - frames;
}

/* The next slot, NULL: none. */
static uint8_t *take_slot(DgramPort *d, uint32_t len)
{
    unsigned at;

    if (!room_for(d, 1))
        return NULL;
    at = d->last++ % SLOTS; /* having room may have meant to start over */
    d->len[at] = (uint16_t)len;
    return d->slot + (size_t)at * SLOT_BYTES;
}

static SwOut put_segments(DgramPort *d, const NetFrame *f, bool may_hold)
{
    PktSegmenter seg;

    if (!pkt_seg_begin(&seg, f) || seg.count > SLOTS)
        return SW_BAD;
    if (!room_for(d, seg.count)) /* all or none, since it may come again */
        return sw_host_full(&d->h, may_hold);
    for (uint32_t i = 0; i < seg.count; i++) {
        if (pkt_seg_len(&seg, i) > SW_DGRAM_FRAME_MAX)
            return SW_TOO_LONG;
        uint8_t *to = take_slot(d, pkt_seg_len(&seg, i));
        if (!to)
            return SW_FULL;
        pkt_seg_write(&seg, i, to);
    }
    return SW_SENT;
}

static SwOut dgram_output(SwPort *p, const NetFrame *f, bool may_hold)
{
    DgramPort *d = (DgramPort *)p;
    uint8_t *to;

    if (d->h.doomed)
        return SW_FULL;
    sw_host_dirty(&d->h);
    if (f->gso != NET_GSO_NONE)
        return put_segments(d, f, may_hold);
    if (f->len > SW_DGRAM_FRAME_MAX)
        return SW_TOO_LONG;
    to = take_slot(d, f->len);
    if (!to)
        return sw_host_full(&d->h, may_hold);
    if (!pkt_gather(f, 0, to, f->len) ||
        ((f->flags & NET_FRAME_NEEDS_CSUM) &&
         !pkt_finish_csum(to, f->len, f->csum_start, f->csum_off))) {
        d->last--;
        return SW_BAD;
    }
    return SW_SENT;
}

static void keep(DgramPort *d, const struct iovec *piece)
{
    uint16_t len = (uint16_t)piece->iov_len;

    g_byte_array_append(d->kept, (const guint8 *)&len, sizeof len);
    g_byte_array_append(d->kept, piece->iov_base, len);
}

/* What was held. Return: whether all of it went. */
static bool forward_kept(DgramPort *d)
{
    int64_t now = sw_host_now_ms(d->h.host);

    while (d->kept_at < d->kept->len) {
        uint16_t len;
        memcpy(&len, d->kept->data + d->kept_at, sizeof len);
        struct iovec piece = {d->kept->data + d->kept_at + sizeof len, len};
        NetFrame f = {.iov = &piece, .niov = 1, .len = len};
        if (!switch_input(&d->h.p, &f, now)) {
            sw_host_hold(&d->h);
            return false;
        }
        d->kept_at += (guint)sizeof len + len;
    }
    g_byte_array_set_size(d->kept, 0);
    d->kept_at = 0;
    return true;
}

/* After a round: frames that were held, then those that wait for the client. */
static void dgram_flush(SwHostPort *h)
{
    DgramPort *d = (DgramPort *)h;

    if (d->kept->len && !h->held && forward_kept(d))
        watch_again(d);
    send_waiting(d);
}

static void dgram_resume(SwHostPort *h)
{
    sw_host_dirty(h); /* not now: this may be inside another port's frame */
}

static void take_frames(DgramPort *d)
{
    SwHost *host = d->h.host;
    struct mmsghdr m[SW_BATCH];
    struct iovec iov[SW_BATCH];
    int64_t now = sw_host_now_ms(host);

    for (unsigned i = 0; i < SW_BATCH; i++) {
        iov[i] = (struct iovec){host->buf + (size_t)i * SW_BUF_SLOT, SW_BUF_SLOT};
        m[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &iov[i], .msg_iovlen = 1}};
    }
    int n = recvmmsg(d->fd, m, SW_BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) {
        struct iovec piece = {iov[i].iov_base, m[i].msg_len};
        NetFrame f = {.iov = &piece, .niov = 1, .len = m[i].msg_len};

        if (m[i].msg_hdr.msg_flags & MSG_TRUNC) {
            d->h.p.drops[SW_DROP_LONG]++;
        } else if (d->kept->len) {
            keep(d, &piece);
        } else if (!switch_input(&d->h.p, &f, now)) {
            keep(d, &piece);
            sw_host_hold(&d->h);
        }
    }
    if (d->kept->len)
        watch_again(d);
}

void sw_dgram_take_shared(SwHost *host, int fd)
{
    int64_t now = sw_host_now_ms(host);

    for (unsigned n = 0; n < SW_BATCH; n++) {
        struct sockaddr_un from = {0};
        struct iovec piece = {host->buf, SW_BUF_SLOT};
        struct msghdr m = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &piece,
                           .msg_iovlen = 1};
        ssize_t len = recvmsg(fd, &m, MSG_DONTWAIT);

        if (len < 0)
            return;
        for (guint i = 0; i < host->ports->len; i++) {
            DgramPort *d = g_ptr_array_index(host->ports, i);

            if (d->h.p.ops != &sw_uml_ops || !d->shares || d->h.doomed ||
                memcmp(&d->from, &from, sizeof from))
                continue;
            piece.iov_len = (size_t)len;
            NetFrame f = {.iov = &piece, .niov = 1, .len = (uint32_t)len};
            if (m.msg_flags & MSG_TRUNC)
                d->h.p.drops[SW_DROP_LONG]++;
            else
                (void)switch_input(&d->h.p, &f, now); /* never held: may_hold is off */
            break;
        }
    }
}

static void on_dgram(void *opaque, uint32_t events)
{
    DgramPort *d = opaque;

    if (d->h.doomed)
        return;
    if (events & EPOLLOUT)
        send_waiting(d);
    if ((events & (EPOLLIN | EPOLLERR)) && !d->kept->len)
        take_frames(d);
}

static void dgram_trim(SwHostPort *h)
{
    DgramPort *d = (DgramPort *)h;

    if (d->first == d->last)
        (void)madvise(d->slot, SLOTS_BYTES, MADV_DONTNEED); /* zeros at the next use: no matter */
    if (!d->kept->len) {
        g_byte_array_unref(d->kept);
        d->kept = g_byte_array_new();
    }
}

static void dgram_free(SwHostPort *h)
{
    DgramPort *d = (DgramPort *)h;

    close(d->fd);
    if (d->path)
        (void)unlink(d->path); /* somebody may have tidied up */
    g_free(d->path);
    if (d->slot)
        munmap(d->slot, SLOTS_BYTES);
    g_byte_array_unref(d->kept);
    g_free(d);
}

const SwPortOps sw_uml_ops = {
    .kind = "uml", .output = dgram_output, .unplug = sw_host_doom_op,
};
const SwPortOps sw_vde_ops = {
    .kind = "vde", .output = dgram_output, .unplug = sw_host_doom_op,
};

bool sw_dgram_add(SwHost *host, const SwPortOps *ops, int ctl_fd, int fd, const char *path,
                  const struct sockaddr_un *shared, unsigned number, const char *name,
                  GError **error)
{
    DgramPort *d = g_new0(DgramPort, 1);

    d->h.p.ops = ops;
    d->h.p.may_hold = !shared;
    d->h.flush = dgram_flush;
    d->h.resume = dgram_resume;
    d->h.retry = dgram_retry;
    d->h.arm = dgram_arm;
    d->h.trim = dgram_trim;
    d->h.free = dgram_free;
    d->h.ctl_fd = ctl_fd;
    d->fd = fd;
    d->shares = shared;
    if (shared)
        d->from = *shared;
    d->path = g_strdup(path);
    d->kept = g_byte_array_new();
    void *slot =
        mmap(NULL, SLOTS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slot == MAP_FAILED) {
        lodge_fail_errno(error, errno, "memory of a port");
        if (ctl_fd >= 0)
            close(ctl_fd);
        dgram_free(&d->h);
        return false;
    }
    d->slot = slot;
    return sw_host_adopt(host, &d->h, fd, EPOLLIN, on_dgram, number, name, NULL, error);
}
