/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the verbs about named machines share: names on the line, looking, waiting.
 *
 * A machine's process is held by a pidfd (pidfd_open(2)), which says when it ends and cannot mean
 * another process that got the same number later.
 */
#include "machines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/json_out.h"
#include "lodge/num.h"

#define PAUSE_US 20000
#define PID_SECONDS 5
#define SECONDS_MAX 31536000.0 /* a year */

int64_t machines_deadline(double seconds)
{
    return seconds > 0 ? g_get_monotonic_time() + (int64_t)(seconds * G_USEC_PER_SEC) : G_MAXINT64;
}

bool machines_pause(int64_t deadline)
{
    int64_t left = deadline - g_get_monotonic_time();
    if (left <= 0)
        return false;
    g_usleep((gulong)MIN(left, PAUSE_US));
    return true;
}

bool machines_seconds(const Options *o, const char *option, double preset, double *ret,
                      GError **error)
{
    const char *text = options_text(o, option);
    char *end = NULL;
    *ret = preset;
    if (!text)
        return true;
    double seconds = g_ascii_strtod(text, &end);
    if (!g_ascii_isdigit(text[0]) || *end || !(seconds > 0) || seconds > SECONDS_MAX)
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "--%s: \"%s\": not a number of seconds above 0", option, text);
    *ret = seconds;
    return true;
}

GPtrArray *machines_named(const Options *o, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    bool all = options_has(o, "all");
    if (all && o->args->len) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "--all: stands beside a name; choose one");
        return NULL;
    }
    if (!all && !o->args->len) {
        lodge_fail(error, LODGE_ERROR_CONFIG, "no machine; give its NAME, or --all");
        return NULL;
    }
    for (unsigned i = 0; i < o->args->len; i++) {
        const char *name = g_ptr_array_index(o->args, i);
        if (!g_ptr_array_find_with_equal_func(names, name, g_str_equal, NULL))
            g_ptr_array_add(names, g_strdup(name));
    }
    if (!all)
        return g_steal_pointer(&names);
    g_autoptr(GPtrArray) list = registry_list(error);
    for (unsigned i = 0; list && i < list->len; i++) {
        const MachineLook *l = g_ptr_array_index(list, i);
        if (l->running)
            g_ptr_array_add(names, g_strdup(l->name));
    }
    return list ? g_steal_pointer(&names) : NULL;
}

const char *machines_one(const Options *o, GError **error)
{
    if (o->args->len)
        return g_ptr_array_index(o->args, 0);
    lodge_fail(error, LODGE_ERROR_CONFIG, "no machine; give its NAME");
    return NULL;
}

MachineLook *machines_running(const char *name, GError **error)
{
    g_autoptr(MachineLook) l = registry_look(name, error);
    if (l && !l->running) {
        (void)registry_not_running(name, error);
        return NULL;
    }
    return g_steal_pointer(&l);
}

Client *machines_reach(const char *name, int64_t deadline, GError **error)
{
    for (;;) {
        g_autoptr(GError) why = NULL;
        Client *c = client_connect(name, deadline, &why);
        if (c)
            return c;
        bool retry = g_error_matches(why, LODGE_ERROR, LODGE_ERROR_STATE);
        g_autoptr(MachineLook) l = retry ? machines_running(name, NULL) : NULL;
        if (!l || !machines_pause(deadline)) {
            g_propagate_error(error, g_steal_pointer(&why));
            return NULL;
        }
    }
}

int machines_process(const char *name)
{
    int64_t deadline = machines_deadline(PID_SECONDS);
    do {
        g_autoptr(MachineLook) l = machines_running(name, NULL);
        long pid = l ? l->status->pid : 0;
        int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
        if (!l)
            return -1;
        /* If the name still has that process, the number meant it when it was opened. */
        g_autoptr(MachineLook) again = fd >= 0 ? machines_running(name, NULL) : NULL;
        if (again && again->status->pid == pid)
            return fd;
        if (fd >= 0)
            close(fd);
    } while (machines_pause(deadline)); /* it has the name, and has not yet said who it is */
    return -1;
}

bool machines_wait_end(int pidfd, int64_t deadline)
{
    for (;;) {
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        int64_t left = deadline - g_get_monotonic_time();
        int ms = deadline == G_MAXINT64 ? -1 : (int)MIN((MAX(left, 0) + 999) / 1000, G_MAXINT);
        if (pidfd < 0 || poll(&p, 1, ms) > 0)
            return true;
        if (deadline != G_MAXINT64 && left <= 0)
            return false;
    }
}

uint64_t machines_resident(long pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%ld/statm", pid), *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return 0;
    const char *second = strchr(text, ' ');
    return second ? strtoull(second, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

void machines_print(const char *name, const char *key, Jv answer)
{
    g_autoptr(JsonOut) j = json_out_new();

    json_object(j, NULL);
    json_number(j, "schema", 1);
    json_string(j, "name", name);
    jv_print(answer, j, key);
    fputs(json_text(j), stdout);
}

char *machines_time(int64_t seconds, bool utc)
{
    g_autoptr(GDateTime) t = utc ? g_date_time_new_from_unix_utc(seconds)
                                 : g_date_time_new_from_unix_local(seconds);
    return t ? g_date_time_format(t, utc ? "%Y-%m-%dT%H:%M:%SZ" : "%Y-%m-%d %H:%M:%S")
             : g_strdup("");
}

char *machines_size(uint64_t bytes)
{
    static const char units[] = "KMGT";
    double n = (double)bytes / 1024;
    unsigned u = 0;
    while (n >= 1024 && units[u + 1]) {
        n /= 1024;
        u++;
    }
    bool whole = n >= 10 || n == (double)(uint64_t)n;
    return g_strdup_printf(whole ? "%.0f%c" : "%.1f%c", n, units[u]);
}
