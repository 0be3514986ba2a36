/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ports of a switch that are other Lodge processes: a link of two rings in a sealed memfd and an
 * eventfd for each side, which means "look": frames are there, or room. Frames keep what is asked
 * of them (checksums, segments) all the way.
 *
 * While a side is awake its eventfd stays readable, so the loop comes back to it without anybody
 * writing; it is read when there is nothing left to do, and then everything is looked at once more.
 * A port whose frames are held does not say that it sleeps: nobody need wake it for more.
 *
 * The rings of all ports share RINGS_BYTES: each may use as much of its own as there is for one of
 * those that are busy, that is, that do not keep to their first pages; who is counts until the next
 * tick but one.
 *
 * The first SW_HEAD bytes of a frame are copied before the switch decides by them. A peer whose
 * ring makes no sense loses its port.
 */
#include "switch_host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lodge/error.h"
#include "link_ring.h"
#include "switch_client.h"

enum { RINGS_BYTES = 2 << 20 };

typedef struct LinkPort {
    SwHostPort h;
    void *memory; /* LINK_BYTES, mapped */
    LinkTx tx;
    LinkRx rx;
    bool tx_busy, rx_busy; /* counted in SwHost.rings_busy */
    int wait_fd, peer_fd; /* eventfds; owned */
} LinkPort;

static const SwPortOps link_ops;

static void wake_peer(LinkPort *l)
{
    uint64_t one = 1;
    ssize_t n = write(l->peer_fd, &one, sizeof one);

    (void)n; /* a full counter wakes as well */
}

static void look_again(LinkPort *l)
{
    uint64_t one = 1;
    ssize_t n = write(l->wait_fd, &one, sizeof one);

    (void)n; /* likewise */
}

static uint32_t ring_limit(const SwHost *host)
{
    unsigned busy = MAX(MAX(host->rings_busy, host->rings_busy_before), 1u);

    return CLAMP((uint32_t)RINGS_BYTES / busy, (uint32_t)LINK_LIMIT_MIN,
                 (uint32_t)LINK_RING_BYTES);
}

static void set_limit(LinkPort *l, uint32_t bytes)
{
    link_tx_set_limit(&l->tx, bytes);
    link_rx_set_limit(&l->rx, bytes);
}

/* @anew: who is busy is to be found out again. */
static void share_rings(SwHost *host, bool anew)
{
    uint32_t bytes;

    if (anew) {
        host->rings_busy_before = host->rings_busy;
        host->rings_busy = 0;
    }
    bytes = ring_limit(host);
    for (guint i = 0; i < host->ports->len; i++) {
        SwHostPort *h = g_ptr_array_index(host->ports, i);
        LinkPort *l = (LinkPort *)h;

        if (h->p.ops != &link_ops)
            continue;
        if (anew)
            l->tx_busy = l->rx_busy = false;
        set_limit(l, bytes);
    }
}

static void note_busy(LinkPort *l, bool *busy)
{
    if (*busy)
        return;
    *busy = true;
    l->h.host->rings_busy++;
    share_rings(l->h.host, false);
}

static void link_flush(SwHostPort *h)
{
    LinkPort *l = (LinkPort *)h;

    if (link_tx_publish(&l->tx))
        wake_peer(l);
}

static SwOut link_output(SwPort *p, const NetFrame *f, bool may_hold)
{
    LinkPort *l = (LinkPort *)p;

    if (l->h.doomed)
        return SW_FULL;
    if (!link_tx_put(&l->tx, f)) {
        if (!l->h.full) {
            link_flush(&l->h);
            if (link_tx_want_room(&l->tx, f->len) && link_tx_put(&l->tx, f)) {
                sw_host_dirty(&l->h);
                return SW_SENT;
            }
        }
        if (l->tx.broken)
            sw_host_doom(&l->h, "its ring makes no sense; unplugged");
        return sw_host_full(&l->h, may_hold);
    }
    if (link_tx_wide(&l->tx))
        note_busy(l, &l->tx_busy);
    sw_host_dirty(&l->h);
    return SW_SENT;
}

static void check_room(LinkPort *l)
{
    if (l->h.full && link_tx_want_room(&l->tx, 1))
        sw_host_room(&l->h);
}

/* Forward what came, a batch at most. Return: whether nothing is left. */
static bool take_frames(LinkPort *l)
{
    int64_t now = sw_host_now_ms(l->h.host);
    uint8_t head[SW_HEAD];
    unsigned n = 0;
    NetFrame f;
    struct iovec at;

    for (; n < SW_BATCH; n++) {
        uint32_t mark = link_rx_mark(&l->rx);
        struct iovec iov[2];

        if (!link_rx_next(&l->rx, &f, &at))
            break;
        iov[0] = (struct iovec){head, MIN(at.iov_len, sizeof head)};
        iov[1] = (struct iovec){(uint8_t *)at.iov_base + iov[0].iov_len,
                                at.iov_len - iov[0].iov_len};
        memcpy(head, at.iov_base, iov[0].iov_len);
        f.iov = iov;
        f.niov = iov[1].iov_len ? 2 : 1;
        if (!switch_input(&l->h.p, &f, now)) {
            link_rx_back(&l->rx, mark);
            sw_host_hold(&l->h);
            break;
        }
    }
    if (link_rx_wide(&l->rx))
        note_busy(l, &l->rx_busy);
    if (link_rx_release(&l->rx))
        wake_peer(l);
    return n < SW_BATCH;
}

static void on_look(void *opaque, uint32_t events)
{
    LinkPort *l = opaque;
    uint64_t count;

    if (l->h.doomed)
        return;
    check_room(l);
    if (l->h.held || take_frames(l)) {
        ssize_t got = read(l->wait_fd, &count, sizeof count);
        (void)got; /* whatever it said is looked at now */
        check_room(l);
        if (!l->h.held && !link_rx_sleep(&l->rx))
            look_again(l);
    }
    if (l->rx.broken || l->tx.broken)
        sw_host_doom(&l->h, "its ring makes no sense; unplugged");
}

static void link_resume(SwHostPort *h)
{
    look_again((LinkPort *)h);
}

/* A burst touched the rings as a whole; without that a port takes a few pages. */
static void link_trim(SwHostPort *h)
{
    LinkPort *l = (LinkPort *)h;

    link_tx_trim(&l->tx);
    link_rx_trim(&l->rx);
}

void sw_link_tick(SwHost *host)
{
    share_rings(host, true);
}

static void link_free(SwHostPort *h)
{
    LinkPort *l = (LinkPort *)h;

    l->h.host->rings_busy -= l->tx_busy + l->rx_busy;
    if (l->memory)
        munmap(l->memory, LINK_BYTES);
    if (l->wait_fd >= 0)
        close(l->wait_fd);
    if (l->peer_fd >= 0)
        close(l->peer_fd);
    g_free(l);
}

static const SwPortOps link_ops = {
    .kind = "lodge",
    .output = link_output,
    .unplug = sw_host_doom_op,
};

/* @tx: which direction is ours to write. */
static LinkPort *link_new(const SwHost *host, int ctl_fd, void *memory, unsigned tx, int wait_fd,
                          int peer_fd)
{
    LinkPort *l = g_new0(LinkPort, 1);

    l->h.p.ops = &link_ops;
    l->h.p.may_hold = true;
    l->h.flush = link_flush;
    l->h.resume = link_resume;
    l->h.trim = link_trim;
    l->h.free = link_free;
    l->h.ctl_fd = ctl_fd;
    l->memory = memory;
    l->wait_fd = wait_fd;
    l->peer_fd = peer_fd;
    link_tx_init(&l->tx, memory, tx);
    link_rx_init(&l->rx, memory, !tx);
    set_limit(l, ring_limit(host));
    look_again(l);
    return l;
}

static int make_memory(GError **error)
{
    int fd = memfd_create("lodge-link", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, LINK_BYTES) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        lodge_fail_errno(error, errno, "memory of a link");
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

bool sw_link_serve(SwHost *host, int ctl_fd, const SwHello *hello, int fds[SW_ATTACH_FDS],
                   unsigned *ret_number, GError **error)
{
    SwVlan vlan;
    void *memory = MAP_FAILED;
    int ours = -1, theirs = -1;

    for (unsigned i = 0; i < SW_ATTACH_FDS; i++)
        fds[i] = -1;
    if (hello->vlan[0] && !sw_vlan_parse(hello->vlan, &vlan, error)) {
        close(ctl_fd);
        return false;
    }
    fds[0] = make_memory(error);
    if (fds[0] >= 0)
        memory = mmap(NULL, LINK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    fds[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    fds[2] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fds[1] >= 0 && fds[2] >= 0) {
        theirs = fcntl(fds[1], F_DUPFD_CLOEXEC, 0);
        ours = fcntl(fds[2], F_DUPFD_CLOEXEC, 0);
    }
    if (memory == MAP_FAILED || theirs < 0 || ours < 0) {
        if (fds[0] >= 0)
            lodge_fail_errno(error, errno, "descriptors of a link");
        if (memory != MAP_FAILED)
            munmap(memory, LINK_BYTES);
        if (theirs >= 0)
            close(theirs);
        if (ours >= 0)
            close(ours);
        close(ctl_fd);
        return false;
    }
    LinkPort *l = link_new(host, ctl_fd, memory, 1, ours, theirs);
    if (!sw_host_adopt(host, &l->h, ours, EPOLLIN, on_look, hello->port, hello->name,
                       hello->vlan[0] ? &vlan : NULL, error))
        return false;
    *ret_number = l->h.p.number;
    return true;
}

bool sw_link_join(SwHost *host, int ctl_fd, const int fds[SW_ATTACH_FDS], unsigned number,
                  const char *name, const SwVlan *vlan, GError **error)
{
    void *memory = sw_link_map(fds[0], error);

    close(fds[0]);
    if (!memory) {
        close(fds[1]);
        close(fds[2]);
        close(ctl_fd);
        return false;
    }
    LinkPort *l = link_new(host, ctl_fd, memory, 0, fds[1], fds[2]);
    return sw_host_adopt(host, &l->h, fds[1], EPOLLIN, on_look, number, name, vlan, error);
}
