/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "lodge exec": a command in the guest of a running machine, its streams and status as ours. */
#include <unistd.h>

#include "lodge/error.h"

#include "guest.h"
#include "guest_way.h"
#include "machines.h"

const OptSpec exec_options_table[] = {
    {"user", 'u', "USER", "Run it as this user (root); by the console, log in as this user."},
    {"env", 'e', "NAME=VALUE", "Set a variable; may be given several times.", NULL, OPT_REPEAT},
    {"cwd", 'w', "DIR", "Start it in this folder (/)."},
    {"timeout", 0, "SECONDS", "End it after this long, with status 124 (never)."},
    OPT_VIA(0),
    OPT_PASSWORD_FILE(0),
    {NULL},
};

static GPtrArray *variables(const Options *o)
{
    GPtrArray *list = g_ptr_array_new();
    for (const OptValue *v = NULL; (v = options_next(o, "env", v));)
        g_ptr_array_add(list, v->text);
    g_ptr_array_add(list, NULL);
    return list;
}

static bool stopped(void *opaque)
{
    return guest_signal(NULL);
}

int verb_exec(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    const char *name = o ? machines_one(o, &error) : NULL;
    double seconds = 0;
    g_auto(GuestWay) way = {0};

    if (name && (!o->command || !o->command_len))
        lodge_fail(&error, LODGE_ERROR_CONFIG, "no command; write it behind \"--\"");
    if (error || !machines_seconds(o, "timeout", 0, &seconds, &error) ||
        !guest_way_read(o, &way, &error))
        return cli_fail(self->name, error, true);
    g_autoptr(GPtrArray) env = variables(o);
    g_auto(GStrv) words = g_new0(char *, (gsize)o->command_len + 1);
    for (int i = 0; i < o->command_len; i++)
        words[i] = g_strdup(o->command[i]);
    AgentCommand c = {
        .argv = (const char *const *)words,
        .cwd = options_text(o, "cwd"),
        .env = (const char *const *)env->pdata,
        .in_fd = guest_input(),
        .out_fd = STDOUT_FILENO,
        .err_fd = STDERR_FILENO,
        .deadline = machines_deadline(seconds),
        .stop = guest_signal,
    };
    if (!agent_command_check(&c, &error))
        return cli_fail(self->name, error, true);
    guest_catch_signals();
    int64_t patience = MIN(c.deadline, machines_deadline(GUEST_REACH_SECONDS));
    g_autoptr(Agent) a = guest_reach_by(name, &way, patience, stopped, NULL, &error);
    c.user = guest_way_user(&way);
    return a                   ? guest_run(a, &c, self->name)
           : guest_signal(NULL) ? STATUS_SIGNAL + guest_signal(NULL)
                               : guest_fail(name, error, c.deadline, self->name);
}
