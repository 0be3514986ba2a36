/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a VNC server listens, from the text of an option.
 *
 * Anything but the loopback interface must be written out. A password comes from a file only, since
 * every user of the host can read command lines. A Unix socket is for its owner; a file that is in
 * its place stays, unless it is a socket of ours that nobody listens at.
 */
#include "vnc_addr.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/listener.h"

#define VNC_PORT 5900
#define VNC_DISPLAY_MAX (65535 - VNC_PORT)
#define VNC_AUTO_PORTS 100
#define VNC_BACKLOG 16
#define PASSWORD_FILE_MAX 4096

/* The text up to the next single comma, doubled ones made one; moves *@text past it. */
static char *next_part(const char **text)
{
    GString *part = g_string_new(NULL);
    const char *p = *text;

    for (; *p; p++) {
        if (*p == ',' && *++p != ',')
            break;
        g_string_append_c(part, *p);
    }
    *text = p;
    return g_string_free(part, FALSE);
}

static bool read_password(const char *file, char **ret_password, GError **error)
{
    g_autofree char *text = NULL;
    gsize len;
    struct stat st;

    if (stat(file, &st) < 0)
        return lodge_fail_errno(error, errno, "password file \"%s\"", file);
    if (!S_ISREG(st.st_mode) || st.st_size > PASSWORD_FILE_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "password file \"%s\": not a short file",
                          file);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "password file \"%s\": others may read it; chmod 600 it", file);
    if (!g_file_get_contents(file, &text, &len, NULL))
        return lodge_fail(error, LODGE_ERROR_HOST, "password file \"%s\": cannot be read", file);
    text[strcspn(text, "\r\n")] = '\0';
    if (!*text || strlen(text) > VNC_PASSWORD_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "password file \"%s\": the first line must have 1 to %d characters, "
                          "which is all that VNC compares",
                          file, VNC_PASSWORD_MAX);
    *ret_password = g_steal_pointer(&text);
    return true;
}

static bool parse_tcp(const char *where, VncAddr *a, GError **error)
{
    const char *colon = strrchr(where, ':');
    const char *number = colon ? colon + 1 : where;
    size_t host_len = colon ? (size_t)(colon - where) : 0;
    bool direct = host_len && where[host_len - 1] == ':';
    uint64_t n;

    if (direct)
        host_len--;
    bool bracketed = host_len >= 2 && where[0] == '[' && where[host_len - 1] == ']';
    if (bracketed)
        a->host = g_strndup(where + 1, host_len - 2);
    else
        a->host = host_len ? g_strndup(where, host_len) : g_strdup("127.0.0.1");
    if (!bracketed && strchr(a->host, ':'))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "\"%s\": an IPv6 address goes into brackets: [::1]:0", where);
    if (!strcmp(number, "auto") && !direct) {
        a->port = VNC_PORT;
        a->last_port = VNC_PORT + VNC_AUTO_PORTS - 1;
        return true;
    }
    if (!colon || !parse_u64(number, &n) || (direct && !n) ||
        n > (direct ? UINT16_MAX : VNC_DISPLAY_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "vnc: \"%s\": write :DISPLAY, HOST:DISPLAY, HOST::PORT, auto or unix:PATH",
                          where);
    a->port = a->last_port = (unsigned)n + (direct ? 0 : VNC_PORT);
    return true;
}

bool vnc_addr_parse(const char *spec, VncAddr *ret_addr, GError **error)
{
    VncAddr a = {0};
    g_autofree char *where = next_part(&spec);
    bool ok = true;

    if (g_str_has_prefix(where, "unix:")) {
        struct sockaddr_un un;
        a.unix_path = g_strdup(where + strlen("unix:"));
        if (!*a.unix_path || strlen(a.unix_path) >= sizeof(un.sun_path))
            ok = lodge_fail(error, LODGE_ERROR_CONFIG,
                            "\"%s\": a socket's path has 1 to %zu characters", where,
                            sizeof(un.sun_path) - 1);
    } else {
        ok = parse_tcp(where, &a, error);
    }
    while (ok && *spec) {
        g_autofree char *part = next_part(&spec);
        if (g_str_has_prefix(part, "password-file=") && !a.password)
            ok = read_password(part + strlen("password-file="), &a.password, error);
        else if (g_str_has_prefix(part, "password="))
            ok = lodge_fail(error, LODGE_ERROR_CONFIG,
                            "password=: every user of this host could read it; put it into a "
                            "file and say password-file=FILE");
        else
            ok = lodge_fail(error, LODGE_ERROR_CONFIG, "\"%s\": only password-file=FILE, once",
                            part);
    }
    if (!ok) {
        vnc_addr_clear(&a);
        return false;
    }
    *ret_addr = a;
    return true;
}

void vnc_addr_clear(VncAddr *addr)
{
    g_clear_pointer(&addr->unix_path, g_free);
    g_clear_pointer(&addr->host, g_free);
    if (addr->password)
        explicit_bzero(addr->password, strlen(addr->password));
    g_clear_pointer(&addr->password, g_free);
}

static int listen_unix(const char *path, GError **error)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    if (fd < 0 || fchmod(fd, S_IRUSR | S_IWUSR) < 0) { /* before bind(): the file gets it */
        lodge_fail_errno(error, errno, "unix:%s", path);
    } else {
        if (listener_is_stale(&un))
            (void)unlink(path); /* bind() says what is wrong */
        if (bind(fd, (struct sockaddr *)&un, sizeof(un)) == 0 && listen(fd, VNC_BACKLOG) == 0)
            return fd;
        if (errno == EADDRINUSE)
            lodge_fail(error, LODGE_ERROR_BUSY,
                       "unix:%s: is there already; remove it or take another path", path);
        else
            lodge_fail_errno(error, errno, "unix:%s", path);
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Return: the socket, or -1 with errno. */
static int listen_tcp(const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)); /* only to restart sooner */
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) == 0 && listen(fd, VNC_BACKLOG) == 0)
        return fd;
    int err = errno;
    close(fd);
    errno = err;
    return -1;
}

int vnc_addr_listen(const VncAddr *addr, char **ret_name, GError **error)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    const char *form = addr->host && strchr(addr->host, ':') ? "[%s]:%u" : "%s:%u";
    int fd = -1, err = 0;
    unsigned port;

    if (addr->unix_path) {
        fd = listen_unix(addr->unix_path, error);
        if (fd >= 0)
            *ret_name = g_strconcat("unix:", addr->unix_path, NULL);
        return fd;
    }
    for (port = addr->port; port <= addr->last_port && fd < 0; port++) {
        g_autofree char *service = g_strdup_printf("%u", port);
        struct addrinfo *ai;
        err = getaddrinfo(addr->host, service, &hints, &ai);
        if (err) {
            lodge_fail(error, LODGE_ERROR_CONFIG, "host \"%s\": %s", addr->host,
                       gai_strerror(err));
            return -1;
        }
        fd = listen_tcp(ai);
        err = errno;
        freeaddrinfo(ai);
    }
    port--;
    g_autofree char *name = g_strdup_printf(form, addr->host, port);
    if (fd < 0 && err == EADDRINUSE)
        lodge_fail(error, LODGE_ERROR_BUSY, "%s: somebody listens there; take another, or auto",
                   name);
    else if (fd < 0)
        lodge_fail_errno(error, err, "%s", name);
    else
        *ret_name = g_steal_pointer(&name);
    return fd;
}
