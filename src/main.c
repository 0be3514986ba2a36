/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program's entry: find the verb, give it the rest of the line. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "lodge/diag.h"

static bool is_help(const char *word)
{
    return !strcmp(word, "--help") || !strcmp(word, "-h");
}

/* The row that @name means in @family (NULL: the program); tells what is wrong. */
static const Verb *find(const Verb *family, const char *name)
{
    const Verb *v = verb_find(family, name);
    const char *near = v ? NULL : verb_nearest(family, name);

    if (v)
        return v;
    if (near)
        lodge_warn("%s%s%s: unknown verb; did you mean %s?", family ? family->name : "",
                   family ? " " : "", name, near);
    else
        lodge_warn("%s%s%s: unknown verb; lodge %s%s--help lists them",
                   family ? family->name : "", family ? " " : "", name,
                   family ? family->name : "", family ? " " : "");
    return NULL;
}

/* Whether the program is called as User-Mode Linux is. */
static bool called_linux(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL, *name = slash ? slash + 1 : path;

    return name && (!strcmp(name, "linux") || !strcmp(name, "linux.uml"));
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    const Verb *v;
    int used = 2; /* words up to the verb's */

    (void)signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of that write */
    if (called_linux(argv[0])) {
        v = verb_find(NULL, "uml");
        return v->run(v, argc - 1, argv + 1);
    }
    if (!name || !name[0]) {
        lodge_warn("no verb; lodge --help lists them");
        return STATUS_USAGE;
    }
    if (is_help(name)) {
        help_print(NULL);
        return cli_finish(STATUS_OK);
    }
    if (!strcmp(name, "--version"))
        name = "version";
    v = find(NULL, name);
    if (v && v->verbs && argc == 2) {
        lodge_warn("%s: no verb; lodge %s --help lists them", name, name);
        return STATUS_USAGE;
    }
    if (v && v->verbs && !is_help(argv[2])) {
        v = find(v, argv[2]);
        used = 3;
    }
    if (!v)
        return STATUS_USAGE;
    if (!v->word && options_want_help(v->opts, argc - used, argv + used)) {
        help_print(v);
        return cli_finish(STATUS_OK);
    }
    return v->run(v, argc - used, argv + used);
}
