/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --net and --publish. */
#include <arpa/inet.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/net.h"

#include "run_compile.h"

#define RUN_PORT_MAX 65535
#define RUN_NETS_MAX 16
#define CLASS_NET "virtio-net-pci"

/* NULL: there is none of that name. */
static const NetDriver *net_driver_find(const char *name)
{
    for (const NetDriver *const *d = net_driver_table; *d; d++) {
        if (!strcmp((*d)->name, name))
            return *d;
    }
    return NULL;
}

static bool net_driver_unknown(const char *name, GError **error)
{
    g_autoptr(GString) list = g_string_new(NULL);

    for (const NetDriver *const *d = net_driver_table; *d; d++)
        g_string_append_printf(list, "%s%s", list->len ? ", " : "", (*d)->name);
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "--net: \"%s\": unknown back end; this version has %s", name, list->str);
}

static const NetOptSpec *net_opt_named(const NetDriver *d, const char *name)
{
    for (const NetOptSpec *s = d->opts; s && s->name; s++) {
        if (!strcmp(s->name, name))
            return s;
    }
    for (const NetOptSpec *s = net_common_opts; s->name; s++) {
        if (!strcmp(s->name, name))
            return s;
    }
    return NULL;
}

/* A card by what users call it: the name of its class, or "virtio". */
static const DeviceClass *net_model_for(const char *name, GError **error)
{
    g_autoptr(GString) list = g_string_new("virtio");

    if (!name || !strcmp(name, "virtio"))
        return class_for("net", CLASS_NET, error);
    for (const DeviceClass *const *c = device_table; *c; c++) {
        if (!(*c)->bus || !prop_of_kind(*c, PROP_NET))
            continue;
        if (!strcmp((*c)->name, name))
            return *c;
        g_string_append_printf(list, ", %s", (*c)->name);
    }
    lodge_fail(error, LODGE_ERROR_CONFIG, "--net: model: \"%s\": unknown card; this version has %s",
               name, list->str);
    return NULL;
}

/* @named: the back end was, or @pair is not where its name stands. */
static bool compile_net_pair(Tree *t, const NetDriver *d, const DeviceClass *cls,
                             const char *backend, const char *device, const OptPair *pair,
                             bool named, GError **error)
{
    const NetOptSpec *opt = net_opt_named(d, pair->key);
    const PropSpec *p = prop_named(cls, pair->key);

    if (opt) {
        if (!opt->repeat && tree_has(t, backend, pair->key))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--net: %s: given twice", pair->key);
        if (!tree_add_str(t, backend, pair->key, pair->value))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--net: %s: too many", pair->key);
        return true;
    }
    if (!p && !strcmp(pair->key, "queues"))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--net: queues: %s has one pair of queues; a tap has several, like "
                          "tap=NAME,queues=2",
                          d->name);
    if (!p && !named)
        return net_driver_unknown(pair->key, error);
    if (!p || p->kind == PROP_NET) {
        g_autoptr(GString) list = g_string_new(NULL);

        for (const NetOptSpec *s = d->opts; s && s->name; s++)
            g_string_append_printf(list, "%s%s", list->len ? ", " : "", s->name);
        for (const NetOptSpec *s = net_common_opts; s->name; s++)
            g_string_append_printf(list, ", %s", s->name);
        props_list(list, cls);
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--net: \"%s\": unknown sub-option; valid ones for %s are %s", pair->key,
                          d->name, list->str);
    }
    return prop_check("net", cls, p, pair->value, error) &&
           put(t, device, p->name, pair->value, error);
}

/* Whether firmware is to try card @n: where the user says so, or where there is nothing else. */
static bool net_boots(const Tree *t, const Options *o)
{
    const OptValue *boot = options_next(o, "boot", NULL);
    const char *order = boot ? opt_sub(boot, "order") : NULL;

    if (!run_has_firmware(o))
        return false;
    if (order || (boot && opt_sub_on(boot, "menu")))
        return !order || strchr(order, 'n');
    return !tree_has(t, "/backends/block", NULL);
}

/* A machine without a name of its own has another address each time. */
static bool net_set_mac(Tree *t, const Options *o, const DeviceClass *cls, const char *device,
                        unsigned n, GError **error)
{
    g_autofree char *drawn = o->args->len ? NULL : g_uuid_string_random();
    uint8_t mac[6];

    if (!prop_named(cls, "mac") || tree_has(t, device, "mac"))
        return true;
    net_mac_of(drawn ? drawn : g_ptr_array_index(o->args, 0), n, mac);
    g_autofree char *text = net_mac_text(mac);
    return put(t, device, "mac", text, error);
}

/* The back end that @v names: "NAME", or "NAME=VALUE" for one that has a target; *ret_target then
 * is its pair. Without a name it is "user". NULL with the error. */
static const NetDriver *net_driver_of(const OptValue *v, const OptPair **ret_target,
                                      GError **error)
{
    const char *name = v ? opt_sub(v, "driver") : "user";
    const OptPair *first = name ? NULL : g_ptr_array_index(v->pairs, 0);
    const NetDriver *d = net_driver_find(name ? name : first->key);

    *ret_target = NULL;
    if (name && !d)
        net_driver_unknown(name, error);
    if (name)
        return d;
    if (!d)
        return net_driver_find("user");
    if (!d->target) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "--net: %s: takes no value; leave out \"=%s\"",
                   d->name, first->value);
        return NULL;
    }
    *ret_target = first;
    return d;
}

static bool compile_net(Tree *t, const Options *o, const OptValue *v, unsigned n, GError **error)
{
    const OptPair *target;
    const NetDriver *d = net_driver_of(v, &target, error);
    const DeviceClass *cls = d ? net_model_for(v ? opt_sub(v, "model") : NULL, error) : NULL;
    g_autofree char *id = g_strdup_printf("net%u", n);
    g_autofree char *backend = g_strdup_printf("/backends/net/%s", id);
    g_autofree char *device = NULL;
    const PropSpec *port = cls ? prop_of_kind(cls, PROP_NET) : NULL;

    if (!cls)
        return false;
    tree_set_str(t, backend, "driver", d->name);
    device = device_add(t, id, cls);
    if (port)
        tree_set_str(t, device, port->name, id);
    for (guint i = 0; v && i < v->pairs->len; i++) {
        const OptPair *pair = g_ptr_array_index(v->pairs, i);

        if (pair == target) {
            tree_add_str(t, backend, d->target, pair->value);
            continue;
        }
        if (strcmp(pair->key, "driver") && strcmp(pair->key, "model") &&
            !compile_net_pair(t, d, cls, backend, device, pair, target || i || opt_sub(v, "driver"),
                              error))
            return false;
    }
    if (net_boots(t, o) && prop_named(cls, "netboot") && !tree_has(t, device, "netboot") &&
        !put(t, device, "netboot", "on", error))
        return false;
    return net_set_mac(t, o, cls, device, n, error);
}

static bool port_ok(const char *text, uint64_t least)
{
    uint64_t port;

    return parse_u64(text, &port) && port >= least && port <= RUN_PORT_MAX;
}

/* "[ADDR:]PORT[:PORT][/udp]" with that many @ports, the first of two possibly 0, as hostfwd
 * has it: "tcp:ADDR:PORT[-:PORT]"; transfer full. NULL: it is no such text. */
static char *forward_rule(const char *text, guint ports)
{
    g_autofree char *copy = g_strdup(text);
    g_auto(GStrv) part = NULL;
    const char *proto = "tcp", *addr = "127.0.0.1";
    char *slash = strchr(copy, '/');
    struct in_addr ip;

    if (slash) {
        *slash = '\0';
        proto = slash + 1;
    }
    part = g_strsplit(copy, ":", -1);
    guint n = g_strv_length(part);
    if (n == ports + 1)
        addr = part[0];
    if (n < ports || n > ports + 1 || (strcmp(proto, "tcp") && strcmp(proto, "udp")) ||
        inet_pton(AF_INET, addr, &ip) != 1 ||
        !port_ok(part[n - ports], ports > 1 ? 0 : 1) || !port_ok(part[n - 1], 1))
        return NULL;
    return g_strdup_printf("%s:%s:%s%s%s", proto, addr, part[n - ports], ports > 1 ? "-:" : "",
                           ports > 1 ? part[n - 1] : "");
}

char *publish_rule(const char *text, GError **error)
{
    char *rule = forward_rule(text, 2);

    if (!rule)
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "--publish: \"%s\": write [ADDR:]HOST:GUEST[/udp], like 2222:22 or "
                   "0.0.0.0:8080:80",
                   text);
    return rule;
}

char *unpublish_rule(const char *text, GError **error)
{
    char *rule = forward_rule(text, 1);

    if (!rule)
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "--unpublish: \"%s\": write [ADDR:]HOST[/udp], like 8080", text);
    return rule;
}

static bool compile_publish(Tree *t, const Options *o, GError **error)
{
    g_autoptr(GPtrArray) nets = tree_children(t, "/backends/net");
    g_autofree char *user = NULL;

    for (guint i = 0; i < nets->len && !user; i++) {
        g_autofree char *path =
            g_strdup_printf("/backends/net/%s", (char *)g_ptr_array_index(nets, i));

        if (!strcmp(tree_str(t, path, "driver"), "user"))
            user = g_steal_pointer(&path);
    }
    for (const OptValue *v = NULL; (v = options_next(o, "publish", v));) {
        g_autofree char *rule = publish_rule(v->text, error);

        if (!rule)
            return false;
        if (!user)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--publish: \"%s\": needs a user network; add --net user", v->text);
        if (!tree_add_str(t, user, "hostfwd", rule))
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--publish: \"%s\": too many", v->text);
    }
    return true;
}

bool compile_nets(Tree *t, const Options *o, GError **error)
{
    unsigned n = 0;
    bool none = false;

    for (const OptValue *v = NULL; (v = options_next(o, "net", v));) {
        if (!g_strcmp0(opt_sub(v, "driver"), "none")) {
            if (v->pairs->len > 1)
                return lodge_fail(error, LODGE_ERROR_CONFIG, "--net: none: takes no sub-options");
            none = true;
        } else if (n == RUN_NETS_MAX) {
            return lodge_fail(error, LODGE_ERROR_CONFIG, "--net: a machine has at most %d",
                              RUN_NETS_MAX);
        } else if (!compile_net(t, o, v, n++, error)) {
            return false;
        }
    }
    if (none && n)
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--net: none: stands beside another --net");
    if (!none && !n && !compile_net(t, o, NULL, 0, error))
        return false;
    return compile_publish(t, o, error);
}

