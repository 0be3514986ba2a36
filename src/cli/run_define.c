/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between "lodge run" and the definitions of machines: a line that names a machine and says nothing
 * else about it stands for its definition, and any other with a name makes one.
 *
 * What is kept are the options as they were given, not the tree that they compile to: the defaults
 * of a newer version, the host's kernel and modules, and what a person changes by hand then have
 * their effect at the next start, through the one function that compiles lines. Options about the
 * run alone (OPT_RUN: --detach, --quiet and so on) are not kept.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "lodge/error.h"

#include "registry.h"
#include "run_define.h"
#include "verb_run.h"

Definition *define_from(const Options *o, GError **error)
{
    g_autofree char *folder = g_get_current_dir();
    if (!g_path_is_absolute(folder)) {
        lodge_fail(error, LODGE_ERROR_HOST, "the current folder has no path");
        return NULL;
    }
    Definition *d = definition_new(folder);
    for (unsigned i = 0; i < o->given->len; i++) {
        const OptValue *v = g_ptr_array_index(o->given, i);
        if (!(v->spec->flags & OPT_RUN))
            definition_add(d, v->spec->name, v->text);
    }
    return d;
}

/* The words of @d, then those of the line. */
static GPtrArray *joined(const Definition *d, int argc, char **argv)
{
    GPtrArray *words = g_ptr_array_new_with_free_func(g_free);
    for (unsigned i = 0; d && i < d->words->len; i++)
        g_ptr_array_add(words, g_strdup(g_ptr_array_index(d->words, i)));
    for (int i = 0; i < argc; i++)
        g_ptr_array_add(words, g_strdup(argv[i]));
    return words;
}

Tree *define_compile(const char *name, const Definition *d, RunOptions *ret, GError **error)
{
    char *argv[] = {(char *)name};
    g_autoptr(GPtrArray) words = joined(d, 1, argv);
    return run_compile((int)words->len, (char **)words->pdata, ret, error);
}

bool define_store(const char *name, const Definition *d, GError **error)
{
    g_autofree char *dir = registry_state_dir(name);
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return lodge_fail_errno(error, errno, "%s: cannot make its folder '%s'", name, dir);
    g_autoptr(GError) why = NULL;
    return definition_save(d, dir, &why) ||
           lodge_fail(error, LODGE_ERROR_HOST, "%s: its definition is not kept: %s", name,
                      why->message);
}

/* The definition that @name alone stands for. Who writes a file there means its disk. */
static Definition *load_named(const char *name, GError **error)
{
    g_autoptr(GError) why = NULL;
    Definition *d = definition_load(name, &why);
    bool none = g_error_matches(why, LODGE_ERROR, LODGE_ERROR_NOT_FOUND) ||
                g_error_matches(why, LODGE_ERROR, LODGE_ERROR_CONFIG);

    if (none && g_file_test(name, G_FILE_TEST_IS_REGULAR))
        lodge_fail(error, (LodgeError)why->code,
                   "%s: is a file, not the name of a machine; lodge run --disk %s starts from it",
                   name, name);
    else if (why)
        g_propagate_error(error, g_steal_pointer(&why));
    return d;
}

Tree *run_resolve(int argc, char **argv, RunOptions *ret, GError **error)
{
    g_autoptr(Options) o = options_parse(run_options_table, argc, argv, 1, error);
    if (!o)
        return NULL;
    const char *name = o->args->len ? g_ptr_array_index(o->args, 0) : NULL;
    bool defines = false;
    for (unsigned i = 0; i < o->given->len; i++)
        defines |= !(((const OptValue *)g_ptr_array_index(o->given, i))->spec->flags & OPT_RUN);
    g_autoptr(Definition) d = NULL;
    if (name && !defines && !(d = load_named(name, error)))
        return NULL;
    g_autoptr(GPtrArray) words = joined(d, argc, argv);
    Tree *t = run_compile((int)words->len, (char **)words->pdata, ret, error);
    if (t && d && chdir(d->folder) < 0) {
        lodge_fail_errno(error, errno, "%s: cannot enter its folder '%s'", name, d->folder);
        g_clear_pointer(&t, tree_free);
        run_options_clear(ret);
    }
    if (!t)
        return NULL;
    if (name && defines && !ret->ephemeral && !ret->dry_run)
        ret->define = define_from(o, NULL); /* without a path for its folder, it cannot be kept */
    return t;
}
