/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge list": machines that run or are defined. It reads files and asks no machine, so that many
 * cost little and one that hangs holds nobody up.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lodge/device.h"
#include "lodge/error.h"
#include "lodge/json_out.h"

#include "machines.h"
#include "run_define.h"

const OptSpec list_options_table[] = {
    {"quiet", 'q', NULL, "Names alone, one a line."},
    OPT_JSON,
    {NULL},
};

enum { COLUMNS = 6 };

/* What a machine that does not run would have. */
static MachineStatus *defined_status(const char *name)
{
    g_autoptr(Definition) d = definition_load(name, NULL);
    g_autoptr(Options) o = d ? options_parse(run_options_table, (int)d->words->len,
                                             (char **)d->words->pdata, 0, NULL)
                             : NULL;
    if (!o)
        return NULL;
    const OptValue *cpus = options_next(o, "cpus", NULL), *memory = options_next(o, "memory", NULL);
    const char *count = cpus ? opt_sub(cpus, "count") : NULL;
    const char *size = memory ? opt_sub(memory, "size") : NULL;
    MachineStatus *s = g_new0(MachineStatus, 1);
    s->cpus = 1;
    s->memory = RUN_MEMORY_DEFAULT;
    if ((count && !parse_u64(count, &s->cpus)) || (size && !parse_size(size, &s->memory)))
        g_clear_pointer(&s, machine_status_free);
    return s;
}

static const char *state_word(const MachineLook *l)
{
    return l->running ? machine_status_word(l->status->state) : "stopped";
}

static void print_json(const GPtrArray *list)
{
    g_autoptr(JsonOut) j = json_out_new();
    json_object(j, NULL);
    json_number(j, "schema", 1);
    json_array(j, "machines");
    for (unsigned i = 0; i < list->len; i++) {
        const MachineLook *l = g_ptr_array_index(list, i);
        const MachineStatus *s = l->status;
        g_autofree char *since = l->running && s->since ? machines_time(s->since, true) : NULL;
        json_object(j, NULL);
        json_string(j, "name", l->name);
        json_string(j, "state", state_word(l));
        json_bool(j, "defined", l->defined);
        if (s) {
            json_number(j, "cpus", (int64_t)s->cpus);
            json_number(j, "memory", (int64_t)s->memory);
        }
        if (l->running) {
            json_number(j, "pid", s->pid);
            json_number(j, "resident", (int64_t)machines_resident(s->pid));
            json_string(j, "since", since);
            json_array(j, "forwards");
            for (char **f = s->forwards; f && *f; f++)
                json_string(j, NULL, *f);
            json_end(j);
        }
        json_end(j);
    }
    fputs(json_text(j), stdout);
}

/* The cells of a row; transfer full. */
static void fill_row(const MachineLook *l, char *cells[COLUMNS])
{
    const MachineStatus *s = l->status;
    cells[0] = g_strdup(l->name);
    cells[1] = g_strdup(state_word(l));
    cells[2] = s && s->cpus ? g_strdup_printf("%" PRIu64, s->cpus) : g_strdup("-");
    if (l->running && s->memory) {
        g_autofree char *used = machines_size(machines_resident(s->pid));
        g_autofree char *size = machines_size(s->memory);
        cells[3] = g_strdup_printf("%s of %s", used, size);
    } else {
        cells[3] = s && s->memory ? machines_size(s->memory) : g_strdup("-");
    }
    cells[4] = l->running && s->since ? machines_time(s->since, false) : g_strdup("-");
    bool ports = l->running && s->forwards && s->forwards[0];
    cells[5] = ports ? g_strjoinv(" ", s->forwards) : g_strdup("-");
}

static void print_table(const GPtrArray *list)
{
    static const char *const heads[COLUMNS] = {"NAME", "STATE", "CPUS", "MEMORY", "SINCE", "PORTS"};
    g_autofree char **cells = g_new0(char *, (list->len + 1) * COLUMNS);
    int widths[COLUMNS] = {0};
    for (unsigned c = 0; c < COLUMNS; c++)
        cells[c] = g_strdup(heads[c]);
    for (unsigned i = 0; i < list->len; i++)
        fill_row(g_ptr_array_index(list, i), cells + (i + 1) * COLUMNS);
    for (unsigned i = 0; i < (list->len + 1) * COLUMNS; i++)
        widths[i % COLUMNS] = MAX(widths[i % COLUMNS], (int)strlen(cells[i]));
    for (unsigned i = 0; i < (list->len + 1) * COLUMNS; i++) {
        if (i % COLUMNS == COLUMNS - 1)
            printf("%s\n", cells[i]);
        else
            printf("%-*s  ", widths[i % COLUMNS], cells[i]);
        g_free(cells[i]);
    }
}

/* Those of the line, or all. */
static GPtrArray *wanted(const Options *o, GError **error)
{
    if (!o->args->len)
        return registry_list(error);
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func((GDestroyNotify)machine_look_free);
    for (unsigned i = 0; i < o->args->len; i++) {
        MachineLook *l = registry_look(g_ptr_array_index(o->args, i), error);
        if (!l)
            return NULL;
        g_ptr_array_add(list, l);
    }
    return g_steal_pointer(&list);
}

int verb_list(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, G_MAXUINT, &error);
    g_autoptr(GPtrArray) list = o ? wanted(o, &error) : NULL;
    if (list && options_has(o, "quiet") && options_has(o, "json"))
        lodge_fail(&error, LODGE_ERROR_CONFIG, "--json: stands beside --quiet; choose one");
    if (error)
        return cli_fail(self->name, error, false);
    bool quiet = options_has(o, "quiet");
    for (unsigned i = 0; i < list->len; i++) {
        MachineLook *l = g_ptr_array_index(list, i);
        if (quiet)
            printf("%s\n", l->name);
        else if (!l->running)
            l->status = defined_status(l->name);
    }
    if (!quiet && options_has(o, "json"))
        print_json(list);
    else if (!quiet && list->len)
        print_table(list);
    return cli_finish(STATUS_OK);
}
