/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "daemon" and "vde": ports of other programs' switches. A stream socket (control) asks for a port
 * and keeps it as long as it is open; frames go through a datagram socket, one in each.
 *
 * daemon: uml_switch, protocol version 3. The request is 124 bytes: magic, version, type 0, our
 * address as a whole sockaddr_un; the answer is the switch's address. uml_switch compares all
 * bytes of a sender's address, so ours is bound with its full length. It cuts frames at 1514
 * bytes: longer ones are not sent.
 * vde: vde_switch's plug protocol: the same request with a description in place of the two bytes of
 * padding, the number of the wished port above the type; the answer is the address of a socket of
 * that port alone. It cuts frames at 1518 bytes.
 *
 * Our address is an abstract one, which leaves no file behind. Others on the host can see it, so
 * our socket is connected to the switch's: then the kernel takes frames from nobody else. A switch
 * that is killed takes the link down, and is sought until it is back. Nothing may ever be written
 * to the control stream after the request. Threads and invariants: host_end.c.
 */
#include "driver_table.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"
#include "dgram.h"
#include "plug.h"

enum {
    FIRST_MS = 5000, /* for the switch's answer while somebody waits */
    AGAIN_MS = 200,
    FRAME_UML = 1514,
    FRAME_VDE = 1518,
    NAME_RANDOM = 8, /* bytes of our abstract name */
};

typedef struct Plug {
    Dgram d;
    /* Constant: */
    NetAddr ctl;
    bool vde;
    unsigned port; /* of vde: the wished one, 0: any */
} Plug;

/**
 * plug_request() - Write the request for a port
 * @own: our datagram socket's address; @port: 0 for uml_switch, or where any will do
 * @description: of vde; NULL: the padding of uml_switch's request
 * Return: bytes, at most PLUG_REQUEST_MAX.
 */
size_t plug_request(uint8_t *to, const struct sockaddr_un *own, unsigned port,
                    const char *description)
{
    size_t len = PLUG_REQUEST_HEAD + sizeof *own;

    store_le32(to, PLUG_MAGIC);
    store_le32(to + 4, PLUG_VERSION);
    store_le32(to + 8, port << 8);
    memcpy(to + PLUG_REQUEST_HEAD, own, sizeof *own);
    memset(to + len, 0, 2);
    if (!description)
        return len + 2;
    size_t text = MIN(strlen(description), (size_t)PLUG_DESCRIPTION_MAX);
    memcpy(to + len, description, text);
    return len + text;
}

/**
 * plug_reply() - Read the switch's answer
 * Return: false: it is not the address of a Unix socket.
 */
bool plug_reply(const uint8_t *data, size_t len, struct sockaddr_un *ret_addr)
{
    if (len != sizeof *ret_addr)
        return false;
    memcpy(ret_addr, data, sizeof *ret_addr);
    return ret_addr->sun_family == AF_UNIX &&
           /* a name in the file system ends, or the kernel reads on */
           (!ret_addr->sun_path[0] || memchr(ret_addr->sun_path, 0, sizeof ret_addr->sun_path));
}

/* The answer, within @ms. */
static bool await_reply(int ctl, int ms, struct sockaddr_un *ret_addr)
{
    uint8_t answer[sizeof *ret_addr];
    size_t have = 0;

    while (have < sizeof answer) {
        struct pollfd p = {.fd = ctl, .events = POLLIN};
        if (poll(&p, 1, ms) <= 0)
            return false;
        ssize_t n = recv(ctl, answer + have, sizeof answer - have, MSG_DONTWAIT);
        if (n <= 0)
            return false;
        have += (size_t)n;
    }
    return plug_reply(answer, have, ret_addr);
}

/* An abstract address that nobody else has, bound with its full length. */
static bool bind_own(int fd, struct sockaddr_un *ret_own)
{
    memset(ret_own, 0, sizeof *ret_own);
    ret_own->sun_family = AF_UNIX;
    if (getrandom(ret_own->sun_path + 1, NAME_RANDOM, 0) != NAME_RANDOM)
        return false;
    return bind(fd, (struct sockaddr *)ret_own, sizeof *ret_own) == 0;
}

static bool plug_in(Plug *p, int ms, GError **error)
{
    HostEnd *h = &p->d.h;
    struct sockaddr_un own, there;
    uint8_t request[PLUG_REQUEST_MAX];
    g_autofree char *who = net_owner_text(h->id), *text = g_strconcat("lodge ", who, NULL);

    if (connect(h->ctl, (struct sockaddr *)&p->ctl.sa, p->ctl.len) < 0) {
        if (errno == ENOENT || errno == ECONNREFUSED)
            return lodge_fail(error, LODGE_ERROR_HOST, "%s: no switch is there; start it first",
                              h->detail);
        return lodge_fail_errno(error, errno, "%s: cannot connect", h->detail);
    }
    if (!bind_own(h->fd, &own))
        return lodge_fail_errno(error, errno, "%s: cannot have an address", h->detail);
    size_t len = plug_request(request, &own, p->port, p->vde ? text : NULL);
    if (send(h->ctl, request, len, MSG_NOSIGNAL) != (ssize_t)len)
        return lodge_fail_errno(error, errno, "%s: cannot ask for a port", h->detail);
    if (!await_reply(h->ctl, ms, &there))
        return lodge_fail(error, LODGE_ERROR_HOST,
                          "%s: the switch gives no port%s", h->detail,
                          p->port ? "; that one may be taken" : "");
    if (connect(h->fd, (struct sockaddr *)&there, sizeof there) < 0)
        return lodge_fail_errno(error, errno, "%s: cannot reach the port", h->detail);
    return true;
}

static bool plug_connect(HostEnd *h, bool first, GError **error)
{
    Plug *p = (Plug *)h;

    h->ctl = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    h->fd = p->d.tx = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (h->ctl < 0 || h->fd < 0)
        lodge_fail_errno(error, errno, "%s: cannot make a socket", h->detail);
    else if (plug_in(p, first ? FIRST_MS : AGAIN_MS, error))
        return true;
    if (h->ctl >= 0)
        close(h->ctl);
    if (h->fd >= 0)
        close(h->fd);
    h->ctl = h->fd = -1;
    return false;
}

static const HostEndOps plug_ops = {
    .connect = plug_connect,
    .fill = dgram_fill,
    .send = dgram_send,
};

static void plug_close(NetBackend *be)
{
    Plug *p = (Plug *)be;

    host_end_stop(&p->d.h);
    host_end_free(&p->d.h);
    g_free(p);
}

/* The one or the other; @path: of the control socket. */
static NetBackend *plug_open(const NetDriver *driver, bool vde, const char *name, const char *path,
                             unsigned port, const char *id, LodgeClock *clock, GError **error)
{
    Plug *p = g_new0(Plug, 1);

    p->d.h.be.close = plug_close;
    p->d.h.again = true;
    p->d.h.polls_room = true; /* a connected socket knows the queue of its peer */
    p->d.longest = vde ? FRAME_VDE : FRAME_UML;
    p->vde = vde;
    p->port = port;
    g_snprintf(p->d.h.detail, sizeof p->d.h.detail, "%s %s", driver->name, name);
    if (host_end_open(&p->d.h, driver, &plug_ops, id, clock, 0, error) &&
        net_addr_unix(path, &p->ctl, error) && host_end_start(&p->d.h, error))
        return &p->d.h.be;
    plug_close(&p->d.h.be);
    return NULL;
}

static const NetOptSpec daemon_opts[] = {
    {"path", "the switch's control socket (as uml_switch has it); daemon=PATH is the same"},
    {NULL},
};
static const NetOptSpec vde_opts[] = {
    {"dir", "the switch's folder, vde_switch's -s; vde=DIR is the same"},
    {"port", "number of the wished port, 1 to 65535 (any)"},
    {NULL},
};

static NetBackend *daemon_open(const char *id, GHashTable *opts, LodgeClock *clock, GError **error)
{
    const char *path = net_opt(opts, "path");

    if (!path)
        path = access("/var/run/uml-utilities/uml_switch.ctl", F_OK) == 0
                   ? "/var/run/uml-utilities/uml_switch.ctl"
                   : "/tmp/uml.ctl";
    return plug_open(&net_driver_daemon, false, path, path, 0, id, clock, error);
}

static NetBackend *vde_open(const char *id, GHashTable *opts, LodgeClock *clock, GError **error)
{
    const char *dir = net_opt(opts, "dir");
    struct stat st;
    uint64_t port;

    if (!net_opt_number(opts, "port", 1, UINT16_MAX, 0, &port, error))
        return NULL;
    if (!dir)
        dir = access("/var/run/vde.ctl", F_OK) == 0 ? "/var/run/vde.ctl" : "/tmp/vde.ctl";
    /* An old switch has a socket in place of the folder. */
    bool old = stat(dir, &st) == 0 && S_ISSOCK(st.st_mode);
    g_autofree char *path = old ? g_strdup(dir) : g_build_filename(dir, "ctl", NULL);
    return plug_open(&net_driver_vde, true, dir, path, (unsigned)port, id, clock, error);
}

const NetDriver net_driver_daemon = {
    .name = "daemon",
    .help = "a port of uml_switch",
    .opts = daemon_opts,
    .target = "path",
    .open = daemon_open,
};

const NetDriver net_driver_vde = {
    .name = "vde",
    .help = "a port of vde_switch",
    .opts = vde_opts,
    .target = "dir",
    .open = vde_open,
};
