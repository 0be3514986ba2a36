/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PCI devices that come and go while the guest runs.
 *
 * device_add's arguments are the properties of the class that it names, as one node of a machine
 * description would have them; its back end is there already, and one whose device has gone is free
 * for another. x-lodge-plug takes a device together with its back end as a description of the two,
 * in its flat form, and x-lodge-unplug takes both away: what "lodge set" uses, for which
 * x-lodge-description tells what the machine has now.
 */
#include <string.h>

#include "lodge/error.h"
#include "lodge/net.h"

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

/* Whether a card of @m has @mac. */
static bool has_mac(Machine *m, const uint8_t *mac)
{
    const GPtrArray *devices = machine_devices(m);
    for (unsigned i = 0; i < devices->len; i++) {
        const Device *d = g_ptr_array_index(devices, i);
        for (const PropSpec *p = d->cls->props; p && p->name; p++) {
            if (p->kind == PROP_MAC && !memcmp((const char *)d + p->offset, mac, 6))
                return true;
        }
    }
    return false;
}

/* Give device @id of @t an address that no other card has, unless it was given one. */
static void choose_mac(Control *c, Tree *t, const char *id)
{
    g_autofree char *path = g_strdup_printf("/devices/%s", id);
    const DeviceClass *cls = device_class_find(tree_str(t, path, "compatible"));
    const PropSpec *p = cls->props;
    uint8_t mac[6];
    while (p && p->name && p->kind != PROP_MAC)
        p++;
    if (!p || !p->name || tree_has(t, path, p->name))
        return;
    unsigned n = 0;
    do {
        net_mac_of(c->config.name ? c->config.name : "", n++, mac);
    } while (has_mac(c->config.machine, mac)); /* ends: there are few cards */
    g_autofree char *text = net_mac_text(mac);
    (void)tree_set_str(t, path, p->name, text); /* the node is there, and has room */
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
    if (!t)
        return false;
    choose_mac(c, t, id);
    return machine_plug(m, t, id, error);
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

/* ---- with their back ends ---- */

COMMAND_FN(cmd_description)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    g_autoptr(Tree) t = tree_new();
    (void)tree_graft(t, "/backends", machine_now(m), "/backends"); /* absent: none */
    (void)tree_graft(t, "/devices", machine_now(m), "/devices");
    (void)tree_graft(t, "/options", machine_now(m), "/options");
    g_autoptr(GPtrArray) disks = tree_children(t, "/backends/block");
    for (unsigned i = 0; i < disks->len; i++) {
        const char *id = g_ptr_array_index(disks, i), *file, *base;
        g_autofree char *path = g_strdup_printf("/backends/block/%s", id);
        /* An image may have been put on top, though not by ourselves. */
        if (!tree_has(t, path, "snapshot") && machine_disk_files(m, id, &file, &base))
            (void)tree_set_str(t, path, "file", file);
    }
    size_t len;
    const void *blob = tree_blob(t, &len);
    if (!blob)
        return lodge_fail(error, LODGE_ERROR_HOST, "no memory");
    g_autofree char *text = g_base64_encode(blob, len);
    JsonOut *out = control_return(r);
    json_object(out, "return");
    json_string(out, "tree", text);
    json_end(out);
    return true;
}

COMMAND_FN(cmd_plug)
{
    Machine *m = control_machine(c, error);
    if (!m)
        return false;
    gsize len = 0;
    g_autofree guchar *blob = g_base64_decode(jv_text(jv_get(args, "tree")), &len);
    g_autoptr(Tree) t = tree_from_blob(blob, len, error);
    g_autoptr(GPtrArray) ids = t ? tree_children(t, "/devices") : NULL;
    if (!t)
        return false;
    const char *id = ids->len == 1 ? g_ptr_array_index(ids, 0) : "";
    g_autofree char *path = g_strdup_printf("/devices/%s", id);
    const char *name = tree_str(t, path, "compatible");
    if (!is_name(id) || !name || !device_class_find(name))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "the description is not of one device");
    choose_mac(c, t, id);
    return control_plug(m, t, id, error);
}

static void unplug_done(void *opaque, bool gone)
{
    g_autoptr(GError) error = NULL;
    if (!gone)
        lodge_fail(&error, LODGE_ERROR_BUSY, "the guest has not let go of it yet");
    control_reply_done(opaque, error);
}

static void unplug_cancel(ControlReply *r)
{
    control_unplug_forget(r->opaque, r);
}

COMMAND_FN(cmd_unplug)
{
    Jv seconds = jv_get(args, "seconds");
    int64_t wait = jv_kind(seconds) == JV_INT ? jv_int(seconds) : 10;
    if (!control_machine(c, error))
        return false;
    if (wait < 1 || wait > 3600)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "Parameter 'seconds' expects 1 to 3600");
    if (!control_unplug(c, jv_text(jv_get(args, "id")), (unsigned)wait, unplug_done, r, error))
        return false;
    control_reply_later(r, unplug_cancel, c);
    return true;
}
