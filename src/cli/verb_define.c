/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge define", rename, rm: definitions of machines that do not run. Each holds the name, as a
 * running machine does, so that none starts meanwhile; two names are taken in their order, so that
 * two who rename do not wait for each other.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

#include "machines.h"
#include "run_define.h"
#include "vm_log.h"

int verb_define(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 1, &error);
    const char *name = o ? machines_one(o, &error) : NULL;
    for (unsigned i = 0; name && !error && i < o->given->len; i++) {
        const OptSpec *spec = ((const OptValue *)g_ptr_array_index(o->given, i))->spec;
        if (spec->flags & OPT_RUN)
            lodge_fail(&error, LODGE_ERROR_CONFIG,
                       "--%s: is about one run; give it to lodge run %s", spec->name, name);
    }
    g_autoptr(Definition) d = name && !error ? define_from(o, &error) : NULL;
    RunOptions r = {0};
    g_autoptr(Tree) t = d ? define_compile(name, d, &r, &error) : NULL;
    if (t) {
        run_options_clear(&r);
        (void)define_store(name, d, &error);
    }
    return error ? cli_fail(self->name, error, false) : STATUS_OK;
}

/* The name for as long as this takes; a machine that runs is told of. */
static Registry *hold(const char *name, GError **error)
{
    g_autoptr(MachineLook) l = registry_look(name, NULL);
    if (l && l->running) {
        lodge_fail(error, LODGE_ERROR_EXISTS, "%s: is running; stop it first", name);
        return NULL;
    }
    return registry_claim(name, REGISTRY_NOTHING, error);
}

/* ---- rm ---- */

/* Remove the folder of what lasts. What Lodge did not put there stays, and the folder then too. */
static bool remove_folder(const char *name, GError **error)
{
    static const char *const files[] = {DEFINITION_FILE, "console.log", "console.log.1",
                                        VM_LOG_FILE, VM_LOG_FILE ".1"};
    g_autofree char *path = registry_state_dir(name);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir < 0 && errno == ENOENT)
        return registry_not_found(name, error);
    bool ok = dir >= 0;
    for (unsigned i = 0; ok && i < G_N_ELEMENTS(files); i++)
        ok = unlinkat(dir, files[i], 0) == 0 || errno == ENOENT;
    int err = errno;
    if (dir >= 0)
        close(dir);
    if (ok && rmdir(path) < 0) {
        err = errno;
        ok = false;
    }
    if (!ok && (err == ENOTEMPTY || err == EEXIST))
        return lodge_fail(error, LODGE_ERROR_EXISTS,
                          "%s: its folder '%s' holds files that are not Lodge's; move them away",
                          name, path);
    return ok || lodge_fail_errno(error, err, "%s: cannot remove its folder '%s'", name, path);
}

int verb_rm(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, G_MAXUINT, &error);
    int status = STATUS_OK;
    if (o && !o->args->len)
        (void)machines_one(o, &error);
    if (error)
        return cli_fail(self->name, error, false);
    for (unsigned i = 0; i < o->args->len; i++) {
        const char *name = g_ptr_array_index(o->args, i);
        g_autoptr(GError) why = NULL;
        g_autoptr(Registry) r = hold(name, &why);
        if (!r || !remove_folder(name, &why)) {
            int now = cli_fail(self->name, why, false);
            status = status ? status : now;
        }
    }
    return status;
}

/* ---- rename ---- */

static bool move_folder(const char *from, const char *to, GError **error)
{
    g_autofree char *old = registry_state_dir(from), *new = registry_state_dir(to);
    if (renameat2(AT_FDCWD, old, AT_FDCWD, new, RENAME_NOREPLACE) == 0)
        return true;
    if (errno == ENOENT)
        return registry_not_found(from, error);
    if (errno == EEXIST)
        return lodge_fail(error, LODGE_ERROR_EXISTS,
                          "%s: a machine of that name is there; choose another name", to);
    return lodge_fail_errno(error, errno, "%s: cannot move its folder to '%s'", from, new);
}

int verb_rename(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 2, &error);
    if (o && o->args->len < 2)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "two names are needed; write NAME NEW");
    if (error)
        return cli_fail(self->name, error, false);
    const char *from = g_ptr_array_index(o->args, 0), *to = g_ptr_array_index(o->args, 1);
    bool in_order = strcmp(from, to) < 0;
    if (!strcmp(from, to))
        lodge_fail(&error, LODGE_ERROR_CONFIG, "%s: has that name already", from);
    g_autoptr(Registry) first = error ? NULL : hold(in_order ? from : to, &error);
    g_autoptr(Registry) second = first ? hold(in_order ? to : from, &error) : NULL;
    if (!second || !move_folder(from, to, &error))
        return cli_fail(self->name, error, false);
    return STATUS_OK;
}
