/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_HTTP_REQUEST_H
#define LODGE_HTTP_REQUEST_H

/* What a browser asks of a small server: one request, without a body. */

#include <stdbool.h>
#include <stddef.h>

#define HTTP_HEAD_MAX 8192u /* bytes, with the empty line; more is refused */

/* Header fields that are looked at; a request has each of them once or not at all. */
typedef enum HttpField {
    HTTP_HOST,
    HTTP_ORIGIN,
    HTTP_CONNECTION,
    HTTP_UPGRADE,
    HTTP_WS_KEY,
    HTTP_WS_VERSION,
    HTTP_WS_PROTOCOL,
    HTTP_CONTENT_LENGTH,
    HTTP_TRANSFER_ENCODING,
    HTTP_FIELDS,
} HttpField;

typedef struct HttpRequest {
    const char *path;               /* begins with a slash; as sent, nothing decoded */
    const char *query;              /* behind the question mark; NULL: there is none */
    const char *field[HTTP_FIELDS]; /* NULL: not there */
} HttpRequest;

/* Length of a request's head with the empty line that ends it, 0: it has not ended. */
size_t http_head_len(const char *text, size_t len);

/**
 * http_parse() - Read the head of a request
 * @text: @len bytes as http_head_len() found them, and a NUL; changed, and @ret_request points into
 *        them
 * Return: 0, or the HTTP status that says what is wrong: 400, 405 (not GET), 505.
 * Spec: RFC 9112, sections 2.2, 3, 5; obsolete folding of lines and bare LF are refused.
 */
unsigned http_parse(char *text, size_t len, HttpRequest *ret_request);

/* Whether a comma separated list has @word, case aside. NULL @list: no. */
bool http_list_has(const char *list, const char *word);

/* Whether @path leads to a file below a folder: names of letters, digits, '_', '-' and '.', none of
 * which begins with a dot, one slash before each. */
bool http_path_ok(const char *path);

/* Whether @host, a Host field, is a number or localhost, with a port or none: other names can be
 * made to point here by whoever owns them. */
bool http_host_ok(const char *host);
/* Whether @origin is the site http://@host. NULL: no. */
bool http_origin_ok(const char *origin, const char *host);

#endif
