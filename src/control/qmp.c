/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP over sockets and standard streams. Spec: QEMU docs/interop/qmp-spec.rst as 7.2 speaks it: a
 * greeting, negotiation by qmp_capabilities, then commands; answers come in the order of the
 * commands, each on a line of its own that ends in CR LF. Left out: out-of-band execution (not
 * among the capabilities).
 *
 * Everything runs on the main loop and nothing waits. A client is bounded in each direction: input
 * is read only while there is room for its answers and no command is under way; a value has a
 * ceiling (json_scan.h); who lets more than OUT_MAX bytes of answers and events pile up is dropped.
 * Clients beyond CLIENTS_MAX are told so and dropped. A client that goes away cancels what it waits
 * for, and nothing else.
 *
 * Invariants: (1) at most one command of a client is under way. (2) A client is freed by
 * client_free() only, from a source of its own or from qmp_free(); events mark a client as dropped
 * and leave it to its source, since they are sent in the middle of others' commands.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib-unix.h>

#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/listener.h"

#include "control_internal.h"
#include "endpoint.h"
#include "json_scan.h"

#define CLIENTS_MAX 16u
#define READ_BYTES 65536u
#define OUT_PAUSE (64u * 1024u)       /* bytes unsent, from which on no more input is taken */
#define OUT_MAX (4u * 1024u * 1024u) /* bytes unsent, from which on a client is dropped */
#define FDS_MAX 4u /* taken with one reading; of those that pass the last is kept */

typedef struct QmpClient {
    Qmp *qmp;
    int fd, out_fd; /* owned; one socket, or what we are given as standard streams */
    guint in, out; /* sources; 0: not there */
    GByteArray *input;
    size_t input_at; /* what of it was taken */
    JsonScan *scan;
    GString *unsent;
    ControlFds *fds; /* owned */
    bool negotiated;
    bool eof;       /* no more input will come */
    bool dropped;   /* to be freed by the next source */
    ControlReply *waiting; /* of the command under way; NULL: none */
} QmpClient;

typedef struct QmpReply {
    ControlReply reply; /* first */
    QmpClient *client;
    Jv id; /* owned with its root */
    Jv root;
} QmpReply;

/* Where else than at the machine's own socket clients come. */
typedef struct Door {
    Endpoint at; /* its socket is the listener's */
    Listener *listener;
} Door;

struct Qmp {
    Control *control;
    Listener *listener; /* owned, or NULL */
    GPtrArray *doors;   /* owned: Door */
    GPtrArray *clients;
};

static gboolean on_answered(gpointer opaque);

void qmp_print_version(JsonOut *out, const char *key)
{
    json_object(out, key);
    json_object(out, "qemu"); /* whose protocol is spoken */
    json_number(out, "micro", 0);
    json_number(out, "minor", 2);
    json_number(out, "major", 7);
    json_end(out);
    json_string(out, "package", "lodge " LODGE_VERSION);
    json_end(out);
}

/* ---- output ---- */

/* As control_flush(), to a pipe, file or terminal that others may share, which is left blocking:
 * what a pipe takes in one piece does not block once it is writable. */
static bool flush_stream(int fd, GString *unsent)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    while (unsent->len && poll(&p, 1, 0) > 0) {
        ssize_t n = write(fd, unsent->str, MIN(unsent->len, (gsize)PIPE_BUF));
        if (n > 0)
            g_string_erase(unsent, 0, n);
        else if (n == 0 || (errno != EINTR && errno != EAGAIN))
            return false;
    }
    return true;
}

static void client_flush(QmpClient *cl)
{
    bool same = cl->fd == cl->out_fd;
    if (!cl->dropped &&
        !(same ? control_flush(cl->fd, cl->unsent) : flush_stream(cl->out_fd, cl->unsent)))
        cl->dropped = true;
}

static void client_say(QmpClient *cl, const char *line)
{
    if (cl->dropped)
        return;
    if (cl->unsent->len + strlen(line) > OUT_MAX) {
        cl->dropped = true;
        g_string_truncate(cl->unsent, 0);
        return;
    }
    g_string_append(cl->unsent, line);
}

static void say_error(QmpClient *cl, Jv id, const char *class, const char *text)
{
    g_autoptr(JsonOut) out = json_out_new_line();
    json_object(out, NULL);
    if (jv_kind(id) != JV_ABSENT)
        jv_print(id, out, "id");
    json_object(out, "error");
    json_string(out, "class", class);
    json_string(out, "desc", text);
    client_say(cl, json_text(out));
}

/* Context: main; of a command that said it would answer later, or of run_command(). */
static void reply_send(ControlReply *r, const GError *error)
{
    QmpReply *qr = (QmpReply *)r;
    QmpClient *cl = qr->client;
    bool was_later = r->later;
    if (error) {
        say_error(cl, qr->id, command_error_class(error), error->message);
    } else {
        if (!r->returned) {
            json_object(r->out, "return");
            json_end(r->out);
        }
        if (jv_kind(qr->id) != JV_ABSENT)
            jv_print(qr->id, r->out, "id");
        client_say(cl, json_text(r->out));
    }
    json_out_free(r->out);
    jv_free(qr->root);
    g_free(qr);
    cl->waiting = NULL;
    if (was_later) {
        /* What comes next is for the loop: this may be the middle of a change of the machine. */
        client_flush(cl);
        g_clear_handle_id(&cl->in, g_source_remove);
        cl->in = g_idle_add(on_answered, cl);
    }
}

/* ---- commands ---- */

static void run_command(QmpClient *cl, const Command *cmd, Jv *root, Jv args, Jv id)
{
    g_autoptr(GError) error = NULL;
    QmpReply *qr = g_new0(QmpReply, 1);
    qr->client = cl;
    qr->id = id;
    qr->root = *root;
    root->node = NULL; /* the reply's now */
    qr->reply.send = reply_send;
    qr->reply.fds = cl->fds;
    qr->reply.out = json_out_new_line();
    json_object(qr->reply.out, NULL);
    cl->waiting = &qr->reply;
    if (!command_check(cmd, args, &error) ||
        !cmd->run(cl->qmp->control, args, &qr->reply, &error))
        reply_send(&qr->reply, error);
    else if (!qr->reply.later)
        reply_send(&qr->reply, NULL);
}

static bool check_capabilities(Jv args, GError **error)
{
    Jv enable = jv_get(args, "enable");
    if (!command_check(&command_negotiate, args, error))
        return false;
    if (jv_length(enable))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "Capability %s not available",
                          jv_text(jv_at(enable, 0)) ? jv_text(jv_at(enable, 0)) : "");
    return true;
}

/* Shape of a command; the command's name, or NULL with the error. */
static const char *check_shape(Jv root, GError **error)
{
    if (jv_kind(root) != JV_OBJECT) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "QMP input must be a JSON object");
        return NULL;
    }
    g_autoptr(GList) names = jv_names(root);
    for (GList *n = names; n; n = n->next) {
        Jv v = jv_get(root, n->data);
        const char *wrong = NULL;
        if (!strcmp(n->data, "execute"))
            wrong = jv_kind(v) == JV_STRING ? NULL : "must be a string";
        else if (!strcmp(n->data, "arguments"))
            wrong = jv_kind(v) == JV_OBJECT ? NULL : "must be an object";
        else if (strcmp(n->data, "id"))
            wrong = "is unexpected";
        if (wrong) {
            lodge_fail(error, LODGE_ERROR_CONFIG, "QMP input member '%s' %s",
                       (const char *)n->data, wrong);
            return NULL;
        }
    }
    const char *name = jv_text(jv_get(root, "execute"));
    if (!name)
        lodge_fail(error, LODGE_ERROR_CONFIG, "QMP input lacks member 'execute'");
    return name;
}

static void negotiate(QmpClient *cl, Jv args, Jv id)
{
    g_autoptr(GError) error = NULL;
    if (!check_capabilities(args, &error)) {
        say_error(cl, id, "GenericError", error->message);
        return;
    }
    g_autoptr(JsonOut) out = json_out_new_line();
    json_object(out, NULL);
    json_object(out, "return");
    json_end(out);
    if (jv_kind(id) != JV_ABSENT)
        jv_print(id, out, "id");
    cl->negotiated = true;
    client_say(cl, json_text(out));
}

static void take_value(QmpClient *cl, const char *text)
{
    g_autoptr(GError) error = NULL;
    const Json *json = control_json(cl->qmp->control, &error);
    g_auto(Jv) root = {NULL, NULL};
    if (json)
        root = jv_parse(json, text, &error);
    const char *name = root.node ? check_shape(root, &error) : NULL;
    Jv id = jv_get(root, "id");
    if (!name) {
        say_error(cl, id, "GenericError", error->message);
        return;
    }
    Jv args = jv_get(root, "arguments");
    bool capabilities = !strcmp(name, "qmp_capabilities");
    const Command *cmd = command_find(name);
    if (capabilities && !cl->negotiated) {
        negotiate(cl, args, id);
    } else if (capabilities) {
        say_error(cl, id, "CommandNotFound",
                  "Capabilities negotiation is already complete, command ignored");
    } else if (!cl->negotiated) {
        say_error(cl, id, "CommandNotFound",
                  "Expecting capabilities negotiation with 'qmp_capabilities'");
    } else if (!cmd) {
        g_autofree char *why = g_strdup_printf("The command %s has not been found", name);
        say_error(cl, id, "CommandNotFound", why);
    } else {
        run_command(cl, cmd, &root, args, id);
    }
}

/* ---- input ---- */

static bool may_go_on(const QmpClient *cl)
{
    return !cl->waiting && !cl->dropped && cl->unsent->len < OUT_PAUSE;
}

/* Carry out what has come in, as long as there is room for the answers. */
static void client_work(QmpClient *cl)
{
    Jv absent = {NULL, NULL};
    while (may_go_on(cl) && cl->input_at < cl->input->len) {
        size_t used;
        JsonScanResult what = json_scan_feed(cl->scan, cl->input->data + cl->input_at,
                                             cl->input->len - cl->input_at, &used);
        cl->input_at += used;
        if (what == JSON_SCAN_VALUE)
            take_value(cl, json_scan_text(cl->scan));
        else if (what != JSON_SCAN_MORE)
            say_error(cl, absent, "GenericError", json_scan_text(cl->scan));
        if (what == JSON_SCAN_LIMIT) {
            cl->eof = true; /* what was said is sent, then it ends */
            cl->input_at = cl->input->len;
        }
        client_flush(cl);
    }
    if (cl->input_at == cl->input->len) {
        g_byte_array_set_size(cl->input, 0);
        cl->input_at = 0;
    }
}

static void client_free(gpointer opaque)
{
    QmpClient *cl = opaque;
    if (cl->waiting) {
        QmpReply *qr = (QmpReply *)cl->waiting;
        qr->reply.cancel(&qr->reply);
        json_out_free(qr->reply.out);
        jv_free(qr->root);
        g_free(qr);
    }
    g_clear_handle_id(&cl->in, g_source_remove);
    g_clear_handle_id(&cl->out, g_source_remove);
    close(cl->fd);
    if (cl->out_fd != cl->fd)
        close(cl->out_fd);
    control_fds_free(cl->fds);
    json_scan_free(cl->scan);
    g_byte_array_free(cl->input, TRUE);
    g_string_free(cl->unsent, TRUE);
    g_free(cl);
}

static void client_update(QmpClient *cl);

/* recv() that takes descriptors too. */
static ssize_t receive(QmpClient *cl, void *to, size_t len)
{
    union {
        char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec iov = {.iov_base = to, .iov_len = len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                       .msg_controllen = sizeof control};
    if (cl->fd != cl->out_fd)
        return read(cl->fd, to, len);
    ssize_t n = recvmsg(cl->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return n;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            control_fds_received(cl->fds, fd);
        }
    }
    return n;
}

static gboolean on_input(int fd, GIOCondition condition, gpointer opaque)
{
    QmpClient *cl = opaque;
    cl->in = 0;
    if (may_go_on(cl) && !cl->eof && cl->input_at == cl->input->len) {
        g_byte_array_set_size(cl->input, READ_BYTES);
        ssize_t n = receive(cl, cl->input->data, READ_BYTES);
        g_byte_array_set_size(cl->input, n > 0 ? (guint)n : 0);
        cl->input_at = 0;
        if (n == 0)
            cl->eof = true;
        else if (n < 0 && errno != EAGAIN && errno != EINTR)
            cl->dropped = true;
    } else if (condition & (G_IO_HUP | G_IO_ERR)) {
        cl->dropped = true;
    }
    client_update(cl);
    return G_SOURCE_REMOVE;
}

static gboolean on_answered(gpointer opaque)
{
    QmpClient *cl = opaque;
    cl->in = 0;
    client_update(cl);
    return G_SOURCE_REMOVE;
}

static gboolean on_output(int fd, GIOCondition condition, gpointer opaque)
{
    QmpClient *cl = opaque;
    cl->out = 0;
    client_update(cl);
    return G_SOURCE_REMOVE;
}

static gboolean on_dropped(gpointer opaque)
{
    QmpClient *cl = opaque;
    cl->in = 0;
    (void)g_ptr_array_remove_fast(cl->qmp->clients, cl); /* frees it */
    return G_SOURCE_REMOVE;
}

/* Go on with what can be gone on with, then wait for what is to come. Leaves the client there even
 * where it is to be dropped: its next source does that, keeps (2). */
static void client_update(QmpClient *cl)
{
    client_flush(cl);
    client_work(cl);
    client_flush(cl);
    bool more = cl->input_at < cl->input->len;
    if (cl->eof && !more && !cl->waiting && !cl->unsent->len)
        cl->dropped = true;
    g_clear_handle_id(&cl->in, g_source_remove);
    g_clear_handle_id(&cl->out, g_source_remove);
    if (cl->dropped) {
        cl->in = g_idle_add(on_dropped, cl);
        return;
    }
    /* HUP alone, where no input is wanted, tells that the client is gone. */
    bool read = may_go_on(cl) && !more && !cl->eof;
    /* HUP of a stream that is only read says what EOF says. */
    if (cl->fd == cl->out_fd || read)
        cl->in = g_unix_fd_add(cl->fd, (read ? G_IO_IN : 0) | G_IO_HUP | G_IO_ERR, on_input, cl);
    if (cl->unsent->len)
        cl->out = g_unix_fd_add(cl->out_fd, G_IO_OUT, on_output, cl);
}

/* ---- clients ---- */

void qmp_add_client(Qmp *q, int fd, int out_fd)
{
    QmpClient *cl = g_new0(QmpClient, 1);
    cl->qmp = q;
    cl->fd = fd;
    cl->out_fd = out_fd;
    cl->input = g_byte_array_new();
    cl->scan = json_scan_new();
    cl->unsent = g_string_new(NULL);
    cl->fds = control_fds_new();
    g_ptr_array_add(q->clients, cl);
    g_autoptr(JsonOut) out = json_out_new_line();
    json_object(out, NULL);
    json_object(out, "QMP");
    qmp_print_version(out, "version");
    json_array(out, "capabilities");
    client_say(cl, json_text(out));
    client_update(cl);
}

static void refuse(int fd)
{
    static const char line[] = "{\"error\": {\"class\": \"GenericError\", \"desc\": "
                               "\"too many clients; close one of them\"}}\r\n";
    ssize_t n = send(fd, line, sizeof line - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n; /* an empty socket takes it, unless its owner has gone already */
    close(fd);
}

static void on_connect(int fd, void *opaque)
{
    Qmp *q = opaque;

    if (q->clients->len >= CLIENTS_MAX)
        refuse(fd);
    else
        qmp_add_client(q, fd, fd);
}

void qmp_event(Qmp *q, const char *line)
{
    for (unsigned i = 0; i < q->clients->len; i++) {
        QmpClient *cl = g_ptr_array_index(q->clients, i);
        if (!cl->negotiated)
            continue;
        client_say(cl, line);
        client_flush(cl);
        /* The rest goes when there is room; what runs now may be this client's own command. */
        if (cl->dropped) {
            g_clear_handle_id(&cl->in, g_source_remove);
            cl->in = g_idle_add(on_dropped, cl);
        } else if (cl->unsent->len && !cl->out) {
            cl->out = g_unix_fd_add(cl->out_fd, G_IO_OUT, on_output, cl);
        }
    }
}

/* ---- doors that a person named ---- */

static void door_free(gpointer opaque)
{
    Door *d = opaque;
    listener_free(d->listener);
    endpoint_clear(&d->at);
    g_free(d);
}

/* Our own two streams; others that have them are not disturbed when the client is gone. */
static bool add_stdio(Qmp *q, GError **error)
{
    int in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (in >= 0 && out >= 0) {
        qmp_add_client(q, in, out);
        return true;
    }
    lodge_fail_errno(error, errno, "qmp stdio: there is no standard input and output");
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return false;
}

/* The first client, which is waited for; -1 with the error. */
static int wait_for_client(const Door *d, GError **error)
{
    struct pollfd p = {.fd = d->at.fd, .events = POLLIN};
    int fd;
    lodge_note("qmp: waits for a client at %s", d->at.address);
    do {
        fd = poll(&p, 1, -1) > 0 ? accept4(p.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) : -1;
    } while (fd < 0 && (errno == EINTR || errno == EAGAIN || errno == ECONNABORTED));
    if (fd < 0)
        lodge_fail_errno(error, errno, "qmp '%s': cannot accept a client", d->at.address);
    return fd;
}

bool control_open_qmp(Control *c, const ControlQmpAt *at, GError **error)
{
    if (!c->qmp)
        c->qmp = qmp_new(c, -1);
    if (!strcmp(at->spec, "stdio"))
        return add_stdio(c->qmp, error);
    if (!at->server) {
        int fd = endpoint_connect("qmp", at->spec, error);
        if (fd >= 0)
            qmp_add_client(c->qmp, fd, fd);
        return fd >= 0;
    }
    Door *d = g_new0(Door, 1);
    d->at.fd = -1;
    int fd = -1;
    if (!endpoint_listen("qmp", at->spec, &d->at, error) ||
        (at->wait && (fd = wait_for_client(d, error)) < 0)) {
        door_free(d);
        return false;
    }
    d->listener = listener_new(d->at.fd, on_connect, c->qmp);
    d->at.fd = -1;
    g_ptr_array_add(c->qmp->doors, d);
    if (fd >= 0)
        qmp_add_client(c->qmp, fd, fd);
    return true;
}

Qmp *qmp_new(Control *c, int listen_fd)
{
    Qmp *q = g_new0(Qmp, 1);
    q->control = c;
    q->clients = g_ptr_array_new_with_free_func(client_free);
    q->doors = g_ptr_array_new_with_free_func(door_free);
    if (listen_fd >= 0)
        q->listener = listener_new(listen_fd, on_connect, q);
    return q;
}

void qmp_free(Qmp *q)
{
    if (!q)
        return;
    g_clear_pointer(&q->listener, listener_free);
    g_ptr_array_free(q->doors, TRUE);
    for (unsigned i = 0; i < q->clients->len; i++)
        client_flush(g_ptr_array_index(q->clients, i));
    g_ptr_array_free(q->clients, TRUE);
    g_free(q);
}
