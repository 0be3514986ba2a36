/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * User-Mode Linux's management console without a machine: folders of umids, the socket, how answers
 * are cut, clients that do not read. With a machine and uml_mconsole it is in
 * tests/e2e/test_native_mconsole.py.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/chan.h"
#include "lodge/clock.h"
#include "lodge/error.h"
#include "lodge/iothread.h"
#include "lodge/num.h"
#include "mconsole_internal.h"

#define MAGIC 0xcafebabeu

typedef struct Fixture {
    char *dir;
    Control *control;
    ConsoleLog *log;
} Fixture;

static void setup(Fixture *f, gconstpointer unused)
{
    f->dir = g_dir_make_tmp("lodge-test-XXXXXX", NULL);
    f->log = console_log_open(NULL, 4096, NULL);
    ControlConfig c = {.name = "vm", .console_log = f->log};
    f->control = control_open(&c, NULL);
    g_assert_nonnull(f->control);
}

static void teardown(Fixture *f, gconstpointer unused)
{
    control_close(f->control);
    console_log_close(f->log);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0); /* nothing was left in it */
    g_free(f->dir);
}

static char *in_dir(Fixture *f, const char *name)
{
    return g_build_filename(f->dir, name, NULL);
}

static int client(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    g_snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "%s-%d", name, (int)getpid());
    g_assert_cmpint(bind(fd, (struct sockaddr *)&a, sizeof a), ==, 0);
    return fd;
}

/* @said: the length that it tells. */
static bool say_as(int fd, const char *path, const char *text, uint32_t said)
{
    uint8_t buf[12 + 512];
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    g_strlcpy(a.sun_path, path, sizeof a.sun_path);
    store_le32(buf, MAGIC);
    store_le32(buf + 4, 2);
    store_le32(buf + 8, said);
    memcpy(buf + 12, text, strlen(text));
    return sendto(fd, buf, 12 + strlen(text), 0, (struct sockaddr *)&a, sizeof a) > 0;
}

static bool say(int fd, const char *path, const char *text)
{
    return say_as(fd, path, text, (uint32_t)strlen(text));
}

/* One datagram's text, with its error and whether more follows. */
static char *hear(int fd, uint32_t *ret_err, uint32_t *ret_more)
{
    char buf[1024];
    ssize_t n;
    gint64 deadline = g_get_monotonic_time() + 30 * G_TIME_SPAN_SECOND;
    while ((n = recv(fd, buf, sizeof buf, 0)) < 0) {
        g_assert_true(errno == EAGAIN && g_get_monotonic_time() < deadline);
        g_main_context_iteration(NULL, FALSE);
        g_usleep(1000);
    }
    g_assert_cmpint(n, >=, 13);
    g_assert_cmpuint(load_le32(buf + 8), ==, (uint32_t)n - 12);
    g_assert_cmpint(buf[n - 1], ==, 0);
    *ret_err = load_le32(buf);
    *ret_more = load_le32(buf + 4);
    return g_strdup(buf + 12);
}

static void test_umid(Fixture *f, gconstpointer unused)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *root = in_dir(f, "uml"), *dir = in_dir(f, "uml/a");
    g_autofree char *pid = in_dir(f, "uml/a/pid");
    g_autofree char *other = in_dir(f, "uml/a/other"), *me = g_strdup_printf("%d\n", (int)getpid());
    g_autofree char *text = NULL;
    Umid *u = umid_claim(root, "a", &error);
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(pid, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, me);
    g_assert_null(umid_claim(root, "a", &error)); /* we live */
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_clear_error(&error);
    g_assert_true(g_file_set_contents(other, "", -1, NULL));
    umid_release(u);
    g_assert_false(g_file_test(dir, G_FILE_TEST_EXISTS));
    /* A process that is gone, or a folder without a pid, leaves it to others. */
    g_assert_cmpint(g_mkdir(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(pid, "2147480000\n", -1, NULL));
    g_assert_true(g_file_set_contents(other, "", -1, NULL));
    u = umid_claim(root, "a", &error);
    g_assert_no_error(error);
    g_assert_false(g_file_test(other, G_FILE_TEST_EXISTS));
    umid_release(u);
    /* A link is nobody's folder; what it leads to stays. */
    g_assert_cmpint(symlink(f->dir, dir), ==, 0);
    g_assert_null(umid_claim(root, "a", &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_HOST);
    g_clear_error(&error);
    g_unlink(dir);
    const char *bad[] = {"", ".", "..", ".x", "a/b",
                         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_null(umid_claim(root, bad[i], &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_clear_error(&error);
    }
    u = umid_claim(root, NULL, &error);
    Umid *v = umid_claim(root, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(umid_mconsole(u), !=, umid_mconsole(v));
    umid_release(u);
    umid_release(v);
    g_assert_cmpint(g_rmdir(root), ==, 0);
}

static void test_answers(Fixture *f, gconstpointer unused)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = in_dir(f, "m"), *all = NULL;
    MconsoleConfig config = {.path = path};
    struct stat st;
    uint32_t err, more;
    Mconsole *m = mconsole_open(f->control, &config, &error);
    g_assert_no_error(error);
    g_assert_true(!g_stat(path, &st) && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600);
    int fd = client("a");
    say(fd, path, "help");
    g_autofree char *first = hear(fd, &err, &more);
    g_assert_true(strlen(first) == 511 && !err && more == 1);
    g_autofree char *second = hear(fd, &err, &more);
    g_assert_true(!err && !more);
    all = g_strconcat(first, second, NULL);
    g_assert_true(g_str_has_prefix(all, "Commands: \n"));
    const struct {
        const char *text, *answer;
        uint32_t err;
    } cases[] = {
        {"nosuch", "Unknown command", 1},
        {"stop", "there is no machine", 1},
        {"log abc", "", 0},
        {"proc 1/stat", "Proc not available", 1},
        {"stack", "Please specify a pid", 1},
        {"stack 0", "Couldn't find that pid", 1},
        {"sysrq h", "Sysrq not compiled in", 1},
        {"config xyz", "Bad configuration option", 1},
        {"remove xyz", "Bad remove option", 1},
        {"remove ubd16", "Invalid device number - must be between 0 and 15", 1},
        {"remove mem", "Memory doesn't support the remove operation", (uint32_t)-EBUSY},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        say(fd, path, cases[i].text);
        g_autofree char *answer = hear(fd, &err, &more);
        g_assert_cmpstr(answer, ==, cases[i].answer);
        g_assert_cmpuint(err, ==, cases[i].err);
        g_assert_cmpuint(more, ==, 0);
    }
    const uint32_t lengths[] = {511, 512, UINT32_MAX};
    for (unsigned i = 0; i < G_N_ELEMENTS(lengths); i++) {
        say_as(fd, path, "proc", lengths[i]);
        g_autofree char *answer = hear(fd, &err, &more);
        g_assert_cmpstr(answer, ==, i ? "Request too large" : "Proc not available");
    }
    g_autofree char *tail = console_log_since(f->log, 0);
    g_assert_cmpstr(tail, ==, "abc");
    close(fd);
    mconsole_close(m);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

static void settle(void)
{
    while (g_main_context_iteration(NULL, FALSE))
        ;
}

/* Ask for help @n times, which are two datagrams each, and read nothing. */
static void pester(int fd, const char *path, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        g_assert_true(say(fd, path, "help"));
        settle();
    }
}

static void expect_version(int fd, const char *path)
{
    uint32_t err, more;

    say(fd, path, "version");
    g_autofree char *answer = hear(fd, &err, &more);
    g_assert_true(g_str_has_prefix(answer, "Lodge vm "));
}

/* Whole answers to "help" that @fd gets, until @n of them are there. */
static void expect_helps(int fd, unsigned n)
{
    uint32_t err, more;

    for (unsigned i = 0; i < n; i++) {
        g_autofree char *first = hear(fd, &err, &more);
        g_assert_true(more && g_str_has_prefix(first, "Commands: \n"));
        g_autofree char *second = hear(fd, &err, &more);
        g_assert_true(!more && !g_str_has_prefix(second, "Commands: \n"));
    }
}

/* One that reads late gets whole answers in order, those beyond its share dropped; nobody waits for
 * it, nor for many of its kind. */
static void test_slow_client(Fixture *f, gconstpointer unused)
{
    g_autofree char *path = in_dir(f, "m");
    MconsoleConfig config = {.path = path};
    Mconsole *m = mconsole_open(f->control, &config, NULL);
    int slow = client("slow"), other = client("other"), many[60];
    const unsigned asked = 100;

    pester(slow, path, asked);
    g_assert_cmpuint(m->replies->len, ==, 4);
    g_assert_cmpuint(m->dropped, >, 0);
    expect_version(other, path);
    g_assert_cmpuint(m->replies->len, ==, 4); /* none of its answers went meanwhile */
    expect_helps(slow, asked - m->dropped);
    g_assert_cmpuint(m->replies->len, ==, 0);
    g_assert_cmpint(recv(slow, many, sizeof many, 0), ==, -1);
    /* A connected one has a queue as long as the sender's socket has room. */
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int joined = client("joined");
    g_strlcpy(at.sun_path, path, sizeof at.sun_path);
    g_assert_cmpint(connect(joined, (struct sockaddr *)&at, sizeof at), ==, 0);
    pester(joined, path, 400);
    expect_version(other, path);
    g_assert_cmpuint(m->replies->len, ==, 4);
    close(joined);
    /* More of them than that. */
    for (unsigned i = 0; i < G_N_ELEMENTS(many); i++) {
        g_autofree char *name = g_strdup_printf("many%u", i);
        many[i] = client(name);
        pester(many[i], path, 9);
        g_assert_cmpuint(m->replies->len, <=, 32);
        g_assert_cmpuint(m->replies->len, >=, MIN(i + 1, 32));
        expect_version(other, path);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(many); i++)
        close(many[i]);
    close(slow);
    close(other);
    mconsole_close(m);
}

static void press(void *opaque, unsigned code, bool down)
{
    *(unsigned *)opaque += down;
}

/* Requests that listen to the console are bounded, and the console's words are their answer. */
static void test_sysrq(Fixture *f, gconstpointer unused)
{
    static const InputOps keyboard = {.key = press};
    g_autofree char *path = in_dir(f, "m");
    g_autoptr(Input) in = input_new();
    MconsoleConfig config = {.path = path};
    ControlConfig with_keys = {.name = "vm", .console_log = f->log, .input = in};
    Control *c = control_open(&with_keys, NULL);
    unsigned pressed = 0;
    uint32_t err, more;

    input_attach(in, &keyboard, &pressed);
    Mconsole *m = mconsole_open(c, &config, NULL);
    int fd = client("sysrq"), other = client("other");
    for (unsigned i = 0; i < 32; i++) {
        g_assert_true(say(fd, path, "sysrq h"));
        settle();
    }
    g_assert_cmpuint(m->replies->len, ==, 32);
    say(other, path, "sysrq h");
    g_autofree char *refused = hear(other, &err, &more);
    g_assert_cmpstr(refused, ==, "Too many requests listen to the console; try again later");
    g_assert_cmpuint(err, ==, 1);
    expect_version(other, path);
    console_log_append(f->log, (const uint8_t *)"help\n", 5);
    g_autofree char *said = hear(fd, &err, &more);
    g_assert_cmpstr(said, ==, "help\n");
    g_assert_cmpuint(pressed, >=, 3);
    mconsole_close(m);
    control_close(c);
    input_detach(in, &keyboard, &pressed);
    close(fd);
    close(other);
}

/* ---- somebody in the guest ---- */

typedef struct Guest {
    LodgeClock *clock;
    IoThread *io;
    Chan *chan;
    GMutex mutex;
    GString *told; /* guarded by mutex: what the guest's end got */
} Guest;

static size_t guest_input(void *opaque, const uint8_t *data, size_t len)
{
    Guest *g = opaque;
    g_mutex_lock(&g->mutex);
    g_string_append_len(g->told, (const char *)data, (gssize)len);
    g_mutex_unlock(&g->mutex);
    return len;
}

static void guest_begin(Guest *g, Mconsole *m)
{
    static const ChanOps ops = {.input = guest_input};
    g->clock = lodge_clock_new();
    g->io = io_thread_new("io", g->clock, NULL);
    g->chan = chan_open("none", "mconsole", g->io, NULL);
    g->told = g_string_new(NULL);
    g_mutex_init(&g->mutex);
    chan_attach(g->chan, &ops, g);
    m->guest = mconsole_guest_new(g->chan);
}

static void guest_end(Guest *g)
{
    chan_attach(g->chan, NULL, NULL);
    chan_close(g->chan);
    io_thread_free(g->io);
    lodge_clock_free(g->clock);
    g_string_free(g->told, TRUE);
    g_mutex_clear(&g->mutex);
}

static void visit(void *opaque)
{
}

/* It has been read when this returns. */
static void guest_says(Guest *g, const char *text)
{
    chan_write(g->chan, text, strlen(text));
    io_thread_call(g->io, visit, NULL); /* behind what the channel posted */
    io_thread_call(g->io, visit, NULL);
    while (g_main_context_iteration(NULL, FALSE))
        ;
}

/* Until the guest was told @text, which is then forgotten. */
static void guest_hears(Guest *g, const char *text)
{
    gint64 deadline = g_get_monotonic_time() + 30 * G_TIME_SPAN_SECOND;
    bool same = false;
    while (!same) {
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        g_main_context_iteration(NULL, FALSE);
        g_usleep(1000);
        g_mutex_lock(&g->mutex);
        same = g->told->len >= strlen(text);
        if (same) {
            g_assert_cmpstr(g->told->str, ==, text);
            g_string_truncate(g->told, 0);
        }
        g_mutex_unlock(&g->mutex);
    }
}

static void expect_answer(int fd, uint32_t want_err, const char *want)
{
    g_autoptr(GString) all = g_string_new(NULL);
    uint32_t err, more = 1, first = UINT32_MAX;
    while (more) {
        g_autofree char *part = hear(fd, &err, &more);
        first = first == UINT32_MAX ? err : first;
        g_string_append(all, part);
    }
    g_assert_cmpstr(all->str, ==, want);
    g_assert_cmpuint(first, ==, want_err);
}

static void test_guest(Fixture *f, gconstpointer unused)
{
    g_autofree char *path = in_dir(f, "m");
    MconsoleConfig config = {.path = path};
    Mconsole *m = mconsole_open(f->control, &config, NULL);
    Guest g = {0};
    guest_begin(&g, m);
    int fd = client("guest");
    say(fd, path, "proc version"); /* nobody has said hello */
    expect_answer(fd, 1, "Proc not available");
    guest_says(&g, "hello 1\n");
    say(fd, path, "proc 1/stat");
    guest_hears(&g, "proc 1 1/stat\n");
    guest_says(&g, "9 + 3\nabc9 . 0\n1 + 5\n");
    guest_says(&g, "he\nlo1 +");
    guest_says(&g, " 2\n 11 . 0\n"); /* whose text looks like a head */
    expect_answer(fd, 0, "\nhe\nlo 1");
    say(fd, path, "proc none");
    guest_hears(&g, "proc 2 none\n");
    guest_says(&g, "2 o 0\n");
    expect_answer(fd, 1, "Failed to open file");
    say(fd, path, "proc dir");
    guest_hears(&g, "proc 3 dir\n");
    guest_says(&g, "3 + 1\nx3 r 0\n");
    expect_answer(fd, 1, "Read of file failed");
    say(fd, path, "stack 12");
    guest_hears(&g, "stack 4 12\n");
    guest_says(&g, "4 + 4\n[<0>4 . 0\n");
    expect_answer(fd, 0, "[<0>");
    say(fd, path, "stack 99");
    guest_hears(&g, "stack 5 99\n");
    guest_says(&g, "5 o 0\n");
    expect_answer(fd, 1, "Couldn't find that pid");
    say(fd, path, "log one\ntwo");
    expect_answer(fd, 0, "");
    guest_hears(&g, "log one\nlog two\n");
    say(fd, path, "cad");
    expect_answer(fd, 1, "there is no machine"); /* it is the machine's */
    mconsole_guest_expect(m->guest, "eth", "eth4", "52:54:00:00:00:01");
    mconsole_guest_expect(m->guest, "ubd", "1", "a\nb"); /* not a line */
    guest_hears(&g, "eth eth4 52:54:00:00:00:01\n");
    /* Who talks nonsense is not there, until it says hello again. */
    static const char *const bad[] = {"what\n", "1 + 99999999\n", "1 . 5\n", "1 x 0\n", "1 + -1\n",
                                      "5 +\n", "hello 2\n",
                                      ("00000000000000000000000000000000000000000000000000000000"
                                       "0000000000000000000\n")};
    unsigned id = 6;
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *line = g_strdup_printf("proc %u x\n", id++);
        say(fd, path, "proc x");
        guest_hears(&g, line);
        guest_says(&g, bad[i]);
        expect_answer(fd, 1, "Proc not available");
        say(fd, path, "proc x");
        expect_answer(fd, 1, "Proc not available");
        guest_says(&g, "\nhello 1\n");
    }
    say(fd, path, "proc last");
    g_autofree char *last = g_strdup_printf("proc %u last\n", id);
    guest_hears(&g, last);
    mconsole_close(m); /* with a request under way */
    expect_answer(fd, 1, "Proc not available");
    close(fd);
    guest_end(&g);
}

static void test_socket(Fixture *f, gconstpointer unused)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = in_dir(f, "m"), *note = in_dir(f, "n");
    g_autofree char *long_path = g_strnfill(200, 'x');
    MconsoleConfig config = {.path = path, .notify = note}, far = {.path = long_path};
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    uint8_t buf[1024];
    int left = socket(AF_UNIX, SOCK_DGRAM, 0), notices = socket(AF_UNIX, SOCK_DGRAM, 0);
    g_strlcpy(a.sun_path, path, sizeof a.sun_path);
    g_assert_cmpint(bind(left, (struct sockaddr *)&a, sizeof a), ==, 0);
    g_strlcpy(a.sun_path, note, sizeof a.sun_path);
    g_assert_cmpint(bind(notices, (struct sockaddr *)&a, sizeof a), ==, 0);
    g_assert_null(mconsole_open(f->control, &config, &error)); /* somebody listens there */
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_clear_error(&error);
    close(left);
    Mconsole *m = mconsole_open(f->control, &config, &error);
    g_assert_no_error(error);
    g_assert_cmpint(recv(notices, buf, sizeof buf, MSG_DONTWAIT), ==,
                    (ssize_t)(16 + strlen(path) + 1));
    g_assert_true(load_le32(buf) == MAGIC && load_le32(buf + 4) == 2 && load_le32(buf + 8) == 0);
    g_assert_cmpstr((char *)buf + 16, ==, path);
    console_log_append(f->log, (const uint8_t *)"Kernel panic - not syncing: why\nx", 33);
    mconsole_news(m, &(MachineNews){.what = MACHINE_EVENT_PANICKED});
    g_assert_cmpint(recv(notices, buf, sizeof buf, MSG_DONTWAIT), ==, 16 + 4);
    g_assert_true(load_le32(buf + 8) == 1 && !strcmp((char *)buf + 16, "why"));
    mconsole_close(m);
    g_assert_null(mconsole_open(f->control, &far, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
    g_clear_error(&error);
    g_assert_true(g_file_set_contents(path, "mine", -1, NULL));
    g_assert_null(mconsole_open(f->control, &config, &error)); /* a file stays */
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_EXISTS);
    g_clear_error(&error);
    close(notices);
    g_assert_true(!g_unlink(path) && !g_unlink(note));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add("/mconsole/umid", Fixture, NULL, setup, test_umid, teardown);
    g_test_add("/mconsole/answers", Fixture, NULL, setup, test_answers, teardown);
    g_test_add("/mconsole/guest", Fixture, NULL, setup, test_guest, teardown);
    g_test_add("/mconsole/slow client", Fixture, NULL, setup, test_slow_client, teardown);
    g_test_add("/mconsole/sysrq", Fixture, NULL, setup, test_sysrq, teardown);
    g_test_add("/mconsole/socket", Fixture, NULL, setup, test_socket, teardown);
    return g_test_run();
}
