/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge switch": a switch as a process of its own, and questions to those that run. The main thread
 * sets it up and waits for the end; all else is on the switch's loop (switch_host.c).
 *
 * With --detach the process that was called waits until the switch can be reached, so that whoever
 * started it can use it at once; what goes wrong until then is told as without it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib-unix.h>

#include "lodge/clock.h"
#include "lodge/device.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/num.h"

#include "cli.h"
#include "switch_client.h"
#include "switch_host.h"
#include "switch_list.h"

enum {
    ANSWER_MS = 5000,
    MAX_ARGS = 3, /* NAME, what to do, with what */
    AGE_MAX = 1000000,
    STORM_MAX = 100000000,
    FDS_EACH = 8, /* descriptors of a port, and some */
    TEXT_PIECE = 64 << 10,
};

const OptSpec switch_options_table[] = {
    {"hub", 0, NULL, "Send every frame to every port, as a hub does."},
    {"vlan", 0, "PORT=VLAN",
     "Settle port PORT's VLAN: a number (frames of it, without tags), or trunk (all, with tags), "
     "or trunk:10+20-29. With plug: of the new port, without PORT=.", NULL, OPT_REPEAT},
    {"mirror", 0, "PORT", "Port PORT gets a copy of every frame."},
    {"age", 0, "SECONDS", "Forget an address that was not seen for so long (300)."},
    {"storm", 0, "FRAMES",
     "Take at most so many broadcast, multicast and unknown frames a second from each port."},
    {"tap", 0, "NAME", "Plug in tap NAME of the host.", NULL, OPT_REPEAT},
    {"listen", 0, "uml:PATH|vde:DIR",
     "Let programs plug in that speak uml_switch's protocol at PATH (uml:PATH,DATA also serves its "
     "version 0, at data socket DATA) or vde_switch's in folder DIR.", NULL, OPT_REPEAT},
    {"internal", 0, NULL, "Only machines and other switches: no taps, no --listen."},
    {"detach", 0, NULL, "Run in the background, from when it can be reached."},
    {"until-unused", 0, NULL, "End when nothing, or only taps, has been plugged in for ten seconds."},
    {"port", 0, "PORT", "With plug: the number of the new port."},
    OPT_JSON,
    {NULL},
};

/* ---- a switch that runs ---- */

typedef struct Action {
    const char *name;
    SwOp op;
    bool takes_arg;
} Action;

static const Action actions[] = {
    {"ports", SW_OP_PORTS, false}, {"macs", SW_OP_MACS, false},    {"stats", SW_OP_STATS, false},
    {"plug", SW_OP_PLUG, true},    {"unplug", SW_OP_UNPLUG, true}, {NULL},
};

static bool read_number(const Options *o, const char *name, uint64_t min, uint64_t max,
                        uint64_t *ret, GError **error)
{
    const char *text = options_text(o, name);

    if (!text)
        return true;
    if (!parse_u64(text, ret) || *ret < min || *ret > max)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s %s: must be %" PRIu64 " to %" PRIu64,
                          name, text, min, max);
    return true;
}

/* Open what is to be plugged in, here, since the switch must not wait. */
static bool open_plug(const char *name, SwHello *h, int fds[SW_ATTACH_FDS + 1], unsigned *ret_nfds,
                      GError **error)
{
    const char *what = h->arg;
    SwWelcome w;
    unsigned nfds;

    *ret_nfds = 0;
    if (g_str_has_prefix(what, "tap:")) {
        fds[0] = sw_tap_open(what + 4, error);
        *ret_nfds = fds[0] >= 0;
        return fds[0] >= 0;
    }
    if (!g_str_has_prefix(what, "switch:"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "plug: '%s': write tap:NAME or switch:NAME",
                          what);
    g_autofree char *who = g_strdup_printf("switch:%s", name);
    SwHello attach = sw_hello(SW_OP_ATTACH, who);
    memcpy(attach.vlan, h->vlan, sizeof attach.vlan);
    int fd = sw_dial(what + 7, error);
    if (fd < 0)
        return false;
    if (!sw_send_hello(fd, &attach, NULL, 0, error) ||
        !sw_recv_welcome(fd, &w, fds, &nfds, ANSWER_MS, error) || nfds != SW_ATTACH_FDS) {
        close(fd);
        return false;
    }
    fds[SW_ATTACH_FDS] = fd;
    *ret_nfds = SW_ATTACH_FDS + 1;
    return true;
}

static bool print_report(int fd, GError **error)
{
    g_autofree char *piece = g_malloc(TEXT_PIECE);
    struct pollfd p = {.fd = fd, .events = POLLIN};

    for (;;) {
        if (poll(&p, 1, ANSWER_MS) == 0)
            return lodge_fail(error, LODGE_ERROR_HOST, "the switch does not answer within %d s",
                              ANSWER_MS / 1000);
        ssize_t n = recv(fd, piece, TEXT_PIECE, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return lodge_fail_errno(error, errno, "the switch");
        if (!n)
            return true;
        fwrite(piece, 1, (size_t)n, stdout); /* cli_finish() looks at what came of it */
    }
}

static bool fill_hello(const Options *o, const Action *a, SwHello *h, GError **error)
{
    const char *arg = o->args->len > 2 ? g_ptr_array_index(o->args, 2) : NULL;
    const char *vlan = options_text(o, "vlan");
    uint64_t port = 0;
    SwVlan v;

    if (a->takes_arg != !!arg)
        return lodge_fail(error, LODGE_ERROR_CONFIG, a->takes_arg
                          ? "%s: say what: tap:NAME or switch:NAME to plug, a port's number to "
                            "unplug"
                          : "%s: takes nothing more", a->name);
    if (a->op == SW_OP_UNPLUG && (!parse_u64(arg, &port) || port < 1 || port > SW_PORTS_MAX))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "unplug %s: must be 1 to %d", arg,
                          SW_PORTS_MAX);
    if (a->op == SW_OP_PLUG) {
        if (!read_number(o, "port", 1, SW_PORTS_MAX, &port, error) ||
            (vlan && !sw_vlan_parse(vlan, &v, error)))
            return false;
        if (strlen(arg) >= sizeof h->arg || (vlan && strlen(vlan) >= sizeof h->vlan))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "plug: '%s': too long", arg);
        g_strlcpy(h->arg, arg, sizeof h->arg);
        g_strlcpy(h->vlan, vlan ? vlan : "", sizeof h->vlan);
    }
    h->port = (uint32_t)port;
    h->flags = options_has(o, "json") ? (uint32_t)SW_HELLO_JSON : 0;
    return true;
}

static bool act(const char *name, const Options *o, const Action *a, GError **error)
{
    SwHello h = sw_hello(a->op, "lodge switch");
    int fds[SW_ATTACH_FDS + 1];
    unsigned nfds = 0, got;
    SwWelcome w;

    if (!fill_hello(o, a, &h, error))
        return false;
    int fd = sw_dial(name, error);
    if (fd < 0)
        return false;
    bool ok = (a->op != SW_OP_PLUG || open_plug(name, &h, fds, &nfds, error)) &&
              sw_send_hello(fd, &h, fds, nfds, error) &&
              sw_recv_welcome(fd, &w, fds, &got, ANSWER_MS, error) &&
              (a->takes_arg || print_report(fd, error));
    close(fd);
    return ok;
}

static bool only_for(const Options *o, bool serving, const Action *a, GError **error)
{
    static const char *const serve_only[] = {"hub", "mirror", "age", "storm", "tap", "listen",
                                             "internal", "detach", "until-unused"};

    for (unsigned i = 0; i < G_N_ELEMENTS(serve_only) && !serving; i++) {
        if (options_has(o, serve_only[i]))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: only where a switch is started",
                              serve_only[i]);
    }
    if (options_has(o, "port") && (serving || a->op != SW_OP_PLUG))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--port: only with plug");
    if (options_has(o, "json") && (serving || a->takes_arg))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--json: only with ports, macs and stats, and without NAME");
    if (options_has(o, "vlan") && !serving && a->op != SW_OP_PLUG)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--vlan: only with plug, or where a switch is "
                          "started");
    return true;
}

static bool only_json(const Options *o, GError **error)
{
    for (const OptSpec *s = switch_options_table; s->name; s++) {
        if (options_has(o, s->name) && strcmp(s->name, "json"))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--%s: needs the NAME of a switch",
                              s->name);
    }
    return true;
}

/* ---- being one ---- */

typedef struct Serving {
    const char *name;
    SwName *claimed;
    LodgeClock *clock;
    SwHost *host;
    GMainLoop *loop;
    int ready_fd; /* of --detach; -1: none */
} Serving;

static gboolean on_signal(gpointer opaque)
{
    g_main_loop_quit(opaque);
    return G_SOURCE_CONTINUE;
}

static gboolean quit_idle(gpointer opaque)
{
    g_main_loop_quit(opaque);
    return G_SOURCE_REMOVE;
}

/* On the switch's loop. */
static void on_unused(void *opaque)
{
    g_idle_add(quit_idle, opaque);
}

static bool set_vlans(SwHost *host, const Options *o, GError **error)
{
    for (const OptValue *v = NULL; (v = options_next(o, "vlan", v));) {
        const char *equals = strchr(v->text, '=');
        g_autofree char *number = equals ? g_strndup(v->text, (size_t)(equals - v->text)) : NULL;
        uint64_t port = 0;
        SwVlan vlan;

        if (!equals || !parse_u64(number, &port) || port < 1 || port > SW_PORTS_MAX)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--vlan %s: write PORT=VLAN, like 3=10 or 4=trunk", v->text);
        if (!sw_vlan_parse(equals + 1, &vlan, error))
            return false;
        switch_set_vlan(host->sw, (unsigned)port, &vlan);
    }
    return true;
}

typedef struct AddTap {
    SwHost *host;
    int fd;
    const char *name;
    GError **error;
    bool ok;
} AddTap;

static void add_tap(void *opaque)
{
    AddTap *a = opaque;

    a->ok = sw_tap_add(a->host, a->fd, 0, a->name, NULL, a->error);
}

static bool set_up_ports(SwHost *host, const Options *o, GError **error)
{
    for (const OptValue *v = NULL; (v = options_next(o, "tap", v));) {
        AddTap a = {.host = host, .fd = sw_tap_open(v->text, error), .name = v->text,
                    .error = error};

        if (a.fd < 0)
            return false;
        io_thread_call(host->io, add_tap, &a);
        if (!a.ok)
            return false;
    }
    for (const OptValue *v = NULL; (v = options_next(o, "listen", v));) {
        if (!sw_listen(host, v->text, error))
            return false;
    }
    return true;
}

/* 256 ports have more descriptors than processes get unasked. */
static void raise_limit(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return;
    r.rlim_cur = MIN(r.rlim_max, MAX(r.rlim_cur, (rlim_t)SW_PORTS_MAX * FDS_EACH));
    (void)setrlimit(RLIMIT_NOFILE, &r); /* then fewer ports fit, and say so */
}

static bool set_up(Serving *s, const Options *o, GError **error)
{
    uint64_t mirror = 0, age = SW_AGE_DEFAULT, storm = 0;

    if (!read_number(o, "mirror", 1, SW_PORTS_MAX, &mirror, error) ||
        !read_number(o, "age", 1, AGE_MAX, &age, error) ||
        !read_number(o, "storm", 1, STORM_MAX, &storm, error))
        return false;
    SwConfig config = {.hub = options_has(o, "hub"), .mirror = (unsigned)mirror,
                       .age_s = (unsigned)age, .storm = (unsigned)storm};
    raise_limit();
    s->claimed = sw_name_claim(s->name, error);
    if (!s->claimed)
        return false;
    s->clock = lodge_clock_new();
    s->host = sw_host_new(s->name, &config, s->clock, error);
    if (!s->host)
        return false;
    s->host->internal = options_has(o, "internal");
    s->host->automatic = options_has(o, "until-unused");
    if (s->host->automatic) {
        s->host->opaque = s->loop;
        s->host->unused = on_unused;
    }
    int fd = s->claimed->listen_fd;
    s->claimed->listen_fd = -1;
    if (!set_vlans(s->host, o, error) || !set_up_ports(s->host, o, error)) {
        close(fd);
        return false;
    }
    return sw_listen_control(s->host, fd, error);
}

static void go_background(Serving *s)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    for (int fd = 0; fd <= 2 && null >= 0; fd++)
        (void)dup2(null, fd); /* the only ones that are open anyway */
    if (null > 2)
        close(null);
    if (chdir("/") == 0)
        (void)!write(s->ready_fd, "", 1); /* who waits there may have been killed */
    close(s->ready_fd);
    s->ready_fd = -1;
}

static int serve(const Verb *self, const char *name, const Options *o, int ready_fd)
{
    Serving s = {.name = name, .ready_fd = ready_fd};
    g_autoptr(GError) error = NULL;
    int status = STATUS_OK;

    signal(SIGPIPE, SIG_IGN);
    s.loop = g_main_loop_new(NULL, FALSE);
    g_unix_signal_add(SIGINT, on_signal, s.loop);
    g_unix_signal_add(SIGTERM, on_signal, s.loop);
    if (set_up(&s, o, &error)) {
        if (ready_fd >= 0)
            go_background(&s);
        else
            lodge_note("switch %s: runs; Ctrl-C ends it", name);
        g_main_loop_run(s.loop);
    } else {
        status = cli_fail(self->name, error, false);
    }
    sw_name_release(s.claimed); /* first: who looks for it now is not to find one that ends */
    sw_host_free(s.host);
    if (s.clock)
        lodge_clock_free(s.clock);
    g_main_loop_unref(s.loop);
    return status;
}

/* Have a child be the switch; answer when it can be reached. */
static int serve_detached(const Verb *self, const char *name, const Options *o)
{
    int pipes[2], status = 0;
    char byte;

    if (pipe2(pipes, O_CLOEXEC) < 0) {
        lodge_warn("%s: %s", self->name, strerror(errno));
        return STATUS_FAILURE;
    }
    pid_t pid = fork();
    if (pid < 0) {
        lodge_warn("%s: cannot start a process: %s", self->name, strerror(errno));
        return STATUS_FAILURE;
    }
    if (!pid) {
        close(pipes[0]);
        setsid();
        status = serve(self, name, o, pipes[1]);
        _exit(status);
    }
    close(pipes[1]);
    ssize_t n = read(pipes[0], &byte, 1);
    close(pipes[0]);
    if (n == 1)
        return STATUS_OK;
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
        return STATUS_FAILURE;
    return WEXITSTATUS(status);
}

int verb_switch(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, MAX_ARGS, &error);
    const Action *a = NULL;

    if (!o)
        return cli_fail(self->name, error, false);
    const char *name = o->args->len ? g_ptr_array_index(o->args, 0) : NULL;
    const char *word = o->args->len > 1 ? g_ptr_array_index(o->args, 1) : NULL;
    for (unsigned i = 0; word && actions[i].name; i++) {
        if (!strcmp(actions[i].name, word))
            a = &actions[i];
    }
    if (!name)
        (void)only_json(o, &error);
    else if (!sw_name_check(name, &error))
        (void)0;
    else if (word && !a)
        lodge_fail(&error, LODGE_ERROR_CONFIG,
                   "\"%s\": not done with a switch; write ports, macs, stats, plug or unplug",
                   word);
    else
        (void)only_for(o, !a, a, &error); /* the error says it */
    if (error)
        return cli_fail(self->name, error, false);
    if (!name) {
        switch_list(options_has(o, "json"));
        return cli_finish(STATUS_OK);
    }
    if (a)
        return act(name, o, a, &error) ? cli_finish(STATUS_OK) : cli_fail(self->name, error, false);
    return options_has(o, "detach") ? serve_detached(self, name, o) : serve(self, name, o, -1);
}
