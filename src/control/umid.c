/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Folders of User-Mode Linux's machines, as its tools know them (Linux 6.1, arch/um: umid.c).
 *
 * A folder holds the socket "mconsole" and the file "pid", which says whose it is. It is free for
 * another when that process is gone. What UML itself leaves open is closed here: the folder is made
 * for this user alone (UML: for everybody), and one that is a link or somebody else's is refused.
 * Two that start at once are told apart by mkdir().
 */
#include "umid.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/error.h"

#define RANDOM_LETTERS 6
#define TRIES 16

struct Umid {
    char *dir, *pid_path, *mconsole; /* owned */
};

static bool name_ok(const char *umid)
{
    return umid[0] && umid[0] != '.' && strlen(umid) <= UMID_MAX && !strchr(umid, '/');
}

static char *random_name(void)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    char *name = g_malloc0(RANDOM_LETTERS + 1);

    for (unsigned i = 0; i < RANDOM_LETTERS; i++)
        name[i] = letters[g_random_int_range(0, (gint32)sizeof letters - 1)];
    return name;
}

/* Transfer full. */
static char *expand(const char *uml_dir)
{
    if (!uml_dir)
        return g_build_filename(g_get_home_dir(), ".uml", NULL);
    if (uml_dir[0] == '~' && (!uml_dir[1] || uml_dir[1] == '/'))
        return g_build_filename(g_get_home_dir(), uml_dir + 1, NULL);
    return g_strdup(uml_dir);
}

/* The folder's process, if it lives; 0: none. */
static long owner_of(const char *pid_path)
{
    g_autofree char *text = NULL;
    long pid = g_file_get_contents(pid_path, &text, NULL, NULL) ? strtol(text, NULL, 10) : 0;

    return pid > 0 && (kill((pid_t)pid, 0) == 0 || errno != ESRCH) ? pid : 0;
}

/* Remove the files in @dir and itself; a folder in it, which none of ours is, makes it stay. */
static bool remove_dir(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

    for (struct dirent *e = NULL; d && (e = readdir(d));)
        (void)unlinkat(fd, e->d_name, 0);
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    return rmdir(dir) == 0 || errno == ENOENT;
}

/* The folder is there: take it over if nobody lives in it. */
static bool reclaim(const char *dir, const char *umid, GError **error)
{
    g_autofree char *pid_path = g_build_filename(dir, "pid", NULL);
    struct stat st;
    long pid;

    if (lstat(dir, &st) < 0)
        return errno == ENOENT;
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return lodge_fail(error, LODGE_ERROR_HOST,
                          "%s: is not a folder of this user; remove it or choose another umid",
                          dir);
    pid = owner_of(pid_path);
    if (pid)
        return lodge_fail(error, LODGE_ERROR_EXISTS,
                          "umid \"%s\" is already in use by pid %ld; choose another", umid, pid);
    return remove_dir(dir) || lodge_fail_errno(error, errno, "%s: cannot be taken over", dir);
}

static bool write_pid(const char *path, GError **error)
{
    g_autofree char *text = g_strdup_printf("%d\n", (int)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    ssize_t n = fd < 0 ? -1 : write(fd, text, strlen(text));

    if (fd >= 0)
        close(fd);
    return n == (ssize_t)strlen(text) || lodge_fail_errno(error, errno, "%s: cannot write", path);
}

Umid *umid_claim(const char *uml_dir, const char *umid, GError **error)
{
    g_autofree char *root = expand(uml_dir);
    bool made = false;

    if (umid && !name_ok(umid)) {
        lodge_fail(error, LODGE_ERROR_CONFIG,
                   "umid \"%s\": must have 1 to %d letters, no slash, and no dot in front", umid,
                   UMID_MAX);
        return NULL;
    }
    if (mkdir(root, 0777) < 0 && errno != EEXIST) {
        lodge_fail_errno(error, errno, "%s: cannot make the folder of umids", root);
        return NULL;
    }
    Umid *u = g_new0(Umid, 1);
    for (unsigned i = 0; i < TRIES && !made; i++) {
        g_autofree char *drawn = umid ? NULL : random_name();
        const char *name = umid ? umid : drawn;

        g_free(u->dir);
        u->dir = g_build_filename(root, name, NULL);
        made = mkdir(u->dir, 0700) == 0;
        if (made)
            break;
        if (errno != EEXIST) {
            lodge_fail_errno(error, errno, "%s: cannot make the folder", u->dir);
            break;
        }
        if (umid && !reclaim(u->dir, umid, error))
            break;
        errno = EEXIST;
    }
    if (!made) {
        if (error && !*error)
            lodge_fail_errno(error, errno, "%s: cannot make the folder", u->dir);
        g_free(u->dir);
        g_free(u);
        return NULL;
    }
    u->pid_path = g_build_filename(u->dir, "pid", NULL);
    u->mconsole = g_build_filename(u->dir, "mconsole", NULL);
    if (write_pid(u->pid_path, error))
        return u;
    umid_release(u);
    return NULL;
}

void umid_release(Umid *u)
{
    if (!u)
        return;
    (void)remove_dir(u->dir); /* what cannot be removed is taken over by the next */
    g_free(u->dir);
    g_free(u->pid_path);
    g_free(u->mconsole);
    g_free(u);
}

const char *umid_mconsole(const Umid *u)
{
    return u->mconsole;
}
