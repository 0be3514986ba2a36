/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge stats": what a machine's process uses of the host (proc(5)). The machine is not asked, so
 * looking costs it nothing.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"
#include "lodge/json_out.h"
#include "lodge/num.h"

#include "machines.h"

#define TASKS_MAX 4096u /* threads that are looked at */

const OptSpec stats_options_table[] = {
    {"watch", 'w', NULL, "Again each second, with what was used in it, until they have ended."},
    OPT_ALL,
    OPT_JSON,
    {NULL},
};

typedef struct Usage {
    int64_t at_us;             /* monotonic */
    double cpu_s, vcpu_s;      /* of the process; of its vCPUs */
    uint64_t resident;         /* bytes */
    uint64_t read, written;    /* bytes that went to or from the host's disks */
    unsigned threads;
} Usage;

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

static void look(long pid, Usage *u)
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

static double share(double now, double before, int64_t us)
{
    return us > 0 ? (now - before) * 100e6 / (double)us : 0;
}

static void print_json(JsonOut *j, const MachineLook *l, const Usage *u)
{
    json_object(j, NULL);
    json_string(j, "name", l->name);
    json_string(j, "state", machine_status_word(l->status->state));
    json_double(j, "cpu_seconds", u->cpu_s);
    json_double(j, "vcpu_seconds", u->vcpu_s);
    json_number(j, "memory", (int64_t)l->status->memory);
    json_number(j, "resident", (int64_t)u->resident);
    json_number(j, "disk_read", (int64_t)u->read);
    json_number(j, "disk_written", (int64_t)u->written);
    json_number(j, "threads", u->threads);
    json_end(j);
}

/* @before: NULL: since the start, in seconds; else in percent of a CPU. */
static void print_text(const MachineLook *l, const Usage *u, const Usage *before)
{
    static const Usage zero = {0};
    const Usage *from = before ? before : &zero;
    g_autofree char *memory = machines_size(u->resident);
    g_autofree char *read = machines_size(u->read - from->read);
    g_autofree char *written = machines_size(u->written - from->written);
    g_autofree char *cpu = NULL, *vcpu = NULL;
    if (before) {
        int64_t us = u->at_us - before->at_us;
        cpu = g_strdup_printf("%.0f%%", share(u->cpu_s, before->cpu_s, us));
        vcpu = g_strdup_printf("%.0f%%", share(u->vcpu_s, before->vcpu_s, us));
    } else {
        cpu = g_strdup_printf("%.2fs", u->cpu_s);
        vcpu = g_strdup_printf("%.2fs", u->vcpu_s);
    }
    printf("%-16s %-8s %9s %9s %8s %8s %8s\n", l->name, machine_status_word(l->status->state), cpu,
           vcpu, memory, read, written);
}

static void print_head(void)
{
    printf("%-16s %-8s %9s %9s %8s %8s %8s\n", "NAME", "STATE", "CPU", "VCPUS", "MEMORY", "READ",
           "WRITTEN");
}

/* One look at all of @names; those that do not run (any more) become NULL. Return: how many ran. */
static unsigned round_of(const GPtrArray *names, Usage *last, bool *known, bool watch, bool json)
{
    g_autoptr(JsonOut) j = json ? json_out_new() : NULL;
    unsigned n = 0;
    if (json) {
        json_object(j, NULL);
        json_number(j, "schema", 1);
        json_array(j, "machines");
    }
    for (unsigned i = 0; i < names->len; i++) {
        g_autoptr(MachineLook) l = machines_running(g_ptr_array_index(names, i), NULL);
        Usage now;
        if (!l)
            continue;
        look(l->status->pid, &now);
        if (json)
            print_json(j, l, &now);
        else
            print_text(l, &now, watch && known[i] ? &last[i] : NULL);
        last[i] = now;
        known[i] = true;
        n++;
    }
    if (json && n)
        fputs(json_text(j), stdout);
    fflush(stdout);
    return n;
}

int verb_stats(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, G_MAXUINT, &error);
    g_autoptr(GPtrArray) names = o ? machines_named(o, &error) : NULL;
    for (unsigned i = 0; names && !error && i < names->len; i++) {
        MachineLook *l = machines_running(g_ptr_array_index(names, i), &error);
        machine_look_free(l);
    }
    if (error)
        return cli_fail(self->name, error, false);
    bool json = options_has(o, "json"), watch = options_has(o, "watch");
    g_autofree Usage *last = g_new0(Usage, names->len + 1);
    g_autofree bool *known = g_new0(bool, names->len + 1);
    if (!json && names->len)
        print_head();
    while (round_of(names, last, known, watch, json) && watch && !ferror(stdout))
        g_usleep(G_USEC_PER_SEC);
    return cli_finish(STATUS_OK);
}
