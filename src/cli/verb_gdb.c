/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "lodge gdb": GDB on a running machine. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/json_out.h"

#include "cli.h"
#include "client.h"

#define GDB_SECONDS 60

const OptSpec gdb_options_table[] = {
    {"print", 0, NULL, "Print the line that GDB needs (target remote ...), start nothing."},
    {NULL},
};

/* What "target remote" takes; transfer full. */
static char *address_of(const char *name, GError **error)
{
    int64_t deadline = g_get_monotonic_time() + GDB_SECONDS * G_TIME_SPAN_SECOND;
    g_autoptr(Client) c = client_connect(name, deadline, error);
    Jv answer = {NULL, NULL};

    if (c)
        answer = client_call(c, client_begin("x-lodge-gdb"), deadline, error);
    const char *address = answer.node ? jv_text(jv_get(answer, "address")) : NULL;
    if (answer.node && !address)
        lodge_fail(error, LODGE_ERROR_HOST, "%s: gave no address", name);
    return g_strdup(address);
}

/* Become gdb; returns only where that failed. */
static bool become_gdb(const char *target, const Options *o, GError **error)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    g_ptr_array_add(argv, (gpointer)"gdb");
    g_ptr_array_add(argv, (gpointer)"-q");
    g_ptr_array_add(argv, (gpointer)"-ex");
    g_ptr_array_add(argv, (gpointer)"set remotetimeout 60"); /* a host may be busy */
    g_ptr_array_add(argv, (gpointer)"-ex");
    g_ptr_array_add(argv, (gpointer)target);
    for (int i = 0; i < o->command_len; i++)
        g_ptr_array_add(argv, o->command[i]);
    g_ptr_array_add(argv, NULL);
    fflush(stdout);
    execvp("gdb", (char *const *)argv->pdata);
    if (errno == ENOENT)
        return lodge_fail(error, LODGE_ERROR_NOT_FOUND,
                          "there is no gdb; install it, or print the line for another by --print");
    return lodge_fail_errno(error, errno, "cannot start gdb");
}

int verb_gdb(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);

    if (!o)
        return cli_fail(self->name, error, false);
    if (!o->args->len) {
        (void)lodge_fail(&error, LODGE_ERROR_CONFIG, "no machine; give its NAME");
        return cli_fail(self->name, error, false);
    }
    g_autofree char *address = address_of(g_ptr_array_index(o->args, 0), &error);
    if (!address)
        return cli_fail(self->name, error, false);
    g_autofree char *target = g_strdup_printf("target remote %s", address);
    if (options_has(o, "print")) {
        printf("%s\n", target);
        return cli_finish(STATUS_OK);
    }
    (void)become_gdb(target, o, &error);
    return cli_fail(self->name, error, false);
}
