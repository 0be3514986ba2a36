/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Host ends by name: finds the row of net_driver_table[], checks that every option is one of the
 * row's and comes as often as it may, and opens it. What an option's text means is the driver's
 * business. Threads: main only.
 */
#include "lodge/net.h"

#include <string.h>

#include "lodge/error.h"

static const NetDriver *driver_find(const char *name)
{
    for (const NetDriver *const *d = net_driver_table; *d; d++) {
        if (!strcmp((*d)->name, name))
            return *d;
    }
    return NULL;
}

static char *driver_names(void)
{
    GString *s = g_string_new(NULL);

    for (const NetDriver *const *d = net_driver_table; *d; d++)
        g_string_append_printf(s, "%s%s", s->len ? ", " : "", (*d)->name);
    return g_string_free(s, FALSE);
}

static char *option_names(const NetDriver *driver)
{
    GString *s = g_string_new(NULL);

    for (const NetOptSpec *o = driver->opts; o->name; o++)
        g_string_append_printf(s, "%s%s", s->len ? ", " : "", o->name);
    return g_string_free(s, FALSE);
}

static const NetOptSpec *option_find(const NetDriver *driver, const char *name)
{
    for (const NetOptSpec *o = driver->opts; o->name; o++) {
        if (!strcmp(o->name, name))
            return o;
    }
    return NULL;
}

static bool options_check(const NetDriver *driver, const char *id, GHashTable *opts,
                          GError **error)
{
    GHashTableIter it;
    gpointer key, value;

    g_hash_table_iter_init(&it, opts);
    while (g_hash_table_iter_next(&it, &key, &value)) {
        const NetOptSpec *o = option_find(driver, key);
        if (!o) {
            g_autofree char *names = option_names(driver);
            return lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s': '%s' has no option '%s'; %s%s",
                              id, driver->name, (const char *)key,
                              *names ? "it takes " : "it takes none", names);
        }
        if (((GPtrArray *)value)->len > 1 && !o->repeat)
            return lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s': option '%s' is given twice",
                              id, o->name);
    }
    return true;
}

/**
 * net_backend_open() - Open a host end by its driver's name
 * @driver: "user", ...; @id: names it in messages, copied by the driver where it needs it
 * @opts:   name -> GPtrArray of strings, or NULL for none; borrowed for the call
 * @clock:  guest clock for what has timers; borrowed, outlives the back end
 * Context: main thread.
 * Return:  transfer full, or NULL: LODGE_ERROR_CONFIG (unknown driver or option, ill-formed
 *          value), LODGE_ERROR_BUSY (a host port is taken), LODGE_ERROR_HOST.
 */
NetBackend *net_backend_open(const char *driver, const char *id, GHashTable *opts,
                             LodgeClock *clock, GError **error)
{
    const NetDriver *d = driver_find(driver);
    g_autoptr(GHashTable) none = NULL;

    if (!d) {
        g_autofree char *names = driver_names();
        lodge_fail(error, LODGE_ERROR_CONFIG, "net '%s': unknown kind '%s'; there are %s", id,
                   driver, names);
        return NULL;
    }
    if (!opts)
        opts = none = g_hash_table_new(g_str_hash, g_str_equal);
    if (!options_check(d, id, opts, error))
        return NULL;
    return d->open(id, opts, clock, error);
}

void net_backend_close(NetBackend *be)
{
    if (be)
        be->close(be);
}
