/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A port of a switch that is a tap of the host (Linux, Documentation/networking/tuntap.rst): frames
 * have a struct virtio_net_hdr in front, so checksums and TCP segments stay undone between host and
 * machines. What the kernel says about a frame is checked as if it came from a guest.
 */
#include "switch_host.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/if_tun.h>

#include "lodge/diag.h"
#include "lodge/error.h"

#include "pkt.h"
#include "tap_if.h"
#include "vnet_hdr.h"

typedef struct TapPort {
    SwHostPort h;
    int fd;       /* owned */
    uint8_t *buf; /* owned: NET_FRAME_MAX */
    uint8_t *cut; /* owned, likewise; NULL: the kernel cuts datagrams of UDP */
} TapPort;

enum { TAP_PIECES = 8, TAP_OFFLOADS = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 };

int sw_tap_open(const char *name, GError **error)
{
    char made[IFNAMSIZ];

    if (!tap_if_name_check(name, error))
        return -1;
    int fd = tap_if_open(name, 0, made, error);
    if (fd >= 0 && ioctl(fd, TUNSETOFFLOAD, (unsigned long)TAP_OFFLOADS) < 0) {
        lodge_fail_errno(error, errno, "tap \"%s\": cannot set offloads", name);
        close(fd);
        return -1;
    }
    if (fd >= 0 && !tap_if_up(name))
        lodge_warn("tap %s is down; bring it up: sudo ip link set %s up", name, name);
    return fd;
}

static SwOut out_result(ssize_t done)
{
    if (done >= 0)
        return SW_SENT;
    return errno == EAGAIN || errno == ENOBUFS || errno == EIO ? SW_FULL : SW_BAD;
}

/* Datagrams of UDP in one frame, for a kernel that does not know such: one each. */
static SwOut put_datagrams(TapPort *t, const NetFrame *f)
{
    const struct virtio_net_hdr h = {0};
    PktSegmenter seg;

    if (!pkt_seg_begin(&seg, f))
        return SW_BAD;
    for (uint32_t i = 0; i < seg.count; i++) {
        struct iovec iov[2] = {{(void *)&h, sizeof h}, {t->cut, pkt_seg_len(&seg, i)}};
        pkt_seg_write(&seg, i, t->cut);
        SwOut out = out_result(writev(t->fd, iov, 2));
        if (out != SW_SENT)
            return i ? SW_BAD : out; /* begun: it cannot come again */
    }
    return SW_SENT;
}

static SwOut tap_output(SwPort *p, const NetFrame *f, bool may_hold)
{
    TapPort *t = (TapPort *)p;
    struct virtio_net_hdr h;
    struct iovec iov[TAP_PIECES] = {{&h, sizeof h}};

    if (t->h.doomed || f->niov >= TAP_PIECES)
        return SW_BAD;
    if (f->gso == NET_GSO_UDP && t->cut)
        return put_datagrams(t, f);
    vnet_hdr_of(f, &h);
    memcpy(iov + 1, f->iov, f->niov * sizeof *iov);
    return out_result(writev(t->fd, iov, (int)f->niov + 1));
}

static void on_tap(void *opaque, uint32_t events)
{
    TapPort *t = opaque;
    int64_t now = sw_host_now_ms(t->h.host);

    for (unsigned i = 0; i < SW_BATCH && !t->h.doomed; i++) {
        struct virtio_net_hdr h;
        struct iovec iov[2] = {{&h, sizeof h}, {t->buf, NET_FRAME_MAX}};
        ssize_t n = readv(t->fd, iov, 2);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < (ssize_t)sizeof h) {
            sw_host_doom(&t->h, "the tap is gone; unplugged");
            return;
        }
        struct iovec piece = {t->buf, (size_t)n - sizeof h};
        NetFrame f = {.iov = &piece, .niov = 1, .len = (uint32_t)piece.iov_len};
        if (vnet_hdr_read(&h, &f))
            (void)switch_input(&t->h.p, &f, now); /* never held: may_hold is off */
        else
            t->h.p.drops[SW_DROP_MALFORMED]++;
    }
}

static void tap_free(SwHostPort *h)
{
    TapPort *t = (TapPort *)h;

    close(t->fd);
    g_free(t->buf);
    g_free(t->cut);
    g_free(t);
}

static const SwPortOps tap_ops = {
    .kind = "tap", .output = tap_output, .unplug = sw_host_doom_op,
};

bool sw_tap_add(SwHost *host, int fd, unsigned number, const char *name, const SwVlan *vlan,
                GError **error)
{
    TapPort *t = g_new0(TapPort, 1);

    t->h.p.ops = &tap_ops;
    t->h.free = tap_free;
    t->h.of_host = true;
    t->h.ctl_fd = -1;
    t->fd = fd;
    t->buf = g_malloc(NET_FRAME_MAX);
    t->cut = vnet_tun_set_uso(fd, TAP_OFFLOADS) ? NULL : g_malloc(NET_FRAME_MAX);
    if (!host->internal)
        return sw_host_adopt(host, &t->h, fd, EPOLLIN, on_tap, number, name, vlan, error);
    tap_free(&t->h);
    return lodge_fail(error, LODGE_ERROR_CONFIG, "switch %s: is internal and takes no tap",
                      host->name);
}
