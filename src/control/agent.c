/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QEMU guest agent's protocol from the host's side. Spec: QEMU 7.2, qga/qapi-schema.json, and
 * "guest-sync-delimited" there: a request is a JSON object, answers come in order, and nothing ties
 * one to the other. So each turn at the port begins with the byte 0xFF, which throws away what
 * another client may have left half said, and guest-sync-delimited with a number of our own; all
 * that comes before a 0xFF with that number behind it is an answer to somebody else. No command is
 * sent before that: one that is sent to an agent that does not run would be carried out when it
 * starts, long after its sender has gone.
 *
 * What the agent says is the guest's, and hostile: json_scan.c bounds and checks it before it is
 * parsed, and an answer that is none ends the turn.
 */
#include "agent.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/error.h"

#include "agent_port.h"
#include "json_scan.h"

#define READ_BYTES 65536u
#define SENTINEL 0xff
#define CALL_SECONDS 60

struct Agent {
    char *name; /* owned */
    AgentJoinFn join;
    AgentWillFn will; /* NULL: there is none */
    const AgentOther *other; /* NULL: it is an agent, at a port */
    void *opaque; /* of join and will; or other's, owned */
    int fd;     /* owned; -1: it is not our turn */
    bool turn;  /* the last time that we asked for one, it came */
    bool heard; /* the agent has answered in this turn */
    int64_t number; /* of the last synchronisation */
    Json *json;
    JsonScan *scan;
    Jv last; /* owned: the value that came last */
    size_t at, len; /* of input */
    uint8_t input[READ_BYTES];
};

Agent *agent_new(const char *name, AgentJoinFn join, AgentWillFn will, void *opaque,
                 GError **error)
{
    Json *json = json_load(error);

    if (!json)
        return NULL;
    Agent *a = g_new0(Agent, 1);
    a->name = g_strdup(name);
    a->join = join;
    a->will = will;
    a->opaque = opaque;
    a->fd = -1;
    a->number = g_random_int_range(1, AGENT_NUMBERS);
    a->json = json;
    return a;
}

Agent *agent_new_other(const char *name, const AgentOther *other, void *opaque, GError **error)
{
    Agent *a = agent_new(name, NULL, NULL, opaque, error);

    if (a)
        a->other = other;
    else
        other->free(opaque);
    return a;
}

void agent_free(Agent *a)
{
    if (!a)
        return;
    agent_rest(a);
    if (a->other)
        a->other->free(a->opaque);
    jv_free(a->last);
    json_unload(a->json);
    json_scan_free(a->scan);
    g_free(a->name);
    g_free(a);
}

const char *agent_name(const Agent *a)
{
    return a->name;
}

bool agent_had_turn(const Agent *a)
{
    return a->turn;
}

void agent_rest(Agent *a)
{
    if (a->fd >= 0)
        close(a->fd);
    a->fd = -1;
    a->heard = false;
}

static bool silent(const Agent *a, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_BUSY,
                      a->heard ? "%s: the guest agent does not answer any more"
                               : "%s: no guest agent answers; the guest needs qemu-guest-agent, "
                                 "installed and running", a->name);
}

/* Until @events or the deadline. */
static bool wait_for(Agent *a, short events, int64_t deadline, GError **error)
{
    for (;;) {
        struct pollfd p = {.fd = a->fd, .events = events};
        int64_t left = deadline - g_get_monotonic_time();
        int n = poll(&p, 1, left > 0 ? (int)MIN((left + 999) / 1000, G_MAXINT) : 0);
        if (n > 0)
            return true;
        if (n == 0)
            return false;
        if (errno != EINTR)
            return lodge_fail_errno(error, errno, "%s", a->name);
    }
}

static bool gone(Agent *a, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_STATE, "%s: the connection to its guest agent ended",
                      a->name);
}

/* More input, where all of it was used. */
static bool refill(Agent *a, int64_t deadline, GError **error)
{
    while (a->at == a->len) {
        g_autoptr(GError) why = NULL;
        if (!wait_for(a, POLLIN, deadline, &why)) {
            if (!why)
                return silent(a, error);
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        ssize_t n = recv(a->fd, a->input, sizeof a->input, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
            return gone(a, error);
        a->at = 0;
        a->len = n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool send_all(Agent *a, const char *text, size_t len, int64_t deadline, GError **error)
{
    while (len) {
        ssize_t n = send(a->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            text += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            if (!wait_for(a, POLLOUT, deadline, NULL))
                return silent(a, error);
        } else if (errno != EINTR) {
            return gone(a, error);
        }
    }
    return true;
}

/* ---- values ---- */

typedef enum Next { NEXT_VALUE, NEXT_SENTINEL, NEXT_NONSENSE, NEXT_FAILED } Next;

static void fresh_scan(Agent *a)
{
    json_scan_free(a->scan);
    a->scan = json_scan_new();
}

/* The next value into a->last. NEXT_FAILED: @error. */
static Next next_value(Agent *a, int64_t deadline, GError **error)
{
    for (;;) {
        if (!refill(a, deadline, error))
            return NEXT_FAILED;
        const uint8_t *from = a->input + a->at;
        const uint8_t *mark = memchr(from, SENTINEL, a->len - a->at);
        size_t used = 0, len = mark ? (size_t)(mark - from) : a->len - a->at;
        JsonScanResult what = len ? json_scan_feed(a->scan, from, len, &used) : JSON_SCAN_MORE;
        a->at += used;
        if (what == JSON_SCAN_VALUE) {
            jv_clear(&a->last);
            a->last = jv_parse(a->json, json_scan_text(a->scan), NULL);
            return a->last.node ? NEXT_VALUE : NEXT_NONSENSE;
        }
        if (what != JSON_SCAN_MORE)
            return NEXT_NONSENSE;
        if (mark) {
            a->at++;
            return NEXT_SENTINEL;
        }
    }
}

static bool skip_to_sentinel(Agent *a, int64_t deadline, GError **error)
{
    for (;;) {
        if (!refill(a, deadline, error))
            return false;
        const uint8_t *from = a->input + a->at;
        const uint8_t *mark = memchr(from, SENTINEL, a->len - a->at);
        a->at = mark ? (size_t)(mark - a->input) + 1 : a->len;
        if (mark)
            return true;
    }
}

/* ---- turns ---- */

static bool await_turn(Agent *a, int64_t deadline, GError **error)
{
    g_autoptr(GError) why = NULL;
    a->at = a->len = 0;
    a->turn = false;
    a->fd = a->join(a->opaque, deadline, error);
    if (a->fd < 0)
        return false;
    if (!refill(a, deadline, &why)) {
        if (g_error_matches(why, LODGE_ERROR, LODGE_ERROR_BUSY))
            return lodge_fail(error, LODGE_ERROR_BUSY,
                              "%s: another client does not let go of the guest agent", a->name);
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
    if (a->input[a->at] == AGENT_TURN)
        a->at++;
    a->turn = true;
    return true;
}

static bool synchronise(Agent *a, int64_t deadline, GError **error)
{
    char text[128] = {(char)SENTINEL};
    bool at_mark = false;

    a->number++;
    g_snprintf(text + 1, sizeof text - 1,
               "{\"execute\": \"guest-sync-delimited\", \"arguments\": {\"id\": %" PRIi64 "}}\n",
               a->number);
    if (!send_all(a, text, strlen(text), deadline, error))
        return false;
    for (;;) {
        if (!at_mark && !skip_to_sentinel(a, deadline, error))
            return false;
        fresh_scan(a);
        Next what = next_value(a, deadline, error);
        if (what == NEXT_FAILED)
            return false;
        Jv answer = jv_get(a->last, "return");
        if (what == NEXT_VALUE && jv_kind(answer) == JV_INT && jv_int(answer) == a->number)
            return true;
        at_mark = what == NEXT_SENTINEL;
    }
}

bool agent_reach(Agent *a, int64_t deadline, GError **error)
{
    if (a->other)
        return a->other->reach(a->opaque, deadline, error);
    if (a->fd >= 0)
        return true;
    if (await_turn(a, deadline, error) && synchronise(a, deadline, error)) {
        a->heard = true;
        return true;
    }
    agent_rest(a);
    return false;
}

/* ---- calls ---- */

JsonOut *agent_begin(const char *command)
{
    JsonOut *out = json_out_new_line();

    json_object(out, NULL);
    json_string(out, "execute", command);
    json_object(out, "arguments");
    return out;
}

static bool ask(Agent *a, JsonOut *request, int64_t deadline, GError **error)
{
    const char *text = json_text(request);

    if (!agent_reach(a, deadline, error) || !send_all(a, text, strlen(text), deadline, error))
        return false;
    fresh_scan(a);
    Next what = next_value(a, deadline, error);
    if (what == NEXT_FAILED)
        return false;
    return (what == NEXT_VALUE &&
            (jv_get(a->last, "return").node || jv_get(a->last, "error").node)) ||
           lodge_fail(error, LODGE_ERROR_HOST, "%s: its guest agent answers nonsense", a->name);
}

/* Let the other one answer, into a->last. */
static Jv ask_other(Agent *a, JsonOut *request, int64_t deadline, GError **error)
{
    g_auto(Jv) asked = jv_parse(a->json, json_text(request), error);
    g_autofree char *answer = asked.node && a->other->reach(a->opaque, deadline, error)
                                  ? a->other->call(a->opaque, asked, error)
                                  : NULL;

    jv_clear(&a->last);
    if (answer)
        a->last = jv_parse(a->json, answer, error);
    return jv_get(a->last, "return");
}

Jv agent_call(Agent *a, JsonOut *request, int64_t deadline, GError **error)
{
    g_autoptr(JsonOut) out = request;
    Jv none = {NULL, NULL};

    if (a->other)
        return ask_other(a, out, deadline, error);
    if (!ask(a, out, deadline, error)) {
        agent_rest(a); /* what comes later would be taken for the next answer */
        return none;
    }
    Jv value = jv_get(a->last, "return"), fault = jv_get(a->last, "error");
    if (value.node)
        return value;
    const char *desc = jv_text(jv_get(fault, "desc"));
    lodge_fail(error, LODGE_ERROR_HOST, "%s: guest agent: %s", a->name, desc ? desc : "failed");
    return none;
}

int agent_leave_will(Agent *a, JsonOut *request)
{
    g_autoptr(JsonOut) out = request;
    g_autofree char *line = g_strchomp(g_strdup(json_text(out)));

    return a->will ? a->will(a->opaque, line) : -1;
}

void agent_void_will(int will)
{
    if (will < 0)
        return;
    (void)send(will, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* the machine may be gone */
    close(will);
}

int64_t agent_soon(void)
{
    return g_get_monotonic_time() + CALL_SECONDS * G_TIME_SPAN_SECOND;
}

int64_t agent_file_open(Agent *a, const char *path, const char *mode, GError **error)
{
    JsonOut *call = agent_begin("guest-file-open");

    json_string(call, "path", path);
    json_string(call, "mode", mode);
    Jv handle = agent_call(a, call, agent_soon(), error);
    return handle.node ? jv_int(handle) : -1;
}

bool agent_file_close(Agent *a, int64_t handle, GError **error)
{
    JsonOut *call = agent_begin("guest-file-close");

    json_number(call, "handle", handle);
    return agent_call(a, call, agent_soon(), error).node;
}

bool agent_file_write(Agent *a, int64_t handle, const void *data, size_t len, GError **error)
{
    JsonOut *call = agent_begin("guest-file-write");
    g_autofree char *text = g_base64_encode(data, len);

    json_number(call, "handle", handle);
    json_string(call, "buf-b64", text);
    Jv answer = agent_call(a, call, agent_soon(), error);
    return answer.node &&
           ((uint64_t)jv_int(jv_get(answer, "count")) == len ||
            lodge_fail(error, LODGE_ERROR_HOST, "%s: the guest took only a part", a->name));
}

bool agent_file_read(Agent *a, int64_t handle, uint8_t **ret_data, size_t *ret_len, GError **error)
{
    JsonOut *call = agent_begin("guest-file-read");

    json_number(call, "handle", handle);
    json_number(call, "count", AGENT_PIECE);
    Jv answer = agent_call(a, call, agent_soon(), error);
    if (answer.node)
        *ret_data = agent_take_bytes(jv_get(answer, "buf-b64"), ret_len);
    return answer.node;
}

uint8_t *agent_take_bytes(Jv text, size_t *ret_len)
{
    const char *s = jv_text(text);
    gsize len = 0;
    uint8_t *data = s && *s ? g_base64_decode(s, &len) : NULL;

    *ret_len = len;
    if (!len)
        g_clear_pointer(&data, g_free);
    return data;
}
