/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands and files by a guest's console, against shells of this host on a pseudo-terminal, behind a
 * script that asks for a login as getty does; with a kernel that speaks in between, and with answers
 * that none gives.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"

#include "agent_exec.h"
#include "agent_file.h"
#include "console_agent.h"
#include "ran.h"

#define SECONDS(n) (g_get_monotonic_time() + (n) * G_TIME_SPAN_SECOND)

typedef struct Setting {
    const char *shell;    /* NULL: the guest says nothing but what `says` is */
    const char *password; /* NULL: none is asked for */
    bool bare;            /* no login */
    size_t lost;          /* of what is typed, so many bytes at the beginning */
    size_t noise;         /* the kernel says something after so many bytes; 0: never */
    const char *says;
} Setting;

typedef struct Guest {
    const Setting *setting;
    pid_t pid;   /* -1: none */
    int tty;     /* the terminal's other end; -1: none */
    int wire;    /* our end of the console */
    int given;   /* the one for the client; -1: taken */
    int stop[2];
    GThread *thread;
    GMutex mutex;
    GString *said; /* of the guest, so far; guarded by mutex */
    char *dir;
} Guest;

static const char getty[] =
    "trap '' INT; while :; do stty sane; printf '\\nhost login: '; read -r u || exit; u=${u#?}; "
    "[ \"$u\" ] || continue; [ \"$1\" ] && { stty -echo; printf 'Password: '; read -r p; "
    "stty echo; echo; }; if [ \"$u\" = oot ] && { [ -z \"$1\" ] || [ \"$p\" = \"$1\" ]; }; then "
    "echo 'Last login: today'; $2; echo \"left by $?\"; else echo 'Login incorrect'; fi; done";

/* ---- the wire between the terminal and the client ---- */

static void put_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};
            poll(&p, 1, 1000);
        } else if (n <= 0) {
            return;
        }
        data += MAX(n, 0);
        len -= (size_t)MAX(n, 0);
    }
}

static gpointer carry(gpointer opaque)
{
    Guest *g = opaque;
    size_t noise = g->setting->noise, left = noise, lost = g->setting->lost;
    char data[512];
    for (;;) {
        struct pollfd p[3] = {{g->tty, POLLIN, 0}, {g->wire, POLLIN, 0}, {g->stop[0], POLLIN, 0}};
        if (poll(p, 3, -1) < 0)
            continue;
        if (p[2].revents)
            return NULL;
        if (p[0].revents) {
            ssize_t n = read(g->tty, data, noise ? MIN(left, sizeof data) : sizeof data);
            if (n <= 0)
                return NULL;
            g_mutex_lock(&g->mutex);
            g_string_append_len(g->said, data, n);
            g_mutex_unlock(&g->mutex);
            put_all(g->wire, data, (size_t)n);
            left -= noise ? (size_t)n : 0;
            if (noise && !left) {
                static const char text[] = "[    7.0] eth0: <link> is up: 1>\r\n";
                put_all(g->wire, text, sizeof text - 1);
                left = noise;
            }
        }
        if (p[1].revents) {
            ssize_t n = read(g->wire, data, sizeof data);
            if (n <= 0)
                return NULL;
            size_t skip = MIN(lost, (size_t)n);
            put_all(g->tty, data + skip, (size_t)n - skip);
            lost -= skip;
        }
    }
}

static void set_up(Guest *g, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    int pair[2];
    g->setting = data;
    g->pid = g->tty = -1;
    g_mutex_init(&g->mutex);
    g->said = g_string_new(NULL);
    g->dir = g_dir_make_tmp("lodge-console-XXXXXX", &error);
    g_assert_no_error(error);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_assert_cmpint(pipe2(g->stop, O_CLOEXEC), ==, 0);
    g->wire = pair[0];
    g->given = pair[1];
    if (!g->setting->shell) {
        put_all(g->wire, g->setting->says, strlen(g->setting->says));
        return;
    }
    g->pid = forkpty(&g->tty, NULL, NULL, NULL);
    g_assert_cmpint(g->pid, >=, 0);
    if (!g->pid) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv("PS1", "# ", 1);
        if (g->setting->bare)
            execl("/bin/sh", "sh", "-c", g->setting->shell, NULL);
        else
            execl("/bin/sh", "sh", "-c", getty, "getty",
                  g->setting->password ? g->setting->password : "", g->setting->shell, NULL);
        _exit(1);
    }
    g->thread = g_thread_new("wire", carry, g);
}

static void tear_down(Guest *g, gconstpointer data)
{
    g_assert_cmpint(write(g->stop[1], "", 1), ==, 1);
    if (g->thread)
        g_thread_join(g->thread);
    if (g->pid > 0) {
        close(g->tty);
        kill(g->pid, SIGKILL);
        waitpid(g->pid, NULL, 0);
    }
    if (g->given >= 0)
        close(g->given);
    close(g->wire);
    close(g->stop[0]);
    close(g->stop[1]);
    g_string_free(g->said, TRUE);
    g_mutex_clear(&g->mutex);
    g_autofree char *line = g_strdup_printf("rm -rf '%s'", g->dir);
    g_assert_cmpint(system(line), ==, 0);
    g_free(g->dir);
}

static int join(void *opaque, int64_t deadline, GError **error)
{
    Guest *g = opaque;
    int fd = g->given;
    if (fd < 0)
        lodge_fail(error, LODGE_ERROR_BUSY, "somebody types");
    g->given = -1;
    return fd;
}

static Agent *agent_of(Guest *g, const ConsoleLogin *login)
{
    g_autoptr(GError) error = NULL;
    Agent *a = console_agent_new(console_shell_new("vm", login, join, g), &error);
    g_assert_no_error(error);
    return a;
}

static ConsoleLogin login_of(const Guest *g)
{
    return (ConsoleLogin){.password = g->setting->password, .any = g->setting->bare};
}

/* Whether the guest says @text within some seconds. */
static bool says(Guest *g, const char *text)
{
    for (int64_t until = SECONDS(20); g_get_monotonic_time() < until; g_usleep(10000)) {
        g_mutex_lock(&g->mutex);
        bool is = strstr(g->said->str, text);
        g_mutex_unlock(&g->mutex);
        if (is)
            return true;
    }
    return false;
}

static Ran run(Guest *g, Agent *a, AgentCommand c, const char *line)
{
    return ran_line(a, g->dir, c, 120, line);
}

/* ---- commands ---- */

/* Its own end of the login is the last that it sees of us, and nothing of ours stays in /tmp. */
static void assert_left(Guest *g)
{
    if (!g->setting->bare)
        g_assert_true(says(g, "left by 0"));
}

static void test_exec(Guest *g, gconstpointer data)
{
    static const struct {
        const char *line, *out, *err;
        int status;
    } cases[] = {
        {"echo out; echo err >&2; exit 7", "out\n", "err\n", 7},
        {"printf 'a\\0b\\n' | od -An -c | tr -d ' '", "a\\0b\\n\n", "", 0},
        {"kill -9 $$", "", "", 137},
        {"cat; echo \"it's $HOME\" | tr -d /a-z", "' \n", "", 0},
        {"sleep 0.3; echo late; sleep 0.3; echo later", "late\nlater\n", "", 0},
        {"exec /no/such", "", NULL, 127},
    };
    ConsoleLogin login = login_of(g);
    Agent *a = agent_of(g, &login);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(Ran) r = run(g, a, (AgentCommand){0}, cases[i].line);
        g_assert_no_error(r.error);
        g_assert_cmpstr(r.out, ==, cases[i].out);
        if (cases[i].err)
            g_assert_cmpstr(r.err, ==, cases[i].err);
        g_assert_cmpint(r.end.status, ==, cases[i].status);
    }
    agent_free(a);
    assert_left(g);
}

/* More than an answer holds, both ways. */
static void test_streams(Guest *g, gconstpointer data)
{
    ConsoleLogin login = login_of(g);
    g_autoptr(Agent) a = agent_of(g, &login);
    g_autofree char *big = g_build_filename(g->dir, "big", NULL);
    g_autofree char *bytes = g_malloc(30000);
    for (unsigned i = 0; i < 30000; i++)
        bytes[i] = (char)(i * 7 + i / 256);
    g_assert_true(g_file_set_contents(big, bytes, 30000, NULL));
    int fd = open(big, O_RDONLY | O_CLOEXEC);
    g_auto(Ran) back = run(g, a, (AgentCommand){.in_fd = fd}, "cat; echo end >&2");
    close(fd);
    g_assert_no_error(back.error);
    g_assert_cmpmem(back.out, back.out_len, bytes, 30000);
    g_assert_cmpstr(back.err, ==, "end\n");
    g_auto(Ran) much = run(g, a, (AgentCommand){0}, "head -c 200000 /dev/zero; exit 3");
    g_assert_no_error(much.error);
    g_assert_cmpuint(much.out_len, ==, 200000);
    g_assert_cmpint(much.end.status, ==, 3);
}

static void test_ends(Guest *g, gconstpointer data)
{
    ConsoleLogin login = login_of(g);
    g_autoptr(Agent) a = agent_of(g, &login);
    g_autoptr(GError) error = NULL;
    g_assert_true(agent_reach(a, SECONDS(60), &error));
    g_auto(Ran) late = run(g, a, (AgentCommand){.deadline = g_get_monotonic_time() + 500000},
                           "echo begun; sleep 1000; echo no");
    g_assert_no_error(late.error);
    g_assert_true(late.end.timed_out);
    g_assert_cmpstr(late.out, ==, "begun\n");
}

static void test_files(Guest *g, gconstpointer data)
{
    ConsoleLogin login = login_of(g);
    g_autoptr(Agent) a = agent_of(g, &login);
    g_autoptr(GError) error = NULL;
    g_autofree char *from = g_build_filename(g->dir, "from", NULL);
    g_autofree char *there = g_build_filename(g->dir, "the re's", NULL);
    g_autofree char *back = g_build_filename(g->dir, "back", NULL), *got = NULL;
    static const char text[] = "begin\0\1\377";
    AgentCopy c = {0};
    unsigned mode = 0;
    gsize len;
    int fd = open(from, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_cmpint(write(fd, text, sizeof text), ==, sizeof text);
    g_assert_cmpint(pwrite(fd, "end", 3, 600001), ==, 3); /* with a hole of a piece and more */
    lseek(fd, 0, SEEK_SET);
    g_assert_true(agent_put_file(a, fd, there, "from", 0640, &c, &error));
    close(fd);
    fd = open(back, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_true(agent_get_file(a, there, fd, &mode, &c, &error));
    close(fd);
    g_assert_no_error(error);
    g_assert_cmpuint(mode, ==, 0640);
    g_assert_true(g_file_get_contents(back, &got, &len, NULL));
    g_assert_cmpuint(len, ==, 600004);
    g_assert_cmpmem(got, sizeof text, text, sizeof text);
    g_assert_cmpmem(got + 600000, 4, "\0end", 4);
    g_assert_false(agent_get_file(a, "/no/such", 1, &mode, &c, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_assert_nonnull(strstr(error->message, "o such file"));
}

/* ---- who is not let in ---- */

static void assert_fails(Guest *g, const ConsoleLogin *login, int seconds, int code, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Agent) a = agent_of(g, login);
    g_assert_false(agent_reach(a, SECONDS(seconds), &error));
    g_assert_error(error, LODGE_ERROR, code);
    if (!strstr(error->message, text))
        g_error("\"%s\" without \"%s\"", error->message, text);
}

static void test_no_password(Guest *g, gconstpointer data)
{
    assert_fails(g, &(ConsoleLogin){0}, 20, LODGE_ERROR_CONFIG, "asks for the password of root");
}

static void test_wrong_password(Guest *g, gconstpointer data)
{
    assert_fails(g, &(ConsoleLogin){.password = "x"}, 20, LODGE_ERROR_CONFIG,
                 "does not let root log in");
}

static void test_wrong_user(Guest *g, gconstpointer data)
{
    assert_fails(g, &(ConsoleLogin){.user = "nobody", .password = "secret"}, 20, LODGE_ERROR_CONFIG,
                 "does not let nobody log in");
}

/* A prompt where nobody asked us to type is left alone. */
static void test_logged_in(Guest *g, gconstpointer data)
{
    g_assert_true(says(g, "# "));
    assert_fails(g, &(ConsoleLogin){0}, 3, LODGE_ERROR_BUSY,
                 "somebody is logged in on its console; --via console uses that shell");
    g_mutex_lock(&g->mutex);
    g_assert_null(strstr(g->said->str, "echo"));
    g_mutex_unlock(&g->mutex);
}

static void test_silent(Guest *g, gconstpointer data)
{
    assert_fails(g, &(ConsoleLogin){0}, 2, LODGE_ERROR_BUSY, "there is no login prompt");
}

static void test_no_answer(Guest *g, gconstpointer data)
{
    assert_fails(g, &(ConsoleLogin){.any = true}, 5, LODGE_ERROR_BUSY,
                 "neither a login prompt nor a shell answers");
}

static void test_gone(Guest *g, gconstpointer data)
{
    shutdown(g->wire, SHUT_RDWR);
    assert_fails(g, &(ConsoleLogin){0}, 20, LODGE_ERROR_STATE, "the connection to its console ended");
}

static void test_lacks(Guest *g, gconstpointer data)
{
    assert_fails(g, &(ConsoleLogin){0}, 20, LODGE_ERROR_UNSUPPORTED,
                 "what goes by the console needs base64 md5sum dd head cat rm mkdir wc in the guest");
}

/* Any key ends what one of us has left behind. */
static void test_left_behind(Guest *g, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    ConsoleLogin login = login_of(g);
    ConsoleShell *s = console_shell_new("vm", &login, join, g);
    g_assert_true(console_shell_reach(s, SECONDS(20), &error));
    put_all(g->tty, "\r", 1);
    g_assert_true(says(g, "left by 0"));
    console_shell_free(s);
}

/* The beginning of what was typed was lost, up to the middle of a word. */
static void test_cut(Guest *g, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    ConsoleLogin login = login_of(g);
    ConsoleShell *s = console_shell_new("vm", &login, join, g);
    g_assert_true(console_shell_reach(s, SECONDS(20), &error));
    console_shell_free(s);
}

/* ---- the words ---- */

static void test_look(void)
{
    static const struct {
        const char *text;
        ConsoleSeen seen;
    } cases[] = {
        {"Debian 12\r\n\r\nhost login: ", CONSOLE_LOGIN},
        {"\033[32mhost\033[0m login:", CONSOLE_LOGIN},
        {"host login: root", CONSOLE_OTHER},
        {"host login: \r\n[  1.0] random: crng init done\r\n", CONSOLE_OTHER},
        {"Password: ", CONSOLE_PASSWORD},
        {"root's password for host:", CONSOLE_PASSWORD},
        {"\033[?2004hroot@host:~# ", CONSOLE_PROMPT},
        {"/ $ \033[6n", CONSOLE_PROMPT},
        {"Last login: Sun Nov 22", CONSOLE_OTHER},
        {"", CONSOLE_OTHER},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
        g_assert_cmpint(console_shell_look(cases[i].text, strlen(cases[i].text)), ==, cases[i].seen);
}

static void test_take(void)
{
    static const struct {
        const char *text;
        ConsoleFrame is;
        const char *left, *data;
        int status;
    } cases[] = {
        {"", CONSOLE_FRAME_NONE, "", "", 0},
        {"abc T<6<aA==:0:x>", CONSOLE_FRAME_NONE, NULL, "", 0},
        {"T<7<aGk=", CONSOLE_FRAME_NONE, NULL, "", 0},
        {"junk T<7<aG\r\nk=\r\n:3:49f68a5c8493ec2c0bf489821c21fc3b>rest", CONSOLE_FRAME_GOOD, "rest",
         "hi", 3},
        {"T<7<:0:d41d8cd98f00b204e9800998ecf8427e>", CONSOLE_FRAME_GOOD, "", "", 0},
        {"T<7<aGk=[ 1.0] noise:3:49f68a5c8493ec2c0bf489821c21fc3b>x", CONSOLE_FRAME_BAD, "x", "", 0},
        {"T<7<aGk=:3:49f68a5c8493ec2c0bf489821c21fc3c>", CONSOLE_FRAME_BAD, "", "", 0},
        {"T<7<:>", CONSOLE_FRAME_BAD, "", "", 0},
        {"T<7<:::::>", CONSOLE_FRAME_BAD, "", "", 0},
        {"T<7<aGk=:x:49f68a5c8493ec2c0bf489821c21fc3b>", CONSOLE_FRAME_BAD, "", "", 0},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) data = g_byte_array_new();
        GString *in = g_string_new(cases[i].text);
        int status = 0;
        g_assert_cmpint(console_shell_take(in, "T<7<", &status, data), ==, cases[i].is);
        g_assert_cmpstr(in->str, ==, cases[i].left ? cases[i].left : cases[i].text);
        g_assert_cmpmem(data->data, data->len, cases[i].data, strlen(cases[i].data));
        g_assert_cmpint(status, ==, cases[i].status);
        g_string_free(in, TRUE);
    }
    g_autoptr(GByteArray) data = g_byte_array_new();
    g_autofree char *much = g_strnfill(100000, 'A');
    GString *in = g_string_new("T<7<");
    int status;
    g_string_append(in, much);
    g_assert_cmpint(console_shell_take(in, "T<7<", &status, data), ==, CONSOLE_FRAME_BAD);
    g_string_free(in, TRUE);
}

int main(int argc, char **argv)
{
    static const Setting dash = {.shell = "sh -i"},
                         secret = {.shell = "bash --norc --noprofile -i", .password = "secret"},
                         bare = {.shell = "while :; do bash --norc --noprofile -i; done", .bare = true},
                         cut = {.shell = "bash --norc --noprofile -i", .bare = true, .lost = 9},
                         busybox = {.shell = "busybox sh -i", .noise = 1500},
                         lacks = {.shell = "env PATH=/no/such PS1=# /bin/sh -i"},
                         silent = {.says = "Booting...\r\n"};
    static const struct {
        const char *name;
        const Setting *setting;
        void (*test)(Guest *, gconstpointer);
    } cases[] = {
        {"/exec/login", &dash, test_exec},
        {"/exec/password", &secret, test_exec},
        {"/exec/bare", &bare, test_exec},
        {"/exec/noise", &busybox, test_exec},
        {"/exec/streams", &dash, test_streams},
        {"/exec/ends", &dash, test_ends},
        {"/files", &dash, test_files},
        {"/login/no-password", &secret, test_no_password},
        {"/login/wrong-password", &secret, test_wrong_password},
        {"/login/wrong-user", &secret, test_wrong_user},
        {"/login/logged-in", &bare, test_logged_in},
        {"/login/silent", &silent, test_silent},
        {"/login/no-answer", &silent, test_no_answer},
        {"/login/gone", &silent, test_gone},
        {"/login/lacks", &lacks, test_lacks},
        {"/login/left-behind", &dash, test_left_behind},
        {"/login/cut", &cut, test_cut},
    };
    g_autofree char *busybox_path = g_find_program_in_path("busybox");

    signal(SIGPIPE, SIG_IGN);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/console-shell/look", test_look);
    g_test_add_func("/console-shell/take", test_take);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *name = g_strconcat("/console-shell", cases[i].name, NULL);
        if (cases[i].setting != &busybox || busybox_path)
            g_test_add(name, Guest, cases[i].setting, set_up, cases[i].test, tear_down);
    }
    return g_test_run();
}
