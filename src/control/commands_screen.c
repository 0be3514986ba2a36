/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands that look at the screen, and who is shown it. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

#include "control_internal.h"

static Display *display_of(Control *c, GError **error)
{
    if (!c->config.display)
        lodge_fail(error, LODGE_ERROR_STATE, "There is no console to take a screendump from");
    return c->config.display;
}

/* Only into a plain file: what would block stands still for the whole machine. */
static bool write_file(const char *path, GBytes *bytes, GError **error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    struct stat st;
    if (fd < 0)
        return lodge_fail_errno(error, errno, "failed to open file '%s'", path);
    bool ok = false;
    gsize len;
    const char *data = g_bytes_get_data(bytes, &len);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "'%s' is not a plain file", path);
    } else if (ftruncate(fd, 0) < 0) {
        lodge_fail_errno(error, errno, "'%s': cannot be emptied", path);
    } else {
        ssize_t n = 1;
        while (len && n > 0) {
            n = write(fd, data, len);
            if (n > 0) {
                data += n;
                len -= (gsize)n;
            }
        }
        ok = !len || lodge_fail_errno(error, n < 0 ? errno : ENOSPC, "'%s': cannot be written",
                                      path);
    }
    close(fd);
    return ok;
}

bool control_screendump(Control *c, const char *filename, const char *format, GError **error)
{
    Display *d = display_of(c, error);
    if (!d)
        return false;
    g_autoptr(GBytes) bytes =
        format && !strcmp(format, "png") ? picture_png(d, error) : picture_ppm(d, error);
    return bytes && write_file(filename, bytes, error);
}

COMMAND_FN(cmd_screendump)
{
    return control_screendump(c, jv_text(jv_get(args, "filename")),
                              jv_text(jv_get(args, "format")), error);
}

COMMAND_FN(cmd_screen_text)
{
    Display *d = display_of(c, error);
    if (!d)
        return false;
    g_autofree char *text = display_text(d);
    if (!text)
        return lodge_fail(error, LODGE_ERROR_STATE, "the screen is in a graphics mode");
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_string(out, "text", text);
    json_end(out);
    return true;
}

/* ---- who is shown it ---- */

typedef struct Place {
    char host[NI_MAXHOST], service[NI_MAXHOST]; /* a service may be a socket's path */
    const char *family; /* NetworkAddressFamily of QEMU's */
} Place;

/* Where somebody comes from; a Unix socket's client has no name. */
static void place_of(const struct sockaddr_storage *a, Place *ret)
{
    *ret = (Place){.family = a->ss_family == AF_INET    ? "ipv4"
                             : a->ss_family == AF_INET6 ? "ipv6"
                                                        : "unix"};
    if (a->ss_family != AF_UNIX &&
        getnameinfo((const struct sockaddr *)a, sizeof *a, ret->host, sizeof ret->host,
                    ret->service, sizeof ret->service, NI_NUMERICHOST | NI_NUMERICSERV))
        ret->host[0] = ret->service[0] = '\0';
}

/* Where it listens; see ControlScreen. */
static void place_listening(const char *address, Place *ret)
{
    const char *colon = strrchr(address, ':');
    bool local = g_str_has_prefix(address, "unix:"), bracket = address[0] == '[';
    g_autofree char *host =
        local || !colon ? g_strdup("")
                        : g_strndup(address + bracket, (gsize)(colon - address) - 2 * bracket);

    *ret = (Place){.family = local ? "unix" : bracket ? "ipv6" : "ipv4"};
    g_strlcpy(ret->host, host, sizeof ret->host);
    g_strlcpy(ret->service, local ? address + strlen("unix:") : colon ? colon + 1 : "",
              sizeof ret->service);
}

/* @websocket: QEMU has the field in lists of servers alone. */
static void print_place(JsonOut *out, const Place *p, bool websocket)
{
    json_string(out, "host", p->host);
    json_string(out, "family", p->family);
    json_string(out, "service", p->service);
    if (websocket)
        json_bool(out, "websocket", false);
}

static void print_viewers(JsonOut *out, const ControlScreen *s)
{
    json_array(out, "clients");
    for (unsigned i = 0; i < s->viewers; i++) {
        Place p;
        place_of(&s->viewer[i], &p);
        json_object(out, NULL);
        print_place(out, &p, true);
        json_end(out);
    }
    json_end(out);
}

/* False: it is served to nobody who comes by an address. */
static bool screen_listens(Control *c, ControlScreen *ret)
{
    *ret = (ControlScreen){.address = NULL};
    return c->config.describe_screen && c->config.describe_screen(c->config.opaque, ret) &&
           ret->address;
}

static const char *auth_of(const ControlScreen *s)
{
    return s->password ? "vnc" : "none";
}

COMMAND_FN(cmd_query_vnc)
{
    ControlScreen s;
    bool on = screen_listens(c, &s);
    JsonOut *out = control_return(r);

    json_object(out, "return");
    json_bool(out, "enabled", on);
    if (on) {
        Place p;
        place_listening(s.address, &p);
        json_string(out, "auth", auth_of(&s));
        print_place(out, &p, false);
    }
    if (on || s.viewers)
        print_viewers(out, &s);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_query_vnc_servers)
{
    ControlScreen s;
    bool on = screen_listens(c, &s);
    JsonOut *out = control_return(r);

    json_array(out, "return");
    if (on) {
        Place p;
        place_listening(s.address, &p);
        json_object(out, NULL);
        json_string(out, "auth", auth_of(&s));
        print_viewers(out, &s);
        json_array(out, "server");
        json_object(out, NULL);
        json_string(out, "auth", auth_of(&s));
        print_place(out, &p, true);
        json_end(out);
        json_end(out);
        json_string(out, "id", "default");
        json_end(out);
    }
    json_end(out);
    return true;
}

void control_print_screen(Control *c, GString *out)
{
    ControlScreen s;
    bool on = screen_listens(c, &s);

    if (!on && !s.viewers) {
        g_string_append(out, "None\r\n");
        return;
    }
    g_string_append(out, "default:\r\n");
    if (on) {
        Place p;
        place_listening(s.address, &p);
        g_string_append_printf(out, "  Server: %s:%s (%s)\r\n    Auth: %s (Sub: none)\r\n", p.host,
                               p.service, p.family, auth_of(&s));
    }
    for (unsigned i = 0; i < s.viewers; i++) {
        Place p;
        place_of(&s.viewer[i], &p);
        g_string_append_printf(out, "  Client: %s:%s (%s)\r\n", p.host, p.service, p.family);
    }
}
