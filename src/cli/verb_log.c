/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge log": what a machine has said on its console, and with --machine what Lodge has said of
 * it. On a terminal the guest's escape sequences are left out, since they are a stranger's;
 * elsewhere the bytes are as they came.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lodge/console_log.h"
#include "lodge/diag.h"
#include "lodge/error.h"
#include "lodge/json_out.h"

#include "log_reader.h"
#include "machines.h"
#include "vm_log.h"

#define ENDED "ended: " /* as vm_log has it, behind the time */

const OptSpec log_options_table[] = {
    {"follow", 'f', NULL, "Go on until the machine has ended."},
    {"previous", 0, NULL, "What was there before that: of the run before, or of a long one."},
    {"machine", 0, NULL,
     "What Lodge says of the machine: starts, warnings, and how it ended, with a stopped CPU's "
     "registers and the last 30 lines of the console if it ended badly."},
    {NULL},
};

/* Print what is whole in @text, with @all everything. */
static void print_text(GString *text, bool raw, bool all)
{
    size_t len = text->len;
    if (!raw && !all) {
        const char *end = memrchr(text->str, '\n', text->len);
        len = end ? (size_t)(end - text->str) + 1 : 0;
    }
    if (!len)
        return;
    if (raw) {
        fwrite(text->str, 1, len, stdout);
    } else {
        g_autofree char *shown = console_log_clean(text->str, len);
        fputs(shown, stdout);
    }
    g_string_erase(text, 0, (gssize)len);
    fflush(stdout);
}

static void print_all(LogReader *log, GString *text, bool raw)
{
    while (log_reader_take(log, text) && !ferror(stdout))
        print_text(text, raw, false);
}

static bool show_console(const MachineLook *l, bool follow, GError **error)
{
    g_autoptr(LogReader) log = log_reader_open(l, error);
    g_autoptr(GString) text = g_string_new(NULL);
    bool raw = !isatty(STDOUT_FILENO);
    if (!log)
        return false;
    int fd = follow && l->running ? machines_process(l->name) : -1;
    bool ended = !follow || fd < 0;
    print_all(log, text, raw);
    while (!ended && !ferror(stdout)) {
        ended = machines_wait_end(fd, g_get_monotonic_time());
        print_all(log, text, raw);
        print_text(text, raw, true); /* a prompt has no newline behind it */
        if (!ended)
            (void)machines_pause(G_MAXINT64);
    }
    print_text(text, raw, true);
    if (fd >= 0)
        close(fd);
    return true;
}

static bool show_file(const char *name, const char *path, GError **error)
{
    g_autofree char *data = NULL;
    g_autoptr(GError) why = NULL;
    gsize len = 0;
    if (!g_file_get_contents(path, &data, &len, &why)) {
        if (g_error_matches(why, G_FILE_ERROR, G_FILE_ERROR_NOENT))
            return lodge_fail(error, LODGE_ERROR_NOT_FOUND, "%s: has no such log", name);
        return lodge_fail(error, LODGE_ERROR_HOST, "%s: %s", name, why->message);
    }
    g_autoptr(GString) text = g_string_new_len(data, (gssize)len);
    print_text(text, !isatty(STDOUT_FILENO), true);
    return true;
}

static bool show_previous(const MachineLook *l, GError **error)
{
    g_autofree char *path = l->running && l->status->log ? g_strdup(l->status->log)
                                                         : registry_log_path(l->name, true);
    g_autofree char *previous = g_strconcat(path, ".1", NULL);
    return show_file(l->name, previous, error);
}

static bool show_machine(const MachineLook *l, GError **error)
{
    g_autofree char *dir = registry_state_dir(l->name);
    g_autofree char *path = g_build_filename(dir, VM_LOG_FILE, NULL);
    g_autofree char *old = g_strconcat(path, ".1", NULL);
    return (!g_file_test(old, G_FILE_TEST_EXISTS) || show_file(l->name, old, error)) &&
           show_file(l->name, path, error);
}

/* Say how a machine that does not run has ended, where that was not well. */
static void say_end(const MachineLook *l)
{
    g_autofree char *dir = registry_state_dir(l->name), *text = NULL, *last = NULL;
    g_autofree char *path = g_build_filename(dir, VM_LOG_FILE, NULL);
    if (l->running || !g_file_get_contents(path, &text, NULL, NULL))
        return;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        const char *blank = strchr(*line, ' ');
        if (blank && g_str_has_prefix(blank + 1, ENDED)) {
            g_free(last);
            last = g_strdup(*line);
        }
    }
    if (last && !g_str_has_suffix(last, "status 0"))
        lodge_note("%s: %s; lodge log --machine %s tells more", l->name, last, l->name);
}

int verb_log(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    bool machine = o && options_has(o, "machine"), previous = o && options_has(o, "previous");
    bool follow = o && options_has(o, "follow");
    const char *name = o ? machines_one(o, &error) : NULL;
    if (name && machine + previous + follow > 1)
        lodge_fail(&error, LODGE_ERROR_CONFIG,
                   "choose one of --follow, --previous and --machine");
    g_autoptr(MachineLook) l = name && !error ? registry_look(name, &error) : NULL;
    if (!l)
        return cli_fail(self->name, error, false);
    if (!(machine ? show_machine(l, &error)
          : previous ? show_previous(l, &error) : show_console(l, follow, &error)))
        return cli_fail(self->name, error, false);
    if (!machine && !previous)
        say_end(l);
    return cli_finish(STATUS_OK);
}
