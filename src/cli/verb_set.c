/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge set", unset, edit: change what a machine is defined as. The new definition is compiled
 * before it replaces the old one, so that what is kept can be started. Where the machine runs, what
 * can be done at once is done (media of drives, memory up to what it was started with); the rest
 * comes with the next start, and each is said.
 *
 * A definition's relative paths are looked up in its own folder, so those of the line are made
 * absolute where that is another one. The tables say what is a path: FILE and DIR.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "lodge/device.h"
#include "lodge/error.h"

#include "machines.h"
#include "run_define.h"

#define ANSWER_SECONDS 30

/* ---- paths ---- */

static bool is_path(const char *kind, const char *value)
{
    return kind && value[0] && !g_path_is_absolute(value) && strcmp(value, "none") &&
           (g_str_has_prefix(kind, "FILE") || g_str_has_prefix(kind, "DIR"));
}

/* A literal comma is doubled, as on the command line. */
static void append_doubled(GString *out, const char *text)
{
    for (; *text; text++)
        g_string_append(out, *text == ',' ? ",," : (char[]){*text, '\0'});
}

static const char *kind_of(const SubSpec *subs, const char *key)
{
    for (; subs && subs->key; subs++) {
        if (!strcmp(subs->key, key))
            return subs->value;
    }
    return NULL;
}

/* The value of @v with absolute paths; transfer full, NULL for a flag. */
static char *absolute(const OptValue *v)
{
    if (!v->pairs)
        return v->text && is_path(v->spec->value, v->text) ? g_canonicalize_filename(v->text, NULL)
                                                           : g_strdup(v->text);
    GString *out = g_string_new(NULL);
    for (unsigned i = 0; i < v->pairs->len; i++) {
        const OptPair *p = g_ptr_array_index(v->pairs, i);
        g_autofree char *full = is_path(kind_of(v->spec->subs, p->key), p->value)
                                    ? g_canonicalize_filename(p->value, NULL) : NULL;
        g_string_append_printf(out, "%s%s=", i ? "," : "", p->key);
        append_doubled(out, full ? full : p->value);
    }
    return g_string_free(out, FALSE);
}

/* ---- the definition ---- */

/* Held while a definition is read, changed and written. -1 with the error. */
static int hold_definition(const char *name, GError **error)
{
    if (!registry_check_name(name, error))
        return -1;
    g_autofree char *dir = registry_state_dir(name);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX) == 0)
        return fd;
    int err = errno;
    if (fd >= 0)
        close(fd);
    if (err == ENOENT)
        lodge_fail(error, LODGE_ERROR_NOT_FOUND,
                   "%s: no machine of that name is defined; lodge list shows those that are", name);
    else
        lodge_fail_errno(error, err, "%s: cannot open its folder '%s'", name, dir);
    return -1;
}

/* Keep @d if it makes a machine. */
static bool keep(const char *name, const Definition *d, GError **error)
{
    RunOptions r = {0};
    g_autoptr(Tree) t = define_compile(name, d, &r, error);
    if (t)
        run_options_clear(&r);
    return t && define_store(name, d, error);
}

/* ---- what is done at once ---- */

/* Put the medium of @v into drive @id. */
static bool change_medium(Client *c, const OptValue *v, const char *id, int64_t deadline)
{
    const char *file = opt_sub(v, "file");
    bool none = !file || !strcmp(file, "none");
    JsonOut *call = client_begin(none ? "eject" : "blockdev-change-medium");
    json_string(call, "id", id);
    if (!none) {
        g_autofree char *full = g_canonicalize_filename(file, NULL);
        json_string(call, "filename", full);
    }
    return client_call(c, call, deadline, NULL).node != NULL;
}

/* Whether all drives of @option got what the line says; they are in the machine already, or not. */
static bool change_media(const char *name, const Options *o, const char *option, const char *id)
{
    int64_t deadline = machines_deadline(ANSWER_SECONDS);
    g_autoptr(Client) c = machines_reach(name, deadline, NULL);
    bool all = c != NULL;
    unsigned n = 0;
    for (const OptValue *v = NULL; all && (v = options_next(o, option, v)); n++) {
        g_autofree char *drive = g_strdup_printf("%s%u", id, n);
        all = v->pairs->len == 1 && change_medium(c, v, drive, deadline);
    }
    return all;
}

/* Have the guest's balloon make its memory what the line says. NULL, or why that waits. */
static const char *change_memory(const char *name, const Options *o)
{
    const OptValue *v = options_next(o, "memory", NULL);
    int64_t deadline = machines_deadline(ANSWER_SECONDS);
    uint64_t size;
    if (v->pairs->len != 1 || !opt_sub(v, "size") || !parse_size(opt_sub(v, "size"), &size))
        return "";
    g_autoptr(Client) c = machines_reach(name, deadline, NULL);
    Jv told = c ? client_call(c, client_begin("x-lodge-stats"), deadline, NULL) : (Jv){NULL, NULL};
    Jv balloon = jv_get(told, "balloon");
    if (jv_kind(balloon) != JV_OBJECT)
        return ": it runs without a balloon";
    if (size > (uint64_t)jv_int(jv_get(balloon, "ram")))
        return ": it was started with less";
    if (!jv_bool(jv_get(balloon, "driver")))
        return ": the guest has no driver for its balloon";
    JsonOut *call = client_begin("balloon");
    json_number(call, "value", (int64_t)size);
    return client_call(c, call, deadline, NULL).node ? NULL : "";
}

/* NULL: it is done. Else what stands behind "at the next start". */
static const char *apply(const char *name, const Options *o, const char *option)
{
    if (!strcmp(option, "memory"))
        return change_memory(name, o);
    if ((!strcmp(option, "cdrom") && change_media(name, o, option, "cd")) ||
        (!strcmp(option, "floppy") && change_media(name, o, option, "floppy")))
        return NULL;
    return "";
}

static void report(const char *name, const char *option, const char *later)
{
    if (later)
        printf("%s: %s: at the next start%s\n", name, option, later);
    else
        printf("%s: %s: now%s\n", name, option,
               strcmp(option, "memory") ? "" : ", by the guest's balloon");
}

static bool is_running(const char *name)
{
    g_autoptr(MachineLook) l = machines_running(name, NULL);
    return l != NULL;
}

/* ---- the verbs ---- */

static bool change(const char *name, const Options *o, GError **error)
{
    int held = hold_definition(name, error);
    g_autoptr(Definition) d = held >= 0 ? definition_load(name, error) : NULL;
    g_autofree char *here = g_get_current_dir();
    for (unsigned i = 0; d && i < o->given->len; i++)
        (void)definition_remove(d, ((const OptValue *)g_ptr_array_index(o->given, i))->spec->name);
    for (unsigned i = 0; d && i < o->given->len; i++) {
        const OptValue *v = g_ptr_array_index(o->given, i);
        g_autofree char *value = strcmp(here, d->folder) ? absolute(v) : g_strdup(v->text);
        definition_add(d, v->spec->name, value);
    }
    bool ok = d && keep(name, d, error);
    if (held >= 0)
        close(held);
    return ok;
}

int verb_set(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    const char *name = o ? machines_one(o, &error) : NULL;
    if (name && !o->given->len)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "%s: nothing to change; give options", name);
    for (unsigned i = 0; name && !error && i < o->given->len; i++) {
        const OptSpec *spec = ((const OptValue *)g_ptr_array_index(o->given, i))->spec;
        if (spec->flags & OPT_RUN)
            lodge_fail(&error, LODGE_ERROR_CONFIG,
                       "--%s: is about one run; give it to lodge run %s", spec->name, name);
    }
    if (error || !change(name, o, &error))
        return cli_fail(self->name, error, false);
    bool running = is_running(name);
    for (unsigned i = 0; running && i < o->given->len; i++) {
        const OptValue *v = g_ptr_array_index(o->given, i);
        if (options_next(o, v->spec->name, NULL) == v) /* once for each option */
            report(name, v->spec->name, apply(name, o, v->spec->name));
    }
    return cli_finish(STATUS_OK);
}

int verb_unset(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, G_MAXUINT, &error);
    const char *name = o ? machines_one(o, &error) : NULL;
    if (name && o->args->len < 2)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "%s: nothing to take away; give names of options",
                   name);
    int held = name && !error ? hold_definition(name, &error) : -1;
    g_autoptr(Definition) d = held >= 0 ? definition_load(name, &error) : NULL;
    for (unsigned i = 1; d && !error && i < o->args->len; i++) {
        const char *option = g_ptr_array_index(o->args, i);
        if (!definition_remove(d, option))
            lodge_fail(&error, LODGE_ERROR_NOT_FOUND, "%s: --%s: is not in its definition", name,
                       option);
    }
    if (d && !error)
        (void)keep(name, d, &error);
    if (held >= 0)
        close(held);
    if (error)
        return cli_fail(self->name, error, false);
    bool running = is_running(name);
    for (unsigned i = 1; running && i < o->args->len; i++)
        report(name, g_ptr_array_index(o->args, i), "");
    return cli_finish(STATUS_OK);
}

/* ---- edit ---- */

/* Let the person change the file. */
static bool call_editor(const char *path, GError **error)
{
    const char *editor = g_getenv("VISUAL");
    int status = 0;
    g_autoptr(GError) why = NULL;
    if (!editor || !editor[0])
        editor = g_getenv("EDITOR");
    if (!editor || !editor[0])
        editor = "vi";
    /* The variable may hold arguments, too. */
    g_autofree char *line = g_strdup_printf("%s \"$1\"", editor);
    const char *argv[] = {"/bin/sh", "-c", line, "sh", path, NULL};
    bool ok = g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_CHILD_INHERITS_STDIN, NULL, NULL,
                           NULL, NULL, &status, &why) &&
              g_spawn_check_wait_status(status, &why);
    return ok || lodge_fail(error, LODGE_ERROR_HOST, "the editor '%s' failed: %s", editor,
                            why->message);
}

/* *ret_keep: the person's text is worth keeping. */
static bool edit(const char *name, const char *path, bool *ret_keep, GError **error)
{
    g_autoptr(Definition) old = definition_load(name, error);
    g_autofree char *before = old ? definition_format(old) : NULL, *after = NULL;
    g_autoptr(GError) why = NULL;
    if (!old)
        return false;
    if (!g_file_set_contents(path, before, -1, &why))
        return lodge_fail(error, LODGE_ERROR_HOST, "%s", why->message);
    if (!call_editor(path, error))
        return false;
    if (!g_file_get_contents(path, &after, NULL, &why))
        return lodge_fail(error, LODGE_ERROR_HOST, "%s", why->message);
    if (!strcmp(before, after))
        return true;
    *ret_keep = true;
    g_autoptr(Definition) d = definition_parse(after, error);
    if (!d || !keep(name, d, error))
        return false;
    *ret_keep = false;
    if (is_running(name))
        printf("%s: at the next start\n", name);
    return true;
}

int verb_edit(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL, why = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    const char *name = o ? machines_one(o, &error) : NULL;
    g_autofree char *path = NULL;
    bool keep_text = false;
    if (!name)
        return cli_fail(self->name, error, false);
    int fd = g_file_open_tmp("lodge-XXXXXX", &path, &why);
    if (fd < 0) {
        lodge_fail(&error, LODGE_ERROR_HOST, "%s", why->message);
        return cli_fail(self->name, error, false);
    }
    close(fd);
    bool ok = edit(name, path, &keep_text, &error);
    if (keep_text)
        g_prefix_error(&error, "%s: nothing is changed, your text is in '%s': ", name, path);
    else
        (void)g_unlink(path); /* a temporary file */
    return ok ? cli_finish(STATUS_OK) : cli_fail(self->name, error, false);
}
