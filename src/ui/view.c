/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small server for browsers on this host: who is let in, and what is answered.
 *
 * A connection carries one request. A file of noVNC's folder is sent as it is; a request for
 * /websockify with the token turns the connection into a WebSocket, which view_relay.c serves. The
 * token is 128 random bits and good once: with its use another one takes its place.
 *
 * Whoever can reach the port may ask, so a request is hostile: its head has HTTP_HEAD_MAX bytes and
 * HEAD_MS, its answer REPLY_MS; so many connections are served at a time. Paths are names joined by
 * slashes and lead to plain files of known kinds, below the folder or where its links point. Web
 * pages of others are kept out by the Host field (a number or localhost, against names that are
 * made to point here) and, before a WebSocket, the Origin field.
 *
 * Spec: RFC 9110, RFC 9112, RFC 6455 section 4.2.
 *
 * Threads: main. Invariants: (1) a connection is freed at the end of its own source's turn, or by
 * view_free().
 */
#include "view.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib-unix.h>

#include "lodge/error.h"

#include "http_request.h"
#include "view_internal.h"
#include "websocket.h"

#define HEAD_MS 10000u
#define REPLY_MS 60000u
#define DRAIN_MS 2000u
#define BACKLOG 64
#define VIEW_REFUSALS_MAX 16u /* who are told that there is no room, at a time */
#define PAGE "vnc.html"
#define SOCKET_PATH "/websockify" /* what noVNC and its proxies call it */

/* Kinds of files in noVNC's folder; others are not served. */
static const struct {
    const char *suffix, *type;
} types[] = {
    {".html", "text/html; charset=utf-8"}, {".js", "text/javascript"},
    {".css", "text/css"},                  {".json", "application/json"},
    {".svg", "image/svg+xml"},             {".png", "image/png"},
    {".ico", "image/x-icon"},              {".ttf", "font/ttf"},
    {".woff", "font/woff"},                {".mp3", "audio/mpeg"},
    {".oga", "audio/ogg"},
};

static const struct {
    unsigned status;
    const char *reason, *text;
} refusals[] = {
    {400, "Bad Request", "This is no request that can be answered here."},
    {403, "Forbidden", "This address is not good, or not good any more: each opens the screen "
                       "once. lodge view has printed another."},
    {404, "Not Found", "There is nothing here. Open the address that lodge view has printed."},
    {405, "Method Not Allowed", "Only GET is."},
    {421, "Misdirected Request", "Open this by its number or as localhost."},
    {426, "Upgrade Required", "A WebSocket is wanted here."},
    {431, "Request Header Fields Too Large", "The request is too long."},
    {502, "Bad Gateway", "The machine does not show its screen; lodge view has said why."},
    {503, "Service Unavailable", "Too many connections; close one."},
    {505, "HTTP Version Not Supported", "HTTP/1.1 is spoken here."},
};

/* ---- tokens ---- */

static bool renew_token(View *v, GError **error)
{
    uint8_t bits[VIEW_TOKEN_LEN / 2];

    if (getrandom(bits, sizeof bits, 0) != sizeof bits)
        return lodge_fail_errno(error, errno, "random numbers");
    for (unsigned i = 0; i < sizeof bits; i++)
        g_snprintf(v->token + 2 * i, 3, "%02x", bits[i]);
    if (!v->site)
        return true;
    g_free(v->address);
    /* Behind the '#', so that no request for a file carries the token. */
    v->address = g_strdup_printf("http://%s/" PAGE "#autoconnect=1&resize=scale&path=%s%%3Ftoken"
                                 "%%3D%s", v->site, &SOCKET_PATH[1], v->token);
    return true;
}

/* In a time that does not tell how much of it was right. */
static bool token_ok(const View *v, const char *query)
{
    static const char key[] = "token=";
    unsigned wrong = 0;

    if (!query || !g_str_has_prefix(query, key) || strlen(query) != sizeof key - 1 + VIEW_TOKEN_LEN)
        return false;
    for (unsigned i = 0; i < VIEW_TOKEN_LEN; i++)
        wrong |= (unsigned)(query[sizeof key - 1 + i] ^ v->token[i]);
    return !wrong;
}

/* ---- answers ---- */

static void begin_reply(ViewConn *c, unsigned status, const char *reason, const char *type,
                        uint64_t len, const char *host)
{
    /* The page may load what comes from here, and talk to here; nobody may put it into a frame. */
    g_string_printf(c->reply,
                    "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %" G_GUINT64_FORMAT
                    "\r\nConnection: close\r\nCache-Control: no-store\r\n"
                    "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
                    "Cross-Origin-Resource-Policy: same-origin\r\n"
                    "Content-Security-Policy: default-src 'self'; style-src 'self' "
                    "'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'%s%s; "
                    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n%s\r\n",
                    status, reason, type, len, host ? " ws://" : "", host ? host : "",
                    status == 426 ? "Sec-WebSocket-Version: 13\r\n" : "");
    c->state = VIEW_REPLY;
    view_conn_deadline(c, REPLY_MS);
}

static void refuse(ViewConn *c, unsigned status)
{
    unsigned i = 0;

    while (refusals[i].status != status)
        i++;
    g_autofree char *text = g_strdup_printf("%s\n", refusals[i].text);
    begin_reply(c, status, refusals[i].reason, "text/plain", strlen(text), NULL);
    g_string_append(c->reply, text);
}

/* NULL: not a kind that is served. */
static const char *type_of(const char *path)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        if (g_str_has_suffix(path, types[i].suffix))
            return types[i].type;
    }
    return NULL;
}

static void send_file(ViewConn *c, const HttpRequest *r)
{
    const char *type = type_of(r->path);
    struct stat st;

    if (!type || !http_path_ok(r->path)) {
        refuse(c, 404);
        return;
    }
    c->file = openat(c->view->folder_fd, r->path + 1, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (c->file < 0 || fstat(c->file, &st) < 0 || !S_ISREG(st.st_mode)) {
        refuse(c, 404);
        return;
    }
    c->file_left = (size_t)st.st_size;
    begin_reply(c, 200, "OK", type, (uint64_t)st.st_size, r->field[HTTP_HOST]);
}

/* RFC 6455, section 4.2 */
static void open_socket(ViewConn *c, const HttpRequest *r)
{
    char accept[WS_ACCEPT_LEN + 1];
    g_autoptr(GError) error = NULL;

    if (!http_origin_ok(r->field[HTTP_ORIGIN], r->field[HTTP_HOST])) {
        refuse(c, 403);
        return;
    }
    if (!http_list_has(r->field[HTTP_UPGRADE], "websocket") ||
        !http_list_has(r->field[HTTP_CONNECTION], "upgrade") ||
        g_strcmp0(r->field[HTTP_WS_VERSION], "13")) {
        refuse(c, 426);
        return;
    }
    if (!r->field[HTTP_WS_KEY] || !ws_accept_key(r->field[HTTP_WS_KEY], accept)) {
        refuse(c, 400);
        return;
    }
    if (!token_ok(c->view, r->query)) {
        refuse(c, 403);
        return;
    }
    if (!renew_token(c->view, &error)) { /* or the old one would be good again */
        memset(c->view->token, 0, sizeof c->view->token);
        refuse(c, 502);
        return;
    }
    c->machine = c->view->config.dial(c->view->config.opaque);
    if (c->machine < 0) {
        refuse(c, 502);
    } else {
        g_string_printf(c->reply,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s\r\n", accept,
                        http_list_has(r->field[HTTP_WS_PROTOCOL], "binary")
                            ? "Sec-WebSocket-Protocol: binary\r\n" : "");
        view_relay_begin(c);
    }
    if (c->view->config.renewed)
        c->view->config.renewed(c->view->config.opaque);
}

/* The head is there, @len bytes of c->input. */
static void answer(ViewConn *c, size_t len)
{
    HttpRequest r;
    g_autofree char *head = g_strndup((char *)c->input->data, len);
    unsigned status = strlen(head) == len ? http_parse(head, len, &r) : 400;

    g_byte_array_remove_range(c->input, 0, (guint)len);
    if (status)
        refuse(c, status);
    else if (!http_host_ok(r.field[HTTP_HOST]))
        refuse(c, 421);
    else if (!strcmp(r.path, SOCKET_PATH))
        open_socket(c, &r);
    else
        send_file(c, &r);
}

/* ---- a connection ---- */

static gboolean on_deadline(gpointer opaque)
{
    ViewConn *c = opaque;

    c->timer = 0;
    view_conn_free(c);
    return G_SOURCE_REMOVE;
}

void view_conn_deadline(ViewConn *c, unsigned ms)
{
    g_clear_handle_id(&c->timer, g_source_remove);
    if (ms)
        c->timer = g_timeout_add(ms, on_deadline, c);
}

void view_conn_free(ViewConn *c)
{
    g_ptr_array_remove_fast(c->view->conns, c);
    g_clear_handle_id(&c->timer, g_source_remove);
    g_clear_handle_id(&c->browser_source, g_source_remove);
    g_clear_handle_id(&c->machine_source, g_source_remove);
    close(c->fd);
    if (c->machine >= 0)
        close(c->machine);
    if (c->file >= 0)
        close(c->file);
    g_byte_array_free(c->input, TRUE);
    g_byte_array_free(c->to_machine, TRUE);
    g_string_free(c->reply, TRUE);
    g_free(c);
}

void view_conn_drain(ViewConn *c)
{
    shutdown(c->fd, SHUT_WR);
    c->state = VIEW_DRAIN;
    view_conn_deadline(c, DRAIN_MS);
}

/* Read the head, as far as it came. False: the browser is gone. */
static bool take_head(ViewConn *c)
{
    for (;;) {
        uint8_t room[4096];
        size_t len = http_head_len((char *)c->input->data, c->input->len);
        if (len > HTTP_HEAD_MAX || (!len && c->input->len >= HTTP_HEAD_MAX)) {
            refuse(c, 431);
            return true;
        }
        if (len) {
            answer(c, len);
            return true;
        }
        ssize_t n = recv(c->fd, room, sizeof room, MSG_DONTWAIT);
        if (n > 0)
            g_byte_array_append(c->input, room, (guint)n);
        else if (!n || errno != EINTR)
            return n && (errno == EAGAIN || errno == EWOULDBLOCK);
    }
}

bool view_flush_reply(ViewConn *c)
{
    while (c->reply->len) {
        ssize_t n = send(c->fd, c->reply->str, c->reply->len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
            g_string_erase(c->reply, 0, n);
        else if (errno != EINTR)
            return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    return true;
}

/* False: the browser is gone. */
static bool send_reply(ViewConn *c)
{
    if (!view_flush_reply(c))
        return false;
    while (!c->reply->len && c->file_left) {
        ssize_t n = sendfile(c->fd, c->file, NULL, c->file_left);
        if (n > 0)
            c->file_left -= (size_t)n;
        else if (!n)
            return false; /* the file is shorter than it was */
        else if (errno != EINTR)
            return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    if (!c->reply->len && !c->file_left)
        view_conn_drain(c);
    return true;
}

/* Let what is still on its way come in, or the answer would be lost with it. False: it is over. */
static bool drain(ViewConn *c)
{
    uint8_t room[4096];
    ssize_t n;

    while ((n = recv(c->fd, room, sizeof room, MSG_DONTWAIT)) > 0) {
    }
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

static gboolean on_browser(int fd, GIOCondition condition, gpointer opaque)
{
    ViewConn *c = opaque;

    c->browser_source = 0;
    view_conn_step(c, condition);
    return G_SOURCE_REMOVE;
}

static gboolean on_machine(int fd, GIOCondition condition, gpointer opaque)
{
    ViewConn *c = opaque;

    c->machine_source = 0;
    view_conn_step(c, 0);
    return G_SOURCE_REMOVE;
}

/* Go on with what can be gone on with, then wait for what is to come; may free @c. */
void view_conn_step(ViewConn *c, GIOCondition from_browser)
{
    GIOCondition want = 0, want_machine = 0;
    bool there = !(from_browser & G_IO_ERR);

    if (there && c->state == VIEW_HEAD)
        there = take_head(c);
    if (there && c->state == VIEW_REPLY)
        there = send_reply(c);
    if (there && c->state == VIEW_RELAY)
        there = view_relay_step(c, from_browser & G_IO_HUP, &want, &want_machine);
    if (there && c->state == VIEW_DRAIN)
        there = drain(c);
    if (!there) {
        view_conn_free(c);
        return;
    }
    if (c->state == VIEW_REPLY)
        want = G_IO_OUT;
    else if (c->state != VIEW_RELAY)
        want = G_IO_IN;
    g_clear_handle_id(&c->browser_source, g_source_remove);
    g_clear_handle_id(&c->machine_source, g_source_remove);
    c->browser_source = g_unix_fd_add(c->fd, want | G_IO_HUP | G_IO_ERR, on_browser, c);
    if (c->state == VIEW_RELAY && want_machine)
        c->machine_source = g_unix_fd_add(c->machine, want_machine, on_machine, c);
}

void view_add_connection(View *v, int fd)
{
    int one = 1;
    ViewConn *c = g_new0(ViewConn, 1);

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);   /* keys are short */
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);   /* a viewer that is lost */
    c->view = v;
    c->fd = fd;
    c->machine = c->file = -1;
    c->input = g_byte_array_new();
    c->to_machine = g_byte_array_new();
    c->reply = g_string_new(NULL);
    g_ptr_array_add(v->conns, c);
    view_conn_deadline(c, HEAD_MS);
    if (v->conns->len > VIEW_CONNECTIONS_MAX)
        refuse(c, 503);
    if (v->conns->len > VIEW_CONNECTIONS_MAX + VIEW_REFUSALS_MAX)
        view_conn_free(c);
    else
        view_conn_step(c, 0);
}

/* ---- the server ---- */

static void on_connect(int fd, void *opaque)
{
    view_add_connection(opaque, fd);
}

typedef union Address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} Address;

static bool parse_address(const char *text, unsigned port, Address *a, socklen_t *ret_len)
{
    *a = (Address){0};
    if (inet_pton(AF_INET, text, &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons((uint16_t)port);
        *ret_len = sizeof a->v4;
        return true;
    }
    if (inet_pton(AF_INET6, text, &a->v6.sin6_addr) == 1) {
        a->v6.sin6_family = AF_INET6;
        a->v6.sin6_port = htons((uint16_t)port);
        *ret_len = sizeof a->v6;
        return true;
    }
    return false;
}

bool view_listen(View *v, const char *address, unsigned port, GError **error)
{
    Address a;
    socklen_t len;
    int one = 1;

    if (!address)
        address = "127.0.0.1";
    if (!parse_address(address, port, &a, &len))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "address \"%s\": not a number like 127.0.0.1 or ::1", address);
    const char *form = a.any.sa_family == AF_INET6 ? "[%s]:%u" : "%s:%u";
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return lodge_fail_errno(error, errno, "%s", address);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); /* only sooner */
    if (bind(fd, &a.any, len) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, &a.any, &len) < 0) {
        int err = errno;
        close(fd);
        g_autofree char *name = g_strdup_printf(form, address, port);
        if (err == EADDRINUSE)
            return lodge_fail(error, LODGE_ERROR_BUSY,
                              "%s: somebody listens there; take another port, or leave --port out",
                              name);
        return lodge_fail_errno(error, err, "%s", name);
    }
    port = ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
    v->site = g_strdup_printf(form, address, port);
    v->listener = listener_new(fd, on_connect, v);
    return renew_token(v, error);
}

const char *view_address(const View *v)
{
    return v->address;
}

const char *view_token(const View *v)
{
    return v->token;
}

View *view_new(const ViewConfig *config, GError **error)
{
    g_autoptr(View) v = g_new0(View, 1);

    v->config = *config;
    v->config.folder = NULL;
    v->conns = g_ptr_array_new();
    v->folder_fd = open(config->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (v->folder_fd < 0 || faccessat(v->folder_fd, PAGE, R_OK, 0) < 0) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "%s/" PAGE ": noVNC is not there; install Debian's package novnc, or name its "
                   "folder with --novnc", config->folder);
        return NULL;
    }
    if (!renew_token(v, error))
        return NULL;
    return g_steal_pointer(&v);
}

void view_free(View *v)
{
    if (!v)
        return;
    while (v->conns->len)
        view_conn_free(g_ptr_array_index(v->conns, 0));
    g_ptr_array_free(v->conns, TRUE);
    g_clear_pointer(&v->listener, listener_free);
    if (v->folder_fd >= 0)
        close(v->folder_fd);
    g_free(v->site);
    g_free(v->address);
    g_free(v);
}
