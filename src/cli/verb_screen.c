/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge screen": what a running machine shows, as text or as a picture. The picture is written by
 * the machine's process; for standard output it goes through a file of ours.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/error.h"
#include "lodge/json_out.h"

#include "cli.h"
#include "client.h"

#define SCREEN_SECONDS 30

const OptSpec screen_options_table[] = {
    {"png", 0, "FILE", "Write a picture, of any mode, to FILE; - is standard output."},
    OPT_JSON,
    {NULL},
};

/* Have the picture written to @path. */
static bool dump(Client *c, const char *path, int64_t deadline, GError **error)
{
    g_autofree char *full = g_canonicalize_filename(path, NULL);
    JsonOut *call = client_begin("screendump");
    json_string(call, "filename", full);
    json_string(call, "format", "png");
    return client_call(c, call, deadline, error).node != NULL;
}

static bool dump_stdout(Client *c, int64_t deadline, GError **error)
{
    g_autofree char *path = NULL, *data = NULL;
    g_autoptr(GError) why = NULL;
    gsize len = 0;
    int fd = g_file_open_tmp("lodge-XXXXXX.png", &path, &why);
    if (fd < 0)
        return lodge_fail(error, LODGE_ERROR_HOST, "%s", why->message);
    close(fd);
    bool ok = dump(c, path, deadline, error);
    if (ok && !g_file_get_contents(path, &data, &len, &why))
        ok = lodge_fail(error, LODGE_ERROR_HOST, "%s", why->message);
    (void)g_unlink(path); /* a temporary file */
    if (ok)
        (void)fwrite(data, 1, len, stdout); /* cli_finish() looks at what came of it */
    return ok;
}

static bool show_picture(Client *c, const char *name, const char *path, bool json,
                         int64_t deadline, GError **error)
{
    if (!strcmp(path, "-"))
        return dump_stdout(c, deadline, error);
    if (!dump(c, path, deadline, error))
        return false;
    if (json) {
        g_autoptr(JsonOut) out = json_out_new();
        json_object(out, NULL);
        json_number(out, "schema", 1);
        json_string(out, "name", name);
        json_string(out, "file", path);
        fputs(json_text(out), stdout);
    }
    return true;
}

static bool show_text(Client *c, const char *name, bool json, int64_t deadline, GError **error)
{
    Jv answer = client_call(c, client_begin("x-lodge-screen-text"), deadline, error);
    if (!answer.node) {
        if (error && *error && strstr((*error)->message, "graphics mode")) {
            g_clear_error(error);
            return lodge_fail(error, LODGE_ERROR_HOST,
                              "%s: the screen is in a graphics mode; take a picture with --png "
                              "FILE", name);
        }
        return false;
    }
    const char *text = jv_text(jv_get(answer, "text"));
    if (json) {
        g_autoptr(JsonOut) out = json_out_new();
        json_object(out, NULL);
        json_number(out, "schema", 1);
        json_string(out, "name", name);
        json_string(out, "text", text);
        fputs(json_text(out), stdout);
    } else {
        fputs(text ? text : "", stdout);
    }
    return true;
}

int verb_screen(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    if (!o)
        return cli_fail(self->name, error, false);
    const char *png = options_text(o, "png");
    bool json = options_has(o, "json");
    if (!o->args->len)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "no machine; give its NAME");
    else if (png && !*png)
        lodge_fail(&error, LODGE_ERROR_CONFIG,
                   "--png: no file; give one, or - for standard output");
    else if (png && json && !strcmp(png, "-"))
        lodge_fail(&error, LODGE_ERROR_CONFIG,
                   "--png -: standard output is the picture's; leave --json out");
    if (error)
        return cli_fail(self->name, error, false);
    const char *name = g_ptr_array_index(o->args, 0);
    int64_t deadline = g_get_monotonic_time() + SCREEN_SECONDS * G_TIME_SPAN_SECOND;
    g_autoptr(Client) c = client_connect(name, deadline, &error);
    if (!c || !(png ? show_picture(c, name, png, json, deadline, &error)
                    : show_text(c, name, json, deadline, &error)))
        return cli_fail(self->name, error, false);
    return cli_finish(STATUS_OK);
}
