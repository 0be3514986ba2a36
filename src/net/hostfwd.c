/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Port forwards from the host into a guest: their text form and the search for a host port.
 * libslirp can neither say which port it took nor keep errno through every failure, so the port
 * is first bound here, with the same socket options, read back and let go. Threads: any.
 *
 * Text: tcp|udp:[ADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT, IPv4. An empty ADDR is 127.0.0.1, so that
 * nothing is opened to the network by accident; an empty GUESTADDR is the first DHCP lease.
 */
#include "hostfwd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/error.h"

enum { PORT_MAX = 65535 };

static bool parse_port(const char *text, uint16_t min, uint16_t *ret_port)
{
    uint64_t v;

    if (!g_ascii_string_to_unsigned(text, 10, min, PORT_MAX, &v, NULL))
        return false;
    *ret_port = (uint16_t)v;
    return true;
}

/* "ADDR:PORT" with ADDR possibly empty. */
static bool parse_end(const char *text, in_addr_t empty, uint16_t min, struct in_addr *ret_addr,
                      uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':');

    if (!colon || !parse_port(colon + 1, min, ret_port))
        return false;
    g_autofree char *addr = g_strndup(text, (gsize)(colon - text));
    ret_addr->s_addr = empty;
    return !*addr || inet_pton(AF_INET, addr, ret_addr) == 1;
}

/**
 * hostfwd_parse() - Read a forward's text
 * Context: any thread. Return: false with LODGE_ERROR_CONFIG.
 */
bool hostfwd_parse(const char *text, HostFwd *ret_fwd, GError **error)
{
    HostFwd f = {0};
    const char *rest = text;
    bool ok = true;

    if (g_str_has_prefix(text, "udp:"))
        f.udp = true;
    else
        ok = g_str_has_prefix(text, "tcp:");
    if (ok) {
        rest += strlen("tcp:");
        g_auto(GStrv) ends = g_strsplit(rest, "-", 0);
        ok = g_strv_length(ends) == 2 &&
             parse_end(ends[0], htonl(INADDR_LOOPBACK), 0, &f.host_addr, &f.host_port) &&
             parse_end(ends[1], htonl(INADDR_ANY), 1, &f.guest_addr, &f.guest_port);
    }
    if (!ok)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "hostfwd '%s' is not tcp|udp:[ADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT",
                          text);
    f.asked_port = f.host_port;
    *ret_fwd = f;
    return true;
}

bool hostfwd_same_rule(const HostFwd *a, const HostFwd *b)
{
    return a->udp == b->udp && a->host_addr.s_addr == b->host_addr.s_addr &&
           a->asked_port == b->asked_port && a->guest_addr.s_addr == b->guest_addr.s_addr &&
           a->guest_port == b->guest_port;
}

bool hostfwd_same_host(const HostFwd *a, const HostFwd *b)
{
    return a->udp == b->udp && a->host_addr.s_addr == b->host_addr.s_addr &&
           a->host_port == b->host_port;
}

/**
 * hostfwd_parse_host() - Read the host's end alone, "tcp|udp:[ADDR]:HOSTPORT", that names one
 * Context: any thread. Return: false with LODGE_ERROR_CONFIG.
 */
bool hostfwd_parse_host(const char *text, HostFwd *ret_fwd, GError **error)
{
    HostFwd f = {.udp = g_str_has_prefix(text, "udp:")};

    if ((!f.udp && !g_str_has_prefix(text, "tcp:")) ||
        !parse_end(text + strlen("tcp:"), htonl(INADDR_LOOPBACK), 1, &f.host_addr, &f.host_port))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "hostfwd '%s' is not tcp|udp:[ADDR]:HOSTPORT",
                          text);
    *ret_fwd = f;
    return true;
}

char *hostfwd_name(const HostFwd *fwd)
{
    char addr[INET_ADDRSTRLEN] = "";

    (void)inet_ntop(AF_INET, &fwd->host_addr, addr, sizeof addr); /* cannot fail: room is there */
    return g_strdup_printf("%s:%u (%s)", addr, fwd->host_port, fwd->udp ? "udp" : "tcp");
}

/**
 * hostfwd_probe() - See whether the host port can be had; a port of 0 becomes a free one
 * Context: any thread. Return: false with LODGE_ERROR_BUSY (somebody listens there) or
 *          LODGE_ERROR_HOST (no such address, privileged port).
 */
bool hostfwd_probe(HostFwd *fwd, GError **error)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = fwd->host_addr,
                             .sin_port = htons(fwd->host_port)};
    socklen_t len = sizeof sa;
    int one = 1;
    g_autofree char *name = hostfwd_name(fwd);
    int fd = socket(AF_INET, (fwd->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return lodge_fail_errno(error, errno, "hostfwd %s: cannot make a socket", name);
    /* As libslirp: for TCP only, where it still refuses a port with a listener. */
    if (!fwd->udp)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    int err = 0;
    if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 ||
        (!fwd->udp && listen(fd, 1) < 0) || getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
        err = errno;
    close(fd);
    if (err == EADDRINUSE)
        return lodge_fail(error, LODGE_ERROR_BUSY,
                          "hostfwd: port %s is in use; choose another, or 0 for a free one", name);
    if (err)
        return lodge_fail_errno(error, err, "hostfwd: cannot listen on %s", name);
    fwd->host_port = ntohs(sa.sin_port);
    return true;
}
