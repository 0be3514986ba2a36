/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge set", unset, edit: change what a machine is defined as. The new definition is compiled
 * before it replaces the old one, so that what is kept can be started. Where the machine runs, what
 * can be done at once is done (set_live.c); the rest comes with the next start, and each is said.
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

#include "lodge/error.h"

#include "machines.h"
#include "run_define.h"
#include "set_live.h"

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
        (void)definition_not_found(name, error);
    else
        lodge_fail_errno(error, err, "%s: cannot open its folder '%s'", name, dir);
    return -1;
}

/* Keep @d if it makes a machine, and do on the one that runs what can be done of @options (char *)
 * now. */
static bool keep(const char *name, const Definition *d, const GPtrArray *options, GError **error)
{
    RunOptions r = {0};
    g_autoptr(Tree) t = define_compile(name, d, &r, error);
    if (t)
        run_options_clear(&r);
    if (!t || !define_store(name, d, error))
        return false;
    g_autoptr(MachineLook) l = machines_running(name, NULL);
    if (l)
        set_live(name, options, t, d->folder);
    return true;
}

/* Add @option unless it is there. */
static void add_once(GPtrArray *options, const char *option)
{
    if (!g_ptr_array_find_with_equal_func(options, option, g_str_equal, NULL))
        g_ptr_array_add(options, g_strdup(option));
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
    g_autoptr(GPtrArray) options = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < o->given->len; i++)
        add_once(options, ((const OptValue *)g_ptr_array_index(o->given, i))->spec->name);
    bool ok = d && keep(name, d, options, error);
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
    g_autoptr(GPtrArray) options = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 1; d && i < o->args->len; i++)
        add_once(options, g_ptr_array_index(o->args, i));
    if (d && !error)
        (void)keep(name, d, options, &error);
    if (held >= 0)
        close(held);
    if (error)
        return cli_fail(self->name, error, false);
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

/* The name of the option that @word of a definition gives; transfer full. */
static char *option_of(const char *word)
{
    return g_strndup(word + 2, strcspn(word + 2, "="));
}

/* The words of @d that give @option, one behind the other; transfer full. */
static char *words_of(const Definition *d, const char *option)
{
    GString *out = g_string_new(NULL);
    for (unsigned i = 0; i < d->words->len; i++) {
        g_autofree char *name = option_of(g_ptr_array_index(d->words, i));
        if (!strcmp(name, option))
            g_string_append_printf(out, "%s\n", (char *)g_ptr_array_index(d->words, i));
    }
    return g_string_free(out, FALSE);
}

/* Options (char *) that @a and @b do not say alike; transfer full. */
static GPtrArray *differences(const Definition *a, const Definition *b)
{
    GPtrArray *options = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; i < a->words->len + b->words->len; i++) {
        const char *word = i < a->words->len ? g_ptr_array_index(a->words, i)
                                             : g_ptr_array_index(b->words, i - a->words->len);
        g_autofree char *name = option_of(word);
        g_autofree char *in_a = words_of(a, name), *in_b = words_of(b, name);
        if (strcmp(in_a, in_b))
            add_once(options, name);
    }
    return options;
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
    g_autoptr(GPtrArray) options = d ? differences(old, d) : NULL;
    if (!d || !keep(name, d, options, error))
        return false;
    *ret_keep = false;
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
