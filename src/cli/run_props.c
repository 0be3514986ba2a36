/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices and their properties, as options of "lodge run" give them. */
#include <inttypes.h>
#include <string.h>

#include "lodge/error.h"

#include "run_compile.h"

#define RUN_NAME_MAX 63

const PropSpec *prop_named(const DeviceClass *cls, const char *name)
{
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        if (!strcmp(p->name, name))
            return p;
    }
    return NULL;
}

const PropSpec *prop_of_kind(const DeviceClass *cls, PropKind kind)
{
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        if (p->kind == kind)
            return p;
    }
    return NULL;
}

const DeviceClass *class_for(const char *option, const char *name, GError **error)
{
    const DeviceClass *cls = device_class_find(name);

    if (!cls || !cls->bus) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "--%s: \"%s\": no device class that can be added; see \"lodge devices\"", option,
                   name);
        return NULL;
    }
    return cls;
}

bool prop_check(const char *option, const DeviceClass *cls, const PropSpec *p,
                       const char *value, GError **error)
{
    uint8_t mac[6];
    uint64_t n;
    bool on;

    switch (p->kind) {
    case PROP_BOOL:
        if (!parse_bool(value, &on))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: %s of %s: \"%s\" is neither on nor off", option, p->name,
                              cls->name, value);
        return true;
    case PROP_U32:
    case PROP_U64:
        if (!parse_size(value, &n) || n < p->min || n > p->max)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: %s of %s: \"%s\" is no number from %" PRIu64 " to %" PRIu64,
                              option, p->name, cls->name, value, p->min, p->max);
        return true;
    case PROP_STRING:
        if (p->max && strlen(value) > p->max)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: %s of %s: \"%s\" has over %" PRIu64 " characters", option,
                              p->name, cls->name, value, p->max);
        return true;
    case PROP_MAC:
        if (!parse_mac(value, mac))
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "--%s: %s of %s: \"%s\" is no address; write 52:54:00:12:34:56",
                              option, p->name, cls->name, value);
        return true;
    case PROP_BLK:
    case PROP_NET:
    case PROP_CHAN:
        return true; /* the machine looks the name up */
    }
    return true;
}

void props_list(GString *out, const DeviceClass *cls)
{
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        if (p->kind != PROP_BLK && p->kind != PROP_NET && p->kind != PROP_CHAN)
            g_string_append_printf(out, "%s%s", out->len ? ", " : "", p->name);
    }
}

bool put(Tree *t, const char *path, const char *prop, const char *value, GError **error)
{
    if (tree_set_str(t, path, prop, value))
        return true;
    return lodge_fail(error, LODGE_ERROR_CONFIG,
                      "\"%s\": cannot be a value of %s in %s: too long, or a few bytes that are no "
                      "text", value, prop, path);
}

char *device_add(Tree *t, const char *id, const DeviceClass *cls)
{
    char *path = g_strdup_printf("/devices/%s", id);

    tree_set_str(t, path, "compatible", cls->name);
    return path;
}

bool name_check(const char *what, const char *name, GError **error)
{
    bool ok = g_ascii_isalnum(name[0]) && strlen(name) <= RUN_NAME_MAX;

    for (const char *s = name; ok && *s; s++)
        ok = g_ascii_isalnum(*s) || strchr("._-", *s);
    if (!ok)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: \"%s\": a name is 1 to %d letters, digits, dots, dashes and "
                          "underscores, and starts with a letter or digit",
                          what, name, RUN_NAME_MAX);
    return true;
}

