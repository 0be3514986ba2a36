/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "lodge version": the version, and the libraries that are linked or can be loaded. */
#include <stdio.h>

#include "lodge/error.h"

#include "cli.h"
#include "lodge/json_out.h"
#include "libraries.h"

static void print_text(void)
{
    printf("lodge %s\n", LODGE_VERSION);
    for (const LinkedLibrary *l = linked_libraries; l->name; l++) {
        g_autofree char *now = l->version ? l->version() : NULL;

        printf("%-10s linked", l->name);
        if (now)
            printf(", version %s", now);
        if (now && l->built && g_strcmp0(now, l->built))
            printf(" (built with %s)", l->built);
        printf("\n");
    }
    for (const OptionalLibrary *l = optional_libraries; l->name; l++)
        printf("%-10s %s: %s\n", l->name, library_there(l) ? "found" : "not found", l->use);
}

static void print_json(void)
{
    g_autoptr(JsonOut) j = json_out_new();

    json_object(j, NULL);
    json_number(j, "schema", 1);
    json_string(j, "version", LODGE_VERSION);
    json_array(j, "libraries");
    for (const LinkedLibrary *l = linked_libraries; l->name; l++) {
        g_autofree char *now = l->version ? l->version() : NULL;

        json_object(j, NULL);
        json_string(j, "name", l->name);
        json_bool(j, "linked", true);
        json_bool(j, "found", true);
        json_string(j, "version", now);
        json_end(j);
    }
    for (const OptionalLibrary *l = optional_libraries; l->name; l++) {
        json_object(j, NULL);
        json_string(j, "name", l->name);
        json_bool(j, "linked", false);
        json_bool(j, "found", library_there(l));
        json_string(j, "use", l->use);
        json_end(j);
    }
    fputs(json_text(j), stdout);
}

int verb_version(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 0, &error);

    if (!o)
        return cli_fail(self->name, error, false);
    if (options_has(o, "json"))
        print_json();
    else
        print_text();
    return cli_finish(STATUS_OK);
}
