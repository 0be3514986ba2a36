/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The screen for browsers: requests, frames, the server between a scripted browser and machine. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/error.h"

#include "http_request.h"
#include "view.h"
#include "websocket.h"

#define DEADLINE_S 30

/* ---- requests ---- */

static unsigned parse(const char *text, size_t len, HttpRequest *r, char **ret_owner)
{
    g_free(*ret_owner);
    *ret_owner = g_malloc(len + 1); /* of its exact size, for AddressSanitizer */
    memcpy(*ret_owner, text, len);
    (*ret_owner)[len] = '\0';
    return http_parse(*ret_owner, len, r);
}

static void test_requests(void)
{
    static const struct {
        const char *text;
        unsigned status;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
        {"GET / HTTP/1.0\r\nhOsT:a\r\nX: \r\n\r\n", 0},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 0},
        {"\r\n\r\n", 400},
        {"GET\r\n\r\n", 400},
        {"GET /\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400}, /* no Host */
        {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
        {"GET / HTTX/1.1\r\nHost: a\r\n\r\n", 400},
        {"POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405},
        {"get / HTTP/1.1\r\nHost: a\r\n\r\n", 405},
        {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nOrigin: b\r\nOrigin: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400},
        {"GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\x01\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\x7f\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
    };
    static const char whole[] =
        "GET /a/b.js?c=d?e HTTP/1.1\r\nHost:  h:1\t \r\nOrigin: o\r\n\r\nmore";
    g_autofree char *owner = NULL;
    HttpRequest r;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        size_t len = strlen(cases[i].text);
        g_assert_cmpuint(http_head_len(cases[i].text, len), ==, len);
        unsigned got = parse(cases[i].text, len, &r, &owner);
        if (got != cases[i].status)
            g_error("%s: %u", cases[i].text, got);
    }
    size_t len = http_head_len(whole, sizeof whole - 1);
    g_assert_cmpuint(len, ==, sizeof whole - 1 - 4);
    g_assert_cmpuint(http_head_len(whole, len - 1), ==, 0);
    g_assert_cmpuint(parse(whole, len, &r, &owner), ==, 0);
    g_assert_cmpstr(r.path, ==, "/a/b.js");
    g_assert_cmpstr(r.query, ==, "c=d?e");
    g_assert_cmpstr(r.field[HTTP_HOST], ==, "h:1");
    g_assert_cmpstr(r.field[HTTP_ORIGIN], ==, "o");
    g_assert_null(r.field[HTTP_UPGRADE]);
    g_assert_cmpuint(parse("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 29, &r, &owner), ==, 400);
}

static void test_names(void)
{
    static const char *const paths[] = {"/a", "/a/b.js", "/a-b_c/d.e.f", "/_a", "/a..b"};
    static const char *const bad_paths[] = {"", "/", "a", "//a", "/a/", "/a//b", "/..", "/../a",
                                            "/a/..", "/a/../b", "/.", "/./a", "/.a", "/a/.b",
                                            "/%2e%2e/a", "/a\\b", "/a b", "/a:b", "/~a"};
    static const char *const hosts[] = {"127.0.0.1", "127.0.0.1:1", "10.0.0.1:65535", "localhost",
                                        "LOCALHOST:80", "[::1]", "[::1]:6080", "[fe80::1]"};
    static const char *const bad_hosts[] = {
        "", ":", ":80", "a", "a:80", "localhost.", "localhost.a", "127.0.0.1.a", "127.0.0.1:",
        "127.0.0.1:a", "127.0.0.1:123456", "127.0.0.1:1:1", "127.1", "::1", "[::1", "[::1]a",
        "[::1]:", "[127.0.0.1]", "[localhost]", "[", "[]", "127.0.0.1 ", "127.0.0.1;x",
        "1111111111111111111111111111111111111111111111111111111"};
    for (unsigned i = 0; i < G_N_ELEMENTS(paths); i++)
        g_assert_true(http_path_ok(paths[i]));
    for (unsigned i = 0; i < G_N_ELEMENTS(bad_paths); i++) {
        if (http_path_ok(bad_paths[i]))
            g_error("%s", bad_paths[i]);
    }
    g_autofree char *fits = g_strnfill(255, 'a'), *over = g_strnfill(256, 'a');
    fits[0] = over[0] = '/';
    g_assert_true(http_path_ok(fits) && !http_path_ok(over));
    for (unsigned i = 0; i < G_N_ELEMENTS(hosts); i++) {
        if (!http_host_ok(hosts[i]))
            g_error("%s", hosts[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad_hosts); i++) {
        if (http_host_ok(bad_hosts[i]))
            g_error("%s", bad_hosts[i]);
    }
    g_assert_true(http_origin_ok("http://a:1", "a:1") && http_origin_ok("HTTP://A:1", "a:1"));
    g_assert_false(http_origin_ok(NULL, "a") || http_origin_ok("null", "a") ||
                   http_origin_ok("http://a:2", "a:1") || http_origin_ok("http://a", "a:1") ||
                   http_origin_ok("https://a", "a") || http_origin_ok("http://a/", "a") ||
                   http_origin_ok("a", "a") || http_origin_ok("", "a"));
    g_assert_true(http_list_has("a", "A") && http_list_has(" b ,\ta ,c", "a"));
    g_assert_false(http_list_has(NULL, "a") || http_list_has("", "a") || http_list_has("ab", "a") ||
                   http_list_has("b a", "a") || http_list_has(",,", "a"));
}

/* ---- frames ---- */

/* What @len bytes decode to, handed in @step at a time: data as it is, [...] around pings, '!' and
 * a code at the end. */
static char *decode(const char *bytes, size_t len, size_t step)
{
    WsDecoder d = {0};
    GString *out = g_string_new(NULL);
    for (size_t at = 0; at < len; at += MIN(step, len - at)) {
        size_t n = MIN(step, len - at), used;
        g_autofree uint8_t *piece = g_memdup2(bytes + at, n);
        for (size_t i = 0; i < n; i += used) {
            WsEvent what = ws_decode(&d, piece + i, n - i, &used);
            g_assert_cmpuint(used, <=, n - i);
            switch (what) {
            case WS_MORE:
                g_assert_cmpuint(used, ==, n - i);
                break;
            case WS_DATA:
                g_assert_true(d.data >= piece + i && d.data + d.data_len <= piece + n);
                g_string_append_len(out, (char *)d.data, (gssize)d.data_len);
                break;
            case WS_PING:
                g_string_append_printf(out, "[%.*s]", (int)d.control_len, d.control);
                break;
            case WS_CLOSE:
                g_string_append(out, "!");
                return g_string_free(out, FALSE);
            case WS_BAD:
                g_string_append_printf(out, "!%u", d.close_code);
                g_assert_cmpint(ws_decode(&d, piece, 1, &used), ==, WS_BAD);
                return g_string_free(out, FALSE);
            }
        }
    }
    return g_string_free(out, FALSE);
}

static void test_frames(void)
{
    char accept[WS_ACCEPT_LEN + 1];
    static const struct {
        const char *in;
        size_t len;
        const char *out;
    } cases[] = {
#define CASE(in, out) {in, sizeof in - 1, out}
        CASE("\x82\x83\x01\x02\x03\x04"
             "`ab" "\x82\x80zzzz" "\x82\x81\0\0\0\0" "d", "acad"),
        CASE("\x02\x81\0\0\0\0" "a" "\x00\x81\0\0\0\0" "b" "\x80\x81\0\0\0\0" "c", "abc"),
        CASE("\x02\x81\0\0\0\0" "a" "\x89\x81\x20\0\0\0" "P" "\x80\x80\0\0\0\0", "a[p]"),
        CASE("\x89\x80\0\0\0\0\x8a\x82\0\0\0\0xy\x89\x81\0\0\0\0z", "[][z]"),
        CASE("\x88\x80\0\0\0\0\x82\x81\0\0\0\0" "a", "!"),
        CASE("\x88\x85\0\0\0\0\x03\xe8" "bye", "!"),
        CASE("\x88\x81\0\0\0\0\x03", "!1002"),       /* half a code */
        CASE("\x82\x01" "a", "!1002"),               /* no mask */
        CASE("\xc2\x81\0\0\0\0" "a", "!1002"),       /* reserved bits */
        CASE("\x92\x81\0\0\0\0" "a", "!1002"),
        CASE("\x81\x81\0\0\0\0" "a", "!1003"),       /* text */
        CASE("\x83\x81\0\0\0\0" "a", "!1002"),       /* reserved opcodes */
        CASE("\x8b\x80\0\0\0\0", "!1002"),
        CASE("\x8f\x80\0\0\0\0", "!1002"),
        CASE("\x80\x81\0\0\0\0" "a", "!1002"),       /* goes on with nothing */
        CASE("\x02\x80\0\0\0\0\x82\x80\0\0\0\0", "!1002"), /* begins within another */
        CASE("\x09\x80\0\0\0\0", "!1002"),           /* a ping in pieces */
        CASE("\x89\xfe\0\x7e\0\0\0\0", "!1002"),     /* a long ping */
        CASE("\x82\xfe\0\x7d\0\0\0\0", "!1002"),     /* lengths not in their shortest form */
        CASE("\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", "!1002"),
        CASE("\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0", "!1002"), /* the top bit */
        CASE("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0" "abc", "abc"), /* not its end yet */
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (size_t step = 1; step < 40; step++) {
            g_autofree char *got = decode(cases[i].in, cases[i].len, step);
            if (strcmp(got, cases[i].out))
                g_error("case %u, %zu at a time: %s", i, step, got);
        }
    }
    for (unsigned long_form = 0; long_form < 2; long_form++) {
        size_t n = long_form ? 65536 : 126, head = long_form ? 14 : 8;
        g_autofree char *in = g_malloc0(head + n + 1), *want = g_strnfill(n, 'x');
        memcpy(in, long_form ? "\x82\xff\0\0\0\0\0\1\0\0" : "\x82\xfe\0\x7e", head - 4);
        memset(in + head, 'x', n);
        g_autofree char *got = decode(in, head + n, 1000);
        g_assert_cmpstr(got, ==, want);
    }
    uint8_t to[WS_HEADER_MAX];
    g_assert_cmpmem(to, ws_header(to, WS_OP_BINARY, 125), "\x82\x7d", 2);
    g_assert_cmpmem(to, ws_header(to, WS_OP_BINARY, 126), "\x82\x7e\0\x7e", 4);
    g_assert_cmpmem(to, ws_header(to, WS_OP_PONG, WS_SEND_MAX), "\x8a\x7e\xff\xff", 4);
    g_assert_true(ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", accept));
    g_assert_cmpstr(accept, ==, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); /* section 1.3 */
    g_assert_false(ws_accept_key("", accept) || ws_accept_key("dGhlIHNhbXBsZSBub25jZQ=", accept) ||
                   ws_accept_key("dGhlIHNhbXBsZSBub25jZQ===", accept) ||
                   ws_accept_key("dGhlIHNhbXBsZSBub25j!Q==", accept) ||
                   ws_accept_key("dGhlIHNhbXBsZSBub25jZQAA", accept));
}

/* ---- the server ---- */

typedef struct Fixture {
    char *dir;
    View *view;
    int machine; /* the machine's end of the last connection */
    bool refuse; /* there is no machine */
    unsigned renewed;
} Fixture;

static int dial(void *opaque)
{
    Fixture *f = opaque;
    int pair[2];
    if (f->refuse)
        return -1;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), ==, 0);
    f->machine = pair[0];
    return pair[1];
}

static void renewed(void *opaque)
{
    ((Fixture *)opaque)->renewed++;
}

static void setup(Fixture *f, gconstpointer unused)
{
    static const char *const files[] = {"vnc.html", "a.js", "b.xyz", "secret.html"};
    g_autoptr(GError) error = NULL;
    *f = (Fixture){.dir = g_dir_make_tmp("lodge-view-XXXXXX", NULL), .machine = -1};
    ViewConfig c = {.folder = f->dir, .dial = dial, .renewed = renewed, .opaque = f};
    g_assert_null(view_new(&c, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED);
    g_assert_nonnull(strstr(error->message, "Debian's package novnc"));
    g_clear_error(&error);
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *path = g_build_filename(f->dir, files[i], NULL);
        g_assert_true(g_file_set_contents(path, files[i], -1, NULL));
    }
    f->view = view_new(&c, &error);
    g_assert_no_error(error);
}

static void teardown(Fixture *f, gconstpointer unused)
{
    const char *argv[] = {"rm", "-r", f->dir, NULL};
    view_free(f->view);
    if (f->machine >= 0)
        close(f->machine);
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL,
                               NULL, NULL, NULL));
    g_free(f->dir);
}

static void turn(void)
{
    while (g_main_context_iteration(NULL, FALSE)) {
    }
}

static int browse(Fixture *f)
{
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), ==, 0);
    view_add_connection(f->view, pair[0]);
    return pair[1];
}

/* Bytes from @fd until there are @len, or "<end>"; transfer full. */
static char *hear(int fd, size_t len)
{
    GString *got = g_string_new(NULL);
    gint64 deadline = g_get_monotonic_time() + DEADLINE_S * G_TIME_SPAN_SECOND;
    while (got->len < len) {
        char room[65536];
        ssize_t n = read(fd, room, MIN(sizeof room, len - got->len));
        if (n > 0) {
            g_string_append_len(got, room, n);
        } else if (!n || errno == ECONNRESET) {
            g_string_append(got, "<end>");
            break;
        } else if (!g_main_context_iteration(NULL, FALSE)) {
            g_usleep(200);
            g_assert_cmpint(g_get_monotonic_time(), <, deadline);
        }
    }
    return g_string_free(got, FALSE);
}

static void say(int fd, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        g_assert_true(n > 0 || errno == EAGAIN);
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
        turn();
    }
}

static unsigned status_of(Fixture *f, const char *request)
{
    int fd = browse(f);
    say(fd, request, strlen(request));
    g_autofree char *got = hear(fd, SIZE_MAX);
    close(fd);
    turn();
    g_assert_true(g_str_has_prefix(got, "HTTP/1.1 ") && g_str_has_suffix(got, "<end>"));
    return (unsigned)strtoul(got + 9, NULL, 10);
}

static void test_files(Fixture *f, gconstpointer unused)
{
    g_autofree char *link = g_build_filename(f->dir, "link.html", NULL);
    g_autofree char *pipe_path = g_build_filename(f->dir, "pipe.js", NULL);
    g_autofree char *sub = g_build_filename(f->dir, "sub.js", NULL);
    g_assert_cmpint(symlink("vnc.html", link), ==, 0);
    g_assert_cmpint(mkfifo(pipe_path, 0600), ==, 0);
    g_assert_cmpint(mkdir(sub, 0700), ==, 0);
    int fd = browse(f);
    static const char request[] = "GET /a.js?x=y HTTP/1.1\r\nHost: [::1]:7\r\n\r\nand more";
    for (unsigned i = 0; i < sizeof request - 1; i++)
        say(fd, request + i, 1);
    g_autofree char *got = hear(fd, SIZE_MAX);
    g_assert_true(g_str_has_prefix(got, "HTTP/1.1 200 OK\r\nContent-Type: text/javascript\r\n"
                                        "Content-Length: 4\r\nConnection: close\r\n"));
    g_assert_nonnull(strstr(got, "\r\nX-Content-Type-Options: nosniff\r\n"));
    g_assert_nonnull(strstr(got, " connect-src 'self' ws://[::1]:7; "));
    g_assert_nonnull(strstr(got, " frame-ancestors 'none'\r\n"));
    g_assert_true(g_str_has_suffix(got, "\r\n\r\na.js<end>"));
    close(fd);
    static const struct {
        const char *path;
        unsigned status;
    } cases[] = {
        {"/vnc.html", 200}, {"/link.html", 200}, {"/", 404},         {"/b.xyz", 404},
        {"/none.js", 404},  {"/pipe.js", 404},   {"/sub.js", 404},   {"/../etc/a.js", 404},
        {"//a.js", 404},    {"/./a.js", 404},    {"/websockify", 403},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *ask = g_strdup_printf("GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n",
                                               cases[i].path);
        g_assert_cmpuint(status_of(f, ask), ==, cases[i].status);
    }
    g_assert_cmpuint(status_of(f, "GET /a.js HTTP/1.1\r\nHost: a.js\r\n\r\n"), ==, 421);
    g_assert_cmpuint(status_of(f, "HEAD /a.js HTTP/1.1\r\nHost: localhost\r\n\r\n"), ==, 405);
    g_autofree char *fill = g_strnfill(HTTP_HEAD_MAX, 'a');
    g_autofree char *long_one = g_strconcat("GET /", fill, " HTTP/1.1\r\n\r\n", NULL);
    g_assert_cmpuint(status_of(f, fill), ==, 431);
    g_assert_cmpuint(status_of(f, long_one), ==, 431);
    for (unsigned over = 0; over < 2; over++) { /* in pieces that meet the limit nowhere */
        g_autoptr(GString) head = g_string_new("GET /a.js HTTP/1.1\r\nHost: localhost\r\nX: ");
        while (head->len < HTTP_HEAD_MAX + over - 4)
            g_string_append_c(head, 'x');
        g_string_append(head, "\r\n\r\n");
        fd = browse(f);
        say(fd, head->str, 100);
        say(fd, head->str + 100, head->len - 100);
        g_autofree char *answer = hear(fd, 12);
        g_assert_cmpstr(answer, ==, over ? "HTTP/1.1 431" : "HTTP/1.1 200");
        close(fd);
    }
    g_assert_cmpuint(f->renewed, ==, 0);
    fd = browse(f); /* and one that goes in the middle */
    say(fd, "GET /a", 6);
    close(fd);
    turn();
}

static char *upgrade(Fixture *f, const char *token, const char *more)
{
    return g_strdup_printf("GET /websockify?token=%s HTTP/1.1\r\nHost: localhost:1\r\n"
                           "Origin: http://localhost:1\r\nUpgrade: websocket\r\n"
                           "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
                           token, more);
}

static const char switching[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                "Connection: Upgrade\r\n"
                                "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/* A browser whose WebSocket is open. */
static int look(Fixture *f)
{
    int fd = browse(f);
    g_autofree char *ask = upgrade(f, view_token(f->view), "");
    say(fd, ask, strlen(ask));
    g_autofree char *got = hear(fd, sizeof switching - 1);
    g_assert_cmpstr(got, ==, switching);
    return fd;
}

static void test_token(Fixture *f, gconstpointer unused)
{
    g_autofree char *first = g_strdup(view_token(f->view));
    g_autofree char *good = upgrade(f, first, "");
    static const char *const wrong[][2] = {
        /* what is replaced, and by what */
        {"Origin: http://localhost:1", "Origin: http://localhost"},
        {"Origin: http://localhost:1", "Origin: http://evil:1"},
        {"Origin: http://localhost:1", "X: y"},
        {"?token=", "?token=0"},
        {"?token=", "?Token="},
        {"?token=", "?a=b&token="},
    };
    static const char *const odd[][3] = {
        {"Upgrade: websocket", "Upgrade: h2c", "426"},
        {"Connection: keep-alive, Upgrade", "Connection: close", "426"},
        {"Version: 13", "Version: 8", "426"},
        {"dGhl", "dGhlx", "400"},
        {"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "X: y", "400"},
        {"Host: localhost:1", "Host: evil:1", "421"},
    };
    g_assert_cmpuint(strlen(first), ==, VIEW_TOKEN_LEN);
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autoptr(GString) s = g_string_new(good);
        g_assert_cmpuint(g_string_replace(s, wrong[i][0], wrong[i][1], 0), ==, 1);
        g_assert_cmpuint(status_of(f, s->str), ==, 403);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(odd); i++) {
        g_autoptr(GString) s = g_string_new(good);
        g_assert_cmpuint(g_string_replace(s, odd[i][0], odd[i][1], 0), ==, 1);
        g_assert_cmpuint(status_of(f, s->str), ==, strtoul(odd[i][2], NULL, 10));
    }
    for (unsigned i = 0; i < VIEW_TOKEN_LEN; i++) { /* each digit counts */
        g_autofree char *almost = g_strdup(first);
        almost[i] = almost[i] == '0' ? '1' : '0';
        g_autofree char *ask = upgrade(f, almost, "");
        g_assert_cmpuint(status_of(f, ask), ==, 403);
    }
    g_assert_cmpuint(f->renewed, ==, 0);
    int fd = look(f);
    g_assert_cmpuint(f->renewed, ==, 1);
    g_assert_cmpstr(view_token(f->view), !=, first);
    g_assert_cmpuint(status_of(f, good), ==, 403); /* once only */
    close(fd);
    turn();
    close(f->machine);
    /* A machine that does not answer uses it up too. */
    f->refuse = true;
    f->machine = -1;
    g_autofree char *next = upgrade(f, view_token(f->view), "");
    g_assert_cmpuint(status_of(f, next), ==, 502);
    g_assert_cmpuint(status_of(f, next), ==, 403);
    f->refuse = false;
    g_autofree char *binary =
        upgrade(f, view_token(f->view), "Sec-WebSocket-Protocol: a, binary\r\n");
    fd = browse(f);
    say(fd, binary, strlen(binary));
    static const char field[] = "\r\nSec-WebSocket-Protocol: binary\r\n\r\n";
    g_autofree char *got = hear(fd, sizeof switching - 1 + sizeof field - 1 - 4);
    g_assert_true(g_str_has_suffix(got, field));
    close(fd);
}

static void heard(int fd, const char *want, size_t len)
{
    g_autofree char *got = hear(fd, len);
    g_assert_cmpmem(got, len, want, len);
}

static void test_relay(Fixture *f, gconstpointer unused)
{
    int fd = browse(f);
    g_autofree char *ask = upgrade(f, view_token(f->view), "");
    g_autofree char *both = g_strconcat(ask, "\x82\x82\x20\x20\x20\x20" "AB", NULL);
    say(fd, both, strlen(both)); /* the first frame comes with the request */
    heard(fd, switching, sizeof switching - 1);
    heard(f->machine, "ab", 2);
    say(f->machine, "hello", 5);
    heard(fd, "\x82\x05hello", 7);
    say(fd, "\x89\x82\0\0\0\0hi", 8);
    heard(fd, "\x8a\x02hi", 4);
    say(fd, "\x88\x82\0\0\0\0\x03\xe8", 8);
    heard(fd, "\x88\x02\x03\xe8<end>", 9);
    close(fd);
    turn();
    heard(f->machine, "<end>", 5);
    close(f->machine);
    fd = look(f);
    say(fd, "\x81\x80\0\0\0\0", 6); /* text */
    heard(fd, "\x88\x02\x03\xeb<end>", 9);
    close(fd);
    turn();
    heard(f->machine, "<end>", 5);
    close(f->machine);
    /* What the machine said before it went arrives. */
    fd = look(f);
    say(f->machine, "bye", 3);
    close(f->machine);
    heard(fd, "\x82\x03" "bye\x88\x02\x03\xe9<end>", 14);
    close(fd);
    fd = look(f);
    close(fd);
    turn();
    heard(f->machine, "<end>", 5);
    close(f->machine);
    f->machine = -1;
}

/* Whoever does not read stops who writes; then all arrives. */
static void test_slow(Fixture *f, gconstpointer unused)
{
    enum { BYTES = 4 << 20, FRAME = 1000 };
    static uint8_t frame[8 + FRAME] = "\x82\xfe\x03\xe8";
    int fd = look(f);
    size_t sent = 0, at = 0;
    for (unsigned i = 0; i < FRAME; i++)
        frame[8 + i] = (uint8_t)i;
    gint64 deadline = g_get_monotonic_time() + G_TIME_SPAN_SECOND / 5;
    while (g_get_monotonic_time() < deadline) { /* the machine does not read */
        ssize_t n = send(fd, frame + at, sizeof frame - at, MSG_NOSIGNAL);
        if (n > 0) {
            sent += (size_t)n;
            at = (at + (size_t)n) % sizeof frame;
        }
        turn();
    }
    g_assert_cmpuint(sent, <, 2 << 20); /* what sockets and one buffer hold */
    g_assert_cmpuint(sent, >, sizeof frame);
    size_t payload = sent / sizeof frame * FRAME;
    g_autofree char *got = hear(f->machine, payload);
    for (size_t i = 0; i < payload; i++)
        g_assert_cmpuint((uint8_t)got[i], ==, (uint8_t)(i % FRAME));
    /* The other way. */
    g_autofree uint8_t *block = g_malloc0(BYTES);
    size_t out = 0;
    deadline = g_get_monotonic_time() + G_TIME_SPAN_SECOND / 5;
    while (g_get_monotonic_time() < deadline && out < BYTES) {
        ssize_t n = send(f->machine, block, BYTES - out, MSG_NOSIGNAL);
        out += n > 0 ? (size_t)n : 0;
        turn();
    }
    g_assert_cmpuint(out, <, 2 << 20);
    close(f->machine);
    f->machine = -1;
    size_t in = 0;
    for (;;) {
        g_autofree char *head = hear(fd, 2);
        if (head[0] == '\x88')
            break;
        size_t len = (uint8_t)head[1];
        if (len == 126) {
            g_autofree char *more = hear(fd, 2);
            len = (size_t)(uint8_t)more[0] << 8 | (uint8_t)more[1];
        }
        g_free(hear(fd, len));
        in += len;
    }
    g_assert_cmpuint(in, ==, out);
    /* Pings whose answers nobody reads. */
    close(fd);
    fd = look(f);
    static uint8_t pings[6 * 5000];
    for (size_t i = 0; i < sizeof pings; i += 6)
        memcpy(pings + i, "\x89\x80\0\0\0\0", 6);
    for (sent = at = 0; sent < BYTES;) {
        ssize_t n = send(fd, pings + at, sizeof pings - at, MSG_NOSIGNAL);
        turn();
        if (n < 0)
            break;
        sent += (size_t)n;
        at = (at + (size_t)n) % sizeof pings;
    }
    g_assert_cmpuint(sent, <, BYTES);
    close(fd);
}

static void test_crowd(Fixture *f, gconstpointer unused)
{
    int fd[VIEW_CONNECTIONS_MAX];
    for (unsigned i = 0; i < VIEW_CONNECTIONS_MAX; i++)
        fd[i] = browse(f);
    g_assert_cmpuint(status_of(f, "GET /a.js HTTP/1.1\r\nHost: localhost\r\n\r\n"), ==, 503);
    int more[40];
    for (unsigned i = 0; i < G_N_ELEMENTS(more); i++)
        more[i] = browse(f);
    heard(more[G_N_ELEMENTS(more) - 1], "<end>", 5); /* not even told */
    for (unsigned i = 0; i < G_N_ELEMENTS(more); i++)
        close(more[i]);
    close(fd[0]);
    turn();
    g_assert_cmpuint(status_of(f, "GET /a.js HTTP/1.1\r\nHost: localhost\r\n\r\n"), ==, 200);
    for (unsigned i = 1; i < VIEW_CONNECTIONS_MAX; i++)
        close(fd[i]);
}

static void test_address(Fixture *f, gconstpointer unused)
{
    g_autoptr(GError) error = NULL;
    ViewConfig c = {.folder = f->dir, .dial = dial, .opaque = f};
    g_assert_null(view_address(f->view));
    g_assert_true(view_listen(f->view, NULL, 0, &error));
    g_autofree char *want = g_strdup_printf("resize=scale&path=websockify%%3Ftoken%%3D%s",
                                            view_token(f->view));
    g_assert_true(g_str_has_prefix(view_address(f->view), "http://127.0.0.1:"));
    g_assert_true(g_str_has_suffix(view_address(f->view), want));
    const char *number = view_address(f->view) + strlen("http://127.0.0.1:");
    unsigned port = (unsigned)strtoul(number, NULL, 10);
    g_autoptr(View) other = view_new(&c, &error);
    g_assert_false(view_listen(other, "127.0.0.1", port, &error));
    g_assert_error(error, LODGE_ERROR, LODGE_ERROR_BUSY);
    g_clear_error(&error);
    g_autoptr(View) third = view_new(&c, NULL);
    g_assert_cmpstr(view_token(third), !=, view_token(other));
    static const char *const names[] = {"localhost", "", "127.0.0.1:80", "[::1]", "1",
                                        "0x7f.0.0.1"};
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_assert_false(view_listen(third, names[i], 0, &error));
        g_assert_error(error, LODGE_ERROR, LODGE_ERROR_CONFIG);
        g_clear_error(&error);
    }
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/view/requests", test_requests);
    g_test_add_func("/view/names", test_names);
    g_test_add_func("/view/frames", test_frames);
#define ADD(name, fn) g_test_add("/view/" name, Fixture, NULL, setup, fn, teardown)
    ADD("files", test_files);
    ADD("token", test_token);
    ADD("relay", test_relay);
    ADD("slow", test_slow);
    ADD("crowd", test_crowd);
    ADD("address", test_address);
    return g_test_run();
}
