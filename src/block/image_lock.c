/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks on image files: one writer, or any number of readers. Open file description locks over the
 * whole file, which conflict with the POSIX locks of User-Mode Linux and the locks of QEMU, and do
 * not vanish when some other descriptor of the file is closed.
 *
 * When refused, the message names the holder: a VM by the registry (blk_set_holder_lookup()), else
 * a process. F_OFD_GETLK tells the process of a POSIX lock only, so others are looked for among the
 * open files in /proc that have a lock; what belongs to another user stays unknown.
 *
 * Spec: fcntl(2), "Open file description locks"; proc(5), /proc/PID/fdinfo.
 *
 * The one variable of this file is the look-up function, set once at start.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lodge/diag.h"

#include "block_int.h"

#define SCAN_MAX 65536u /* descriptors looked at before giving up on a name */
/* A lock that no process holds may be a killed one's: the kernel takes an io_uring apart, and drops
 * the files it refers to, some time after the process is gone. Nothing tells when. */
#define GHOST_WAIT_US 20000u
#define GHOST_TRIES 150u

static struct {
    BlkHolderFn fn;
    void *opaque;
} lookup; /* main thread only */

void blk_set_holder_lookup(BlkHolderFn fn, void *opaque)
{
    lookup.fn = fn;
    lookup.opaque = opaque;
}

/* "qemu-system-x86 (process 1234)"; transfer full. */
static char *describe_process(long pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%ld/comm", pid);
    g_autofree char *comm = NULL;

    if (pid == (long)getpid())
        return g_strdup("this VM itself");
    if (!g_file_get_contents(path, &comm, NULL, NULL))
        return g_strdup_printf("process %ld", pid);
    g_strchomp(comm);
    return g_strdup_printf("%s (process %ld)", comm, pid);
}

static bool fd_has_lock(const char *pid, const char *fd)
{
    g_autofree char *path = g_strdup_printf("/proc/%s/fdinfo/%s", pid, fd);
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) && strstr(text, "\nlock:");
}

/* Whether process @pid has a locked descriptor of the file other than @own_fd of ours. */
static bool process_holds(const char *pid, const struct stat *st, int own_fd, unsigned *budget)
{
    g_autofree char *path = g_strdup_printf("/proc/%s/fd", pid);
    DIR *dir = opendir(path);
    bool self = strtol(pid, NULL, 10) == (long)getpid();
    bool found = false;
    struct dirent *e;

    if (!dir)
        return false; /* another user's, or gone */
    while (!found && *budget && (e = readdir(dir))) {
        struct stat other;
        (*budget)--;
        if (!g_ascii_isdigit(e->d_name[0]) || fstatat(dirfd(dir), e->d_name, &other, 0) < 0)
            continue;
        if (other.st_dev != st->st_dev || other.st_ino != st->st_ino)
            continue;
        if (self && strtol(e->d_name, NULL, 10) == own_fd)
            continue;
        found = fd_has_lock(pid, e->d_name);
    }
    closedir(dir);
    return found;
}

static char *scan_processes(const struct stat *st, int own_fd)
{
    DIR *dir = opendir("/proc");
    char *name = NULL;
    unsigned budget = SCAN_MAX;
    struct dirent *e;

    if (!dir)
        return NULL;
    while (!name && budget && (e = readdir(dir)))
        if (g_ascii_isdigit(e->d_name[0]) && process_holds(e->d_name, st, own_fd, &budget))
            name = describe_process(strtol(e->d_name, NULL, 10));
    closedir(dir);
    return name;
}

/* Who is in the way; transfer full, NULL where nobody is seen. */
static char *find_holder(int fd, short type, const char *holder)
{
    struct stat st;
    struct flock l = {.l_type = type, .l_whence = SEEK_SET};
    char *name = NULL;

    if (fstat(fd, &st) < 0)
        return NULL;
    if (lookup.fn)
        name = lookup.fn(lookup.opaque, st.st_dev, st.st_ino);
    if (name && *name) {
        char *text = holder && strcmp(name, holder) == 0 ? g_strdup("this VM itself")
                                                         : g_strdup_printf("VM '%s'", name);
        g_free(name);
        return text;
    }
    g_free(name);
    if (fcntl(fd, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK && l.l_pid > 0)
        return describe_process(l.l_pid);
    return scan_processes(&st, fd);
}

bool image_lock(int fd, const char *path, bool exclusive, const char *holder, GError **error)
{
    struct flock l = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    g_autofree char *who = NULL;
    int err;

    for (unsigned i = 0;; i++) {
        do
            err = fcntl(fd, F_OFD_SETLK, &l) == 0 ? 0 : errno;
        while (err == EINTR);
        if ((err != EAGAIN && err != EACCES) || i >= GHOST_TRIES ||
            (who = find_holder(fd, l.l_type, holder)))
            break;
        g_usleep(GHOST_WAIT_US);
    }
    switch (err) {
    case 0:
        return true;
    case EAGAIN:
    case EACCES:
        return lodge_fail(error, LODGE_ERROR_BUSY, "'%s': in use by %s; %s", path,
                          who ? who : "another process",
                          !exclusive ? "stop that first: it writes to the image"
                          : holder   ? "stop that first, or give this VM an overlay of its own"
                                     : "stop that first");
    case ENOLCK:
    case EOPNOTSUPP:
    case ENOSYS:
    case EINVAL:
        lodge_warn("disk: '%s': its file system has no locks (%s); do not open it twice", path,
                   g_strerror(err));
        return true;
    default:
        return lodge_fail_errno(error, err, "'%s': cannot lock", path);
    }
}

void image_lock_change(int fd, short type)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET};

    /* Without locks the file system has said so before; a lock goes with its file at the latest. */
    (void)fcntl(fd, F_OFD_SETLK, &l);
}
