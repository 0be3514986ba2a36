/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client of the guest agent and the port that clients share, against an agent that plays the
 * guest: well, late, with what it owes others, or with what no agent says. Where the distribution's
 * qemu-ga is installed, commands and files go through that, in this host's own /bin/sh.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/error.h"

#include "agent.h"
#include "agent_exec.h"
#include "agent_file.h"
#include "agent_port.h"
#include "ran.h"

#define SECONDS(n) (g_get_monotonic_time() + (n) * G_TIME_SPAN_SECOND)
#define MEGABYTE (1024u * 1024u)

typedef enum Guest {
    GUEST_GOOD,
    GUEST_SILENT,
    GUEST_GARBAGE,  /* before it answers a synchronisation */
    GUEST_OWES,     /* answers to others' questions come first */
    GUEST_HALF,     /* an answer stops in the middle */
    GUEST_ENDLESS,  /* an answer has no end */
    GUEST_NONSENSE, /* an answer is a value that is none */
    GUEST_REFUSES,
    GUEST_HANGS_UP,
} Guest;

typedef struct Fixture {
    int guest;        /* the guest's end of the port */
    Guest plays;
    GThread *thread, *loop_thread;
    GMainLoop *loop;
    AgentPort *port;  /* the loop's thread */
    unsigned pings;   /* that the guest saw whole; its thread */
    GPid qemu;        /* 0: none */
    char *dir;        /* owned, or NULL */
} Fixture;

/* ---- the guest ---- */

static void say(Fixture *f, const char *data, size_t len)
{
    while (len) {
        ssize_t n = send(f->guest, data, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        data += n;
        len -= (size_t)n;
    }
}

static void say_text(Fixture *f, const char *text)
{
    say(f, text, strlen(text));
}

static void answer_sync(Fixture *f, const char *line)
{
    g_autofree char *number = g_strdup(strstr(line, "\"id\": ") + 6);
    number[strspn(number, "0123456789")] = '\0';
    g_autofree char *text = g_strdup_printf("\xff{\"return\": %s}\n", number);
    g_autofree char *junk = g_malloc(MEGABYTE);
    memset(junk, '[', MEGABYTE);
    if (f->plays == GUEST_SILENT)
        return;
    if (f->plays == GUEST_GARBAGE) {
        say(f, junk, MEGABYTE);
        say_text(f, "\xff{\"return\": \xff\xff}}]\"\xff{\"return\": \"1\"}\xff");
    }
    if (f->plays == GUEST_OWES)
        say_text(f, "{\"return\": {\"pid\": 7}}\n\xff{\"return\": 12}\n{\"return\": {}}\n");
    say_text(f, text);
}

static void answer_ping(Fixture *f)
{
    g_autofree char *junk = g_malloc(2 * MEGABYTE);
    memset(junk, 'x', 2 * MEGABYTE);
    f->pings++;
    switch (f->plays) {
    case GUEST_HALF:
        say_text(f, "{\"return\": {\"a");
        break;
    case GUEST_ENDLESS:
        say_text(f, "{\"return\": \"");
        say(f, junk, 2 * MEGABYTE);
        break;
    case GUEST_NONSENSE:
        say_text(f, "[{\"return\": {}}]\n");
        break;
    case GUEST_REFUSES:
        say_text(f, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not today\"}}\n");
        break;
    case GUEST_HANGS_UP:
        shutdown(f->guest, SHUT_RDWR);
        break;
    default:
        say_text(f, "{\"return\": {}}\n");
    }
}

static gpointer play(gpointer opaque)
{
    Fixture *f = opaque;
    g_autoptr(GString) in = g_string_new(NULL);
    char data[4096];
    ssize_t n;
    while ((n = recv(f->guest, data, sizeof data, 0)) > 0) {
        g_string_append_len(in, data, n);
        for (char *end; (end = memchr(in->str, '\n', in->len));) {
            g_autofree char *line = g_strndup(in->str, (gsize)(end - in->str));
            char *mark = strrchr(line, '\xff'), *whole = mark ? mark + 1 : line;
            if (strstr(whole, "\"guest-sync-delimited\""))
                answer_sync(f, whole);
            else if (strstr(whole, "\"guest-ping\""))
                answer_ping(f);
            g_string_erase(in, 0, end - in->str + 1);
        }
    }
    return NULL;
}

/* ---- the machine ---- */

static gpointer run_loop(gpointer opaque)
{
    g_main_loop_run(((Fixture *)opaque)->loop);
    return NULL;
}

typedef struct Call {
    Fixture *f;
    int fd;
    bool ok, done;
    GError *error;
    GMutex mutex;
    GCond cond;
} Call;

static void done(Call *call)
{
    g_mutex_lock(&call->mutex);
    call->done = true;
    g_cond_signal(&call->cond);
    g_mutex_unlock(&call->mutex);
}

static gboolean add_on_loop(gpointer opaque)
{
    Call *call = opaque;
    call->ok = agent_port_add(call->f->port, call->fd, &call->error);
    done(call);
    return G_SOURCE_REMOVE;
}

static gboolean new_on_loop(gpointer opaque)
{
    Call *call = opaque;
    call->f->port = agent_port_new(call->fd);
    done(call);
    return G_SOURCE_REMOVE;
}

static gboolean free_on_loop(gpointer opaque)
{
    Call *call = opaque;
    g_clear_pointer(&call->f->port, agent_port_free);
    done(call);
    return G_SOURCE_REMOVE;
}

static void on_loop(Fixture *f, GSourceFunc fn, Call *call)
{
    call->f = f;
    g_mutex_init(&call->mutex);
    g_cond_init(&call->cond);
    g_idle_add_full(G_PRIORITY_DEFAULT, fn, call, NULL);
    g_mutex_lock(&call->mutex);
    while (!call->done)
        g_cond_wait(&call->cond, &call->mutex);
    g_mutex_unlock(&call->mutex);
    g_mutex_clear(&call->mutex);
    g_cond_clear(&call->cond);
}

static int join(void *opaque, int64_t deadline, GError **error)
{
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    Call call = {.fd = pair[1]};
    on_loop(opaque, add_on_loop, &call);
    if (call.ok)
        return pair[0];
    close(pair[0]);
    g_propagate_error(error, call.error);
    return -1;
}

static void set_up_port(Fixture *f, int fd)
{
    Call call = {.fd = fd};
    f->loop = g_main_loop_new(NULL, FALSE);
    f->loop_thread = g_thread_new("loop", run_loop, f);
    on_loop(f, new_on_loop, &call);
}

static void set_up(Fixture *f, gconstpointer data)
{
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    f->plays = (Guest)GPOINTER_TO_INT(data);
    f->guest = pair[0];
    f->thread = g_thread_new("guest", play, f);
    set_up_port(f, pair[1]);
}

static void free_port(Fixture *f)
{
    Call call = {0};
    on_loop(f, free_on_loop, &call);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    free_port(f);
    g_main_loop_quit(f->loop);
    g_thread_join(f->loop_thread);
    g_main_loop_unref(f->loop);
    if (f->thread) {
        shutdown(f->guest, SHUT_RDWR);
        g_thread_join(f->thread);
        close(f->guest);
    }
}

static Agent *agent_of(Fixture *f)
{
    g_autoptr(GError) error = NULL;
    Agent *a = agent_new("vm", join, f, &error);
    g_assert_no_error(error);
    return a;
}

static bool ping(Agent *a, int64_t deadline, GError **error)
{
    return agent_call(a, agent_begin("guest-ping"), deadline, error).node;
}

static void assert_pings(Fixture *f)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Agent) a = agent_of(f);
    ping(a, SECONDS(20), &error);
    g_assert_no_error(error);
}

static void assert_fails(Fixture *f, int64_t deadline, int code, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Agent) a = agent_of(f);
    g_assert_false(ping(a, deadline, &error));
    g_assert_error(error, LODGE_ERROR, code);
    g_assert_nonnull(strstr(error->message, text));
}

/* ---- what it says ---- */

static void test_answers(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Agent) a = agent_of(f);
    for (int i = 0; i < 4; i++) {
        ping(a, SECONDS(20), &error);
        g_assert_no_error(error);
        if (i & 1)
            agent_rest(a);
    }
    agent_rest(a);
    assert_pings(f);
    g_assert_cmpuint(f->pings, ==, 5);
}

/* A command is not sent to one that does not answer: it would be carried out when it starts. */
static void test_silent(Fixture *f, gconstpointer data)
{
    assert_fails(f, SECONDS(1), LODGE_ERROR_BUSY, "vm: no guest agent answers; the guest needs");
    f->plays = GUEST_GOOD;
    assert_pings(f);
    g_assert_cmpuint(f->pings, ==, 1);
}

static void test_half(Fixture *f, gconstpointer data)
{
    assert_fails(f, SECONDS(1), LODGE_ERROR_BUSY, "vm: the guest agent does not answer any more");
    f->plays = GUEST_GOOD; /* as after its restart; the rest of the old answer never comes */
    assert_pings(f);
}

static void test_nonsense(Fixture *f, gconstpointer data)
{
    assert_fails(f, SECONDS(20), LODGE_ERROR_HOST, "vm: its guest agent answers nonsense");
    f->plays = GUEST_GOOD;
    assert_pings(f);
}

static void test_refuses(Fixture *f, gconstpointer data)
{
    assert_fails(f, SECONDS(20), LODGE_ERROR_HOST, "vm: guest agent: not today");
}

static void test_hangs_up(Fixture *f, gconstpointer data)
{
    assert_fails(f, SECONDS(20), LODGE_ERROR_STATE, "vm: the connection to its guest agent ended");
    assert_fails(f, SECONDS(20), LODGE_ERROR_STATE, "start it with --agent on");
}

/* ---- turns ---- */

static void await_turn(int fd)
{
    char byte;
    g_assert_cmpint(recv(fd, &byte, 1, 0), ==, 1);
    g_assert_cmpint(byte, ==, AGENT_TURN);
}

/* One dies with half a command said, and one that waits dies before its turn. */
static void test_client_dies(Fixture *f, gconstpointer data)
{
    static const char half[] = "{\"execute\": \"guest-pi";
    int first = join(f, SECONDS(5), NULL), waiting = join(f, SECONDS(5), NULL);
    await_turn(first);
    g_assert_cmpint(send(first, half, strlen(half), 0), ==, (ssize_t)strlen(half));
    close(waiting);
    close(first);
    assert_pings(f);
    g_assert_cmpuint(f->pings, ==, 1);
}

/* A guest that takes nothing does not keep a client's end from being seen. */
static void test_client_dies_stuck(Fixture *f, gconstpointer data)
{
    g_autofree char *junk = g_malloc0(4 * MEGABYTE);
    int pair[2], first;
    free_port(f);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    Call call = {.fd = pair[1]};
    on_loop(f, new_on_loop, &call);
    first = join(f, SECONDS(5), NULL);
    await_turn(first);
    struct timeval soon = {.tv_usec = 200000};
    setsockopt(first, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
    while (send(first, junk, MEGABYTE, MSG_NOSIGNAL) > 0)
        continue; /* until it would have to wait */
    int second = join(f, SECONDS(5), NULL);
    close(first);
    await_turn(second);
    close(second);
    close(pair[0]);
}

static gpointer many(gpointer opaque)
{
    for (int i = 0; i < 5; i++)
        assert_pings(opaque);
    return NULL;
}

static void test_many(Fixture *f, gconstpointer data)
{
    GThread *threads[10];
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("client", many, f);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        g_thread_join(threads[i]);
    g_assert_cmpuint(f->pings, ==, 50);
}

static void test_too_many(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    int fds[65], turn = join(f, SECONDS(5), NULL);
    for (unsigned i = 0; i < 64; i++)
        g_assert_cmpint(fds[i] = join(f, SECONDS(5), NULL), >=, 0);
    g_assert_cmpint(join(f, SECONDS(5), &error), ==, -1);
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    close(fds[3]); /* one that waits no more makes room */
    g_assert_cmpint(fds[3] = join(f, SECONDS(5), NULL), >=, 0);
    close(turn);
    for (unsigned i = 0; i < 64; i++)
        close(fds[i]);
    assert_pings(f);
}

static void test_no_turn(Fixture *f, gconstpointer data)
{
    int turn = join(f, SECONDS(5), NULL);
    assert_fails(f, SECONDS(1), LODGE_ERROR_BUSY, "another client does not let go");
    close(turn);
    assert_pings(f);
}

/* ---- what of a command's line is refused ---- */

static void test_check(void)
{
    static const struct {
        const char *word, *user, *env, *text;
    } cases[] = {
        {"\xc3\x28", NULL, NULL, "no UTF-8"},
        {"true", "x;reboot", NULL, "--user: \"x;reboot\": not the name of a user"},
        {"true", "", NULL, "--user"},
        {"true", "-x", NULL, "--user"},
        {"true", NULL, "A", "--env: \"A\": write NAME=VALUE"},
        {"true", NULL, "1A=2", "--env"},
        {"true", NULL, "A B=2", "--env"},
        {"true", NULL, "A=\xff", "no UTF-8"},
        {NULL, NULL, NULL, "more than 131072 bytes"},
        {"true", "www-data", "A_1=x y", NULL},
    };
    g_autofree char *long_word = g_strnfill(131073, 'x');
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        const char *argv[] = {cases[i].word ? cases[i].word : long_word, NULL};
        const char *env[] = {cases[i].env, NULL};
        AgentCommand c = {.argv = argv, .user = cases[i].user, .env = env};
        g_assert_cmpint(agent_command_check(&c, &error), ==, !cases[i].text);
        if (cases[i].text) {
            g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
            g_assert_nonnull(strstr(error->message, cases[i].text));
        }
    }
}

/* ---- the distribution's agent ---- */

static void die_with_parent(gpointer opaque)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

static void set_up_qemu(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    g_autofree char *program = g_find_program_in_path("qemu-ga");
    if (!program && g_file_test("/usr/sbin/qemu-ga", G_FILE_TEST_IS_EXECUTABLE))
        program = g_strdup("/usr/sbin/qemu-ga");
    f->dir = g_dir_make_tmp("lodge-agent-XXXXXX", &error);
    g_assert_no_error(error);
    g_snprintf(at.sun_path, sizeof at.sun_path, "%s/s", f->dir);
    if (program) {
        const char *argv[] = {program, "-m", "unix-listen", "-p", at.sun_path, "-t", f->dir, NULL};
        g_spawn_async(NULL, (char **)argv, NULL,
                      G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDOUT_TO_DEV_NULL |
                          G_SPAWN_STDERR_TO_DEV_NULL,
                      die_with_parent, NULL, &f->qemu, &error);
        g_assert_no_error(error);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int64_t until = SECONDS(20); f->qemu && g_get_monotonic_time() < until;) {
        if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0)
            break;
        g_usleep(10000);
    }
    set_up_port(f, fd);
}

static void tear_down_qemu(Fixture *f, gconstpointer data)
{
    tear_down(f, data);
    if (f->qemu) {
        kill(f->qemu, SIGKILL);
        waitpid(f->qemu, NULL, 0);
    }
    g_autofree char *line = g_strdup_printf("rm -rf '%s'", f->dir);
    g_assert_cmpint(system(line), ==, 0);
    g_free(f->dir);
}

static bool no_qemu(const Fixture *f)
{
    if (!f->qemu)
        g_test_skip("qemu-ga is not installed");
    return !f->qemu;
}

/* Run a line of shell, or with @c what that says. */
static Ran run(Fixture *f, AgentCommand c, const char *line)
{
    g_autoptr(Agent) a = agent_of(f);

    return ran_line(a, f->dir, c, 60, line);
}

static void test_exec(Fixture *f, gconstpointer data)
{
    static const struct {
        const char *line, *out, *err;
        int status;
    } cases[] = {
        {"echo out; echo err >&2; exit 7", "out\n", "err\n", 7},
        {"printf 'a\\0b\\n' | od -An -c | tr -d ' '", "a\\0b\\n\n", "", 0},
        {"kill -9 $$", "", "", 137},
        {"kill -TERM $$", "", "", 143},
        {"cat; echo end", "end\n", "", 0},
        {"pwd", "/\n", "", 0},
        {"sleep 0.3; echo late; sleep 0.3; echo later", "late\nlater\n", "", 0},
        {"sleep 100 & echo gone", "gone\n", "", 0},
    };
    if (no_qemu(f))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(Ran) r = run(f, (AgentCommand){0}, cases[i].line);
        g_assert_no_error(r.error);
        g_assert_cmpstr(r.out, ==, cases[i].out);
        g_assert_cmpstr(r.err, ==, cases[i].err);
        g_assert_cmpint(r.end.status, ==, cases[i].status);
    }
}

static void test_exec_words(Fixture *f, gconstpointer data)
{
    const char *missing[] = {"/no/such/program", NULL}, *plain[] = {"/dev/null", NULL};
    const char *words[] = {"printf", "%s|", "a b", "", "$HOME", "'\"\\", "\xc3\xa4", "--", NULL};
    const char *env[] = {"ONE=1 2", "TWO=$x'\"", NULL};
    if (no_qemu(f))
        return;
    g_auto(Ran) r127 = run(f, (AgentCommand){.argv = missing}, NULL);
    g_assert_cmpint(r127.end.status, ==, 127);
    g_auto(Ran) r126 = run(f, (AgentCommand){.argv = plain}, NULL);
    g_assert_cmpint(r126.end.status, ==, 126);
    g_auto(Ran) quoted = run(f, (AgentCommand){.argv = words}, NULL);
    g_assert_cmpstr(quoted.out, ==, "a b||$HOME|'\"\\|\xc3\xa4|--|");
    g_auto(Ran) with = run(f, (AgentCommand){.env = env, .cwd = "/usr"}, "echo \"$ONE,$TWO,$PWD\"");
    g_assert_cmpstr(with.out, ==, "1 2,$x'\",/usr\n");
    g_auto(Ran) nowhere = run(f, (AgentCommand){.cwd = "/no/such"}, "true");
    g_assert_error(nowhere.error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_assert_nonnull(strstr(nowhere.error->message, "/no/such"));
    g_auto(Ran) nobody = run(f, (AgentCommand){.user = "nosuchuser"}, "true");
    g_assert_nonnull(nobody.error);
    g_assert_nonnull(strstr(nobody.error->message, "there is no user nosuchuser"));
    if (geteuid() == 0) {
        g_auto(Ran) other = run(f, (AgentCommand){.user = "nobody"}, "echo $(id -un) $USER");
        g_assert_cmpstr(other.out, ==, "nobody nobody\n");
    }
}

typedef struct Feed {
    int fd;
    size_t bytes;
} Feed;

static gpointer feed(gpointer opaque)
{
    Feed *feed = opaque;
    for (size_t n = 0; n < feed->bytes; n++) {
        char line[8];
        g_snprintf(line, sizeof line, "%07zu", n / 8);
        if (write(feed->fd, line + n % 8, 1) != 1)
            break;
    }
    close(feed->fd);
    return NULL;
}

/* More of everything than one answer, or all that may wait, holds. */
static void test_exec_streams(Fixture *f, gconstpointer data)
{
    int pipe_fds[2];
    if (no_qemu(f))
        return;
    g_auto(Ran) much = run(f, (AgentCommand){0}, "head -c 3000000 /dev/zero; echo x >&2; exit 3");
    g_assert_no_error(much.error);
    g_assert_cmpuint(much.out_len, ==, 3000000);
    g_assert_cmpstr(much.err, ==, "x\n");
    g_assert_cmpint(much.end.status, ==, 3);

    g_assert_cmpint(pipe2(pipe_fds, O_CLOEXEC), ==, 0);
    Feed lines = {pipe_fds[1], 40000};
    GThread *t = g_thread_new("feed", feed, &lines);
    g_auto(Ran) back = run(f, (AgentCommand){.in_fd = pipe_fds[0]}, "tr 0 0; echo end >&2");
    g_thread_join(t);
    close(pipe_fds[0]);
    g_assert_no_error(back.error);
    g_assert_cmpuint(back.out_len, ==, 40000);
    g_assert_cmpstr(back.err, ==, "end\n");

    g_autofree char *big = g_build_filename(f->dir, "big", NULL);
    int fd = open(big, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_cmpint(ftruncate(fd, 4 * MEGABYTE), ==, 0);
    g_auto(Ran) counted = run(f, (AgentCommand){.in_fd = fd}, "sleep 0.2; wc -c");
    g_assert_cmpstr(g_strstrip(counted.out), ==, "4194304");
    lseek(fd, 0, SEEK_SET);
    g_auto(Ran) unread = run(f, (AgentCommand){.in_fd = fd}, "head -c 1 | od -An -tx1");
    close(fd);
    g_assert_no_error(unread.error);
    g_assert_cmpstr(g_strstrip(unread.out), ==, "00");
}

static int stop_soon(void *opaque)
{
    int64_t *at = opaque;
    return g_get_monotonic_time() > *at ? SIGINT : 0;
}

/* Whether process @pid of the guest, which is this host's, is more than a word in its parent's ears. */
static bool runs(int pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", pid), *stat = NULL;
    char state;

    return g_file_get_contents(path, &stat, NULL, NULL) &&
           sscanf(stat, "%*d (%*[^)]) %c", &state) == 1 && state != 'Z';
}

static void test_exec_ends(Fixture *f, gconstpointer data)
{
    int64_t soon = g_get_monotonic_time() + 300000;
    int pipe_fds[2];
    if (no_qemu(f))
        return;
    g_auto(Ran) late = run(f, (AgentCommand){.deadline = g_get_monotonic_time() + 300000},
                           "echo begun; sleep 100; echo no");
    g_assert_no_error(late.error);
    g_assert_true(late.end.timed_out);
    g_assert_cmpstr(late.out, ==, "begun\n");
    g_auto(Ran) deaf = run(f, (AgentCommand){.deadline = g_get_monotonic_time() + 300000},
                           "trap '' TERM; while :; do sleep 0.1; done");
    g_assert_no_error(deaf.error);
    g_assert_cmpint(deaf.end.status, ==, 137);
    soon = g_get_monotonic_time() + 300000;
    g_auto(Ran) stopped = run(f, (AgentCommand){.stop = stop_soon, .opaque = &soon}, "sleep 100");
    g_assert_no_error(stopped.error);
    g_assert_cmpint(stopped.end.stopped, ==, SIGINT);
    g_assert_cmpint(pipe2(pipe_fds, O_CLOEXEC), ==, 0);
    close(pipe_fds[0]);
    g_auto(Ran) unheard = run(f, (AgentCommand){.out_fd = pipe_fds[1]}, "yes");
    g_assert_no_error(unheard.error);
    g_assert_cmpint(unheard.end.stopped, ==, SIGPIPE);
    /* With its children. */
    g_auto(Ran) parent = run(f, (AgentCommand){.deadline = g_get_monotonic_time() + 300000},
                             "sleep 100 & echo $!; wait");
    g_assert_true(parent.end.timed_out);
    int child = atoi(parent.out);
    g_assert_cmpint(child, >, 0);
    for (gint64 end = SECONDS(5); runs(child);) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(10000);
    }
}

static gpointer exec_other(gpointer opaque)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Agent) a = agent_of(opaque);
    const char *argv[] = {"sh", "-c", "sleep 0.2; exit 5", NULL};
    AgentCommand c = {.argv = argv, .in_fd = -1, .out_fd = 1, .err_fd = 2, .deadline = SECONDS(60)};
    AgentEnd end;
    agent_exec(a, &c, &end, &error);
    g_assert_no_error(error);
    g_assert_cmpint(end.status, ==, 5);
    return NULL;
}

static void test_exec_many(Fixture *f, gconstpointer data)
{
    GThread *threads[6];
    if (no_qemu(f))
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("client", exec_other, f);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        g_thread_join(threads[i]);
}

typedef struct Told {
    uint64_t done, all;
    int stop_after; /* calls; 0: never */
} Told;

static void tell(void *opaque, uint64_t done, uint64_t all)
{
    Told *t = opaque;
    t->done = done;
    t->all = all;
}

static int stop_copy(void *opaque)
{
    Told *t = opaque;
    return t->stop_after && !--t->stop_after ? SIGINT : 0;
}

/* @name of the folder of the test, open as a file with @data. */
static int file_with(Fixture *f, const char *name, const void *data, size_t len)
{
    g_autofree char *path = g_build_filename(f->dir, name, NULL);
    g_assert_true(g_file_set_contents(path, data, (gssize)len, NULL));
    return open(path, O_RDWR | O_CLOEXEC);
}

static void test_files(Fixture *f, gconstpointer data)
{
    static const size_t sizes[] = {0, 1, AGENT_PIECE - 1, AGENT_PIECE, AGENT_PIECE + 1,
                                   3 * AGENT_PIECE};
    g_autoptr(GError) error = NULL;
    unsigned mode = 0;
    if (no_qemu(f))
        return;
    g_autoptr(Agent) a = agent_of(f);
    g_autofree char *to = g_build_filename(f->dir, "to", NULL), *dir_to = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree uint8_t *bytes = g_malloc0(sizes[i] + 1), *got = NULL;
        for (size_t n = 0; n < sizes[i]; n++) /* the second piece is a hole */
            bytes[n] = n / AGENT_PIECE == 1 ? 0 : (uint8_t)(n * 7 + n / 251);
        Told told = {0};
        AgentCopy c = {.tell = tell, .stop = stop_copy, .opaque = &told};
        struct stat st;
        int from = file_with(f, "from", bytes, sizes[i]), back = file_with(f, "back", "", 0);
        agent_put_file(a, from, to, "x", 0750, &c, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(told.done, ==, sizes[i]);
        g_assert_cmpint(stat(to, &st), ==, 0);
        g_assert_cmpuint(st.st_mode & 07777, ==, 0750);
        agent_get_file(a, to, back, &mode, &c, &error);
        g_assert_no_error(error);
        g_assert_cmpuint(mode, ==, 0750);
        g_assert_cmpint(fstat(back, &st), ==, 0);
        g_assert_cmpuint((size_t)st.st_size, ==, sizes[i]);
        got = g_malloc0(sizes[i] + 1);
        g_assert_cmpint(pread(back, got, sizes[i], 0), ==, (ssize_t)sizes[i]);
        g_assert_cmpmem(got, sizes[i], bytes, sizes[i]);
        close(from);
        close(back);
    }
    /* A folder takes it under its name. */
    AgentCopy plain = {0};
    int from = file_with(f, "from", "text", 4);
    agent_put_file(a, from, f->dir, "named $x", 0600, &plain, &error);
    g_assert_no_error(error);
    dir_to = g_build_filename(f->dir, "named $x", NULL);
    g_assert_true(g_file_test(dir_to, G_FILE_TEST_IS_REGULAR));
    /* A device is written to, not replaced. */
    lseek(from, 0, SEEK_SET);
    agent_put_file(a, from, "/dev/null", "x", 0600, &plain, &error);
    g_assert_no_error(error);
    g_assert_false(g_file_test("/dev/null", G_FILE_TEST_IS_REGULAR));
    close(from);
}

static void test_file_faults(Fixture *f, gconstpointer data)
{
    g_autofree uint8_t *bytes = g_malloc0(4 * AGENT_PIECE);
    AgentCopy plain = {0};
    unsigned mode;
    if (no_qemu(f))
        return;
    memset(bytes, 'x', 4 * AGENT_PIECE);
    g_autoptr(Agent) a = agent_of(f);
    g_autofree char *to = g_build_filename(f->dir, "to", NULL);
    int from = file_with(f, "from", bytes, 4 * AGENT_PIECE), back = file_with(f, "back", "", 0);
    const struct {
        const char *path, *text;
    } cases[] = {{"/no/such/file", "vm: "}, {f->dir, "is a folder; copy it with -r"}};
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(agent_get_file(a, cases[i].path, back, &mode, &plain, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
        g_assert_nonnull(strstr(error->message, cases[i].text));
    }
    g_autoptr(GError) nowhere = NULL, stopped = NULL;
    g_assert_false(agent_put_file(a, from, "/no/such/file", "x", 0600, &plain, &nowhere));
    g_assert_error(nowhere, LODGE_ERROR, LODGE_ERROR_HOST);
    /* One that is stopped leaves what was there, and nothing beside it. */
    g_assert_true(g_file_set_contents(to, "old", 3, NULL));
    Told told = {.stop_after = 2};
    AgentCopy c = {.stop = stop_copy, .opaque = &told};
    g_assert_false(agent_put_file(a, from, to, "x", 0600, &c, &stopped));
    g_assert_nonnull(strstr(stopped->message, "stopped"));
    g_autofree char *now = NULL;
    g_assert_true(g_file_get_contents(to, &now, NULL, NULL));
    g_assert_cmpstr(now, ==, "old");
    g_autoptr(GDir) dir = g_dir_open(f->dir, 0, NULL);
    for (const char *name; (name = g_dir_read_name(dir));)
        g_assert_null(strstr(name, ".lodge-"));
    close(from);
    close(back);
}

#define TEST(name, plays, fn) \
    g_test_add("/agent/" name, Fixture, GINT_TO_POINTER(plays), set_up, fn, tear_down)
#define TEST_QEMU(name, fn) \
    g_test_add("/agent/" name, Fixture, NULL, set_up_qemu, fn, tear_down_qemu)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    TEST("answers", GUEST_GOOD, test_answers);
    TEST("garbage", GUEST_GARBAGE, test_answers);
    TEST("owes", GUEST_OWES, test_answers);
    TEST("silent", GUEST_SILENT, test_silent);
    TEST("half", GUEST_HALF, test_half);
    TEST("endless", GUEST_ENDLESS, test_nonsense);
    TEST("nonsense", GUEST_NONSENSE, test_nonsense);
    TEST("refuses", GUEST_REFUSES, test_refuses);
    TEST("hangs-up", GUEST_HANGS_UP, test_hangs_up);
    TEST("client-dies", GUEST_GOOD, test_client_dies);
    TEST("client-dies-stuck", GUEST_GOOD, test_client_dies_stuck);
    TEST("many", GUEST_GOOD, test_many);
    TEST("too-many", GUEST_GOOD, test_too_many);
    TEST("no-turn", GUEST_GOOD, test_no_turn);
    g_test_add_func("/agent/check", test_check);
    TEST_QEMU("exec", test_exec);
    TEST_QEMU("exec-words", test_exec_words);
    TEST_QEMU("exec-streams", test_exec_streams);
    TEST_QEMU("exec-ends", test_exec_ends);
    TEST_QEMU("exec-many", test_exec_many);
    TEST_QEMU("files", test_files);
    TEST_QEMU("file-faults", test_file_faults);
    return g_test_run();
}
