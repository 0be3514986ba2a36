/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ports of the host that lead into the guest, as those who look are told (MachineStatus): what the
 * machine was started with, and what came and went since.
 */
#include <string.h>

#include "control_internal.h"

#define FORWARDS_MAX 256u /* that are told of */
#define LOOPBACK "127.0.0.1"

/* "tcp:ADDR:PORT" or what begins so, as "ADDR:PORT"; transfer full. */
static char *host_end(const char *rule)
{
    const char *from = strchr(rule, ':');
    if (!from)
        return g_strdup("");
    size_t len = strcspn(++from, "-");
    return g_strdup_printf("%s%.*s", *from == ':' ? LOOPBACK : "", (int)len, from);
}

static const char *protocol(const char *rule)
{
    return g_str_has_prefix(rule, "udp:") ? "udp" : "tcp";
}

static GPtrArray *list(Control *c)
{
    if (c->forwards)
        return c->forwards;
    c->forwards = g_ptr_array_new_with_free_func(g_free);
    char **first = c->config.status ? c->config.status->forwards : NULL;
    for (; first && *first; first++)
        g_ptr_array_add(c->forwards, g_strdup(*first));
    g_ptr_array_add(c->forwards, NULL);
    return c->forwards;
}

char **control_forwards(const Control *c)
{
    return c->forwards            ? (char **)c->forwards->pdata
           : c->config.status     ? c->config.status->forwards
                                  : NULL;
}

void control_forward_came(Control *c, const char *rule, const char *made)
{
    const char *port = strrchr(rule, ':');
    GPtrArray *all = list(c);
    if (!port || all->len > FORWARDS_MAX)
        return;
    g_ptr_array_insert(all, (gint)all->len - 1,
                       g_strdup_printf("%.*s->%s/%s", (int)strcspn(made, " "), made, port + 1,
                                       protocol(rule)));
    control_tell_status(c);
}

void control_forward_went(Control *c, const char *rule)
{
    g_autofree char *host = host_end(rule);
    g_autofree char *begin = g_strconcat(host, "->", NULL);
    GPtrArray *all = list(c);
    for (unsigned i = 0; i + 1 < all->len; i++) {
        const char *text = g_ptr_array_index(all, i);
        if (g_str_has_prefix(text, begin) && g_str_has_suffix(text, protocol(rule))) {
            g_ptr_array_remove_index(all, i);
            break;
        }
    }
    control_tell_status(c);
}
