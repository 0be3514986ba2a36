/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Consoles beside a machine's own: who hears what, who types, and one that does not listen. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/chan.h"
#include "lodge/clock.h"
#include "lodge/console_log.h"
#include "lodge/error.h"
#include "lodge/iothread.h"

#include "consoles.h"

#define SECONDS 20

typedef struct Fixture {
    LodgeClock *clock;
    IoThread *io;
    Chan *chan;
    ConsoleLog *log;
    Consoles *cs;
    GMutex mutex;
    GString *typed; /* guarded by mutex */
} Fixture;

static size_t on_typed(void *opaque, const uint8_t *data, size_t len)
{
    Fixture *f = opaque;
    g_mutex_lock(&f->mutex);
    g_string_append_len(f->typed, (const char *)data, (gssize)len);
    g_mutex_unlock(&f->mutex);
    return len;
}

static const ChanOps ops = {.input = on_typed};

static void setup(Fixture *f, gconstpointer unused)
{
    f->clock = lodge_clock_new();
    f->io = io_thread_new("io", f->clock, NULL);
    f->chan = chan_open("none", "con0", f->io, NULL);
    f->log = console_log_open(NULL, 1 << 20, NULL);
    f->typed = g_string_new(NULL);
    g_mutex_init(&f->mutex);
    chan_attach(f->chan, &ops, f);
    f->cs = consoles_new(f->chan, f->log);
}

static void teardown(Fixture *f, gconstpointer unused)
{
    consoles_stop(f->cs);
    chan_close(f->chan);
    consoles_free(f->cs);
    console_log_close(f->log);
    io_thread_free(f->io);
    lodge_clock_free(f->clock);
    g_string_free(f->typed, TRUE);
    g_mutex_clear(&f->mutex);
}

static gboolean tick(gpointer unused)
{
    return G_SOURCE_CONTINUE;
}

/* Turn the main loop until @fd has said @len bytes; transfer full. */
static char *hear(int fd, size_t len)
{
    GString *got = g_string_new(NULL);
    int64_t deadline = g_get_monotonic_time() + SECONDS * G_TIME_SPAN_SECOND;
    guint timer = g_timeout_add(1, tick, NULL);
    char data[65536];
    while (got->len < len) {
        g_main_context_iteration(NULL, TRUE);
        ssize_t n = recv(fd, data, sizeof data, MSG_DONTWAIT);
        if (n > 0)
            g_string_append_len(got, data, n);
        else if (n == 0)
            break;
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    g_source_remove(timer);
    return g_string_free(got, FALSE);
}

static void wait_typed(Fixture *f, const char *expect)
{
    int64_t deadline = g_get_monotonic_time() + SECONDS * G_TIME_SPAN_SECOND;
    guint timer = g_timeout_add(1, tick, NULL);
    for (bool there = false; !there;) {
        g_main_context_iteration(NULL, TRUE);
        g_mutex_lock(&f->mutex);
        there = !strcmp(f->typed->str, expect);
        g_mutex_unlock(&f->mutex);
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    g_source_remove(timer);
}

static int join(Fixture *f, bool write, unsigned *ret_id, bool expect)
{
    int pair[2];
    bool writes = !expect;
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_assert_true(consoles_add(f->cs, pair[1], write, ret_id, &writes, &error));
    g_assert_no_error(error);
    g_assert_true(writes == expect);
    return pair[0];
}

static void say(Fixture *f, const char *text)
{
    chan_write(f->chan, text, strlen(text));
}

static void test_talk(Fixture *f, gconstpointer unused)
{
    unsigned a_id, b_id, c_id;
    g_autoptr(GError) error = NULL;
    int a = join(f, false, &a_id, false), b = join(f, true, &b_id, true);
    say(f, "one\n");
    g_autofree char *a1 = hear(a, 4), *b1 = hear(b, 4);
    g_assert_cmpstr(a1, ==, "one\n");
    g_assert_cmpstr(b1, ==, "one\n");
    /* A later one hears what was before, once. */
    int c = join(f, true, &c_id, false);
    say(f, "two\n");
    g_autofree char *c1 = hear(c, 8);
    g_assert_cmpstr(c1, ==, "one\ntwo\n");
    /* One types. */
    g_assert_cmpint(write(a, "aaa", 3) + write(c, "ccc", 3) + write(b, "b", 1), ==, 7);
    wait_typed(f, "b");
    g_assert_true(consoles_take(f->cs, c_id, &error));
    g_assert_cmpint(write(b, "bbb", 3) + write(c, "c", 1), ==, 4);
    wait_typed(f, "bc");
    /* When it has left, the next who wants to may; those who are there have to ask. */
    close(c);
    int64_t deadline = g_get_monotonic_time() + SECONDS * G_TIME_SPAN_SECOND;
    guint timer = g_timeout_add(1, tick, NULL);
    while (consoles_take(f->cs, c_id, NULL)) {
        g_main_context_iteration(NULL, TRUE);
        g_assert_cmpint(g_get_monotonic_time(), <, deadline);
    }
    g_source_remove(timer);
    g_assert_false(consoles_take(f->cs, c_id, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND);
    int d = join(f, true, &c_id, true);
    g_assert_cmpint(write(b, "b", 1) + write(d, "d", 1), ==, 2);
    wait_typed(f, "bcd");
    close(a);
    close(b);
    close(d);
}

static void test_limit(Fixture *f, gconstpointer unused)
{
    int fds[16], pair[2];
    unsigned id;
    bool writes;
    char byte;
    g_autoptr(GError) error = NULL, second = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++)
        fds[i] = join(f, false, &id, false);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_assert_false(consoles_add(f->cs, pair[1], false, &id, &writes, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_LIMIT);
    g_assert_cmpint(read(pair[0], &byte, 1), ==, 0); /* closed */
    close(pair[0]);
    for (unsigned i = 0; i < G_N_ELEMENTS(fds); i++)
        close(fds[i]);
    /* No port, nobody. */
    Consoles *none = consoles_new(NULL, f->log);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_assert_false(consoles_add(none, pair[1], false, &id, &writes, &second));
    g_assert_error(second, LODGE_ERROR, LODGE_ERROR_STATE);
    close(pair[0]);
    consoles_stop(none);
    consoles_free(none);
}

/* One that does not read holds up nobody, loses the middle, and hears how much; the end it gets. */
static void test_deaf(Fixture *f, gconstpointer unused)
{
    unsigned id;
    int deaf = join(f, false, &id, false), good = join(f, false, &id, false);
    g_autofree char *block = g_strnfill(65535, 'x');
    size_t said = 0;
    for (unsigned i = 0; i < 64; i++) {
        say(f, block);
        said += strlen(block);
        g_free(hear(good, strlen(block)));
    }
    say(f, "the end");
    g_free(hear(good, 7));
    g_autoptr(GString) all = g_string_new(NULL);
    while (!g_str_has_suffix(all->str, "the end")) {
        g_autofree char *more = hear(deaf, 1);
        g_string_append(all, more);
    }
    const char *note = strstr(all->str, "bytes were lost here]");
    g_assert_nonnull(note);
    g_assert_cmpuint(all->len, <, said);
    g_assert_cmpuint(all->len, <, 3u << 20);
    close(deaf);
    close(good);
}

/* What is said while it is closed still arrives. */
static void test_last(Fixture *f, gconstpointer unused)
{
    unsigned id;
    int fd = join(f, true, &id, true);
    say(f, "bye");
    consoles_stop(f->cs);
    g_assert_cmpint(write(fd, "x", 1), ==, 1); /* too late */
    chan_close(f->chan);
    f->chan = NULL;
    consoles_free(f->cs);
    f->cs = NULL;
    g_autofree char *last = hear(fd, 4);
    g_assert_cmpstr(last, ==, "bye");
    g_assert_cmpstr(f->typed->str, ==, "");
    close(fd);
}

/* What is told at first begins with a line where something was cut off before it. */
static void test_recent(Fixture *f, gconstpointer unused)
{
    g_autofree char *much = g_strnfill(40000, 'x');
    console_log_append(f->log, (const uint8_t *)"a\x1b[1mb\n", 7);
    GString *s = console_log_recent(f->log);
    g_assert_cmpstr(s->str, ==, "a\x1b[1mb\n");
    g_string_free(s, TRUE);
    console_log_append(f->log, (const uint8_t *)much, strlen(much));
    console_log_append(f->log, (const uint8_t *)"\nnew\n", 5);
    s = console_log_recent(f->log);
    g_assert_cmpstr(s->str, ==, "new\n");
    g_string_free(s, TRUE);
    g_autofree char *clean = console_log_clean("\x1b[31mred\x1b[0m\a\xc2\x9bx\xff\n", 18);
    g_assert_cmpstr(clean, ==, "red??x\xef\xbf\xbd\n");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *path;
        void (*fn)(Fixture *f, gconstpointer data);
    } tests[] = {
        {"/consoles/talk", test_talk}, {"/consoles/limit", test_limit},
        {"/consoles/deaf", test_deaf}, {"/consoles/last", test_last},
        {"/consoles/recent", test_recent},
    };
    g_test_init(&argc, &argv, NULL);
    for (gsize i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, Fixture, NULL, setup, tests[i].fn, teardown);
    return g_test_run();
}
