/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors that a client passes (SCM_RIGHTS), and two uses that there are for them: a
 * connection to which the screen is served, and one that is joined to the guest agent's port. A
 * name belongs to the client that gave it and ends with it.
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lodge/error.h"

#include "control_internal.h"

#define NAMES_MAX 16u /* of one client */
#define NAME_BYTES_MAX 255u

struct ControlFds {
    int received;      /* owned; not yet named; -1: none */
    GHashTable *named; /* name -> descriptor, both owned */
};

static void close_value(gpointer fd)
{
    close(GPOINTER_TO_INT(fd));
}

ControlFds *control_fds_new(void)
{
    ControlFds *f = g_new0(ControlFds, 1);
    f->received = -1;
    f->named = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, close_value);
    return f;
}

void control_fds_free(ControlFds *f)
{
    if (!f)
        return;
    if (f->received >= 0)
        close(f->received);
    g_hash_table_destroy(f->named);
    g_free(f);
}

void control_fds_received(ControlFds *f, int fd)
{
    if (f->received >= 0)
        close(f->received);
    f->received = fd;
}

COMMAND_FN(cmd_getfd)
{
    const char *name = jv_text(jv_get(args, "fdname"));
    if (!r->fds || r->fds->received < 0)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "No file descriptor supplied via SCM_RIGHTS");
    int fd = r->fds->received;
    r->fds->received = -1;
    bool ok = true;
    if (g_ascii_isdigit(name[0]))
        ok = lodge_fail(error, LODGE_ERROR_CONFIG,
                        "Parameter 'fdname' expects a name not starting with a digit");
    else if (strlen(name) > NAME_BYTES_MAX)
        ok = lodge_fail(error, LODGE_ERROR_LIMIT, "Parameter 'fdname' expects at most %u bytes",
                        NAME_BYTES_MAX);
    else if (g_hash_table_size(r->fds->named) >= NAMES_MAX &&
             !g_hash_table_contains(r->fds->named, name))
        ok = lodge_fail(error, LODGE_ERROR_LIMIT, "%u descriptors are there already", NAMES_MAX);
    if (!ok) {
        close(fd);
        return false;
    }
    g_hash_table_replace(r->fds->named, g_strdup(name), GINT_TO_POINTER(fd));
    return true;
}

static bool not_found(const char *name, GError **error)
{
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "File descriptor named '%s' has not been found", name);
}

COMMAND_FN(cmd_closefd)
{
    const char *name = jv_text(jv_get(args, "fdname"));
    return (r->fds && g_hash_table_remove(r->fds->named, name)) ||
           lodge_fail(error, LODGE_ERROR_CONFIG, "File descriptor named '%s' not found", name);
}

/* Whether @fd is a stream socket whose other end is there. */
static bool is_connection(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof peer, type_len = sizeof(int);
    int type = 0;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) == 0 && type == SOCK_STREAM &&
           getpeername(fd, (struct sockaddr *)&peer, &len) == 0;
}

int control_fds_take(ControlFds *f, const char *name, GError **error)
{
    gpointer key, fd;
    if (!f || !g_hash_table_steal_extended(f->named, name, &key, &fd)) {
        not_found(name, error);
        return -1;
    }
    g_free(key);
    return GPOINTER_TO_INT(fd);
}

int control_fds_take_connection(ControlFds *f, const char *name, GError **error)
{
    int fd = control_fds_take(f, name, error);

    if (fd < 0 || is_connection(fd))
        return fd;
    close(fd);
    lodge_fail(error, LODGE_ERROR_CONFIG, "'%s' is no connected stream socket", name);
    return -1;
}

COMMAND_FN(cmd_add_client)
{
    const char *protocol = jv_text(jv_get(args, "protocol"));
    int fd = control_fds_take_connection(r->fds, jv_text(jv_get(args, "fdname")), error);
    if (fd < 0)
        return false;
    bool ok = true;
    if (strcmp(protocol, "vnc"))
        ok = lodge_fail(error, LODGE_ERROR_CONFIG, "protocol '%s' is invalid", protocol);
    else if (!c->config.add_viewer)
        ok = lodge_fail(error, LODGE_ERROR_STATE, "there is no screen");
    if (!ok) {
        close(fd);
        return false;
    }
    return c->config.add_viewer(c->config.opaque, fd, jv_bool(jv_get(args, "skipauth")), error);
}

COMMAND_FN(cmd_agent)
{
    int fd = control_fds_take_connection(r->fds, jv_text(jv_get(args, "fdname")), error);

    return fd >= 0 && agent_port_add(c->config.agent, fd, error);
}

COMMAND_FN(cmd_agent_will)
{
    int fd = control_fds_take_connection(r->fds, jv_text(jv_get(args, "fdname")), error);

    return fd >= 0 && agent_port_add_will(c->config.agent, fd, jv_text(jv_get(args, "request")),
                                          error);
}
