/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Channels of every kind, the escape key, the terminal's settings, the console log. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "console.h"
#include "lodge/chan.h"
#include "lodge/clock.h"
#include "lodge/console_log.h"
#include "lodge/error.h"
#include "lodge/iothread.h"

enum { DEADLINE_S = 15 };

typedef struct Fixture {
    LodgeClock *clock;
    IoThread *io;
    GMutex mutex;
    GCond cond;
    GString *got, *tap; /* guarded by mutex */
    size_t room;        /* what the device still takes */
    int ups, downs, kills, powers, resets;
    char *dir;
} Fixture;

static size_t on_input(void *opaque, const uint8_t *data, size_t len)
{
    Fixture *f = opaque;

    g_mutex_lock(&f->mutex);
    size_t n = MIN(len, f->room);
    g_string_append_len(f->got, (const char *)data, (gssize)n);
    f->room -= n;
    g_cond_broadcast(&f->cond);
    g_mutex_unlock(&f->mutex);
    return n;
}

static void on_connected(void *opaque, bool up)
{
    Fixture *f = opaque;

    g_mutex_lock(&f->mutex);
    up ? f->ups++ : f->downs++;
    g_cond_broadcast(&f->cond);
    g_mutex_unlock(&f->mutex);
}

static const ChanOps ops = {.input = on_input, .connected = on_connected};

static void on_tap(void *opaque, const uint8_t *data, size_t len)
{
    Fixture *f = opaque;

    g_mutex_lock(&f->mutex);
    g_string_append_len(f->tap, (const char *)data, (gssize)len);
    g_cond_broadcast(&f->cond);
    g_mutex_unlock(&f->mutex);
}

static void setup(Fixture *f, gconstpointer data)
{
    memset(f, 0, sizeof *f);
    f->clock = lodge_clock_new();
    f->io = io_thread_new("chan", f->clock, NULL);
    g_mutex_init(&f->mutex);
    g_cond_init(&f->cond);
    f->got = g_string_new(NULL);
    f->tap = g_string_new(NULL);
    f->room = SIZE_MAX;
    f->dir = g_dir_make_tmp("lodge-chan-XXXXXX", NULL);
}

static void teardown(Fixture *f, gconstpointer data)
{
    io_thread_free(f->io);
    lodge_clock_free(f->clock);
    g_string_free(f->got, TRUE);
    g_string_free(f->tap, TRUE);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0); /* nothing is left behind */
    g_free(f->dir);
}

static void wait_len(Fixture *f, const GString *s, size_t want)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;

    g_mutex_lock(&f->mutex);
    while (s->len < want) {
        if (!g_cond_wait_until(&f->cond, &f->mutex, end))
            g_error("%zu of %zu bytes", s->len, want);
    }
    g_mutex_unlock(&f->mutex);
}

static void wait_int(Fixture *f, const int *v, int want)
{
    gint64 end = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;

    g_mutex_lock(&f->mutex);
    while (*v < want) {
        if (!g_cond_wait_until(&f->cond, &f->mutex, end))
            g_error("%d of %d", *v, want);
    }
    g_mutex_unlock(&f->mutex);
}

static void read_exactly(int fd, char *to, size_t len)
{
    for (size_t have = 0; have < len;) {
        struct pollfd p = {fd, POLLIN, 0};
        g_assert_cmpint(poll(&p, 1, DEADLINE_S * 1000), ==, 1);
        ssize_t n = read(fd, to + have, len - have);
        g_assert_cmpint(n, >, 0);
        have += (size_t)n;
    }
}

static void expect(int fd, const char *text)
{
    char buf[256];

    read_exactly(fd, buf, strlen(text));
    g_assert_cmpmem(buf, strlen(text), text, strlen(text));
}

/* A round through the loop, after which what was posted has been done. */
static void nothing(void *opaque)
{
}

static void settle(Fixture *f)
{
    for (int i = 0; i < 4; i++)
        io_thread_call(f->io, nothing, NULL);
}

static Chan *open_fds(Fixture *f, int in, int out)
{
    g_autofree char *spec = g_strdup_printf("fd:%d,fd:%d", in, out);
    g_autoptr(GError) error = NULL;
    Chan *c = chan_open(spec, "console", f->io, &error);

    g_assert_no_error(error);
    return c;
}

static void test_none(Fixture *f, gconstpointer data)
{
    g_autoptr(Chan) c = chan_open("none", "console", f->io, NULL);

    g_assert_cmpstr(chan_describe(c), ==, "none");
    chan_attach(c, &ops, f);
    g_assert_cmpint(f->ups, ==, 0);
    chan_set_tap(c, on_tap, f);
    g_assert_cmpint(f->ups, ==, 1);
    chan_write(c, "hello", 5);
    wait_len(f, f->tap, 5);
    chan_inject(c, "typed", 5);
    wait_len(f, f->got, 5);
    g_assert_cmpstr(f->got->str, ==, "typed");
    g_assert_false(chan_is_terminal(c));
}

/* Input waits for the device; a pipe is not read ahead without bound; EOF is no end. */
static void test_pipe_input(Fixture *f, gconstpointer data)
{
    int in[2], out[2];
    static char big[40000];

    g_assert_cmpint(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), ==, 0);
    Chan *c = open_fds(f, in[0], out[1]);
    memset(big, 'x', sizeof big);
    g_assert_cmpint(write(in[1], big, sizeof big), ==, sizeof big);
    settle(f);
    f->room = 10;
    chan_attach(c, &ops, f);
    wait_len(f, f->got, 10);
    settle(f);
    g_assert_cmpuint(f->got->len, ==, 10);
    g_mutex_lock(&f->mutex);
    f->room = SIZE_MAX;
    g_mutex_unlock(&f->mutex);
    chan_want(c);
    wait_len(f, f->got, sizeof big);
    close(in[1]);
    settle(f);
    chan_write(c, "still here", 10);
    expect(out[0], "still here");
    chan_close(c);
    close(in[0]);
    close(out[0]);
    close(out[1]);
}

/* A reader that stops: nobody blocks, the newest megabyte is kept, flags stay as they were. */
static void test_pipe_full(Fixture *f, gconstpointer data)
{
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC), out[2];
    const size_t total = 3 << 20;
    g_autofree char *buf = g_malloc(total);
    size_t have = 0;
    ssize_t n;

    g_assert_cmpint(pipe2(out, O_CLOEXEC), ==, 0);
    int flags = fcntl(out[1], F_GETFL);
    Chan *c = open_fds(f, in, out[1]);
    chan_attach(c, &ops, f);
    chan_set_tap(c, on_tap, f);
    for (size_t i = 0; i < total; i += 8) {
        g_autofree char *s = g_strdup_printf("%07zu\n", i / 8);
        chan_write(c, s, 8);
        if (i % 65536 == 0)
            settle(f);
    }
    wait_len(f, f->tap, total); /* the log misses nothing */
    g_assert_cmpint(fcntl(out[1], F_GETFL), ==, flags);
    g_assert_cmpuint(chan_dropped(c), >, 0);
    g_assert_cmpuint(chan_dropped(c), <, total);
    uint64_t dropped = chan_dropped(c);
    while (have < total - dropped) {
        struct pollfd p = {out[0], POLLIN, 0};
        g_assert_cmpint(poll(&p, 1, DEADLINE_S * 1000), ==, 1);
        n = read(out[0], buf + have, total - have);
        g_assert_cmpint(n, >, 0);
        have += (size_t)n;
    }
    g_autofree char *last = g_strdup_printf("%07zu\n", total / 8 - 1);
    g_assert_cmpmem(buf + have - 8, 8, last, 8);
    g_assert_cmpmem(buf, 8, "0000000\n", 8);
    /* The reader goes: the channel goes on. */
    close(out[0]);
    chan_write(c, "gone", 4);
    settle(f);
    chan_write(c, "gone", 4);
    wait_len(f, f->tap, total + 8);
    chan_close(c);
    close(out[1]);
    close(in);
}

static void test_file(Fixture *f, gconstpointer data)
{
    g_autofree char *path = g_build_filename(f->dir, "out", NULL);
    g_autofree char *spec = g_strconcat("file:", path, NULL);
    g_autofree char *text = NULL;
    int in = g_open(path, O_CREAT | O_RDONLY | O_CLOEXEC, 0600);

    for (int i = 0; i < 2; i++) {
        Chan *c = chan_open(spec, "serial", f->io, NULL);
        chan_write(c, "line\n", 5);
        chan_close(c);
    }
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "line\nline\n");
    /* A regular file as input is read to its end. */
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    Chan *c = open_fds(f, in, null);
    chan_attach(c, &ops, f);
    wait_len(f, f->got, 10);
    settle(f);
    g_assert_cmpstr(f->got->str, ==, "line\nline\n");
    chan_close(c);
    close(in);
    close(null);
    g_unlink(path);
}

static void test_pty(Fixture *f, gconstpointer data)
{
    g_autoptr(Chan) c = chan_open("pty", "serial", f->io, NULL);
    const char *prefix = "pty /dev/pts/";

    g_assert_true(g_str_has_prefix(chan_describe(c), prefix));
    chan_attach(c, &ops, f);
    g_assert_cmpint(f->ups, ==, 1);
    for (int i = 0; i < 2; i++) { /* come, go, come again */
        int fd = open(chan_describe(c) + 4, O_RDWR | O_NOCTTY | O_CLOEXEC);
        g_assert_cmpint(fd, >=, 0);
        chan_write(c, "login:\n", 7);
        expect(fd, "login:\n");
        g_assert_cmpint(write(fd, "root\r", 5), ==, 5);
        wait_len(f, f->got, 5u * (i + 1u));
        close(fd);
    }
    g_assert_cmpstr(f->got->str, ==, "root\rroot\r");
}

static int unix_connect(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(sa.sun_path, path, sizeof sa.sun_path);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&sa, sizeof sa), ==, 0);
    return fd;
}

static void test_unix(Fixture *f, gconstpointer data)
{
    g_autofree char *path = g_build_filename(f->dir, "sock", NULL);
    g_autofree char *spec = g_strconcat("unix:", path, ",server=on", NULL);
    g_autofree char *client = g_strconcat("unix:", path, ",server=off", NULL);
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    g_autoptr(GError) error = NULL;

    /* A stale socket of somebody who died. */
    int stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_strlcpy(sa.sun_path, path, sizeof sa.sun_path);
    g_assert_cmpint(bind(stale, (struct sockaddr *)&sa, sizeof sa), ==, 0);
    close(stale);

    Chan *c = chan_open(spec, "serial", f->io, &error);
    g_assert_no_error(error);
    chan_attach(c, &ops, f);
    g_assert_cmpint(f->ups, ==, 0);
    chan_write(c, "early ", 6);
    for (int i = 1; i <= 3; i++) {
        int fd = unix_connect(path);
        wait_int(f, &f->ups, i);
        chan_write(c, "hello", 5);
        expect(fd, i == 1 ? "early hello" : "hello");
        g_assert_cmpint(write(fd, "in", 2), ==, 2);
        wait_len(f, f->got, 2u * (unsigned)i);
        close(fd);
        wait_int(f, &f->downs, i);
    }
    g_assert_null(chan_open(spec, "serial", f->io, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
    Chan *d = chan_open(client, "other", f->io, &error);
    g_assert_no_error(error);
    chan_write(d, "from the client", 15);
    wait_len(f, f->got, 6 + 15);
    chan_close(d);
    chan_close(c);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    /* Not a socket: left alone. */
    g_assert_true(g_file_set_contents(path, "x", 1, NULL));
    g_assert_null(chan_open(spec, "serial", f->io, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_unlink(path);
}

static void test_tcp(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    Chan *c = chan_open("tcp::0", "serial", f->io, &error);

    g_assert_no_error(error);
    g_assert_true(g_str_has_prefix(chan_describe(c), "tcp:127.0.0.1:"));
    chan_attach(c, &ops, f);
    g_autofree char *spec = g_strdup(chan_describe(c));
    strcpy(strstr(spec, ",server=on"), ",server=o");
    g_autofree char *client = g_strconcat(spec, "ff", NULL);
    Chan *d = chan_open(client, "other", f->io, &error);
    g_assert_no_error(error);
    chan_write(d, "over tcp", 8);
    wait_len(f, f->got, 8);
    chan_close(d);
    wait_int(f, &f->downs, 1);
    chan_close(c);
}

static void test_refused(Fixture *f, gconstpointer data)
{
    static const char *const bad[] = {
        "", "stdi", "nonesuch", "file:", "file:/nonexistent/x", "unix:", "unix:/tmp/x,serve=on",
        "tcp:", "tcp:1234567", "tcp:localhost:99999", "fd:", "fd:x", "fd:1,2", "fd:987",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        Chan *c = chan_open(bad[i], "serial0", f->io, &error);
        g_assert_null(c);
        g_assert_nonnull(error);
        if (error->code != LODGE_ERROR_CONFIG || !strstr(error->message, "serial0"))
            g_error("'%s': %s", bad[i], error->message);
    }
}

static void count_key(Fixture *f, int *counter)
{
    g_mutex_lock(&f->mutex);
    (*counter)++;
    g_cond_broadcast(&f->cond);
    g_mutex_unlock(&f->mutex);
}

static void count_power(void *opaque)
{
    Fixture *f = opaque;

    count_key(f, &f->powers);
}

static void count_kill(void *opaque)
{
    Fixture *f = opaque;

    count_key(f, &f->kills);
}

static void count_reset(void *opaque)
{
    Fixture *f = opaque;

    count_key(f, &f->resets);
}

static const ConsoleOps console_ops = {count_power, count_kill, count_reset};

/* Run @fn with a new pseudo-terminal as standard input and output. */
static int open_terminal(int *ret_slave)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

    g_assert_cmpint(grantpt(master) | unlockpt(master), ==, 0);
    *ret_slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    g_assert_cmpint(*ret_slave, >=, 0);
    return master;
}

static void test_stdio_terminal(Fixture *f, gconstpointer data)
{
    int slave, master = open_terminal(&slave), in = dup(0), out = dup(1);
    struct termios before, raw, after;
    g_autoptr(GError) error = NULL;

    fflush(stdout);
    tcgetattr(slave, &before);
    int flags = fcntl(slave, F_GETFL);
    dup2(slave, 0);
    dup2(slave, 1);
    Chan *c = chan_open("stdio", "console", f->io, &error);
    Chan *second = chan_open("stdio", "second", f->io, NULL);
    bool terminal = c && chan_is_terminal(c);
    tcgetattr(slave, &raw);
    Console *con = console_new(c, &console_ops, f);
    /* No device takes input yet, and still the escape key works. */
    g_assert_cmpint(write(master, "\x1dp\x1dr\x1d", 5), ==, 5);
    wait_int(f, &f->resets, 1);
    g_assert_cmpint(write(master, "q\x1dz", 3), ==, 3);
    wait_int(f, &f->kills, 1);
    g_assert_cmpint(write(master, "a\x03\x1d\x1d" "b\x1d?", 7), ==, 7);
    chan_attach(c, &ops, f);
    wait_len(f, f->got, 4);
    expect(master, "\r\r\nCtrl-] q ");
    chan_write(c, "out", 3);
    settle(f);
    console_free(con);
    chan_close(c);
    dup2(in, 0);
    dup2(out, 1);
    close(in);
    close(out);
    tcgetattr(slave, &after);
    g_assert_true(terminal);
    g_assert_null(second);
    g_assert_cmpmem(f->got->str, f->got->len, "a\x03\x1d" "b", 4);
    g_assert_cmpint(f->powers, ==, 1);
    g_assert_cmpuint(raw.c_lflag & (ICANON | ECHO | ISIG), ==, 0);
    g_assert_cmpuint(after.c_lflag, ==, before.c_lflag);
    g_assert_cmpuint(after.c_iflag, ==, before.c_iflag);
    g_assert_cmpint(fcntl(slave, F_GETFL), ==, flags);
    close(slave);
    close(master);
}

/* A child with a terminal in raw mode ends by @data's signal, or by exit() for 0; the settings
 * come back. This program itself is the child, for a fork of threads would prove little. */
static void check_end(int sig)
{
    int slave, master = open_terminal(&slave), ready[2];
    struct termios before, raw, after;
    g_autofree char *text = g_strdup_printf("%d", sig);

    tcgetattr(slave, &before);
    g_assert_cmpint(pipe(ready), ==, 0);
    pid_t pid = fork();
    if (!pid) {
        (void)signal(sig ? sig : SIGTERM, SIG_DFL); /* under nohup it is ignored, and stays so */
        dup2(slave, 0);
        dup2(slave, 1);
        dup2(ready[1], 3);
        execl("/proc/self/exe", "test_chan", "--child", text, NULL);
        _exit(99);
    }
    close(ready[1]);
    expect(ready[0], "r");
    tcgetattr(slave, &raw);
    g_assert_cmpuint(raw.c_lflag & ICANON, ==, 0);
    int status;
    if (sig)
        kill(pid, sig);
    else
        g_assert_cmpint(write(master, "x", 1), ==, 1);
    if (sig == SIGTSTP) {
        g_assert_cmpint(waitpid(pid, &status, WUNTRACED), ==, pid);
        g_assert_true(WIFSTOPPED(status));
        tcgetattr(slave, &after);
        g_assert_cmpuint(after.c_lflag, ==, before.c_lflag);
        kill(pid, SIGCONT);
        do
            tcgetattr(slave, &raw); /* test's own timeout ends a hang */
        while (raw.c_lflag & ICANON);
        kill(pid, SIGTERM);
        sig = SIGTERM;
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    if (sig && sig != SIGSEGV) {
        g_assert_true(WIFSIGNALED(status));
        g_assert_cmpint(WTERMSIG(status), ==, sig);
    }
    tcgetattr(slave, &after);
    g_assert_cmpuint(after.c_lflag, ==, before.c_lflag);
    g_assert_cmpuint(after.c_iflag, ==, before.c_iflag);
    close(ready[0]);
    close(slave);
    close(master);
}

static void test_terminal_ends(void)
{
    static const int ends[] = {0, SIGTERM, SIGINT, SIGHUP, SIGABRT, SIGTSTP};

    for (size_t i = 0; i < G_N_ELEMENTS(ends); i++)
        check_end(ends[i]);
}

static int child_main(void)
{
    LodgeClock *clock = lodge_clock_new();
    IoThread *io = io_thread_new("chan", clock, NULL);
    Fixture f = {.got = g_string_new(NULL), .room = SIZE_MAX};
    Chan *c = chan_open("stdio", "console", io, NULL);

    chan_attach(c, &ops, &f);
    if (write(3, "r", 1) != 1)
        _exit(98);
    wait_len(&f, f.got, 1);
    exit(0); /* without closing anything */
}

static void test_log(Fixture *f, gconstpointer data)
{
    g_autofree char *path = g_build_filename(f->dir, "console.log", NULL);
    g_autofree char *old = g_strconcat(path, ".1", NULL);
    ConsoleLog *log = console_log_open(path, 4096, NULL);
    GStatBuf st;

    for (int i = 0; i < 1000; i++) {
        g_autofree char *line = g_strdup_printf("\x1b[1;31mline %d\x1b[0m\a\r\n", i);
        console_log_append(log, (const uint8_t *)line, strlen(line));
    }
    g_autofree char *tail = console_log_tail(log, 3);
    g_assert_cmpstr(tail, ==, "line 997\nline 998\nline 999\n");
    console_log_append(log, (const uint8_t *)"\x1b]0;title\x07" "half\xff\x1b[", 16);
    g_autofree char *more = console_log_tail(log, 2);
    g_assert_cmpstr(more, ==, "line 999\nhalf\xef\xbf\xbd");
    g_autofree char *all = console_log_tail(log, 100000);
    g_assert_cmpuint(strlen(all), >, 1000);
    g_autofree char *zero = console_log_tail(log, 0);
    g_assert_cmpstr(zero, ==, "");
    console_log_close(log);
    g_assert_cmpint(g_stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, <=, 4096);
    g_assert_cmpint(g_stat(old, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 4096);
    g_unlink(path);
    g_unlink(old);
    g_assert_null(console_log_open("/nonexistent/x", 4096, NULL));
    g_autoptr(ConsoleLog) memory = console_log_open(NULL, 4096, NULL);
    console_log_append(memory, (const uint8_t *)"a\nb", 3);
    g_autofree char *b = console_log_tail(memory, 1);
    g_assert_cmpstr(b, ==, "b");
}

static bool is_raw(int fd)
{
    struct termios mode;

    g_assert_cmpint(tcgetattr(fd, &mode), ==, 0);
    return !(mode.c_lflag & (ICANON | ECHO | ISIG));
}

/* Terminals by their path and by a descriptor, several at once: all are raw, and put back. */
static void test_terminals(Fixture *f, gconstpointer data)
{
    int slave[2], master[2];
    Chan *c[2];

    f->room = 100;
    for (unsigned i = 0; i < 2; i++) {
        master[i] = open_terminal(&slave[i]);
        g_assert_false(is_raw(slave[i]));
    }
    g_autofree char *path = g_strdup_printf("tty:%s", ttyname(slave[0]));
    g_autofree char *fd = g_strdup_printf("fd:%d", slave[1]);
    g_autoptr(GError) error = NULL;
    c[0] = chan_open(path, "con1", f->io, &error);
    g_assert_no_error(error);
    c[1] = chan_open(fd, "con2", f->io, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(chan_describe(c[0]), ==, path);
    g_assert_true(is_raw(slave[0]) && is_raw(slave[1]));
    for (unsigned i = 0; i < 2; i++) {
        chan_attach(c[i], &ops, f);
        g_assert_true(chan_is_terminal(c[i]));
        chan_write(c[i], "out", 3);
        expect(master[i], "out");
        g_assert_cmpint(write(master[i], "in", 2), ==, 2);
        wait_len(f, f->got, 2 * (i + 1));
    }
    for (unsigned i = 0; i < 2; i++)
        chan_close(c[i]);
    for (unsigned i = 0; i < 2; i++) {
        g_assert_false(is_raw(slave[i]));
        close(slave[i]);
        close(master[i]);
    }
    g_assert_null(chan_open("tty:/dev/null", "con1", f->io, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    g_assert_null(chan_open("tty:/no/such", "con1", f->io, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*fn)(Fixture *f, gconstpointer data);
    } tests[] = {
        {"/chan/none", test_none},           {"/chan/pipe/input", test_pipe_input},
        {"/chan/pipe/full", test_pipe_full}, {"/chan/file", test_file},
        {"/chan/pty", test_pty},             {"/chan/unix", test_unix},
        {"/chan/tcp", test_tcp},             {"/chan/refused", test_refused},
        {"/chan/stdio", test_stdio_terminal}, {"/chan/log", test_log},
        {"/chan/terminals", test_terminals},
    };

    if (argc > 1 && !strcmp(argv[1], "--child"))
        return child_main();
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, Fixture, NULL, setup, tests[i].fn, teardown);
    g_test_add_func("/chan/terminal-ends", test_terminal_ends);
    return g_test_run();
}
