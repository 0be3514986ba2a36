/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A QMP client of the plainest kind: greeting, negotiation, one command at a time; events in
 * between are passed over. The path goes through the running folder's descriptor, as the server's
 * does, so that long names work.
 */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lodge/error.h"

#include "control.h"
#include "json_scan.h"
#include "registry.h"

#define READ_BYTES 65536u

struct Client {
    char *name; /* owned */
    int fd;
    bool talked; /* it has answered once */
    Json *json;
    JsonScan *scan;
    GByteArray *input;
    size_t input_at;
    Jv last; /* owned: the value that came last */
};

void client_free(Client *c)
{
    if (!c)
        return;
    jv_free(c->last);
    json_unload(c->json);
    json_scan_free(c->scan);
    if (c->input)
        g_byte_array_free(c->input, TRUE);
    if (c->fd >= 0)
        close(c->fd);
    g_free(c->name);
    g_free(c);
}

/* Until @events or the deadline. */
static bool wait_for(Client *c, short events, int64_t deadline, GError **error)
{
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = events};
        int64_t left = deadline - g_get_monotonic_time();
        int n = poll(&p, 1, left > 0 ? (int)MIN((left + 999) / 1000, G_MAXINT) : 0);
        if (n > 0)
            return true;
        if (n == 0)
            return lodge_fail(error, LODGE_ERROR_HOST, "%s: the machine does not answer", c->name);
        if (errno != EINTR)
            return lodge_fail_errno(error, errno, "%s", c->name);
    }
}

static bool gone(Client *c, GError **error)
{
    return lodge_fail(error, c->talked ? LODGE_ERROR_STATE : LODGE_ERROR_HOST,
                      c->talked ? "%s: the machine ended"
                                : "%s: the machine ended, or refused to talk",
                      c->name);
}

/* send() that passes @fd along; -1: none. */
static ssize_t send_with(int sock, const char *text, size_t len, int fd)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {0};
    struct iovec iov = {.iov_base = (char *)text, .iov_len = len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(h), &fd, sizeof fd);
    }
    return sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static bool send_all(Client *c, const char *text, int fd, int64_t deadline, GError **error)
{
    size_t len = strlen(text);
    while (len) {
        ssize_t n = send_with(c->fd, text, len, fd);
        if (n > 0) {
            fd = -1; /* it went with the first byte */
            text += n;
            len -= (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!wait_for(c, POLLOUT, deadline, error))
                return false;
        } else if (errno != EINTR) {
            return gone(c, error);
        }
    }
    return true;
}

/* The next value into c->last. */
static bool next_value(Client *c, int64_t deadline, GError **error)
{
    for (;;) {
        size_t used = 0;
        JsonScanResult what = JSON_SCAN_MORE;
        if (c->input_at < c->input->len)
            what = json_scan_feed(c->scan, c->input->data + c->input_at,
                                  c->input->len - c->input_at, &used);
        c->input_at += used;
        if (what == JSON_SCAN_VALUE) {
            jv_clear(&c->last);
            c->last = jv_parse(c->json, json_scan_text(c->scan), error);
            return c->last.node != NULL;
        }
        if (what != JSON_SCAN_MORE)
            return lodge_fail(error, LODGE_ERROR_HOST, "%s: %s", c->name,
                              json_scan_text(c->scan));
        if (!wait_for(c, POLLIN, deadline, error))
            return false;
        g_byte_array_set_size(c->input, READ_BYTES);
        ssize_t n = recv(c->fd, c->input->data, READ_BYTES, 0);
        g_byte_array_set_size(c->input, n > 0 ? (guint)n : 0);
        c->input_at = 0;
        if (n == 0 || (n < 0 && errno != EINTR))
            return gone(c, error);
    }
}

JsonOut *client_begin(const char *command)
{
    JsonOut *out = json_out_new_line();
    json_object(out, NULL);
    json_string(out, "execute", command);
    json_object(out, "arguments");
    return out;
}

int client_fd(const Client *c)
{
    return c->fd;
}

bool client_discard(Client *c)
{
    for (;;) {
        while (c->input_at < c->input->len) {
            size_t used;
            JsonScanResult what = json_scan_feed(c->scan, c->input->data + c->input_at,
                                                 c->input->len - c->input_at, &used);
            if (what == JSON_SCAN_ERROR || what == JSON_SCAN_LIMIT)
                return false;
            c->input_at += used;
        }
        g_byte_array_set_size(c->input, READ_BYTES);
        ssize_t n = recv(c->fd, c->input->data, READ_BYTES, MSG_DONTWAIT);
        int err = errno;
        g_byte_array_set_size(c->input, n > 0 ? (guint)n : 0);
        c->input_at = 0;
        if (n == 0 || (n < 0 && err != EINTR))
            return n < 0 && (err == EAGAIN || err == EWOULDBLOCK);
    }
}

Jv client_call(Client *c, JsonOut *request, int64_t deadline, GError **error)
{
    return client_call_fd(c, request, -1, deadline, error);
}

Jv client_call_fd(Client *c, JsonOut *request, int fd, int64_t deadline, GError **error)
{
    g_autoptr(JsonOut) out = request;
    Jv none = {NULL, NULL};
    if (json_is_lossy(out)) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "%s: a word is no UTF-8, which is all that the control socket takes; give a "
                   "file a link with such a name", c->name);
        return none;
    }
    if (!send_all(c, json_text(out), fd, deadline, error))
        return none;
    for (;;) {
        if (!next_value(c, deadline, error))
            return none;
        Jv value = jv_get(c->last, "return"), fault = jv_get(c->last, "error");
        if (value.node)
            return value;
        if (!fault.node)
            continue; /* an event */
        const char *class = jv_text(jv_get(fault, "class")), *desc = jv_text(jv_get(fault, "desc"));
        bool missing = !g_strcmp0(class, "DeviceNotFound");
        lodge_fail(error, missing ? LODGE_ERROR_NOT_FOUND : LODGE_ERROR_HOST, "%s: %s", c->name,
                   desc ? desc : "failed");
        return none;
    }
}

Jv client_event(Client *c, int64_t deadline, GError **error)
{
    Jv none = {NULL, NULL};
    do {
        if (!next_value(c, deadline, error))
            return none;
    } while (!jv_get(c->last, "event").node);
    return c->last;
}

const Json *client_json(const Client *c)
{
    return c->json;
}

/* A socket connected to @dir's machine, or -1. */
static int reach(const char *name, const char *dir, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd = dir_fd < 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/" CONTROL_SOCKET,
               dir_fd);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    int err = errno;
    if (dir_fd >= 0)
        close(dir_fd);
    if (ok)
        return fd;
    if (fd >= 0)
        close(fd);
    if (err == ENOENT || err == ECONNREFUSED)
        (void)registry_not_running(name, error);
    else
        lodge_fail_errno(error, err, "%s: cannot reach the machine", name);
    return -1;
}

Client *client_connect(const char *name, int64_t deadline, GError **error)
{
    g_autofree char *dir = registry_locate(name, error);
    if (!dir)
        return NULL;
    g_autoptr(Client) c = g_new0(Client, 1);
    c->name = g_strdup(name);
    c->fd = reach(name, dir, error);
    if (c->fd < 0)
        return NULL;
    c->json = json_load(error);
    if (!c->json)
        return NULL;
    c->scan = json_scan_new();
    c->input = g_byte_array_new();
    if (!next_value(c, deadline, error))
        return NULL;
    if (!jv_get(c->last, "QMP").node) {
        const char *desc = jv_text(jv_get(jv_get(c->last, "error"), "desc"));
        lodge_fail(error, LODGE_ERROR_HOST, "%s: %s", name, desc ? desc : "speaks no QMP");
        return NULL;
    }
    Jv answer = client_call(c, client_begin("qmp_capabilities"), deadline, error);
    c->talked = true;
    return answer.node ? g_steal_pointer(&c) : NULL;
}
