/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reaching into a guest by its agent, and where none answers by a login on its console
 * (console_agent.c). A guest that starts may have the one or the other first, so both are tried in
 * turns until one is there. Nothing is typed at a console before it has shown a login prompt,
 * unless it was asked for by name.
 */
#include "guest_way.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

#include "agent_exec.h"
#include "console_agent.h"
#include "guest.h"
#include "machines.h"

#define TURN_SECONDS 2.0 /* for the agent; one that runs answers at once */
#define GLANCE_SECONDS 1.0 /* for a look at the console, where the agent may still come */
#define JOIN_SECONDS 30
#define PASSWORD_MAX 256u
#define PAUSE_US 50000

void guest_way_clear(GuestWay *w)
{
    g_clear_pointer(&w->user, g_free);
    g_clear_pointer(&w->password, g_free);
}

static bool read_password(const char *file, char **ret, GError **error)
{
    g_autofree char *text = NULL;
    struct stat st;

    if (stat(file, &st) < 0)
        return lodge_fail_errno(error, errno, "--password-file \"%s\"", file);
    if (!S_ISREG(st.st_mode) || (st.st_mode & (S_IRWXG | S_IRWXO)))
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          S_ISREG(st.st_mode)
                              ? "--password-file \"%s\": others may read it; chmod 600 it"
                              : "--password-file \"%s\": is no file", file);
    if (!g_file_get_contents(file, &text, NULL, NULL))
        return lodge_fail(error, LODGE_ERROR_HOST, "--password-file \"%s\": cannot be read", file);
    text[strcspn(text, "\r\n")] = '\0';
    bool plain = *text && strlen(text) <= PASSWORD_MAX;
    for (const char *c = text; *c; c++)
        plain &= !g_ascii_iscntrl(*c);
    if (!plain)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--password-file \"%s\": the first line must have 1 to %u characters "
                          "that can be typed", file, PASSWORD_MAX);
    *ret = g_steal_pointer(&text);
    return true;
}

bool guest_way_read(const Options *o, GuestWay *ret, GError **error)
{
    const char *via = options_text(o, "via"), *file = options_text(o, "password-file");
    const char *user = options_text(o, "user");

    if (!via || !strcmp(via, "auto"))
        ret->agent = ret->console = true;
    else if (!strcmp(via, "agent"))
        ret->agent = true;
    else if (!strcmp(via, "console"))
        ret->console = true;
    else
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--via: \"%s\": write auto, agent or console",
                          via);
    if (file && !ret->console)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--password-file: the agent asks for no password; leave it away, or "
                          "write --via console");
    if (user && !agent_is_user(user))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "--user: \"%s\": not the name of a user",
                          user);
    ret->user = g_strdup(user);
    return !file || read_password(file, &ret->password, error);
}

const char *guest_way_user(const GuestWay *w)
{
    return w->by_console ? NULL : w->user;
}

/* See ConsoleJoinFn. */
static int join(void *opaque, int64_t deadline, GError **error)
{
    const GuestWay *w = opaque;
    int64_t soon = machines_deadline(JOIN_SECONDS);
    g_autoptr(Client) c = machines_reach(w->name, soon, error);
    int pair[2];

    if (!c)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        lodge_fail_errno(error, errno, "%s: cannot make a pair of sockets", w->name);
        return -1;
    }
    JsonOut *call = client_begin("getfd");
    json_string(call, "fdname", "console");
    bool ok = client_call_fd(c, call, pair[1], soon, error).node;
    close(pair[1]);
    Jv answer = {NULL, NULL};
    if (ok) {
        call = client_begin("x-lodge-console");
        json_string(call, "fdname", "console");
        json_bool(call, "write", true);
        answer = client_call(c, call, soon, error);
    }
    if (answer.node && !jv_bool(jv_get(answer, "writes")))
        ok = lodge_fail(error, LODGE_ERROR_BUSY,
                        "%s: somebody types on its console (lodge console, or another command)",
                        w->name);
    else if (answer.node && jv_bool(jv_get(answer, "terminal")) && w->agent)
        ok = lodge_fail(error, LODGE_ERROR_BUSY,
                        "%s: its console is on a terminal, where somebody may type; --via console "
                        "uses it all the same", w->name);
    if (ok && answer.node)
        return pair[0];
    close(pair[0]);
    return -1;
}

/* A shell on the console. */
static Agent *by_console(const char *name, GuestWay *w, int64_t deadline, GError **error)
{
    ConsoleLogin login = {.user = w->user, .password = w->password, .any = !w->agent};

    w->name = name;
    g_autoptr(Agent) a = console_agent_new(console_shell_new(name, &login, join, w), error);
    if (!a || !agent_reach(a, deadline, error))
        return NULL;
    w->by_console = true;
    return g_steal_pointer(&a);
}

static bool is_busy(const GError *error)
{
    return g_error_matches(error, LODGE_ERROR, LODGE_ERROR_BUSY);
}

/* What is wrong with both, in one line. */
static void tell_both(const char *name, const GError *agent, const GError *console, GError **error)
{
    g_autofree char *prefix = g_strconcat(name, ": ", NULL);
    const char *what = console->message;

    if (g_str_has_prefix(what, prefix))
        what += strlen(prefix);
    lodge_fail(error, (LodgeError)console->code, "%s; and by the console: %s", agent->message,
               what);
}

/* Neither is there yet: the one, then the other. The console's errors but LODGE_ERROR_BUSY do not
 * change, so it is not tried again then. */
static Agent *by_either(Agent *agent, const char *name, GuestWay *w, int64_t deadline,
                        bool (*stop)(void *opaque), void *opaque, GError **error)
{
    g_autoptr(GError) console_why = NULL;

    for (;;) {
        g_autoptr(GError) agent_why = NULL;
        Agent *found = NULL;
        if (guest_reach(agent, MIN(deadline, machines_deadline(TURN_SECONDS)), &agent_why))
            return agent;
        bool no_port = g_error_matches(agent_why, LODGE_ERROR, LODGE_ERROR_HOST);
        bool wait = no_port || is_busy(agent_why), stopped = stop && stop(opaque);
        bool paused = wait && guest_paused(name, NULL);
        bool refused = console_why && !is_busy(console_why);
        if (wait && !paused && !stopped && !refused && (no_port || agent_had_turn(agent))) {
            g_clear_error(&console_why);
            found = by_console(name, w, MIN(deadline, machines_deadline(GLANCE_SECONDS)),
                               &console_why);
        }
        if (found) {
            agent_free(agent);
            return found;
        }
        if (!wait || stopped || (no_port && refused) || g_get_monotonic_time() >= deadline) {
            if (console_why && wait && !paused)
                tell_both(name, agent_why, console_why, error);
            else
                g_propagate_error(error, g_steal_pointer(&agent_why));
            agent_free(agent);
            return NULL;
        }
        g_usleep(PAUSE_US); /* others may have the port meanwhile */
    }
}

/* Only one way, for as long as it takes. */
static Agent *by_agent(Agent *agent, int64_t deadline, bool (*stop)(void *opaque), void *opaque,
                       GError **error)
{
    g_autoptr(Agent) a = agent;

    for (;;) {
        g_autoptr(GError) why = NULL;
        if (guest_reach(a, MIN(deadline, machines_deadline(TURN_SECONDS)), &why))
            return g_steal_pointer(&a);
        if (!is_busy(why) || g_get_monotonic_time() >= deadline || (stop && stop(opaque))) {
            g_propagate_error(error, g_steal_pointer(&why));
            return NULL;
        }
        g_usleep(PAUSE_US);
    }
}

Agent *guest_reach_by(const char *name, GuestWay *w, int64_t deadline, bool (*stop)(void *opaque),
                      void *opaque, GError **error)
{
    g_autoptr(MachineLook) l = w->agent ? NULL : machines_running(name, error);
    Agent *agent = w->agent ? guest_agent(name, error) : NULL;

    if (w->agent)
        return !agent       ? NULL
               : w->console ? by_either(agent, name, w, deadline, stop, opaque, error)
                            : by_agent(agent, deadline, stop, opaque, error);
    while (l) {
        g_autoptr(GError) why = NULL;
        Agent *a = by_console(name, w, MIN(deadline, machines_deadline(GUEST_REACH_SECONDS)), &why);
        if (a)
            return a;
        if (!is_busy(why) || g_get_monotonic_time() >= deadline || (stop && stop(opaque))) {
            if (!is_busy(why) || !guest_paused(name, error))
                g_propagate_error(error, g_steal_pointer(&why));
            return NULL;
        }
        g_usleep(PAUSE_US);
    }
    return NULL;
}
