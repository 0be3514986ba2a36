/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listening sockets of the NBD server: TCP on a number, a Unix socket, or one that was passed. */
#include "nbd_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/listener.h"

#include "nbd_uri.h"

#define BACKLOG 16
#define PASSED_FD 3 /* SD_LISTEN_FDS_START */

/* The port behind @text's address, whose end is put into *ret_host; -1: malformed. */
static long split(const char *text, char **ret_host)
{
    const char *colon = strrchr(text, ':'), *bracket = strchr(text, ']');
    char *end = NULL;
    long port = atol(NBD_PORT);

    if (text[0] == '[') {
        if (!bracket || (bracket[1] && bracket[1] != ':'))
            return -1;
        *ret_host = g_strndup(text + 1, bracket - text - 1);
        colon = bracket[1] ? bracket + 1 : NULL;
    } else if (colon && strchr(text, ':') != colon) {
        *ret_host = g_strdup(text); /* IPv6 without a port */
        colon = NULL;
    } else {
        *ret_host = g_strndup(text, colon ? (size_t)(colon - text) : strlen(text));
    }
    if (colon) {
        port = g_ascii_isdigit(colon[1]) ? strtol(colon + 1, &end, 10) : -1;
        if (port > 65535 || (end && *end))
            port = -1;
    }
    return port;
}

bool nbd_listen_tcp(const char *address, const char *export, NbdListen *ret, GError **error)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = {0};
    socklen_t len = 0;
    g_autofree char *host = NULL;
    long port = split(address, &host);
    int one = 1;

    if (port >= 0 && inet_pton(AF_INET, host, &a.v4.sin_addr) == 1) {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons((uint16_t)port);
        len = sizeof a.v4;
    } else if (port >= 0 && inet_pton(AF_INET6, host, &a.v6.sin6_addr) == 1) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = htons((uint16_t)port);
        len = sizeof a.v6;
    } else {
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--listen: \"%s\": write a number and a port, like 127.0.0.1:" NBD_PORT,
                          address);
    }
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return lodge_fail_errno(error, errno, "--listen: \"%s\"", address);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* only to restart sooner */
    if (bind(fd, &a.any, len) < 0 || listen(fd, BACKLOG) < 0 || getsockname(fd, &a.any, &len) < 0) {
        int err = errno;
        close(fd);
        if (err == EADDRINUSE)
            return lodge_fail(error, LODGE_ERROR_BUSY,
                              "--listen: \"%s\": somebody listens there; take another port, or 0",
                              address);
        return lodge_fail_errno(error, err, "--listen: \"%s\"", address);
    }
    ret->fd = fd;
    ret->uri = nbd_uri_text(NULL, host,
                            ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port),
                            export);
    return true;
}

bool nbd_listen_unix(const char *path, const char *export, NbdListen *ret, GError **error)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    if (!*path || strlen(path) >= sizeof un.sun_path)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--socket: \"%s\": a socket's path has 1 to %zu bytes", path,
                          sizeof un.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || fchmod(fd, S_IRUSR | S_IWUSR) < 0) { /* before bind(): the file gets it */
        int err = errno;
        if (fd >= 0)
            close(fd);
        return lodge_fail_errno(error, err, "--socket: \"%s\"", path);
    }
    g_strlcpy(un.sun_path, path, sizeof un.sun_path);
    if (listener_is_stale(&un))
        (void)unlink(path); /* bind() says what is wrong */
    if (bind(fd, (struct sockaddr *)&un, sizeof un) < 0 || listen(fd, BACKLOG) < 0) {
        int err = errno;
        close(fd);
        if (err == EADDRINUSE)
            return lodge_fail(error, LODGE_ERROR_BUSY,
                              "--socket: \"%s\": is there already; remove it, or take another path",
                              path);
        return lodge_fail_errno(error, err, "--socket: \"%s\"", path);
    }
    ret->fd = fd;
    ret->socket = g_canonicalize_filename(path, NULL);
    ret->uri = nbd_uri_text(ret->socket, NULL, 0, export);
    return true;
}

bool nbd_listen_passed(NbdListen *ret, GError **error)
{
    const char *pid = g_getenv("LISTEN_PID"), *fds = g_getenv("LISTEN_FDS");
    int listening = 0;
    socklen_t len = sizeof listening;

    if (!pid || !fds || atol(pid) != (long)getpid())
        return false;
    long n = atol(fds);
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    g_unsetenv("LISTEN_FDNAMES");
    if (n != 1)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "LISTEN_FDS: %ld sockets were passed; one can be served", n);
    if (getsockopt(PASSED_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0 || !listening)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "LISTEN_FDS: descriptor %d is no listening socket", PASSED_FD);
    (void)fcntl(PASSED_FD, F_SETFD, FD_CLOEXEC);
    (void)fcntl(PASSED_FD, F_SETFL, fcntl(PASSED_FD, F_GETFL) | O_NONBLOCK);
    ret->fd = PASSED_FD;
    return true;
}

void nbd_listen_clear(NbdListen *l)
{
    if (l->fd >= 0)
        close(l->fd);
    if (l->socket)
        (void)unlink(l->socket);
    g_free(l->socket);
    g_free(l->uri);
    *l = (NbdListen){.fd = -1};
}
