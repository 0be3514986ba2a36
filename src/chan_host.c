/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Host ends of channels: opens what a spec names and reads and writes it without blocking.
 *
 * Standard input and output are shared with other processes (the shell, a pipeline), and
 * O_NONBLOCK belongs to the open file, not to us: it is never set there. Pipes and terminals are
 * opened once more through /proc/self/fd, which gives an open file of our own. Where that is
 * refused, and for other kinds, poll() is asked first and a write is kept so short that it cannot
 * block: PIPE_BUF for a pipe (pipe(7): room for that much, or POLLOUT is not set), fewer for a
 * terminal. Sockets have MSG_DONTWAIT. Regular files are always ready.
 *
 * A process has one standard input: the flag that says so, and the terminal's mode, are the
 * process's. Threads: open and close on main, the rest on the channel's IoThread.
 */
#include "chan_host.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/terminal.h"

enum {
    FILE_MODE = 0600,
    TTY_CHUNK = 128, /* bytes that a terminal with POLLOUT has room for */
    OWN_CHUNK = 65536,
    PTS_NAME_MAX = 64,
};

static int stdio_taken; /* atomic */

/* Whether epoll takes @fd; regular files and some devices are always ready instead. */
static bool can_poll(int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};
    int set = epoll_create1(EPOLL_CLOEXEC);
    bool ok = set >= 0 && (!epoll_ctl(set, EPOLL_CTL_ADD, fd, &ev) || errno != EPERM);

    if (set >= 0)
        close(set);
    return ok;
}

/* An open file of our own for @fd, non-blocking, where there can be one; else a duplicate. */
static int own_fd(int fd, int access, bool *ret_own)
{
    char path[sizeof "/proc/self/fd/" + 3 * sizeof(int)];
    struct stat st;

    *ret_own = false;
    if (!fstat(fd, &st) && (S_ISFIFO(st.st_mode) || (S_ISCHR(st.st_mode) && isatty(fd)))) {
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd); /* room for any int */
        int again = open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (again >= 0) {
            *ret_own = true;
            return again;
        }
    }
    return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/* Take @in and @out (may be one number), which stay open as they are. */
static bool adopt(ChanHost *h, int in, int out, GError **error)
{
    struct stat st = {0};
    int type;
    socklen_t len = sizeof type;

    if (fcntl(in, F_GETFD) >= 0)
        h->in_fd = own_fd(in, O_RDONLY, &h->in_own);
    if (fcntl(out, F_GETFD) >= 0)
        h->out_fd = own_fd(out, O_WRONLY, &h->out_own);
    if (h->in_fd < 0 && h->out_fd < 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "descriptor %d is not open", in);
    h->in_polled = h->in_fd >= 0 && can_poll(h->in_fd);
    h->out_chunk = OWN_CHUNK;
    if (h->out_fd >= 0 && !fstat(h->out_fd, &st) && !h->out_own && !S_ISREG(st.st_mode))
        h->out_chunk = isatty(h->out_fd) ? TTY_CHUNK : PIPE_BUF;
    h->socket = in == out && !getsockopt(in, SOL_SOCKET, SO_TYPE, &type, &len);
    return true;
}

/* A terminal gives each key as it is pressed. */
static bool take_terminal(ChanHost *h, GError **error)
{
    h->terminal = h->in_fd >= 0 && isatty(h->in_fd);
    return !h->terminal || terminal_raw(h->in_fd, error);
}

static bool open_none(const char *rest, ChanHost *h, GError **error)
{
    h->describe = g_strdup("none");
    return true;
}

static bool open_stdio(const char *rest, ChanHost *h, GError **error)
{
    if (__atomic_exchange_n(&stdio_taken, 1, __ATOMIC_ACQ_REL))
        return lodge_fail(error, LODGE_ERROR_BUSY,
                          "standard input and output serve another channel already");
    h->stdio = true;
    h->describe = g_strdup("stdio");
    if (fcntl(STDIN_FILENO, F_GETFD) < 0 && fcntl(STDOUT_FILENO, F_GETFD) < 0)
        return true; /* both closed: as good as none */
    if (!adopt(h, STDIN_FILENO, STDOUT_FILENO, error))
        return false;
    return take_terminal(h, error);
}

static bool open_fd(const char *rest, ChanHost *h, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(rest, ",", 0);
    guint n = g_strv_length(parts);
    guint64 in = 0, out = 0;
    bool ok = (n == 1 || n == 2) &&
              g_ascii_string_to_unsigned(parts[0], 10, 0, INT_MAX, &in, NULL);

    out = in;
    if (ok && n == 2)
        ok = g_str_has_prefix(parts[1], "fd:") &&
             g_ascii_string_to_unsigned(parts[1] + strlen("fd:"), 10, 0, INT_MAX, &out, NULL);
    if (!ok)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'fd:%s' is not fd:N or fd:N,fd:M", rest);
    h->describe = g_strdup_printf("fd:%s", rest);
    return adopt(h, (int)in, (int)out, error) && take_terminal(h, error);
}

static bool open_tty(const char *path, ChanHost *h, GError **error)
{
    int fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0 || !isatty(fd)) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return lodge_fail(error, LODGE_ERROR_CONFIG, "cannot use '%s' as a terminal: %s", path,
                          g_strerror(err));
    }
    h->in_fd = fd;
    h->out_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* epoll wants a number for each direction */
    if (h->out_fd < 0)
        return lodge_fail_errno(error, errno, "cannot duplicate a descriptor");
    h->in_own = h->out_own = h->in_polled = true;
    h->out_chunk = OWN_CHUNK;
    h->describe = g_strdup_printf("tty:%s", path);
    return take_terminal(h, error);
}

static bool open_file(const char *path, ChanHost *h, GError **error)
{
    /* Non-blocking matters where the path names a pipe or a terminal. */
    h->out_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
                     FILE_MODE);
    if (h->out_fd < 0) {
        int err = errno;
        LodgeError code = err == ENOENT || err == EISDIR || err == ENOTDIR || err == EACCES
                              ? LODGE_ERROR_CONFIG : LODGE_ERROR_HOST;
        return lodge_fail(error, code, "cannot write to '%s': %s", path, g_strerror(err));
    }
    h->out_own = true;
    h->out_chunk = OWN_CHUNK;
    h->describe = g_strdup_printf("file:%s", path);
    return true;
}

static bool open_pty(const char *rest, ChanHost *h, GError **error)
{
    char slave[PTS_NAME_MAX];
    struct termios mode;

    h->in_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (h->in_fd < 0 || grantpt(h->in_fd) < 0 || unlockpt(h->in_fd) < 0 ||
        ptsname_r(h->in_fd, slave, sizeof slave) != 0)
        return lodge_fail_errno(error, errno, "cannot make a pseudo-terminal");
    h->keep_fd = open(slave, O_RDWR | O_NOCTTY | O_CLOEXEC);
    h->out_fd = fcntl(h->in_fd, F_DUPFD_CLOEXEC, 0);
    if (h->keep_fd < 0 || h->out_fd < 0 || fcntl(h->in_fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0 ||
        tcgetattr(h->keep_fd, &mode) < 0)
        return lodge_fail_errno(error, errno, "cannot set up pseudo-terminal %s", slave);
    cfmakeraw(&mode);
    if (tcsetattr(h->keep_fd, TCSANOW, &mode) < 0)
        return lodge_fail_errno(error, errno, "cannot set up pseudo-terminal %s", slave);
    h->in_own = h->out_own = h->in_polled = true;
    h->out_chunk = OWN_CHUNK;
    h->describe = g_strdup_printf("pty %s", slave);
    return true;
}

/* Cut ",server=on|off" off @text in place. */
static bool take_server_option(char *text, bool *ret_server, GError **error)
{
    char *comma = strrchr(text, ',');

    *ret_server = true;
    if (!comma)
        return true;
    if (!strcmp(comma, ",server=off"))
        *ret_server = false;
    else if (strcmp(comma, ",server=on"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s' is not an option of a socket; there is server=on|off", comma + 1);
    *comma = '\0';
    return true;
}

/* A connected, non-blocking socket @fd becomes both directions; owned from here. */
static bool use_socket(ChanHost *h, int fd)
{
    h->in_fd = fd;
    h->out_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* epoll wants a number for each direction */
    h->socket = h->in_own = h->out_own = h->in_polled = true;
    h->out_chunk = OWN_CHUNK;
    if (h->out_fd >= 0)
        return true;
    chan_host_hang_up(h);
    return false;
}

static bool set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) >= 0;
}

/* Bind @fd to @sa, replacing a socket file that nobody listens on. */
static bool bind_unix(int fd, const struct sockaddr_un *sa, GError **error)
{
    struct stat st;

    if (!bind(fd, (const struct sockaddr *)sa, sizeof *sa))
        return true;
    if (errno != EADDRINUSE)
        return lodge_fail_errno(error, errno, "cannot make the socket '%s'", sa->sun_path);
    if (lstat(sa->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return lodge_fail(error, LODGE_ERROR_EXISTS, "'%s' exists and is not a socket",
                          sa->sun_path);
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool stale = probe >= 0 && connect(probe, (const struct sockaddr *)sa, sizeof *sa) < 0 &&
                 errno == ECONNREFUSED;
    if (probe >= 0)
        close(probe);
    if (!stale)
        return lodge_fail(error, LODGE_ERROR_BUSY, "another program listens on '%s'",
                          sa->sun_path);
    if (unlink(sa->sun_path) < 0 || bind(fd, (const struct sockaddr *)sa, sizeof *sa) < 0)
        return lodge_fail_errno(error, errno, "cannot replace the socket '%s'", sa->sun_path);
    return true;
}

static bool open_unix(const char *rest, ChanHost *h, GError **error)
{
    g_autofree char *path = g_strdup(rest);
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct stat st;
    bool server;

    if (!take_server_option(path, &server, error))
        return false;
    if (!*path || strlen(path) >= sizeof sa.sun_path)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s' is not a socket's path of 1 to %zu bytes", path,
                          sizeof sa.sun_path - 1);
    strcpy(sa.sun_path, path);
    h->describe = g_strdup_printf("unix:%s%s", path, server ? ",server=on" : "");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return lodge_fail_errno(error, errno, "cannot make a socket");
    if (!server) {
        if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || !set_nonblocking(fd)) {
            int err = errno;
            close(fd);
            return lodge_fail_errno(error, err, "cannot connect to '%s'", path);
        }
        return use_socket(h, fd) ||
               lodge_fail_errno(error, errno, "cannot duplicate a descriptor");
    }
    h->listen_fd = fd;
    if (!bind_unix(fd, &sa, error))
        return false;
    if (!lstat(path, &st)) {
        h->socket_path = g_steal_pointer(&path);
        h->socket_dev = st.st_dev;
        h->socket_ino = st.st_ino;
    }
    if (!set_nonblocking(fd) || chmod(sa.sun_path, FILE_MODE) < 0 || listen(fd, 1) < 0)
        return lodge_fail_errno(error, errno, "cannot listen on '%s'", sa.sun_path);
    return true;
}

static bool start_tcp(ChanHost *h, const struct addrinfo *ai, const char *text, bool server,
                      GError **error)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    int one = 1, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char host[NI_MAXHOST], port[NI_MAXSERV];

    if (fd < 0)
        return lodge_fail_errno(error, errno, "cannot make a socket");
    if (!server) {
        if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 || !set_nonblocking(fd)) {
            int err = errno;
            close(fd);
            return lodge_fail_errno(error, err, "cannot connect to tcp:%s", text);
        }
        h->describe = g_strdup_printf("tcp:%s", text);
        return use_socket(h, fd) ||
               lodge_fail_errno(error, errno, "cannot duplicate a descriptor");
    }
    h->listen_fd = fd;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* a convenience */
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 1) < 0) {
        if (errno == EADDRINUSE)
            return lodge_fail(error, LODGE_ERROR_BUSY, "tcp:%s is in use by another program", text);
        return lodge_fail_errno(error, errno, "cannot listen on tcp:%s", text);
    }
    if (!set_nonblocking(fd) || getsockname(fd, (struct sockaddr *)&ss, &len) < 0 ||
        getnameinfo((struct sockaddr *)&ss, len, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return lodge_fail_errno(error, errno, "cannot listen on tcp:%s", text);
    h->describe = g_strdup_printf(strchr(host, ':') ? "tcp:[%s]:%s,server=on"
                                                    : "tcp:%s:%s,server=on", host, port);
    return true;
}

static bool open_tcp(const char *rest, ChanHost *h, GError **error)
{
    g_autofree char *text = g_strdup(rest);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai = NULL;
    bool server;
    guint64 port;

    if (!take_server_option(text, &server, error))
        return false;
    char *colon = strrchr(text, ':');
    if (!colon || !g_ascii_string_to_unsigned(colon + 1, 10, server ? 0 : 1, UINT16_MAX, &port,
                                              NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'tcp:%s' is not tcp:[HOST]:PORT", text);
    g_autofree char *host = g_strndup(text, (gsize)(colon - text));
    size_t n = strlen(host);
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        host[n - 1] = '\0';
        memmove(host, host + 1, n - 1);
    }
    int err = getaddrinfo(*host ? host : "127.0.0.1", colon + 1, &hints, &ai);
    if (err)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "tcp:%s: %s", text, gai_strerror(err));
    bool ok = start_tcp(h, ai, text, server, error);
    freeaddrinfo(ai);
    return ok;
}

/* A socket whose other end is for another part of this process, or for nobody. */
static bool open_pair(const char *rest, ChanHost *h, GError **error)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return lodge_fail_errno(error, errno, "cannot make a pair of sockets");
    h->keep_fd = pair[1];
    h->describe = g_strdup("pair");
    return use_socket(h, pair[0]) ||
           lodge_fail_errno(error, errno, "cannot duplicate a descriptor");
}

static const struct {
    const char *prefix;
    bool (*open)(const char *rest, ChanHost *h, GError **error);
    bool exact; /* nothing follows the name */
} kinds[] = {
    {"none", open_none, true},   {"stdio", open_stdio, true}, {"pty", open_pty, true},
    {"file:", open_file, false}, {"unix:", open_unix, false}, {"tcp:", open_tcp, false},
    {"fd:", open_fd, false},     {"tty:", open_tty, false},   {"pair", open_pair, true},
};

/**
 * chan_host_open() - Open what @spec names
 * Context: main thread; SIGPIPE becomes ignored in the process, as a reader that leaves must not
 *          end a VM. Return: false with everything undone and errors as of chan_open().
 */
bool chan_host_open(const char *spec, const char *name, ChanHost *ret_host, GError **error)
{
    ChanHost h = {.in_fd = -1, .out_fd = -1, .listen_fd = -1, .keep_fd = -1};

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (kinds[i].exact ? strcmp(spec, kinds[i].prefix) != 0
                           : !g_str_has_prefix(spec, kinds[i].prefix))
            continue;
        (void)signal(SIGPIPE, SIG_IGN); /* cannot fail for this signal */
        if (kinds[i].open(spec + strlen(kinds[i].prefix), &h, error)) {
            *ret_host = h;
            return true;
        }
        g_prefix_error(error, "%s: ", name);
        chan_host_close(&h);
        return false;
    }
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "%s: '%s' is none of none, stdio, pty, file:PATH, unix:PATH, "
                      "tcp:HOST:PORT, fd:N, tty:PATH", name, spec);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Let go of the peer; a server may accept the next. */
void chan_host_hang_up(ChanHost *h)
{
    close_fd(&h->in_fd);
    close_fd(&h->out_fd);
}

/* One direction has ended; terminal settings stay until chan_host_close(). */
void chan_host_close_input(ChanHost *h)
{
    close_fd(&h->in_fd);
}

void chan_host_close_output(ChanHost *h)
{
    close_fd(&h->out_fd);
}

void chan_host_close(ChanHost *h)
{
    struct stat st;

    if (h->terminal)
        terminal_restore();
    chan_host_hang_up(h);
    close_fd(&h->listen_fd);
    close_fd(&h->keep_fd);
    if (h->socket_path && !lstat(h->socket_path, &st) && st.st_dev == h->socket_dev &&
        st.st_ino == h->socket_ino)
        (void)unlink(h->socket_path); /* gone meanwhile: what was wanted */
    if (h->stdio)
        __atomic_store_n(&stdio_taken, 0, __ATOMIC_RELEASE);
    g_free(h->socket_path);
    g_free(h->describe);
    *h = (ChanHost){.in_fd = -1, .out_fd = -1, .listen_fd = -1, .keep_fd = -1};
}

/* Take the next client. Return: false if there is none (any more). */
bool chan_host_accept(ChanHost *h)
{
    int fd = accept4(h->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    return fd >= 0 && use_socket(h, fd);
}

static bool ready(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};

    return poll(&p, 1, 0) > 0;
}

/* Like read(), never blocks: -1 and EAGAIN instead. */
ssize_t chan_host_read(ChanHost *h, void *to, size_t len)
{
    ssize_t n;

    if (h->in_polled && !h->in_own && !ready(h->in_fd, POLLIN)) {
        errno = EAGAIN;
        return -1;
    }
    do
        n = read(h->in_fd, to, len);
    while (n < 0 && errno == EINTR);
    return n;
}

/* Like write(), never blocks: fewer bytes, or -1 and EAGAIN instead. */
ssize_t chan_host_write(ChanHost *h, const void *data, size_t len)
{
    ssize_t n;

    if (len > h->out_chunk)
        len = h->out_chunk;
    if (!h->out_own && !h->socket && h->out_chunk != OWN_CHUNK && !ready(h->out_fd, POLLOUT)) {
        errno = EAGAIN;
        return -1;
    }
    do
        n = h->socket ? send(h->out_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL)
                      : write(h->out_fd, data, len);
    while (n < 0 && errno == EINTR);
    return n;
}
