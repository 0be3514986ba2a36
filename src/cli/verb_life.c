/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge stop", kill, pause, resume, reset: what is done to running machines, through their control
 * sockets. With several names all are told first and waited for together; one that fails does not
 * keep the others from it, and the status is that of the first failure.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"

#include "machines.h"

#define ANSWER_SECONDS 30
#define STOP_SECONDS 60
#define QUIT_SECONDS 3  /* for an answer to that the plug is pulled */
#define PLUG_SECONDS 10 /* for the machine to end then */

const OptSpec stop_options_table[] = {
    {"timeout", 0, "SECONDS", "Pull the plug when it has not powered off after this long (60)."},
    OPT_ALL,
    {NULL},
};
const OptSpec names_options_table[] = {OPT_ALL, {NULL}};

typedef struct Target {
    const char *name; /* borrowed */
    int pidfd;        /* owned; -1: it has ended, or never was reached */
    bool waiting;     /* for its end */
} Target;

/* A command without arguments. */
static bool tell(const char *name, const char *command, double seconds, GError **error)
{
    int64_t deadline = machines_deadline(seconds);
    g_autoptr(Client) c = machines_reach(name, deadline, error);
    return c && client_call(c, client_begin(command), deadline, error).node;
}

static bool press_power(const char *name, const MachineLook *l, GError **error)
{
    /* One that stands still cannot power off. */
    bool still = l->status->state == MACHINE_STATUS_PAUSED ||
                 l->status->state == MACHINE_STATUS_IO_ERROR;
    return (!still || tell(name, "cont", ANSWER_SECONDS, error)) &&
           tell(name, "system_powerdown", ANSWER_SECONDS, error);
}

/* Have the machine end at once; one that does not answer is killed. */
static bool pull_plug(const char *name, int pidfd, GError **error)
{
    g_autoptr(GError) why = NULL;
    bool told = tell(name, "quit", QUIT_SECONDS, &why);
    if (machines_wait_end(pidfd, told ? machines_deadline(PLUG_SECONDS) : g_get_monotonic_time()))
        return true;
    lodge_note("%s%s; its process is killed", told ? name : why->message,
               told ? ": does not end" : "");
    if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) == 0 &&
        machines_wait_end(pidfd, machines_deadline(PLUG_SECONDS)))
        return true;
    return lodge_fail(error, LODGE_ERROR_HOST, "%s: its process does not end", name);
}

/* The first failure is the status of the whole. */
static int worse(const Verb *self, int status, const GError *error)
{
    int now = cli_fail(self->name, error, false);
    return status ? status : now;
}

/* @told: false: only find it. */
static int begin(const Verb *self, Target *t, bool told, int status)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(MachineLook) l = machines_running(t->name, &error);
    t->pidfd = l ? machines_process(t->name) : -1;
    if (l && (!told || press_power(t->name, l, &error))) {
        t->waiting = true;
        return status;
    }
    /* It may have ended by itself just now. */
    if (l && machines_wait_end(t->pidfd, g_get_monotonic_time()))
        return status;
    return worse(self, status, error);
}

static int end_machines(const Verb *self, const GPtrArray *names, bool button, double seconds)
{
    g_autofree Target *targets = g_new0(Target, names->len);
    int status = STATUS_OK;
    for (unsigned i = 0; i < names->len; i++) {
        targets[i].name = g_ptr_array_index(names, i);
        status = begin(self, &targets[i], button, status);
    }
    int64_t deadline = button ? machines_deadline(seconds) : 0;
    for (unsigned i = 0; i < names->len; i++) {
        Target *t = &targets[i];
        g_autoptr(GError) error = NULL;
        if (t->waiting && !(button && machines_wait_end(t->pidfd, deadline))) {
            if (button)
                lodge_note("%s: did not power off in %g s; its plug is pulled", t->name, seconds);
            if (!pull_plug(t->name, t->pidfd, &error))
                status = worse(self, status, error);
        }
        if (t->pidfd >= 0)
            close(t->pidfd);
    }
    return status;
}

int verb_stop(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, G_MAXUINT, &error);
    double seconds = STOP_SECONDS;
    g_autoptr(GPtrArray) names =
        o && machines_seconds(o, "timeout", STOP_SECONDS, &seconds, &error)
            ? machines_named(o, &error) : NULL;
    if (!names)
        return cli_fail(self->name, error, false);
    return end_machines(self, names, true, seconds);
}

int verb_kill(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, G_MAXUINT, &error);
    g_autoptr(GPtrArray) names = o ? machines_named(o, &error) : NULL;
    if (!names)
        return cli_fail(self->name, error, false);
    return end_machines(self, names, false, 0);
}

/* "lodge pause", resume, reset: one command each. */
static int tell_all(const Verb *self, int argc, char **argv, const char *command)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, G_MAXUINT, &error);
    g_autoptr(GPtrArray) names = o ? machines_named(o, &error) : NULL;
    int status = STATUS_OK;
    if (!names)
        return cli_fail(self->name, error, false);
    for (unsigned i = 0; i < names->len; i++) {
        g_autoptr(GError) why = NULL;
        if (!tell(g_ptr_array_index(names, i), command, ANSWER_SECONDS, &why))
            status = worse(self, status, why);
    }
    return status;
}

int verb_pause(const Verb *self, int argc, char **argv)
{
    return tell_all(self, argc, argv, "stop");
}

int verb_resume(const Verb *self, int argc, char **argv)
{
    return tell_all(self, argc, argv, "cont");
}

int verb_reset(const Verb *self, int argc, char **argv)
{
    return tell_all(self, argc, argv, "system_reset");
}
