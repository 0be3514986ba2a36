/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Back ends by themselves: networks and disk images for devices that device_add names them to.
 *
 * Names and errors are QEMU 7.2's (qapi/net.json, block-core.json). A netdev's options are those of
 * Lodge's own back ends. A blockdev is a format over a file, given in one piece: nodes that refer
 * to others by name are not known, and an overlay finds its base as always.
 */
#include <string.h>

#include "lodge/error.h"
#include "lodge/net.h"

#include "block_int.h"
#include "control_internal.h"

static bool is_identifier(const char *id)
{
    bool ok = g_ascii_isalpha(id[0]) && strlen(id) <= 63;
    for (const char *s = id; ok && *s; s++)
        ok = g_ascii_isalnum(*s) || strchr("._-", *s);
    return ok;
}

static bool has_backend(Machine *m, const char *kind, const char *id)
{
    g_autofree char *path = g_strdup_printf("/backends/%s/%s", kind, id);
    return tree_has(machine_now(m), path, NULL);
}

/* ---- networks ---- */

static bool has_option(const NetOptSpec *s, const char *name)
{
    while (s && s->name && strcmp(s->name, name))
        s++;
    return s && s->name;
}

/* Append @v, one value of option @name, to node @path. */
static bool add_value(Tree *t, const char *path, const char *name, Jv v, GError **error)
{
    /* A list of QAPI's String objects. */
    Jv text = jv_kind(v) == JV_OBJECT ? jv_get(v, "str") : v;
    g_autofree char *number = NULL;
    const char *value = NULL;
    switch (jv_kind(text)) {
    case JV_STRING:
        value = jv_text(text);
        break;
    case JV_BOOL:
        value = jv_bool(text) ? "on" : "off";
        break;
    case JV_INT:
        value = number = g_strdup_printf("%" PRIi64, jv_int(text));
        break;
    default:
        return arg_type(error, name, "string");
    }
    return tree_add_str(t, path, name, value) || arg_value(error, name, value);
}

static bool describe_net(Tree *t, const char *path, const NetDriver *driver, Jv args,
                         GError **error)
{
    g_autoptr(GList) names = jv_names(args);
    tree_set_str(t, path, "driver", driver->name);
    for (GList *n = names; n; n = n->next) {
        const char *name = n->data;
        Jv v = jv_get(args, name);
        bool list = jv_kind(v) == JV_ARRAY;
        if (!strcmp(name, "type") || !strcmp(name, "id"))
            continue;
        if (!has_option(driver->opts, name) && !has_option(net_common_opts, name))
            return arg_unexpected(error, name);
        for (size_t i = 0; i < (list ? jv_length(v) : 1); i++) {
            if (!add_value(t, path, name, list ? jv_at(v, i) : v, error))
                return false;
        }
    }
    return true;
}

COMMAND_FN(cmd_netdev_add)
{
    Machine *m = control_machine(c, error);
    const char *type = jv_text(jv_get(args, "type")), *id = jv_text(jv_get(args, "id"));
    const NetDriver *const *d = net_driver_table;
    if (!m)
        return false;
    while (*d && strcmp((*d)->name, type))
        d++;
    if (!*d || !strcmp(type, "none"))
        return arg_value(error, "type", type);
    if (!is_identifier(id))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "Parameter 'id' expects an identifier");
    if (has_backend(m, "net", id))
        return lodge_fail(error, LODGE_ERROR_EXISTS, "Duplicate ID '%s'", id);
    g_autoptr(Tree) t = tree_new();
    g_autofree char *path = g_strdup_printf("/backends/net/%s", id);
    return describe_net(t, path, *d, args, error) && machine_add_backends(m, t, error);
}

COMMAND_FN(cmd_netdev_del)
{
    Machine *m = control_machine(c, error);
    const char *id = jv_text(jv_get(args, "id"));
    if (!m)
        return false;
    if (!has_backend(m, "net", id))
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "Device '%s' not found", id);
    return machine_drop_net(m, id, error);
}

/* ---- disk images ---- */

static bool take_bool(Jv v, const char *name, bool *ret, GError **error)
{
    *ret = jv_bool(v);
    return jv_kind(v) == JV_BOOL || arg_type(error, name, "boolean");
}

/* The file of a node: {"driver": "file", "filename": ...}. */
static const char *file_of(Jv v, GError **error)
{
    const char *driver = jv_text(jv_get(v, "driver")), *name = jv_text(jv_get(v, "filename"));
    if (jv_kind(v) == JV_ABSENT) {
        arg_missing(error, "file");
        return NULL;
    }
    if (jv_kind(v) != JV_OBJECT || !driver ||
        (strcmp(driver, "file") && strcmp(driver, "host_device"))) {
        lodge_fail(error, LODGE_ERROR_UNSUPPORTED,
                   "Parameter 'file' is to be {\"driver\": \"file\", \"filename\": ...}");
        return NULL;
    }
    if (!name)
        arg_missing(error, "filename");
    return name;
}

static bool describe_cache(Tree *t, const char *path, Jv v, GError **error)
{
    Jv direct = jv_get(v, "direct"), no_flush = jv_get(v, "no-flush");
    bool is_direct = false, is_unsafe = false;
    if (jv_kind(v) != JV_OBJECT)
        return arg_type(error, "cache", "object");
    if ((jv_kind(direct) != JV_ABSENT && !take_bool(direct, "direct", &is_direct, error)) ||
        (jv_kind(no_flush) != JV_ABSENT && !take_bool(no_flush, "no-flush", &is_unsafe, error)))
        return false;
    return tree_set_str(t, path, "cache", is_unsafe ? "unsafe" : is_direct ? "none" : "writeback");
}

static bool describe_option(Tree *t, const char *path, const char *name, Jv v, GError **error)
{
    bool read_only;
    if (!strcmp(name, "read-only")) {
        if (!take_bool(v, name, &read_only, error))
            return false;
        return tree_set_bool(t, path, name, read_only);
    }
    if (!strcmp(name, "cache"))
        return describe_cache(t, path, v, error);
    if (strcmp(name, "discard") && strcmp(name, "detect-zeroes"))
        return arg_unexpected(error, name);
    return add_value(t, path, name, v, error);
}

COMMAND_FN(cmd_blockdev_add)
{
    Machine *m = control_machine(c, error);
    const char *driver = jv_text(jv_get(args, "driver")), *id = jv_text(jv_get(args, "node-name"));
    bool plain = !strcmp(driver, "file") || !strcmp(driver, "host_device");
    if (!m)
        return false;
    if (!plain && !blk_driver_find(driver))
        return arg_value(error, "driver", driver);
    if (!id)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "'node-name' must be specified for the root node");
    if (!is_identifier(id))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "Invalid node-name: '%s'", id);
    if (has_backend(m, "block", id))
        return lodge_fail(error, LODGE_ERROR_EXISTS, "Duplicate nodes with node-name='%s'", id);
    const char *file = file_of(plain ? args : jv_get(args, "file"), error);
    if (!file)
        return false;
    g_autoptr(Tree) t = tree_new();
    g_autofree char *path = g_strdup_printf("/backends/block/%s", id);
    g_autoptr(GList) names = jv_names(args);
    tree_set_str(t, path, "file", file);
    tree_set_str(t, path, "format", plain ? "raw" : driver);
    for (GList *n = names; n; n = n->next) {
        const char *name = n->data;
        if (strcmp(name, "driver") && strcmp(name, "node-name") &&
            strcmp(name, plain ? "filename" : "file") &&
            !describe_option(t, path, name, jv_get(args, name), error))
            return false;
    }
    return machine_add_backends(m, t, error);
}

COMMAND_FN(cmd_blockdev_del)
{
    Machine *m = control_machine(c, error);
    const char *id = jv_text(jv_get(args, "node-name"));
    g_autoptr(GError) why = NULL;
    if (!m)
        return false;
    if (!has_backend(m, "block", id))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "Failed to find node with node-name='%s'",
                          id);
    return machine_drop_disk(m, id, &why) ||
           lodge_fail(error, LODGE_ERROR_BUSY, "Node %s is in use", id);
}
