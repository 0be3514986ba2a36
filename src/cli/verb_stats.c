/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge stats": what a machine uses of the host, and what its guest tells of its memory. A machine
 * that does not answer is shown without the latter.
 */
#include <inttypes.h>
#include <stdio.h>

#include "lodge/error.h"
#include "lodge/json_out.h"

#include "machines.h"
#include "usage.h"

#define ANSWER_SECONDS 1

const OptSpec stats_options_table[] = {
    {"watch", 'w', NULL, "Again each second, with what was used in it, until they have ended."},
    OPT_ALL,
    OPT_JSON,
    {NULL},
};

static double share(double now, double before, int64_t us)
{
    return us > 0 ? (now - before) * 100e6 / (double)us : 0;
}

/* @answer: what the machine tells; absent: it does not. */
static void print_json(JsonOut *j, const MachineLook *l, const Usage *u, Jv answer)
{
    Jv balloon = jv_get(answer, "balloon");
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
    if (u->told) {
        json_number(j, "net_received", (int64_t)u->received);
        json_number(j, "net_sent", (int64_t)u->sent);
        json_number(j, "exits", (int64_t)u->exits);
    }
    if (jv_kind(balloon) == JV_OBJECT)
        jv_print(balloon, j, "balloon");
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
    g_autofree char *guest = u->guest ? machines_size(u->guest) : g_strdup("-");
    g_autofree char *available = u->available ? machines_size(u->available) : g_strdup("-");
    if (before) {
        int64_t us = u->at_us - before->at_us;
        cpu = g_strdup_printf("%.0f%%", share(u->cpu_s, before->cpu_s, us));
        vcpu = g_strdup_printf("%.0f%%", share(u->vcpu_s, before->vcpu_s, us));
    } else {
        cpu = g_strdup_printf("%.2fs", u->cpu_s);
        vcpu = g_strdup_printf("%.2fs", u->vcpu_s);
    }
    printf("%-16s %-8s %9s %9s %8s %8s %8s %8s %8s\n", l->name,
           machine_status_word(l->status->state), cpu, vcpu, memory, guest, available, read,
           written);
}

static void print_head(void)
{
    printf("%-16s %-8s %9s %9s %8s %8s %8s %8s %8s\n", "NAME", "STATE", "CPU", "VCPUS", "MEMORY",
           "GUEST", "FREE", "READ", "WRITTEN");
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
        Usage now = {0};
        if (!l)
            continue;
        g_autoptr(Client) client = NULL;
        Jv answer = {NULL, NULL};
        usage_look(l->status->pid, &now);
        (void)usage_ask(l->name, machines_deadline(ANSWER_SECONDS), &now, &client, &answer);
        if (json)
            print_json(j, l, &now, answer);
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
