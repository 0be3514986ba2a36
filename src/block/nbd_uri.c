/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * URIs of network block devices: nbd://HOST[:PORT]/EXPORT and nbd+unix:///EXPORT?socket=PATH; with
 * nbds and nbds+unix through TLS, where ?tls-certificates=DIR and ?tls-psk-file=FILE name what
 * proves who is who, as libnbd has them; paths are absolute, since a machine that is started again
 * may stand elsewhere.
 *
 * Of doc/uri.md of the NBD project, vsock is refused in words. So are a fragment, other queries,
 * and a user name where it says nothing: each would be ignored silently.
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
    {"nbds", NULL},
    {"nbds+unix", NULL},
    {"nbd+vsock", "vsock is not supported; use nbd:// or nbd+unix://"},
    {"nbds+vsock", "vsock is not supported; use nbds:// or nbds+unix://"},
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

/* libnbd without either takes any server for the right one. */
static bool check_tls(const NbdUri *u, const char *text, GError **error)
{
    bool one = !u->certificates != !u->psk_file;

    return u->tls == one ||
           lodge_fail(error, LODGE_ERROR_CONFIG,
                      "'%s': TLS goes by certificates or by a shared key: name one of "
                      "tls-certificates=DIR and tls-psk-file=FILE behind ?", text);
}

static bool take_query(NbdUri *u, const char *text, const char *query, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autoptr(GHashTable) params = NULL;
    GHashTableIter it;
    void *key, *value;

    if (!query)
        return check_tls(u, text, error);
    params = g_uri_parse_params(query, -1, "&", G_URI_PARAMS_NONE, &why);
    if (!params)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': %s", text, why->message);
    g_hash_table_iter_init(&it, params);
    while (g_hash_table_iter_next(&it, &key, &value)) {
        bool tls = g_str_has_prefix(key, "tls-");
        char **to = strcmp(key, "socket") == 0             ? &u->socket
                    : strcmp(key, "tls-certificates") == 0 ? &u->certificates
                    : strcmp(key, "tls-psk-file") == 0     ? &u->psk_file
                                                           : NULL;
        if (!to)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "'%s': '%s' is not known behind ?; socket=PATH, "
                              "tls-certificates=DIR and tls-psk-file=FILE are", text, (char *)key);
        if (tls && !u->tls)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "'%s': %s is for nbds:// and nbds+unix://", text, (char *)key);
        if (tls && !g_path_is_absolute(value))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s': %s must be an absolute path", text,
                              (char *)key);
        g_free(*to);
        *to = g_strdup(value);
    }
    return check_tls(u, text, error);
}

static bool take_parts(NbdUri *u, const char *text, GUri *uri, bool is_unix, GError **error)
{
    const char *path = g_uri_get_path(uri), *host = g_uri_get_host(uri);
    int port = g_uri_get_port(uri);

    if (!take_query(u, text, g_uri_get_query(uri), error))
        return false;
    if ((g_uri_get_userinfo(uri) && !u->psk_file) || g_uri_get_password(uri) ||
        g_uri_get_fragment(uri))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': a user or a # has no meaning here; write %%23 for a # in a name",
                          text);
    u->user = g_strdup(g_uri_get_userinfo(uri));
    u->export = g_strdup(path[0] == '/' ? path + 1 : path);
    if (strlen(u->export) > NBD_NAME_MAX)
        return lodge_fail(error, LODGE_ERROR_LIMIT, "nbd: an export's name is over %u bytes",
                          NBD_NAME_MAX);
    if (is_unix && u->certificates)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'%s': a certificate is checked for a host's name, and a socket has "
                          "none; use tls-psk-file=FILE", text);
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
    u->tls = g_str_has_prefix(schemes[scheme].scheme, "nbds");
    if (!take_parts(u, text, uri, strstr(schemes[scheme].scheme, "unix") != NULL, error))
        return NULL;
    return g_steal_pointer(&u);
}

NbdUri *nbd_uri_copy(const NbdUri *u)
{
    NbdUri *copy = g_new0(NbdUri, 1);

    *copy = (NbdUri){.host = g_strdup(u->host), .port = g_strdup(u->port),
                     .socket = g_strdup(u->socket), .export = g_strdup(u->export),
                     .where = g_strdup(u->where), .tls = u->tls,
                     .certificates = g_strdup(u->certificates),
                     .psk_file = g_strdup(u->psk_file), .user = g_strdup(u->user)};
    return copy;
}

void nbd_uri_free(NbdUri *u)
{
    if (!u)
        return;
    g_free(u->certificates);
    g_free(u->psk_file);
    g_free(u->user);
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
