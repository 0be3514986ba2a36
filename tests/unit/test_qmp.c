/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket without a machine: what is answered to what (the texts are those of QEMU 7.2),
 * clients that behave badly, descriptors that are passed, keys and pictures through a scripted
 * keyboard and screen. What a machine does by these commands is in tests/e2e/test_native_control.py.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/input-event-codes.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/error.h"
#include "qmpfix.h"

#define DEADLINE_S 30

static void test_greeting(QmpFix *f, gconstpointer unused)
{
    struct stat st;
    g_assert_cmpint(lstat(f->socket, &st), ==, 0);
    g_assert_true(S_ISSOCK(st.st_mode));
    g_assert_cmphex(st.st_mode & 0777, ==, 0600);
    int fd = qmp_dial(f);
    g_autofree char *got = qmp_hear(fd, 1);
    g_assert_true(g_str_has_prefix(got, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, "
        "\"minor\": "
                                        "2, \"major\": 7}, \"package\": \"lodge "));
    g_assert_true(g_str_has_suffix(got, "\"}, \"capabilities\": []}}\r\n"));
    qmp_ask(fd, "{\"execute\": \"query-name\", \"id\": 1}",
        "{\"id\": 1, " NOT_FOUND "Expecting capabilities negotiation with 'qmp_capabilities'\"}}");
    qmp_ask(fd, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"enable\": [\"oob\"]}}",
        "{" GENERIC "Capability oob not available\"}}");
    qmp_ask(fd, "{\"execute\": \"qmp_capabilities\", \"arguments\": {\"x\": 1}}",
        "{" GENERIC "Parameter 'x' is unexpected\"}}");
    qmp_ask(fd, "{\"execute\": \"qmp_capabilities\", \"id\": [1, {\"a\": null}]}",
        "{\"return\": {}, \"id\": [1, {\"a\": null}]}");
    qmp_ask(fd, "{\"execute\": \"qmp_capabilities\"}",
        "{" NOT_FOUND "Capabilities negotiation is already complete, command ignored\"}}");
    close(fd);
}

static void test_answers(QmpFix *f, gconstpointer unused)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"1\n", "{" GENERIC "QMP input must be a JSON object\"}}"},
        {"[]", "{" GENERIC "QMP input must be a JSON object\"}}"},
        {"{}", "{" GENERIC "QMP input lacks member 'execute'\"}}"},
        {"{\"id\": 7}", "{\"id\": 7, " GENERIC "QMP input lacks member 'execute'\"}}"},
        {"{\"execute\": 1}", "{" GENERIC "QMP input member 'execute' must be a string\"}}"},
        {"{\"foo\": 1}", "{" GENERIC "QMP input member 'foo' is unexpected\"}}"},
        {"{\"execute\": \"x\", \"arguments\": 1}",
         "{" GENERIC "QMP input member 'arguments' must be an object\"}}"},
        {"{\"execute\": \"nosuch\", \"id\": \"\xc3\xa9\"}",
         "{\"id\": \"\\u00E9\", " NOT_FOUND "The command nosuch has not been found\"}}"},
        {"\xff", "{" GENERIC "JSON parse error, stray '\\uFFFD'\"}}"},
        {"{\"execute\": \"query-name\"}", "{\"return\": {\"name\": \"vm\"}}"},
        {"{\"execute\": \"query-name\", \"arguments\": {\"x\": 1}}",
         "{" GENERIC "Parameter 'x' is unexpected\"}}"},
        {"{\"execute\": \"query-uuid\"}",
         "{\"return\": {\"UUID\": \"00000000-0000-0000-0000-000000000000\"}}"},
        {"{\"execute\": \"query-kvm\"}", "{\"return\": {\"enabled\": true, \"present\": true}}"},
        {"{\"execute\": \"human-monitor-command\"}",
         "{" GENERIC "Parameter 'command-line' is missing\"}}"},
        {"{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": 1}}",
         "{" GENERIC "Invalid parameter type for 'command-line', expected: string\"}}"},
        {"{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"nosuch "
         "x\"}}",
         "{\"return\": \"unknown command: 'nosuch'\\r\\n\"}"},
        {"{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"info x\"}}",
         "{\"return\": \"unknown command: 'info x'\\r\\n\"}"},
        {"{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"\"}}",
         "{\"return\": \"\"}"},
        {"{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"sendkey\"}}",
         "{\"return\": \"sendkey: string expected\\r\\nTry \\\"help sendkey\\\" for more "
         "information\\r\\n\"}"},
        {"{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"sendkey "
         "foo\"}}",
         "{\"return\": \"invalid parameter: foo\\r\\n\"}"},
        {"{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"quit 1\"}}",
         "{\"return\": \"quit: extraneous characters at the end of line\\r\\nTry \\\"help "
         "quit\\\" for "
         "more information\\r\\n\"}"},
        {"{\"execute\": \"screendump\", \"arguments\": {\"filename\": \"x\", \"format\": \"gif\"}}",
         "{" GENERIC "Parameter 'format' does not accept value 'gif'\"}}"},
        {"{\"execute\": \"send-key\", \"arguments\": {\"keys\": 1}}",
         "{" GENERIC "Invalid parameter type for 'keys', expected: array\"}}"},
        {"{\"execute\": \"send-key\", \"arguments\": {\"keys\": [1]}}",
         "{" GENERIC "Invalid parameter type for 'keys[0]', expected: object\"}}"},
        {"{\"execute\": \"send-key\", \"arguments\": {\"keys\": [{\"type\": \"qcode\", \"data\": "
         "\"foo\"}]}}",
         "{" GENERIC "Parameter 'data' does not accept value 'foo'\"}}"},
        {"{\"execute\": \"send-key\", \"arguments\": {\"keys\": [{\"type\": \"foo\", \"data\": "
         "1}]}}",
         "{" GENERIC "Parameter 'type' does not accept value 'foo'\"}}"},
        {"{\"execute\": \"send-key\", \"arguments\": {\"keys\": [{\"type\": \"number\"}]}}",
         "{" GENERIC "Parameter 'keys[0].data' is missing\"}}"},
        {"{\"execute\": \"send-key\", \"arguments\": {\"keys\": [{\"type\": \"number\", \"data\": "
         "\"1\"}]}}",
         "{" GENERIC "Invalid parameter type for 'keys[0].data', expected: integer\"}}"},
        {"{\"execute\": \"send-key\", \"arguments\": {\"keys\": [{\"type\": \"qcode\", "
         "\"data\": \"a\", "
         "\"x\": 1}]}}",
         "{" GENERIC "Parameter 'keys[0].x' is unexpected\"}}"},
        {"{\"execute\": \"input-send-event\", \"arguments\": {\"events\": [{\"type\": \"zz\", "
         "\"data\": "
         "{}}]}}",
         "{" GENERIC "Parameter 'type' does not accept value 'zz'\"}}"},
        {"{\"execute\": \"input-send-event\", \"arguments\": {\"events\": [{\"type\": \"btn\", "
         "\"data\": {\"down\": true, \"button\": \"zz\"}}]}}",
         "{" GENERIC "Parameter 'button' does not accept value 'zz'\"}}"},
        {"{\"execute\": \"query-status\"}", "{" GENERIC "there is no machine\"}}"},
        {"{\"execute\": \"x-lodge-type\", \"arguments\": {\"text\": \"ab\xe2\x82\xac\"}}",
         "{" GENERIC "character '\\u20AC' (U+20AC) is not on the keyboard; nothing was typed\"}}"},
        {"{\"execute\": \"x-lodge-type\", \"arguments\": {\"text\": \"a\", \"rate\": 0}}",
         "{" GENERIC "rate 0: must be 1 to 1000 keys a second\"}}"},
        {"{\"execute\": \"x-lodge-screen-text\"}",
         "{\"return\": {\"text\": \"C:\\\\>dir\\n\\n\"}}"},
    };
    int fd = qmp_talk(f);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        qmp_ask(fd, cases[i].in, cases[i].out);
    g_assert_cmpstr(f->keys->str, ==, "");
    f->graphics = true;
    qmp_ask(fd, "{\"execute\": \"x-lodge-screen-text\"}",
        "{" GENERIC "the screen is in a graphics mode\"}}");
    close(fd);
}

/* Say @what, and pass so many descriptors. */
static void say_fds(int to, const char *what, const int *fds, size_t n)
{
    union {
        char room[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr aligned;
    } control = {0};
    struct iovec iov = {.iov_base = (char *)what, .iov_len = strlen(what)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                       .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(h), fds, n * sizeof(int));
    g_assert_cmpint(sendmsg(to, &m, 0), ==, iov.iov_len);
}

#define GETFD(name) "{\"execute\": \"getfd\", \"arguments\": {\"fdname\": \"" name "\"}}"
#define CLOSEFD(name) "{\"execute\": \"closefd\", \"arguments\": {\"fdname\": \"" name "\"}}"
#define ADD_CLIENT(protocol, name, more)                                                           \
    "{\"execute\": \"add_client\", \"arguments\": {\"protocol\": \"" protocol                      \
    "\", \"fdname\": \"" name "\"" more "}}"
#define NOT_FOUND_FD "{" GENERIC "File descriptor named 'v' has not been found\"}}"
#define DONE "{\"return\": {}}"

/* Pass the far end of a new pair of sockets along with @request; the near end. */
static int pass(int fd, const char *request, const char *answer)
{
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    say_fds(fd, request, &pair[1], 1);
    close(pair[1]);
    if (answer)
        qmp_ask(fd, "", answer);
    return pair[0];
}

/* What the other end of a connection said before it closed. */
static void heard_then_end(int fd, const char *want)
{
    g_autofree char *told = g_strconcat(want, "<end>", NULL);
    g_assert_no_errno(fcntl(fd, F_SETFL, O_NONBLOCK));
    g_autofree char *got = qmp_hear(fd, 1);
    g_assert_cmpstr(got, ==, told);
    close(fd);
}

static void test_descriptors(QmpFix *f, gconstpointer unused)
{
    int fd = qmp_talk(f), other = qmp_talk(f), viewer, null = open("/dev/null", O_RDWR | O_CLOEXEC);
    qmp_ask(fd, GETFD("v"), "{" GENERIC "No file descriptor supplied via SCM_RIGHTS\"}}");
    qmp_ask(fd, CLOSEFD("v"), "{" GENERIC "File descriptor named 'v' not found\"}}");
    qmp_ask(fd, ADD_CLIENT("vnc", "v", ""), NOT_FOUND_FD);
    viewer = pass(fd, GETFD("v"), DONE);
    qmp_ask(other, ADD_CLIENT("vnc", "v", ""), NOT_FOUND_FD); /* a name is its client's */
    qmp_ask(fd, ADD_CLIENT("vnc", "v", ", \"skipauth\": true"), DONE);
    heard_then_end(viewer, "v");
    qmp_ask(fd, ADD_CLIENT("vnc", "v", ""), NOT_FOUND_FD); /* it is gone */
    viewer = pass(fd, GETFD("v"), DONE);
    qmp_ask(fd, ADD_CLIENT("vnc", "v", ", \"tls\": false"), DONE);
    heard_then_end(viewer, "p");
    viewer = pass(fd, GETFD("v"), DONE);
    qmp_ask(fd, CLOSEFD("v"), DONE);
    heard_then_end(viewer, "");
    /* A name that is given anew, and one that is none: what it stood for is closed. */
    viewer = pass(fd, GETFD("v"), DONE);
    int again = pass(fd, GETFD("v"), DONE);
    heard_then_end(viewer, "");
    viewer = pass(fd, GETFD("1"),
                  "{" GENERIC "Parameter 'fdname' expects a name not starting with a digit\"}}");
    heard_then_end(viewer, "");
    qmp_ask(fd, ADD_CLIENT("spice", "v", ""), "{" GENERIC "protocol 'spice' is invalid\"}}");
    heard_then_end(again, "");
    say_fds(fd, GETFD("n"), &null, 1);
    qmp_ask(fd, "", DONE);
    qmp_ask(fd, ADD_CLIENT("vnc", "n", ""), "{" GENERIC "'n' is no connected stream socket\"}}");
    /* Many at once are not kept; those of a client that goes end with it. */
    int pair[2], many[8];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), ==, 0);
    for (unsigned i = 0; i < 8; i++)
        many[i] = pair[1];
    say_fds(fd, GETFD("v"), many, 8);
    qmp_ask(fd, "", DONE);
    close(pair[1]);
    viewer = pass(fd, "  ", NULL);
    close(fd);
    fd = qmp_talk(f);
    heard_then_end(pair[0], "");
    heard_then_end(viewer, "");
    /* No more than so many names. */
    for (unsigned i = 0; i < 17; i++) {
        g_autofree char *request = g_strdup_printf(GETFD("n%u"), i);
        many[i % 8] = pass(fd, request,
                           i < 16 ? DONE : "{" GENERIC "16 descriptors are there already\"}}");
        if (i == 16)
            heard_then_end(many[0], "");
        else
            close(many[i % 8]);
    }
    close(fd);
    close(other);
    close(null);
}

/* Two commands without anything between them, in pieces of every size; answers in their order. */
static void test_stream(QmpFix *f, gconstpointer unused)
{
    static const char two[] =
        "{\"execute\":\"query-name\",\"id\":\"}{\"}{\"execute\":\"query-kvm\","
                              "\"id\":2}";
    int fd = qmp_talk(f);
    for (size_t step = 1; step < sizeof two; step += 5) {
        for (size_t at = 0; at < sizeof two - 1; at += step) {
            g_autofree char *piece = g_strndup(two + at, step);
            qmp_say(fd, piece);
            while (g_main_context_iteration(NULL, FALSE)) {
            }
        }
        g_autofree char *got = qmp_hear(fd, 2);
        g_assert_cmpstr(got, ==, "{\"return\": {\"name\": \"vm\"}, \"id\": \"}{\"}\r\n{\"return\": "
                                 "{\"enabled\": true, \"present\": true}, \"id\": 2}\r\n");
    }
    close(fd);
}

static void test_events(QmpFix *f, gconstpointer unused)
{
    int deaf = qmp_dial(f), fd = qmp_talk(f);
    JsonOut *e = control_event_begin(EVENT_WATCHDOG);
    json_object(e, "data");
    json_bool(e, "open", true);
    control_event_send(f->control, e);
    control_event(f->control, EVENT_STOP);
    g_autofree char *got = qmp_hear(fd, 2);
    g_assert_true(g_regex_match_simple(
        "^\\{\"timestamp\": \\{\"seconds\": [0-9]+, \"microseconds\": [0-9]+\\}, \"event\": "
        "\"WATCHDOG\", "
        "\"data\": \\{\"open\": true\\}\\}\r\n\\{\"timestamp\": [^\r]*, \"event\": "
        "\"STOP\"\\}\r\n$",
        got, 0, 0));
    /* Who has not negotiated hears the greeting and nothing else. */
    g_autofree char *greeting = qmp_hear(deaf, 1);
    g_assert_true(g_str_has_prefix(greeting, "{\"QMP\""));
    char byte;
    g_assert_cmpint(read(deaf, &byte, 1), <, 0);
    close(deaf);
    close(fd);
}

static void settle(void)
{
    for (unsigned i = 0; i < 50; i++) {
        while (g_main_context_iteration(NULL, FALSE)) {
        }
        g_usleep(200);
    }
}

static void test_crowd(QmpFix *f, gconstpointer unused)
{
    int fds[40];
    unsigned served = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++) {
        fds[i] = qmp_dial(f);
        g_autofree char *got = qmp_hear(fds[i], 1);
        served += g_str_has_prefix(got, "{\"QMP\"");
        if (i >= 16)
            g_assert_cmpstr(got, ==, "{\"error\": {\"class\": \"GenericError\", \"desc\": "
            "\"too many "
                                     "clients; close one of them\"}}\r\n");
    }
    g_assert_cmpuint(served, ==, 16);
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++)
        close(fds[i]);
    settle();
    int fd = qmp_talk(f);
    qmp_ask(fd, "{\"execute\": \"query-name\"}", "{\"return\": {\"name\": \"vm\"}}");
    close(fd);
}

/* A value without end is told so, once, and the connection ends. */
static void test_endless(QmpFix *f, gconstpointer unused)
{
    int fd = qmp_talk(f);
    g_autofree char *part = g_strnfill(65536, 'x');
    size_t sent = 0;
    qmp_say(fd, "{\"execute\": \"");
    for (;;) {
        ssize_t n = send(fd, part, 65536, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            break;
        sent += n > 0 ? (size_t)n : 0;
        g_assert_cmpuint(sent, <, 8 * 1024 * 1024);
        g_main_context_iteration(NULL, FALSE);
    }
    g_autofree char *got = qmp_hear(fd, 2);
    g_assert_true(g_str_has_prefix(got, "{" GENERIC "JSON token size limit exceeded\"}}\r\n"));
    close(fd);
}

/* Who asks and does not listen is held up, not remembered without bound; events drop him. */
static void test_deaf(QmpFix *f, gconstpointer unused)
{
    int fd = qmp_talk(f), other = qmp_talk(f);
    g_autoptr(GString) many = g_string_new(NULL);
    for (unsigned i = 0; i < 4096; i++)
        g_string_append(many, "{\"execute\": \"query-commands\"}");
    ssize_t n;
    do {
        n = send(fd, many->str, many->len, MSG_NOSIGNAL);
        settle();
    } while (n > 0);
    g_assert_cmpint(errno, ==, EAGAIN); /* nobody reads this end any more */
    g_autofree char *big = g_strnfill(100000, 'e');
    for (unsigned i = 0; i < 100; i++) {
        JsonOut *e = control_event_begin(EVENT_WATCHDOG);
        json_string(e, "data", big);
        control_event_send(f->control, e);
        g_autofree char *heard = qmp_hear(other, 1);
        g_assert_nonnull(strstr(heard, big));
    }
    settle();
    g_assert_cmpint(send(fd, "x", 1, MSG_NOSIGNAL), <, 0);
    g_assert_true(errno == EPIPE || errno == ECONNRESET);
    qmp_ask(other, "{\"execute\": \"query-name\"}", "{\"return\": {\"name\": \"vm\"}}");
    close(fd);
    close(other);
}

/* ---- keys ---- */

static void wait_keys(QmpFix *f, const char *want)
{
    gint64 deadline = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (strcmp(f->keys->str, want)) {
        if (g_get_monotonic_time() > deadline)
            g_error("'%s', not '%s'", f->keys->str, want);
        g_main_context_iteration(NULL, FALSE);
    }
    g_string_truncate(f->keys, 0);
}

static void test_keys(QmpFix *f, gconstpointer unused)
{
    int fd = qmp_talk(f);
    qmp_ask(fd, "{\"execute\": \"send-key\", \"arguments\": {\"hold-time\": 1, \"keys\": [{\"type\": "
            "\"qcode\", \"data\": \"ctrl\"}, {\"type\": \"qcode\", \"data\": \"alt\"}, {\"type\": "
            "\"number\", \"data\": 211}]}}", "{\"return\": {}}");
    wait_keys(f, "+29 +56 +111 -111 -56 -29 ");
    /* Answered when it is typed. */
    qmp_ask(fd, "{\"execute\": \"x-lodge-type\", \"arguments\": {\"text\": \"aB\\n\", \"rate\": 1000}}",
        "{\"return\": {}}");
    g_assert_cmpstr(f->keys->str, ==, "+30 -30 +42 +48 -48 -42 +28 -28 ");
    g_string_truncate(f->keys, 0);
    qmp_ask(fd, "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"sendkey "
            "shift-a 1\"}}", "{\"return\": \"\"}");
    wait_keys(f, "+42 +30 -30 -42 ");
    /* Whoever goes away in the middle leaves no key down, and the next one can type. */
    qmp_say(fd, "{\"execute\": \"x-lodge-type\", \"arguments\": {\"text\": \"Abcdefgh\", \"rate\": "
        "1}}");
    wait_keys(f, "+42 +30 ");
    close(fd);
    wait_keys(f, "-30 -42 ");
    fd = qmp_talk(f);
    qmp_ask(fd, "{\"execute\": \"x-lodge-type\", \"arguments\": {\"text\": \"c\", \"rate\": 1000}}",
        "{\"return\": {}}");
    wait_keys(f, "+46 -46 ");
    /* A megabyte of steps waits, then no more is taken. */
    g_autofree char *lots = g_strnfill(65536, 'A');
    g_autofree char *order = g_strdup_printf("{\"execute\": \"x-lodge-type\", \"arguments\": "
        "{\"text\": "
                                             "\"%s\", \"rate\": 1}}", lots);
    int more[3];
    for (unsigned i = 0; i < 3; i++)
        qmp_say(more[i] = qmp_talk(f), order);
    g_autofree char *refused = qmp_hear(more[2], 1);
    g_assert_cmpstr(refused, ==, "{" GENERIC "too many keys wait to be typed already\"}}\r\n");
    for (unsigned i = 0; i < 3; i++)
        close(more[i]);
    close(fd);
    settle();
}

static void test_pointer(QmpFix *f, gconstpointer unused)
{
    static const char command[] =
        "{\"execute\": \"input-send-event\", \"arguments\": {\"events\": ["
        "{\"type\": \"rel\", \"data\": {\"axis\": \"x\", \"value\": 5}}, "
        "{\"type\": \"rel\", \"data\": {\"axis\": \"y\", \"value\": -7}}, "
        "{\"type\": \"btn\", \"data\": {\"down\": true, \"button\": \"left\"}}, "
        "{\"type\": \"key\", \"data\": {\"down\": true, \"key\": {\"type\": \"qcode\", \"data\": "
        "\"a\"}}}, "
        "{\"type\": \"btn\", \"data\": {\"down\": false, \"button\": \"left\"}}, "
        "{\"type\": \"btn\", \"data\": {\"down\": true, \"button\": \"wheel-up\"}}]}}";
    static const char move[] =
        "{\"execute\": \"input-send-event\", \"arguments\": {\"events\": ["
        "{\"type\": \"abs\", \"data\": {\"axis\": \"x\", \"value\": 32767}}, "
        "{\"type\": \"abs\", \"data\": {\"axis\": \"y\", \"value\": -4}}]}}";
    int fd = qmp_talk(f);
    qmp_ask(fd, command, "{\"return\": {}}");
    wait_keys(f, "rel 5,-7,0,1 +30 rel 0,0,0,0 rel 0,0,-1,0 "); /* up: away from the user */
    input_attach(f->input, &qmp_fix_tablet, f);
    qmp_ask(fd, move, "{\"return\": {}}");
    wait_keys(f, "abs 65535,0,0,0 ");
    input_detach(f->input, &qmp_fix_tablet, f);
    close(fd);
}

/* ---- pictures ---- */

static void test_pictures(QmpFix *f, gconstpointer unused)
{
    static const char ppm[] = "P6\n3 2\n255\n\1\2\3\2\4\6\3\6\x9\4\x8\xc\5\xa\xf\6\xc\x12";
    g_autofree char *path = g_build_filename(f->dir, "p", NULL), *data = NULL;
    g_autofree char *as_ppm = g_strdup_printf(
        "{\"execute\": \"screendump\", \"arguments\": {\"filename\": \"%s\"}}", path);
    g_autofree char *as_png = g_strdup_printf(
        "{\"execute\": \"screendump\", \"arguments\": {\"filename\": \"%s\", \"format\": \"png\"}}",
        path);
    gsize len;
    int fd = qmp_talk(f);
    /* Over a longer file that is there. */
    g_assert_true(g_file_set_contents(path, "................................................"
                                            "................................................",
                                      -1, NULL));
    qmp_ask(fd, as_ppm, "{\"return\": {}}");
    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    g_assert_cmpmem(data, len, ppm, sizeof ppm - 1);
    g_free(g_steal_pointer(&data));
    qmp_ask(fd, as_png, "{\"return\": {}}");
    g_assert_true(g_file_get_contents(path, &data, &len, NULL));
    /* PNG, section 5.2 and 11.2.2: signature, then IHDR with width, height, 8 bits, colour. */
    g_assert_cmpuint(len, >, 57);
    g_assert_cmpmem(data, 26, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\3\0\0\0\2\x8\2", 26);
    g_assert_cmpmem(data + len - 8, 4, "IEND", 4);
    /* What is no plain file is left alone, and nothing waits for it. */
    g_unlink(path);
    g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    int reader = open(path, O_RDONLY | O_NONBLOCK);
    g_autofree char *no = g_strdup_printf("{" GENERIC "'%s' is not a plain file\"}}", path);
    qmp_ask(fd, as_ppm, no);
    close(reader);
    qmp_ask(fd, "{\"execute\": \"screendump\", \"arguments\": {\"filename\": \"/nonexistent/x\"}}",
        "{" GENERIC "failed to open file '/nonexistent/x': No such file or directory\"}}");
    close(fd);
}

/* A socket that a killed machine left, or something else of that name, is replaced. */
static void test_left_over(QmpFix *f, gconstpointer unused)
{
    g_autoptr(GError) error = NULL;
    ControlConfig c = {.name = "vm", .registry = f->registry};
    control_close(g_steal_pointer(&f->control));
    g_assert_cmpint(symlink("/dev/null", f->socket), ==, 0);
    f->control = control_open(&c, &error);
    g_assert_no_error(error);
    int fd = qmp_talk(f);
    qmp_ask(fd, "{\"execute\": \"x-lodge-screen-text\"}",
        "{" GENERIC "There is no console to take a screendump from\"}}");
    qmp_ask(fd, "{\"execute\": \"x-lodge-type\", \"arguments\": {\"text\": \"a\"}}",
        "{" GENERIC "the machine has no keyboard or pointer\"}}");
    qmp_ask(fd, "{\"execute\": \"eject\"}", "{" GENERIC "there is no machine\"}}");
    close(fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/qmp/" name, QmpFix, NULL, qmp_fix_setup, fn, qmp_fix_teardown)
    ADD("greeting", test_greeting);
    ADD("answers", test_answers);
    ADD("stream", test_stream);
    ADD("events", test_events);
    ADD("crowd", test_crowd);
    ADD("endless", test_endless);
    ADD("deaf", test_deaf);
    ADD("descriptors", test_descriptors);
    ADD("keys", test_keys);
    ADD("pointer", test_pointer);
    ADD("pictures", test_pictures);
    ADD("left-over", test_left_over);
    return g_test_run();
}
