/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "switch", "internal" and "host-only": a port of Lodge's own switch. A switch that does not run is
 * made, and ends by itself when nothing has been plugged in for a while.
 *
 * Frames go through the link's two rings (switch_port_link.c has how sleeping and waking go). A
 * frame from the guest is copied once, into the ring; one for the guest goes from the ring straight
 * into its buffers. The switch is not trusted: what stands beside a frame is checked by
 * link_ring.c, and cards decide nothing by bytes that they read twice.
 *
 * When the switch goes the guest's link goes down, frames are lost and counted, and we look for it
 * ever more rarely, at least every RETRY_MAX_MS. One that was made at first use is made again; one
 * that somebody started is theirs to start.
 *
 * Threads: opened and closed by main; all else is on the back end's own loop. Invariant: either all
 * of memory, ctl, wait_fd, peer_fd are there (plugged in), or at most ctl (asking), or none.
 */
#include "driver_table.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lodge/clock.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"
#include "link_ring.h"
#include "opts.h"
#include "switch.h"
#include "switch_client.h"

enum {
    BATCH = 64,
    ANSWER_MS = 5000,
    RETRY_MIN_MS = 100,
    RETRY_MAX_MS = 2000,
    REMAKE_TRIES = 3, /* somebody may be starting it again */
    OPEN_TRIES = 3,
};
#define NS_PER_MS INT64_C(1000000)

typedef struct SwitchNet {
    NetBackend be;
    NetPort port;
    char *id;   /* owned */
    char *name; /* owned; the switch's */
    SwHello hello;
    SwMake make; /* what is made where none runs */
    LodgeClock *clock; /* borrowed, outlives us */
    IoThread *io;      /* owned */
    /* The loop's thread, once it runs: */
    int ctl, wait_fd, peer_fd; /* owned; -1: none */
    IoWatch *ctl_watch, *ring_watch;
    LodgeTimer *retry;
    void *memory; /* LINK_BYTES, mapped; NULL: not plugged in */
    LinkTx tx;
    LinkRx rx;
    bool want_room; /* the ring was full, and the wire waits */
    bool blocked;   /* the guest is full; the wire says when it is not */
    bool remake;    /* the switch was made at first use */
    bool lost;      /* and that was said */
    unsigned tries, number; /* number: of the port */
    uint64_t unsent;        /* atomic: frames that there was no switch for */
} SwitchNet;

static void poke(int fd)
{
    uint64_t one = 1;
    ssize_t n = write(fd, &one, sizeof one);

    (void)n; /* a full counter wakes as well */
}

/* ---- frames ---- */

static unsigned switch_send(NetPort *self, const NetFrame *v, unsigned n)
{
    SwitchNet *s = self->opaque;
    unsigned i = 0;

    if (!s->memory) {
        __atomic_fetch_add(&s->unsent, n, __ATOMIC_RELAXED);
        return n;
    }
    while (i < n) {
        if (!v[i].len || v[i].len > NET_FRAME_MAX || link_tx_put(&s->tx, &v[i])) {
            i++;
            continue;
        }
        if (link_tx_publish(&s->tx))
            poke(s->peer_fd);
        if (s->tx.broken) { /* lost with the link */
            __atomic_fetch_add(&s->unsent, n - i, __ATOMIC_RELAXED);
            return n;
        }
        if (!link_tx_want_room(&s->tx, v[i].len)) {
            s->want_room = true;
            break;
        }
    }
    if (link_tx_publish(&s->tx))
        poke(s->peer_fd);
    return i;
}

static void check_room(SwitchNet *s)
{
    if (!s->want_room || !link_tx_want_room(&s->tx, 1))
        return;
    s->want_room = false;
    net_rx_ready(&s->port);
}

/* Give the guest a batch. Return: whether nothing is left, or nothing goes. */
static bool take_frames(SwitchNet *s)
{
    NetFrame f[BATCH];
    struct iovec iov[BATCH];
    uint32_t mark[BATCH];
    unsigned n = 0, took;

    while (n < BATCH) {
        mark[n] = link_rx_mark(&s->rx);
        if (!link_rx_next(&s->rx, &f[n], &iov[n]))
            break;
        n++;
    }
    took = n ? net_send(&s->port, f, n) : 0;
    if (took < n) {
        link_rx_back(&s->rx, mark[took]);
        s->blocked = true;
    }
    if (link_rx_release(&s->rx))
        poke(s->peer_fd);
    return n < BATCH || s->blocked;
}

static void switch_lost(SwitchNet *s, const char *why);

static void on_ring(void *opaque, uint32_t events)
{
    SwitchNet *s = opaque;
    uint64_t count;

    check_room(s);
    if (s->blocked || take_frames(s)) {
        ssize_t got = read(s->wait_fd, &count, sizeof count);
        (void)got; /* whatever it said is looked at now */
        check_room(s);
        if (!s->blocked && !link_rx_sleep(&s->rx))
            poke(s->wait_fd);
    }
    if (s->rx.broken || s->tx.broken)
        switch_lost(s, "its ring makes no sense");
}

static void switch_writable(NetPort *self)
{
    SwitchNet *s = self->opaque;

    s->blocked = false;
    if (s->memory)
        poke(s->wait_fd);
}

static const NetPortOps switch_port_ops = {
    .send = switch_send,
    .writable = switch_writable,
    .offloads = NET_OFF_ALL,
};

/* ---- the link comes and goes ---- */

static void hang_up(SwitchNet *s)
{
    io_watch_free(s->ctl_watch);
    io_watch_free(s->ring_watch);
    s->ctl_watch = s->ring_watch = NULL;
    if (s->memory)
        munmap(s->memory, LINK_BYTES);
    s->memory = NULL;
    int *fds[] = {&s->ctl, &s->wait_fd, &s->peer_fd};
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

static void try_later(SwitchNet *s)
{
    int64_t ms = MIN((int64_t)RETRY_MIN_MS << MIN(s->tries, 8u), RETRY_MAX_MS);

    s->tries++;
    timer_arm(s->retry, clock_now_ns(s->clock) + ms * NS_PER_MS);
}

static void switch_lost(SwitchNet *s, const char *why)
{
    hang_up(s);
    if (!s->lost)
        lodge_warn("net '%s': switch %s: %s; frames are lost until it is back", s->id, s->name,
                   why);
    s->lost = true;
    net_set_link(&s->port, false);
    if (s->want_room) {
        /* What the wire kept for us is lost as well. */
        s->want_room = false;
        net_rx_ready(&s->port);
    }
    try_later(s);
}

static void on_ctl(void *opaque, uint32_t events)
{
    switch_lost(opaque, "is gone");
}

/* Take up the link that @w speaks of; @fds: taken over. */
static bool plug_in(SwitchNet *s, const SwWelcome *w, const int fds[SW_ATTACH_FDS], GError **error)
{
    s->memory = sw_link_map(fds[0], error);
    close(fds[0]);
    s->wait_fd = fds[1];
    s->peer_fd = fds[2];
    if (!s->memory)
        return false;
    s->remake = w->flags & SW_WELCOME_AUTO;
    s->number = w->port;
    s->blocked = s->want_room = false;
    link_tx_init(&s->tx, s->memory, 0);
    link_rx_init(&s->rx, s->memory, 1);
    s->ctl_watch = io_watch_new(s->io, s->ctl, EPOLLIN | EPOLLRDHUP, on_ctl, s, error);
    if (s->ctl_watch)
        s->ring_watch = io_watch_new(s->io, s->wait_fd, EPOLLIN, on_ring, s, error);
    poke(s->wait_fd);
    return s->ring_watch;
}

static void on_answer(void *opaque, uint32_t events)
{
    SwitchNet *s = opaque;
    g_autoptr(GError) error = NULL;
    int fds[SW_ATTACH_FDS];
    unsigned nfds;
    SwWelcome w;

    io_watch_free(s->ctl_watch);
    s->ctl_watch = NULL;
    if (sw_recv_welcome(s->ctl, &w, fds, &nfds, 0, &error) && nfds == SW_ATTACH_FDS &&
        plug_in(s, &w, fds, &error)) {
        lodge_warn("net '%s': switch %s is back", s->id, s->name);
        s->lost = false;
        s->tries = 0;
        net_set_link(&s->port, true);
        return;
    }
    lodge_trace("net", "%s: switch %s: %s", s->id, s->name, error ? error->message : "no link");
    hang_up(s);
    try_later(s);
}

static void on_retry(void *opaque)
{
    SwitchNet *s = opaque;
    g_autoptr(GError) error = NULL;

    hang_up(s); /* one that did not answer */
    s->ctl = sw_dial(s->name, &error);
    if (s->ctl >= 0 && sw_send_hello(s->ctl, &s->hello, NULL, 0, &error))
        s->ctl_watch = io_watch_new(s->io, s->ctl, EPOLLIN | EPOLLRDHUP, on_answer, s, &error);
    else if (s->remake && s->tries >= REMAKE_TRIES)
        (void)sw_spawn(s->name, s->make, false, NULL); /* or later */
    try_later(s);
}

/* ---- life ---- */

static bool dial(SwitchNet *s, GError **error)
{
    g_autoptr(GError) why = NULL, spawn_why = NULL;

    for (unsigned i = 0; i < OPEN_TRIES; i++) {
        g_clear_error(&why);
        s->ctl = sw_dial(s->name, &why);
        if (s->ctl >= 0)
            return true;
        if (!g_error_matches(why, LODGE_ERROR, LODGE_ERROR_NOT_FOUND))
            break;
        /* Another machine may be making it just now: what counts is whether it is there then. */
        g_clear_error(&spawn_why);
        (void)sw_spawn(s->name, s->make, true, &spawn_why);
    }
    g_propagate_error(error, spawn_why ? g_steal_pointer(&spawn_why) : g_steal_pointer(&why));
    return false;
}

typedef struct SwitchStart {
    SwitchNet *s;
    const SwWelcome *w;
    const int *fds;
    GError **error;
    bool ok;
} SwitchStart;

static void switch_start(void *opaque)
{
    SwitchStart *start = opaque;
    SwitchNet *s = start->s;

    s->retry = timer_new(io_thread_timers(s->io), on_retry, s);
    start->ok = plug_in(s, start->w, start->fds, start->error);
}

static void switch_stop(void *opaque)
{
    SwitchNet *s = opaque;

    hang_up(s);
    timer_free(s->retry);
}

static void switch_close(NetBackend *be)
{
    SwitchNet *s = (SwitchNet *)be;

    net_part(&s->port);
    if (s->io) {
        if (s->retry)
            io_thread_call(s->io, switch_stop, s);
        io_thread_free(s->io);
    }
    hang_up(s);
    g_free(s->id);
    g_free(s->name);
    g_free(s);
}

typedef struct SwitchLook {
    SwitchNet *s;
    NetInfo *info;
} SwitchLook;

static void look(void *opaque)
{
    SwitchLook *l = opaque;

    l->info->link = l->s->memory;
    g_snprintf(l->info->detail, sizeof l->info->detail, "switch %s, port %u", l->s->name,
               l->s->number);
}

static void switch_info(NetBackend *be, NetInfo *ret_info)
{
    SwitchLook l = {(SwitchNet *)be, ret_info};

    io_thread_call(l.s->io, look, &l);
    uint64_t unsent = __atomic_load_n(&l.s->unsent, __ATOMIC_RELAXED);
    if (unsent) {
        ret_info->drop[0].reason = "nobody at the other end";
        ret_info->drop[0].frames = unsent;
    }
}

static bool read_opts(SwitchNet *s, GHashTable *opts, const NetDriver *driver,
                      GError **error)
{
    const char *name = net_opt(opts, driver->target), *port = net_opt(opts, "port");
    const char *vlan = net_opt(opts, "vlan");
    guint64 number = 0;
    SwVlan v;

    if (!name)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "no switch; write %s=NAME", driver->name);
    if (!sw_name_check(name, error))
        return false;
    if (port && !g_ascii_string_to_unsigned(port, 10, 1, SW_PORTS_MAX, &number, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "port '%s' is not a number from 1 to %d", port,
                          SW_PORTS_MAX);
    if (vlan && (!sw_vlan_parse(vlan, &v, error)))
        return false;
    if (vlan && strlen(vlan) >= sizeof s->hello.vlan)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "vlan: longer than %d characters",
                          (int)sizeof s->hello.vlan - 1);
    s->name = g_strdup(name);
    g_autofree char *who = net_owner_text(s->id);
    s->hello = sw_hello(SW_OP_ATTACH, who);
    s->hello.port = (uint32_t)number;
    if (vlan)
        g_strlcpy(s->hello.vlan, vlan, sizeof s->hello.vlan);
    return true;
}

static bool ask(SwitchNet *s, SwWelcome *w, int fds[SW_ATTACH_FDS], GError **error)
{
    unsigned nfds;

    return dial(s, error) &&
           sw_send_hello(s->ctl, &s->hello, NULL, 0, error) &&
           sw_recv_welcome(s->ctl, w, fds, &nfds, ANSWER_MS, error) &&
           (nfds == SW_ATTACH_FDS ||
            lodge_fail(error, LODGE_ERROR_HOST, "switch %s: sent no link", s->name));
}

static NetBackend *open_at(const NetDriver *driver, SwMake make, const char *id,
                           GHashTable *opts, LodgeClock *clock, GError **error)
{
    SwitchNet *s = g_new0(SwitchNet, 1);
    int fds[SW_ATTACH_FDS];
    SwWelcome w;

    s->be = (NetBackend){.driver = driver, .port = &s->port, .close = switch_close,
                         .info = switch_info};
    s->id = g_strdup(id);
    s->clock = clock;
    s->ctl = s->wait_fd = s->peer_fd = -1;
    SwitchStart start = {.s = s, .w = &w, .fds = fds, .error = error};
    if (read_opts(s, opts, driver, error)) {
        s->hello.flags = make == SW_MAKE_INTERNAL ? (uint32_t)SW_HELLO_INTERNAL : 0;
        s->make = make;
        s->io = io_thread_new("net-switch", clock, error);
    }
    if (s->io && ask(s, &w, fds, error)) {
        s->port = (NetPort){.ops = &switch_port_ops, .name = s->id, .opaque = s, .io = s->io,
                            .offloads = switch_port_ops.offloads};
        io_thread_call(s->io, switch_start, &start);
    }
    if (start.ok)
        return &s->be;
    switch_close(&s->be);
    return NULL;
}

#define PORT_OPTS                                                                                  \
    {"port", "the port's number, 1 to 256 (the lowest that is free)"},                             \
    {"vlan", "N: frames of VLAN N, without tags; trunk[:N+N-M]: frames of these with tags (none)"}

static const NetOptSpec switch_opts[] = {
    {"switch", "name of the switch; it is made if it does not run"},
    PORT_OPTS,
    {NULL},
};

static NetBackend *switch_open(const char *id, GHashTable *opts, LodgeClock *clock, GError **error)
{
    return open_at(&net_driver_switch, SW_MAKE_PLAIN, id, opts, clock, error);
}

const NetDriver net_driver_switch = {
    .name = "switch",
    .help = "a port of Lodge's own switch, made at first use (lodge switch)",
    .target = "switch",
    .opts = switch_opts,
    .open = switch_open,
};

static const NetOptSpec internal_opts[] = {
    {"internal", "name of the switch; it is made if it does not run"},
    PORT_OPTS,
    {NULL},
};

static NetBackend *internal_open(const char *id, GHashTable *opts, LodgeClock *clock,
                                 GError **error)
{
    return open_at(&net_driver_internal, SW_MAKE_INTERNAL, id, opts, clock, error);
}

const NetDriver net_driver_internal = {
    .name = "internal",
    .help = "a port of a switch that only machines are on, made at first use",
    .target = "internal",
    .opts = internal_opts,
    .open = internal_open,
};

static const NetOptSpec host_only_opts[] = {
    {"host-only", "name of the switch, and of its tap"},
    PORT_OPTS,
    {NULL},
};

static NetBackend *host_only_open(const char *id, GHashTable *opts, LodgeClock *clock,
                                  GError **error)
{
    return open_at(&net_driver_host_only, SW_MAKE_HOST_ONLY, id, opts, clock, error);
}

const NetDriver net_driver_host_only = {
    .name = "host-only",
    .help = "a port of a switch that a tap of the host's is on, made at first use; needs rights",
    .target = "host-only",
    .opts = host_only_opts,
    .open = host_only_open,
};
