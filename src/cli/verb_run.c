/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "lodge run": compile the command line, then print the machine or run it. */
#include <stdio.h>
#include <string.h>

#include "lodge/diag.h"

#include "cli.h"
#include "pc.h"
#include "run_define.h"
#include "verb_run.h"

int verb_run(const Verb *self, int argc, char **argv)
{
    /* Asked before the line is known to be right: whose status it is must hold for errors too. */
    bool around_guest = options_have_flag(self->opts, argc, argv, "debug-exit");
    for (int i = 0; i < argc; i++)
        around_guest |= !strcmp(argv[i], "--"); /* a command's, see run_command() */
    g_autoptr(GError) error = NULL;
    RunOptions o = {0};
    g_autoptr(Tree) tree = run_resolve(argc, argv, &o, &error);
    int status;

    if (!tree)
        return cli_fail(self->name, error, around_guest);
    lodge_set_quiet(o.quiet);
    if (o.dry_run) {
        g_autofree char *source = NULL;

        /* The board's own chips are for the reader: machine_build() knows them. */
        (void)pc_describe(tree);
        source = tree_source(tree);
        fputs(source, stdout);
        status = cli_finish(STATUS_OK);
    } else {
        status = run_execute(tree, &o);
    }
    run_options_clear(&o);
    return status;
}
