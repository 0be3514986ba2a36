/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge uml", and the program where it is called "linux": User-Mode Linux's command line,
 * messages and ends. Its exit statuses are UML's: 0 after a halt, 1 for what goes wrong here and
 * after SIGINT or SIGTERM, death by SIGABRT after a panic.
 */
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"

#include "cli.h"
#include "registry.h"
#include "uml_compat.h"
#include "verb_run.h"

bool verb_uml_word(unsigned i, const char **ret_form, const char **ret_help)
{
    UmlHelp h;

    if (!uml_help(i, &h))
        return false;
    *ret_form = h.form;
    *ret_help = h.help;
    return true;
}

/* What Lodge's own verbs call the machine: its umid, if nobody has that name. Transfer full. */
static char *machine_name(const char *umid, bool *ret_given)
{
    g_autoptr(MachineLook) look =
        umid && registry_name_ok(umid) ? registry_look(umid, NULL) : NULL;

    *ret_given = umid && registry_name_ok(umid) && !(look && look->running);
    return *ret_given ? g_strdup(umid) : g_strdup_printf("vm-%ld", (long)getpid());
}

static int run(Tree *tree, const UmlOptions *o, GError **error)
{
    RunOptions run = {.mconsole = true, .uml = o};

    run.name = machine_name(o->umid, &run.name_given);
    run.umid = g_strdup(o->umid);
    run.uml_dir = g_strdup(o->uml_dir);
    run.mconsole_notify = g_strdup(o->notify);
    tree_set_str(tree, "/", "vm-name", run.name);
    (void)setsid(); /* the leader of a group stays where it is */
    int status = run_execute(tree, &run);
    run_options_clear(&run);
    if (status == RUN_UML_PANIC)
        uml_die();
    if (status == RUN_UML_AGAIN)
        uml_again(error);
    return status ? STATUS_FAILURE : STATUS_OK;
}

int verb_uml(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL, no_kernel = NULL;
    g_autofree char *kernel = uml_find_kernel(uml_word(argc, argv, "kernel", true), &no_kernel);
    const char *umid = uml_word(argc, argv, "umid", false);
    g_autofree char *seed = umid ? uml_seed(uml_word(argc, argv, "uml_dir", true), umid) : NULL;
    UmlHost host = {kernel && uml_kernel_is_linux(kernel), uml_look, seed};
    UmlOptions o = {0};
    g_autoptr(Tree) tree = uml_compile(argc, argv, &host, &o, &error);
    int status = STATUS_FAILURE;

    uml_signals_early();
    if (tree && o.ask == UML_ASK_HELP) {
        help_print(self);
        status = STATUS_OK;
    } else if (tree && !kernel) {
        error = g_steal_pointer(&no_kernel);
    } else if (tree && o.ask == UML_ASK_VERSION) {
        status = uml_print_version(kernel, &error) ? STATUS_OK : STATUS_FAILURE;
    } else if (tree && o.ask == UML_ASK_CONFIG) {
        status = uml_print_config(kernel, &error) ? STATUS_OK : STATUS_FAILURE;
    } else if (tree) {
        tree_set_str(tree, "/boot", "kernel", kernel);
        status = run(tree, &o, &error);
    }
    if (error) {
        (void)cli_fail(self->name, error, false); /* UML knows one failure */
        status = STATUS_FAILURE;
    }
    uml_options_clear(&o);
    return cli_finish(status);
}
