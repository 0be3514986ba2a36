/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a machine uses: of the host by proc(5), which costs the machine nothing, and of what only it
 * knows by its control socket, which costs it an answer and its guest a look at its own memory.
 */
#include "usage.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lodge/json_out.h"
#include "lodge/num.h"

#include "machines.h"

#define TASKS_MAX 4096u /* threads that are looked at */

/* utime and stime of a stat file, in seconds. Fields are counted behind the name's parenthesis,
 * which may hold anything: they are the 14th and 15th of the whole. */
static double cpu_seconds(const char *path)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return 0;
    const char *p = strrchr(text, ')');
    for (unsigned field = 2; p && field < 14; field++)
        p = strchr(p + 1, ' ');
    if (!p)
        return 0;
    char *end;
    uint64_t user = strtoull(p, &end, 10), system = strtoull(end, NULL, 10);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* Time on a CPU by the scheduler's own count, which is finer: the first number, in nanoseconds. */
static double thread_seconds(const char *path)
{
    g_autofree char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL)
               ? (double)strtoull(text, NULL, 10) / (double)NS_PER_SEC : 0;
}

static void look_at_threads(long pid, Usage *u)
{
    g_autofree char *dir = g_strdup_printf("/proc/%ld/task", pid);
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    const char *task;
    double all_s = 0;
    while (d && u->threads < TASKS_MAX && (task = g_dir_read_name(d))) {
        g_autofree char *comm = g_build_filename(dir, task, "comm", NULL), *name = NULL;
        g_autofree char *stat = g_build_filename(dir, task, "schedstat", NULL);
        double seconds = thread_seconds(stat);
        u->threads++;
        all_s += seconds;
        if (g_file_get_contents(comm, &name, NULL, NULL) && g_str_has_prefix(name, "vcpu"))
            u->vcpu_s += seconds;
    }
    u->cpu_s = MAX(u->cpu_s, all_s); /* the process's own count has threads that are gone */
}

static uint64_t io_field(const char *text, const char *field)
{
    const char *p = text ? strstr(text, field) : NULL;
    return p ? strtoull(p + strlen(field), NULL, 10) : 0;
}

void usage_look(long pid, Usage *u)
{
    g_autofree char *stat = g_strdup_printf("/proc/%ld/stat", pid);
    g_autofree char *io = g_strdup_printf("/proc/%ld/io", pid), *text = NULL;
    *u = (Usage){.at_us = g_get_monotonic_time(), .cpu_s = cpu_seconds(stat),
                 .resident = machines_resident(pid)};
    look_at_threads(pid, u);
    (void)g_file_get_contents(io, &text, NULL, NULL); /* a host may hide it: zeros then */
    u->read = io_field(text, "\nread_bytes: ");
    u->written = io_field(text, "\nwrite_bytes: ");
}

bool usage_ask(const char *name, int64_t deadline, Usage *u, Client **ret_client, Jv *ret_answer)
{
    g_autoptr(Client) c = client_connect(name, deadline, NULL);
    JsonOut *call = c ? client_begin("x-lodge-stats") : NULL;
    if (!c)
        return false;
    json_bool(call, "ask", true);
    Jv answer = client_call(c, call, deadline, NULL);
    if (!answer.node)
        return false;
    Jv balloon = jv_get(answer, "balloon");
    u->told = true;
    u->received = (uint64_t)jv_int(jv_get(answer, "rx-bytes"));
    u->sent = (uint64_t)jv_int(jv_get(answer, "tx-bytes"));
    u->exits = (uint64_t)jv_int(jv_get(answer, "exits"));
    u->guest = (uint64_t)jv_int(jv_get(balloon, "actual"));
    u->available =
        (uint64_t)jv_int(jv_get(jv_get(balloon, "stats"), "stat-available-memory"));
    if (ret_client) {
        *ret_client = g_steal_pointer(&c);
        *ret_answer = answer;
    }
    return true;
}
