/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client of the guest agent and the port that clients share, against an agent that plays the
 * guest: well, late, with what it owes others, or with what no agent says.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/error.h"

#include "agent_exec.h"
#include "agentfix.h"

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
    AgentFix port;
    int guest;        /* the guest's end of the port */
    Guest plays;
    GThread *thread;
    int pings;        /* that the guest saw whole; atomic */
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
    g_atomic_int_inc(&f->pings);
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

static void set_up(Fixture *f, gconstpointer data)
{
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    f->plays = (Guest)GPOINTER_TO_INT(data);
    f->guest = pair[0];
    f->thread = g_thread_new("guest", play, f);
    agent_fix_open(&f->port, pair[1]);
}

static void tear_down(Fixture *f, gconstpointer data)
{
    agent_fix_close(&f->port);
    shutdown(f->guest, SHUT_RDWR);
    g_thread_join(f->thread);
    close(f->guest);
}

static bool ping(Agent *a, int64_t deadline, GError **error)
{
    return agent_call(a, agent_begin("guest-ping"), deadline, error).node;
}

static void assert_pings(Fixture *f)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Agent) a = agent_fix_client(&f->port);
    ping(a, SECONDS(20), &error);
    g_assert_no_error(error);
}

static void assert_fails(Fixture *f, int64_t deadline, int code, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Agent) a = agent_fix_client(&f->port);
    g_assert_false(ping(a, deadline, &error));
    g_assert_error(error, LODGE_ERROR, code);
    g_assert_nonnull(strstr(error->message, text));
}

/* ---- what it says ---- */

static void test_answers(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Agent) a = agent_fix_client(&f->port);
    for (int i = 0; i < 4; i++) {
        ping(a, SECONDS(20), &error);
        g_assert_no_error(error);
        if (i & 1)
            agent_rest(a);
    }
    agent_rest(a);
    assert_pings(f);
    g_assert_cmpint(f->pings, ==, 5);
}

/* A command is not sent to one that does not answer: it would be carried out when it starts. */
static void test_silent(Fixture *f, gconstpointer data)
{
    assert_fails(f, SECONDS(1), LODGE_ERROR_BUSY, "vm: no guest agent answers; the guest needs");
    f->plays = GUEST_GOOD;
    assert_pings(f);
    g_assert_cmpint(f->pings, ==, 1);
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
    int first = agent_fix_join(&f->port, SECONDS(5), NULL);
    int waiting = agent_fix_join(&f->port, SECONDS(5), NULL);
    await_turn(first);
    g_assert_cmpint(send(first, half, strlen(half), 0), ==, (ssize_t)strlen(half));
    close(waiting);
    close(first);
    assert_pings(f);
    g_assert_cmpint(f->pings, ==, 1);
}

/* A guest that takes nothing does not keep a client's end from being seen. */
static void test_client_dies_stuck(Fixture *f, gconstpointer data)
{
    g_autofree char *junk = g_malloc0(4 * MEGABYTE);
    int pair[2], first;
    agent_fix_free_port(&f->port);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    agent_fix_add_port(&f->port, pair[1]);
    first = agent_fix_join(&f->port, SECONDS(5), NULL);
    await_turn(first);
    struct timeval soon = {.tv_usec = 200000};
    setsockopt(first, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
    while (send(first, junk, MEGABYTE, MSG_NOSIGNAL) > 0)
        continue; /* until it would have to wait */
    int second = agent_fix_join(&f->port, SECONDS(5), NULL);
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
    g_assert_cmpint(f->pings, ==, 50);
}

static void test_too_many(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    int fds[65], turn = agent_fix_join(&f->port, SECONDS(5), NULL);
    for (unsigned i = 0; i < 64; i++)
        g_assert_cmpint(fds[i] = agent_fix_join(&f->port, SECONDS(5), NULL), >=, 0);
    g_assert_cmpint(agent_fix_join(&f->port, SECONDS(5), &error), ==, -1);
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    close(fds[3]); /* one that waits no more makes room */
    g_assert_cmpint(fds[3] = agent_fix_join(&f->port, SECONDS(5), NULL), >=, 0);
    close(turn);
    for (unsigned i = 0; i < 64; i++)
        close(fds[i]);
    assert_pings(f);
}

static void test_no_turn(Fixture *f, gconstpointer data)
{
    int turn = agent_fix_join(&f->port, SECONDS(5), NULL);
    assert_fails(f, SECONDS(1), LODGE_ERROR_BUSY, "another client does not let go");
    close(turn);
    assert_pings(f);
}

/* ---- wills ---- */

#define PING "{\"execute\": \"guest-ping\"}"

static int leave_will(Fixture *f, const char *request)
{
    g_autoptr(GError) error = NULL;
    int fd = agent_fix_add_will(&f->port, request, &error);
    g_assert_no_error(error);
    return fd;
}

static void await_pings(Fixture *f, int n)
{
    for (gint64 end = SECONDS(20); g_atomic_int_get(&f->pings) < n; g_usleep(1000))
        g_assert_cmpint(g_get_monotonic_time(), <, end);
}

/* That of one who is gone is carried out once; that of one who is done is not. */
static void test_wills(Fixture *f, gconstpointer data)
{
    int left[3];
    for (unsigned i = 0; i < G_N_ELEMENTS(left); i++)
        left[i] = leave_will(f, PING);
    agent_void_will(left[1]);
    assert_pings(f);
    g_assert_cmpint(f->pings, ==, 1);
    close(left[0]);
    await_pings(f, 2);
    close(left[2]);
    await_pings(f, 3);
    assert_pings(f);
    g_assert_cmpint(f->pings, ==, 4);
}

/* It waits for its turn as everybody does, behind what a client has half said. */
static void test_will_waits(Fixture *f, gconstpointer data)
{
    static const char half[] = "{\"execute\": \"guest-pi";
    int turn = agent_fix_join(&f->port, SECONDS(5), NULL), will = leave_will(f, PING);
    await_turn(turn);
    g_assert_cmpint(send(turn, half, strlen(half), 0), ==, (ssize_t)strlen(half));
    close(will);
    int other = agent_fix_join(&f->port, SECONDS(5), NULL);
    g_usleep(50000); /* in which it could come too early */
    g_assert_cmpint(f->pings, ==, 0);
    close(turn);
    await_turn(other);
    await_pings(f, 1);
    close(other);
    assert_pings(f);
    g_assert_cmpint(f->pings, ==, 2);
}

/* Without the guest's end there is nobody to carry it out. */
static void test_will_without_port(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) error = NULL;
    int will = leave_will(f, PING);
    f->plays = GUEST_HANGS_UP;
    assert_fails(f, SECONDS(20), LODGE_ERROR_STATE, "vm: the connection to its guest agent ended");
    close(will);
    g_assert_cmpint(agent_fix_add_will(&f->port, PING, &error), ==, -1);
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_STATE);
    g_assert_cmpint(f->pings, ==, 1);
}

static void test_too_many_wills(Fixture *f, gconstpointer data)
{
    g_autoptr(GError) many = NULL, big = NULL;
    g_autofree char *longest = g_strnfill(AGENT_WILL_BYTES_MAX, ' ');
    g_autofree char *too_long = g_strconcat(longest, " ", NULL);
    int fds[64];
    g_assert_cmpint(agent_fix_add_will(&f->port, too_long, &big), ==, -1);
    g_assert_error(big, LODGE_ERROR, LODGE_ERROR_LIMIT);
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++)
        fds[i] = leave_will(f, i ? PING : longest);
    g_assert_cmpint(agent_fix_add_will(&f->port, PING, &many), ==, -1);
    g_assert_error(many, LODGE_ERROR, LODGE_ERROR_LIMIT);
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++)
        close(fds[i]);
    await_pings(f, 63);
    assert_pings(f);
    g_assert_cmpint(f->pings, ==, 64);
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

#define TEST(name, plays, fn) \
    g_test_add("/agent/" name, Fixture, GINT_TO_POINTER(plays), set_up, fn, tear_down)

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
    TEST("wills", GUEST_GOOD, test_wills);
    TEST("will-waits", GUEST_GOOD, test_will_waits);
    TEST("will-without-port", GUEST_GOOD, test_will_without_port);
    TEST("too-many-wills", GUEST_GOOD, test_too_many_wills);
    g_test_add_func("/agent/check", test_check);
    return g_test_run();
}
