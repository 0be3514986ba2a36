/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * URIs of network block devices: nbd://HOST[:PORT]/EXPORT and nbd+unix:///EXPORT?socket=PATH.
 *
 * Of doc/uri.md of the NBD project, TLS (nbds, nbds+unix) and vsock are refused in words. A user
 * name, a fragment and queries other than socket= are refused too: each would be ignored silently.
 */
#include "nbd_uri.h"

#include <string.h>
#include <sys/un.h>

#include "lodge/error.h"

#define SOCKET_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

static const struct {
    const char *scheme;
    const char *refused; /* why, or NULL */
} schemes[] = {
    {"nbd", NULL},
    {"nbd+unix", NULL},
    {"nbds", "TLS is not supported; go through a tunnel (ssh -L), and name its end by nbd://"},
    {"nbds+unix", "TLS is not supported; a Unix socket needs none: nbd+unix://"},
    {"nbd+vsock", "vsock is not supported; use nbd:// or nbd+unix://"},
    {"nbds+vsock", "TLS and vsock are not supported; use nbd:// or nbd+unix://"},
};

static int scheme_of(const char *text)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(schemes); i++) {
        size_t len = strlen(schemes[i].scheme);
        if (g_ascii_strncasecmp(text, schemes[i].scheme, len) == 0 && text[len] == ':')
            return (int)i;
    }
    return -1;
}

bool nbd_uri_is(const char *file)
{
    return file && scheme_of(file) >= 0;
}

static bool take_query(NbdUri *u, const char *text, const char *query, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autoptr(GHashTable) params = NULL;
    GHashTableIter it;
    void *key, *value;

    if (!query)
        return true;
    params = g_uri_parse_params(query, -1, "&", G_URI_PARAMS_NONE, &why);
    if (!params)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': %s", text, why->message);
    g_hash_table_iter_init(&it, params);
    while (g_hash_table_iter_next(&it, &key, &value)) {
        if (strcmp(key, "socket") != 0)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "'%s': '%s' is not known behind ?; only socket=PATH is", text,
                              (char *)key);
        g_free(u->socket);
        u->socket = g_strdup(value);
    }
    return true;
}

static bool take_parts(NbdUri *u, const char *text, GUri *uri, bool is_unix, GError **error)
{
    const char *path = g_uri_get_path(uri), *host = g_uri_get_host(uri);
    int port = g_uri_get_port(uri);

    if (g_uri_get_userinfo(uri) || g_uri_get_fragment(uri))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': a user or a # has no meaning here; write %%23 for a # in a name",
                          text);
    if (!take_query(u, text, g_uri_get_query(uri), error))
        return false;
    u->export = g_strdup(path[0] == '/' ? path + 1 : path);
    if (strlen(u->export) > NBD_NAME_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "nbd: an export's name is over %u bytes",
                          NBD_NAME_MAX);
    if (is_unix) {
        if (!u->socket || !*u->socket || (host && *host))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "'%s': names no socket; write nbd+unix:///EXPORT?socket=PATH", text);
        if (strlen(u->socket) > SOCKET_MAX)
            return lodge_fail(error, LODGE_ERROR_LIMIT,
                              "'%s': a socket's path has at most %zu bytes", text, SOCKET_MAX);
        u->where = g_strdup(u->socket);
        return true;
    }
    if (u->socket || !host || !*host)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': %s; write nbd://HOST[:PORT]/EXPORT",
                          text, u->socket ? "socket= is for nbd+unix" : "names no host");
    u->host = g_strdup(host);
    u->port = port > 0 ? g_strdup_printf("%d", port) : g_strdup(NBD_PORT);
    u->where = g_strdup_printf("%s port %s", u->host, u->port);
    return true;
}

NbdUri *nbd_uri_parse(const char *text, GError **error)
{
    g_autoptr(NbdUri) u = g_new0(NbdUri, 1);
    g_autoptr(GError) why = NULL;
    g_autoptr(GUri) uri = NULL;
    int scheme = scheme_of(text);

    if (scheme < 0 || schemes[scheme].refused) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED, "'%s': %s", text,
                   scheme < 0 ? "is no URI of NBD" : schemes[scheme].refused);
        return NULL;
    }
    uri = g_uri_parse(text, G_URI_FLAGS_HAS_PASSWORD | G_URI_FLAGS_ENCODED_QUERY, &why);
    if (!uri) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': %s; write nbd://HOST[:PORT]/EXPORT or "
                   "nbd+unix:///EXPORT?socket=PATH", text, why->message);
        return NULL;
    }
    if (!take_parts(u, text, uri, strstr(schemes[scheme].scheme, "unix") != NULL, error))
        return NULL;
    return g_steal_pointer(&u);
}

void nbd_uri_free(NbdUri *u)
{
    if (!u)
        return;
    g_free(u->host);
    g_free(u->port);
    g_free(u->socket);
    g_free(u->export);
    g_free(u->where);
    g_free(u);
}

char *nbd_uri_text(const char *socket, const char *host, unsigned port, const char *export)
{
    g_autofree char *name = g_uri_escape_string(export, "/", true);

    if (socket) {
        g_autofree char *path = g_uri_escape_string(socket, "/", true);
        return g_strdup_printf("nbd+unix:///%s?socket=%s", name, path);
    }
    return g_strdup_printf(strchr(host, ':') ? "nbd://[%s]:%u/%s" : "nbd://%s:%u/%s", host, port,
                           name);
}
