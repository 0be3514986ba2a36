/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge devices": the classes of device_table[] and their properties; or, of a running machine,
 * its devices as they are. A class goes before a machine of the same name.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lodge/device.h"
#include "lodge/error.h"

#include "machines.h"

#define DEVICES_SECONDS 30
#include "lodge/json_out.h"

/* In the order of PropKind. */
static const char *const kind_names[] = {
    [PROP_BOOL] = "on|off", [PROP_U32] = "number", [PROP_U64] = "number", [PROP_STRING] = "text",
    [PROP_MAC] = "address", [PROP_BLK] = "disk",   [PROP_NET] = "net",    [PROP_CHAN] = "channel",
};

static bool is_number(const PropSpec *p)
{
    return p->kind == PROP_U32 || p->kind == PROP_U64;
}

static void print_text(const DeviceClass *cls)
{
    printf("%s (%s): %s\n", cls->name, cls->bus ? cls->bus : "board", cls->help ? cls->help : "");
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        printf("    %s=%s", p->name, kind_names[p->kind]);
        if (is_number(p))
            printf(" %" PRIu64 "..%" PRIu64, p->min, p->max);
        if (p->preset)
            printf(" (%s)", p->preset);
        printf("  %s\n", p->help ? p->help : "");
    }
}

static void print_json(JsonOut *j, const DeviceClass *cls)
{
    json_object(j, NULL);
    json_string(j, "name", cls->name);
    json_string(j, "bus", cls->bus);
    json_string(j, "help", cls->help);
    json_array(j, "properties");
    for (const PropSpec *p = cls->props; p && p->name; p++) {
        json_object(j, NULL);
        json_string(j, "name", p->name);
        json_string(j, "kind", kind_names[p->kind]);
        json_string(j, "help", p->help);
        json_string(j, "default", p->preset);
        if (is_number(p)) {
            g_autofree char *min = g_strdup_printf("%" PRIu64, p->min);
            g_autofree char *max = g_strdup_printf("%" PRIu64, p->max);

            /* As text: a 64-bit maximum is no number that every reader keeps. */
            json_string(j, "min", min);
            json_string(j, "max", max);
        }
        json_end(j);
    }
    json_end(j);
    json_end(j);
}

static void print_live_text(Jv d)
{
    const char *bus = jv_text(jv_get(d, "bus")), *address = jv_text(jv_get(d, "address"));
    Jv props = jv_get(d, "properties");
    g_autoptr(GList) names = jv_names(props);

    printf("%s (%s, %s%s%s): %s\n", jv_text(jv_get(d, "id")), jv_text(jv_get(d, "class")),
           bus ? bus : "board", address ? " " : "", address ? address : "",
           jv_text(jv_get(d, "help")) ? jv_text(jv_get(d, "help")) : "");
    for (GList *n = names; n; n = n->next) {
        const char *value = jv_text(jv_get(props, n->data));

        printf("    %s=%s\n", (const char *)n->data, value ? value : "");
    }
}

/* The devices of the running machine @name. */
static bool show_machine(const char *name, bool json, GError **error)
{
    int64_t deadline = g_get_monotonic_time() + DEVICES_SECONDS * G_TIME_SPAN_SECOND;
    g_autoptr(Client) c = client_connect(name, deadline, error);
    Jv list;

    if (!c)
        return false;
    list = client_call(c, client_begin("x-lodge-devices"), deadline, error);
    if (!list.node)
        return false;
    if (json)
        machines_print(name, "devices", list);
    for (size_t i = 0; !json && i < jv_length(list); i++)
        print_live_text(jv_at(list, i));
    return true;
}

static void show_classes(const char *wanted, bool json)
{
    g_autoptr(JsonOut) j = json_out_new();

    json_object(j, NULL);
    json_number(j, "schema", 1);
    json_array(j, "devices");
    for (const DeviceClass *const *c = device_table; *c; c++) {
        if (wanted && strcmp(wanted, (*c)->name))
            continue;
        if (json)
            print_json(j, *c);
        else
            print_text(*c);
    }
    if (json)
        fputs(json_text(j), stdout);
}

int verb_devices(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    const char *wanted;
    bool json;

    if (!o)
        return cli_fail(self->name, error, false);
    wanted = o->args->len ? g_ptr_array_index(o->args, 0) : NULL;
    json = options_has(o, "json");
    if (!wanted || device_class_find(wanted)) {
        show_classes(wanted, json);
    } else if (!show_machine(wanted, json, &error)) {
        if (g_error_matches(error, LODGE_ERROR, LODGE_ERROR_NOT_FOUND) ||
            g_error_matches(error, LODGE_ERROR, LODGE_ERROR_CONFIG)) {
            g_clear_error(&error);
            lodge_fail(&error, LODGE_ERROR_NOT_FOUND,
                       "\"%s\": no such class and no such machine; \"lodge devices\" lists the "
                       "classes", wanted);
        }
        return cli_fail(self->name, error, false);
    }
    return cli_finish(STATUS_OK);
}
