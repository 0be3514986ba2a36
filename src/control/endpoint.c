/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets that a person names, for debuggers and control clients. Threads: main.
 *
 * A TCP port has no password: who can reach it has the machine. So it is at 127.0.0.1 unless
 * another address is written, and a Unix socket is for its owner alone.
 */
#include "endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/listener.h"

#define BACKLOG 16
#define LOCALHOST "127.0.0.1"

typedef struct Address {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    };
    socklen_t len;
} Address;

static bool parse(const char *who, const char *spec, Address *ret, GError **error)
{
    memset(ret, 0, sizeof *ret);
    if (g_str_has_prefix(spec, "tcp:")) {
        const char *text = spec + 4, *colon = strrchr(text, ':');
        g_autofree char *host = colon ? g_strndup(text, (gsize)(colon - text)) : g_strdup("");
        uint64_t port;

        ret->in.sin_family = AF_INET;
        ret->len = sizeof ret->in;
        if (parse_u64(colon ? colon + 1 : text, &port) && port <= UINT16_MAX &&
            inet_pton(AF_INET, host[0] ? host : LOCALHOST, &ret->in.sin_addr) == 1) {
            ret->in.sin_port = htons((uint16_t)port);
            return true;
        }
    } else if (g_str_has_prefix(spec, "unix:")) {
        const char *path = spec + 5;

        ret->un.sun_family = AF_UNIX;
        ret->len = sizeof ret->un;
        if (!path[0] || strlen(path) >= sizeof ret->un.sun_path)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "%s '%s': a socket's path has 1 to %zu letters", who, path,
                              sizeof ret->un.sun_path - 1);
        g_strlcpy(ret->un.sun_path, path, sizeof ret->un.sun_path);
        return true;
    }
    return lodge_fail(error, LODGE_ERROR_CONFIG, "%s '%s': write tcp:[ADDR:]PORT or unix:PATH", who,
                      spec);
}

/* bind() and listen(); errno says why not. */
static bool open_socket(const Address *a, int *ret_fd)
{
    int on = 1, fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool inet = a->any.sa_family == AF_INET;

    *ret_fd = fd;
    /* The file gets the mode of its socket. */
    return fd >= 0 &&
           (inet ? setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) : fchmod(fd, 0600)) ==
               0 &&
           bind(fd, &a->any, a->len) == 0 && listen(fd, BACKLOG) == 0;
}

bool endpoint_listen(const char *who, const char *spec, Endpoint *ret, GError **error)
{
    Address a;
    int fd;

    if (!parse(who, spec, &a, error))
        return false;
    bool inet = a.any.sa_family == AF_INET;
    if (!inet && listener_is_stale(&a.un))
        (void)unlink(a.un.sun_path); /* bind() says it if that was in vain */
    if (!open_socket(&a, &fd) || (inet && getsockname(fd, &a.any, &a.len) < 0)) {
        if (errno == EADDRINUSE && !inet)
            lodge_fail(error, LODGE_ERROR_EXISTS,
                       "%s '%s': is there already; remove it or choose another path", who,
                       a.un.sun_path);
        else
            lodge_fail_errno(error, errno, "%s '%s': cannot listen", who, spec);
        if (fd >= 0)
            close(fd);
        return false;
    }
    char host[INET_ADDRSTRLEN] = "";
    if (inet)
        (void)inet_ntop(AF_INET, &a.in.sin_addr, host, sizeof host);
    *ret = (Endpoint){
        .fd = fd,
        .path = inet ? NULL : g_strdup(a.un.sun_path),
        .address = inet ? g_strdup_printf("%s:%u", host, ntohs(a.in.sin_port))
                        : g_canonicalize_filename(a.un.sun_path, NULL),
    };
    return true;
}

void endpoint_clear(Endpoint *e)
{
    if (e->fd >= 0)
        close(e->fd);
    if (e->path)
        (void)unlink(e->path);
    g_free(e->path);
    g_free(e->address);
    *e = (Endpoint){.fd = -1};
}

int endpoint_connect(const char *who, const char *spec, GError **error)
{
    Address a;

    if (!parse(who, spec, &a, error))
        return -1;
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, &a.any, a.len) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        lodge_fail_errno(error, errno, "%s '%s': cannot connect", who, spec);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}
