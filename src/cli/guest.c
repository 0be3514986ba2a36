/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reaching a guest by its agent: a turn at the port is asked for on the machine's control socket,
 * which is closed again, so that those who wait for their turn hold none of its few places. A will
 * is left there in the same way.
 */
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "lodge/error.h"

#include "machines.h"
#include "vm_log.h"

#define JOIN_SECONDS 30 /* for the machine's own answer, whatever the agent's deadline is */
#define END_SECONDS 5 /* for a machine whose connection is gone to have ended */
#define ENDED "ended: "
#define PANICKED "ended: panic"

static volatile sig_atomic_t signal_seen; /* a signal handler has no other way to say it */

static void on_signal(int sig)
{
    if (!signal_seen)
        signal_seen = sig;
}

void guest_catch_signals(void)
{
    struct sigaction take = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

    for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++) {
        struct sigaction now;
        if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN) /* nohup */
            sigaction(signals[i], &take, NULL);
    }
    sigaction(SIGPIPE, &ignore, NULL);
}

int guest_signal(void *opaque)
{
    return signal_seen;
}

int guest_input(void)
{
    struct stat st;

    if (fstat(STDIN_FILENO, &st) < 0)
        return -1;
    bool null = S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
    return null ? -1 : STDIN_FILENO;
}

/* Hand @fd to the machine and @command, which takes it. @request: of that; NULL: it has none. */
static bool pass(const char *name, int fd, const char *command, const char *request, GError **error)
{
    int64_t deadline = machines_deadline(JOIN_SECONDS);
    g_autoptr(Client) c = machines_reach(name, deadline, error);
    if (!c)
        return false;
    JsonOut *call = client_begin("getfd");
    json_string(call, "fdname", "agent");
    if (!client_call_fd(c, call, fd, deadline, error).node)
        return false;
    call = client_begin(command);
    json_string(call, "fdname", "agent");
    if (request)
        json_string(call, "request", request);
    return client_call(c, call, deadline, error).node;
}

/* A connection of which @command has the other end. -1 with the error. */
static int connect_by(const char *name, const char *command, const char *request, GError **error)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        lodge_fail_errno(error, errno, "%s: cannot make a pair of sockets", name);
        return -1;
    }
    bool ok = pass(name, pair[1], command, request, error);
    close(pair[1]);
    if (ok)
        return pair[0];
    close(pair[0]);
    return -1;
}

/* See AgentJoinFn. */
static int join(void *opaque, int64_t deadline, GError **error)
{
    return connect_by(opaque, "x-lodge-agent", NULL, error);
}

/* See AgentWillFn. A machine that an older Lodge has started knows no wills. */
static int leave_will(void *opaque, const char *request)
{
    return connect_by(opaque, "x-lodge-agent-will", request, NULL);
}

Agent *guest_agent(const char *name, GError **error)
{
    g_autoptr(MachineLook) l = machines_running(name, error);

    return l ? agent_new(name, join, leave_will, (void *)name, error) : NULL;
}

bool guest_paused(const char *name, GError **error)
{
    g_autoptr(MachineLook) l = machines_running(name, NULL);

    return l && l->status->state == MACHINE_STATUS_PAUSED &&
           !lodge_fail(error, LODGE_ERROR_BUSY,
                       "%s: is paused, so its guest does not answer; lodge resume %s", name, name);
}

bool guest_reach(Agent *a, int64_t deadline, GError **error)
{
    g_autoptr(GError) why = NULL;
    if (agent_reach(a, deadline, &why))
        return true;
    if (guest_paused(agent_name(a), error))
        return false;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

/* Whether the machine's log ends with a panic. */
static bool log_says_panic(const char *name)
{
    g_autofree char *dir = registry_state_dir(name);
    g_autofree char *path = g_build_filename(dir, VM_LOG_FILE, NULL), *text = NULL;
    const char *last = g_file_get_contents(path, &text, NULL, NULL) ? g_strrstr(text, ENDED) : NULL;

    return last && g_str_has_prefix(last, PANICKED);
}

/* The connection is gone: how did the machine end? Return: a status; 0: it has not ended. */
static int ended(const char *name)
{
    int fd = machines_process(name);
    bool over = machines_wait_end(fd, machines_deadline(END_SECONDS));

    if (fd >= 0)
        close(fd);
    return !over ? 0 : log_says_panic(name) ? STATUS_PANIC : STATUS_LODGE;
}

int guest_fail(const char *name, const GError *why, int64_t deadline, const char *what)
{
    int status = g_error_matches(why, LODGE_ERROR, LODGE_ERROR_STATE) ? ended(name) : 0;

    if (status) {
        g_autoptr(GError) end = NULL;
        lodge_fail(&end, LODGE_ERROR_STATE,
                   status == STATUS_PANIC ? "%s: the guest's kernel died (panic)"
                                          : "%s: the machine ended before the command did",
                   name);
        cli_fail(what, end, true);
        return status;
    }
    bool late = g_error_matches(why, LODGE_ERROR, LODGE_ERROR_BUSY) &&
                g_get_monotonic_time() >= deadline;
    cli_fail(what, why, true);
    return late ? STATUS_TIMEOUT : STATUS_LODGE;
}

int guest_run(Agent *a, const AgentCommand *c, const char *what)
{
    g_autoptr(GError) error = NULL;
    AgentEnd end;

    if (!agent_exec(a, c, &end, &error))
        return guest_fail(agent_name(a), error, c->deadline, what);
    if (end.timed_out) {
        lodge_fail(&error, LODGE_ERROR_BUSY,
                   "%s: the command did not end in time; it was ended", agent_name(a));
        cli_fail(what, error, true);
        return STATUS_TIMEOUT;
    }
    return end.stopped ? STATUS_SIGNAL + end.stopped : end.status;
}
