/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The status file: a line that names the form, then a word and its value on each line. A reader
 * passes over words that it does not know, so that one of another version can still list.
 */
#include "machine_status.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#define FIRST_LINE "lodge status 1"
#define FORWARDS_MAX 64u /* that are told */

static const char *const words[] = {
    [MACHINE_STATUS_STARTING] = "starting",
    [MACHINE_STATUS_RUNNING] = "running",
    [MACHINE_STATUS_PAUSED] = "paused",
    [MACHINE_STATUS_IO_ERROR] = "io-error",
};

void machine_status_free(MachineStatus *s)
{
    if (!s)
        return;
    g_strfreev(s->forwards);
    g_free(s->log);
    g_free(s);
}

const char *machine_status_word(MachineStatusState state)
{
    return words[state];
}

char *machine_status_format(const MachineStatus *s)
{
    GString *out = g_string_new(FIRST_LINE "\n");
    g_string_append_printf(out,
                           "state %s\npid %ld\ncpus %" PRIu64 "\nmemory %" PRIu64
                           "\nsince %" PRIi64 "\n",
                           words[s->state], s->pid, s->cpus, s->memory, s->since);
    if (s->log && !strchr(s->log, '\n'))
        g_string_append_printf(out, "log %s\n", s->log);
    for (unsigned i = 0; s->forwards && s->forwards[i] && i < FORWARDS_MAX; i++)
        g_string_append_printf(out, "forward %s\n", s->forwards[i]);
    return g_string_free(out, FALSE);
}

static bool take_number(const char *text, guint64 max, guint64 *ret)
{
    return g_ascii_string_to_unsigned(text, 10, 0, max, ret, NULL);
}

/* Return: false: @value is not what @word takes. */
static bool take_line(MachineStatus *s, const char *word, const char *value, GPtrArray *forwards)
{
    guint64 n = 0;
    if (!strcmp(word, "state")) {
        for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
            if (!strcmp(words[i], value)) {
                s->state = i;
                return true;
            }
        }
        return false;
    }
    if (!strcmp(word, "pid")) {
        if (!take_number(value, G_MAXINT, &n) || !n)
            return false;
        s->pid = (long)n;
    } else if (!strcmp(word, "cpus")) {
        return take_number(value, G_MAXUINT64, &s->cpus);
    } else if (!strcmp(word, "memory")) {
        return take_number(value, G_MAXUINT64, &s->memory);
    } else if (!strcmp(word, "since")) {
        if (!take_number(value, G_MAXINT64, &n))
            return false;
        s->since = (int64_t)n;
    } else if (!strcmp(word, "log") && !s->log) {
        s->log = g_strdup(value);
    } else if (!strcmp(word, "forward") && forwards->len < FORWARDS_MAX) {
        g_ptr_array_add(forwards, g_strdup(value));
    }
    return true;
}

MachineStatus *machine_status_parse(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autoptr(MachineStatus) s = g_new0(MachineStatus, 1);
    GPtrArray *forwards = g_ptr_array_new();
    bool ok = !g_strcmp0(lines[0], FIRST_LINE);
    for (unsigned i = 1; ok && lines[i]; i++) {
        char *blank = strchr(lines[i], ' ');
        if (!blank)
            continue;
        *blank = '\0';
        ok = take_line(s, lines[i], blank + 1, forwards);
    }
    g_ptr_array_add(forwards, NULL);
    s->forwards = (GStrv)g_ptr_array_free(forwards, FALSE);
    return ok && s->pid ? g_steal_pointer(&s) : NULL;
}
