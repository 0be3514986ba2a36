/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge run ... -- COMMAND": a machine for one command. Another process runs the machine; this one
 * waits for the guest's agent or a login prompt, runs the command, has the guest power off, and
 * ends with the command's status. Where the machine ends by itself, its status is the answer.
 */
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"

#include "guest.h"
#include "guest_way.h"
#include "machines.h"
#include "verb_run.h"

#define OFF_SECONDS 30 /* for the guest to power off */
#define QUIT_SECONDS 10

typedef struct Child {
    pid_t pid;
    bool ended;
    int status; /* where it has */
} Child;

/* Whether the machine has ended; with @wait, when it has. */
static bool has_ended(Child *c, bool wait)
{
    int status;

    while (!c->ended) {
        pid_t pid = waitpid(c->pid, &status, wait ? 0 : WNOHANG);
        if (pid == c->pid) {
            c->ended = true;
            c->status = WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_SIGNAL + WTERMSIG(status);
        } else if (!wait || errno != EINTR) {
            break;
        }
    }
    return c->ended;
}

static bool ends_within(Child *c, double seconds)
{
    int64_t deadline = machines_deadline(seconds);

    while (!has_ended(c, false)) {
        if (!machines_pause(deadline))
            return false;
    }
    return true;
}

/* Whether there is nothing to wait for: the machine has ended, or a signal came. */
static bool over(void *opaque)
{
    return guest_signal(NULL) || has_ended(opaque, false);
}

bool run_command_keeps(const Tree *t)
{
    g_autoptr(GPtrArray) ids = tree_children(t, "/backends/block");

    for (guint i = 0; i < ids->len; i++) {
        g_autofree char *path =
            g_strdup_printf("/backends/block/%s", (char *)g_ptr_array_index(ids, i));
        if (!tree_has(t, path, "read-only") && !tree_has(t, path, "snapshot"))
            return true;
    }
    return false;
}

static void tell(const char *name, const char *command)
{
    int64_t deadline = machines_deadline(QUIT_SECONDS);
    g_autoptr(Client) c = machines_reach(name, deadline, NULL);

    if (c)
        (void)client_call(c, client_begin(command), deadline, NULL); /* what counts is its end */
}

static void end_machine(const RunOptions *o, Child *c, bool gently)
{
    if (gently && !has_ended(c, false)) {
        tell(o->name, "system_powerdown");
        if (!ends_within(c, OFF_SECONDS))
            lodge_note("%s: did not power off in %d s; its plug is pulled", o->name, OFF_SECONDS);
    }
    if (!has_ended(c, false)) {
        tell(o->name, "quit");
        if (!ends_within(c, QUIT_SECONDS))
            kill(c->pid, SIGKILL);
    }
    (void)has_ended(c, true);
}

/* Whether it may be that the machine is about to end. */
static bool is_over(const GError *error)
{
    return !g_error_matches(error, LODGE_ERROR, LODGE_ERROR_CONFIG) &&
           !g_error_matches(error, LODGE_ERROR, LODGE_ERROR_UNSUPPORTED);
}

int run_command(const Tree *tree, const RunOptions *o, pid_t machine)
{
    g_autoptr(GError) error = NULL;
    Child child = {.pid = machine};
    AgentCommand c = {
        .argv = (const char *const *)o->command,
        .in_fd = guest_input(),
        .out_fd = STDOUT_FILENO,
        .err_fd = STDERR_FILENO,
        .deadline = G_MAXINT64,
        .stop = guest_signal,
    };
    int status = STATUS_LODGE;
    bool ran = false;

    guest_catch_signals();
    GuestWay way = *o->way;
    g_autoptr(Agent) a = agent_command_check(&c, &error)
                             ? guest_reach_by(o->name, &way, G_MAXINT64, over, &child, &error)
                             : NULL;
    c.user = guest_way_user(&way);
    if (a) {
        status = guest_run(a, &c, "run");
        ran = true;
    } else if (guest_signal(NULL)) {
        status = STATUS_SIGNAL + guest_signal(NULL);
    } else if (!ends_within(&child, is_over(error) ? 1 : 0)) {
        status = cli_fail("run", error, true);
    }
    bool early = has_ended(&child, false);
    end_machine(o, &child, run_command_keeps(tree));
    if (early && !ran)
        lodge_warn("run: %s: the machine ended before the command could be run", o->name);
    /* Panics and time limits: the machine's process has said so. */
    return child.status == STATUS_PANIC || child.status == STATUS_TIMEOUT ? child.status : status;
}
