/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of HTTP/1.1 as browsers make them. Spec: RFC 9110, RFC 9112.
 *
 * Left out: methods but GET, bodies (a request with one is refused), percent-encoding (no file of
 * ours needs it), absolute targets (for proxies), several requests on one connection.
 *
 * Threads: any; no state.
 */
#include "http_request.h"

#include <arpa/inet.h>
#include <string.h>

#include <glib.h>

#define PATH_MAX_LEN 255

static const char *const field_names[HTTP_FIELDS] = {
    [HTTP_HOST] = "host",
    [HTTP_ORIGIN] = "origin",
    [HTTP_CONNECTION] = "connection",
    [HTTP_UPGRADE] = "upgrade",
    [HTTP_WS_KEY] = "sec-websocket-key",
    [HTTP_WS_VERSION] = "sec-websocket-version",
    [HTTP_WS_PROTOCOL] = "sec-websocket-protocol",
    [HTTP_CONTENT_LENGTH] = "content-length",
    [HTTP_TRANSFER_ENCODING] = "transfer-encoding",
};

size_t http_head_len(const char *text, size_t len)
{
    const char *end = len ? memmem(text, len, "\r\n\r\n", 4) : NULL;

    return end ? (size_t)(end - text) + 4 : 0;
}

/* RFC 9110, 5.6.2 */
static bool is_token_char(char c)
{
    return g_ascii_isalnum(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* RFC 9112, 5: NAME ":" blanks VALUE blanks */
static bool parse_field(char *line, HttpRequest *r)
{
    size_t name_len = 0;

    while (is_token_char(line[name_len]))
        name_len++;
    if (!name_len || line[name_len] != ':')
        return false;
    line[name_len] = '\0';
    char *value = line + name_len + 1;
    while (is_blank(*value))
        value++;
    size_t len = strlen(value);
    while (len && is_blank(value[len - 1]))
        value[--len] = '\0';
    for (unsigned i = 0; i < HTTP_FIELDS; i++) {
        if (g_ascii_strcasecmp(line, field_names[i]))
            continue;
        if (r->field[i])
            return false;
        r->field[i] = value;
    }
    return true;
}

/* RFC 9112, 3: METHOD " " TARGET " " VERSION */
static unsigned parse_first(char *line, HttpRequest *r)
{
    char *target = strchr(line, ' ');
    char *version = target ? strchr(target + 1, ' ') : NULL;

    if (!version || strchr(version + 1, ' '))
        return 400;
    *target++ = '\0';
    *version++ = '\0';
    if (!g_str_has_prefix(version, "HTTP/"))
        return 400;
    if (strcmp(version, "HTTP/1.1") && strcmp(version, "HTTP/1.0"))
        return 505;
    if (strcmp(line, "GET"))
        return 405;
    if (*target != '/')
        return 400;
    for (const char *p = target; *p; p++) {
        if (!g_ascii_isgraph(*p) || *p == '#')
            return 400;
    }
    r->path = target;
    char *query = strchr(target, '?');
    if (query) {
        *query = '\0';
        r->query = query + 1;
    }
    return 0;
}

/* Only what text is made of, and line ends whole. */
static bool is_text(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\r' ? text[i + 1] != '\n' : c == '\n' ? !i || text[i - 1] != '\r'
                                                        : (c < ' ' && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

unsigned http_parse(char *text, size_t len, HttpRequest *ret_request)
{
    HttpRequest r = {0};

    if (!is_text(text, len))
        return 400;
    text[len - 4] = '\0'; /* the last line's end and the empty line */
    char *next = strstr(text, "\r\n");
    if (next) {
        *next = '\0';
        next += 2;
    }
    unsigned status = parse_first(text, &r);
    if (status)
        return status;
    while (next) {
        char *line = next;
        next = strstr(line, "\r\n");
        if (next) {
            *next = '\0';
            next += 2;
        }
        if (!parse_field(line, &r))
            return 400;
    }
    const char *body = r.field[HTTP_CONTENT_LENGTH];
    if (!r.field[HTTP_HOST] || r.field[HTTP_TRANSFER_ENCODING] || (body && strcmp(body, "0")))
        return 400;
    *ret_request = r;
    return 0;
}

bool http_list_has(const char *list, const char *word)
{
    size_t len = strlen(word);

    while (list && *list) {
        list += strspn(list, " \t,");
        size_t n = strcspn(list, ",");
        size_t whole = n;
        while (n && is_blank(list[n - 1]))
            n--;
        if (n == len && !g_ascii_strncasecmp(list, word, len))
            return true;
        list += whole;
    }
    return false;
}

bool http_path_ok(const char *path)
{
    if (*path != '/' || strlen(path) > PATH_MAX_LEN)
        return false;
    for (const char *p = path; *p; p++) {
        if (*p == '/' ? !g_ascii_isalnum(p[1]) && p[1] != '_' && p[1] != '-'
                      : !g_ascii_isalnum(*p) && !strchr("_-.", *p))
            return false;
    }
    return true;
}

/* The number of a port behind a colon, or nothing. */
static bool is_port(const char *text)
{
    if (!*text)
        return true;
    size_t digits = strspn(text + 1, "0123456789");
    return *text == ':' && digits && digits <= 5 && !text[1 + digits];
}

bool http_host_ok(const char *host)
{
    char number[INET6_ADDRSTRLEN];
    struct in6_addr any;
    bool v6 = *host == '[';
    size_t len = strcspn(host + v6, v6 ? "]" : ":");
    const char *rest = host + v6 + len + (v6 && host[1 + len]);

    if (len >= sizeof number || (v6 && host[1 + len] != ']') || !is_port(rest))
        return false;
    memcpy(number, host + v6, len);
    number[len] = '\0';
    return inet_pton(v6 ? AF_INET6 : AF_INET, number, &any) == 1 ||
           (!v6 && !g_ascii_strcasecmp(number, "localhost"));
}

bool http_origin_ok(const char *origin, const char *host)
{
    static const char scheme[] = "http://";

    return origin && !g_ascii_strncasecmp(origin, scheme, sizeof scheme - 1) &&
           !g_ascii_strcasecmp(origin + sizeof scheme - 1, host);
}
