/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * "lodge cp": files and folders into and out of a guest, by its agent or its console. A file goes
 * through the agent's own calls (agent_file.c); a folder through tar(1) on both sides.
 *
 * What comes out of a guest is hostile: a folder is unpacked in a new one that only we can enter,
 * only what was asked for is taken from there, and devices and the like are thrown away before it
 * gets its name. Owners and set-id bits stay behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lodge/diag.h"
#include "lodge/error.h"

#include "agent_file.h"
#include "guest.h"
#include "guest_way.h"
#include "machines.h"
#include "verb_image.h"

#define WALK_FDS 16

const OptSpec cp_options_table[] = {
    {"recursive", 'r', NULL, "Copy a folder and all that is in it."},
    OPT_VIA(0),
    {"user", 'u', "USER", "With --via console: log in as this user (root)."},
    OPT_PASSWORD_FILE(0),
    {NULL},
};

/* $1 where to, $2 the folder's name. */
static const char unpack_script[] =
    "if [ -d \"$1\" ]; then cd \"$1\" && exec tar -xof -; fi\n"
    "mkdir \"$1\" && cd \"$1\" && exec tar -xof - --strip-components=1\n";
/* $1 the folder above, $2 the name. */
static const char pack_script[] =
    "cd \"$1\" && [ -d \"$2\" ] || { echo \"$1/$2 is no folder\" >&2; exit 1; }\n"
    "exec tar -cf - \"./$2\"\n";

typedef struct Place {
    char *machine; /* owned; NULL: this host */
    char *path;    /* owned */
} Place;

static void place_clear(Place *p)
{
    g_free(p->machine);
    g_free(p->path);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Place, place_clear)

/* NAME:PATH, or a path of this host: one with a slash before its first colon is that. */
static bool parse_place(const char *text, Place *ret, GError **error)
{
    const char *colon = strchr(text, ':'), *slash = strchr(text, '/');

    if (!colon || (slash && slash < colon)) {
        ret->path = g_strdup(text);
        return *text || lodge_fail(error, LODGE_ERROR_CONFIG, "\"\": write a path, or NAME:PATH");
    }
    ret->machine = g_strndup(text, (gsize)(colon - text));
    ret->path = g_strdup(colon + 1);
    /* A slash at the end says folder, which the guest finds out itself. */
    for (size_t n = strlen(ret->path); n > 1 && ret->path[n - 1] == '/'; n--)
        ret->path[n - 1] = '\0';
    if (!registry_check_name(ret->machine, error))
        return false;
    if (ret->path[0] != '/')
        return lodge_fail(error, LODGE_ERROR_CONFIG,
                          "%s: write the path in the guest from its root, like %s:/%s", text,
                          ret->machine, ret->path);
    return g_utf8_validate(ret->path, -1, NULL) ||
           lodge_fail(error, LODGE_ERROR_CONFIG,
                      "%s: is no UTF-8, which is all that the guest agent takes", text);
}

static void tell(void *opaque, uint64_t done, uint64_t all)
{
    const ImageProgress *p = image_bar_progress(opaque);

    if (p)
        p->tell(p->opaque, done, MAX(all, done));
}

/* The bar's, whatever is copied. */
static int stop(void *opaque)
{
    return guest_signal(NULL);
}

/* ---- a file ---- */

static bool put_file(Agent *a, const char *from, const char *to, GError **error)
{
    g_autofree char *name = g_path_get_basename(from);
    struct stat st;
    ImageBar bar;
    int fd = open(from, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) < 0) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return lodge_fail_errno(error, err, "%s", from);
    }
    bool ok = !S_ISDIR(st.st_mode) ||
              lodge_fail(error, LODGE_ERROR_CONFIG, "%s: is a folder; copy it with -r", from);
    image_bar_init(&bar);
    AgentCopy c = {.tell = tell, .stop = stop, .opaque = &bar};
    ok = ok && agent_put_file(a, fd, to, name, st.st_mode, &c, error);
    image_bar_end(&bar);
    close(fd);
    return ok;
}

/* Where on this host a copy of @from goes that is to be at @to: in a folder, or with that name. */
static char *target_of(const char *from, const char *to)
{
    g_autofree char *name = g_path_get_basename(from);

    return g_file_test(to, G_FILE_TEST_IS_DIR) ? g_build_filename(to, name, NULL) : g_strdup(to);
}

static bool is_special(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

static bool get_file(Agent *a, const char *from, const char *to, GError **error)
{
    g_autofree char *path = target_of(from, to);
    bool direct = is_special(path);
    g_autofree char *file = direct ? g_strdup(path) : g_strconcat(path, ".XXXXXX", NULL);
    int fd = direct ? open(file, O_WRONLY | O_CLOEXEC) : mkostemp(file, O_CLOEXEC);
    unsigned mode = 0;
    mode_t mask = umask(0);
    ImageBar bar;

    umask(mask);
    if (fd < 0)
        return lodge_fail_errno(error, errno, "%s", path);
    image_bar_init(&bar);
    AgentCopy c = {.tell = tell, .stop = stop, .opaque = &bar};
    bool ok = agent_get_file(a, from, fd, &mode, &c, error);
    image_bar_end(&bar);
    ok = ok && (direct || fchmod(fd, mode & ~mask) == 0 ||
                lodge_fail_errno(error, errno, "%s", path));
    if (close(fd) < 0 && ok)
        ok = lodge_fail_errno(error, errno, "%s", path);
    if (ok && !direct && rename(file, path) < 0)
        ok = lodge_fail_errno(error, errno, "%s", path);
    if (!ok && !direct)
        unlink(file);
    return ok;
}

/* ---- a folder ---- */

/* Start tar with @words, @fd as its standard input or output. Return: -1 with the error. */
static pid_t start_tar(const char *const *words, int fd, bool input, GError **error)
{
    pid_t pid = fork();

    if (pid < 0)
        lodge_fail_errno(error, errno, "cannot start tar");
    if (pid)
        return pid;
    dup2(fd, input ? STDIN_FILENO : STDOUT_FILENO);
    execvp("tar", (char *const *)words);
    dprintf(STDERR_FILENO, "lodge: cp: cannot start tar: %s\n", g_strerror(errno));
    _exit(STATUS_LODGE);
}

static bool tar_went_well(pid_t pid, GError **error)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return status == 0 || lodge_fail(error, LODGE_ERROR_HOST, "tar of this host failed");
}

/* Run @script with two words in the guest, its stream joined to tar's here. */
static bool pipe_tar(Agent *a, const char *const *tar, bool out, const char *script,
                     const char *one, const char *two, GError **error)
{
    const char *words[] = {"/bin/sh", "-c", script, "lodge", one, two, NULL};
    int ends[2];
    AgentEnd end = {0};

    if (pipe2(ends, O_CLOEXEC) < 0)
        return lodge_fail_errno(error, errno, "cannot make a pipe");
    int theirs = ends[out ? 0 : 1], ours = ends[out ? 1 : 0];
    pid_t pid = start_tar(tar, theirs, out, error);
    close(theirs);
    AgentCommand c = {
        .argv = words,
        .in_fd = out ? -1 : ours,
        .out_fd = out ? ours : STDOUT_FILENO,
        .err_fd = STDERR_FILENO,
        .deadline = G_MAXINT64,
        .stop = guest_signal,
    };
    bool ok = pid > 0 && agent_exec(a, &c, &end, error);
    close(ours);
    ok = (pid <= 0 || tar_went_well(pid, ok ? error : NULL)) && ok;
    if (ok && end.stopped)
        return lodge_fail(error, LODGE_ERROR_HOST, "%s: the copy was stopped", agent_name(a));
    return ok && (!end.status || lodge_fail(error, LODGE_ERROR_HOST,
                                            "%s: the guest's tar failed with status %d",
                                            agent_name(a), end.status));
}

static bool put_folder(Agent *a, const char *from, const char *to, GError **error)
{
    g_autofree char *whole = realpath(from, NULL);
    if (!whole)
        return lodge_fail_errno(error, errno, "%s", from);
    g_autofree char *above = g_path_get_dirname(whole), *name = g_path_get_basename(whole);
    g_autofree char *member = g_strconcat("./", name, NULL);
    const char *tar[] = {"tar", "-C", above, "-cf", "-", member, NULL};

    if (!g_file_test(whole, G_FILE_TEST_IS_DIR))
        return put_file(a, from, to, error);
    return pipe_tar(a, tar, false, unpack_script, to, name, error);
}

static int drop_special(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    bool plain = S_ISREG(st->st_mode) || S_ISDIR(st->st_mode) || S_ISLNK(st->st_mode);

    if (plain)
        return 0;
    lodge_note("cp: %s: is no file, folder or link; left out", path + at->base);
    return unlink(path);
}

static int drop_all(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    return remove(path);
}

static bool get_folder(Agent *a, const char *from, const char *to, GError **error)
{
    g_autofree char *path = target_of(from, to), *above = g_path_get_dirname(path);
    g_autofree char *new = g_build_filename(above, ".lodge-XXXXXX", NULL);
    g_autofree char *there = g_path_get_dirname(from), *name = g_path_get_basename(from);
    const char *tar[] = {"tar", "-C", new, "--no-same-owner", "--no-same-permissions", "-xf", "-",
                         NULL};
    struct stat st;

    if (!strcmp(from, "/"))
        return lodge_fail(error, LODGE_ERROR_CONFIG, "/: has no name; copy what is in it");
    if (lstat(path, &st) == 0)
        return lodge_fail(error, LODGE_ERROR_EXISTS, "%s: is there already", path);
    if (!mkdtemp(new))
        return lodge_fail_errno(error, errno, "%s", above);
    g_autofree char *got = g_build_filename(new, name, NULL);
    bool ok = pipe_tar(a, tar, true, pack_script, there, name, error);
    if (ok && (lstat(got, &st) < 0 || !S_ISDIR(st.st_mode)))
        ok = lodge_fail(error, LODGE_ERROR_HOST, "%s: the guest sent no folder", agent_name(a));
    if (ok && (nftw(got, drop_special, WALK_FDS, FTW_PHYS) || rename(got, path) < 0))
        ok = lodge_fail_errno(error, errno, "%s", path);
    (void)nftw(new, drop_all, WALK_FDS, FTW_PHYS | FTW_DEPTH); /* what is left is of no use */
    return ok;
}

static bool copy(Agent *a, const Place *from, const Place *to, bool folder, GError **error)
{
    if (to->machine)
        return (folder ? put_folder : put_file)(a, from->path, to->path, error);
    return (folder ? get_folder : get_file)(a, from->path, to->path, error);
}

static bool stopped(void *opaque)
{
    return guest_signal(NULL);
}

int verb_cp(const Verb *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Options) o = options_parse(self->opts, argc, argv, 2, &error);
    g_auto(Place) from = {0}, to = {0};

    if (o && o->args->len != 2)
        lodge_fail(&error, LODGE_ERROR_CONFIG, "write what to copy, and where; one is NAME:PATH");
    if (error || !parse_place(g_ptr_array_index(o->args, 0), &from, &error) ||
        !parse_place(g_ptr_array_index(o->args, 1), &to, &error))
        return cli_fail(self->name, error, false);
    if (!from.machine == !to.machine) {
        lodge_fail(&error, LODGE_ERROR_CONFIG,
                   from.machine ? "both are in guests; copy to this host first"
                                : "neither is in a guest; write NAME:PATH for one");
        return cli_fail(self->name, error, false);
    }
    g_auto(GuestWay) way = {0};
    if (!guest_way_read(o, &way, &error))
        return cli_fail(self->name, error, false);
    if (way.user && way.agent) {
        lodge_fail(&error, LODGE_ERROR_CONFIG,
                   "--user: the agent copies as root; write --via console with it");
        return cli_fail(self->name, error, false);
    }
    guest_catch_signals();
    g_autoptr(Agent) a = guest_reach_by(from.machine ? from.machine : to.machine, &way,
                                        machines_deadline(GUEST_REACH_SECONDS), stopped, NULL,
                                        &error);
    if (a && copy(a, &from, &to, options_has(o, "recursive"), &error))
        return cli_finish(STATUS_OK);
    int sig = guest_signal(NULL), status = cli_fail(self->name, error, false);
    return sig ? STATUS_SIGNAL + sig : status;
}
