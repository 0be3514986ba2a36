/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * device_add and device_del: PCI devices that come and go while the guest runs.
 *
 * device_add's arguments are the properties of the class that it names, as one node of a machine
 * description would have them. Back ends are those that the machine was started with: one whose
 * device has gone is free for another.
 */
#include <string.h>

#include "lodge/error.h"

#include "control_internal.h"
#include "tree.h"

#define ID_MAX 63   /* letters of a device's name */
#define ROOT_BUS "pci.0"

static bool is_name(const char *id)
{
    bool ok = g_ascii_isalpha(id[0]) && strlen(id) <= ID_MAX;
    for (const char *s = id; ok && *s; s++)
        ok = g_ascii_isalnum(*s) || strchr("._-", *s);
    return ok;
}

/* The value of a property as text; transfer full, NULL: of a kind that none has. */
static char *value_text(Jv v)
{
    switch (jv_kind(v)) {
    case JV_STRING:
        return g_strdup(jv_text(v));
    case JV_BOOL:
        return g_strdup(jv_bool(v) ? "on" : "off");
    case JV_INT:
        return g_strdup_printf("%" PRIi64, jv_int(v));
    default:
        return NULL;
    }
}

/* The node /devices/@id that @args describe; NULL with the error. */
static Tree *describe(Jv args, const DeviceClass *cls, const char *id, GError **error)
{
    g_autoptr(Tree) t = tree_new();
    g_autoptr(GList) names = jv_names(args);
    g_autofree char *path = g_strdup_printf("/devices/%s", id);
    bool ok = tree_set_str(t, path, "compatible", cls->name);
    for (GList *n = names; ok && n; n = n->next) {
        const char *name = n->data;
        if (!strcmp(name, "driver") || !strcmp(name, "id") || !strcmp(name, "bus"))
            continue;
        g_autofree char *value = value_text(jv_get(args, name));
        if (!value) {
            arg_type(error, name, "string");
            return NULL;
        }
        ok = strcmp(name, "compatible") && tree_set_str(t, path, name, value);
        if (!ok)
            arg_unexpected(error, name);
    }
    return ok ? g_steal_pointer(&t) : NULL;
}

/* A name for a device that was given none. */
static char *free_id(Machine *m)
{
    for (unsigned i = 0;; i++) {
        g_autofree char *id = g_strdup_printf("device%u", i);
        if (!machine_device(m, id))
            return g_steal_pointer(&id);
    }
}

COMMAND_FN(cmd_device_add)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    const char *driver = jv_text(jv_get(args, "driver")), *given = jv_text(jv_get(args, "id"));
    const char *bus = jv_text(jv_get(args, "bus"));
    const DeviceClass *cls = device_class_find(driver);
    if (!cls || !cls->bus)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "'%s' is not a valid device model name",
                          driver);
    if (bus && strcmp(bus, ROOT_BUS))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "Bus '%s' not found", bus);
    if (given && !is_name(given))
        return arg_value(error, "id", given);
    if (given && machine_device(m, given))
        return lodge_fail(error, LODGE_ERROR_EXISTS, "Duplicate device ID '%s'", given);
    g_autofree char *id = given ? g_strdup(given) : free_id(m);
    g_autoptr(Tree) t = describe(args, cls, id, error);
    return t && machine_plug(m, t, id, error);
}

COMMAND_FN(cmd_device_del)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    const char *id = jv_text(jv_get(args, "id"));
    if (!machine_device(m, id))
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Device '%s' not found", id);
    return machine_unplug(m, id, error);
}
