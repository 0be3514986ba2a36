/* SPDX-License-Identifier: GPL-2.0-or-later */
/* "lodge wait": until a machine runs, has ended, has said something on its console, or its guest
 * answers. */
#include <string.h>
#include <unistd.h>

#include "lodge/console_log.h"
#include "lodge/error.h"

#include "guest.h"
#include "log_reader.h"
#include "machines.h"
#include "ssh.h"
#include "wait.h"

#define TURN_US 5000000
#define TURN_PAUSE_US 100000
#define LINE_BYTES_MAX 65536u /* of a line that is looked at in one piece */

const OptSpec wait_options_table[] = {
    {"exit", 0, NULL, "Until it has ended (so it is without another condition)."},
    {"running", 0, NULL, "Until it runs; it need not be there yet."},
    {"paused", 0, NULL, "Until it is paused."},
    {"log", 0, "REGEX",
     "Until a line of its console matches, from its start on; the syntax is Perl's."},
    {"agent", 0, NULL, "Until the QEMU guest agent in it answers, so that lodge exec works."},
    {"ssh", 0, NULL, "Until an SSH server answers at the port that leads to the guest's port 22."},
    {"timeout", 0, "SECONDS", "Give up after this long, with status 124 (never)."},
    {NULL},
};

typedef struct Wait {
    const char *name; /* borrowed */
    int64_t deadline;
    GRegex *regex; /* owned; NULL: not for a line */
    bool timed_out;
} Wait;

static bool too_late(Wait *w, const char *what, GError **error)
{
    w->timed_out = true;
    return lodge_fail(error, LODGE_ERROR_HOST, "%s: %s in time", w->name, what);
}

static bool wait_state(Wait *w, MachineStatusState state, GError **error)
{
    bool may_come = state == MACHINE_STATUS_RUNNING;
    if (!registry_check_name(w->name, error))
        return false;
    do {
        g_autoptr(GError) why = NULL;
        g_autoptr(MachineLook) l = may_come ? registry_look(w->name, &why)
                                            : machines_running(w->name, &why);
        if (l && l->running && l->status->state == state)
            return true;
        if (!l && !(may_come && g_error_matches(why, LODGE_ERROR, LODGE_ERROR_NOT_FOUND))) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
    } while (machines_pause(w->deadline));
    return too_late(w, may_come ? "did not run" : "was not paused", error);
}

static bool wait_end(Wait *w, GError **error)
{
    g_autoptr(MachineLook) l = machines_running(w->name, error);
    if (!l)
        return false;
    int fd = machines_process(w->name);
    bool ended = machines_wait_end(fd, w->deadline);
    if (fd >= 0)
        close(fd);
    return ended || too_late(w, "did not end", error);
}

static bool wait_agent(Wait *w, GError **error)
{
    g_autoptr(Agent) a = guest_agent(w->name, error);
    int64_t now;

    if (!a)
        return false;
    while ((now = g_get_monotonic_time()) < w->deadline) {
        g_autoptr(GError) why = NULL;
        if (agent_reach(a, MIN(w->deadline, now + TURN_US), &why))
            return true;
        if (!g_error_matches(why, LODGE_ERROR, LODGE_ERROR_BUSY)) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        g_usleep(TURN_PAUSE_US); /* others may have the port meanwhile */
    }
    return too_late(w, "no guest agent answered", error);
}

static bool wait_ssh(Wait *w, GError **error)
{
    g_autofree char *host = NULL;
    unsigned port;

    if (!ssh_find(w->name, &host, &port, error))
        return false;
    do {
        g_autoptr(MachineLook) l = machines_running(w->name, error);
        if (!l)
            return false;
        if (ssh_answers(host, port, MIN(w->deadline, g_get_monotonic_time() + TURN_US)))
            return true;
    } while (machines_pause(w->deadline));
    return too_late(w, "no SSH server answered", error);
}

/* Whether a line that is whole, or with @last the beginning of one, matches. */
static bool find_line(Wait *w, GString *text, bool last)
{
    for (;;) {
        char *end = memchr(text->str, '\n', text->len);
        size_t len = end ? (size_t)(end - text->str) : text->len;
        bool cut = !end && len >= LINE_BYTES_MAX;
        if (!end && !cut && !last)
            return false;
        g_autofree char *line = console_log_clean(text->str, len);
        if (g_regex_match(w->regex, line, 0, NULL))
            return true;
        if (!end && !cut)
            return false;
        g_string_erase(text, 0, (gssize)(end ? len + 1 : len));
    }
}

static bool wait_log(Wait *w, GError **error)
{
    g_autoptr(MachineLook) l = machines_running(w->name, error);
    if (!l)
        return false;
    g_autoptr(LogReader) log = log_reader_open(l, error);
    if (!log)
        return false;
    int fd = machines_process(w->name);
    g_autoptr(GString) text = g_string_new(NULL);
    bool ended = false, found = false, in_time = true;
    while (!found && !ended && in_time) {
        ended = machines_wait_end(fd, g_get_monotonic_time());
        while (log_reader_take(log, text) && !found)
            found = find_line(w, text, false);
        /* A prompt has no newline behind it. */
        found = found || find_line(w, text, true);
        if (!found && !ended)
            in_time = machines_pause(w->deadline);
    }
    if (fd >= 0)
        close(fd);
    if (!found && ended)
        return lodge_fail(error, LODGE_ERROR_STATE, "%s: ended, and no line matched", w->name);
    return found || too_late(w, "no line matched", error);
}

bool wait_for_line(const char *name, GRegex *regex, GError **error)
{
    Wait w = {.name = name, .deadline = machines_deadline(0), .regex = regex};
    return wait_log(&w, error);
}

/* What is wrong is in GLib's text alone: "... at char N: WHY", where N characters are before it. */
static void tell_bad_regex(const char *option, const char *text, const char *said, GError **error)
{
    const char *at = g_strrstr(said, " at char "), *why = at ? strstr(at, ": ") : NULL;
    gint64 before = at ? g_ascii_strtoll(at + strlen(" at char "), NULL, 10) : 0;
    g_autofree char *where = before < g_utf8_strlen(text, -1)
                                 ? g_strdup_printf("at character %" PRIi64, before + 1)
                                 : g_strdup("at its end");

    lodge_fail(error, LODGE_ERROR_CONFIG,
               "--%s: \"%s\": no regular expression as Perl has them: %s %s; mend it, and write \\ "
               "before a sign that is to stand for itself",
               option, text, why ? why + strlen(": ") : said, where);
}

GRegex *wait_regex(const char *option, const char *text, GError **error)
{
    g_autoptr(GError) why = NULL;

    if (!g_utf8_validate(text, -1, NULL)) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "--%s: the regular expression is no UTF-8; write it in UTF-8", option);
        return NULL;
    }
    GRegex *regex = g_regex_new(text, G_REGEX_OPTIMIZE, 0, &why);
    if (!regex)
        tell_bad_regex(option, text, why->message, error);
    return regex;
}

int verb_wait(const Verb *self, int argc, char **argv)
{
    static const char *const conditions[] = {"exit", "running", "paused", "log", "agent", "ssh"};
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    double seconds = 0;
    unsigned given = 0;
    for (unsigned i = 0; o && i < G_N_ELEMENTS(conditions); i++)
        given += options_has(o, conditions[i]);
    Wait w = {.name = o ? machines_one(o, &error) : NULL};
    if (!w.name || !machines_seconds(o, "timeout", 0, &seconds, &error))
        return cli_fail(self->name, error, false);
    if (given > 1)
        lodge_fail(&error, LODGE_ERROR_CONFIG,
                   "two conditions; choose one of --exit, --running, --paused, --log, --agent and "
                   "--ssh");
    const char *regex = options_text(o, "log");
    if (!error && regex)
        w.regex = wait_regex("log", regex, &error);
    if (error)
        return cli_fail(self->name, error, false);
    w.deadline = machines_deadline(seconds);
    bool ok = regex ? wait_log(&w, &error)
              : options_has(o, "running") ? wait_state(&w, MACHINE_STATUS_RUNNING, &error)
              : options_has(o, "agent")   ? wait_agent(&w, &error)
              : options_has(o, "ssh")     ? wait_ssh(&w, &error)
              : options_has(o, "paused")  ? wait_state(&w, MACHINE_STATUS_PAUSED, &error)
                                          : wait_end(&w, &error);
    g_clear_pointer(&w.regex, g_regex_unref);
    int status = ok ? STATUS_OK : cli_fail(self->name, error, false);
    return w.timed_out ? STATUS_TIMEOUT : status;
}
