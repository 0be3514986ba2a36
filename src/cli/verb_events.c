/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "lodge events": what happens to a machine, as it happens; "lodge qmp": one command to it. */
#include <stdio.h>
#include <string.h>

#include "lodge/error.h"
#include "lodge/json_out.h"

#include "json_scan.h"
#include "machines.h"

#define ANSWER_SECONDS 60

const OptSpec events_options_table[] = {
    {"json", 0, NULL, "Print each event as one line of JSON, as QMP has it."},
    {NULL},
};

/* "2026-11-21 21:40:05 RESET guest=false reason=..." */
static void print_event(Jv event)
{
    Jv data = jv_get(event, "data");
    g_autoptr(GList) names = jv_names(data);
    g_autofree char *time = machines_time(jv_int(jv_get(jv_get(event, "timestamp"), "seconds")),
                                          false);
    printf("%s %s", time, jv_text(jv_get(event, "event")));
    for (GList *n = names; n; n = n->next) {
        Jv v = jv_get(data, n->data);
        g_autoptr(JsonOut) out = json_out_new_line();
        if (jv_kind(v) == JV_STRING) {
            printf(" %s=%s", (const char *)n->data, jv_text(v));
            continue;
        }
        jv_print(v, out, NULL);
        g_autofree char *text = g_strdup(json_text(out));
        printf(" %s=%s", (const char *)n->data, g_strchomp(text));
    }
    printf("\n");
}

int verb_events(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    const char *name = o ? machines_one(o, &error) : NULL;
    g_autoptr(Client) c = name ? machines_reach(name, machines_deadline(ANSWER_SECONDS), &error)
                               : NULL;
    if (!c)
        return cli_fail(self->name, error, false);
    bool json = options_has(o, "json");
    while (!ferror(stdout)) {
        Jv event = client_event(c, G_MAXINT64, &error);
        if (!event.node)
            break;
        if (json) {
            g_autoptr(JsonOut) out = json_out_new_line();
            jv_print(event, out, NULL);
            g_autofree char *text = g_strdup(json_text(out));
            printf("%s\n", g_strchomp(text));
        } else {
            print_event(event);
        }
        fflush(stdout);
    }
    if (error && !g_error_matches(error, LODGE_ERROR, LODGE_ERROR_STATE))
        return cli_fail(self->name, error, false);
    return cli_finish(STATUS_OK);
}

/* ---- qmp ---- */

/* @text as one JSON value; transfer full, node NULL with the error. */
static Jv parse_value(const Client *c, const char *text, GError **error)
{
    g_autoptr(JsonScan) scan = json_scan_new();
    g_autofree char *ended = g_strconcat(text, "\n", NULL); /* a number ends somewhere */
    size_t len = strlen(ended), used = 0, rest;
    JsonScanResult what = json_scan_feed(scan, (const uint8_t *)ended, len, &used);
    Jv none = {NULL, NULL};
    if (what == JSON_SCAN_VALUE) {
        g_autofree char *value = g_strdup(json_scan_text(scan));
        if (json_scan_feed(scan, (const uint8_t *)ended + used, len - used, &rest) ==
                JSON_SCAN_MORE && !json_scan_held(scan))
            return jv_parse(client_json(c), value, error);
    }
    lodge_fail(error, LODGE_ERROR_CONFIG, "\"%s\": is not one JSON value", text);
    return none;
}

/* KEY=TEXT, KEY:=JSON, or an object with all of them. */
static bool add_argument(const Client *c, JsonOut *call, const char *word, GError **error)
{
    const char *eq = strchr(word, '=');
    if (word[0] != '{') {
        bool typed = eq && eq > word && eq[-1] == ':';
        if (!eq || eq - typed == word)
            return lodge_fail(error, LODGE_ERROR_CONFIG,
                              "\"%s\": write KEY=TEXT, KEY:=JSON or one {...}", word);
        g_autofree char *key = g_strndup(word, (gsize)(eq - word - typed));
        if (!typed) {
            json_string(call, key, eq + 1);
            return true;
        }
        g_auto(Jv) value = parse_value(c, eq + 1, error);
        if (value.node)
            jv_print(value, call, key);
        return value.node != NULL;
    }
    g_auto(Jv) object = parse_value(c, word, error);
    g_autoptr(GList) names = jv_names(object);
    for (GList *n = names; n; n = n->next)
        jv_print(jv_get(object, n->data), call, n->data);
    return object.node != NULL;
}

int verb_qmp(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, G_MAXUINT, &error);
    const char *name = o ? machines_one(o, &error) : NULL;
    if (name && o->args->len < 2) {
        lodge_fail(&error, LODGE_ERROR_CONFIG, "no command; lodge qmp %s query-commands lists them",
                   name);
        name = NULL;
    }
    int64_t deadline = machines_deadline(ANSWER_SECONDS);
    g_autoptr(Client) c = name ? machines_reach(name, deadline, &error) : NULL;
    if (!c)
        return cli_fail(self->name, error, false);
    g_autoptr(JsonOut) call = client_begin(g_ptr_array_index(o->args, 1));
    for (unsigned i = 2; i < o->args->len; i++) {
        if (!add_argument(c, call, g_ptr_array_index(o->args, i), &error))
            return cli_fail(self->name, error, false);
    }
    Jv answer = client_call(c, g_steal_pointer(&call), deadline, &error);
    if (!answer.node)
        return cli_fail(self->name, error, false);
    g_autoptr(JsonOut) out = json_out_new();
    jv_print(answer, out, NULL);
    fputs(json_text(out), stdout);
    return cli_finish(STATUS_OK);
}
