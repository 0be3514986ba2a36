/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge console": a machine's first serial port on this terminal. One end of a pair of sockets is
 * passed to the machine, which sends what was said before and what is said from now on; the control
 * socket stays open, to ask for the keyboard.
 *
 * All keys go to the guest but the escape key, Ctrl-], as on the terminal of "lodge run"; the key
 * behind it means something here, never something that ends the machine.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/terminal.h"

#include "machines.h"

#define ANSWER_SECONDS 30
#define CHUNK 4096
#define PENDING_MAX 65536 /* typed bytes that the machine has not taken */
#define ESCAPE_KEY 0x1d
#define HINT "Ctrl-] then q leaves, Ctrl-] then ? lists the keys"

const OptSpec console_options_table[] = {
    {"read-only", 'r', NULL, "Only look; what is typed goes nowhere."},
    {NULL},
};

typedef struct View {
    const char *name; /* borrowed */
    Client *client;   /* owned; NULL: its end of the talk is over */
    int fd;           /* owned; the console */
    unsigned id;
    bool terminal, escaped, writes, leave;
    GString *pending; /* typed, not yet sent */
} View;

static bool attach(View *v, bool write, GError **error)
{
    int64_t deadline = machines_deadline(ANSWER_SECONDS);
    int pair[2];
    v->client = machines_reach(v->name, deadline, error);
    if (!v->client)
        return false;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return lodge_fail_errno(error, errno, "%s: cannot make a pair of sockets", v->name);
    v->fd = pair[0];
    JsonOut *call = client_begin("getfd");
    json_string(call, "fdname", "console");
    bool ok = client_call_fd(v->client, call, pair[1], deadline, error).node != NULL;
    close(pair[1]);
    if (!ok)
        return false;
    call = client_begin("x-lodge-console");
    json_string(call, "fdname", "console");
    json_bool(call, "write", write);
    Jv answer = client_call(v->client, call, deadline, error);
    v->id = (unsigned)jv_int(jv_get(answer, "id"));
    v->writes = jv_bool(jv_get(answer, "writes"));
    return answer.node != NULL;
}

/* A line of ours between those of the guest. */
static void say(const View *v, const char *text)
{
    if (v->terminal)
        fputs("\r", stderr);
    lodge_note("%s: %s", v->name, text);
}

static void take_keyboard(View *v)
{
    g_autoptr(GError) error = NULL;
    JsonOut *call = v->client ? client_begin("x-lodge-console-take") : NULL;
    if (!call)
        return;
    json_number(call, "id", v->id);
    v->writes = client_call(v->client, call, machines_deadline(ANSWER_SECONDS), &error).node;
    say(v, v->writes ? "this console types now" : error->message);
}

static void act(View *v, uint8_t key)
{
    if (key == ESCAPE_KEY)
        g_string_append_c(v->pending, (char)key);
    else if (key == 'q')
        v->leave = true;
    else if (key == 'w')
        take_keyboard(v);
    else if (key == '?')
        say(v, "Ctrl-] q leaves, the machine goes on; Ctrl-] w types here, no longer elsewhere; "
               "Ctrl-] Ctrl-] sends Ctrl-]");
}

static void typed(View *v, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len && !v->leave; i++) {
        if (v->escaped) {
            v->escaped = false;
            act(v, data[i]);
        } else if (v->terminal && data[i] == ESCAPE_KEY) {
            v->escaped = true;
        } else {
            g_string_append_c(v->pending, (char)data[i]);
        }
    }
    if (!v->writes)
        g_string_truncate(v->pending, 0);
}

/* Return: false: there will be no more input. */
static bool read_keys(View *v)
{
    uint8_t data[CHUNK];
    ssize_t n = read(STDIN_FILENO, data, sizeof data);
    if (n > 0)
        typed(v, data, (size_t)n);
    return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

static void send_keys(View *v)
{
    ssize_t n = send(v->fd, v->pending->str, v->pending->len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0)
        g_string_erase(v->pending, 0, n);
}

/* Return: false: the machine has ended, or nobody reads what we print. */
static bool show(const View *v)
{
    uint8_t data[CHUNK];
    ssize_t n = recv(v->fd, data, sizeof data, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (n <= 0)
        return false;
    fwrite(data, 1, (size_t)n, stdout);
    return fflush(stdout) == 0;
}

static void look(View *v)
{
    bool input = true;
    while (!v->leave) {
        struct pollfd p[3] = {
            {.fd = v->fd, .events = POLLIN | (v->pending->len ? POLLOUT : 0)},
            {.fd = input && v->pending->len < PENDING_MAX ? STDIN_FILENO : -1, .events = POLLIN},
            {.fd = v->client ? client_fd(v->client) : -1, .events = POLLIN},
        };
        if (poll(p, G_N_ELEMENTS(p), -1) < 0)
            continue;
        if ((p[0].revents & (POLLIN | POLLHUP | POLLERR)) && !show(v))
            return;
        if (p[0].revents & POLLOUT)
            send_keys(v);
        if (p[1].revents)
            input = read_keys(v);
        if (p[2].revents && !client_discard(v->client))
            g_clear_pointer(&v->client, client_free); /* the guest's last words are still to come */
    }
}

int verb_console(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    bool read_only = o && options_has(o, "read-only");
    View v = {.name = o ? machines_one(o, &error) : NULL, .fd = -1,
              .terminal = isatty(STDIN_FILENO) == 1, .pending = g_string_new(NULL)};
    bool ok = v.name && attach(&v, !read_only, &error);
    if (ok && v.terminal) {
        lodge_note("%s: " HINT, v.name);
        ok = terminal_raw(STDIN_FILENO, &error);
    }
    if (ok) {
        if (!v.writes && !read_only)
            say(&v, "another console types; Ctrl-] then w types here");
        look(&v);
        if (v.terminal)
            terminal_restore();
        say(&v, v.leave ? "left; the machine goes on" : "ended");
    }
    client_free(v.client);
    if (v.fd >= 0)
        close(v.fd);
    g_string_free(v.pending, TRUE);
    return ok ? cli_finish(STATUS_OK) : cli_fail(self->name, error, false);
}
