/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Texts of back ends' options into values, each with the error that says how it is written.
 * Names of hosts are looked up when the machine is built. Threads: main only. */
#include "opts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

enum { FD_MAX = 1 << 20 };

const char *net_opt(GHashTable *opts, const char *name)
{
    GPtrArray *values = g_hash_table_lookup(opts, name);

    return values && values->len ? g_ptr_array_index(values, values->len - 1) : NULL;
}

bool net_opt_switch(GHashTable *opts, const char *name, bool preset, bool *ret_on, GError **error)
{
    const char *text = net_opt(opts, name);

    *ret_on = preset;
    if (!text)
        return true;
    if (strcmp(text, "on") && strcmp(text, "off"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s '%s' is neither on nor off", name, text);
    *ret_on = !strcmp(text, "on");
    return true;
}

bool net_opt_number(GHashTable *opts, const char *name, uint64_t min, uint64_t max,
                    uint64_t preset, uint64_t *ret_value, GError **error)
{
    const char *text = net_opt(opts, name);
    guint64 v = preset;

    if (text && !g_ascii_string_to_unsigned(text, 10, min, max, &v, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s '%s' is not a number from %" PRIu64 " to %" PRIu64, name, text, min,
                          max);
    *ret_value = v;
    return true;
}

static bool fd_of(const char *text, int *ret_fd, GError **error)
{
    guint64 v;

    if (!g_ascii_string_to_unsigned(text, 10, 3, FD_MAX, &v, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "fd '%s' is not a number from 3 to %d", text,
                          FD_MAX);
    int flags = fcntl((int)v, F_GETFD);
    /* What came through exec() has no such flag: that number is one of our own, or taken. */
    if (flags < 0 || (flags & FD_CLOEXEC) || fcntl((int)v, F_SETFD, flags | FD_CLOEXEC) < 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "fd '%s' is not open, or in use already; pass one to lodge, as with "
                          "%s<>/dev/net/tun",
                          text, text);
    *ret_fd = (int)v;
    return true;
}

bool net_opt_fd(GHashTable *opts, int *ret_fd, GError **error)
{
    const char *text = net_opt(opts, "fd");

    *ret_fd = -1;
    return !text || fd_of(text, ret_fd, error);
}

bool net_opt_fds(GHashTable *opts, int *ret_fds, unsigned max, unsigned *ret_n, GError **error)
{
    GPtrArray *values = g_hash_table_lookup(opts, "fd");

    *ret_n = 0;
    for (unsigned i = 0; values && i < values->len; i++) {
        const char *text = g_ptr_array_index(values, i);

        if (i == max)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "fd is given more than %u times", max);
        for (unsigned k = 0; k < i; k++) {
            if (!strcmp(g_ptr_array_index(values, k), text))
                return lodge_fail(error, LODGE_ERROR_CONFIG, "fd '%s' is given twice", text);
        }
        if (!fd_of(text, &ret_fds[i], error))
            return false;
        ++*ret_n;
    }
    return true;
}

/* A number that is not negative and what stands behind it. */
static bool number_and_unit(const char *text, double *ret_value, const char **ret_unit)
{
    char *end;

    if (!g_ascii_isdigit(text[0]))
        return false;
    errno = 0;
    *ret_value = g_ascii_strtod(text, &end);
    *ret_unit = end;
    return !errno && isfinite(*ret_value);
}

typedef struct Unit {
    const char *name;
    double factor;
} Unit;

/* Units end at a NULL name. */
static bool with_unit(const char *text, const Unit *units, double max, double *ret_value)
{
    const char *unit;
    double v;

    if (!number_and_unit(text, &v, &unit))
        return false;
    for (; units->name; units++) {
        if (!g_ascii_strcasecmp(unit, units->name)) {
            *ret_value = v * units->factor;
            return *ret_value <= max;
        }
    }
    return false;
}

bool net_opt_rate(GHashTable *opts, const char *name, uint64_t *ret_bits, GError **error)
{
    static const Unit units[] = {{"", 1}, {"k", 1e3}, {"m", 1e6}, {"g", 1e9}, {NULL, 0}};
    const char *text = net_opt(opts, name);
    double v;

    if (!text)
        return true;
    if (!with_unit(text, units, 1e12, &v) || v < 1000)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s '%s' is not a number of bits a second from 1k, like 10M", name, text);
    *ret_bits = (uint64_t)v;
    return true;
}

bool net_opt_time(GHashTable *opts, const char *name, int64_t *ret_ns, GError **error)
{
    static const Unit units[] = {{"", 1e6}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {NULL, 0}};
    const char *text = net_opt(opts, name);
    double v;

    if (!text)
        return true;
    if (!with_unit(text, units, 60e9, &v))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s '%s' is not a time of at most a minute, like 20ms", name, text);
    *ret_ns = (int64_t)v;
    return true;
}

bool net_opt_share(GHashTable *opts, const char *name, uint32_t *ret_share, GError **error)
{
    static const Unit units[] = {{"", 0.01}, {"%", 0.01}, {NULL, 0}};
    const char *text = net_opt(opts, name);
    double v;

    if (!text)
        return true;
    if (!with_unit(text, units, 1, &v))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s '%s' is not from 0%% to 100%%, like 1.5%%",
                          name, text);
    *ret_share = v >= 1 ? UINT32_MAX : (uint32_t)(v * 4294967296.0);
    return true;
}

bool net_opt_size(GHashTable *opts, const char *name, uint64_t min, uint64_t *ret_bytes,
                  GError **error)
{
    static const Unit units[] = {{"", 1}, {"k", 1024}, {"m", 1 << 20}, {"g", 1 << 30}, {NULL, 0}};
    const char *text = net_opt(opts, name);
    double v;

    if (!text)
        return true;
    if (!with_unit(text, units, 0x1p50, &v) || v < (double)min)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s '%s' is not a size of at least %" PRIu64 "K, like 64M", name, text,
                          min >> 10);
    *ret_bytes = (uint64_t)v;
    return true;
}

/**
 * net_addr_unix() - The address of a socket's file
 * Context: any thread. Return: false with LODGE_ERROR_CONFIG where the path is empty or too long.
 */
bool net_addr_unix(const char *path, NetAddr *ret, GError **error)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&ret->sa;

    if (!*path || strlen(path) >= sizeof un->sun_path)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "\"%s\": a socket's path has 1 to %zu bytes; use a shorter one", path,
                          sizeof un->sun_path - 1);
    memset(ret, 0, sizeof *ret);
    un->sun_family = AF_UNIX;
    strcpy(un->sun_path, path);
    ret->len = sizeof *un;
    return true;
}

/**
 * net_addr_inet() - Look up "HOST:PORT"
 * @type: SOCK_STREAM or SOCK_DGRAM; @passive: to listen at, where HOST may be empty
 * Context: main thread; may wait for a name server.
 */
bool net_addr_inet(const char *text, int type, bool passive, NetAddr *ret, GError **error)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = type,
                                   .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
    const char *colon = strrchr(text, ':');
    struct addrinfo *found;
    guint64 port;

    if (!colon || (colon == text && !passive) ||
        !g_ascii_string_to_unsigned(colon + 1, 10, 1, 65535, &port, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "\"%s\" is not HOST:PORT with a port from 1 to 65535", text);
    g_autofree char *host = g_strndup(text, (gsize)(colon - text));
    size_t len = strlen(host);
    if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
        memmove(host, host + 1, len - 2);
        host[len - 2] = '\0';
    }
    int err = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &found);
    if (err)
        return lodge_fail(error, LODGE_ERROR_HOST, "\"%s\": cannot look it up: %s", host,
                          gai_strerror(err));
    memset(ret, 0, sizeof *ret);
    memcpy(&ret->sa, found->ai_addr, found->ai_addrlen);
    ret->len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

bool net_addr_parse(const char *text, const char *inet, int type, bool passive, NetAddr *ret,
                    GError **error)
{
    size_t len = strlen(inet);

    if (g_str_has_prefix(text, "unix:"))
        return net_addr_unix(text + strlen("unix:"), ret, error);
    if (!strncmp(text, inet, len) && text[len] == ':')
        return net_addr_inet(text + len + 1, type, passive, ret, error);
    return lodge_fail(error, LODGE_ERROR_CONFIG, "\"%s\": write unix:PATH or %s:HOST:PORT", text,
                      inet);
}

bool net_unix_clear(const char *path, int type, GError **error)
{
    NetAddr a;
    struct stat st;

    if (!net_addr_unix(path, &a, error))
        return false;
    if (lstat(path, &st) < 0)
        return true; /* not there; anything else the caller's bind() says better */
    if (!S_ISSOCK(st.st_mode))
        return lodge_fail(error, LODGE_ERROR_EXISTS,
                          "\"%s\" is there and is no socket; name another path", path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return lodge_fail_errno(error, errno, "cannot make a socket");
    bool dead = connect(fd, (struct sockaddr *)&a.sa, a.len) < 0 && errno == ECONNREFUSED;
    close(fd);
    if (!dead)
        return lodge_fail(error, LODGE_ERROR_BUSY, "\"%s\" is in use by another program", path);
    if (unlink(path) < 0)
        return lodge_fail_errno(error, errno, "cannot remove the old \"%s\"", path);
    return true;
}
