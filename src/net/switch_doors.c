/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where ports of a switch come from: its own control socket, and those of uml_switch's and
 * vde_switch's protocols. A connection that has not become a port yet is a guest; there are at most
 * SW_CLIENTS_MAX of them at a door, and the oldest goes when another comes.
 *
 * uml_switch and vde_switch: a port lives as long as its control connection. Each port gets a
 * socket of its own, connected to the address in the request, and its address is the answer: an
 * abstract one for UML's clients, DIR/NNN.N for vde's. uml_switch answers with one socket for all;
 * its clients need not care, since they send to the address that they were told. Nothing of the
 * protocols says who a client is; the sockets are their owner's only (mode 0600, the folder 0700).
 *
 * v0 clients do not ask for the switch's address, they know it: so v0 is served only at a door with
 * a data socket ("uml:PATH,DATA"), and whose frame it is that comes there is seen from its sender.
 */
#include "switch_host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"
#include "switch_client.h"

enum {
    SNDBUF = 1 << 20, /* what a slow client may have waiting in the kernel */
    TEXT_PIECE = 32 << 10,
    BACKLOG = 64,
};

typedef enum DoorKind { DOOR_CONTROL, DOOR_UML, DOOR_VDE } DoorKind;

struct SwListener {
    SwHost *host;
    DoorKind kind;
    int fd; /* owned */
    IoWatch *watch;
    LodgeTimer *retry; /* after the process was out of descriptors */
    char *path;        /* owned; the socket's, removed in the end; NULL: not ours to remove */
    char *data_path;   /* owned; uml, for v0; NULL: none */
    int data_fd;       /* owned; bound there; -1: none */
    IoWatch *data_watch;
    char *dir;         /* owned; vde: the folder */
    bool made_dir;
    GQueue guests; /* Guest, owned, oldest first */
    unsigned counter; /* of data sockets */
};

typedef struct Guest {
    SwListener *door;
    int fd; /* owned */
    IoWatch *watch;
    uint8_t bytes[SW_REQUEST_MAX]; /* of the request */
    size_t len;
    char *text; /* owned: an answer on its way */
    size_t text_len, text_sent;
} Guest;

static void guest_free(Guest *g)
{
    g_queue_remove(&g->door->guests, g);
    io_watch_free(g->watch);
    if (g->fd >= 0)
        close(g->fd);
    g_free(g->text);
    g_free(g);
}

/* ---- uml_switch and vde_switch ---- */

/* Where this port's frames are to go: an address that is not in use. */
static socklen_t data_address(SwListener *l, unsigned number, struct sockaddr_un *a)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    l->counter++;
    if (l->kind == DOOR_UML) {
        g_snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "lodge-switch/%d/%p/%u", (int)getpid(),
                   (void *)l, l->counter);
        return sizeof *a; /* all of it is the name */
    }
    int n = g_snprintf(a->sun_path, sizeof a->sun_path, "%s/%03u.%u", l->dir, number, l->counter);
    return n < (int)sizeof a->sun_path ? sizeof *a : 0;
}

/* A client may have bound a name that is shorter than it says. */
static bool connect_client(int fd, const SwRequest *r)
{
    socklen_t len = r->addr_len;

    if (connect(fd, (const struct sockaddr *)&r->addr, len) == 0)
        return true;
    if (r->addr.sun_path[0] || errno != ECONNREFUSED)
        return false;
    while (len > offsetof(struct sockaddr_un, sun_path) + 1 && !((const char *)&r->addr)[len - 1])
        len--;
    return connect(fd, (const struct sockaddr *)&r->addr, len) == 0;
}

/* The socket for a client's port: connected, then bound, so that nobody else's frame gets in. */
static int data_socket(SwListener *l, const SwRequest *r, unsigned number, struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), size = SNDBUF;
    socklen_t len = data_address(l, number, a);

    if (fd < 0 || !len)
        goto fail;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size); /* less is enough, too */
    if (!connect_client(fd, r) || (r->version && bind(fd, (struct sockaddr *)a, len) < 0))
        goto fail;
    return fd;
fail:
    if (fd >= 0)
        close(fd);
    return -1;
}

static unsigned wanted_number(SwListener *l, const SwRequest *r)
{
    if (r->port)
        return r->port;
    for (unsigned i = 1; i <= SW_PORTS_MAX; i++) {
        if (!switch_port(l->host->sw, i) && switch_vlan(l->host->sw, i)->mode == SW_PLAIN)
            return i;
    }
    return 0;
}

/* What to call a client that does not say. */
static char *client_name(int ctl_fd, const SwRequest *r)
{
    struct ucred who;
    socklen_t len = sizeof who;

    if (r->descr[0])
        return g_strdup(r->descr);
    if (getsockopt(ctl_fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
        who.pid = 0;
    return g_strdup_printf("pid %d", (int)who.pid);
}

/* Takes @g's connection over when all went well; else it is closed, which is the protocols' only
 * way to refuse. */
static void serve_request(Guest *g, const SwRequest *r)
{
    SwListener *l = g->door;
    SwHost *host = l->host;
    struct sockaddr_un a;
    g_autoptr(GError) error = NULL;
    g_autofree char *name = client_name(g->fd, r);
    unsigned number = wanted_number(l, r);
    int fd = -1, ctl;

    if (r->version == 0 && !l->data_path) {
        sw_host_event(host, "a client of protocol version 0 was refused: no data socket is given");
        return;
    }
    if (switch_port(host->sw, number) || number < 1 || number > SW_PORTS_MAX) {
        sw_host_event(host, "%s wants port %u, which is not free", name, number);
        return;
    }
    fd = data_socket(l, r, number, &a);
    if (fd < 0) {
        sw_host_event(host, "%s cannot be reached at the address that it gave", name);
        return;
    }
    ctl = g->fd;
    g->fd = -1;
    io_watch_free(g->watch);
    g->watch = NULL;
    const char *path = l->kind == DOOR_VDE && r->version ? a.sun_path : NULL;
    /* Before it is a port, so that the answer is the first thing it hears. */
    bool told = r->version == 0 || send(ctl, &a, sizeof a, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof a;
    if (!told || !sw_dgram_add(host, l->kind == DOOR_UML ? &sw_uml_ops : &sw_vde_ops, ctl, fd, path,
                               r->version ? NULL : &r->addr, number, name, &error)) {
        if (!told) {
            close(ctl);
            close(fd);
        }
        sw_host_event(host, "%s: %s", name, error ? error->message : "takes no answer");
    }
}

static void on_request(void *opaque, uint32_t events)
{
    Guest *g = opaque;
    SwRequest r;
    ssize_t n = recv(g->fd, g->bytes + g->len, sizeof g->bytes - g->len, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        g->len += (size_t)n;
        SwParse got = sw_request_parse(g->bytes, g->len, &r);
        if (got == SW_PARSE_MORE && g->len < sizeof g->bytes)
            return;
        if (got == SW_PARSE_OK)
            serve_request(g, &r);
    }
    guest_free(g);
}

/* ---- our own ---- */

static void send_welcome(int fd, const SwWelcome *w, const int *fds, unsigned nfds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(SW_ATTACH_FDS * sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)w, sizeof *w};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (nfds) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
    }
    ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n; /* who does not listen hangs up */
}

static SwWelcome welcome_of(const SwHost *host, const GError *error)
{
    SwWelcome w = {.magic = SW_HELLO_MAGIC, .version = SW_HELLO_VERSION};

    w.flags = (host->automatic ? (uint32_t)SW_WELCOME_AUTO : 0) |
              (host->internal ? (uint32_t)SW_WELCOME_INTERNAL : 0) |
              (switch_config(host->sw)->hub ? (uint32_t)SW_WELCOME_HUB : 0);
    if (error) {
        w.status = (uint16_t)(1 + (error->domain == LODGE_ERROR ? error->code : LODGE_ERROR_HOST));
        g_strlcpy(w.text, error->message, sizeof w.text);
    }
    return w;
}

static bool attach(Guest *g, const SwHello *h, SwWelcome *w, int fds[SW_ATTACH_FDS], GError **error)
{
    SwHost *host = g->door->host;
    int ctl = fcntl(g->fd, F_DUPFD_CLOEXEC, 0);
    unsigned number = 0;

    if (ctl < 0)
        return lodge_fail_errno(error, errno, "descriptors of a link");
    if ((h->flags & SW_HELLO_INTERNAL) && !host->internal) {
        close(ctl);
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "switch %s: runs already and is not internal; choose another name",
                          host->name);
    }
    if (!sw_link_serve(host, ctl, h, fds, &number, error))
        return false;
    *w = welcome_of(host, NULL);
    w->port = number;
    return true;
}

/* @fds: taken over. */
static bool plug(SwHost *host, const SwHello *h, const int *fds, unsigned nfds, GError **error)
{
    SwVlan vlan;
    const SwVlan *v = h->vlan[0] ? &vlan : NULL;
    bool ok = !v || sw_vlan_parse(h->vlan, &vlan, error);

    if (ok && g_str_has_prefix(h->arg, "tap:") && nfds == 1)
        return sw_tap_add(host, fds[0], h->port, h->arg + 4, v, error);
    if (ok && g_str_has_prefix(h->arg, "switch:") && nfds == SW_ATTACH_FDS + 1)
        return sw_link_join(host, fds[SW_ATTACH_FDS], fds, h->port, h->arg, v, error);
    for (unsigned i = 0; i < nfds; i++)
        close(fds[i]);
    return ok ? lodge_fail(error, LODGE_ERROR_CONFIG, "'%s' cannot be plugged in", h->arg) : false;
}

static bool unplug(SwHost *host, const SwHello *h, GError **error)
{
    SwPort *p = switch_port(host->sw, h->port);

    if (!p)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "port %u: nothing is plugged in there",
                          h->port);
    p->ops->unplug(p);
    return true;
}

/* More of a report, as far as it can be sent now. */
static void on_report(void *opaque, uint32_t events)
{
    Guest *g = opaque;

    while (g->text_sent < g->text_len) {
        size_t n = MIN(g->text_len - g->text_sent, TEXT_PIECE);

        if (send(g->fd, g->text + g->text_sent, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            if (errno == EAGAIN)
                return;
            break;
        }
        g->text_sent += n;
    }
    guest_free(g);
}

static void begin_report(Guest *g, const SwHello *h)
{
    SwHost *host = g->door->host;
    SwWelcome w = welcome_of(host, NULL);

    w.port = switch_ports(host->sw);
    send_welcome(g->fd, &w, NULL, 0);
    io_watch_free(g->watch);
    g->text = sw_host_report(host, (SwOp)h->op, h->flags & SW_HELLO_JSON);
    g->text_len = strlen(g->text);
    g->watch = io_watch_new(host->io, g->fd, EPOLLOUT, on_report, g, NULL);
    if (!g->watch)
        guest_free(g);
}

/* @fds: taken over. */
static void serve_hello(Guest *g, const SwHello *h, int *fds, unsigned nfds)
{
    SwHost *host = g->door->host;
    g_autoptr(GError) error = NULL;
    SwWelcome w = welcome_of(host, NULL);
    int out[SW_ATTACH_FDS] = {-1, -1, -1};
    unsigned nout = 0;
    bool ok;

    if (h->op != SW_OP_PLUG) {
        for (unsigned i = 0; i < nfds; i++)
            close(fds[i]);
    }
    switch ((SwOp)h->op) {
    case SW_OP_PORTS:
    case SW_OP_MACS:
    case SW_OP_STATS:
        begin_report(g, h);
        return;
    case SW_OP_ATTACH:
        ok = attach(g, h, &w, out, &error);
        nout = ok ? SW_ATTACH_FDS : 0;
        break;
    case SW_OP_PLUG:
        ok = plug(host, h, fds, nfds, &error);
        break;
    case SW_OP_UNPLUG:
        ok = unplug(host, h, &error);
        break;
    default:
        ok = lodge_fail(&error, LODGE_ERROR_UNSUPPORTED, "the switch knows no such request");
        break;
    }
    if (!ok)
        w = welcome_of(host, error);
    send_welcome(g->fd, &w, out, nout);
    for (unsigned i = 0; i < SW_ATTACH_FDS; i++) {
        if (out[i] >= 0)
            close(out[i]);
    }
    guest_free(g);
}

static void on_hello(void *opaque, uint32_t events)
{
    Guest *g = opaque;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE((SW_ATTACH_FDS + 1) * sizeof(int))];
    } control;
    int fds[SW_ATTACH_FDS + 1];
    unsigned nfds = 0;
    SwHello h;
    struct iovec iov = {&h, sizeof h};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    ssize_t n = recvmsg(g->fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        unsigned came = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (unsigned i = 0; i < came && nfds < G_N_ELEMENTS(fds); i++)
            memcpy(&fds[nfds++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    }
    if (n > 0 && sw_hello_ok(&h, (size_t)n)) {
        serve_hello(g, &h, fds, nfds);
        return;
    }
    for (unsigned i = 0; i < nfds; i++)
        close(fds[i]);
    guest_free(g);
}

/* ---- doors ---- */

static void on_retry(void *opaque)
{
    SwListener *l = opaque;

    io_watch_set(l->watch, EPOLLIN);
}

static void on_shared(void *opaque, uint32_t events)
{
    SwListener *l = opaque;

    sw_dgram_take_shared(l->host, l->data_fd);
}

static void on_connect(void *opaque, uint32_t events)
{
    SwListener *l = opaque;
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            /* The connection stays in the queue and would wake us at once. */
            io_watch_set(l->watch, 0);
            timer_arm(l->retry, clock_now_ns(l->host->clock) + INT64_C(200000000));
        }
        return;
    }
    if (g_queue_get_length(&l->guests) >= SW_CLIENTS_MAX)
        guest_free(g_queue_peek_head(&l->guests));
    Guest *g = g_new0(Guest, 1);
    g->door = l;
    g->fd = fd;
    g_queue_push_tail(&l->guests, g);
    g->watch = io_watch_new(l->host->io, fd, EPOLLIN | EPOLLRDHUP,
                            l->kind == DOOR_CONTROL ? on_hello : on_request, g, NULL);
    if (!g->watch)
        guest_free(g);
}

/* What a switch that was killed left behind; anything else is not ours to remove. */
static void remove_stale(const char *path)
{
    struct stat st;

    if (errno == ECONNREFUSED && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        (void)unlink(path); /* bind says what is wrong */
}

static bool bind_at(int fd, const char *path, bool stream, GError **error)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (g_strlcpy(a.sun_path, path, sizeof a.sun_path) >= sizeof a.sun_path)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: too long for a socket's path", path);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
        return lodge_fail(error, LODGE_ERROR_BUSY, "%s: another switch listens there", path);
    remove_stale(path);
    mode_t old = umask(0177);
    bool ok = bind(fd, (struct sockaddr *)&a, sizeof a) == 0 &&
              (!stream || listen(fd, BACKLOG) == 0);
    int err = errno;
    umask(old);
    return ok || lodge_fail_errno(error, err, "%s: cannot listen", path);
}

static bool door_socket(SwListener *l, const char *path, GError **error)
{
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0)
        return lodge_fail_errno(error, errno, "a socket");
    if (!bind_at(l->fd, path, true, error))
        return false;
    l->path = g_strdup(path);
    return true;
}

static bool open_vde(SwListener *l, const char *dir, GError **error)
{
    g_autofree char *path = g_build_filename(dir, "ctl", NULL);

    l->made_dir = mkdir(dir, 0700) == 0;
    if (!l->made_dir && errno != EEXIST)
        return lodge_fail_errno(error, errno, "%s: cannot make the folder", dir);
    l->dir = g_strdup(dir);
    return door_socket(l, path, error);
}

static bool open_uml(SwListener *l, const char *where, GError **error)
{
    const char *comma = strchr(where, ',');
    g_autofree char *path = comma ? g_strndup(where, (size_t)(comma - where)) : g_strdup(where);

    if (!door_socket(l, path, error))
        return false;
    if (!comma)
        return true;
    l->data_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->data_fd < 0)
        return lodge_fail_errno(error, errno, "a socket");
    if (!bind_at(l->data_fd, comma + 1, false, error))
        return false;
    l->data_path = g_strdup(comma + 1);
    return true;
}

typedef struct OpenDoor {
    SwListener *l;
    GError **error;
    bool ok;
} OpenDoor;

static void door_start(void *opaque)
{
    OpenDoor *o = opaque;
    SwListener *l = o->l;

    l->retry = timer_new(io_thread_timers(l->host->io), on_retry, l);
    l->watch = io_watch_new(l->host->io, l->fd, EPOLLIN, on_connect, l, o->error);
    if (l->watch && l->data_path)
        l->data_watch = io_watch_new(l->host->io, l->data_fd, EPOLLIN, on_shared, l, o->error);
    o->ok = l->watch && (!l->data_path || l->data_watch);
    if (o->ok)
        g_ptr_array_add(l->host->listeners, l);
}

static SwListener *door_new(SwHost *host, DoorKind kind)
{
    SwListener *l = g_new0(SwListener, 1);

    l->host = host;
    l->kind = kind;
    l->fd = l->data_fd = -1;
    g_queue_init(&l->guests);
    return l;
}

static bool door_open(SwListener *l, bool ok, GError **error)
{
    OpenDoor o = {.l = l, .error = error};

    if (ok)
        io_thread_call(l->host->io, door_start, &o);
    if (!o.ok)
        sw_listener_free(l);
    return o.ok;
}

void sw_listener_free(SwListener *l)
{
    while (!g_queue_is_empty(&l->guests))
        guest_free(g_queue_peek_head(&l->guests));
    io_watch_free(l->watch);
    if (l->retry)
        timer_free(l->retry);
    if (l->fd >= 0)
        close(l->fd);
    io_watch_free(l->data_watch);
    if (l->data_fd >= 0)
        close(l->data_fd);
    if (l->data_path)
        (void)unlink(l->data_path); /* somebody may have tidied up */
    if (l->path)
        (void)unlink(l->path); /* somebody may have tidied up */
    if (l->made_dir)
        (void)rmdir(l->dir); /* clients may have left theirs */
    g_free(l->path);
    g_free(l->data_path);
    g_free(l->dir);
    g_free(l);
}

bool sw_listen(SwHost *host, const char *where, GError **error)
{
    SwListener *l = NULL;

    if (host->internal)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "switch %s: is internal and listens nowhere",
                          host->name);
    if (g_str_has_prefix(where, "uml:") && where[4]) {
        l = door_new(host, DOOR_UML);
        return door_open(l, open_uml(l, where + 4, error), error);
    }
    if (g_str_has_prefix(where, "vde:") && where[4]) {
        l = door_new(host, DOOR_VDE);
        return door_open(l, open_vde(l, where + 4, error), error);
    }
    return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': write uml:PATH or vde:DIR", where);
}

bool sw_listen_control(SwHost *host, int fd, GError **error)
{
    SwListener *l = door_new(host, DOOR_CONTROL);

    l->fd = fd;
    return door_open(l, true, error);
}
