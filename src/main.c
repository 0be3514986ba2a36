/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program's entry: find the verb, give it the rest of the line. */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "lodge/diag.h"

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    const Verb *v;

    if (!name) {
        lodge_warn("no verb; lodge --help lists them");
        return STATUS_USAGE;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h")) {
        help_print(NULL);
        return cli_finish(STATUS_OK);
    }
    if (!strcmp(name, "--version"))
        name = "version";
    v = verb_find(name);
    if (!v) {
        const char *near = verb_nearest(name);

        lodge_warn("%s: unknown verb; %s%s%s", name, near ? "did you mean " : "lodge --help lists them",
                   near ? near : "", near ? "?" : "");
        return STATUS_USAGE;
    }
    if (options_want_help(v->opts, argc - 2, argv + 2)) {
        help_print(v);
        return cli_finish(STATUS_OK);
    }
    return v->run(v, argc - 2, argv + 2);
}
