/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge net": what --net can name, or the networks of a running machine. "lodge capture": what
 * passes one of them, as pcap. The machine writes into a pipe of ours; whole records go on to
 * standard output or a file, so that an interrupted capture is a good one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/json_out.h"
#include "lodge/net.h"
#include "lodge/num.h"

#include "machines.h"
#include "run_compile.h"

enum {
    ANSWER_SECONDS = 30,
    PCAP_HEADER = 24,
    PCAP_RECORD = 16,
    RECORD_MAX = 1 << 20, /* more is no record */
    READ_BYTES = 64 << 10,
};
#define FD_NAME "capture"

const OptSpec net_options_table[] = {
    {"publish", 'p', "[ADDR:]HOST:GUEST[/udp]",
     "Lead a port of the host to the guest; HOST 0 takes a free one, which is printed.", NULL,
     OPT_REPEAT},
    {"unpublish", 0, "[ADDR:]HOST[/udp]", "Let go of a port of the host.", NULL, OPT_REPEAT},
    {"filter", 'f', "[N:]FILE|off",
     "Have the rules in FILE decide what passes network N (0 unless said), from now on; off: all.",
     NULL, OPT_REPEAT},
    OPT_JSON,
    {NULL},
};

const OptSpec capture_options_table[] = {
    {"write", 'w', "FILE", "Write there, not to standard output."},
    {"count", 'c', "N", "End after N frames."},
    {NULL},
};

static int64_t soon(void)
{
    return g_get_monotonic_time() + ANSWER_SECONDS * G_TIME_SPAN_SECOND;
}

static const char *text_of(Jv v, const char *key)
{
    const char *text = jv_text(jv_get(v, key));
    return text ? text : "";
}

/* ---- net ---- */

static void print_filter(Jv f)
{
    Jv rules = jv_get(f, "rules");

    printf("    filter %s\n", text_of(f, "name"));
    for (size_t i = 0; i < jv_length(rules); i++) {
        Jv r = jv_at(rules, i);
        printf("        %10" PRId64 " frames %12" PRId64 " bytes  ", jv_int(jv_get(r, "frames")),
               jv_int(jv_get(r, "bytes")));
        if (jv_get(r, "line").node)
            printf("%" PRId64 ": ", jv_int(jv_get(r, "line")));
        printf("%s\n", text_of(r, "rule"));
    }
}

static void print_forwards(Jv forwards)
{
    for (size_t i = 0; i < jv_length(forwards); i++) {
        Jv f = jv_at(forwards, i);
        printf("    port %s:%" PRId64 " (%s) leads to %s%s%" PRId64 "\n", text_of(f, "host"),
               jv_int(jv_get(f, "host-port")), text_of(f, "protocol"), text_of(f, "guest"),
               *text_of(f, "guest") ? ":" : "port ", jv_int(jv_get(f, "guest-port")));
    }
}

static void print_net(Jv n)
{
    Jv drops = jv_get(n, "drops"), seen = jv_get(n, "addresses"), filter = jv_get(n, "filter");
    Jv queues = jv_get(n, "queues");

    printf("%s: %s%s%s, %s, link %s\n", text_of(n, "id"), text_of(n, "model"),
           *text_of(n, "mac") ? " " : "no card", text_of(n, "mac"), text_of(n, "to"),
           jv_bool(jv_get(n, "link")) ? "up" : "down");
    for (int tx = 0; tx < 2; tx++) {
        printf("    %s %" PRId64 " frames, %" PRId64 " bytes, dropped %" PRId64 "\n",
               tx ? "sent" : "received", jv_int(jv_get(n, tx ? "tx-frames" : "rx-frames")),
               jv_int(jv_get(n, tx ? "tx-bytes" : "rx-bytes")),
               jv_int(jv_get(n, tx ? "tx-dropped" : "rx-dropped")));
    }
    for (size_t i = 0; i < jv_length(queues); i++) {
        Jv q = jv_at(queues, i);
        printf("    queues %zu: %sreceived %" PRId64 " frames, sent %" PRId64 "\n", i,
               jv_bool(jv_get(q, "used")) ? "" : "not in use, ", jv_int(jv_get(q, "rx-frames")),
               jv_int(jv_get(q, "tx-frames")));
    }
    for (size_t i = 0; i < jv_length(drops); i++) {
        Jv d = jv_at(drops, i);
        printf("    dropped %" PRId64 ": %s\n", jv_int(jv_get(d, "frames")), text_of(d, "reason"));
    }
    for (size_t i = 0; i < jv_length(seen); i++) {
        Jv a = jv_at(seen, i);
        printf("    address %s, %s (%s)\n", text_of(a, "address"), text_of(a, "mac"),
               text_of(a, "how"));
    }
    print_forwards(jv_get(n, "forwards"));
    if (filter.node)
        print_filter(filter);
}

static bool show_nets(Client *c, const char *name, bool json, GError **error)
{
    Jv list = client_call(c, client_begin("x-lodge-net"), soon(), error);

    if (!list.node)
        return false;
    if (json)
        machines_print(name, "networks", list);
    for (size_t i = 0; !json && i < jv_length(list); i++)
        print_net(jv_at(list, i));
    return true;
}

static bool publish(Client *c, const char *text, GError **error)
{
    g_autofree char *rule = publish_rule(text, error);

    if (!rule)
        return false;
    JsonOut *call = client_begin("x-lodge-hostfwd-add");
    json_string(call, "rule", rule);
    Jv made = client_call(c, call, soon(), error);
    if (made.node)
        printf("%s\n", text_of(made, "host"));
    return made.node != NULL;
}

static bool unpublish(Client *c, const char *text, GError **error)
{
    g_autofree char *rule = unpublish_rule(text, error);

    if (!rule)
        return false;
    JsonOut *call = client_begin("x-lodge-hostfwd-remove");
    json_string(call, "rule", rule);
    return client_call(c, call, soon(), error).node != NULL;
}

/* @text: [N:]FILE, or [N:]off. What is before the first colon is N where it is a number. */
static bool change_filter(Client *c, const char *text, GError **error)
{
    const char *colon = strchr(text, ':'), *path = text;
    g_autofree char *number = colon ? g_strndup(text, (gsize)(colon - text)) : NULL;
    guint64 index = 0;
    size_t len;

    if (number && g_ascii_string_to_unsigned(number, 10, 0, 99, &index, NULL))
        path = colon + 1;
    if (!*path)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--filter: \"%s\": write [N:]FILE or off",
                          text);
    bool off = !strcmp(path, "off");
    g_autofree char *rules = off ? NULL : net_filter_read(path, &len, error);
    if (!off && !rules)
        return g_prefix_error(error, "--filter: "), false;
    if (rules && (strlen(rules) != len || !g_utf8_validate(rules, -1, NULL)))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--filter: \"%s\": is no text", path);
    g_autofree char *net = g_strdup_printf("net%u", (unsigned)index);
    JsonOut *call = client_begin("x-lodge-net-filter");
    json_string(call, "netdev", net);
    if (rules) {
        json_string(call, "rules", rules);
        json_string(call, "name", path);
    }
    return client_call(c, call, soon(), error).node != NULL;
}

static bool net_run(Options *o, GError **error)
{
    const char *name = g_ptr_array_index(o->args, 0);
    g_autoptr(Client) c = client_connect(name, soon(), error);
    bool changes = options_has(o, "publish") || options_has(o, "unpublish") ||
                   options_has(o, "filter");

    if (!c)
        return false;
    for (const OptValue *v = NULL; (v = options_next(o, "filter", v));) {
        if (!change_filter(c, v->text, error))
            return false;
    }
    for (const OptValue *v = NULL; (v = options_next(o, "unpublish", v));) {
        if (!unpublish(c, v->text, error))
            return false;
    }
    for (const OptValue *v = NULL; (v = options_next(o, "publish", v));) {
        if (!publish(c, v->text, error))
            return false;
    }
    return changes || show_nets(c, name, options_has(o, "json"), error);
}

static void list_options(const NetOptSpec *opts)
{
    for (const NetOptSpec *p = opts; p->name; p++)
        printf("    %s  %s\n", p->name, p->help);
}

static void print_options(JsonOut *j, const char *key, const NetOptSpec *opts)
{
    json_array(j, key);
    for (const NetOptSpec *p = opts; p->name; p++) {
        json_object(j, NULL);
        json_string(j, "name", p->name);
        json_string(j, "help", p->help);
        json_bool(j, "repeat", p->repeat);
        json_end(j);
    }
    json_end(j);
}

/* What --net can name. */
static void list_drivers(bool json)
{
    g_autoptr(JsonOut) j = json_out_new();

    json_object(j, NULL);
    json_number(j, "schema", 1);
    json_array(j, "backends");
    for (const NetDriver *const *d = net_driver_table; *d; d++) {
        json_object(j, NULL);
        json_string(j, "name", (*d)->name);
        json_string(j, "help", (*d)->help);
        json_string(j, "target", (*d)->target);
        print_options(j, "options", (*d)->opts);
        json_end(j);
        if (json)
            continue;
        printf("%s: %s\n", (*d)->name, (*d)->help);
        list_options((*d)->opts);
    }
    json_end(j);
    print_options(j, "common", net_common_opts);
    if (json) {
        fputs(json_text(j), stdout);
    } else {
        printf("all but none:\n");
        list_options(net_common_opts);
    }
}

int verb_net(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);

    if (o && !o->args->len && (options_has(o, "publish") || options_has(o, "unpublish") ||
                               options_has(o, "filter")))
        lodge_fail(&error, LODGE_ERROR_CONFIG, "which machine? write lodge net NAME");
    else if (o && !o->args->len)
        list_drivers(options_has(o, "json"));
    if (error || (o->args->len && !net_run(o, &error)))
        return cli_fail(self->name, error, false);
    return cli_finish(STATUS_OK);
}

/* ---- capture ---- */

typedef struct Capture {
    int from, to;     /* owned; to: -1 until it is opened */
    uint64_t left;    /* frames */
    GByteArray *have; /* owned; read and not yet passed on */
    bool begun;       /* the header is through */
} Capture;

static void capture_clear(Capture *x)
{
    if (x->from >= 0)
        close(x->from);
    if (x->to >= 0 && x->to != STDOUT_FILENO)
        close(x->to);
    if (x->have)
        g_byte_array_unref(x->have);
}

static bool write_whole(int fd, const uint8_t *data, size_t len, GError **error)
{
    while (len) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lodge_fail_errno(error, errno, "cannot write the capture");
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* Pass on what is whole. */
static bool pass_on(Capture *x, GError **error)
{
    size_t at = 0, len;

    for (; x->left; at += len) {
        const uint8_t *p = x->have->data + at;
        size_t there = x->have->len - at;
        if (there < (x->begun ? PCAP_RECORD : PCAP_HEADER))
            break;
        len = x->begun ? PCAP_RECORD + (size_t)load_le32(p + 8) : PCAP_HEADER;
        if (len > RECORD_MAX)
            return lodge_fail(error, LODGE_ERROR_IMAGE, "the machine sent no capture");
        if (there < len)
            break;
        if (x->begun)
            x->left--;
        x->begun = true;
    }
    bool ok = write_whole(x->to, x->have->data, at, error);
    g_byte_array_remove_range(x->have, 0, (guint)at);
    return ok;
}

/* Have the machine write to us. */
static bool hand_over(Client *c, const char *net, int fd, GError **error)
{
    JsonOut *call = client_begin("getfd");
    json_string(call, "fdname", FD_NAME);
    if (!client_call_fd(c, call, fd, soon(), error).node)
        return false;
    call = client_begin("x-lodge-capture");
    json_string(call, "netdev", net);
    json_string(call, "fdname", FD_NAME);
    return client_call(c, call, soon(), error).node != NULL;
}

static bool carry(Capture *x, GError **error)
{
    sigset_t set;
    uint8_t *buf;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int stop = signalfd(-1, &set, SFD_CLOEXEC);
    if (stop < 0)
        return lodge_fail_errno(error, errno, "cannot wait for signals");
    buf = g_malloc(READ_BYTES);
    bool ok = true;
    while (ok && x->left) {
        struct pollfd p[2] = {{.fd = x->from, .events = POLLIN}, {.fd = stop, .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            break;
        if (p[1].revents)
            break;
        ssize_t n = read(x->from, buf, READ_BYTES);
        if (n == 0)
            break; /* the machine has ended */
        if (n < 0)
            continue;
        g_byte_array_append(x->have, buf, (guint)n);
        ok = pass_on(x, error);
    }
    g_free(buf);
    close(stop);
    return ok;
}

static bool capture_open(Capture *x, const Options *o, GError **error)
{
    const char *file = options_text(o, "write"), *count = options_text(o, "count");

    x->left = UINT64_MAX;
    if (count && (!g_ascii_string_to_unsigned(count, 10, 1, UINT64_MAX, &x->left, NULL)))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--count: \"%s\": is not a number from 1",
                          count);
    x->to = STDOUT_FILENO;
    if (!file && isatty(STDOUT_FILENO))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "standard output is a terminal; add -w FILE or | tcpdump -r -");
    if (file && strcmp(file, "-"))
        x->to = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (x->to < 0)
        return lodge_fail_errno(error, errno, "%s: cannot create the capture", file);
    return true;
}

static bool capture_run(Options *o, GError **error)
{
    g_auto(GStrv) part = g_strsplit(g_ptr_array_index(o->args, 0), ":", 2);
    guint64 index = 0;
    int pipes[2];

    if (part[1] && !g_ascii_string_to_unsigned(part[1], 10, 0, 99, &index, NULL))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "\"%s\": is no number of a card", part[1]);
    g_autofree char *net = g_strdup_printf("net%u", (unsigned)index);
    g_autoptr(Client) c = client_connect(part[0], soon(), error);
    Capture x = {.from = -1, .to = -1};
    if (!c)
        return false;
    bool ok = capture_open(&x, o, error);
    if (ok && pipe2(pipes, O_CLOEXEC) < 0)
        ok = lodge_fail_errno(error, errno, "cannot make a pipe");
    else if (ok) {
        x.from = pipes[0];
        x.have = g_byte_array_new();
        ok = hand_over(c, net, pipes[1], error);
        close(pipes[1]);
        ok = ok && carry(&x, error);
    }
    capture_clear(&x);
    return ok;
}

int verb_capture(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);

    if (o && !o->args->len)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "which machine? write lodge capture NAME[:N]");
    if (error || !capture_run(o, &error))
        return cli_fail(self->name, error, false);
    return STATUS_OK;
}
