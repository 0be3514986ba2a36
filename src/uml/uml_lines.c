/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * conN= and sslN=: the guest's consoles and serial lines.
 *
 * con0 is the console of the kernel: port 0 of the virtio console, or the first serial port where
 * nobody in the guest would know that one (see uml_args.c). The others are ports of that device
 * with the names that they have in the guest, tty1 and ttyS0. UML opens a line when the guest
 * does; here all are open from the start, so "con=" and "ssl=" stand for as many as guests have a
 * login on.
 *
 * A null line has no port: the kernel's own /dev/ttyN swallows what is written to it. A channel
 * that can serve one line only (a descriptor, a device, a port) goes to the first that asks.
 */
#include <string.h>

#include "lodge/error.h"

#include "uml_internal.h"

#define WINDOW "xterm" /* among the lines' channels; a pseudo-terminal in the description */
#define CON_ALL 7u /* con0 to con6: what inittabs have a getty on */
#define SSL_ALL 1u
#define PORTS "16"    /* of the device, so that lines can be added while it runs */
#define TERMINALS 7u  /* besides con0: Linux has hvc0 to hvc7 */
#define MCONSOLE_PORT "lodge.mconsole" /* for the management console's questions to the guest */

void uml_clear_lines(Uml *u)
{
    for (unsigned i = 0; i <= UML_CON_MAX; i++)
        g_clear_pointer(&u->con[i], g_free);
    for (unsigned i = 0; i <= UML_SSL_MAX; i++)
        g_clear_pointer(&u->ssl[i], g_free);
    g_clear_pointer(&u->all_con, g_free);
    g_clear_pointer(&u->all_ssl, g_free);
}

/* [N]=CHANNEL; anything else is a word of the kernel (console=, consoleblank=). */
static bool take(const char *kind, const char *rest, char **line, unsigned max, char **all,
                 GError **error)
{
    const char *at = rest, *problem = NULL;
    char **to = all;
    unsigned n;

    if (uml_take_number(&at, false, &n)) {
        if (*at == '=' && n > max)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "%s%s: there are %s0 to %s%u", kind, rest,
                              kind, kind, max);
        to = n <= max ? &line[n] : NULL;
    }
    if (*at != '=' || !to)
        return true;
    g_autofree char *spec = uml_channel(at + 1, &problem);
    if (!spec)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s%s: %s", kind, rest, problem);
    g_free(*to);
    *to = uml_channel_is_window(at + 1) ? g_strdup(WINDOW) : g_steal_pointer(&spec);
    return true;
}

bool uml_take_con(Uml *u, const char *rest, GError **error)
{
    return take("con", rest, u->con, UML_CON_MAX, &u->all_con, error);
}

bool uml_take_ssl(Uml *u, const char *rest, GError **error)
{
    return take("ssl", rest, u->ssl, UML_SSL_MAX, &u->all_ssl, error);
}

static bool for_many(const char *spec)
{
    return !spec[0] || !strcmp(spec, "none") || !strcmp(spec, "pty") ||
           !strcmp(spec, WINDOW);
}

/* Give lines that are not named what stands for all of them. */
static void spread(char **line, unsigned count, const char *all)
{
    for (unsigned i = 0; all && i < count; i++) {
        if (line[i])
            continue;
        line[i] = g_strdup(all);
        if (!for_many(all))
            return;
    }
}

/* Whether another line before it has the same channel, and both cannot. */
static const char *taken(Uml *u, const char *kind, unsigned n, const char *spec, char *name)
{
    for (unsigned i = 0; i <= UML_CON_MAX && !for_many(spec); i++) {
        if (kind[0] == 'c' && i == n)
            return NULL;
        if (u->con[i] && !strcmp(u->con[i], spec)) {
            g_snprintf(name, 8, "con%u", i);
            return name;
        }
    }
    for (unsigned i = 0; i < n && !for_many(spec); i++) {
        if (u->ssl[i] && !strcmp(u->ssl[i], spec)) {
            g_snprintf(name, 8, "ssl%u", i);
            return name;
        }
    }
    return NULL;
}

/* Line @n of @kind as back end, and as a port where it needs one. */
static bool put_line(Uml *u, const char *kind, unsigned n, const char *spec, const char *device,
                     unsigned *ports, GError **error)
{
    g_autofree char *id = g_strdup_printf("%s%u", kind, n);
    g_autofree char *path = g_strdup_printf("/backends/chan/%s", id);
    g_autofree char *name = g_strdup_printf(kind[0] == 'c' ? "tty%u" : "ttyS%u", n);
    char other[8];

    if (taken(u, kind, n, spec, other))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "%s: %s has that channel; choose another", id,
                          other);
    if (!spec[0])
        return true;
    if (!strcmp(spec, WINDOW)) {
        g_ptr_array_add(u->o.windows, g_strdup(id));
        spec = "pty";
    }
    if (!uml_put(u, path, "spec", spec, error))
        return false;
    if (!strcmp(spec, "none") || (kind[0] == 'c' && !n))
        return true;
    if (++*ports > TERMINALS)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: one more than the limit of %u consoles and lines besides con0; make "
                          "others null", id, TERMINALS);
    g_autofree char *port = g_strdup_printf("port%u", *ports);
    g_autofree char *label = g_strdup_printf("port%u-name", *ports);
    g_autofree char *tty = g_strdup_printf("port%u-tty", *ports);
    return uml_put(u, device, "compatible", "virtio-console-pci", error) &&
           uml_put(u, device, port, id, error) && uml_put(u, device, label, name, error) &&
           uml_put(u, device, tty, "on", error);
}

bool uml_put_lines(Uml *u, GError **error)
{
    /* The management console knows by this name where con0 is. */
    const char *device = u->consoles ? "/devices/consoles" : "/devices/ports";
    unsigned ports = 0;

    spread(u->con, CON_ALL, u->all_con);
    spread(u->ssl, SSL_ALL, u->all_ssl);
    if (!u->con[0] || !u->con[0][0]) { /* the kernel's console cannot be away */
        g_autofree char *old = u->con[0];
        u->con[0] = g_strdup(old ? "none" : "stdio");
    }
    if (!uml_put(u, "/devices/com1", "compatible", "16550a", error) ||
        !uml_put(u, "/devices/com1", "iobase", "0x3f8", error) ||
        !uml_put(u, "/devices/com1", "irq", "4", error) ||
        !uml_put(u, "/devices/com1", u->consoles ? "beside" : "chan", "con0", error) ||
        (u->consoles && (!uml_put(u, device, "compatible", "virtio-console-pci", error) ||
                         !uml_put(u, device, "max-ports", PORTS, error) ||
                         !uml_put(u, device, "chan", "con0", error))))
        return false;
    for (unsigned i = 0; i <= UML_CON_MAX; i++) {
        if (u->con[i] && !put_line(u, "con", i, u->con[i], device, &ports, error))
            return false;
    }
    for (unsigned i = 0; i <= UML_SSL_MAX; i++) {
        if (u->ssl[i] && !put_line(u, "ssl", i, u->ssl[i], device, &ports, error))
            return false;
    }
    if (!u->consoles)
        return true;
    g_autofree char *port = g_strdup_printf("port%u", ports + 1);
    g_autofree char *label = g_strdup_printf("port%u-name", ports + 1);
    return uml_put(u, "/backends/chan/mconsole", "spec", "none", error) &&
           uml_put(u, device, port, "mconsole", error) &&
           uml_put(u, device, label, MCONSOLE_PORT, error);
}
